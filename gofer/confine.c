#include "gofer/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gofer/gofer.h"

static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int r = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return r;
}

/* user_namespaces(7): whoever is nobody special may map itself, and only itself. */
static int map_own_id(uid_t uid, gid_t gid, const char **step)
{
    char map[64];

    /* A process that has changed its ids may not even write its own files in /proc. */
    *step = "dumpable";
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
        return -errno;
    *step = "write setgroups";
    int r = write_text("/proc/self/setgroups", "deny");
    if (r)
        return r;
    *step = "write gid_map";
    snprintf(map, sizeof(map), "%u %u 1\n", gid, gid);
    r = write_text("/proc/self/gid_map", map);
    if (r)
        return r;
    *step = "write uid_map";
    snprintf(map, sizeof(map), "%u %u 1\n", uid, uid);
    return write_text("/proc/self/uid_map", map);
}

#define GOFER_NAMESPACES (CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

int gofer_enter_namespaces(int peer_fd)
{
    return setns(peer_fd, GOFER_NAMESPACES) ? -errno : 0;
}

int gofer_own_namespaces(bool *out_one_id, const char **step)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    int flags = GOFER_NAMESPACES;

    *out_one_id = uid != 0;
    *step = "create namespaces";
    if (unshare(uid ? flags | CLONE_NEWUSER : flags))
        return -errno;
    if (uid) {
        int r = map_own_id(uid, gid, step);
        if (r)
            return r;
    }
    /* What the host mounts later is not for us, and what we mount not for the host. */
    *step = "make mounts private";
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ? -errno : 0;
}

/* A copy of the mount at path, attached nowhere. open_tree(2). */
static int clone_tree(const char *path, bool recursive)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0u);
    long fd = syscall(SYS_open_tree, AT_FDCWD, path, flags);

    return fd < 0 ? -errno : (int)fd;
}

/* What the host mounts later does not appear in it. */
static int set_tree_attr(int fd, uint64_t attr)
{
    struct mount_attr a = {.attr_set = attr, .propagation = MS_PRIVATE};

    return syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &a, sizeof(a)) ? -errno
                                                                                           : 0;
}

int gofer_open_export(const struct gofer_export *e, int *out_fd, const char **step)
{
    *step = "open an export";
    int fd = clone_tree(e->path, e->recursive);
    /* In a user namespace of ours, mounts below are locked to what they cover. */
    if (fd == -EINVAL && !e->recursive)
        fd = clone_tree(e->path, true);
    if (fd < 0)
        return fd;
    *step = "restrict an export";
    int r = set_tree_attr(fd, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                                  (e->readonly ? MOUNT_ATTR_RDONLY : 0u));
    if (r) {
        close(fd);
        return r;
    }
    *out_fd = fd;
    return 0;
}

int gofer_open_proc(int *out_fd, const char **step)
{
    *step = "open /proc/self/fd";
    int fd = clone_tree("/proc/self/fd", false);
    if (fd < 0)
        return fd;
    *step = "move /proc/self/fd";
    int r = dup3(fd, GOFER_PROC_FD, O_CLOEXEC) < 0 ? -errno : 0;
    close(fd);
    if (r == 0)
        *out_fd = GOFER_PROC_FD;
    return r;
}

int gofer_empty_root(const char **step)
{
    *step = "mount the empty root";
    if (mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,mode=555"))
        return -errno;
    *step = "enter the empty root";
    if (chdir("/tmp"))
        return -errno;
    *step = "pivot_root";
    if (syscall(SYS_pivot_root, ".", "."))
        return -errno;
    *step = "detach the old root";
    if (umount2(".", MNT_DETACH))
        return -errno;
    *step = "make the empty root read-only";
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              NULL))
        return -errno;
    *step = "chdir /";
    return chdir("/") ? -errno : 0;
}

int gofer_rlimits(size_t *out_nofile, const char **step)
{
    const struct rlimit none = {0, 0};
    struct rlimit nofile;

    *step = "setrlimit";
    if (setrlimit(RLIMIT_CORE, &none) || getrlimit(RLIMIT_NOFILE, &nofile))
        return -errno;
    /* A file the guest knows of is a descriptor here. More than the hard limit takes a privilege.
     */
    const struct rlimit wanted = {GOFER_NOFILE, GOFER_NOFILE};
    if (nofile.rlim_max >= GOFER_NOFILE || setrlimit(RLIMIT_NOFILE, &wanted)) {
        nofile.rlim_cur = nofile.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &nofile))
            return -errno;
    } else {
        nofile = wanted;
    }
    *out_nofile = (size_t)nofile.rlim_cur;
    return 0;
}

static const int kept_caps[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP};

static bool cap_kept(int cap)
{
    for (size_t i = 0; i < ARRAY_SIZE(kept_caps); i++)
        if (kept_caps[i] == cap)
            return true;
    return false;
}

static int set_caps(void)
{
    struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2];

    /* No more than we have: a caller may have been restricted itself. */
    if (syscall(SYS_capget, &hdr, data))
        return -errno;
    uint64_t have = (uint64_t)data[1].permitted << 32 | data[0].permitted, keep = 0;
    for (size_t i = 0; i < ARRAY_SIZE(kept_caps); i++)
        keep |= have & 1ull << kept_caps[i];
    memset(data, 0, sizeof(data));
    for (size_t i = 0; i < 2; i++)
        data[i].permitted = data[i].effective = (uint32_t)(keep >> (32 * i));
    return syscall(SYS_capset, &hdr, data) ? -errno : 0;
}

int gofer_drop_capabilities(const char **step)
{
    *step = "clear ambient capabilities";
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        return -errno;
    *step = "drop the bounding set";
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (!cap_kept(cap) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
            return -errno;
    *step = "lock securebits";
    if (prctl(PR_SET_SECUREBITS,
              SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                  SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                  SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
              0, 0, 0))
        return -errno;
    *step = "capset";
    int r = set_caps();
    if (r)
        return r;
    *step = "no_new_privs";
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -errno;
    *step = "dumpable";
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ? -errno : 0;
}
