/* POSIX message queues: names, order, limits, waiting, notification, the file system. */
#include "harness.h"

#include <dirent.h>
#include <linux/mqueue.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>

CONF_FAMILY("mqueue");

static char own_name[32];

/* As the kernel has it: without the slash of mq_open(3). */
static const char *name_of(int n)
{
    snprintf(own_name, sizeof(own_name), "conf-%d-%d", getpid(), n);
    return own_name;
}

static int k_open(const char *name, int flags, mode_t mode, const struct mq_attr *attr)
{
    return (int)syscall(SYS_mq_open, name, flags, mode, attr);
}

static int k_unlink(const char *name)
{
    return (int)syscall(SYS_mq_unlink, name);
}

static int k_send(int fd, const char *text, unsigned prio, const struct timespec *ts)
{
    return (int)syscall(SYS_mq_timedsend, fd, text, strlen(text) + 1, prio, ts);
}

static long k_receive(int fd, char *buf, size_t size, unsigned *prio, const struct timespec *ts)
{
    return syscall(SYS_mq_timedreceive, fd, buf, size, prio, ts);
}

static int k_attr(int fd, const struct mq_attr *set, struct mq_attr *old)
{
    return (int)syscall(SYS_mq_getsetattr, fd, set, old);
}

static int k_notify(int fd, const struct sigevent *e)
{
    return (int)syscall(SYS_mq_notify, fd, e);
}

static const struct mq_attr small = {.mq_maxmsg = 4, .mq_msgsize = 64};

/* A queue without a name. */
static int make_queue(int flags)
{
    const char *name = name_of(0);
    int fd = OK(k_open(name, O_CREAT | O_EXCL | O_RDWR | flags, 0600, &small));
    OK(k_unlink(name));
    return fd;
}

static void expect(int fd, const char *text, unsigned want_prio)
{
    char buf[64];
    unsigned prio = 99;
    CHECK_EQ(k_receive(fd, buf, sizeof(buf), &prio, NULL), strlen(text) + 1);
    CHECK_STR(buf, text);
    CHECK_EQ(prio, want_prio);
}

TEST(names)
{
    const char *name = name_of(1);
    char longer[300];
    CHECK_ERRNO(k_open(name, O_RDWR, 0, NULL), ENOENT);
    CHECK_ERRNO(k_unlink(name), ENOENT);
    int fd = OK(k_open(name, O_CREAT | O_RDWR, 0640, &small));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_ERRNO(k_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &small), EEXIST);
    int again = OK(k_open(name, O_RDONLY, 0, NULL));
    CHECK_ERRNO(k_send(again, "x", 0, NULL), EBADF);
    OK(k_send(fd, "hello", 3, NULL));
    expect(again, "hello", 3);
    CHECK_ERRNO(k_open(name, O_ACCMODE, 0, NULL), EINVAL);
    OK(k_unlink(name));
    CHECK_ERRNO(k_open(name, O_RDWR, 0, NULL), ENOENT);
    OK(k_send(fd, "still", 1, NULL));
    expect(again, "still", 1);
    CHECK_ERRNO(k_open("", O_CREAT | O_RDWR, 0600, NULL), ENOENT);
    CHECK_ERRNO(k_open("/slash", O_CREAT | O_RDWR, 0600, NULL), EACCES);
    CHECK_ERRNO(k_open("a/b", O_CREAT | O_RDWR, 0600, NULL), EACCES);
    CHECK_ERRNO(k_open(".", O_RDWR, 0600, NULL), EACCES);
    CHECK_ERRNO(k_open((char *)16, O_RDWR, 0600, NULL), EFAULT);
    memset(longer, 'a', sizeof(longer));
    longer[256] = '\0';
    CHECK_ERRNO(k_open(longer, O_CREAT | O_RDWR, 0600, NULL), ENAMETOOLONG);
}

TEST(order)
{
    int fd = make_queue(0);
    OK(k_send(fd, "low", 1, NULL));
    OK(k_send(fd, "high a", 30000, NULL));
    OK(k_send(fd, "middle", 7, NULL));
    OK(k_send(fd, "high b", 30000, NULL));
    expect(fd, "high a", 30000);
    expect(fd, "high b", 30000);
    expect(fd, "middle", 7);
    expect(fd, "low", 1);
    CHECK_ERRNO(k_send(fd, "x", 32768, NULL), EINVAL);
    OK(k_send(fd, "x", 32767, NULL));
}

TEST(attributes)
{
    struct mq_attr a, set = {.mq_flags = O_NONBLOCK, .mq_maxmsg = 77};
    char buf[64];
    int fd = make_queue(0);
    OK(k_attr(fd, NULL, &a));
    CHECK_EQ(a.mq_flags, 0);
    CHECK_EQ(a.mq_maxmsg, 4);
    CHECK_EQ(a.mq_msgsize, 64);
    CHECK_EQ(a.mq_curmsgs, 0);
    OK(k_send(fd, "a", 0, NULL));
    OK(k_attr(fd, &set, &a));
    CHECK_EQ(a.mq_flags, 0);
    CHECK_EQ(a.mq_curmsgs, 1);
    OK(k_attr(fd, NULL, &a));
    CHECK_EQ(a.mq_flags, O_NONBLOCK);
    CHECK_EQ(a.mq_maxmsg, 4);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    for (int i = 0; i < 3; i++)
        OK(k_send(fd, "b", 0, NULL));
    CHECK_ERRNO(k_send(fd, "c", 0, NULL), EAGAIN);
    for (int i = 0; i < 4; i++)
        OK(k_receive(fd, buf, 64, NULL, NULL));
    CHECK_ERRNO(k_receive(fd, buf, 64, NULL, NULL), EAGAIN);
    CHECK_ERRNO(k_receive(fd, buf, 63, NULL, NULL), EMSGSIZE);
    CHECK_ERRNO(syscall(SYS_mq_timedsend, fd, buf, 65, 0, NULL), EMSGSIZE);
    CHECK_ERRNO(syscall(SYS_mq_timedsend, fd, 16, 8, 0, NULL), EFAULT);
    set.mq_flags = O_APPEND;
    CHECK_ERRNO(k_attr(fd, &set, NULL), EINVAL);
    CHECK_ERRNO(k_attr(0x7fff, NULL, &a), EBADF);
    int other = OK(open("/", O_RDONLY));
    CHECK_ERRNO(k_attr(other, NULL, &a), EBADF);
    CHECK_ERRNO(k_send(other, "x", 0, NULL), EBADF);
    CHECK_ERRNO(k_receive(other, buf, 64, NULL, NULL), EBADF);
}

TEST(limits)
{
    struct mq_attr a = {.mq_maxmsg = 0, .mq_msgsize = 10};
    const char *name = name_of(2);
    CHECK_ERRNO(k_open(name, O_CREAT | O_RDWR, 0600, &a), EINVAL);
    a.mq_maxmsg = 10;
    a.mq_msgsize = 0;
    CHECK_ERRNO(k_open(name, O_CREAT | O_RDWR, 0600, &a), EINVAL);
    a.mq_msgsize = -1;
    CHECK_ERRNO(k_open(name, O_CREAT | O_RDWR, 0600, &a), EINVAL);
    a.mq_maxmsg = 65537;
    a.mq_msgsize = 1;
    CHECK_ERRNO(k_open(name, O_CREAT | O_RDWR, 0600, &a), EINVAL);
    a.mq_maxmsg = 1;
    a.mq_msgsize = (16 << 20) + 1;
    CHECK_ERRNO(k_open(name, O_CREAT | O_RDWR, 0600, &a), EINVAL);
    CHECK_ERRNO(k_open(name, O_RDWR, 0600, NULL), ENOENT);
    int fd = OK(k_open(name, O_CREAT | O_RDWR, 0600, NULL));
    OK(k_attr(fd, NULL, &a));
    CHECK_EQ(a.mq_maxmsg, 10);
    CHECK_EQ(a.mq_msgsize, 8192);
    OK(k_unlink(name));
    pid_t pid = conf_fork();
    if (pid == 0) {
        if (geteuid() == 0)
            conf_become(2345);
        const char *own = name_of(3);
        a.mq_maxmsg = 11;
        CHECK_ERRNO(k_open(own, O_CREAT | O_RDWR, 0600, &a), EINVAL);
        a.mq_maxmsg = 10;
        struct rlimit lim = {2 * (10 * (8192 + 48) + 10 * 48), RLIM_INFINITY};
        OK(getrlimit(RLIMIT_MSGQUEUE, &lim));
        lim.rlim_cur = 2 * (10 * (8192 + 48) + 10 * 48);
        OK(setrlimit(RLIMIT_MSGQUEUE, &lim));
        int one = OK(k_open(own, O_CREAT | O_RDWR, 0600, &a));
        OK(k_unlink(own));
        OK(k_open(own, O_CREAT | O_RDWR, 0600, &a));
        OK(k_unlink(own));
        CHECK_ERRNO(k_open(own, O_CREAT | O_RDWR, 0600, &a), EMFILE);
        OK(close(one));
        OK(k_open(own, O_CREAT | O_RDWR, 0600, &a));
        OK(k_unlink(own));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(rights)
{
    NEED_ROOT();
    const char *name = name_of(4);
    int fd = OK(k_open(name, O_CREAT | O_RDWR, 0604, &small));
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(2345);
        OK(k_open(name, O_RDONLY, 0, NULL));
        CHECK_ERRNO(k_open(name, O_WRONLY, 0, NULL), EACCES);
        CHECK_ERRNO(k_unlink(name), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    struct stat st;
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_mode, S_IFREG | 0604);
    CHECK_EQ(st.st_size, 80);
    OK(k_unlink(name));
}

static long held_by(int fd)
{
    struct mq_attr a;
    OK(k_attr(fd, NULL, &a));
    return a.mq_curmsgs;
}

TEST(waiting)
{
    char buf[64];
    int fd = make_queue(0);
    pid_t pid = conf_fork();
    if (pid == 0) {
        expect(fd, "late", 5);
        for (int i = 0; i < 5; i++)
            OK(k_send(fd, "fill", 0, NULL));
        _exit(0);
    }
    conf_await_asleep(pid);
    OK(k_send(fd, "late", 5, NULL));
    EVENTUALLY(held_by(fd) == 4);
    conf_await_asleep(pid);
    CHECK_EQ(waitpid(pid, NULL, WNOHANG), 0);
    OK(k_receive(fd, buf, 64, NULL, NULL));
    CHECK_EXIT(pid, 0);
    CHECK_EQ(held_by(fd), 4);
}

static void on_signal(int sig)
{
    (void)sig;
}

TEST(timeouts)
{
    char buf[64];
    struct timespec ts, bad = {0, 1000000000}, past = {1, 0};
    int fd = make_queue(0);
    CHECK_ERRNO(k_receive(fd, buf, 64, NULL, &bad), EINVAL);
    CHECK_ERRNO(k_receive(fd, buf, 64, NULL, &past), ETIMEDOUT);
    int64_t start = conf_now();
    OK(clock_gettime(CLOCK_REALTIME, &ts));
    ts.tv_nsec += 50 * 1000 * 1000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_nsec -= 1000000000;
        ts.tv_sec++;
    }
    CHECK_ERRNO(k_receive(fd, buf, 64, NULL, &ts), ETIMEDOUT);
    CHECK(conf_now() - start >= 40 * 1000 * 1000);
    for (int i = 0; i < 4; i++)
        OK(k_send(fd, "x", 0, &past));
    CHECK_ERRNO(k_send(fd, "x", 0, &past), ETIMEDOUT);
    conf_handler(SIGALRM, on_signal, 0);
    /* Again and again: the first may come before the call. */
    OK(ualarm(50000, 50000));
    CHECK_ERRNO(k_send(fd, "x", 0, NULL), EINTR);
}

TEST(polling)
{
    int fd = make_queue(0);
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLOUT);
    for (int i = 0; i < 4; i++)
        OK(k_send(fd, "x", 0, NULL));
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLIN);
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_await_asleep(getppid());
        expect(fd, "x", 0);
        _exit(0);
    }
    p.events = POLLOUT;
    CHECK_EQ(poll(&p, 1, -1), 1);
    CHECK_EQ(p.revents, POLLOUT);
    CHECK_EXIT(pid, 0);
}

static volatile int notified, notify_code, notify_pid, notify_value;

static void on_notify(int sig, siginfo_t *info, void *ctx)
{
    (void)sig, (void)ctx;
    notify_code = info->si_code;
    notify_pid = info->si_pid;
    notify_value = info->si_value.sival_int;
    notified++;
}

TEST(notification)
{
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    char buf[64];
    int fd = make_queue(0);
    e.sigev_value.sival_int = 4321;
    conf_sigaction(SIGUSR1, on_notify, 0);
    OK(k_notify(fd, &e));
    CHECK_ERRNO(k_notify(fd, &e), EBUSY);
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK_ERRNO(k_notify(fd, &e), EBUSY);
        OK(k_notify(fd, NULL)); /* not its own */
        OK(k_send(fd, "a", 0, NULL));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    conf_await(&notified, 1);
    CHECK_EQ(notify_code, SI_MESGQ);
    CHECK_EQ(notify_pid, pid);
    CHECK_EQ(notify_value, 4321);
    /* Once; and not for a queue that is not empty. */
    OK(k_notify(fd, &e));
    OK(k_send(fd, "b", 0, NULL));
    conf_sleep_ms(20);
    CHECK_EQ(notified, 1);
    OK(k_receive(fd, buf, 64, NULL, NULL));
    OK(k_receive(fd, buf, 64, NULL, NULL));
    OK(k_notify(fd, NULL));
    OK(k_send(fd, "c", 0, NULL));
    conf_sleep_ms(20);
    CHECK_EQ(notified, 1);
    /* Closing any descriptor of it ends it. */
    OK(k_receive(fd, buf, 64, NULL, NULL));
    OK(k_notify(fd, &e));
    OK(close(OK(dup(fd))));
    OK(k_notify(fd, &e));
    OK(k_notify(fd, NULL));
    e.sigev_notify = 77;
    CHECK_ERRNO(k_notify(fd, &e), EINVAL);
    e.sigev_notify = SIGEV_SIGNAL;
    e.sigev_signo = 65;
    CHECK_ERRNO(k_notify(fd, &e), EINVAL);
    CHECK_ERRNO(k_notify(-1, NULL), EBADF);
}

/* A receiver that waits gets the message; who asked to be told is not. */
/* As libc does it: a thread of its own waits for a cookie. */
TEST(notification_by_socket)
{
    char cookie[NOTIFY_COOKIE_LEN], got[64];
    int nl = OK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0));
    struct sigevent e = {
        .sigev_notify = SIGEV_THREAD, .sigev_signo = nl, .sigev_value.sival_ptr = cookie};

    memset(cookie, 'c', sizeof(cookie));
    int fd = make_queue(O_NONBLOCK);
    OK(k_notify(fd, &e));
    CHECK_ERRNO(k_notify(fd, &e), EBUSY);
    CHECK_ERRNO(recv(nl, got, sizeof(got), MSG_DONTWAIT), EAGAIN);
    cookie[0] = 'x'; /* what it was counts */
    OK(k_send(fd, "1", 0, NULL));
    CHECK_EQ(recv(nl, got, NOTIFY_COOKIE_LEN, MSG_NOSIGNAL | MSG_WAITALL), NOTIFY_COOKIE_LEN);
    CHECK_EQ(got[0], 'c');
    CHECK_EQ(got[NOTIFY_COOKIE_LEN - 1], NOTIFY_WOKENUP);
    expect(fd, "1", 0);
    OK(k_notify(fd, &e));
    OK(k_notify(fd, NULL));
    CHECK_EQ(recv(nl, got, sizeof(got), 0), NOTIFY_COOKIE_LEN);
    CHECK_EQ(got[0], 'x');
    CHECK_EQ(got[NOTIFY_COOKIE_LEN - 1], NOTIFY_REMOVED);
    e.sigev_signo = 999;
    CHECK_ERRNO(k_notify(fd, &e), EBADF);
    e.sigev_signo = fd;
    CHECK_ERRNO(k_notify(fd, &e), ENOTSOCK);
    e.sigev_signo = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    CHECK_ERRNO(k_notify(fd, &e), EINVAL);
    e.sigev_value.sival_ptr = (void *)8;
    CHECK_ERRNO(k_notify(fd, &e), EFAULT);
    e.sigev_signo = nl;
    e.sigev_value.sival_ptr = cookie;
    OK(k_notify(fd, &e));
    OK(close(fd));
    CHECK_EQ(recv(nl, got, sizeof(got), 0), NOTIFY_COOKIE_LEN);
    CHECK_EQ(got[NOTIFY_COOKIE_LEN - 1], NOTIFY_REMOVED);
}

/* libc's, whose header does not go with the kernel's. */
int mq_open(const char *name, int flags, ...);
int mq_notify(int fd, const struct sigevent *e);
int mq_close(int fd);
int mq_unlink(const char *name);

static volatile int thread_value;

static void on_thread(union sigval v)
{
    thread_value = v.sival_int;
}

TEST(notification_by_thread)
{
    char name[40];
    struct sigevent e = {.sigev_notify = SIGEV_THREAD,
                         .sigev_notify_function = on_thread,
                         .sigev_value.sival_int = 4711};
    snprintf(name, sizeof(name), "/%s", name_of(0));
    int q = OK(mq_open(name, O_RDWR | O_CREAT, 0600, &small));
    OK(mq_notify(q, &e));
    OK(k_send(q, "1", 0, NULL));
    conf_await(&thread_value, 4711);
    OK(mq_close(q));
    OK(mq_unlink(name));
}

TEST(notification_and_receiver)
{
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    int fd = make_queue(0);
    conf_sigaction(SIGUSR1, on_notify, 0);
    pid_t pid = conf_fork();
    if (pid == 0) {
        expect(fd, "a", 0);
        _exit(0);
    }
    conf_await_asleep(pid);
    OK(k_notify(fd, &e));
    OK(k_send(fd, "a", 0, NULL));
    CHECK_EXIT(pid, 0);
    CHECK_EQ(notified, 0);
    OK(k_send(fd, "b", 0, NULL));
    conf_await(&notified, 1);
}

TEST(file_system)
{
    NEED_ROOT();
    char buf[128], path[64];
    struct statfs sfs;
    const char *name = name_of(5);
    const char *dir = "/dev/mqueue";
    bool mounted = statfs(dir, &sfs) != 0 || sfs.f_type != 0x19800202;
    if (mounted) {
        dir = "mq";
        OK(mkdir(dir, 0755));
        OK(mount("mqueue", dir, "mqueue", 0, NULL));
        OK(statfs(dir, &sfs));
        CHECK_EQ(sfs.f_type, 0x19800202);
    }
    int fd = OK(k_open(name, O_CREAT | O_RDWR, 0600, &small));
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    CHECK(conf_exists(path));
    OK(k_send(fd, "12345", 0, NULL));
    conf_get(path, buf, sizeof(buf));
    CHECK_STR(buf, "QSIZE:6          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n");
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    OK(k_notify(fd, &e));
    char want[128];
    snprintf(want, sizeof(want), "QSIZE:6          NOTIFY:0     SIGNO:10    NOTIFY_PID:%-6d\n",
             getpid());
    conf_get(path, buf, sizeof(buf));
    CHECK_STR(buf, want);
    DIR *d = opendir(dir);
    int seen = 0;
    for (struct dirent *de; (de = readdir(d)) != NULL;)
        seen += strcmp(de->d_name, name) == 0;
    closedir(d);
    CHECK_EQ(seen, 1);
    char sub[64];
    snprintf(sub, sizeof(sub), "%s/dir", dir);
    CHECK_ERRNO(mkdir(sub, 0700), EPERM);
    OK(unlink(path));
    CHECK_ERRNO(k_open(name, O_RDWR, 0, NULL), ENOENT);
    /* Made as a file it is a queue with the default size. */
    int file = OK(open(path, O_CREAT | O_RDWR, 0600));
    struct mq_attr a;
    OK(k_attr(file, NULL, &a));
    CHECK_EQ(a.mq_msgsize, 8192);
    OK(k_unlink(name));
    OK(close(file));
    if (mounted)
        OK(umount(dir));
}

/* Several senders and receivers: every message arrives once. */
TEST_TIMEOUT(crowd, 60)
{
    int fd = make_queue(0);
    int *count = conf_shared(sizeof(int));
    pid_t pids[6];
    for (int i = 0; i < 6; i++) {
        pids[i] = conf_fork();
        if (pids[i] != 0)
            continue;
        char buf[64];
        for (int n = 0; n < 300; n++) {
            if (i % 2) {
                OK(k_send(fd, "m", (unsigned)n, NULL));
            } else {
                OK(k_receive(fd, buf, 64, NULL, NULL));
                __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
            }
        }
        _exit(0);
    }
    for (int i = 0; i < 6; i++)
        CHECK_EXIT(pids[i], 0);
    CHECK_EQ(*count, 900);
}
