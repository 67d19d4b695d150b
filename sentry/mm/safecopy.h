/* Copies that survive a fault: memory of truncated files, of a stub, of a host out of memory.
 * Depends on: base.
 * Threading: any thread. SIGSEGV and SIGBUS must not be blocked.
 * Ownership: none. The accesses are done in assembly, so sanitizers do not look at them. */
#ifndef RINGWALL_SENTRY_MM_SAFECOPY_H
#define RINGWALL_SENTRY_MM_SAFECOPY_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* Installs the handlers of SIGSEGV and SIGBUS. A fault anywhere else goes to what was installed
 * before, which normally ends the process. Idempotent. */
MUST_CHECK int safecopy_init(void);

/* Bytes that could not be copied (the tail), 0 when all were. */
MUST_CHECK size_t safecopy(void *dst, const void *src, size_t size);
MUST_CHECK size_t safezero(void *dst, size_t size);
/* Atomic, sequentially consistent; the address must be aligned. 0 or -EFAULT. */
MUST_CHECK int safe_load32(const void *ptr, uint32_t *out);
MUST_CHECK int safe_store32(void *ptr, uint32_t val);
/* *seen: in the value expected, out the value found. */
MUST_CHECK int safe_cmpxchg32(void *ptr, uint32_t *seen, uint32_t desired);

#endif
