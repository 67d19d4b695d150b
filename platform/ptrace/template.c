/* The first stub: a fork of the young sentry, emptied of everything but two pages and the vDSO. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/ptrace/ptrace_priv.h"

#define PT_TASK_END UINT64_C(0x7ffffffff000)

/* Where the host put its vDSO: found while /proc can be read, the same in every fork. */
static struct plat_range host_vdso_range;

static int ptrace_probe(char *why, size_t why_size)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[512];

    if (f == NULL) {
        (void)snprintf(why, why_size, "/proc/self/maps cannot be read: %s", strerror(errno));
        return -errno;
    }
    host_vdso_range = (struct plat_range){0, 0};
    while (fgets(line, sizeof(line), f) != NULL) {
        unsigned long start, end;
        if ((strstr(line, "[vvar") == NULL && strstr(line, "[vdso]") == NULL) ||
            sscanf(line, "%lx-%lx", &start, &end) != 2)
            continue;
        if (host_vdso_range.end == start)
            host_vdso_range.end = end;
        else
            host_vdso_range = (struct plat_range){start, end};
    }
    (void)fclose(f);
    return 0;
}

/* Runs in the fork, whose memory is still the sentry's. Nothing here may take a lock. */
static NORETURN void template_main(const struct pt_plat *p)
{
    sigset_t none;

    (void)prctl(PR_SET_NAME, "runsc-stub", 0, 0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    /* The kernel would go on writing to the C library's area, which will not be there. */
    if (__rseq_size != 0)
        (void)syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32u,
                      (unsigned)RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    for (int sig = 1; sig < 32; sig++)
        (void)signal(sig, SIG_DFL);
    if (pt_filter_load(p->text) == 0)
        ((void (*)(void))(uintptr_t)pt_stub_addr(p, stub_park))();
    _exit(1);
}

static int template_unmap(const struct pt_plat *p, uint64_t start, uint64_t end)
{
    const uint64_t args[6] = {start, end - start};
    int64_t ret = 0;

    if (start >= end)
        return 0;
    int r = pt_call(p, p->template_pid, SYS_munmap, args, &ret);
    return r != 0 ? r : (int)ret;
}

/* Everything but the two pages of ours and the vDSO, whatever their order. */
static int template_empty(const struct pt_plat *p)
{
    struct plat_range keep[2] = {{p->text, p->ops + PAGE_SIZE}, host_vdso_range};
    uint64_t at = 0;

    if (keep[1].start < keep[0].start) {
        keep[1] = keep[0];
        keep[0] = host_vdso_range;
    }
    for (size_t i = 0; i < ARRAY_SIZE(keep); i++) {
        if (keep[i].start == keep[i].end)
            continue;
        int r = template_unmap(p, at, keep[i].start);
        if (r != 0)
            return r;
        at = keep[i].end;
    }
    return template_unmap(p, at, PT_TASK_END);
}

/* Initial x87 and SSE state, as a fresh program has it. */
static int template_clear_xstate(pid_t tid)
{
    char *buf = calloc(1, PT_XSTATE_MAX);
    int64_t n = buf != NULL ? pt_get_xstate(tid, buf, PT_XSTATE_MAX) : -ENOMEM;

    if (n < 576) {
        free(buf);
        return n < 0 ? (int)n : -ENODEV;
    }
    uint64_t xfeatures;
    const uint16_t fcw = 0x37f;
    const uint32_t mxcsr = 0x1f80;
    memcpy(&xfeatures, buf + 464, sizeof(xfeatures));
    memset(buf, 0, (size_t)n);
    memcpy(buf, &fcw, sizeof(fcw));
    memcpy(buf + 24, &mxcsr, sizeof(mxcsr));
    memcpy(buf + 464, &xfeatures, sizeof(xfeatures));
    int r = pt_set_xstate(tid, buf, (size_t)n);
    free(buf);
    return r;
}

/* Two pages that are free in this process and at the end of what a guest may use. */
static int template_place(struct pt_plat *p)
{
    for (uint64_t at = PT_TASK_END - 2 * PAGE_SIZE; at > PT_TASK_END - (UINT64_C(1) << 36);
         at -= UINT64_C(1) << 30) {
        void *m = mmap((void *)(uintptr_t)at, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (m == MAP_FAILED)
            continue;
        if ((uint64_t)(uintptr_t)m == at) {
            p->text = at;
            p->ops = at + PAGE_SIZE;
            memcpy(m, stub_text, (size_t)(stub_text_end - stub_text));
            if (mprotect(m, PAGE_SIZE, PROT_READ | PROT_EXEC) != 0 ||
                mmap((char *)m + PAGE_SIZE, PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, p->ops_fd,
                     0) == MAP_FAILED)
                return -errno;
            return 0;
        }
        (void)munmap(m, 2 * PAGE_SIZE);
    }
    return -ENOMEM;
}

int pt_template_start(struct pt_plat *p)
{
    int r = template_place(p);

    if (r != 0)
        return r;
    p->template_pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
    if (p->template_pid == 0)
        template_main(p);
    if (p->template_pid < 0)
        return -errno;
    (void)munmap((void *)(uintptr_t)p->text, 2 * PAGE_SIZE);
    /* It must be in the stub's own page before it loses what it runs on. */
    for (int i = 0; i < 10000; i++) {
        struct plat_regs regs;
        r = pt_seize(p->template_pid);
        if (r != 0)
            break;
        r = pt_get_regs(p->template_pid, &regs);
        if (r != 0 || ALIGN_DOWN(regs.rip, PAGE_SIZE) == p->text)
            break;
        /* Not there yet: go on from where it is. */
        r = (int)syscall(SYS_ptrace, (long)PTRACE_DETACH, (long)p->template_pid, 0L, 0L);
        if (r != 0)
            break;
        (void)usleep(100);
    }
    if (r == 0)
        r = template_empty(p);
    if (r == 0)
        r = template_clear_xstate(p->template_pid);
    if (r != 0) {
        pt_kill(p->template_pid);
        return r;
    }
    pt_detach(p, p->template_pid);
    return 0;
}

static uint32_t template_xstate_size(void)
{
    uint32_t eax = 0xd, ebx, ecx = 0, edx;

    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return ebx;
}

static void ptrace_destroy(struct plat *base)
{
    struct pt_plat *p = pt_plat(base);

    if (p->template_pid > 0)
        pt_kill(p->template_pid);
    if (p->ops_mem != NULL)
        (void)munmap(p->ops_mem, (size_t)PT_SLOTS * PAGE_SIZE);
    if (p->ops_fd >= 0)
        (void)close(p->ops_fd);
    idalloc_fini(&p->slots);
    mutex_destroy(&p->mu);
    free(p);
}

static void ptrace_describe(struct pt_plat *p)
{
    struct plat *b = &p->base;

    b->min_addr = 0x10000;
    b->max_addr = PT_TASK_END;
    b->reserved[b->reserved_count++] = (struct plat_range){p->text, p->ops + PAGE_SIZE};
    if (host_vdso_range.end != 0) {
        b->reserved[b->reserved_count++] = host_vdso_range;
        b->host_vdso = getauxval(AT_SYSINFO_EHDR);
    }
    b->xstate_size = template_xstate_size();
}

static int ptrace_create(const struct plat_config *cfg, struct plat **out_plat)
{
    struct pt_plat *p = calloc(1, sizeof(*p));
    void *mem;
    int r;

    if (p == NULL)
        return -ENOMEM;
    p->base.ops = &ptrace_plat_ops;
    p->mem_fd = cfg->mem_fd;
    mutex_init(&p->mu, LOCK_RANK_LEAF);
    idalloc_init(&p->slots, 1, PT_SLOTS - 1);
    p->ops_fd = memfd_create("stub-operations", MFD_CLOEXEC);
    if (p->ops_fd < 0 || ftruncate(p->ops_fd, (off_t)PT_SLOTS * PAGE_SIZE) != 0) {
        r = -errno;
        goto out_fail;
    }
    mem =
        mmap(NULL, (size_t)PT_SLOTS * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, p->ops_fd, 0);
    if (mem == MAP_FAILED) {
        r = -errno;
        goto out_fail;
    }
    p->ops_mem = mem;
    r = pt_template_start(p);
    if (r != 0)
        goto out_fail;
    ptrace_describe(p);
    pt_place_init(p);
    *out_plat = &p->base;
    return 0;

out_fail:
    ptrace_destroy(&p->base);
    return r;
}

const struct plat_ops ptrace_plat_ops = {
    .name = "ptrace",
    .as = &pt_as_ops,
    .ctx = &pt_ctx_ops,
    .probe = ptrace_probe,
    .create = ptrace_create,
    .destroy = ptrace_destroy,
};
