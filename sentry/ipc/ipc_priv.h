/* Inside sentry/ipc: objects with an id and a key, and their tables.
 * Depends on: ipc.h.
 * Threading: ids.mu (rank IPC_IDS) guards a table; object.mu (rank IPC_OBJECT) an object.
 * Ownership: a table holds one reference on each object, till it is removed. */
#ifndef RINGWALL_SENTRY_IPC_PRIV_H
#define RINGWALL_SENTRY_IPC_PRIV_H

#include <linux/ipc.h>
#include <stdatomic.h>

#include "base/lock.h"
#include "base/objcount.h"
#include "base/ref.h"
#include "sentry/ipc/ipc.h"

#define IPC_SLOT_BITS 15
#define IPC_SLOTS (1u << IPC_SLOT_BITS)
#define IPC_HASH 256u
/* What an object's mode shows beside the permission bits. */
#define IPC_MODE_DEST 01000u
#define IPC_MODE_LOCKED 02000u
#define IPC_READ 0444u
#define IPC_WRITE 0222u
#define IPC_EXEC 0111u

struct ipc_object {
    /* immutable once in a table */
    struct ref ref;
    struct ipc_ns *ns; /* holds a reference on its memory */
    enum ipc_kind kind;
    int32_t id;
    uint16_t seq;
    uint32_t cuid, cgid;

    /* ids.mu */
    struct ipc_object *hash_next;
    bool in_table;
    bool weak; /* the table's reference was given up: removed, but still mapped */

    struct mutex mu; /* rank IPC_OBJECT: guards the rest, and what the kind adds */
    int32_t key;     /* also ids.mu to change */
    uint32_t uid, gid, mode;
    _Atomic bool gone; /* removed: whoever waits for it gives up */
};

struct ipc_ids {
    struct mutex mu; /* rank IPC_IDS: guards the rest */
    struct ipc_object **slots;
    uint32_t slot_count;
    uint32_t used, next;
    int32_t last; /* slot given last */
    uint16_t seq;
    struct ipc_object *hash[IPC_HASH]; /* those with a key */
};

/* Memory of the sentry that all namespaces of a sandbox use for semaphores and messages. */
struct ipc_pool {
    struct ref ref;
    _Atomic uint64_t bytes;
};

struct ipc_ns {
    struct ref users, ref; /* tasks; the memory: users as one, and each object */
    struct memfile *mf;
    struct ipc_pool *pool;
    _Atomic(struct mount_ns *) mqueue; /* owned; NULL till it is used */
    struct ipc_ids ids[IPC_KINDS];
    _Atomic uint64_t limits[IPC_LIMITS];
    _Atomic uint64_t shm_pages, sem_count, msg_count, msg_bytes; /* of all objects */
};

/* ---- ids.c ---- */
/* What a *get call asks for, and how its kind makes and checks an object. */
struct ipc_get {
    int32_t key;
    int flags; /* IPC_CREAT, IPC_EXCL and permission bits */
    uint64_t size;
    /* Owned result, not in a table: ipc_object_init was called on it. */
    int (*make)(struct ipc_ns *ns, const struct ipc_caller *c, const struct ipc_get *g,
                struct ipc_object **out);
    /* Object locked: does it hold what is asked for? -EINVAL. NULL: always. */
    int (*fits)(struct ipc_object *o, const struct ipc_get *g);
    uint64_t max; /* objects of the kind */
};
/* The id. -ENOENT, -EEXIST, -EINVAL, -EACCES, -ENOSPC, -ENOMEM. */
MUST_CHECK int ipc_get(struct ipc_ns *ns, const struct ipc_caller *c, enum ipc_kind kind,
                       const struct ipc_get *g);
void ipc_object_init(struct ipc_object *o, struct ipc_ns *ns, enum ipc_kind kind,
                     const struct ipc_caller *c, const struct ipc_get *g);
/* The rest of an object that nobody has any more. */
void ipc_object_fini(struct ipc_object *o);
/* By id, or by slot when by says so. Owned, not locked. -EINVAL. */
MUST_CHECK int ipc_find(struct ipc_ns *ns, enum ipc_kind kind, int32_t id, enum ipc_by by,
                        struct ipc_object **out);
/* As ipc_find by id, and locked; -EIDRM when it is on its way out. */
MUST_CHECK int ipc_lock_id(struct ipc_ns *ns, enum ipc_kind kind, int32_t id,
                           struct ipc_object **out);
/* Object locked: -EACCES unless c may do what want (IPC_READ, IPC_WRITE, IPC_EXEC) says. */
MUST_CHECK int ipc_check(const struct ipc_object *o, const struct ipc_caller *c, uint32_t want);
/* Object locked: -EPERM unless c owns it (IPC_SET, IPC_RMID). */
MUST_CHECK int ipc_check_owner(const struct ipc_object *o, const struct ipc_caller *c);
void ipc_perm_show(const struct ipc_object *o, struct ipc_perm_info *out);
MUST_CHECK int ipc_perm_change(struct ipc_object *o, const struct ipc_perm_set *set);
/* Takes an object out of its table, once: true for who did, who then owns the table's reference.
 * No lock held. */
MUST_CHECK bool ipc_remove(struct ipc_object *o);
/* The same for what is still mapped: the slot stays, the key and the table's reference go. */
MUST_CHECK bool ipc_weaken(struct ipc_object *o);
/* The last reference of a weakened object has gone: takes it out of the table. */
void ipc_forget(struct ipc_object *o);
void ipc_object_put(struct ipc_object *o);
/* Every object of a table is removed, by the kind's own rules. */
void ipc_ids_clear(struct ipc_ns *ns, enum ipc_kind kind);

/* ---- ns.c ---- */
/* Adds to a count of the namespace unless that passes max. */
MUST_CHECK bool ipc_count_add(_Atomic uint64_t *count, uint64_t n, uint64_t max);
/* Seconds since 1970. */
int64_t ipc_now(void);

/* ---- per kind: what ids.c calls ---- */
void ipc_shm_free(struct ipc_object *o);
void ipc_sem_free(struct ipc_object *o);
void ipc_msg_free(struct ipc_object *o);
void ipc_shm_remove(struct ipc_object *o);
void ipc_sem_remove(struct ipc_object *o);
void ipc_msg_remove(struct ipc_object *o);

#endif
