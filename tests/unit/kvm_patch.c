/* Call sites that are patched to hand over without SYSCALL: calls are what they were, wherever a
 * kick finds them, and a guest that goes for the code of sites has calls of its own choice at most.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#define RIG_KVM
#include "tests/unit/plat_rig.h"

/* One site of each shape: the call that loads its number, and one with what follows moved. */
GUEST(code_sites, "    nop; nop; nop; nop; nop; nop\n"
                  "1:  mov $5, %eax\n"
                  "    syscall\n"
                  "    mov %rbp, %rax\n"
                  "    syscall\n"
                  "    cmp $-4095, %rax\n"
                  "    jmp 1b\n");
GUEST(code_jump, "    jmp *%rax\n");
/* Fills [rdi, rsi) with words that change, between two calls each time. */
GUEST(code_fill, "    nop; nop; nop; nop; nop; nop\n"
                 "1:  mov %rdi, %rbx\n"
                 "2:  rdtsc\n"
                 "    mov %rax, (%rbx)\n"
                 "    add $8, %rbx\n"
                 "    cmp %rsi, %rbx\n"
                 "    jb 2b\n"
                 "    nop\n"
                 "    mov $5, %eax\n"
                 "    syscall\n"
                 "    jmp 1b\n");

/* Behind the calls of code_sites. */
#define AFTER_FIRST (CODE + 13)
#define AFTER_SECOND (CODE + 18)
#define EXCHANGE (KVM_HAND_VA + PAGE_SIZE)
#define FOR_EVER 2000000000u
/* Where the program that jumps is: a page beside the sites. */
#define JUMP (CODE + PAGE_SIZE)

struct sites {
    struct rig r;
    int fd;
};

/* Maps code as mm maps the code of a file. */
static void map_code(struct sites *s)
{
    cr_assert_eq(plat_as_map(s->r.as, (uaddr_t){CODE}, PAGE_SIZE, PLAT_READ | PLAT_EXEC, s->fd, 0,
                             PLAT_MAP_PRIVATE | PLAT_MAP_CODE),
                 0);
}

static enum plat_event sites_run(struct plat_ctx *ctx, struct plat_fault *f)
{
    stub_pace_split(&kvm_ctx(ctx)->pace);
    return plat_ctx_run(ctx, false, f);
}

static void sites_call(struct plat_ctx *ctx, uint64_t nr)
{
    struct plat_fault f;
    enum plat_event e = sites_run(ctx, &f);

    cr_assert_eq(e, PLAT_EVENT_SYSCALL, "event %d, signal %d at %lx", (int)e, f.signo,
                 (unsigned long)plat_ctx_regs(ctx)->rip);
    cr_assert_eq(plat_ctx_regs(ctx)->orig_rax, nr);
}

/* False: nothing is patched on this host. */
static bool sites_start(struct sites *s, const char *code, size_t size, uint32_t spin)
{
    rig_start(&s->r, code_jump, (size_t)(code_jump_end - code_jump));
    struct kvm_plat *p = kvm_plat(s->r.plat);
    s->fd = -1;
    if (p->patch.ops == NULL) {
        rig_end(&s->r);
        return false;
    }
    p->runner_max = 1;
    p->spin = spin;
    s->fd = memfd_create("code", MFD_CLOEXEC);
    cr_assert(s->fd >= 0 && ftruncate(s->fd, PAGE_SIZE) == 0);
    cr_assert_eq(pwrite(s->fd, code, size, 0), (ssize_t)size);
    map_code(s);
    cr_assert_eq(plat_as_map(s->r.as, (uaddr_t){JUMP}, PAGE_SIZE, PLAT_READ | PLAT_EXEC,
                             memfile_fd(s->r.mf), s->r.code, 0),
                 0);
    plat_ctx_regs(s->r.ctx)->rip = CODE;
    return true;
}

#define SITES_START(s, name, spin) sites_start((s), name, (size_t)(name##_end - name), (spin))

static void sites_end(struct sites *s)
{
    rig_end(&s->r);
    close(s->fd);
}

/* The sites of code_sites are patched. */
static bool sites_hot(struct sites *s)
{
    struct patch_as *pa = &kvm_as(s->r.as)->patch;
    uint64_t code;
    unsigned off;

    return patch_find_site(pa, AFTER_FIRST - 7, &off, &code) != NULL &&
           patch_find_site(pa, AFTER_SECOND - 2, &off, &code) != NULL;
}

/* Both sites of code_sites are patched afterwards, and the last call was the second one's. */
static void sites_heat(struct sites *s)
{
    plat_ctx_regs(s->r.ctx)->rbp = 6;
    while (!sites_hot(s)) {
        sites_call(s->r.ctx, 5);
        sites_call(s->r.ctx, 6);
    }
    cr_assert_eq(kvm_as(s->r.as)->patch.page_count, 1);
    cr_assert_eq(kvm_as(s->r.as)->patch.texts[0].fd, s->fd);
}

static bool inside_sites(uint64_t rip)
{
    return rip >= CODE && rip < CODE + (uint64_t)(code_sites_end - code_sites);
}

/* Interrupts a context for ever. */
static void *kick_main(void *arg)
{
    for (;;) {
        plat_ctx_interrupt(arg);
        usleep(60);
        pthread_testcancel();
    }
    return NULL;
}

Test(kvm_patch, registers_come_and_go)
{
    struct sites s;

    if (!SITES_START(&s, code_sites, FOR_EVER))
        return;
    sites_heat(&s);
    struct plat_regs *regs = plat_ctx_regs(s.r.ctx);
    uint64_t *word = (uint64_t *)regs;
    for (uint64_t round = 0; round < 2000; round++) {
        /* r15 to r8 and rdx to rdi, but rbp, r11, rcx and rax. */
        for (size_t i = 0; i < 15; i++)
            if (i != 4 && i != 6 && i != 10 && i != 11)
                word[i] = round * 1000 + i;
        regs->rsp = UINT64_MAX - round;
        /* Also with the nested task and alignment check flags. */
        regs->eflags =
            (round & 0xcd5) | (round & 4 ? 0x4000 : 0) | (round & 8 ? 0x40000 : 0) | KVM_EFLAGS;
        const uint64_t flags = regs->eflags;
        sites_call(s.r.ctx, round % 2 == 0 ? 5 : 6);
        for (size_t i = 0; i < 15; i++)
            if (i != 4 && i != 6 && i != 10 && i != 11)
                cr_assert_eq(word[i], round * 1000 + i, "word %zu", i);
        cr_assert_eq(regs->rip, round % 2 == 0 ? AFTER_FIRST : AFTER_SECOND);
        cr_assert(regs->rcx == regs->rip && regs->r11 == regs->eflags);
        cr_assert_eq(regs->rsp, UINT64_MAX - round);
        /* The comparison behind the second call comes before the first one; the nested task flag is
         * lost when the host has been in between. */
        if (round % 2 != 0)
            cr_assert_eq(regs->eflags & 0x40cd5, flags & 0x40cd5);
    }
    sites_end(&s);
}

/* Wherever a kick finds it, it is in its program, and makes each call once. */
Test(kvm_patch, kicks, .timeout = 600)
{
    struct plat_fault f;
    struct sites s;
    pthread_t t;
    int kicks = 0;

    if (!SITES_START(&s, code_sites, 300))
        return;
    sites_heat(&s);
    struct plat_regs *regs = plat_ctx_regs(s.r.ctx);
    regs->rsp = 0x123456;
    cr_assert_eq(pthread_create(&t, NULL, kick_main, s.r.ctx), 0);
    for (uint64_t next = 5; kicks < 1000;) {
        enum plat_event e = sites_run(s.r.ctx, &f);
        cr_assert(e == PLAT_EVENT_INTERRUPT || e == PLAT_EVENT_SYSCALL, "event %d", (int)e);
        cr_assert(inside_sites(regs->rip), "at %lx", (unsigned long)regs->rip);
        cr_assert_eq(regs->rsp, 0x123456);
        kicks += e == PLAT_EVENT_INTERRUPT;
        if (e != PLAT_EVENT_SYSCALL)
            continue;
        cr_assert_eq(regs->orig_rax, next);
        cr_assert_eq(regs->rip, next == 5 ? AFTER_FIRST : AFTER_SECOND);
        next = 11 - next;
    }
    pthread_cancel(t);
    pthread_join(t, NULL);
    sites_end(&s);
}

/* A call that is to be made again is, from the site; so is one in the middle that is jumped to. */
Test(kvm_patch, made_again)
{
    struct sites s;

    if (!SITES_START(&s, code_sites, FOR_EVER))
        return;
    sites_heat(&s);
    struct plat_regs *regs = plat_ctx_regs(s.r.ctx);
    for (int i = 0; i < 100; i++) {
        sites_call(s.r.ctx, 5);
        regs->rax = 9;
        regs->rip -= 2;
        sites_call(s.r.ctx, 9);
        cr_assert_eq(regs->rip, AFTER_FIRST);
        sites_call(s.r.ctx, 6);
        regs->rax = 8;
        regs->rip -= 2;
        sites_call(s.r.ctx, 8);
        cr_assert_eq(regs->rip, AFTER_SECOND);
    }
    sites_end(&s);
}

/* A fork has the patches, with pages of its own to hand over in; both go on alone. */
Test(kvm_patch, fork_has_them)
{
    struct plat_ctx *child;
    struct plat_as *as;
    struct sites s;

    if (!SITES_START(&s, code_sites, FOR_EVER))
        return;
    sites_heat(&s);
    cr_assert_eq(plat_ctx_fork(s.r.ctx, &as, &child), 0);
    cr_assert_eq(kvm_as(as)->patch.page_count, 1);
    cr_assert_neq(kvm_as(as)->patch.areas, kvm_as(s.r.as)->patch.areas);
    for (int i = 0; i < 200; i++) {
        sites_call(child, i % 2 == 0 ? 5 : 6);
        kvm_hand_stop(kvm_ctx(child));
        sites_call(s.r.ctx, i % 2 == 0 ? 5 : 6);
        kvm_hand_stop(kvm_ctx(s.r.ctx));
    }
    plat_ctx_destroy(child);
    plat_as_put(as);
    for (int i = 0; i < 100; i++)
        sites_call(s.r.ctx, i % 2 == 0 ? 5 : 6);
    sites_end(&s);
}

/* What changes the mapping ends the patch; a step does, too, for good. */
Test(kvm_patch, what_ends_them)
{
    struct plat_fault f;
    struct sites s;

    if (!SITES_START(&s, code_sites, FOR_EVER))
        return;
    const struct patch_as *pa = &kvm_as(s.r.as)->patch;
    sites_heat(&s);
    cr_assert_eq(plat_as_protect(s.r.as, (uaddr_t){CODE}, PAGE_SIZE, PLAT_READ), 0);
    cr_assert_eq(pa->page_count, 0);
    cr_assert_eq(plat_ctx_run(s.r.ctx, false, &f), PLAT_EVENT_FAULT);
    cr_assert(f.signo == SIGSEGV && inside_sites(f.addr));
    map_code(&s);
    sites_heat(&s);
    cr_assert_eq(plat_as_unmap(s.r.as, (uaddr_t){CODE}, PAGE_SIZE), 0);
    cr_assert(pa->page_count == 0 && pa->text_count == 0);
    cr_assert_eq(plat_ctx_run(s.r.ctx, false, &f), PLAT_EVENT_FAULT);
    map_code(&s);
    sites_heat(&s);
    plat_ctx_regs(s.r.ctx)->rip = CODE + 6;
    cr_assert_eq(plat_ctx_run(s.r.ctx, true, &f), PLAT_EVENT_FAULT);
    cr_assert(f.signo == SIGTRAP && plat_ctx_regs(s.r.ctx)->rip == CODE + 11);
    cr_assert_eq(pa->page_count, 0);
    for (int i = 0; i < 200; i++)
        sites_call(s.r.ctx, i % 2 == 0 ? 5 : 6);
    cr_assert_eq(pa->page_count, 0);
    sites_end(&s);
}

/* ---- a guest that goes for them ---- */

static void jump_everywhere(struct sites *s, uint64_t from, uint64_t size)
{
    struct plat_regs *regs = plat_ctx_regs(s->r.ctx);
    struct plat_fault f;

    for (uint64_t off = 0; off < size; off++)
        for (uint64_t way = 0; way < 4; way++) {
            kvm_hand_stop(kvm_ctx(s->r.ctx));
            *regs = (struct plat_regs){.rip = JUMP,
                                       .rax = from + off,
                                       .rcx = way == 0 ? EXCHANGE : CODE,
                                       .r11 = way < 2    ? EXCHANGE
                                              : way == 2 ? DATA
                                                         : UINT64_MAX,
                                       .rsp = DATA + 2048,
                                       .fs_base = off % 2 != 0 ? 0 : 0x12340,
                                       .eflags = KVM_EFLAGS};
            enum plat_event e = sites_run(s->r.ctx, &f);
            cr_assert_neq(e, PLAT_EVENT_DEAD, "%#lx", (unsigned long)(from + off));
        }
}

/* Every byte of the sites, of their code, of the table, and of where calls from sites arrive. */
Test(kvm_patch, jumps, .timeout = 300)
{
    struct sites s;
    pthread_t t;

    if (!SITES_START(&s, code_sites, 100))
        return;
    sites_heat(&s);
    cr_assert_eq(pthread_create(&t, NULL, kick_main, s.r.ctx), 0);
    jump_everywhere(&s, CODE, (uint64_t)(code_sites_end - code_sites) + 8);
    jump_everywhere(&s, PATCH_CODE, 2 * PATCH_SLOT + 16);
    jump_everywhere(&s, PATCH_TABLE, 32);
    jump_everywhere(&s, KVM_HAND_VA + (uint64_t)(kvm_hand_call - kvm_hand),
                    (uint64_t)(kvm_hand_common - kvm_hand_call));
    pthread_cancel(t);
    pthread_join(t, NULL);
    sites_end(&s);
}

/* Nobody in the guest writes the table, nor the code of sites. */
Test(kvm_patch, cannot_be_written)
{
    static const uint64_t at[] = {PATCH_TABLE, PATCH_CODE, KVM_AREAS_VA, KVM_NOBODY_VA};
    struct plat_fault f;
    struct sites s;

    if (!SITES_START(&s, code_fill, FOR_EVER))
        return;
    while (kvm_as(s.r.as)->patch.page_count == 0) {
        struct plat_regs *regs = plat_ctx_regs(s.r.ctx);
        regs->rdi = DATA;
        regs->rsi = DATA + 8;
        sites_call(s.r.ctx, 5);
    }
    for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
        *plat_ctx_regs(s.r.ctx) = (struct plat_regs){
            .rip = CODE + 6, .rdi = at[i], .rsi = at[i] + 8, .eflags = KVM_EFLAGS};
        cr_assert_eq(sites_run(s.r.ctx, &f), PLAT_EVENT_FAULT);
        cr_assert(f.signo == SIGSEGV && f.addr == at[i] && f.access == PLAT_WRITE);
    }
    sites_end(&s);
}

/* What sites look at in the exchange page is overwritten: whatever it says, each turn ends. */
Test(kvm_patch, scribbling, .timeout = 600)
{
    struct plat_fault f;
    struct sites s;
    pthread_t t;

    if (!SITES_START(&s, code_fill, 500))
        return;
    struct plat_regs *regs = plat_ctx_regs(s.r.ctx);
    cr_assert_eq(pthread_create(&t, NULL, kick_main, s.r.ctx), 0);
    for (int i = 0; i < 3000; i++) {
        enum plat_event e = sites_run(s.r.ctx, &f);
        cr_assert_neq(e, PLAT_EVENT_DEAD);
        if (e == PLAT_EVENT_SYSCALL && regs->rip - CODE < PAGE_SIZE)
            continue;
        *regs = (struct plat_regs){.rip = CODE,
                                   .rdi = i < 200 ? DATA : EXCHANGE + PATCH_NEGFS,
                                   .rsi = i < 200 ? DATA + 8 : EXCHANGE + PATCH_AFTER + 8,
                                   .rsp = DATA + 2048,
                                   .eflags = KVM_EFLAGS};
    }
    pthread_cancel(t);
    pthread_join(t, NULL);
    sites_end(&s);
}

/* ---- threads ---- */

struct caller {
    struct plat_ctx *ctx;
    uint64_t number, fs;
};

static void *caller_main(void *arg)
{
    struct caller *c = arg;
    struct plat_regs *regs = plat_ctx_regs(c->ctx);

    regs->rip = CODE;
    for (uint64_t i = 0; i < 3000; i++) {
        regs->rbp = 6;
        regs->rdi = c->number;
        regs->rbx = i;
        regs->fs_base = c->fs;
        sites_call(c->ctx, i % 2 == 0 ? 5 : 6);
        cr_assert(regs->rdi == c->number && regs->rbx == i, "thread %lu call %lu: %lu %lu",
                  c->number, i, regs->rdi, regs->rbx);
        cr_assert_eq(regs->fs_base, c->fs);
        for (uint64_t n = (i * 37) % 400; n > 0; n--)
            __builtin_ia32_pause();
    }
    return NULL;
}

/* Each has its own registers, with a thread pointer of its own and with one that others have. */
static void share(bool same)
{
    enum { CALLERS = 4 };
    struct caller c[CALLERS];
    pthread_t t[CALLERS];
    struct sites s;

    if (!SITES_START(&s, code_sites, 200))
        return;
    for (uint64_t i = 0; i < CALLERS; i++) {
        c[i] = (struct caller){.number = i + 1, .fs = same ? 0x4560 : (i + 1) * 0x10000};
        cr_assert_eq(plat_ctx_fork(s.r.ctx, NULL, &c[i].ctx), 0);
    }
    for (size_t i = 0; i < CALLERS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, caller_main, &c[i]), 0);
    for (size_t i = 0; i < CALLERS; i++)
        pthread_join(t[i], NULL);
    for (size_t i = 0; i < CALLERS; i++)
        plat_ctx_destroy(c[i].ctx);
    sites_end(&s);
}

Test(kvm_patch, threads, .timeout = 600)
{
    share(false);
}

Test(kvm_patch, threads_with_one_pointer, .timeout = 600)
{
    share(true);
}
