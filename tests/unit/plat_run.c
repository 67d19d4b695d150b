/* Small machine-code guests on the ptrace platform. */
#include <pthread.h>
#include <stdlib.h>

#include "tests/unit/plat_rig.h"

/* mov eax, nr; syscall; jmp back */
static const unsigned char code_loop[] = {0xb8, 0x6e, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7};

Test(plat_run, system_calls)
{
    struct rig r;
    struct plat_fault f;

    rig_start(&r, code_loop, sizeof(code_loop));
    for (int i = 0; i < 1000; i++) {
        cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
        struct plat_regs *regs = plat_ctx_regs(r.ctx);
        cr_assert(regs->orig_rax == 110);
        cr_assert(regs->rax == (uint64_t)-ENOSYS);
        cr_assert(regs->rip == CODE + 7);
        regs->rax = 42;
    }
    rig_end(&r);
}

Test(plat_run, faults_say_where)
{
    /* mov [rdi], eax; int3; ud2; int 0x80 */
    static const unsigned char code[] = {0x89, 0x07, 0xcc, 0x0f, 0x0b, 0xcd, 0x80};
    struct rig r;
    struct plat_fault f;

    rig_start(&r, code, sizeof(code));
    struct plat_regs *regs = plat_ctx_regs(r.ctx);
    regs->rdi = 0x600010;
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_FAULT);
    cr_assert(f.signo == SIGSEGV && f.code == SEGV_MAPERR && f.addr == 0x600010);
    cr_assert(regs->rip == CODE);
    regs->rdi = DATA;
    regs->rax = 77;
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_FAULT);
    cr_assert(f.signo == SIGTRAP && regs->rip == CODE + 3);
    cr_assert(*(uint32_t *)memfile_ptr(r.mf, r.data) == 77);
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_FAULT);
    cr_assert(f.signo == SIGILL && regs->rip == CODE + 3);
    regs->rip = CODE + 5;
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_FAULT);
    cr_assert(f.signo == SIGSEGV && regs->rip == CODE + 5);
    regs->rip = 0x700000;
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_FAULT);
    cr_assert(f.signo == SIGSEGV && f.access == PLAT_EXEC && f.addr == 0x700000);
    rig_end(&r);
}

/* Memory that was to be replaced may be another's: it goes even if the host refuses what was to
 * come in its place. */
Test(plat_run, a_refused_mapping_leaves_nothing)
{
    /* mov eax, [rdi] */
    static const unsigned char code[] = {0x8b, 0x07, 0xb8, 0x6e, 0, 0, 0, 0x0f, 0x05};
    struct rig r;
    struct plat_fault f;

    rig_start(&r, code, sizeof(code));
    plat_ctx_regs(r.ctx)->rdi = DATA;
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
    int refused[2];
    cr_assert(pipe(refused) == 0);
    int err = plat_as_map(r.as, uaddr(DATA), PAGE_SIZE, PLAT_READ, refused[0], 0, 0);
    cr_assert(err != 0 || plat_as_commit(r.as, r.ctx) != 0);
    plat_ctx_regs(r.ctx)->rip = CODE;
    if (err == 0) {
        cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_FAULT);
        cr_assert(f.signo == SIGSEGV && f.addr == DATA);
    }
    (void)close(refused[0]);
    (void)close(refused[1]);
    rig_end(&r);
}

Test(plat_run, the_host_is_out_of_reach)
{
    /* jmp rax: into the stub's own code, which makes system calls. */
    static const unsigned char code[] = {0xff, 0xe0};
    struct rig r;
    struct plat_fault f;
    uint64_t size;

    rig_start(&r, code, sizeof(code));
    struct plat_regs *regs = plat_ctx_regs(r.ctx);
    regs->rax = rig_text(r.plat, &size);
    enum plat_event e = plat_ctx_run(r.ctx, false, &f);
    cr_assert((e == PLAT_EVENT_SYSCALL && regs->orig_rax == SYS_pause) || e == PLAT_EVENT_FAULT);
    rig_end(&r);
}

Test(plat_run, registers_of_a_thread)
{
    /* mov rax, fs:[0]; add rax, gs:[8]; movq xmm0, rax; syscall */
    static const unsigned char code[] = {0x64, 0x48, 0x8b, 0x04, 0x25, 0,    0,   0, 0,
                                         0x65, 0x48, 0x03, 0x04, 0x25, 8,    0,   0, 0,
                                         0x66, 0x48, 0x0f, 0x6e, 0xc0, 0x0f, 0x05};
    struct rig r;
    struct plat_fault f;
    uint64_t xmm0;

    rig_start(&r, code, sizeof(code));
    uint64_t *data = memfile_ptr(r.mf, r.data);
    data[0] = 1000;
    data[1] = 234;
    struct plat_regs *regs = plat_ctx_regs(r.ctx);
    regs->fs_base = DATA;
    regs->gs_base = DATA;
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
    cr_assert(regs->orig_rax == 1234);
    char *xs = malloc(r.plat->xstate_size);
    cr_assert(plat_ctx_xstate_get(r.ctx, xs, r.plat->xstate_size) > 0);
    memcpy(&xmm0, xs + 160, sizeof(xmm0));
    cr_assert(xmm0 == 1234);
    xs[24] = (char)0xff; /* MXCSR bits that do not exist */
    xs[27] = (char)0xff;
    cr_assert(plat_ctx_xstate_set(r.ctx, xs, r.plat->xstate_size) == -EINVAL);
    free(xs);
    rig_end(&r);
}

static void *interrupt_main(void *arg)
{
    struct rig *r = arg;

    plat_ctx_interrupt(r->ctx);
    return NULL;
}

Test(plat_run, interrupts_are_never_lost)
{
    static const unsigned char code[] = {0xeb, 0xfe}; /* jmp self */
    struct rig r;
    struct plat_fault f;

    rig_start(&r, code, sizeof(code));
    for (int i = 0; i < 300; i++) {
        pthread_t t;
        cr_assert(pthread_create(&t, NULL, interrupt_main, &r) == 0);
        cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_INTERRUPT);
        pthread_join(t, NULL);
        /* At most one more of it. */
        plat_ctx_interrupt(r.ctx);
        cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_INTERRUPT);
    }
    rig_end(&r);
}

struct child {
    struct plat_ctx *ctx;
    uint64_t seen;
};

static void *child_main(void *arg)
{
    struct child *c = arg;
    struct plat_fault f;

    plat_ctx_regs(c->ctx)->rax = 0;
    if (plat_ctx_run(c->ctx, false, &f) == PLAT_EVENT_SYSCALL)
        c->seen = plat_ctx_regs(c->ctx)->orig_rax;
    plat_ctx_destroy(c->ctx);
    return NULL;
}

static void fork_round(struct rig *r, bool own_memory)
{
    struct plat_as *as = NULL;
    struct child c = {0};
    pthread_t t;

    cr_assert(plat_ctx_fork(r->ctx, own_memory ? &as : NULL, &c.ctx) == 0);
    cr_assert(pthread_create(&t, NULL, child_main, &c) == 0);
    pthread_join(t, NULL);
    cr_assert(c.seen == 110, "child made call %lu", (unsigned long)c.seen);
    if (as != NULL)
        plat_as_put(as);
}

Test(plat_run, forks_and_threads)
{
    struct rig r;
    struct plat_fault f;

    rig_start(&r, code_loop, sizeof(code_loop));
    for (int i = 0; i < 50; i++) {
        cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
        fork_round(&r, true);
        fork_round(&r, false);
    }
    rig_end(&r);
}

Test(plat_run, exec_moves_the_context)
{
    struct rig r;
    struct plat_fault f;

    rig_start(&r, code_loop, sizeof(code_loop));
    for (int i = 0; i < 20; i++) {
        struct plat_as *as;
        cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
        cr_assert(plat_as_create(r.plat, &as) == 0);
        cr_assert(plat_ctx_rebind(r.ctx, as) == 0);
        plat_as_put(r.as);
        r.as = as;
        cr_assert(plat_as_map(r.as, (uaddr_t){CODE}, PAGE_SIZE, PLAT_READ | PLAT_EXEC,
                              memfile_fd(r.mf), r.code, 0) == 0);
        plat_ctx_regs(r.ctx)->rip = CODE;
    }
    rig_end(&r);
}

Test(plat_run, many_mappings_in_one_batch)
{
    struct rig r;
    struct plat_fault f;

    rig_start(&r, code_loop, sizeof(code_loop));
    for (uint64_t i = 0; i < 1000; i++)
        cr_assert(plat_as_map(r.as, (uaddr_t){UINT64_C(0x10000000) + i * 2 * PAGE_SIZE}, PAGE_SIZE,
                              PLAT_READ, memfile_fd(r.mf), r.data, 0) == 0);
    cr_assert(plat_as_commit(r.as, r.ctx) == 0);
    for (uint64_t i = 0; i < 1000; i++)
        cr_assert(plat_as_unmap(r.as, (uaddr_t){UINT64_C(0x10000000) + i * 2 * PAGE_SIZE},
                                PAGE_SIZE) == 0);
    cr_assert(plat_as_protect(r.as, (uaddr_t){UINT64_C(0x10000000)}, PAGE_SIZE, PLAT_READ) == 0);
    cr_assert(plat_as_commit(r.as, r.ctx) == 0);
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
    /* A foreign commit with the guest outside returns at once. */
    cr_assert(plat_as_unmap(r.as, (uaddr_t){DATA}, PAGE_SIZE) == 0);
    cr_assert(plat_as_commit(r.as, NULL) == 0);
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
    rig_end(&r);
}

struct reader {
    struct plat_ctx *ctx;
    uint64_t last;
    int advances;
};

/* Sees the time go on while the guest runs, however little of a busy machine the guest gets. */
static void *reader_main(void *arg)
{
    struct reader *rd = arg;

    for (int i = 0; i < 10000 && rd->advances < 3; i++) {
        usleep(1000);
        uint64_t now = plat_ctx_cpu_time(rd->ctx);
        if (now < rd->last)
            break;
        rd->advances += now > rd->last + 1000000;
        rd->last = now;
    }
    plat_ctx_interrupt(rd->ctx);
    return NULL;
}

/* It goes on while the guest runs, and never back: not by a second thread, not by execve. */
Test(plat_run, time_in_the_guest)
{
    static const unsigned char code[] = {0xeb, 0xfe}; /* jmp self */
    struct rig r;
    struct plat_fault f;
    uint64_t last = 0;

    rig_start(&r, code, sizeof(code));
    for (int i = 0; i < 3; i++) {
        struct reader rd = {.ctx = r.ctx, .last = last};
        struct plat_ctx *child;
        struct plat_as *as;
        pthread_t t;
        cr_assert(pthread_create(&t, NULL, reader_main, &rd) == 0);
        cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_INTERRUPT);
        pthread_join(t, NULL);
        uint64_t now = plat_ctx_cpu_time(r.ctx);
        cr_assert_eq(rd.advances, 3);
        cr_assert(now >= rd.last);
        usleep(30000);
        cr_assert(plat_ctx_cpu_time(r.ctx) < now + 5000000);
        if (i == 0) {
            cr_assert(plat_ctx_fork(r.ctx, NULL, &child) == 0);
            cr_assert(plat_ctx_cpu_time(child) == 0);
            plat_ctx_destroy(child);
        } else {
            cr_assert(plat_as_create(r.plat, &as) == 0);
            cr_assert(plat_ctx_rebind(r.ctx, as) == 0);
            plat_as_put(r.as);
            r.as = as;
            rig_map_code(&r, as);
            plat_ctx_regs(r.ctx)->rip = CODE;
        }
        last = plat_ctx_cpu_time(r.ctx);
        cr_assert(last >= now);
    }
    rig_end(&r);
}
