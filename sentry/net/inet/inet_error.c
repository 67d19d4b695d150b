/* The error queue: what ICMP said of packets that were sent (IP_RECVERR, MSG_ERRQUEUE of ip(7)). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include <linux/errqueue.h>

#include "base/limits.h"
#include "sentry/net/inet/inet_priv.h"

/* An error's data is at most what a packet held. */
#define ERROR_COST 512u

static bool wants_errors(const struct inet_sock *s, const struct inet_icmp_error *e)
{
    return inet_opt(s, e->remote.addr.family == AF_INET6 ? INET_RECVERR6 : INET_RECVERR) ||
           (inet_is_v6(s) && inet_opt(s, INET_RECVERR6));
}

static void error_queue(struct inet_sock *s, const struct inet_icmp_error *e, const void *data,
                        size_t size)
{
    struct inet_error *q = malloc(sizeof(*q) + size);

    if (!q)
        return;
    memset(q, 0, sizeof(*q));
    q->e = *e;
    q->last = e->info;
    q->size = size;
    q->time_ns = inet_realtime();
    if (size > 0)
        memcpy(q->data, data, size);
    mutex_lock(&s->mu);
    const bool room = s->errors_size + size + ERROR_COST <= s->base.rcvbuf;
    if (room) {
        list_add_tail(&q->node, &s->errors);
        s->errors_size += size + ERROR_COST;
        atomic_fetch_add(&s->error_count, 1);
    }
    mutex_unlock(&s->mu);
    if (!room)
        free(q);
}

void inet_error_add(struct inet_sock *s, const struct inet_icmp_error *e, const void *data,
                    size_t size, bool hard)
{
    const bool wanted = wants_errors(s, e);

    mutex_lock(&s->mu);
    const bool connected = s->remote.addr.family;
    mutex_unlock(&s->mu);
    /* Who did not ask is told of what concerns his only peer (__udp4_lib_err). */
    if (!wanted && (!hard || !connected))
        return;
    if (wanted)
        error_queue(s, e, data, size);
    atomic_store(&s->base.error, -e->error);
    (void)waitq_wake(&s->wq, EPOLLERR | EPOLLIN);
}

/* Numbers that follow those nobody has read yet make one notice with them, as on Linux. */
static bool zerocopy_extend_locked(struct inet_sock *s, uint32_t id)
{
    if (list_empty(&s->errors))
        return false;
    struct inet_error *last = list_last_entry(&s->errors, struct inet_error, node);
    if (last->e.origin != SO_EE_ORIGIN_ZEROCOPY || last->last != id - 1)
        return false;
    last->last = id;
    return true;
}

void inet_zerocopy_sent(struct inet_sock *s, int flags, int64_t n)
{
    if (LIKELY(!(flags & MSG_ZEROCOPY)) || n <= 0 || !sock_option(&s->base, SO_ZEROCOPY))
        return;
    mutex_lock(&s->mu);
    const uint32_t id = s->zerocopy_next++;
    const bool merged = zerocopy_extend_locked(s, id);
    mutex_unlock(&s->mu);
    const struct inet_icmp_error e = {
        .origin = SO_EE_ORIGIN_ZEROCOPY, .code = SO_EE_CODE_ZEROCOPY_COPIED, .info = id};
    if (!merged)
        error_queue(s, &e, NULL, 0);
    (void)waitq_wake(&s->wq, EPOLLERR);
}

/* struct sock_extended_err and who it came from. */
static int error_control(const struct inet_sock *s, const struct inet_error *q,
                         struct sock_control *ctl)
{
    const struct net_ep offender = {.addr = q->e.offender};
    const bool v6 = inet_is_v6(s);
    struct sock_addr from;
    struct {
        struct sock_extended_err ee;
        uint8_t from[sizeof(struct sockaddr_in6)];
    } out;

    memset(&out, 0, sizeof(out));
    out.ee.ee_errno = (uint32_t)q->e.error;
    out.ee.ee_origin = q->e.origin;
    out.ee.ee_type = q->e.type;
    out.ee.ee_code = q->e.code;
    out.ee.ee_info = q->e.info;
    if (q->e.origin == SO_EE_ORIGIN_ZEROCOPY)
        out.ee.ee_data = q->last;
    inet_addr_out(v6 ? AF_INET6 : AF_INET, &offender, &from);
    if (q->e.origin != SO_EE_ORIGIN_ZEROCOPY)
        memcpy(out.from, &from.storage, from.len);
    return sock_control_put(ctl, v6 ? SOL_IPV6 : SOL_IP, v6 ? IPV6_RECVERR : IP_RECVERR, &out,
                            sizeof(out.ee) + from.len);
}

int64_t inet_error_recv(struct inet_sock *s, struct sock_msg *m)
{
    struct inet_error *q = NULL;
    int next = 0;

    mutex_lock(&s->mu);
    if (!list_empty(&s->errors)) {
        q = list_first_entry(&s->errors, struct inet_error, node);
        list_del(&q->node);
        s->errors_size -= q->size + ERROR_COST;
        atomic_fetch_sub(&s->error_count, 1);
        if (!list_empty(&s->errors))
            next = -list_first_entry(&s->errors, struct inet_error, node)->e.error;
    }
    mutex_unlock(&s->mu);
    if (!q)
        return -EAGAIN;
    if (q->e.origin != SO_EE_ORIGIN_ZEROCOPY)
        atomic_store(&s->base.error, next);
    const size_t want = (size_t)MIN(m->u->left, (uint64_t)q->size);
    int64_t n = uio_copy_to(m->u, q->data, want);
    if (n >= 0 && want < q->size)
        m->out_flags |= MSG_TRUNC;
    if (n >= 0 && m->from && q->e.origin != SO_EE_ORIGIN_ZEROCOPY)
        inet_addr_out(s->base.family, &q->e.remote, m->from);
    if (n >= 0 && m->control) {
        int r = error_control(s, q, m->control);
        n = r ? r : n;
    }
    m->out_flags |= MSG_ERRQUEUE;
    free(q);
    return n;
}

void inet_error_free(struct inet_sock *s)
{
    struct inet_error *q, *next;

    list_for_each_entry_safe (q, next, &s->errors, node) {
        list_del(&q->node);
        free(q);
    }
}
