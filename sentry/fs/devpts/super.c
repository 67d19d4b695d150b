/* The file system: a directory of slaves and ptmx. */
#include <dirent.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include "base/limits.h"
#include "sentry/fs/devpts/devpts_priv.h"

#define DEVPTS_MAGIC 0x1cd1u
#define ROOT_INO 1u
#define PTMX_INO 2u
#define FIRST_INO 3u /* of slave 0 */
#define NAME_SIZE 16

/* /dev/tty is not part of an instance: it asks the kernel that the last one was made for. */
static _Atomic(struct kernel *) the_kernel;

/* ---- options ---- */

static bool parse_number(const char *text, int base, uint32_t max, uint32_t *out)
{
    char *end;

    errno = 0;
    unsigned long v = strtoul(text, &end, base);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || v > max)
        return false;
    *out = (uint32_t)v;
    return true;
}

static int parse_option(const char *word, struct pts_options *o)
{
    if (strncmp(word, "mode=", 5) == 0)
        return parse_number(word + 5, 8, 07777, &o->mode) ? 0 : -EINVAL;
    if (strncmp(word, "ptmxmode=", 9) == 0)
        return parse_number(word + 9, 8, 07777, &o->ptmx_mode) ? 0 : -EINVAL;
    if (strncmp(word, "max=", 4) == 0)
        return parse_number(word + 4, 10, 1u << 20, &o->max) ? 0 : -EINVAL;
    if (strncmp(word, "uid=", 4) == 0) {
        o->has_uid = true;
        return parse_number(word + 4, 10, UINT32_MAX - 1, &o->uid) ? 0 : -EINVAL;
    }
    if (strncmp(word, "gid=", 4) == 0) {
        o->has_gid = true;
        return parse_number(word + 4, 10, UINT32_MAX - 1, &o->gid) ? 0 : -EINVAL;
    }
    /* Every mount is an instance of its own. */
    return strcmp(word, "newinstance") == 0 ? 0 : -EINVAL;
}

static int parse_options(const char *text, struct pts_options *o)
{
    char *copy = strdup(text != NULL ? text : ""), *save = NULL;
    int r = copy != NULL ? 0 : -ENOMEM;

    for (char *w = copy != NULL ? strtok_r(copy, ",", &save) : NULL; w != NULL && r == 0;
         w = strtok_r(NULL, ",", &save))
        r = parse_option(w, o);
    free(copy);
    return r;
}

/* ---- instances ---- */

static int core_new(struct kernel *k, const struct pts_options *o, struct pts_core **out)
{
    struct pts_core *core = calloc(1, sizeof(*core));

    if (core == NULL)
        return -ENOMEM;
    ref_init(&core->ref);
    core->k = k;
    core->opts = *o;
    mutex_init(&core->mu, LOCK_RANK_LEAF);
    idalloc_init(&core->ids, 0, LIMIT_PTYS - 1);
    list_init(&core->ptys);
    *out = core;
    return 0;
}

void pts_core_put(struct pts_core *core)
{
    if (!ref_put(&core->ref))
        return;
    idalloc_fini(&core->ids);
    mutex_destroy(&core->mu);
    free(core);
}

/* The pair with the first index >= from: its slave's inode, owned, or NULL. */
static struct inode *core_find(struct pts_core *core, uint32_t from, bool exact,
                               uint32_t *out_index)
{
    const struct pty *best = NULL, *p;
    struct inode *i = NULL;

    mutex_lock(&core->mu);
    list_for_each_entry (p, &core->ptys, node)
        if (p->index >= from && (best == NULL || p->index < best->index))
            best = p;
    if (best != NULL && (!exact || best->index == from)) {
        i = inode_get(best->inode);
        *out_index = best->index;
    }
    mutex_unlock(&core->mu);
    return i;
}

/* ---- inodes ---- */

static const struct inode_ops pts_inode_ops;

static int inode_make(struct super *sb, uint64_t ino, uint32_t mode, struct pts_inode **out)
{
    struct pts_inode *pi = calloc(1, sizeof(*pi));

    if (pi == NULL)
        return -ENOMEM;
    int r = inode_init(&pi->inode, &pts_inode_ops, sb, ino, mode);
    if (r != 0) {
        free(pi);
        return r;
    }
    *out = pi;
    return 0;
}

int pts_inode_new(struct super *sb, struct pty *p, const struct vfs_caller *c, struct inode **out)
{
    const struct pts_options *o = &p->core->opts;
    struct pts_inode *pi;
    int r = inode_make(sb, FIRST_INO + p->index, S_IFCHR | o->mode, &pi);

    if (r != 0)
        return r;
    pi->inode.rdev = p->tty.rdev;
    pi->inode.uid = o->has_uid ? o->uid : c->cred->fsuid;
    pi->inode.gid = o->has_gid ? o->gid : c->cred->fsgid;
    pi->is_slave = true;
    atomic_store(&pi->slave, p);
    *out = &pi->inode;
    return 0;
}

static void pts_inode_release(struct inode *i)
{
    struct pts_inode *pi = pts_inode_of(i);

    if (pi->ptmx != NULL)
        inode_put(pi->ptmx);
    inode_fini(i);
    free(pi);
}

static int pts_setattr(struct inode *i, const struct vfs_setattr *a)
{
    struct vfs_time now = vfs_now();

    mutex_lock(&i->mu);
    if ((a->valid & VFS_SET_MODE) != 0)
        i->mode = (i->mode & S_IFMT) | (a->mode & 07777);
    if ((a->valid & VFS_SET_UID) != 0)
        i->uid = a->uid;
    if ((a->valid & VFS_SET_GID) != 0)
        i->gid = a->gid;
    if ((a->valid & (VFS_SET_ATIME | VFS_SET_ATIME_NOW)) != 0)
        i->atime = (a->valid & VFS_SET_ATIME) != 0 ? a->atime : now;
    if ((a->valid & (VFS_SET_MTIME | VFS_SET_MTIME_NOW)) != 0)
        i->mtime = (a->valid & VFS_SET_MTIME) != 0 ? a->mtime : now;
    i->ctime = now;
    mutex_unlock(&i->mu);
    return 0;
}

/* ---- the directory ---- */

static bool parse_name(const char *name, uint32_t *out)
{
    return (name[0] != '0' || name[1] == '\0') && parse_number(name, 10, LIMIT_PTYS, out);
}

static int pts_lookup(struct inode *dir, const char *name, struct inode **out)
{
    uint32_t index;

    if (strcmp(name, "ptmx") == 0) {
        *out = inode_get(pts_inode_of(dir)->ptmx);
        return 0;
    }
    if (!parse_name(name, &index))
        return -ENOENT;
    *out = core_find(pts_fs_of(dir->sb)->core, index, true, &index);
    return *out != NULL ? 0 : -ENOENT;
}

/* Cookies: 0 ".", 1 "..", 2 "ptmx", then index + 3. */
static int pts_entry(struct pts_core *core, int64_t pos, char *name, uint64_t *out_ino,
                     unsigned *out_type, uint64_t *out_next)
{
    static const char *const fixed[] = {".", "..", "ptmx"};
    uint32_t index;

    *out_type = pos < 2 ? DT_DIR : DT_CHR;
    if (pos < (int64_t)ARRAY_SIZE(fixed)) {
        *out_ino = pos < 2 ? ROOT_INO : PTMX_INO;
        *out_next = (uint64_t)pos + 1;
        return snprintf(name, NAME_SIZE, "%s", fixed[pos]);
    }
    if (pos - (int64_t)ARRAY_SIZE(fixed) > LIMIT_PTYS)
        return 0;
    struct inode *i = core_find(core, (uint32_t)(pos - (int64_t)ARRAY_SIZE(fixed)), false, &index);
    if (i == NULL)
        return 0;
    *out_ino = i->ino;
    *out_next = (uint64_t)index + ARRAY_SIZE(fixed) + 1;
    inode_put(i);
    return snprintf(name, NAME_SIZE, "%u", index);
}

static int pts_readdir(struct file *f, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    struct pts_core *core = pts_fs_of(f->inode->sb)->core;
    char name[NAME_SIZE];
    uint64_t ino, next;
    unsigned type;

    for (;;) {
        int len = pts_entry(core, *pos, name, &ino, &type, &next);
        if (len <= 0)
            return 0;
        int r = fn(arg, name, (size_t)len, ino, type, next);
        if (r != 0)
            return r < 0 ? r : 0;
        *pos = (int64_t)next;
    }
}

static int64_t pts_dir_seek(struct file *f, int64_t off, int whence)
{
    if (whence == SEEK_CUR && off == 0)
        return f->pos;
    if (whence != SEEK_SET || off < 0)
        return -EINVAL;
    f->pos = off;
    return off;
}

static const struct file_ops pts_dir_ops = {.readdir = pts_readdir, .seek = pts_dir_seek};

static int pts_open(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    if (!S_ISDIR(i->mode))
        return devpts_open(i, f, c);
    f->ops = &pts_dir_ops;
    return 0;
}

static const struct inode_ops pts_inode_ops = {
    .lookup = pts_lookup,
    .setattr = pts_setattr,
    .open = pts_open,
    .release = pts_inode_release,
};

/* ---- opening devices ---- */

static bool is_devpts(const struct super *sb)
{
    return sb->fs == &devpts_fs_ops;
}

/* A ptmx node elsewhere stands for the devpts at pts beside it, as in Linux. */
static int open_ptmx_beside(struct file *f, const struct vfs_caller *c)
{
    struct vpath base = {f->path.mnt, f->path.dentry->parent}, p;
    int r = vfs_lookup(c, &base, "pts", VFS_FOLLOW, &p);

    if (r != 0)
        return -ENODEV;
    struct super *sb = p.dentry->inode->sb;
    r = is_devpts(sb) ? pty_open_master(sb, f, c) : -ENODEV;
    vpath_put(&p);
    return r;
}

static int open_current(struct file *f, const struct vfs_caller *c)
{
    struct kernel *k = atomic_load(&the_kernel);
    struct tty *tty = k != NULL ? tty_current(k, c) : NULL;

    if (tty == NULL)
        return -ENXIO;
    int r = pty_open_slave(pty_of_tty(tty), f, c);
    tty_put(tty);
    return r;
}

static int open_slave(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    struct pts_core *core = pts_fs_of(i->sb)->core;

    mutex_lock(&core->mu);
    struct pty *p = atomic_load(&pts_inode_of(i)->slave);
    if (p != NULL)
        (void)tty_get(&p->tty);
    mutex_unlock(&core->mu);
    if (p == NULL)
        return -EIO;
    int r = pty_open_slave(p, f, c);
    pty_put(p);
    return r;
}

int devpts_open(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    if (is_devpts(i->sb) && pts_inode_of(i)->is_slave)
        return open_slave(i, f, c);
    if (i->rdev == makedev(5, 2))
        return is_devpts(i->sb) ? pty_open_master(i->sb, f, c) : open_ptmx_beside(f, c);
    if (i->rdev == makedev(5, 0))
        return open_current(f, c);
    /* A slave's number without its instance names nothing. */
    return major(i->rdev) >= 136 && major(i->rdev) <= 143 ? -EIO : -ENXIO;
}

/* ---- supers ---- */

static int pts_statfs(struct super *sb, struct vfs_statfs *out)
{
    (void)sb;
    out->type = DEVPTS_MAGIC;
    out->bsize = PAGE_SIZE;
    out->namelen = VFS_NAME_MAX;
    return 0;
}

static void pts_destroy(struct super *sb)
{
    pts_core_put(pts_fs_of(sb)->core);
    free(pts_fs_of(sb));
}

static void pts_show_options(struct super *sb, char *buf, size_t size)
{
    const struct pts_options *o = &pts_fs_of(sb)->core->opts;
    char ids[40] = "";
    int n = 0;

    if (o->has_uid)
        n = snprintf(ids, sizeof(ids), "uid=%u,", o->uid);
    if (o->has_gid)
        (void)snprintf(ids + n, sizeof(ids) - (size_t)n, "gid=%u,", o->gid);
    (void)snprintf(buf, size, "%smode=%03o,ptmxmode=%03o", ids, o->mode, o->ptmx_mode);
}

/* A slave whose master was closed is not there any more; its number may be another one's. */
static int pts_revalidate(struct dentry *d, struct inode *dir, const char *name)
{
    (void)dir, (void)name;
    if (d->inode == NULL)
        return 0;
    struct pts_inode *pi = pts_inode_of(d->inode);
    return !pi->is_slave || atomic_load(&pi->slave) != NULL;
}

static const struct super_ops pts_super_ops = {
    .statfs = pts_statfs,
    .destroy = pts_destroy,
    .show_options = pts_show_options,
    .revalidate = pts_revalidate,
};

static int super_fill(struct pts_fs *fs, const struct vfs_caller *c)
{
    struct pts_inode *root, *ptmx;
    int r = inode_make(&fs->sb, ROOT_INO, S_IFDIR | 0755, &root);

    if (r != 0)
        return r;
    root->inode.nlink = 2;
    r = inode_make(&fs->sb, PTMX_INO, S_IFCHR | fs->core->opts.ptmx_mode, &ptmx);
    if (r != 0) {
        inode_put(&root->inode);
        return r;
    }
    /* Whose mount it is. */
    root->inode.uid = ptmx->inode.uid = c->cred->fsuid;
    root->inode.gid = ptmx->inode.gid = c->cred->fsgid;
    ptmx->inode.rdev = makedev(5, 2);
    root->ptmx = &ptmx->inode;
    return super_set_root(&fs->sb, &root->inode);
}

static int pts_mount(const struct fs_ops *ops, void *boot_arg, const char *source,
                     const char *options, const struct vfs_caller *c, struct super **out_super)
{
    struct pts_options o = {.mode = 0600, .max = LIMIT_PTYS};
    struct pts_fs *fs;
    int r = parse_options(options, &o);

    if (r != 0)
        return r;
    fs = calloc(1, sizeof(*fs));
    if (fs == NULL)
        return -ENOMEM;
    r = core_new(boot_arg, &o, &fs->core);
    if (r != 0) {
        free(fs);
        return r;
    }
    super_init(&fs->sb, &pts_super_ops, ops);
    (void)snprintf(fs->sb.source, sizeof(fs->sb.source), "%s", source != NULL ? source : "devpts");
    r = super_fill(fs, c);
    if (r != 0) {
        super_put(&fs->sb);
        return r;
    }
    atomic_store(&the_kernel, boot_arg);
    *out_super = &fs->sb;
    return 0;
}

const struct fs_ops devpts_fs_ops = {.name = "devpts", .mount = pts_mount};
