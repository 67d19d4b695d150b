#include "sentry/cred/user_ns.h"
#include "sentry/net/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "base/limits.h"
#include "sentry/errno_internal.h"
#include "sentry/net/filter.h"
#include "sentry/net/host/host.h"
#include "sentry/net/ifioctl.h"
#include "sentry/net/ip/ext.h"
#include "sentry/net/net_priv.h"
#include "sentry/net/netlink/netlink.h"
#include "sentry/net/ns/netns.h"
#include "sentry/net/packet/packet.h"

#define NS_PER_SEC 1000000000ull
#define SOCKBUF_MIN 4608u

void sock_init(struct sock *s, const struct sock_ops *ops, struct net *n, int family, int type,
               int protocol)
{
    s->ops = ops;
    s->net = net_get(n);
    s->family = family;
    s->type = type;
    s->protocol = protocol;
    ref_init(&s->ref);
    atomic_init(&s->sndbuf, LIMIT_SOCKBUF_DEFAULT);
    atomic_init(&s->rcvbuf, LIMIT_SOCKBUF_DEFAULT);
    atomic_init(&s->rcvlowat, 1);
    atomic_init(&s->peek_off, -1);
    atomic_init(&s->incoming_cpu, UINT32_MAX);
    atomic_init(&s->pacing_rate, UINT64_MAX);
    s->cookie = atomic_fetch_add_explicit(&n->next_cookie, 1, memory_order_relaxed) + 1;
}

void sock_get(struct sock *s)
{
    ref_get(&s->ref);
}

void sock_put(struct sock *s)
{
    struct net *n = s->net;

    if (!ref_put(&s->ref))
        return;
    sock_filter_fini(s);
    struct cred_domain *domain = s->domain;
    s->ops->release(s);
    if (domain && ref_put(&domain->ref))
        domain->release(domain);
    net_put(n);
}

int sock_no_listen(struct sock *s, int backlog, const struct vfs_caller *c)
{
    (void)s;
    (void)backlog;
    (void)c;
    return -EOPNOTSUPP;
}

int sock_no_connect(struct sock *s, const struct sock_addr *a, bool nonblock,
                    const struct vfs_caller *c)
{
    (void)s;
    (void)a;
    (void)nonblock;
    (void)c;
    return -EOPNOTSUPP;
}

int sock_no_accept(struct sock *s, bool nonblock, const struct vfs_caller *c,
                   struct sock **out_sock)
{
    (void)s;
    (void)nonblock;
    (void)c;
    (void)out_sock;
    return -EOPNOTSUPP;
}

int sock_no_shutdown(struct sock *s, int how)
{
    (void)s;
    (void)how;
    return -EOPNOTSUPP;
}

deadline_t sock_deadline(uint64_t timeo_ns)
{
    return timeo_ns ? mono_now() + timeo_ns : DEADLINE_NEVER;
}

int sock_wait_error(int err, uint64_t timeo_ns)
{
    if (err == -ETIMEDOUT)
        return -EAGAIN;
    if (err == -EINTR)
        return timeo_ns ? -EINTR : -ERESTARTSYS;
    return err;
}

void sock_control_fini(struct sock_control *c)
{
    for (size_t i = 0; i < c->file_count; i++)
        file_put(c->files[i]);
    free(c->files);
    free(c->items);
    procref_put(c->process);
    memset(c, 0, sizeof(*c));
}

int sock_control_put(struct sock_control *c, int level, int type, const void *data, size_t size)
{
    const struct sock_item h = {.size = (uint32_t)size, .level = level, .type = type};

    if (size > SOCK_ITEMS_MAX)
        return -ENOBUFS;
    const size_t need = c->items_size + SOCK_ITEM_SPACE(size);
    if (need > SOCK_ITEMS_MAX)
        return -ENOBUFS;
    if (need > c->items_space) {
        const size_t space = MAX(need, (size_t)128);
        uint8_t *p = realloc(c->items, space);
        if (!p)
            return -ENOBUFS;
        c->items = p;
        c->items_space = space;
    }
    uint8_t *at = c->items + c->items_size;
    memset(at, 0, need - c->items_size);
    memcpy(at, &h, sizeof(h));
    if (size > 0)
        memcpy(at + sizeof(h), data, size);
    c->items_size = need;
    return 0;
}

bool sock_control_next(const struct sock_control *c, size_t *pos, struct sock_item *out_item,
                       const uint8_t **out_data)
{
    if (*pos >= c->items_size)
        return false;
    memcpy(out_item, c->items + *pos, sizeof(*out_item));
    *out_data = c->items + *pos + sizeof(*out_item);
    *pos += SOCK_ITEM_SPACE(out_item->size);
    return true;
}

/* ---- namespace ---- */

static const struct sock_family families[] = {
    {.family = AF_UNIX, .create = unix_create, .create_pair = unix_create_pair},
    {.family = AF_INET, .create = inet_create},
    {.family = AF_INET6, .create = inet_create},
    {.family = AF_NETLINK, .create = netlink_create},
    {.family = AF_PACKET, .create = packet_create},
};

static void settings_init(struct net_settings *s)
{
    *s = (struct net_settings){
        .somaxconn = LIMIT_SOMAXCONN,
        .max_dgram_qlen = LIMIT_UNIX_PACKETS,
        .port_range = (uint64_t)LIMIT_PORT_LOW << 32 | LIMIT_PORT_HIGH,
        /* Any group, as container engines set it. */
        .ping_groups = INT32_MAX,
        .unprivileged_port = 1024,
        .ttl = 64,
        .keepalive_time = 7200,
        .keepalive_intvl = 75,
        .keepalive_probes = 9,
        .fin_timeout = 60,
        .syn_retries = 6,
    };
}

struct net_settings *net_settings(struct net *n)
{
    return &n->settings;
}

void net_set_owner(struct net *n, struct user_ns *owner)
{
    n->owner = user_ns_get(owner);
}

bool net_capable(const struct net *n, const struct cred *c, int cap)
{
    return cred_ns_capable(c, n->owner, cap);
}

int net_new(struct memfile *mf, struct net **out_net)
{
    struct net *n = calloc(1, sizeof(*n));

    if (!n)
        return -ENOMEM;
    ref_init(&n->ref);
    settings_init(&n->settings);
    int r = netns_new(&n->ns);
    if (r == 0)
        r = netlink_new(n, n->ns, &n->netlink);
    if (r == 0)
        r = inet_new(&n->inet);
    if (r == 0)
        r = ext_new(n, &n->ext);
    if (r == 0)
        r = packet_new(mf, &n->packet);
    if (r) {
        ext_free(n->ext);
        inet_free(n->inet);
        netlink_free(n->netlink);
        netns_free(n->ns);
        free(n);
        return r;
    }
    mutex_init(&n->mu, LOCK_RANK_LEAF);
    for (size_t i = 0; i < ARRAY_SIZE(n->abstract); i++)
        list_init(&n->abstract[i]);
    list_init(&n->unix_all);
    list_init(&n->in_flight);
    list_init(&n->drop);
    *out_net = n;
    return 0;
}

struct net *net_get(struct net *n)
{
    ref_get(&n->ref);
    return n;
}

void net_free(struct net *n)
{
    if (n)
        net_put(n);
}

void net_put(struct net *n)
{
    if (!ref_put(&n->ref))
        return;
    ext_free(n->ext);
    packet_free(n->packet);
    inet_free(n->inet);
    netlink_free(n->netlink);
    netns_free(n->ns);
    host_net_free(n->host);
    user_ns_put(n->owner);
    mutex_destroy(&n->mu);
    free(n);
}

struct inet *net_inet(struct net *n)
{
    return n->inet;
}

struct netns *net_ns(struct net *n)
{
    return n->ns;
}

struct nl_table *net_netlink(struct net *n)
{
    return n->netlink;
}

struct packet_table *net_packet(struct net *n)
{
    return n->packet;
}

struct ext_stack *net_ext(struct net *n)
{
    return n->ext;
}

struct host_net *net_host(struct net *n)
{
    return n->host;
}

int net_set_host(struct net *n, int fd)
{
    return host_net_new(fd, &n->host);
}

static int sock_check(struct net *n, int family, int type, int protocol,
                      const struct sock_family **out)
{
    static const struct sock_family host = {.family = AF_UNSPEC, .create = host_create};

    if (family < 0 || family >= AF_MAX)
        return -EAFNOSUPPORT;
    if (type < 0 || type > SOCK_PACKET)
        return -EINVAL;
    if (n && n->host && host_net_serves(family, protocol)) {
        *out = &host;
        return 0;
    }
    for (size_t i = 0; n && i < ARRAY_SIZE(families); i++) {
        if (families[i].family == family) {
            *out = &families[i];
            return 0;
        }
    }
    return -EAFNOSUPPORT;
}

int sock_create(struct net *n, int family, int type, int protocol, const struct vfs_caller *c,
                struct sock **out_sock)
{
    const struct sock_family *f;
    int r = sock_check(n, family, type, protocol, &f);

    return r ? r : f->create(n, family, type, protocol, c, out_sock);
}

/* The kernel makes both sockets before it asks for a pair, so their errors come first. */
int sock_create_pair(struct net *n, int family, int type, int protocol, const struct vfs_caller *c,
                     struct sock *out_pair[2])
{
    const struct sock_family *f;
    struct sock *s;
    int r = sock_check(n, family, type, protocol, &f);

    if (r)
        return r;
    if (f->create_pair)
        return f->create_pair(n, type, protocol, c, out_pair);
    r = f->create(n, family, type, protocol, c, &s);
    if (r)
        return r;
    s->ops->close(s);
    sock_put(s);
    return -EOPNOTSUPP;
}

/* ---- the file ---- */

static struct sock *sock_of(const struct file *f)
{
    return f->priv;
}

static bool file_nonblock(const struct file *f)
{
    return atomic_load_explicit(&f->flags, memory_order_relaxed) & O_NONBLOCK;
}

static int64_t sock_file_read(struct file *f, struct uio *u, int64_t *pos,
                              const struct vfs_caller *c)
{
    struct sock *s = sock_of(f);
    struct sock_msg m = {.u = u};

    (void)pos;
    /* read(2) of nothing does not look at the socket (sock_read_iter of the kernel). */
    return u->left ? s->ops->recv(s, &m, file_nonblock(f), c) : 0;
}

static int64_t sock_file_write(struct file *f, struct uio *u, int64_t *pos,
                               const struct vfs_caller *c)
{
    struct sock *s = sock_of(f);
    struct sock_msg m = {.u = u};

    (void)pos;
    return s->ops->send(s, &m, file_nonblock(f), c);
}

static uint32_t sock_file_poll(struct file *f, struct waiter *w)
{
    struct sock *s = sock_of(f);

    return s->ops->poll(s, w);
}

/* What is no number of bytes: of the family, or about links as any socket may ask. */
static int64_t sock_other_ioctl(struct sock *s, unsigned cmd, uint64_t arg,
                                const struct uaccess *ua, const struct vfs_caller *c)
{
    const int64_t n = s->ops->ioctl ? s->ops->ioctl(s, cmd, arg, ua, c) : -ENOTTY;

    if (n != -ENOTTY)
        return n;
    return s->net->host ? host_ifioctl(s->net, cmd, arg, ua) : net_ifioctl(s->net, cmd, arg, ua, c);
}

static int64_t sock_file_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                               const struct vfs_caller *c)
{
    struct sock *s = sock_of(f);

    if (cmd != FIONREAD && cmd != TIOCOUTQ)
        return sock_other_ioctl(s, cmd, arg, ua, c);
    const int64_t n = cmd == FIONREAD ? s->ops->readable(s) : s->ops->unsent(s);
    if (n < 0)
        return n;
    const int32_t value = n > INT32_MAX ? INT32_MAX : (int32_t)n;
    return copyout_obj(ua, uaddr(arg), &value);
}

static int sock_file_mmap(struct file *f, int prot, int flags, struct mappable **out)
{
    struct sock *s = sock_of(f);

    (void)prot;
    (void)flags;
    return s->ops->mmap ? s->ops->mmap(s, out) : -ENODEV;
}

static void sock_file_linger(struct file *f, const struct vfs_caller *c)
{
    struct sock *s = sock_of(f);
    const uint64_t l = atomic_load_explicit(&s->linger, memory_order_relaxed);

    if (UNLIKELY(l >> 32 != 0 && (uint32_t)l != 0) && s->ops->linger)
        s->ops->linger(s, c);
}

static void sock_file_release(struct file *f)
{
    struct sock *s = sock_of(f);

    s->ops->close(s);
    sock_put(s);
}

static const struct file_ops sock_file_ops = {
    .read = sock_file_read,
    .write = sock_file_write,
    .poll = sock_file_poll,
    .ioctl = sock_file_ioctl,
    .mmap = sock_file_mmap,
    .linger = sock_file_linger,
    .release = sock_file_release,
};

int sock_file(struct sock *s, uint32_t flags, struct file **out_file)
{
    int r = vfs_anon_file("socket:", S_IFSOCK | 0777, &sock_file_ops, s,
                          O_RDWR | (flags & O_NONBLOCK), out_file);

    if (r == 0)
        s->file = *out_file;
    return r;
}

int sock_from_file(struct file *f, struct sock **out_sock)
{
    if (f->ops != &sock_file_ops)
        return -ENOTSOCK;
    *out_sock = sock_of(f);
    return 0;
}

bool sock_file_raises(struct file *f)
{
    return f->ops != &sock_file_ops || sock_of(f)->type == SOCK_STREAM;
}
