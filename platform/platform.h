/* How guest code runs: address spaces and contexts, behind three implementations.
 * Depends on: base, platform/regs.h.
 * Threading: said per function; plat_ctx_interrupt is the only call allowed from a foreign thread.
 * Ownership: plat_as is reference-counted; a plat_ctx belongs to one sentry thread at a time. */
#ifndef RINGWALL_PLATFORM_PLATFORM_H
#define RINGWALL_PLATFORM_PLATFORM_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/uaddr.h"
#include "platform/regs.h"

/* Access bits, for mappings and faults. */
#define PLAT_READ 1u
#define PLAT_WRITE 2u
#define PLAT_EXEC 4u
/* In a fault only: the platform cannot tell reads from writes (ptrace). */
#define PLAT_ACCESS_UNKNOWN 8u

/* What plat_as_map maps. The fd is a host descriptor that the sentry keeps open for at least as
 * long as the mapping lives. PRIVATE makes the host mapping MAP_PRIVATE (never needed for
 * anonymous memory, which is always a shared mapping of the memory file). */
#define PLAT_MAP_PRIVATE 1u
/* Ask the host to fill the page tables now. */
#define PLAT_MAP_POPULATE 2u
/* Code of a file, mapped privately and not written: how it is shown may differ in system calls. */
#define PLAT_MAP_CODE 4u

enum plat_event {
    PLAT_EVENT_SYSCALL,   /* regs: rax = -ENOSYS, orig_rax = number, rip past the instruction */
    PLAT_EVENT_FAULT,     /* fault is filled in; regs are those of the faulting instruction */
    PLAT_EVENT_INTERRUPT, /* plat_ctx_interrupt was called; guest state is consistent */
    PLAT_EVENT_DEAD, /* the stub is gone (killed from outside); the context can only be freed */
};

/* A synchronous exception of guest code, as the signal Linux would send for it. */
struct plat_fault {
    int signo; /* SIGSEGV SIGBUS SIGFPE SIGILL SIGTRAP */
    int code;  /* si_code */
    uint64_t addr;
    unsigned access;  /* PLAT_READ | ... or PLAT_ACCESS_UNKNOWN; EXEC when the address is rip */
    uint64_t trapno;  /* sigcontext.trapno, 0 when not known */
    uint64_t errcode; /* sigcontext.err, 0 when not known */
};

/* Range of guest-virtual addresses that the platform keeps for itself. */
struct plat_range {
    uint64_t start, end;
};

/* How guest code gets the answer to a call without leaving. */
enum plat_answer_kind {
    PLAT_ANSWER_VALUE,   /* value */
    PLAT_ANSWER_YIELD,   /* the host's sched_yield(2), by the thread that runs the guest code */
    PLAT_ANSWER_SIGMASK, /* rt_sigprocmask(2), of plat_own */
    PLAT_ANSWER_ROBUST,  /* set_robust_list(2), of plat_own */
};

struct plat_answer {
    uint32_t nr; /* of the call */
    enum plat_answer_kind kind;
    int64_t value; /* a result that has 32 bits without a sign, or a negative errno */
};

/* What guest code may change of its own task without leaving. It is the guest's to write: any value
 * may be there at any time, and is then what the task has. */
struct plat_own {
    _Atomic uint64_t sigmask;      /* blocked signals */
    _Atomic uint64_t robust_list;  /* with robust_set */
    _Atomic uint32_t sigmask_open; /* else guest code leaves to change sigmask */
    _Atomic uint32_t robust_set;   /* it has set robust_list, of the usual size */
};

/* What an action was set to that is the default. */
struct plat_sigaction {
    uint64_t restorer, flags;
};

struct plat_config {
    int mem_fd;      /* the memory file */
    int device_fd;   /* what open gave; borrowed till create returns */
    uint64_t memory; /* bytes that the host lets the sandbox have, 0: all */
    bool patch;      /* system call sites of programs may be patched, where that helps */
    int decoder_fd;  /* patch: connection to who finds them, borrowed; or -1: none are found */
};

struct plat;
struct plat_as;
struct plat_ctx;

struct plat_as_ops {
    /* A new address space with nothing of the guest's in it. Any thread. Owned result. */
    MUST_CHECK int (*create)(struct plat *p, struct plat_as **out_as);
    /* Queue: maps [addr, addr+size) onto (fd, off) with access bits, replacing what is there.
     * Page multiples. Any thread; caller holds the mm lock. May return -ENOMEM. */
    MUST_CHECK int (*map)(struct plat_as *as, uaddr_t addr, uint64_t size, unsigned access, int fd,
                          uint64_t off, unsigned flags);
    /* Queue: removes every mapping in the range. */
    MUST_CHECK int (*unmap)(struct plat_as *as, uaddr_t addr, uint64_t size);
    /* Queue: changes the access bits of what is mapped in the range (holes are skipped). */
    MUST_CHECK int (*protect)(struct plat_as *as, uaddr_t addr, uint64_t size, unsigned access);
    /* Carries out what is queued. ctx is the calling thread's own context bound to this address
     * space, or NULL for a foreign caller: then every context that runs guest code in it is
     * interrupted, and the call returns when none can use a stale mapping any more.
     * A host mapping that fails (-ENOMEM at max_map_count) is returned, the rest is done. */
    MUST_CHECK int (*commit)(struct plat_as *as, struct plat_ctx *ctx);
    /* Drops a reference; the last one ends the stub process. */
    void (*put)(struct plat_as *as);
};

struct plat_ctx_ops {
    /* A context for a task's first program, bound to as (takes its own reference). To be called
     * by the thread that will run it. Registers and extended state are zero / initial. */
    MUST_CHECK int (*create)(struct plat *p, struct plat_as *as, struct plat_ctx **out_ctx);
    /* A context for a new guest task made from parent's state (registers, extended state), called
     * by parent's thread while parent is stopped. When out_as is NULL the child shares parent's
     * address space (threads, vfork); else the address space is forked: *out_as gets a new one
     * holding the same host mappings (after committing the queue). The result may then be run by
     * one other thread, which becomes its owner at its first run. */
    MUST_CHECK int (*fork)(struct plat_ctx *parent, struct plat_as **out_as,
                           struct plat_ctx **out_child);
    /* Moves the context to another, fresh address space (execve). Owner thread. Registers and
     * extended state are reset. On failure the context keeps its old address space. */
    MUST_CHECK int (*rebind)(struct plat_ctx *ctx, struct plat_as *as);
    /* Registers: valid between runs; the owner may change them in place. */
    struct plat_regs *(*regs)(struct plat_ctx *ctx);
    /* Commits the address space's queue, then runs guest code until an event. Owner thread.
     * single_step stops after one instruction with SIGTRAP/TRAP_TRACE as a fault. */
    enum plat_event (*run)(struct plat_ctx *ctx, bool single_step, struct plat_fault *out_fault);
    /* Makes a present or the next run return PLAT_EVENT_INTERRUPT soon. Any thread. Never lost;
     * may cause one spurious INTERRUPT. */
    void (*interrupt)(struct plat_ctx *ctx);
    /* Extended state in the XSAVE standard format, as in a signal frame (fpstate). get returns the
     * bytes used (<= size) or -ENOSPC; set takes size bytes that are hostile: invalid header or
     * MXCSR bits give -EINVAL. Owner thread, between runs. */
    MUST_CHECK int64_t (*xstate_get)(struct plat_ctx *ctx, void *buf, size_t size);
    MUST_CHECK int (*xstate_set)(struct plat_ctx *ctx, const void *buf, size_t size);
    /* Debug registers 0-3, 6, 7 as ptrace(2) has them in u_debugreg, checked by the host. Owner
     * thread, between runs. NULL: there are none. */
    MUST_CHECK int (*debugreg_get)(struct plat_ctx *ctx, unsigned n, uint64_t *out_value);
    MUST_CHECK int (*debugreg_set)(struct plat_ctx *ctx, unsigned n, uint64_t value);
    /* From now on guest code may get these answers and no others; as many calls as it likes go the
     * long way all the same. Owner thread, between runs. drop takes all away: any thread, while ctx
     * exists; guest code that has not got its answer when it returns gets none. Both NULL: the
     * platform has no way to do that. */
    void (*answers)(struct plat_ctx *ctx, const struct plat_answer *answers, size_t count);
    void (*drop_answers)(struct plat_ctx *ctx);
    /* What PLAT_ANSWER_SIGMASK and _ROBUST are about, all zero at first; till rebind and destroy.
     * Guest code that changes sigmask looks at sigmask_open afterwards, and where that is 0 undoes
     * it and leaves. Owner thread, between runs. NULL: there are no such answers. */
    struct plat_own *(*own)(struct plat_ctx *ctx);
    /* rt_sigaction(2) of signals whose action is the default may be answered without an event. Bit
     * n for signal n + 1. zero: the action is all zeros and may be read; plain: it may be set to
     * the default with no mask and no flags but SA_RESTORER. Replaces the last offer; none holds
     * for a new context, nor after rebind. Owner thread, between runs. NULL: always by an event. */
    void (*sigactions_offer)(struct plat_ctx *ctx, uint64_t zero, uint64_t plain);
    /* Which were set since the offer, and to what. What the guest set is its own to choose. */
    uint64_t (*sigactions_taken)(struct plat_ctx *ctx, struct plat_sigaction set[64]);
    /* The context and its thread run on those of the sandbox's CPUs only, bit n for the n-th of
     * them; they may do so already. Owner thread, between runs. NULL: wherever the host wants. */
    void (*affinity)(struct plat_ctx *ctx, const uint64_t *mask, size_t words);
    /* For a while the context and its thread run on that CPU of the host: whoever keeps waking it
     * is there. False: it may not. cpu < 0: no longer. Owner thread, between runs. NULL: it cannot.
     */
    bool (*follow)(struct plat_ctx *ctx, int cpu);
    /* Guest code gets the share of its CPU that this nice value says, as far as the host permits:
     * 0 (as at first) to 19. The context or its thread may have another by now. Owner thread,
     * between runs. NULL: they are all alike. */
    void (*nice)(struct plat_ctx *ctx, int nice);
    /* Whether guest code may read the time stamp counter; where it may not that is a fault, as any
     * protection fault. Holds till the context is bound anew. Owner thread, between runs. NULL: it
     * always may. */
    void (*tsc)(struct plat_ctx *ctx, bool allowed);
    /* User time spent in guest code so far, ns. Any thread. */
    uint64_t (*cpu_time)(struct plat_ctx *ctx);
    /* Ends the context and its stub thread. Owner thread (or nobody has run it yet). */
    void (*destroy)(struct plat_ctx *ctx);
};

struct plat_ops {
    const char *name;
    bool patches; /* plat_config.patch means something */
    const struct plat_as_ops *as;
    const struct plat_ctx_ops *ctx;
    /* 0, or a negative errno with a reason in why. Any time, before confinement. */
    MUST_CHECK int (*probe)(char *why, size_t why_size);
    /* Opens what the platform needs of the host's file system, while there still is one. An owned
     * descriptor, or a negative errno. NULL: nothing is needed. */
    MUST_CHECK int (*open)(void);
    /* Called in the sentry process before seccomp and threads. Owned result. */
    MUST_CHECK int (*create)(const struct plat_config *cfg, struct plat **out_plat);
    void (*destroy)(struct plat *p);
};

/* Every struct plat, plat_as and plat_ctx of an implementation begins with this. */
struct plat {
    const struct plat_ops *ops;
    /* Guest addresses are in [min_addr, max_addr) and outside the reserved ranges. */
    uint64_t min_addr, max_addr;
    struct plat_range reserved[4];
    size_t reserved_count;
    size_t xstate_size; /* largest XSAVE area xstate_get can return */
    /* Ranges of at least this size, a power of two, cost less when they lie alike in the address
     * space and in the memory file: their difference is a multiple of it. 0: it is all the same. */
    uint64_t large;
    /* Page tables that the host has for the memory file, once for all address spaces and besides
     * the sentry's; they stay when its pages go. */
    unsigned mem_tables;
    /* Host vDSO inside every address space (0: none): entry of its ELF image, for our vDSO. */
    uint64_t host_vdso;
};

struct plat_as {
    struct plat *plat;
};

struct plat_ctx {
    struct plat *plat;
};

/* Wrappers: callers use these, never the tables. */
static inline MUST_CHECK int plat_as_create(struct plat *p, struct plat_as **out_as)
{
    return p->ops->as->create(p, out_as);
}

static inline MUST_CHECK int plat_as_map(struct plat_as *as, uaddr_t addr, uint64_t size,
                                         unsigned access, int fd, uint64_t off, unsigned flags)
{
    return as->plat->ops->as->map(as, addr, size, access, fd, off, flags);
}

static inline MUST_CHECK int plat_as_unmap(struct plat_as *as, uaddr_t addr, uint64_t size)
{
    return as->plat->ops->as->unmap(as, addr, size);
}

static inline MUST_CHECK int plat_as_protect(struct plat_as *as, uaddr_t addr, uint64_t size,
                                             unsigned access)
{
    return as->plat->ops->as->protect(as, addr, size, access);
}

static inline MUST_CHECK int plat_as_commit(struct plat_as *as, struct plat_ctx *ctx)
{
    return as->plat->ops->as->commit(as, ctx);
}

static inline void plat_as_put(struct plat_as *as)
{
    as->plat->ops->as->put(as);
}

static inline MUST_CHECK int plat_ctx_create(struct plat *p, struct plat_as *as,
                                             struct plat_ctx **out_ctx)
{
    return p->ops->ctx->create(p, as, out_ctx);
}

static inline MUST_CHECK int plat_ctx_fork(struct plat_ctx *parent, struct plat_as **out_as,
                                           struct plat_ctx **out_child)
{
    return parent->plat->ops->ctx->fork(parent, out_as, out_child);
}

static inline MUST_CHECK int plat_ctx_rebind(struct plat_ctx *ctx, struct plat_as *as)
{
    return ctx->plat->ops->ctx->rebind(ctx, as);
}

static inline struct plat_regs *plat_ctx_regs(struct plat_ctx *ctx)
{
    return ctx->plat->ops->ctx->regs(ctx);
}

static inline enum plat_event plat_ctx_run(struct plat_ctx *ctx, bool single_step,
                                           struct plat_fault *out_fault)
{
    return ctx->plat->ops->ctx->run(ctx, single_step, out_fault);
}

static inline void plat_ctx_interrupt(struct plat_ctx *ctx)
{
    ctx->plat->ops->ctx->interrupt(ctx);
}

static inline MUST_CHECK int64_t plat_ctx_xstate_get(struct plat_ctx *ctx, void *buf, size_t size)
{
    return ctx->plat->ops->ctx->xstate_get(ctx, buf, size);
}

static inline MUST_CHECK int plat_ctx_xstate_set(struct plat_ctx *ctx, const void *buf, size_t size)
{
    return ctx->plat->ops->ctx->xstate_set(ctx, buf, size);
}

static inline MUST_CHECK int plat_ctx_debugreg_get(struct plat_ctx *ctx, unsigned n,
                                                   uint64_t *out_value)
{
    *out_value = 0;
    return ctx->plat->ops->ctx->debugreg_get ? ctx->plat->ops->ctx->debugreg_get(ctx, n, out_value)
                                             : 0;
}

/* Without debug registers: as when all are taken by others. */
static inline MUST_CHECK int plat_ctx_debugreg_set(struct plat_ctx *ctx, unsigned n, uint64_t value)
{
    if (!ctx->plat->ops->ctx->debugreg_set)
        return value ? -ENOSPC : 0;
    return ctx->plat->ops->ctx->debugreg_set(ctx, n, value);
}

static inline void plat_ctx_answers(struct plat_ctx *ctx, const struct plat_answer *answers,
                                    size_t count)
{
    if (ctx->plat->ops->ctx->answers)
        ctx->plat->ops->ctx->answers(ctx, answers, count);
}

static inline void plat_ctx_drop_answers(struct plat_ctx *ctx)
{
    if (ctx->plat->ops->ctx->drop_answers)
        ctx->plat->ops->ctx->drop_answers(ctx);
}

static inline struct plat_own *plat_ctx_own(struct plat_ctx *ctx)
{
    return ctx->plat->ops->ctx->own ? ctx->plat->ops->ctx->own(ctx) : NULL;
}

static inline bool plat_ctx_sigactions_can(const struct plat_ctx *ctx)
{
    return ctx->plat->ops->ctx->sigactions_offer != NULL;
}

static inline void plat_ctx_sigactions_offer(struct plat_ctx *ctx, uint64_t zero, uint64_t plain)
{
    ctx->plat->ops->ctx->sigactions_offer(ctx, zero, plain);
}

static inline uint64_t plat_ctx_sigactions_taken(struct plat_ctx *ctx,
                                                 struct plat_sigaction set[64])
{
    return ctx->plat->ops->ctx->sigactions_taken(ctx, set);
}

static inline void plat_ctx_affinity(struct plat_ctx *ctx, const uint64_t *mask, size_t words)
{
    if (ctx->plat->ops->ctx->affinity)
        ctx->plat->ops->ctx->affinity(ctx, mask, words);
}

static inline bool plat_ctx_follow(struct plat_ctx *ctx, int cpu)
{
    return ctx->plat->ops->ctx->follow && ctx->plat->ops->ctx->follow(ctx, cpu);
}

static inline void plat_ctx_nice(struct plat_ctx *ctx, int nice)
{
    if (ctx->plat->ops->ctx->nice)
        ctx->plat->ops->ctx->nice(ctx, nice);
}

static inline bool plat_ctx_tsc_can(const struct plat_ctx *ctx)
{
    return ctx->plat->ops->ctx->tsc != NULL;
}

static inline void plat_ctx_tsc(struct plat_ctx *ctx, bool allowed)
{
    ctx->plat->ops->ctx->tsc(ctx, allowed);
}

static inline uint64_t plat_ctx_cpu_time(struct plat_ctx *ctx)
{
    return ctx->plat->ops->ctx->cpu_time(ctx);
}

static inline void plat_ctx_destroy(struct plat_ctx *ctx)
{
    ctx->plat->ops->ctx->destroy(ctx);
}

#endif
