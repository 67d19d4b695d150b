/* What the calls of System V IPC share.
 * Depends on: sentry/ipc, sentry/kernel.
 * Threading: the task's own thread.
 * Ownership: values. */
#ifndef RINGWALL_SYSCALLS_SYS_IPC_H
#define RINGWALL_SYSCALLS_SYS_IPC_H

#include <linux/ipc.h>
#include <linux/types.h>
/* struct ipc64_perm; of the old ones only the names are known. */
#include <asm/ipcbuf.h>

#include "sentry/ipc/ipc.h"
#include "sentry/kernel/process.h"

static inline void ipc_perm_encode(const struct ipc_perm_info *p, struct ipc64_perm *out)
{
    out->key = p->key;
    out->uid = p->uid;
    out->gid = p->gid;
    out->cuid = p->cuid;
    out->cgid = p->cgid;
    out->mode = (__kernel_mode_t)p->mode;
    out->seq = (unsigned short)p->seq;
}

static inline struct ipc_perm_set ipc_perm_decode(const struct ipc64_perm *p)
{
    return (struct ipc_perm_set){.uid = p->uid, .gid = p->gid, .mode = p->mode};
}

#endif
