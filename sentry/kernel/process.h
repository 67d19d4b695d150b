/* Life of processes for the system call layer: clone, exit, wait, exec, groups, limits, names.
 * Depends on: task.h.
 * Threading: t is the calling task, on its own thread with no lock held, unless said.
 * Ownership: arguments are borrowed; "owned" results are put by the caller. */
#ifndef RINGWALL_SENTRY_KERNEL_PROCESS_H
#define RINGWALL_SENTRY_KERNEL_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/kernel/task.h"

/* ---- clone(2) ---- */
struct cgroup;
struct task_clone_args {
    uint64_t flags; /* CLONE_*, without the exit signal */
    int exit_signal;
    uaddr_t pidfd, child_tid, parent_tid;
    uint64_t stack; /* value for rsp; 0: the parent's */
    uint64_t tls;
    const int32_t *want; /* clone3 set_tid: numbers from the innermost pid namespace outwards */
    size_t want_count;
    struct cgroup *cgroup; /* CLONE_INTO_CGROUP; borrowed, NULL: the parent's */
};
/* The child's tid; -EINVAL, -EAGAIN, -ENOMEM, -EPERM. With CLONE_VFORK returns when the child has
 * let go of the memory, or the caller was killed. */
MUST_CHECK int64_t task_clone(struct task *t, const struct task_clone_args *a);

/* ---- exit ---- */
/* The task ends instead of returning to the guest. status as the guest gave it (low 8 bits). */
void task_exit(struct task *t, int status);
void task_exit_group(struct task *t, int status);

/* ---- wait4(2), waitid(2) ---- */
enum task_wait_kind { TASK_WAIT_ANY, TASK_WAIT_PID, TASK_WAIT_PGRP };
struct task_usage_out {
    uint64_t utime_ns, stime_ns, min_flt, maj_flt, vol_switches, invol_switches, max_rss;
    struct task_io io;
};
struct task_wait_result {
    int32_t pid; /* 0: nothing (WNOHANG) */
    uint32_t uid;
    int status; /* wait4's encoding */
    int code;   /* CLD_* */
    struct task_usage_out usage;
};
/* options: WNOHANG WUNTRACED/WSTOPPED WEXITED WCONTINUED WNOWAIT __WALL __WCLONE __WNOTHREAD,
 * checked by the caller. -ECHILD, -ERESTARTSYS. */
MUST_CHECK int task_wait(struct task *t, enum task_wait_kind kind, int32_t id, int options,
                         struct task_wait_result *out);

/* ---- execve(2) ---- */
/* base as task_at_base; on success the registers are those of the new program. flags:
 * AT_EMPTY_PATH AT_SYMLINK_NOFOLLOW. */
MUST_CHECK int task_execve(struct task *t, int dirfd, uaddr_t path, uaddr_t argv, uaddr_t envp,
                           int flags);

/* ---- sessions and groups; errors of the man pages ---- */
MUST_CHECK int task_setsid(struct task *t);
MUST_CHECK int task_setpgid(struct task *t, int32_t pid, int32_t pgid);
/* pid 0: the caller. The id, or -ESRCH. */
MUST_CHECK int task_getpgid(struct task *t, int32_t pid);
MUST_CHECK int task_getsid(struct task *t, int32_t pid);
int32_t task_tgid(const struct task *t);
/* Numbers of tasks and groups that the guest gave as the sandbox's, and the other way round; 0:
 * there is none in its pid namespace. */
int32_t task_pid_in(struct task *t, int32_t nr);
int32_t task_pid_out(struct task *t, int32_t nr);
/* May say who is who in its pid namespace: CAP_SYS_ADMIN over it. */
bool task_pid_capable(struct task *t);
int32_t task_ppid(struct task *t);

/* ---- System V IPC ---- */
struct ipc_ns;
struct ipc_caller;
struct sem_undo_list;
/* The caller's namespace: borrowed, for this call. */
struct ipc_ns *task_ipc_ns(struct task *t);
void task_ipc_caller(struct task *t, struct ipc_caller *out);
/* What semop(2) with SEM_UNDO writes down; borrowed. -ENOMEM. */
MUST_CHECK int task_sem_undo(struct task *t, struct sem_undo_list **out_list);

/* ---- credentials, names, limits ---- */
/* Publishes c as the caller's credentials (takes the reference). */
void task_cred_commit(struct task *t, struct cred *c);
/* Another live task by tid (0: the caller). Owned (task_put), -ESRCH. */
MUST_CHECK int task_find(struct task *t, int32_t tid, struct task **out_task);
/* May t look into o, or stop it (ptrace(2), access mode checks): by its real ids and permitted
 * capabilities, or by those of file system access. Its own process always. */
enum task_access { TASK_ACCESS_REAL, TASK_ACCESS_FS };
bool task_may_access(struct task *t, struct task *o, enum task_access mode);
/* prlimit(2) of another: the same ids throughout, or CAP_SYS_RESOURCE. */
bool task_may_set_limits(struct task *t, struct task *o);
/* new, old: soft and hard, either NULL. Another task's limits when o is not t. -EINVAL, -EPERM. */
MUST_CHECK int task_prlimit(struct task *t, struct task *o, int resource,
                            const uint64_t new_limit[2], uint64_t old_limit[2]);
/* set_mempolicy(2): of t alone; what its future threads and children begin with. */
void task_set_policy(struct task *t, const struct mm_policy *policy);
void task_get_policy(struct task *t, struct mm_policy *out);
/* process_mrelease(2): -EINVAL when o's process does not end, or others have its memory too; -ESRCH
 * when it has none any more. */
MUST_CHECK int task_reap_memory(struct task *o);
enum task_usage_who { TASK_USAGE_SELF, TASK_USAGE_CHILDREN, TASK_USAGE_THREAD };
void task_get_usage(struct task *t, enum task_usage_who who, struct task_usage_out *out);
/* out: name of the thread, NUL-terminated. */
void task_get_comm(struct task *t, char out[16]);
void task_change_comm(struct task *t, const char *name);
/* uname(2): nodename and domainname of the caller's namespace; each buffer holds 65 bytes. */
void task_uts_names(struct task *t, char *node, char *domain);
/* len <= 64, else -EINVAL. No permission check. */
MUST_CHECK int task_uts_set(struct task *t, bool domain, const char *name, size_t len);
/* unshare(2), flags checked for being known; those that ask for what must not be shared included.
 */
MUST_CHECK int task_unshare(struct task *t, uint64_t flags);
/* Its part that makes namespaces. */
MUST_CHECK int task_unshare_ns(struct task *t, uint64_t flags);

/* ---- kcmp(2) ---- */
struct task_kcmp {
    int type; /* KCMP_* */
    uint64_t idx1, idx2;
    int err; /* -EFAULT: what KCMP_EPOLL_TFD points to could not be read */
    uint32_t epoll_fd, target_fd, target_nth;
};
/* 0 equal, 1 less, 2 greater. -EPERM, -EINVAL, -EBADF, -ENOENT. */
MUST_CHECK int64_t task_kcmp(struct task *t, struct task *a, struct task *b,
                             const struct task_kcmp *q);

/* ---- small per-task and per-group state that calls set and show ---- */
enum task_attr {
    TASK_ATTR_NICE,
    TASK_ATTR_SCHED_POLICY,
    TASK_ATTR_SCHED_PRIORITY,
    TASK_ATTR_SCHED_RESET, /* SCHED_RESET_ON_FORK */
    TASK_ATTR_PDEATHSIG,
    TASK_ATTR_DUMPABLE,
    TASK_ATTR_SUBREAPER,
    TASK_ATTR_THP_DISABLE,
    TASK_ATTR_OOM_SCORE_ADJ,
    TASK_ATTR_OOM_SCORE_ADJ_MIN,
    TASK_ATTR_PERSONALITY,
    TASK_ATTR_MCE_KILL, /* PR_MCE_KILL_LATE and so on */
    TASK_ATTR_IO_FLUSHER,
    TASK_ATTR_NO_TSC,     /* PR_SET_TSC; of the caller */
    TASK_ATTR_MEMBARRIER, /* commands the process has registered for */
};
int64_t task_attr_get(struct task *o, enum task_attr a);
void task_attr_set(struct task *o, enum task_attr a, int64_t v);
/* ioprio_set(2); of any task. -ENOMEM. */
int task_ioprio(struct task *o);
MUST_CHECK int task_set_ioprio(struct task *o, int prio);
uint64_t task_timer_slack(struct task *t);
/* 0: what the task was born with. */
void task_set_timer_slack(struct task *t, uint64_t ns);
/* Affinity masks of LIMIT_CPU_WORDS words; bits beyond the sandbox's CPUs are cut. -EINVAL when
 * nothing is left. */
void task_affinity_get(struct task *o, uint64_t *mask);
MUST_CHECK int task_affinity_set(struct task *o, const uint64_t *mask);
int task_cpu_count(struct task *t);
/* membarrier(2): returns when every other running thread (of the process, of the sandbox, of the
 * process with that number of rseq(2) or any for a negative one) has passed a full barrier; _RSEQ:
 * and none is any more in the critical section in which it was. -ENOMEM. */
enum task_barrier { TASK_BARRIER_PROCESS, TASK_BARRIER_ALL, TASK_BARRIER_RSEQ };
MUST_CHECK int task_membarrier(struct task *t, enum task_barrier kind, int cpu);
/* Calls fn for every thread-group leader of a process group (pgid) or user (uid), PRIO_*. Returns
 * how many matched. fn runs with the tree lock held and must not block. */
typedef void (*task_each_fn)(void *arg, struct task *o);
size_t task_each_in_pgrp(struct task *t, int32_t pgid, task_each_fn fn, void *arg);
size_t task_each_of_user(struct task *t, uint32_t uid, task_each_fn fn, void *arg);

#endif
