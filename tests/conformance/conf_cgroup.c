/* Control groups: version 2's core, both versions' controllers, namespaces (cgroups(7)). */
#include "harness.h"

#include <linux/mount.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>

CONF_FAMILY("cgroup");

#define MIB (1024UL * 1024)

/* ---- files of groups ---- */

static char top[128], group[160];

static const char *file_of(const char *dir, const char *name)
{
    static char path[512];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void put(const char *dir, const char *name, const char *text)
{
    int fd = OK(open(file_of(dir, name), O_WRONLY));
    OK(write(fd, text, strlen(text)));
    OK(close(fd));
}

/* The errno, or 0. */
static int try_put(const char *dir, const char *name, const char *text)
{
    int fd = open(file_of(dir, name), O_WRONLY);
    if (fd < 0)
        return errno;
    int e = write(fd, text, strlen(text)) < 0 ? errno : 0;
    close(fd);
    return e;
}

static void put_number(const char *dir, const char *name, long v)
{
    char text[32];
    snprintf(text, sizeof(text), "%ld", v);
    put(dir, name, text);
}

static const char *get(const char *dir, const char *name)
{
    static char buf[8192];
    conf_get(file_of(dir, name), buf, sizeof(buf));
    return buf;
}

/* The number after key in a file of lines "key number"; -1: there is none. */
static long long value(const char *dir, const char *name, const char *key)
{
    char want[64];
    snprintf(want, sizeof(want), "%s ", key);
    for (const char *line = get(dir, name); line && *line;) {
        if (strncmp(line, want, strlen(want)) == 0)
            return atoll(line + strlen(want));
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return -1;
}

static bool lists(const char *dir, const char *name, long pid)
{
    static char text[8192];
    char *save = NULL;
    snprintf(text, sizeof(text), "%s", get(dir, name));
    for (char *w = strtok_r(text, "\n", &save); w; w = strtok_r(NULL, "\n", &save))
        if (atol(w) == pid)
            return true;
    return false;
}

/* ---- mounts and leftovers ---- */

static void leave(void)
{
    put(top, "cgroup.procs", "0");
    EVENTUALLY(rmdir(group) == 0 || errno != EBUSY);
    CHECK(!conf_exists(group));
}

static void enter_mount(const char *type, const char *options)
{
    NEED_ROOT();
    OK(unshare(CLONE_NEWNS));
    OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
    CHECK(getcwd(top, sizeof(top) - 8) != NULL);
    strcat(top, "/mnt");
    OK(mkdir(top, 0755));
    if (mount("cgroup", top, type, 0, options) != 0) {
        if (errno == EBUSY || errno == EINVAL)
            conf_skip("the controller belongs to the other version");
        conf_fail(__FILE__, __LINE__, "mount %s %s: %s", type, options, strerror(errno));
    }
    snprintf(group, sizeof(group), "%s/conf-%d", top, getpid());
    OK(mkdir(group, 0755));
}

/* Processes may not be where controllers are given on: they go to a group of their own. */
static char aside[160];

static void move_aside(void)
{
    static char text[8192];
    char *save = NULL;
    snprintf(aside, sizeof(aside), "%s/conf-aside", top);
    if (mkdir(aside, 0755) != 0)
        CHECK_EQ(errno, EEXIST);
    snprintf(text, sizeof(text), "%s", get(top, "cgroup.procs"));
    for (char *w = strtok_r(text, "\n", &save); w; w = strtok_r(NULL, "\n", &save))
        put(aside, "cgroup.procs", w);
}

static void enter_v2(const char *controller)
{
    char text[64];
    enter_mount("cgroup2", NULL);
    snprintf(text, sizeof(text), "+%s", controller);
    if (!strstr(get(top, "cgroup.controllers"), controller)) {
        rmdir(group);
        conf_skip("the controller belongs to the other version");
    }
    int e = try_put(top, "cgroup.subtree_control", text);
    if (e == EBUSY) {
        move_aside();
        e = try_put(top, "cgroup.subtree_control", text);
    }
    CHECK_EQ(e, 0);
}

static void leave_v2(const char *controller)
{
    static char text[8192];
    char *save = NULL;
    if (!aside[0]) {
        leave();
        return;
    }
    EVENTUALLY(rmdir(group) == 0 || errno != EBUSY);
    snprintf(text, sizeof(text), "-%s", controller);
    put(top, "cgroup.subtree_control", text);
    snprintf(text, sizeof(text), "%s", get(aside, "cgroup.procs"));
    for (char *w = strtok_r(text, "\n", &save); w; w = strtok_r(NULL, "\n", &save))
        put(top, "cgroup.procs", w);
    OK(rmdir(aside));
}

static pid_t member(void (*run)(void))
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        put(group, "cgroup.procs", "0");
        run();
        _exit(0);
    }
    return pid;
}

static void sleeper(void)
{
    for (;;)
        pause();
}

static void await_member(pid_t pid)
{
    EVENTUALLY(lists(group, "cgroup.procs", pid));
}

/* ---- version 2, core ---- */

static void *sleep_on(void *arg)
{
    while (pause() < 0)
        ;
    return arg;
}

TEST(v2_many_members)
{
    enum { COUNT = 300 };
    pthread_attr_t attr;
    int lines = 0;

    enter_mount("cgroup2", NULL);
    put(group, "cgroup.procs", "0");
    OK(pthread_attr_init(&attr));
    OK(pthread_attr_setstacksize(&attr, 65536));
    for (int i = 0; i < COUNT; i++) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, &attr, sleep_on, NULL), 0);
    }
    for (const char *s = get(group, "cgroup.threads"); *s; s++)
        lines += *s == '\n';
    CHECK_EQ(lines, COUNT + 1);
    CHECK(lists(group, "cgroup.procs", getpid()));
    put(top, "cgroup.procs", "0");
    EVENTUALLY(rmdir(group) == 0 || errno != EBUSY);
}

TEST(v2_files)
{
    enter_mount("cgroup2", NULL);
    struct statfs sfs;
    struct stat st;
    OK(statfs(top, &sfs));
    CHECK_EQ(sfs.f_type, 0x63677270);
    OK(stat(group, &st));
    CHECK(S_ISDIR(st.st_mode));
    CHECK_EQ(st.st_mode & 0777, 0755);
    OK(stat(file_of(group, "cgroup.procs"), &st));
    CHECK_EQ(st.st_mode, S_IFREG | 0644);
    CHECK_STR(get(group, "cgroup.type"), "domain\n");
    CHECK_STR(get(group, "cgroup.procs"), "");
    CHECK_STR(get(group, "cgroup.subtree_control"), "");
    CHECK_STR(get(group, "cgroup.events"), "populated 0\nfrozen 0\n");
    CHECK_STR(get(group, "cgroup.freeze"), "0\n");
    CHECK_STR(get(group, "cgroup.max.depth"), "max\n");
    CHECK_STR(get(group, "cgroup.max.descendants"), "max\n");
    CHECK_EQ(value(group, "cgroup.stat", "nr_descendants"), 0);
    CHECK(value(group, "cpu.stat", "usage_usec") >= 0);
    CHECK_ERRNO(unlink(file_of(group, "cgroup.procs")), EPERM);
    CHECK_ERRNO(open(file_of(group, "file"), O_CREAT | O_RDWR, 0600), EACCES);
    CHECK_ERRNO(open(file_of(group, "none"), O_RDWR), ENOENT);
    CHECK_ERRNO(mkdir(group, 0755), EEXIST);
    CHECK_ERRNO(rmdir(file_of(group, "cgroup.procs")), ENOTDIR);
    CHECK_EQ(try_put(group, "cgroup.subtree_control", "+nothing"), EINVAL);
    CHECK_EQ(try_put(group, "cgroup.procs", "word"), EINVAL);
    CHECK_EQ(try_put(group, "cgroup.procs", "999999999"), ESRCH);
    CHECK_EQ(try_put(group, "cgroup.freeze", "2"), ERANGE);
    CHECK_EQ(try_put(group, "cgroup.kill", "0"), ERANGE);
    leave();
}

TEST(v2_tree)
{
    enter_mount("cgroup2", NULL);
    char sub[256], deep[300];
    snprintf(sub, sizeof(sub), "%s/sub", group);
    snprintf(deep, sizeof(deep), "%s/deep", sub);
    OK(mkdir(sub, 0700));
    OK(mkdir(deep, 0700));
    struct stat st;
    OK(stat(sub, &st));
    CHECK_EQ(st.st_mode & 0777, 0700);
    CHECK_EQ(value(group, "cgroup.stat", "nr_descendants"), 2);
    CHECK_ERRNO(rmdir(sub), EBUSY);
    put(sub, "cgroup.max.descendants", "1");
    CHECK_ERRNO(mkdir(file_of(sub, "other"), 0700), EAGAIN);
    put(sub, "cgroup.max.descendants", "max");
    put(sub, "cgroup.max.depth", "1");
    CHECK_ERRNO(mkdir(file_of(deep, "more"), 0700), EAGAIN);
    int fd = OK(open(file_of(deep, "cgroup.procs"), O_RDONLY));
    OK(rmdir(deep));
    char c;
    CHECK_ERRNO(read(fd, &c, 1), ENODEV);
    OK(close(fd));
    OK(rmdir(sub));
    CHECK(!conf_exists(sub));
    leave();
}

TEST(v2_members)
{
    enter_mount("cgroup2", NULL);
    char path[256], line[320];
    pid_t pid = member(sleeper);
    await_member(pid);
    CHECK_EQ(value(group, "cgroup.events", "populated"), 1);
    CHECK_ERRNO(rmdir(group), EBUSY);
    snprintf(path, sizeof(path), "/proc/%d", pid);
    snprintf(line, sizeof(line), "/conf-%d\n", getpid());
    const char *own = strstr(get(path, "cgroup"), "0::");
    CHECK(own != NULL && strstr(own, line) != NULL);
    /* Children are where their parents are. */
    CHECK(!lists(top, "cgroup.procs", pid));
    int fd = OK(open(file_of(group, "cgroup.events"), O_RDONLY));
    char buf[64];
    OK(read(fd, buf, sizeof(buf)));
    struct pollfd p = {.fd = fd, .events = POLLPRI};
    CHECK_EQ(OK(poll(&p, 1, 0)), 0);
    OK(kill(pid, SIGKILL));
    CHECK_EQ(OK(poll(&p, 1, 20000)), 1);
    CHECK(p.revents & POLLPRI);
    CHECK_KILLED(pid, SIGKILL);
    CHECK_EQ(value(group, "cgroup.events", "populated"), 0);
    CHECK_STR(get(group, "cgroup.procs"), "");
    OK(close(fd));
    leave();
}

static int *counter;

static void count(void)
{
    for (;;)
        __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
}

/* It has begun to count. */
static void await_count(void)
{
    EVENTUALLY(__atomic_load_n(counter, __ATOMIC_SEQ_CST) != 0);
}

static void await_frozen(int want)
{
    EVENTUALLY(value(group, "cgroup.events", "frozen") == want);
}

TEST_TIMEOUT(v2_freeze, 60)
{
    enter_mount("cgroup2", NULL);
    counter = conf_shared(sizeof(int));
    pid_t pid = member(count);
    await_member(pid);
    await_count();
    put(group, "cgroup.freeze", "1");
    await_frozen(1);
    int before = __atomic_load_n(counter, __ATOMIC_SEQ_CST);
    usleep(100000);
    CHECK_EQ(__atomic_load_n(counter, __ATOMIC_SEQ_CST), before);
    put(group, "cgroup.freeze", "0");
    await_frozen(0);
    EVENTUALLY(__atomic_load_n(counter, __ATOMIC_SEQ_CST) != before);
    /* What comes in is frozen too, and what is frozen can be killed. */
    put(group, "cgroup.freeze", "1");
    pid_t other = conf_fork();
    if (other == 0) {
        pause();
        _exit(0);
    }
    put_number(group, "cgroup.procs", other);
    await_frozen(1);
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
    OK(kill(other, SIGKILL));
    CHECK_KILLED(other, SIGKILL);
    leave();
}

TEST(v2_kill)
{
    enter_mount("cgroup2", NULL);
    pid_t a = member(sleeper), b = member(sleeper);
    await_member(a);
    await_member(b);
    put(group, "cgroup.kill", "1");
    CHECK_KILLED(a, SIGKILL);
    CHECK_KILLED(b, SIGKILL);
    leave();
}

static void *thread_sleep(void *arg)
{
    *(volatile pid_t *)arg = (pid_t)syscall(SYS_gettid);
    for (;;)
        pause();
    return NULL;
}

static void *thread_word;
static volatile pid_t *thread_id;

static void with_thread(void)
{
    pthread_t th;
    CHECK_EQ(pthread_create(&th, NULL, thread_sleep, thread_word), 0);
    sleeper();
}

TEST(v2_threads)
{
    enter_mount("cgroup2", NULL);
    thread_word = conf_shared(sizeof(*thread_id));
    thread_id = thread_word;
    pid_t pid = member(with_thread);
    await_member(pid);
    EVENTUALLY(*thread_id != 0);
    CHECK(lists(group, "cgroup.threads", pid));
    CHECK(lists(group, "cgroup.threads", *thread_id));
    CHECK(!lists(group, "cgroup.procs", *thread_id));
    char tid[32];
    snprintf(tid, sizeof(tid), "%d", (int)*thread_id);
    CHECK_EQ(try_put(top, "cgroup.threads", tid), EOPNOTSUPP);
    put(top, "cgroup.procs", tid);
    CHECK(lists(top, "cgroup.threads", *thread_id));
    CHECK(!lists(group, "cgroup.threads", pid));
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
    leave();
}

TEST(v2_clone_into)
{
    enter_mount("cgroup2", NULL);
    int dir = OK(open(group, O_RDONLY | O_DIRECTORY));
    struct clone_args a = {
        .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (unsigned)dir};
    pid_t pid = (pid_t)OK(syscall(SYS_clone3, &a, sizeof(a)));
    if (pid == 0) {
        pause();
        _exit(0);
    }
    CHECK(lists(group, "cgroup.procs", pid));
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
    int file = OK(open("/dev/null", O_RDONLY));
    a.cgroup = (unsigned)file;
    CHECK_ERRNO(syscall(SYS_clone3, &a, sizeof(a)), EBADF);
    a.cgroup = 9999;
    CHECK_ERRNO(syscall(SYS_clone3, &a, sizeof(a)), EBADF);
    OK(rmdir(group));
    a.cgroup = (unsigned)dir;
    CHECK_ERRNO(syscall(SYS_clone3, &a, sizeof(a)), ENOENT);
    OK(close(dir));
    OK(close(file));
}

static void in_namespace(void)
{
    OK(unshare(CLONE_NEWCGROUP));
    const char *own = strstr(get("/proc/self", "cgroup"), "0::");
    CHECK(own != NULL);
    CHECK(strncmp(own, "0::/\n", 5) == 0);
    /* What lies above is seen as such. */
    const char *above = strstr(get("/proc/1", "cgroup"), "0::");
    CHECK(above != NULL && strncmp(above, "0::/..", 6) == 0);
    OK(mkdir("inner", 0755));
    OK(mount("cgroup", "inner", "cgroup2", 0, NULL));
    CHECK(lists("inner", "cgroup.procs", getpid()));
    CHECK(conf_exists("inner/cgroup.type"));
    OK(mkdir("inner/below", 0755));
    put("inner/below", "cgroup.procs", "0");
    own = strstr(get("/proc/self", "cgroup"), "0::");
    CHECK(own != NULL && strncmp(own, "0::/below\n", 10) == 0);
    put("inner", "cgroup.procs", "0");
    OK(rmdir("inner/below"));
    OK(umount("inner"));
}

TEST(v2_namespace)
{
    enter_mount("cgroup2", NULL);
    CHECK_EXIT(member(in_namespace), 0);
    leave();
}

TEST(v2_rights)
{
    enter_mount("cgroup2", NULL);
    OK(chown(group, 1000, 1000));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(setgid(1000));
        OK(setuid(1000));
        CHECK_EQ(try_put(top, "cgroup.procs", "0"), EACCES);
        CHECK_EQ(try_put(group, "cgroup.procs", "0"), EACCES);
        char mine[256];
        snprintf(mine, sizeof(mine), "%s/mine", group);
        OK(mkdir(mine, 0755));
        struct stat st;
        OK(stat(mine, &st));
        CHECK_EQ(st.st_uid, 1000);
        OK(stat(file_of(mine, "cgroup.procs"), &st));
        CHECK_EQ(st.st_uid, 1000);
        /* The way there leads over a group that is not its own. */
        CHECK_EQ(try_put(mine, "cgroup.procs", "0"), EACCES);
        OK(rmdir(mine));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(chmod(file_of(group, "cgroup.procs"), 0600));
    struct stat st;
    OK(stat(file_of(group, "cgroup.procs"), &st));
    CHECK_EQ(st.st_mode & 0777, 0600);
    leave();
}

/* ---- controllers, in either version ---- */

static void fork_two(void)
{
    pid_t one = fork();
    CHECK(one >= 0);
    if (one == 0)
        sleeper();
    CHECK_ERRNO(fork(), EAGAIN);
    kill(one, SIGKILL);
    CHECK_KILLED(one, SIGKILL);
    pid_t again = fork();
    CHECK(again >= 0);
    if (again == 0)
        _exit(0);
    CHECK_EXIT(again, 0);
}

static void check_pids(void)
{
    CHECK_STR(get(group, "pids.max"), "max\n");
    CHECK_STR(get(group, "pids.current"), "0\n");
    put(group, "pids.max", "2");
    CHECK_STR(get(group, "pids.max"), "2\n");
    CHECK_EQ(try_put(group, "pids.max", "-1"), EINVAL);
    CHECK_EQ(try_put(group, "pids.max", "word"), EINVAL);
    CHECK_EXIT(member(fork_two), 0);
    CHECK(value(group, "pids.events", "max") >= 1);
    CHECK_STR(get(group, "pids.current"), "0\n");
    /* Who is moved in is not turned away. */
    put(group, "pids.max", "0");
    pid_t pid = member(sleeper);
    await_member(pid);
    CHECK_STR(get(group, "pids.current"), "1\n");
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
}

TEST(v1_pids)
{
    enter_mount("cgroup", "pids");
    check_pids();
    leave();
}

TEST(v2_pids)
{
    enter_v2("pids");
    check_pids();
    leave_v2("pids");
}

static void eat(unsigned long size)
{
    char *p = OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (unsigned long i = 0; i < size; i += CONF_PAGE)
        p[i] = 1;
}

static void eat_much(void)
{
    eat(256 * MIB);
}

static void eat_little(void)
{
    eat(16 * MIB);
    *counter = 1;
    sleeper();
}

static void eat_shared(void)
{
    char *p = OK(mmap(NULL, 256 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    for (int round = 0;; round++)
        for (unsigned long i = 0; i < 256 * MIB; i += CONF_PAGE)
            p[i] = (char)round;
}

static void eat_pieces(void)
{
    for (;;)
        memset(OK(mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)), 1,
               MIB);
}

static void check_memory(const char *limit, const char *current, const char *events)
{
    counter = conf_shared(sizeof(int));
    pid_t pid = member(eat_little);
    conf_await(counter, 1);
    long long now = atoll(get(group, current));
    CHECK(now >= (long long)(16 * MIB) && now < (long long)(48 * MIB));
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
    put(group, limit, "67108864");
    CHECK_STR(get(group, limit), "67108864\n");
    CHECK_KILLED(member(eat_much), SIGKILL);
    CHECK_KILLED(member(eat_pieces), SIGKILL);
    CHECK_KILLED(member(eat_shared), SIGKILL);
    CHECK(value(group, events, "oom_kill") >= 3);
    *counter = 0;
    pid = member(eat_little);
    conf_await(counter, 1);
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
    CHECK_EQ(try_put(group, limit, "word"), EINVAL);
}

TEST_TIMEOUT(v1_memory, 120)
{
    enter_mount("cgroup", "memory");
    check_memory("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control");
    put(group, "memory.limit_in_bytes", "-1");
    leave();
}

TEST_TIMEOUT(v2_memory, 120)
{
    enter_v2("memory");
    CHECK_STR(get(group, "memory.max"), "max\n");
    check_memory("memory.max", "memory.current", "memory.events");
    CHECK(value(group, "memory.stat", "anon") >= 0);
    put(group, "memory.max", "max");
    leave_v2("memory");
}

static double clock_seconds(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* For some periods of a quota, and till there is something to count, as others may have the CPUs.
 * The CPU time it got goes to counter, in percent. */
static void spin(void)
{
    const double wall = clock_seconds(CLOCK_MONOTONIC);
    const double cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
    double wall_spent, cpu_spent;

    do {
        const double turn = clock_seconds(CLOCK_MONOTONIC);
        while (clock_seconds(CLOCK_MONOTONIC) - turn < 1.5)
            ;
        wall_spent = clock_seconds(CLOCK_MONOTONIC) - wall;
        cpu_spent = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    } while (cpu_spent < 0.02);
    *counter = (int)(cpu_spent / wall_spent * 100);
}

/* Only upper bounds: a busy machine gives less. */
static void check_cpu(void)
{
    counter = conf_shared(sizeof(int));
    CHECK_EXIT(member(spin), 0);
    conf_diag("%d %% of a CPU with a quota of 5 %%", *counter);
    CHECK(*counter <= 25);
    CHECK(value(group, "cpu.stat", "nr_periods") > 0);
    CHECK(*counter < 10 || value(group, "cpu.stat", "nr_throttled") > 0);
}

TEST_TIMEOUT(v1_cpu, 60)
{
    enter_mount("cgroup", "cpu");
    CHECK_STR(get(group, "cpu.cfs_quota_us"), "-1\n");
    CHECK_STR(get(group, "cpu.cfs_period_us"), "100000\n");
    CHECK_STR(get(group, "cpu.shares"), "1024\n");
    CHECK_EQ(try_put(group, "cpu.cfs_quota_us", "10"), EINVAL);
    put(group, "cpu.shares", "1");
    CHECK_STR(get(group, "cpu.shares"), "2\n");
    put(group, "cpu.shares", "1024");
    put(group, "cpu.cfs_quota_us", "5000");
    check_cpu();
    CHECK(value(group, "cpu.stat", "throttled_time") >= 0);
    leave();
}

TEST_TIMEOUT(v2_cpu, 60)
{
    enter_v2("cpu");
    CHECK_STR(get(group, "cpu.max"), "max 100000\n");
    CHECK_STR(get(group, "cpu.weight"), "100\n");
    CHECK_EQ(try_put(group, "cpu.weight", "0"), ERANGE);
    CHECK_EQ(try_put(group, "cpu.max", "10 100000"), EINVAL);
    CHECK_EQ(try_put(group, "cpu.max", "word"), EINVAL);
    put(group, "cpu.max", "5000 100000");
    CHECK_STR(get(group, "cpu.max"), "5000 100000\n");
    check_cpu();
    CHECK(value(group, "cpu.stat", "usage_usec") > 10000);
    leave_v2("cpu");
}

TEST(v1_cpuacct)
{
    enter_mount("cgroup", "cpuacct");
    CHECK_STR(get(group, "cpuacct.usage"), "0\n");
    counter = conf_shared(sizeof(int));
    CHECK_EXIT(member(spin), 0);
    CHECK(atoll(get(group, "cpuacct.usage")) > 10000000);
    CHECK(value(group, "cpuacct.stat", "user") >= 0);
    leave();
}

static void await_text(const char *name, const char *want)
{
    EVENTUALLY(strcmp(get(group, name), want) == 0);
}

TEST_TIMEOUT(v1_freezer, 60)
{
    enter_mount("cgroup", "freezer");
    counter = conf_shared(sizeof(int));
    CHECK_STR(get(group, "freezer.state"), "THAWED\n");
    pid_t pid = member(count);
    await_count();
    put(group, "freezer.state", "FROZEN");
    await_text("freezer.state", "FROZEN\n");
    CHECK_STR(get(group, "freezer.self_freezing"), "1\n");
    CHECK_STR(get(group, "freezer.parent_freezing"), "0\n");
    int before = __atomic_load_n(counter, __ATOMIC_SEQ_CST);
    usleep(50000);
    CHECK_EQ(__atomic_load_n(counter, __ATOMIC_SEQ_CST), before);
    CHECK_EQ(try_put(group, "freezer.state", "COLD"), EINVAL);
    put(group, "freezer.state", "THAWED");
    await_text("freezer.state", "THAWED\n");
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
    leave();
}

static void check_names(void)
{
    pid_t pid = member(sleeper);
    await_member(pid);
    char path[64], line[128];
    snprintf(path, sizeof(path), "/proc/%d", pid);
    snprintf(line, sizeof(line), ":name=conformance:%s\n", strrchr(group, '/'));
    CHECK(strstr(get(path, "cgroup"), line) != NULL);
    put(group, "tasks", "0");
    CHECK(lists(group, "tasks", getpid()));
    put(top, "tasks", "0");
    CHECK_STR(get(group, "notify_on_release"), "0\n");
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
    CHECK_ERRNO(mount("cgroup", top, "cgroup", 0, "nosuchthing"), EINVAL);
    CHECK_ERRNO(mount("cgroup", top, "cgroup", 0, "none"), EINVAL);
}

static bool name_is_there(void)
{
    return strstr(get("/proc/self", "cgroup"), "name=conformance") != NULL;
}

static bool name_is_gone(void)
{
    bool there = true;

    for (int i = 0; i < 500 && there; i++) {
        usleep(20000);
        there = name_is_there();
    }
    return !there;
}

/* The hierarchy must not outlive the case, whatever happens in it. */
TEST(v1_names)
{
    enter_mount("cgroup", "none,name=conformance");
    pid_t pid = conf_fork();
    if (pid == 0) {
        check_names();
        _exit(0);
    }
    int status = conf_wait(pid);
    char text[256];
    snprintf(text, sizeof(text), "%s", get(group, "cgroup.procs"));
    char *save = NULL;
    for (char *w = strtok_r(text, "\n", &save); w; w = strtok_r(NULL, "\n", &save))
        (void)kill((pid_t)atol(w), SIGKILL);
    leave();
    OK(umount(top));
    /* Removed groups go a little later than rmdir(2) returns, and till then an unmounted hierarchy
     * stays: the next umount takes it, in its own time. */
    for (int i = 0; i < 5 && !name_is_gone(); i++) {
        OK(mount("cgroup", top, "cgroup", 0, "none,name=conformance"));
        OK(umount(top));
    }
    CHECK(name_is_gone());
    CHECK_EQ(status, 0);
}

TEST(v1_name_ends_without_a_mount)
{
    const int fd = (int)OK(syscall(SYS_fsopen, "cgroup", 0));

    OK(syscall(SYS_fsconfig, fd, FSCONFIG_SET_FLAG, "none", NULL, 0));
    OK(syscall(SYS_fsconfig, fd, FSCONFIG_SET_STRING, "name", "conformance", 0));
    OK(syscall(SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    CHECK(name_is_there());
    OK(close(fd));
    CHECK(name_is_gone());
}
