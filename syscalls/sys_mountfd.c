/* Mounting through descriptors: fsopen(2), fsconfig(2), fsmount(2), fspick(2), open_tree(2),
 * move_mount(2), mount_setattr(2) (fs/fsopen.c, fs/namespace.c of the kernel). */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "syscalls/handlers.h"
#include "syscalls/sys_mount.h"
#include "syscalls/sys_path.h"

#define FSC_KEY_MAX 256u
#define FSC_OPTIONS_MAX 4096u

/* Linux 6.1 to 6.5 and later ones. */
#define FSC_CREATE_EXCL 8u
#define MOVE_BENEATH 0x200u
#define MOUNT_ATTR_ALL                                                                             \
    (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |                \
     MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW)

/* ---- the file around a file system that is being made or changed ---- */

enum fsc_phase { FSC_PARAMS, FSC_MADE, FSC_DONE, FSC_CHANGE, FSC_FAILED };

/* Guard: the file's pos_mu, from fsopen on. */
struct fs_context {
    const struct fs_ops *fs;
    void *arg;
    enum fsc_phase phase;
    uint32_t super_flags;
    struct super *sb;  /* owned: held while it is made and not mounted, or picked */
    struct vpath root; /* fspick: the place; owned */
    char source[FSC_KEY_MAX];
    char options[FSC_OPTIONS_MAX];
};

static struct fs_context *fsc_of(struct file *f)
{
    return f->priv;
}

static void fsc_free(struct fs_context *fc)
{
    vpath_put(&fc->root);
    if (fc->phase == FSC_MADE)
        super_unhold(fc->sb);
    else if (fc->sb)
        super_put(fc->sb);
    free(fc);
}

static void fsc_release(struct file *f)
{
    fsc_free(fsc_of(f));
}

/* The log of what went wrong: we tell by errno only, so it is always empty. */
static int64_t fsc_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    (void)f;
    (void)u;
    (void)pos;
    (void)c;
    return -ENODATA;
}

static const struct file_ops fsc_file_ops = {.read = fsc_read, .release = fsc_release};

/* Takes fc. */
static int64_t fsc_install(struct task *t, struct fs_context *fc, bool cloexec)
{
    struct file *f;
    int r = vfs_anon_file("[fscontext]", 0600, &fsc_file_ops, fc, O_RDWR, &f);

    if (r) {
        fsc_free(fc);
        return r;
    }
    r = task_fd_install(t, f, cloexec, 0);
    file_put(f);
    return r;
}

static int fsc_file(struct task *t, int fd, struct file **out)
{
    int r = task_file(t, fd, out);

    if (r)
        return r;
    if ((*out)->ops == &fsc_file_ops)
        return 0;
    file_put(*out);
    return -EINVAL;
}

int64_t sys_fsopen(struct task *t, uaddr_t name, unsigned flags)
{
    char type[PAGE_SIZE / 16];

    if (!mount_allowed(t))
        return -EPERM;
    if (flags & ~(unsigned)FSOPEN_CLOEXEC)
        return -EINVAL;
    int64_t n = copyin_str(&t->ua, type, name, sizeof(type), -EINVAL);
    if (n < 0)
        return n;
    struct fs_context *fc = calloc(1, sizeof(*fc));
    if (!fc)
        return -ENOMEM;
    fc->fs = mount_fs_type(t, type, &fc->arg);
    if (!fc->fs) {
        free(fc);
        return -ENODEV;
    }
    return fsc_install(t, fc, flags & FSOPEN_CLOEXEC);
}

int64_t sys_fspick(struct task *t, int dirfd, uaddr_t path, unsigned flags)
{
    const unsigned known =
        FSPICK_CLOEXEC | FSPICK_SYMLINK_NOFOLLOW | FSPICK_NO_AUTOMOUNT | FSPICK_EMPTY_PATH;
    struct path_place x;

    if (!mount_allowed(t))
        return -EPERM;
    if (flags & ~known)
        return -EINVAL;
    int r = path_place_at(t, dirfd, path,
                          (flags & FSPICK_SYMLINK_NOFOLLOW ? 0 : VFS_FOLLOW) |
                              (flags & FSPICK_EMPTY_PATH ? VFS_EMPTY_PATH : 0),
                          &x);
    if (r)
        return r;
    struct fs_context *fc = vfs_is_mount_root(&x.p) ? calloc(1, sizeof(*fc)) : NULL;
    r = fc ? 0 : vfs_is_mount_root(&x.p) ? -ENOMEM : -EINVAL;
    if (fc) {
        fc->phase = FSC_CHANGE;
        fc->root = x.p;
        vpath_get(&fc->root);
        fc->sb = super_get(x.p.dentry->sb);
        fc->fs = fc->sb->fs;
        fc->super_flags = fc->sb->flags;
    }
    path_place_end(&x);
    return fc ? fsc_install(t, fc, flags & FSPICK_CLOEXEC) : r;
}

/* ---- fsconfig ---- */

static bool fsc_super_flag(struct fs_context *fc, const char *key)
{
    static const struct {
        const char *name;
        uint32_t set, clear;
    } flags[] = {
        {"ro", MS_RDONLY, 0},           {"rw", 0, MS_RDONLY},       {"sync", MS_SYNCHRONOUS, 0},
        {"async", 0, MS_SYNCHRONOUS},   {"dirsync", MS_DIRSYNC, 0}, {"lazytime", MS_LAZYTIME, 0},
        {"nolazytime", 0, MS_LAZYTIME},
    };

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        if (strcmp(flags[i].name, key) != 0)
            continue;
        fc->super_flags = (fc->super_flags & ~flags[i].clear) | flags[i].set;
        return true;
    }
    return false;
}

static int fsc_option(struct fs_context *fc, const char *key, const char *value)
{
    const size_t had = strlen(fc->options);
    char *at = fc->options + had;
    const int n = snprintf(at, sizeof(fc->options) - had, "%s%s%s%s", had ? "," : "", key,
                           value ? "=" : "", value ? value : "");
    int r = 0;

    if (strchr(key, ',') || (value && strchr(value, ',')))
        r = -EINVAL;
    else if (n < 0 || (size_t)n >= sizeof(fc->options) - had)
        r = -ENOMEM;
    else if (fc->fs->check_option)
        r = fc->fs->check_option(at + (had ? 1 : 0));
    if (r)
        *at = '\0';
    return r;
}

static int fsc_set_string(struct fs_context *fc, const char *key, const char *value)
{
    if (strcmp(key, "source") != 0)
        return fsc_option(fc, key, value);
    if (fc->source[0])
        return -EINVAL;
    (void)snprintf(fc->source, sizeof(fc->source), "%s", value);
    return 0;
}

static int fsc_create(struct fs_context *fc, const struct vfs_caller *c)
{
    if (fc->phase != FSC_PARAMS)
        return -EBUSY;
    int r = fc->fs->mount(fc->fs, fc->arg, fc->source[0] ? fc->source : "none", fc->options, c,
                          &fc->sb);
    fc->phase = r ? FSC_FAILED : FSC_MADE;
    if (r)
        return r;
    super_hold(fc->sb);
    fc->sb->flags |= fc->super_flags;
    return 0;
}

static int fsc_change(struct fs_context *fc, const struct vfs_caller *c)
{
    if (fc->phase != FSC_CHANGE)
        return -EBUSY;
    int r = vfs_remount_super(c->ns, &fc->root, fc->super_flags, fc->options);
    fc->options[0] = '\0';
    return r;
}

struct fsc_call {
    unsigned cmd;
    char key[FSC_KEY_MAX], value[FSC_KEY_MAX];
};

static int fsc_do(struct task *t, struct fs_context *fc, const struct fsc_call *call)
{
    struct vfs_caller c;
    int r;

    if (call->cmd == FSCONFIG_SET_FLAG || call->cmd == FSCONFIG_SET_STRING) {
        if (fc->phase != FSC_PARAMS && fc->phase != FSC_CHANGE)
            return -EBUSY;
        if (call->cmd == FSCONFIG_SET_STRING)
            return fsc_set_string(fc, call->key, call->value);
        return fsc_super_flag(fc, call->key) ? 0 : fsc_option(fc, call->key, NULL);
    }
    if (!mount_allowed(t))
        return -EPERM;
    task_vfs_caller(t, &c);
    r = call->cmd == FSCONFIG_CMD_RECONFIGURE ? fsc_change(fc, &c) : fsc_create(fc, &c);
    task_vfs_caller_end(&c);
    return r;
}

/* Which arguments go with which command. */
static int fsc_check(unsigned cmd, uaddr_t key, uaddr_t value, int aux)
{
    const bool has_key = !uaddr_is_null(key), has_value = !uaddr_is_null(value);

    switch (cmd) {
    case FSCONFIG_SET_FLAG:
        return !has_key || has_value || aux ? -EINVAL : 0;
    case FSCONFIG_SET_STRING:
        return !has_key || !has_value || aux ? -EINVAL : 0;
    case FSCONFIG_SET_BINARY:
        return !has_key || !has_value || aux <= 0 || aux > 1024 * 1024 ? -EINVAL : 0;
    case FSCONFIG_SET_PATH:
    case FSCONFIG_SET_PATH_EMPTY:
        return !has_key || !has_value || (aux != AT_FDCWD && aux < 0) ? -EINVAL : 0;
    case FSCONFIG_SET_FD:
        return !has_key || has_value || aux < 0 ? -EINVAL : 0;
    case FSCONFIG_CMD_CREATE:
    case FSC_CREATE_EXCL:
    case FSCONFIG_CMD_RECONFIGURE:
        return has_key || has_value || aux ? -EINVAL : 0;
    default:
        return -EOPNOTSUPP;
    }
}

static int fsc_copy(struct task *t, uaddr_t key, uaddr_t value, struct fsc_call *call)
{
    int64_t n = 0;

    if (!uaddr_is_null(key))
        n = copyin_str(&t->ua, call->key, key, sizeof(call->key), -EINVAL);
    if (n >= 0 && call->cmd == FSCONFIG_SET_STRING)
        n = copyin_str(&t->ua, call->value, value, sizeof(call->value), -EINVAL);
    return n < 0 ? (int)n : 0;
}

int64_t sys_fsconfig(struct task *t, int fd, unsigned cmd, uaddr_t key, uaddr_t value, int aux)
{
    struct fsc_call call = {.cmd = cmd};
    struct file *f;

    if (fd < 0)
        return -EINVAL;
    int r = fsc_check(cmd, key, value, aux);
    if (r)
        return r;
    r = fsc_file(t, fd, &f);
    if (r)
        return r;
    r = fsc_copy(t, key, value, &call);
    /* No option of a file system here is a blob, a path or a descriptor. */
    if (r == 0 && cmd >= FSCONFIG_SET_BINARY && cmd <= FSCONFIG_SET_FD)
        r = -EINVAL;
    if (r == 0) {
        mutex_lock(&f->pos_mu);
        r = fsc_do(t, fsc_of(f), &call);
        mutex_unlock(&f->pos_mu);
    }
    file_put(f);
    return r;
}

/* ---- attributes ---- */

/* Flags of the mount; -EINVAL for what is not known. */
static int attr_flags(uint64_t attr, uint32_t *out)
{
    static const struct {
        uint64_t attr;
        uint32_t flag;
    } map[] = {
        {MOUNT_ATTR_RDONLY, MS_RDONLY},         {MOUNT_ATTR_NOSUID, MS_NOSUID},
        {MOUNT_ATTR_NODEV, MS_NODEV},           {MOUNT_ATTR_NOEXEC, MS_NOEXEC},
        {MOUNT_ATTR_NODIRATIME, MS_NODIRATIME}, {MOUNT_ATTR_NOSYMFOLLOW, VFS_MS_NOSYMFOLLOW},
    };

    if (attr & ~(uint64_t)MOUNT_ATTR_ALL)
        return -EINVAL;
    *out = 0;
    for (size_t i = 0; i < ARRAY_SIZE(map); i++)
        if (attr & map[i].attr)
            *out |= map[i].flag;
    return 0;
}

static int attr_atime(uint64_t attr, uint32_t *flags)
{
    switch (attr & MOUNT_ATTR__ATIME) {
    case MOUNT_ATTR_RELATIME:
        *flags |= MS_RELATIME;
        return 0;
    case MOUNT_ATTR_NOATIME:
        *flags |= MS_NOATIME;
        return 0;
    case MOUNT_ATTR_STRICTATIME:
        return 0;
    default:
        return -EINVAL;
    }
}

int64_t sys_fsmount(struct task *t, int fd, unsigned flags, unsigned attr)
{
    uint32_t mflags;
    struct file *f, *tree;

    if (!mount_allowed(t))
        return -EPERM;
    if (flags & ~(unsigned)FSMOUNT_CLOEXEC)
        return -EINVAL;
    int r = attr_flags(attr, &mflags);
    if (r == 0)
        r = attr_atime(attr, &mflags);
    if (r == 0)
        r = fsc_file(t, fd, &f);
    if (r)
        return r;
    mutex_lock(&f->pos_mu);
    struct fs_context *fc = fsc_of(f);
    r = fc->phase == FSC_MADE   ? vfs_detached_mount(super_get(fc->sb), mflags, &tree)
        : fc->phase == FSC_DONE ? -EBUSY
                                : -EINVAL;
    if (r && fc->phase == FSC_MADE)
        super_put(fc->sb);
    if (r == 0) {
        fc->phase = FSC_DONE;
        super_unhold(fc->sb);
        fc->sb = NULL;
    }
    mutex_unlock(&f->pos_mu);
    file_put(f);
    if (r)
        return r;
    r = task_fd_install(t, tree, flags & FSMOUNT_CLOEXEC, 0);
    file_put(tree);
    return r;
}

/* ---- trees ---- */

static int tree_open(struct task *t, int dirfd, uaddr_t path, unsigned flags, struct file **out)
{
    struct path_place x;
    int r = path_place_at(t, dirfd, path, path_at_flags((int)flags), &x);

    if (r)
        return r;
    r = flags & OPEN_TREE_CLONE ? vfs_open_tree(x.c.ns, &x.p, flags & AT_RECURSIVE, out)
                                : vfs_open_path(&x.c, &x.p, O_PATH, out);
    path_place_end(&x);
    return r;
}

static int tree_check(struct task *t, unsigned flags)
{
    const unsigned known = AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW |
                           OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;

    if (flags & ~known || (flags & (AT_RECURSIVE | OPEN_TREE_CLONE)) == AT_RECURSIVE)
        return -EINVAL;
    return flags & OPEN_TREE_CLONE && !mount_allowed(t) ? -EPERM : 0;
}

int64_t sys_open_tree(struct task *t, int dirfd, uaddr_t path, unsigned flags)
{
    struct file *f;
    int r = tree_check(t, flags);

    if (r == 0)
        r = tree_open(t, dirfd, path, flags, &f);
    if (r)
        return r;
    r = task_fd_install(t, f, flags & OPEN_TREE_CLOEXEC, 0);
    file_put(f);
    return r;
}

static unsigned move_lookup(unsigned flags, unsigned symlinks, unsigned empty)
{
    return (flags & symlinks ? VFS_FOLLOW : 0) | (flags & empty ? VFS_EMPTY_PATH : 0);
}

int64_t sys_move_mount(struct task *t, int from_fd, uaddr_t from_path, int to_fd, uaddr_t to_path,
                       unsigned flags)
{
    struct path_place from, to;

    if (!mount_change_allowed(t))
        return -EPERM;
    if (flags & ~((unsigned)MOVE_MOUNT__MASK | MOVE_BENEATH) ||
        (flags & MOVE_BENEATH && flags & MOVE_MOUNT_SET_GROUP))
        return -EINVAL;
    int r =
        path_place_at(t, from_fd, from_path,
                      move_lookup(flags, MOVE_MOUNT_F_SYMLINKS, MOVE_MOUNT_F_EMPTY_PATH), &from);
    if (r)
        return r;
    r = path_place_at(t, to_fd, to_path,
                      move_lookup(flags, MOVE_MOUNT_T_SYMLINKS, MOVE_MOUNT_T_EMPTY_PATH), &to);
    if (r == 0) {
        r = flags & MOVE_MOUNT_SET_GROUP
                ? vfs_set_group(to.c.ns, &from.p, &to.p)
                : vfs_move_mount(to.c.ns, &to.c.root, &from.p, &to.p, flags & MOVE_BENEATH);
        path_place_end(&to);
    }
    path_place_end(&from);
    return r;
}

/* ---- mount_setattr ---- */

struct attr_change {
    uint32_t clear, set, type;
};

static int attr_build(const struct mount_attr *a, struct attr_change *out)
{
    const uint64_t types = MS_UNBINDABLE | MS_PRIVATE | MS_SLAVE | MS_SHARED;

    if (a->propagation & ~types || (a->propagation & (a->propagation - 1)))
        return -EINVAL;
    out->type = (uint32_t)a->propagation;
    int r = attr_flags(a->attr_set, &out->set);
    if (r == 0)
        r = attr_flags(a->attr_clr, &out->clear);
    if (r)
        return r;
    if (!(a->attr_clr & MOUNT_ATTR__ATIME))
        return a->attr_set & MOUNT_ATTR__ATIME ? -EINVAL : 0;
    /* One of three, so all of it is cleared or none. */
    if ((a->attr_clr & MOUNT_ATTR__ATIME) != MOUNT_ATTR__ATIME)
        return -EINVAL;
    out->clear |= MS_RELATIME | MS_NOATIME;
    return attr_atime(a->attr_set, &out->set);
}

static int attr_copy(struct task *t, uaddr_t addr, uint64_t size, struct mount_attr *out)
{
    if (size > PAGE_SIZE)
        return -E2BIG;
    if (size < MOUNT_ATTR_SIZE_VER0)
        return -EINVAL;
    if (!mount_allowed(t))
        return -EPERM;
    return copyin_struct(&t->ua, out, sizeof(*out), addr, (size_t)size);
}

int64_t sys_mount_setattr(struct task *t, int dirfd, uaddr_t path, unsigned flags, uaddr_t addr,
                          uint64_t size)
{
    const unsigned known = AT_EMPTY_PATH | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
    struct mount_attr a;
    struct attr_change ch;
    struct path_place x;

    if (flags & ~known)
        return -EINVAL;
    int r = attr_copy(t, addr, size, &a);
    if (r || (!a.attr_set && !a.attr_clr && !a.propagation))
        return r;
    r = attr_build(&a, &ch);
    if (r == 0)
        r = path_place_at(t, dirfd, path, path_at_flags((int)flags), &x);
    if (r)
        return r;
    r = vfs_mount_setattr(x.c.ns, &x.p, ch.clear, ch.set, ch.type, flags & AT_RECURSIVE);
    path_place_end(&x);
    return r;
}

/* The tree gets its attributes before anybody sees it. */
static int tree_setattr(struct task *t, struct file *f, unsigned flags, uaddr_t addr, uint64_t size)
{
    struct vfs_caller c;
    struct mount_attr a;
    struct attr_change ch;
    int r = attr_copy(t, addr, size, &a);

    if (r || (!a.attr_set && !a.attr_clr && !a.propagation))
        return r;
    r = attr_build(&a, &ch);
    if (r)
        return r;
    task_vfs_caller(t, &c);
    r = vfs_mount_setattr(c.ns, &f->path, ch.clear, ch.set, ch.type, flags & AT_RECURSIVE);
    task_vfs_caller_end(&c);
    return r;
}

int64_t sys_open_tree_attr(struct task *t, int dirfd, uaddr_t path, unsigned flags, uaddr_t addr,
                           uint64_t size)
{
    struct file *f;

    if (uaddr_is_null(addr) && size)
        return -EINVAL;
    int r = tree_check(t, flags);
    if (r == 0)
        r = tree_open(t, dirfd, path, flags, &f);
    if (r)
        return r;
    if (!uaddr_is_null(addr))
        r = tree_setattr(t, f, flags, addr, size);
    if (r == 0)
        r = task_fd_install(t, f, flags & OPEN_TREE_CLOEXEC, 0);
    file_put(f);
    return r;
}
