/* prctl(2), arch_prctl(2), personality(2). */
#include <asm/prctl.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <signal.h>
#include <string.h>

#include "sentry/kernel/dispatch.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/seccomp.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_prctl.h"

/* Of later headers. */
#define LX_PR_SET_MDWE 65
#define LX_PR_GET_MDWE 66

struct prctl_args {
    uint64_t a2, a3, a4, a5;
};

static bool rest_zero(const struct prctl_args *a)
{
    return !a->a3 && !a->a4 && !a->a5;
}

static int64_t put_int(struct task *t, uint64_t to, int64_t v)
{
    const int32_t out = (int32_t)v;

    return copyout_obj(&t->ua, uaddr(to), &out);
}

/* ---- names ---- */

static int64_t prctl_set_name(struct task *t, uint64_t from)
{
    char name[16];
    /* Longer names are cut, so a string without an end in 16 bytes is fine. */
    const size_t n = copyin_partial(&t->ua, name, uaddr(from), sizeof(name) - 1);

    name[sizeof(name) - 1] = '\0';
    if (n < sizeof(name) - 1 && !memchr(name, '\0', n))
        return -EFAULT;
    task_change_comm(t, name);
    return 0;
}

static int64_t prctl_get_name(struct task *t, uint64_t to)
{
    char name[16];

    task_get_comm(t, name);
    return copyout_obj(&t->ua, uaddr(to), &name);
}

/* ---- capabilities ---- */

static int64_t prctl_capbset_drop(struct task *t, uint64_t cap)
{
    struct cred *n;

    if (!cred_self_capable(t->cred, CAP_SETPCAP))
        return -EPERM;
    if (cap > CAP_LAST_CAP)
        return -EINVAL;
    int r = cred_dup(t->cred, &n);
    if (r)
        return r;
    n->cap_bounding &= ~(1ull << cap);
    task_cred_commit(t, n);
    return 0;
}

static int64_t prctl_ambient_raise(struct task *t, uint64_t op, uint64_t bit)
{
    const struct cred *o = t->cred;
    struct cred *n;

    if (op == PR_CAP_AMBIENT_RAISE) {
        if (!(o->cap_permitted & bit) || !(o->cap_inheritable & bit) ||
            (o->securebits & SECBIT_NO_CAP_AMBIENT_RAISE))
            return -EPERM;
    }
    int r = cred_dup(o, &n);
    if (r)
        return r;
    if (op == PR_CAP_AMBIENT_RAISE)
        n->cap_ambient |= bit;
    else
        n->cap_ambient &= ~bit;
    task_cred_commit(t, n);
    return 0;
}

static int64_t prctl_ambient(struct task *t, const struct prctl_args *a)
{
    if (a->a4 || a->a5)
        return -EINVAL;
    if (a->a2 == PR_CAP_AMBIENT_CLEAR_ALL)
        return a->a3 ? -EINVAL : prctl_ambient_raise(t, a->a2, UINT64_MAX);
    if (a->a3 > CAP_LAST_CAP)
        return -EINVAL;
    const uint64_t bit = 1ull << a->a3;
    switch (a->a2) {
    case PR_CAP_AMBIENT_IS_SET:
        return (t->cred->cap_ambient & bit) != 0;
    case PR_CAP_AMBIENT_RAISE:
    case PR_CAP_AMBIENT_LOWER:
        return prctl_ambient_raise(t, a->a2, bit);
    default:
        return -EINVAL;
    }
}

static int64_t set_securebits(struct task *t, uint32_t bits)
{
    struct cred *n;
    int r = cred_dup(t->cred, &n);

    if (r)
        return r;
    n->securebits = bits;
    task_cred_commit(t, n);
    return 0;
}

/* cap_task_prctl: locked bits stay, locks are never taken back. */
static int64_t prctl_set_securebits(struct task *t, uint64_t bits)
{
    const uint32_t old = t->cred->securebits, locks = SECURE_ALL_LOCKS;

    if (bits & ~(uint64_t)(SECURE_ALL_BITS | SECURE_ALL_LOCKS))
        return -EPERM;
    if (((old & locks) >> 1) & (old ^ (uint32_t)bits) || (old & locks & ~(uint32_t)bits) ||
        !cred_self_capable(t->cred, CAP_SETPCAP))
        return -EPERM;
    return set_securebits(t, (uint32_t)bits);
}

static int64_t prctl_set_keepcaps(struct task *t, uint64_t on)
{
    const uint32_t bits = t->cred->securebits;

    if (on > 1)
        return -EINVAL;
    if (bits & SECBIT_KEEP_CAPS_LOCKED)
        return -EPERM;
    return set_securebits(t, on ? bits | (uint32_t)SECBIT_KEEP_CAPS
                                : bits & ~(uint32_t)SECBIT_KEEP_CAPS);
}

static int64_t prctl_no_new_privs(struct task *t, const struct prctl_args *a)
{
    struct cred *n;

    if (a->a2 != 1 || !rest_zero(a))
        return -EINVAL;
    int r = cred_dup(t->cred, &n);
    if (r)
        return r;
    n->no_new_privs = true;
    task_cred_commit(t, n);
    return 0;
}

/* ---- small state ---- */

static int64_t prctl_pdeathsig(struct task *t, uint64_t signo)
{
    if (signo > 64)
        return -EINVAL;
    task_attr_set(t, TASK_ATTR_PDEATHSIG, (int64_t)signo);
    return 0;
}

static int64_t prctl_dumpable(struct task *t, uint64_t v)
{
    if (v > 1)
        return -EINVAL;
    task_attr_set(t, TASK_ATTR_DUMPABLE, (int64_t)v);
    return 0;
}

static int64_t prctl_timerslack(struct task *t, int64_t ns)
{
    task_set_timer_slack(t, ns <= 0 ? 0 : (uint64_t)ns);
    return 0;
}

static int64_t prctl_seccomp(struct task *t, uint64_t mode, uint64_t filter)
{
    switch (mode) {
    case SECCOMP_MODE_STRICT:
        return task_seccomp_strict(t);
    case SECCOMP_MODE_FILTER:
        return task_seccomp_filter(t, 0, uaddr(filter));
    default:
        return -EINVAL;
    }
}

static int64_t prctl_cred(struct task *t, int op, const struct prctl_args *a)
{
    switch (op) {
    case PR_GET_KEEPCAPS:
        return (t->cred->securebits & SECBIT_KEEP_CAPS) != 0;
    case PR_SET_KEEPCAPS:
        return prctl_set_keepcaps(t, a->a2);
    case PR_CAPBSET_READ:
        return a->a2 > CAP_LAST_CAP ? -EINVAL : (t->cred->cap_bounding >> a->a2 & 1) != 0;
    case PR_CAPBSET_DROP:
        return prctl_capbset_drop(t, a->a2);
    case PR_GET_SECUREBITS:
        return t->cred->securebits;
    case PR_SET_SECUREBITS:
        return prctl_set_securebits(t, a->a2);
    case PR_SET_NO_NEW_PRIVS:
        return prctl_no_new_privs(t, a);
    case PR_GET_NO_NEW_PRIVS:
        return a->a2 || !rest_zero(a) ? -EINVAL : t->cred->no_new_privs;
    case PR_CAP_AMBIENT:
        return prctl_ambient(t, a);
    default:
        return -EINVAL;
    }
}

/* When memory is found to be broken; the host's affair, but the choice is kept and inherited. */
static int64_t prctl_mce_kill(struct task *t, const struct prctl_args *a)
{
    if (a->a4 || a->a5)
        return -EINVAL;
    if (a->a2 == PR_MCE_KILL_CLEAR && a->a3 == 0)
        task_attr_set(t, TASK_ATTR_MCE_KILL, PR_MCE_KILL_DEFAULT);
    else if (a->a2 == PR_MCE_KILL_SET && a->a3 <= PR_MCE_KILL_DEFAULT)
        task_attr_set(t, TASK_ATTR_MCE_KILL, (int64_t)a->a3);
    else
        return -EINVAL;
    return 0;
}

/* Nothing here waits for a task to write pages back, so there is nothing to be spared from. */
static int64_t prctl_io_flusher(struct task *t, int op, const struct prctl_args *a)
{
    if (!task_capable(t, CAP_SYS_RESOURCE))
        return -EPERM;
    if (!rest_zero(a))
        return -EINVAL;
    if (op == PR_GET_IO_FLUSHER)
        return a->a2 ? -EINVAL : task_attr_get(t, TASK_ATTR_IO_FLUSHER);
    if (a->a2 > 1)
        return -EINVAL;
    task_attr_set(t, TASK_ATTR_IO_FLUSHER, (int64_t)a->a2);
    return 0;
}

/* As where the host decides for all: speculation goes on, caches are not flushed for anybody. */
static int64_t prctl_speculation(uint64_t which)
{
    switch (which) {
    case PR_SPEC_STORE_BYPASS:
    case PR_SPEC_INDIRECT_BRANCH:
        return PR_SPEC_ENABLE;
    case PR_SPEC_L1D_FLUSH:
        return PR_SPEC_FORCE_DISABLE;
    default:
        return -ENODEV;
    }
}

static int64_t prctl_set_speculation(uint64_t which, uint64_t how)
{
    switch (which) {
    case PR_SPEC_STORE_BYPASS:
        return -ENXIO;
    case PR_SPEC_INDIRECT_BRANCH:
        if (how == PR_SPEC_ENABLE)
            return 0;
        return how == PR_SPEC_DISABLE || how == PR_SPEC_FORCE_DISABLE ? -EPERM : -ERANGE;
    case PR_SPEC_L1D_FLUSH:
        return -EPERM;
    default:
        return -ENODEV;
    }
}

static int64_t prctl_set_tsc(struct task *t, uint64_t mode)
{
    const bool off = mode == PR_TSC_SIGSEGV;

    if ((mode != PR_TSC_ENABLE && !off) || (off && !plat_ctx_tsc_can(t->ctx)))
        return -EINVAL;
    if (off != (task_attr_get(t, TASK_ATTR_NO_TSC) != 0))
        task_attr_set(t, TASK_ATTR_NO_TSC, off);
    return 0;
}

static int64_t prctl_group(struct task *t, int op, const struct prctl_args *a)
{
    switch (op) {
    case PR_SET_CHILD_SUBREAPER:
        task_attr_set(t, TASK_ATTR_SUBREAPER, a->a2 != 0);
        return 0;
    case PR_GET_CHILD_SUBREAPER:
        return put_int(t, a->a2, task_attr_get(t, TASK_ATTR_SUBREAPER));
    case PR_SET_THP_DISABLE:
        if (!rest_zero(a))
            return -EINVAL;
        task_attr_set(t, TASK_ATTR_THP_DISABLE, a->a2 != 0);
        return 0;
    case PR_GET_THP_DISABLE:
        return a->a2 || !rest_zero(a) ? -EINVAL : task_attr_get(t, TASK_ATTR_THP_DISABLE);
    case PR_GET_TID_ADDRESS:
        return copyout_obj(&t->ua, uaddr(a->a2), &t->clear_tid);
    case PR_SET_MM:
        return prctl_set_mm(t, a->a2, a->a3, a->a4, a->a5);
    case LX_PR_SET_MDWE:
        return rest_zero(a) ? prctl_set_mdwe(t, a->a2) : -EINVAL;
    case LX_PR_GET_MDWE:
        return a->a2 || !rest_zero(a) ? -EINVAL : prctl_get_mdwe(t);
    case PR_GET_SPECULATION_CTRL:
        return a->a3 || a->a4 || a->a5 ? -EINVAL : prctl_speculation(a->a2);
    case PR_SET_SPECULATION_CTRL:
        return a->a4 || a->a5 ? -EINVAL : prctl_set_speculation(a->a2, a->a3);
    case PR_GET_TIMING:
        return PR_TIMING_STATISTICAL;
    case PR_SET_TIMING:
        return a->a2 == PR_TIMING_STATISTICAL ? 0 : -EINVAL;
    case PR_GET_TSC:
        return put_int(t, a->a2,
                       task_attr_get(t, TASK_ATTR_NO_TSC) ? PR_TSC_SIGSEGV : PR_TSC_ENABLE);
    case PR_SET_TSC:
        return prctl_set_tsc(t, a->a2);
    case PR_TASK_PERF_EVENTS_DISABLE:
    case PR_TASK_PERF_EVENTS_ENABLE:
        return 0; /* all of none */
    case PR_MCE_KILL:
        return prctl_mce_kill(t, a);
    case PR_MCE_KILL_GET:
        return a->a2 || !rest_zero(a) ? -EINVAL : task_attr_get(t, TASK_ATTR_MCE_KILL);
    case PR_SET_SYSCALL_USER_DISPATCH:
        return task_set_dispatch(
            t, &(struct task_dispatch){
                   .mode = a->a2, .offset = a->a3, .len = a->a4, .selector = a->a5});
    case PR_SET_IO_FLUSHER:
    case PR_GET_IO_FLUSHER:
        return prctl_io_flusher(t, op, a);
    default:
        return prctl_cred(t, op, a);
    }
}

int64_t sys_prctl(struct task *t, int op, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5)
{
    const struct prctl_args a = {a2, a3, a4, a5};

    switch (op) {
    case PR_SET_NAME:
        return prctl_set_name(t, a2);
    case PR_GET_NAME:
        return prctl_get_name(t, a2);
    case PR_SET_PDEATHSIG:
        return prctl_pdeathsig(t, a2);
    case PR_GET_PDEATHSIG:
        return put_int(t, a2, task_attr_get(t, TASK_ATTR_PDEATHSIG));
    case PR_SET_DUMPABLE:
        return prctl_dumpable(t, a2);
    case PR_GET_DUMPABLE:
        return task_attr_get(t, TASK_ATTR_DUMPABLE);
    case PR_SET_TIMERSLACK:
        return prctl_timerslack(t, (int64_t)a2);
    case PR_GET_TIMERSLACK:
        return (int64_t)task_timer_slack(t);
    case PR_GET_SECCOMP:
        return task_seccomp_mode(t);
    case PR_SET_SECCOMP:
        return prctl_seccomp(t, a2, a3);
    default:
        return prctl_group(t, op, &a);
    }
}

/* ---- arch_prctl, personality ---- */

int64_t sys_arch_prctl(struct task *t, int op, uint64_t addr)
{
    struct plat_regs *regs = plat_ctx_regs(t->ctx);

    switch (op) {
    case ARCH_SET_FS:
    case ARCH_SET_GS:
        if (addr >= 0x7ffffffff000ull)
            return -EPERM;
        *(op == ARCH_SET_FS ? &regs->fs_base : &regs->gs_base) = addr;
        return 0;
    case ARCH_GET_FS:
        return copyout_obj(&t->ua, uaddr(addr), &regs->fs_base);
    case ARCH_GET_GS:
        return copyout_obj(&t->ua, uaddr(addr), &regs->gs_base);
    case ARCH_GET_CPUID:
        return 1;
    case ARCH_SET_CPUID:
        return -ENODEV;
    default:
        return -EINVAL;
    }
}

int64_t sys_personality(struct task *t, unsigned persona)
{
    const int64_t old = task_attr_get(t, TASK_ATTR_PERSONALITY);

    if (persona != UINT32_MAX)
        task_attr_set(t, TASK_ATTR_PERSONALITY, persona);
    return old;
}
