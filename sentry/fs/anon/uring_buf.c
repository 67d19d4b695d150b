/* Buffers that a request takes when it has something to put into them (IOSQE_BUFFER_SELECT): given
 * one by one, or in a ring in the guest's memory, of which each word is read once. */
#include <errno.h>
#include <stdlib.h>

#include "base/limits.h"
#include "sentry/fs/anon/uring_priv.h"

#define IDS_MAX 65536u

/* One that was given, or taken from the ring and given back. */
struct buf_node {
    struct list node;
    struct uring_buf b;
};

struct uring_group {
    struct list node;
    struct list bufs; /* of struct buf_node; used first */
    uint32_t count;
    uint16_t id;
    uint64_t ring; /* address of a ring, or 0 */
    uint32_t entries;
    uint16_t head; /* of the ring */
};

static struct uring_group *group_find(struct uring *r, uint32_t id)
{
    struct uring_group *g;

    list_for_each_entry (g, &r->groups, node)
        if (g->id == id)
            return g;
    return NULL;
}

static int group_new(struct uring *r, uint32_t id, struct uring_group **out)
{
    struct uring_group *g = r->group_count < LIMIT_URING_GROUPS ? calloc(1, sizeof(*g)) : NULL;

    if (g == NULL)
        return -ENOMEM;
    list_init(&g->bufs);
    g->id = (uint16_t)id;
    list_add_tail(&g->node, &r->groups);
    r->group_count++;
    *out = g;
    return 0;
}

static uint32_t group_drop(struct uring_group *g, uint32_t max)
{
    uint32_t n = 0;

    for (; n < max && !list_empty(&g->bufs); n++) {
        struct buf_node *b = list_first_entry(&g->bufs, struct buf_node, node);
        list_del(&b->node);
        free(b);
        g->count--;
    }
    return n;
}

static void group_free(struct uring *r, struct uring_group *g)
{
    (void)group_drop(g, UINT32_MAX);
    list_del(&g->node);
    r->group_count--;
    free(g);
}

void uring_drop_groups(struct uring *r)
{
    mutex_lock(&r->mu);
    while (!list_empty(&r->groups))
        group_free(r, list_first_entry(&r->groups, struct uring_group, node));
    mutex_unlock(&r->mu);
}

/* ---- given one by one ---- */

static int group_add(struct uring_group *g, const struct uring_buf *first, uint32_t count)
{
    struct uring_buf b = *first;

    if (count > IDS_MAX - MIN(g->count, IDS_MAX))
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        struct buf_node *n = malloc(sizeof(*n));
        if (n == NULL)
            return i > 0 ? 0 : -ENOMEM;
        n->b = b;
        list_add_tail(&n->node, &g->bufs);
        g->count++;
        b.addr += b.len;
        b.id++;
    }
    return 0;
}

int uring_provide(struct uring *r, const struct uring_buf *first, uint32_t count)
{
    uint64_t size, end;
    int err = 0;

    if (count == 0 || count > IDS_MAX)
        return -E2BIG;
    if (first->len == 0 || first->id + count > IDS_MAX)
        return -EINVAL;
    if (__builtin_mul_overflow((uint64_t)first->len, count, &size) ||
        __builtin_add_overflow(first->addr, size, &end))
        return -EOVERFLOW;
    mutex_lock(&r->mu);
    struct uring_group *g = group_find(r, first->group);
    if (g == NULL)
        err = group_new(r, first->group, &g);
    else if (g->ring != 0)
        err = -EINVAL;
    if (err == 0)
        err = group_add(g, first, count);
    mutex_unlock(&r->mu);
    return err;
}

int uring_unprovide(struct uring *r, uint32_t group, uint32_t count)
{
    int err = -ENOENT;

    if (count == 0 || count > IDS_MAX)
        return -EINVAL;
    mutex_lock(&r->mu);
    struct uring_group *g = group_find(r, group);
    if (g != NULL)
        err = g->ring != 0 ? -EINVAL : (int)group_drop(g, count);
    mutex_unlock(&r->mu);
    return err;
}

/* ---- in a ring ---- */

int uring_buf_ring(struct uring *r, uint32_t group, uint64_t addr, uint32_t entries)
{
    struct uring_group *g;
    int err = 0;

    if (addr == 0)
        return -EFAULT;
    if (addr % PAGE_SIZE != 0 || entries == 0 || (entries & (entries - 1)) != 0 ||
        entries >= IDS_MAX)
        return -EINVAL;
    mutex_lock(&r->mu);
    g = group_find(r, group);
    if (g != NULL && (g->ring != 0 || g->count > 0))
        err = -EEXIST;
    else if (g == NULL)
        err = group_new(r, group, &g);
    if (err == 0) {
        g->ring = addr;
        g->entries = entries;
        g->head = 0;
    }
    mutex_unlock(&r->mu);
    return err;
}

int uring_buf_ring_end(struct uring *r, uint32_t group)
{
    int err = -ENOENT;

    mutex_lock(&r->mu);
    struct uring_group *g = group_find(r, group);
    if (g != NULL)
        err = g->ring != 0 ? 0 : -EINVAL;
    if (err == 0)
        group_free(r, g);
    mutex_unlock(&r->mu);
    return err;
}

static int ring_pick(struct uring_group *g, const struct uaccess *ua, struct uring_buf *out)
{
    const uaddr_t tail_at = uaddr(g->ring + offsetof(struct io_uring_buf_ring, tail));
    struct io_uring_buf b;
    uint16_t tail;

    if (copyin_obj(ua, &tail, tail_at))
        return -EFAULT;
    if (tail == g->head)
        return -ENOBUFS;
    const uint64_t at = g->ring + (g->head & (g->entries - 1)) * sizeof(b);
    if (copyin_obj(ua, &b, uaddr(at)))
        return -EFAULT;
    g->head++;
    *out = (struct uring_buf){.addr = b.addr, .len = b.len, .id = b.bid, .group = g->id};
    return 0;
}

/* ---- chosen ---- */

int uring_buf_pick(struct uring *r, const struct uaccess *ua, uint32_t group, struct uring_buf *out)
{
    int err = -ENOBUFS;

    mutex_lock(&r->mu);
    struct uring_group *g = group_find(r, group);
    if (g != NULL && !list_empty(&g->bufs)) {
        *out = list_first_entry(&g->bufs, struct buf_node, node)->b;
        (void)group_drop(g, 1);
        err = 0;
    } else if (g != NULL && g->ring != 0) {
        err = ring_pick(g, ua, out);
    }
    mutex_unlock(&r->mu);
    return err;
}

void uring_buf_back(struct uring *r, const struct uring_buf *b)
{
    struct buf_node *n = malloc(sizeof(*n));

    mutex_lock(&r->mu);
    struct uring_group *g = group_find(r, b->group);
    if (g != NULL && n != NULL) {
        n->b = *b;
        list_add(&n->node, &g->bufs);
        g->count++;
        n = NULL;
    }
    mutex_unlock(&r->mu);
    free(n);
}
