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
#include "gofer/proto/client.h"
#include "runsc/boot/boot_priv.h"
#include "runsc/control.h"

#define CONTROL_CONNECTIONS_MAX 64

enum conn_state { CONN_IDLE, CONN_EXEC, CONN_WAIT };

struct conn {
    int fd; /* -1: free slot */
    enum conn_state state;
    struct boot_process *proc; /* EXEC: owned; WAIT: init's */
};

struct server {
    struct boot *boot;
    struct conn conns[CONTROL_CONNECTIONS_MAX];
};

static void conn_close(struct server *s, struct conn *c)
{
    if (c->state == CONN_EXEC) {
        /* Whoever started it is gone, and with it the only one who can wait for it. */
        c->proc->abandoned = true;
        if (kernel_kill(s->boot->k, c->proc->pid, SIGKILL, false))
            log_debug("control: process %d ended by itself", c->proc->pid);
    }
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

static int op_start(struct server *s, struct conn *c)
{
    if (s->boot->started)
        return reply_error(c, EINVAL, "container was started already");
    s->boot->started = true;
    kernel_exec_start(s->boot->k, s->boot->init.pid);
    return reply_ok(c, NULL);
}

static const char *status_text(const struct server *s)
{
    return s->boot->started ? "running" : "created";
}

static int op_state(struct server *s, struct conn *c)
{
    return reply_ok(
        c, json_pack("{s:s,s:i}", "status", status_text(s), "init_pid", (int)s->boot->init.pid));
}

static int op_signal(struct server *s, struct conn *c, json_t *req)
{
    int sig = 0, all = 0, pid = c->state == CONN_EXEC ? c->proc->pid : s->boot->init.pid;

    if (json_unpack(req, "{s:i,s?b,s?i}", "sig", &sig, "all", &all, "pid", &pid) || sig < 0 ||
        sig > 64)
        return reply_error(c, EINVAL, "signal: bad arguments");
    /* Before start there is nothing that could catch it: what ends a process ends the container. */
    int r = kernel_kill(s->boot->k, pid, sig, all);
    return r ? reply_error(c, r, strerror(-r)) : reply_ok(c, NULL);
}

static int op_resize(struct server *s, struct conn *c, json_t *req)
{
    int rows = 0, cols = 0;
    struct boot_tty *tty = c->state == CONN_EXEC ? c->proc->tty : s->boot->init.tty;

    if (json_unpack(req, "{s:i,s:i}", "rows", &rows, "cols", &cols) || rows < 0 || cols < 0 ||
        rows > 65535 || cols > 65535)
        return reply_error(c, EINVAL, "resize: bad arguments");
    if (!tty)
        return reply_error(c, ENOTTY, "the process has no terminal");
    int r = boot_tty_resize(tty, (uint16_t)rows, (uint16_t)cols);
    return r ? reply_error(c, r, strerror(-r)) : reply_ok(c, NULL);
}

static int op_wait(struct server *s, struct conn *c, const json_t *req)
{
    const json_t *pid = json_object_get(req, "pid");
    struct boot_process *p = &s->boot->init, *x;

    if (pid) {
        p = NULL;
        list_for_each_entry (x, &s->boot->execs, node)
            if (x->pid == json_integer_value(pid))
                p = x;
        if (json_integer_value(pid) == s->boot->init.pid)
            p = &s->boot->init;
    }
    if (!p || c->state != CONN_IDLE)
        return reply_error(c, ESRCH, "wait: no such process was started in the container");
    c->state = CONN_WAIT;
    c->proc = p;
    return 0;
}

/* Operations that only look, or set something of the whole sandbox. */
static int op_inspect(struct server *s, struct conn *c, const char *op, const json_t *req)
{
    json_t *reply = NULL;
    int r = boot_inspect(s->boot, op, req, &reply);

    if (r == -ENOSYS)
        return reply_error(c, ENOSYS, "this operation is not known");
    return r ? reply_error(c, r, "bad arguments, or out of memory") : reply_ok(c, reply);
}

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

static int load_exec(struct server *s, const struct oci_process *p, const int fds[3],
                     struct conn *c)
{
    char text[512];
    struct boot_process *proc = calloc(1, sizeof(*proc));

    if (!proc)
        return reply_error(c, ENOMEM, "exec: out of memory");
    int r = boot_load(s->boot, p, fds, proc, text, sizeof(text));
    if (r) {
        free(proc);
        return reply_error(c, r, text);
    }
    c->proc = proc;
    c->state = CONN_EXEC;
    list_add_tail(&proc->node, &s->boot->execs);
    kernel_exec_start(s->boot->k, proc->pid);
    return reply_ok(c, json_pack("{s:i}", "pid", (int)proc->pid));
}

static int op_exec(struct server *s, struct conn *c, json_t *req, const int *fds, size_t count)
{
    struct oci_spec *spec;
    struct err e;
    json_t *process = json_object_get(req, "process");

    if (count != 3 || !json_is_object(process) || c->state != CONN_IDLE || !s->boot->started) {
        close_all(fds, count);
        return reply_error(c, EINVAL, "exec: the container is not running, or a bad request");
    }
    if (spec_process_from_json(json_incref(process), "process", &spec, &e)) {
        close_all(fds, count);
        return reply_error(c, e.code ? e.code : EINVAL, e.text);
    }
    int r = load_exec(s, &spec->process, fds, c);
    spec_free(spec);
    return r;
}

static int dispatch(struct server *s, struct conn *c, json_t *req, const int *fds, size_t count)
{
    const char *op = json_string_value(json_object_get(req, "op"));

    if (!op)
        op = "";
    if (strcmp(op, "exec") == 0)
        return op_exec(s, c, req, fds, count);
    close_all(fds, count);
    if (strcmp(op, "start") == 0)
        return op_start(s, c);
    if (strcmp(op, "state") == 0)
        return op_state(s, c);
    if (strcmp(op, "signal") == 0)
        return op_signal(s, c, req);
    if (strcmp(op, "resize") == 0)
        return op_resize(s, c, req);
    if (strcmp(op, "wait") == 0)
        return op_wait(s, c, req);
    return op_inspect(s, c, op, req);
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

/* True when init is among the processes that have ended. */
static bool report_exits(struct server *s)
{
    struct boot *b = s->boot;
    struct boot_process *p, *next;
    char drain[64];
    int code;

    while (read(b->wake[0], drain, sizeof(drain)) > 0)
        ;
    tell_waiters(s);
    list_for_each_entry_safe (p, next, &b->execs, node) {
        if (!p->abandoned || !has_ended(b, p, &code))
            continue;
        boot_process_fini(p);
        list_del(&p->node);
        free(p);
    }
    return has_ended(b, &b->init, &code);
}

enum { POLL_CONTROL, POLL_WAKE, POLL_LIFE, POLL_GOFER, POLL_FIXED };

static void fill_poll(struct server *s, struct pollfd *p)
{
    p[POLL_CONTROL] = (struct pollfd){.fd = s->boot->args->sandbox->control_fd, .events = POLLIN};
    p[POLL_WAKE] = (struct pollfd){.fd = s->boot->wake[0], .events = POLLIN};
    p[POLL_LIFE] = (struct pollfd){.fd = s->boot->args->life_fd, .events = POLLIN};
    /* Hang-up only: what comes in is for whoever has a request under way. */
    p[POLL_GOFER] = (struct pollfd){.fd = gof_client_death_fd(s->boot->gofer)};
    for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
        p[POLL_FIXED + i] = (struct pollfd){.fd = s->conns[i].fd, .events = POLLIN};
}

int boot_serve(struct boot *b)
{
    struct server s = {.boot = b};
    struct pollfd p[POLL_FIXED + CONTROL_CONNECTIONS_MAX];

    for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
        s.conns[i].fd = -1;
    for (;;) {
        fill_poll(&s, p);
        if (poll(p, ARRAY_SIZE(p), -1) < 0)
            continue;
        if (p[POLL_GOFER].revents) {
            log_error("the gofer has ended, and with it the container's files");
            return 128 + SIGKILL;
        }
        if (p[POLL_LIFE].revents)
            return 128 + SIGKILL;
        for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
            if (p[POLL_FIXED + i].revents)
                serve_conn(&s, &s.conns[i]);
        if (p[POLL_CONTROL].revents)
            accept_conn(&s);
        if (p[POLL_WAKE].revents && report_exits(&s)) {
            boot_process_fini(&b->init);
            return b->init.exit_code;
        }
    }
}
