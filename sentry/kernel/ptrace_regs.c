/* A stopped tracee's registers: struct user, register sets (arch/x86/kernel/ptrace.c). */
#include <elf.h>
#include <errno.h>
#include <linux/ptrace.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "sentry/kernel/ptrace_priv.h"

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

#define FXSAVE_SIZE 512u
#define XSAVE_MIN (FXSAVE_SIZE + 64u)
#define FX_XCR0_OFF 464u
/* What a debugger may set: CF PF AF ZF SF TF DF OF RF AC. */
#define EFLAGS_SETTABLE UINT64_C(0x50dd5)
#define DEBUGREGS 8u
/* The kernel's struct user ends with two words that are not in libc's. */
#define USER_SIZE (sizeof(struct user) + 2 * sizeof(uint64_t))
#define ARCH_SET_GS_ 0x1001
#define ARCH_SET_FS_ 0x1002
#define ARCH_GET_FS_ 0x1003
#define ARCH_GET_GS_ 0x1004

_Static_assert(sizeof(struct user_regs_struct) == sizeof(struct plat_regs), "one layout");

/* ---- general registers ---- */

static int reg_put(const struct task *o, struct plat_regs *regs, size_t off, uint64_t v)
{
    switch (off) {
    case offsetof(struct plat_regs, fs_base):
    case offsetof(struct plat_regs, gs_base):
        if (v >= o->k->cfg.plat->max_addr)
            return -EIO;
        break;
    case offsetof(struct plat_regs, eflags):
        v = (regs->eflags & ~EFLAGS_SETTABLE) | (v & EFLAGS_SETTABLE);
        break;
    case offsetof(struct plat_regs, cs):
    case offsetof(struct plat_regs, ss):
        /* Other code than 64-bit is not run here. */
        return v == (off == offsetof(struct plat_regs, cs) ? regs->cs : regs->ss) ? 0 : -EIO;
    case offsetof(struct plat_regs, ds):
    case offsetof(struct plat_regs, es):
    case offsetof(struct plat_regs, fs):
    case offsetof(struct plat_regs, gs):
        if (v != 0 && (v & 3) != 3)
            return -EIO;
        break;
    default:
        break;
    }
    memcpy((char *)regs + off, &v, sizeof(v));
    return 0;
}

/* The first size bytes of the set, word by word, as genregs_set does. */
static int regs_set(struct task *o, const struct plat_regs *from, size_t size)
{
    struct plat_regs *regs = plat_ctx_regs(o->ctx);
    int r = 0;

    for (size_t off = 0; !r && off + sizeof(uint64_t) <= size; off += sizeof(uint64_t)) {
        uint64_t v;
        memcpy(&v, (const char *)from + off, sizeof(v));
        r = reg_put(o, regs, off, v);
    }
    return r;
}

/* ---- floating point and vectors, by way of the tracee's thread ---- */

struct xstate_io {
    uint8_t *buf;
    size_t size;
};

static int64_t xstate_get(struct task *t, void *arg)
{
    const struct xstate_io *io = arg;

    return plat_ctx_xstate_get(t->ctx, io->buf, io->size);
}

static int64_t xstate_set(struct task *t, void *arg)
{
    const struct xstate_io *io = arg;

    return plat_ctx_xstate_set(t->ctx, io->buf, io->size);
}

static uint64_t xfeatures_enabled(void)
{
    uint32_t lo, hi;

    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* The whole area; owned result. */
static int64_t xstate_fetch(struct task *o, uint8_t **out_buf)
{
    struct xstate_io io = {.size = o->ctx->plat->xstate_size};

    io.buf = calloc(1, MAX(io.size, (size_t)XSAVE_MIN));
    if (!io.buf)
        return -ENOMEM;
    const int64_t n = trace_remote(o, xstate_get, &io);
    if (n < (int64_t)FXSAVE_SIZE) {
        free(io.buf);
        return n < 0 ? n : -ENODEV;
    }
    const uint64_t features = xfeatures_enabled();
    memcpy(io.buf + FX_XCR0_OFF, &features, sizeof(features));
    *out_buf = io.buf;
    return n;
}

/* Legacy part only: the rest stays as it is. */
static int64_t fpregs_set(struct task *t, struct task *o, uint64_t data, size_t size)
{
    uint8_t *buf;

    if (size > FXSAVE_SIZE)
        size = FXSAVE_SIZE;
    int64_t n = xstate_fetch(o, &buf);
    if (n < 0)
        return n;
    int64_t r = copyin(&t->ua, buf, uaddr(data), size);
    if (!r) {
        struct xstate_io io = {buf, (size_t)n};
        /* x87 and SSE are there from now on, whatever was initial. */
        if (n >= (int64_t)XSAVE_MIN)
            buf[FXSAVE_SIZE] |= 3;
        r = trace_remote(o, xstate_set, &io);
    }
    free(buf);
    return r;
}

static int64_t fpregs_get(struct task *t, struct task *o, uint64_t data, size_t size)
{
    uint8_t *buf;
    int64_t n = xstate_fetch(o, &buf);

    if (n < 0)
        return n;
    /* The software part is not the processor's. */
    memset(buf + FX_XCR0_OFF, 0, FXSAVE_SIZE - FX_XCR0_OFF);
    int64_t r = copyout(&t->ua, uaddr(data), buf, MIN(size, (size_t)FXSAVE_SIZE));
    free(buf);
    return r;
}

static int64_t xset_get(struct task *t, struct task *o, uint64_t data, size_t *size)
{
    uint8_t *buf;
    int64_t n = xstate_fetch(o, &buf);

    if (n < 0)
        return n;
    *size = MIN(*size, (size_t)n);
    int64_t r = copyout(&t->ua, uaddr(data), buf, *size);
    free(buf);
    return r;
}

static int64_t xset_set(struct task *t, struct task *o, uint64_t data, size_t *size)
{
    const size_t full = o->ctx->plat->xstate_size;

    /* xstateregs_set wants the whole area. */
    if (*size < full)
        return -EFAULT;
    *size = full;
    struct xstate_io io = {calloc(1, full), full};
    if (!io.buf)
        return -ENOMEM;
    int64_t r = copyin(&t->ua, io.buf, uaddr(data), full);
    if (!r)
        r = trace_remote(o, xstate_set, &io);
    free(io.buf);
    return r;
}

/* ---- register sets ---- */

static int64_t regset_general(struct task *t, struct task *o, bool set, uint64_t base, size_t *size)
{
    struct plat_regs regs = *plat_ctx_regs(o->ctx);

    *size = MIN(*size, sizeof(regs));
    if (!set)
        return copyout(&t->ua, uaddr(base), &regs, *size);
    int r = copyin(&t->ua, &regs, uaddr(base), *size);
    return r ? r : regs_set(o, &regs, *size);
}

static int64_t regset_one(struct task *t, struct task *o, uint64_t type, bool set, uint64_t base,
                          size_t *size)
{
    switch (type) {
    case NT_PRSTATUS:
        if (*size % sizeof(uint64_t))
            return -EINVAL;
        return regset_general(t, o, set, base, size);
    case NT_PRFPREG:
        if (*size % sizeof(uint64_t))
            return -EINVAL;
        *size = MIN(*size, (size_t)FXSAVE_SIZE);
        return set ? fpregs_set(t, o, base, *size) : fpregs_get(t, o, base, *size);
    case NT_X86_XSTATE:
        if (*size % sizeof(uint64_t))
            return -EINVAL;
        return set ? xset_set(t, o, base, size) : xset_get(t, o, base, size);
    default:
        return -EINVAL;
    }
}

static int64_t request_regset(struct task *t, struct task *o, bool set, uint64_t type,
                              uint64_t data)
{
    struct iovec iov;
    int64_t r = copyin_obj(&t->ua, &iov, uaddr(data));

    if (r)
        return r;
    size_t size = iov.iov_len;
    r = regset_one(t, o, type, set, (uint64_t)(uintptr_t)iov.iov_base, &size);
    if (r)
        return r;
    iov.iov_len = size;
    return copyout(&t->ua, uaddr(data + offsetof(struct iovec, iov_len)), &iov.iov_len,
                   sizeof(iov.iov_len));
}

/* ---- struct user ---- */

static bool user_debugreg(uint64_t addr, unsigned *out_n)
{
    const size_t off = offsetof(struct user, u_debugreg);

    if (addr < off || addr > off + (DEBUGREGS - 1) * sizeof(uint64_t))
        return false;
    *out_n = (unsigned)((addr - off) / sizeof(uint64_t));
    return true;
}

struct debugreg_io {
    unsigned n;
    uint64_t value;
};

static int64_t debugreg_get(struct task *t, void *arg)
{
    struct debugreg_io *io = arg;

    return plat_ctx_debugreg_get(t->ctx, io->n, &io->value);
}

static int64_t debugreg_set(struct task *t, void *arg)
{
    const struct debugreg_io *io = arg;

    return plat_ctx_debugreg_set(t->ctx, io->n, io->value);
}

/* Watching is for the guest's own memory. */
static bool debugreg_ok(const struct task *o, unsigned n, uint64_t v)
{
    const struct plat *pl = o->k->cfg.plat;

    if (n > 3)
        return true;
    for (size_t i = 0; i < pl->reserved_count; i++)
        if (v + 8 > pl->reserved[i].start && v < pl->reserved[i].end)
            return false;
    return v < pl->max_addr;
}

static int64_t request_peekuser(struct task *t, struct task *o, uint64_t addr, uint64_t data)
{
    struct debugreg_io io = {0};
    uint64_t v = 0;
    int64_t r = 0;

    if ((addr & 7) || addr >= USER_SIZE)
        return -EIO;
    if (addr < sizeof(struct plat_regs)) {
        memcpy(&v, (const char *)plat_ctx_regs(o->ctx) + addr, sizeof(v));
    } else if (user_debugreg(addr, &io.n)) {
        r = trace_remote(o, debugreg_get, &io);
        v = io.value;
    }
    return r ? r : copyout_obj(&t->ua, uaddr(data), &v);
}

static int64_t request_pokeuser(struct task *o, uint64_t addr, uint64_t data)
{
    struct debugreg_io io = {.value = data};

    if ((addr & 7) || addr >= USER_SIZE)
        return -EIO;
    if (addr < sizeof(struct plat_regs))
        return reg_put(o, plat_ctx_regs(o->ctx), addr, data);
    if (!user_debugreg(addr, &io.n))
        return -EIO;
    return debugreg_ok(o, io.n, data) ? trace_remote(o, debugreg_set, &io) : -EINVAL;
}

static int64_t request_arch_prctl(struct task *t, struct task *o, uint64_t op, uint64_t addr)
{
    struct plat_regs *regs = plat_ctx_regs(o->ctx);

    switch (op) {
    case ARCH_SET_FS_:
    case ARCH_SET_GS_:
        if (addr >= o->k->cfg.plat->max_addr)
            return -EPERM;
        *(op == ARCH_SET_FS_ ? &regs->fs_base : &regs->gs_base) = addr;
        return 0;
    case ARCH_GET_FS_:
        return copyout_obj(&t->ua, uaddr(addr), &regs->fs_base);
    case ARCH_GET_GS_:
        return copyout_obj(&t->ua, uaddr(addr), &regs->gs_base);
    default:
        return -EINVAL;
    }
}

int64_t trace_regs_request(struct task *t, struct task *o, int64_t request, uint64_t addr,
                           uint64_t data)
{
    size_t size = sizeof(struct plat_regs);

    switch (request) {
    case PTRACE_PEEKUSR:
        return request_peekuser(t, o, addr, data);
    case PTRACE_POKEUSR:
        return request_pokeuser(o, addr, data);
    case PTRACE_GETREGS:
        return regset_general(t, o, false, data, &size);
    case PTRACE_SETREGS:
        return regset_general(t, o, true, data, &size);
    case PTRACE_GETFPREGS:
        return fpregs_get(t, o, data, FXSAVE_SIZE);
    case PTRACE_SETFPREGS:
        return fpregs_set(t, o, data, FXSAVE_SIZE);
    case PTRACE_GETREGSET:
        return request_regset(t, o, false, addr, data);
    case PTRACE_SETREGSET:
        return request_regset(t, o, true, addr, data);
    case PTRACE_ARCH_PRCTL:
        return request_arch_prctl(t, o, data, addr);
    default:
        return -EIO;
    }
}
