/* start, state, kill, delete, pause, resume: what happens to a container that exists. */
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
    rc = container_kill(&st, sig, all, e);
    state_fini(&st);
    return rc;
}

static int life_delete(const struct cmd_global *g, const char *id, bool force, struct err *e)
{
    struct state st;

    if (state_load(g->root, id, &st, e) != 0) {
        if (!force || e->code != ENOENT)
            return -1;
        state_remove_incomplete(g->root, id);
        return 0;
    }
    const char *status = force ? "" : container_status(&st);
    if (!force && (strcmp(status, "running") == 0 || strcmp(status, "paused") == 0)) {
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

static int life_freeze(const struct cmd_global *g, int argc, char **argv, bool freeze,
                       struct err *e)
{
    struct state st;
    int first = cmd_parse(argc, argv, NULL, 0, e);
    int rc;

    if (first < 0 || cmd_operands(argc, argv, first, 1, 1, e) != 0 ||
        state_load(g->root, argv[first], &st, e) != 0)
        return -1;
    const char *status = container_status(&st);
    if (strcmp(status, "stopped") == 0)
        rc = err_set(e, ESRCH, "container not running");
    else if (freeze && strcmp(status, "paused") == 0)
        rc = err_set(e, EINVAL, "container \"%s\" is paused already", st.id);
    else if (!freeze && strcmp(status, "paused") != 0)
        rc = err_set(e, EINVAL, "container \"%s\" is not paused", st.id);
    else
        rc = container_pause(&st, freeze, e);
    state_fini(&st);
    return rc;
}

int cmd_pause(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    return life_freeze(g, argc, argv, true, e);
}

int cmd_resume(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    return life_freeze(g, argc, argv, false, e);
}
