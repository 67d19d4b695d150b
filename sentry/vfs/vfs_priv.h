/* Inside vfs: the dentry cache, mounts, the path walk.
 * Depends on: vfs.h.
 * Threading: ranks: RENAME (parents and names of dentries), MOUNT (the trees of mounts), INODE_DIR
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
    struct super *sb;            /* owned, and counted in its active mounts */
    struct dentry *root;         /* owned */
    struct mount_ns *_Atomic ns; /* weak; NULL when detached; changes under vfs_mount_lock */
    struct mount *parent;   /* owned; NULL for a namespace's root. Changes under vfs_mount_lock and
                               the lock of the chain; stays when it is detached */
    struct dentry *point;   /* owned; where it is mounted in parent; as parent */
    struct list node;       /* ns->mounts; guard: vfs_mount_lock, as for the lists that follow */
    struct list chain;      /* of those that are found by where they stand; guard: its lock too */
    struct list children;   /* child of those that stand on this one */
    struct list child;      /* parent->children */
    _Atomic uint32_t flags; /* MS_* of VFS_MOUNT_FLAGS */
    _Atomic uint32_t writers;  /* files open for writing */
    _Atomic uint32_t idle;     /* references that are no use: vpath_idle */
    _Atomic uint32_t expiring; /* MNT_EXPIRE: 2 marked, 1 and not used since, 0 used */
    /* Propagation; guard: vfs_mount_lock. All weak: a mount leaves them when it is detached. */
    struct list peers;    /* ring of a peer group */
    struct list slaves;   /* slave of those that follow this one */
    struct list slave;    /* master->slaves */
    struct mount *master; /* whom it follows, or NULL */
    uint32_t group;       /* id of the peer group; 0: not shared */
    bool unbindable, locked;
    uint32_t locked_flags; /* MS_* that may not be cleared */
    /* Scratch of one change of the tree, mount_share.c */
    struct list work;
    struct mount *lead, *from, *copy;
    bool done, leaving;
    uint32_t old_flags;
};

struct mount_ns {
    struct ref ref;
    uint64_t id;
    bool anon; /* around a detached tree */
    /* guard: vfs_mount_lock */
    struct list mounts; /* in order of mounting; each held by the tree */
    struct mount *root; /* borrowed from mounts */
    unsigned count;
    _Atomic uint32_t changes; /* how often it changed */
    struct waitq changed;     /* pollers of /proc/<pid>/mounts */
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
/* From the cache only, and what need not be asked about: else -EAGAIN. Owned. */
MUST_CHECK int dentry_lookup_cached(struct dentry *dir, const char *name, size_t len,
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
/* d is where something is mounted in ns. */
bool mount_point_in(const struct mount_ns *ns, const struct dentry *d);
/* The mount behind files without a place. */
struct mount *mount_anon(void);

/* A mount that stands nowhere. Takes sb's reference on success; root: part of sb that it shows. */
MUST_CHECK int mount_new(struct super *sb, struct dentry *root, uint32_t flags, struct mount **out);
/* A namespace without mounts. */
MUST_CHECK int mount_ns_alloc(bool anon, struct mount_ns **out);
/* After the last mount left. */
void mount_ns_free(struct mount_ns *ns);

/* What follows is called with vfs_mount_lock held for writing. */
/* Hangs m over (parent, point), of which it takes references. It is found from then on. */
void mount_link_locked(struct mount *m, struct mount *parent, struct dentry *point);
/* Takes m from where it stands; its references on parent and point go to *out. */
void mount_unlink_locked(struct mount *m, struct vpath *out);
/* Puts m into a namespace's list. */
void mount_join_locked(struct mount_ns *ns, struct mount *m);
void mount_leave_ns_locked(struct mount *m);
/* Takes m out of tree, list and peer group; the tree's reference goes to *gone. m keeps where it
 * stood, but is no longer reached from there nor leads there. */
void mount_detach_locked(struct mount *m, struct list *gone);
void mount_detach_tree_locked(struct mount *m, struct list *gone);
/* Whatever stands on d, in any namespace. */
void mount_detach_point_locked(struct dentry *d, struct list *gone);
/* Puts what detaching left. No lock held. */
void mounts_put(struct list *gone);
/* What stands on (parent, point), or NULL. Reading suffices. */
struct mount *mount_at_locked(const struct mount *parent, const struct dentry *point);
/* m, what is mounted on its root, and so on. */
struct mount *mount_topmost_locked(struct mount *m);
/* The tree below top in pre-order; NULL at the end. Reading suffices. */
struct mount *mount_next_locked(const struct mount *m, const struct mount *top);
/* p is at, or below it. Reading suffices. */
bool mount_is_below_locked(const struct vpath *p, const struct vpath *at);
/* d is in the part of the file system that root shows. */
bool mount_shows(const struct dentry *root, const struct dentry *d);
void mount_ns_touch_locked(struct mount_ns *ns);
/* 0 when one can be mounted on p in ns. */
MUST_CHECK int mount_may_attach_locked(const struct mount_ns *ns, const struct vpath *p);

/* ---- mount_ns.c ---- */
/* All mounts of ns in order: how many. *out is heap (NULL: no memory); each ends with
 * vfs_mount_info_end. */
size_t mount_ns_infos(struct mount_ns *ns, struct vfs_mount_info **out);
/* d is gone: what stands on it in other namespaces goes too. No lock held. */
void mount_point_gone(struct dentry *d);

/* ---- mount_share.c: propagation, mount_namespaces(7); the lock held for writing ---- */
#define MOUNT_COPY_SLAVE 1u        /* follows what it is a copy of */
#define MOUNT_COPY_SHARED 2u       /* is in a peer group: of what it copies, or its own */
#define MOUNT_COPY_UNBINDABLE 4u   /* unbindable ones too */
#define MOUNT_COPY_SHARED_SLAVE 8u /* copies of shared ones follow them */
/* m, showing root: a clone in the same peer group, as how says. Stands nowhere. */
MUST_CHECK int mount_clone_locked(struct mount *m, struct dentry *root, unsigned how,
                                  struct mount **out);
/* m and what is mounted below root in it; linked among themselves, in no namespace. */
MUST_CHECK int mount_copy_tree_locked(struct mount *m, struct dentry *root, unsigned how,
                                      struct mount **out);
/* type: MS_SHARED MS_SLAVE MS_PRIVATE MS_UNBINDABLE. */
void mount_set_type_locked(struct mount *m, uint32_t type);
/* m, which has neither, gets from's peer group and master. */
void mount_set_group_locked(struct mount *from, struct mount *m);
/* Hangs the tree top over p, beneath what stands there, and what follows p's mount gets copies. p
 * is in ns. moved: top is in a tree already; its old place goes to *out_old. -ENOSPC, -ENOMEM:
 * nothing changed. */
MUST_CHECK int mount_attach_tree_locked(struct mount_ns *ns, const struct vpath *p,
                                        struct mount *top, bool moved, struct vpath *out_old);
/* What is mounted on p also comes to stand on m's root, by propagation. Reading suffices. */
bool mount_would_cover_locked(const struct vpath *p, const struct mount *m);
/* Somebody uses what would go with m. */
bool mount_is_busy_locked(struct mount *m, uint32_t expected);
/* Takes the tree m away, and what propagation put elsewhere for it. */
void mount_umount_tree_locked(struct mount *m, struct list *gone);
/* A group that m follows, seen from ns: "propagate_from". 0: none. Reading suffices. */
uint32_t mount_dominating_locked(const struct mount *m, const struct mount_ns *ns);

/* ---- layer.c ---- */
/* Takes i, which was just made as name in dir (locked), away again. */
void dir_unmake(struct inode *dir, const char *name, struct inode *i);

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
/* What is at p was read: its access time, as the mount wants it. */
void vfs_accessed(const struct vpath *p);
/* Calls the inode's setattr, or -EPERM without one. */
MUST_CHECK int inode_setattr(struct inode *i, const struct vfs_setattr *a);

/* ---- notify.c: telling those who watch; next to nothing when nobody does ---- */
/* What happened to i itself. mask: NOTIFY_*. */
void notify_self(struct inode *i, uint32_t mask);
/* To an entry of dir; child says whether NOTIFY_ISDIR is added. */
void notify_name(struct inode *dir, uint32_t mask, const struct inode *child, const char *name,
                 uint32_t cookie);
/* To d's inode: its own watchers and those of the directory it is in. */
void notify_dentry(struct dentry *d, uint32_t mask);
void notify_file(const struct file *f, uint32_t mask);
void notify_setattr(struct dentry *d, uint32_t valid);
uint32_t notify_cookie(void);
/* The last name and the last user of i are gone. */
/* sb is mounted nowhere any more. */
void notify_unmount(struct super *sb);

/* ---- epoll.c ---- */
/* The file goes: it leaves every epoll set. */
void epoll_file_gone(struct file *f);

#endif
