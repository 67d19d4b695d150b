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
    json_t *reply = NULL;

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
    if (!r)
        r = control_recv(conn, 0, &reply, NULL, 0, NULL);
    if (r)
        return err_errno(e, r, "the sandbox does not answer");
    r = control_check(reply, e);
    json_decref(reply);
    return r;
}

/* Nothing of the caller's stays open in it: whoever reads the other end of a pipe waits for that.
 */
static NORETURN void keeper_child(const struct sandbox_args *a, int conn, const int sync[2])
{
    struct keeper k = {.conn = conn, .master = -1, .slave = a->console_fd};
    char byte;

    /* Nobody would know of it if the caller ended now. */
    close(sync[1]);
    if (read(sync[0], &byte, 1) != 1)
        _exit(128 + SIGKILL);
    prctl(PR_SET_NAME, "runsc-keeper", 0, 0, 0);
    launch_enter_cgroups(a);
    keeper_detach(&k, -1);
    _exit(keeper_wait(&k));
}

static int start_keeper(const struct sandbox_args *a, int conn, struct sandbox *s, struct err *e)
{
    int sync[2], r = 0;

    if (pipe2(sync, O_CLOEXEC))
        return err_errno(e, errno, "pipe");
    s->sentry_pid = fork();
    if (s->sentry_pid == 0)
        keeper_child(a, conn, sync);
    if (s->sentry_pid < 0)
        r = err_errno(e, errno, "fork the keeper");
    close(sync[0]);
    if (!r)
        r = a->made(a->made_arg, s, e);
    if (!r && write(sync[1], "", 1) != 1)
        r = err_errno(e, errno, "keeper");
    close(sync[1]);
    if (r)
        launch_end_child(&s->sentry_pid);
    return r;
}

int sandbox_join(const struct sandbox_args *a, struct sandbox *out, struct err *e)
{
    const int conn = a->control_fd;
    int fds[GOFER_CHANNELS];
    struct sandbox s = {.sentry_pid = -1, .gofer_pid = -1};

    if (launch_gofer(a, fds, &s.gofer_pid, e))
        return -1;
    int r = join_request(a, conn, fds, e);
    for (size_t i = 0; i < GOFER_CHANNELS; i++)
        close(fds[i]);
    if (!r)
        r = start_keeper(a, conn, &s, e);
    if (r) {
        launch_end_child(&s.gofer_pid);
        return r;
    }
    *out = s;
    return 0;
}
