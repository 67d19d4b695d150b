/* Where the bytes of a file are: chunks of the memory file. */
#include "platform/platform.h"
#include "sentry/fs/tmpfs/tmpfs_priv.h"

static struct tmpfs *data_fs(const struct tmpfs_inode *t)
{
    return tmpfs_of(t->inode.sb);
}

/* First chunk with an index >= index, or NULL. */
static struct chunk *chunk_from(const struct tmpfs_inode *t, uint64_t index)
{
    struct rb_node *n = t->chunks.node;
    struct chunk *best = NULL;

    while (n != NULL) {
        struct chunk *c = container_of(n, struct chunk, node);
        if (c->index >= index) {
            best = c;
            n = n->left;
        } else {
            n = n->right;
        }
    }
    return best;
}

static int chunk_new(struct tmpfs_inode *t, struct memacct *acct, uint64_t index,
                     struct chunk **out)
{
    struct rb_node **link = &t->chunks.node, *up = NULL;
    struct chunk *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return -ENOMEM;
    /* With a limit only those pages count that were written or mapped. */
    struct memfile *mf = data_fs(t)->mf;
    const unsigned flags = MEMFILE_UP | (memfile_limited(mf) ? MEMFILE_LAZY : 0);
    int r = memfile_alloc_flags(mf, acct, CHUNK_SIZE, flags, &c->off, NULL);
    if (r != 0) {
        free(c);
        return r;
    }
    c->index = index;
    while (*link != NULL) {
        up = *link;
        link = container_of(up, struct chunk, node)->index > index ? &up->left : &up->right;
    }
    rb_link_node(&c->node, up, link);
    rb_insert_color(&c->node, &t->chunks);
    *out = c;
    return 0;
}

static uint64_t page_mask(uint64_t first, uint64_t count)
{
    uint64_t ones = count >= CHUNK_PAGES ? UINT64_MAX : (UINT64_C(1) << count) - 1;

    return ones << first;
}

/* Marks pages of c as in use, within the mount's size. data_mu held. */
static int chunk_charge(struct tmpfs_inode *t, struct chunk *c, uint64_t mask)
{
    struct tmpfs *fs = data_fs(t);
    uint64_t fresh = mask & ~c->present;
    uint64_t n = (uint64_t)__builtin_popcountll(fresh);

    if (n == 0)
        return 0;
    if (atomic_fetch_add(&fs->pages, n) + n > fs->max_pages && fs->max_pages != 0) {
        atomic_fetch_sub(&fs->pages, n);
        return -ENOSPC;
    }
    if (!memfile_may_commit(fs->mf, n << PAGE_SHIFT, 0, true)) {
        atomic_fetch_sub(&fs->pages, n);
        return -ENOSPC;
    }
    mem_commit_charge(memfile_commit(fs->mf), n << PAGE_SHIFT);
    c->present |= fresh;
    atomic_fetch_add(&t->pages, n);
    return 0;
}

/* Pages of c are going to be touched. */
static int chunk_show(struct tmpfs_inode *t, struct chunk *c, uint64_t first, uint64_t count)
{
    struct memfile *mf = data_fs(t)->mf;

    if (!memfile_limited(mf))
        return 0;
    return memfile_show(mf, c->off + (first << PAGE_SHIFT), count << PAGE_SHIFT);
}

/* Bytes from in on, size at most, whose pages are all in use, or all not. */
static uint64_t chunk_run(const struct chunk *c, uint64_t in, uint64_t size, bool *out_hole)
{
    const uint64_t first = in >> PAGE_SHIFT;
    const bool there = c->present >> first & 1;
    const uint64_t others = (there ? ~c->present : c->present) >> first;
    const uint64_t pages = others ? (uint64_t)__builtin_ctzll(others) : CHUNK_PAGES - first;

    *out_hole = !there;
    return MIN(size, ((first + pages) << PAGE_SHIFT) - in);
}

static int data_get_locked(struct tmpfs_inode *t, uint64_t off, uint64_t size,
                           const struct tmpfs_alloc *alloc, uint64_t *out_off, uint64_t *out_size,
                           bool *out_hole)
{
    uint64_t index = off / CHUNK_SIZE, in = off % CHUNK_SIZE;
    uint64_t n = MIN(size, CHUNK_SIZE - in);
    uint64_t first = in >> PAGE_SHIFT, last = (in + n - 1) >> PAGE_SHIFT;
    struct chunk *c = chunk_from(t, index);
    int r = 0;

    *out_hole = false;
    *out_size = n;
    if (c == NULL || c->index != index) {
        if (!alloc) {
            *out_hole = true;
            return 0;
        }
        struct memacct *acct = alloc->acct;
        if (alloc->ua)
            acct = mm_account(alloc->ua->mm);
        r = chunk_new(t, acct, index, &c);
        if (alloc->ua)
            memacct_put(acct);
    }
    /* A page that is not in use would come into being when it is looked at. */
    if (!alloc) {
        n = *out_size = chunk_run(c, in, n, out_hole);
        last = (in + n - 1) >> PAGE_SHIFT;
    }
    if (r == 0 && !*out_hole)
        r = chunk_show(t, c, first, last - first + 1);
    if (r == 0 && alloc)
        r = chunk_charge(t, c, page_mask(first, last - first + 1));
    if (r == 0)
        *out_off = c->off + in;
    return r;
}

int tmpfs_data_get(struct tmpfs_inode *t, uint64_t off, uint64_t size,
                   const struct tmpfs_alloc *alloc, uint64_t *out_off, uint64_t *out_size,
                   bool *out_hole)
{
    mutex_lock(&t->data_mu);
    int r = data_get_locked(t, off, size, alloc, out_off, out_size, out_hole);
    mutex_unlock(&t->data_mu);
    return r;
}

uint64_t tmpfs_data_pages(struct tmpfs_inode *t, uint64_t first, uint64_t last)
{
    uint64_t index = first / CHUNK_PAGES, n = 0;
    const struct chunk *c;

    mutex_lock(&t->data_mu);
    while ((c = chunk_from(t, index)) != NULL && c->index <= last / CHUNK_PAGES) {
        uint64_t from = c->index == first / CHUNK_PAGES ? first % CHUNK_PAGES : 0;
        uint64_t to = c->index == last / CHUNK_PAGES ? last % CHUNK_PAGES : CHUNK_PAGES - 1;
        n += (uint64_t)__builtin_popcountll(c->present & page_mask(from, to - from + 1));
        index = c->index + 1;
    }
    mutex_unlock(&t->data_mu);
    return n;
}

/* ---- giving back ---- */

static void chunk_uncharge(struct tmpfs_inode *t, struct chunk *c, uint64_t mask)
{
    uint64_t n = (uint64_t)__builtin_popcountll(c->present & mask);

    c->present &= ~mask;
    mem_commit_release(memfile_commit(data_fs(t)->mf), n << PAGE_SHIFT);
    atomic_fetch_sub(&data_fs(t)->pages, n);
    atomic_fetch_sub(&t->pages, n);
}

/* [from, to) of one page, bytes. One that is not in use reads as zeros. */
static void chunk_clear(struct tmpfs_inode *t, const struct chunk *c, uint64_t from, uint64_t to)
{
    if (from < to && c->present >> (from >> PAGE_SHIFT) & 1)
        memset(memfile_ptr(data_fs(t)->mf, c->off + from), 0, to - from);
}

/* [from, to) of a chunk, bytes. */
static void chunk_punch(struct tmpfs_inode *t, struct chunk *c, uint64_t from, uint64_t to)
{
    struct memfile *mf = data_fs(t)->mf;
    uint64_t first = ALIGN_UP(from, PAGE_SIZE), last = ALIGN_DOWN(to, PAGE_SIZE);

    if (first > last) {
        chunk_clear(t, c, from, to);
        return;
    }
    chunk_clear(t, c, from, first);
    chunk_clear(t, c, last, to);
    if (first < last) {
        memfile_zero(mf, c->off + first, last - first);
        chunk_uncharge(t, c, page_mask(first >> PAGE_SHIFT, (last - first) >> PAGE_SHIFT));
    }
}

void tmpfs_data_punch(struct tmpfs_inode *t, uint64_t start, uint64_t end)
{
    struct chunk *c;
    uint64_t at = start;

    mutex_lock(&t->data_mu);
    while (at < end && (c = chunk_from(t, at / CHUNK_SIZE)) != NULL) {
        uint64_t base = c->index * CHUNK_SIZE;
        if (base >= end)
            break;
        uint64_t from = at > base ? at - base : 0, to = MIN(end - base, CHUNK_SIZE);
        at = base + CHUNK_SIZE;
        if (from == 0 && to == CHUNK_SIZE) {
            chunk_uncharge(t, c, UINT64_MAX);
            rb_erase(&c->node, &t->chunks);
            memfile_unref(data_fs(t)->mf, c->off, CHUNK_SIZE);
            free(c);
        } else {
            chunk_punch(t, c, from, to);
        }
        if (at < base)
            break;
    }
    mutex_unlock(&t->data_mu);
}

/* ---- SEEK_DATA, SEEK_HOLE ---- */

uint64_t tmpfs_data_seek(struct tmpfs_inode *t, uint64_t off, bool data)
{
    uint64_t page = off >> PAGE_SHIFT, found = INT64_MAX;
    const struct chunk *c;

    mutex_lock(&t->data_mu);
    for (;;) {
        uint64_t index = page / CHUNK_PAGES, bit = page % CHUNK_PAGES;
        c = chunk_from(t, index);
        if (c == NULL || (!data && c->index != index)) {
            found = data ? INT64_MAX : page << PAGE_SHIFT;
            break;
        }
        if (c->index != index) {
            page = c->index * CHUNK_PAGES;
            bit = 0;
        }
        uint64_t left = (data ? c->present : ~c->present) >> bit;
        if (left != 0) {
            found = (page + (uint64_t)__builtin_ctzll(left)) << PAGE_SHIFT;
            break;
        }
        page = (c->index + 1) * CHUNK_PAGES;
    }
    mutex_unlock(&t->data_mu);
    return MAX(found, off);
}

/* ---- mapping ---- */

static struct tmpfs_inode *mappable_inode(struct mappable *m)
{
    return container_of(m, struct tmpfs_inode, mappable);
}

static int tmpfs_translate(struct mappable *m, uint64_t off, uint64_t size, unsigned access,
                           struct mappable_range *out)
{
    struct tmpfs_inode *t = mappable_inode(m);
    const struct tmpfs_alloc alloc = {.acct = out->acct};
    uint64_t end, mem_off = 0, n = 0;
    bool hole;
    int r;

    (void)access;
    mutex_lock(&t->inode.mu);
    const uint64_t size_now = t->inode.size;
    end = ALIGN_UP(size_now, PAGE_SIZE);
    mutex_unlock(&t->inode.mu);
    if (off >= end)
        return -ERANGE;
    mutex_lock(&t->data_mu);
    r = data_get_locked(t, off, MIN(size, end - off), &alloc, &mem_off, &n, &hole);
    if (r == 0)
        r = memfile_ref(data_fs(t)->mf, mem_off, n);
    mutex_unlock(&t->data_mu);
    if (r == 0)
        *out = (struct mappable_range){.in_memfile = true, .fd = -1, .off = mem_off, .size = n};
    /* A full file system is a bus error to who touches the page. */
    return r == -ENOSPC ? -ERANGE : r;
}

static void tmpfs_map_get(struct mappable *m)
{
    (void)inode_get(&mappable_inode(m)->inode);
}

static void tmpfs_map_put(struct mappable *m)
{
    inode_put(&mappable_inode(m)->inode);
}

static int tmpfs_map_punch(struct mappable *m, uint64_t off, uint64_t size)
{
    struct tmpfs_inode *t = mappable_inode(m);

    rwlock_wrlock(&t->rw);
    mappable_invalidate(m, off, size);
    tmpfs_data_punch(t, off, off + size);
    rwlock_unlock(&t->rw);
    return 0;
}

static void tmpfs_describe(struct mappable *m, uint64_t *out_dev, uint64_t *out_ino, char *path,
                           size_t size)
{
    const struct inode *i = &mappable_inode(m)->inode;

    *out_dev = i->sb->dev;
    *out_ino = i->ino;
    if (size > 0)
        path[0] = '\0';
}

const struct mappable_ops tmpfs_mappable_ops = {
    .translate = tmpfs_translate,
    .get = tmpfs_map_get,
    .put = tmpfs_map_put,
    .punch = tmpfs_map_punch,
    .describe = tmpfs_describe,
};
