/* The slave side: what programs use as their terminal. */
#include <signal.h>

#include "sentry/fs/devpts/devpts_priv.h"

#define TENTH_NS UINT64_C(100000000)

static bool pts_can_read(struct file *f, struct pty *p)
{
    mutex_lock(&p->mu);
    bool yes = pty_file_hung(f, p) || ldisc_readable(&p->ld, 1);
    mutex_unlock(&p->mu);
    return yes;
}

/* How long a read waits and for how much: termios(3), VMIN and VTIME. */
struct pts_wait {
    bool canonical;
    size_t min;
    uint64_t gap_ns; /* between bytes; 0: any */
    deadline_t deadline;
};

static void pts_wait_init(struct pts_wait *w, struct pty *p)
{
    mutex_lock(&p->mu);
    const struct termios2 *t = &p->ld.t;
    uint64_t time_ns = t->c_cc[VTIME] * TENTH_NS;
    w->canonical = (t->c_lflag & ICANON) != 0;
    w->min = t->c_cc[VMIN];
    mutex_unlock(&p->mu);
    w->gap_ns = 0;
    w->deadline = DEADLINE_NEVER;
    if (w->canonical) {
        w->min = 0;
    } else if (w->min > 0) {
        w->gap_ns = time_ns;
    } else {
        w->min = 1;
        w->deadline = mono_now() + time_ns;
    }
}

/* Nothing there: 0 to look again, 1 to return what there is, or an error. */
static int pts_read_wait(struct file *f, struct pty *p, const struct pts_wait *w,
                         const struct vfs_caller *c)
{
    int err;

    if (w->deadline != DEADLINE_NEVER && mono_now() >= w->deadline)
        return 1;
    if (!pty_may_wait(f, c))
        return -EAGAIN;
    WAIT_EVENT(&p->slave_wq, c->blocker, EPOLLIN | EPOLLHUP, w->deadline, pts_can_read(f, p), err);
    if (err == -ETIMEDOUT)
        return 1;
    return err != 0 ? -ERESTARTSYS : 0;
}

struct pts_piece {
    size_t n;
    bool hung, master_gone, ready, eof, line_done;
};

static void pts_take(struct file *f, struct pty *p, uint8_t *buf, size_t size,
                     struct pts_piece *out)
{
    memset(out, 0, sizeof(*out));
    mutex_lock(&p->mu);
    out->hung = pty_file_hung(f, p);
    out->master_gone = !p->master_open;
    out->ready = !out->hung && ldisc_readable(&p->ld, 1);
    if (out->ready)
        out->n = ldisc_read(&p->ld, buf, size, &out->eof, &out->line_done);
    pty_unlock(p);
}

static int64_t pts_read_some(struct file *f, struct pty *p, struct uio *u, struct pts_wait *w,
                             const struct vfs_caller *c)
{
    uint8_t buf[PTY_PIECE];
    struct pts_piece got;
    int64_t done = 0;
    bool waited = false;

    while (u->left > 0) {
        pts_take(f, p, buf, (size_t)MIN(u->left, (uint64_t)sizeof(buf)), &got);
        /* Who sleeps when the master goes gets an error, who comes later finds the end. */
        if (got.hung)
            return done == 0 && waited && got.master_gone ? -EIO : done;
        if (!got.ready) {
            int r = pts_read_wait(f, p, w, c);
            if (r < 0)
                return done > 0 ? done : r;
            if (r > 0)
                break;
            waited = true;
            continue;
        }
        int64_t put = got.n > 0 ? uio_copy_to(u, buf, got.n) : 0;
        if (put < 0 || (size_t)put < got.n)
            return done + MAX(put, (int64_t)0) > 0 ? done + put : -EFAULT;
        done += put;
        if (got.eof || got.line_done)
            break;
        if (!w->canonical && (uint64_t)done >= w->min) {
            /* What arrived meanwhile goes along, nobody waits for it. */
            if (got.n < sizeof(buf))
                break;
        } else if (w->gap_ns > 0) {
            w->deadline = mono_now() + w->gap_ns;
        }
    }
    return done;
}

static int64_t pts_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct pty *p = pty_of_file(f);
    struct pts_wait w;

    (void)pos;
    /* After a hangup the terminal controls nobody, and the read finds its end. */
    int r = tty_check(p->core->k, c, &p->tty, SIGTTIN);
    if (r != 0)
        return r;
    pts_wait_init(&w, p);
    return pts_read_some(f, p, u, &w, c);
}

/* ---- writing ---- */

static bool pts_can_write(struct file *f, struct pty *p)
{
    mutex_lock(&p->mu);
    bool yes = pty_file_hung(f, p) || ldisc_writable(&p->ld);
    mutex_unlock(&p->mu);
    return yes;
}

static int pts_write_begin(struct file *f, struct pty *p, const struct vfs_caller *c)
{
    mutex_lock(&p->mu);
    bool hung = pty_file_hung(f, p);
    bool tostop = (p->ld.t.c_lflag & TOSTOP) != 0;
    mutex_unlock(&p->mu);
    if (hung)
        return -EIO;
    return tostop ? tty_check(p->core->k, c, &p->tty, SIGTTOU) : 0;
}

static int64_t pts_write(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct pty *p = pty_of_file(f);
    uint8_t buf[PTY_PIECE];
    int64_t done = 0;
    int err = pts_write_begin(f, p, c);

    (void)pos;
    if (err != 0)
        return err;
    while (u->left > 0) {
        int64_t n = uio_copy_from(u, buf, (size_t)MIN(u->left, (uint64_t)sizeof(buf)));
        if (n <= 0)
            return done > 0 ? done : n;
        mutex_lock(&p->mu);
        bool hung = pty_file_hung(f, p);
        int64_t took = hung ? 0 : (int64_t)ldisc_output(&p->ld, buf, (size_t)n);
        pty_unlock(p);
        done += took;
        if (hung)
            return done > 0 ? done : -EIO;
        if (took == n)
            continue;
        uio_revert(u, (uint64_t)(n - took));
        if (!pty_may_wait(f, c))
            return done > 0 ? done : -EAGAIN;
        WAIT_EVENT(&p->slave_wq, c->blocker, EPOLLOUT | EPOLLHUP, DEADLINE_NEVER,
                   pts_can_write(f, p), err);
        if (err != 0)
            return done > 0 ? done : -ERESTARTSYS;
    }
    return done;
}

/* ---- readiness ---- */

static uint32_t pts_events(const struct file *f, const struct pty *p)
{
    const struct termios2 *t = &p->ld.t;
    uint32_t events = 0;

    if (pty_file_hung(f, p))
        return EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDNORM | EPOLLWRNORM;
    if (ldisc_readable(&p->ld, t->c_cc[VTIME] == 0 && t->c_cc[VMIN] > 0 ? t->c_cc[VMIN] : 1))
        events |= EPOLLIN | EPOLLRDNORM;
    if (ldisc_writable(&p->ld))
        events |= EPOLLOUT | EPOLLWRNORM;
    return events;
}

static uint32_t pts_poll(struct file *f, struct waiter *w)
{
    struct pty *p = pty_of_file(f);

    if (w != NULL)
        waitq_add(&p->slave_wq, w);
    mutex_lock(&p->mu);
    uint32_t events = pts_events(f, p);
    mutex_unlock(&p->mu);
    return events;
}

const struct file_ops pts_ops = {
    .read = pts_read,
    .write = pts_write,
    .ioctl = pty_ioctl,
    .poll = pts_poll,
    .release = pts_release,
};
