/* "#!" lines, as Linux's fs/binfmt_script.c takes them apart. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "sentry/loader/loader_priv.h"

/* Linux looks at this much of a file (BINPRM_BUF_SIZE). */
#define SCRIPT_HEAD 256

struct script_line {
    char text[SCRIPT_HEAD + 1];
    const char *interp, *arg; /* into text; arg NULL without one */
};

static bool script_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* -ENOEXEC: not a script, or a line that does not say which interpreter. */
static int script_parse(struct script_line *l, size_t size)
{
    char *s = l->text + 2, *end;

    if (size < 3 || l->text[0] != '#' || l->text[1] != '!')
        return -ENOEXEC;
    end = memchr(s, '\n', size - 2);
    if (end == NULL) {
        /* The whole line is not here: only whole names count. */
        end = l->text + size;
        if (size == SCRIPT_HEAD) {
            while (s < end && script_blank(*s))
                s++;
            while (s < end && !script_blank(*s) && *s != '\0')
                s++;
            if (s == end)
                return -ENOEXEC;
            s = l->text + 2;
        }
    }
    while (end > s && (script_blank(end[-1]) || end[-1] == '\0'))
        end--;
    *end = '\0';
    while (script_blank(*s))
        s++;
    if (*s == '\0')
        return -ENOEXEC;
    l->interp = s;
    while (*s != '\0' && !script_blank(*s))
        s++;
    if (*s == '\0')
        return 0;
    *s++ = '\0';
    while (script_blank(*s))
        s++;
    l->arg = *s != '\0' ? s : NULL;
    return 0;
}

static char *script_append(char *at, const char *text)
{
    size_t size = strlen(text) + 1;

    memcpy(at, text, size);
    return at + size;
}

/* argv[0] gives way to the interpreter, its argument and the script's name. */
static int script_args(struct program *p, const struct script_line *l, const char *script)
{
    const struct image_strings *old = &p->argv;
    size_t skip = old->count > 0 ? strlen(old->text) + 1 : 0;
    size_t size = strlen(l->interp) + 1 + (l->arg != NULL ? strlen(l->arg) + 1 : 0) +
                  strlen(script) + 1 + (old->size - skip);
    char *text, *at;

    if (size > LIMIT_ARG_SIZE)
        return -E2BIG;
    text = malloc(size);
    if (text == NULL)
        return -ENOMEM;
    at = script_append(text, l->interp);
    if (l->arg != NULL)
        at = script_append(at, l->arg);
    at = script_append(at, script);
    memcpy(at, old->text + skip, old->size - skip);
    p->argv = (struct image_strings){
        .text = text,
        .size = size,
        .count = (old->count > 0 ? old->count - 1 : 0) + 2 + (l->arg != NULL ? 1 : 0),
    };
    free(p->args);
    p->args = text;
    return 0;
}

int script_resolve(const struct task_image_args *a, struct program *p)
{
    char *name = strdup(a->filename);
    int r = name != NULL ? 0 : -ENOMEM;

    for (int depth = 0; r == 0; depth++) {
        struct script_line l = {0};
        int64_t n = vfs_pread_kernel(p->file, l.text, SCRIPT_HEAD, 0);
        if (n < 0) {
            r = (int)n;
            break;
        }
        if (n < 2 || l.text[0] != '#' || l.text[1] != '!')
            break;
        r = script_parse(&l, (size_t)n);
        if (r == 0 && depth == LIMIT_EXEC_DEPTH)
            r = -ELOOP;
        if (r == 0 && a->filename_inaccessible)
            r = -ENOENT;
        if (r == 0)
            r = script_args(p, &l, name);
        if (r != 0)
            break;
        struct file *next;
        r = image_open(a->caller, NULL, l.interp, VFS_FOLLOW, &next);
        if (r != 0)
            break;
        file_put(p->file);
        p->file = next;
        free(name);
        name = strdup(l.interp);
        if (name == NULL)
            r = -ENOMEM;
    }
    free(name);
    return r;
}
