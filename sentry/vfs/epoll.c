#include "sentry/vfs/epoll.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/rbtree.h"
#include "sentry/vfs/vfs_priv.h"

#define EPOLL_PRIVATE ((uint32_t)EPOLLWAKEUP | EPOLLONESHOT | (uint32_t)EPOLLET | EPOLLEXCLUSIVE)
#define EPOLL_EXCLUSIVE_OK                                                                         \
    (EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | (uint32_t)EPOLLWAKEUP | (uint32_t)EPOLLET |        \
     EPOLLEXCLUSIVE)

struct epoll {
    struct ref ref;  /* the file, and whoever takes a closing member out */
    struct mutex mu; /* rank EPOLL: members */
    struct rb_root members;
    struct list order;     /* member.link: all members */
    struct mutex ready_mu; /* rank EPOLL_READY: the ready list */
    struct list ready;
    struct waitq wq; /* those in epoll_wait, and polls of the set itself */
};

struct member {
    struct rb_node node;
    struct list link;    /* epoll.order */
    struct list of_file; /* file->epolls, guard: files_mu */
    struct epoll *ep;
    struct file *file; /* weak: leaves before the file goes */
    int fd;
    uint32_t events; /* guard: ep->mu */
    uint64_t data;
    struct waiter w;
    struct list ready; /* guard: ep->ready_mu */
};

static struct mutex files_mu = MUTEX_INITIALIZER(LOCK_RANK_LEAF);      /* every file->epolls */
static struct mutex nesting_mu = MUTEX_INITIALIZER(LOCK_RANK_CONTROL); /* sets put into sets */
static _Atomic unsigned member_count;

static const struct file_ops epoll_ops;

bool epoll_is(const struct file *f)
{
    return f->ops == &epoll_ops;
}

static struct epoll *epoll_of(const struct file *f)
{
    return f->priv;
}

static void epoll_put(struct epoll *ep)
{
    if (!ref_put(&ep->ref))
        return;
    waitq_fini(&ep->wq);
    mutex_destroy(&ep->ready_mu);
    mutex_destroy(&ep->mu);
    free(ep);
}

/* ---- members ---- */

static int member_compare(const struct member *m, const struct file *f, int fd)
{
    if (m->file != f)
        return (uintptr_t)m->file < (uintptr_t)f ? -1 : 1;
    return (m->fd > fd) - (m->fd < fd);
}

static struct member *member_find(struct epoll *ep, const struct file *f, int fd)
{
    struct rb_node *n = ep->members.node;

    while (n != NULL) {
        struct member *m = container_of(n, struct member, node);
        int order = member_compare(m, f, fd);
        if (order == 0)
            return m;
        n = order > 0 ? n->left : n->right;
    }
    return NULL;
}

static void member_link(struct epoll *ep, struct member *m)
{
    struct rb_node **link = &ep->members.node, *parent = NULL;

    while (*link != NULL) {
        parent = *link;
        const struct member *p = container_of(parent, struct member, node);
        link = member_compare(p, m->file, m->fd) > 0 ? &parent->left : &parent->right;
    }
    rb_link_node(&m->node, parent, link);
    rb_insert_color(&m->node, &ep->members);
    list_add_tail(&m->link, &ep->order);
}

static void member_make_ready(struct member *m)
{
    mutex_lock(&m->ep->ready_mu);
    if (list_empty(&m->ready))
        list_add_tail(&m->ready, &m->ep->ready);
    mutex_unlock(&m->ep->ready_mu);
}

/* Under the member's wait queue: no look at the file here, only a note. */
static void member_woken(struct waiter *w, uint32_t events)
{
    struct member *m = container_of(w, struct member, w);

    (void)events;
    member_make_ready(m);
    (void)waitq_wake_nested(&m->ep->wq, EPOLLIN | EPOLLRDNORM);
}

static uint32_t member_poll(const struct member *m, struct waiter *w)
{
    return vfs_poll(m->file, w) & (m->events | EPOLLERR | EPOLLHUP) & ~EPOLL_PRIVATE;
}

static bool member_armed(const struct member *m)
{
    return (m->events & ~EPOLL_PRIVATE) != 0;
}

/* ep->mu held. */
static void member_remove(struct epoll *ep, struct member *m)
{
    waitq_del(&m->w);
    mutex_lock(&ep->ready_mu);
    list_del(&m->ready);
    mutex_unlock(&ep->ready_mu);
    mutex_lock(&files_mu);
    list_del(&m->of_file);
    mutex_unlock(&files_mu);
    rb_erase(&m->node, &ep->members);
    list_del(&m->link);
    atomic_fetch_sub(&member_count, 1);
    free(m);
}

int epoll_target(struct file *f, uint32_t fd, uint32_t nth, uintptr_t *out_file)
{
    struct epoll *ep = epoll_of(f);
    struct member *m;
    int r = -ENOENT;

    mutex_lock(&ep->mu);
    list_for_each_entry (m, &ep->order, link) {
        if ((uint32_t)m->fd != fd || nth-- > 0)
            continue;
        *out_file = (uintptr_t)m->file;
        r = 0;
        break;
    }
    mutex_unlock(&ep->mu);
    return r;
}

void epoll_file_gone(struct file *f)
{
    for (;;) {
        struct epoll *ep = NULL;
        struct member *m;
        /* The count of references is zero: nobody can add it to a set any more. */
        mutex_lock(&files_mu);
        if (!list_empty(&f->epolls)) {
            m = list_first_entry(&f->epolls, struct member, of_file);
            ep = ref_tryget(&m->ep->ref) ? m->ep : NULL;
        }
        bool more = !list_empty(&f->epolls);
        mutex_unlock(&files_mu);
        if (!more)
            return;
        if (ep == NULL)
            continue; /* the set is going too and takes its members out itself */
        mutex_lock(&ep->mu);
        struct list *l = ep->order.next;
        while (l != &ep->order) {
            m = container_of(l, struct member, link);
            l = l->next;
            if (m->file == f)
                member_remove(ep, m);
        }
        mutex_unlock(&ep->mu);
        epoll_put(ep);
    }
}

/* ---- control ---- */

/* Does set a reach set b, itself included, in depth steps? nesting_mu held. */
static int nesting_check(struct epoll *start, const struct epoll *target)
{
    struct epoll *level[64] = {start};
    size_t count = 1;

    for (int depth = 0; depth < LIMIT_EPOLL_DEPTH; depth++) {
        struct epoll *next[64];
        size_t next_count = 0;
        for (size_t i = 0; i < count; i++) {
            struct member *m;
            if (level[i] == target)
                return -ELOOP;
            mutex_lock(&level[i]->mu);
            list_for_each_entry (m, &level[i]->order, link)
                if (epoll_is(m->file) && next_count < ARRAY_SIZE(next))
                    next[next_count++] = epoll_of(m->file);
            mutex_unlock(&level[i]->mu);
        }
        if (next_count == 0)
            return 0;
        memcpy(level, next, next_count * sizeof(*next));
        count = next_count;
    }
    return -ELOOP;
}

static int control_add(struct epoll *ep, int fd, struct file *target, uint32_t events,
                       uint64_t data)
{
    struct member *m;

    if (member_find(ep, target, fd) != NULL)
        return -EEXIST;
    if (atomic_load(&member_count) >= LIMIT_EPOLL_ITEMS)
        return -ENOSPC;
    m = calloc(1, sizeof(*m));
    if (m == NULL)
        return -ENOMEM;
    m->ep = ep;
    m->file = target;
    m->fd = fd;
    m->events = events;
    m->data = data;
    list_init(&m->ready);
    list_init(&m->of_file);
    waiter_init_fn(&m->w, member_woken, 0);
    m->w.exclusive = (events & EPOLLEXCLUSIVE) != 0;
    atomic_fetch_add(&member_count, 1);
    mutex_lock(&files_mu);
    list_add_tail(&m->of_file, &target->epolls);
    mutex_unlock(&files_mu);
    member_link(ep, m);
    if (member_poll(m, &m->w) != 0) {
        member_make_ready(m);
        (void)waitq_wake(&ep->wq, EPOLLIN | EPOLLRDNORM);
    }
    return 0;
}

static int control_modify(struct epoll *ep, int fd, struct file *target, uint32_t events,
                          uint64_t data)
{
    struct member *m = member_find(ep, target, fd);

    if (m == NULL)
        return -ENOENT;
    if (((m->events | events) & EPOLLEXCLUSIVE) != 0)
        return -EINVAL;
    m->events = events;
    m->data = data;
    if (member_poll(m, NULL) != 0) {
        member_make_ready(m);
        (void)waitq_wake(&ep->wq, EPOLLIN | EPOLLRDNORM);
    }
    return 0;
}

static int control_locked(struct epoll *ep, int op, int fd, struct file *target, uint32_t events,
                          uint64_t data)
{
    struct member *m;

    switch (op) {
    case EPOLL_CTL_ADD:
        return control_add(ep, fd, target, events, data);
    case EPOLL_CTL_MOD:
        return control_modify(ep, fd, target, events, data);
    default:
        m = member_find(ep, target, fd);
        if (m == NULL)
            return -ENOENT;
        member_remove(ep, m);
        return 0;
    }
}

int epoll_control(struct file *f, int op, int fd, struct file *target, uint32_t events,
                  uint64_t data)
{
    struct epoll *ep = epoll_of(f);
    bool nested = epoll_is(target);
    int r = 0;

    if (op != EPOLL_CTL_ADD && op != EPOLL_CTL_MOD && op != EPOLL_CTL_DEL)
        return -EINVAL;
    if (f == target)
        return -EINVAL;
    /* Regular files and directories are always ready, which is nothing to wait for. */
    if (target->ops->poll == NULL)
        return -EPERM;
    if ((events & EPOLLEXCLUSIVE) != 0 && op != EPOLL_CTL_DEL &&
        (op != EPOLL_CTL_ADD || nested || (events & ~EPOLL_EXCLUSIVE_OK) != 0))
        return -EINVAL;
    if (nested && op == EPOLL_CTL_ADD) {
        mutex_lock(&nesting_mu);
        r = nesting_check(epoll_of(target), ep);
    }
    if (r == 0) {
        mutex_lock(&ep->mu);
        r = control_locked(ep, op, fd, target, events, data);
        mutex_unlock(&ep->mu);
    }
    if (nested && op == EPOLL_CTL_ADD)
        mutex_unlock(&nesting_mu);
    return r;
}

/* ---- waiting ---- */

/* Looks at each note once: what is really ready goes out; level-triggered members stay noted. */
static size_t collect_locked(struct epoll *ep, struct epoll_ready *out, size_t max)
{
    struct list notes;
    size_t n = 0;

    list_init(&notes);
    mutex_lock(&ep->ready_mu);
    list_splice_tail(&ep->ready, &notes);
    while (n < max && !list_empty(&notes)) {
        struct member *m = list_first_entry(&notes, struct member, ready);
        list_del(&m->ready);
        mutex_unlock(&ep->ready_mu);
        uint32_t events = member_armed(m) ? member_poll(m, NULL) : 0;
        if (events != 0) {
            out[n++] = (struct epoll_ready){events, m->data};
            if ((m->events & EPOLLONESHOT) != 0)
                m->events &= EPOLL_PRIVATE;
            else if ((m->events & (uint32_t)EPOLLET) == 0)
                member_make_ready(m);
        }
        mutex_lock(&ep->ready_mu);
    }
    /* What had no room comes first the next time. */
    list_splice_tail(&ep->ready, &notes);
    list_splice_tail(&notes, &ep->ready);
    mutex_unlock(&ep->ready_mu);
    return n;
}

static size_t collect(struct epoll *ep, struct epoll_ready *out, size_t max)
{
    mutex_lock_nested(&ep->mu);
    size_t n = collect_locked(ep, out, max);
    mutex_unlock(&ep->mu);
    return n;
}

int epoll_collect(struct file *f, struct epoll_ready *out, size_t max, deadline_t deadline,
                  struct blocker *b)
{
    struct epoll *ep = epoll_of(f);
    size_t n = collect(ep, out, max);
    int err;

    if (n > 0 || deadline == 0)
        return (int)n;
    WAIT_EVENT(&ep->wq, b, EPOLLIN, deadline, (n = collect(ep, out, max)) > 0, err);
    if (err == -ETIMEDOUT)
        return 0;
    return err != 0 ? err : (int)n;
}

/* ---- a set is a file ---- */

/* Ready when a member is: looks, and takes nothing. */
static uint32_t epoll_poll(struct file *f, struct waiter *w)
{
    struct epoll *ep = epoll_of(f);
    struct member *m;
    uint32_t ready = 0;

    if (w != NULL && w->q == NULL)
        waitq_add(&ep->wq, w);
    mutex_lock_nested(&ep->mu);
    list_for_each_entry (m, &ep->order, link) {
        if (member_armed(m) && member_poll(m, NULL) != 0) {
            ready = EPOLLIN | EPOLLRDNORM;
            break;
        }
    }
    mutex_unlock(&ep->mu);
    return ready;
}

static void epoll_release(struct file *f)
{
    struct epoll *ep = epoll_of(f);

    mutex_lock(&ep->mu);
    while (!list_empty(&ep->order))
        member_remove(ep, list_first_entry(&ep->order, struct member, link));
    mutex_unlock(&ep->mu);
    epoll_put(ep);
}

static void epoll_show_fdinfo(struct file *f, char *buf, size_t size)
{
    struct epoll *ep = epoll_of(f);
    struct member *m;
    size_t len = 0;

    buf[0] = '\0';
    mutex_lock(&ep->mu);
    list_for_each_entry (m, &ep->order, link) {
        int n = snprintf(buf + len, size - len, "tfd: %8d events: %8x data: %16llx\n", m->fd,
                         m->events, (unsigned long long)m->data);
        if (n < 0 || (size_t)n >= size - len)
            break;
        len += (size_t)n;
    }
    mutex_unlock(&ep->mu);
}

static const struct file_ops epoll_ops = {
    .seek = vfs_seek_noop,
    .poll = epoll_poll,
    .release = epoll_release,
    .show_fdinfo = epoll_show_fdinfo,
};

int epoll_new(struct file **out_file)
{
    struct epoll *ep = calloc(1, sizeof(*ep));
    int r;

    if (ep == NULL)
        return -ENOMEM;
    ref_init(&ep->ref);
    mutex_init(&ep->mu, LOCK_RANK_EPOLL);
    mutex_init(&ep->ready_mu, LOCK_RANK_EPOLL_READY);
    list_init(&ep->order);
    list_init(&ep->ready);
    waitq_init(&ep->wq);
    r = vfs_anon_file("anon_inode:[eventpoll]", 0600, &epoll_ops, ep, O_RDWR, out_file);
    if (r != 0)
        epoll_put(ep);
    return r;
}
