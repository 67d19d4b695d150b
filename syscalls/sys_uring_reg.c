/* io_uring_register(2). */
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/limits.h"
#include "sentry/fs/anon/eventfd.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_uring.h"

static int reg_buffers(struct task *t, struct uring *r, uaddr_t arg, uint32_t count)
{
    if (count == 0 || count > LIMIT_URING_BUFFERS)
        return -EINVAL;
    struct iovec *v = calloc(count, sizeof(*v));
    if (!v)
        return -ENOMEM;
    int err = copyin_array(&t->ua, v, arg, count, sizeof(*v));
    for (uint32_t i = 0; err == 0 && i < count; i++)
        if (v[i].iov_len > LIMIT_URING_BUFFER_SIZE || (!v[i].iov_base && v[i].iov_len))
            err = -EFAULT;
    if (err) {
        free(v);
        return err;
    }
    return uring_set_buffers(r, v, count);
}

/* -1: an empty slot. */
static int reg_file(struct task *t, int fd, struct file **out)
{
    *out = NULL;
    if (fd == -1)
        return 0;
    int err = task_file(t, fd, out);
    if (err == 0 && uring_of(*out)) {
        file_put(*out);
        *out = NULL;
        err = -EBADF;
    }
    return err;
}

static int reg_files(struct task *t, struct uring *r, uaddr_t arg, uint32_t count)
{
    uint32_t n = 0;
    int err = 0, fd;

    if (count == 0)
        return -EINVAL;
    if (count > LIMIT_URING_FILES || count > task_rlimit(t, RLIMIT_NOFILE))
        return -EMFILE;
    struct file **files = calloc(count, sizeof(struct file *));
    if (!files)
        return -ENOMEM;
    for (; err == 0 && n < count; n++) {
        err = copyin_obj(&t->ua, &fd, uaddr_add(arg, n * sizeof(fd)));
        if (err == 0)
            err = reg_file(t, fd, &files[n]);
    }
    if (err == 0)
        return uring_set_files(r, files, count);
    for (uint32_t i = 0; i < count; i++)
        if (files[i])
            file_put(files[i]);
    free(files);
    return err;
}

static int reg_files_update(struct task *t, struct uring *r, uaddr_t arg, uint32_t count)
{
    struct io_uring_files_update u;
    uint32_t n = 0;
    int err = 0;

    if (copyin_obj(&t->ua, &u, arg))
        return -EFAULT;
    if (u.resv)
        return -EINVAL;
    for (; n < count; n++) {
        struct file *f = NULL;
        uint32_t at;
        int fd;
        if (__builtin_add_overflow(u.offset, n, &at))
            return -EOVERFLOW;
        err = copyin_obj(&t->ua, &fd, uaddr_add(uaddr(u.fds), n * sizeof(fd)));
        if (err == 0 && fd == -2 /* IORING_REGISTER_FILES_SKIP */)
            continue;
        if (err == 0)
            err = reg_file(t, fd, &f);
        if (err == 0)
            err = uring_set_file(r, at, f);
        if (err)
            break;
    }
    return n ? (int)n : err;
}

static int reg_eventfd(struct task *t, struct uring *r, uaddr_t arg, uint32_t count)
{
    struct file *f;
    int fd;

    if (count != 1)
        return -EINVAL;
    if (copyin_obj(&t->ua, &fd, arg))
        return -EFAULT;
    int err = task_file(t, fd, &f);
    if (err)
        return err;
    if (!eventfd_is(f)) {
        file_put(f);
        return -EINVAL;
    }
    return uring_set_eventfd(r, f);
}

static int reg_probe(struct task *t, uaddr_t arg, uint32_t count)
{
    struct {
        struct io_uring_probe p;
        struct io_uring_probe_op ops[IORING_OP_LAST];
    } all = {.p = {.last_op = IORING_OP_LAST - 1}};

    if (count > 256)
        return -EINVAL;
    const uint32_t n = MIN(count, (uint32_t)IORING_OP_LAST);
    all.p.ops_len = (uint8_t)n;
    for (uint32_t i = 0; i < n; i++)
        all.ops[i] = (struct io_uring_probe_op){
            .op = (uint8_t)i, .flags = uring_op_known(i) ? IO_URING_OP_SUPPORTED : 0};
    return copyout(&t->ua, arg, &all, sizeof(all.p) + n * sizeof(all.ops[0]));
}

static int reg_buf_ring(struct task *t, struct uring *r, uaddr_t arg, uint32_t count, bool on)
{
    struct io_uring_buf_reg g;

    if (count != 1)
        return -EINVAL;
    if (copyin_obj(&t->ua, &g, arg))
        return -EFAULT;
    /* pad: flags of newer kernels, for rings that the kernel makes. */
    if (g.pad || g.resv[0] || g.resv[1] || g.resv[2])
        return -EINVAL;
    return on ? uring_buf_ring(r, g.bgid, g.ring_addr, g.ring_entries)
              : uring_buf_ring_end(r, g.bgid);
}

static int reg_do(struct task *t, struct uring *r, unsigned op, uaddr_t arg, uint32_t count)
{
    const bool none = uaddr_is_null(arg) && count == 0;

    switch (op) {
    case IORING_REGISTER_BUFFERS:
        return reg_buffers(t, r, arg, count);
    case IORING_UNREGISTER_BUFFERS:
        return none ? uring_set_buffers(r, NULL, 0) : -EINVAL;
    case IORING_REGISTER_FILES:
        return reg_files(t, r, arg, count);
    case IORING_UNREGISTER_FILES:
        return none ? uring_set_files(r, NULL, 0) : -EINVAL;
    case IORING_REGISTER_FILES_UPDATE:
        return reg_files_update(t, r, arg, count);
    case IORING_REGISTER_EVENTFD:
    case IORING_REGISTER_EVENTFD_ASYNC:
        return reg_eventfd(t, r, arg, count);
    case IORING_UNREGISTER_EVENTFD:
        return none ? uring_set_eventfd(r, NULL) : -EINVAL;
    case IORING_REGISTER_PROBE:
        return reg_probe(t, arg, count);
    case IORING_REGISTER_PBUF_RING:
    case IORING_UNREGISTER_PBUF_RING:
        return reg_buf_ring(t, r, arg, count, op == IORING_REGISTER_PBUF_RING);
    case IORING_REGISTER_ENABLE_RINGS:
        if (!none)
            return -EINVAL;
        if (!uring_disabled(r))
            return -EBADFD;
        uring_enable(r);
        return 0;
    default:
        return -EINVAL;
    }
}

int64_t sys_io_uring_register(struct task *t, int fd, unsigned op, uaddr_t arg, unsigned count)
{
    struct file *f;
    int r = task_file(t, fd, &f);

    if (r)
        return r;
    r = uring_of(f) ? reg_do(t, uring_of(f), op, arg, count) : -EOPNOTSUPP;
    file_put(f);
    return r;
}
