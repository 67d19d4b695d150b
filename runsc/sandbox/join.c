/* A container joins a sandbox: its files come with a gofer, its init is made by the sentry. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
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
    json_t *req = json_pack("{s:s,s:s,s:O}", "op", "create", "id", a->id, "spec", a->spec->json);
    if (!req)
        return err_set(e, ENOMEM, "out of memory");
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
static NORETURN void keeper_child(const struct sandbox_args *a, int conn)
{
    struct keeper k = {.conn = conn, .master = -1, .slave = a->console_fd};

    prctl(PR_SET_NAME, "runsc-keeper", 0, 0, 0);
    launch_enter_cgroups(a);
    keeper_detach(&k, -1);
    _exit(keeper_wait(&k));
}

static int start_keeper(const struct sandbox_args *a, int conn, pid_t *out_pid, struct err *e)
{
    pid_t pid = fork();

    if (pid == 0)
        keeper_child(a, conn);
    if (pid < 0)
        return err_errno(e, errno, "fork the keeper");
    *out_pid = pid;
    return 0;
}

int sandbox_join(const struct sandbox_args *a, struct sandbox *out, struct err *e)
{
    const int conn = a->control_fd;
    int fds[GOFER_CHANNELS];
    pid_t gofer = -1, keeper = -1;

    if (launch_gofer(a, fds, &gofer, e))
        return -1;
    int r = join_request(a, conn, fds, e);
    for (size_t i = 0; i < GOFER_CHANNELS; i++)
        close(fds[i]);
    if (!r)
        r = start_keeper(a, conn, &keeper, e);
    if (r) {
        launch_end_child(&gofer);
        return r;
    }
    *out = (struct sandbox){.sentry_pid = keeper, .gofer_pid = gofer};
    return 0;
}
