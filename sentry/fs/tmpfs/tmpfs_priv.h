/* Inside tmpfs: supers, inodes, directories, and where a file's bytes are.
 * Depends on: tmpfs.h.
 * Threading: ranks INODE_RW (writers against truncation, held over copies) and INODE_DATA (chunks).
 * Ownership: an inode owns its entries, its chunks and its link text. */
#ifndef RINGWALL_SENTRY_FS_TMPFS_PRIV_H
#define RINGWALL_SENTRY_FS_TMPFS_PRIV_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/rbtree.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/mem/memacct.h"
#include "sentry/mem/memfile.h"
#include "sentry/mm/mm.h"

/* File bytes are kept in chunks: as many pages as a bitmap word has bits. */
#define CHUNK_PAGES 64u
#define CHUNK_SIZE ((uint64_t)CHUNK_PAGES << PAGE_SHIFT)

/* Bytes of extended attributes for each inode that the mount may have, all inodes together. */
#define TMPFS_XATTR_SHARE 1024u

struct tmpfs {
    struct super sb;
    struct memfile *mf;
    _Atomic uint64_t max_pages, max_inodes; /* 0: no limit */
    _Atomic uint64_t pages, inodes;
    _Atomic uint64_t
        xattr_bytes; /* names and values, at most TMPFS_XATTR_SHARE per inode allowed */
    _Atomic uint64_t next_ino;
};

struct tmpfs_inode;

/* One name in a directory. Guard: the directory's dir_mu. */
struct tmpfs_entry {
    struct rb_node by_name, by_pos;
    struct tmpfs_inode *inode; /* owned */
    uint64_t pos;              /* readdir's cookie, rising, never used twice */
    size_t len;
    char name[];
};

struct chunk {
    struct rb_node node;
    uint64_t index;   /* in units of CHUNK_SIZE */
    uint64_t off;     /* in the memory file */
    uint64_t present; /* pages that were written or mapped */
};

/* As newer headers have it. */
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif

struct tmpfs_xattr {
    struct list node;
    char *name;
    size_t size;
    char value[];
};

struct tmpfs_inode {
    struct inode inode;
    /* directories; guard: dir_mu */
    struct rb_root names, positions;
    uint64_t next_pos;
    struct tmpfs_inode *parent; /* weak; itself for the root */
    /* symbolic links; immutable */
    char *target;
    /* regular files */
    struct mappable mappable;
    struct rwlock rw;     /* rank INODE_RW: shared for writers of bytes, alone for size changes */
    struct mutex data_mu; /* rank INODE_DATA: chunks, seals */
    struct rb_root chunks;
    _Atomic uint64_t pages; /* present ones of all chunks */
    unsigned seals;
    bool sealable;
    struct list xattrs; /* guard: inode.mu */
};

static inline struct tmpfs *tmpfs_of(struct super *sb)
{
    return container_of(sb, struct tmpfs, sb);
}

static inline struct tmpfs_inode *tmpfs_inode(struct inode *i)
{
    return container_of(i, struct tmpfs_inode, inode);
}

/* ---- inode.c ---- */
extern const struct inode_ops tmpfs_inode_ops;
/* -ENOSPC at the limit of inodes. Owned. */
MUST_CHECK int tmpfs_inode_new(struct tmpfs *fs, uint32_t mode, uint32_t uid, uint32_t gid,
                               uint64_t rdev, struct tmpfs_inode **out);
/* ---- dir.c ---- */
extern const struct file_ops tmpfs_dir_ops;
MUST_CHECK int tmpfs_lookup(struct inode *dir, const char *name, struct inode **out);
MUST_CHECK int tmpfs_create(struct inode *dir, const char *name, uint32_t mode, uint64_t rdev,
                            const struct vfs_caller *c, struct inode **out);
MUST_CHECK int tmpfs_symlink(struct inode *dir, const char *name, const char *target,
                             const struct vfs_caller *c, struct inode **out);
MUST_CHECK int tmpfs_link(struct inode *dir, const char *name, struct inode *target);
MUST_CHECK int tmpfs_unlink(struct inode *dir, const char *name, struct inode *victim);
MUST_CHECK int tmpfs_rmdir(struct inode *dir, const char *name, struct inode *victim);
MUST_CHECK int tmpfs_rename(struct inode *old_dir, const char *old_name, struct inode *new_dir,
                            const char *new_name, struct inode *victim, struct inode *target,
                            unsigned flags);
void tmpfs_dir_fini(struct tmpfs_inode *d);
/* ---- data.c ---- */
/* Who is charged for bytes that are missing: the writer's account, or acct. Borrowed; NULL:
 * nobody. */
struct tmpfs_alloc {
    const struct uaccess *ua;
    struct memacct *acct;
};
/* The memory behind page-aligned part of [off, off+size): *out_off in the memory file and the bytes
 * that lie together. alloc: makes what is missing; NULL: a hole gives false. -ENOSPC, -ENOMEM. */
MUST_CHECK int tmpfs_data_get(struct tmpfs_inode *t, uint64_t off, uint64_t size,
                              const struct tmpfs_alloc *alloc, uint64_t *out_off,
                              uint64_t *out_size, bool *out_hole);
/* Frees the bytes of a range; partial pages are zeroed. */
void tmpfs_data_punch(struct tmpfs_inode *t, uint64_t start, uint64_t end);
/* Pages first to last that are there. */
uint64_t tmpfs_data_pages(struct tmpfs_inode *t, uint64_t first, uint64_t last);
/* First byte >= off that is data (or hole), or INT64_MAX. */
uint64_t tmpfs_data_seek(struct tmpfs_inode *t, uint64_t off, bool data);
extern const struct mappable_ops tmpfs_mappable_ops;
/* ---- file.c ---- */
extern const struct file_ops tmpfs_file_ops;
MUST_CHECK int tmpfs_set_size(struct tmpfs_inode *t, uint64_t size);

#endif
