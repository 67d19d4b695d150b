/* Files as Linux has them: super, inode, dentry, mount, file; the ops tables a file system fills
 * in, and the calls that the system calls are made of. Depends on: base, cred, wait, mm (uio,
 * mappable). Threading: objects are reference-counted and used from any thread; each op says what
 * is locked. Ownership: borrows unless said; "owned result" means the caller puts it. */
#ifndef RINGWALL_SENTRY_VFS_VFS_H
#define RINGWALL_SENTRY_VFS_VFS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/ref.h"
#include "sentry/cred/cred.h"
#include "sentry/mm/mappable.h"
#include "sentry/mm/uio.h"
#include "sentry/wait/wait.h"

#define VFS_NAME_MAX 255
#define VFS_PATH_MAX 4096
#define VFS_SYMLINK_MAX 40

struct inode;
struct dentry;
struct file;
struct mount;
struct mount_ns;
struct super;
struct notify_mark;
struct lease;
struct dnotify;
/* A file's watch for O_ASYNC and F_SETOWN, embedded by who sends the signals. */
struct fasync {
    /* The file is going: its wait queue is still there. */
    void (*end)(struct fasync *fa);
};

/* A place in the tree; both references owned or borrowed together. */
struct vpath {
    struct mount *mnt;
    struct dentry *dentry;
};

/* On whose behalf a call is made. Built by the kernel for the calling task; borrowed for the call.
 */
struct vfs_caller {
    struct cred *cred;
    struct blocker *blocker; /* what to sleep on; NULL: never sleep (-EAGAIN) */
    struct vpath root, cwd;  /* borrowed; root bounds ".." */
    struct mount_ns *ns;
    uint32_t umask;
    uint64_t fsize_limit;    /* RLIMIT_FSIZE, UINT64_MAX: none */
    int32_t pid, tgid;       /* for locks' owners and F_GETLK, /proc/self */
    struct procref *process; /* borrowed; NULL: none of the guest's */
    uint32_t *seen_users;    /* private to who filled this in */
};

struct vfs_time {
    int64_t sec;
    uint32_t nsec;
};

/* What stat and statx show. */
struct vfs_attr {
    uint64_t ino, size, blocks; /* blocks of 512 */
    uint64_t dev, rdev;         /* as makedev of glibc */
    uint32_t mode, nlink, uid, gid, blksize;
    struct vfs_time atime, mtime, ctime, btime;
    uint64_t mount_id;
    bool mount_root; /* is the root of a mount */
};

/* Which fields of a vfs_setattr are given. */
#define VFS_SET_MODE 0x01u
#define VFS_SET_UID 0x02u
#define VFS_SET_GID 0x04u
#define VFS_SET_SIZE 0x08u
#define VFS_SET_ATIME 0x10u
#define VFS_SET_MTIME 0x20u
#define VFS_SET_ATIME_NOW 0x40u
#define VFS_SET_MTIME_NOW 0x80u
struct vfs_setattr {
    uint32_t valid;
    uint32_t mode, uid, gid;
    uint64_t size;
    struct vfs_time atime, mtime;
};

struct vfs_statfs {
    uint64_t type, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen, frsize, flags;
};

/* One directory entry, handed to readdir's sink. Returns 0 to go on, 1 when full (the entry was not
 * taken), negative errno to stop. */
typedef int (*vfs_dirent_fn)(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype,
                             uint64_t next_off);

/* An entry as getdents64(2) gives it. */
struct vfs_dirent64 {
    uint64_t ino;
    int64_t off;
    uint16_t reclen; /* a multiple of 8, filled up with zeros */
    uint8_t type;
    char name[];
} __attribute__((packed));

/* name has len bytes. Returns reclen; to has room for it. */
size_t vfs_dirent64_fill(struct vfs_dirent64 *to, const char *name, size_t len, uint64_t ino,
                         unsigned dtype, uint64_t next_off);

static inline size_t vfs_dirent64_size(size_t len)
{
    return ALIGN_UP(offsetof(struct vfs_dirent64, name) + len + 1, (size_t)8);
}

/* ---- file systems ---- */

struct fs_ops {
    const char *name;
    /* -EINVAL for an option ("mode=755") that mount would not take. NULL: mount says so. */
    int (*check_option)(const char *option);
    /* Makes a super with its root inode from mount options ("mode=755,size=1m"). Owned result. */
    MUST_CHECK int (*mount)(const struct fs_ops *fs, void *boot_arg, const char *source,
                            const char *options, const struct vfs_caller *c,
                            struct super **out_super);
};

struct super_ops {
    MUST_CHECK int (*statfs)(struct super *sb, struct vfs_statfs *out);
    /* NULL: nothing to do. */
    int (*sync)(struct super *sb);
    /* The last mount has gone; the root goes next. NULL: nothing to do. */
    void (*shutdown)(struct super *sb);
    /* Last reference gone. */
    void (*destroy)(struct super *sb);
    /* mount(2) MS_REMOUNT with options text, "" for none; read-only is vfs's. NULL: none are taken.
     */
    MUST_CHECK int (*reconfigure)(struct super *sb, const char *options);
    /* For /proc/mounts: fs-specific options text. NULL: none. */
    void (*show_options)(struct super *sb, char *buf, size_t size);
    /* A cached dentry, found as name in directory dir, is asked before use when set (shared trees,
     * proc): 1 valid, 0 look up anew. d may be negative; its own name and parent are not to be
     * read, as a rename may change them meanwhile. */
    int (*revalidate)(struct dentry *d, struct inode *dir, const char *name);
    /* Of a super without keeps_atime: the inode of another that keeps i's access time, or NULL. It
     * lives as long as i. NULL: the file system knows itself what was read. */
    struct inode *(*atime_inode)(struct inode *i);
};

struct super {
    const struct super_ops *ops;
    const struct fs_ops *fs;
    struct ref ref;
    uint64_t dev;        /* st_dev */
    struct dentry *root; /* owned */
    char source[256];
    bool keeps_atime;         /* immutable: its access times are vfs's to keep */
    _Atomic uint32_t flags;   /* MS_RDONLY, MS_SYNCHRONOUS, MS_DIRSYNC, MS_LAZYTIME */
    _Atomic uint32_t writers; /* files open for writing */
    _Atomic uint32_t active;  /* mounts; the last one takes root away */
};

/* Names given to ops are NUL-terminated single components, length checked, never "." or "..".
 * Directory ops (lookup to rename) run with the directory inode's dir_mu held (both, in address
 * order, for rename); they may block on the gofer. Permission was checked by vfs. */
struct inode_ops {
    /* Owned inode, or -ENOENT (cached as negative when the super allows). */
    MUST_CHECK int (*lookup)(struct inode *dir, const char *name, struct inode **out);
    /* Hint, given without dir_mu when the first name of path is not cached in dir, or is to be
     * revalidated: this is the text still to be walked ("usr/lib/x"), so that several look-ups may
     * cost one request. NULL: none. */
    void (*prefetch)(struct inode *dir, const char *path);
    /* mode carries S_IFMT: regular, directory, FIFO, socket, device. Owner is set from c's fsuid
     * and fsgid (or the setgid directory) by vfs_init_owner helpers. Owned result. */
    MUST_CHECK int (*create)(struct inode *dir, const char *name, uint32_t mode, uint64_t rdev,
                             const struct vfs_caller *c, struct inode **out);
    /* O_TMPFILE: a regular file without a name (nlink 0), which link may give it one. Without
     * dir_mu. NULL: -EOPNOTSUPP. Owned result. */
    MUST_CHECK int (*tmpfile)(struct inode *dir, uint32_t mode, const struct vfs_caller *c,
                              struct inode **out);
    MUST_CHECK int (*symlink)(struct inode *dir, const char *name, const char *target,
                              const struct vfs_caller *c, struct inode **out);
    MUST_CHECK int (*link)(struct inode *dir, const char *name, struct inode *target);
    /* Not for directories / only for empty directories. */
    MUST_CHECK int (*unlink)(struct inode *dir, const char *name, struct inode *victim);
    MUST_CHECK int (*rmdir)(struct inode *dir, const char *name, struct inode *victim);
    /* flags: RENAME_*; target is NULL when new_name does not exist. */
    MUST_CHECK int (*rename)(struct inode *old_dir, const char *old_name, struct inode *new_dir,
                             const char *new_name, struct inode *victim, struct inode *target,
                             unsigned flags);
    /* Symlink text, NUL-terminated into buf (size >= VFS_PATH_MAX): length or error. The caller
     * matters to proc's self only. */
    MUST_CHECK int64_t (*readlink)(struct inode *i, const struct vfs_caller *c, char *buf,
                                   size_t size);
    /* Magic links of proc: jumps to a place instead of text. NULL or -EOPNOTSUPP: use readlink.
     * Owned result. */
    MUST_CHECK int (*follow)(struct inode *i, const struct vfs_caller *c, struct vpath *out);
    /* Refreshes and returns attributes. NULL: those cached in the inode. */
    MUST_CHECK int (*getattr)(struct inode *i, struct vfs_attr *out);
    /* Permission was checked, values are final (size may grow or shrink). */
    MUST_CHECK int (*setattr)(struct inode *i, const struct vfs_setattr *a);
    /* Fills f->ops and private parts; f->inode and f->flags are set. O_TRUNC was done. */
    MUST_CHECK int (*open)(struct inode *i, struct file *f, const struct vfs_caller *c);
    /* size 0: ask the length. NULL: -EOPNOTSUPP. */
    MUST_CHECK int64_t (*getxattr)(struct inode *i, const char *name, void *buf, size_t size);
    MUST_CHECK int (*setxattr)(struct inode *i, const char *name, const void *buf, size_t size,
                               int flags);
    MUST_CHECK int64_t (*listxattr)(struct inode *i, char *buf, size_t size);
    MUST_CHECK int (*removexattr)(struct inode *i, const char *name);
    /* Somebody has a mark on i (notify.h): notify_foreign is to be called for what others do to it
     * without vfs, as long as notify_watched. Called for each mark; may block. NULL: nobody else
     * does anything. -ENOSPC, -EACCES, -ENOMEM. */
    MUST_CHECK int (*watch)(struct inode *i);
    /* connect(2) to the socket of the host that i stands for, nobody of the sandbox being bound to
     * it: *out_fd, non-blocking, of type SOCK_x. NULL: there is none. -ECONNREFUSED, -EPROTOTYPE;
     * -EAGAIN: no room among its connections. */
    MUST_CHECK int (*connect)(struct inode *i, int type, int *out_fd);
    /* As open, for a FIFO that may be somebody else's. NULL: they are the sandbox's (special.h). */
    MUST_CHECK int (*open_fifo)(struct inode *i, struct file *f, const struct vfs_caller *c);
    /* Last reference gone: free. */
    void (*release)(struct inode *i);
};

struct inode {
    /* immutable */
    const struct inode_ops *ops;
    struct super *sb; /* owned */
    uint64_t ino;
    uint64_t rdev;
    struct ref ref;
    struct mutex dir_mu;             /* rank INODE_DIR: changes of a directory's entries */
    struct mutex mu;                 /* rank INODE: guards what follows */
    _Atomic uint32_t mode, uid, gid; /* changed under mu; the type in mode never changes */
    _Atomic uint64_t size;           /* changed under mu */
    uint32_t nlink;
    uint64_t blocks;
    struct vfs_time atime, mtime, ctime, btime;
    struct list locks;                   /* POSIX and flock locks, sentry/vfs/lock.c */
    struct lease *_Atomic leases;        /* sentry/vfs/lease.h, or NULL */
    _Atomic int32_t writers;             /* >0: open for writing; <0: being executed (ETXTBSY) */
    _Atomic int32_t readers;             /* regular files: open for reading alone */
    _Atomic uint8_t write_hint;          /* F_SET_RW_HINT: kept and shown */
    _Atomic bool no_filecaps;            /* a hint: has no security.capability, filecap.h */
    _Atomic uint32_t acl_state;          /* sentry/vfs/acl.h */
    _Atomic bool linkable;               /* made by O_TMPFILE: may get a name though it has none */
    struct notify_mark *_Atomic watches; /* sentry/vfs/notify.h, or NULL */
    void *sock;                          /* bound AF_UNIX socket, or NULL; owned by net */
    void *fifo;                          /* struct pipe of a FIFO, or NULL */
};

#define DENTRY_NAME_INLINE 24

struct dentry {
    struct ref ref;
    uint32_t name_len;        /* guard as parent's */
    struct super *sb;         /* borrowed from the mount or inode */
    struct inode *inode;      /* owned; NULL: negative. Immutable */
    struct dentry *parent;    /* owned; self for a root. Changes under the tree lock, vfs_priv.h */
    char *name;               /* inline_name, or owned; as parent */
    struct dentry *hash_next; /* guarded by the chain's lock, as hash_link */
    struct dentry **hash_link;
    struct list lru;          /* guarded by the lock of the LRU */
    _Atomic uint32_t bucket;  /* the chain, changed under its lock; UINT32_MAX: not in the cache */
    _Atomic uint32_t mounted; /* count of mounts on top in any namespace */
    _Atomic bool used;        /* looked up since the cache last thought of dropping it */
    _Atomic bool unlinked;
    char inline_name[DENTRY_NAME_INLINE];
};

/* ---- open files ---- */

/* pos is the file's own offset (locked by vfs when it is used) or that of pread. All may block on
 * c->blocker unless O_NONBLOCK. An interrupted wait returns -ERESTARTSYS. */
struct file_ops {
    /* Positions are addresses: negative ones as well. */
    bool addresses;
    /* Bytes, 0 at end, or error; what *pos and u->left say ends at INT64_MAX. NULL: -EINVAL. */
    MUST_CHECK int64_t (*read)(struct file *f, struct uio *u, int64_t *pos,
                               const struct vfs_caller *c);
    MUST_CHECK int64_t (*write)(struct file *f, struct uio *u, int64_t *pos,
                                const struct vfs_caller *c);
    /* NULL: -ESPIPE (and pread/pwrite too). Called with the position lock held. */
    MUST_CHECK int64_t (*seek)(struct file *f, int64_t off, int whence);
    /* From *pos on; updates *pos. "." and ".." included. */
    MUST_CHECK int (*readdir)(struct file *f, int64_t *pos, vfs_dirent_fn fn, void *arg);
    /* As many struct vfs_dirent64 from *pos on as are at hand and fit; updates *pos. Bytes; 0: ask
     * readdir. NULL: always 0. */
    size_t (*dirents)(struct file *f, int64_t *pos, void *buf, size_t size);
    /* NULL: -ENOTTY. */
    MUST_CHECK int64_t (*ioctl)(struct file *f, unsigned cmd, uint64_t arg,
                                const struct uaccess *ua, const struct vfs_caller *c);
    /* EPOLL* bits now; when w is given it is also queued on the object's wait queue(s), and stays
     * there till waitq_del. NULL: always readable and writable. */
    uint32_t (*poll)(struct file *f, struct waiter *w);
    /* Owned reference (through mappable get), NULL for memory that is nobody's (/dev/zero), or
     * -ENODEV. */
    MUST_CHECK int (*mmap)(struct file *f, int prot, int flags, struct mappable **out);
    MUST_CHECK int (*fsync)(struct file *f, bool data_only);
    MUST_CHECK int (*fallocate)(struct file *f, int mode, int64_t off, int64_t size);
    /* How many of the pages first to last are in memory. NULL: none. */
    uint64_t (*cached)(struct file *f, uint64_t first, uint64_t last);
    /* A file descriptor to it was closed by a task (flush): not the last reference. NULL: nothing
     */
    int (*flush)(struct file *f, const struct vfs_caller *c);
    /* A task has closed its descriptor, the last reference: before release, may wait on c->blocker
     * for what is under way. NULL: nothing. */
    void (*linger)(struct file *f, const struct vfs_caller *c);
    /* Last reference gone. NULL: nothing. */
    void (*release)(struct file *f);
    /* Text for /proc/<pid>/fdinfo beyond pos and flags. NULL: none. */
    void (*show_fdinfo)(struct file *f, char *buf, size_t size);
};

struct file {
    const struct file_ops *ops;
    struct ref ref;
    struct inode *inode;             /* owned; never NULL */
    struct vpath path;               /* owned */
    _Atomic uint32_t flags;          /* O_ACCMODE, O_APPEND, O_NONBLOCK, O_DIRECT, O_PATH ... */
    struct mutex pos_mu;             /* rank FILE_POS */
    int64_t pos;                     /* guarded by pos_mu */
    void *priv;                      /* of ops' owner, through its own named down-cast */
    int owner;                       /* F_SETOWN pid (negative: group) */
    int owner_sig;                   /* F_SETSIG */
    bool counted_writer;             /* immutable: one of inode->writers */
    bool counted_reader;             /* immutable: one of inode->readers */
    uint32_t denied;                 /* immutable: rights of landlock.h that its opener had not */
    _Atomic(struct fasync *) async;  /* owned; set once, or NULL */
    struct dnotify *_Atomic dnotify; /* sentry/kernel/dnotify.h, or NULL */
    struct list epolls;              /* epoll items watching this file; guarded by epoll's lock */
};

/* Files without a place in the tree (pipes, eventfd, sockets): an inode on an internal super.
 * name as readlink of /proc/self/fd shows it ("pipe:", "anon_inode:[eventfd]"); a trailing ':' is
 * completed with [ino]. Owned result; on failure priv stays the caller's. */
MUST_CHECK int vfs_anon_file(const char *name, uint32_t mode, const struct file_ops *ops,
                             void *priv, uint32_t flags, struct file **out_file);
/* The same around an inode of some file system's (memfd): takes a reference of its own on i. */
MUST_CHECK int vfs_anon_inode_file(const char *text, struct inode *i, const struct file_ops *ops,
                                   uint32_t flags, struct file **out_file);
/* An inode on that super for a file that can be opened again by way of /proc/PID/fd: ops->open is
 * called for it. -ENOMEM. */
MUST_CHECK int vfs_anon_inode_init(struct inode *i, const struct inode_ops *ops, uint32_t mode);
/* inode_ops.setattr of such inodes. */
MUST_CHECK int vfs_anon_setattr(struct inode *i, const struct vfs_setattr *a);
struct file *file_get(struct file *f);
void file_put(struct file *f);
/* The same for a descriptor that a task closes: the last one may linger. c NULL, or without a
 * blocker: as file_put. No lock held. */
void file_put_closed(struct file *f, const struct vfs_caller *c);

/* Reads and writes with all of Linux's checks (access mode, position lock, limits, times). off -1:
 * the file's own position. flags: RWF_*. */
MUST_CHECK int64_t vfs_read(struct file *f, struct uio *u, int64_t off, int flags,
                            const struct vfs_caller *c);
MUST_CHECK int64_t vfs_write(struct file *f, struct uio *u, int64_t off, int flags,
                             const struct vfs_caller *c);
/* Bytes went from in to out (either may be NULL) without these: times, and who watches, follow. */
void vfs_moved(const struct file *in, const struct file *out);
MUST_CHECK int64_t vfs_seek(struct file *f, int64_t off, int whence);
/* For file_ops.seek of what lets itself be positioned without any effect (noop_llseek of Linux). */
MUST_CHECK int64_t vfs_seek_noop(struct file *f, int64_t off, int whence);
/* ... of what has no end to count from: SEEK_SET and SEEK_CUR. */
MUST_CHECK int64_t vfs_seek_endless(struct file *f, int64_t off, int whence);
/* pread and its like make sense. */
bool file_has_position(const struct file *f);
/* cachestat(2): pages first to last of f that are in memory; -EPERM for who could not write it. */
MUST_CHECK int vfs_cached(struct file *f, uint64_t first, uint64_t last, const struct vfs_caller *c,
                          uint64_t *out_pages);
MUST_CHECK int vfs_readdir(struct file *f, vfs_dirent_fn fn, void *arg);
/* A short way to the same entries, for large directories: bytes, or 0 where there is none now. */
size_t vfs_dirents(struct file *f, void *buf, size_t size);
MUST_CHECK int64_t vfs_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                             const struct vfs_caller *c);
uint32_t vfs_poll(struct file *f, struct waiter *w);
/* Checks modes against prot/flags as mmap(2) does; *out_max_prot for later mprotect. *out NULL: map
 * as if MAP_ANONYMOUS had been given. */
MUST_CHECK int vfs_mmap(struct file *f, int prot, int flags, int *out_max_prot,
                        struct mappable **out);
MUST_CHECK int vfs_fsync(struct file *f, bool data_only);
MUST_CHECK int vfs_fallocate(struct file *f, int mode, int64_t off, int64_t size,
                             const struct vfs_caller *c);
MUST_CHECK int vfs_ftruncate(struct file *f, int64_t size, const struct vfs_caller *c);
/* Reads sentry-side (exec, loader): exactly as pread. */
MUST_CHECK int64_t vfs_pread_kernel(struct file *f, void *buf, size_t size, int64_t off);

/* ---- paths ---- */

/* Look-up flags. */
#define VFS_FOLLOW 0x01u     /* follow a symlink in the last component */
#define VFS_DIRECTORY 0x02u  /* must be a directory */
#define VFS_EMPTY_PATH 0x04u /* "" names the base itself */
#define VFS_NO_XDEV 0x08u    /* openat2 RESOLVE_* */
#define VFS_NO_MAGICLINKS 0x10u
#define VFS_NO_SYMLINKS 0x20u
#define VFS_BENEATH 0x40u
#define VFS_IN_ROOT 0x80u
#define VFS_CACHED 0x100u  /* -EAGAIN rather than asking the file system */
#define VFS_GETATTR 0x200u /* of what is found; then vfs_walk_end */

/* Of the path walk that the calling thread is in; no other walk has it, before or after, in any
 * thread. For what holds while one path is walked and no longer. */
uint64_t vfs_walk_id(void);
/* With VFS_GETATTR, a walk lasts till this: attributes that it came by are asked for only once. */
void vfs_walk_end(void);
/* base NULL: cwd. Path strings are NUL-terminated, at most VFS_PATH_MAX. Owned *out. */
MUST_CHECK int vfs_lookup(const struct vfs_caller *c, const struct vpath *base, const char *path,
                          unsigned flags, struct vpath *out);
/* open(2) without the descriptor; resolve: VFS_* look-up restrictions. Owned result. */
MUST_CHECK int vfs_open(const struct vfs_caller *c, const struct vpath *base, const char *path,
                        uint32_t flags, uint32_t mode, unsigned resolve, struct file **out_file);
/* Opens what is already looked up (O_CREAT not allowed). Owned result. */
MUST_CHECK int vfs_open_path(const struct vfs_caller *c, const struct vpath *p, uint32_t flags,
                             struct file **out_file);
MUST_CHECK int vfs_mkdir(const struct vfs_caller *c, const struct vpath *base, const char *path,
                         uint32_t mode);
/* mode with S_IFMT; umask is applied. */
MUST_CHECK int vfs_mknod(const struct vfs_caller *c, const struct vpath *base, const char *path,
                         uint32_t mode, uint64_t rdev);
/* As mknod, and gives the new inode's path: for bind(2) of AF_UNIX. Owned *out. */
MUST_CHECK int vfs_mksock(const struct vfs_caller *c, const char *path, uint32_t mode,
                          struct vpath *out);
MUST_CHECK int vfs_symlink(const struct vfs_caller *c, const char *target, const struct vpath *base,
                           const char *path);
MUST_CHECK int vfs_link(const struct vfs_caller *c, const struct vpath *old_base, const char *old,
                        const struct vpath *new_base, const char *path, unsigned lookup_flags);
MUST_CHECK int vfs_unlink(const struct vfs_caller *c, const struct vpath *base, const char *path);
MUST_CHECK int vfs_rmdir(const struct vfs_caller *c, const struct vpath *base, const char *path);
MUST_CHECK int vfs_rename(const struct vfs_caller *c, const struct vpath *old_base, const char *old,
                          const struct vpath *new_base, const char *path, unsigned flags);
MUST_CHECK int64_t vfs_readlink(const struct vfs_caller *c, const struct vpath *p, char *buf,
                                size_t size);
MUST_CHECK int vfs_getattr(const struct vpath *p, struct vfs_attr *out);
MUST_CHECK int vfs_file_getattr(struct file *f, struct vfs_attr *out);
/* Permission checks of chmod(2), chown(2), utimensat(2), truncate(2), then the change. */
MUST_CHECK int vfs_setattr(const struct vfs_caller *c, const struct vpath *p,
                           const struct vfs_setattr *a);
MUST_CHECK int vfs_statfs(const struct vpath *p, struct vfs_statfs *out);
/* access(2)-like: mask of 4 read, 2 write, 1 execute/search with c->cred's fs ids. */
MUST_CHECK int vfs_permission(const struct vfs_caller *c, struct inode *i, unsigned mask);
MUST_CHECK int64_t vfs_getxattr(const struct vfs_caller *c, const struct vpath *p, const char *name,
                                void *buf, size_t size);
MUST_CHECK int vfs_setxattr(const struct vfs_caller *c, const struct vpath *p, const char *name,
                            const void *buf, size_t size, int flags);
MUST_CHECK int64_t vfs_listxattr(const struct vfs_caller *c, const struct vpath *p, char *buf,
                                 size_t size);
MUST_CHECK int vfs_removexattr(const struct vfs_caller *c, const struct vpath *p, const char *name);
/* What the file gives to a program run by c: 1, 0 when there is nothing, or an error that execve
 * shall have. The mount is not looked at. */
MUST_CHECK int vfs_file_caps(const struct vfs_caller *c, struct inode *i,
                             struct cred_file_caps *out);
/* Somebody else may have changed i's access control lists. */
void vfs_acl_forget(struct inode *i);
/* Text of a place as seen from root ("(unreachable)/x", " (deleted)"): length with NUL, or
 * -ENAMETOOLONG. */
MUST_CHECK int64_t vfs_path_text(const struct vpath *root, const struct vpath *p, char *buf,
                                 size_t size);

void vpath_get(const struct vpath *p);
void vpath_put(struct vpath *p);
/* p, which the caller holds, is kept for the next call only (on), or is used or put again: a mount
 * that is held no otherwise is not busy. */
void vpath_idle(const struct vpath *p, bool on);
struct inode *inode_get(struct inode *i);
void inode_put(struct inode *i);
struct dentry *dentry_get(struct dentry *d);
void dentry_put(struct dentry *d);
struct super *super_get(struct super *sb);
void super_put(struct super *sb);
/* Its root stays as if it were mounted somewhere, till super_unhold, which puts it as well. */
void super_hold(struct super *sb);
void super_unhold(struct super *sb);
/* super_put of one that nobody has mounted or will: its root goes too. */
void super_end(struct super *sb);

/* At most so many names are remembered (never more than LIMIT_DENTRY_CACHE). */
void vfs_limit_cache(unsigned max);
/* Forgets about count names, the oldest first, for who needs what their inodes hold. */
void vfs_shrink_cache(unsigned count);
/* Forgets names that nobody uses at the moment, and their inodes. */
void vfs_drop_caches(void);

/* For file systems: a bare inode (nlink 1, times now), and the super around a root inode. */
MUST_CHECK int inode_init(struct inode *i, const struct inode_ops *ops, struct super *sb,
                          uint64_t ino, uint32_t mode);
void inode_fini(struct inode *i);
void super_init(struct super *sb, const struct super_ops *ops, const struct fs_ops *fs);
/* Takes root's reference. */
MUST_CHECK int super_set_root(struct super *sb, struct inode *root);
/* fsuid, fsgid or the directory's gid when it is setgid (which also adjusts *mode). */
void vfs_init_owner(const struct inode *dir, const struct vfs_caller *c, uint32_t *mode,
                    uint32_t *out_uid, uint32_t *out_gid);
struct vfs_time vfs_now(void);
/* Anonymous device number for a super. */
uint64_t vfs_new_dev(void);

/* ---- mounts ---- */

/* Flags of a mount, with the numbers of MS_*. One of NOATIME, RELATIME and neither: strictatime. */
#define VFS_MOUNT_FLAGS                                                                            \
    ((uint32_t)(MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | VFS_MS_NOSYMFOLLOW | MS_NOATIME |   \
                MS_NODIRATIME | MS_RELATIME))
#define VFS_MS_NOSYMFOLLOW 256u

MUST_CHECK int mount_ns_new(struct super *root_sb, struct mount_ns **out_ns);
/* CLONE_NEWNS: the same tree. root and cwd, owned places, become the copies'. lesser: for another
 * user namespace, which may not undo what is mounted over nor what it makes stricter; shared mounts
 * become followers. On failure both are as they were. Owned result. */
MUST_CHECK int mount_ns_copy(struct mount_ns *old, bool lesser, struct vpath *root,
                             struct vpath *cwd, struct mount_ns **out_ns);
struct mount_ns *mount_ns_get(struct mount_ns *ns);
void mount_ns_put(struct mount_ns *ns);
/* Never used twice. */
uint64_t mount_ns_id(const struct mount_ns *ns);
/* Owned. */
void mount_ns_root(struct mount_ns *ns, struct vpath *out);
/* What mount(2)'s flags say about the mount: VFS_MOUNT_FLAGS, relatime by default. */
uint32_t vfs_mount_flags_of(uint64_t ms_flags);
/* Mounts sb (takes its reference on success) on p. flags: MS_*. -EINVAL, -ENOTDIR, -ENOSPC,
 * -ENOENT. */
MUST_CHECK int vfs_mount(struct mount_ns *ns, const struct vpath *p, struct super *sb,
                         uint32_t flags);
MUST_CHECK int vfs_bind(struct mount_ns *ns, const struct vpath *from, const struct vpath *to,
                        bool recursive);
/* MS_MOVE. beneath: under the mount that to is the root of, which covers it (MOVE_MOUNT_BENEATH).
 * root: the caller's, under which nothing goes. */
MUST_CHECK int vfs_move_mount(struct mount_ns *ns, const struct vpath *root,
                              const struct vpath *from, const struct vpath *to, bool beneath);
/* type: one of MS_SHARED MS_SLAVE MS_PRIVATE MS_UNBINDABLE. */
MUST_CHECK int vfs_set_propagation(struct mount_ns *ns, const struct vpath *p, uint32_t type,
                                   bool recursive);
/* VFS_MOUNT_FLAGS as they are now. */
uint32_t vfs_mount_flags(const struct mount *m);
/* Gives the mount p is the root of flags (VFS_MOUNT_FLAGS); -EPERM for locked ones, -EBUSY. */
MUST_CHECK int vfs_remount(struct mount_ns *ns, const struct vpath *p, uint32_t flags);
/* Of the file system: read-only or not, and options. */
MUST_CHECK int vfs_remount_super(struct mount_ns *ns, const struct vpath *p, uint32_t flags,
                                 const char *options);
/* mount_setattr(2): clears, then sets flags; type as vfs_set_propagation or 0. All or nothing. */
MUST_CHECK int vfs_mount_setattr(struct mount_ns *ns, const struct vpath *p, uint32_t clear,
                                 uint32_t set, uint32_t type, bool recursive);
/* sync(2): every file system that is mounted. */
void mount_ns_sync(struct mount_ns *ns);
/* flags: MNT_*. root: the caller's. */
MUST_CHECK int vfs_umount(struct mount_ns *ns, const struct vpath *root, const struct vpath *p,
                          int flags);
/* The mounts change places; moving root and working directories is the caller's. */
MUST_CHECK int vfs_pivot_root(struct mount_ns *ns, const struct vpath *root,
                              const struct vpath *new_root, const struct vpath *put_old);

/* Trees that stand nowhere: an O_PATH file on the root, with whose last reference the tree goes.
 * from's mount (cloned), or sb (takes its reference on success). Owned results. */
MUST_CHECK int vfs_open_tree(struct mount_ns *ns, const struct vpath *from, bool recursive,
                             struct file **out);
MUST_CHECK int vfs_detached_mount(struct super *sb, uint32_t flags, struct file **out);

/* What statmount(2) tells. Texts of paths are made by the caller. */
struct vfs_mount_info {
    uint64_t id, parent_id, ns_id;
    uint32_t flags, group, master, from;
    bool unbindable;
    struct super *sb;   /* owned */
    struct vpath at;    /* root of the mount; owned */
    struct vpath point; /* where it stands; owned, empty for the root of a namespace */
};
/* -ENOENT: no such mount in ns. */
MUST_CHECK int vfs_mount_info(struct mount_ns *ns, uint64_t id, struct vfs_mount_info *out);
void vfs_mount_info_end(struct vfs_mount_info *i);
/* Ids of the mounts that are reached from top, skip's not: how many, rising. *out is heap. */
MUST_CHECK int64_t vfs_list_mounts(struct mount_ns *ns, const struct vpath *top, uint64_t skip,
                                   uint64_t **out);
/* MOVE_MOUNT_SET_GROUP: to, a private mount of the same file system, joins from's groups. */
MUST_CHECK int vfs_set_group(struct mount_ns *ns, const struct vpath *from, const struct vpath *to);
uint64_t vfs_mount_id(const struct mount *m);
/* What is added to make the id that is never used twice, as statx(2) and statmount(2) know it. */
#define VFS_MOUNT_ID_UNIQUE (UINT64_C(1) << 31)
/* Text of the root of a mount within its file system: length with NUL, or -ENAMETOOLONG. */
MUST_CHECK int64_t vfs_mount_root_text(const struct vfs_mount_info *i, char *buf, size_t size);
bool vfs_is_mount_root(const struct vpath *p);
/* Counts changes of ns; w (or NULL) is told of the next ones. For poll of /proc/<pid>/mounts. */
uint32_t mount_ns_changes(struct mount_ns *ns, struct waiter *w);
/* Lines of /proc/<pid>/mounts (style 0), mountinfo (1), mountstats (2): calls fn per mount visible
 * from root. */
typedef int (*mount_show_fn)(void *arg, const char *line);
MUST_CHECK int mount_ns_show(struct mount_ns *ns, const struct vpath *root, int style,
                             mount_show_fn fn, void *arg);

/* ---- locks: flock(2), fcntl(2) F_SETLK and F_OFD_SETLK ---- */
struct vfs_flock {
    int type; /* F_RDLCK F_WRLCK F_UNLCK */
    int64_t start, len;
    int32_t pid;
};
/* owner: the fd table for POSIX locks, the file for OFD locks. wait: F_SETLKW. */
MUST_CHECK int vfs_lock_set(struct file *f, const void *owner, const struct vfs_flock *l, bool wait,
                            const struct vfs_caller *c);
MUST_CHECK int vfs_lock_get(struct file *f, const void *owner, struct vfs_flock *l);
void vfs_lock_drop_owner(struct file *f, const void *owner);
MUST_CHECK int vfs_flock(struct file *f, int op, const struct vfs_caller *c);
/* One of all locks and leases that are held or waited for, as /proc/locks has them. */
struct vfs_lock_info {
    const char *kind; /* "POSIX ", "OFDLCK", "FLOCK ", "LEASE " */
    const char *how;  /* "ADVISORY ", "ACTIVE    ", "BREAKING  " */
    int type;         /* F_RDLCK F_WRLCK F_UNLCK */
    bool waits;       /* for the one before that does not */
    int32_t pid;      /* -1: an open file's */
    uint64_t dev, ino;
    int64_t start, end; /* inclusive; INT64_MAX: to the end of the file */
};
/* How many; *out is heap, NULL when there is none. -ENOMEM. */
MUST_CHECK int64_t vfs_locks(struct vfs_lock_info **out);

#endif
