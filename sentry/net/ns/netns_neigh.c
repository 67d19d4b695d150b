/* Neighbours: who answers to which address on a link. */
#include <errno.h>
#include <linux/neighbour.h>
#include <stdlib.h>

#include "base/limits.h"
#include "sentry/net/ns/netns_priv.h"
#include "sentry/wait/wait.h"

void ns_tell_neigh(struct netns *ns, const struct netns_neigh *n, bool del)
{
    if (ns->events && ns->events->neigh)
        ns->events->neigh(ns->events_arg, n, del);
}

void netns_for_neighs(struct netns *ns, netns_neigh_fn fn, void *arg)
{
    struct ns_neigh *n;

    rwlock_rdlock(&ns->lock);
    list_for_each_entry (n, &ns->neighs, node) {
        if (!fn(arg, &n->n))
            break;
    }
    rwlock_unlock(&ns->lock);
}

static struct ns_neigh *find_locked(struct netns *ns, int32_t ifindex, const struct net_addr *a)
{
    struct ns_neigh *n;

    list_for_each_entry (n, &ns->neighs, node) {
        if (n->n.ifindex == ifindex && net_addr_equal(&n->n.addr, a))
            return n;
    }
    return NULL;
}

/* Room for one more: the oldest that nobody set by hand goes. */
static struct ns_neigh *make_locked(struct netns *ns)
{
    struct ns_neigh *n;

    if (ns->neigh_count < LIMIT_NETNS_NEIGHS) {
        n = calloc(1, sizeof(*n));
        if (n)
            ns->neigh_count++;
        return n;
    }
    list_for_each_entry_reverse (n, &ns->neighs, node) {
        if (!(n->n.state & NUD_PERMANENT)) {
            list_del(&n->node);
            return n;
        }
    }
    return NULL;
}

int netns_neigh_set(struct netns *ns, const struct netns_neigh *n, bool quiet)
{
    rwlock_wrlock(&ns->lock);
    struct ns_neigh *row = find_locked(ns, n->ifindex, &n->addr);
    if (!row) {
        row = make_locked(ns);
        if (row)
            list_add(&row->node, &ns->neighs);
    }
    if (row) {
        row->n = *n;
        row->n.updated_ns = mono_now();
    }
    rwlock_unlock(&ns->lock);
    if (!row)
        return -ENOBUFS;
    if (!quiet)
        ns_tell_neigh(ns, n, false);
    return 0;
}

int netns_neigh_get(struct netns *ns, int32_t ifindex, const struct net_addr *a,
                    struct netns_neigh *out)
{
    rwlock_rdlock(&ns->lock);
    const struct ns_neigh *row = find_locked(ns, ifindex, a);
    if (row)
        *out = row->n;
    rwlock_unlock(&ns->lock);
    return row ? 0 : -ENOENT;
}

static struct ns_neigh *take_locked(struct netns *ns, struct ns_neigh *row)
{
    list_del(&row->node);
    ns->neigh_count--;
    return row;
}

int netns_neigh_del(struct netns *ns, int32_t ifindex, const struct net_addr *a)
{
    rwlock_wrlock(&ns->lock);
    struct ns_neigh *row = find_locked(ns, ifindex, a);
    if (row)
        row = take_locked(ns, row);
    rwlock_unlock(&ns->lock);
    if (!row)
        return -ENOENT;
    ns_tell_neigh(ns, &row->n, true);
    free(row);
    return 0;
}

void ns_neighs_flush(struct netns *ns, int32_t ifindex)
{
    for (;;) {
        struct ns_neigh *row, *found = NULL;
        rwlock_wrlock(&ns->lock);
        list_for_each_entry (row, &ns->neighs, node) {
            if (row->n.ifindex == ifindex) {
                found = take_locked(ns, row);
                break;
            }
        }
        rwlock_unlock(&ns->lock);
        if (!found)
            return;
        ns_tell_neigh(ns, &found->n, true);
        free(found);
    }
}
