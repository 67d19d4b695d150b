/* pidfd_open(2): readable once the process has ended. */
#include "sentry/kernel/pidfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "sentry/kernel/task_priv.h"

static struct procref *pidfd_ref(const struct file *f)
{
    return f->priv;
}

static uint32_t pidfd_poll(struct file *f, struct waiter *w)
{
    struct procref *p = pidfd_ref(f);
    uint32_t events = 0;

    if (w)
        waitq_add(&p->wq, w);
    mutex_lock(&p->owner->mu);
    if (!p->group)
        events = EPOLLIN | EPOLLRDNORM | EPOLLHUP;
    else if (p->group->state != TG_LIVE)
        events = EPOLLIN | EPOLLRDNORM;
    mutex_unlock(&p->owner->mu);
    return events;
}

static void pidfd_release(struct file *f)
{
    procref_put(pidfd_ref(f));
}

static const struct file_ops pidfd_ops = {
    .poll = pidfd_poll,
    .release = pidfd_release,
};

int pidfd_new(struct procref *process, uint32_t flags, struct file **out_file)
{
    int r = vfs_anon_file("anon_inode:[pidfd]", 0600, &pidfd_ops, procref_get(process),
                          flags | O_RDWR, out_file);
    if (r)
        procref_put(process);
    return r;
}

struct procref *task_process(struct task *t)
{
    return t->tg->self;
}

int pidfd_open_pid(struct task *t, int32_t pid, uint32_t flags, struct file **out_file)
{
    struct kernel *k = t->k;
    struct procref *process = NULL;
    int r = -ESRCH;

    mutex_lock(&k->mu);
    const struct pid *p = pid_find_in_locked(k, t->tg->pid_ns, pid);
    if (p && p->tg) {
        process = procref_get(p->tg->self);
        r = 0;
    } else if (p && p->task) {
        r = -EINVAL;
    }
    mutex_unlock(&k->mu);
    if (r)
        return r;
    r = pidfd_new(process, flags, out_file);
    procref_put(process);
    return r;
}

int32_t pidfd_pid(struct file *f)
{
    if (f->ops != &pidfd_ops)
        return -EBADF;
    const struct procref *p = pidfd_ref(f);
    mutex_lock(&p->owner->mu);
    const int32_t pid = p->group ? p->group->tgid : -ESRCH;
    mutex_unlock(&p->owner->mu);
    return pid;
}
