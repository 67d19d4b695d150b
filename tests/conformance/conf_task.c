/* What a task is told about itself and may set: prctl(2), scheduling, limits, names, clone3(2),
 * unshare(2), pidfds, random numbers. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/membarrier.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/utsname.h>

#include "harness.h"

CONF_FAMILY("task");

#define UID_A 54321
#define NO_SUCH_PID (1 << 22)

static void become_plain(void)
{
    OK(setresuid(UID_A, UID_A, UID_A));
}

/* ---- prctl ---- */

TEST(name_is_cut_at_fifteen)
{
    char name[16];

    OK(prctl(PR_SET_NAME, "a-name-that-is-too-long"));
    OK(prctl(PR_GET_NAME, name));
    CHECK_STR(name, "a-name-that-is-");
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(prctl(PR_GET_NAME, name));
        CHECK_STR(name, "a-name-that-is-");
        OK(prctl(PR_SET_NAME, ""));
        OK(prctl(PR_GET_NAME, name));
        CHECK_STR(name, "");
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_ERRNO(prctl(PR_SET_NAME, 8), EFAULT);
    CHECK_ERRNO(prctl(PR_GET_NAME, 8), EFAULT);
}

TEST(parent_death_signal_value)
{
    int signo = -1;

    CHECK_ERRNO(prctl(PR_SET_PDEATHSIG, 65), EINVAL);
    OK(prctl(PR_SET_PDEATHSIG, SIGUSR2));
    OK(prctl(PR_GET_PDEATHSIG, &signo));
    CHECK_EQ(signo, SIGUSR2);
    CHECK_ERRNO(prctl(PR_GET_PDEATHSIG, 8), EFAULT);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(prctl(PR_GET_PDEATHSIG, &signo));
        CHECK_EQ(signo, 0);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(dumpable_value)
{
    CHECK_EQ(prctl(PR_GET_DUMPABLE), 1);
    CHECK_ERRNO(prctl(PR_SET_DUMPABLE, 2), EINVAL);
    OK(prctl(PR_SET_DUMPABLE, 0));
    CHECK_EQ(prctl(PR_GET_DUMPABLE), 0);
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(prctl(PR_GET_DUMPABLE));
    CHECK_EXIT(pid, 0);
}

TEST(timer_slack)
{
    OK(prctl(PR_SET_TIMERSLACK, 77777));
    CHECK_EQ(prctl(PR_GET_TIMERSLACK), 77777);
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK_EQ(prctl(PR_GET_TIMERSLACK), 77777);
        OK(prctl(PR_SET_TIMERSLACK, 11));
        OK(prctl(PR_SET_TIMERSLACK, 0)); /* the one it was born with */
        CHECK_EQ(prctl(PR_GET_TIMERSLACK), 77777);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

/* ---- the time stamp counter ---- */

static void tsc_fault(int sig, siginfo_t *si, void *uc)
{
    (void)uc;
    if (sig != SIGSEGV || si->si_code != SI_KERNEL || si->si_addr)
        _exit(99);
    _exit(7);
}

/* What a child reads; the clocks of the vDSO read the counter, too. */
static pid_t tsc_child(bool p)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        unsigned aux;
        if (p)
            __builtin_ia32_rdtscp(&aux);
        else
            __builtin_ia32_rdtsc();
        _exit(0);
    }
    return pid;
}

static void *tsc_thread(void *arg)
{
    int v = 0;
    OK(prctl(PR_GET_TSC, &v));
    CHECK_EQ(v, PR_TSC_SIGSEGV);
    OK(prctl(PR_SET_TSC, PR_TSC_ENABLE));
    __builtin_ia32_rdtsc();
    return arg;
}

HELPER(tsc)
{
    int v = 0;
    (void)argc;
    (void)argv;
    OK(prctl(PR_GET_TSC, &v));
    if (v != PR_TSC_SIGSEGV)
        return 1;
    conf_sigaction(SIGSEGV, tsc_fault, 0);
    __builtin_ia32_rdtsc();
    return 2;
}

TEST(time_stamp_counter)
{
    const char *none[] = {NULL};
    pthread_t th;
    int v = 0;

    conf_sigaction(SIGSEGV, tsc_fault, 0);
    CHECK_ERRNO(prctl(PR_SET_TSC, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_TSC, 3), EINVAL);
    CHECK_EXIT(tsc_child(false), 0);
    if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV) != 0) {
        /* A processor that has no way to. */
        CHECK_EQ(errno, EINVAL);
        OK(prctl(PR_GET_TSC, &v));
        CHECK_EQ(v, PR_TSC_ENABLE);
        CHECK_EXIT(tsc_child(false), 0);
        return;
    }
    OK(prctl(PR_GET_TSC, &v));
    CHECK_EQ(v, PR_TSC_SIGSEGV);
    CHECK_EXIT(tsc_child(false), 7);
    CHECK_EXIT(tsc_child(true), 7);
    /* A new program has it still. */
    pid_t pid = conf_fork();
    if (pid == 0)
        conf_exec_helper("tsc", none);
    CHECK_EXIT(pid, 7);
    /* A thread of its own decides for itself. */
    CHECK_EQ(pthread_create(&th, NULL, tsc_thread, NULL), 0);
    CHECK_EQ(pthread_join(th, NULL), 0);
    CHECK_EXIT(tsc_child(false), 7);
    OK(prctl(PR_SET_TSC, PR_TSC_ENABLE));
    CHECK_EXIT(tsc_child(true), 0);
    __builtin_ia32_rdtsc();
}

TEST(small_options)
{
    int v = -1;
    uint32_t *addr = NULL;

    OK(prctl(PR_GET_CHILD_SUBREAPER, &v));
    CHECK_EQ(v, 0);
    OK(prctl(PR_SET_CHILD_SUBREAPER, 5));
    OK(prctl(PR_GET_CHILD_SUBREAPER, &v));
    CHECK_EQ(v, 1);
    OK(prctl(PR_GET_TSC, &v));
    CHECK_EQ(v, PR_TSC_ENABLE);
    CHECK_EQ(prctl(PR_GET_TIMING), PR_TIMING_STATISTICAL);
    CHECK_ERRNO(prctl(PR_SET_TIMING, 1), EINVAL);
    CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 0);
    OK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
    CHECK_ERRNO(prctl(PR_SET_THP_DISABLE, 1, 1, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(4711), EINVAL);
    (void)addr;
}

TEST(segment_bases)
{
    unsigned long fs = 0, gs = 0, out = 0;

    OK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
    CHECK(fs != 0);
    OK(syscall(SYS_arch_prctl, ARCH_SET_GS, 0x123456789000UL));
    OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
    CHECK_EQ(gs, 0x123456789000UL);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
        _exit(gs == 0x123456789000UL ? 0 : 1);
    }
    CHECK_EXIT(pid, 0);
    CHECK_ERRNO(syscall(SYS_arch_prctl, ARCH_SET_GS, 1UL << 63), EPERM);
    CHECK_ERRNO(syscall(SYS_arch_prctl, ARCH_SET_FS, ~0UL), EPERM);
    CHECK_ERRNO(syscall(SYS_arch_prctl, ARCH_GET_FS, 8), EFAULT);
    CHECK_ERRNO(syscall(SYS_arch_prctl, 0x9999, &out), EINVAL);
}

/* ---- priorities ---- */

TEST(nice_goes_up_only)
{
    NEED_ROOT();
    CHECK_EQ(syscall(SYS_getpriority, PRIO_PROCESS, 0), 20);
    OK(setpriority(PRIO_PROCESS, 0, 5));
    CHECK_EQ(syscall(SYS_getpriority, PRIO_PROCESS, 0), 15);
    OK(setpriority(PRIO_PROCESS, (id_t)getpid(), 100));
    CHECK_EQ(syscall(SYS_getpriority, PRIO_PROCESS, 0), 1);
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit((int)syscall(SYS_getpriority, PRIO_PROCESS, 0));
    CHECK_EXIT(pid, 1);
    const struct rlimit none = {0, 0};
    OK(setrlimit(RLIMIT_NICE, &none));
    become_plain();
    CHECK_ERRNO(setpriority(PRIO_PROCESS, 0, 5), EACCES);
    OK(setpriority(PRIO_PROCESS, 0, 19));
    CHECK_ERRNO(setpriority(PRIO_PROCESS, (id_t)getppid(), 19), EPERM);
    CHECK_ERRNO(syscall(SYS_getpriority, 3, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_getpriority, PRIO_PROCESS, NO_SUCH_PID), ESRCH);
    CHECK_ERRNO(syscall(SYS_getpriority, PRIO_PGRP, NO_SUCH_PID), ESRCH);
    CHECK_EQ(syscall(SYS_getpriority, PRIO_PGRP, 0), 1);
    CHECK_EQ(syscall(SYS_getpriority, PRIO_USER, 0), 1);
}

/* Who is idle may be busier only as far as RLIMIT_NICE goes; only the privileged take back what
 * resets children. */
TEST(policies_without_rights)
{
    const struct rlimit none = {0, 0};
    struct sched_param p = {0};

    NEED_ROOT();
    OK(setrlimit(RLIMIT_NICE, &none));
    become_plain();
    OK(sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &p));
    OK(sched_setparam(0, &p));
    CHECK_EQ(sched_getscheduler(0), SCHED_BATCH | SCHED_RESET_ON_FORK);
    CHECK_ERRNO(sched_setscheduler(0, SCHED_OTHER, &p), EPERM);
    OK(sched_setscheduler(0, SCHED_IDLE | SCHED_RESET_ON_FORK, &p));
    CHECK_ERRNO(sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &p), EPERM);
    OK(sched_setscheduler(0, SCHED_IDLE | SCHED_RESET_ON_FORK, &p));
}

TEST(policies)
{
    struct sched_param p = {0};

    NEED_ROOT();
    CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
    CHECK_EQ(sched_get_priority_min(SCHED_FIFO), 1);
    CHECK_EQ(sched_get_priority_max(SCHED_RR), 99);
    CHECK_EQ(sched_get_priority_max(SCHED_OTHER), 0);
    CHECK_ERRNO(sched_get_priority_max(99), EINVAL);
    OK(sched_setscheduler(0, SCHED_BATCH, &p));
    CHECK_EQ(sched_getscheduler(0), SCHED_BATCH);
    OK(sched_getparam(0, &p));
    CHECK_EQ(p.sched_priority, 0);
    p.sched_priority = 1;
    CHECK_ERRNO(sched_setscheduler(0, SCHED_OTHER, &p), EINVAL);
    CHECK_ERRNO(sched_setscheduler(0, 99, &p), EINVAL);
    CHECK_ERRNO(sched_setscheduler(-1, SCHED_OTHER, &p), EINVAL);
    CHECK_ERRNO(syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, NULL), EINVAL);
    p.sched_priority = 0;
    CHECK_ERRNO(sched_setscheduler(0, SCHED_FIFO, &p), EINVAL);
    CHECK_ERRNO(sched_setscheduler(NO_SUCH_PID, SCHED_OTHER, &p), ESRCH);
    OK(sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &p));
    CHECK_EQ(sched_getscheduler(0), SCHED_OTHER | SCHED_RESET_ON_FORK);
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(sched_getscheduler(0));
    CHECK_EXIT(pid, SCHED_OTHER);
    const struct rlimit none = {0, 0};
    OK(setrlimit(RLIMIT_RTPRIO, &none));
    become_plain();
    p.sched_priority = 1;
    CHECK_ERRNO(sched_setscheduler(0, SCHED_FIFO, &p), EPERM);
}

struct sched_attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static struct sched_attributes attributes_of(pid_t pid)
{
    struct sched_attributes a;

    memset(&a, 0xff, sizeof(a));
    OK(syscall(SYS_sched_getattr, pid, &a, 48, 0));
    CHECK_EQ(a.size, 48);
    return a;
}

TEST(scheduling_attributes)
{
    struct sched_attributes a = {.size = 48, .policy = SCHED_BATCH, .nice = 7};

    OK(syscall(SYS_sched_setattr, 0, &a, 0));
    CHECK_EQ(sched_getscheduler(0), SCHED_BATCH);
    CHECK_EQ(syscall(SYS_getpriority, PRIO_PROCESS, 0), 13);
    a = attributes_of(0);
    CHECK_EQ(a.policy, SCHED_BATCH);
    CHECK_EQ(a.nice, 7);
    CHECK_ERRNO(syscall(SYS_sched_getattr, 0, &a, 47, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_sched_getattr, 0, &a, 48, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, NULL, 0), EINVAL);
    a.flags = 1ull << 40;
    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, &a, 0), EINVAL);
    a.flags = SCHED_FLAG_UTIL_CLAMP_MIN;
    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, &a, 0), EINVAL);
}

TEST(scheduling_attributes_that_are_kept)
{
    struct sched_attributes a = {.size = 48, .policy = SCHED_BATCH, .nice = 7};

    OK(syscall(SYS_sched_setattr, 0, &a, 0));
    /* The policy is one of the parameters; what belongs to deadlines only means nothing here. */
    a = (struct sched_attributes){
        .size = 48, .nice = 9, .flags = SCHED_FLAG_KEEP_PARAMS | SCHED_FLAG_RECLAIM};
    OK(syscall(SYS_sched_setattr, 0, &a, 0));
    a = attributes_of(0);
    CHECK_EQ(a.policy, SCHED_BATCH);
    CHECK_EQ(a.nice, 7);
    CHECK_EQ(a.flags, 0);
    a = (struct sched_attributes){.size = 48, .nice = 9, .flags = SCHED_FLAG_KEEP_POLICY};
    OK(syscall(SYS_sched_setattr, 0, &a, 0));
    a = attributes_of(0);
    CHECK_EQ(a.policy, SCHED_BATCH);
    CHECK_EQ(a.nice, 9);
    /* Who is idle keeps the nice value for later. */
    a = (struct sched_attributes){.size = 48, .policy = SCHED_IDLE, .nice = 12};
    OK(syscall(SYS_sched_setattr, 0, &a, 0));
    CHECK_EQ(syscall(SYS_getpriority, PRIO_PROCESS, 0), 11);
}

TEST(scheduling_attributes_that_are_wrong)
{
    static char large[8192];
    struct sched_attributes a = {.size = 47};

    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, &a, 0), E2BIG);
    CHECK(a.size >= 56);
    memset(large, 1, sizeof(large));
    memcpy(large, &(uint32_t){4096}, sizeof(uint32_t));
    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, large, 0), E2BIG);
    memcpy(&a.size, large, sizeof(a.size));
    CHECK(a.size >= 56 && a.size < 4096);
    /* A deadline wants times that go together. */
    a = (struct sched_attributes){.size = 48, .policy = 6};
    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, &a, 0), EINVAL);
    a.runtime = 2000000;
    a.deadline = 1000000;
    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, &a, 0), EINVAL);
    CHECK_ERRNO(sched_setscheduler(0, 6, &(struct sched_param){0}), EINVAL);
    CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
}

/* Reset on fork takes nothing away from who has nothing better than others. */
TEST(reset_on_fork)
{
    static const int policies[] = {SCHED_OTHER, SCHED_BATCH, SCHED_IDLE};

    for (size_t i = 0; i < 3; i++) {
        pid_t pid = conf_fork();
        if (pid == 0) {
            struct sched_attributes a = {.size = 48,
                                         .policy = (uint32_t)policies[i],
                                         .flags = SCHED_FLAG_RESET_ON_FORK,
                                         .nice = 3};
            OK(syscall(SYS_sched_setattr, 0, &a, 0));
            CHECK_EQ(sched_getscheduler(0), policies[i] | SCHED_RESET_ON_FORK);
            const int shown = (int)syscall(SYS_getpriority, PRIO_PROCESS, 0);
            pid_t child = conf_fork();
            if (child == 0) {
                CHECK_EQ(sched_getscheduler(0), policies[i]);
                CHECK_EQ(syscall(SYS_getpriority, PRIO_PROCESS, 0), shown);
                _exit(0);
            }
            CHECK_EXIT(child, 0);
            _exit(0);
        }
        CHECK_EXIT(pid, 0);
    }
}

TEST(affinity)
{
    cpu_set_t all, one, now;
    size_t first = 0;

    OK(sched_getaffinity(0, sizeof(all), &all));
    CHECK(CPU_COUNT(&all) > 0);
    while (!CPU_ISSET(first, &all))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    OK(sched_setaffinity(0, sizeof(one), &one));
    pid_t pid = conf_fork();
    if (pid == 0) {
        unsigned cpu = 9999, node = 9999;
        OK(sched_getaffinity(0, sizeof(now), &now));
        CHECK(CPU_EQUAL(&now, &one));
        OK(syscall(SYS_getcpu, &cpu, &node, NULL));
        CHECK_EQ(cpu, first);
        CHECK(node < 1024);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CPU_ZERO(&now);
    CHECK_ERRNO(sched_setaffinity(0, sizeof(now), &now), EINVAL);
    CHECK_ERRNO(sched_setaffinity(0, 0, &now), EINVAL);
    CHECK_ERRNO(sched_getaffinity(0, 7, &now), EINVAL);
    CHECK_ERRNO(sched_getaffinity(NO_SUCH_PID, sizeof(now), &now), ESRCH);
    CHECK_ERRNO(syscall(SYS_sched_getaffinity, 0, sizeof(now), 8), EFAULT);
    CHECK_ERRNO(syscall(SYS_getcpu, 8, NULL, NULL), EFAULT);
}

TEST(affinity_in_status)
{
    static char text[4096];
    cpu_set_t all, one;
    size_t first = 0, shown = 0;
    unsigned long word = 0;

    OK(sched_getaffinity(0, sizeof(all), &all));
    while (!CPU_ISSET(first, &all))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(sched_setaffinity(0, sizeof(one), &one));
        pause();
    }
    /* Of a thread that somebody else asks about, too. */
    char path[64], want[64];
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    snprintf(want, sizeof(want), "\nCpus_allowed_list:\t%zu\n", first);
    do {
        conf_sleep_ms(1);
        conf_get(path, text, sizeof(text));
    } while (!strstr(text, want));
    const char *line = strstr(text, "\nCpus_allowed:\t");
    CHECK(line != NULL);
    /* The last group of eight digits holds the lowest 32. */
    line += strlen("\nCpus_allowed:\t");
    if (first < 32) {
        const char *last = line + strcspn(line, "\n");
        while (last > line && last[-1] != ',')
            last--;
        CHECK_EQ(sscanf(last, "%lx", &word), 1);
        CHECK_EQ(word, 1ul << first);
    }
    /* Ours is as it was. */
    conf_get("/proc/self/status", text, sizeof(text));
    line = strstr(text, "\nCpus_allowed_list:\t");
    CHECK(line != NULL && sscanf(line, "\nCpus_allowed_list:\t%zu", &shown) == 1);
    CHECK_EQ(shown, first);
    if (CPU_COUNT(&all) > 1)
        CHECK(strstr(text, want) == NULL);
    OK(kill(pid, SIGKILL));
    OK(waitpid(pid, NULL, 0));
}

TEST(io_priority)
{
    CHECK_ERRNO(syscall(SYS_ioprio_set, 0, 0, 2 << 13 | 4), EINVAL);
    CHECK_ERRNO(syscall(SYS_ioprio_set, 1, 0, 5 << 13), EINVAL);
    OK(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6));
    CHECK_EQ(syscall(SYS_ioprio_get, 1, 0), 2 << 13 | 6);
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(syscall(SYS_ioprio_get, 1, 0) == (2 << 13 | 6) ? 0 : 1);
    CHECK_EXIT(pid, 0);
    CHECK_ERRNO(syscall(SYS_ioprio_get, 1, NO_SUCH_PID), ESRCH);
}

/* ---- limits and usage ---- */

TEST(limits_are_checked_and_inherited)
{
    struct rlimit r, o;

    NEED_ROOT();
    CHECK_ERRNO(syscall(SYS_getrlimit, 16, &r), EINVAL);
    CHECK_ERRNO(syscall(SYS_prlimit64, 0, RLIM_NLIMITS, NULL, &r), EINVAL);
    CHECK_ERRNO(syscall(SYS_prlimit64, NO_SUCH_PID, RLIMIT_CORE, NULL, &r), ESRCH);
    CHECK_ERRNO(syscall(SYS_prlimit64, 0, RLIMIT_CORE, NULL, 8), EFAULT);
    r = (struct rlimit){20, 10};
    CHECK_ERRNO(setrlimit(RLIMIT_MEMLOCK, &r), EINVAL);
    r = (struct rlimit){10, 20};
    OK(prlimit(0, RLIMIT_MEMLOCK, &r, &o));
    OK(getrlimit(RLIMIT_MEMLOCK, &o));
    CHECK_EQ(o.rlim_cur, 10);
    CHECK_EQ(o.rlim_max, 20);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(getrlimit(RLIMIT_MEMLOCK, &o));
        CHECK_EQ(o.rlim_max, 20);
        become_plain();
        r.rlim_cur = r.rlim_max = 20;
        OK(setrlimit(RLIMIT_MEMLOCK, &r));
        r.rlim_max = 21;
        CHECK_ERRNO(setrlimit(RLIMIT_MEMLOCK, &r), EPERM);
        CHECK_ERRNO(prlimit(getppid(), RLIMIT_MEMLOCK, NULL, &r), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(descriptor_limit)
{
    const struct rlimit r = {20, 20};

    OK(setrlimit(RLIMIT_NOFILE, &r));
    int fd = OK(open("/", O_RDONLY)), last = fd;
    while ((fd = dup(last)) >= 0)
        last = fd;
    CHECK_EQ(errno, EMFILE);
    CHECK_EQ(last, 19);
    CHECK_ERRNO(dup2(last, 20), EBADF);
    CHECK_ERRNO(fcntl(last, F_DUPFD, 20), EINVAL);
}

TEST(process_limit)
{
    const struct rlimit r = {1, 1};

    NEED_ROOT();
    OK(setrlimit(RLIMIT_NPROC, &r));
    pid_t pid = conf_fork(); /* root is free of it */
    if (pid == 0) {
        become_plain();
        CHECK_ERRNO(fork(), EAGAIN);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(usage_and_times)
{
    struct rusage ru;
    struct tms t;

    memset(&ru, 0xff, sizeof(ru));
    OK(getrusage(RUSAGE_SELF, &ru));
    CHECK(ru.ru_maxrss > 0);
    CHECK(ru.ru_utime.tv_usec < 1000000);
    CHECK_EQ(ru.ru_ixrss, 0);
    OK(getrusage(RUSAGE_THREAD, &ru));
    OK(getrusage(RUSAGE_CHILDREN, &ru));
    CHECK_EQ(ru.ru_maxrss, 0);
    CHECK_ERRNO(getrusage(5, &ru), EINVAL);
    CHECK_ERRNO(syscall(SYS_getrusage, RUSAGE_SELF, 8), EFAULT);
    pid_t pid = conf_fork();
    if (pid == 0) {
        /* Its own time, not the clock's: the machine may be busy with others. */
        struct timespec cpu = {0};
        while (cpu.tv_sec == 0 && cpu.tv_nsec < 60000000)
            OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(getrusage(RUSAGE_CHILDREN, &ru));
    CHECK(ru.ru_maxrss > 0);
    const int64_t used = (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000 + ru.ru_utime.tv_usec +
                         ru.ru_stime.tv_usec;
    CHECK(used >= 20000);
    const clock_t before = OK(times(&t));
    CHECK(t.tms_cutime + t.tms_cstime >= 2);
    conf_sleep_ms(50);
    const clock_t after = OK(times(NULL));
    CHECK(after - before >= 4 && after - before < CONF_PATIENCE_S * sysconf(_SC_CLK_TCK));
    CHECK_ERRNO(syscall(SYS_times, 8), EFAULT);
}

/* ---- the machine ---- */

TEST(names_of_the_system)
{
    struct utsname u;
    char host[65];

    OK(uname(&u));
    CHECK_STR(u.sysname, "Linux");
    CHECK_STR(u.machine, "x86_64");
    CHECK(u.release[0] >= '4' && u.release[0] <= '9' && u.release[1] == '.');
    OK(gethostname(host, sizeof(host)));
    CHECK_STR(host, u.nodename);
    CHECK_ERRNO(syscall(SYS_uname, 8), EFAULT);
    pid_t pid = conf_fork();
    if (pid == 0) {
        if (geteuid() == 0)
            become_plain();
        CHECK_ERRNO(sethostname("x", 1), EPERM);
        CHECK_ERRNO(syscall(SYS_setdomainname, "x", 1), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(system_information)
{
    struct sysinfo si;

    memset(&si, 0xff, sizeof(si));
    OK(sysinfo(&si));
    CHECK(si.uptime >= 0);
    CHECK(si.mem_unit == 1);
    CHECK(si.totalram > 1u << 20);
    CHECK(si.freeram <= si.totalram);
    CHECK(si.procs > 0);
    CHECK_ERRNO(syscall(SYS_sysinfo, 8), EFAULT);
}

TEST(random_numbers)
{
    unsigned char a[600] = {0}, b[600] = {0};
    int same = 0;

    CHECK_EQ(getrandom(a, sizeof(a), 0), sizeof(a));
    CHECK_EQ(getrandom(b, sizeof(b), GRND_NONBLOCK), sizeof(b));
    for (size_t i = 0; i < sizeof(a); i++)
        same += a[i] == b[i];
    CHECK(same < 100);
    CHECK_EQ(getrandom(a, 0, 0), 0);
    CHECK_ERRNO(getrandom(a, 1, 0x100), EINVAL);
    CHECK_ERRNO(getrandom(a, 1, GRND_RANDOM | 4), EINVAL);
    CHECK_ERRNO(syscall(SYS_getrandom, 8, 16, 0), EFAULT);
    char *page = conf_pages(2);
    OK(munmap(page + CONF_PAGE, CONF_PAGE));
    CHECK_EQ(getrandom(page, CONF_PAGE, 0), (ssize_t)CONF_PAGE);
}

TEST(memory_barriers)
{
    const long have = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

    if (have < 0 && errno == ENOSYS)
        conf_skip("the host has no membarrier");
    CHECK(have & MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    CHECK_ERRNO(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), EPERM);
    OK(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
    OK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    CHECK_ERRNO(syscall(SYS_membarrier, 1 << 30, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 4, 0), EINVAL);
}

/* ---- clone3, unshare ---- */

/* Newer than some headers. */
#define BARRIER_REGISTRATIONS (1 << 9)

/* Who registers for more than a barrier is said to have registered for one too. */
TEST(membarrier_registrations)
{
    OK(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0));
    CHECK_EQ(syscall(SYS_membarrier, BARRIER_REGISTRATIONS, 0, 0),
             MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED);
    OK(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0));
    CHECK_EQ(syscall(SYS_membarrier, BARRIER_REGISTRATIONS, 0, 0),
             MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED | MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED |
                 MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ);
    CHECK_ERRNO(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), EPERM);
    CHECK_ERRNO(syscall(SYS_membarrier, BARRIER_REGISTRATIONS, 1, 0), EINVAL);
}

TEST(clone3_arguments)
{
    struct clone_args a = {.exit_signal = SIGCHLD};
    char big[sizeof(a) + 64];

    pid_t pid = (pid_t)OK(syscall(SYS_clone3, &a, sizeof(a)));
    if (pid == 0)
        _exit(21);
    CHECK_EXIT(pid, 21);
    CHECK_ERRNO(syscall(SYS_clone3, &a, 63), EINVAL);
    CHECK_ERRNO(syscall(SYS_clone3, &a, 5000), E2BIG);
    CHECK_ERRNO(syscall(SYS_clone3, 8, sizeof(a)), EFAULT);
    memset(big, 0, sizeof(big));
    memcpy(big, &a, sizeof(a));
    big[sizeof(big) - 1] = 1;
    CHECK_ERRNO(syscall(SYS_clone3, big, sizeof(big)), E2BIG);
    a.exit_signal = 65;
    CHECK_ERRNO(syscall(SYS_clone3, &a, sizeof(a)), EINVAL);
    int number = -1;
    a = (struct clone_args){.flags = CLONE_PIDFD | CLONE_PARENT_SETTID,
                            .pidfd = (uintptr_t)&number,
                            .parent_tid = (uintptr_t)&number,
                            .exit_signal = SIGCHLD};
    CHECK_ERRNO(syscall(SYS_clone3, &a, sizeof(a)), EINVAL);
    CHECK_EQ(number, -1);
    a = (struct clone_args){.flags = CLONE_THREAD, .exit_signal = 0};
    CHECK_ERRNO(syscall(SYS_clone3, &a, sizeof(a)), EINVAL);
    a = (struct clone_args){.flags = CLONE_DETACHED, .exit_signal = SIGCHLD};
    CHECK_ERRNO(syscall(SYS_clone3, &a, sizeof(a)), EINVAL);
    a = (struct clone_args){.stack = 4096, .exit_signal = SIGCHLD};
    CHECK_ERRNO(syscall(SYS_clone3, &a, sizeof(a)), EINVAL);
    a = (struct clone_args){.flags = CLONE_CLEAR_SIGHAND | CLONE_SIGHAND | CLONE_VM};
    CHECK_ERRNO(syscall(SYS_clone3, &a, sizeof(a)), EINVAL);
}

static void on_signal(int signo)
{
    (void)signo;
}

TEST(clone3_clears_handlers)
{
    struct clone_args a = {.flags = CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD};
    struct sigaction act;

    signal(SIGUSR1, on_signal);
    signal(SIGUSR2, SIG_IGN);
    pid_t pid = (pid_t)OK(syscall(SYS_clone3, &a, sizeof(a)));
    if (pid == 0) {
        OK(sigaction(SIGUSR1, NULL, &act));
        CHECK(act.sa_handler == SIG_DFL);
        OK(sigaction(SIGUSR2, NULL, &act));
        CHECK(act.sa_handler == SIG_IGN);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(clone_stores_numbers)
{
    int *words = conf_shared(CONF_PAGE);

    pid_t pid = (pid_t)OK(syscall(SYS_clone, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD,
                                  NULL, &words[0], &words[1], 0));
    if (pid == 0)
        _exit(words[1] == (int)syscall(SYS_gettid) ? 0 : 1);
    CHECK_EQ(words[0], pid);
    CHECK_EXIT(pid, 0);
    CHECK_EQ(words[1], pid);
}

TEST(clone_shares_descriptors)
{
    pid_t pid = (pid_t)OK(syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0));

    if (pid == 0) {
        CHECK_EQ(dup2(1, 77), 77);
        OK(syscall(SYS_unshare, CLONE_FILES));
        OK(close(77));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(fcntl(77, F_GETFD));
}

TEST(clone_shares_directory)
{
    static char before[PATH_MAX], after[PATH_MAX];

    OK(mkdir("sub", 0700));
    CHECK(getcwd(before, sizeof(before)) != NULL);
    pid_t pid = (pid_t)OK(syscall(SYS_clone, CLONE_FS | SIGCHLD, NULL, NULL, NULL, 0));
    if (pid == 0) {
        OK(chdir("sub"));
        umask(0123);
        OK(syscall(SYS_unshare, CLONE_FS));
        OK(chdir(".."));
        umask(0);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK(getcwd(after, sizeof(after)) != NULL);
    strcat(before, "/sub");
    CHECK_STR(after, before);
    CHECK_EQ(umask(0), 0123);
}

static void *sleep_thread(void *arg)
{
    conf_await(arg, 1);
    return NULL;
}

TEST(unshare_of_a_single_thread)
{
    int *word = conf_shared(CONF_PAGE);
    pthread_t th;

    OK(syscall(SYS_unshare, 0));
    OK(syscall(SYS_unshare, CLONE_FS | CLONE_FILES | CLONE_SYSVSEM));
    OK(syscall(SYS_unshare, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND));
    CHECK_ERRNO(syscall(SYS_unshare, CLONE_PARENT), EINVAL);
    CHECK_ERRNO(syscall(SYS_unshare, CLONE_SETTLS), EINVAL);
    CHECK_EQ(pthread_create(&th, NULL, sleep_thread, word), 0);
    CHECK_ERRNO(syscall(SYS_unshare, CLONE_VM), EINVAL);
    CHECK_ERRNO(syscall(SYS_unshare, CLONE_THREAD), EINVAL);
    OK(syscall(SYS_unshare, CLONE_FILES));
    *word = 1;
    CHECK_EQ(pthread_join(th, NULL), 0);
}

/* ---- pidfds ---- */

TEST(pidfd_of_a_child)
{
    int *word = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();

    if (pid == 0) {
        conf_await(word, 1);
        _exit(0);
    }
    int fd = (int)OK(syscall(SYS_pidfd_open, pid, 0));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 0), 0);
    *word = 1;
    CHECK_EQ(poll(&p, 1, 10000), 1);
    CHECK(p.revents & POLLIN);
    CHECK_EXIT(pid, 0);
    CHECK_ERRNO(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0), ESRCH);
    CHECK_ERRNO(read(fd, word, 4), EINVAL);
    CHECK_ERRNO(syscall(SYS_pidfd_open, pid, 0), ESRCH);
    CHECK_ERRNO(syscall(SYS_pidfd_open, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_pidfd_open, getpid(), 0x8000), EINVAL);
}

TEST(pidfd_gives_descriptors)
{
    int pipes[2], *word = conf_shared(CONF_PAGE);
    char c = 0;

    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(pipe(pipes));
        CHECK_EQ(dup2(pipes[1], 70), 70);
        *word = 1;
        CHECK_EQ(read(pipes[0], &c, 1), 1);
        _exit(c);
    }
    conf_await(word, 1);
    int fd = (int)OK(syscall(SYS_pidfd_open, pid, 0));
    int theirs = (int)syscall(SYS_pidfd_getfd, fd, 70, 0);
    if (theirs < 0 && errno == EPERM) {
        conf_kill(pid);
        conf_skip("tracing is restricted");
    }
    CHECK(theirs >= 0);
    CHECK_ERRNO(syscall(SYS_pidfd_getfd, fd, 71, 0), EBADF);
    CHECK_ERRNO(syscall(SYS_pidfd_getfd, fd, 70, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_pidfd_getfd, 0, 70, 0), EBADF);
    CHECK_EQ(write(theirs, "\x2a", 1), 1);
    CHECK_EXIT(pid, 42);
}

TEST(nonblocking_pidfd)
{
    int *word = conf_shared(CONF_PAGE);
    siginfo_t si;
    pid_t pid = conf_fork();

    if (pid == 0) {
        conf_await(word, 1);
        _exit(0);
    }
    int fd = (int)OK(syscall(SYS_pidfd_open, pid, O_NONBLOCK));
    CHECK_ERRNO(waitid(P_PIDFD, (id_t)fd, &si, WEXITED), EAGAIN);
    memset(&si, 0xff, sizeof(si));
    OK(waitid(P_PIDFD, (id_t)fd, &si, WEXITED | WNOHANG));
    CHECK_EQ(si.si_pid, 0);
    *word = 1;
    CHECK_EXIT(pid, 0);
}

/* A sleep is a switch that was wanted. */
TEST(context_switches)
{
    struct rusage before, after;

    OK(getrusage(RUSAGE_THREAD, &before));
    for (int i = 0; i < 20; i++)
        conf_sleep_ms(1);
    OK(getrusage(RUSAGE_THREAD, &after));
    CHECK(after.ru_nvcsw - before.ru_nvcsw >= 20);
    CHECK(after.ru_nvcsw - before.ru_nvcsw < 2000);
    static char text[4096];
    conf_get("/proc/self/status", text, sizeof(text));
    const char *line = strstr(text, "\nvoluntary_ctxt_switches:\t");
    CHECK(line != NULL && atol(line + 26) >= after.ru_nvcsw);
}

TEST(load_averages)
{
    double now[3];
    unsigned int running, all;
    char text[128];
    struct sysinfo si;

    conf_get("/proc/loadavg", text, sizeof(text));
    CHECK_EQ(sscanf(text, "%lf %lf %lf %u/%u", &now[0], &now[1], &now[2], &running, &all), 5);
    CHECK(running >= 1 && all >= running);
    OK(sysinfo(&si));
    for (int i = 0; i < 3; i++) {
        const double load = (double)si.loads[i] / 65536;
        CHECK(load - now[i] < 0.5 && now[i] - load < 0.5);
    }
}
