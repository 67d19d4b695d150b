/* Raw sockets and ping sockets on the loopback link, and the answers of ICMP there (raw(7),
 * icmp(7)). */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/net/checksum.h"
#include "sentry/net/inet/dgram_priv.h"
#include "sentry/net/packet/packet.h"

#define RAW_MAX 128u

static const struct sock_ops raw_ops, ping_ops;

/* ---- checksums ---- */

static void set_icmp_sum(const struct inet_meta *m, uint8_t *data, size_t size)
{
    const bool v4 = m->to.addr.family == AF_INET;

    memset(data + 2, 0, 2);
    const uint32_t start = v4 ? 0 : csum_pseudo(&m->from.addr, &m->to.addr, IPPROTO_ICMPV6, size);
    const uint16_t sum = csum_fold(csum_add(start, data, size));
    memcpy(data + 2, &sum, sizeof(sum));
}

/* ---- delivery ---- */

static bool raw_wants(struct dgram_sock *s, uint8_t protocol, const struct inet_meta *m,
                      const uint8_t *data, size_t size)
{
    bool yes;

    if (s->i.base.protocol != protocol || s->i.base.family != m->to.addr.family)
        return false;
    mutex_lock(&s->i.mu);
    struct net_ep local = m->to, remote = m->from;
    local.ifindex = m->ifindex;
    yes = !s->closed && inet_matches(&s->i, &local, &remote);
    if (yes && size > 0 && protocol == IPPROTO_ICMP)
        yes = data[0] >= 32 || !(s->icmp_filter[0] >> data[0] & 1);
    if (yes && size > 0 && protocol == IPPROTO_ICMPV6)
        yes = !(s->icmp_filter[data[0] / 64] >> (data[0] % 64) & 1);
    mutex_unlock(&s->i.mu);
    return yes;
}

static void ip_header(uint8_t *out, uint8_t protocol, const struct inet_meta *m, size_t size)
{
    struct iphdr ip = {.version = 4, .ihl = 5, .protocol = protocol};

    ip.ttl = m->ttl;
    ip.tos = m->tos;
    ip.tot_len = htons((uint16_t)(size + IP_HEAD));
    ip.saddr = m->from.addr.v4;
    ip.daddr = m->to.addr.v4;
    ip.check = csum_fold(csum_add(0, &ip, sizeof(ip)));
    memcpy(out, &ip, sizeof(ip));
}

/* One copy: AF_INET sockets see the header of IP, AF_INET6 sockets do not. */
static void raw_queue(struct dgram_sock *s, uint8_t protocol, const struct inet_meta *m,
                      const void *data, size_t size)
{
    const size_t head = m->to.addr.family == AF_INET ? IP_HEAD : 0;
    struct dgram *d = dgram_alloc(s->i.in, size + head);

    if (!d)
        return;
    d->meta = *m;
    d->meta.from.port = d->meta.to.port = 0;
    if (head)
        ip_header(d->data, protocol, m, size);
    memcpy(d->data + head, data, size);
    (void)dgram_queue(s, d);
}

static size_t raw_gather(struct inet *in, struct dgram_sock **out, size_t max)
{
    struct inet_sock *s;
    size_t n = 0;

    mutex_lock(&in->all_mu);
    list_for_each_entry (s, &in->all, all)
        if (n < max && s->base.type == SOCK_RAW && ref_tryget(&s->base.ref))
            out[n++] = dgram_of_inet(s);
    mutex_unlock(&in->all_mu);
    return n;
}

static bool raw_deliver_all(struct net *n, uint8_t protocol, const struct inet_meta *m,
                            const void *data, size_t size)
{
    struct dgram_sock *all[RAW_MAX];
    const size_t count = raw_gather(net_inet(n), all, ARRAY_SIZE(all));
    bool any = false;

    for (size_t i = 0; i < count; i++) {
        if (raw_wants(all[i], protocol, m, data, size)) {
            raw_queue(all[i], protocol, m, data, size);
            any = true;
        }
        sock_put(&all[i]->i.base);
    }
    return any;
}

/* Raw sockets that hear UDP see its header. */
static void raw_deliver_udp(struct net *n, uint8_t protocol, const struct inet_meta *m,
                            const void *data, size_t size)
{
    uint8_t *p = malloc(size + UDP_HEAD);
    const uint16_t head[4] = {htons(m->from.port), htons(m->to.port),
                              htons((uint16_t)(size + UDP_HEAD)), 0};

    if (!p)
        return;
    memcpy(p, head, UDP_HEAD);
    memcpy(p + UDP_HEAD, data, size);
    (void)raw_deliver_all(n, protocol, m, p, size + UDP_HEAD);
    free(p);
}

void raw_deliver(struct net *n, uint8_t protocol, const struct inet_meta *m, const void *data,
                 size_t size)
{
    if (protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE)
        raw_deliver_udp(n, protocol, m, data, size);
    else
        (void)raw_deliver_all(n, protocol, m, data, size);
}

/* An answer to an echo, for the ping socket whose number it has. */
static bool ping_deliver(struct net *n, const struct inet_meta *m, const uint8_t *data, size_t size)
{
    struct inet_meta meta = *m;
    uint16_t id;

    if (size < ICMP_HEAD)
        return false;
    memcpy(&id, data + 4, sizeof(id));
    meta.to.port = ntohs(id);
    struct inet_sock *s = inet_find(net_inet(n), INET_PING, &meta.to, &meta.from);
    if (!s)
        return false;
    struct dgram *d = s->base.family == m->to.addr.family ? dgram_alloc(s->in, size) : NULL;
    if (d) {
        d->meta = *m;
        d->meta.from.port = d->meta.to.port = 0;
        memcpy(d->data, data, size);
        (void)dgram_queue(dgram_of_inet(s), d);
    }
    sock_put(&s->base);
    return d != NULL;
}

bool inet_raw_input(struct net *n, const struct inet_packet *p)
{
    const struct inet_meta meta = {.from = p->from,
                                   .to = p->to,
                                   .ifindex = p->to.ifindex,
                                   .ttl = p->ttl,
                                   .tos = p->tos,
                                   .time_ns = p->time_ns};
    const uint8_t *data = p->payload;
    bool any = raw_deliver_all(n, p->protocol, &meta, data, p->size);

    if ((p->protocol == IPPROTO_ICMP && p->size && data[0] == ICMP_ECHOREPLY) ||
        (p->protocol == IPPROTO_ICMPV6 && p->size && data[0] == ICMP6_ECHO_REPLY))
        any = ping_deliver(n, &meta, data, p->size) || any;
    return any;
}

/* It passes the loopback link, where packet sockets see it. */
static void tap_local(struct net *n, uint8_t protocol, const struct inet_meta *m, const void *data,
                      size_t size)
{
    inet_lo_passed(n, m->to.addr.family, 1, size);
    const struct packet_loop p = {.src = m->from.addr,
                                  .dst = m->to.addr,
                                  .protocol = protocol,
                                  .ttl = m->ttl,
                                  .tos = m->tos,
                                  .data = data,
                                  .size = size};

    packet_tap_loop(n, &p);
}

/* An ICMP message to one of our own addresses: all who hear it, and the answer to an echo. */
static void icmp_local(struct net *n, uint8_t protocol, const struct inet_meta *m, uint8_t *data,
                       size_t size)
{
    const bool v4 = protocol == IPPROTO_ICMP;
    const uint8_t reply = v4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY;

    tap_local(n, protocol, m, data, size);
    raw_deliver(n, protocol, m, data, size);
    if (size < ICMP_HEAD || data[0] != (v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST))
        return;
    struct inet_meta back = *m;
    back.from = m->to;
    back.to = m->from;
    back.ttl = 64;
    data[0] = reply;
    set_icmp_sum(&back, data, size);
    tap_local(n, protocol, &back, data, size);
    raw_deliver(n, protocol, &back, data, size);
    (void)ping_deliver(n, &back, data, size);
}

/* ---- sending ---- */

static int packet_copy(struct dgram_sock *s, struct sock_msg *m, size_t size, struct dgram **out)
{
    struct dgram *d = dgram_alloc(s->i.in, size);

    if (!d)
        return -ENOBUFS;
    if (uio_copy_from(m->u, d->data, size) < (int64_t)size) {
        dgram_free(s->i.in, d);
        return -EFAULT;
    }
    *out = d;
    return 0;
}

/* By a link. Takes d. */
static int send_out(struct dgram_sock *s, const struct dgram_way *w, struct dgram *d, bool header)
{
    struct ext_dgram e = dgram_ext(s, w, d);
    struct uio u;

    e.has_header = header;
    e.from.port = e.to.port = 0;
    uio_init_kernel(&u, d->data, d->size);
    const int64_t n = ext_raw_send(s->i.base.net, &e, &u);
    dgram_free(s->i.in, d);
    return n < 0 ? (int)n : 0;
}

static int64_t ping_send(struct sock *base, struct sock_msg *m, bool nonblock,
                         const struct vfs_caller *c)
{
    struct dgram_sock *s = dgram_of(base);
    const uint64_t size = m->u->left;
    struct dgram_way w;
    struct dgram *d;

    (void)nonblock;
    (void)c;
    if (size > DGRAM_MAX)
        return -EMSGSIZE;
    if (m->flags & MSG_OOB)
        return -EOPNOTSUPP;
    if (size < ICMP_HEAD)
        return -EINVAL;
    int r = dgram_way(s, m, &w);
    if (r == 0)
        r = packet_copy(s, m, (size_t)size, &d);
    if (r)
        return r;
    const bool v4 = base->family == AF_INET;
    if (d->data[0] != (v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST) || d->data[1] != 0) {
        dgram_free(s->i.in, d);
        return -EINVAL;
    }
    const uint16_t id = htons(w.from.port);
    memcpy(d->data + 4, &id, sizeof(id));
    dgram_ttl_tos(s, &w, &d->meta);
    set_icmp_sum(&d->meta, d->data, d->size);
    if (!w.rt.local && w.rt.ifindex != INET_LOOPBACK_IF) {
        r = send_out(s, &w, d, false);
        return r ? r : (int64_t)size;
    }
    icmp_local(base->net, (uint8_t)base->protocol, &d->meta, d->data, d->size);
    dgram_free(s->i.in, d);
    return (int64_t)size;
}

/* IP_HDRINCL: the guest made the header; what it says is what counts. */
static int raw_header(struct dgram *d, uint8_t *protocol, size_t *off)
{
    struct iphdr ip;

    if (d->size < sizeof(ip))
        return -EINVAL;
    memcpy(&ip, d->data, sizeof(ip));
    const size_t head = (size_t)ip.ihl * 4;
    if (head < sizeof(ip) || head > d->size)
        return -EINVAL;
    *protocol = ip.protocol;
    *off = head;
    d->meta.ttl = ip.ttl;
    d->meta.tos = ip.tos;
    if (ip.saddr)
        d->meta.from.addr = inet_addr_from4(ip.saddr);
    return 0;
}

static bool raw_has_header(const struct dgram_sock *s)
{
    return s->i.base.family == AF_INET &&
           (inet_opt(&s->i, INET_HDRINCL) || s->i.base.protocol == IPPROTO_RAW);
}

static int64_t raw_send(struct sock *base, struct sock_msg *m, bool nonblock,
                        const struct vfs_caller *c)
{
    struct dgram_sock *s = dgram_of(base);
    const uint64_t size = m->u->left;
    uint8_t protocol = (uint8_t)base->protocol;
    struct dgram_way w;
    struct dgram *d;
    size_t off = 0;

    (void)nonblock;
    (void)c;
    if (size > DGRAM_MAX - (base->family == AF_INET && !raw_has_header(s) ? IP_HEAD : 0))
        return -EMSGSIZE;
    if (m->flags & MSG_OOB)
        return -EOPNOTSUPP;
    int r = dgram_way(s, m, &w);
    if (r == 0)
        r = packet_copy(s, m, (size_t)size, &d);
    if (r)
        return r;
    dgram_ttl_tos(s, &w, &d->meta);
    d->meta.from.port = d->meta.to.port = 0;
    if (raw_has_header(s))
        r = raw_header(d, &protocol, &off);
    if (r == 0 && protocol == IPPROTO_ICMPV6 && d->size >= 4)
        set_icmp_sum(&d->meta, d->data, d->size);
    if (r == 0 && !w.rt.local && w.rt.ifindex != INET_LOOPBACK_IF) {
        r = send_out(s, &w, d, raw_has_header(s));
        return r ? r : (int64_t)size;
    }
    if (r == 0 && (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6))
        icmp_local(base->net, protocol, &d->meta, d->data + off, d->size - off);
    else if (r == 0) {
        tap_local(base->net, protocol, &d->meta, d->data + off, d->size - off);
        (void)raw_deliver_all(base->net, protocol, &d->meta, d->data + off, d->size - off);
    }
    dgram_free(s->i.in, d);
    return r ? r : (int64_t)size;
}

/* ---- life ---- */

int raw_create(struct net *n, int family, int protocol, const struct vfs_caller *c,
               struct sock **out_sock)
{
    struct dgram_sock *s;

    if (protocol > 255)
        return -EINVAL;
    int r = dgram_new(n, &raw_ops, family, SOCK_RAW, protocol, c, &s);
    if (r)
        return r;
    atomic_fetch_add(&s->i.in->raw_count, 1);
    *out_sock = &s->i.base;
    return 0;
}

/* net.ipv4.ping_group_range: one of the caller's groups lies in it. */
static bool ping_allowed(struct net *n, const struct cred *cred)
{
    const uint64_t range = net_settings(n)->ping_groups;
    const uint32_t first = (uint32_t)(range >> 32), last = (uint32_t)range;
    bool yes = cred->egid >= first && cred->egid <= last;

    for (size_t i = 0; !yes && i < cred->group_count; i++)
        yes = cred->groups[i] >= first && cred->groups[i] <= last;
    return yes;
}

int ping_create(struct net *n, int family, int protocol, const struct vfs_caller *c,
                struct sock **out_sock)
{
    struct dgram_sock *s;

    if (!ping_allowed(n, c->cred))
        return -EACCES;
    int r = dgram_new(n, &ping_ops, family, SOCK_DGRAM, protocol, c, &s);

    if (r == 0)
        *out_sock = &s->i.base;
    return r;
}

static int raw_bind(struct sock *base, const struct sock_addr *a, const struct vfs_caller *c)
{
    struct dgram_sock *s = dgram_of(base);
    struct net_ep e;

    (void)c;
    int r = inet_addr_in(&s->i, a, &e);
    if (r)
        return r;
    if (!net_addr_is_any(&e.addr) && !net_addr_is_multicast(&e.addr) &&
        !inet_opt(&s->i, INET_FREEBIND) && !inet_is_local(base->net, &e.addr))
        return -EADDRNOTAVAIL;
    mutex_lock(&s->i.mu);
    s->i.local.addr = e.addr;
    s->i.local.port = 0;
    s->i.addr_bound = !net_addr_is_any(&e.addr);
    mutex_unlock(&s->i.mu);
    return 0;
}

static const struct sock_ops raw_ops = {
    .bind = raw_bind,
    .listen = sock_no_listen,
    .connect = dgram_connect,
    .accept = sock_no_accept,
    .send = raw_send,
    .recv = dgram_recv,
    .shutdown = dgram_shutdown,
    .getname = dgram_getname,
    .getsockopt = dgram_getsockopt,
    .setsockopt = dgram_setsockopt,
    .poll = dgram_poll,
    .readable = dgram_readable,
    .unsent = dgram_unsent,
    .close = dgram_close,
    .release = dgram_release,
};

static const struct sock_ops ping_ops = {
    .bind = inet_bind,
    .listen = sock_no_listen,
    .connect = dgram_connect,
    .accept = sock_no_accept,
    .send = ping_send,
    .recv = dgram_recv,
    .shutdown = dgram_shutdown,
    .getname = dgram_getname,
    .getsockopt = dgram_getsockopt,
    .setsockopt = dgram_setsockopt,
    .poll = dgram_poll,
    .readable = dgram_readable,
    .unsent = dgram_unsent,
    .close = dgram_close,
    .release = dgram_release,
};
