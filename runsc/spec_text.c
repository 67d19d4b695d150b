/* From a file's bytes to a JSON document. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runsc/spec_json.h"

#define INT64_DIGITS 19

/* True when the decimal digits at p stand for more than 2^63-1. */
static bool spec_too_wide(const char *p, size_t digits)
{
    static const char max[] = "9223372036854775807";

    return digits > INT64_DIGITS || (digits == INT64_DIGITS && memcmp(p, max, INT64_DIGITS) > 0);
}

/* Copies one number from in to out, with "e0" behind an integer that is too wide. */
static size_t spec_widen_number(const char *in, size_t left, size_t *out_taken, char *out)
{
    size_t digits = 0, used;
    bool real;

    while (digits < left && in[digits] >= '0' && in[digits] <= '9')
        digits++;
    real = digits < left && (in[digits] == '.' || in[digits] == 'e' || in[digits] == 'E');
    memcpy(out, in, digits);
    *out_taken = digits;
    used = digits;
    if (!real && spec_too_wide(in, digits)) {
        out[used++] = 'e';
        out[used++] = '0';
    }
    return used;
}

/* out has room for size + 2 * (size / INT64_DIGITS + 1) bytes. Returns the bytes used. */
static size_t spec_widen(const char *text, size_t size, char *out)
{
    bool in_string = false;
    size_t used = 0, i = 0;

    while (i < size) {
        char c = text[i];

        if (!in_string && c >= '0' && c <= '9') {
            size_t taken;

            used += spec_widen_number(text + i, size - i, &taken, out + used);
            i += taken;
            continue;
        }
        if (in_string && c == '\\' && i + 1 < size) {
            out[used++] = text[i++];
        } else if (c == '"') {
            in_string = !in_string;
        }
        out[used++] = text[i++];
    }
    return used;
}

int spec_text_to_json(const char *text, size_t size, const char *name, json_t **out_json,
                      struct err *e)
{
    json_error_t je;
    json_t *json;
    char *wide;
    size_t used;

    if (size > SPEC_FILE_MAX)
        return err_set(e, EFBIG, "%s: larger than %u bytes", name, SPEC_FILE_MAX);
    wide = malloc(size + 2 * (size / INT64_DIGITS + 1));
    if (wide == NULL)
        return err_set(e, ENOMEM, "%s: out of memory", name);
    used = spec_widen(text, size, wide);
    json = json_loadb(wide, used, 0, &je);
    free(wide);
    if (json == NULL)
        return err_set(e, EINVAL, "%s: line %d: %s", name, je.line, je.text);
    if (!json_is_object(json)) {
        json_decref(json);
        return err_set(e, EINVAL, "%s: must be a JSON object", name);
    }
    *out_json = json;
    return 0;
}

/* Reads at most SPEC_FILE_MAX + 1 bytes, so that a longer file shows. */
static int spec_read_all(int fd, const char *name, char **out_text, size_t *out_size, struct err *e)
{
    struct stat st;
    size_t size = 0, room = SPEC_FILE_MAX + 1;
    char *text;

    if (fstat(fd, &st) != 0)
        return err_errno(e, errno, "%s", name);
    /* What is typed or piped in is read like a file; a directory or a device is a mistake. */
    if (!S_ISREG(st.st_mode) && !(fd == STDIN_FILENO && !S_ISDIR(st.st_mode)))
        return err_set(e, EINVAL, "%s: not a regular file", name);
    if (S_ISREG(st.st_mode) && st.st_size >= 0 && (size_t)st.st_size < SPEC_FILE_MAX)
        room = (size_t)st.st_size + 1;
    text = malloc(room);
    if (text == NULL)
        return err_set(e, ENOMEM, "%s: out of memory", name);
    while (size < room) {
        ssize_t n = read(fd, text + size, room - size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            (void)err_errno(e, errno, "%s", name);
            free(text);
            return -1;
        }
        if (n == 0)
            break;
        size += (size_t)n;
    }
    *out_text = text;
    *out_size = size;
    return 0;
}

int spec_read_json(const char *path, const char *name, json_t **out_json, struct err *e)
{
    char *text = NULL;
    size_t size = 0;
    int fd, rc;

    /* O_NONBLOCK: a FIFO in place of the file must not hold the command up. */
    fd = strcmp(path, "-") == 0 ? STDIN_FILENO
                                : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_errno(e, errno, "%s: cannot open %s", name, path);
    rc = spec_read_all(fd, name, &text, &size, e);
    if (fd != STDIN_FILENO)
        (void)close(fd);
    if (rc != 0)
        return -1;
    rc = spec_text_to_json(text, size, name, out_json, e);
    free(text);
    return rc;
}
