/* Mapping: address spaces map the overlay's inode, which passes on to the real one, so that all of
 * them see upper's bytes from the copy-up on. */
#include <sys/mman.h>

#include "sentry/fs/overlay/overlay_priv.h"

static struct ovl_inode *map_inode(struct mappable *m)
{
    return container_of(m, struct ovl_inode, map);
}

/* A user's mapping keeps what is there alive. */
static struct mappable *map_real(struct ovl_inode *oi)
{
    struct mappable *m = atomic_load_explicit(&oi->real_map[1], memory_order_acquire);

    return m != NULL ? m : atomic_load_explicit(&oi->real_map[0], memory_order_acquire);
}

static int map_translate(struct mappable *m, uint64_t off, uint64_t size, unsigned access,
                         struct mappable_range *out)
{
    struct mappable *real = map_real(map_inode(m));

    return real->ops->translate(real, off, size, access, out);
}

static int map_msync(struct mappable *m, uint64_t off, uint64_t size)
{
    struct mappable *real = map_real(map_inode(m));

    return real->ops->msync != NULL ? real->ops->msync(real, off, size) : 0;
}

static int map_punch(struct mappable *m, uint64_t off, uint64_t size)
{
    struct mappable *real = map_real(map_inode(m));
    int r = real->ops->punch != NULL ? real->ops->punch(real, off, size) : -EOPNOTSUPP;

    if (r == 0)
        mappable_invalidate(m, off, size);
    return r;
}

static void map_get(struct mappable *m)
{
    struct ovl_inode *oi = map_inode(m);

    (void)inode_get(&oi->inode);
    mutex_lock(&oi->map_mu);
    oi->map_users++;
    mutex_unlock(&oi->map_mu);
}

static void map_put(struct mappable *m)
{
    struct ovl_inode *oi = map_inode(m);
    struct mappable *gone[2] = {NULL, NULL};

    mutex_lock(&oi->map_mu);
    if (--oi->map_users == 0)
        for (int k = 0; k < 2; k++)
            gone[k] = atomic_exchange(&oi->real_map[k], NULL);
    mutex_unlock(&oi->map_mu);
    for (int k = 0; k < 2; k++)
        if (gone[k] != NULL)
            gone[k]->ops->put(gone[k]);
    inode_put(&oi->inode);
}

static void map_describe(struct mappable *m, uint64_t *out_dev, uint64_t *out_ino, char *path,
                         size_t size)
{
    struct ovl_inode *oi = map_inode(m);

    *out_dev = oi->inode.sb->dev;
    *out_ino = oi->inode.ino;
    if (size == 0)
        return;
    path[0] = '\0';
    mutex_lock(&oi->map_mu);
    if (oi->map_path != NULL) {
        size_t n = MIN(strlen(oi->map_path), size - 1);
        memcpy(path, oi->map_path, n);
        path[n] = '\0';
    }
    mutex_unlock(&oi->map_mu);
}

const struct mappable_ops ovl_mappable_ops = {
    .translate = map_translate,
    .msync = map_msync,
    .get = map_get,
    .put = map_put,
    .punch = map_punch,
    .describe = map_describe,
};

/* The path under which it was mapped first. */
static void map_name(struct ovl_inode *oi, struct file *f)
{
    const struct vpath root = {.mnt = f->path.mnt, .dentry = oi->inode.sb->root};
    char *text, *exact = NULL;

    mutex_lock(&oi->map_mu);
    bool known = oi->map_path != NULL;
    mutex_unlock(&oi->map_mu);
    text = known ? NULL : malloc(VFS_PATH_MAX);
    if (text != NULL && vfs_path_text(&root, &f->path, text, VFS_PATH_MAX) >= 0)
        exact = strdup(text);
    free(text);
    mutex_lock(&oi->map_mu);
    if (oi->map_path == NULL) {
        oi->map_path = exact;
        exact = NULL;
    }
    mutex_unlock(&oi->map_mu);
    free(exact);
}

int ovl_mmap(struct file *f, struct file *real, int prot, int flags, struct mappable **out)
{
    struct ovl_inode *oi = ovl_inode(f->inode);
    struct dentry *up = ovl_upper(oi);
    int k = up != NULL && real->inode == up->inode;
    struct mappable *m = NULL;
    int r = real->ops->mmap != NULL ? real->ops->mmap(real, prot, flags, &m) : -ENODEV;

    if (r != 0 || m == NULL) {
        *out = NULL;
        return r;
    }
    map_name(oi, f);
    (void)inode_get(&oi->inode);
    mutex_lock(&oi->map_mu);
    oi->map_users++;
    if (atomic_load(&oi->real_map[k]) == NULL) {
        atomic_store_explicit(&oi->real_map[k], m, memory_order_release);
        m = NULL;
    }
    mutex_unlock(&oi->map_mu);
    if (m != NULL)
        m->ops->put(m);
    *out = &oi->map;
    return 0;
}

void ovl_map_moved(struct ovl_inode *oi, struct file *file)
{
    struct mappable *m = NULL;
    bool mapped;

    mutex_lock(&oi->map_mu);
    mapped = oi->map_users > 0;
    mutex_unlock(&oi->map_mu);
    if (!mapped || file->ops->mmap == NULL ||
        file->ops->mmap(file, PROT_READ, MAP_SHARED, &m) != 0 || m == NULL)
        return;
    mutex_lock(&oi->map_mu);
    if (oi->map_users > 0 && atomic_load(&oi->real_map[1]) == NULL) {
        atomic_store_explicit(&oi->real_map[1], m, memory_order_release);
        m = NULL;
    }
    mutex_unlock(&oi->map_mu);
    if (m != NULL)
        m->ops->put(m);
    mappable_invalidate(&oi->map, 0, UINT64_MAX);
}

void ovl_map_cut(struct ovl_inode *oi, uint64_t off, uint64_t size)
{
    mappable_invalidate(&oi->map, off, size);
}
