/* Namespaces: numbers, owners, the files that name them (fs/nsfs.c). */
#include "sentry/kernel/ns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "sentry/cred/user_ns.h"
#include "sentry/ipc/ipc.h"
#include "sentry/kernel/ns_priv.h"
#include "sentry/kernel/process.h"
#include "sentry/net/sock.h"

#define NSFS_MAGIC 0x6e736673

OBJCOUNT_DEFINE(ns_tag);

/* ---- tags ---- */

uint64_t kernel_new_ns_id(struct kernel *k)
{
    return atomic_fetch_add_explicit(&k->next_ns_id, 1, memory_order_relaxed);
}

int ns_tag_new(struct kernel *k, enum ns_kind kind, struct user_ns *owner, void *obj,
               struct ns_tag **out_tag)
{
    struct ns_tag *tag = calloc(1, sizeof(*tag));

    if (!tag)
        return -ENOMEM;
    ref_init(&tag->ref);
    tag->kind = kind;
    tag->id = kernel_new_ns_id(k);
    tag->owner = user_ns_get(owner);
    tag->obj = obj;
    OBJCOUNT_INC(ns_tag);
    *out_tag = tag;
    return 0;
}

struct ns_tag *ns_tag_get(struct ns_tag *tag)
{
    if (tag)
        ref_get(&tag->ref);
    return tag;
}

void ns_tag_put(struct ns_tag *tag)
{
    if (!tag || !ref_put(&tag->ref))
        return;
    switch (tag->kind) {
    case NS_UTS:
        uts_put(tag->obj);
        break;
    case NS_IPC:
        ipc_ns_put(tag->obj);
        break;
    case NS_NET:
        if (tag->obj)
            net_put(tag->obj);
        break;
    case NS_MNT:
        if (tag->obj)
            mount_ns_put(tag->obj);
        break;
    case NS_CGROUP:
        cgroup_ns_put(tag->obj);
        break;
    case NS_TIME:
        time_ns_put(tag->obj);
        break;
    case NS_TIME_CHILDREN:
    case NS_PID:
    case NS_PID_CHILDREN:
    case NS_USER:
    case NS_KINDS:
    default:
        break;
    }
    user_ns_put(tag->owner);
    OBJCOUNT_DEC(ns_tag);
    free(tag);
}

struct net *task_net(struct task *t)
{
    return task_priv(t)->tags[NS_NET]->obj;
}

bool task_may_mount(struct task *t)
{
    return cred_ns_capable(t->cred, task_priv(t)->tags[NS_MNT]->owner, CAP_SYS_ADMIN);
}

bool task_may_rename_host(struct task *t)
{
    return cred_ns_capable(t->cred, task_priv(t)->tags[NS_UTS]->owner, CAP_SYS_ADMIN);
}

/* ---- handles ---- */

static const struct {
    const char *name;
    uint64_t flag;
    uint64_t first_id; /* of the sandbox's own */
} ns_kinds[NS_KINDS] = {
    [NS_CGROUP] = {"cgroup", CLONE_NEWCGROUP, NS_FIRST_ID_CGROUP},
    [NS_IPC] = {"ipc", CLONE_NEWIPC, NS_FIRST_ID_IPC},
    [NS_MNT] = {"mnt", CLONE_NEWNS, NS_FIRST_ID_MNT},
    [NS_NET] = {"net", CLONE_NEWNET, NS_FIRST_ID_NET},
    [NS_UTS] = {"uts", CLONE_NEWUTS, NS_FIRST_ID_UTS},
    [NS_TIME] = {"time", CLONE_NEWTIME, NS_FIRST_ID_TIME},
    [NS_TIME_CHILDREN] = {"time", CLONE_NEWTIME, NS_FIRST_ID_TIME},
    [NS_PID] = {"pid", CLONE_NEWPID, NS_FIRST_ID_PID},
    [NS_PID_CHILDREN] = {"pid", CLONE_NEWPID, NS_FIRST_ID_PID},
    [NS_USER] = {"user", CLONE_NEWUSER, NS_FIRST_ID_USER},
};

const char *ns_kind_name(enum ns_kind kind)
{
    return ns_kinds[kind].name;
}

uint64_t ns_kind_flag(enum ns_kind kind)
{
    return ns_kinds[kind].flag;
}

uint64_t ns_handle_id(const struct ns_handle *h)
{
    if (h->kind < NS_TAGS)
        return ((const struct ns_tag *)h->obj)->id;
    if (!h->obj)
        return ns_kinds[h->kind].first_id;
    return h->kind == NS_USER ? ((const struct user_ns *)h->obj)->id
                              : ((const struct pid_ns *)h->obj)->id;
}

void ns_handle_put(struct ns_handle *h)
{
    if (h->kind < NS_TAGS)
        ns_tag_put(h->obj);
    else if (h->kind == NS_USER)
        user_ns_put(h->obj);
    else
        pid_ns_put(h->obj);
    h->obj = NULL;
}

/* Borrowed. */
struct user_ns *ns_handle_owner(const struct ns_handle *h)
{
    if (h->kind < NS_TAGS)
        return ((const struct ns_tag *)h->obj)->owner;
    if (!h->obj)
        return NULL;
    return h->kind == NS_USER ? ((const struct user_ns *)h->obj)->parent
                              : ((const struct pid_ns *)h->obj)->owner;
}

int task_get_ns(struct task *o, enum ns_kind kind, struct ns_handle *out)
{
    struct task_priv *p = task_priv(o);
    int r = 0;

    *out = (struct ns_handle){.kind = kind};
    mutex_lock(&o->mu);
    if (kind < NS_TAGS) {
        out->obj = ns_tag_get(p->tags[kind]);
        r = out->obj ? 0 : -ENOENT;
    } else if (kind == NS_USER) {
        out->obj = user_ns_get(o->cred->user_ns);
    } else {
        out->obj = pid_ns_get(kind == NS_PID ? o->tg->pid_ns : p->pid_ns_children);
    }
    mutex_unlock(&o->mu);
    return r;
}

/* ---- files ---- */

struct ns_inode {
    struct inode inode;
    struct ns_handle h; /* owned */
};

static struct ns_inode *ns_inode(struct inode *i)
{
    return container_of(i, struct ns_inode, inode);
}

static void ns_inode_release(struct inode *i)
{
    struct ns_inode *n = ns_inode(i);

    ns_handle_put(&n->h);
    inode_fini(i);
    free(n);
}

static int ns_inode_open(struct inode *i, struct file *f, const struct vfs_caller *c);

static const struct inode_ops ns_inode_ops = {.open = ns_inode_open, .release = ns_inode_release};

static int ns_statfs(struct super *sb, struct vfs_statfs *out)
{
    (void)sb;
    *out = (struct vfs_statfs){.type = NSFS_MAGIC, .bsize = PAGE_SIZE, .namelen = VFS_NAME_MAX};
    return 0;
}

static void ns_super_destroy(struct super *sb)
{
    free(sb);
}

static const struct super_ops ns_super_ops = {.statfs = ns_statfs, .destroy = ns_super_destroy};
static const struct fs_ops ns_fs = {.name = "nsfs"};

int ns_super_new(struct super **out_sb)
{
    struct super *sb = calloc(1, sizeof(*sb));

    if (!sb)
        return -ENOMEM;
    super_init(sb, &ns_super_ops, &ns_fs);
    *out_sb = sb;
    return 0;
}

static int ns_open_file(struct kernel *k, struct ns_handle *h, struct file **out_file);

/* A descriptor for h (taken), close-on-exec. */
static int64_t ns_give_fd(struct task *t, struct ns_handle *h)
{
    struct file *f;
    int r = ns_open_file(t->k, h, &f);

    if (r)
        return r;
    r = task_fd_install(t, f, true, 0);
    file_put(f);
    return r;
}

static int64_t ns_ioctl_userns(struct task *t, const struct ns_handle *h)
{
    struct user_ns *owner = ns_handle_owner(h);

    if (h->kind == NS_USER && !h->obj)
        return -EPERM;
    if (!user_ns_is_below(owner, t->cred->user_ns))
        return -EPERM;
    struct ns_handle o = {NS_USER, user_ns_get(owner)};
    return ns_give_fd(t, &o);
}

static int64_t ns_ioctl_parent(struct task *t, const struct ns_handle *h)
{
    const struct pid_ns *pid = h->obj;

    if (h->kind == NS_USER)
        return ns_ioctl_userns(t, h);
    if (h->kind != NS_PID && h->kind != NS_PID_CHILDREN)
        return -EINVAL;
    /* Above one's own there is nothing to be seen. */
    if (!pid || pid == t->tg->pid_ns)
        return -EPERM;
    struct ns_handle o = {NS_PID, pid_ns_get(pid->parent)};
    return ns_give_fd(t, &o);
}

static int64_t ns_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                        const struct vfs_caller *c)
{
    const struct ns_handle *h = &ns_inode(f->inode)->h;

    if (!c->blocker)
        return -EINVAL;
    struct task *t = container_of(c->blocker, struct task, blocker);
    switch (cmd) {
    case NS_GET_USERNS:
        return ns_ioctl_userns(t, h);
    case NS_GET_PARENT:
        return ns_ioctl_parent(t, h);
    case NS_GET_NSTYPE:
        return (int64_t)ns_kinds[h->kind].flag;
    case NS_GET_OWNER_UID: {
        const struct user_ns *ns = h->obj;
        if (h->kind != NS_USER)
            return -EINVAL;
        const uint32_t uid = user_ns_show(c->cred->user_ns, USER_NS_UID, ns ? ns->owner : 0);
        return copyout_obj(ua, uaddr(arg), &uid);
    }
    default:
        return -ENOTTY;
    }
}

static const struct file_ops ns_file_ops = {.ioctl = ns_ioctl};

static int ns_inode_open(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    (void)i, (void)c;
    f->ops = &ns_file_ops;
    return 0;
}

const struct ns_handle *ns_file_handle(const struct file *f)
{
    return f->ops == &ns_file_ops ? &ns_inode(f->inode)->h : NULL;
}

/* Takes h whatever happens. */
static int ns_open_file(struct kernel *k, struct ns_handle *h, struct file **out_file)
{
    struct ns_inode *n = calloc(1, sizeof(*n));
    char text[48];

    if (!n) {
        ns_handle_put(h);
        return -ENOMEM;
    }
    const uint64_t id = ns_handle_id(h);
    (void)snprintf(text, sizeof(text), "%s:[%llu]", ns_kinds[h->kind].name, (unsigned long long)id);
    int r = inode_init(&n->inode, &ns_inode_ops, k->nsfs, id, 0100444);
    if (r) {
        ns_handle_put(h);
        free(n);
        return r;
    }
    n->h = *h;
    r = vfs_anon_inode_file(text, &n->inode, &ns_file_ops, O_RDONLY, out_file);
    inode_put(&n->inode);
    return r;
}

int ns_handle_place(struct kernel *k, struct ns_handle *h, struct vpath *out)
{
    struct file *f;
    int r = ns_open_file(k, h, &f);

    if (r)
        return r;
    *out = f->path;
    vpath_get(out);
    file_put(f);
    return 0;
}
