/* bench_platform ptrace|systrap|kvm: cost of a platform alone, without a kernel above it: a system
 * call's round trip, a fork of an address space with its end, execve, a thread, mappings, two
 * guests at once. Medians in microseconds. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "platform/kvm/kvm.h"
#include "platform/ptrace/ptrace.h"
#include "platform/systrap/systrap.h"
#include "sentry/mem/memfile.h"

#define CODE UINT64_C(0x400000)
#define BATCHES 9

/* Offset of the code that only computes. */
#define SPIN 16
#define SPINNERS 2
#define CALLS 20000
#define MAPS UINT64_C(0x10000000)

static struct memfile *mf;
static struct plat *plat;
static struct plat_as *as;
static struct plat_ctx *ctx;
static uint64_t code_off;

static double now_us(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void need(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "bench_platform: %s\n", what);
        exit(1);
    }
}

static void map_code(void)
{
    need(plat_as_map(as, (uaddr_t){CODE}, PAGE_SIZE, PLAT_READ | PLAT_EXEC, memfile_fd(mf),
                     code_off, 0) == 0,
         "map");
    plat_ctx_regs(ctx)->rip = CODE;
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

static void child_round(struct plat_as **out_as)
{
    struct plat_ctx *c;
    pthread_t t;

    need(plat_ctx_fork(ctx, out_as, &c) == 0, "fork");
    need(pthread_create(&t, NULL, run_child, c) == 0, "thread");
    (void)pthread_join(t, NULL);
    if (out_as != NULL)
        plat_as_put(*out_as);
}

static void round_fork(void)
{
    struct plat_as *child;

    child_round(&child);
}

static void round_thread(void)
{
    child_round(NULL);
}

/* execve: a fresh address space takes the context over. */
static void round_exec(void)
{
    struct plat_as *fresh;

    need(plat_as_create(plat, &fresh) == 0 && plat_ctx_rebind(ctx, fresh) == 0, "exec");
    plat_as_put(as);
    as = fresh;
    map_code();
    round_call();
}

static void round_map(void)
{
    for (uint64_t i = 0; i < 32; i++)
        need(plat_as_map(as, (uaddr_t){MAPS + 2 * i * PAGE_SIZE}, PAGE_SIZE, PLAT_READ,
                         memfile_fd(mf), code_off, 0) == 0,
             "map");
    need(plat_as_commit(as, ctx) == 0, "commit");
    need(plat_as_unmap(as, (uaddr_t){MAPS}, 64 * PAGE_SIZE) == 0, "unmap");
    need(plat_as_commit(as, ctx) == 0, "commit");
}

/* Guests that only compute, from one parent: how much longer two take than one. */
static void *run_spin(void *arg)
{
    struct plat_ctx *c = arg;
    struct plat_fault f;

    plat_ctx_regs(c)->rip = CODE + SPIN;
    plat_ctx_regs(c)->rcx = 400000000;
    need(plat_ctx_run(c, false, &f) == PLAT_EVENT_SYSCALL, "no end of the computation");
    plat_ctx_destroy(c);
    return NULL;
}

static double spin_time(int count)
{
    struct plat_as *spaces[SPINNERS];
    struct plat_ctx *c[SPINNERS];
    pthread_t t[SPINNERS];
    double start = now_us();

    for (int i = 0; i < count; i++) {
        need(plat_ctx_fork(ctx, &spaces[i], &c[i]) == 0, "fork");
        need(pthread_create(&t[i], NULL, run_spin, c[i]) == 0, "thread");
    }
    for (int i = 0; i < count; i++) {
        (void)pthread_join(t[i], NULL);
        plat_as_put(spaces[i]);
    }
    return now_us() - start;
}

/* Calls of several guests at once, all together. */
static void *run_calls(void *arg)
{
    struct plat_ctx *c = arg;
    struct plat_fault f;

    for (int i = 0; i < CALLS; i++)
        need(plat_ctx_run(c, false, &f) == PLAT_EVENT_SYSCALL, "no system call");
    plat_ctx_destroy(c);
    return NULL;
}

static double calls_time(int count)
{
    struct plat_as *spaces[SPINNERS];
    struct plat_ctx *c[SPINNERS];
    pthread_t t[SPINNERS];
    double start = now_us();

    for (int i = 0; i < count; i++) {
        need(plat_ctx_fork(ctx, &spaces[i], &c[i]) == 0, "fork");
        need(pthread_create(&t[i], NULL, run_calls, c[i]) == 0, "thread");
    }
    for (int i = 0; i < count; i++) {
        (void)pthread_join(t[i], NULL);
        plat_as_put(spaces[i]);
    }
    return (now_us() - start) / (CALLS * count);
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

int main(int argc, char **argv)
{
    /* mov eax, 110; syscall; jmp back; at SPIN: dec rcx; jnz back; jmp to the start */
    static const unsigned char code[] = {0xb8, 0x6e, 0,    0,    0,    0x0f, 0x05, 0xeb,
                                         0xf7, 0,    0,    0,    0,    0,    0,    0,
                                         0x48, 0xff, 0xc9, 0x75, 0xfb, 0xeb, 0xe9};
    static const struct plat_ops *const platforms[] = {&systrap_plat_ops, &ptrace_plat_ops,
                                                       &kvm_plat_ops};
    const struct plat_ops *ops = platforms[0];
    char why[128];

    for (size_t i = 0; i < ARRAY_SIZE(platforms); i++)
        if (argc > 1 && strcmp(argv[1], platforms[i]->name) == 0)
            ops = platforms[i];

    need(memfile_new(UINT64_C(1) << 30, &mf) == 0, "memory file");
    struct plat_config cfg = {.mem_fd = memfile_fd(mf), .device_fd = -1, .decoder_fd = -1};
    double start = now_us();
    need(ops->probe(why, sizeof(why)) == 0, why);
    if (ops->open != NULL)
        need((cfg.device_fd = ops->open()) >= 0, "device");
    need(ops->create(&cfg, &plat) == 0, "platform");
    need(plat_as_create(plat, &as) == 0 && plat_ctx_create(plat, as, &ctx) == 0, "context");
    printf("%-8s %8.2f us\n", "start", now_us() - start);
    need(memfile_alloc(mf, NULL, PAGE_SIZE, &code_off) == 0, "memory");
    memcpy(memfile_ptr(mf, code_off), code, sizeof(code));
    map_code();
    measure("call", round_call, 5000);
    measure("fork", round_fork, 100);
    measure("exec", round_exec, 100);
    measure("thread", round_thread, 100);
    measure("map32", round_map, 100);
    double one = spin_time(1), two = spin_time(SPINNERS);
    printf("%-8s %8.2f times as long as one\n", "compute2", two / one);
    one = calls_time(1);
    two = calls_time(SPINNERS);
    printf("%-8s %8.2f us, two at once %.2f us each\n", "calls", one, SPINNERS * two);
    plat_ctx_destroy(ctx);
    plat_as_put(as);
    plat->ops->destroy(plat);
    memfile_free(mf);
    return 0;
}
