/* Requests whose answers are lists or bytes: directory entries and extended attributes. */
#include <errno.h>
#include <string.h>

#include "gofer/proto/client.h"
#include "gofer/proto/client_priv.h"

/* Entries are given on while the channel is held: fn takes no lock that a call could be under. */
static int read_entries(struct rbuf *r, gof_dirent_fn fn, void *arg)
{
    char name[GOF_NAME_MAX + 1];
    size_t count = rbuf_u16(r);
    int err = 0;

    for (size_t i = 0; i < count && rbuf_ok(r); i++) {
        uint64_t ino = rbuf_u64(r);
        unsigned dtype = rbuf_u8(r);
        gof_get_name(r, name);
        if (rbuf_ok(r) && !err)
            err = fn(arg, name, strlen(name), ino, dtype);
    }
    return err;
}

int gof_getdents(struct gof_client *c, uint64_t dir, bool restart, gof_dirent_fn fn, void *arg,
                 bool *out_end, uint64_t *out_parent)
{
    struct gof_call call;
    uint64_t parent = 0;
    bool end = false;
    int err = 0;

    gof_call_begin(c, GOF_GETDENTS, &call);
    wbuf_u64(&call.w, dir);
    wbuf_u8(&call.w, restart);
    int r = gof_call_send(&call);
    if (r == 0) {
        end = rbuf_u8(&call.r) != 0;
        parent = rbuf_u64(&call.r);
        err = read_entries(&call.r, fn, arg);
    }
    r = gof_call_end(&call, r);
    if (r)
        return r;
    *out_end = end;
    if (parent)
        *out_parent = parent;
    return err;
}

/* Sends and reads length and bytes. size 0: the length alone. */
static int64_t finish_bytes(struct gof_call *call, void *buf, size_t size)
{
    uint32_t len = 0;
    int r = gof_call_send(call);

    if (r == 0) {
        len = rbuf_u32(&call->r);
        if (len > LIMIT_XATTR_SIZE || (size && len > size))
            call->r.failed = true;
        else if (size)
            rbuf_bytes(&call->r, buf, len);
    }
    r = gof_call_end(call, r);
    return r ? r : (int64_t)len;
}

int64_t gof_getxattr(struct gof_client *c, uint64_t node, const char *name, void *buf, size_t size)
{
    struct gof_call call;

    gof_call_begin(c, GOF_GETXATTR, &call);
    wbuf_u64(&call.w, node);
    gof_put_text(&call.w, name, strlen(name));
    size = MIN(size, (size_t)LIMIT_XATTR_SIZE);
    wbuf_u32(&call.w, (uint32_t)size);
    return finish_bytes(&call, buf, size);
}

int64_t gof_listxattr(struct gof_client *c, uint64_t node, char *buf, size_t size)
{
    struct gof_call call;

    gof_call_begin(c, GOF_LISTXATTR, &call);
    wbuf_u64(&call.w, node);
    size = MIN(size, (size_t)LIMIT_XATTR_SIZE);
    wbuf_u32(&call.w, (uint32_t)size);
    return finish_bytes(&call, buf, size);
}

int gof_setxattr(struct gof_client *c, uint64_t node, const char *name, const void *val,
                 size_t size, int flags)
{
    struct gof_call call;

    if (size > LIMIT_XATTR_SIZE)
        return -E2BIG;
    gof_call_begin(c, GOF_SETXATTR, &call);
    wbuf_u64(&call.w, node);
    gof_put_text(&call.w, name, strlen(name));
    wbuf_u32(&call.w, (uint32_t)flags);
    wbuf_u32(&call.w, (uint32_t)size);
    wbuf_bytes(&call.w, val, size);
    int r = gof_call_send(&call);
    return gof_call_end(&call, r);
}

int gof_removexattr(struct gof_client *c, uint64_t node, const char *name)
{
    struct gof_call call;

    gof_call_begin(c, GOF_REMOVEXATTR, &call);
    wbuf_u64(&call.w, node);
    gof_put_text(&call.w, name, strlen(name));
    int r = gof_call_send(&call);
    return gof_call_end(&call, r);
}
