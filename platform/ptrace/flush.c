/* Carries out a queue of changes in a stub: as many calls as fit the operations page at a switch.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "platform/ptrace/ptrace_priv.h"

/* Switches spent on finding the holes of one range: then it fails. */
#define FLUSH_HOLE_STEPS 4096

static void flush_encode(struct pt_op *op, const struct pt_change *c)
{
    memset(op, 0, sizeof(*op));
    op->args[0] = c->start;
    op->args[1] = c->end - c->start;
    switch (c->kind) {
    case PT_MAP:
        op->nr = SYS_mmap;
        op->args[2] = (uint64_t)c->prot;
        op->args[3] = (uint64_t)c->flags;
        op->args[4] = (uint64_t)c->fd;
        op->args[5] = c->off;
        break;
    case PT_UNMAP:
        op->nr = SYS_munmap;
        break;
    case PT_PROTECT:
        op->nr = SYS_mprotect;
        op->args[2] = (uint64_t)c->prot;
        break;
    }
}

/* One call in c's stub: its result. */
static int64_t flush_call(struct pt_ctx *c, uint64_t nr, uint64_t start, uint64_t end,
                          const uint64_t more[4])
{
    const uint64_t args[6] = {start, end - start, more[0], more[1], more[2], more[3]};
    int64_t ret = 0;
    bool interrupted = false;
    int r = pt_call(pt_plat(c->base.plat), c->tid, nr, args, &ret, &interrupted);

    if (interrupted)
        atomic_store(&c->interrupt, true);
    return r != 0 ? r : ret;
}

/* mprotect(2) ends at the first hole; and -ENOMEM may as well mean that the host has reached its
 * number of mappings. Halves the range till every part is protected or known to be a hole: one that
 * can be mapped without replacing anything. */
static int flush_protect_parts(struct pt_ctx *c, const struct pt_change *change)
{
    const uint64_t protect[4] = {(uint64_t)change->prot};
    const uint64_t probe[4] = {
        PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, UINT64_MAX};
    const uint64_t none[4] = {0};
    struct plat_range parts[64] = {{change->start, change->end}};
    size_t count = 1;

    for (int step = 0; count > 0; step++) {
        const struct plat_range part = parts[--count];
        int64_t r = flush_call(c, SYS_mprotect, part.start, part.end, protect);
        if (r == 0)
            continue;
        if (r != -ENOMEM || step == FLUSH_HOLE_STEPS)
            return (int)r;
        r = flush_call(c, SYS_mmap, part.start, part.end, probe);
        if (r == (int64_t)part.start) {
            r = flush_call(c, SYS_munmap, part.start, part.end, none);
            if (r != 0)
                return (int)r;
            continue;
        }
        if (r != -EEXIST || part.end - part.start <= PAGE_SIZE)
            return pt_is_gone((int)r) ? (int)r : -ENOMEM;
        uint64_t middle = part.start + ALIGN_DOWN((part.end - part.start) / 2, PAGE_SIZE);
        parts[count++] = (struct plat_range){middle, part.end};
        parts[count++] = (struct plat_range){part.start, middle};
    }
    return 0;
}

/* The change at index failed with error. 0 when it is all right after all. */
static int flush_failed(struct pt_as *as, struct pt_ctx *c, size_t index, int error, bool *stale)
{
    const struct pt_change *change = &as->queue.changes[index];

    if (change->kind == PT_PROTECT && error == -ENOMEM)
        error = flush_protect_parts(c, change);
    if (error != 0 && change->kind != PT_MAP)
        *stale = true;
    return error;
}

/* The first count changes; those that fail are skipped. Fails only when the stub is gone. */
static int flush_page(struct pt_as *as, struct pt_ctx *c, size_t count, int *first_error,
                      bool *stale)
{
    const struct pt_plat *p = pt_plat(as->base.plat);
    struct plat_regs regs = {.cs = PT_USER_CS, .ss = PT_USER_SS};
    size_t done = 0;

    while (done < count) {
        bool interrupted = false;
        regs.rip = pt_stub_addr(p, stub_batch);
        regs.r12 = p->ops + done * STUB_OP_SIZE;
        regs.r13 = count - done;
        int r = pt_run_stub(c->tid, &regs, &interrupted);
        if (interrupted)
            atomic_store(&c->interrupt, true);
        if (r <= 0)
            return r;
        done = (regs.r12 - p->ops) / STUB_OP_SIZE;
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
    struct pt_op *page = (void *)(p->ops_mem + (size_t)as->slot * PAGE_SIZE);
    int first_error = 0;

    while (as->queue.count > 0) {
        size_t n = MIN(as->queue.count, (size_t)STUB_OPS_PER_PAGE);
        for (size_t i = 0; i < n; i++)
            flush_encode(&page[i], &as->queue.changes[i]);
        c->synced = false;
        int r = flush_page(as, c, n, &first_error, stale);
        if (r != 0)
            return r;
        pt_queue_drop(&as->queue, n);
    }
    atomic_store(&as->has_ops, false);
    return first_error;
}
