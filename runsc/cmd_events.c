/* events: what a container uses, once or again and again, as one JSON object a line. */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runsc/cmd.h"
#include "runsc/container.h"
#include "runsc/control.h"

#define EVENTS_INTERVAL_MS 5000
/* Lines of one packet; the sandbox is not believed more. */
#define EVENTS_OOM_MAX 1000

static int events_interval(void *arg, const char *value, struct err *e)
{
    char *end;
    double v = strtod(value, &end);
    double scale = strcmp(end, "ms") == 0 ? 1 : strcmp(end, "m") == 0 ? 60000 : 1000;

    if (end == value || v <= 0 || v * scale > 86400000.0 ||
        (*end != '\0' && strcmp(end, "ms") != 0 && strcmp(end, "s") != 0 && strcmp(end, "m") != 0))
        return err_set(e, EINVAL, "events: --interval wants a time such as 500ms or 5s");
    *(long *)arg = (long)(v * scale);
    return 0;
}

static uint64_t events_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Counters of the host where there are some; UINT64_MAX stands for none. */
static void events_put(json_t *obj, const char *key, uint64_t v)
{
    if (v != UINT64_MAX)
        (void)json_object_set_new(obj, key, json_integer((json_int_t)MIN(v, (uint64_t)INT64_MAX)));
}

static void events_copy(json_t *to, const char *key, const json_t *from)
{
    (void)json_object_set(to, key, json_object_get(from, key));
}

static json_t *events_usage(const struct cgroup_stats *s, const json_t *guest)
{
    json_t *data = json_object();
    const json_t *gm = json_object_get(guest, "memory"), *gc = json_object_get(guest, "cpu");
    json_t *cpu = json_object(), *throttling = json_object();
    json_t *memory = json_object(), *pids = json_object();

    events_put(cpu, "total", s->cpu_ns);
    (void)json_object_set(cpu, "user", json_object_get(gc, "user"));
    (void)json_object_set(cpu, "kernel", json_object_get(gc, "kernel"));
    if (s->cpu_ns == UINT64_MAX)
        (void)json_object_set(cpu, "total", json_object_get(gc, "usage"));
    events_put(throttling, "periods", s->periods);
    events_put(throttling, "throttledPeriods", s->throttled_periods);
    events_put(throttling, "throttledTime", s->throttled_ns);
    if (s->periods == UINT64_MAX) {
        events_copy(throttling, "periods", gc);
        events_copy(throttling, "throttledPeriods", gc);
        events_copy(throttling, "throttledTime", gc);
    }
    (void)json_object_set_new(data, "cpu",
                              json_pack("{s:o,s:o}", "usage", cpu, "throttling", throttling));
    events_put(memory, "usage", s->memory_usage);
    events_put(memory, "limit", s->memory_limit);
    if (s->memory_usage == UINT64_MAX) {
        events_copy(memory, "usage", gm);
        events_copy(memory, "limit", gm);
    }
    (void)json_object_set_new(data, "memory", json_pack("{s:o}", "usage", memory));
    (void)json_object_set(json_object_get(data, "memory"), "guest",
                          json_object_get(guest, "memory"));
    events_copy(pids, "current", json_object_get(guest, "pids"));
    events_copy(pids, "limit", json_object_get(guest, "pids"));
    (void)json_object_set_new(data, "pids", pids);
    return data;
}

static void events_line(json_t *line)
{
    (void)json_dumpf(line, stdout, JSON_COMPACT);
    (void)putchar('\n');
    (void)fflush(stdout);
    json_decref(line);
}

static int events_one(const struct state *st, struct err *e)
{
    struct cgroup_stats s;
    json_t *guest = NULL;

    /* A container of a pod runs in its sandbox's cgroups: its own hold its gofer. */
    if (st->sandbox != NULL)
        memset(&s, 0xff, sizeof(s));
    else
        cgroup_stats(container_cgroups(st), &s);
    /* A frozen sandbox does not answer; the host's counters are all there is then. */
    if (!cgroup_frozen(container_cgroups(st)) &&
        container_request(st, container_op(st, "events"), &guest, e) != 0)
        return -1;
    json_t *line =
        json_pack("{s:s,s:s,s:o}", "type", "stats", "id", st->id, "data", events_usage(&s, guest));
    events_line(line);
    json_decref(guest);
    return 0;
}

/* What the sandbox tells by itself. False: there is nobody to tell any more. */
static bool events_told(const struct state *st, int watch)
{
    json_t *msg = NULL;

    if (control_recv(watch, 0, &msg, NULL, 0, NULL) != 0)
        return false;
    const char *event = json_string_value(json_object_get(msg, "event"));
    const json_int_t count = json_integer_value(json_object_get(msg, "count"));
    if (event != NULL && strcmp(event, "oom") == 0)
        for (json_int_t i = 0; i < MIN(count, EVENTS_OOM_MAX); i++)
            events_line(json_pack("{s:s,s:s}", "type", "oom", "id", st->id));
    json_decref(msg);
    return true;
}

/* Till the next look at the counters. False: the container has ended. */
static bool events_pause(const struct state *st, int watch, long interval_ms)
{
    const uint64_t end = events_now() + (uint64_t)interval_ms;

    for (uint64_t now = events_now(); now < end; now = events_now()) {
        struct pollfd p = {.fd = watch, .events = POLLIN};
        if (poll(&p, 1, (int)MIN(end - now, (uint64_t)INT_MAX)) > 0 && !events_told(st, watch))
            return false;
    }
    return true;
}

static int events_loop(const struct state *st, long interval_ms, struct err *e)
{
    int watch = -1;
    json_t *reply = NULL;
    bool more = true;

    if (container_connect(st, &watch, e) != 0)
        return state_process_alive(&st->sentry) ? -1 : 0;
    int rc = control_call(watch, container_op(st, "watch"), -1, &reply, e);
    json_decref(reply);
    while (rc == 0 && more && state_process_alive(&st->sentry)) {
        rc = events_one(st, e);
        if (rc == 0)
            more = events_pause(st, watch, interval_ms);
    }
    (void)close(watch);
    return state_process_alive(&st->sentry) ? rc : 0;
}

int cmd_events(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    bool stats = false;
    long interval_ms = EVENTS_INTERVAL_MS;
    const struct cmd_opt opts[] = {{"stats", 0, &stats, NULL, NULL, NULL},
                                   {"interval", 0, NULL, NULL, events_interval, &interval_ms}};
    struct state st;
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);
    int rc;

    if (first < 0 || cmd_operands(argc, argv, first, 1, 1, e) != 0 ||
        state_load(g->root, argv[first], &st, e) != 0)
        return -1;
    if (!state_process_alive(&st.sentry))
        rc = err_set(e, ESRCH, "container not running");
    else
        rc = stats ? events_one(&st, e) : events_loop(&st, interval_ms, e);
    state_fini(&st);
    return rc;
}
