/* A guest's terminal on one of the host: two threads carry bytes between the host's slave, which is
 * raw, and the master of a pair in the container's devpts, where the line discipline is. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "runsc/boot/boot_priv.h"
#include "sentry/errno_internal.h"
#include "sentry/fs/devpts/devpts.h"

#define TTY_PIECE 4096
/* How often the size of a terminal is looked at that sends the sentry no signal. */
#define TTY_SIZE_NS (200L * 1000 * 1000)
/* At the end: what a guest may still have written, and how long a host that does not read it is
 * waited for. */
#define TTY_REST_MAX (256u * 1024)
#define TTY_REST_NS (5ull * 1000 * 1000 * 1000)

struct boot_tty {
    /* immutable once the threads run */
    int fd;                      /* the host's side; owned, non-blocking */
    bool controlling;            /* of the sentry: size changes come as SIGWINCH */
    struct file *master, *slave; /* owned; slave: the master then never finds it closed */
    struct vfs_caller to, from;  /* of the two threads; their paths are owned once, by to */
    struct blocker to_blk, from_blk;
    pthread_t to_guest, to_host;
    uint64_t stop_ns; /* set before stopping */
    _Atomic bool stopping;
    /* thread to_guest */
    struct winsize seen;
};

/* The terminal whose size SIGWINCH is about. */
static _Atomic(struct boot_tty *) tty_winch;

/* The signal interrupts the thread that waits with it unblocked. */
static void tty_on_winch(int signo)
{
    struct boot_tty *t = atomic_load(&tty_winch);

    if (t != NULL && !pthread_equal(pthread_self(), t->to_guest))
        (void)pthread_kill(t->to_guest, signo);
}

static bool tty_stopping(const struct boot_tty *t)
{
    return atomic_load(&t->stopping);
}

/* ---- size ---- */

static void tty_follow_size(struct boot_tty *t)
{
    struct winsize ws;

    if (ioctl(t->fd, TIOCGWINSZ, &ws) != 0 || memcmp(&ws, &t->seen, sizeof(ws)) == 0)
        return;
    t->seen = ws;
    devpts_set_size(t->master, ws.ws_row, ws.ws_col);
}

int boot_tty_resize(struct boot_tty *t, uint16_t rows, uint16_t cols)
{
    devpts_set_size(t->master, rows, cols);
    return 0;
}

/* ---- host to guest ---- */

/* False: the end. */
static bool tty_give_guest(struct boot_tty *t, char *buf, size_t size)
{
    struct uio u;

    uio_init_kernel(&u, buf, size);
    while (u.left > 0) {
        int64_t n = vfs_write(t->master, &u, -1, 0, &t->to);
        if (n < 0 && (n != -ERESTARTSYS || tty_stopping(t)))
            return false;
    }
    return true;
}

/* False: the host's terminal is gone. */
static bool tty_from_host(struct boot_tty *t)
{
    char buf[TTY_PIECE / 2];
    ssize_t n = read(t->fd, buf, sizeof(buf));

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    return n > 0 && tty_give_guest(t, buf, (size_t)n);
}

static void *tty_to_guest(void *arg)
{
    static const struct timespec pause = {.tv_nsec = TTY_SIZE_NS};
    struct boot_tty *t = arg;
    sigset_t none;

    (void)sigemptyset(&none);
    while (!tty_stopping(t)) {
        struct pollfd p = {.fd = t->fd, .events = POLLIN};
        int n = ppoll(&p, 1, t->controlling ? NULL : &pause, &none);
        tty_follow_size(t);
        if (n <= 0)
            continue;
        if (!tty_from_host(t)) {
            if (!tty_stopping(t))
                devpts_hangup(t->master);
            break;
        }
    }
    return NULL;
}

/* ---- guest to host ---- */

/* False: nobody takes it any more. */
static bool tty_host_wait(const struct boot_tty *t)
{
    struct pollfd p = {.fd = t->fd, .events = POLLOUT};

    if (tty_stopping(t) && mono_now() - t->stop_ns > TTY_REST_NS)
        return false;
    int n = poll(&p, 1, 100);
    return n <= 0 || (p.revents & (POLLHUP | POLLERR | POLLNVAL)) == 0;
}

static bool tty_give_host(const struct boot_tty *t, const char *buf, size_t size)
{
    while (size > 0) {
        ssize_t n = write(t->fd, buf, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno != EAGAIN || !tty_host_wait(t)))
            return false;
        if (n > 0) {
            buf += n;
            size -= (size_t)n;
        }
    }
    return true;
}

static void *tty_to_host(void *arg)
{
    struct boot_tty *t = arg;
    char buf[TTY_PIECE / 2];
    uint64_t rest = 0;
    bool open = true;

    while (rest < TTY_REST_MAX) {
        struct uio u;
        bool last = tty_stopping(t);
        uio_init_kernel(&u, buf, sizeof(buf));
        int64_t n = vfs_read(t->master, &u, -1, 0, &t->from);
        if (n > 0) {
            /* A guest may go on writing to a terminal that is gone; it must not wait for it. */
            open = open && tty_give_host(t, buf, (size_t)n);
            rest += last ? (uint64_t)n : 0;
        } else if (last || n != -ERESTARTSYS) {
            break;
        }
    }
    return NULL;
}

/* ---- making one ---- */

static int tty_raw(int fd)
{
    struct termios t;
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || tcgetattr(fd, &t) != 0)
        return -errno;
    cfmakeraw(&t);
    if (tcsetattr(fd, TCSANOW, &t) != 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return -errno;
    return 0;
}

/* A configuration without devpts still has terminals. */
static int tty_mount_devpts(struct boot *b, struct boot_container *ct, const struct vfs_caller *c)
{
    struct super *sb;
    struct vpath p;
    int r = vfs_lookup(c, NULL, "/dev/pts", VFS_FOLLOW | VFS_DIRECTORY, &p);

    if (r != 0)
        return r;
    r = devpts_fs_ops.mount(&devpts_fs_ops, b->k, "devpts", "mode=0620,ptmxmode=0666", c, &sb);
    if (r == 0) {
        r = vfs_mount(ct->ns, &p, sb, MS_NOSUID | MS_NOEXEC);
        if (r != 0)
            super_put(sb);
    }
    vpath_put(&p);
    return r;
}

static int tty_open_pair(struct boot *b, struct boot_container *ct, struct boot_tty *t)
{
    const uint32_t flags = O_RDWR | O_NOCTTY;
    char path[32];
    int r = vfs_open(&t->to, NULL, "/dev/pts/ptmx", flags, 0, 0, &t->master);

    if (r == -ENOENT) {
        r = tty_mount_devpts(b, ct, &t->to);
        if (r == 0)
            r = vfs_open(&t->to, NULL, "/dev/pts/ptmx", flags, 0, 0, &t->master);
    }
    if (r != 0)
        return r;
    if (!devpts_is_master(t->master))
        return -ENOTTY;
    devpts_unlock(t->master);
    (void)snprintf(path, sizeof(path), "/dev/pts/%u", devpts_index(t->master));
    return vfs_open(&t->to, NULL, path, flags, 0, 0, &t->slave);
}

/* The runtime specification wants the terminal at /dev/console too. */
static void tty_make_console(struct boot_container *ct, const struct boot_tty *t)
{
    struct vpath p;
    int r = vfs_mknod(&t->to, NULL, "/dev/console", S_IFREG | 0600, 0);

    if (r == 0 || r == -EEXIST)
        r = vfs_lookup(&t->to, NULL, "/dev/console", 0, &p);
    if (r == 0) {
        r = vfs_bind(ct->ns, &t->slave->path, &p, false);
        vpath_put(&p);
    }
    if (r != 0)
        log_info("boot: no /dev/console: %s", strerror(-r));
}

static int tty_start(struct boot_tty *t)
{
    sigset_t all, old;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = -pthread_create(&t->to_guest, NULL, tty_to_guest, t);
    if (r == 0) {
        r = -pthread_create(&t->to_host, NULL, tty_to_host, t);
        if (r != 0) {
            atomic_store(&t->stopping, true);
            (void)pthread_kill(t->to_guest, SIGWINCH);
            (void)pthread_join(t->to_guest, NULL);
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

static int tty_callers(struct boot_container *ct, uint32_t uid, struct boot_tty *t)
{
    int r = cred_new_root(~0ull, &t->to.cred);

    if (r != 0)
        return r;
    t->to.cred->fsuid = uid;
    t->to.ns = ct->ns;
    t->to.fsize_limit = UINT64_MAX;
    mount_ns_root(ct->ns, &t->to.root);
    mount_ns_root(ct->ns, &t->to.cwd);
    blocker_init(&t->to_blk);
    blocker_init(&t->from_blk);
    t->from = t->to;
    t->to.blocker = &t->to_blk;
    t->from.blocker = &t->from_blk;
    return 0;
}

static void tty_fini(struct boot_tty *t)
{
    file_put(t->slave);
    file_put(t->master);
    if (t->to.cred != NULL) {
        vpath_put(&t->to.cwd);
        vpath_put(&t->to.root);
        cred_put(t->to.cred);
    }
    free(t);
}

/* Signals that the host's terminal sends: sizes to us, and an end that is told by reading. Without
 * a handler nothing would interrupt a thread either. */
static void tty_signals(void)
{
    struct sigaction sa;

    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = tty_on_winch;
    sa.sa_flags = SA_RESTART;
    (void)sigaction(SIGWINCH, &sa, NULL);
    (void)signal(SIGHUP, SIG_IGN);
}

int boot_tty_new(struct boot *b, struct boot_container *ct, int fd, uint32_t uid,
                 struct boot_tty **out_tty, struct file **out_file)
{
    struct boot_tty *t = calloc(1, sizeof(*t));
    int r;

    if (t == NULL)
        return -ENOMEM;
    t->fd = fd;
    t->controlling = ct == &b->root && !ct->started && b->args->sandbox->console_fd >= 0;
    r = tty_callers(ct, uid, t);
    if (r == 0)
        r = tty_raw(fd);
    if (r == 0)
        r = tty_open_pair(b, ct, t);
    if (r != 0)
        goto out_free;
    if (!ct->started)
        tty_make_console(ct, t);
    tty_signals();
    tty_follow_size(t);
    r = tty_start(t);
    if (r != 0)
        goto out_free;
    if (t->controlling)
        atomic_store(&tty_winch, t);
    *out_file = file_get(t->slave);
    *out_tty = t;
    return 0;

out_free:
    tty_fini(t);
    return r;
}

void boot_tty_free(struct boot_tty *t)
{
    struct boot_tty *mine = t;

    if (t == NULL)
        return;
    /* The handler runs on this thread, so it does not run now. */
    (void)atomic_compare_exchange_strong(&tty_winch, &mine, NULL);
    t->stop_ns = mono_now();
    atomic_store(&t->stopping, true);
    blocker_interrupt(&t->to_blk, BLOCKER_KILLED);
    blocker_interrupt(&t->from_blk, BLOCKER_KILLED);
    (void)pthread_kill(t->to_guest, SIGWINCH);
    (void)pthread_join(t->to_guest, NULL);
    (void)pthread_join(t->to_host, NULL);
    (void)close(t->fd);
    tty_fini(t);
}
