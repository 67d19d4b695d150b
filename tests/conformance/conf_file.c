/* Files: opening, reading, writing, positions, descriptors, locks, names, attributes, directories.
 */
#include "harness.h"

#include <linux/close_range.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>

CONF_FAMILY("file");

/* ---- helpers ---- */

static int fresh(const char *name)
{
    return OK(open(name, O_RDWR | O_CREAT | O_EXCL, 0644));
}

static void noted(int sig)
{
    (void)sig;
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

/* ---- reading and writing ---- */

TEST(read_write_positions)
{
    int fd = fresh("f");
    char buf[16] = "";

    CHECK_EQ(write(fd, "0123456789", 10), 10);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 10);
    CHECK_EQ(read(fd, buf, sizeof(buf)), 0);
    CHECK_EQ(lseek(fd, 3, SEEK_SET), 3);
    CHECK_EQ(read(fd, buf, 4), 4);
    CHECK(memcmp(buf, "3456", 4) == 0);
    CHECK_EQ(pread(fd, buf, 2, 8), 2);
    CHECK(memcmp(buf, "89", 2) == 0);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 7);
    CHECK_EQ(pwrite(fd, "XY", 2, 9), 2);
    CHECK_EQ(lseek(fd, -1, SEEK_END), 10);
    CHECK_EQ(read(fd, buf, 4), 1);
    CHECK_EQ(buf[0], 'Y');
}

TEST(seek_errors_and_holes)
{
    int fd = fresh("f");
    char buf[4] = "abc";

    CHECK_EQ(lseek(fd, 100, SEEK_SET), 100);
    CHECK_EQ(write(fd, "x", 1), 1);
    CHECK_EQ(pread(fd, buf, 3, 50), 3);
    CHECK(buf[0] == 0 && buf[1] == 0 && buf[2] == 0);
    CHECK_ERRNO(lseek(fd, -1, SEEK_SET), EINVAL);
    CHECK_ERRNO(lseek(fd, -200, SEEK_END), EINVAL);
    CHECK_ERRNO(lseek(fd, 0, 99), EINVAL);
    CHECK_EQ(lseek(fd, 0, SEEK_HOLE), 101);
    CHECK_ERRNO(lseek(fd, 200, SEEK_DATA), ENXIO);
    CHECK_EQ(lseek(fd, 1L << 40, SEEK_SET), 1L << 40);
    CHECK_EQ(read(fd, buf, 1), 0);
    CHECK_ERRNO(lseek(9999, 0, SEEK_SET), EBADF);
}

TEST(seek_beyond_all)
{
    static const char *const names[] = {"f", ".", "/proc/self/status", "/proc"};

    (void)fresh("f");
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        int fd = OK(open(names[i], O_RDONLY));
        CHECK_EQ(lseek(fd, 1, SEEK_SET), 1);
        CHECK_EQ(lseek(fd, INT64_MAX, SEEK_CUR), -1);
        CHECK(errno == EINVAL || errno == EOVERFLOW);
        CHECK_EQ(lseek(fd, 0, SEEK_CUR), 1);
        OK(close(fd));
    }
}

/* To read or write there is EINVAL, and the position stays. */
static void check_ends_at_max(const char *path, int flags)
{
    const int fd = OK(open(path, flags));
    char buf[32] = "";

    CHECK_EQ(lseek(fd, INT64_MAX - 4, SEEK_SET), INT64_MAX - 4);
    CHECK_ERRNO(flags == O_RDONLY ? read(fd, buf, 5) : write(fd, "12345", 5), EINVAL);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), INT64_MAX - 4);
    OK(close(fd));
}

TEST(no_byte_beyond_the_last_position)
{
    char buf[32] = "";
    int fd = fresh("a");

    CHECK_ERRNO(pread(fd, buf, 5, INT64_MAX - 4), EINVAL);
    CHECK_EQ(pread(fd, buf, 4, INT64_MAX - 4), 0);
    CHECK_ERRNO(pwrite(fd, buf, 5, INT64_MAX - 4), EINVAL);
    OK(close(fd));
    check_ends_at_max("/proc/self/comm", O_WRONLY);
    check_ends_at_max("/proc/self/comm", O_RDONLY);
    check_ends_at_max("/proc/self/maps", O_RDONLY);
    fd = OK(open("/dev/zero", O_RDWR));
    CHECK_ERRNO(pread(fd, buf, 5, INT64_MAX - 4), EINVAL);
    CHECK_EQ(pread(fd, buf, 4, INT64_MAX - 4), 4);
    CHECK_ERRNO(pwrite(fd, buf, 5, INT64_MAX - 4), EINVAL);
    OK(close(fd));
}

/* There is nothing to read, but it may be asked for. */
TEST(addresses_as_positions)
{
    const int fd = OK(open("/proc/self/mem", O_RDONLY));
    char buf[8];

    CHECK_ERRNO(pread(fd, buf, 5, INT64_MAX - 4), EIO);
    (void)lseek(fd, -8, SEEK_SET); /* -8, which libc takes for an error */
    CHECK_ERRNO(read(fd, buf, 8), EOVERFLOW);
    CHECK_ERRNO(read(fd, buf, 7), EIO);
    OK(close(fd));
}

TEST(read_write_errors)
{
    int ro = OK(open("f", O_RDONLY | O_CREAT, 0600)), wo = OK(open("f", O_WRONLY));
    char c = 0;

    CHECK_ERRNO(write(ro, "x", 1), EBADF);
    CHECK_ERRNO(read(wo, &c, 1), EBADF);
    CHECK_ERRNO(read(9999, &c, 1), EBADF);
    CHECK_ERRNO(read(OK(open(".", O_RDONLY)), &c, 1), EISDIR);
    CHECK_ERRNO(pread(ro, &c, 1, -1), EINVAL);
    CHECK_ERRNO(pwrite(wo, &c, 1, -1), EINVAL);
    CHECK_EQ(write(wo, "abc", 3), 3);
    CHECK_ERRNO(syscall(SYS_read, ro, 8L, 3L), EFAULT);
    CHECK_ERRNO(syscall(SYS_write, wo, 8L, 3L), EFAULT);
    CHECK_ERRNO(syscall(SYS_write, wo, -1L, 3L), EFAULT);
    CHECK_EQ(read(ro, NULL, 0), 0);
    CHECK_EQ(lseek(ro, 0, SEEK_CUR), 0);
}

TEST(read_into_a_half_mapped_buffer)
{
    char *p = conf_pages(2);
    int fd = fresh("f");

    OK(munmap(p + CONF_PAGE, CONF_PAGE));
    memset(p, 'q', CONF_PAGE);
    CHECK_EQ(write(fd, p, 100), 100);
    CHECK_EQ(pread(fd, p + CONF_PAGE - 40, 40, 0), 40);
    ssize_t n = pwrite(fd, p + CONF_PAGE - 10, 50, 0);
    CHECK(n == 10 || (n < 0 && errno == EFAULT));
}

TEST(append_writes_at_the_end)
{
    int a = OK(open("f", O_RDWR | O_CREAT | O_APPEND, 0600)), b = OK(open("f", O_RDWR));
    char buf[16];

    CHECK_EQ(write(a, "one", 3), 3);
    CHECK_EQ(pwrite(b, "two", 3, 3), 3);
    CHECK_EQ(lseek(a, 0, SEEK_SET), 0);
    CHECK_EQ(write(a, "three", 5), 5);
    CHECK_EQ(lseek(a, 0, SEEK_CUR), 11);
    CHECK_EQ(pread(b, buf, sizeof(buf), 0), 11);
    CHECK(memcmp(buf, "onetwothree", 11) == 0);
    OK(fcntl(b, F_SETFL, O_APPEND));
    CHECK_EQ(write(b, "!", 1), 1);
    CHECK_EQ(size_of("f"), 12);
}

TEST(vectors)
{
    int fd = fresh("f");
    char a[3] = "", b[5] = "";
    struct iovec out[3] = {
        {(void *)(uintptr_t) "abc", 3}, {NULL, 0}, {(void *)(uintptr_t) "defgh", 5}};
    struct iovec in[2] = {{a, 3}, {b, 5}};

    CHECK_EQ(writev(fd, out, 3), 8);
    CHECK_EQ(preadv(fd, in, 2, 0), 8);
    CHECK(memcmp(a, "abc", 3) == 0 && memcmp(b, "defgh", 5) == 0);
    CHECK_EQ(pwritev(fd, out, 1, 6), 3);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 8);
    CHECK_EQ(preadv2(fd, in, 2, -1, 0), 1);
    CHECK_EQ(writev(fd, out, 0), 0);
    CHECK_ERRNO(syscall(SYS_writev, fd, out, -1L), EINVAL);
    CHECK_ERRNO(syscall(SYS_writev, fd, out, 1025L), EINVAL);
    CHECK_ERRNO(syscall(SYS_writev, fd, 8L, 1L), EFAULT);
    CHECK_ERRNO(preadv(fd, in, 2, -1), EINVAL);
    CHECK_ERRNO(preadv2(fd, in, 2, 0, 0x10000), EOPNOTSUPP);
    out[0].iov_len = SIZE_MAX;
    CHECK_ERRNO(writev(fd, out, 1), EINVAL);
}

TEST(file_size_limit)
{
    struct rlimit rl = {100, RLIM_INFINITY};
    int fd = fresh("f");
    static char buf[200];

    conf_handler(SIGXFSZ, noted, 0);
    OK(setrlimit(RLIMIT_FSIZE, &rl));
    CHECK_EQ(write(fd, buf, 200), 100);
    CHECK_ERRNO(write(fd, buf, 1), EFBIG);
    CHECK_ERRNO(ftruncate(fd, 101), EFBIG);
    OK(ftruncate(fd, 100));
    pid_t pid = conf_fork();
    if (pid == 0) {
        signal(SIGXFSZ, SIG_DFL);
        rl.rlim_cur = 0;
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        (void)!write(fd, buf, 1);
        _exit(0);
    }
    CHECK_KILLED(pid, SIGXFSZ);
}

TEST(truncate_and_extend)
{
    int fd = fresh("f");
    char buf[8];

    CHECK_EQ(write(fd, "abcdef", 6), 6);
    OK(ftruncate(fd, 3));
    OK(ftruncate(fd, 6));
    CHECK_EQ(pread(fd, buf, 8, 0), 6);
    CHECK(memcmp(buf, "abc\0\0\0", 6) == 0);
    OK(truncate("f", 1));
    CHECK_EQ(size_of("f"), 1);
    CHECK_ERRNO(truncate("f", -1), EINVAL);
    CHECK_ERRNO(ftruncate(fd, -1), EINVAL);
    CHECK_ERRNO(truncate("nothing", 0), ENOENT);
    OK(mkdir("d", 0755));
    CHECK_ERRNO(truncate("d", 0), EISDIR);
    CHECK_ERRNO(ftruncate(OK(open("f", O_RDONLY)), 0), EINVAL);
}

TEST(fallocate_modes)
{
    int fd = fresh("f");
    char buf[4] = "";

    CHECK_EQ(write(fd, "abcdefgh", 8), 8);
    if (fallocate(fd, 0, 0, 100) < 0 && errno == EOPNOTSUPP)
        conf_skip("the file system has no fallocate");
    CHECK_EQ(size_of("f"), 100);
    CHECK_EQ(pread(fd, buf, 3, 0), 3);
    CHECK(memcmp(buf, "abc", 3) == 0);
    OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 100, 100));
    CHECK_EQ(size_of("f"), 100);
    OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4));
    CHECK_EQ(pread(fd, buf, 4, 2), 4);
    CHECK(memcmp(buf, "\0\0ef", 4) == 0);
    CHECK_ERRNO(fallocate(fd, 0, 0, 0), EINVAL);
    CHECK_ERRNO(fallocate(fd, 0, -1, 1), EINVAL);
    CHECK_ERRNO(fallocate(OK(open("f", O_RDONLY)), 0, 0, 1), EBADF);
}

TEST(sync_calls)
{
    int fd = fresh("f"), p[2];

    OK(fsync(fd));
    OK(fdatasync(fd));
    OK(syncfs(fd));
    OK(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
    sync();
    CHECK_ERRNO(fsync(9999), EBADF);
    OK(pipe(p));
    CHECK_ERRNO(fsync(p[0]), EINVAL);
    CHECK_ERRNO(sync_file_range(fd, -1, 0, 0), EINVAL);
    CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL), 0);
    CHECK_EQ(posix_fadvise(fd, 0, 0, 99), EINVAL);
    CHECK_EQ(posix_fadvise(p[0], 0, 0, POSIX_FADV_NORMAL), ESPIPE);
    OK(readahead(fd, 0, 100));
}

/* ---- from file to file ---- */

TEST(sendfile_copies)
{
    int in = fresh("in"), out = fresh("out"), sv[2];
    off_t off = 2;
    char buf[16];

    CHECK_EQ(write(in, "0123456789", 10), 10);
    CHECK_EQ(sendfile(out, in, &off, 4), 4);
    CHECK_EQ(off, 6);
    CHECK_EQ(lseek(in, 0, SEEK_CUR), 10);
    CHECK_EQ(lseek(in, 8, SEEK_SET), 8);
    CHECK_EQ(sendfile(out, in, NULL, 100), 2);
    CHECK_EQ(sendfile(out, in, NULL, 100), 0);
    CHECK_EQ(pread(out, buf, sizeof(buf), 0), 6);
    CHECK(memcmp(buf, "234589", 6) == 0);
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    off = 0;
    CHECK_EQ(sendfile(sv[0], in, &off, 10), 10);
    CHECK_EQ(read(sv[1], buf, sizeof(buf)), 10);
    off = -1;
    CHECK_ERRNO(sendfile(out, in, &off, 1), EINVAL);
    CHECK_ERRNO(sendfile(out, 9999, NULL, 1), EBADF);
    CHECK_ERRNO(sendfile(OK(open("out", O_RDONLY)), in, NULL, 1), EBADF);
    CHECK_ERRNO(sendfile(OK(open("out", O_WRONLY | O_APPEND)), in, NULL, 1), EINVAL);
}

TEST(copy_file_range_copies)
{
    int in = fresh("in"), out = fresh("out"), p[2];
    off64_t from = 1, to = 3;
    char buf[16] = "";

    CHECK_EQ(write(in, "abcdef", 6), 6);
    CHECK_EQ(copy_file_range(in, &from, out, &to, 3, 0), 3);
    CHECK_EQ(from, 4);
    CHECK_EQ(to, 6);
    CHECK_EQ(pread(out, buf, sizeof(buf), 0), 6);
    CHECK(memcmp(buf, "\0\0\0bcd", 6) == 0);
    OK(lseek(in, 0, SEEK_SET));
    CHECK_EQ(copy_file_range(in, NULL, out, NULL, 100, 0), 6);
    CHECK_EQ(copy_file_range(in, NULL, out, NULL, 100, 0), 0);
    CHECK_ERRNO(copy_file_range(in, NULL, out, NULL, 1, 1), EINVAL);
    from = 0;
    to = 2;
    CHECK_ERRNO(copy_file_range(in, &from, in, &to, 4, 0), EINVAL);
    OK(pipe(p));
    CHECK_ERRNO(copy_file_range(p[0], NULL, out, NULL, 1, 0), EINVAL);
    CHECK_ERRNO(copy_file_range(OK(open(".", O_RDONLY)), NULL, out, NULL, 1, 0), EISDIR);
    CHECK_ERRNO(copy_file_range(in, NULL, OK(open("out", O_RDONLY)), NULL, 1, 0), EBADF);
}

TEST(splice_moves)
{
    int in = fresh("in"), out = fresh("out"), p[2], q[2];
    off64_t off = 1;
    char buf[16] = "";

    CHECK_EQ(write(in, "abcdef", 6), 6);
    OK(pipe(p));
    OK(pipe(q));
    CHECK_EQ(splice(in, &off, p[1], NULL, 3, 0), 3);
    CHECK_EQ(off, 4);
    CHECK_EQ(tee(p[0], q[1], 100, 0), 3);
    CHECK_EQ(splice(p[0], NULL, out, NULL, 100, 0), 3);
    CHECK_EQ(pread(out, buf, sizeof(buf), 0), 3);
    CHECK(memcmp(buf, "bcd", 3) == 0);
    CHECK_EQ(splice(q[0], NULL, p[1], NULL, 2, 0), 2);
    CHECK_EQ(read(p[0], buf, sizeof(buf)), 2);
    CHECK_EQ(read(q[0], buf, sizeof(buf)), 1);
    CHECK_EQ(buf[0], 'd');
    CHECK_ERRNO(splice(p[0], NULL, out, NULL, 1, SPLICE_F_NONBLOCK), EAGAIN);
    CHECK_ERRNO(splice(in, NULL, out, NULL, 1, 0), EINVAL);
    CHECK_ERRNO(splice(p[0], &off, out, NULL, 1, 0), ESPIPE);
    CHECK_ERRNO(tee(in, p[1], 1, 0), EINVAL);
    struct iovec iov = {(void *)(uintptr_t) "xyz", 3};
    CHECK_EQ(vmsplice(p[1], &iov, 1, 0), 3);
    CHECK_EQ(read(p[0], buf, sizeof(buf)), 3);
    CHECK(memcmp(buf, "xyz", 3) == 0);
    OK(close(p[1]));
    CHECK_EQ(splice(p[0], NULL, out, NULL, 10, 0), 0);
}

/* ---- descriptors ---- */

TEST(dup_shares_the_position)
{
    int fd = fresh("f"), copy = OK(dup(fd));
    char buf[4];

    CHECK_EQ(write(fd, "abcdef", 6), 6);
    CHECK_EQ(lseek(copy, 0, SEEK_CUR), 6);
    OK(lseek(copy, 2, SEEK_SET));
    CHECK_EQ(read(fd, buf, 1), 1);
    CHECK_EQ(buf[0], 'c');
    OK(fcntl(fd, F_SETFD, FD_CLOEXEC));
    CHECK_EQ(fcntl(copy, F_GETFD), 0);
    CHECK_EQ(fcntl(OK(dup(fd)), F_GETFD), 0);
}

TEST(dup2_and_dup3)
{
    int fd = fresh("f");

    CHECK_EQ(dup2(fd, 100), 100);
    CHECK_EQ(dup2(fd, fd), fd);
    CHECK_EQ(dup3(fd, 101, O_CLOEXEC), 101);
    CHECK_EQ(fcntl(101, F_GETFD), FD_CLOEXEC);
    CHECK_ERRNO(dup3(fd, fd, 0), EINVAL);
    CHECK_ERRNO(dup3(fd, 102, O_NONBLOCK), EINVAL);
    CHECK_ERRNO(dup2(9999, 5), EBADF);
    CHECK_ERRNO(dup2(9999, 9999), EBADF);
    CHECK_ERRNO(dup2(fd, -1), EBADF);
    CHECK_ERRNO(dup2(fd, 1 << 30), EBADF);
    CHECK_EQ(fcntl(fd, F_DUPFD, 200), 200);
    CHECK_EQ(fcntl(fd, F_DUPFD_CLOEXEC, 200), 201);
    CHECK_EQ(fcntl(201, F_GETFD), FD_CLOEXEC);
    CHECK_ERRNO(fcntl(fd, F_DUPFD, -1), EINVAL);
}

TEST(descriptor_limit)
{
    struct rlimit rl;
    int fd = fresh("f");

    OK(getrlimit(RLIMIT_NOFILE, &rl));
    rl.rlim_cur = (rlim_t)fd + 2;
    OK(setrlimit(RLIMIT_NOFILE, &rl));
    CHECK_EQ(dup(fd), fd + 1);
    CHECK_ERRNO(dup(fd), EMFILE);
    CHECK_ERRNO(open("f", O_RDONLY), EMFILE);
    CHECK_ERRNO(fcntl(fd, F_DUPFD, fd + 2), EINVAL);
    CHECK_ERRNO(dup2(fd, fd + 2), EBADF);
    int p[2];
    CHECK_ERRNO(pipe(p), EMFILE);
    OK(close(fd + 1));
    CHECK_ERRNO(pipe(p), EMFILE);
    CHECK_EQ(dup(fd), fd + 1);
}

TEST(lowest_descriptor_first)
{
    int a = fresh("f"), b = OK(dup(a)), c = OK(dup(a));

    OK(close(b));
    CHECK_EQ(dup(a), b);
    OK(close(a));
    CHECK_EQ(open("f", O_RDONLY), a);
    CHECK_ERRNO(close(9999), EBADF);
    OK(close(c));
    CHECK_ERRNO(close(c), EBADF);
}

TEST(close_range_flags)
{
    int fd = fresh("f");

    for (int i = 100; i < 110; i++)
        OK(dup2(fd, i));
    if (syscall(SYS_close_range, 103, 104, 0) < 0 && errno == ENOSYS)
        conf_skip("kernel before 5.9");
    CHECK_ERRNO(fcntl(103, F_GETFD), EBADF);
    OK(fcntl(105, F_GETFD));
    OK(syscall(SYS_close_range, 105, 106, CLOSE_RANGE_CLOEXEC));
    CHECK_EQ(fcntl(106, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(fcntl(107, F_GETFD), 0);
    CHECK_ERRNO(syscall(SYS_close_range, 10, 9, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_close_range, 100, 101, 77), EINVAL);
    OK(syscall(SYS_close_range, 100, -1, CLOSE_RANGE_UNSHARE));
    CHECK_ERRNO(fcntl(109, F_GETFD), EBADF);
    OK(fcntl(fd, F_GETFD));
}

TEST(status_flags)
{
    int fd = OK(open("f", O_RDWR | O_CREAT | O_APPEND, 0600)), w = OK(open("f", O_WRONLY | O_SYNC));

    CHECK_EQ(fcntl(fd, F_GETFL) & ~0100000, O_RDWR | O_APPEND);
    CHECK_EQ(fcntl(fd, F_GETFL) & 0100000, 0100000);
    OK(fcntl(fd, F_SETFL, O_NONBLOCK | O_WRONLY));
    CHECK_EQ(fcntl(fd, F_GETFL) & ~0100000, O_RDWR | O_NONBLOCK);
    CHECK_EQ(fcntl(w, F_GETFL) & (O_ACCMODE | O_SYNC), O_WRONLY | O_SYNC);
    CHECK_ERRNO(fcntl(fd, 9999), EINVAL);
    CHECK_ERRNO(fcntl(9999, F_GETFL), EBADF);
    OK(fcntl(fd, F_SETOWN, getpid()));
    CHECK_EQ(fcntl(fd, F_GETOWN), getpid());
    CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
}

TEST(common_ioctls)
{
    int fd = fresh("f"), n = -1, on = 1;

    CHECK_EQ(write(fd, "abcdef", 6), 6);
    OK(lseek(fd, 2, SEEK_SET));
    OK(ioctl(fd, FIONREAD, &n));
    CHECK_EQ(n, 4);
    OK(ioctl(fd, FIOCLEX));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    OK(ioctl(fd, FIONCLEX));
    CHECK_EQ(fcntl(fd, F_GETFD), 0);
    OK(ioctl(fd, FIONBIO, &on));
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    CHECK_ERRNO(ioctl(fd, TIOCGWINSZ, &n), ENOTTY);
    CHECK_ERRNO(ioctl(9999, FIONREAD, &n), EBADF);
    CHECK_EQ(isatty(fd), 0);
}

TEST(pipe_basics)
{
    int p[2];
    char buf[8];

    OK(pipe2(p, O_CLOEXEC | O_NONBLOCK));
    CHECK_EQ(fcntl(p[1], F_GETFD), FD_CLOEXEC);
    CHECK_EQ(fcntl(p[0], F_GETFL), O_RDONLY | O_NONBLOCK);
    CHECK_EQ(fcntl(p[1], F_GETFL), O_WRONLY | O_NONBLOCK);
    CHECK_ERRNO(read(p[0], buf, 1), EAGAIN);
    CHECK_EQ(write(p[1], "abc", 3), 3);
    CHECK_EQ(read(p[0], buf, 8), 3);
    CHECK_ERRNO(write(p[0], "x", 1), EBADF);
    CHECK_ERRNO(read(p[1], buf, 1), EBADF);
    CHECK_ERRNO(lseek(p[0], 0, SEEK_SET), ESPIPE);
    CHECK_ERRNO(pread(p[0], buf, 1, 0), ESPIPE);
    CHECK_EQ(fcntl(p[0], F_GETPIPE_SZ), 65536);
    CHECK_EQ(fcntl(p[0], F_SETPIPE_SZ, 5000), 8192);
    CHECK_ERRNO(pipe2(p, O_APPEND), EINVAL);
    CHECK_ERRNO(syscall(SYS_pipe2, 8L, 0), EFAULT);
    conf_handler(SIGPIPE, noted, 0);
    OK(pipe(p));
    OK(close(p[0]));
    CHECK_ERRNO(write(p[1], "x", 1), EPIPE);
}

TEST(fifo_opens_block_for_the_other_end)
{
    OK(mkfifo("ff", 0600));
    CHECK(S_ISFIFO(mode_of("ff")));
    CHECK_ERRNO(open("ff", O_WRONLY | O_NONBLOCK), ENXIO);
    pid_t pid = conf_fork();
    if (pid == 0) {
        int w = OK(open("ff", O_WRONLY));
        _exit(write(w, "hi", 2) != 2);
    }
    int r = OK(open("ff", O_RDONLY));
    char buf[4];
    CHECK_EQ(read(r, buf, 4), 2);
    CHECK_EXIT(pid, 0);
    CHECK_EQ(read(r, buf, 4), 0);
}

/* ---- locks ---- */

static int lock(int fd, int cmd, short type, off_t start, off_t len)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

    return fcntl(fd, cmd, &l);
}

TEST(record_locks_between_processes)
{
    int fd = fresh("f");

    OK(lock(fd, F_SETLK, F_WRLCK, 10, 10));
    pid_t pid = conf_fork();
    if (pid == 0) {
        struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
        CHECK_ERRNO(lock(fd, F_SETLK, F_RDLCK, 15, 1), EAGAIN);
        OK(lock(fd, F_SETLK, F_WRLCK, 0, 10));
        OK(lock(fd, F_SETLK, F_WRLCK, 20, 0));
        OK(fcntl(fd, F_GETLK, &l));
        CHECK_EQ(l.l_type, F_WRLCK);
        CHECK_EQ(l.l_start, 10);
        CHECK_EQ(l.l_len, 10);
        CHECK_EQ(l.l_pid, getppid());
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    OK(fcntl(fd, F_GETLK, &l));
    CHECK_EQ(l.l_type, F_UNLCK);
    CHECK_ERRNO(lock(fd, F_SETLK, 99, 0, 0), EINVAL);
    CHECK_ERRNO(lock(fd, F_SETLK, F_RDLCK, -1, 0), EINVAL);
    CHECK_ERRNO(lock(OK(open("f", O_RDONLY)), F_SETLK, F_WRLCK, 0, 0), EBADF);
}

TEST(record_lock_waits)
{
    int fd = fresh("f");
    volatile int *step = conf_shared(CONF_PAGE);

    OK(lock(fd, F_SETLK, F_WRLCK, 0, 0));
    pid_t pid = conf_fork();
    if (pid == 0) {
        *step = 1;
        OK(lock(fd, F_SETLKW, F_WRLCK, 0, 0));
        _exit(*step == 2 ? 0 : 1);
    }
    conf_await(step, 1);
    conf_await_asleep(pid);
    *step = 2;
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    CHECK_EXIT(pid, 0);
}

TEST(record_locks_go_with_any_close)
{
    int fd = fresh("f");

    OK(lock(fd, F_SETLK, F_WRLCK, 0, 0));
    OK(close(OK(open("f", O_RDONLY))));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(lock(fd, F_SETLK, F_WRLCK, 0, 0));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(open_file_locks)
{
    int a = fresh("f"), b = OK(open("f", O_RDWR));

    OK(lock(a, F_OFD_SETLK, F_WRLCK, 0, 0));
    CHECK_ERRNO(lock(b, F_OFD_SETLK, F_RDLCK, 0, 0), EAGAIN);
    OK(lock(OK(dup(a)), F_OFD_SETLK, F_WRLCK, 0, 0));
    OK(lock(a, F_OFD_SETLK, F_UNLCK, 0, 0));
    OK(lock(b, F_OFD_SETLK, F_RDLCK, 0, 0));
}

TEST(flock_between_open_files)
{
    int a = fresh("f"), b = OK(open("f", O_RDWR));

    OK(flock(a, LOCK_SH));
    OK(flock(b, LOCK_SH | LOCK_NB));
    CHECK_ERRNO(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    OK(flock(a, LOCK_UN));
    OK(flock(b, LOCK_EX | LOCK_NB));
    CHECK_ERRNO(flock(a, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    OK(close(b));
    OK(flock(a, LOCK_EX | LOCK_NB));
    CHECK_ERRNO(flock(a, 0), EINVAL);
    CHECK_ERRNO(flock(9999, LOCK_SH), EBADF);
}

/* ---- memfd, extended attributes ---- */

TEST(memfd_and_seals)
{
    int fd = OK(memfd_create("m", MFD_ALLOW_SEALING | MFD_CLOEXEC)),
        plain = OK(memfd_create("p", 0));
    char buf[4];

    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(write(fd, "abc", 3), 3);
    CHECK_EQ(pread(fd, buf, 3, 0), 3);
    CHECK_EQ(fcntl(fd, F_GET_SEALS), 0);
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK));
    CHECK_ERRNO(ftruncate(fd, 1), EPERM);
    CHECK_ERRNO(ftruncate(fd, 100), EPERM);
    CHECK_EQ(pwrite(fd, "x", 1, 0), 1);
    CHECK_ERRNO(pwrite(fd, "x", 1, 3), EPERM);
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    CHECK_ERRNO(pwrite(fd, "x", 1, 0), EPERM);
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
    CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
    CHECK_EQ(fcntl(plain, F_GET_SEALS), F_SEAL_SEAL);
    CHECK_ERRNO(fcntl(plain, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
    CHECK_ERRNO(fcntl(fresh("f"), F_ADD_SEALS, 0x100000), EINVAL);
    CHECK_ERRNO(memfd_create("m", 0x8000), EINVAL);
}

/* Who seals a file against writing is not answered by who maps it to read, or for himself. */
TEST(seals_and_mappings)
{
    static const int seals[] = {F_SEAL_WRITE, F_SEAL_FUTURE_WRITE};

    for (size_t i = 0; i < 2; i++) {
        int fd = OK(memfd_create("m", MFD_ALLOW_SEALING));
        OK(ftruncate(fd, CONF_PAGE));
        char *own = mmap(NULL, CONF_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
        CHECK(own != MAP_FAILED);
        char *old = mmap(NULL, CONF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(old != MAP_FAILED);
        if (seals[i] == F_SEAL_WRITE) {
            CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, seals[i]), EBUSY);
            /* Also one that could be made writable. */
            OK(mprotect(old, CONF_PAGE, PROT_READ));
            CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, seals[i]), EBUSY);
            OK(munmap(old, CONF_PAGE));
        }
        OK(fcntl(fd, F_ADD_SEALS, seals[i]));
        own[0] = 1;
        if (seals[i] == F_SEAL_FUTURE_WRITE)
            old[0] = 2;
        CHECK(mmap(NULL, CONF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
        CHECK_EQ(errno, EPERM);
        CHECK(mmap(NULL, CONF_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) != MAP_FAILED);
        char *again = mmap(NULL, CONF_PAGE, PROT_READ, MAP_SHARED, fd, 0);
        /* Linux before 6.7 gives none to who might write. */
        if (again != MAP_FAILED)
            CHECK_ERRNO(mprotect(again, CONF_PAGE, PROT_READ | PROT_WRITE), EACCES);
        OK(close(fd));
    }
}

/* Parts and copies of a mapping count, too, till the last of them is gone. */
TEST(seals_and_parts_of_mappings)
{
    int fd = OK(memfd_create("m", MFD_ALLOW_SEALING));
    OK(ftruncate(fd, 4 * CONF_PAGE));
    char *p = mmap(NULL, 4 * CONF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    OK(mprotect(p + CONF_PAGE, CONF_PAGE, PROT_NONE));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(munmap(p, 4 * CONF_PAGE));
        CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(munmap(p, CONF_PAGE));
    OK(munmap(p + 2 * CONF_PAGE, 2 * CONF_PAGE));
    CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    char *moved = mremap(p + CONF_PAGE, CONF_PAGE, 2 * CONF_PAGE, MREMAP_MAYMOVE);
    CHECK(moved != MAP_FAILED);
    CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    OK(munmap(moved, 2 * CONF_PAGE));
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
}

TEST(extended_attributes)
{
    char buf[64];
    int fd = fresh("f");

    if (setxattr("f", "user.a", "one", 3, 0) < 0 && errno == EOPNOTSUPP)
        conf_skip("the file system has no user attributes");
    CHECK_EQ(getxattr("f", "user.a", buf, sizeof(buf)), 3);
    CHECK(memcmp(buf, "one", 3) == 0);
    CHECK_EQ(fgetxattr(fd, "user.a", NULL, 0), 3);
    CHECK_ERRNO(getxattr("f", "user.a", buf, 2), ERANGE);
    CHECK_ERRNO(getxattr("f", "user.none", buf, 2), ENODATA);
    CHECK_ERRNO(setxattr("f", "user.a", "two", 3, XATTR_CREATE), EEXIST);
    CHECK_ERRNO(setxattr("f", "user.b", "two", 3, XATTR_REPLACE), ENODATA);
    CHECK_ERRNO(setxattr("f", "nothing", "x", 1, 0), EOPNOTSUPP);
    CHECK_ERRNO(setxattr("f", "user.a", "x", 1, 7), EINVAL);
    OK(fsetxattr(fd, "user.b", "", 0, 0));
    CHECK_EQ(flistxattr(fd, NULL, 0), 14);
    CHECK_EQ(listxattr("f", buf, sizeof(buf)), 14);
    OK(removexattr("f", "user.a"));
    CHECK_ERRNO(fremovexattr(fd, "user.a"), ENODATA);
}
