/* Time namespaces: offsets, who may set them, what shows and keeps them, how they are entered. */
#include "harness.h"

#include <linux/futex.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <time.h>

CONF_FAMILY("timens");

#define SEC INT64_C(1000000000)
#define MONO_OFF 100000
#define BOOT_OFF 3000000
#define OFFSETS "/proc/self/timens_offsets"

static int64_t ns_of(const struct timespec *ts)
{
    return ts->tv_sec * SEC + ts->tv_nsec;
}

static int64_t by_vdso(clockid_t clock)
{
    struct timespec ts;
    OK(clock_gettime(clock, &ts));
    return ns_of(&ts);
}

static int64_t by_call(clockid_t clock)
{
    struct timespec ts;
    OK(syscall(SYS_clock_gettime, clock, &ts));
    return ns_of(&ts);
}

/* All rights, and another time namespace for children. */
static void unshare_time(void)
{
    OK(unshare(CLONE_NEWUSER | CLONE_NEWTIME));
}

static void set_offsets(int64_t mono, int64_t boot)
{
    char text[128];
    snprintf(text, sizeof(text), "monotonic %lld 0\nboottime %lld 0\n", (long long)mono,
             (long long)boot);
    CHECK_EQ(conf_try_put(OFFSETS, text), strlen(text));
}

struct moment {
    int64_t at[12];
};

static int64_t offset_of(clockid_t c, int64_t mono, int64_t boot)
{
    switch (c) {
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
        return mono * SEC;
    case CLOCK_BOOTTIME:
        return boot * SEC;
    default:
        return 0;
    }
}

static struct moment now_everywhere(void)
{
    struct moment m = {{0}};
    for (clockid_t c = 0; c < 12; c++)
        if (offset_of(c, 1, 1) != 0 || c == CLOCK_REALTIME || c == CLOCK_TAI)
            m.at[c] = by_call(c);
    return m;
}

/* Every clock has gone on from *from, which was read without offsets, but for these. */
static void check_clocks(const struct moment *from, int64_t mono, int64_t boot)
{
    for (clockid_t c = 0; c < 12; c++) {
        if (from->at[c] == 0)
            continue;
        const int64_t least = from->at[c] + offset_of(c, mono, boot);
        const int64_t vdso = by_vdso(c), call = by_call(c);
        /* A minute more is not what an offset makes. */
        if (vdso < least || vdso > least + 60 * SEC || call < least || call > least + 60 * SEC)
            conf_fail(__FILE__, __LINE__, "clock %d: %lld and %lld, from %lld", c, (long long)vdso,
                      (long long)call, (long long)least);
    }
}

TEST(offsets_are_shown_and_set)
{
    char text[256];
    conf_get(OFFSETS, text, sizeof(text));
    CHECK_STR(text, "monotonic           0         0\nboottime            0         0\n");
    unshare_time();
    conf_get(OFFSETS, text, sizeof(text));
    CHECK_STR(text, "monotonic           0         0\nboottime            0         0\n");
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic 12 34\nboottime 56 78\n"), 31);
    conf_get(OFFSETS, text, sizeof(text));
    CHECK_STR(text, "monotonic          12        34\nboottime           56        78\n");
    /* By number, one alone, without an end of line; only two are taken at once. */
    CHECK_EQ(conf_try_put(OFFSETS, "7 1000 999999999"), 16);
    CHECK_EQ(conf_try_put(OFFSETS, "1 7 8\n1 9 10\nboottime 1 1\n"), 13);
    conf_get(OFFSETS, text, sizeof(text));
    CHECK_STR(text, "monotonic           9        10\nboottime         1000 999999999\n");
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic -1 5"), 14);
    conf_get(OFFSETS, text, sizeof(text));
    CHECK_STR(text, "monotonic          -1         5\nboottime         1000 999999999\n");
}

TEST(offsets_that_are_refused)
{
    /* Those of the first namespace are for ever what they are. */
    int r = conf_try_put(OFFSETS, "monotonic 1 0");
    CHECK(r == -EPERM || r == -EACCES);
    unshare_time();
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic 1"), -EINVAL);
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic 1 1000000000"), -EINVAL);
    CHECK_EQ(conf_try_put(OFFSETS, "realtime 1 0"), -EINVAL);
    CHECK_EQ(conf_try_put(OFFSETS, "0 1 0"), -EINVAL);
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic x 0"), -EINVAL);
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic 1 0\nnonsense"), -EINVAL);
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic 9223372037 0"), -ERANGE);
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic 4611686019 0"), -ERANGE);
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic -1000000000 0"), -ERANGE);
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic 1 0\nboottime -1000000000 0"), -ERANGE);
    char text[256];
    conf_get(OFFSETS, text, sizeof(text));
    CHECK_STR(text, "monotonic           0         0\nboottime            0         0\n");
    /* Somebody is there. */
    set_offsets(1, 1);
    CHECK_EXIT(({
                   pid_t pid = conf_fork();
                   if (pid == 0) {
                       CHECK_EQ(conf_try_put(OFFSETS, "monotonic 2 0"), -EACCES);
                       _exit(0);
                   }
                   pid;
               }),
               0);
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic 2 0"), -EACCES);
    CHECK_ERRNO(open("/proc/thread-self/timens_offsets", O_RDONLY), ENOENT);
}

TEST(children_read_other_clocks)
{
    const struct moment m = now_everywhere();
    unshare_time();
    set_offsets(MONO_OFF, BOOT_OFF);
    check_clocks(&m, 0, 0);
    pid_t pid = conf_fork();
    if (pid == 0) {
        check_clocks(&m, MONO_OFF, BOOT_OFF);
        /* ... and theirs. */
        pid_t again = conf_fork();
        if (again == 0) {
            check_clocks(&m, MONO_OFF, BOOT_OFF);
            _exit(0);
        }
        CHECK_EXIT(again, 0);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    check_clocks(&m, 0, 0);
}

TEST(clocks_may_be_behind)
{
    const int64_t mono = -(by_call(CLOCK_MONOTONIC) / SEC / 2);
    const int64_t boot = -(by_call(CLOCK_BOOTTIME) / SEC / 3);
    const struct moment m = now_everywhere();
    unshare_time();
    set_offsets(mono, boot);
    pid_t pid = conf_fork();
    if (pid == 0) {
        check_clocks(&m, mono, boot);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(fractions_carry)
{
    unshare_time();
    CHECK(conf_try_put(OFFSETS, "monotonic 10 999999999\nboottime -1 1") > 0);
    const int64_t mono = by_call(CLOCK_MONOTONIC), boot = by_call(CLOCK_BOOTTIME);
    pid_t pid = conf_fork();
    if (pid == 0) {
        for (int i = 0; i < 1000; i++) {
            struct timespec ts;
            OK(clock_gettime(CLOCK_MONOTONIC, &ts));
            CHECK(ts.tv_nsec >= 0 && ts.tv_nsec < SEC);
            CHECK(ns_of(&ts) >= mono + 11 * SEC - 1);
            OK(clock_gettime(CLOCK_BOOTTIME, &ts));
            CHECK(ts.tv_nsec >= 0 && ts.tv_nsec < SEC);
            CHECK(ns_of(&ts) >= boot - SEC + 1);
            CHECK(ns_of(&ts) < boot - SEC + 60 * SEC);
        }
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

/* argv: the moment of the monotonic clock that is to have passed, and one that is not. */
HELPER(clock_between)
{
    CHECK_EQ(argc, 3);
    const int64_t vdso = by_vdso(CLOCK_MONOTONIC), call = by_call(CLOCK_MONOTONIC);
    const int64_t from = atoll(argv[1]), to = atoll(argv[2]);
    CHECK(vdso >= from && vdso < to && call >= from && call < to);
    return 0;
}

NORETURN static void exec_between(int64_t from, int64_t to)
{
    char a[32], b[32];
    snprintf(a, sizeof(a), "%lld", (long long)from);
    snprintf(b, sizeof(b), "%lld", (long long)to);
    const char *args[] = {a, b, NULL};
    conf_exec_helper("clock_between", args);
}

TEST(a_new_program_stays_there)
{
    const int64_t now = by_call(CLOCK_MONOTONIC) + MONO_OFF * SEC;
    unshare_time();
    set_offsets(MONO_OFF, BOOT_OFF);
    pid_t pid = conf_fork();
    if (pid == 0)
        exec_between(now, now + 60 * SEC);
    CHECK_EXIT(pid, 0);
}

/* Who shares memory with a process stays where that is, till a program of its own. */
TEST(vfork_enters_with_execve)
{
    const struct moment m = now_everywhere();
    const int64_t now = m.at[CLOCK_MONOTONIC] + MONO_OFF * SEC;
    unshare_time();
    set_offsets(MONO_OFF, BOOT_OFF);
    pid_t pid = vfork();
    if (pid == 0) {
        check_clocks(&m, 0, 0);
        exec_between(now, now + 60 * SEC);
    }
    CHECK_EXIT(pid, 0);
    check_clocks(&m, 0, 0);
}

TEST(execve_enters_by_itself)
{
    const int64_t now = by_call(CLOCK_MONOTONIC) + MONO_OFF * SEC;
    pid_t pid = conf_fork();
    if (pid == 0) {
        unshare_time();
        set_offsets(MONO_OFF, BOOT_OFF);
        exec_between(now, now + 60 * SEC);
    }
    CHECK_EXIT(pid, 0);
}

static void *thread_clocks(void *arg)
{
    check_clocks(arg, 0, 0);
    return NULL;
}

TEST(threads_stay)
{
    struct moment m = now_everywhere();
    pthread_t th;
    unshare_time();
    set_offsets(MONO_OFF, BOOT_OFF);
    CHECK_EQ(pthread_create(&th, NULL, thread_clocks, &m), 0);
    CHECK_EQ(pthread_join(th, NULL), 0);
}

/* ---- what waits for a moment ---- */

/* Runs fn in a namespace with clocks that are ahead, and in one with clocks behind. */
static void both_ways(void (*fn)(void))
{
    const int64_t behind = -(by_call(CLOCK_MONOTONIC) / SEC / 2);
    const int64_t offsets[2] = {MONO_OFF, behind};
    for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
        pid_t outer = conf_fork();
        if (outer == 0) {
            unshare_time();
            set_offsets(offsets[i], offsets[i]);
            pid_t pid = conf_fork();
            if (pid == 0) {
                fn();
                _exit(0);
            }
            CHECK_EXIT(pid, 0);
            _exit(0);
        }
        CHECK_EXIT(outer, 0);
    }
}

static const clockid_t moved[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME};

static struct timespec soon(clockid_t clock)
{
    const int64_t at = by_call(clock) + SEC / 20;
    return (struct timespec){at / SEC, at % SEC};
}

static void sleeps(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(moved); i++) {
        const struct timespec ts = soon(moved[i]), past = {1, 0}, shortly = {0, 1000};
        CHECK_EQ(clock_nanosleep(moved[i], TIMER_ABSTIME, &ts, NULL), 0);
        CHECK(by_call(moved[i]) >= ns_of(&ts));
        CHECK_EQ(clock_nanosleep(moved[i], TIMER_ABSTIME, &past, NULL), 0);
        CHECK_EQ(clock_nanosleep(moved[i], 0, &shortly, NULL), 0);
    }
}

TEST(sleep_till)
{
    both_ways(sleeps);
}

static void timers(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(moved); i++) {
        struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
        const struct itimerspec it = {.it_value = soon(moved[i])};
        struct itimerspec left;
        siginfo_t info;
        sigset_t set;
        timer_t id;

        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        OK(sigprocmask(SIG_BLOCK, &set, NULL));
        OK(timer_create(moved[i], &ev, &id));
        OK(timer_settime(id, TIMER_ABSTIME, &it, NULL));
        OK(timer_gettime(id, &left));
        CHECK(ns_of(&left.it_value) <= SEC / 20);
        CHECK_EQ(OK(sigwaitinfo(&set, &info)), SIGUSR1);
        CHECK(by_call(moved[i]) >= ns_of(&it.it_value));
        OK(timer_delete(id));
    }
}

TEST(timer_at)
{
    both_ways(timers);
}

static void timerfds(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(moved); i++) {
        const struct itimerspec it = {.it_value = soon(moved[i])};
        struct itimerspec left;
        uint64_t n;
        int fd = OK(timerfd_create(moved[i], 0));
        OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &it, NULL));
        OK(timerfd_gettime(fd, &left));
        CHECK(ns_of(&left.it_value) <= SEC / 20);
        CHECK_EQ(OK(read(fd, &n, sizeof(n))), 8);
        CHECK_EQ(n, 1);
        CHECK(by_call(moved[i]) >= ns_of(&it.it_value));
        close(fd);
    }
}

TEST(timerfd_at)
{
    both_ways(timerfds);
}

static void futexes(void)
{
    uint32_t word = 0;
    const struct timespec ts = soon(CLOCK_MONOTONIC);
    CHECK_ERRNO(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, &ts, NULL, ~0u), ETIMEDOUT);
    CHECK(by_call(CLOCK_MONOTONIC) >= ns_of(&ts));
}

TEST(futex_till)
{
    both_ways(futexes);
}

/* ---- what else tells the time since boot ---- */

struct since_boot {
    double proc;
    long info;
    unsigned long long btime, start;
};

static struct since_boot since_boot(void)
{
    struct since_boot s;
    struct sysinfo si;
    char text[2048];

    conf_get("/proc/uptime", text, sizeof(text));
    CHECK_EQ(sscanf(text, "%lf", &s.proc), 1);
    OK(sysinfo(&si));
    s.info = si.uptime;
    int fd = OK(open("/proc/stat", O_RDONLY));
    FILE *f = fdopen(fd, "r");
    s.btime = 0;
    while (s.btime == 0 && fgets(text, sizeof(text), f))
        sscanf(text, "btime %llu", &s.btime);
    fclose(f);
    conf_get("/proc/self/stat", text, sizeof(text));
    const char *p = strrchr(text, ')');
    CHECK(p != NULL);
    for (int i = 0; i < 20 && p; i++)
        p = strchr(p + 1, ' ');
    CHECK(p != NULL);
    s.start = strtoull(p, NULL, 10);
    return s;
}

TEST(uptime_follows_boottime)
{
    const struct since_boot before = since_boot();
    unshare_time();
    set_offsets(MONO_OFF, BOOT_OFF);
    pid_t pid = conf_fork();
    if (pid == 0) {
        const struct since_boot s = since_boot();
        CHECK(s.proc >= before.proc + BOOT_OFF && s.proc < before.proc + BOOT_OFF + 60);
        CHECK(s.info >= before.info + BOOT_OFF && s.info < before.info + BOOT_OFF + 60);
        CHECK(s.btime + BOOT_OFF >= before.btime - 1 && s.btime + BOOT_OFF <= before.btime + 1);
        CHECK(s.start >= before.start + BOOT_OFF * 100ull);
        CHECK(s.start < before.start + BOOT_OFF * 100ull + 6000);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    const struct since_boot s = since_boot();
    CHECK_EQ(s.start, before.start);
    CHECK(s.proc < before.proc + 60);
}

/* ---- entering ---- */

static uint64_t ns_number(const char *path)
{
    char text[64];
    unsigned long long n = 0;
    ssize_t len = OK(readlink(path, text, sizeof(text) - 1));
    text[len] = '\0';
    CHECK_EQ(sscanf(text, "time:[%llu]", &n), 1);
    return n;
}

TEST(files_name_them)
{
    CHECK_EQ(ns_number("/proc/self/ns/time"), ns_number("/proc/self/ns/time_for_children"));
    const uint64_t first = ns_number("/proc/self/ns/time");
    unshare_time();
    CHECK_EQ(ns_number("/proc/self/ns/time"), first);
    const uint64_t second = ns_number("/proc/self/ns/time_for_children");
    CHECK(second != first);
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK_EQ(ns_number("/proc/self/ns/time"), second);
        CHECK_EQ(ns_number("/proc/self/ns/time_for_children"), second);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    int fd = OK(open("/proc/self/ns/time_for_children", O_RDONLY));
    CHECK_EQ(ioctl(fd, NS_GET_NSTYPE), CLONE_NEWTIME);
    CHECK_ERRNO(ioctl(fd, NS_GET_PARENT), EINVAL);
    close(OK(ioctl(fd, NS_GET_USERNS)));
    /* Each unshare makes one more. */
    OK(unshare(CLONE_NEWTIME));
    CHECK(ns_number("/proc/self/ns/time_for_children") != second);
}

TEST(setns_moves_at_once)
{
    const struct moment m = now_everywhere();
    unshare_time();
    set_offsets(MONO_OFF, BOOT_OFF);
    int other = OK(open("/proc/self/ns/time_for_children", O_RDONLY));
    CHECK_ERRNO(setns(other, CLONE_NEWUTS), EINVAL);
    OK(setns(other, CLONE_NEWTIME));
    check_clocks(&m, MONO_OFF, BOOT_OFF);
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic 2 0"), -EACCES);
    CHECK_EQ(ns_number("/proc/self/ns/time"), ns_number("/proc/self/ns/time_for_children"));
    OK(setns(other, 0));
    check_clocks(&m, MONO_OFF, BOOT_OFF);
    OK(unshare(CLONE_NEWTIME));
    set_offsets(MONO_OFF * 2, BOOT_OFF * 2);
    other = OK(open("/proc/self/ns/time_for_children", O_RDONLY));
    OK(setns(other, CLONE_NEWTIME));
    check_clocks(&m, MONO_OFF * 2, BOOT_OFF * 2);
}

TEST(setns_by_pidfd)
{
    const struct moment m = now_everywhere();
    int up[2];
    char c;

    OK(pipe(up));
    unshare_time();
    set_offsets(MONO_OFF, BOOT_OFF);
    pid_t pid = conf_fork();
    if (pid == 0) {
        close(up[1]);
        (void)!read(up[0], &c, 1);
        _exit(0);
    }
    int fd = (int)OK(syscall(SYS_pidfd_open, pid, 0));
    OK(setns(fd, CLONE_NEWTIME));
    check_clocks(&m, MONO_OFF, BOOT_OFF);
    close(up[1]);
    CHECK_EXIT(pid, 0);
}

static void *thread_waits(void *arg)
{
    char c;
    (void)!read(*(int *)arg, &c, 1);
    return NULL;
}

TEST(setns_is_for_a_single_thread)
{
    pthread_t th;
    int up[2];

    OK(pipe(up));
    unshare_time();
    int other = OK(open("/proc/self/ns/time_for_children", O_RDONLY));
    CHECK_EQ(pthread_create(&th, NULL, thread_waits, &up[0]), 0);
    CHECK_ERRNO(setns(other, CLONE_NEWTIME), EUSERS);
    close(up[1]);
    CHECK_EQ(pthread_join(th, NULL), 0);
}

TEST(setns_is_for_memory_of_ones_own)
{
    unshare_time();
    int other = OK(open("/proc/self/ns/time_for_children", O_RDONLY));
    pid_t pid = vfork();
    if (pid == 0) {
        CHECK_ERRNO(setns(other, CLONE_NEWTIME), EUSERS);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(setns(other, CLONE_NEWTIME));
}

TEST(setns_needs_rights)
{
    int own = OK(open("/proc/self/ns/time", O_RDONLY));
    OK(unshare(CLONE_NEWUSER));
    CHECK_ERRNO(setns(own, CLONE_NEWTIME), EPERM);
    CHECK_EQ(conf_try_put(OFFSETS, "monotonic 1 0"), -EPERM);
}

TEST(unshare_needs_rights)
{
    if (geteuid() == 0)
        OK(setresuid(1000, 1000, 1000));
    CHECK_ERRNO(unshare(CLONE_NEWTIME), EPERM);
}

static pid_t clone3_time(uint64_t flags)
{
    struct clone_args a = {.flags = flags, .exit_signal = SIGCHLD};
    return (pid_t)syscall(SYS_clone3, &a, sizeof(a));
}

TEST(clone3_makes_and_enters)
{
    const struct moment m = now_everywhere();
    const uint64_t first = ns_number("/proc/self/ns/time");
    OK(unshare(CLONE_NEWUSER));
    pid_t pid = OK(clone3_time(CLONE_NEWTIME));
    if (pid == 0) {
        CHECK(ns_number("/proc/self/ns/time") != first);
        CHECK_EQ(ns_number("/proc/self/ns/time"), ns_number("/proc/self/ns/time_for_children"));
        CHECK_EQ(conf_try_put(OFFSETS, "monotonic 1 0"), -EACCES);
        check_clocks(&m, 0, 0);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(ns_number("/proc/self/ns/time_for_children"), first);
    /* Offsets come from what children would have been in. */
    OK(unshare(CLONE_NEWTIME));
    set_offsets(MONO_OFF, BOOT_OFF);
    pid = OK(clone3_time(CLONE_NEWTIME));
    if (pid == 0) {
        check_clocks(&m, MONO_OFF, BOOT_OFF);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}
