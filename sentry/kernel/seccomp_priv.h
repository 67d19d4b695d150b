/* Inside sentry/kernel: filters as objects, running them, listeners.
 * Depends on: task_priv.h, seccomp.h.
 * Threading: a filter is immutable but for what its lock guards. A task's newest filter changes
 * under sig, by the task itself or by SECCOMP_FILTER_FLAG_TSYNC of another thread; the old one
 * stays alive below the new one, so the owner reads it without the lock. Ownership: a filter holds
 * the older one below it. */
#ifndef RINGWALL_SENTRY_KERNEL_SECCOMP_PRIV_H
#define RINGWALL_SENTRY_KERNEL_SECCOMP_PRIV_H

#include <linux/seccomp.h>

#include "sentry/kernel/seccomp.h"
#include "sentry/kernel/task_priv.h"

#define SECCOMP_NR_MAX 512u /* calls whose answer is kept */

/* Nothing is to be called any more. */
#define SECCOMP_MODE_DEAD_ 3

struct seccomp_notify; /* seccomp_notify.c */

struct seccomp_filter {
    struct ref ref;
    _Atomic uint32_t
        users; /* tasks and newer filters; at 0 nobody can be notified about any more */
    /* immutable */
    struct seccomp_filter *prev; /* owned, with a user; NULL: the oldest */
    bool log, wait_killable;
    uint64_t allow[SECCOMP_NR_MAX / 64]; /* calls that this and all older ones always allow */
    struct mutex mu;                     /* rank SECCOMP: guards what notify points to */
    struct seccomp_notify *notify;       /* NULL: no listener, or gone */
    struct waitq wq;                     /* poll of the listener, and its waiting */
    uint32_t count;
    struct sock_filter insns[];
};

/* ---- seccomp_bpf.c ---- */
/* -EINVAL for a program that might leave its bounds, has no end or knows more than seccomp does. */
MUST_CHECK int seccomp_bpf_check(const struct sock_filter *f, size_t count);
uint32_t seccomp_bpf_run(const struct seccomp_filter *f, const struct seccomp_data *d);
/* The program allows call nr whatever the rest of its data is. */
bool seccomp_bpf_allows(const struct seccomp_filter *f, uint32_t nr);

/* ---- seccomp.c ---- */
struct seccomp_filter *seccomp_get(struct seccomp_filter *f);
void seccomp_put(struct seccomp_filter *f);
/* Child half of clone, before it is published: the same filters and mode. */
void seccomp_fork(struct task *t, struct task *c);
/* t ends: it makes no calls any more. Owner, or nobody else knows t. */
void seccomp_task_exit(struct task *t);
/* For kernel_exec_load: no rights are asked for. t is not published. */
MUST_CHECK int seccomp_lay(struct task *t, const struct kernel_seccomp *s);
/* Before a call is made, when task_priv.sys_work says so. False: the call is not to be made, and
 * rax is what it gives. Owner. */
bool seccomp_enter(struct task *t);
/* PTRACE_SECCOMP_GET_FILTER and _METADATA. */
MUST_CHECK int64_t seccomp_show(struct task *t, struct task *o, uint64_t index, uaddr_t to);
MUST_CHECK int64_t seccomp_show_flags(struct task *t, struct task *o, uint64_t size, uaddr_t to);

/* ---- seccomp_notify.c ---- */
/* Gives f, not yet laid, a listener. Owned result. */
MUST_CHECK int seccomp_listener_new(struct seccomp_filter *f, struct file **out_file);
/* Undoes it. */
void seccomp_listener_drop(struct seccomp_filter *f);
/* Asks f's listener about the call. True: make the call. False: rax is set. Owner. */
bool seccomp_ask(struct task *t, struct seccomp_filter *f, const struct seccomp_data *d);
/* The last user has gone. */
void seccomp_unused(struct seccomp_filter *f);

#endif
