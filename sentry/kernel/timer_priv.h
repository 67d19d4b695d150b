/* Inside the timers of sentry/kernel.
 * Depends on: timer.h, signal_priv.h.
 * Threading: "TIMER": struct tg_timers.mu.
 * Ownership: a group's timers go with its last thread; a POSIX timer lives on while its signal is
 * queued. */
#ifndef RINGWALL_SENTRY_KERNEL_TIMER_PRIV_H
#define RINGWALL_SENTRY_KERNEL_TIMER_PRIV_H

#include "sentry/kernel/signal_priv.h"
#include "sentry/kernel/timer.h"
#include "sentry/time/timer.h"

#define ITIMER_COUNT 3

struct itimer {
    struct timer tm;
    struct tg_timers *tt;
    int which;
    int64_t expires, interval; /* TIMER; of its clock, expires 0: disarmed */
};

struct tg_timers {
    struct mutex mu; /* rank TIMER */
    struct thread_group *tg;
    struct itimer it[ITIMER_COUNT];
    struct ptimer **timers; /* TIMER; owned references by id */
    size_t slots;
};

/* ---- timer.c ---- */
/* The group's timers, made at first use: -ENOMEM, -EAGAIN. */
MUST_CHECK int tg_timers_use(struct thread_group *tg, struct tg_timers **out_tt);
/* First moment > now among expires + n * interval; *out_count: n. interval > 0. */
int64_t timer_forward(int64_t expires, int64_t interval, int64_t now, int64_t *out_count);
/* a + b for b >= 0, at most CLOCK_NS_MAX. */
int64_t timer_add(int64_t a, int64_t b);

/* ---- timer_cpu.c ---- */
enum cpu_kind { CPU_PROF, CPU_VIRT, CPU_SCHED };
/* What a clock id says. */
struct cpu_clock {
    enum cpu_kind kind;
    bool thread;
    struct task *task;       /* owned when thread */
    struct thread_group *tg; /* owned when not */
};
bool clock_is_cpu(int clock);
/* -EINVAL when there is no such clock or task. Owned result. */
MUST_CHECK int cpu_clock_get(struct task *t, int clock, struct cpu_clock *out);
void cpu_clock_put(struct cpu_clock *c);
/* Takes tree. */
int64_t cpu_clock_read(const struct cpu_clock *c);
/* When to look again whether a CPU clock has come to a time that is left_ns away. */
deadline_t cpu_clock_deadline(const struct kernel *k, int64_t left_ns);

/* ---- timer_itimer.c ---- */
MUST_CHECK int itimer_init(struct itimer *it, struct tg_timers *tt, int which);

/* ---- timer_limit.c ---- */
/* The last thread goes. No lock held. */
void tg_cpu_limit_exit(struct thread_group *tg);

/* ---- timer_posix.c ---- */
/* Deletes all of them. No lock held. */
void ptimers_delete(struct tg_timers *tt);

#endif
