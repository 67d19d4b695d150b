/* Host calls that carry out changes of a stub's mappings, whoever makes them there.
 * Depends on: base, queue.h.
 * Threading: none of its own.
 * Ownership: values only. */
#ifndef RINGWALL_PLATFORM_STUB_CHANGE_H
#define RINGWALL_PLATFORM_STUB_CHANGE_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/uaddr.h"
#include "platform/stub/queue.h"

/* One host call, as the code in stubs reads it. */
#define STUB_OP_SIZE 64
struct stub_op {
    uint64_t nr, args[6], pad;
};
_Static_assert(sizeof(struct stub_op) == STUB_OP_SIZE, "the assembler knows the size");

/* What plat_as_map() and plat_as_protect() ask for; access, flags: PLAT_*. */
struct stub_change stub_change_map(uaddr_t addr, uint64_t size, unsigned access, int fd,
                                   uint64_t off, unsigned flags);
struct stub_change stub_change_protect(uaddr_t addr, uint64_t size, unsigned access);

void stub_change_encode(struct stub_op *op, const struct stub_change *c);

/* Makes one call in the stub: its result, or -ESRCH or -ECHILD when the stub is gone. */
typedef int64_t (*stub_call_fn)(void *arg, const struct stub_op *op);
/* mprotect(2) ends at the first hole; and -ENOMEM may as well mean that the host has reached its
 * number of mappings. Protects every part that is not a hole. */
MUST_CHECK int stub_protect_parts(const struct stub_change *change, stub_call_fn call, void *arg);
/* Leaves nothing mapped where the change is. */
MUST_CHECK int stub_unmap(const struct stub_change *change, stub_call_fn call, void *arg);

#endif
