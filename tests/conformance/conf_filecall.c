/* Newer and rarer calls on files: openat2, pwritev2 flags, *xattrat, renameat2. */
#include "harness.h"

#include <linux/falloc.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/quota.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>

CONF_FAMILY("filecall");

#define SYS_SETXATTRAT 463
#define SYS_GETXATTRAT 464
#define SYS_LISTXATTRAT 465
#define SYS_REMOVEXATTRAT 466
#define SYS_QUOTACTL_FD 443

struct xattr_args {
    uint64_t value;
    uint32_t size, flags;
};

/* ---- xattrs ---- */

TEST(xattrat)
{
    char buf[64];
    struct xattr_args a = {.value = (uintptr_t) "hello", .size = 5};

    conf_put("f", "x");
    int dir = OK(open(".", O_RDONLY | O_DIRECTORY));
    if (syscall(SYS_SETXATTRAT, dir, "f", 0, "user.one", &a, sizeof(a)) != 0) {
        if (errno == ENOSYS && getenv("CONFORMANCE") == NULL)
            conf_skip("the host's kernel is older");
        conf_fail(__FILE__, __LINE__, "setxattrat: errno %d", errno);
    }
    a.flags = XATTR_CREATE;
    CHECK_ERRNO(syscall(SYS_SETXATTRAT, dir, "f", 0, "user.one", &a, sizeof(a)), EEXIST);
    a.flags = 0;
    CHECK_ERRNO(syscall(SYS_SETXATTRAT, dir, "f", 0, "user.one", &a, 8), EINVAL);
    CHECK_ERRNO(syscall(SYS_SETXATTRAT, dir, "f", 0x8000, "user.one", &a, sizeof(a)), EINVAL);
    struct xattr_args g = {.value = (uintptr_t)buf, .size = sizeof(buf)};
    CHECK_EQ(syscall(SYS_GETXATTRAT, dir, "f", 0, "user.one", &g, sizeof(g)), 5);
    CHECK(memcmp(buf, "hello", 5) == 0);
    int f = OK(open("f", O_RDONLY));
    CHECK_EQ(syscall(SYS_GETXATTRAT, f, "", AT_EMPTY_PATH, "user.one", &g, sizeof(g)), 5);
    g.flags = 1;
    CHECK_ERRNO(syscall(SYS_GETXATTRAT, dir, "f", 0, "user.one", &g, sizeof(g)), EINVAL);
    CHECK_EQ(syscall(SYS_LISTXATTRAT, dir, "f", 0, buf, sizeof(buf)), 9);
    CHECK_STR(buf, "user.one");
    OK(syscall(SYS_REMOVEXATTRAT, dir, "f", 0, "user.one"));
    CHECK_ERRNO(syscall(SYS_REMOVEXATTRAT, dir, "f", 0, "user.one"), ENODATA);
}

TEST(xattr_name_spaces)
{
    char buf[256];

    conf_put("f", "x");
    CHECK_ERRNO(setxattr("f", "nospace", "v", 1, 0), EOPNOTSUPP);
    CHECK_ERRNO(setxattr("f", "bogus.name", "v", 1, 0), EOPNOTSUPP);
    CHECK_ERRNO(setxattr("f", "", "v", 1, 0), ERANGE);
    OK(setxattr("f", "user.a", "v", 1, 0));
    OK(symlink("f", "l"));
    CHECK_ERRNO(lsetxattr("l", "user.a", "v", 1, 0), EPERM);
    CHECK_ERRNO(lgetxattr("l", "user.a", buf, sizeof(buf)), ENODATA);
    OK(mkfifo("p", 0600));
    CHECK_ERRNO(setxattr("p", "user.a", "v", 1, 0), EPERM);
    NEED_ROOT();
    OK(chmod("f", 0666));
    OK(chmod(".", 0755));
    conf_become(1234);
    CHECK_ERRNO(setxattr("f", "trusted.a", "v", 1, 0), EPERM);
    CHECK_ERRNO(getxattr("f", "trusted.a", buf, sizeof(buf)), ENODATA);
    CHECK_ERRNO(setxattr("f", "security.a", "v", 1, 0), EPERM);
    OK(setxattr("f", "user.b", "v", 1, 0));
    CHECK(listxattr("f", buf, sizeof(buf)) >= 14);
}

/* ---- openat2 ---- */

static int open2(const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags, .resolve = resolve};

    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

TEST(openat2_cached)
{
    struct stat st;

    OK(mkdir("d", 0755));
    conf_put("d/f", "x");
    OK(stat("d/f", &st));
    int fd = open2("d/f", O_RDONLY, 0x20);
    CHECK(fd >= 0 || errno == EAGAIN);
    CHECK_ERRNO(open2("d/new", O_RDWR | O_CREAT, 0x20), EAGAIN);
    CHECK_ERRNO(open2("d/f", O_RDWR | O_TRUNC, 0x20), EAGAIN);
    CHECK_ERRNO(open2("d/f", O_RDONLY, 0x40), EINVAL);
}

TEST(openat2_resolve)
{
    OK(mkdir("d", 0755));
    conf_put("d/f", "x");
    OK(symlink("f", "d/l"));
    OK(symlink("../d/f", "d/up"));
    OK(symlink("/", "d/abs"));
    int dir = OK(open("d", O_RDONLY | O_DIRECTORY));
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH};
    OK(close((int)OK(syscall(SYS_openat2, dir, "l", &how, sizeof(how)))));
    CHECK_ERRNO(syscall(SYS_openat2, dir, "up", &how, sizeof(how)), EXDEV);
    CHECK_ERRNO(syscall(SYS_openat2, dir, "abs", &how, sizeof(how)), EXDEV);
    CHECK_ERRNO(syscall(SYS_openat2, dir, "..", &how, sizeof(how)), EXDEV);
    how.resolve = RESOLVE_IN_ROOT;
    CHECK_ERRNO(syscall(SYS_openat2, dir, "up", &how, sizeof(how)), ENOENT);
    OK(close((int)OK(syscall(SYS_openat2, dir, "/../f", &how, sizeof(how)))));
    how.resolve = RESOLVE_NO_SYMLINKS;
    CHECK_ERRNO(syscall(SYS_openat2, dir, "l", &how, sizeof(how)), ELOOP);
    how.resolve = RESOLVE_NO_XDEV;
    CHECK_ERRNO(syscall(SYS_openat2, AT_FDCWD, "/proc/self", &how, sizeof(how)), EXDEV);
    how.resolve = RESOLVE_NO_MAGICLINKS;
    CHECK_ERRNO(syscall(SYS_openat2, AT_FDCWD, "/proc/self/fd/0", &how, sizeof(how)), ELOOP);
    how.resolve = RESOLVE_BENEATH | RESOLVE_IN_ROOT;
    CHECK_ERRNO(syscall(SYS_openat2, dir, "f", &how, sizeof(how)), EINVAL);
}

/* ---- writes ---- */

TEST(pwritev2_append)
{
    struct iovec v = {(char[]){'a', 'b'}, 2};
    char text[16];

    conf_put("f", "12345");
    int fd = OK(open("f", O_RDWR));
    CHECK_EQ(pwritev2(fd, &v, 1, 0, RWF_APPEND), 2);
    CHECK_EQ(pwritev2(fd, &v, 1, -1, RWF_APPEND), 2);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 9);
    conf_get("f", text, sizeof(text));
    CHECK_STR(text, "12345abab");
    int ap = OK(open("f", O_WRONLY | O_APPEND));
    if (pwritev2(ap, &v, 1, 0, 0x20 /* RWF_NOAPPEND */) == 2) {
        conf_get("f", text, sizeof(text));
        CHECK_STR(text, "ab345abab");
    }
    CHECK_ERRNO(pwritev2(fd, &v, 1, 0, 0x1000), EOPNOTSUPP);
    CHECK_ERRNO(preadv2(fd, &v, 1, 0, 0x1000), EOPNOTSUPP);
    CHECK_EQ(pwritev2(fd, &v, 1, 0, RWF_SYNC | RWF_DSYNC), 2);
}

TEST(fallocate_rules)
{
    conf_put("f", "0123456789");
    int fd = OK(open("f", O_RDWR)), ap = OK(open("f", O_RDWR | O_APPEND));
    CHECK_ERRNO(fallocate(fd, 0x1000, 0, 1), EOPNOTSUPP);
    CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 1), EOPNOTSUPP);
    CHECK_ERRNO(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096), EOPNOTSUPP);
    OK(fallocate(ap, FALLOC_FL_KEEP_SIZE, 0, 100));
    OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3));
    char text[16];
    CHECK_EQ(pread(fd, text, 10, 0), 10);
    CHECK(memcmp(text,
                 "01\0\0\0"
                 "56789",
                 10) == 0);
}

/* ---- names ---- */

TEST(rename_whiteout)
{
    struct stat st;

    NEED_ROOT();
    conf_put("f", "x");
    if (renameat2(AT_FDCWD, "f", AT_FDCWD, "g", RENAME_WHITEOUT) != 0) {
        /* As on file systems that have none of it. */
        CHECK_EQ(errno, EINVAL);
        return;
    }
    OK(lstat("f", &st));
    CHECK(S_ISCHR(st.st_mode));
    CHECK_EQ(st.st_rdev, 0);
    CHECK(conf_exists("g"));
    CHECK_ERRNO(renameat2(AT_FDCWD, "g", AT_FDCWD, "h", RENAME_WHITEOUT | RENAME_EXCHANGE), EINVAL);
    OK(unlink("f"));
}

TEST(whiteouts_need_no_capability)
{
    NEED_ROOT();
    OK(chmod(".", 0777));
    conf_become(1234);
    int r = mknod("w", S_IFCHR | 0600, 0);
    CHECK(r == 0 || errno == EPERM);
    CHECK_ERRNO(mknod("n", S_IFCHR | 0600, makedev(1, 3)), EPERM);
    CHECK_ERRNO(mknod("b", S_IFBLK | 0600, makedev(7, 0)), EPERM);
}

TEST(handles_and_quotas)
{
    NEED_ROOT();
    union {
        struct file_handle h;
        char space[sizeof(struct file_handle) + 128];
    } u = {.h.handle_bytes = 128};
    int mount_id;

    conf_put("f", "x");
    CHECK_ERRNO(name_to_handle_at(AT_FDCWD, "f", &u.h, &mount_id, 0x10000000), EINVAL);
    CHECK_ERRNO(name_to_handle_at(AT_FDCWD, "absent", &u.h, &mount_id, 0), ENOENT);
    if (name_to_handle_at(AT_FDCWD, "f", &u.h, &mount_id, 0) != 0)
        CHECK_EQ(errno, EOPNOTSUPP);
    CHECK_ERRNO(quotactl(QCMD(Q_GETFMT, 7), "f", 0, NULL), EINVAL);
    CHECK_ERRNO(quotactl(QCMD(Q_GETFMT, USRQUOTA), "f", 0, NULL), ENOTBLK);
    CHECK_ERRNO(quotactl(QCMD(Q_GETFMT, USRQUOTA), "absent", 0, NULL), ENOENT);
    CHECK_ERRNO(syscall(SYS_QUOTACTL_FD, 999, QCMD(Q_GETFMT, USRQUOTA), 0, NULL), EBADF);
    conf_become(1234);
    CHECK_ERRNO(open_by_handle_at(AT_FDCWD, &u.h, O_RDONLY), EPERM);
}

/* ---- cachestat ---- */

#define SYS_CACHESTAT 451

static long pages_in(int fd, uint64_t off, uint64_t len)
{
    struct {
        uint64_t off, len;
    } range = {off, len};
    uint64_t stat[5];

    return syscall(SYS_CACHESTAT, fd, &range, stat, 0) == 0 ? (long)stat[0] : -1;
}

TEST(cachestat)
{
    static const char bytes[3 * CONF_PAGE + 1];
    uint64_t range[2] = {0, 0}, stat[5];
    int p[2];

    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    if (pages_in(fd, 0, 0) != 0 && errno == ENOSYS && getenv("CONFORMANCE") == NULL)
        conf_skip("the host's kernel is older");
    CHECK_EQ(pages_in(fd, 0, 0), 0);
    CHECK_EQ(OK(write(fd, bytes, sizeof(bytes))), (ssize_t)sizeof(bytes));
    CHECK_EQ(pages_in(fd, 0, 1), 1);
    CHECK_EQ(pages_in(fd, 1, CONF_PAGE), 2);
    CHECK_EQ(pages_in(fd, CONF_PAGE, 2 * CONF_PAGE), 2);
    CHECK_EQ(pages_in(fd, 3 * CONF_PAGE, 1), 1);
    CHECK(pages_in(fd, 0, 0) >= 4);
    CHECK_EQ(pages_in(fd, 1UL << 40, 0), 0);
    CHECK_EQ(pages_in(fd, UINT64_MAX, UINT64_MAX), 0);
    CHECK_ERRNO(syscall(SYS_CACHESTAT, fd, range, stat, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_CACHESTAT, fd, NULL, stat, 1), EFAULT);
    CHECK_ERRNO(syscall(SYS_CACHESTAT, fd, range, NULL, 0), EFAULT);
    CHECK_ERRNO(syscall(SYS_CACHESTAT, -1, NULL, NULL, 1), EBADF);
    CHECK_ERRNO(pages_in(OK(open("f", O_PATH)), 0, 0), EBADF);
    OK(pipe(p));
    CHECK_EQ(pages_in(p[0], 0, 0), 0);
    CHECK_EQ(pages_in(OK(open(".", O_RDONLY)), 1UL << 40, 0), 0);
}

TEST(cachestat_holes)
{
    static const char bytes[4 * CONF_PAGE];

    int fd = (int)OK(syscall(SYS_memfd_create, "x", 0));
    if (pages_in(fd, 0, 0) != 0 && errno == ENOSYS && getenv("CONFORMANCE") == NULL)
        conf_skip("the host's kernel is older");
    OK(ftruncate(fd, 1 << 30));
    CHECK_EQ(pages_in(fd, 0, 0), 0);
    CHECK_EQ(OK(pwrite(fd, bytes, sizeof(bytes), 1 << 20)), (ssize_t)sizeof(bytes));
    CHECK_EQ(OK(pwrite(fd, "x", 1, (1 << 30) - 1)), 1);
    CHECK_EQ(pages_in(fd, 0, 0), 5);
    CHECK_EQ(pages_in(fd, (1 << 20) + CONF_PAGE, 2 * CONF_PAGE), 2);
    CHECK_EQ(pages_in(fd, 1 << 21, 1 << 21), 0);
    OK(fallocate(fd, 3, (1 << 20) + (off_t)CONF_PAGE, CONF_PAGE));
    CHECK_EQ(pages_in(fd, 0, 0), 4);
    OK(ftruncate(fd, 1 << 20));
    CHECK_EQ(pages_in(fd, 0, 0), 0);
}

TEST(cachestat_is_for_writers)
{
    NEED_ROOT();
    OK(chmod(".", 0755));
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    if (pages_in(fd, 0, 0) != 0 && errno == ENOSYS && getenv("CONFORMANCE") == NULL)
        conf_skip("the host's kernel is older");
    OK(close(fd));
    fd = OK(open("f", O_RDONLY));
    CHECK_EQ(pages_in(fd, 0, 0), 0);
    conf_become(1234);
    CHECK_ERRNO(pages_in(fd, 0, 0), EPERM);
    int own = OK(open("/tmp", O_TMPFILE | O_RDWR, 0600));
    CHECK_EQ(pages_in(own, 0, 0), 0);
}
