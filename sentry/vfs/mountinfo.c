/* Mounts as text: /proc/<pid>/mounts, mountinfo, mountstats. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>

#include "sentry/vfs/vfs_priv.h"

/* Text in which space, tab, newline and backslash are octal, as in fstab(5). */
static void show_escape(const char *text, char *out, size_t size)
{
    size_t n = 0;

    for (; *text != '\0' && n + 5 < size; text++) {
        if (strchr(" \t\n\\", *text) != NULL)
            n += (size_t)snprintf(out + n, size - n, "\\%03o", (unsigned)(unsigned char)*text);
        else
            out[n++] = *text;
    }
    out[n] = '\0';
}

static void show_flags(uint32_t flags, char *out, size_t size)
{
    (void)snprintf(out, size, "%s%s%s%s%s", (flags & MS_RDONLY) ? "ro" : "rw",
                   (flags & MS_NOSUID) ? ",nosuid" : "", (flags & MS_NODEV) ? ",nodev" : "",
                   (flags & MS_NOEXEC) ? ",noexec" : "", (flags & MS_NOATIME) ? ",noatime" : "");
}

/* One mount as a line. Heap buffers: paths are long and frames small. */
struct show_text {
    char where[VFS_PATH_MAX], escaped[2 * VFS_PATH_MAX], root[VFS_PATH_MAX];
    char source[512], flags[64], options[256], line[4 * VFS_PATH_MAX];
};

static void show_line(const struct mount *m, const struct show_text *t, int style, char *line,
                      size_t size)
{
    const struct super *sb = m->sb;
    const char *sep = t->options[0] != '\0' ? "," : "";

    if (style == 0)
        (void)snprintf(line, size, "%s %s %s %s%s%s 0 0\n", t->source, t->escaped, sb->fs->name,
                       t->flags, sep, t->options);
    else if (style == 1)
        (void)snprintf(line, size, "%lu %lu %u:%u %s %s %s - %s %s %s%s%s\n", (unsigned long)m->id,
                       (unsigned long)(m->parent != NULL ? m->parent->id : 1), major(sb->dev),
                       minor(sb->dev), t->root, t->escaped, t->flags, sb->fs->name, t->source,
                       (sb->flags & MS_RDONLY) ? "ro" : "rw", sep, t->options);
    else
        (void)snprintf(line, size, "device %s mounted on %s with fstype %s\n", t->source,
                       t->escaped, sb->fs->name);
}

static int show_one(struct mount *m, const struct vpath *root, int style, struct show_text *t,
                    mount_show_fn fn, void *arg)
{
    const struct vpath at = {m, m->root};

    if (vfs_path_text(root, &at, t->where, sizeof(t->where)) < 0 ||
        strncmp(t->where, "(unreachable)", 13) == 0)
        return 0;
    if (dentry_text(m->root, t->root, sizeof(t->root)) < 0)
        return 0;
    show_escape(t->where, t->escaped, sizeof(t->escaped));
    show_escape(m->sb->source[0] != '\0' ? m->sb->source : "none", t->source, sizeof(t->source));
    show_flags(atomic_load(&m->flags) | (m->sb->flags & MS_RDONLY), t->flags, sizeof(t->flags));
    t->options[0] = '\0';
    if (m->sb->ops->show_options != NULL)
        m->sb->ops->show_options(m->sb, t->options, sizeof(t->options));
    show_line(m, t, style, t->line, sizeof(t->line));
    return fn(arg, t->line);
}

/* References to every mount, taken under the lock: texts are made without it. */
static size_t show_collect(struct mount_ns *ns, struct mount ***out)
{
    struct mount *m;
    size_t n = 0;

    rwlock_rdlock(&vfs_mount_lock);
    *out = calloc(ns->count + 1, sizeof(**out));
    if (*out != NULL) {
        list_for_each_entry (m, &ns->mounts, node) {
            ref_get(&m->ref);
            (*out)[n++] = m;
        }
    }
    rwlock_unlock(&vfs_mount_lock);
    return n;
}

int mount_ns_show(struct mount_ns *ns, const struct vpath *root, int style, mount_show_fn fn,
                  void *arg)
{
    struct show_text *t = calloc(1, sizeof(*t));
    struct mount **all;
    size_t n = show_collect(ns, &all);
    int r = t != NULL && all != NULL ? 0 : -ENOMEM;

    for (size_t i = 0; i < n; i++) {
        if (r == 0)
            r = show_one(all[i], root, style, t, fn, arg);
        mount_put(all[i]);
    }
    free(all);
    free(t);
    return r;
}
