/* What the sentry watches on the host, and what others did to it: inotify(7) of the host, without
 * what the gofer itself did for the sentry, which tells its guests of that by itself.
 * Depends on: base, gofer/proto.
 * Threading: any thread; one lock, rank GOFER_WATCH, under which handles may be made, not put.
 * Ownership: a watch is shared by the handles of one file; it has a descriptor of its own. */
#ifndef RINGWALL_GOFER_WATCH_H
#define RINGWALL_GOFER_WATCH_H

#include "base/list.h"
#include "base/lock.h"
#include "gofer/proto/proto.h"

#define WATCH_BUCKETS 256
#define QUIET_MAX 6

struct gof_server;
struct watch;

struct watch_set {
    struct rwlock lock;
    /* guarded by lock */
    int notify_fd; /* of inotify; -1 till something is watched */
    uint32_t count, max;
    struct watch *buckets[WATCH_BUCKETS]; /* by wd */
    struct list queue;                    /* told next */
    uint32_t queued;
    bool lost; /* what would have come behind the queue, or what the host lost */
    /* immutable */
    int wake_fd;         /* eventfd: the queue or notify_fd has changed */
    const char *fd_path; /* where the names of descriptors are, with a slash; "": here */
};

/* fd_path is borrowed. */
MUST_CHECK int watch_init(struct watch_set *w, size_t max, const char *fd_path);
void watch_fini(struct watch_set *w);

/* One more user of the watch on what fd stands for; the lock is held for writing. -ENOSPC: no more
 * of them, here or on the host. -EACCES, -ENOMEM. */
MUST_CHECK int watch_get_locked(struct gof_server *s, int fd, struct watch **out);
uint32_t watch_number(const struct watch *w);
/* The lock is not held. NULL is allowed. */
void watch_put(struct watch_set *set, struct watch *w);

/* What the gofer is about to do, whose events are the sentry's own. */
struct quiet {
    struct watch_set *set;
    bool on; /* something is watched */
    size_t count;
    struct quiet_event {
        uint64_t dev, ino;
        const char *name; /* in that directory; "": it itself */
        uint32_t mask;
    } what[QUIET_MAX];
};

/* From here to quiet_end nobody else does anything for the sentry, if something is watched. */
void quiet_begin(struct gof_server *s, struct quiet *q);
/* mask is to be expected for name in directory dir; name is borrowed. */
void quiet_name(struct quiet *q, int dir, const char *name, uint32_t mask);
/* mask is to be expected for what fd stands for. */
void quiet_self(struct quiet *q, int fd, uint32_t mask);
/* As quiet_self for what name in dir stands for now, if anything. */
void quiet_child(struct quiet *q, int dir, const char *name, uint32_t mask);
void quiet_end(struct gof_server *s, struct quiet *q);

/* Waits till there is something to tell or sock (-1: does not wait) ends, and writes it: the fields
 * of GOF_EVENTS. -EPIPE: it has ended. -EAGAIN: nothing, and no sock. */
MUST_CHECK int watch_tell(struct gof_server *s, int sock, struct wbuf *w);

#endif
