/* Stub processes: from the number to the end. One thread waits for ends; what a process held, its
 * operations page and areas, is free again only when its end has been seen. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/systrap/systrap_priv.h"

#define REAPER_STACK (64u << 10)
#define PROCESS_WARM_AREAS 32

int st_as_alloc(struct st_plat *p, struct st_as **out_as)
{
    struct st_as *as = calloc(1, sizeof(*as));
    int r;

    if (as == NULL)
        return -ENOMEM;
    mutex_lock(&p->mu);
    r = idalloc_lowest(&p->slots, 1, &as->slot);
    mutex_unlock(&p->mu);
    if (r != 0) {
        free(as);
        return -EAGAIN;
    }
    as->base.plat = &p->base;
    ref_init(&as->ref);
    ref_init(&as->life);
    mutex_init(&as->mu, LOCK_RANK_PLATFORM);
    list_init(&as->ctxs);
    list_init(&as->threads);
    list_init(&as->parked);
    list_init(&as->spare);
    list_init(&as->process_node);
    as->cpu = STUB_CPU_FREE;
    as->gone = true;
    memset(st_ops(as), 0, sizeof(struct st_ops));
    patch_as_init(&as->patch, &p->patch, &as->mu, st_ops(as)->areas);
    *out_as = as;
    return 0;
}

/* What the next owner must not find. The first areas, which are used again and again, keep their
 * pages: taking those away costs every CPU that runs the sentry an interrupt. */
static void process_wipe_area(struct st_plat *p, uint32_t area)
{
    const off_t off = (off_t)area * ST_AREA_SIZE;
    unsigned char there[ST_AREA_SIZE / PAGE_SIZE];

    if (area < PROCESS_WARM_AREAS && mincore(p->areas_mem + off, ST_AREA_SIZE, there) == 0) {
        for (size_t i = 0; i < sizeof(there); i++)
            if (there[i] & 1)
                memset(p->areas_mem + off + i * PAGE_SIZE, 0, PAGE_SIZE);
        return;
    }
    if (fallocate(p->areas_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, ST_AREA_SIZE) != 0)
        memset(p->areas_mem + off, 0, ST_AREA_SIZE);
}

static void as_free(struct st_as *as)
{
    struct st_plat *p = st_plat(as->base.plat);
    struct st_thread *t, *next;

    list_for_each_entry_safe (t, next, &as->threads, all) {
        if (!as->lost) {
            process_wipe_area(p, t->area);
            mutex_lock(&p->mu);
            idalloc_free(&p->area_ids, t->area);
            mutex_unlock(&p->mu);
        }
        free(t);
    }
    if (!as->lost) {
        mutex_lock(&p->mu);
        idalloc_free(&p->slots, as->slot);
        mutex_unlock(&p->mu);
    }
    patch_as_fini(&as->patch);
    mutex_destroy(&as->mu);
    stub_queue_fini(&as->queue);
    free(as);
}

static void as_life_put(struct st_as *as)
{
    if (ref_put(&as->life))
        as_free(as);
}

void st_as_put(struct plat_as *base)
{
    struct st_as *as = st_as(base);

    if (!ref_put(&as->ref))
        return;
    st_process_kill(as);
    as_life_put(as);
}

void st_process_kill(struct st_as *as)
{
    /* The number is the process's till its end has been seen, and that makes it gone. */
    mutex_lock(&as->mu);
    if (!atomic_exchange(&as->gone, true))
        (void)syscall(SYS_tgkill, as->pid, as->pid, SIGKILL);
    mutex_unlock(&as->mu);
}

/* ---- ends ---- */

/* The process is a zombie: nobody sends a signal to its number from here on. Whoever waits for its
 * control thread may hold the lock. */
static void process_ended(struct st_as *as)
{
    struct st_ctx *c;

    atomic_store(&st_ops(as)->done, ST_DEAD);
    st_futex_wake(&st_ops(as)->done);
    mutex_lock(&as->mu);
    bool told = atomic_exchange(&as->gone, true);
    list_for_each_entry (c, &as->ctxs, node) {
        atomic_store(&c->shared->turn, ST_TURN_SENTRY);
        st_futex_wake(&c->shared->turn);
    }
    mutex_unlock(&as->mu);
    if (!told)
        log_warn("systrap: stub process %d has ended", as->pid);
}

void st_process_known(struct st_as *as, pid_t pid)
{
    struct st_plat *p = st_plat(as->base.plat);
    bool ended = false;

    as->pid = pid;
    ref_get(&as->life);
    atomic_store(&as->gone, false);
    mutex_lock(&p->mu);
    for (size_t i = 0; i < ST_STRAYS; i++) {
        if (p->strays[i] != pid)
            continue;
        p->strays[i] = 0;
        ended = true;
    }
    if (!ended)
        list_add_tail(&as->process_node, &p->processes);
    mutex_unlock(&p->mu);
    if (ended) {
        process_ended(as);
        as_life_put(as);
    }
}

static struct st_as *process_take(struct st_plat *p, pid_t pid)
{
    struct st_as *as;

    mutex_lock(&p->mu);
    list_for_each_entry (as, &p->processes, process_node) {
        if (as->pid != pid)
            continue;
        list_del(&as->process_node);
        mutex_unlock(&p->mu);
        return as;
    }
    /* Nobody knows of it yet, or it was never told. */
    p->strays[p->stray_next++ % ST_STRAYS] = pid;
    mutex_unlock(&p->mu);
    return NULL;
}

static void *reaper_main(void *arg)
{
    struct st_plat *p = arg;
    siginfo_t si;

    for (;;) {
        memset(&si, 0, sizeof(si));
        if (waitid(P_ALL, 0, &si, WEXITED | WNOWAIT | (int)__WCLONE) != 0) {
            if (errno == EINTR)
                continue;
            return NULL;
        }
        struct st_as *as = process_take(p, si.si_pid);
        const pid_t pid = si.si_pid;
        if (as != NULL)
            process_ended(as);
        (void)waitid(P_PID, (id_t)pid, &si, WEXITED | (int)__WCLONE);
        if (as != NULL)
            as_life_put(as);
    }
}

int st_reaper_start(struct st_plat *p)
{
    pthread_attr_t attr;
    int r = pthread_attr_init(&attr);

    if (r != 0)
        return -r;
    r = pthread_attr_setstacksize(&attr, REAPER_STACK);
    if (r == 0)
        r = pthread_create(&p->reaper, &attr, reaper_main, p);
    (void)pthread_attr_destroy(&attr);
    p->reaping = r == 0;
    return -r;
}
