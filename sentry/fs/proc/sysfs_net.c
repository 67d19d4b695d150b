/* /sys/class/net and /sys/devices/virtual/net: the links of the network namespace of who mounted it
 * (Documentation/ABI/testing/sysfs-class-net). */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "proc_priv.h"
#include "sentry/net/netlink/netlink.h"
#include "sentry/net/ns/netns.h"
#include "sentry/net/sock.h"

/* The link that a file is about: pc->fd is its index. */
static int link_of(const struct proc_ctx *pc, struct netns_link *out)
{
    return pc->net ? netns_link_get(net_ns(pc->net), pc->fd, out) : -ENODEV;
}

/* ---- names ---- */

struct next {
    int32_t from, found;
};

static bool next_row(void *arg, const struct netns_link *l)
{
    struct next *n = arg;

    if (l->index >= n->from && (n->found < 0 || l->index < n->found))
        n->found = l->index;
    return true;
}

int32_t sysfs_list_links(const struct proc_ctx *pc, int32_t from)
{
    struct next n = {.from = from, .found = -ENOENT};

    if (pc->net)
        netns_for_links(net_ns(pc->net), next_row, &n);
    return n.found;
}

int32_t sysfs_find_link(const struct proc_ctx *pc, const char *name)
{
    struct netns_link l;

    return pc->net && netns_link_find(net_ns(pc->net), name, &l) == 0 ? l.index : -ENOENT;
}

int sysfs_link_name(const struct proc_ctx *pc, int32_t index, char *buf, size_t size)
{
    struct netns_link l;
    const int r = pc->net ? netns_link_get(net_ns(pc->net), index, &l) : -ENODEV;

    return r ? r : snprintf(buf, size, "%s", l.name);
}

static int64_t readlink_class(const struct proc_ctx *pc, char *buf, size_t size)
{
    struct netns_link l;
    const int r = link_of(pc, &l);

    return r ? r : snprintf(buf, size, "../../devices/virtual/net/%s", l.name);
}

/* ---- what a link is ---- */

static int put_mac(FILE *out, const uint8_t mac[NETNS_MAC_SIZE])
{
    for (size_t i = 0; i < NETNS_MAC_SIZE; i++)
        fprintf(out, "%s%02x", i ? ":" : "", mac[i]);
    fputc('\n', out);
    return 0;
}

static int put_address(const struct netns_link *l, FILE *out)
{
    return put_mac(out, l->mac);
}

static int put_broadcast(const struct netns_link *l, FILE *out)
{
    return put_mac(out, l->bcast);
}

static int put_addr_len(const struct netns_link *l, FILE *out)
{
    (void)l;
    fprintf(out, "%d\n", NETNS_MAC_SIZE);
    return 0;
}

static int put_carrier(const struct netns_link *l, FILE *out)
{
    if (!(l->flags & IFF_UP))
        return -EINVAL;
    fprintf(out, "%d\n", (l->flags & NETNS_LOWER_UP) != 0);
    return 0;
}

/* What is found out about the line is not among those set. */
static int put_flags(const struct netns_link *l, FILE *out)
{
    fprintf(out, "0x%x\n", l->flags & 0xffffu & ~(uint32_t)IFF_RUNNING);
    return 0;
}

static int put_index(const struct netns_link *l, FILE *out)
{
    fprintf(out, "%d\n", l->index);
    return 0;
}

static int put_mtu(const struct netns_link *l, FILE *out)
{
    fprintf(out, "%u\n", l->mtu);
    return 0;
}

static int put_operstate(const struct netns_link *l, FILE *out)
{
    const bool up = (l->flags & IFF_UP) && (!l->driver || l->flags & NETNS_LOWER_UP);

    fputs(!up ? "down\n" : l->driver ? "up\n" : "unknown\n", out);
    return 0;
}

static int put_txqlen(const struct netns_link *l, FILE *out)
{
    fprintf(out, "%u\n", l->txqlen);
    return 0;
}

static int put_type(const struct netns_link *l, FILE *out)
{
    fprintf(out, "%u\n", l->type);
    return 0;
}

/* No line has any. */
static int put_speed(const struct netns_link *l, FILE *out)
{
    (void)l, (void)out;
    return -EINVAL;
}

#define LINK_SHOW(what)                                                                            \
    static int show_##what(const struct proc_ctx *pc, FILE *out)                                   \
    {                                                                                              \
        struct netns_link l;                                                                       \
        const int r = link_of(pc, &l);                                                             \
        return r ? r : put_##what(&l, out);                                                        \
    }
LINK_SHOW(address)
LINK_SHOW(broadcast)
LINK_SHOW(addr_len)
LINK_SHOW(carrier)
LINK_SHOW(flags)
LINK_SHOW(index)
LINK_SHOW(mtu)
LINK_SHOW(operstate)
LINK_SHOW(speed)
LINK_SHOW(txqlen)
LINK_SHOW(type)

#define STAT_SHOW(what)                                                                            \
    static int show_##what(const struct proc_ctx *pc, FILE *out)                                   \
    {                                                                                              \
        struct netns_link l;                                                                       \
        const int r = link_of(pc, &l);                                                             \
        if (r == 0)                                                                                \
            fprintf(out, "%" PRIu64 "\n", atomic_load(&l.stats->what));                            \
        return r;                                                                                  \
    }
STAT_SHOW(multicast)
STAT_SHOW(rx_bytes)
STAT_SHOW(rx_dropped)
STAT_SHOW(rx_errors)
STAT_SHOW(rx_packets)
STAT_SHOW(tx_bytes)
STAT_SHOW(tx_dropped)
STAT_SHOW(tx_errors)
STAT_SHOW(tx_packets)

#define NONE(name_)                                                                                \
    {                                                                                              \
        .name = (name_), .mode = 0444, .text = "0\n"                                               \
    }

static const struct proc_entry statistics_entries[] = {
    NONE("collisions"),
    {.name = "multicast", .mode = 0444, .show = show_multicast},
    {.name = "rx_bytes", .mode = 0444, .show = show_rx_bytes},
    NONE("rx_compressed"),
    NONE("rx_crc_errors"),
    {.name = "rx_dropped", .mode = 0444, .show = show_rx_dropped},
    {.name = "rx_errors", .mode = 0444, .show = show_rx_errors},
    NONE("rx_fifo_errors"),
    NONE("rx_frame_errors"),
    NONE("rx_length_errors"),
    NONE("rx_missed_errors"),
    NONE("rx_nohandler"),
    NONE("rx_over_errors"),
    {.name = "rx_packets", .mode = 0444, .show = show_rx_packets},
    NONE("tx_aborted_errors"),
    {.name = "tx_bytes", .mode = 0444, .show = show_tx_bytes},
    NONE("tx_carrier_errors"),
    NONE("tx_compressed"),
    {.name = "tx_dropped", .mode = 0444, .show = show_tx_dropped},
    {.name = "tx_errors", .mode = 0444, .show = show_tx_errors},
    NONE("tx_fifo_errors"),
    NONE("tx_heartbeat_errors"),
    {.name = "tx_packets", .mode = 0444, .show = show_tx_packets},
    NONE("tx_window_errors"),
    {0},
};

static const struct proc_entry link_entries[] = {
    {.name = "addr_len", .mode = 0444, .show = show_addr_len},
    {.name = "address", .mode = 0444, .show = show_address},
    {.name = "broadcast", .mode = 0444, .show = show_broadcast},
    {.name = "carrier", .mode = 0444, .show = show_carrier},
    {.name = "duplex", .mode = 0444, .show = show_speed},
    {.name = "flags", .mode = 0444, .show = show_flags},
    {.name = "ifindex", .mode = 0444, .show = show_index},
    {.name = "iflink", .mode = 0444, .show = show_index},
    {.name = "mtu", .mode = 0444, .show = show_mtu},
    {.name = "operstate", .mode = 0444, .show = show_operstate},
    {.name = "speed", .mode = 0444, .show = show_speed},
    {.name = "statistics", .mode = 0555, .children = statistics_entries},
    {.name = "tx_queue_len", .mode = 0444, .show = show_txqlen},
    {.name = "type", .mode = 0444, .show = show_type},
    {0},
};

const struct proc_entry sysfs_net_link = {.name = "link", .mode = 0777, .readlink = readlink_class};
const struct proc_entry sysfs_net_dir = {.name = "net", .mode = 0555, .children = link_entries};
