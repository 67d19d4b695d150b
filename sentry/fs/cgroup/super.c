/* Mounting: which hierarchy, and from which group on. */
#include "sentry/fs/cgroup/cgroupfs_priv.h"

#define CGROUP2_MAGIC 0x63677270u
#define CGROUP_MAGIC 0x27e0ebu

static int cgfs_statfs(struct super *sb, struct vfs_statfs *out)
{
    out->type = sb->fs == &cgroup2_fs_ops ? CGROUP2_MAGIC : CGROUP_MAGIC;
    out->bsize = out->frsize = PAGE_SIZE;
    out->namelen = VFS_NAME_MAX;
    return 0;
}

static void cgfs_destroy(struct super *sb)
{
    struct cgfs_super *s = cgfs_super(sb);
    struct cgroup *top = s->top;

    if (s->root)
        cgroup_root_unmount(s->root);
    cgroup_put(top);
    free(s);
}

static void cgfs_show_options(struct super *sb, char *buf, size_t size)
{
    const struct cgroup_root *root = cgfs_super(sb)->root;
    size_t len = 0;

    buf[0] = '\0';
    if (root->v2) {
        (void)snprintf(buf, size, "nsdelegate");
        return;
    }
    for (enum cgroup_ctl ctl = 0; ctl < CG_CTLS; ctl++)
        if ((root->ctls & CG_BIT(ctl)) && len < size)
            len += (size_t)snprintf(buf + len, size - len, "%s%s", len ? "," : "",
                                    cgroup_ctl_name(ctl));
    if (root->name[0] && len < size)
        (void)snprintf(buf + len, size - len, "%sname=%s", len ? "," : "", root->name);
}

static int cgfs_reconfigure(struct super *sb, const char *options)
{
    (void)sb;
    return options[0] == '\0' || sb->fs == &cgroup2_fs_ops ? 0 : -EINVAL;
}

static const struct super_ops cgfs_super_ops = {
    .statfs = cgfs_statfs,
    .destroy = cgfs_destroy,
    .reconfigure = cgfs_reconfigure,
    .show_options = cgfs_show_options,
    .revalidate = cgfs_revalidate,
};

/* root: given back by the super's end, whatever happens. */
static int cgfs_super_new(const struct fs_ops *fs, struct cgroup_ns *ns, struct cgroup_root *root,
                          const char *source, struct super **out)
{
    struct cgfs_super *s = calloc(1, sizeof(*s));
    struct cgroup *top = ns->tops[root->index] ? ns->tops[root->index] : root->top;
    struct inode *dir;

    if (!s) {
        cgroup_root_unmount(root);
        return -ENOMEM;
    }
    super_init(&s->sb, &cgfs_super_ops, fs);
    s->root = root;
    s->top = cgroup_get(top);
    (void)snprintf(s->sb.source, sizeof(s->sb.source), "%s", source ? source : fs->name);
    int r = cgfs_node_new(&s->sb, top, NULL, &dir);
    if (!r)
        r = super_set_root(&s->sb, dir);
    if (r) {
        super_put(&s->sb);
        return r;
    }
    *out = &s->sb;
    return 0;
}

/* ---- options ---- */

struct options {
    uint32_t ctls;
    bool none;
    char name[64];
};

static int v1_option(char *word, struct options *o)
{
    if (strcmp(word, "all") == 0) {
        o->ctls = CG_ALL_V1;
        return 0;
    }
    if (strcmp(word, "none") == 0) {
        o->none = true;
        return 0;
    }
    if (strncmp(word, "name=", 5) == 0) {
        if (!word[5] || strlen(word + 5) >= sizeof(o->name) || o->name[0] || strchr(word + 5, '/'))
            return -EINVAL;
        strncpy(o->name, word + 5, sizeof(o->name) - 1);
        return 0;
    }
    for (enum cgroup_ctl ctl = 0; ctl < CG_CTLS; ctl++) {
        if (strcmp(word, cgroup_ctl_name(ctl)) == 0) {
            o->ctls |= CG_BIT(ctl);
            return 0;
        }
    }
    return strcmp(word, "xattr") == 0 || strcmp(word, "noprefix") == 0 ? 0 : -EINVAL;
}

static int v2_option(char *word, struct options *o)
{
    (void)o;
    return strcmp(word, "nsdelegate") == 0 || strcmp(word, "memory_recursiveprot") == 0 ||
                   strcmp(word, "favordynmods") == 0 || strcmp(word, "memory_localevents") == 0
               ? 0
               : -EINVAL;
}

static int options_parse(const char *text, int (*one)(char *word, struct options *o),
                         struct options *o)
{
    char *copy = strdup(text ? text : ""), *save = NULL;
    int r = copy ? 0 : -ENOMEM;

    for (char *w = copy ? strtok_r(copy, ",", &save) : NULL; w && !r;
         w = strtok_r(NULL, ",", &save))
        r = one(w, o);
    free(copy);
    return r;
}

static int v2_check_option(const char *option)
{
    struct options o = {0};

    return options_parse(option, v2_option, &o);
}

static int v1_check_option(const char *option)
{
    struct options o = {0};

    return options_parse(option, v1_option, &o);
}

static int v2_mount(const struct fs_ops *fs, void *boot_arg, const char *source,
                    const char *options, const struct vfs_caller *c, struct super **out)
{
    struct cgroup_ns *ns = boot_arg;
    struct options o = {0};
    int r = options_parse(options, v2_option, &o);

    (void)c;
    if (r)
        return r;
    struct cgroup_root *root = cgroup_root_v2(ns->k);
    cgroup_lock(ns->k);
    root->supers++;
    cgroup_unlock(ns->k);
    return cgfs_super_new(fs, ns, root, source, out);
}

static int v1_mount(const struct fs_ops *fs, void *boot_arg, const char *source,
                    const char *options, const struct vfs_caller *c, struct super **out)
{
    struct cgroup_ns *ns = boot_arg;
    struct options o = {0};
    struct cgroup_root *root;
    int r = options_parse(options, v1_option, &o);

    (void)c;
    if (r)
        return r;
    if (o.none && (o.ctls || !o.name[0]))
        return -EINVAL;
    /* Without a word, all of them. */
    if (!o.none && !o.ctls && !o.name[0])
        o.ctls = CG_ALL_V1;
    if (!o.none && !o.ctls)
        return -EINVAL;
    r = cgroup_root_mount(ns->k, o.ctls, o.name, &root);
    return r ? r : cgfs_super_new(fs, ns, root, source, out);
}

const struct fs_ops cgroup2_fs_ops = {
    .name = "cgroup2", .check_option = v2_check_option, .mount = v2_mount};
const struct fs_ops cgroup_fs_ops = {
    .name = "cgroup", .check_option = v1_check_option, .mount = v1_mount};
