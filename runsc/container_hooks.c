/* startContainer hooks: programs of the container's own file system, run in it before it starts. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runsc/container.h"
#include "runsc/control.h"

static json_t *guest_strings(const struct str_list *l)
{
    json_t *out = json_array();

    for (size_t i = 0; i < l->count; i++)
        (void)json_array_append_new(out, json_string(l->v[i]));
    return out;
}

/* The container's own process with the hook's words: its user, capabilities and limits. */
static json_t *guest_process(const struct state *st, const struct oci_hook *h)
{
    json_t *p = json_deep_copy(st->process);

    (void)json_object_set_new(
        p, "args", h->args.count > 0 ? guest_strings(&h->args) : json_pack("[s]", h->path));
    (void)json_object_set_new(p, "env", guest_strings(&h->env));
    (void)json_object_set_new(p, "cwd", json_string("/"));
    (void)json_object_set_new(p, "terminal", json_false());
    return p;
}

/* The state on standard input; it fits a pipe's buffer many times over. */
static int guest_input(struct state *st, int *out_fd, struct err *e)
{
    json_t *doc = container_state_json(st, "created");
    char *text = json_dumps(doc, JSON_COMPACT);
    int p[2], rc = 0;

    json_decref(doc);
    if (text == NULL)
        return err_set(e, ENOMEM, "out of memory");
    if (pipe2(p, O_CLOEXEC) != 0) {
        free(text);
        return err_errno(e, errno, "pipe");
    }
    if (write(p[1], text, strlen(text)) < 0)
        rc = err_errno(e, errno, "pipe");
    (void)close(p[1]);
    free(text);
    if (rc != 0)
        (void)close(p[0]);
    else
        *out_fd = p[0];
    return rc;
}

static int guest_wait(int conn, const struct oci_hook *h, struct err *e)
{
    json_t *reply = NULL;
    int timeout_ms = h->timeout_s == 0 ? -1 : (int)(h->timeout_s * 1000);

    if (control_next(conn, timeout_ms, &reply, e) != 0) {
        if (e->code == ETIMEDOUT)
            return err_set(e, ETIMEDOUT, "it did not end within %u seconds", h->timeout_s);
        return -1;
    }
    json_int_t code = json_integer_value(json_object_get(reply, "exit"));
    json_decref(reply);
    return code == 0 ? 0 : err_set(e, EIO, "exit status %lld", (long long)code);
}

static int guest_hook(struct state *st, const struct oci_hook *h, struct err *e)
{
    int conn = -1, fds[3] = {-1, -1, -1}, rc;
    json_t *reply = NULL;

    if (guest_input(st, &fds[0], e) != 0)
        return -1;
    fds[1] = fds[2] = open("/dev/null", O_WRONLY | O_CLOEXEC);
    rc = fds[1] < 0 ? err_errno(e, errno, "/dev/null") : container_connect(st, &conn, e);
    if (rc == 0) {
        json_t *req = container_op(st, "exec");
        (void)json_object_set_new(req, "process", guest_process(st, h));
        (void)json_object_set_new(req, "path", json_string(h->path));
        rc = control_send(conn, req, fds, 3);
        json_decref(req);
        rc = rc != 0 ? err_errno(e, rc, "the sandbox does not answer")
                     : control_next(conn, -1, &reply, e);
        json_decref(reply);
    }
    if (rc == 0)
        rc = guest_wait(conn, h, e);
    /* One that is still running is killed by this. */
    if (conn >= 0)
        (void)close(conn);
    (void)close(fds[0]);
    if (fds[1] >= 0)
        (void)close(fds[1]);
    return rc;
}

int container_guest_hooks(struct state *st, const struct oci_hook_list *list, struct err *e)
{
    for (size_t i = 0; i < list->count; i++)
        if (guest_hook(st, &list->v[i], e) != 0)
            return err_wrap(e, "startContainer hook %s", list->v[i].path);
    return 0;
}
