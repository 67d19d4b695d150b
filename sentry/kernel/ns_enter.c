/* clone(2), unshare(2), setns(2): into namespaces (kernel/nsproxy.c). */
#include <errno.h>
#include <linux/capability.h>
#include <linux/sched.h>

#include "sentry/cred/user_ns.h"
#include "sentry/ipc/ipc.h"
#include "sentry/ipc/sem.h"
#include "sentry/kernel/fsctx.h"
#include "sentry/kernel/ns_priv.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/process.h"
#include "sentry/net/sock.h"

/* ---- making ---- */

static int ns_make_mnt(const struct ns_tag *old, const struct cred *cred, struct fs_ctx *fs,
                       void **out_obj)
{
    struct mount_ns *ns;

    mutex_lock(&fs->mu);
    struct vpath root = fs->root, cwd = fs->cwd;
    mutex_unlock(&fs->mu);
    /* Nobody else has this fs_ctx. The places' references pass to and fro. */
    int r = mount_ns_copy(old->obj, cred->user_ns != old->owner, &root, &cwd, &ns);
    if (r)
        return r;
    mutex_lock(&fs->mu);
    fs->root = root;
    fs->cwd = cwd;
    mutex_unlock(&fs->mu);
    atomic_fetch_add(&fs->version, 1);
    *out_obj = ns;
    return 0;
}

static int ns_make_net(struct kernel *k, const struct cred *cred, void **out_obj)
{
    struct net *net;
    int r = net_new(k->cfg.mf, &net);

    if (r)
        return r;
    net_set_owner(net, cred->user_ns);
    *out_obj = net;
    return 0;
}

static int ns_make_obj(struct task *from, const struct ns_tag *old, const struct cred *cred,
                       struct fs_ctx *fs, void **out_obj)
{
    struct kernel *k = from->k;

    switch (old->kind) {
    case NS_UTS:
        return uts_dup(old->obj, (struct uts_ns **)out_obj);
    case NS_IPC:
        return ipc_ns_new(k->cfg.mf, old->obj, (struct ipc_ns **)out_obj);
    case NS_NET:
        return ns_make_net(k, cred, out_obj);
    case NS_MNT:
        return ns_make_mnt(old, cred, fs, out_obj);
    case NS_CGROUP:
        return cgroup_ns_new(from, (struct cgroup_ns **)out_obj);
    case NS_TIME:
        return time_ns_new(old->obj, (struct time_ns **)out_obj);
    case NS_TIME_CHILDREN:
    case NS_PID:
    case NS_PID_CHILDREN:
    case NS_USER:
    case NS_KINDS:
    default:
        *out_obj = NULL;
        return 0;
    }
}

static int ns_make_tag(struct task *from, const struct ns_tag *old, const struct cred *cred,
                       struct fs_ctx *fs, struct ns_tag **out_tag)
{
    struct ns_tag *tag;
    int r = ns_tag_new(from->k, old->kind, cred->user_ns, NULL, &tag);

    if (r)
        return r;
    r = ns_make_obj(from, old, cred, fs, &tag->obj);
    if (r) {
        /* There is no object to give up. */
        tag->kind = NS_CGROUP;
        ns_tag_put(tag);
        return r;
    }
    *out_tag = tag;
    return 0;
}

int ns_tags_make(struct task *from, uint64_t flags, const struct cred *cred, struct fs_ctx *fs,
                 struct ns_tag *tags[NS_TAGS])
{
    struct ns_tag *const *old = task_priv(from)->tags;
    int r = 0;

    for (int kind = 0; kind < NS_TAGS; kind++)
        tags[kind] = NULL;
    for (int kind = 0; !r && kind < NS_TAGS; kind++) {
        /* A new time namespace is for children. */
        if (kind != NS_TIME && (flags & ns_kind_flag((enum ns_kind)kind)))
            r = ns_make_tag(from, old[kind], cred, fs, &tags[kind]);
        else
            tags[kind] = ns_tag_get(old[kind]);
    }
    if (r)
        ns_tags_put(tags);
    return r;
}

void ns_tags_put(struct ns_tag *tags[NS_TAGS])
{
    for (int kind = 0; kind < NS_TAGS; kind++) {
        ns_tag_put(tags[kind]);
        tags[kind] = NULL;
    }
}

void ns_tags_install(struct task *o, struct ns_tag *tags[NS_TAGS])
{
    struct task_priv *p = task_priv(o);
    struct uts_ns *uts = uts_get(tags[NS_UTS]->obj);
    struct ipc_ns *ipc = ipc_ns_get(tags[NS_IPC]->obj);
    struct mount_ns *mnt = mount_ns_get(tags[NS_MNT]->obj);

    mutex_lock(&o->mu);
    for (int kind = 0; kind < NS_TAGS; kind++) {
        struct ns_tag *tag = p->tags[kind];
        p->tags[kind] = tags[kind];
        tags[kind] = tag;
    }
    struct uts_ns *old_uts = p->uts;
    struct ipc_ns *old_ipc = p->ipc;
    struct mount_ns *old_mnt = p->ns;
    p->uts = uts;
    p->ipc = ipc;
    p->ns = mnt;
    mutex_unlock(&o->mu);
    uts_put(old_uts);
    ipc_ns_put(old_ipc);
    if (old_mnt)
        mount_ns_put(old_mnt);
}

int ns_user_make(struct task *t, struct cred **out_cred)
{
    struct user_ns *ns;
    struct cred *n;
    struct vpath root;

    /* current_chrooted(): who cannot see the top may not make himself the master of what is below.
     */
    int r = task_get_path(t, 0, &root);
    if (r)
        return r;
    struct vpath top;
    mount_ns_root(task_priv(t)->ns, &top);
    const bool chrooted = top.mnt != root.mnt || top.dentry != root.dentry;
    vpath_put(&top);
    vpath_put(&root);
    if (chrooted)
        return -EPERM;
    r = cred_dup(t->cred, &n);
    if (r)
        return r;
    r = user_ns_new(n, kernel_new_ns_id(t->k), &ns);
    if (r) {
        cred_put(n);
        return r;
    }
    cred_enter_user_ns(n, ns);
    *out_cred = n;
    return 0;
}

/* ---- unshare(2) ---- */

static bool ns_single(struct task *t)
{
    mutex_lock(&t->k->mu);
    const bool single = t->tg->thread_count == 1;
    mutex_unlock(&t->k->mu);
    return single;
}

static int unshare_pid(struct task *t, const struct cred *cred)
{
    struct task_priv *p = task_priv(t);
    struct pid_ns *ns;

    /* Only once there is a first process can there be another level. */
    if (p->pid_ns_children != t->tg->pid_ns)
        return -EINVAL;
    int r = pid_ns_new(t->k, t->tg->pid_ns, cred->user_ns, &ns);
    if (r)
        return r;
    mutex_lock(&t->mu);
    struct pid_ns *old = p->pid_ns_children;
    p->pid_ns_children = ns;
    mutex_unlock(&t->mu);
    pid_ns_put(old);
    return 0;
}

static int unshare_tags(struct task *t, uint64_t flags, const struct cred *cred)
{
    struct ns_tag *tags[NS_TAGS];
    int r = ns_tags_make(t, flags, cred, t->fs, tags);

    if (r)
        return r;
    if (flags & CLONE_NEWIPC)
        task_sem_undo_exit(t);
    ns_tags_install(t, tags);
    ns_tags_put(tags);
    task_forget_fs(t);
    return 0;
}

int task_unshare_ns(struct task *t, uint64_t flags)
{
    struct cred *cred = NULL;
    int r = 0;

    if ((flags & CLONE_NEWUSER) && !ns_single(t))
        return -EINVAL;
    if (flags & CLONE_NEWUSER)
        r = ns_user_make(t, &cred);
    else
        cred = cred_get(t->cred);
    if (r)
        return r;
    if ((flags & NS_CLONE_ALL & ~(uint64_t)CLONE_NEWUSER) &&
        !cred_self_capable(cred, CAP_SYS_ADMIN))
        r = -EPERM;
    if (!r && (flags & NS_CLONE_TAGS))
        r = unshare_tags(t, flags, cred);
    if (!r && (flags & CLONE_NEWPID))
        r = unshare_pid(t, cred);
    if (!r && (flags & CLONE_NEWUSER))
        task_cred_commit(t, cred_get(cred));
    cred_put(cred);
    return r;
}

/* ---- setns(2) ---- */

static int enter_user(struct task *t, struct user_ns *ns)
{
    struct cred *n;

    if (ns == t->cred->user_ns || !ns_single(t) || ref_read(&t->fs->ref) > 1)
        return -EINVAL;
    if (!cred_ns_capable(t->cred, ns, CAP_SYS_ADMIN))
        return -EPERM;
    int r = cred_dup(t->cred, &n);
    if (r)
        return r;
    cred_enter_user_ns(n, user_ns_get(ns));
    task_cred_commit(t, n);
    return 0;
}

static int enter_pid(struct task *t, struct pid_ns *ns)
{
    const struct pid_ns *up = ns;
    struct user_ns *owner = ns ? ns->owner : NULL;

    if (!cred_ns_capable(t->cred, owner, CAP_SYS_ADMIN) ||
        !cred_self_capable(t->cred, CAP_SYS_ADMIN))
        return -EPERM;
    while (up && up != t->tg->pid_ns)
        up = up->parent;
    if (up != t->tg->pid_ns)
        return -EINVAL;
    mutex_lock(&t->mu);
    struct pid_ns *old = task_priv(t)->pid_ns_children;
    task_priv(t)->pid_ns_children = pid_ns_get(ns);
    mutex_unlock(&t->mu);
    pid_ns_put(old);
    return 0;
}

static int enter_tag(struct task *t, struct ns_tag *tag)
{
    struct ns_tag *tags[NS_TAGS];

    if (!cred_ns_capable(t->cred, tag->owner, CAP_SYS_ADMIN) ||
        !cred_self_capable(t->cred, CAP_SYS_ADMIN))
        return -EPERM;
    if (tag->kind == NS_MNT && !cred_self_capable(t->cred, CAP_SYS_CHROOT))
        return -EPERM;
    if (tag->kind == NS_MNT && ref_read(&t->fs->ref) > 1)
        return -EINVAL;
    if (tag->kind == NS_IPC)
        task_sem_undo_exit(t);
    for (int kind = 0; kind < NS_TAGS; kind++)
        tags[kind] = ns_tag_get(kind == (int)tag->kind ? tag : task_priv(t)->tags[kind]);
    ns_tags_install(t, tags);
    ns_tags_put(tags);
    if (tag->kind == NS_MNT) {
        struct vpath root;
        mount_ns_root(tag->obj, &root);
        fs_ctx_set_root(t->fs, &root);
        fs_ctx_set_cwd(t->fs, &root);
        vpath_put(&root);
        task_forget_fs(t);
    }
    return 0;
}

/* current_is_single_threaded(): nobody else runs in its memory, in another process neither. */
static bool ns_memory_is_own(struct task *t)
{
    struct thread_group *tg;
    struct task_priv *p;
    bool own = true;

    mutex_lock(&t->k->mu);
    list_for_each_entry (tg, &t->k->groups, node) {
        list_for_each_entry (p, &tg->threads, thread_node) {
            mutex_lock(&p->t->mu);
            own &= p->t == t || p->t->ua.mm != t->ua.mm;
            mutex_unlock(&p->t->mu);
        }
    }
    mutex_unlock(&t->k->mu);
    return own;
}

static int enter_time(struct task *t, struct ns_tag *tag)
{
    struct ns_tag *tags[NS_TAGS];

    if (!ns_single(t) || !ns_memory_is_own(t))
        return -EUSERS;
    if (!cred_ns_capable(t->cred, tag->owner, CAP_SYS_ADMIN) ||
        !cred_self_capable(t->cred, CAP_SYS_ADMIN))
        return -EPERM;
    int r = time_ns_show(t->k, tag->obj, t->ua.mm, false);
    if (r)
        return r;
    for (int kind = 0; kind < NS_TAGS; kind++) {
        const bool time = kind == NS_TIME || kind == NS_TIME_CHILDREN;
        tags[kind] = ns_tag_get(time ? tag : task_priv(t)->tags[kind]);
    }
    ns_tags_install(t, tags);
    ns_tags_put(tags);
    return 0;
}

static int enter_handle(struct task *t, const struct ns_handle *h)
{
    if (h->kind == NS_TIME || h->kind == NS_TIME_CHILDREN)
        return enter_time(t, h->obj);
    if (h->kind < NS_TAGS)
        return enter_tag(t, h->obj);
    return h->kind == NS_USER ? enter_user(t, h->obj) : enter_pid(t, h->obj);
}

/* All that is asked for of another task's: the user namespace first, for the rights in it. */
static int setns_pidfd(struct task *t, struct file *f, uint64_t type)
{
    static const enum ns_kind order[] = {NS_USER, NS_MNT,    NS_UTS, NS_IPC,
                                         NS_PID,  NS_CGROUP, NS_NET, NS_TIME};
    struct task *o;
    const int32_t pid = pidfd_pid(f);

    if (pid < 0)
        return pid == -EBADF ? -EINVAL : pid;
    if (!type || (type & ~(uint64_t)NS_CLONE_ALL))
        return -EINVAL;
    int r = kernel_find_task(t->k, pid, false, &o);
    if (r)
        return r;
    if (!task_may_access(t, o, TASK_ACCESS_REAL))
        r = -EPERM;
    for (size_t i = 0; !r && i < ARRAY_SIZE(order); i++) {
        struct ns_handle h;
        if (!(type & ns_kind_flag(order[i])))
            continue;
        r = task_get_ns(o, order[i], &h);
        if (r)
            break;
        r = enter_handle(t, &h);
        ns_handle_put(&h);
    }
    task_put(o);
    return r;
}

int task_setns(struct task *t, struct file *f, uint64_t type)
{
    const struct ns_handle *h = ns_file_handle(f);

    if (!h)
        return setns_pidfd(t, f, type);
    if (type && type != ns_kind_flag(h->kind))
        return -EINVAL;
    return enter_handle(t, h);
}
