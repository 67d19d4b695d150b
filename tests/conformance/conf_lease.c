/* Leases and directory notification of fcntl(2) (F_SETLEASE, F_NOTIFY), write hints, /proc/locks:
 * fs/locks.c and fs/notify/dnotify of Linux. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "harness.h"

CONF_FAMILY("lease");

static volatile sig_atomic_t got, got_fd, got_code, got_band;

static void on_signal(int sig, siginfo_t *si, void *ctx)
{
    (void)sig, (void)ctx;
    got_fd = si->si_fd;
    got_code = si->si_code;
    got_band = (sig_atomic_t)si->si_band;
    got++;
}

static void await(int count)
{
    EVENTUALLY(got >= count);
    CHECK_EQ(got, count);
}

static int lease(int fd, int type)
{
    return fcntl(fd, F_SETLEASE, type);
}

/* The whole file is somebody else's to open; status of that child. */
static pid_t opener(const char *path, int flags, int want)
{
    pid_t pid = conf_fork();

    if (pid != 0)
        return pid;
    OK(close_range(3, ~0u, 0));
    int fd = open(path, flags);
    if (want == 0)
        CHECK(fd >= 0);
    else
        CHECK(fd < 0 && errno == want);
    _exit(0);
}

TEST(types_and_refusals)
{
    conf_put("f", "x");
    int rd = OK(open("f", O_RDONLY));

    CHECK_EQ(fcntl(rd, F_GETLEASE), F_UNLCK);
    CHECK_ERRNO(lease(rd, F_UNLCK), EAGAIN);
    CHECK_ERRNO(lease(rd, 7), EINVAL);
    OK(lease(rd, F_RDLCK));
    CHECK_EQ(fcntl(rd, F_GETLEASE), F_RDLCK);
    /* The only one who has it open may have the other kind as well. */
    OK(lease(rd, F_WRLCK));
    CHECK_EQ(fcntl(rd, F_GETLEASE), F_WRLCK);
    OK(lease(rd, F_UNLCK));
    CHECK_EQ(fcntl(rd, F_GETLEASE), F_UNLCK);
    int rw = OK(open("f", O_RDWR));
    CHECK_ERRNO(lease(rd, F_RDLCK), EAGAIN);
    CHECK_ERRNO(lease(rw, F_RDLCK), EAGAIN);
    CHECK_ERRNO(lease(rw, F_WRLCK), EAGAIN);
    OK(close(rd));
    OK(lease(rw, F_WRLCK));
    OK(close(rw));
    int d = OK(open(".", O_RDONLY));
    CHECK_ERRNO(lease(d, F_RDLCK), EINVAL);
    int p[2];
    OK(pipe(p));
    CHECK_ERRNO(lease(p[0], F_RDLCK), EINVAL);
    int path = OK(open("f", O_PATH));
    CHECK_ERRNO(lease(path, F_RDLCK), EBADF);
}

TEST(shared_read_leases)
{
    conf_put("f", "x");
    int a = OK(open("f", O_RDONLY)), b = OK(open("f", O_RDONLY));

    OK(lease(a, F_RDLCK));
    OK(lease(b, F_RDLCK));
    CHECK_ERRNO(lease(a, F_WRLCK), EAGAIN);
    /* A lease is the open file's: a duplicate's end is not its end. */
    OK(close(OK(dup(a))));
    CHECK_EQ(fcntl(a, F_GETLEASE), F_RDLCK);
    int d = OK(dup(a));
    OK(close(a));
    CHECK_EQ(fcntl(d, F_GETLEASE), F_RDLCK);
    OK(close(d));
    int c = OK(open("f", O_RDONLY));
    CHECK_EQ(fcntl(c, F_GETLEASE), F_UNLCK);
    /* Readers are welcome. */
    CHECK_EXIT(opener("f", O_RDONLY | O_NONBLOCK, 0), 0);
}

TEST(owner_only)
{
    NEED_ROOT();
    conf_put("f", "x");
    OK(chmod(".", 0755));
    OK(chmod("f", 0644));
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(54321);
        int fd = OK(open("f", O_RDONLY));
        CHECK_ERRNO(lease(fd, F_RDLCK), EACCES);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(broken_by_open)
{
    conf_sigaction(SIGIO, on_signal, 0);
    conf_put("f", "x");
    int fd = OK(open("f", O_RDONLY));
    OK(lease(fd, F_RDLCK));
    CHECK_EQ(fcntl(fd, F_GETOWN), getpid());
    CHECK_EXIT(opener("f", O_WRONLY | O_NONBLOCK, EWOULDBLOCK), 0);
    await(1);
    /* What it is to become; nobody else gets one meanwhile. */
    CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
    /* Told once. */
    CHECK_EXIT(opener("f", O_RDWR | O_NONBLOCK, EWOULDBLOCK), 0);
    CHECK_EQ(got, 1);
    pid_t pid = opener("f", O_WRONLY, 0);
    conf_await_asleep(pid);
    int status;
    CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
    OK(lease(fd, F_UNLCK));
    CHECK_EXIT(pid, 0);
    CHECK_EXIT(opener("f", O_WRONLY | O_NONBLOCK, 0), 0);
}

TEST(write_lease_downgraded)
{
    conf_sigaction(SIGIO, on_signal, 0);
    conf_put("f", "x");
    int fd = OK(open("f", O_RDONLY));
    OK(lease(fd, F_WRLCK));
    pid_t pid = opener("f", O_RDONLY, 0);
    await(1);
    CHECK_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
    OK(lease(fd, F_RDLCK));
    CHECK_EXIT(pid, 0);
    CHECK_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
    pid = opener("f", O_RDWR, 0);
    await(2);
    CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
    /* Closing is giving up. */
    OK(close(fd));
    CHECK_EXIT(pid, 0);
}

TEST(broken_by_truncate)
{
    conf_sigaction(SIGIO, on_signal, 0);
    conf_put("f", "xyz");
    int fd = OK(open("f", O_RDONLY));
    OK(lease(fd, F_RDLCK));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(truncate("f", 1));
        _exit(0);
    }
    await(1);
    OK(lease(fd, F_UNLCK));
    CHECK_EXIT(pid, 0);
    struct stat st;
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_size, 1);
    /* Names are no part of it. */
    OK(lease(fd, F_RDLCK));
    OK(chmod("f", 0600));
    OK(rename("f", "g"));
    OK(unlink("g"));
    CHECK_EQ(got, 1);
}

TEST(chosen_signal)
{
    const int sig = SIGRTMIN + 3;

    conf_sigaction(sig, on_signal, 0);
    conf_put("f", "x");
    int fd = OK(open("f", O_RDONLY));
    OK(fcntl(fd, F_SETSIG, sig));
    OK(lease(fd, F_RDLCK));
    CHECK_EXIT(opener("f", O_WRONLY | O_NONBLOCK, EWOULDBLOCK), 0);
    await(1);
    CHECK_EQ(got_fd, fd);
    CHECK_EQ(got_code, POLL_MSG);
    CHECK_EQ(got_band, POLLIN | POLLRDNORM | POLLMSG);
}

/* A breaker that waits is interrupted by signals, and the lease stays asked for. */
TEST(breaker_interrupted)
{
    conf_sigaction(SIGIO, on_signal, 0);
    conf_put("f", "x");
    int fd = OK(open("f", O_RDONLY));
    OK(lease(fd, F_RDLCK));
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_sigaction(SIGALRM, on_signal, 0);
        OK(ualarm(50000, 50000));
        CHECK_ERRNO(open("f", O_WRONLY), EINTR);
        _exit(0);
    }
    await(1);
    CHECK_EXIT(pid, 0);
    CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
}

/* Who does not answer loses it after the time that /proc says. */
TEST_TIMEOUT(times_out, 60)
{
    char text[32];

    conf_get("/proc/sys/fs/lease-break-time", text, sizeof(text));
    CHECK(atoi(text) > 0);
    int set = open("/proc/sys/fs/lease-break-time", O_WRONLY);
    if (set < 0)
        conf_skip("the time cannot be set here");
    if (write(set, "1\n", 2) != 2)
        conf_skip("the time cannot be set here");
    conf_sigaction(SIGIO, on_signal, 0);
    conf_put("f", "x");
    int fd = OK(open("f", O_RDONLY));
    OK(lease(fd, F_RDLCK));
    int64_t start = conf_now();
    pid_t pid = opener("f", O_WRONLY, 0);
    CHECK_EXIT(pid, 0);
    int64_t took = conf_now() - start;
    CHECK_EQ(pwrite(set, text, strlen(text), 0), strlen(text));
    CHECK(took > 800000000 && took < 40000000000);
    CHECK_EQ(got, 1);
    CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
    CHECK_ERRNO(lease(fd, F_UNLCK), EAGAIN);
}

/* Leases taken and given up while others open: nobody is left waiting, nobody has both. */
TEST_TIMEOUT(race, 60)
{
    conf_sigaction(SIGIO, on_signal, SA_RESTART);
    conf_put("f", "x");
    pid_t pid = conf_fork();
    if (pid == 0) {
        for (int i = 0; i < 200; i++) {
            int fd = open("f", O_RDWR | (i % 2 ? O_NONBLOCK : 0));
            CHECK(fd >= 0 || errno == EWOULDBLOCK);
            if (fd >= 0)
                OK(close(fd));
        }
        _exit(0);
    }
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        int fd = OK(open("f", O_RDONLY));
        if (lease(fd, F_RDLCK) == 0) {
            if (lease(fd, F_UNLCK) != 0)
                CHECK_EQ(errno, EAGAIN);
        } else {
            CHECK_EQ(errno, EAGAIN);
        }
        OK(close(fd));
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- F_NOTIFY ---- */

TEST(dnotify_events)
{
    const int sig = SIGRTMIN + 4;

    conf_sigaction(sig, on_signal, 0);
    OK(mkdir("d", 0755));
    int fd = OK(open("d", O_RDONLY));
    OK(fcntl(fd, F_SETSIG, sig));
    OK(fcntl(fd, F_NOTIFY, DN_CREATE | DN_DELETE | DN_MODIFY | DN_ATTRIB | DN_MULTISHOT));
    CHECK_EQ(fcntl(fd, F_GETOWN), getpid());
    int f = OK(open("d/f", O_CREAT | O_RDWR, 0644));
    await(1);
    CHECK_EQ(got_fd, fd);
    CHECK_EQ(got_code, POLL_MSG);
    CHECK_EQ(write(f, "x", 1), 1);
    await(2);
    OK(chmod("d/f", 0600));
    await(3);
    OK(unlink("d/f"));
    await(4);
    /* Not asked for. */
    OK(mkdir("d/sub", 0755));
    await(5);
    OK(close(OK(open("d/sub", O_RDONLY))));
    conf_sleep_ms(20);
    CHECK_EQ(got, 5);
    OK(fcntl(fd, F_NOTIFY, 0));
    OK(rmdir("d/sub"));
    conf_sleep_ms(20);
    CHECK_EQ(got, 5);
}

TEST(dnotify_once)
{
    conf_sigaction(SIGIO, on_signal, 0);
    OK(mkdir("d", 0755));
    int fd = OK(open("d", O_RDONLY));
    OK(fcntl(fd, F_NOTIFY, DN_CREATE));
    conf_put("d/a", "");
    await(1);
    conf_put("d/b", "");
    conf_sleep_ms(20);
    CHECK_EQ(got, 1);
    OK(fcntl(fd, F_NOTIFY, DN_RENAME));
    conf_put("d/c", "");
    conf_sleep_ms(20);
    CHECK_EQ(got, 1);
    OK(rename("d/a", "d/d"));
    await(2);
}

TEST(dnotify_ends_with_close)
{
    conf_sigaction(SIGIO, on_signal, 0);
    OK(mkdir("d", 0755));
    int fd = OK(open("d", O_RDONLY)), other = OK(dup(fd));
    OK(fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT));
    conf_put("d/a", "");
    await(1);
    /* As with locks: of any descriptor of the process. */
    OK(close(other));
    conf_put("d/b", "");
    conf_sleep_ms(20);
    CHECK_EQ(got, 1);
    CHECK_ERRNO(fcntl(OK(open("d/a", O_RDONLY)), F_NOTIFY, DN_CREATE), ENOTDIR);
    OK(fcntl(OK(open("d/a", O_RDONLY)), F_NOTIFY, 0));
}

TEST(notify_is_enabled)
{
    char text[32];

    conf_get("/proc/sys/fs/dir-notify-enable", text, sizeof(text));
    CHECK_STR(text, "1\n");
    const int set = getenv("CONFORMANCE") ? open("/proc/sys/fs/dir-notify-enable", O_WRONLY) : -1;
    if (set < 0)
        return;
    OK(mkdir("d", 0755));
    const int fd = OK(open("d", O_RDONLY));
    CHECK_EQ(write(set, "0\n", 2), 2);
    const int r = fcntl(fd, F_NOTIFY, DN_CREATE), error = errno;
    const int none = fcntl(fd, F_NOTIFY, 0), none_error = errno;
    CHECK_EQ(pwrite(set, text, strlen(text), 0), strlen(text));
    CHECK(r == -1 && error == EINVAL);
    CHECK(none == -1 && none_error == EINVAL);
    OK(fcntl(fd, F_NOTIFY, DN_CREATE));
}

static int race_fd;

static void *closes(void *arg)
{
    (void)arg;
    for (int i = 0; i < 300; i++) {
        int fd = OK(open("d", O_RDONLY));
        OK(dup2(fd, race_fd));
        OK(close(fd));
        OK(close(race_fd));
    }
    return NULL;
}

/* Asked for by one thread while another closes what it is asked of. */
TEST_TIMEOUT(dnotify_against_close, 60)
{
    pthread_t t;

    conf_sigaction(SIGIO, on_signal, SA_RESTART);
    OK(mkdir("d", 0755));
    race_fd = 100;
    CHECK_EQ(pthread_create(&t, NULL, closes, NULL), 0);
    for (int i = 0; i < 600; i++) {
        if (fcntl(race_fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT) != 0)
            CHECK_EQ(errno, EBADF);
        if (i % 8 == 0) {
            OK(close(OK(open("d/f", O_CREAT | O_WRONLY, 0600))));
            OK(unlink("d/f"));
        }
    }
    CHECK_EQ(pthread_join(t, NULL), 0);
    /* And it still works; those that are late do not disturb. */
    conf_handler(SIGIO, SIG_IGN, 0);
    conf_sigaction(SIGRTMIN + 5, on_signal, 0);
    int fd = OK(open("d", O_RDONLY));
    OK(fcntl(fd, F_SETSIG, SIGRTMIN + 5));
    OK(fcntl(fd, F_NOTIFY, DN_CREATE));
    got_fd = -1;
    conf_put("d/g", "");
    EVENTUALLY(got_fd == fd);
}

/* ---- write hints ---- */

#ifndef F_GET_RW_HINT
#define F_GET_RW_HINT 1035
#define F_SET_RW_HINT 1036
#endif

TEST(write_hints)
{
    conf_put("f", "x");
    int fd = OK(open("f", O_RDONLY)), other = OK(open("f", O_RDWR));
    uint64_t hint = 99;

    OK(fcntl(fd, F_GET_RW_HINT, &hint));
    CHECK_EQ(hint, 0);
    for (uint64_t k = 0; k <= 5; k++) {
        OK(fcntl(fd, F_SET_RW_HINT, &k));
        OK(fcntl(other, F_GET_RW_HINT, &hint));
        CHECK_EQ(hint, k);
    }
    hint = 6;
    CHECK_ERRNO(fcntl(fd, F_SET_RW_HINT, &hint), EINVAL);
    hint = UINT64_C(1) << 32;
    CHECK_ERRNO(fcntl(fd, F_SET_RW_HINT, &hint), EINVAL);
    CHECK_ERRNO(fcntl(fd, F_GET_RW_HINT, NULL), EFAULT);
    CHECK_ERRNO(fcntl(fd, F_SET_RW_HINT, NULL), EFAULT);
}

/* ---- /proc/locks ---- */

/* A line of /proc/locks about the file, without its number, in out. */
static bool lock_line(int fd, const char *part, char *out, size_t size)
{
    char id[64], line[256];
    struct stat st;
    bool found = false;

    OK(fstat(fd, &st));
    snprintf(id, sizeof(id), "%02x:%02x:%lu ", major(st.st_dev), minor(st.st_dev), st.st_ino);
    FILE *in = fopen("/proc/locks", "re");
    CHECK(in != NULL);
    while (!found && fgets(line, sizeof(line), in))
        found = strstr(line, id) != NULL && strstr(line, part) != NULL;
    fclose(in);
    if (found && out)
        snprintf(out, size, "%s", strchr(line, ' ') + 1);
    return found;
}

TEST(proc_locks)
{
    char line[256], want[128];
    struct stat st;

    conf_put("f", "xyz");
    int fd = OK(open("f", O_RDWR));
    OK(fstat(fd, &st));
    CHECK(!lock_line(fd, "", NULL, 0));
    struct flock l = {.l_type = F_WRLCK, .l_start = 1, .l_len = 2};
    OK(fcntl(fd, F_SETLK, &l));
    CHECK(lock_line(fd, "POSIX", line, sizeof(line)));
    snprintf(want, sizeof(want), "POSIX  ADVISORY  WRITE %d %02x:%02x:%lu 1 2\n", getpid(),
             major(st.st_dev), minor(st.st_dev), st.st_ino);
    CHECK_STR(line, want);
    int held[2];
    OK(pipe(held));
    pid_t pid = conf_fork();
    if (pid == 0) {
        struct flock w = {.l_type = F_RDLCK, .l_start = 0, .l_len = 0};
        OK(write(held[1], "x", 1));
        OK(fcntl(fd, F_SETLKW, &w));
        _exit(0);
    }
    char c;
    CHECK_EQ(read(held[0], &c, 1), 1);
    EVENTUALLY(lock_line(fd, "-> POSIX", NULL, 0));
    CHECK(lock_line(fd, "-> POSIX", line, sizeof(line)));
    snprintf(want, sizeof(want), "-> POSIX  ADVISORY  READ %d %02x:%02x:%lu 0 EOF\n", pid,
             major(st.st_dev), minor(st.st_dev), st.st_ino);
    CHECK_STR(line, want);
    l.l_type = F_UNLCK;
    OK(fcntl(fd, F_SETLK, &l));
    CHECK_EXIT(pid, 0);
    CHECK(!lock_line(fd, "", NULL, 0));
    OK(flock(fd, LOCK_SH));
    CHECK(lock_line(fd, "FLOCK", line, sizeof(line)));
    snprintf(want, sizeof(want), "FLOCK  ADVISORY  READ %d %02x:%02x:%lu 0 EOF\n", getpid(),
             major(st.st_dev), minor(st.st_dev), st.st_ino);
    CHECK_STR(line, want);
    OK(flock(fd, LOCK_UN));
    struct flock o = {.l_type = F_RDLCK, .l_start = 0, .l_len = 1};
    OK(fcntl(fd, F_OFD_SETLK, &o));
    CHECK(lock_line(fd, "OFDLCK", line, sizeof(line)));
    snprintf(want, sizeof(want), "OFDLCK ADVISORY  READ -1 %02x:%02x:%lu 0 0\n", major(st.st_dev),
             minor(st.st_dev), st.st_ino);
    CHECK_STR(line, want);
    OK(close(fd));
    fd = OK(open("f", O_RDONLY));
    OK(lease(fd, F_RDLCK));
    CHECK(lock_line(fd, "LEASE", line, sizeof(line)));
    snprintf(want, sizeof(want), "LEASE  ACTIVE    READ %d %02x:%02x:%lu 0 EOF\n", getpid(),
             major(st.st_dev), minor(st.st_dev), st.st_ino);
    CHECK_STR(line, want);
}
