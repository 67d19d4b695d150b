/* Inside the server: handles, and what the functions of the requests are given.
 * Depends on: server.h, proto.h.
 * Threading: a handle that was looked up stays open until it is put, whoever closes it meanwhile.
 * Ownership: the table owns the descriptors. */
#ifndef RINGWALL_GOFER_SERVER_PRIV_H
#define RINGWALL_GOFER_SERVER_PRIV_H

#include "base/lock.h"
#include "gofer/proto/proto.h"
#include "gofer/server.h"
#include "gofer/watch.h"

struct handle {
    int fd;         /* O_PATH; -1: the slot is free. Immutable while in use */
    uint32_t type;  /* S_IFMT bits; immutable */
    bool readonly;  /* immutable */
    uint32_t index; /* of the slot */
    /* guarded by the table's mu */
    int list_fd;         /* directory being listed, or -1 */
    uint32_t generation; /* of the slot; tells a stale id */
    uint32_t busy;       /* requests that use it */
    bool closed;         /* freed with the last busy */
    uint32_t next_free;  /* index + 1, 0: none */
    struct watch *watch; /* owned, or NULL; guarded by the lock of watches while in use */
};

#define HANDLE_CHUNK 512
#define HANDLE_CHUNKS (GOF_HANDLE_MAX / HANDLE_CHUNK)

struct handle_table {
    struct watch_set *watches; /* immutable */
    struct mutex mu;           /* rank LEAF */
    struct handle *chunks[HANDLE_CHUNKS];
    uint32_t slots;     /* made so far */
    uint32_t used, max; /* handles */
    uint32_t free;      /* index + 1 of the first free slot, 0: none */
};

void handle_table_init(struct handle_table *t, size_t max, struct watch_set *watches);
/* No request is under way. */
void handle_table_fini(struct handle_table *t);
/* Takes fd on success. -ENFILE, -ENOMEM. */
MUST_CHECK int handle_new(struct handle_table *t, int fd, uint32_t type, bool readonly,
                          uint64_t *out_id);
/* NULL: there is no such handle. Otherwise handle_put follows. */
struct handle *handle_get(struct handle_table *t, uint64_t id);
/* Neither is called with the lock of watches held. */
void handle_put(struct handle_table *t, struct handle *h);
/* -EBADF: there is no such handle. */
MUST_CHECK int handle_close(struct handle_table *t, uint64_t id);
/* The listing in progress, which is then the caller's, or -1. */
int handle_take_list(struct handle_table *t, struct handle *h);
/* Takes fd: keeps it for the next part of the listing, or closes it. */
void handle_keep_list(struct handle_table *t, struct handle *h, int fd);

struct gof_server {
    struct handle_table handles;
    struct watch_set watches;
    struct gof_server_export exports[GOF_EXPORT_MAX];
    size_t export_count;
    int proc_fd;
    bool one_id, host_uds, host_fifo;
};

/* One request: r reads its fields, w takes those of the answer. */
struct req {
    struct gof_server *s;
    struct gof_conn *conn;
    struct rbuf r;
    struct wbuf w;
    int fd; /* to send along; owned */
};

/* Not an errno: the request does not parse, so whoever sent it is not the sentry we know. */
#define SRV_MALFORMED (-10000)

/* A request's function: 0, negative errno or SRV_MALFORMED. It has read all its fields, and found
 * them well-formed (rbuf_done), before it does anything. */
typedef int (*req_fn)(struct req *q);

int srv_attach(struct req *q);
int srv_walk(struct req *q);
int srv_look(struct req *q);
int srv_open(struct req *q);
int srv_create(struct req *q);
int srv_tmpfile(struct req *q);
int srv_symlink(struct req *q);
int srv_link(struct req *q);
int srv_unlink(struct req *q);
int srv_rename(struct req *q);
int srv_readlink(struct req *q);
int srv_getdents(struct req *q);
int srv_stat(struct req *q);
int srv_setattr(struct req *q);
int srv_statfs(struct req *q);
int srv_getxattr(struct req *q);
int srv_setxattr(struct req *q);
int srv_listxattr(struct req *q);
int srv_removexattr(struct req *q);
int srv_fsync(struct req *q);
int srv_syncfs(struct req *q);
int srv_close(struct req *q);
int srv_watch(struct req *q);
int srv_events(struct req *q);
int srv_connect(struct req *q);
int srv_open_fifo(struct req *q);

/* ---- host.c: the only functions that resolve a name or a descriptor number ---- */

/* O_PATH descriptor of name in directory dir; a symlink is opened itself. */
MUST_CHECK int host_open_child(int dir, const char *name, int extra_flags);
/* O_PATH descriptor of the directory above dir, to be watched and nothing else: a directory that
 * was moved on the host may be outside of its export. */
MUST_CHECK int host_open_parent(int dir);
/* A new regular file, O_RDWR, mode 0600. */
MUST_CHECK int host_create_child(int dir, const char *name);
/* Of a file in dir that has no name. */
MUST_CHECK int host_tmpfile(int dir);
/* Opens anew what fd (O_PATH or not) stands for. */
MUST_CHECK int host_reopen(const struct gof_server *s, int fd, int flags);
MUST_CHECK int host_chmod(const struct gof_server *s, int fd, uint32_t mode);
/* A new name for what fd stands for. */
MUST_CHECK int host_link(const struct gof_server *s, int fd, int dir, const char *name);
MUST_CHECK int host_stat(int fd, struct gof_attr *out);
/* A non-blocking socket of type SOCK_x, connected to the one that fd (O_PATH) stands for. */
MUST_CHECK int host_connect(const struct gof_server *s, int fd, int type);

#endif
