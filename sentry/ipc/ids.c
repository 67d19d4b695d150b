/* Objects by id and key: ipc/util.c of Linux. An id is a slot and a count of its reuse, so that an
 * old id does not name a new object. */
#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdlib.h>

#include "base/hash.h"
#include "sentry/ipc/ipc_priv.h"

#define IPC_SEQ_MAX (INT_MAX >> IPC_SLOT_BITS)
#define IPC_MIN_CYCLE 64u

/* ---- objects ---- */

void ipc_object_init(struct ipc_object *o, struct ipc_ns *ns, enum ipc_kind kind,
                     const struct ipc_caller *c, const struct ipc_get *g)
{
    ref_init(&o->ref);
    ref_get(&ns->ref);
    o->ns = ns;
    o->kind = kind;
    o->key = g->key;
    o->mode = (uint32_t)g->flags & 0777u;
    o->uid = o->cuid = c->cred->euid;
    o->gid = o->cgid = c->cred->egid;
    mutex_init(&o->mu, LOCK_RANK_IPC_OBJECT);
}

void ipc_object_fini(struct ipc_object *o)
{
    mutex_destroy(&o->mu);
    ipc_ns_drop_memory(o->ns);
}

void ipc_object_put(struct ipc_object *o)
{
    if (!ref_put(&o->ref))
        return;
    switch (o->kind) {
    case IPC_KIND_SHM:
        ipc_shm_free(o);
        break;
    case IPC_KIND_SEM:
        ipc_sem_free(o);
        break;
    case IPC_KIND_MSG:
        ipc_msg_free(o);
        break;
    case IPC_KINDS:
    default:
        BUG_ON(true);
    }
}

/* ---- rights ---- */

int ipc_check(const struct ipc_object *o, const struct ipc_caller *c, uint32_t want)
{
    const uint32_t ask = (want >> 6 | want >> 3 | want) & 7u;
    uint32_t have = o->mode;

    if (c->cred->euid == o->cuid || c->cred->euid == o->uid)
        have >>= 6;
    else if (cred_in_group(c->cred, o->cgid) || cred_in_group(c->cred, o->gid))
        have >>= 3;
    return ask & ~have && !cred_capable(c->cred, CAP_IPC_OWNER) ? -EACCES : 0;
}

int ipc_check_owner(const struct ipc_object *o, const struct ipc_caller *c)
{
    const bool owns = c->cred->euid == o->cuid || c->cred->euid == o->uid;

    return owns || cred_capable(c->cred, CAP_SYS_ADMIN) ? 0 : -EPERM;
}

void ipc_perm_show(const struct ipc_object *o, struct ipc_perm_info *out)
{
    *out = (struct ipc_perm_info){
        .id = o->id,
        .key = o->key,
        .uid = o->uid,
        .gid = o->gid,
        .cuid = o->cuid,
        .cgid = o->cgid,
        .mode = o->mode,
        .seq = o->seq,
    };
}

int ipc_perm_change(struct ipc_object *o, const struct ipc_perm_set *set)
{
    if (set->uid == UINT32_MAX || set->gid == UINT32_MAX)
        return -EINVAL;
    o->uid = set->uid;
    o->gid = set->gid;
    o->mode = (o->mode & ~0777u) | (set->mode & 0777u);
    return 0;
}

/* ---- tables; ids.mu held ---- */

static struct ipc_object **ids_chain(struct ipc_ids *ids, int32_t key)
{
    return &ids->hash[hash_seeded_u64((uint32_t)key, 0) % IPC_HASH];
}

static struct ipc_object *ids_by_key(struct ipc_ids *ids, int32_t key)
{
    struct ipc_object *o = *ids_chain(ids, key);

    while (o && o->key != key)
        o = o->hash_next;
    return o;
}

static void ids_unhash(struct ipc_ids *ids, struct ipc_object *o)
{
    if (o->key == IPC_PRIVATE)
        return;
    struct ipc_object **at = ids_chain(ids, o->key);
    while (*at && *at != o)
        at = &(*at)->hash_next;
    if (*at)
        *at = o->hash_next;
}

static int ids_grow(struct ipc_ids *ids)
{
    const uint32_t count = ids->slot_count ? ids->slot_count * 2 : IPC_MIN_CYCLE;
    struct ipc_object **slots = realloc(ids->slots, count * sizeof(struct ipc_object *));

    if (!slots)
        return -ENOMEM;
    for (uint32_t i = ids->slot_count; i < count; i++)
        slots[i] = NULL;
    ids->slots = slots;
    ids->slot_count = count;
    return 0;
}

/* Slots are given in turn among half as many again as are in use. */
static int ids_slot(struct ipc_ids *ids, uint32_t *out_slot)
{
    uint32_t span = MAX(ids->used * 3 / 2, IPC_MIN_CYCLE);

    span = MIN(span, IPC_SLOTS);
    while (ids->slot_count < span) {
        int r = ids_grow(ids);
        if (r)
            return r;
    }
    for (uint32_t i = 0; i < span; i++) {
        const uint32_t slot = (ids->next + i) % span;
        if (ids->slots[slot])
            continue;
        *out_slot = slot;
        return 0;
    }
    return -ENOSPC;
}

static int ids_add(struct ipc_ids *ids, struct ipc_object *o)
{
    uint32_t slot = 0;
    int r = ids_slot(ids, &slot);

    if (r)
        return r;
    if ((int32_t)slot <= ids->last)
        ids->seq = (uint16_t)((ids->seq + 1u) % (IPC_SEQ_MAX + 0u));
    ids->last = (int32_t)slot;
    ids->next = slot + 1;
    ids->slots[slot] = o;
    ids->used++;
    o->seq = ids->seq;
    o->id = (int32_t)((uint32_t)ids->seq << IPC_SLOT_BITS | slot);
    o->in_table = true;
    if (o->key != IPC_PRIVATE) {
        struct ipc_object **chain = ids_chain(ids, o->key);
        o->hash_next = *chain;
        *chain = o;
    }
    return o->id;
}

static void ids_take_out(struct ipc_ids *ids, struct ipc_object *o)
{
    ids_unhash(ids, o);
    ids->slots[(uint32_t)o->id % IPC_SLOTS] = NULL;
    ids->used--;
    o->in_table = false;
}

/* ---- *get ---- */

static int ids_create(struct ipc_ns *ns, const struct ipc_caller *c, struct ipc_ids *ids,
                      const struct ipc_get *g, struct ipc_object **out_failed)
{
    struct ipc_object *o;

    if (ids->used >= g->max)
        return -ENOSPC;
    int r = g->make(ns, c, g, &o);
    if (r)
        return r;
    r = ids_add(ids, o);
    if (r < 0)
        *out_failed = o;
    return r;
}

static int ids_open(struct ipc_object *o, const struct ipc_caller *c, const struct ipc_get *g)
{
    int r = 0;

    if ((g->flags & IPC_CREAT) && (g->flags & IPC_EXCL))
        return -EEXIST;
    mutex_lock(&o->mu);
    if (g->fits)
        r = g->fits(o, g);
    if (r == 0)
        r = ipc_check(o, c, (uint32_t)g->flags);
    mutex_unlock(&o->mu);
    return r ? r : o->id;
}

int ipc_get(struct ipc_ns *ns, const struct ipc_caller *c, enum ipc_kind kind,
            const struct ipc_get *g)
{
    struct ipc_ids *ids = &ns->ids[kind];
    struct ipc_object *o = NULL, *failed = NULL;
    int r;

    mutex_lock(&ids->mu);
    if (g->key != IPC_PRIVATE)
        o = ids_by_key(ids, g->key);
    if (o)
        r = ids_open(o, c, g);
    else if (g->key != IPC_PRIVATE && !(g->flags & IPC_CREAT))
        r = -ENOENT;
    else
        r = ids_create(ns, c, ids, g, &failed);
    mutex_unlock(&ids->mu);
    if (failed)
        ipc_object_put(failed);
    return r;
}

/* ---- finding ---- */

int ipc_find(struct ipc_ns *ns, enum ipc_kind kind, int32_t id, enum ipc_by by,
             struct ipc_object **out)
{
    struct ipc_ids *ids = &ns->ids[kind];
    const uint32_t slot = (uint32_t)id % IPC_SLOTS;
    int r = -EINVAL;

    if (id < 0 || (by != IPC_BY_ID && (uint32_t)id >= IPC_SLOTS))
        return -EINVAL;
    mutex_lock(&ids->mu);
    struct ipc_object *o = slot < ids->slot_count ? ids->slots[slot] : NULL;
    if (o && (by != IPC_BY_ID || o->id == id) && ref_tryget(&o->ref)) {
        *out = o;
        r = 0;
    }
    mutex_unlock(&ids->mu);
    return r;
}

int ipc_lock_id(struct ipc_ns *ns, enum ipc_kind kind, int32_t id, struct ipc_object **out)
{
    int r = ipc_find(ns, kind, id, IPC_BY_ID, out);

    if (r)
        return r;
    mutex_lock(&(*out)->mu);
    if (!atomic_load(&(*out)->gone))
        return 0;
    mutex_unlock(&(*out)->mu);
    ipc_object_put(*out);
    return -EIDRM;
}

int ipc_max_slot(struct ipc_ns *ns, enum ipc_kind kind)
{
    struct ipc_ids *ids = &ns->ids[kind];
    int max = 0;

    mutex_lock(&ids->mu);
    for (uint32_t i = ids->slot_count; i > 0 && max == 0; i--)
        if (ids->slots[i - 1])
            max = (int)i - 1;
    mutex_unlock(&ids->mu);
    return max;
}

uint32_t ipc_count(struct ipc_ns *ns, enum ipc_kind kind)
{
    struct ipc_ids *ids = &ns->ids[kind];

    mutex_lock(&ids->mu);
    const uint32_t used = ids->used;
    mutex_unlock(&ids->mu);
    return used;
}

/* ---- removing ---- */

bool ipc_remove(struct ipc_object *o)
{
    struct ipc_ids *ids = &o->ns->ids[o->kind];

    mutex_lock(&ids->mu);
    const bool mine = o->in_table && !o->weak;
    if (mine)
        ids_take_out(ids, o);
    mutex_unlock(&ids->mu);
    return mine;
}

bool ipc_weaken(struct ipc_object *o)
{
    struct ipc_ids *ids = &o->ns->ids[o->kind];

    mutex_lock(&ids->mu);
    const bool mine = o->in_table && !o->weak;
    if (mine) {
        ids_unhash(ids, o);
        mutex_lock(&o->mu);
        o->key = IPC_PRIVATE;
        mutex_unlock(&o->mu);
        o->weak = true;
    }
    mutex_unlock(&ids->mu);
    return mine;
}

void ipc_forget(struct ipc_object *o)
{
    struct ipc_ids *ids = &o->ns->ids[o->kind];

    mutex_lock(&ids->mu);
    if (o->in_table)
        ids_take_out(ids, o);
    mutex_unlock(&ids->mu);
}

static void object_remove(struct ipc_object *o)
{
    switch (o->kind) {
    case IPC_KIND_SHM:
        ipc_shm_remove(o);
        break;
    case IPC_KIND_SEM:
        ipc_sem_remove(o);
        break;
    case IPC_KIND_MSG:
        ipc_msg_remove(o);
        break;
    case IPC_KINDS:
    default:
        BUG_ON(true);
    }
}

void ipc_ids_clear(struct ipc_ns *ns, enum ipc_kind kind)
{
    for (uint32_t slot = 0; slot < ns->ids[kind].slot_count; slot++) {
        struct ipc_object *o;
        if (ipc_find(ns, kind, (int32_t)slot, IPC_BY_SLOT_ANY, &o) != 0)
            continue;
        object_remove(o);
        ipc_object_put(o);
    }
}
