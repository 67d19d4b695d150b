/* Memory of the process that a pidfd names: process_madvise(2), process_mrelease(2). */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/process.h"
#include "sentry/mm/uio.h"
#include "syscalls/handlers.h"

static int pidfd_task(struct task *t, int pidfd, struct task **out_task)
{
    struct file *f;
    int r = task_file(t, pidfd, &f);

    if (r)
        return r;
    r = pidfd_pid(f);
    file_put(f);
    return r < 0 ? r : kernel_find_task(t->k, r, false, out_task);
}

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
/* process_madvise_remote_valid(): what changes nothing that the other one can see. */
static bool advice_for_others(int advice)
{
    return advice == MADV_COLD || advice == MADV_PAGEOUT || advice == MADV_WILLNEED ||
           advice == MADV_COLLAPSE;
}

static int advise_mm(struct task *t, int pidfd, int advice, struct mm **out_mm)
{
    struct task *o;
    int err = pidfd_task(t, pidfd, &o);

    if (err)
        return err;
    struct mm *mm = task_get_mm(o);
    if (!mm)
        err = -ESRCH;
    else if (!task_may_access(t, o, TASK_ACCESS_FS))
        err = -EACCES;
    else if (mm != t->ua.mm && !advice_for_others(advice))
        err = -EINVAL;
    else if (mm != t->ua.mm && !task_capable(t, CAP_SYS_NICE))
        err = -EPERM;
    task_put(o);
    if (err && mm)
        mm_put(mm);
    *out_mm = mm;
    return err;
}

static int64_t advise_all(struct task *t, struct mm *mm, const struct uio *u, int advice)
{
    struct plat_ctx *ctx = mm == t->ua.mm ? t->ctx : NULL;
    int64_t done = 0;

    for (size_t i = 0; i < u->seg_count; i++) {
        const struct uio_seg *s = u->segs ? &u->segs[i] : &u->inline_seg;
        int err = mm_madvise(mm, ctx, uaddr(s->base), s->size, advice);
        if (err)
            return done > 0 ? done : err;
        done += (int64_t)s->size;
        if (task_kill_pending(t))
            break;
    }
    return done;
}

int64_t sys_process_madvise(struct task *t, int pidfd, uaddr_t vec, uint64_t count, int advice,
                            unsigned flags)
{
    struct uio_seg *segs = NULL;
    struct mm *mm = NULL;
    struct uio u;

    if (flags != 0)
        return -EINVAL;
    int64_t r = uio_init_iovec(&u, &t->ua, vec, count, &segs);
    if (!r)
        r = advise_mm(t, pidfd, advice, &mm);
    if (!r) {
        r = advise_all(t, mm, &u, advice);
        mm_put(mm);
    }
    free(segs);
    return r;
}

int64_t sys_process_mrelease(struct task *t, int pidfd, unsigned flags)
{
    struct task *o;

    if (flags != 0)
        return -EINVAL;
    int r = pidfd_task(t, pidfd, &o);
    if (r)
        return r;
    r = task_reap_memory(o);
    task_put(o);
    return r;
}
