/* The methods of containerd's task service. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "runsc/shim/shim.h"

#define TASK_FIELDS_MAX 16

/* One request, its fields by number; texts are owned. */
struct call {
    struct shim *s;
    struct pb_out *reply;
    char *error;
    size_t error_size;
    char *text[TASK_FIELDS_MAX];
    uint64_t number[TASK_FIELDS_MAX];
    struct pb_field raw[TASK_FIELDS_MAX];
    const struct pb_field *payload;
};

static int fail(struct call *k, int code, const char *text)
{
    (void)snprintf(k->error, k->error_size, "%s", text);
    return code;
}

static const char *text(const struct call *k, unsigned field)
{
    return k->text[field] != NULL ? k->text[field] : "";
}

static int call_read(struct call *k)
{
    struct pb_in in = pb_inner(k->payload);
    struct pb_field f;

    while (pb_next(&in, &f)) {
        if (f.number >= TASK_FIELDS_MAX)
            continue;
        k->number[f.number] = f.value;
        k->raw[f.number] = f;
        if (f.data != NULL) {
            free(k->text[f.number]);
            k->text[f.number] = pb_dup(&f);
        }
    }
    return in.failed ? fail(k, TTRPC_INVALID, "malformed request") : TTRPC_OK;
}

static void call_free(struct call *k)
{
    for (size_t i = 0; i < TASK_FIELDS_MAX; i++)
        free(k->text[i]);
}

/* mu held. */
static int find(struct call *k, const char *exec_id, struct shim_container **out_c,
                struct shim_proc **out_p)
{
    *out_c = shim_find(k->s, text(k, 1));
    *out_p = *out_c != NULL ? shim_find_proc(*out_c, exec_id) : NULL;
    return *out_p != NULL ? TTRPC_OK : fail(k, TTRPC_NOT_FOUND, "no such container or process");
}

/* The same, and mu is let go of: the caller is a user of the container till `leave`. */
static int enter(struct call *k, const char *exec_id, struct shim_container **out_c,
                 struct shim_proc **out_p)
{
    pthread_mutex_lock(&k->s->mu);
    int code = find(k, exec_id, out_c, out_p);
    if (code == TTRPC_OK)
        (*out_c)->users++;
    pthread_mutex_unlock(&k->s->mu);
    return code;
}

static void leave(struct call *k, struct shim_container *c)
{
    pthread_mutex_lock(&k->s->mu);
    shim_container_let_go(k->s, c);
    pthread_mutex_unlock(&k->s->mu);
}

static int runsc(struct call *k, const char *bundle, const char *const *args, const char *input)
{
    static const int none[3] = {-1, -1, -1};

    return shim_runsc(k->s, bundle, args, none, input, NULL, k->error, k->error_size) == 0
               ? TTRPC_OK
               : TTRPC_UNKNOWN;
}

/* ---- create and exec: both make a process of the host that is then known by its pid ---- */

static pid_t read_pid(const char *path)
{
    FILE *f = fopen(path, "re");
    int pid = 0;

    if (f != NULL && fscanf(f, "%d", &pid) != 1)
        pid = 0;
    if (f != NULL)
        (void)fclose(f);
    return pid;
}

static void take_io(struct call *k, struct proc_io *io, unsigned first, bool terminal)
{
    io->terminal = terminal;
    io->in = strdup(text(k, first));
    io->out = strdup(text(k, first + 1));
    io->err = strdup(text(k, first + 2));
}

/* Names of files in the bundle that belong to one process. */
static char *bundle_file(const char *bundle, const struct shim_proc *p, const char *suffix)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%s.%s", bundle, p->exec_id[0] != '\0' ? p->exec_id : "init", suffix) <
        0)
        return NULL;
    return path;
}

/*
 * Runs `create` or `exec` (words: what stands between the common options and the id) and learns the
 * pid. *out_made: the runtime has made it, even if that fails. mu is not held; the process is the
 * caller's till its state is set.
 */
static int launch(struct call *k, const char *id, const char *bundle, struct shim_proc *p,
                  const char *const *words, bool *out_made)
{
    const char *args[24];
    size_t n = 0;
    int fds[3] = {-1, -1, -1}, listener = -1, r;

    *out_made = false;
    char *pid_file = bundle_file(bundle, p, "pid"), *console = NULL;

    while (*words != NULL)
        args[n++] = *words++;
    args[n++] = "--pid-file";
    args[n++] = pid_file;
    if (p->io.terminal) {
        /* A bundle's own path may be too long for a socket's name. */
        if (asprintf(&console, "/run/runsc-console-%d-%p", (int)getpid(), (void *)p) < 0)
            console = NULL;
        listener = console != NULL ? proc_console_listen(console) : -ENOMEM;
        args[n++] = "--console-socket";
        args[n++] = console;
    }
    args[n++] = id;
    args[n] = NULL;
    r = proc_io_open(&p->io, fds);
    if (r == 0 && p->io.terminal && listener < 0)
        r = listener;
    if (r != 0)
        (void)fail(k, TTRPC_UNKNOWN, "cannot open the standard streams");
    static const int none[3] = {-1, -1, -1};
    if (r == 0)
        r = shim_runsc(k->s, bundle, args, p->io.terminal ? none : fds, NULL, NULL, k->error,
                       k->error_size);
    *out_made = r == 0;
    if (r == 0 && listener >= 0)
        r = proc_console_receive(listener, &p->io.master);
    p->pid = r == 0 ? read_pid(pid_file) : 0;
    if (r == 0 && p->pid <= 0)
        r = fail(k, TTRPC_UNKNOWN, "the runtime wrote no pid");
    /* Last: what it starts refers to p. */
    if (r == 0 && listener >= 0)
        r = proc_io_copy(k->s, p);
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
    if (listener >= 0) {
        (void)close(listener);
        (void)unlink(console);
    }
    free(console);
    (void)unlink(pid_file);
    free(pid_file);
    return r == 0 ? TTRPC_OK : TTRPC_UNKNOWN;
}

/* mu held. From here on its end is heard; it may have come already. */
static void adopt(struct shim *s, struct shim_proc *p, enum proc_state state, uint64_t since)
{
    struct shim_exit x;

    p->state = state;
    if (shim_take_exit(s, p->pid, since, &x))
        (void)shim_proc_exited(s, &x);
}

static int mount_root(struct call *k, const char *bundle, bool *out_mounted)
{
    struct pb_in in = pb_inner(k->payload);
    struct pb_field f;
    char *target = NULL;
    int r = 0;

    if (asprintf(&target, "%s/rootfs", bundle) < 0)
        return fail(k, TTRPC_UNKNOWN, "out of memory");
    while (r == 0 && pb_next(&in, &f))
        if (f.number == 3) {
            (void)mkdir(target, 0711);
            r = shim_mount(&f, target);
            *out_mounted |= r == 0;
        }
    free(target);
    if (r != 0)
        (void)snprintf(k->error, k->error_size, "cannot mount the root file system: %s",
                       strerror(-r));
    return r == 0 ? TTRPC_OK : TTRPC_UNKNOWN;
}

static void publish_create(struct call *k, const struct shim_proc *p)
{
    struct pb_out e = {0}, io = {0};

    pb_text(&io, 1, p->io.in);
    pb_text(&io, 2, p->io.out);
    pb_text(&io, 3, p->io.err);
    pb_uint(&io, 4, p->io.terminal);
    pb_text(&e, 1, p->container->id);
    pb_text(&e, 2, p->container->bundle);
    pb_sub(&e, 4, &io);
    pb_uint(&e, 6, (uint64_t)p->pid);
    shim_publish(k->s, "/tasks/create", "containerd.events.TaskCreate", &e);
}

static int m_create(struct call *k)
{
    const char *bundle = text(k, 2);
    const char *words[] = {"create", "--bundle", bundle, NULL};
    const uint64_t since = shim_now();
    struct shim_container *c;
    struct shim_proc *p;
    bool made = false;

    pthread_mutex_lock(&k->s->mu);
    c = shim_find(k->s, text(k, 1)) == NULL ? shim_container_new(k->s, text(k, 1), bundle) : NULL;
    p = c != NULL ? shim_proc_new(c, "") : NULL;
    if (p != NULL)
        shim_watch_bundle(k->s, c);
    else if (c != NULL)
        shim_container_remove(k->s, c);
    pthread_mutex_unlock(&k->s->mu);
    if (p == NULL)
        return fail(k, TTRPC_EXISTS, "the container exists already");
    take_io(k, &p->io, 5, k->number[4] != 0);
    int code = mount_root(k, bundle, &c->mounted);
    if (code == TTRPC_OK)
        code = launch(k, c->id, bundle, p, words, &made);
    if (code != TTRPC_OK && made)
        shim_delete_made(k->s, c);
    pthread_mutex_lock(&k->s->mu);
    if (code == TTRPC_OK) {
        publish_create(k, p);
        pb_uint(k->reply, 1, (uint64_t)p->pid);
        adopt(k->s, p, PROC_CREATED, since);
        shim_container_let_go(k->s, c);
    } else {
        shim_unmount_root(c);
        shim_container_remove(k->s, c);
    }
    pthread_mutex_unlock(&k->s->mu);
    return code;
}

static int m_exec(struct call *k)
{
    struct shim_container *c;
    struct shim_proc *p = NULL;
    struct pb_in any = pb_inner(&k->raw[7]);
    struct pb_field f;
    struct pb_out e = {0};

    pthread_mutex_lock(&k->s->mu);
    c = shim_find(k->s, text(k, 1));
    if (c != NULL && text(k, 2)[0] != '\0' && shim_find_proc(c, text(k, 2)) == NULL)
        p = shim_proc_new(c, text(k, 2));
    if (p != NULL) {
        take_io(k, &p->io, 4, k->number[3] != 0);
        while (pb_next(&any, &f))
            if (f.number == 2)
                p->spec = pb_dup(&f);
    }
    pthread_mutex_unlock(&k->s->mu);
    if (p == NULL)
        return fail(k, c == NULL ? TTRPC_NOT_FOUND : TTRPC_EXISTS, "no container, or a taken name");
    pb_text(&e, 1, text(k, 1));
    pb_text(&e, 2, text(k, 2));
    shim_publish(k->s, "/tasks/exec-added", "containerd.events.TaskExecAdded", &e);
    return TTRPC_OK;
}

/* ---- start ---- */

static void publish_start(struct call *k, const struct shim_proc *p)
{
    struct pb_out e = {0};
    bool init = p->exec_id[0] == '\0';

    pb_text(&e, 1, p->container->id);
    if (init) {
        pb_uint(&e, 2, (uint64_t)p->pid);
        shim_publish(k->s, "/tasks/start", "containerd.events.TaskStart", &e);
        return;
    }
    pb_text(&e, 2, p->exec_id);
    pb_uint(&e, 3, (uint64_t)p->pid);
    shim_publish(k->s, "/tasks/exec-started", "containerd.events.TaskExecStarted", &e);
}

static int write_spec(struct call *k, const char *path, const char *spec)
{
    FILE *f = spec != NULL ? fopen(path, "we") : NULL;
    bool ok = f != NULL && fputs(spec, f) >= 0;

    if (f != NULL)
        ok = fclose(f) == 0 && ok;
    return ok ? TTRPC_OK : fail(k, TTRPC_UNKNOWN, "cannot write the process to start");
}

static int start_exec(struct call *k, struct shim_container *c, struct shim_proc *p)
{
    char *path = bundle_file(c->bundle, p, "json");
    const char *words[] = {"exec", "--detach", "--process", path, NULL};
    int code = path != NULL ? write_spec(k, path, p->spec) : TTRPC_UNKNOWN;
    bool made;

    if (code == TTRPC_OK)
        code = launch(k, c->id, c->bundle, p, words, &made);
    if (path != NULL)
        (void)unlink(path);
    free(path);
    return code;
}

static int start_init(struct call *k, struct shim_container *c)
{
    const char *args[] = {"start", c->id, NULL};

    return runsc(k, c->bundle, args, NULL);
}

static int m_start(struct call *k)
{
    struct shim_container *c;
    struct shim_proc *p;
    bool init = text(k, 2)[0] == '\0';
    const uint64_t since = shim_now();

    pthread_mutex_lock(&k->s->mu);
    int code = find(k, text(k, 2), &c, &p);
    if (code == TTRPC_OK && (p->state != (init ? PROC_CREATED : PROC_NEW) || p->starting))
        code = fail(k, TTRPC_PRECONDITION, "the process was started already");
    if (code == TTRPC_OK) {
        p->starting = true;
        c->users++;
    }
    pthread_mutex_unlock(&k->s->mu);
    if (code != TTRPC_OK)
        return code;
    code = init ? start_init(k, c) : start_exec(k, c, p);
    pthread_mutex_lock(&k->s->mu);
    p->starting = false;
    if (code == TTRPC_OK) {
        publish_start(k, p);
        p->announced = true;
        pb_uint(k->reply, 1, (uint64_t)p->pid);
        if (!init)
            adopt(k->s, p, PROC_RUNNING, since);
        else if (p->state == PROC_CREATED)
            p->state = PROC_RUNNING;
        shim_tell_exits(k->s, c);
        if (init)
            shim_watch_oom(k->s, c, p->pid);
    } else if (!init) {
        p->state = PROC_STOPPED;
        proc_io_end(&p->io);
    }
    shim_container_let_go(k->s, c);
    pthread_mutex_unlock(&k->s->mu);
    return code;
}

/* ---- the end ---- */

static void put_end(struct call *k, const struct shim_proc *p, unsigned first)
{
    pb_uint(k->reply, first, (uint64_t)p->exit_status);
    shim_put_time(k->reply, first + 1, &p->exited_at);
}

/* mu held, and let go of. */
static int delete_init(struct call *k, struct shim_container *c, const struct shim_proc *p)
{
    c->users++;
    int code = shim_end_container(k->s, c, true, k->error, k->error_size);
    if (code != TTRPC_OK) {
        shim_container_let_go(k->s, c);
        return code;
    }
    pb_uint(k->reply, 1, (uint64_t)p->pid);
    put_end(k, p, 2);
    shim_forget_container(k->s, c);
    return TTRPC_OK;
}

static int m_delete(struct call *k)
{
    struct shim_container *c;
    struct shim_proc *p;
    bool init = text(k, 2)[0] == '\0';

    pthread_mutex_lock(&k->s->mu);
    int code = find(k, text(k, 2), &c, &p);
    /* Who asks has given up on what is still being made or started. */
    while (code == TTRPC_OK && (init ? p->state == PROC_NEW : p->starting)) {
        pthread_cond_wait(&k->s->changed, &k->s->mu);
        code = find(k, text(k, 2), &c, &p);
    }
    if (code == TTRPC_OK && p->state == PROC_RUNNING)
        code = fail(k, TTRPC_PRECONDITION, "the process is running");
    if (code == TTRPC_OK && init) {
        code = delete_init(k, c, p);
    } else if (code == TTRPC_OK) {
        pb_uint(k->reply, 1, (uint64_t)p->pid);
        put_end(k, p, 2);
        shim_proc_free(p);
        pthread_cond_broadcast(&k->s->changed);
    }
    pthread_mutex_unlock(&k->s->mu);
    return code;
}

static int m_wait(struct call *k)
{
    struct shim_container *c;
    struct shim_proc *p;

    pthread_mutex_lock(&k->s->mu);
    int code = find(k, text(k, 2), &c, &p);
    while (code == TTRPC_OK && p->state != PROC_STOPPED) {
        pthread_cond_wait(&k->s->changed, &k->s->mu);
        code = find(k, text(k, 2), &c, &p);
    }
    if (code == TTRPC_OK)
        put_end(k, p, 1);
    pthread_mutex_unlock(&k->s->mu);
    return code;
}

static int m_kill(struct call *k)
{
    struct shim_container *c;
    struct shim_proc *p;
    char number[24];

    pthread_mutex_lock(&k->s->mu);
    int code = find(k, text(k, 2), &c, &p);
    bool exec = code == TTRPC_OK && p->exec_id[0] != '\0';
    if (code == TTRPC_OK && (p->state == PROC_NEW || (exec && p->state == PROC_STOPPED)))
        code = fail(k, TTRPC_NOT_FOUND, "process already finished");
    /* An exec's process passes signals on; it is our child, so its number is nobody else's. */
    if (code == TTRPC_OK && exec && kill(p->pid, (int)k->number[3]) != 0)
        code = fail(k, TTRPC_NOT_FOUND, "process already finished");
    if (code == TTRPC_OK && !exec)
        c->users++;
    pthread_mutex_unlock(&k->s->mu);
    if (code != TTRPC_OK || exec)
        return code;
    (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)k->number[3]);
    const char *all[] = {"kill", "--all", c->id, number, NULL},
               *one[] = {"kill", c->id, number, NULL};
    code = runsc(k, c->bundle, k->number[4] != 0 ? all : one, NULL);
    leave(k, c);
    return code != TTRPC_OK && strstr(k->error, "not running") != NULL ? TTRPC_NOT_FOUND : code;
}

/* ---- while it runs ---- */

static int m_state(struct call *k)
{
    enum { CREATED = 1, RUNNING, STOPPED, PAUSED };
    struct shim_container *c;
    struct shim_proc *p;

    pthread_mutex_lock(&k->s->mu);
    int code = find(k, text(k, 2), &c, &p);
    if (code == TTRPC_OK) {
        uint64_t status = p->state == PROC_STOPPED   ? STOPPED
                          : c->paused                ? PAUSED
                          : p->state == PROC_RUNNING ? RUNNING
                                                     : CREATED;
        pb_text(k->reply, 1, c->id);
        pb_text(k->reply, 2, c->bundle);
        pb_uint(k->reply, 3, (uint64_t)p->pid);
        pb_uint(k->reply, 4, status);
        pb_text(k->reply, 5, p->io.in);
        pb_text(k->reply, 6, p->io.out);
        pb_text(k->reply, 7, p->io.err);
        pb_uint(k->reply, 8, p->io.terminal);
        if (p->state == PROC_STOPPED)
            put_end(k, p, 9);
        pb_text(k->reply, 11, p->exec_id);
    }
    pthread_mutex_unlock(&k->s->mu);
    return code;
}

/* With the name of an exec in the form that containerd's clients know. */
static void put_process(struct call *k, const struct shim_proc *p)
{
    struct pb_out info = {0}, any = {0}, details = {0};

    pb_uint(&info, 1, (uint64_t)p->pid);
    if (p->exec_id[0] != '\0') {
        pb_text(&details, 1, p->exec_id);
        pb_text(&any, 1, "containerd.runc.v1.ProcessDetails");
        pb_sub(&any, 2, &details);
        pb_sub(&info, 2, &any);
    }
    pb_sub(k->reply, 1, &info);
}

static int m_pids(struct call *k)
{
    struct shim_container *c;
    struct shim_proc *p, *x;

    pthread_mutex_lock(&k->s->mu);
    int code = find(k, "", &c, &p);
    if (code == TTRPC_OK)
        list_for_each_entry (x, &c->procs, node)
            if (x->state == PROC_CREATED || x->state == PROC_RUNNING)
                put_process(k, x);
    pthread_mutex_unlock(&k->s->mu);
    return code;
}

static int freeze(struct call *k, bool on)
{
    struct shim_container *c;
    struct shim_proc *p;
    struct pb_out e = {0};

    int code = enter(k, "", &c, &p);
    if (code != TTRPC_OK)
        return code;
    const char *args[] = {on ? "pause" : "resume", c->id, NULL};
    code = runsc(k, c->bundle, args, NULL);
    pthread_mutex_lock(&k->s->mu);
    if (code == TTRPC_OK) {
        c->paused = on;
        pb_text(&e, 1, c->id);
        shim_publish(k->s, on ? "/tasks/paused" : "/tasks/resumed",
                     on ? "containerd.events.TaskPaused" : "containerd.events.TaskResumed", &e);
    }
    shim_container_let_go(k->s, c);
    pthread_mutex_unlock(&k->s->mu);
    return code;
}

static int m_pause(struct call *k)
{
    return freeze(k, true);
}

static int m_resume(struct call *k)
{
    return freeze(k, false);
}

static int m_resize(struct call *k)
{
    struct shim_container *c;
    struct shim_proc *p;
    struct winsize ws = {.ws_col = (unsigned short)k->number[3],
                         .ws_row = (unsigned short)k->number[4]};

    pthread_mutex_lock(&k->s->mu);
    int code = find(k, text(k, 2), &c, &p);
    if (code == TTRPC_OK && p->io.master >= 0)
        (void)ioctl(p->io.master, TIOCSWINSZ, &ws);
    pthread_mutex_unlock(&k->s->mu);
    return code;
}

static int m_close_io(struct call *k)
{
    struct shim_container *c;
    struct shim_proc *p;

    pthread_mutex_lock(&k->s->mu);
    int code = find(k, text(k, 2), &c, &p);
    if (code == TTRPC_OK && k->number[3] != 0)
        proc_io_close_input(&p->io);
    pthread_mutex_unlock(&k->s->mu);
    return code;
}

static int m_update(struct call *k)
{
    struct shim_container *c;
    struct shim_proc *p;
    struct pb_in any = pb_inner(&k->raw[2]);
    struct pb_field f;
    char *resources = NULL;

    int code = enter(k, "", &c, &p);
    if (code != TTRPC_OK)
        return code;
    while (pb_next(&any, &f))
        if (f.number == 2 && resources == NULL)
            resources = pb_dup(&f);
    const char *args[] = {"update", "--resources", "-", c->id, NULL};
    code = resources != NULL ? runsc(k, c->bundle, args, resources)
                             : fail(k, TTRPC_INVALID, "no resources");
    free(resources);
    leave(k, c);
    return code;
}

static int m_stats(struct call *k)
{
    struct shim_container *c;
    struct shim_proc *p;

    int code = enter(k, "", &c, &p);
    if (code != TTRPC_OK)
        return code;
    int r = shim_stats(k->s, c->id, c->bundle, k->reply, k->error, k->error_size);
    leave(k, c);
    return r == 0 ? TTRPC_OK : TTRPC_UNKNOWN;
}

static int m_connect(struct call *k)
{
    struct shim_container *c;
    struct shim_proc *p;

    pthread_mutex_lock(&k->s->mu);
    pb_uint(k->reply, 1, (uint64_t)getpid());
    if (find(k, "", &c, &p) == TTRPC_OK)
        pb_uint(k->reply, 2, (uint64_t)p->pid);
    pthread_mutex_unlock(&k->s->mu);
    return TTRPC_OK;
}

/* Who sends the answer ends the process then. */
static int m_shutdown(struct call *k)
{
    (void)k;
    return TTRPC_OK;
}

int shim_method(struct shim *s, const char *method, const struct pb_field *payload,
                struct pb_out *reply, char *error, size_t size)
{
    static const struct {
        const char *name;
        int (*fn)(struct call *k);
    } methods[] = {
        {"State", m_state},       {"Create", m_create},    {"Start", m_start},
        {"Delete", m_delete},     {"Pids", m_pids},        {"Pause", m_pause},
        {"Resume", m_resume},     {"Kill", m_kill},        {"Exec", m_exec},
        {"ResizePty", m_resize},  {"CloseIO", m_close_io}, {"Update", m_update},
        {"Wait", m_wait},         {"Stats", m_stats},      {"Connect", m_connect},
        {"Shutdown", m_shutdown},
    };
    struct call k = {
        .s = s, .reply = reply, .error = error, .error_size = size, .payload = payload};
    int code = TTRPC_UNIMPLEMENTED;

    (void)snprintf(error, size, "%s is not implemented", method);
    for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
        if (strcmp(methods[i].name, method) == 0) {
            code = call_read(&k);
            if (code == TTRPC_OK)
                code = methods[i].fn(&k);
        }
    call_free(&k);
    return code;
}
