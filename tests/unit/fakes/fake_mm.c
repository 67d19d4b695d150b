/* Address spaces of a few pages, kept in the sentry's own memory. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/ref.h"
#include "fakes.h"
#include "sentry/mem/memacct.h"
#include "sentry/mem/memfile.h"
#include "sentry/mm/mm.h"
#include "sentry/mm/uio.h"

_Atomic int fake_mm_live;

struct mm {
    struct ref ref;
    struct mutex mu;
    struct plat_as *as;
    struct mm_layout layout;
    _Atomic uint64_t cids;
    _Atomic bool sections;
    uint8_t mem[FAKE_MEM_SIZE];
};

static int mm_alloc(struct plat_as *as, struct mm **out_mm)
{
    struct mm *mm = calloc(1, sizeof(*mm));

    if (!mm)
        return -ENOMEM;
    ref_init(&mm->ref);
    mutex_init(&mm->mu, LOCK_RANK_MM);
    mm->as = as;
    atomic_fetch_add(&fake_mm_live, 1);
    *out_mm = mm;
    return 0;
}

int mm_new(struct plat *plat, struct memfile *mf, struct mm **out_mm)
{
    struct plat_as *as;
    int r = plat_as_create(plat, &as);

    (void)mf;
    return r ? r : mm_alloc(as, out_mm);
}

void mm_loaded(struct mm *mm)
{
    (void)mm;
}

struct mm *mm_get(struct mm *mm)
{
    ref_get(&mm->ref);
    return mm;
}

void mm_put(struct mm *mm)
{
    if (!ref_put(&mm->ref))
        return;
    plat_as_put(mm->as);
    mutex_destroy(&mm->mu);
    atomic_fetch_sub(&fake_mm_live, 1);
    free(mm);
}

int mm_fork(struct mm *mm, struct plat_ctx *parent_ctx, const struct mm_limits *lim,
            struct mm **out_mm, struct plat_ctx **out_child)
{
    struct plat_as *as;
    int r = plat_ctx_fork(parent_ctx, &as, out_child);

    (void)lim;
    if (r)
        return r;
    r = mm_alloc(as, out_mm);
    if (r)
        return r;
    mutex_lock(&mm->mu);
    memcpy((*out_mm)->mem, mm->mem, sizeof(mm->mem));
    mutex_unlock(&mm->mu);
    return 0;
}

struct plat_as *mm_as(struct mm *mm)
{
    return mm->as;
}

struct mm_layout *mm_layout(struct mm *mm)
{
    return &mm->layout;
}

void mm_lock_layout(struct mm *mm)
{
    mutex_lock(&mm->mu);
}

void mm_unlock_layout(struct mm *mm)
{
    mutex_unlock(&mm->mu);
}

void mm_stats(struct mm *mm, struct mm_stats *out)
{
    (void)mm;
    *out = (struct mm_stats){.virt = FAKE_MEM_SIZE, .peak_rss = FAKE_MEM_SIZE};
}

int mm_fault(struct mm *mm, struct plat_ctx *ctx, const struct plat_fault *f,
             const struct mm_limits *lim, struct plat_fault *sig)
{
    (void)mm;
    (void)ctx;
    (void)lim;
    *sig = *f;
    return -EFAULT;
}

int mm_futex_key(const struct uaccess *ua, uaddr_t addr, bool shared, struct mm_futex_key *out)
{
    (void)shared;
    if (addr.v % 4)
        return -EINVAL;
    *out = (struct mm_futex_key){.object = (uintptr_t)ua->mm, .off = addr.v};
    return 0;
}

/* ---- copies ---- */

/* Bytes of the range that exist. */
static size_t user_range(uaddr_t addr, size_t size)
{
    const uint64_t end = FAKE_MEM_START + FAKE_MEM_SIZE;

    if (addr.v < FAKE_MEM_START || addr.v >= end)
        return 0;
    return (size_t)MIN(end - addr.v, (uint64_t)size);
}

size_t copyin_partial(const struct uaccess *ua, void *dst, uaddr_t src, size_t size)
{
    const size_t n = user_range(src, size);

    mutex_lock(&ua->mm->mu);
    if (n)
        memcpy(dst, ua->mm->mem + (src.v - FAKE_MEM_START), n);
    mutex_unlock(&ua->mm->mu);
    return n;
}

size_t copyout_partial(const struct uaccess *ua, uaddr_t dst, const void *src, size_t size)
{
    const size_t n = atomic_load(&fake_memory_gone) ? 0 : user_range(dst, size);

    mutex_lock(&ua->mm->mu);
    if (n)
        memcpy(ua->mm->mem + (dst.v - FAKE_MEM_START), src, n);
    mutex_unlock(&ua->mm->mu);
    return n;
}

int copyin(const struct uaccess *ua, void *dst, uaddr_t src, size_t size)
{
    return copyin_partial(ua, dst, src, size) == size ? 0 : -EFAULT;
}

int copyout(const struct uaccess *ua, uaddr_t dst, const void *src, size_t size)
{
    return copyout_partial(ua, dst, src, size) == size ? 0 : -EFAULT;
}

int copyin_array(const struct uaccess *ua, void *dst, uaddr_t src, size_t count, size_t elem_size)
{
    return copyin(ua, dst, src, count * elem_size);
}

int copyout_array(const struct uaccess *ua, uaddr_t dst, const void *src, size_t count,
                  size_t elem_size)
{
    return copyout(ua, dst, src, count * elem_size);
}

int64_t copyin_str(const struct uaccess *ua, char *dst, uaddr_t src, size_t size, int too_long)
{
    const size_t n = copyin_partial(ua, dst, src, size);
    const char *end = memchr(dst, '\0', n);

    if (end)
        return end - dst;
    return n == size ? too_long : -EFAULT;
}

int copyin_struct(const struct uaccess *ua, void *dst, size_t known, uaddr_t src, size_t size)
{
    memset(dst, 0, known);
    return copyin(ua, dst, src, MIN(known, size));
}

int user_zero(const struct uaccess *ua, uaddr_t dst, size_t size)
{
    static const uint8_t zeros[FAKE_MEM_SIZE];

    return size > sizeof(zeros) ? -EFAULT : copyout(ua, dst, zeros, size);
}

int user_load32(const struct uaccess *ua, uaddr_t addr, uint32_t *out)
{
    return addr.v % 4 ? -EINVAL : copyin(ua, out, addr, sizeof(*out));
}

int user_store32(const struct uaccess *ua, uaddr_t addr, uint32_t val)
{
    return addr.v % 4 ? -EINVAL : copyout(ua, addr, &val, sizeof(val));
}

int user_cmpxchg32(const struct uaccess *ua, uaddr_t addr, uint32_t expect, uint32_t desired,
                   uint32_t *out_seen)
{
    if (addr.v % 4)
        return -EINVAL;
    if (user_range(addr, 4) != 4)
        return -EFAULT;
    mutex_lock(&ua->mm->mu);
    uint8_t *p = ua->mm->mem + (addr.v - FAKE_MEM_START);
    memcpy(out_seen, p, 4);
    if (*out_seen == expect)
        memcpy(p, &desired, 4);
    mutex_unlock(&ua->mm->mu);
    return 0;
}

uint64_t memfile_resident(const struct memfile *mf)
{
    (void)mf;
    return 0;
}

int64_t uio_copy_to(struct uio *u, const void *src, size_t size)
{
    (void)u;
    (void)src;
    (void)size;
    return -EFAULT;
}

/* ---- shared memory by id: nothing here maps it ---- */

int mm_mmap(struct mm *mm, struct plat_ctx *ctx, const struct mm_limits *lim,
            const struct mm_map_args *args, uaddr_t *out_addr)
{
    (void)mm, (void)ctx, (void)lim, (void)args, (void)out_addr;
    return -ENOMEM;
}

int mm_detach(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, const struct mappable_ops *ops,
              struct mappable **out_m)
{
    (void)mm, (void)ctx, (void)addr, (void)ops, (void)out_m;
    return -EINVAL;
}

void mappable_init(struct mappable *m, const struct mappable_ops *ops)
{
    m->ops = ops;
}

void mappable_fini(struct mappable *m)
{
    (void)m;
}

struct mem_commit *memfile_commit(struct memfile *mf)
{
    static struct mem_commit commit;

    (void)mf;
    return &commit;
}

bool memfile_may_commit(struct memfile *mf, uint64_t size, uint64_t own, bool admin)
{
    (void)mf, (void)size, (void)own, (void)admin;
    return true;
}

int memfile_alloc_flags(struct memfile *mf, struct memacct *acct, uint64_t size, unsigned flags,
                        uint64_t *out_off, bool *out_warm)
{
    (void)mf, (void)acct, (void)size, (void)flags, (void)out_off, (void)out_warm;
    return -ENOMEM;
}

int memfile_alloc(struct memfile *mf, struct memacct *acct, uint64_t size, uint64_t *out_off)
{
    return memfile_alloc_flags(mf, acct, size, 0, out_off, NULL);
}

/* Accounts without anything in them. */
struct memacct {
    int refs;
};

int memacct_new(struct memacct *parent, struct memacct **out_acct)
{
    (void)parent;
    *out_acct = calloc(1, sizeof(**out_acct));
    if (*out_acct == NULL)
        return -ENOMEM;
    __atomic_store_n(&(*out_acct)->refs, 1, __ATOMIC_SEQ_CST);
    return 0;
}

struct memacct *memacct_get(struct memacct *a)
{
    if (a)
        __atomic_add_fetch(&a->refs, 1, __ATOMIC_SEQ_CST);
    return a;
}

void memacct_put(struct memacct *a)
{
    if (a && __atomic_sub_fetch(&a->refs, 1, __ATOMIC_SEQ_CST) == 0)
        free(a);
}

void memacct_set_limit(struct memacct *a, uint64_t limit)
{
    (void)a, (void)limit;
}

uint64_t memacct_limit(const struct memacct *a)
{
    (void)a;
    return MEMACCT_NO_LIMIT;
}

bool memacct_is_below(const struct memacct *a, const struct memacct *above)
{
    return a == above;
}

uint64_t memacct_reserved(const struct memacct *a)
{
    (void)a;
    return 0;
}

uint64_t memacct_peak(const struct memacct *a)
{
    (void)a;
    return 0;
}

void memacct_reset_peak(struct memacct *a)
{
    (void)a;
}

uint64_t memacct_failures(const struct memacct *a)
{
    (void)a;
    return 0;
}

uint64_t memacct_resident(struct memfile *mf, struct memacct *a)
{
    (void)mf, (void)a;
    return 0;
}

struct memacct *memacct_over(struct memfile *mf, struct memacct *a)
{
    (void)mf, (void)a;
    return NULL;
}

void mm_set_account(struct mm *mm, struct memacct *acct)
{
    (void)mm, (void)acct;
}

struct memacct *mm_account(struct mm *mm)
{
    (void)mm;
    return NULL;
}

int memfile_ref(struct memfile *mf, uint64_t off, uint64_t size)
{
    (void)mf, (void)off, (void)size;
    return -ENOMEM;
}

void memfile_unref(struct memfile *mf, uint64_t off, uint64_t size)
{
    (void)mf, (void)off, (void)size;
}

void memfile_zero(struct memfile *mf, uint64_t off, uint64_t size)
{
    (void)mf, (void)off, (void)size;
}

uint64_t memfile_budget(const struct memfile *mf)
{
    (void)mf;
    return 0;
}

uint64_t memfile_resident_range(struct memfile *mf, uint64_t off, uint64_t size)
{
    (void)mf, (void)off, (void)size;
    return 0;
}

_Atomic bool fake_memory_gone;

bool memfile_heap_full(struct memfile *mf)
{
    (void)mf;
    return false;
}

bool memfile_full(const struct memfile *mf)
{
    (void)mf;
    return atomic_load(&fake_memory_gone);
}

bool memfile_slack(const struct memfile *mf)
{
    (void)mf;
    return false;
}

uint64_t mm_take_back(struct mm *mm, bool coarse)
{
    (void)mm, (void)coarse;
    atomic_store(&fake_memory_gone, false);
    return 0;
}

size_t mm_peek(struct mm *mm, uaddr_t addr, void *buf, size_t size)
{
    const struct uaccess ua = {.mm = mm};

    return copyin_partial(&ua, buf, addr, size);
}

size_t mm_poke(struct mm *mm, uaddr_t addr, const void *buf, size_t size)
{
    const struct uaccess ua = {.mm = mm};

    return copyout_partial(&ua, addr, buf, size);
}

int mm_find_object(struct mm *mm, uaddr_t addr, const struct mappable_ops *ops,
                   struct mappable **out_m)
{
    (void)mm, (void)addr, (void)ops, (void)out_m;
    return -EINVAL;
}

int mm_mincore(struct mm *mm, uaddr_t addr, uint64_t size, unsigned char *vec)
{
    (void)mm, (void)addr, (void)size, (void)vec;
    return -ENOMEM;
}

int mm_reap(struct mm *mm)
{
    (void)mm;
    return 0;
}

int mm_vma_next(struct mm *mm, uint64_t from, struct mm_vma_info *out)
{
    (void)mm, (void)from, (void)out;
    return -ENOENT;
}

uint32_t mm_cid_take(struct mm *mm)
{
    for (;;) {
        uint64_t used = atomic_load(&mm->cids);
        const uint32_t cid = (uint32_t)__builtin_ctzll(~used);
        if (atomic_compare_exchange_strong(&mm->cids, &used, used | UINT64_C(1) << cid))
            return cid;
    }
}

/* Others run here: what a caller does before and after is not one step. */
void mm_cid_put(struct mm *mm, uint32_t cid)
{
    (void)sched_yield();
    atomic_fetch_and(&mm->cids, ~(UINT64_C(1) << cid));
}

void mm_set_sections(struct mm *mm)
{
    atomic_store(&mm->sections, true);
}

bool mm_has_sections(const struct mm *mm)
{
    return atomic_load(&mm->sections);
}

void uio_init_kernel(struct uio *u, void *buf, size_t size)
{
    (void)buf;
    *u = (struct uio){.left = size};
}
