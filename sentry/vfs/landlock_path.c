/* What Landlock allows at places in the tree (security/landlock/fs.c): rights add up from a place
 * to the root of everything, in each layer, whatever is mounted between. */
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "sentry/vfs/landlock_priv.h"

/* ---- masks ---- */

uint32_t landlock_mask_init(struct landlock_mask *m, const struct landlock_domain *d,
                            uint32_t access)
{
    uint32_t handled = 0;

    memset(m, 0, sizeof(*m));
    for (; d != NULL; d = d->parent) {
        handled |= d->fs & access;
        for (uint32_t bit = 0; bit < ARRAY_SIZE(m->denied); bit++)
            if ((d->fs & access & 1u << bit) != 0)
                m->denied[bit] |= (uint16_t)(1u << d->level);
    }
    return handled;
}

static bool mask_denies(const struct landlock_mask *m, uint32_t access)
{
    for (uint32_t bit = 0; bit < ARRAY_SIZE(m->denied); bit++)
        if ((access & 1u << bit) != 0 && m->denied[bit] != 0)
            return true;
    return false;
}

/* A layer gives what its rule says, and all that it does not handle. */
static void mask_allow_layer(struct landlock_mask *m, uint32_t level, uint32_t access)
{
    for (uint32_t bit = 0; bit < ARRAY_SIZE(m->denied); bit++)
        if ((access & 1u << bit) != 0)
            m->denied[bit] &= (uint16_t) ~(1u << level);
}

bool landlock_mask_allow(struct landlock_mask *m, const struct landlock_domain *d,
                         const struct inode *i, uint32_t access)
{
    for (; d != NULL; d = d->parent)
        mask_allow_layer(m, d->level, landlock_table_find(&d->paths, (uintptr_t)i) & access);
    return !mask_denies(m, access);
}

/* ---- going up ---- */

/* p without references, locks held: to what is above; false at the root of all. */
static bool up_locked(struct vpath *p)
{
    while (p->dentry == p->mnt->root) {
        if (p->mnt->ns == NULL || p->mnt->parent == NULL)
            return false;
        *p = (struct vpath){p->mnt->parent, p->mnt->point};
    }
    /* Moved out of what its mount shows: goes on where the mount stands. */
    p->dentry = p->dentry->parent == p->dentry ? p->mnt->root : p->dentry->parent;
    return true;
}

static void tree_rdlock(void)
{
    rwlock_rdlock(&vfs_mount_lock);
    rwlock_rdlock(&vfs_tree_lock);
}

static void tree_unlock(void)
{
    rwlock_unlock(&vfs_tree_lock);
    rwlock_unlock(&vfs_mount_lock);
}

/* Part of access that is denied at p. */
static uint32_t path_denied(const struct cred *c, const struct vpath *p, uint32_t access)
{
    const struct landlock_domain *d = landlock_domain(c->domain);
    struct landlock_mask m;
    struct vpath at = *p;

    access = landlock_mask_init(&m, d, access);
    /* Pipes, sockets and the like are in no tree. */
    if (access == 0 || p->mnt == mount_anon())
        return 0;
    tree_rdlock();
    while (!landlock_mask_allow(&m, d, at.dentry->inode, access) && up_locked(&at))
        ;
    tree_unlock();
    for (uint32_t bit = 0; bit < ARRAY_SIZE(m.denied); bit++)
        if (m.denied[bit] == 0)
            access &= ~(1u << bit);
    return access;
}

int landlock_path(const struct vfs_caller *c, const struct vpath *p, uint32_t access)
{
    if (LIKELY(c->cred->domain == NULL))
        return 0;
    return path_denied(c->cred, p, access) != 0 ? -EACCES : 0;
}

int landlock_open(const struct vfs_caller *c, const struct vpath *p, uint32_t flags, bool exec,
                  uint32_t *out_denied)
{
    const uint32_t mode = p->dentry->inode->mode;
    uint32_t access = exec ? LANDLOCK_EXECUTE : 0, later = LANDLOCK_TRUNCATE;

    *out_denied = 0;
    if (LIKELY(c->cred->domain == NULL))
        return 0;
    if ((flags & O_ACCMODE) != O_WRONLY)
        access |= S_ISDIR(mode) ? LANDLOCK_READ_DIR : LANDLOCK_READ_FILE;
    if ((flags & O_ACCMODE) != O_RDONLY)
        access |= LANDLOCK_WRITE_FILE;
    if (S_ISCHR(mode) || S_ISBLK(mode))
        later |= LANDLOCK_IOCTL_DEV;
    const uint32_t denied = path_denied(c->cred, p, access | later);
    *out_denied = denied & later;
    return (denied & access) != 0 ? -EACCES : 0;
}

bool landlock_harmless_ioctl(unsigned cmd)
{
    switch (cmd) {
    case FIOCLEX:
    case FIONCLEX:
    case FIONBIO:
    case FIOASYNC:
    case FIOQSIZE:
    case FIFREEZE:
    case FITHAW:
    case 0xc020660bu: /* FS_IOC_FIEMAP */
    case FIGETBSZ:
    case FICLONE:
    case FICLONERANGE:
    case FIDEDUPERANGE:
    case 0x80111500u: /* FS_IOC_GETFSUUID */
    case 0x80811501u: /* FS_IOC_GETFSSYSFSPATH */
        return true;
    default:
        return false;
    }
}

/* ---- trails: names are changed under locks that come after those of the tree ---- */

/* What rules give at one place, by layer. */
struct trail_step {
    uint16_t access[LANDLOCK_LAYERS];
};

struct landlock_trail {
    const struct landlock_domain *d; /* borrowed from the caller's cred */
    bool free;                       /* in no tree: everything is allowed */
    uint32_t count, size;
    uint32_t inside;          /* how many of them are within the mount; its root is the last */
    bool root_ruled;          /* ... which is the last step itself */
    bool top_ruled;           /* the last of all is the root of everything */
    struct trail_step *steps; /* from the directory up; those without a rule are left out */
};

void landlock_trail_free(struct landlock_trail *t)
{
    if (t == NULL)
        return;
    free(t->steps);
    free(t);
}

static int trail_add(struct landlock_trail *t, const struct inode *i, bool *out_ruled)
{
    struct trail_step s = {0};
    bool any = false;

    for (const struct landlock_domain *d = t->d; d != NULL; d = d->parent) {
        s.access[d->level] = (uint16_t)landlock_table_find(&d->paths, (uintptr_t)i);
        any |= s.access[d->level] != 0;
    }
    *out_ruled = any;
    if (!any)
        return 0;
    if (t->count == t->size) {
        const uint32_t size = t->size ? t->size * 2 : 4;
        struct trail_step *steps = realloc(t->steps, size * sizeof(*steps));
        if (steps == NULL)
            return -ENOMEM;
        t->steps = steps;
        t->size = size;
    }
    t->steps[t->count++] = s;
    return 0;
}

static int trail_fill_locked(struct landlock_trail *t, const struct vpath *dir)
{
    struct vpath at = *dir;
    bool inside = true;

    for (;;) {
        bool ruled;
        int r = trail_add(t, at.dentry->inode, &ruled);
        if (r != 0)
            return r;
        if (inside && at.dentry == dir->mnt->root) {
            t->inside = t->count;
            t->root_ruled = ruled;
            inside = false;
        }
        if (!up_locked(&at)) {
            t->top_ruled = ruled;
            return 0;
        }
    }
}

int landlock_trail_new(const struct vfs_caller *c, const struct vpath *dir,
                       struct landlock_trail **out)
{
    *out = NULL;
    if (LIKELY(c->cred->domain == NULL))
        return 0;
    struct landlock_trail *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return -ENOMEM;
    t->d = landlock_domain(c->cred->domain);
    t->free = dir->mnt == mount_anon();
    tree_rdlock();
    int r = t->free ? 0 : trail_fill_locked(t, dir);
    tree_unlock();
    if (r != 0) {
        landlock_trail_free(t);
        return r;
    }
    *out = t;
    return 0;
}

static void mask_allow_step(struct landlock_mask *m, const struct landlock_domain *d,
                            const struct trail_step *s, uint32_t access)
{
    for (uint32_t level = 0; level <= d->level; level++)
        mask_allow_layer(m, level, s->access[level] & access);
}

int landlock_names(const struct landlock_trail *t, uint32_t access)
{
    struct landlock_mask m;

    if (LIKELY(t == NULL) || t->free)
        return 0;
    access = landlock_mask_init(&m, t->d, access);
    for (uint32_t i = 0; i < t->count; i++)
        mask_allow_step(&m, t->d, &t->steps[i], access);
    return mask_denies(&m, access) ? -EACCES : 0;
}

uint32_t landlock_make_right(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFLNK:
        return LANDLOCK_MAKE_SYM;
    case S_IFDIR:
        return LANDLOCK_MAKE_DIR;
    case S_IFCHR:
        return LANDLOCK_MAKE_CHAR;
    case S_IFBLK:
        return LANDLOCK_MAKE_BLOCK;
    case S_IFIFO:
        return LANDLOCK_MAKE_FIFO;
    case S_IFSOCK:
        return LANDLOCK_MAKE_SOCK;
    default:
        return LANDLOCK_MAKE_REG;
    }
}

/* ---- from one directory to another ---- */

/* Of the two ends: what is denied to names in the directory, and to the thing itself. */
struct refer_end {
    struct landlock_mask parent, child;
    uint32_t request, checked;
    bool allowed;
    const struct inode *i; /* what moves from here; NULL: nothing */
};

static uint32_t remove_right(const struct inode *i)
{
    if (i == NULL)
        return 0;
    return S_ISDIR(i->mode) ? LANDLOCK_REMOVE_DIR : LANDLOCK_REMOVE_FILE;
}

/* What is denied where it goes is at least what is denied where it comes from. */
static bool no_more_access(const struct refer_end *from, const struct refer_end *to)
{
    for (uint32_t bit = 0; from->i != NULL && bit < ARRAY_SIZE(to->parent.denied); bit++) {
        const uint32_t denied = from->parent.denied[bit] & from->child.denied[bit];
        if (!S_ISDIR(from->i->mode) && (LANDLOCK_FS_FILE & 1u << bit) == 0)
            continue;
        if ((denied & ~(uint32_t)to->parent.denied[bit]) != 0)
            return false;
    }
    return true;
}

/* From now on only what is asked for counts. */
static void end_scope(struct refer_end *e)
{
    e->checked = e->request;
    for (uint32_t bit = 0; bit < ARRAY_SIZE(e->parent.denied); bit++)
        if ((e->request & 1u << bit) == 0)
            e->parent.denied[bit] = 0;
    e->allowed = e->allowed || !mask_denies(&e->parent, LANDLOCK_FS_ALL);
}

/* collect_domain_accesses: up to the root of the mount. */
static void end_collect(struct refer_end *e, const struct landlock_domain *d,
                        const struct landlock_trail *t)
{
    const uint32_t all = landlock_mask_init(&e->parent, d, LANDLOCK_FS_ALL);

    for (uint32_t i = 0; i < t->inside; i++)
        mask_allow_step(&e->parent, d, &t->steps[i], all);
    e->checked = all;
    e->allowed = false;
    (void)landlock_mask_init(&e->child, d, LANDLOCK_FS_ALL);
    if (e->i != NULL)
        (void)landlock_mask_allow(&e->child, d, e->i, LANDLOCK_FS_ALL);
}

/* From the root of the mount to the root of everything. */
static bool refer_climb(struct refer_end *from, struct refer_end *to,
                        const struct landlock_domain *d, const struct landlock_trail *t)
{
    bool compare = true;

    for (uint32_t i = t->inside - (t->root_ruled ? 1 : 0);; i++) {
        /* Nothing is compared any more after the last place of all. */
        if (i == t->count && t->top_ruled)
            return from->allowed && to->allowed;
        if (compare && no_more_access(from, to) && no_more_access(to, from)) {
            compare = false;
            end_scope(from);
            end_scope(to);
        }
        if ((from->allowed && to->allowed) || i >= t->count)
            return from->allowed && to->allowed;
        mask_allow_step(&from->parent, d, &t->steps[i], from->checked);
        mask_allow_step(&to->parent, d, &t->steps[i], to->checked);
        from->allowed = from->allowed || !mask_denies(&from->parent, from->checked);
        to->allowed = to->allowed || !mask_denies(&to->parent, to->checked);
    }
}

int landlock_refer(const struct cred *c, const struct landlock_refer *r)
{
    struct refer_end from = {.i = r->i}, to = {.i = r->exchange ? r->target : NULL};

    if (LIKELY(c->domain == NULL) || r->from->free)
        return 0;
    const struct landlock_domain *d = landlock_domain(c->domain);
    from.request = r->exchange ? landlock_make_right(r->target->mode) : 0;
    to.request = landlock_make_right(r->i->mode);
    if (r->remove) {
        from.request |= remove_right(r->i);
        to.request |= remove_right(r->target);
    }
    if (r->same_dir)
        return landlock_names(r->to, from.request | to.request);
    from.request |= LANDLOCK_REFER;
    to.request |= LANDLOCK_REFER;
    end_collect(&from, d, r->from);
    end_collect(&to, d, r->to);
    if (!mask_denies(&from.parent, LANDLOCK_FS_ALL) && !mask_denies(&to.parent, LANDLOCK_FS_ALL))
        return 0;
    if (refer_climb(&from, &to, d, r->to))
        return 0;
    /* What can never be is told before what another place would allow. */
    return mask_denies(&from.parent, from.request & ~LANDLOCK_REFER) ||
                   mask_denies(&to.parent, to.request & ~LANDLOCK_REFER)
               ? -EACCES
               : -EXDEV;
}
