/* seccomp: strict mode, filters and their actions, threads, listeners. */
#include "harness.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <ucontext.h>

CONF_FAMILY("seccomp");

#define LD_NR BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))
#define RET(x) BPF_STMT(BPF_RET | BPF_K, (x))
#define IF_NR(nr_, action) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(nr_), 0, 1), RET(action)

static long seccomp(unsigned op, unsigned flags, void *args)
{
    return syscall(SYS_seccomp, op, flags, args);
}

static long lay(unsigned flags, struct sock_filter *insns, size_t count)
{
    struct sock_fprog prog = {(unsigned short)count, insns};
    return seccomp(SECCOMP_SET_MODE_FILTER, flags, &prog);
}

#define LAY(flags, ...)                                                                            \
    ({                                                                                             \
        struct sock_filter lay_f[] = {__VA_ARGS__};                                                \
        lay(flags, lay_f, ARRAY_SIZE(lay_f));                                                      \
    })

static void no_new_privs(void)
{
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

/* Calls that other programs do not make: dup of a bad descriptor, by different numbers. */
#define PROBE SYS_epoll_create1
static long probe(void)
{
    return syscall(PROBE, -1);
}

static int status_field(const char *name)
{
    char text[4096 - 512];
    conf_get("/proc/thread-self/status", text, sizeof(text));
    const char *p = strstr(text, name);
    return p ? atoi(p + strlen(name)) : -1;
}

TEST(strict)
{
    pid_t pid = conf_fork();
    int fds[2];
    OK(pipe(fds));
    if (pid == 0) {
        OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0));
        syscall(SYS_write, fds[1], "x", 1);
        syscall(SYS_exit, 3);
    }
    CHECK_EXIT(pid, 3);
    pid = conf_fork();
    if (pid == 0) {
        OK(seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL));
        syscall(SYS_getpid);
        syscall(SYS_exit, 3);
    }
    CHECK_KILLED(pid, SIGKILL);
}

TEST(errors)
{
    struct sock_filter allow = RET(SECCOMP_RET_ALLOW), f[4];
    struct sock_fprog prog = {0, &allow};
    CHECK_ERRNO(seccomp(99, 0, NULL), EINVAL);
    CHECK_ERRNO(seccomp(SECCOMP_SET_MODE_STRICT, 1, NULL), EINVAL);
    CHECK_ERRNO(seccomp(SECCOMP_SET_MODE_FILTER, 0x8000, &prog), EINVAL);
    no_new_privs();
    CHECK_ERRNO(seccomp(SECCOMP_SET_MODE_FILTER, 0, NULL), EFAULT);
    CHECK_ERRNO(seccomp(SECCOMP_SET_MODE_FILTER, 0, &prog), EINVAL);
    CHECK_ERRNO(lay(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_NEW_LISTENER, &allow, 1),
                EINVAL);
    CHECK_ERRNO(lay(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &allow, 1), EINVAL);
    CHECK_ERRNO(lay(0, NULL, 1), EINVAL);
    CHECK_ERRNO(lay(0, &allow, BPF_MAXINSNS + 1), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_SECCOMP, 7, 0, 0, 0), EINVAL);
    CHECK_EQ(prctl(PR_GET_SECCOMP), 0);
    /* No return at the end. */
    f[0] = (struct sock_filter)LD_NR;
    CHECK_ERRNO(lay(0, f, 1), EINVAL);
    /* Out of the data, and across. */
    f[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, sizeof(struct seccomp_data));
    f[1] = allow;
    CHECK_ERRNO(lay(0, f, 2), EINVAL);
    f[0].k = 2;
    CHECK_ERRNO(lay(0, f, 2), EINVAL);
    f[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0);
    CHECK_ERRNO(lay(0, f, 2), EINVAL);
    /* A jump out, a division by zero, a word that was never written, no such operation. */
    f[0] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1);
    CHECK_ERRNO(lay(0, f, 2), EINVAL);
    f[0] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 0xffffffff);
    CHECK_ERRNO(lay(0, f, 2), EINVAL);
    f[0] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0);
    CHECK_ERRNO(lay(0, f, 2), EINVAL);
    f[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_MEM, 3);
    CHECK_ERRNO(lay(0, f, 2), EINVAL);
    f[0] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3);
    CHECK_ERRNO(lay(0, f, 2), EINVAL);
    f[0] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32);
    CHECK_ERRNO(lay(0, f, 2), EINVAL);
    CHECK_EQ(status_field("Seccomp:"), 0);
}

TEST(needs_no_new_privs)
{
    NEED_ROOT();
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(1234);
        CHECK_ERRNO(LAY(0, RET(SECCOMP_RET_ALLOW)), EACCES);
        no_new_privs();
        OK(LAY(0, RET(SECCOMP_RET_ALLOW)));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(actions_known)
{
    static const unsigned known[] = {
        SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO,
        SECCOMP_RET_USER_NOTIF,   SECCOMP_RET_TRACE,       SECCOMP_RET_LOG,  SECCOMP_RET_ALLOW};
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        unsigned a = known[i];
        OK(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &a));
    }
    unsigned odd = 0x12340000;
    CHECK_ERRNO(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &odd), EOPNOTSUPP);
    CHECK_ERRNO(seccomp(SECCOMP_GET_ACTION_AVAIL, 1, &odd), EINVAL);
    CHECK_ERRNO(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, NULL), EFAULT);
    struct seccomp_notif_sizes sizes;
    OK(seccomp(SECCOMP_GET_NOTIF_SIZES, 0, &sizes));
    CHECK_EQ(sizes.seccomp_notif, sizeof(struct seccomp_notif));
    CHECK_EQ(sizes.seccomp_notif_resp, sizeof(struct seccomp_notif_resp));
    CHECK_EQ(sizes.seccomp_data, sizeof(struct seccomp_data));
}

TEST(errno_action_and_status)
{
    no_new_privs();
    CHECK_ERRNO(probe(), EINVAL);
    OK(LAY(0, LD_NR, IF_NR(PROBE, SECCOMP_RET_ERRNO | EHOSTDOWN), RET(SECCOMP_RET_ALLOW)));
    CHECK_ERRNO(probe(), EHOSTDOWN);
    CHECK_EQ(prctl(PR_GET_SECCOMP), 2);
    CHECK_EQ(status_field("Seccomp:"), 2);
    CHECK_EQ(status_field("Seccomp_filters:"), 1);
    CHECK_EQ(status_field("NoNewPrivs:"), 1);
    /* The newest of equals; the strictest of all. */
    OK(LAY(0, LD_NR, IF_NR(PROBE, SECCOMP_RET_ERRNO | ENOLINK), RET(SECCOMP_RET_ALLOW)));
    CHECK_ERRNO(probe(), ENOLINK);
    OK(LAY(0, LD_NR, IF_NR(PROBE, SECCOMP_RET_LOG), RET(SECCOMP_RET_ALLOW)));
    CHECK_ERRNO(probe(), ENOLINK);
    CHECK_EQ(status_field("Seccomp_filters:"), 3);
    CHECK_ERRNO(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0), EINVAL);
    /* Children and programs keep them. */
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK_ERRNO(probe(), ENOLINK);
        CHECK_EQ(status_field("Seccomp_filters:"), 3);
        conf_exec_helper("probes", (const char *const[]){NULL});
    }
    CHECK_EXIT(pid, ENOLINK);
}

HELPER(probes)
{
    (void)argc;
    (void)argv;
    return probe() == -1 ? errno : 0;
}

TEST(errno_zero_and_too_big)
{
    no_new_privs();
    OK(LAY(0, LD_NR, IF_NR(PROBE, SECCOMP_RET_ERRNO), IF_NR(SYS_dup, SECCOMP_RET_ERRNO | 0xffff),
           RET(SECCOMP_RET_ALLOW)));
    CHECK_EQ(probe(), 0);
    CHECK_ERRNO(syscall(SYS_dup, 0), 4095);
}

TEST(log_action_goes_on)
{
    no_new_privs();
    OK(LAY(0, LD_NR, IF_NR(PROBE, SECCOMP_RET_LOG), RET(SECCOMP_RET_ALLOW)));
    CHECK_ERRNO(probe(), EINVAL);
}

TEST(arguments_and_arithmetic)
{
    no_new_privs();
    /* dup(x) fails with the low half of (x * 3 + 4) >> 1, through memory and X. */
    OK(LAY(0, LD_NR, BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_dup, 1, 0), RET(SECCOMP_RET_ALLOW),
           BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
           BPF_STMT(BPF_ST, 5), BPF_STMT(BPF_LDX | BPF_IMM, 3),
           BPF_STMT(BPF_ALU | BPF_MUL | BPF_X, 0), BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 4),
           BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 1), BPF_STMT(BPF_MISC | BPF_TAX, 0),
           BPF_STMT(BPF_LD | BPF_MEM, 5), BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
           BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0), BPF_STMT(BPF_MISC | BPF_TXA, 0),
           BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO), BPF_STMT(BPF_RET | BPF_A, 0)));
    CHECK_ERRNO(syscall(SYS_dup, 10), 17);
    CHECK_ERRNO(syscall(SYS_dup, 100), 152);
}

TEST(instruction_pointer_and_arch)
{
    no_new_privs();
    OK(LAY(0, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
           BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
           RET(SECCOMP_RET_KILL_PROCESS), LD_NR, IF_NR(PROBE, SECCOMP_RET_ERRNO | EXDEV),
           RET(SECCOMP_RET_ALLOW)));
    CHECK_ERRNO(probe(), EXDEV);
}

TEST(division_by_zero_kills)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        no_new_privs();
        OK(LAY(0, LD_NR, BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PROBE, 0, 2),
               BPF_STMT(BPF_LDX | BPF_IMM, 0), BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0),
               RET(SECCOMP_RET_ALLOW)));
        probe();
        _exit(0);
    }
    CHECK_KILLED(pid, SIGSYS);
}

static volatile int sys_code, sys_errno, sys_nr, sys_arch;
static void *volatile sys_addr;

static void on_sys(int sig, siginfo_t *si, void *uc)
{
    ucontext_t *u = uc;
    (void)sig;
    sys_code = si->si_code;
    sys_errno = si->si_errno;
    sys_nr = si->si_syscall;
    sys_arch = (int)si->si_arch;
    sys_addr = si->si_call_addr;
    CHECK_EQ(u->uc_mcontext.gregs[REG_RAX], PROBE);
    CHECK_EQ((void *)u->uc_mcontext.gregs[REG_RIP], si->si_call_addr);
    u->uc_mcontext.gregs[REG_RAX] = 77;
}

TEST(trap_action)
{
    no_new_privs();
    conf_sigaction(SIGSYS, on_sys, 0);
    OK(LAY(0, LD_NR, IF_NR(PROBE, SECCOMP_RET_TRAP | 42), RET(SECCOMP_RET_ALLOW)));
    CHECK_EQ(probe(), 77);
    CHECK_EQ(sys_code, 1);
    CHECK_EQ(sys_errno, 42);
    CHECK_EQ(sys_nr, PROBE);
    CHECK_EQ((unsigned)sys_arch, AUDIT_ARCH_X86_64);
}

TEST(trap_without_a_handler)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        no_new_privs();
        signal(SIGSYS, SIG_IGN);
        OK(LAY(0, LD_NR, IF_NR(PROBE, SECCOMP_RET_TRAP), RET(SECCOMP_RET_ALLOW)));
        probe();
        _exit(0);
    }
    CHECK_KILLED(pid, SIGSYS);
}

static void *probing_thread(void *arg)
{
    (void)arg;
    probe();
    return NULL;
}

static void *waiting_thread(void *arg)
{
    volatile int *word = arg;
    word[1] = (int)syscall(SYS_gettid);
    conf_await(word, 1);
    word[2] = probe() == -1 ? errno : 0;
    word[3] = (int)prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    return NULL;
}

TEST(kill_thread_and_process)
{
    for (int whole = 0; whole < 2; whole++) {
        pid_t pid = conf_fork();
        if (pid == 0) {
            pthread_t th;
            no_new_privs();
            /* A handler does not help. */
            conf_sigaction(SIGSYS, on_sys, 0);
            OK(LAY(0, LD_NR,
                   IF_NR(PROBE, whole ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_KILL_THREAD),
                   RET(SECCOMP_RET_ALLOW)));
            CHECK_EQ(pthread_create(&th, NULL, probing_thread, NULL), 0);
            CHECK_EQ(pthread_join(th, NULL), 0);
            _exit(9);
        }
        if (whole)
            CHECK_KILLED(pid, SIGSYS);
        else
            CHECK_EXIT(pid, 9);
    }
    pid_t pid = conf_fork();
    if (pid == 0) {
        no_new_privs();
        OK(LAY(0, LD_NR, IF_NR(PROBE, SECCOMP_RET_KILL_THREAD), RET(SECCOMP_RET_ALLOW)));
        probe();
        _exit(9);
    }
    CHECK_KILLED(pid, SIGSYS);
}

TEST(unknown_action_kills)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        no_new_privs();
        OK(LAY(0, LD_NR, IF_NR(PROBE, 0x00060000), RET(SECCOMP_RET_ALLOW)));
        probe();
        _exit(9);
    }
    CHECK_KILLED(pid, SIGSYS);
}

TEST(thread_sync)
{
    static volatile int word[4];
    pthread_t th;
    CHECK_EQ(pthread_create(&th, NULL, waiting_thread, (void *)(uintptr_t)word), 0);
    while (!word[1])
        conf_sleep_ms(1);
    no_new_privs();
    OK(LAY(SECCOMP_FILTER_FLAG_TSYNC, LD_NR, IF_NR(PROBE, SECCOMP_RET_ERRNO | ENOLINK),
           RET(SECCOMP_RET_ALLOW)));
    word[0] = 1;
    CHECK_EQ(pthread_join(th, NULL), 0);
    CHECK_EQ(word[2], ENOLINK);
    CHECK_EQ(word[3], 1);
}

static void *diverging_thread(void *arg)
{
    volatile int *word = arg;
    OK(LAY(0, RET(SECCOMP_RET_ALLOW)));
    word[1] = (int)syscall(SYS_gettid);
    conf_await(word, 1);
    return NULL;
}

TEST(thread_sync_of_other_filters)
{
    static volatile int word[4];
    pthread_t th;
    no_new_privs();
    CHECK_EQ(pthread_create(&th, NULL, diverging_thread, (void *)(uintptr_t)word), 0);
    while (!word[1])
        conf_sleep_ms(1);
    CHECK_EQ(LAY(SECCOMP_FILTER_FLAG_TSYNC, RET(SECCOMP_RET_ALLOW)), word[1]);
    CHECK_ERRNO(
        LAY(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, RET(SECCOMP_RET_ALLOW)),
        ESRCH);
    CHECK_EQ(status_field("Seccomp_filters:"), 0);
    word[0] = 1;
    CHECK_EQ(pthread_join(th, NULL), 0);
}

TEST(too_many_instructions)
{
    static struct sock_filter f[BPF_MAXINSNS];
    no_new_privs();
    for (size_t i = 0; i < ARRAY_SIZE(f); i++)
        f[i] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
    /* How many are counted for one of these is the kernel's affair. */
    int laid = 0;
    while (lay(0, f, ARRAY_SIZE(f)) == 0)
        laid++;
    CHECK_EQ(errno, ENOMEM);
    CHECK(laid >= 2 && laid < 9);
}

/* ---- with a tracer ---- */

TEST(trace_action_without_tracer)
{
    no_new_privs();
    OK(LAY(0, LD_NR, IF_NR(PROBE, SECCOMP_RET_TRACE | 7), RET(SECCOMP_RET_ALLOW)));
    CHECK_ERRNO(probe(), ENOSYS);
}

TEST(trace_action)
{
    int status;
    unsigned long msg = 0;
    struct user_regs_struct regs;
    pid_t pid = conf_fork();
    if (pid == 0) {
        no_new_privs();
        OK(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
        raise(SIGSTOP);
        OK(LAY(0, LD_NR, IF_NR(PROBE, SECCOMP_RET_TRACE | 7),
               IF_NR(SYS_dup2, SECCOMP_RET_ERRNO | 99), RET(SECCOMP_RET_ALLOW)));
        CHECK_EQ(probe(), 55);
        /* Changed to another call, which is looked at again. */
        CHECK_ERRNO(probe(), 99);
        CHECK_ERRNO(probe(), EINVAL);
        _exit(0);
    }
    CHECK_EQ(OK(waitpid(pid, &status, 0)), pid);
    OK(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESECCOMP));
    for (int i = 0; i < 3; i++) {
        OK(ptrace(PTRACE_CONT, pid, NULL, NULL));
        CHECK_EQ(OK(waitpid(pid, &status, 0)), pid);
        CHECK(WIFSTOPPED(status));
        CHECK_EQ(status >> 8, SIGTRAP | PTRACE_EVENT_SECCOMP << 8);
        OK(ptrace(PTRACE_GETEVENTMSG, pid, NULL, &msg));
        CHECK_EQ(msg, 7);
        OK(ptrace(PTRACE_GETREGS, pid, NULL, &regs));
        CHECK_EQ(regs.orig_rax, PROBE);
        if (i == 0) {
            regs.orig_rax = -1ul;
            regs.rax = 55;
        } else if (i == 1) {
            regs.orig_rax = SYS_dup2;
        }
        OK(ptrace(PTRACE_SETREGS, pid, NULL, &regs));
    }
    OK(ptrace(PTRACE_CONT, pid, NULL, NULL));
    CHECK_EXIT(pid, 0);
}

/* ---- listeners ---- */

/* A child that lays a filter with a listener, passes it on by pidfd_getfd, and runs. */
static int listened_child(pid_t *out_pid, int (*run)(void), unsigned flags)
{
    volatile int *shared = conf_shared(CONF_PAGE);
    *out_pid = conf_fork();
    if (*out_pid == 0) {
        no_new_privs();
        shared[1] = (int)OK(LAY(SECCOMP_FILTER_FLAG_NEW_LISTENER | flags, LD_NR,
                                IF_NR(PROBE, SECCOMP_RET_USER_NOTIF), RET(SECCOMP_RET_ALLOW)));
        shared[0] = 1;
        conf_await(&shared[0], 2);
        close(shared[1]);
        _exit(run());
    }
    conf_await(&shared[0], 1);
    int pidfd = (int)OK(syscall(SYS_pidfd_open, *out_pid, 0));
    int fd = (int)OK(syscall(SYS_pidfd_getfd, pidfd, shared[1], 0));
    OK(close(pidfd));
    shared[0] = 2;
    return fd;
}

static int run_probe_123(void)
{
    return probe() == 123 ? 0 : 1;
}

static void receive(int fd, struct seccomp_notif *n)
{
    memset(n, 0, sizeof(*n));
    OK(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, n));
}

TEST(notify_value)
{
    struct seccomp_notif n;
    struct seccomp_notif_resp resp = {0};
    pid_t pid;
    int fd = listened_child(&pid, run_probe_123, 0);
    struct pollfd p = {fd, POLLIN | POLLOUT, 0};
    CHECK_EQ(OK(poll(&p, 1, 10000)), 1);
    CHECK_EQ(p.revents, POLLIN);
    memset(&n, 1, sizeof(n));
    CHECK_ERRNO(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &n), EINVAL);
    receive(fd, &n);
    CHECK_EQ(n.pid, pid);
    CHECK_EQ(n.flags, 0);
    CHECK_EQ(n.data.nr, PROBE);
    CHECK_EQ(n.data.arch, AUDIT_ARCH_X86_64);
    CHECK_EQ(OK(poll(&p, 1, 10000)), 1);
    CHECK_EQ(p.revents, POLLOUT);
    OK(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &n.id));
    resp.id = n.id + 5;
    CHECK_ERRNO(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &resp.id), ENOENT);
    CHECK_ERRNO(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp), ENOENT);
    resp.id = n.id;
    resp.flags = 4;
    CHECK_ERRNO(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp), EINVAL);
    resp.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    resp.val = 123;
    CHECK_ERRNO(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp), EINVAL);
    resp.flags = 0;
    OK(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp));
    CHECK_EXIT(pid, 0);
    CHECK_EQ(OK(poll(&p, 1, 10000)), 1);
    CHECK_EQ(p.revents & POLLHUP, POLLHUP);
    CHECK_ERRNO(ioctl(fd, 0x1234, 0), EINVAL);
}

static int run_probe_errno(void)
{
    return probe() == -1 ? errno : 0;
}

TEST(notify_error_continue_and_gone)
{
    struct seccomp_notif n;
    struct seccomp_notif_resp resp = {0};
    pid_t pid;
    int fd = listened_child(&pid, run_probe_errno, 0);
    receive(fd, &n);
    resp.id = n.id;
    resp.error = -EMLINK;
    OK(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp));
    CHECK_EXIT(pid, EMLINK);
    OK(close(fd));

    fd = listened_child(&pid, run_probe_errno, 0);
    receive(fd, &n);
    resp = (struct seccomp_notif_resp){.id = n.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    OK(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp));
    CHECK_EXIT(pid, EINVAL);
    OK(close(fd));

    fd = listened_child(&pid, run_probe_errno, 0);
    receive(fd, &n);
    OK(close(fd));
    CHECK_EXIT(pid, ENOSYS);
}

TEST(notify_killed_while_waiting)
{
    struct seccomp_notif n;
    struct seccomp_notif_resp resp = {0};
    pid_t pid;
    int fd = listened_child(&pid, run_probe_errno, 0);
    receive(fd, &n);
    conf_kill(pid);
    CHECK_ERRNO(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &n.id), ENOENT);
    resp.id = n.id;
    CHECK_ERRNO(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp), ENOENT);
    OK(close(fd));
}

static volatile int alarms;

static void on_alarm(int sig)
{
    (void)sig;
    alarms++;
}

static int run_probe_signalled(void)
{
    conf_handler(SIGUSR1, on_alarm, 0);
    int e = probe() == -1 ? errno : 0;
    return alarms * 100 + e;
}

TEST(notify_interrupted)
{
    struct seccomp_notif n;
    pid_t pid;
    int fd = listened_child(&pid, run_probe_signalled, 0);
    receive(fd, &n);
    OK(kill(pid, SIGUSR1));
    CHECK_EXIT(pid, 100 + EINTR);
    OK(close(fd));
    /* Once received, only death. */
    struct seccomp_notif_resp resp = {.error = -EDOM};
    fd = listened_child(&pid, run_probe_signalled, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    receive(fd, &n);
    OK(kill(pid, SIGUSR1));
    conf_sleep_ms(20);
    resp.id = n.id;
    OK(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp));
    CHECK_EXIT(pid, 100 + EDOM);
}

static int run_probe_fd(void)
{
    long fd = probe();
    uint64_t v = 0;
    if (fd < 0)
        return 1;
    return read((int)fd, &v, sizeof(v)) == sizeof(v) && v == 31 && read(50, &v, sizeof(v)) == -1 &&
                   errno == EAGAIN && fcntl(50, F_GETFD) == FD_CLOEXEC
               ? 0
               : 2;
}

TEST(notify_adds_descriptors)
{
    struct seccomp_notif n;
    struct seccomp_notif_addfd add = {0};
    pid_t pid;
    int fd = listened_child(&pid, run_probe_fd, 0), ev = OK(eventfd(31, EFD_NONBLOCK));
    add.srcfd = (unsigned)ev;
    CHECK_ERRNO(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add), ENOENT);
    receive(fd, &n);
    add.id = n.id;
    add.newfd = 50;
    CHECK_ERRNO(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add), EINVAL);
    add.flags = 0x80;
    CHECK_ERRNO(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add), EINVAL);
    add.flags = SECCOMP_ADDFD_FLAG_SETFD;
    add.newfd_flags = O_CLOEXEC;
    add.srcfd = 999;
    CHECK_ERRNO(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add), EBADF);
    add.srcfd = (unsigned)ev;
    CHECK_EQ(OK(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add)), 50);
    add.flags = SECCOMP_ADDFD_FLAG_SEND;
    add.newfd = 0;
    add.newfd_flags = 0;
    CHECK(OK(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add)) > 2);
    CHECK_EXIT(pid, 0);
}

TEST(one_listener_only)
{
    no_new_privs();
    int fd = (int)OK(LAY(SECCOMP_FILTER_FLAG_NEW_LISTENER, RET(SECCOMP_RET_ALLOW)));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_ERRNO(LAY(SECCOMP_FILTER_FLAG_NEW_LISTENER, RET(SECCOMP_RET_ALLOW)), EBUSY);
    OK(close(fd));
    OK(LAY(SECCOMP_FILTER_FLAG_NEW_LISTENER, RET(SECCOMP_RET_ALLOW)));
}

TEST(notify_without_listener)
{
    no_new_privs();
    OK(LAY(0, LD_NR, IF_NR(PROBE, SECCOMP_RET_USER_NOTIF), RET(SECCOMP_RET_ALLOW)));
    CHECK_ERRNO(probe(), ENOSYS);
}
