/* exec: another program in a running container. */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runsc/cmd.h"
#include "runsc/console.h"
#include "runsc/container.h"
#include "runsc/control.h"
#include "runsc/keeper.h"

struct exec_opts {
    const char *process_file, *cwd, *user, *pid_file, *console_socket;
    bool tty, detach, no_new_privs;
    json_t *env, *caps, *gids;
};

/* One run of exec, after the request was sent. */
struct exec_run {
    const struct state *st;
    struct keeper k; /* master only while it is ours */
    int32_t guest_pid;
};

static int exec_add(void *arg, const char *value, struct err *e)
{
    (void)e;
    (void)json_array_append_new(arg, json_string(value));
    return 0;
}

static int exec_add_gid(void *arg, const char *value, struct err *e)
{
    char *end;
    unsigned long gid = strtoul(value, &end, 10);

    if (*value == '\0' || *end != '\0' || gid >= UINT32_MAX)
        return err_set(e, EINVAL, "exec: --additional-gids wants a number, not \"%.60s\"", value);
    (void)json_array_append_new(arg, json_integer((json_int_t)gid));
    return 0;
}

static int exec_no_fds(void *arg, const char *value, struct err *e)
{
    (void)arg;
    if (strcmp(value, "0") == 0)
        return 0;
    return err_set(e, ENOTSUP, "exec: --preserve-fds: a guest is given no further descriptors");
}

static int exec_user(const char *text, json_t *process, struct err *e)
{
    unsigned uid, gid = 0;
    char end;
    int n = sscanf(text, "%u:%u%c", &uid, &gid, &end);

    if (n != 2 && !(n == 1 && strchr(text, ':') == NULL))
        return err_set(e, EINVAL, "exec: --user wants UID or UID:GID, not \"%.60s\"", text);
    (void)json_object_set_new(
        process, "user", json_pack("{s:I,s:I}", "uid", (json_int_t)uid, "gid", (json_int_t)gid));
    return 0;
}

static void exec_caps(const json_t *add, json_t *process)
{
    static const char *const sets[] = {"bounding", "effective", "permitted"};
    json_t *caps = json_object_get(process, "capabilities");

    if (json_array_size(add) == 0)
        return;
    if (caps == NULL) {
        caps = json_object();
        (void)json_object_set_new(process, "capabilities", caps);
    }
    for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
        json_t *set = json_object_get(caps, sets[i]);
        if (set == NULL) {
            set = json_array();
            (void)json_object_set_new(caps, sets[i], set);
        }
        (void)json_array_extend(set, (json_t *)(uintptr_t)add);
    }
}

/* The container's own process object with what the command line changes (as runc). */
static int exec_build(const struct state *st, const struct exec_opts *o, int argc, char **argv,
                      json_t **out, struct err *e)
{
    json_t *p;

    if (o->process_file != NULL) {
        if (spec_read_json(o->process_file, "--process", &p, e) != 0)
            return -1;
        if (o->tty)
            (void)json_object_set_new(p, "terminal", json_true());
        *out = p;
        return 0;
    }
    if (argc == 0)
        return err_set(e, EINVAL, "exec: a command or --process is needed");
    p = json_deep_copy(st->process);
    json_t *args = json_array();
    for (int i = 0; i < argc; i++)
        (void)json_array_append_new(args, json_string(argv[i]));
    (void)json_object_set_new(p, "args", args);
    (void)json_object_set_new(p, "terminal", json_boolean(o->tty));
    if (json_object_get(p, "env") == NULL)
        (void)json_object_set_new(p, "env", json_array());
    (void)json_array_extend(json_object_get(p, "env"), o->env);
    if (o->cwd != NULL)
        (void)json_object_set_new(p, "cwd", json_string(o->cwd));
    if (o->no_new_privs)
        (void)json_object_set_new(p, "noNewPrivileges", json_true());
    exec_caps(o->caps, p);
    if (o->user != NULL && exec_user(o->user, p, e) != 0) {
        json_decref(p);
        return -1;
    }
    if (json_array_size(o->gids) > 0 && json_object_get(p, "user") != NULL)
        (void)json_object_set(json_object_get(p, "user"), "additionalGids", o->gids);
    *out = p;
    return 0;
}

static int exec_terminal(const struct exec_opts *o, const struct oci_process *p, struct exec_run *r,
                         struct err *e)
{
    if (!p->terminal)
        return 0;
    if (o->detach && o->console_socket == NULL)
        return err_set(e, EINVAL, "exec: a detached terminal needs --console-socket");
    if (console_open(p->console_rows, p->console_cols, &r->k.master, &r->k.slave, e) != 0)
        return -1;
    if (o->console_socket == NULL)
        return 0;
    int rc = console_send(o->console_socket, r->k.master, e);
    (void)close(r->k.master);
    r->k.master = -1;
    return rc;
}

static int exec_request(struct exec_run *r, json_t *process, const struct exec_opts *o,
                        struct err *e)
{
    struct oci_spec *spec;
    json_t *req, *reply = NULL;
    int fds[3] = {0, 1, 2}, rc;

    if (spec_process_from_json(json_incref(process), "process", &spec, e) != 0)
        return -1;
    rc = exec_terminal(o, &spec->process, r, e);
    bool terminal = spec->process.terminal;
    spec_free(spec);
    if (rc != 0)
        return -1;
    for (int i = 0; i < 3 && terminal; i++)
        fds[i] = r->k.slave;
    req = container_op(r->st, "exec");
    (void)json_object_set(req, "process", process);
    (void)json_object_set_new(req, "terminal", json_boolean(terminal));
    rc = control_send(r->k.conn, req, fds, 3);
    json_decref(req);
    if (rc == 0)
        rc = control_recv(r->k.conn, 0, &reply, NULL, 0, NULL);
    if (rc != 0)
        return err_errno(e, rc, "exec: the sandbox does not answer");
    rc = control_check(reply, e);
    r->guest_pid = (int32_t)json_integer_value(json_object_get(reply, "pid"));
    json_decref(reply);
    return rc;
}

/* Makes the host process known that stands for the program. */
static int exec_register(const struct exec_run *r, const struct exec_opts *o, pid_t pid,
                         struct err *e)
{
    if (state_exec_add(r->st, pid, r->guest_pid, e) != 0)
        return -1;
    return o->pid_file == NULL ? 0 : container_write_pid(o->pid_file, pid, e);
}

static int exec_attached(struct exec_run *r, const struct exec_opts *o, struct err *e)
{
    /* Held open, it would keep the end of the guest's output from showing on the master. */
    if (r->k.slave >= 0)
        (void)close(r->k.slave);
    r->k.slave = -1;
    if (exec_register(r, o, getpid(), e) != 0)
        return -1;
    int code = keeper_wait(&r->k);
    state_exec_remove(r->st, getpid());
    return code;
}

/* The process that managers see and wait for: it stays while the guest's process runs, gets its
 * signals and ends with its code. */
static NORETURN void exec_keeper(struct exec_run *r)
{
    keeper_detach(&r->k, r->st->dir_fd);
    int code = keeper_wait(&r->k);
    state_exec_remove(r->st, getpid());
    _exit(code);
}

static int exec_detached(struct exec_run *r, const struct exec_opts *o, struct err *e)
{
    pid_t pid = fork();

    if (pid < 0)
        return err_errno(e, errno, "fork");
    if (pid == 0)
        exec_keeper(r);
    if (exec_register(r, o, pid, e) == 0)
        return 0;
    (void)kill(pid, SIGKILL);
    return -1;
}

static int exec_in(const struct state *st, const struct exec_opts *o, int argc, char **argv,
                   struct err *e)
{
    struct exec_run r = {.st = st, .k = {.conn = -1, .master = -1, .slave = -1}};
    json_t *process = NULL;
    int rc;

    if (!state_process_alive(&st->sentry))
        return err_set(e, EINVAL, "exec: container \"%s\" is not running", st->id);
    if (cgroup_frozen(container_cgroups(st)))
        return err_set(e, EINVAL, "exec: container \"%s\" is paused", st->id);
    if (exec_build(st, o, argc, argv, &process, e) != 0)
        return -1;
    rc = cgroup_enter(container_cgroups(st), e);
    if (rc == 0)
        rc = container_connect(st, &r.k.conn, e);
    if (rc != 0)
        goto out_process;
    console_hold_signals();
    rc = exec_request(&r, process, o, e);
    if (rc == 0 && o->detach)
        rc = exec_detached(&r, o, e);
    else if (rc == 0)
        rc = exec_attached(&r, o, e);
    (void)close(r.k.conn);
    if (r.k.slave >= 0)
        (void)close(r.k.slave);
    if (r.k.master >= 0)
        (void)close(r.k.master);

out_process:
    json_decref(process);
    return rc;
}

/* Labels of the host's security modules say nothing about a guest; options of runc that a sandbox
 * has no use for are taken where clients give them. */
static int exec_parse(int argc, char **argv, struct exec_opts *o, struct err *e)
{
    const char *ignored = NULL;
    bool ignore_paused = false;
    const struct cmd_opt opts[] = {
        {"process", 'p', NULL, &o->process_file, NULL, NULL},
        {"cwd", 0, NULL, &o->cwd, NULL, NULL},
        {"user", 'u', NULL, &o->user, NULL, NULL},
        {"pid-file", 0, NULL, &o->pid_file, NULL, NULL},
        {"console-socket", 0, NULL, &o->console_socket, NULL, NULL},
        {"tty", 't', &o->tty, NULL, NULL, NULL},
        {"detach", 'd', &o->detach, NULL, NULL, NULL},
        {"no-new-privs", 0, &o->no_new_privs, NULL, NULL, NULL},
        {"additional-gids", 'g', NULL, NULL, exec_add_gid, o->gids},
        {"apparmor", 0, NULL, &ignored, NULL, NULL},
        {"process-label", 0, NULL, &ignored, NULL, NULL},
        {"preserve-fds", 0, NULL, NULL, exec_no_fds, NULL},
        {"ignore-paused", 0, &ignore_paused, NULL, NULL, NULL},
        {"cgroup", 0, NULL, &ignored, NULL, NULL},
        {"env", 'e', NULL, NULL, exec_add, o->env},
        {"cap", 'c', NULL, NULL, exec_add, o->caps},
    };

    return cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);
}

int cmd_exec(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct exec_opts o = {.env = json_array(), .caps = json_array(), .gids = json_array()};
    struct state st;
    int first = exec_parse(argc, argv, &o, e);
    int rc = -1;

    if (first >= 0 && cmd_operands(argc, argv, first, 1, -1, e) == 0 &&
        state_load(g->root, argv[first], &st, e) == 0) {
        rc = exec_in(&st, &o, argc - first - 1, argv + first + 1, e);
        state_fini(&st);
    }
    json_decref(o.env);
    json_decref(o.caps);
    json_decref(o.gids);
    return rc;
}
