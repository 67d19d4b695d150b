/* Inside overlay: supers, layers, inodes, open files.
 * Depends on: overlay.h, vfs/layer.h.
 * Threading: locks are taken from the overlay to its layers: a directory's dir_mu of the overlay,
 * then an inode's up_mu, then dir_mu of real directories, all of rank INODE_DIR (nested). The
 * super's mu (LEAF) guards tables and names; nothing is called under it.
 * Ownership: an inode holds the dentries it stands for; the super holds the layers. */
#ifndef RINGWALL_SENTRY_FS_OVERLAY_PRIV_H
#define RINGWALL_SENTRY_FS_OVERLAY_PRIV_H

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hlist.h"
#include "base/limits.h"
#include "sentry/fs/overlay/overlay.h"
#include "sentry/vfs/layer.h"

#define OVL_BUCKETS 4096u
#define OVL_LAYERS_MAX 500u /* as Linux */
#define OVL_LAYERS_INLINE 8u
#define OVL_DEPTH_MAX 3u /* overlays over overlays, the root's counted */
#define OVL_PREFIX_MAX 32u
#define OVL_UPPER 0u /* the upper's place among the layers; lowers follow from the top */

struct ovl_layer {
    struct mount *mnt; /* owned; NULL for a missing upper */
    struct dentry *root;
    unsigned fs; /* equal for layers of one file system, 0 on */
};

struct ovl_super {
    struct super sb;
    /* immutable after mounting */
    struct ovl_layer *layers; /* owned */
    unsigned layer_count;     /* the upper's place included */
    unsigned depth;
    struct dentry *work; /* owned; where nameless things are made. NULL without upper */
    struct cred *cred;   /* root with everything: for copying up */
    char prefix[OVL_PREFIX_MAX];
    size_t prefix_len;
    uint64_t whiteout; /* rdev of the character device that stands for "not there" */
    bool same_fs;      /* all layers are one file system: inode numbers as they are */
    bool is_root;      /* overlay_root: marks are private, hard links stay together */
    bool redirect, follow;
    char *options; /* owned: for /proc/mounts */
    _Atomic uint64_t serial;
    _Atomic uint64_t list_kept; /* bytes of listings kept at inodes */
    /* guarded by mu */
    struct mutex mu;
    struct hlist by_lower[OVL_BUCKETS], by_upper[OVL_BUCKETS]; /* weak */
    struct list pinned;                                        /* ovl_inode.pin: owned */
};

struct ovl_list;

struct ovl_lower {
    struct dentry *d; /* owned */
    unsigned layer;
};

struct ovl_inode {
    struct inode inode;
    _Atomic(struct dentry *) upper; /* owned; set once, under up_mu */
    struct mutex up_mu;             /* one copy-up at a time */
    /* guarded by the super's mu */
    struct hlist_node lower_link, upper_link;
    struct list pin;
    const struct inode *upper_key; /* what upper_link is found by */
    struct ovl_inode *parent;      /* owned: where it was found; NULL for the root */
    char *name;                    /* owned, in parent */
    char *redirect;                /* owned: where directories below it were renamed from */
    bool gone;                     /* that name is gone */
    int links; /* names that only lower has, beyond what the real inode counts */
    /* mapping, map.c */
    struct mappable map;
    struct mutex map_mu;                    /* rank LEAF */
    unsigned map_users;                     /* guarded by map_mu */
    _Atomic(struct mappable *) real_map[2]; /* lower's, upper's; owned while map_users > 0 */
    char *map_path;                         /* guarded by map_mu; owned */
    _Atomic bool impure;                    /* directories: the mark is set */
    struct ovl_list *list;                  /* owned: what it shows, or NULL; guarded by dir_mu */
    /* immutable */
    unsigned lower_count;
    struct ovl_lower lower[];
};

/* The real thing behind an inode: borrowed. */
struct ovl_real {
    struct mount *mnt;
    struct dentry *d;
};

/* Where a look-up leads. */
struct ovl_found {
    struct dentry *upper; /* owned, or NULL */
    bool stop;            /* nothing below counts any more */
    bool has_origin;
    uint64_t origin; /* inode number to show */
    char *redirect;  /* owned */
    unsigned count;
    struct ovl_lower *lower; /* inline_lower, or owned; dentries owned */
    struct ovl_lower inline_lower[OVL_LAYERS_INLINE];
};

static inline struct ovl_super *ovl_super(struct super *sb)
{
    return container_of(sb, struct ovl_super, sb);
}

static inline struct ovl_inode *ovl_inode(struct inode *i)
{
    return container_of(i, struct ovl_inode, inode);
}

static inline struct ovl_super *ovl_super_of(struct ovl_inode *oi)
{
    return ovl_super(oi->inode.sb);
}

static inline struct dentry *ovl_upper(struct ovl_inode *oi)
{
    return atomic_load_explicit(&oi->upper, memory_order_acquire);
}

static inline struct ovl_real ovl_real(struct ovl_inode *oi)
{
    struct ovl_super *os = ovl_super_of(oi);
    struct dentry *up = ovl_upper(oi);

    if (up != NULL)
        return (struct ovl_real){os->layers[OVL_UPPER].mnt, up};
    return (struct ovl_real){os->layers[oi->lower[0].layer].mnt, oi->lower[0].d};
}

/* A caller that may do everything, for work of the overlay's own. */
static inline struct vfs_caller ovl_caller(const struct ovl_super *os)
{
    return (struct vfs_caller){.cred = os->cred, .fsize_limit = UINT64_MAX};
}

/* ---- super.c ---- */
extern const struct super_ops ovl_super_ops;
extern const struct super_ops ovl_shared_super_ops;

/* ---- inode.c ---- */
extern const struct inode_ops ovl_inode_ops;
/* The inode for what was found as name in parent (NULL: the root), found or made; empties f. Owned.
 */
MUST_CHECK int ovl_inode_get(struct ovl_super *os, struct ovl_inode *parent, const char *name,
                             struct ovl_found *f, struct inode **out);
void ovl_found_fini(struct ovl_found *f);
/* The number its inode shows. */
uint64_t ovl_found_ino(const struct ovl_super *os, const struct ovl_found *f);
/* The inode of what was just made in upper as name of dir. Takes upper. Owned. */
MUST_CHECK int ovl_inode_made(struct ovl_inode *dir, const char *name, struct dentry *upper,
                              struct inode **out);
/* Attributes that vfs looks at, from the real inode. */
void ovl_copy_attr(struct ovl_inode *oi);
/* Inode number to show for number ino of layer. */
uint64_t ovl_ino(const struct ovl_super *os, unsigned layer, uint64_t ino);
/* Puts oi under its real upper inode; called before anybody can find that. */
void ovl_hash_upper(struct ovl_inode *oi, const struct inode *upper);
void ovl_unhash_upper(struct ovl_inode *oi);
/* What it is called and where, as copy-up and redirects need it. Takes name (heap). */
void ovl_set_name(struct ovl_inode *oi, struct ovl_inode *parent, char *name);
/* Owned, or NULL. */
struct ovl_inode *ovl_parent(struct ovl_inode *oi);
/* Names that only lower has went (or came), or those of upper did (0). Keeps the inode in memory
 * while it has names, as it alone knows. The caller has a reference. */
void ovl_count_links(struct ovl_inode *oi, int delta);

/* ---- lookup.c ---- */
/* What name in dir is, over all layers: -ENOENT. On success f is to be given to ovl_inode_get. */
MUST_CHECK int ovl_find(struct ovl_inode *dir, const char *name, struct ovl_found *f);
MUST_CHECK int ovl_lookup(struct inode *dir, const char *name, struct inode **out);
void ovl_prefetch(struct inode *dir, const char *path);
/* Whether d, in directory dir of one layer, says that a name does not exist. */
MUST_CHECK bool ovl_is_whiteout(const struct ovl_super *os, struct dentry *dir, struct dentry *d);
/* Something of that name is in a layer below dir's upper part. */
MUST_CHECK int ovl_lower_positive(struct ovl_inode *dir, const char *name, bool *out);
/* A directory of one layer that hides what is below. */
MUST_CHECK bool ovl_is_opaque(const struct ovl_super *os, struct inode *dir);

/* ---- xattr.c ---- */
/* One of the overlay's own attributes of a real inode: as the inode's getxattr, setxattr. */
MUST_CHECK int64_t ovl_mark_get(const struct ovl_super *os, struct inode *real, const char *mark,
                                void *buf, size_t size);
MUST_CHECK int ovl_mark_set(const struct ovl_super *os, struct inode *real, const char *mark,
                            const void *value, size_t size);
bool ovl_is_mark(const struct ovl_super *os, const char *name);
MUST_CHECK int64_t ovl_getxattr(struct inode *i, const char *name, void *buf, size_t size);
MUST_CHECK int ovl_setxattr(struct inode *i, const char *name, const void *buf, size_t size,
                            int flags);
MUST_CHECK int64_t ovl_listxattr(struct inode *i, char *buf, size_t size);
MUST_CHECK int ovl_removexattr(struct inode *i, const char *name);

/* ---- copyup.c ---- */
/* Makes the inode, and what is above it, part of upper. size: bytes of a regular file that are
 * still wanted. -EROFS without an upper. */
MUST_CHECK int ovl_copy_up(struct ovl_inode *oi, uint64_t size);
/* The entry name of dir (copied up) as an entry of upper too: an alias of a file that was copied up
 * elsewhere may be in lower alone. Owned. */
MUST_CHECK int ovl_copy_up_name(struct ovl_inode *dir, const char *name, struct ovl_inode *oi,
                                struct dentry **out);

/* ---- dir.c, rename.c ---- */
MUST_CHECK int ovl_create(struct inode *dir, const char *name, uint32_t mode, uint64_t rdev,
                          const struct vfs_caller *c, struct inode **out);
MUST_CHECK int ovl_tmpfile(struct inode *dir, uint32_t mode, const struct vfs_caller *c,
                           struct inode **out);
MUST_CHECK int ovl_symlink(struct inode *dir, const char *name, const char *target,
                           const struct vfs_caller *c, struct inode **out);
MUST_CHECK int ovl_link(struct inode *dir, const char *name, struct inode *target);
MUST_CHECK int ovl_unlink(struct inode *dir, const char *name, struct inode *victim);
MUST_CHECK int ovl_rmdir(struct inode *dir, const char *name, struct inode *victim);
MUST_CHECK int ovl_rename(struct inode *old_dir, const char *old_name, struct inode *new_dir,
                          const char *new_name, struct inode *victim, struct inode *target,
                          unsigned flags);
/* upper directory up is locked: "not there" as its entry name. */
MUST_CHECK int ovl_whiteout_locked(struct ovl_super *os, struct dentry *up, const char *name);
/* up is locked: what stands as name in it, if that is a whiteout, goes. *out_was says so. */
MUST_CHECK int ovl_clear_whiteout_locked(struct ovl_super *os, struct dentry *up, const char *name,
                                         bool *out_was);
/* Entries that are whiteouts go from upper directory d, which is to be removed. */
MUST_CHECK int ovl_clear_dir(struct ovl_super *os, struct dentry *d);

/* ---- readdir.c ---- */
extern const struct file_ops ovl_dir_ops;
MUST_CHECK int ovl_dir_open(struct inode *i, struct file *f);
/* The names of dir have changed; its dir_mu is held, or nobody has dir any more. */
void ovl_list_drop(struct ovl_inode *dir);
/* -ENOTEMPTY when the directory shows a name. */
MUST_CHECK int ovl_check_empty(struct ovl_inode *dir);
/* Entries of one real directory, without the dots. */
MUST_CHECK int ovl_read_real(struct ovl_real real, const struct vfs_caller *c, vfs_dirent_fn fn,
                             void *arg);

/* ---- file.c ---- */
MUST_CHECK int ovl_open(struct inode *i, struct file *f, const struct vfs_caller *c);

/* ---- map.c ---- */
extern const struct mappable_ops ovl_mappable_ops;
/* real is the file that f stands for now. */
MUST_CHECK int ovl_mmap(struct file *f, struct file *real, int prot, int flags,
                        struct mappable **out);
/* The inode was copied up: whoever maps it sees upper's bytes, of which file is open. When memory
 * is short, mappings stay on lower's. */
void ovl_map_moved(struct ovl_inode *oi, struct file *file);
/* Bytes from off on went. */
void ovl_map_cut(struct ovl_inode *oi, uint64_t off, uint64_t size);

#endif
