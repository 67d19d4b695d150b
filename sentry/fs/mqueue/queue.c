/* Messages: by priority, then in the order they came. A message that somebody waits for is handed
 * over without a stay in the queue (ipc/mqueue.c, pipelined_send). */
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "base/ckd.h"
#include "sentry/errno_internal.h"
#include "sentry/fs/mqueue/mqueue_priv.h"

OBJCOUNT_DEFINE(mqueue_msg);

struct mqueue *mqueue_of_file(struct file *f)
{
    return f->ops == &mqueue_file_ops ? mqueue_of(f->inode) : NULL;
}

static bool file_may(struct file *f, int mode)
{
    const uint32_t have = atomic_load(&f->flags) & O_ACCMODE;

    return have == O_RDWR || have == (uint32_t)mode;
}

/* ---- messages ---- */

int mqueue_msg_new(struct file *f, uint64_t size, unsigned prio, void **out_text,
                   struct mqueue_msg **out)
{
    struct mqueue *q = mqueue_of_file(f);

    if (q == NULL || !file_may(f, O_WRONLY))
        return -EBADF;
    if (size > q->message_size)
        return -EMSGSIZE;
    struct ipc_ns *ns = mqueue_super_of(f->inode->sb)->ns;
    int r = ipc_charge(ns, sizeof(struct mqueue_msg) + size);
    if (r != 0)
        return r;
    struct mqueue_msg *m = malloc(sizeof(*m) + size);
    if (m == NULL) {
        ipc_uncharge(ns, sizeof(*m) + size);
        return -ENOMEM;
    }
    m->ns = ns;
    m->size = size;
    m->prio = prio;
    OBJCOUNT_INC(mqueue_msg);
    *out_text = m->text;
    *out = m;
    return 0;
}

void mqueue_msg_free(struct mqueue_msg *m)
{
    ipc_uncharge(m->ns, sizeof(*m) + m->size);
    OBJCOUNT_DEC(mqueue_msg);
    free(m);
}

const void *mqueue_msg_text(const struct mqueue_msg *m, uint64_t *out_size, unsigned *out_prio)
{
    *out_size = m->size;
    *out_prio = m->prio;
    return m->text;
}

/* Those to be taken first stand at the left. */
static void msg_insert_locked(struct mqueue *q, struct mqueue_msg *m)
{
    struct rb_node **link = &q->messages.node, *up = NULL;

    m->seq = q->next_seq++;
    while (*link != NULL) {
        up = *link;
        const struct mqueue_msg *o = container_of(up, struct mqueue_msg, node);
        link = m->prio > o->prio ? &up->left : &up->right;
    }
    rb_link_node(&m->node, up, link);
    rb_insert_color(&m->node, &q->messages);
    q->count++;
    q->bytes += m->size;
}

static struct mqueue_msg *msg_take_locked(struct mqueue *q)
{
    struct rb_node *n = rb_first(&q->messages);

    if (n == NULL)
        return NULL;
    rb_erase(n, &q->messages);
    struct mqueue_msg *m = container_of(n, struct mqueue_msg, node);
    q->count--;
    q->bytes -= m->size;
    return m;
}

void mqueue_drop_messages(struct mqueue *q)
{
    struct mqueue_msg *m;

    while ((m = msg_take_locked(q)) != NULL)
        mqueue_msg_free(m);
}

/* ---- waiting ---- */

static struct mqueue_sleeper *sleeper_first(struct list *l)
{
    return list_empty(l) ? NULL : list_first_entry(l, struct mqueue_sleeper, node);
}

/* w has what it waited for. It takes the queue's lock before it leaves. */
static void sleeper_end(struct mqueue_sleeper *w)
{
    list_del(&w->node);
    blocker_wake(w->blocker);
}

static int sleep_locked(struct mqueue *q, struct list *l, struct mqueue_sleeper *w,
                        deadline_t deadline)
{
    int r = 0;

    list_add_tail(&w->node, l);
    while (r == 0 && !list_empty(&w->node)) {
        mutex_unlock(&q->mu);
        r = blocker_wait(w->blocker, deadline);
        mutex_lock(&q->mu);
    }
    if (list_empty(&w->node))
        return 0;
    list_del(&w->node);
    return r == -EINTR ? -ERESTARTSYS : r;
}

/* There is room, or a receiver. *out_notify is to be told (owned). */
static void send_locked(struct mqueue *q, struct mqueue_msg *m, struct mqueue_notify **out_notify)
{
    struct mqueue_sleeper *w = sleeper_first(&q->receivers);

    if (w != NULL) {
        w->msg = m;
        sleeper_end(w);
        return;
    }
    msg_insert_locked(q, m);
    if (q->count == 1) {
        *out_notify = q->notify;
        q->notify = NULL;
    }
    (void)waitq_wake(&q->wq, EPOLLIN | EPOLLRDNORM);
}

static void queue_times(struct inode *i, bool read)
{
    mutex_lock(&i->mu);
    i->ctime = vfs_now();
    *(read ? &i->atime : &i->mtime) = i->ctime;
    mutex_unlock(&i->mu);
}

int mqueue_send(struct file *f, const struct vfs_caller *c, struct mqueue_msg *m,
                deadline_t deadline)
{
    struct mqueue *q = mqueue_of(f->inode); /* m was made for it */
    struct mqueue_sleeper w = {.blocker = c->blocker, .msg = m};
    struct mqueue_notify *n = NULL;
    int r = 0;

    mutex_lock(&q->mu);
    if (q->count < q->max_messages)
        send_locked(q, m, &n);
    else if (atomic_load(&f->flags) & O_NONBLOCK)
        r = -EAGAIN;
    else
        r = sleep_locked(q, &q->senders, &w, deadline);
    mutex_unlock(&q->mu);
    if (n != NULL) {
        n->fire(n, c->tgid, c->cred->uid);
        n->free(n);
    }
    if (r == 0)
        queue_times(f->inode, false);
    return r;
}

/* Room for one more: the first that waits to send does so. */
static void refill_locked(struct mqueue *q)
{
    struct mqueue_sleeper *w = sleeper_first(&q->senders);

    if (w != NULL) {
        msg_insert_locked(q, w->msg);
        sleeper_end(w);
        return;
    }
    (void)waitq_wake(&q->wq, EPOLLOUT | EPOLLWRNORM);
}

int mqueue_receive(struct file *f, const struct vfs_caller *c, uint64_t size, deadline_t deadline,
                   struct mqueue_msg **out)
{
    struct mqueue *q = mqueue_of_file(f);
    struct mqueue_sleeper w = {.blocker = c->blocker};
    int r = 0;

    if (q == NULL || !file_may(f, O_RDONLY))
        return -EBADF;
    if (size < q->message_size)
        return -EMSGSIZE;
    mutex_lock(&q->mu);
    w.msg = msg_take_locked(q);
    if (w.msg != NULL)
        refill_locked(q);
    else if (atomic_load(&f->flags) & O_NONBLOCK)
        r = -EAGAIN;
    else
        r = sleep_locked(q, &q->receivers, &w, deadline);
    mutex_unlock(&q->mu);
    if (r != 0)
        return r;
    queue_times(f->inode, true);
    *out = w.msg;
    return 0;
}

/* ---- attributes and notification ---- */

int mqueue_getset(struct file *f, const struct mqueue_attr *set, struct mqueue_attr *old)
{
    struct mqueue *q = mqueue_of_file(f);

    if (set != NULL && set->flags & ~(int64_t)O_NONBLOCK)
        return -EINVAL;
    if (q == NULL)
        return -EBADF;
    mutex_lock(&q->mu);
    if (old != NULL)
        *old = (struct mqueue_attr){
            .flags = atomic_load(&f->flags) & O_NONBLOCK,
            .max_messages = (int64_t)q->max_messages,
            .message_size = (int64_t)q->message_size,
            .messages = (int64_t)q->count,
        };
    if (set != NULL) {
        if (set->flags & O_NONBLOCK)
            atomic_fetch_or(&f->flags, (uint32_t)O_NONBLOCK);
        else
            atomic_fetch_and(&f->flags, ~(uint32_t)O_NONBLOCK);
    }
    mutex_unlock(&q->mu);
    return 0;
}

int mqueue_notify(struct file *f, struct mqueue_notify *n, int32_t owner)
{
    struct mqueue *q = mqueue_of_file(f);
    struct mqueue_notify *gone = NULL;
    int r = 0;

    if (q == NULL)
        return -EBADF;
    mutex_lock(&q->mu);
    if (n != NULL && q->notify != NULL) {
        r = -EBUSY;
    } else if (n != NULL) {
        q->notify = n;
    } else if (q->notify != NULL && q->notify->owner == owner) {
        gone = q->notify;
        q->notify = NULL;
    }
    mutex_unlock(&q->mu);
    if (gone != NULL) {
        gone->end(gone);
        gone->free(gone);
    }
    return r;
}

/* ---- the file ---- */

static int64_t mqueue_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct mqueue *q = mqueue_of(f->inode);
    char text[96];

    (void)c;
    mutex_lock(&q->mu);
    const struct mqueue_notify *n = q->notify;
    int len = snprintf(text, sizeof(text), "QSIZE:%-10lu NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n",
                       (unsigned long)q->bytes, n ? n->how : 0,
                       n && n->how == SIGEV_SIGNAL ? n->signo : 0, n ? n->owner : 0);
    mutex_unlock(&q->mu);
    if (*pos >= len || u->left == 0)
        return 0;
    int64_t r = uio_copy_to(u, text + *pos, MIN((uint64_t)(len - *pos), u->left));
    if (r > 0)
        *pos += r;
    return r;
}

static int64_t mqueue_seek(struct file *f, int64_t off, int whence)
{
    const int64_t base = whence == SEEK_CUR   ? f->pos
                         : whence == SEEK_END ? (int64_t)f->inode->size
                                              : 0;

    if (ckd_add(&off, base, off) || off < 0)
        return -EINVAL;
    f->pos = off;
    return off;
}

static uint32_t mqueue_poll(struct file *f, struct waiter *w)
{
    struct mqueue *q = mqueue_of(f->inode);
    uint32_t events = 0;

    if (w != NULL)
        waitq_add(&q->wq, w);
    mutex_lock(&q->mu);
    if (q->count > 0)
        events |= EPOLLIN | EPOLLRDNORM;
    if (q->count < q->max_messages)
        events |= EPOLLOUT | EPOLLWRNORM;
    mutex_unlock(&q->mu);
    return events;
}

/* A process that closes one of its descriptors is not told any more. */
static int mqueue_flush(struct file *f, const struct vfs_caller *c)
{
    return mqueue_notify(f, NULL, c ? c->tgid : 0);
}

const struct file_ops mqueue_file_ops = {
    .read = mqueue_read,
    .seek = mqueue_seek,
    .poll = mqueue_poll,
    .flush = mqueue_flush,
};
