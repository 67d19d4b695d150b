/* ps: the host's view of a container as JSON, the guest's as a table. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "runsc/cmd.h"
#include "runsc/container.h"

/* More than a sandbox serves at a time. */
#define PS_EXECS_MAX 120

/* The processes of the host that stand for the container and for what was started in it. */
static void ps_print_json(const struct state *st, const struct state_exec *execs, size_t count)
{
    json_t *pids = json_array();

    (void)json_array_append_new(pids, json_integer(st->sentry.pid));
    for (size_t i = 0; i < count; i++)
        (void)json_array_append_new(pids, json_integer(execs[i].process.pid));
    (void)json_dumpf(pids, stdout, JSON_COMPACT);
    (void)putchar('\n');
    json_decref(pids);
}

static pid_t ps_host_pid(const struct state *st, json_int_t init, json_int_t pid,
                         const struct state_exec *execs, size_t count)
{
    if (pid == init)
        return st->sentry.pid;
    for (size_t i = 0; i < count; i++)
        if (execs[i].guest_pid == pid)
            return execs[i].process.pid;
    return 0;
}

static json_int_t ps_number(const json_t *row, const char *key)
{
    return json_integer_value(json_object_get(row, key));
}

static void ps_print_table(const struct state *st, const json_t *reply,
                           const struct state_exec *execs, size_t count)
{
    json_int_t init = ps_number(reply, "init_pid");
    size_t i;
    json_t *p;

    printf("%-8s %-8s %-8s %-8s %-8s %-10s %s\n", "UID", "PID", "PPID", "HOSTPID", "THREADS",
           "TIME", "CMD");
    json_array_foreach(json_object_get(reply, "processes"), i, p)
    {
        json_int_t ms = ps_number(p, "time"), pid = ps_number(p, "pid");
        const char *cmd = json_string_value(json_object_get(p, "cmd"));
        pid_t host = ps_host_pid(st, init, pid, execs, count);
        char text[24] = "-", name[64];
        if (host != 0)
            (void)snprintf(text, sizeof(text), "%d", (int)host);
        printf("%-8lld %-8lld %-8lld %-8s %-8lld %lld.%03lld%-5s %s\n", ps_number(p, "uid"), pid,
               ps_number(p, "ppid"), text, ps_number(p, "threads"), ms / 1000, ms % 1000, "",
               cmd_printable(cmd, name, sizeof(name)));
    }
}

static int ps_of(struct state *st, bool as_json, struct err *e)
{
    struct state_exec execs[PS_EXECS_MAX];
    json_t *reply = NULL;

    if (!state_process_alive(&st->sentry))
        return err_set(e, ESRCH, "container not running");
    size_t count = state_execs(st, execs, ARRAY_SIZE(execs));
    if (as_json) {
        ps_print_json(st, execs, count);
        return 0;
    }
    if (cgroup_frozen(container_cgroups(st)))
        return err_set(e, EINVAL, "ps: container \"%s\" is paused", st->id);
    if (container_request(st, container_op(st, "ps"), &reply, e) != 0)
        return -1;
    ps_print_table(st, reply, execs, count);
    json_decref(reply);
    return 0;
}

int cmd_ps(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct state st;
    const char *format = "table";
    const struct cmd_opt opts[] = {{"format", 'f', NULL, &format, NULL, NULL}};
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);

    /* docker and podman hand over options for ps(1) behind the id; the table is what it is. */
    if (first < 0 || cmd_operands(argc, argv, first, 1, -1, e) != 0)
        return -1;
    if (strcmp(format, "table") != 0 && strcmp(format, "json") != 0)
        return err_set(e, EINVAL, "ps: --format must be table or json");
    if (state_load(g->root, argv[first], &st, e) != 0)
        return -1;
    int rc = ps_of(&st, strcmp(format, "json") == 0, e);
    state_fini(&st);
    return rc;
}
