/* Inside the systrap platform: stub processes, their threads, contexts.
 * Depends on: systrap.h, platform/stub, base.
 * Threading: said per field; "owner" is the sentry thread that runs the context.
 * Ownership: an address space owns its stub process with all its threads; a context borrows one. */
#ifndef RINGWALL_PLATFORM_SYSTRAP_PRIV_H
#define RINGWALL_PLATFORM_SYSTRAP_PRIV_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "base/idalloc.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/ref.h"
#include "platform/patch/patch.h"
#include "platform/stub/change.h"
#include "platform/stub/host.h"
#include "platform/stub/pace.h"
#include "platform/stub/queue.h"
#include "platform/stub/seat.h"
#include "platform/systrap/stub.h"
#include "platform/systrap/systrap.h"

/* Address spaces and threads at a time; threads of one address space. */
#define ST_SLOTS 65536
#define ST_AREAS 65536
#define ST_THREADS 16384
#define ST_PARKED_MAX 16
/* What fits an area twice, with a signal frame around it. */
#define ST_XSTATE_MAX 20480
/* Processes whose end was seen before their number was known. */
#define ST_STRAYS 64
/* Number of the last batch, when the process has ended. */
#define ST_DEAD UINT32_MAX
/* Flags that user code may have: what sigreturn(2) takes. */
#define ST_USER_EFLAGS UINT64_C(0x254dd5)
#define ST_PATIENCE_NS (UINT64_C(60) * 1000 * 1000 * 1000)

/* Siblings of the one that clones: the sentry is the parent of every stub. The descriptor table is
 * the sentry's own, so that host files can be mapped. No signal says that a stub ended. */
#define ST_PROCESS_FLAGS (CLONE_PARENT | CLONE_FILES | CLONE_FS)
/* The end of a thread gives its turn to the sentry. */
#define ST_THREAD_FLAGS                                                                            \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |            \
     CLONE_CHILD_CLEARTID)

_Static_assert(ST_SIGNAL == SIGUSR1, "the assembler knows the number");

extern const char systrap_text[], systrap_text_end[], systrap_control[], systrap_handler[],
    systrap_iret[], systrap_call[];

/* One operations page, as the sentry sees it. done, value and left are written by the control
 * thread through the descriptor, and by nobody else. */
struct st_ops {
    _Atomic uint32_t cmd, done;
    uint32_t count;
    _Atomic uint32_t value, left;
    uint8_t pad[ST_OPS_FIRST - 20];
    struct stub_op ops[ST_OPS_MAX];
    uint8_t rest[ST_OPS_AREAS - ST_OPS_FIRST - ST_OPS_MAX * ST_OP_SIZE];
    _Atomic uint64_t areas[PATCH_AREAS_COUNT];
};
_Static_assert(sizeof(struct st_ops) == 4096, "a page");
_Static_assert(offsetof(struct st_ops, areas) == ST_OPS_AREAS, "as stub.S");
_Static_assert(offsetof(struct st_ops, done) == ST_OPS_DONE, "as stub.S");
_Static_assert(offsetof(struct st_ops, value) == ST_OPS_VALUE, "as stub.S");
_Static_assert(offsetof(struct st_ops, left) == ST_OPS_LEFT, "as stub.S");

/* The head of an area, as the sentry sees it. Hostile, all of it, at any time. */
struct st_shared {
    _Atomic uint32_t turn, sleeps, waited, kick;
    uint32_t command, kind, sig, spin;
    uint64_t info, uc;
    uint64_t fs, gs;
    uint64_t xstate;
    stack_t stack;
    uint64_t negfs, after;
    uint32_t yields;
    uint32_t sigact_calls;
    uint64_t sigact_rip;
    uint32_t tsc;
    uint32_t pad_own;
    struct plat_own own;
    uint64_t sigmask_was;
    uint32_t sigmask_calls, quick_nr;
    uint8_t pad[ST_ANSWERS - ST_QUICK_NR - 4];
    _Atomic uint64_t answers[ST_ANSWERS_COUNT];
};
_Static_assert(offsetof(struct st_shared, negfs) == PATCH_NEGFS, "as stub.S");
_Static_assert(offsetof(struct st_shared, after) == PATCH_AFTER, "as stub.S");
_Static_assert(offsetof(struct st_shared, yields) == ST_YIELDS, "as stub.S");
_Static_assert(offsetof(struct st_shared, sigact_calls) == ST_SIGACT_CALLS, "as stub.S");
_Static_assert(offsetof(struct st_shared, sigact_rip) == ST_SIGACT_RIP, "as stub.S");
_Static_assert(offsetof(struct st_shared, tsc) == ST_TSC, "as stub.S");
_Static_assert(offsetof(struct st_shared, own.sigmask) == ST_SIGMASK, "as stub.S");
_Static_assert(offsetof(struct st_shared, own.robust_list) == ST_ROBUST, "as stub.S");
_Static_assert(offsetof(struct st_shared, own.sigmask_open) == ST_SIGMASK_OPEN, "as stub.S");
_Static_assert(offsetof(struct st_shared, own.robust_set) == ST_ROBUST_SET, "as stub.S");
_Static_assert(offsetof(struct st_shared, sigmask_was) == ST_SIGMASK_WAS, "as stub.S");
_Static_assert(offsetof(struct st_shared, sigmask_calls) == ST_SIGMASK_CALLS, "as stub.S");
_Static_assert(offsetof(struct st_shared, quick_nr) == ST_QUICK_NR, "as stub.S");
_Static_assert(sizeof(struct st_shared) == ST_XSAVE, "as stub.S");
_Static_assert(offsetof(struct st_shared, info) == ST_INFO, "as stub.S");
_Static_assert(offsetof(struct st_shared, xstate) == ST_XSTATE, "as stub.S");
_Static_assert(offsetof(struct st_shared, stack) == ST_STACK, "as stub.S");

struct st_plat {
    struct plat base;
    int ops_fd, areas_fd;   /* memory files: operations pages, areas */
    struct st_ops *ops_mem; /* all of them, in the sentry */
    char *areas_mem;
    /* In every stub: where areas are, the code page, the data page behind it, the operations page,
     * and the end of what is ours; the host's vDSO lies before it, if moved. */
    uint64_t areas, text, ops, end;
    bool vdso_moved;
    uint32_t keys;  /* where protection keys are in extended state; 0: the host uses none */
    int patch_prot; /* of patched pages */
    struct patch_plat patch;
    struct st_as *template;
    struct stub_placer placer;
    uint32_t spin;        /* looks that are worth a sleep */
    uint64_t patience_ns; /* an interrupt that is not answered for so long ends the process */
    pthread_t reaper;
    bool reaping;
    struct mutex mu; /* rank LEAF: the rest */
    struct idalloc slots, area_ids;
    struct list processes; /* st_as.process_node, till their end has been seen */
    pid_t strays[ST_STRAYS];
    size_t stray_next;
};

struct st_thread {
    struct list node, all; /* guard: st_as.mu: in parked or spare; in threads */
    pid_t tid;
    uint32_t area;  /* in the file of areas */
    uint32_t index; /* in the process */
};

struct st_as {
    struct plat_as base;
    struct ref ref;  /* users; the last one ends the process */
    struct ref life; /* the users together, and the process till its end was seen */
    pid_t pid;       /* immutable once the process is there */
    uint32_t slot;
    struct list process_node; /* guard: st_plat.mu */
    _Atomic bool gone;        /* the process has been killed, or its end was seen */
    _Atomic bool has_changes; /* written under mu */
    bool lost;                /* a process or thread may hold slot and areas without our knowing */
    struct mutex mu;          /* rank PLATFORM: guards the rest */
    int cpu;                  /* where the control thread is bound */
    struct stub_queue queue;
    struct list ctxs;                   /* st_ctx.node */
    struct list threads, parked, spare; /* spare: told to end, or never begun */
    size_t parked_count;
    uint32_t thread_count; /* indices ever used */
    struct patch_as patch;
};

/* pace.c; owner */
struct st_pace {
    struct stub_pace split; /* split: on two CPUs, st_ctx.spin says how long to look */
    /* On one CPU: whether who waits sleeps at once, or yields first; see pace_wait. */
    bool sleeps;
    unsigned wait_turns, wait_window;
    uint64_t wait_since, wait_sum_ns, wait_yields_ns;
};

struct st_ctx {
    struct plat_ctx base;
    struct st_as *as; /* owned reference; changed by rebind with both locks free */
    struct list node; /* guard: as->mu */
    /* owner */
    struct st_thread *thread;
    struct st_shared *shared; /* head of the thread's area */
    bool dead;
    uint32_t tsc_due; /* PR_TSC_* that the stub thread has still to set, or 0 */
    uint32_t xstate;  /* where in the area the guest's extended state is; 0: in the registers */
    struct plat_regs regs;
    struct stub_seat seat;
    struct st_pace pace;
    struct patch_ctx patch;
    uint32_t spin;         /* looks at turn before sleeping; 0: the two share a CPU */
    uint64_t sigact_plain; /* as offered */
    uint32_t sigact_look;  /* after so many such calls, at the place where they are made */
    /* any thread */
    _Atomic bool interrupt;
    _Atomic uint64_t interrupt_ns;    /* since when it waits for an answer, or 0 */
    _Atomic(struct st_shared *) area; /* shared, for who interrupts */
    _Atomic uint64_t target;          /* process and thread number for tgkill(2): pid << 32 | tid */
};

static inline struct st_plat *st_plat(struct plat *p)
{
    return container_of(p, struct st_plat, base);
}

static inline struct st_as *st_as(struct plat_as *as)
{
    return container_of(as, struct st_as, base);
}

static inline struct st_ctx *st_ctx(struct plat_ctx *c)
{
    return container_of(c, struct st_ctx, base);
}

/* Address in a stub of a label of stub.S. */
static inline uint64_t st_text_addr(const struct st_plat *p, const char *label)
{
    return p->text + (uint64_t)(label - systrap_text);
}

static inline struct st_ops *st_ops(const struct st_as *as)
{
    return st_plat(as->base.plat)->ops_mem + as->slot;
}

/* Address in its process of a thread's area, and the same in the sentry. */
static inline uint64_t st_area_addr(const struct st_plat *p, const struct st_thread *t)
{
    return p->areas + (uint64_t)t->index * ST_AREA_SIZE;
}

static inline struct st_shared *st_area(const struct st_plat *p, const struct st_thread *t)
{
    return (void *)(p->areas_mem + (size_t)t->area * ST_AREA_SIZE);
}

/* ---- futex.c: words shared with stubs ---- */
/* Sleeps while *word is value, or till woken, or for timeout_ns (UINT64_MAX: for ever). */
void st_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns);
void st_futex_wake(_Atomic uint32_t *word);

/* ---- template.c and filter.c ---- */
/* The first stub, from which all others descend. Before seccomp and threads. */
MUST_CHECK int st_template_start(struct st_plat *p);
/* Loads the filter of stubs into the calling process, for good. Async-signal-safe. */
MUST_CHECK int st_filter_load(const struct st_plat *p);
/* Writes the page of data. */
void st_data_fill(const struct st_plat *p, void *page);

/* ---- process.c ---- */
/* An address space without a process: its operations page is all zero. */
MUST_CHECK int st_as_alloc(struct st_plat *p, struct st_as **out_as);
void st_as_put(struct plat_as *base);
/* The process of as is there. */
void st_process_known(struct st_as *as, pid_t pid);
/* Ends the process of as, once. */
void st_process_kill(struct st_as *as);
/* Waits for ends of processes, till there is none left. */
MUST_CHECK int st_reaper_start(struct st_plat *p);

/* ---- patch.c, answers.c ---- */
extern const struct patch_ops st_patch_ops;
void st_answers(struct plat_ctx *base, const struct plat_answer *answers, size_t count);
struct plat_own *st_own(struct plat_ctx *base);
/* Nothing of the area's last owner is left in it. */
void st_own_begin(struct st_ctx *c);
void st_drop_answers(struct plat_ctx *base);

/* ---- control.c: calls made by control threads; as->mu held ---- */
/* Carries out ops[0..count) of the operations page: what was left undone, the failed one among it;
 * *out_value is what that gave, or a clone. -ESRCH when the process is gone. */
MUST_CHECK int st_batch_locked(struct st_as *as, size_t count, int32_t *out_value);
/* as gets a process that begins as a copy of from's, whose changes are carried out first, with one
 * thread, parked. Takes the locks itself. */
MUST_CHECK int st_clone_process(struct st_as *from, struct st_as *as);
/* A thread that waits for its first turn: parked before, or new. */
MUST_CHECK int st_thread_take_locked(struct st_as *as, struct st_thread **out_t);
/* One that is waiting and not needed; told to end if there are enough, or it is not to be used
 * again.
 */
void st_thread_give_locked(struct st_as *as, struct st_thread *t, bool again);
/* Makes the mappings what they should be. First failure, or 0; *stale is set when something that
 * should be gone or not writable is still there. */
MUST_CHECK int st_flush_locked(struct st_as *as, bool *stale);

/* ---- as.c ---- */
extern const struct plat_as_ops st_as_ops;

/* ---- ctx.c ---- */
extern const struct plat_ctx_ops st_ctx_ops;
/* c's stub is no good any more: the process is ended if it has not, and c with it. */
void st_ctx_die(struct st_ctx *c);

/* ---- run.c ---- */
enum plat_event st_ctx_run(struct plat_ctx *base, bool single_step, struct plat_fault *out);
void st_ctx_interrupt(struct plat_ctx *base);
/* Gives the turn to the stub, which has a command, and waits till it is ours again. False: dead.
 * *out_slept: not while spinning. */
bool st_hand_over(struct st_ctx *c, bool *out_slept);
/* stub_placer.long_turn */
void st_long_turn(struct stub_placer *p, struct stub_seat *s);

/* ---- pace.c ---- */
/* Owner, after each turn; slept: the sentry's thread did. */
void st_pace_turn(struct st_ctx *c, uint64_t turn_ns, bool slept, uint64_t now);
/* The two share a CPU again. Owner. */
void st_pace_join(struct st_ctx *c);

/* ---- sigaction.c; owner ---- */
/* c has a thread of another: nothing is offered, nothing was called. */
void st_sigactions_begin(struct st_ctx *c);
void st_sigactions_offer(struct plat_ctx *base, uint64_t zero, uint64_t plain);
uint64_t st_sigactions_taken(struct plat_ctx *base, struct plat_sigaction set[64]);
/* A call came by a signal: if many of these did, their site is patched. */
void st_sigactions_look(struct st_ctx *c);

/* ---- xstate.c ---- */
int64_t st_xstate_get(struct plat_ctx *base, void *buf, size_t size);
int st_xstate_set(struct plat_ctx *base, const void *buf, size_t size);
/* to starts with from's extended state, or with none. Owner of from. */
MUST_CHECK int st_xstate_copy(struct st_ctx *from, struct st_ctx *to);
void st_xstate_reset(struct st_ctx *c);
/* st_plat.keys. */
uint32_t st_xstate_keys(void);

#endif
