/* Names of AF_UNIX sockets: in the file tree, or abstract in the namespace (unix(7)). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "sentry/net/unix_priv.h"
#include "sentry/vfs/landlock.h"

#define UN_HEAD ((socklen_t)offsetof(struct sockaddr_un, sun_path))
#define UN_MAX ((socklen_t)sizeof(struct sockaddr_un))
#define AUTOBIND_TRIES 4096u
#define AUTOBIND_MASK 0xfffffu

void unix_name_get(struct unix_name *n)
{
    ref_get(&n->ref);
}

void unix_name_put(struct unix_name *n)
{
    if (!n || !ref_put(&n->ref))
        return;
    if (n->place.dentry)
        vpath_put(&n->place);
    free(n);
}

static int unix_name_new(const struct sock_addr *a, struct unix_name **out)
{
    struct unix_name *n = calloc(1, sizeof(*n));

    if (!n)
        return -ENOMEM;
    ref_init(&n->ref);
    list_init(&n->hash);
    n->addr = *a;
    *out = n;
    return 0;
}

void unix_get_addr(struct unix_sock *s, struct sock_addr *out)
{
    const struct unix_name *n = atomic_load_explicit(&s->name, memory_order_acquire);

    memset(out, 0, sizeof(*out));
    if (n) {
        *out = n->addr;
        return;
    }
    out->family = AF_UNIX;
    out->len = UN_HEAD;
}

/* Checks a and makes it uniform: a path is NUL-terminated and its length ends there. */
static int unix_addr_fix(const struct sock_addr *a, struct sock_addr *out)
{
    if (a->len <= UN_HEAD || a->len > UN_MAX || a->family != AF_UNIX)
        return -EINVAL;
    *out = *a;
    memset((char *)&out->storage + a->len, 0, sizeof(out->storage) - a->len);
    if (out->un.sun_path[0] != '\0')
        out->len = UN_HEAD + (socklen_t)strnlen(out->un.sun_path, UN_MAX - UN_HEAD) + 1;
    return 0;
}

static struct list *unix_bucket(struct net *n, const struct sock_addr *a)
{
    uint64_t h = hash_seeded(&a->un, a->len);

    return &n->abstract[h % UNIX_HASH_SIZE];
}

static struct unix_name *unix_abstract_locked(struct net *n, const struct sock_addr *a)
{
    struct unix_name *name;

    list_for_each_entry (name, unix_bucket(n, a), hash)
        if (name->addr.len == a->len && memcmp(&name->addr.un, &a->un, a->len) == 0)
            return name;
    return NULL;
}

/* Publishes name as that of s, unless it has one. */
static int unix_name_set(struct unix_sock *s, struct unix_name *name)
{
    struct unix_name *none = NULL;

    return atomic_compare_exchange_strong(&s->name, &none, name) ? 0 : -EINVAL;
}

static int unix_bind_abstract(struct unix_sock *s, const struct sock_addr *a)
{
    struct net *n = s->base.net;
    struct unix_name *name;
    int r = unix_name_new(a, &name);

    if (r)
        return r;
    name->owner = s;
    mutex_lock(&n->mu);
    if (atomic_load(&s->name))
        r = -EINVAL;
    else if (unix_abstract_locked(n, a))
        r = -EADDRINUSE;
    else
        r = unix_name_set(s, name);
    if (r == 0)
        list_add(&name->hash, unix_bucket(n, a));
    mutex_unlock(&n->mu);
    if (r)
        unix_name_put(name);
    return r;
}

int unix_autobind(struct unix_sock *s)
{
    struct net *n = s->base.net;

    for (unsigned i = 0; i < AUTOBIND_TRIES; i++) {
        struct sock_addr a = {.len = UN_HEAD + 6};
        char text[8];
        if (atomic_load(&s->name))
            return 0;
        mutex_lock(&n->mu);
        uint32_t id = n->next_autobind++ & AUTOBIND_MASK;
        mutex_unlock(&n->mu);
        (void)snprintf(text, sizeof(text), "%05x", id);
        a.family = AF_UNIX;
        memcpy(a.un.sun_path + 1, text, 5);
        int r = unix_bind_abstract(s, &a);
        if (r != -EADDRINUSE)
            return r == -EINVAL ? 0 : r;
    }
    return -ENOSPC;
}

static int unix_bind_path(struct unix_sock *s, const struct sock_addr *a,
                          const struct vfs_caller *c)
{
    char path[sizeof(a->un.sun_path) + 1];
    struct unix_name *name;
    int r = unix_name_new(a, &name);

    if (r)
        return r;
    memcpy(path, a->un.sun_path, sizeof(a->un.sun_path));
    path[sizeof(path) - 1] = '\0';
    r = vfs_mksock(c, path, S_IFSOCK | 0777, &name->place);
    if (r) {
        unix_name_put(name);
        return r == -EEXIST ? -EADDRINUSE : r;
    }
    struct inode *i = name->place.dentry->inode;
    mutex_lock(&i->mu);
    r = unix_name_set(s, name);
    if (r == 0)
        i->sock = s;
    mutex_unlock(&i->mu);
    if (r) {
        (void)!vfs_unlink(c, NULL, path);
        unix_name_put(name);
    }
    return r;
}

int unix_bind(struct sock *base, const struct sock_addr *a, const struct vfs_caller *c)
{
    struct unix_sock *s = unix_of(base);
    struct sock_addr fixed;

    if (a->len == UN_HEAD && a->family == AF_UNIX)
        return unix_autobind(s);
    int r = unix_addr_fix(a, &fixed);
    if (r)
        return r;
    return fixed.un.sun_path[0] == '\0' ? unix_bind_abstract(s, &fixed)
                                        : unix_bind_path(s, &fixed, c);
}

void unix_unbind(struct unix_sock *s)
{
    struct unix_name *name = atomic_load(&s->name);
    struct net *n = s->base.net;

    if (!name)
        return;
    if (name->place.dentry) {
        struct inode *i = name->place.dentry->inode;
        mutex_lock(&i->mu);
        if (i->sock == s)
            i->sock = NULL;
        mutex_unlock(&i->mu);
        return;
    }
    mutex_lock(&n->mu);
    if (name->owner == s) {
        name->owner = NULL;
        list_del(&name->hash);
    }
    mutex_unlock(&n->mu);
}

/* ---- finding ---- */

static int unix_find_abstract(struct net *n, const struct sock_addr *a, struct unix_sock **out)
{
    mutex_lock(&n->mu);
    const struct unix_name *name = unix_abstract_locked(n, a);
    struct unix_sock *s = name ? name->owner : NULL;
    bool got = s && ref_tryget(&s->base.ref);
    mutex_unlock(&n->mu);
    if (!got)
        return -ECONNREFUSED;
    *out = s;
    return 0;
}

static int unix_find_path(const struct sock_addr *a, const struct vfs_caller *c,
                          struct unix_sock **out)
{
    char path[sizeof(a->un.sun_path) + 1];
    struct vpath p;

    memcpy(path, a->un.sun_path, sizeof(a->un.sun_path));
    path[sizeof(path) - 1] = '\0';
    int r = vfs_lookup(c, NULL, path, VFS_FOLLOW, &p);
    if (r)
        return r;
    struct inode *i = p.dentry->inode;
    r = vfs_permission(c, i, 2);
    if (r == 0) {
        mutex_lock(&i->mu);
        struct unix_sock *s = S_ISSOCK(i->mode) ? i->sock : NULL;
        if (s && ref_tryget(&s->base.ref))
            *out = s;
        else
            r = -ECONNREFUSED;
        mutex_unlock(&i->mu);
    }
    vpath_put(&p);
    return r;
}

int unix_find(struct net *n, const struct sock_addr *a, int type, const struct vfs_caller *c,
              struct unix_sock **out)
{
    struct sock_addr fixed;
    struct unix_sock *s = NULL;
    int r = unix_addr_fix(a, &fixed);

    if (r)
        return r;
    r = fixed.un.sun_path[0] == '\0' ? unix_find_abstract(n, &fixed, &s)
                                     : unix_find_path(&fixed, c, &s);
    if (r)
        return r;
    if (s->base.type != type) {
        unix_put(s);
        return -EPROTOTYPE;
    }
    *out = s;
    return 0;
}

int unix_scope(struct unix_sock *to, const struct vfs_caller *c)
{
    const struct unix_name *name = atomic_load(&to->name);

    if (LIKELY(c->cred->domain == NULL) || !name || name->addr.un.sun_path[0] != '\0')
        return 0;
    return landlock_out_of_scope(c->cred, to->base.domain, LANDLOCK_SCOPE_ABSTRACT) ? -EPERM : 0;
}
