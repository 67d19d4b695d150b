#include "sentry/net/filter.h"

#include <errno.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/ref.h"
#include "sentry/bpf/cbpf.h"
#include "sentry/net/net_priv.h"

struct sock_prog {
    struct ref ref;
    size_t count;
    struct sock_filter insns[];
};

/* ---- what a program may load ---- */

static bool ancillary_ok(uint32_t k)
{
    switch (k - (uint32_t)SKF_AD_OFF) {
    case SKF_AD_PROTOCOL:
    case SKF_AD_PKTTYPE:
    case SKF_AD_IFINDEX:
    case SKF_AD_MARK:
    case SKF_AD_QUEUE:
    case SKF_AD_HATYPE:
    case SKF_AD_RXHASH:
    case SKF_AD_CPU:
    case SKF_AD_ALU_XOR_X:
    case SKF_AD_NLATTR:
    case SKF_AD_NLATTR_NEST:
    case SKF_AD_RANDOM:
    case SKF_AD_VLAN_TAG:
    case SKF_AD_VLAN_TAG_PRESENT:
    case SKF_AD_VLAN_TPID:
        return true;
    default:
        return false;
    }
}

static bool load_ok(const struct sock_filter *f)
{
    switch (f->code) {
    case BPF_LD | BPF_W | BPF_ABS:
    case BPF_LD | BPF_H | BPF_ABS:
    case BPF_LD | BPF_B | BPF_ABS:
        return f->k < (uint32_t)SKF_AD_OFF || ancillary_ok(f->k);
    case BPF_LD | BPF_W | BPF_IND:
    case BPF_LD | BPF_H | BPF_IND:
    case BPF_LD | BPF_B | BPF_IND:
    case BPF_LD | BPF_W | BPF_LEN:
    case BPF_LDX | BPF_W | BPF_LEN:
    case BPF_LDX | BPF_B | BPF_MSH:
        return true;
    default:
        return false;
    }
}

/* Whether [off, off + size) lies inside, and if so its bytes. */
static bool take(const uint8_t *from, size_t have, uint64_t off, size_t size, uint8_t *out)
{
    if (!from || off > have || size > have - off)
        return false;
    memcpy(out, from + off, size);
    return true;
}

static bool take_data(const struct sock_frame *p, uint64_t off, size_t size, uint8_t *out)
{
    for (size_t i = 0; i < size; i++) {
        const uint64_t at = off + i;
        const bool in_head = at < p->head_size;
        if (!take(in_head ? p->head : p->data, in_head ? p->head_size : p->size,
                  in_head ? at : at - p->head_size, 1, &out[i]))
            return false;
    }
    return true;
}

/* Where the attribute of a type is, of those in [at, end); 0: nowhere (nla_find). */
static uint32_t find_attribute(const struct sock_frame *p, uint64_t at, uint64_t end, uint32_t type)
{
    struct nlattr h;
    uint8_t b[sizeof(h)];

    while (at <= end && end - at >= sizeof(h) && take_data(p, at, sizeof(b), b)) {
        memcpy(&h, b, sizeof(h));
        if (h.nla_len < sizeof(h) || h.nla_len > end - at)
            return 0;
        if ((h.nla_type & NLA_TYPE_MASK) == type)
            return (uint32_t)at;
        at += (uint64_t)NLA_ALIGN(h.nla_len);
    }
    return 0;
}

static uint32_t nested_attribute(const struct sock_frame *p, uint32_t at, uint64_t end,
                                 uint32_t type)
{
    struct nlattr h;
    uint8_t b[sizeof(h)];

    if (!take_data(p, at, sizeof(b), b))
        return 0;
    memcpy(&h, b, sizeof(h));
    if (h.nla_len < sizeof(h) || h.nla_len > end - at)
        return 0;
    return find_attribute(p, (uint64_t)at + sizeof(h), (uint64_t)at + h.nla_len, type);
}

static uint32_t random_number(void)
{
    uint32_t n = 0;

    return getrandom(&n, sizeof(n), 0) == (ssize_t)sizeof(n) ? n : 0;
}

/* There is one queue, and no VLAN tag is ever taken out of a frame. */
static uint32_t ancillary(const struct sock_frame *p, uint32_t k, uint32_t a, uint32_t x)
{
    switch (k - (uint32_t)SKF_AD_OFF) {
    case SKF_AD_PROTOCOL:
        return p->protocol;
    case SKF_AD_PKTTYPE:
        return p->pkttype;
    case SKF_AD_IFINDEX:
        return (uint32_t)p->ifindex;
    case SKF_AD_MARK:
        return p->mark;
    case SKF_AD_HATYPE:
        return p->hatype;
    case SKF_AD_CPU:
        return (uint32_t)sched_getcpu();
    case SKF_AD_ALU_XOR_X:
        return a ^ x;
    case SKF_AD_NLATTR:
        return find_attribute(p, a, p->head_size + p->size, x);
    case SKF_AD_NLATTR_NEST:
        return nested_attribute(p, a, p->head_size + p->size, x);
    case SKF_AD_RANDOM:
        return random_number();
    default:
        return 0;
    }
}

static bool take_at(const struct sock_frame *p, uint32_t k, size_t size, uint8_t *out)
{
    if ((int32_t)k >= 0)
        return take_data(p, k, size, out);
    if (k >= (uint32_t)SKF_NET_OFF)
        return take(p->net, p->net_size, k - (uint32_t)SKF_NET_OFF, size, out);
    if (k >= (uint32_t)SKF_LL_OFF)
        return take(p->link, p->link_size, k - (uint32_t)SKF_LL_OFF, size, out);
    return false;
}

static bool load(const void *data, const struct sock_filter *f, uint32_t a, uint32_t x,
                 uint32_t *out)
{
    const struct sock_frame *p = data;
    const size_t size = BPF_SIZE(f->code) == BPF_W ? 4 : BPF_SIZE(f->code) == BPF_H ? 2 : 1;
    uint8_t b[4];

    if (BPF_MODE(f->code) == BPF_LEN) {
        *out = (uint32_t)(p->head_size + p->size);
        return true;
    }
    if (BPF_MODE(f->code) == BPF_ABS && f->k >= (uint32_t)SKF_AD_OFF) {
        *out = ancillary(p, f->k, a, x);
        return true;
    }
    if (!take_at(p, BPF_MODE(f->code) == BPF_IND ? x + f->k : f->k, size, b))
        return false;
    if (BPF_MODE(f->code) == BPF_MSH) {
        *out = (b[0] & 0xfu) * 4;
        return true;
    }
    *out = 0;
    for (size_t i = 0; i < size; i++)
        *out = *out << 8 | b[i];
    return true;
}

static const struct cbpf_kind socket_kind = {.modulo = true, .load_ok = load_ok, .load = load};

/* ---- the socket's program ---- */

static void prog_put(struct sock_prog *p)
{
    if (p && ref_put(&p->ref))
        free(p);
}

static struct sock_prog *prog_get(struct sock *s)
{
    struct sock_prog *p;

    mutex_lock(&s->net->mu);
    p = atomic_load(&s->filter);
    if (p)
        ref_get(&p->ref);
    mutex_unlock(&s->net->mu);
    return p;
}

static struct sock_prog *prog_swap(struct sock *s, struct sock_prog *p)
{
    mutex_lock(&s->net->mu);
    struct sock_prog *old = atomic_exchange(&s->filter, p);
    mutex_unlock(&s->net->mu);
    return old;
}

int sock_filter_attach(struct sock *s, const struct sock_filter *insns, size_t count)
{
    if (sock_option(s, SO_LOCK_FILTER))
        return -EPERM;
    if (s->ops->own_options || (s->type == SOCK_STREAM && s->family != AF_UNIX))
        return -ENOPROTOOPT;
    int r = cbpf_check(&socket_kind, insns, count);
    if (r)
        return r;
    struct sock_prog *p = malloc(sizeof(*p) + count * sizeof(*insns));
    if (!p)
        return -ENOMEM;
    ref_init(&p->ref);
    p->count = count;
    memcpy(p->insns, insns, count * sizeof(*insns));
    prog_put(prog_swap(s, p));
    return 0;
}

int sock_filter_detach(struct sock *s)
{
    if (sock_option(s, SO_LOCK_FILTER))
        return -EPERM;
    struct sock_prog *old = prog_swap(s, NULL);
    if (!old)
        return -ENOENT;
    prog_put(old);
    return 0;
}

int sock_filter_get(struct sock *s, struct sock_filter *insns, size_t max)
{
    struct sock_prog *p = prog_get(s);
    int r = p ? (int)p->count : 0;

    if (p && insns && max < p->count)
        r = -EINVAL;
    else if (p && insns)
        memcpy(insns, p->insns, p->count * sizeof(*insns));
    prog_put(p);
    return r;
}

uint32_t sock_filter_run(struct sock *s, const struct sock_frame *f)
{
    if (LIKELY(!atomic_load_explicit(&s->filter, memory_order_relaxed)))
        return UINT32_MAX;
    struct sock_prog *p = prog_get(s);
    const uint32_t n = p ? cbpf_run(&socket_kind, p->insns, f) : UINT32_MAX;
    prog_put(p);
    return n;
}

void sock_filter_fini(struct sock *s)
{
    prog_put(atomic_load(&s->filter));
}
