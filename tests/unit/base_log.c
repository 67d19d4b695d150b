/* Log lines: dates, escapes, cuts. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

static char line[2048];

static const char *format(enum log_format f, const char *msg)
{
    size_t n = log_format_line(line, sizeof(line) - 1, LOG_ERROR, f, 0, 0, msg);

    line[n] = '\0';
    return line;
}

Test(log, json_escapes)
{
    cr_assert_str_eq(format(LOG_JSON, "a \"b\" \\ \n\t\x01\x1b[0m \xc3\xa9 \xff\xc3"),
                     "{\"level\":\"error\",\"msg\":\"a \\\"b\\\" \\\\ \\n\\t\\u0001\\u001b[0m "
                     "\xc3\xa9 \\ufffd\\ufffd\",\"time\":\"1970-01-01T00:00:00.000000Z\"}\n");
}

Test(log, text_escapes)
{
    cr_assert_str_eq(format(LOG_TEXT, "x\ny\x1b[31m\xff \"q\""),
                     "1970-01-01T00:00:00.000000Z error: x\\ny\\x1b[31m\\xff \"q\"\n");
}

Test(log, bad_utf8_is_refused)
{
    /* over-long, surrogate, beyond U+10FFFF, cut short */
    const char *bad[] = {"\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                         "\xe2\x82"};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        cr_assert_not_null(strstr(format(LOG_JSON, bad[i]), "\\ufffd"), "case %zu", i);
    cr_assert_null(strstr(format(LOG_JSON, "\xf0\x9f\x98\x80 \xe2\x82\xac"), "\\u"));
}

Test(log, long_messages_are_cut_and_stay_whole)
{
    static char msg[4000];

    memset(msg, '\x01', sizeof(msg) - 1);
    format(LOG_JSON, msg);
    cr_assert_str_eq(line + strlen(line) - 3, "\"}\n");
    cr_assert_not_null(strstr(line, "\\u0001\",\"time\":\"1970"));
    format(LOG_TEXT, msg);
    cr_assert_eq(line[strlen(line) - 1], '\n');
}

Test(log, dates_agree_with_the_library)
{
    static const long long moments[] = {-1,         0,          951782399,  951782400,   4107542399,
                                        4107542400, 1709164800, 1709251199, 253402300799};

    for (size_t i = 0; i < ARRAY_SIZE(moments); i++) {
        time_t t = (time_t)moments[i];
        struct tm tm;
        char want[64];

        gmtime_r(&t, &tm);
        strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%S.000123Z", &tm);
        log_format_line(line, sizeof(line), LOG_INFO, LOG_TEXT, moments[i], 123456, "m");
        cr_assert(strncmp(line, want, strlen(want)) == 0, "%.40s is not %s", line, want);
    }
}

static int evaluated;

static const char *touch(void)
{
    evaluated++;
    return "";
}

Test(log, one_line_per_message_and_levels)
{
    char path[] = "/tmp/ringwall-log-XXXXXX";
    char text[4096];
    int fd = mkstemp(path);
    ssize_t n;

    cr_assert_geq(fd, 0);
    unlink(path);
    log_init(fd, LOG_INFO, LOG_TEXT);
    log_debug("not seen %s", touch());
    cr_assert_eq(evaluated, 0);
    log_info("one %d", 1);
    log_error("two\n");
    n = pread(fd, text, sizeof(text) - 1, 0);
    cr_assert_gt(n, 0);
    text[n] = '\0';
    cr_assert_not_null(strstr(text, " info: one 1\n"));
    cr_assert_not_null(strstr(text, " error: two\\n\n"));
    cr_assert_null(strstr(text, "not seen"));
    close(fd);
}
