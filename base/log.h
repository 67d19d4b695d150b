/* One log for the process: one line, one write(2).
 * Depends on: compiler.h.
 * Threading: any thread, and signal handlers as far as vsnprintf allows; no lock, no allocation.
 * Ownership: borrows the target descriptor. */
#ifndef RINGWALL_BASE_LOG_H
#define RINGWALL_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
/* TEXT: "2024-05-01T12:00:00.000000Z error: message". JSON: {"level":...,"msg":...,"time":...} as
 * containerd and docker read it. Control characters in messages are escaped in both. */
enum log_format { LOG_TEXT, LOG_JSON };

/* A message is cut at this many bytes. */
#define LOG_MESSAGE_MAX 1024

/* Before: errors and warnings to descriptor 2 as text. Call it while the process has one thread. */
void log_init(int fd, enum log_level max_level, enum log_format format);
void log_set_fd(int fd);
void log_set_level(enum log_level max_level);
bool log_enabled(enum log_level level);
PRINTF_FMT(2, 3) void log_write(enum log_level level, const char *fmt, ...);
/* The line for a message, newline included, into out: its length (<= size). For tests and for
 * writers of their own files. */
size_t log_format_line(char *out, size_t size, enum log_level level, enum log_format format,
                       long long sec, long nsec, const char *msg);

/* Arguments are not evaluated when the level is off. */
#define LOG_AT(level, ...)                                                                         \
    do {                                                                                           \
        if (log_enabled(level))                                                                    \
            log_write((level), __VA_ARGS__);                                                       \
    } while (0)
#define log_error(...) LOG_AT(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) LOG_AT(LOG_WARN, __VA_ARGS__)
#define log_info(...) LOG_AT(LOG_INFO, __VA_ARGS__)
#define log_debug(...) LOG_AT(LOG_DEBUG, __VA_ARGS__)

#endif
