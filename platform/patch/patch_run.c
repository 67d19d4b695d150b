/* Patches as the thread sees them that runs a context: its guest code can be found by the FS base
 * while it runs, and what comes out of the code of sites is told as if it came from the site. */
#include <errno.h>
#include <signal.h>

#include "platform/patch/patch.h"
#include "platform/platform.h"

/* Calls made with a trap from one place, by all threads, before it is patched. */
#define PATCH_HOT 48u
/* And between two looks while nobody knows whether it can be. */
#define PATCH_AGAIN 16u
/* No FS base is the negative of it. */
#define PATCH_NO_BASE UINT64_C(0x4000000000000000)

/* A page fault on what may only be executed: of its error code. */
#define PATCH_PF_KEY 32u

enum { PATCH_TRAP_OPCODE = 6, PATCH_TRAP_PROTECTION = 13, PATCH_TRAP_PAGE = 14 };

/* ---- which area is whose ---- */

void patch_ctx_init(struct patch_ctx *d, struct patch_as *pa, struct plat_regs *regs)
{
    *d = (struct patch_ctx){.as = pa, .regs = regs, .back = UINT64_MAX};
}

void patch_ctx_inherit(struct patch_ctx *d, const struct patch_ctx *from)
{
    d->back = from->back;
    d->back_code = from->back_code;
    d->gen = from->gen;
}

void patch_join_locked(struct patch_ctx *d)
{
    list_add_tail(&d->node, &d->as->ctxs);
}

static _Atomic uint64_t *areas_entry(const struct patch_ctx *d)
{
    return &d->as->areas[patch_area_hash(d->fs)];
}

static void areas_forget_locked(struct patch_ctx *d)
{
    if (d->found && atomic_load(areas_entry(d)) == d->area)
        atomic_store(areas_entry(d), d->as->plat->nobody);
    d->found = d->known = false;
}

void patch_forget_locked(struct patch_ctx *d)
{
    areas_forget_locked(d);
    list_del(&d->node);
}

/* Whoever entered guest code before anything was patched may have d's base. Who enters says so
 * first and looks whether there are patches then. */
static bool areas_strangers_locked(const struct patch_ctx *d)
{
    const struct patch_ctx *other;

    list_for_each_entry (other, &d->as->ctxs, node)
        if (other != d && !other->known && atomic_load(&other->in_guest))
            return true;
    return false;
}

/* Two threads that have the same base, as after clone(2) with CLONE_VM, must not be in guest code
 * together and be found by it. Who enters says so first and looks at the entry then; who takes an
 * entry empties it first and looks whether its owner is inside then. */
static bool areas_take_locked(struct patch_ctx *d)
{
    _Atomic uint64_t *entry = areas_entry(d);
    const uint64_t owner = atomic_load(entry);
    struct patch_ctx *other;

    list_for_each_entry (other, &d->as->ctxs, node) {
        if (other == d || !other->known)
            continue;
        const bool same = other->fs == d->fs;
        if (!same && other->area == owner && other->found)
            return false;
        if (!same)
            continue;
        /* Who was not found does not look at the entry either. */
        atomic_store(entry, d->as->plat->nobody);
        if (!other->found || atomic_load(&other->in_guest))
            return false;
    }
    if (d->area == 0)
        return false;
    atomic_store(entry, d->area);
    return true;
}

static void areas_register(struct patch_ctx *d, uint64_t area)
{
    mutex_lock(d->as->mu);
    areas_forget_locked(d);
    if (!areas_strangers_locked(d)) {
        d->fs = d->regs->fs_base;
        d->area = area;
        d->known = true;
        d->found = areas_take_locked(d);
    }
    mutex_unlock(d->as->mu);
}

void patch_enter(struct patch_ctx *d, uint64_t area, uint64_t *negfs)
{
    if (!atomic_load(&d->as->on))
        return;
    if (!d->known || d->fs != d->regs->fs_base || d->area != area ||
        (d->found && atomic_load(areas_entry(d)) != area))
        areas_register(d, area);
    if (negfs != NULL)
        *negfs = d->found ? -d->fs : PATCH_NO_BASE;
}

void patch_leave(uint64_t *negfs)
{
    *negfs = PATCH_NO_BASE;
}

/* ---- where guest code is ---- */

uint64_t patch_entry(const struct patch_ctx *d, uint64_t rip)
{
    return rip == d->back && atomic_load(&d->as->gen) == d->gen ? d->back_code : rip;
}

/* The call ended in the code of a site, where it goes on as well. */
static void patch_goes_on(struct patch_ctx *d, const struct patch_site *s, uint64_t code)
{
    d->regs->rip = d->regs->rcx = s->start + s->shape.call_end;
    d->back = d->regs->rip;
    d->back_code = code + s->code.after;
    d->gen = atomic_load(&d->as->gen);
}

static const struct patch_site *patch_in_code(const struct patch_ctx *d, uint64_t rip,
                                              unsigned *off)
{
    if (rip - PATCH_CODE >= PATCH_CODE_SIZE || !atomic_load(&d->as->on))
        return NULL;
    return patch_find_code(d->as->set, rip, off);
}

/* Where calls from rip are counted. NULL: the places are taken by others, one of which loses a call
 * by this, so that what is no longer made goes in the end. Threads that do it at the same time may
 * lose a count, or give it to the wrong place, which is then looked at a little too early. */
static struct patch_hot *patch_place(struct patch_as *pa, uint64_t rip)
{
    struct patch_hot *set = pa->hot[(rip ^ rip >> 5) % PATCH_HOT_SETS], *least = set;
    uint32_t fewest = UINT32_MAX;

    for (unsigned i = 0; i < PATCH_HOT_WAYS; i++) {
        if (atomic_load_explicit(&set[i].rip, memory_order_relaxed) == rip)
            return &set[i];
        const uint32_t count = atomic_load_explicit(&set[i].count, memory_order_relaxed);
        if (count < fewest) {
            fewest = count;
            least = &set[i];
        }
    }
    if (fewest > 0) {
        atomic_store_explicit(&least->count, fewest - 1, memory_order_relaxed);
        return NULL;
    }
    atomic_store_explicit(&least->rip, rip, memory_order_relaxed);
    return least;
}

/* Of all threads of the address space: what each new one calls once is worth it, too. */
static bool patch_count(struct patch_ctx *d)
{
    struct patch_hot *h = patch_place(d->as, d->regs->rip);

    if (h == NULL || atomic_load_explicit(&h->count, memory_order_relaxed) > PATCH_HOT ||
        atomic_fetch_add_explicit(&h->count, 1, memory_order_relaxed) + 1 != PATCH_HOT)
        return false;
    /* What was patched makes room. What cannot be stays, and is asked again only if it is called
     * much more often than others. */
    static const uint32_t next[] = {
        [PATCH_DONE] = 0, [PATCH_LATER] = PATCH_HOT - PATCH_AGAIN, [PATCH_LEFT] = PATCH_HOT + 1};
    const enum patch_added added = patch_add_site(d->as, d->regs->rip, d->regs->orig_rax);
    atomic_store_explicit(&h->count, next[added], memory_order_relaxed);
    return added == PATCH_DONE;
}

bool patch_called(struct patch_ctx *d)
{
    unsigned off;
    const struct patch_site *s = patch_in_code(d, d->regs->rip, &off);

    if (s != NULL && (off == s->code.trap_end || off == s->code.answered))
        patch_goes_on(d, s, d->regs->rip - off);
    else if (d->as->plat->ops != NULL)
        return patch_count(d);
    return false;
}

bool patch_answered(struct patch_ctx *d, uint64_t after)
{
    unsigned off;
    const struct patch_site *s = patch_in_code(d, after, &off);

    if (s == NULL || off != s->code.answered)
        return false;
    patch_goes_on(d, s, after - off);
    return true;
}

bool patch_put_right(struct patch_ctx *d)
{
    unsigned off;
    const struct patch_site *s = patch_in_code(d, d->regs->rip, &off);

    if (s == NULL)
        return false;
    if (off < s->code.answered) {
        /* The call has not been made. */
        d->regs->rip = s->start;
        return true;
    }
    if (off < s->code.after)
        d->regs->rcx = s->start + s->shape.call_end;
    /* In what was moved, rcx may be the program's; the jump back is the end of it. */
    const unsigned moved = s->shape.call_end + (MAX(off, s->code.after) - s->code.after);
    d->regs->rip = s->start + MIN(moved, s->shape.size);
    return true;
}

enum fault {
    FAULT_GUEST, /* has nothing to do with patches */
    FAULT_AGAIN, /* guest code is to be entered again */
    FAULT_CALL,  /* it is a system call */
};

static enum fault fault_kind(struct patch_ctx *d, const struct plat_fault *f)
{
    unsigned off;
    uint64_t code;

    if (!atomic_load(&d->as->on))
        return FAULT_GUEST;
    if (patch_put_right(d)) {
        if (f->signo != SIGTRAP)
            return FAULT_GUEST;
        /* Step by step, the program itself is to be seen. */
        patch_stop(d->as);
        return FAULT_AGAIN;
    }
    if (f->trapno == PATCH_TRAP_PAGE)
        return (f->errcode & PATCH_PF_KEY) && patch_restore(d->as, f->addr) ? FAULT_AGAIN
                                                                            : FAULT_GUEST;
    if (f->trapno != PATCH_TRAP_OPCODE && f->trapno != PATCH_TRAP_PROTECTION)
        return FAULT_GUEST;
    const struct patch_site *s = patch_find_site(d->as, d->regs->rip, &off, &code);
    if (s == NULL || off == 0)
        return FAULT_GUEST;
    if (s->shape.loads && off + 2 == s->shape.call_end) {
        /* The call itself was jumped to. */
        d->regs->rip += 2;
        d->regs->rcx = d->regs->rip;
        d->regs->r11 = d->regs->eflags;
        return FAULT_CALL;
    }
    for (unsigned i = 0; i < s->shape.move_count; i++) {
        if (s->shape.moves[i] != off)
            continue;
        d->back = d->regs->rip;
        d->back_code = code + s->code.after + (off - s->shape.call_end);
        d->gen = atomic_load(&d->as->gen);
        return FAULT_AGAIN;
    }
    return FAULT_GUEST;
}

bool patch_fault(struct patch_ctx *d, const struct plat_fault *f, bool *out_call)
{
    const enum fault kind = fault_kind(d, f);

    *out_call = kind == FAULT_CALL;
    if (*out_call) {
        d->regs->orig_rax = d->regs->rax;
        d->regs->rax = (uint64_t)-ENOSYS;
    }
    return kind != FAULT_AGAIN;
}
