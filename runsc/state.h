/*
 * What: what is remembered of a container between commands: STATE_DIR/<id>/state.json.
 * Depends on: runsc/err.h, jansson.
 * Threading: commands of different processes meet here; a container's directory is made by exactly
 * one of them, and its file is replaced in one step.
 * Ownership: a struct state owns its texts and descriptor; state_fini releases them.
 */
#ifndef RINGWALL_RUNSC_STATE_H
#define RINGWALL_RUNSC_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "runsc/err.h"

struct json_t;

#define STATE_CGROUPS_MAX 16

/* A host process that may be gone and whose number may be another's: told by its start time. */
struct state_process {
    pid_t pid; /* 0: none */
    uint64_t start_ticks;
};

struct state {
    int root_fd, dir_fd; /* the state root and the container's directory in it; -1: not open */
    char *id, *bundle, *rootfs, *created, *platform, *oci_version;
    char *sandbox; /* id of the container whose sandbox this one has joined; NULL: it has its own */
    /* sentry: the process that stands for the container, the keeper of one that joined. */
    struct state_process sentry, gofer;
    char *cgroups[STATE_CGROUPS_MAX]; /* absolute directories that delete removes */
    size_t cgroup_count;
    struct json_t *annotations, *hooks, *process; /* objects as in config.json, or NULL */
};

/* 1 to 128 bytes out of [A-Za-z0-9_+.-], not "." nor "..". */
MUST_CHECK int state_check_id(const char *id, struct err *e);
/* Makes the state root when needed, then the container's directory; EEXIST when the id is taken.
 * Fills id and the descriptors of *st. */
MUST_CHECK int state_create(const char *root, const char *id, struct state *st, struct err *e);
/* Writes state.json (a temporary file, then rename). */
MUST_CHECK int state_save(const struct state *st, struct err *e);
/* ENOENT: "container does not exist". */
MUST_CHECK int state_load(const char *root, const char *id, struct state *st, struct err *e);
/* Removes the directory and all that is in it. Does nothing when it is gone already. */
void state_remove(struct state *st);
/* Removes the directory of a container whose making was cut short before anything was written down.
 * One that has a state stays. */
void state_remove_incomplete(const char *root, const char *id);
void state_fini(struct state *st);

/* Fills start_ticks from /proc. */
void state_process_note(struct state_process *p, pid_t pid);
/* Running or not yet waited for and not a zombie. */
bool state_process_alive(const struct state_process *p);
/* A pidfd, or -1 when it is not running. */
int state_process_open(const struct state_process *p);

/* ---- programs started by exec ---- */

struct state_exec {
    struct state_process process; /* of the host; stays while the program runs */
    int32_t guest_pid;
};

MUST_CHECK int state_exec_add(const struct state *st, pid_t pid, int32_t guest_pid, struct err *e);
void state_exec_remove(const struct state *st, pid_t pid);
/* Those that run, at most max. */
size_t state_execs(const struct state *st, struct state_exec *out, size_t max);
/* Forgets them all: the container is being removed. */
void state_execs_clear(const struct state *st);

/* Names of the containers under root, sorted; an absent root is an empty list. *out_ids and each
 * of its texts are the caller's. */
MUST_CHECK int state_list(const char *root, char ***out_ids, size_t *out_count, struct err *e);

#endif
