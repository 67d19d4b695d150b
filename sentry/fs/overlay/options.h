/* Options of an overlay's mount, with the directories they name.
 * Depends on: overlay_priv.h.
 * Threading: one thread.
 * Ownership: ovl_options_fini gives all back. */
#ifndef RINGWALL_SENTRY_FS_OVERLAY_OPTIONS_H
#define RINGWALL_SENTRY_FS_OVERLAY_OPTIONS_H

#include "sentry/fs/overlay/overlay_priv.h"

struct ovl_options {
    struct vpath upper, work; /* owned */
    bool has_upper, has_work;
    struct vpath *lower; /* owned, top first */
    unsigned lower_count;
    bool redirect, follow; /* redirect_dir=on, follow */
    bool user_marks;       /* userxattr */
    char *text;            /* owned: for /proc/mounts */
};

/* text: as given to mount(2). Paths are looked up for c. -EINVAL for what is unknown or cannot be,
 * errors of the look-ups. On failure o needs no fini. */
MUST_CHECK int ovl_options_parse(struct ovl_options *o, const char *text,
                                 const struct vfs_caller *c);
void ovl_options_fini(struct ovl_options *o);

#endif
