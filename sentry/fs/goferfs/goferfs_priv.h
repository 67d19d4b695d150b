/* Inside goferfs: its super, inodes, directory listings and open files.
 * Depends on: goferfs.h, gofer/proto/client.h.
 * Threading: each field says its lock.
 * Ownership: an inode owns its handle and its descriptors. */
#ifndef RINGWALL_SENTRY_FS_GOFERFS_GOFERFS_PRIV_H
#define RINGWALL_SENTRY_FS_GOFERFS_GOFERFS_PRIV_H

#include <stdatomic.h>

#include "base/hlist.h"
#include "gofer/proto/client.h"
#include "sentry/fs/goferfs/goferfs.h"

#define GOFERFS_BUCKETS 4096 /* of the table of inodes */
#define GOFERFS_IDLE_MAX 512 /* inodes whose descriptors are kept though nobody has them open */
#define GOFERFS_DEVS 32      /* host file systems under one mount that get a number of their own */
#define GOFERFS_AHEAD 64     /* nodes walked ahead of their look-up */
/* A larger directory cannot be listed (ENOMEM); listings kept for the next reader, in all. */
#define GOFERFS_LIST_MAX (64u * 1024 * 1024)
#define GOFERFS_LIST_KEPT_MAX (4u * 1024 * 1024)

/* Files we have changed and then forgotten, of which the host may still tell. */
#define GOFERFS_DEPARTED 1024

/* What a walk of several components found, waiting for the look-up of its name. */
struct goferfs_ahead {
    bool used;                 /* the slot holds something */
    struct gof_node node;      /* handle 0: the name does not exist */
    uint64_t dir_dev, dir_ino; /* host's numbers of the directory */
    uint64_t changes;          /* the super's count when it was asked for */
    uint64_t walk;             /* of a shared super: the only walk that it is for */
    char name[GOF_NAME_MAX + 1];
};

struct goferfs_super {
    struct super sb;
    /* immutable */
    struct gof_client *client;
    bool shared;
    uint64_t root_dev, root_handle;
    /* atomic */
    _Atomic uint64_t changes;   /* creations, removals and renames so far */
    _Atomic uint64_t list_kept; /* bytes of listings kept at inodes */
    _Atomic bool own_fifos;     /* the gofer opens none of the host's */
    _Atomic bool watching;      /* somebody had a mark on an inode: watch.c */
    /* guarded by mu (rank LEAF) */
    struct mutex mu;
    struct hlist inodes[GOFERFS_BUCKETS]; /* of goferfs_inode.hash; weak */
    struct list idle;                     /* goferfs_inode.idle, longest idle first; weak */
    size_t idle_count;
    struct {
        uint64_t host, dev;
    } devs[GOFERFS_DEVS];
    size_t dev_count;
    struct goferfs_ahead ahead[GOFERFS_AHEAD];
    struct goferfs_departed *departed; /* owned, GOFERFS_DEPARTED of them; NULL: nobody watches */
    size_t departed_next;
    size_t ahead_next;
};

/* A directory as it was once read; immutable once it is filled. */
struct goferfs_list {
    struct ref ref;
    struct goferfs_super *kept_in; /* whose list_kept counts it, or NULL */
    uint64_t parent;               /* inode number of "..", or 0 */
    size_t count, count_room;
    struct goferfs_entry {
        uint64_t ino;
        uint32_t name_off;
        uint8_t name_len, dtype;
    } * entries;
    char *names;
    size_t names_size, names_room;
};

/* How far look-ups have come in the order of a list. */
struct goferfs_along {
    uint32_t next; /* entry that would be the next one */
    uint32_t end;  /* those before it have been asked for */
    uint32_t run;  /* so many came in order */
};

struct goferfs_watch;

struct goferfs_inode {
    struct inode inode;
    struct mappable map;
    /* immutable */
    uint64_t handle;
    uint64_t host_dev;
    uint64_t dev; /* what the guest sees */
    /* guarded by the super's mu */
    struct hlist_node hash;
    struct list idle;
    /* writers and truncation (rank INODE_RW) */
    struct mutex rw_mu;
    /* guarded by data_mu (rank INODE_DATA) */
    struct mutex data_mu;
    int rd_fd, rw_fd;            /* -1: not open. Once open they stay while users > 0 */
    uint32_t users;              /* open files and references of the mappable */
    uint16_t own_closes;         /* after writing, that the host has not told of yet */
    bool foreign;                /* others have written and not closed yet */
    bool nameless;               /* others took its last name away */
    struct goferfs_list *list;   /* exclusive directories: owned; NULL: not known */
    struct goferfs_along along;  /* look-ups in the order of that list */
    char *map_path;              /* for /proc/<pid>/maps; owned */
    char *link;                  /* text of a symlink once it was read; owned */
    struct goferfs_watch *watch; /* owned, or NULL; immutable once made */
    /* atomic */
    _Atomic bool watched;       /* the gofer tells of it; changed under data_mu */
    _Atomic uint64_t walk;      /* shared: that came by its attributes last (vfs_walk_id) */
    _Atomic int64_t own_change; /* its ctime after our own last change, in ns: watch.c */
};

static inline struct goferfs_super *goferfs_super(struct super *sb)
{
    return container_of(sb, struct goferfs_super, sb);
}

static inline struct goferfs_inode *goferfs_inode(struct inode *i)
{
    return container_of(i, struct goferfs_inode, inode);
}

static inline struct gof_client *goferfs_client(struct inode *i)
{
    return goferfs_super(i->sb)->client;
}

extern const struct inode_ops goferfs_inode_ops;
extern const struct file_ops goferfs_reg_ops;
extern const struct file_ops goferfs_dir_ops;
extern const struct mappable_ops goferfs_mappable_ops;

/* ---- super.c ---- */
/* The gofer has no handle left (r is -ENFILE): some are given back, and the request is worth
 * another try. False: it failed for another reason, or once too often (*tries, 0 at first). */
bool goferfs_make_room(struct goferfs_super *gs, int r, int *tries);
/* The host has no space left (r is -ENOSPC or -EDQUOT): deleted files whose handles were to be
 * closed with the next request are closed now, and the transfer is worth another try. False: it
 * failed for another reason, or again (*tried, false at first). */
bool goferfs_make_space(struct goferfs_super *gs, int64_t r, bool *tried);

/* ---- inode.c ---- */
/* The inode of a node, found or made. Takes the node's handle, on failure too. Owned result. */
MUST_CHECK int goferfs_inode_of(struct goferfs_super *gs, const struct gof_node *n,
                                struct inode **out);
/* The inode of the host's file, if it is known: owned, or NULL. */
struct goferfs_inode *goferfs_inode_find(struct goferfs_super *gs, uint64_t dev, uint64_t ino);
/* Cached attributes from the host's. Takes i->mu. */
void goferfs_update(struct inode *i, const struct gof_attr *a);
/* ... which the path walk that the thread is in came by. */
void goferfs_update_walked(struct inode *i, const struct gof_attr *a);
/* As goferfs_update, with fstat of one of the inode's descriptors. */
void goferfs_update_fd(struct inode *i, int fd);

/* ---- ahead.c ---- */
/* What was found ahead for name in dir: a node whose handle is then the caller's, or handle 0 for a
 * name that does not exist. */
bool goferfs_ahead_take(struct inode *dir, const char *name, struct gof_node *out);
/* Walks the components of path ("usr/lib/x") below dir in one request. */
void goferfs_prefetch(struct inode *dir, const char *path);
/* Looks name up in dir, and the names listed after it, when look-ups come in the order of the
 * listing. False: they do not, or name cannot be had; nothing was found out. dir_mu is held. */
bool goferfs_look_along(struct inode *dir, const char *name, struct gof_node *out);
/* Gives up all of them. */
void goferfs_ahead_drop(struct goferfs_super *gs);

/* ---- fds.c ---- */
/* One more user of the inode's descriptors, of which one is opened when needed: *out_fd is good
 * until goferfs_fd_put. */
MUST_CHECK int goferfs_fd_get(struct goferfs_inode *gi, bool write, int *out_fd);
/* One more user, when one is known to exist. */
void goferfs_fd_hold(struct goferfs_inode *gi);
void goferfs_fd_put(struct goferfs_inode *gi);
/* Takes a descriptor (O_RDWR) that came with the inode's creation. */
void goferfs_fd_adopt(struct goferfs_inode *gi, int fd);
/* Closes the descriptors that nobody has open. */
void goferfs_fds_retire(struct goferfs_super *gs);
/* The inode dies: closes what is open. */
void goferfs_fd_release(struct goferfs_inode *gi);

/* ---- dir.c, tree.c ---- */
void goferfs_list_put(struct goferfs_list *l);
/* Entries of dir have changed; dir_mu is held. */
void goferfs_dir_changed(struct inode *dir);
MUST_CHECK int goferfs_tmpfile(struct inode *dir, uint32_t mode, const struct vfs_caller *c,
                               struct inode **out);
MUST_CHECK int goferfs_create(struct inode *dir, const char *name, uint32_t mode, uint64_t rdev,
                              const struct vfs_caller *c, struct inode **out);
MUST_CHECK int goferfs_symlink(struct inode *dir, const char *name, const char *target,
                               const struct vfs_caller *c, struct inode **out);
MUST_CHECK int goferfs_link(struct inode *dir, const char *name, struct inode *target);
MUST_CHECK int goferfs_unlink(struct inode *dir, const char *name, struct inode *victim);
MUST_CHECK int goferfs_rmdir(struct inode *dir, const char *name, struct inode *victim);
MUST_CHECK int goferfs_rename(struct inode *old_dir, const char *old_name, struct inode *new_dir,
                              const char *new_name, struct inode *victim, struct inode *target,
                              unsigned flags);

/* ---- map.c ---- */
/* Remembers the path under which the inode was mapped first. */
void goferfs_map_name(struct goferfs_inode *gi, struct file *f);

/* ---- fifo.c ---- */
MUST_CHECK int goferfs_open_fifo(struct inode *i, struct file *f, const struct vfs_caller *c);

/* ---- watch.c ---- */
MUST_CHECK int goferfs_watch(struct inode *i);
void goferfs_watch_release(struct goferfs_inode *gi);
/* The inode is no longer found; the super's mu is held. */
void goferfs_watch_departs_locked(struct goferfs_super *gs, const struct goferfs_inode *gi);
/* We have changed i, not by its name: it is now as a says; as fd says; as the gofer will say. With
 * rw_mu held, so that the change and this are one to who is told of it. */
void goferfs_own_change(struct inode *i, const struct gof_attr *a);
void goferfs_own_change_fd(struct inode *i, int fd);
void goferfs_own_change_ask(struct inode *i);
/* rw_fd is about to be closed, or was one that the gofer opened to set the size. */
void goferfs_own_close_locked(struct goferfs_inode *gi);
/* Its descriptors are not kept: the host tells when they are closed. */
bool goferfs_closes_early(struct goferfs_inode *gi);

/* ---- file.c ---- */
MUST_CHECK int goferfs_open(struct inode *i, struct file *f, const struct vfs_caller *c);
MUST_CHECK int goferfs_setattr(struct inode *i, const struct vfs_setattr *a);

#endif
