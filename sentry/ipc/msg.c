/* System V message queues (ipc/msg.c). */
#include "sentry/ipc/msg.h"

#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/msg.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/errno_internal.h"
#include "sentry/ipc/ipc_priv.h"

OBJCOUNT_DEFINE(msg_queue);
OBJCOUNT_DEFINE(ipc_msg);

struct msg_queue {
    struct ipc_object o;
    /* guarded by o.mu */
    struct list msgs;
    uint64_t bytes, count, max_bytes;
    int64_t stime, rtime, ctime;
    int32_t lspid, lrpid;
    struct waitq senders, receivers;
};

static struct msg_queue *msg_queue_of(struct ipc_object *o)
{
    return container_of(o, struct msg_queue, o);
}

/* ---- messages ---- */

int ipc_msg_new(struct ipc_ns *ns, int64_t type, uint64_t size, struct ipc_msg **out)
{
    const uint64_t total = sizeof(struct ipc_msg) + size;
    int r = ipc_charge(ns, total);

    if (r)
        return r;
    struct ipc_msg *m = malloc(total);
    if (!m) {
        ipc_uncharge(ns, total);
        return -ENOMEM;
    }
    list_init(&m->node);
    m->ns = ns;
    m->type = type;
    m->size = size;
    OBJCOUNT_INC(ipc_msg);
    *out = m;
    return 0;
}

void ipc_msg_put(struct ipc_msg *m)
{
    ipc_uncharge(m->ns, sizeof(*m) + m->size);
    OBJCOUNT_DEC(ipc_msg);
    free(m);
}

/* ---- life ---- */

static int msg_make(struct ipc_ns *ns, const struct ipc_caller *c, const struct ipc_get *g,
                    struct ipc_object **out)
{
    int r = ipc_charge(ns, sizeof(struct msg_queue));

    if (r)
        return r;
    struct msg_queue *q = calloc(1, sizeof(*q));
    if (!q) {
        ipc_uncharge(ns, sizeof(*q));
        return -ENOMEM;
    }
    ipc_object_init(&q->o, ns, IPC_KIND_MSG, c, g);
    list_init(&q->msgs);
    waitq_init(&q->senders);
    waitq_init(&q->receivers);
    q->max_bytes = ipc_limit_get(ns, IPC_MSGMNB);
    q->ctime = ipc_now();
    OBJCOUNT_INC(msg_queue);
    *out = &q->o;
    return 0;
}

void ipc_msg_free(struct ipc_object *o)
{
    struct msg_queue *q = msg_queue_of(o);

    while (!list_empty(&q->msgs)) {
        struct ipc_msg *m = list_first_entry(&q->msgs, struct ipc_msg, node);
        list_del(&m->node);
        ipc_msg_put(m);
    }
    atomic_fetch_sub(&o->ns->msg_count, q->count);
    atomic_fetch_sub(&o->ns->msg_bytes, q->bytes);
    waitq_fini(&q->senders);
    waitq_fini(&q->receivers);
    ipc_uncharge(o->ns, sizeof(*q));
    ipc_object_fini(o);
    OBJCOUNT_DEC(msg_queue);
    free(q);
}

void ipc_msg_remove(struct ipc_object *o)
{
    struct msg_queue *q = msg_queue_of(o);

    if (!ipc_remove(o))
        return;
    mutex_lock(&o->mu);
    atomic_store(&o->gone, true);
    (void)waitq_wake(&q->senders, 0);
    (void)waitq_wake(&q->receivers, 0);
    mutex_unlock(&o->mu);
    ipc_object_put(o);
}

int ipc_msgget(struct ipc_ns *ns, const struct ipc_caller *c, int32_t key, int flags)
{
    const struct ipc_get g = {
        .key = key, .flags = flags, .make = msg_make, .max = ipc_limit_get(ns, IPC_MSGMNI)};

    return ipc_get(ns, c, IPC_KIND_MSG, &g);
}

/* ---- sending ---- */

static int msg_put_locked(struct msg_queue *q, const struct ipc_caller *c, struct ipc_msg *m)
{
    if (atomic_load(&q->o.gone))
        return -EIDRM;
    int r = ipc_check(&q->o, c, IPC_WRITE);
    if (r)
        return r;
    if (m->size > q->max_bytes || q->bytes > q->max_bytes - m->size || q->count >= q->max_bytes)
        return -EAGAIN;
    list_add_tail(&m->node, &q->msgs);
    q->bytes += m->size;
    q->count++;
    atomic_fetch_add(&q->o.ns->msg_count, 1);
    atomic_fetch_add(&q->o.ns->msg_bytes, m->size);
    q->lspid = c->pid;
    q->stime = ipc_now();
    (void)waitq_wake(&q->receivers, 0);
    return 0;
}

static int msg_send_once(struct msg_queue *q, const struct ipc_caller *c, struct ipc_msg *m)
{
    mutex_lock(&q->o.mu);
    int r = msg_put_locked(q, c, m);
    mutex_unlock(&q->o.mu);
    return r;
}

int ipc_msgsnd(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, struct ipc_msg *m,
               int flags)
{
    struct ipc_object *o;
    int r = ipc_find(ns, IPC_KIND_MSG, id, IPC_BY_ID, &o), wait;

    if (r)
        return r;
    struct msg_queue *q = msg_queue_of(o);
    r = msg_send_once(q, c, m);
    if (r == -EAGAIN && !(flags & IPC_NOWAIT)) {
        WAIT_EVENT(&q->senders, c->blocker, 0, DEADLINE_NEVER,
                   (r = msg_send_once(q, c, m)) != -EAGAIN, wait);
        if (r == -EAGAIN && wait)
            r = -ERESTARTNOHAND;
    }
    ipc_object_put(o);
    return r;
}

/* ---- receiving ---- */

struct msg_want {
    uint64_t max;
    int64_t type;
    int flags;
};

/* found: what was found before, for the lowest type. */
static bool msg_matches(const struct ipc_msg *m, const struct msg_want *w,
                        const struct ipc_msg *found)
{
    if (w->type == 0)
        return true;
    if (w->type > 0)
        return (m->type == w->type) != ((w->flags & MSG_EXCEPT) != 0);
    return m->type <= (w->type == INT64_MIN ? INT64_MAX : -w->type) &&
           (!found || m->type < found->type);
}

static struct ipc_msg *msg_at_locked(struct msg_queue *q, int64_t index)
{
    struct ipc_msg *m;
    int64_t at = 0;

    list_for_each_entry (m, &q->msgs, node)
        if (at++ == index)
            return m;
    return NULL;
}

/* The first of the lowest type for a negative type, the first that matches otherwise. */
static struct ipc_msg *msg_find_locked(struct msg_queue *q, const struct msg_want *w)
{
    struct ipc_msg *m, *found = NULL;

    if (w->flags & MSG_COPY)
        return msg_at_locked(q, w->type);
    list_for_each_entry (m, &q->msgs, node) {
        if (!msg_matches(m, w, found))
            continue;
        found = m;
        if (w->type >= 0 || m->type == 1)
            break;
    }
    return found;
}

static void msg_take_locked(struct msg_queue *q, const struct ipc_caller *c, struct ipc_msg *m)
{
    list_del(&m->node);
    q->bytes -= m->size;
    q->count--;
    atomic_fetch_sub(&q->o.ns->msg_count, 1);
    atomic_fetch_sub(&q->o.ns->msg_bytes, m->size);
    q->lrpid = c->pid;
    q->rtime = ipc_now();
    (void)waitq_wake(&q->senders, 0);
}

static int msg_get_locked(struct msg_queue *q, const struct ipc_caller *c, const struct msg_want *w,
                          struct ipc_msg **out)
{
    if (atomic_load(&q->o.gone))
        return -EIDRM;
    int r = ipc_check(&q->o, c, IPC_READ);
    if (r)
        return r;
    struct ipc_msg *m = msg_find_locked(q, w);
    if (!m)
        return -ENOMSG;
    if (m->size > w->max && !(w->flags & MSG_NOERROR))
        return -E2BIG;
    if (!(w->flags & MSG_COPY)) {
        msg_take_locked(q, c, m);
        *out = m;
        return 0;
    }
    r = ipc_msg_new(q->o.ns, m->type, m->size, out);
    if (r == 0)
        memcpy((*out)->text, m->text, m->size);
    return r;
}

static int msg_receive_once(struct msg_queue *q, const struct ipc_caller *c,
                            const struct msg_want *w, struct ipc_msg **out)
{
    mutex_lock(&q->o.mu);
    int r = msg_get_locked(q, c, w, out);
    mutex_unlock(&q->o.mu);
    return r;
}

int ipc_msgrcv(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, uint64_t max,
               int64_t type, int flags, struct ipc_msg **out)
{
    const struct msg_want w = {.max = max, .type = type, .flags = flags};
    struct ipc_object *o;

    if ((flags & MSG_COPY) && ((flags & MSG_EXCEPT) || !(flags & IPC_NOWAIT)))
        return -EINVAL;
    int r = ipc_find(ns, IPC_KIND_MSG, id, IPC_BY_ID, &o), wait;
    if (r)
        return r;
    struct msg_queue *q = msg_queue_of(o);
    r = msg_receive_once(q, c, &w, out);
    if (r == -ENOMSG && !(flags & IPC_NOWAIT)) {
        WAIT_EVENT(&q->receivers, c->blocker, 0, DEADLINE_NEVER,
                   (r = msg_receive_once(q, c, &w, out)) != -ENOMSG, wait);
        if (r == -ENOMSG && wait)
            r = -ERESTARTNOHAND;
    }
    ipc_object_put(o);
    return r;
}

/* ---- msgctl ---- */

int ipc_msg_stat(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, enum ipc_by by,
                 struct ipc_msg_info *out)
{
    struct ipc_object *o;
    int r = ipc_find(ns, IPC_KIND_MSG, id, by, &o);

    if (r)
        return r;
    struct msg_queue *q = msg_queue_of(o);
    mutex_lock(&o->mu);
    r = by == IPC_BY_SLOT_ANY ? 0 : ipc_check(o, c, IPC_READ);
    *out = (struct ipc_msg_info){
        .stime = q->stime,
        .rtime = q->rtime,
        .ctime = q->ctime,
        .bytes = q->bytes,
        .count = q->count,
        .max_bytes = q->max_bytes,
        .lspid = q->lspid,
        .lrpid = q->lrpid,
    };
    ipc_perm_show(o, &out->perm);
    mutex_unlock(&o->mu);
    ipc_object_put(o);
    return r ? r : out->perm.id;
}

int ipc_msg_set(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                const struct ipc_perm_set *set, uint64_t max_bytes)
{
    struct ipc_object *o;
    int r = ipc_lock_id(ns, IPC_KIND_MSG, id, &o);

    if (r)
        return r;
    struct msg_queue *q = msg_queue_of(o);
    r = ipc_check_owner(o, c);
    if (r == 0 && max_bytes > ipc_limit_get(ns, IPC_MSGMNB) &&
        !cred_capable(c->cred, CAP_SYS_RESOURCE))
        r = -EPERM;
    if (r == 0)
        r = ipc_perm_change(o, set);
    if (r == 0) {
        q->max_bytes = max_bytes;
        q->ctime = ipc_now();
        /* Rights and room may be others now. */
        (void)waitq_wake(&q->senders, 0);
        (void)waitq_wake(&q->receivers, 0);
    }
    mutex_unlock(&o->mu);
    ipc_object_put(o);
    return r;
}

int ipc_msg_rmid(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id)
{
    struct ipc_object *o;
    int r = ipc_lock_id(ns, IPC_KIND_MSG, id, &o);

    if (r)
        return r;
    r = ipc_check_owner(o, c);
    mutex_unlock(&o->mu);
    if (r == 0)
        ipc_msg_remove(o);
    ipc_object_put(o);
    return r;
}

void ipc_msg_totals(struct ipc_ns *ns, uint64_t *out_count, uint64_t *out_bytes)
{
    *out_count = atomic_load(&ns->msg_count);
    *out_bytes = atomic_load(&ns->msg_bytes);
}
