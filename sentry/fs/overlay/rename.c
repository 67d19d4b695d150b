/* Renaming: in upper, with whiteouts where lower would shine through and redirects for directories
 * that have something below. */
#include <stdio.h>

#include "sentry/fs/overlay/overlay_priv.h"

#define RENAME_EXCHANGE_ 2u
#define RENAME_WHITEOUT_ 4u
#define REDIRECT_MAX 256u

struct ovl_rename {
    struct ovl_super *os;
    struct ovl_inode *od, *nd;
    const char *old_name, *new_name;
    struct ovl_inode *moved, *target; /* target NULL: nothing there */
    struct dentry *from, *to;         /* owned: upper's entries; to may be NULL */
    bool exchange;
};

static bool rename_is_dir(const struct ovl_inode *oi)
{
    return oi != NULL && S_ISDIR(oi->inode.mode);
}

/* ---- where a directory came from ---- */

/* The path of oi in the layers below, from the end of buf backwards: its start, or NULL when it is
 * too long. The names of directories on the way stay, as only one rename across directories is
 * under way at a time. */
static char *redirect_path_locked(struct ovl_inode *oi, char *buf, size_t size)
{
    char *at = buf + size - 1;

    *at = '\0';
    while (oi->parent != NULL) {
        const char *text = oi->redirect != NULL ? oi->redirect : oi->name;
        bool path = text[0] == '/';
        size_t n = strlen(text);
        if (n + 1 > (size_t)(at - buf))
            return NULL;
        at -= n;
        memcpy(at, text, n);
        if (path)
            return at;
        *--at = '/';
        oi = oi->parent;
    }
    return at;
}

/* Directory oi is about to get another name: says where its lower part is. -EXDEV where that
 * cannot be said, as without redirect_dir. */
static int rename_redirect(struct ovl_super *os, struct ovl_inode *oi, bool same_parent)
{
    char buf[REDIRECT_MAX + 1], *text = NULL;

    if (!rename_is_dir(oi) || oi->lower_count == 0)
        return 0;
    if (!os->redirect)
        return -EXDEV;
    mutex_lock(&os->mu);
    bool path = oi->redirect != NULL && oi->redirect[0] == '/';
    if (path || (same_parent && oi->redirect != NULL))
        text = strdup(oi->redirect);
    else if (same_parent)
        text = strdup(oi->name);
    else if ((text = redirect_path_locked(oi, buf, sizeof(buf))) != NULL)
        text = strdup(text);
    mutex_unlock(&os->mu);
    if (text == NULL)
        return -EXDEV;
    int r = ovl_mark_set(os, ovl_upper(oi)->inode, "redirect", text, strlen(text));
    if (r == 0) {
        mutex_lock(&os->mu);
        char *old = oi->redirect;
        oi->redirect = text;
        text = old;
        mutex_unlock(&os->mu);
    }
    free(text);
    return r == -EOPNOTSUPP ? -EXDEV : r;
}

/* A directory that has nothing below goes to where lower has, or may have, something. */
static int rename_opaque(struct ovl_super *os, struct ovl_inode *oi, const struct ovl_inode *to)
{
    if (!rename_is_dir(oi) || oi->lower_count > 0 || to->lower_count == 0)
        return 0;
    return ovl_mark_set(os, ovl_upper(oi)->inode, "opaque", "y", 1);
}

/* ---- steps ---- */

/* Everything concerned is in upper, under the names that are meant. */
static int rename_copy_up(struct ovl_rename *rn)
{
    int r = ovl_copy_up(rn->od, UINT64_MAX);

    if (r == 0)
        r = ovl_copy_up(rn->nd, UINT64_MAX);
    if (r == 0)
        r = ovl_copy_up(rn->moved, UINT64_MAX);
    if (r == 0)
        r = ovl_copy_up_name(rn->od, rn->old_name, rn->moved, &rn->from);
    if (r == 0 && rn->exchange)
        r = ovl_copy_up(rn->target, UINT64_MAX);
    if (r == 0 && rn->exchange)
        r = ovl_copy_up_name(rn->nd, rn->new_name, rn->target, &rn->to);
    return r;
}

/* A target directory that shows nothing is emptied of whiteouts. */
static int rename_check_target(const struct ovl_rename *rn)
{
    if (rn->exchange || !rename_is_dir(rn->target))
        return 0;
    int r = ovl_check_empty(rn->target);
    if (r == 0 && ovl_upper(rn->target) != NULL)
        r = ovl_clear_dir(rn->os, ovl_upper(rn->target));
    return r;
}

static int rename_marks(const struct ovl_rename *rn)
{
    bool same = rn->od == rn->nd;
    int r = rename_redirect(rn->os, rn->moved, same);

    if (r == 0 && rn->exchange)
        r = rename_redirect(rn->os, rn->target, same);
    if (r == 0)
        r = rename_opaque(rn->os, rn->moved, rn->nd);
    if (r == 0 && rn->exchange)
        r = rename_opaque(rn->os, rn->target, rn->od);
    return r;
}

/* What upper has as the new name: the target's entry, or a whiteout, which goes when a directory
 * could not replace it. Both directories are locked. */
static int rename_find_target_locked(struct ovl_rename *rn)
{
    struct dentry *up = ovl_upper(rn->nd);
    int r = layer_lookup_locked(up, rn->new_name, true, &rn->to);

    if (r != 0) {
        rn->to = NULL;
        return r == -ENOENT ? 0 : r;
    }
    if (!ovl_is_whiteout(rn->os, up, rn->to)) {
        struct dentry *expected = rn->target != NULL ? ovl_upper(rn->target) : NULL;
        return expected != NULL && expected->inode == rn->to->inode ? 0 : -ESTALE;
    }
    if (!rename_is_dir(rn->moved))
        return 0;
    r = layer_remove_locked(up, rn->to);
    dentry_put(rn->to);
    rn->to = NULL;
    return r;
}

static int rename_locked(struct ovl_rename *rn, bool whiteout)
{
    struct dentry *from_dir = ovl_upper(rn->od), *to_dir = ovl_upper(rn->nd);
    int r = rn->exchange ? 0 : rename_find_target_locked(rn);

    if (r == 0)
        r = layer_rename_locked(from_dir, rn->from, to_dir, rn->new_name, rn->to,
                                rn->exchange ? RENAME_EXCHANGE_ : 0);
    if (r == 0 && whiteout)
        r = ovl_whiteout_locked(rn->os, from_dir, rn->old_name);
    return r;
}

static void rename_set_names(const struct ovl_rename *rn, char **moved_name, char **target_name)
{
    if (rename_is_dir(rn->moved) || rn->moved->lower_count > 0) {
        ovl_set_name(rn->moved, rn->nd, *moved_name);
        *moved_name = NULL;
    }
    if (rn->exchange && (rename_is_dir(rn->target) || rn->target->lower_count > 0)) {
        ovl_set_name(rn->target, rn->od, *target_name);
        *target_name = NULL;
    }
}

static void rename_done(const struct ovl_rename *rn)
{
    ovl_list_drop(rn->od);
    ovl_list_drop(rn->nd);
    ovl_copy_attr(rn->od);
    ovl_copy_attr(rn->nd);
    ovl_copy_attr(rn->moved);
    if (rn->target != NULL) {
        if (!rn->exchange)
            ovl_count_links(rn->target, rn->to != NULL ? 0 : -1);
        ovl_copy_attr(rn->target);
    }
    /* Numbers of below are shown in directories that had none before. */
    if (rn->moved->lower_count > 0 || atomic_load(&rn->od->impure))
        if (!atomic_exchange(&rn->nd->impure, true) &&
            ovl_mark_set(rn->os, ovl_upper(rn->nd)->inode, "impure", "y", 1) != 0)
            atomic_store(&rn->nd->impure, false);
}

static int rename_do(struct ovl_rename *rn)
{
    char *moved_name = strdup(rn->new_name), *target_name = strdup(rn->old_name);
    bool whiteout = false;
    int r = moved_name != NULL && target_name != NULL ? 0 : -ENOMEM;

    if (r == 0)
        r = rename_copy_up(rn);
    if (r == 0)
        r = rename_check_target(rn);
    if (r == 0 && !rn->exchange)
        r = ovl_lower_positive(rn->od, rn->old_name, &whiteout);
    if (r == 0)
        r = rename_marks(rn);
    if (r == 0) {
        layer_lock_two(ovl_upper(rn->od), ovl_upper(rn->nd));
        r = rename_locked(rn, whiteout);
        layer_unlock_two(ovl_upper(rn->od), ovl_upper(rn->nd));
    }
    if (r == 0) {
        rename_set_names(rn, &moved_name, &target_name);
        rename_done(rn);
    }
    free(moved_name);
    free(target_name);
    return r;
}

int ovl_rename(struct inode *old_dir, const char *old_name, struct inode *new_dir,
               const char *new_name, struct inode *victim, struct inode *target, unsigned flags)
{
    struct ovl_rename rn = {
        .os = ovl_super(old_dir->sb),
        .od = ovl_inode(old_dir),
        .nd = ovl_inode(new_dir),
        .old_name = old_name,
        .new_name = new_name,
        .moved = ovl_inode(victim),
        .target = target != NULL ? ovl_inode(target) : NULL,
        .exchange = (flags & RENAME_EXCHANGE_) != 0,
    };
    /* What it would leave behind could not be told from what this layer hides. */
    int r = (flags & RENAME_WHITEOUT_) != 0 ? -EINVAL : rename_do(&rn);

    if (rn.from != NULL)
        dentry_put(rn.from);
    if (rn.to != NULL)
        dentry_put(rn.to);
    return r;
}
