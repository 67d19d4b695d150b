/* Namespaces: user ids and capabilities, pids, host names, IPC, files that name them, setns. */
#include "harness.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <arpa/inet.h>
#include <linux/if.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>

CONF_FAMILY("ns");

static int put(const char *path, const char *text)
{
    int n = conf_try_put(path, text);
    return n < 0 ? n : 0;
}

/* A child in new namespaces; ids are mapped to 0 by itself. */
static pid_t ns_child(unsigned long flags, bool map)
{
    unsigned uid = geteuid(), gid = getegid();
    pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid < 0)
        conf_fail(__FILE__, __LINE__, "clone 0x%lx: errno %d", flags, errno);
    if (pid == 0 && map) {
        char text[64];
        snprintf(text, sizeof(text), "0 %u 1", uid);
        CHECK_EQ(put("/proc/self/uid_map", text), 0);
        CHECK_EQ(put("/proc/self/setgroups", "deny"), 0);
        snprintf(text, sizeof(text), "0 %u 1", gid);
        CHECK_EQ(put("/proc/self/gid_map", text), 0);
    }
    return pid;
}

static ino_t ns_ino(const char *path)
{
    struct stat st;
    OK(stat(path, &st));
    return st.st_ino;
}

static uint64_t cap_effective(void)
{
    char text[2048];
    conf_get("/proc/self/status", text, sizeof(text));
    const char *p = strstr(text, "CapEff:");
    return p ? strtoull(p + 7, NULL, 16) : 0;
}

/* ---- user ---- */

TEST(user_ids_without_a_map)
{
    pid_t pid = ns_child(CLONE_NEWUSER, false);
    if (pid == 0) {
        CHECK_EQ(getuid(), 65534);
        CHECK_EQ(getgid(), 65534);
        CHECK(cap_effective() & 1ull << CAP_SYS_ADMIN);
        CHECK_ERRNO(setuid(0), EINVAL);
        CHECK_ERRNO(setgroups(0, NULL), EPERM);
        struct stat st;
        OK(stat("/proc/self", &st));
        CHECK_EQ(st.st_uid, 65534);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(user_map_by_itself)
{
    pid_t pid = ns_child(CLONE_NEWUSER, true);
    if (pid == 0) {
        char text[128];
        CHECK_EQ(getuid(), 0);
        CHECK_EQ(getgid(), 0);
        conf_get("/proc/self/uid_map", text, sizeof(text));
        unsigned in, out, count;
        CHECK_EQ(sscanf(text, "%u %u %u", &in, &out, &count), 3);
        CHECK_EQ(in, 0);
        CHECK_EQ(count, 1);
        conf_get("/proc/self/setgroups", text, sizeof(text));
        CHECK_STR(text, "deny\n");
        CHECK_EQ(put("/proc/self/setgroups", "allow"), -EPERM);
        CHECK_EQ(put("/proc/self/uid_map", "0 0 1"), -EPERM);
        CHECK_ERRNO(setuid(5), EINVAL);
        OK(setuid(0));
        CHECK_ERRNO(setgroups(0, NULL), EPERM);
        int fd = OK(open("f", O_CREAT | O_WRONLY, 0600));
        struct stat st;
        OK(fstat(fd, &st));
        CHECK_EQ(st.st_uid, 0);
        CHECK_ERRNO(fchown(fd, 5, (gid_t)-1), EINVAL);
        OK(fchown(fd, 0, 0));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(user_map_text)
{
    pid_t pid = ns_child(CLONE_NEWUSER, false);
    if (pid == 0) {
        CHECK_EQ(put("/proc/self/uid_map", "x"), -EINVAL);
        CHECK_EQ(put("/proc/self/uid_map", "0 0"), -EINVAL);
        CHECK_EQ(put("/proc/self/uid_map", "0 0 0"), -EINVAL);
        CHECK_EQ(put("/proc/self/uid_map", "0 0 1 x"), -EINVAL);
        CHECK_EQ(put("/proc/self/uid_map", "0 0 2\n1 5 1\n"), -EINVAL);
        CHECK_EQ(put("/proc/self/uid_map", "4294967295 0 1"), -EINVAL);
        CHECK_EQ(put("/proc/self/setgroups", "maybe"), -EINVAL);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

/* As many ranges as there may be, in one write of less than a page at the beginning. */
TEST(user_map_is_written_at_once)
{
    NEED_ROOT();
    static char text[2 * CONF_PAGE];
    volatile int *shared = conf_shared(CONF_PAGE);
    char path[64];

    pid_t pid = ns_child(CLONE_NEWUSER, false);
    if (pid == 0) {
        conf_await(&shared[0], 1);
        CHECK_EQ(syscall(SYS_getuid), 65534);
        OK(setresuid(678, 678, 678));
        _exit(0);
    }
    snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
    int fd = OK(open(path, O_WRONLY));
    memset(text, ' ', sizeof(text));
    memcpy(text, "0 0 1", 5);
    CHECK_ERRNO(write(fd, text, CONF_PAGE), EINVAL);
    size_t len = 0;
    for (int i = 0; i < 340; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%d %d 1\n", i * 2, 1000 + i * 2);
    CHECK(len < CONF_PAGE);
    CHECK_EQ(write(fd, text, len), len);
    CHECK_ERRNO(write(fd, "0 0 1", 5), EINVAL);
    OK(close(fd));
    CHECK_EQ(put(path, "0 0 1"), -EPERM);
    shared[0] = 1;
    CHECK_EXIT(pid, 0);
}

TEST(user_map_by_the_parent)
{
    NEED_ROOT();
    volatile int *shared = conf_shared(CONF_PAGE);
    pid_t pid = ns_child(CLONE_NEWUSER, false);
    if (pid == 0) {
        conf_await(&shared[0], 1);
        CHECK_EQ(getuid(), 100);
        OK(setgroups(0, NULL));
        OK(setresuid(3, 3, 3));
        CHECK_EQ(getuid(), 3);
        /* Root's powers went with root. */
        CHECK_EQ(cap_effective() & 1ull << CAP_SYS_ADMIN, 1ull << CAP_SYS_ADMIN);
        _exit(0);
    }
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
    CHECK_EQ(put(path, "100 0 1\n0 1000 10\n"), 0);
    snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
    CHECK_EQ(put(path, "0 0 5"), 0);
    shared[0] = 1;
    CHECK_EXIT(pid, 0);
}

TEST(capabilities_stay_inside)
{
    pid_t pid = ns_child(CLONE_NEWUSER, true);
    if (pid == 0) {
        char name[] = "x";
        /* Not over what belongs outside. */
        CHECK_ERRNO(sethostname(name, 1), EPERM);
        CHECK_ERRNO(mknod("dev", S_IFCHR | 0600, 0x103), EPERM);
        OK(unshare(CLONE_NEWUTS));
        OK(sethostname(name, 1));
        OK(prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

static long nice_of(pid_t pid)
{
    return 20 - OK(syscall(SYS_getpriority, PRIO_PROCESS, pid));
}

/* All processes of a user are those that can be seen. */
TEST(priorities_end_at_the_pid_namespace)
{
    const long before = nice_of(0);
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWPID, true);
    if (pid == 0) {
        OK(setpriority(PRIO_USER, 0, 15));
        CHECK_EQ(nice_of(0), 15);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(nice_of(0), before);
    CHECK_EQ(nice_of(getppid()), before);
}

TEST(priorities_of_others_in_the_namespace)
{
    NEED_ROOT();
    volatile int *shared = conf_shared(CONF_PAGE);
    pid_t outside = conf_fork();
    if (outside == 0) {
        conf_become(23456);
        shared[1] = 1;
        for (;;)
            pause();
    }
    conf_await(&shared[1], 1);
    pid_t pid = ns_child(CLONE_NEWUSER, false);
    if (pid == 0) {
        conf_await(&shared[0], 1);
        pid_t other = conf_fork();
        if (other == 0) {
            OK(setresuid(5, 5, 5));
            shared[0] = 2;
            for (;;)
                pause();
        }
        conf_await(&shared[0], 2);
        OK(setpriority(PRIO_PROCESS, (id_t)other, 7));
        CHECK_EQ(nice_of(other), 7);
        cpu_set_t all;
        OK(sched_getaffinity(0, sizeof(all), &all));
        OK(sched_setaffinity(other, sizeof(all), &all));
        CHECK_ERRNO(setpriority(PRIO_PROCESS, (id_t)outside, 7), EPERM);
        CHECK_ERRNO(sched_setaffinity(outside, sizeof(all), &all), EPERM);
        conf_kill(other);
        _exit(0);
    }
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
    CHECK_EQ(put(path, "0 0 1\n1 1000 10\n"), 0);
    shared[0] = 1;
    CHECK_EXIT(pid, 0);
    conf_kill(outside);
}

TEST(unshare_user)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        ino_t before = ns_ino("/proc/self/ns/user");
        OK(unshare(CLONE_NEWUSER));
        CHECK(ns_ino("/proc/self/ns/user") != before);
        CHECK_EQ(getuid(), 65534);
        OK(unshare(CLONE_NEWUTS | CLONE_NEWIPC));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(user_needs_a_mapped_creator)
{
    pid_t pid = ns_child(CLONE_NEWUSER, false);
    if (pid == 0) {
        CHECK_ERRNO(unshare(CLONE_NEWUSER), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(flags_that_do_not_go_together)
{
    CHECK_ERRNO(unshare(0x1), EINVAL);
    CHECK_ERRNO(syscall(SYS_clone, CLONE_NEWUSER | CLONE_FS | SIGCHLD, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_clone, CLONE_NEWNS | CLONE_FS | SIGCHLD, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(
        syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWIPC | CLONE_SYSVSEM | SIGCHLD, 0, 0, 0, 0),
        EINVAL);
    CHECK_ERRNO(syscall(SYS_clone, CLONE_NEWPID | CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | SIGCHLD,
                        0, 0, 0, 0),
                EINVAL);
}

TEST(nobody_may_without_rights)
{
    NEED_ROOT();
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(1234);
        CHECK_ERRNO(unshare(CLONE_NEWUTS), EPERM);
        CHECK_ERRNO(unshare(CLONE_NEWPID), EPERM);
        CHECK_ERRNO(unshare(CLONE_NEWNS), EPERM);
        CHECK_ERRNO(syscall(SYS_clone, CLONE_NEWIPC | SIGCHLD, 0, 0, 0, 0), EPERM);
        CHECK_ERRNO(syscall(SYS_clone, CLONE_NEWIPC | CLONE_SYSVSEM | SIGCHLD, 0, 0, 0, 0), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

/* ---- pid ---- */

TEST(pid_numbers)
{
    volatile int *shared = conf_shared(CONF_PAGE);
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWPID, true);
    if (pid == 0) {
        int status;
        CHECK_EQ(getpid(), 1);
        CHECK_EQ(syscall(SYS_gettid), 1);
        CHECK_EQ(getppid(), 0);
        pid_t child = fork();
        if (child == 0) {
            CHECK_EQ(getpid(), 2);
            CHECK_EQ(getppid(), 1);
            CHECK_EQ(getpgrp(), 0);
            OK(setsid());
            CHECK_EQ(getsid(0), 2);
            CHECK_EQ(getpgid(0), 2);
            shared[0] = 1;
            _exit(7);
        }
        CHECK_EQ(child, 2);
        CHECK_EQ(waitpid(child, &status, 0), 2);
        CHECK_EQ(WEXITSTATUS(status), 7);
        CHECK_ERRNO(kill(9999, 0), ESRCH);
        _exit(5);
    }
    CHECK(pid > 1);
    CHECK_EXIT(pid, 5);
    CHECK_EQ(shared[0], 1);
}

static volatile int got_pid, got_code;

static void on_usr1(int sig, siginfo_t *si, void *uc)
{
    (void)sig;
    (void)uc;
    got_pid = si->si_pid + 1000;
    got_code = si->si_code;
}

TEST(pid_init_is_shielded)
{
    volatile int *shared = conf_shared(CONF_PAGE);
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWPID, true);
    if (pid == 0) {
        conf_sigaction(SIGUSR1, on_usr1, 0);
        pid_t child = fork();
        if (child == 0) {
            /* Neither death nor what has no handler reaches it from inside. */
            OK(kill(1, SIGTERM));
            OK(kill(1, SIGKILL));
            OK(kill(1, SIGSTOP));
            OK(kill(1, SIGUSR1));
            _exit(0);
        }
        while (!got_code && got_pid == 0)
            conf_sleep_ms(1);
        CHECK_EQ(got_pid, 1002);
        CHECK_EQ(waitpid(child, NULL, 0), child);
        got_pid = 0;
        shared[0] = 1;
        while (got_pid == 0)
            conf_sleep_ms(1);
        CHECK_EQ(got_pid, 1000);
        shared[0] = 2;
        for (;;)
            pause();
    }
    conf_await(&shared[0], 1);
    OK(kill(pid, SIGUSR1));
    conf_await(&shared[0], 2);
    OK(kill(pid, SIGTERM));
    conf_sleep_ms(10);
    CHECK_EQ(waitpid(pid, NULL, WNOHANG), 0);
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
}

TEST(pid_end_of_init_ends_all)
{
    volatile int *shared = conf_shared(CONF_PAGE);
    int fds[2];
    OK(pipe(fds));
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWPID, true);
    if (pid == 0) {
        close(fds[0]);
        for (int i = 0; i < 3; i++) {
            if (fork() == 0) {
                if (i == 1)
                    setsid();
                shared[i] = 1;
                for (;;)
                    pause();
            }
        }
        for (int i = 0; i < 3; i++)
            conf_await(&shared[i], 1);
        _exit(3);
    }
    close(fds[1]);
    CHECK_EXIT(pid, 3);
    char c;
    CHECK_EQ(read(fds[0], &c, 1), 0);
}

TEST(pid_orphans_go_to_the_namespaces_init)
{
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWPID, true);
    if (pid == 0) {
        pid_t mid = fork();
        if (mid == 0) {
            if (fork() == 0) {
                while (getppid() != 1)
                    conf_sleep_ms(1);
                _exit(9);
            }
            _exit(0);
        }
        int status, sum = 0;
        for (int i = 0; i < 2; i++) {
            CHECK(wait(&status) > 1);
            sum += WEXITSTATUS(status);
        }
        CHECK_EQ(sum, 9);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(pid_unshare_is_for_children)
{
    pid_t pid = ns_child(CLONE_NEWUSER, true);
    if (pid == 0) {
        pid_t before = getpid();
        ino_t own = ns_ino("/proc/self/ns/pid");
        OK(unshare(CLONE_NEWPID));
        CHECK_EQ(getpid(), before);
        CHECK_EQ(ns_ino("/proc/self/ns/pid"), own);
        CHECK_ERRNO(unshare(CLONE_NEWPID), EINVAL);
        CHECK_ERRNO(syscall(SYS_clone, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD, 0, 0, 0, 0),
                    EINVAL);
        pid_t child = fork();
        if (child == 0)
            _exit(getpid() == 1 ? 4 : 5);
        CHECK(child > 1);
        CHECK_EXIT(child, 4);
        /* With its init the namespace has ended. */
        CHECK_ERRNO(fork(), ENOMEM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(pid_set_tid)
{
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWPID, true);
    if (pid == 0) {
        pid_t want[2] = {77, 0};
        struct clone_args a = {
            .exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)want, .set_tid_size = 1};
        pid_t child = (pid_t)syscall(SYS_clone3, &a, sizeof(a));
        if (child == 0)
            _exit(getpid() == 77 ? 0 : 1);
        CHECK_EQ(child, 77);
        CHECK_EXIT(child, 0);
        want[0] = 1;
        CHECK_ERRNO(syscall(SYS_clone3, &a, sizeof(a)), EEXIST);
        a.set_tid_size = 33;
        CHECK_ERRNO(syscall(SYS_clone3, &a, sizeof(a)), EINVAL);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(pid_nested)
{
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWPID, true);
    if (pid == 0) {
        pid_t inner = (pid_t)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
        if (inner == 0) {
            CHECK_EQ(getpid(), 1);
            pid_t c = fork();
            if (c == 0)
                _exit(2);
            CHECK_EQ(c, 2);
            CHECK_EXIT(c, 2);
            _exit(6);
        }
        CHECK_EQ(inner, 2);
        CHECK_EXIT(inner, 6);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

/* ---- the others ---- */

TEST(uts_and_ipc_are_their_own)
{
    struct utsname u, v;
    char text[128];
    OK(uname(&u));
    int id = OK(shmget(0x4e5358, 4096, IPC_CREAT | 0600));
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWUTS | CLONE_NEWIPC, true);
    if (pid == 0) {
        OK(sethostname("inside", 6));
        OK(uname(&v));
        CHECK_STR(v.nodename, "inside");
        OK(setdomainname("within", 6));
        conf_get("/proc/sys/kernel/hostname", text, sizeof(text));
        CHECK_STR(text, "inside\n");
        conf_get("/proc/sys/kernel/domainname", text, sizeof(text));
        CHECK_STR(text, "within\n");
        CHECK_ERRNO(shmget(0x4e5358, 4096, 0600), ENOENT);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(uname(&v));
    CHECK_STR(v.nodename, u.nodename);
    OK(shmctl(id, IPC_RMID, NULL));
}

TEST(net_is_its_own)
{
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr sa = {.sa_family = AF_UNIX};
    memcpy(sa.sa_data, "\0nstest", 7);
    OK(bind(fd, &sa, 9));
    OK(listen(fd, 1));
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWNET, true);
    if (pid == 0) {
        int s = OK(socket(AF_UNIX, SOCK_STREAM, 0));
        CHECK_ERRNO(connect(s, &sa, 9), ECONNREFUSED);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    int s = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(connect(s, &sa, 9));
}

/* Rights over a network namespace are those over the user namespace it was made in. */
TEST(net_belongs_to_its_maker)
{
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWNET, true);
    if (pid == 0) {
        struct {
            struct nlmsghdr h;
            struct ifinfomsg i;
        } up = {{sizeof(up), RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0},
                {.ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP}};
        struct {
            struct nlmsghdr h;
            struct nlmsgerr e;
        } ack;
        struct ifreq r = {.ifr_name = "lo"};
        int s = OK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
        CHECK_EQ(send(s, &up, sizeof(up), 0), sizeof(up));
        CHECK(OK(recv(s, &ack, sizeof(ack), 0)) >= (ssize_t)sizeof(ack.h) + 4);
        CHECK_EQ(ack.e.error, 0);
        int d = OK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        OK(ioctl(d, SIOCGIFFLAGS, &r));
        CHECK(r.ifr_flags & IFF_UP);
        r.ifr_flags = 0;
        OK(ioctl(d, SIOCSIFFLAGS, &r));
        OK(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
        struct sockaddr_in low = {.sin_family = AF_INET, .sin_port = htons(80)};
        OK(bind(d, (struct sockaddr *)&low, sizeof(low)));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    /* Not over one that others made. */
    pid = ns_child(CLONE_NEWUSER, true);
    if (pid == 0) {
        struct ifreq r = {.ifr_name = "lo"};
        int d = OK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        CHECK_ERRNO(ioctl(d, SIOCSIFFLAGS, &r), EPERM);
        CHECK_ERRNO(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

static void send_cred(int s, const struct ucred *cr)
{
    char text = 'x', control[CMSG_SPACE(sizeof(struct ucred))] = {0};
    struct iovec iov = {&text, 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (cr != NULL) {
        m.msg_control = control;
        m.msg_controllen = sizeof(control);
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        *h = (struct cmsghdr){CMSG_LEN(sizeof(*cr)), SOL_SOCKET, SCM_CREDENTIALS};
        memcpy(CMSG_DATA(h), cr, sizeof(*cr));
    }
    CHECK_EQ(sendmsg(s, &m, 0), 1);
}

static struct ucred recv_cred(int s)
{
    char text, control[256];
    struct iovec iov = {&text, 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof(control)};
    struct ucred cr;

    CHECK_EQ(OK(recvmsg(s, &m, 0)), 1);
    const struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    CHECK(h && h->cmsg_type == SCM_CREDENTIALS);
    memcpy(&cr, CMSG_DATA(h), sizeof(cr));
    return cr;
}

static void check_cred(struct ucred cr, pid_t pid, uid_t uid)
{
    CHECK_EQ(cr.pid, pid);
    CHECK_EQ(cr.uid, uid);
}

/* Everybody sees the numbers of his own namespaces. */
TEST(credentials_are_translated)
{
    int pair[2], on = 1;
    struct ucred cr;
    socklen_t len = sizeof(cr);

    NEED_ROOT();
    OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    OK(setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
    OK(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
    const pid_t me = getpid();
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWPID, true);
    if (pid == 0) {
        CHECK_EQ(getpid(), 1);
        OK(getsockopt(pair[1], SOL_SOCKET, SO_PEERCRED, &cr, &len));
        check_cred(cr, 0, 0);
        send_cred(pair[1], NULL);
        cr = (struct ucred){1, 0, 0};
        send_cred(pair[1], &cr);
        check_cred(recv_cred(pair[1]), 0, 0);
        _exit(0);
    }
    check_cred(recv_cred(pair[0]), pid, 0);
    check_cred(recv_cred(pair[0]), pid, 0);
    send_cred(pair[0], NULL);
    CHECK_EXIT(pid, 0);
    OK(getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &cr, &len));
    check_cred(cr, me, 0);
}

TEST(locks_show_numbers_of_the_reader)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = OK(open("lock", O_RDWR | O_CREAT, 0600)), *step = conf_shared(sizeof(*step));

    OK(fcntl(fd, F_SETLK, &l));
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWPID, false);
    if (pid == 0) {
        struct flock g = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        OK(fcntl(fd, F_GETLK, &g));
        CHECK_EQ(g.l_type, F_WRLCK);
        CHECK_EQ(g.l_pid, 0);
        g = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 1};
        *step = 1;
        OK(fcntl(fd, F_SETLKW, &g));
        *step = 3;
        pause();
    }
    conf_await(step, 1);
    l.l_type = F_UNLCK;
    OK(fcntl(fd, F_SETLK, &l));
    conf_await(step, 3);
    l.l_type = F_WRLCK;
    OK(fcntl(fd, F_GETLK, &l));
    CHECK_EQ(l.l_pid, pid);
    conf_kill(pid);
}

TEST(a_pidfd_tells_all_numbers)
{
    char text[1024], want[64], path[64];
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWPID, false);

    if (pid == 0)
        for (;;)
            pause();
    int fd = (int)OK(syscall(SYS_pidfd_open, pid, 0));
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    conf_get(path, text, sizeof(text));
    snprintf(want, sizeof(want), "Pid:\t%d\nNSpid:\t%d\t1\n", pid, pid);
    CHECK(strstr(text, want) != NULL);
    conf_kill(pid);
    conf_get(path, text, sizeof(text));
    CHECK(strstr(text, "Pid:\t-1\nNSpid:\t-1\n") != NULL);
}

TEST(files_name_namespaces)
{
    static const char *const names[] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};
    char path[64], text[64], want[64];
    dev_t dev = 0;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct stat st;
        snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
        ssize_t n = OK(readlink(path, text, sizeof(text) - 1));
        text[n] = 0;
        OK(stat(path, &st));
        snprintf(want, sizeof(want), "%s:[%lu]", names[i], st.st_ino);
        CHECK_STR(text, want);
        CHECK(S_ISREG(st.st_mode));
        CHECK(dev == 0 || dev == st.st_dev);
        dev = st.st_dev;
    }
    int fd = OK(open("/proc/self/ns/uts", O_RDONLY));
    CHECK_EQ(OK(ioctl(fd, NS_GET_NSTYPE)), CLONE_NEWUTS);
    CHECK_ERRNO(ioctl(fd, NS_GET_PARENT), EINVAL);
    CHECK_ERRNO(ioctl(fd, 0x1234), ENOTTY);
    uid_t uid;
    CHECK_ERRNO(ioctl(fd, NS_GET_OWNER_UID, &uid), EINVAL);
    CHECK_EQ(ns_ino("/proc/self/ns/pid"), ns_ino("/proc/self/ns/pid_for_children"));
}

TEST(ioctls_of_a_namespaces_file)
{
    ino_t outer = ns_ino("/proc/self/ns/user");
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWUTS, true);
    if (pid == 0) {
        struct stat st;
        uid_t uid = 9;
        int fd = OK(open("/proc/self/ns/uts", O_RDONLY));
        int user = OK(ioctl(fd, NS_GET_USERNS));
        OK(fstat(user, &st));
        CHECK_EQ(st.st_ino, ns_ino("/proc/self/ns/user"));
        CHECK(st.st_ino != outer);
        CHECK_EQ(OK(ioctl(user, NS_GET_NSTYPE)), CLONE_NEWUSER);
        OK(ioctl(user, NS_GET_OWNER_UID, &uid));
        CHECK_EQ(uid, 0);
        /* What is above is out of sight. */
        CHECK_ERRNO(ioctl(user, NS_GET_PARENT), EPERM);
        int pfd = OK(open("/proc/self/ns/pid", O_RDONLY));
        CHECK_ERRNO(ioctl(pfd, NS_GET_PARENT), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(setns_back_and_forth)
{
    pid_t pid = ns_child(CLONE_NEWUSER, true);
    if (pid == 0) {
        struct utsname u;
        OK(unshare(CLONE_NEWUTS));
        OK(sethostname("first", 5));
        int fd = OK(open("/proc/self/ns/uts", O_RDONLY));
        OK(unshare(CLONE_NEWUTS));
        OK(sethostname("second", 6));
        CHECK_ERRNO(setns(fd, CLONE_NEWIPC), EINVAL);
        OK(setns(fd, CLONE_NEWUTS));
        OK(uname(&u));
        CHECK_STR(u.nodename, "first");
        int user = OK(open("/proc/self/ns/user", O_RDONLY));
        CHECK_ERRNO(setns(user, 0), EINVAL);
        CHECK_ERRNO(setns(999, 0), EBADF);
        int null = OK(open("/dev/null", O_RDONLY));
        CHECK_ERRNO(setns(null, 0), EINVAL);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(setns_by_pidfd)
{
    volatile int *shared = conf_shared(CONF_PAGE);
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWUTS, true);
    if (pid == 0) {
        OK(sethostname("there", 5));
        shared[0] = 1;
        conf_await(&shared[0], 2);
        _exit(0);
    }
    conf_await(&shared[0], 1);
    pid_t other = conf_fork();
    if (other == 0) {
        struct utsname u;
        int fd = (int)OK(syscall(SYS_pidfd_open, pid, 0));
        CHECK_ERRNO(setns(fd, 0), EINVAL);
        OK(setns(fd, CLONE_NEWUSER | CLONE_NEWUTS));
        OK(uname(&u));
        CHECK_STR(u.nodename, "there");
        CHECK_EQ(getuid(), 0);
        _exit(0);
    }
    CHECK_EXIT(other, 0);
    shared[0] = 2;
    CHECK_EXIT(pid, 0);
}

TEST(setns_pid_is_for_children)
{
    volatile int *shared = conf_shared(CONF_PAGE);
    pid_t pid = ns_child(CLONE_NEWUSER, true);
    if (pid == 0) {
        pid_t init = (pid_t)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
        if (init == 0) {
            shared[0] = 1;
            for (;;)
                pause();
        }
        conf_await(&shared[0], 1);
        int fd = (int)OK(syscall(SYS_pidfd_open, init, 0));
        OK(setns(fd, CLONE_NEWPID));
        pid_t c = fork();
        if (c == 0)
            _exit(getpid() == 2 && getppid() == 0 ? 8 : 1);
        CHECK_EXIT(c, 8);
        OK(kill(init, SIGKILL));
        CHECK_KILLED(init, SIGKILL);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

/* ---- mounts ---- */

TEST(mount_is_its_own)
{
    OK(mkdir("m", 0755));
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWNS, true);
    if (pid == 0) {
        OK(mount("tmpfs", "m", "tmpfs", 0, NULL));
        conf_put("m/f", "x");
        CHECK(conf_exists("m/f"));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK(!conf_exists("m/f"));
}

TEST(mount_needs_rights_over_the_namespace)
{
    OK(mkdir("m", 0755));
    pid_t pid = ns_child(CLONE_NEWUSER, true);
    if (pid == 0) {
        CHECK_ERRNO(mount("tmpfs", "m", "tmpfs", 0, NULL), EPERM);
        OK(unshare(CLONE_NEWNS));
        OK(mount("tmpfs", "m", "tmpfs", 0, NULL));
        OK(umount("m"));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(proc_shows_its_namespace)
{
    OK(mkdir("p", 0755));
    pid_t pid = ns_child(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID, true);
    if (pid == 0) {
        char text[2048];
        OK(mount("proc", "p", "proc", 0, NULL));
        ssize_t n = OK(readlink("p/self", text, sizeof(text) - 1));
        text[n] = 0;
        CHECK_STR(text, "1");
        CHECK(conf_exists("p/1"));
        CHECK(!conf_exists("p/2"));
        pid_t c = fork();
        if (c == 0) {
            conf_get("p/self/status", text, sizeof(text));
            CHECK(strstr(text, "\nPid:\t2\n") != NULL);
            CHECK(strstr(text, "\nPPid:\t1\n") != NULL);
            CHECK(strstr(text, "\nNSpid:\t2\n") != NULL);
            _exit(0);
        }
        CHECK_EXIT(c, 0);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}
