#include "runsc/sandbox/broker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runsc/sandbox/confine.h"
#include "runsc/sandbox/launch.h"
#include "sentry/net/host/broker.h"

#define SOCK_FLAGS (SOCK_CLOEXEC | SOCK_NONBLOCK)
/* Tries to find a number for a netlink socket that nobody has. */
#define PORTID_TRIES 16
#define BIND_CAP (1u << CAP_NET_BIND_SERVICE)

struct broker {
    int conn;
    bool may_bind; /* it has CAP_NET_BIND_SERVICE to raise */
};

/* ---- service; nothing here allocates or waits but for the next request ---- */

static int set_caps(uint32_t permitted, uint32_t effective)
{
    struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2];

    memset(data, 0, sizeof(data));
    data[0].permitted = permitted;
    data[0].effective = effective;
    return syscall(SYS_capset, &hdr, data) == 0 ? 0 : -errno;
}

/* What socket(2) is asked for, as the filter has it. */
static int socket_kind(const struct broker_request *q, int *out_type, int *out_protocol)
{
    const int icmp = q->family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;

    if (q->family == AF_NETLINK) {
        *out_type = SOCK_RAW;
        *out_protocol = NETLINK_ROUTE;
        if (q->type != SOCK_RAW && q->type != SOCK_DGRAM)
            return -ESOCKTNOSUPPORT;
        return q->protocol == NETLINK_ROUTE ? 0 : -EPROTONOSUPPORT;
    }
    if (q->family != AF_INET && q->family != AF_INET6)
        return -EAFNOSUPPORT;
    if (q->protocol < 0 || q->protocol >= IPPROTO_MAX)
        return -EINVAL;
    if (q->type != SOCK_STREAM && q->type != SOCK_DGRAM)
        return -ESOCKTNOSUPPORT;
    *out_type = q->type;
    *out_protocol = q->protocol;
    if (q->type == SOCK_STREAM) {
        *out_protocol = IPPROTO_TCP;
        return q->protocol == 0 || q->protocol == IPPROTO_TCP ? 0 : -EPROTONOSUPPORT;
    }
    if (q->protocol == 0)
        *out_protocol = IPPROTO_UDP;
    return *out_protocol == IPPROTO_UDP || *out_protocol == IPPROTO_UDPLITE || *out_protocol == icmp
               ? 0
               : -EPROTONOSUPPORT;
}

static int make_socket(const struct broker_request *q, int *out_fd)
{
    int type, protocol;
    int r = socket_kind(q, &type, &protocol);

    if (r)
        return r;
    *out_fd = socket(q->family, type | SOCK_FLAGS, protocol);
    return *out_fd < 0 ? -errno : 0;
}

/* The host would number a socket after the process that binds it, which is nobody's business. */
static int bind_netlink(int fd, const struct broker_request *q)
{
    struct sockaddr_nl sa;

    if (q->addr_len < sizeof(sa))
        return -EINVAL;
    memcpy(&sa, &q->addr, sizeof(sa));
    if (sa.nl_pid != 0 || sa.nl_family != AF_NETLINK)
        return bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0 ? 0 : -errno;
    sa.nl_pid = q->number;
    for (int i = 0; i < PORTID_TRIES; i++) {
        if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0)
            return 0;
        if (errno != EADDRINUSE)
            return -errno;
        if (getrandom(&sa.nl_pid, sizeof(sa.nl_pid), 0) != (ssize_t)sizeof(sa.nl_pid))
            return -EAGAIN;
        sa.nl_pid |= 1u << 31;
    }
    return -EADDRINUSE;
}

/* Of a file system there is nothing here to bind to, and of other families no name either. */
static int bind_socket(const struct broker *b, const struct broker_request *q, int fd)
{
    int family = 0;
    socklen_t len = sizeof(family);

    if (q->addr_len > sizeof(q->addr))
        return -EINVAL;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len) != 0)
        return -errno;
    if (family == AF_NETLINK)
        return bind_netlink(fd, q);
    if (family != AF_INET && family != AF_INET6)
        return -EOPNOTSUPP;
    const bool raise_cap = q->privileged && b->may_bind;
    if (raise_cap && set_caps(BIND_CAP, BIND_CAP) != 0)
        return -EACCES;
    const int r = bind(fd, (const struct sockaddr *)&q->addr, q->addr_len) == 0 ? 0 : -errno;
    if (raise_cap && set_caps(BIND_CAP, 0) != 0)
        _exit(1);
    return r;
}

static void serve(const struct broker *b, const struct broker_request *q, int fd)
{
    int r, made = -1;

    if (q->op == BROKER_SOCKET)
        r = fd < 0 ? make_socket(q, &made) : -EINVAL;
    else if (q->op == BROKER_BIND)
        r = fd >= 0 ? bind_socket(b, q, fd) : -EBADF;
    else
        r = -EINVAL;
    const struct broker_reply a = {.error = r};
    if (broker_send(b->conn, &a, sizeof(a), r == 0 ? made : -1) != 0)
        _exit(1);
    if (made >= 0)
        (void)close(made);
}

static NORETURN void serve_all(const struct broker *b)
{
    for (;;) {
        struct broker_request q;
        int fd;
        const int r = broker_receive(b->conn, &q, sizeof(q), &fd);
        /* The end, or not of the sentry's making. */
        if (r != 0)
            _exit(r == -EPIPE ? 0 : 1);
        serve(b, &q, fd);
        if (fd >= 0)
            (void)close(fd);
    }
}

/* ---- becoming it ---- */

/* As other runtimes hand a new namespace over. Only a privilege could do it. */
static void loopback_up(void)
{
    struct ifreq r = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return;
    if (ioctl(fd, SIOCGIFFLAGS, &r) == 0) {
        r.ifr_flags |= IFF_UP;
        (void)ioctl(fd, SIOCSIFFLAGS, &r);
    }
    (void)close(fd);
}

static int enter(pid_t pid, const char *kind, int type)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, kind);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = setns(fd, type) == 0 ? 0 : -errno;
    (void)close(fd);
    return r;
}

static int enter_network(const struct sandbox_args *a, pid_t sentry, const char **step)
{
    const struct oci_namespaces *ns = &a->spec->lx.ns;

    *step = "enter the network namespace";
    if (!ns->listed[OCI_NS_NETWORK])
        return 0;
    if (ns->path[OCI_NS_NETWORK] == NULL) {
        /* It belongs to the sentry's user namespace, in which we are nobody yet. */
        int r = geteuid() != 0 ? enter(sentry, "user", CLONE_NEWUSER) : 0;
        if (r == 0)
            r = enter(sentry, "net", CLONE_NEWNET);
        if (r == 0)
            loopback_up();
        return r;
    }
    int fd = open(ns->path[OCI_NS_NETWORK], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = setns(fd, CLONE_NEWNET) == 0 ? 0 : -errno;
    (void)close(fd);
    return r;
}

/* With privileges: nobody's id, with the one capability at most, and an empty root. */
static int drop_privileges(const struct sandbox_args *a, struct broker *b, const char **step)
{
    const struct oci_process *p = &a->spec->process;

    b->may_bind = p->has_caps && (p->caps.bounding & BIND_CAP) != 0;
    *step = "own namespaces";
    if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) != 0)
        return -errno;
    int r = confine_empty_root(step);
    if (r)
        return r;
    *step = "drop the bounding set";
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
            return -errno;
    *step = "keep a capability";
    if (b->may_bind && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0)
        return -errno;
    r = confine_become_sentry_id(true, step);
    if (r)
        return r;
    *step = "capset";
    if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) != 0)
        return -errno;
    return set_caps(b->may_bind ? BIND_CAP : 0, 0);
}

static int keep_conn_only(struct broker *b, const char **step)
{
    *step = "close descriptors";
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0)
        return -errno;
    /* Above what the standard streams are made to be. */
    int fd = fcntl(b->conn, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return -errno;
    b->conn = fd;
    for (int i = 0; i < 3; i++)
        if (dup2(null_fd, i) < 0)
            return -errno;
    return 0;
}

static int become(const struct sandbox_args *a, struct broker *b, pid_t sentry, int report,
                  const char **step)
{
    int abi;
    int r = enter_network(a, sentry, step);

    if (r == 0)
        r = keep_conn_only(b, step);
    if (r == 0) {
        const int keep[] = {b->conn, report};
        r = confine_close_fds(keep, ARRAY_SIZE(keep), step);
    }
    if (r == 0)
        r = confine_rlimits(step);
    if (r == 0 && geteuid() == 0)
        r = drop_privileges(a, b, step);
    if (r == 0)
        r = confine_landlock(true, &abi, step);
    if (r)
        return r;
    *step = "not dumpable";
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 ? 0 : -errno;
}

struct report {
    int32_t code;
    char step[60];
};

static NORETURN void broker_child(const struct sandbox_args *a, pid_t sentry, int conn, int out)
{
    struct broker b = {.conn = conn};
    struct report rep = {.code = 0};
    struct iovec iov = {.iov_base = &rep, .iov_len = sizeof(rep)};
    const struct msghdr told = {.msg_iov = &iov, .msg_iovlen = 1};
    const char *step = "";

    prctl(PR_SET_NAME, "runsc-broker", 0, 0, 0);
    launch_one_arena();
    (void)setsid();
    launch_enter_cgroups(a);
    (void)signal(SIGPIPE, SIG_IGN);
    /* Above the numbers that are closed and replaced. */
    int report = fcntl(out, F_DUPFD_CLOEXEC, 16);
    rep.code = report < 0 ? -errno : become(a, &b, sentry, report, &step);
    if (rep.code == 0)
        rep.code = confine_broker_seccomp(&step);
    snprintf(rep.step, sizeof(rep.step), "%s", step);
    if (sendmsg(report, &told, MSG_NOSIGNAL) != (ssize_t)sizeof(rep) || rep.code != 0)
        _exit(126);
    (void)close(report);
    serve_all(&b);
}

int broker_launch(const struct sandbox_args *a, pid_t sentry, int conn, pid_t *out_pid,
                  struct err *e)
{
    struct report rep = {.code = 0};
    int report[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, report) != 0)
        return err_errno(e, errno, "socketpair");
    *out_pid = fork();
    if (*out_pid == 0)
        broker_child(a, sentry, conn, report[1]);
    const int code = errno;
    (void)close(report[1]);
    ssize_t n = 0;
    while (*out_pid > 0 && (n = read(report[0], &rep, sizeof(rep))) < 0 && errno == EINTR)
        ;
    (void)close(report[0]);
    if (*out_pid < 0)
        return err_errno(e, code, "fork the broker");
    rep.step[sizeof(rep.step) - 1] = '\0';
    if (n != (ssize_t)sizeof(rep))
        return err_set(e, EIO, "--network=host: the broker ended during set-up");
    return rep.code == 0 ? 0 : err_errno(e, rep.code, "--network=host: %s", rep.step);
}
