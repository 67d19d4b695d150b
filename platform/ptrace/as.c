/* Address spaces: the queue of host mappings and who carries it out. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/ptrace/ptrace_priv.h"

static int as_prot(unsigned access)
{
    return ((access & PLAT_READ) ? PROT_READ : 0) | ((access & PLAT_WRITE) ? PROT_WRITE : 0) |
           ((access & PLAT_EXEC) ? PROT_EXEC : 0);
}

/* ---- life ---- */

int pt_as_alloc(struct pt_plat *p, struct pt_as **out_as)
{
    struct pt_as *as = calloc(1, sizeof(*as));
    int r;

    if (as == NULL)
        return -ENOMEM;
    mutex_lock(&p->mu);
    r = idalloc_lowest(&p->slots, 1, &as->slot);
    mutex_unlock(&p->mu);
    if (r != 0) {
        free(as);
        return -EAGAIN;
    }
    as->base.plat = &p->base;
    ref_init(&as->ref);
    mutex_init(&as->mu, LOCK_RANK_PLATFORM);
    cond_init(&as->idle);
    list_init(&as->ctxs);
    as->gone = true;
    *out_as = as;
    return 0;
}

void pt_as_put(struct plat_as *base)
{
    struct pt_as *as = pt_as(base);
    struct pt_plat *p = pt_plat(base->plat);

    if (!ref_put(&as->ref))
        return;
    if (!as->gone)
        pt_kill(as->pid);
    mutex_lock(&p->mu);
    idalloc_free(&p->slots, as->slot);
    mutex_unlock(&p->mu);
    cond_destroy(&as->idle);
    mutex_destroy(&as->mu);
    free(as->ops);
    free(as);
}

static int as_create(struct plat *base, struct plat_as **out_as)
{
    struct pt_plat *p = pt_plat(base);
    struct pt_as *as;
    bool interrupted;
    int r = pt_as_alloc(p, &as);

    if (r != 0)
        return r;
    mutex_lock(&p->mu);
    r = pt_attach(p, p->template_pid);
    if (r == 0) {
        r = pt_clone_process(p, p->template_pid, as->slot, &as->pid, &interrupted);
        pt_detach(p, p->template_pid);
    }
    mutex_unlock(&p->mu);
    if (r != 0) {
        pt_as_put(&as->base);
        return r;
    }
    as->gone = false;
    as->parked[as->parked_count++] = as->pid;
    *out_as = &as->base;
    return 0;
}

/* ---- the queue ---- */

static bool op_touches(const struct pt_op *a, const struct pt_op *b)
{
    return a->nr == b->nr && a->args[0] + a->args[1] == b->args[0] && a->args[2] == b->args[2];
}

static bool op_merge(struct pt_op *last, const struct pt_op *op)
{
    if (!op_touches(last, op))
        return false;
    if (op->nr == SYS_mmap && (last->args[3] != op->args[3] || last->args[4] != op->args[4] ||
                               last->args[5] + last->args[1] != op->args[5]))
        return false;
    last->args[1] += op->args[1];
    return true;
}

static int op_push_locked(struct pt_as *as, const struct pt_op *op)
{
    if (as->op_count > 0 && op_merge(&as->ops[as->op_count - 1], op))
        return 0;
    if (as->op_count == as->op_capacity) {
        size_t capacity = as->op_capacity > 0 ? 2 * as->op_capacity : 16;
        struct pt_op *ops = reallocarray(as->ops, capacity, sizeof(*ops));
        if (ops == NULL)
            return -ENOMEM;
        as->ops = ops;
        as->op_capacity = capacity;
    }
    as->ops[as->op_count++] = *op;
    atomic_store(&as->has_ops, true);
    return 0;
}

static int op_push(struct plat_as *base, const struct pt_op *op)
{
    struct pt_as *as = pt_as(base);

    if (op->args[1] == 0)
        return 0;
    mutex_lock(&as->mu);
    int r = op_push_locked(as, op);
    mutex_unlock(&as->mu);
    return r;
}

static int as_map(struct plat_as *base, uaddr_t addr, uint64_t size, unsigned access, int fd,
                  uint64_t off, unsigned flags)
{
    const struct pt_op op = {
        .nr = SYS_mmap,
        .args = {addr.v, size, (uint64_t)as_prot(access),
                 MAP_FIXED | ((flags & PLAT_MAP_PRIVATE) ? MAP_PRIVATE : MAP_SHARED) |
                     ((flags & PLAT_MAP_POPULATE) ? MAP_POPULATE : 0),
                 (uint64_t)fd, off},
    };

    return op_push(base, &op);
}

static int as_unmap(struct plat_as *base, uaddr_t addr, uint64_t size)
{
    const struct pt_op op = {.nr = SYS_munmap, .args = {addr.v, size}};

    return op_push(base, &op);
}

static int as_protect(struct plat_as *base, uaddr_t addr, uint64_t size, unsigned access)
{
    const struct pt_op op = {.nr = SYS_mprotect, .args = {addr.v, size, (uint64_t)as_prot(access)}};

    return op_push(base, &op);
}

/* ---- carrying it out ---- */

/* One page of operations; those that fail are skipped. */
static int as_run_page(struct pt_as *as, struct pt_ctx *c, size_t count, int *first_error)
{
    const struct pt_plat *p = pt_plat(as->base.plat);
    struct plat_regs regs = {.cs = c->regs.cs, .ss = c->regs.ss};
    uint64_t at = p->ops, end = p->ops + count * STUB_OP_SIZE;
    bool interrupted = false;

    while (at < end) {
        regs.rip = pt_stub_addr(p, stub_batch);
        regs.r12 = at;
        regs.r13 = (end - at) / STUB_OP_SIZE;
        int r = pt_run_stub(c->tid, &regs, &interrupted);
        if (r != 0)
            return r;
        if (interrupted)
            atomic_store(&c->interrupt, true);
        at = regs.r12;
        if (at >= end)
            return 0;
        /* A hole in a protected range is no error; everything else is the caller's to hear. */
        const struct pt_op *op = &as->ops[(at - p->ops) / STUB_OP_SIZE];
        int failed = (int)(int64_t)regs.rax;
        if (*first_error == 0 && !(op->nr == SYS_mprotect && failed == -ENOMEM))
            *first_error = failed;
        at += STUB_OP_SIZE;
    }
    return 0;
}

int pt_as_flush_locked(struct pt_as *as, struct pt_ctx *c)
{
    const struct pt_plat *p = pt_plat(as->base.plat);
    char *page = p->ops_mem + (size_t)as->slot * PAGE_SIZE;
    int first_error = 0;

    while (as->op_count > 0) {
        size_t n = MIN(as->op_count, (size_t)STUB_OPS_PER_PAGE);
        memcpy(page, as->ops, n * sizeof(*as->ops));
        int r = as_run_page(as, c, n, &first_error);
        if (r != 0) {
            c->dead = true;
            return r;
        }
        as->op_count -= n;
        memmove(as->ops, as->ops + n, as->op_count * sizeof(*as->ops));
    }
    atomic_store(&as->has_ops, false);
    return first_error;
}

/* From now on no context runs guest code before it has carried out the queue. */
static void as_stop_guests_locked(struct pt_as *as)
{
    struct pt_ctx *c;

    atomic_fetch_add(&as->waiting, 1);
    for (;;) {
        bool busy = false;
        list_for_each_entry (c, &as->ctxs, node) {
            if (!atomic_load(&c->in_guest))
                continue;
            busy = true;
            pt_ctx_interrupt(&c->base);
        }
        if (!busy)
            break;
        (void)cond_wait(&as->idle, &as->mu, UINT64_MAX);
    }
    atomic_fetch_sub(&as->waiting, 1);
}

static int as_commit(struct plat_as *base, struct plat_ctx *ctx)
{
    struct pt_as *as = pt_as(base);
    int r = 0;

    if (!atomic_load(&as->has_ops))
        return 0;
    if (ctx != NULL) {
        r = pt_ctx_own(pt_ctx(ctx));
        if (r != 0)
            return r;
    }
    mutex_lock(&as->mu);
    if (ctx != NULL)
        r = pt_as_flush_locked(as, pt_ctx(ctx));
    else
        as_stop_guests_locked(as);
    mutex_unlock(&as->mu);
    return r;
}

const struct plat_as_ops pt_as_ops = {
    .create = as_create,
    .map = as_map,
    .unmap = as_unmap,
    .protect = as_protect,
    .commit = as_commit,
    .put = pt_as_put,
};
