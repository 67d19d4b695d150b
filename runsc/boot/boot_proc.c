/* From a process object of the configuration to a loaded program. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "runsc/boot/boot_priv.h"
#include "sentry/cred/user_ns.h"
#include "sentry/fs/anon/hostfd.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/ns.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/seccomp.h"

/* What a program is searched in when its environment names no PATH. */
#define BOOT_DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* ---- credentials and limits ---- */

static int proc_cred(const struct oci_process *p, struct cred **out_cred)
{
    struct cred *c;
    int r = cred_new_root(0, &c);

    if (r != 0)
        return r;
    c->uid = c->euid = c->suid = c->fsuid = p->user.uid;
    c->gid = c->egid = c->sgid = c->fsgid = p->user.gid;
    c->cap_bounding = p->caps.bounding;
    c->cap_inheritable = p->caps.inheritable;
    c->cap_permitted = p->caps.permitted;
    c->cap_effective = p->caps.effective;
    c->cap_ambient = p->caps.ambient & p->caps.permitted & p->caps.inheritable;
    c->no_new_privs = p->no_new_privs;
    r = cred_set_groups(c, p->user.additional_gids, p->user.additional_gid_count);
    if (r != 0) {
        cred_put(c);
        return r;
    }
    *out_cred = c;
    return 0;
}

static void proc_rlimits(const struct boot *b, const struct oci_process *p, struct kernel_exec *x)
{
    for (size_t i = 0; i < ARRAY_SIZE(x->rlimits); i++) {
        x->rlimits[i][0] = b->rlimits[i].rlim_cur;
        x->rlimits[i][1] = b->rlimits[i].rlim_max;
    }
    for (size_t i = 0; i < p->rlimit_count; i++) {
        x->rlimits[p->rlimits[i].resource][0] = p->rlimits[i].soft;
        x->rlimits[p->rlimits[i].resource][1] = p->rlimits[i].hard;
    }
}

/* ---- the program ---- */

static const char *proc_path(const struct oci_process *p)
{
    for (size_t i = 0; i < p->env.count; i++)
        if (strncmp(p->env.v[i], "PATH=", 5) == 0)
            return p->env.v[i] + 5;
    return BOOT_DEFAULT_PATH;
}

static bool proc_executable(const struct vfs_caller *c, const char *path)
{
    struct vpath found;

    if (vfs_lookup(c, NULL, path, VFS_FOLLOW, &found) != 0)
        return false;
    struct vfs_attr a;
    bool ok = vfs_getattr(&found, &a) == 0 && S_ISREG(a.mode) &&
              vfs_permission(c, found.dentry->inode, 1) == 0;
    vpath_put(&found);
    return ok;
}

/* execvp(3)'s search, which runtimes make for the first program. out: VFS_PATH_MAX bytes. */
static int proc_search(const struct vfs_caller *c, const struct oci_process *p, const char *program,
                       char *out)
{
    const char *name = program != NULL ? program : p->args.v[0];
    const char *dir = proc_path(p);

    if (strchr(name, '/') != NULL) {
        if (strlen(name) >= VFS_PATH_MAX)
            return -ENAMETOOLONG;
        memcpy(out, name, strlen(name) + 1);
        return 0;
    }
    for (;;) {
        size_t len = strcspn(dir, ":");
        int n = snprintf(out, VFS_PATH_MAX, "%.*s/%s", (int)MIN(len, (size_t)VFS_PATH_MAX),
                         len > 0 ? dir : ".", name);
        if (n < VFS_PATH_MAX && proc_executable(c, out))
            return 0;
        if (dir[len] == '\0')
            return -ENOENT;
        dir += len + 1;
    }
}

/* The caller that path look-ups before the first task are made for. cwd is put by proc_caller_end.
 */
static int proc_caller(struct mount_ns *ns, const struct oci_process *p, struct cred *cred,
                       struct vfs_caller *c)
{
    memset(c, 0, sizeof(*c));
    c->cred = cred;
    c->ns = ns;
    c->fsize_limit = UINT64_MAX;
    mount_ns_root(ns, &c->root);
    c->cwd = c->root;
    int r = vfs_lookup(c, NULL, p->cwd, VFS_FOLLOW | VFS_DIRECTORY, &c->cwd);
    if (r != 0)
        vpath_put(&c->root);
    return r;
}

static void proc_caller_end(struct vfs_caller *c)
{
    vpath_put(&c->cwd);
    vpath_put(&c->root);
}

/* ---- descriptors ---- */

static void proc_put_files(struct kernel_exec *x)
{
    for (size_t i = 0; i < ARRAY_SIZE(x->fds); i++)
        if (x->fds[i] != NULL)
            file_put(x->fds[i]);
    memset(x->fds, 0, sizeof(x->fds));
}

/* All three are the same host terminal: the first one is kept. Taken ones become -1. */
static int proc_terminal(struct boot *b, const struct oci_process *p, int stdio[3],
                         struct boot_process *out, struct kernel_exec *x)
{
    int r = boot_tty_new(b, out->container, stdio[0], p->user.uid, &out->tty, &x->fds[0]);

    if (r != 0)
        return r;
    stdio[0] = -1;
    x->fds[1] = file_get(x->fds[0]);
    x->fds[2] = file_get(x->fds[0]);
    x->tty = x->fds[0];
    return 0;
}

/* A program that is not root opens its standard streams by name too (/dev/stdout): they are its
 * own, as other runtimes have it. */
static void proc_own_file(struct file *f, const struct boot_container *ct, uint32_t uid)
{
    struct inode *i = f->inode;

    mutex_lock(&i->mu);
    i->uid = user_ns_in(ct->user_ns, USER_NS_UID, uid);
    mutex_unlock(&i->mu);
}

static int proc_files(int stdio[3], const struct boot_process *out, const struct oci_process *p,
                      struct kernel_exec *x)
{
    for (size_t i = 0; i < ARRAY_SIZE(x->fds); i++) {
        int r = hostfd_new(stdio[i], &x->fds[i]);
        if (r != 0) {
            proc_put_files(x);
            return r;
        }
        stdio[i] = -1;
        proc_own_file(x->fds[i], out->container, p->user.uid);
    }
    return 0;
}

/* ---- the end ---- */

void boot_wake(const struct boot *b)
{
    /* Full: then the other end has something to read already. */
    if (write(b->wake[1], "", 1) < 0)
        log_debug("boot: wake pipe is full");
}

/* From whichever sentry thread ended the process. */
static void proc_ended(void *arg, int wait_status)
{
    struct boot_process *p = arg;
    struct boot *b = p->boot;

    mutex_lock(&b->mu);
    p->ended = true;
    p->exit_code =
        WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
    mutex_unlock(&b->mu);
    boot_wake(b);
}

void boot_process_fini(struct boot_process *p)
{
    boot_tty_free(p->tty);
    p->tty = NULL;
}

/* ---- what the program finds set, before its first instruction ---- */

/* Started by exec: it is not the container's first program. */
static bool proc_execs(const struct boot_process *out)
{
    return out != &out->container->init;
}

static bool proc_has_cpus(const struct oci_process *p)
{
    uint64_t any = 0;

    for (size_t i = 0; i < LIMIT_CPU_WORDS; i++)
        any |= p->exec_cpus[i];
    return any != 0;
}

/* As sched_setaffinity(2): one of them must be there. */
static bool proc_cpus_exist(struct boot *b, const struct oci_process *p)
{
    struct kernel_info info;

    kernel_info(b->k, &info);
    for (int i = 0; i < info.cpus; i++)
        if (p->exec_cpus[i / 64] & 1ull << (i % 64))
            return true;
    return false;
}

static void proc_attrs(struct boot *b, const struct boot_process *out, const struct oci_process *p)
{
    struct task *t;

    if (kernel_find_task(b->k, out->pid, false, &t) != 0)
        return;
    if (out->container->spec->lx.personality != 0)
        task_attr_set(t, TASK_ATTR_PERSONALITY, out->container->spec->lx.personality);
    if (p->has_scheduler) {
        task_attr_set(t, TASK_ATTR_SCHED_POLICY, p->sched_policy);
        task_attr_set(t, TASK_ATTR_SCHED_PRIORITY, p->sched_priority);
        task_attr_set(t, TASK_ATTR_SCHED_RESET, p->sched_reset_on_fork);
        task_attr_set(t, TASK_ATTR_NICE, p->nice);
    }
    if (proc_execs(out) && proc_has_cpus(p) && task_affinity_set(t, p->exec_cpus) != 0)
        log_warn("process.execCPUAffinity: no such CPU");
    if (p->has_io_priority && task_set_ioprio(t, p->io_priority) != 0)
        log_warn("process.ioPriority: out of memory");
    task_put(t);
}

/* ---- all of it ---- */

static int proc_load(struct boot *b, const struct oci_process *p, int stdio[3],
                     struct kernel_exec *x, struct boot_process *out, struct boot_text *t)
{
    int r = p->terminal ? proc_terminal(b, p, stdio, out, x) : proc_files(stdio, out, p, x);

    if (r != 0)
        return boot_say(t, r, "process: cannot set up its %s",
                        p->terminal ? "terminal" : "standard streams");
    r = kernel_exec_load(b->k, x, proc_ended, out, &out->pid);
    if (r == 0)
        proc_attrs(b, out, p);
    proc_put_files(x);
    if (r != 0) {
        boot_process_fini(out);
        return boot_say(t, r, "cannot run \"%s\"", x->path);
    }
    return 0;
}

static struct time_offset proc_offset(const struct oci_time_offset *o)
{
    return (struct time_offset){.sec = o->secs, .nsec = o->nanosecs};
}

/* Where the program starts: init in the container's namespaces, others where init is by now. */
static int proc_place(struct boot *b, struct boot_container *ct, bool init, struct kernel_exec *x)
{
    const struct oci_namespaces *ns = &ct->spec->lx.ns;
    struct task *t;

    x->account = ct->account;
    if (!init) {
        int r = kernel_find_task(b->k, ct->init.pid, false, &t);
        if (r != 0)
            return r;
        x->like_pid = ct->init.pid;
        x->ns = task_get_mount_ns(t);
        task_put(t);
        return x->ns != NULL ? 0 : -ESRCH;
    }
    x->ns = mount_ns_get(ct->ns);
    x->pid_ns = ct->pid_ns;
    x->user_ns = ct->user_ns;
    if (ct != &b->root && ns->listed[OCI_NS_UTS] && ns->path[OCI_NS_UTS] == NULL) {
        x->hostname = ct->spec->hostname != NULL ? ct->spec->hostname : "ringwall";
        x->domainname = ct->spec->domainname;
    }
    return 0;
}

static int proc_find_program(const struct vfs_caller *c, const struct oci_process *p,
                             const char *program, struct boot_text *t, char **out_path)
{
    char *path = malloc(VFS_PATH_MAX);
    int r = path == NULL ? -ENOMEM : proc_search(c, p, program, path);

    if (r != 0) {
        free(path);
        return boot_say(t, r, "cannot run \"%s\": executable file not found in $PATH",
                        program != NULL ? program : p->args.v[0]);
    }
    *out_path = path;
    return 0;
}

static int proc_load_in(struct boot *b, const struct oci_process *p, const char *program,
                        int fds[3], struct kernel_exec *x, struct boot_process *out,
                        struct boot_text *t)
{
    struct vfs_caller c;
    char *path = NULL;
    int r = proc_caller(x->ns, p, x->cred, &c);

    if (r != 0)
        return boot_say(t, r, "process.cwd \"%s\"", p->cwd);
    r = proc_find_program(&c, p, program, t, &path);
    if (r == 0) {
        x->path = path;
        r = proc_load(b, p, fds, x, out, t);
        free(path);
    }
    proc_caller_end(&c);
    return r;
}

int boot_load(struct boot *b, struct boot_container *ct, const struct oci_process *p,
              const char *program, const int stdio[3], struct boot_process *out,
              struct boot_text *t)
{
    const struct kernel_seccomp filter = {
        .insns = ct->seccomp.insns, .count = ct->seccomp.count, .flags = ct->seccomp.flags};
    const struct oci_linux *lx = &ct->spec->lx;
    const struct time_offsets time = {.mono = proc_offset(&lx->monotonic),
                                      .boot = proc_offset(&lx->boottime)};
    struct kernel_exec x = {
        .argv = p->args.v,
        .envp = p->env.v,
        .cwd = p->cwd,
        .umask = p->user.has_umask ? p->user.umask : 022,
        .cgroups = ct->cgroups,
        .new_session = true,
        .oom_score_adj = p->has_oom_score_adj ? p->oom_score_adj : 0,
        .seccomp = filter.insns != NULL ? &filter : NULL,
        .time = lx->ns.listed[OCI_NS_TIME] ? &time : NULL,
    };
    int fds[3] = {stdio[0], stdio[1], stdio[2]};

    int r = 0;

    out->boot = b;
    out->container = ct;
    if (proc_execs(out) && proc_has_cpus(p) && !proc_cpus_exist(b, p)) {
        r = boot_say(t, -EINVAL, "process.execCPUAffinity.final");
        goto out_fds;
    }
    proc_rlimits(b, p, &x);
    r = proc_cred(p, &x.cred);
    if (r != 0) {
        r = boot_say(t, r, "process.user");
        goto out_fds;
    }
    r = proc_place(b, ct, out == &ct->init, &x);
    if (r == 0) {
        r = proc_load_in(b, p, program, fds, &x, out, t);
        mount_ns_put(x.ns);
    } else {
        r = boot_say(t, r, "the container's first process");
    }
    cred_put(x.cred);
out_fds:
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
    return r;
}
