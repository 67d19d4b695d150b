/* /proc/sys/net: settings of the reader's network namespace (ip-sysctl of the kernel's
 * documentation). What nothing would follow cannot be written. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proc_priv.h"
#include "sentry/net/settings.h"
#include "sentry/net/sock.h"

#define TEXT(name_, text_)                                                                         \
    {                                                                                              \
        .name = (name_), .mode = 0444, .text = (text_ "\n")                                        \
    }

/* The next number of text, which moves on; -EINVAL when there is none between least and most. */
static int take_number(const char **text, uint32_t least, uint32_t most, uint32_t *out)
{
    char *end;

    errno = 0;
    const long long v = strtoll(*text, &end, 10);
    if (end == *text || errno || v < (long long)least || v > (long long)most)
        return -EINVAL;
    *text = end + strspn(end, " \t\n");
    *out = (uint32_t)v;
    return 0;
}

static int64_t store_number(_Atomic uint32_t *to, const char *text, size_t len, uint32_t least,
                            uint32_t most)
{
    uint32_t v;
    int r = take_number(&text, least, most, &v);

    if (r || *text != '\0')
        return -EINVAL;
    atomic_store(to, v);
    return (int64_t)len;
}

/* Two numbers, the first no larger than the second unless empty ranges are allowed. */
static int64_t store_range(_Atomic uint64_t *to, const char *text, size_t len, uint32_t least,
                           uint32_t most, bool empty)
{
    uint32_t low, high;
    int r = take_number(&text, least, most, &low);

    if (r == 0)
        r = take_number(&text, empty ? 0 : least, most, &high);
    if (r || *text != '\0' || (low > high && !empty))
        return -EINVAL;
    atomic_store(to, (uint64_t)low << 32 | high);
    return (int64_t)len;
}

#define NUMBER(field, least, most)                                                                 \
    static int put_##field(struct net *n, FILE *out)                                               \
    {                                                                                              \
        return fprintf(out, "%" PRIu32 "\n", net_settings(n)->field) < 0 ? -ENOMEM : 0;            \
    }                                                                                              \
    PROC_NET_SHOW(show_##field, put_##field)                                                       \
    static int64_t store_##field(const struct proc_ctx *pc, const char *text, size_t len)          \
    {                                                                                              \
        struct net *n = proc_net_get(pc);                                                          \
        const int64_t r = store_number(&net_settings(n)->field, text, len, least, most);           \
        net_put(n);                                                                                \
        return r;                                                                                  \
    }
#define RANGE(field, least, most, empty)                                                           \
    static int put_##field(struct net *n, FILE *out)                                               \
    {                                                                                              \
        const uint64_t v = net_settings(n)->field;                                                 \
        return fprintf(out, "%" PRIu64 "\t%" PRIu64 "\n", v >> 32, v & UINT32_MAX) < 0 ? -ENOMEM   \
                                                                                       : 0;        \
    }                                                                                              \
    PROC_NET_SHOW(show_##field, put_##field)                                                       \
    static int64_t store_##field(const struct proc_ctx *pc, const char *text, size_t len)          \
    {                                                                                              \
        struct net *n = proc_net_get(pc);                                                          \
        const int64_t r = store_range(&net_settings(n)->field, text, len, least, most, empty);     \
        net_put(n);                                                                                \
        return r;                                                                                  \
    }
#define ROW(name_, field)                                                                          \
    {                                                                                              \
        .name = (name_), .mode = 0644, .show = show_##field, .store = store_##field                \
    }

NUMBER(somaxconn, 0, 65535)
NUMBER(max_dgram_qlen, 0, 65536)
NUMBER(unprivileged_port, 0, 65535)
NUMBER(ttl, 1, 255)
NUMBER(nonlocal_bind, 0, 1)
NUMBER(keepalive_time, 1, 32767)
NUMBER(keepalive_intvl, 1, 32767)
NUMBER(keepalive_probes, 1, 127)
NUMBER(fin_timeout, 1, 120)
NUMBER(syn_retries, 1, 127)
RANGE(port_range, 1, 65535, false)
RANGE(ping_groups, 0, INT32_MAX, true)

static const struct proc_entry core_entries[] = {
    ROW("somaxconn", somaxconn),
    {0},
};

static const struct proc_entry ipv4_entries[] = {
    TEXT("ip_forward", "0"),
    ROW("ip_default_ttl", ttl),
    ROW("ip_local_port_range", port_range),
    ROW("ip_nonlocal_bind", nonlocal_bind),
    ROW("ip_unprivileged_port_start", unprivileged_port),
    ROW("ping_group_range", ping_groups),
    TEXT("tcp_allowed_congestion_control", "reno cubic"),
    TEXT("tcp_available_congestion_control", "reno cubic"),
    TEXT("tcp_congestion_control", "cubic"),
    TEXT("tcp_ecn", "0"),
    ROW("tcp_fin_timeout", fin_timeout),
    ROW("tcp_keepalive_intvl", keepalive_intvl),
    ROW("tcp_keepalive_probes", keepalive_probes),
    ROW("tcp_keepalive_time", keepalive_time),
    TEXT("tcp_sack", "1"),
    ROW("tcp_syn_retries", syn_retries),
    TEXT("tcp_syncookies", "1"),
    TEXT("tcp_timestamps", "1"),
    TEXT("tcp_window_scaling", "1"),
    {0},
};

static const struct proc_entry unix_entries[] = {
    ROW("max_dgram_qlen", max_dgram_qlen),
    {0},
};

const struct proc_entry proc_sys_net_entries[] = {
    {.name = "core", .mode = 0555, .children = core_entries},
    {.name = "ipv4", .mode = 0555, .children = ipv4_entries},
    {.name = "unix", .mode = 0555, .children = unix_entries},
    {0},
};
