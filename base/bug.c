#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/compiler.h"

/* Only async-signal-safe calls: the failure may be in the logger, the allocator or a handler. */
static size_t bug_append(char *buf, size_t size, size_t at, const char *s)
{
    size_t n = strnlen(s, size - at);

    memcpy(buf + at, s, n);
    return at + n;
}

static size_t bug_append_line(char *buf, size_t size, size_t at, int line)
{
    char digits[12];
    size_t i = sizeof(digits) - 1;

    digits[i] = '\0';
    do {
        digits[--i] = (char)('0' + line % 10);
        line /= 10;
    } while (line > 0 && i > 0);
    return bug_append(buf, size, at, digits + i);
}

NORETURN void bug_fail(const char *file, int line, const char *expr)
{
    char buf[512];
    size_t size = sizeof(buf) - 1;
    size_t at = 0;
    ssize_t ignored;

    at = bug_append(buf, size, at, "ringwall: BUG: ");
    at = bug_append(buf, size, at, file);
    at = bug_append(buf, size, at, ":");
    at = bug_append_line(buf, size, at, line);
    at = bug_append(buf, size, at, ": ");
    at = bug_append(buf, size, at, expr);
    buf[at++] = '\n';
    ignored = write(STDERR_FILENO, buf, at);
    (void)ignored;
    abort();
}
