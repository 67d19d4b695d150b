/* Guests that go for the machine: ports, privileged instructions, the pages system calls arrive at;
 * and translations that must be gone. */
#include <cpuid.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define RIG_KVM
#include "tests/unit/plat_rig.h"

GUEST(code_port, "    out %al, (%dx)\n");
GUEST(code_port_in, "    in (%dx), %al\n");
GUEST(code_forge, "    mov $39, %eax\n    jmp *%rbx\n");
GUEST(code_jump, "    jmp *%rax\n");
GUEST(code_read, "1:  mov (%rdi), %rax\n    syscall\n    jmp 1b\n");
GUEST(code_write, "1:  mov %rsi, (%rdi)\n    syscall\n    jmp 1b\n");
GUEST(code_call, "1:  mov $5, %eax\n    syscall\n    jmp 1b\n");
/* hlt, cli, mov %rax,%cr3, wrmsr, lgdt (%rdi), invlpg (%rdi), iretq, lretq: 16 bytes each. */
static const uint8_t code_privileged[][16] = {
    {0xf4},
    {0xfa},
    {0x0f, 0x22, 0xd8},
    {0x0f, 0x30},
    {0x0f, 0x01, 0x17},
    {0x0f, 0x01, 0x3f},
    {0x48, 0xcf},
    {0x48, 0xcb},
};
#define PRIVILEGED_COUNT 6

static struct plat_fault rig_fault(struct rig *r)
{
    struct plat_fault f;
    enum plat_event e = plat_ctx_run(r->ctx, false, &f);

    cr_assert_eq(e, PLAT_EVENT_FAULT, "event %d", (int)e);
    return f;
}

/* One instruction, with the port in dx. */
static void check_ports(struct rig *r)
{
    for (uint64_t port = 0; port < 0x10000; port += port < 0x200 ? 1 : 0x3ff) {
        plat_ctx_regs(r->ctx)->rdx = port;
        const struct plat_fault f = rig_fault(r);
        cr_assert(f.signo == SIGSEGV && f.code == SI_KERNEL, "port %#lx", (unsigned long)port);
        cr_assert_eq(plat_ctx_regs(r->ctx)->rip, CODE);
    }
    rig_end(r);
}

Test(kvm_machine, no_port_is_open)
{
    struct rig r;

    RIG_START(&r, code_port);
    check_ports(&r);
}

/* ... and none can be read, those of system calls among them. */
Test(kvm_machine, no_port_can_be_read)
{
    struct rig r;

    RIG_START(&r, code_port_in);
    check_ports(&r);
}

/* By the port of system calls (0x81, in dx too): in and out of one byte, two and four; the same
 * with memory, once and again and again. */
static const uint8_t code_ports[][4] = {
    {0xe4, 0x81},
    {0xe5, 0x81},
    {0x66, 0xe5, 0x81},
    {0xec},
    {0xed},
    {0x66, 0xed},
    {0xe6, 0x81},
    {0xe7, 0x81},
    {0x66, 0xe7, 0x81},
    {0xee},
    {0xef},
    {0x66, 0xef},
    {0x6c},
    {0x6d},
    {0x66, 0x6d},
    {0xf3, 0x6c},
    {0xf3, 0x66, 0x6d},
    {0x6e},
    {0x6f},
    {0x66, 0x6f},
    {0xf3, 0x6e},
    {0xf3, 0x66, 0x6f},
};

/* The next context on the processor: its registers are its own. */
static void port_neighbour(struct rig *r, struct plat_ctx *other, uint64_t rip)
{
    struct plat_regs *regs = plat_ctx_regs(other);
    const struct plat_regs want = {.rip = rip,
                                   .rax = 39,
                                   .rbx = 1,
                                   .rdx = 2,
                                   .rsi = 3,
                                   .rdi = 4,
                                   .rsp = 5,
                                   .rbp = 6,
                                   .r8 = 7,
                                   .eflags = KVM_EFLAGS};

    *regs = want;
    cr_assert_eq(rig_call(other), 39);
    cr_assert_eq(regs->rip, rip + 2);
    cr_assert(regs->rbx == 1 && regs->rdx == 2 && regs->rsi == 3 && regs->rdi == 4 &&
              regs->rsp == 5 && regs->rbp == 6 && regs->r8 == 7);
    cr_assert_eq(kvm_plat(r->plat)->cpu_count, 1);
}

static const uint8_t *rig_code(struct rig *r, uint64_t at)
{
    return (const uint8_t *)memfile_ptr(r->mf, r->code) + (at - CODE);
}

static void port_try(struct rig *r, struct plat_ctx *other, uint64_t at, uint64_t rdi)
{
    struct plat_fault f;
    struct plat_regs *regs = plat_ctx_regs(r->ctx);

    *regs = (struct plat_regs){.rip = at,
                               .rax = 0x55,
                               .rcx = 5,
                               .rdx = KVM_PORT_SYSCALL,
                               .rsi = DATA,
                               .rdi = rdi,
                               .rsp = DATA + 2048,
                               .r11 = KVM_EFLAGS,
                               .eflags = KVM_EFLAGS};
    f = rig_fault(r);
    cr_assert(f.signo == SIGSEGV, "code at %#lx", (unsigned long)at);
    /* What repeats may have been at its end. */
    cr_assert(regs->rip == at || *rig_code(r, at) == 0xf3, "code at %#lx: fault at %#lx",
              (unsigned long)at, (unsigned long)regs->rip);
    port_neighbour(r, other, CODE + 16 * ARRAY_SIZE(code_ports));
}

/* What a guest began at a port is over when another one comes to its processor. */
Test(kvm_machine, ports_end_with_who_used_them)
{
    uint8_t page[16 * ARRAY_SIZE(code_ports) + 16];
    struct plat_as *as;
    struct plat_ctx *other[2];
    struct rig r;

    memset(page, 0x90, sizeof(page));
    for (size_t i = 0; i < ARRAY_SIZE(code_ports); i++)
        for (size_t n = 0; n < sizeof(code_ports[i]) && code_ports[i][n] != 0; n++)
            page[16 * i + n] = code_ports[i][n];
    memcpy(page + 16 * ARRAY_SIZE(code_ports), "\x0f\x05", 2);
    rig_start(&r, page, sizeof(page));
    kvm_plat(r.plat)->cpu_max = 1;
    cr_assert_eq(plat_ctx_fork(r.ctx, &as, &other[0]), 0);
    cr_assert_eq(plat_ctx_fork(r.ctx, NULL, &other[1]), 0);
    for (size_t i = 0; i < ARRAY_SIZE(other) * ARRAY_SIZE(code_ports); i++) {
        const uint64_t at = CODE + 16 * (i % ARRAY_SIZE(code_ports));
        struct plat_ctx *next = other[i / ARRAY_SIZE(code_ports)];
        port_try(&r, next, at, DATA);
        port_try(&r, next, at, DATA + PAGE_SIZE - 3);
        port_try(&r, next, at, 0);
    }
    plat_ctx_destroy(other[0]);
    plat_ctx_destroy(other[1]);
    plat_as_put(as);
    rig_end(&r);
}

/* Whatever it is taken for, it is the guest's own doing: a call, or a fault. */
Test(kvm_machine, forged_calls_are_calls)
{
    struct rig r;
    struct plat_fault f;
    static const uint64_t targets[] = {
        CODE,      0, UINT64_C(1) << 47, UINT64_MAX, KVM_STUB_VA, KVM_SYSCALL0_VA, KVM_SYSCALL3_VA,
        KVM_IDT_VA};

    RIG_START(&r, code_forge);
    for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
        struct plat_regs *regs = plat_ctx_regs(r.ctx);
        regs->rip = CODE;
        regs->rbx = KVM_SYSCALL3_VA;
        regs->rcx = targets[i];
        regs->r11 = UINT64_MAX & ~UINT64_C(0x100);
        enum plat_event e = plat_ctx_run(r.ctx, false, &f);
        if (e == PLAT_EVENT_FAULT) {
            cr_assert_eq(f.signo, SIGSEGV);
            continue;
        }
        cr_assert(e == PLAT_EVENT_SYSCALL && regs->orig_rax == 39 && regs->rip == targets[i]);
        cr_assert_eq(regs->eflags & ~(uint64_t)(KVM_USER_FLAGS | KVM_EFLAGS), 0);
        /* It goes on there, or cannot. */
        e = plat_ctx_run(r.ctx, false, &f);
        cr_assert(e == PLAT_EVENT_FAULT || e == PLAT_EVENT_SYSCALL, "target %#lx: event %d",
                  (unsigned long)targets[i], (int)e);
    }
    rig_end(&r);
}

Test(kvm_machine, the_upper_half_is_not_the_guests)
{
    static const uint64_t pages[] = {KVM_STUB_VA, KVM_SYSCALL0_VA, KVM_SYSCALL3_VA,
                                     KVM_IDT_VA,  KVM_CPUS_VA,     KVM_CPUS_VA + KVM_CPU_STACK};
    struct rig r;

    RIG_START(&r, code_write);
    for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
        for (uint64_t off = 0; off < PAGE_SIZE; off += 1016) {
            plat_ctx_regs(r.ctx)->rip = CODE;
            plat_ctx_regs(r.ctx)->rdi = pages[i] + off;
            const struct plat_fault f = rig_fault(&r);
            cr_assert(f.signo == SIGSEGV && f.addr == pages[i] + off && f.access == PLAT_WRITE);
        }
    rig_end(&r);
}

/* Wherever it jumps, there is an event, and the processor goes on with the next. */
Test(kvm_machine, jumps_into_the_stub)
{
    struct plat_fault f;
    struct rig r;

    RIG_START(&r, code_jump);
    for (uint64_t off = 0; off < 0x5000; off += off % PAGE_SIZE < 64 ? 1 : 61) {
        struct plat_regs *regs = plat_ctx_regs(r.ctx);
        *regs = (struct plat_regs){.rip = CODE,
                                   .rax = KVM_STUB_VA + off,
                                   .rcx = CODE,
                                   .rsp = DATA + 2048,
                                   .eflags = KVM_EFLAGS};
        enum plat_event e = plat_ctx_run(r.ctx, false, &f);
        cr_assert(e == PLAT_EVENT_FAULT || e == PLAT_EVENT_SYSCALL, "offset %#lx: event %d",
                  (unsigned long)off, (int)e);
    }
    rig_end(&r);
}

Test(kvm_machine, privileged_instructions)
{
    struct rig r;

    rig_start(&r, code_privileged, sizeof(code_privileged));
    for (uint64_t i = 0; i < PRIVILEGED_COUNT; i++) {
        plat_ctx_regs(r.ctx)->rip = CODE + 16 * i;
        plat_ctx_regs(r.ctx)->rdi = DATA;
        const struct plat_fault f = rig_fault(&r);
        cr_assert(f.signo == SIGSEGV && f.code == SI_KERNEL, "instruction %lu: signal %d",
                  (unsigned long)i, f.signo);
        cr_assert_eq(plat_ctx_regs(r.ctx)->rip, CODE + 16 * i);
    }
    rig_end(&r);
}

/* A protection fault, or one of a segment that is not there. */
static bool refused(int signo)
{
    return signo == SIGSEGV || signo == SIGBUS;
}

/* Returns with frames of the guest's choice: the descriptors are not to be had in ring 3. */
Test(kvm_machine, returns_to_other_rings)
{
    struct rig r;

    rig_start(&r, code_privileged, sizeof(code_privileged));
    for (uint64_t selector = 0; selector < 0x100; selector++) {
        uint64_t *stack = rig_data(&r);
        stack[0] = CODE;
        stack[1] = selector;
        stack[2] = KVM_EFLAGS | 0x3000;
        stack[3] = DATA;
        stack[4] = KVM_KERNEL_SS;
        plat_ctx_regs(r.ctx)->rip = CODE + 16 * 6;
        plat_ctx_regs(r.ctx)->rsp = DATA;
        cr_assert(refused(rig_fault(&r).signo), "selector %#lx", (unsigned long)selector);
        if (selector == KVM_USER_CS)
            continue;
        plat_ctx_regs(r.ctx)->rip = CODE + 16 * 7;
        plat_ctx_regs(r.ctx)->rsp = DATA;
        cr_assert(refused(rig_fault(&r).signo), "selector %#lx", (unsigned long)selector);
    }
    rig_end(&r);
}

/* ---- exceptions and kicks ---- */

/* in, ud2, a read of what is not there, int3, nop; and a call. */
static const uint8_t code_faults[][16] = {
    {0xe4, 0x10}, {0x0f, 0x0b}, {0x48, 0x8b, 0x07}, {0xcc}, {0x90}, {0xb8, 5, 0, 0, 0, 0x0f, 0x05},
};
#define FAULTS_COUNT 5u
#define FAULT_CALL (CODE + 16 * FAULTS_COUNT)
#define FAULT_ROUNDS 6000u

static _Atomic bool faults_end;

static void *faults_kick(void *arg)
{
    const struct rig *r = arg;

    for (unsigned i = 0; !atomic_load(&faults_end); i++) {
        plat_ctx_interrupt(r->ctx);
        usleep(20 + i % 37);
    }
    return NULL;
}

/* A kick comes first or the exception does, as a whole: what is run next, in the place of the
 * instruction, does not meet it, and none is lost. */
static void fault_or_kick(struct rig *r, unsigned n, unsigned long *kicks)
{
    struct plat_regs *regs = plat_ctx_regs(r->ctx);
    const uint64_t at = CODE + 16 * n;
    struct plat_fault f;
    enum plat_event e;

    *regs = (struct plat_regs){.rip = at, .rsp = DATA + 2048, .eflags = KVM_EFLAGS};
    e = plat_ctx_run(r->ctx, code_faults[n][0] == 0x90, &f);
    if (e == PLAT_EVENT_FAULT)
        return;
    cr_assert_eq(e, PLAT_EVENT_INTERRUPT);
    cr_assert_eq(regs->rip, at, "instruction %u was executed: its exception is lost", n);
    regs->rip = FAULT_CALL;
    while ((e = plat_ctx_run(r->ctx, false, &f)) == PLAT_EVENT_INTERRUPT)
        continue;
    cr_assert_eq(e, PLAT_EVENT_SYSCALL, "exception %lu of instruction %u at %#lx",
                 (unsigned long)f.trapno, n, (unsigned long)regs->rip);
    ++*kicks;
}

Test(kvm_machine, exceptions_and_kicks, .timeout = 600)
{
    pthread_t kicker;
    struct rig r;

    rig_start(&r, code_faults, sizeof(code_faults));
    cr_assert_eq(pthread_create(&kicker, NULL, faults_kick, &r), 0);
    for (unsigned n = 0; n < FAULTS_COUNT; n++) {
        unsigned long kicks = 0;
        for (unsigned i = 0; i < FAULT_ROUNDS || kicks < FAULT_ROUNDS / 100; i++)
            fault_or_kick(&r, n, &kicks);
    }
    atomic_store(&faults_end, true);
    cr_assert_eq(pthread_join(kicker, NULL), 0);
    rig_end(&r);
}

/* ---- translations ---- */

static uint64_t rig_read(struct rig *r, uint64_t addr)
{
    struct plat_fault f;

    plat_ctx_regs(r->ctx)->rip = CODE;
    plat_ctx_regs(r->ctx)->rdi = addr;
    enum plat_event e = plat_ctx_run(r->ctx, false, &f);
    return e == PLAT_EVENT_SYSCALL ? plat_ctx_regs(r->ctx)->orig_rax : UINT64_MAX;
}

Test(kvm_machine, no_translation_is_stale)
{
    enum { PAGES = 16 };
    const uint64_t at = 0x20000000;
    struct rig r;
    uint64_t off;

    RIG_START(&r, code_read);
    cr_assert_eq(memfile_alloc(r.mf, NULL, PAGES * PAGE_SIZE, &off), 0);
    for (uint64_t i = 0; i < PAGES; i++)
        *(uint64_t *)(void *)((char *)memfile_ptr(r.mf, off) + i * PAGE_SIZE) = 1000 + i;
    for (uint64_t i = 0; i < 500; i++) {
        const uint64_t page = i * 7 % PAGES;
        cr_assert_eq(plat_as_map(r.as, (uaddr_t){at}, PAGE_SIZE, PLAT_READ, memfile_fd(r.mf),
                                 off + page * PAGE_SIZE, 0),
                     0);
        cr_assert_eq(plat_as_commit(r.as, r.ctx), 0);
        cr_assert_eq(rig_read(&r, at), 1000 + page);
        if (i % 3 == 0)
            cr_assert_eq(plat_as_protect(r.as, (uaddr_t){at}, PAGE_SIZE, 0), 0);
        else
            cr_assert_eq(plat_as_unmap(r.as, (uaddr_t){at}, PAGE_SIZE), 0);
        cr_assert_eq(plat_as_commit(r.as, r.ctx), 0);
        cr_assert_eq(rig_read(&r, at), UINT64_MAX);
        if (i % 3 == 0) {
            cr_assert_eq(plat_as_protect(r.as, (uaddr_t){at}, PAGE_SIZE, PLAT_READ), 0);
            cr_assert_eq(rig_read(&r, at), 1000 + page);
        }
    }
    rig_end(&r);
}

/* A file's pages come and go with it; a file that became shorter faults where it was. */
Test(kvm_machine, files)
{
    const uint64_t at = 0x30000000;
    struct rig r;
    int fd = memfd_create("file", MFD_CLOEXEC);

    RIG_START(&r, code_read);
    cr_assert_eq(ftruncate(fd, 8 * (off_t)PAGE_SIZE), 0);
    for (uint64_t i = 0; i < 8; i++)
        cr_assert_eq(pwrite(fd, &i, sizeof(i), (off_t)(i * PAGE_SIZE)), (ssize_t)sizeof(i));
    for (int round = 0; round < 20; round++) {
        cr_assert_eq(plat_as_map(r.as, (uaddr_t){at}, 8 * PAGE_SIZE, PLAT_READ, fd, 0,
                                 round % 2 ? PLAT_MAP_PRIVATE : 0),
                     0);
        for (uint64_t i = 0; i < 8; i++)
            cr_assert_eq(rig_read(&r, at + i * PAGE_SIZE), i);
        cr_assert_eq(ftruncate(fd, 3 * (off_t)PAGE_SIZE), 0);
        for (uint64_t i = 0; i < 8; i++)
            cr_assert_eq(rig_read(&r, at + i * PAGE_SIZE), i < 3 ? i : UINT64_MAX);
        cr_assert_eq(ftruncate(fd, 8 * (off_t)PAGE_SIZE), 0);
        for (uint64_t i = 3; i < 8; i++)
            cr_assert_eq(pwrite(fd, &i, sizeof(i), (off_t)(i * PAGE_SIZE)), (ssize_t)sizeof(i));
        /* The middle is taken out; both ends stay. */
        cr_assert_eq(plat_as_unmap(r.as, (uaddr_t){at + PAGE_SIZE}, PAGE_SIZE), 0);
        cr_assert_eq(plat_as_commit(r.as, r.ctx), 0);
        cr_assert_eq(rig_read(&r, at), 0);
        cr_assert_eq(rig_read(&r, at + PAGE_SIZE), UINT64_MAX);
        cr_assert_eq(rig_read(&r, at + 2 * PAGE_SIZE), 2);
        cr_assert_eq(plat_as_unmap(r.as, (uaddr_t){at}, 8 * PAGE_SIZE), 0);
        cr_assert_eq(plat_as_commit(r.as, r.ctx), 0);
    }
    cr_assert(list_empty(&kvm_plat(r.plat)->windows));
    close(fd);
    rig_end(&r);
}

GUEST(code_watch, "1:  mov $100000, %ecx\n2:  mov (%rdi), %rax\n    dec %ecx\n    jnz 2b\n"
                  "    syscall\n    jmp 1b\n");

#define SHOWN UINT64_C(0x30000000)
#define SHOWN_PAGES 512u

struct watcher {
    struct plat_ctx *ctx;
    _Atomic bool ends;
};

static void *watch_last_page(void *arg)
{
    struct watcher *w = arg;

    plat_ctx_regs(w->ctx)->rip = CODE;
    plat_ctx_regs(w->ctx)->rdi = SHOWN + (SHOWN_PAGES - 1) * PAGE_SIZE;
    while (!atomic_load(&w->ends)) {
        const uint64_t value = rig_call(w->ctx);
        cr_assert(value == 7 || value == 9, "%lu", (unsigned long)value);
    }
    return NULL;
}

static void show(struct rig *r, uint64_t page, uint64_t pages, int fd, uint64_t off)
{
    cr_assert_eq(plat_as_map(r->as, (uaddr_t){SHOWN + page * PAGE_SIZE}, pages * PAGE_SIZE,
                             PLAT_READ, fd, off, 0),
                 0);
}

/* A file that another mapping replaces, in many pieces, is in the machine till none of its pages is
 * shown any more: another thread sees one or the other. */
Test(kvm_machine, files_go_when_nothing_shows_them, .timeout = 600)
{
    const uint64_t size = SHOWN_PAGES * PAGE_SIZE, seven = 7;
    struct watcher w = {.ends = false};
    pthread_t thread;
    struct rig r;
    uint64_t off;
    int fd = memfd_create("file", MFD_CLOEXEC);

    RIG_START(&r, code_watch);
    cr_assert_eq(ftruncate(fd, (off_t)size), 0);
    cr_assert_eq(pwrite(fd, &seven, sizeof(seven), (off_t)(size - PAGE_SIZE)), 8);
    cr_assert_eq(memfile_alloc(r.mf, NULL, size, &off), 0);
    *(uint64_t *)(void *)((char *)memfile_ptr(r.mf, off) + size - PAGE_SIZE) = 9;
    show(&r, 0, SHOWN_PAGES, fd, 0);
    cr_assert_eq(plat_ctx_fork(r.ctx, NULL, &w.ctx), 0);
    cr_assert_eq(pthread_create(&thread, NULL, watch_last_page, &w), 0);
    for (int round = 0; round < 100; round++) {
        for (uint64_t page = 0; page < SHOWN_PAGES; page += 2)
            show(&r, page, 1, memfile_fd(r.mf), off + page * PAGE_SIZE);
        show(&r, 0, SHOWN_PAGES, round % 2 ? fd : memfile_fd(r.mf), round % 2 ? 0 : off);
        cr_assert_eq(plat_as_commit(r.as, r.ctx), 0);
    }
    atomic_store(&w.ends, true);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    plat_ctx_destroy(w.ctx);
    close(fd);
    rig_end(&r);
}

/* The sentry looks at code and stacks of guests now and then: those may be a file's that has become
 * shorter since the machine looked. */
Test(kvm_machine, looks_at_files_that_became_shorter)
{
    const uint64_t at = 0x30000000;
    struct rig r;
    uint8_t byte;
    int fd = memfd_create("file", MFD_CLOEXEC);

    RIG_START(&r, code_read);
    cr_assert_eq(ftruncate(fd, (off_t)PAGE_SIZE), 0);
    cr_assert_eq(pwrite(fd, "\xcd", 1, 0), 1);
    cr_assert_eq(plat_as_map(r.as, (uaddr_t){at}, PAGE_SIZE, PLAT_READ, fd, 0, 0), 0);
    cr_assert(kvm_as_read(kvm_as(r.as), at, &byte, 1));
    cr_assert_eq(byte, 0xcd);
    cr_assert_eq(ftruncate(fd, 0), 0);
    cr_assert(!kvm_as_read(kvm_as(r.as), at, &byte, 1));
    uint16_t two;
    cr_assert(!kvm_as_read(kvm_as(r.as), DATA + PAGE_SIZE - 1, &two, sizeof(two)));
    cr_assert(kvm_as_read(kvm_as(r.as), DATA + PAGE_SIZE - 2, &two, sizeof(two)));
    close(fd);
    rig_end(&r);
}

/* ---- more contexts than processors ---- */

GUEST(code_vectors, "    movq %rsi, %xmm0\n1:  mov $1000000, %ecx\n2:  dec %ecx\n    jnz 2b\n"
                    "    movq %xmm0, %rax\n    syscall\n    jmp 1b\n");

struct lodger {
    struct plat_ctx *ctx;
    uint64_t number;
};

static void *lodge(void *arg)
{
    struct lodger *l = arg;

    plat_ctx_regs(l->ctx)->rip = CODE;
    plat_ctx_regs(l->ctx)->rsi = l->number;
    for (int i = 0; i < 20; i++)
        cr_assert_eq(rig_call(l->ctx), l->number);
    plat_ctx_destroy(l->ctx);
    return NULL;
}

Test(kvm_machine, more_contexts_than_processors, .timeout = 600)
{
    enum { LODGERS = 80 };
    struct lodger l[LODGERS];
    pthread_t t[LODGERS];
    struct rig r;

    RIG_START(&r, code_vectors);
    kvm_plat(r.plat)->cpu_max = 3;
    for (uint64_t i = 0; i < LODGERS; i++) {
        l[i].number = 5000 + i;
        cr_assert_eq(plat_ctx_fork(r.ctx, NULL, &l[i].ctx), 0);
        cr_assert_eq(pthread_create(&t[i], NULL, lodge, &l[i]), 0);
    }
    for (size_t i = 0; i < LODGERS; i++)
        pthread_join(t[i], NULL);
    cr_assert_leq(kvm_plat(r.plat)->cpu_count, 3);
    rig_end(&r);
}

/* ---- hosts that will not do ---- */

struct fake_host {
    int version;
    unsigned long lacks;
};

static int fake_ask(void *arg, unsigned long request, unsigned long what)
{
    const struct fake_host *h = arg;

    return request == KVM_GET_API_VERSION ? h->version : what != h->lacks;
}

Test(kvm_machine, hosts_that_are_too_old)
{
    static const struct {
        struct fake_host host;
        const char *says;
    } hosts[] = {{{11, 0}, "speaks version 11"},
                 {{-ENOTTY, 0}, "is not KVM's"},
                 {{12, KVM_CAP_SYNC_REGS}, "too old: no register synchronisation"},
                 {{12, KVM_CAP_IMMEDIATE_EXIT}, "too old: no immediate exits"},
                 {{12, KVM_CAP_XCRS}, "too old: no XCR0"}};
    char why[128];

    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
        struct fake_host h = hosts[i].host;
        cr_assert_eq(kvm_check(fake_ask, &h, why, sizeof(why)), -ENOTSUP);
        cr_assert(strstr(why, hosts[i].says) != NULL, "%s", why);
    }
    struct fake_host good = {12, 0};
    cr_assert_eq(kvm_check(fake_ask, &good, why, sizeof(why)), 0);
}

/* In a mount namespace where /dev is empty; the test has a process of its own. */
Test(kvm_machine, hosts_without_the_device)
{
    char why[128];

    if (unshare(CLONE_NEWNS) != 0)
        return;
    cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    cr_assert_eq(mount("tmpfs", "/dev", "tmpfs", 0, NULL), 0);
    cr_assert_eq(kvm_plat_ops.probe(why, sizeof(why)), -ENOENT);
    cr_assert(strstr(why, "/dev/kvm: No such file") != NULL, "%s", why);
    close(open("/dev/kvm", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    cr_assert_eq(kvm_plat_ops.probe(why, sizeof(why)), -ENOTSUP);
    cr_assert(strstr(why, "is not KVM's") != NULL, "%s", why);
    cr_assert_eq(chmod("/dev/kvm", 0), 0);
    cr_assert_eq(setresuid(65534, 65534, 65534), 0);
    cr_assert_eq(kvm_plat_ops.probe(why, sizeof(why)), -EACCES);
    cr_assert(strstr(why, "/dev/kvm: Permission denied") != NULL, "%s", why);
}

/* The probe has run, and SYSCALL goes where it found that it arrives. */
Test(kvm_machine, calls_arrive_where_the_probe_says)
{
    struct rig r;

    RIG_START(&r, code_call);
    const struct kvm_plat *p = kvm_plat(r.plat);
    cr_assert_eq(p->cpus[0]->entry, p->ring3_syscall ? KVM_SYSCALL3_VA : KVM_SYSCALL0_VA);
    cr_assert_eq(rig_call(r.ctx), 5);
    const unsigned ring = p->cpus[0]->run->s.regs.sregs.cs.selector & 3;
    cr_assert_eq(ring, p->ring3_syscall ? 3 : 0);
    /* Ring 3 has the port only where it needs it. */
    const uint8_t map = p->cpus[0]->desc[0x800 + 104 + KVM_PORT_SYSCALL / 8];
    cr_assert_eq((map >> KVM_PORT_SYSCALL % 8 & 1) == 0, p->ring3_syscall);
    rig_end(&r);
}

/* As if SYSCALL had come to ring 0, as it does on ordinary hosts: the stub's page there tells of
 * the call, and guest code is gone back to from ring 0. */
Test(kvm_machine, calls_in_ring_0)
{
    struct rig r;

    RIG_START(&r, code_call);
    cr_assert_eq(rig_call(r.ctx), 5);
    struct kvm_vcpu *v = atomic_load(&kvm_ctx(r.ctx)->vcpu);
    struct kvm_sregs *s = &v->run->s.regs.sregs;
    for (uint64_t i = 0; i < 100; i++) {
        s->cs.selector = KVM_KERNEL_CS;
        s->ss.selector = KVM_KERNEL_SS;
        s->cs.dpl = s->ss.dpl = 0;
        v->run->s.regs.regs = (struct kvm_regs){.rip = KVM_SYSCALL0_VA,
                                                .rax = i,
                                                .rcx = CODE,
                                                .rsp = i,
                                                .r11 = KVM_EFLAGS,
                                                .rflags = 2};
        v->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
        __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        cr_assert_eq(kvm_run_once(v), 0);
        cr_assert(v->run->exit_reason == KVM_EXIT_IO && v->run->io.port == KVM_PORT_SYSCALL);
        cr_assert(v->run->s.regs.regs.rax == i && v->run->s.regs.regs.rcx == CODE);
        cr_assert_eq(s->cs.selector & 3, 0);
        plat_ctx_regs(r.ctx)->rsp = DATA + i;
        cr_assert_eq(rig_call(r.ctx), 5);
        cr_assert_eq(plat_ctx_regs(r.ctx)->rsp, DATA + i);
    }
    rig_end(&r);
}

/* ---- what CPUID says ---- */

/* Instructions that programs choose by: none that the processor lacks, and nobody introduces
 * himself who does not on the other platforms. */
Test(kvm_machine, cpuid_is_the_hosts)
{
    const uint32_t simd1 = bit_SSE3 | bit_PCLMUL | bit_SSSE3 | bit_FMA | bit_CMPXCHG16B |
                           bit_SSE4_1 | bit_SSE4_2 | bit_MOVBE | bit_POPCNT | bit_AES | bit_AVX |
                           bit_F16C | bit_RDRND;
    const uint32_t simd7 = bit_FSGSBASE | bit_BMI | bit_AVX2 | bit_BMI2 | bit_AVX512F | bit_RDSEED |
                           bit_ADX | bit_CLFLUSHOPT | bit_CLWB | bit_SHA;
    struct rig r;
    unsigned found = 0;

    RIG_START(&r, code_call);
    const struct kvm_cpuid2 *table = kvm_plat(r.plat)->cpuid;
    for (uint32_t i = 0; i < table->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &table->entries[i];
        uint32_t a, b, c, d;
        cr_assert(e->function < 0x40000000 || e->function >= 0x50000000);
        __cpuid_count(e->function, e->index, a, b, c, d);
        if (e->function == 1) {
            found++;
            cr_assert_eq((e->ecx ^ c) & (UINT32_C(1) << 31), 0);
            cr_assert_eq(e->ecx & ~c & simd1, 0, "%#x", e->ecx & ~c & simd1);
        } else if (e->function == 7 && e->index == 0) {
            found++;
            cr_assert_eq(e->ebx & ~b & simd7, 0, "%#x", e->ebx & ~b & simd7);
        }
    }
    cr_assert_eq(found, 2);
    rig_end(&r);
}

/* ---- tables with entries of 2 MiB ---- */

/* Where SYSCALL stays in ring 3 the platform makes none, see docs/kvm.md: most of these are looked
 * at from outside. */
struct tables {
    struct rig r;
    struct plat_as *as;
    uint64_t off; /* of TABLES_SIZE bytes of the memory file, a multiple of 2 MiB */
};
#define TABLES_AT UINT64_C(0x40000000)
#define TABLES_SIZE (UINT64_C(8) << 20)
#define TABLES_PAGES (TABLES_SIZE / PAGE_SIZE)

static void tables_start(struct tables *t)
{
    uint64_t off;

    RIG_START(&t->r, code_read);
    t->r.plat->large = KVM_LARGE;
    cr_assert_eq(memfile_alloc(t->r.mf, NULL, 2 * TABLES_SIZE, &off), 0);
    t->off = ALIGN_UP(off, KVM_LARGE);
    cr_assert_eq(plat_as_create(t->r.plat, &t->as), 0);
}

static void tables_end(struct tables *t)
{
    plat_as_put(t->as);
    rig_end(&t->r);
}

static void tables_map(struct tables *t, uint64_t page, uint64_t count, uint64_t from,
                       unsigned access)
{
    cr_assert_eq(plat_as_map(t->as, (uaddr_t){TABLES_AT + page * PAGE_SIZE}, count * PAGE_SIZE,
                             access, memfile_fd(t->r.mf), t->off + from * PAGE_SIZE, 0),
                 0);
}

/* The last entry for addr, as one of 4 KiB; *large: it is one of 2 MiB. */
static uint64_t tables_entry(struct kvm_as *as, uint64_t addr, bool *large)
{
    struct kvm_plat *p = kvm_plat(as->base.plat);
    const uint64_t *table = (const uint64_t *)(const void *)as->root.hva;
    uint64_t entry = 0;

    *large = false;
    for (unsigned shift = 39; shift >= 12; shift -= 9) {
        entry = table[addr >> shift & 511];
        if (entry == 0)
            return 0;
        if (shift == 21 && (entry & PTE_PS)) {
            *large = true;
            return (entry & ~PTE_PS) + (addr & (KVM_LARGE - PAGE_SIZE));
        }
        if (shift > 12)
            table = (const uint64_t *)(const void *)kvm_hva(p, entry & PTE_ADDR);
    }
    return entry;
}

static unsigned tables_large_count(struct tables *t)
{
    unsigned count = 0;

    for (uint64_t at = TABLES_AT; at < TABLES_AT + TABLES_SIZE; at += KVM_LARGE) {
        bool large;
        (void)tables_entry(kvm_as(t->as), at, &large);
        count += large;
    }
    return count;
}

Test(kvm_machine, large_entries_come_and_go)
{
    struct tables t;
    struct plat_as *child;
    bool large;

    tables_start(&t);
    tables_map(&t, 0, TABLES_PAGES, 0, PLAT_READ | PLAT_WRITE);
    cr_assert_eq(tables_large_count(&t), 4);
    /* As a whole, in place. */
    cr_assert_eq(plat_as_protect(t.as, (uaddr_t){TABLES_AT}, TABLES_SIZE, PLAT_READ), 0);
    cr_assert_eq(tables_large_count(&t), 4);
    cr_assert_eq(tables_entry(kvm_as(t.as), TABLES_AT, &large) & PTE_W, 0);
    cr_assert_eq(kvm_as(t.as)->zap_count, 1);
    cr_assert_eq(kvm_as(t.as)->zaps[0].size, TABLES_SIZE);
    cr_assert_eq(plat_as_commit(t.as, NULL), 0);
    /* One page of the second: that one only is taken apart, and zapped as a whole. */
    cr_assert_eq(plat_as_unmap(t.as, (uaddr_t){TABLES_AT + KVM_LARGE + 5 * PAGE_SIZE}, PAGE_SIZE),
                 0);
    cr_assert_eq(kvm_as(t.as)->zaps[0].size, KVM_LARGE);
    cr_assert_eq(tables_large_count(&t), 3);
    cr_assert_eq(tables_entry(kvm_as(t.as), TABLES_AT + KVM_LARGE + 5 * PAGE_SIZE, &large), 0);
    cr_assert_neq(tables_entry(kvm_as(t.as), TABLES_AT + KVM_LARGE + 6 * PAGE_SIZE, &large), 0);
    cr_assert_eq(kvm_as_fork(kvm_as(t.as), &child), 0);
    for (uint64_t at = TABLES_AT; at < TABLES_AT + TABLES_SIZE; at += PAGE_SIZE) {
        bool there;
        const uint64_t entry = tables_entry(kvm_as(child), at, &there);
        cr_assert_eq(entry, tables_entry(kvm_as(t.as), at, &large));
        cr_assert_eq(large, there);
    }
    plat_as_put(child);
    /* Memory that does not lie alike gets small ones. */
    cr_assert_eq(plat_as_unmap(t.as, (uaddr_t){TABLES_AT}, TABLES_SIZE), 0);
    cr_assert_eq(tables_large_count(&t), 0);
    tables_map(&t, 0, TABLES_PAGES - 1, 1, PLAT_READ);
    cr_assert_eq(tables_large_count(&t), 0);
    tables_end(&t);
}

GUEST(code_peek_poke, "    mov (%rdi), %rax\n    syscall\n    mov %rsi, (%rdi)\n    syscall\n");
#define PEEK CODE
#define POKE (CODE + 5)

/* True: it could. */
static bool tables_go(struct plat_ctx *c, uint64_t rip, uint64_t page, uint64_t value,
                      uint64_t *out_seen)
{
    struct plat_regs *regs = plat_ctx_regs(c);
    struct plat_fault f;

    regs->rip = rip;
    regs->rdi = TABLES_AT + page * PAGE_SIZE + 8;
    regs->rsi = value;
    enum plat_event e = plat_ctx_run(c, false, &f);
    if (out_seen != NULL)
        *out_seen = regs->orig_rax;
    cr_assert(e == PLAT_EVENT_SYSCALL || (e == PLAT_EVENT_FAULT && f.signo == SIGSEGV));
    return e == PLAT_EVENT_SYSCALL;
}

static void tables_peek_all(struct tables *t, struct plat_ctx *c, uint64_t first)
{
    uint64_t seen;

    (void)t;
    for (uint64_t i = 0; i < TABLES_PAGES; i += 3) {
        cr_assert(tables_go(c, PEEK, i, 0, &seen));
        cr_assert_eq(seen, first + i);
    }
}

static uint64_t *tables_word(struct tables *t, uint64_t page)
{
    char *at = memfile_ptr(t->r.mf, t->off + page * PAGE_SIZE);

    return (uint64_t *)(void *)(at + 8);
}

static void tables_protect(struct tables *t, unsigned access)
{
    cr_assert_eq(plat_as_protect(t->as, (uaddr_t){TABLES_AT}, TABLES_SIZE, access), 0);
    cr_assert_eq(plat_as_commit(t->as, NULL), 0);
}

/* One page of a large entry goes. A host that shadows tables must not see that. */
static void tables_take_apart(struct tables *t, struct plat_ctx *c)
{
    const uint64_t page = PT_ENTRIES + 5;
    uint64_t seen;

    cr_assert_eq(plat_as_unmap(t->as, (uaddr_t){TABLES_AT + page * PAGE_SIZE}, PAGE_SIZE), 0);
    cr_assert_eq(plat_as_commit(t->as, NULL), 0);
    cr_assert(!tables_go(c, PEEK, page, 0, NULL));
    cr_assert(tables_go(c, PEEK, page + 1, 0, &seen));
    cr_assert_eq(seen, *tables_word(t, page + 1));
    tables_map(t, page, 1, 0, PLAT_READ);
    cr_assert(tables_go(c, PEEK, page, 0, &seen));
    cr_assert_eq(seen, *tables_word(t, 0));
}

/* The machine goes through large entries: made once, given other access, and taken out, which every
 * host can have; and taken apart where the host does not shadow them. */
Test(kvm_machine, guests_use_large_entries, .timeout = 600)
{
    struct tables t;
    struct plat_ctx *c, *child;
    struct plat_as *child_as;

    tables_start(&t);
    memcpy(memfile_ptr(t.r.mf, t.r.code), code_peek_poke,
           (size_t)(code_peek_poke_end - code_peek_poke));
    rig_map_code(&t.r, t.as);
    cr_assert_eq(plat_ctx_create(t.r.plat, t.as, &c), 0);
    for (uint64_t i = 0; i < TABLES_PAGES; i++)
        *tables_word(&t, i) = 70000 + i;
    tables_map(&t, 0, TABLES_PAGES, 0, PLAT_READ | PLAT_WRITE);
    cr_assert_eq(tables_large_count(&t), 4);
    tables_peek_all(&t, c, 70000);
    for (uint64_t i = 0; i < TABLES_PAGES; i++) {
        cr_assert(tables_go(c, POKE, i, 90000 + i, NULL));
        cr_assert_eq(*tables_word(&t, i), 90000 + i);
    }
    tables_protect(&t, PLAT_READ);
    cr_assert_eq(tables_large_count(&t), 4);
    for (uint64_t i = 1; i < TABLES_PAGES; i += 100)
        cr_assert(!tables_go(c, POKE, i, 1, NULL));
    tables_peek_all(&t, c, 90000);
    cr_assert_eq(plat_ctx_fork(c, &child_as, &child), 0);
    tables_peek_all(&t, child, 90000);
    tables_protect(&t, PLAT_READ | PLAT_WRITE);
    cr_assert(tables_go(c, POKE, 7, 5, NULL));
    cr_assert(!tables_go(child, POKE, 8, 5, NULL));
    if (!kvm_plat(t.r.plat)->ring3_syscall)
        tables_take_apart(&t, c);
    cr_assert_eq(plat_as_unmap(t.as, (uaddr_t){TABLES_AT}, TABLES_SIZE), 0);
    cr_assert_eq(plat_as_commit(t.as, NULL), 0);
    for (uint64_t i = 0; i < TABLES_PAGES; i += 100)
        cr_assert(!tables_go(c, PEEK, i, 0, NULL));
    plat_ctx_destroy(child);
    plat_as_put(child_as);
    plat_ctx_destroy(c);
    tables_end(&t);
}

/* Whatever is done in whatever order, each page has what it was told last. */
Test(kvm_machine, large_entries_and_a_model)
{
    struct tables t;
    struct {
        uint64_t from;
        unsigned access;
        bool mapped;
    } model[TABLES_PAGES] = {0};
    uint64_t seed = 7, gpa;
    unsigned seen = 0;

    tables_start(&t);
    cr_assert_eq(kvm_mem_gpa(kvm_plat(t.r.plat), t.off, &gpa), 0);
    for (int round = 0; round < 400; round++) {
        /* What has been taken apart stays so: from the start, now and then. */
        if (round % 20 == 0) {
            plat_as_put(t.as);
            cr_assert_eq(plat_as_create(t.r.plat, &t.as), 0);
            memset(model, 0, sizeof(model));
        }
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        const unsigned what = (unsigned)(seed >> 60), access = what % 3 == 0 ? PLAT_READ : 3;
        uint64_t page = (seed >> 20) % TABLES_PAGES, count = (seed >> 36) % 1600 + 1;
        if (what & 1)
            page = ALIGN_DOWN(page, PT_ENTRIES);
        count = MIN(count, TABLES_PAGES - page);
        const uint64_t from = what & 2 ? page : (page + 9) % (TABLES_PAGES - count + 1);
        const uaddr_t at = {TABLES_AT + page * PAGE_SIZE};
        if (what < 8)
            tables_map(&t, page, count, from, access);
        else if (what < 11)
            cr_assert_eq(plat_as_unmap(t.as, at, count * PAGE_SIZE), 0);
        else
            cr_assert_eq(plat_as_protect(t.as, at, count * PAGE_SIZE, access), 0);
        for (uint64_t i = 0; i < count; i++) {
            if (what < 8)
                model[page + i].from = from + i;
            model[page + i].mapped = what < 8 || (what >= 11 && model[page + i].mapped);
            model[page + i].access = access;
        }
        if (round % 5 == 0)
            cr_assert_eq(plat_as_commit(t.as, NULL), 0);
        for (uint64_t i = 0; i < TABLES_PAGES; i++) {
            bool large;
            const uint64_t entry = tables_entry(kvm_as(t.as), TABLES_AT + i * PAGE_SIZE, &large);
            cr_assert_eq(entry != 0, model[i].mapped, "round %d page %lu", round, i);
            if (entry == 0)
                continue;
            cr_assert_eq(entry & PTE_ADDR, gpa + model[i].from * PAGE_SIZE);
            cr_assert_eq((entry & PTE_W) != 0, (model[i].access & PLAT_WRITE) != 0);
            seen += large;
        }
    }
    cr_assert_gt(seen, 0);
    tables_end(&t);
}
