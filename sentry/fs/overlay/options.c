#include "sentry/fs/overlay/options.h"

static int option_dir(const struct vfs_caller *c, const char *path, struct vpath *out, bool *has)
{
    struct vpath p;
    int r = vfs_lookup(c, NULL, path, VFS_FOLLOW | VFS_DIRECTORY, &p);

    if (r != 0)
        return r;
    if (*has)
        vpath_put(out);
    *out = p;
    *has = true;
    return 0;
}

/* Cuts text at sep, in place; a backslash takes the meaning from what follows. keep: the backslash
 * stays, for whoever cuts again. NULL at the end. */
static char *option_cut(char **text, char sep, bool keep)
{
    char *start = *text, *to = start, *s = start;

    if (start == NULL)
        return NULL;
    for (; *s != '\0' && *s != sep; s++) {
        if (*s == '\\' && s[1] != '\0') {
            if (keep)
                *to++ = *s;
            s++;
        }
        *to++ = *s;
    }
    *text = *s != '\0' ? s + 1 : NULL;
    *to = '\0';
    return start;
}

static int option_lower(struct ovl_options *o, const struct vfs_caller *c, char *value)
{
    unsigned room = 1;

    for (const char *s = value; *s != '\0'; s++)
        room += *s == ':';
    if (room > OVL_LAYERS_MAX || o->lower != NULL)
        return -EINVAL;
    o->lower = calloc(room, sizeof(*o->lower));
    if (o->lower == NULL)
        return -ENOMEM;
    for (char *path; (path = option_cut(&value, ':', false)) != NULL;) {
        bool has = false;
        if (*path == '\0')
            return -EINVAL;
        int r = option_dir(c, path, &o->lower[o->lower_count], &has);
        if (r != 0)
            return r;
        o->lower_count++;
    }
    return 0;
}

static bool option_is(const char *value, const char *words)
{
    size_t n = strlen(value);

    for (const char *s = words; (s = strstr(s, value)) != NULL; s++)
        if ((s == words || s[-1] == ' ') && (s[n] == ' ' || s[n] == '\0') && n > 0)
            return true;
    return false;
}

/* Those whose way of working is always the same here: what cannot be had is refused. */
static int option_fixed(const char *name, const char *value)
{
    static const struct {
        const char *name, *values;
    } fixed[] = {
        {"index", "off"},        {"metacopy", "off"}, {"nfs_export", "off"},
        {"xino", "on off auto"}, {"verity", "off"},   {"uuid", "on off auto null"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
        if (strcmp(name, fixed[i].name) == 0)
            return option_is(value, fixed[i].values) ? 0 : -EINVAL;
    return -EINVAL;
}

static int option_redirect(struct ovl_options *o, const char *value)
{
    if (!option_is(value, "on follow nofollow off"))
        return -EINVAL;
    o->redirect = strcmp(value, "on") == 0;
    o->follow = strcmp(value, "nofollow") != 0;
    return 0;
}

static int option_one(struct ovl_options *o, const struct vfs_caller *c, char *word)
{
    char *value = strchr(word, '=');

    if (value == NULL) {
        if (strcmp(word, "userxattr") == 0)
            o->user_marks = true;
        else if (strcmp(word, "default_permissions") != 0 && strcmp(word, "volatile") != 0)
            return -EINVAL;
        return 0;
    }
    *value++ = '\0';
    if (strcmp(word, "lowerdir") == 0)
        return option_lower(o, c, value);
    if (strcmp(word, "redirect_dir") == 0)
        return option_redirect(o, value);
    bool upper = strcmp(word, "upperdir") == 0;
    if (!upper && strcmp(word, "workdir") != 0)
        return option_fixed(word, value);
    char *path = option_cut(&value, '\0', false);
    return upper ? option_dir(c, path, &o->upper, &o->has_upper)
                 : option_dir(c, path, &o->work, &o->has_work);
}

static int option_all(struct ovl_options *o, char *text, const struct vfs_caller *c)
{
    int r = 0;

    for (char *word; r == 0 && (word = option_cut(&text, ',', true)) != NULL;)
        if (*word != '\0')
            r = option_one(o, c, word);
    if (r != 0)
        return r;
    /* One directory alone is no overlay. */
    if (o->lower_count < (o->has_upper ? 1u : 2u) || (o->has_upper && !o->has_work))
        return -EINVAL;
    /* Without a lower that could be moved there is nothing to say; user marks cannot say it. */
    return o->user_marks && o->redirect ? -EINVAL : 0;
}

int ovl_options_parse(struct ovl_options *o, const char *text, const struct vfs_caller *c)
{
    char *copy = strdup(text != NULL ? text : "");

    memset(o, 0, sizeof(*o));
    o->follow = true; /* as Debian's and most kernels are built */
    o->text = strdup(text != NULL ? text : "");
    int r = copy != NULL && o->text != NULL ? option_all(o, copy, c) : -ENOMEM;
    free(copy);
    if (r != 0)
        ovl_options_fini(o);
    return r;
}

void ovl_options_fini(struct ovl_options *o)
{
    if (o->has_upper)
        vpath_put(&o->upper);
    if (o->has_work)
        vpath_put(&o->work);
    for (unsigned k = 0; k < o->lower_count; k++)
        vpath_put(&o->lower[k]);
    free(o->lower);
    free(o->text);
}
