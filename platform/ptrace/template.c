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
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/ptrace/ptrace_priv.h"

/* Exit status of a template that cannot move the vDSO. */
#define TEMPLATE_VDSO_STAYS 3

/* Yama's level; from 2 on only the capable may trace, which the sentry is not. */
static int probe_yama(void)
{
    FILE *f = fopen("/proc/sys/kernel/yama/ptrace_scope", "re");
    int scope = 0;

    if (f == NULL)
        return 0;
    if (fscanf(f, "%d", &scope) != 1)
        scope = 0;
    (void)fclose(f);
    return scope;
}

static int ptrace_probe(char *why, size_t why_size)
{
    int r = stub_vdso_find(why, why_size);

    if (r != 0)
        return r;
    int yama = probe_yama();
    if (yama >= 2)
        (void)snprintf(why, why_size, "kernel.yama.ptrace_scope is %d", yama);
    return yama >= 2 ? -EPERM : 0;
}

/* ---- in the fork, whose memory is still the sentry's: nothing may take a lock ---- */

static void template_signals(void)
{
    sigset_t none;

    for (int sig = 1; sig < NSIG; sig++)
        (void)signal(sig, SIG_DFL);
    (void)signal(PT_INTERRUPT, SIG_IGN);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static NORETURN void template_main(const struct pt_plat *p)
{
    (void)prctl(PR_SET_NAME, "runsc-stub", 0, 0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    stub_no_rseq();
    template_signals();
    if (p->vdso_moved && !stub_vdso_move(p->ops + PAGE_SIZE))
        _exit(TEMPLATE_VDSO_STAYS);
    if (syscall(SYS_ptrace, (long)PTRACE_TRACEME, 0L, 0L, 0L) == 0 && stub_drop_capabilities() &&
        pt_filter_load(p->text) == 0)
        ((void (*)(void))(uintptr_t)pt_stub_addr(p, stub_ready))();
    _exit(1);
}

/* ---- in the sentry ---- */

static int template_unmap(const struct pt_plat *p, uint64_t start, uint64_t end)
{
    const uint64_t args[6] = {start, end - start};
    int64_t ret = 0;
    bool interrupted;

    if (start >= end)
        return 0;
    int r = pt_call(p, p->template_pid, SYS_munmap, args, &ret, &interrupted);
    return r != 0 ? r : (int)ret;
}

/* Everything but what is ours and the vDSO, whatever their order. */
static int template_empty(const struct pt_plat *p)
{
    struct plat_range keep[2] = {{p->text, p->end}, {0, 0}};
    uint64_t at = 0;

    if (!p->vdso_moved && stub_vdso_range().end != 0) {
        keep[1] = stub_vdso_range();
        if (keep[1].start < keep[0].start) {
            keep[1] = keep[0];
            keep[0] = stub_vdso_range();
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(keep); i++) {
        if (keep[i].start == keep[i].end)
            continue;
        int r = template_unmap(p, at, keep[i].start);
        if (r != 0)
            return r;
        at = keep[i].end;
    }
    return template_unmap(p, at, STUB_TASK_END);
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

/* Maps what is ours at addr, with room for the vDSO behind it. */
static int template_fill(struct pt_plat *p, uint64_t addr)
{
    char *m = (char *)(uintptr_t)addr;

    p->text = addr;
    p->ops = addr + PAGE_SIZE;
    memcpy(m, stub_text, (size_t)(stub_text_end - stub_text));
    if (mprotect(m, PAGE_SIZE, PROT_READ | PROT_EXEC) != 0 ||
        mmap(m + PAGE_SIZE, PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, p->ops_fd, 0) ==
            MAP_FAILED)
        return -errno;
    return 0;
}

/* Our two pages, and room for the vDSO behind them. */
static int template_place(struct pt_plat *p)
{
    const struct plat_range vdso = stub_vdso_range();
    const uint64_t size = 2 * PAGE_SIZE + (p->vdso_moved ? vdso.end - vdso.start : 0);
    uint64_t at;
    int r = stub_reserve(size, &at);

    if (r != 0)
        return r;
    p->end = at + size;
    return template_fill(p, at);
}

/* The fork says with a breakpoint in the stub's own page that it needs nothing else any more. */
static int template_catch(const struct pt_plat *p)
{
    const uintptr_t options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
    pid_t r;
    int status;

    do
        r = wait4(p->template_pid, &status, __WALL, NULL);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return -errno;
    if (WIFEXITED(status) && WEXITSTATUS(status) == TEMPLATE_VDSO_STAYS)
        return -ECANCELED;
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
        return -EPERM;
    return syscall(SYS_ptrace, (long)PTRACE_SETOPTIONS, (long)p->template_pid, 0L, options) == 0
               ? 0
               : -errno;
}

static int template_try(struct pt_plat *p)
{
    int r = template_place(p);

    if (r != 0)
        return r;
    p->template_pid = (pid_t)syscall(SYS_clone, CLONE_FILES, NULL, NULL, NULL, NULL);
    if (p->template_pid == 0)
        template_main(p);
    int code = errno;
    (void)munmap((void *)(uintptr_t)p->text, p->end - p->text);
    if (p->template_pid < 0)
        return -code;
    r = template_catch(p);
    if (r == -ECANCELED)
        return r;
    if (r == 0)
        r = template_empty(p);
    if (r == 0)
        r = template_clear_xstate(p->template_pid);
    if (r == 0)
        r = pt_detach(p, p->template_pid);
    if (r != 0) {
        pt_kill(p->template_pid);
        pt_reap(p->template_pid);
        p->template_pid = 0;
        return r;
    }
    return 0;
}

int pt_template_start(struct pt_plat *p)
{
    p->vdso_moved = stub_vdso_range().end != 0;
    int r = template_try(p);

    if (r == -ECANCELED) {
        /* Some hosts seal it where it is. */
        p->vdso_moved = false;
        r = template_try(p);
    }
    return r;
}

static void ptrace_destroy(struct plat *base)
{
    struct pt_plat *p = pt_plat(base);

    stub_placer_fini(&p->placer);
    if (p->template_pid > 0) {
        pt_kill(p->template_pid);
        pt_reap(p->template_pid);
    }
    for (size_t i = 0; i < p->ended_count; i++)
        pt_reap(p->ended[i]);
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
    const struct plat_range vdso = stub_vdso_range();

    b->min_addr = 0x10000;
    b->max_addr = p->end == STUB_TASK_END ? p->text : STUB_TASK_END;
    b->reserved[b->reserved_count++] = (struct plat_range){p->text, p->end};
    if (stub_vdso_range().end != 0)
        b->host_vdso = getauxval(AT_SYSINFO_EHDR);
    if (p->vdso_moved)
        b->host_vdso += p->ops + PAGE_SIZE - vdso.start;
    else if (stub_vdso_range().end != 0)
        b->reserved[b->reserved_count++] = vdso;
    b->xstate_size = stub_xstate_size();
}

static int ptrace_create(const struct plat_config *cfg, struct plat **out_plat)
{
    struct pt_plat *p = calloc(1, sizeof(*p));
    void *mem;
    int r;

    if (p == NULL)
        return -ENOMEM;
    /* Stops of stubs are waited for, each by its thread; no signal need say so. */
    const struct sigaction quiet = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP};
    (void)sigaction(SIGCHLD, &quiet, NULL);
    p->base.ops = &ptrace_plat_ops;
    p->mem_fd = cfg->mem_fd;
    mutex_init(&p->mu, LOCK_RANK_LEAF);
    stub_placer_init(&p->placer);
    p->placer.long_turn = pt_take_ended;
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
