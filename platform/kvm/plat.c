/* The machine: what the host must offer, making it, and where its system calls arrive. */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/heap.h"
#include "base/log.h"
#include "platform/kvm/kvm_priv.h"
#include "platform/stub/host.h"

#define KVM_DEVICE "/dev/kvm"
#define CPUID_ENTRIES_MAX 256u
#define CPUID_XSAVE 0xdu
/* Where hypervisors introduce themselves, and the bit of leaf 1 (ecx) that says one does. */
#define CPUID_HYPERVISOR 0x40000000u
#define CPUID_HYPERVISOR_END 0x50000000u
#define CPUID_FEATURES_HYPERVISOR (1u << 31)
/* x87, SSE, AVX; the three parts of AVX-512. */
#define XCR0_AVX UINT64_C(7)
#define XCR0_AVX512 UINT64_C(0xe0)
#define FXSAVE_SIZE 512u
#define XSAVE_LEGACY_SIZE 576u

/* ---- what the host must offer ---- */

static const struct {
    int cap;
    const char *name;
} plat_needs[] = {
    {KVM_CAP_USER_MEMORY, "user memory"},
    {KVM_CAP_SYNC_REGS, "register synchronisation"},
    {KVM_CAP_XSAVE, "XSAVE"},
    {KVM_CAP_XCRS, "XCR0"},
    {KVM_CAP_IMMEDIATE_EXIT, "immediate exits"},
    {KVM_CAP_SYNC_MMU, "MMU notifiers"},
};

static int plat_open(void)
{
    int fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);

    return fd >= 0 ? fd : -errno;
}

int kvm_check(int (*ask)(void *arg, unsigned long request, unsigned long what), void *arg,
              char *why, size_t why_size)
{
    const int version = ask(arg, KVM_GET_API_VERSION, 0);

    if (version < 0) {
        snprintf(why, why_size, "%s is not KVM's: %s", KVM_DEVICE, strerror(-version));
        return -ENOTSUP;
    }
    if (version != KVM_API_VERSION) {
        snprintf(why, why_size, "%s speaks version %d, not %d", KVM_DEVICE, version,
                 KVM_API_VERSION);
        return -ENOTSUP;
    }
    for (size_t i = 0; i < ARRAY_SIZE(plat_needs); i++) {
        if (ask(arg, KVM_CHECK_EXTENSION, (unsigned long)plat_needs[i].cap) > 0)
            continue;
        snprintf(why, why_size, "%s is too old: no %s", KVM_DEVICE, plat_needs[i].name);
        return -ENOTSUP;
    }
    return 0;
}

static int plat_ask(void *arg, unsigned long request, unsigned long what)
{
    const int *fd = arg;
    int r = ioctl(*fd, request, what);

    return r >= 0 ? r : -errno;
}

static int plat_probe(char *why, size_t why_size)
{
    int fd = plat_open();

    if (fd < 0) {
        snprintf(why, why_size, "%s: %s", KVM_DEVICE, strerror(-fd));
        return fd;
    }
    int r = kvm_check(plat_ask, &fd, why, why_size);
    (void)close(fd);
    return r != 0 ? r : stub_vdso_find(why, why_size);
}

/* ---- features ---- */

/* A program sees no other machine than on the other platforms: KVM does not introduce itself, and
 * whether somebody does is as on the host. */
static void plat_fit_cpuid(struct kvm_cpuid2 *table)
{
    uint32_t kept = 0, a, b, c, d;

    __cpuid(1, a, b, c, d);
    for (uint32_t i = 0; i < table->nent; i++) {
        struct kvm_cpuid_entry2 e = table->entries[i];
        if (e.function >= CPUID_HYPERVISOR && e.function < CPUID_HYPERVISOR_END)
            continue;
        if (e.function == 1)
            e.ecx = (e.ecx & ~CPUID_FEATURES_HYPERVISOR) | (c & CPUID_FEATURES_HYPERVISOR);
        table->entries[kept++] = e;
    }
    table->nent = kept;
}

static int plat_get_cpuid(struct kvm_plat *p, int kvm_fd)
{
    p->cpuid = calloc(1, sizeof(*p->cpuid) + CPUID_ENTRIES_MAX * sizeof(p->cpuid->entries[0]));
    if (p->cpuid == NULL)
        return -ENOMEM;
    p->cpuid->nent = CPUID_ENTRIES_MAX;
    if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, p->cpuid) != 0)
        return -errno;
    plat_fit_cpuid(p->cpuid);
    return 0;
}

static uint64_t plat_supported_xcr0(const struct kvm_plat *p)
{
    for (uint32_t i = 0; i < p->cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &p->cpuid->entries[i];
        if (e->function == CPUID_XSAVE && e->index == 0)
            return (uint64_t)e->edx << 32 | e->eax;
    }
    return 0;
}

/* Size of an XSAVE area with these parts: the end of the last one. */
static size_t plat_xstate_size(uint64_t xcr0)
{
    size_t end = XSAVE_LEGACY_SIZE;

    for (unsigned part = 2; part < 63; part++) {
        unsigned size, off, c, d;
        if (!(xcr0 >> part & 1))
            continue;
        __cpuid_count(CPUID_XSAVE, part, size, off, c, d);
        end = MAX(end, (size_t)off + size);
    }
    return end;
}

static uint32_t plat_mxcsr_mask(void)
{
    uint8_t area[FXSAVE_SIZE] ALIGNED(16) = {0};
    uint32_t mask;

    __asm__ volatile("fxsave64 %0" : "=m"(area));
    memcpy(&mask, area + 28, sizeof(mask));
    return mask != 0 ? mask : 0xffbf;
}

static void plat_choose_features(struct kvm_plat *p)
{
    uint64_t all = plat_supported_xcr0(p);

    p->xcr0 = all & XCR0_AVX;
    if ((all & XCR0_AVX512) == XCR0_AVX512 && (all & XCR0_AVX) == XCR0_AVX)
        p->xcr0 |= XCR0_AVX512;
    p->base.xstate_size = plat_xstate_size(p->xcr0);
    p->mxcsr_mask = plat_mxcsr_mask();
}

/* ---- memory ---- */

static int plat_map_memory(struct kvm_plat *p)
{
    struct stat st;

    if (fstat(p->mem_fd, &st) != 0)
        return -errno;
    p->mem_size = ALIGN_DOWN((uint64_t)st.st_size, KVM_SLOT_SIZE);
    p->mem =
        mmap(NULL, p->mem_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, p->mem_fd, 0);
    if (p->mem == MAP_FAILED) {
        p->mem = NULL;
        return -errno;
    }
    p->slot_hva = calloc(KVM_SLOTS_MAX, sizeof(*p->slot_hva));
    p->mem_slots = calloc(p->mem_size >> KVM_SLOT_SHIFT, sizeof(*p->mem_slots));
    return p->slot_hva != NULL && p->mem_slots != NULL ? 0 : -ENOMEM;
}

static int plat_stub_page(struct kvm_plat *p, uint64_t va, const char *text, size_t size,
                          uint64_t flags)
{
    struct kvm_page page;
    int r = kvm_table_page(p, &page);

    if (r != 0)
        return r;
    memcpy(page.hva, text, size);
    return kvm_kernel_map(p, va, page.gpa, PTE_P | flags);
}

/* Gates to the stub's vectors, on a stack of their own; breakpoints and overflow may be asked for.
 */
static void plat_fill_idt(uint64_t *idt)
{
    for (uint64_t i = 0; i < KVM_VECTORS; i++) {
        const uint64_t at = KVM_STUB_VA + i * KVM_STUB_STEP;
        const uint64_t ist = i == 2 ? 2 : i == 8 ? 3 : 1;
        const uint64_t type = i == 3 || i == 4 ? 0xee : 0x8e;
        idt[2 * i] = (at & 0xffff) | (uint64_t)KVM_KERNEL_CS << 16 | ist << 32 | type << 40 |
                     ((at >> 16) & 0xffff) << 48;
        idt[2 * i + 1] = at >> 32;
    }
}

static int plat_fill_upper_half(struct kvm_plat *p)
{
    uint64_t idt[2 * KVM_VECTORS];
    const size_t syscall_size = (size_t)(kvm_stub_syscall_end - kvm_stub_syscall);
    int r = kvm_table_page(p, &p->kernel_pdpt);

    if (r == 0)
        r = kvm_table_page(p, &p->idle_root);
    if (r != 0)
        return r;
    kvm_root_init(p, &p->idle_root);
    plat_fill_idt(idt);
    r = plat_stub_page(p, KVM_STUB_VA, kvm_stub_vectors,
                       (size_t)(kvm_stub_vectors_end - kvm_stub_vectors), 0);
    if (r == 0)
        r = plat_stub_page(p, KVM_SYSCALL0_VA, kvm_stub_syscall, syscall_size, 0);
    if (r == 0)
        r = plat_stub_page(p, KVM_SYSCALL3_VA, kvm_stub_syscall, syscall_size, PTE_U);
    if (r == 0)
        r = plat_stub_page(p, KVM_IDT_VA, (const char *)idt, sizeof(idt), PTE_NX);
    return r;
}

/* ---- where system calls arrive ---- */

/* Lets ring 3 make one SYSCALL: the page it arrives at is the one for ring 3, readable for both. */
static int plat_probe_syscall(struct kvm_plat *p)
{
    static const uint8_t code[] = {0x0f, 0x05};
    struct kvm_vcpu *v = p->cpus[0];
    struct kvm_page page;
    int r = kvm_table_page(p, &page);

    if (r == 0)
        r = kvm_kernel_map(p, KVM_PROBE_VA, page.gpa, PTE_P | PTE_U);
    if (r != 0)
        return r;
    memcpy(page.hva, code, sizeof(code));
    v->run->s.regs.regs = (struct kvm_regs){.rip = KVM_PROBE_VA, .rflags = 2};
    v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
    do
        r = ioctl(v->fd, KVM_RUN, 0) == 0 ? 0 : -errno;
    while (r == -EINTR);
    if (r != 0)
        return r;
    if (v->run->exit_reason != KVM_EXIT_IO || v->run->io.port != KVM_PORT_SYSCALL)
        return -ENOTSUP;
    p->ring3_syscall = (v->run->s.regs.sregs.cs.selector & 3) == 3;
    /* Such a host runs the guest beside itself and shadows its tables: an entry of 2 MiB could not
     * be taken apart again, see docs/kvm.md. */
    p->base.large = p->ring3_syscall ? 0 : KVM_LARGE;
    /* Of the machine's memory in the sentry, and of the second stage. */
    p->base.mem_tables = p->ring3_syscall ? 1 : 2;
    return kvm_vcpu_set_syscall(v);
}

/* ---- the host's vDSO ---- */

/* It and its data are shown to every guest, for our own vDSO to call: it reads the clocks by the
 * time stamp counter, which must then be the host's. Without it, clocks are read by system calls.
 */
static int plat_show_vdso(struct kvm_plat *p)
{
    const struct plat_range host = stub_vdso_range();
    const uint64_t size = host.end - host.start;
    uint32_t slot;

    if (size == 0 || kvm_vcpu_set_tsc(p->cpus[0]) != 0)
        return 0;
    mutex_lock(&p->mu);
    int r = kvm_slot_add_locked(p, (uint8_t *)(uintptr_t)host.start, size, &slot);
    mutex_unlock(&p->mu);
    if (r != 0)
        return r;
    p->vdso_gpa = kvm_slot_gpa(slot);
    p->vdso_size = size;
    p->vdso_va = KVM_HAND_VA - size;
    p->base.max_addr = p->vdso_va;
    p->base.host_vdso = getauxval(AT_SYSINFO_EHDR) - host.start + p->vdso_va;
    return 0;
}

/* ---- life ---- */

static void plat_on_kick(int signo)
{
    (void)signo;
}

/* Kicks must end KVM_RUN, and no other call of the sentry. */
static int plat_take_signal(void)
{
    struct sigaction sa = {.sa_handler = plat_on_kick, .sa_flags = SA_RESTART};

    sigemptyset(&sa.sa_mask);
    return sigaction(KVM_KICK, &sa, NULL) == 0 ? 0 : -errno;
}

static void plat_destroy(struct plat *base)
{
    struct kvm_plat *p = kvm_plat(base);

    kvm_hand_fini(p);
    for (unsigned i = 0; i < p->cpu_count; i++)
        if (p->cpus[i] != NULL)
            kvm_vcpu_free(p->cpus[i]);
    kvm_windows_fini(p);
    patch_plat_fini(&p->patch);
    if (p->vm_fd >= 0)
        (void)close(p->vm_fd);
    kvm_tables_unmap(p);
    if (p->mem != NULL)
        (void)munmap(p->mem, p->mem_size);
    cond_destroy(&p->cpus_free);
    mutex_destroy(&p->runners_mu);
    mutex_destroy(&p->cpus_mu);
    mutex_destroy(&p->mu);
    free(p->mem_slots);
    free(p->slot_hva);
    free(p->cpuid);
    free(p);
}

/* How many, and which. */
static unsigned plat_host_cpus(struct kvm_plat *p)
{
    if (sched_getaffinity(0, sizeof(p->host_cpus), &p->host_cpus) != 0) {
        CPU_ZERO(&p->host_cpus);
        return 1;
    }
    return (unsigned)CPU_COUNT(&p->host_cpus);
}

static int plat_make_machine(struct kvm_plat *p, int kvm_fd)
{
    int size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    int r = plat_get_cpuid(p, kvm_fd);

    if (r != 0 || size <= 0)
        return r != 0 ? r : -EIO;
    p->run_size = (size_t)size;
    plat_choose_features(p);
    p->vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    if (p->vm_fd < 0)
        return -errno;
    (void)fcntl(p->vm_fd, F_SETFD, FD_CLOEXEC);
    r = plat_map_memory(p);
    if (r == 0)
        r = plat_fill_upper_half(p);
    if (r == 0)
        r = kvm_vcpu_new(p, 0, &p->cpus[0]);
    if (r != 0)
        return r;
    p->cpu_count = 1;
    r = plat_probe_syscall(p);
    if (r == 0)
        r = kvm_hand_init(p, plat_host_cpus(p));
    return r != 0 ? r : plat_show_vdso(p);
}

/* A shadow of a page table, whose entry each of its entries is, and what the host knows of both. */
#define SHADOW_BYTES (2 * PAGE_SIZE + 256)
#define SHADOW_PART 16u
#define SHADOWS_MIN 256u

/* Shadows stay when what they show is gone. With a limit the host keeps so many and no more, and
 * makes the others anew when they are used. */
static int plat_bound_shadows(struct kvm_plat *p, uint64_t memory)
{
    const uint64_t count = MAX(memory / SHADOW_PART / SHADOW_BYTES, (uint64_t)SHADOWS_MIN);

    if (memory == 0 || !p->ring3_syscall)
        return 0;
    if (ioctl(p->vm_fd, KVM_SET_NR_MMU_PAGES, count) != 0)
        return -errno;
    heap_add((int64_t)(count * SHADOW_BYTES));
    return 0;
}

static int plat_patch(struct kvm_plat *p, int decoder_fd)
{
    p->patch.areas = KVM_AREAS_VA;
    p->patch.nobody = KVM_NOBODY_VA;
    p->patch.call = KVM_HAND_VA + (uint64_t)(kvm_hand_call - kvm_hand);
    p->base.reserved[p->base.reserved_count++] = (struct plat_range){PATCH_TABLE, PATCH_END};
    return patch_plat_open(&p->patch, &kvm_patch_ops, decoder_fd);
}

static int plat_create(const struct plat_config *cfg, struct plat **out_plat)
{
    struct kvm_plat *p = calloc(1, sizeof(*p));
    int r;

    if (p == NULL)
        return -ENOMEM;
    p->base.ops = &kvm_plat_ops;
    p->base.min_addr = KVM_USER_START;
    p->vdso_va = p->base.max_addr = KVM_HAND_VA;
    p->vm_fd = -1;
    p->mem_fd = cfg->mem_fd;
    p->ring3_syscall = true; /* till the probe says otherwise */
    p->cpu_max = MIN(KVM_CPUS_PER_HOST_CPU * plat_host_cpus(p), KVM_CPUS_MAX);
    mutex_init(&p->mu, LOCK_RANK_LEAF);
    mutex_init(&p->cpus_mu, LOCK_RANK_LEAF);
    mutex_init(&p->runners_mu, LOCK_RANK_LEAF);
    cond_init(&p->cpus_free);
    patch_plat_init(&p->patch);
    list_init(&p->windows);
    list_init(&p->window_chunks);
    list_init(&p->table_chunks);
    r = plat_take_signal();
    if (r == 0)
        r = plat_make_machine(p, cfg->device_fd);
    if (r == 0)
        r = plat_bound_shadows(p, cfg->memory);
    /* Where SYSCALL comes to ring 0, it is as good. */
    if (r == 0 && cfg->patch && p->runner_max > 0 && patch_supported())
        r = plat_patch(p, cfg->decoder_fd);
    if (r != 0) {
        plat_destroy(&p->base);
        return r;
    }
    log_debug("kvm: system calls arrive in ring %d", p->ring3_syscall ? 3 : 0);
    *out_plat = &p->base;
    return 0;
}

const struct plat_ops kvm_plat_ops = {
    .name = "kvm",
    .patches = true,
    .as = &kvm_as_ops,
    .ctx = &kvm_ctx_ops,
    .probe = plat_probe,
    .open = plat_open,
    .create = plat_create,
    .destroy = plat_destroy,
};
