/* Numbers of a container, from the runtime, in the form that containerd's clients know: that of
 * cgroup v1. Out-of-memory kills of the host. */
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runsc/container.h"
#include "runsc/control.h"
#include "runsc/shim/shim.h"

static uint64_t number(const json_t *data, const char *a, const char *b, const char *c)
{
    const json_t *v = json_object_get(json_object_get(json_object_get(data, a), b), c);

    return json_is_integer(v) && json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v) : 0;
}

static void put_metrics(const json_t *data, struct pb_out *m)
{
    struct pb_out pids = {0}, cpu = {0}, usage = {0}, throttling = {0}, memory = {0}, entry = {0};
    const json_t *p = json_object_get(data, "pids");

    pb_uint(&pids, 1, (uint64_t)json_integer_value(json_object_get(p, "current")));
    pb_uint(&pids, 2, (uint64_t)json_integer_value(json_object_get(p, "limit")));
    pb_uint(&usage, 1, number(data, "cpu", "usage", "total"));
    pb_uint(&usage, 2, number(data, "cpu", "usage", "kernel"));
    pb_uint(&usage, 3, number(data, "cpu", "usage", "user"));
    pb_uint(&throttling, 1, number(data, "cpu", "throttling", "periods"));
    pb_uint(&throttling, 2, number(data, "cpu", "throttling", "throttledPeriods"));
    pb_uint(&throttling, 3, number(data, "cpu", "throttling", "throttledTime"));
    pb_uint(&entry, 1, number(data, "memory", "usage", "limit"));
    pb_uint(&entry, 2, number(data, "memory", "usage", "usage"));
    pb_sub(&cpu, 1, &usage);
    pb_sub(&cpu, 2, &throttling);
    pb_sub(&memory, 33, &entry);
    pb_sub(m, 2, &pids);
    pb_sub(m, 3, &cpu);
    pb_sub(m, 4, &memory);
}

int shim_stats(struct shim *s, const char *id, const char *bundle, struct pb_out *reply,
               char *error, size_t size)
{
    static const int none[3] = {-1, -1, -1};
    const char *args[] = {"events", "--stats", id, NULL};
    char *text = NULL;
    struct pb_out metrics = {0}, any = {0};
    int r = shim_runsc(s, bundle, args, none, NULL, &text, error, size);
    json_t *doc = r == 0 && text != NULL ? json_loads(text, 0, NULL) : NULL;

    free(text);
    if (doc == NULL)
        return -1;
    put_metrics(json_object_get(doc, "data"), &metrics);
    json_decref(doc);
    pb_text(&any, 1, "io.containerd.cgroups.v1.Metrics");
    pb_bytes(&any, 2, metrics.data, metrics.size);
    any.failed |= metrics.failed;
    pb_free(&metrics);
    pb_sub(reply, 1, &any);
    return 0;
}

/* ---- out of memory ---- */

#define OOM_ANSWER_MS 30000

struct oom_watch {
    struct shim *s;
    char *id;
    int event; /* what tells: an eventfd, or a connection; owned, -1: not open */
};

static void oom_publish(const struct oom_watch *w)
{
    struct pb_out e = {0};

    pb_text(&e, 1, w->id);
    shim_publish(w->s, "/tasks/oom", "containerd.events.TaskOOM", &e);
}

static void oom_watch_free(struct oom_watch *w)
{
    if (w->event >= 0)
        (void)close(w->event);
    free(w->id);
    free(w);
}

/* Of the host, which may end a process of the sandbox. The notification comes with every kill, and
 * once more when the cgroup is removed. */
static void *oom_host_main(void *arg)
{
    struct oom_watch *w = arg;
    uint64_t n;

    while (read(w->event, &n, sizeof(n)) == (ssize_t)sizeof(n)) {
        pthread_mutex_lock(&w->s->mu);
        struct shim_container *c = shim_find(w->s, w->id);
        struct shim_proc *init = c != NULL ? shim_find_proc(c, "") : NULL;
        bool live = init != NULL && init->state != PROC_STOPPED;
        pthread_mutex_unlock(&w->s->mu);
        if (!live)
            break;
        oom_publish(w);
    }
    oom_watch_free(w);
    return NULL;
}

/* A connection to the container's sandbox, which tells of its own accord; -1: it has ended. */
static int oom_connect(const struct oom_watch *w)
{
    struct state st;
    struct err e;
    json_t *reply = NULL;
    int fd = -1;

    if (state_load(w->s->root, w->id, &st, &e) != 0)
        return -1;
    if (container_connect(&st, &fd, &e) == 0 &&
        control_call(fd, container_op(&st, "watch"), OOM_ANSWER_MS, &reply, &e) != 0) {
        (void)close(fd);
        fd = -1;
    }
    json_decref(reply);
    state_fini(&st);
    return fd;
}

/* Of the sandbox, which ends the guest's processes one by one: once is enough to be told. */
static void *oom_guest_main(void *arg)
{
    struct oom_watch *w = arg;
    json_t *msg = NULL;

    w->event = oom_connect(w);
    while (w->event >= 0 && control_recv(w->event, 0, &msg, NULL, 0, NULL) == 0) {
        const char *event = json_string_value(json_object_get(msg, "event"));
        const bool oom = event != NULL && strcmp(event, "oom") == 0;
        json_decref(msg);
        if (oom)
            oom_publish(w);
    }
    oom_watch_free(w);
    return NULL;
}

/* The directory of v1's memory controller that pid is in. False: there is none. */
static bool memory_cgroup(pid_t pid, char *out, size_t size)
{
    char path[64], line[1024];
    bool found = false;

    (void)snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
    FILE *f = fopen(path, "re");
    while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL) {
        char *rel = strstr(line, ":memory:");
        if (rel == NULL)
            continue;
        rel += 8;
        rel[strcspn(rel, "\n")] = '\0';
        found = (size_t)snprintf(out, size, "/sys/fs/cgroup/memory%s", rel) < size;
    }
    if (f != NULL)
        (void)fclose(f);
    return found;
}

/* cgroup v1, Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control". */
static int oom_register(const char *dir)
{
    char path[1200], text[64];
    int event = eventfd(0, EFD_CLOEXEC), r = -1;

    (void)snprintf(path, sizeof(path), "%s/memory.oom_control", dir);
    int control = open(path, O_RDONLY | O_CLOEXEC);
    (void)snprintf(path, sizeof(path), "%s/cgroup.event_control", dir);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (event >= 0 && control >= 0 && fd >= 0) {
        int n = snprintf(text, sizeof(text), "%d %d", event, control);
        r = write(fd, text, (size_t)n) == n ? 0 : -1;
    }
    if (control >= 0)
        (void)close(control);
    if (fd >= 0)
        (void)close(fd);
    if (r != 0 && event >= 0)
        (void)close(event);
    return r == 0 ? event : -1;
}

/* Takes event. */
static void oom_start(struct shim *s, const char *id, int event, void *(*fn)(void *))
{
    struct oom_watch *w = calloc(1, sizeof(*w));

    if (w == NULL) {
        if (event >= 0)
            (void)close(event);
        return;
    }
    *w = (struct oom_watch){.s = s, .id = strdup(id), .event = event};
    if (w->id == NULL || shim_thread(fn, w) != 0)
        oom_watch_free(w);
}

void shim_watch_oom(struct shim *s, struct shim_container *c, pid_t pid)
{
    char dir[1100];
    int event = memory_cgroup(pid, dir, sizeof(dir)) ? oom_register(dir) : -1;

    if (event >= 0)
        oom_start(s, c->id, event, oom_host_main);
    oom_start(s, c->id, -1, oom_guest_main);
}
