#include "sentry/fs/anon/uring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include "base/limits.h"
#include "base/objcount.h"
#include "sentry/fs/anon/uring_priv.h"
#include "sentry/mem/memfile.h"

OBJCOUNT_DEFINE(uring);

/* ---- memory that is shared with the guest ---- */

static struct uring *uring_of_map(struct mappable *m)
{
    return container_of(m, struct uring, m);
}

static int map_translate(struct mappable *m, uint64_t off, uint64_t size, unsigned access,
                         struct mappable_range *out)
{
    struct uring *r = uring_of_map(m);
    const bool sqes = off >= IORING_OFF_SQES;
    const uint64_t in = sqes ? off - IORING_OFF_SQES : off % IORING_OFF_CQ_RING;
    const uint64_t end = sqes ? r->sqes_size : r->rings_size;

    (void)access;
    if (in >= end)
        return -ERANGE;
    *out = (struct mappable_range){.in_memfile = true,
                                   .fd = -1,
                                   .off = (sqes ? r->sqes_off : r->rings_off) + in,
                                   .size = MIN(size, end - in)};
    return memfile_ref(r->mf, out->off, out->size);
}

static void map_get(struct mappable *m)
{
    ref_get(&uring_of_map(m)->ref);
}

static void uring_put(struct uring *r)
{
    if (!ref_put(&r->ref))
        return;
    mappable_fini(&r->m);
    memfile_unref(r->mf, r->rings_off, r->rings_size);
    memfile_unref(r->mf, r->sqes_off, r->sqes_size);
    waitq_fini(&r->wq);
    mutex_destroy(&r->mu);
    OBJCOUNT_DEC(uring);
    free(r);
}

static void map_put(struct mappable *m)
{
    uring_put(uring_of_map(m));
}

static void map_describe(struct mappable *m, uint64_t *out_dev, uint64_t *out_ino, char *path,
                         size_t size)
{
    (void)m;
    *out_dev = 0;
    *out_ino = 0;
    (void)snprintf(path, size, "anon_inode:[io_uring]");
}

static const struct mappable_ops map_ops = {
    .translate = map_translate,
    .get = map_get,
    .put = map_put,
    .describe = map_describe,
};

/* A word that the guest writes too. */
static uint32_t word_load(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void word_store(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

/* ---- submission ---- */

bool uring_next(struct uring *r, struct io_uring_sqe *out)
{
    bool found = false;

    mutex_lock(&r->mu);
    if (r->sq_head != word_load(&r->words->sq_tail)) {
        uint32_t i = r->sq_head & (r->sq_entries - 1);
        if ((r->flags & URING_SETUP_NO_SQARRAY) == 0)
            i = word_load(&r->array[i]);
        r->sq_head++;
        found = i < r->sq_entries;
        if (found)
            memcpy(out, &r->sqes[i], sizeof(*out));
        else
            word_store(&r->words->sq_dropped, ++r->dropped);
        word_store(&r->words->sq_head, r->sq_head);
    }
    mutex_unlock(&r->mu);
    return found;
}

uint32_t uring_waiting(struct uring *r)
{
    mutex_lock(&r->mu);
    uint32_t n = word_load(&r->words->sq_tail) - r->sq_head;
    mutex_unlock(&r->mu);
    return MIN(n, r->sq_entries);
}

/* ---- completion ---- */

static bool cq_has_room(const struct uring *r)
{
    return r->cq_tail - word_load(&r->words->cq_head) < r->cq_entries;
}

bool uring_has_room(struct uring *r)
{
    mutex_lock(&r->mu);
    const bool room = list_empty(&r->overflow) && cq_has_room(r);
    mutex_unlock(&r->mu);
    return room;
}

static void cq_write(struct uring *r, const struct io_uring_cqe *c)
{
    memcpy(&r->cqes[r->cq_tail & (r->cq_entries - 1)], c, sizeof(*c));
    word_store(&r->words->cq_tail, ++r->cq_tail);
}

static void flags_update(struct uring *r)
{
    const bool ready = atomic_load(&r->happened) != 0;

    word_store(&r->words->sq_flags, (list_empty(&r->overflow) ? 0 : IORING_SQ_CQ_OVERFLOW) |
                                        (ready ? IORING_SQ_TASKRUN : 0));
}

static void overflow_add(struct uring *r, const struct io_uring_cqe *c)
{
    struct uring_late *l = r->overflow_count < LIMIT_URING_OVERFLOW ? malloc(sizeof(*l)) : NULL;

    if (l == NULL) {
        word_store(&r->words->cq_overflow, ++r->lost);
        return;
    }
    l->cqe = *c;
    list_add_tail(&l->node, &r->overflow);
    r->overflow_count++;
    flags_update(r);
}

void uring_post(struct uring *r, uint64_t user_data, int32_t res, uint32_t flags)
{
    const struct io_uring_cqe c = {.user_data = user_data, .res = res, .flags = flags};
    struct file *tell;

    mutex_lock(&r->mu);
    if (list_empty(&r->overflow) && cq_has_room(r))
        cq_write(r, &c);
    else
        overflow_add(r, &c);
    r->posted++;
    tell = r->eventfd != NULL ? file_get(r->eventfd) : NULL;
    mutex_unlock(&r->mu);
    (void)waitq_wake(&r->wq, EPOLLIN | EPOLLRDNORM);
    if (tell != NULL) {
        eventfd_signal(tell);
        file_put(tell);
    }
}

bool uring_flush(struct uring *r)
{
    mutex_lock(&r->mu);
    while (!list_empty(&r->overflow) && cq_has_room(r)) {
        struct uring_late *l = list_first_entry(&r->overflow, struct uring_late, node);
        list_del(&l->node);
        r->overflow_count--;
        cq_write(r, &l->cqe);
        free(l);
    }
    bool all = list_empty(&r->overflow);
    flags_update(r);
    mutex_unlock(&r->mu);
    return all;
}

static uint32_t finished_locked(const struct uring *r)
{
    uint32_t n = r->cq_tail - word_load(&r->words->cq_head);

    return MIN(n, r->cq_entries) + r->overflow_count;
}

uint32_t uring_finished(struct uring *r)
{
    mutex_lock(&r->mu);
    uint32_t n = finished_locked(r);
    mutex_unlock(&r->mu);
    return n;
}

uint32_t uring_posted(struct uring *r)
{
    mutex_lock(&r->mu);
    uint32_t n = r->posted;
    mutex_unlock(&r->mu);
    return n;
}

static bool sleep_over(struct uring *r, uint32_t min)
{
    return atomic_load(&r->happened) != 0 || uring_finished(r) >= min;
}

int uring_sleep(struct uring *r, uint32_t min, struct blocker *b, deadline_t deadline)
{
    int err;

    WAIT_EVENT(&r->wq, b, 0, deadline, sleep_over(r, min), err);
    return err;
}

/* ---- the file ---- */

static uint32_t file_poll(struct file *f, struct waiter *w)
{
    struct uring *r = f->priv;
    uint32_t events = 0;

    if (w != NULL)
        waitq_add(&r->wq, w);
    mutex_lock(&r->mu);
    if (finished_locked(r) > 0 || atomic_load(&r->happened) != 0)
        events |= EPOLLIN | EPOLLRDNORM;
    if (word_load(&r->words->sq_tail) - r->sq_head < r->sq_entries)
        events |= EPOLLOUT | EPOLLWRNORM;
    mutex_unlock(&r->mu);
    return events;
}

static int file_mmap(struct file *f, int prot, int flags, struct mappable **out)
{
    struct uring *r = f->priv;

    (void)prot;
    (void)flags;
    ref_get(&r->ref);
    *out = &r->m;
    return 0;
}

static void file_release(struct file *f)
{
    struct uring *r = f->priv;

    uring_end_all(r);
    while (!list_empty(&r->overflow)) {
        struct uring_late *l = list_first_entry(&r->overflow, struct uring_late, node);
        list_del(&l->node);
        free(l);
    }
    uring_put(r);
}

static const struct file_ops uring_file_ops = {
    .poll = file_poll,
    .mmap = file_mmap,
    .release = file_release,
};

struct uring *uring_of(const struct file *f)
{
    return f->ops == &uring_file_ops ? f->priv : NULL;
}

uint32_t uring_flags(const struct uring *r)
{
    return r->flags;
}

bool uring_disabled(struct uring *r)
{
    return atomic_load(&r->disabled);
}

void uring_enable(struct uring *r)
{
    atomic_store(&r->disabled, false);
}

/* ---- setup ---- */

static uint32_t round_up_pow2(uint32_t v)
{
    uint32_t p = 1;

    while (p < v)
        p *= 2;
    return p;
}

static int sizes(struct uring *r, uint32_t entries, struct io_uring_params *p)
{
    const bool clamp = (p->flags & IORING_SETUP_CLAMP) != 0;

    if (entries == 0 || (entries > URING_SQ_MAX && !clamp))
        return -EINVAL;
    r->sq_entries = round_up_pow2(MIN(entries, URING_SQ_MAX));
    r->cq_entries = 2 * r->sq_entries;
    if ((p->flags & IORING_SETUP_CQSIZE) != 0) {
        if (p->cq_entries == 0 || (p->cq_entries > URING_CQ_MAX && !clamp))
            return -EINVAL;
        r->cq_entries = round_up_pow2(MIN(p->cq_entries, URING_CQ_MAX));
        if (r->cq_entries < r->sq_entries)
            return -EINVAL;
    }
    r->array_at =
        (uint32_t)(sizeof(struct uring_words) + r->cq_entries * sizeof(struct io_uring_cqe));
    r->rings_size = ALIGN_UP(r->array_at + (uint64_t)r->sq_entries * sizeof(uint32_t), PAGE_SIZE);
    r->sqes_size = ALIGN_UP((uint64_t)r->sq_entries * sizeof(struct io_uring_sqe), PAGE_SIZE);
    return 0;
}

static void tell_params(const struct uring *r, struct io_uring_params *p)
{
    p->sq_entries = r->sq_entries;
    p->cq_entries = r->cq_entries;
    p->features = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE |
                  IORING_FEAT_RW_CUR_POS | IORING_FEAT_CUR_PERSONALITY | IORING_FEAT_FAST_POLL |
                  IORING_FEAT_POLL_32BITS | IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP;
    p->sq_off = (struct io_sqring_offsets){
        .head = offsetof(struct uring_words, sq_head),
        .tail = offsetof(struct uring_words, sq_tail),
        .ring_mask = offsetof(struct uring_words, sq_mask),
        .ring_entries = offsetof(struct uring_words, sq_entries),
        .flags = offsetof(struct uring_words, sq_flags),
        .dropped = offsetof(struct uring_words, sq_dropped),
        .array = (r->flags & URING_SETUP_NO_SQARRAY) != 0 ? 0 : r->array_at,
    };
    p->cq_off = (struct io_cqring_offsets){
        .head = offsetof(struct uring_words, cq_head),
        .tail = offsetof(struct uring_words, cq_tail),
        .ring_mask = offsetof(struct uring_words, cq_mask),
        .ring_entries = offsetof(struct uring_words, cq_entries),
        .overflow = offsetof(struct uring_words, cq_overflow),
        .cqes = sizeof(struct uring_words),
        .flags = offsetof(struct uring_words, cq_flags),
    };
}

static int uring_memory(struct uring *r)
{
    int err = memfile_alloc(r->mf, NULL, r->rings_size, &r->rings_off);

    if (err != 0)
        return err;
    err = memfile_alloc(r->mf, NULL, r->sqes_size, &r->sqes_off);
    if (err != 0) {
        memfile_unref(r->mf, r->rings_off, r->rings_size);
        return err;
    }
    char *base = memfile_ptr(r->mf, r->rings_off);
    r->words = (struct uring_words *)(void *)base;
    r->cqes = (struct io_uring_cqe *)(void *)(base + sizeof(struct uring_words));
    r->array = (uint32_t *)(void *)(base + r->array_at);
    r->sqes = memfile_ptr(r->mf, r->sqes_off);
    r->words->sq_mask = r->sq_entries - 1;
    r->words->sq_entries = r->sq_entries;
    r->words->cq_mask = r->cq_entries - 1;
    r->words->cq_entries = r->cq_entries;
    return 0;
}

int uring_new(struct memfile *mf, struct timer_service *ts, uint32_t entries,
              struct io_uring_params *p, struct file **out_file)
{
    struct uring *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return -ENOMEM;
    r->mf = mf;
    r->timers = ts;
    r->flags = p->flags;
    int err = sizes(r, entries, p);
    if (err == 0)
        err = uring_memory(r);
    if (err != 0) {
        free(r);
        return err;
    }
    mappable_init(&r->m, &map_ops);
    ref_init(&r->ref);
    mutex_init(&r->mu, LOCK_RANK_PIPE);
    waitq_init(&r->wq);
    list_init(&r->pending);
    list_init(&r->held);
    list_init(&r->groups);
    list_init(&r->overflow);
    atomic_store(&r->disabled, (p->flags & IORING_SETUP_R_DISABLED) != 0);
    OBJCOUNT_INC(uring);
    err = vfs_anon_file("anon_inode:[io_uring]", 0600, &uring_file_ops, r, O_RDWR, out_file);
    if (err != 0) {
        uring_put(r);
        return err;
    }
    tell_params(r, p);
    return 0;
}
