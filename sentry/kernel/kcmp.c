/* kcmp(2): whether two tasks share a thing, and an order of what they do not share that tells no
 * addresses (kernel/kcmp.c). */
#include <errno.h>
#include <linux/kcmp.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/task_priv.h"
#include "sentry/vfs/epoll.h"

/* 0: it has none of that kind, as all that have none. */
static uintptr_t kcmp_identity(struct task *o, int type)
{
    struct task_priv *p = task_priv(o);
    const void *v = NULL;

    mutex_lock(&o->mu);
    switch (type) {
    case KCMP_VM:
        v = o->ua.mm;
        break;
    case KCMP_FILES:
        v = o->fdt;
        break;
    case KCMP_FS:
        v = o->fs;
        break;
    case KCMP_IO:
        v = p->io;
        break;
    case KCMP_SYSVSEM:
        v = atomic_load_explicit(&p->sem_undo, memory_order_relaxed);
        break;
    default:
        break;
    }
    mutex_unlock(&o->mu);
    if (type != KCMP_SIGHAND)
        return (uintptr_t)v;
    struct sighand *sh = tg_lock_sig(o->tg);
    sighand_unlock(sh);
    return (uintptr_t)sh;
}

/* Multiplying by an odd number loses nothing, so that what differs stays different. */
static int64_t kcmp_order(const struct kernel *k, int type, uintptr_t a, uintptr_t b)
{
    const uint64_t mix = k->kcmp_cookies[type][0], odd = k->kcmp_cookies[type][1] | 1;
    const uint64_t x = (a ^ mix) * odd, y = (b ^ mix) * odd;

    return (x < y) | (x > y) << 1;
}

static int kcmp_file(struct task *o, uint64_t fd, struct file **out_file)
{
    struct fdtable *fdt = task_get_fdtable(o);
    const int r = fdt && fd <= INT32_MAX ? fdtable_lookup(fdt, (int)fd, out_file) : -EBADF;

    fdtable_put(fdt, NULL);
    return r;
}

static int64_t kcmp_files(struct task *a, struct task *b, const struct task_kcmp *q)
{
    struct file *x, *y;
    int r = kcmp_file(a, q->idx1, &x);

    if (r)
        return r;
    r = kcmp_file(b, q->idx2, &y);
    if (r) {
        file_put(x);
        return r;
    }
    const int64_t order = kcmp_order(a->k, KCMP_FILE, (uintptr_t)x, (uintptr_t)y);
    file_put(x);
    file_put(y);
    return order;
}

static int64_t kcmp_epoll(struct task *a, struct task *b, const struct task_kcmp *q)
{
    struct file *x, *ep;
    uintptr_t target = 0;
    int r = kcmp_file(a, q->idx1, &x);

    if (r)
        return r;
    r = kcmp_file(b, q->epoll_fd, &ep);
    if (!r) {
        r = epoll_is(ep) ? epoll_target(ep, q->target_fd, q->target_nth, &target) : -EINVAL;
        file_put(ep);
    }
    const uintptr_t own = (uintptr_t)x;
    file_put(x);
    return r ? r : kcmp_order(a->k, KCMP_FILE, own, target);
}

int64_t task_kcmp(struct task *t, struct task *a, struct task *b, const struct task_kcmp *q)
{
    if (!task_may_access(t, a, TASK_ACCESS_REAL) || !task_may_access(t, b, TASK_ACCESS_REAL))
        return -EPERM;
    switch (q->type) {
    case KCMP_FILE:
        return kcmp_files(a, b, q);
    case KCMP_EPOLL_TFD:
        return q->err ? q->err : kcmp_epoll(a, b, q);
    case KCMP_VM:
    case KCMP_FILES:
    case KCMP_FS:
    case KCMP_SIGHAND:
    case KCMP_IO:
    case KCMP_SYSVSEM:
        return kcmp_order(t->k, q->type, kcmp_identity(a, q->type), kcmp_identity(b, q->type));
    default:
        return -EINVAL;
    }
}
