/* Advisory locks: flock(2), fcntl(2) F_SETLK and F_OFD_SETLK. An inode has a list of holders, each
 * with its locks of one kind in a tree: they never overlap, so that finding, cutting and joining
 * look at neighbours only. A waiter is told when anything is released. */
#include <stdlib.h>
#include <sys/file.h>

#include "base/ckd.h"
#include "base/rbtree.h"
#include "sentry/errno_internal.h"
#include "sentry/vfs/lease.h"
#include "sentry/vfs/vfs_priv.h"

/* Whoever has locks of one inode. */
struct lock_holder {
    struct list node; /* inode->locks */
    const void *owner;
    bool whole;
    struct rb_root locks; /* by start */
    size_t count;
};

struct file_lock {
    struct rb_node node; /* in its holder's */
    struct list all;
    const struct inode *inode;
    const void *owner;
    bool whole; /* flock(2): has nothing to do with ranges */
    bool exclusive;
    int64_t start, end; /* inclusive */
    int32_t pid;
};

/* One who waits: what for and for whom, so that circles are seen. */
struct lock_waiter {
    struct list node;
    const struct file_lock *want;
    const void *owner;
    const void *blocked_by;
    bool detect;             /* circles count */
    struct blocker *blocker; /* borrowed, while it is in the list */
};

static struct mutex locks_mu; /* rank FILE_LOCK: every lock list and waiter */
static struct list lock_waiters;
static struct list all_locks = LIST_INIT(all_locks);

__attribute__((constructor)) static void lock_init(void)
{
    mutex_init(&locks_mu, LOCK_RANK_FILE_LOCK);
    list_init(&lock_waiters);
}

/* ---- one holder's; locks_mu is held ---- */

static struct file_lock *lock_of(struct rb_node *n)
{
    return rb_entry_safe(n, struct file_lock, node);
}

static struct file_lock *lock_next(const struct file_lock *l)
{
    return lock_of(rb_next(&l->node));
}

/* The first one that ends at start or behind it. */
static struct file_lock *holder_from(const struct lock_holder *h, int64_t start)
{
    struct rb_node *n = h->locks.node;
    struct file_lock *best = NULL;

    while (n != NULL) {
        struct file_lock *l = lock_of(n);
        if (l->end >= start)
            best = l;
        n = l->end >= start ? n->left : n->right;
    }
    return best;
}

static void holder_add(struct lock_holder *h, struct file_lock *l, struct list *before)
{
    struct rb_node **link = &h->locks.node, *parent = NULL;

    while (*link != NULL) {
        parent = *link;
        link = l->start < lock_of(parent)->start ? &parent->left : &parent->right;
    }
    rb_link_node(&l->node, parent, link);
    rb_insert_color(&l->node, &h->locks);
    list_add_tail(&l->all, before);
    h->count++;
}

static void holder_remove(struct lock_holder *h, struct file_lock *l)
{
    rb_erase(&l->node, &h->locks);
    list_del(&l->all);
    h->count--;
    free(l);
}

/* Cuts by's range out; whether there was any. spare is used when a lock falls in two. */
static bool holder_cut(struct lock_holder *h, const struct file_lock *by, struct file_lock **spare)
{
    struct file_lock *l, *next;
    bool any = false;

    for (l = holder_from(h, by->start); l != NULL && l->start <= by->end; l = next) {
        any = true;
        next = lock_next(l);
        if (l->start < by->start && l->end > by->end) {
            struct file_lock *tail = *spare;
            *spare = NULL;
            *tail = *l;
            tail->start = by->end + 1;
            l->end = by->start - 1;
            holder_add(h, tail, l->all.next);
        } else if (l->start < by->start) {
            l->end = by->start - 1;
        } else if (l->end > by->end) {
            l->start = by->end + 1;
        } else {
            holder_remove(h, l);
        }
    }
    return any;
}

/* Joins neighbours of one kind, as fcntl does. */
static void holder_join(struct lock_holder *h, struct file_lock *n)
{
    struct file_lock *before = lock_of(rb_prev(&n->node)), *after = lock_next(n);

    if (before != NULL && before->exclusive == n->exclusive && before->end + 1 == n->start) {
        n->start = before->start;
        holder_remove(h, before);
    }
    if (after != NULL && after->exclusive == n->exclusive && n->end + 1 == after->start) {
        n->end = after->end;
        holder_remove(h, after);
    }
}

/* ---- all holders of an inode; locks_mu is held ---- */

static bool locks_conflict(const struct file_lock *held, const struct file_lock *want)
{
    return held->whole == want->whole && held->owner != want->owner &&
           (held->exclusive || want->exclusive) && held->start <= want->end &&
           want->start <= held->end;
}

static const struct file_lock *holder_conflict(const struct lock_holder *h,
                                               const struct file_lock *want)
{
    if (h->whole != want->whole || h->owner == want->owner)
        return NULL;
    const struct file_lock *l = holder_from(h, want->start);
    for (; l != NULL && l->start <= want->end; l = lock_next(l))
        if (locks_conflict(l, want))
            return l;
    return NULL;
}

static const struct file_lock *lock_conflict(const struct inode *i, const struct file_lock *want)
{
    const struct lock_holder *h;

    list_for_each_entry (h, &i->locks, node) {
        const struct file_lock *l = holder_conflict(h, want);
        if (l != NULL)
            return l;
    }
    return NULL;
}

static size_t lock_count(const struct inode *i)
{
    const struct lock_holder *h;
    size_t n = 0;

    list_for_each_entry (h, &i->locks, node)
        n += h->count;
    return n;
}

/* *spare is used for one that is not there yet. */
static struct lock_holder *lock_holder(struct inode *i, const struct file_lock *want,
                                       struct lock_holder **spare)
{
    struct lock_holder *h;

    list_for_each_entry (h, &i->locks, node)
        if (h->owner == want->owner && h->whole == want->whole)
            return h;
    h = *spare;
    *spare = NULL;
    *h = (struct lock_holder){.owner = want->owner, .whole = want->whole};
    list_add_tail(&h->node, &i->locks);
    return h;
}

static void holder_drop_empty(struct lock_holder *h)
{
    if (h->count > 0)
        return;
    list_del(&h->node);
    free(h);
}

/* Would owner, waiting for holder, wait for itself in the end? */
static bool lock_deadlock(const void *owner, const void *holder)
{
    for (int depth = 0; depth < LIMIT_LOCK_CHAIN; depth++) {
        const struct lock_waiter *w;
        const void *next = NULL;
        if (holder == owner)
            return true;
        list_for_each_entry (w, &lock_waiters, node) {
            if (w->detect && w->owner == holder) {
                next = w->blocked_by;
                break;
            }
        }
        if (next == NULL)
            return false;
        holder = next;
    }
    return false;
}

/* h has less of i than before. Whose way it is not in any more looks himself: somebody else may be,
 * and waiting for him may close a circle. */
static void lock_tell(const struct inode *i, const struct lock_holder *h)
{
    const struct lock_waiter *w;

    list_for_each_entry (w, &lock_waiters, node)
        if (w->want->inode == i && w->blocked_by == h->owner && holder_conflict(h, w->want) == NULL)
            blocker_wake(w->blocker);
}

/* What a change of locks may need; what is left of it is freed. */
struct lock_room {
    struct file_lock *new, *tail;
    struct lock_holder *holder;
};

static int lock_room_init(struct lock_room *room)
{
    room->new = malloc(sizeof(*room->new));
    room->tail = malloc(sizeof(*room->tail));
    room->holder = malloc(sizeof(*room->holder));
    return room->new != NULL && room->tail != NULL && room->holder != NULL ? 0 : -ENOLCK;
}

static void lock_room_fini(struct lock_room *room)
{
    free(room->new);
    free(room->tail);
    free(room->holder);
}

/* flock(2): a lock of the other kind is given up first, whatever comes of the new one. True: want
 * is there already. */
static bool lock_convert(struct inode *i, const struct file_lock *want)
{
    struct lock_holder *h;

    list_for_each_entry (h, &i->locks, node) {
        if (!h->whole || h->owner != want->owner)
            continue;
        struct file_lock *l = lock_of(h->locks.node);
        if (l->exclusive == want->exclusive)
            return true;
        holder_remove(h, l);
        lock_tell(i, h);
        holder_drop_empty(h);
        return false;
    }
    return false;
}

/* 1: taken; 0: somebody is in the way (*out_holder). */
static int lock_try_locked(struct inode *i, const struct file_lock *want, bool unlock,
                           struct lock_room *room, const void **out_holder)
{
    if (want->whole && !unlock && lock_convert(i, want))
        return 1;
    const struct file_lock *conflict = unlock ? NULL : lock_conflict(i, want);
    if (conflict != NULL) {
        *out_holder = conflict->owner;
        return 0;
    }
    if (!unlock && lock_count(i) >= LIMIT_FILE_LOCKS)
        return -ENOLCK;
    struct lock_holder *h = lock_holder(i, want, &room->holder);
    const bool less = holder_cut(h, want, &room->tail);
    if (!unlock) {
        *room->new = *want;
        holder_add(h, room->new, &all_locks);
        holder_join(h, room->new);
        room->new = NULL;
    }
    /* A weaker lock, or none, may let others in. */
    if (less)
        lock_tell(i, h);
    holder_drop_empty(h);
    return 1;
}

/* As lock_try_locked. */
static int lock_try(struct inode *i, const struct file_lock *want, bool unlock)
{
    struct lock_room room;
    const void *holder;
    int r = lock_room_init(&room);

    if (r == 0) {
        mutex_lock(&locks_mu);
        r = lock_try_locked(i, want, unlock, &room, &holder);
        mutex_unlock(&locks_mu);
    }
    lock_room_fini(&room);
    return r;
}

/* As lock_try_locked, or -EDEADLK; w waits for whoever is in the way. */
static int lock_wait_step(struct inode *i, struct lock_waiter *w, struct lock_room *room)
{
    const void *holder = NULL;

    mutex_lock(&locks_mu);
    int r = lock_try_locked(i, w->want, false, room, &holder);
    if (r == 0 && w->detect && lock_deadlock(w->owner, holder))
        r = -EDEADLK;
    w->blocked_by = holder;
    if (r == 0 && list_empty(&w->node))
        list_add_tail(&w->node, &lock_waiters);
    mutex_unlock(&locks_mu);
    return r;
}

static int lock_wait(struct inode *i, const struct file_lock *want, bool detect,
                     const struct vfs_caller *c)
{
    struct lock_waiter w = {
        .want = want, .owner = want->owner, .detect = detect, .blocker = c->blocker};
    struct lock_room room;
    int r = lock_room_init(&room);

    list_init(&w.node);
    while (r == 0 && (r = lock_wait_step(i, &w, &room)) == 0)
        r = blocker_wait(c->blocker, DEADLINE_NEVER);
    mutex_lock(&locks_mu);
    list_del(&w.node);
    mutex_unlock(&locks_mu);
    lock_room_fini(&room);
    return r == 1 ? 0 : r == -EINTR ? -ERESTARTSYS : r;
}

/* ---- interface ---- */

static int lock_range(const struct vfs_flock *l, struct file_lock *out)
{
    int64_t start = l->start, len = l->len;

    if (len < 0 && ckd_add(&start, start, len))
        return -EINVAL;
    if (start < 0)
        return -EINVAL;
    /* INT64_MIN has ended above: no start is that far. */
    if (len < 0)
        len = -len;
    out->start = start;
    if (len == 0)
        out->end = INT64_MAX;
    else if (__builtin_add_overflow(start, len - 1, &out->end))
        return -EOVERFLOW;
    return 0;
}

int vfs_lock_set(struct file *f, const void *owner, const struct vfs_flock *l, bool wait,
                 const struct vfs_caller *c)
{
    struct file_lock want = {
        .inode = f->inode,
        .owner = owner,
        .exclusive = l->type == F_WRLCK,
        .pid = owner == f ? -1 : c->tgid,
    };
    int r = lock_range(l, &want);

    if (r != 0)
        return r;
    if ((l->type == F_RDLCK && !file_readable(f)) || (l->type == F_WRLCK && !file_writable(f)))
        return -EBADF;
    r = lock_try(f->inode, &want, l->type == F_UNLCK);
    if (r != 0)
        return r > 0 ? 0 : r;
    if (!wait || c->blocker == NULL)
        return -EAGAIN;
    return lock_wait(f->inode, &want, owner != f, c);
}

int vfs_lock_get(struct file *f, const void *owner, struct vfs_flock *l)
{
    struct file_lock want = {.owner = owner, .exclusive = l->type == F_WRLCK};
    const struct file_lock *held;
    int r = lock_range(l, &want);

    if (r != 0)
        return r;
    mutex_lock(&locks_mu);
    held = lock_conflict(f->inode, &want);
    if (held == NULL) {
        l->type = F_UNLCK;
    } else {
        l->type = held->exclusive ? F_WRLCK : F_RDLCK;
        l->start = held->start;
        l->len = held->end == INT64_MAX ? 0 : held->end - held->start + 1;
        l->pid = held->pid;
    }
    mutex_unlock(&locks_mu);
    return 0;
}

void vfs_lock_drop_owner(struct file *f, const void *owner)
{
    struct lock_holder *h, *next;

    /* Most files never see a lock; a list that fills meanwhile is not this owner's. */
    if (__atomic_load_n(&f->inode->locks.next, __ATOMIC_ACQUIRE) == &f->inode->locks)
        return;
    mutex_lock(&locks_mu);
    list_for_each_entry_safe (h, next, &f->inode->locks, node) {
        if (h->owner != owner)
            continue;
        while (!rb_empty(&h->locks))
            holder_remove(h, lock_of(h->locks.node));
        lock_tell(f->inode, h);
        holder_drop_empty(h);
    }
    mutex_unlock(&locks_mu);
}

int vfs_flock(struct file *f, int op, const struct vfs_caller *c)
{
    struct file_lock want = {
        .inode = f->inode, .owner = f, .whole = true, .end = INT64_MAX, .pid = c->tgid};
    int kind = op & ~LOCK_NB, r;

    if (kind != LOCK_SH && kind != LOCK_EX && kind != LOCK_UN)
        return -EINVAL;
    want.exclusive = kind == LOCK_EX;
    r = lock_try(f->inode, &want, kind == LOCK_UN);
    if (r != 0)
        return r > 0 ? 0 : r;
    if ((op & LOCK_NB) != 0 || c->blocker == NULL)
        return -EWOULDBLOCK;
    return lock_wait(f->inode, &want, false, c);
}

/* ---- all of them ---- */

struct lock_infos {
    struct vfs_lock_info *v; /* owned */
    size_t count, room;
    bool failed;
};

static void infos_add(struct lock_infos *a, const struct vfs_lock_info *l)
{
    if (a->count == a->room && !a->failed) {
        const size_t room = MAX(a->room * 2, (size_t)32);
        struct vfs_lock_info *v = realloc(a->v, room * sizeof(*v));
        a->failed = v == NULL;
        if (v != NULL) {
            a->v = v;
            a->room = room;
        }
    }
    if (!a->failed)
        a->v[a->count++] = *l;
}

static void infos_add_lock(struct lock_infos *a, const struct file_lock *l, bool waits)
{
    const struct vfs_lock_info info = {
        .kind = l->whole       ? "FLOCK "
                : l->pid == -1 ? "OFDLCK"
                               : "POSIX ",
        .how = "ADVISORY ",
        .type = l->exclusive ? F_WRLCK : F_RDLCK,
        .waits = waits,
        .pid = l->pid,
        .dev = l->inode->sb->dev,
        .ino = l->inode->ino,
        .start = l->start,
        .end = l->end,
    };

    infos_add(a, &info);
}

static void infos_add_lease(void *arg, const struct inode *i, int type, bool breaking, int32_t pid)
{
    const struct vfs_lock_info info = {
        .kind = "LEASE ",
        .how = breaking ? "BREAKING  " : "ACTIVE    ",
        .type = type,
        .pid = pid,
        .dev = i->sb->dev,
        .ino = i->ino,
        .end = INT64_MAX,
    };

    infos_add(arg, &info);
}

int64_t vfs_locks(struct vfs_lock_info **out)
{
    struct lock_infos a = {0};
    const struct file_lock *l;
    const struct lock_waiter *w;

    mutex_lock(&locks_mu);
    list_for_each_entry (l, &all_locks, all) {
        infos_add_lock(&a, l, false);
        list_for_each_entry (w, &lock_waiters, node)
            if (w->blocked_by == l->owner && w->want->inode == l->inode &&
                locks_conflict(l, w->want))
                infos_add_lock(&a, w->want, true);
    }
    mutex_unlock(&locks_mu);
    lease_each(infos_add_lease, &a);
    if (a.failed) {
        free(a.v);
        return -ENOMEM;
    }
    *out = a.v;
    return (int64_t)a.count;
}
