/* Landlock: landlock(7), Documentation/userspace-api/landlock.rst, security/landlock of Linux. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "harness.h"

CONF_FAMILY("landlock");

struct ruleset_attr {
    uint64_t fs, net, scoped;
};
struct path_attr {
    uint64_t access;
    int32_t fd;
} __attribute__((packed));
struct port_attr {
    uint64_t access, port;
};

#define FS_EXECUTE 0x1u
#define FS_WRITE_FILE 0x2u
#define FS_READ_FILE 0x4u
#define FS_READ_DIR 0x8u
#define FS_REMOVE_DIR 0x10u
#define FS_REMOVE_FILE 0x20u
#define FS_MAKE_CHAR 0x40u
#define FS_MAKE_DIR 0x80u
#define FS_MAKE_REG 0x100u
#define FS_MAKE_SOCK 0x200u
#define FS_MAKE_FIFO 0x400u
#define FS_MAKE_SYM 0x1000u
#define FS_REFER 0x2000u
#define FS_TRUNCATE 0x4000u
#define FS_IOCTL_DEV 0x8000u
#define FS_ALL 0xffffu
#define NET_BIND 1u
#define NET_CONNECT 2u
#define SCOPE_ABSTRACT 1u
#define SCOPE_SIGNAL 2u

static int create(uint64_t fs, uint64_t net, uint64_t scoped)
{
    const struct ruleset_attr a = {fs, net, scoped};

    return (int)syscall(444, &a, sizeof(a), 0);
}

static void allow(int rs, const char *path, uint64_t access)
{
    struct path_attr a = {access, OK(open(path, O_PATH | O_CLOEXEC))};

    OK(syscall(445, rs, 1, &a, 0));
    OK(close(a.fd));
}

static void allow_port(int rs, uint64_t port, uint64_t access)
{
    const struct port_attr a = {access, port};

    OK(syscall(445, rs, 2, &a, 0));
}

static void enforce(int rs)
{
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    OK(syscall(446, rs, 0));
    OK(close(rs));
}

/* a/f, a/d/f, b/f, b/d/f */
static void make_tree(void)
{
    static const char *const dirs[] = {"a", "a/d", "b", "b/d"};
    char path[32];

    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
        OK(mkdir(dirs[i], 0777));
        snprintf(path, sizeof(path), "%s/f", dirs[i]);
        conf_put(path, "text");
    }
}

static int opened(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0644);

    if (fd < 0)
        return -errno;
    OK(close(fd));
    return 0;
}

TEST(version_and_errors)
{
    struct ruleset_attr a = {FS_READ_FILE, 0, 0};
    static char page[8192];

    CHECK(OK(syscall(444, NULL, 0, 1)) >= 7);
    CHECK_EQ(syscall(444, NULL, 0, 2) & 7, 7);
    CHECK_ERRNO(syscall(444, NULL, 0, 3), EINVAL);
    CHECK_ERRNO(syscall(444, &a, sizeof(a), 1), EINVAL);
    CHECK_ERRNO(syscall(444, NULL, sizeof(a), 0), EFAULT);
    CHECK_ERRNO(syscall(444, 8, sizeof(a), 0), EFAULT);
    CHECK_ERRNO(syscall(444, &a, 7, 0), EINVAL);
    CHECK_ERRNO(syscall(444, page, 4097, 0), E2BIG);
    memcpy(page, &a, sizeof(a));
    page[100] = 1;
    CHECK_ERRNO(syscall(444, page, 4096, 0), E2BIG);
    page[100] = 0;
    OK(syscall(444, page, 4096, 0));
    OK(syscall(444, &a, 8, 0));
    CHECK_ERRNO(create(0, 0, 0), ENOMSG);
    CHECK_ERRNO(create(1ull << 63, 0, 0), EINVAL);
    CHECK_ERRNO(create(0, 1ull << 63, 0), EINVAL);
    CHECK_ERRNO(create(0, 0, 1ull << 63), EINVAL);
    int rs = OK(create(FS_READ_FILE, 0, 0));
    CHECK_EQ(OK(fcntl(rs, F_GETFD)), FD_CLOEXEC);
}

TEST(rules_are_checked)
{
    conf_put("f", "x");
    int rs = OK(create(FS_READ_FILE | FS_MAKE_REG, NET_BIND, 0)), pipes[2];
    struct path_attr a = {FS_READ_FILE, OK(open(".", O_PATH))};
    struct port_attr p = {NET_BIND, 80};

    OK(pipe(pipes));
    CHECK_ERRNO(syscall(445, rs, 1, &a, 1), EINVAL);
    CHECK_ERRNO(syscall(445, -1, 1, &a, 0), EBADF);
    CHECK_ERRNO(syscall(445, pipes[0], 1, &a, 0), EBADFD);
    CHECK_ERRNO(syscall(445, rs, 3, &a, 0), EINVAL);
    CHECK_ERRNO(syscall(445, rs, 1, NULL, 0), EFAULT);
    a.access = 0;
    CHECK_ERRNO(syscall(445, rs, 1, &a, 0), ENOMSG);
    a.access = FS_WRITE_FILE;
    CHECK_ERRNO(syscall(445, rs, 1, &a, 0), EINVAL);
    a.access = FS_READ_FILE;
    a.fd = -1;
    CHECK_ERRNO(syscall(445, rs, 1, &a, 0), EBADF);
    a.fd = rs;
    CHECK_ERRNO(syscall(445, rs, 1, &a, 0), EBADFD);
    a.fd = pipes[0];
    CHECK_ERRNO(syscall(445, rs, 1, &a, 0), EBADFD);
    a.fd = OK(open("f", O_RDONLY));
    OK(syscall(445, rs, 1, &a, 0));
    a.access = FS_MAKE_REG;
    CHECK_ERRNO(syscall(445, rs, 1, &a, 0), EINVAL);
    OK(syscall(445, rs, 2, &p, 0));
    p.port = 65536;
    CHECK_ERRNO(syscall(445, rs, 2, &p, 0), EINVAL);
    p = (struct port_attr){NET_CONNECT, 80};
    CHECK_ERRNO(syscall(445, rs, 2, &p, 0), EINVAL);
    p.access = 0;
    CHECK_ERRNO(syscall(445, rs, 2, &p, 0), ENOMSG);
}

TEST(restricting_oneself)
{
    int rs = OK(create(FS_READ_FILE, 0, 0));

    if (geteuid() == 0)
        conf_become(54321);
    CHECK_ERRNO(syscall(446, rs, 0), EPERM);
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK_ERRNO(syscall(446, rs, 1u << 31), EINVAL);
    CHECK_ERRNO(syscall(446, -1, 0), EBADF);
    CHECK_ERRNO(syscall(446, 0, 0), EBADFD);
    OK(syscall(446, -1, 4));
    for (int i = 0; i < 16; i++)
        OK(syscall(446, rs, 0));
    CHECK_ERRNO(syscall(446, rs, 0), E2BIG);
}

TEST(opening)
{
    make_tree();
    int before = OK(open("b/f", O_RDWR)), rs = OK(create(FS_ALL, 0, 0));
    char text[8];

    allow(rs, "a", FS_READ_FILE | FS_READ_DIR);
    allow(rs, "a/d", FS_WRITE_FILE);
    enforce(rs);
    CHECK_EQ(opened("a/f", O_RDONLY), 0);
    CHECK_EQ(opened("a/d/f", O_RDONLY), 0);
    CHECK_EQ(opened("a/d/f", O_RDWR), 0);
    CHECK_EQ(opened("a/d/f", O_WRONLY), 0);
    CHECK_EQ(opened("a/d/f", O_WRONLY | O_TRUNC), -EACCES);
    CHECK_EQ(opened("a/f", O_RDWR), -EACCES);
    CHECK_EQ(opened("a/f", O_WRONLY), -EACCES);
    CHECK_EQ(opened("a", O_RDONLY | O_DIRECTORY), 0);
    CHECK_EQ(opened("b", O_RDONLY | O_DIRECTORY), -EACCES);
    CHECK_EQ(opened("b/f", O_RDONLY), -EACCES);
    CHECK_EQ(opened("b/f", O_PATH), 0);
    CHECK_EQ(opened("b/none", O_RDONLY), -ENOENT);
    CHECK_EQ(opened("a/../b/f", O_RDONLY), -EACCES);
    CHECK_EQ(opened(".", O_RDONLY), -EACCES);
    CHECK_EQ(opened("/proc/self/status", O_RDONLY), -EACCES);
    /* What was open stays so. */
    CHECK_EQ(read(before, text, 4), 4);
    OK(ftruncate(before, 1));
    struct stat st;
    OK(stat("b/f", &st));
    OK(chdir("b"));
    /* What is in no tree. */
    int pipes[2];
    OK(pipe(pipes));
    OK(memfd_create("x", 0));
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", pipes[0]);
    CHECK_EQ(opened(path, O_RDONLY), 0);
}

TEST(inherited_by_children_and_programs)
{
    make_tree();
    int rs = OK(create(FS_READ_FILE, 0, 0));

    enforce(rs);
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(opened("a/f", O_RDONLY) == -EACCES ? 0 : 1);
    CHECK_EXIT(pid, 0);
}

TEST(layers)
{
    make_tree();
    int rs = OK(create(FS_READ_FILE | FS_WRITE_FILE, 0, 0));

    allow(rs, ".", FS_READ_FILE | FS_WRITE_FILE);
    enforce(rs);
    CHECK_EQ(opened("a/f", O_RDWR), 0);
    rs = OK(create(FS_WRITE_FILE, 0, 0));
    allow(rs, "a", FS_WRITE_FILE);
    enforce(rs);
    CHECK_EQ(opened("a/f", O_RDWR), 0);
    CHECK_EQ(opened("b/f", O_RDWR), -EACCES);
    CHECK_EQ(opened("b/f", O_RDONLY), 0);
    /* A layer cannot give back. */
    rs = OK(create(FS_WRITE_FILE, 0, 0));
    allow(rs, "/", FS_WRITE_FILE);
    enforce(rs);
    CHECK_EQ(opened("b/f", O_RDWR), -EACCES);
}

TEST(a_rule_for_a_file)
{
    make_tree();
    int rs = OK(create(FS_READ_FILE, 0, 0));

    allow(rs, "a/f", FS_READ_FILE);
    OK(link("a/f", "b/g"));
    enforce(rs);
    CHECK_EQ(opened("a/f", O_RDONLY), 0);
    CHECK_EQ(opened("b/g", O_RDONLY), 0);
    CHECK_EQ(opened("a/d/f", O_RDONLY), -EACCES);
}

HELPER(nothing)
{
    (void)argc;
    (void)argv;
    return 0;
}

static int runs(const char *path)
{
    char *const argv[] = {(char *)(uintptr_t)path, (char *)(uintptr_t) "--helper",
                          (char *)(uintptr_t) "nothing", NULL};
    pid_t pid = conf_fork();

    if (pid == 0) {
        execv(path, argv);
        _exit(errno);
    }
    return WEXITSTATUS(conf_wait(pid));
}

TEST(running)
{
    OK(mkdir("a", 0777));
    OK(mkdir("b", 0777));
    conf_copy_self("a/prog", 0755);
    conf_copy_self("b/prog", 0755);
    pid_t pid = conf_fork();
    if (pid == 0) {
        int rs = OK(create(FS_EXECUTE, 0, 0));
        allow(rs, "a", FS_EXECUTE);
        enforce(rs);
        CHECK_EQ(runs("a/prog"), 0);
        CHECK_EQ(runs("b/prog"), EACCES);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    int rs = OK(create(FS_EXECUTE | FS_READ_FILE, 0, 0));
    allow(rs, "a", FS_EXECUTE);
    enforce(rs);
    CHECK_EQ(runs("a/prog"), EACCES);
}

TEST(names)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "b/sock"};

    make_tree();
    int rs = OK(create(FS_ALL & ~(FS_READ_FILE | FS_WRITE_FILE | FS_READ_DIR), 0, 0));
    allow(rs, "a", FS_ALL & ~(FS_READ_FILE | FS_WRITE_FILE | FS_READ_DIR | FS_REFER));
    int s = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    enforce(rs);
    CHECK_ERRNO(mkdir("b/x", 0777), EACCES);
    CHECK_ERRNO(mkdir("b/d", 0777), EEXIST);
    CHECK_ERRNO(symlink("t", "b/x"), EACCES);
    CHECK_ERRNO(mkfifo("b/x", 0666), EACCES);
    CHECK_ERRNO(mknod("b/x", S_IFREG | 0666, 0), EACCES);
    CHECK_ERRNO(bind(s, (struct sockaddr *)&un, sizeof(un)), EACCES);
    CHECK_EQ(opened("b/x", O_RDWR | O_CREAT), -EACCES);
    CHECK_EQ(opened("b/f", O_RDWR | O_CREAT), 0);
    CHECK_ERRNO(unlink("b/f"), EACCES);
    CHECK_ERRNO(unlink("b/none"), ENOENT);
    CHECK_ERRNO(rmdir("b/d"), EACCES);
    CHECK_ERRNO(rename("b/f", "b/g"), EACCES);
    CHECK_ERRNO(link("b/f", "b/g"), EACCES);
    OK(mkdir("a/x", 0777));
    OK(rmdir("a/x"));
    OK(symlink("t", "a/x"));
    OK(rename("a/x", "a/y"));
    OK(link("a/f", "a/x"));
    OK(unlink("a/x"));
    OK(mkfifo("a/x", 0666));
    CHECK_EQ(opened("a/n", O_RDWR | O_CREAT | O_EXCL), 0);
    memcpy(un.sun_path, "a/sock", 7);
    OK(bind(s, (struct sockaddr *)&un, sizeof(un)));
}

TEST(from_one_directory_to_another)
{
    make_tree();
    pid_t pid = conf_fork();
    if (pid == 0) {
        /* Even when nothing of it is handled. */
        enforce(OK(create(FS_EXECUTE, 0, 0)));
        CHECK_ERRNO(rename("a/f", "b/g"), EXDEV);
        CHECK_ERRNO(link("a/f", "b/g"), EXDEV);
        CHECK_ERRNO(rename("a/d", "b/e"), EXDEV);
        CHECK_ERRNO(syscall(SYS_renameat2, AT_FDCWD, "a/f", AT_FDCWD, "b/f", 2), EXDEV);
        OK(rename("a/f", "a/g"));
        OK(rename("a/g", "a/f"));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    pid = conf_fork();
    if (pid == 0) {
        int rs = OK(create(FS_REFER | FS_MAKE_REG | FS_REMOVE_FILE, 0, 0));
        allow(rs, "a", FS_REFER | FS_MAKE_REG | FS_REMOVE_FILE);
        allow(rs, "b", FS_REFER);
        enforce(rs);
        CHECK_ERRNO(rename("a/f", "b/g"), EACCES);
        CHECK_ERRNO(rename("b/f", "a/g"), EACCES);
        /* Rights that only directories have do not grow with a file. */
        OK(link("b/f", "a/g"));
        OK(unlink("a/g"));
        CHECK_ERRNO(rename("b/d", "a/e"), EXDEV);
        OK(rename("a/f", "a/d/g"));
        OK(rename("a/d/g", "a/f"));
        OK(link("a/f", "a/d/g"));
        OK(unlink("a/d/g"));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    pid = conf_fork();
    if (pid == 0) {
        int rs = OK(create(FS_REFER | FS_EXECUTE | FS_MAKE_REG, 0, 0));
        allow(rs, "a", FS_REFER | FS_EXECUTE | FS_MAKE_REG);
        allow(rs, "b", FS_REFER | FS_MAKE_REG);
        enforce(rs);
        OK(rename("a/f", "b/g"));
        CHECK_ERRNO(rename("b/g", "a/f"), EXDEV);
        /* A swap needs both ways. */
        CHECK_ERRNO(syscall(SYS_renameat2, AT_FDCWD, "b/g", AT_FDCWD, "a/d/f", 2), EXDEV);
        OK(rename("a/d", "b/e"));
        CHECK_ERRNO(rename("b/e", "a/d"), EXDEV);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    /* With a rule for the file itself nothing grows. */
    int rs = OK(create(FS_REFER | FS_EXECUTE, 0, 0));
    allow(rs, "a", FS_REFER | FS_EXECUTE);
    allow(rs, "b", FS_REFER);
    allow(rs, "b/g", FS_EXECUTE);
    enforce(rs);
    OK(rename("b/g", "a/f"));
}

TEST(truncating)
{
    make_tree();
    int rs = OK(create(FS_TRUNCATE | FS_WRITE_FILE, 0, 0)), before = OK(open("b/f", O_WRONLY));

    allow(rs, "a", FS_TRUNCATE | FS_WRITE_FILE);
    allow(rs, "b", FS_WRITE_FILE);
    enforce(rs);
    OK(truncate("a/f", 1));
    CHECK_ERRNO(truncate("b/f", 1), EACCES);
    CHECK_EQ(opened("b/f", O_WRONLY | O_TRUNC), -EACCES);
    CHECK_EQ(opened("b/f", O_WRONLY), 0);
    CHECK_EQ(opened("a/f", O_WRONLY | O_TRUNC), 0);
    int fd = OK(open("b/f", O_WRONLY));
    CHECK_ERRNO(ftruncate(fd, 1), EACCES);
    OK(ftruncate(before, 1));
    fd = OK(open("a/f", O_WRONLY));
    OK(ftruncate(fd, 1));
}

TEST(devices)
{
    int n, before = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY)), rs = OK(create(FS_IOCTL_DEV, 0, 0));

    make_tree();
    enforce(rs);
    OK(ioctl(before, FIONREAD, &n));
    int tty = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY));
    CHECK_ERRNO(ioctl(tty, FIONREAD, &n), EACCES);
    CHECK_ERRNO(ioctl(tty, 0x5401, &n), EACCES);
    n = 1;
    OK(ioctl(tty, FIONBIO, &n));
    OK(ioctl(tty, FIOCLEX));
    int fd = OK(open("a/f", O_RDONLY));
    OK(ioctl(fd, FIONREAD, &n));
}

TEST(mounts)
{
    NEED_ROOT();
    OK(unshare(CLONE_NEWNS));
    OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(mkdir("m", 0777));
    OK(mkdir("n", 0777));
    OK(mount("x", "m", "tmpfs", 0, NULL));
    conf_put("m/f", "x");
    int rs = OK(create(FS_READ_FILE, 0, 0));
    allow(rs, ".", FS_READ_FILE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        enforce(OK(create(0, NET_BIND, 0)));
        OK(mount("x", "n", "tmpfs", 0, NULL));
        OK(umount("n"));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    enforce(rs);
    /* A rule reaches across what is mounted. */
    CHECK_EQ(opened("m/f", O_RDONLY), 0);
    CHECK_ERRNO(mount("x", "n", "tmpfs", 0, NULL), EPERM);
    CHECK_ERRNO(mount("m", "n", NULL, MS_BIND, NULL), EPERM);
    CHECK_ERRNO(umount("m"), EPERM);
    CHECK_ERRNO(mount(NULL, "m", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), EPERM);
    CHECK_ERRNO(syscall(SYS_pivot_root, "m", "m"), EPERM);
}

static int tcp(void)
{
    return OK(socket(AF_INET, SOCK_STREAM, 0));
}

static struct sockaddr_in local(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

TEST(ports)
{
    struct sockaddr_in a = local(0);
    socklen_t len = sizeof(a);
    int listener = tcp(), udp = OK(socket(AF_INET, SOCK_DGRAM, 0));

    OK(bind(listener, (struct sockaddr *)&a, sizeof(a)));
    OK(listen(listener, 5));
    OK(getsockname(listener, (struct sockaddr *)&a, &len));
    int rs = OK(create(0, NET_BIND | NET_CONNECT, 0));
    allow_port(rs, ntohs(a.sin_port), NET_CONNECT);
    allow_port(rs, 0, NET_BIND);
    enforce(rs);
    OK(connect(tcp(), (struct sockaddr *)&a, sizeof(a)));
    struct sockaddr_in other = local(1);
    CHECK_ERRNO(connect(tcp(), (struct sockaddr *)&other, sizeof(other)), EACCES);
    CHECK_ERRNO(bind(tcp(), (struct sockaddr *)&other, sizeof(other)), EACCES);
    CHECK_ERRNO(bind(tcp(), (struct sockaddr *)&a, sizeof(a)), EACCES);
    struct sockaddr_in any = local(0);
    OK(bind(tcp(), (struct sockaddr *)&any, sizeof(any)));
    OK(bind(udp, (struct sockaddr *)&any, sizeof(any)));
    OK(connect(udp, (struct sockaddr *)&other, sizeof(other)));
    CHECK_ERRNO(connect(tcp(), (struct sockaddr *)&other, 1), EINVAL);
    CHECK_ERRNO(bind(tcp(), (struct sockaddr *)&other, 8), EINVAL);
    other.sin_family = AF_UNSPEC;
    CHECK_ERRNO(bind(tcp(), (struct sockaddr *)&other, sizeof(other)), EAFNOSUPPORT);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    CHECK_ERRNO(bind(tcp(), (struct sockaddr *)&six, sizeof(six)), EINVAL);
}

TEST(scope_of_signals)
{
    volatile int *done = conf_shared(CONF_PAGE);
    pid_t outside = conf_fork();
    if (outside == 0)
        for (;;)
            pause();
    enforce(OK(create(0, 0, SCOPE_SIGNAL)));
    CHECK_ERRNO(kill(outside, 0), EPERM);
    CHECK_ERRNO(kill(getppid(), 0), EPERM);
    OK(kill(getpid(), 0));
    pid_t inside = conf_fork();
    if (inside == 0) {
        CHECK_EQ(kill(getppid(), 0), 0);
        enforce(OK(create(0, 0, SCOPE_SIGNAL)));
        CHECK_ERRNO(kill(getppid(), 0), EPERM);
        *done = 1;
        for (;;)
            pause();
    }
    conf_await(done, 1);
    conf_kill(inside);
    /* The harness ends the whole group. */
}

static socklen_t abstract(struct sockaddr_un *un, const char *name)
{
    *un = (struct sockaddr_un){.sun_family = AF_UNIX};
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                       (size_t)snprintf(un->sun_path + 1, 90, "%s-%d", name, (int)getppid()));
}

TEST(scope_of_abstract_sockets)
{
    struct sockaddr_un stream, dgram;
    socklen_t stream_len = abstract(&stream, "ll-s"), dgram_len = abstract(&dgram, "ll-d");
    int s = OK(socket(AF_UNIX, SOCK_STREAM, 0)), d = OK(socket(AF_UNIX, SOCK_DGRAM, 0));

    OK(bind(s, (struct sockaddr *)&stream, stream_len));
    OK(listen(s, 5));
    OK(bind(d, (struct sockaddr *)&dgram, dgram_len));
    int known = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    OK(connect(known, (struct sockaddr *)&dgram, dgram_len));
    enforce(OK(create(0, 0, SCOPE_ABSTRACT)));
    int c = OK(socket(AF_UNIX, SOCK_STREAM, 0)), e = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    CHECK_ERRNO(connect(c, (struct sockaddr *)&stream, stream_len), EPERM);
    CHECK_ERRNO(connect(e, (struct sockaddr *)&dgram, dgram_len), EPERM);
    CHECK_ERRNO(sendto(e, "x", 1, 0, (struct sockaddr *)&dgram, dgram_len), EPERM);
    CHECK_EQ(send(known, "x", 1, 0), 1);
    CHECK_EQ(sendto(known, "x", 1, 0, (struct sockaddr *)&dgram, dgram_len), 1);
    /* What was made inside can be reached. */
    struct sockaddr_un own;
    socklen_t own_len = abstract(&own, "ll-o");
    int o = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(bind(o, (struct sockaddr *)&own, own_len));
    OK(listen(o, 5));
    OK(connect(c, (struct sockaddr *)&own, own_len));
}

TEST(tracing_goes_down_only)
{
    int *go = conf_shared(sizeof(*go));
    pid_t outside = conf_fork();
    if (outside == 0)
        for (;;)
            pause();
    pid_t pid = conf_fork();
    if (pid == 0) {
        enforce(OK(create(FS_EXECUTE, 0, 0)));
        CHECK_ERRNO(ptrace(PTRACE_ATTACH, outside, NULL, NULL), EPERM);
        pid_t child = conf_fork();
        if (child == 0)
            for (;;)
                pause();
        OK(ptrace(PTRACE_ATTACH, child, NULL, NULL));
        CHECK(WIFSTOPPED(conf_wait(child)));
        conf_kill(child);
        *go = 1;
        for (;;)
            pause();
    }
    conf_await(go, 1);
    conf_kill(pid);
    conf_kill(outside);
}
