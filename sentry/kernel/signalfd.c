/* signalfd(2): signals of whoever reads, as records of a file. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/signal.h"
#include "sentry/kernel/signal_priv.h"

struct signalfd {
    _Atomic uint64_t mask;
    struct task *maker; /* owned: whose signals poll looks at */
};

_Static_assert(sizeof(struct signalfd_siginfo) == 128, "record of signalfd");

static struct signalfd *signalfd_of(const struct file *f)
{
    return f->priv;
}

static void signalfd_record(const struct lx_siginfo *s, struct signalfd_siginfo *r)
{
    memset(r, 0, sizeof(*r));
    r->ssi_signo = (uint32_t)s->signo;
    r->ssi_errno = s->err;
    r->ssi_code = s->code;
    if (s->code == SI_TIMER) {
        r->ssi_tid = (uint32_t)s->timer.tid;
        r->ssi_overrun = (uint32_t)s->timer.overrun;
        r->ssi_ptr = s->timer.value;
        r->ssi_int = (int32_t)s->timer.value;
    } else if (s->code > 0 && s->code != SI_KERNEL && (SIG_BIT(s->signo) & SIG_SET_SYNC)) {
        r->ssi_addr = s->fault.addr;
        r->ssi_addr_lsb = (uint16_t)s->fault.addr_lsb;
    } else if (s->code > 0 && s->signo == SIGCHLD) {
        r->ssi_pid = (uint32_t)s->chld.pid;
        r->ssi_uid = s->chld.uid;
        r->ssi_status = s->chld.status;
        r->ssi_utime = (uint64_t)s->chld.utime;
        r->ssi_stime = (uint64_t)s->chld.stime;
    } else if (s->signo == SIGIO && s->code > 0) {
        r->ssi_band = (uint32_t)s->poll.band;
        r->ssi_fd = s->poll.fd;
    } else {
        r->ssi_pid = (uint32_t)s->kill.pid;
        r->ssi_uid = s->kill.uid;
        r->ssi_ptr = s->kill.value;
        r->ssi_int = (int32_t)s->kill.value;
    }
}

static bool signalfd_wait(struct task *t, uint64_t mask, struct lx_siginfo *info, int *out_err)
{
    bool taken = false;

    WAIT_EVENT(&t->tg->sig_wq, &t->blocker, 0, DEADLINE_NEVER, taken = task_sigtake(t, mask, info),
               *out_err);
    return taken;
}

static int64_t signalfd_read_as(struct task *t, struct file *f, struct uio *u)
{
    const uint64_t mask = atomic_load(&signalfd_of(f)->mask);
    const bool block = !(atomic_load(&f->flags) & O_NONBLOCK);
    struct signalfd_siginfo record;
    struct lx_siginfo info;
    int64_t done = 0;
    int err = 0;

    if (u->left < sizeof(record))
        return -EINVAL;
    while (u->left >= sizeof(record)) {
        bool taken = task_sigtake(t, mask, &info);
        if (!taken && done == 0 && block)
            taken = signalfd_wait(t, mask, &info, &err);
        if (!taken)
            break;
        signalfd_record(&info, &record);
        if (uio_copy_to(u, &record, sizeof(record)) != (int64_t)sizeof(record))
            return done ? done : -EFAULT;
        done += (int64_t)sizeof(record);
    }
    if (done)
        return done;
    return err ? -ERESTARTSYS : -EAGAIN;
}

static int64_t signalfd_read(struct file *f, struct uio *u, int64_t *pos,
                             const struct vfs_caller *c)
{
    struct task *t;

    (void)pos;
    int r = kernel_find_task(signalfd_of(f)->maker->k, c->pid, true, &t);
    if (r)
        return r;
    /* Only a task itself takes its signals; others that read for it (with no blocker) do not. */
    const int64_t n = c->blocker == &t->blocker ? signalfd_read_as(t, f, u) : -EAGAIN;
    task_put(t);
    return n;
}

static uint32_t signalfd_poll(struct file *f, struct waiter *w)
{
    struct signalfd *s = signalfd_of(f);
    struct thread_group *tg = s->maker->tg;
    const uint64_t mask = atomic_load(&s->mask);

    if (w)
        waitq_add(&tg->sig_wq, w);
    struct sighand *sh = tg_lock_sig(tg);
    const bool ready = sig_pending_locked(s->maker, ~mask) != 0;
    sighand_unlock(sh);
    return ready ? EPOLLIN | EPOLLRDNORM : 0;
}

static void signalfd_release(struct file *f)
{
    struct signalfd *s = signalfd_of(f);

    task_put(s->maker);
    free(s);
}

static void signalfd_show_fdinfo(struct file *f, char *buf, size_t size)
{
    (void)snprintf(buf, size, "sigmask:\t%016lx\n", atomic_load(&signalfd_of(f)->mask));
}

static const struct file_ops signalfd_ops = {
    .seek = vfs_seek_noop,
    .read = signalfd_read,
    .poll = signalfd_poll,
    .release = signalfd_release,
    .show_fdinfo = signalfd_show_fdinfo,
};

int signalfd_new(struct task *t, uint64_t mask, uint32_t flags, struct file **out_file)
{
    struct signalfd *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    atomic_init(&s->mask, mask & ~SIG_SET_KERNEL_ONLY);
    s->maker = task_get(t);
    int r =
        vfs_anon_file("anon_inode:[signalfd]", 0600, &signalfd_ops, s, flags | O_RDWR, out_file);
    if (r) {
        task_put(s->maker);
        free(s);
    }
    return r;
}

int signalfd_set_mask(struct file *f, uint64_t mask)
{
    if (f->ops != &signalfd_ops)
        return -EINVAL;
    struct signalfd *s = signalfd_of(f);
    atomic_store(&s->mask, mask & ~SIG_SET_KERNEL_ONLY);
    waitq_wake(&s->maker->tg->sig_wq, 0);
    return 0;
}
