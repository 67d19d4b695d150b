/* New stub processes and threads, cloned by stubs since the sentry itself may not. */
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "platform/ptrace/ptrace_priv.h"

static int clone_run(const struct pt_plat *p, pid_t tid, const char *code, uint64_t flags,
                     struct plat_regs *regs, pid_t *out_tid, bool *interrupted)
{
    regs->rip = pt_stub_addr(p, code);
    regs->rax = SYS_clone;
    regs->rdi = flags;
    int r = pt_run_stub(tid, regs, interrupted);
    if (r < 0)
        return r;
    if ((int64_t)regs->rax < 0)
        return (int)(int64_t)regs->rax;
    *out_tid = (pid_t)regs->rax;
    return 0;
}

void pt_fork_regs(const struct pt_plat *p, uint32_t slot, struct plat_regs *regs)
{
    *regs = (struct plat_regs){
        .cs = STUB_USER_CS,
        .ss = STUB_USER_SS,
        .r12 = p->ops,
        .r13 = PAGE_SIZE,
        .r14 = PROT_READ,
        .r15 = MAP_SHARED | MAP_FIXED,
        .rbx = (uint64_t)p->ops_fd,
        .rbp = (uint64_t)slot * PAGE_SIZE,
    };
}

int pt_clone_process(const struct pt_plat *p, pid_t tid, uint32_t slot, pid_t *out_pid,
                     bool *interrupted)
{
    struct plat_regs regs;

    pt_fork_regs(p, slot, &regs);
    return clone_run(p, tid, stub_fork, PT_PROCESS_FLAGS, &regs, out_pid, interrupted);
}

int pt_clone_thread(const struct pt_plat *p, pid_t tid, pid_t *out_tid, bool *interrupted)
{
    struct plat_regs regs = {.cs = STUB_USER_CS, .ss = STUB_USER_SS};

    return clone_run(p, tid, stub_thread, PT_THREAD_FLAGS, &regs, out_tid, interrupted);
}
