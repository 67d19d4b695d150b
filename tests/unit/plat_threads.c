/* Many threads of one address space: they run, are interrupted, come and go, while their mappings
 * change under them. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "tests/unit/plat_rig.h"

GUEST(code_call, "1:  mov $5, %eax\n    syscall\n    jmp 1b\n");
GUEST(code_spin, "1:  jmp 1b\n");
/* Counts at rdi for ever. */
GUEST(code_touch, "1:  incl (%rdi)\n    jmp 1b\n");

struct worker {
    pthread_t thread;
    struct plat_ctx *ctx;
    int rounds;
    unsigned calls, interrupts, faults;
    uint64_t fault_addr;
    pthread_mutex_t mu; /* whoever interrupts holds it: the context must be there */
    _Atomic bool done;
};

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct plat_fault f;

    for (int i = 0; i < w->rounds; i++) {
        enum plat_event e = plat_ctx_run(w->ctx, false, &f);
        w->calls += e == PLAT_EVENT_SYSCALL;
        w->interrupts += e == PLAT_EVENT_INTERRUPT;
        if (e == PLAT_EVENT_FAULT) {
            w->faults++;
            w->fault_addr = f.addr;
            break;
        }
        cr_assert(e != PLAT_EVENT_DEAD);
    }
    pthread_mutex_lock(&w->mu);
    atomic_store(&w->done, true);
    pthread_mutex_unlock(&w->mu);
    plat_ctx_destroy(w->ctx);
    return NULL;
}

static void worker_start(struct rig *r, struct worker *w, int rounds)
{
    *w = (struct worker){.rounds = rounds, .mu = PTHREAD_MUTEX_INITIALIZER};
    cr_assert_eq(plat_ctx_fork(r->ctx, NULL, &w->ctx), 0);
    cr_assert_eq(pthread_create(&w->thread, NULL, worker_main, w), 0);
}

Test(plat_threads, five_hundred)
{
    enum { N = 500 };
    struct rig r;
    struct worker *w = calloc(N, sizeof(*w));

    RIG_START(&r, code_call);
    for (int i = 0; i < N; i++)
        worker_start(&r, &w[i], 20);
    for (int i = 0; i < N; i++) {
        pthread_join(w[i].thread, NULL);
        cr_assert_eq(w[i].calls, 20);
    }
    cr_assert_eq(rig_call(r.ctx), 5);
    free(w);
    rig_end(&r);
}

/* Threads end and others begin, with interrupts under way to the ones that end. */
Test(plat_threads, interrupts_do_not_hit_parked_threads)
{
    struct rig r;

    RIG_START(&r, code_call);
    for (int i = 0; i < 300; i++) {
        struct worker w;
        worker_start(&r, &w, 3 + i % 5);
        for (int n = 0; n < i % 4; n++) {
            pthread_mutex_lock(&w.mu);
            if (!atomic_load(&w.done))
                plat_ctx_interrupt(w.ctx);
            pthread_mutex_unlock(&w.mu);
        }
        pthread_join(w.thread, NULL);
        cr_assert_eq(w.calls + w.interrupts, (unsigned)(3 + i % 5));
    }
    cr_assert_eq(rig_call(r.ctx), 5);
    rig_end(&r);
}

static void *interrupt_main(void *arg)
{
    struct worker *w = arg;

    while (!atomic_load(&w->done)) {
        plat_ctx_interrupt(w->ctx);
        usleep(50);
    }
    return NULL;
}

/* w.ctx may not be destroyed before the last interrupt. */
Test(plat_threads, a_storm_of_interrupts)
{
    struct rig r;
    struct worker w = {0};
    struct plat_fault f;
    pthread_t t[2];

    RIG_START(&r, code_spin);
    w.ctx = r.ctx;
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, interrupt_main, &w), 0);
    for (int i = 0; i < 500; i++) {
        enum plat_event e = plat_ctx_run(r.ctx, false, &f);
        cr_assert_eq(e, PLAT_EVENT_INTERRUPT, "event %d, signal %d code %d at %lx", (int)e, f.signo,
                     f.code, (unsigned long)plat_ctx_regs(r.ctx)->rip);
        if (i % 10 == 0) {
            cr_assert_eq(plat_as_unmap(r.as, (uaddr_t){0x900000}, PAGE_SIZE), 0);
            cr_assert_eq(plat_as_commit(r.as, r.ctx), 0);
        }
        if (i % 50 == 0) {
            struct plat_as *as;
            struct plat_ctx *child;
            cr_assert_eq(plat_ctx_fork(r.ctx, &as, &child), 0);
            plat_ctx_destroy(child);
            plat_as_put(as);
            cr_assert_eq(plat_ctx_fork(r.ctx, NULL, &child), 0);
            plat_ctx_destroy(child);
        }
    }
    atomic_store(&w.done, true);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    rig_end(&r);
}

/* When commit returns, no thread can use what was taken away, whoever called it. */
static void take_away(bool foreign)
{
    enum { N = 8 };
    struct rig r;
    struct worker w[N];

    RIG_START(&r, code_touch);
    plat_ctx_regs(r.ctx)->rdi = DATA;
    if (!foreign) {
        struct plat_fault f;
        plat_ctx_interrupt(r.ctx);
        cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_INTERRUPT);
    }
    for (int i = 0; i < N; i++)
        worker_start(&r, &w[i], 1000);
    volatile uint32_t *count = rig_data(&r);
    while (*count < 100000)
        usleep(100);
    cr_assert_eq(plat_as_unmap(r.as, (uaddr_t){DATA}, PAGE_SIZE), 0);
    cr_assert_eq(plat_as_commit(r.as, foreign ? NULL : r.ctx), 0);
    uint32_t then = *count;
    usleep(20000);
    cr_assert_eq(*count, then);
    for (int i = 0; i < N; i++) {
        pthread_join(w[i].thread, NULL);
        cr_assert(w[i].faults == 1 && w[i].fault_addr == DATA);
    }
    rig_end(&r);
}

Test(plat_threads, memory_taken_away_by_one_of_them)
{
    take_away(false);
}

Test(plat_threads, memory_taken_away_by_a_stranger)
{
    take_away(true);
}

Test(plat_threads, batches_while_others_run)
{
    struct rig r;
    struct worker w[4];

    RIG_START(&r, code_call);
    for (int i = 0; i < 4; i++)
        worker_start(&r, &w[i], 2000);
    for (uint64_t round = 0; round < 20; round++) {
        for (uint64_t i = 0; i < 100; i++) {
            uaddr_t at = {0x10000000 + 2 * i * PAGE_SIZE};
            int q = round % 2 == 0
                        ? plat_as_map(r.as, at, PAGE_SIZE, PLAT_READ, memfile_fd(r.mf), r.data, 0)
                        : plat_as_unmap(r.as, at, PAGE_SIZE);
            cr_assert_eq(q, 0);
        }
        cr_assert_eq(plat_as_commit(r.as, round % 3 == 0 ? NULL : r.ctx), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(w[i].thread, NULL);
        cr_assert_eq(w[i].calls + w[i].interrupts, 2000);
    }
    rig_end(&r);
}
