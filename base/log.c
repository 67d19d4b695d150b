#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/wbuf.h"

static _Atomic int log_fd = STDERR_FILENO;
static _Atomic int log_max_level = LOG_WARN;
static _Atomic int log_line_format = LOG_TEXT;

/* Room for the longest message with every byte escaped as \u00xx would exceed a sane frame; a line
 * is cut here and stays well-formed. */
#define LOG_LINE_MAX 2048

void log_init(int fd, enum log_level max_level, enum log_format format)
{
    atomic_store(&log_fd, fd);
    atomic_store(&log_max_level, (int)max_level);
    atomic_store(&log_line_format, (int)format);
}

void log_set_fd(int fd)
{
    atomic_store(&log_fd, fd);
}

void log_set_level(enum log_level max_level)
{
    atomic_store(&log_max_level, (int)max_level);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&log_max_level, memory_order_relaxed);
}

static const char *log_level_name(enum log_level level)
{
    switch (level) {
    case LOG_ERROR:
        return "error";
    case LOG_WARN:
        return "warning";
    case LOG_INFO:
        return "info";
    case LOG_DEBUG:
        return "debug";
    default:
        return "unknown";
    }
}

struct log_date {
    long long year;
    int month, day, hour, min, sec;
};

/* Proleptic Gregorian date from seconds since 1970, after the well-known days-from-civil inverse.
 * gmtime_r is of no use: it may open the time zone file, which the sentry's filter forbids. */
static struct log_date log_date_of(long long t)
{
    long long days = t / 86400, rest = t % 86400;
    long long era, doe, yoe, doy, mp;
    struct log_date d;

    if (rest < 0) {
        rest += 86400;
        days--;
    }
    days += 719468; /* from 0000-03-01 */
    era = (days >= 0 ? days : days - 146096) / 146097;
    doe = days - era * 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;
    d.day = (int)(doy - (153 * mp + 2) / 5 + 1);
    d.month = (int)(mp < 10 ? mp + 3 : mp - 9);
    d.year = yoe + era * 400 + (d.month <= 2);
    d.hour = (int)(rest / 3600);
    d.min = (int)(rest / 60 % 60);
    d.sec = (int)(rest % 60);
    return d;
}

static void log_put_time(struct wbuf *w, long long sec, long nsec)
{
    struct log_date d = log_date_of(sec);

    wbuf_printf(w, "%04lld-%02d-%02dT%02d:%02d:%02d.%06ldZ", d.year, d.month, d.day, d.hour, d.min,
                d.sec, nsec / 1000);
}

/* Length of the valid UTF-8 sequence at s (n bytes are left), 0 when there is none. */
static size_t log_utf8_size(const unsigned char *s, size_t n)
{
    size_t len;
    uint32_t cp;

    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf) {
        len = 2;
        cp = s[0] & 0x1fu;
    } else if ((s[0] & 0xf0) == 0xe0) {
        len = 3;
        cp = s[0] & 0x0fu;
    } else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
        len = 4;
        cp = s[0] & 0x07u;
    } else {
        return 0;
    }
    if (len > n)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        cp = cp << 6 | (s[i] & 0x3fu);
    }
    if ((len == 3 && (cp < 0x800 || (cp >= 0xd800 && cp <= 0xdfff))) ||
        (len == 4 && (cp < 0x10000 || cp > 0x10ffff)))
        return 0;
    return len;
}

static void log_escape_byte(char *esc, size_t size, unsigned char c, enum log_format format)
{
    if (format == LOG_JSON && (c == '"' || c == '\\'))
        snprintf(esc, size, "\\%c", c);
    else if (c == '\n')
        snprintf(esc, size, "\\n");
    else if (c == '\t')
        snprintf(esc, size, "\\t");
    else if (format == LOG_JSON)
        snprintf(esc, size, c < 0x80 ? "\\u%04x" : "\\ufffd", c);
    else
        snprintf(esc, size, "\\x%02x", c);
}

/* Guest-controlled text reaches messages: nothing in it may end the line or the JSON string, nor
 * send control sequences to a terminal. keep: bytes to leave free for what ends the line. */
static void log_put_escaped(struct wbuf *w, const char *msg, enum log_format format, size_t keep)
{
    const unsigned char *s = (const unsigned char *)msg;
    size_t n = strlen(msg);

    while (n > 0) {
        size_t len = log_utf8_size(s, n);
        char esc[12];

        if (wbuf_left(w) < keep + sizeof(esc))
            return;
        if (len == 0 || s[0] < 0x20 || s[0] == 0x7f ||
            (format == LOG_JSON && (s[0] == '"' || s[0] == '\\'))) {
            log_escape_byte(esc, sizeof(esc), s[0], format);
            wbuf_str(w, esc);
            len = 1;
        } else {
            wbuf_bytes(w, s, len);
        }
        s += len;
        n -= len;
    }
}

size_t log_format_line(char *out, size_t size, enum log_level level, enum log_format format,
                       long long sec, long nsec, const char *msg)
{
    /* `","time":"` + 27 characters + `"}` + newline, and some air */
    const size_t tail = 64;
    struct wbuf w;

    wbuf_init(&w, out, size);
    if (format == LOG_JSON) {
        wbuf_printf(&w, "{\"level\":\"%s\",\"msg\":\"", log_level_name(level));
        log_put_escaped(&w, msg, format, tail);
        wbuf_str(&w, "\",\"time\":\"");
        log_put_time(&w, sec, nsec);
        wbuf_str(&w, "\"}\n");
    } else {
        log_put_time(&w, sec, nsec);
        wbuf_printf(&w, " %s: ", log_level_name(level));
        log_put_escaped(&w, msg, format, tail);
        wbuf_u8(&w, '\n');
    }
    return w.len;
}

void log_write(enum log_level level, const char *fmt, ...)
{
    char msg[LOG_MESSAGE_MAX];
    char line[LOG_LINE_MAX];
    int saved_errno = errno;
    struct timespec now = {0};
    size_t len;
    ssize_t ignored;
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    (void)clock_gettime(CLOCK_REALTIME, &now);
    len = log_format_line(line, sizeof(line), level, (enum log_format)atomic_load(&log_line_format),
                          now.tv_sec, now.tv_nsec, msg);
    /* A log that cannot be written is no reason to stop. */
    ignored = write(atomic_load(&log_fd), line, len);
    (void)ignored;
    errno = saved_errno;
}
