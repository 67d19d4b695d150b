/* Looking at AF_UNIX sockets: what /proc/net/unix and sock_diag show. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/net/unix_priv.h"

/* References on all sockets: owned array. */
static int unix_gather(struct net *n, struct unix_sock ***out, size_t *out_count)
{
    struct unix_sock *s;
    size_t count = 0, i = 0;

    mutex_lock(&n->mu);
    list_for_each_entry (s, &n->unix_all, all)
        count++;
    struct unix_sock **v = calloc(count + 1, sizeof(struct unix_sock *));
    if (v) {
        list_for_each_entry (s, &n->unix_all, all)
            if (ref_tryget(&s->base.ref))
                v[i++] = s;
    }
    mutex_unlock(&n->mu);
    if (!v)
        return -ENOMEM;
    *out = v;
    *out_count = i;
    return 0;
}

static uint64_t unix_inode(struct unix_sock *s)
{
    mutex_lock(&s->mu);
    const uint64_t ino = s->base.file ? s->base.file->inode->ino : 0;
    mutex_unlock(&s->mu);
    return ino;
}

static int unix_show(struct unix_sock *s, unix_info_fn fn, void *arg)
{
    const struct unix_name *name = atomic_load_explicit(&s->name, memory_order_acquire);
    struct unix_info i = {
        .type = s->base.type, .refs = ref_read(&s->base.ref), .cookie = s->base.cookie};

    i.inode = unix_inode(s);
    mutex_lock(&s->mu);
    i.listening = s->state == UNIX_LISTENING;
    i.connected = s->state == UNIX_CONNECTED;
    i.shutdown = s->shutdown;
    i.rqueue = i.listening ? s->pending_count : (uint32_t)s->queue_bytes;
    i.wqueue = i.listening ? s->backlog : (uint32_t)atomic_load(&s->out_bytes);
    struct unix_sock *peer = s->peer ? unix_get(s->peer) : NULL;
    mutex_unlock(&s->mu);
    if (peer) {
        i.peer_inode = unix_inode(peer);
        unix_put(peer);
    }
    if (name) {
        const size_t size = name->addr.len - offsetof(struct sockaddr_un, sun_path);
        i.abstract = name->addr.un.sun_path[0] == '\0';
        i.name = name->addr.un.sun_path + i.abstract;
        i.name_size = i.abstract ? size - 1 : strnlen(i.name, size);
    }
    return fn(arg, &i);
}

int unix_for_each(struct net *n, unix_info_fn fn, void *arg)
{
    struct unix_sock **v;
    size_t count;
    int r = unix_gather(n, &v, &count);

    if (r)
        return r;
    for (size_t i = 0; i < count; i++) {
        if (r == 0)
            r = unix_show(v[i], fn, arg);
        unix_put(v[i]);
    }
    free(v);
    return r;
}
