/* System V shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2).
 * Depends on: ipc.h, mm.
 * Threading: any thread, no lock held; attach and detach on the task's own.
 * Ownership: values. */
#ifndef RINGWALL_SENTRY_IPC_SHM_H
#define RINGWALL_SENTRY_IPC_SHM_H

#include "sentry/ipc/ipc.h"
#include "sentry/mm/mm.h"

/* The id; errors of shmget(2). */
MUST_CHECK int ipc_shmget(struct ipc_ns *ns, const struct ipc_caller *c, int32_t key, uint64_t size,
                          int flags);
/* flags: SHM_RDONLY, SHM_EXEC, SHM_RND, SHM_REMAP. */
MUST_CHECK int ipc_shmat(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, uaddr_t addr,
                         int flags, const struct uaccess *ua, const struct mm_limits *lim,
                         uaddr_t *out_addr);
MUST_CHECK int ipc_shmdt(const struct ipc_caller *c, uaddr_t addr, const struct uaccess *ua);

struct ipc_shm_info {
    struct ipc_perm_info perm;
    uint64_t size, attached;
    uint64_t resident; /* bytes */
    int64_t atime, dtime, ctime;
    int32_t cpid, lpid;
};
/* The id. */
MUST_CHECK int ipc_shm_stat(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                            enum ipc_by by, struct ipc_shm_info *out);
MUST_CHECK int ipc_shm_set(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                           const struct ipc_perm_set *set);
MUST_CHECK int ipc_shm_rmid(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id);
/* SHM_LOCK, SHM_UNLOCK: kept and shown; the host decides what it swaps. */
MUST_CHECK int ipc_shm_lock(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, bool lock);
/* Pages that all segments promise. */
uint64_t ipc_shm_pages(struct ipc_ns *ns);

#endif
