/* The only way between sentry values and guest memory.
 * Depends on: base, mm.
 * Threading: any thread; takes the mm lock (rank MM), so no lock of a higher rank may be held.
 * Ownership: callers own their buffers; the guest's bytes may change at any time: fetch once. */
#ifndef RINGWALL_SENTRY_MM_USERCOPY_H
#define RINGWALL_SENTRY_MM_USERCOPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "base/uaddr.h"

struct mm;
struct plat_ctx;

/* Whose memory, and through which context (the calling task's own; NULL for a foreign access). */
struct uaccess {
    struct mm *mm;
    struct plat_ctx *ctx;
};

/* All: 0, or -EFAULT with nothing promised about the destination (copyout: a prefix may be
 * written). Range and overflow checks are inside. Populates and breaks copy-on-write as needed. */
MUST_CHECK int copyin(const struct uaccess *ua, void *dst, uaddr_t src, size_t size);
MUST_CHECK int copyout(const struct uaccess *ua, uaddr_t dst, const void *src, size_t size);
/* Bytes done before the fault, 0 included; never negative. */
size_t copyin_partial(const struct uaccess *ua, void *dst, uaddr_t src, size_t size);
size_t copyout_partial(const struct uaccess *ua, uaddr_t dst, const void *src, size_t size);
size_t user_zero_partial(const struct uaccess *ua, uaddr_t dst, size_t size);
MUST_CHECK int user_zero(const struct uaccess *ua, uaddr_t dst, size_t size);
/* Copies count elements; the multiplication is checked (-EFAULT). */
MUST_CHECK int copyin_array(const struct uaccess *ua, void *dst, uaddr_t src, size_t count,
                            size_t elem_size);
MUST_CHECK int copyout_array(const struct uaccess *ua, uaddr_t dst, const void *src, size_t count,
                             size_t elem_size);
/* NUL-terminated string of at most size-1 bytes: its length, -EFAULT, or too_long (negative errno
 * that the caller chooses, such as -ENAMETOOLONG) when no NUL comes in size bytes. */
MUST_CHECK int64_t copyin_str(const struct uaccess *ua, char *dst, uaddr_t src, size_t size,
                              int too_long);
#define copyin_obj(ua, dst_ptr, src) copyin((ua), (dst_ptr), (src), sizeof(*(dst_ptr)))
#define copyout_obj(ua, dst, src_ptr) copyout((ua), (dst), (src_ptr), sizeof(*(src_ptr)))

/* A debugger's access to memory of a process that is not running, or of another: bytes done. Pages
 * that the process itself may not read or write are no obstacle; a private page that is written
 * becomes the process's own. The caller has checked that it may. */
size_t mm_peek(struct mm *mm, uaddr_t addr, void *buf, size_t size);
size_t mm_poke(struct mm *mm, uaddr_t addr, const void *buf, size_t size);

/* Extensible structs (clone3, openat2, sched_setattr): size from the guest, known from us.
 * Short ones are zero-extended, longer ones must have a zero tail (-E2BIG). copy_struct_from_user.
 */
MUST_CHECK int copyin_struct(const struct uaccess *ua, void *dst, size_t known, uaddr_t src,
                             size_t size);

/* Atomic access to an aligned 32-bit word (-EINVAL when unaligned): futex, robust lists, clear_tid.
 */
MUST_CHECK int user_load32(const struct uaccess *ua, uaddr_t addr, uint32_t *out);
MUST_CHECK int user_store32(const struct uaccess *ua, uaddr_t addr, uint32_t val);
/* *out_seen is the value found; the swap happened when it equals expect. */
MUST_CHECK int user_cmpxchg32(const struct uaccess *ua, uaddr_t addr, uint32_t expect,
                              uint32_t desired, uint32_t *out_seen);

#endif
