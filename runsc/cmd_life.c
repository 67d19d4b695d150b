/* start, state, kill, delete, ps: what happens to a container that exists. */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "runsc/cmd.h"
#include "runsc/container.h"
#include "runsc/control.h"

#define LIFE_TIMEOUT_MS 30000

int cmd_start(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct state st;
    int first = cmd_parse(argc, argv, NULL, 0, e);
    int rc;

    if (first < 0 || cmd_operands(argc, argv, first, 1, 1, e) != 0 ||
        state_load(g->root, argv[first], &st, e) != 0)
        return -1;
    rc = container_start(&st, e);
    state_fini(&st);
    return rc;
}

int cmd_state(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct state st;
    int first = cmd_parse(argc, argv, NULL, 0, e);

    if (first < 0 || cmd_operands(argc, argv, first, 1, 1, e) != 0 ||
        state_load(g->root, argv[first], &st, e) != 0)
        return -1;
    json_t *doc = container_state_json(&st, container_status(&st));
    (void)json_dumpf(doc, stdout, JSON_INDENT(2));
    (void)putchar('\n');
    json_decref(doc);
    state_fini(&st);
    return 0;
}

/* "9", "KILL", "SIGKILL", "RTMIN+3". -1: not a signal. */
static int life_signal(const char *text)
{
    char *end;
    long v;

    if (isdigit((unsigned char)text[0])) {
        v = strtol(text, &end, 10);
        return *end == '\0' && v <= 64 ? (int)v : -1;
    }
    if (strncasecmp(text, "SIG", 3) == 0)
        text += 3;
    if (strncasecmp(text, "RTMIN", 5) == 0) {
        v = text[5] == '+' ? strtol(text + 6, &end, 10) : 0;
        return v >= 0 && v <= 30 ? 34 + (int)v : -1;
    }
    for (int sig = 1; sig < 32; sig++) {
        const char *name = sigabbrev_np(sig);
        if (name != NULL && strcasecmp(name, text) == 0)
            return sig;
    }
    return -1;
}

int cmd_kill(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct state st;
    bool all = false;
    const struct cmd_opt opts[] = {{"all", 'a', &all, NULL, NULL, NULL}};
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);
    int sig = SIGTERM, rc;

    if (first < 0 || cmd_operands(argc, argv, first, 1, 2, e) != 0)
        return -1;
    if (argc - first == 2)
        sig = life_signal(argv[first + 1]);
    if (sig < 0)
        return err_set(e, EINVAL, "kill: unknown signal \"%.40s\"", argv[first + 1]);
    if (state_load(g->root, argv[first], &st, e) != 0)
        return -1;
    /* The text is what containerd looks for. */
    if (!state_process_alive(&st.sentry))
        rc = all ? 0 : err_set(e, ESRCH, "container not running");
    else
        rc = control_request(st.dir_fd,
                             json_pack("{s:s,s:i,s:b}", "op", "signal", "sig", sig, "all", all),
                             LIFE_TIMEOUT_MS, NULL, e);
    state_fini(&st);
    return rc;
}

static int life_delete(const struct cmd_global *g, const char *id, bool force, struct err *e)
{
    struct state st;

    if (state_load(g->root, id, &st, e) != 0)
        return force && e->code == ENOENT ? 0 : -1;
    const char *status = container_status(&st);
    if (!force && strcmp(status, "running") == 0) {
        state_fini(&st);
        return err_set(e, EBUSY, "cannot delete container \"%s\": it is %s; use --force", id,
                       status);
    }
    container_destroy(&st);
    state_fini(&st);
    return 0;
}

int cmd_delete(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    bool force = false;
    const struct cmd_opt opts[] = {{"force", 'f', &force, NULL, NULL, NULL}};
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);
    int rc = 0;

    if (first < 0 || cmd_operands(argc, argv, first, 1, -1, e) != 0)
        return -1;
    for (int i = first; i < argc && rc == 0; i++)
        rc = life_delete(g, argv[i], force, e);
    return rc;
}

static void life_print_ps(const json_t *list, bool as_json)
{
    size_t i;
    json_t *p;

    if (as_json) {
        json_t *pids = json_array();
        json_array_foreach(list, i, p)(void) json_array_append(pids, json_object_get(p, "pid"));
        (void)json_dumpf(pids, stdout, JSON_COMPACT);
        (void)putchar('\n');
        json_decref(pids);
        return;
    }
    printf("%-8s %-8s %-8s %s\n", "PID", "PPID", "UID", "CMD");
    json_array_foreach(list, i, p)
        printf("%-8lld %-8lld %-8lld %s\n", json_integer_value(json_object_get(p, "pid")),
               json_integer_value(json_object_get(p, "ppid")),
               json_integer_value(json_object_get(p, "uid")),
               json_string_value(json_object_get(p, "cmd")));
}

int cmd_ps(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct state st;
    json_t *reply = NULL;
    const char *format = "table";
    const struct cmd_opt opts[] = {{"format", 'f', NULL, &format, NULL, NULL}};
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);
    int rc;

    if (first < 0 || cmd_operands(argc, argv, first, 1, -1, e) != 0)
        return -1;
    if (strcmp(format, "table") != 0 && strcmp(format, "json") != 0)
        return err_set(e, EINVAL, "ps: --format must be table or json");
    if (state_load(g->root, argv[first], &st, e) != 0)
        return -1;
    rc = control_request(st.dir_fd, json_pack("{s:s}", "op", "ps"), LIFE_TIMEOUT_MS, &reply, e);
    if (rc == 0)
        life_print_ps(json_object_get(reply, "processes"), strcmp(format, "json") == 0);
    json_decref(reply);
    state_fini(&st);
    return rc;
}
