/* Filters laid over a task's system calls, and what they decide (kernel/seccomp.c). */
#include "sentry/kernel/seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/seccomp_priv.h"
#include "sentry/kernel/signal_priv.h"

/* Instructions on the way of one call through all filters, and what each filter counts beside its
 * own (MAX_INSNS_PER_PATH). */
#define PATH_MAX_INSNS ((1u << 18) / sizeof(struct sock_filter))
#define PATH_FILTER_COST 4u
#define SYS_SECCOMP_CODE 1
#define ERRNO_MAX 4095u

OBJCOUNT_DEFINE(seccomp_filter);

/* ---- objects ---- */

struct seccomp_filter *seccomp_get(struct seccomp_filter *f)
{
    if (f)
        ref_get(&f->ref);
    return f;
}

static struct seccomp_filter *seccomp_use(struct seccomp_filter *f)
{
    if (f)
        atomic_fetch_add_explicit(&f->users, 1, memory_order_relaxed);
    return seccomp_get(f);
}

void seccomp_put(struct seccomp_filter *f)
{
    while (f && ref_put(&f->ref)) {
        struct seccomp_filter *prev = f->prev;
        BUG_ON(f->notify);
        waitq_fini(&f->wq);
        mutex_destroy(&f->mu);
        OBJCOUNT_DEC(seccomp_filter);
        free(f);
        f = prev;
    }
}

/* One user fewer; the last one of a filter was the only one of those below it, perhaps. */
static void seccomp_unuse(struct seccomp_filter *f)
{
    struct seccomp_filter *top = f;

    while (f && atomic_fetch_sub_explicit(&f->users, 1, memory_order_acq_rel) == 1) {
        seccomp_unused(f);
        f = f->prev;
    }
    seccomp_put(top);
}

static int seccomp_new(const struct sock_filter *insns, size_t count, unsigned flags,
                       struct seccomp_filter **out_filter)
{
    struct seccomp_filter *f = calloc(1, sizeof(*f) + count * sizeof(*insns));

    if (!f)
        return -ENOMEM;
    ref_init(&f->ref);
    atomic_store_explicit(&f->users, 1, memory_order_relaxed);
    f->log = flags & SECCOMP_FILTER_FLAG_LOG;
    f->wait_killable = flags & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    mutex_init(&f->mu, LOCK_RANK_SECCOMP);
    waitq_init(&f->wq);
    f->count = (uint32_t)count;
    memcpy(f->insns, insns, count * sizeof(*insns));
    OBJCOUNT_INC(seccomp_filter);
    int r = seccomp_bpf_check(f->insns, count);
    if (r) {
        seccomp_put(f);
        return r;
    }
    *out_filter = f;
    return 0;
}

/* What the new filter and those below it always allow. */
static void seccomp_prepare_answers(struct seccomp_filter *f)
{
    for (uint32_t nr = 0; nr < SECCOMP_NR_MAX; nr++) {
        const uint64_t bit = 1ull << (nr % 64);
        if (f->prev && !(f->prev->allow[nr / 64] & bit))
            continue;
        if (seccomp_bpf_allows(f, nr))
            f->allow[nr / 64] |= bit;
    }
}

static uint64_t seccomp_path_cost(const struct seccomp_filter *f)
{
    uint64_t cost = 0;

    for (; f; f = f->prev)
        cost += f->count + PATH_FILTER_COST;
    return cost;
}

/* ---- laying ---- */

static void seccomp_set_locked(struct task *o, struct seccomp_filter *f)
{
    struct task_priv *p = task_priv(o);

    p->seccomp = f;
    atomic_store_explicit(&p->seccomp_mode, SECCOMP_MODE_FILTER, memory_order_relaxed);
    atomic_fetch_or_explicit(&p->sys_work, SYS_WORK_SECCOMP, memory_order_release);
    task_answers_changed(o);
}

static bool seccomp_is_below(const struct seccomp_filter *low, const struct seccomp_filter *top)
{
    for (; low && top; top = top->prev)
        if (top == low)
            return true;
    return !low;
}

/* 0, or the number of a thread whose filters are not below ours. sig held. */
static int32_t seccomp_sync_hinders_locked(struct task *t)
{
    struct task_priv *p;

    list_for_each_entry (p, &t->tg->threads, thread_node) {
        const int mode = atomic_load_explicit(&p->seccomp_mode, memory_order_relaxed);
        if (p->t == t || p->dead || mode == SECCOMP_MODE_DISABLED)
            continue;
        if (mode == SECCOMP_MODE_FILTER && seccomp_is_below(p->seccomp, task_priv(t)->seccomp))
            continue;
        return p->t->vtid;
    }
    return 0;
}

/* sig held. What the threads had stays alive below f. */
static void seccomp_sync_locked(struct task *t, struct seccomp_filter *f)
{
    const bool nnp = t->cred->no_new_privs;
    struct task_priv *p;

    list_for_each_entry (p, &t->tg->threads, thread_node) {
        if (p->t == t || p->dead)
            continue;
        struct seccomp_filter *old = p->seccomp;
        seccomp_set_locked(p->t, seccomp_use(f));
        if (nnp)
            atomic_store_explicit(&p->nnp_due, true, memory_order_relaxed);
        /* f is above old, so neither count can reach zero here. */
        if (old) {
            atomic_fetch_sub_explicit(&old->users, 1, memory_order_acq_rel);
            seccomp_put(old);
        }
    }
}

/* sig held. Takes f's first reference and user on success. */
static int32_t seccomp_attach_locked(struct task *t, unsigned flags, struct seccomp_filter *f)
{
    struct task_priv *p = task_priv(t);
    const int mode = atomic_load_explicit(&p->seccomp_mode, memory_order_relaxed);

    if (mode != SECCOMP_MODE_DISABLED && mode != SECCOMP_MODE_FILTER)
        return -EINVAL;
    if (flags & SECCOMP_FILTER_FLAG_NEW_LISTENER)
        for (const struct seccomp_filter *o = p->seccomp; o; o = o->prev)
            if (o->notify)
                return -EBUSY;
    if (seccomp_path_cost(p->seccomp) + f->count > PATH_MAX_INSNS)
        return -ENOMEM;
    if (flags & SECCOMP_FILTER_FLAG_TSYNC) {
        const int32_t tid = seccomp_sync_hinders_locked(t);
        if (tid)
            return flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH ? -ESRCH : tid;
    }
    f->prev = p->seccomp;
    seccomp_prepare_answers(f);
    seccomp_set_locked(t, f);
    if (flags & SECCOMP_FILTER_FLAG_TSYNC)
        seccomp_sync_locked(t, f);
    return 0;
}

static int seccomp_fetch(struct task *t, unsigned flags, uaddr_t fprog,
                         struct seccomp_filter **out_filter)
{
    struct sock_filter *insns;
    struct sock_fprog prog;
    int r = copyin_obj(&t->ua, &prog, fprog);

    if (r)
        return r;
    if (prog.len == 0 || prog.len > BPF_MAXINSNS)
        return -EINVAL;
    /* Without this a program with set-user-ID could be misled by its caller's filter. */
    if (!t->cred->no_new_privs && !cred_self_capable(t->cred, CAP_SYS_ADMIN))
        return -EACCES;
    if (!prog.filter)
        return -EINVAL;
    insns = calloc(prog.len, sizeof(*insns));
    if (!insns)
        return -ENOMEM;
    r = copyin_array(&t->ua, insns, uaddr((uint64_t)(uintptr_t)prog.filter), prog.len,
                     sizeof(*insns));
    if (!r)
        r = seccomp_new(insns, prog.len, flags, out_filter);
    free(insns);
    return r;
}

static int64_t seccomp_attach(struct task *t, unsigned flags, struct seccomp_filter *f)
{
    const bool sync = flags & SECCOMP_FILTER_FLAG_TSYNC;

    /* No thread is to be born in the middle. */
    if (sync)
        mutex_lock(&t->k->mu);
    struct sighand *sh = tg_lock_sig(t->tg);
    const int32_t r = seccomp_attach_locked(t, flags, f);
    sighand_unlock(sh);
    if (sync)
        mutex_unlock(&t->k->mu);
    return r;
}

static int64_t seccomp_attach_listened(struct task *t, unsigned flags, struct seccomp_filter *f)
{
    struct file *file;
    int64_t r = seccomp_listener_new(f, &file);

    if (r)
        return r;
    const int fd = task_fd_install(t, file, true, 0);
    r = fd < 0 ? fd : seccomp_attach(t, flags, f);
    if (fd >= 0 && r)
        (void)!fdtable_close(t->fdt, fd, NULL);
    file_put(file);
    return r ? r : fd;
}

int64_t task_seccomp_filter(struct task *t, unsigned flags, uaddr_t fprog)
{
    const unsigned listen = SECCOMP_FILTER_FLAG_NEW_LISTENER;
    const unsigned known = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG |
                           SECCOMP_FILTER_FLAG_SPEC_ALLOW | listen |
                           SECCOMP_FILTER_FLAG_TSYNC_ESRCH | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    struct seccomp_filter *f;

    if (flags & ~known)
        return -EINVAL;
    if ((flags & SECCOMP_FILTER_FLAG_TSYNC) && (flags & listen) &&
        !(flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH))
        return -EINVAL;
    if ((flags & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) && !(flags & listen))
        return -EINVAL;
    int64_t r = seccomp_fetch(t, flags, fprog, &f);
    if (r)
        return r;
    r = flags & listen ? seccomp_attach_listened(t, flags, f) : seccomp_attach(t, flags, f);
    /* Laid: a descriptor, or 0. With TSYNC a thread's number says that it was not. */
    if (r < 0 || (r > 0 && !(flags & listen))) {
        seccomp_listener_drop(f);
        seccomp_put(f);
    }
    return r;
}

int task_seccomp_strict(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct sighand *sh = tg_lock_sig(t->tg);
    const int mode = atomic_load_explicit(&p->seccomp_mode, memory_order_relaxed);
    const int r = mode == SECCOMP_MODE_FILTER ? -EINVAL : 0;

    if (!r) {
        atomic_store_explicit(&p->seccomp_mode, SECCOMP_MODE_STRICT, memory_order_relaxed);
        atomic_fetch_or_explicit(&p->sys_work, SYS_WORK_SECCOMP, memory_order_relaxed);
        task_answers_changed(t);
    }
    sighand_unlock(sh);
    return r;
}

int seccomp_lay(struct task *t, const struct kernel_seccomp *s)
{
    struct seccomp_filter *f;
    int r = seccomp_new(s->insns, s->count, s->flags, &f);

    if (r)
        return r;
    r = (int)seccomp_attach(t, 0, f);
    if (r)
        seccomp_put(f);
    return r;
}

void seccomp_fork(struct task *t, struct task *c)
{
    struct task_priv *from = task_priv(t), *to = task_priv(c);
    struct sighand *sh = tg_lock_sig(t->tg);

    to->seccomp = seccomp_use(from->seccomp);
    atomic_store(&to->seccomp_mode, atomic_load(&from->seccomp_mode));
    atomic_store(&to->sys_work, atomic_load(&from->sys_work) & SYS_WORK_SECCOMP);
    task_answers_changed(c);
    sighand_unlock(sh);
}

void seccomp_task_exit(struct task *t)
{
    struct task_priv *p = task_priv(t);

    if (!p->seccomp)
        return;
    struct sighand *sh = tg_lock_sig(t->tg);
    struct seccomp_filter *f = p->seccomp;
    p->seccomp = NULL;
    /* Whoever looks still sees that there were filters, and none of them. */
    sighand_unlock(sh);
    seccomp_unuse(f);
}

/* ---- a call is made ---- */

static void seccomp_data_fill(struct task *t, struct seccomp_data *d)
{
    const struct plat_regs *regs = plat_ctx_regs(t->ctx);

    *d = (struct seccomp_data){
        .nr = (int)regs->orig_rax,
        .arch = AUDIT_ARCH_X86_64,
        .instruction_pointer = regs->rip,
        .args = {regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9},
    };
}

/* The strictest answer, by the newest of the filters that give it. */
static uint32_t seccomp_run(struct seccomp_filter *f, const struct seccomp_data *d,
                            struct seccomp_filter **out_match)
{
    uint32_t ret = SECCOMP_RET_ALLOW;

    for (; f; f = f->prev) {
        const uint32_t cur = seccomp_bpf_run(f, d);
        if ((int32_t)(cur & SECCOMP_RET_ACTION_FULL) < (int32_t)(ret & SECCOMP_RET_ACTION_FULL)) {
            ret = cur;
            *out_match = f;
        }
    }
    return ret;
}

static void seccomp_signal(struct task *t, const struct seccomp_data *d, uint32_t data, bool kill)
{
    struct plat_regs *regs = plat_ctx_regs(t->ctx);
    struct lx_siginfo info = {.signo = SIGSYS, .err = (int32_t)data, .code = SYS_SECCOMP_CODE};

    info.sys.call_addr = d->instruction_pointer;
    info.sys.syscall = d->nr;
    info.sys.arch = d->arch;
    regs->rax = regs->orig_rax;
    if (!kill) {
        sig_force(t, &info);
        return;
    }
    /* Neither a handler nor a tracer keeps it from that. */
    struct sighand *sh = tg_lock_sig(t->tg);
    tg_exit_locked(t->tg, SIGSYS);
    sighand_unlock(sh);
}

static void seccomp_kill(struct task *t, const struct seccomp_data *d, bool thread)
{
    struct sighand *sh = tg_lock_sig(t->tg);
    const bool alone = t->tg->thread_alive == 1;

    sighand_unlock(sh);
    atomic_store(&task_priv(t)->seccomp_mode, SECCOMP_MODE_DEAD_);
    if (thread && !alone)
        task_exit_signal(t, SIGSYS);
    else
        seccomp_signal(t, d, 0, true);
}

static bool seccomp_filter_enter(struct task *t, bool again);

/* The tracer decides, and what it makes of the call is looked at once more. */
static bool seccomp_trace(struct task *t, uint32_t data, bool again)
{
    struct plat_regs *regs = plat_ctx_regs(t->ctx);

    if (again)
        return true;
    if (!trace_event_wanted(t, PTRACE_EVENT_SECCOMP)) {
        regs->rax = (uint64_t)-ENOSYS;
        return false;
    }
    trace_event(t, PTRACE_EVENT_SECCOMP, data);
    if (task_dying(t) || (int32_t)regs->orig_rax < 0)
        return false;
    return seccomp_filter_enter(t, true);
}

static void seccomp_log(struct task *t, const struct seccomp_data *d, uint32_t action)
{
    log_info("seccomp: pid %d (%.15s) call %d: action 0x%x", t->tid, t->comm, d->nr, action);
}

static bool seccomp_filter_enter(struct task *t, bool again)
{
    struct plat_regs *regs = plat_ctx_regs(t->ctx);
    struct seccomp_filter *f = task_priv(t)->seccomp, *match = f;
    struct seccomp_data d;

    if (UNLIKELY(!f))
        return true;
    if ((uint32_t)regs->orig_rax < SECCOMP_NR_MAX &&
        (f->allow[(uint32_t)regs->orig_rax / 64] >> ((uint32_t)regs->orig_rax % 64) & 1))
        return true;
    seccomp_data_fill(t, &d);
    const uint32_t ret = seccomp_run(f, &d, &match);
    const uint32_t action = ret & SECCOMP_RET_ACTION_FULL, data = ret & SECCOMP_RET_DATA;
    if (UNLIKELY(match->log) && action != SECCOMP_RET_ALLOW)
        seccomp_log(t, &d, action);
    switch (action) {
    case SECCOMP_RET_ALLOW:
        return true;
    case SECCOMP_RET_LOG:
        if (!match->log)
            seccomp_log(t, &d, action);
        return true;
    case SECCOMP_RET_ERRNO:
        regs->rax = (uint64_t) - (int64_t)MIN(data, ERRNO_MAX);
        return false;
    case SECCOMP_RET_TRAP:
        seccomp_signal(t, &d, data, false);
        return false;
    case SECCOMP_RET_TRACE:
        return seccomp_trace(t, data, again);
    case SECCOMP_RET_USER_NOTIF:
        return seccomp_ask(t, match, &d);
    default:
        seccomp_kill(t, &d, action == SECCOMP_RET_KILL_THREAD);
        return false;
    }
}

static bool seccomp_strict_enter(struct task *t)
{
    switch ((uint32_t)plat_ctx_regs(t->ctx)->orig_rax) {
    case SYS_read:
    case SYS_write:
    case SYS_exit:
    case SYS_rt_sigreturn:
        return true;
    default:
        atomic_store(&task_priv(t)->seccomp_mode, SECCOMP_MODE_DEAD_);
        task_exit_signal(t, SIGKILL);
        return false;
    }
}

/* Credentials are changed by their own thread. */
static int seccomp_take_nnp(struct task *t)
{
    struct cred *n;
    int r = cred_dup(t->cred, &n);

    if (r)
        return r;
    n->no_new_privs = true;
    task_set_cred(t, n);
    atomic_store_explicit(&task_priv(t)->nnp_due, false, memory_order_relaxed);
    return 0;
}

bool seccomp_enter(struct task *t)
{
    struct task_priv *p = task_priv(t);

    if (!(atomic_load_explicit(&p->sys_work, memory_order_acquire) & SYS_WORK_SECCOMP))
        return true;
    if (UNLIKELY(p->trace.options & PTRACE_O_SUSPEND_SECCOMP))
        return true;
    if (UNLIKELY(atomic_load_explicit(&p->nnp_due, memory_order_relaxed)) && seccomp_take_nnp(t)) {
        plat_ctx_regs(t->ctx)->rax = (uint64_t)-ENOMEM;
        return false;
    }
    switch (atomic_load_explicit(&p->seccomp_mode, memory_order_relaxed)) {
    case SECCOMP_MODE_STRICT:
        return seccomp_strict_enter(t);
    case SECCOMP_MODE_FILTER:
        return seccomp_filter_enter(t, false);
    default:
        return false;
    }
}

/* ---- what is asked about it ---- */

bool seccomp_action_known(uint32_t action)
{
    switch (action) {
    case SECCOMP_RET_KILL_PROCESS:
    case SECCOMP_RET_KILL_THREAD:
    case SECCOMP_RET_TRAP:
    case SECCOMP_RET_ERRNO:
    case SECCOMP_RET_USER_NOTIF:
    case SECCOMP_RET_TRACE:
    case SECCOMP_RET_LOG:
    case SECCOMP_RET_ALLOW:
        return true;
    default:
        return false;
    }
}

int task_seccomp_mode(struct task *t)
{
    const int mode = atomic_load(&task_priv(t)->seccomp_mode);

    return mode == SECCOMP_MODE_DEAD_ ? SECCOMP_MODE_FILTER : mode;
}

unsigned task_seccomp_count(struct task *t)
{
    struct sighand *sh = tg_lock_sig(t->tg);
    unsigned n = 0;

    for (const struct seccomp_filter *f = task_priv(t)->seccomp; f; f = f->prev)
        n++;
    sighand_unlock(sh);
    return n;
}

/* The filter of that index, counted from the oldest; owned. */
static int seccomp_nth(struct task *t, struct task *o, uint64_t index,
                       struct seccomp_filter **out_filter)
{
    if (!task_capable(t, CAP_SYS_ADMIN) || task_seccomp_mode(t) != SECCOMP_MODE_DISABLED)
        return -EACCES;
    if (task_seccomp_mode(o) != SECCOMP_MODE_FILTER)
        return -EINVAL;
    const unsigned count = task_seccomp_count(o);
    if (index >= count)
        return -ENOENT;
    struct sighand *sh = tg_lock_sig(o->tg);
    struct seccomp_filter *f = task_priv(o)->seccomp;
    for (uint64_t n = count - 1; f && n > index; n--)
        f = f->prev;
    (void)seccomp_get(f);
    sighand_unlock(sh);
    *out_filter = f;
    return f ? 0 : -ENOENT;
}

int64_t seccomp_show(struct task *t, struct task *o, uint64_t index, uaddr_t to)
{
    struct seccomp_filter *f;
    int64_t r = seccomp_nth(t, o, index, &f);

    if (r)
        return r;
    r = f->count;
    if (!uaddr_is_null(to) && copyout_array(&t->ua, to, f->insns, f->count, sizeof(f->insns[0])))
        r = -EFAULT;
    seccomp_put(f);
    return r;
}

int64_t seccomp_show_flags(struct task *t, struct task *o, uint64_t size, uaddr_t to)
{
    struct seccomp_metadata md = {0};
    struct seccomp_filter *f;

    size = MIN(size, (uint64_t)sizeof(md));
    if (size < sizeof(md.filter_off))
        return -EINVAL;
    int64_t r = copyin_obj(&t->ua, &md.filter_off, to);
    if (!r)
        r = seccomp_nth(t, o, md.filter_off, &f);
    if (r)
        return r;
    md.flags = f->log ? SECCOMP_FILTER_FLAG_LOG : 0;
    seccomp_put(f);
    r = copyout(&t->ua, to, &md, size);
    return r ? r : (int64_t)size;
}
