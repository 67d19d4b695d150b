/* A platform, one address space with a page of code and one of data, and one context.
 * Depends on: platform, sentry/mem, criterion.
 * Threading: one rig per test.
 * Ownership: rig_end drops everything and checks that no stub is left. */
#ifndef RINGWALL_TESTS_PLAT_RIG_H
#define RINGWALL_TESTS_PLAT_RIG_H

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(RIG_KVM)
#include "platform/kvm/kvm_priv.h"
#define RIG_OPS kvm_plat_ops
#elif defined(RIG_SYSTRAP)
#define RIG_STUBS
#include "platform/systrap/systrap_priv.h"
#define RIG_OPS systrap_plat_ops
#else
#define RIG_STUBS
#include "platform/ptrace/ptrace_priv.h"
#define RIG_OPS ptrace_plat_ops
#endif
#include "sentry/mem/memfile.h"
#include "tests/unit/decoder_rig.h"

#define CODE UINT64_C(0x400000)
#define DATA UINT64_C(0x500000)

/* Guest code: GUEST(name, "assembly") gives the bytes name to name_end. */
#define GUEST(name, text)                                                                          \
    __asm__(".pushsection .rodata\n.globl " #name ", " #name "_end\n.hidden " #name ", " #name     \
            "_end\n" #name ":\n" text "\n" #name "_end:\n.popsection\n");                          \
    extern const char name[], name##_end[]

struct rig {
    struct memfile *mf;
    struct plat *plat;
    struct plat_as *as;
    struct plat_ctx *ctx;
    uint64_t code, data; /* offsets in the memory file */
    struct rig_decoder decoder;
};

static inline void rig_map_code(struct rig *r, struct plat_as *as)
{
    cr_assert_eq(plat_as_map(as, (uaddr_t){CODE}, PAGE_SIZE, PLAT_READ | PLAT_EXEC,
                             memfile_fd(r->mf), r->code, 0),
                 0);
    cr_assert_eq(plat_as_map(as, (uaddr_t){DATA}, PAGE_SIZE, PLAT_READ | PLAT_WRITE,
                             memfile_fd(r->mf), r->data, 0),
                 0);
}

static inline void rig_start(struct rig *r, const void *code, size_t size)
{
    char why[128];
    struct plat_config cfg;

    cr_assert_eq(memfile_new(UINT64_C(1) << 32, &r->mf), 0);
    cfg.mem_fd = memfile_fd(r->mf);
    cr_assert_eq(RIG_OPS.probe(why, sizeof(why)), 0);
    cfg.patch = true;
    rig_decoder_open(&r->decoder);
    cfg.decoder_fd = r->decoder.asker;
    cfg.device_fd = RIG_OPS.open != NULL ? RIG_OPS.open() : -1;
    cr_assert_eq(RIG_OPS.create(&cfg, &r->plat), 0);
    close(r->decoder.asker);
    rig_decoder_start(&r->decoder);
    if (cfg.device_fd >= 0)
        close(cfg.device_fd);
    cr_assert_eq(plat_as_create(r->plat, &r->as), 0);
    cr_assert_eq(plat_ctx_create(r->plat, r->as, &r->ctx), 0);
    cr_assert_eq(memfile_alloc(r->mf, NULL, PAGE_SIZE, &r->code), 0);
    cr_assert_eq(memfile_alloc(r->mf, NULL, PAGE_SIZE, &r->data), 0);
    memcpy(memfile_ptr(r->mf, r->code), code, size);
    rig_map_code(r, r->as);
    plat_ctx_regs(r->ctx)->rip = CODE;
}

#ifdef RIG_STUBS
/* What the platforms differ in: the stub process. */
static inline pid_t rig_pid(struct plat_as *as)
{
#ifdef RIG_SYSTRAP
    return st_as(as)->pid;
#else
    return pt_as(as)->pid;
#endif
}

static inline pid_t rig_template_pid(struct plat *p)
{
#ifdef RIG_SYSTRAP
    return st_plat(p)->template->pid;
#else
    return pt_plat(p)->template_pid;
#endif
}
#endif

/* The code that is not the guest's. */
static inline uint64_t rig_text(struct plat *p, uint64_t *out_size)
{
#if defined(RIG_KVM)
    (void)p;
    *out_size = KVM_IDT_VA - KVM_STUB_VA;
    return KVM_STUB_VA;
#elif defined(RIG_SYSTRAP)
    *out_size = (uint64_t)(systrap_text_end - systrap_text);
    return st_plat(p)->text;
#else
    *out_size = (uint64_t)(stub_text_end - stub_text);
    return pt_plat(p)->text;
#endif
}

#define RIG_START(r, name) rig_start((r), name, (size_t)(name##_end - name))

static inline void rig_end(struct rig *r)
{
    if (r->ctx != NULL)
        plat_ctx_destroy(r->ctx);
    plat_as_put(r->as);
    r->plat->ops->destroy(r->plat);
    rig_decoder_end(&r->decoder);
    memfile_free(r->mf);
    /* Every stub is a child of this process, and has been waited for. */
    cr_assert(wait4(-1, NULL, __WALL | WNOHANG, NULL) == -1 && errno == ECHILD);
}

static inline void *rig_data(struct rig *r)
{
    return memfile_ptr(r->mf, r->data);
}

/* Runs to the next system call and gives its number. */
static inline uint64_t rig_call(struct plat_ctx *ctx)
{
    struct plat_fault f;
    enum plat_event event = plat_ctx_run(ctx, false, &f);

    cr_assert_eq(event, PLAT_EVENT_SYSCALL, "event %d, signal %d at %lx", (int)event,
                 event == PLAT_EVENT_FAULT ? f.signo : 0, (unsigned long)plat_ctx_regs(ctx)->rip);
    return plat_ctx_regs(ctx)->orig_rax;
}

#endif
