/* containerd's shim for runsc: one process per pod that starts containers, hears of their ends and
 * tells containerd.
 * Depends on: shim/pb.h, shim/ttrpc.h.
 * Threading: a thread reads each connection, one answers each request; `mu` guards what is said.
 * Nobody holds it while waiting for a child, but by shim_wait_child, which lets go of it.
 * Ownership: struct shim lives as long as the process and owns all containers and processes. Who
 * lets go of mu and goes on with a container is one of its users: its memory waits for them. */
#ifndef RINGWALL_RUNSC_SHIM_SHIM_H
#define RINGWALL_RUNSC_SHIM_SHIM_H

#include <pthread.h>
#include <sys/inotify.h>
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
    bool starting;  /* an exec that is being started, without mu */
    bool draining;  /* its output is still being passed on, or waits to be read */
    bool ending;    /* it has ended, with exit_status, and only that output is waited for */
    bool announced; /* TaskStart was sent: TaskExit may follow */
    bool told;      /* TaskExit was sent */
    int exit_status;
    struct timespec exited_at;
};

/* All guarded by mu, but id and bundle, which are immutable. */
struct shim_container {
    struct list node;
    char *id, *bundle;
    bool mounted, paused;
    bool gone;         /* from the list */
    int watch;         /* of its bundle: inotify(7)'s number, or -1 */
    unsigned users;    /* who go on with it without mu */
    struct list procs; /* init first */
};

struct shim_exit {
    pid_t pid; /* 0: free */
    int status;
    struct timespec at;
    uint64_t mono_ns; /* the same by the monotonic clock */
};

#define SHIM_EXITS_MAX 512
/* What inotify(7) tells of a bundle that goes away. */
#define SHIM_BUNDLE_GONE (IN_MOVE_SELF | IN_DELETE_SELF | IN_ONLYDIR)

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
    int watch_fd;       /* inotify(7): the bundles; immutable */
    int watch;          /* of the bundle that the shim was started for, or -1; immutable */
    unsigned requests;  /* being answered */
    unsigned served;    /* requests so far */
    bool used;          /* it had a container */
    bool unwanted;      /* the bundle that it was started for is gone */
};

/* ---- children: shim_run.c ---- */
/* A thread that nobody joins, with a small stack. 0, or a negative errno: arg is still the
 * caller's. */
MUST_CHECK int shim_thread(void *(*fn)(void *), void *arg);
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
 * owned. 0, or -1 with the reason in error (size bytes). bundle: for the log, or NULL. mu is not
 * held.
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
/*
 * Of a process that has ended: whether its output is still to be read. Then shim_proc_drained comes
 * when that has been done, or after a while: a client that hears of the end gives up on a FIFO
 * that it has not got to reading. mu held.
 */
bool proc_io_settle(struct shim *s, struct shim_proc *p);
/* Standard input has ended. */
void proc_io_close_input(struct proc_io *io);
/* The process has ended: lets go of its streams. */
void proc_io_end(struct proc_io *io);
void proc_io_free(struct proc_io *io);

/* ---- events: shim_events.c ---- */
/* Takes the event's bytes. topic "/tasks/exit", type "containerd.events.TaskExit". */
void shim_publish(struct shim *s, const char *topic, const char *type, struct pb_out *event);
void shim_publish_exit(struct shim *s, const struct shim_proc *p);
void shim_publish_delete(struct shim *s, const struct shim_proc *p);
void shim_put_time(struct pb_out *o, unsigned field, const struct timespec *t);

/* ---- containers and processes: shim_task.c; mu held ---- */
struct shim_container *shim_find(struct shim *s, const char *id);
/* exec_id "": init. */
struct shim_proc *shim_find_proc(struct shim_container *c, const char *exec_id);
struct shim_proc *shim_proc_new(struct shim_container *c, const char *exec_id);
void shim_proc_free(struct shim_proc *p);
/* The caller is its first user. */
struct shim_container *shim_container_new(struct shim *s, const char *id, const char *bundle);
void shim_container_let_go(struct shim *s, struct shim_container *c);
/* Takes it off the list at once, waits for its other users and frees it. The caller is one. */
void shim_container_remove(struct shim *s, struct shim_container *c);
/* A child has ended that is one of ours: false when it is not (yet). */
bool shim_proc_exited(struct shim *s, const struct shim_exit *x);
/* All its output has been passed on. mu is not held. */
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

/* ---- ends of which nobody asks: shim_end.c ---- */
/*
 * `runsc delete --force`, and waits for the end of the container's init. The caller is a user of
 * the container. A status code: TTRPC_NOT_FOUND when somebody else has removed it meanwhile. On
 * failure a line in error (size bytes). has_bundle: its log may be written there. mu held, and let
 * go of meanwhile.
 */
MUST_CHECK int shim_end_container(struct shim *s, struct shim_container *c, bool has_bundle,
                                  char *error, size_t size);
/* The same for one that the runtime has made and the shim cannot use. mu is not held. */
void shim_delete_made(struct shim *s, const struct shim_container *c);
/* What is left to do after that: TaskDelete, its mounts, its memory. mu held, and let go of. */
void shim_forget_container(struct shim *s, struct shim_container *c);
/* Unmounts what was mounted for it. mu held. */
void shim_unmount_root(struct shim_container *c);
/* Watches the bundle: one that is gone means that nobody will ask for the container. mu held. */
void shim_watch_bundle(const struct shim *s, struct shim_container *c);
/* Starts the threads that end what nobody asks for. */
MUST_CHECK int shim_end_start(struct shim *s);
/* Ends the process. mu held. */
NORETURN void shim_exit(const struct shim *s);

/* ---- serving: shim_serve.c ---- */
/* Accepts connections for ever. */
NORETURN void shim_serve(struct shim *s, int listener);

#endif
