/* Restartable sequences: the numbers a thread is shown, and its way out of a critical section that
 * was disturbed. */
#include "sentry/kernel/rseq.h"

#include <errno.h>
#include <linux/rseq.h>
#include <sched.h>
#include <stddef.h>

#include "sentry/kernel/process.h"
#include "sentry/kernel/rseq_cpu.h"
#include "sentry/kernel/signal_priv.h"

/* Addresses from here on are none of a program's. */
#define TASK_SIZE_MAX UINT64_C(0x7ffffffff000)
/* The structure as it was at first, when its size had to be this one. */
#define RSEQ_SIZE_FIRST 32u
/* How often memory for the structure is missing before it is as good as none. */
#define RSEQ_TRIES 8u

/* struct rseq with the fields of today: ours to write but for flags. */
struct rseq_area {
    uint32_t cpu_start, cpu;
    uint64_t section;
    uint32_t flags;
    uint32_t node, cid;
};
#define AREA_OFF_CPU offsetof(struct rseq_area, cpu_start)
#define AREA_OFF_SECTION offsetof(struct rseq_area, section)
#define AREA_OFF_NODE offsetof(struct rseq_area, node)
_Static_assert(AREA_OFF_SECTION == offsetof(struct rseq, rseq_cs), "struct rseq");
_Static_assert(AREA_OFF_NODE + 8 == RSEQ_FEATURE_SIZE, "struct rseq");

/* ---- the structure ---- */

/* Everything but the flags; the section up to its numbers only if so asked. */
static int area_write(struct task *t, const struct rseq_area *a, bool section)
{
    const size_t head =
        section ? sizeof(a->cpu_start) * 2 + sizeof(a->section) : sizeof(a->cpu_start) * 2;
    const int r = copyout(&t->ua, uaddr(t->rseq + AREA_OFF_CPU), &a->cpu_start, head);

    return r ? r : copyout(&t->ua, uaddr(t->rseq + AREA_OFF_NODE), &a->node, sizeof(a->node) * 2);
}

/* ---- critical sections ---- */

static bool section_valid(const struct rseq_cs *cs)
{
    return cs->start_ip < TASK_SIZE_MAX && cs->abort_ip < TASK_SIZE_MAX && cs->version == 0 &&
           cs->post_commit_offset < TASK_SIZE_MAX - cs->start_ip &&
           cs->abort_ip - cs->start_ip >= cs->post_commit_offset;
}

static int section_read(struct task *t, uint64_t ptr, struct rseq_cs *out)
{
    uint32_t sig;

    if (ptr >= TASK_SIZE_MAX)
        return -EINVAL;
    int r = copyin_obj(&t->ua, out, uaddr(ptr));
    if (r)
        return r;
    if (!section_valid(out))
        return -EINVAL;
    r = copyin_obj(&t->ua, &sig, uaddr(out->abort_ip - sizeof(sig)));
    if (r)
        return r;
    return sig == t->rseq_sig ? 0 : -EINVAL;
}

/* Where a thread goes on: at the way out of the section that it is in. Flags that kept a section
 * from being left are not known any more, as others. */
static int section_leave(struct task *t, const struct rseq_area *a, uint64_t *rip)
{
    struct rseq_cs cs;

    if (!a->section)
        return 0;
    const int r = section_read(t, a->section, &cs);
    if (r || *rip - cs.start_ip >= cs.post_commit_offset)
        return r;
    if (a->flags || cs.flags)
        return -EINVAL;
    *rip = cs.abort_ip;
    return 0;
}

/* ---- when it happens ---- */

/* The host's number as far as it is one of those the task may run on, else the first of them: who
 * has pinned itself to a CPU finds itself there. */
static uint32_t cpu_of_host(struct task *t)
{
    const int host = sched_getcpu();
    const uint32_t nr = host < 0 ? 0 : (uint32_t)host % (uint32_t)t->k->cfg.cpus;
    uint64_t mask[LIMIT_CPU_WORDS];

    task_affinity_get(t, mask);
    if (mask[nr / 64] >> (nr % 64) & 1)
        return nr;
    for (uint32_t i = 0; i < LIMIT_CPU_WORDS; i++)
        if (mask[i])
            return i * 64 + (uint32_t)__builtin_ctzll(mask[i]);
    return nr;
}

/* What a task is shown of which nobody knows critical sections. */
static struct rseq_turn turn_of_host(struct task *t)
{
    const uint32_t cpu = cpu_of_host(t);
    struct sighand *sh = tg_lock_sig(t->tg);
    const uint32_t threads = t->tg->thread_count;

    sighand_unlock(sh);
    return (struct rseq_turn){.cpu = cpu, .cid = cpu < threads ? cpu : 0};
}

/* All threads of t's process take turns from here on. */
static int sections_begin(struct task *t)
{
    mm_set_sections(t->ua.mm);
    /* Afterwards the others have left guest code since, and looked before they went back. */
    return task_membarrier(t, TASK_BARRIER_RSEQ, -1);
}

/* Nobody but libc cares for it so far, and it is as it should be. */
static bool is_current(const struct task *t, const struct rseq_area *a,
                       const struct rseq_turn *turn)
{
    return !task_priv(t)->rseq_user.joined && !a->section && a->cpu_start == turn->cpu &&
           a->cpu == turn->cpu && a->cid == turn->cid && a->node == 0;
}

/* No section is left in t's structure, and turn is shown. */
static int update_once(struct task *t, const struct rseq_turn *turn)
{
    struct plat_regs *regs = plat_ctx_regs(t->ctx);
    uint64_t rip = regs->rip;
    struct rseq_area a;
    int r = copyin(&t->ua, &a, uaddr(t->rseq), RSEQ_FEATURE_SIZE);

    if (!r && a.section && !task_priv(t)->rseq_user.joined)
        r = sections_begin(t);
    if (!r)
        r = section_leave(t, &a, &rip);
    if (r || is_current(t, &a, turn))
        return r;
    a = (struct rseq_area){.cpu_start = turn->cpu, .cpu = turn->cpu, .node = 0, .cid = turn->cid};
    r = area_write(t, &a, true);
    if (!r)
        regs->rip = rip;
    return r;
}

/* False: the structure, or what it names, is no good. */
static bool update(struct task *t, const struct rseq_turn *turn)
{
    task_priv(t)->rseq_shown = *turn;
    for (unsigned i = 0; i < RSEQ_TRIES; i++) {
        const int r = update_once(t, turn);
        if (!r)
            return true;
        if ((r != -EFAULT && r != -ENOMEM) || !task_oom(t) || task_dying(t))
            return false;
    }
    return false;
}

void rseq_event(struct task *t)
{
    atomic_store(&task_priv(t)->rseq_event, true);
    blocker_mark(&t->blocker, BLOCKER_RSEQ);
}

/* -EINTR: not yet. */
static int next_turn(struct task *t, struct rseq_turn *out)
{
    if (!mm_has_sections(t->ua.mm)) {
        *out = turn_of_host(t);
        return 0;
    }
    rseq_cpu_join(t);
    return rseq_cpu_take(t, out);
}

void rseq_work(struct task *t)
{
    struct rseq_turn turn;

    if (!blocker_clear(&t->blocker, BLOCKER_RSEQ) || !t->rseq)
        return;
    if (next_turn(t, &turn)) {
        blocker_mark(&t->blocker, BLOCKER_RSEQ);
        return;
    }
    if (!atomic_exchange(&task_priv(t)->rseq_event, false))
        return;
    if (!update(t, &turn))
        sig_force_segv(t, 0);
    else if (!task_priv(t)->rseq_user.joined && mm_has_sections(t->ua.mm))
        rseq_event(t); /* just found out */
}

void rseq_stopped(struct task *t)
{
    if (LIKELY(!t->rseq))
        return;
    rseq_cpu_idle(t);
    rseq_event(t);
}

bool rseq_signal(struct task *t)
{
    if (LIKELY(!t->rseq))
        return true;
    /* The handler is shown where it runs. */
    rseq_event(t);
    return update(t, &task_priv(t)->rseq_shown);
}

/* ---- registration ---- */

static void rseq_begin(struct task *t, uint64_t addr, uint32_t size, uint32_t sig)
{
    t->rseq = addr;
    t->rseq_size = size;
    t->rseq_sig = sig;
    rseq_event(t);
}

void rseq_end(struct task *t)
{
    rseq_cpu_leave(t);
    t->rseq = t->rseq_size = 0;
    t->rseq_sig = 0;
}

void rseq_fork(struct task *t, struct task *c)
{
    if (t->rseq)
        rseq_begin(c, t->rseq, (uint32_t)t->rseq_size, t->rseq_sig);
}

static bool area_fits(uint64_t addr, uint32_t size)
{
    if (size == RSEQ_SIZE_FIRST)
        return addr % RSEQ_SIZE_FIRST == 0;
    return size > RSEQ_SIZE_FIRST && addr % RSEQ_ALIGN == 0;
}

/* What a section of an earlier registration has left must not end the program. */
static int forget_old_section(struct task *t, uint64_t addr)
{
    uint64_t ptr;
    int r = copyin_obj(&t->ua, &ptr, uaddr(addr + AREA_OFF_SECTION));

    if (!r && ptr) {
        ptr = 0;
        r = copyout_obj(&t->ua, uaddr(addr + AREA_OFF_SECTION), &ptr);
    }
    return r;
}

static int64_t rseq_unregister(struct task *t, uint64_t addr, uint32_t size, uint32_t sig)
{
    if (!t->rseq || t->rseq != addr || t->rseq_size != size)
        return -EINVAL;
    if (t->rseq_sig != sig)
        return -EPERM;
    const struct rseq_area none = {.cpu = (uint32_t)RSEQ_CPU_ID_UNINITIALIZED};
    const int r = area_write(t, &none, false);
    if (!r)
        rseq_end(t);
    return r;
}

static int64_t rseq_register(struct task *t, uint64_t addr, uint32_t size, uint32_t sig)
{
    if (t->rseq && (t->rseq != addr || t->rseq_size != size))
        return -EINVAL;
    if (t->rseq)
        return t->rseq_sig == sig ? -EBUSY : -EPERM;
    if (!area_fits(addr, size))
        return -EINVAL;
    if (addr > TASK_SIZE_MAX - size)
        return -EFAULT;
    const int r = forget_old_section(t, addr);
    if (!r)
        rseq_begin(t, addr, size, sig);
    return r;
}

int64_t task_rseq(struct task *t, uaddr_t addr, uint32_t size, int flags, uint32_t sig)
{
    if (flags == RSEQ_FLAG_UNREGISTER)
        return rseq_unregister(t, addr.v, size, sig);
    return flags ? -EINVAL : rseq_register(t, addr.v, size, sig);
}

uint32_t task_rseq_cpu(struct task *t)
{
    return t->rseq ? task_priv(t)->rseq_shown.cpu : cpu_of_host(t);
}

int task_rseq_map(struct task *t, struct file *f)
{
    return rseq_in_file(f) ? sections_begin(t) : 0;
}
