/* Inside cgroupfs: the files of a group as rows of tables.
 * Depends on: cgroupfs.h, kernel/cgroup.h.
 * Threading: rows are constant.
 * Ownership: an inode owns a reference on its group. */
#ifndef RINGWALL_SENTRY_FS_CGROUP_PRIV_H
#define RINGWALL_SENTRY_FS_CGROUP_PRIV_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "sentry/fs/cgroup/cgroupfs.h"
#include "sentry/kernel/cgroup.h"

#define CGFS_NOT_TOP 1u  /* a hierarchy's own top has it not */
#define CGFS_ONLY_TOP 2u /* ... or nobody else */
#define CGFS_OUTSIDE 4u  /* of a container's group only the outside may write it */
#define CGFS_ANY_CTL UINT32_MAX

struct cgfs_row {
    const char *name;
    uint32_t mode;
    uint32_t ctls; /* one of these must be enabled, CG_BIT()s; CGFS_ANY_CTL: none is needed */
    unsigned flags;
    /* NULL: not readable, not writable. store takes trimmed text and returns 0 or an error. */
    int (*show)(struct cgroup *cg, const struct vfs_caller *c, FILE *out);
    int (*store)(struct cgroup *cg, const struct vfs_caller *c, char *text);
    bool events; /* poll tells of changes */
};

struct cgfs_super {
    struct super sb;
    struct cgroup_root *root; /* one of its supers */
    struct cgroup *top;       /* owned */
};

struct cgfs_node {
    struct inode inode;
    struct cgroup *cg;          /* owned */
    const struct cgfs_row *row; /* NULL: the directory */
};

static inline struct cgfs_super *cgfs_super(struct super *sb)
{
    return container_of(sb, struct cgfs_super, sb);
}
static inline struct cgfs_node *cgfs_node(struct inode *i)
{
    return container_of(i, struct cgfs_node, inode);
}

/* ---- rows; end with a NULL name, at most CGROUP_FILES of them, cgroup.procs first ---- */
extern const struct cgfs_row cgfs_rows_v1[], cgfs_rows_v2[];
const struct cgfs_row *cgfs_rows(const struct cgroup *cg);
bool cgfs_row_visible(struct cgroup *cg, const struct cgfs_row *row);
size_t cgfs_row_index(const struct cgroup *cg, const struct cgfs_row *row);

/* ---- inode.c ---- */
extern const struct inode_ops cgfs_inode_ops;
MUST_CHECK int cgfs_node_new(struct super *sb, struct cgroup *cg, const struct cgfs_row *row,
                             struct inode **out);
int cgfs_revalidate(struct dentry *d, struct inode *dir, const char *name);

/* ---- file.c ---- */
extern const struct file_ops cgfs_dir_ops;
MUST_CHECK int cgfs_open(struct inode *i, struct file *f, const struct vfs_caller *c);

/* ---- rows.c: what both versions have ---- */
/* "max" gives CGROUP_NO_LIMIT. -EINVAL. */
MUST_CHECK int cgfs_parse(const char *text, uint64_t *out);
MUST_CHECK int cgfs_parse_size(const char *text, uint64_t *out); /* with k, m, g */
void cgfs_print_limit(FILE *out, uint64_t v);
int cgfs_show_procs(struct cgroup *cg, const struct vfs_caller *c, FILE *out);
int cgfs_show_threads(struct cgroup *cg, const struct vfs_caller *c, FILE *out);
int cgfs_store_procs(struct cgroup *cg, const struct vfs_caller *c, char *text);
int cgfs_store_threads(struct cgroup *cg, const struct vfs_caller *c, char *text);
int cgfs_show_pids_current(struct cgroup *cg, const struct vfs_caller *c, FILE *out);
int cgfs_show_pids_max(struct cgroup *cg, const struct vfs_caller *c, FILE *out);
int cgfs_store_pids_max(struct cgroup *cg, const struct vfs_caller *c, char *text);
int cgfs_show_pids_events(struct cgroup *cg, const struct vfs_caller *c, FILE *out);
int cgfs_show_pids_peak(struct cgroup *cg, const struct vfs_caller *c, FILE *out);
int cgfs_show_memory_current(struct cgroup *cg, const struct vfs_caller *c, FILE *out);
int cgfs_show_memory_peak(struct cgroup *cg, const struct vfs_caller *c, FILE *out);
int cgfs_store_memory_max(struct cgroup *cg, const struct vfs_caller *c, char *text);
int cgfs_store_memory_peak(struct cgroup *cg, const struct vfs_caller *c, char *text);

#endif
