/* The vDSO that guests see (vdso(7)): a small ELF image of our own, mapped into every program.
 * Depends on: mm, mem, platform.
 * Threading: vdso_init before the first program; vdso_map from any thread.
 * Ownership: one image per sandbox, in the memory file, never freed. */
#ifndef RINGWALL_SENTRY_VDSO_VDSO_H
#define RINGWALL_SENTRY_VDSO_VDSO_H

#include <stdint.h>

#include "base/compiler.h"

struct mm;
struct mm_limits;
struct plat;
struct memfile;

/* Maps the image into a fresh mm and gives its address (AT_SYSINFO_EHDR). Clock reads in it call
 * the host's vDSO when the platform keeps that mapped, else make a system call. -ENOMEM. */
MUST_CHECK int vdso_map(struct mm *mm, struct plat *plat, struct memfile *mf,
                        const struct mm_limits *lim, uint64_t *out_addr);
/* What clocks that count from boot show in mm from now on: the host's time and these, ns. Nobody
 * runs in mm but perhaps the caller. 0 when the program has no vDSO any more; -ENOMEM. */
MUST_CHECK int vdso_set_offsets(struct mm *mm, int64_t mono_ns, int64_t boot_ns);

#endif
