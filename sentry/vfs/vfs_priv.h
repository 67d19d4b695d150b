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
    struct super *sb;         /* owned, and counted in its active mounts */
    struct dentry *root;      /* owned */
    struct mount_ns *ns;      /* weak; NULL when detached; guard: vfs_mount_lock */
    struct mount *parent;     /* owned; NULL for a namespace's root; set when attached */
    struct dentry *point;     /* owned; where it is mounted in parent; as parent */
    struct list node;         /* ns->mounts; guard: vfs_mount_lock */
    struct list chain;        /* of those that are found by where they stand; guard: its lock */
    struct mount *copy;       /* while a tree is bound: its copy; guard: vfs_mount_lock */
    _Atomic uint32_t flags;   /* MS_* */
    _Atomic uint32_t writers; /* files open for writing */
};

struct mount_ns {
    struct ref ref;
    /* guard: vfs_mount_lock */
    struct list mounts; /* in order of mounting, so parents come first; each held by the tree */
    struct mount *root; /* borrowed from mounts */
    unsigned count;
};

/* The mount trees of all namespaces. Rank MOUNT. */
extern struct rwlock vfs_mount_lock;
/* One rename at a time: what is above what does not change under it. Rank RENAME. */
extern struct mutex vfs_rename_mu;
/* Parents and names of dentries, over several of them. Written for the moment a dentry moves only;
 * nothing but chains is locked under it. Rank DENTRY_TREE. */
extern struct rwlock vfs_tree_lock;

/* ---- dentry.c ---- */
/* A new dentry, not hashed. Takes inode's reference (NULL: negative). parent NULL: a root. */
MUST_CHECK int dentry_new(struct super *sb, struct inode *inode, struct dentry *parent,
                          const char *name, size_t len, struct dentry **out);
/* Puts d into the cache; dir_mu of the parent held, or nobody else knows the parent. */
void dentry_hash(struct dentry *d);
/* Takes d out of the cache; what has it open keeps it. Nothing happens when it is not in it. */
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
/* The directory d is in, at this moment. Owned. */
struct dentry *dentry_parent(struct dentry *d);
/* rename: d gets a new parent and name. *name: heap text, taken; what d no longer needs comes back
 * in it for free(). vfs_tree_lock held for writing, d in no chain. */
void dentry_move_locked(struct dentry *d, struct dentry *new_parent, char **name);
/* a is d or above it. vfs_tree_lock or vfs_rename_mu held. */
bool dentry_is_ancestor(const struct dentry *a, const struct dentry *d);
/* Gives back everything cached of a super that is going; NULL: of all. */
void dentry_shrink_super(struct super *sb);

/* ---- mount.c ---- */
void mount_put(struct mount *m);
/* If something is mounted on *p, moves *p to its root, as often as needed. True: moved. */
bool mount_cross_down(struct vpath *p);
/* From a mount's root to where it is mounted; false at the top, and where a mount was taken away.
 */
bool mount_cross_up(struct vpath *p);
/* -EROFS unless the place may be written. */
MUST_CHECK int mount_want_write(const struct mount *mnt);
/* The same for as long as a file is open: till mount_put_writer it cannot become read-only. */
MUST_CHECK int mount_get_writer(struct mount *mnt);
void mount_put_writer(struct mount *mnt);
/* A mount that no namespace has. Owned. */
MUST_CHECK int mount_private(struct super *sb, struct mount **out);
/* The mount behind files without a place. */
struct mount *mount_anon(void);

/* ---- pathtext.c ---- */
/* Text of d from the root of its file system: length with NUL, or -ENAMETOOLONG. */
MUST_CHECK int64_t dentry_text(const struct dentry *d, char *buf, size_t size);

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
/* After walk_parent with WALK_DOT or WALK_DOTDOT last: goes there. */
MUST_CHECK int walk_last_dots(struct walk *w);
/* After walk_parent: looks w->name up and crosses mounts. The dentry may be negative. Owned. */
MUST_CHECK int walk_child(struct walk *w, struct vpath *out);

/* ---- open.c, file.c ---- */
MUST_CHECK int file_alloc(const struct vpath *p, uint32_t flags, struct file **out);
/* Gives back what counted_writer stands for. */
void file_put_write(const struct vpath *p);
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
