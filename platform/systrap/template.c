/* The first stub: a fork of the young sentry that installs its handlers and its filter and then is
 * emptied of everything but the pages of ours and the vDSO; and the platform's start and end. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/systrap/systrap_priv.h"

/* Exit status of a template that cannot move the vDSO. */
#define TEMPLATE_VDSO_STAYS 3
/* How often its end is looked for while it starts. */
#define TEMPLATE_TICK_NS (UINT64_C(10) * 1000 * 1000)
#define TEMPLATE_AREAS ((uint64_t)ST_THREADS * ST_AREA_SIZE)

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE 2
#endif
#define TEMPLATE_SA_RESTORER 0x04000000u

static int systrap_probe(char *why, size_t why_size)
{
    int r = stub_vdso_find(why, why_size);

    if (r != 0)
        return r;
    if ((getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) == 0) {
        (void)snprintf(why, why_size, "the host does not let programs set their FS base");
        return -ENOTSUP;
    }
    if (stub_xstate_size() > ST_XSTATE_MAX) {
        (void)snprintf(why, why_size, "extended state of %u bytes", stub_xstate_size());
        return -ENOTSUP;
    }
    return 0;
}

/* ---- in the fork, whose memory is still the sentry's: nothing may take a lock ---- */

/* As the kernel takes it. */
struct template_action {
    uint64_t handler, flags, restorer, mask;
};

/* Handlers run on the thread's own stack and block nothing, so that leaving one takes no call. The
 * interrupting signal does not reach threads that have not started. */
static bool template_signals(const struct st_plat *p)
{
    static const int caught[] = {SIGSYS, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, ST_SIGNAL};
    const struct template_action a = {
        .handler = st_text_addr(p, systrap_handler),
        .flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | TEMPLATE_SA_RESTORER,
        .restorer = st_text_addr(p, systrap_iret),
    };
    const uint64_t blocked = UINT64_C(1) << (ST_SIGNAL - 1);

    if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, NULL, sizeof(blocked)) != 0)
        return false;
    for (int sig = 1; sig < NSIG; sig++)
        (void)signal(sig, SIG_DFL);
    for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
        if (syscall(SYS_rt_sigaction, caught[i], &a, NULL, sizeof(a.mask)) != 0)
            return false;
    return true;
}

static NORETURN void template_main(const struct st_plat *p)
{
    const uint64_t ops = p->ops, off = (uint64_t)p->template->slot * PAGE_SIZE,
                   control = st_text_addr(p, systrap_control);
    const uint64_t fd = (uint64_t)p->ops_fd;

    (void)prctl(PR_SET_NAME, "runsc-stub", 0, 0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    stub_no_rseq();
    if (p->vdso_moved && !stub_vdso_move(p->ops + PAGE_SIZE))
        _exit(TEMPLATE_VDSO_STAYS);
    if (!template_signals(p) || !stub_drop_capabilities() || st_filter_load(p) != 0)
        _exit(1);
    __asm__ volatile("movq %0, %%r12\n\t"
                     "xorl %%r13d, %%r13d\n\t"
                     "movq %1, %%r14\n\t"
                     "movq %2, %%r15\n\t"
                     "xorl %%esp, %%esp\n\t"
                     "jmp *%3"
                     :
                     : "a"(ops), "c"(off), "d"(fd), "D"(control)
                     : "r12", "r13", "r14", "r15", "memory");
    __builtin_unreachable();
}

/* ---- in the sentry ---- */

/* The first batch: everything but what is ours and the vDSO goes, whatever their order. */
static void template_empty(const struct st_plat *p)
{
    const struct plat_range vdso = stub_vdso_range();
    struct plat_range keep[2] = {{p->text, p->end}, {0, 0}};
    struct st_ops *o = st_ops(p->template);
    uint64_t at = 0;

    if (!p->vdso_moved && vdso.end != 0) {
        keep[1] = vdso;
        if (keep[1].start < keep[0].start) {
            keep[1] = keep[0];
            keep[0] = vdso;
        }
    }
    o->count = 0;
    for (size_t i = 0; i <= ARRAY_SIZE(keep); i++) {
        const uint64_t to = i == ARRAY_SIZE(keep) ? STUB_TASK_END : keep[i].start;
        if (at < to)
            o->ops[o->count++] = (struct stub_op){.nr = SYS_munmap, .args = {at, to - at}};
        if (i < ARRAY_SIZE(keep) && keep[i].end != 0)
            at = keep[i].end;
    }
    atomic_store(&o->cmd, 1);
}

/* Maps what is ours, with room for the vDSO behind it. */
static int template_fill(struct st_plat *p)
{
    char *m = (char *)(uintptr_t)p->text;

    memcpy(m, systrap_text, (size_t)(systrap_text_end - systrap_text));
    st_data_fill(p, m + PAGE_SIZE);
    if (mprotect(m, PAGE_SIZE, PROT_READ | PROT_EXEC) != 0 ||
        mprotect(m + PAGE_SIZE, PAGE_SIZE, PROT_READ) != 0 ||
        mmap(m + 2 * PAGE_SIZE, PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, p->ops_fd,
             (off_t)p->template->slot * PAGE_SIZE) == MAP_FAILED)
        return -errno;
    return 0;
}

/* Areas, code, data, operations page, vDSO. */
static int template_place(struct st_plat *p, uint64_t *out_start)
{
    const struct plat_range vdso = stub_vdso_range();
    const uint64_t ours = 3 * PAGE_SIZE + (p->vdso_moved ? vdso.end - vdso.start : 0);
    const uint64_t size = TEMPLATE_AREAS + ST_AREA_SIZE + ours;
    int r = stub_reserve(size, out_start);

    if (r != 0)
        return r;
    p->end = *out_start + size;
    p->text = p->end - ours;
    p->ops = p->text + 2 * PAGE_SIZE;
    p->areas = ALIGN_DOWN(p->text - TEMPLATE_AREAS, ST_AREA_SIZE);
    p->patch.areas = p->ops + ST_OPS_AREAS;
    p->patch.nobody = p->text + PAGE_SIZE;
    p->patch.call = st_text_addr(p, systrap_call);
    return template_fill(p);
}

/* Its first batch tells that it needs nothing of ours any more. */
static int template_catch(const struct st_plat *p, pid_t pid)
{
    struct st_ops *o = st_ops(p->template);
    siginfo_t si;

    while (atomic_load(&o->done) == 0) {
        st_futex_wait(&o->done, 0, TEMPLATE_TICK_NS);
        memset(&si, 0, sizeof(si));
        if (waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | __WALL) != 0)
            return -errno;
        if (si.si_pid == pid)
            return si.si_code == CLD_EXITED && si.si_status == TEMPLATE_VDSO_STAYS ? -ECANCELED
                                                                                   : -EPERM;
    }
    if (atomic_load(&o->left) == 0)
        return 0;
    (void)kill(pid, SIGKILL);
    (void)waitid(P_PID, (id_t)pid, &si, WEXITED | __WALL);
    return -EPERM;
}

static int template_try(struct st_plat *p)
{
    uint64_t start = 0;
    int r = template_place(p, &start);

    if (r == 0) {
        template_empty(p);
        pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES, NULL, NULL, NULL, NULL);
        if (pid == 0)
            template_main(p);
        r = pid < 0 ? -errno : template_catch(p, pid);
        if (r == 0)
            st_process_known(p->template, pid);
    }
    if (start != 0)
        (void)munmap((void *)(uintptr_t)start, p->end - start);
    return r;
}

int st_template_start(struct st_plat *p)
{
    int r = st_as_alloc(p, &p->template);

    if (r != 0)
        return r;
    p->vdso_moved = stub_vdso_range().end != 0;
    r = template_try(p);
    if (r == -ECANCELED) {
        /* Some hosts seal it where it is. */
        p->vdso_moved = false;
        r = template_try(p);
    }
    return r;
}

static void systrap_destroy(struct plat *base)
{
    struct st_plat *p = st_plat(base);

    stub_placer_fini(&p->placer);
    if (p->template != NULL) {
        /* The reaper ends with the last process. */
        if (!p->reaping && st_reaper_start(p) != 0)
            log_error("systrap: no thread to wait for stubs with");
        st_as_put(&p->template->base);
    }
    if (p->reaping)
        (void)pthread_join(p->reaper, NULL);
    if (p->ops_mem != NULL)
        (void)munmap(p->ops_mem, (size_t)ST_SLOTS * PAGE_SIZE);
    if (p->areas_mem != NULL)
        (void)munmap(p->areas_mem, (size_t)ST_AREAS * ST_AREA_SIZE);
    patch_plat_fini(&p->patch);
    if (p->ops_fd >= 0)
        (void)close(p->ops_fd);
    if (p->areas_fd >= 0)
        (void)close(p->areas_fd);
    idalloc_fini(&p->slots);
    idalloc_fini(&p->area_ids);
    mutex_destroy(&p->mu);
    free(p);
}

static void systrap_describe(struct st_plat *p)
{
    struct plat *b = &p->base;
    const struct plat_range vdso = stub_vdso_range();

    b->min_addr = 0x10000;
    b->max_addr = p->end == STUB_TASK_END ? p->areas : STUB_TASK_END;
    b->reserved[b->reserved_count++] = (struct plat_range){p->areas, p->end};
    if (vdso.end != 0)
        b->host_vdso = getauxval(AT_SYSINFO_EHDR);
    if (p->vdso_moved)
        b->host_vdso += p->ops + PAGE_SIZE - vdso.start;
    else if (vdso.end != 0)
        b->reserved[b->reserved_count++] = vdso;
    if (p->patch.ops != NULL)
        b->reserved[b->reserved_count++] = (struct plat_range){PATCH_TABLE, PATCH_END};
    b->xstate_size = stub_xstate_size();
}

/* A memory file of size bytes and all of it mapped here. */
static int systrap_share(const char *name, size_t size, int *out_fd, void **out_mem)
{
    *out_fd = memfd_create(name, MFD_CLOEXEC);
    if (*out_fd < 0 || ftruncate(*out_fd, (off_t)size) != 0)
        return -errno;
    void *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, *out_fd, 0);
    if (m == MAP_FAILED)
        return -errno;
    *out_mem = m;
    return 0;
}

static int systrap_create(const struct plat_config *cfg, struct plat **out_plat)
{
    struct st_plat *p = calloc(1, sizeof(*p));
    void *mem = NULL;

    if (p == NULL)
        return -ENOMEM;
    p->base.ops = &systrap_plat_ops;
    p->ops_fd = p->areas_fd = -1;
    p->keys = st_xstate_keys();
    /* Where protection keys let pages be executed only, a program that reads its own code faults,
     * and gets the original. */
    p->patch_prot = p->keys != 0 ? PROT_EXEC : PROT_READ | PROT_EXEC;
    p->patience_ns = ST_PATIENCE_NS;
    p->spin = stub_pace_calibrate();
    mutex_init(&p->mu, LOCK_RANK_LEAF);
    list_init(&p->processes);
    stub_placer_init(&p->placer);
    p->placer.long_turn = st_long_turn;
    idalloc_init(&p->slots, 1, ST_SLOTS - 1);
    idalloc_init(&p->area_ids, 0, ST_AREAS - 1);
    patch_plat_init(&p->patch);
    int r = cfg->patch && patch_supported()
                ? patch_plat_open(&p->patch, &st_patch_ops, cfg->decoder_fd)
                : 0;
    if (r == 0)
        r = systrap_share("stub-operations", (size_t)ST_SLOTS * PAGE_SIZE, &p->ops_fd, &mem);
    p->ops_mem = mem;
    if (r == 0) {
        mem = NULL;
        r = systrap_share("stub-areas", (size_t)ST_AREAS * ST_AREA_SIZE, &p->areas_fd, &mem);
        p->areas_mem = mem;
    }
    if (r == 0)
        r = st_template_start(p);
    if (r != 0) {
        systrap_destroy(&p->base);
        return r;
    }
    systrap_describe(p);
    *out_plat = &p->base;
    return 0;
}

const struct plat_ops systrap_plat_ops = {
    .name = "systrap",
    .patches = true,
    .as = &st_as_ops,
    .ctx = &st_ctx_ops,
    .probe = systrap_probe,
    .create = systrap_create,
    .destroy = systrap_destroy,
};
