/* Another process: its memory by process_vm_readv(2), process_vm_writev(2); kcmp(2). */
#include <errno.h>
#include <linux/kcmp.h>
#include <stdlib.h>

#include "base/limits.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/mm/uio.h"
#include "syscalls/handlers.h"

#define PROCVM_BUFFER (64u * 1024)

struct procvm {
    struct uio local;
    struct uio_seg *local_segs;
    struct uio_seg *remote;
    size_t remote_count;
    bool write;
};

/* Unlike those of the caller, the other side's addresses are looked at only when they are used. */
static int procvm_remote(struct task *t, uaddr_t vec, uint64_t count, struct procvm *v)
{
    if (count > LIMIT_IOV)
        return -EINVAL;
    if (count == 0)
        return 0;
    v->remote = calloc(count, sizeof(*v->remote));
    if (!v->remote)
        return -ENOMEM;
    v->remote_count = count;
    int err = copyin_array(&t->ua, v->remote, vec, count, sizeof(*v->remote));
    for (size_t i = 0; i < count && !err; i++) {
        if ((int64_t)v->remote[i].size < 0)
            err = -EINVAL;
    }
    return err;
}

static int procvm_open(struct task *t, int pid, struct mm **out_mm)
{
    struct task *o;
    int err = task_find(t, pid, &o);
    if (err)
        return err;
    if (!task_may_access(t, o, TASK_ACCESS_REAL))
        err = -EPERM;
    struct mm *mm = err ? NULL : task_get_mm(o);
    task_put(o);
    if (!err && !mm)
        err = -ESRCH;
    *out_mm = mm;
    return err;
}

/* Up to size bytes at addr of the other side; bytes done, short at the first bad page. */
static uint64_t procvm_step(struct procvm *v, const struct uaccess *other, uint64_t addr, char *buf,
                            uint64_t size)
{
    if (!v->write) {
        uint64_t n = copyin_partial(other, buf, uaddr(addr), size);
        int64_t done = n > 0 ? uio_copy_to(&v->local, buf, n) : 0;
        return done > 0 ? (uint64_t)done : 0;
    }
    int64_t n = uio_copy_from(&v->local, buf, size);
    if (n <= 0)
        return 0;
    uint64_t done = copyout_partial(other, uaddr(addr), buf, (size_t)n);
    uio_revert(&v->local, (uint64_t)n - done);
    return done;
}

static int64_t procvm_copy(struct task *t, struct procvm *v, struct mm *mm, char *buf)
{
    struct uaccess other = {.mm = mm, .ctx = mm == t->ua.mm ? t->ctx : NULL};
    int64_t total = 0;
    for (size_t i = 0; i < v->remote_count && v->local.left > 0; i++) {
        uint64_t addr = v->remote[i].base, left = v->remote[i].size;
        while (left > 0 && v->local.left > 0) {
            uint64_t want = MIN(left, v->local.left);
            want = MIN(want, (uint64_t)PROCVM_BUFFER);
            uint64_t done = procvm_step(v, &other, addr, buf, want);
            total += (int64_t)done;
            if (done < want)
                return total > 0 ? total : -EFAULT;
            addr += done;
            left -= done;
            if (task_kill_pending(t))
                return total;
        }
    }
    return total;
}

static int64_t procvm_run(struct task *t, int pid, struct procvm *v)
{
    struct mm *mm;
    int err = procvm_open(t, pid, &mm);
    if (err)
        return err;
    char *buf = malloc(PROCVM_BUFFER);
    int64_t r = buf ? procvm_copy(t, v, mm, buf) : -ENOMEM;
    free(buf);
    mm_put(mm);
    return r;
}

static int64_t procvm(struct task *t, int pid, uaddr_t lvec, uint64_t lcount, uaddr_t rvec,
                      uint64_t rcount, uint64_t flags, bool write)
{
    struct procvm v = {.write = write};
    if (flags != 0)
        return -EINVAL;
    int64_t r = uio_init_iovec(&v.local, &t->ua, lvec, lcount, &v.local_segs);
    if (!r && v.local.left > 0) {
        r = procvm_remote(t, rvec, rcount, &v);
        if (!r)
            r = procvm_run(t, pid, &v);
    }
    free(v.remote);
    free(v.local_segs);
    return r;
}

int64_t sys_process_vm_readv(struct task *t, int pid, uaddr_t lvec, uint64_t lcount, uaddr_t rvec,
                             uint64_t rcount, uint64_t flags)
{
    return procvm(t, pid, lvec, lcount, rvec, rcount, flags, false);
}

int64_t sys_process_vm_writev(struct task *t, int pid, uaddr_t lvec, uint64_t lcount, uaddr_t rvec,
                              uint64_t rcount, uint64_t flags)
{
    return procvm(t, pid, lvec, lcount, rvec, rcount, flags, true);
}

/* kcmp(2). */
int64_t sys_kcmp(struct task *t, int pid1, int pid2, int type, uint64_t idx1, uint64_t idx2)
{
    struct task_kcmp q = {.type = type, .idx1 = idx1, .idx2 = idx2};
    struct task *a, *b;
    int r = pid1 > 0 && pid2 > 0 ? task_find(t, pid1, &a) : -ESRCH;

    if (r)
        return r;
    r = task_find(t, pid2, &b);
    if (r) {
        task_put(a);
        return r;
    }
    if (type == KCMP_EPOLL_TFD) {
        struct kcmp_epoll_slot slot = {0};
        q.err = copyin_obj(&t->ua, &slot, uaddr(idx2));
        q.epoll_fd = slot.efd;
        q.target_fd = slot.tfd;
        q.target_nth = slot.toff;
    }
    const int64_t order = task_kcmp(t, a, b, &q);
    task_put(a);
    task_put(b);
    return order;
}
