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

#define REG_SKIPPED 1 /* a slot stays as it is: IORING_REGISTER_FILES_SKIP */

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

/* What comes from the guest: descriptors, -1 for empty slots, and tags. */
struct reg_source {
    uaddr_t fds, tags; /* null: all empty; none */
};

static int reg_slot(struct task *t, const struct reg_source *src, uint32_t i,
                    struct uring_slot *out)
{
    int fd = -1;

    *out = (struct uring_slot){.file = NULL};
    if (!uaddr_is_null(src->tags) &&
        copyin_obj(&t->ua, &out->tag, uaddr_add(src->tags, i * sizeof(out->tag))))
        return -EFAULT;
    if (!uaddr_is_null(src->fds) && copyin_obj(&t->ua, &fd, uaddr_add(src->fds, i * sizeof(fd))))
        return -EFAULT;
    if (fd < 0 && out->tag)
        return -EINVAL;
    if (fd == IORING_REGISTER_FILES_SKIP)
        return REG_SKIPPED;
    return reg_file(t, fd, &out->file);
}

static int reg_files(struct task *t, struct uring *r, const struct reg_source *src, uint32_t count)
{
    uint32_t n = 0;
    int err = 0;

    if (count == 0)
        return -EINVAL;
    if (count > LIMIT_URING_FILES || count > task_rlimit(t, RLIMIT_NOFILE))
        return -EMFILE;
    struct uring_slot *slots = calloc(count, sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    for (; err == 0 && n < count; n++) {
        err = reg_slot(t, src, n, &slots[n]);
        if (err == REG_SKIPPED)
            err = -EBADF;
    }
    if (err == 0)
        return uring_set_files(r, slots, count);
    uring_slots_free(slots, count);
    return err;
}

static int reg_files2(struct task *t, struct uring *r, uaddr_t arg, uint32_t size)
{
    struct io_uring_rsrc_register a;

    if (size != sizeof(a))
        return -EINVAL;
    if (copyin_obj(&t->ua, &a, arg))
        return -EFAULT;
    const bool sparse = a.flags & IORING_RSRC_REGISTER_SPARSE;
    if (!a.nr || a.resv2 || a.flags & ~IORING_RSRC_REGISTER_SPARSE || (sparse && a.data))
        return -EINVAL;
    const struct reg_source src = {.fds = uaddr(a.data), .tags = uaddr(a.tags)};
    return reg_files(t, r, &src, a.nr);
}

static int reg_update(struct task *t, struct uring *r, const struct reg_source *src,
                      uint32_t offset, uint32_t count)
{
    const uint32_t slots = uring_file_slots(r);
    uint32_t n = 0, end;
    int err = 0;

    if (!slots)
        return -ENXIO;
    if (__builtin_add_overflow(offset, count, &end))
        return -EOVERFLOW;
    if (end > slots)
        return -EINVAL;
    for (; n < count; n++) {
        struct uring_slot s;
        err = reg_slot(t, src, n, &s);
        if (err == REG_SKIPPED)
            continue;
        if (err == 0)
            err = uring_set_file(r, offset + n, s.file, s.tag);
        if (err)
            break;
    }
    return n ? (int)n : err;
}

static int reg_files_update(struct task *t, struct uring *r, uaddr_t arg, uint32_t count)
{
    struct io_uring_files_update u;

    if (copyin_obj(&t->ua, &u, arg))
        return -EFAULT;
    if (u.resv || !count)
        return -EINVAL;
    const struct reg_source src = {.fds = uaddr(u.fds)};
    return reg_update(t, r, &src, u.offset, count);
}

static int reg_files_update2(struct task *t, struct uring *r, uaddr_t arg, uint32_t size)
{
    struct io_uring_rsrc_update2 u;

    if (size != sizeof(u))
        return -EINVAL;
    if (copyin_obj(&t->ua, &u, arg))
        return -EFAULT;
    if (!u.nr || u.resv || u.resv2)
        return -EINVAL;
    const struct reg_source src = {.fds = uaddr(u.data), .tags = uaddr(u.tags)};
    return reg_update(t, r, &src, u.offset, u.nr);
}

static int reg_alloc_range(struct task *t, struct uring *r, uaddr_t arg)
{
    struct io_uring_file_index_range range;

    if (copyin_obj(&t->ua, &range, arg))
        return -EFAULT;
    return range.resv ? -EINVAL : uring_alloc_range(r, range.off, range.len);
}

/* Wherever there is room, and the guest is told where. */
static int64_t update_anywhere(struct task *t, struct uring *r, const struct io_uring_sqe *s)
{
    uint32_t n = 0;
    int err = 0;

    for (; n < s->len; n++) {
        const uaddr_t at = uaddr(s->addr + n * sizeof(int));
        struct file *f;
        int fd;
        err = copyin_obj(&t->ua, &fd, at);
        if (err == 0)
            err = fd < 0 ? -EBADF : reg_file(t, fd, &f);
        if (err)
            break;
        const int slot = uring_alloc_file(r, f);
        err = slot < 0 ? slot : copyout_obj(&t->ua, at, &slot);
        if (err && slot >= 0)
            (void)!uring_clear_file(r, (uint32_t)slot);
        if (err)
            break;
    }
    return n ? (int64_t)n : err;
}

int64_t uring_files_update(struct task *t, struct uring *r, const struct io_uring_sqe *s)
{
    const struct reg_source src = {.fds = uaddr(s->addr)};

    if (!s->len || s->rw_flags || s->splice_fd_in)
        return -EINVAL;
    return s->off == IORING_FILE_INDEX_ALLOC ? update_anywhere(t, r, s)
                                             : reg_update(t, r, &src, (uint32_t)s->off, s->len);
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
        struct io_uring_probe_op ops[URING_OP_END];
    } all = {.p = {.last_op = URING_OP_END - 1}};

    if (count > 256)
        return -EINVAL;
    const uint32_t n = MIN(count, (uint32_t)URING_OP_END);
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
        return uaddr_is_null(arg) ? -EFAULT
                                  : reg_files(t, r, &(struct reg_source){.fds = arg}, count);
    case IORING_REGISTER_FILES2:
        return reg_files2(t, r, arg, count);
    case IORING_UNREGISTER_FILES:
        return none ? uring_set_files(r, NULL, 0) : -EINVAL;
    case IORING_REGISTER_FILES_UPDATE:
        return reg_files_update(t, r, arg, count);
    case IORING_REGISTER_FILES_UPDATE2:
        return reg_files_update2(t, r, arg, count);
    case IORING_REGISTER_FILE_ALLOC_RANGE:
        return uaddr_is_null(arg) || count ? -EINVAL : reg_alloc_range(t, r, arg);
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
