/* Address spaces: mmap(2) and its relatives. */
#include <errno.h>
#include <linux/personality.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/limits.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/rseq.h"
#include "syscalls/handlers.h"

#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1u
#endif
/* Linux's LEGACY_MAP_MASK: what MAP_SHARED_VALIDATE lets pass. */
#define MAP_LEGACY                                                                                 \
    (MAP_SHARED | MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_DENYWRITE | MAP_EXECUTABLE |       \
     MAP_GROWSDOWN | MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE | MAP_NONBLOCK | MAP_STACK |        \
     MAP_HUGETLB | MAP_32BIT | (int)(0x3fu << MAP_HUGE_SHIFT))
#define MADVISE_POPULATE_STEP (UINT64_C(64) << 20)
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

static int mmap_file(struct task *t, int fd, struct mm_map_args *a, struct file **out_file)
{
    int type = a->flags & MAP_TYPE;
    int err = task_file(t, fd, out_file);
    if (err)
        return err;
    if (type == MAP_SHARED_VALIDATE) {
        err = a->flags & ~MAP_LEGACY ? -EOPNOTSUPP : 0;
        type = MAP_SHARED;
        a->flags = (a->flags & ~MAP_TYPE) | type;
    }
    if (a->size == 0 || (type != MAP_SHARED && type != MAP_PRIVATE))
        err = -EINVAL;
    if (!err)
        err = vfs_mmap(*out_file, a->prot & RWX, type, &a->max_prot, &a->m);
    if (err)
        file_put(*out_file);
    return err;
}

/* READ_IMPLIES_EXEC of personality(2). */
static int mm_prot_of(struct task *t, int prot)
{
    if (LIKELY(!(task_attr_get(t, TASK_ATTR_PERSONALITY) & READ_IMPLIES_EXEC)))
        return prot;
    return prot & PROT_READ ? prot | PROT_EXEC : prot;
}

int64_t sys_mmap(struct task *t, uaddr_t addr, uint64_t len, int prot, int flags, int fd,
                 uint64_t off)
{
    struct mm_map_args a = {
        .addr = addr, .size = len, .prot = prot, .flags = flags, .max_prot = RWX, .off = off};
    struct mm_limits lim;
    struct file *f = NULL;
    uaddr_t at;
    if (!IS_ALIGNED(off, PAGE_SIZE))
        return -EINVAL;
    if (!(flags & MAP_ANONYMOUS)) {
        int err = mmap_file(t, fd, &a, &f);
        if (err)
            return err;
    }
    if (f ? (a.max_prot & PROT_EXEC) != 0 : true)
        a.prot = mm_prot_of(t, a.prot);
    task_mm_limits(t, &lim);
    int err = f && (a.prot & PROT_EXEC) ? task_rseq_map(t, f) : 0;
    if (!err)
        err = mm_mmap(t->ua.mm, t->ctx, &lim, &a, &at);
    if (a.m)
        a.m->ops->put(a.m);
    if (f)
        file_put(f);
    return err ? err : (int64_t)at.v;
}

int64_t sys_munmap(struct task *t, uaddr_t addr, uint64_t len)
{
    return mm_munmap(t->ua.mm, t->ctx, addr, len);
}

int64_t sys_mprotect(struct task *t, uaddr_t addr, uint64_t len, int prot)
{
    struct mm_limits lim;
    task_mm_limits(t, &lim);
    return mm_mprotect(t->ua.mm, t->ctx, addr, len, mm_prot_of(t, prot), &lim);
}

int64_t sys_mremap(struct task *t, uaddr_t old, uint64_t old_len, uint64_t new_len, int flags,
                   uaddr_t new_addr)
{
    struct mm_limits lim;
    uaddr_t at;
    task_mm_limits(t, &lim);
    int err = mm_mremap(t->ua.mm, t->ctx, &lim, old, old_len, new_len, flags, new_addr, &at);
    return err ? err : (int64_t)at.v;
}

int64_t sys_brk(struct task *t, uaddr_t brk)
{
    struct mm_limits lim;
    task_mm_limits(t, &lim);
    return (int64_t)mm_brk(t->ua.mm, t->ctx, &lim, brk.v);
}

/* Filling in may take long: in pieces, so that SIGKILL ends it. */
static int64_t madvise_populate(struct task *t, uaddr_t addr, uint64_t len, int advice)
{
    uint64_t left = len;
    do {
        uint64_t n = MIN(left, MADVISE_POPULATE_STEP);
        int err = mm_madvise(t->ua.mm, t->ctx, addr, n, advice);
        if (err)
            return err;
        addr = uaddr_add(addr, n);
        left -= n;
        if (left > 0 && task_kill_pending(t))
            return -EINTR;
    } while (left > 0);
    return 0;
}

int64_t sys_madvise(struct task *t, uaddr_t addr, uint64_t len, int advice)
{
    bool populate = advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE;
    if (populate && len > MADVISE_POPULATE_STEP && len <= UINT64_MAX - PAGE_SIZE &&
        addr.v <= UINT64_MAX - PAGE_SIZE - len)
        return madvise_populate(t, addr, len, advice);
    return mm_madvise(t->ua.mm, t->ctx, addr, len, advice);
}

int64_t sys_msync(struct task *t, uaddr_t addr, uint64_t len, int flags)
{
    return mm_msync(t->ua.mm, addr, len, flags);
}

int64_t sys_mincore(struct task *t, uaddr_t addr, uint64_t len, uaddr_t vec)
{
    unsigned char chunk[1024];
    if (!IS_ALIGNED(addr.v, PAGE_SIZE))
        return -EINVAL;
    if (len > UINT64_MAX - PAGE_SIZE)
        return -ENOMEM;
    uint64_t pages = ALIGN_UP(len, PAGE_SIZE) >> PAGE_SHIFT;
    for (uint64_t at = 0; at < pages;) {
        uint64_t n = MIN(pages - at, sizeof(chunk));
        int err = mm_mincore(t->ua.mm, uaddr_add(addr, at << PAGE_SHIFT), n << PAGE_SHIFT, chunk);
        if (!err)
            err = copyout(&t->ua, uaddr_add(vec, at), chunk, n);
        if (err)
            return err;
        at += n;
    }
    return 0;
}

/* ---- locking ---- */

static int64_t do_mlock(struct task *t, uaddr_t addr, uint64_t len, enum mm_lock_mode mode)
{
    struct mm_limits lim;
    task_mm_limits(t, &lim);
    return mm_mlock(t->ua.mm, t->ctx, addr, len, mode, &lim);
}

int64_t sys_mlock(struct task *t, uaddr_t addr, uint64_t len)
{
    return do_mlock(t, addr, len, MM_LOCK);
}

int64_t sys_mlock2(struct task *t, uaddr_t addr, uint64_t len, int flags)
{
    if ((unsigned)flags & ~MLOCK_ONFAULT)
        return -EINVAL;
    return do_mlock(t, addr, len, flags ? MM_LOCK_ONFAULT : MM_LOCK);
}

int64_t sys_munlock(struct task *t, uaddr_t addr, uint64_t len)
{
    return do_mlock(t, addr, len, MM_UNLOCK);
}

int64_t sys_mlockall(struct task *t, int flags)
{
    struct mm_limits lim;
    if (flags == 0)
        return -EINVAL;
    task_mm_limits(t, &lim);
    return mm_mlockall(t->ua.mm, t->ctx, flags, &lim);
}

int64_t sys_munlockall(struct task *t)
{
    struct mm_limits lim;
    task_mm_limits(t, &lim);
    return mm_mlockall(t->ua.mm, t->ctx, 0, &lim);
}

int64_t sys_mseal(struct task *t, uaddr_t addr, uint64_t len, uint64_t flags)
{
    return flags ? -EINVAL : mm_seal(t->ua.mm, t->ctx, addr, len);
}

int64_t sys_remap_file_pages(struct task *t, uaddr_t addr, uint64_t len, int prot, uint64_t page,
                             int flags)
{
    struct mm_limits lim;
    if (prot != 0)
        return -EINVAL;
    task_mm_limits(t, &lim);
    return mm_remap_file_pages(t->ua.mm, t->ctx, &lim, addr, len, page, flags);
}

/* ---- protection keys: a CPU that has none ---- */

int64_t sys_pkey_mprotect(struct task *t, uaddr_t addr, uint64_t len, int prot, int pkey)
{
    /* Keys are looked at when there is something to change. */
    return pkey == -1 || len == 0 ? sys_mprotect(t, addr, len, prot) : -EINVAL;
}

int64_t sys_pkey_alloc(struct task *t, uint64_t flags, uint64_t rights)
{
    (void)t;
    return flags != 0 || rights & ~UINT64_C(3) ? -EINVAL : -ENOSPC;
}

int64_t sys_pkey_free(struct task *t, int pkey)
{
    (void)t;
    (void)pkey;
    return -EINVAL;
}
