/* Inside the KVM platform: the machine, its memory, page tables, virtual processors.
 * Depends on: kvm.h, base.
 * Threading: said per field.
 * Ownership: the platform owns the machine, its memory slots and virtual processors; an address
 * space owns its page tables and file windows; a context owns its saved state. */
#ifndef RINGWALL_PLATFORM_KVM_PRIV_H
#define RINGWALL_PLATFORM_KVM_PRIV_H

#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "base/list.h"
#include "base/lock.h"
#include "base/ref.h"
#include "platform/kvm/kvm.h"
#include "platform/kvm/stub.h"
#include "platform/patch/patch.h"
#include "platform/stub/pace.h"

struct kvm_vcpu;

/* Guest-physical memory comes in slots of one size; slot n covers [(n + 1) << KVM_SLOT_SHIFT, ...).
 * A slot is never deleted: that would drop every translation of the machine. */
#define KVM_SLOT_SHIFT 26
#define KVM_SLOT_SIZE (UINT64_C(1) << KVM_SLOT_SHIFT)
#define KVM_SLOTS_MAX 32760u
/* Segment selectors as Linux has them: SYSRET and guests look at them. */
#define KVM_KERNEL_CS 0x10
#define KVM_KERNEL_SS 0x18
#define KVM_USER_SS 0x2b
#define KVM_USER_CS 0x33
#define KVM_TSS 0x40
#define KVM_EFLAGS 0x202u
/* What a program may set of RFLAGS: CF PF AF ZF SF TF DF OF RF AC ID. */
#define KVM_USER_FLAGS 0x254dd5u
#define KVM_FLAG_TF 0x100u
#define KVM_FLAG_IF 0x200u
/* Where the stub is, in every address space; the upper half is the machine's. Hosts that run guests
 * beside themselves (shadow paging) keep other parts of it for their own. */
#define KVM_STUB_VA UINT64_C(0xffff900000000000)
/* Entered by SYSCALL: from ring 0, and readable for the guest, from ring 3. */
#define KVM_SYSCALL0_VA (KVM_STUB_VA + 0x1000)
#define KVM_SYSCALL3_VA (KVM_STUB_VA + 0x2000)
#define KVM_IDT_VA (KVM_STUB_VA + 0x3000)
#define KVM_PROBE_VA (KVM_STUB_VA + 0x4000)
#define KVM_CPUS_VA (KVM_STUB_VA + 0x10000)
#define KVM_CPU_STRIDE 0x4000u
#define KVM_CPU_STACK 0x1000u /* offset of a virtual processor's stack page */
#define KVM_STACK_TOP 0x800u  /* of exceptions' stack, in it */
#define KVM_USER_END UINT64_C(0x7ffffffff000)
/* The end of the guest's half is the platform's: code that hands over, its exchange pages, and the
 * table of those pages. What follows the code is of one address space. */
#define KVM_HAND_VA (KVM_USER_END - (KVM_RUNNERS_MAX + 2) * UINT64_C(4096))
#define KVM_AREAS_VA (KVM_HAND_VA + (KVM_RUNNERS_MAX + 1) * UINT64_C(4096))
/* An exchange page that is nobody's, on the same page. */
#define KVM_NOBODY_VA (KVM_AREAS_VA + PATCH_AREAS_COUNT * UINT64_C(8))
#define KVM_USER_START UINT64_C(0x10000)
#define KVM_CPUS_MAX 64u
#define KVM_CPUS_PER_HOST_CPU 8u
#define KVM_KICK SIGUSR1

/* Page table entries: Intel SDM vol. 3, 4.5. */
#define PTE_P UINT64_C(1)
#define PTE_W UINT64_C(2)
#define PTE_U UINT64_C(4)
#define PTE_PS UINT64_C(0x80)
#define PTE_NX (UINT64_C(1) << 63)
#define PTE_ADDR UINT64_C(0x000ffffffffff000)
#define PT_ENTRIES 512u
#define KVM_LARGE (UINT64_C(2) << 20)

extern const char kvm_stub_vectors[], kvm_stub_vectors_end[], kvm_stub_return[], kvm_stub_syscall[],
    kvm_stub_syscall_end[];
extern const char kvm_hand[], kvm_hand_common[], kvm_hand_out[], kvm_hand_saved[], kvm_hand_done[],
    kvm_hand_end[], kvm_hand_call[], kvm_hand_flags[];

enum {
    KVM_VECTOR_DE = 0,
    KVM_VECTOR_DB = 1,
    KVM_VECTOR_BP = 3,
    KVM_VECTOR_OF = 4,
    KVM_VECTOR_UD = 6,
    KVM_VECTOR_NP = 11,
    KVM_VECTOR_SS = 12,
    KVM_VECTOR_GP = 13,
    KVM_VECTOR_PF = 14,
    KVM_VECTOR_MF = 16,
    KVM_VECTOR_AC = 17,
    KVM_VECTOR_XM = 19,
};

/* Where a page of guest-physical memory is in the sentry. */
struct kvm_page {
    uint64_t gpa;
    uint8_t *hva;
};

struct kvm_window;
struct kvm_ctx;
struct kvm_runner;

/* What guest and sentry hand over in, shown to one address space. Hostile, all of it, at any time:
 * what the guest writes there is what it could have called with. */
struct kvm_exchange {
    _Atomic uint32_t state; /* KVM_TURN_* */
    _Atomic uint32_t asleep;
    uint32_t spin, bases;
    uint8_t pad[80];
    uint64_t negfs, after; /* for patched sites: platform/patch/abi.h */
    uint8_t pad2[16];
    uint64_t rip, cs, flags, rsp, ss; /* as IRET takes them */
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t fs, gs;
};
_Static_assert(offsetof(struct kvm_exchange, spin) == KVM_X_SPIN, "as stub.S");
_Static_assert(offsetof(struct kvm_exchange, negfs) == PATCH_NEGFS, "as the code of sites");
_Static_assert(offsetof(struct kvm_exchange, after) == PATCH_AFTER, "as the code of sites");
_Static_assert(offsetof(struct kvm_exchange, rip) == KVM_X_FRAME, "as stub.S");
_Static_assert(offsetof(struct kvm_exchange, rax) == KVM_X_RAX, "as stub.S");
_Static_assert(offsetof(struct kvm_exchange, r8) == KVM_X_R8, "as stub.S");
_Static_assert(offsetof(struct kvm_exchange, gs) == KVM_X_GS, "as stub.S");

struct kvm_plat {
    struct plat base;
    /* immutable after create */
    int vm_fd;
    int mem_fd;
    size_t run_size; /* of a virtual processor's shared page */
    struct kvm_cpuid2 *cpuid;
    uint64_t xcr0;
    cpu_set_t host_cpus; /* that the sandbox may use */
    uint32_t mxcsr_mask;
    uint8_t *mem;       /* the memory file once more: what the machine sees, nothing else touches */
    uint64_t mem_size;  /* of it */
    bool ring3_syscall; /* SYSCALL leaves the guest in ring 3 */
    uint64_t vdso_va, vdso_gpa, vdso_size; /* of the host, in every address space; size 0: none */
    struct kvm_page kernel_pdpt;           /* the upper half of every address space */
    struct kvm_page idle_root;             /* tables with nothing but that */

    uint64_t hand_gpa; /* code that hands over, in every address space */
    uint32_t spin;     /* looks that are worth a sleep */
    struct patch_plat patch;

    struct mutex mu; /* rank LEAF: the rest of memory: slots, tables, windows */
    uint32_t slot_count;
    uint8_t **slot_hva;             /* by slot number */
    uint16_t *mem_slots;            /* slot number + 1 by chunk of the memory file, 0: none yet */
    uint64_t table_next, table_end; /* guest-physical pages never used for tables before */
    uint8_t *table_hva;             /* of table_next */
    struct list table_chunks;
    struct list window_chunks;
    struct list windows; /* kvm_window.node */

    struct mutex cpus_mu; /* rank LEAF: virtual processors lent and waited for */
    struct cond cpus_free;
    struct kvm_vcpu *cpus[KVM_CPUS_MAX];
    unsigned cpu_count, cpu_max;
    _Atomic unsigned cpus_wanted; /* threads that wait for one */

    struct mutex runners_mu; /* rank LEAF: runners are made one after the other */
    struct kvm_runner *_Atomic runners[KVM_RUNNERS_MAX];
    unsigned runner_max; /* 0: nothing is handed over */
    /* A thread that looks after them, made with the first one; runners_mu. */
    bool watched;
    pthread_t watcher;
    _Atomic uint32_t runners_in; /* how many are in the machine */
    _Atomic uint32_t watch_ends;
    _Atomic bool watch_asleep;
};

/* A virtual processor. Its state is that of the context that ran on it last, until another takes it
 * over. */
struct kvm_vcpu {
    struct kvm_plat *p;
    int fd;
    unsigned id;
    struct kvm_run *run;
    uint8_t *desc, *stack;              /* in the sentry: GDT and TSS; stacks for exceptions */
    uint64_t stack_va;                  /* in the machine */
    _Atomic bool busy;                  /* somebody runs on it or moves its state */
    struct kvm_ctx *_Atomic owner;      /* changed by who has it busy; others only look */
    _Atomic uint64_t since_ns, last_ns; /* running guest code since, or 0; when it last came out */
    _Atomic pid_t runner;               /* thread that does */
    _Atomic bool yield;                 /* somebody waits for it */
    uint64_t entry;                     /* where SYSCALL arrives; guard: busy */
    int error;                          /* of the last KVM_RUN of a runner; guard: busy */
};

/* A range of an address space that shows a host file. */
struct kvm_file_range {
    uint64_t start, end;
    struct kvm_window *window;
    uint64_t off; /* of start in the window */
};

struct kvm_zap {
    uint8_t *hva;
    uint64_t size;
};
#define KVM_ZAPS_MAX 64u

struct kvm_as {
    struct plat_as base;
    struct ref ref;
    struct mutex mu; /* rank PLATFORM: guards the rest */
    struct kvm_page root;
    struct kvm_page *tables; /* all of them, for the end */
    size_t table_count, table_capacity;
    struct kvm_file_range *files; /* in order */
    size_t file_count, file_capacity;
    /* Memory whose translations must go before the next commit ends. */
    struct kvm_zap zaps[KVM_ZAPS_MAX];
    size_t zap_count;
    struct kvm_window *dead[KVM_ZAPS_MAX]; /* ... and windows to be put then */
    size_t dead_count;
    _Atomic bool pending;                      /* written under mu */
    struct kvm_page exchange[KVM_RUNNERS_MAX]; /* hva NULL: none yet */
    struct patch_as patch;
    struct kvm_window *patch_window; /* on its set; NULL: nothing was patched yet */
};

struct kvm_ctx {
    struct plat_ctx base;
    struct kvm_as *as; /* owned reference */
    struct plat_regs regs;
    struct kvm_vcpu *_Atomic vcpu; /* where its extended state is, or NULL: in xsave */
    struct kvm_xsave *xsave;       /* owned; guard: that vcpu's busy, or none when there is none */
    _Atomic bool interrupt;
    /* Guest time of runs that have ended, start of the present one or 0, and the largest sum that
     * was ever told. */
    _Atomic uint64_t cpu_ns, run_start, cpu_told;
    /* Handing over; owner thread but for hand. */
    _Atomic uint32_t hand; /* enum kvm_hand */
    struct stub_pace pace;
    struct kvm_runner *_Atomic runner; /* of the last time */
    struct kvm_exchange *page;         /* ... and where, or NULL */
    uint64_t hand_fs, hand_gs;         /* what the guest came with */
    bool hand_slept;                   /* spinning was not enough, this turn */
    uint64_t hand_ns;                  /* ... and its guest time */
    uint64_t turn_ns, turn_end;        /* how long the last turn took, and its end */
    struct patch_ctx patch;
};

static inline struct kvm_plat *kvm_plat(struct plat *p)
{
    return container_of(p, struct kvm_plat, base);
}

static inline struct kvm_as *kvm_as(struct plat_as *as)
{
    return container_of(as, struct kvm_as, base);
}

static inline struct kvm_ctx *kvm_ctx(struct plat_ctx *c)
{
    return container_of(c, struct kvm_ctx, base);
}

/* ---- plat.c ---- */
/* Whether a host that answers as ask does is good enough: 0, or -ENOTSUP with a reason in why. ask
 * carries out an ioctl of /dev/kvm and returns its result or a negative errno. */
MUST_CHECK int kvm_check(int (*ask)(void *arg, unsigned long request, unsigned long what),
                         void *arg, char *why, size_t why_size);

/* ---- memory.c: guest-physical memory. All take p->mu. ---- */
/* Address of a page of the memory file, whose slot is made when it is not there yet. */
MUST_CHECK int kvm_mem_gpa(struct kvm_plat *p, uint64_t off, uint64_t *out_gpa);
/* Where it is in the sentry; gpa came from one of these functions. */
uint8_t *kvm_hva(struct kvm_plat *p, uint64_t gpa);
/* A zeroed page for tables or the stub whose address was never used before: what the host has
 * cached of a table is never wrong that way. */
MUST_CHECK int kvm_table_page(struct kvm_plat *p, struct kvm_page *out);
/* At the end of the platform. */
void kvm_tables_unmap(struct kvm_plat *p);
/* Gives the memory of such a page back; its address stays used up. */
void kvm_table_free(const struct kvm_page *page);
/* A new slot on size bytes of memory, KVM_SLOT_SIZE at most, that are mapped at hva for good. p->mu
 * held. */
MUST_CHECK int kvm_slot_add_locked(struct kvm_plat *p, uint8_t *hva, uint64_t size,
                                   uint32_t *out_slot);
uint64_t kvm_slot_gpa(uint32_t slot);

/* ---- window.c: host files in guest-physical memory ---- */
struct kvm_window {
    struct list node; /* in kvm_plat.windows */
    uint32_t refs;    /* guard: p->mu; the rest does not change */
    int fd;
    uint64_t off, size;
    bool private_map;
    uint64_t gpa;
    uint8_t *hva;
};
/* Of at most KVM_SLOT_SIZE; shared with whoever maps the same piece. */
MUST_CHECK int kvm_window_get(struct kvm_plat *p, int fd, uint64_t off, uint64_t size,
                              bool private_map, struct kvm_window **out);
void kvm_window_ref(struct kvm_plat *p, struct kvm_window *w);
/* The last one takes the file out of the machine. */
void kvm_window_put(struct kvm_plat *p, struct kvm_window *w);
void kvm_windows_fini(struct kvm_plat *p);

/* ---- table.c: page tables of one address space; as->mu held ---- */
void kvm_root_init(const struct kvm_plat *p, const struct kvm_page *root);
MUST_CHECK int kvm_tables_init(struct kvm_plat *p, struct kvm_as *as);
void kvm_tables_fini(struct kvm_as *as);
/* Tables for the whole range, so that kvm_table_set cannot fail; where the machine takes entries of
 * 2 MiB, none where the range gets one that points at gpa (of start). KVM_NO_GPA: 4 KiB all over.
 */
#define KVM_NO_GPA UINT64_MAX
MUST_CHECK int kvm_tables_reserve(struct kvm_as *as, uint64_t start, uint64_t end, uint64_t gpa);
/* No entry of 2 MiB crosses start or end: before the range is cleared or protected. */
MUST_CHECK int kvm_tables_cut(struct kvm_as *as, uint64_t start, uint64_t end);
/* Points [start, end) at consecutive guest-physical pages; what was there before is noted to be
 * zapped. The tables are there. */
void kvm_table_set(struct kvm_as *as, uint64_t start, uint64_t end, uint64_t gpa, unsigned access);
/* Takes out what is mapped; changes the access of what is. Holes are skipped. */
void kvm_table_clear(struct kvm_as *as, uint64_t start, uint64_t end);
void kvm_table_protect(struct kvm_as *as, uint64_t start, uint64_t end, unsigned access);
/* All that parent maps, into as, which has nothing yet. */
MUST_CHECK int kvm_tables_copy(struct kvm_as *as, struct kvm_as *parent);
/* Where a byte that the guest can read is in the sentry, or NULL. To be asked for its address only:
 * a file that became shorter faults there. */
const uint8_t *kvm_table_find_byte(struct kvm_as *as, uint64_t addr);
/* Memory of as's own at addr, where nothing is; access: the guest's. It goes with as. */
MUST_CHECK int kvm_table_own_page(struct kvm_as *as, uint64_t addr, unsigned access,
                                  struct kvm_page *out);
/* Entries of the upper half: page tables for ring 0. p->mu not held. */
MUST_CHECK int kvm_kernel_map(struct kvm_plat *p, uint64_t va, uint64_t gpa, uint64_t flags);
/* A window that is not shown any more is put when what showed it has been zapped. */
void kvm_window_bury(struct kvm_as *as, struct kvm_window *w);
/* Carries out what is noted: afterwards nothing in the machine can use the old translations. */
void kvm_zap_locked(struct kvm_as *as);

/* ---- as.c ---- */
extern const struct plat_as_ops kvm_as_ops;
MUST_CHECK int kvm_as_fork(struct kvm_as *parent, struct plat_as **out_as);
void kvm_as_put(struct plat_as *base);
void kvm_as_commit(struct kvm_as *as);
/* Copies size bytes within one page that the guest can read. False: it cannot, or the file behind
 * them has become shorter. Never faults. */
MUST_CHECK bool kvm_as_read(struct kvm_as *as, uint64_t addr, void *buf, size_t size);
/* The machine met a page that its file does not have any more: pages behind the ends of files
 * fault from now on. False when there is none. */
bool kvm_as_truncated(struct kvm_as *as);

/* The exchange page of a runner in as. */
MUST_CHECK int kvm_as_exchange(struct kvm_as *as, unsigned runner, struct kvm_exchange **out);
static inline uint64_t kvm_exchange_va(unsigned runner)
{
    return KVM_HAND_VA + (runner + 1) * UINT64_C(4096);
}
/* The range of as that shows a file with addr in it, or NULL. as->mu held. */
const struct kvm_file_range *kvm_as_file_locked(const struct kvm_as *as, uint64_t addr);

/* ---- patch.c: patched call sites; as->mu held but for init, when nobody has as yet, and fini,
 * when nobody has it any more ---- */
extern const struct patch_ops kvm_patch_ops;
MUST_CHECK int kvm_patch_init(struct kvm_plat *p, struct kvm_as *as);
void kvm_patch_fini(struct kvm_as *as);
/* as, whose tables are a copy of parent's, has its patches. */
MUST_CHECK int kvm_patch_fork(struct kvm_as *parent, struct kvm_as *as);

/* ---- vcpu.c: making one ---- */
MUST_CHECK int kvm_vcpu_new(struct kvm_plat *p, unsigned id, struct kvm_vcpu **out);
void kvm_vcpu_free(struct kvm_vcpu *v);
/* The guest's time stamp counter is the host's from now on. */
MUST_CHECK int kvm_vcpu_set_tsc(struct kvm_vcpu *v);
/* Where SYSCALL goes, by what the probe found. */
MUST_CHECK int kvm_vcpu_set_syscall(struct kvm_vcpu *v);
/* ... and that it goes there: entry is a guest address. */
MUST_CHECK int kvm_vcpu_set_entry(struct kvm_vcpu *v, uint64_t entry);
uint64_t kvm_vcpu_plain_entry(const struct kvm_plat *p);

/* ---- pool.c: lending them ---- */
/* Lends c a virtual processor with c's extended state on it: busy, till kvm_pool_leave. Waits while
 * all are in use. -ENOMEM when there is none at all. */
MUST_CHECK int kvm_pool_enter(struct kvm_ctx *c, struct kvm_vcpu **out);
void kvm_pool_leave(struct kvm_vcpu *v);
/* Saves the extended state of c, which does not run, in c->xsave. */
MUST_CHECK int kvm_pool_save(struct kvm_ctx *c);
/* c is on no virtual processor any more; what was there of its extended state is lost. */
void kvm_pool_drop(struct kvm_ctx *c);
/* Makes whatever runs on v come out soon. Any thread. */
void kvm_pool_kick(struct kvm_vcpu *v);

/* ---- hand.c: calls that are handed over, while the machine goes on ---- */
/* Who has the guest. Only this is relied on, nothing in the exchange page. */
enum kvm_hand {
    KVM_HAND_NONE,   /* nobody but c's thread */
    KVM_HAND_RUN,    /* the runner, and c's thread waits for it */
    KVM_HAND_SLEEPS, /* ... asleep */
    KVM_HAND_TAKEN,  /* the runner; c's thread has taken a call and works on it */
    KVM_HAND_STOP,   /* ... and waits for the runner to come out */
    KVM_HAND_OUT,    /* the runner has come out; c's thread is to look why */
};
enum kvm_hand_end {
    KVM_HAND_END_CALL,  /* c->regs are those of a system call */
    KVM_HAND_END_EXIT,  /* the processor *out came out, and is c's */
    KVM_HAND_END_AGAIN, /* ... before it was answered; c->regs are as before */
    KVM_HAND_END_NEVER, /* there is nobody to run it */
};
/* Runs c by a runner till something is to be told; *out is set with EXIT and AGAIN. After EXIT the
 * runner and its page are c's till it has looked why: then kvm_hand_release. */
enum kvm_hand_end kvm_hand_turn(struct kvm_ctx *c, bool single_step, struct kvm_vcpu **out);
void kvm_hand_release(struct kvm_ctx *c);
/* A runner waits with c's last call. */
static inline bool kvm_hand_holds(struct kvm_ctx *c)
{
    return atomic_load(&c->hand) != KVM_HAND_NONE;
}
/* Afterwards none does. */
void kvm_hand_stop(struct kvm_ctx *c);
/* Guest time, ns, that c's runner has spent on since the last call was taken, which is still worked
 * on: the guest has not left, but goes on beside it. Any thread. */
uint64_t kvm_hand_beside(struct kvm_ctx *c);
/* v came out in ring 3, in the code that hands over. True: c->regs are those of a call. False:
 * those that it was to go on with. */
bool kvm_hand_regs(struct kvm_ctx *c, const struct kvm_vcpu *v);
static inline bool kvm_hand_inside(uint64_t rip)
{
    return rip - KVM_HAND_VA < PAGE_SIZE;
}
MUST_CHECK int kvm_hand_init(struct kvm_plat *p, unsigned host_cpus);
void kvm_hand_fini(struct kvm_plat *p);

/* ---- ctx.c, run.c, trap.c ---- */
void kvm_run_load(struct kvm_ctx *c, struct kvm_vcpu *v, bool single_step);
void kvm_run_save(struct kvm_ctx *c, const struct kvm_vcpu *v);
/* KVM_RUN: 0 or an errno. */
int kvm_run_once(struct kvm_vcpu *v);
uint64_t kvm_run_flags(const struct kvm_ctx *c, bool single_step);
uint64_t kvm_clock(clockid_t clock);
extern const struct plat_ctx_ops kvm_ctx_ops;
/* CLOCK_MONOTONIC, ns. */
uint64_t kvm_now(void);
enum plat_event kvm_ctx_run(struct plat_ctx *base, bool single_step, struct plat_fault *out);
void kvm_ctx_interrupt(struct plat_ctx *base);
uint64_t kvm_cpu_time(struct plat_ctx *base);
/* An exception of guest code on v as the signal Linux would send for it, or as a system call.
 * c->regs are those of the guest. Without v: a protection fault before anything ran. */
enum plat_event kvm_trap(struct kvm_ctx *c, struct kvm_vcpu *v, unsigned vector, uint64_t error,
                         struct plat_fault *out);

#endif
