/* Cost of the ptrace platform alone, without a kernel above it: a system call's round trip, a fork
 * of an address space with its end, a thread. Prints medians in microseconds. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "platform/ptrace/ptrace.h"
#include "sentry/mem/memfile.h"

#define CODE UINT64_C(0x400000)
#define BATCHES 9

static struct plat_ctx *ctx;

static double now_us(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void need(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "bench_ptrace: %s\n", what);
        exit(1);
    }
}

static void round_call(void)
{
    struct plat_fault f;

    need(plat_ctx_run(ctx, false, &f) == PLAT_EVENT_SYSCALL, "no system call");
}

static void *run_child(void *arg)
{
    struct plat_ctx *c = arg;
    struct plat_fault f;

    need(plat_ctx_run(c, false, &f) == PLAT_EVENT_SYSCALL, "no system call of the child");
    plat_ctx_destroy(c);
    return NULL;
}

static void child_round(struct plat_as **as)
{
    struct plat_ctx *c;
    pthread_t t;

    need(plat_ctx_fork(ctx, as, &c) == 0, "fork");
    need(pthread_create(&t, NULL, run_child, c) == 0, "thread");
    (void)pthread_join(t, NULL);
    if (as != NULL)
        plat_as_put(*as);
}

static void round_fork(void)
{
    struct plat_as *as;

    child_round(&as);
}

static void round_thread(void)
{
    child_round(NULL);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(const char *name, void (*fn)(void), int rounds)
{
    double batch[BATCHES];

    for (int b = 0; b < BATCHES; b++) {
        double start = now_us();
        for (int i = 0; i < rounds; i++)
            fn();
        batch[b] = (now_us() - start) / rounds;
    }
    qsort(batch, BATCHES, sizeof(batch[0]), compare);
    printf("%-8s %8.2f us\n", name, batch[BATCHES / 2]);
}

int main(void)
{
    /* mov eax, 110; syscall; jmp back */
    static const unsigned char code[] = {0xb8, 0x6e, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7};
    struct memfile *mf;
    struct plat *plat;
    struct plat_as *as;
    char why[128];
    uint64_t off;

    need(memfile_new(UINT64_C(1) << 30, &mf) == 0, "memory file");
    const struct plat_config cfg = {.mem_fd = memfile_fd(mf)};
    need(ptrace_plat_ops.probe(why, sizeof(why)) == 0, why);
    need(ptrace_plat_ops.create(&cfg, &plat) == 0, "platform");
    need(plat_as_create(plat, &as) == 0 && plat_ctx_create(plat, as, &ctx) == 0, "context");
    need(memfile_alloc(mf, PAGE_SIZE, &off) == 0, "memory");
    memcpy(memfile_ptr(mf, off), code, sizeof(code));
    need(plat_as_map(as, (uaddr_t){CODE}, PAGE_SIZE, PLAT_READ | PLAT_EXEC, cfg.mem_fd, off, 0) ==
             0,
         "map");
    plat_ctx_regs(ctx)->rip = CODE;
    measure("call", round_call, 5000);
    measure("fork", round_fork, 100);
    measure("thread", round_thread, 100);
    plat_ctx_destroy(ctx);
    plat_as_put(as);
    plat->ops->destroy(plat);
    memfile_free(mf);
    return 0;
}
