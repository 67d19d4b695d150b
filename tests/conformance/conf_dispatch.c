/* Syscall user dispatch: PR_SET_SYSCALL_USER_DISPATCH of prctl(2). */
#include "harness.h"

#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <ucontext.h>

CONF_FAMILY("dispatch");

#define DISPATCH 59
#define ON 1
#define ON_INCLUSIVE 2
#define DISPATCH_CODE 2
#define GET_CONFIG 0x4211
#define SET_CONFIG 0x4210
#define ODD_CALL 0xf0f0 /* no system call has this number */

extern const char inside_begin[], inside_end[];
long inside_call(long nr, long arg);
long outside_call(long nr, long arg);
__asm__(".text\n"
        "inside_begin:\n"
        "inside_call: movq %rdi, %rax\nmovq %rsi, %rdi\nsyscall\nret\n"
        "inside_end:\n"
        "outside_call: movq %rdi, %rax\nmovq %rsi, %rdi\nsyscall\nret\n");

static volatile unsigned char selector;
static volatile int calls, last_nr, last_code, last_errno;
static volatile uint64_t last_ip, last_addr;

/* The answer is the number and one, and the handler's own calls are its own. */
static void answer(int sig, siginfo_t *si, void *arg)
{
    ucontext_t *uc = arg;

    (void)sig;
    selector = 0;
    calls++;
    last_nr = si->si_syscall;
    last_code = si->si_code;
    last_errno = si->si_errno;
    last_addr = (uintptr_t)si->si_call_addr;
    last_ip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    uc->uc_mcontext.gregs[REG_RAX]++;
}

static void catch_calls(void)
{
    struct sigaction sa = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO};

    OK(sigaction(SIGSYS, &sa, NULL));
}

static int dispatch(unsigned long mode, const void *offset, unsigned long len,
                    const volatile void *sel)
{
    return prctl(DISPATCH, mode, (unsigned long)offset, len, (unsigned long)sel);
}

static unsigned long inside_len(void)
{
    return (unsigned long)(inside_end - inside_begin);
}

TEST(arguments)
{
    CHECK_ERRNO(dispatch(0, (void *)1, 0, NULL), EINVAL);
    CHECK_ERRNO(dispatch(0, NULL, 1, NULL), EINVAL);
    CHECK_ERRNO(dispatch(0, NULL, 0, &selector), EINVAL);
    CHECK_ERRNO(dispatch(ON, (void *)1, ~0UL, NULL), EINVAL);
    CHECK_ERRNO(dispatch(ON, (void *)1, 0, NULL), EINVAL);
    CHECK_ERRNO(dispatch(ON, NULL, 0, (void *)~0UL), EFAULT);
    CHECK_ERRNO(dispatch(77, NULL, 0, NULL), EINVAL);
    OK(dispatch(0, NULL, 0, NULL));
}

TEST(selector_decides)
{
    catch_calls();
    OK(dispatch(ON, NULL, 0, &selector));
    CHECK_EQ(outside_call(ODD_CALL, 0), -ENOSYS);
    for (int i = 1; i <= 100; i++) {
        selector = 1;
        const long r = outside_call(ODD_CALL, 0);
        CHECK_EQ(r, ODD_CALL + 1);
        CHECK_EQ(calls, i);
    }
    CHECK_EQ(last_nr, ODD_CALL);
    CHECK_EQ(last_code, DISPATCH_CODE);
    CHECK_EQ(last_errno, 0);
    CHECK_EQ(last_ip, last_addr);
    CHECK(last_ip > (uintptr_t)outside_call && last_ip < (uintptr_t)outside_call + 16);
    CHECK_EQ(outside_call(SYS_getpid, 0), getpid());
}

/* Also of calls that are answered without much ado otherwise. */
TEST(every_call)
{
    static const int nrs[] = {SYS_getpid, SYS_gettid,         SYS_getuid, SYS_sched_yield,
                              SYS_read,   SYS_rt_sigprocmask, SYS_exit,   SYS_rseq};

    catch_calls();
    OK(dispatch(ON, NULL, 0, &selector));
    for (int round = 0; round < 50; round++)
        for (size_t i = 0; i < sizeof(nrs) / sizeof(nrs[0]); i++) {
            selector = 1;
            const long r = outside_call(nrs[i], 0);
            CHECK_EQ(r, nrs[i] + 1);
            CHECK_EQ(last_nr, nrs[i]);
        }
}

TEST(range_is_spared)
{
    catch_calls();
    OK(dispatch(ON, inside_begin, inside_len(), &selector));
    selector = 1;
    const long in = inside_call(SYS_getppid, 0), out = outside_call(SYS_getppid, 0);
    CHECK_EQ(in, getppid());
    CHECK_EQ(out, SYS_getppid + 1);
    CHECK_EQ(calls, 1);
}

TEST(range_alone)
{
    catch_calls();
    if (dispatch(ON_INCLUSIVE, inside_begin, inside_len(), NULL) < 0 && errno == EINVAL)
        conf_skip("the kernel is older than 6.17");
    CHECK_EQ(inside_call(SYS_getppid, 0), SYS_getppid + 1);
    CHECK_EQ(outside_call(SYS_getppid, 0), getppid());
    CHECK_EQ(calls, 1);
    CHECK_ERRNO(dispatch(ON_INCLUSIVE, inside_begin, 0, NULL), EINVAL);
}

static void off_by_handler(int sig)
{
    (void)sig;
    (void)inside_call(SYS_getppid, 0);
}

TEST(without_selector)
{
    conf_handler(SIGSYS, off_by_handler, 0);
    /* The handler's return is a call too: it has to come from the range. */
    const pid_t pid = conf_fork();
    if (pid == 0) {
        OK(dispatch(ON, inside_begin, inside_len(), NULL));
        (void)outside_call(SYS_getppid, 0);
        _exit(0);
    }
    CHECK_KILLED(pid, SIGSYS);
}

TEST(bad_selectors)
{
    catch_calls();
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(dispatch(ON, inside_begin, inside_len(), (void *)8));
        (void)outside_call(SYS_getppid, 0);
        _exit(0);
    }
    CHECK_KILLED(pid, SIGSEGV);
    pid = conf_fork();
    if (pid == 0) {
        selector = 2;
        OK(dispatch(ON, inside_begin, inside_len(), &selector));
        (void)outside_call(SYS_getppid, 0);
        _exit(0);
    }
    CHECK_KILLED(pid, SIGSYS);
}

TEST(children_do_not_inherit)
{
    catch_calls();
    OK(dispatch(ON, inside_begin, inside_len(), &selector));
    const pid_t pid = conf_fork();
    if (pid == 0) {
        selector = 1;
        _exit(outside_call(SYS_getppid, 0) == SYS_getppid + 1);
    }
    CHECK_EXIT(pid, 0);
}

struct config {
    uint64_t mode, selector, offset, len;
};

TEST(tracer_sees_and_sets)
{
    struct config c;
    const pid_t pid = conf_fork();
    int status;

    if (pid == 0) {
        OK(ptrace(PTRACE_TRACEME, 0, 0, 0));
        catch_calls();
        OK(raise(SIGSTOP));
        selector = 1;
        const long r = outside_call(SYS_getppid, 0);
        _exit(r == SYS_getppid + 1 && calls == 1 ? 0 : 1);
    }
    OK(waitpid(pid, &status, 0));
    CHECK_ERRNO(ptrace(GET_CONFIG, pid, sizeof(c) - 1, &c), EINVAL);
    OK(ptrace(GET_CONFIG, pid, sizeof(c), &c));
    CHECK_EQ(c.mode, 0);
    c = (struct config){ON, (uintptr_t)&selector, (uintptr_t)inside_begin, inside_len()};
    OK(ptrace(SET_CONFIG, pid, sizeof(c), &c));
    memset(&c, 0, sizeof(c));
    OK(ptrace(GET_CONFIG, pid, sizeof(c), &c));
    CHECK_EQ(c.mode, ON);
    CHECK_EQ(c.selector, (uintptr_t)&selector);
    CHECK_EQ(c.offset, (uintptr_t)inside_begin);
    CHECK_EQ(c.len, inside_len());
    OK(ptrace(PTRACE_DETACH, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}
