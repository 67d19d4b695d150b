/* Requests about names: attach, walk, look, create, symlink, link, unlink, rename, getdents,
 * readlink. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "gofer/server_priv.h"

/* A handle for fd with its attributes. Takes fd, on failure too. type: S_IFMT bits it must have, or
 * 0. */
static int node_new(struct req *q, int fd, bool readonly, uint32_t type, struct gof_node *out)
{
    int r = host_stat(fd, &out->attr);
    uint32_t found = out->attr.mode & S_IFMT;

    /* Somebody on the host put another thing in the place of what we just made. */
    if (r == 0 && type && found != type)
        r = -EIO;
    if (r == 0)
        r = handle_new(&q->s->handles, fd, found, readonly, &out->handle);
    if (r)
        close(fd);
    return r;
}

int srv_attach(struct req *q)
{
    uint32_t id = rbuf_u32(&q->r);
    struct gof_node n;

    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    if (id >= q->s->export_count)
        return -ENOENT;
    const struct gof_server_export *e = &q->s->exports[id];
    int fd = host_reopen(q->s, e->fd, O_PATH);
    if (fd < 0)
        return fd;
    int r = node_new(q, fd, e->readonly, 0, &n);
    if (r)
        return r;
    wbuf_u8(&q->w, e->readonly);
    gof_put_node(&q->w, &n);
    return 0;
}

/* Handle id as a directory: 0 and *out, to be put, or -EBADF, -ENOTDIR. */
static int get_dir(struct req *q, uint64_t id, struct handle **out)
{
    struct handle *h = handle_get(&q->s->handles, id);

    if (!h)
        return -EBADF;
    if (h->type != S_IFDIR) {
        handle_put(&q->s->handles, h);
        return -ENOTDIR;
    }
    *out = h;
    return 0;
}

static int get_writable_dir(struct req *q, uint64_t id, struct handle **out)
{
    struct handle *h = NULL;
    int r = get_dir(q, id, &h);

    if (r)
        return r;
    if (h->readonly) {
        handle_put(&q->s->handles, h);
        return -EROFS;
    }
    *out = h;
    return 0;
}

/* Names are read twice: once to see that the request is well-formed, once to walk. */
static bool walk_names_ok(struct rbuf r, uint32_t count)
{
    char name[GOF_NAME_MAX + 1];

    for (uint32_t i = 0; i < count; i++)
        gof_get_name(&r, name);
    return count > 0 && count <= GOF_WALK_MAX && rbuf_done(&r);
}

/* Each name in the one before, or, when they are siblings, all in the first directory. */
static int walk(struct req *q, bool siblings)
{
    uint64_t dir = rbuf_u64(&q->r);
    uint32_t count = rbuf_u16(&q->r);
    char name[GOF_NAME_MAX + 1];
    struct handle *h;
    struct gof_node n;
    uint16_t done = 0;
    int why = 0;

    if (!walk_names_ok(q->r, count))
        return SRV_MALFORMED;
    int r = get_dir(q, dir, &h);
    if (r)
        return r;
    size_t head = q->w.len;
    wbuf_u16(&q->w, 0);
    wbuf_u32(&q->w, 0);
    while (done < count) {
        gof_get_name(&q->r, name);
        int fd = host_open_child(h->fd, name, 0);
        why = fd < 0 ? fd : node_new(q, fd, h->readonly, 0, &n);
        if (why)
            break;
        gof_put_node(&q->w, &n);
        done++;
        if (siblings)
            continue;
        if (!S_ISDIR(n.attr.mode))
            break;
        struct handle *next = handle_get(&q->s->handles, n.handle);
        /* Only a sentry that guesses ids can have closed it meanwhile. */
        if (!next)
            break;
        handle_put(&q->s->handles, h);
        h = next;
    }
    handle_put(&q->s->handles, h);
    wbuf_patch_u16(&q->w, head, done);
    wbuf_patch_u32(&q->w, head + 2, (uint32_t)why);
    return 0;
}

int srv_walk(struct req *q)
{
    return walk(q, false);
}

int srv_look(struct req *q)
{
    return walk(q, true);
}

/* What a creation was asked for. */
struct creation {
    char name[GOF_NAME_MAX + 1];
    uint32_t mode, uid, gid;
    uint64_t rdev;
    bool want_fd;
};

static int set_owner(const struct gof_server *s, int fd, uint32_t uid, uint32_t gid)
{
    if (s->one_id)
        return 0;
    return fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

/* The sentry says what a new file has: what the host let it inherit goes. */
static void drop_lists(struct req *q, int fd, uint32_t type)
{
    int own = type == S_IFDIR ? host_reopen(q->s, fd, O_RDONLY | O_DIRECTORY) : fd;

    if (own < 0)
        return;
    /* Mostly there is none, and some file systems have none at all. */
    (void)!fremovexattr(own, "system.posix_acl_access");
    if (type == S_IFDIR) {
        (void)!fremovexattr(own, "system.posix_acl_default");
        close(own);
    }
}

/* fd is a new regular file, which gets its owner and mode; it goes to the sentry, or is closed. */
static int finish_regular(struct req *q, int fd, const struct creation *c, struct gof_node *out)
{
    int r = 0;

    drop_lists(q, fd, S_IFREG);
    if (!q->s->one_id && fchown(fd, c->uid, c->gid))
        r = -errno;
    /* After the owner: chown clears the setuid bits. */
    if (r == 0 && fchmod(fd, c->mode & 07777))
        r = -errno;
    int path = r == 0 ? host_reopen(q->s, fd, O_PATH) : r;
    r = path < 0 ? path : node_new(q, path, false, S_IFREG, out);
    if (r == 0 && c->want_fd)
        q->fd = fd;
    else
        close(fd);
    return r;
}

static int create_regular(struct req *q, const struct handle *h, const struct creation *c,
                          struct gof_node *out)
{
    int fd = host_create_child(h->fd, c->name);
    if (fd < 0)
        return fd;
    int r = finish_regular(q, fd, c, out);
    if (r)
        (void)!unlinkat(h->fd, c->name, 0);
    return r;
}

static int make_node(const struct handle *h, const struct creation *c)
{
    uint32_t type = c->mode & S_IFMT;

    switch (type) {
    case S_IFDIR:
        return mkdirat(h->fd, c->name, 0700) ? -errno : 0;
    case S_IFIFO:
    case S_IFSOCK:
        return mknodat(h->fd, c->name, type | 0600, 0) ? -errno : 0;
    default:
        /* A device node of a guest would be a real one to everybody on the host. */
        return -EPERM;
    }
}

/* Opens what was just made under name, of which nobody else has a handle yet, and gives it its
 * owner and, unless it is a symlink, its mode. What stands there may be another's by now. */
static int adopt(struct req *q, const struct handle *h, const struct creation *c,
                 struct gof_node *out)
{
    uint32_t type = c->mode & S_IFMT;
    struct gof_attr a;
    int fd = host_open_child(h->fd, c->name, 0);

    if (fd < 0)
        return fd;
    int r = host_stat(fd, &a);
    if (r == 0 && (a.mode & S_IFMT) != type)
        r = -EIO;
    if (r == 0 && type == S_IFDIR)
        drop_lists(q, fd, type);
    if (r == 0)
        r = set_owner(q->s, fd, c->uid, c->gid);
    if (r == 0 && type != S_IFLNK)
        r = host_chmod(q->s, fd, c->mode);
    if (r) {
        close(fd);
        return r;
    }
    return node_new(q, fd, false, type, out);
}

static int create_other(struct req *q, const struct handle *h, const struct creation *c,
                        struct gof_node *out)
{
    int r = make_node(h, c);

    if (r)
        return r;
    r = adopt(q, h, c, out);
    if (r && r != -EIO)
        (void)!unlinkat(h->fd, c->name, S_ISDIR(c->mode) ? AT_REMOVEDIR : 0);
    return r;
}

/* Events of a new name in its directory, and of one that could not be finished. */
#define MADE (IN_CREATE | IN_ATTRIB | IN_MODIFY | IN_CLOSE_WRITE | IN_DELETE)

int srv_create(struct req *q)
{
    struct creation c;
    struct quiet quiet;
    struct handle *h;
    struct gof_node n;

    uint64_t dir = rbuf_u64(&q->r);
    gof_get_name(&q->r, c.name);
    c.mode = rbuf_u32(&q->r);
    c.uid = rbuf_u32(&q->r);
    c.gid = rbuf_u32(&q->r);
    c.rdev = rbuf_u64(&q->r);
    c.want_fd = rbuf_u8(&q->r) != 0;
    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    int r = get_writable_dir(q, dir, &h);
    if (r)
        return r;
    quiet_begin(q->s, &quiet);
    quiet_name(&quiet, h->fd, c.name, MADE);
    r = S_ISREG(c.mode) ? create_regular(q, h, &c, &n) : create_other(q, h, &c, &n);
    quiet_end(q->s, &quiet);
    handle_put(&q->s->handles, h);
    if (r == 0)
        gof_put_node(&q->w, &n);
    return r;
}

int srv_tmpfile(struct req *q)
{
    struct creation c = {.want_fd = true};
    struct handle *h;
    struct gof_node n;

    uint64_t dir = rbuf_u64(&q->r);
    c.mode = rbuf_u32(&q->r);
    c.uid = rbuf_u32(&q->r);
    c.gid = rbuf_u32(&q->r);
    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    int r = get_writable_dir(q, dir, &h);
    if (r)
        return r;
    int fd = host_tmpfile(h->fd);
    r = fd < 0 ? fd : finish_regular(q, fd, &c, &n);
    handle_put(&q->s->handles, h);
    if (r == 0)
        gof_put_node(&q->w, &n);
    return r;
}

int srv_symlink(struct req *q)
{
    struct creation c = {.mode = S_IFLNK | 0777};
    char *target = (char *)q->conn->scratch;
    struct quiet quiet;
    struct handle *h;
    struct gof_node n;

    uint64_t dir = rbuf_u64(&q->r);
    gof_get_name(&q->r, c.name);
    size_t len = gof_get_text(&q->r, target, GOF_LINK_MAX);
    c.uid = rbuf_u32(&q->r);
    c.gid = rbuf_u32(&q->r);
    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    if (len == 0)
        return -ENOENT;
    int r = get_writable_dir(q, dir, &h);
    if (r)
        return r;
    quiet_begin(q->s, &quiet);
    quiet_name(&quiet, h->fd, c.name, MADE);
    r = symlinkat(target, h->fd, c.name) ? -errno : 0;
    if (r == 0) {
        r = adopt(q, h, &c, &n);
        if (r && r != -EIO)
            (void)!unlinkat(h->fd, c.name, 0);
    }
    quiet_end(q->s, &quiet);
    handle_put(&q->s->handles, h);
    if (r == 0)
        gof_put_node(&q->w, &n);
    return r;
}

int srv_link(struct req *q)
{
    char name[GOF_NAME_MAX + 1];
    struct quiet quiet;
    struct handle *h;
    struct gof_attr a;

    uint64_t dir = rbuf_u64(&q->r);
    gof_get_name(&q->r, name);
    uint64_t target = rbuf_u64(&q->r);
    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    int r = get_writable_dir(q, dir, &h);
    if (r)
        return r;
    struct handle *t = handle_get(&q->s->handles, target);
    if (!t) {
        r = -EBADF;
        goto out_put;
    }
    /* A second name in a writable place must not make a read-only file writable. */
    quiet_begin(q->s, &quiet);
    quiet_name(&quiet, h->fd, name, IN_CREATE);
    quiet_self(&quiet, t->fd, IN_ATTRIB);
    r = t->readonly ? -EXDEV : host_link(q->s, t->fd, h->fd, name);
    quiet_end(q->s, &quiet);
    if (r == 0)
        r = host_stat(t->fd, &a);
    handle_put(&q->s->handles, t);
    if (r == 0)
        gof_put_attr(&q->w, &a);
out_put:
    handle_put(&q->s->handles, h);
    return r;
}

int srv_unlink(struct req *q)
{
    char name[GOF_NAME_MAX + 1];
    struct quiet quiet;
    struct handle *h;

    uint64_t dir = rbuf_u64(&q->r);
    gof_get_name(&q->r, name);
    int flags = rbuf_u8(&q->r) ? AT_REMOVEDIR : 0;
    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    int r = get_writable_dir(q, dir, &h);
    if (r)
        return r;
    quiet_begin(q->s, &quiet);
    quiet_name(&quiet, h->fd, name, IN_DELETE);
    quiet_child(&quiet, h->fd, name, IN_ATTRIB);
    r = unlinkat(h->fd, name, flags) ? -errno : 0;
    quiet_end(q->s, &quiet);
    handle_put(&q->s->handles, h);
    return r;
}

/* Of both names, which may change places. */
static void quiet_rename(struct quiet *quiet, int from, const char *name, int to,
                         const char *new_name)
{
    quiet_name(quiet, from, name, IN_MOVE);
    quiet_name(quiet, to, new_name, IN_MOVE);
    quiet_child(quiet, from, name, IN_MOVE_SELF);
    quiet_child(quiet, to, new_name, IN_MOVE_SELF | IN_ATTRIB);
}

int srv_rename(struct req *q)
{
    char name[GOF_NAME_MAX + 1], new_name[GOF_NAME_MAX + 1];
    struct handle *from, *to;
    struct quiet quiet;

    uint64_t dir = rbuf_u64(&q->r);
    gof_get_name(&q->r, name);
    uint64_t new_dir = rbuf_u64(&q->r);
    gof_get_name(&q->r, new_name);
    uint32_t flags = rbuf_u32(&q->r);
    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    /* RENAME_WHITEOUT makes a device. */
    if (flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    int r = get_writable_dir(q, dir, &from);
    if (r)
        return r;
    r = get_writable_dir(q, new_dir, &to);
    if (r == 0) {
        quiet_begin(q->s, &quiet);
        quiet_rename(&quiet, from->fd, name, to->fd, new_name);
        /* The raw call: glibc's makes another one when there are no flags. */
        r = syscall(SYS_renameat2, from->fd, name, to->fd, new_name, flags) ? -errno : 0;
        quiet_end(q->s, &quiet);
        handle_put(&q->s->handles, to);
    }
    handle_put(&q->s->handles, from);
    return r;
}

int srv_readlink(struct req *q)
{
    uint64_t id = rbuf_u64(&q->r);
    char *text = (char *)q->conn->scratch;

    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    struct handle *h = handle_get(&q->s->handles, id);
    if (!h)
        return -EBADF;
    ssize_t n = -1;
    int r = -EINVAL;
    if (h->type == S_IFLNK) {
        n = readlinkat(h->fd, "", text, GOF_LINK_MAX + 1);
        r = n < 0 ? -errno : 0;
    }
    handle_put(&q->s->handles, h);
    if (r == 0 && (n == 0 || n > GOF_LINK_MAX))
        r = -ENAMETOOLONG;
    if (r == 0)
        gof_put_text(&q->w, text, (size_t)n);
    return r;
}

/* The kernel's record: getdents64(2). */
struct linux_dirent {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    uint8_t type;
    char name[];
};

#define GETDENTS_SIZE 32768u

/* Entries of one host call into the answer: how many bytes the host gave. */
static int64_t list_some(struct req *q, int fd, uint16_t *count, uint64_t *parent)
{
    uint8_t *buf = q->conn->scratch;
    long n = syscall(SYS_getdents64, fd, buf, GETDENTS_SIZE);

    if (n < 0)
        return -errno;
    for (long off = 0; off < n;) {
        struct linux_dirent d;
        memcpy(&d, buf + off, offsetof(struct linux_dirent, name));
        const char *name = (const char *)buf + off + offsetof(struct linux_dirent, name);
        size_t len = strnlen(name, d.reclen - offsetof(struct linux_dirent, name));
        off += d.reclen;
        if (len == 2 && name[0] == '.' && name[1] == '.')
            *parent = d.ino;
        /* What cannot be asked for by its name is not there (and dots are the sentry's own). */
        if (!gof_name_ok(name, len))
            continue;
        wbuf_u64(&q->w, d.ino);
        wbuf_u8(&q->w, d.type);
        gof_put_text(&q->w, name, len);
        (*count)++;
    }
    return n;
}

int srv_getdents(struct req *q)
{
    struct handle *h;
    uint64_t parent = 0;
    uint16_t count = 0;
    int64_t n = 0;

    uint64_t id = rbuf_u64(&q->r);
    bool restart = rbuf_u8(&q->r) != 0;
    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    int r = get_dir(q, id, &h);
    if (r)
        return r;
    int fd = handle_take_list(&q->s->handles, h);
    if (restart && fd >= 0) {
        close(fd);
        fd = -1;
    }
    if (restart)
        fd = host_reopen(q->s, h->fd, O_RDONLY | O_DIRECTORY);
    r = fd >= 0 ? 0 : restart ? fd : -EINVAL;
    if (r)
        goto out_put;
    size_t head = q->w.len;
    wbuf_u8(&q->w, 0);
    wbuf_u64(&q->w, 0);
    wbuf_u16(&q->w, 0);
    /* An entry is smaller here than in the kernel's record. */
    do
        n = list_some(q, fd, &count, &parent);
    while (n > 0 && wbuf_left(&q->w) >= GETDENTS_SIZE);
    if (n > 0) {
        handle_keep_list(&q->s->handles, h, fd);
    } else {
        close(fd);
        q->w.data[head] = 1;
        r = (int)n;
    }
    wbuf_patch_u32(&q->w, head + 1, (uint32_t)parent);
    wbuf_patch_u32(&q->w, head + 5, (uint32_t)(parent >> 32));
    wbuf_patch_u16(&q->w, head + 9, count);
out_put:
    handle_put(&q->s->handles, h);
    return r;
}
