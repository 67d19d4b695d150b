/* NUMA on a machine of one node: mbind(2), set_mempolicy(2), get_mempolicy(2), move_pages(2),
 * migrate_pages(2) (kernel mm/mempolicy.c, mm/migrate.c). */
#include <errno.h>
#include <linux/capability.h>
#include <linux/mempolicy.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"

#ifndef MPOL_PREFERRED_MANY
#define MPOL_PREFERRED_MANY 5
#endif
#ifndef MPOL_F_NUMA_BALANCING
#define MPOL_F_NUMA_BALANCING (1 << 13)
#endif
#define MPOL_WEIGHTED 6
#define MPOL_LAST MPOL_WEIGHTED
#define POLICY_FLAGS                                                                               \
    ((unsigned)(MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES | MPOL_F_NUMA_BALANCING))
#define MOVE_FLAGS ((unsigned)(MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL))
/* Bits of the longest mask (of a page) and of those that can mean a node. */
#define MASK_BITS_MAX (PAGE_SIZE * 8)
#define NODE_BITS 64u
#define NODES_HERE UINT64_C(1)
#define MOVE_BATCH 64u

/* ---- masks ---- */

/* get_nodes(): of maxnode - 1 bits; those past the largest node must be zero. */
static int nodes_in(struct task *t, uaddr_t addr, uint64_t maxnode, uint64_t *out)
{
    *out = 0;
    maxnode--;
    if (maxnode == 0 || uaddr_is_null(addr))
        return 0;
    if (maxnode > MASK_BITS_MAX)
        return -EINVAL;
    for (uint64_t at = 0; at < maxnode; at += NODE_BITS) {
        uint64_t word, left = maxnode - at;
        if (copyin_obj(&t->ua, &word, uaddr_add(addr, at / 8)))
            return -EFAULT;
        if (left < NODE_BITS)
            word &= (UINT64_C(1) << left) - 1;
        if (at == 0)
            *out = word;
        else if (word != 0)
            return -EINVAL;
    }
    return 0;
}

/* copy_nodes_to_user(): a longer mask is filled with zeros. */
static int nodes_out(struct task *t, uaddr_t addr, uint64_t maxnode, uint64_t nodes)
{
    const uint64_t size = ALIGN_UP(maxnode - 1, NODE_BITS) / 8;

    if (size > sizeof(nodes)) {
        if (size > PAGE_SIZE)
            return -EINVAL;
        if (user_zero(&t->ua, uaddr_add(addr, sizeof(nodes)), size - sizeof(nodes)))
            return -EFAULT;
    }
    return copyout(&t->ua, addr, &nodes, MIN(size, sizeof(nodes)));
}

/* ---- policies ---- */

/* mpol_new(): which modes want nodes, and which none. */
static int policy_check(struct mm_policy *p)
{
    const unsigned fixed = p->flags & (MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES);

    switch (p->mode) {
    case MPOL_DEFAULT:
        return p->nodes ? -EINVAL : 0;
    case MPOL_PREFERRED:
        if (p->nodes)
            return 0;
        p->mode = MPOL_LOCAL;
        return fixed ? -EINVAL : 0;
    case MPOL_LOCAL:
        return p->nodes || fixed ? -EINVAL : 0;
    default:
        return p->nodes ? 0 : -EINVAL;
    }
}

static int policy_in(struct task *t, int mode, uaddr_t nodes, uint64_t maxnode,
                     struct mm_policy *out)
{
    const unsigned flags = (unsigned)mode & POLICY_FLAGS;
    const unsigned plain = (unsigned)mode & ~POLICY_FLAGS;

    if (plain > MPOL_LAST || (flags & MPOL_F_STATIC_NODES && flags & MPOL_F_RELATIVE_NODES) ||
        (flags & MPOL_F_NUMA_BALANCING && plain != MPOL_BIND && plain != MPOL_PREFERRED_MANY))
        return -EINVAL;
    *out = (struct mm_policy){.mode = (uint16_t)plain, .flags = (uint16_t)flags};
    int r = nodes_in(t, nodes, maxnode, &out->nodes);
    if (!r)
        r = policy_check(out);
    if (r || out->nodes == 0)
        return r;
    /* Relative ones are folded onto what is there; of the others something has to be. */
    if (!(flags & MPOL_F_RELATIVE_NODES) && !(out->nodes & NODES_HERE))
        return -EINVAL;
    if (!(flags & (MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES)))
        out->nodes &= NODES_HERE;
    return 0;
}

int64_t sys_set_mempolicy(struct task *t, int mode, uaddr_t nodes, uint64_t maxnode)
{
    struct mm_policy p;
    int r = policy_in(t, mode, nodes, maxnode, &p);

    if (!r)
        task_set_policy(t, &p);
    return r;
}

/* The range in whole pages; -EINVAL. */
static int policy_range(uaddr_t addr, uint64_t len, uint64_t *out_size)
{
    if (!IS_ALIGNED(addr.v, PAGE_SIZE))
        return -EINVAL;
    *out_size = ALIGN_UP(len, PAGE_SIZE);
    return *out_size < len || addr.v > UINT64_MAX - *out_size ? -EINVAL : 0;
}

int64_t sys_mbind(struct task *t, uaddr_t addr, uint64_t len, int mode, uaddr_t nodes,
                  uint64_t maxnode, unsigned flags)
{
    struct mm_policy p;
    uint64_t size;
    int r = policy_in(t, mode, nodes, maxnode, &p);

    if (r)
        return r;
    if (flags & ~MOVE_FLAGS)
        return -EINVAL;
    if (flags & MPOL_MF_MOVE_ALL && !task_capable(t, CAP_SYS_NICE))
        return -EPERM;
    r = policy_range(addr, len, &size);
    if (r || size == 0)
        return r;
    return mm_set_policy(t->ua.mm, t->ctx, addr, size, &p);
}

int64_t sys_set_mempolicy_home_node(struct task *t, uaddr_t addr, uint64_t len, uint64_t node,
                                    uint64_t flags)
{
    uint64_t size;
    int r = policy_range(addr, len, &size);

    if (r)
        return r;
    if (flags != 0 || node != 0)
        return -EINVAL;
    return size == 0 ? 0 : mm_home_node(t->ua.mm, addr, size);
}

/* do_get_mempolicy(). */
static int policy_find(struct task *t, uaddr_t addr, uint64_t flags, int *out_mode,
                       uint64_t *out_nodes)
{
    struct mm_policy p;
    uint8_t byte;

    if (flags & MPOL_F_MEMS_ALLOWED) {
        *out_nodes = NODES_HERE;
        return flags & (MPOL_F_NODE | MPOL_F_ADDR) ? -EINVAL : 0;
    }
    if (flags & MPOL_F_ADDR) {
        int r = mm_get_policy(t->ua.mm, addr, &p);
        if (r)
            return r;
    } else if (!uaddr_is_null(addr)) {
        return -EINVAL;
    } else {
        task_get_policy(t, &p);
    }
    *out_mode = p.mode | p.flags;
    *out_nodes = p.nodes;
    if (!(flags & MPOL_F_NODE))
        return 0;
    *out_mode = 0;
    if (flags & MPOL_F_ADDR)
        return copyin_obj(&t->ua, &byte, addr);
    return p.mode == MPOL_INTERLEAVE || p.mode == MPOL_WEIGHTED ? 0 : -EINVAL;
}

int64_t sys_get_mempolicy(struct task *t, uaddr_t mode, uaddr_t nodes, uint64_t maxnode,
                          uaddr_t addr, uint64_t flags)
{
    uint64_t mask = 0;
    int value = 0;

    if (!uaddr_is_null(nodes) && maxnode < 1)
        return -EINVAL;
    if (flags & ~(uint64_t)(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED))
        return -EINVAL;
    int r = policy_find(t, addr, flags, &value, &mask);
    if (!r && !uaddr_is_null(mode))
        r = copyout_obj(&t->ua, mode, &value);
    if (!r && !uaddr_is_null(nodes))
        r = nodes_out(t, nodes, maxnode, mask);
    return r;
}

/* ---- pages, which are where they can be ---- */

/* Another's memory, or the caller's own (pid 0). Owned. */
static int pages_mm(struct task *t, int pid, struct mm **out_mm)
{
    struct task *o;
    int r = task_find(t, pid, &o);

    if (r)
        return r;
    struct mm *mm = task_may_access(t, o, TASK_ACCESS_REAL) ? task_get_mm(o) : NULL;
    if (!mm)
        r = task_may_access(t, o, TASK_ACCESS_REAL) ? -EINVAL : -EPERM;
    task_put(o);
    *out_mm = mm;
    return r;
}

static int page_status(struct mm *mm, uint64_t addr)
{
    switch (mm_page_state(mm, uaddr(addr))) {
    case MM_PAGE_PRESENT:
        return 0;
    case MM_PAGE_ABSENT:
        return -ENOENT;
    case MM_PAGE_UNMAPPED:
    default:
        return -EFAULT;
    }
}

static int pages_batch(struct task *t, struct mm *mm, uint64_t at, uint64_t n, uaddr_t pages,
                       uaddr_t nodes, uaddr_t status)
{
    uint64_t addr[MOVE_BATCH];
    int node[MOVE_BATCH];
    int r = copyin_array(&t->ua, addr, uaddr_add(pages, at * sizeof(addr[0])), n, sizeof(addr[0]));

    if (!r && !uaddr_is_null(nodes))
        r = copyin_array(&t->ua, node, uaddr_add(nodes, at * sizeof(node[0])), n, sizeof(node[0]));
    for (uint64_t i = 0; i < n && !r; i++) {
        if (!uaddr_is_null(nodes) && node[i] != 0)
            return -ENODEV;
        node[i] = page_status(mm, addr[i]);
    }
    return r ? r
             : copyout_array(&t->ua, uaddr_add(status, at * sizeof(node[0])), node, n,
                             sizeof(node[0]));
}

int64_t sys_move_pages(struct task *t, int pid, uint64_t count, uaddr_t pages, uaddr_t nodes,
                       uaddr_t status, int flags)
{
    struct mm *mm;

    if (flags & ~(MPOL_MF_MOVE | MPOL_MF_MOVE_ALL))
        return -EINVAL;
    if (flags & MPOL_MF_MOVE_ALL && !task_capable(t, CAP_SYS_NICE))
        return -EPERM;
    int r = pages_mm(t, pid, &mm);
    if (r)
        return r;
    for (uint64_t at = 0; at < count && !r;) {
        const uint64_t n = MIN(count - at, (uint64_t)MOVE_BATCH);
        r = pages_batch(t, mm, at, n, pages, nodes, status);
        at += n;
        if (task_kill_pending(t))
            break;
    }
    mm_put(mm);
    return r;
}

int64_t sys_migrate_pages(struct task *t, int pid, uint64_t maxnode, uaddr_t from, uaddr_t to)
{
    uint64_t old, new;
    struct mm *mm;
    int r = nodes_in(t, from, maxnode, &old);

    if (!r)
        r = nodes_in(t, to, maxnode, &new);
    if (!r)
        r = pages_mm(t, pid, &mm);
    if (r)
        return r;
    mm_put(mm);
    return new & ~NODES_HERE && !task_capable(t, CAP_SYS_NICE) ? -EPERM : 0;
}
