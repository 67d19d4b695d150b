/* What the code in the stubs and the sentry agree on.
 * Depends on: platform/patch/abi.h; also read by the assembler.
 * Threading: constants.
 * Ownership: none. */
#ifndef RINGWALL_PLATFORM_SYSTRAP_STUB_H
#define RINGWALL_PLATFORM_SYSTRAP_STUB_H

#include "platform/patch/abi.h"

/* ---- the operations page of a process: the sentry's to write, read-only there ---- */
#define ST_OPS_CMD 0    /* number of the batch to be done; a futex */
#define ST_OPS_DONE 4   /* number of the last one done; a futex, written through the descriptor */
#define ST_OPS_COUNT 8  /* calls in the batch */
#define ST_OPS_VALUE 12 /* what the one that failed, or cloned, gave */
#define ST_OPS_LEFT 16  /* calls that were not made, the failed one among them */
#define ST_OPS_FIRST 64
#define ST_OP_SIZE 64
#define ST_OP_NR 0
#define ST_OP_ARGS 8
#define ST_OPS_MAX 30
/* The other half of the page, also the sentry's to write: by a hash of its FS base, the area of the
 * thread that has that base, or the page of data. */
#define ST_OPS_AREAS 2048

/* ---- the area of a thread: shared with the sentry, and anybody's in the process to write ---- */
#define ST_AREA_SIZE 65536
#define ST_TURN 0   /* whose it is; a futex */
#define ST_SLEEPS 4 /* the stub thread sleeps, or is about to */
#define ST_WAITED 8 /* the sentry's does */
#define ST_KICK 12  /* the stub is not to enter guest code */
#define ST_COMMAND 16
#define ST_KIND 20
#define ST_SIG 24
#define ST_SPIN 28 /* looks at turn before sleeping */
#define ST_INFO 32 /* siginfo and ucontext of the signal frame */
#define ST_UC 40
#define ST_FS 48 /* bases, out and in */
#define ST_GS 56
#define ST_XSTATE 64 /* extended state to load, or 0; where to save it */
#define ST_STACK 72  /* stack_t */
/* PATCH_NEGFS and PATCH_AFTER are between them. */
#define ST_YIELDS 112 /* times to let others run before sleeping */
/* Calls of rt_sigaction(2) that came by a signal, and where the last one was made. */
#define ST_SIGACT_CALLS 116
#define ST_SIGACT_RIP 120
#define ST_TSC 128 /* PR_TSC_* */
#define ST_PR_SET_TSC 26
/* struct plat_own, and the mask before the call that is being answered. */
#define ST_SIGMASK 136
#define ST_ROBUST 144
#define ST_SIGMASK_OPEN 152
#define ST_ROBUST_SET 156
#define ST_SIGMASK_WAS 160
/* Calls of rt_sigprocmask(2) that came by a signal, of which one in so many goes to the sentry; the
 * call that is being answered. */
#define ST_SIGMASK_CALLS 168
#define ST_SIGMASK_COUNTED 16
#define ST_QUICK_NR 172
#define ST_ROBUST_SIZE 24
#define ST_ANSWERS 2048 /* by number of the call, with ST_ANSWER_*; or 0 */
#define ST_ANSWERS_COUNT 256
#define ST_ANSWER_THERE 32 /* bit: the low half is the answer */
#define ST_ANSWER_YIELD 33 /* bit: it is what sched_yield(2) gives */
#define ST_ANSWER_ERRNO 34 /* bit: the answer is negative */
/* bits, without ST_ANSWER_THERE: calls that change struct plat_own */
#define ST_ANSWER_SIGMASK 35
#define ST_ANSWER_ROBUST 36
/* rt_sigaction(2) as far as it is answered without the sentry: signals, bit n for n + 1, that may
 * be read as all zeros, that may be set to the default, that were set; and what they were set to.
 */
#define ST_SIGACT_ZERO 896
#define ST_SIGACT_PLAIN 904
#define ST_SIGACT_DONE 912
#define ST_SIGACT_SET 1024 /* restorer, flags; by signal */
#define ST_SIGACT_RESTORER 0x04000000
#define ST_REGS 32768 /* registers to load, in the order of struct plat_regs */
#define ST_XSAVE 4096 /* extended state that the sentry gives or asks for */

#define ST_TURN_SENTRY 0
#define ST_TURN_STUB 1

#define ST_COMMAND_RUN 0
#define ST_COMMAND_SAVE 1 /* extended state into ST_XSAVE */
#define ST_COMMAND_EXIT 2
#define ST_COMMAND_TSC 3 /* ST_TSC is to hold for guest code */

#define ST_KIND_NONE 0   /* as the sentry leaves it: the thread has ended */
#define ST_KIND_SIGNAL 1 /* a signal came; the frame holds everything */
#define ST_KIND_EARLY 2  /* stopped before guest code was entered: nothing has changed */
#define ST_KIND_SAVED 3
#define ST_KIND_CALL 4 /* a call from a patched site: registers are where they are loaded from */

/* ---- the page of data behind the code, read-only ---- */
#define ST_DATA_BYTES 0   /* 0 to 255 */
#define ST_DATA_MASK 256  /* sigset_t of the interrupting signal */
#define ST_DATA_FPROG 272 /* the filter of threads that run guest code */

#define ST_SIGNAL 10 /* SIGUSR1 */

/* Offsets in struct plat_regs. */
#define ST_R_RAX 80
#define ST_R_EFLAGS 144
#define ST_R_RSP 152

/* Offsets in the host's ucontext, in words the assembler knows. */
#define ST_UC_GREGS 40
#define ST_UC_RIP (ST_UC_GREGS + 8 * 16)
#define ST_UC_EFLAGS (ST_UC_GREGS + 8 * 17)
#define ST_TRAP_FLAG 0x100
#define ST_UC_R10 (ST_UC_GREGS + 8 * 2)
#define ST_UC_RDI (ST_UC_GREGS + 8 * 8)
#define ST_UC_RSI (ST_UC_GREGS + 8 * 9)
#define ST_UC_RDX (ST_UC_GREGS + 8 * 12)
#define ST_UC_RAX (ST_UC_GREGS + 8 * 13)
#define ST_UC_FPSTATE (ST_UC_GREGS + 8 * 23)

#endif
