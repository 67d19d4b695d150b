/* SECCOMP_RET_USER_NOTIF: a call waits until whoever reads the listener has answered for it
 * (kernel/seccomp.c, seccomp_unotify(2)). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/random.h>

#include "sentry/kernel/process.h"
#include "sentry/kernel/seccomp_priv.h"
#include "sentry/kernel/signal_priv.h"

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1ull << 0)
#endif
/* The direction bits of the first kernels that had it. */
#define NOTIF_ID_VALID_OLD SECCOMP_IOR(2, __u64)
#define ADDFD_SIZE_VER0 24u

enum notice_state { NOTICE_NEW, NOTICE_SENT, NOTICE_REPLIED };

/* A descriptor for the waiting task, on the stack of who sends it. Guard: the filter's mu. */
struct notice_fd {
    struct list node;
    struct file *file; /* borrowed */
    int want;          /* SECCOMP_ADDFD_FLAG_SETFD: the number; else -1 */
    bool cloexec, reply;
    bool done;
    int ret;
    struct blocker *sender; /* woken when done */
};

/* On the stack of the task that waits. Guard: the filter's mu. */
struct notice {
    struct list node;
    struct task *t;
    uint64_t id;
    struct seccomp_data data;
    enum notice_state state;
    int64_t val;
    int32_t error;
    uint32_t flags;
    struct list fds; /* notice_fd.node */
};

struct seccomp_notify {
    struct list notices; /* oldest first */
    uint64_t next_id;
};

/* ---- the waiting task ---- */

static void notice_fd_done(struct notice_fd *a, int ret)
{
    list_del(&a->node);
    a->ret = ret;
    a->done = true;
    blocker_wake(a->sender);
}

/* Takes one descriptor in. mu held; dropped meanwhile: the sender waits without fail (killable
 * only) while the item is marked as ours by being off the list. */
static void notice_take_fd(struct task *t, struct seccomp_filter *f, struct notice *n)
{
    struct notice_fd *a = list_first_entry(&n->fds, struct notice_fd, node);
    struct file *file = file_get(a->file);
    const int want = a->want;
    const bool cloexec = a->cloexec;
    struct vfs_caller c;
    int fd;

    mutex_unlock(&f->mu);
    if (want < 0) {
        fd = task_fd_install(t, file, cloexec, 0);
    } else {
        task_vfs_caller(t, &c);
        fd = fdtable_install_at(t->fdt, file, cloexec, want, task_rlimit(t, 7 /* NOFILE */), &c);
        task_vfs_caller_end(&c);
    }
    file_put(file);
    mutex_lock(&f->mu);
    /* The sender may have given up meanwhile; then the list has another first, or none. */
    if (list_empty(&n->fds) || list_first_entry(&n->fds, struct notice_fd, node) != a)
        return;
    if (a->reply && fd >= 0) {
        n->state = NOTICE_REPLIED;
        n->val = fd;
        n->error = 0;
        n->flags = 0;
    } else if (a->reply) {
        n->state = NOTICE_SENT;
    }
    notice_fd_done(a, fd);
}

/* mu held; waits with it dropped. 0 when replied, else -ERESTARTSYS. */
static int notice_wait(struct task *t, struct seccomp_filter *f, struct notice *n)
{
    for (;;) {
        if (!list_empty(&n->fds)) {
            notice_take_fd(t, f, n);
            continue;
        }
        if (n->state == NOTICE_REPLIED)
            return 0;
        const bool killable = f->wait_killable && n->state == NOTICE_SENT;
        mutex_unlock(&f->mu);
        const int r = killable ? blocker_wait_killable(&t->blocker, DEADLINE_NEVER)
                               : blocker_wait(&t->blocker, DEADLINE_NEVER);
        mutex_lock(&f->mu);
        /* Read in the moment of the signal: from now on only a deadly one counts. */
        if (r && (killable || !(f->wait_killable && n->state == NOTICE_SENT)))
            return n->state == NOTICE_REPLIED && list_empty(&n->fds) ? 0 : -ERESTARTSYS;
    }
}

bool seccomp_ask(struct task *t, struct seccomp_filter *f, const struct seccomp_data *d)
{
    struct notice n = {.t = t, .data = *d, .state = NOTICE_NEW};
    struct plat_regs *regs = plat_ctx_regs(t->ctx);
    int r = -ENOSYS;

    list_init(&n.node);
    list_init(&n.fds);
    mutex_lock(&f->mu);
    if (f->notify) {
        n.id = f->notify->next_id++;
        list_add_tail(&n.node, &f->notify->notices);
        waitq_wake(&f->wq, EPOLLIN | EPOLLRDNORM);
        r = notice_wait(t, f, &n);
        while (!list_empty(&n.fds))
            notice_fd_done(list_first_entry(&n.fds, struct notice_fd, node), -ESRCH);
        list_del(&n.node);
    }
    mutex_unlock(&f->mu);
    if (r == 0 && (n.flags & SECCOMP_USER_NOTIF_FLAG_CONTINUE))
        return true;
    regs->rax = (uint64_t)(r ? r : n.error ? n.error : n.val);
    return false;
}

/* ---- the listener ---- */

static struct seccomp_filter *listener(const struct file *f)
{
    return f->priv;
}

static struct notice *notice_find_locked(struct seccomp_filter *f, uint64_t id)
{
    struct notice *n;

    list_for_each_entry (n, &f->notify->notices, node)
        if (n->id == id)
            return n;
    return NULL;
}

static struct notice *notice_next_locked(struct seccomp_filter *f)
{
    struct notice *n;

    list_for_each_entry (n, &f->notify->notices, node)
        if (n->state == NOTICE_NEW)
            return n;
    return NULL;
}

static bool listener_over(struct seccomp_filter *f)
{
    return atomic_load_explicit(&f->users, memory_order_acquire) == 0;
}

/* Takes the oldest notice: 1, 0 when there is none. */
static int notice_take(struct seccomp_filter *f, struct task *reader, struct seccomp_notif *out)
{
    mutex_lock(&f->mu);
    struct notice *n = notice_next_locked(f);
    if (n) {
        n->state = NOTICE_SENT;
        *out = (struct seccomp_notif){.id = n->id, .pid = (uint32_t)n->t->tid, .data = n->data};
    }
    mutex_unlock(&f->mu);
    if (!n)
        return 0;
    /* As the listener knows the caller. */
    out->pid = (uint32_t)task_pid_out(reader, (int32_t)out->pid);
    waitq_wake(&f->wq, EPOLLOUT | EPOLLWRNORM);
    return 1;
}

static void notice_give_back(struct seccomp_filter *f, uint64_t id)
{
    mutex_lock(&f->mu);
    struct notice *n = notice_find_locked(f, id);
    if (n && n->state == NOTICE_SENT)
        n->state = NOTICE_NEW;
    mutex_unlock(&f->mu);
    waitq_wake(&f->wq, EPOLLIN | EPOLLRDNORM);
}

static int64_t listener_recv(struct seccomp_filter *f, uaddr_t to, const struct uaccess *ua,
                             const struct vfs_caller *c)
{
    struct seccomp_notif out, zero;
    int err = 0, got = 0;
    int r = copyin_obj(ua, &out, to);

    if (r)
        return r;
    memset(&zero, 0, sizeof(zero));
    /* Room for what later kernels will ask. */
    if (memcmp(&out, &zero, sizeof(out)) != 0)
        return -EINVAL;
    if (!c->blocker)
        return -EAGAIN;
    struct task *reader = container_of(c->blocker, struct task, blocker);
    WAIT_EVENT(&f->wq, c->blocker, 0, DEADLINE_NEVER,
               (got = notice_take(f, reader, &out)) != 0 || listener_over(f), err);
    if (err)
        return -ERESTARTSYS;
    if (!got)
        return -ENOENT;
    r = copyout_obj(ua, to, &out);
    if (r)
        notice_give_back(f, out.id);
    return r;
}

static int64_t listener_send(struct seccomp_filter *f, uaddr_t from, const struct uaccess *ua)
{
    struct seccomp_notif_resp resp;
    int r = copyin_obj(ua, &resp, from);

    if (r)
        return r;
    if (resp.flags & ~(uint32_t)SECCOMP_USER_NOTIF_FLAG_CONTINUE)
        return -EINVAL;
    if ((resp.flags & SECCOMP_USER_NOTIF_FLAG_CONTINUE) && (resp.error || resp.val))
        return -EINVAL;
    mutex_lock(&f->mu);
    struct notice *n = notice_find_locked(f, resp.id);
    if (!n) {
        r = -ENOENT;
    } else if (n->state != NOTICE_SENT) {
        r = -EINPROGRESS;
    } else {
        n->state = NOTICE_REPLIED;
        n->val = resp.val;
        n->error = resp.error;
        n->flags = resp.flags;
        blocker_wake(&n->t->blocker);
    }
    mutex_unlock(&f->mu);
    return r;
}

static int64_t listener_id_valid(struct seccomp_filter *f, uaddr_t from, const struct uaccess *ua)
{
    uint64_t id;
    int r = copyin_obj(ua, &id, from);

    if (r)
        return r;
    mutex_lock(&f->mu);
    const struct notice *n = notice_find_locked(f, id);
    r = n && n->state == NOTICE_SENT ? 0 : -ENOENT;
    mutex_unlock(&f->mu);
    return r;
}

static int notice_add_fd_locked(struct seccomp_filter *f, uint64_t id, struct notice_fd *a)
{
    struct notice *n = notice_find_locked(f, id);

    if (!n)
        return -ENOENT;
    if (n->state != NOTICE_SENT)
        return -EINPROGRESS;
    if (a->reply) {
        if (!list_empty(&n->fds))
            return -EBUSY;
        /* No other answer from here on. */
        n->state = NOTICE_REPLIED;
    }
    list_add_tail(&a->node, &n->fds);
    blocker_wake(&n->t->blocker);
    return 0;
}

static int64_t notice_add_fd(struct seccomp_filter *f, uint64_t id, struct notice_fd *a)
{
    mutex_lock(&f->mu);
    int r = notice_add_fd_locked(f, id, a);
    while (!r && !a->done) {
        mutex_unlock(&f->mu);
        const int err = blocker_wait(a->sender, DEADLINE_NEVER);
        mutex_lock(&f->mu);
        if (err && !a->done) {
            list_del(&a->node);
            struct notice *n = notice_find_locked(f, id);
            if (n && a->reply && n->state == NOTICE_REPLIED)
                n->state = NOTICE_SENT;
            r = -ERESTARTSYS;
        }
    }
    mutex_unlock(&f->mu);
    return r ? r : a->ret;
}

static int64_t listener_addfd(struct seccomp_filter *f, uint64_t size, uaddr_t from,
                              const struct uaccess *ua, const struct vfs_caller *c)
{
    const uint32_t known = SECCOMP_ADDFD_FLAG_SETFD | SECCOMP_ADDFD_FLAG_SEND;
    struct seccomp_notif_addfd req;
    struct notice_fd a = {.sender = c->blocker};

    if (size < ADDFD_SIZE_VER0 || size >= PAGE_SIZE)
        return -EINVAL;
    int r = copyin_struct(ua, &req, sizeof(req), from, size);
    if (r)
        return r;
    if ((req.newfd_flags & ~(uint32_t)O_CLOEXEC) || (req.flags & ~known))
        return -EINVAL;
    if (req.newfd && !(req.flags & SECCOMP_ADDFD_FLAG_SETFD))
        return -EINVAL;
    if (!c->blocker)
        return -EAGAIN;
    /* Files are looked up by the listening task's own table. */
    struct task *t = container_of(c->blocker, struct task, blocker);
    r = task_file_any(t, (int)req.srcfd, &a.file);
    if (r)
        return r;
    list_init(&a.node);
    a.want = req.flags & SECCOMP_ADDFD_FLAG_SETFD ? (int)req.newfd : -1;
    a.cloexec = req.newfd_flags & O_CLOEXEC;
    a.reply = req.flags & SECCOMP_ADDFD_FLAG_SEND;
    const int64_t fd = notice_add_fd(f, req.id, &a);
    file_put(a.file);
    return fd;
}

static int64_t listener_ioctl(struct file *file, unsigned cmd, uint64_t arg,
                              const struct uaccess *ua, const struct vfs_caller *c)
{
    const unsigned size_bits = _IOC(0, 0, 0, _IOC_SIZEMASK);
    struct seccomp_filter *f = listener(file);

    switch (cmd) {
    case SECCOMP_IOCTL_NOTIF_RECV:
        return listener_recv(f, uaddr(arg), ua, c);
    case SECCOMP_IOCTL_NOTIF_SEND:
        return listener_send(f, uaddr(arg), ua);
    case NOTIF_ID_VALID_OLD:
    case SECCOMP_IOCTL_NOTIF_ID_VALID:
        return listener_id_valid(f, uaddr(arg), ua);
    case SECCOMP_IOCTL_NOTIF_SET_FLAGS:
        /* How the host schedules a wake-up is not ours to say. */
        return arg & ~(uint64_t)SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP ? -EINVAL : 0;
    default:
        break;
    }
    if ((cmd & ~size_bits) == (SECCOMP_IOCTL_NOTIF_ADDFD & ~size_bits))
        return listener_addfd(f, _IOC_SIZE(cmd), uaddr(arg), ua, c);
    return -EINVAL;
}

static uint32_t listener_poll(struct file *file, struct waiter *w)
{
    struct seccomp_filter *f = listener(file);
    const struct notice *n;
    uint32_t events = 0;

    if (w)
        waitq_add(&f->wq, w);
    mutex_lock(&f->mu);
    list_for_each_entry (n, &f->notify->notices, node) {
        if (n->state == NOTICE_NEW)
            events |= EPOLLIN | EPOLLRDNORM;
        if (n->state == NOTICE_SENT)
            events |= EPOLLOUT | EPOLLWRNORM;
    }
    mutex_unlock(&f->mu);
    return listener_over(f) ? events | EPOLLHUP : events;
}

static void listener_detach(struct seccomp_filter *f)
{
    struct notice *n;

    mutex_lock(&f->mu);
    struct seccomp_notify *notify = f->notify;
    f->notify = NULL;
    while (notify && !list_empty(&notify->notices)) {
        n = list_first_entry(&notify->notices, struct notice, node);
        list_del(&n->node);
        if (n->state == NOTICE_REPLIED)
            continue;
        n->state = NOTICE_REPLIED;
        n->error = -ENOSYS;
        n->val = 0;
        n->flags = 0;
        blocker_wake(&n->t->blocker);
    }
    mutex_unlock(&f->mu);
    free(notify);
}

static void listener_release(struct file *file)
{
    struct seccomp_filter *f = listener(file);

    listener_detach(f);
    seccomp_put(f);
}

static const struct file_ops listener_ops = {
    .ioctl = listener_ioctl,
    .poll = listener_poll,
    .release = listener_release,
};

int seccomp_listener_new(struct seccomp_filter *f, struct file **out_file)
{
    struct seccomp_notify *notify = calloc(1, sizeof(*notify));

    if (!notify)
        return -ENOMEM;
    list_init(&notify->notices);
    /* Numbers of other filters' notices should not be taken for ours. */
    if (getrandom(&notify->next_id, sizeof(notify->next_id), 0) != sizeof(notify->next_id))
        notify->next_id = (uint64_t)(uintptr_t)notify;
    f->notify = notify;
    const int r = vfs_anon_file("anon_inode:seccomp notify", 0600, &listener_ops, seccomp_get(f),
                                O_RDWR, out_file);
    if (r) {
        seccomp_listener_drop(f);
        seccomp_put(f);
    }
    return r;
}

void seccomp_listener_drop(struct seccomp_filter *f)
{
    listener_detach(f);
}

void seccomp_unused(struct seccomp_filter *f)
{
    waitq_wake(&f->wq, EPOLLHUP);
}
