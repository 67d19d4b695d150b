/* Listing: the names of all layers, each once. A directory is read whole, and positions are indices
 * into that copy till it is rewound, which has them as getdents64(2) wants them; what only the
 * root's image has is passed on as it is. */
#include <unistd.h>

#include "base/hash.h"
#include "sentry/fs/overlay/overlay_priv.h"

#define LIST_MAX (64u << 20)     /* bytes of entries, and of names: -ENOMEM */
#define LIST_KEPT_MAX (4u << 20) /* of listings kept for the next reader, in all */
#define DT_CHR_ 2u
#define DT_DIR_ 4u
#define DT_REG_ 8u

struct ovl_entry {
    uint64_t ino;
    uint32_t off; /* of its record */
    uint8_t name_len, dtype;
    bool whiteout; /* while it is filled */
};

/* Immutable once it is filled. */
struct ovl_list {
    struct ref ref;
    struct ovl_entry *entries;
    size_t count, room;
    char *records; /* struct vfs_dirent64, one after the other */
    size_t used, records_room;
    uint32_t *table; /* index + 1 of the entry, 0: free; a power of two of them */
    size_t table_size;
    bool merged; /* names may come again */
    const struct ovl_super *os;
    unsigned layer;           /* being read */
    _Atomic uint64_t *charge; /* what kept counts in, or NULL */
    uint64_t kept;
};

struct ovl_dir {
    struct file *real;     /* owned: its list is passed on */
    struct ovl_list *list; /* owned; or both NULL: not read yet */
};

/* ---- collecting ---- */

static void listing_put(struct ovl_list *l)
{
    if (l == NULL || !ref_put(&l->ref))
        return;
    if (l->charge != NULL)
        atomic_fetch_sub(l->charge, l->kept);
    free(l->entries);
    free(l->records);
    free(l->table);
    free(l);
}

static int list_reserve(void **array, size_t *room, size_t count, size_t need, size_t size)
{
    if (need <= *room - count)
        return 0;
    size_t want = MAX(MAX(*room * 2, count + need), (size_t)64);
    void *p = want <= LIST_MAX / size ? realloc(*array, want * size) : NULL;
    if (p == NULL)
        return -ENOMEM;
    *array = p;
    *room = want;
    return 0;
}

static struct vfs_dirent64 *list_record(const struct ovl_list *l, const struct ovl_entry *e)
{
    return (struct vfs_dirent64 *)(l->records + e->off);
}

/* The slot of a name: where it is, or would go. */
static uint32_t *list_slot(const struct ovl_list *l, const char *name, size_t len)
{
    size_t at = hash_seeded(name, len) & (l->table_size - 1);

    for (;; at = (at + 1) & (l->table_size - 1)) {
        uint32_t index = l->table[at];
        if (index == 0)
            return &l->table[at];
        const struct ovl_entry *e = &l->entries[index - 1];
        if (e->name_len == len && memcmp(list_record(l, e)->name, name, len) == 0)
            return &l->table[at];
    }
}

/* At most half full. */
static int list_grow_table(struct ovl_list *l)
{
    if (l->count * 2 < l->table_size)
        return 0;
    size_t size = MAX(l->table_size * 2, (size_t)128);
    uint32_t *table = calloc(size, sizeof(*table));
    if (table == NULL)
        return -ENOMEM;
    free(l->table);
    l->table = table;
    l->table_size = size;
    for (size_t i = 0; i < l->count; i++) {
        const struct ovl_entry *e = &l->entries[i];
        *list_slot(l, list_record(l, e)->name, e->name_len) = (uint32_t)i + 1;
    }
    return 0;
}

static int listing_add(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype,
                       uint64_t next_off)
{
    struct ovl_list *l = arg;
    void *entries = l->entries, *records = l->records;
    const size_t size = vfs_dirent64_size(len);
    int r = l->merged ? list_grow_table(l) : 0;

    (void)next_off;
    if (r == 0 && l->merged && *list_slot(l, name, len) != 0)
        return 0;
    if (r == 0)
        r = list_reserve(&entries, &l->room, l->count, 1, sizeof(*l->entries));
    l->entries = entries;
    if (r == 0)
        r = list_reserve(&records, &l->records_room, l->used, size, 1);
    l->records = records;
    if (r != 0)
        return r;
    if (l->merged)
        *list_slot(l, name, len) = (uint32_t)l->count + 1;
    l->entries[l->count++] = (struct ovl_entry){.ino = ovl_ino(l->os, l->layer, ino),
                                                .off = (uint32_t)l->used,
                                                .name_len = (uint8_t)len,
                                                .dtype = (uint8_t)dtype};
    /* Its number and place are known at the end. */
    l->used += vfs_dirent64_fill((void *)(l->records + l->used), name, len, 0, dtype, 0);
    return 0;
}

/* The dots are the overlay's own. */
struct ovl_nodots {
    vfs_dirent_fn fn;
    void *arg;
};

static int nodots(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype,
                  uint64_t next_off)
{
    const struct ovl_nodots *n = arg;

    if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
        return 0;
    return n->fn(n->arg, name, len, ino, dtype, next_off);
}

int ovl_read_real(struct ovl_real real, const struct vfs_caller *c, vfs_dirent_fn fn, void *arg)
{
    struct ovl_nodots n = {fn, arg};
    int64_t pos = 0, before;
    struct file *f;
    int r = layer_open(real.mnt, real.d, O_RDONLY | O_DIRECTORY, c, &f);

    if (r != 0)
        return r;
    r = f->ops->readdir != NULL ? 0 : -ENOTDIR;
    do {
        before = pos;
        if (r == 0)
            r = f->ops->readdir(f, &pos, nodots, &n);
    } while (r == 0 && pos != before);
    file_put(f);
    return r;
}

/* ---- whiteouts and numbers ---- */

/* The entries from first on are of directory d. */
static int list_find_whiteouts(struct ovl_list *l, struct dentry *d, size_t first)
{
    char v = '\0';
    bool files = !l->os->is_root && ovl_mark_get(l->os, d->inode, "opaque", &v, 1) == 1 && v == 'x';

    for (size_t i = first; i < l->count; i++) {
        struct ovl_entry *e = &l->entries[i];
        struct dentry *child;
        if (e->dtype != DT_CHR_ && e->dtype != 0 && !(files && e->dtype == DT_REG_))
            continue;
        int r = layer_lookup(d, list_record(l, e)->name, true, &child);
        if (r == -ENOENT)
            continue;
        if (r != 0)
            return r;
        e->whiteout = ovl_is_whiteout(l->os, d, child);
        dentry_put(child);
    }
    return 0;
}

/* What was copied up shows the number it had. */
static int list_find_numbers(struct ovl_list *l, struct ovl_inode *dir)
{
    char v = '\0';
    struct dentry *up = ovl_upper(dir);
    bool impure = atomic_load(&dir->impure) ||
                  (ovl_mark_get(l->os, up->inode, "impure", &v, 1) == 1 && v == 'y');

    if (impure)
        atomic_store(&dir->impure, true);
    for (size_t i = 0; i < l->count; i++) {
        struct ovl_entry *e = &l->entries[i];
        struct ovl_found f;
        if (e->whiteout || (!impure && (e->dtype != DT_DIR_ || dir->lower_count == 0)))
            continue;
        int r = ovl_find(dir, list_record(l, e)->name, &f);
        if (r == -ENOENT)
            continue;
        if (r != 0)
            return r;
        e->ino = ovl_found_ino(l->os, &f);
        ovl_found_fini(&f);
    }
    return 0;
}

static int list_layer(struct ovl_list *l, unsigned layer, struct dentry *d)
{
    const struct ovl_real real = {l->os->layers[layer].mnt, d};
    const struct vfs_caller c = ovl_caller(l->os);
    size_t first = l->count;

    l->layer = layer;
    int r = ovl_read_real(real, &c, listing_add, l);
    /* The image of a container has none. */
    if (r != 0 || (l->os->is_root && layer != OVL_UPPER))
        return r;
    return list_find_whiteouts(l, d, first);
}

static void list_finish(struct ovl_list *l)
{
    size_t count = 0, used = 0;

    for (size_t i = 0; i < l->count; i++) {
        struct ovl_entry e = l->entries[i];
        const size_t size = vfs_dirent64_size(e.name_len);
        if (e.whiteout)
            continue;
        memmove(l->records + used, l->records + e.off, size);
        e.off = (uint32_t)used;
        list_record(l, &e)->ino = e.ino;
        list_record(l, &e)->off = (int64_t)count + 3;
        l->entries[count++] = e;
        used += size;
    }
    l->count = count;
    l->used = used;
    free(l->table);
    l->table = NULL;
}

/* dir_mu of dir keeps changes away. */
static int listing_read(struct ovl_inode *dir, struct ovl_list *l)
{
    struct dentry *up = ovl_upper(dir);
    int r = 0;

    l->os = ovl_super_of(dir);
    l->merged = (up != NULL) + dir->lower_count > 1;
    if (up != NULL) {
        r = list_layer(l, OVL_UPPER, up);
        if (r == 0)
            r = list_find_numbers(l, dir);
    }
    for (unsigned k = 0; r == 0 && k < dir->lower_count; k++)
        r = list_layer(l, dir->lower[k].layer, dir->lower[k].d);
    if (r == 0)
        list_finish(l);
    return r;
}

static int listing_new(struct ovl_inode *dir, struct ovl_list **out)
{
    struct ovl_list *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return -ENOMEM;
    ref_init(&l->ref);
    int r = listing_read(dir, l);
    if (r != 0) {
        listing_put(l);
        return r;
    }
    *out = l;
    return 0;
}

/* Nobody but the overlay changes the root's layers: what was read is good till it says otherwise.
 * The super outlives its inodes, and open files hold theirs. */
static void listing_keep(struct ovl_inode *dir, struct ovl_list *l)
{
    struct ovl_super *os = ovl_super_of(dir);
    uint64_t size = l->room * sizeof(*l->entries) + l->records_room;

    if (!os->is_root)
        return;
    if (atomic_fetch_add(&os->list_kept, size) + size > LIST_KEPT_MAX) {
        atomic_fetch_sub(&os->list_kept, size);
        return;
    }
    l->charge = &os->list_kept;
    l->kept = size;
    ref_get(&l->ref);
    dir->list = l;
}

/* dir_mu of dir is held. Owned. */
static int listing_get(struct ovl_inode *dir, struct ovl_list **out)
{
    if (dir->list != NULL) {
        ref_get(&dir->list->ref);
        *out = dir->list;
        return 0;
    }
    int r = listing_new(dir, out);
    if (r == 0)
        listing_keep(dir, *out);
    return r;
}

void ovl_list_drop(struct ovl_inode *dir)
{
    struct ovl_list *l = dir->list;

    dir->list = NULL;
    listing_put(l);
}

int ovl_check_empty(struct ovl_inode *dir)
{
    struct ovl_list *l;
    int r = listing_new(dir, &l);

    if (r != 0)
        return r;
    if (l->count > 0)
        r = -ENOTEMPTY;
    listing_put(l);
    return r;
}

/* ---- open directories ---- */

static struct ovl_dir *dir_of(const struct file *f)
{
    return f->priv;
}

static void dir_forget(struct ovl_dir *od)
{
    if (od->real != NULL)
        file_put(od->real);
    listing_put(od->list);
    od->real = NULL;
    od->list = NULL;
}

/* The directory as it is now. */
static int dir_read(struct file *f)
{
    struct ovl_inode *oi = ovl_inode(f->inode);
    const struct ovl_super *os = ovl_super_of(oi);
    struct ovl_dir *od = dir_of(f);
    int r;

    dir_forget(od);
    if (os->is_root && ovl_upper(oi) == NULL && oi->lower_count == 1) {
        const struct ovl_real real = ovl_real(oi);
        const struct vfs_caller c = ovl_caller(os);
        return layer_open(real.mnt, real.d, O_RDONLY | O_DIRECTORY, &c, &od->real);
    }
    /* An overlay on this one may hold its own directory's. */
    mutex_lock_nested(&f->inode->dir_mu);
    r = listing_get(oi, &od->list);
    mutex_unlock(&f->inode->dir_mu);
    return r;
}

static int dir_give(const struct ovl_list *l, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    uint64_t at = (uint64_t)*pos - 2;
    int r = 0;

    for (; at < l->count; at++) {
        const struct ovl_entry *e = &l->entries[at];
        r = fn(arg, list_record(l, e)->name, e->name_len, e->ino, e->dtype, at + 3);
        if (r != 0)
            break;
    }
    *pos = (int64_t)at + 2;
    return r;
}

/* Entries from first up to this one, which is not among them, fit into size bytes. */
static size_t list_reach(const struct ovl_list *l, size_t first, size_t size)
{
    const uint64_t end = l->entries[first].off + (uint64_t)size;
    size_t low = first, high = l->count - 1;

    if (l->used <= end)
        return l->count;
    while (low < high) {
        size_t mid = low + (high - low + 1) / 2;
        if (l->entries[mid].off <= end)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

static size_t dir_dirents(struct file *f, int64_t *pos, void *buf, size_t size)
{
    const struct ovl_list *l = dir_of(f)->list;
    const uint64_t first = (uint64_t)*pos - 2;

    if (l == NULL || *pos < 2 || first >= l->count)
        return 0;
    const size_t reach = list_reach(l, first, size), from = l->entries[first].off;
    const size_t bytes = (reach < l->count ? l->entries[reach].off : l->used) - from;
    memcpy(buf, l->records + from, bytes);
    *pos = (int64_t)reach + 2;
    return bytes;
}

static int dir_readdir(struct file *f, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    const struct ovl_dir *od = dir_of(f);
    int r = 0;

    if (*pos < 0)
        return -EINVAL;
    if (*pos == 0 || (od->real == NULL && od->list == NULL))
        r = dir_read(f);
    if (r != 0)
        return r;
    if (od->real != NULL && *pos > 1)
        return od->real->ops->readdir(od->real, pos, fn, arg);
    if (*pos == 0) {
        r = fn(arg, ".", 1, f->inode->ino, DT_DIR_, 1);
        if (r == 0)
            *pos = 1;
    }
    if (r == 0 && *pos == 1) {
        r = fn(arg, "..", 2, layer_parent_ino(f->path.dentry), DT_DIR_, 2);
        if (r == 0)
            *pos = 2;
    }
    if (r == 0 && od->real != NULL)
        r = od->real->ops->readdir(od->real, pos, fn, arg);
    else if (r == 0)
        r = dir_give(od->list, pos, fn, arg);
    return r < 0 ? r : 0;
}

static int dir_fsync(struct file *f, bool data_only)
{
    struct ovl_inode *oi = ovl_inode(f->inode);
    struct ovl_super *os = ovl_super_of(oi);
    const struct vfs_caller c = ovl_caller(os);
    struct dentry *up = ovl_upper(oi);
    struct file *real;

    if (up == NULL)
        return 0;
    int r = layer_open(os->layers[OVL_UPPER].mnt, up, O_RDONLY | O_DIRECTORY, &c, &real);
    if (r != 0)
        return r;
    r = real->ops->fsync != NULL ? real->ops->fsync(real, data_only) : 0;
    file_put(real);
    return r;
}

static void dir_release(struct file *f)
{
    dir_forget(dir_of(f));
    free(f->priv);
}

const struct file_ops ovl_dir_ops = {
    .seek = vfs_seek_endless,
    .readdir = dir_readdir,
    .dirents = dir_dirents,
    .fsync = dir_fsync,
    .release = dir_release,
};

int ovl_dir_open(struct inode *i, struct file *f)
{
    (void)i;
    f->priv = calloc(1, sizeof(struct ovl_dir));
    if (f->priv == NULL)
        return -ENOMEM;
    f->ops = &ovl_dir_ops;
    return 0;
}
