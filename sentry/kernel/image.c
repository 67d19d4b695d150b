/* What execve asks of a file before it is loaded: who may run it, and as whom it then runs. */
#include "sentry/kernel/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "sentry/cred/user_ns.h"
#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/task_priv.h"
#include "sentry/vfs/landlock.h"

/* Running a program takes execute permission only; reading it is the kernel's affair. */
static int image_open_unreadable(const struct vfs_caller *c, const struct vpath *p,
                                 struct file **out_file)
{
    struct vfs_caller own = *c;
    int r = cred_dup(c->cred, &own.cred);

    if (r)
        return r;
    own.cred->cap_effective |= 1ull << CAP_DAC_READ_SEARCH;
    r = vfs_open_path(&own, p, O_RDONLY, out_file);
    cred_put(own.cred);
    return r;
}

static int image_check(const struct vfs_caller *c, const struct vpath *p)
{
    struct vfs_attr a;
    int r = vfs_getattr(p, &a);

    if (r)
        return r;
    if (S_ISLNK(a.mode))
        return -ELOOP;
    if (!S_ISREG(a.mode))
        return -EACCES;
    r = vfs_permission(c, p->dentry->inode, 1);
    if (r)
        return r;
    if (vfs_mount_flags(p->mnt) & MS_NOEXEC)
        return -EACCES;
    return atomic_load_explicit(&p->dentry->inode->writers, memory_order_relaxed) > 0 ? -ETXTBSY
                                                                                      : 0;
}

int image_open(const struct vfs_caller *c, const struct vpath *base, const char *path,
               unsigned lookup_flags, struct file **out_file)
{
    struct vpath p;
    int r = vfs_lookup(c, base, path, lookup_flags, &p);

    if (r)
        return r;
    if (!p.dentry->inode)
        r = -ENOENT;
    if (!r)
        r = image_check(c, &p);
    if (!r)
        r = landlock_path(c, &p, LANDLOCK_EXECUTE);
    if (!r)
        r = vfs_open_path(c, &p, O_RDONLY, out_file);
    if (r == -EACCES && image_check(c, &p) == 0 && landlock_path(c, &p, LANDLOCK_EXECUTE) == 0)
        r = image_open_unreadable(c, &p, out_file);
    vpath_put(&p);
    return r;
}

/* Another process has t's directory context. tree held. */
static bool image_fs_shared_locked(struct task *t)
{
    struct thread_group *tg;
    struct task_priv *p;
    bool shared = false;

    list_for_each_entry (tg, &t->k->groups, node) {
        if (tg == t->tg)
            continue;
        list_for_each_entry (p, &tg->threads, thread_node) {
            mutex_lock(&p->t->mu);
            shared |= p->t->fs == t->fs;
            mutex_unlock(&p->t->mu);
        }
    }
    return shared;
}

/* check_unsafe_exec: somebody else could steer what the program does. */
static bool image_unsafe(struct task *t, const struct cred *n)
{
    mutex_lock(&t->k->mu);
    const bool unsafe = !trace_capable_locked(t, n->user_ns) || image_fs_shared_locked(t);
    mutex_unlock(&t->k->mu);
    return unsafe;
}

/* Set-id bits, as far as their owners are known where the caller is. */
static void image_set_ids(const struct cred *old, const struct vfs_attr *a, struct cred *n)
{
    if (user_ns_out(old->user_ns, USER_NS_UID, a->uid) == USER_NS_NONE ||
        user_ns_out(old->user_ns, USER_NS_GID, a->gid) == USER_NS_NONE)
        return;
    if (a->mode & S_ISUID)
        n->euid = a->uid;
    /* Without group execute permission the bit once meant mandatory locking. */
    if ((a->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
        n->egid = a->gid;
}

int image_cred(const struct vfs_caller *c, struct file *exe, struct cred **out_cred,
               bool *out_secure)
{
    const struct cred *old = c->cred;
    const bool trusted = !(vfs_mount_flags(exe->path.mnt) & MS_NOSUID);
    struct cred_file_caps caps;
    struct cred *n;
    struct vfs_attr a;
    int has_caps = 0;
    int r = vfs_file_getattr(exe, &a);

    if (!r && trusted)
        r = has_caps = vfs_file_caps(c, exe->inode, &caps);
    if (r < 0)
        return r;
    r = cred_dup(old, &n);
    if (r)
        return r;
    if (trusted && !old->no_new_privs)
        image_set_ids(old, &a, n);
    const bool unsafe = (has_caps || n->euid != old->euid || n->egid != old->egid) && c->blocker &&
                        image_unsafe(container_of(c->blocker, struct task, blocker), n);
    r = cred_caps_at_exec(n, old, has_caps ? &caps : NULL, unsafe, out_secure);
    if (r) {
        cred_put(n);
        return r;
    }
    *out_cred = n;
    return 0;
}

/* ---- the running program's file ---- */

int exe_deny_write(struct inode *i)
{
    int32_t v = atomic_load_explicit(&i->writers, memory_order_relaxed);

    do {
        if (v > 0)
            return -ETXTBSY;
    } while (!atomic_compare_exchange_weak(&i->writers, &v, v - 1));
    return 0;
}

void exe_allow_write(struct inode *i)
{
    atomic_fetch_add(&i->writers, 1);
}

void exe_put(struct vpath *exe)
{
    if (!exe->dentry)
        return;
    exe_allow_write(exe->dentry->inode);
    vpath_put(exe);
    *exe = (struct vpath){NULL, NULL};
}

int exe_from_file(struct file *f, struct vpath *out)
{
    int r = exe_deny_write(f->path.dentry->inode);

    if (r)
        return r;
    vpath_get(&f->path);
    *out = f->path;
    return 0;
}

void exe_dup(const struct vpath *from, struct vpath *out)
{
    *out = *from;
    if (!from->dentry)
        return;
    /* from's own denial is there, so no writer can be. */
    atomic_fetch_sub(&from->dentry->inode->writers, 1);
    vpath_get(out);
}
