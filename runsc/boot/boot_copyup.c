/* "tmpcopyup": a new file system begins with copies of what its place held. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runsc/boot/boot_priv.h"

/* An image's directory: more would be no place for a file system in memory. */
#define COPYUP_NAMES_MAX 100000u
#define COPYUP_PIECE (64u << 10)

/* Names below the place still to be copied, parents before their children. */
struct copyup_name {
    struct list node;
    char path[];
};

struct copyup {
    const struct vfs_caller *c;
    const struct vpath *from, *to;
    struct list names;
    const char *dir; /* whose entries are read */
    unsigned count;
};

static int copyup_add(struct copyup *u, const char *dir, const char *name, size_t len)
{
    const size_t size = sizeof(struct copyup_name) + strlen(dir) + 1 + len + 1;
    struct copyup_name *n;

    if (u->count++ >= COPYUP_NAMES_MAX || size > sizeof(*n) + VFS_PATH_MAX)
        return -E2BIG;
    n = malloc(size);
    if (n == NULL)
        return -ENOMEM;
    (void)snprintf(n->path, size - sizeof(*n), "%s%s%.*s", dir, dir[0] != '\0' ? "/" : "", (int)len,
                   name);
    list_add_tail(&n->node, &u->names);
    return 0;
}

static int copyup_entry(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype,
                        uint64_t next_off)
{
    struct copyup *u = arg;

    (void)ino, (void)dtype, (void)next_off;
    if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
        return 0;
    return copyup_add(u, u->dir, name, len);
}

/* path "": the place itself. */
static int copyup_open(const struct copyup *u, const struct vpath *base, const char *path,
                       uint32_t flags, struct file **out)
{
    if (path[0] == '\0')
        return vfs_open_path(u->c, base, flags, out);
    return vfs_open(u->c, base, path, flags | O_NOFOLLOW, 0600, 0, out);
}

static int copyup_list(struct copyup *u, const char *path)
{
    struct file *f;
    int r = copyup_open(u, u->from, path, O_RDONLY | O_DIRECTORY, &f);

    if (r != 0)
        return r;
    u->dir = path;
    r = vfs_readdir(f, copyup_entry, u);
    file_put(f);
    return r < 0 ? r : 0;
}

static int copyup_bytes(struct file *in, struct file *out, const struct vfs_caller *c)
{
    char *buf = malloc(COPYUP_PIECE);
    int64_t n = buf != NULL ? 1 : -ENOMEM;

    for (int64_t off = 0; n > 0; off += n) {
        struct uio w;
        n = vfs_pread_kernel(in, buf, COPYUP_PIECE, off);
        if (n <= 0)
            break;
        uio_init_kernel(&w, buf, (size_t)n);
        int64_t put = vfs_write(out, &w, -1, 0, c);
        if (put != n)
            n = put < 0 ? put : -ENOSPC;
    }
    free(buf);
    return n < 0 ? (int)n : 0;
}

static int copyup_file(const struct copyup *u, const char *path)
{
    struct file *in, *out;
    int r = copyup_open(u, u->from, path, O_RDONLY, &in);

    if (r != 0)
        return r;
    r = copyup_open(u, u->to, path, O_WRONLY | O_CREAT | O_EXCL, &out);
    if (r == 0) {
        r = copyup_bytes(in, out, u->c);
        file_put(out);
    }
    file_put(in);
    return r;
}

static int copyup_link(const struct copyup *u, const struct vpath *p, const char *path)
{
    char *text = malloc(VFS_PATH_MAX);
    int64_t n = text != NULL ? vfs_readlink(u->c, p, text, VFS_PATH_MAX) : -ENOMEM;
    int r = n < 0 ? (int)n : 0;

    if (r == 0)
        r = n < VFS_PATH_MAX ? vfs_symlink(u->c, text, u->to, path) : -ENAMETOOLONG;
    free(text);
    return r;
}

static int copyup_attrs(const struct copyup *u, const char *path, const struct vfs_attr *a)
{
    struct vfs_setattr set = {.valid = VFS_SET_UID | VFS_SET_GID,
                              .mode = a->mode & 07777,
                              .uid = a->uid,
                              .gid = a->gid,
                              .atime = a->atime,
                              .mtime = a->mtime};
    struct vpath p;
    int r = vfs_lookup(u->c, u->to, path, path[0] == '\0' ? VFS_EMPTY_PATH : 0, &p);

    if (r != 0)
        return r;
    r = vfs_setattr(u->c, &p, &set);
    set.valid = VFS_SET_ATIME | VFS_SET_MTIME | (S_ISLNK(a->mode) ? 0 : VFS_SET_MODE);
    if (r == 0)
        r = vfs_setattr(u->c, &p, &set);
    vpath_put(&p);
    return r;
}

static int copyup_one(struct copyup *u, const char *path)
{
    struct vfs_attr a;
    struct vpath p;
    int r = vfs_lookup(u->c, u->from, path, 0, &p);

    if (r != 0)
        return r;
    r = vfs_getattr(&p, &a);
    if (r != 0)
        goto out_put;
    if (S_ISDIR(a.mode)) {
        r = vfs_mkdir(u->c, u->to, path, 0700);
        if (r == 0)
            r = copyup_list(u, path);
    } else if (S_ISLNK(a.mode)) {
        r = copyup_link(u, &p, path);
    } else if (S_ISREG(a.mode)) {
        r = copyup_file(u, path);
    } else {
        r = vfs_mknod(u->c, u->to, path, a.mode, a.rdev);
    }
    if (r == 0)
        r = copyup_attrs(u, path, &a);
out_put:
    vpath_put(&p);
    return r;
}

int boot_copyup(const struct vfs_caller *c, const struct vpath *from, const struct vpath *to)
{
    struct copyup u = {.c = c, .from = from, .to = to};

    list_init(&u.names);
    int r = copyup_list(&u, "");
    while (!list_empty(&u.names)) {
        struct copyup_name *n = list_first_entry(&u.names, struct copyup_name, node);
        list_del(&n->node);
        if (r == 0)
            r = copyup_one(&u, n->path);
        free(n);
    }
    return r;
}
