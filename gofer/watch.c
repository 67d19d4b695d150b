#include "gofer/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gofer/confine.h"
#include "gofer/server_priv.h"

/* Events that say what they are about by a node, not only by a name. */
#define LOOKED_AT (IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE)
/* Reads of the host's queue in a row: what they can bring fits into an empty queue of ours. */
#define DRAIN_READS 32

struct watch {
    struct watch *next;
    int wd, fd; /* fd: O_PATH */
    bool directory;
    uint32_t handles; /* whose sentry is told; 0: it is watched for its children alone */
    uint32_t users;   /* handles and children */
    uint64_t dev, ino;
    struct watch *parent; /* where a directory is: it is not told of its own end. NULL: not known */
    struct list children, sibling;
};

struct queued {
    struct list node;
    struct gof_event event;
};

int watch_init(struct watch_set *w, size_t max, const char *fd_path)
{
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->wake_fd < 0)
        return -errno;
    rwlock_init(&w->lock, LOCK_RANK_GOFER_WATCH);
    w->notify_fd = -1;
    w->max = (uint32_t)MIN(max, (size_t)LIMIT_GOFER_WATCHES);
    w->fd_path = fd_path;
    list_init(&w->queue);
    return 0;
}

static void queue_drop_first(struct watch_set *w)
{
    struct queued *e = list_first_entry(&w->queue, struct queued, node);

    list_del(&e->node);
    w->queued--;
    free(e);
}

void watch_fini(struct watch_set *w)
{
    for (size_t i = 0; i < WATCH_BUCKETS; i++)
        while (w->buckets[i]) {
            struct watch *x = w->buckets[i];
            w->buckets[i] = x->next;
            close(x->fd);
            free(x);
        }
    while (!list_empty(&w->queue))
        queue_drop_first(w);
    if (w->notify_fd >= 0)
        close(w->notify_fd);
    close(w->wake_fd);
    rwlock_destroy(&w->lock);
}

/* Whoever waits in watch_tell looks again. */
static void wake(struct watch_set *w)
{
    const uint64_t one = 1;

    (void)!write(w->wake_fd, &one, sizeof(one));
}

/* ---- watches ---- */

static struct watch **bucket(struct watch_set *set, int wd)
{
    return &set->buckets[(unsigned)wd % WATCH_BUCKETS];
}

static struct watch *find(struct watch_set *set, int wd)
{
    struct watch *w = *bucket(set, wd);

    while (w && w->wd != wd)
        w = w->next;
    return w;
}

/* What inotify_add_watch(2) may say to the guest. */
static int add_error(int code)
{
    return code == EACCES || code == ENOMEM ? -code : -ENOSPC;
}

/* The host's number for what fd stands for. */
static int add_host(struct watch_set *set, int fd)
{
    char path[64];

    if (set->notify_fd < 0) {
        set->notify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (set->notify_fd < 0)
            return add_error(errno);
        wake(set);
    }
    snprintf(path, sizeof(path), "%s%d", set->fd_path, fd);
    int wd = inotify_add_watch(set->notify_fd, path, GOFER_WATCH_MASK);
    return wd < 0 ? add_error(errno) : wd;
}

static int watch_new(struct gof_server *s, int fd, int wd, struct watch **out)
{
    struct watch *w = calloc(1, sizeof(*w));
    struct gof_attr a;

    if (!w)
        return -ENOMEM;
    int r = host_stat(fd, &a);
    if (r == 0) {
        w->fd = host_reopen(s, fd, O_PATH);
        r = w->fd < 0 ? -ENOSPC : 0;
    }
    if (r) {
        free(w);
        return r;
    }
    w->wd = wd;
    w->directory = S_ISDIR(a.mode);
    list_init(&w->children);
    list_init(&w->sibling);
    w->dev = a.dev;
    w->ino = a.ino;
    w->next = *bucket(&s->watches, wd);
    *bucket(&s->watches, wd) = w;
    s->watches.count++;
    *out = w;
    return 0;
}

static int get_user_locked(struct gof_server *s, int fd, struct watch **out)
{
    struct watch_set *set = &s->watches;
    struct watch *w;
    int r = 0;

    rwlock_assert_write_held(&set->lock);
    int wd = add_host(set, fd);
    if (wd < 0)
        return wd;
    w = find(set, wd);
    if (!w) {
        r = set->count < set->max ? watch_new(s, fd, wd, &w) : -ENOSPC;
        if (r) {
            (void)inotify_rm_watch(set->notify_fd, wd);
            return r;
        }
    }
    w->users++;
    *out = w;
    return 0;
}

static void put_user_locked(struct watch_set *set, struct watch *w)
{
    if (--w->users > 0)
        return;
    struct watch **at = bucket(set, w->wd);
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    set->count--;
    /* It may be gone by itself, with its file system. */
    (void)inotify_rm_watch(set->notify_fd, w->wd);
    close(w->fd);
    free(w);
}

static void leave_parent_locked(struct watch_set *set, struct watch *w)
{
    if (!w->parent)
        return;
    list_del(&w->sibling);
    put_user_locked(set, w->parent);
    w->parent = NULL;
}

/* Where w is now, unless it is a root or the host has no watch for it. */
static void join_parent_locked(struct gof_server *s, struct watch *w)
{
    int up = w->directory ? host_open_parent(w->fd) : -1;
    struct watch *parent = NULL;
    struct gof_attr a;

    if (up >= 0) {
        bool root = host_stat(up, &a) || (a.dev == w->dev && a.ino == w->ino);
        if (!root && get_user_locked(s, up, &parent))
            parent = NULL;
        close(up);
    }
    /* Only now: it may be the same, whose events are not to be lost. */
    leave_parent_locked(&s->watches, w);
    w->parent = parent;
    if (parent)
        list_add_tail(&w->sibling, &parent->children);
}

int watch_get_locked(struct gof_server *s, int fd, struct watch **out)
{
    struct watch *w;
    int r = get_user_locked(s, fd, &w);

    if (r)
        return r;
    if (w->handles++ == 0)
        join_parent_locked(s, w);
    *out = w;
    return 0;
}

uint32_t watch_number(const struct watch *w)
{
    return (uint32_t)w->wd;
}

void watch_put(struct watch_set *set, struct watch *w)
{
    if (!w)
        return;
    rwlock_wrlock(&set->lock);
    if (--w->handles == 0)
        leave_parent_locked(set, w);
    put_user_locked(set, w);
    rwlock_unlock(&set->lock);
}

/* ---- events of the host ---- */

static bool is_quiet(const struct quiet *q, const struct watch *w, const struct inotify_event *e,
                     const char *name)
{
    for (size_t i = 0; q && i < q->count; i++) {
        const struct quiet_event *x = &q->what[i];
        if (x->dev == w->dev && x->ino == w->ino && (x->mask & e->mask) &&
            strcmp(x->name, name) == 0)
            return true;
    }
    return false;
}

/* How what the event is about looks now. */
static void look_at(const struct watch *w, struct gof_event *e)
{
    int fd = *e->name ? host_open_child(w->fd, e->name, 0) : w->fd;
    struct gof_attr a;

    if (fd < 0)
        return;
    if (host_stat(fd, &a) == 0) {
        e->dev = a.dev;
        e->ino = a.ino;
        e->nlink = a.nlink;
        e->ctime = a.ctime;
        e->btime = a.btime;
    }
    if (fd != w->fd)
        close(fd);
}

static bool repeats_last(const struct watch_set *set, const struct inotify_event *e,
                         const char *name)
{
    if (list_empty(&set->queue))
        return false;
    const struct gof_event *last = &list_last_entry(&set->queue, struct queued, node)->event;
    return last->wd == (uint32_t)e->wd && last->mask == e->mask && last->cookie == e->cookie &&
           strcmp(last->name, name) == 0;
}

/* NULL: some are lost. */
static struct gof_event *enqueue(struct watch_set *set, const struct watch *w, uint32_t mask)
{
    struct queued *out = set->queued < LIMIT_GOFER_EVENTS ? calloc(1, sizeof(*out)) : NULL;

    if (!out) {
        set->lost = true;
        return NULL;
    }
    out->event.wd = (uint32_t)w->wd;
    out->event.mask = mask;
    list_add_tail(&out->node, &set->queue);
    set->queued++;
    return &out->event;
}

/* A directory went from w: of those that are watched, those without a name are told, as the host
 * would if nobody had them open. */
static void tell_of_children(struct watch_set *set, const struct watch *w)
{
    const struct watch *child;
    struct gof_attr a;

    list_for_each_entry (child, &w->children, sibling)
        if (host_stat(child->fd, &a) == 0 && a.nlink == 0)
            (void)enqueue(set, child, IN_DELETE_SELF);
}

static void take_told(struct watch_set *set, const struct watch *w, const struct inotify_event *e,
                      const char *name)
{
    struct gof_event *out;

    if (repeats_last(set, e, name)) {
        look_at(w, &list_last_entry(&set->queue, struct queued, node)->event);
        return;
    }
    out = enqueue(set, w, e->mask);
    if (!out)
        return;
    out->cookie = e->cookie;
    snprintf(out->name, sizeof(out->name), "%s", name);
    if (e->mask & LOOKED_AT)
        look_at(w, out);
}

static void take_event(struct gof_server *s, const struct quiet *quiet,
                       const struct inotify_event *e, const char *name)
{
    struct watch_set *set = &s->watches;

    if (e->mask & IN_Q_OVERFLOW)
        set->lost = true;
    struct watch *w = find(set, e->wd);
    if (!w || (e->mask & GOFER_WATCH_MASK & IN_ALL_EVENTS) == 0 ||
        (*name && !gof_name_ok(name, strlen(name))))
        return;
    /* Whoever has moved it. */
    if (e->mask & IN_MOVE_SELF && w->handles)
        join_parent_locked(s, w);
    if (is_quiet(quiet, w, e, name))
        return;
    if (w->handles)
        take_told(set, w, e, name);
    if (e->mask & IN_ISDIR && e->mask & IN_DELETE)
        tell_of_children(set, w);
}

/* What the host has to say goes to the queue, but for what quiet knows of. */
static void drain(struct gof_server *s, const struct quiet *quiet)
{
    struct watch_set *set = &s->watches;
    char buf[2048] __attribute__((aligned(8)));
    char name[NAME_MAX + 1];
    ssize_t n;

    if (set->notify_fd < 0)
        return;
    for (int i = 0; i < DRAIN_READS; i++) {
        n = read(set->notify_fd, buf, sizeof(buf));
        if (n <= 0)
            return;
        for (ssize_t off = 0; off < n;) {
            struct inotify_event e;
            memcpy(&e, buf + off, sizeof(e));
            off += (ssize_t)sizeof(e);
            snprintf(name, sizeof(name), "%.*s", (int)e.len, buf + off);
            off += (ssize_t)e.len;
            take_event(s, quiet, &e, name);
        }
    }
}

/* ---- what the gofer does itself ---- */

void quiet_begin(struct gof_server *s, struct quiet *q)
{
    struct watch_set *set = &s->watches;

    *q = (struct quiet){.set = set};
    rwlock_rdlock(&set->lock);
    /* Held for reading, it keeps the first watch away till we are done. */
    if (LIKELY(set->count == 0))
        return;
    rwlock_unlock(&set->lock);
    rwlock_wrlock(&set->lock);
    q->on = true;
    drain(s, NULL);
}

void quiet_name(struct quiet *q, int dir, const char *name, uint32_t mask)
{
    struct gof_attr a;

    if (!q->on || q->count == QUIET_MAX || host_stat(dir, &a))
        return;
    q->what[q->count++] =
        (struct quiet_event){.dev = a.dev, .ino = a.ino, .name = name, .mask = mask};
}

void quiet_self(struct quiet *q, int fd, uint32_t mask)
{
    quiet_name(q, fd, "", mask);
}

void quiet_child(struct quiet *q, int dir, const char *name, uint32_t mask)
{
    int fd = q->on ? host_open_child(dir, name, 0) : -1;

    if (fd < 0)
        return;
    quiet_self(q, fd, mask);
    close(fd);
}

void quiet_end(struct gof_server *s, struct quiet *q)
{
    struct watch_set *set = &s->watches;

    if (q->on) {
        drain(s, q);
        if (set->queued || set->lost)
            wake(set);
    }
    rwlock_unlock(&set->lock);
}

/* ---- telling ---- */

static bool tell_locked(struct watch_set *set, struct wbuf *w)
{
    uint16_t count = 0;

    if (set->queued == 0 && !set->lost)
        return false;
    size_t head = w->len;
    wbuf_u8(w, 0);
    wbuf_u16(w, 0);
    while (set->queued && count < UINT16_MAX && wbuf_left(w) >= GOF_EVENT_SIZE) {
        gof_put_event(w, &list_first_entry(&set->queue, struct queued, node)->event);
        queue_drop_first(set);
        count++;
    }
    /* What is lost would have come last. */
    if (set->queued == 0 && set->lost) {
        w->data[head] = 1;
        set->lost = false;
    }
    wbuf_patch_u16(w, head + 1, count);
    return true;
}

static bool await(const struct watch_set *set, int notify_fd, int sock)
{
    struct pollfd p[] = {
        {.fd = sock}, {.fd = set->wake_fd, .events = POLLIN}, {.fd = notify_fd, .events = POLLIN}};
    uint64_t count;
    int n;

    do
        n = poll(p, ARRAY_SIZE(p), -1);
    while (n < 0 && errno == EINTR);
    if (n < 0 || p[0].revents)
        return false;
    if (p[1].revents)
        (void)!read(set->wake_fd, &count, sizeof(count));
    return true;
}

int watch_tell(struct gof_server *s, int sock, struct wbuf *w)
{
    struct watch_set *set = &s->watches;

    for (;;) {
        rwlock_wrlock(&set->lock);
        if (set->queued == 0)
            drain(s, NULL);
        bool told = tell_locked(set, w);
        int notify_fd = set->notify_fd;
        rwlock_unlock(&set->lock);
        if (told)
            return 0;
        if (sock < 0)
            return -EAGAIN;
        if (!await(set, notify_fd, sock))
            return -EPIPE;
    }
}
