/* Inside ip: a connection of the external stack around the TCP engine.
 * Depends on: ip_priv.h.
 * Threading: c and what follows mu are guarded by mu (rank EXT_TCP).
 * Ownership: references: the table's, the user's, and one of an armed timer. */
#ifndef RINGWALL_SENTRY_NET_IP_EXT_TCP_H
#define RINGWALL_SENTRY_NET_IP_EXT_TCP_H

#include "base/ref.h"
#include "sentry/net/ip/ip_priv.h"

struct ext_tcp {
    struct ref ref;
    struct ext_stack *st;
    struct net_ep local, remote; /* immutable */
    struct list node;            /* guard: its bucket's lock */
    bool hashed;                 /* guard: its bucket's lock */
    struct mutex mu;
    struct tce_conn c;
    struct ext_timer timer;
    uint64_t timer_at;
    ext_tcp_event fn; /* NULL: no user, or none yet */
    void *user;
    struct sock *listener; /* owned, till the handshake is over */
    bool promote;          /* to be handed to the listener */
    bool counted;          /* one of half_open */
    bool deferred;         /* the listener counts it (inet_tcp_defer_begin) */
    uint64_t defer_until;  /* without data it is handed over then; or when to try again */
    uint64_t defer_end;    /* when a full queue is no more waited for */
    uint8_t ttl, tos, min_ttl;
    struct netns_path path;
    uint32_t path_generation;
};

/* ---- ext_tcp.c ---- */
/* A new connection in the table: -EADDRNOTAVAIL when its ends are taken. Owned by the caller too.
 */
MUST_CHECK int exttcp_new(struct ext_stack *st, const struct net_ep *local,
                          const struct net_ep *remote, const struct tce_config *cfg,
                          struct ext_tcp **out);
struct ext_tcp *exttcp_find(struct ext_stack *st, const struct net_ep *local,
                            const struct net_ep *remote);
void exttcp_put(struct ext_tcp *t);
/* Arms the timer; call before mu is dropped. True: it is over, call exttcp_remove without mu. */
bool exttcp_settle_locked(struct ext_tcp *t);
void exttcp_remove(struct ext_tcp *t);
struct tce_config exttcp_config(const struct ext_tcp_options *o, uint32_t mtu, unsigned family);
uint32_t exttcp_iss(const struct net_ep *local, const struct net_ep *remote, uint64_t now);

/* ---- ext_syn.c ---- */
/* A segment for which there is no connection. */
void exttcp_stranger(const struct ip_in *in, const struct net_ep *local,
                     const struct net_ep *remote, const struct tce_in *seg);
/* Sends a segment that belongs to no connection. */
void exttcp_send_bare(const struct ip_in *in, const struct net_ep *local,
                      const struct net_ep *remote, const struct tce_out *o);
void exttcp_send_reset(const struct ip_in *in, const struct net_ep *local,
                       const struct net_ep *remote, const struct tce_in *seg);

#endif
