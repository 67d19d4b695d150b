#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "runsc/sandbox/confine.h"

#ifndef MREMAP_MAYMOVE
#define MREMAP_MAYMOVE 1
#endif

struct rule {
    const char *platform; /* or NULL: on all */
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
#define ALLOW(name, owner, reason) {NULL, SCMP_SYS(name), 0, {{0}}},
#define ALLOW_IF(name, owner, reason, ...) {NULL, SCMP_SYS(name), 1, {__VA_ARGS__}},
#define ALLOW_ON(platform, name, owner, reason) {#platform, SCMP_SYS(name), 0, {{0}}},
#define ALLOW_ON_IF(platform, name, owner, reason, ...)                                            \
    {#platform, SCMP_SYS(name), 1, {__VA_ARGS__}},

static const struct rule rules[] = {
#include "runsc/sandbox/seccomp_sentry.def"
};

static int add_rules(scmp_filter_ctx ctx, const char *platform)
{
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        if (rules[i].platform != NULL && strcmp(rules[i].platform, platform) != 0)
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

int confine_seccomp(const char *platform, const char **step)
{
    *step = "seccomp_init";
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!ctx)
        return -ENOMEM;
    *step = "seccomp attributes";
    int r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    if (!r)
        r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (!r) {
        *step = "seccomp rules";
        r = add_rules(ctx, platform);
    }
    if (!r) {
        *step = "seccomp_load";
        r = seccomp_load(ctx);
    }
    seccomp_release(ctx);
    return r;
}
