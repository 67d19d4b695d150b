#include "runsc/sandbox/launch.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/sandbox/mounts.h"

void launch_enter_cgroups(const struct sandbox_args *a)
{
    for (size_t i = 0; i < a->cgroup_fd_count; i++)
        if (write(a->cgroup_fds[i], "0", 1) != 1)
            _exit(126);
}

void launch_one_arena(void)
{
    (void)mallopt(M_ARENA_MAX, 1);
}

void launch_end_child(pid_t *pid)
{
    if (*pid <= 0)
        return;
    kill(*pid, SIGKILL);
    while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR)
        ;
    *pid = -1;
}

static NORETURN void gofer_child(const struct sandbox_args *a, const struct gofer_config *cfg)
{
    prctl(PR_SET_NAME, "runsc-gofer", 0, 0, 0);
    launch_one_arena();
    /* Not of the caller's terminal: what is typed there is for runsc to pass on. */
    setsid();
    launch_enter_cgroups(a);
    _exit(gofer_main(cfg));
}

static void close_pairs(int (*pairs)[2], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
}

static int open_pairs(int (*pairs)[2], struct err *e)
{
    for (size_t i = 0; i < GOFER_CHANNELS; i++)
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pairs[i])) {
            int code = errno;
            close_pairs(pairs, i);
            return err_errno(e, code, "socketpair");
        }
    return 0;
}

int launch_gofer(const struct sandbox_args *a, int fds[GOFER_CHANNELS], pid_t *out_pid,
                 struct err *e)
{
    struct gofer_config cfg;
    int pairs[GOFER_CHANNELS][2], server[GOFER_CHANNELS];

    if (open_pairs(pairs, e))
        return -1;
    for (size_t i = 0; i < GOFER_CHANNELS; i++)
        server[i] = pairs[i][1];
    if (mounts_gofer_config(a, server, GOFER_CHANNELS, &cfg, e)) {
        close_pairs(pairs, GOFER_CHANNELS);
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0)
        gofer_child(a, &cfg);
    int code = errno;
    mounts_gofer_config_free(&cfg);
    if (pid < 0) {
        close_pairs(pairs, GOFER_CHANNELS);
        return err_errno(e, code, "fork the gofer");
    }
    for (size_t i = 0; i < GOFER_CHANNELS; i++) {
        close(server[i]);
        fds[i] = pairs[i][0];
    }
    *out_pid = pid;
    return 0;
}
