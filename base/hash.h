/* Hashes for tables. Keys may be chosen by the guest, so bytes go through a keyed hash.
 * Depends on: nothing.
 * Threading: any thread; hash_seed draws once.
 * Ownership: none. */
#ifndef RINGWALL_BASE_HASH_H
#define RINGWALL_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash_key {
    uint64_t k0, k1;
};

/* SipHash-1-3 of data. */
uint64_t hash_bytes(const struct hash_key *key, const void *data, size_t size);
/* The process's random key (getrandom at first use; call it once before confinement). */
const struct hash_key *hash_seed(void);
/* hash_bytes with the process's key. */
uint64_t hash_seeded(const void *data, size_t size);
uint64_t hash_seeded_u64(uint64_t a, uint64_t b);

/* Mixes an integer that is not hostile (addresses of own objects, ids). */
static inline uint64_t hash_u64(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    return x;
}

#endif
