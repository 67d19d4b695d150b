#include "runsc/watcher.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/container.h"
#include "runsc/state.h"

/* Nothing of the caller's may stay open here: a pipe to a pager would never see its end. */
static void watcher_let_go(int keep)
{
    int null_fd = open("/dev/null", O_RDWR);

    for (int i = 0; i < 3 && null_fd >= 0; i++)
        (void)dup2(null_fd, i);
    (void)dup2(keep, 3);
    (void)syscall(SYS_close_range, 4u, ~0u, 0u);
    (void)!chdir("/");
}

static NORETURN void watcher_main(const char *root, const char *id, int fd)
{
    struct state st;
    struct err e;
    char byte;
    ssize_t n;

    (void)prctl(PR_SET_NAME, "runsc-watcher", 0, 0, 0);
    (void)setsid();
    watcher_let_go(fd);
    do
        n = read(3, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n == 0 && state_load(root, id, &st, &e) == 0)
        container_destroy(&st);
    _exit(0);
}

int watcher_start(const char *root, const char *id, int *out_fd, struct err *e)
{
    int p[2];

    if (pipe2(p, O_CLOEXEC) != 0)
        return err_errno(e, errno, "pipe");
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(p[1]);
        /* Twice, so that it is nobody's child who waits for any. */
        if (fork() == 0)
            watcher_main(root, id, p[0]);
        _exit(0);
    }
    int code = errno;
    (void)close(p[0]);
    if (pid < 0) {
        (void)close(p[1]);
        return err_errno(e, code, "fork the watcher");
    }
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    *out_fd = p[1];
    return 0;
}

void watcher_dismiss(int *fd)
{
    if (*fd < 0)
        return;
    (void)!write(*fd, "d", 1);
    (void)close(*fd);
    *fd = -1;
}
