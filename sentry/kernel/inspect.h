/* Looking at tasks from outside: what /proc, ps and events show. Snapshots, never live pointers.
 * Depends on: kernel/task.h.
 * Threading: any thread; takes the kernel and group locks itself.
 * Ownership: results are values, or owned references where said. */
#ifndef RINGWALL_SENTRY_KERNEL_INSPECT_H
#define RINGWALL_SENTRY_KERNEL_INSPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/kernel/task.h"

struct pid_ns;

/* An owned reference to a thread-group leader (or to any thread when any_thread), or -ESRCH. */
MUST_CHECK int kernel_find_task(struct kernel *k, int32_t tid, bool any_thread,
                                struct task **out_task);
struct task *task_get(struct task *t);
void task_put(struct task *t);
/* First thread-group id >= from, or -ENOENT; zombies included. */
int32_t kernel_next_tgid(struct kernel *k, int32_t from);
/* First tid >= from in t's group, or -ENOENT. */
int32_t task_next_tid(struct task *t, int32_t from);
int32_t task_next_tid_in(struct task *t, const struct pid_ns *ns, int32_t from);

struct task_info {
    int32_t pid, tgid, ppid, pgrp, session, tracer;
    char state; /* R S D T t Z X */
    char comm[16];
    uint32_t tty; /* device of the controlling terminal, 0 without */
    int32_t tty_pgrp;
    int32_t threads, nice, exit_signal, exit_code;
    uint64_t utime_ns, stime_ns, cutime_ns, cstime_ns, start_ns; /* since boot of the sandbox */
    uint64_t min_flt, maj_flt;
    struct task_io io; /* of a process with its threads, and with the children it waited for */
    uint64_t sig_pending, sig_shared_pending, sig_blocked, sig_ignored, sig_caught;
    uint32_t sig_queued;
    uint64_t rlimits[16][2];
    uint32_t umask;
    bool no_new_privs;
    uint32_t seccomp_mode, seccomp_filters;
    uint64_t vol_switches, invol_switches;
    size_t fd_size;
    int32_t host_tid; /* of its thread, in the sandbox's pid namespace on the host; 0: none now */
};
void task_info(struct task *t, struct task_info *out);
/* /proc/<pid>/oom_score. */
int64_t task_oom_score(struct task *t);
/* With the numbers that pid namespace ns knows (NULL: the sandbox's), 0 for strangers. */
void task_info_in(struct task *t, const struct pid_ns *ns, struct task_info *out);

/* Owned references, or NULL when the task has none any more (zombie, exiting). */
struct mm *task_get_mm(struct task *t);
struct cred *task_get_cred(struct task *t);
struct fdtable *task_get_fdtable(struct task *t);
/* The running program; owned, -ENOENT. */
MUST_CHECK int task_get_exe(struct task *t, struct vpath *out);
/* which: 0 root, 1 cwd; owned, -ENOENT. */
MUST_CHECK int task_get_path(struct task *t, int which, struct vpath *out);
struct mount_ns *task_get_mount_ns(struct task *t);
struct ipc_ns *task_get_ipc_ns(struct task *t);

/* The sandbox's own; borrowed. */
struct ipc_ns *kernel_ipc_ns(struct kernel *k);

struct kernel_info {
    uint64_t boot_realtime_ns, uptime_ns, idle_ns;
    uint64_t mem_total, mem_free, mem_anon, mem_shmem; /* bytes */
    uint64_t commit_limit, committed;
    uint64_t user_ns, system_ns, forks, context_switches;
    uint32_t running, blocked, tasks;
    int32_t last_pid, pid_max;
    int cpus;
};
void kernel_info(struct kernel *k, struct kernel_info *out);
/* What guests may be promised; NULL without a memory file. */
struct mem_commit;
struct mem_commit *kernel_commit(struct kernel *k);
/* The limit was changed (runsc update): what /proc/meminfo and sysinfo show from now on. */
void kernel_set_memory(struct kernel *k, uint64_t bytes);
/* Load averages over 1, 5 and 15 minutes. */
#define KERNEL_LOAD_ONE 2048u
void kernel_loads(struct kernel *k, uint32_t out[3]);
/* Names as uname(2) shows them to process pid (0: to the sandbox). size >= 65. */
void kernel_uts_name(struct kernel *k, int32_t pid, bool domain, char *buf, size_t size);
/* -EPERM: cred may not. */
MUST_CHECK int kernel_set_uts_name(struct kernel *k, int32_t pid, const struct cred *cred,
                                   bool domain, const char *name, size_t len);
uint64_t kernel_oom_kills(struct kernel *k); /* processes ended for want of memory */
const char *kernel_release(void);            /* "6.x.y-ringwall" */
const char *kernel_version(void);

#endif
