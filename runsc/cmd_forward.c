/* port-forward: connections from the host to a port of the sandbox's own loopback. */
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "runsc/cmd.h"
#include "runsc/container.h"
#include "runsc/control.h"

#define FORWARD_TIMEOUT_MS 30000
#define FORWARD_PIECE 16384
/* What a pipe that polls writable takes without blocking. */
#define FORWARD_PIPE_PIECE ((size_t)4096)
#define FORWARD_BACKLOG 64

struct forward_opts {
    const char *listen, *stream;
    int local;     /* port of the host to listen on; -1: none */
    uint16_t port; /* of the guest */
};

/* ---- bytes ---- */

/* One direction. */
struct forward_way {
    int from, to;
    bool to_socket;
    bool open; /* from may still give something */
    size_t at, end;
    char buf[FORWARD_PIECE];
};

static bool forward_busy(const struct forward_way *w)
{
    return w->open || w->at < w->end;
}

static void forward_read(struct forward_way *w)
{
    ssize_t n = read(w->from, w->buf, sizeof(w->buf));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    w->open = n > 0;
    w->at = 0;
    w->end = n > 0 ? (size_t)n : 0;
}

/* Not open any more: whoever should have had the bytes takes none. */
static void forward_write(struct forward_way *w)
{
    const size_t left = w->end - w->at;
    ssize_t n = w->to_socket ? send(w->to, w->buf + w->at, left, MSG_DONTWAIT | MSG_NOSIGNAL)
                             : write(w->to, w->buf + w->at, MIN(left, FORWARD_PIPE_PIECE));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n < 0) {
        w->open = false;
        w->at = w->end = 0;
        return;
    }
    w->at += (size_t)n;
}

static void forward_finish(const struct forward_way *w)
{
    if (w->to_socket)
        (void)shutdown(w->to, SHUT_WR);
    else
        (void)close(w->to);
}

/* Moves what can be moved now; poll says whether fd is ready. */
static void forward_step(struct forward_way *w, short revents)
{
    const bool was_busy = forward_busy(w);

    if (!was_busy || revents == 0)
        return;
    if (w->at < w->end)
        forward_write(w);
    else
        forward_read(w);
    if (!forward_busy(w))
        forward_finish(w);
}

static struct pollfd forward_poll(const struct forward_way *w)
{
    if (w->at < w->end)
        return (struct pollfd){.fd = w->to, .events = POLLOUT};
    return (struct pollfd){.fd = w->open ? w->from : -1, .events = POLLIN};
}

/* Passes bytes between in and out, which may be one socket, and the sandbox's socket. */
static void forward_pump(int in, int out, int sandbox)
{
    static struct forward_way to_guest, to_host;

    (void)signal(SIGPIPE, SIG_IGN);
    to_guest = (struct forward_way){.from = in, .to = sandbox, .to_socket = true, .open = true};
    to_host =
        (struct forward_way){.from = sandbox, .to = out, .to_socket = in == out, .open = true};
    while (forward_busy(&to_guest) || forward_busy(&to_host)) {
        struct pollfd p[] = {
            forward_poll(&to_guest), forward_poll(&to_host), {.fd = sandbox, .events = 0}};
        if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
            return;
        forward_step(&to_guest, p[0].revents);
        forward_step(&to_host, p[1].revents);
        /* Nobody is there any more, and all that was said has been passed on. */
        if ((p[2].revents & POLLHUP) != 0 && !forward_busy(&to_host))
            return;
    }
}

/* ---- connections ---- */

/* A socket whose other end is a connection to the port. */
static int forward_open(const struct state *st, uint16_t port, int *out_fd, struct err *e)
{
    json_t *req = json_pack("{s:s,s:i}", "op", "forward", "port", (int)port), *reply = NULL;
    int pair[2], conn = -1;
    int rc = container_connect(st, &conn, e);

    if (rc != 0)
        goto out_req;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        rc = err_errno(e, errno, "socketpair");
        goto out_conn;
    }
    rc = control_send(conn, req, &pair[1], 1);
    if (rc != 0)
        rc = err_errno(e, rc, "cannot send to the sandbox");
    else
        rc = control_next(conn, FORWARD_TIMEOUT_MS, &reply, e);
    (void)close(pair[1]);
    json_decref(reply);
    if (rc == 0)
        *out_fd = pair[0];
    else
        (void)close(pair[0]);

out_conn:
    (void)close(conn);
out_req:
    json_decref(req);
    return rc;
}

static int forward_stdio(const struct state *st, uint16_t port, struct err *e)
{
    int fd = -1;

    if (forward_open(st, port, &fd, e) != 0)
        return err_wrap(e, "port-forward: port %u", (unsigned)port);
    forward_pump(STDIN_FILENO, STDOUT_FILENO, fd);
    (void)close(fd);
    return 0;
}

static int forward_one(const struct state *st, uint16_t port, int client, struct err *e)
{
    int fd = -1;

    if (forward_open(st, port, &fd, e) != 0)
        return err_wrap(e, "port-forward: port %u", (unsigned)port);
    forward_pump(client, client, fd);
    return 0;
}

static int forward_unix_addr(const char *path, struct sockaddr_un *out, struct err *e)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(out->sun_path))
        return err_set(e, ENAMETOOLONG, "port-forward: the path of the socket is too long");
    memcpy(out->sun_path, path, strlen(path) + 1);
    return 0;
}

/* Somebody listens at path for the one connection. */
static int forward_stream(const struct state *st, const struct forward_opts *o, struct err *e)
{
    struct sockaddr_un sa;

    if (forward_unix_addr(o->stream, &sa, e) != 0)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0) {
        (void)err_errno(e, errno, "port-forward: --stream %s", o->stream);
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    int rc = forward_one(st, o->port, fd, e);
    (void)close(fd);
    return rc;
}

/* ---- listening ---- */

static int forward_listen_unix(const char *path, int *out_fd, struct err *e)
{
    struct sockaddr_un sa;

    if (forward_unix_addr(path, &sa, e) != 0)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Whoever may connect is whoever may use the container. */
    const mode_t old = umask(0177);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0 ||
        listen(fd, FORWARD_BACKLOG) != 0) {
        (void)err_errno(e, errno, "port-forward: --listen %s", path);
        (void)umask(old);
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    (void)umask(old);
    *out_fd = fd;
    return 0;
}

static int forward_listen_tcp(int port, int *out_fd, struct err *e)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0 ||
        listen(fd, FORWARD_BACKLOG) != 0 || getsockname(fd, (struct sockaddr *)&sa, &len) != 0) {
        (void)err_errno(e, errno, "port-forward: port %d of this host", port);
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    printf("127.0.0.1:%u\n", (unsigned)ntohs(sa.sin_port));
    (void)fflush(stdout);
    *out_fd = fd;
    return 0;
}

static void forward_accept(const struct state *st, const struct forward_opts *o, int listener)
{
    struct err e = {0};
    int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    if (client < 0)
        return;
    if (fork() == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        (void)close(listener);
        if (forward_one(st, o->port, client, &e) != 0)
            fprintf(stderr, "runsc: %s\n", e.text);
        _exit(0);
    }
    (void)close(client);
}

/* Until the sandbox ends. */
static int forward_serve(const struct state *st, const struct forward_opts *o, int listener,
                         struct err *e)
{
    int life = -1;

    if (container_connect(st, &life, e) != 0)
        return -1;
    (void)signal(SIGCHLD, SIG_IGN);
    for (;;) {
        struct pollfd p[] = {{.fd = listener, .events = POLLIN}, {.fd = life, .events = POLLIN}};
        if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
            break;
        if (p[1].revents != 0)
            break;
        if (p[0].revents != 0)
            forward_accept(st, o, listener);
    }
    (void)close(life);
    return 0;
}

static int forward_listen(const struct state *st, const struct forward_opts *o, struct err *e)
{
    int fd = -1;
    int rc = o->listen != NULL ? forward_listen_unix(o->listen, &fd, e)
                               : forward_listen_tcp(o->local, &fd, e);

    if (rc != 0)
        return rc;
    rc = forward_serve(st, o, fd, e);
    (void)close(fd);
    if (o->listen != NULL)
        (void)unlink(o->listen);
    return rc;
}

/* ---- the command ---- */

/* [LOCAL:]PORT */
static int forward_ports(const char *text, struct forward_opts *o, struct err *e)
{
    unsigned local = 0, port = 0;
    char end;
    bool both = strchr(text, ':') != NULL;
    int n =
        both ? sscanf(text, "%5u:%5u%c", &local, &port, &end) : sscanf(text, "%5u%c", &port, &end);

    if (n != (both ? 2 : 1) || local > UINT16_MAX || port < 1 || port > UINT16_MAX)
        return err_set(e, EINVAL, "port-forward: \"%.40s\" is no [LOCAL:]PORT", text);
    o->local = both ? (int)local : -1;
    o->port = (uint16_t)port;
    if ((o->listen != NULL) + (o->stream != NULL) + (o->local >= 0) > 1)
        return err_set(e, EINVAL, "port-forward: one of --listen, --stream and LOCAL: only");
    return 0;
}

static int forward_run(const struct state *st, const struct forward_opts *o, struct err *e)
{
    if (!state_process_alive(&st->sentry))
        return err_set(e, ESRCH, "container not running");
    if (cgroup_frozen(container_cgroups(st)))
        return err_set(e, EINVAL, "port-forward: container \"%s\" is paused", st->id);
    if (o->listen != NULL || o->local >= 0)
        return forward_listen(st, o, e);
    return o->stream != NULL ? forward_stream(st, o, e) : forward_stdio(st, o->port, e);
}

int cmd_forward(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct forward_opts o = {.local = -1};
    const struct cmd_opt opts[] = {{"listen", 0, NULL, &o.listen, NULL, NULL},
                                   {"stream", 0, NULL, &o.stream, NULL, NULL}};
    struct state st;
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);

    if (first < 0 || cmd_operands(argc, argv, first, 2, 2, e) != 0 ||
        forward_ports(argv[first + 1], &o, e) != 0 || state_load(g->root, argv[first], &st, e) != 0)
        return -1;
    int rc = forward_run(&st, &o, e);
    state_fini(&st);
    return rc;
}
