/* Timers of the sentry: one thread that calls functions when their time has come.
 * Depends on: base, wait.
 * Threading: every function from any thread. Functions of timers run on the service's thread, one
 * at a time, with no lock held; they must not block for long.
 * Ownership: a timer is embedded in its owner's object and borrowed by the service while it is
 * armed or its function runs. */
#ifndef RINGWALL_SENTRY_TIME_TIMER_H
#define RINGWALL_SENTRY_TIME_TIMER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/rbtree.h"
#include "sentry/wait/wait.h"

struct timer_service;
struct timer;

typedef void (*timer_fn)(struct timer *tm);

struct timer {
    struct rb_node node; /* the service's lock */
    struct timer_service *service;
    timer_fn fn;
    deadline_t at;    /* the service's lock */
    bool armed;       /* the service's lock */
    unsigned cancels; /* the service's lock: calls of timer_cancel that wait */
};

/* No thread yet: the first timer_init starts it. Owned result. */
MUST_CHECK int timer_service_new(struct timer_service **out_s);
/* Nothing is armed. Ends the thread. NULL is allowed. */
void timer_service_free(struct timer_service *s);

/* -EAGAIN when the service's thread cannot be started. */
MUST_CHECK int timer_init(struct timer *tm, struct timer_service *s, timer_fn fn);
/* Arms or re-arms, also from the timer's own function. DEADLINE_NEVER disarms. Any lock below LEAF
 * may be held. */
void timer_arm(struct timer *tm, deadline_t at);
/* Disarms without waiting: the function may be running. True when it was armed. */
bool timer_disarm(struct timer *tm);
/* Disarms and waits till the function does not run any more; what arms the timer meanwhile, such as
 * the function itself, has no effect. Then the timer's memory is the owner's again. Not from the
 * function, nor with a lock that it takes. */
void timer_cancel(struct timer *tm);

#endif
