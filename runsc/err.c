#include "runsc/err.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void err_format(struct err *e, const char *fmt, va_list ap) PRINTF_FMT(2, 0);

static void err_format(struct err *e, const char *fmt, va_list ap)
{
    if (vsnprintf(e->text, sizeof(e->text), fmt, ap) < 0)
        e->text[0] = '\0';
    /* One line, and nothing that moves a terminal's cursor, whatever was quoted in it. */
    for (char *c = e->text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;

    e->code = code < 0 ? -code : code;
    va_start(ap, fmt);
    err_format(e, fmt, ap);
    va_end(ap);
    return -1;
}

const char *err_reason(int code, char *buf, size_t size)
{
    const char *text = strerror(code < 0 ? -code : code);

    /* "RFS specific error" keeps its capitals. */
    if (!isupper((unsigned char)text[0]) || isupper((unsigned char)text[1]))
        return text;
    (void)snprintf(buf, size, "%c%s", tolower((unsigned char)text[0]), text + 1);
    return buf;
}

int err_errno(struct err *e, int code, const char *fmt, ...)
{
    char reason[128];
    va_list ap;
    size_t used;

    e->code = code < 0 ? -code : code;
    va_start(ap, fmt);
    err_format(e, fmt, ap);
    va_end(ap);
    used = strlen(e->text);
    (void)snprintf(e->text + used, sizeof(e->text) - used, ": %s",
                   err_reason(e->code, reason, sizeof(reason)));
    return -1;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    char inner[ERR_TEXT_MAX];
    va_list ap;
    size_t used;

    memcpy(inner, e->text, sizeof(inner));
    va_start(ap, fmt);
    err_format(e, fmt, ap);
    va_end(ap);
    used = strlen(e->text);
    (void)snprintf(e->text + used, sizeof(e->text) - used, ": %s", inner);
    return -1;
}
