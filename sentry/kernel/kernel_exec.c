/* Programs started from outside: the container's init and what joins it later. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "sentry/ipc/ipc.h"
#include "sentry/cred/user_ns.h"
#include "sentry/kernel/account_priv.h"
#include "sentry/kernel/cgroup_priv.h"
#include "sentry/kernel/fsctx.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/ns_priv.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/seccomp_priv.h"
#include "sentry/kernel/task_priv.h"

static int load_files(struct task *t, const struct kernel_exec *x)
{
    int r = fdtable_new(&t->fdt);

    for (int fd = 0; !r && fd < 3; fd++) {
        if (!x->fds[fd])
            continue;
        r = fdtable_install_at(t->fdt, x->fds[fd], false, fd, LIMIT_NR_OPEN, NULL);
        r = r < 0 ? r : 0;
    }
    return r;
}

/* ---- namespaces ---- */

/* The mount namespace's tag: that of like, of the sandbox, or a new one. */
static int load_mnt_tag(struct task *t, const struct kernel_exec *x, const struct ns_tag *like,
                        struct ns_tag **out_tag)
{
    struct kernel *k = t->k;
    struct ns_tag *own = k->tags[NS_MNT], *tag;

    if (like && (!x->ns || like->obj == x->ns)) {
        *out_tag = ns_tag_get((struct ns_tag *)(uintptr_t)like);
        return 0;
    }
    if (own && own->obj == x->ns) {
        *out_tag = ns_tag_get(own);
        return 0;
    }
    int r = ns_tag_new(k, NS_MNT, t->cred->user_ns, mount_ns_get(x->ns), &tag);
    if (r) {
        mount_ns_put(x->ns);
        return r;
    }
    if (!own) {
        tag->id = NS_FIRST_ID_MNT;
        k->tags[NS_MNT] = ns_tag_get(tag);
    }
    *out_tag = tag;
    return 0;
}

static int load_uts_tag(struct task *t, const struct kernel_exec *x, struct ns_tag **out_tag)
{
    struct uts_ns *uts;
    int r = uts_dup(t->k->uts, &uts);

    if (r)
        return r;
    uts_rename(uts, x->hostname, x->domainname);
    r = ns_tag_new(t->k, NS_UTS, t->cred->user_ns, uts, out_tag);
    if (r)
        uts_put(uts);
    return r;
}

/* A container's group of its own: the namespace that shows no more than that. */
static int load_cgroup_tag(struct kernel *k, const struct kernel_exec *x, struct ns_tag **out_tag)
{
    int r = x->cgroups ? ns_tag_new(k, NS_CGROUP, NULL, x->cgroups, out_tag) : 0;

    if (r || !x->cgroups)
        return r;
    (void)cgroup_ns_get(x->cgroups);
    /* One namespace with one number, whoever enters it. */
    if (!x->cgroups->tag_id)
        x->cgroups->tag_id = (*out_tag)->id;
    (*out_tag)->id = x->cgroups->tag_id;
    return 0;
}

/* What the sandbox shares belongs to the user namespace of its first program. */
static void load_own_tags(struct kernel *k, struct user_ns *owner)
{
    for (int kind = 0; owner && kind < NS_TAGS; kind++)
        if (k->tags[kind] && !k->tags[kind]->owner)
            k->tags[kind]->owner = user_ns_get(owner);
}

/* Owned entries, those of like or of the sandbox; the sandbox has none of mounts at first. */
static int load_shared_tags(struct kernel *k, struct task *like, struct ns_tag *tags[NS_TAGS])
{
    for (int kind = 0; kind < NS_TAGS; kind++) {
        struct ns_handle h;
        if (!like) {
            tags[kind] = ns_tag_get(k->tags[kind]);
            continue;
        }
        if (task_get_ns(like, (enum ns_kind)kind, &h))
            return -ESRCH;
        tags[kind] = h.obj;
    }
    return 0;
}

/* Owned, NULL: that of the sandbox. */
static int load_time_tag(struct task *t, const struct kernel_exec *x, struct ns_tag **out_tag)
{
    struct time_ns *own = t->k->tags[NS_TIME]->obj, *ns;
    int r = x->time ? time_ns_new(own, &ns) : 0;

    if (r || !x->time)
        return r;
    r = time_ns_set(ns, &x->time->mono, &x->time->boot);
    if (!r)
        r = ns_tag_new(t->k, NS_TIME, t->cred->user_ns, ns, out_tag);
    if (r)
        time_ns_put(ns);
    return r;
}

static int load_tags(struct task *t, const struct kernel_exec *x, struct task *like)
{
    struct kernel *k = t->k;
    struct ns_tag *tags[NS_TAGS] = {NULL}, *mnt = NULL, *uts = NULL, *groups = NULL;
    struct ns_tag *time = NULL;

    if (!k->tags[NS_MNT])
        load_own_tags(k, t->cred->user_ns);
    int r = load_shared_tags(k, like, tags);
    if (!r)
        r = load_mnt_tag(t, x, like ? tags[NS_MNT] : NULL, &mnt);
    if (!r) {
        ns_tag_put(tags[NS_MNT]);
        tags[NS_MNT] = mnt;
    }
    if (!r && !like && x->hostname)
        r = load_uts_tag(t, x, &uts);
    if (uts) {
        ns_tag_put(tags[NS_UTS]);
        tags[NS_UTS] = uts;
    }
    if (!r && !like)
        r = load_cgroup_tag(k, x, &groups);
    if (groups) {
        ns_tag_put(tags[NS_CGROUP]);
        tags[NS_CGROUP] = groups;
    }
    if (!r && !like)
        r = load_time_tag(t, x, &time);
    if (!r) {
        ns_tag_put(tags[NS_TIME_CHILDREN]);
        if (time) {
            ns_tag_put(tags[NS_TIME]);
            tags[NS_TIME] = time;
        }
        tags[NS_TIME_CHILDREN] = ns_tag_get(tags[NS_TIME]);
        ns_tags_install(t, tags);
    }
    ns_tags_put(tags);
    return r;
}

/* cred's ids are those inside. */
static int load_user_ids(struct cred *c)
{
    uint32_t *const uids[] = {&c->uid, &c->euid, &c->suid, &c->fsuid};
    uint32_t *const gids[] = {&c->gid, &c->egid, &c->sgid, &c->fsgid};

    for (size_t i = 0; i < ARRAY_SIZE(uids); i++) {
        *uids[i] = user_ns_in(c->user_ns, USER_NS_UID, *uids[i]);
        *gids[i] = user_ns_in(c->user_ns, USER_NS_GID, *gids[i]);
        if (*uids[i] == USER_NS_NONE || *gids[i] == USER_NS_NONE)
            return -EINVAL;
    }
    for (uint32_t i = 0; i < c->group_count; i++) {
        c->groups[i] = user_ns_in(c->user_ns, USER_NS_GID, c->groups[i]);
        if (c->groups[i] == USER_NS_NONE)
            return -EINVAL;
    }
    return 0;
}

static int load_user(struct task *t, struct user_ns *ns)
{
    struct cred *n;

    if (!ns)
        return 0;
    int r = cred_dup(t->cred, &n);
    if (r)
        return r;
    user_ns_put(n->user_ns);
    n->user_ns = user_ns_get(ns);
    r = load_user_ids(n);
    if (r) {
        cred_put(n);
        return r;
    }
    task_set_cred(t, n);
    return 0;
}

static int load_user_like(struct task *t, struct task *like)
{
    struct cred *c = task_get_cred(like);
    int r = c ? load_user(t, c->user_ns) : -ESRCH;

    if (c)
        cred_put(c);
    return r;
}

static void load_pid_ns(struct task *t, struct pid_ns *ns)
{
    t->tg->pid_ns = pid_ns_get(ns);
    task_priv(t)->pid_ns_children = pid_ns_get(ns);
}

static int load_namespaces(struct task *t, const struct kernel_exec *x)
{
    struct task *like = NULL;
    int r = 0;

    if (x->like_pid)
        r = kernel_find_task(t->k, x->like_pid, false, &like);
    if (!r)
        r = like ? load_user_like(t, like) : load_user(t, x->user_ns);
    if (!r) {
        load_pid_ns(t, like ? like->tg->pid_ns : x->pid_ns);
        r = load_tags(t, x, like);
    }
    if (like)
        task_put(like);
    return r;
}

static int load_paths(struct task *t, const struct kernel_exec *x)
{
    struct mount_ns *ns = task_priv(t)->ns;
    struct vfs_caller c = {.cred = t->cred, .ns = ns, .fsize_limit = UINT64_MAX};

    mount_ns_root(ns, &c.root);
    c.cwd = c.root;
    struct vpath cwd;
    int r = vfs_lookup(&c, NULL, x->cwd ? x->cwd : "/", VFS_FOLLOW | VFS_DIRECTORY, &cwd);
    if (!r) {
        r = fs_ctx_new(&c.root, &cwd, (uint32_t)x->umask, &t->fs);
        vpath_put(&cwd);
    }
    vpath_put(&c.root);
    return r;
}

static int load_group(struct task *t, const struct kernel_exec *x, kernel_exit_fn fn, void *arg)
{
    struct thread_group *tg;
    int r = tg_new(t->k, &tg);

    if (r)
        return r;
    t->tg = tg;
    tg->account = account_get(x->account);
    r = sighand_new(&tg->sighand);
    if (r)
        return r;
    for (size_t i = 0; i < LX_RLIM_COUNT; i++)
        for (size_t j = 0; j < 2; j++)
            atomic_store(&tg->rlimits[i][j], x->rlimits[i][j]);
    atomic_store(&tg->oom_score_adj, x->oom_score_adj);
    atomic_store(&tg->oom_score_adj_min, x->oom_score_adj);
    tg->exit_signal = SIGCHLD;
    tg->exit_fn = fn;
    tg->exit_arg = arg;
    return 0;
}

/* Strings of boot's as execve packs them. text: room for all. */
static void load_pack(const char *const *v, char *text, struct image_strings *out)
{
    *out = (struct image_strings){.text = text};
    for (; v && *v; v++) {
        const size_t n = strlen(*v) + 1;
        memcpy(text + out->size, *v, n);
        out->size += n;
        out->count++;
    }
}

static size_t load_text_size(const char *const *v)
{
    size_t size = 1;

    for (; v && *v; v++)
        size += strlen(*v) + 1;
    return size;
}

/* It is in no group yet, so that nothing needs to be counted back when it cannot be loaded. */
static struct memacct *load_account(const struct task *t)
{
    const struct cgroup_ns *ns = task_priv(t)->tags[NS_CGROUP]->obj;

    return ns && ns->tops[0] ? ns->tops[0]->acct : NULL;
}

static int load_program(struct task *t, const struct kernel_exec *x, const struct vfs_caller *c,
                        struct file *file, struct task_image *image)
{
    const size_t argv_size = load_text_size(x->argv), envp_size = load_text_size(x->envp);
    struct mm_limits lim;

    if (argv_size + envp_size > LIMIT_ARG_SIZE)
        return -E2BIG;
    char *text = calloc(1, argv_size + envp_size);
    if (!text)
        return -ENOMEM;
    task_mm_limits(t, &lim);
    struct task_image_args args = {
        .k = t->k,
        .caller = c,
        .file = file,
        .filename = x->path,
        .stack_limit = lim.stack,
        .limits = &lim,
        .acct = load_account(t),
    };
    load_pack(x->argv, text, &args.argv);
    load_pack(x->envp, text + argv_size, &args.envp);
    int r = t->k->cfg.load(&args, image);
    free(text);
    return r;
}

/* Takes over what image owns. */
static int load_adopt(struct task *t, struct task_image *image)
{
    t->ua.mm = image->mm;
    task_set_cred(t, image->cred);
    task_set_comm(t, image->comm);
    int r = exe_from_file(image->exe, &t->tg->exe);
    file_put(image->exe);
    if (!r)
        r = time_ns_show(t->k, task_child_time_ns(t), image->mm, true);
    if (r)
        return r;
    return task_start_loaded(t, image->entry, image->stack);
}

static int load_image(struct task *t, const struct kernel_exec *x)
{
    struct task_image image;
    struct vfs_caller c;
    struct file *file;

    task_vfs_caller(t, &c);
    c.cred = cred_get(c.cred);
    int r = image_open(&c, NULL, x->path, VFS_FOLLOW, &file);
    if (!r) {
        r = load_program(t, x, &c, file, &image);
        file_put(file);
        if (!r)
            r = load_adopt(t, &image);
    }
    cred_put(c.cred);
    task_vfs_caller_end(&c);
    return r;
}

static int load_publish_locked(struct task *t, const struct kernel_exec *x)
{
    struct kernel *k = t->k;
    struct pid *p;

    if (k->dying || (k->last_pid && !k->init))
        return -ESRCH;
    int r = account_admit_locked(t->tg->account);
    if (!r)
        r = pid_new_locked(k, t->tg->pid_ns, NULL, 0, &p);
    if (r)
        return r;
    task_publish_locked(t, p);
    r = cgroup_enter_locked(t, task_priv(t)->tags[NS_CGROUP]->obj);
    if (r)
        return r;
    struct thread_group *tg = t->tg;
    if (!k->init)
        k->init = tg;
    if (x->new_session || tg_is_init(tg))
        r = session_new_locked(tg);
    else
        pgrp_join_locked(tg, k->init->pgrp);
    return r;
}

static int load_publish(struct task *t, const struct kernel_exec *x)
{
    struct kernel *k = t->k;
    struct list dead = LIST_INIT(dead);

    mutex_lock(&k->mu);
    int r = load_publish_locked(t, x);
    if (r && t->tid) {
        /* No memory for a session: out of the tables again, the reference stays the caller's. */
        struct sighand *sh = tg_lock_sig(t->tg);
        t->tg->thread_alive--;
        sighand_unlock(sh);
        t->tg->state = TG_ZOMBIE;
        (void)task_get(t);
        tg_reap_locked(t->tg, &dead);
    }
    mutex_unlock(&k->mu);
    tg_reaped(k, &dead);
    return r;
}

static void load_terminal(struct task *t, const struct kernel_exec *x)
{
    struct vfs_caller c;

    if (!x->tty)
        return;
    task_vfs_caller(t, &c);
    const int64_t r = vfs_ioctl(x->tty, TIOCSCTTY, 0, &t->ua, &c);
    if (r)
        log_warn("the terminal does not become the controlling one: %d", (int)r);
    task_vfs_caller_end(&c);
}

int kernel_exec_load(struct kernel *k, const struct kernel_exec *x, kernel_exit_fn fn, void *arg,
                     int32_t *out_pid)
{
    struct task *t;
    int r = task_new(k, &t);

    if (r)
        return r;
    t->cred = cred_get(x->cred);
    for (int i = 0; i < k->cfg.cpus; i++)
        task_priv(t)->affinity[i / 64] |= 1ull << (i % 64);
    r = load_group(t, x, fn, arg);
    if (!r)
        r = load_files(t, x);
    if (!r)
        r = load_namespaces(t, x);
    if (!r)
        r = load_paths(t, x);
    if (!r && x->seccomp)
        r = seccomp_lay(t, x->seccomp);
    if (!r)
        r = load_image(t, x);
    if (r)
        goto out_task;
    r = load_publish(t, x);
    if (r) {
        task_start_abort(t);
        goto out_task;
    }
    load_terminal(t, x);
    *out_pid = t->tid;
    return 0;
out_task:
    task_put(t);
    return r;
}

void kernel_exec_start(struct kernel *k, int32_t pid)
{
    struct task *t;

    if (kernel_find_task(k, pid, false, &t))
        return;
    task_go_if_waiting(t);
    task_put(t);
}
