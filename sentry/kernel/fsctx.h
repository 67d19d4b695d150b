/* Directory context of tasks: root, cwd, umask (struct fs_ctx of task.h).
 * Depends on: task.h.
 * Threading: any thread; takes the context's lock itself.
 * Ownership: reference-counted; paths given are borrowed, a reference is taken. */
#ifndef RINGWALL_SENTRY_KERNEL_FSCTX_H
#define RINGWALL_SENTRY_KERNEL_FSCTX_H

#include "sentry/kernel/task.h"

/* Owned results. */
MUST_CHECK int fs_ctx_new(const struct vpath *root, const struct vpath *cwd, uint32_t mask,
                          struct fs_ctx **out_fs);
MUST_CHECK int fs_ctx_dup(struct fs_ctx *fs, struct fs_ctx **out_fs);
struct fs_ctx *fs_ctx_get(struct fs_ctx *fs);
void fs_ctx_put(struct fs_ctx *fs);
/* Owned root and cwd. Returns the version they belong to. */
uint32_t fs_ctx_snapshot(struct fs_ctx *fs, struct vpath *root, struct vpath *cwd, uint32_t *mask);
void fs_ctx_set_cwd(struct fs_ctx *fs, const struct vpath *p);
void fs_ctx_set_root(struct fs_ctx *fs, const struct vpath *p);
/* pivot_root(2): every task whose root or working directory is from gets to. */
void kernel_move_roots(struct kernel *k, const struct vpath *from, const struct vpath *to);
/* Returns the old one. */
uint32_t fs_ctx_set_umask(struct fs_ctx *fs, uint32_t mask);

#endif
