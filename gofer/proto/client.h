/* The sentry's end of the gofer channels: one call per request, answers checked field by field.
 * Depends on: proto.h.
 * Threading: any thread; a call takes one free channel of the pool (rank GOFER_CHANNEL) and blocks
 * for the answer, which the gofer gives without waiting for any guest.
 * Ownership: the client owns the sockets; handles and descriptors given out are the caller's. */
#ifndef RINGWALL_GOFER_PROTO_CLIENT_H
#define RINGWALL_GOFER_PROTO_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/list.h"
#include "gofer/proto/proto.h"

struct gof_client;

/* Calls return 0 or a negative errno: that of the host call in the gofer, -EIO once the gofer is
 * dead or has broken the protocol. */

/* Takes the sockets, total (2..GOF_CHANNEL_MAX) ends of gof_pairs_new, on success. -EINVAL,
 * -ENOMEM; -EPROTO: the memory that comes first is not as it should be. */
MUST_CHECK int gof_client_new(const int *fds, size_t total, struct gof_client **out_client);
struct gof_client *gof_client_get(struct gof_client *c);
/* The last reference closes the channels, which ends the gofer. NULL is allowed. */
void gof_client_put(struct gof_client *c);
/* The gofer is gone or has lied: nothing will work any more, the sandbox must end. */
bool gof_client_dead(const struct gof_client *c);
/* A descriptor that polls POLLHUP (with events 0) once the gofer is gone. Borrowed. */
int gof_client_death_fd(const struct gof_client *c);
/* It does: every call that waits for an answer ends. */
void gof_client_gone(struct gof_client *c);
/* Requests sent so far, for tests and statistics. */
uint64_t gof_client_requests(const struct gof_client *c);

MUST_CHECK int gof_attach(struct gof_client *c, uint32_t export_id, bool *out_readonly,
                          struct gof_node *out);
/* Up to GOF_WALK_MAX components from dir on, with nodes for those that exist: *out_done of them.
 * The walk stops early after a node that is no directory (*out_why 0, symlinks are not followed)
 * and before one that cannot be had (*out_why its negative errno). Fails only when nothing was
 * tried. */
MUST_CHECK int gof_walk(struct gof_client *c, uint64_t dir, const char *const *names, size_t count,
                        struct gof_node *out, size_t *out_done, int *out_why);
/* Up to GOF_WALK_MAX names that are all in dir, with nodes for the first *out_done of them; the
 * next one cannot be had (*out_why its negative errno). Fails only when nothing was tried. */
MUST_CHECK int gof_look(struct gof_client *c, uint64_t dir, const char *const *names, size_t count,
                        struct gof_node *out, size_t *out_done, int *out_why);
/* A regular file only; write: O_RDWR, else O_RDONLY. */
MUST_CHECK int gof_open(struct gof_client *c, uint64_t file, bool write, int *out_fd);
/* Connects to a socket: *out_fd, non-blocking, of type SOCK_x. -ECONNREFUSED: nobody listens, or it
 * is not allowed; -EPROTOTYPE, -EAGAIN. */
MUST_CHECK int gof_connect(struct gof_client *c, uint64_t node, int type, int *out_fd);
/* An end of a FIFO, non-blocking; access: O_ACCMODE. -ENXIO: to write only, and nobody reads.
 * -EOPNOTSUPP: it is not allowed. */
MUST_CHECK int gof_open_fifo(struct gof_client *c, uint64_t fifo, int access, int *out_fd);
/* mode with S_IFMT: regular, directory, FIFO, socket, or a device where allowed. out_fd NULL, or
 * for a regular file an O_RDWR descriptor. Owner and mode are set exactly. */
MUST_CHECK int gof_create(struct gof_client *c, uint64_t dir, const char *name, uint32_t mode,
                          uint64_t rdev, uint32_t uid, uint32_t gid, struct gof_node *out,
                          int *out_fd);
/* A regular file without a name, and its O_RDWR descriptor. -EOPNOTSUPP where the host has none. */
MUST_CHECK int gof_tmpfile(struct gof_client *c, uint64_t dir, uint32_t mode, uint32_t uid,
                           uint32_t gid, struct gof_node *out, int *out_fd);
MUST_CHECK int gof_symlink(struct gof_client *c, uint64_t dir, const char *name, const char *target,
                           uint32_t uid, uint32_t gid, struct gof_node *out);
/* out: attributes of target afterwards. */
MUST_CHECK int gof_link(struct gof_client *c, uint64_t dir, const char *name, uint64_t target,
                        struct gof_attr *out);
MUST_CHECK int gof_unlink(struct gof_client *c, uint64_t dir, const char *name, bool directory);
MUST_CHECK int gof_rename(struct gof_client *c, uint64_t dir, const char *name, uint64_t new_dir,
                          const char *new_name, uint32_t flags);
/* NUL-terminated into buf: the length. -ENAMETOOLONG when size does not do. */
MUST_CHECK int64_t gof_readlink(struct gof_client *c, uint64_t link, char *buf, size_t size);
/* One batch of entries, "." and ".." left out; *out_parent is set when ".." was among them, to its
 * inode number as the host gives it. fn's negative result ends the call. One listing per
 * directory at a time is the caller's business; restart begins anew. */
typedef int (*gof_dirent_fn)(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype);
MUST_CHECK int gof_getdents(struct gof_client *c, uint64_t dir, bool restart, gof_dirent_fn fn,
                            void *arg, bool *out_end, uint64_t *out_parent);
MUST_CHECK int gof_stat(struct gof_client *c, uint64_t node, struct gof_attr *out);
MUST_CHECK int gof_set_attr(struct gof_client *c, uint64_t node, const struct gof_setattr *s,
                            struct gof_attr *out);
MUST_CHECK int gof_statfs(struct gof_client *c, uint64_t node, struct gof_statfs *out);
/* size 0 asks for the length. -ERANGE. */
MUST_CHECK int64_t gof_getxattr(struct gof_client *c, uint64_t node, const char *name, void *buf,
                                size_t size);
MUST_CHECK int gof_setxattr(struct gof_client *c, uint64_t node, const char *name, const void *val,
                            size_t size, int flags);
MUST_CHECK int64_t gof_listxattr(struct gof_client *c, uint64_t node, char *buf, size_t size);
MUST_CHECK int gof_removexattr(struct gof_client *c, uint64_t node, const char *name);
MUST_CHECK int gof_fsync(struct gof_client *c, uint64_t node, bool data_only);
/* Everything that was written to the file system that node is on. */
MUST_CHECK int gof_syncfs(struct gof_client *c, uint64_t node);
/* Whoever wants to know what others do on the host to a node, and to the entries of a directory. */
struct gof_watch {
    const struct gof_watch_ops *ops;
    struct list node; /* the client's */
    uint32_t wd;      /* the client's */
};

struct gof_watch_ops {
    /* A leaf lock is held. True: keeps what the watch is in till event was called. */
    bool (*hold)(struct gof_watch *w);
    /* In a thread of the client's own, in order; requests are allowed. */
    void (*event)(struct gof_watch *w, const struct gof_event *e);
    /* Some events of this client were too many. */
    void (*lost)(void);
};

/* Tells w, whose ops are set, till it is dropped; borrowed till then. -ENOSPC: too many watches.
 * -EACCES, -ENOMEM. */
MUST_CHECK int gof_watch(struct gof_client *c, uint64_t node, struct gof_watch *w);
/* The node is about to be closed. */
void gof_watch_drop(struct gof_client *c, struct gof_watch *w);
/* The node stays open. */
void gof_unwatch(struct gof_client *c, uint64_t node, struct gof_watch *w);
/* The handle is closed with the next request. 0 is allowed. */
void gof_close(struct gof_client *c, uint64_t handle);
/* Sends the closes that wait. */
void gof_flush(struct gof_client *c);

#endif
