/* Guests that go for the platform itself: jumps into the stub's code, strange registers, other
 * gates into the kernel, memory that should be gone. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <time.h>

#include "tests/unit/plat_rig.h"

GUEST(code_jump, "    jmp *%rax\n");
GUEST(code_call, "1:  mov $5, %eax\n    syscall\n    jmp 1b\n");
GUEST(code_gate, "    mov $20, %eax\n    int $0x80\n");
GUEST(code_sysenter, "    mov $20, %eax\n    sysenter\n");
GUEST(code_vsyscall, "    mov $0x500000, %edi\n    call *%rbx\n    mov $5, %eax\n    syscall\n");
/* The trap flag and the direction flag, then a call. */
GUEST(code_flags, "    std\n    mov $5, %eax\n    syscall\n    cld\n    pushfq\n"
                  "    orq $0x100, (%rsp)\n    popfq\n    nop\n");
GUEST(code_vdso, "    call *%rbx\n    mov $5, %eax\n    syscall\n");
GUEST(code_write, "    mov $1, %eax\n    mov %eax, (%rdi)\n    mov $5, %eax\n    syscall\n");

/* The same numbers every time. */
static uint64_t seed = 1;

static uint64_t random_below(uint64_t bound)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (seed >> 33) % bound;
}

#ifdef RIG_PTRACE
/* Every address in the stub's page, with whatever registers: nothing but events, and no host call
 * is made. */
Test(plat_hostile, jumps_into_the_stub)
{
    struct rig r;
    struct plat_fault f;

    RIG_START(&r, code_jump);
    uint64_t size;
    const uint64_t text = rig_text(r.plat, &size);
    const struct plat_regs start = *plat_ctx_regs(r.ctx);
    for (uint64_t off = 0; off < size + 16; off++) {
        struct plat_regs *regs = plat_ctx_regs(r.ctx);
        *regs = start;
        regs->rax = text + off;
        /* If it were made: munmap(everything), through the batch loop from the guest's own page. */
        uint64_t *op = rig_data(&r);
        memset(op, 0, PAGE_SIZE);
        op[0] = SYS_munmap;
        op[2] = text;
        regs->r12 = DATA;
        regs->r13 = 3;
        regs->rsi = text;
        regs->rsp = DATA + 2048;
        enum plat_event e = plat_ctx_run(r.ctx, false, &f);
        cr_assert(e == PLAT_EVENT_SYSCALL || e == PLAT_EVENT_FAULT, "offset %lu: event %d",
                  (unsigned long)off, (int)e);
        cr_assert(kill(rig_pid(r.as), 0) == 0);
    }
    rig_end(&r);
}
#endif

Test(plat_hostile, registers_no_program_has)
{
    static const uint64_t values[] = {0,          1,          0x23,       0x33,
                                      0x2b,       8,          0xffff,     UINT64_C(1) << 47,
                                      UINT64_MAX, 0x80000000, 0xdeadbeef, UINT64_C(-4096)};
    struct rig r;
    struct plat_fault f;

    RIG_START(&r, code_call);
    const struct plat_regs start = *plat_ctx_regs(r.ctx);
    for (int i = 0; i < 3000; i++) {
        struct plat_regs *regs = plat_ctx_regs(r.ctx);
        uint64_t *word = (uint64_t *)regs;
        *regs = start;
        for (int n = 0; n < 3; n++)
            word[random_below(27)] = values[random_below(ARRAY_SIZE(values))];
        enum plat_event e = plat_ctx_run(r.ctx, false, &f);
        cr_assert(e == PLAT_EVENT_SYSCALL || e == PLAT_EVENT_FAULT, "round %d: event %d", i,
                  (int)e);
    }
    *plat_ctx_regs(r.ctx) = start;
    cr_assert_eq(rig_call(r.ctx), 5);
    rig_end(&r);
}

Test(plat_hostile, the_32_bit_gates_fault)
{
    struct rig r;
    struct plat_fault f;

    RIG_START(&r, code_gate);
    for (int i = 0; i < 3; i++) {
        plat_ctx_regs(r.ctx)->rip = CODE;
        plat_ctx_regs(r.ctx)->rcx = 0;
        cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_FAULT);
        cr_assert(f.signo == SIGSEGV && f.code == SI_KERNEL);
        cr_assert_eq(plat_ctx_regs(r.ctx)->rip, CODE + 5);
        cr_assert_eq(plat_ctx_regs(r.ctx)->rax, 20);
    }
    rig_end(&r);
    RIG_START(&r, code_sysenter);
    plat_ctx_regs(r.ctx)->rsp = DATA + 256;
    cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_FAULT);
    rig_end(&r);
}

/* Old programs call there. The host may offer the page or not; it never answers itself. */
Test(plat_hostile, the_vsyscall_page_is_ours)
{
    static const struct {
        uint64_t addr;
        uint64_t nr;
    } calls[] = {{0xffffffffff600000, SYS_gettimeofday},
                 {0xffffffffff600400, SYS_time},
                 {0xffffffffff600800, SYS_getcpu}};
    struct rig r;
    struct plat_fault f;

    RIG_START(&r, code_vsyscall);
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
        struct plat_regs *regs = plat_ctx_regs(r.ctx);
        regs->rip = CODE;
        regs->rsp = DATA + 1024;
        regs->rbx = calls[i].addr;
        enum plat_event e = plat_ctx_run(r.ctx, false, &f);
        if (e == PLAT_EVENT_FAULT) {
            cr_assert_eq(f.signo, SIGSEGV);
            continue;
        }
        cr_assert_eq(e, PLAT_EVENT_SYSCALL);
        cr_assert(regs->orig_rax == calls[i].nr && regs->rdi == DATA);
        cr_assert_eq(((uint64_t *)rig_data(&r))[0], 0);
        regs->rax = 0;
        cr_assert_eq(rig_call(r.ctx), 5);
    }
    rig_end(&r);
}

Test(plat_hostile, flags_do_not_reach_the_stub)
{
    struct rig r;
    struct plat_fault f;

    RIG_START(&r, code_flags);
    struct plat_regs *regs = plat_ctx_regs(r.ctx);
    regs->rsp = DATA + 1024;
    cr_assert_eq(rig_call(r.ctx), 5);
    cr_assert(regs->eflags & 0x400);
    for (uint64_t i = 0; i < 200; i++)
        cr_assert_eq(plat_as_unmap(r.as, (uaddr_t){0x10000000 + 2 * i * PAGE_SIZE}, PAGE_SIZE), 0);
    cr_assert_eq(plat_as_commit(r.as, r.ctx), 0);
    cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_FAULT);
    cr_assert(f.signo == SIGTRAP && f.trapno == 1);
    /* With the trap flag still on. */
    cr_assert_eq(plat_as_unmap(r.as, (uaddr_t){0x10000000}, PAGE_SIZE), 0);
    cr_assert_eq(plat_as_commit(r.as, r.ctx), 0);
    rig_end(&r);
}

Test(plat_hostile, single_steps)
{
    struct rig r;
    struct plat_fault f;

    RIG_START(&r, code_call);
    cr_assert_eq(plat_ctx_run(r.ctx, true, &f), PLAT_EVENT_FAULT);
    cr_assert(f.signo == SIGTRAP && f.code == TRAP_TRACE);
    cr_assert_eq(plat_ctx_regs(r.ctx)->rip, CODE + 5);
    cr_assert_eq(plat_ctx_regs(r.ctx)->eflags & 0x100, 0);
    cr_assert_eq(plat_ctx_run(r.ctx, true, &f), PLAT_EVENT_SYSCALL);
    enum plat_event e = plat_ctx_run(r.ctx, true, &f);
    cr_assert(e == PLAT_EVENT_FAULT && f.signo == SIGTRAP);
    cr_assert_eq(rig_call(r.ctx), 5);
    rig_end(&r);
}

static void write_at(struct rig *r, uint64_t addr, bool works)
{
    struct plat_fault f;
    struct plat_regs *regs = plat_ctx_regs(r->ctx);

    regs->rip = CODE;
    regs->rdi = addr;
    enum plat_event e = plat_ctx_run(r->ctx, false, &f);
    cr_assert_eq(e, works ? PLAT_EVENT_SYSCALL : PLAT_EVENT_FAULT, "write to %lx: %d",
                 (unsigned long)addr, (int)e);
    if (!works)
        cr_assert(f.signo == SIGSEGV && f.addr == addr && f.trapno == 14);
}

/* The host's vDSO, wherever it has been put, works there as it does here. */
Test(plat_hostile, the_hosts_vdso_works)
{
    struct rig r;
    struct timespec before, after;
    void *vdso = dlopen("linux-vdso.so.1", RTLD_NOW | RTLD_NOLOAD);
    void *fn = vdso != NULL ? dlsym(vdso, "__vdso_clock_gettime") : NULL;

    if (fn == NULL)
        return;
    RIG_START(&r, code_vdso);
    struct plat_regs *regs = plat_ctx_regs(r.ctx);
    cr_assert(r.plat->host_vdso != 0);
    regs->rsp = DATA + 2048;
    regs->rbx = r.plat->host_vdso + ((uint64_t)fn - getauxval(AT_SYSINFO_EHDR));
    regs->rsi = DATA;
    regs->rdi = CLOCK_MONOTONIC;
    clock_gettime(CLOCK_MONOTONIC, &before);
    uint64_t nr = rig_call(r.ctx);
    clock_gettime(CLOCK_MONOTONIC, &after);
    /* With a clock that cannot be read there, it asks; us. */
    cr_assert(nr == 5 || nr == SYS_clock_gettime);
    if (nr == 5) {
        const int64_t *ts = rig_data(&r);
        cr_assert(ts[0] >= before.tv_sec && ts[0] <= after.tv_sec);
        cr_assert(ts[1] > 0 && ts[1] < 1000000000);
    }
    rig_end(&r);
}

/* What is ours in a stub cannot be written, wherever it is, but for the areas of threads. */
Test(plat_hostile, nothing_of_the_stub_can_be_written)
{
    struct rig r;

    RIG_START(&r, code_write);
    uint64_t size;
    const uint64_t text = rig_text(r.plat, &size);
    for (size_t i = 0; i < r.plat->reserved_count; i++) {
        const struct plat_range range = r.plat->reserved[i];
        for (uint64_t a = range.end > text ? MAX(range.start, text) : range.start; a < range.end;
             a += PAGE_SIZE)
            write_at(&r, a, false);
    }
    write_at(&r, DATA, true);
    rig_end(&r);
}

#ifdef RIG_STUBS
/* The whole of what a stub has mapped: two pages of ours, the host's vDSO, what the guest got. */
Test(plat_hostile, nothing_of_the_sentry_is_left)
{
    struct rig r;
    char path[64], line[512];
    int lines = 0;

    RIG_START(&r, code_call);
    cr_assert_eq(rig_call(r.ctx), 5);
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)rig_pid(r.as));
    FILE *f = fopen(path, "re");
    cr_assert(f != NULL);
    while (fgets(line, sizeof(line), f) != NULL) {
        unsigned long start, end;
        bool ok = false;
        cr_assert_eq(sscanf(line, "%lx-%lx", &start, &end), 2);
        for (size_t i = 0; i < r.plat->reserved_count; i++)
            ok |= start >= r.plat->reserved[i].start && end <= r.plat->reserved[i].end;
        ok |= (start == CODE || start == DATA) && end == start + PAGE_SIZE;
        ok |= strstr(line, "[vsyscall]") != NULL;
        cr_assert(ok, "%s", line);
        if (start < UINT64_C(1) << 47)
            cr_assert(strstr(line, "wx") == NULL, "%s", line);
        lines++;
    }
    fclose(f);
    cr_assert(lines >= 4);
    rig_end(&r);
}
#endif

/* Holes are skipped; what lies behind them loses its write access all the same. */
Test(plat_hostile, protection_reaches_over_holes)
{
    struct rig r;
    const uint64_t base = 0x20000000;

    RIG_START(&r, code_write);
    for (uint64_t i = 0; i < 40; i += 3)
        cr_assert_eq(plat_as_map(r.as, (uaddr_t){base + i * PAGE_SIZE}, PAGE_SIZE,
                                 PLAT_READ | PLAT_WRITE, memfile_fd(r.mf), r.data, 0),
                     0);
    write_at(&r, base + 39 * PAGE_SIZE, true);
    cr_assert_eq(
        plat_as_protect(r.as, (uaddr_t){base - (UINT64_C(1) << 28)}, UINT64_C(1) << 29, PLAT_READ),
        0);
    cr_assert_eq(plat_as_commit(r.as, r.ctx), 0);
    for (uint64_t i = 0; i < 40; i += 3)
        write_at(&r, base + i * PAGE_SIZE, false);
    write_at(&r, DATA, true);
    /* In one queue: a mapping that is protected before it was made. */
    cr_assert_eq(plat_as_map(r.as, (uaddr_t){base}, PAGE_SIZE, PLAT_READ | PLAT_WRITE,
                             memfile_fd(r.mf), r.data, 0),
                 0);
    cr_assert_eq(plat_as_protect(r.as, (uaddr_t){base}, PAGE_SIZE, PLAT_READ), 0);
    write_at(&r, base, false);
    rig_end(&r);
}

#ifdef RIG_STUBS
/* A request that fails does not keep the others from being done. */
Test(plat_hostile, failures_are_told_and_the_rest_is_done)
{
    struct rig r;
    const uint64_t base = 0x20000000;

    RIG_START(&r, code_write);
    for (uint64_t i = 0; i < 200; i++) {
        int fd = i % 50 == 7 ? 987654 : memfile_fd(r.mf);
        cr_assert_eq(plat_as_map(r.as, (uaddr_t){base + 2 * i * PAGE_SIZE}, PAGE_SIZE,
                                 PLAT_READ | PLAT_WRITE, fd, r.data, 0),
                     0);
    }
    cr_assert_eq(plat_as_commit(r.as, r.ctx), -EBADF);
    for (uint64_t i = 0; i < 200; i++)
        write_at(&r, base + 2 * i * PAGE_SIZE, i % 50 != 7);
    rig_end(&r);
}
#endif
