/* The dentry cache: names that were looked up, those that do not exist included. */
#include <stdlib.h>

#include "base/hash.h"
#include "base/objcount.h"
#include "sentry/vfs/notify.h"
#include "sentry/vfs/vfs_priv.h"

#define HASH_BUCKETS 16384u
#define HASH_LOCKS 64u
#define NO_BUCKET UINT32_MAX
/* Dentries looked at for each new one while the cache is over its limit. */
#define EVICT_TRIES 4
#define SHRINK_BATCH 64

OBJCOUNT_DEFINE(dentry);

struct mutex vfs_rename_mu = MUTEX_INITIALIZER(LOCK_RANK_RENAME);
struct rwlock vfs_tree_lock;

/* Apart from each other, so that look-ups on different CPUs do not share lines. */
struct chain_lock {
    struct mutex mu; /* rank DENTRY */
} ALIGNED(64);

static struct dentry *chains[HASH_BUCKETS]; /* zero: untouched pages cost nothing */
static struct chain_lock chain_locks[HASH_LOCKS];
static struct mutex lru_mu = MUTEX_INITIALIZER(LOCK_RANK_LEAF);
static struct list lru = LIST_INIT(lru); /* all in the cache, oldest first */
static unsigned lru_count;
static unsigned lru_limit = LIMIT_DENTRY_CACHE; /* guarded by lru_mu, as the two before */

__attribute__((constructor)) static void dentry_init(void)
{
    rwlock_init(&vfs_tree_lock, LOCK_RANK_DENTRY_TREE);
    for (unsigned i = 0; i < HASH_LOCKS; i++)
        mutex_init(&chain_locks[i].mu, LOCK_RANK_DENTRY);
}

/* The guest chooses names, so theirs is the keyed hash; the address of the parent is mixed in. */
static uint32_t bucket_of(const struct dentry *parent, const char *name, size_t len)
{
    uint64_t h = hash_u64((uint64_t)(uintptr_t)parent ^ hash_seeded(name, len));

    return (uint32_t)(h % HASH_BUCKETS);
}

static struct mutex *chain_lock(uint32_t bucket)
{
    return &chain_locks[bucket % HASH_LOCKS].mu;
}

/* Guards d->parent for those who want only that. */
static struct mutex *parent_lock(const struct dentry *d)
{
    return chain_lock((uint32_t)hash_u64((uint64_t)(uintptr_t)d));
}

/* ---- life ---- */

int dentry_new(struct super *sb, struct inode *inode, struct dentry *parent, const char *name,
               size_t len, struct dentry **out)
{
    struct dentry *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return -ENOMEM;
    d->name = len < sizeof(d->inline_name) ? d->inline_name : malloc(len + 1);
    if (d->name == NULL) {
        free(d);
        return -ENOMEM;
    }
    memcpy(d->name, name, len);
    d->name[len] = '\0';
    ref_init(&d->ref);
    d->sb = sb;
    d->inode = inode;
    d->name_len = (uint32_t)len;
    d->parent = parent != NULL ? dentry_get(parent) : d;
    atomic_init(&d->bucket, NO_BUCKET);
    list_init(&d->lru);
    OBJCOUNT_INC(dentry);
    *out = d;
    return 0;
}

struct dentry *dentry_get(struct dentry *d)
{
    ref_get(&d->ref);
    return d;
}

/* What has no name left, and now no user, is gone for those who watch it. */
static void dentry_last_use(const struct dentry *d)
{
    struct inode *i = d->inode;

    if (LIKELY(atomic_load_explicit(&i->watches, memory_order_relaxed) == NULL) ||
        !atomic_load(&d->unlinked))
        return;
    if (S_ISDIR(i->mode) || __atomic_load_n(&i->nlink, __ATOMIC_RELAXED) == 0)
        notify_gone(i);
}

/* A chain of parents may go with its last child: no recursion. */
void dentry_put(struct dentry *d)
{
    while (d != NULL && ref_put(&d->ref)) {
        struct dentry *parent = d->parent != d ? d->parent : NULL;
        if (d->inode != NULL) {
            dentry_last_use(d);
            inode_put(d->inode);
        }
        OBJCOUNT_DEC(dentry);
        if (d->name != d->inline_name)
            free(d->name);
        free(d);
        d = parent;
    }
}

struct dentry *dentry_parent(struct dentry *d)
{
    struct mutex *mu = parent_lock(d);

    mutex_lock(mu);
    struct dentry *parent = dentry_get(d->parent);
    mutex_unlock(mu);
    return parent;
}

/* ---- the cache ---- */

/* Its chain's lock is held. The cache's reference passes to the caller. */
static void unhash_locked(struct dentry *d)
{
    *d->hash_link = d->hash_next;
    if (d->hash_next != NULL)
        d->hash_next->hash_link = d->hash_link;
    atomic_store_explicit(&d->bucket, NO_BUCKET, memory_order_release);
    mutex_lock(&lru_mu);
    list_del(&d->lru);
    lru_count--;
    mutex_unlock(&lru_mu);
}

/* Unhashes d if it is in the cache, and has no more references than limit when that is not 0: new
 * ones come from the cache only, whose chain is locked, or from somebody who has one. */
static bool unhash(struct dentry *d, uint32_t limit)
{
    bool done = false;

    for (;;) {
        uint32_t b = atomic_load_explicit(&d->bucket, memory_order_acquire);
        if (b == NO_BUCKET)
            return false;
        mutex_lock(chain_lock(b));
        bool same = atomic_load_explicit(&d->bucket, memory_order_relaxed) == b;
        if (same && (limit == 0 || ref_read(&d->ref) <= limit)) {
            unhash_locked(d);
            done = true;
        }
        mutex_unlock(chain_lock(b));
        if (same)
            return done;
    }
}

void dentry_drop(struct dentry *d)
{
    if (unhash(d, 0))
        dentry_put(d);
}

/* Second chance: one that was looked up since the last time goes to the back. */
static void evict_some(void)
{
    for (int i = 0; i < EVICT_TRIES; i++) {
        struct dentry *d = NULL;
        mutex_lock(&lru_mu);
        if (lru_count > lru_limit) {
            d = dentry_get(list_first_entry(&lru, struct dentry, lru));
            list_move_tail(&d->lru, &lru);
        }
        mutex_unlock(&lru_mu);
        if (d == NULL)
            return;
        /* The cache's reference and ours: it has no user, no child and no mount. */
        if (!atomic_exchange(&d->used, false) && unhash(d, 2))
            dentry_put(d);
        dentry_put(d);
    }
}

void dentry_hash(struct dentry *d)
{
    uint32_t b = bucket_of(d->parent, d->name, d->name_len);

    (void)dentry_get(d);
    mutex_lock(chain_lock(b));
    d->hash_next = chains[b];
    d->hash_link = &chains[b];
    if (d->hash_next != NULL)
        d->hash_next->hash_link = &d->hash_next;
    chains[b] = d;
    mutex_lock(&lru_mu);
    list_add_tail(&d->lru, &lru);
    lru_count++;
    mutex_unlock(&lru_mu);
    atomic_store_explicit(&d->bucket, b, memory_order_release);
    mutex_unlock(chain_lock(b));
    evict_some();
}

struct dentry *dentry_cached(struct dentry *parent, const char *name, size_t len)
{
    uint32_t b = bucket_of(parent, name, len);
    struct dentry *d;

    mutex_lock(chain_lock(b));
    for (d = chains[b]; d != NULL; d = d->hash_next) {
        if (d->parent == parent && d->name_len == len && memcmp(d->name, name, len) == 0) {
            (void)dentry_get(d);
            if (!atomic_load_explicit(&d->used, memory_order_relaxed))
                atomic_store_explicit(&d->used, true, memory_order_relaxed);
            break;
        }
    }
    mutex_unlock(chain_lock(b));
    return d;
}

/* A cached name that its file system still stands by. */
static struct dentry *cached_valid(struct dentry *dir, const char *name, size_t len)
{
    struct dentry *d = dentry_cached(dir, name, len);

    if (d == NULL || dir->sb->ops->revalidate == NULL ||
        dir->sb->ops->revalidate(d, dir->inode, name))
        return d;
    /* What has a mount on it stays, as the mount would be lost. */
    if (atomic_load(&d->mounted) != 0)
        return d;
    dentry_drop(d);
    dentry_put(d);
    return NULL;
}

static int lookup_uncached(struct dentry *dir, const char *name, size_t len, struct dentry **out)
{
    struct inode *inode = NULL;
    int r;

    if (dir->inode->ops->lookup == NULL)
        return -ENOTDIR;
    r = dir->inode->ops->lookup(dir->inode, name, &inode);
    if (r != 0 && r != -ENOENT)
        return r;
    r = dentry_new(dir->sb, inode, dir, name, len, out);
    if (r != 0) {
        if (inode != NULL)
            inode_put(inode);
        return r;
    }
    /* In a removed directory nothing comes into being any more. */
    if (!atomic_load(&dir->unlinked))
        dentry_hash(*out);
    return 0;
}

int dentry_lookup_locked(struct dentry *dir, const char *name, size_t len, struct dentry **out)
{
    *out = cached_valid(dir, name, len);
    return *out != NULL ? 0 : lookup_uncached(dir, name, len, out);
}

int dentry_lookup(struct dentry *dir, const char *name, size_t len, const char *rest,
                  struct dentry **out)
{
    const bool hint = rest != NULL && dir->inode->ops->prefetch != NULL;
    const bool asks = dir->sb->ops->revalidate != NULL;
    int r;

    if (hint && asks)
        dir->inode->ops->prefetch(dir->inode, rest);
    *out = cached_valid(dir, name, len);
    if (*out != NULL)
        return 0;
    if (hint && !asks)
        dir->inode->ops->prefetch(dir->inode, rest);
    mutex_lock(&dir->inode->dir_mu);
    r = dentry_lookup_locked(dir, name, len, out);
    mutex_unlock(&dir->inode->dir_mu);
    return r;
}

int dentry_lookup_cached(struct dentry *dir, const char *name, size_t len, struct dentry **out)
{
    if (dir->sb->ops->revalidate != NULL)
        return -EAGAIN;
    *out = dentry_cached(dir, name, len);
    return *out != NULL ? 0 : -EAGAIN;
}

int dentry_instantiate(struct dentry *dir, const char *name, struct inode *inode,
                       struct dentry **out)
{
    size_t len = strlen(name);
    struct dentry *old = dentry_cached(dir, name, len);
    int r;

    if (old != NULL) {
        dentry_drop(old);
        dentry_put(old);
    }
    r = dentry_new(dir->sb, inode, dir, name, len, out);
    if (r != 0) {
        inode_put(inode);
        return r;
    }
    dentry_hash(*out);
    return 0;
}

void dentry_unlinked(struct dentry *d)
{
    dentry_drop(d);
    atomic_store(&d->unlinked, true);
}

void dentry_move_locked(struct dentry *d, struct dentry *new_parent, char **name)
{
    struct mutex *mu = parent_lock(d);
    char *old_name = d->name != d->inline_name ? d->name : NULL;

    rwlock_assert_write_held(&vfs_tree_lock);
    mutex_lock(mu);
    struct dentry *old_parent = d->parent;
    d->parent = dentry_get(new_parent);
    d->name = *name;
    d->name_len = (uint32_t)strlen(d->name);
    mutex_unlock(mu);
    *name = old_name;
    dentry_put(old_parent);
}

bool dentry_is_ancestor(const struct dentry *a, const struct dentry *d)
{
    while (d != a && d->parent != d)
        d = d->parent;
    return d == a;
}

/* One batch of what only the cache holds, of one super or of all. Children come after their parents
 * in no list, so passes go on until one finds nothing. */
static size_t shrink_pick(const struct super *sb, struct dentry **out)
{
    struct dentry *d;
    size_t n = 0;

    mutex_lock(&lru_mu);
    list_for_each_entry (d, &lru, lru) {
        if ((sb != NULL && d->sb != sb) || ref_read(&d->ref) != 1)
            continue;
        out[n++] = dentry_get(d);
        if (n == SHRINK_BATCH)
            break;
    }
    mutex_unlock(&lru_mu);
    return n;
}

void vfs_drop_caches(void)
{
    dentry_shrink_super(NULL);
}

void vfs_limit_cache(unsigned max)
{
    mutex_lock(&lru_mu);
    lru_limit = MIN(max, (unsigned)LIMIT_DENTRY_CACHE);
    mutex_unlock(&lru_mu);
}

void vfs_shrink_cache(unsigned count)
{
    struct dentry *batch[SHRINK_BATCH];
    size_t n = 1;

    for (unsigned done = 0; done < count && n > 0; done += (unsigned)n) {
        n = shrink_pick(NULL, batch);
        for (size_t i = 0; i < n; i++) {
            dentry_drop(batch[i]);
            dentry_put(batch[i]);
        }
    }
}

void dentry_shrink_super(struct super *sb)
{
    struct dentry *batch[SHRINK_BATCH];
    size_t n;

    do {
        n = shrink_pick(sb, batch);
        for (size_t i = 0; i < n; i++) {
            dentry_drop(batch[i]);
            dentry_put(batch[i]);
        }
    } while (n > 0);
}
