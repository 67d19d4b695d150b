/* Sockets: the object behind a descriptor, and what each family fills in.
 * Depends on: vfs, wait, mm (uio), cred.
 * Threading: any thread; each family locks its own objects (rank SOCKET).
 * Ownership: a sock is reference-counted; its file holds one reference. */
#ifndef RINGWALL_SENTRY_NET_SOCK_H
#define RINGWALL_SENTRY_NET_SOCK_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/compiler.h"
#include "base/ref.h"
#include "sentry/mm/uio.h"
#include "sentry/vfs/vfs.h"
#include "sentry/wait/wait.h"

struct net;
struct inet;
struct netns;
struct nl_table;
struct packet_table;
struct ext_stack;
struct host_net;
struct mappable;
struct memfile;
struct sock;
struct sock_prog;

/* A copied-in address. len counts what the guest gave, family included; 0: none. */
struct sock_addr {
    socklen_t len;
    union {
        sa_family_t family;
        struct sockaddr_un un;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_storage storage;
    };
};

struct sock_cred {
    int32_t pid;
    uint32_t uid, gid;
};

/* Ancillary data of one message: descriptors and credentials (unix(7)), and items that only their
 * family looks into. */
struct sock_control {
    struct file **files; /* owned array of owned references */
    size_t file_count;
    bool has_cred;
    bool wants_pidfd; /* receive: whoever cred says is told by a descriptor too */
    struct sock_cred cred;
    struct procref *process; /* owned; whom cred.pid meant; NULL: not kept */
    uint8_t *items;          /* owned: struct sock_item and its data, one after the other */
    size_t items_size, items_space;
};
struct sock_item {
    uint32_t size; /* of the data */
    int32_t level, type;
    uint32_t zero;
};
#define SOCK_ITEMS_MAX 131072u
#define SOCK_ITEM_SPACE(size) (sizeof(struct sock_item) + ALIGN_UP((size_t)(size), (size_t)8))
/* Adds an item. -ENOBUFS. */
MUST_CHECK int sock_control_put(struct sock_control *c, int level, int type, const void *data,
                                size_t size);
/* Walks the items; *pos starts at 0. Borrowed *out_data. */
bool sock_control_next(const struct sock_control *c, size_t *pos, struct sock_item *out_item,
                       const uint8_t **out_data);
/* Gives back what it holds; then it is empty. No lock held. */
void sock_control_fini(struct sock_control *c);

struct sock_msg {
    struct uio *u;
    int flags;                    /* MSG_* of the call */
    const struct sock_addr *to;   /* send: destination or NULL */
    struct sock_addr *from;       /* receive: filled in when not NULL */
    struct sock_control *control; /* send: taken on success; receive: filled in (owned) or NULL */
    int out_flags;                /* receive: MSG_TRUNC, MSG_EOR, ... */
};

/* Calls may sleep on c->blocker unless nonblock; an interrupted sleep gives -ERESTARTSYS. Locks:
 * none held on entry. */
struct sock_ops {
    MUST_CHECK int (*bind)(struct sock *s, const struct sock_addr *a, const struct vfs_caller *c);
    MUST_CHECK int (*listen)(struct sock *s, int backlog, const struct vfs_caller *c);
    MUST_CHECK int (*connect)(struct sock *s, const struct sock_addr *a, bool nonblock,
                              const struct vfs_caller *c);
    /* Owned result. */
    MUST_CHECK int (*accept)(struct sock *s, bool nonblock, const struct vfs_caller *c,
                             struct sock **out_sock);
    MUST_CHECK int64_t (*send)(struct sock *s, struct sock_msg *m, bool nonblock,
                               const struct vfs_caller *c);
    MUST_CHECK int64_t (*recv)(struct sock *s, struct sock_msg *m, bool nonblock,
                               const struct vfs_caller *c);
    MUST_CHECK int (*shutdown)(struct sock *s, int how);
    MUST_CHECK int (*getname)(struct sock *s, bool peer, struct sock_addr *out);
    /* Options of the family, or what differs from sock_getsockopt. -ENOPROTOOPT. */
    MUST_CHECK int (*getsockopt)(struct sock *s, int level, int name, void *buf, socklen_t *len);
    MUST_CHECK int (*setsockopt)(struct sock *s, int level, int name, const void *buf,
                                 socklen_t len, const struct vfs_caller *c);
    /* Every option is asked of it, SOL_SOCKET's too, but for SO_RCVTIMEO and SO_SNDTIMEO. */
    bool own_options;
    /* SO_ERROR of its own, negative, told once. NULL: sock.error is all. */
    int (*take_error)(struct sock *s);
    /* An option was set. NULL: nothing to do. */
    void (*changed)(struct sock *s);
    /* What is not common to all (FIONREAD, TIOCOUTQ). NULL: -ENOTTY. */
    MUST_CHECK int64_t (*ioctl)(struct sock *s, unsigned cmd, uint64_t arg,
                                const struct uaccess *ua, const struct vfs_caller *c);
    /* Memory of the socket's that can be mapped. NULL: -ENODEV. */
    MUST_CHECK int (*mmap)(struct sock *s, struct mappable **out);
    uint32_t (*poll)(struct sock *s, struct waiter *w);
    /* SIOCINQ: bytes that a read would give now; SIOCOUTQ: bytes not yet taken by the other side.
     */
    MUST_CHECK int64_t (*readable)(struct sock *s);
    MUST_CHECK int64_t (*unsent)(struct sock *s);
    /* Before close, by a task that may wait on c->blocker: SO_LINGER. NULL: nothing to wait for. */
    void (*linger)(struct sock *s, const struct vfs_caller *c);
    /* The descriptor is gone: wake and detach the peer. */
    void (*close)(struct sock *s);
    /* Last reference gone. */
    void (*release)(struct sock *s);
};

struct sock {
    /* immutable */
    const struct sock_ops *ops;
    struct net *net; /* borrowed: outlives every socket */
    int family, type, protocol;
    struct ref ref;
    struct cred_domain *domain; /* owned; of who made it, or NULL. Immutable once it has a file */
    struct file *file; /* weak; set once by sock_file, before anybody knows the descriptor */
    /* options, each atomic */
    _Atomic uint32_t sndbuf, rcvbuf, rcvlowat, priority, mark;
    _Atomic uint64_t sndtimeo_ns, rcvtimeo_ns; /* 0: none */
    _Atomic uint64_t flags;                    /* bit SO_x: those that are on or off */
    _Atomic uint64_t pacing_rate;
    _Atomic int32_t peek_off; /* SO_PEEK_OFF; -1: off */
    _Atomic uint32_t stamping, incoming_cpu, busy_poll;
    _Atomic uint8_t buf_lock;           /* SO_BUF_LOCK: which buffers have a size of their own */
    uint64_t cookie;                    /* immutable */
    _Atomic uint64_t linger;            /* l_onoff in the upper half, seconds below */
    _Atomic int error;                  /* SO_ERROR, negative errno, fetched once */
    _Atomic(struct sock_prog *) filter; /* owned, or NULL; filter.h */
};

/* One per network namespace of the sandbox. mf, borrowed, gives memory that guests map (rings of
 * packet sockets); NULL: there is none. Owned result. */
MUST_CHECK int net_new(struct memfile *mf, struct net **out_net);
struct net *net_get(struct net *n);
/* Before anybody else knows n: the user namespace whose rights count here. A reference is taken;
 * NULL, as at first: the sandbox's. */
void net_set_owner(struct net *n, struct user_ns *owner);
/* c may do what cap stands for to what belongs to n. */
bool net_capable(const struct net *n, const struct cred *c, int cap);
/* Sockets keep it. */
void net_put(struct net *n);
void net_free(struct net *n); /* as net_put; NULL: nothing */
struct inet *net_inet(struct net *n);
struct netns *net_ns(struct net *n);
struct nl_table *net_netlink(struct net *n);
struct packet_table *net_packet(struct net *n);
/* What carries traffic beyond loopback; NULL where there is none yet. */
struct ext_stack *net_ext(struct net *n);
/* What stands for the host's network with --network=host; else NULL. */
struct host_net *net_host(struct net *n);
/* Before anybody else knows n: its sockets are the host's from here on. fd, taken on success: the
 * connection to the broker (host/broker.h). */
MUST_CHECK int net_set_host(struct net *n, int fd);

/* socket(2) without the descriptor. type without SOCK_CLOEXEC and SOCK_NONBLOCK. Owned result. */
MUST_CHECK int sock_create(struct net *n, int family, int type, int protocol,
                           const struct vfs_caller *c, struct sock **out_sock);
/* socketpair(2). */
MUST_CHECK int sock_create_pair(struct net *n, int family, int type, int protocol,
                                const struct vfs_caller *c, struct sock *out_pair[2]);
/* Wraps s (takes the reference on success) in a file. flags: O_NONBLOCK. */
MUST_CHECK int sock_file(struct sock *s, uint32_t flags, struct file **out_file);
/* The socket of a file (borrowed), or -ENOTSOCK. */
MUST_CHECK int sock_from_file(struct file *f, struct sock **out_sock);
void sock_get(struct sock *s);
void sock_put(struct sock *s);
/* Whether -EPIPE of a write to f comes with SIGPIPE: everything but sockets that send packets. */
bool sock_file_raises(struct file *f);

#define LX_SO_PASSPIDFD 76
#define LX_SO_PEERPIDFD 77
/* The process at the other end of an AF_UNIX socket, as SO_PEERCRED means it. Owned result.
 * -ENODATA: nobody has connected. */
MUST_CHECK int sock_peer_process(struct sock *s, struct procref **out_ref);
/* Supplementary groups of the peer of an AF_UNIX socket, as they were when it connected: how many,
 * the first max of them in out. -ENODATA: nobody has; -ENOPROTOOPT: another family. */
MUST_CHECK int64_t unix_peer_groups(struct sock *s, uint32_t *out, size_t max);

/* ---- looking at AF_UNIX sockets ---- */
struct unix_info {
    int type;
    uint32_t refs;
    bool listening, connected, abstract;
    uint64_t inode, peer_inode, cookie; /* peer_inode 0: none */
    unsigned shutdown;
    uint32_t rqueue, wqueue; /* bytes; listening: connections that wait, and the backlog */
    const char *name;        /* borrowed for the call; an abstract one begins after its NUL, as @ */
    size_t name_size;
};
typedef int (*unix_info_fn)(void *arg, const struct unix_info *i);
/* Calls fn for each, without a lock, till it returns non-zero. -ENOMEM. */
int unix_for_each(struct net *n, unix_info_fn fn, void *arg);

/* ---- for families ---- */
void sock_init(struct sock *s, const struct sock_ops *ops, struct net *n, int family, int type,
               int protocol);
bool sock_option(const struct sock *s, int name);
/* Of what a family does not do: -EOPNOTSUPP. */
MUST_CHECK int sock_no_listen(struct sock *s, int backlog, const struct vfs_caller *c);
MUST_CHECK int sock_no_connect(struct sock *s, const struct sock_addr *a, bool nonblock,
                               const struct vfs_caller *c);
MUST_CHECK int sock_no_accept(struct sock *s, bool nonblock, const struct vfs_caller *c,
                              struct sock **out_sock);
MUST_CHECK int sock_no_shutdown(struct sock *s, int how);
/* Deadline for a wait that starts now under SO_SNDTIMEO or SO_RCVTIMEO. */
deadline_t sock_deadline(uint64_t timeo_ns);
/* What a wait gave as the call must return it; a wait with a timeout is not restarted. */
int sock_wait_error(int err, uint64_t timeo_ns);
/* Ancillary data about the time a message came, as SO_TIMESTAMP and its like ask for. */
void sock_stamp(struct sock *s, uint64_t realtime_ns, struct sock_control *ctl);
/* SO_RXQ_OVFL, with a packet that was queued when so many had been dropped. */
void sock_say_dropped(struct sock *s, uint32_t dropped, struct sock_control *ctl);
/* As sock_stamp, of this moment, where packets carry none. */
void sock_stamp_now(struct sock *s, struct sock_control *ctl);
/* For getsockopt: puts a value into the guest's space, cut to its length. */
int sock_put_option(void *buf, socklen_t *len, const void *value, size_t size);

/* SOL_SOCKET options shared by the families, then the family's own. len is in and out; buf holds
 * SOCK_OPTION_MAX bytes at least. */
#define SOCK_OPTION_MAX 256u
MUST_CHECK int sock_getsockopt(struct sock *s, int level, int name, void *buf, socklen_t *len);
MUST_CHECK int sock_setsockopt(struct sock *s, int level, int name, const void *buf, socklen_t len,
                               const struct vfs_caller *c);

#endif
