/* Inside the signal part of sentry/kernel: queue entries, taking, masks, frames.
 * Depends on: task_priv.h.
 * Threading: "_locked": the group's sighand lock is held. The rest is said per function.
 * Ownership: entries belong to the queue they are on; a timer's entry to the timer, which the
 * queue keeps alive meanwhile. */
#ifndef RINGWALL_SENTRY_KERNEL_SIGNAL_PRIV_H
#define RINGWALL_SENTRY_KERNEL_SIGNAL_PRIV_H

#include "sentry/kernel/task_priv.h"

#define SIG_BIT(signo) (UINT64_C(1) << ((signo)-1))
#define SIG_RT_MIN 32

#define LX_SA_SIGINFO UINT64_C(0x4)
#define LX_SA_RESTORER UINT64_C(0x04000000)
#define LX_SA_ONSTACK UINT64_C(0x08000000)
#define LX_SA_RESTART UINT64_C(0x10000000)
#define LX_SA_NODEFER UINT64_C(0x40000000)
#define LX_SA_RESETHAND UINT64_C(0x80000000)

#define LX_SS_ONSTACK 1u
#define LX_SS_DISABLE 2u
#define LX_SS_AUTODISARM (1u << 31)

#define LX_SIG_DFL 0u
#define LX_SIG_IGN 1u

/* Sets of signals by default action (kernel/signal.h). */
#define SIG_SET_KERNEL_ONLY (SIG_BIT(SIGKILL) | SIG_BIT(SIGSTOP))
#define SIG_SET_STOP (SIG_BIT(SIGSTOP) | SIG_BIT(SIGTSTP) | SIG_BIT(SIGTTIN) | SIG_BIT(SIGTTOU))
#define SIG_SET_IGNORE (SIG_BIT(SIGCONT) | SIG_BIT(SIGCHLD) | SIG_BIT(SIGWINCH) | SIG_BIT(SIGURG))
#define SIG_SET_CORE                                                                               \
    (SIG_BIT(SIGQUIT) | SIG_BIT(SIGILL) | SIG_BIT(SIGTRAP) | SIG_BIT(SIGABRT) | SIG_BIT(SIGFPE) |  \
     SIG_BIT(SIGSEGV) | SIG_BIT(SIGBUS) | SIG_BIT(SIGSYS) | SIG_BIT(SIGXCPU) | SIG_BIT(SIGXFSZ))
#define SIG_SET_SYNC                                                                               \
    (SIG_BIT(SIGSEGV) | SIG_BIT(SIGBUS) | SIG_BIT(SIGILL) | SIG_BIT(SIGTRAP) | SIG_BIT(SIGFPE) |   \
     SIG_BIT(SIGSYS))

struct ptimer;

struct sig_entry {
    struct list node; /* on no list: not queued */
    struct lx_siginfo info;
    struct ptimer *timer; /* the entry is part of it; NULL: allocated */
};

/* ---- signal.c ---- */
/* To t, or to tg when t is NULL. forced: neither ignored nor shielded by being pid 1's default.
 * 0, or -EAGAIN for a real-time signal of sigqueue(3) that there is no room for. */
MUST_CHECK int sig_send_locked(struct thread_group *tg, struct task *t,
                               const struct lx_siginfo *info, bool forced);
/* Queues a timer's entry; false when the signal is ignored or the group gone. The entry must not
 * be queued; the caller has taken a reference on the timer for the queue. */
MUST_CHECK bool sig_send_entry_locked(struct thread_group *tg, struct task *t, struct sig_entry *e);
/* Takes the next signal outside blocked: own ones first. *out_timer: owned, to be given to
 * ptimer_delivered once no lock is held; else NULL. */
MUST_CHECK bool sig_dequeue_locked(struct task *t, uint64_t blocked, struct lx_siginfo *out_info,
                                   struct ptimer **out_timer);
/* What is pending for t and its group outside blocked. */
uint64_t sig_pending_locked(const struct task *t, uint64_t blocked);
/* Drops entries of the signals in set / of POSIX timers. */
void sig_flush_set_locked(struct kernel *k, struct sig_pending *p, uint64_t set);
void sig_flush_timers_locked(struct kernel *k, struct sig_pending *p);

void sig_set_blocked_locked(struct task *t, uint64_t mask);

/* ---- own.c; what guest code changes by itself may be another value at each look ---- */
/* Signals that t blocks. The sig lock held, or owner. */
uint64_t sig_blocked(const struct task *t);
/* Sets that and nothing else. */
void sig_store_blocked_locked(struct task *t, uint64_t mask);
/* t may change what it blocks without a system call, if nothing is pending. */
void own_open_locked(struct task *t);
/* Before a signal is sent to t, or to tg when t is NULL: it may not any more. */
void own_close_locked(struct thread_group *tg, struct task *t);

/* ---- signal_mask.c ---- */
/* Owner. KILL and STOP are taken out. */
void sig_set_blocked(struct task *t, uint64_t mask);

/* ---- signal_deliver.c ---- */
/* Owner: a signal that the guest's own doing has caused: if blocked or ignored it becomes default,
 * and kills pid 1 as well. */
void sig_force(struct task *t, const struct lx_siginfo *info);
/* SIGSEGV after a frame could not be written or read; fatal when it was SIGSEGV's own. */
void sig_force_segv(struct task *t, int signo);

/* ---- signal_frame.c; owner ---- */
/* Builds the frame on the guest's stack and points the registers at the handler. -EFAULT. */
MUST_CHECK int sig_frame_push(struct task *t, const struct sig_action *act,
                              const struct lx_siginfo *info);
static inline bool sig_on_altstack(const struct task_priv *p, uint64_t sp)
{
    return !(p->altstack_flags & LX_SS_AUTODISARM) && sp > p->altstack_sp &&
           sp - p->altstack_sp <= p->altstack_size;
}

/* ---- timer_posix.c ---- */
/* A timer's signal was taken: fills in the overrun count, re-arms, drops the queue's reference. No
 * lock held. */
void ptimer_delivered(struct ptimer *tm, struct lx_siginfo *info);
/* Drops a reference; any lock may be held. */
void ptimer_put(struct ptimer *tm);

#endif
