/* What system call handlers ask of their task: who calls, which files, which limits. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/resource.h>

#include "sentry/kernel/fsctx.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/task_priv.h"

static bool seen_is_fresh(const struct task *t)
{
    const struct task_priv *p = task_priv(t);

    return p->seen_fs == t->fs &&
           p->seen_version == atomic_load_explicit(&t->fs->version, memory_order_acquire);
}

void task_forget_fs(struct task *t)
{
    struct task_priv *p = task_priv(t);

    if (!p->seen_fs)
        return;
    p->seen_fs = NULL;
    vpath_idle(&p->seen_root, false);
    vpath_idle(&p->seen_cwd, false);
    vpath_put(&p->seen_root);
    vpath_put(&p->seen_cwd);
}

static void seen_refresh(struct task *t)
{
    struct task_priv *p = task_priv(t);

    task_forget_fs(t);
    p->seen_version = fs_ctx_snapshot(t->fs, &p->seen_root, &p->seen_cwd, &p->seen_umask);
    p->seen_fs = t->fs;
    vpath_idle(&p->seen_root, true);
    vpath_idle(&p->seen_cwd, true);
}

void task_vfs_caller(struct task *t, struct vfs_caller *out)
{
    struct task_priv *p = task_priv(t);

    /* The owner reads its own pointers without the lock; nobody else changes them. */
    out->cred = t->cred;
    out->blocker = &t->blocker;
    out->ns = p->ns;
    out->fsize_limit = task_rlimit(t, RLIMIT_FSIZE);
    out->pid = t->tid;
    out->tgid = t->tg->tgid;
    out->process = t->tg->self;
    out->seen_users = NULL;
    if (UNLIKELY(!seen_is_fresh(t))) {
        if (p->seen_users) {
            /* A call within a call, and somebody changed directory meanwhile. */
            (void)fs_ctx_snapshot(t->fs, &out->root, &out->cwd, &out->umask);
            return;
        }
        seen_refresh(t);
    }
    p->seen_users++;
    out->seen_users = &p->seen_users;
    out->root = p->seen_root;
    out->cwd = p->seen_cwd;
    out->umask = p->seen_umask;
}

void task_vfs_caller_end(struct vfs_caller *c)
{
    if (LIKELY(c->seen_users)) {
        --*c->seen_users;
        return;
    }
    vpath_put(&c->root);
    vpath_put(&c->cwd);
}

int task_file_any(struct task *t, int fd, struct file **out_file)
{
    int r = fdtable_lookup(t->fdt, fd, out_file);

    if (UNLIKELY(r) && fd == TASK_FD_HELD && t->held) {
        *out_file = file_get(t->held);
        r = 0;
    }
    return r;
}

int task_file(struct task *t, int fd, struct file **out_file)
{
    struct file *f;
    int r = task_file_any(t, fd, &f);

    if (r)
        return r;
    if (atomic_load_explicit(&f->flags, memory_order_relaxed) & O_PATH) {
        file_put(f);
        return -EBADF;
    }
    *out_file = f;
    return 0;
}

int task_at_base(struct task *t, int dirfd, bool *out_use_base, struct vpath *out_base)
{
    struct file *f;

    if (dirfd == AT_FDCWD) {
        *out_use_base = false;
        return 0;
    }
    int r = task_file_any(t, dirfd, &f);
    if (r)
        return r;
    *out_use_base = true;
    *out_base = f->path;
    vpath_get(out_base);
    file_put(f);
    return 0;
}

int task_fd_install(struct task *t, struct file *f, bool cloexec, int min)
{
    if (UNLIKELY(t->made != NULL)) {
        *t->made = file_get(f);
        return 0;
    }
    return fdtable_install(t->fdt, f, cloexec, min, task_rlimit(t, RLIMIT_NOFILE));
}

uint64_t tg_rlimit(struct thread_group *tg, int resource)
{
    BUG_ON(resource < 0 || resource >= LX_RLIM_COUNT);
    return atomic_load_explicit(&tg->rlimits[resource][0], memory_order_relaxed);
}

uint64_t task_rlimit(struct task *t, int resource)
{
    return tg_rlimit(t->tg, resource);
}

void task_mm_limits(struct task *t, struct mm_limits *out)
{
    out->as = task_rlimit(t, RLIMIT_AS);
    out->data = task_rlimit(t, RLIMIT_DATA);
    out->stack = task_rlimit(t, RLIMIT_STACK);
    out->memlock = task_rlimit(t, RLIMIT_MEMLOCK);
    out->ipc_lock = task_capable(t, CAP_IPC_LOCK);
    out->admin = task_capable(t, CAP_SYS_ADMIN);
}

bool task_capable(struct task *t, int cap)
{
    return cred_capable(t->cred, cap);
}

void task_set_policy(struct task *t, const struct mm_policy *policy)
{
    mutex_lock(&t->mu);
    task_priv(t)->policy = *policy;
    mutex_unlock(&t->mu);
}

void task_get_policy(struct task *t, struct mm_policy *out)
{
    mutex_lock(&t->mu);
    *out = task_priv(t)->policy;
    mutex_unlock(&t->mu);
}
