/* What every stub needs of the host, and the young process that becomes the first one.
 * Depends on: base, platform.h.
 * Threading: before the sentry has threads, unless said otherwise.
 * Ownership: values only. */
#ifndef RINGWALL_PLATFORM_STUB_HOST_H
#define RINGWALL_PLATFORM_STUB_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "platform/platform.h"

/* End of what a program may use. */
#define STUB_TASK_END UINT64_C(0x7ffffffff000)
/* Segments and flags that user code starts with. */
#define STUB_USER_CS 0x33
#define STUB_USER_SS 0x2b
#define STUB_EFLAGS 0x202

/* Registers of a context that nothing has set yet. */
struct plat_regs stub_regs_fresh(void);

/* ---- the host's vDSO ---- */
/* Finds it, while /proc can be read. Negative errno with a reason in why. */
MUST_CHECK int stub_vdso_find(char *why, size_t why_size);
/* Where the host put it and its data, the same in every fork; empty when there is none. */
struct plat_range stub_vdso_range(void);
/* Moves both in the calling process; some hosts seal them. Async-signal-safe. */
bool stub_vdso_move(uint64_t to);

/* ---- in a fork, whose memory is still the sentry's: these take no lock ---- */
/* The kernel would go on writing to the C library's area, which will not be there. */
void stub_no_rseq(void);
bool stub_drop_capabilities(void);

/* Reserves size bytes as near to the end of what a guest may use as this process has room. */
MUST_CHECK int stub_reserve(uint64_t size, uint64_t *out_addr);
/* Bytes of the host's XSAVE area for what is enabled. */
uint32_t stub_xstate_size(void);

/* Offsets in an XSAVE area: Intel SDM vol. 1, 13.4. */
#define STUB_XSAVE_SW_RESERVED 464
#define STUB_XSAVE_HEADER 512
#define STUB_XSAVE_LEGACY_SIZE 576
#define STUB_XSTATE_X87_SSE UINT64_C(3)
/* A whole area of full bytes made of size bytes at buf; what is cut off before the extended part
 * has x87 and SSE only. The caller frees *out_area. -EINVAL: size fits neither; -ENOMEM. Any
 * thread. */
MUST_CHECK int stub_xstate_whole(const void *buf, size_t size, size_t full, char **out_area);

/* Fills in trapno and errcode from the signal, code and access; what those do not tell is left out.
 * Any thread. */
void stub_fault_trap(struct plat_fault *f);

#endif
