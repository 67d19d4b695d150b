/* The names in /dev: OCI runtime specification, "Default Devices" and "Dev symbolic links". */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "sentry/fs/dev/dev.h"

static const struct dev_node {
    const char *name;
    uint32_t mode;
    unsigned major, minor;
    const char *target; /* of a symlink */
} nodes[] = {
    {"null", S_IFCHR | 0666, 1, 3, NULL},         {"zero", S_IFCHR | 0666, 1, 5, NULL},
    {"full", S_IFCHR | 0666, 1, 7, NULL},         {"random", S_IFCHR | 0666, 1, 8, NULL},
    {"urandom", S_IFCHR | 0666, 1, 9, NULL},      {"tty", S_IFCHR | 0666, 5, 0, NULL},
    {"pts", S_IFDIR | 0755, 0, 0, NULL},          {"shm", S_IFDIR | 01777, 0, 0, NULL},
    {"ptmx", S_IFLNK, 0, 0, "pts/ptmx"},          {"fd", S_IFLNK, 0, 0, "/proc/self/fd"},
    {"stdin", S_IFLNK, 0, 0, "/proc/self/fd/0"},  {"stdout", S_IFLNK, 0, 0, "/proc/self/fd/1"},
    {"stderr", S_IFLNK, 0, 0, "/proc/self/fd/2"},
};

static int populate_own(const struct vfs_caller *c, const char *path, const struct cred *owner)
{
    const struct vfs_setattr own = {
        .valid = VFS_SET_UID | VFS_SET_GID, .uid = owner->fsuid, .gid = owner->fsgid};
    struct vpath p;
    int r = vfs_lookup(c, NULL, path, 0, &p);

    if (r == 0) {
        r = vfs_setattr(c, &p, &own);
        vpath_put(&p);
    }
    return r;
}

static int populate_one(const struct vfs_caller *c, const char *path, const struct dev_node *n,
                        const struct cred *owner)
{
    struct vpath p;
    int r = vfs_lookup(c, NULL, path, 0, &p);

    if (r == 0) {
        vpath_put(&p);
        return 0;
    }
    if (r != -ENOENT)
        return r;
    if (S_ISCHR(n->mode))
        return vfs_mknod(c, NULL, path, n->mode, makedev(n->major, n->minor));
    r = S_ISDIR(n->mode) ? vfs_mkdir(c, NULL, path, n->mode & 07777)
                         : vfs_symlink(c, n->target, NULL, path);
    return r != 0 || owner->fsuid == c->cred->fsuid ? r : populate_own(c, path, owner);
}

int dev_populate(const struct vfs_caller *c, const char *dir, const struct cred *owner)
{
    char path[256];
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(nodes); i++) {
        int n = snprintf(path, sizeof(path), "%s/%s", dir, nodes[i].name);
        r = n < 0 || (size_t)n >= sizeof(path) ? -ENAMETOOLONG
                                               : populate_one(c, path, &nodes[i], owner);
    }
    return r;
}
