/* Faults of guest code and of usercopy: what may be touched, and growing stacks. */
#include <errno.h>
#include <signal.h>

#include "base/hash.h"
#include "sentry/mm/mm_priv.h"

/* Stacks grow by more than a page where that is allowed: fewer faults. */
#define MM_GROW_STEP (UINT64_C(64) << 10)
/* Retries of one fault that finds nothing to do, before it is taken for real. */
#define MM_SPURIOUS_REMAP 2u
#define MM_SPURIOUS_MAX 4u

bool vma_permits(const struct vma *v, unsigned access)
{
    if (access & PLAT_WRITE)
        return v->prot & PROT_WRITE;
    if (access & PLAT_EXEC)
        return v->prot & PROT_EXEC;
    /* As x86's access_error(): whatever is accessible at all can be read. */
    return v->prot != PROT_NONE;
}

/* ---- stacks ---- */

/* acct_stack_growth() of mm/mmap.c. */
static bool grow_allowed(struct mm *mm, struct vma *v, uint64_t start, uint64_t stack_limit)
{
    if (start < mm->min_addr || v->end - start > stack_limit)
        return false;
    struct vma *prev = vma_prev(v);
    if (prev && prev->end > start)
        return false;
    if (prev && !(prev->flags & VMA_GROWSDOWN) && prev->prot != PROT_NONE &&
        start - prev->end < MM_STACK_GAP)
        return false;
    if (vma_overlaps_reserved(mm, start, v->start))
        return false;
    uint64_t more = v->start - start;
    if (more > mm->as_limit || mm->virt > mm->as_limit - more)
        return false;
    if (v->flags & VMA_ACCOUNT && !mm_may_promise(mm, NULL, more))
        return false;
    return !(v->flags & VMA_LOCKED) || mm->locked + more <= mm->memlock_limit;
}

struct vma *mm_vma_or_grow(struct mm *mm, uint64_t addr, uint64_t stack_limit)
{
    struct vma *v = vma_first(mm, addr);
    if (!v || v->start <= addr)
        return v;
    if (!(v->flags & VMA_GROWSDOWN))
        return NULL;
    uint64_t start = ALIGN_DOWN(addr, MM_GROW_STEP);
    if (!grow_allowed(mm, v, start, stack_limit)) {
        start = ALIGN_DOWN(addr, PAGE_SIZE);
        if (!grow_allowed(mm, v, start, stack_limit))
            return NULL;
    }
    vma_account(mm, v, v->start - start, true);
    v->start = start;
    return v;
}

/* ---- faults that find nothing to do ---- */

static struct mm_spurious *spurious_slot(struct mm *mm, const struct plat_ctx *ctx)
{
    return &mm->spurious[hash_u64((uint64_t)(uintptr_t)ctx) % MM_SPURIOUS];
}

/* How often this context came here for this page in a row while no mapping changed. */
static unsigned spurious_seen(struct mm *mm, const struct plat_ctx *ctx, uint64_t page)
{
    struct mm_spurious *s = spurious_slot(mm, ctx);
    if (s->ctx == ctx && s->page == page && s->changes == mm->changes)
        return ++s->count;
    *s = (struct mm_spurious){.ctx = ctx, .page = page, .changes = mm->changes, .count = 1};
    return 1;
}

static void spurious_forget(struct mm *mm, const struct plat_ctx *ctx)
{
    *spurious_slot(mm, ctx) = (struct mm_spurious){.ctx = NULL};
}

/* Whether the file still has the page: it may have become shorter since that was mapped, which not
 * every platform tells by SIGBUS. */
static int file_has(const struct mm *mm, const struct vma *v, uint64_t page)
{
    struct mappable_range r = {.acct = mm->acct, .fd = -1};
    int err = v->m->ops->translate(v->m, v->off + (page - v->start), PAGE_SIZE, PLAT_READ, &r);

    if (!err && r.in_memfile)
        memfile_unref(mm->mf, r.off, r.size);
    return err;
}

/* The tree says that the access is possible: perhaps the host refused the mapping. -ERANGE: the
 * file has no such page any more. */
static int spurious_heal(struct mm *mm, struct vma *v, uint64_t page)
{
    struct pma *p = pma_find(mm, page);
    uint64_t changes = mm->changes;
    if (!p)
        return 0;
    if (p->kind == PMA_HOST && file_has(mm, v, page) == -ERANGE)
        return -ERANGE;
    uint64_t lo = MAX(v->start, p->start), hi = MIN(v->end, p->end);
    int err = pma_map(mm, v, p, lo, hi, 0);
    if (!err)
        err = mm_commit_locked(mm);
    if (err)
        err = mm_copy_host(mm, v, page);
    mm->changes = changes; /* not a change that excuses one more retry */
    return err;
}

/* ---- guest faults ---- */

/* x86's page fault and its error code, for the signal frame. */
#define FAULT_TRAPNO 14u
#define FAULT_PRESENT 1u
#define FAULT_WRITE 2u
#define FAULT_USER 4u
#define FAULT_FETCH 16u

static int fault_signal(struct plat_fault *sig, int signo, int code)
{
    sig->signo = signo;
    sig->code = code;
    if (sig->trapno != 0)
        return -EFAULT;
    sig->trapno = FAULT_TRAPNO;
    sig->errcode = FAULT_USER;
    if (signo == SIGSEGV && code == SEGV_ACCERR)
        sig->errcode |= FAULT_PRESENT;
    if (sig->access & PLAT_WRITE)
        sig->errcode |= FAULT_WRITE;
    if (sig->access & PLAT_EXEC)
        sig->errcode |= FAULT_FETCH;
    return -EFAULT;
}

/* The signal Linux sends when a page cannot be had. */
static int fault_error(struct plat_fault *sig, int err)
{
    if (err == -ENOMEM)
        return fault_signal(sig, SIGKILL, SI_KERNEL); /* as the out-of-memory killer */
    if (err == -EACCES)
        return fault_signal(sig, SIGSEGV, SEGV_ACCERR);
    return fault_signal(sig, SIGBUS, BUS_ADRERR);
}

/* What an access of unknown kind must be: anything on a page that cannot be read, a write on one
 * that can. */
static unsigned fault_access(struct mm *mm, const struct plat_fault *f, uint64_t page)
{
    unsigned access = f->access & (PLAT_READ | PLAT_WRITE | PLAT_EXEC);
    if (!(f->access & PLAT_ACCESS_UNKNOWN))
        return access ? access : PLAT_READ;
    if (access & PLAT_EXEC)
        return PLAT_EXEC;
    const struct pma *p = pma_find(mm, page);
    return p && p->access & PLAT_READ ? PLAT_WRITE : PLAT_READ;
}

/* A write that was only guessed may have been a read: one that another thread's fault has served
 * meanwhile, or one of a host file that the stub could not map. True when it is worth a retry. */
static bool fault_maybe_read(struct mm *mm, const struct plat_fault *f, struct vma *v,
                             uint64_t page)
{
    if (!(f->access & PLAT_ACCESS_UNKNOWN) || !vma_permits(v, PLAT_READ))
        return false;
    const struct pma *p = pma_find(mm, page);
    unsigned seen = spurious_seen(mm, mm->ctx, page);
    if (seen == MM_SPURIOUS_REMAP && p && p->kind == PMA_HOST)
        return spurious_heal(mm, v, page) == 0;
    return seen == 1;
}

static int fault_segv(struct mm *mm, const struct plat_fault *f, uint64_t stack_limit,
                      struct plat_fault *sig)
{
    uint64_t page = ALIGN_DOWN(f->addr, PAGE_SIZE);
    struct vma *v = mm_vma_or_grow(mm, f->addr, stack_limit);
    if (!v)
        return fault_signal(sig, SIGSEGV, SEGV_MAPERR);
    unsigned access = fault_access(mm, f, page);
    bool changed = false;
    sig->access = access;
    if (!vma_permits(v, access)) {
        if (fault_maybe_read(mm, f, v, page))
            return 0;
        spurious_forget(mm, mm->ctx);
        return fault_signal(sig, SIGSEGV, SEGV_ACCERR);
    }
    int err = mm_make_usable(mm, v, f->addr, access, &changed);
    if (err)
        return fault_error(sig, err);
    if (changed)
        return 0;
    unsigned seen = spurious_seen(mm, mm->ctx, page);
    if (seen == MM_SPURIOUS_REMAP)
        err = spurious_heal(mm, v, page);
    /* An instruction that writes to itself looks like one that cannot be fetched. */
    if (seen > MM_SPURIOUS_REMAP && access == PLAT_EXEC) {
        if (!vma_permits(v, PLAT_WRITE)) {
            spurious_forget(mm, mm->ctx);
            return fault_signal(sig, SIGSEGV, SEGV_ACCERR);
        }
        err = mm_make_usable(mm, v, f->addr, PLAT_WRITE, &changed);
    }
    if (err || seen > MM_SPURIOUS_MAX) {
        const struct pma *p = pma_find(mm, page);
        /* A page of a file that the host does not give is no shortage of memory. */
        bool lost = err == -ERANGE || (!err && p && p->kind == PMA_HOST);
        spurious_forget(mm, mm->ctx);
        return fault_error(sig, lost ? -ERANGE : -ENOMEM);
    }
    return 0;
}

/* The host had no page: the file has become shorter, or longer since it was mapped. */
static int fault_bus(struct mm *mm, const struct plat_fault *f, struct plat_fault *sig)
{
    uint64_t page = ALIGN_DOWN(f->addr, PAGE_SIZE);
    struct vma *v = vma_find(mm, f->addr);
    if (f->code != BUS_ADRERR || !v || !v->m)
        return -EFAULT;
    if (spurious_seen(mm, mm->ctx, page) > 1) {
        spurious_forget(mm, mm->ctx);
        return fault_signal(sig, SIGBUS, BUS_ADRERR);
    }
    int err = file_has(mm, v, page);
    return err ? fault_error(sig, err) : 0;
}

int mm_fault(struct mm *mm, struct plat_ctx *ctx, const struct plat_fault *f,
             const struct mm_limits *lim, struct plat_fault *sig)
{
    *sig = *f;
    if (f->signo != SIGSEGV && f->signo != SIGBUS)
        return -EFAULT;
    if (f->addr >= mm->max_addr)
        return -EFAULT;
    int err = mm_begin(mm, ctx);
    if (err)
        return fault_error(sig, err);
    mm_remember_limits(mm, lim);
    err = f->signo == SIGBUS ? fault_bus(mm, f, sig) : fault_segv(mm, f, lim->stack, sig);
    mm_end(mm);
    return err;
}

/* ---- usercopy's faults ---- */

int mm_fault_in(struct mm *mm, struct plat_ctx *ctx, uint64_t addr, unsigned access)
{
    int err = mm_begin(mm, ctx);
    if (err)
        return err;
    bool changed = false;
    struct vma *v = mm_vma_or_grow(mm, addr, mm->stack_limit);
    if (!v || !vma_permits(v, access))
        err = -EFAULT;
    else
        err = mm_make_usable(mm, v, addr, access, &changed);
    /* Others that run in it must not go on with the page that was replaced. */
    if (!err && changed && !mm->fresh && !list_empty(&mm->pending_pmas) &&
        (!ctx || ref_read(&mm->ref) > 1))
        err = mm_commit_locked(mm);
    mm_end(mm);
    return err;
}
