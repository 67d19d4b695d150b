/* NETLINK_SOCK_DIAG (sock_diag(7)): what ss(8) asks of AF_INET and AF_INET6 sockets. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <string.h>

#include "sentry/net/inet/inet.h"
#include "sentry/net/netlink/nl_priv.h"

_Static_assert(sizeof(struct inet_diag_req_v2) <= sizeof(((struct nl_dump *)0)->diag), "request");

struct diag_walk {
    struct nl_dump *d;
    struct wbuf *w;
    struct inet_diag_req_v2 req;
    uint64_t i;
    bool full;
};

static void put_end(struct inet_diag_sockid *id, const struct inet_info *i)
{
    id->idiag_sport = htons(i->local.port);
    id->idiag_dport = htons(i->remote.port);
    memcpy(id->idiag_src, i->local.addr.b, 16);
    memcpy(id->idiag_dst, i->remote.addr.b, 16);
    /* A socket of AF_INET6 shows IPv4 peers as mapped addresses. */
    if (i->family == AF_INET6 && i->local.addr.family == AF_INET) {
        id->idiag_src[3] = i->local.addr.v4;
        id->idiag_dst[3] = i->remote.addr.v4;
        id->idiag_src[0] = id->idiag_src[1] = id->idiag_dst[0] = id->idiag_dst[1] = 0;
        id->idiag_src[2] = id->idiag_dst[2] = htonl(0xffff);
    }
    id->idiag_if = i->local.ifindex;
    id->idiag_cookie[0] = (uint32_t)i->cookie;
    id->idiag_cookie[1] = (uint32_t)(i->cookie >> 32);
}

static void put_socket(struct wbuf *w, const struct diag_walk *x, const struct inet_info *i,
                       struct sock *s)
{
    struct inet_diag_msg m;
    const size_t start = nl_begin(w, SOCK_DIAG_BY_FAMILY, NLM_F_MULTI, x->d->seq, x->d->portid);
    const uint8_t shut = (uint8_t)i->shutdown;

    memset(&m, 0, sizeof(m));
    m.idiag_family = (uint8_t)i->family;
    m.idiag_state = (uint8_t)i->state;
    m.idiag_timer = (uint8_t)i->timer;
    m.idiag_retrans = (uint8_t)MIN(i->retransmits, 255u);
    m.idiag_expires = (uint32_t)(i->timer_ns / 1000000u);
    m.idiag_rqueue = (uint32_t)i->rqueue;
    m.idiag_wqueue = (uint32_t)i->wqueue;
    m.idiag_uid = i->uid;
    m.idiag_inode = (uint32_t)i->inode;
    put_end(&m.id, i);
    wbuf_bytes(w, &m, sizeof(m));
    nl_attr(w, INET_DIAG_SHUTDOWN, &shut, 1);
    if (s && i->protocol == IPPROTO_TCP && x->req.idiag_ext & 1u << (INET_DIAG_INFO - 1)) {
        struct tcp_info info;
        inet_tcp_info(s, &info);
        nl_attr(w, INET_DIAG_INFO, &info, sizeof(info));
    }
    if (i->family == AF_INET6) {
        const uint8_t only = i->v6only;
        nl_attr(w, INET_DIAG_SKV6ONLY, &only, 1);
    }
    nl_end(w, start);
}

static int diag_row(void *arg, const struct inet_info *i, struct sock *s)
{
    struct diag_walk *x = arg;
    const size_t saved = x->w->len;

    if (i->family != x->req.sdiag_family || i->state > 31 || !(x->req.idiag_states >> i->state & 1))
        return 0;
    if (x->i++ < x->d->pos)
        return 0;
    put_socket(x->w, x, i, s);
    x->full = !NL_DUMP_ROW(x->w, saved);
    if (!x->full)
        x->d->pos++;
    return x->full;
}

static int dump_inet(struct nl_dump *d, struct wbuf *w)
{
    struct diag_walk x = {.d = d, .w = w};

    memcpy(&x.req, d->diag, sizeof(x.req));
    (void)inet_for_each(d->table->net, x.req.sdiag_family, x.req.sdiag_protocol, diag_row, &x);
    return x.full;
}

static int by_family(struct nl_req *q)
{
    struct inet_diag_req_v2 req;
    struct nl_dump d = {.fill = NULL};
    int r;

    if (q->size < sizeof(struct sock_diag_req))
        return -EINVAL;
    /* Families without a handler, as Linux says it. */
    if (q->body[0] != AF_INET && q->body[0] != AF_INET6)
        return -ENOENT;
    r = nl_header(q, &req, sizeof(req));
    if (r)
        return r;
    if (req.sdiag_protocol != IPPROTO_TCP && req.sdiag_protocol != IPPROTO_UDP)
        return -ENOENT;
    if (!(q->h.nlmsg_flags & NLM_F_DUMP))
        return -EOPNOTSUPP; /* one socket by its ends */
    memcpy(d.diag, &req, sizeof(req));
    return nl_dump_start(q, dump_inet, &d);
}

nl_handler nl_diag_handler(uint16_t type)
{
    return type == SOCK_DIAG_BY_FAMILY ? by_family : NULL;
}
