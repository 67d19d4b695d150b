/* Tasks, thread groups, sessions and the kernel they live in.
 * Depends on: base, platform, wait, cred, mm, vfs, time.
 * Threading: every field says its guard; "owner" is the task's own sentry thread.
 * Ownership: tasks and groups are reference-counted; the pid table holds weak pointers. */
#ifndef RINGWALL_SENTRY_KERNEL_TASK_H
#define RINGWALL_SENTRY_KERNEL_TASK_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/ref.h"
#include "base/uaddr.h"
#include "platform/platform.h"
#include "sentry/cred/cred.h"
#include "sentry/errno_internal.h"
#include "sentry/mm/mm.h"
#include "sentry/mm/usercopy.h"
#include "sentry/vfs/vfs.h"
#include "sentry/wait/wait.h"

struct kernel;
struct account; /* account.h */
struct task;
struct fdtable;
struct sighand;
struct thread_group;
struct pid_ns;
/* What /proc/<pid>/io counts: bytes asked for and given, calls. */
struct task_io {
    uint64_t rchar, wchar, syscr, syscw;
};
struct uts_ns;
struct sys_table;
struct memfile;
struct net;
struct task_image_args;
struct task_image;
struct kernel_seccomp; /* seccomp.h */
struct cgroup_ns;      /* cgroup.h */
struct user_ns;        /* cred/user_ns.h */

/* Linux layout of siginfo_t, 128 bytes. */
struct lx_siginfo {
    int32_t signo, err, code, pad;
    union {
        struct {
            int32_t pid;
            uint32_t uid;
            uint64_t value;
        } kill; /* also rt: value */
        struct {
            int32_t tid, overrun;
            uint64_t value;
        } timer;
        struct {
            int32_t pid;
            uint32_t uid;
            int32_t status, pad2;
            int64_t utime, stime;
        } chld;
        struct {
            uint64_t addr;
            int16_t addr_lsb;
        } fault;
        struct {
            int64_t band;
            int32_t fd;
        } poll;
        struct {
            uint64_t call_addr;
            int32_t syscall;
            uint32_t arch;
        } sys;
        uint8_t raw[112];
    };
};
_Static_assert(sizeof(struct lx_siginfo) == 128, "siginfo_t has 128 bytes");

/* Directory context of one or more tasks (CLONE_FS). */
struct fs_ctx {
    struct ref ref;
    struct mutex mu;        /* rank FSCTX: guards the rest */
    struct vpath root, cwd; /* owned */
    uint32_t umask;
    _Atomic uint32_t version; /* counts changes; lets tasks keep a copy */
};

struct task {
    /* immutable */
    struct ref ref;
    struct kernel *k;
    int32_t tid;  /* in the root pid namespace of the sandbox */
    int32_t vtid; /* in its own: what the guest knows */
    struct thread_group *tg;

    /* owner thread only */
    struct uaccess ua;    /* mm (owned reference) and context; what handlers copy through */
    struct plat_ctx *ctx; /* owned; == ua.ctx */
    uint64_t clear_tid;   /* set_tid_address(2) */
    uint64_t robust_list; /* task_robust_list */
    uint64_t rseq, rseq_size;
    uint32_t rseq_sig;
    int64_t (*restart_fn)(struct task *t); /* restart_syscall(2) */
    uint64_t restart_arg[5];
    /* While a request of io_uring is carried out, else NULL: the file that TASK_FD_HELD names
     * (borrowed), and where a new file goes instead of the descriptor table. */
    struct file *held, **made;

    /* guarded by tg->sighand's lock (rank SIGHAND); blocked is written by the owner only, and not
     * true while guest code has its own (own.c) */
    uint64_t blocked, saved_blocked;
    bool has_saved_blocked;

    /* atomic pointers swapped by the owner, read by others under mu */
    struct mutex mu;     /* rank TASK */
    struct cred *cred;   /* owned reference */
    struct fdtable *fdt; /* owned reference */
    struct fs_ctx *fs;   /* owned reference */
    char comm[16];

    struct blocker blocker; /* what this task sleeps on */
    void *impl;             /* rest of the task, sentry/kernel/task_priv.h */
};

/* ---- what system call handlers use ---- */

/* The caller description for vfs, filled from the task: borrowed pointers valid till
 * task_vfs_caller_end. Owner; may nest. */
void task_vfs_caller(struct task *t, struct vfs_caller *out);
void task_vfs_caller_end(struct vfs_caller *c);

/* No descriptor: see struct task. */
#define TASK_FD_HELD INT32_MIN

/* Descriptor look-up: an owned reference, or -EBADF. file_put it. O_PATH files are refused by
 * task_file and given by task_file_any. */
MUST_CHECK int task_file(struct task *t, int fd, struct file **out_file);
MUST_CHECK int task_file_any(struct task *t, int fd, struct file **out_file);
/* The base of an *at call: AT_FDCWD gives *use_base = false; else an owned path. */
MUST_CHECK int task_at_base(struct task *t, int dirfd, bool *out_use_base, struct vpath *out_base);
/* Lowest free descriptor >= min for f (takes a new reference on success), close-on-exec or not.
 * -EMFILE by RLIMIT_NOFILE. */
MUST_CHECK int task_fd_install(struct task *t, struct file *f, bool cloexec, int min);
/* Resource limit of the group (soft). */
uint64_t task_rlimit(struct task *t, int resource);
void task_mm_limits(struct task *t, struct mm_limits *out);
bool task_capable(struct task *t, int cap);

/* ---- descriptor tables, sentry/kernel/fdtable.c ---- */
MUST_CHECK int fdtable_new(struct fdtable **out_fdt);
MUST_CHECK int fdtable_dup(struct fdtable *fdt, struct fdtable **out_fdt);
struct fdtable *fdtable_get(struct fdtable *fdt);
bool fdtable_shared(const struct fdtable *fdt); /* more than one reference */
/* The last put closes everything on behalf of c. */
void fdtable_put(struct fdtable *fdt, const struct vfs_caller *c);
MUST_CHECK int fdtable_lookup(struct fdtable *fdt, int fd, struct file **out_file);
/* max: RLIMIT_NOFILE. Takes a new reference on f. Returns the descriptor. */
MUST_CHECK int fdtable_install(struct fdtable *fdt, struct file *f, bool cloexec, int min,
                               uint64_t max);
/* dup2/dup3: puts f at fd, closing what was there. */
MUST_CHECK int fdtable_install_at(struct fdtable *fdt, struct file *f, bool cloexec, int fd,
                                  uint64_t max, const struct vfs_caller *c);
MUST_CHECK int fdtable_close(struct fdtable *fdt, int fd, const struct vfs_caller *c);
/* close_range(2); cloexec_only sets the flag instead. */
void fdtable_close_range(struct fdtable *fdt, unsigned first, unsigned last, bool cloexec_only,
                         const struct vfs_caller *c);
MUST_CHECK int fdtable_get_cloexec(struct fdtable *fdt, int fd, bool *out);
MUST_CHECK int fdtable_set_cloexec(struct fdtable *fdt, int fd, bool on);
/* First used descriptor >= from, or -ENOENT: for /proc/<pid>/fd and exec. */
int fdtable_next(struct fdtable *fdt, int from);
void fdtable_exec(struct fdtable *fdt, const struct vfs_caller *c); /* closes cloexec ones */
size_t fdtable_count(struct fdtable *fdt);
size_t fdtable_size(struct fdtable *fdt); /* slots there are, used or not */

/* ---- signals, sentry/kernel/signal.c ---- */
/* Sends to one task / its group / a process group. No permission check. */
int task_send_signal(struct task *t, const struct lx_siginfo *info);
int tg_send_signal(struct thread_group *tg, const struct lx_siginfo *info);
/* SIGPIPE, SIGXFSZ and the like raised by the task's own call. */
void task_raise(struct task *t, int signo);
/* ppoll, pselect, epoll_pwait, sigsuspend: blocked mask for this call only; restored at return to
 * user mode (after a handler frame was built with the old mask), or by task_restore_sigmask. */
MUST_CHECK int task_set_temp_sigmask(struct task *t, uaddr_t set, uint64_t size);
void task_restore_sigmask(struct task *t);
bool task_signal_pending(struct task *t);
/* ... one that ends it: what only long calls look at that signals do not interrupt. */
bool task_kill_pending(struct task *t);

/* ---- robust lists, sentry/kernel/own.c ---- */
/* Guest address of the head that get_robust_list(2) shows, 0: none. Any thread. */
uint64_t task_robust_list(struct task *t);
/* set_robust_list(2). Owner. */
void task_set_robust_list(struct task *t, uint64_t list);

/* ---- the kernel object ---- */
struct kernel_config {
    struct plat *plat;
    struct memfile *mf;
    const struct sys_table *syscalls;
    /* The loader (sentry/kernel/image.h); never NULL. */
    int (*load)(const struct task_image_args *args, struct task_image *out);
    /* What clocks that count from boot show to the programs of mm: the host's time and these, ns
     * (sentry/vdso/vdso.h). NULL: programs read no clock by themselves. */
    int (*set_clock_offsets)(struct mm *mm, int64_t mono_ns, int64_t boot_ns);
    struct net *net;       /* AF_UNIX names and the stack; borrowed, NULL without */
    uint64_t memory_limit; /* bytes the guest may use and sees; 0: the host's */
    int cpus;              /* CPUs the guest sees */
    /* How many processes of the sandbox the host has ended for want of memory. NULL: it does not
     * say. Any thread. */
    uint64_t (*host_oom_kills)(void *arg);
    void *host_oom_arg;
    const char *hostname, *domainname;
    bool strace;
};
MUST_CHECK int kernel_new(const struct kernel_config *cfg, struct kernel **out_k);
/* For tests: every task has ended or is about to end. Waits for their threads. */
void kernel_free(struct kernel *k);
struct net *kernel_net(struct kernel *k);
/* That of t, or (t NULL) of the task with number pid; the sandbox's when it has gone. Owned. */
struct net *kernel_net_of(struct kernel *k, struct task *t, int32_t pid);
/* Whether system calls are logged from now on. Any thread. */
void kernel_set_strace(struct kernel *k, bool on);
/* A program to start: the container's init or an exec. */
struct kernel_exec {
    const char *path;                      /* what execve is given; argv[0] may differ */
    const char *const *argv, *const *envp; /* NULL-terminated */
    const char *cwd;
    struct cred *cred; /* borrowed */
    uint64_t umask;
    uint64_t rlimits[16][2]; /* soft, hard */
    int oom_score_adj;
    struct file *fds[3]; /* borrowed, NULL: closed */
    struct file *tty;    /* controlling terminal or NULL, borrowed */
    struct mount_ns *ns; /* borrowed; NULL: that of like_pid */
    bool new_session;
    struct account *account; /* borrowed; NULL: nobody counts it */
    /* It joins the namespaces of that process, a number of the sandbox's; 0: what follows counts.
     */
    int32_t like_pid;
    struct pid_ns *pid_ns;   /* borrowed; NULL: the sandbox's own */
    struct user_ns *user_ns; /* borrowed, ids of cred being those inside; NULL: the sandbox's own */
    /* With host names of its own, those of the sandbox at first; NULL: it shares them. */
    const char *hostname, *domainname;
    /* With a time namespace of its own; NULL: it shares that of the sandbox. -ERANGE as
     * task_set_child_time_offsets. */
    const struct time_offsets *time;
    /* Filter over the program's system calls, the first of them its execve's; borrowed, NULL: none.
     * -EINVAL for one that is no good. */
    const struct kernel_seccomp *seccomp;
    /* The control groups it is in and sees (cgroup.h); borrowed. NULL: those of like_pid. */
    struct cgroup_ns *cgroups;
};
/* Called when the process ends: status as wait(2) encodes it. From some sentry thread. */
typedef void (*kernel_exit_fn)(void *arg, int wait_status);
/* Loads the program (errors of execve(2) come here) without running it. The first becomes pid 1.
 * *out_pid is its pid in the sandbox. */
MUST_CHECK int kernel_exec_load(struct kernel *k, const struct kernel_exec *x, kernel_exit_fn fn,
                                void *arg, int32_t *out_pid);
void kernel_exec_start(struct kernel *k, int32_t pid);
/* all: everything in the pid namespace of process pid. */
int kernel_kill(struct kernel *k, int32_t pid, int signo, bool all);
/* pids in the sandbox: fills up to max, returns the count. */
size_t kernel_pids(struct kernel *k, int32_t *pids, size_t max);

/* ---- system call table, given by syscalls/ ---- */
struct sys_entry {
    int64_t (*fn)(struct task *t, const uint64_t *a); /* NULL: not there */
    const char *name;
    int err; /* what a missing call returns, negative */
};
struct sys_table {
    const struct sys_entry *entries;
    size_t count;
    /* strace: before and after. NULL: none. */
    void (*trace)(struct task *t, uint64_t nr, const uint64_t *a, bool after, int64_t ret);
};

/* t, who calls, has read or written: n bytes, or an error. */
void task_count_io(struct task *t, bool write, int64_t n);

#endif
