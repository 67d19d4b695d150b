#include "runsc/sandbox/launch.h"

#include <errno.h>
#include <linux/sched.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gofer/proto/area.h"
#include "runsc/sandbox/mounts.h"

/* A process that moves to another cgroup waits for a grace period of the host's RCU, many
 * milliseconds on a busy host; one that is made there does not. */
static pid_t fork_inside(int dir_fd, uint64_t namespaces)
{
    struct clone_args c = {
        .flags = namespaces | CLONE_INTO_CGROUP,
        .exit_signal = SIGCHLD,
        .cgroup = (unsigned)dir_fd,
    };

    return (pid_t)syscall(SYS_clone3, &c, sizeof(c));
}

pid_t launch_fork(const struct sandbox_args *a, uint64_t namespaces, bool *out_inside)
{
    *out_inside = a->cgroup_dir_fd >= 0;
    if (*out_inside) {
        const pid_t pid = fork_inside(a->cgroup_dir_fd, namespaces);
        if (pid >= 0)
            return pid;
    }
    /* Not possible here, or not allowed: then the child says why. */
    *out_inside = false;
    if (namespaces == 0)
        return fork();
    return (pid_t)syscall(SYS_clone, namespaces | SIGCHLD, NULL, NULL, NULL, NULL);
}

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

static NORETURN void gofer_child(const struct sandbox_args *a, bool inside,
                                 const struct gofer_config *cfg)
{
    prctl(PR_SET_NAME, "runsc-gofer", 0, 0, 0);
    launch_one_arena();
    /* Not of the caller's terminal: what is typed there is for runsc to pass on. */
    setsid();
    if (!inside)
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

int launch_gofer(const struct sandbox_args *a, int fds[GOFER_CHANNELS], pid_t *out_pid,
                 struct err *e)
{
    struct gofer_config cfg;
    int pairs[GOFER_CHANNELS][2], server[GOFER_CHANNELS];

    int r = gof_pairs_new(pairs, GOFER_CHANNELS);
    if (r)
        return err_errno(e, -r, "channels of the gofer");
    for (size_t i = 0; i < GOFER_CHANNELS; i++)
        server[i] = pairs[i][1];
    if (mounts_gofer_config(a, server, GOFER_CHANNELS, &cfg, e)) {
        close_pairs(pairs, GOFER_CHANNELS);
        return -1;
    }
    bool inside;
    pid_t pid = launch_fork(a, 0, &inside);
    if (pid == 0)
        gofer_child(a, inside, &cfg);
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
