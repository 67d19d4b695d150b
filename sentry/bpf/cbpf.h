/* Classic BPF: the machine that seccomp(2) filters and socket filters (SO_ATTACH_FILTER, socket(7))
 * share. What a program may load from is its user's to say.
 * Depends on: base.
 * Threading: values; any thread.
 * Ownership: programs are borrowed. */
#ifndef RINGWALL_SENTRY_BPF_CBPF_H
#define RINGWALL_SENTRY_BPF_CBPF_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* What a user of the machine adds to it. */
struct cbpf_kind {
    bool modulo; /* BPF_ALU | BPF_MOD is known */
    /* Whether f, of class BPF_LD or BPF_LDX and neither BPF_IMM nor BPF_MEM, may stand in a
     * program. */
    bool (*load_ok)(const struct sock_filter *f);
    /* Does such a load. False: there is nothing there, the program ends with 0. */
    bool (*load)(const void *data, const struct sock_filter *f, uint32_t a, uint32_t x,
                 uint32_t *out);
};

/* -EINVAL for a program that is empty or too long, might leave its bounds, does not end with a
 * return, reads a word that was not written, or has an instruction unknown to k (bpf_check_classic
 * of the kernel). -ENOMEM. */
MUST_CHECK int cbpf_check(const struct cbpf_kind *k, const struct sock_filter *f, size_t count);
/* What a checked program returns for data; 0 after a division by zero. */
uint32_t cbpf_run(const struct cbpf_kind *k, const struct sock_filter *f, const void *data);
/* The outcome of a conditional jump. */
bool cbpf_test(const struct sock_filter *f, uint32_t a, uint32_t v);

#endif
