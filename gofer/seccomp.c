#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "gofer/confine.h"

struct rule {
    bool host_uds; /* with --host-uds=open only */
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
#define ALLOW(name, owner, reason) {false, SCMP_SYS(name), 0, {{0}}},
#define ALLOW_IF(name, owner, reason, ...)                                                         \
    {false, SCMP_SYS(name), COUNT(__VA_ARGS__), {__VA_ARGS__}},
#define ALLOW_UDS(name, owner, reason) {true, SCMP_SYS(name), 0, {{0}}},
#define ALLOW_UDS_IF(name, owner, reason, ...)                                                     \
    {true, SCMP_SYS(name), COUNT(__VA_ARGS__), {__VA_ARGS__}},

#define GOFER_STREAM (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
#define GOFER_DGRAM (SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
#define GOFER_SEQPACKET (SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK)

static const struct rule rules[] = {
#include "gofer/seccomp_gofer.def"
};

#ifdef RINGWALL_SANITIZE
/* A sanitizer's run-time library makes calls of its own. */
#define OTHER_CALLS SCMP_ACT_LOG
#else
#define OTHER_CALLS SCMP_ACT_KILL_PROCESS
#endif

static int add_rules(scmp_filter_ctx ctx, bool host_uds)
{
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        if (rules[i].host_uds && !host_uds)
            continue;
        int r = seccomp_rule_add_exact_array(ctx, SCMP_ACT_ALLOW, rules[i].nr, rules[i].count,
                                             rules[i].cmp);
        if (r)
            return r;
    }
    /* glibc's pthread_create tries clone3 first and falls back to clone on ENOSYS. */
    return seccomp_rule_add_exact(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

int gofer_seccomp(bool host_uds, const char **step)
{
    *step = "seccomp_init";
    scmp_filter_ctx ctx = seccomp_init(OTHER_CALLS);
    if (!ctx)
        return -ENOMEM;
    *step = "seccomp attributes";
    int r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (!r) {
        *step = "seccomp rules";
        r = add_rules(ctx, host_uds);
    }
    if (!r) {
        *step = "seccomp_load";
        r = seccomp_load(ctx);
    }
    seccomp_release(ctx);
    return r;
}
