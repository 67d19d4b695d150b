/* wait: until a container, or one process in it, has ended. debug: what a sandbox is doing. */
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runsc/cmd.h"
#include "runsc/container.h"
#include "runsc/control.h"

static int wait_number(void *arg, const char *value, struct err *e)
{
    char *end;
    long v = strtol(value, &end, 10);

    if (*value == '\0' || *end != '\0' || v < 1 || v > INT32_MAX)
        return err_set(e, EINVAL, "wait: --pid wants a process of the container, not \"%.40s\"",
                       value);
    *(int *)arg = (int)v;
    return 0;
}

static int wait_for(const struct state *st, int pid, struct err *e)
{
    json_t *req = container_op(st, "wait"), *reply = NULL;
    int fd = -1, rc;

    if (pid > 0)
        (void)json_object_set_new(req, "pid", json_integer(pid));
    if (container_connect(st, &fd, e) != 0) {
        json_decref(req);
        return err_set(e, ESRCH, "container not running");
    }
    rc = control_call(fd, req, -1, &reply, e);
    (void)close(fd);
    if (rc != 0)
        return rc;
    printf("{\"id\":\"%s\",\"exitStatus\":%lld}\n", st->id,
           json_integer_value(json_object_get(reply, "exit")));
    json_decref(reply);
    return 0;
}

int cmd_wait(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    int pid = 0;
    const struct cmd_opt opts[] = {{"pid", 0, NULL, NULL, wait_number, &pid}};
    struct state st;
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);

    if (first < 0 || cmd_operands(argc, argv, first, 1, 1, e) != 0 ||
        state_load(g->root, argv[first], &st, e) != 0)
        return -1;
    int rc = wait_for(&st, pid, e);
    state_fini(&st);
    return rc;
}

/* ---- debug ---- */

struct debug_opts {
    bool stacks;
    const char *log_level, *strace;
};

static json_t *debug_request(const struct state *st, const struct debug_opts *o, struct err *e)
{
    static const char *const levels[] = {"error", "warning", "info", "debug"};
    json_t *req = container_op(st, "debug");

    if (o->log_level != NULL) {
        for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
            if (strcmp(levels[i], o->log_level) == 0)
                (void)json_object_set_new(req, "level", json_integer((json_int_t)i));
        if (json_object_get(req, "level") == NULL) {
            (void)err_set(e, EINVAL, "debug: --log-level is error, warning, info or debug");
            json_decref(req);
            return NULL;
        }
    }
    if (o->strace != NULL) {
        bool on = strcmp(o->strace, "on") == 0;
        if (!on && strcmp(o->strace, "off") != 0) {
            (void)err_set(e, EINVAL, "debug: --strace is on or off");
            json_decref(req);
            return NULL;
        }
        (void)json_object_set_new(req, "strace", json_boolean(on));
    }
    return req;
}

/* First line of a file of a thread of the sentry, "-" without one. */
static void debug_line(pid_t pid, const char *tid, const char *file, char *out, size_t size)
{
    char path[96];

    (void)snprintf(path, sizeof(path), "/proc/%d/task/%s/%s", (int)pid, tid, file);
    FILE *f = fopen(path, "re");
    if (f == NULL || fgets(out, (int)size, f) == NULL)
        (void)snprintf(out, size, "-");
    if (f != NULL)
        (void)fclose(f);
    out[strcspn(out, "\n")] = '\0';
}

/* Told by the host, so that a sandbox that hangs can be looked at too: one line a thread, with its
 * name, the host call it is in (number and arguments), and where the host sleeps for it. */
static void debug_print_stacks(pid_t pid)
{
    char path[64], comm[64], call[160], where[96];

    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    for (struct dirent *d; dir != NULL && (d = readdir(dir)) != NULL;) {
        if (d->d_name[0] == '.')
            continue;
        debug_line(pid, d->d_name, "comm", comm, sizeof(comm));
        debug_line(pid, d->d_name, "syscall", call, sizeof(call));
        debug_line(pid, d->d_name, "wchan", where, sizeof(where));
        printf("%-8s %-16s %-28s %s\n", d->d_name, comm, where, call);
    }
    if (dir != NULL)
        (void)closedir(dir);
}

static int debug_of(const struct state *st, const struct debug_opts *o, struct err *e)
{
    if (!state_process_alive(&st->sentry))
        return err_set(e, ESRCH, "container not running");
    if (o->stacks)
        debug_print_stacks(st->sentry.pid);
    if (o->log_level == NULL && o->strace == NULL)
        return 0;
    json_t *req = debug_request(st, o, e);
    return req == NULL ? -1 : container_request(st, req, NULL, e);
}

int cmd_debug(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct debug_opts o = {0};
    const struct cmd_opt opts[] = {{"stacks", 0, &o.stacks, NULL, NULL, NULL},
                                   {"log-level", 0, NULL, &o.log_level, NULL, NULL},
                                   {"strace", 0, NULL, &o.strace, NULL, NULL}};
    struct state st;
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);

    if (first < 0 || cmd_operands(argc, argv, first, 1, 1, e) != 0 ||
        state_load(g->root, argv[first], &st, e) != 0)
        return -1;
    int rc = debug_of(&st, &o, e);
    state_fini(&st);
    return rc;
}
