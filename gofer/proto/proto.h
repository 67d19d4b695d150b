/* The messages between the sentry and its gofer: layout, bounds, checks; the same code at both
 * ends. Depends on: base (rbuf, wbuf, limits). Threading: values. Ownership: texts read from a
 * message point into it.
 *
 * One request and one answer at a time per channel, each in the channel's memory (area.h) or, on
 * the one for events, one SOCK_SEQPACKET message; little-endian. request: u16 op, u16 close_count,
 * u32 seq, u16 cpu, close_count x u64 handle, fields of the op answer:  i32 status (0 or negative
 * errno), u32 seq, fields of the op when status is 0 cpu: where the requests of this channel are to
 * be served from now on, GOF_CPU_NONE: anywhere. The handles to close are dropped before the
 * request is looked at: closing costs no message. A name or other text is u16 length and bytes
 * without NUL. A node is u64 handle and attributes. An answer has a descriptor (SCM_RIGHTS, sent
 * ahead through the channel's socket) only where said. A message that does not parse ends the
 * connection at either end. */
#ifndef RINGWALL_GOFER_PROTO_PROTO_H
#define RINGWALL_GOFER_PROTO_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/limits.h"
#include "base/rbuf.h"
#include "base/wbuf.h"

/* Bytes of the largest message: a payload and what surrounds it. */
#define GOF_MESSAGE_MAX (LIMIT_GOFER_MESSAGE + 2048)
#define GOF_NAME_MAX 255
#define GOF_LINK_MAX 4095
#define GOF_WALK_MAX 32  /* names of one walk, or look */
#define GOF_CLOSE_MAX 64 /* handles closed along with one request */
#define GOF_CHANNEL_MAX 8
#define GOF_CPU_NONE 0xffffu
#define GOF_EXPORT_MAX 256
/* Handles one sentry may hold: ENFILE. Each is a descriptor of the gofer. */
#define GOF_HANDLE_MAX 262144

enum gof_op {
    GOF_ATTACH = 1,  /* u32 export -> u8 readonly, node */
    GOF_WALK,        /* u64 dir, u16 count, names -> u16 done, i32 why_stopped, done nodes */
    GOF_OPEN,        /* u64 file, u32 O_RDONLY/O_RDWR -> descriptor */
    GOF_CREATE,      /* u64 dir, name, u32 mode with S_IFMT, u32 uid, u32 gid, u64 rdev,
                        u8 want_fd -> node; descriptor (O_RDWR) when want_fd and a regular file */
    GOF_SYMLINK,     /* u64 dir, name, text target, u32 uid, u32 gid -> node */
    GOF_LINK,        /* u64 dir, name, u64 target -> attributes of target */
    GOF_UNLINK,      /* u64 dir, name, u8 directory -> nothing */
    GOF_RENAME,      /* u64 dir, name, u64 new dir, new name, u32 RENAME_* -> nothing */
    GOF_READLINK,    /* u64 link -> text */
    GOF_GETDENTS,    /* u64 dir, u8 from the start -> u8 end reached, u64 ino of ".." or 0, u16
                        count, count x (u64 ino, u8 dtype, name) */
    GOF_STAT,        /* u64 node -> attributes */
    GOF_SETATTR,     /* u64 node, u32 GOF_SET_*, u32 mode, u32 uid, u32 gid, u64 size, 2 times
                        -> attributes */
    GOF_STATFS,      /* u64 node -> 10 x u64 */
    GOF_GETXATTR,    /* u64 node, name, u32 size -> u32 length, bytes when size is not 0 */
    GOF_SETXATTR,    /* u64 node, name, u32 XATTR_*, u32 length, bytes -> nothing */
    GOF_LISTXATTR,   /* u64 node, u32 size -> u32 length, bytes when size is not 0 */
    GOF_REMOVEXATTR, /* u64 node, name -> nothing */
    GOF_FSYNC,       /* u64 node, u8 data_only -> nothing */
    GOF_SYNCFS,      /* u64 node -> nothing: the whole file system it is on */
    GOF_TMPFILE, /* u64 dir, u32 mode, u32 uid, u32 gid -> node; descriptor (O_RDWR): a regular file
                    without a name */
    GOF_CLOSE,   /* nothing: for what rides along */
    GOF_WATCH,   /* u64 node, u8 on -> u32 wd: what others do to it is told, till it is closed */
    GOF_EVENTS,  /* nothing -> u8 some are lost, u16 count, events: as soon as there is one */
    GOF_CONNECT, /* u64 socket, u32 SOCK_x -> descriptor: connected to it, non-blocking */
    GOF_OPEN_FIFO, /* u64 FIFO, u32 O_RDONLY/O_WRONLY/O_RDWR -> descriptor: non-blocking */
    GOF_LOOK,      /* as GOF_WALK, but all names are of dir: stops before one that cannot be had */
    GOF_OP_END,
};

#define GOF_SET_MODE 0x01u
#define GOF_SET_UID 0x02u
#define GOF_SET_GID 0x04u
#define GOF_SET_SIZE 0x08u
#define GOF_SET_ATIME 0x10u
#define GOF_SET_MTIME 0x20u
#define GOF_SET_ATIME_NOW 0x40u
#define GOF_SET_MTIME_NOW 0x80u
#define GOF_SET_ALL 0xffu

struct gof_time {
    int64_t sec;
    uint32_t nsec;
};

struct gof_attr {
    uint64_t dev, ino, rdev, size, blocks;
    uint32_t blksize, mode, nlink, uid, gid;
    struct gof_time atime, mtime, ctime, btime;
};

struct gof_node {
    uint64_t handle;
    struct gof_attr attr;
};

struct gof_setattr {
    uint32_t valid, mode, uid, gid;
    uint64_t size;
    struct gof_time atime, mtime;
};

struct gof_statfs {
    uint64_t type, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen, frsize;
};

/* Something that others did to what is watched: inotify(7). */
struct gof_event {
    uint32_t wd, mask, cookie, nlink; /* mask: IN_* */
    uint64_t dev, ino;           /* of what IN_MODIFY, IN_ATTRIB and IN_CLOSE_WRITE are about */
    struct gof_time ctime;       /* when it was looked at; all 0: it is not there any more */
    struct gof_time btime;       /* tells it from who had the number before */
    char name[GOF_NAME_MAX + 1]; /* in the directory that is watched; empty: that itself */
};

/* Bytes of the largest event in a message. */
#define GOF_EVENT_SIZE (4u * 4 + 2u * 8 + 2u * 12 + 2 + GOF_NAME_MAX)

/* Bytes of a node in a message. */
#define GOF_NODE_SIZE (8u + 5u * 8u + 5u * 4u + 4u * 12u)

/* A single component that can name something inside a directory: not empty, at most GOF_NAME_MAX
 * bytes, no '/' and no NUL, neither "." nor "..". */
bool gof_name_ok(const char *name, size_t len);

void gof_put_text(struct wbuf *w, const char *text, size_t len);
void gof_put_attr(struct wbuf *w, const struct gof_attr *a);
void gof_put_node(struct wbuf *w, const struct gof_node *n);
void gof_put_setattr(struct wbuf *w, const struct gof_setattr *s);
void gof_put_statfs(struct wbuf *w, const struct gof_statfs *s);

void gof_put_event(struct wbuf *w, const struct gof_event *e);

/* Readers fail the rbuf on what is out of bounds. out has room for GOF_NAME_MAX + 1. */
void gof_get_name(struct rbuf *r, char *out);
/* At most max bytes without a NUL into out (room for max + 1), which is terminated: the length. */
size_t gof_get_text(struct rbuf *r, char *out, size_t max);
void gof_get_attr(struct rbuf *r, struct gof_attr *out);
void gof_get_node(struct rbuf *r, struct gof_node *out);
void gof_get_setattr(struct rbuf *r, struct gof_setattr *out);
void gof_get_statfs(struct rbuf *r, struct gof_statfs *out);
void gof_get_event(struct rbuf *r, struct gof_event *out);

/* Name of an op for logs, or "?". */
const char *gof_op_name(unsigned op);

#endif
