/* The table of handles: ids are slot and generation, so that a stale one is told. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "gofer/server_priv.h"

void handle_table_init(struct handle_table *t, size_t max, struct watch_set *watches)
{
    t->watches = watches;
    mutex_init(&t->mu, LOCK_RANK_LEAF);
    t->max = (uint32_t)MIN(max, (size_t)GOF_HANDLE_MAX);
}

static struct handle *slot_at(struct handle_table *t, uint32_t index)
{
    return &t->chunks[index / HANDLE_CHUNK][index % HANDLE_CHUNK];
}

void handle_table_fini(struct handle_table *t)
{
    for (uint32_t i = 0; i < t->slots; i++) {
        struct handle *h = slot_at(t, i);
        if (h->fd >= 0)
            close(h->fd);
        if (h->fd >= 0 && h->list_fd >= 0)
            close(h->list_fd);
    }
    for (size_t i = 0; i < HANDLE_CHUNKS; i++)
        free(t->chunks[i]);
    mutex_destroy(&t->mu);
}

static int grow_locked(struct handle_table *t)
{
    if (t->slots >= t->max)
        return -ENFILE;
    uint32_t chunk = t->slots / HANDLE_CHUNK;
    if (!t->chunks[chunk]) {
        t->chunks[chunk] = calloc(HANDLE_CHUNK, sizeof(struct handle));
        if (!t->chunks[chunk])
            return -ENOMEM;
    }
    struct handle *h = slot_at(t, t->slots);
    h->fd = -1;
    h->index = t->slots++;
    t->free = t->slots;
    return 0;
}

int handle_new(struct handle_table *t, int fd, uint32_t type, bool readonly, uint64_t *out_id)
{
    int r = 0;

    mutex_lock(&t->mu);
    if (t->free == 0)
        r = grow_locked(t);
    if (r)
        goto out_unlock;
    uint32_t slot = t->free;
    struct handle *h = slot_at(t, slot - 1);
    t->free = h->next_free;
    t->used++;
    *h = (struct handle){.fd = fd,
                         .type = type,
                         .readonly = readonly,
                         .index = h->index,
                         .list_fd = -1,
                         .generation = h->generation};
    *out_id = (uint64_t)h->generation << 32 | slot;
out_unlock:
    mutex_unlock(&t->mu);
    return r;
}

static struct handle *find_locked(struct handle_table *t, uint64_t id)
{
    uint32_t slot = (uint32_t)id;

    if (slot == 0 || slot > t->slots)
        return NULL;
    struct handle *h = slot_at(t, slot - 1);
    return h->fd >= 0 && !h->closed && h->generation == (uint32_t)(id >> 32) ? h : NULL;
}

struct handle *handle_get(struct handle_table *t, uint64_t id)
{
    mutex_lock(&t->mu);
    struct handle *h = find_locked(t, id);
    if (h)
        h->busy++;
    mutex_unlock(&t->mu);
    return h;
}

/* What a handle had, for its last user to give back, without the lock. */
struct leftover {
    int fd, list_fd;
    struct watch *watch;
};

#define NO_LEFTOVER                                                                                \
    {                                                                                              \
        .fd = -1, .list_fd = -1                                                                    \
    }

static void free_locked(struct handle_table *t, struct handle *h, struct leftover *out)
{
    *out = (struct leftover){.fd = h->fd, .list_fd = h->list_fd, .watch = h->watch};
    h->fd = -1;
    h->list_fd = -1;
    h->watch = NULL;
    h->generation++;
    h->next_free = t->free;
    t->free = h->index + 1;
    t->used--;
}

static void give_back(struct handle_table *t, const struct leftover *l)
{
    watch_put(t->watches, l->watch);
    if (l->fd >= 0)
        close(l->fd);
    if (l->list_fd >= 0)
        close(l->list_fd);
}

void handle_put(struct handle_table *t, struct handle *h)
{
    struct leftover left = NO_LEFTOVER;

    mutex_lock(&t->mu);
    if (--h->busy == 0 && h->closed)
        free_locked(t, h, &left);
    mutex_unlock(&t->mu);
    give_back(t, &left);
}

int handle_close(struct handle_table *t, uint64_t id)
{
    struct leftover left = NO_LEFTOVER;

    mutex_lock(&t->mu);
    struct handle *h = find_locked(t, id);
    if (h && h->busy == 0)
        free_locked(t, h, &left);
    else if (h)
        h->closed = true;
    mutex_unlock(&t->mu);
    give_back(t, &left);
    return h ? 0 : -EBADF;
}

int handle_take_list(struct handle_table *t, struct handle *h)
{
    mutex_lock(&t->mu);
    int fd = h->list_fd;
    h->list_fd = -1;
    mutex_unlock(&t->mu);
    return fd;
}

void handle_keep_list(struct handle_table *t, struct handle *h, int fd)
{
    mutex_lock(&t->mu);
    if (h->list_fd < 0) {
        h->list_fd = fd;
        fd = -1;
    }
    mutex_unlock(&t->mu);
    if (fd >= 0)
        close(fd);
}
