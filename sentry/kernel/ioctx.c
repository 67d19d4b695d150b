/* I/O contexts: what ioprio_set(2) writes to, shared by CLONE_IO (block/blk-ioc.c). A task has none
 * before it is asked for. */
#include <errno.h>
#include <stdlib.h>

#include "sentry/kernel/process.h"
#include "sentry/kernel/task_priv.h"

struct io_ctx {
    struct ref ref;
    _Atomic int prio;
};

static struct io_ctx *io_ctx_new(int prio)
{
    struct io_ctx *io = calloc(1, sizeof(*io));

    if (!io)
        return NULL;
    ref_init(&io->ref);
    io->prio = prio;
    return io;
}

void io_ctx_put(struct io_ctx *io)
{
    if (io && ref_put(&io->ref))
        free(io);
}

int task_ioprio(struct task *o)
{
    mutex_lock(&o->mu);
    const struct io_ctx *io = task_priv(o)->io;
    const int prio = io ? atomic_load(&io->prio) : 0;
    mutex_unlock(&o->mu);
    return prio;
}

int task_set_ioprio(struct task *o, int prio)
{
    struct task_priv *p = task_priv(o);

    mutex_lock(&o->mu);
    if (p->io)
        atomic_store(&p->io->prio, prio);
    else
        p->io = io_ctx_new(prio);
    const int r = p->io ? 0 : -ENOMEM;
    mutex_unlock(&o->mu);
    return r;
}

int task_io_clone(struct task *t, struct task *c, bool share)
{
    int r = 0;

    mutex_lock(&t->mu);
    struct io_ctx *io = task_priv(t)->io, *own = NULL;
    if (io && share) {
        ref_get(&io->ref);
        own = io;
    } else if (io && atomic_load(&io->prio)) {
        own = io_ctx_new(atomic_load(&io->prio));
        r = own ? 0 : -ENOMEM;
    }
    mutex_unlock(&t->mu);
    task_priv(c)->io = own;
    return r;
}
