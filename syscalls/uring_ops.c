/* What io_uring's requests do: the system call of the same name, without sleeping. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "syscalls/handlers.h"
#include "syscalls/sys_rw.h"
#include "syscalls/sys_socket.h"
#include "syscalls/sys_uring.h"

#define OP_FILE 1u /* works on the file of sqe.fd */
#define OP_DESC 2u /* the same, by a system call */
#define OP_IN 4u   /* may have to wait for EPOLLIN */
#define OP_OUT 8u  /* ... for EPOLLOUT */
#define OP_KNOWN 16u
#define FIXED_NO_CLOEXEC 1u
#define OP_CHOOSES 32u /* takes a buffer of the ring's choice */

static const uint8_t ops[] = {
    [IORING_OP_NOP] = OP_KNOWN,
    [IORING_OP_READV] = OP_KNOWN | OP_FILE | OP_IN,
    [IORING_OP_WRITEV] = OP_KNOWN | OP_FILE | OP_OUT,
    [IORING_OP_FSYNC] = OP_KNOWN | OP_FILE,
    [IORING_OP_READ_FIXED] = OP_KNOWN | OP_FILE | OP_IN,
    [IORING_OP_WRITE_FIXED] = OP_KNOWN | OP_FILE | OP_OUT,
    [IORING_OP_POLL_ADD] = OP_KNOWN | OP_FILE,
    [IORING_OP_POLL_REMOVE] = OP_KNOWN,
    [IORING_OP_SYNC_FILE_RANGE] = OP_KNOWN | OP_FILE,
    [IORING_OP_SENDMSG] = OP_KNOWN | OP_DESC | OP_OUT,
    [IORING_OP_RECVMSG] = OP_KNOWN | OP_DESC | OP_IN | OP_CHOOSES,
    [IORING_OP_TIMEOUT] = OP_KNOWN,
    [IORING_OP_TIMEOUT_REMOVE] = OP_KNOWN,
    [IORING_OP_ACCEPT] = OP_KNOWN | OP_DESC | OP_IN,
    [IORING_OP_ASYNC_CANCEL] = OP_KNOWN,
    [IORING_OP_LINK_TIMEOUT] = OP_KNOWN,
    [IORING_OP_CONNECT] = OP_KNOWN | OP_DESC,
    [IORING_OP_FALLOCATE] = OP_KNOWN | OP_FILE,
    [IORING_OP_OPENAT] = OP_KNOWN,
    [IORING_OP_CLOSE] = OP_KNOWN,
    [IORING_OP_FILES_UPDATE] = OP_KNOWN,
    [IORING_OP_STATX] = OP_KNOWN,
    [IORING_OP_READ] = OP_KNOWN | OP_FILE | OP_IN | OP_CHOOSES,
    [IORING_OP_WRITE] = OP_KNOWN | OP_FILE | OP_OUT,
    [IORING_OP_FADVISE] = OP_KNOWN | OP_DESC,
    [IORING_OP_MADVISE] = OP_KNOWN,
    [IORING_OP_SEND] = OP_KNOWN | OP_DESC | OP_OUT,
    [IORING_OP_RECV] = OP_KNOWN | OP_DESC | OP_IN | OP_CHOOSES,
    [IORING_OP_OPENAT2] = OP_KNOWN,
    [IORING_OP_EPOLL_CTL] = OP_KNOWN,
    [IORING_OP_SPLICE] = OP_KNOWN | OP_DESC,
    [IORING_OP_PROVIDE_BUFFERS] = OP_KNOWN,
    [IORING_OP_REMOVE_BUFFERS] = OP_KNOWN,
    [IORING_OP_TEE] = OP_KNOWN | OP_DESC,
    [IORING_OP_SHUTDOWN] = OP_KNOWN | OP_DESC,
    [IORING_OP_RENAMEAT] = OP_KNOWN,
    [IORING_OP_UNLINKAT] = OP_KNOWN,
    [IORING_OP_MKDIRAT] = OP_KNOWN,
    [IORING_OP_SYMLINKAT] = OP_KNOWN,
    [IORING_OP_LINKAT] = OP_KNOWN,
    [IORING_OP_MSG_RING] = OP_KNOWN | OP_FILE,
    [IORING_OP_FSETXATTR] = OP_KNOWN | OP_DESC,
    [IORING_OP_SETXATTR] = OP_KNOWN,
    [IORING_OP_FGETXATTR] = OP_KNOWN | OP_DESC,
    [IORING_OP_GETXATTR] = OP_KNOWN,
    [IORING_OP_SOCKET] = OP_KNOWN,
    [URING_OP_READ_MULTISHOT] = OP_KNOWN | OP_FILE | OP_IN | OP_CHOOSES,
    [URING_OP_FIXED_FD_INSTALL] = OP_KNOWN | OP_FILE,
    [URING_OP_FTRUNCATE] = OP_KNOWN | OP_DESC,
    [URING_OP_BIND] = OP_KNOWN | OP_DESC,
    [URING_OP_LISTEN] = OP_KNOWN | OP_DESC,
};
_Static_assert(ARRAY_SIZE(ops) == URING_OP_END, "the last request");

static unsigned op_bits(unsigned opcode)
{
    return opcode < ARRAY_SIZE(ops) ? ops[opcode] : 0;
}

bool uring_op_known(unsigned opcode)
{
    return op_bits(opcode) != 0;
}

bool uring_op_has_file(unsigned opcode)
{
    return (op_bits(opcode) & (OP_FILE | OP_DESC)) != 0;
}

bool uring_op_chooses(unsigned opcode)
{
    return op_bits(opcode) & OP_CHOOSES;
}

uint32_t uring_op_events(const struct io_uring_sqe *s)
{
    const unsigned bits = op_bits(s->opcode);

    if (s->opcode == IORING_OP_POLL_ADD)
        return s->poll32_events;
    return bits & OP_IN ? EPOLLIN : bits & OP_OUT ? EPOLLOUT : 0;
}

bool uring_op_repeats(const struct io_uring_sqe *s)
{
    switch (s->opcode) {
    case IORING_OP_ACCEPT:
        return s->ioprio & IORING_ACCEPT_MULTISHOT;
    case IORING_OP_RECV:
    case IORING_OP_RECVMSG:
        return s->ioprio & IORING_RECV_MULTISHOT;
    default:
        return s->opcode == URING_OP_READ_MULTISHOT;
    }
}

static bool op_may_be_accept(const struct io_uring_sqe *s)
{
    if (s->ioprio & ~IORING_ACCEPT_MULTISHOT || s->len || s->buf_index)
        return false;
    if (s->file_index && s->accept_flags & SOCK_CLOEXEC)
        return false;
    return !uring_op_repeats(s) || !s->file_index || s->file_index == IORING_FILE_INDEX_ALLOC;
}

static bool op_may_be_recv(const struct io_uring_sqe *s)
{
    if (s->ioprio & ~(IORING_RECVSEND_POLL_FIRST | IORING_RECV_MULTISHOT))
        return false;
    return !uring_op_repeats(s) ||
           (s->flags & IOSQE_BUFFER_SELECT && !(s->msg_flags & MSG_WAITALL));
}

int uring_op_check(const struct io_uring_sqe *s)
{
    bool ok = true;

    switch (s->opcode) {
    case IORING_OP_ACCEPT:
        ok = op_may_be_accept(s);
        break;
    case IORING_OP_RECV:
    case IORING_OP_RECVMSG:
        ok = op_may_be_recv(s);
        break;
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
        ok = !(s->ioprio & ~IORING_RECVSEND_POLL_FIRST);
        break;
    case IORING_OP_SOCKET:
        ok = !s->addr && !s->rw_flags && !(s->file_index && s->off & SOCK_CLOEXEC);
        break;
    case IORING_OP_CLOSE:
        ok = !s->off && !s->addr && !s->len && !s->rw_flags && !(s->file_index && s->fd);
        break;
    case URING_OP_READ_MULTISHOT:
        ok = s->flags & IOSQE_BUFFER_SELECT;
        break;
    case URING_OP_FTRUNCATE:
        ok = !s->rw_flags && !s->addr && !s->len && !s->buf_index && !s->splice_fd_in;
        break;
    case URING_OP_BIND:
        ok = !s->len && !s->buf_index && !s->rw_flags && !s->splice_fd_in;
        break;
    case URING_OP_LISTEN:
        ok = !s->addr && !s->buf_index && !s->rw_flags && !s->splice_fd_in && !s->off;
        break;
    case URING_OP_FIXED_FD_INSTALL:
        if (s->off || s->addr || s->len || s->buf_index || s->splice_fd_in || s->addr3)
            return -EINVAL;
        if (!(s->flags & IOSQE_FIXED_FILE))
            return -EBADF;
        ok = !(s->rw_flags & ~FIXED_NO_CLOEXEC);
        break;
    default:
        break;
    }
    return ok ? 0 : -EINVAL;
}

/* ---- reading and writing ---- */

static int op_uio(struct task *t, struct uring *r, const struct io_uring_sqe *s, struct uio *u,
                  struct uio_seg **segs)
{
    switch (s->opcode) {
    case IORING_OP_READV:
    case IORING_OP_WRITEV:
        return uio_init_iovec(u, &t->ua, uaddr(s->addr), s->len, segs);
    case IORING_OP_READ_FIXED:
    case IORING_OP_WRITE_FIXED: {
        int err = uring_check_buffer(r, s->buf_index, s->addr, s->len);
        if (err)
            return err;
        break;
    }
    default:
        break;
    }
    return uio_init_user(u, &t->ua, uaddr(s->addr), s->len);
}

static int64_t op_transfer(struct task *t, struct uring *r, const struct io_uring_sqe *s,
                           struct file *f)
{
    const bool write = op_bits(s->opcode) & OP_OUT;
    const int64_t off = file_has_position(f) && s->off != UINT64_MAX ? (int64_t)s->off : -1;
    struct uio_seg *segs = NULL;
    struct vfs_caller c;
    struct uio u;
    int64_t n = op_uio(t, r, s, &u, &segs);

    if (n)
        return n;
    if (off < -1)
        n = -EINVAL;
    const int flags = (int)s->rw_flags & ~RWF_NOWAIT; /* it never waits */
    task_vfs_caller(t, &c);
    c.blocker = NULL;
    if (n == 0)
        n = write ? rw_write_result(t, f, &c, vfs_write(f, &u, off, flags, &c))
                  : vfs_read(f, &u, off, flags, &c);
    task_vfs_caller_end(&c);
    free(segs);
    return n;
}

static int64_t op_file(struct task *t, struct uring *r, const struct io_uring_sqe *s,
                       struct file *f)
{
    struct vfs_caller c;
    struct uring *to;
    int64_t n;

    switch (s->opcode) {
    case IORING_OP_FSYNC:
        return s->fsync_flags & ~IORING_FSYNC_DATASYNC
                   ? -EINVAL
                   : vfs_fsync(f, s->fsync_flags & IORING_FSYNC_DATASYNC);
    case IORING_OP_SYNC_FILE_RANGE:
        return vfs_fsync(f, true);
    case IORING_OP_FALLOCATE:
        task_vfs_caller(t, &c);
        n = vfs_fallocate(f, (int)s->len, (int64_t)s->off, (int64_t)s->addr, &c);
        task_vfs_caller_end(&c);
        return n;
    case IORING_OP_POLL_ADD: {
        const uint32_t got = vfs_poll(f, NULL) & (s->poll32_events | EPOLLERR | EPOLLHUP);
        return got ? (int64_t)got : -EAGAIN;
    }
    case IORING_OP_MSG_RING:
        to = uring_of(f);
        if (!to)
            return -EBADFD;
        if (s->addr || s->msg_ring_flags & ~IORING_MSG_RING_CQE_SKIP)
            return -EINVAL;
        uring_post(to, s->off, (int32_t)s->len, 0);
        return 0;
    case URING_OP_FIXED_FD_INSTALL:
        return task_fd_install(t, f, !(s->rw_flags & FIXED_NO_CLOEXEC), 0);
    case URING_OP_READ_MULTISHOT:
        return f->ops->poll ? op_transfer(t, r, s, f) : -EBADFD;
    default:
        return op_transfer(t, r, s, f);
    }
}

/* ---- by descriptor ---- */

/* Offsets of a splice are values here and pointers there: only the file's own position goes. */
static int64_t op_splice(struct task *t, const struct io_uring_sqe *s)
{
    if (s->off != UINT64_MAX || s->splice_off_in != UINT64_MAX ||
        s->splice_flags & SPLICE_F_FD_IN_FIXED)
        return -EINVAL;
    return sys_splice(t, s->splice_fd_in, uaddr(0), s->fd, uaddr(0), s->len,
                      s->splice_flags | SPLICE_F_NONBLOCK);
}

/* Makes a file with the system call that s is about: a descriptor, or, in a slot of the ring, its
 * number when the ring chose it. */
static int64_t op_make(struct task *t, struct uring *r, const struct io_uring_sqe *s,
                       int64_t (*call)(struct task *t, const struct io_uring_sqe *s))
{
    struct file *made = NULL;

    if (!s->file_index)
        return call(t, s);
    t->made = &made;
    int64_t n = call(t, s);
    t->made = NULL;
    if (!made)
        return n;
    if (n < 0) {
        file_put(made);
        return n;
    }
    return s->file_index == IORING_FILE_INDEX_ALLOC ? uring_alloc_file(r, made)
                                                    : uring_set_file(r, s->file_index - 1, made, 0);
}

static int64_t call_accept(struct task *t, const struct io_uring_sqe *s)
{
    return sys_accept4(t, s->fd, uaddr(s->addr), uaddr(s->addr2), (int)s->accept_flags);
}

static int64_t call_openat(struct task *t, const struct io_uring_sqe *s)
{
    return s->file_index && s->open_flags & O_CLOEXEC
               ? -EINVAL
               : sys_openat(t, s->fd, uaddr(s->addr), (int)s->open_flags, s->len);
}

static int64_t call_openat2(struct task *t, const struct io_uring_sqe *s)
{
    uint64_t flags;

    if (s->file_index && s->len >= sizeof(flags)) {
        if (copyin_obj(&t->ua, &flags, uaddr(s->addr2)))
            return -EFAULT;
        if (flags & O_CLOEXEC)
            return -EINVAL;
    }
    return sys_openat2(t, s->fd, uaddr(s->addr), uaddr(s->addr2), s->len);
}

static int64_t call_socket(struct task *t, const struct io_uring_sqe *s)
{
    return sys_socket(t, s->fd, (int)s->off, (int)s->len);
}

static int64_t op_desc(struct task *t, struct uring *r, const struct io_uring_sqe *s)
{
    const int flags = (int)s->msg_flags | MSG_DONTWAIT;

    switch (s->opcode) {
    case IORING_OP_SENDMSG:
        return sys_sendmsg(t, s->fd, uaddr(s->addr), flags | MSG_NOSIGNAL);
    case IORING_OP_RECVMSG:
        return sys_recvmsg(t, s->fd, uaddr(s->addr), flags);
    case IORING_OP_SEND:
        return sys_sendto(t, s->fd, uaddr(s->addr), s->len, flags | MSG_NOSIGNAL, uaddr(s->addr2),
                          s->addr_len);
    case IORING_OP_RECV:
        return sys_recvfrom(t, s->fd, uaddr(s->addr), s->len, flags, uaddr(0), uaddr(0));
    case IORING_OP_ACCEPT:
        return op_make(t, r, s, call_accept);
    case URING_OP_FTRUNCATE:
        return sys_ftruncate(t, s->fd, (int64_t)s->off);
    case URING_OP_BIND:
        return sys_bind(t, s->fd, uaddr(s->addr), (int)s->off);
    case URING_OP_LISTEN:
        return sys_listen(t, s->fd, (int)s->len);
    case IORING_OP_CONNECT:
        return sys_connect(t, s->fd, uaddr(s->addr), (int)s->off);
    case IORING_OP_SHUTDOWN:
        return sys_shutdown(t, s->fd, (int)s->len);
    case IORING_OP_FADVISE:
        return sys_fadvise64(t, s->fd, (int64_t)s->off, s->len, (int)s->fadvise_advice);
    case IORING_OP_SPLICE:
        return op_splice(t, s);
    case IORING_OP_TEE:
        return sys_tee(t, s->splice_fd_in, s->fd, s->len, s->splice_flags | SPLICE_F_NONBLOCK);
    case IORING_OP_FSETXATTR:
        return sys_fsetxattr(t, s->fd, uaddr(s->addr), uaddr(s->addr2), s->len,
                             (int)s->xattr_flags);
    case IORING_OP_FGETXATTR:
        return sys_fgetxattr(t, s->fd, uaddr(s->addr), uaddr(s->addr2), s->len);
    default:
        return -EINVAL;
    }
}

/* ---- by path, and the rest ---- */

static int64_t op_names(struct task *t, const struct io_uring_sqe *s)
{
    switch (s->opcode) {
    case IORING_OP_STATX:
        return sys_statx(t, s->fd, uaddr(s->addr), (int)s->statx_flags, s->len, uaddr(s->off));
    case IORING_OP_RENAMEAT:
        return sys_renameat2(t, s->fd, uaddr(s->addr), (int)s->len, uaddr(s->addr2),
                             s->rename_flags);
    case IORING_OP_UNLINKAT:
        return sys_unlinkat(t, s->fd, uaddr(s->addr), (int)s->unlink_flags);
    case IORING_OP_MKDIRAT:
        return sys_mkdirat(t, s->fd, uaddr(s->addr), s->len);
    case IORING_OP_SYMLINKAT:
        return sys_symlinkat(t, uaddr(s->addr), s->fd, uaddr(s->addr2));
    case IORING_OP_LINKAT:
        return sys_linkat(t, s->fd, uaddr(s->addr), (int)s->len, uaddr(s->addr2),
                          (int)s->hardlink_flags);
    case IORING_OP_SETXATTR:
        return sys_setxattr(t, uaddr(s->addr3), uaddr(s->addr), uaddr(s->addr2), s->len,
                            (int)s->xattr_flags);
    case IORING_OP_GETXATTR:
        return sys_getxattr(t, uaddr(s->addr3), uaddr(s->addr), uaddr(s->addr2), s->len);
    default:
        return -EINVAL;
    }
}

static int64_t op_provide(struct uring *r, const struct io_uring_sqe *s)
{
    const struct uring_buf first = {
        .addr = s->addr, .len = s->len, .id = (uint32_t)s->off, .group = s->buf_group};

    if (s->rw_flags || s->splice_fd_in)
        return -EINVAL;
    if (s->opcode == IORING_OP_REMOVE_BUFFERS)
        return s->addr || s->len || s->off ? -EINVAL
                                           : uring_unprovide(r, s->buf_group, (uint32_t)s->fd);
    return s->off > UINT16_MAX ? -E2BIG : uring_provide(r, &first, (uint32_t)s->fd);
}

static int64_t op_other(struct task *t, struct uring *r, const struct io_uring_sqe *s)
{
    switch (s->opcode) {
    case IORING_OP_NOP:
        return 0;
    case IORING_OP_OPENAT:
        return op_make(t, r, s, call_openat);
    case IORING_OP_OPENAT2:
        return op_make(t, r, s, call_openat2);
    case IORING_OP_CLOSE:
        return s->file_index ? uring_clear_file(r, s->file_index - 1) : sys_close(t, s->fd);
    case IORING_OP_FILES_UPDATE:
        return uring_files_update(t, r, s);
    case IORING_OP_MADVISE:
        return sys_madvise(t, uaddr(s->addr), s->len, (int)s->fadvise_advice);
    case IORING_OP_PROVIDE_BUFFERS:
    case IORING_OP_REMOVE_BUFFERS:
        return op_provide(r, s);
    case IORING_OP_EPOLL_CTL:
        return sys_epoll_ctl(t, s->fd, (int)s->len, (int)s->off, uaddr(s->addr));
    case IORING_OP_SOCKET:
        return op_make(t, r, s, call_socket);
    default:
        return op_names(t, s);
    }
}

/* accept and connect have no flag that says "do not wait": they are tried only when it is their
 * turn. */
static bool op_must_wait(const struct io_uring_sqe *s, struct file *f)
{
    return s->opcode == IORING_OP_ACCEPT && f && f->ops->poll &&
           (vfs_poll(f, NULL) & (EPOLLIN | EPOLLERR | EPOLLHUP)) == 0;
}

/* A request cannot be restarted. */
static int64_t op_result(int64_t n)
{
    return n <= -ERESTARTSYS && n >= -ERESTART_RESTARTBLOCK ? -EINTR : n;
}

static int64_t op_held(struct task *t, struct uring *r, const struct io_uring_sqe *s,
                       struct file *f)
{
    struct io_uring_sqe held = *s;

    held.fd = TASK_FD_HELD;
    t->held = f;
    int64_t n = op_desc(t, r, &held);
    t->held = NULL;
    return n;
}

int64_t uring_op_run(struct task *t, struct uring *r, const struct io_uring_sqe *s, struct file *f)
{
    const unsigned bits = op_bits(s->opcode);

    if (op_must_wait(s, f))
        return -EAGAIN;
    if (bits & OP_FILE)
        return op_result(op_file(t, r, s, f));
    return op_result(bits & OP_DESC ? op_held(t, r, s, f) : op_other(t, r, s));
}

int64_t uring_op_recvmsg(struct task *t, const struct io_uring_sqe *s, struct file *f,
                         const struct uring_buf *b, bool *out_more)
{
    const struct sock_msg_buf buf = {
        .addr = uaddr(b->addr), .len = b->len, .layout = uring_op_repeats(s)};

    t->held = f;
    int64_t n = sock_recvmsg_into(t, TASK_FD_HELD, uaddr(s->addr), (int)s->msg_flags | MSG_DONTWAIT,
                                  &buf, out_more);
    t->held = NULL;
    return op_result(n);
}
