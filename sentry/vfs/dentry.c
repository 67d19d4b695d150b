/* The dentry cache: names that were looked up, those that do not exist included. */
#include <stdlib.h>

#include "base/hash.h"
#include "base/objcount.h"
#include "sentry/vfs/vfs_priv.h"

#define HASH_BUCKETS 16384u
#define HASH_LOCKS 64u

OBJCOUNT_DEFINE(dentry);

struct rwlock vfs_rename_lock;

static struct list buckets[HASH_BUCKETS];
static struct mutex bucket_locks[HASH_LOCKS]; /* rank DENTRY */
static struct mutex lru_mu;                   /* rank LEAF */
static struct list lru;                       /* all that are hashed, oldest first */
static unsigned lru_count;

__attribute__((constructor)) static void dentry_init(void)
{
    rwlock_init(&vfs_rename_lock, LOCK_RANK_RENAME);
    mutex_init(&lru_mu, LOCK_RANK_LEAF);
    list_init(&lru);
    for (unsigned i = 0; i < HASH_BUCKETS; i++)
        list_init(&buckets[i]);
    for (unsigned i = 0; i < HASH_LOCKS; i++)
        mutex_init(&bucket_locks[i], LOCK_RANK_DENTRY);
}

static unsigned bucket_of(const struct dentry *parent, const char *name, size_t len)
{
    return (unsigned)(hash_seeded_u64((uint64_t)(uintptr_t)parent, hash_seeded(name, len)) %
                      HASH_BUCKETS);
}

static struct mutex *bucket_lock(unsigned bucket)
{
    return &bucket_locks[bucket % HASH_LOCKS];
}

/* ---- life ---- */

int dentry_new(struct super *sb, struct inode *inode, struct dentry *parent, const char *name,
               size_t len, struct dentry **out)
{
    struct dentry *d = calloc(1, sizeof(*d));
    char *copy = malloc(len + 1);

    if (d == NULL || copy == NULL) {
        free(d);
        free(copy);
        return -ENOMEM;
    }
    memcpy(copy, name, len);
    copy[len] = '\0';
    ref_init(&d->ref);
    d->sb = sb;
    d->inode = inode;
    d->name = copy;
    d->name_len = (uint32_t)len;
    d->parent = parent != NULL ? dentry_get(parent) : d;
    list_init(&d->hash);
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

/* A chain of parents may go with its last child: no recursion. */
void dentry_put(struct dentry *d)
{
    while (d != NULL && ref_put(&d->ref)) {
        struct dentry *parent = d->parent != d ? d->parent : NULL;
        if (d->inode != NULL)
            inode_put(d->inode);
        OBJCOUNT_DEC(dentry);
        free(d->name);
        free(d);
        d = parent;
    }
}

/* ---- the cache ---- */

static void evict_one(void)
{
    struct dentry *d = NULL;

    mutex_lock(&lru_mu);
    if (lru_count > LIMIT_DENTRY_CACHE && !list_empty(&lru)) {
        d = dentry_get(list_first_entry(&lru, struct dentry, lru));
        list_move_tail(&d->lru, &lru);
    }
    mutex_unlock(&lru_mu);
    if (d == NULL)
        return;
    /* The cache's reference and ours: nobody uses it, and it has no child and no mount. */
    if (ref_read(&d->ref) == 2 && !atomic_exchange(&d->used, false))
        dentry_drop(d);
    dentry_put(d);
}

void dentry_hash(struct dentry *d)
{
    unsigned b = bucket_of(d->parent, d->name, d->name_len);

    dentry_get(d);
    mutex_lock(bucket_lock(b));
    list_add(&d->hash, &buckets[b]);
    mutex_lock(&lru_mu);
    list_add_tail(&d->lru, &lru);
    lru_count++;
    mutex_unlock(&lru_mu);
    mutex_unlock(bucket_lock(b));
    evict_one();
}

void dentry_drop(struct dentry *d)
{
    unsigned b = bucket_of(d->parent, d->name, d->name_len);
    bool was_hashed;

    mutex_lock(bucket_lock(b));
    was_hashed = !list_empty(&d->hash);
    list_del(&d->hash);
    if (was_hashed) {
        mutex_lock(&lru_mu);
        list_del(&d->lru);
        lru_count--;
        mutex_unlock(&lru_mu);
    }
    mutex_unlock(bucket_lock(b));
    if (was_hashed)
        dentry_put(d);
}

struct dentry *dentry_cached(struct dentry *parent, const char *name, size_t len)
{
    unsigned b = bucket_of(parent, name, len);
    struct dentry *d, *found = NULL;

    mutex_lock(bucket_lock(b));
    list_for_each_entry (d, &buckets[b], hash) {
        if (d->parent == parent && d->name_len == len && memcmp(d->name, name, len) == 0) {
            found = dentry_get(d);
            atomic_store_explicit(&d->used, true, memory_order_relaxed);
            break;
        }
    }
    mutex_unlock(bucket_lock(b));
    return found;
}

/* A cached name that its file system still stands by. */
static struct dentry *cached_valid(struct dentry *dir, const char *name, size_t len)
{
    struct dentry *d = dentry_cached(dir, name, len);

    if (d == NULL || dir->sb->ops->revalidate == NULL || dir->sb->ops->revalidate(d))
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
    if (!dir->unlinked)
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
    int r;

    *out = cached_valid(dir, name, len);
    if (*out != NULL)
        return 0;
    if (rest != NULL && dir->inode->ops->prefetch != NULL)
        dir->inode->ops->prefetch(dir->inode, rest);
    mutex_lock(&dir->inode->dir_mu);
    r = dentry_lookup_locked(dir, name, len, out);
    mutex_unlock(&dir->inode->dir_mu);
    return r;
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
    d->unlinked = true;
}

void dentry_move(struct dentry *d, struct dentry *new_parent, char **name_owned)
{
    struct dentry *old_parent = d->parent;
    char *old_name = d->name;

    dentry_drop(d);
    d->parent = dentry_get(new_parent);
    d->name = *name_owned;
    d->name_len = (uint32_t)strlen(d->name);
    *name_owned = old_name;
    dentry_hash(d);
    dentry_put(old_parent);
}

bool dentry_is_ancestor(const struct dentry *a, const struct dentry *d)
{
    while (d != a && d->parent != d)
        d = d->parent;
    return d == a;
}

/* Children first come later in no list: passes go on until one finds nothing more to give back. */
void dentry_shrink_super(struct super *sb)
{
    for (bool found = true; found;) {
        struct dentry *d, *victim = NULL;
        mutex_lock(&lru_mu);
        list_for_each_entry (d, &lru, lru) {
            if (d->sb == sb && ref_read(&d->ref) == 1) {
                victim = dentry_get(d);
                break;
            }
        }
        mutex_unlock(&lru_mu);
        found = victim != NULL;
        if (found) {
            dentry_drop(victim);
            dentry_put(victim);
        }
    }
}
