/*
 * What: a container's life: create, start, wait, destroy; shared by the commands.
 * Depends on: runsc/{cmd,spec,state,sandbox/sandbox}.h.
 * Threading: one thread.
 * Ownership: struct container owns its spec, state and processes' records; container_fini.
 */
#ifndef RINGWALL_RUNSC_CONTAINER_H
#define RINGWALL_RUNSC_CONTAINER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "runsc/cgroup.h"
#include "runsc/cmd.h"
#include "runsc/err.h"
#include "runsc/sandbox/sandbox.h"
#include "runsc/spec.h"
#include "runsc/state.h"

struct container_args {
    const char *id;
    const char *bundle;         /* NULL: the current directory */
    struct oci_spec *spec;      /* NULL: BUNDLE/config.json; taken when given */
    const char *pid_file;       /* or NULL */
    const char *console_socket; /* or NULL */
    bool attached;              /* ends with the calling process, which waits for it */
};

struct container {
    struct state st;
    struct oci_spec *spec;
    struct sandbox sandbox;
    int console_master; /* attached with a terminal: ours; else -1 */
    int watch_fd;       /* attached: the watcher cleans up when this closes; else -1 */
    int peer_fd;        /* pidfd of the gofer of the sandbox that is joined; else -1 */
};

/* Everything up to "created". On failure nothing is left behind. */
MUST_CHECK int container_create(const struct cmd_global *g, const struct container_args *a,
                                struct container *c, struct err *e);
/* Fills c->st.sandbox and c->peer_fd when c->spec names a sandbox that the container belongs to (a
 * pod of Kubernetes). It must exist. */
MUST_CHECK int container_find_sandbox(const struct cmd_global *g, struct container *c,
                                      struct err *e);
/* *out_id: the container of the pod whose pid namespace spec names by its path, owned, or NULL. A
 * path that cannot be honoured is an error. st->sandbox is filled in. */
MUST_CHECK int container_find_pid_ns(const struct cmd_global *g, const struct oci_spec *spec,
                                     const struct state *st, char **out_id, struct err *e);
/* Starts the created init; runs the poststart hooks. */
MUST_CHECK int container_start(struct state *st, struct err *e);
/* Runs startContainer hooks in the created container, as its user, before it is started. */
MUST_CHECK int container_guest_hooks(struct state *st, const struct oci_hook_list *list,
                                     struct err *e);
/* What the state remembers of config.json: ociVersion, root, process, hooks. Owned. */
MUST_CHECK int container_spec(const struct state *st, struct oci_spec **out_spec, struct err *e);
/* Ends whatever is left of the container and removes its traces: processes, cgroups, state. */
void container_destroy(struct state *st);
/* Waits for the sentry, our child, and gives its exit code. */
int container_wait(struct container *c);
void container_fini(struct container *c);
/* Starts an attached container, passes bytes, signals and sizes until it ends, removes it, and
 * gives its exit code. Takes c. */
int run_attached(struct container *c, struct err *e);

/* A pid file, replaced in one step: a reader never sees half of it. */
MUST_CHECK int container_write_pid(const char *path, pid_t pid, struct err *e);

/* "created", "running", "paused" or "stopped". */
const char *container_status(struct state *st);
/* The OCI state object of the container (owned), for `state` and for hooks. */
struct json_t *container_state_json(struct state *st, const char *status);

struct cgroup_dirs container_cgroups(const struct state *st);
/* One request to the container's sandbox; takes req. *out_reply (NULL: not wanted) is owned. */
MUST_CHECK int container_request(const struct state *st, struct json_t *req,
                                 struct json_t **out_reply, struct err *e);
/* The same where the answer may be gone without: a frozen sandbox finds req when it goes on. */
MUST_CHECK int container_tell(const struct state *st, struct json_t *req, struct err *e);
/* A connection to the container's sandbox for several requests, each made by container_op. */
MUST_CHECK int container_connect(const struct state *st, int *out_fd, struct err *e);
/* {"op":op} for this container. Owned. */
struct json_t *container_op(const struct state *st, const char *op);
/* To init, or to every process. ESRCH: "container not running". A stopped (frozen) container gets
 * it when it goes on; SIGKILL ends it at once. */
MUST_CHECK int container_kill(struct state *st, int sig, bool all, struct err *e);
/* Stops or continues all its processes: by the host's freezer, or by the sandbox, which knows whose
 * they are, when there is none or the container is one of a pod. */
MUST_CHECK int container_pause(const struct state *st, bool pause, struct err *e);
/* Ends a container that joined a sandbox, all its processes. Else nothing. */
void container_end_joined(const struct state *st);
/* SIGKILL to a frozen container's processes, which then run to their end. Else nothing. */
void container_kill_frozen(const struct state *st);

#endif
