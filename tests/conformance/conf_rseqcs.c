/* rseq(2): critical sections, and what their own thread's calls, signals and faults do to them. */
#include "rseq_help.h"

#include <time.h>
#include <ucontext.h>

CONF_FAMILY("rseqcs");

#define OFTEN 100

static struct rseq_area own;

/* What the last handler found. */
static volatile uint64_t seen_ip, seen_cs, seen_result;
static volatile int hits;

static uint64_t handler_reg(const void *uc, int reg)
{
    return (uint64_t)((const ucontext_t *)uc)->uc_mcontext.gregs[reg];
}

static void on_signal(int sig, siginfo_t *si, void *uc)
{
    (void)sig;
    (void)si;
    seen_ip = handler_reg(uc, REG_RIP);
    seen_result = handler_reg(uc, REG_RAX);
    seen_cs = own.cs;
    hits++;
}

static int signal_self(int sig)
{
    return (int)syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), sig);
}

/* ---- alone ---- */

TEST(commits)
{
    static struct rseq_slot slots[MAX_CPUS];
    struct rseq_area *area = rseq_take(&own);
    uint64_t sum = 0;
    int done = 0;

    while (done < 1000)
        done += rseq_add(area, slots, 0);
    for (int i = 0; i < MAX_CPUS; i++)
        sum += slots[i].count;
    CHECK_EQ(sum, 1000);
}

/* The kernel takes the pointer away when it interferes, and does not mind it otherwise. */
TEST(pointer_stays_after_commit)
{
    static struct rseq_slot slots[MAX_CPUS];
    struct rseq_area *area = rseq_take(&own);
    uint64_t cs;

    do {
        while (!rseq_add(area, slots, 0))
            ;
        cs = area->cs;
        CHECK(cs == 0 || cs == (uintptr_t)&rseq_add_cs);
    } while (cs == 0);
}

TEST(sleep_clears_pointer)
{
    struct rseq_area *area = rseq_take(&own);

    for (int i = 0; i < 10; i++) {
        area->cs = (uintptr_t)&rseq_spin_cs;
        EVENTUALLY(area->cs == 0);
    }
}

TEST(signal_outside)
{
    struct rseq_area *area = rseq_take(&own);

    conf_sigaction(SIGUSR1, on_signal, 0);
    for (int i = 1; i <= OFTEN; i++) {
        area->cs = (uintptr_t)&rseq_spin_cs;
        OK(signal_self(SIGUSR1));
        CHECK_EQ(hits, i);
        CHECK_EQ(seen_cs, 0);
        CHECK_EQ(area->cs, 0);
        CHECK(seen_ip != rseq_spin_cs.abort_ip);
    }
}

/* ---- system calls ---- */

TEST(call_inside)
{
    struct rseq_area *area = rseq_take(&own);
    const long parent = getppid();

    for (int done = 0; done < OFTEN;) {
        long r = rseq_in_call(area, &rseq_in_call_cs, SYS_getppid, 0, 0, 0);
        CHECK(r == parent || r == IN_CALL_ABORTED);
        done += r == parent;
        CHECK(area->cs == 0 || r == parent);
    }
}

/* Who sleeps is not running. */
TEST(sleeping_call_inside)
{
    struct rseq_area *area = rseq_take(&own);
    struct timespec ts = {.tv_nsec = 1000000};

    for (int aborts = 0; aborts < 10;) {
        long r = rseq_in_call(area, &rseq_in_call_cs, SYS_nanosleep, (long)&ts, 0, 0);
        CHECK(r == 0 || r == IN_CALL_ABORTED);
        if (r == 0)
            continue;
        aborts++;
        CHECK_EQ(area->cs, 0);
    }
}

/* The numbers change on the way out of the call, and the section with them. */
TEST(moving_call_inside)
{
    static struct cpu_list list;
    struct rseq_area *area = rseq_take(&own);

    list = cpus_allowed();
    for (int i = 0; i < 20 * list.count; i++) {
        const int cpu = list.cpu[i % list.count];
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)cpu, &set);
        const bool moves = sched_getcpu() != cpu;
        const bool pinned = i >= list.count;
        long r =
            rseq_in_call(area, &rseq_in_call_cs, SYS_sched_setaffinity, 0, sizeof(set), (long)&set);
        CHECK(r == 0 || r == IN_CALL_ABORTED);
        CHECK(r == IN_CALL_ABORTED || !moves || !pinned);
        OK(sched_setaffinity(0, sizeof(set), &set));
        CHECK_EQ(area->cpu_id, cpu);
    }
}

/* Who is new has not been running: of two that are inside at once at most one goes on. */
TEST(fork_inside)
{
    struct rseq_area *area = rseq_take(&own);
    const pid_t self = getpid();
    volatile int *aborts = conf_shared(CONF_PAGE);

    for (int i = 1; i <= 20; i++) {
        long r = rseq_in_call(area, &rseq_in_call_cs, SYS_fork, 0, 0, 0);
        if (getpid() != self) {
            CHECK_EQ(r, IN_CALL_ABORTED);
            CHECK_EQ(area->cs, 0);
            ++*aborts;
            _exit(0);
        }
        CHECK(r > 0 || r == IN_CALL_ABORTED);
        /* An abort may come before the call, too. */
        pid_t pid = (pid_t)waitpid(-1, NULL, 0);
        if (pid == -1) {
            CHECK_EQ(errno, ECHILD);
            CHECK_EQ(r, IN_CALL_ABORTED);
            i--;
            continue;
        }
        CHECK_EQ(*aborts, i);
    }
}

/* ---- signals ---- */

TEST(signal_inside)
{
    struct rseq_area *area = rseq_take(&own);

    conf_sigaction(SIGUSR1, on_signal, 0);
    for (int last = 0; hits < OFTEN;) {
        CHECK_EQ(rseq_in_call(area, &rseq_in_call_cs, SYS_tgkill, getpid(), syscall(SYS_gettid),
                              SIGUSR1),
                 IN_CALL_ABORTED);
        if (hits == last)
            continue;
        last = hits;
        CHECK_EQ(seen_ip, rseq_in_call_cs.abort_ip);
        CHECK_EQ(seen_cs, 0);
        /* The call was made nevertheless. */
        CHECK_EQ(seen_result, 0);
    }
}

TEST(blocked_signal_inside)
{
    struct rseq_area *area = rseq_take(&own);
    sigset_t set;

    conf_sigaction(SIGUSR1, on_signal, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    for (int done = 0; done < OFTEN;) {
        long r = rseq_in_call(area, &rseq_in_call_cs, SYS_tgkill, getpid(), syscall(SYS_gettid),
                              SIGUSR1);
        CHECK(r == 0 || r == IN_CALL_ABORTED);
        done += r == 0;
        CHECK_EQ(hits, 0);
    }
}

/* Nothing is delivered, nothing is aborted. */
TEST(ignored_signal_inside)
{
    struct rseq_area *area = rseq_take(&own);

    OK(signal(SIGUSR1, SIG_IGN) == SIG_ERR ? -1 : 0);
    for (int done = 0; done < OFTEN;) {
        long r = rseq_in_call(area, &rseq_in_call_cs, SYS_tgkill, getpid(), syscall(SYS_gettid),
                              SIGUSR1);
        CHECK(r == 0 || r == IN_CALL_ABORTED);
        done += r == 0;
    }
}

int rseq_trap(struct rseq_area *area);
RSEQ_FUNCTION(rseq_trap, "", "int3\nnop", RETURN_1, RETURN_0);
int rseq_bad_store(struct rseq_area *area);
RSEQ_FUNCTION(rseq_bad_store, "", "xorl %ecx, %ecx\nmovl %ecx, (%rcx)\nnop", RETURN_1, RETURN_0);
int rseq_undefined(struct rseq_area *area);
RSEQ_FUNCTION(rseq_undefined, "", "ud2\nnop", RETURN_1, RETURN_0);
int rseq_divide(struct rseq_area *area);
RSEQ_FUNCTION(rseq_divide, "", "xorl %ecx, %ecx\ndivl %ecx\nnop", RETURN_1, RETURN_0);

/* The handler of a fault cannot see where it was: it sees the abort. */
TEST(faults_inside)
{
    const struct {
        int (*run)(struct rseq_area *area);
        const struct rseq_cs *cs;
        int sig;
    } faults[] = {{rseq_trap, &rseq_trap_cs, SIGTRAP},
                  {rseq_bad_store, &rseq_bad_store_cs, SIGSEGV},
                  {rseq_undefined, &rseq_undefined_cs, SIGILL},
                  {rseq_divide, &rseq_divide_cs, SIGFPE}};
    struct rseq_area *area = rseq_take(&own);

    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        conf_sigaction(faults[i].sig, on_signal, 0);
        hits = 0;
        for (int last = 0; hits < OFTEN;) {
            CHECK_EQ(faults[i].run(area), 0);
            CHECK_EQ(area->cs, 0);
            if (hits == last)
                continue;
            last = hits;
            CHECK_EQ(seen_ip, faults[i].cs->abort_ip);
            CHECK_EQ(seen_cs, 0);
        }
    }
}

static volatile int bad_hits, abort_hits;

/* A handler never sees a thread within its section. */
static void on_spinner(int sig, siginfo_t *si, void *uc)
{
    const uint64_t ip = handler_reg(uc, REG_RIP);

    (void)sig;
    (void)si;
    if (rseq_libc()->cs != 0 || rseq_within(&rseq_spin_cs, ip))
        bad_hits++;
    if (ip == rseq_spin_cs.abort_ip)
        abort_hits++;
    hits++;
}

TEST(signals_from_another_thread)
{
    static struct spinner s;
    pthread_t t = start_thread(spinner_thread, &s);

    conf_sigaction(SIGUSR1, on_spinner, 0);
    while (load_int(&abort_hits) < 20) {
        const int before = await_inside(&s);
        OK(syscall(SYS_tgkill, getpid(), s.tid, SIGUSR1));
        EVENTUALLY(load_int(&s.aborts) > before);
    }
    CHECK_EQ(bad_hits, 0);
    stop_spinner(&s, t);
}

/* A call that was interrupted is not made again: the section is over. */
TEST(interrupted_call_inside)
{
    volatile int *interrupted = conf_shared(CONF_PAGE);
    int ends[2];

    OK(pipe(ends));
    pid_t pid = conf_fork();
    if (pid == 0) {
        char buf[1];
        struct rseq_area *area = rseq_take(&own);
        conf_sigaction(SIGUSR1, on_signal, SA_RESTART);
        while (hits == 0)
            CHECK_EQ(rseq_in_call(area, &rseq_in_call_cs, SYS_read, ends[0], (long)buf, 1),
                     IN_CALL_ABORTED);
        CHECK_EQ(seen_ip, rseq_in_call_cs.abort_ip);
        CHECK_EQ(seen_cs, 0);
        store_int(interrupted, 1);
        CHECK_EQ(read(ends[0], buf, 1), 1);
        _exit(0);
    }
    conf_await_asleep(pid);
    OK(kill(pid, SIGUSR1));
    conf_await(interrupted, 1);
    CHECK_EQ(write(ends[1], "x", 1), 1);
    CHECK_EXIT(pid, 0);
}
