/* debug: what a running sandbox is doing, and what it logs from now on. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runsc/cmd.h"
#include "runsc/container.h"
#include "runsc/profile.h"
#include "runsc/stacks.h"

#define DEBUG_SECONDS_MAX 3600
#define DEBUG_HZ 499 /* in step with nothing */

struct debug_opts {
    bool stacks;
    const char *log_level, *strace, *profile;
    int seconds;
};

static int debug_seconds(void *arg, const char *value, struct err *e)
{
    char *end;
    long v = strtol(value, &end, 10);

    if (*value == '\0' || *end != '\0' || v < 1 || v > DEBUG_SECONDS_MAX)
        return err_set(e, EINVAL, "debug: --seconds is 1 to %d, not \"%.40s\"", DEBUG_SECONDS_MAX,
                       value);
    *(int *)arg = (int)v;
    return 0;
}

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

/* A sandbox that answers no more is shown without the names of its guests' tasks. */
static int debug_stacks(const struct state *st, pid_t sentry, struct err *e)
{
    json_t *tasks = NULL;
    struct err ignored;

    if (cgroup_frozen(container_cgroups(st)))
        return err_set(e, EINVAL, "debug: container \"%s\" is paused", st->id);
    if (container_request(st, container_op(st, "tasks"), &tasks, &ignored) != 0)
        fprintf(stderr, "runsc: the sandbox does not answer: %s\n", ignored.text);
    int rc = stacks_print(sentry, tasks, e);
    json_decref(tasks);
    return rc;
}

static int debug_profile(pid_t sentry, const struct debug_opts *o, struct err *e)
{
    FILE *f = strcmp(o->profile, "-") == 0 ? stdout : fopen(o->profile, "we");

    if (f == NULL)
        return err_errno(e, errno, "debug: --profile %s", o->profile);
    int rc = profile_write(sentry, o->seconds, DEBUG_HZ, f, e);
    if (fflush(f) != 0 && rc == 0)
        rc = err_errno(e, errno, "debug: --profile %s", o->profile);
    if (f != stdout)
        (void)fclose(f);
    return rc;
}

/* A container that joined a sandbox is looked at in that sandbox's sentry. */
static int debug_sentry(const char *root, const struct state *st, pid_t *out_pid, struct err *e)
{
    struct state box;

    *out_pid = st->sentry.pid;
    if (st->sandbox == NULL)
        return 0;
    if (state_load(root, st->sandbox, &box, e) != 0)
        return -1;
    *out_pid = box.sentry.pid;
    state_fini(&box);
    return 0;
}

static int debug_of(const char *root, const struct state *st, const struct debug_opts *o,
                    struct err *e)
{
    pid_t sentry;

    if (!state_process_alive(&st->sentry))
        return err_set(e, ESRCH, "container not running");
    if (debug_sentry(root, st, &sentry, e) != 0)
        return -1;
    if (o->log_level != NULL || o->strace != NULL) {
        json_t *req = debug_request(st, o, e);
        if (req == NULL || container_request(st, req, NULL, e) != 0)
            return -1;
    }
    if (o->stacks && debug_stacks(st, sentry, e) != 0)
        return -1;
    return o->profile != NULL ? debug_profile(sentry, o, e) : 0;
}

int cmd_debug(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct debug_opts o = {.seconds = 5};
    const struct cmd_opt opts[] = {{"stacks", 0, &o.stacks, NULL, NULL, NULL},
                                   {"log-level", 0, NULL, &o.log_level, NULL, NULL},
                                   {"strace", 0, NULL, &o.strace, NULL, NULL},
                                   {"profile", 0, NULL, &o.profile, NULL, NULL},
                                   {"seconds", 0, NULL, NULL, debug_seconds, &o.seconds}};
    struct state st;
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);

    if (first < 0 || cmd_operands(argc, argv, first, 1, 1, e) != 0 ||
        state_load(g->root, argv[first], &st, e) != 0)
        return -1;
    int rc = debug_of(g->root, &st, &o, e);
    state_fini(&st);
    return rc;
}
