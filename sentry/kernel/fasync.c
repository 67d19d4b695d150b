/* Signals about readiness (fs/fcntl.c, send_sigio, of the kernel). */
#include "sentry/kernel/fasync.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "sentry/kernel/kernel_priv.h"
#include "sentry/kernel/timer.h"
#include "sentry/time/timer.h"

#define SEEN (EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLERR | EPOLLHUP | EPOLLRDHUP)

struct watch {
    struct fasync base;
    struct kernel *k;
    struct file *f; /* weak: the watch ends before it goes */
    struct waiter w;
    struct timer tm;
    struct cred *cred; /* owned: of who asked */
    int fd;
    _Atomic uint32_t events; /* not told yet */
};

/* ---- sending ---- */

static bool may_signal_locked(const struct cred *c, struct task *o)
{
    mutex_lock(&o->mu);
    const uint32_t uid = o->cred->uid, suid = o->cred->suid;
    mutex_unlock(&o->mu);
    return c->euid == 0 || c->euid == suid || c->euid == uid || c->uid == suid || c->uid == uid;
}

static void send_one_locked(const struct cred *c, struct task *o, bool group,
                            const struct lx_siginfo *info)
{
    if (!may_signal_locked(c, o))
        return;
    if (group)
        (void)tg_send_signal(o->tg, info);
    else
        (void)task_send_signal(o, info);
}

/* To the owner: a process, a thread, or every process of a group. */
static void send_to_owner(struct kernel *k, const struct cred *c, int32_t owner,
                          const struct lx_siginfo *info)
{
    struct thread_group *tg;

    mutex_lock(&k->mu);
    const struct pid *p = pid_find_locked(k, owner < 0 ? -owner : owner);
    if (owner > 0 && p && p->task) {
        send_one_locked(c, p->task, p->task->tg->leader == p->task, info);
    } else if (owner < 0 && p && p->pgrp) {
        list_for_each_entry (tg, &p->pgrp->members, pgrp_node)
            if (tg->leader)
                send_one_locked(c, tg->leader, true, info);
    }
    mutex_unlock(&k->mu);
}

static int band_code(uint32_t events)
{
    if (events & EPOLLPRI)
        return POLL_PRI;
    if (events & EPOLLERR)
        return POLL_ERR;
    if (events & EPOLLHUP)
        return POLL_HUP;
    return events & EPOLLIN ? POLL_IN : POLL_OUT;
}

/* Without F_SETSIG it is a plain SIGIO. */
static struct lx_siginfo io_info(int signo, int code, uint32_t events, int fd)
{
    struct lx_siginfo info = {.signo = SIGIO, .code = SI_KERNEL};

    if (signo) {
        info.signo = signo;
        info.code = code;
        info.poll.band = (int64_t)events;
        info.poll.fd = fd;
    }
    return info;
}

static void send_io(const struct watch *w, int32_t owner, int signo, uint32_t events)
{
    const struct lx_siginfo info = io_info(signo, band_code(events), events, w->fd);

    send_to_owner(w->k, w->cred, owner, &info);
}

static void watch_tell(struct timer *tm)
{
    struct watch *w = container_of(tm, struct watch, tm);
    const uint32_t events = atomic_exchange(&w->events, 0);
    const int32_t owner = w->f->owner;

    if (owner == 0 || events == 0)
        return;
    if (events & EPOLLPRI && S_ISSOCK(w->f->inode->mode)) {
        const struct lx_siginfo urgent = {.signo = SIGURG, .code = SI_KERNEL};
        send_to_owner(w->k, w->cred, owner, &urgent);
    }
    if (atomic_load(&w->f->flags) & O_ASYNC)
        send_io(w, owner, w->f->owner_sig, events);
}

/* Under the wait queue's lock. What came is said, or 0 for a change that was not; then all there is
 * is looked up by who is told. */
static void watch_woken(struct waiter *wt, uint32_t events)
{
    struct watch *w = container_of(wt, struct watch, w);

    atomic_fetch_or(&w->events, events ? events & SEEN : EPOLLIN);
    timer_arm(&w->tm, 0);
}

/* ---- life ---- */

static void watch_end(struct fasync *fa)
{
    struct watch *w = container_of(fa, struct watch, base);

    waitq_del(&w->w);
    timer_cancel(&w->tm);
    cred_put(w->cred);
    free(w);
}

static int watch_begin(struct task *t, struct file *f, int fd)
{
    struct fasync *none = NULL;

    if (atomic_load(&f->async))
        return 0;
    struct watch *w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    w->base.end = watch_end;
    w->k = t->k;
    w->f = f;
    w->fd = fd;
    int r = timer_init(&w->tm, kernel_timer_service(t->k), watch_tell);
    if (r) {
        free(w);
        return r;
    }
    w->cred = cred_get(t->cred);
    waiter_init_fn(&w->w, watch_woken, 0);
    if (!atomic_compare_exchange_strong(&f->async, &none, &w->base)) {
        watch_end(&w->base);
        return 0;
    }
    (void)vfs_poll(f, &w->w);
    return 0;
}

bool file_can_async(const struct file *f)
{
    const uint32_t mode = f->inode->mode;

    return f->ops->poll && (S_ISSOCK(mode) || S_ISFIFO(mode) || S_ISCHR(mode));
}

int file_set_async(struct task *t, struct file *f, int fd, bool on)
{
    int r = on ? watch_begin(t, f, fd) : 0;

    if (r)
        return r;
    if (on)
        atomic_fetch_or(&f->flags, (uint32_t)O_ASYNC);
    else
        atomic_fetch_and(&f->flags, ~(uint32_t)O_ASYNC);
    return 0;
}

int file_set_owner(struct task *t, struct file *f, int32_t owner)
{
    /* Urgent data is told of to an owner without O_ASYNC. */
    int r = owner && S_ISSOCK(f->inode->mode) && file_can_async(f) ? watch_begin(t, f, -1) : 0;

    if (r == 0)
        f->owner = owner;
    return r;
}

/* ---- messages ---- */

static void signal_tell(struct timer *tm)
{
    struct file_signal *s = container_of(tm, struct file_signal, tm);
    const int32_t owner = atomic_load(&s->owner);
    const struct lx_siginfo info =
        io_info(atomic_load(&s->signo), POLL_MSG, EPOLLIN | EPOLLRDNORM | EPOLLMSG, s->fd);

    for (uint32_t due = atomic_exchange(&s->due, 0); owner && due; due--)
        send_to_owner(s->k, s->cred, owner, &info);
}

int file_signal_init(struct file_signal *s, struct task *t, struct file *f, int fd)
{
    *s = (struct file_signal){.k = t->k, .f = f, .fd = fd};
    int r = timer_init(&s->tm, kernel_timer_service(t->k), signal_tell);
    if (r == 0)
        s->cred = cred_get(t->cred);
    return r;
}

void file_signal_raise(struct file_signal *s)
{
    atomic_store(&s->owner, s->f->owner);
    atomic_store(&s->signo, s->f->owner_sig);
    /* More than that nobody's queue takes. */
    if (atomic_load(&s->due) < LIMIT_FILE_SIGNALS)
        atomic_fetch_add(&s->due, 1);
    timer_arm(&s->tm, 0);
}

void file_signal_fini(struct file_signal *s)
{
    timer_cancel(&s->tm);
    cred_put(s->cred);
}

void file_owner_default(struct task *t, struct file *f)
{
    if (f->owner == 0)
        f->owner = t->tg->tgid;
}
