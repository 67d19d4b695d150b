/* NETLINK_SOCK_DIAG (sock_diag(7)): what ss(8) asks of AF_INET, AF_INET6 and AF_UNIX sockets. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <string.h>

#include "sentry/net/inet/inet.h"
#include "sentry/net/tcp/info.h"
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
                       struct sock *s, uint16_t flags)
{
    struct inet_diag_msg m;
    const size_t start = nl_begin(w, SOCK_DIAG_BY_FAMILY, flags, x->d->seq, x->d->portid);
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
        struct lx_tcp_info info;
        inet_tcp_info(s, &info);
        nl_attr(w, INET_DIAG_INFO, &info, sizeof(info));
    }
    if (s && i->protocol == IPPROTO_TCP && x->req.idiag_ext & 1u << (INET_DIAG_CONG - 1)) {
        char name[16];
        inet_tcp_congestion(s, name);
        nl_attr(w, INET_DIAG_CONG, name, strlen(name) + 1);
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
    put_socket(x->w, x, i, s, NLM_F_MULTI);
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

/* ---- one socket, by its ends ---- */

struct diag_find {
    struct inet_diag_req_v2 req;
    struct inet_info info;
    struct sock *found; /* owned */
    bool yes;
};

static bool same_cookie(const uint32_t asked[2], uint64_t cookie)
{
    return (asked[0] == UINT32_MAX && asked[1] == UINT32_MAX) ||
           (asked[0] == (uint32_t)cookie && asked[1] == (uint32_t)(cookie >> 32));
}

/* Ends compare as they are shown, but for the link, which 0 leaves open. */
static int find_row(void *arg, const struct inet_info *i, struct sock *s)
{
    struct diag_find *x = arg;
    struct inet_diag_sockid id;

    memset(&id, 0, sizeof(id));
    put_end(&id, i);
    if (i->family != x->req.sdiag_family || id.idiag_sport != x->req.id.idiag_sport ||
        id.idiag_dport != x->req.id.idiag_dport ||
        memcmp(id.idiag_src, x->req.id.idiag_src, sizeof(id.idiag_src)) != 0 ||
        memcmp(id.idiag_dst, x->req.id.idiag_dst, sizeof(id.idiag_dst)) != 0 ||
        !same_cookie(x->req.id.idiag_cookie, i->cookie))
        return 0;
    x->yes = true;
    x->info = *i;
    x->found = s;
    if (s)
        sock_get(s);
    return 1;
}

static int find_one(struct nl_req *q, struct diag_find *x)
{
    const int r = inet_for_each(q->t->net, x->req.sdiag_family, x->req.sdiag_protocol, find_row, x);

    if (r < 0)
        return r;
    return x->yes ? 0 : -ENOENT;
}

static int answer_one(struct nl_req *q, const struct inet_diag_req_v2 *req)
{
    struct diag_find x = {.req = *req};
    struct nl_dump d = {.seq = q->h.nlmsg_seq, .portid = atomic_load(&q->s->portid)};
    const struct diag_walk walk = {.d = &d, .req = *req};
    int r = find_one(q, &x);

    if (r)
        return r;
    put_socket(q->out, &walk, &x.info, x.found, 0);
    if (x.found)
        sock_put(x.found);
    return 0;
}

static int take_request(struct nl_req *q, struct inet_diag_req_v2 *req)
{
    if (q->size < sizeof(struct sock_diag_req))
        return -EINVAL;
    /* Families without a handler, as Linux says it. */
    if (q->body[0] != AF_INET && q->body[0] != AF_INET6)
        return -ENOENT;
    int r = nl_header(q, req, sizeof(*req));
    if (r == 0 && req->sdiag_protocol != IPPROTO_TCP && req->sdiag_protocol != IPPROTO_UDP)
        r = -ENOENT;
    return r;
}

/* SOCK_DESTROY: ss -K. */
static int destroy(struct nl_req *q)
{
    struct diag_find x = {.found = NULL};

    if (!nl_may_admin(q))
        return -EPERM;
    int r = take_request(q, &x.req);
    if (r == 0)
        r = find_one(q, &x);
    if (r == 0)
        r = x.found ? inet_destroy(x.found) : -EOPNOTSUPP;
    if (x.found)
        sock_put(x.found);
    return r;
}

/* ---- AF_UNIX ---- */

/* TCP's names for the states. */
static unsigned unix_diag_state(const struct unix_info *i)
{
    return i->listening ? TCP_LISTEN : i->connected ? TCP_ESTABLISHED : TCP_CLOSE;
}

struct unix_walk {
    struct nl_dump *d;
    struct wbuf *w;
    struct unix_diag_req req;
    uint64_t i;
};

static void put_unix_name(struct wbuf *w, const struct unix_info *i)
{
    char name[sizeof(((struct sockaddr_un *)0)->sun_path)];

    name[0] = '\0';
    memcpy(name + i->abstract, i->name, i->name_size);
    nl_attr(w, UNIX_DIAG_NAME, name, i->name_size + i->abstract);
}

static void put_unix(struct wbuf *w, const struct unix_walk *x, const struct unix_info *i)
{
    const size_t start = nl_begin(w, SOCK_DIAG_BY_FAMILY, NLM_F_MULTI, x->d->seq, x->d->portid);
    const struct unix_diag_rqlen queue = {.udiag_rqueue = i->rqueue, .udiag_wqueue = i->wqueue};
    const struct unix_diag_msg m = {
        .udiag_family = AF_UNIX,
        .udiag_type = (uint8_t)i->type,
        .udiag_state = (uint8_t)unix_diag_state(i),
        .udiag_ino = (uint32_t)i->inode,
        .udiag_cookie = {(uint32_t)i->cookie, (uint32_t)(i->cookie >> 32)},
    };
    const uint8_t shut = (uint8_t)i->shutdown;

    wbuf_bytes(w, &m, sizeof(m));
    if (x->req.udiag_show & UDIAG_SHOW_NAME && i->name_size > 0)
        put_unix_name(w, i);
    if (x->req.udiag_show & UDIAG_SHOW_PEER && i->peer_inode)
        nl_attr_u32(w, UNIX_DIAG_PEER, (uint32_t)i->peer_inode);
    if (x->req.udiag_show & UDIAG_SHOW_RQLEN)
        nl_attr(w, UNIX_DIAG_RQLEN, &queue, sizeof(queue));
    nl_attr(w, UNIX_DIAG_SHUTDOWN, &shut, 1);
    nl_end(w, start);
}

static int unix_row(void *arg, const struct unix_info *i)
{
    struct unix_walk *x = arg;
    const size_t saved = x->w->len;

    if (!(x->req.udiag_states >> unix_diag_state(i) & 1))
        return 0;
    if (x->i++ < x->d->pos)
        return 0;
    put_unix(x->w, x, i);
    if (!NL_DUMP_ROW(x->w, saved))
        return 1;
    x->d->pos++;
    return 0;
}

static int dump_unix(struct nl_dump *d, struct wbuf *w)
{
    struct unix_walk x = {.d = d, .w = w};

    memcpy(&x.req, d->diag, sizeof(x.req));
    return unix_for_each(d->table->net, unix_row, &x) == 1;
}

static int by_unix(struct nl_req *q)
{
    struct unix_diag_req req;
    struct nl_dump d = {.fill = NULL};
    int r = nl_header(q, &req, sizeof(req));

    if (r)
        return r;
    if (!(q->h.nlmsg_flags & NLM_F_DUMP))
        return -EOPNOTSUPP; /* one socket by its inode */
    memcpy(d.diag, &req, sizeof(req));
    return nl_dump_start(q, dump_unix, &d);
}

/* ---- requests ---- */

static int by_family(struct nl_req *q)
{
    struct inet_diag_req_v2 req;
    struct nl_dump d = {.fill = NULL};

    if (q->size >= sizeof(struct sock_diag_req) && q->body[0] == AF_UNIX)
        return by_unix(q);
    int r = take_request(q, &req);
    if (r)
        return r;
    if (!(q->h.nlmsg_flags & NLM_F_DUMP))
        return answer_one(q, &req);
    memcpy(d.diag, &req, sizeof(req));
    return nl_dump_start(q, dump_inet, &d);
}

nl_handler nl_diag_handler(uint16_t type)
{
    return type == SOCK_DIAG_BY_FAMILY ? by_family : type == SOCK_DESTROY ? destroy : NULL;
}
