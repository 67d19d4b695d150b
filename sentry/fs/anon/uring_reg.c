/* What is registered with a ring: files by number, buffers, the eventfd. */
#include <errno.h>
#include <stdlib.h>

#include "base/ckd.h"
#include "base/limits.h"
#include "sentry/fs/anon/uring_priv.h"

/* ---- files ---- */

int uring_get_file(struct uring *r, uint32_t index, struct file **out)
{
    int err = -EBADF;

    mutex_lock(&r->mu);
    if (index < r->slot_count && r->slots[index].file != NULL) {
        *out = file_get(r->slots[index].file);
        err = 0;
    }
    mutex_unlock(&r->mu);
    return err;
}

/* The file of a slot goes, and its tag says so. */
static void slot_end(struct uring *r, const struct uring_slot *s)
{
    if (s->file == NULL)
        return;
    file_put(s->file);
    if (s->tag != 0)
        uring_post(r, s->tag, 0, 0);
}

void uring_slots_free(struct uring_slot *slots, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (slots[i].file != NULL)
            file_put(slots[i].file);
    free(slots);
}

int uring_set_files(struct uring *r, struct uring_slot *slots, uint32_t count)
{
    struct uring_slot *old = NULL;
    uint32_t old_count = 0;
    int err = 0;

    mutex_lock(&r->mu);
    if (count > 0 && r->slots != NULL) {
        err = -EBUSY;
    } else if (count == 0 && r->slots == NULL) {
        err = -ENXIO;
    } else {
        old = r->slots;
        old_count = r->slot_count;
        r->slots = slots;
        r->slot_count = r->alloc_end = count;
        r->alloc_start = r->alloc_next = 0;
    }
    mutex_unlock(&r->mu);
    for (uint32_t i = 0; i < old_count; i++)
        slot_end(r, &old[i]);
    free(old);
    if (err != 0)
        uring_slots_free(slots, count);
    return err;
}

uint32_t uring_file_slots(struct uring *r)
{
    mutex_lock(&r->mu);
    const uint32_t n = r->slot_count;
    mutex_unlock(&r->mu);
    return n;
}

int uring_set_file(struct uring *r, uint32_t index, struct file *f, uint64_t tag)
{
    struct uring_slot old = {.file = f};
    int err = 0;

    mutex_lock(&r->mu);
    if (r->slots == NULL)
        err = -ENXIO;
    else if (index >= r->slot_count)
        err = -EINVAL;
    if (err == 0) {
        old = r->slots[index];
        r->slots[index] = (struct uring_slot){.file = f, .tag = tag};
        r->alloc_next = f != NULL ? index + 1 : index;
    }
    mutex_unlock(&r->mu);
    slot_end(r, &old);
    return err;
}

int uring_clear_file(struct uring *r, uint32_t index)
{
    struct file *f;

    mutex_lock(&r->mu);
    int err = r->slots == NULL ? -ENXIO : index >= r->slot_count ? -EINVAL : 0;
    mutex_unlock(&r->mu);
    if (err == 0)
        err = uring_get_file(r, index, &f);
    if (err != 0)
        return err;
    file_put(f);
    return uring_set_file(r, index, NULL, 0);
}

/* An empty slot of [from, to), or to. */
static uint32_t slot_empty(const struct uring *r, uint32_t from, uint32_t to)
{
    while (from < to && r->slots[from].file != NULL)
        from++;
    return from;
}

int uring_alloc_file(struct uring *r, struct file *f)
{
    int at = -ENFILE;

    mutex_lock(&r->mu);
    if (r->slots == NULL) {
        at = -ENXIO;
    } else {
        uint32_t next = r->alloc_next;
        if (next < r->alloc_start || next > r->alloc_end)
            next = r->alloc_start;
        uint32_t i = slot_empty(r, next, r->alloc_end);
        if (i == r->alloc_end)
            i = slot_empty(r, r->alloc_start, next);
        if (i < r->alloc_end && r->slots[i].file == NULL) {
            r->slots[i] = (struct uring_slot){.file = f};
            r->alloc_next = i + 1;
            at = (int)i;
        }
    }
    mutex_unlock(&r->mu);
    if (at < 0)
        file_put(f);
    return at;
}

int uring_alloc_range(struct uring *r, uint32_t start, uint32_t count)
{
    uint32_t end;
    int err = 0;

    if (ckd_add(&end, start, count))
        return -EOVERFLOW;
    mutex_lock(&r->mu);
    if (end > r->slot_count) {
        err = -EINVAL;
    } else {
        r->alloc_start = r->alloc_next = start;
        r->alloc_end = end;
    }
    mutex_unlock(&r->mu);
    return err;
}

/* ---- buffers, the eventfd ---- */

int uring_set_buffers(struct uring *r, struct iovec *bufs, uint32_t count)
{
    struct iovec *old = NULL;
    int err = 0;

    mutex_lock(&r->mu);
    if (count > 0 && r->buffers != NULL) {
        err = -EBUSY;
        old = bufs;
    } else if (count == 0 && r->buffers == NULL) {
        err = -ENXIO;
    } else {
        old = r->buffers;
        r->buffers = bufs;
        r->buffer_count = count;
    }
    mutex_unlock(&r->mu);
    free(old);
    return err;
}

int uring_check_buffer(struct uring *r, uint32_t index, uint64_t addr, uint64_t size)
{
    int err = -EFAULT;

    mutex_lock(&r->mu);
    if (index < r->buffer_count) {
        const uint64_t base = (uint64_t)(uintptr_t)r->buffers[index].iov_base;
        const uint64_t len = r->buffers[index].iov_len;
        if (addr >= base && addr - base <= len && size <= len - (addr - base))
            err = 0;
    }
    mutex_unlock(&r->mu);
    return err;
}

/* Who only waits for the eventfd learns that entering the ring is worth it. */
static void on_tell(struct timer *tm)
{
    struct uring *r = container_of(tm, struct uring, tell);
    struct file *f;

    mutex_lock(&r->mu);
    f = r->eventfd != NULL && atomic_load(&r->happened) != 0 ? file_get(r->eventfd) : NULL;
    mutex_unlock(&r->mu);
    if (f == NULL)
        return;
    eventfd_signal(f);
    file_put(f);
}

int uring_set_eventfd(struct uring *r, struct file *f)
{
    struct file *old = NULL;
    int err = 0;

    mutex_lock(&r->mu);
    if (f != NULL && r->eventfd != NULL)
        err = -EBUSY;
    else if (f == NULL && r->eventfd == NULL)
        err = -ENXIO;
    else if (!r->tells)
        err = timer_init(&r->tell, r->timers, on_tell);
    if (err != 0) {
        old = f;
    } else {
        old = r->eventfd;
        r->eventfd = f;
        r->tells = true;
        atomic_store(&r->telling, f != NULL);
        if (f != NULL)
            timer_arm(&r->tell, 0);
    }
    mutex_unlock(&r->mu);
    if (old != NULL)
        file_put(old);
    return err;
}

void uring_tell_end(struct uring *r)
{
    (void)!uring_set_eventfd(r, NULL);
    if (r->tells)
        timer_cancel(&r->tell);
}
