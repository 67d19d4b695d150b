#include "runsc/keeper.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "runsc/console.h"
#include "runsc/control.h"

#define KEEPER_KILLED (128 + SIGKILL)

static void keeper_forward(void *arg, int sig)
{
    const struct keeper *k = arg;
    json_t *req = json_pack("{s:s,s:i}", "op", "signal", "sig", sig);

    (void)!control_send(k->conn, req, NULL, 0);
    json_decref(req);
}

static void keeper_resized(void *arg, int rows, int cols)
{
    const struct keeper *k = arg;
    json_t *req = json_pack("{s:s,s:i,s:i}", "op", "resize", "rows", rows, "cols", cols);

    (void)!control_send(k->conn, req, NULL, 0);
    json_decref(req);
}

/* Packets until the one that tells the exit; replies to signals and sizes come between. */
static bool keeper_next_packet(const struct keeper *k, int *out_code)
{
    json_t *msg = NULL;

    if (control_recv(k->conn, 0, &msg, NULL, 0, NULL) != 0) {
        *out_code = KEEPER_KILLED;
        return true;
    }
    const json_t *code = json_object_get(msg, "exit");
    bool done = json_is_integer(code);
    if (done)
        *out_code = (int)json_integer_value(code) & 255;
    json_decref(msg);
    return done;
}

int keeper_wait(const struct keeper *k)
{
    struct keeper copy = *k;
    const struct console_child child = {
        .forward = keeper_forward,
        .resized = keeper_resized,
        .arg = &copy,
    };
    int code = KEEPER_KILLED;

    do
        console_proxy(&child, k->master, k->conn);
    while (!keeper_next_packet(k, &code));
    return code;
}

/* Descriptors from 3 up are closed, but for two (b may be -1). */
static void keeper_close_others(int a, int b)
{
    unsigned low = (unsigned)MAX(MIN(a, b), 2), high = (unsigned)MAX(a, b);

    if (low > 3)
        (void)syscall(SYS_close_range, 3u, low - 1, 0u);
    if (high > low + 1)
        (void)syscall(SYS_close_range, low + 1, high - 1, 0u);
    (void)syscall(SYS_close_range, high + 1, ~0u, 0u);
}

void keeper_detach(struct keeper *k, int keep_fd)
{
    (void)setsid();
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3 && null_fd >= 0; i++)
        (void)dup2(null_fd, i);
    /* Whoever holds the master changes sizes there: the terminal's own session hears of it. */
    if (k->slave >= 0 && ioctl(k->slave, TIOCSCTTY, 0) == 0)
        (void)dup2(k->slave, STDIN_FILENO);
    keeper_close_others(k->conn, keep_fd);
    k->slave = -1;
}
