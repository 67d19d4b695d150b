/* pidfd_open(2): readable once the process has ended. */
#include "sentry/kernel/pidfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "sentry/kernel/task_priv.h"

static struct thread_group *pidfd_tg(const struct file *f)
{
    return f->priv;
}

static uint32_t pidfd_poll(struct file *f, struct waiter *w)
{
    struct thread_group *tg = pidfd_tg(f);

    if (w)
        waitq_add(&tg->pidfd_wq, w);
    mutex_lock(&tg->k->mu);
    const bool ended = tg->state != TG_LIVE;
    mutex_unlock(&tg->k->mu);
    return ended ? EPOLLIN | EPOLLRDNORM : 0;
}

static void pidfd_release(struct file *f)
{
    tg_put(pidfd_tg(f));
}

static const struct file_ops pidfd_ops = {
    .poll = pidfd_poll,
    .release = pidfd_release,
};

int pidfd_new(struct thread_group *tg, uint32_t flags, struct file **out_file)
{
    int r =
        vfs_anon_file("anon_inode:[pidfd]", 0600, &pidfd_ops, tg_get(tg), flags | O_RDWR, out_file);
    if (r)
        tg_put(tg);
    return r;
}

int pidfd_open_pid(struct task *t, int32_t pid, uint32_t flags, struct file **out_file)
{
    struct kernel *k = t->k;
    struct thread_group *tg = NULL;
    int r = -ESRCH;

    mutex_lock(&k->mu);
    const struct pid *p = pid_find_in_locked(k, t->tg->pid_ns, pid);
    if (p && p->tg) {
        tg = tg_get(p->tg);
        r = 0;
    } else if (p && p->task) {
        r = -EINVAL;
    }
    mutex_unlock(&k->mu);
    if (r)
        return r;
    r = pidfd_new(tg, flags, out_file);
    tg_put(tg);
    return r;
}

int32_t pidfd_pid(struct file *f)
{
    if (f->ops != &pidfd_ops)
        return -EBADF;
    struct thread_group *tg = pidfd_tg(f);
    mutex_lock(&tg->k->mu);
    const int32_t pid = tg->state == TG_DEAD ? -ESRCH : tg->tgid;
    mutex_unlock(&tg->k->mu);
    return pid;
}
