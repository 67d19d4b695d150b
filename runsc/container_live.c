/* A container that exists: what it is doing, requests to its sandbox, signals. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "runsc/container.h"
#include "runsc/control.h"

#define CONTROL_TIMEOUT_MS 30000

struct cgroup_dirs container_cgroups(const struct state *st)
{
    return (struct cgroup_dirs){.v = st->cgroups, .count = st->cgroup_count};
}

/* ---- requests ---- */

int container_connect(const struct state *st, int *out_fd, struct err *e)
{
    if (st->sandbox == NULL)
        return control_connect(st->dir_fd, out_fd, e);
    int dir = openat(st->root_fd, st->sandbox, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (dir < 0)
        return err_errno(e, errno, "sandbox \"%s\"", st->sandbox);
    int rc = control_connect(dir, out_fd, e);
    (void)close(dir);
    return rc;
}

json_t *container_op(const struct state *st, const char *op)
{
    if (st->sandbox == NULL)
        return json_pack("{s:s}", "op", op);
    return json_pack("{s:s,s:s}", "op", op, "container", st->id);
}

int container_request(const struct state *st, json_t *req, json_t **out_reply, struct err *e)
{
    int fd = -1, rc;

    if (container_connect(st, &fd, e) != 0) {
        json_decref(req);
        return -1;
    }
    rc = control_call(fd, req, CONTROL_TIMEOUT_MS, out_reply, e);
    (void)close(fd);
    return rc;
}

/* ---- state ---- */

/* A frozen sandbox answers nothing, for none of its containers. */
static bool container_frozen(const struct state *st)
{
    struct state owner;
    struct err e;
    char root[48];

    if (cgroup_frozen(container_cgroups(st)))
        return true;
    if (st->sandbox == NULL)
        return false;
    (void)snprintf(root, sizeof(root), "/proc/self/fd/%d", st->root_fd);
    if (state_load(root, st->sandbox, &owner, &e) != 0)
        return false;
    bool frozen = cgroup_frozen(container_cgroups(&owner));
    state_fini(&owner);
    return frozen;
}

const char *container_status(struct state *st)
{
    json_t *reply = NULL;
    struct err e;
    const char *status = "running";

    if (!state_process_alive(&st->sentry))
        return "stopped";
    /* A frozen sandbox answers nothing. */
    if (container_frozen(st))
        return "paused";
    if (container_request(st, container_op(st, "state"), &reply, &e) != 0)
        return state_process_alive(&st->sentry) ? "running" : "stopped";
    const char *v = json_string_value(json_object_get(reply, "status"));
    if (v != NULL && strcmp(v, "created") == 0)
        status = "created";
    else if (v != NULL && strcmp(v, "paused") == 0)
        status = "paused";
    json_decref(reply);
    return status;
}

json_t *container_state_json(struct state *st, const char *status)
{
    bool stopped = strcmp(status, "stopped") == 0;
    json_t *doc = json_pack("{s:s,s:s,s:s,s:i,s:s,s:s,s:s}", "ociVersion", st->oci_version, "id",
                            st->id, "status", status, "pid", stopped ? 0 : (int)st->sentry.pid,
                            "bundle", st->bundle, "rootfs", st->rootfs, "created", st->created);

    if (doc != NULL && st->annotations != NULL)
        (void)json_object_set(doc, "annotations", st->annotations);
    return doc;
}

int container_pause(const struct state *st, bool pause, struct err *e)
{
    if (st->sandbox == NULL && cgroup_freezes(container_cgroups(st)))
        return cgroup_freeze(container_cgroups(st), pause, e);
    return container_request(st, container_op(st, pause ? "pause" : "resume"), NULL, e);
}

/* ---- signals ---- */

static json_t *container_signal(const struct state *st, int sig, bool all)
{
    json_t *req = container_op(st, "signal");

    (void)json_object_set_new(req, "sig", json_integer(sig));
    (void)json_object_set_new(req, "all", json_boolean(all));
    return req;
}

/* Left in the sandbox's socket, to be read when it goes on. */
static int container_post(const struct state *st, json_t *req, struct err *e)
{
    int fd = -1;
    int rc = container_connect(st, &fd, e);

    if (rc == 0) {
        rc = control_send(fd, req, NULL, 0);
        if (rc != 0)
            rc = err_errno(e, rc, "cannot send to the sandbox");
        (void)close(fd);
    }
    json_decref(req);
    return rc;
}

int container_tell(const struct state *st, json_t *req, struct err *e)
{
    return container_frozen(st) ? container_post(st, req, e) : container_request(st, req, NULL, e);
}

void container_end_joined(const struct state *st)
{
    struct err e;

    if (st->sandbox == NULL || !state_process_alive(&st->sentry))
        return;
    /* It ends with its keeper, when its sandbox goes on. */
    if (container_frozen(st))
        return;
    /* Its sandbox may have ended too. */
    if (container_request(st, container_op(st, "end"), NULL, &e) != 0)
        log_debug("%s", e.text);
}

void container_kill_frozen(const struct state *st)
{
    struct err e;

    if (!cgroup_frozen(container_cgroups(st)))
        return;
    if (state_process_alive(&st->sentry))
        (void)kill(st->sentry.pid, SIGKILL);
    if (cgroup_freeze(container_cgroups(st), false, &e) != 0)
        log_warn("%s", e.text);
}

int container_kill(struct state *st, int sig, bool all, struct err *e)
{
    /* The text is what containerd looks for. */
    if (!state_process_alive(&st->sentry))
        return all ? 0 : err_set(e, ESRCH, "container not running");
    if (container_frozen(st)) {
        if (sig != SIGKILL)
            return container_post(st, container_signal(st, sig, all), e);
        container_kill_frozen(st);
        if (st->sandbox != NULL)
            (void)kill(st->sentry.pid, SIGKILL);
        return 0;
    }
    if (container_request(st, container_signal(st, sig, all), NULL, e) == 0)
        return 0;
    /* It ended while it was asked. */
    if (e->code != EINVAL && (e->code == ESRCH || !state_process_alive(&st->sentry)))
        return all ? 0 : err_set(e, ESRCH, "container not running");
    return -1;
}
