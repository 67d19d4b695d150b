/* Exceptions of guest code, as the signals that Linux sends: arch/x86/kernel/traps.c. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#include "platform/kvm/kvm_priv.h"

enum { PF_PRESENT = 1, PF_WRITE = 2, PF_FETCH = 16 };

#define VSYSCALL_PAGE UINT64_C(0xffffffffff600000)
#define VSYSCALL_STEP 0x400u

/* x87 and SSE flags that are raised and not masked, as Linux orders them. */
static int trap_fpu_code(struct kvm_ctx *c, struct kvm_vcpu *v, unsigned vector)
{
    uint16_t control, status;
    uint32_t mxcsr;

    if (ioctl(v->fd, KVM_GET_XSAVE, c->xsave) != 0)
        return FPE_FLTINV;
    memcpy(&control, c->xsave, sizeof(control));
    memcpy(&status, (uint8_t *)c->xsave + 2, sizeof(status));
    memcpy(&mxcsr, (uint8_t *)c->xsave + 24, sizeof(mxcsr));
    uint32_t err = vector == KVM_VECTOR_MF ? (uint32_t)(status & ~control) : mxcsr & ~(mxcsr >> 7);
    if (err & 0x01)
        return FPE_FLTINV;
    if (err & 0x04)
        return FPE_FLTDIV;
    if (err & 0x08)
        return FPE_FLTOVF;
    if (err & 0x12)
        return FPE_FLTUND;
    return (err & 0x20) ? FPE_FLTRES : 0;
}

/* `int n`: some hosts raise an invalid opcode for it, the processor a protection fault. */
static bool trap_is_int(struct kvm_ctx *c)
{
    uint8_t code;

    return kvm_as_read(c->as, c->regs.rip, &code, sizeof(code)) && code == 0xcd;
}

/* A call into the page where Linux had its first system calls without a trap: an ordinary system
 * call that returns to the caller. False: the caller's stack cannot be read. */
static bool trap_vsyscall(struct kvm_ctx *c)
{
    static const uint64_t calls[] = {96, 201, 309}; /* gettimeofday, time, getcpu */
    const uint64_t index = (c->regs.rip - VSYSCALL_PAGE) / VSYSCALL_STEP;
    uint64_t back;

    if (c->regs.rip % VSYSCALL_STEP != 0 || index >= ARRAY_SIZE(calls))
        return false;
    if (!kvm_as_read(c->as, c->regs.rsp, &back, sizeof(back)))
        return false;
    c->regs.orig_rax = calls[index];
    c->regs.rax = (uint64_t)-ENOSYS;
    c->regs.rip = back;
    c->regs.rsp += sizeof(back);
    return true;
}

static enum plat_event trap_page_fault(struct kvm_ctx *c, uint64_t error, uint64_t cr2,
                                       struct plat_fault *out)
{
    if (cr2 == c->regs.rip && cr2 >= VSYSCALL_PAGE && trap_vsyscall(c))
        return PLAT_EVENT_SYSCALL;
    out->signo = SIGSEGV;
    out->code = (error & PF_PRESENT) && cr2 < c->base.plat->max_addr ? SEGV_ACCERR : SEGV_MAPERR;
    out->addr = cr2;
    out->access = (error & PF_FETCH) ? PLAT_EXEC : (error & PF_WRITE) ? PLAT_WRITE : PLAT_READ;
    return PLAT_EVENT_FAULT;
}

static void trap_signal(struct plat_fault *out, int signo, int code, uint64_t addr)
{
    out->signo = signo;
    out->code = code;
    out->addr = addr;
}

enum plat_event kvm_trap(struct kvm_ctx *c, struct kvm_vcpu *v, unsigned vector, uint64_t error,
                         struct plat_fault *out)
{
    const uint64_t rip = c->regs.rip;

    *out = (struct plat_fault){.trapno = vector, .errcode = error};
    switch (vector) {
    case KVM_VECTOR_PF:
        return trap_page_fault(c, error, v->run->s.regs.sregs.cr2, out);
    case KVM_VECTOR_DE:
        trap_signal(out, SIGFPE, FPE_INTDIV, rip);
        break;
    case KVM_VECTOR_DB:
        trap_signal(out, SIGTRAP, TRAP_TRACE, rip);
        break;
    case KVM_VECTOR_BP:
        trap_signal(out, SIGTRAP, SI_KERNEL, 0);
        break;
    case KVM_VECTOR_UD:
        if (trap_is_int(c)) {
            out->trapno = KVM_VECTOR_GP;
            trap_signal(out, SIGSEGV, SI_KERNEL, 0);
        } else {
            trap_signal(out, SIGILL, ILL_ILLOPN, rip);
        }
        break;
    case KVM_VECTOR_NP:
    case KVM_VECTOR_SS:
        trap_signal(out, SIGBUS, SI_KERNEL, 0);
        break;
    case KVM_VECTOR_AC:
        trap_signal(out, SIGBUS, BUS_ADRALN, 0);
        break;
    case KVM_VECTOR_MF:
    case KVM_VECTOR_XM:
        trap_signal(out, SIGFPE, trap_fpu_code(c, v, vector), rip);
        break;
    default:
        trap_signal(out, SIGSEGV, SI_KERNEL, 0);
        break;
    }
    return PLAT_EVENT_FAULT;
}
