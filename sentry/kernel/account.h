/* The processes of one container: what is counted of them together, and what holds for them all.
 * Depends on: task.h.
 * Threading: any thread, no lock held, unless said.
 * Ownership: reference-counted; every process holds the account it was started in. */
#ifndef RINGWALL_SENTRY_KERNEL_ACCOUNT_H
#define RINGWALL_SENTRY_KERNEL_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/kernel/task.h"

struct account;

/* May open or make a device: what a container is allowed of those that there are. */
enum account_access { ACCOUNT_DEV_READ = 1, ACCOUNT_DEV_WRITE = 2, ACCOUNT_DEV_MKNOD = 4 };
struct account_rule {
    bool allow;
    bool block, character; /* kinds of devices it is about */
    int64_t major, minor;  /* -1: any */
    uint32_t access;       /* ACCOUNT_DEV_* */
};

#define ACCOUNT_NO_LIMIT UINT64_MAX

/* Without processes and limits; a program goes into it by kernel_exec. Owned result. */
MUST_CHECK int account_new(struct kernel *k, struct account **out_a);
struct account *account_get(struct account *a); /* NULL allowed, as below */
void account_put(struct account *a);

/* Whether t's process is one of a's. */
bool account_owns(const struct account *a, const struct task *t);
/* A signal of the sandbox's own to every live process; 0 only looks. -ESRCH: there is none. */
MUST_CHECK int account_kill(struct account *a, int signo);

/* Tasks beyond the limit are refused by clone(2) with -EAGAIN; those that are there stay. */
void account_limit_tasks(struct account *a, uint64_t limit);

/* fn is told, from some sentry thread, of each process that ends for want of memory; NULL: nobody.
 * Once this returns the earlier one is called no more. */
void account_on_oom(struct account *a, void (*fn)(void *arg), void *arg);

/* Why tasks are held back from running guest code. */
#define ACCOUNT_PAUSED 1u
#define ACCOUNT_THROTTLED 2u
/* A task that is held stops where it would go back to guest code, before any signal handler; what
 * it waits for in a call it goes on waiting for. SIGKILL ends it all the same. settle: returns once
 * no task runs guest code. */
void account_hold(struct account *a, uint32_t why, bool settle);
void account_release(struct account *a, uint32_t why);
uint32_t account_held(const struct account *a);

/* The last rule that fits decides; without any all is allowed. Before the first program; copied.
 * -ENOMEM. */
MUST_CHECK int account_set_rules(struct account *a, const struct account_rule *rules, size_t count);
/* -EPERM: t's container may not. mode: S_IFCHR or S_IFBLK; others, and NULL, pass. */
MUST_CHECK int account_may_use(const struct account *a, uint32_t mode, uint64_t rdev,
                               uint32_t access);
/* mknod(2) by t. */
MUST_CHECK int account_may_mknod(const struct task *t, uint32_t mode, uint64_t rdev);
/* Of the caller's process; NULL when no task calls. Borrowed. */
struct account *account_of_caller(const struct vfs_caller *c);

struct account_info {
    uint64_t tasks, task_limit, refused; /* refused: clone(2) calls */
    uint64_t user_ns, system_ns;         /* of all that ever ran in it */
    uint64_t oom_kills;
};
void account_info(struct account *a, struct account_info *out);

#endif
