/*
 * What: one error of the front end: an errno-like code and a line of text that grows on its way up.
 * Depends on: base/compiler.h.
 * Threading: a struct err belongs to one thread.
 * Ownership: no heap; the struct lives in the caller's frame.
 */
#ifndef RINGWALL_RUNSC_ERR_H
#define RINGWALL_RUNSC_ERR_H

#include <stddef.h>

#include "base/compiler.h"

/* The text is cut, never overrun. One line is what every client shows to its user. */
#define ERR_TEXT_MAX 1024

struct err {
    int code; /* positive errno value, 0 when nothing fits it */
    char text[ERR_TEXT_MAX];
};

/* Set code and text anew. Returns -1 always, so `return err_set(e, ...)` reads as one step. */
int err_set(struct err *e, int code, const char *fmt, ...) PRINTF_FMT(3, 4);

/* What went wrong, as strerror(3) says it but in the small letters that managers look for ("no such
 * file or directory"). buf may be used. */
const char *err_reason(int code, char *buf, size_t size);

/* As err_set, with ": <err_reason(code)>" appended. code may be given negative. */
int err_errno(struct err *e, int code, const char *fmt, ...) PRINTF_FMT(3, 4);

/* Put "<fmt>: " before the text that is there. Keeps the code. Returns -1 always. */
int err_wrap(struct err *e, const char *fmt, ...) PRINTF_FMT(2, 3);

#endif
