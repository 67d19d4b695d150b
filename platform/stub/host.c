/* The vDSO, the leftovers of the C library, and how the host tells exceptions. */
#include "platform/stub/host.h"

#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Intel SDM vol. 3, 6.15, and the error code of a page fault. */
enum {
    TRAP_DIVIDE = 0,
    TRAP_DEBUG = 1,
    TRAP_BREAKPOINT = 3,
    TRAP_OPCODE = 6,
    TRAP_GENERAL_PROTECTION = 13,
    TRAP_PAGE_FAULT = 14,
    TRAP_ALIGNMENT = 17,
    TRAP_SIMD = 19,
};
enum { PF_PRESENT = 1, PF_USER = 4, PF_FETCH = 16 };

/* Pieces of the host's vDSO and its data, lowest first and side by side. */
#define HOST_VDSO_PIECES 4

/* Where the host put its vDSO: found while /proc can be read, the same in every fork. */
static struct plat_range vdso_pieces[HOST_VDSO_PIECES];
static size_t vdso_piece_count;

struct plat_range stub_vdso_range(void)
{
    if (vdso_piece_count == 0)
        return (struct plat_range){0, 0};
    return (struct plat_range){vdso_pieces[0].start, vdso_pieces[vdso_piece_count - 1].end};
}

int stub_vdso_find(char *why, size_t why_size)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[512];

    if (f == NULL) {
        int code = errno;
        (void)snprintf(why, why_size, "/proc/self/maps cannot be read: %s", strerror(code));
        return -code;
    }
    vdso_piece_count = 0;
    while (fgets(line, sizeof(line), f) != NULL) {
        unsigned long start, end;
        if ((strstr(line, "[vvar") == NULL && strstr(line, "[vdso]") == NULL) ||
            sscanf(line, "%lx-%lx", &start, &end) != 2)
            continue;
        if (stub_vdso_range().end != start)
            vdso_piece_count = 0;
        if (vdso_piece_count < HOST_VDSO_PIECES)
            vdso_pieces[vdso_piece_count++] = (struct plat_range){start, end};
    }
    (void)fclose(f);
    return 0;
}

bool stub_vdso_move(uint64_t to)
{
    for (size_t i = 0; i < vdso_piece_count; i++) {
        uint64_t size = vdso_pieces[i].end - vdso_pieces[i].start;
        if (syscall(SYS_mremap, vdso_pieces[i].start, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
                    to) < 0)
            return false;
        to += size;
    }
    return true;
}

/* The kernel would go on writing to the C library's area, which will not be there. Its size is what
 * the library registered, of which it tells only the part in use. */
void stub_no_rseq(void)
{
    char *area = (char *)__builtin_thread_pointer() + __rseq_offset;

    if (__rseq_size != 0 &&
        syscall(SYS_rseq, area, 32u, (unsigned)RSEQ_FLAG_UNREGISTER, RSEQ_SIG) != 0)
        (void)syscall(SYS_rseq, area, __rseq_size, (unsigned)RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
}

bool stub_drop_capabilities(void)
{
    struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct none[2];

    memset(none, 0, sizeof(none));
    return syscall(SYS_capset, &hdr, none) == 0;
}

/* A host that does not randomize has the stack at the very end, and the windows of the memory file
 * from 128 MiB below it on: what is free lies between them, or below the windows. */
int stub_reserve(uint64_t size, uint64_t *out_addr)
{
    const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const uint64_t near = UINT64_C(16) << 20, far = UINT64_C(1) << 30;
    const uint64_t top = STUB_TASK_END - size, lowest = STUB_TASK_END - (UINT64_C(1) << 40);
    void *m;

    for (uint64_t at = top; at > lowest; at -= top - at < far ? near : far) {
        m = mmap((void *)(uintptr_t)at, size, prot, flags | MAP_FIXED_NOREPLACE, -1, 0);
        if (m == MAP_FAILED)
            continue;
        if ((uint64_t)(uintptr_t)m == at) {
            *out_addr = at;
            return 0;
        }
        (void)munmap(m, size);
    }
    m = mmap(NULL, size, prot, flags, -1, 0);
    if (m == MAP_FAILED)
        return -errno;
    *out_addr = (uint64_t)(uintptr_t)m;
    return 0;
}

uint32_t stub_xstate_size(void)
{
    uint32_t eax = 0xd, ebx, ecx = 0, edx;

    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return ebx;
}

void stub_fault_trap(struct plat_fault *f)
{
    f->errcode = 0;
    switch (f->signo) {
    case SIGSEGV:
        f->trapno = f->code == SI_KERNEL ? TRAP_GENERAL_PROTECTION : TRAP_PAGE_FAULT;
        break;
    case SIGBUS:
        f->trapno = f->code == BUS_ADRALN ? TRAP_ALIGNMENT : TRAP_PAGE_FAULT;
        break;
    case SIGFPE:
        f->trapno = f->code == FPE_INTDIV ? TRAP_DIVIDE : TRAP_SIMD;
        break;
    case SIGILL:
        f->trapno = TRAP_OPCODE;
        break;
    default:
        f->trapno = f->code == SI_KERNEL ? TRAP_BREAKPOINT : TRAP_DEBUG;
        break;
    }
    if (f->trapno == TRAP_PAGE_FAULT)
        f->errcode = PF_USER | (f->code == SEGV_ACCERR ? PF_PRESENT : 0u) |
                     (f->access == PLAT_EXEC ? PF_FETCH : 0u);
}

struct plat_regs stub_regs_fresh(void)
{
    return (struct plat_regs){.cs = STUB_USER_CS, .ss = STUB_USER_SS, .eflags = STUB_EFLAGS};
}

int stub_xstate_whole(const void *buf, size_t size, size_t full, char **out_area)
{
    const uint64_t legacy = STUB_XSTATE_X87_SSE;

    if (size < STUB_XSAVE_HEADER || size > full)
        return -EINVAL;
    char *area = calloc(1, full);
    if (area == NULL)
        return -ENOMEM;
    memcpy(area, buf, size);
    if (size < STUB_XSAVE_LEGACY_SIZE) {
        memset(area + STUB_XSAVE_HEADER, 0, full - STUB_XSAVE_HEADER);
        memcpy(area + STUB_XSAVE_HEADER, &legacy, sizeof(legacy));
    }
    *out_area = area;
    return 0;
}
