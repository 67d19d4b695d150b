/* System V message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).
 * Depends on: ipc.h.
 * Threading: any thread, no lock held.
 * Ownership: a message passes from the sender to the queue to the receiver, who frees it. */
#ifndef RINGWALL_SENTRY_IPC_MSG_H
#define RINGWALL_SENTRY_IPC_MSG_H

#include "base/list.h"
#include "sentry/ipc/ipc.h"

struct ipc_msg {
    struct list node;
    struct ipc_ns *ns; /* whose memory it is charged to; outlives the message */
    int64_t type;
    uint64_t size;
    uint8_t text[];
};

/* Room for a text of size bytes, charged to ns, which the caller uses. -ENOMEM. Owned result. */
MUST_CHECK int ipc_msg_new(struct ipc_ns *ns, int64_t type, uint64_t size, struct ipc_msg **out);
void ipc_msg_put(struct ipc_msg *m);

MUST_CHECK int ipc_msgget(struct ipc_ns *ns, const struct ipc_caller *c, int32_t key, int flags);
/* Takes m on success. -EAGAIN with IPC_NOWAIT; -ERESTARTNOHAND. */
MUST_CHECK int ipc_msgsnd(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                          struct ipc_msg *m, int flags);
/* The message (a copy with MSG_COPY), owned. -E2BIG, -ENOMSG, -EIDRM, -ERESTARTNOHAND. */
MUST_CHECK int ipc_msgrcv(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, uint64_t max,
                          int64_t type, int flags, struct ipc_msg **out);

struct ipc_msg_info {
    struct ipc_perm_info perm;
    int64_t stime, rtime, ctime;
    uint64_t bytes, count, max_bytes;
    int32_t lspid, lrpid;
};
/* The id. */
MUST_CHECK int ipc_msg_stat(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                            enum ipc_by by, struct ipc_msg_info *out);
MUST_CHECK int ipc_msg_set(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                           const struct ipc_perm_set *set, uint64_t max_bytes);
MUST_CHECK int ipc_msg_rmid(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id);
/* Messages and bytes in all queues. */
void ipc_msg_totals(struct ipc_ns *ns, uint64_t *out_count, uint64_t *out_bytes);

#endif
