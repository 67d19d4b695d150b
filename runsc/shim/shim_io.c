/* Standard streams of containers: FIFOs that containerd made, handed over as they are; a terminal's
 * bytes are carried. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runsc/shim/shim.h"

/* The waits double up to this; all of them together are as long. */
#define READER_WAIT_MS 8192
#define UNREAD_WAIT_MS 1024

void proc_io_init(struct proc_io *io)
{
    *io = (struct proc_io){.hold = {-1, -1, -1}, .master = -1};
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

/* containerd opens its side of an output in its own time. What is written and closed before it has
 * looked would be gone, and it would wait for ever; so it is waited for. One that has died is not.
 */
static int open_output(const char *path)
{
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

    for (unsigned ms = 1; fd < 0 && errno == ENXIO && ms < READER_WAIT_MS; ms *= 2) {
        (void)poll(NULL, 0, (int)ms);
        fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    }
    return fd;
}

/* The other side is held open, too, so that opening one never waits for the other. */
static int open_fifo(const char *path, int flags, int *hold, int *out)
{
    if (path == NULL || path[0] == '\0')
        return 0;
    int reader = flags == O_WRONLY ? open_output(path) : -1;
    *hold = open(path, O_RDWR | O_CLOEXEC);
    *out = *hold < 0 ? -1 : open(path, flags | O_CLOEXEC);
    int r = *out < 0 ? -errno : 0;
    close_fd(&reader);
    return r;
}

int proc_io_open(struct proc_io *io, int fds[3])
{
    int r = open_fifo(io->in, O_RDONLY, &io->hold[0], &fds[0]);

    if (r == 0)
        r = open_fifo(io->out, O_WRONLY, &io->hold[1], &fds[1]);
    /* A terminal has one stream of output. */
    if (r == 0 && !io->terminal)
        r = open_fifo(io->err, O_WRONLY, &io->hold[2], &fds[2]);
    return r;
}

int proc_console_listen(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof(sa.sun_path))
        return -ENAMETOOLONG;
    memcpy(sa.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    (void)unlink(path);
    if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0 || listen(fd, 1) != 0) {
        int r = -errno;
        (void)close(fd);
        return r;
    }
    return fd;
}

int proc_console_receive(int listener, int *out_master)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } cm;
    char name[64];
    struct iovec iov = {name, sizeof(name)};
    struct msghdr mh = {.msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = cm.room,
                        .msg_controllen = sizeof(cm.room)};
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    int r = -EPROTO;

    if (fd < 0)
        return -errno;
    if (recvmsg(fd, &mh, MSG_CMSG_CLOEXEC) > 0) {
        struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
        if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            memcpy(out_master, CMSG_DATA(c), sizeof(int));
            r = 0;
        }
    }
    (void)close(fd);
    return r;
}

/* ---- a terminal's bytes ---- */

struct copy {
    int from, to;
    struct shim *s;
    struct shim_proc *p; /* whose end waits for this copy, or NULL */
};

static void *copy_main(void *arg)
{
    struct copy c = *(struct copy *)arg;
    char buf[2048];
    ssize_t n;

    free(arg);
    while ((n = read(c.from, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR))
        for (ssize_t at = 0; at < n;) {
            ssize_t w = write(c.to, buf + at, (size_t)(n - at));
            if (w < 0 && errno != EINTR)
                goto out;
            at += w > 0 ? w : 0;
        }
out:
    (void)close(c.from);
    (void)close(c.to);
    if (c.p != NULL)
        shim_proc_drained(c.s, c.p);
    return NULL;
}

static int copy_start(struct shim *s, struct shim_proc *p, const char *path, int flags,
                      bool to_guest)
{
    struct copy *c = malloc(sizeof(*c));
    int fifo = open(path, flags | O_CLOEXEC);
    int master = fcntl(p->io.master, F_DUPFD_CLOEXEC, 3);

    if (c == NULL || fifo < 0 || master < 0) {
        free(c);
        close_fd(&fifo);
        close_fd(&master);
        return -EIO;
    }
    *c = (struct copy){.from = to_guest ? fifo : master, .to = to_guest ? master : fifo, .s = s};
    if (!to_guest) {
        c->p = p;
        p->draining = true;
    }
    if (shim_thread(copy_main, c) != 0) {
        p->draining = false;
        free(c);
        close_fd(&fifo);
        close_fd(&master);
        return -EAGAIN;
    }
    return 0;
}

int proc_io_copy(struct shim *s, struct shim_proc *p)
{
    struct proc_io *io = &p->io;
    int r = 0;

    if (io->in != NULL && io->in[0] != '\0')
        r = copy_start(s, p, io->in, O_RDONLY, true);
    if (r == 0 && io->out != NULL && io->out[0] != '\0')
        r = copy_start(s, p, io->out, O_RDWR, false);
    /* From now on that thread keeps the FIFO, till the terminal is gone. */
    if (r == 0)
        close_fd(&io->hold[1]);
    return r;
}

/* ---- what has not been read yet ---- */

static bool unread(const struct proc_io *io)
{
    for (int i = 1; i < 3; i++) {
        int n;
        if (io->hold[i] >= 0 && ioctl(io->hold[i], FIONREAD, &n) == 0 && n > 0)
            return true;
    }
    return false;
}

struct settling {
    struct shim *s;
    struct shim_proc *p;
};

static void *settle_main(void *arg)
{
    struct settling w = *(struct settling *)arg;

    free(arg);
    for (unsigned ms = 1; unread(&w.p->io) && ms <= UNREAD_WAIT_MS; ms *= 2)
        (void)poll(NULL, 0, (int)ms);
    shim_proc_drained(w.s, w.p);
    return NULL;
}

bool proc_io_settle(struct shim *s, struct shim_proc *p)
{
    struct settling *w = unread(&p->io) ? malloc(sizeof(*w)) : NULL;

    if (w == NULL)
        return false;
    *w = (struct settling){s, p};
    const bool started = shim_thread(settle_main, w) == 0;
    if (!started)
        free(w);
    return started;
}

void proc_io_close_input(struct proc_io *io)
{
    close_fd(&io->hold[0]);
}

void proc_io_end(struct proc_io *io)
{
    for (int i = 0; i < 3; i++)
        close_fd(&io->hold[i]);
    close_fd(&io->master);
}

void proc_io_free(struct proc_io *io)
{
    for (int i = 0; i < 3; i++)
        close_fd(&io->hold[i]);
    close_fd(&io->master);
    free(io->in);
    free(io->out);
    free(io->err);
}
