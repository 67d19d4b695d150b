#include "runsc/container.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "runsc/cgroup.h"
#include "runsc/console.h"
#include "runsc/control.h"
#include "runsc/hooks.h"
#include "runsc/network.h"
#include "runsc/watcher.h"

/* For the end of processes that were killed. */
#define CONTAINER_END_MS 10000

static int container_hooks(struct state *st, const struct oci_hook_list *list, const char *stage,
                           const char *status, struct err *e)
{
    if (list->count == 0)
        return 0;
    json_t *doc = container_state_json(st, status);
    int rc = hooks_run(list, stage, doc, e);
    json_decref(doc);
    return rc;
}

/* ---- create ---- */

static char *container_created_now(void)
{
    struct timespec ts;
    struct tm tm;
    char text[64];
    char *out = NULL;

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    (void)gmtime_r(&ts.tv_sec, &tm);
    (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    return asprintf(&out, "%s.%09ldZ", text, ts.tv_nsec) < 0 ? NULL : out;
}

static int container_rootfs(const char *bundle, const struct oci_spec *spec, char **out,
                            struct err *e)
{
    struct stat sb;
    char *path = NULL;
    int n;

    if (spec->root_path[0] == '/')
        n = asprintf(&path, "%s", spec->root_path);
    else
        n = asprintf(&path, "%s/%s", bundle, spec->root_path);
    if (n < 0)
        return err_set(e, ENOMEM, "out of memory");
    *out = realpath(path, NULL);
    int code = errno;
    if (*out == NULL) {
        (void)err_errno(e, code, "root.path %s", path);
    } else if (stat(*out, &sb) != 0 || !S_ISDIR(sb.st_mode)) {
        (void)err_set(e, ENOTDIR, "root.path %s: not a directory", path);
        free(*out);
        *out = NULL;
    }
    free(path);
    return *out == NULL ? -1 : 0;
}

/* The parts of the state that are known before there is a process. */
static int container_describe(const struct cmd_global *g, const char *bundle, struct container *c,
                              struct err *e)
{
    struct state *st = &c->st;

    st->bundle = strdup(bundle);
    st->platform = strdup(g->platform);
    st->oci_version = strdup(c->spec->oci_version);
    st->created = container_created_now();
    st->annotations = json_incref(json_object_get(c->spec->json, "annotations"));
    st->hooks = json_incref(json_object_get(c->spec->json, "hooks"));
    st->process = json_incref(json_object_get(c->spec->json, "process"));
    return container_rootfs(bundle, c->spec, &st->rootfs, e);
}

static int container_check_terminal(const struct container_args *a, const struct oci_spec *spec,
                                    struct err *e)
{
    if (!spec->process.terminal && a->console_socket != NULL)
        return err_set(e, EINVAL, "--console-socket is given but process.terminal is false");
    if (spec->process.terminal && a->console_socket == NULL && !a->attached)
        return err_set(e, EINVAL,
                       "process.terminal is true: a detached container needs --console-socket");
    return 0;
}

static int container_stdio(const struct container_args *a, struct container *c,
                           struct sandbox_args *s, struct err *e)
{
    int master, slave;

    s->console_fd = -1;
    for (int i = 0; i < 3; i++)
        s->stdio[i] = i;
    if (!c->spec->process.terminal)
        return 0;
    if (console_open(c->spec->process.console_rows, c->spec->process.console_cols, &master, &slave,
                     e) != 0)
        return -1;
    if (a->console_socket != NULL) {
        int rc = console_send(a->console_socket, master, e);
        (void)close(master);
        if (rc != 0) {
            (void)close(slave);
            return -1;
        }
    } else {
        c->console_master = master;
    }
    s->console_fd = slave;
    for (int i = 0; i < 3; i++)
        s->stdio[i] = slave;
    return 0;
}

int container_write_pid(const char *path, pid_t pid, struct err *e)
{
    char *tmp = NULL;
    int rc = 0;

    if (asprintf(&tmp, "%s.%d.tmp", path, (int)getpid()) < 0)
        return err_set(e, ENOMEM, "out of memory");
    FILE *f = fopen(tmp, "we");
    if (f == NULL || fprintf(f, "%d", (int)pid) < 0)
        rc = err_errno(e, errno, "--pid-file %s", path);
    if (f != NULL && fclose(f) != 0 && rc == 0)
        rc = err_errno(e, errno, "--pid-file %s", path);
    if (rc == 0 && rename(tmp, path) != 0)
        rc = err_errno(e, errno, "--pid-file %s", path);
    if (rc != 0)
        (void)unlink(tmp);
    free(tmp);
    return rc;
}

/* Whoever cleans up knows of the processes before they could be left over. */
static int container_made(void *arg, const struct sandbox *s, struct err *e)
{
    struct state *st = arg;

    state_process_note(&st->sentry, s->sentry_pid);
    state_process_note(&st->gofer, s->gofer_pid);
    return state_save(st, e);
}

static int container_launch(const struct cmd_global *g, const struct container_args *a,
                            struct container *c, const struct cgroup *cg, struct err *e)
{
    struct sandbox_args s = {
        .spec = c->spec,
        .id = a->id,
        .bundle = c->st.bundle,
        .rootfs = c->st.rootfs,
        .platform = g->platform,
        .patch_sites = g->patch_sites,
        .strace = g->strace,
        .overlay = strcmp(g->overlay, "none") != 0,
        .overlay_options = strchr(g->overlay, ',') != NULL ? strchr(g->overlay, ',') + 1 : "",
        .debug = g->debug,
        .attached = a->attached,
        .peer_fd = c->peer_fd,
        .host_fifo = strcmp(g->host_fifo, "open") == 0,
        .host_uds = strcmp(g->host_uds, "open") == 0,
        .host_network = strcmp(g->network, "host") == 0,
        .log_fd = g->log_fd,
        .log_json = g->log_json,
        .cgroup_fds = cg->procs,
        .cgroup_fd_count = cg->count,
        .cgroup_dir_fd = -1,
        .oom_count_fd = -1,
        .made = container_made,
        .made_arg = &c->st,
    };
    bool joins = c->st.sandbox != NULL;
    char *pid_like = NULL;
    int rc;

    if (container_find_pid_ns(g, c->spec, &c->st, &pid_like, e) != 0)
        return -1;
    s.pid_like = pid_like;
    if ((joins ? container_connect(&c->st, &s.control_fd, e)
               : control_listen(c->st.dir_fd, &s.control_fd, e)) != 0) {
        free(pid_like);
        return -1;
    }
    s.cgroup_dir_fd = cgroup_open_only(cg);
    s.oom_count_fd = cgroup_open_oom(cg);
    rc = guest_seccomp_build(c->spec->lx.seccomp, &s.seccomp, e);
    if (rc == 0)
        rc = container_stdio(a, c, &s, e);
    if (rc == 0)
        rc = joins ? sandbox_join(&s, &c->sandbox, e) : sandbox_create(&s, &c->sandbox, e);
    free(pid_like);
    /* What failed has been ended already, and was no container whose end hooks are told. */
    if (rc != 0)
        c->st.sentry.pid = c->st.gofer.pid = 0;
    (void)close(s.control_fd);
    if (s.cgroup_dir_fd >= 0)
        (void)close(s.cgroup_dir_fd);
    if (s.oom_count_fd >= 0)
        (void)close(s.oom_count_fd);
    if (s.console_fd >= 0)
        (void)close(s.console_fd);
    return rc;
}

static int container_created(const struct cmd_global *g, const struct container_args *a,
                             struct container *c, struct err *e)
{
    const struct oci_hooks *h = &c->spec->hooks;

    if (container_hooks(&c->st, &h->prestart, "prestart", "creating", e) != 0 ||
        container_hooks(&c->st, &h->create_runtime, "createRuntime", "creating", e) != 0 ||
        container_hooks(&c->st, &h->create_container, "createContainer", "creating", e) != 0)
        return -1;
    if (strcmp(g->network, "sandbox") == 0 && c->st.sandbox == NULL &&
        network_take_over(c->spec, c->sandbox.sentry_pid, c->st.dir_fd, e) != 0)
        return -1;
    if (a->pid_file != NULL)
        return container_write_pid(a->pid_file, c->sandbox.sentry_pid, e);
    return 0;
}

static int container_load_spec(const struct container_args *a, const char *bundle,
                               struct container *c, struct err *e)
{
    c->spec = a->spec;
    if (c->spec == NULL && spec_load(bundle, &c->spec, e) != 0)
        return -1;
    return container_check_terminal(a, c->spec, e);
}

static int container_build(const struct cmd_global *g, const struct container_args *a,
                           struct container *c, struct err *e)
{
    struct cgroup cg;
    int rc;

    memset(&cg, 0, sizeof(cg));
    if (!g->ignore_cgroups && cgroup_plan(c->spec, a->id, &cg, e) != 0)
        return -1;
    for (size_t i = 0; i < cg.count; i++)
        c->st.cgroups[c->st.cgroup_count++] = strdup(cg.dirs[i]);
    /* The watcher reads the state, so what there is to clean is on disk before it is needed. */
    rc = state_save(&c->st, e);
    if (rc == 0 && !g->ignore_cgroups)
        rc = cgroup_create(c->spec, &cg, e);
    if (rc == 0 && a->attached)
        rc = watcher_start(g->root, a->id, &c->watch_fd, e);
    if (rc == 0)
        rc = container_launch(g, a, c, &cg, e);
    if (rc == 0)
        rc = container_created(g, a, c, e);
    cgroup_fini(&cg);
    return rc;
}

int container_create(const struct cmd_global *g, const struct container_args *a,
                     struct container *c, struct err *e)
{
    char *bundle;

    memset(c, 0, sizeof(*c));
    c->st.root_fd = -1;
    c->st.dir_fd = -1;
    c->console_master = -1;
    c->watch_fd = -1;
    c->peer_fd = -1;
    c->spec = a->spec;
    bundle = realpath(a->bundle != NULL ? a->bundle : ".", NULL);
    if (bundle == NULL) {
        (void)err_errno(e, errno, "--bundle %s", a->bundle != NULL ? a->bundle : ".");
        goto out_fini;
    }
    if (state_check_id(a->id, e) != 0 || container_load_spec(a, bundle, c, e) != 0)
        goto out_bundle;
    if (state_create(g->root, a->id, &c->st, e) != 0)
        goto out_bundle;
    if (container_find_sandbox(g, c, e) == 0 && container_describe(g, bundle, c, e) == 0 &&
        container_build(g, a, c, e) == 0) {
        free(bundle);
        return 0;
    }
    container_destroy(&c->st);
    watcher_dismiss(&c->watch_fd);

out_bundle:
    free(bundle);
out_fini:
    container_fini(c);
    return -1;
}

int container_spec(const struct state *st, struct oci_spec **out_spec, struct err *e)
{
    json_t *doc = json_pack("{s:s,s:{s:s},s:O}", "ociVersion", st->oci_version, "root", "path",
                            st->rootfs, "process", st->process);

    if (doc != NULL && st->hooks != NULL)
        (void)json_object_set(doc, "hooks", st->hooks);
    if (doc == NULL)
        return err_set(e, EINVAL, "state of container \"%s\" is damaged", st->id);
    return spec_from_json(doc, "state.json", out_spec, e);
}

/* The specification: a startContainer or poststart hook that fails ends the container. */
static int container_failed_start(struct state *st)
{
    (void)kill(st->sentry.pid, SIGKILL);
    return -1;
}

int container_start(struct state *st, struct err *e)
{
    struct oci_spec *spec;
    int rc;

    if (!state_process_alive(&st->sentry))
        return err_set(e, EINVAL, "container \"%s\" is stopped and cannot be started", st->id);
    if (container_spec(st, &spec, e) != 0)
        return -1;
    rc = container_guest_hooks(st, &spec->hooks.start_container, e);
    if (rc != 0) {
        spec_free(spec);
        return container_failed_start(st);
    }
    rc = container_request(st, container_op(st, "start"), NULL, e);
    if (rc != 0)
        rc = err_wrap(e, "cannot start container \"%s\"", st->id);
    else if (container_hooks(st, &spec->hooks.poststart, "poststart", "running", e) != 0)
        rc = container_failed_start(st);
    spec_free(spec);
    return rc;
}

/* ---- the end ---- */

/* SIGKILL to both at once, then a wait for each: their ends take the host a while. */
static void container_end_processes(const struct state *st)
{
    const struct state_process *p[] = {&st->sentry, &st->gofer};
    int fds[ARRAY_SIZE(p)];

    for (size_t i = 0; i < ARRAY_SIZE(p); i++) {
        fds[i] = state_process_open(p[i]);
        if (fds[i] >= 0)
            (void)syscall(SYS_pidfd_send_signal, fds[i], SIGKILL, NULL, 0u);
    }
    for (size_t i = 0; i < ARRAY_SIZE(p); i++) {
        struct pollfd end = {.fd = fds[i], .events = POLLIN};
        if (fds[i] >= 0) {
            (void)poll(&end, 1, CONTAINER_END_MS);
            (void)close(fds[i]);
        }
        /* Ours, or somebody else's to reap. */
        if (p[i]->pid > 0)
            (void)waitpid(p[i]->pid, NULL, WNOHANG);
    }
}

/* The specification asks for a warning at most: the container is gone whatever a hook says. */
static void container_poststop(struct state *st)
{
    struct err e;
    struct oci_spec *spec = NULL;

    if (st->hooks == NULL)
        return;
    if (container_spec(st, &spec, &e) != 0) {
        log_warn("%s", e.text);
        return;
    }
    for (size_t i = 0; i < spec->hooks.poststop.count; i++) {
        const struct oci_hook_list one = {.v = &spec->hooks.poststop.v[i], .count = 1};
        if (container_hooks(st, &one, "poststop", "stopped", &e) != 0)
            log_warn("%s", e.text);
    }
    spec_free(spec);
}

void container_destroy(struct state *st)
{
    container_kill_frozen(st);
    container_end_joined(st);
    container_end_processes(st);
    for (size_t i = 0; i < st->cgroup_count; i++)
        cgroup_remove(st->cgroups[i]);
    if (st->sentry.pid > 0)
        container_poststop(st);
    state_remove(st);
}

int container_wait(struct container *c)
{
    int status = 0;

    while (waitpid(c->sandbox.sentry_pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status))
        return 128 + WTERMSIG(status);
    return WEXITSTATUS(status);
}

void container_fini(struct container *c)
{
    if (c->console_master >= 0)
        (void)close(c->console_master);
    if (c->peer_fd >= 0)
        (void)close(c->peer_fd);
    watcher_dismiss(&c->watch_fd);
    state_fini(&c->st);
    spec_free(c->spec);
    c->spec = NULL;
}
