/* Requests about one file: open, stat, setattr, statfs, extended attributes, fsync, close. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "gofer/server_priv.h"

int srv_open(struct req *q)
{
    uint64_t id = rbuf_u64(&q->r);
    uint32_t flags = rbuf_u32(&q->r);

    if (!rbuf_done(&q->r) || (flags != O_RDONLY && flags != O_RDWR))
        return SRV_MALFORMED;
    struct handle *h = handle_get(&q->s->handles, id);
    if (!h)
        return -EBADF;
    int fd;
    /* Never a directory (it would open paths), never what blocks or acts when it is opened. */
    if (h->type != S_IFREG)
        fd = -EINVAL;
    else if (flags == O_RDWR && h->readonly)
        fd = -EROFS;
    else
        fd = host_reopen(q->s, h->fd, (int)flags);
    handle_put(&q->s->handles, h);
    if (fd < 0)
        return fd;
    q->fd = fd;
    return 0;
}

int srv_stat(struct req *q)
{
    uint64_t id = rbuf_u64(&q->r);
    struct gof_attr a;

    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    struct handle *h = handle_get(&q->s->handles, id);
    if (!h)
        return -EBADF;
    int r = host_stat(h->fd, &a);
    handle_put(&q->s->handles, h);
    if (r == 0)
        gof_put_attr(&q->w, &a);
    return r;
}

static int set_size(struct req *q, const struct handle *h, uint64_t size)
{
    if (h->type != S_IFREG)
        return h->type == S_IFDIR ? -EISDIR : -EINVAL;
    int fd = host_reopen(q->s, h->fd, O_WRONLY);
    if (fd < 0)
        return fd;
    int r = ftruncate(fd, (off_t)size) ? -errno : 0;
    close(fd);
    return r;
}

static struct timespec timespec_of(const struct gof_setattr *s, uint32_t given, uint32_t now,
                                   const struct gof_time *t)
{
    if (s->valid & now)
        return (struct timespec){.tv_nsec = UTIME_NOW};
    if (!(s->valid & given))
        return (struct timespec){.tv_nsec = UTIME_OMIT};
    return (struct timespec){.tv_sec = t->sec, .tv_nsec = (long)t->nsec};
}

static int set_times(const struct handle *h, const struct gof_setattr *s)
{
    const struct timespec ts[2] = {
        timespec_of(s, GOF_SET_ATIME, GOF_SET_ATIME_NOW, &s->atime),
        timespec_of(s, GOF_SET_MTIME, GOF_SET_MTIME_NOW, &s->mtime),
    };

    return utimensat(h->fd, "", ts, AT_EMPTY_PATH) ? -errno : 0;
}

static int set_owner(const struct gof_server *s, const struct handle *h,
                     const struct gof_setattr *a)
{
    uint32_t uid = a->valid & GOF_SET_UID ? a->uid : UINT32_MAX;
    uint32_t gid = a->valid & GOF_SET_GID ? a->gid : UINT32_MAX;

    if (s->one_id)
        return -EPERM;
    return fchownat(h->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

/* What is likeliest to fail first; the mode after the owner, since chown clears setuid bits. */
static int set_all(struct req *q, const struct handle *h, const struct gof_setattr *s)
{
    int r = 0;

    if (s->valid & GOF_SET_SIZE)
        r = set_size(q, h, s->size);
    if (r == 0 && (s->valid & (GOF_SET_UID | GOF_SET_GID)))
        r = set_owner(q->s, h, s);
    if (r == 0 && (s->valid & GOF_SET_MODE))
        r = h->type == S_IFLNK ? -EOPNOTSUPP : host_chmod(q->s, h->fd, s->mode);
    if (r == 0 &&
        (s->valid & (GOF_SET_ATIME | GOF_SET_ATIME_NOW | GOF_SET_MTIME | GOF_SET_MTIME_NOW)))
        r = set_times(h, s);
    return r;
}

int srv_setattr(struct req *q)
{
    uint64_t id = rbuf_u64(&q->r);
    struct gof_setattr s;
    struct gof_attr a;

    gof_get_setattr(&q->r, &s);
    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    struct handle *h = handle_get(&q->s->handles, id);
    if (!h)
        return -EBADF;
    int r = h->readonly ? -EROFS : set_all(q, h, &s);
    if (r == 0)
        r = host_stat(h->fd, &a);
    handle_put(&q->s->handles, h);
    if (r == 0)
        gof_put_attr(&q->w, &a);
    return r;
}

int srv_statfs(struct req *q)
{
    uint64_t id = rbuf_u64(&q->r);
    struct statfs st;

    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    struct handle *h = handle_get(&q->s->handles, id);
    if (!h)
        return -EBADF;
    int r = fstatfs(h->fd, &st) ? -errno : 0;
    handle_put(&q->s->handles, h);
    if (r)
        return r;
    uint64_t fsid;
    memcpy(&fsid, &st.f_fsid, sizeof(fsid));
    const struct gof_statfs out = {
        .type = (uint64_t)st.f_type,
        .bsize = (uint64_t)st.f_bsize,
        .blocks = st.f_blocks,
        .bfree = st.f_bfree,
        .bavail = st.f_bavail,
        .files = st.f_files,
        .ffree = st.f_ffree,
        .fsid = fsid,
        .namelen = (uint64_t)st.f_namelen,
        .frsize = (uint64_t)st.f_frsize,
    };
    gof_put_statfs(&q->w, &out);
    return 0;
}

/* Attributes that mean something to the guest alone, and those that mean the same to the host and
 * to the sentry: file capabilities and access control lists. */
static bool xattr_allowed(const char *name)
{
    return (strncmp(name, "user.", 5) == 0 && name[5]) ||
           strcmp(name, "security.capability") == 0 ||
           strcmp(name, "system.posix_acl_access") == 0 ||
           strcmp(name, "system.posix_acl_default") == 0;
}

/* A descriptor for the calls on attributes, which do not take O_PATH ones. Only regular files and
 * directories have attributes of the names allowed, and only they are safe to open. */
static int xattr_open(struct req *q, uint64_t id, bool write, int err_other)
{
    struct handle *h = handle_get(&q->s->handles, id);
    int fd;

    if (!h)
        return -EBADF;
    if (write && h->readonly)
        fd = -EROFS;
    else if (h->type != S_IFREG && h->type != S_IFDIR)
        fd = err_other;
    else
        fd = host_reopen(q->s, h->fd, O_RDONLY | O_NONBLOCK);
    handle_put(&q->s->handles, h);
    return fd;
}

int srv_getxattr(struct req *q)
{
    char name[GOF_NAME_MAX + 1];
    uint64_t id = rbuf_u64(&q->r);

    gof_get_text(&q->r, name, GOF_NAME_MAX);
    uint32_t size = rbuf_u32(&q->r);
    if (!rbuf_done(&q->r) || size > LIMIT_XATTR_SIZE)
        return SRV_MALFORMED;
    if (!xattr_allowed(name))
        return -EOPNOTSUPP;
    int fd = xattr_open(q, id, false, -ENODATA);
    if (fd < 0)
        return fd;
    ssize_t n = fgetxattr(fd, name, q->conn->scratch, size);
    int r = n < 0 ? -errno : 0;
    close(fd);
    if (r)
        return r;
    wbuf_u32(&q->w, (uint32_t)n);
    if (size)
        wbuf_bytes(&q->w, q->conn->scratch, (size_t)n);
    return 0;
}

int srv_setxattr(struct req *q)
{
    char name[GOF_NAME_MAX + 1];
    uint64_t id = rbuf_u64(&q->r);

    gof_get_text(&q->r, name, GOF_NAME_MAX);
    uint32_t flags = rbuf_u32(&q->r);
    uint32_t size = rbuf_u32(&q->r);
    const void *val = rbuf_take(&q->r, size);
    if (!rbuf_done(&q->r) || !val || size > LIMIT_XATTR_SIZE)
        return SRV_MALFORMED;
    if (flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    if (!xattr_allowed(name))
        return -EOPNOTSUPP;
    int fd = xattr_open(q, id, true, -EPERM);
    if (fd < 0)
        return fd;
    int r = fsetxattr(fd, name, val, size, (int)flags) ? -errno : 0;
    close(fd);
    return r;
}

/* Keeps the names that can be asked for: bytes left. */
static size_t filter_names(char *list, size_t size)
{
    size_t kept = 0;

    for (size_t off = 0; off < size;) {
        size_t len = strnlen(list + off, size - off) + 1;
        if (len > size - off)
            break;
        if (xattr_allowed(list + off)) {
            memmove(list + kept, list + off, len);
            kept += len;
        }
        off += len;
    }
    return kept;
}

int srv_listxattr(struct req *q)
{
    uint64_t id = rbuf_u64(&q->r);
    uint32_t size = rbuf_u32(&q->r);
    char *list = (char *)q->conn->scratch;

    if (!rbuf_done(&q->r) || size > LIMIT_XATTR_SIZE)
        return SRV_MALFORMED;
    int fd = xattr_open(q, id, false, -ENODATA);
    if (fd < 0 && fd != -ENODATA)
        return fd;
    ssize_t n = 0;
    int r = 0;
    if (fd >= 0) {
        n = flistxattr(fd, list, LIMIT_XATTR_SIZE);
        r = n < 0 ? -errno : 0;
        close(fd);
    }
    if (r)
        return r;
    size_t kept = filter_names(list, (size_t)n);
    if (size && kept > size)
        return -ERANGE;
    wbuf_u32(&q->w, (uint32_t)kept);
    if (size)
        wbuf_bytes(&q->w, list, kept);
    return 0;
}

int srv_removexattr(struct req *q)
{
    char name[GOF_NAME_MAX + 1];
    uint64_t id = rbuf_u64(&q->r);

    gof_get_text(&q->r, name, GOF_NAME_MAX);
    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    if (!xattr_allowed(name))
        return -EOPNOTSUPP;
    int fd = xattr_open(q, id, true, -EPERM);
    if (fd < 0)
        return fd;
    int r = fremovexattr(fd, name) ? -errno : 0;
    close(fd);
    return r;
}

int srv_fsync(struct req *q)
{
    uint64_t id = rbuf_u64(&q->r);
    bool data_only = rbuf_u8(&q->r) != 0;

    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    int fd = xattr_open(q, id, false, -EINVAL);
    if (fd < 0)
        return fd;
    int r = (data_only ? fdatasync(fd) : fsync(fd)) ? -errno : 0;
    close(fd);
    return r;
}

int srv_syncfs(struct req *q)
{
    uint64_t id = rbuf_u64(&q->r);

    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    int fd = xattr_open(q, id, false, -EINVAL);
    if (fd < 0)
        return fd;
    int r = syncfs(fd) ? -errno : 0;
    close(fd);
    return r;
}

/* The handles rode along in the frame. */
int srv_close(struct req *q)
{
    return rbuf_done(&q->r) ? 0 : SRV_MALFORMED;
}

int srv_connect(struct req *q)
{
    uint64_t id = rbuf_u64(&q->r);
    uint32_t type = rbuf_u32(&q->r);

    if (!rbuf_done(&q->r) || (type != SOCK_STREAM && type != SOCK_DGRAM && type != SOCK_SEQPACKET))
        return SRV_MALFORMED;
    struct handle *h = handle_get(&q->s->handles, id);
    if (!h)
        return -EBADF;
    int fd = -ECONNREFUSED;
    if (q->s->host_uds && h->type == S_IFSOCK)
        fd = host_connect(q->s, h->fd, (int)type);
    handle_put(&q->s->handles, h);
    if (fd < 0)
        return fd;
    q->fd = fd;
    return 0;
}

int srv_open_fifo(struct req *q)
{
    uint64_t id = rbuf_u64(&q->r);
    uint32_t access = rbuf_u32(&q->r);

    if (!rbuf_done(&q->r) || (access != O_RDONLY && access != O_WRONLY && access != O_RDWR))
        return SRV_MALFORMED;
    struct handle *h = handle_get(&q->s->handles, id);
    if (!h)
        return -EBADF;
    int fd = -EOPNOTSUPP;
    if (q->s->host_fifo && h->type == S_IFIFO)
        fd = host_reopen(q->s, h->fd, (int)access | O_NONBLOCK);
    handle_put(&q->s->handles, h);
    if (fd < 0)
        return fd;
    q->fd = fd;
    return 0;
}
