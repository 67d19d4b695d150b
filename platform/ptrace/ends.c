/* Ends of stubs that nobody is told. */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "platform/ptrace/ptrace_priv.h"

/* The end of a process shows at its leader only when every other thread has been waited for, by the
 * thread that traces it; which may be asleep in a system call of its guest. Waits in its place. */
void pt_take_ended(struct stub_placer *p, struct stub_seat *s)
{
    const struct pt_ctx *leader = pt_ctx_of_seat(s);
    struct pt_ctx *c;

    if (leader->tid != leader->as->pid || atomic_load(&leader->as->users) <= 1)
        return;
    list_for_each_entry (c, &p->placed, seat.node) {
        siginfo_t si = {.si_pid = 0};
        if (c->as != leader->as || c == leader || atomic_load(&c->seat.entered_ns) != 0 ||
            atomic_load(&c->reaped))
            continue;
        if (waitid(P_PID, (id_t)c->tid, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) != 0 ||
            si.si_pid == 0 || (si.si_code != CLD_KILLED && si.si_code != CLD_EXITED))
            continue;
        if (wait4(c->tid, NULL, __WALL | WNOHANG, NULL) == c->tid)
            atomic_store(&c->reaped, true);
    }
}
