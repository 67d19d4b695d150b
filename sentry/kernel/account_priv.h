/* Inside sentry/kernel: what tasks do with their account.
 * Depends on: account.h, task_priv.h.
 * Threading: said per function. "tree": struct kernel's mu.
 * Ownership: thread_group.account is owned. */
#ifndef RINGWALL_SENTRY_KERNEL_ACCOUNT_PRIV_H
#define RINGWALL_SENTRY_KERNEL_ACCOUNT_PRIV_H

#include "sentry/kernel/account.h"
#include "sentry/kernel/task_priv.h"

struct account {
    struct ref ref;
    struct kernel *k; /* immutable */
    /* tree */
    uint64_t tasks, task_limit, refused;
    struct task_usage dead_usage; /* of processes that have been reaped */
    /* written under tree */
    _Atomic uint32_t held; /* ACCOUNT_PAUSED, ... */
    struct waitq release_wq;
    _Atomic uint64_t oom_kills;
    struct mutex oom_mu; /* rank LEAF: guards oom and its argument */
    void (*oom)(void *arg);
    void *oom_arg;
    /* immutable once a program runs */
    struct account_rule *rules; /* owned */
    size_t rule_count;
};

/* NULL allowed for all. */
/* -EAGAIN when there may be no further task. tree held. */
MUST_CHECK int account_admit_locked(struct account *a);
void account_add_locked(struct account *a, struct task *t);
void account_remove_locked(struct account *a);
/* A process that ended is forgotten, and what it used is not. tree held. */
void account_reap_locked(struct account *a, struct thread_group *tg);
/* A process of it is about to end for want of memory. No lock held. */
void account_oomed(struct account *a);
/* Owner, before it goes back to guest code: while its account is held. */
void account_hold_task(struct task *t);

#endif
