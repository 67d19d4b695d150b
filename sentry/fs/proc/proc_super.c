/* The tree of tables as inodes: look-up, listing, links, attributes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "proc_priv.h"
#include "proc_node.h"
#include "sentry/cred/user_ns.h"
#include "sentry/kernel/ns.h"
#include "sentry/kernel/process.h"
#include "sentry/net/sock.h"

#define PROC_SUPER_MAGIC 0x9fa0
#define SYSFS_MAGIC 0x62656572

struct proc_super {
    struct super sb;
    struct kernel *k;
    struct pid_ns *ns; /* owned */
    struct net *net;   /* owned, or NULL */
};

static struct proc_super *proc_super(struct super *sb)
{
    return container_of(sb, struct proc_super, sb);
}

int proc_ctx_begin(struct inode *i, const struct vfs_caller *c, struct proc_ctx *out)
{
    struct proc_node *n = proc_node(i);

    *out = (struct proc_ctx){.k = proc_super(i->sb)->k,
                             .ns = proc_super(i->sb)->ns,
                             .fd = n->fd,
                             .net = proc_super(i->sb)->net,
                             .c = c};
    if (n->tid == 0)
        return 0;
    int r = kernel_find_task(out->k, n->tid, n->thread, &out->t);
    if (r)
        return r;
    struct task_info info;
    task_info(out->t, &info);
    if (info.start_ns != n->start_ns) {
        task_put(out->t);
        out->t = NULL;
        return -ESRCH;
    }
    return 0;
}

void proc_ctx_end(struct proc_ctx *pc)
{
    if (pc->t)
        task_put(pc->t);
}

static uint32_t entry_type(const struct proc_entry *e)
{
    if (e->children || e->list)
        return S_IFDIR;
    return e->readlink ? S_IFLNK : S_IFREG;
}

uint64_t proc_node_ino(const struct proc_entry *e, int32_t tid, bool thread, int fd)
{
    uint64_t h = 1469598103934665603u;
    const uint64_t parts[] = {(uint64_t)(uintptr_t)e, (uint32_t)tid, thread, (uint32_t)fd};

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        h = (h ^ parts[i]) * 1099511628211u;
    return (h >> 16) | 0x100000000u;
}

/* task_dump_owner(): what a task that shows itself has belongs to it; of others only the directory.
 */
static void node_own(struct inode *i, struct task *t)
{
    const struct proc_node *n = proc_node(i);
    const bool top = n->entry == &proc_pid_dir || n->entry == &proc_tid_dir;
    struct cred *c = task_get_cred(t);
    uint32_t uid = 0, gid = 0;

    if (c && (top || task_attr_get(t, TASK_ATTR_DUMPABLE) == 1)) {
        uid = c->euid;
        gid = c->egid;
    } else if (c && c->user_ns) {
        uid = user_ns_in(c->user_ns, USER_NS_UID, 0);
        gid = user_ns_in(c->user_ns, USER_NS_GID, 0);
        uid = uid == USER_NS_NONE ? 0 : uid;
        gid = gid == USER_NS_NONE ? 0 : gid;
    }
    if (c)
        cred_put(c);
    mutex_lock(&i->mu);
    i->uid = uid;
    i->gid = gid;
    mutex_unlock(&i->mu);
}

static int node_new(struct super *sb, const struct proc_entry *e, int32_t tid, bool thread, int fd,
                    uint64_t start_ns, struct inode **out)
{
    struct proc_node *n = calloc(1, sizeof(*n));

    if (!n)
        return -ENOMEM;
    int r = inode_init(&n->inode, &proc_inode_ops, sb, proc_node_ino(e, tid, thread, fd),
                       entry_type(e) | e->mode);
    if (r) {
        free(n);
        return r;
    }
    if (S_ISDIR(n->inode.mode))
        n->inode.nlink = 2;
    n->entry = e;
    n->tid = tid;
    n->thread = thread;
    n->fd = fd;
    n->start_ns = start_ns;
    struct task *t;
    if (tid && kernel_find_task(proc_super(sb)->k, tid, thread, &t) == 0) {
        node_own(&n->inode, t);
        task_put(t);
    }
    *out = &n->inode;
    return 0;
}

static int parse_number(const char *name, int32_t *out)
{
    int64_t v = 0;

    if (name[0] == '\0' || (name[0] == '0' && name[1] != '\0'))
        return -ENOENT;
    for (const char *p = name; *p; p++) {
        if (*p < '0' || *p > '9')
            return -ENOENT;
        v = v * 10 + (*p - '0');
        if (v > INT32_MAX)
            return -ENOENT;
    }
    *out = (int32_t)v;
    return 0;
}

/* /proc/<tgid> from the root, /proc/<tgid>/task/<tid>, or a descriptor in fd/ and fdinfo/. */
static int lookup_number(struct inode *dir, const struct proc_ctx *pc, const char *name,
                         struct inode **out)
{
    struct proc_node *n = proc_node(dir);
    const struct proc_entry *item = n->entry->item;
    size_t skip = n->entry->prefix ? strlen(n->entry->prefix) : 0;
    int32_t num;

    if (skip && strncmp(name, n->entry->prefix, skip) != 0)
        return -ENOENT;
    int r = 0;

    if (!n->entry->number_of)
        r = parse_number(name + skip, &num);
    else if ((num = n->entry->number_of(pc, name)) < 0)
        r = -ENOENT;
    if (r)
        return r;
    if (item != &proc_pid_dir && item != &proc_tid_dir) {
        if (n->entry->list(pc, num) != num)
            return -ENOENT;
        return node_new(dir->sb, item, n->tid, n->thread, num, n->start_ns, out);
    }
    bool thread = item == &proc_tid_dir || n->tid == 0;
    struct task *t;
    num = kernel_pid_in(pc->k, pc->ns, num);
    r = num ? kernel_find_task(pc->k, num, thread, &t) : -ENOENT;
    if (r)
        return -ENOENT;
    struct task_info info;
    task_info(t, &info);
    task_put(t);
    if (item == &proc_tid_dir && info.tgid != n->tid && pc->t) {
        struct task_info own;
        task_info(pc->t, &own);
        if (own.tgid != info.tgid)
            return -ENOENT;
    }
    return node_new(dir->sb, item, num, thread, -1, info.start_ns, out);
}

static const struct proc_entry *find_row(const struct proc_entry *e, const char *name)
{
    for (; e && e->name; e++)
        if (strcmp(e->name, name) == 0)
            return e;
    return NULL;
}

static int proc_lookup(struct inode *dir, const char *name, struct inode **out)
{
    struct proc_node *n = proc_node(dir);
    struct proc_ctx pc;
    int r = proc_ctx_begin(dir, NULL, &pc);

    if (r)
        return -ENOENT;
    r = -ENOENT;
    const struct proc_entry *e = find_row(n->entry->children, name);
    if (!e)
        e = find_row(n->entry->more, name);
    if (e)
        r = node_new(dir->sb, e, n->tid, n->thread, n->fd, n->start_ns, out);
    else if (n->entry->list)
        r = lookup_number(dir, &pc, name, out);
    proc_ctx_end(&pc);
    return r;
}

static int64_t proc_readlink(struct inode *i, const struct vfs_caller *c, char *buf, size_t size)
{
    struct proc_ctx pc;
    int r = proc_ctx_begin(i, c, &pc);

    if (r)
        return r;
    int64_t n = proc_node(i)->entry->readlink(&pc, buf, size);
    proc_ctx_end(&pc);
    return n;
}

static int proc_follow(struct inode *i, const struct vfs_caller *c, struct vpath *out)
{
    struct proc_ctx pc;
    const struct proc_entry *e = proc_node(i)->entry;

    if (!e->follow)
        return -EOPNOTSUPP;
    int r = proc_ctx_begin(i, c, &pc);
    if (r)
        return r;
    r = e->follow(&pc, out);
    proc_ctx_end(&pc);
    return r;
}

/* A task's files belong to its effective ids. */
static int proc_getattr(struct inode *i, struct vfs_attr *out)
{
    struct proc_node *n = proc_node(i);

    *out = (struct vfs_attr){
        .ino = i->ino, .dev = i->sb->dev, .mode = i->mode, .nlink = i->nlink, .blksize = 1024};
    out->atime = out->mtime = out->ctime = i->mtime;
    if (n->tid == 0)
        return 0;
    struct proc_ctx pc;
    int r = proc_ctx_begin(i, NULL, &pc);
    if (r)
        return r;
    node_own(i, pc.t);
    out->uid = i->uid;
    out->gid = i->gid;
    proc_ctx_end(&pc);
    return 0;
}

static int proc_setattr(struct inode *i, const struct vfs_setattr *a)
{
    (void)i;
    return a->valid & (VFS_SET_MODE | VFS_SET_UID | VFS_SET_GID) ? -EPERM : 0;
}

static int proc_no_create(struct inode *dir, const char *name, uint32_t mode, uint64_t rdev,
                          const struct vfs_caller *c, struct inode **out)
{
    (void)dir, (void)name, (void)mode, (void)rdev, (void)c, (void)out;
    return -ENOENT;
}

static void proc_release(struct inode *i)
{
    inode_fini(i);
    free(proc_node(i));
}

const struct inode_ops proc_inode_ops = {
    .lookup = proc_lookup,
    .create = proc_no_create,
    .readlink = proc_readlink,
    .follow = proc_follow,
    .getattr = proc_getattr,
    .setattr = proc_setattr,
    .open = proc_open,
    .release = proc_release,
};

static int proc_statfs(struct super *sb, struct vfs_statfs *out)
{
    *out = (struct vfs_statfs){.type = sb->fs == &proc_fs_ops ? PROC_SUPER_MAGIC : SYSFS_MAGIC,
                               .bsize = PAGE_SIZE,
                               .frsize = PAGE_SIZE,
                               .namelen = VFS_NAME_MAX};
    return 0;
}

static void proc_destroy(struct super *sb)
{
    pid_ns_put(proc_super(sb)->ns);
    if (proc_super(sb)->net)
        net_put(proc_super(sb)->net);
    free(proc_super(sb));
}

/* A task's names die and are re-used with it. */
static int proc_revalidate(struct dentry *d, struct inode *dir, const char *name)
{
    (void)name;
    struct proc_ctx pc;

    if (!d->inode)
        return 0;
    struct proc_node *n = proc_node(d->inode);
    /* Names of numbers change. */
    if (n->tid == 0)
        return proc_node(dir)->entry->number_of ? 0 : 1;
    if (proc_ctx_begin(d->inode, NULL, &pc))
        return 0;
    int ok = n->fd < 0 || fdtable_alive(pc.t, n->fd);
    node_own(d->inode, pc.t);
    proc_ctx_end(&pc);
    return ok;
}

static const struct super_ops proc_super_ops = {
    .statfs = proc_statfs,
    .destroy = proc_destroy,
    .revalidate = proc_revalidate,
};

static int32_t list_tasks(const struct proc_ctx *pc, int32_t from)
{
    return kernel_next_tgid_in(pc->k, pc->ns, from);
}

static const struct proc_entry proc_root_dir = {
    .name = "/",
    .mode = 0555,
    .children = proc_root_entries,
    .more = proc_machine_entries,
    .list = list_tasks,
    .item = &proc_pid_dir,
};

int proc_super_new(const struct fs_ops *fs, struct kernel *k, const char *source,
                   const struct proc_entry *dir, struct super **out)
{
    struct proc_super *ps = calloc(1, sizeof(*ps));
    struct inode *root;

    if (!ps)
        return -ENOMEM;
    super_init(&ps->sb, &proc_super_ops, fs);
    ps->k = k;
    snprintf(ps->sb.source, sizeof(ps->sb.source), "%s", source ? source : fs->name);
    int r = node_new(&ps->sb, dir, 0, false, -1, 0, &root);
    if (!r)
        r = super_set_root(&ps->sb, root);
    if (r) {
        super_put(&ps->sb);
        return r;
    }
    *out = &ps->sb;
    return 0;
}

void proc_super_set_net(struct super *sb, struct net *net)
{
    proc_super(sb)->net = net;
}

static int proc_mount(const struct fs_ops *fs, void *boot_arg, const char *source,
                      const char *options, const struct vfs_caller *c, struct super **out_super)
{
    (void)options;
    int r = proc_super_new(fs, boot_arg, source, &proc_root_dir, out_super);
    /* The pid namespace of who mounts it. */
    if (r == 0 && c && c->pid)
        proc_super(*out_super)->ns = kernel_pid_ns_of(boot_arg, c->pid);
    return r;
}

int proc_mount_for(struct kernel *k, struct pid_ns *ns, const char *source,
                   struct super **out_super)
{
    int r = proc_super_new(&proc_fs_ops, k, source, &proc_root_dir, out_super);

    if (r == 0)
        proc_super(*out_super)->ns = pid_ns_get(ns);
    return r;
}

const struct fs_ops proc_fs_ops = {.name = "proc", .mount = proc_mount};
