/* fork, vfork, exec, exit, wait, sessions and process groups. */
#include "harness.h"

#include <elf.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>

CONF_FAMILY("process");

TEST(fork_returns_twice)
{
    int *shared = conf_shared(CONF_PAGE);
    pid_t parent = getpid();
    pid_t pid = conf_fork();
    if (pid == 0) {
        shared[0] = getppid();
        shared[1] = getpid();
        _exit(7);
    }
    CHECK(pid > 0);
    CHECK_EXIT(pid, 7);
    CHECK_EQ(shared[0], parent);
    CHECK_EQ(shared[1], pid);
}

TEST(fork_copies_memory)
{
    static volatile int value = 1;
    volatile int on_stack = 2;
    pid_t pid = conf_fork();
    if (pid == 0) {
        value = 10;
        on_stack = 20;
        _exit(value + on_stack == 30 ? 0 : 1);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(value, 1);
    CHECK_EQ(on_stack, 2);
}

TEST(fork_shares_file_offset)
{
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    CHECK_EQ(write(fd, "abcdef", 6), 6);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(lseek(fd, 2, SEEK_SET));
        OK(close(fd));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    char c = 0;
    CHECK_EQ(read(fd, &c, 1), 1);
    CHECK_EQ(c, 'c');
}

TEST(many_forks)
{
    for (int i = 0; i < 100; i++) {
        pid_t pid = conf_fork();
        if (pid == 0)
            _exit(i);
        CHECK_EXIT(pid, i);
    }
}

TEST(forks_at_once)
{
    enum { COUNT = 50 };
    int sum = 0;
    for (int i = 0; i < COUNT; i++) {
        if (conf_fork() == 0)
            _exit(i);
    }
    for (int i = 0; i < COUNT; i++) {
        int status;
        OK(wait(&status));
        CHECK(WIFEXITED(status));
        sum += WEXITSTATUS(status);
    }
    CHECK_EQ(sum, COUNT * (COUNT - 1) / 2);
    CHECK_ERRNO(wait(NULL), ECHILD);
}

TEST(vfork_shares_memory_and_waits)
{
    static volatile int seen;
    pid_t pid = vfork();
    if (pid == 0) {
        seen = 42;
        _exit(3);
    }
    CHECK_EQ(seen, 42);
    CHECK_EXIT(pid, 3);
}

HELPER(exit_with)
{
    return argc > 1 ? atoi(argv[1]) : 0;
}

TEST(vfork_exec)
{
    const char *argv[] = {conf_self(), "--helper", "exit_with", "9", NULL};
    for (int i = 0; i < 10; i++) {
        pid_t pid = vfork();
        if (pid == 0) {
            execve(conf_self(), (char *const *)(uintptr_t)argv, environ);
            _exit(127);
        }
        CHECK_EXIT(pid, 9);
    }
}

TEST(wait4_status_and_rusage)
{
    struct rusage ru;
    int status;
    memset(&ru, 0xff, sizeof(ru));
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(300);
    CHECK_EQ(wait4(pid, &status, 0, &ru), pid);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 300 & 0xff);
    CHECK(ru.ru_utime.tv_usec >= 0 && ru.ru_utime.tv_usec < 1000000);
    CHECK_ERRNO(wait4(pid, &status, 0, NULL), ECHILD);
}

TEST(wait4_nohang_and_bad_arguments)
{
    int status = 55;
    int pipefd[2];
    OK(pipe(pipefd));
    pid_t pid = conf_fork();
    if (pid == 0) {
        char c;
        OK(close(pipefd[1]));
        CHECK_EQ(read(pipefd[0], &c, 1), 0);
        _exit(0);
    }
    CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
    CHECK_EQ(status, 55);
    CHECK_ERRNO(waitpid(pid, &status, 0x40), EINVAL);
    CHECK_ERRNO(waitpid(getpid(), NULL, 0), ECHILD);
    CHECK_ERRNO(waitpid(1 << 22, NULL, 0), ECHILD);
    CHECK_ERRNO(syscall(SYS_wait4, INT_MIN, NULL, 0, NULL), ESRCH);
    OK(close(pipefd[1]));
    CHECK_EXIT(pid, 0);
}

TEST(wait4_bad_status_pointer)
{
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(0);
    CHECK_ERRNO(syscall(SYS_wait4, pid, 8L, 0, NULL), EFAULT);
    CHECK_ERRNO(waitpid(pid, NULL, WNOHANG), ECHILD);
}

TEST(wait_by_process_group)
{
    pid_t group = conf_fork();
    if (group == 0) {
        OK(setpgid(0, 0));
        raise(SIGSTOP);
        _exit(1);
    }
    int status;
    CHECK_EQ(waitpid(group, &status, WUNTRACED), group);
    pid_t other = conf_fork();
    if (other == 0)
        _exit(2);
    pid_t member = conf_fork();
    if (member == 0) {
        OK(setpgid(0, group));
        _exit(3);
    }
    /* 0 means the caller's group; only `other` is surely in it by the time it ends. */
    CHECK_EXIT(other, 2);
    siginfo_t si;
    OK(waitid(P_PID, (id_t)member, &si, WEXITED | WNOWAIT));
    CHECK_EQ(waitpid(-group, &status, 0), member);
    CHECK_EQ(WEXITSTATUS(status), 3);
    OK(kill(group, SIGCONT));
    CHECK_EQ(waitpid(-group, &status, 0), group);
    CHECK_ERRNO(waitpid(-group, &status, 0), ECHILD);
}

TEST(waitid_siginfo)
{
    siginfo_t si;
    memset(&si, 0xff, sizeof(si));
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(33);
    OK(waitid(P_PID, (id_t)pid, &si, WEXITED));
    CHECK_EQ(si.si_signo, SIGCHLD);
    CHECK_EQ(si.si_code, CLD_EXITED);
    CHECK_EQ(si.si_pid, pid);
    CHECK_EQ(si.si_status, 33);
    CHECK_EQ(si.si_uid, getuid());

    pid = conf_fork();
    if (pid == 0) {
        raise(SIGKILL);
        _exit(0);
    }
    OK(waitid(P_ALL, 0, &si, WEXITED));
    CHECK_EQ(si.si_code, CLD_KILLED);
    CHECK_EQ(si.si_status, SIGKILL);
    CHECK_EQ(si.si_pid, pid);
}

TEST(waitid_options)
{
    siginfo_t si;
    pid_t pid = conf_fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    memset(&si, 0xff, sizeof(si));
    OK(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG));
    CHECK_EQ(si.si_pid, 0);
    CHECK_ERRNO(waitid(P_PID, (id_t)pid, &si, 0), EINVAL);
    CHECK_ERRNO(waitid(P_PID, (id_t)pid, &si, WNOHANG), EINVAL);
    CHECK_ERRNO(waitid((idtype_t)77, 0, &si, WEXITED), EINVAL);
    OK(kill(pid, SIGKILL));
    OK(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOWAIT));
    CHECK_EQ(si.si_pid, pid);
    CHECK_KILLED(pid, SIGKILL);
    CHECK_ERRNO(waitid(P_PID, (id_t)pid, &si, WEXITED), ECHILD);
}

/* Who ended will not stop nor go on: nobody waits for that. */
TEST(waitid_stop_of_a_zombie)
{
    static const int options[] = {WSTOPPED, WCONTINUED, WSTOPPED | WCONTINUED, WSTOPPED | WNOHANG};
    siginfo_t si;

    for (int traced = 0; traced < 2; traced++) {
        pid_t pid = conf_fork();
        if (pid == 0) {
            if (traced)
                OK(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
            _exit(5);
        }
        OK(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOWAIT));
        for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
            CHECK_ERRNO(waitid(P_PID, (id_t)pid, &si, options[i]), ECHILD);
            CHECK_ERRNO(waitid(P_ALL, 0, &si, options[i]), ECHILD);
        }
        CHECK_EXIT(pid, 5);
    }
}

TEST(waitid_pidfd)
{
    siginfo_t si;
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(4);
    int fd = OK((int)syscall(SYS_pidfd_open, pid, 0));
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    OK(waitid(P_PIDFD, (id_t)fd, &si, WEXITED));
    CHECK_EQ(si.si_pid, pid);
    CHECK_EQ(si.si_status, 4);
    CHECK_ERRNO(syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0), ESRCH);
}

static void *exit_the_group(void *arg)
{
    (void)arg;
    syscall(SYS_exit_group, 21);
    return NULL;
}

TEST(exit_group_ends_all_threads)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, exit_the_group, NULL), 0);
        for (;;)
            pause();
    }
    CHECK_EXIT(pid, 21);
}

static void *outlive_leader(void *arg)
{
    (void)arg;
    /* The leader does nothing but end. */
    conf_await_asleep(getpid());
    _exit(22);
}

TEST(leader_exit_leaves_threads)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, outlive_leader, NULL), 0);
        syscall(SYS_exit, 1);
    }
    CHECK_EXIT(pid, 22);
}

HELPER(show_environment)
{
    extern char **environ;
    CHECK_EQ(argc, 4);
    CHECK_STR(argv[1], "one");
    CHECK_STR(argv[2], "");
    CHECK_STR(argv[3], "three words here");
    CHECK_STR(environ[0], "A=1");
    CHECK_STR(environ[1], "B=");
    CHECK(environ[2] == NULL);
    return 12;
}

TEST(exec_argv_and_environment)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        const char *argv[] = {conf_self(),        "--helper", "show_environment", "one", "",
                              "three words here", NULL};
        const char *env[] = {"A=1", "B=", NULL};
        execve(conf_self(), (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
        conf_fail(__FILE__, __LINE__, "execve came back: %d", errno);
    }
    CHECK_EXIT(pid, 12);
}

HELPER(check_auxv)
{
    (void)argc;
    const Elf64_Ehdr *eh = NULL;
    const Elf64_Phdr *ph = (const Elf64_Phdr *)getauxval(AT_PHDR);
    CHECK(ph != NULL);
    CHECK(getauxval(AT_PHNUM) > 0 && getauxval(AT_PHNUM) < 64);
    CHECK_EQ(getauxval(AT_PHENT), sizeof(Elf64_Phdr));
    CHECK_EQ(getauxval(AT_PAGESZ), CONF_PAGE);
    CHECK_EQ(getauxval(AT_CLKTCK), 100);
    CHECK_EQ(getauxval(AT_UID), getuid());
    CHECK_EQ(getauxval(AT_EUID), geteuid());
    CHECK_EQ(getauxval(AT_GID), getgid());
    CHECK_EQ(getauxval(AT_EGID), getegid());
    CHECK_EQ(getauxval(AT_SECURE), 0);
    CHECK_STR((const char *)getauxval(AT_EXECFN), argv[1]);
    CHECK_STR((const char *)getauxval(AT_PLATFORM), "x86_64");
    CHECK(getauxval(AT_HWCAP) != 0);
    CHECK(getauxval(AT_ENTRY) != 0);
    eh = (const Elf64_Ehdr *)getauxval(AT_SYSINFO_EHDR);
    CHECK(eh != NULL && memcmp(eh->e_ident, ELFMAG, SELFMAG) == 0);
    const unsigned char *rnd = (const unsigned char *)getauxval(AT_RANDOM);
    CHECK(rnd != NULL);
    unsigned int bits = 0;
    for (int i = 0; i < 16; i++)
        bits |= rnd[i];
    CHECK(bits != 0);
    return 0;
}

TEST(exec_auxv)
{
    const char *args[] = {conf_self(), NULL};
    pid_t pid = conf_fork();
    if (pid == 0)
        conf_exec_helper("check_auxv", args);
    CHECK_EXIT(pid, 0);
}

HELPER(check_stack)
{
    (void)argv;
    unsigned long sp = (unsigned long)__builtin_frame_address(0);
    CHECK_EQ(sp % 16, 0);
    CHECK(argc == 1);
    return 0;
}

TEST(exec_aligned_stack)
{
    pid_t pid = conf_fork();
    if (pid == 0)
        conf_exec_helper("check_stack", NULL);
    CHECK_EXIT(pid, 0);
}

HELPER(check_fds)
{
    CHECK_EQ(argc, 3);
    OK(fcntl(atoi(argv[1]), F_GETFD));
    CHECK_ERRNO(fcntl(atoi(argv[2]), F_GETFD), EBADF);
    return 0;
}

TEST(exec_closes_cloexec)
{
    char keep[16], gone[16];
    const char *args[] = {keep, gone, NULL};
    snprintf(keep, sizeof(keep), "%d", OK(open(".", O_RDONLY)));
    snprintf(gone, sizeof(gone), "%d", OK(open(".", O_RDONLY | O_CLOEXEC)));
    pid_t pid = conf_fork();
    if (pid == 0)
        conf_exec_helper("check_fds", args);
    CHECK_EXIT(pid, 0);
}

static void ignore_signal(int sig)
{
    (void)sig;
}

HELPER(check_signals)
{
    struct sigaction sa;
    sigset_t set;
    (void)argc;
    (void)argv;
    OK(sigaction(SIGUSR1, NULL, &sa));
    CHECK(sa.sa_handler == SIG_DFL);
    OK(sigaction(SIGUSR2, NULL, &sa));
    CHECK(sa.sa_handler == SIG_IGN);
    OK(sigprocmask(SIG_BLOCK, NULL, &set));
    CHECK(sigismember(&set, SIGTERM) == 1);
    CHECK(sigismember(&set, SIGINT) == 0);
    OK(sigpending(&set));
    CHECK(sigismember(&set, SIGTERM) == 1);
    return 0;
}

TEST(exec_signal_state)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        OK(sigprocmask(SIG_BLOCK, &set, NULL));
        conf_handler(SIGUSR1, ignore_signal, 0);
        conf_handler(SIGUSR2, SIG_IGN, 0);
        raise(SIGTERM);
        conf_exec_helper("check_signals", NULL);
    }
    CHECK_EXIT(pid, 0);
}

HELPER(print_pid_ids)
{
    CHECK_EQ(argc, 4);
    CHECK_EQ(getpid(), atoi(argv[1]));
    CHECK_EQ(getpgrp(), atoi(argv[2]));
    CHECK_EQ(getsid(0), atoi(argv[3]));
    CHECK_EQ(syscall(SYS_gettid), getpid());
    return 0;
}

static void *exec_from_thread(void *arg)
{
    conf_exec_helper("print_pid_ids", arg);
}

TEST(exec_from_thread_takes_leader_id)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        char p[16], g[16], s[16];
        const char *args[] = {p, g, s, NULL};
        pthread_t t;
        snprintf(p, sizeof(p), "%d", getpid());
        snprintf(g, sizeof(g), "%d", getpgrp());
        snprintf(s, sizeof(s), "%d", getsid(0));
        CHECK_EQ(pthread_create(&t, NULL, exec_from_thread, args), 0);
        for (;;)
            pause();
    }
    CHECK_EXIT(pid, 0);
}

TEST(exec_errors)
{
    char *argv[] = {NULL};
    volatile uintptr_t eight = 8;
    char *const *bad = (char *const *)eight;
    CHECK_ERRNO(execve("missing", argv, argv), ENOENT);
    CHECK_ERRNO(execve("", argv, argv), ENOENT);
    CHECK_ERRNO(execve(".", argv, argv), EACCES);
    conf_put("plain", "x");
    CHECK_ERRNO(execve("plain", argv, argv), EACCES);
    CHECK_ERRNO(execve("plain/x", argv, argv), ENOTDIR);
    OK(chmod("plain", 0755));
    CHECK_ERRNO(execve("plain", argv, argv), ENOEXEC);
    CHECK_ERRNO(execve(conf_self(), bad, argv), EFAULT);
    CHECK_ERRNO(execve(conf_self(), argv, bad), EFAULT);
    CHECK_ERRNO(syscall(SYS_execve, 8L, argv, argv), EFAULT);
    conf_put("short_elf", "\177ELF\2\1\1");
    OK(chmod("short_elf", 0755));
    CHECK_ERRNO(execve("short_elf", argv, argv), ENOEXEC);
}

TEST(exec_argument_limit)
{
    enum { COUNT = 64, SIZE = 128 * 1024 };
    char *big = malloc(SIZE + 1);
    char *argv[COUNT + 1];
    char *none[] = {NULL};
    CHECK(big != NULL);
    memset(big, 'a', SIZE);
    big[SIZE] = '\0';
    argv[0] = big;
    argv[1] = NULL;
    /* MAX_ARG_STRLEN, 32 pages with the NUL. */
    CHECK_ERRNO(execve(conf_self(), argv, none), E2BIG);
    big[SIZE - 1] = '\0';
    for (int i = 0; i < COUNT; i++)
        argv[i] = big;
    argv[COUNT] = NULL;
    struct rlimit rl = {8 << 20, 8 << 20};
    OK(setrlimit(RLIMIT_STACK, &rl));
    CHECK_ERRNO(execve(conf_self(), argv, none), E2BIG);
}

HELPER(count_args)
{
    size_t total = 0;
    for (int i = 1; i < argc; i++)
        total += strlen(argv[i]);
    return total == 5UL * 100000 ? 0 : 1;
}

TEST(exec_large_arguments)
{
    char *big = malloc(100001);
    CHECK(big != NULL);
    memset(big, 'b', 100000);
    big[100000] = '\0';
    const char *args[] = {big, big, big, big, big, NULL};
    pid_t pid = conf_fork();
    if (pid == 0)
        conf_exec_helper("count_args", args);
    CHECK_EXIT(pid, 0);
}

static void put_script(const char *path, const char *interp, const char *arg)
{
    char text[1200];
    snprintf(text, sizeof(text), "#! %s%s%s\nbody\n", interp, arg[0] ? " " : "", arg);
    conf_put(path, text);
    OK(chmod(path, 0755));
}

/* The kernel runs: interpreter, the rest of the line as one argument, the script's path, and the
 * arguments after argv[0]. This program is the interpreter: `--echo` prints what it got. */
TEST(script_runs_interpreter)
{
    char text[1024], want[1024];
    const char *argv[] = {"ignored", "tail", NULL};
    put_script("script", conf_self(), "--echo  two words  ");
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(dup2(OK(open("out", O_WRONLY | O_CREAT, 0600)), STDOUT_FILENO));
        execve("./script", (char *const *)(uintptr_t)argv, environ);
        _exit(127);
    }
    CHECK_EXIT(pid, 0);
    snprintf(want, sizeof(want), "%s\n--echo  two words\n./script\ntail\n", conf_self());
    conf_get("out", text, sizeof(text));
    CHECK_STR(text, want);
}

TEST(script_chain)
{
    char text[1024], want[1024];
    const char *argv[] = {"ignored", NULL};
    put_script("inner", conf_self(), "--echo inner");
    put_script("outer", "./inner", "second");
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(dup2(OK(open("out", O_WRONLY | O_CREAT, 0600)), STDOUT_FILENO));
        execve("./outer", (char *const *)(uintptr_t)argv, environ);
        _exit(127);
    }
    CHECK_EXIT(pid, 0);
    snprintf(want, sizeof(want), "%s\n--echo inner\n./inner\nsecond\n./outer\n", conf_self());
    conf_get("out", text, sizeof(text));
    CHECK_STR(text, want);
}

TEST(script_errors)
{
    char *argv[] = {NULL};
    put_script("lost", "/no/such/interpreter", "");
    CHECK_ERRNO(execve("./lost", argv, argv), ENOENT);
    put_script("loop", "./loop", "");
    CHECK_ERRNO(execve("./loop", argv, argv), ELOOP);
    conf_put("empty", "#!\n");
    OK(chmod("empty", 0755));
    CHECK_ERRNO(execve("./empty", argv, argv), ENOEXEC);
    conf_put("plain", "x");
    put_script("denied", "./plain", "");
    CHECK_ERRNO(execve("./denied", argv, argv), EACCES);
}

TEST(execveat_fd)
{
    const char *argv[] = {conf_self(), "--helper", "exit_with", "17", NULL};
    int fd = OK(open(conf_self(), O_PATH | O_CLOEXEC));
    pid_t pid = conf_fork();
    if (pid == 0) {
        syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
        _exit(127);
    }
    CHECK_EXIT(pid, 17);
    CHECK_ERRNO(syscall(SYS_execveat, fd, "", argv, environ, 0), ENOENT);
    CHECK_ERRNO(syscall(SYS_execveat, -1, "x", argv, environ, 0), EBADF);
    OK(symlink(conf_self(), "link"));
    CHECK_ERRNO(syscall(SYS_execveat, AT_FDCWD, "link", argv, environ, AT_SYMLINK_NOFOLLOW), ELOOP);
}

TEST(ids_and_groups)
{
    CHECK_EQ(getpgrp(), getpid());
    CHECK_EQ(getpgid(0), getpid());
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK_EQ(getpgrp(), getppid());
        CHECK_EQ(getsid(0), getsid(getppid()));
        OK(setpgid(0, 0));
        CHECK_EQ(getpgrp(), getpid());
        CHECK_ERRNO(setsid(), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_ERRNO(setpgid(-1, 0), EINVAL);
    CHECK_ERRNO(setpgid(0, -1), EINVAL);
    CHECK_ERRNO(setpgid(1 << 22, 0), ESRCH);
    CHECK_ERRNO(setpgid(0, 1 << 22), EPERM);
    CHECK_ERRNO(getpgid(1 << 22), ESRCH);
    CHECK_ERRNO(getsid(1 << 22), ESRCH);
}

TEST(setsid_makes_session)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK_EQ(setsid(), getpid());
        CHECK_EQ(getsid(0), getpid());
        CHECK_EQ(getpgrp(), getpid());
        CHECK_ERRNO(setpgid(0, 0), EPERM);
        pid_t child = conf_fork();
        if (child == 0) {
            CHECK_EQ(getsid(0), getppid());
            CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
            _exit(0);
        }
        CHECK_EXIT(child, 0);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(setpgid_after_exec_is_refused)
{
    int fds[2], done[2];
    OK(pipe2(fds, 0));
    OK(pipe2(done, O_CLOEXEC));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(dup2(fds[0], 0));
        OK(close(fds[1]));
        const char *argv[] = {conf_self(), "--helper", "wait_for_eof", NULL};
        execve(conf_self(), (char *const *)(uintptr_t)argv, environ);
        _exit(127);
    }
    char c;
    OK(close(done[1]));
    CHECK_EQ(read(done[0], &c, 1), 0);
    CHECK_ERRNO(setpgid(pid, pid), EACCES);
    OK(close(fds[1]));
    CHECK_EXIT(pid, 0);
}

HELPER(wait_for_eof)
{
    char c;
    (void)argc;
    (void)argv;
    return read(0, &c, 1) == 0 ? 0 : 1;
}

TEST(orphan_goes_to_subreaper)
{
    int *shared = conf_shared(CONF_PAGE);
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t pid = conf_fork();
    if (pid == 0) {
        pid_t inner = conf_fork();
        if (inner == 0) {
            conf_await(&shared[0], 1);
            _exit(getppid() == shared[1] ? 5 : 6);
        }
        shared[2] = inner;
        _exit(0);
    }
    shared[1] = getpid();
    CHECK_EXIT(pid, 0);
    __atomic_store_n(&shared[0], 1, __ATOMIC_SEQ_CST);
    CHECK_EXIT(shared[2], 5);
}

TEST(parent_death_signal)
{
    int *shared = conf_shared(CONF_PAGE);
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t pid = conf_fork();
    if (pid == 0) {
        pid_t inner = conf_fork();
        if (inner == 0) {
            int sig = 0;
            OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
            OK(prctl(PR_GET_PDEATHSIG, &sig));
            CHECK_EQ(sig, SIGUSR1);
            __atomic_store_n(&shared[0], 1, __ATOMIC_SEQ_CST);
            for (;;)
                pause();
        }
        shared[1] = inner;
        conf_await(&shared[0], 1);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_KILLED(shared[1], SIGUSR1);
}

TEST(ignored_sigchld_reaps)
{
    conf_handler(SIGCHLD, SIG_IGN, 0);
    for (int i = 0; i < 20; i++) {
        if (conf_fork() == 0)
            _exit(0);
    }
    CHECK_ERRNO(wait(NULL), ECHILD);
}

TEST(clone_exit_signal)
{
    sigset_t set;
    siginfo_t si;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    pid_t pid = OK((pid_t)syscall(SYS_clone, SIGUSR1, 0, 0, 0, 0));
    if (pid == 0)
        _exit(2);
    CHECK_EQ(sigwaitinfo(&set, &si), SIGUSR1);
    CHECK_EQ(si.si_pid, pid);
    /* Not SIGCHLD: plain wait does not see it, __WCLONE and __WALL do. */
    CHECK_ERRNO(waitpid(pid, NULL, WNOHANG), ECHILD);
    int status;
    CHECK_EQ(waitpid(pid, &status, (int)__WCLONE), pid);
    CHECK_EQ(WEXITSTATUS(status), 2);
}

/* A number that is no signal is taken; nobody is told. */
TEST(clone_exit_signal_that_is_none)
{
    static const int numbers[] = {0, 65, 255};
    int status;

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        pid_t pid = OK((pid_t)syscall(SYS_clone, numbers[i], 0, 0, 0, 0));
        if (pid == 0)
            _exit(3);
        CHECK_ERRNO(waitpid(pid, NULL, 0), ECHILD);
        CHECK_EQ(waitpid(pid, &status, (int)__WALL), pid);
        CHECK_EQ(WEXITSTATUS(status), 3);
    }
}
