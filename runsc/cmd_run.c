/* run and create: from a bundle to a container. */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>

#include "runsc/cmd.h"
#include "runsc/console.h"
#include "runsc/container.h"
#include "runsc/watcher.h"

struct run_opts {
    const char *bundle, *pid_file, *console_socket;
    bool detach;
};

/* Options of runc that mean nothing for a sandbox are taken where clients give them. */
static int run_parse(int argc, char **argv, struct run_opts *o, const char **out_id, struct err *e)
{
    bool no_pivot = false, no_new_keyring = false;
    const struct cmd_opt opts[] = {
        {"bundle", 'b', NULL, &o->bundle, NULL, NULL},
        {"pid-file", 0, NULL, &o->pid_file, NULL, NULL},
        {"console-socket", 0, NULL, &o->console_socket, NULL, NULL},
        {"detach", 'd', &o->detach, NULL, NULL, NULL},
        {"no-pivot", 0, &no_pivot, NULL, NULL, NULL},
        {"no-new-keyring", 0, &no_new_keyring, NULL, NULL, NULL},
    };
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);

    if (first < 0 || cmd_operands(argc, argv, first, 1, 1, e) != 0)
        return -1;
    *out_id = argv[first];
    return 0;
}

int cmd_create(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct run_opts o = {0};
    struct container_args a = {0};
    struct container c;

    if (run_parse(argc, argv, &o, &a.id, e) != 0)
        return -1;
    a.bundle = o.bundle;
    a.pid_file = o.pid_file;
    a.console_socket = o.console_socket;
    if (container_create(g, &a, &c, e) != 0)
        return -1;
    container_fini(&c);
    return 0;
}

/* ---- attached ---- */

static void run_forward(void *arg, int sig)
{
    struct container *c = arg;
    struct err e;

    /* ESRCH and the like: the container is on its way out. */
    if (container_kill(&c->st, sig, false, &e) != 0)
        return;
}

static void run_resized(void *arg, int rows, int cols)
{
    struct container *c = arg;
    json_t *req = container_op(&c->st, "resize");
    struct err e;

    (void)json_object_set_new(req, "rows", json_integer(rows));
    (void)json_object_set_new(req, "cols", json_integer(cols));
    if (container_request(&c->st, req, NULL, &e) != 0)
        return;
}

int run_attached(struct container *c, struct err *e)
{
    const struct console_child child = {
        .pid = c->sandbox.sentry_pid,
        .forward = run_forward,
        .resized = run_resized,
        .arg = c,
    };
    int code = -1;

    console_hold_signals();
    if (container_start(&c->st, e) == 0) {
        console_proxy(&child, c->console_master, -1);
        code = container_wait(c);
    }
    container_destroy(&c->st);
    watcher_dismiss(&c->watch_fd);
    container_fini(c);
    return code;
}

int cmd_run(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct run_opts o = {0};
    struct container_args a = {0};
    struct container c;
    int rc;

    if (run_parse(argc, argv, &o, &a.id, e) != 0)
        return -1;
    a.bundle = o.bundle;
    a.pid_file = o.pid_file;
    a.console_socket = o.console_socket;
    a.attached = !o.detach;
    if (container_create(g, &a, &c, e) != 0)
        return -1;
    if (a.attached)
        return run_attached(&c, e);
    rc = container_start(&c.st, e);
    if (rc != 0)
        container_destroy(&c.st);
    container_fini(&c);
    return rc;
}
