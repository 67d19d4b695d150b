/* One function per request. What the gofer answers is believed only after it was checked. */
#include "gofer/proto/client.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gofer/proto/client_priv.h"

static void put_name(struct gof_call *call, const char *name)
{
    gof_put_text(&call->w, name, strlen(name));
}

int gof_attach(struct gof_client *c, uint32_t export_id, bool *out_readonly, struct gof_node *out)
{
    struct gof_call call;
    struct gof_node n;
    bool readonly = false;

    gof_call_begin(c, GOF_ATTACH, &call);
    wbuf_u32(&call.w, export_id);
    int r = gof_call_send(&call);
    if (r == 0) {
        readonly = rbuf_u8(&call.r) != 0;
        gof_get_node(&call.r, &n);
    }
    r = gof_call_end(&call, r);
    if (r)
        return r;
    *out_readonly = readonly;
    *out = n;
    return 0;
}

static bool look_ok(size_t done, size_t count, int why)
{
    return done <= count && why <= 0 && why >= -4095 && !(done == count && why);
}

/* Whether what a walk of count names gave makes sense: only the last node may be no directory, and
 * a short walk has a reason. */
static bool walk_ok(const struct gof_node *nodes, size_t done, size_t count, int why)
{
    if (!look_ok(done, count, why))
        return false;
    for (size_t i = 0; i + 1 < done; i++)
        if (!S_ISDIR(nodes[i].attr.mode))
            return false;
    if (done == count || why)
        return true;
    return done > 0 && !S_ISDIR(nodes[done - 1].attr.mode);
}

static int walk(struct gof_client *c, enum gof_op op, uint64_t dir, const char *const *names,
                size_t count, struct gof_node *out, size_t *out_done, int *out_why)
{
    struct gof_call call;
    size_t done = 0;
    int why = 0;

    if (count == 0 || count > GOF_WALK_MAX)
        return -EINVAL;
    gof_call_begin(c, op, &call);
    wbuf_u64(&call.w, dir);
    wbuf_u16(&call.w, (uint16_t)count);
    for (size_t i = 0; i < count; i++)
        put_name(&call, names[i]);
    int r = gof_call_send(&call);
    if (r == 0) {
        done = rbuf_u16(&call.r);
        why = (int32_t)rbuf_u32(&call.r);
        for (size_t i = 0; i < done && i < count; i++)
            gof_get_node(&call.r, &out[i]);
        const bool ok = op == GOF_WALK ? walk_ok(out, done, count, why)
                                       : look_ok(done, count, why) && (done == count || why);
        if (!rbuf_ok(&call.r) || !ok)
            call.r.failed = true;
    }
    r = gof_call_end(&call, r);
    if (r)
        return r;
    *out_done = done;
    *out_why = why;
    return 0;
}

int gof_walk(struct gof_client *c, uint64_t dir, const char *const *names, size_t count,
             struct gof_node *out, size_t *out_done, int *out_why)
{
    return walk(c, GOF_WALK, dir, names, count, out, out_done, out_why);
}

int gof_look(struct gof_client *c, uint64_t dir, const char *const *names, size_t count,
             struct gof_node *out, size_t *out_done, int *out_why)
{
    return walk(c, GOF_LOOK, dir, names, count, out, out_done, out_why);
}

/* The descriptor of an answer, if it is what was asked for: a regular file, open this way. Anything
 * else could be made to block the sentry or to reach beyond the file. */
static int take_fd(struct gof_call *call, int accmode)
{
    struct stat st;
    int fd = gof_call_fd(call);

    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        int flags = fcntl(fd, F_GETFL);
        if (flags >= 0 && (flags & O_ACCMODE) == accmode && !(flags & (O_PATH | O_APPEND))) {
            call->fd = -1;
            return fd;
        }
    }
    call->r.failed = true;
    return -1;
}

/* gof_call_end for a call that brings fd, or -1, which only a success keeps. */
static int call_end_fd(struct gof_call *call, int r, int fd)
{
    r = gof_call_end(call, r);
    if (r && fd >= 0)
        close(fd);
    return r;
}

/* As take_fd for a FIFO, which must not block us. */
static int take_fifo(struct gof_call *call, int access)
{
    struct stat st;
    int fd = gof_call_fd(call);
    int flags = fd >= 0 ? fcntl(fd, F_GETFL) : -1;

    if (flags < 0 || fstat(fd, &st) || !S_ISFIFO(st.st_mode) || (flags & O_ACCMODE) != access ||
        (flags & (O_NONBLOCK | O_PATH)) != O_NONBLOCK) {
        call->r.failed = true;
        return -1;
    }
    call->fd = -1;
    return fd;
}

/* As take_fd for a socket, of whatever type. */
static int take_socket(struct gof_call *call, int type)
{
    struct stat st;
    int fd = gof_call_fd(call);

    (void)type;
    if (fd < 0 || fstat(fd, &st) || !S_ISSOCK(st.st_mode)) {
        call->r.failed = true;
        return -1;
    }
    call->fd = -1;
    return fd;
}

/* A request of a node and a number that is answered by a descriptor, which take checks. */
static int call_for_fd(struct gof_client *c, enum gof_op op, uint64_t node, int number,
                       int (*take)(struct gof_call *call, int number), int *out_fd)
{
    struct gof_call call;
    int fd = -1;

    gof_call_begin(c, op, &call);
    wbuf_u64(&call.w, node);
    wbuf_u32(&call.w, (uint32_t)number);
    int r = gof_call_send(&call);
    if (r == 0)
        fd = take(&call, number);
    r = call_end_fd(&call, r, fd);
    if (r)
        return r;
    *out_fd = fd;
    return 0;
}

int gof_open(struct gof_client *c, uint64_t file, bool write, int *out_fd)
{
    return call_for_fd(c, GOF_OPEN, file, write ? O_RDWR : O_RDONLY, take_fd, out_fd);
}

int gof_open_fifo(struct gof_client *c, uint64_t fifo, int access, int *out_fd)
{
    return call_for_fd(c, GOF_OPEN_FIFO, fifo, access, take_fifo, out_fd);
}

int gof_connect(struct gof_client *c, uint64_t node, int type, int *out_fd)
{
    return call_for_fd(c, GOF_CONNECT, node, type, take_socket, out_fd);
}

int gof_create(struct gof_client *c, uint64_t dir, const char *name, uint32_t mode, uint64_t rdev,
               uint32_t uid, uint32_t gid, struct gof_node *out, int *out_fd)
{
    struct gof_call call;
    struct gof_node n;
    int fd = -1;
    bool want = out_fd && S_ISREG(mode);

    gof_call_begin(c, GOF_CREATE, &call);
    wbuf_u64(&call.w, dir);
    put_name(&call, name);
    wbuf_u32(&call.w, mode);
    wbuf_u32(&call.w, uid);
    wbuf_u32(&call.w, gid);
    wbuf_u64(&call.w, rdev);
    wbuf_u8(&call.w, want);
    int r = gof_call_send(&call);
    if (r == 0) {
        gof_get_node(&call.r, &n);
        if ((n.attr.mode & S_IFMT) != (mode & S_IFMT))
            call.r.failed = true;
        if (want)
            fd = take_fd(&call, O_RDWR);
    }
    r = call_end_fd(&call, r, fd);
    if (r)
        return r;
    *out = n;
    if (out_fd)
        *out_fd = fd;
    return 0;
}

int gof_tmpfile(struct gof_client *c, uint64_t dir, uint32_t mode, uint32_t uid, uint32_t gid,
                struct gof_node *out, int *out_fd)
{
    struct gof_call call;
    struct gof_node n;
    int fd = -1;

    gof_call_begin(c, GOF_TMPFILE, &call);
    wbuf_u64(&call.w, dir);
    wbuf_u32(&call.w, mode);
    wbuf_u32(&call.w, uid);
    wbuf_u32(&call.w, gid);
    int r = gof_call_send(&call);
    if (r == 0) {
        gof_get_node(&call.r, &n);
        if (!S_ISREG(n.attr.mode))
            call.r.failed = true;
        fd = take_fd(&call, O_RDWR);
    }
    r = call_end_fd(&call, r, fd);
    if (r)
        return r;
    *out = n;
    *out_fd = fd;
    return 0;
}

int gof_symlink(struct gof_client *c, uint64_t dir, const char *name, const char *target,
                uint32_t uid, uint32_t gid, struct gof_node *out)
{
    struct gof_call call;
    struct gof_node n;

    gof_call_begin(c, GOF_SYMLINK, &call);
    wbuf_u64(&call.w, dir);
    put_name(&call, name);
    put_name(&call, target);
    wbuf_u32(&call.w, uid);
    wbuf_u32(&call.w, gid);
    int r = gof_call_send(&call);
    if (r == 0) {
        gof_get_node(&call.r, &n);
        if (!S_ISLNK(n.attr.mode))
            call.r.failed = true;
    }
    r = gof_call_end(&call, r);
    if (r == 0)
        *out = n;
    return r;
}

/* Sends, reads attributes and ends the call. */
static int finish_attr(struct gof_call *call, struct gof_attr *out)
{
    struct gof_attr a;
    int r = gof_call_send(call);

    if (r == 0)
        gof_get_attr(&call->r, &a);
    r = gof_call_end(call, r);
    if (r == 0)
        *out = a;
    return r;
}

static int finish_plain(struct gof_call *call)
{
    int r = gof_call_send(call);

    return gof_call_end(call, r);
}

int gof_link(struct gof_client *c, uint64_t dir, const char *name, uint64_t target,
             struct gof_attr *out)
{
    struct gof_call call;

    gof_call_begin(c, GOF_LINK, &call);
    wbuf_u64(&call.w, dir);
    put_name(&call, name);
    wbuf_u64(&call.w, target);
    return finish_attr(&call, out);
}

int gof_unlink(struct gof_client *c, uint64_t dir, const char *name, bool directory)
{
    struct gof_call call;

    gof_call_begin(c, GOF_UNLINK, &call);
    wbuf_u64(&call.w, dir);
    put_name(&call, name);
    wbuf_u8(&call.w, directory);
    return finish_plain(&call);
}

int gof_rename(struct gof_client *c, uint64_t dir, const char *name, uint64_t new_dir,
               const char *new_name, uint32_t flags)
{
    struct gof_call call;

    gof_call_begin(c, GOF_RENAME, &call);
    wbuf_u64(&call.w, dir);
    put_name(&call, name);
    wbuf_u64(&call.w, new_dir);
    put_name(&call, new_name);
    wbuf_u32(&call.w, flags);
    return finish_plain(&call);
}

int64_t gof_readlink(struct gof_client *c, uint64_t link, char *buf, size_t size)
{
    struct gof_call call;
    size_t len = 0;

    if (size == 0)
        return -ENAMETOOLONG;
    gof_call_begin(c, GOF_READLINK, &call);
    wbuf_u64(&call.w, link);
    int r = gof_call_send(&call);
    if (r == 0) {
        len = gof_get_text(&call.r, buf, MIN(size - 1, (size_t)GOF_LINK_MAX));
        if (len == 0)
            call.r.failed = true;
    }
    r = gof_call_end(&call, r);
    return r ? r : (int64_t)len;
}

int gof_stat(struct gof_client *c, uint64_t node, struct gof_attr *out)
{
    struct gof_call call;

    gof_call_begin(c, GOF_STAT, &call);
    wbuf_u64(&call.w, node);
    return finish_attr(&call, out);
}

int gof_set_attr(struct gof_client *c, uint64_t node, const struct gof_setattr *s,
                 struct gof_attr *out)
{
    struct gof_call call;

    gof_call_begin(c, GOF_SETATTR, &call);
    wbuf_u64(&call.w, node);
    gof_put_setattr(&call.w, s);
    return finish_attr(&call, out);
}

int gof_statfs(struct gof_client *c, uint64_t node, struct gof_statfs *out)
{
    struct gof_call call;
    struct gof_statfs s;

    gof_call_begin(c, GOF_STATFS, &call);
    wbuf_u64(&call.w, node);
    int r = gof_call_send(&call);
    if (r == 0)
        gof_get_statfs(&call.r, &s);
    r = gof_call_end(&call, r);
    if (r == 0)
        *out = s;
    return r;
}

int gof_fsync(struct gof_client *c, uint64_t node, bool data_only)
{
    struct gof_call call;

    gof_call_begin(c, GOF_FSYNC, &call);
    wbuf_u64(&call.w, node);
    wbuf_u8(&call.w, data_only);
    return finish_plain(&call);
}

int gof_syncfs(struct gof_client *c, uint64_t node)
{
    struct gof_call call;

    gof_call_begin(c, GOF_SYNCFS, &call);
    wbuf_u64(&call.w, node);
    return finish_plain(&call);
}
