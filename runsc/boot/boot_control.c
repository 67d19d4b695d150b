/* The sentry's end of the control protocol (runsc/control.h) and its event loop. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "base/settle.h"
#include "gofer/proto/client.h"
#include "runsc/boot/boot_priv.h"
#include "runsc/control.h"

#define CONTROL_CONNECTIONS_MAX 256
/* What boot_serve waits on: itself, its clients, gofers. */
enum { POLL_CONTROL, POLL_WAKE, POLL_LIFE, POLL_LOOPBACK, POLL_FIXED };
#define POLL_GOFERS (POLL_FIXED + CONTROL_CONNECTIONS_MAX)
#define POLL_MAX (POLL_GOFERS + BOOT_CONTAINERS_MAX)
/* Of a container that joins: its standard streams and the channels of its gofer. */
#define CONTROL_JOIN_FDS_MIN 4

enum conn_state { CONN_IDLE, CONN_EXEC, CONN_WAIT, CONN_KEEPER, CONN_WATCH };

struct conn {
    int fd; /* -1: free slot */
    enum conn_state state;
    struct boot_process
        *proc; /* EXEC: owned; WAIT: another's; KEEPER: init of a joined container; WATCH: init */
    uint64_t told; /* WATCH: of the container's ends for want of memory */
};

struct server {
    struct boot *boot;
    struct conn conns[CONTROL_CONNECTIONS_MAX];
    struct pollfd poll[POLL_MAX];
    struct settling settling;
};

static void conn_close(struct server *s, struct conn *c)
{
    if (c->state == CONN_EXEC) {
        /* Whoever started it is gone, and with it the only one who can wait for it. */
        c->proc->abandoned = true;
        if (kernel_kill(s->boot->k, c->proc->pid, SIGKILL, false))
            log_debug("control: process %d ended by itself", c->proc->pid);
    }
    if (c->state == CONN_KEEPER)
        boot_kill(c->proc->container);
    close(c->fd);
    c->fd = -1;
    c->state = CONN_IDLE;
}

static int reply_ok(struct conn *c, json_t *extra)
{
    json_t *msg = extra ? extra : json_object();
    int r = -ENOMEM;

    if (msg && json_object_set_new(msg, "ok", json_true()) == 0)
        r = control_send(c->fd, msg, NULL, 0);
    json_decref(msg);
    return r;
}

static int reply_error(struct conn *c, int code, const char *text)
{
    json_t *msg =
        json_pack("{s:b,s:i,s:s}", "ok", 0, "errno", code < 0 ? -code : code, "msg", text);
    int r = msg ? control_send(c->fd, msg, NULL, 0) : -ENOMEM;

    json_decref(msg);
    return r;
}

static int send_exit(struct conn *c, int code)
{
    json_t *msg = json_pack("{s:b,s:i}", "ok", 1, "exit", code);
    int r = msg ? control_send(c->fd, msg, NULL, 0) : -ENOMEM;

    json_decref(msg);
    return r;
}

/* The process that signals and sizes on a connection are for. */
static struct boot_process *conn_process(struct conn *c, struct boot_container *ct)
{
    return c->state == CONN_EXEC || c->state == CONN_KEEPER ? c->proc : &ct->init;
}

static int op_start(struct conn *c, struct boot_container *ct)
{
    if (ct->started)
        return reply_error(c, EINVAL, "container was started already");
    ct->started = true;
    kernel_exec_start(ct->init.boot->k, ct->init.pid);
    return reply_ok(c, NULL);
}

static int op_state(struct conn *c, struct boot_container *ct)
{
    return reply_ok(c, json_pack("{s:s,s:i}", "status",
                                 boot_paused(ct) ? "paused"
                                 : ct->started   ? "running"
                                                 : "created",
                                 "init_pid", (int)boot_pid_out(ct, ct->init.pid)));
}

static int op_signal(struct server *s, struct conn *c, struct boot_container *ct, json_t *req)
{
    int sig = 0, all = 0, pid = 0;

    if (json_unpack(req, "{s:i,s?b,s?i}", "sig", &sig, "all", &all, "pid", &pid) || sig < 0 ||
        sig > 64)
        return reply_error(c, EINVAL, "signal: bad arguments");
    pid = pid ? boot_pid_in(ct, pid) : conn_process(c, ct)->pid;
    /* Before start there is nothing that could catch it: what ends a process ends the container. */
    int r = all ? boot_kill_all(ct, sig) : kernel_kill(s->boot->k, pid, sig, false);
    return r ? reply_error(c, r, strerror(-r)) : reply_ok(c, NULL);
}

static int op_resize(struct conn *c, struct boot_container *ct, json_t *req)
{
    int rows = 0, cols = 0;
    struct boot_tty *tty = conn_process(c, ct)->tty;

    if (json_unpack(req, "{s:i,s:i}", "rows", &rows, "cols", &cols) || rows < 0 || cols < 0 ||
        rows > 65535 || cols > 65535)
        return reply_error(c, EINVAL, "resize: bad arguments");
    if (!tty)
        return reply_error(c, ENOTTY, "the process has no terminal");
    int r = boot_tty_resize(tty, (uint16_t)rows, (uint16_t)cols);
    return r ? reply_error(c, r, strerror(-r)) : reply_ok(c, NULL);
}

static int op_wait(struct server *s, struct conn *c, struct boot_container *ct, const json_t *req)
{
    int pid = 0;
    struct boot_process *p = &ct->init, *x;

    if (json_unpack((json_t *)(uintptr_t)req, "{s?i}", "pid", &pid))
        return reply_error(c, EINVAL, "wait: bad arguments");
    if (pid && (pid = boot_pid_in(ct, pid)) != ct->init.pid) {
        p = NULL;
        list_for_each_entry (x, &s->boot->execs, node)
            if (x->pid == pid && x->container == ct)
                p = x;
    }
    if (!p || c->state != CONN_IDLE)
        return reply_error(c, ESRCH, "wait: no such process was started in the container");
    c->state = CONN_WAIT;
    c->proc = p;
    return 0;
}

/* From now on it is told of what happens to the container, till that ends. */
static int op_watch(struct conn *c, struct boot_container *ct)
{
    if (c->state != CONN_IDLE)
        return reply_error(c, EINVAL, "watch: the connection is in use");
    c->state = CONN_WATCH;
    c->proc = &ct->init;
    c->told = atomic_load(&ct->oomed);
    return reply_ok(c, NULL);
}

/* A watcher that does not read is not waited for: the next packet tells of all. */
static void tell_watcher(struct conn *c)
{
    const uint64_t all = atomic_load(&c->proc->container->oomed);

    if (all == c->told)
        return;
    json_t *msg =
        json_pack("{s:b,s:s,s:I}", "ok", 1, "event", "oom", "count", (json_int_t)(all - c->told));
    if (msg && control_post(c->fd, msg) == 0)
        c->told = all;
    json_decref(msg);
}

static void tell_watchers(struct server *s)
{
    for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
        if (s->conns[i].fd >= 0 && s->conns[i].state == CONN_WATCH)
            tell_watcher(&s->conns[i]);
}

/* Ends a container that joined; answered as `wait` is. */
static int op_end(struct server *s, struct conn *c, struct boot_container *ct)
{
    if (ct == &s->boot->root || c->state != CONN_IDLE)
        return reply_error(c, EINVAL, "end: the sandbox's own container");
    boot_kill(ct);
    c->state = CONN_WAIT;
    c->proc = &ct->init;
    return 0;
}

/* Operations that only look, or set something of the whole sandbox. */
static int op_inspect(struct conn *c, struct boot_container *ct, const char *op, const json_t *req)
{
    json_t *reply = NULL;
    int r = boot_inspect(ct, op, req, &reply);

    if (r == -ENOSYS)
        return reply_error(c, ENOSYS, "this operation is not known");
    return r ? reply_error(c, r, "bad arguments, or out of memory") : reply_ok(c, reply);
}

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

static int load_exec(struct server *s, struct boot_container *ct, const struct oci_process *p,
                     const char *path, const int fds[3], struct conn *c)
{
    struct boot_text t;
    struct boot_process *proc = calloc(1, sizeof(*proc));

    if (!proc) {
        close_all(fds, 3);
        return reply_error(c, ENOMEM, "exec: out of memory");
    }
    int r = boot_load(s->boot, ct, p, path, fds, proc, &t);
    if (r) {
        free(proc);
        return reply_error(c, r, t.text);
    }
    c->proc = proc;
    c->state = CONN_EXEC;
    list_add_tail(&proc->node, &s->boot->execs);
    kernel_exec_start(s->boot->k, proc->pid);
    return reply_ok(c, json_pack("{s:i}", "pid", (int)boot_pid_out(ct, proc->pid)));
}

/* "path" is given for hooks, which run before the container is started. */
static int op_exec(struct server *s, struct conn *c, struct boot_container *ct, json_t *req,
                   const int *fds, size_t count)
{
    struct oci_spec *spec;
    struct err e;
    json_t *process = json_object_get(req, "process");
    const char *path = json_string_value(json_object_get(req, "path"));

    if (boot_paused(ct)) {
        close_all(fds, count);
        return reply_error(c, EBUSY, "cannot exec in a paused container");
    }
    if (count != 3 || !json_is_object(process) || c->state != CONN_IDLE ||
        ct->started == (path != NULL)) {
        close_all(fds, count);
        return reply_error(c, EINVAL, "exec: the container is not running, or a bad request");
    }
    if (spec_process_from_json(json_incref(process), "process", &spec, &e)) {
        close_all(fds, count);
        return reply_error(c, e.code ? e.code : EINVAL, e.text);
    }
    int r = load_exec(s, ct, &spec->process, path, fds, c);
    spec_free(spec);
    return r;
}

static int op_create(struct server *s, struct conn *c, json_t *req, const int *fds, size_t count)
{
    struct boot_container *ct;
    struct boot_text t;
    struct oci_spec *spec;
    struct err e;
    const char *id = json_string_value(json_object_get(req, "id"));
    json_t *doc = json_object_get(req, "spec");

    if (count < CONTROL_JOIN_FDS_MIN || !id || !json_is_object(doc) || c->state != CONN_IDLE) {
        close_all(fds, count);
        return reply_error(c, EINVAL, "create: a bad request");
    }
    if (spec_from_json(json_incref(doc), "config.json", &spec, &e)) {
        close_all(fds, count);
        return reply_error(c, e.code ? e.code : EINVAL, e.text);
    }
    json_t *profile = json_object_get(req, "seccomp");
    struct guest_seccomp seccomp = {0};
    if (profile && guest_seccomp_parse(profile, &seccomp)) {
        close_all(fds, count);
        spec_free(spec);
        return reply_error(c, EINVAL, "create: a bad seccomp program");
    }
    const struct boot_joiner j = {
        .id = id,
        .pid_like = json_string_value(json_object_get(req, "pid_like")),
        .spec = spec,
        .seccomp = seccomp,
        .stdio = fds,
        .gofer_fds = fds + 3,
        .gofer_count = count - 3,
    };
    int r = boot_join(s->boot, &j, &ct, &t);
    if (r)
        return reply_error(c, r, t.text);
    c->proc = &ct->init;
    c->state = CONN_KEEPER;
    return reply_ok(c, json_pack("{s:i}", "pid", (int)boot_pid_out(ct, ct->init.pid)));
}

static int dispatch_plain(struct server *s, struct conn *c, struct boot_container *ct,
                          const char *op, json_t *req)
{
    if (strcmp(op, "start") == 0)
        return op_start(c, ct);
    if (strcmp(op, "state") == 0)
        return op_state(c, ct);
    if (strcmp(op, "signal") == 0)
        return op_signal(s, c, ct, req);
    if (strcmp(op, "resize") == 0)
        return op_resize(c, ct, req);
    if (strcmp(op, "wait") == 0)
        return op_wait(s, c, ct, req);
    if (strcmp(op, "end") == 0)
        return op_end(s, c, ct);
    if (strcmp(op, "watch") == 0)
        return op_watch(c, ct);
    if (strcmp(op, "pause") == 0 || strcmp(op, "resume") == 0) {
        boot_pause(ct, op[0] == 'p');
        return reply_ok(c, NULL);
    }
    return op_inspect(c, ct, op, req);
}

static int op_network(struct server *s, struct conn *c, json_t *req, const int *fds, size_t count)
{
    const int r = boot_network(s->boot, req, fds, count);

    return r ? reply_error(c, r, "the links could not be taken over") : reply_ok(c, NULL);
}

static int op_resolver(struct server *s, struct conn *c, json_t *req, const int *fds, size_t count)
{
    const int r = boot_resolver(s->boot, req, fds, count);

    return r ? reply_error(c, r, strerror(-r)) : reply_ok(c, NULL);
}

/* req NULL: what brings connections by itself. */
static int op_forward(struct server *s, struct conn *c, json_t *req, const int *fds, size_t count)
{
    const int r = req ? boot_forward(s->boot, req, fds, count) : boot_loopback(s->boot, fds, count);

    return r ? reply_error(c, r, strerror(-r)) : reply_ok(c, NULL);
}

static int dispatch(struct server *s, struct conn *c, json_t *req, const int *fds, size_t count)
{
    const char *op = json_string_value(json_object_get(req, "op"));
    const char *id = json_string_value(json_object_get(req, "container"));
    struct boot_container *ct = boot_find(s->boot, id);

    if (!op)
        op = "";
    if (strcmp(op, "create") == 0)
        return op_create(s, c, req, fds, count);
    if (ct && strcmp(op, "exec") == 0)
        return op_exec(s, c, ct, req, fds, count);
    if (strcmp(op, "network") == 0)
        return op_network(s, c, req, fds, count);
    if (strcmp(op, "forward") == 0)
        return op_forward(s, c, req, fds, count);
    if (strcmp(op, "resolver") == 0)
        return op_resolver(s, c, req, fds, count);
    if (strcmp(op, "loopback") == 0)
        return op_forward(s, c, NULL, fds, count);
    close_all(fds, count);
    if (!ct)
        return reply_error(c, ESRCH, "container not running");
    return dispatch_plain(s, c, ct, op, req);
}

static void serve_conn(struct server *s, struct conn *c)
{
    json_t *req;
    int fds[CONTROL_FDS_MAX];
    size_t count = 0;
    int r = control_recv(c->fd, MSG_DONTWAIT, &req, fds, CONTROL_FDS_MAX, &count);

    if (r == -EAGAIN)
        return;
    if (r) {
        if (r != -EPIPE)
            (void)!reply_error(c, r, "malformed request");
        conn_close(s, c);
        return;
    }
    r = dispatch(s, c, req, fds, count);
    json_decref(req);
    if (r)
        conn_close(s, c);
}

static void accept_conn(struct server *s)
{
    int fd = accept4(s->boot->args->sandbox->control_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
        if (s->conns[i].fd < 0) {
            s->conns[i] = (struct conn){.fd = fd};
            return;
        }
    close(fd);
}

static bool has_ended(struct boot *b, const struct boot_process *p, int *out_code)
{
    mutex_lock(&b->mu);
    bool ended = p->ended;
    *out_code = p->exit_code;
    mutex_unlock(&b->mu);
    return ended;
}

/* Tells those who wait for processes that have ended. */
static void tell_waiters(struct server *s)
{
    for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++) {
        struct conn *c = &s->conns[i];
        int code;
        if (c->fd < 0 || c->state == CONN_IDLE || !has_ended(s->boot, c->proc, &code))
            continue;
        /* All of its output is out before its end is told. */
        boot_process_fini(c->proc);
        if (send_exit(c, code))
            log_debug("control: a waiting client is gone");
        conn_close(s, c);
    }
}

static void sweep_execs(struct boot *b)
{
    struct boot_process *p, *next;
    int code;

    list_for_each_entry_safe (p, next, &b->execs, node) {
        if (!p->abandoned || !has_ended(b, p, &code))
            continue;
        boot_process_fini(p);
        list_del(&p->node);
        free(p);
    }
}

/* It ended after those who wait for it were told: they are told the next time. */
static bool is_watched(const struct server *s, const struct boot_container *ct)
{
    for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
        if (s->conns[i].fd >= 0 && s->conns[i].state != CONN_IDLE && s->conns[i].proc == &ct->init)
            return true;
    return false;
}

static void sweep_containers(struct server *s)
{
    struct boot *b = s->boot;
    struct boot_container *ct, *next;
    int code;

    list_for_each_entry_safe (ct, next, &b->containers, node)
        if (ct != &b->root && has_ended(b, &ct->init, &code) && !is_watched(s, ct))
            boot_leave(ct);
}

/* True when the sandbox's own init is among the processes that have ended. */
static bool report_exits(struct server *s)
{
    struct boot *b = s->boot;
    char drain[64];
    int code;

    while (read(b->wake[0], drain, sizeof(drain)) > 0)
        ;
    tell_watchers(s);
    tell_waiters(s);
    sweep_execs(b);
    boot_sweep_forwards(b);
    sweep_containers(s);
    return has_ended(b, &b->root.init, &code);
}

/* Hang-up only: what comes in from a gofer is for whoever has a request under way. */
static size_t fill_gofers(struct boot *b, struct pollfd *p)
{
    const struct boot_container *ct;
    size_t n = 0;

    list_for_each_entry (ct, &b->containers, node)
        p[n++] = (struct pollfd){.fd = ct->gofer_dead ? -1 : gof_client_death_fd(ct->gofer)};
    return n;
}

static nfds_t fill_poll(struct server *s)
{
    struct pollfd *p = s->poll;

    p[POLL_CONTROL] = (struct pollfd){.fd = s->boot->args->sandbox->control_fd, .events = POLLIN};
    p[POLL_WAKE] = (struct pollfd){.fd = s->boot->wake[0], .events = POLLIN};
    p[POLL_LIFE] = (struct pollfd){.fd = s->boot->args->life_fd, .events = POLLIN};
    p[POLL_LOOPBACK] = (struct pollfd){.fd = s->boot->loopback_fd, .events = POLLIN};
    for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
        p[POLL_FIXED + i] = (struct pollfd){.fd = s->conns[i].fd, .events = POLLIN};
    return POLL_GOFERS + fill_gofers(s->boot, p + POLL_GOFERS);
}

/* In the order of fill_gofers, before the list changes. True: the sandbox's own is gone. */
static bool check_gofers(struct boot *b, const struct pollfd *p)
{
    struct boot_container *ct;
    size_t n = 0;

    list_for_each_entry (ct, &b->containers, node) {
        if (!p[n++].revents)
            continue;
        log_error("container %s: its gofer has ended, and with it its files", ct->id);
        ct->gofer_dead = true;
        gof_client_gone(ct->gofer);
        if (ct == &b->root)
            return true;
        boot_kill(ct);
    }
    return false;
}

/* As poll(2) takes it. */
static int serve_wait_ms(struct server *s)
{
    int limits = boot_limits_look(s->boot), settling = settling_wait_ms(&s->settling);

    if (limits < 0 || settling < 0)
        return MAX(limits, settling);
    return MIN(limits, settling);
}

/* True: the sandbox ends, with *out_code. */
static bool serve_once(struct server *s, int *out_code)
{
    struct boot *b = s->boot;
    const struct pollfd *p = s->poll;

    *out_code = 128 + SIGKILL;
    if (poll(s->poll, fill_poll(s), serve_wait_ms(s)) < 0)
        return false;
    if (check_gofers(b, p + POLL_GOFERS) || p[POLL_LIFE].revents)
        return true;
    for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
        if (p[POLL_FIXED + i].revents)
            serve_conn(s, &s->conns[i]);
    if (p[POLL_CONTROL].revents) {
        accept_conn(s);
        /* What is asked for is likely to be the start of something. */
        s->settling = (struct settling){0};
    }
    if (p[POLL_LOOPBACK].revents)
        boot_loopback_accept(b);
    if (!p[POLL_WAKE].revents || !report_exits(s))
        return false;
    boot_process_fini(&b->root.init);
    *out_code = b->root.init.exit_code;
    return true;
}

int boot_serve(struct boot *b)
{
    struct server *s = calloc(1, sizeof(*s));
    int code;

    if (!s)
        return 125;
    s->boot = b;
    for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
        s->conns[i].fd = -1;
    while (!serve_once(s, &code))
        ;
    free(s);
    return code;
}
