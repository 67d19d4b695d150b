/* System V IPC: the namespace that its objects live in, and the parts they share.
 * Depends on: base, wait, cred, mem.
 * Threading: any thread. No lock is held by callers; waits are on the caller's blocker.
 * Ownership: a namespace lives while a task uses it; its objects end with the last user, but what
 * is still mapped or waited for keeps its memory till that ends. */
#ifndef RINGWALL_SENTRY_IPC_IPC_H
#define RINGWALL_SENTRY_IPC_IPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/cred/cred.h"
#include "sentry/wait/wait.h"

struct ipc_ns;
struct memfile;
struct mount_ns;

struct mm;

/* Who calls; borrowed for the call. */
struct ipc_caller {
    const struct cred *cred;
    struct blocker *blocker;
    int32_t pid;      /* of the process, as objects remember it */
    uint64_t memlock; /* RLIMIT_MEMLOCK */
    struct mm *mm;    /* whose account is charged for shared memory; borrowed, NULL: nobody's */
};

/* An empty namespace with Linux's default limits. like: one of the same sandbox, whose bound on the
 * sentry's memory is shared; NULL for the first. -ENOMEM. Owned result (a user). */
MUST_CHECK int ipc_ns_new(struct memfile *mf, struct ipc_ns *like, struct ipc_ns **out_ns);
struct ipc_ns *ipc_ns_get(struct ipc_ns *ns);
void ipc_ns_put(struct ipc_ns *ns); /* NULL: nothing */

/* For what shows a namespace but is not a user of it: its memory stays. */
struct ipc_ns *ipc_ns_hold_memory(struct ipc_ns *ns);
void ipc_ns_drop_memory(struct ipc_ns *ns);

/* Memory of the sentry for what a guest keeps in a namespace: -ENOMEM beyond LIMIT_IPC_BYTES. */
MUST_CHECK int ipc_charge(struct ipc_ns *ns, uint64_t bytes);
void ipc_uncharge(struct ipc_ns *ns, uint64_t bytes);

/* Where the namespace's POSIX message queues have their names: made by make at first use, borrowed
 * while the namespace has users. make's errors. */
typedef int (*ipc_mqueue_make_fn)(struct ipc_ns *ns, struct mount_ns **out);
MUST_CHECK int ipc_ns_mqueue(struct ipc_ns *ns, ipc_mqueue_make_fn make, struct mount_ns **out);

enum ipc_kind { IPC_KIND_SHM, IPC_KIND_SEM, IPC_KIND_MSG, IPC_KINDS };

/* What every object shows of itself. */
struct ipc_perm_info {
    int32_t id, key;
    uint32_t uid, gid, cuid, cgid, mode, seq;
};

/* IPC_SET: the new owner and permission bits. */
struct ipc_perm_set {
    uint32_t uid, gid, mode;
};

/* How a *ctl call names an object: by id; by slot, with or without the right to read it. */
enum ipc_by { IPC_BY_ID, IPC_BY_SLOT, IPC_BY_SLOT_ANY };

/* The highest slot in use, 0 when there is none (also when it is slot 0). */
int ipc_max_slot(struct ipc_ns *ns, enum ipc_kind kind);
/* Objects of a kind. */
uint32_t ipc_count(struct ipc_ns *ns, enum ipc_kind kind);

/* The namespace's limits (sysctl kernel.shmmax and so on, fs.mqueue.*). */
enum ipc_limit {
    IPC_SHMMAX,
    IPC_SHMALL,
    IPC_SHMMNI,
    IPC_SEMMSL,
    IPC_SEMMNS,
    IPC_SEMOPM,
    IPC_SEMMNI,
    IPC_MSGMAX,
    IPC_MSGMNB,
    IPC_MSGMNI,
    IPC_MQ_QUEUES,
    IPC_MQ_MSGMAX,
    IPC_MQ_SIZEMAX,
    IPC_MQ_MSGDEFAULT,
    IPC_MQ_SIZEDEFAULT,
    IPC_LIMITS,
};
uint64_t ipc_limit_get(struct ipc_ns *ns, enum ipc_limit which);
/* -EINVAL beyond what Linux takes. */
MUST_CHECK int ipc_limit_set(struct ipc_ns *ns, enum ipc_limit which, uint64_t value);

#endif
