/* Walking ahead: a path of several components costs one request, though vfs looks them up one by
 * one. What was found waits in the super until its look-up comes, and is good only while nothing
 * was created, removed or renamed since. Of a shared super it is good for that walk alone: the next
 * one sees what the host has by then.
 *
 * And looking along: who looks names up in the order in which they were listed (find, tar, du) gets
 * the next ones with each. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sentry/fs/goferfs/goferfs_priv.h"

/* Look-ups in a row, and the next one is taken to go on. How many names may be left out: they are
 * known already, or nobody wants them. */
#define ALONG_RUN 2u
#define ALONG_SKIP 16u

static uint64_t walk_of(const struct goferfs_super *gs)
{
    return gs->shared ? vfs_walk_id() : 0;
}

static struct goferfs_ahead *find_locked(struct goferfs_super *gs, const struct inode *dir,
                                         uint64_t dir_dev, const char *name)
{
    uint64_t changes = atomic_load_explicit(&gs->changes, memory_order_acquire);
    uint64_t walk = walk_of(gs);

    for (size_t i = 0; i < GOFERFS_AHEAD; i++) {
        struct goferfs_ahead *a = &gs->ahead[i];
        if (a->used && a->dir_ino == dir->ino && a->dir_dev == dir_dev && a->changes == changes &&
            a->walk == walk && strcmp(a->name, name) == 0)
            return a;
    }
    return NULL;
}

bool goferfs_ahead_take(struct inode *dir, const char *name, struct gof_node *out)
{
    struct goferfs_super *gs = goferfs_super(dir->sb);

    mutex_lock(&gs->mu);
    struct goferfs_ahead *a = find_locked(gs, dir, goferfs_inode(dir)->host_dev, name);
    if (a) {
        *out = a->node;
        a->used = false;
    }
    mutex_unlock(&gs->mu);
    return a;
}

/* The walk that led here has been ahead already. */
static bool ahead_has(struct inode *dir, const char *name)
{
    struct goferfs_super *gs = goferfs_super(dir->sb);

    mutex_lock(&gs->mu);
    bool found = find_locked(gs, dir, goferfs_inode(dir)->host_dev, name);
    mutex_unlock(&gs->mu);
    return found;
}

static void ahead_put(struct goferfs_super *gs, const struct goferfs_ahead *a)
{
    mutex_lock(&gs->mu);
    struct goferfs_ahead *slot = &gs->ahead[gs->ahead_next++ % GOFERFS_AHEAD];
    uint64_t old = slot->used ? slot->node.handle : 0;
    *slot = *a;
    mutex_unlock(&gs->mu);
    gof_close(gs->client, old);
}

void goferfs_ahead_drop(struct goferfs_super *gs)
{
    for (size_t i = 0; i < GOFERFS_AHEAD; i++) {
        if (gs->ahead[i].used)
            gof_close(gs->client, gs->ahead[i].node.handle);
        gs->ahead[i].used = false;
    }
}

/* Components that were cut from a path, until one that is not a plain name; what they led to. */
struct components {
    char text[VFS_PATH_MAX];
    const char *names[GOF_WALK_MAX];
    struct gof_node nodes[GOF_WALK_MAX];
    size_t count;
};

static void split(const char *path, struct components *out)
{
    size_t used = 0;

    out->count = 0;
    while (out->count < GOF_WALK_MAX) {
        path += strspn(path, "/");
        size_t len = strcspn(path, "/");
        if (!gof_name_ok(path, len) || len + 1 > sizeof(out->text) - used)
            return;
        memcpy(out->text + used, path, len);
        out->text[used + len] = '\0';
        out->names[out->count++] = out->text + used;
        used += len + 1;
        path += len;
    }
}

void goferfs_prefetch(struct inode *dir, const char *path)
{
    struct goferfs_super *gs = goferfs_super(dir->sb);
    struct goferfs_inode *gd = goferfs_inode(dir);
    struct goferfs_ahead a = {.used = true};
    struct components *c;
    size_t done = 0;
    int why = 0;

    if (!S_ISDIR(dir->mode) || !strchr(path, '/'))
        return;
    c = malloc(sizeof(*c));
    if (!c)
        return;
    split(path, c);
    a.changes = atomic_load_explicit(&gs->changes, memory_order_acquire);
    if (c->count < 2 || ahead_has(dir, c->names[0]) ||
        gof_walk(gs->client, gd->handle, c->names, c->count, c->nodes, &done, &why)) {
        done = 0;
        why = 0;
    }
    a.walk = walk_of(gs);
    a.dir_dev = gd->host_dev;
    a.dir_ino = dir->ino;
    for (size_t i = 0; i < done + (why == -ENOENT); i++) {
        a.node = i < done ? c->nodes[i] : (struct gof_node){0};
        memcpy(a.name, c->names[i], strlen(c->names[i]) + 1);
        ahead_put(gs, &a);
        a.dir_dev = a.node.attr.dev;
        a.dir_ino = a.node.attr.ino;
    }
    free(c);
}

/* ---- along a listing ---- */

static const char *entry_name(const struct goferfs_list *l, size_t i)
{
    return l->names + l->entries[i].name_off;
}

/* The list in which name is the entry *out_at, when look-ups have come in its order and those
 * behind it have not been asked for. Owned, or NULL. */
static struct goferfs_list *along_find(struct goferfs_inode *gd, const char *name, size_t *out_at)
{
    struct goferfs_along *along = &gd->along;
    struct goferfs_list *l = NULL;

    mutex_lock(&gd->data_mu);
    if (gd->list) {
        const size_t from = along->next, till = MAX(from, (size_t)along->end) + ALONG_SKIP;
        const size_t end = MIN(gd->list->count, till);
        size_t at = from;
        while (at < end && strcmp(entry_name(gd->list, at), name) != 0)
            at++;
        if (at < end) {
            along->next = (uint32_t)at + 1;
            along->run = MIN(along->run + 1, ALONG_RUN + 1);
        } else {
            *along = (struct goferfs_along){0};
        }
        *out_at = at;
        if (along->run > ALONG_RUN && at >= along->end)
            l = gd->list;
    }
    if (l)
        ref_get(&l->ref);
    mutex_unlock(&gd->data_mu);
    return l;
}

static void along_done(struct goferfs_inode *gd, const struct goferfs_list *l, size_t end)
{
    mutex_lock(&gd->data_mu);
    if (gd->list == l)
        gd->along.end = (uint32_t)end;
    mutex_unlock(&gd->data_mu);
}

/* Whether nobody can change it before its name is looked up. */
static bool along_keeps(struct goferfs_super *gs, const struct gof_node *n)
{
    struct goferfs_inode *known = goferfs_inode_find(gs, n->attr.dev, n->attr.ino);

    if (known)
        inode_put(&known->inode);
    return !known && (S_ISDIR(n->attr.mode) || n->attr.nlink == 1);
}

struct along {
    const char *names[GOF_WALK_MAX];
    struct gof_node nodes[GOF_WALK_MAX];
};

bool goferfs_look_along(struct inode *dir, const char *name, struct gof_node *out)
{
    struct goferfs_super *gs = goferfs_super(dir->sb);
    struct goferfs_inode *gd = goferfs_inode(dir);
    struct goferfs_ahead a = {.used = true, .dir_dev = gd->host_dev, .dir_ino = dir->ino};
    size_t at = 0, done = 0, count = 0;
    int why;
    struct goferfs_list *l = gs->shared ? NULL : along_find(gd, name, &at);
    struct along *w = l ? malloc(sizeof(*w)) : NULL;

    a.changes = atomic_load_explicit(&gs->changes, memory_order_acquire);
    for (; w && count < GOF_WALK_MAX && at + count < l->count; count++)
        w->names[count] = entry_name(l, at + count);
    if (w && gof_look(gs->client, gd->handle, w->names, count, w->nodes, &done, &why))
        done = 0;
    for (size_t i = 1; i < done; i++) {
        a.node = w->nodes[i];
        if (!along_keeps(gs, &a.node)) {
            gof_close(gs->client, a.node.handle);
            continue;
        }
        memcpy(a.name, w->names[i], strlen(w->names[i]) + 1);
        ahead_put(gs, &a);
    }
    if (done > 0) {
        *out = w->nodes[0];
        along_done(gd, l, at + done);
    }
    free(w);
    if (l)
        goferfs_list_put(l);
    return done > 0;
}
