/* Marks on shared files: the gofer tells what others do to them on the host. What the guests of
 * this sandbox do is told by vfs, and must not be told again. Of names, the gofer knows what it did
 * for us. Bytes are written without it: there the time of our own last change tells, which is taken
 * after every change once anything is watched. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/ckd.h"
#include "sentry/fs/goferfs/goferfs_priv.h"
#include "sentry/vfs/notify.h"

/* Watches that are given up at a time when there are too many. */
#define SWEEP_BATCH 64

/* Made with the first mark, and then as old as the inode. */
struct goferfs_watch {
    struct gof_watch watch;
    struct goferfs_inode *gi;
};

static struct goferfs_watch *watch_of(struct gof_watch *w)
{
    return container_of(w, struct goferfs_watch, watch);
}

/* Who an inode was. Numbers are used again at once. */
struct goferfs_departed {
    uint64_t dev, ino;
    struct vfs_time btime;
    int64_t own_change; /* 0: the place is free */
};

/* ---- our own changes ---- */

static int64_t stamp_of(int64_t sec, int64_t nsec)
{
    int64_t t;

    return ckd_mul(&t, sec, (int64_t)1000000000) || ckd_add(&t, t, nsec) ? INT64_MAX : t;
}

static bool watching(struct inode *i)
{
    return atomic_load_explicit(&goferfs_super(i->sb)->watching, memory_order_acquire);
}

void goferfs_own_change(struct inode *i, const struct gof_attr *a)
{
    if (UNLIKELY(watching(i)))
        atomic_store(&goferfs_inode(i)->own_change, stamp_of(a->ctime.sec, a->ctime.nsec));
}

void goferfs_own_change_fd(struct inode *i, int fd)
{
    struct stat st;

    if (UNLIKELY(watching(i)) && fstat(fd, &st) == 0)
        atomic_store(&goferfs_inode(i)->own_change,
                     stamp_of(st.st_ctim.tv_sec, st.st_ctim.tv_nsec));
}

void goferfs_own_change_ask(struct inode *i)
{
    struct gof_attr a;

    if (UNLIKELY(watching(i)) && gof_stat(goferfs_client(i), goferfs_inode(i)->handle, &a) == 0)
        goferfs_own_change(i, &a);
}

void goferfs_own_close_locked(struct goferfs_inode *gi)
{
    mutex_assert_held(&gi->data_mu);
    if (watching(&gi->inode) && gi->own_closes < UINT16_MAX)
        gi->own_closes++;
}

bool goferfs_closes_early(struct goferfs_inode *gi)
{
    mutex_assert_held(&gi->data_mu);
    return gi->rw_fd >= 0 && UNLIKELY(watching(&gi->inode));
}

/* ---- what the gofer tells ---- */

/* Whether it was closed by others. Our own closing says nothing new, but others may have written
 * meanwhile. */
static bool closed_by_others(struct goferfs_inode *gi)
{
    /* A change of the size, for which the gofer opens the file, may be under way. */
    mutex_lock(&gi->rw_mu);
    mutex_lock(&gi->data_mu);
    bool theirs = gi->foreign || gi->own_closes == 0;
    if (gi->foreign)
        gi->foreign = false;
    else if (gi->own_closes)
        gi->own_closes--;
    mutex_unlock(&gi->data_mu);
    mutex_unlock(&gi->rw_mu);
    return theirs;
}

/* Whether it has changed since our own last change. */
static bool changed_by_others(struct goferfs_inode *gi, const struct gof_event *e)
{
    /* Ours may be under way. */
    mutex_lock(&gi->rw_mu);
    bool theirs = stamp_of(e->ctime.sec, e->ctime.nsec) > atomic_load(&gi->own_change);
    mutex_unlock(&gi->rw_mu);
    if (theirs && e->mask & NOTIFY_MODIFY) {
        mutex_lock(&gi->data_mu);
        gi->foreign = true;
        mutex_unlock(&gi->data_mu);
    }
    return theirs;
}

static bool same_time(const struct vfs_time *a, const struct gof_time *b)
{
    return a->sec == b->sec && a->nsec == b->nsec;
}

void goferfs_watch_departs_locked(struct goferfs_super *gs, const struct goferfs_inode *gi)
{
    const int64_t own = atomic_load(&gi->own_change);

    mutex_assert_held(&gs->mu);
    if (LIKELY(own == 0) || !gs->departed)
        return;
    gs->departed[gs->departed_next++ % GOFERFS_DEPARTED] = (struct goferfs_departed){
        .dev = gi->host_dev, .ino = gi->inode.ino, .btime = gi->inode.btime, .own_change = own};
}

/* Whether what the event is about has not changed since we forgot it. */
static bool was_ours(struct goferfs_super *gs, const struct gof_event *e)
{
    bool found = false;

    mutex_lock(&gs->mu);
    for (size_t i = 0; gs->departed && i < GOFERFS_DEPARTED && !found; i++) {
        const struct goferfs_departed *d = &gs->departed[i];
        found = d->own_change && d->ino == e->ino && d->dev == e->dev &&
                same_time(&d->btime, &e->btime) &&
                stamp_of(e->ctime.sec, e->ctime.nsec) <= d->own_change;
    }
    mutex_unlock(&gs->mu);
    return found;
}

/* The inode the event is about, not one that had its number before. Owned, or NULL. */
static struct goferfs_inode *subject_of(struct goferfs_super *gs, const struct gof_event *e)
{
    struct goferfs_inode *gi = goferfs_inode_find(gs, e->dev, e->ino);

    if (!gi)
        return NULL;
    mutex_lock(&gi->inode.mu);
    bool same = same_time(&gi->inode.btime, &e->btime);
    mutex_unlock(&gi->inode.mu);
    if (same)
        return gi;
    inode_put(&gi->inode);
    return NULL;
}

static bool by_others(struct goferfs_super *gs, const struct gof_event *e)
{
    if ((e->mask & (NOTIFY_MODIFY | NOTIFY_ATTRIB | NOTIFY_CLOSE_WRITE)) == 0)
        return true;
    struct goferfs_inode *gi = subject_of(gs, e);
    if (!gi)
        return !was_ours(gs, e);
    bool theirs = e->mask & NOTIFY_CLOSE_WRITE ? closed_by_others(gi) : changed_by_others(gi, e);
    inode_put(&gi->inode);
    return theirs;
}

/* What holds the two halves of a rename together: the host's number, which must not be one of ours.
 */
static uint32_t cookie_of(const struct gof_event *e)
{
    return e->cookie ? e->cookie | 0x80000000u : 0;
}

/* A file without a name is gone for those who watch it, unless it is open. */
static void lost_its_names(struct goferfs_inode *gi)
{
    mutex_lock(&gi->data_mu);
    gi->nameless = true;
    bool open = gi->users > 0;
    mutex_unlock(&gi->data_mu);
    if (!open)
        notify_gone(&gi->inode);
}

static void give_up_locked(struct goferfs_inode *gi)
{
    if (!atomic_load(&gi->watched) || notify_watched(&gi->inode))
        return;
    gof_unwatch(goferfs_client(&gi->inode), gi->handle, &gi->watch->watch);
    atomic_store(&gi->watched, false);
}

static void give_up(struct goferfs_inode *gi)
{
    mutex_lock(&gi->data_mu);
    give_up_locked(gi);
    mutex_unlock(&gi->data_mu);
}

static bool hold(struct gof_watch *w)
{
    return ref_tryget(&watch_of(w)->gi->inode.ref);
}

static void event(struct gof_watch *w, const struct gof_event *e)
{
    struct goferfs_inode *gi = watch_of(w)->gi;
    struct inode *i = &gi->inode;

    if (!notify_watched(i)) {
        give_up(gi);
    } else if (e->mask & NOTIFY_DELETE_SELF) {
        lost_its_names(gi);
    } else if (by_others(goferfs_super(i->sb), e)) {
        notify_foreign(i, e->mask & (NOTIFY_ALL | NOTIFY_ISDIR), cookie_of(e),
                       *e->name ? e->name : NULL);
        if (e->mask & NOTIFY_ATTRIB && *e->name == '\0' && e->nlink == 0)
            lost_its_names(gi);
    }
    inode_put(i);
}

static const struct gof_watch_ops watch_ops = {.hold = hold, .event = event, .lost = notify_lost};

/* ---- marks ---- */

/* Some inodes whose watches nobody needs any more; owned. */
static size_t find_unneeded(struct goferfs_super *gs, struct goferfs_inode **out)
{
    struct goferfs_inode *gi;
    size_t n = 0;

    mutex_lock(&gs->mu);
    for (size_t b = 0; b < GOFERFS_BUCKETS && n < SWEEP_BATCH; b++)
        hlist_for_each_entry(gi, &gs->inodes[b],
                             hash) if (n < SWEEP_BATCH && atomic_load(&gi->watched) &&
                                       !notify_watched(&gi->inode) && ref_tryget(&gi->inode.ref))
            out[n++] = gi;
    mutex_unlock(&gs->mu);
    return n;
}

static bool sweep(struct goferfs_super *gs)
{
    struct goferfs_inode *gi[SWEEP_BATCH];
    const size_t n = find_unneeded(gs, gi);

    for (size_t i = 0; i < n; i++) {
        give_up(gi[i]);
        inode_put(&gi[i]->inode);
    }
    return n > 0;
}

static int watch_locked(struct goferfs_inode *gi)
{
    if (atomic_load(&gi->watched))
        return 0;
    if (!gi->watch) {
        gi->watch = calloc(1, sizeof(*gi->watch));
        if (!gi->watch)
            return -ENOMEM;
        gi->watch->gi = gi;
        gi->watch->watch.ops = &watch_ops;
        list_init(&gi->watch->watch.node);
    }
    int r = gof_watch(goferfs_client(&gi->inode), gi->handle, &gi->watch->watch);
    if (r == 0)
        atomic_store(&gi->watched, true);
    return r;
}

/* From now on our own changes are noted. What was opened before is closed first, so that nobody is
 * told of that. */
static void begin_watching(struct goferfs_super *gs)
{
    if (atomic_exchange(&gs->watching, true))
        return;
    /* Without it, what we did to files that are gone may be told twice. */
    struct goferfs_departed *d = calloc(GOFERFS_DEPARTED, sizeof(*d));
    mutex_lock(&gs->mu);
    gs->departed = d;
    mutex_unlock(&gs->mu);
    goferfs_fds_retire(gs);
}

int goferfs_watch(struct inode *i)
{
    struct goferfs_super *gs = goferfs_super(i->sb);
    struct goferfs_inode *gi = goferfs_inode(i);
    int r;

    if (!gs->shared)
        return 0;
    begin_watching(gs);
    do {
        mutex_lock(&gi->data_mu);
        r = watch_locked(gi);
        mutex_unlock(&gi->data_mu);
    } while (r == -ENOSPC && sweep(gs));
    return r;
}

void goferfs_watch_release(struct goferfs_inode *gi)
{
    if (atomic_load(&gi->watched))
        gof_watch_drop(goferfs_client(&gi->inode), &gi->watch->watch);
    free(gi->watch);
}
