/* Who has which port: bind(2), ephemeral ports, look-ups, and connections in TIME_WAIT. */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"
#include "sentry/net/inet/inet_priv.h"
#include "sentry/net/ip/ext.h"

#define TIME_WAIT_NS 60000000000ull

enum inet_table inet_table_of(const struct inet_sock *s)
{
    if (s->base.type == SOCK_STREAM)
        return INET_TCP;
    if (s->base.protocol == IPPROTO_UDPLITE)
        return INET_UDPLITE;
    return s->base.protocol == IPPROTO_UDP ? INET_UDP : INET_PING;
}

static struct inet_bucket *bucket_of(struct inet *in, enum inet_table t, uint16_t port)
{
    return &in->tables[t][port % INET_BUCKETS];
}

static struct inet_port *port_find_locked(struct inet_bucket *b, uint16_t number)
{
    struct inet_port *p;

    list_for_each_entry (p, &b->ports, node)
        if (p->number == number)
            return p;
    return NULL;
}

static struct inet_port *port_new_locked(struct inet_bucket *b, enum inet_table t, uint16_t number)
{
    struct inet_port *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->table = t;
    p->number = number;
    list_init(&p->owners);
    list_init(&p->listeners);
    list_init(&p->closed);
    list_add(&p->node, &b->ports);
    return p;
}

static void port_free_if_idle_locked(struct inet_port *p)
{
    if (!list_empty(&p->owners) || !list_empty(&p->closed))
        return;
    list_del(&p->node);
    free(p);
}

/* ---- conflicts (inet_csk_bind_conflict, udp_lib_lport_inuse of the kernel) ---- */

/* Whether two bound addresses share a destination. */
static bool names_overlap(int fam_a, const struct net_addr *a, bool a_only6, int fam_b,
                          const struct net_addr *b, bool b_only6)
{
    const bool a6 = fam_a == AF_INET6 && a->family != AF_INET;
    const bool b6 = fam_b == AF_INET6 && b->family != AF_INET;

    if (a6 && b6)
        return net_addr_is_any(a) || net_addr_is_any(b) || net_addr_equal(a, b);
    if (!a6 && !b6)
        return net_addr_is_any(a) || net_addr_is_any(b) || a->v4 == b->v4;
    /* One speaks v6: it hears v4 too when it is bound to everything. */
    return a6 ? net_addr_is_any(a) && !a_only6 : net_addr_is_any(b) && !b_only6;
}

static bool same_link(const struct inet_sock *a, const struct inet_sock *b)
{
    const uint32_t x = atomic_load(&a->bound_if), y = atomic_load(&b->bound_if);

    return x == 0 || y == 0 || x == y;
}

static bool is_listening(const struct inet_sock *s)
{
    return !list_empty(&s->listening);
}

static bool socks_conflict(const struct inet_sock *s, const struct inet_sock *o,
                           const struct net_addr *addr)
{
    if (o == s || !same_link(s, o))
        return false;
    if (sock_option(&s->base, SO_REUSEADDR) && sock_option(&o->base, SO_REUSEADDR) &&
        !is_listening(o))
        return false;
    if (sock_option(&s->base, SO_REUSEPORT) && sock_option(&o->base, SO_REUSEPORT) &&
        s->uid == o->uid)
        return false;
    return names_overlap(s->base.family, addr, inet_opt(s, INET_V6ONLY), o->base.family,
                         &o->local.addr, inet_opt(o, INET_V6ONLY));
}

static bool closed_conflict(const struct inet_sock *s, const struct tcp_closed *c,
                            const struct net_addr *addr)
{
    if (sock_option(&s->base, SO_REUSEADDR) && c->reuse)
        return false;
    if (sock_option(&s->base, SO_REUSEPORT) && c->reuseport && s->uid == c->uid)
        return false;
    return names_overlap(s->base.family, addr, inet_opt(s, INET_V6ONLY), c->family, &c->local.addr,
                         false);
}

static bool port_conflict_locked(const struct inet_port *p, const struct inet_sock *s)
{
    const uint64_t now = mono_now();
    const struct inet_sock *o;
    const struct tcp_closed *c;

    list_for_each_entry (o, &p->owners, owner)
        if (socks_conflict(s, o, &s->local.addr))
            return true;
    list_for_each_entry (c, &p->closed, of_port)
        if (c->expires > now && closed_conflict(s, c, &s->local.addr))
            return true;
    return false;
}

/* ---- having a port ---- */

static void port_own_locked(struct inet_port *p, struct inet_sock *s, bool bound)
{
    list_add(&s->owner, &p->owners);
    s->port = p;
    s->local.port = p->number;
    s->port_bound = bound;
    p->bound += bound;
}

/* 0, -EADDRINUSE, -ENOBUFS. fresh: only a port that nobody has. */
static int port_try(struct inet_sock *s, uint16_t number, bool bound, bool fresh)
{
    const enum inet_table t = inet_table_of(s);
    struct inet_bucket *b = bucket_of(s->in, t, number);
    int r = 0;

    mutex_lock(&b->mu);
    struct inet_port *p = port_find_locked(b, number);
    if (p && (fresh || (bound && port_conflict_locked(p, s)) || (!bound && p->bound)))
        r = -EADDRINUSE;
    if (!p && !(p = port_new_locked(b, t, number)))
        r = -ENOBUFS;
    if (r == 0)
        port_own_locked(p, s, bound);
    mutex_unlock(&b->mu);
    return r;
}

static uint32_t port_range(const struct inet_sock *s, uint16_t *out_low)
{
    const uint32_t own = atomic_load(&s->port_range);
    const uint64_t all = net_settings(s->base.net)->port_range;
    const uint16_t first = (uint16_t)(all >> 32), last = (uint16_t)all;
    uint16_t low = first, high = last;

    if ((own & 0xffff) > low)
        low = (uint16_t)own;
    if (own >> 16 != 0 && own >> 16 < high)
        high = (uint16_t)(own >> 16);
    if (low > high) {
        low = first;
        high = last;
    }
    *out_low = low;
    return (uint32_t)high - low + 1;
}

/* Where the search for a port begins: not to be foreseen, and spread out. */
static uint32_t port_start(struct inet *in, const struct net_ep *remote)
{
    const uint32_t n = atomic_fetch_add_explicit(&in->next_hint, 1, memory_order_relaxed);

    return (uint32_t)hash_seeded(remote, sizeof(*remote)) + n;
}

int inet_port_bind_locked(struct inet_sock *s, uint16_t port)
{
    uint16_t low;
    const uint32_t count = port_range(s, &low);

    if (port)
        return port_try(s, port, true, false);
    const uint32_t start = (uint32_t)hash_seeded_u64(s->base.cookie, s->in->next_hint);
    for (int fresh = 1; fresh >= 0; fresh--) {
        for (uint32_t i = 0; i < count; i++) {
            int r = port_try(s, (uint16_t)(low + (start + i) % count), true, fresh);
            if (r != -EADDRINUSE)
                return r;
        }
    }
    return -EADDRINUSE;
}

int inet_port_auto_locked(struct inet_sock *s)
{
    if (s->port)
        return 0;
    int r = inet_port_bind_locked(s, 0);
    if (r == 0)
        s->port_bound = false;
    return r == -EADDRINUSE ? -EAGAIN : r;
}

int inet_port_listen_locked(struct inet_sock *s)
{
    struct inet_bucket *b = bucket_of(s->in, INET_TCP, s->local.port);
    int r = 0;

    mutex_lock(&b->mu);
    if (port_conflict_locked(s->port, s))
        r = -EADDRINUSE;
    else if (list_empty(&s->listening))
        list_add_tail(&s->listening, &s->port->listeners);
    mutex_unlock(&b->mu);
    return r;
}

void inet_port_deaf_locked(struct inet_sock *s)
{
    struct inet_bucket *b = bucket_of(s->in, INET_TCP, s->local.port);

    mutex_lock(&b->mu);
    list_del(&s->listening);
    mutex_unlock(&b->mu);
}

void inet_port_share_locked(struct inet_sock *listener, struct inet_sock *child)
{
    struct inet_bucket *b = bucket_of(child->in, INET_TCP, listener->local.port);

    mutex_lock(&b->mu);
    if (listener->port)
        port_own_locked(listener->port, child, false);
    mutex_unlock(&b->mu);
}

void inet_port_drop_locked(struct inet_sock *s)
{
    struct inet_port *p = s->port;

    if (!p)
        return;
    struct inet_bucket *b = bucket_of(s->in, p->table, p->number);
    mutex_lock(&b->mu);
    list_del(&s->owner);
    list_del(&s->listening);
    p->bound -= s->port_bound;
    s->port = NULL;
    s->port_bound = false;
    port_free_if_idle_locked(p);
    mutex_unlock(&b->mu);
}

void inet_names_set_locked(struct inet_sock *s, const struct net_ep *local,
                           const struct net_ep *remote)
{
    struct inet_bucket *b = bucket_of(s->in, inet_table_of(s), s->local.port);

    mutex_lock(&b->mu);
    s->local = *local;
    s->remote = *remote;
    mutex_unlock(&b->mu);
}

/* ---- bind(2) ---- */

static int bind_check(const struct inet_sock *s, const struct net_ep *e, const struct vfs_caller *c)
{
    const struct net_settings *set = net_settings(s->base.net);

    if (s->base.family == AF_INET6 && e->addr.family == AF_INET && inet_opt(s, INET_V6ONLY))
        return -EINVAL;
    if (e->addr.family == AF_INET6 && net_addr_is_multicast(&e->addr) &&
        s->base.type == SOCK_STREAM)
        return -EINVAL;
    if (!net_addr_is_any(&e->addr) && !net_addr_is_multicast(&e->addr) &&
        !inet_opt(s, INET_FREEBIND) && !inet_opt(s, INET_TRANSPARENT) && !set->nonlocal_bind &&
        !inet_is_local(s->base.net, &e->addr) &&
        !(e->addr.family == AF_INET && e->addr.v4 == INADDR_BROADCAST))
        return -EADDRNOTAVAIL;
    if (e->port && e->port < set->unprivileged_port &&
        !net_capable(s->base.net, c->cred, CAP_NET_BIND_SERVICE))
        return -EACCES;
    return 0;
}

static int bind_addr_in(const struct inet_sock *s, const struct sock_addr *a, struct net_ep *out)
{
    struct sock_addr any = *a;

    /* Programs of old gave no family for "any" (inet_bind of the kernel). */
    if (s->base.family == AF_INET && a->len >= sizeof(struct sockaddr_in) &&
        a->family == AF_UNSPEC && a->in.sin_addr.s_addr == INADDR_ANY)
        any.family = AF_INET;
    if (s->base.family == AF_INET6 && a->len >= sizeof(sa_family_t) && a->family == AF_INET)
        return a->len < 24 ? -EINVAL : -EAFNOSUPPORT;
    return inet_addr_in(s, &any, out);
}

int inet_bind(struct sock *base, const struct sock_addr *a, const struct vfs_caller *c)
{
    struct inet_sock *s = inet_of(base);
    struct net_ep e;
    int r = bind_addr_in(s, a, &e);

    if (r == 0)
        r = bind_check(s, &e, c);
    if (r)
        return r;
    if (base->type == SOCK_STREAM)
        tcp_closed_expire(s->in, false);
    mutex_lock(&s->mu);
    if (s->port || s->addr_bound || s->remote.addr.family) {
        r = -EINVAL;
    } else {
        s->local.addr = e.addr;
        s->local.ifindex = e.ifindex;
        if (e.port || !inet_opt(s, INET_NO_PORT))
            r = inet_port_bind_locked(s, e.port);
        if (r)
            memset(&s->local, 0, sizeof(s->local));
        else
            s->addr_bound = !net_addr_is_any(&e.addr);
    }
    mutex_unlock(&s->mu);
    return r;
}

/* ---- connected pairs of names ---- */

static uint32_t tuple_hash(const struct net_ep *local, const struct net_ep *remote)
{
    const struct net_ep both[2] = {{.addr = local->addr, .port = local->port},
                                   {.addr = remote->addr, .port = remote->port}};

    return (uint32_t)hash_seeded(both, sizeof(both)) % INET_TUPLES;
}

static bool ep_equal(const struct net_ep *a, const struct net_ep *b)
{
    return a->port == b->port && net_addr_equal(&a->addr, &b->addr);
}

int inet_tuple_add_locked(struct inet_sock *s)
{
    struct inet *in = s->in;
    const uint32_t h = tuple_hash(&s->local, &s->remote);
    struct inet_sock *o;

    if (ext_tcp_in_use(s->base.net, &s->local, &s->remote))
        return -EADDRNOTAVAIL;
    mutex_lock(&in->tuple_mu[h % INET_TUPLE_LOCKS]);
    for (o = in->tuples[h]; o; o = o->tuple_next)
        if (ep_equal(&o->local, &s->local) && ep_equal(&o->remote, &s->remote))
            break;
    if (!o) {
        s->tuple_next = in->tuples[h];
        s->tuple_link = &in->tuples[h];
        if (s->tuple_next)
            s->tuple_next->tuple_link = &s->tuple_next;
        in->tuples[h] = s;
    }
    mutex_unlock(&in->tuple_mu[h % INET_TUPLE_LOCKS]);
    return o ? -EADDRNOTAVAIL : 0;
}

void inet_tuple_del(struct inet_sock *s)
{
    const uint32_t h = tuple_hash(&s->local, &s->remote);

    mutex_lock(&s->in->tuple_mu[h % INET_TUPLE_LOCKS]);
    if (s->tuple_link) {
        *s->tuple_link = s->tuple_next;
        if (s->tuple_next)
            s->tuple_next->tuple_link = s->tuple_link;
        s->tuple_link = NULL;
        s->tuple_next = NULL;
    }
    mutex_unlock(&s->in->tuple_mu[h % INET_TUPLE_LOCKS]);
}

int inet_tuple_auto_locked(struct inet_sock *s)
{
    uint16_t low;
    const uint32_t count = port_range(s, &low);

    if (s->port)
        return inet_tuple_add_locked(s);
    const uint32_t start = port_start(s->in, &s->remote);
    for (uint32_t i = 0; i < count; i++) {
        int r = port_try(s, (uint16_t)(low + (start + i) % count), false, false);
        if (r == -EADDRINUSE)
            continue;
        if (r)
            return r;
        if (inet_tuple_add_locked(s) == 0)
            return 0;
        inet_port_drop_locked(s);
        s->local.port = 0;
    }
    return -EADDRNOTAVAIL;
}

/* ---- look-ups ---- */

static int match_score(const struct inet_sock *s, const struct net_ep *local,
                       const struct net_ep *remote)
{
    const struct net_addr *mine = &s->local.addr;
    const bool v6any =
        s->base.family == AF_INET6 && mine->family != AF_INET && net_addr_is_any(mine);
    const uint32_t bound_if = atomic_load(&s->bound_if);
    int score = s->base.family == local->addr.family ? 1 : 0;

    if (local->addr.family == AF_INET) {
        if (s->base.family == AF_INET6 && inet_opt(s, INET_V6ONLY))
            return -1;
        if (v6any || (mine->family != AF_INET6 && net_addr_is_any(mine)))
            score += 0;
        else if (mine->family == AF_INET && mine->v4 == local->addr.v4)
            score += 16;
        else
            return -1;
    } else {
        if (s->base.family != AF_INET6)
            return -1;
        if (!v6any && !net_addr_equal(mine, &local->addr))
            return -1;
        score += v6any ? 0 : 16;
    }
    if (s->remote.addr.family) {
        if (!net_addr_equal(&s->remote.addr, &remote->addr) ||
            (s->remote.port && s->remote.port != remote->port))
            return -1;
        score += 8;
    }
    if (bound_if) {
        if (bound_if != local->ifindex)
            return -1;
        score += 4;
    }
    return score;
}

bool inet_matches(const struct inet_sock *s, const struct net_ep *local,
                  const struct net_ep *remote)
{
    return match_score(s, local, remote) >= 0;
}

struct find {
    int score;
    unsigned count; /* of those with SO_REUSEPORT that match as well as the best */
    struct inet_sock *best;
};

static void find_look(struct find *f, struct inet_sock *s, const struct net_ep *local,
                      const struct net_ep *remote)
{
    const int score = match_score(s, local, remote);

    if (score < 0 || score < f->score)
        return;
    const bool shared = sock_option(&s->base, SO_REUSEPORT);
    if (score > f->score) {
        f->best = s;
        f->score = score;
        f->count = shared;
    } else if (shared) {
        f->count++;
    }
}

/* The one of the flow among count that share a port: a second pass, so that each has its part. */
static struct inet_sock *find_share(const struct find *f, struct list *head, bool tcp,
                                    const struct net_ep *local, const struct net_ep *remote)
{
    const struct net_ep flow[2] = {*local, *remote};
    unsigned n = (unsigned)(hash_seeded(flow, sizeof(flow)) % f->count);

    for (struct list *l = head->next; l != head; l = l->next) {
        struct inet_sock *s = tcp ? list_entry(l, struct inet_sock, listening)
                                  : list_entry(l, struct inet_sock, owner);
        if (sock_option(&s->base, SO_REUSEPORT) && match_score(s, local, remote) == f->score &&
            n-- == 0)
            return s;
    }
    return f->best;
}

struct inet_sock *inet_find(struct inet *in, enum inet_table table, const struct net_ep *local,
                            const struct net_ep *remote)
{
    struct inet_bucket *b = bucket_of(in, table, local->port);
    struct find f = {.score = -1};

    mutex_lock(&b->mu);
    struct inet_port *p = port_find_locked(b, local->port);
    if (p) {
        struct list *head = table == INET_TCP ? &p->listeners : &p->owners;
        for (struct list *l = head->next; l != head; l = l->next)
            find_look(&f,
                      table == INET_TCP ? list_entry(l, struct inet_sock, listening)
                                        : list_entry(l, struct inet_sock, owner),
                      local, remote);
        if (f.count > 1)
            f.best = find_share(&f, head, table == INET_TCP, local, remote);
    }
    if (f.best && !ref_tryget(&f.best->base.ref))
        f.best = NULL;
    mutex_unlock(&b->mu);
    return f.best;
}

size_t inet_find_all(struct inet *in, enum inet_table table, const struct net_ep *local,
                     const struct net_ep *remote, struct inet_sock **out, size_t max)
{
    struct inet_bucket *b = bucket_of(in, table, local->port);
    struct inet_sock *s;
    size_t n = 0;

    mutex_lock(&b->mu);
    struct inet_port *p = port_find_locked(b, local->port);
    if (p) {
        list_for_each_entry (s, &p->owners, owner) {
            if (n == max)
                break;
            if (match_score(s, local, remote) >= 0 && ref_tryget(&s->base.ref))
                out[n++] = s;
        }
    }
    mutex_unlock(&b->mu);
    return n;
}

/* ---- TIME_WAIT ---- */

void tcp_closed_add_locked(struct inet_sock *s)
{
    struct inet *in = s->in;
    struct tcp_closed *c;

    if (!s->port || !(c = calloc(1, sizeof(*c))))
        return;
    c->local = s->local;
    c->remote = s->remote;
    c->family = s->base.family;
    c->reuse = sock_option(&s->base, SO_REUSEADDR);
    c->reuseport = sock_option(&s->base, SO_REUSEPORT);
    c->uid = s->uid;
    c->expires = mono_now() + TIME_WAIT_NS;
    c->port = s->port;
    struct inet_bucket *b = bucket_of(in, INET_TCP, s->local.port);
    mutex_lock(&b->mu);
    list_add(&c->of_port, &s->port->closed);
    mutex_lock(&in->closed_mu);
    /* More than Linux keeps (tcp_max_tw_buckets) are forgotten at once. */
    const bool full = in->closed_count >= LIMIT_TCP_TIME_WAIT;
    if (!full) {
        list_add_tail(&c->node, &in->closed);
        in->closed_count++;
    }
    mutex_unlock(&in->closed_mu);
    if (full)
        list_del(&c->of_port);
    mutex_unlock(&b->mu);
    if (full)
        free(c);
}

/* The oldest, out of inet.closed, when its time has come. */
static struct tcp_closed *closed_take(struct inet *in, uint64_t now, bool all)
{
    struct tcp_closed *c = NULL;

    mutex_lock(&in->closed_mu);
    if (!list_empty(&in->closed)) {
        c = list_first_entry(&in->closed, struct tcp_closed, node);
        if (c->expires <= now || all) {
            list_del(&c->node);
            in->closed_count--;
        } else {
            c = NULL;
        }
    }
    mutex_unlock(&in->closed_mu);
    return c;
}

void tcp_closed_expire(struct inet *in, bool all)
{
    const uint64_t now = mono_now();
    struct tcp_closed *c;

    while ((c = closed_take(in, now, all)) != NULL) {
        struct inet_bucket *b = bucket_of(in, INET_TCP, c->local.port);
        mutex_lock(&b->mu);
        list_del(&c->of_port);
        port_free_if_idle_locked(c->port);
        mutex_unlock(&b->mu);
        free(c);
    }
}
