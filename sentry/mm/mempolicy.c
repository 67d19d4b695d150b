/* NUMA policies of mappings, on a machine of one node: kept, inherited and shown. */
#include <errno.h>
#include <linux/mempolicy.h>

#include "base/ckd.h"
#include "sentry/mm/mm_priv.h"

#ifndef MPOL_PREFERRED_MANY
#define MPOL_PREFERRED_MANY 5
#endif

static int policy_vma(struct mm *mm, struct vma *v, uint64_t start, uint64_t end,
                      const struct mm_policy *policy)
{
    if (mm_policy_equal(&v->policy, policy))
        return 0;
    const unsigned cuts = (start > v->start ? 1u : 0u) + (end < v->end ? 1u : 0u);
    if (cuts > 0 && mm->vma_count + cuts > LIMIT_MAP_COUNT)
        return -ENOMEM;
    int err = mm_stock_locked(mm);
    if (err)
        return err;
    vma_isolate(mm, start, end);
    vma_find(mm, start)->policy = *policy;
    return 0;
}

static int policy_range(struct mm *mm, uint64_t start, uint64_t end, const struct mm_policy *policy)
{
    int err = 0;
    while (start < end && !err) {
        struct vma *v = vma_first(mm, start);
        if (!v || v->start >= end)
            break;
        const uint64_t lo = MAX(v->start, start), hi = MIN(v->end, end);
        err = policy_vma(mm, v, lo, hi, policy);
        start = hi;
    }
    return err;
}

int mm_set_policy(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size,
                  const struct mm_policy *policy)
{
    const uint64_t start = addr.v, end = start + size;
    int err = mm_begin(mm, ctx);
    if (err)
        return err;
    /* Only the default may be given to what has holes: queue_pages_test_walk(). */
    if (policy->mode == MPOL_DEFAULT ? !vma_any(mm, start, end) : !vma_covers(mm, start, end))
        err = -EFAULT;
    else
        err = policy_range(mm, start, end, policy);
    vma_merge_range(mm, start, end);
    mm_end(mm);
    return err;
}

int mm_get_policy(struct mm *mm, uaddr_t addr, struct mm_policy *out)
{
    rwlock_rdlock(&mm->lock);
    const struct vma *v = vma_find(mm, addr.v);
    if (v)
        *out = v->policy;
    rwlock_unlock(&mm->lock);
    return v ? 0 : -EFAULT;
}

int mm_home_node(struct mm *mm, uaddr_t addr, uint64_t size)
{
    int err = -ENOENT;
    rwlock_rdlock(&mm->lock);
    for (struct vma *v = vma_first(mm, addr.v); v && v->start < addr.v + size; v = vma_next(v)) {
        if (v->policy.mode == MPOL_DEFAULT)
            continue;
        err =
            v->policy.mode == MPOL_BIND || v->policy.mode == MPOL_PREFERRED_MANY ? 0 : -EOPNOTSUPP;
        if (err)
            break;
    }
    rwlock_unlock(&mm->lock);
    return err;
}
