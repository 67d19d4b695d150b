#include "runsc/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* glibc 2.36 lacks prototypes that say this much. */
static int hooks_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0u);
}

static NORETURN void hooks_child(const struct oci_hook *h, int input)
{
    sigset_t none;

    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    static char *const no_env[] = {NULL};

    (void)dup2(input, STDIN_FILENO);
    (void)signal(SIGPIPE, SIG_DFL);
    if (h->args.count > 0)
        (void)execve(h->path, (char *const *)(uintptr_t)h->args.v,
                     h->env.count > 0 ? (char *const *)(uintptr_t)h->env.v : no_env);
    char *const argv[] = {(char *)(uintptr_t)h->path, NULL};
    if (h->args.count == 0)
        (void)execve(h->path, argv, h->env.count > 0 ? (char *const *)(uintptr_t)h->env.v : no_env);
    _exit(127);
}

/* The state fits a pipe's buffer many times over, so writing before the hook reads cannot block. */
static int hooks_start(const struct oci_hook *h, const char *text, pid_t *out_pid, struct err *e)
{
    int p[2];

    if (pipe2(p, O_CLOEXEC) != 0)
        return err_errno(e, errno, "pipe");
    *out_pid = fork();
    if (*out_pid == 0)
        hooks_child(h, p[0]);
    int code = errno;
    (void)close(p[0]);
    if (*out_pid > 0)
        (void)!write(p[1], text, strlen(text));
    (void)close(p[1]);
    return *out_pid < 0 ? err_errno(e, code, "fork") : 0;
}

static int hooks_wait(const struct oci_hook *h, pid_t pid, struct err *e)
{
    int status = 0;
    int timeout = h->timeout_s == 0 || h->timeout_s > 1000000 ? -1 : (int)h->timeout_s * 1000;
    struct pollfd p = {.fd = hooks_pidfd(pid), .events = POLLIN};
    int n;

    do
        n = poll(&p, 1, timeout);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        (void)kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (p.fd >= 0)
        (void)close(p.fd);
    if (n == 0)
        return err_set(e, ETIMEDOUT, "it did not end within %u seconds", h->timeout_s);
    if (WIFSIGNALED(status))
        return err_set(e, EIO, "signal %d ended it", WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        return err_set(e, EIO, "exit status %d", WEXITSTATUS(status));
    return 0;
}

int hooks_run(const struct oci_hook_list *list, const char *stage, const json_t *state,
              struct err *e)
{
    int rc = 0;

    if (list->count == 0)
        return 0;
    char *text = json_dumps(state, JSON_COMPACT);
    if (text == NULL)
        return err_set(e, ENOMEM, "out of memory");
    for (size_t i = 0; i < list->count && rc == 0; i++) {
        pid_t pid = -1;
        rc = hooks_start(&list->v[i], text, &pid, e);
        if (rc == 0)
            rc = hooks_wait(&list->v[i], pid, e);
        if (rc != 0)
            rc = err_wrap(e, "%s hook %s", stage, list->v[i].path);
    }
    free(text);
    return rc;
}
