#include "runsc/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/settle.h"

/* What a signal to us does not mean for the container: what nobody can catch, what our own mistakes
 * and our own job control bring. */
static const int console_own_signals[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS,  SIGFPE,  SIGILL,
                                          SIGTRAP, SIGSYS,  SIGPIPE, SIGTTIN, SIGTTOU, SIGTSTP};

int console_open(uint16_t rows, uint16_t cols, int *out_master, int *out_slave, struct err *e)
{
    struct winsize ws = {.ws_row = rows, .ws_col = cols};
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    int slave;

    if (master < 0)
        return err_errno(e, errno, "cannot make a terminal");
    if (grantpt(master) != 0 || unlockpt(master) != 0)
        goto out_master;
    slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        goto out_master;
    if (rows == 0 || cols == 0)
        (void)ioctl(STDIN_FILENO, TIOCGWINSZ, &ws);
    (void)ioctl(master, TIOCSWINSZ, &ws);
    *out_master = master;
    *out_slave = slave;
    return 0;

out_master:
    (void)err_errno(e, errno, "cannot make a terminal");
    (void)close(master);
    return -1;
}

int console_send(const char *path, int master, struct err *e)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    char name[] = "/dev/ptmx";
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } cm = {0};
    struct iovec iov = {name, sizeof(name) - 1};
    struct msghdr mh = {.msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = cm.room,
                        .msg_controllen = sizeof(cm.room)};
    int rc = 0;

    if (strlen(path) >= sizeof(sa.sun_path))
        return err_set(e, ENAMETOOLONG, "--console-socket: the path is too long");
    memcpy(sa.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(e, errno, "cannot make a socket");
    if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0) {
        rc = err_errno(e, errno, "--console-socket %s", path);
        goto out_close;
    }
    struct cmsghdr *c = &cm.align;
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &master, sizeof(int));
    if (sendmsg(fd, &mh, MSG_NOSIGNAL) < 0)
        rc = err_errno(e, errno, "--console-socket %s", path);

out_close:
    (void)close(fd);
    return rc;
}

/* ---- the proxy ---- */

struct proxy {
    const struct console_child *child;
    int master, done_fd, sig_fd, pid_fd;
    bool stdin_open, raw;
    struct termios saved;
};

static void console_raw(struct proxy *p)
{
    struct termios t;

    if (p->master < 0 || tcgetattr(STDIN_FILENO, &p->saved) != 0)
        return;
    t = p->saved;
    cfmakeraw(&t);
    p->raw = tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0;
}

static void console_write_all(int fd, const char *buf, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, buf, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        buf += n;
        size -= (size_t)n;
    }
}

/* False at the end of from. */
static bool console_copy(int from, int to)
{
    char buf[2048];
    ssize_t n = read(from, buf, sizeof(buf));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    if (n <= 0)
        return false;
    console_write_all(to, buf, (size_t)n);
    return true;
}

static void console_resize(struct proxy *p)
{
    struct winsize ws;

    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) != 0)
        return;
    if (p->master >= 0)
        (void)ioctl(p->master, TIOCSWINSZ, &ws);
    if (p->child->resized != NULL)
        p->child->resized(p->child->arg, ws.ws_row, ws.ws_col);
}

static void console_signal(struct proxy *p)
{
    struct signalfd_siginfo si;

    if (read(p->sig_fd, &si, sizeof(si)) != (ssize_t)sizeof(si))
        return;
    int sig = (int)si.ssi_signo;
    if (sig == SIGWINCH)
        console_resize(p);
    else if (sig != SIGCHLD && p->child->forward != NULL)
        p->child->forward(p->child->arg, sig);
    else if (sig != SIGCHLD)
        (void)kill(p->child->pid, sig);
}

/* What the guest wrote before its end is still in the pty. */
static void console_drain(const struct proxy *p)
{
    struct pollfd f = {.fd = p->master, .events = POLLIN};

    while (p->master >= 0 && poll(&f, 1, 0) > 0 && (f.revents & POLLIN) != 0)
        if (!console_copy(p->master, STDOUT_FILENO))
            return;
}

static void console_loop(struct proxy *p)
{
    struct settling settling = {0};

    for (;;) {
        struct pollfd f[] = {
            {.fd = p->sig_fd, .events = POLLIN},
            {.fd = p->pid_fd, .events = POLLIN},
            {.fd = p->done_fd, .events = POLLIN},
            {.fd = p->master, .events = POLLIN},
            {.fd = p->master >= 0 && p->stdin_open ? STDIN_FILENO : -1, .events = POLLIN},
        };
        if (poll(f, ARRAY_SIZE(f), settling_wait_ms(&settling)) < 0)
            continue;
        if (f[0].revents != 0)
            console_signal(p);
        if (f[3].revents != 0 && !console_copy(p->master, STDOUT_FILENO))
            p->master = -1;
        if (f[4].revents != 0 && !console_copy(STDIN_FILENO, p->master))
            p->stdin_open = false;
        if (f[1].revents != 0 || f[2].revents != 0)
            return;
    }
}

static void console_signal_set(sigset_t *set)
{
    (void)sigfillset(set);
    for (size_t i = 0; i < ARRAY_SIZE(console_own_signals); i++)
        (void)sigdelset(set, console_own_signals[i]);
}

void console_hold_signals(void)
{
    sigset_t set;

    console_signal_set(&set);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

void console_proxy(const struct console_child *child, int master, int done_fd)
{
    struct proxy p = {.child = child, .master = master, .done_fd = done_fd, .stdin_open = true};
    sigset_t set;

    console_hold_signals();
    console_signal_set(&set);
    p.sig_fd = signalfd(-1, &set, SFD_CLOEXEC);
    p.pid_fd = child->pid > 0 ? (int)syscall(SYS_pidfd_open, child->pid, 0u) : -1;
    console_raw(&p);
    console_loop(&p);
    console_drain(&p);
    if (p.raw)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &p.saved);
    (void)close(p.sig_fd);
    if (p.pid_fd >= 0)
        (void)close(p.pid_fd);
}
