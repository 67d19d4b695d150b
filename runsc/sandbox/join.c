/* A container joins a sandbox: its files come with a gofer, its init is made by the sentry. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runsc/control.h"
#include "runsc/keeper.h"
#include "runsc/sandbox/launch.h"

_Static_assert(3 + GOFER_CHANNELS <= CONTROL_FDS_MAX, "one packet carries all of them");

static int join_request(const struct sandbox_args *a, int conn, const int *gofer_fds, struct err *e)
{
    int fds[3 + GOFER_CHANNELS];

    memcpy(fds, a->stdio, 3 * sizeof(int));
    memcpy(fds + 3, gofer_fds, GOFER_CHANNELS * sizeof(int));
    json_t *req = json_pack("{s:s,s:s,s:O,s:s*}", "op", "create", "id", a->id, "spec",
                            a->spec->json, "pid_like", a->pid_like);
    if (!req)
        return err_set(e, ENOMEM, "out of memory");
    if (a->seccomp.insns != NULL &&
        json_object_set_new(req, "seccomp", guest_seccomp_json(&a->seccomp)) != 0) {
        json_decref(req);
        return err_set(e, ENOMEM, "out of memory");
    }
    int r = control_send(conn, req, fds, ARRAY_SIZE(fds));
    json_decref(req);
    if (r == -EMSGSIZE)
        return err_set(e, E2BIG, "config.json is too large for a container that joins a sandbox");
    return r ? err_errno(e, r, "the sandbox does not answer") : 0;
}

static int join_reply(int conn, struct err *e)
{
    json_t *reply = NULL;
    int r = control_recv(conn, 0, &reply, NULL, 0, NULL);

    if (r)
        return err_errno(e, r, "the sandbox does not answer");
    r = control_check(reply, e);
    json_decref(reply);
    return r;
}

/* Nothing of the caller's stays open in it: whoever reads the other end of a pipe waits for that.
 */
static NORETURN void keeper_child(const struct sandbox_args *a, bool inside, int conn,
                                  const int sync[2])
{
    struct keeper k = {.conn = conn, .master = -1, .slave = a->console_fd};
    char byte;

    /* Nobody would know of it if the caller ended now. */
    close(sync[1]);
    if (read(sync[0], &byte, 1) != 1)
        _exit(128 + SIGKILL);
    prctl(PR_SET_NAME, "runsc-keeper", 0, 0, 0);
    if (!inside)
        launch_enter_cgroups(a);
    keeper_detach(&k, -1);
    _exit(keeper_wait(&k));
}

/* Waits for a byte in sync[0] before it is one. */
static int fork_keeper(const struct sandbox_args *a, int conn, const int sync[2], struct sandbox *s,
                       struct err *e)
{
    bool inside;

    s->sentry_pid = launch_fork(a, 0, &inside);
    if (s->sentry_pid == 0)
        keeper_child(a, inside, conn, sync);
    if (s->sentry_pid < 0)
        return err_errno(e, errno, "fork the keeper");
    return a->made(a->made_arg, s, e);
}

/* The sandbox is asked first: it works while the keeper is made. */
static int join_ask(const struct sandbox_args *a, const int *gofer_fds, struct sandbox *s,
                    struct err *e)
{
    const int conn = a->control_fd;
    int sync[2];

    if (pipe2(sync, O_CLOEXEC))
        return err_errno(e, errno, "pipe");
    int r = join_request(a, conn, gofer_fds, e);
    if (!r)
        r = fork_keeper(a, conn, sync, s, e);
    close(sync[0]);
    if (!r)
        r = join_reply(conn, e);
    if (!r && write(sync[1], "", 1) != 1)
        r = err_errno(e, errno, "keeper");
    close(sync[1]);
    return r;
}

int sandbox_join(const struct sandbox_args *a, struct sandbox *out, struct err *e)
{
    int fds[GOFER_CHANNELS];
    struct sandbox s = {.sentry_pid = -1, .gofer_pid = -1};

    if (launch_gofer(a, fds, &s.gofer_pid, e))
        return -1;
    int r = join_ask(a, fds, &s, e);
    for (size_t i = 0; i < GOFER_CHANNELS; i++)
        close(fds[i]);
    if (r) {
        launch_end_child(&s.sentry_pid);
        launch_end_child(&s.gofer_pid);
        return r;
    }
    *out = s;
    return 0;
}
