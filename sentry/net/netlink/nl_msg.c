/* Messages and attributes: their lengths come from the guest and are checked here only. */
#include <errno.h>
#include <string.h>

#include "sentry/net/netlink/nl_priv.h"
#include "sentry/net/ns/prefix.h"

/* Without NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
#define NL_TYPE_MASK 0x3fffu

size_t nl_begin(struct wbuf *w, uint16_t type, uint16_t flags, uint32_t seq, uint32_t portid)
{
    wbuf_align(w, NLMSG_ALIGNTO);
    const size_t start = w->len;
    const struct nlmsghdr h = {
        .nlmsg_type = type, .nlmsg_flags = flags, .nlmsg_seq = seq, .nlmsg_pid = portid};

    wbuf_bytes(w, &h, sizeof(h));
    return start;
}

void nl_end(struct wbuf *w, size_t start)
{
    if (!w->failed)
        wbuf_patch_u32(w, start, (uint32_t)(w->len - start));
    wbuf_align(w, NLMSG_ALIGNTO);
}

void nl_attr(struct wbuf *w, uint16_t type, const void *data, size_t size)
{
    const struct nlattr a = {.nla_len = (uint16_t)(sizeof(a) + size), .nla_type = type};

    wbuf_bytes(w, &a, sizeof(a));
    wbuf_bytes(w, data, size);
    wbuf_align(w, NLA_ALIGNTO);
}

void nl_attr_u32(struct wbuf *w, uint16_t type, uint32_t v)
{
    nl_attr(w, type, &v, sizeof(v));
}

void nl_attr_str(struct wbuf *w, uint16_t type, const char *s)
{
    nl_attr(w, type, s, strlen(s) + 1);
}

size_t nl_nest(struct wbuf *w, uint16_t type)
{
    const size_t start = w->len;
    const struct nlattr a = {.nla_type = type};

    wbuf_bytes(w, &a, sizeof(a));
    return start;
}

int nl_parse(const uint8_t *data, size_t size, struct nl_attr *tb, unsigned max)
{
    memset(tb, 0, sizeof(*tb) * (max + 1));
    while (size >= sizeof(struct nlattr)) {
        struct nlattr a;
        memcpy(&a, data, sizeof(a));
        if (a.nla_len < sizeof(a) || a.nla_len > size)
            return -EINVAL;
        const unsigned type = a.nla_type & NL_TYPE_MASK;
        if (type <= max)
            tb[type] = (struct nl_attr){data + sizeof(a), a.nla_len - sizeof(a)};
        const size_t step = MIN((size_t)NLA_ALIGN(a.nla_len), size);
        data += step;
        size -= step;
    }
    return 0;
}

uint32_t nl_get_u32(const struct nl_attr *a)
{
    uint32_t v = 0;

    if (a->data)
        memcpy(&v, a->data, MIN(a->size, sizeof(v)));
    return v;
}

uint8_t nl_get_u8(const struct nl_attr *a)
{
    return a->data && a->size > 0 ? a->data[0] : 0;
}

int nl_get_addr(const struct nl_attr *a, unsigned family, struct net_addr *out)
{
    memset(out, 0, sizeof(*out));
    if (!a->data)
        return 0;
    *out = net_addr_from(family, a->data, a->size);
    return out->family ? 0 : -EINVAL;
}

int nl_get_name(const struct nl_attr *a, char out[IFNAMSIZ])
{
    const size_t len = strnlen((const char *)a->data, a->size);

    memset(out, 0, IFNAMSIZ);
    if (len == 0 || len >= IFNAMSIZ)
        return -EINVAL;
    memcpy(out, a->data, len);
    return 0;
}

int nl_header(const struct nl_req *q, void *dst, size_t size)
{
    if (q->size < size)
        return -EINVAL;
    memcpy(dst, q->body, size);
    return 0;
}

int nl_parse_after(const struct nl_req *q, size_t header, struct nl_attr *tb, unsigned max)
{
    const size_t skip = NLMSG_ALIGN(header);

    if (skip >= q->size)
        return nl_parse(q->body, 0, tb, max);
    return nl_parse(q->body + skip, q->size - skip, tb, max);
}
