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

static void show_mount_flags(uint32_t flags, bool super_ro, char *out, size_t size)
{
    static const struct {
        uint32_t flag;
        const char *text;
    } names[] = {
        {MS_NOSUID, ",nosuid"},
        {MS_NODEV, ",nodev"},
        {MS_NOEXEC, ",noexec"},
        {MS_NOATIME, ",noatime"},
        {MS_NODIRATIME, ",nodiratime"},
        {MS_RELATIME, ",relatime"},
        {VFS_MS_NOSYMFOLLOW, ",nosymfollow"},
    };
    size_t n = (size_t)snprintf(out, size, "%s", flags & MS_RDONLY || super_ro ? "ro" : "rw");

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if ((flags & names[i].flag) != 0)
            n += (size_t)snprintf(out + n, size - n, "%s", names[i].text);
}

static void show_super_flags(uint32_t flags, char *out, size_t size)
{
    (void)snprintf(out, size, "%s%s%s", (flags & MS_SYNCHRONOUS) != 0 ? ",sync" : "",
                   (flags & MS_DIRSYNC) != 0 ? ",dirsync" : "",
                   (flags & MS_LAZYTIME) != 0 ? ",lazytime" : "");
}

/* The optional fields of mountinfo. */
static void show_groups(const struct vfs_mount_info *i, char *out, size_t size)
{
    size_t n = 0;

    out[0] = '\0';
    if (i->group != 0)
        n += (size_t)snprintf(out + n, size - n, " shared:%u", i->group);
    if (i->master != 0)
        n += (size_t)snprintf(out + n, size - n, " master:%u", i->master);
    if (i->master != 0 && i->from != 0 && i->from != i->master)
        n += (size_t)snprintf(out + n, size - n, " propagate_from:%u", i->from);
    if (i->unbindable)
        (void)snprintf(out + n, size - n, " unbindable");
}

/* One mount as a line. Heap buffers: paths are long and frames small. */
struct show_text {
    char where[VFS_PATH_MAX], escaped[2 * VFS_PATH_MAX], root[VFS_PATH_MAX];
    char source[512], options[1024], line[4 * VFS_PATH_MAX];
    char flags[96], super_flags[64], groups[96];
};

static void show_line(const struct vfs_mount_info *i, const struct show_text *t, int style,
                      char *line, size_t size)
{
    const struct super *sb = i->sb;
    const char *sep = t->options[0] != '\0' ? "," : "";

    if (style == 0)
        (void)snprintf(line, size, "%s %s %s %s%s%s%s 0 0\n", t->source, t->escaped, sb->fs->name,
                       t->flags, t->super_flags, sep, t->options);
    else if (style == 1)
        (void)snprintf(line, size, "%lu %lu %u:%u %s %s %s%s - %s %s %s%s%s%s\n",
                       (unsigned long)i->id, (unsigned long)i->parent_id, major(sb->dev),
                       minor(sb->dev), t->root, t->escaped, t->flags, t->groups, sb->fs->name,
                       t->source, (sb->flags & MS_RDONLY) ? "ro" : "rw", t->super_flags, sep,
                       t->options);
    else
        (void)snprintf(line, size, "device %s mounted on %s with fstype %s\n", t->source,
                       t->escaped, sb->fs->name);
}

static int show_one(const struct vfs_mount_info *i, const struct vpath *root, int style,
                    struct show_text *t, mount_show_fn fn, void *arg)
{
    const uint32_t sflags = i->sb->flags;
    char *dir = t->line;

    if (vfs_path_text(root, &i->at, t->where, sizeof(t->where)) < 0 ||
        strncmp(t->where, "(unreachable)", 13) == 0)
        return 0;
    if (dentry_text(i->at.dentry, dir, VFS_PATH_MAX) < 0)
        return 0;
    show_escape(dir, t->root, sizeof(t->root));
    show_escape(t->where, t->escaped, sizeof(t->escaped));
    show_escape(i->sb->source[0] != '\0' ? i->sb->source : "none", t->source, sizeof(t->source));
    /* The file system's own flag shows in the mount's only where there is one text for both. */
    show_mount_flags(i->flags, style == 0 && (sflags & MS_RDONLY) != 0, t->flags, sizeof(t->flags));
    show_super_flags(sflags, t->super_flags, sizeof(t->super_flags));
    show_groups(i, t->groups, sizeof(t->groups));
    t->options[0] = '\0';
    if (i->sb->ops->show_options != NULL)
        i->sb->ops->show_options(i->sb, t->options, sizeof(t->options));
    show_line(i, t, style, t->line, sizeof(t->line));
    return fn(arg, t->line);
}

int mount_ns_show(struct mount_ns *ns, const struct vpath *root, int style, mount_show_fn fn,
                  void *arg)
{
    struct show_text *t = calloc(1, sizeof(*t));
    struct vfs_mount_info *all;
    size_t n = mount_ns_infos(ns, &all);
    int r = t != NULL && all != NULL ? 0 : -ENOMEM;

    for (size_t i = 0; i < n; i++) {
        if (r == 0)
            r = show_one(&all[i], root, style, t, fn, arg);
        vfs_mount_info_end(&all[i]);
    }
    free(all);
    free(t);
    return r;
}
