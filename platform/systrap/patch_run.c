/* Patches as the thread sees them that runs a context: its guest code can be found by the FS base
 * while it runs, and what comes out of the code of sites is told as if it came from the site. */
#include <string.h>

#include "platform/systrap/systrap_priv.h"

/* Calls made with a signal from one place before it is patched. */
#define PATCH_HOT 48u
#define PATCH_TRAP_FLAG UINT64_C(0x100)
/* No FS base is the negative of it. */
#define PATCH_NO_BASE UINT64_C(0x4000000000000000)

/* A page fault on what may only be executed: of its error code. */
#define PATCH_PF_KEY 32u

enum { PATCH_TRAP_OPCODE = 6, PATCH_TRAP_PROTECTION = 13, PATCH_TRAP_PAGE = 14 };

/* ---- which area is whose ---- */

void st_patch_areas_init(const struct st_plat *p, struct st_ops *o)
{
    /* Where the word at ST_NEGFS is the negative of no base. */
    for (size_t i = 0; i < ST_OPS_AREAS_COUNT; i++)
        atomic_store_explicit(&o->areas[i], p->text + PAGE_SIZE, memory_order_relaxed);
}

static _Atomic uint64_t *areas_entry(const struct st_ctx *c)
{
    return &st_ops(c->as)->areas[patch_area_hash(c->direct.fs)];
}

static uint64_t areas_own(const struct st_ctx *c)
{
    return st_area_addr(st_plat(c->base.plat), c->thread);
}

static uint64_t areas_nobody(const struct st_ctx *c)
{
    return st_plat(c->base.plat)->text + PAGE_SIZE;
}

void st_patch_forget_locked(struct st_ctx *c)
{
    if (c->direct.found && atomic_load(areas_entry(c)) == areas_own(c))
        atomic_store(areas_entry(c), areas_nobody(c));
    c->direct.found = c->direct.known = false;
}

/* Two threads that have the same base, as after clone(2) with CLONE_VM, must not be in guest code
 * together and be found by it. Who enters says so first and looks at the entry then; who takes an
 * entry empties it first and looks whether its owner is inside then. */
static bool areas_take_locked(struct st_ctx *c)
{
    _Atomic uint64_t *entry = areas_entry(c);
    const uint64_t owner = atomic_load(entry);
    struct st_ctx *other;

    list_for_each_entry (other, &c->as->ctxs, node) {
        if (other == c || !other->direct.known)
            continue;
        const bool same = other->direct.fs == c->direct.fs;
        if (!same && areas_own(other) == owner && other->direct.found)
            return false;
        if (!same)
            continue;
        /* Who was not found does not look at the entry either. */
        atomic_store(entry, areas_nobody(c));
        if (!other->direct.found || atomic_load(&other->in_guest))
            return false;
    }
    atomic_store(entry, areas_own(c));
    return true;
}

static void areas_register(struct st_ctx *c)
{
    mutex_lock(&c->as->mu);
    st_patch_forget_locked(c);
    c->direct.fs = c->regs.fs_base;
    c->direct.known = true;
    c->direct.found = areas_take_locked(c);
    mutex_unlock(&c->as->mu);
}

void st_patch_enter(struct st_ctx *c)
{
    if (!atomic_load_explicit(&c->as->patch.on, memory_order_relaxed))
        return;
    if (!c->direct.known || c->direct.fs != c->regs.fs_base ||
        (c->direct.found && atomic_load(areas_entry(c)) != areas_own(c)))
        areas_register(c);
    c->shared->negfs = c->direct.found ? -c->direct.fs : PATCH_NO_BASE;
}

void st_patch_leave(struct st_ctx *c)
{
    c->shared->negfs = PATCH_NO_BASE;
}

/* ---- answers ---- */

/* What others know of c's area may be old: then somebody else's guest code goes the long way. */
void st_drop_answers(struct plat_ctx *base)
{
    struct st_shared *s = atomic_load(&st_ctx(base)->area);

    for (size_t i = 0; i < ST_ANSWERS_COUNT; i++)
        if (atomic_load_explicit(&s->answers[i], memory_order_relaxed) != 0)
            atomic_store_explicit(&s->answers[i], 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

void st_answers(struct plat_ctx *base, const struct plat_answer *answers, size_t count)
{
    struct st_shared *s = st_ctx(base)->shared;

    st_drop_answers(base);
    for (size_t i = 0; i < count; i++)
        if (answers[i].nr < ST_ANSWERS_COUNT)
            atomic_store(&s->answers[answers[i].nr],
                         UINT64_C(1) << ST_ANSWER_THERE |
                             (uint64_t)answers[i].yield << ST_ANSWER_YIELD | answers[i].value);
}

/* ---- where guest code is ---- */

uint64_t st_patch_entry(const struct st_ctx *c, uint64_t rip)
{
    return rip == c->direct.back && atomic_load(&c->as->patch.gen) == c->direct.gen
               ? c->direct.back_code
               : rip;
}

/* The call ended in the code of a site, where it goes on as well. */
static void patch_goes_on(struct st_ctx *c, const struct patch_site *s, uint64_t code)
{
    c->regs.rip = c->regs.rcx = s->start + s->shape.call_end;
    c->direct.back = c->regs.rip;
    c->direct.back_code = code + s->code.after;
    c->direct.gen = atomic_load(&c->as->patch.gen);
}

static const struct patch_site *patch_in_code(const struct st_ctx *c, uint64_t rip, unsigned *off)
{
    if (rip - ST_PATCH_CODE >= ST_PATCH_CODE_SIZE || !atomic_load(&c->as->patch.on))
        return NULL;
    return st_patch_find_code(c->as->patch.set, rip, off);
}

/* Where calls from rip are counted. NULL: the places are taken by others, one of which loses a call
 * by this, so that what is no longer made goes in the end. */
static struct st_hot *patch_place(struct st_ctx *c, uint64_t rip)
{
    struct st_hot *set = c->direct.hot[(rip ^ rip >> 5) % ST_HOT_SETS], *least = set;

    for (unsigned i = 0; i < ST_HOT_WAYS; i++) {
        if (set[i].rip == rip)
            return &set[i];
        if (set[i].count < least->count)
            least = &set[i];
    }
    if (least->count > 0) {
        least->count--;
        return NULL;
    }
    least->rip = rip;
    return least;
}

static void patch_count(struct st_ctx *c)
{
    struct st_hot *h = patch_place(c, c->regs.rip);

    if (h == NULL || h->count > PATCH_HOT || ++h->count != PATCH_HOT)
        return;
    /* Makes room; what cannot be patched stays, and is asked again only if it is called much more
     * often than others. */
    if (st_patch_site(c->as, c->regs.rip, c->regs.orig_rax))
        h->count = 0;
    else
        h->count++;
}

void st_patch_called(struct st_ctx *c)
{
    unsigned off;
    const struct patch_site *s = patch_in_code(c, c->regs.rip, &off);

    if (s != NULL && off == s->code.trap_end)
        patch_goes_on(c, s, c->regs.rip - off);
    else if (st_plat(c->base.plat)->patch)
        patch_count(c);
}

bool st_patch_take(struct st_ctx *c)
{
    const struct plat_regs *from = (const void *)((const char *)c->shared + ST_REGS);
    const uint64_t after = c->shared->after;
    unsigned off;
    const struct patch_site *s = patch_in_code(c, after, &off);

    if (s == NULL || off != s->code.answered)
        return false;
    const uint64_t cs = c->regs.cs;
    memcpy(&c->regs, from, offsetof(struct plat_regs, cs));
    c->regs.cs = cs;
    c->regs.eflags = (from->eflags & ST_USER_EFLAGS) | STUB_EFLAGS;
    c->regs.rsp = from->rsp;
    c->regs.r11 = c->regs.eflags;
    c->regs.fs_base = c->shared->fs;
    c->regs.gs_base = c->shared->gs;
    patch_goes_on(c, s, after - off);
    return true;
}

bool st_patch_put_right(struct st_ctx *c)
{
    unsigned off;
    const struct patch_site *s = patch_in_code(c, c->regs.rip, &off);

    if (s == NULL)
        return false;
    if (off < s->code.answered) {
        /* The call has not been made. */
        c->regs.rip = s->start;
        return true;
    }
    c->regs.rip = c->regs.rcx = s->start + s->shape.call_end;
    if (off <= s->code.after)
        return true;
    /* Between what was moved; the jump back is the end of it. */
    const unsigned moved = s->shape.call_end + (off - s->code.after);
    c->regs.rip = s->start + MIN(moved, s->shape.size);
    return true;
}

enum patch_fault st_patch_fault(struct st_ctx *c, const struct plat_fault *f)
{
    unsigned off;
    uint64_t code;

    if (!atomic_load(&c->as->patch.on))
        return PATCH_FAULT_GUEST;
    if (st_patch_put_right(c)) {
        if (f->signo != SIGTRAP)
            return PATCH_FAULT_GUEST;
        /* Step by step, the program itself is to be seen. */
        st_patch_stop(c->as);
        return PATCH_FAULT_AGAIN;
    }
    if (f->trapno == PATCH_TRAP_PAGE)
        return (f->errcode & PATCH_PF_KEY) && st_patch_restore(c->as, f->addr) ? PATCH_FAULT_AGAIN
                                                                               : PATCH_FAULT_GUEST;
    if (f->trapno != PATCH_TRAP_OPCODE && f->trapno != PATCH_TRAP_PROTECTION)
        return PATCH_FAULT_GUEST;
    const struct patch_site *s = st_patch_find_site(c->as, c->regs.rip, &off, &code);
    if (s == NULL || off == 0)
        return PATCH_FAULT_GUEST;
    if (s->shape.loads && off + 2 == s->shape.call_end) {
        /* The call itself was jumped to. */
        c->regs.rip += 2;
        c->regs.rcx = c->regs.rip;
        c->regs.r11 = c->regs.eflags;
        return PATCH_FAULT_CALL;
    }
    for (unsigned i = 0; i < s->shape.move_count; i++) {
        if (s->shape.moves[i] != off)
            continue;
        c->direct.back = c->regs.rip;
        c->direct.back_code = code + s->code.after + (off - s->shape.call_end);
        c->direct.gen = atomic_load(&c->as->patch.gen);
        return PATCH_FAULT_AGAIN;
    }
    return PATCH_FAULT_GUEST;
}
