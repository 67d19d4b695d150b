/* Devices in /dev: null(4), full(4), random(4), their names. */
#include "harness.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

#include <linux/random.h>

CONF_FAMILY("dev");

/* Where the compiler knows of nothing. */
static void *volatile bad_pointer = (void *)8;

static bool is_fill(const unsigned char *p, size_t n, unsigned char c)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != c)
            return false;
    return true;
}

TEST(numbers)
{
    static const struct {
        const char *path;
        unsigned major, minor;
    } nodes[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
                 {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};
    for (size_t i = 0; i < ARRAY_SIZE(nodes); i++) {
        struct stat st;
        OK(stat(nodes[i].path, &st));
        CHECK(S_ISCHR(st.st_mode));
        CHECK_EQ(st.st_mode & 0666, 0666);
        CHECK_EQ(st.st_rdev, makedev(nodes[i].major, nodes[i].minor));
    }
}

TEST(links_to_descriptors)
{
    char target[256] = "";
    OK(readlink("/dev/fd", target, sizeof(target) - 1));
    CHECK_STR(target, "/proc/self/fd");
    memset(target, 0, sizeof(target));
    OK(readlink("/dev/stderr", target, sizeof(target) - 1));
    CHECK_STR(target, "/proc/self/fd/2");
    int p[2];
    OK(pipe(p));
    char path[64], c = 0;
    snprintf(path, sizeof(path), "/dev/fd/%d", p[1]);
    int fd = OK(open(path, O_WRONLY));
    CHECK_EQ(write(fd, "x", 1), 1);
    CHECK_EQ(read(p[0], &c, 1), 1);
    CHECK_EQ(c, 'x');
}

TEST(null)
{
    int fd = OK(open("/dev/null", O_RDWR));
    char buf[8];
    CHECK_EQ(read(fd, buf, sizeof(buf)), 0);
    CHECK_EQ(write(fd, "abc", 3), 3);
    CHECK_EQ(write(fd, bad_pointer, 1000), 1000);
    CHECK_EQ(lseek(fd, 100, SEEK_SET), 0);
    CHECK_EQ(pread(fd, buf, 1, 5), 0);
    CHECK_EQ(pwrite(fd, buf, 1, 5), 1);
    CHECK_ERRNO(mmap(NULL, CONF_PAGE, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0,
                ENODEV);
    CHECK_ERRNO(ftruncate(fd, 0), EINVAL);
    CHECK_ERRNO(fsync(fd), EINVAL);
    int n;
    CHECK_ERRNO(ioctl(fd, FIONREAD, &n), ENOTTY);
    OK(close(OK(open("/dev/null", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600))));
    CHECK_ERRNO(open("/dev/null/x", O_RDONLY), ENOTDIR);
    CHECK_ERRNO(open("/dev/null", O_RDONLY | O_DIRECTORY), ENOTDIR);
}

TEST(null_is_always_ready)
{
    struct pollfd p = {.fd = OK(open("/dev/null", O_RDWR)), .events = POLLIN | POLLOUT};
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLIN | POLLOUT);
    int ep = OK(epoll_create1(0));
    struct epoll_event ev = {.events = EPOLLIN};
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, p.fd, &ev), EPERM);
}

TEST(zero)
{
    int fd = OK(open("/dev/zero", O_RDWR));
    static unsigned char buf[100000];
    memset(buf, 1, sizeof(buf));
    CHECK_EQ(read(fd, buf, sizeof(buf)), sizeof(buf));
    CHECK(is_fill(buf, sizeof(buf), 0));
    CHECK_EQ(write(fd, buf, 10), 10);
    CHECK_EQ(lseek(fd, 7, SEEK_CUR), 0);
    memset(buf, 1, 16);
    struct iovec iov[2] = {{buf, 3}, {buf + 8, 3}};
    CHECK_EQ(readv(fd, iov, 2), 6);
    CHECK(is_fill(buf, 3, 0) && is_fill(buf + 3, 5, 1) && is_fill(buf + 8, 3, 0));
    CHECK_ERRNO(read(fd, bad_pointer, 1), EFAULT);
}

TEST(zero_mapped_private)
{
    int fd = OK(open("/dev/zero", O_RDONLY));
    unsigned char *p = OK(mmap(NULL, 2 * CONF_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    CHECK(is_fill(p, 2 * CONF_PAGE, 0));
    p[5] = 1;
    pid_t pid = conf_fork();
    if (pid == 0) {
        p[5] = 2;
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(p[5], 1);
    unsigned char *q = OK(mmap(NULL, CONF_PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
    CHECK_EQ(q[5], 0);
    CHECK_ERRNO(mmap(NULL, CONF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1
                                                                                               : 0,
                EACCES);
}

TEST(zero_mapped_shared)
{
    int fd = OK(open("/dev/zero", O_RDWR));
    unsigned char *p = OK(mmap(NULL, CONF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    unsigned char *q = OK(mmap(NULL, CONF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    OK(close(fd));
    pid_t pid = conf_fork();
    if (pid == 0) {
        p[5] = 7;
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(p[5], 7);
    /* Each mapping is memory of its own. */
    CHECK_EQ(q[5], 0);
}

TEST(full)
{
    int fd = OK(open("/dev/full", O_RDWR));
    unsigned char buf[64];
    memset(buf, 1, sizeof(buf));
    CHECK_EQ(read(fd, buf, sizeof(buf)), sizeof(buf));
    CHECK(is_fill(buf, sizeof(buf), 0));
    CHECK_ERRNO(write(fd, "x", 1), ENOSPC);
    CHECK_EQ(lseek(fd, 9, SEEK_SET), 0);
}

/* waited_for: the device has a poll operation of its own. */
static void check_random(const char *path, bool waited_for)
{
    int fd = OK(open(path, O_RDWR));
    static unsigned char a[5000], b[5000];
    CHECK_EQ(read(fd, a, sizeof(a)), sizeof(a));
    CHECK_EQ(read(fd, b, sizeof(b)), sizeof(b));
    CHECK(memcmp(a, b, sizeof(a)) != 0);
    CHECK(!is_fill(a + sizeof(a) - 32, 32, 0));
    CHECK_EQ(write(fd, a, 300), 300);
    CHECK_ERRNO(read(fd, bad_pointer, 1), EFAULT);
    CHECK_ERRNO(write(fd, bad_pointer, 1), EFAULT);
    int n = 0;
    OK(ioctl(fd, RNDGETENTCNT, &n));
    CHECK(n > 0);
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, waited_for ? POLLIN : POLLIN | POLLOUT);
    int ep = OK(epoll_create1(0));
    struct epoll_event ev = {.events = EPOLLIN};
    if (!waited_for) {
        CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), EPERM);
        return;
    }
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 1);
}

TEST(random)
{
    check_random("/dev/random", true);
}

TEST(urandom)
{
    check_random("/dev/urandom", false);
}

TEST(tty_without_a_terminal)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(setsid());
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(node_nobody_serves)
{
    NEED_ROOT();
    if (mknod("/dev/conf-node", S_IFCHR | 0600, makedev(240, 77)) != 0) {
        CHECK_EQ(errno, EPERM);
        conf_skip("may not make devices");
    }
    int fd = open("/dev/conf-node", O_RDWR);
    int err = errno;
    OK(unlink("/dev/conf-node"));
    CHECK_EQ(fd, -1);
    CHECK_EQ(err, ENXIO);
}

TEST(node_of_our_own)
{
    NEED_ROOT();
    if (mknod("/dev/conf-null", S_IFCHR | 0600, makedev(1, 3)) != 0) {
        CHECK_EQ(errno, EPERM);
        conf_skip("may not make devices");
    }
    int fd = open("/dev/conf-null", O_RDWR);
    OK(unlink("/dev/conf-null"));
    CHECK_EQ(write(fd, "abc", 3), 3);
}
