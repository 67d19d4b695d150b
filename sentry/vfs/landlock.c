/* Rulesets and domains of Landlock (security/landlock/ruleset.c, syscalls.c, net.c, task.c). */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "sentry/vfs/landlock_priv.h"

/* ---- tables ---- */

/* Where key is or would be. */
static uint32_t table_place(const struct landlock_table *t, uintptr_t key)
{
    uint32_t lo = 0, hi = t->count;

    while (lo < hi) {
        const uint32_t mid = lo + (hi - lo) / 2;
        if (t->rules[mid].key < key)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

uint32_t landlock_table_find(const struct landlock_table *t, uintptr_t key)
{
    const uint32_t at = table_place(t, key);

    return at < t->count && t->rules[at].key == key ? t->rules[at].access : 0;
}

static int table_grow(struct landlock_table *t)
{
    if (t->count < t->size)
        return 0;
    if (t->count >= LANDLOCK_RULES)
        return -E2BIG;
    const uint32_t size = t->size ? t->size * 2 : 8;
    struct landlock_rule *rules = realloc(t->rules, size * sizeof(*rules));
    if (rules == NULL)
        return -ENOMEM;
    t->rules = rules;
    t->size = size;
    return 0;
}

/* Rules for one thing add up. */
static int table_add(struct landlock_table *t, uintptr_t key, uint32_t access, struct dentry *place)
{
    const uint32_t at = table_place(t, key);

    if (at < t->count && t->rules[at].key == key) {
        t->rules[at].access |= access;
        return 0;
    }
    int r = table_grow(t);
    if (r != 0)
        return r;
    memmove(t->rules + at + 1, t->rules + at, (t->count - at) * sizeof(*t->rules));
    t->rules[at] = (struct landlock_rule){key, access, place != NULL ? dentry_get(place) : NULL};
    t->count++;
    return 0;
}

static int table_copy(const struct landlock_table *from, struct landlock_table *to)
{
    if (from->count == 0)
        return 0;
    to->rules = calloc(from->count, sizeof(*to->rules));
    if (to->rules == NULL)
        return -ENOMEM;
    memcpy(to->rules, from->rules, from->count * sizeof(*to->rules));
    to->count = to->size = from->count;
    for (uint32_t i = 0; i < to->count; i++)
        if (to->rules[i].place != NULL)
            (void)dentry_get(to->rules[i].place);
    return 0;
}

static void table_fini(struct landlock_table *t)
{
    for (uint32_t i = 0; i < t->count; i++)
        if (t->rules[i].place != NULL)
            dentry_put(t->rules[i].place);
    free(t->rules);
}

/* ---- rulesets ---- */

static void ruleset_free(struct landlock_ruleset *rs)
{
    table_fini(&rs->paths);
    table_fini(&rs->ports);
    mutex_destroy(&rs->mu);
    free(rs);
}

static void ruleset_release(struct file *f)
{
    ruleset_free(f->priv);
}

static const struct file_ops ruleset_ops = {.release = ruleset_release};

int landlock_ruleset_file(uint32_t fs, uint32_t net, uint32_t scoped, struct file **out_file)
{
    struct landlock_ruleset *rs = calloc(1, sizeof(*rs));

    if (rs == NULL)
        return -ENOMEM;
    rs->fs = fs;
    rs->net = net;
    rs->scoped = scoped;
    mutex_init(&rs->mu, LOCK_RANK_LEAF);
    int r =
        vfs_anon_file("anon_inode:[landlock-ruleset]", 0600, &ruleset_ops, rs, O_RDWR, out_file);
    if (r != 0)
        ruleset_free(rs);
    return r;
}

int landlock_ruleset_of(struct file *f, struct landlock_ruleset **out)
{
    if (f->ops != &ruleset_ops)
        return -EBADFD;
    *out = f->priv;
    return 0;
}

uint32_t landlock_ruleset_fs(const struct landlock_ruleset *rs)
{
    return rs->fs;
}

int landlock_add_path(struct landlock_ruleset *rs, const struct vpath *p, uint32_t access)
{
    struct inode *i = p->dentry->inode;

    if (p->mnt == mount_anon() || i == NULL)
        return -EBADFD;
    if (!S_ISDIR(i->mode) && (access & ~LANDLOCK_FS_FILE) != 0)
        return -EINVAL;
    mutex_lock(&rs->mu);
    int r = table_add(&rs->paths, (uintptr_t)i, access, p->dentry);
    mutex_unlock(&rs->mu);
    return r;
}

int landlock_add_port(struct landlock_ruleset *rs, uint64_t port, uint64_t access)
{
    if ((access | rs->net) != rs->net || port > UINT16_MAX)
        return -EINVAL;
    mutex_lock(&rs->mu);
    int r = table_add(&rs->ports, (uintptr_t)port, (uint32_t)access, NULL);
    mutex_unlock(&rs->mu);
    return r;
}

/* ---- domains ---- */

static void domain_release(struct cred_domain *base)
{
    struct landlock_domain *d = container_of(base, struct landlock_domain, base);

    for (;;) {
        struct landlock_domain *parent = d->parent;
        table_fini(&d->paths);
        table_fini(&d->ports);
        free(d);
        if (parent == NULL || !ref_put(&parent->base.ref))
            return;
        d = parent;
    }
}

static int domain_fill(struct landlock_domain *d, struct landlock_ruleset *rs)
{
    d->own_fs = rs->fs;
    d->fs = rs->fs | LANDLOCK_REFER;
    d->net = rs->net;
    d->scoped = rs->scoped;
    mutex_lock(&rs->mu);
    int r = table_copy(&rs->paths, &d->paths);
    if (r == 0)
        r = table_copy(&rs->ports, &d->ports);
    mutex_unlock(&rs->mu);
    return r;
}

int landlock_restrict(struct cred *c, struct landlock_ruleset *rs)
{
    struct landlock_domain *parent =
        c->domain != NULL ? container_of(c->domain, struct landlock_domain, base) : NULL;
    struct landlock_domain *d;

    if (parent != NULL && parent->level + 1 >= LANDLOCK_LAYERS)
        return -E2BIG;
    d = calloc(1, sizeof(*d));
    if (d == NULL)
        return -ENOMEM;
    ref_init(&d->base.ref);
    d->base.release = domain_release;
    d->level = parent != NULL ? parent->level + 1 : 0;
    int r = domain_fill(d, rs);
    if (r != 0) {
        domain_release(&d->base);
        return r;
    }
    /* c's reference passes on. */
    d->parent = parent;
    c->domain = &d->base;
    return 0;
}

/* ---- what is no matter of paths ---- */

bool landlock_fixes_mounts(const struct cred *c)
{
    const struct landlock_domain *d = c->domain != NULL ? landlock_domain(c->domain) : NULL;

    for (; d != NULL; d = d->parent)
        if (d->own_fs != 0)
            return true;
    return false;
}

static int port_of(const struct sockaddr_storage *a, size_t len, uint16_t *out)
{
    if (a->ss_family == AF_INET6) {
        *out = ntohs(((const struct sockaddr_in6 *)a)->sin6_port);
        return len < offsetof(struct sockaddr_in6, sin6_scope_id) ? -EINVAL : 0;
    }
    *out = ntohs(((const struct sockaddr_in *)a)->sin_port);
    return len < sizeof(struct sockaddr_in) ? -EINVAL : 0;
}

static int port_denied(const struct landlock_domain *d, uint16_t port, uint32_t access)
{
    for (; d != NULL; d = d->parent)
        if ((d->net & access & ~landlock_table_find(&d->ports, port)) != 0)
            return -EACCES;
    return 0;
}

int landlock_port(const struct cred *c, int family, const void *addr, size_t len, uint32_t access)
{
    const struct landlock_domain *d = c->domain != NULL ? landlock_domain(c->domain) : NULL;
    struct sockaddr_storage a = {0};
    uint32_t handled = 0;
    uint16_t port;

    for (const struct landlock_domain *i = d; i != NULL; i = i->parent)
        handled |= i->net;
    if (handled == 0)
        return 0;
    if (len < sizeof(a.ss_family))
        return -EINVAL;
    memcpy(&a, addr, MIN(len, sizeof(a)));
    if (a.ss_family != AF_UNSPEC && a.ss_family != AF_INET && a.ss_family != AF_INET6)
        return 0;
    int r = port_of(&a, len, &port);
    if (r != 0)
        return r;
    if (a.ss_family != AF_UNSPEC)
        return a.ss_family != family ? -EINVAL : port_denied(d, port, access);
    /* Letting a connection go is free; binding so means any address of AF_INET. */
    if (access == LANDLOCK_CONNECT_TCP)
        return 0;
    if (((const struct sockaddr_in *)&a)->sin_addr.s_addr != htonl(INADDR_ANY))
        return -EAFNOSUPPORT;
    return port_denied(d, port, access);
}

bool landlock_out_of_scope(const struct cred *c, const struct cred_domain *other, uint32_t scope)
{
    const struct landlock_domain *d = c->domain != NULL ? landlock_domain(c->domain) : NULL;
    const struct landlock_domain *o = other != NULL ? landlock_domain(other) : NULL;

    /* The innermost layer that is scoped decides: other is to be in it. */
    while (d != NULL && (d->scoped & scope) == 0)
        d = d->parent;
    if (d == NULL)
        return false;
    while (o != NULL && o->level > d->level)
        o = o->parent;
    return o != d;
}

bool landlock_may_trace(const struct cred_domain *tracer, const struct cred_domain *tracee)
{
    const struct landlock_domain *d = tracee != NULL ? landlock_domain(tracee) : NULL;

    if (tracer == NULL)
        return true;
    while (d != NULL && &d->base != tracer)
        d = d->parent;
    return d != NULL;
}
