#include "runsc/sandbox/decoder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runsc/sandbox/confine.h"

#define PROGRAM "runsc-decoder"

int decoder_open_program(void)
{
    char path[2048];
    const ssize_t n = readlink("/proc/self/exe", path, sizeof(path));
    const char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;

    if (slash == NULL || (size_t)(slash + 1 - path) + sizeof(PROGRAM) > sizeof(path))
        return -1;
    memcpy(path + (slash + 1 - path), PROGRAM, sizeof(PROGRAM));
    return open(path, O_PATH | O_CLOEXEC);
}

/* The program is the one descriptor that goes by itself. */
static NORETURN void decoder_child(int program, int conn)
{
    static char name[] = PROGRAM, *const args[] = {name, NULL}, *const env[] = {NULL};
    const char *step;

    /* No signal of the guest's terminal is for it. */
    (void)setsid();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || dup2(conn, DECODER_FD) != DECODER_FD ||
        close(1) != 0 || close(2) != 0 || confine_close_fds(&program, 1, &step) != 0)
        _exit(126);
    (void)syscall(SYS_execveat, program, "", args, env, AT_EMPTY_PATH);
    _exit(126);
}

int decoder_launch(int program)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return -errno;
    const pid_t pid = fork();
    if (pid == 0)
        decoder_child(program, pair[1]);
    const int code = pid < 0 ? -errno : 0;
    (void)close(pair[1]);
    if (code == 0)
        return pair[0];
    (void)close(pair[0]);
    return code;
}
