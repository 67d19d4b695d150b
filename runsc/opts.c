/* Options of commands: long and short, with or without "=". */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runsc/cmd.h"

static const struct cmd_opt *opts_find(const struct cmd_opt *opts, size_t count, const char *name,
                                       size_t len)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(opts[i].name) == len && memcmp(opts[i].name, name, len) == 0)
            return &opts[i];
    return NULL;
}

static int opts_flag(const struct cmd_opt *o, const char *value, struct err *e)
{
    if (value == NULL || strcmp(value, "true") == 0)
        *o->flag = true;
    else if (strcmp(value, "false") == 0)
        *o->flag = false;
    else
        return err_set(e, EINVAL, "option --%s takes no value but true or false", o->name);
    return 0;
}

/* value: after "=", or NULL. *i moves on when the value is the next argument. */
static int opts_apply(const struct cmd_opt *o, const char *value, int argc, char **argv, int *i,
                      struct err *e)
{
    if (o->flag != NULL)
        return opts_flag(o, value, e);
    if (value == NULL) {
        if (*i + 1 >= argc)
            return err_set(e, EINVAL, "option --%s needs a value", o->name);
        value = argv[++*i];
    }
    if (o->text != NULL) {
        *o->text = value;
        return 0;
    }
    return o->fn(o->arg, value, e);
}

static int opts_long(const struct cmd_opt *opts, size_t count, int argc, char **argv, int *i,
                     struct err *e)
{
    const char *name = argv[*i] + (argv[*i][1] == '-' ? 2 : 1);
    const char *eq = strchr(name, '=');
    size_t len = eq != NULL ? (size_t)(eq - name) : strlen(name);
    const struct cmd_opt *o = opts_find(opts, count, name, len);

    if (o == NULL)
        return err_set(e, EINVAL, "unknown option %.100s", argv[*i]);
    return opts_apply(o, eq != NULL ? eq + 1 : NULL, argc, argv, i, e);
}

static const struct cmd_opt *opts_letter(const struct cmd_opt *opts, size_t count, char c)
{
    for (size_t i = 0; i < count; i++)
        if (opts[i].letter == c)
            return &opts[i];
    return NULL;
}

/* "-it": several flags in one word; the last may take a value. */
static int opts_short(const struct cmd_opt *opts, size_t count, int argc, char **argv, int *i,
                      struct err *e)
{
    const char *word = argv[*i];

    for (const char *p = word + 1; *p != '\0'; p++) {
        const struct cmd_opt *o = opts_letter(opts, count, *p);
        if (o == NULL)
            return err_set(e, EINVAL, "unknown option %.100s", word);
        if (o->flag != NULL) {
            *o->flag = true;
            continue;
        }
        return opts_apply(o, p[1] != '\0' ? p + 1 : NULL, argc, argv, i, e);
    }
    return 0;
}

/* "-bundle=x" is accepted as "--bundle=x" when no short option fits, as Go programs do. */
static int opts_word(const struct cmd_opt *opts, size_t count, int argc, char **argv, int *i,
                     struct err *e)
{
    const char *word = argv[*i];
    size_t len = strcspn(word + 1, "=");

    if (word[1] == '-' || opts_find(opts, count, word + 1, len) != NULL)
        return opts_long(opts, count, argc, argv, i, e);
    return opts_short(opts, count, argc, argv, i, e);
}

int cmd_parse(int argc, char **argv, const struct cmd_opt *opts, size_t count, struct err *e)
{
    int i;

    for (i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (strcmp(word, "--") == 0)
            return i + 1;
        if (word[0] != '-' || word[1] == '\0')
            return i;
        if (opts_word(opts, count, argc, argv, &i, e) != 0)
            return -1;
    }
    return i;
}

int cmd_operands(int argc, char **argv, int first, int min, int max, struct err *e)
{
    int n = argc - first;

    if (n < min)
        return err_set(e, EINVAL, "%s: too few arguments; see runsc --help", argv[0]);
    if (max >= 0 && n > max)
        return err_set(e, EINVAL, "%s: unexpected argument \"%.100s\"", argv[0], argv[first + max]);
    return 0;
}

const char *cmd_printable(const char *v, char *buf, size_t size)
{
    if (v != buf)
        (void)snprintf(buf, size, "%s", v != NULL ? v : "-");
    for (char *c = buf; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return buf;
}
