/* IPC namespaces: life, limits, the bound on what a guest may make the sentry keep. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <time.h>

#include "base/limits.h"
#include "sentry/ipc/ipc_priv.h"
#include "sentry/vfs/vfs.h"

OBJCOUNT_DEFINE(ipc_ns);

/* Linux's defaults, and the most that sysctl takes. */
static const uint64_t ipc_defaults[IPC_LIMITS][2] = {
    [IPC_SHMMAX] = {ULONG_MAX - (1ul << 24), ULONG_MAX},
    [IPC_SHMALL] = {ULONG_MAX - (1ul << 24), ULONG_MAX},
    [IPC_SHMMNI] = {4096, IPC_SLOTS},
    [IPC_SEMMSL] = {32000, INT_MAX},
    [IPC_SEMMNS] = {1024000000, INT_MAX},
    [IPC_SEMOPM] = {500, INT_MAX},
    [IPC_SEMMNI] = {32000, IPC_SLOTS},
    [IPC_MSGMAX] = {8192, INT_MAX},
    [IPC_MSGMNB] = {16384, INT_MAX},
    [IPC_MSGMNI] = {32000, IPC_SLOTS},
    [IPC_MQ_QUEUES] = {256, INT_MAX},
    [IPC_MQ_MSGMAX] = {10, 65536},
    [IPC_MQ_SIZEMAX] = {8192, 16 << 20},
    [IPC_MQ_MSGDEFAULT] = {10, 65536},
    [IPC_MQ_SIZEDEFAULT] = {8192, 16 << 20},
};

static void pool_put(struct ipc_pool *p)
{
    if (ref_put(&p->ref))
        free(p);
}

static struct ipc_pool *pool_of(struct ipc_ns *like)
{
    if (like) {
        ref_get(&like->pool->ref);
        return like->pool;
    }
    struct ipc_pool *p = calloc(1, sizeof(*p));
    if (p)
        ref_init(&p->ref);
    return p;
}

int ipc_ns_new(struct memfile *mf, struct ipc_ns *like, struct ipc_ns **out_ns)
{
    struct ipc_ns *ns = calloc(1, sizeof(*ns));

    if (!ns)
        return -ENOMEM;
    ns->pool = pool_of(like);
    if (!ns->pool) {
        free(ns);
        return -ENOMEM;
    }
    ref_init(&ns->users);
    ref_init(&ns->ref);
    ns->mf = mf;
    for (size_t i = 0; i < IPC_KINDS; i++) {
        mutex_init(&ns->ids[i].mu, LOCK_RANK_IPC_IDS);
        ns->ids[i].last = -1;
    }
    for (size_t i = 0; i < IPC_LIMITS; i++)
        atomic_init(&ns->limits[i], ipc_defaults[i][0]);
    OBJCOUNT_INC(ipc_ns);
    *out_ns = ns;
    return 0;
}

struct ipc_ns *ipc_ns_get(struct ipc_ns *ns)
{
    ref_get(&ns->users);
    return ns;
}

struct ipc_ns *ipc_ns_hold_memory(struct ipc_ns *ns)
{
    ref_get(&ns->ref);
    return ns;
}

void ipc_ns_drop_memory(struct ipc_ns *ns)
{
    if (!ref_put(&ns->ref))
        return;
    for (size_t i = 0; i < IPC_KINDS; i++) {
        BUG_ON(ns->ids[i].used != 0);
        free(ns->ids[i].slots);
        mutex_destroy(&ns->ids[i].mu);
    }
    pool_put(ns->pool);
    OBJCOUNT_DEC(ipc_ns);
    free(ns);
}

void ipc_ns_put(struct ipc_ns *ns)
{
    if (!ns || !ref_put(&ns->users))
        return;
    for (size_t i = 0; i < IPC_KINDS; i++)
        ipc_ids_clear(ns, (enum ipc_kind)i);
    struct mount_ns *mqueue = atomic_exchange(&ns->mqueue, NULL);
    if (mqueue)
        mount_ns_put(mqueue);
    ipc_ns_drop_memory(ns);
}

int ipc_ns_mqueue(struct ipc_ns *ns, ipc_mqueue_make_fn make, struct mount_ns **out)
{
    struct mount_ns *now = atomic_load(&ns->mqueue), *fresh;

    if (!now) {
        int r = make(ns, &fresh);
        if (r)
            return r;
        /* Of two that come at once one is enough. */
        if (atomic_compare_exchange_strong(&ns->mqueue, &now, fresh))
            now = fresh;
        else
            mount_ns_put(fresh);
    }
    *out = now;
    return 0;
}

uint64_t ipc_limit_get(struct ipc_ns *ns, enum ipc_limit which)
{
    return atomic_load_explicit(&ns->limits[which], memory_order_relaxed);
}

int ipc_limit_set(struct ipc_ns *ns, enum ipc_limit which, uint64_t value)
{
    if (value > ipc_defaults[which][1])
        return -EINVAL;
    atomic_store_explicit(&ns->limits[which], value, memory_order_relaxed);
    return 0;
}

bool ipc_count_add(_Atomic uint64_t *count, uint64_t n, uint64_t max)
{
    uint64_t old = atomic_load_explicit(count, memory_order_relaxed);

    do {
        if (n > max || old > max - n)
            return false;
    } while (!atomic_compare_exchange_weak(count, &old, old + n));
    return true;
}

int ipc_charge(struct ipc_ns *ns, uint64_t bytes)
{
    return ipc_count_add(&ns->pool->bytes, bytes, LIMIT_IPC_BYTES) ? 0 : -ENOMEM;
}

void ipc_uncharge(struct ipc_ns *ns, uint64_t bytes)
{
    atomic_fetch_sub(&ns->pool->bytes, bytes);
}

int64_t ipc_now(void)
{
    return (int64_t)time(NULL);
}
