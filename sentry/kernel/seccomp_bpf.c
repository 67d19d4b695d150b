/* What seccomp adds to classic BPF: loads of the call's data (kernel/seccomp.c
 * seccomp_check_filter), and answers known beforehand. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/bpf_common.h>
#include <stddef.h>
#include <string.h>

#include "sentry/bpf/cbpf.h"
#include "sentry/kernel/seccomp_priv.h"

static bool load_ok(const struct sock_filter *f)
{
    switch (f->code) {
    case BPF_LD | BPF_W | BPF_ABS:
        return f->k < sizeof(struct seccomp_data) && f->k % 4 == 0;
    case BPF_LD | BPF_W | BPF_LEN:
    case BPF_LDX | BPF_W | BPF_LEN:
        return true;
    default:
        return false;
    }
}

static bool load(const void *data, const struct sock_filter *f, uint32_t a, uint32_t x,
                 uint32_t *out)
{
    (void)a;
    (void)x;
    if (BPF_MODE(f->code) == BPF_LEN)
        *out = sizeof(struct seccomp_data);
    else
        memcpy(out, (const char *)data + f->k, sizeof(*out));
    return true;
}

static const struct cbpf_kind seccomp_kind = {.load_ok = load_ok, .load = load};

int seccomp_bpf_check(const struct sock_filter *f, size_t count)
{
    return cbpf_check(&seccomp_kind, f, count);
}

uint32_t seccomp_bpf_run(const struct seccomp_filter *p, const struct seccomp_data *d)
{
    return cbpf_run(&seccomp_kind, p->insns, d);
}

/* ---- knowing beforehand ---- */

/* Follows the program while only the number and the architecture decide. */
bool seccomp_bpf_allows(const struct seccomp_filter *p, uint32_t nr)
{
    uint32_t a = 0;

    for (uint32_t at = 0; at < p->count; at++) {
        const struct sock_filter *f = &p->insns[at];
        switch (f->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            if (f->k == offsetof(struct seccomp_data, nr))
                a = nr;
            else if (f->k == offsetof(struct seccomp_data, arch))
                a = AUDIT_ARCH_X86_64;
            else
                return false;
            break;
        case BPF_RET | BPF_K:
            return f->k == SECCOMP_RET_ALLOW;
        case BPF_JMP | BPF_JA:
            at += f->k;
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
        case BPF_JMP | BPF_JGE | BPF_K:
        case BPF_JMP | BPF_JGT | BPF_K:
        case BPF_JMP | BPF_JSET | BPF_K:
            at += cbpf_test(f, a, f->k) ? f->jt : f->jf;
            break;
        case BPF_ALU | BPF_AND | BPF_K:
            a &= f->k;
            break;
        default:
            return false;
        }
    }
    return false;
}
