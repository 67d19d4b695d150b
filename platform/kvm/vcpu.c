/* Making a virtual processor: segments, exceptions, model-specific registers; it starts in ring 3.
 * Intel SDM vol. 3, chapters 3 (segments), 6 (exceptions), 7 (TSS). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/heap.h"
#include "platform/kvm/kvm_priv.h"

/* What the host has for one, most of it forty pages each for tables and for shadows to come:
 * counted as heap. */
#define VCPU_HOST_BYTES (384 << 10)

#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_SYSCALL_MASK 0xc0000084u
/* Of RFLAGS what Linux clears at SYSCALL: everything but the flags of arithmetic. */
#define SYSCALL_MASK 0x47700u

/* PE MP ET NE WP AM PG; PAE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE; SCE LME LMA NXE. */
#define CPU_CR0 0x80050033u
#define CPU_CR4 0x50620u
#define CPU_EFER 0xd01u

/* In the page of descriptors. */
#define DESC_TSS 0x800u
#define TSS_IST 36u
#define TSS_IO_BASE 102u
#define TSS_SIZE 104u
/* Ports 0 to 255, and the byte of ones that ends the map. */
#define TSS_IO_BYTES 32u
#define TSS_LIMIT (TSS_SIZE + TSS_IO_BYTES)

static void vcpu_segment(struct kvm_segment *s, uint16_t selector, uint8_t type, bool code)
{
    *s = (struct kvm_segment){
        .selector = selector,
        .limit = 0xffffffff,
        .type = type,
        .s = 1,
        .dpl = selector & 3,
        .present = 1,
        .l = code,
        .db = !code,
        .g = 1,
    };
}

/* The tables that the segments above stand in; accessed and busy bits are set already. */
static void vcpu_fill_gdt(struct kvm_vcpu *v, uint64_t tss)
{
    uint64_t *gdt = (uint64_t *)(void *)v->desc;

    gdt[KVM_KERNEL_CS / 8] = UINT64_C(0x00af9b000000ffff);
    gdt[KVM_KERNEL_SS / 8] = UINT64_C(0x00cf93000000ffff);
    gdt[KVM_USER_SS / 8] = UINT64_C(0x00cff3000000ffff);
    gdt[KVM_USER_CS / 8] = UINT64_C(0x00affb000000ffff);
    gdt[KVM_TSS / 8] =
        TSS_LIMIT | (tss & 0xffffff) << 16 | UINT64_C(0x8b) << 40 | ((tss >> 24) & 0xff) << 56;
    gdt[KVM_TSS / 8 + 1] = tss >> 32;
}

/* Stacks 1 (all exceptions but these), 2 (NMI) and 3 (double fault); no port is open to ring 3 but
 * those of system calls where they come from ring 3. */
_Static_assert(KVM_PORT_SYSCALL / 8 == KVM_PORT_LEFT / 8, "one byte of the map");

static void vcpu_fill_tss(struct kvm_vcpu *v)
{
    uint8_t *tss = v->desc + DESC_TSS;
    const uint16_t io_base = TSS_SIZE;
    const uint64_t stacks[3] = {v->stack_va + KVM_STACK_TOP, v->stack_va + 0xc00,
                                v->stack_va + 0x1000};

    memcpy(tss + 4, &stacks[0], sizeof(stacks[0]));
    memcpy(tss + TSS_IST, stacks, sizeof(stacks));
    memcpy(tss + TSS_IO_BASE, &io_base, sizeof(io_base));
    memset(tss + TSS_SIZE, 0xff, TSS_IO_BYTES + 1);
    if (v->p->ring3_syscall)
        tss[TSS_SIZE + KVM_PORT_SYSCALL / 8] &=
            (uint8_t) ~(1u << KVM_PORT_SYSCALL % 8 | 1u << KVM_PORT_LEFT % 8);
}

static int vcpu_set_msr(struct kvm_vcpu *v, uint32_t index, uint64_t value)
{
    union {
        struct kvm_msrs head;
        uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } m = {.head = {.nmsrs = 1}};

    m.head.entries[0] = (struct kvm_msr_entry){.index = index, .data = value};
    return ioctl(v->fd, KVM_SET_MSRS, &m) == 1 ? 0 : -EIO;
}

uint64_t kvm_vcpu_plain_entry(const struct kvm_plat *p)
{
    return p->ring3_syscall ? KVM_SYSCALL3_VA : KVM_SYSCALL0_VA;
}

int kvm_vcpu_set_entry(struct kvm_vcpu *v, uint64_t entry)
{
    int r;

    if (v->entry == entry)
        return 0;
    r = vcpu_set_msr(v, MSR_LSTAR, entry);
    if (r == 0)
        v->entry = entry;
    return r;
}

int kvm_vcpu_set_syscall(struct kvm_vcpu *v)
{
    int r = kvm_vcpu_set_entry(v, kvm_vcpu_plain_entry(v->p));

    vcpu_fill_tss(v);
    if (r == 0)
        r = vcpu_set_msr(v, MSR_STAR,
                         ((uint64_t)(KVM_USER_SS - 8) << 48) | ((uint64_t)KVM_KERNEL_CS << 32));
    return r != 0 ? r : vcpu_set_msr(v, MSR_SYSCALL_MASK, SYSCALL_MASK);
}

static int vcpu_set_sregs(struct kvm_vcpu *v, uint64_t desc_va)
{
    struct kvm_sregs s;

    if (ioctl(v->fd, KVM_GET_SREGS, &s) != 0)
        return -errno;
    s.cr0 = CPU_CR0;
    s.cr4 = CPU_CR4;
    s.efer = CPU_EFER;
    /* An address space comes with the first context. */
    s.cr3 = v->p->idle_root.gpa;
    vcpu_segment(&s.cs, KVM_USER_CS, 11, true);
    vcpu_segment(&s.ss, KVM_USER_SS, 3, false);
    s.ds = s.es = s.fs = s.gs = s.ss;
    s.tr = (struct kvm_segment){.base = desc_va + DESC_TSS,
                                .limit = TSS_LIMIT,
                                .selector = KVM_TSS,
                                .type = 11,
                                .present = 1};
    s.ldt = (struct kvm_segment){.unusable = 1};
    s.gdt = (struct kvm_dtable){.base = desc_va, .limit = KVM_TSS + 15};
    s.idt = (struct kvm_dtable){.base = KVM_IDT_VA, .limit = KVM_VECTORS * 16 - 1};
    if (ioctl(v->fd, KVM_SET_SREGS, &s) != 0)
        return -errno;
    /* What the exits keep current from now on. */
    v->run->s.regs.sregs = s;
    v->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    return 0;
}

static int vcpu_set_features(struct kvm_vcpu *v)
{
    struct kvm_xcrs x = {.nr_xcrs = 1};

    if (ioctl(v->fd, KVM_SET_CPUID2, v->p->cpuid) != 0)
        return -errno;
    x.xcrs[0].value = v->p->xcr0;
    return ioctl(v->fd, KVM_SET_XCRS, &x) == 0 ? 0 : -errno;
}

static int vcpu_map(struct kvm_vcpu *v)
{
    uint64_t desc_va = KVM_CPUS_VA + (uint64_t)v->id * KVM_CPU_STRIDE;
    struct kvm_page desc, stack;
    int r = kvm_table_page(v->p, &desc);

    if (r == 0)
        r = kvm_table_page(v->p, &stack);
    if (r != 0)
        return r;
    v->desc = desc.hva;
    v->stack = stack.hva;
    v->stack_va = desc_va + KVM_CPU_STACK;
    vcpu_fill_gdt(v, desc_va + DESC_TSS);
    r = kvm_kernel_map(v->p, desc_va, desc.gpa, PTE_P | PTE_W | PTE_NX);
    if (r == 0)
        r = kvm_kernel_map(v->p, v->stack_va, stack.gpa, PTE_P | PTE_W | PTE_NX);
    if (r == 0)
        r = vcpu_set_sregs(v, desc_va);
    return r != 0 ? r : kvm_vcpu_set_syscall(v);
}

int kvm_vcpu_set_tsc(struct kvm_vcpu *v)
{
    const uint64_t offset = 0;
    const struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL,
                                         .attr = KVM_VCPU_TSC_OFFSET,
                                         .addr = (uint64_t)(uintptr_t)&offset};

    return ioctl(v->fd, KVM_SET_DEVICE_ATTR, &attr) == 0 ? 0 : -errno;
}

int kvm_vcpu_new(struct kvm_plat *p, unsigned id, struct kvm_vcpu **out)
{
    struct kvm_vcpu *v = calloc(1, sizeof(*v));
    int r;

    if (v == NULL)
        return -ENOMEM;
    v->p = p;
    v->id = id;
    v->fd = ioctl(p->vm_fd, KVM_CREATE_VCPU, (unsigned long)id);
    if (v->fd < 0) {
        r = -errno;
        free(v);
        return r;
    }
    heap_add(VCPU_HOST_BYTES);
    v->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (v->run == MAP_FAILED) {
        r = -errno;
        v->run = NULL;
        kvm_vcpu_free(v);
        return r;
    }
    r = vcpu_set_features(v);
    if (r == 0)
        r = vcpu_map(v);
    if (r == 0 && p->vdso_size > 0)
        r = kvm_vcpu_set_tsc(v);
    if (r != 0) {
        kvm_vcpu_free(v);
        return r;
    }
    *out = v;
    return 0;
}

void kvm_vcpu_free(struct kvm_vcpu *v)
{
    if (v->run != NULL)
        (void)munmap(v->run, v->p->run_size);
    (void)close(v->fd);
    heap_add(-VCPU_HOST_BYTES);
    free(v);
}
