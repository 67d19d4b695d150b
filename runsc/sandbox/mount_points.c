/* Places that mounts go to, made in a root file system that the container itself may not write to.
 * What lies in it is the image's, symlinks included: every name is resolved with the root file
 * system as its root (openat2(2), RESOLVE_IN_ROOT). */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "runsc/sandbox/mounts.h"

static int open_in_root(int root, const char *path)
{
    const struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                                 .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    long fd = syscall(SYS_openat2, root, path, &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

static bool has_dot_dot(const char *path)
{
    for (const char *p = strstr(path, ".."); p; p = strstr(p + 1, ".."))
        if ((p == path || p[-1] == '/') && (p[2] == '/' || p[2] == '\0'))
            return true;
    return false;
}

static int make_one(int parent, const char *name, bool dir)
{
    if (dir)
        return mkdirat(parent, name, 0755) ? -errno : 0;
    int fd = openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

/* path is changed while it is walked, and whole again at the end. dir: what its last name is to be;
 * the others are directories. */
static int make_point(int root, char *path, bool dir)
{
    int parent = dup(root), r = parent < 0 ? -errno : 0;
    char *name = path + strspn(path, "/");

    while (r == 0 && *name) {
        size_t len = strcspn(name, "/");
        char *end = name + len, after = *end;
        char *next = end + strspn(end, "/");
        *end = '\0';
        int fd = open_in_root(root, path);
        if (fd == -ENOENT) {
            r = make_one(parent, name, *next || dir);
            fd = r ? r : open_in_root(root, path);
        }
        *end = after;
        close(parent);
        parent = fd;
        r = fd < 0 ? fd : 0;
        name = next;
    }
    if (parent >= 0)
        close(parent);
    return r;
}

/* Whether an earlier mount covers the place: then it is not in the root file system. */
static bool covered(const struct oci_spec *spec, size_t index)
{
    const char *path = spec->mounts[index].destination;

    for (size_t i = 0; i < index; i++) {
        const char *other = spec->mounts[i].destination;
        size_t len = strlen(other);
        if (strncmp(path, other, len) == 0 && (path[len] == '/' || path[len] == '\0'))
            return true;
    }
    return false;
}

void mounts_make_points(const struct sandbox_args *a, const struct gofer_config *cfg)
{
    const struct oci_spec *spec = a->spec;
    struct stat st;

    /* With an overlay they are made in the sandbox. Never in the host's own root. */
    if (!spec->root_readonly || a->overlay || strcmp(a->rootfs, "/") == 0)
        return;
    int root = open(a->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return;
    for (size_t i = 0; i < spec->mount_count; i++) {
        int export = mounts_export(spec, i);
        bool dir = export < 0 || stat(cfg->exports[export].path, &st) || S_ISDIR(st.st_mode);
        char *path = strdup(spec->mounts[i].destination);
        if (path && !covered(spec, i) && !has_dot_dot(path)) {
            int r = make_point(root, path, dir);
            if (r)
                log_debug("mounts[%zu]: %s: %s", i, path, strerror(-r));
        }
        free(path);
    }
    close(root);
}
