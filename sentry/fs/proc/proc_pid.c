/* /proc/<pid>: files, links and numbered directories of one task (proc(5)). */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "proc_priv.h"
#include "sentry/cred/user_ns.h"
#include "sentry/kernel/cgroup.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/ns.h"
#include "sentry/kernel/process.h"

/* ---- command line and environment, from the guest's own memory ---- */

static int show_guest_range(const struct proc_ctx *pc, FILE *out, bool env)
{
    struct mm *mm = task_get_mm(pc->t);
    char buf[1024];
    int r = 0;

    if (!mm)
        return 0;
    mm_lock_layout(mm);
    const struct mm_layout *l = mm_layout(mm);
    uint64_t at = env ? l->env_start : l->arg_start;
    uint64_t end = env ? l->env_end : l->arg_end;
    mm_unlock_layout(mm);
    if (end > at && end - at > LIMIT_ARG_SIZE)
        end = at + LIMIT_ARG_SIZE;
    const struct uaccess ua = {.mm = mm, .ctx = NULL};
    while (at < end) {
        size_t n = end - at < sizeof(buf) ? (size_t)(end - at) : sizeof(buf);
        n = copyin_partial(&ua, buf, uaddr(at), n);
        if (n == 0)
            break;
        if (fwrite(buf, 1, n, out) != n) {
            r = -ENOMEM;
            break;
        }
        at += n;
    }
    mm_put(mm);
    return r;
}

static int show_cmdline(const struct proc_ctx *pc, FILE *out)
{
    return show_guest_range(pc, out, false);
}

static int show_environ(const struct proc_ctx *pc, FILE *out)
{
    return show_guest_range(pc, out, true);
}

static int show_comm(const struct proc_ctx *pc, FILE *out)
{
    struct task_info info;

    task_info(pc->t, &info);
    fprintf(out, "%.15s\n", info.comm);
    return 0;
}

/* A process names its own threads. */
static int64_t store_comm(const struct proc_ctx *pc, const char *text, size_t len)
{
    struct task_info info;
    char name[16] = "";

    task_info(pc->t, &info);
    if (!pc->c || info.tgid != pc->c->tgid)
        return -EINVAL;
    memcpy(name, text, MIN(len, sizeof(name) - 1));
    task_change_comm(pc->t, name);
    return (int64_t)len;
}

static int show_statm(const struct proc_ctx *pc, FILE *out)
{
    struct mm *mm = task_get_mm(pc->t);
    struct mm_stats s = {0};

    if (mm) {
        mm_stats(mm, &s);
        mm_put(mm);
    }
    fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " 0 %" PRIu64 " 0\n",
            s.virt >> PAGE_SHIFT, s.rss >> PAGE_SHIFT, s.shared >> PAGE_SHIFT, s.exec >> PAGE_SHIFT,
            (s.data + s.stack) >> PAGE_SHIFT);
    return 0;
}

static void limit_text(uint64_t v, char *buf, size_t size)
{
    if (v == UINT64_MAX)
        snprintf(buf, size, "unlimited");
    else
        snprintf(buf, size, "%" PRIu64, v);
}

/* What storage had to do with it is the host's to know. */
static int show_io(const struct proc_ctx *pc, FILE *out)
{
    struct task_info i;

    if (!proc_may_access(pc, pc->c))
        return -EACCES;
    task_info(pc->t, &i);
    fprintf(out,
            "rchar: %" PRIu64 "\nwchar: %" PRIu64 "\nsyscr: %" PRIu64 "\nsyscw: %" PRIu64
            "\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n",
            i.io.rchar, i.io.wchar, i.io.syscr, i.io.syscw);
    return 0;
}

static int show_limits(const struct proc_ctx *pc, FILE *out)
{
    static const char *const rows[16][2] = {
        {"Max cpu time", "seconds"},     {"Max file size", "bytes"},
        {"Max data size", "bytes"},      {"Max stack size", "bytes"},
        {"Max core file size", "bytes"}, {"Max resident set", "bytes"},
        {"Max processes", "processes"},  {"Max open files", "files"},
        {"Max locked memory", "bytes"},  {"Max address space", "bytes"},
        {"Max file locks", "locks"},     {"Max pending signals", "signals"},
        {"Max msgqueue size", "bytes"},  {"Max nice priority", ""},
        {"Max realtime priority", ""},   {"Max realtime timeout", "us"},
    };
    struct task_info info;
    char soft[24], hard[24];

    task_info(pc->t, &info);
    fprintf(out, "%-25s %-20s %-20s %-10s\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        limit_text(info.rlimits[i][0], soft, sizeof(soft));
        limit_text(info.rlimits[i][1], hard, sizeof(hard));
        fprintf(out, "%-25s %-20s %-20s %-10s\n", rows[i][0], soft, hard, rows[i][1]);
    }
    return 0;
}

static int line_out(void *arg, const char *line)
{
    return fputs(line, arg) < 0 ? -ENOMEM : 0;
}

static int show_mounts_style(const struct proc_ctx *pc, FILE *out, int style)
{
    struct vpath root;
    struct mount_ns *ns = task_get_mount_ns(pc->t);

    if (!ns)
        return -EINVAL;
    int r = task_get_path(pc->t, 0, &root);
    if (!r) {
        r = mount_ns_show(ns, &root, style, line_out, out);
        vpath_put(&root);
    }
    mount_ns_put(ns);
    return r;
}

static int show_mounts(const struct proc_ctx *pc, FILE *out)
{
    return show_mounts_style(pc, out, 0);
}

static int show_mountinfo(const struct proc_ctx *pc, FILE *out)
{
    return show_mounts_style(pc, out, 1);
}

static int show_mountstats(const struct proc_ctx *pc, FILE *out)
{
    return show_mounts_style(pc, out, 2);
}

/* ---- user namespaces ---- */

static struct user_ns *pid_user_ns(const struct proc_ctx *pc, struct cred **out_cred)
{
    *out_cred = task_get_cred(pc->t);
    return *out_cred ? (*out_cred)->user_ns : NULL;
}

static int show_map(const struct proc_ctx *pc, FILE *out, enum user_ns_map map)
{
    struct cred *cred;
    const struct user_ns *ns = pid_user_ns(pc, &cred);
    const struct user_ns *seen = pc->c && pc->c->cred->user_ns != ns ? pc->c->cred->user_ns
                                 : ns                                ? ns->parent
                                                                     : NULL;
    const struct user_ns_table *t = ns ? atomic_load(&ns->maps[map]) : NULL;

    if (!ns)
        fprintf(out, "%10u %10u %10u\n", 0, 0, UINT32_MAX);
    for (uint32_t i = 0; t && i < t->count; i++)
        fprintf(out, "%10u %10u %10u\n", t->extents[i].inside,
                user_ns_out(seen, map, t->extents[i].outside), t->extents[i].count);
    cred_put(cred);
    return 0;
}

static int64_t store_map(const struct proc_ctx *pc, const char *text, size_t len,
                         enum user_ns_map map)
{
    struct cred *cred;
    struct user_ns *ns = pid_user_ns(pc, &cred);
    const int r = pc->c ? user_ns_write_map(ns, map, pc->c->cred, text) : -EPERM;

    cred_put(cred);
    return r ? r : (int64_t)len;
}

static int show_uid_map(const struct proc_ctx *pc, FILE *out)
{
    return show_map(pc, out, USER_NS_UID);
}

static int64_t store_uid_map(const struct proc_ctx *pc, const char *text, size_t len)
{
    return store_map(pc, text, len, USER_NS_UID);
}

static int show_gid_map(const struct proc_ctx *pc, FILE *out)
{
    return show_map(pc, out, USER_NS_GID);
}

static int64_t store_gid_map(const struct proc_ctx *pc, const char *text, size_t len)
{
    return store_map(pc, text, len, USER_NS_GID);
}

static int show_projid_map(const struct proc_ctx *pc, FILE *out)
{
    return show_map(pc, out, USER_NS_PROJID);
}

static int64_t store_projid_map(const struct proc_ctx *pc, const char *text, size_t len)
{
    return store_map(pc, text, len, USER_NS_PROJID);
}

static int show_setgroups(const struct proc_ctx *pc, FILE *out)
{
    struct cred *cred;
    const struct user_ns *ns = pid_user_ns(pc, &cred);

    fputs(ns && atomic_load(&ns->setgroups_denied) ? "deny\n" : "allow\n", out);
    cred_put(cred);
    return 0;
}

static int64_t store_setgroups(const struct proc_ctx *pc, const char *text, size_t len)
{
    const size_t word = strcspn(text, " \t\n");
    const bool allow = word == 5 && strncmp(text, "allow", 5) == 0;

    if (!allow && !(word == 4 && strncmp(text, "deny", 4) == 0))
        return -EINVAL;
    if (text[word + strspn(text + word, " \t\n")])
        return -EINVAL;
    struct cred *cred;
    struct user_ns *ns = pid_user_ns(pc, &cred);
    const int r = pc->c ? user_ns_write_setgroups(ns, pc->c->cred, allow) : -EPERM;
    cred_put(cred);
    return r ? r : (int64_t)len;
}

static int show_cgroup(const struct proc_ctx *pc, FILE *out)
{
    struct task *reader =
        pc->c && pc->c->blocker ? container_of(pc->c->blocker, struct task, blocker) : NULL;
    struct cgroup_ns *ns = reader ? task_get_cgroup_ns(reader) : NULL;
    const int r = cgroup_show_task(pc->t, ns, out);
    cgroup_ns_put(ns);
    return r;
}

static int show_no_login(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fprintf(out, "%u", UINT32_MAX);
    return 0;
}

/* Nobody logs in here: there is no audit that would know. */
static int64_t store_no_login(const struct proc_ctx *pc, const char *text, size_t len)
{
    (void)pc, (void)text, (void)len;
    return -EPERM;
}

/* ---- links ---- */

static int64_t path_text(const struct proc_ctx *pc, struct vpath *p, char *buf, size_t size)
{
    struct vpath root;
    int r = task_get_path(pc->t, 0, &root);

    if (r)
        return r;
    int64_t n = vfs_path_text(&root, p, buf, size);
    vpath_put(&root);
    return n > 0 ? n - 1 : n;
}

static int follow_exe(const struct proc_ctx *pc, struct vpath *out)
{
    return task_get_exe(pc->t, out);
}

static int follow_cwd(const struct proc_ctx *pc, struct vpath *out)
{
    return task_get_path(pc->t, 1, out);
}

static int follow_root(const struct proc_ctx *pc, struct vpath *out)
{
    return task_get_path(pc->t, 0, out);
}

static int64_t link_text(const struct proc_ctx *pc,
                         int (*follow)(const struct proc_ctx *, struct vpath *), char *buf,
                         size_t size)
{
    struct vpath p;
    int r = follow(pc, &p);

    if (r)
        return r;
    int64_t n = path_text(pc, &p, buf, size);
    vpath_put(&p);
    return n;
}

static int64_t readlink_exe(const struct proc_ctx *pc, char *buf, size_t size)
{
    return link_text(pc, follow_exe, buf, size);
}

static int64_t readlink_cwd(const struct proc_ctx *pc, char *buf, size_t size)
{
    return link_text(pc, follow_cwd, buf, size);
}

static int64_t readlink_root(const struct proc_ctx *pc, char *buf, size_t size)
{
    return link_text(pc, follow_root, buf, size);
}

/* ---- fd/ and fdinfo/ ---- */

static int fd_file(const struct proc_ctx *pc, struct file **out)
{
    struct fdtable *fdt = task_get_fdtable(pc->t);
    struct vfs_caller none = {0};

    if (!fdt)
        return -ENOENT;
    int r = fdtable_lookup(fdt, pc->fd, out);
    fdtable_put(fdt, &none);
    return r ? -ENOENT : 0;
}

static int32_t list_fds(const struct proc_ctx *pc, int32_t from)
{
    struct fdtable *fdt = task_get_fdtable(pc->t);
    struct vfs_caller none = {0};

    if (!fdt)
        return -ENOENT;
    int fd = fdtable_next(fdt, from);
    fdtable_put(fdt, &none);
    return fd;
}

static int follow_fd(const struct proc_ctx *pc, struct vpath *out)
{
    struct file *f;
    int r = fd_file(pc, &f);

    if (r)
        return r;
    vpath_get(&f->path);
    *out = f->path;
    file_put(f);
    return 0;
}

static int64_t readlink_fd(const struct proc_ctx *pc, char *buf, size_t size)
{
    return link_text(pc, follow_fd, buf, size);
}

/* Numbers of the process that a pidfd names, as the reader's namespace and those below know it. */
static void show_pidfd(const struct proc_ctx *pc, int32_t pid, FILE *out)
{
    int32_t chain[32];
    const int32_t first = pid <= 0 ? -1 : kernel_pid_out(pc->k, pc->ns, pid);
    const size_t n = first > 0 ? kernel_pid_chain(pc->k, pc->ns, pid, chain, ARRAY_SIZE(chain)) : 0;

    fprintf(out, "Pid:\t%d\nNSpid:\t%d", first, first);
    for (size_t i = 1; i < n; i++)
        fprintf(out, "\t%d", chain[i]);
    fputc('\n', out);
}

static int show_fdinfo(const struct proc_ctx *pc, FILE *out)
{
    struct file *f;
    char extra[512] = "";
    bool cloexec = false;
    int r = fd_file(pc, &f);

    if (r)
        return r;
    struct fdtable *fdt = task_get_fdtable(pc->t);
    struct vfs_caller none = {0};
    if (fdt) {
        if (fdtable_get_cloexec(fdt, pc->fd, &cloexec))
            cloexec = false;
        fdtable_put(fdt, &none);
    }
    /* As Linux, without the lock: who reads this file holds it, and another reader may wait long.
     */
    const int64_t pos = __atomic_load_n(&f->pos, __ATOMIC_RELAXED);
    if (f->ops->show_fdinfo)
        f->ops->show_fdinfo(f, extra, sizeof(extra));
    fprintf(out, "pos:\t%" PRId64 "\nflags:\t0%o\nmnt_id:\t1\nino:\t%" PRIu64 "\n%s", pos,
            f->flags | (cloexec ? 02000000u : 0u), f->inode->ino, extra);
    const int32_t pid = pidfd_pid(f);
    if (pid != -EBADF)
        show_pidfd(pc, pid, out);
    file_put(f);
    return 0;
}

static const struct proc_entry fd_item = {
    .name = "fd", .mode = 0700, .readlink = readlink_fd, .follow = follow_fd};
static const struct proc_entry fdinfo_item = {.name = "fdinfo", .mode = 0400, .show = show_fdinfo};

/* ---- ns/ ---- */

static int pid_ns_handle(const struct proc_ctx *pc, enum ns_kind kind, struct ns_handle *out)
{
    if (pc->c && !proc_may_access(pc, pc->c))
        return -EACCES;
    return task_get_ns(pc->t, kind, out);
}

static int64_t readlink_ns(const struct proc_ctx *pc, char *buf, size_t size, enum ns_kind kind)
{
    struct ns_handle h;
    int r = pid_ns_handle(pc, kind, &h);

    if (r)
        return r;
    r = snprintf(buf, size, "%s:[%" PRIu64 "]", ns_kind_name(kind), ns_handle_id(&h));
    ns_handle_put(&h);
    return r;
}

static int follow_ns(const struct proc_ctx *pc, struct vpath *out, enum ns_kind kind)
{
    struct ns_handle h;
    int r = pid_ns_handle(pc, kind, &h);

    return r ? r : ns_handle_place(pc->k, &h, out);
}

#define NS_LINK(kind)                                                                              \
    static int64_t readlink_##kind(const struct proc_ctx *pc, char *buf, size_t size)              \
    {                                                                                              \
        return readlink_ns(pc, buf, size, kind);                                                   \
    }                                                                                              \
    static int follow_##kind(const struct proc_ctx *pc, struct vpath *out)                         \
    {                                                                                              \
        return follow_ns(pc, out, kind);                                                           \
    }
NS_LINK(NS_CGROUP)
NS_LINK(NS_IPC)
NS_LINK(NS_MNT)
NS_LINK(NS_NET)
NS_LINK(NS_PID)
NS_LINK(NS_PID_CHILDREN)
NS_LINK(NS_TIME)
NS_LINK(NS_TIME_CHILDREN)
NS_LINK(NS_USER)
NS_LINK(NS_UTS)

#define NS_ENTRY(name_, kind)                                                                      \
    {                                                                                              \
        .name = name_, .mode = 0777, .readlink = readlink_##kind, .follow = follow_##kind          \
    }
static const struct proc_entry ns_entries[] = {
    NS_ENTRY("cgroup", NS_CGROUP),
    NS_ENTRY("ipc", NS_IPC),
    NS_ENTRY("mnt", NS_MNT),
    NS_ENTRY("net", NS_NET),
    NS_ENTRY("pid", NS_PID),
    NS_ENTRY("pid_for_children", NS_PID_CHILDREN),
    NS_ENTRY("time", NS_TIME),
    NS_ENTRY("time_for_children", NS_TIME_CHILDREN),
    NS_ENTRY("user", NS_USER),
    NS_ENTRY("uts", NS_UTS),
    {0},
};

/* ---- the tables ---- */

static int32_t list_threads(const struct proc_ctx *pc, int32_t from)
{
    return task_next_tid_in(pc->t, pc->ns, from);
}

#define PID_COMMON                                                                                 \
    {.name = "auxv", .mode = 0400, .show = proc_show_auxv},                                        \
        {.name = "cgroup", .mode = 0444, .show = show_cgroup},                                     \
        {.name = "clear_refs", .mode = 0200, .store = proc_store_clear_refs},                      \
        {.name = "cmdline", .mode = 0444, .show = show_cmdline},                                   \
        {.name = "comm", .mode = 0644, .show = show_comm, .store = store_comm},                    \
        {.name = "cwd", .mode = 0777, .readlink = readlink_cwd, .follow = follow_cwd},             \
        {.name = "environ", .mode = 0400, .show = show_environ},                                   \
        {.name = "exe", .mode = 0777, .readlink = readlink_exe, .follow = follow_exe},             \
        {.name = "fd", .mode = 0500, .list = list_fds, .item = &fd_item},                          \
        {.name = "fdinfo", .mode = 0555, .list = list_fds, .item = &fdinfo_item},                  \
        {.name = "gid_map",                                                                        \
         .mode = 0644,                                                                             \
         .show = show_gid_map,                                                                     \
         .store = store_gid_map,                                                                   \
         .whole = true},                                                                           \
        {.name = "io", .mode = 0400, .show = show_io},                                             \
        {.name = "limits", .mode = 0444, .show = show_limits},                                     \
        {.name = "loginuid", .mode = 0644, .show = show_no_login, .store = store_no_login},        \
        {.name = "maps", .mode = 0444, .show = proc_show_maps},                                    \
        {.name = "mem", .mode = 0600, .open = proc_open_mem},                                      \
        {.name = "mountinfo", .mode = 0444, .show = show_mountinfo},                               \
        {.name = "mounts", .mode = 0444, .show = show_mounts},                                     \
        {.name = "net",                                                                            \
         .mode = 0555,                                                                             \
         .children = proc_net_entries,                                                             \
         .more = proc_net_sock_entries},                                                           \
        {.name = "ns", .mode = 0511, .children = ns_entries},                                      \
        {.name = "numa_maps", .mode = 0444, .show = proc_show_numa_maps},                          \
        {.name = "oom_score", .mode = 0444, .show = proc_show_oom_score},                          \
        {.name = "oom_score_adj",                                                                  \
         .mode = 0644,                                                                             \
         .show = proc_show_oom_score_adj,                                                          \
         .store = proc_store_oom_score_adj},                                                       \
        {.name = "pagemap", .mode = 0400, .open = proc_open_pagemap},                              \
        {.name = "projid_map",                                                                     \
         .mode = 0644,                                                                             \
         .show = show_projid_map,                                                                  \
         .store = store_projid_map,                                                                \
         .whole = true},                                                                           \
        {.name = "root", .mode = 0777, .readlink = readlink_root, .follow = follow_root},          \
        {.name = "sessionid", .mode = 0444, .show = show_no_login},                                \
        {.name = "setgroups", .mode = 0644, .show = show_setgroups, .store = store_setgroups},     \
        {.name = "smaps", .mode = 0444, .show = proc_show_smaps},                                  \
        {.name = "smaps_rollup", .mode = 0444, .show = proc_show_smaps_rollup},                    \
        {.name = "stat", .mode = 0444, .show = proc_show_pid_stat},                                \
        {.name = "statm", .mode = 0444, .show = show_statm},                                       \
        {.name = "status", .mode = 0444, .show = proc_show_pid_status},                            \
    {                                                                                              \
        .name = "uid_map", .mode = 0644, .show = show_uid_map, .store = store_uid_map,             \
        .whole = true                                                                              \
    }

const struct proc_entry proc_tid_entries[] = {
    PID_COMMON,
    {.name = "children", .mode = 0444, .show = proc_show_children},
    {0},
};

const struct proc_entry proc_pid_entries[] = {
    PID_COMMON,
    {.name = "mountstats", .mode = 0400, .show = show_mountstats},
    {.name = "task", .mode = 0555, .list = list_threads, .item = &proc_tid_dir},
    {.name = "timens_offsets",
     .mode = 0644,
     .show = proc_show_time_offsets,
     .store = proc_store_time_offsets,
     .whole = true},
    {0},
};

const struct proc_entry proc_pid_dir = {
    .name = "pid", .mode = 0555, .children = proc_pid_entries, .more = proc_task_entries};
const struct proc_entry proc_tid_dir = {
    .name = "tid", .mode = 0555, .children = proc_tid_entries, .more = proc_task_entries};
