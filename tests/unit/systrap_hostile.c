/* A guest that goes for the code in its own stub: jumps to every byte of it, overwrites the areas,
 * and never gets a host call made that it should not. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define RIG_SYSTRAP
#include "tests/unit/plat_rig.h"

GUEST(code_jump, "    jmp *%rax\n");
GUEST(code_call, "1:  mov $5, %eax\n    syscall\n    jmp 1b\n");
/* Fills [rdi, rsi) with rax over and over. */
GUEST(code_fill, "1:  mov %rdi, %rbx\n"
                 "2:  mov %rax, (%rbx)\n"
                 "    add $8, %rbx\n"
                 "    cmp %rsi, %rbx\n"
                 "    jb 2b\n"
                 "    rol $13, %rax\n"
                 "    jmp 1b\n");

/* The same numbers every time. */
static uint64_t seed = 1;

static uint64_t random_word(void)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return seed >> 16;
}

struct poker {
    struct plat_ctx *ctx;
    _Atomic bool done;
};

/* Interrupts whoever has been in the guest for a while. */
static void *poker_main(void *arg)
{
    struct poker *p = arg;

    for (int i = 0; !atomic_load(&p->done); i++) {
        usleep(500);
        if (i > 4)
            plat_ctx_interrupt(p->ctx);
    }
    return NULL;
}

static enum plat_event run_poked(struct plat_ctx *ctx, struct plat_fault *f)
{
    struct poker p = {.ctx = ctx};
    pthread_t t;

    cr_assert_eq(pthread_create(&t, NULL, poker_main, &p), 0);
    enum plat_event e = plat_ctx_run(ctx, false, f);
    atomic_store(&p.done, true);
    pthread_join(t, NULL);
    return e;
}

/* What a stub must still have after whatever the guest did. */
static void check_maps(struct rig *r)
{
    char path[64], line[512];

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)rig_pid(r->as));
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return;
    while (fgets(line, sizeof(line), f) != NULL) {
        unsigned long start, end;
        bool ok = false;
        cr_assert_eq(sscanf(line, "%lx-%lx", &start, &end), 2);
        for (size_t i = 0; i < r->plat->reserved_count; i++)
            ok |= start >= r->plat->reserved[i].start && end <= r->plat->reserved[i].end;
        ok |= (start == CODE || start == DATA) && end == start + PAGE_SIZE;
        ok |= strstr(line, "[vsyscall]") != NULL;
        cr_assert(ok, "%s", line);
    }
    fclose(f);
}

static int count_threads(pid_t pid)
{
    char path[64], line[128];
    int n = 0;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return 0;
    while (fgets(line, sizeof(line), f) != NULL)
        (void)sscanf(line, "Threads: %d", &n);
    fclose(f);
    return n;
}

/* Registers that would make the calls of the stub's code: a batch in the guest's own page that
 * unmaps everything, clones, and opens; or none. */
static void aim(struct rig *r, int how, uint64_t at)
{
    struct plat_regs *regs = plat_ctx_regs(r->ctx);
    const struct st_plat *p = st_plat(r->plat);
    uint64_t *d = rig_data(r);

    memset(d, 0, PAGE_SIZE);
    regs->rip = CODE;
    regs->rax = at;
    regs->rsp = DATA + 2048;
    regs->r12 = how == 0 ? DATA : p->ops;
    regs->r13 = 7;
    regs->r14 = (uint64_t)st_as(r->as)->slot * PAGE_SIZE;
    regs->r15 = how == 2 ? st_area_addr(p, st_ctx(r->ctx)->thread) : (uint64_t)p->ops_fd;
    regs->rbx = DATA + ST_OPS_FIRST;
    regs->rbp = 2;
    regs->rdi = p->text;
    regs->rsi = how == 0 ? PAGE_SIZE : DATA;
    regs->rdx = PROT_READ | PROT_WRITE | PROT_EXEC;
    regs->r10 = MAP_FIXED | MAP_SHARED;
    regs->r8 = (uint64_t)p->areas_fd;
    regs->r9 = 0;
    ((uint32_t *)d)[ST_OPS_COUNT / 4] = 2;
    d[ST_OPS_FIRST / 8] = how == 1 ? SYS_clone : SYS_munmap;
    d[ST_OPS_FIRST / 8 + 1] = how == 1 ? (uint64_t)ST_PROCESS_FLAGS : 0;
    d[ST_OPS_FIRST / 8 + 2] = p->text;
}

/* Only the sentry starts batches, and only the control thread ends them. */
static void check_batches(const struct rig *r)
{
    const struct st_ops *o = st_ops(st_as(r->as));
    const uint32_t done = atomic_load(&o->done);

    cr_assert(done == ST_DEAD || done == atomic_load(&o->cmd), "%u done of %u", done,
              atomic_load(&o->cmd));
}

static void jump_everywhere(int how)
{
    struct rig r;
    struct plat_fault f;
    const uint64_t size = (uint64_t)(systrap_text_end - systrap_text);
    bool started = false;

    for (uint64_t off = 0; off < size; off++) {
        if (!started)
            RIG_START(&r, code_jump);
        started = true;
        st_plat(r.plat)->patience_ns = 20000000;
        aim(&r, how, st_plat(r.plat)->text + off);
        enum plat_event e = run_poked(r.ctx, &f);
        check_maps(&r);
        check_batches(&r);
        const int threads = count_threads(rig_pid(r.as));
        cr_assert(threads <= 2, "offset %lu: %d threads", (unsigned long)off, threads);
        if (e != PLAT_EVENT_DEAD)
            continue;
        rig_end(&r);
        started = false;
    }
    if (started)
        rig_end(&r);
}

Test(systrap_hostile, jumps_with_a_batch_of_its_own)
{
    jump_everywhere(0);
}

Test(systrap_hostile, jumps_with_a_clone)
{
    jump_everywhere(1);
}

Test(systrap_hostile, jumps_with_its_own_area)
{
    jump_everywhere(2);
}

struct filler {
    struct plat_ctx *ctx;
    enum plat_event event;
};

static void *filler_main(void *arg)
{
    struct filler *fl = arg;
    struct plat_fault f;

    do
        fl->event = plat_ctx_run(fl->ctx, false, &f);
    while (fl->event == PLAT_EVENT_INTERRUPT);
    return NULL;
}

/* One thread scribbles over the area of another that calls: events of any kind, then an end. */
static void fill_round(uint64_t pattern, uint64_t from, uint64_t to)
{
    struct rig r;
    struct plat_fault f;
    struct filler fl = {0};
    pthread_t t;

    RIG_START(&r, code_fill);
    st_plat(r.plat)->patience_ns = 20000000;
    const uint64_t area = st_area_addr(st_plat(r.plat), st_ctx(r.ctx)->thread);
    cr_assert_eq(plat_ctx_fork(r.ctx, NULL, &fl.ctx), 0);
    struct plat_regs *regs = plat_ctx_regs(fl.ctx);
    regs->rax = pattern;
    regs->rdi = area + from;
    regs->rsi = area + to;
    /* The code of the one that calls, behind the other's. */
    memcpy((char *)memfile_ptr(r.mf, r.code) + 512, code_call, (size_t)(code_call_end - code_call));
    cr_assert_eq(pthread_create(&t, NULL, filler_main, &fl), 0);
    for (int i = 0; i < 300; i++) {
        regs = plat_ctx_regs(r.ctx);
        regs->rip = CODE + 512;
        if (run_poked(r.ctx, &f) == PLAT_EVENT_DEAD)
            break;
        check_batches(&r);
    }
    check_maps(&r);
    plat_ctx_destroy(r.ctx);
    r.ctx = NULL;
    st_process_kill(st_as(r.as));
    pthread_join(t, NULL);
    plat_ctx_destroy(fl.ctx);
    cr_assert(fl.event == PLAT_EVENT_DEAD || fl.event == PLAT_EVENT_FAULT, "%d", (int)fl.event);
    rig_end(&r);
}

Test(systrap_hostile, areas_under_fire)
{
    for (int i = 0; i < 4; i++) {
        fill_round(random_word() * random_word(), 0, 128);
        fill_round(random_word(), ST_REGS, ST_REGS + 168);
        fill_round(random_word() << 30, ST_AREA_SIZE - 8192, ST_AREA_SIZE);
        fill_round(0, 0, ST_AREA_SIZE);
    }
}

/* ---- patched sites ---- */

/* One site of each shape. */
GUEST(code_sites, "    nop; nop; nop; nop; nop; nop\n"
                  "1:  mov $5, %eax\n"
                  "    syscall\n"
                  "    mov %rbp, %rax\n"
                  "    syscall\n"
                  "    cmp $-4095, %rax\n"
                  "    jmp 1b\n");

/* As mm maps the code of a file. */
static void map_as_code(struct rig *r)
{
    cr_assert_eq(plat_as_map(r->as, (uaddr_t){CODE}, PAGE_SIZE, PLAT_READ | PLAT_EXEC,
                             memfile_fd(r->mf), r->code, PLAT_MAP_CODE),
                 0);
}

static bool is_patched(struct rig *r, uint64_t addr)
{
    uint64_t code;
    unsigned off;

    return patch_find_site(&st_as(r->as)->patch, addr, &off, &code) != NULL;
}

static void start_patched(struct rig *r)
{
    rig_start(r, code_sites, (size_t)(code_sites_end - code_sites));
    st_plat(r->plat)->patience_ns = 20000000;
    map_as_code(r);
    plat_ctx_regs(r->ctx)->rbp = 6;
    while (!is_patched(r, CODE + 6) || !is_patched(r, CODE + 16)) {
        cr_assert_eq(rig_call(r->ctx), 5);
        cr_assert_eq(rig_call(r->ctx), 6);
    }
    cr_assert_eq(rig_call(r->ctx), 5);
    cr_assert_eq(rig_call(r->ctx), 6);
    cr_assert_eq(st_ctx(r->ctx)->shared->kind, ST_KIND_CALL);
    cr_assert_eq(st_as(r->as)->patch.page_count, 1);
}

/* Into every byte of the table's used part, of the sites' code and of the sites. */
static void jump_into_patches(uint64_t from, uint64_t size)
{
    struct rig r;
    struct plat_fault f;
    bool started = false;

    for (uint64_t off = 0; off < size; off++) {
        if (!started)
            start_patched(&r);
        started = true;
        struct plat_regs *regs = plat_ctx_regs(r.ctx);
        regs->rip = from + off;
        regs->r11 = off % 2 != 0 ? st_area_addr(st_plat(r.plat), st_ctx(r.ctx)->thread) : DATA;
        regs->rcx = random_word();
        regs->rsp = DATA + 2048;
        regs->fs_base = off % 3 != 0 ? 0 : random_word() >> 20;
        enum plat_event e = run_poked(r.ctx, &f);
        check_maps(&r);
        check_batches(&r);
        cr_assert(count_threads(rig_pid(r.as)) <= 2);
        /* Wherever it is stopped, it is in its program, or in none. */
        const uint64_t rip = plat_ctx_regs(r.ctx)->rip;
        if (e == PLAT_EVENT_INTERRUPT || e == PLAT_EVENT_SYSCALL)
            cr_assert(rip < PATCH_CODE || rip >= PATCH_CODE + 2 * PATCH_SLOT, "offset %lu: %lx",
                      (unsigned long)off, (unsigned long)rip);
        if (e != PLAT_EVENT_DEAD)
            continue;
        rig_end(&r);
        started = false;
    }
    if (started)
        rig_end(&r);
}

Test(systrap_hostile, jumps_into_the_code_of_sites)
{
    jump_into_patches(PATCH_CODE, 2 * PATCH_SLOT + 16);
}

Test(systrap_hostile, jumps_into_sites_and_the_table)
{
    jump_into_patches(CODE, 32);
    jump_into_patches(PATCH_TABLE, 32);
}

/* What a thread says of its call is overwritten while it makes calls without signals. */
static void fill_direct(uint64_t pattern, uint64_t from, uint64_t to)
{
    struct rig r;
    struct plat_fault f;
    struct filler fl = {0};
    pthread_t t;

    start_patched(&r);
    const uint64_t area = st_area_addr(st_plat(r.plat), st_ctx(r.ctx)->thread);
    memcpy((char *)memfile_ptr(r.mf, r.code) + 512, code_fill, (size_t)(code_fill_end - code_fill));
    map_as_code(&r);
    cr_assert_eq(plat_ctx_fork(r.ctx, NULL, &fl.ctx), 0);
    struct plat_regs *regs = plat_ctx_regs(fl.ctx);
    regs->rip = CODE + 512;
    regs->rax = pattern;
    regs->rdi = area + from;
    regs->rsi = area + to;
    cr_assert_eq(pthread_create(&t, NULL, filler_main, &fl), 0);
    for (int i = 0; i < 100; i++) {
        regs = plat_ctx_regs(r.ctx);
        regs->rip = CODE;
        regs->rbp = 6;
        if (run_poked(r.ctx, &f) == PLAT_EVENT_DEAD)
            break;
        check_batches(&r);
    }
    check_maps(&r);
    plat_ctx_destroy(r.ctx);
    r.ctx = NULL;
    st_process_kill(st_as(r.as));
    pthread_join(t, NULL);
    plat_ctx_destroy(fl.ctx);
    rig_end(&r);
}

Test(systrap_hostile, direct_calls_under_fire)
{
    for (int i = 0; i < 3; i++) {
        fill_direct(random_word() * random_word(), PATCH_NEGFS, PATCH_AFTER + 8);
        fill_direct(UINT64_C(1) << ST_ANSWER_THERE | random_word() >> 40, ST_ANSWERS, ST_XSAVE);
        fill_direct(random_word(), ST_REGS, ST_REGS + 168);
        fill_direct(PATCH_CODE + random_word() % 512, PATCH_AFTER, PATCH_AFTER + 8);
    }
}

/* A process has nothing of its parent's areas, nor of those a former process had. */
Test(systrap_hostile, areas_are_not_handed_on)
{
    struct rig r;

    RIG_START(&r, code_call);
    for (int i = 0; i < 20; i++) {
        struct plat_as *as;
        struct plat_ctx *child;
        cr_assert_eq(rig_call(r.ctx), 5);
        cr_assert_eq(plat_ctx_fork(r.ctx, &as, &child), 0);
        cr_assert(st_ctx(child)->thread->area != st_ctx(r.ctx)->thread->area);
        const char *top = (char *)st_ctx(child)->shared + ST_AREA_SIZE;
        for (int n = 1; n <= 8192; n++)
            cr_assert_eq(top[-n], 0);
        cr_assert_eq(rig_call(child), 5);
        cr_assert_eq(st_area_addr(st_plat(r.plat), st_ctx(child)->thread), st_plat(r.plat)->areas);
        plat_ctx_destroy(child);
        plat_as_put(as);
        usleep(1000);
    }
    rig_end(&r);
}

/* A thread that ends itself takes its process along. */
Test(systrap_hostile, a_thread_that_exits)
{
    struct rig r;
    struct plat_fault f;
    const unsigned char exit_call[] = {0xb8, SYS_exit, 0, 0, 0};
    const char *at = systrap_text;

    RIG_START(&r, code_jump);
    while (memcmp(at, exit_call, sizeof(exit_call)) != 0)
        cr_assert(++at < systrap_text_end);
    plat_ctx_regs(r.ctx)->rax = st_text_addr(st_plat(r.plat), at);
    cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_DEAD);
    rig_end(&r);
}
