/* Inside vfs: the dentry cache, mounts, the path walk.
 * Depends on: vfs.h.
 * Threading: ranks: RENAME (parents and names of dentries), MOUNT (a namespace's tree), INODE_DIR
 * (a directory's entries), DENTRY (hash chains).
 * Ownership: as vfs.h. */
#ifndef RINGWALL_SENTRY_VFS_PRIV_H
#define RINGWALL_SENTRY_VFS_PRIV_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "sentry/vfs/vfs.h"

struct mount {
    struct ref ref;
    uint64_t id;
    struct super *sb;       /* owned, and counted in its active mounts */
    struct dentry *root;    /* owned */
    struct mount_ns *ns;    /* weak; NULL when detached; guard: ns->lock */
    struct mount *parent;   /* owned; NULL for a namespace's root; guard: ns->lock */
    struct dentry *point;   /* owned; where it is mounted in parent; guard: ns->lock */
    struct list node;       /* ns->mounts; guard: ns->lock */
    _Atomic uint32_t flags; /* MS_* */
};

struct mount_ns {
    struct ref ref;
    struct rwlock lock; /* rank MOUNT */
    struct list mounts; /* in order of mounting; each held by the tree */
    struct mount *root; /* borrowed from mounts */
    unsigned count;
};

extern struct rwlock vfs_rename_lock; /* rank RENAME */

/* ---- dentry.c ---- */
/* A new dentry, not hashed. Takes inode's reference (NULL: negative). parent NULL: a root. */
MUST_CHECK int dentry_new(struct super *sb, struct inode *inode, struct dentry *parent,
                          const char *name, size_t len, struct dentry **out);
/* Puts d into the cache; dir_mu of the parent held, or nobody else knows the parent. */
void dentry_hash(struct dentry *d);
/* Takes d out of the cache; what has it open keeps it. */
void dentry_drop(struct dentry *d);
/* The cached child, negative ones included. Owned, NULL when not cached. */
struct dentry *dentry_cached(struct dentry *parent, const char *name, size_t len);
/* Child name of directory dir: from the cache or the file system. A negative dentry is a result.
 * rest: what follows in the path, for prefetch, or NULL. Owned. */
MUST_CHECK int dentry_lookup(struct dentry *dir, const char *name, size_t len, const char *rest,
                             struct dentry **out);
/* The same with dir's dir_mu held. */
MUST_CHECK int dentry_lookup_locked(struct dentry *dir, const char *name, size_t len,
                                    struct dentry **out);
/* After a create: a positive dentry takes the place of a negative one. Takes inode. dir_mu held. */
MUST_CHECK int dentry_instantiate(struct dentry *dir, const char *name, struct inode *inode,
                                  struct dentry **out);
/* After unlink, rmdir or being renamed over. */
void dentry_unlinked(struct dentry *d);
/* rename: d gets a new parent and name (copied by the caller into *name_owned, which is swapped).
 * vfs_rename_lock held for writing. */
void dentry_move(struct dentry *d, struct dentry *new_parent, char **name_owned);
bool dentry_is_ancestor(const struct dentry *a, const struct dentry *d); /* rename lock held */
/* Gives back everything cached of a super that is going. */
void dentry_shrink_super(struct super *sb);

/* ---- mount.c ---- */
/* If something is mounted on *p, moves *p to its root, as often as needed. True: moved. */
bool mount_cross_down(struct mount_ns *ns, struct vpath *p);
/* From a mount's root to where it is mounted; false at the top. */
bool mount_cross_up(struct mount_ns *ns, struct vpath *p);
/* -EROFS unless the place may be written. */
MUST_CHECK int mount_want_write(const struct mount *mnt);
/* The mount behind files without a place. */
struct mount *mount_anon(void);

/* ---- path.c ---- */
enum walk_last { WALK_NAME, WALK_DOT, WALK_DOTDOT, WALK_NOTHING };
struct walk {
    const struct vfs_caller *c;
    unsigned flags;
    struct vpath root, base; /* borrowed: "/" and what BENEATH must not leave */
    struct vpath cur;        /* owned */
    char *buf;               /* owned text once a link was followed, or NULL */
    const char *pos;
    unsigned links;
    enum walk_last last;
    bool slash; /* a slash follows the last component */
    size_t name_len;
    char name[VFS_NAME_MAX + 1];
};
MUST_CHECK int walk_init(struct walk *w, const struct vfs_caller *c, const struct vpath *base,
                         const char *path, unsigned flags);
void walk_fini(struct walk *w);
/* Walks to the directory of the last component: w->cur; w->last and w->name say what is last. */
MUST_CHECK int walk_parent(struct walk *w);
/* After walk_parent: goes on with the text of the symlink at link, in w->cur's directory. */
MUST_CHECK int walk_follow(struct walk *w, const struct vpath *link);
/* After walk_parent: looks w->name up and crosses mounts. The dentry may be negative. Owned. */
MUST_CHECK int walk_child(struct walk *w, struct vpath *out);

/* ---- open.c, file.c ---- */
MUST_CHECK int file_alloc(const struct vpath *p, uint32_t flags, struct file **out);
/* Undoes file_alloc for a file that never opened. */
void file_discard(struct file *f);
static inline bool file_readable(const struct file *f)
{
    uint32_t fl = atomic_load_explicit(&f->flags, memory_order_relaxed);
    return (fl & O_ACCMODE) != O_WRONLY && !(fl & O_PATH);
}
static inline bool file_writable(const struct file *f)
{
    uint32_t fl = atomic_load_explicit(&f->flags, memory_order_relaxed);
    return (fl & O_ACCMODE) != O_RDONLY && !(fl & O_PATH);
}

/* ---- attr.c ---- */
/* Removes set-user-ID and set-group-ID as a write does. */
MUST_CHECK int vfs_kill_privs(const struct vfs_caller *c, struct inode *i);
/* Calls the inode's setattr, or -EPERM without one. */
MUST_CHECK int inode_setattr(struct inode *i, const struct vfs_setattr *a);

/* ---- epoll.c ---- */
/* The file goes: it leaves every epoll set. */
void epoll_file_gone(struct file *f);

#endif
