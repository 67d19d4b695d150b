/* Requests: each message of a datagram is carried out and acknowledged (af_netlink.c's
 * netlink_rcv_skb and netlink_ack). */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/net/netlink/nl_priv.h"

/* Messages looked at in one datagram; more than ip -batch puts into one. */
#define NL_BATCH_MAX 1024u

bool nl_may_admin(const struct nl_req *q)
{
    return net_capable(q->s->base.net, q->c->cred, CAP_NET_ADMIN);
}

static void queue_reply(struct nl_req *q, const void *data, size_t size)
{
    static const struct sock_cred kernel = {0};

    /* A socket that does not read loses answers; it is told by -ENOBUFS. */
    (void)!nl_deliver(q->s, data, size, 0, 0, &kernel);
}

static void send_ack(struct nl_req *q, int err)
{
    const bool whole = err != 0 && !nl_option(q->s, NETLINK_CAP_ACK);
    const bool why = err != 0 && q->why && nl_option(q->s, NETLINK_EXT_ACK);
    const size_t echoed = whole ? q->size : 0;
    const size_t space = 256 + echoed;
    uint8_t *buf = malloc(space);
    struct wbuf w;

    if (!buf)
        return;
    wbuf_init(&w, buf, space);
    const uint16_t flags = (uint16_t)((whole ? 0 : NLM_F_CAPPED) | (why ? NLM_F_ACK_TLVS : 0));
    const size_t start =
        nl_begin(&w, NLMSG_ERROR, flags, q->h.nlmsg_seq, atomic_load(&q->s->portid));
    const int32_t code = err;
    wbuf_bytes(&w, &code, sizeof(code));
    wbuf_bytes(&w, &q->h, sizeof(q->h));
    wbuf_bytes(&w, q->body, echoed);
    wbuf_align(&w, NLMSG_ALIGNTO);
    if (why)
        nl_attr_str(&w, NLMSGERR_ATTR_MSG, q->why);
    nl_end(&w, start);
    if (!w.failed)
        queue_reply(q, buf, w.len);
    free(buf);
}

static nl_handler handler_of(const struct nl_req *q)
{
    switch (q->s->base.protocol) {
    case NETLINK_ROUTE:
        return nl_route_handler(q->h.nlmsg_type);
    case NETLINK_SOCK_DIAG:
        return nl_diag_handler(q->h.nlmsg_type);
    default:
        return NULL;
    }
}

static void one_message(struct nl_req *q)
{
    uint8_t buf[NL_CHUNK];
    struct wbuf w;
    int err = 0;

    wbuf_init(&w, buf, sizeof(buf));
    q->out = &w;
    q->why = NULL;
    if (q->h.nlmsg_flags & NLM_F_REQUEST && q->h.nlmsg_type >= NLMSG_MIN_TYPE) {
        const nl_handler fn = handler_of(q);
        err = fn ? fn(q) : -EOPNOTSUPP;
        /* A dump that has begun answers for itself. */
        if (err == -EINPROGRESS)
            return;
        if (err == 0 && w.failed)
            err = -EMSGSIZE;
        if (err == 0 && w.len > 0)
            queue_reply(q, buf, w.len);
    }
    if (q->h.nlmsg_flags & NLM_F_ACK || err)
        send_ack(q, err);
}

void nl_request(struct nl_sock *s, const uint8_t *data, size_t size, const struct vfs_caller *c)
{
    struct nl_req q = {.s = s, .t = s->table, .ns = s->table->ns, .c = c};

    for (unsigned i = 0; i < NL_BATCH_MAX && size >= sizeof(q.h); i++) {
        memcpy(&q.h, data, sizeof(q.h));
        if (q.h.nlmsg_len < sizeof(q.h) || q.h.nlmsg_len > size)
            return;
        q.body = data + sizeof(q.h);
        q.size = q.h.nlmsg_len - sizeof(q.h);
        one_message(&q);
        const size_t step = MIN((size_t)NLMSG_ALIGN((size_t)q.h.nlmsg_len), size);
        data += step;
        size -= step;
    }
}
