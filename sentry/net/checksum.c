#include "sentry/net/checksum.h"

#include <arpa/inet.h>
#include <string.h>

#include "sentry/net/ns/prefix.h"

static uint32_t fold32(uint64_t s)
{
    s = (s & 0xffffffffu) + (s >> 32);
    s = (s & 0xffffffffu) + (s >> 32);
    return (uint32_t)s;
}

uint32_t csum_add(uint32_t sum, const void *data, size_t size)
{
    const uint8_t *p = data;
    uint64_t s = sum;

    while (size >= 8) {
        uint32_t a, b;
        memcpy(&a, p, 4);
        memcpy(&b, p + 4, 4);
        s += (uint64_t)a + b;
        p += 8;
        size -= 8;
    }
    while (size >= 2) {
        uint16_t a;
        memcpy(&a, p, 2);
        s += a;
        p += 2;
        size -= 2;
    }
    if (size > 0)
        s += *p;
    return fold32(s);
}

uint16_t csum_fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

uint32_t csum_iov(uint32_t sum, const struct iovec *iov, int count)
{
    bool odd = false;

    for (int i = 0; i < count; i++) {
        uint32_t part = csum_add(0, iov[i].iov_base, iov[i].iov_len);
        part = (part & 0xffff) + (part >> 16);
        part = (part & 0xffff) + (part >> 16);
        if (odd)
            part = (part & 0xff) << 8 | part >> 8;
        sum = fold32((uint64_t)sum + part);
        odd ^= iov[i].iov_len & 1;
    }
    return sum;
}

uint32_t csum_pseudo(const struct net_addr *src, const struct net_addr *dst, uint8_t protocol,
                     size_t size)
{
    const size_t n = net_addr_size(src->family);
    const uint32_t tail[2] = {htonl((uint32_t)size), htonl(protocol)};

    return csum_add(csum_add(csum_add(0, src->b, n), dst->b, n), tail, sizeof(tail));
}
