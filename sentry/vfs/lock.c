/* Advisory locks: flock(2), fcntl(2) F_SETLK and F_OFD_SETLK. Locks of an inode are one list,
 * sorted by start for the range kinds; a waiter is told when anything of the inode is released. */
#include <stdlib.h>
#include <sys/file.h>

#include "sentry/errno_internal.h"
#include "sentry/vfs/lease.h"
#include "sentry/vfs/vfs_priv.h"

struct file_lock {
    struct list node; /* inode->locks */
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
    bool detect; /* circles count */
};

static struct mutex locks_mu; /* rank FILE_LOCK: every lock list and waiter */
static struct waitq released;
static struct list lock_waiters;
static struct list all_locks = LIST_INIT(all_locks);

__attribute__((constructor)) static void lock_init(void)
{
    mutex_init(&locks_mu, LOCK_RANK_FILE_LOCK);
    waitq_init(&released);
    list_init(&lock_waiters);
}

static void lock_free_locked(struct file_lock *l)
{
    list_del(&l->node);
    list_del(&l->all);
    free(l);
}

static bool locks_conflict(const struct file_lock *held, const struct file_lock *want)
{
    return held->whole == want->whole && held->owner != want->owner &&
           (held->exclusive || want->exclusive) && held->start <= want->end &&
           want->start <= held->end;
}

static const struct file_lock *lock_conflict(const struct inode *i, const struct file_lock *want)
{
    const struct file_lock *l;

    list_for_each_entry (l, &i->locks, node)
        if (locks_conflict(l, want))
            return l;
    return NULL;
}

/* Cuts [start, end] out of what owner holds. spare is used when a lock falls in two. */
static void lock_cut(struct inode *i, const struct file_lock *by, struct file_lock **spare)
{
    struct file_lock *l, *next;

    list_for_each_entry_safe (l, next, &i->locks, node) {
        if (l->owner != by->owner || l->whole != by->whole || l->end < by->start ||
            l->start > by->end)
            continue;
        if (l->start < by->start && l->end > by->end) {
            struct file_lock *tail = *spare;
            *spare = NULL;
            *tail = *l;
            tail->start = by->end + 1;
            list_add(&tail->node, &l->node);
            list_add(&tail->all, &l->all);
            l->end = by->start - 1;
        } else if (l->start < by->start) {
            l->end = by->start - 1;
        } else if (l->end > by->end) {
            l->start = by->end + 1;
        } else {
            lock_free_locked(l);
        }
    }
}

/* Joins neighbours of one owner and kind, as fcntl does. */
static void lock_join(struct inode *i, struct file_lock *n)
{
    struct file_lock *l, *next;

    list_for_each_entry_safe (l, next, &i->locks, node) {
        if (l == n || l->owner != n->owner || l->whole || l->exclusive != n->exclusive)
            continue;
        bool before = l->end < n->start && l->end + 1 == n->start;
        bool after = n->end < l->start && n->end + 1 == l->start;
        if (!before && !after)
            continue;
        n->start = MIN(n->start, l->start);
        n->end = MAX(n->end, l->end);
        lock_free_locked(l);
    }
}

static size_t lock_count(const struct inode *i)
{
    const struct list *l;
    size_t n = 0;

    for (l = i->locks.next; l != &i->locks; l = l->next)
        n++;
    return n;
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

/* 1: taken; 0: somebody is in the way (*out_holder). */
static int lock_try(struct inode *i, const struct file_lock *want, bool unlock,
                    const void **out_holder)
{
    struct file_lock *n = malloc(sizeof(*n)), *spare = malloc(sizeof(*spare));
    const struct file_lock *holder;
    int r = 1;

    if (n == NULL || spare == NULL) {
        r = -ENOLCK;
    } else {
        mutex_lock(&locks_mu);
        holder = unlock ? NULL : lock_conflict(i, want);
        if (holder != NULL) {
            *out_holder = holder->owner;
            r = 0;
        } else if (!unlock && lock_count(i) >= LIMIT_FILE_LOCKS) {
            r = -ENOLCK;
        } else {
            lock_cut(i, want, &spare);
            if (!unlock) {
                *n = *want;
                list_add_tail(&n->node, &i->locks);
                list_add_tail(&n->all, &all_locks);
                if (!n->whole)
                    lock_join(i, n);
                n = NULL;
            }
        }
        mutex_unlock(&locks_mu);
    }
    free(n);
    free(spare);
    /* A weaker lock, or none, may let others in. */
    if (r == 1)
        (void)waitq_wake(&released, 0);
    return r;
}

static int lock_wait(struct inode *i, const struct file_lock *want, bool detect,
                     const struct vfs_caller *c)
{
    struct lock_waiter w = {.want = want, .owner = want->owner, .detect = detect};
    struct waiter waiter;
    const void *holder = NULL;
    int r;

    waiter_init(&waiter, c->blocker, 0);
    waitq_add(&released, &waiter);
    list_init(&w.node);
    while ((r = lock_try(i, want, false, &holder)) == 0) {
        mutex_lock(&locks_mu);
        bool circle = detect && lock_deadlock(want->owner, holder);
        w.blocked_by = holder;
        if (!circle && list_empty(&w.node))
            list_add_tail(&w.node, &lock_waiters);
        mutex_unlock(&locks_mu);
        r = circle ? -EDEADLK : blocker_wait(c->blocker, DEADLINE_NEVER);
        if (r != 0)
            break;
    }
    mutex_lock(&locks_mu);
    list_del(&w.node);
    mutex_unlock(&locks_mu);
    waitq_del(&waiter);
    return r == 1 ? 0 : r == -EINTR ? -ERESTARTSYS : r;
}

/* ---- interface ---- */

static int lock_range(const struct vfs_flock *l, struct file_lock *out)
{
    int64_t start = l->start, len = l->len;

    if (len < 0) {
        if (__builtin_add_overflow(start, len, &start))
            return -EINVAL;
        len = -len;
    }
    if (start < 0)
        return -EINVAL;
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
    const void *holder;
    int r = lock_range(l, &want);

    if (r != 0)
        return r;
    if ((l->type == F_RDLCK && !file_readable(f)) || (l->type == F_WRLCK && !file_writable(f)))
        return -EBADF;
    r = lock_try(f->inode, &want, l->type == F_UNLCK, &holder);
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
    struct file_lock *l, *next;
    bool any = false;

    /* Most files never see a lock; a list that fills meanwhile is not this owner's. */
    if (__atomic_load_n(&f->inode->locks.next, __ATOMIC_ACQUIRE) == &f->inode->locks)
        return;
    mutex_lock(&locks_mu);
    list_for_each_entry_safe (l, next, &f->inode->locks, node) {
        if (l->owner == owner) {
            lock_free_locked(l);
            any = true;
        }
    }
    mutex_unlock(&locks_mu);
    if (any)
        (void)waitq_wake(&released, 0);
}

int vfs_flock(struct file *f, int op, const struct vfs_caller *c)
{
    struct file_lock want = {
        .inode = f->inode, .owner = f, .whole = true, .end = INT64_MAX, .pid = c->tgid};
    const void *holder;
    int kind = op & ~LOCK_NB, r;

    if (kind != LOCK_SH && kind != LOCK_EX && kind != LOCK_UN)
        return -EINVAL;
    want.exclusive = kind == LOCK_EX;
    r = lock_try(f->inode, &want, kind == LOCK_UN, &holder);
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
