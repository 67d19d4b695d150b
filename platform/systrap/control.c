/* What control threads do for us: mappings, new processes, new threads. */
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <stdlib.h>

#include "base/log.h"
#include "platform/systrap/systrap_priv.h"

/* Threads that were told to end and are looked at, oldest first, before a new area is taken. */
#define THREAD_LOOKS 8

/* Waits for batch number cmd. */
static int control_wait(struct st_as *as, uint32_t cmd, int32_t *out_value)
{
    struct st_ops *o = st_ops(as);
    uint32_t done;

    while ((done = atomic_load(&o->done)) != cmd) {
        if (done == ST_DEAD)
            return -ESRCH;
        st_futex_wait(&o->done, done, UINT64_MAX);
    }
    *out_value = (int32_t)atomic_load(&o->value);
    return (int)MIN(atomic_load(&o->left), (uint32_t)ST_OPS_MAX);
}

/* The control thread is woken where its batch is waited for. */
static void control_place(struct st_as *as)
{
    const struct stub_placer *p = &st_plat(as->base.plat)->placer;
    const int cpu = sched_getcpu();

    if (p->cpu_count < 2 || cpu == as->cpu)
        return;
    stub_place_fetch(p, as->pid);
    as->cpu = cpu;
}

int st_batch_locked(struct st_as *as, size_t count, int32_t *out_value)
{
    struct st_ops *o = st_ops(as);

    *out_value = 0;
    if (atomic_load(&as->gone))
        return -ESRCH;
    control_place(as);
    o->count = (uint32_t)count;
    atomic_store(&o->value, 0);
    atomic_store(&o->left, 0);
    uint32_t cmd = atomic_load(&o->cmd) + 1;
    if (cmd == ST_DEAD)
        cmd = 1;
    atomic_store(&o->cmd, cmd);
    st_futex_wake(&o->cmd);
    return control_wait(as, cmd, out_value);
}

/* ---- threads ---- */

/* Room for one more: a slice of the range of areas, and the memory behind it. */
static int thread_alloc_locked(struct st_as *as, struct st_thread **out_t)
{
    struct st_plat *p = st_plat(as->base.plat);
    struct st_thread *t;

    if (as->thread_count == ST_THREADS)
        return -EAGAIN;
    t = calloc(1, sizeof(*t));
    if (t == NULL)
        return -ENOMEM;
    mutex_lock(&p->mu);
    int r = idalloc_lowest(&p->area_ids, 0, &t->area);
    mutex_unlock(&p->mu);
    if (r != 0) {
        free(t);
        return -EAGAIN;
    }
    t->index = as->thread_count++;
    list_add_tail(&t->all, &as->threads);
    list_init(&t->node);
    *out_t = t;
    return 0;
}

/* As a thread finds it that has just been cloned. */
static void thread_prepare(const struct st_plat *p, const struct st_thread *t)
{
    struct st_shared *s = st_area(p, t);
    const uint64_t addr = st_area_addr(p, t);

    memset(s, 0, sizeof(*s));
    s->stack.ss_sp = (void *)(uintptr_t)(addr + 4096);
    s->stack.ss_size = ST_AREA_SIZE - 4096;
}

static void thread_ops(const struct st_as *as, const struct st_thread *t, struct stub_op ops[2])
{
    const struct st_plat *p = st_plat(as->base.plat);
    const uint64_t addr = st_area_addr(p, t);

    ops[0] = (struct stub_op){.nr = SYS_mmap,
                              .args = {addr, ST_AREA_SIZE, PROT_READ | PROT_WRITE,
                                       MAP_SHARED | MAP_FIXED, (uint64_t)p->areas_fd,
                                       (uint64_t)t->area * ST_AREA_SIZE}};
    ops[1] = (struct stub_op){.nr = SYS_clone,
                              .args = {ST_THREAD_FLAGS, addr + ST_REGS, 0, addr + ST_TURN}};
}

static void thread_drop_locked(struct st_as *as, struct st_thread *t)
{
    struct st_plat *p = st_plat(as->base.plat);

    list_del(&t->all);
    as->thread_count--;
    mutex_lock(&p->mu);
    idalloc_free(&p->area_ids, t->area);
    mutex_unlock(&p->mu);
    free(t);
}

/* One whose thread has ended, or never was. */
static bool thread_spare_locked(struct st_as *as, struct st_thread **out_t)
{
    struct st_plat *p = st_plat(as->base.plat);
    struct st_thread *t;
    int looked = 0;

    list_for_each_entry (t, &as->spare, node) {
        if (atomic_load(&st_area(p, t)->turn) == ST_TURN_SENTRY) {
            list_del(&t->node);
            *out_t = t;
            return true;
        }
        if (++looked == THREAD_LOOKS)
            break;
    }
    return false;
}

static int thread_new_locked(struct st_as *as, struct st_thread **out_t)
{
    struct st_plat *p = st_plat(as->base.plat);
    struct st_thread *t;
    int32_t value;
    const bool fresh = !thread_spare_locked(as, &t);
    int r = fresh ? thread_alloc_locked(as, &t) : 0;

    if (r != 0)
        return r;
    thread_prepare(p, t);
    thread_ops(as, t, st_ops(as)->ops);
    r = st_batch_locked(as, 2, &value);
    if (r == 0 && value > 0) {
        t->tid = value;
        *out_t = t;
        return 0;
    }
    if (r == 2 && fresh)
        thread_drop_locked(as, t);
    else
        /* It is mapped, or nobody knows. */
        list_add(&t->node, &as->spare);
    return r < 0 ? r : -EAGAIN;
}

int st_thread_take_locked(struct st_as *as, struct st_thread **out_t)
{
    if (as->parked_count == 0)
        return thread_new_locked(as, out_t);
    *out_t = list_entry(as->parked.next, struct st_thread, node);
    list_del(&(*out_t)->node);
    as->parked_count--;
    return 0;
}

void st_thread_give_locked(struct st_as *as, struct st_thread *t, bool again)
{
    struct st_shared *s = st_area(st_plat(as->base.plat), t);

    if (again && as->parked_count < ST_PARKED_MAX) {
        list_add(&t->node, &as->parked);
        as->parked_count++;
        return;
    }
    s->command = ST_COMMAND_EXIT;
    atomic_store(&s->turn, ST_TURN_STUB);
    st_futex_wake(&s->turn);
    /* The host gives its turn back when it needs the area no more. */
    list_add_tail(&t->node, &as->spare);
}

/* ---- processes ---- */

/* The batch that the child finds: its first thread. */
static int process_prepare(struct st_as *as, struct st_thread **out_t)
{
    struct st_plat *p = st_plat(as->base.plat);
    struct st_ops *o = st_ops(as);

    mutex_lock(&as->mu);
    int r = thread_alloc_locked(as, out_t);
    if (r == 0) {
        thread_prepare(p, *out_t);
        thread_ops(as, *out_t, o->ops);
        o->count = 2;
        atomic_store(&o->cmd, 1);
    }
    mutex_unlock(&as->mu);
    return r;
}

static int process_clone_locked(struct st_as *from, struct st_as *as, int32_t *out_pid)
{
    const struct st_plat *p = st_plat(from->base.plat);
    bool stale = false;

    /* A mapping that the host refuses is missing in both: each takes the fault on its own. */
    int r = st_flush_locked(from, &stale);
    if (r == -ESRCH || stale)
        return -ESRCH;
    r = patch_fork(&from->patch, &as->patch);
    if (r != 0)
        return r;
    st_ops(from)->ops[0] =
        (struct stub_op){.nr = SYS_clone,
                         .args = {ST_PROCESS_FLAGS, 0, 0, (uint64_t)ST_THREADS * ST_AREA_SIZE,
                                  (uint64_t)as->slot * PAGE_SIZE, p->areas}};
    r = st_batch_locked(from, 1, out_pid);
    return r > 0 ? *out_pid : r;
}

int st_clone_process(struct st_as *from, struct st_as *as)
{
    struct st_thread *t;
    int32_t pid, tid;
    int r = process_prepare(as, &t);

    if (r != 0)
        return r;
    mutex_lock(&from->mu);
    r = process_clone_locked(from, as, &pid);
    as->cpu = from->cpu;
    mutex_unlock(&from->mu);
    /* It ended in between: what it made, if anything, has the number of our operations page. */
    as->lost = r == -ESRCH;
    if (r != 0)
        return r;
    st_process_known(as, pid);
    r = control_wait(as, 1, &tid);
    if (r != 0 || tid <= 0)
        return r < 0 ? r : -EAGAIN;
    t->tid = tid;
    mutex_lock(&as->mu);
    list_add(&t->node, &as->parked);
    as->parked_count++;
    mutex_unlock(&as->mu);
    return 0;
}

/* ---- mappings ---- */

/* stub_call_fn: one call in the process of address space arg. */
static int64_t flush_call(void *arg, const struct stub_op *op)
{
    struct st_as *as = arg;
    int32_t value;

    /* Of a result only errors and equality with what was asked for count. */
    st_ops(as)->ops[0] = *op;
    int r = st_batch_locked(as, 1, &value);
    if (r < 0)
        return r;
    if (r > 0)
        return value;
    return op->nr == SYS_mmap ? (int64_t)op->args[0] : 0;
}

/* A change failed with error. 0 when it is all right after all. */
static int flush_failed(struct st_as *as, const struct stub_change *change, int error, bool *stale)
{
    if (change->kind == STUB_PROTECT && error == -ENOMEM)
        error = stub_protect_parts(change, flush_call, as);
    /* What was there before may be another's by now. */
    if (error != 0 && (change->kind != STUB_MAP || stub_unmap(change, flush_call, as) != 0))
        *stale = true;
    return error;
}

/* The first count changes; those that fail are skipped. Fails only when the stub is gone. */
static int flush_batch(struct st_as *as, size_t count, int *first_error, bool *stale)
{
    struct st_ops *o = st_ops(as);
    size_t done = 0;

    while (done < count) {
        int32_t value;
        for (size_t i = done; i < count; i++)
            stub_change_encode(&o->ops[i - done], &as->queue.changes[i]);
        int left = st_batch_locked(as, count - done, &value);
        if (left <= 0)
            return left;
        done = count - MIN((size_t)left, count - done);
        int r = flush_failed(as, &as->queue.changes[done], value, stale);
        if (r == -ESRCH)
            return r;
        if (*first_error == 0)
            *first_error = r;
        done++;
    }
    return 0;
}

int st_flush_locked(struct st_as *as, bool *stale)
{
    int first_error = 0;

    while (as->queue.count > 0) {
        size_t n = MIN(as->queue.count, (size_t)ST_OPS_MAX);
        int r = flush_batch(as, n, &first_error, stale);
        if (r != 0)
            return r;
        stub_queue_drop(&as->queue, n);
    }
    atomic_store(&as->has_changes, false);
    return first_error;
}
