/* Inside boot: what the parts of the sentry's first thread share.
 * Depends on: boot.h, kernel, vfs.
 * Threading: the boot thread; boot_exit is the one object other threads touch.
 * Ownership: one struct boot, on boot_main's stack, for the life of the process. */
#ifndef RINGWALL_RUNSC_BOOT_BOOT_PRIV_H
#define RINGWALL_RUNSC_BOOT_BOOT_PRIV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>

#include "base/list.h"
#include "base/lock.h"
#include "runsc/boot/boot.h"
#include "sentry/kernel/cgroup.h"
#include "sentry/kernel/task.h"

struct gof_client;
struct net;
struct memfile;
struct json_t;

struct account;
struct boot_tty;
struct pid_ns;
struct user_ns;

/* A process that somebody outside started: init or an exec. */
struct boot_process {
    struct boot *boot;
    struct boot_container *container;
    int32_t pid;
    struct boot_tty *tty; /* its terminal, or NULL */
    bool abandoned;       /* boot thread: whoever started it is gone; freed when it has ended */
    struct list node;     /* boot thread: boot.execs */
    bool ended;           /* guard: boot's mu */
    int exit_code;        /* guard: boot's mu; 0..255, 128+n for a signal */
};

/* A share of CPU time: so much in each period. */
struct boot_cpu {
    uint64_t quota_ns, period_ns; /* quota 0: no limit */
    uint64_t from_ns;             /* when the period began */
    uint64_t spent_ns;            /* of the account's CPU time, what is paid for */
    uint64_t held_from_ns;
    uint64_t periods, throttled_periods, throttled_ns;
};

/* The sandbox's own container, or one of a pod that joined it. Boot thread, but for init's end. */
struct boot_container {
    struct list node; /* boot.containers */
    char *id;         /* owned */
    const struct oci_spec *spec;
    struct oci_spec *joined_spec; /* spec when it joined, owned; else NULL */
    struct guest_seccomp seccomp; /* laid over its programs; owned when it joined */
    struct gof_client *gofer;     /* a reference */
    struct mount_ns *ns;          /* a reference */
    struct account *account;      /* a reference: its processes, whatever they unshare */
    struct pid_ns *pid_ns;        /* a reference; NULL: the sandbox's own */
    struct user_ns *user_ns;      /* a reference; NULL: the sandbox's own */
    struct cred *root;            /* a reference: who is root in user_ns, with every capability */
    struct cgroup_ns *cgroups;    /* a reference */
    struct cgroup_limits cgroup_limits;
    struct boot_process init;
    struct boot_cpu cpu;
    _Atomic uint64_t oomed; /* its processes that ended for want of memory */
    bool started;
    bool gofer_dead;
};

/* A pod has a handful; what is asked for comes from the host's managers, and is bounded still. */
#define BOOT_CONTAINERS_MAX 64

struct boot {
    const struct boot_args *args;
    int stdio[3];
    int log_fd;
    int oom_fd; /* our oom_score_adj on the host, or -1; closed when the platform has started */
    struct plat *plat;
    struct memfile *mf;
    struct net *net;
    struct kernel *k;
    struct boot_container root;          /* with it the sandbox ends */
    struct list containers;              /* boot_container.node, root first */
    struct list execs;                   /* boot_process.node */
    struct list forwards;                /* boot_forward.node; boot thread */
    int loopback_fd;                     /* a listening socket of the host, or -1; boot thread */
    struct list resolvers;               /* boot_resolver.node; boot thread */
    int loopback_link;                   /* what brings connections there, or -1 */
    struct rlimit rlimits[RLIM_NLIMITS]; /* of the caller: what a guest gets that names none */
    int wake[2];                         /* written when a process has ended */
    struct mutex mu;                     /* rank CONTROL: exit states */
};

/* One line for the user about what failed. */
struct boot_text {
    char text[512];
};
/* Sets the line, the reason of code at its end; returns code. */
int boot_say(struct boot_text *t, int code, const char *fmt, ...) PRINTF_FMT(3, 4);

/* Reports a failure to the launcher and ends the process. */
NORETURN void boot_fail(const struct boot *b, int code, const char *fmt, ...) PRINTF_FMT(3, 4);
/* As boot_fail, with what was said already. */
NORETURN void boot_fail_said(const struct boot *b, int code, const struct boot_text *t);
/* Of a memory limit of the host, what the guest may use: the rest is for the sentry and the stubs.
 */
uint64_t boot_memory_for_guest(uint64_t limit);
/* Mounts everything of the container's spec, and sets its ns. Negative errno and a line in t. */
MUST_CHECK int boot_mounts(struct boot *b, struct boot_container *ct, struct boot_text *t);
/* Loads process p of the container (init, or an exec) with the host descriptors stdio, which are
 * taken, on failure too. path: the program, NULL: args[0], looked for in PATH. Negative errno and a
 * line in t. */
MUST_CHECK int boot_load(struct boot *b, struct boot_container *ct, const struct oci_process *p,
                         const char *path, const int stdio[3], struct boot_process *out,
                         struct boot_text *t);
/* The boot thread looks again at what has ended or happened. Any thread. */
void boot_wake(const struct boot *b);
/* Drops what boot_load kept. The process has ended. */
void boot_process_fini(struct boot_process *p);
/* Serves the control socket till the container ends; the result is its exit code. */
int boot_serve(struct boot *b);

/* ---- boot_end.c ---- */
/* Gives back all that the sandbox has, whose init has ended, and aborts when objects are left that
 * are counted (base/objcount.h). */
void boot_check_end(struct boot *b);

/* ---- boot_space.c ---- */
/* Account and namespaces of a container, before its mounts. pid_like: the container whose pid
 * namespace it shares, NULL: its configuration says. Negative errno and a line in t. */
MUST_CHECK int boot_space(struct boot *b, struct boot_container *ct,
                          const struct boot_container *pid_like, struct boot_text *t);
void boot_space_fini(struct boot_container *ct);
/* Numbers of the container's pid namespace as the sandbox's, and the other way round; 0: none. */
int32_t boot_pid_in(const struct boot_container *ct, int32_t pid);
int32_t boot_pid_out(const struct boot_container *ct, int32_t pid);

/* ---- boot_copyup.c ---- */
/* Copies all that is in directory from into the empty directory to. */
MUST_CHECK int boot_copyup(const struct vfs_caller *c, const struct vpath *from,
                           const struct vpath *to);

/* ---- boot_limits.c ---- */
/* Limits that the sandbox itself sees to; those that r does not give stay. */
void boot_limit(struct boot_container *ct, const struct oci_resources *r);
/* Holds back who has used up its CPU time. Milliseconds till it is to be called again, -1: never.
 */
int boot_limits_look(struct boot *b);
/* All its processes stop, or go on. */
void boot_pause(struct boot_container *ct, bool pause);
bool boot_paused(const struct boot_container *ct);
/* kernel_config.host_oom_kills, from the cgroup of the first container; arg: the boot. */
uint64_t boot_host_oom_kills(void *arg);
/* What the account counts: "pids", "cpu", "oomKills". Owned. */
struct json_t *boot_usage(struct boot_container *ct);

/* ---- boot_container.c ---- */
/* A container of a pod: its files by the sockets of its own gofer, its init loaded with stdio.
 * Takes spec, what seccomp holds and the descriptors, on failure too. */
struct boot_joiner {
    const char *id, *pid_like; /* pid_like: whose pid namespace it shares, or NULL */
    struct oci_spec *spec;
    struct guest_seccomp seccomp;
    const int *stdio; /* three */
    const int *gofer_fds;
    size_t gofer_count;
};
MUST_CHECK int boot_join(struct boot *b, const struct boot_joiner *j,
                         struct boot_container **out_ct, struct boot_text *t);
/* By its id; NULL: the sandbox's own. NULL when there is none of that name. */
struct boot_container *boot_find(struct boot *b, const char *id);
/* Whether the process is one of the container's. */
bool boot_owns(struct boot_container *ct, struct task *task);
/* A signal to all its processes. -ESRCH: there is none. */
MUST_CHECK int boot_kill_all(struct boot_container *ct, int sig);
/* SIGKILL to all of them, if any. */
void boot_kill(struct boot_container *ct);
/* Forgets one that joined and has ended. */
void boot_leave(struct boot_container *ct);

/* ---- boot_cgroup.c ---- */
/* Makes the container's control group, without limits. */
MUST_CHECK int boot_cgroup(struct boot *b, struct boot_container *ct, struct boot_text *t);
/* Takes the limits that r gives. */
void boot_cgroup_limit(struct boot_container *ct, const struct oci_resources *r);
/* Its processes have ended. */
void boot_cgroup_end(struct boot_container *ct);

/* ---- boot_sysctl.c ---- */
/* Sets linux.sysctl of the container. One that is not known fails, but for tunables of the network
 * that our stack does not have. */
MUST_CHECK int boot_sysctls(struct boot *b, struct boot_container *ct, struct boot_text *t);

/* ---- boot_inspect.c ---- */
/* Control operations that need no connection's state: ps, events, limits, debug. *out_reply is
 * owned. -ENOSYS: not one of them. */
MUST_CHECK int boot_inspect(struct boot_container *ct, const char *op, const struct json_t *req,
                            struct json_t **out_reply);

/* ---- boot_network.c ---- */
struct json_t;
/* The control request `network`: takes the descriptors, on failure too. */
MUST_CHECK int boot_network(struct boot *b, const struct json_t *req, const int *fds, size_t count);

/* ---- boot_forward.c ---- */
/* The control request `forward`: takes the descriptors, on failure too. -ECONNREFUSED: nobody
 * listens there. */
MUST_CHECK int boot_forward(struct boot *b, const struct json_t *req, const int *fds, size_t count);
/* The control request `loopback`: takes the descriptors, on failure too. */
MUST_CHECK int boot_loopback(struct boot *b, const int *fds, size_t count);
/* A connection waits at loopback_fd. */
void boot_loopback_accept(struct boot *b);
/* Whom the boot thread's helpers are when they use sockets and files: root of the sandbox. blk is
 * what the caller sleeps on. */
MUST_CHECK int boot_caller(struct boot *b, struct vfs_caller *c, struct blocker *blk);
/* Of one that was zeroed, or filled in. */
void boot_caller_end(struct vfs_caller *c);
/* Takes apart what has ended. */
void boot_sweep_forwards(struct boot *b);
/* Ends all of them. */
void boot_end_forwards(struct boot *b);

/* ---- boot_resolver.c ---- */
#define BOOT_RESOLVERS_MAX 3 /* MAXNS of resolv.conf */
/* The control request `resolver`: takes the descriptors, on failure too. */
MUST_CHECK int boot_resolver(struct boot *b, const struct json_t *req, const int *fds,
                             size_t count);
/* Ends all of them. */
void boot_end_resolvers(struct boot *b);

/* ---- boot_tty.c ---- */
/* A guest terminal (a pty of the container's devpts) whose other side is the host terminal fd,
 * which is set raw and taken. *out_file is the guest's side, owned. */
MUST_CHECK int boot_tty_new(struct boot *b, struct boot_container *ct, int fd, uint32_t uid,
                            struct boot_tty **out_tty, struct file **out_file);
MUST_CHECK int boot_tty_resize(struct boot_tty *t, uint16_t rows, uint16_t cols);
/* Passes on what the guest still wrote, then ends. Takes t; NULL is allowed. */
void boot_tty_free(struct boot_tty *t);

#endif
