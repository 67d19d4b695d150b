/* ptrace: system calls, attaching and letting go, events, waiting for tracees. */
#include "ptrace_util.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

CONF_FAMILY("tracing");

/* ---- system calls ---- */

static void run_calls(void)
{
    long r = syscall(SYS_getppid);
    (void)r;
    r = syscall(SYS_dup, 12345);
    _exit(r == 4242 ? 0 : 1);
}

static void change_actions(volatile int *rounds)
{
    const uint64_t action[4] = {0};
    for (;;) {
        (void)syscall(SYS_rt_sigaction, SIGUSR2, action, NULL, 8L);
        if (*rounds < 1000)
            ++*rounds;
    }
}

/* Calls that may have been short cuts till then are all seen from the attachment on. */
TEST(attaching_to_who_changes_actions)
{
    struct user_regs_struct regs;
    volatile int *rounds = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0)
        change_actions(rounds);
    conf_await(rounds, 1000);
    OK(pt(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD));
    OK(pt(PTRACE_INTERRUPT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), EVENT_STATUS(PTRACE_EVENT_STOP));
    for (int i = 0; i < 20; i++) {
        OK(pt(PTRACE_SYSCALL, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP | 0x80);
        get_regs(pid, &regs);
        CHECK_EQ(regs.orig_rax, SYS_rt_sigaction);
    }
    conf_kill(pid);
}

TEST(system_call_stops)
{
    pid_t pid = traced_child(run_calls);
    struct ptrace_syscall_info info;
    struct user_regs_struct regs;
    OK(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    bool entry = true, seen = false;
    unsigned long nr = 0;
    for (;;) {
        int status;
        OK(pt(PTRACE_SYSCALL, pid, 0, 0));
        CHECK_EQ(OK(waitpid(pid, &status, 0)), pid);
        if (WIFEXITED(status)) {
            CHECK_EQ(WEXITSTATUS(status), 0);
            break;
        }
        CHECK_EQ(STOP_CODE(status), SIGTRAP | 0x80);
        get_regs(pid, &regs);
        long n = OK(pt(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), (unsigned long)&info));
        CHECK_EQ(info.arch, 0xc000003e);
        CHECK_EQ(info.instruction_pointer, regs.rip);
        CHECK_EQ(info.stack_pointer, regs.rsp);
        if (n < (long)offsetof(struct ptrace_syscall_info, entry) + 8)
            conf_fail(__FILE__, __LINE__, "%ld bytes", n);
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
            CHECK(entry);
            nr = info.entry.nr;
            CHECK_EQ(regs.orig_rax, nr);
            CHECK_EQ((long)regs.rax, -ENOSYS);
        } else {
            CHECK_EQ(info.op, PTRACE_SYSCALL_INFO_EXIT);
            CHECK(!entry);
            CHECK_EQ((long)regs.rax, info.exit.rval);
            if (nr == SYS_getppid)
                CHECK_EQ(info.exit.rval, getpid());
            if (nr == SYS_dup) {
                CHECK_EQ(info.exit.rval, -EBADF);
                CHECK_EQ(info.exit.is_error, 1);
                regs.rax = 4242;
                OK(pt(PTRACE_SETREGS, pid, 0, (unsigned long)&regs));
                seen = true;
            }
        }
        entry = !entry;
    }
    CHECK(seen);
}

static void run_set(void)
{
    long a = syscall(SYS_dup, 12345), b = syscall(SYS_dup, 12346), c = syscall(SYS_dup, 12347);
    _exit(a == 9 && b == -1 && errno == EDOM && c == 4711 ? 0 : 1);
}

#define SET_SYSCALL_INFO 0x4212

static long set_info(pid_t pid, const struct ptrace_syscall_info *info, size_t size)
{
    return pt(SET_SYSCALL_INFO, pid, size, (unsigned long)info);
}

/* To the next stop of a call dup(fd); its info. */
static void next_dup(pid_t pid, uint64_t fd, int op, struct ptrace_syscall_info *info)
{
    do {
        OK(pt(PTRACE_SYSCALL, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP | 0x80);
        memset(info, 0, sizeof(*info));
        OK(pt(PTRACE_GET_SYSCALL_INFO, pid, sizeof(*info), (unsigned long)info));
    } while (op == PTRACE_SYSCALL_INFO_ENTRY &&
             (info->op != op || info->entry.nr != SYS_dup || info->entry.args[0] != fd));
    CHECK_EQ(info->op, op);
}

TEST(call_info_is_set)
{
    pid_t pid = traced_child(run_set);
    struct ptrace_syscall_info info = {.op = PTRACE_SYSCALL_INFO_ENTRY}, bad;
    int status;
    long r = set_info(pid, &info, sizeof(info));
    if (r == -1 && errno == EIO)
        conf_skip("a kernel before 6.16");
    CHECK_ERRNO(set_info(pid, &info, sizeof(info)), EINVAL);
    info.op = PTRACE_SYSCALL_INFO_NONE;
    CHECK_ERRNO(set_info(pid, &info, sizeof(info)), EINVAL);
    OK(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    /* another call with other arguments */
    next_dup(pid, 12345, PTRACE_SYSCALL_INFO_ENTRY, &info);
    CHECK_ERRNO(set_info(pid, &info, sizeof(info) - 1), EINVAL);
    CHECK_ERRNO(set_info(pid, (void *)8, sizeof(info)), EFAULT);
    bad = info;
    bad.pad[0] = 1;
    CHECK_ERRNO(set_info(pid, &bad, sizeof(bad)), EINVAL);
    bad = info;
    bad.op = PTRACE_SYSCALL_INFO_EXIT;
    CHECK_ERRNO(set_info(pid, &bad, sizeof(bad)), EINVAL);
    bad = info;
    bad.entry.nr = 1ull << 32;
    CHECK_ERRNO(set_info(pid, &bad, sizeof(bad)), ERANGE);
    info.entry.nr = SYS_dup2;
    info.entry.args[0] = 1;
    info.entry.args[1] = 9;
    OK(set_info(pid, &info, sizeof(info)));
    next_dup(pid, 0, PTRACE_SYSCALL_INFO_EXIT, &info);
    CHECK_EQ(info.exit.rval, 9);
    /* an error of the tracer's */
    next_dup(pid, 12346, PTRACE_SYSCALL_INFO_ENTRY, &info);
    info.entry.nr = (uint64_t)-1;
    info.entry.args[0] = 1;
    OK(set_info(pid, &info, sizeof(info)));
    next_dup(pid, 0, PTRACE_SYSCALL_INFO_EXIT, &info);
    info.exit.rval = -EDOM;
    info.exit.is_error = 1;
    OK(set_info(pid, &info, sizeof(info)));
    /* a value of the tracer's */
    next_dup(pid, 12347, PTRACE_SYSCALL_INFO_ENTRY, &info);
    next_dup(pid, 0, PTRACE_SYSCALL_INFO_EXIT, &info);
    CHECK_EQ(info.exit.rval, -EBADF);
    info.exit.rval = 4711;
    info.exit.is_error = 0;
    OK(set_info(pid, &info, sizeof(info)));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(OK(waitpid(pid, &status, 0)), pid);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
}

static void run_changed(void)
{
    long a = syscall(SYS_dup, 12345), b = syscall(SYS_dup, 12346);
    _exit(a == getpid() && b == 7 ? 0 : 1);
}

TEST(calls_are_changed_and_skipped)
{
    pid_t pid = traced_child(run_changed);
    struct user_regs_struct regs;
    int dups = 0;
    OK(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    while (dups < 2) {
        OK(pt(PTRACE_SYSCALL, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP | 0x80);
        get_regs(pid, &regs);
        if (regs.orig_rax != SYS_dup)
            continue;
        regs.orig_rax = dups == 0 ? (unsigned long)SYS_getpid : -1ul;
        regs.rax = 7;
        OK(pt(PTRACE_SETREGS, pid, 0, (unsigned long)&regs));
        OK(pt(PTRACE_SYSCALL, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP | 0x80);
        dups++;
    }
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}

static void run_emulated(void)
{
    long a = syscall(SYS_dup, 12345);
    _exit(a == 99 ? 0 : 1);
}

TEST(sysemu)
{
    pid_t pid = traced_child(run_emulated);
    struct user_regs_struct regs;
    OK(pt(31 /* PTRACE_SYSEMU */, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGTRAP);
    get_regs(pid, &regs);
    while (regs.orig_rax != SYS_dup) {
        /* What raise and libc do meanwhile is done for real. */
        OK(pt(PTRACE_SYSCALL, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP);
        get_regs(pid, &regs);
        OK(pt(31, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP);
        get_regs(pid, &regs);
    }
    regs.rax = 99;
    OK(pt(PTRACE_SETREGS, pid, 0, (unsigned long)&regs));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}

static volatile int *sleeps;

static void run_sleep(void)
{
    struct timespec ts = {2, 0};
    *sleeps = 1;
    int r = nanosleep(&ts, NULL);
    _exit(r == 0 ? 0 : 1);
}

TEST(interrupted_call_restarts)
{
    sleeps = conf_shared(CONF_PAGE);
    pid_t pid = traced_child(run_sleep);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    conf_await(sleeps, 1);
    conf_await_asleep(pid);
    OK(kill(pid, SIGUSR1));
    CHECK_EQ(wait_stop(pid), SIGUSR1);
    struct user_regs_struct regs;
    get_regs(pid, &regs);
    CHECK_EQ((long)regs.rax, -516);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}

/* ---- attaching ---- */

static int tracer_of(pid_t pid)
{
    char path[64], text[2048];
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    conf_get(path, text, sizeof(text));
    const char *p = strstr(text, "TracerPid:");
    return p ? atoi(p + 10) : -1;
}

TEST(attach_and_detach)
{
    pid_t pid = plain_child(run_pause);
    CHECK_EQ(tracer_of(pid), 0);
    OK(pt(PTRACE_ATTACH, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    CHECK_EQ(tracer_of(pid), getpid());
    CHECK_ERRNO(pt(PTRACE_DETACH, pid, 0, 65), EIO);
    OK(pt(PTRACE_DETACH, pid, 0, 0));
    CHECK_EQ(tracer_of(pid), 0);
    CHECK_ERRNO(pt(PTRACE_CONT, pid, 0, 0), ESRCH);
    CHECK_EQ(waitpid(pid, NULL, WNOHANG | WUNTRACED), 0);
    conf_kill(pid);
}

TEST(detach_with_a_signal)
{
    pid_t pid = plain_child(run_pause);
    OK(pt(PTRACE_ATTACH, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    OK(pt(PTRACE_DETACH, pid, 0, SIGTERM));
    CHECK_KILLED(pid, SIGTERM);
}

TEST(attach_to_a_stopped_process)
{
    int status;
    pid_t pid = plain_child(run_pause);
    OK(kill(pid, SIGSTOP));
    CHECK_EQ(OK(waitpid(pid, &status, WUNTRACED)), pid);
    OK(pt(PTRACE_ATTACH, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    /* And it stays stopped after all. */
    OK(pt(PTRACE_DETACH, pid, 0, 0));
    conf_sleep_ms(20);
    EVENTUALLY(conf_state(pid) == 'T');
    conf_kill(pid);
}

TEST(seize_interrupt_listen)
{
    pid_t pid = plain_child(run_pause);
    siginfo_t si;
    int status;
    CHECK_ERRNO(pt(PTRACE_SEIZE, pid, 0, 0x80000000), EIO);
    OK(pt(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD));
    CHECK_EQ(waitpid(pid, &status, WNOHANG | __WALL), 0);
    CHECK_ERRNO(pt(PTRACE_CONT, pid, 0, 0), ESRCH);
    OK(pt(PTRACE_INTERRUPT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), EVENT_STATUS(PTRACE_EVENT_STOP));
    OK(pt(PTRACE_GETSIGINFO, pid, 0, (unsigned long)&si));
    CHECK_EQ(si.si_code, EVENT_STATUS(PTRACE_EVENT_STOP));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    /* A group stop: seen as a signal, then as the stop. */
    OK(kill(pid, SIGSTOP));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    OK(pt(PTRACE_CONT, pid, 0, SIGSTOP));
    CHECK_EQ(wait_stop(pid), SIGSTOP | PTRACE_EVENT_STOP << 8);
    OK(pt(PTRACE_LISTEN, pid, 0, 0));
    CHECK_ERRNO(pt(PTRACE_CONT, pid, 0, 0), ESRCH);
    CHECK_EQ(waitpid(pid, &status, WNOHANG | __WALL), 0);
    OK(kill(pid, SIGCONT));
    CHECK_EQ(wait_stop(pid), EVENT_STATUS(PTRACE_EVENT_STOP));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGCONT);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    conf_kill(pid);
}

TEST(group_stop_of_an_attached_process)
{
    pid_t pid = traced_child(run_pause);
    siginfo_t si;
    OK(pt(PTRACE_CONT, pid, 0, 0));
    OK(kill(pid, SIGTSTP));
    CHECK_EQ(wait_stop(pid), SIGTSTP);
    /* Orphaned groups do not stop for it: SIGSTOP instead. */
    OK(pt(PTRACE_CONT, pid, 0, SIGSTOP));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    CHECK_ERRNO(pt(PTRACE_GETSIGINFO, pid, 0, (unsigned long)&si), EINVAL);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    conf_kill(pid);
}

TEST(tracers_exit_lets_go)
{
    volatile int *shared = conf_shared(CONF_PAGE);
    pid_t pid = plain_child(run_pause);
    pid_t tracer = conf_fork();
    if (tracer == 0) {
        OK(pt(PTRACE_ATTACH, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGSTOP);
        shared[0] = 1;
        _exit(0);
    }
    CHECK_EXIT(tracer, 0);
    CHECK_EQ(tracer_of(pid), 0);
    CHECK_EQ(waitpid(pid, NULL, WNOHANG), 0);
    conf_kill(pid);
}

TEST(exitkill)
{
    pid_t pid = plain_child(run_pause);
    pid_t tracer = conf_fork();
    if (tracer == 0) {
        OK(pt(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL));
        _exit(0);
    }
    CHECK_EXIT(tracer, 0);
    CHECK_KILLED(pid, SIGKILL);
}

TEST(a_foreign_tracer_waits_first)
{
    pid_t pid = plain_child(run_pause);
    int status;
    pid_t tracer = conf_fork();
    if (tracer == 0) {
        OK(pt(PTRACE_SEIZE, pid, 0, 0));
        OK(kill(pid, SIGTERM));
        CHECK_EQ(wait_stop(pid), SIGTERM);
        OK(pt(PTRACE_CONT, pid, 0, SIGTERM));
        CHECK_EQ(OK(waitpid(pid, &status, 0)), pid);
        CHECK(WIFSIGNALED(status));
        _exit(0);
    }
    CHECK_KILLED(pid, SIGTERM);
    CHECK_EXIT(tracer, 0);
}

TEST(attach_needs_the_same_user)
{
    NEED_ROOT();
    pid_t pid = plain_child(run_pause);
    pid_t other = conf_fork();
    if (other == 0) {
        conf_become(12345);
        CHECK_ERRNO(pt(PTRACE_ATTACH, pid, 0, 0), EPERM);
        CHECK_ERRNO(pt(PTRACE_SEIZE, pid, 0, 0), EPERM);
        _exit(0);
    }
    CHECK_EXIT(other, 0);
    conf_kill(pid);
}

TEST(attach_needs_a_dumpable_process)
{
    NEED_ROOT();
    volatile int *shared = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(12345);
        prctl(PR_SET_DUMPABLE, 1);
        shared[0] = 1;
        conf_await(&shared[0], 2);
        prctl(PR_SET_DUMPABLE, 0);
        shared[0] = 3;
        run_pause();
    }
    conf_await(&shared[0], 1);
    pid_t other = conf_fork();
    if (other == 0) {
        conf_become(12345);
        OK(pt(PTRACE_SEIZE, pid, 0, 0));
        OK(pt(PTRACE_INTERRUPT, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), EVENT_STATUS(PTRACE_EVENT_STOP));
        OK(pt(PTRACE_DETACH, pid, 0, 0));
        shared[0] = 2;
        conf_await(&shared[0], 3);
        CHECK_ERRNO(pt(PTRACE_SEIZE, pid, 0, 0), EPERM);
        _exit(0);
    }
    CHECK_EXIT(other, 0);
    conf_kill(pid);
}

/* ---- events ---- */

static void run_fork_exec(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(3);
    int status;
    waitpid(pid, &status, 0);
    pid = vfork();
    if (pid == 0)
        _exit(4);
    waitpid(pid, &status, 0);
    _exit(9);
}

TEST(fork_and_exit_events)
{
    pid_t pid = traced_child(run_fork_exec);
    int forks = 0, vforks = 0, dones = 0, exits = 0, children = 0, news = 0;
    unsigned long msg;
    OK(pt(PTRACE_SETOPTIONS, pid, 0,
          PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    for (;;) {
        int status;
        pid_t got = OK(waitpid(-1, &status, __WALL));
        if (WIFEXITED(status)) {
            if (got == pid) {
                CHECK_EQ(WEXITSTATUS(status), 9);
                break;
            }
            children += WEXITSTATUS(status);
            continue;
        }
        CHECK(WIFSTOPPED(status));
        int sig = WSTOPSIG(status), event = status >> 16;
        if (event)
            OK(pt(PTRACE_GETEVENTMSG, got, 0, (unsigned long)&msg));
        if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK) {
            CHECK_EQ(got, pid);
            CHECK((pid_t)msg > 0 && (pid_t)msg != pid);
            forks += event == PTRACE_EVENT_FORK;
            vforks += event == PTRACE_EVENT_VFORK;
        }
        dones += event == PTRACE_EVENT_VFORK_DONE;
        if (event == PTRACE_EVENT_EXIT) {
            exits++;
            CHECK(WIFEXITED((int)msg));
            CHECK_EQ(WEXITSTATUS((int)msg), got == pid ? 9 : exits == 1 ? 3 : 4);
        }
        if (!event && sig == SIGSTOP && got != pid) {
            news++;
            sig = 0;
        }
        OK(pt(PTRACE_CONT, got, 0, event || sig == SIGTRAP ? 0 : (unsigned long)sig));
    }
    CHECK_EQ(forks, 1);
    CHECK_EQ(vforks, 1);
    CHECK_EQ(dones, 1);
    CHECK_EQ(exits, 3);
    CHECK_EQ(children, 7);
    CHECK_EQ(news, 2);
}

HELPER(quiet)
{
    (void)argc;
    (void)argv;
    return 6;
}

static void run_exec(void)
{
    conf_exec_helper("quiet", (const char *const[]){NULL});
}

TEST(exec_is_a_trap)
{
    pid_t pid = traced_child(run_exec);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGTRAP);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 6);
}

TEST(exec_event)
{
    pid_t pid = traced_child(run_exec);
    unsigned long msg = 0;
    OK(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXEC));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), EVENT_STATUS(PTRACE_EVENT_EXEC));
    OK(pt(PTRACE_GETEVENTMSG, pid, 0, (unsigned long)&msg));
    CHECK_EQ(msg, pid);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 6);
}

static void *thread_main(void *arg)
{
    *(volatile int *)arg = (int)syscall(SYS_gettid);
    return NULL;
}

static void run_thread(void)
{
    static volatile int tid;
    pthread_t th;
    pthread_create(&th, NULL, thread_main, (void *)(uintptr_t)&tid);
    pthread_join(th, NULL);
    _exit(tid > 0 ? 0 : 1);
}

TEST(threads_are_followed)
{
    pid_t pid = traced_child(run_thread), thread = 0;
    unsigned long msg = 0;
    bool started = false, ended = false;
    OK(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACECLONE));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    for (;;) {
        int status;
        pid_t got = OK(waitpid(-1, &status, __WALL));
        if (got == pid && WIFEXITED(status)) {
            CHECK_EQ(WEXITSTATUS(status), 0);
            break;
        }
        if (WIFEXITED(status)) {
            ended = true;
            CHECK(thread == 0 || got == thread);
            continue;
        }
        if (status >> 8 == EVENT_STATUS(PTRACE_EVENT_CLONE)) {
            OK(pt(PTRACE_GETEVENTMSG, got, 0, (unsigned long)&msg));
            thread = (pid_t)msg;
        } else {
            CHECK_EQ(status >> 8, SIGSTOP);
            CHECK(got != pid);
            started = true;
        }
        OK(pt(PTRACE_CONT, got, 0, 0));
    }
    CHECK(started);
    CHECK(ended);
    CHECK(thread > 0);
}

TEST(seized_children_stop_by_event)
{
    pid_t pid = plain_child(run_fork_exec);
    (void)pid;
    conf_kill(pid);
    volatile int *shared = conf_shared(CONF_PAGE);
    pid = conf_fork();
    if (pid == 0) {
        conf_await(&shared[0], 1);
        pid_t c = fork();
        if (c == 0)
            _exit(0);
        waitpid(c, NULL, 0);
        _exit(0);
    }
    OK(pt(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEFORK));
    shared[0] = 1;
    CHECK_EQ(wait_stop(pid), EVENT_STATUS(PTRACE_EVENT_FORK));
    unsigned long msg;
    OK(pt(PTRACE_GETEVENTMSG, pid, 0, (unsigned long)&msg));
    CHECK_EQ(wait_stop((pid_t)msg), EVENT_STATUS(PTRACE_EVENT_STOP));
    OK(pt(PTRACE_CONT, (pid_t)msg, 0, 0));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    int status;
    CHECK_EQ(OK(waitpid((pid_t)msg, &status, __WALL)), (pid_t)msg);
    CHECK(WIFEXITED(status));
    CHECK_EQ(wait_stop(pid), SIGCHLD);
    OK(pt(PTRACE_CONT, pid, 0, SIGCHLD));
    CHECK_EXIT(pid, 0);
}

/* ---- waiting ---- */

TEST(waitid_of_tracees)
{
    pid_t pid = traced_child(run_exec);
    siginfo_t si;
    OK(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXEC));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    OK(waitid(P_PID, (id_t)pid, &si, WSTOPPED | WNOWAIT | __WALL));
    CHECK_EQ(si.si_code, CLD_TRAPPED);
    CHECK_EQ(si.si_status, EVENT_STATUS(PTRACE_EVENT_EXEC));
    OK(waitid(P_PID, (id_t)pid, &si, WSTOPPED));
    CHECK_EQ(si.si_status, EVENT_STATUS(PTRACE_EVENT_EXEC));
    si.si_pid = 1;
    OK(waitid(P_PID, (id_t)pid, &si, WSTOPPED | WNOHANG));
    CHECK_EQ(si.si_pid, 0);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    OK(waitid(P_PID, (id_t)pid, &si, WEXITED));
    CHECK_EQ(si.si_code, CLD_EXITED);
    CHECK_EQ(si.si_status, 6);
}

static volatile int chld_code, chld_status;

static void on_chld(int sig, siginfo_t *si, void *uc)
{
    (void)sig;
    (void)uc;
    chld_code = si->si_code;
    chld_status = si->si_status;
}

TEST(stops_send_sigchld)
{
    conf_sigaction(SIGCHLD, on_chld, 0);
    pid_t pid = traced_child(run_pause);
    CHECK_EQ(chld_code, CLD_TRAPPED);
    CHECK_EQ(chld_status, SIGSTOP);
    conf_kill(pid);
}

/* Only the thread that traces may ask; any may wait, except with __WNOTHREAD. */
static void *other_thread(void *arg)
{
    pid_t pid = *(pid_t *)arg;
    int status;
    CHECK_ERRNO(pt(PTRACE_CONT, pid, 0, 0), ESRCH);
    CHECK_ERRNO(waitpid(pid, &status, __WALL | __WNOTHREAD), ECHILD);
    CHECK_EQ(OK(waitpid(pid, &status, __WALL)), pid);
    CHECK_EQ(STOP_CODE(status), SIGUSR1);
    return NULL;
}

TEST(threads_of_the_tracer)
{
    pid_t pid = traced_child(run_pause);
    pthread_t th;
    OK(pt(PTRACE_CONT, pid, 0, 0));
    OK(kill(pid, SIGUSR1));
    CHECK_EQ(pthread_create(&th, NULL, other_thread, &pid), 0);
    CHECK_EQ(pthread_join(th, NULL), 0);
    conf_kill(pid);
}

TEST(nothing_runs_twice)
{
    /* The tracer goes while its tracees are everywhere. */
    for (int i = 0; i < 30; i++) {
        pid_t tracer = conf_fork();
        if (tracer == 0) {
            pid_t pid = plain_child(run_nothing);
            if (pt(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL | PTRACE_O_TRACEEXIT) == 0 && i % 2)
                pt(PTRACE_INTERRUPT, pid, 0, 0);
            _exit(0);
        }
        CHECK_EXIT(tracer, 0);
    }
}
