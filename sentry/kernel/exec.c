/* execve(2), execveat(2): everything that can fail first, then the old program goes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/personality.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "sentry/kernel/account_priv.h"
#include "sentry/kernel/cgroup_priv.h"
#include "sentry/kernel/fsctx.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/ns_priv.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/task_priv.h"

#define EXEC_POINTERS 64 /* fetched at a time */

/* ---- argument strings ---- */

struct exec_buf {
    char *text; /* owned */
    size_t size, cap, count;
};

struct exec {
    struct task *t;
    char *path;     /* owned, VFS_PATH_MAX */
    char *filename; /* owned */
    bool inaccessible;
    struct exec_buf argv, envp;
    size_t budget; /* bytes that strings and their pointers may still take */
    struct file *file;
    struct fdtable *fdt;     /* a table of our own, when it was shared */
    struct sighand *sighand; /* ... and handlers */
    struct vpath exe;
    struct task_image image;
    bool loaded;
    bool nondump; /* who runs it may not read it, so neither core nor /proc may show it */
};

static int exec_buf_grow(struct exec_buf *b, size_t room)
{
    size_t cap = b->cap ? b->cap : 1024;

    while (cap - b->size < room)
        cap *= 2;
    if (cap == b->cap)
        return 0;
    char *text = realloc(b->text, cap);
    if (!text)
        return -ENOMEM;
    b->text = text;
    b->cap = cap;
    return 0;
}

/* One string, up to LIMIT_ARG_STRING with its NUL; the buffer grows to what it needs. */
static int exec_add_string(struct exec *x, struct exec_buf *b, uaddr_t from)
{
    size_t room = 256;

    for (;;) {
        int r = exec_buf_grow(b, room);
        if (r)
            return r;
        room = MIN(b->cap - b->size, LIMIT_ARG_STRING);
        const int64_t n = copyin_str(&x->t->ua, b->text + b->size, from, room, -E2BIG);
        if (n >= 0) {
            const size_t used = (size_t)n + 1;
            if (used + sizeof(uint64_t) > x->budget)
                return -E2BIG;
            x->budget -= used + sizeof(uint64_t);
            b->size += used;
            b->count++;
            return 0;
        }
        if (n != -E2BIG || room >= LIMIT_ARG_STRING)
            return (int)n;
        room *= 2;
    }
}

static int exec_add_strings(struct exec *x, struct exec_buf *b, uaddr_t array)
{
    uint64_t ptrs[EXEC_POINTERS];

    if (uaddr_is_null(array))
        return 0;
    while (b->count < LIMIT_ARG_COUNT) {
        const size_t n = copyin_partial(&x->t->ua, ptrs, array, sizeof(ptrs)) / sizeof(ptrs[0]);
        if (n == 0)
            return -EFAULT;
        for (size_t i = 0; i < n; i++) {
            if (!ptrs[i])
                return 0;
            if (blocker_interrupted(&x->t->blocker) && task_dying(x->t))
                return -EINTR;
            int r = exec_add_string(x, b, uaddr(ptrs[i]));
            if (r)
                return r;
        }
        array = uaddr_add(array, n * sizeof(ptrs[0]));
    }
    return -E2BIG;
}

/* A quarter of the stack limit, but not less than what POSIX wants (fs/exec.c). */
static size_t exec_budget(struct task *t)
{
    const uint64_t quarter = task_rlimit(t, RLIMIT_STACK) / 4;

    return (size_t)MIN(MAX(quarter, (uint64_t)128 * 1024), (uint64_t)LIMIT_ARG_SIZE);
}

static int exec_strings(struct exec *x, uaddr_t argv, uaddr_t envp)
{
    int r = exec_add_strings(x, &x->argv, argv);

    if (r)
        return r;
    if (x->argv.count == 0) {
        /* Programs rely on argv[0]: Linux gives them an empty one. */
        r = exec_buf_grow(&x->argv, 1);
        if (r)
            return r;
        x->argv.text[0] = '\0';
        x->argv.size = x->argv.count = 1;
    }
    return exec_add_strings(x, &x->envp, envp);
}

/* ---- the file ---- */

static int exec_name(struct exec *x, int dirfd)
{
    if (dirfd == AT_FDCWD || x->path[0] == '/') {
        x->filename = strdup(x->path);
        return x->filename ? 0 : -ENOMEM;
    }
    bool cloexec = false;
    int r = fdtable_get_cloexec(x->t->fdt, dirfd, &cloexec);
    if (r)
        return r;
    x->inaccessible = cloexec;
    r = x->path[0] ? asprintf(&x->filename, "/dev/fd/%d/%s", dirfd, x->path)
                   : asprintf(&x->filename, "/dev/fd/%d", dirfd);
    if (r < 0) {
        x->filename = NULL;
        return -ENOMEM;
    }
    return 0;
}

static int exec_open(struct exec *x, const struct vfs_caller *c, int dirfd, uaddr_t path, int flags)
{
    const unsigned lookup = (flags & AT_SYMLINK_NOFOLLOW ? 0 : VFS_FOLLOW) |
                            (flags & AT_EMPTY_PATH ? VFS_EMPTY_PATH : 0);
    struct vpath base;
    bool use_base;

    x->path = malloc(VFS_PATH_MAX);
    if (!x->path)
        return -ENOMEM;
    const int64_t n = copyin_str(&x->t->ua, x->path, path, VFS_PATH_MAX, -ENAMETOOLONG);
    if (n < 0)
        return (int)n;
    int r = x->path[0] == '/' ? 0 : exec_name(x, dirfd);
    if (!r && x->path[0] == '/')
        r = exec_name(x, AT_FDCWD);
    if (r)
        return r;
    r = task_at_base(x->t, x->path[0] == '/' ? AT_FDCWD : dirfd, &use_base, &base);
    if (r)
        return r;
    r = image_open(c, use_base ? &base : NULL, x->path, lookup, &x->file);
    if (use_base)
        vpath_put(&base);
    return r;
}

static int exec_load(struct exec *x, const struct vfs_caller *c)
{
    struct mm_limits lim;

    task_mm_limits(x->t, &lim);
    const struct task_image_args args = {
        .k = x->t->k,
        .caller = c,
        .file = x->file,
        .filename = x->filename,
        .filename_inaccessible = x->inaccessible,
        .argv = {x->argv.text, x->argv.size, x->argv.count},
        .envp = {x->envp.text, x->envp.size, x->envp.count},
        .stack_limit = lim.stack,
        .no_random = atomic_load(&task_priv(x->t)->personality) & ADDR_NO_RANDOMIZE,
        .limits = &lim,
        .acct = cgroup_account(x->t),
    };
    int r = x->t->k->cfg.load(&args, &x->image);
    memacct_put(args.acct);
    x->loaded = r == 0;
    if (r)
        return r;
    mm_lock_layout(x->t->ua.mm);
    const uint32_t mdwe = mm_mdwe_inherited(mm_layout(x->t->ua.mm)->mdwe);
    mm_unlock_layout(x->t->ua.mm);
    mm_layout(x->image.mm)->mdwe = mdwe;
    return 0;
}

/* What must be ours alone afterwards, as far as it can run out of memory. */
static int exec_unshare(struct exec *x)
{
    struct task *t = x->t;
    int r = 0;

    if (fdtable_shared(t->fdt))
        r = fdtable_dup(t->fdt, &x->fdt);
    if (!r && ref_read(&t->tg->sighand->ref) > 1)
        r = sighand_dup(t->tg->sighand, &x->sighand);
    return r;
}

static void exec_fini(struct exec *x, const struct vfs_caller *c)
{
    free(x->path);
    free(x->filename);
    free(x->argv.text);
    free(x->envp.text);
    if (x->file)
        file_put(x->file);
    fdtable_put(x->fdt, c);
    if (x->sighand)
        sighand_put(x->sighand);
    exe_put(&x->exe);
    if (x->loaded) {
        mm_put(x->image.mm);
        file_put(x->image.exe);
        cred_put(x->image.cred);
    }
}

/* ---- one thread is left ---- */

static int dethread_begin(struct task *t)
{
    struct thread_group *tg = t->tg;
    struct task_priv *p;
    struct sighand *sh = tg_lock_sig(tg);

    if (atomic_load_explicit(&tg->exiting, memory_order_relaxed) || tg->exec_task) {
        sighand_unlock(sh);
        return -EAGAIN;
    }
    tg->exec_task = t;
    atomic_store_explicit(&tg->stopping, false, memory_order_release);
    tg->stop_count = 0;
    list_for_each_entry (p, &tg->threads, thread_node) {
        p->stop_pending = false;
        if (p->t != t)
            task_interrupt_locked(p->t, BLOCKER_KILLED | BLOCKER_INTERRUPT);
    }
    waitq_wake(&tg->stop_wq, 0);
    sighand_unlock(sh);
    return 0;
}

static bool dethread_alone(struct task *t)
{
    const struct thread_group *tg = t->tg;

    mutex_lock(&t->k->mu);
    const bool alone = tg->leader == t ? tg->thread_count == 1
                                       : tg->thread_count == 2 && task_priv(tg->leader)->zombie;
    mutex_unlock(&t->k->mu);
    return alone;
}

/* The thread that made the call becomes the leader and takes its number; the old leader, a zombie,
 * vanishes unseen. */
static void dethread_take_lead(struct task *t)
{
    struct thread_group *tg = t->tg, *child;
    struct kernel *k = t->k;

    mutex_lock(&k->mu);
    struct task *old = tg->leader;
    const int32_t old_tid = t->tid;
    trace_unlink_locked(old);
    cgroup_release_locked(old);
    account_remove_locked(tg->account);
    struct pid *mine = k->pids[old_tid];
    struct sighand *sh = tg_lock_sig(tg);
    list_del(&task_priv(old)->thread_node);
    tg->thread_count--;
    tg->leader = t;
    t->tid = tg->tgid;
    t->vtid = tg->vtgid;
    sighand_unlock(sh);
    k->pids[tg->tgid]->task = t;
    mine->task = NULL;
    pid_release_locked(k, mine);
    list_for_each_entry (child, &tg->children, sibling)
        if (child->parent_tid == old_tid)
            child->parent_tid = t->tid;
    mutex_unlock(&k->mu);
    task_put(old);
}

static int exec_dethread(struct task *t)
{
    struct thread_group *tg = t->tg;
    int r = dethread_begin(t);

    if (r)
        return r;
    while (!r && !dethread_alone(t))
        r = blocker_wait_killable(&t->blocker, DEADLINE_NEVER);
    if (!r && tg->leader != t)
        dethread_take_lead(t);
    struct sighand *sh = tg_lock_sig(tg);
    tg->exec_task = NULL;
    sighand_unlock(sh);
    return r;
}

/* ---- the point of no return ---- */

static void exec_swap_sighand(struct exec *x)
{
    struct thread_group *tg = x->t->tg;

    if (!x->sighand)
        return;
    mutex_lock(&tg->k->mu);
    mutex_lock(&tg->mu);
    struct sighand *old = tg->sighand;
    mutex_lock(&old->mu);
    tg->sighand = x->sighand;
    mutex_unlock(&old->mu);
    mutex_unlock(&tg->mu);
    mutex_unlock(&tg->k->mu);
    x->sighand = old;
}

static int exec_swap_mm(struct exec *x)
{
    struct task *t = x->t;

    task_mm_release(t);
    int r = plat_ctx_rebind(t->ctx, mm_as(x->image.mm));
    if (r)
        return r;
    mutex_lock(&t->mu);
    struct mm *old = t->ua.mm;
    t->ua.mm = x->image.mm;
    mutex_unlock(&t->mu);
    x->image.mm = old;
    task_answers_changed(t);
    /* It may run by another thread of the host now. */
    if (atomic_load(&t->k->sched_used))
        atomic_store(&task_priv(t)->sched_due, true);
    task_vfork_done(t);
    return 0;
}

static void exec_new_signals(struct exec *x)
{
    struct task *t = x->t;

    exec_swap_sighand(x);
    struct sighand *sh = tg_lock_sig(t->tg);
    sighand_exec_locked(sh);
    sighand_unlock(sh);
    sig_exec(t);
    tg_timers_exec(t->tg);
}

static void exec_new_files(struct exec *x, const struct vfs_caller *c)
{
    struct task *t = x->t;

    /* A parent that waits for a descriptor's end must find the program new: setpgid(2). */
    mutex_lock(&t->k->mu);
    t->tg->did_exec = true;
    mutex_unlock(&t->k->mu);
    if (x->fdt) {
        mutex_lock(&t->mu);
        struct fdtable *old = t->fdt;
        t->fdt = x->fdt;
        mutex_unlock(&t->mu);
        x->fdt = old;
    }
    fdtable_exec(t->fdt, c);
}

static void exec_new_identity(struct exec *x)
{
    struct task *t = x->t;
    struct thread_group *tg = t->tg;
    const struct cred *n = x->image.cred;
    const bool same = n->euid == n->uid && n->egid == n->gid;

    mutex_lock(&tg->mu);
    const struct vpath old = tg->exe;
    tg->exe = x->exe;
    mutex_unlock(&tg->mu);
    x->exe = old;
    task_set_comm(t, x->image.comm);
    atomic_store_explicit(&tg->dumpable, same && !x->nondump ? 1 : 0, memory_order_relaxed);
    const bool gains =
        n->euid != t->cred->euid || n->egid != t->cred->egid || !cred_caps_subset(n, t->cred);
    if (gains)
        atomic_store_explicit(&tg->dumpable, 0, memory_order_relaxed);
    if (gains || x->image.secure)
        atomic_store_explicit(&task_priv(t)->pdeathsig, 0, memory_order_relaxed);
    mutex_lock(&t->k->mu);
    tg->exit_signal = SIGCHLD;
    mutex_unlock(&t->k->mu);
    task_set_cred(t, cred_get(x->image.cred));
}

/* A 64-bit program; one that gains by being run is not to be steered. */
static void exec_new_personality(struct exec *x)
{
    struct task *t = x->t;
    uint32_t clear = READ_IMPLIES_EXEC;

    if (x->image.cred->euid != t->cred->euid || x->image.cred->egid != t->cred->egid ||
        !cred_caps_subset(x->image.cred, t->cred))
        clear |= PER_CLEAR_ON_SETID;
    atomic_fetch_and(&task_priv(t)->personality, ~clear);
}

static void exec_commit(struct exec *x, const struct vfs_caller *c, uint64_t nr)
{
    struct task *t = x->t;

    t->restart_fn = NULL;
    (void)!task_set_dispatch(t, &(struct task_dispatch){.mode = DISPATCH_OFF});
    atomic_store_explicit(&t->tg->membarrier, 0, memory_order_relaxed);
    (void)task_enter_child_time(t);
    exec_new_signals(x);
    exec_new_files(x, c);
    exec_new_personality(x);
    exec_new_identity(x);
    struct plat_regs *regs = plat_ctx_regs(t->ctx);
    task_init_regs(regs, x->image.entry, x->image.stack);
    regs->orig_rax = nr;
}

static int exec_run(struct exec *x, const struct vfs_caller *c)
{
    /* A tracer sees the call to its end. */
    const uint64_t nr = plat_ctx_regs(x->t->ctx)->orig_rax;
    int r = exec_load(x, c);

    if (r)
        return r;
    x->nondump = vfs_permission(c, x->image.exe->inode, 4) != 0;
    r = exe_from_file(x->image.exe, &x->exe);
    if (!r)
        r = exec_unshare(x);
    if (!r)
        r = time_ns_show(x->t->k, task_child_time_ns(x->t), x->image.mm, true);
    if (!r)
        r = exec_dethread(x->t);
    if (r)
        return r;
    r = exec_swap_mm(x);
    if (r) {
        /* The other threads and the robust list are gone: no way back. */
        struct sighand *sh = tg_lock_sig(x->t->tg);
        tg_exit_locked(x->t->tg, SIGKILL);
        sighand_unlock(sh);
        return r;
    }
    exec_commit(x, c, nr);
    return 0;
}

int task_execve(struct task *t, int dirfd, uaddr_t path, uaddr_t argv, uaddr_t envp, int flags)
{
    struct exec x = {.t = t, .budget = exec_budget(t)};
    const int32_t old_tid = t->tid;
    struct vfs_caller c;

    if (flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
        return -EINVAL;
    task_vfs_caller(t, &c);
    /* The borrowed credentials must outlive their replacement. */
    c.cred = cred_get(c.cred);
    int r = exec_open(&x, &c, dirfd, path, flags);
    if (!r)
        r = exec_strings(&x, argv, envp);
    if (!r)
        r = exec_run(&x, &c);
    exec_fini(&x, &c);
    cred_put(c.cred);
    task_vfs_caller_end(&c);
    if (!r)
        trace_exec(t, old_tid);
    return r;
}
