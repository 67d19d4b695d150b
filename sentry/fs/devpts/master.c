/* The master side: reads what the slave wrote, writes what the slave reads. */
#include "sentry/fs/devpts/devpts_priv.h"

/* What a master that reads gets next; p->mu held. packet_start: nothing was read yet. */
static size_t ptm_take(struct pty *p, uint8_t *buf, size_t size, bool packet_start, bool *out_end)
{
    struct ldisc *l = &p->ld;
    size_t n = 0;

    *out_end = false;
    if (l->packet && l->pkt != 0) {
        *out_end = true;
        if (!packet_start)
            return 0;
        buf[0] = l->pkt;
        l->pkt = 0;
        return 1;
    }
    if (ldisc_output_count(l) == 0)
        return 0;
    if (l->packet && packet_start)
        buf[n++] = TIOCPKT_DATA;
    return n + ldisc_drain(l, buf + n, size - n);
}

static bool ptm_slave_closed(const struct pty *p)
{
    return p->slave_opened && p->slaves == 0;
}

static bool ptm_can_read(struct pty *p)
{
    mutex_lock(&p->mu);
    bool yes =
        ldisc_output_count(&p->ld) > 0 || (p->ld.packet && p->ld.pkt != 0) || ptm_slave_closed(p);
    mutex_unlock(&p->mu);
    return yes;
}

static int64_t ptm_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct pty *p = f->priv;
    uint8_t buf[PTY_PIECE];
    int64_t done = 0;
    int err;

    (void)pos;
    while (u->left > 0) {
        bool end;
        mutex_lock(&p->mu);
        size_t n = ptm_take(p, buf, (size_t)MIN(u->left, (uint64_t)sizeof(buf)), done == 0, &end);
        bool closed = ptm_slave_closed(p);
        pty_unlock(p);
        if (n > 0) {
            int64_t put = uio_copy_to(u, buf, n);
            if (put <= 0)
                return done > 0 ? done : put;
            done += put;
            if ((size_t)put < n || end)
                break;
            continue;
        }
        if (done > 0)
            break;
        if (closed)
            return -EIO;
        if (!pty_may_wait(f, c))
            return -EAGAIN;
        WAIT_EVENT(&p->master_wq, c->blocker, EPOLLIN | EPOLLHUP, DEADLINE_NEVER, ptm_can_read(p),
                   err);
        if (err != 0)
            return -ERESTARTSYS;
    }
    return done;
}

static bool ptm_can_write(struct pty *p)
{
    mutex_lock(&p->mu);
    bool yes = !p->master_stopped && ldisc_accepts(&p->ld);
    mutex_unlock(&p->mu);
    return yes;
}

static int64_t ptm_write(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct pty *p = f->priv;
    uint8_t buf[PTY_PIECE];
    int64_t done = 0;
    int err;

    (void)pos;
    while (u->left > 0) {
        int64_t n = uio_copy_from(u, buf, (size_t)MIN(u->left, (uint64_t)sizeof(buf)));
        if (n <= 0)
            return done > 0 ? done : n;
        mutex_lock(&p->mu);
        int64_t took = p->master_stopped ? 0 : (int64_t)ldisc_input(&p->ld, buf, (size_t)n);
        pty_unlock(p);
        done += took;
        if (took == n)
            continue;
        uio_revert(u, (uint64_t)(n - took));
        if (!pty_may_wait(f, c))
            return done > 0 ? done : -EAGAIN;
        WAIT_EVENT(&p->master_wq, c->blocker, EPOLLOUT, DEADLINE_NEVER, ptm_can_write(p), err);
        if (err != 0)
            return done > 0 ? done : -ERESTARTSYS;
    }
    return done;
}

static uint32_t ptm_poll(struct file *f, struct waiter *w)
{
    struct pty *p = f->priv;
    uint32_t events = 0;

    if (w != NULL)
        waitq_add(&p->master_wq, w);
    mutex_lock(&p->mu);
    if (ldisc_output_count(&p->ld) > 0)
        events |= EPOLLIN | EPOLLRDNORM;
    if (p->ld.packet && p->ld.pkt != 0)
        events |= EPOLLPRI | EPOLLIN | EPOLLRDNORM;
    if (ptm_slave_closed(p))
        events |= EPOLLHUP;
    if (!p->master_stopped && ldisc_accepts(&p->ld))
        events |= EPOLLOUT | EPOLLWRNORM;
    mutex_unlock(&p->mu);
    return events;
}

const struct file_ops ptm_ops = {
    .read = ptm_read,
    .write = ptm_write,
    .ioctl = pty_ioctl,
    .poll = ptm_poll,
    .release = ptm_release,
};
