/* Inside the ptrace platform: stubs, address spaces, contexts.
 * Depends on: ptrace.h, base.
 * Threading: said per field; "owner" is the sentry thread that traces the context's stub thread.
 * Ownership: an address space owns its stub process, a context its stub thread. */
#ifndef RINGWALL_PLATFORM_PTRACE_PRIV_H
#define RINGWALL_PLATFORM_PTRACE_PRIV_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "base/idalloc.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/ref.h"
#include "platform/ptrace/ptrace.h"
#include "platform/ptrace/stub.h"
#include "platform/stub/change.h"
#include "platform/stub/host.h"
#include "platform/stub/queue.h"
#include "platform/stub/seat.h"

/* Makes a stub stop; never reaches guest code. Stubs ignore it, for the one that comes when the
 * thread is not traced any more. */
#define PT_INTERRUPT SIGUSR1
/* Address spaces at a time: operations pages. */
#define PT_SLOTS 65536
#define PT_PARKED_MAX 16
#define PT_XSTATE_MAX 16384
/* Ended stubs whose remains may wait to be taken. */
#define PT_ENDED_MAX 64
/* Siblings of the one that clones: the sentry is the parent of every stub. The descriptor table is
 * the sentry's own, so that host files can be mapped. No signal says that a stub ended. */
#define PT_PROCESS_FLAGS (CLONE_PARENT | CLONE_FILES | CLONE_FS)
#define PT_THREAD_FLAGS                                                                            \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
extern const char stub_text[], stub_text_end[], stub_park[], stub_ready[], stub_call[],
    stub_batch[], stub_thread[], stub_fork[], stub_settle[];

struct pt_plat {
    struct plat base;
    int mem_fd;
    int ops_fd;         /* memory file of operations pages; page 0 of it is never used */
    char *ops_mem;      /* all of it, in the sentry */
    uint64_t text, ops; /* in every stub: the code page, the operations page */
    uint64_t end;       /* of what is ours there; the host's vDSO lies before it, if moved */
    bool vdso_moved;
    pid_t template_pid;
    struct mutex mu; /* rank LEAF: the template, and up to ended_count */
    struct idalloc slots;
    pid_t ended[PT_ENDED_MAX]; /* stubs that were killed and not yet waited for */
    size_t ended_count;
    struct stub_placer placer;
};

struct pt_as {
    struct plat_as base;
    struct ref ref;
    pid_t pid;        /* stub process; immutable */
    uint32_t slot;    /* of the operations page */
    bool settled;     /* the leader has been; whoever takes it first does that */
    struct mutex mu;  /* rank PLATFORM: guards the rest */
    struct cond idle; /* a context has left the guest */
    struct stub_queue queue;
    struct list ctxs;            /* pt_ctx.node */
    pid_t parked[PT_PARKED_MAX]; /* stub threads nobody traces or uses */
    size_t parked_count;
    bool gone;                /* the process has been killed, or its end was seen */
    bool told;                /* ... and the log says so */
    _Atomic unsigned users;   /* contexts in ctxs */
    _Atomic bool has_ops;     /* written under mu */
    _Atomic uint32_t waiting; /* threads waiting on idle */
};

struct pt_ctx {
    struct plat_ctx base;
    struct pt_as *as; /* owned reference; changed by rebind with both locks free */
    struct list node; /* guard: as->mu */
    pid_t tid;
    /* owner */
    bool attached, dead;
    bool watching; /* debug registers are in use */
    int tsc_due;   /* PR_TSC_* that the stub thread has still to set, or 0 */
    bool synced;   /* seen is what the stub thread's registers are */
    struct plat_regs regs, seen;
    void *xstate; /* to be loaded at the first run, or NULL; owned */
    size_t xstate_size;
    struct stub_seat seat;
    /* any thread */
    _Atomic bool interrupt;
    _Atomic bool in_guest;
    _Atomic uint64_t target; /* process and thread number for tgkill(2): pid << 32 | tid */
    _Atomic bool reaped;     /* its end was seen by the watching thread */
};

static inline struct pt_plat *pt_plat(struct plat *p)
{
    return container_of(p, struct pt_plat, base);
}

static inline struct pt_as *pt_as(struct plat_as *as)
{
    return container_of(as, struct pt_as, base);
}

static inline struct pt_ctx *pt_ctx(struct plat_ctx *c)
{
    return container_of(c, struct pt_ctx, base);
}

static inline struct pt_ctx *pt_ctx_of_seat(struct stub_seat *s)
{
    return container_of(s, struct pt_ctx, seat);
}

/* Address in a stub of a label of stub.S. */
static inline uint64_t pt_stub_addr(const struct pt_plat *p, const char *label)
{
    return p->text + (uint64_t)(label - stub_text);
}

/* ---- tracee.c: one stopped or parked stub thread; the caller traces it ---- */
/* What all of it fails with when the thread has ended: -ECHILD when that was seen with wait(2), so
 * that the number may already be another's; else -ESRCH. */
static inline bool pt_is_gone(int r)
{
    return r == -ESRCH || r == -ECHILD;
}
/* Takes a thread that nobody traces and stops it wherever it is. */
MUST_CHECK int pt_seize(pid_t tid);
/* Does what a process just cloned has to do before all else; it may have done it. */
MUST_CHECK int pt_settle(const struct pt_plat *p, pid_t tid, uint32_t slot);
/* Leaves a stopped thread parked. */
MUST_CHECK int pt_detach(const struct pt_plat *p, pid_t tid);
/* Waits for the next stop. *out_status as wait(2). */
MUST_CHECK int pt_wait_stop(pid_t tid, int *out_status);
/* Runs stub code from regs->rip to its end: 0, or 1 when it had something to tell and the registers
 * were read back. *interrupted is set when PT_INTERRUPT came meanwhile. */
MUST_CHECK int pt_run_stub(pid_t tid, struct plat_regs *regs, bool *interrupted);
MUST_CHECK int pt_get_regs(pid_t tid, struct plat_regs *regs);
MUST_CHECK int pt_set_regs(pid_t tid, const struct plat_regs *regs);
/* One host call in the stub: its result in *out_ret, as pt_run_stub. */
MUST_CHECK int pt_call(const struct pt_plat *p, pid_t tid, uint64_t nr, const uint64_t args[6],
                       int64_t *out_ret, bool *interrupted);
/* Bytes, or negative errno. */
MUST_CHECK int64_t pt_get_xstate(pid_t tid, void *buf, size_t size);
MUST_CHECK int pt_set_xstate(pid_t tid, const void *buf, size_t size);
/* Kills a stub process. Its remains are taken later (pt_end), or here. */
void pt_kill(pid_t pid);
void pt_reap(pid_t pid);
/* A killed process, or a traced thread of one, is to be waited for when it suits. */
void pt_end(struct pt_plat *p, pid_t pid);

/* ---- clone.c ---- */
/* What stub_fork and stub_settle expect. */
void pt_fork_regs(const struct pt_plat *p, uint32_t slot, struct plat_regs *regs);
/* A new stub process cloned by the stopped thread tid, with the operations page of slot. */
MUST_CHECK int pt_clone_process(const struct pt_plat *p, pid_t tid, uint32_t slot, pid_t *out_pid,
                                bool *interrupted);
MUST_CHECK int pt_clone_thread(const struct pt_plat *p, pid_t tid, pid_t *out_tid,
                               bool *interrupted);

/* ---- template.c ---- */
/* The first stub, from which all others descend. Before seccomp and threads. */
MUST_CHECK int pt_template_start(struct pt_plat *p);
/* Loads the filter of stubs into the calling process, for good. Async-signal-safe. */
MUST_CHECK int pt_filter_load(uint64_t text);

/* ---- as.c and flush.c ---- */
extern const struct plat_as_ops pt_as_ops;
MUST_CHECK int pt_as_alloc(struct pt_plat *p, struct pt_as **out_as);
/* Drops what pt_as_alloc gave, process and all. */
void pt_as_put(struct plat_as *base);
/* Carries out the queue in c's stub. as->mu held. First failure, or 0; as above when c's
 * stub is gone. *stale is set when something that should be gone or not writable is still there. */
MUST_CHECK int pt_as_flush_locked(struct pt_as *as, struct pt_ctx *c, bool *stale);

/* ---- ctx.c ---- */
extern const struct plat_ctx_ops pt_ctx_ops;
/* Becomes the tracer of c's stub thread, at c's first use by its thread. */
MUST_CHECK int pt_ctx_own(struct pt_ctx *c);
/* c's stub is no good any more: the process is ended if it has not, and c with it. reaped: its end
 * has been seen with wait(2), so that the number may already be another's. */
void pt_ctx_die(struct pt_ctx *c, bool reaped);

/* ---- ends.c ---- */
/* stub_placer.long_turn */
void pt_take_ended(struct stub_placer *p, struct stub_seat *s);

/* ---- run.c ---- */
enum plat_event pt_ctx_run(struct plat_ctx *base, bool single_step, struct plat_fault *out);
void pt_ctx_interrupt(struct plat_ctx *base);

#endif
