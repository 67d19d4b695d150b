/* Names: opening, linking, renaming, directories, attributes, where a process stands. */
#include "harness.h"

#include <dirent.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <time.h>

CONF_FAMILY("path");

/* ---- helpers ---- */

static int fresh(const char *name)
{
    return OK(open(name, O_RDWR | O_CREAT | O_EXCL, 0644));
}

static mode_t mode_of(const char *path)
{
    struct stat st;

    OK(lstat(path, &st));
    return st.st_mode;
}

static off_t size_of(const char *path)
{
    struct stat st;

    OK(stat(path, &st));
    return st.st_size;
}

/* ---- open ---- */

TEST(open_flags)
{
    int fd = fresh("f");

    CHECK_ERRNO(open("f", O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
    CHECK_ERRNO(open("g", O_RDWR), ENOENT);
    CHECK_EQ(write(fd, "hello", 5), 5);
    OK(close(OK(open("f", O_RDONLY))));
    CHECK_EQ(size_of("f"), 5);
    OK(close(OK(open("f", O_WRONLY | O_TRUNC))));
    CHECK_EQ(size_of("f"), 0);
    OK(mkdir("d", 0755));
    CHECK_ERRNO(open("d", O_RDWR), EISDIR);
    CHECK_ERRNO(open("d", O_RDONLY | O_CREAT, 0600), EISDIR);
    CHECK_ERRNO(open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
    CHECK_ERRNO(open("f/x", O_RDONLY), ENOTDIR);
    CHECK_ERRNO(open("", O_RDONLY), ENOENT);
    CHECK_ERRNO(syscall(SYS_open, 8L, O_RDONLY), EFAULT);
}

TEST(open_mode_and_umask)
{
    umask(027);
    OK(close(OK(open("f", O_RDWR | O_CREAT, 0666))));
    CHECK_EQ(mode_of("f"), S_IFREG | 0640);
    OK(mkdir("d", 0777));
    CHECK_EQ(mode_of("d"), S_IFDIR | 0750);
    CHECK_EQ(umask(0), 027);
    /* The mode counts for later opens only. */
    int fd = OK(open("ro", O_RDWR | O_CREAT, 0400));
    CHECK_EQ(write(fd, "x", 1), 1);
}

TEST(open_symlinks)
{
    int fd = fresh("f");

    OK(close(fd));
    OK(symlink("f", "l"));
    OK(symlink("nothing", "dangling"));
    OK(symlink("loop", "loop"));
    OK(close(OK(open("l", O_RDONLY))));
    CHECK_ERRNO(open("l", O_RDONLY | O_NOFOLLOW), ELOOP);
    CHECK_ERRNO(open("loop", O_RDONLY), ELOOP);
    CHECK_ERRNO(open("dangling", O_RDONLY), ENOENT);
    CHECK_ERRNO(open("dangling", O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
    OK(close(OK(open("dangling", O_CREAT | O_RDWR, 0600))));
    CHECK(conf_exists("nothing"));
    int p = OK(open("l", O_PATH | O_NOFOLLOW));
    struct stat st;
    OK(fstat(p, &st));
    CHECK(S_ISLNK(st.st_mode));
}

TEST(open_long_names)
{
    char name[300];
    static char path[PATH_MAX + 10];

    memset(name, 'a', 255);
    name[255] = 0;
    OK(close(OK(open(name, O_RDWR | O_CREAT, 0600))));
    name[255] = 'a';
    name[256] = 0;
    CHECK_ERRNO(open(name, O_RDWR | O_CREAT, 0600), ENAMETOOLONG);
    memset(path, '/', sizeof(path));
    path[PATH_MAX] = 0;
    CHECK_ERRNO(open(path, O_RDONLY), ENAMETOOLONG);
    path[PATH_MAX - 1] = 0;
    OK(close(OK(open(path, O_RDONLY))));
}

TEST(open_path_only)
{
    conf_put("f", "data");
    int fd = OK(open("f", O_PATH));
    struct stat st;
    char c;

    CHECK_ERRNO(read(fd, &c, 1), EBADF);
    CHECK_ERRNO(fchmod(fd, 0600), EBADF);
    CHECK_ERRNO(ioctl(fd, FIONREAD, &c), EBADF);
    CHECK_ERRNO(fcntl(fd, F_SETFL, 0), EBADF);
    CHECK_EQ(fcntl(fd, F_GETFL), O_PATH);
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_size, 4);
    OK(dup(fd));
    int d = OK(open(".", O_PATH));
    OK(close(OK(openat(d, "f", O_RDONLY))));
    OK(fchdir(d));
}

TEST(openat_bases)
{
    OK(mkdir("d", 0755));
    int d = OK(open("d", O_RDONLY | O_DIRECTORY)), f = fresh("f");
    int fd = OK(openat(d, "x", O_CREAT | O_RDWR, 0600));

    OK(close(fd));
    CHECK(conf_exists("d/x"));
    CHECK_ERRNO(openat(f, "x", O_RDONLY), ENOTDIR);
    CHECK_ERRNO(openat(9999, "x", O_RDONLY), EBADF);
    OK(close(OK(openat(9999, "/", O_RDONLY))));
    OK(close(OK(openat(AT_FDCWD, "d/x", O_RDONLY))));
    OK(close(OK(openat(d, "../f", O_RDONLY))));
}

static long openat2_of(int dirfd, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags, .resolve = resolve};

    return syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
}

TEST(openat2_resolve)
{
    OK(mkdir("d", 0755));
    int d = OK(open("d", O_RDONLY | O_DIRECTORY));

    conf_put("d/f", "x");
    conf_put("out", "x");
    OK(symlink("f", "d/l"));
    OK(symlink("../out", "d/up"));
    OK(symlink("/f", "d/abs"));
    if (openat2_of(d, "f", O_RDONLY, 0) < 0 && errno == ENOSYS)
        conf_skip("kernel before 5.6");
    OK(openat2_of(d, "l", O_RDONLY, RESOLVE_BENEATH));
    CHECK_ERRNO(openat2_of(d, "l", O_RDONLY, RESOLVE_NO_SYMLINKS), ELOOP);
    CHECK_ERRNO(openat2_of(d, "../out", O_RDONLY, RESOLVE_BENEATH), EXDEV);
    CHECK_ERRNO(openat2_of(d, "up", O_RDONLY, RESOLVE_BENEATH), EXDEV);
    CHECK_ERRNO(openat2_of(d, "/out", O_RDONLY, RESOLVE_BENEATH), EXDEV);
    OK(openat2_of(d, "abs", O_RDONLY, RESOLVE_IN_ROOT));
    OK(openat2_of(d, "../../f", O_RDONLY, RESOLVE_IN_ROOT));
    CHECK_ERRNO(openat2_of(d, "f", O_RDONLY, RESOLVE_IN_ROOT | RESOLVE_BENEATH), EINVAL);
    CHECK_ERRNO(openat2_of(d, "f", O_RDONLY, 1 << 20), EINVAL);
    CHECK_ERRNO(openat2_of(d, "f", UINT64_C(1) << 40, 0), EINVAL);
    struct open_how how = {.flags = O_RDONLY, .mode = 0600};
    CHECK_ERRNO(syscall(SYS_openat2, d, "f", &how, sizeof(how)), EINVAL);
    CHECK_ERRNO(syscall(SYS_openat2, d, "f", &how, 8L), EINVAL);
    struct {
        struct open_how how;
        uint64_t more;
    } big = {.how = {.flags = O_RDONLY}};
    OK(syscall(SYS_openat2, d, "f", &big, sizeof(big)));
    big.more = 1;
    CHECK_ERRNO(syscall(SYS_openat2, d, "f", &big, sizeof(big)), E2BIG);
}

TEST(open_needs_permission)
{
    NEED_ROOT();
    conf_put("secret", "x");
    OK(chmod("secret", 0600));
    OK(mkdir("closed", 0700));
    conf_put("closed/f", "x");
    OK(chmod(".", 0755));
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(1234);
        CHECK_ERRNO(open("secret", O_RDONLY), EACCES);
        CHECK_ERRNO(open("closed/f", O_RDONLY), EACCES);
        CHECK_ERRNO(open("new", O_CREAT | O_RDWR, 0600), EACCES);
        CHECK_ERRNO(unlink("secret"), EACCES);
        CHECK_ERRNO(chmod("secret", 0644), EPERM);
        CHECK_ERRNO(access("secret", R_OK), EACCES);
        OK(access("secret", F_OK));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

/* ---- names ---- */

TEST(links_and_unlink)
{
    struct stat a, b;

    conf_put("f", "text");
    OK(link("f", "g"));
    OK(stat("f", &a));
    OK(stat("g", &b));
    CHECK_EQ(a.st_ino, b.st_ino);
    CHECK_EQ(a.st_nlink, 2);
    CHECK_ERRNO(link("f", "g"), EEXIST);
    CHECK_ERRNO(link("none", "h"), ENOENT);
    OK(mkdir("d", 0755));
    CHECK_ERRNO(link("d", "e"), EPERM);
    int fd = OK(open("f", O_RDONLY));
    OK(unlink("f"));
    OK(unlink("g"));
    OK(fstat(fd, &a));
    CHECK_EQ(a.st_nlink, 0);
    char buf[8];
    CHECK_EQ(read(fd, buf, 8), 4);
    CHECK_ERRNO(unlink("f"), ENOENT);
    CHECK_ERRNO(unlink("d"), EISDIR);
    CHECK_ERRNO(unlink("d/"), EISDIR);
    CHECK_ERRNO(rmdir("nothing"), ENOENT);
    CHECK_ERRNO(unlinkat(AT_FDCWD, "d", 0x1000), EINVAL);
    OK(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR));
}

TEST(directories_made_and_removed)
{
    OK(mkdir("d", 0755));
    CHECK_ERRNO(mkdir("d", 0755), EEXIST);
    CHECK_ERRNO(mkdir("none/d", 0755), ENOENT);
    OK(mkdir("d/sub/", 0755));
    CHECK_ERRNO(rmdir("d"), ENOTEMPTY);
    CHECK_ERRNO(rmdir("d/."), EINVAL);
    CHECK_ERRNO(rmdir("d/sub/.."), ENOTEMPTY);
    OK(rmdir("d/sub"));
    struct stat st;
    OK(stat("d", &st));
    CHECK_EQ(st.st_nlink, 2);
    conf_put("f", "");
    CHECK_ERRNO(rmdir("f"), ENOTDIR);
    OK(rmdir("d"));
    CHECK(!conf_exists("d"));
}

TEST(rename_rules)
{
    conf_put("a", "A");
    conf_put("b", "B");
    OK(mkdir("d", 0755));
    OK(mkdir("e", 0755));
    char buf[4];

    OK(rename("a", "b"));
    CHECK_EQ(conf_get("b", buf, sizeof(buf)), 1);
    CHECK_EQ(buf[0], 'A');
    CHECK(!conf_exists("a"));
    CHECK_ERRNO(rename("none", "x"), ENOENT);
    CHECK_ERRNO(rename("b", "d"), EISDIR);
    CHECK_ERRNO(rename("d", "b"), ENOTDIR);
    OK(rename("d", "e"));
    OK(mkdir("e/sub", 0755));
    CHECK_ERRNO(rename("e", "e/sub/x"), EINVAL);
    OK(mkdir("full", 0755));
    conf_put("full/x", "");
    CHECK_ERRNO(rename("e", "full"), ENOTEMPTY);
    OK(rename("b", "e/sub/b"));
    OK(link("e/sub/b", "hard"));
    OK(rename("hard", "e/sub/b"));
    CHECK(conf_exists("hard"));
}

TEST(renameat2_flags)
{
    conf_put("a", "A");
    conf_put("b", "B");
    char buf[4];

    CHECK_ERRNO(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE), EEXIST);
    OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE));
    CHECK_EQ(conf_get("a", buf, sizeof(buf)), 1);
    CHECK_EQ(buf[0], 'B');
    CHECK_ERRNO(renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_EXCHANGE), ENOENT);
    CHECK_ERRNO(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", 64), EINVAL);
    CHECK_ERRNO(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE | RENAME_NOREPLACE),
                EINVAL);
    OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE));
}

TEST(symlinks_and_readlink)
{
    char buf[16] = "";
    struct stat st;

    OK(symlink("some/target", "l"));
    CHECK_EQ(readlink("l", buf, sizeof(buf)), 11);
    CHECK(memcmp(buf, "some/target", 11) == 0);
    CHECK_EQ(readlink("l", buf, 4), 4);
    OK(lstat("l", &st));
    CHECK_EQ(st.st_size, 11);
    CHECK_ERRNO(readlink(".", buf, sizeof(buf)), EINVAL);
    CHECK_ERRNO(readlink("none", buf, sizeof(buf)), ENOENT);
    CHECK_ERRNO(syscall(SYS_readlink, "l", buf, 0), EINVAL);
    CHECK_ERRNO(symlink("", "m"), ENOENT);
    CHECK_ERRNO(symlink("x", "l"), EEXIST);
    int p = OK(open("l", O_PATH | O_NOFOLLOW));
    CHECK_EQ(readlinkat(p, "", buf, sizeof(buf)), 11);
    OK(mkdir("d", 0755));
    conf_put("d/f", "");
    OK(symlink("d", "dl"));
    OK(stat("dl/f", &st));
    OK(unlink("dl"));
}

TEST(mknod_kinds)
{
    OK(mknod("f", S_IFREG | 0640, 0));
    CHECK_EQ(mode_of("f"), S_IFREG | 0640);
    OK(mknod("plain", 0600, 0));
    CHECK(S_ISREG(mode_of("plain")));
    OK(mknod("s", S_IFSOCK | 0600, 0));
    CHECK(S_ISSOCK(mode_of("s")));
    CHECK_ERRNO(mknod("d", S_IFDIR | 0600, 0), EPERM);
    CHECK_ERRNO(mknod("f", S_IFREG | 0600, 0), EEXIST);
}

/* ---- where one stands ---- */

TEST(chdir_and_getcwd)
{
    static char before[PATH_MAX], after[PATH_MAX];

    OK(mkdir("d", 0755));
    CHECK(getcwd(before, sizeof(before)) != NULL);
    OK(chdir("d"));
    CHECK(getcwd(after, sizeof(after)) != NULL);
    CHECK(strncmp(after, before, strlen(before)) == 0);
    CHECK_STR(after + strlen(before), "/d");
    CHECK_ERRNO(syscall(SYS_getcwd, after, 1L), ERANGE);
    CHECK_ERRNO(chdir("nothing"), ENOENT);
    conf_put("f", "");
    CHECK_ERRNO(chdir("f"), ENOTDIR);
    CHECK_ERRNO(fchdir(OK(open("f", O_RDONLY))), ENOTDIR);
    int up = OK(open("..", O_RDONLY));
    OK(rmdir("../d") == -1 && errno == ENOTEMPTY ? 0 : -1);
    OK(unlink("f"));
    OK(rmdir("../d"));
    CHECK_ERRNO(syscall(SYS_getcwd, after, sizeof(after)), ENOENT);
    CHECK_ERRNO(open("new", O_CREAT | O_RDWR, 0600), ENOENT);
    OK(fchdir(up));
    CHECK(getcwd(after, sizeof(after)) != NULL);
    CHECK_STR(after, before);
}

TEST(chroot_confines)
{
    NEED_ROOT();
    static char buf[PATH_MAX];

    OK(mkdir("r", 0755));
    conf_put("r/inside", "x");
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(chroot("r"));
        OK(chdir("/"));
        CHECK(conf_exists("/inside"));
        CHECK(conf_exists("/../../inside"));
        CHECK(getcwd(buf, sizeof(buf)) != NULL);
        CHECK_STR(buf, "/");
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

/* ---- attributes ---- */

TEST(stat_fields)
{
    struct stat st, fst;
    int fd = fresh("f");

    CHECK_EQ(write(fd, "abc", 3), 3);
    OK(stat("f", &st));
    OK(fstat(fd, &fst));
    CHECK_EQ(st.st_ino, fst.st_ino);
    CHECK_EQ(st.st_dev, fst.st_dev);
    CHECK_EQ(st.st_mode, S_IFREG | 0644);
    CHECK_EQ(st.st_nlink, 1);
    CHECK_EQ(st.st_uid, geteuid());
    CHECK_EQ(st.st_size, 3);
    CHECK(st.st_blksize >= 512);
    struct timespec now;
    OK(clock_gettime(CLOCK_REALTIME, &now));
    CHECK(st.st_mtim.tv_sec >= now.tv_sec - 60 && st.st_mtim.tv_sec <= now.tv_sec + 1);
    OK(fstatat(AT_FDCWD, "", &fst, AT_EMPTY_PATH));
    CHECK(S_ISDIR(fst.st_mode));
    OK(fstatat(fd, "", &fst, AT_EMPTY_PATH));
    CHECK_EQ(st.st_ino, fst.st_ino);
    CHECK_ERRNO(fstatat(fd, "", &fst, 0), ENOENT);
    CHECK_ERRNO(fstatat(AT_FDCWD, "f", &fst, 0x10000), EINVAL);
    CHECK_ERRNO(stat("none", &st), ENOENT);
    CHECK_ERRNO(syscall(SYS_stat, "f", 8L), EFAULT);
    CHECK_ERRNO(fstat(9999, &st), EBADF);
}

TEST(statx_fields)
{
    struct statx x;
    struct stat st;

    conf_put("f", "hello");
    OK(stat("f", &st));
    OK(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &x));
    CHECK_EQ(x.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
    CHECK_EQ(x.stx_size, 5);
    CHECK_EQ(x.stx_ino, st.st_ino);
    CHECK_EQ(x.stx_mode, st.st_mode);
    CHECK_EQ(makedev(x.stx_dev_major, x.stx_dev_minor), st.st_dev);
    CHECK_EQ(x.stx_mtime.tv_sec, st.st_mtim.tv_sec);
    CHECK_ERRNO(statx(AT_FDCWD, "f", 0, STATX__RESERVED, &x), EINVAL);
    CHECK_ERRNO(statx(AT_FDCWD, "f", AT_STATX_SYNC_TYPE, 0, &x), EINVAL);
    CHECK_ERRNO(statx(AT_FDCWD, "none", 0, 0, &x), ENOENT);
}

TEST(statfs_fields)
{
    struct statfs a, b;

    OK(statfs(".", &a));
    OK(fstatfs(OK(open(".", O_RDONLY)), &b));
    CHECK_EQ(a.f_type, b.f_type);
    CHECK(a.f_bsize >= 512);
    CHECK_EQ(a.f_namelen, 255);
    CHECK_ERRNO(statfs("none", &a), ENOENT);
    CHECK_ERRNO(syscall(SYS_statfs, ".", 8L), EFAULT);
}

TEST(chmod_and_chown)
{
    int fd = fresh("f");

    OK(chmod("f", 0600));
    CHECK_EQ(mode_of("f"), S_IFREG | 0600);
    OK(fchmod(fd, 0755));
    CHECK_EQ(mode_of("f"), S_IFREG | 0755);
    OK(fchmodat(AT_FDCWD, "f", 0640, 0));
    CHECK_EQ(mode_of("f"), S_IFREG | 0640);
    OK(chown("f", (uid_t)-1, (gid_t)-1));
    OK(symlink("f", "l"));
    OK(lchown("l", geteuid(), getegid()));
    OK(fchown(fd, geteuid(), getegid()));
    OK(fchownat(fd, "", geteuid(), getegid(), AT_EMPTY_PATH));
    CHECK_ERRNO(chmod("none", 0600), ENOENT);
    CHECK_ERRNO(fchownat(AT_FDCWD, "f", 0, 0, 0x10000), EINVAL);
}

TEST(chown_takes_set_id_bits)
{
    NEED_ROOT();
    struct stat st;

    conf_put("f", "");
    OK(chmod("f", 06755));
    OK(chown("f", 1000, 1001));
    OK(stat("f", &st));
    CHECK_EQ(st.st_uid, 1000);
    CHECK_EQ(st.st_gid, 1001);
    CHECK_EQ(st.st_mode, S_IFREG | 0755);
}

TEST(times_are_set)
{
    struct timespec ts[2] = {{1000, 1}, {2000, 2}};
    struct stat st;
    int fd = fresh("f");

    OK(utimensat(AT_FDCWD, "f", ts, 0));
    OK(stat("f", &st));
    CHECK_EQ(st.st_atim.tv_sec, 1000);
    CHECK_EQ(st.st_atim.tv_nsec, 1);
    CHECK_EQ(st.st_mtim.tv_sec, 2000);
    ts[0].tv_nsec = UTIME_OMIT;
    ts[1].tv_nsec = UTIME_NOW;
    OK(futimens(fd, ts));
    OK(stat("f", &st));
    CHECK_EQ(st.st_atim.tv_sec, 1000);
    CHECK(st.st_mtim.tv_sec > 1000000);
    ts[0].tv_nsec = 1000000000;
    CHECK_ERRNO(utimensat(AT_FDCWD, "f", ts, 0), EINVAL);
    OK(symlink("f", "l"));
    ts[0] = ts[1] = (struct timespec){5, 0};
    OK(utimensat(AT_FDCWD, "l", ts, AT_SYMLINK_NOFOLLOW));
    OK(lstat("l", &st));
    CHECK_EQ(st.st_mtim.tv_sec, 5);
    OK(stat("f", &st));
    CHECK(st.st_mtim.tv_sec != 5);
    CHECK_ERRNO(utimensat(AT_FDCWD, "none", NULL, 0), ENOENT);
    CHECK_ERRNO(syscall(SYS_utimensat, AT_FDCWD, NULL, NULL, 0), EFAULT);
}

TEST(access_modes)
{
    conf_put("f", "");
    OK(chmod("f", 0644));
    OK(access("f", F_OK));
    OK(access("f", R_OK | W_OK));
    CHECK_ERRNO(access("f", X_OK), EACCES);
    CHECK_ERRNO(access("f", 8), EINVAL);
    CHECK_ERRNO(access("none", F_OK), ENOENT);
    OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
    OK(symlink("none", "l"));
    CHECK_ERRNO(access("l", F_OK), ENOENT);
    OK(faccessat(AT_FDCWD, "l", F_OK, AT_SYMLINK_NOFOLLOW));
}

TEST(write_takes_set_id_bits)
{
    NEED_ROOT();
    conf_put("f", "");
    OK(chown("f", 1234, 1234));
    OK(chmod("f", 06777));
    OK(chmod(".", 0755));
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(1234);
        int fd = OK(open("f", O_WRONLY));
        CHECK_EQ(write(fd, "x", 1), 1);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(mode_of("f"), S_IFREG | 0777);
}

/* ---- directories ---- */

TEST(getdents_lists_everything)
{
    bool seen[200] = {false};
    char name[16], buf[1024];
    int dots = 0;

    OK(mkdir("d", 0755));
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "d/%d", i);
        OK(close(OK(open(name, O_CREAT | O_WRONLY, 0600))));
    }
    int fd = OK(open("d", O_RDONLY | O_DIRECTORY));
    for (;;) {
        long n = OK(syscall(SYS_getdents64, fd, buf, sizeof(buf)));
        if (n == 0)
            break;
        for (long off = 0; off < n;) {
            struct dirent64 *e = (struct dirent64 *)(void *)(buf + off);
            if (e->d_name[0] == '.') {
                dots++;
                CHECK_EQ(e->d_type, DT_DIR);
            } else {
                int i = atoi(e->d_name);
                CHECK(!seen[i]);
                seen[i] = true;
                CHECK(e->d_type == DT_REG || e->d_type == DT_UNKNOWN);
            }
            off += e->d_reclen;
        }
    }
    CHECK_EQ(dots, 2);
    for (int i = 0; i < 200; i++)
        CHECK(seen[i]);
    CHECK_EQ(syscall(SYS_getdents64, fd, buf, sizeof(buf)), 0);
    OK(lseek(fd, 0, SEEK_SET));
    CHECK(syscall(SYS_getdents64, fd, buf, sizeof(buf)) > 0);
}

/* Counts what stands in n bytes of entries, and checks each against stat(2). */
static int check_entries(const char *buf, long n, long size, bool seen[256])
{
    int count = 0;

    CHECK(n <= size);
    for (long off = 0; off < n; count++) {
        const struct dirent64 *e = (const struct dirent64 *)(const void *)(buf + off);
        const size_t len = strlen(e->d_name), head = offsetof(struct dirent64, d_name);
        struct stat st;
        CHECK_EQ(e->d_reclen, (head + len + 8) / 8 * 8);
        if (e->d_name[0] == 'x') {
            CHECK(!seen[len]);
            seen[len] = true;
            OK(stat(e->d_name, &st));
            CHECK_EQ(e->d_ino, st.st_ino);
        }
        off += e->d_reclen;
    }
    return count;
}

/* Names of all lengths, of which two of three stay, through buffers of several sizes. */
TEST(getdents_of_any_size)
{
    static const long sizes[] = {280, 288, 1000, 4096, 32768};
    static char buf[32768];
    char name[256];

    OK(mkdir("d", 0755));
    OK(chdir("d"));
    memset(name, 'x', sizeof(name));
    for (size_t len = 255; len > 0; len--) {
        name[len] = '\0';
        conf_put(name, "");
    }
    memset(name, 'x', sizeof(name));
    for (size_t len = 255; len > 0; len -= 3) {
        name[len] = '\0';
        OK(unlink(name));
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        bool seen[256] = {false};
        int count = 0;
        int fd = OK(open(".", O_RDONLY | O_DIRECTORY));
        for (;;) {
            long n = OK(syscall(SYS_getdents64, fd, buf, sizes[i]));
            if (n == 0)
                break;
            count += check_entries(buf, n, sizes[i], seen);
        }
        CHECK_EQ(count, 172);
        for (int len = 1; len <= 255; len++)
            CHECK_EQ(seen[len], len % 3 != 0);
        OK(close(fd));
    }
}

TEST(getdents_errors)
{
    static char big[4096];
    char buf[8];
    int fd = OK(open(".", O_RDONLY)), f = fresh("f");

    CHECK_ERRNO(syscall(SYS_getdents64, fd, buf, sizeof(buf)), EINVAL);
    CHECK_ERRNO(syscall(SYS_getdents64, f, buf, sizeof(buf)), ENOTDIR);
    CHECK_ERRNO(syscall(SYS_getdents64, 9999, buf, sizeof(buf)), EBADF);
    CHECK_ERRNO(syscall(SYS_getdents64, fd, 8L, 4096L), EFAULT);
    CHECK(syscall(SYS_getdents, fd, big, sizeof(big)) > 0);
}

TEST(directory_position_comes_back)
{
    char name[8];

    OK(mkdir("d", 0755));
    for (char c = 'a'; c <= 'j'; c++) {
        snprintf(name, sizeof(name), "d/%c", c);
        OK(close(OK(open(name, O_CREAT | O_WRONLY, 0600))));
    }
    DIR *d = opendir("d");
    CHECK(d != NULL);
    for (int i = 0; i < 5; i++)
        CHECK(readdir(d) != NULL);
    long at = telldir(d);
    char next[256];
    strncpy(next, readdir(d)->d_name, sizeof(next) - 1);
    next[255] = 0;
    while (readdir(d))
        ;
    seekdir(d, at);
    CHECK_STR(readdir(d)->d_name, next);
    closedir(d);
}
