#include "sentry/net/ns/prefix.h"

struct net_addr net_addr_from(unsigned family, const void *bytes, size_t size)
{
    struct net_addr a;

    memset(&a, 0, sizeof(a));
    if (size == 0 || size != net_addr_size(family))
        return a;
    a.family = (uint16_t)family;
    memcpy(a.b, bytes, size);
    return a;
}

struct net_addr net_addr_v4(uint32_t net)
{
    return net_addr_from(AF_INET, &net, sizeof(net));
}

struct net_addr net_addr_v6(const void *bytes)
{
    return net_addr_from(AF_INET6, bytes, 16);
}

size_t net_addr_size(unsigned family)
{
    return family == AF_INET ? 4 : family == AF_INET6 ? 16 : 0;
}

unsigned net_addr_bits(unsigned family)
{
    return (unsigned)net_addr_size(family) * 8;
}

bool net_addr_is_linklocal(const struct net_addr *a)
{
    if (a->family == AF_INET)
        return a->b[0] == 169 && a->b[1] == 254;
    return a->family == AF_INET6 && a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80;
}

bool net_addr_is_limited_broadcast(const struct net_addr *a)
{
    return a->family == AF_INET && a->v4 == UINT32_MAX;
}

unsigned net_addr_common_bits(const struct net_addr *a, const struct net_addr *b)
{
    const size_t size = net_addr_size(a->family);

    for (size_t i = 0; i < size; i++) {
        const unsigned diff = (unsigned)a->b[i] ^ b->b[i];
        if (diff != 0)
            return (unsigned)i * 8 + (unsigned)__builtin_clz(diff) - 24;
    }
    return (unsigned)size * 8;
}

bool net_addr_in_prefix(const struct net_addr *a, const struct net_addr *prefix, unsigned bits)
{
    return a->family == prefix->family && net_addr_common_bits(a, prefix) >= bits;
}

void net_addr_mask(struct net_addr *a, unsigned bits)
{
    const size_t size = net_addr_size(a->family);

    for (size_t i = bits / 8; i < size; i++)
        a->b[i] = (uint8_t)(i == bits / 8 ? a->b[i] & (0xff00u >> (bits % 8)) : 0u);
}
