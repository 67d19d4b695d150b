/* Propagation of mounts: peer groups, followers, and copies of trees (mount_namespaces(7),
 * fs/pnode.c of the kernel). vfs_mount_lock is held for writing throughout. */
#include <stdlib.h>

#include "sentry/vfs/vfs_priv.h"

static uint32_t next_group = 1; /* guard: vfs_mount_lock */

static struct mount *peer_next(const struct mount *m)
{
    return list_entry(m->peers.next, struct mount, peers);
}

/* ---- types ---- */

/* A new master for what followed m; NULL: none. */
static void slaves_hand_over(struct mount *m, struct mount *master)
{
    while (!list_empty(&m->slaves)) {
        struct mount *s = list_first_entry(&m->slaves, struct mount, slave);
        list_del(&s->slave);
        s->master = master;
        if (master != NULL)
            list_add_tail(&s->slave, &master->slaves);
    }
}

/* Out of its peer group, which it follows from then on; alone in it, it follows whom it did. */
static void share_leave(struct mount *m)
{
    struct mount *p, *master = NULL;

    for (p = peer_next(m); p != m && master == NULL; p = peer_next(p))
        if (p->root == m->root)
            master = p;
    if (master == NULL && !list_empty(&m->peers))
        master = peer_next(m);
    if (master == NULL)
        master = m->master;
    list_del(&m->peers);
    m->group = 0;
    slaves_hand_over(m, master);
    if (master != m->master) {
        list_del(&m->slave);
        m->master = master;
        list_add(&m->slave, &master->slaves);
    }
}

void mount_set_type_locked(struct mount *m, uint32_t type)
{
    if (type == MS_SHARED) {
        if (m->group == 0)
            m->group = next_group++;
        m->unbindable = false;
        return;
    }
    if (m->group != 0 || !list_empty(&m->slaves))
        share_leave(m);
    if (type == MS_SLAVE)
        return;
    list_del(&m->slave);
    m->master = NULL;
    m->unbindable = type == MS_UNBINDABLE;
}

void mount_set_group_locked(struct mount *from, struct mount *m)
{
    m->group = from->group;
    if (from->group != 0)
        list_add(&m->peers, &from->peers);
    m->master = from->master;
    if (from->master != NULL)
        list_add(&m->slave, &from->slave);
}

/* ---- copies ---- */

int mount_clone_locked(struct mount *m, struct dentry *root, unsigned how, struct mount **out)
{
    struct mount *c;
    int r = mount_new(super_get(m->sb), root, atomic_load(&m->flags), &c);

    if (r != 0) {
        super_put(m->sb);
        return r;
    }
    c->locked_flags = m->locked_flags;
    c->unbindable = m->unbindable && (how & MOUNT_COPY_UNBINDABLE) != 0;
    if ((how & MOUNT_COPY_SLAVE) != 0 || ((how & MOUNT_COPY_SHARED_SLAVE) != 0 && m->group != 0)) {
        c->master = m;
        list_add(&c->slave, &m->slaves);
    } else {
        mount_set_group_locked(m, c);
    }
    if ((how & MOUNT_COPY_SHARED) != 0)
        mount_set_type_locked(c, MS_SHARED);
    *out = c;
    return 0;
}

/* The next mount of the tree that top's copy is made of: unbindable ones are left out with all that
 * is on them, as is what stands outside root. */
static struct mount *copy_next(struct mount *m, struct mount *top, struct dentry *root,
                               unsigned how)
{
    struct mount *n = mount_next_locked(m, top);

    while (n != NULL && ((n->unbindable && (how & MOUNT_COPY_UNBINDABLE) == 0) ||
                         (n->parent == top && !mount_shows(root, n->point)))) {
        struct mount *last = n;
        /* Past everything below n. */
        while (!list_empty(&last->children))
            last = list_last_entry(&last->children, struct mount, child);
        n = mount_next_locked(last, top);
    }
    return n;
}

int mount_copy_tree_locked(struct mount *m, struct dentry *root, unsigned how, struct mount **out)
{
    struct mount *top, *s, *at, *up, *c;
    int r = mount_clone_locked(m, root, how, &top);
    struct list gone;

    if (r != 0)
        return r;
    at = top;
    up = m;
    for (s = copy_next(m, m, root, how); s != NULL; s = copy_next(s, m, root, how)) {
        /* s stands on up or on something above it; the copies stand likewise. */
        for (; up != s->parent; up = up->parent)
            at = at->parent;
        r = mount_clone_locked(s, s->root, how, &c);
        if (r != 0)
            break;
        c->locked = s->locked;
        mount_link_locked(c, at, s->point);
        at = c;
        up = s;
    }
    if (r == 0) {
        *out = top;
        return 0;
    }
    /* What was copied stands on what exists, so none of these references is a last one. */
    list_init(&gone);
    mount_detach_tree_locked(top, &gone);
    mounts_put(&gone);
    return r;
}

/* ---- who follows ---- */

/* Not one of the copies just made. */
static bool is_old(const struct mount *m)
{
    return m->ns != NULL || m->leaving;
}

static void followers_add_group(struct list *all, struct mount *lead, struct mount *from)
{
    struct mount *m = lead;

    lead->from = from;
    lead->copy = NULL;
    lead->done = false;
    do {
        if (is_old(m) && m->lead == NULL) {
            m->lead = lead;
            list_add_tail(&m->work, all);
        }
        m = peer_next(m);
    } while (m != lead);
}

/* m's peers, m first, then the groups that follow any of those found, and so on. Members of a group
 * stand together and know their lead, which knows the lead of the group it follows. */
static void followers_collect(struct mount *m, struct list *all)
{
    list_init(all);
    followers_add_group(all, m, NULL);
    for (struct list *l = all->next; l != all; l = l->next) {
        struct mount *f = list_entry(l, struct mount, work), *s;
        list_for_each_entry (s, &f->slaves, slave)
            if (is_old(s) && s->lead == NULL)
                followers_add_group(all, s, f->lead);
    }
}

static void followers_release(struct list *all)
{
    while (!list_empty(all)) {
        struct mount *m = list_first_entry(all, struct mount, work);
        list_del(&m->work);
        m->lead = m->from = m->copy = NULL;
    }
}

/* ---- mounting ---- */

static unsigned tree_size(const struct mount *top)
{
    unsigned n = 0;

    for (const struct mount *m = top; m != NULL; m = mount_next_locked(m, top))
        n++;
    return n;
}

/* The copy for m, in made; where it will stand is m. */
static int spread_to(struct mount *m, const struct vpath *to, struct list *made)
{
    struct mount *lead = m->lead, *copy;
    unsigned how = MOUNT_COPY_SHARED;

    if (lead->copy == NULL)
        lead->copy = lead->from->copy;
    if (!mount_shows(m->root, to->dentry))
        return 0;
    if (!lead->done)
        how = MOUNT_COPY_SLAVE | (m->group != 0 ? MOUNT_COPY_SHARED : 0);
    unsigned n = tree_size(lead->copy);
    if (n > LIMIT_MOUNTS || m->ns->count > LIMIT_MOUNTS - n)
        return -ENOSPC;
    int r = mount_copy_tree_locked(lead->copy, lead->copy->root, how, &copy);
    if (r != 0)
        return r;
    m->ns->count += n;
    copy->from = m;
    list_add_tail(&copy->node, made);
    lead->copy = copy;
    lead->done = true;
    return 0;
}

static void join_tree(struct mount_ns *ns, struct mount *top, bool counted)
{
    for (struct mount *m = top; m != NULL; m = mount_next_locked(m, top)) {
        if (counted)
            ns->count--;
        mount_join_locked(ns, m);
    }
    mount_ns_touch_locked(ns);
}

/* Beneath what stands there already: what is seen at the place does not change. */
static void link_beneath(struct mount *m, struct mount *parent, struct dentry *point)
{
    struct mount *over = mount_at_locked(parent, point);
    struct vpath old = {0};

    if (over != NULL)
        mount_unlink_locked(over, &old);
    mount_link_locked(m, parent, point);
    if (over != NULL) {
        struct mount *top = mount_topmost_locked(m);
        mount_link_locked(over, top, top->root);
        /* The new mount holds both. */
        vpath_put(&old);
    }
}

static void spread_commit(struct mount *copy, struct dentry *point)
{
    struct mount *m = copy->from;

    copy->from = NULL;
    list_del(&copy->node);
    join_tree(m->ns, copy, true);
    link_beneath(copy, m, point);
}

static void spread_undo(struct list *made)
{
    struct list gone;

    list_init(&gone);
    while (!list_empty(made)) {
        struct mount *copy = list_first_entry(made, struct mount, node);
        copy->from->ns->count -= tree_size(copy);
        copy->from = NULL;
        list_del(&copy->node);
        mount_detach_tree_locked(copy, &gone);
    }
    mounts_put(&gone);
}

/* Copies of top for everything that follows to's mount. */
static int spread(const struct vpath *to, struct mount *top, struct list *made)
{
    struct list all;
    struct mount *m;
    int r = 0;

    followers_collect(to->mnt, &all);
    to->mnt->copy = top;
    to->mnt->done = true;
    list_for_each_entry (m, &all, work) {
        /* What comes from a tree that stood nowhere does not appear in itself. */
        if (m != to->mnt && !(m->ns->anon && m->ns == top->ns))
            r = spread_to(m, to, made);
        if (r != 0)
            break;
    }
    followers_release(&all);
    return r;
}

static int attach_check(struct mount_ns *ns, const struct vpath *p, const struct mount *top,
                        bool counted)
{
    const struct mount *m;
    unsigned n = counted ? 0 : tree_size(top);
    int r = mount_may_attach_locked(ns, p);

    if (r != 0)
        return r;
    if (n > LIMIT_MOUNTS || ns->count > LIMIT_MOUNTS - n)
        return -ENOSPC;
    if (p->mnt->group != 0)
        for (m = top; m != NULL; m = mount_next_locked(m, top))
            if (m->unbindable)
                return -EINVAL;
    return 0;
}

int mount_attach_tree_locked(struct mount_ns *ns, const struct vpath *p, struct mount *top,
                             bool moved, struct vpath *out_old)
{
    struct list made;
    struct mount *m;
    int r = attach_check(ns, p, top, top->ns == ns);

    if (r != 0)
        return r;
    list_init(&made);
    if (p->mnt->group != 0) {
        for (m = top; m != NULL; m = mount_next_locked(m, top))
            mount_set_type_locked(m, MS_SHARED);
        r = spread(p, top, &made);
        if (r != 0) {
            spread_undo(&made);
            return r;
        }
    }
    if (moved && top->parent != NULL)
        mount_unlink_locked(top, out_old);
    if (top->ns != ns) {
        for (m = top; m != NULL; m = mount_next_locked(m, top))
            mount_leave_ns_locked(m);
        join_tree(ns, top, false);
    } else {
        mount_ns_touch_locked(ns);
    }
    link_beneath(top, p->mnt, p->dentry);
    while (!list_empty(&made))
        spread_commit(list_first_entry(&made, struct mount, node), p->dentry);
    return 0;
}

bool mount_would_cover_locked(const struct vpath *p, const struct mount *m)
{
    if (p->mnt->group == 0 || m->root != p->dentry)
        return false;
    for (; m != NULL; m = m->master)
        if (m->group == p->mnt->group)
            return true;
    return false;
}

/* ---- unmounting ---- */

/* References that are of use. A moment's error errs towards busy: idle ones are counted last. */
static uint32_t mount_users(const struct mount *m)
{
    const uint32_t idle = atomic_load_explicit(&m->idle, memory_order_relaxed);
    const uint32_t refs = ref_read(&m->ref);

    return refs > idle ? refs - idle : 0;
}

bool mount_is_busy_locked(struct mount *m, uint32_t expected)
{
    struct list all;
    struct mount *f;
    bool busy = !list_empty(&m->children) || mount_users(m) > expected;

    if (busy || m->parent == NULL)
        return busy;
    followers_collect(m->parent, &all);
    list_for_each_entry (f, &all, work) {
        const struct mount *c = f != m->parent ? mount_at_locked(f, m->point) : NULL;
        if (c != NULL && list_empty(&c->children) && mount_users(c) > 1)
            busy = true;
    }
    followers_release(&all);
    return busy;
}

/* Something comes to stand where x does when all that leave have gone. */
static bool leaves_nothing(const struct mount *x)
{
    while (x != NULL && x->leaving)
        x = mount_at_locked(x, x->root);
    return x == NULL;
}

/* What stays of c's children can only be one on its root, which can stand in c's place. */
static bool may_leave(const struct mount *c)
{
    const struct mount *x;

    if (c->locked)
        return false;
    list_for_each_entry (x, &c->children, child)
        if (x->point != c->root && !leaves_nothing(x))
            return false;
    return true;
}

static void leave_add(struct mount *m, struct list *leaving)
{
    m->leaving = true;
    mount_leave_ns_locked(m);
    list_add_tail(&m->node, leaving);
}

static void leave_followers(struct mount *m, struct list *leaving)
{
    struct list all;
    struct mount *f;

    followers_collect(m->parent, &all);
    list_for_each_entry (f, &all, work) {
        struct mount *c = f != m->parent ? mount_at_locked(f, m->point) : NULL;
        if (c != NULL && !c->leaving && may_leave(c)) {
            mount_ns_touch_locked(c->ns);
            leave_add(c, leaving);
        }
    }
    followers_release(&all);
}

/* What stands on a mount that leaves, and stays, comes to stand where that one did; others between
 * them may still be to leave. */
static void leave_reveal(struct mount *m)
{
    struct mount *over = mount_at_locked(m, m->root);
    struct vpath old;

    while (over != NULL && over->leaving)
        over = mount_at_locked(over, over->root);
    if (over == NULL || m->parent == NULL)
        return;
    mount_unlink_locked(over, &old);
    mount_link_locked(over, m->parent, m->point);
    /* m is still there. */
    vpath_put(&old);
}

void mount_umount_tree_locked(struct mount *m, struct list *gone)
{
    struct list leaving;
    struct mount *x;

    list_init(&leaving);
    for (x = m; x != NULL; x = mount_next_locked(x, m)) {
        x->leaving = true;
        list_add(&x->work, &leaving); /* the ones below come first */
    }
    struct list order;
    list_init(&order);
    while (!list_empty(&leaving)) {
        x = list_first_entry(&leaving, struct mount, work);
        list_del(&x->work);
        leave_add(x, &order);
    }
    /* Followers come at the end, and are looked at in turn: theirs are the same. */
    struct list *end = order.prev;
    for (struct list *l = order.next;; l = l->next) {
        x = list_entry(l, struct mount, node);
        if (x->parent != NULL && x->parent->group != 0)
            leave_followers(x, &order);
        if (l == end)
            break;
    }
    while (!list_empty(&order)) {
        x = list_first_entry(&order, struct mount, node);
        list_del(&x->node);
        x->leaving = false;
        leave_reveal(x);
        mount_detach_locked(x, gone);
    }
}

/* ---- showing ---- */

uint32_t mount_dominating_locked(const struct mount *m, const struct mount_ns *ns)
{
    for (const struct mount *up = m->master; up != NULL; up = up->master) {
        const struct mount *p = up;
        do {
            if (p->ns == ns)
                return p->group;
            p = peer_next(p);
        } while (p != up);
    }
    return 0;
}
