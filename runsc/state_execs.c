/* The processes of the host that stand for programs started in a container by exec: one file each
 * in the container's directory, exec.<pid>, so that it is told without asking the sandbox. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runsc/state.h"

#define EXEC_PREFIX "exec."

static void state_exec_name(pid_t pid, char *out, size_t size)
{
    (void)snprintf(out, size, EXEC_PREFIX "%d", (int)pid);
}

int state_exec_add(const struct state *st, pid_t pid, int32_t guest_pid, struct err *e)
{
    struct state_process p;
    char name[32], text[64];
    int rc = 0;

    state_process_note(&p, pid);
    state_exec_name(pid, name, sizeof(name));
    int n =
        snprintf(text, sizeof(text), "%llu %d", (unsigned long long)p.start_ticks, (int)guest_pid);
    int fd = openat(st->dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, (size_t)n) != n)
        rc = err_errno(e, errno, "cannot write the container's state");
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

void state_exec_remove(const struct state *st, pid_t pid)
{
    char name[32];

    state_exec_name(pid, name, sizeof(name));
    (void)unlinkat(st->dir_fd, name, 0);
}

static bool state_exec_read(const struct state *st, const char *name, struct state_exec *out)
{
    char text[64];
    unsigned long long start;
    int pid, guest;

    if (sscanf(name, EXEC_PREFIX "%d", &pid) != 1)
        return false;
    int fd = openat(st->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    if (sscanf(text, "%llu %d", &start, &guest) != 2)
        return false;
    *out = (struct state_exec){.process = {.pid = pid, .start_ticks = start}, .guest_pid = guest};
    return true;
}

static DIR *state_open_execs(const struct state *st)
{
    int fd = openat(st->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (dir == NULL && fd >= 0)
        (void)close(fd);
    return dir;
}

size_t state_execs(const struct state *st, struct state_exec *out, size_t max)
{
    DIR *dir = state_open_execs(st);
    size_t count = 0;

    for (struct dirent *d; dir != NULL && count < max && (d = readdir(dir)) != NULL;)
        if (state_exec_read(st, d->d_name, &out[count]) && state_process_alive(&out[count].process))
            count++;
    if (dir != NULL)
        (void)closedir(dir);
    return count;
}

void state_execs_clear(const struct state *st)
{
    DIR *dir = state_open_execs(st);

    for (struct dirent *d; dir != NULL && (d = readdir(dir)) != NULL;)
        if (strncmp(d->d_name, EXEC_PREFIX, sizeof(EXEC_PREFIX) - 1) == 0)
            (void)unlinkat(st->dir_fd, d->d_name, 0);
    if (dir != NULL)
        (void)closedir(dir);
}
