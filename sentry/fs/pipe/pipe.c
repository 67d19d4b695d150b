#include "sentry/fs/pipe/pipe_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "base/objcount.h"
#include "sentry/errno_internal.h"

OBJCOUNT_DEFINE(pipe);

static int pipe_alloc(struct pipe **out)
{
    struct pipe *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return -ENOMEM;
    ref_init(&p->ref);
    mutex_init(&p->mu, LOCK_RANK_PIPE);
    p->capacity = LIMIT_PIPE_DEFAULT;
    list_init(&p->packets);
    waitq_init(&p->wq);
    OBJCOUNT_INC(pipe);
    *out = p;
    return 0;
}

static void pipe_unref(struct pipe *p)
{
    if (!ref_put(&p->ref))
        return;
    pipe_drop_locked(p, p->used);
    waitq_fini(&p->wq);
    mutex_destroy(&p->mu);
    OBJCOUNT_DEC(pipe);
    free(p->buf);
    free(p);
}

static bool file_nonblock(const struct file *f)
{
    return (atomic_load_explicit(&f->flags, memory_order_relaxed) & O_NONBLOCK) != 0;
}

/* ---- the ring ---- */

uint64_t pipe_room_locked(const struct pipe *p)
{
    return p->capacity - p->used - p->padding - p->reserved;
}

bool pipe_readable_locked(const struct pipe *p)
{
    return p->used > 0 ? !p->taken : p->writers == 0;
}

/* Copies up to max of the bytes in front, which stay there. */
static int64_t ring_peek(const struct pipe *p, struct uio *u, uint64_t max)
{
    uint64_t at = p->start;
    int64_t done = 0;

    max = MIN(MIN(max, p->used), u->left);
    while (max > 0) {
        uint64_t n = MIN(max, p->capacity - at);
        int64_t got = uio_copy_to(u, p->buf + at, n);
        if (got <= 0)
            return done > 0 ? done : got;
        at = (at + (uint64_t)got) % p->capacity;
        done += got;
        max -= (uint64_t)got;
        if ((uint64_t)got < n)
            break;
    }
    return done;
}

int64_t pipe_put_locked(struct pipe *p, struct uio *u, uint64_t max)
{
    int64_t done = 0;

    if (p->buf == NULL) {
        p->buf = malloc(p->capacity);
        if (p->buf == NULL)
            return -ENOMEM;
    }
    max = MIN(MIN(max, pipe_room_locked(p)), u->left);
    while (max > 0) {
        uint64_t at = (p->start + p->used) % p->capacity;
        uint64_t n = MIN(max, p->capacity - at);
        int64_t got = uio_copy_from(u, p->buf + at, n);
        if (got <= 0)
            return done > 0 ? done : got;
        p->used += (uint64_t)got;
        done += got;
        max -= (uint64_t)got;
        if ((uint64_t)got < n)
            break;
    }
    return done;
}

void pipe_mark_locked(struct pipe *p, uint64_t n, struct packet *fresh)
{
    fresh->gap = p->used - n - p->marked;
    fresh->left = n;
    list_add_tail(&fresh->node, &p->packets);
    p->marked = p->used;
    p->padding += PIPE_ATOMIC - n;
}

/* Takes up to *n bytes away from what stands before a packet, or from it. */
static void packet_shrink(struct pipe *p, uint64_t *left, uint64_t *n)
{
    const uint64_t some = MIN(*left, *n);

    *left -= some;
    *n -= some;
    p->marked -= some;
}

void pipe_drop_locked(struct pipe *p, uint64_t n)
{
    p->start = (p->start + n) % p->capacity;
    p->used -= n;
    while (n > 0 && !list_empty(&p->packets)) {
        struct packet *k = list_first_entry(&p->packets, struct packet, node);
        packet_shrink(p, &k->gap, &n);
        const uint64_t before = k->left;
        packet_shrink(p, &k->left, &n);
        p->padding += before - k->left;
        if (k->left > 0)
            break;
        p->padding -= PIPE_ATOMIC;
        list_del(&k->node);
        free(k);
    }
}

/* ---- reading ---- */

/* 0: nothing there yet. Lock held. */
static int64_t read_some(struct pipe *p, struct uio *u)
{
    uint64_t end = p->used, gap = end;

    if (p->used == 0 || p->taken)
        return 0;
    if (!list_empty(&p->packets) && !u->stays) {
        const struct packet *k = list_first_entry(&p->packets, struct packet, node);
        gap = k->gap;
        end = gap + k->left;
    }
    const int64_t n = ring_peek(p, u, end);
    if (n <= 0)
        return n;
    if (u->stays)
        p->taken = true;
    else /* What does not fit of a packet is lost, as pipe(2) says. */
        pipe_drop_locked(p, (uint64_t)n > gap ? end : (uint64_t)n);
    return n;
}

static bool read_can_go_on(struct pipe *p)
{
    mutex_lock(&p->mu);
    const bool ready = pipe_readable_locked(p);
    mutex_unlock(&p->mu);
    return ready;
}

static int64_t pipe_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct pipe *p = pipe_of(f);

    (void)pos;
    if (u->left == 0)
        return 0;
    for (;;) {
        mutex_lock(&p->mu);
        int64_t n = read_some(p, u);
        bool end = p->used == 0 && p->writers == 0;
        mutex_unlock(&p->mu);
        if (n > 0)
            (void)waitq_wake(&p->wq, EPOLLOUT | EPOLLWRNORM);
        if (n != 0 || end)
            return n;
        if (file_nonblock(f) || c->blocker == NULL)
            return -EAGAIN;
        int err;
        WAIT_EVENT(&p->wq, c->blocker, EPOLLIN | EPOLLHUP, DEADLINE_NEVER, read_can_go_on(p), err);
        if (err != 0)
            return -ERESTARTSYS;
    }
}

/* ---- writing ---- */

/* size: of a write, or of a packet with all that it takes. */
static bool write_fits(const struct pipe *p, uint64_t size)
{
    const uint64_t room = pipe_room_locked(p);

    return size <= PIPE_ATOMIC ? room >= size : room > 0;
}

static bool write_can_go_on(struct pipe *p, uint64_t size)
{
    mutex_lock(&p->mu);
    bool ready = p->readers == 0 || write_fits(p, size);
    mutex_unlock(&p->mu);
    return ready;
}

/* Lock held. 0: no room. */
static int64_t write_some(struct pipe *p, struct uio *u, bool packets)
{
    struct packet *k = NULL;
    int64_t n;

    if (p->readers == 0)
        return -EPIPE;
    if (!write_fits(p, packets ? PIPE_ATOMIC : u->left))
        return 0;
    if (packets) {
        k = malloc(sizeof(*k));
        if (k == NULL)
            return -ENOMEM;
    }
    n = pipe_put_locked(p, u, packets ? PIPE_ATOMIC : UINT64_MAX);
    if (n > 0 && k != NULL) {
        pipe_mark_locked(p, (uint64_t)n, k);
        k = NULL;
    }
    free(k);
    return n;
}

static int64_t pipe_write(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct pipe *p = pipe_of(f);
    /* What is spliced is in no packet. */
    const bool packets = (atomic_load(&f->flags) & O_DIRECT) != 0 && u->reserved == 0;
    int64_t done = 0;

    (void)pos;
    if (u->left == 0)
        return 0;
    for (;;) {
        mutex_lock(&p->mu);
        const bool kept = u->reserved > 0;
        p->reserved -= u->reserved;
        u->reserved = 0;
        int64_t n = write_some(p, u, packets);
        mutex_unlock(&p->mu);
        if (n > 0) {
            done += n;
            (void)waitq_wake(&p->wq, EPOLLIN | EPOLLRDNORM);
        }
        if (kept)
            (void)waitq_wake(&p->wq, EPOLLOUT | EPOLLWRNORM);
        if (n < 0)
            return done > 0 ? done : n;
        if (u->left == 0)
            return done;
        if (n > 0)
            continue;
        if (file_nonblock(f) || c->blocker == NULL)
            return done > 0 ? done : -EAGAIN;
        int err;
        WAIT_EVENT(&p->wq, c->blocker, EPOLLOUT | EPOLLERR, DEADLINE_NEVER,
                   write_can_go_on(p, packets ? PIPE_ATOMIC : u->left), err);
        if (err != 0)
            return done > 0 ? done : -ERESTARTSYS;
    }
}

/* ---- readiness, ioctl, size ---- */

static uint32_t pipe_poll(struct file *f, struct waiter *w)
{
    struct pipe *p = pipe_of(f);
    uint32_t acc = atomic_load(&f->flags) & O_ACCMODE, events = 0;

    if (w != NULL)
        waitq_add(&p->wq, w);
    mutex_lock(&p->mu);
    if (acc != O_WRONLY) {
        if (p->used > 0 && !p->taken)
            events |= EPOLLIN | EPOLLRDNORM;
        if (p->writers == 0 && p->writer_opens > 0)
            events |= EPOLLHUP;
    }
    if (acc != O_RDONLY) {
        if (pipe_room_locked(p) >= PIPE_ATOMIC)
            events |= EPOLLOUT | EPOLLWRNORM;
        if (p->readers == 0)
            events |= EPOLLERR;
    }
    mutex_unlock(&p->mu);
    return events;
}

static int64_t pipe_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                          const struct vfs_caller *c)
{
    struct pipe *p = pipe_of(f);

    (void)c;
    if (cmd != FIONREAD)
        return -ENOTTY;
    mutex_lock(&p->mu);
    const int n = (int)p->used;
    mutex_unlock(&p->mu);
    return copyout_obj(ua, (uaddr_t){arg}, &n);
}

int64_t pipe_get_size(struct file *f)
{
    if (!pipe_is(f))
        return -EBADF;
    struct pipe *p = pipe_of(f);
    mutex_lock(&p->mu);
    int64_t n = (int64_t)p->capacity;
    mutex_unlock(&p->mu);
    return n;
}

int64_t pipe_resize_locked(struct pipe *p, uint64_t size)
{
    char *buf;

    if (p->used + p->padding + p->reserved > size)
        return -EBUSY;
    buf = malloc(size);
    if (buf == NULL)
        return -ENOMEM;
    uint64_t head = MIN(p->used, p->capacity - p->start);
    if (p->used > 0) {
        memcpy(buf, p->buf + p->start, head);
        memcpy(buf + head, p->buf, p->used - head);
    }
    free(p->buf);
    p->buf = buf;
    p->start = 0;
    p->capacity = size;
    return (int64_t)size;
}

int64_t pipe_set_size(struct file *f, uint64_t size, bool privileged)
{
    uint64_t pages = PAGE_SIZE;
    int64_t r;

    if (!pipe_is(f))
        return -EBADF;
    if (size > UINT64_C(1) << 31)
        return -EINVAL;
    while (pages < size)
        pages *= 2;
    if (pages > LIMIT_PIPE_SIZE && !privileged)
        return -EPERM;
    if (pages > LIMIT_PIPE_SIZE)
        return -ENOMEM;
    struct pipe *p = pipe_of(f);
    mutex_lock(&p->mu);
    r = pipe_resize_locked(p, pages);
    mutex_unlock(&p->mu);
    if (r > 0)
        (void)waitq_wake(&p->wq, EPOLLOUT | EPOLLWRNORM);
    return r;
}

/* ---- life of the ends ---- */

static void pipe_opened_locked(struct pipe *p, uint32_t flags)
{
    uint32_t acc = flags & O_ACCMODE;

    if (acc != O_WRONLY) {
        p->readers++;
        p->reader_opens++;
    }
    if (acc != O_RDONLY) {
        p->writers++;
        p->writer_opens++;
    }
}

static void pipe_opened(struct pipe *p, uint32_t flags)
{
    mutex_lock(&p->mu);
    pipe_opened_locked(p, flags);
    mutex_unlock(&p->mu);
    (void)waitq_wake(&p->wq, 0);
}

static void pipe_closed(struct pipe *p, uint32_t flags)
{
    uint32_t acc = flags & O_ACCMODE;

    mutex_lock(&p->mu);
    if (acc != O_WRONLY)
        p->readers--;
    if (acc != O_RDONLY)
        p->writers--;
    /* A FIFO that nobody has open forgets what was in it. */
    if (p->readers == 0 && p->writers == 0)
        pipe_drop_locked(p, p->used);
    mutex_unlock(&p->mu);
    (void)waitq_wake(&p->wq, 0);
}

static void pipe_release(struct file *f)
{
    struct pipe *p = pipe_of(f);

    pipe_closed(p, atomic_load(&f->flags));
    pipe_unref(p);
}

static const struct file_ops pipe_ops = {
    .read = pipe_read,
    .write = pipe_write,
    .poll = pipe_poll,
    .ioctl = pipe_ioctl,
    .release = pipe_release,
};

bool pipe_is(const struct file *f)
{
    return f->ops == &pipe_ops;
}

/* Both ends share an inode, which knows the pipe: /proc/self/fd opens it again as a FIFO. */
static int pipe_write_end(struct pipe *p, const struct file *r, uint32_t flags, struct file **out)
{
    const struct dentry *name = r->path.dentry;
    int e = vfs_anon_inode_file(name->name, r->inode, &pipe_ops, flags, out);

    if (e != 0)
        return e;
    ref_get(&p->ref);
    (*out)->priv = p;
    pipe_opened(p, flags);
    return 0;
}

int pipe_new(uint32_t flags, struct file **out_read, struct file **out_write)
{
    uint32_t kept = flags & (O_NONBLOCK | O_DIRECT);
    struct pipe *p;
    int r = pipe_alloc(&p);

    if (r != 0)
        return r;
    r = vfs_anon_file("pipe:", S_IFIFO | 0600, &pipe_ops, p, O_RDONLY | kept, out_read);
    if (r != 0) {
        pipe_unref(p);
        return r;
    }
    pipe_opened(p, O_RDONLY);
    ref_get(&p->ref);
    (*out_read)->inode->fifo = p;
    p->anonymous = true;
    r = pipe_write_end(p, *out_read, O_WRONLY | kept, out_write);
    if (r != 0)
        file_put(*out_read);
    return r;
}

/* ---- FIFOs ---- */

static int fifo_pipe(struct inode *i, struct pipe **out)
{
    struct pipe *fresh;
    int r = pipe_alloc(&fresh);

    if (r != 0)
        return r;
    mutex_lock(&i->mu);
    if (i->fifo == NULL) {
        i->fifo = fresh;
        fresh = NULL;
    }
    *out = i->fifo;
    ref_get(&(*out)->ref);
    mutex_unlock(&i->mu);
    if (fresh != NULL)
        pipe_unref(fresh);
    return 0;
}

/* What a side that opens waits for: the other one being open, or having been since. */
struct fifo_partner {
    bool is_writer, there;
    uint64_t opens; /* so far */
};

static struct fifo_partner fifo_partner_locked(const struct pipe *p, uint32_t acc)
{
    const bool is_writer = acc == O_RDONLY;

    return (struct fifo_partner){
        .is_writer = is_writer,
        .there = (is_writer ? p->writers : p->readers) > 0,
        .opens = is_writer ? p->writer_opens : p->reader_opens,
    };
}

static bool fifo_met(struct pipe *p, const struct fifo_partner *before)
{
    mutex_lock(&p->mu);
    const struct fifo_partner now = fifo_partner_locked(p, before->is_writer ? O_RDONLY : O_WRONLY);
    mutex_unlock(&p->mu);
    return now.there || now.opens != before->opens;
}

/* Waits for the other side, as fifo(7) says. before: how it was when this side was opened; who saw
 * this one then may have left again. */
static int fifo_wait(struct pipe *p, uint32_t flags, const struct fifo_partner *before,
                     const struct vfs_caller *c)
{
    int err;

    if (before->there || p->anonymous || (flags & O_ACCMODE) == O_RDWR || (flags & O_NONBLOCK) != 0)
        return 0;
    if (c->blocker == NULL)
        return -EAGAIN;
    WAIT_EVENT(&p->wq, c->blocker, 0, DEADLINE_NEVER, fifo_met(p, before), err);
    return err != 0 ? -ERESTARTSYS : 0;
}

int fifo_open(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    const uint32_t flags = atomic_load(&f->flags), acc = flags & O_ACCMODE;
    struct pipe *p;
    int r = fifo_pipe(i, &p);

    if (r != 0)
        return r;
    /* Nobody may see this end open if it fails at once. */
    mutex_lock(&p->mu);
    const struct fifo_partner before = fifo_partner_locked(p, acc);
    const bool refused =
        !p->anonymous && (flags & O_NONBLOCK) != 0 && acc == O_WRONLY && !before.there;
    if (!refused)
        pipe_opened_locked(p, flags);
    mutex_unlock(&p->mu);
    if (refused) {
        pipe_unref(p);
        return -ENXIO;
    }
    (void)waitq_wake(&p->wq, 0);
    r = fifo_wait(p, flags, &before, c);
    if (r != 0) {
        pipe_closed(p, flags);
        pipe_unref(p);
        return r;
    }
    f->ops = &pipe_ops;
    f->priv = p;
    return 0;
}

void fifo_release(struct inode *i)
{
    pipe_unref(i->fifo);
    i->fifo = NULL;
}
