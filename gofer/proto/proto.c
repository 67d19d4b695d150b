#include "gofer/proto/proto.h"

#include <string.h>
#include <sys/stat.h>

bool gof_name_ok(const char *name, size_t len)
{
    if (len == 0 || len > GOF_NAME_MAX || memchr(name, '/', len) || memchr(name, '\0', len))
        return false;
    if (name[0] != '.')
        return true;
    return !(len == 1 || (len == 2 && name[1] == '.'));
}

static bool mode_ok(uint32_t mode)
{
    if (mode & ~(uint32_t)(S_IFMT | 07777))
        return false;
    switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
        return true;
    default:
        return false;
    }
}

void gof_put_text(struct wbuf *w, const char *text, size_t len)
{
    if (len > UINT16_MAX) {
        w->failed = true;
        return;
    }
    wbuf_u16(w, (uint16_t)len);
    wbuf_bytes(w, text, len);
}

static void put_time(struct wbuf *w, const struct gof_time *t)
{
    wbuf_u64(w, (uint64_t)t->sec);
    wbuf_u32(w, t->nsec);
}

void gof_put_attr(struct wbuf *w, const struct gof_attr *a)
{
    wbuf_u64(w, a->dev);
    wbuf_u64(w, a->ino);
    wbuf_u64(w, a->rdev);
    wbuf_u64(w, a->size);
    wbuf_u64(w, a->blocks);
    wbuf_u32(w, a->blksize);
    wbuf_u32(w, a->mode);
    wbuf_u32(w, a->nlink);
    wbuf_u32(w, a->uid);
    wbuf_u32(w, a->gid);
    put_time(w, &a->atime);
    put_time(w, &a->mtime);
    put_time(w, &a->ctime);
    put_time(w, &a->btime);
}

void gof_put_node(struct wbuf *w, const struct gof_node *n)
{
    wbuf_u64(w, n->handle);
    gof_put_attr(w, &n->attr);
}

void gof_put_setattr(struct wbuf *w, const struct gof_setattr *s)
{
    wbuf_u32(w, s->valid);
    wbuf_u32(w, s->mode);
    wbuf_u32(w, s->uid);
    wbuf_u32(w, s->gid);
    wbuf_u64(w, s->size);
    put_time(w, &s->atime);
    put_time(w, &s->mtime);
}

void gof_put_statfs(struct wbuf *w, const struct gof_statfs *s)
{
    const uint64_t v[] = {s->type,  s->bsize, s->blocks, s->bfree,   s->bavail,
                          s->files, s->ffree, s->fsid,   s->namelen, s->frsize};

    for (size_t i = 0; i < ARRAY_SIZE(v); i++)
        wbuf_u64(w, v[i]);
}

void gof_put_event(struct wbuf *w, const struct gof_event *e)
{
    wbuf_u32(w, e->wd);
    wbuf_u32(w, e->mask);
    wbuf_u32(w, e->cookie);
    wbuf_u32(w, e->nlink);
    wbuf_u64(w, e->dev);
    wbuf_u64(w, e->ino);
    put_time(w, &e->ctime);
    put_time(w, &e->btime);
    gof_put_text(w, e->name, strlen(e->name));
}

size_t gof_get_text(struct rbuf *r, char *out, size_t max)
{
    size_t len = rbuf_u16(r);
    const void *p = len <= max ? rbuf_take(r, len) : NULL;

    out[0] = '\0';
    if (!p || memchr(p, '\0', len)) {
        r->failed = true;
        return 0;
    }
    memcpy(out, p, len);
    out[len] = '\0';
    return len;
}

void gof_get_name(struct rbuf *r, char *out)
{
    size_t len = gof_get_text(r, out, GOF_NAME_MAX);

    if (!gof_name_ok(out, len))
        r->failed = true;
}

static void get_time(struct rbuf *r, struct gof_time *t)
{
    t->sec = (int64_t)rbuf_u64(r);
    t->nsec = rbuf_u32(r);
    if (t->nsec >= 1000000000u)
        r->failed = true;
}

void gof_get_attr(struct rbuf *r, struct gof_attr *out)
{
    out->dev = rbuf_u64(r);
    out->ino = rbuf_u64(r);
    out->rdev = rbuf_u64(r);
    out->size = rbuf_u64(r);
    out->blocks = rbuf_u64(r);
    out->blksize = rbuf_u32(r);
    out->mode = rbuf_u32(r);
    out->nlink = rbuf_u32(r);
    out->uid = rbuf_u32(r);
    out->gid = rbuf_u32(r);
    get_time(r, &out->atime);
    get_time(r, &out->mtime);
    get_time(r, &out->ctime);
    get_time(r, &out->btime);
    /* Sizes are signed for everybody who computes with them. */
    if (out->size > INT64_MAX || out->blocks > INT64_MAX / 512 || !mode_ok(out->mode))
        r->failed = true;
}

void gof_get_node(struct rbuf *r, struct gof_node *out)
{
    out->handle = rbuf_u64(r);
    gof_get_attr(r, &out->attr);
    if (out->handle == 0)
        r->failed = true;
}

void gof_get_setattr(struct rbuf *r, struct gof_setattr *out)
{
    out->valid = rbuf_u32(r);
    out->mode = rbuf_u32(r);
    out->uid = rbuf_u32(r);
    out->gid = rbuf_u32(r);
    out->size = rbuf_u64(r);
    get_time(r, &out->atime);
    get_time(r, &out->mtime);
    if (out->valid & ~GOF_SET_ALL || out->size > INT64_MAX)
        r->failed = true;
}

void gof_get_statfs(struct rbuf *r, struct gof_statfs *out)
{
    uint64_t *const v[] = {&out->type,  &out->bsize, &out->blocks, &out->bfree,   &out->bavail,
                           &out->files, &out->ffree, &out->fsid,   &out->namelen, &out->frsize};

    for (size_t i = 0; i < ARRAY_SIZE(v); i++)
        *v[i] = rbuf_u64(r);
}

void gof_get_event(struct rbuf *r, struct gof_event *out)
{
    out->wd = rbuf_u32(r);
    out->mask = rbuf_u32(r);
    out->cookie = rbuf_u32(r);
    out->nlink = rbuf_u32(r);
    out->dev = rbuf_u64(r);
    out->ino = rbuf_u64(r);
    get_time(r, &out->ctime);
    get_time(r, &out->btime);
    size_t len = gof_get_text(r, out->name, GOF_NAME_MAX);
    if (len && !gof_name_ok(out->name, len))
        r->failed = true;
}

const char *gof_op_name(unsigned op)
{
    static const char *const names[GOF_OP_END] = {
        [GOF_ATTACH] = "attach",       [GOF_WALK] = "walk",
        [GOF_OPEN] = "open",           [GOF_CREATE] = "create",
        [GOF_TMPFILE] = "tmpfile",     [GOF_SYMLINK] = "symlink",
        [GOF_LINK] = "link",           [GOF_UNLINK] = "unlink",
        [GOF_RENAME] = "rename",       [GOF_READLINK] = "readlink",
        [GOF_GETDENTS] = "getdents",   [GOF_STAT] = "stat",
        [GOF_SETATTR] = "setattr",     [GOF_STATFS] = "statfs",
        [GOF_GETXATTR] = "getxattr",   [GOF_SETXATTR] = "setxattr",
        [GOF_LISTXATTR] = "listxattr", [GOF_REMOVEXATTR] = "removexattr",
        [GOF_FSYNC] = "fsync",         [GOF_SYNCFS] = "syncfs",
        [GOF_CLOSE] = "close",         [GOF_WATCH] = "watch",
        [GOF_EVENTS] = "events",       [GOF_CONNECT] = "connect",
        [GOF_OPEN_FIFO] = "open_fifo", [GOF_LOOK] = "look",
    };

    return op < GOF_OP_END && names[op] ? names[op] : "?";
}
