/* Sockets: making, naming, connecting them, and their options. Messages are in sys_socket_msg.c. */
#include "syscalls/sys_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/cred/user_ns.h"
#include "sentry/kernel/ns.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/process.h"
#include "sentry/net/filter.h"
#include "sentry/vfs/landlock.h"
#include "sentry/wait/procref.h"
#include "syscalls/handlers.h"

int sock_arg_get(struct task *t, int fd, struct sock_arg *out)
{
    int r = task_file(t, fd, &out->file);

    if (r)
        return r;
    r = sock_from_file(out->file, &out->sock);
    if (r) {
        file_put(out->file);
        return r;
    }
    task_vfs_caller(t, &out->c);
    return 0;
}

void sock_arg_put(struct sock_arg *a)
{
    task_vfs_caller_end(&a->c);
    file_put(a->file);
}

bool sock_arg_nonblock(const struct sock_arg *a, int flags)
{
    return flags & MSG_DONTWAIT || atomic_load(&a->file->flags) & O_NONBLOCK;
}

int sock_addr_in(struct task *t, uaddr_t addr, uint64_t len, struct sock_addr *out)
{
    memset(out, 0, sizeof(*out));
    if (len > sizeof(out->storage))
        return -EINVAL;
    out->len = (socklen_t)len;
    return len ? copyin(&t->ua, &out->storage, addr, len) : 0;
}

int sock_addr_out(struct task *t, const struct sock_addr *a, uaddr_t addr, uaddr_t len_addr)
{
    int32_t space;
    int r = copyin_obj(&t->ua, &space, len_addr);

    if (r)
        return r;
    if (space < 0)
        return -EINVAL;
    const int32_t len = (int32_t)a->len;
    r = copyout(&t->ua, addr, &a->storage, (size_t)MIN(space, len));
    return r ? r : copyout_obj(&t->ua, len_addr, &len);
}

/* ---- making them ---- */

static int sock_type(int type, int *out)
{
    if (type & ~(0xf | SOCK_CLOEXEC | SOCK_NONBLOCK))
        return -EINVAL;
    *out = type & 0xf;
    return 0;
}

/* Takes s. The file is owned. */
static int sock_wrap(const struct task *t, struct sock *s, int type, struct file **out)
{
    /* What belongs to whom is asked by Landlock. */
    if (UNLIKELY(t->cred->domain != NULL) && !s->domain) {
        ref_get(&t->cred->domain->ref);
        s->domain = t->cred->domain;
    }
    int r = sock_file(s, type & SOCK_NONBLOCK ? O_NONBLOCK : 0, out);

    if (r) {
        s->ops->close(s);
        sock_put(s);
    }
    return r;
}

/* Takes s. */
static int64_t sock_install(struct task *t, struct sock *s, int type)
{
    struct file *f;
    int r = sock_wrap(t, s, type, &f);

    if (r)
        return r;
    r = task_fd_install(t, f, type & SOCK_CLOEXEC, 0);
    file_put(f);
    return r;
}

int64_t sys_socket(struct task *t, int family, int type, int protocol)
{
    struct vfs_caller c;
    struct sock *s;
    int kind;
    int r = sock_type(type, &kind);

    if (r)
        return r;
    task_vfs_caller(t, &c);
    r = sock_create(task_net(t), family, kind, protocol, &c, &s);
    task_vfs_caller_end(&c);
    return r ? r : sock_install(t, s, type);
}

static void sock_uninstall(struct task *t, int fd)
{
    struct vfs_caller c;

    task_vfs_caller(t, &c);
    (void)!fdtable_close(t->fdt, fd, &c);
    task_vfs_caller_end(&c);
}

int64_t sys_socketpair(struct task *t, int family, int type, int protocol, uaddr_t fds)
{
    struct sock *pair[2];
    struct vfs_caller c;
    int32_t out[2];
    int kind;
    int r = sock_type(type, &kind);

    if (r)
        return r;
    task_vfs_caller(t, &c);
    r = sock_create_pair(task_net(t), family, kind, protocol, &c, pair);
    task_vfs_caller_end(&c);
    if (r)
        return r;
    out[0] = (int32_t)sock_install(t, pair[0], type);
    out[1] = (int32_t)sock_install(t, pair[1], type);
    r = out[0] < 0 ? out[0] : out[1] < 0 ? out[1] : copyout(&t->ua, fds, out, sizeof(out));
    if (r == 0)
        return 0;
    for (int i = 0; i < 2; i++)
        if (out[i] >= 0)
            sock_uninstall(t, out[i]);
    return r;
}

/* ---- names and connections ---- */

static int sock_port_allowed(const struct task *t, const struct sock *s, const struct sock_addr *a,
                             uint32_t access)
{
    if (LIKELY(t->cred->domain == NULL) || (s->family != AF_INET && s->family != AF_INET6) ||
        s->type != SOCK_STREAM || (s->protocol != 0 && s->protocol != IPPROTO_TCP))
        return 0;
    return landlock_port(t->cred, s->family, &a->storage, a->len, access);
}

int64_t sys_bind(struct task *t, int fd, uaddr_t addr, int len)
{
    struct sock_addr sa;
    struct sock_arg a;
    int r = sock_arg_get(t, fd, &a);

    if (r)
        return r;
    r = len < 0 ? -EINVAL : sock_addr_in(t, addr, (uint64_t)len, &sa);
    if (r == 0)
        r = sock_port_allowed(t, a.sock, &sa, LANDLOCK_BIND_TCP);
    if (r == 0)
        r = a.sock->ops->bind(a.sock, &sa, &a.c);
    sock_arg_put(&a);
    return r;
}

int64_t sys_connect(struct task *t, int fd, uaddr_t addr, int len)
{
    struct sock_addr sa;
    struct sock_arg a;
    int r = sock_arg_get(t, fd, &a);

    if (r)
        return r;
    r = len < 0 ? -EINVAL : sock_addr_in(t, addr, (uint64_t)len, &sa);
    if (r == 0)
        r = sock_port_allowed(t, a.sock, &sa, LANDLOCK_CONNECT_TCP);
    if (r == 0)
        r = a.sock->ops->connect(a.sock, &sa, sock_arg_nonblock(&a, 0), &a.c);
    sock_arg_put(&a);
    return r;
}

int64_t sys_listen(struct task *t, int fd, int backlog)
{
    struct sock_arg a;
    int r = sock_arg_get(t, fd, &a);

    if (r)
        return r;
    r = a.sock->ops->listen(a.sock, backlog, &a.c);
    sock_arg_put(&a);
    return r;
}

int64_t sys_shutdown(struct task *t, int fd, int how)
{
    struct sock_arg a;
    int r = sock_arg_get(t, fd, &a);

    if (r)
        return r;
    r = a.sock->ops->shutdown(a.sock, how);
    sock_arg_put(&a);
    return r;
}

/* A connection whose peer's address cannot be told is closed again, as in Linux. */
static int64_t accept_finish(struct task *t, struct sock *s, uaddr_t addr, uaddr_t len, int flags)
{
    struct sock_addr sa;
    struct file *f;
    int r = sock_wrap(t, s, flags, &f);

    if (r)
        return r;
    if (!uaddr_is_null(addr)) {
        r = s->ops->getname(s, true, &sa);
        r = r ? -ECONNABORTED : sock_addr_out(t, &sa, addr, len);
    }
    if (r == 0)
        r = task_fd_install(t, f, flags & SOCK_CLOEXEC, 0);
    file_put(f);
    return r;
}

int64_t sys_accept4(struct task *t, int fd, uaddr_t addr, uaddr_t len, int flags)
{
    struct sock_arg a;
    struct sock *s;

    if (flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK))
        return -EINVAL;
    int r = sock_arg_get(t, fd, &a);
    if (r)
        return r;
    const bool never_waits = fd == TASK_FD_HELD;
    r = a.sock->ops->accept(a.sock, never_waits || sock_arg_nonblock(&a, 0), &a.c, &s);
    sock_arg_put(&a);
    return r ? r : accept_finish(t, s, addr, len, flags);
}

int64_t sys_accept(struct task *t, int fd, uaddr_t addr, uaddr_t len)
{
    return sys_accept4(t, fd, addr, len, 0);
}

static int64_t sock_name(struct task *t, int fd, uaddr_t addr, uaddr_t len, bool peer)
{
    struct sock_addr sa;
    struct sock_arg a;
    int r = sock_arg_get(t, fd, &a);

    if (r)
        return r;
    r = a.sock->ops->getname(a.sock, peer, &sa);
    sock_arg_put(&a);
    return r ? r : sock_addr_out(t, &sa, addr, len);
}

int64_t sys_getsockname(struct task *t, int fd, uaddr_t addr, uaddr_t len)
{
    return sock_name(t, fd, addr, len, false);
}

int64_t sys_getpeername(struct task *t, int fd, uaddr_t addr, uaddr_t len)
{
    return sock_name(t, fd, addr, len, true);
}

/* ---- options ---- */

/* The one option that points at more: struct sock_fprog of the 64-bit ABI. */
static int filter_attach(struct task *t, struct sock *s, uaddr_t value, int len)
{
    struct {
        uint16_t count, pad[3];
        uint64_t insns;
    } prog;
    struct sock_filter *insns;

    if (len != sizeof(prog))
        return -EINVAL;
    int r = copyin_obj(&t->ua, &prog, value);
    if (r)
        return r;
    if (prog.count == 0 || prog.count > BPF_MAXINSNS)
        return -EINVAL;
    const size_t size = prog.count * sizeof(*insns);
    insns = malloc(size);
    if (!insns)
        return -ENOMEM;
    r = copyin(&t->ua, insns, uaddr(prog.insns), size);
    if (r == 0)
        r = sock_filter_attach(s, insns, prog.count);
    free(insns);
    return r;
}

/* SO_GET_FILTER, whose length counts instructions. */
static int filter_show(struct task *t, struct sock *s, uaddr_t value, uaddr_t len, int32_t space)
{
    struct sock_filter *insns = malloc(BPF_MAXINSNS * sizeof(*insns));

    if (!insns)
        return -ENOMEM;
    int r = sock_filter_get(s, space ? insns : NULL, (size_t)space);
    if (r > 0 && space)
        if (copyout(&t->ua, value, insns, (size_t)r * sizeof(*insns)))
            r = -EFAULT;
    free(insns);
    return r < 0 ? r : copyout_obj(&t->ua, len, &r);
}

int64_t sys_setsockopt(struct task *t, int fd, int level, int name, uaddr_t value, int len)
{
    char buf[SOCK_OPTION_MAX];
    struct sock_arg a;

    if (len < 0)
        return -EINVAL;
    int r = sock_arg_get(t, fd, &a);
    if (r)
        return r;
    const socklen_t n = (socklen_t)MIN((size_t)len, sizeof(buf));
    if (level == SOL_SOCKET && name == SO_ATTACH_FILTER) {
        r = filter_attach(t, a.sock, value, len);
    } else {
        r = copyin(&t->ua, buf, value, n);
        if (r == 0)
            r = sock_setsockopt(a.sock, level, name, buf, n, &a.c);
    }
    sock_arg_put(&a);
    return r;
}

/* As the reader knows the peer. */
static void peer_cred_show(struct task *t, char *buf, socklen_t n)
{
    struct sock_cred cr;

    memcpy(&cr, buf, sizeof(cr));
    /* Nobody's credentials stay -1. */
    if (cr.uid == UINT32_MAX)
        return;
    cr = sock_cred_out(t, &cr);
    memcpy(buf, &cr, MIN((size_t)n, sizeof(cr)));
}

/* SO_PEERGROUPS, which also says how much room it needs when it has too little. */
static int peer_groups_show(struct task *t, struct sock *s, uaddr_t value, uaddr_t len,
                            int32_t space)
{
    const size_t max = (size_t)space / sizeof(uint32_t);
    const int64_t n = unix_peer_groups(s, NULL, 0);

    if (n < 0)
        return (int)n;
    const int32_t size = (int32_t)((size_t)n * sizeof(uint32_t));
    if ((size_t)n > max) {
        int r = copyout_obj(&t->ua, len, &size);
        return r ? r : -ERANGE;
    }
    uint32_t *groups = malloc((size_t)size + 1);
    if (!groups)
        return -ENOMEM;
    /* It connects once. */
    int r = unix_peer_groups(s, groups, (size_t)n) == n ? 0 : -ENODATA;
    for (int64_t i = 0; i < n; i++)
        groups[i] = user_ns_show(t->cred->user_ns, USER_NS_GID, groups[i]);
    if (r == 0)
        r = copyout(&t->ua, value, groups, (size_t)size);
    free(groups);
    return r ? r : copyout_obj(&t->ua, len, &size);
}

/* SO_PEERPIDFD: a descriptor in place of the peer's number. */
static int peer_pidfd(struct task *t, struct sock *s, char *buf, socklen_t *n)
{
    struct procref *process;
    struct file *f;
    int r = sock_peer_process(s, &process);

    if (r)
        return r;
    r = pidfd_new(process, 0, &f);
    procref_put(process);
    if (r)
        return r;
    const int32_t fd = task_fd_install(t, f, true, 0);
    file_put(f);
    if (fd < 0)
        return fd;
    *n = MIN(*n, (socklen_t)sizeof(fd));
    memcpy(buf, &fd, *n);
    return 0;
}

int64_t sys_getsockopt(struct task *t, int fd, int level, int name, uaddr_t value, uaddr_t len)
{
    char buf[SOCK_OPTION_MAX];
    struct sock_arg a;
    int32_t space;
    int r = sock_arg_get(t, fd, &a);

    if (r)
        return r;
    r = copyin_obj(&t->ua, &space, len);
    if (r == 0 && space < 0)
        r = -EINVAL;
    if (r)
        goto out_put;
    if (level == SOL_SOCKET && name == SO_ATTACH_FILTER) {
        r = filter_show(t, a.sock, value, len, space);
        goto out_put;
    }
    if (level == SOL_SOCKET && name == SO_PEERGROUPS) {
        r = peer_groups_show(t, a.sock, value, len, space);
        goto out_put;
    }
    memset(buf, 0, sizeof(buf));
    socklen_t n = (socklen_t)MIN((size_t)space, sizeof(buf));
    /* The version of the header that is asked about comes in the buffer. */
    if (level == SOL_PACKET && name == PACKET_HDRLEN)
        r = copyin(&t->ua, buf, value, n);
    if (r == 0 && level == SOL_SOCKET && name == LX_SO_PEERPIDFD)
        r = peer_pidfd(t, a.sock, buf, &n);
    else if (r == 0)
        r = sock_getsockopt(a.sock, level, name, buf, &n);
    if (r == 0 && level == SOL_SOCKET && name == SO_PEERCRED)
        peer_cred_show(t, buf, n);
    if (r == 0)
        r = copyout(&t->ua, value, buf, n);
    if (r == 0) {
        space = (int32_t)n;
        r = copyout_obj(&t->ua, len, &space);
    }
out_put:
    sock_arg_put(&a);
    return r;
}
