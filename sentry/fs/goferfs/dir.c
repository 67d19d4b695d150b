/* Listing directories. A directory is read whole, in batches, and its entries are given out from
 * that copy: positions stay good while others create and remove. Of an exclusive directory the copy
 * is kept for the next reader until an entry changes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sentry/fs/goferfs/goferfs_priv.h"

void goferfs_list_put(struct goferfs_list *l)
{
    if (!ref_put(&l->ref))
        return;
    if (l->kept_in)
        atomic_fetch_sub_explicit(&l->kept_in->list_kept, l->names_room, memory_order_relaxed);
    free(l->entries);
    free(l->names);
    free(l);
}

/* Room for need more of elements that are size bytes each. */
static int reserve(void **array, size_t *room, size_t count, size_t need, size_t size)
{
    if (need <= *room - count)
        return 0;
    size_t want = MAX(MAX(*room * 2, count + need), (size_t)64);
    if (want > GOFERFS_LIST_MAX / size)
        return -ENOMEM;
    void *p = realloc(*array, want * size);
    if (!p)
        return -ENOMEM;
    *array = p;
    *room = want;
    return 0;
}

static int add_entry(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype)
{
    struct goferfs_list *l = arg;
    void *entries = l->entries, *names = l->names;

    int r = reserve(&entries, &l->count_room, l->count, 1, sizeof(*l->entries));
    l->entries = entries;
    if (r == 0)
        r = reserve(&names, &l->names_room, l->names_size, len + 1, 1);
    l->names = names;
    if (r)
        return r;
    l->entries[l->count++] = (struct goferfs_entry){.ino = ino,
                                                    .name_off = (uint32_t)l->names_size,
                                                    .name_len = (uint8_t)len,
                                                    .dtype = (uint8_t)dtype};
    memcpy(l->names + l->names_size, name, len + 1);
    l->names_size += len + 1;
    return 0;
}

static int read_list(struct inode *dir, struct goferfs_list **out)
{
    struct goferfs_list *l = calloc(1, sizeof(*l));
    bool end = false;
    int r = 0, tries = 0;

    if (!l)
        return -ENOMEM;
    ref_init(&l->ref);
    for (bool first = true; !end && r == 0; first = false) {
        do
            r = gof_getdents(goferfs_client(dir), goferfs_inode(dir)->handle, first, add_entry, l,
                             &end, &l->parent);
        while (first && goferfs_make_room(goferfs_super(dir->sb), r, &tries));
    }
    if (r) {
        goferfs_list_put(l);
        return r;
    }
    *out = l;
    return 0;
}

static void keep_list_locked(struct goferfs_inode *gd, struct goferfs_list *l)
{
    struct goferfs_super *gs = goferfs_super(gd->inode.sb);

    if (gs->shared ||
        atomic_load_explicit(&gs->list_kept, memory_order_relaxed) > GOFERFS_LIST_KEPT_MAX)
        return;
    atomic_fetch_add_explicit(&gs->list_kept, l->names_room, memory_order_relaxed);
    l->kept_in = gs;
    ref_get(&l->ref);
    gd->list = l;
    gd->along = (struct goferfs_along){0};
}

/* The directory's entries as they are now. dir_mu keeps changes, and other listings of the same
 * handle, away. Owned result. */
static int list_get(struct inode *dir, struct goferfs_list **out)
{
    struct goferfs_inode *gd = goferfs_inode(dir);
    struct goferfs_list *l;
    int r = 0;

    /* An overlay may hold its own directory's. */
    mutex_lock_nested(&dir->dir_mu);
    mutex_lock(&gd->data_mu);
    l = gd->list;
    if (l)
        ref_get(&l->ref);
    mutex_unlock(&gd->data_mu);
    if (!l) {
        r = read_list(dir, &l);
        if (r == 0) {
            mutex_lock(&gd->data_mu);
            keep_list_locked(gd, l);
            mutex_unlock(&gd->data_mu);
        }
    }
    mutex_unlock(&dir->dir_mu);
    if (r == 0)
        *out = l;
    return r;
}

void goferfs_dir_changed(struct inode *dir)
{
    struct goferfs_inode *gd = goferfs_inode(dir);

    mutex_assert_held(&dir->dir_mu);
    atomic_fetch_add_explicit(&goferfs_super(dir->sb)->changes, 1, memory_order_acq_rel);
    mutex_lock(&gd->data_mu);
    struct goferfs_list *l = gd->list;
    gd->list = NULL;
    mutex_unlock(&gd->data_mu);
    if (l)
        goferfs_list_put(l);
}

/* Of an open directory, in file.priv; guarded by the file's position lock. */
static struct goferfs_list *file_list(struct file *f)
{
    return f->priv;
}

/* A mount's root is its own parent. */
static uint64_t parent_ino(const struct file *f, const struct goferfs_list *l)
{
    const struct inode *root = f->inode->sb->root->inode;

    return f->inode == root || l->parent == 0 ? f->inode->ino : l->parent;
}

/* Entry at pos: 0 and 1 are the dots. */
static int give(struct file *f, const struct goferfs_list *l, int64_t pos, vfs_dirent_fn fn,
                void *arg)
{
    if (pos == 0)
        return fn(arg, ".", 1, f->inode->ino, 4 /* DT_DIR */, 1);
    if (pos == 1)
        return fn(arg, "..", 2, parent_ino(f, l), 4, 2);
    const struct goferfs_entry *e = &l->entries[pos - 2];
    return fn(arg, l->names + e->name_off, e->name_len, e->ino, e->dtype, (uint64_t)pos + 1);
}

static int dir_readdir(struct file *f, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    struct goferfs_list *l = file_list(f);

    if (*pos < 0)
        return -EINVAL;
    if (*pos == 0 && l) {
        /* Rewound: sees the directory as it is now. */
        goferfs_list_put(l);
        f->priv = l = NULL;
    }
    if (!l) {
        int r = list_get(f->inode, &l);
        if (r)
            return r;
        f->priv = l;
    }
    while ((uint64_t)*pos < l->count + 2) {
        int r = give(f, l, *pos, fn, arg);
        if (r)
            return r > 0 ? 0 : r;
        ++*pos;
    }
    return 0;
}

static int dir_fsync(struct file *f, bool data_only)
{
    return gof_fsync(goferfs_client(f->inode), goferfs_inode(f->inode)->handle, data_only);
}

static int64_t dir_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    (void)f, (void)u, (void)pos, (void)c;
    return -EISDIR;
}

static void dir_release(struct file *f)
{
    if (f->priv)
        goferfs_list_put(file_list(f));
}

const struct file_ops goferfs_dir_ops = {
    .read = dir_read,
    .seek = vfs_seek_endless,
    .readdir = dir_readdir,
    .fsync = dir_fsync,
    .release = dir_release,
};
