/* Leases (fs/locks.c of Linux: generic_setlease, __break_lease). */
#include "sentry/vfs/lease.h"

#include <linux/capability.h>
#include <stdlib.h>

#include "sentry/errno_internal.h"
#include "sentry/vfs/vfs_priv.h"

#define BREAK_SECONDS 45
#define SECOND_NS UINT64_C(1000000000)

struct lease {
    struct list all;
    struct lease *next; /* of the inode */
    struct file *f;     /* weak */
    struct lease_holder *h;
    int type;
    int32_t pid;
    bool unlock, downgrade; /* asked for */
    deadline_t unlock_at, downgrade_at;
};

static struct mutex leases_mu = MUTEX_INITIALIZER(LOCK_RANK_FILE_LOCK);
static struct list all_leases = LIST_INIT(all_leases);
static struct waitq given_up;
_Atomic uint32_t lease_break_time = BREAK_SECONDS;
_Atomic bool lease_enabled = true;

__attribute__((constructor)) static void lease_init(void)
{
    waitq_init(&given_up);
}

static struct lease *leases_of(const struct inode *i)
{
    return atomic_load(&i->leases);
}

static struct lease *lease_find(const struct file *f)
{
    struct lease *l = leases_of(f->inode);

    while (l != NULL && l->f != f)
        l = l->next;
    return l;
}

static int lease_target(const struct lease *l)
{
    return l->unlock ? F_UNLCK : l->downgrade ? F_RDLCK : l->type;
}

static void lease_link_locked(struct lease *l)
{
    l->next = leases_of(l->f->inode);
    list_add_tail(&l->all, &all_leases);
    atomic_store(&l->f->inode->leases, l);
}

/* Onto *gone, to be freed without the lock. */
static void lease_unlink_locked(struct lease *l, struct lease **gone)
{
    struct inode *i = l->f->inode;
    struct lease *x = leases_of(i);

    if (x == l) {
        atomic_store(&i->leases, l->next);
    } else {
        while (x->next != l)
            x = x->next;
        x->next = l->next;
    }
    list_del(&l->all);
    l->next = *gone;
    *gone = l;
}

static void leases_free(struct lease *gone)
{
    while (gone != NULL) {
        struct lease *l = gone;
        gone = l->next;
        l->h->end(l->h);
        free(l);
    }
}

/* The lease becomes less, or nothing. */
static void lease_change_locked(struct lease *l, int type, struct lease **gone)
{
    l->type = type;
    l->downgrade = false;
    if (type == F_UNLCK) {
        l->f->owner = 0;
        l->f->owner_sig = 0;
        lease_unlink_locked(l, gone);
    }
    (void)waitq_wake(&given_up, 0);
}

static void leases_time_out_locked(const struct inode *i, struct lease **gone)
{
    const deadline_t now = mono_now();
    struct lease *l, *next;

    for (l = leases_of(i); l != NULL; l = next) {
        next = l->next;
        if (l->unlock && l->unlock_at <= now)
            lease_change_locked(l, F_UNLCK, gone);
        else if (l->downgrade && l->downgrade_at <= now)
            lease_change_locked(l, F_RDLCK, gone);
    }
}

/* ---- taking and giving up ---- */

static int lease_check_open(const struct file *f, int type)
{
    const struct inode *i = f->inode;
    const int32_t writers = atomic_load(&i->writers), readers = atomic_load(&i->readers);

    if (type == F_RDLCK)
        return writers > 0 ? -EAGAIN : 0;
    return writers != (f->counted_writer ? 1 : 0) || readers != (f->counted_reader ? 1 : 0)
               ? -EAGAIN
               : 0;
}

static int lease_check_others(const struct file *f, int type)
{
    for (const struct lease *l = leases_of(f->inode); l != NULL; l = l->next)
        if (l->f != f && (type == F_WRLCK || l->unlock))
            return -EAGAIN;
    return 0;
}

/* fresh is used up, *fresh NULL, when f had none. */
static int lease_set_locked(struct file *f, int type, struct lease **fresh, struct lease **gone)
{
    int r = lease_check_open(f, type);

    if (r == 0)
        r = lease_check_others(f, type);
    if (r != 0)
        return r;
    struct lease *l = lease_find(f);
    if (l != NULL) {
        lease_change_locked(l, type, gone);
        return 0;
    }
    l = *fresh;
    lease_link_locked(l);
    /* Who opens it counts himself first and looks for leases then. */
    r = lease_check_open(f, type);
    if (r != 0) {
        struct lease *back = NULL;
        lease_unlink_locked(l, &back);
        return r;
    }
    *fresh = NULL;
    return 0;
}

static int lease_add(struct file *f, int type, struct lease_holder **h, int32_t pid)
{
    struct lease *l = calloc(1, sizeof(*l)), *fresh = l, *gone = NULL;

    if (l == NULL)
        return -ENOMEM;
    *l = (struct lease){.f = f, .h = *h, .type = type, .pid = pid};
    list_init(&l->all);
    mutex_lock(&leases_mu);
    leases_time_out_locked(f->inode, &gone);
    int r = lease_set_locked(f, type, &fresh, &gone);
    mutex_unlock(&leases_mu);
    if (r == 0 && fresh == NULL)
        *h = NULL;
    free(fresh);
    leases_free(gone);
    return r;
}

static int lease_remove(const struct file *f)
{
    struct lease *gone = NULL;

    mutex_lock(&leases_mu);
    leases_time_out_locked(f->inode, &gone);
    struct lease *l = lease_find(f);
    if (l != NULL)
        lease_change_locked(l, F_UNLCK, &gone);
    mutex_unlock(&leases_mu);
    leases_free(gone);
    return l != NULL ? 0 : -EAGAIN;
}

int lease_set(struct file *f, int type, struct lease_holder **h, const struct vfs_caller *c)
{
    struct inode *i = f->inode;

    if (type != F_RDLCK && type != F_WRLCK && type != F_UNLCK)
        return -EINVAL;
    if (c->cred->fsuid != i->uid && !cred_capable(c->cred, CAP_LEASE))
        return -EACCES;
    if (!S_ISREG(i->mode) || !atomic_load(&lease_enabled))
        return -EINVAL;
    return type == F_UNLCK ? lease_remove(f) : lease_add(f, type, h, c->tgid);
}

int lease_get(const struct file *f)
{
    struct lease *gone = NULL;

    if (leases_of(f->inode) == NULL)
        return F_UNLCK;
    mutex_lock(&leases_mu);
    leases_time_out_locked(f->inode, &gone);
    const struct lease *l = lease_find(f);
    const int type = l != NULL ? lease_target(l) : F_UNLCK;
    mutex_unlock(&leases_mu);
    leases_free(gone);
    return type;
}

void lease_file_gone(const struct file *f)
{
    if (UNLIKELY(leases_of(f->inode) != NULL))
        (void)!lease_remove(f);
}

/* ---- breaking ---- */

static bool lease_conflicts(const struct lease *l, bool write)
{
    return write || l->type == F_WRLCK;
}

/* Those in the way are told, once. */
static void lease_ask_locked(const struct inode *i, bool write)
{
    const uint64_t seconds = atomic_load(&lease_break_time);
    const deadline_t at = seconds != 0 ? mono_now() + seconds * SECOND_NS : DEADLINE_NEVER;

    for (struct lease *l = leases_of(i); l != NULL; l = l->next) {
        if (!lease_conflicts(l, write) || l->unlock || (!write && l->downgrade))
            continue;
        if (write) {
            l->unlock = true;
            l->unlock_at = at;
        } else {
            l->downgrade = true;
            l->downgrade_at = at;
        }
        l->h->tell(l->h);
    }
}

/* Whether one is still in the way; *at is when that ends by itself. */
static bool lease_in_way(const struct inode *i, bool write, deadline_t *at)
{
    struct lease *gone = NULL;
    bool any = false;

    *at = DEADLINE_NEVER;
    mutex_lock(&leases_mu);
    leases_time_out_locked(i, &gone);
    for (const struct lease *l = leases_of(i); l != NULL; l = l->next) {
        if (!lease_conflicts(l, write))
            continue;
        any = true;
        *at = MIN(*at, l->unlock ? l->unlock_at : l->downgrade ? l->downgrade_at : DEADLINE_NEVER);
    }
    mutex_unlock(&leases_mu);
    leases_free(gone);
    return any;
}

static int lease_wait(const struct inode *i, bool write, const struct vfs_caller *c)
{
    struct waiter w;
    deadline_t at;
    int r = 0;

    waiter_init(&w, c->blocker, 0);
    waitq_add(&given_up, &w);
    while (lease_in_way(i, write, &at)) {
        r = blocker_wait(c->blocker, at);
        if (r != 0 && r != -ETIMEDOUT)
            break;
    }
    waitq_del(&w);
    return r == -EINTR ? -ERESTARTSYS : r == -ETIMEDOUT ? 0 : r;
}

int lease_break_slow(struct inode *i, uint32_t flags, const struct vfs_caller *c)
{
    const bool write = (flags & O_ACCMODE) != O_RDONLY;
    deadline_t at;

    if (!lease_in_way(i, write, &at))
        return 0;
    mutex_lock(&leases_mu);
    lease_ask_locked(i, write);
    mutex_unlock(&leases_mu);
    if ((flags & O_NONBLOCK) != 0 || c->blocker == NULL)
        return -EWOULDBLOCK;
    return lease_wait(i, write, c);
}

void lease_each(lease_fn fn, void *arg)
{
    const struct lease *l;

    mutex_lock(&leases_mu);
    list_for_each_entry (l, &all_leases, all)
        fn(arg, l->f->inode, lease_target(l), l->unlock || l->downgrade, l->pid);
    mutex_unlock(&leases_mu);
}
