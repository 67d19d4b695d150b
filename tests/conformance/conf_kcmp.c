/* kcmp(2): what two processes share. */
#define _GNU_SOURCE
#include <linux/kcmp.h>
#include <sched.h>
#include <sys/epoll.h>

#include "harness.h"

CONF_FAMILY("kcmp");

static long kcmp(pid_t a, pid_t b, int type, unsigned long x, unsigned long y)
{
    return syscall(SYS_kcmp, a, b, type, x, y);
}

static pid_t sleeper(unsigned long flags)
{
    const pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);

    CHECK(pid >= 0);
    if (pid == 0)
        for (;;)
            pause();
    return pid;
}

static bool same(pid_t pid, int type)
{
    return OK(kcmp(getpid(), pid, type, 0, 0)) == 0;
}

TEST(itself)
{
    for (int type = KCMP_VM; type <= KCMP_SYSVSEM; type++)
        CHECK(same(getpid(), type));
    int fd = OK(dup(0));
    CHECK_EQ(kcmp(getpid(), getpid(), KCMP_FILE, 0, (unsigned long)fd), 0);
}

TEST(order_of_files)
{
    int a = OK(open(".", O_RDONLY)), b = OK(open(".", O_RDONLY)), c = OK(open(".", O_RDONLY));
    const pid_t me = getpid();
    long ab = kcmp(me, me, KCMP_FILE, (unsigned long)a, (unsigned long)b);

    CHECK(ab == 1 || ab == 2);
    CHECK_EQ(kcmp(me, me, KCMP_FILE, (unsigned long)b, (unsigned long)a), 3 - ab);
    long bc = kcmp(me, me, KCMP_FILE, (unsigned long)b, (unsigned long)c);
    if (ab == bc)
        CHECK_EQ(kcmp(me, me, KCMP_FILE, (unsigned long)a, (unsigned long)c), ab);
    CHECK_ERRNO(kcmp(me, me, KCMP_FILE, 999, 0), EBADF);
    CHECK_ERRNO(kcmp(me, me, KCMP_FILE, 0, 999), EBADF);
    CHECK_ERRNO(kcmp(me, me, KCMP_FILE, (unsigned long)-1, 0), EBADF);
}

TEST(what_clone_shares)
{
    pid_t plain = sleeper(0), files = sleeper(CLONE_FILES), fs = sleeper(CLONE_FS),
          sem = sleeper(CLONE_SYSVSEM);

    CHECK(!same(plain, KCMP_VM) && !same(plain, KCMP_FILES) && !same(plain, KCMP_FS) &&
          !same(plain, KCMP_SIGHAND));
    CHECK_EQ(kcmp(getpid(), plain, KCMP_FILE, 0, 0), 0);
    CHECK(same(files, KCMP_FILES) && !same(files, KCMP_FS));
    CHECK(same(fs, KCMP_FS) && !same(fs, KCMP_FILES));
    CHECK(same(sem, KCMP_SYSVSEM) && !same(plain, KCMP_SYSVSEM));
    conf_kill(plain);
    conf_kill(files);
    conf_kill(fs);
    conf_kill(sem);
}

static NORETURN int pause_for_good(void *arg)
{
    (void)arg;
    for (;;)
        pause();
}

TEST(shared_memory_and_handlers)
{
    static char stack[65536] __attribute__((aligned(16)));
    const pid_t pid =
        OK(clone(pause_for_good, stack + sizeof(stack), CLONE_VM | CLONE_SIGHAND | SIGCHLD, NULL));

    CHECK(same(pid, KCMP_VM) && same(pid, KCMP_SIGHAND) && !same(pid, KCMP_FILES));
    conf_kill(pid);
}

TEST(io_contexts)
{
    /* Best effort, 6. */
    OK(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6));
    pid_t own = sleeper(0), shared = sleeper(CLONE_IO);

    CHECK(!same(own, KCMP_IO));
    CHECK(same(shared, KCMP_IO));
    CHECK_EQ(syscall(SYS_ioprio_get, 1, own), 2 << 13 | 6);
    OK(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 7));
    CHECK_EQ(syscall(SYS_ioprio_get, 1, own), 2 << 13 | 6);
    CHECK_EQ(syscall(SYS_ioprio_get, 1, shared), 2 << 13 | 7);
    conf_kill(own);
    conf_kill(shared);
}

TEST(epoll_targets)
{
    int pipes[2], ep = OK(epoll_create1(0));
    struct epoll_event ev = {.events = EPOLLIN};
    const pid_t me = getpid();

    OK(pipe(pipes));
    int copy = OK(dup(pipes[0]));
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, copy, &ev));
    struct kcmp_epoll_slot slot = {(uint32_t)ep, (uint32_t)copy, 0};
    const unsigned long at = (unsigned long)&slot;
    CHECK_EQ(kcmp(me, me, KCMP_EPOLL_TFD, (unsigned long)pipes[0], at), 0);
    CHECK(OK(kcmp(me, me, KCMP_EPOLL_TFD, (unsigned long)pipes[1], at)) != 0);
    /* The number alone, used for two files. */
    OK(dup2(pipes[1], copy));
    ev.events = EPOLLOUT;
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, copy, &ev));
    slot.toff = 1;
    const long second = OK(kcmp(me, me, KCMP_EPOLL_TFD, (unsigned long)pipes[0], at));
    slot.toff = 0;
    const long first = OK(kcmp(me, me, KCMP_EPOLL_TFD, (unsigned long)pipes[0], at));
    CHECK((first == 0) != (second == 0));
    slot.toff = 2;
    CHECK_ERRNO(kcmp(me, me, KCMP_EPOLL_TFD, (unsigned long)pipes[0], at), ENOENT);
    slot = (struct kcmp_epoll_slot){(uint32_t)pipes[0], (uint32_t)copy, 0};
    CHECK_ERRNO(kcmp(me, me, KCMP_EPOLL_TFD, (unsigned long)pipes[0], at), EINVAL);
    slot.efd = 999;
    CHECK_ERRNO(kcmp(me, me, KCMP_EPOLL_TFD, (unsigned long)pipes[0], at), EBADF);
    CHECK_ERRNO(kcmp(me, me, KCMP_EPOLL_TFD, (unsigned long)pipes[0], 8), EFAULT);
}

TEST(who_may)
{
    const pid_t me = getpid();

    CHECK_ERRNO(kcmp(me, 0x3ffffff, KCMP_VM, 0, 0), ESRCH);
    CHECK_ERRNO(kcmp(0x3ffffff, me, KCMP_VM, 0, 0), ESRCH);
    CHECK_ERRNO(kcmp(me, me, KCMP_TYPES, 0, 0), EINVAL);
    CHECK_ERRNO(kcmp(me, me, -1, 0, 0), EINVAL);
    NEED_ROOT();
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(54321);
        CHECK_ERRNO(kcmp(getpid(), me, KCMP_VM, 0, 0), EPERM);
        CHECK_ERRNO(kcmp(getpid(), me, KCMP_TYPES, 0, 0), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}
