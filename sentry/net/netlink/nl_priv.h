/* Inside netlink: sockets, requests, and how messages are put together and taken apart.
 * Depends on: netlink.h, ns/netns.h.
 * Threading: a socket's fields are guarded as said; a request lives in one call of send.
 * Ownership: queued messages are owned by their queue. */
#ifndef RINGWALL_SENTRY_NET_NETLINK_NL_PRIV_H
#define RINGWALL_SENTRY_NET_NETLINK_NL_PRIV_H

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "base/list.h"
#include "base/lock.h"
#include "base/wbuf.h"
#include "sentry/net/netlink/netlink.h"
#include "sentry/net/ns/netns.h"

/* One piece of a dump, and the longest single answer. */
#define NL_CHUNK 3776u
/* Groups that a bitmap in sockaddr_nl can name, and those there are. */
#define NL_GROUPS 64u

struct nl_table {
    struct net *net;      /* borrowed */
    struct netns *ns;     /* borrowed */
    struct mutex mu;      /* rank NETLINK */
    struct list socks;    /* nl_sock.node; guard: mu */
    uint64_t next_cookie; /* uevent sequence; guard: mu */
};

struct nl_msg {
    struct list node;
    uint32_t from, group; /* sender's number; the group it was sent to, or 0 */
    struct sock_cred cred;
    size_t size;
    uint8_t data[];
};

struct nl_dump;
/* Adds messages from d->pos on until w is full (1) or there are no more (0). */
typedef int (*nl_fill_fn)(struct nl_dump *d, struct wbuf *w);

/* A dump that is under way, guarded by the socket's mu. */
struct nl_dump {
    nl_fill_fn fill; /* NULL: none */
    struct nl_table *table;
    uint64_t pos;
    uint32_t seq, portid, generation;
    bool interrupted, strict;
    int family;
    int32_t ifindex;   /* filter: 0 any */
    uint32_t table_id; /* filter: 0 any */
    uint32_t ext_mask;
    uint8_t diag[64]; /* the request of sock_diag */
};

struct nl_sock {
    struct sock base;
    struct nl_table *table;
    struct list node; /* guard: table->mu */
    struct waitq wq;
    struct mutex mu; /* rank NETLINK_SOCK: guards what follows */
    struct list queue;
    size_t queue_bytes;
    struct nl_dump dump;
    uint64_t drops;
    uint32_t dst_portid, dst_groups;
    bool congested;           /* something was lost; told once */
    _Atomic uint32_t portid;  /* 0: not bound; changed under table->mu */
    _Atomic uint64_t groups;  /* changed under table->mu */
    _Atomic uint32_t options; /* bit NETLINK_x */
};

static inline struct nl_sock *nl_of(struct sock *s)
{
    return container_of(s, struct nl_sock, base);
}

static inline bool nl_option(const struct nl_sock *s, int name)
{
    return atomic_load_explicit(&s->options, memory_order_relaxed) & (1u << name);
}

/* One message of a request. */
struct nl_req {
    struct nl_sock *s;
    struct nl_table *t;
    struct netns *ns;
    const struct vfs_caller *c;
    struct nlmsghdr h;
    const uint8_t *body; /* behind the header */
    size_t size;
    struct wbuf *out; /* an answer that is no dump */
    const char *why;  /* extended acknowledgement, or NULL */
};
/* 0 or a negative errno for the acknowledgement. */
typedef int (*nl_handler)(struct nl_req *q);

/* ---- nl_msg.c: putting messages together ---- */
/* Starts a message; its offset goes to nl_end. */
size_t nl_begin(struct wbuf *w, uint16_t type, uint16_t flags, uint32_t seq, uint32_t portid);
void nl_end(struct wbuf *w, size_t start);
void nl_attr(struct wbuf *w, uint16_t type, const void *data, size_t size);
void nl_attr_u32(struct wbuf *w, uint16_t type, uint32_t v);
void nl_attr_str(struct wbuf *w, uint16_t type, const char *s);
size_t nl_nest(struct wbuf *w, uint16_t type);

/* ---- nl_msg.c: taking them apart ---- */
struct nl_attr {
    const uint8_t *data; /* NULL: not given */
    size_t size;
};
/* Fills tb[0..max] from attributes; the last of a type counts, unknown types are skipped. -EINVAL
 * when one does not fit. */
MUST_CHECK int nl_parse(const uint8_t *data, size_t size, struct nl_attr *tb, unsigned max);
/* The attribute's value, or what is missing in it as zero. */
uint32_t nl_get_u32(const struct nl_attr *a);
uint8_t nl_get_u8(const struct nl_attr *a);
/* An address of the family; -EINVAL when its size is another. */
MUST_CHECK int nl_get_addr(const struct nl_attr *a, unsigned family, struct net_addr *out);
/* An interface name, NUL-terminated; -EINVAL. */
MUST_CHECK int nl_get_name(const struct nl_attr *a, char out[IFNAMSIZ]);
/* Copies a fixed header of size bytes from the body; -EINVAL when it is shorter. */
MUST_CHECK int nl_header(const struct nl_req *q, void *dst, size_t size);
/* The attributes behind a fixed header. */
MUST_CHECK int nl_parse_after(const struct nl_req *q, size_t header, struct nl_attr *tb,
                              unsigned max);

/* ---- nl_sock.c ---- */
/* Puts a copy into s's queue: -ENOBUFS when it is full. */
MUST_CHECK int nl_deliver(struct nl_sock *s, const void *data, size_t size, uint32_t from,
                          uint32_t group, const struct sock_cred *cred);
/* To every socket of the protocol in the group, except one (or NULL). */
void nl_multicast(struct nl_table *t, int protocol, uint32_t group, const void *data, size_t size,
                  uint32_t from, const struct nl_sock *except, const struct sock_cred *cred);
bool nl_has_listeners(struct nl_table *t, int protocol, uint32_t group);
/* Starts a dump for q: -EBUSY while another is under way. */
MUST_CHECK int nl_dump_start(struct nl_req *q, nl_fill_fn fill, struct nl_dump *d);
MUST_CHECK int nl_autobind(struct nl_sock *s, const struct vfs_caller *c);

/* ---- nl_request.c ---- */
/* Carries out the messages of a datagram and queues the answers. */
void nl_request(struct nl_sock *s, const uint8_t *data, size_t size, const struct vfs_caller *c);
bool nl_may_admin(const struct nl_req *q);
/* One dump row: false when it did not fit and nothing was added. */
#define NL_DUMP_ROW(w, saved)                                                                      \
    ((w)->failed ? ((w)->len = (saved), (w)->failed = false, false) : true)

/* ---- the protocols: the handler of a message type, or NULL ---- */
nl_handler nl_route_handler(uint16_t type);
nl_handler nl_diag_handler(uint16_t type);
int nl_route_link(struct nl_req *q);
int nl_route_addr(struct nl_req *q);
int nl_route_route(struct nl_req *q);
int nl_route_neigh(struct nl_req *q);
int nl_route_rule(struct nl_req *q);
/* Messages about one object, as answers and notices. */
void nl_put_link(struct wbuf *w, const struct netns_link *l, uint16_t type, uint16_t flags,
                 uint32_t seq, uint32_t portid);
void nl_put_addr(struct wbuf *w, const struct netns_ifaddr *a, const char *name, uint16_t type,
                 uint16_t flags, uint32_t seq, uint32_t portid);
void nl_put_route(struct wbuf *w, const struct netns_route *r, uint16_t type, uint16_t flags,
                  uint32_t seq, uint32_t portid);
void nl_put_neigh(struct wbuf *w, const struct netns_neigh *n, uint16_t type, uint16_t flags,
                  uint32_t seq, uint32_t portid);
/* nl_notify.c */
extern const struct netns_events nl_events;

#endif
