/* New stub processes and threads, cloned by stubs since the sentry itself may not. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "platform/ptrace/ptrace_priv.h"

/* Siblings of the one that clones: the sentry is the parent of every stub. The descriptor table is
 * the sentry's own, so that host files can be mapped. */
#define PT_PROCESS_FLAGS (CLONE_PARENT | CLONE_FILES | CLONE_FS | SIGCHLD)
#define PT_THREAD_FLAGS                                                                            \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

static int clone_run(const struct pt_plat *p, pid_t tid, const char *code, uint64_t flags,
                     struct plat_regs *regs, pid_t *out_tid, bool *interrupted)
{
    regs->rip = pt_stub_addr(p, code);
    regs->rax = SYS_clone;
    regs->rdi = flags;
    regs->rsi = 0;
    regs->rdx = 0;
    regs->r10 = 0;
    regs->r8 = 0;
    int r = pt_run_stub(tid, regs, interrupted);
    if (r != 0)
        return r;
    if ((int64_t)regs->rax < 0)
        return (int)(int64_t)regs->rax;
    *out_tid = (pid_t)regs->rax;
    return 0;
}

int pt_clone_process(const struct pt_plat *p, pid_t tid, uint32_t slot, pid_t *out_pid,
                     bool *interrupted)
{
    struct plat_regs regs;
    int r = pt_get_regs(tid, &regs);

    if (r != 0)
        return r;
    regs.r12 = p->ops;
    regs.r13 = PAGE_SIZE;
    regs.r14 = PROT_READ;
    regs.r15 = MAP_SHARED | MAP_FIXED;
    regs.rbx = (uint64_t)p->ops_fd;
    regs.rbp = (uint64_t)slot * PAGE_SIZE;
    return clone_run(p, tid, stub_fork, PT_PROCESS_FLAGS, &regs, out_pid, interrupted);
}

int pt_clone_thread(const struct pt_plat *p, pid_t tid, pid_t *out_tid, bool *interrupted)
{
    struct plat_regs regs;
    int r = pt_get_regs(tid, &regs);

    if (r != 0)
        return r;
    return clone_run(p, tid, stub_thread, PT_THREAD_FLAGS, &regs, out_tid, interrupted);
}
