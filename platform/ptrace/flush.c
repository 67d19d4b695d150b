/* Carries out a queue of changes in a stub: as many calls as fit the operations page at a switch.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "platform/ptrace/ptrace_priv.h"

/* stub_call_fn: one call in the stub of context arg. */
static int64_t flush_call(void *arg, const struct stub_op *op)
{
    struct pt_ctx *c = arg;
    int64_t ret = 0;
    bool interrupted = false;
    int r = pt_call(pt_plat(c->base.plat), c->tid, op->nr, op->args, &ret, &interrupted);

    if (interrupted)
        atomic_store(&c->interrupt, true);
    return r != 0 ? r : ret;
}

/* The change at index failed with error. 0 when it is all right after all. */
static int flush_failed(struct pt_as *as, struct pt_ctx *c, size_t index, int error, bool *stale)
{
    const struct stub_change *change = &as->queue.changes[index];

    if (change->kind == STUB_PROTECT && error == -ENOMEM)
        error = stub_protect_parts(change, flush_call, c);
    /* What was there before may be another's by now. */
    if (error != 0 && (change->kind != STUB_MAP || stub_unmap(change, flush_call, c) != 0))
        *stale = true;
    return error;
}

/* The first count changes; those that fail are skipped. Fails only when the stub is gone. */
static int flush_page(struct pt_as *as, struct pt_ctx *c, size_t count, int *first_error,
                      bool *stale)
{
    const struct pt_plat *p = pt_plat(as->base.plat);
    struct plat_regs regs = {.cs = STUB_USER_CS, .ss = STUB_USER_SS};
    size_t done = 0;

    while (done < count) {
        bool interrupted = false;
        regs.rip = pt_stub_addr(p, stub_batch);
        regs.r12 = p->ops + done * PT_OP_SIZE;
        regs.r13 = count - done;
        int r = pt_run_stub(c->tid, &regs, &interrupted);
        if (interrupted)
            atomic_store(&c->interrupt, true);
        if (r <= 0)
            return r;
        done = (regs.r12 - p->ops) / PT_OP_SIZE;
        if (done >= count)
            break;
        r = flush_failed(as, c, done, (int)(int64_t)regs.rax, stale);
        if (pt_is_gone(r))
            return r;
        if (*first_error == 0)
            *first_error = r;
        done++;
    }
    return 0;
}

int pt_as_flush_locked(struct pt_as *as, struct pt_ctx *c, bool *stale)
{
    const struct pt_plat *p = pt_plat(as->base.plat);
    struct stub_op *page = (void *)(p->ops_mem + (size_t)as->slot * PAGE_SIZE);
    int first_error = 0;

    while (as->queue.count > 0) {
        size_t n = MIN(as->queue.count, (size_t)PT_OPS_PER_PAGE);
        for (size_t i = 0; i < n; i++)
            stub_change_encode(&page[i], &as->queue.changes[i]);
        c->synced = false;
        int r = flush_page(as, c, n, &first_error, stale);
        if (r != 0)
            return r;
        stub_queue_drop(&as->queue, n);
    }
    atomic_store(&as->has_ops, false);
    return first_error;
}
