/* TCP_DEFER_ACCEPT: a connection is not accepted before its first bytes have come (tcp(7)).
 *
 * As on Linux it comes without bytes too: when it ends, or when the time is over. So many wait as
 * the listener's queue may have; whoever comes then is handed over at once, as with SYN cookies. */
#include <stdlib.h>
#include <sys/epoll.h>

#include "sentry/net/inet/tcp_priv.h"

#define NS_PER_SEC UINT64_C(1000000000)
#define RTO_MAX_S 120u
#define RETRIES_MAX 255u
/* What a connection waits for data whose listener does not ask for it any more. */
#define DEFER_LEAST_S 1u

struct tcp_defer {
    struct timer tm;
    struct tcp_sock *l; /* borrowed: the timer is cancelled before l goes */
    /* tcp_sock.waiting, each owned; guard: mu of l */
    struct list silent; /* nothing came yet; the oldest first */
    struct list full;   /* l's queue has no room for them */
};

uint32_t tcp_defer_round(uint32_t seconds)
{
    uint32_t period = 1, timeout = 1, retries = 1;

    if (seconds == 0)
        return 0;
    while (seconds > period && retries < RETRIES_MAX) {
        retries++;
        timeout = MIN(timeout * 2, RTO_MAX_S);
        period += timeout;
    }
    return period;
}

static uint64_t defer_ns(const struct tcp_sock *l)
{
    return MAX(tcp_defer_round(l->opt.defer_accept), DEFER_LEAST_S) * NS_PER_SEC;
}

static bool has_room(const struct tcp_sock *l)
{
    return tcp_state(l) == TCP_LISTEN && l->accept_count <= l->backlog;
}

void tcp_defer_rearm_locked(struct tcp_sock *l)
{
    struct tcp_defer *d = l->defer;

    if (!d || list_empty(&d->silent))
        return;
    const struct tcp_sock *first = list_first_entry(&d->silent, struct tcp_sock, waiting);
    timer_arm(&d->tm, first->defer_since + defer_ns(l));
}

/* child waits no more; the reference of the list is the caller's. l locked. */
static void leave_locked(struct tcp_sock *l, struct tcp_sock *child)
{
    list_del(&child->waiting);
    atomic_fetch_sub(&l->defer_count, 1);
    atomic_store(&child->deferred, false);
}

/* child, of which something is known now, goes to l's queue: true, if there is room. l locked. */
static bool promote_locked(struct tcp_sock *l, struct tcp_sock *child)
{
    if (!has_room(l)) {
        if (l->defer)
            list_move_tail(&child->waiting, &l->defer->full);
        return false;
    }
    leave_locked(l, child);
    list_add_tail(&child->waiting, &l->accepts);
    l->accept_count++;
    return true;
}

static void forget_listener(struct tcp_sock *child)
{
    mutex_lock(&child->i.mu);
    struct tcp_sock *l = child->deferrer;
    child->deferrer = NULL;
    mutex_unlock(&child->i.mu);
    if (l)
        tcp_put(l);
}

/* child is in l's queue. */
static void promoted(struct tcp_sock *l, struct tcp_sock *child)
{
    (void)waitq_wake(&l->i.wq, EPOLLIN | EPOLLRDNORM);
    forget_listener(child);
}

static void defer_expired(struct timer *tm)
{
    struct tcp_sock *l = container_of(tm, struct tcp_defer, tm)->l;
    bool any = true;

    while (any) {
        struct tcp_sock *child = NULL;
        bool in = false;
        mutex_lock(&l->i.mu);
        struct tcp_defer *d = l->defer;
        any = d && !list_empty(&d->silent);
        if (any) {
            child = list_first_entry(&d->silent, struct tcp_sock, waiting);
            any = child->defer_since + defer_ns(l) <= mono_now();
        }
        if (any) {
            (void)tcp_get(child);
            in = promote_locked(l, child);
        } else {
            tcp_defer_rearm_locked(l);
        }
        mutex_unlock(&l->i.mu);
        if (in)
            promoted(l, child);
        if (any)
            tcp_put(child);
    }
}

void tcp_defer_prepare(struct tcp_sock *l)
{
    struct tcp_defer *d;

    mutex_lock(&l->i.mu);
    const bool wanted = l->opt.defer_accept && !l->defer;
    mutex_unlock(&l->i.mu);
    if (!wanted || !(d = calloc(1, sizeof(*d))))
        return;
    d->l = l;
    list_init(&d->silent);
    list_init(&d->full);
    if (timer_init(&d->tm, l->i.in->timers, defer_expired)) {
        free(d);
        return;
    }
    mutex_lock(&l->i.mu);
    const bool use = tcp_state(l) == TCP_LISTEN && !l->defer;
    if (use)
        l->defer = d;
    mutex_unlock(&l->i.mu);
    if (!use)
        free(d);
}

bool tcp_defer_add_locked(struct tcp_sock *l, struct tcp_sock *child)
{
    if (!l->defer || !l->opt.defer_accept || atomic_load(&l->defer_count) > l->backlog)
        return false;
    child->deferrer = tcp_get(l);
    child->defer_since = mono_now();
    atomic_store(&child->deferred, true);
    list_add_tail(&tcp_get(child)->waiting, &l->defer->silent);
    atomic_fetch_add(&l->defer_count, 1);
    tcp_defer_rearm_locked(l);
    return true;
}

bool tcp_defer_event(struct tcp_sock *child)
{
    mutex_lock(&child->i.mu);
    struct tcp_sock *l = child->deferrer ? tcp_get(child->deferrer) : NULL;
    const bool reset = tcp_state(child) == TCP_CLOSE;
    const bool deserted = child->closed && atomic_load(&child->deferred);
    const bool came = tcp_queued(child) > 0 || child->fin_seen;
    mutex_unlock(&child->i.mu);
    if (!l)
        return !deserted;
    bool in = false, out = false;
    mutex_lock(&l->i.mu);
    if (atomic_load(&child->deferred) && !list_empty(&child->waiting)) {
        out = reset;
        if (reset)
            leave_locked(l, child);
        else if (came)
            in = promote_locked(l, child);
    }
    mutex_unlock(&l->i.mu);
    if (in)
        promoted(l, child);
    if (out) {
        forget_listener(child);
        tcp_put(child);
    }
    tcp_put(l);
    return !deserted;
}

bool tcp_defer_next(struct tcp_sock *l)
{
    struct tcp_sock *child = NULL;
    bool in = false;

    mutex_lock(&l->i.mu);
    if (l->defer && !list_empty(&l->defer->full)) {
        child = tcp_get(list_first_entry(&l->defer->full, struct tcp_sock, waiting));
        in = promote_locked(l, child);
    }
    mutex_unlock(&l->i.mu);
    if (in)
        promoted(l, child);
    if (child)
        tcp_put(child);
    return in;
}

/* The listener goes. The peer of a connection on which nothing came learns it when it sends or ends
 * it, as on Linux, which has no socket for it; any other is reset. Takes child. */
static void desert(struct tcp_sock *child)
{
    mutex_lock(&child->i.mu);
    const bool silent = tcp_queued(child) == 0 && !child->fin_seen && tcp_state(child) != TCP_CLOSE;
    if (silent)
        tcp_vanish_locked(child);
    mutex_unlock(&child->i.mu);
    forget_listener(child);
    if (silent)
        tcp_put(child);
    else
        tcp_child_abort(child);
}

void tcp_defer_end(struct tcp_sock *l)
{
    mutex_lock(&l->i.mu);
    struct tcp_defer *d = l->defer;
    l->defer = NULL;
    while (d && !(list_empty(&d->silent) && list_empty(&d->full))) {
        struct list *from = list_empty(&d->full) ? &d->silent : &d->full;
        struct tcp_sock *child = list_first_entry(from, struct tcp_sock, waiting);
        list_del(&child->waiting);
        atomic_fetch_sub(&l->defer_count, 1);
        mutex_unlock(&l->i.mu);
        desert(child);
        mutex_lock(&l->i.mu);
    }
    mutex_unlock(&l->i.mu);
    if (!d)
        return;
    timer_cancel(&d->tm);
    free(d);
}

/* ---- connections from outside ---- */

uint64_t inet_tcp_defer_begin(struct sock *listener)
{
    struct tcp_sock *l = tcp_of(listener);
    uint64_t ns = 0;

    mutex_lock(&l->i.mu);
    if (l->opt.defer_accept && atomic_load(&l->defer_count) <= l->backlog) {
        atomic_fetch_add(&l->defer_count, 1);
        ns = defer_ns(l);
    }
    mutex_unlock(&l->i.mu);
    return ns;
}

void inet_tcp_defer_end(struct sock *listener)
{
    atomic_fetch_sub(&tcp_of(listener)->defer_count, 1);
}
