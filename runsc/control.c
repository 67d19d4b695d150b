/* The client's side of the control protocol, and the socket's address. */
#include "runsc/control.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* By way of /proc/self/fd: the state directory's own name may not fit into sun_path. */
static void control_address(int dir_fd, struct sockaddr_un *out)
{
    memset(out, 0, sizeof(*out));
    out->sun_family = AF_UNIX;
    (void)snprintf(out->sun_path, sizeof(out->sun_path), "/proc/self/fd/%d/%s", dir_fd,
                   CONTROL_SOCKET_NAME);
}

int control_listen(int dir_fd, int *out_fd, struct err *e)
{
    struct sockaddr_un sa;
    int fd, rc;

    control_address(dir_fd, &sa);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(e, errno, "cannot make the control socket");
    if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0 ||
        fchmodat(dir_fd, CONTROL_SOCKET_NAME, 0600, 0) != 0 || listen(fd, CONTROL_BACKLOG) != 0) {
        rc = err_errno(e, errno, "cannot bind the control socket");
        (void)close(fd);
        return rc;
    }
    *out_fd = fd;
    return 0;
}

int control_connect(int dir_fd, int *out_fd, struct err *e)
{
    struct sockaddr_un sa;
    int fd, rc;

    control_address(dir_fd, &sa);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(e, errno, "cannot make a socket");
    if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0) {
        rc = err_errno(e, errno, "cannot reach the sandbox");
        (void)close(fd);
        return rc;
    }
    *out_fd = fd;
    return 0;
}

int control_check(const json_t *reply, struct err *e)
{
    const char *msg;
    json_int_t code;

    if (json_is_true(json_object_get(reply, "ok")))
        return 0;
    msg = json_string_value(json_object_get(reply, "msg"));
    code = json_integer_value(json_object_get(reply, "errno"));
    if (code < 1 || code > 4095)
        code = EIO;
    if (msg == NULL || msg[0] == '\0')
        msg = strerror((int)code);
    return err_set(e, (int)code, "%s", msg);
}

static int control_wait(int fd, int timeout_ms, struct err *e)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;

    /* EINTR starts the time again; commands that wait with a bound handle no signals. */
    do {
        n = poll(&p, 1, timeout_ms);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_errno(e, errno, "cannot wait for the sandbox");
    if (n == 0)
        return err_set(e, ETIMEDOUT, "the sandbox does not answer");
    return 0;
}

int control_next(int fd, int timeout_ms, json_t **out_reply, struct err *e)
{
    json_t *reply = NULL;

    if (timeout_ms >= 0 && control_wait(fd, timeout_ms, e) != 0)
        return -1;
    int rc = control_recv(fd, 0, &reply, NULL, 0, NULL);
    if (rc != 0)
        return err_errno(e, rc, "no answer from the sandbox");
    if (control_check(reply, e) != 0) {
        json_decref(reply);
        return -1;
    }
    *out_reply = reply;
    return 0;
}

int control_call(int fd, json_t *req, int timeout_ms, json_t **out_reply, struct err *e)
{
    json_t *reply = NULL;
    int rc;

    if (req == NULL)
        return err_set(e, ENOMEM, "out of memory");
    rc = control_send(fd, req, NULL, 0);
    json_decref(req);
    if (rc != 0)
        return err_errno(e, rc, "cannot send to the sandbox");
    rc = control_next(fd, timeout_ms, &reply, e);
    if (rc != 0 || out_reply == NULL) {
        json_decref(reply);
        return rc;
    }
    *out_reply = reply;
    return 0;
}

int control_request(int dir_fd, json_t *req, int timeout_ms, json_t **out_reply, struct err *e)
{
    int fd = -1, rc;

    if (control_connect(dir_fd, &fd, e) != 0) {
        json_decref(req);
        return -1;
    }
    rc = control_call(fd, req, timeout_ms, out_reply, e);
    (void)close(fd);
    return rc;
}
