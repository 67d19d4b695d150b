#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "runsc/sandbox/confine.h"
#include "sentry/net/host/broker.h"

#ifndef MREMAP_MAYMOVE
#define MREMAP_MAYMOVE 1
#endif

struct rule {
    const char *platform; /* or NULL: on all */
    bool host_network;    /* with --network=host only */
    int nr;
    unsigned count;
    struct scmp_arg_cmp cmp[3];
};

#define EQ(arg, value)                                                                             \
    {                                                                                              \
        (arg), SCMP_CMP_EQ, (scmp_datum_t)(value), 0                                               \
    }
#define MASKED(arg, mask, value)                                                                   \
    {                                                                                              \
        (arg), SCMP_CMP_MASKED_EQ, (scmp_datum_t)(mask), (scmp_datum_t)(value)                     \
    }
#define COUNT(...)                                                                                 \
    (sizeof((const struct scmp_arg_cmp[]){__VA_ARGS__}) / sizeof(struct scmp_arg_cmp))
#define RULE(platform, network, name, ...)                                                         \
    {platform, network, SCMP_SYS(name), COUNT(__VA_ARGS__), {__VA_ARGS__}},
#define ALLOW(name, owner, reason) {NULL, false, SCMP_SYS(name), 0, {{0}}},
#define ALLOW_IF(name, owner, reason, ...) RULE(NULL, false, name, __VA_ARGS__)
#define ALLOW_ON(platform, name, owner, reason) {#platform, false, SCMP_SYS(name), 0, {{0}}},
#define ALLOW_ON_IF(platform, name, owner, reason, ...) RULE(#platform, false, name, __VA_ARGS__)
#define ALLOW_NET(name, owner, reason) {NULL, true, SCMP_SYS(name), 0, {{0}}},
#define ALLOW_NET_IF(name, owner, reason, ...) RULE(NULL, true, name, __VA_ARGS__)

static const struct rule rules[] = {
#include "runsc/sandbox/seccomp_sentry.def"
};

#define BROKER_STREAM (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
#define BROKER_DGRAM (SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
#define BROKER_RAW (SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK)

static const struct rule broker_rules[] = {
#include "runsc/sandbox/seccomp_broker.def"
};

static int add_option(scmp_filter_ctx ctx, int call, size_t i)
{
    const struct scmp_arg_cmp cmp[] = {EQ(1, host_options[i].level), EQ(2, host_options[i].name)};

    return seccomp_rule_add_exact_array(ctx, SCMP_ACT_ALLOW, call, ARRAY_SIZE(cmp), cmp);
}

static int add_options(scmp_filter_ctx ctx)
{
    int r = 0;

    for (size_t i = 0; i < host_option_count && r == 0; i++) {
        if (host_options[i].how & HOST_OPTION_GET)
            r = add_option(ctx, SCMP_SYS(getsockopt), i);
        if (r == 0 && host_options[i].how & HOST_OPTION_SET)
            r = add_option(ctx, SCMP_SYS(setsockopt), i);
    }
    return r;
}

static int add_rules(scmp_filter_ctx ctx, const char *platform, bool host_network)
{
    int net = host_network ? add_options(ctx) : 0;

    if (net)
        return net;
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        if (rules[i].platform != NULL && strcmp(rules[i].platform, platform) != 0)
            continue;
        if (rules[i].host_network && !host_network)
            continue;
        int r = seccomp_rule_add_exact_array(ctx, SCMP_ACT_ALLOW, rules[i].nr, rules[i].count,
                                             rules[i].cmp);
        if (r)
            return r;
    }
#ifdef RINGWALL_SANITIZE
    /* A sanitizer's report looks for the program's name and for symbols; it does without. */
    static const int report_calls[] = {SCMP_SYS(readlink), SCMP_SYS(open), SCMP_SYS(openat),
                                       SCMP_SYS(stat)};
    for (size_t i = 0; i < ARRAY_SIZE(report_calls); i++) {
        int r = seccomp_rule_add_exact(ctx, SCMP_ACT_ERRNO(EPERM), report_calls[i], 0);
        if (r)
            return r;
    }
#endif
    /* glibc's pthread_create tries clone3 first and falls back to clone on ENOSYS. */
    return seccomp_rule_add_exact(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

static int start(scmp_filter_ctx *out, const char **step)
{
    *step = "seccomp_init";
    *out = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!*out)
        return -ENOMEM;
    *step = "seccomp attributes";
    int r = seccomp_attr_set(*out, SCMP_FLTATR_CTL_TSYNC, 1);
    if (!r)
        r = seccomp_attr_set(*out, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (r)
        seccomp_release(*out);
    return r;
}

static int load(scmp_filter_ctx ctx, int r, const char **step)
{
    if (!r) {
        *step = "seccomp_load";
        r = seccomp_load(ctx);
    }
    seccomp_release(ctx);
    return r;
}

int confine_seccomp(const char *platform, bool host_network, const char **step)
{
    scmp_filter_ctx ctx;
    int r = start(&ctx, step);

    if (r)
        return r;
    *step = "seccomp rules";
    return load(ctx, add_rules(ctx, platform, host_network), step);
}

int confine_broker_seccomp(const char **step)
{
    scmp_filter_ctx ctx;
    int r = start(&ctx, step);

    if (r)
        return r;
    *step = "seccomp rules";
    for (size_t i = 0; i < ARRAY_SIZE(broker_rules) && !r; i++)
        r = seccomp_rule_add_exact_array(ctx, SCMP_ACT_ALLOW, broker_rules[i].nr,
                                         broker_rules[i].count, broker_rules[i].cmp);
    return load(ctx, r, step);
}
