/* containerd's shim for runsc: one process per pod that starts containers, hears of their ends and
 * tells containerd.
 * Depends on: shim/pb.h, shim/ttrpc.h.
 * Threading: a thread reads each connection, one answers each request; `mu` guards what is said.
 * Nobody holds it while waiting for a child, but by shim_wait, which lets go of it.
 * Ownership: struct shim lives as long as the process and owns all containers and processes. */
#ifndef RINGWALL_RUNSC_SHIM_SHIM_H
#define RINGWALL_RUNSC_SHIM_SHIM_H

#include <pthread.h>
#include <sys/types.h>
#include <time.h>

#include "base/list.h"
#include "runsc/shim/pb.h"
#include "runsc/shim/ttrpc.h"

enum proc_state { PROC_NEW, PROC_CREATED, PROC_RUNNING, PROC_STOPPED };

struct proc_io {
    char *in, *out, *err; /* FIFOs, or empty */
    bool terminal;
    int hold[3]; /* our ends of the FIFOs, so that nobody sees an end before its time; -1 */
    int master;  /* with a terminal, else -1 */
};

/* A container's init, or an exec. All guarded by mu. */
struct shim_proc {
    struct list node;
    struct shim_container *container;
    char *exec_id; /* "" for init */
    char *spec;    /* of an exec: the process object's text */
    struct proc_io io;
    pid_t pid;
    enum proc_state state;
    bool draining;  /* its terminal still has output that is being passed on */
    bool ending;    /* it has ended, with exit_status, and only that output is waited for */
    bool announced; /* TaskStart was sent: TaskExit may follow */
    bool told;      /* TaskExit was sent */
    int exit_status;
    struct timespec exited_at;
};

struct shim_container {
    struct list node;
    char *id, *bundle;
    bool mounted, paused;
    struct list procs; /* init first */
};

struct shim_exit {
    pid_t pid; /* 0: free */
    int status;
    struct timespec at;
    uint64_t mono_ns; /* the same by the monotonic clock */
};

#define SHIM_EXITS_MAX 512

struct shim {
    pthread_mutex_t mu;
    pthread_cond_t changed;                  /* something of what mu guards */
    const char *ns, *address, *runsc, *root; /* immutable */
    const char *events; /* address of containerd's events service, or NULL; immutable */
    struct list containers;
    struct shim_exit exits[SHIM_EXITS_MAX]; /* children that ended and nobody has asked for yet */
    size_t exit_next;
    int event_fd; /* connection to events, or -1; guard: event_mu */
    uint32_t event_stream;
    pthread_mutex_t event_mu;
    const char *socket; /* ours; immutable */
};

/* ---- children: shim_run.c ---- */
/* Starts the thread that reaps; SIGCHLD must be blocked in all threads. */
MUST_CHECK int shim_reaper_start(struct shim *s);
/* Waits for a child's end; mu is held and let go of meanwhile. */
struct shim_exit shim_wait_child(struct shim *s, pid_t pid, uint64_t since);
uint64_t shim_now(void);
/* Takes the exit of a process, if it has ended already; one from before `since` is that of an
 * earlier process with this number. mu held. */
bool shim_take_exit(struct shim *s, pid_t pid, uint64_t since, struct shim_exit *out);
/*
 * Runs runsc with args (NULL-terminated) and the descriptors fds for 0, 1, 2 (-1: /dev/null), to
 * its end. input: text for standard input, or NULL. *out_text (NULL: not wanted): what it printed,
 * owned. 0, or -1 with the reason in error (size bytes). mu is not held.
 */
MUST_CHECK int shim_runsc(struct shim *s, const char *bundle, const char *const *args,
                          const int fds[3], const char *input, char **out_text, char *error,
                          size_t size);

/* ---- streams: shim_io.c ---- */
void proc_io_init(struct proc_io *io);
/* Opens the FIFOs: fds are for the process, closed by the caller after it has started. */
MUST_CHECK int proc_io_open(struct proc_io *io, int fds[3]);
/* A socket for the master of a terminal at path; the master it was sent. Negative errno. */
MUST_CHECK int proc_console_listen(const char *path);
MUST_CHECK int proc_console_receive(int listener, int *out_master);
/* Carries bytes between master and FIFOs. */
MUST_CHECK int proc_io_copy(struct shim *s, struct shim_proc *p);
/* Standard input has ended. */
void proc_io_close_input(struct proc_io *io);
/* The process has ended: lets go of its streams. */
void proc_io_end(struct proc_io *io);
void proc_io_free(struct proc_io *io);

/* ---- events: shim_events.c ---- */
/* Takes the event's bytes. topic "/tasks/exit", type "containerd.events.TaskExit". */
void shim_publish(struct shim *s, const char *topic, const char *type, struct pb_out *event);
void shim_publish_exit(struct shim *s, const struct shim_proc *p);
void shim_put_time(struct pb_out *o, unsigned field, const struct timespec *t);

/* ---- containers and processes: shim_task.c; mu held ---- */
struct shim_container *shim_find(struct shim *s, const char *id);
/* exec_id "": init. */
struct shim_proc *shim_find_proc(struct shim_container *c, const char *exec_id);
struct shim_proc *shim_proc_new(struct shim_container *c, const char *exec_id);
void shim_proc_free(struct shim_proc *p);
struct shim_container *shim_container_new(struct shim *s, const char *id, const char *bundle);
void shim_container_free(struct shim_container *c);
/* A child has ended that is one of ours: false when it is not (yet). */
bool shim_proc_exited(struct shim *s, const struct shim_exit *x);
/* All output of its terminal has been passed on. mu is not held. */
void shim_proc_drained(struct shim *s, struct shim_proc *p);
/* Sends the exits that may be told now: after the start, init's after those of its execs. */
void shim_tell_exits(struct shim *s, struct shim_container *c);

/* ---- root file systems: shim_mount.c ---- */
/* One mount of the list that containerd gives, onto target. */
MUST_CHECK int shim_mount(const struct pb_field *mount, const char *target);
void shim_unmount(const char *target);

/* ---- methods: shim_methods.c ---- */
/* Answers one request: a status code; on failure a line in error (size bytes). */
int shim_method(struct shim *s, const char *method, const struct pb_field *payload,
                struct pb_out *reply, char *error, size_t size);

/* ---- shim_stats.c ---- */
/* Fills the StatsResponse. mu is not held. */
MUST_CHECK int shim_stats(struct shim *s, const char *id, const char *bundle, struct pb_out *reply,
                          char *error, size_t size);
/* Tells containerd of each process of a started container that ends for want of memory. mu held. */
void shim_watch_oom(struct shim *s, struct shim_container *c, pid_t pid);

/* ---- serving: shim_serve.c ---- */
/* Accepts connections for ever. */
NORETURN void shim_serve(struct shim *s, int listener);

#endif
