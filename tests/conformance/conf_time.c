/* Clocks, sleeping, interval timers, POSIX timers, the vDSO. */
#include "harness.h"

#include <elf.h>
#include <limits.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>

CONF_FAMILY("time");

#define MS 1000000LL
#define SEC 1000000000LL

static volatile sig_atomic_t hits;
static volatile siginfo_t last_info;

static void count_hit(int sig)
{
    (void)sig;
    hits++;
}

static void keep_info(int sig, siginfo_t *si, void *context)
{
    (void)sig;
    (void)context;
    last_info = *si;
    hits++;
}

static int64_t ns_of(const struct timespec *ts)
{
    return ts->tv_sec * SEC + ts->tv_nsec;
}

/* By the system call, whatever libc does. */
static int64_t clock_ns(clockid_t clock)
{
    struct timespec ts;
    OK((int)syscall(SYS_clock_gettime, clock, &ts));
    return ns_of(&ts);
}

static void burn_cpu(clockid_t clock, int64_t ns)
{
    int64_t start = clock_ns(clock);
    while (clock_ns(clock) - start < ns)
        ;
}

static void block(int sig)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sig);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
}

/* ---- clocks ---- */

static const clockid_t clocks[] = {CLOCK_REALTIME,
                                   CLOCK_MONOTONIC,
                                   CLOCK_PROCESS_CPUTIME_ID,
                                   CLOCK_THREAD_CPUTIME_ID,
                                   CLOCK_MONOTONIC_RAW,
                                   CLOCK_REALTIME_COARSE,
                                   CLOCK_MONOTONIC_COARSE,
                                   CLOCK_BOOTTIME,
                                   CLOCK_REALTIME_ALARM,
                                   CLOCK_BOOTTIME_ALARM,
                                   CLOCK_TAI};

TEST(clocks_go_forward)
{
    for (size_t i = 0; i < ARRAY_SIZE(clocks); i++) {
        struct timespec ts, res;
        int64_t last = 0;
        if (clocks[i] == CLOCK_REALTIME_ALARM || clocks[i] == CLOCK_BOOTTIME_ALARM)
            continue;
        for (int j = 0; j < 200; j++) {
            /* libc's way (the vDSO) and the system call in turn. */
            if (j % 2)
                OK(clock_gettime(clocks[i], &ts));
            else
                OK((int)syscall(SYS_clock_gettime, clocks[i], &ts));
            CHECK(ts.tv_nsec >= 0 && ts.tv_nsec < SEC);
            CHECK(ns_of(&ts) >= last);
            last = ns_of(&ts);
        }
        OK(clock_getres(clocks[i], &res));
        CHECK(res.tv_sec == 0 && res.tv_nsec >= 1 && res.tv_nsec <= 10 * MS);
        OK(clock_getres(clocks[i], NULL));
    }
}

TEST(clock_errors)
{
    struct timespec ts = {0, 0};
    CHECK_ERRNO(syscall(SYS_clock_gettime, 77, &ts), EINVAL);
    CHECK_ERRNO(syscall(SYS_clock_gettime, 10, &ts), EINVAL);
    CHECK_ERRNO(syscall(SYS_clock_getres, 77, &ts), EINVAL);
    CHECK_ERRNO(syscall(SYS_clock_gettime, CLOCK_REALTIME, (void *)16), EFAULT);
    CHECK_ERRNO(syscall(SYS_clock_getres, CLOCK_REALTIME, (void *)16), EFAULT);
    /* CPU clock of a process that is not there; a kind that is not there. */
    CHECK_ERRNO(syscall(SYS_clock_gettime, (int)(~(1u << 22) << 3 | 2), &ts), EINVAL);
    CHECK_ERRNO(syscall(SYS_clock_gettime, (int)(~0u << 3 | 3), &ts), EINVAL);
    CHECK_ERRNO(clock_settime(CLOCK_MONOTONIC, &ts), EINVAL);
    CHECK_ERRNO(clock_settime(CLOCK_PROCESS_CPUTIME_ID, &ts), EINVAL);
    CHECK_ERRNO(syscall(SYS_clock_settime, (int)(~0u << 3 | 2), &ts), EPERM);
    CHECK_ERRNO(syscall(SYS_gettimeofday, (void *)16, NULL), EFAULT);
    CHECK_ERRNO(syscall(SYS_time, (void *)16), EFAULT);
}

TEST(setting_is_not_permitted)
{
    NEED_ROOT();
    struct timespec bad = {0, SEC}, now;
    struct timeval tv = {0, 2000000};
    struct timex tx = {.modes = ADJ_OFFSET};
    OK(clock_gettime(CLOCK_REALTIME, &now));
    /* Bad values first, for whoever asks. */
    CHECK_ERRNO(clock_settime(CLOCK_REALTIME, &bad), EINVAL);
    CHECK_ERRNO(settimeofday(&tv, NULL), EINVAL);
    conf_become(1234);
    CHECK_ERRNO(clock_settime(CLOCK_REALTIME, &now), EPERM);
    tv = (struct timeval){now.tv_sec, 0};
    CHECK_ERRNO(settimeofday(&tv, NULL), EPERM);
    CHECK_ERRNO(adjtimex(&tx), EPERM);
}

TEST(adjtimex_reads)
{
    struct timex tx = {.modes = 0};
    OK(adjtimex(&tx));
    CHECK(llabs(tx.time.tv_sec - time(NULL)) <= 1);
    CHECK(tx.tick >= 9000 && tx.tick <= 11000);
    tx.modes = 0;
    OK(clock_adjtime(CLOCK_REALTIME, &tx));
    CHECK_ERRNO(clock_adjtime(CLOCK_MONOTONIC, &tx), EOPNOTSUPP);
    CHECK_ERRNO(clock_adjtime(CLOCK_THREAD_CPUTIME_ID, &tx), EOPNOTSUPP);
    CHECK_ERRNO(clock_adjtime(-2, &tx), EOPNOTSUPP);
    CHECK_ERRNO(clock_adjtime(1000, &tx), EINVAL);
}

TEST(times_of_day_agree)
{
    struct timespec ts;
    struct timeval tv;
    for (int i = 0; i < 100; i++) {
        OK(clock_gettime(CLOCK_REALTIME, &ts));
        OK(gettimeofday(&tv, NULL));
        int64_t day = tv.tv_sec * SEC + tv.tv_usec * 1000;
        CHECK(day >= ns_of(&ts) - 1000 && day - ns_of(&ts) < SEC);
        CHECK(llabs(time(NULL) - tv.tv_sec) <= 1);
        CHECK(llabs(syscall(SYS_time, NULL) - tv.tv_sec) <= 1);
    }
    time_t t = 0;
    CHECK_EQ(syscall(SYS_time, &t), t);
}

static void *burn_thread(void *arg)
{
    clockid_t *clock = arg;
    burn_cpu(CLOCK_THREAD_CPUTIME_ID, 50 * MS);
    CHECK_EQ(pthread_getcpuclockid(pthread_self(), clock), 0);
    CHECK(clock_ns(*clock) >= 50 * MS);
    return NULL;
}

TEST(cpu_clocks)
{
    clockid_t process, thread;
    pthread_t t;
    burn_cpu(CLOCK_PROCESS_CPUTIME_ID, 30 * MS);
    int64_t before = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    CHECK(before >= 30 * MS);
    OK(clock_getcpuclockid(0, &process));
    CHECK(clock_ns(process) >= before);
    CHECK_EQ(pthread_create(&t, NULL, burn_thread, &thread), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
    CHECK(clock_ns(CLOCK_PROCESS_CPUTIME_ID) >= before + 50 * MS);
    /* Sleeping costs nothing. */
    before = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    conf_sleep_ms(200);
    CHECK(clock_ns(CLOCK_THREAD_CPUTIME_ID) - before < 100 * MS);
    OK(clock_getcpuclockid(getppid(), &process));
    OK(clock_gettime(process, &(struct timespec){0}));
}

static void *fresh_thread(void *arg)
{
    *(int64_t *)arg = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    return NULL;
}

/* What one thread used is not found on the clock of the next. */
TEST(cpu_clock_of_a_new_thread)
{
    clockid_t thread;
    pthread_t t;
    int64_t fresh;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pthread_create(&t, NULL, burn_thread, &thread), 0);
        CHECK_EQ(pthread_join(t, NULL), 0);
        CHECK_EQ(pthread_create(&t, NULL, fresh_thread, &fresh), 0);
        CHECK_EQ(pthread_join(t, NULL), 0);
        CHECK(fresh < 40 * MS);
    }
}

/* Several seconds of CPU time, of which a busy machine gives little at a time. */
TEST_TIMEOUT(cpu_limit, 240)
{
    int *warned = conf_shared(CONF_PAGE);
    struct rlimit one = {1, 1}, two = {1, 2};
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(setrlimit(RLIMIT_CPU, &one));
        for (;;)
            ;
    }
    CHECK_KILLED(pid, SIGKILL);
    pid = conf_fork();
    if (pid == 0) {
        conf_handler(SIGXCPU, count_hit, 0);
        OK(setrlimit(RLIMIT_CPU, &two));
        while (hits == 0)
            ;
        *warned = 1;
        for (;;)
            ;
    }
    CHECK_KILLED(pid, SIGKILL);
    CHECK_EQ(*warned, 1);
    /* Inherited, and counted anew. */
    pid = conf_fork();
    if (pid == 0) {
        OK(setrlimit(RLIMIT_CPU, &two));
        pid = conf_fork();
        if (pid == 0) {
            for (;;)
                ;
        }
        CHECK_KILLED(pid, SIGXCPU);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

/* ---- the vDSO ---- */

static const char *vdso_symbol_table(uint64_t base, const Elf64_Sym **out_sym)
{
    const Elf64_Ehdr *eh = (const void *)base;
    const Elf64_Phdr *ph = (const void *)(base + eh->e_phoff);
    const Elf64_Dyn *dyn = NULL;
    const char *str = NULL;
    uint64_t bias = base;
    for (int i = 0; i < eh->e_phnum; i++) {
        if (ph[i].p_type == PT_LOAD)
            bias = base + ph[i].p_offset - ph[i].p_vaddr;
        if (ph[i].p_type == PT_DYNAMIC)
            dyn = (const void *)(base + ph[i].p_offset);
    }
    CHECK(dyn != NULL);
    for (; dyn->d_tag != DT_NULL; dyn++) {
        if (dyn->d_tag == DT_STRTAB)
            str = (const void *)(bias + dyn->d_un.d_ptr);
        if (dyn->d_tag == DT_SYMTAB)
            *out_sym = (const void *)(bias + dyn->d_un.d_ptr);
    }
    return str;
}

TEST(vdso_image)
{
    static const char *const names[] = {"__vdso_clock_gettime", "__vdso_gettimeofday",
                                        "__vdso_time", "__vdso_getcpu", "__vdso_clock_getres"};
    uint64_t base = getauxval(AT_SYSINFO_EHDR);
    const Elf64_Sym *sym = NULL;
    CHECK(base != 0 && base % CONF_PAGE == 0);
    CHECK(memcmp((const void *)base, ELFMAG, SELFMAG) == 0);
    const char *str = vdso_symbol_table(base, &sym);
    CHECK(str != NULL && sym != NULL && (const char *)sym < str);
    for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
        bool found = false;
        for (const Elf64_Sym *s = sym; (const char *)(s + 1) <= str; s++)
            found = found || strcmp(str + s->st_name, names[n]) == 0;
        if (!found)
            conf_diag("%s is not there", names[n]);
        CHECK(found);
    }
}

TEST(vdso_faults_like_memory)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        struct timespec *volatile bad = (void *)16;
        clock_gettime(CLOCK_MONOTONIC, bad);
        _exit(errno == EFAULT ? 1 : 2);
    }
    /* As memory or as a call, but no success. */
    int status = conf_wait(pid);
    CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) ||
          (WIFEXITED(status) && WEXITSTATUS(status) == 1));
}

/* ---- sleeping ---- */

TEST(sleeps)
{
    struct timespec ts = {0, 50 * MS}, bad = {0, SEC}, negative = {-1, 0};
    int64_t start = conf_now();
    OK(nanosleep(&ts, NULL));
    CHECK(conf_now() - start >= 50 * MS);
    CHECK_ERRNO(nanosleep(&bad, NULL), EINVAL);
    CHECK_ERRNO(nanosleep(&negative, NULL), EINVAL);
    CHECK_ERRNO(syscall(SYS_nanosleep, (void *)16, NULL), EFAULT);
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &bad, NULL), EINVAL);
    CHECK_EQ(clock_nanosleep(77, 0, &ts, NULL), EINVAL);
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC_RAW, 0, &ts, NULL), ENOTSUP);
    CHECK_EQ(clock_nanosleep(CLOCK_REALTIME_COARSE, 0, &ts, NULL), ENOTSUP);
    ts = (struct timespec){0, 0};
    OK(nanosleep(&ts, NULL));
    ts = (struct timespec){1, 0};
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL), 0);
    static const clockid_t abs_clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME,
                                           CLOCK_TAI};
    for (size_t i = 0; i < ARRAY_SIZE(abs_clocks); i++) {
        int64_t until = clock_ns(abs_clocks[i]) + 30 * MS;
        ts = (struct timespec){until / SEC, until % SEC};
        CHECK_EQ(clock_nanosleep(abs_clocks[i], TIMER_ABSTIME, &ts, NULL), 0);
        CHECK(clock_ns(abs_clocks[i]) >= until);
    }
}

static void arm_real(int64_t ns, int64_t interval)
{
    struct itimerval it = {{interval / SEC, interval % SEC / 1000}, {ns / SEC, ns % SEC / 1000}};
    OK(setitimer(ITIMER_REAL, &it, NULL));
}

TEST(sleep_interrupted)
{
    struct timespec ts = {10, 0}, rem = {0, 0};
    conf_handler(SIGALRM, count_hit, SA_RESTART);
    /* Again and again: the first may come before the call. */
    arm_real(50 * MS, 50 * MS);
    CHECK_ERRNO(nanosleep(&ts, &rem), EINTR);
    CHECK(ns_of(&rem) > 0 && ns_of(&rem) < 10 * SEC);
    /* An absolute one leaves rem alone. */
    int64_t until = clock_ns(CLOCK_MONOTONIC) + 10 * SEC;
    ts = (struct timespec){until / SEC, until % SEC};
    rem.tv_sec = 77;
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, &rem), EINTR);
    CHECK_EQ(rem.tv_sec, 77);
    CHECK(hits >= 2);
}

TEST(sleep_goes_on_after_a_stop)
{
    int *state = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        struct timespec ts = {0, 400 * MS};
        int64_t start = conf_now();
        *state = 1;
        OK(nanosleep(&ts, NULL));
        CHECK(conf_now() - start >= 400 * MS);
        CHECK(conf_now() - start < CONF_PATIENCE_NS);
        conf_await(state, 2);
        _exit(0);
    }
    conf_await(state, 1);
    conf_await_asleep(pid);
    OK(kill(pid, SIGSTOP));
    int status;
    CHECK_EQ(OK(waitpid(pid, &status, WUNTRACED)), pid);
    CHECK(WIFSTOPPED(status));
    *state = 2;
    conf_sleep_ms(50);
    OK(kill(pid, SIGCONT));
    CHECK_EXIT(pid, 0);
}

/* ---- interval timers ---- */

TEST(itimer_real)
{
    struct itimerval it;
    conf_handler(SIGALRM, count_hit, 0);
    arm_real(20 * MS, 20 * MS);
    OK(getitimer(ITIMER_REAL, &it));
    CHECK_EQ(it.it_interval.tv_usec, 20000);
    CHECK(it.it_value.tv_sec == 0 && it.it_value.tv_usec > 0 && it.it_value.tv_usec <= 20000);
    while (hits < 3)
        pause();
    struct itimerval off = {{0, 0}, {0, 0}};
    OK(setitimer(ITIMER_REAL, &off, &it));
    CHECK(it.it_value.tv_usec > 0);
    OK(getitimer(ITIMER_REAL, &it));
    CHECK(it.it_value.tv_sec == 0 && it.it_value.tv_usec == 0 && it.it_interval.tv_usec == 0);
    int before = hits;
    conf_sleep_ms(60);
    CHECK_EQ(hits, before);
}

TEST(itimer_errors)
{
    struct itimerval it = {{0, 0}, {0, 1000000}};
    CHECK_ERRNO(setitimer(ITIMER_REAL, &it, NULL), EINVAL);
    it.it_value.tv_usec = -1;
    CHECK_ERRNO(setitimer(ITIMER_REAL, &it, NULL), EINVAL);
    it.it_value.tv_usec = 0;
    CHECK_ERRNO(syscall(SYS_setitimer, 3, &it, NULL), EINVAL);
    CHECK_ERRNO(syscall(SYS_getitimer, -1, &it), EINVAL);
    CHECK_ERRNO(syscall(SYS_setitimer, ITIMER_REAL, (void *)16, NULL), EFAULT);
    CHECK_ERRNO(syscall(SYS_getitimer, ITIMER_REAL, (void *)16), EFAULT);
}

static void check_cpu_itimer(int which, int sig)
{
    struct itimerval it = {{0, 0}, {0, 50000}};
    hits = 0;
    conf_handler(sig, count_hit, 0);
    OK(setitimer(which, &it, NULL));
    conf_sleep_ms(150);
    CHECK_EQ(hits, 0);
    int64_t start = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    while (hits == 0)
        CHECK(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start < 20 * SEC);
    CHECK(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start > 20 * MS);
    /* Also in a loop that makes no call at all. */
    hits = 0;
    OK(setitimer(which, &it, NULL));
    while (hits == 0)
        ;
}

TEST(itimer_cpu)
{
    check_cpu_itimer(ITIMER_PROF, SIGPROF);
    check_cpu_itimer(ITIMER_VIRTUAL, SIGVTALRM);
}

TEST(alarm_counts_seconds)
{
    conf_handler(SIGALRM, count_hit, 0);
    CHECK_EQ(alarm(100), 0);
    const unsigned int left = alarm(1);
    CHECK(left > 100 - CONF_PATIENCE_S && left <= 100);
    EVENTUALLY(hits > 0);
    CHECK_EQ(hits, 1);
    CHECK_EQ(alarm(0), 0);
}

/* execve keeps the interval timer, fork does not. */
HELPER(await_alarm)
{
    (void)argc;
    (void)argv;
    struct timespec ts = {CONF_PATIENCE_S, 0};
    nanosleep(&ts, NULL);
    return 1;
}

TEST(itimer_fork_exec)
{
    arm_real(60 * SEC, 0);
    pid_t pid = conf_fork();
    if (pid == 0) {
        struct itimerval it;
        OK(getitimer(ITIMER_REAL, &it));
        CHECK(it.it_value.tv_sec == 0 && it.it_value.tv_usec == 0);
        arm_real(200 * MS, 0);
        static const char *const none[] = {NULL};
        conf_exec_helper("await_alarm", none);
    }
    CHECK_KILLED(pid, SIGALRM);
}

/* ---- POSIX timers ---- */

static timer_t timer_new(clockid_t clock, int sig, int value)
{
    struct sigevent ev = {
        .sigev_notify = SIGEV_SIGNAL, .sigev_signo = sig, .sigev_value.sival_int = value};
    timer_t t;
    OK(timer_create(clock, &ev, &t));
    return t;
}

static void timer_arm(timer_t t, int64_t value, int64_t interval)
{
    struct itimerspec it = {{interval / SEC, interval % SEC}, {value / SEC, value % SEC}};
    OK(timer_settime(t, 0, &it, NULL));
}

TEST(timer_fires)
{
    static const clockid_t timer_clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME,
                                             CLOCK_TAI};
    conf_sigaction(SIGRTMIN + 1, keep_info, 0);
    for (size_t i = 0; i < ARRAY_SIZE(timer_clocks); i++) {
        timer_t t = timer_new(timer_clocks[i], SIGRTMIN + 1, 1000 + (int)i);
        struct itimerspec it;
        hits = 0;
        timer_arm(t, 100 * SEC, 0);
        OK(timer_gettime(t, &it));
        CHECK(ns_of(&it.it_value) > 0 && ns_of(&it.it_value) <= 100 * SEC);
        int64_t start = conf_now();
        timer_arm(t, 30 * MS, 0);
        while (hits == 0)
            conf_sleep_ms(5);
        CHECK(conf_now() - start >= 30 * MS);
        CHECK_EQ(last_info.si_code, SI_TIMER);
        CHECK_EQ(last_info.si_value.sival_int, 1000 + (int)i);
        CHECK_EQ(last_info.si_overrun, 0);
        OK(timer_gettime(t, &it));
        CHECK(ns_of(&it.it_value) == 0);
        OK(timer_delete(t));
        CHECK_ERRNO(timer_delete(t), EINVAL);
    }
}

TEST(timer_overrun)
{
    sigset_t set;
    siginfo_t si;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 2);
    block(SIGRTMIN + 2);
    timer_t t = timer_new(CLOCK_MONOTONIC, SIGRTMIN + 2, 5);
    const int64_t start = conf_now();
    timer_arm(t, 10 * MS, 10 * MS);
    conf_sleep_ms(120);
    CHECK_EQ(OK(sigwaitinfo(&set, &si)), SIGRTMIN + 2);
    CHECK_EQ(si.si_code, SI_TIMER);
    CHECK(si.si_overrun >= 8);
    CHECK_EQ(timer_getoverrun(t), si.si_overrun);
    const int64_t first = 1 + si.si_overrun;
    /* It goes on from where it is: what was told is not told again. */
    CHECK_EQ(OK(sigwaitinfo(&set, &si)), SIGRTMIN + 2);
    CHECK(first + 1 + si.si_overrun <= (conf_now() - start) / (10 * MS));
    OK(timer_delete(t));
}

TEST(timer_absolute_and_old)
{
    block(SIGUSR1);
    timer_t t = timer_new(CLOCK_MONOTONIC, SIGUSR1, 0);
    struct itimerspec it = {{0, 0}, {1, 0}}, old;
    /* A moment that is past fires at once. */
    OK(timer_settime(t, TIMER_ABSTIME, &it, &old));
    CHECK(ns_of(&old.it_value) == 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK_EQ(OK(sigwaitinfo(&set, NULL)), SIGUSR1);
    timer_arm(t, 100 * SEC, 7 * SEC);
    it = (struct itimerspec){{0, 0}, {0, 0}};
    OK(timer_settime(t, 0, &it, &old));
    CHECK(ns_of(&old.it_value) > 0 && ns_of(&old.it_value) <= 100 * SEC);
    CHECK(ns_of(&old.it_interval) == 7 * SEC);
    OK(timer_gettime(t, &old));
    CHECK(ns_of(&old.it_value) == 0);
}

TEST(timer_notify_none)
{
    struct sigevent ev = {.sigev_notify = SIGEV_NONE};
    struct itimerspec it;
    timer_t t;
    OK(timer_create(CLOCK_MONOTONIC, &ev, &t));
    timer_arm(t, 100 * SEC, 0);
    OK(timer_gettime(t, &it));
    CHECK(ns_of(&it.it_value) > 0);
    timer_arm(t, 20 * MS, 0);
    conf_sleep_ms(40);
    OK(timer_gettime(t, &it));
    CHECK(ns_of(&it.it_value) == 0);
    timer_arm(t, 20 * MS, 20 * MS);
    conf_sleep_ms(50);
    OK(timer_gettime(t, &it));
    CHECK(ns_of(&it.it_value) > 0 && ns_of(&it.it_value) <= 20 * MS);
}

struct thread_wait {
    int32_t tid;
    int got;
};

static void *thread_wait_main(void *arg)
{
    struct thread_wait *w = arg;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    __atomic_store_n(&w->tid, (int32_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
    struct timespec ts = {CONF_PATIENCE_S, 0};
    w->got = sigtimedwait(&set, NULL, &ts);
    return NULL;
}

TEST(timer_thread_id)
{
    struct thread_wait w = {0, 0};
    pthread_t th;
    block(SIGUSR2);
    CHECK_EQ(pthread_create(&th, NULL, thread_wait_main, &w), 0);
    while (__atomic_load_n(&w.tid, __ATOMIC_SEQ_CST) == 0)
        conf_sleep_ms(1);
    struct {
        union sigval value;
        int signo, notify, tid, pad[11];
    } ev = {.signo = SIGUSR2, .notify = SIGEV_THREAD_ID, .tid = w.tid};
    int id;
    OK((int)syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id));
    struct itimerspec it = {{0, 0}, {0, 20 * MS}};
    OK((int)syscall(SYS_timer_settime, id, 0, &it, NULL));
    CHECK_EQ(pthread_join(th, NULL), 0);
    CHECK_EQ(w.got, SIGUSR2);
    ev.tid = 1 << 22;
    CHECK_ERRNO(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id), EINVAL);
}

static int timers_made(void)
{
    struct sigevent ev = {.sigev_notify = SIGEV_NONE};
    int id, n = 0;
    while (n < 100 && syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id) == 0)
        n++;
    return n;
}

static void count_timers(void)
{
    struct sigevent ev = {.sigev_notify = SIGEV_NONE};
    const struct rlimit few = {10, 10};
    int id;
    OK(setrlimit(RLIMIT_SIGPENDING, &few));
    /* A user of its own has none of others'. */
    if (geteuid() == 0)
        conf_become(23456);
    OK((int)syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id));
    CHECK_EQ(timers_made(), 9);
    CHECK_EQ(errno, EAGAIN);
    OK((int)syscall(SYS_timer_delete, id));
    CHECK_EQ(timers_made(), 1);
    CHECK_EQ(errno, EAGAIN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    CHECK_ERRNO(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 1}), EAGAIN);
    pid_t pid = conf_fork();
    if (pid == 0) {
        /* Timers stay with their process, and count for the user. */
        CHECK_EQ(timers_made(), 0);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(timers_count_as_queued_signals)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        count_timers();
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(timer_errors)
{
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = 65};
    struct itimerspec it = {{0, 0}, {0, SEC}};
    int id;
    CHECK_ERRNO(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id), EINVAL);
    ev.sigev_signo = SIGUSR1;
    ev.sigev_notify = 77;
    CHECK_ERRNO(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id), EINVAL);
    CHECK_ERRNO(syscall(SYS_timer_create, 77, NULL, &id), EINVAL);
    CHECK_ERRNO(syscall(SYS_timer_create, CLOCK_MONOTONIC_RAW, NULL, &id), EOPNOTSUPP);
    CHECK_ERRNO(syscall(SYS_timer_create, CLOCK_MONOTONIC_COARSE, NULL, &id), EOPNOTSUPP);
    CHECK_ERRNO(syscall(SYS_timer_create, CLOCK_MONOTONIC, (void *)16, &id), EFAULT);
    CHECK_ERRNO(syscall(SYS_timer_create, CLOCK_MONOTONIC, NULL, (void *)16), EFAULT);
    OK((int)syscall(SYS_timer_create, CLOCK_MONOTONIC, NULL, &id));
    CHECK_ERRNO(syscall(SYS_timer_settime, id, 0, &it, NULL), EINVAL);
    CHECK_ERRNO(syscall(SYS_timer_settime, id, 0, NULL, NULL), EINVAL);
    it.it_value.tv_nsec = 0;
    CHECK_ERRNO(syscall(SYS_timer_settime, id + 7, 0, &it, NULL), EINVAL);
    CHECK_ERRNO(syscall(SYS_timer_gettime, id + 7, &it), EINVAL);
    CHECK_ERRNO(syscall(SYS_timer_gettime, id, (void *)16), EFAULT);
    CHECK_ERRNO(syscall(SYS_timer_getoverrun, id + 7), EINVAL);
    CHECK_ERRNO(syscall(SYS_timer_delete, -1), EINVAL);
    OK((int)syscall(SYS_timer_delete, id));
}

TEST(timer_cpu)
{
    conf_handler(SIGUSR1, count_hit, 0);
    static const clockid_t cpu[] = {CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID};
    for (size_t i = 0; i < ARRAY_SIZE(cpu); i++) {
        timer_t t = timer_new(cpu[i], SIGUSR1, 0);
        hits = 0;
        timer_arm(t, 50 * MS, 0);
        conf_sleep_ms(150);
        CHECK_EQ(hits, 0);
        int64_t start = clock_ns(cpu[i]);
        while (hits == 0)
            CHECK(clock_ns(cpu[i]) - start < 20 * SEC);
        CHECK(clock_ns(cpu[i]) - start > 20 * MS);
        OK(timer_delete(t));
    }
}

HELPER(timer_gone)
{
    (void)argc;
    int id = atoi(argv[0]);
    CHECK_ERRNO(syscall(SYS_timer_getoverrun, id), EINVAL);
    conf_sleep_ms(3100);
    return 0;
}

TEST(timer_exec)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        int id;
        char text[16];
        OK((int)syscall(SYS_timer_create, CLOCK_MONOTONIC, NULL, &id));
        /* Far longer than an execve takes. */
        struct itimerspec it = {{0, 0}, {3, 0}};
        OK((int)syscall(SYS_timer_settime, id, 0, &it, NULL));
        text[0] = (char)('0' + id % 10);
        text[1] = '\0';
        CHECK(id < 10);
        const char *const args[] = {text, NULL};
        conf_exec_helper("timer_gone", args);
    }
    CHECK_EXIT(pid, 0);
}

TEST(timer_storm)
{
    timer_t t[32];
    conf_handler(SIGUSR1, count_hit, SA_RESTART);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        t[i] = timer_new(i % 2 ? CLOCK_MONOTONIC : CLOCK_REALTIME, SIGUSR1, (int)i);
    int64_t end = conf_now() + 300 * MS;
    for (unsigned n = 0; conf_now() < end; n++)
        timer_arm(t[n % ARRAY_SIZE(t)], 1 + n % 500 * 1000, n % 3 ? 0 : 200000);
    CHECK(hits > 0);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        OK(timer_delete(t[i]));
    /* What was queued when its timer went still comes. */
    conf_sleep_ms(20);
    int before = hits;
    conf_sleep_ms(50);
    CHECK_EQ(hits, before);
}
