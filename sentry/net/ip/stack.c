/* The stack's thread: links to read, deadlines to keep. */
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/hash.h"
#include "sentry/net/ip/ip_priv.h"

#define UPKEEP_NS UINT64_C(1000000000)

/* ---- deadlines ---- */

static void wake(struct ext_stack *st)
{
    const uint64_t one = 1;

    if (write(st->wake_fd, &one, sizeof(one)) < 0)
        return; /* it is full: the thread will come */
}

static void timer_insert_locked(struct ext_stack *st, struct ext_timer *t)
{
    struct rb_node **link = &st->timers.node, *parent = NULL;

    while (*link) {
        parent = *link;
        link =
            t->at < rb_entry(parent, struct ext_timer, node)->at ? &parent->left : &parent->right;
    }
    rb_link_node(&t->node, parent, link);
    rb_insert_color(&t->node, &st->timers);
}

bool ext_timer_set(struct ext_stack *st, struct ext_timer *t, uint64_t at)
{
    bool near;

    mutex_lock(&st->timers_mu);
    const bool was_in = t->at != UINT64_MAX;
    if (was_in)
        rb_erase(&t->node, &st->timers);
    t->at = at;
    if (at != UINT64_MAX)
        timer_insert_locked(st, t);
    near = st->sleeping_till && at < st->sleeping_till;
    if (near)
        st->sleeping_till = at;
    mutex_unlock(&st->timers_mu);
    if (near)
        wake(st);
    return was_in;
}

static struct ext_timer *timer_take_due(struct ext_stack *st, uint64_t now)
{
    struct ext_timer *t;

    mutex_lock(&st->timers_mu);
    t = rb_entry_safe(rb_first(&st->timers), struct ext_timer, node);
    if (t && t->at <= now) {
        rb_erase(&t->node, &st->timers);
        t->at = UINT64_MAX;
    } else {
        t = NULL;
    }
    mutex_unlock(&st->timers_mu);
    return t;
}

/* Milliseconds to sleep, rounded up; notes till when. */
static int sleep_time(struct ext_stack *st)
{
    const uint64_t now = mono_now();
    int ms = -1;

    mutex_lock(&st->timers_mu);
    const struct ext_timer *t = rb_entry_safe(rb_first(&st->timers), struct ext_timer, node);
    st->sleeping_till = t ? t->at : UINT64_MAX;
    if (t) {
        const uint64_t left = t->at > now ? (t->at - now + 999999) / 1000000 : 0;
        ms = left > 60000 ? 60000 : (int)left;
    }
    mutex_unlock(&st->timers_mu);
    return ms;
}

static void upkeep(struct ext_timer *t, uint64_t now)
{
    struct ext_stack *st = container_of(t, struct ext_stack, upkeep);
    bool again = false;

    neigh_upkeep(st, now, &again);
    frag_upkeep(st, now, &again);
    if (again)
        (void)ext_timer_set(st, t, now + UPKEEP_NS);
}

/* ---- the thread ---- */

static void *stack_main(void *arg)
{
    struct ext_stack *st = arg;
    struct pollfd p[EXT_LINKS_MAX + 1];

    while (!atomic_load(&st->stop)) {
        const unsigned n = atomic_load(&st->link_count);
        p[0] = (struct pollfd){.fd = st->wake_fd, .events = POLLIN};
        for (unsigned i = 0; i < n; i++)
            p[i + 1] = (struct pollfd){.fd = st->links[i].fd, .events = POLLIN};
        const int r = poll(p, n + 1, sleep_time(st));
        mutex_lock(&st->timers_mu);
        st->sleeping_till = 0;
        mutex_unlock(&st->timers_mu);
        uint64_t drained;
        if (r > 0 && p[0].revents && read(st->wake_fd, &drained, sizeof(drained)) < 0)
            drained = 0;
        for (unsigned i = 0; r > 0 && i < n; i++)
            if (p[i + 1].revents)
                link_receive(&st->links[i]);
        struct ext_timer *t;
        const uint64_t now = mono_now();
        while ((t = timer_take_due(st, now)) != NULL)
            t->fn(t, now);
    }
    return NULL;
}

/* ---- life ---- */

int ext_new(struct net *n, struct ext_stack **out)
{
    struct ext_stack *st = calloc(1, sizeof(*st));

    if (!st)
        return -ENOMEM;
    st->net = n;
    st->ns = net_ns(n);
    st->wake_fd = -1;
    mutex_init(&st->timers_mu, LOCK_RANK_EXT_TIMERS);
    mutex_init(&st->mu, LOCK_RANK_NET_LINK);
    list_init(&st->waits);
    list_init(&st->frags);
    groups_init(st);
    st->upkeep.at = UINT64_MAX;
    st->upkeep.fn = upkeep;
    *out = st;
    return 0;
}

static void free_tables(struct ext_stack *st)
{
    for (size_t i = 0; st->buckets && i < EXT_BUCKETS; i++)
        mutex_destroy(&st->buckets[i].mu);
    free(st->buckets);
    free(st->rx);
    st->buckets = NULL;
    st->rx = NULL;
}

void ext_free(struct ext_stack *st)
{
    if (!st)
        return;
    if (st->running) {
        atomic_store(&st->stop, true);
        wake(st);
        (void)pthread_join(st->thread, NULL);
    }
    exttcp_remove_all(st);
    for (unsigned i = 0; i < st->link_count; i++)
        (void)close(st->links[i].fd);
    if (st->wake_fd >= 0)
        (void)close(st->wake_fd);
    bool again;
    neigh_upkeep(st, UINT64_MAX, &again);
    frag_upkeep(st, UINT64_MAX, &again);
    groups_fini(st);
    free_tables(st);
    mutex_destroy(&st->timers_mu);
    mutex_destroy(&st->mu);
    free(st);
}

static int start(struct ext_stack *st)
{
    if (st->running)
        return 0;
    st->buckets = calloc(EXT_BUCKETS, sizeof(*st->buckets));
    st->rx = malloc(EXT_FRAME_MAX);
    if (!st->buckets || !st->rx) {
        free_tables(st);
        return -ENOMEM;
    }
    for (size_t i = 0; i < EXT_BUCKETS; i++) {
        mutex_init(&st->buckets[i].mu, LOCK_RANK_EXT_TABLE);
        list_init(&st->buckets[i].conns);
    }
    atomic_store(&st->next_id, (uint16_t)hash_seeded_u64(1, mono_now()));
    const int r = pthread_create(&st->thread, NULL, stack_main, st);
    if (r) {
        free_tables(st);
        return -r;
    }
    st->running = true;
    return 0;
}

struct ext_link *ext_find_link(struct ext_stack *st, int32_t ifindex)
{
    const unsigned n = st ? atomic_load(&st->link_count) : 0;

    for (unsigned i = 0; i < n; i++)
        if (st->links[i].ifindex == ifindex)
            return &st->links[i];
    return NULL;
}

/* The eventfd is made before the process is confined and comes with the first link. */
int ext_add_link(struct net *n, const struct ext_link_config *cfg, int32_t *out_index)
{
    struct ext_stack *st = net_ext(n);
    const unsigned i = atomic_load(&st->link_count);
    struct netns_link info;

    if (i == EXT_LINKS_MAX)
        return -ENOSPC;
    memset(&info, 0, sizeof(info));
    snprintf(info.name, sizeof(info.name), "%.15s", cfg->name);
    info.type = ARPHRD_ETHER;
    info.flags = IFF_BROADCAST | IFF_MULTICAST;
    info.mtu = cfg->mtu;
    info.txqlen = 1000;
    memcpy(info.mac, cfg->mac, sizeof(info.mac));
    memset(info.bcast, 0xff, sizeof(info.bcast));
    info.driver = &st->links[i];
    netns_config_lock(st->ns);
    int r = netns_link_add(st->ns, &info, out_index);
    netns_config_unlock(st->ns);
    if (r == 0)
        r = netns_link_get(st->ns, *out_index, &info);
    if (r)
        return r;
    st->links[i] = (struct ext_link){.st = st,
                                     .fd = cfg->fd,
                                     .ifindex = *out_index,
                                     .vnet_hdr = cfg->vnet_hdr,
                                     .stats = info.stats};
    memcpy(st->links[i].mac, cfg->mac, sizeof(cfg->mac));
    if (st->wake_fd < 0) {
        st->wake_fd = cfg->wake_fd;
    }
    atomic_store(&st->link_count, i + 1);
    r = start(st);
    if (r == 0)
        wake(st);
    return r;
}
