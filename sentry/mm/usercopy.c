/* Copies to and from guest memory through the sentry's own view of what backs it. */
#include "sentry/mm/usercopy.h"

#include <errno.h>
#include <string.h>

#include "base/ckd.h"
#include "sentry/mm/mm_priv.h"
#include "sentry/mm/safecopy.h"

/* Slow paths for one piece: another thread may undo what the last one made. */
#define USERCOPY_TRIES 64u
#define USERCOPY_BUFFER 256u

int mm_piece_locked(struct mm *mm, uint64_t addr, uint64_t size, unsigned access,
                    struct mm_piece *out)
{
    const struct pma *p = pma_find(mm, addr);
    if (!p || p->access == 0 || (access & PLAT_WRITE && !(p->access & PLAT_WRITE)))
        return -EFAULT;
    uint64_t off = p->off + (addr - p->start);
    out->size = MIN(size, p->end - addr);
    out->window = NULL;
    if (p->kind != PMA_HOST) {
        out->ptr = memfile_ptr(mm->mf, off);
        return 0;
    }
    return hostwin_get(p->m, p->fd, off, access & PLAT_WRITE, &out->size, &out->ptr, &out->window);
}

/* A piece, with the shared lock held on success; faults memory in as needed. */
static int usercopy_piece(const struct uaccess *ua, uint64_t addr, uint64_t size, unsigned access,
                          struct mm_piece *out)
{
    struct mm *mm = ua->mm;
    for (unsigned i = 0; i < USERCOPY_TRIES; i++) {
        rwlock_rdlock(&mm->lock);
        int err = mm_piece_locked(mm, addr, size, access, out);
        if (!err)
            return 0;
        rwlock_unlock(&mm->lock);
        if (err == -EFAULT)
            err = mm_fault_in(mm, ua->ctx, addr, access);
        if (err)
            return -EFAULT;
    }
    return -EFAULT;
}

static void usercopy_piece_end(const struct uaccess *ua, const struct mm_piece *p)
{
    hostwin_put(p->window);
    rwlock_unlock(&ua->mm->lock);
}

enum usercopy_op { USERCOPY_IN, USERCOPY_OUT, USERCOPY_ZERO };

/* Bytes done. */
static size_t usercopy_run(const struct uaccess *ua, enum usercopy_op op, char *buf, uint64_t addr,
                           size_t size)
{
    unsigned access = op == USERCOPY_IN ? PLAT_READ : PLAT_WRITE;
    size_t done = 0;
    if (!ua->mm || !range_ok(addr, size, ua->mm->max_addr))
        size = !ua->mm || addr >= ua->mm->max_addr ? 0 : ua->mm->max_addr - addr;
    while (done < size) {
        struct mm_piece p;
        if (usercopy_piece(ua, addr + done, size - done, access, &p) != 0)
            break;
        size_t left = 0;
        if (op == USERCOPY_IN)
            left = safecopy(buf + done, p.ptr, p.size);
        else if (op == USERCOPY_OUT)
            left = safecopy(p.ptr, buf + done, p.size);
        else
            left = safezero(p.ptr, p.size);
        usercopy_piece_end(ua, &p);
        done += p.size - left;
        if (left > 0)
            break;
    }
    return done;
}

size_t copyin_partial(const struct uaccess *ua, void *dst, uaddr_t src, size_t size)
{
    return usercopy_run(ua, USERCOPY_IN, dst, src.v, size);
}

size_t copyout_partial(const struct uaccess *ua, uaddr_t dst, const void *src, size_t size)
{
    /* Only read from. */
    return usercopy_run(ua, USERCOPY_OUT, (char *)(uintptr_t)src, dst.v, size);
}

int copyin(const struct uaccess *ua, void *dst, uaddr_t src, size_t size)
{
    return copyin_partial(ua, dst, src, size) == size ? 0 : -EFAULT;
}

int copyout(const struct uaccess *ua, uaddr_t dst, const void *src, size_t size)
{
    return copyout_partial(ua, dst, src, size) == size ? 0 : -EFAULT;
}

size_t user_zero_partial(const struct uaccess *ua, uaddr_t dst, size_t size)
{
    return usercopy_run(ua, USERCOPY_ZERO, NULL, dst.v, size);
}

int user_zero(const struct uaccess *ua, uaddr_t dst, size_t size)
{
    return user_zero_partial(ua, dst, size) == size ? 0 : -EFAULT;
}

int copyin_array(const struct uaccess *ua, void *dst, uaddr_t src, size_t count, size_t elem_size)
{
    size_t size;
    return ckd_mul(&size, count, elem_size) ? -EFAULT : copyin(ua, dst, src, size);
}

int copyout_array(const struct uaccess *ua, uaddr_t dst, const void *src, size_t count,
                  size_t elem_size)
{
    size_t size;
    return ckd_mul(&size, count, elem_size) ? -EFAULT : copyout(ua, dst, src, size);
}

int64_t copyin_str(const struct uaccess *ua, char *dst, uaddr_t src, size_t size, int too_long)
{
    size_t done = 0;
    while (done < size) {
        uint64_t addr = src.v + done;
        /* Not beyond a page at once: what follows the NUL need not be there. */
        size_t n = MIN(size - done, PAGE_SIZE - addr % PAGE_SIZE);
        n = MIN(n, (size_t)USERCOPY_BUFFER);
        size_t got = copyin_partial(ua, dst + done, uaddr(addr), n);
        const char *nul = memchr(dst + done, 0, got);
        if (nul)
            return nul - dst;
        if (got < n)
            return -EFAULT;
        done += n;
    }
    return too_long;
}

int copyin_struct(const struct uaccess *ua, void *dst, size_t known, uaddr_t src, size_t size)
{
    char tail[USERCOPY_BUFFER];
    if (size > PAGE_SIZE)
        return -E2BIG;
    size_t copy = MIN(size, known);
    /* The tail first, as copy_struct_from_user() does. */
    for (size_t at = known; at < size;) {
        size_t n = MIN(size - at, sizeof(tail));
        int err = copyin(ua, tail, uaddr_add(src, at), n);
        if (err)
            return err;
        for (size_t i = 0; i < n; i++) {
            if (tail[i] != 0)
                return -E2BIG;
        }
        at += n;
    }
    memset((char *)dst + copy, 0, known - copy);
    return copyin(ua, dst, src, copy);
}

/* ---- words ---- */

static int usercopy_word(const struct uaccess *ua, uaddr_t addr, unsigned access,
                         struct mm_piece *out)
{
    if (!IS_ALIGNED(addr.v, sizeof(uint32_t)))
        return -EINVAL;
    if (!ua->mm || !range_ok(addr.v, sizeof(uint32_t), ua->mm->max_addr))
        return -EFAULT;
    return usercopy_piece(ua, addr.v, sizeof(uint32_t), access, out);
}

int user_load32(const struct uaccess *ua, uaddr_t addr, uint32_t *out)
{
    struct mm_piece p;
    int err = usercopy_word(ua, addr, PLAT_READ, &p);
    if (err)
        return err;
    err = safe_load32(p.ptr, out);
    usercopy_piece_end(ua, &p);
    return err;
}

int user_store32(const struct uaccess *ua, uaddr_t addr, uint32_t val)
{
    struct mm_piece p;
    int err = usercopy_word(ua, addr, PLAT_WRITE, &p);
    if (err)
        return err;
    err = safe_store32(p.ptr, val);
    usercopy_piece_end(ua, &p);
    return err;
}

int user_cmpxchg32(const struct uaccess *ua, uaddr_t addr, uint32_t expect, uint32_t desired,
                   uint32_t *out_seen)
{
    struct mm_piece p;
    int err = usercopy_word(ua, addr, PLAT_WRITE, &p);
    if (err)
        return err;
    *out_seen = expect;
    err = safe_cmpxchg32(p.ptr, out_seen, desired);
    usercopy_piece_end(ua, &p);
    return err;
}

/* ---- futex words ---- */

int mm_futex_key(const struct uaccess *ua, uaddr_t addr, bool shared, struct mm_futex_key *out)
{
    struct mm_piece p;
    if (!shared) {
        /* The address says it all; whether there is memory shows when the word is read. */
        if (!IS_ALIGNED(addr.v, 4))
            return -EINVAL;
        if (addr.v >= ua->mm->max_addr)
            return -EFAULT;
        *out = (struct mm_futex_key){.object = (uint64_t)(uintptr_t)ua->mm, .off = addr.v};
        return 0;
    }
    int err = usercopy_word(ua, addr, PLAT_READ, &p);
    if (err)
        return err;
    const struct vma *v = vma_find(ua->mm, addr.v);
    if (!v || vma_private(v) || !v->m)
        *out = (struct mm_futex_key){.object = (uint64_t)(uintptr_t)ua->mm, .off = addr.v};
    else
        *out = (struct mm_futex_key){.object = (uint64_t)(uintptr_t)v->m,
                                     .off = v->off + (addr.v - v->start)};
    usercopy_piece_end(ua, &p);
    return 0;
}
