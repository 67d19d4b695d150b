/* Who wants to be told what happens to files: marks on inodes, set by inotify(7) and F_NOTIFY.
 * Depends on: vfs.
 * Threading: any thread; one lock, rank NOTIFY, taken only where marks are. The event op runs
 * under it: it may queue and wake, not block.
 * Ownership: a group owns its marks, a mark a reference on its inode. */
#ifndef RINGWALL_SENTRY_VFS_NOTIFY_H
#define RINGWALL_SENTRY_VFS_NOTIFY_H

#include "sentry/vfs/vfs.h"

/* Events have the numbers of inotify(7). */
#define NOTIFY_ACCESS 0x001u
#define NOTIFY_MODIFY 0x002u
#define NOTIFY_ATTRIB 0x004u
#define NOTIFY_CLOSE_WRITE 0x008u
#define NOTIFY_CLOSE_NOWRITE 0x010u
#define NOTIFY_OPEN 0x020u
#define NOTIFY_MOVED_FROM 0x040u
#define NOTIFY_MOVED_TO 0x080u
#define NOTIFY_CREATE 0x100u
#define NOTIFY_DELETE 0x200u
#define NOTIFY_DELETE_SELF 0x400u
#define NOTIFY_MOVE_SELF 0x800u
#define NOTIFY_UNMOUNT 0x2000u
#define NOTIFY_OVERFLOW 0x4000u /* of a group: some were lost */
#define NOTIFY_IGNORED 0x8000u
#define NOTIFY_EXCL_UNLINK 0x04000000u
#define NOTIFY_ONESHOT 0x80000000u
#define NOTIFY_ISDIR 0x40000000u
#define NOTIFY_ALL 0xfffu

struct notify_group;

struct notify_mark {
    struct inode *inode;        /* owned */
    struct notify_group *group; /* borrowed */
    struct notify_mark *next;   /* of the same inode; guard: the lock */
    struct list node, all;      /* group->marks, and all there are; guard: the lock */
    uint32_t mask;              /* guard: the lock */
    int wd;
    const void *key; /* tells marks of one inode in one group apart */
};

struct notify_group {
    /* Lock held. name is NULL for what happened to the inode itself. NOTIFY_IGNORED: m goes.
     * NOTIFY_OVERFLOW concerns all marks of the group. */
    void (*event)(struct notify_group *g, const struct notify_mark *m, uint32_t mask,
                  uint32_t cookie, const char *name);
    struct list marks; /* guard: the lock */
    int last_wd;
};

void notify_group_init(struct notify_group *g);
/* Takes every mark away without a word. */
void notify_group_fini(struct notify_group *g);
void notify_lock(void);
void notify_unlock(void);
/* The wd of g's mark on i (with this key), made when there is none. add: mask is or'ed in; create:
 * -EEXIST when there is one. -ENOSPC at the limit. Or an error of the inode's watch op. */
MUST_CHECK int notify_mark_set(struct notify_group *g, struct inode *i, const void *key,
                               uint32_t mask, bool add, bool create);
/* -EINVAL: no such mark. Says NOTIFY_IGNORED. */
MUST_CHECK int notify_mark_remove(struct notify_group *g, int wd);
/* Somebody has a mark on i. */
bool notify_watched(const struct inode *i);
/* What others did to i without vfs, or to name in it: mask is one of NOTIFY_ALL, with NOTIFY_ISDIR.
 */
void notify_foreign(struct inode *i, uint32_t mask, uint32_t cookie, const char *name);
/* i has no name and no user left: its marks say so and go. The caller has a reference. */
void notify_gone(struct inode *i);
/* Some of it was lost: told to everybody whom it may concern. */
void notify_lost(void);
/* F_NOTIFY: without a word; nothing when there is none. */
void notify_mark_drop(struct notify_group *g, const struct inode *i, const void *key);

#endif
