/* Copying up: what lower has becomes part of upper before it is changed. Ids, mode, times, extended
 * attributes and holes are kept; the new file appears complete. */
#include <linux/fs.h>
#include <stdio.h>
#include <unistd.h>

#include "sentry/fs/overlay/overlay_priv.h"

#define COPY_SIZE (256u * 1024)

struct ovl_copy {
    struct ovl_super *os;
    struct ovl_inode *oi;
    struct vfs_caller c;
    uint64_t size; /* of a regular file, what is wanted of it */
    struct ovl_real from;
    struct file *file; /* owned: upper's, open */
};

/* ---- attributes ---- */

static int copy_xattr(const struct ovl_copy *k, struct inode *to, const char *name)
{
    struct inode *from = k->from.d->inode;
    int64_t n = from->ops->getxattr(from, name, NULL, 0);
    char *value;

    if (n == -ENODATA || n == -EOPNOTSUPP)
        return 0;
    if (n < 0 || n > LIMIT_XATTR_SIZE)
        return n < 0 ? (int)n : -E2BIG;
    value = malloc((size_t)n + 1);
    if (value == NULL)
        return -ENOMEM;
    n = from->ops->getxattr(from, name, value, (size_t)n);
    int r = n < 0                       ? (int)n
            : to->ops->setxattr != NULL ? to->ops->setxattr(to, name, value, (size_t)n, 0)
                                        : -EOPNOTSUPP;
    free(value);
    /* An upper that has none of that kind does without, as in Linux. */
    return r == -EOPNOTSUPP ? 0 : r;
}

static int copy_xattrs(const struct ovl_copy *k, struct inode *to)
{
    struct inode *from = k->from.d->inode;
    int64_t n = from->ops->listxattr != NULL ? from->ops->listxattr(from, NULL, 0) : 0;
    int r = 0;

    if (n <= 0 || from->ops->getxattr == NULL)
        return n == -EOPNOTSUPP ? 0 : (int)n;
    if (n > LIMIT_XATTR_SIZE)
        return -E2BIG;
    size_t room = (size_t)n;
    char *names = malloc(room + 1);
    if (names == NULL)
        return -ENOMEM;
    n = from->ops->listxattr(from, names, room);
    names[n > 0 ? n : 0] = '\0';
    for (int64_t at = 0; r == 0 && at < n; at += (int64_t)strlen(names + at) + 1)
        if (!ovl_is_mark(k->os, names + at))
            r = copy_xattr(k, to, names + at);
    free(names);
    return r != 0 ? r : n < 0 ? (int)n : 0;
}

/* So that the number stays when the inode has left the memory. */
static int copy_origin(const struct ovl_copy *k, struct inode *to)
{
    unsigned char v[12] = "RWo1";
    const uint64_t ino = k->oi->inode.ino;

    if (S_ISDIR(to->mode) || (!k->os->is_root && k->from.d->inode->nlink > 1))
        return 0;
    memcpy(v + 4, &ino, sizeof(ino));
    int r = ovl_mark_set(k->os, to, "origin", v, sizeof(v));
    return r == -EOPNOTSUPP || r == -EPERM ? 0 : r;
}

static int copy_attributes(const struct ovl_copy *k, struct inode *to)
{
    const struct vpath p = {k->from.mnt, k->from.d};
    struct vfs_attr a;
    int r = vfs_getattr(&p, &a);

    if (r == 0)
        r = copy_xattrs(k, to);
    if (r == 0)
        r = copy_origin(k, to);
    if (r != 0)
        return r;
    struct vfs_setattr s = {
        .valid = VFS_SET_UID | VFS_SET_GID | VFS_SET_ATIME | VFS_SET_MTIME,
        .uid = a.uid,
        .gid = a.gid,
        .mode = a.mode & 07777,
        .atime = a.atime,
        .mtime = a.mtime,
    };
    if (!S_ISLNK(to->mode))
        s.valid |= VFS_SET_MODE;
    return to->ops->setattr != NULL ? to->ops->setattr(to, &s) : -EPERM;
}

/* ---- bytes ---- */

static int copy_write(struct file *to, char *buf, size_t size, int64_t at,
                      const struct vfs_caller *c)
{
    for (size_t done = 0; done < size;) {
        struct uio u;
        int64_t pos = at + (int64_t)done;
        uio_init_kernel(&u, buf + done, size - done);
        int64_t n = to->ops->write(to, &u, &pos, c);
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        done += (size_t)n;
    }
    return 0;
}

/* First byte of data from at on; end when there is none, at when nobody knows. */
static int64_t copy_next(struct file *from, int64_t at, int64_t end)
{
    int64_t r = from->ops->seek != NULL ? from->ops->seek(from, at, SEEK_DATA) : -EINVAL;

    if (r == -ENXIO)
        return end;
    return r < 0 ? at : r;
}

static int copy_range(struct file *from, struct file *to, int64_t end, const struct vfs_caller *c)
{
    char *buf = malloc(COPY_SIZE);
    int r = buf != NULL ? 0 : -ENOMEM;

    for (int64_t at = 0; r == 0 && (at = copy_next(from, at, end)) < end;) {
        int64_t n = vfs_pread_kernel(from, buf, MIN((uint64_t)(end - at), (uint64_t)COPY_SIZE), at);
        if (n <= 0) {
            r = (int)n;
            break;
        }
        r = copy_write(to, buf, (size_t)n, at, c);
        at += n;
    }
    free(buf);
    return r;
}

static int copy_size(struct inode *to, uint64_t size)
{
    const struct vfs_setattr a = {.valid = VFS_SET_SIZE, .size = size};

    return to->ops->setattr(to, &a);
}

static int copy_bytes(const struct ovl_copy *k, struct inode *to)
{
    uint64_t size = MIN(k->size, (uint64_t)k->from.d->inode->size);
    struct file *from;
    int r = layer_open(k->from.mnt, k->from.d, O_RDONLY | O_NOATIME, &k->c, &from);

    if (r != 0)
        return r;
    if (size > 0)
        r = k->file->ops->write != NULL && from->ops->read != NULL
                ? copy_range(from, k->file, (int64_t)size, &k->c)
                : -EIO;
    if (r == 0 && to->size != size)
        r = copy_size(to, size);
    file_put(from);
    return r;
}

/* Bytes, then attributes, since writing changes times. */
static int copy_content(struct ovl_copy *k, struct dentry *to)
{
    int r = layer_open(k->os->layers[OVL_UPPER].mnt, to, O_RDWR, &k->c, &k->file);

    if (r == 0)
        r = copy_bytes(k, to->inode);
    return r != 0 ? r : copy_attributes(k, to->inode);
}

/* ---- into the tree ---- */

static int copy_fill(struct inode *i, void *arg)
{
    const struct ovl_copy *k = arg;
    int r = copy_attributes(k, i);

    if (r == 0)
        ovl_hash_upper(k->oi, i);
    return r;
}

/* Everything but regular files, and those where there are no nameless ones: made in place. */
static int copy_in_place(struct ovl_copy *k, struct dentry *dir, const char *name,
                         struct dentry **out)
{
    struct inode *from = k->from.d->inode;
    char *target = NULL;
    int r = 0;

    if (S_ISLNK(from->mode)) {
        target = malloc(VFS_PATH_MAX);
        int64_t n =
            target != NULL ? from->ops->readlink(from, &k->c, target, VFS_PATH_MAX) : -ENOMEM;
        r = n < 0 ? (int)n : 0;
    }
    if (r == 0)
        r = layer_create_locked(dir, name, from->mode, from->rdev, target, &k->c, copy_fill, k,
                                out);
    if (r != 0)
        ovl_unhash_upper(k->oi);
    free(target);
    return r;
}

/* The number of what was found below is shown here: whoever lists the directory must look. */
static void copy_mark_impure(struct ovl_super *os, struct ovl_inode *parent, struct dentry *up)
{
    if (atomic_exchange(&parent->impure, true))
        return;
    /* Without it a listing shows other numbers than stat: no reason to fail. */
    if (ovl_mark_set(os, up->inode, "impure", "y", 1) != 0)
        atomic_store(&parent->impure, false);
}

/* Nothing of that name may be in upper: somebody else works there. */
static int copy_check_free(struct dentry *dir, const char *name)
{
    struct dentry *d;
    int r = layer_lookup_locked(dir, name, true, &d);

    if (r == 0)
        dentry_put(d);
    return r == 0 ? -ESTALE : r == -ENOENT ? 0 : r;
}

static int copy_link(struct ovl_copy *k, struct dentry *dir, const char *name,
                     struct dentry *nameless, struct dentry **out)
{
    ovl_hash_upper(k->oi, nameless->inode);
    layer_lock(dir);
    int r = copy_check_free(dir, name);
    if (r == 0)
        r = layer_link_locked(dir, name, nameless->inode, out);
    layer_unlock(dir);
    if (r != 0)
        ovl_unhash_upper(k->oi);
    return r;
}

static int copy_regular(struct ovl_copy *k, struct dentry *dir, const char *name, bool gone,
                        struct dentry **out)
{
    struct dentry *nameless;
    int r = layer_tmpfile(k->os->work, S_IFREG | 0600, &k->c, &nameless);

    if (r != 0)
        return r;
    r = copy_content(k, nameless);
    if (r == 0 && gone) {
        ovl_hash_upper(k->oi, nameless->inode);
        *out = dentry_get(nameless);
    } else if (r == 0) {
        r = copy_link(k, dir, name, nameless, out);
    }
    dentry_put(nameless);
    return r;
}

/* Without nameless files: the bytes are copied under the lock of the directory. */
static int copy_regular_in_place(struct ovl_copy *k, struct dentry *dir, const char *name,
                                 struct dentry **out)
{
    struct dentry *d;
    int r = layer_create_locked(dir, name, S_IFREG | 0600, 0, NULL, &k->c, NULL, NULL, &d);

    if (r != 0)
        return r;
    ovl_hash_upper(k->oi, d->inode);
    r = copy_content(k, d);
    if (r != 0) {
        ovl_unhash_upper(k->oi);
        int undone = layer_remove_locked(dir, d);
        dentry_put(d);
        return undone != 0 ? -EIO : r;
    }
    *out = d;
    return 0;
}

static int copy_node_locked(struct ovl_copy *k, struct dentry *dir, const char *name,
                            struct dentry **out)
{
    int r = copy_check_free(dir, name);

    if (r != 0)
        return r;
    return S_ISREG(k->oi->inode.mode) ? copy_regular_in_place(k, dir, name, out)
                                      : copy_in_place(k, dir, name, out);
}

static int copy_node(struct ovl_copy *k, struct dentry *dir, const char *name, struct dentry **out)
{
    layer_lock(dir);
    int r = copy_node_locked(k, dir, name, out);
    layer_unlock(dir);
    return r;
}

/* What has lost its name is made under another one, which goes at once. */
static int copy_gone(struct ovl_copy *k, struct dentry **out)
{
    struct dentry *dir = k->os->work;
    char name[32];

    (void)snprintf(name, sizeof(name), "#%lu", (unsigned long)atomic_fetch_add(&k->os->serial, 1));
    layer_lock(dir);
    int r = copy_node_locked(k, dir, name, out);
    if (r == 0)
        r = layer_remove_locked(dir, *out);
    layer_unlock(dir);
    return r;
}

static int copy_up_as(struct ovl_copy *k, struct ovl_inode *parent, const char *name, bool gone,
                      struct dentry **out)
{
    struct dentry *dir = parent != NULL ? ovl_upper(parent) : NULL;
    int r = -EOPNOTSUPP;

    if (dir == NULL)
        gone = true;
    if (S_ISREG(k->oi->inode.mode))
        r = copy_regular(k, dir, name, gone, out);
    if (r == -EOPNOTSUPP)
        r = gone ? copy_gone(k, out) : copy_node(k, dir, name, out);
    if (r == 0 && !gone)
        copy_mark_impure(k->os, parent, dir);
    return r;
}

/* up_mu held; parent is part of upper. */
static int copy_up_locked(struct ovl_inode *oi, struct ovl_inode *parent, uint64_t size)
{
    struct ovl_super *os = ovl_super_of(oi);
    struct ovl_copy k = {
        .os = os, .oi = oi, .c = ovl_caller(os), .size = size, .from = ovl_real(oi)};
    char name[VFS_NAME_MAX + 1];
    struct dentry *up;

    mutex_lock(&os->mu);
    bool gone = oi->gone;
    (void)snprintf(name, sizeof(name), "%s", oi->name != NULL ? oi->name : "");
    mutex_unlock(&os->mu);
    int nlink = (int)k.from.d->inode->nlink;
    int r = copy_up_as(&k, parent, name, gone, &up);
    if (r == 0) {
        atomic_store(&oi->upper, up);
        ovl_copy_attr(oi);
        /* The other names are lower's still. */
        ovl_count_links(oi, gone ? nlink : nlink - 1);
        if (k.file != NULL)
            ovl_map_moved(oi, k.file);
    }
    if (k.file != NULL)
        file_put(k.file);
    return r;
}

static int copy_up_one(struct ovl_inode *oi, struct ovl_inode *parent, uint64_t size)
{
    int r = 0;

    mutex_lock_nested(&oi->up_mu);
    if (ovl_upper(oi) == NULL)
        r = copy_up_locked(oi, parent, size);
    mutex_unlock(&oi->up_mu);
    return r;
}

/* From the topmost directory that is not in upper down to oi, one at a time. */
int ovl_copy_up(struct ovl_inode *oi, uint64_t size)
{
    struct ovl_super *os = ovl_super_of(oi);
    int r = 0;

    if (os->work == NULL && ovl_upper(oi) == NULL)
        return -EROFS;
    while (r == 0 && ovl_upper(oi) == NULL) {
        struct ovl_inode *n = ovl_inode(inode_get(&oi->inode)), *p = ovl_parent(n);
        while (p != NULL && ovl_upper(p) == NULL) {
            inode_put(&n->inode);
            n = p;
            p = ovl_parent(n);
        }
        r = copy_up_one(n, p, n == oi ? size : UINT64_MAX);
        if (p != NULL)
            inode_put(&p->inode);
        inode_put(&n->inode);
    }
    return r;
}

int ovl_copy_up_name(struct ovl_inode *dir, const char *name, struct ovl_inode *oi,
                     struct dentry **out)
{
    struct dentry *up = ovl_upper(dir);

    layer_lock(up);
    int r = layer_lookup_locked(up, name, true, out);
    if (r == -ENOENT) {
        r = layer_link_locked(up, name, ovl_upper(oi)->inode, out);
        if (r == 0)
            ovl_count_links(oi, -1);
    }
    layer_unlock(up);
    if (r != 0)
        return r;
    if ((*out)->inode == ovl_upper(oi)->inode)
        return 0;
    dentry_put(*out);
    return -ESTALE;
}
