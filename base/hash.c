#include "base/hash.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "base/compiler.h"

struct sip {
    uint64_t v0, v1, v2, v3;
};

static uint64_t sip_rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = sip_rotl(s->v1, 13) ^ s->v0;
    s->v0 = sip_rotl(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = sip_rotl(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = sip_rotl(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = sip_rotl(s->v1, 17) ^ s->v2;
    s->v2 = sip_rotl(s->v2, 32);
}

static void sip_word(struct sip *s, uint64_t m)
{
    s->v3 ^= m;
    sip_round(s);
    s->v0 ^= m;
}

uint64_t hash_bytes(const struct hash_key *key, const void *data, size_t size)
{
    const uint8_t *p = data;
    struct sip s = {
        .v0 = key->k0 ^ 0x736f6d6570736575u,
        .v1 = key->k1 ^ 0x646f72616e646f6du,
        .v2 = key->k0 ^ 0x6c7967656e657261u,
        .v3 = key->k1 ^ 0x7465646279746573u,
    };
    uint64_t last = (uint64_t)size << 56;
    size_t left = size;
    uint64_t m;

    for (; left >= sizeof(m); left -= sizeof(m), p += sizeof(m)) {
        memcpy(&m, p, sizeof(m));
        sip_word(&s, m);
    }
    for (size_t i = 0; i < left; i++)
        last |= (uint64_t)p[i] << (8 * i);
    sip_word(&s, last);
    s.v2 ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

static struct hash_key hash_process_key;
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void hash_draw_seed(void)
{
    ssize_t n;

    do {
        n = getrandom(&hash_process_key, sizeof(hash_process_key), 0);
    } while (n < 0 && errno == EINTR);
    /* Without a secret key the guest could choose collisions: rather no sandbox. */
    BUG_ON(n != (ssize_t)sizeof(hash_process_key));
}

const struct hash_key *hash_seed(void)
{
    BUG_ON(pthread_once(&hash_once, hash_draw_seed) != 0);
    return &hash_process_key;
}

uint64_t hash_seeded(const void *data, size_t size)
{
    return hash_bytes(hash_seed(), data, size);
}

uint64_t hash_seeded_u64(uint64_t a, uint64_t b)
{
    const uint64_t pair[2] = {a, b};

    return hash_seeded(pair, sizeof(pair));
}
