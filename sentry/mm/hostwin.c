/* Windows on host files: mappings of the sentry's own through which usercopy reaches guest memory
 * that is a host file. A bounded cache; pinned windows stay, others go when the room is needed. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/hash.h"
#include "sentry/mm/mm_priv.h"

#define HOSTWIN_SIZE (UINT64_C(256) << 10)
#define HOSTWIN_BUCKETS 64u
#define HOSTWIN_MAX 128u /* cached; pinned ones may be more */

struct hostwin {
    struct list bucket; /* empty when forgotten */
    struct list lru;    /* least recently used first */
    const struct mappable *m;
    uint64_t off; /* HOSTWIN_SIZE multiple */
    bool writable;
    unsigned pins;
    char *base;
};

static struct {
    struct mutex mu; /* rank LEAF: guards everything here */
    struct list buckets[HOSTWIN_BUCKETS];
    struct list lru;
    unsigned count;
} hostwins;
static pthread_once_t hostwin_once = PTHREAD_ONCE_INIT;

static void hostwin_init(void)
{
    mutex_init(&hostwins.mu, LOCK_RANK_LEAF);
    list_init(&hostwins.lru);
    for (unsigned i = 0; i < HOSTWIN_BUCKETS; i++)
        list_init(&hostwins.buckets[i]);
}

static struct list *hostwin_bucket(const struct mappable *m, uint64_t off)
{
    return &hostwins.buckets[hash_u64((uint64_t)(uintptr_t)m ^ off) % HOSTWIN_BUCKETS];
}

static struct hostwin *hostwin_find_locked(const struct mappable *m, uint64_t off, bool write)
{
    struct hostwin *w;
    list_for_each_entry (w, hostwin_bucket(m, off), bucket) {
        if (w->m == m && w->off == off && (w->writable || !write)) {
            w->pins++;
            list_move_tail(&w->lru, &hostwins.lru);
            return w;
        }
    }
    return NULL;
}

static void hostwin_free(struct hostwin *w)
{
    if (!w)
        return;
    (void)munmap(w->base, HOSTWIN_SIZE);
    free(w);
}

static void hostwin_unhash_locked(struct hostwin *w)
{
    list_del(&w->bucket);
    list_del(&w->lru);
    hostwins.count--;
}

/* The oldest window that nobody uses, taken out, when there are too many. */
static struct hostwin *hostwin_evict_locked(void)
{
    struct hostwin *w;
    if (hostwins.count <= HOSTWIN_MAX)
        return NULL;
    list_for_each_entry (w, &hostwins.lru, lru) {
        if (w->pins == 0) {
            hostwin_unhash_locked(w);
            return w;
        }
    }
    return NULL;
}

static int hostwin_make(const struct mappable *m, int fd, uint64_t off, bool write,
                        struct hostwin **out_win)
{
    struct hostwin *w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    int prot = PROT_READ | (write ? PROT_WRITE : 0);
    w->base = mmap(NULL, HOSTWIN_SIZE, prot, MAP_SHARED, fd, (off_t)off);
    if (w->base == MAP_FAILED) {
        int err = -errno;
        free(w);
        return err == -ENOMEM || err == -EACCES ? err : -EIO;
    }
    w->m = m;
    w->off = off;
    w->writable = write;
    w->pins = 1;
    mutex_lock(&hostwins.mu);
    list_add(&w->bucket, hostwin_bucket(m, off));
    list_add_tail(&w->lru, &hostwins.lru);
    hostwins.count++;
    struct hostwin *old = hostwin_evict_locked();
    mutex_unlock(&hostwins.mu);
    hostwin_free(old);
    *out_win = w;
    return 0;
}

int hostwin_get(const struct mappable *m, int fd, uint64_t off, bool write, uint64_t *size,
                void **out_ptr, struct hostwin **out_win)
{
    uint64_t base = ALIGN_DOWN(off, HOSTWIN_SIZE), in = off - base;
    (void)pthread_once(&hostwin_once, hostwin_init);
    mutex_lock(&hostwins.mu);
    struct hostwin *w = hostwin_find_locked(m, base, write);
    mutex_unlock(&hostwins.mu);
    if (!w) {
        int err = hostwin_make(m, fd, base, write, &w);
        if (err)
            return err;
        BUG_ON(!w);
    }
    *size = MIN(*size, HOSTWIN_SIZE - in);
    *out_ptr = w->base + in;
    *out_win = w;
    return 0;
}

void hostwin_put(struct hostwin *w)
{
    if (!w)
        return;
    mutex_lock(&hostwins.mu);
    bool last = --w->pins == 0 && list_empty(&w->bucket);
    mutex_unlock(&hostwins.mu);
    if (last)
        hostwin_free(w);
}

void hostwin_forget(const struct mappable *m)
{
    struct list dead;
    struct hostwin *w, *tmp;
    list_init(&dead);
    (void)pthread_once(&hostwin_once, hostwin_init);
    mutex_lock(&hostwins.mu);
    list_for_each_entry_safe (w, tmp, &hostwins.lru, lru) {
        if (w->m != m)
            continue;
        hostwin_unhash_locked(w);
        if (w->pins == 0)
            list_add(&w->lru, &dead);
    }
    mutex_unlock(&hostwins.mu);
    list_for_each_entry_safe (w, tmp, &dead, lru)
        hostwin_free(w);
}
