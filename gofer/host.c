/* Every host call that resolves something. A name is one component, resolved below a directory
 * that is held open; a descriptor is reached again through /proc/self/fd, whose names we make
 * ourselves. openat2(2), proc(5). */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "gofer/server_priv.h"

static int open_within(int dir, const char *name, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    const struct open_how how = {
        .flags = flags | O_CLOEXEC | O_NOFOLLOW,
        .mode = mode,
        .resolve = resolve | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
    };
    long fd;

    /* A rename elsewhere on the host at the wrong moment gives EAGAIN: a few times at most. */
    for (int i = 0; i < 16; i++) {
        fd = syscall(SYS_openat2, dir, name, &how, sizeof(how));
        if (fd >= 0)
            return (int)fd;
        if (errno != EAGAIN && errno != EINTR)
            break;
    }
    return errno == EMFILE ? -ENFILE : -errno;
}

static int open_beneath(int dir, const char *name, uint64_t flags, uint64_t mode)
{
    return open_within(dir, name, flags, mode, RESOLVE_BENEATH);
}

int host_open_parent(int dir)
{
    return open_within(dir, "..", O_PATH | O_DIRECTORY, 0, RESOLVE_NO_XDEV);
}

int host_open_child(int dir, const char *name, int extra_flags)
{
    return open_beneath(dir, name, (uint64_t)(O_PATH | extra_flags), 0);
}

int host_create_child(int dir, const char *name)
{
    return open_beneath(dir, name, O_RDWR | O_CREAT | O_EXCL, 0600);
}

int host_tmpfile(int dir)
{
    return open_beneath(dir, ".", O_RDWR | O_TMPFILE, 0600);
}

#define FD_NAME_SIZE 12

static const char *fd_name(int fd, char buf[FD_NAME_SIZE])
{
    snprintf(buf, FD_NAME_SIZE, "%d", fd);
    return buf;
}

int host_reopen(const struct gof_server *s, int fd, int flags)
{
    char name[FD_NAME_SIZE];
    int r;

    do
        r = openat(s->proc_fd, fd_name(fd, name), flags | O_CLOEXEC | O_NOCTTY);
    while (r < 0 && errno == EINTR);
    if (r >= 0)
        return r;
    return errno == EMFILE ? -ENFILE : -errno;
}

int host_chmod(const struct gof_server *s, int fd, uint32_t mode)
{
    char name[FD_NAME_SIZE];

    /* The raw call: glibc's wrapper may look at /proc by a path of its own. */
    long r = syscall(SYS_fchmodat, s->proc_fd, fd_name(fd, name), mode & 07777);
    return r ? -errno : 0;
}

int host_link(const struct gof_server *s, int fd, int dir, const char *name)
{
    char from[FD_NAME_SIZE];

    return linkat(s->proc_fd, fd_name(fd, from), dir, name, AT_SYMLINK_FOLLOW) ? -errno : 0;
}

static struct gof_time time_of(const struct statx_timestamp *t)
{
    return (struct gof_time){.sec = t->tv_sec, .nsec = t->tv_nsec};
}

int host_stat(int fd, struct gof_attr *out)
{
    struct statx st;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &st))
        return -errno;
    *out = (struct gof_attr){
        .dev = makedev(st.stx_dev_major, st.stx_dev_minor),
        .ino = st.stx_ino,
        .rdev = makedev(st.stx_rdev_major, st.stx_rdev_minor),
        .size = MIN(st.stx_size, (uint64_t)INT64_MAX),
        .blocks = st.stx_blocks,
        .blksize = st.stx_blksize,
        .mode = st.stx_mode,
        .nlink = st.stx_nlink,
        .uid = st.stx_uid,
        .gid = st.stx_gid,
        .atime = time_of(&st.stx_atime),
        .mtime = time_of(&st.stx_mtime),
        .ctime = time_of(&st.stx_ctime),
    };
    if (st.stx_mask & STATX_BTIME)
        out->btime = time_of(&st.stx_btime);
    return 0;
}

int host_connect(const struct gof_server *s, int fd, int type)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int r;

    snprintf(a.sun_path, sizeof(a.sun_path), "%s%d", s->watches.fd_path, fd);
    int sock = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sock < 0)
        return errno == EMFILE ? -ENFILE : -errno;
    do
        r = connect(sock, (const struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
    while (r == -EINTR);
    if (r == 0)
        return sock;
    close(sock);
    return r;
}
