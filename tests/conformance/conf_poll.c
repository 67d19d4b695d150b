/* poll, select, epoll, eventfd, timerfd: what is ready, and waiting for it. */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

CONF_FAMILY("poll");

/* ---- helpers ---- */

static void noted(int sig)
{
    (void)sig;
}

static volatile int late_fd;

static void *late_byte(void *arg)
{
    conf_await_asleep(getpid());
    (void)!write(late_fd, "x", 1);
    return arg;
}

/* Writes a byte to fd when the caller, the main thread, sleeps. */
static pthread_t later(int fd)
{
    pthread_t th;

    late_fd = fd;
    CHECK_EQ(pthread_create(&th, NULL, late_byte, NULL), 0);
    return th;
}

static int ready(int fd, int want)
{
    struct pollfd p = {.fd = fd, .events = (short)want};

    OK(poll(&p, 1, 0));
    return p.revents;
}

static void give(int efd, uint64_t v)
{
    CHECK_EQ(write(efd, &v, sizeof(v)), (ssize_t)sizeof(v));
}

static uint64_t take(int efd)
{
    uint64_t v = 0;

    CHECK_EQ(read(efd, &v, sizeof(v)), (ssize_t)sizeof(v));
    return v;
}

static int ep_add(int ep, int fd, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.u64 = 0x1234567800000000u + (unsigned)fd};

    return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

static int ep_mod(int ep, int fd, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.fd = fd};

    return epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev);
}

/* ---- poll ---- */

TEST(poll_of_a_pipe)
{
    int p[2];

    OK(pipe(p));
    CHECK_EQ(ready(p[0], POLLIN | POLLOUT), 0);
    CHECK_EQ(ready(p[1], POLLIN | POLLOUT), POLLOUT);
    CHECK_EQ(write(p[1], "x", 1), 1);
    CHECK_EQ(ready(p[0], POLLIN | POLLOUT | POLLRDNORM), POLLIN | POLLRDNORM);
    OK(close(p[1]));
    CHECK_EQ(ready(p[0], POLLIN), POLLIN | POLLHUP);
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    CHECK_EQ(ready(p[0], POLLIN), POLLHUP);
    OK(pipe(p));
    OK(close(p[0]));
    CHECK_EQ(ready(p[1], POLLOUT), POLLOUT | POLLERR);
}

TEST(poll_of_a_full_pipe)
{
    int p[2];
    static char buf[4096];

    OK(pipe2(p, O_NONBLOCK));
    while (write(p[1], buf, sizeof(buf)) > 0)
        ;
    CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(ready(p[1], POLLOUT), 0);
    CHECK_EQ(read(p[0], buf, sizeof(buf)), (ssize_t)sizeof(buf));
    CHECK_EQ(ready(p[1], POLLOUT), POLLOUT);
}

TEST(poll_of_files_is_always_ready)
{
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600)), dir = OK(open(".", O_RDONLY));

    CHECK_EQ(ready(fd, POLLIN | POLLOUT | POLLPRI), POLLIN | POLLOUT);
    CHECK_EQ(ready(dir, POLLIN), POLLIN);
}

TEST(poll_bad_and_negative_descriptors)
{
    struct pollfd p[3] = {{.fd = -1, .events = POLLIN, .revents = 77},
                          {.fd = 9999, .events = POLLIN},
                          {.fd = OK(open(".", O_PATH)), .events = POLLIN}};

    CHECK_EQ(poll(p, 3, -1), 2);
    CHECK_EQ(p[0].revents, 0);
    CHECK_EQ(p[1].revents, POLLNVAL);
    CHECK_EQ(p[2].revents, POLLNVAL);
}

TEST(poll_timeouts)
{
    struct pollfd p = {.fd = -1};
    int64_t start = conf_now();

    CHECK_EQ(poll(&p, 1, 0), 0);
    CHECK_EQ(poll(NULL, 0, 30), 0);
    int64_t took = conf_now() - start;
    CHECK(took >= 30000000 && took < 20000000000);
}

TEST(poll_errors)
{
    struct rlimit rl;

    CHECK_ERRNO(syscall(SYS_poll, 8L, 1L, 0), EFAULT);
    OK(getrlimit(RLIMIT_NOFILE, &rl));
    rl.rlim_cur = 10;
    OK(setrlimit(RLIMIT_NOFILE, &rl));
    static struct pollfd p[16];
    CHECK_ERRNO(poll(p, 11, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_poll, p, -1L, 0), EINVAL);
}

TEST(poll_wakes_up)
{
    struct pollfd p = {.events = POLLIN};
    int fds[2];

    OK(pipe(fds));
    p.fd = fds[0];
    pthread_t th = later(fds[1]);
    CHECK_EQ(poll(&p, 1, -1), 1);
    CHECK_EQ(p.revents, POLLIN);
    CHECK_EQ(pthread_join(th, NULL), 0);
}

TEST(poll_same_descriptor_twice)
{
    int p[2];

    OK(pipe(p));
    struct pollfd pf[3] = {
        {.fd = p[0], .events = POLLIN}, {.fd = p[0], .events = POLLIN}, {.fd = p[1]}};
    pthread_t th = later(p[1]);
    CHECK_EQ(poll(pf, 3, -1), 2);
    CHECK_EQ(pthread_join(th, NULL), 0);
}

TEST(poll_interrupted)
{
    struct pollfd p = {.fd = -1};

    conf_handler(SIGALRM, noted, SA_RESTART);
    ualarm(20000, 20000);
    CHECK_ERRNO(poll(&p, 1, -1), EINTR);
}

TEST(poll_goes_on_after_a_stop)
{
    int *done = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();

    if (pid == 0) {
        struct pollfd p = {.fd = -1};
        int64_t start = conf_now();
        int r = poll(&p, 1, 200);
        *done = r == 0 && conf_now() - start >= 200000000;
        _exit(0);
    }
    conf_await_asleep(pid);
    OK(kill(pid, SIGSTOP));
    conf_sleep_ms(30);
    OK(kill(pid, SIGCONT));
    CHECK_EXIT(pid, 0);
    CHECK_EQ(*done, 1);
}

TEST(ppoll_mask_and_rest)
{
    struct timespec ts = {5, 0};
    sigset_t none, block;

    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    conf_handler(SIGUSR1, noted, 0);
    OK(sigprocmask(SIG_BLOCK, &block, NULL));
    OK(raise(SIGUSR1));
    CHECK_ERRNO(syscall(SYS_ppoll, NULL, 0, &ts, &none, 8L), EINTR);
    CHECK(ts.tv_sec < 5 || (ts.tv_sec == 5 && ts.tv_nsec == 0));
    sigset_t now;
    OK(sigprocmask(SIG_BLOCK, NULL, &now));
    CHECK_EQ(sigismember(&now, SIGUSR1), 1);
    ts = (struct timespec){0, 1000000};
    CHECK_EQ(syscall(SYS_ppoll, NULL, 0, &ts, NULL, 0L), 0);
    CHECK(ts.tv_sec == 0 && ts.tv_nsec == 0);
    ts.tv_nsec = 1000000000;
    CHECK_ERRNO(ppoll(NULL, 0, &ts, NULL), EINVAL);
    ts = (struct timespec){0, 0};
    CHECK_ERRNO(syscall(SYS_ppoll, NULL, 0, &ts, &none, 4L), EINVAL);
}

/* ---- select ---- */

TEST(select_sets)
{
    fd_set r, w;
    int p[2];

    OK(pipe(p));
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_SET(p[0], &r);
    FD_SET(p[1], &w);
    CHECK_EQ(select(p[1] + 1, &r, &w, NULL, NULL), 1);
    CHECK(!FD_ISSET(p[0], &r) && FD_ISSET(p[1], &w));
    CHECK_EQ(write(p[1], "x", 1), 1);
    FD_SET(p[0], &r);
    CHECK_EQ(select(p[1] + 1, &r, &w, NULL, NULL), 2);
    CHECK(FD_ISSET(p[0], &r) && FD_ISSET(p[1], &w));
}

TEST(select_end_of_file_is_readable)
{
    fd_set r;
    int p[2];

    OK(pipe(p));
    OK(close(p[1]));
    FD_ZERO(&r);
    FD_SET(p[0], &r);
    CHECK_EQ(select(p[0] + 1, &r, NULL, NULL, NULL), 1);
}

TEST(select_timeout_is_counted_down)
{
    struct timeval tv = {0, 20000};
    int64_t start = conf_now();
    fd_set r;
    int p[2];

    OK(pipe(p));
    FD_ZERO(&r);
    FD_SET(p[0], &r);
    CHECK_EQ(select(p[0] + 1, &r, NULL, NULL, &tv), 0);
    CHECK(conf_now() - start >= 20000000);
    CHECK(!FD_ISSET(p[0], &r));
    CHECK(tv.tv_sec == 0 && tv.tv_usec == 0);
    tv = (struct timeval){10, 0};
    FD_SET(p[0], &r);
    CHECK_EQ(write(p[1], "x", 1), 1);
    CHECK_EQ(select(p[0] + 1, &r, NULL, NULL, &tv), 1);
    CHECK(tv.tv_sec > 0 && tv.tv_sec <= 10);
}

TEST(select_errors)
{
    struct timeval tv = {0, 0};
    fd_set r;

    CHECK_ERRNO(select(-1, NULL, NULL, NULL, &tv), EINVAL);
    tv.tv_sec = -1;
    CHECK_ERRNO(select(0, NULL, NULL, NULL, &tv), EINVAL);
    tv.tv_sec = 0;
    FD_ZERO(&r);
    FD_SET(40, &r);
    CHECK_ERRNO(select(41, &r, NULL, NULL, &tv), EBADF);
    CHECK_ERRNO(syscall(SYS_select, 10, 8L, 0L, 0L, &tv), EFAULT);
    CHECK_ERRNO(syscall(SYS_select, 0, 0L, 0L, 0L, 8L), EFAULT);
    /* What is more than a second of microseconds counts as seconds. */
    static const struct timeval wrong[] = {
        {0, -1}, {INT64_MAX, 1000000}, {INT64_MAX, INT64_MAX}, {0, INT64_MIN}, {0, -1000000}};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        tv = wrong[i];
        CHECK_ERRNO(syscall(SYS_select, 0, 0L, 0L, 0L, &tv), EINVAL);
    }
    tv = (struct timeval){1, -1000000};
    OK(syscall(SYS_select, 0, 0L, 0L, 0L, &tv));
}

TEST(select_many_descriptors)
{
    struct timeval tv = {0, 0};
    unsigned long set[1024 / 64 * 4];
    int fd = OK(eventfd(1, 0));

    int high = OK(fcntl(fd, F_DUPFD, 900));
    memset(set, 0, sizeof(set));
    set[(size_t)high / 64] |= 1UL << (high % 64);
    CHECK_EQ(syscall(SYS_select, 4096, set, 0L, 0L, &tv), 1);
    CHECK(set[(size_t)high / 64] & 1UL << (high % 64));
}

TEST(pselect_mask)
{
    struct timespec ts = {5, 0};
    sigset_t none, block;

    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    conf_handler(SIGUSR1, noted, SA_RESTART);
    OK(sigprocmask(SIG_BLOCK, &block, NULL));
    OK(raise(SIGUSR1));
    CHECK_ERRNO(pselect(0, NULL, NULL, NULL, &ts, &none), EINTR);
    ts = (struct timespec){0, 10000000};
    CHECK_EQ(pselect(0, NULL, NULL, NULL, &ts, &block), 0);
}

/* ---- epoll ---- */

TEST(epoll_level_triggered)
{
    struct epoll_event ev;
    int ep = OK(epoll_create1(0)), p[2];

    OK(pipe(p));
    OK(ep_add(ep, p[0], EPOLLIN));
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
    CHECK_EQ(write(p[1], "ab", 2), 2);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 1);
        CHECK_EQ(ev.events, EPOLLIN);
        CHECK_EQ(ev.data.u64, 0x1234567800000000u + (unsigned)p[0]);
    }
    char c[2];
    CHECK_EQ(read(p[0], c, 2), 2);
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
}

TEST(epoll_edge_triggered)
{
    struct epoll_event ev;
    int ep = OK(epoll_create1(0)), p[2];

    OK(pipe(p));
    OK(ep_add(ep, p[0], EPOLLIN | EPOLLET));
    CHECK_EQ(write(p[1], "a", 1), 1);
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 1);
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
    CHECK_EQ(write(p[1], "b", 1), 1);
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 1);
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
    OK(ep_mod(ep, p[0], EPOLLIN | EPOLLET));
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 1);
}

TEST(epoll_oneshot)
{
    struct epoll_event ev;
    int ep = OK(epoll_create1(0)), p[2];

    OK(pipe(p));
    OK(ep_add(ep, p[0], EPOLLIN | EPOLLONESHOT));
    CHECK_EQ(write(p[1], "a", 1), 1);
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 1);
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
    OK(close(p[1]));
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
    OK(ep_mod(ep, p[0], EPOLLIN | EPOLLONESHOT));
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 1);
    CHECK_EQ(ev.events, EPOLLIN | EPOLLHUP);
}

TEST(epoll_ctl_errors)
{
    struct epoll_event ev = {.events = EPOLLIN};
    int ep = OK(epoll_create1(EPOLL_CLOEXEC)), p[2], f = OK(open("f", O_RDWR | O_CREAT, 0600));

    CHECK_EQ(fcntl(ep, F_GETFD), FD_CLOEXEC);
    OK(pipe(p));
    OK(ep_add(ep, p[0], EPOLLIN));
    CHECK_ERRNO(ep_add(ep, p[0], EPOLLIN), EEXIST);
    CHECK_ERRNO(ep_mod(ep, p[1], EPOLLIN), ENOENT);
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_DEL, p[1], NULL), ENOENT);
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, 9999, &ev), EBADF);
    CHECK_ERRNO(epoll_ctl(9999, EPOLL_CTL_ADD, p[1], &ev), EBADF);
    CHECK_ERRNO(epoll_ctl(p[0], EPOLL_CTL_ADD, p[1], &ev), EINVAL);
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &ev), EINVAL);
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, f, &ev), EPERM);
    CHECK_ERRNO(epoll_ctl(ep, 77, p[1], &ev), EINVAL);
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, p[1], (void *)8), EFAULT);
    OK(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], NULL));
    CHECK_ERRNO(epoll_create1(1), EINVAL);
    CHECK_ERRNO(epoll_create(0), EINVAL);
}

TEST(epoll_wait_errors)
{
    struct epoll_event ev;
    int ep = OK(epoll_create(1)), p[2];

    OK(pipe(p));
    CHECK_ERRNO(epoll_wait(ep, &ev, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_epoll_wait, ep, &ev, -1, 0), EINVAL);
    CHECK_ERRNO(epoll_wait(p[0], &ev, 1, 0), EINVAL);
    CHECK_ERRNO(epoll_wait(9999, &ev, 1, 0), EBADF);
    OK(ep_add(ep, p[1], EPOLLOUT));
    CHECK_ERRNO(syscall(SYS_epoll_wait, ep, 8L, 1, 0), EFAULT);
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 1);
}

TEST(epoll_wakes_up_and_times_out)
{
    struct epoll_event ev;
    int ep = OK(epoll_create1(0)), p[2];

    OK(pipe(p));
    OK(ep_add(ep, p[0], EPOLLIN));
    int64_t start = conf_now();
    CHECK_EQ(epoll_wait(ep, &ev, 1, 30), 0);
    CHECK(conf_now() - start >= 30000000);
    pthread_t th = later(p[1]);
    CHECK_EQ(epoll_wait(ep, &ev, 1, -1), 1);
    CHECK_EQ(pthread_join(th, NULL), 0);
}

TEST(epoll_closed_member_leaves)
{
    struct epoll_event ev;
    int ep = OK(epoll_create1(0)), p[2];

    OK(pipe(p));
    OK(ep_add(ep, p[0], EPOLLIN));
    CHECK_EQ(write(p[1], "x", 1), 1);
    int copy = OK(dup(p[0]));
    OK(close(p[0]));
    /* The open file lives on through the copy. */
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 1);
    OK(close(copy));
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
}

TEST(epoll_many_members)
{
    struct epoll_event ev[128];
    int ep = OK(epoll_create1(0)), fds[100];
    bool seen[1024] = {false};

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = OK(eventfd(1, 0));
        OK(ep_add(ep, fds[i], EPOLLIN));
    }
    CHECK_EQ(epoll_wait(ep, ev, 128, 0), 100);
    /* A few at a time, every one gets its turn. */
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(epoll_wait(ep, ev, 10, 0), 10);
        for (int j = 0; j < 10; j++)
            seen[ev[j].data.u64 & 0x3ff] = true;
    }
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        CHECK(seen[fds[i]]);
}

TEST(epoll_in_epoll)
{
    struct epoll_event ev;
    int inner = OK(epoll_create1(0)), outer = OK(epoll_create1(0)), e = OK(eventfd(0, 0));

    OK(ep_add(outer, inner, EPOLLIN));
    OK(ep_add(inner, e, EPOLLIN));
    CHECK_EQ(epoll_wait(outer, &ev, 1, 0), 0);
    CHECK_EQ(ready(inner, POLLIN), 0);
    give(e, 1);
    CHECK_EQ(epoll_wait(outer, &ev, 1, 1000), 1);
    CHECK_EQ(ready(inner, POLLIN), POLLIN);
    CHECK_ERRNO(ep_add(inner, outer, EPOLLIN), ELOOP);
    CHECK_EQ(take(e), 1);
    CHECK_EQ(epoll_wait(outer, &ev, 1, 0), 0);
}

TEST(epoll_exclusive)
{
    struct epoll_event ev;
    int ep = OK(epoll_create1(0)), e = OK(eventfd(0, 0));

    OK(ep_add(ep, e, EPOLLIN | EPOLLEXCLUSIVE));
    CHECK_ERRNO(ep_mod(ep, e, EPOLLIN), EINVAL);
    CHECK_ERRNO(ep_add(ep, OK(epoll_create1(0)), EPOLLIN | EPOLLEXCLUSIVE), EINVAL);
    CHECK_ERRNO(ep_add(ep, OK(eventfd(0, 0)), EPOLLIN | EPOLLONESHOT | EPOLLEXCLUSIVE), EINVAL);
    give(e, 1);
    CHECK_EQ(epoll_wait(ep, &ev, 1, 1000), 1);
}

TEST(epoll_rdhup_and_sockets)
{
    struct epoll_event ev;
    int ep = OK(epoll_create1(0)), sv[2];

    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    OK(ep_add(ep, sv[0], EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET));
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 1);
    CHECK_EQ(ev.events, EPOLLOUT);
    OK(shutdown(sv[1], SHUT_WR));
    CHECK_EQ(epoll_wait(ep, &ev, 1, 1000), 1);
    CHECK_EQ(ev.events, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
    OK(close(sv[1]));
    CHECK_EQ(epoll_wait(ep, &ev, 1, 1000), 1);
    CHECK_EQ(ev.events, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP);
}

TEST(epoll_interrupted)
{
    struct epoll_event ev;
    int ep = OK(epoll_create1(0));

    conf_handler(SIGALRM, noted, SA_RESTART);
    ualarm(20000, 20000);
    CHECK_ERRNO(epoll_wait(ep, &ev, 1, -1), EINTR);
}

TEST(epoll_pwait_mask)
{
    struct epoll_event ev;
    sigset_t block, none;
    int ep = OK(epoll_create1(0));

    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    conf_handler(SIGUSR1, noted, 0);
    OK(sigprocmask(SIG_BLOCK, &block, NULL));
    OK(raise(SIGUSR1));
    CHECK_EQ(epoll_pwait(ep, &ev, 1, 10, &block), 0);
    CHECK_ERRNO(epoll_pwait(ep, &ev, 1, 5000, &none), EINTR);
    CHECK_ERRNO(syscall(SYS_epoll_pwait, ep, &ev, 1, 0, &none, 3L), EINVAL);
}

TEST(epoll_pwait2_times_out)
{
    struct epoll_event ev;
    struct timespec ts = {0, 2000000};
    int ep = OK(epoll_create1(0));
    int64_t start = conf_now();

    if (syscall(SYS_epoll_pwait2, ep, &ev, 1, &ts, NULL, 0L) != 0) {
        CHECK_EQ(errno, ENOSYS);
        conf_skip("kernel before 5.11");
    }
    CHECK(conf_now() - start >= 2000000);
    ts.tv_nsec = -1;
    CHECK_ERRNO(syscall(SYS_epoll_pwait2, ep, &ev, 1, &ts, NULL, 0L), EINVAL);
}

static void *epoll_waiter(void *arg)
{
    struct epoll_event ev;

    return (void *)(intptr_t)epoll_wait(*(int *)arg, &ev, 1, 10000);
}

TEST(epoll_add_while_waiting)
{
    int ep = OK(epoll_create1(0)), e = OK(eventfd(1, 0));
    pthread_t th;
    void *n;

    CHECK_EQ(pthread_create(&th, NULL, epoll_waiter, &ep), 0);
    conf_await_others_asleep();
    OK(ep_add(ep, e, EPOLLIN));
    CHECK_EQ(pthread_join(th, &n), 0);
    CHECK_EQ((intptr_t)n, 1);
}

/* ---- eventfd ---- */

TEST(eventfd_counts)
{
    int e = OK(eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC));

    CHECK_EQ(fcntl(e, F_GETFD), FD_CLOEXEC);
    give(e, 4);
    CHECK_EQ(take(e), 7);
    uint64_t v;
    CHECK_ERRNO(read(e, &v, 8), EAGAIN);
    give(e, UINT64_MAX - 1);
    v = 1;
    CHECK_ERRNO(write(e, &v, 8), EAGAIN);
    CHECK_EQ(ready(e, POLLIN | POLLOUT), POLLIN);
    v = UINT64_MAX;
    CHECK_ERRNO(write(e, &v, 8), EINVAL);
    CHECK_ERRNO(write(e, &v, 4), EINVAL);
    CHECK_ERRNO(read(e, &v, 7), EINVAL);
    CHECK_EQ(take(e), UINT64_MAX - 1);
    CHECK_EQ(ready(e, POLLIN | POLLOUT), POLLOUT);
    CHECK_ERRNO(eventfd(0, 0x40), EINVAL);
}

TEST(eventfd_semaphore)
{
    int e = OK(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
    uint64_t v;

    CHECK_EQ(take(e), 1);
    CHECK_EQ(take(e), 1);
    CHECK_ERRNO(read(e, &v, 8), EAGAIN);
}

/* ---- timerfd ---- */

TEST(timerfd_fires_once)
{
    const struct itimerspec far = {.it_value = {100, 0}}, near = {.it_value = {0, 20000000}};
    struct itimerspec got;
    int fd = OK(timerfd_create(CLOCK_MONOTONIC, 0));

    OK(timerfd_settime(fd, 0, &far, NULL));
    OK(timerfd_gettime(fd, &got));
    CHECK(got.it_value.tv_sec > 0 && got.it_value.tv_sec <= 100);
    CHECK_EQ(ready(fd, POLLIN), 0);
    int64_t start = conf_now();
    OK(timerfd_settime(fd, 0, &near, NULL));
    CHECK_EQ(take(fd), 1);
    CHECK(conf_now() - start >= 20000000);
    OK(timerfd_gettime(fd, &got));
    CHECK(got.it_value.tv_sec == 0 && got.it_value.tv_nsec == 0);
}

TEST(timerfd_interval_counts)
{
    struct itimerspec it = {.it_value = {100, 0}, .it_interval = {0, 5000000}}, old;
    int fd = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    uint64_t n;

    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    OK(timerfd_settime(fd, 0, &it, NULL));
    CHECK_ERRNO(read(fd, &n, 8), EAGAIN);
    it.it_value = it.it_interval;
    OK(timerfd_settime(fd, 0, &it, NULL));
    conf_sleep_ms(40);
    CHECK_EQ(ready(fd, POLLIN), POLLIN);
    n = take(fd);
    CHECK(n >= 7 && n < CONF_PATIENCE_NS / 5000000);
    it = (struct itimerspec){0};
    OK(timerfd_settime(fd, 0, &it, &old));
    CHECK_EQ(old.it_interval.tv_nsec, 5000000);
    conf_sleep_ms(10);
    CHECK_ERRNO(read(fd, &n, 8), EAGAIN);
}

TEST(timerfd_absolute)
{
    struct itimerspec it = {0};
    int fd = OK(timerfd_create(CLOCK_REALTIME, 0));

    OK(clock_gettime(CLOCK_REALTIME, &it.it_value));
    it.it_value.tv_sec -= 5;
    OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &it, NULL));
    CHECK_EQ(take(fd), 1);
    fd = OK(timerfd_create(CLOCK_MONOTONIC, 0));
    int64_t at = conf_now() + 20000000;
    it.it_value = (struct timespec){at / 1000000000, at % 1000000000};
    OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &it, NULL));
    CHECK_EQ(take(fd), 1);
    CHECK(conf_now() >= at);
}

TEST(timerfd_errors)
{
    struct itimerspec it = {.it_value = {0, 1000000000}};
    int fd = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)), e = OK(eventfd(0, 0));
    uint32_t half;

    CHECK_ERRNO(timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0), EINVAL);
    CHECK_ERRNO(timerfd_create(CLOCK_MONOTONIC, 1), EINVAL);
    CHECK_ERRNO(timerfd_settime(fd, 0, &it, NULL), EINVAL);
    it.it_value.tv_nsec = 0;
    CHECK_ERRNO(timerfd_settime(fd, 0x10, &it, NULL), EINVAL);
    CHECK_ERRNO(timerfd_settime(e, 0, &it, NULL), EINVAL);
    CHECK_ERRNO(timerfd_settime(9999, 0, &it, NULL), EBADF);
    CHECK_ERRNO(timerfd_gettime(fd, (void *)8), EFAULT);
    CHECK_ERRNO(read(fd, &half, 4), EINVAL);
    CHECK_ERRNO(write(fd, &it, 8), EINVAL);
}

TEST(timerfd_in_epoll)
{
    struct itimerspec it = {.it_value = {0, 10000000}, .it_interval = {0, 10000000}};
    struct epoll_event ev;
    int fd = OK(timerfd_create(CLOCK_MONOTONIC, 0)), ep = OK(epoll_create1(0));

    OK(ep_add(ep, fd, EPOLLIN | EPOLLET));
    OK(timerfd_settime(fd, 0, &it, NULL));
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(epoll_wait(ep, &ev, 1, 5000), 1);
        CHECK(take(fd) >= 1);
    }
}

/* All that is ready comes in one call, however much that is. */
TEST(epoll_many_at_once)
{
    enum { COUNT = 1500 };
    static struct epoll_event events[COUNT + 100];
    struct rlimit lim;
    OK(getrlimit(RLIMIT_NOFILE, &lim));
    lim.rlim_cur = lim.rlim_max < 4096 ? lim.rlim_max : 4096;
    OK(setrlimit(RLIMIT_NOFILE, &lim));
    int ep = OK(epoll_create1(0));
    for (int i = 0; i < COUNT; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.u64 = (uint64_t)i};
        OK(epoll_ctl(ep, EPOLL_CTL_ADD, OK(eventfd(1, 0)), &ev));
    }
    CHECK_EQ(epoll_wait(ep, events, COUNT + 100, 0), COUNT);
    CHECK_EQ(epoll_wait(ep, events, COUNT - 100, 0), COUNT - 100);
}

/* They can be positioned, to no effect; but not read at a position. */
TEST(positions_without_effect)
{
    const int fds[] = {OK(eventfd(0, EFD_NONBLOCK)),
                       OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)), OK(epoll_create1(0)),
                       OK(inotify_init1(IN_NONBLOCK))};
    char buf[8];

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        CHECK_EQ(OK(lseek(fds[i], 5, SEEK_SET)), 0);
        CHECK_EQ(OK(lseek(fds[i], 5, SEEK_END)), 0);
        CHECK_ERRNO(pread(fds[i], buf, 8, 0), ESPIPE);
    }
}
