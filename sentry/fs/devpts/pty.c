/* The life of a pair: both sides opened, closed, hung up. */
#include <linux/capability.h>
#include <sys/sysmacros.h>

#include "base/objcount.h"
#include "sentry/fs/devpts/devpts_priv.h"

#define PTS_MAJOR 136

OBJCOUNT_DEFINE(pty);

static void pty_release(struct tty *tty)
{
    struct pty *p = pty_of_tty(tty);

    pts_core_put(p->core);
    waitq_fini(&p->slave_wq);
    waitq_fini(&p->master_wq);
    mutex_destroy(&p->mu);
    OBJCOUNT_DEC(pty);
    free(p);
}

/* Both sides are closed: the number is free, though a session may still know the pair. */
static void pty_free_index(struct pty *p)
{
    mutex_lock(&p->core->mu);
    idalloc_free(&p->core->ids, p->index);
    mutex_unlock(&p->core->mu);
}

void pty_put(struct pty *p)
{
    tty_put(&p->tty);
}

void pty_unlock(struct pty *p)
{
    struct ldisc *l = &p->ld;
    uint64_t due = l->due;
    bool to_master = l->to_master, to_slave = l->to_slave;
    bool below = l->room_below, above = l->room_above;

    l->due = 0;
    l->to_master = l->to_slave = l->room_below = l->room_above = false;
    mutex_unlock(&p->mu);
    for (; due != 0; due &= due - 1)
        tty_signal(p->core->k, &p->tty, __builtin_ctzll(due) + 1);
    if (to_master)
        (void)waitq_wake(&p->master_wq, EPOLLIN | EPOLLRDNORM | EPOLLPRI);
    if (below)
        (void)waitq_wake(&p->master_wq, EPOLLOUT | EPOLLWRNORM);
    if (to_slave)
        (void)waitq_wake(&p->slave_wq, EPOLLIN | EPOLLRDNORM);
    if (above)
        (void)waitq_wake(&p->slave_wq, EPOLLOUT | EPOLLWRNORM);
}

void pty_hangup(struct pty *p)
{
    mutex_lock(&p->mu);
    p->hangups++;
    ldisc_flush_input(&p->ld);
    mutex_unlock(&p->mu);
    tty_hangup(p->core->k, &p->tty);
    (void)waitq_wake(&p->slave_wq, 0);
}

/* ---- masters ---- */

static int pty_new(struct pts_core *core, struct pty **out)
{
    struct pty *p = calloc(1, sizeof(*p));
    int r;

    if (p == NULL)
        return -ENOMEM;
    mutex_lock(&core->mu);
    r = idalloc_lowest(&core->ids, 0, &p->index);
    if (r == 0 && p->index >= core->opts.max) {
        idalloc_free(&core->ids, p->index);
        r = -ENOSPC;
    }
    mutex_unlock(&core->mu);
    if (r != 0) {
        free(p);
        return r;
    }
    tty_init(&p->tty, makedev(PTS_MAJOR + (p->index >> 20), p->index & 0xfffff), pty_release);
    ref_get(&core->ref);
    p->core = core;
    list_init(&p->node);
    waitq_init(&p->slave_wq);
    waitq_init(&p->master_wq);
    mutex_init(&p->mu, LOCK_RANK_TTY);
    ldisc_init(&p->ld);
    p->locked = p->master_open = true;
    OBJCOUNT_INC(pty);
    *out = p;
    return 0;
}

int pty_open_master(struct super *sb, struct file *f, const struct vfs_caller *c)
{
    struct pts_core *core = pts_fs_of(sb)->core;
    struct inode *i;
    struct pty *p;
    int r = pty_new(core, &p);

    if (r != 0)
        return r;
    r = pts_inode_new(sb, p, c, &i);
    if (r != 0) {
        pty_free_index(p);
        pty_put(p);
        return r;
    }
    mutex_lock(&core->mu);
    p->inode = i;
    list_add_tail(&p->node, &core->ptys);
    mutex_unlock(&core->mu);
    f->ops = &ptm_ops;
    f->priv = p;
    return 0;
}

bool pty_is_master(const struct file *f)
{
    return f->ops == &ptm_ops;
}

void ptm_release(struct file *f)
{
    struct pty *p = f->priv;
    struct inode *i;

    mutex_lock(&p->core->mu);
    i = p->inode;
    p->inode = NULL;
    list_del(&p->node);
    atomic_store(&pts_inode_of(i)->slave, NULL);
    mutex_unlock(&p->core->mu);
    inode_put(i);
    mutex_lock(&p->mu);
    p->master_open = false;
    bool unused = p->slaves == 0;
    mutex_unlock(&p->mu);
    if (unused)
        pty_free_index(p);
    pty_hangup(p);
    pty_put(p);
}

/* ---- slaves ---- */

int pty_open_slave(struct pty *p, struct file *f, const struct vfs_caller *c)
{
    uint32_t flags = atomic_load(&f->flags);
    struct pts_file *pf = calloc(1, sizeof(*pf));
    int r = 0;

    if (pf == NULL)
        return -ENOMEM;
    mutex_lock(&p->mu);
    if (p->locked || !p->master_open) {
        r = -EIO;
    } else if (p->exclusive && !cred_capable(c->cred, CAP_SYS_ADMIN)) {
        r = -EBUSY;
    } else {
        p->slaves++;
        p->slave_opened = true;
        pf->hangups = p->hangups;
    }
    mutex_unlock(&p->mu);
    if (r != 0) {
        free(pf);
        return r;
    }
    (void)tty_get(&p->tty);
    pf->pty = p;
    f->ops = &pts_ops;
    f->priv = pf;
    if ((flags & O_NOCTTY) == 0 && (flags & O_ACCMODE) != O_WRONLY)
        tty_opened(p->core->k, c, &p->tty);
    return 0;
}

void pts_release(struct file *f)
{
    struct pts_file *pf = f->priv;
    struct pty *p = pf->pty;

    mutex_lock(&p->mu);
    bool last = --p->slaves == 0, unused = last && !p->master_open;
    if (last)
        p->exclusive = false;
    mutex_unlock(&p->mu);
    if (unused)
        pty_free_index(p);
    if (last)
        (void)waitq_wake(&p->master_wq, 0);
    free(pf);
    pty_put(p);
}

struct pty *pty_of_file(const struct file *f)
{
    const struct pts_file *pf = f->priv;

    return pty_is_master(f) ? f->priv : pf->pty;
}

bool pty_file_hung(const struct file *f, const struct pty *p)
{
    const struct pts_file *pf = f->priv;

    return !pty_is_master(f) && pf->hangups != p->hangups;
}

bool pty_may_wait(const struct file *f, const struct vfs_caller *c)
{
    return (atomic_load_explicit(&f->flags, memory_order_relaxed) & O_NONBLOCK) == 0 &&
           c->blocker != NULL;
}

/* ---- masters of the sentry's own ---- */

bool devpts_is_master(const struct file *f)
{
    return pty_is_master(f);
}

uint32_t devpts_index(const struct file *master)
{
    return pty_of_file(master)->index;
}

void devpts_unlock(struct file *master)
{
    struct pty *p = pty_of_file(master);

    mutex_lock(&p->mu);
    p->locked = false;
    mutex_unlock(&p->mu);
}

void devpts_set_size(struct file *master, uint16_t rows, uint16_t cols)
{
    const struct winsize ws = {.ws_row = rows, .ws_col = cols};

    pty_set_size(pty_of_file(master), &ws);
}

void devpts_hangup(struct file *master)
{
    pty_hangup(pty_of_file(master));
}
