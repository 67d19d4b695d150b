/* System V shared memory (ipc/shm.c): a range of the memory file that is mapped by id. */
#include "sentry/ipc/shm.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/shm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/ckd.h"
#include "sentry/ipc/ipc_priv.h"
#include "sentry/mem/memacct.h"
#include "sentry/mem/memfile.h"
#include "sentry/mm/mm.h"

OBJCOUNT_DEFINE(ipc_shm);

struct ipc_shm {
    struct ipc_object o;
    struct mappable m;
    /* immutable */
    uint64_t size, pages; /* as asked for; whole pages of it */
    uint64_t off;         /* in the memory file */
    uint64_t promised;    /* bytes charged */
    int32_t cpid;
    /* atomic */
    _Atomic uint64_t attached; /* VMAs */
    _Atomic int64_t atime, dtime, ctime;
    _Atomic int32_t lpid;
};

static struct ipc_shm *shm_of(struct ipc_object *o)
{
    return container_of(o, struct ipc_shm, o);
}

static struct ipc_shm *shm_of_mappable(struct mappable *m)
{
    return container_of(m, struct ipc_shm, m);
}

/* ---- what mm asks ---- */

static int shm_translate(struct mappable *m, uint64_t off, uint64_t size, unsigned access,
                         struct mappable_range *out)
{
    struct ipc_shm *s = shm_of_mappable(m);
    const uint64_t end = s->pages << PAGE_SHIFT;

    (void)access;
    if (off >= end)
        return -ERANGE;
    *out = (struct mappable_range){
        .in_memfile = true, .fd = -1, .off = s->off + off, .size = MIN(size, end - off)};
    return memfile_ref(s->o.ns->mf, out->off, out->size);
}

static void shm_get(struct mappable *m)
{
    ref_get(&shm_of_mappable(m)->o.ref);
}

static void shm_put(struct mappable *m)
{
    ipc_object_put(&shm_of_mappable(m)->o);
}

static int shm_punch(struct mappable *m, uint64_t off, uint64_t size)
{
    struct ipc_shm *s = shm_of_mappable(m);
    const uint64_t end = s->pages << PAGE_SHIFT;

    if (off < end)
        memfile_zero(s->o.ns->mf, s->off + off, MIN(size, end - off));
    return 0;
}

static void shm_mapped(struct mappable *m, bool added)
{
    struct ipc_shm *s = shm_of_mappable(m);

    if (added) {
        atomic_fetch_add(&s->attached, 1);
        atomic_store(&s->atime, ipc_now());
    } else {
        atomic_fetch_sub(&s->attached, 1);
        atomic_store(&s->dtime, ipc_now());
    }
}

static void shm_describe(struct mappable *m, uint64_t *out_dev, uint64_t *out_ino, char *path,
                         size_t size)
{
    struct ipc_shm *s = shm_of_mappable(m);

    *out_dev = 1; /* as shared anonymous memory */
    *out_ino = (uint64_t)s->o.id;
    (void)snprintf(path, size, "/SYSV%08x (deleted)", (unsigned)s->o.key);
}

static const struct mappable_ops shm_mappable_ops = {
    .translate = shm_translate,
    .get = shm_get,
    .put = shm_put,
    .punch = shm_punch,
    .mapped = shm_mapped,
    .describe = shm_describe,
};

/* ---- life ---- */

static int shm_make(struct ipc_ns *ns, const struct ipc_caller *c, const struct ipc_get *g,
                    struct ipc_object **out)
{
    uint64_t whole;
    struct ipc_shm *s;
    int r;

    if (g->size == 0 || g->size > ipc_limit_get(ns, IPC_SHMMAX))
        return -EINVAL;
    if (ckd_align_up(&whole, g->size, PAGE_SIZE))
        return -ENOSPC;
    if ((g->flags & SHM_HUGETLB) && !cred_capable(c->cred, CAP_IPC_LOCK))
        return -EPERM;
    /* There is no pool of huge pages, and what all of the memory could not hold is refused. */
    if ((g->flags & SHM_HUGETLB) || whole > memfile_budget(ns->mf))
        return -ENOMEM;
    struct mem_commit *mc = memfile_commit(ns->mf);
    const bool promise = !(g->flags & SHM_NORESERVE) || atomic_load(&mc->mode) == MEM_COMMIT_NEVER;
    if (promise && !memfile_may_commit(ns->mf, whole, 0, cred_capable(c->cred, CAP_SYS_ADMIN)))
        return -ENOMEM;
    if (!ipc_count_add(&ns->shm_pages, whole >> PAGE_SHIFT, ipc_limit_get(ns, IPC_SHMALL)))
        return -ENOSPC;
    struct memacct *acct = c->mm ? mm_account(c->mm) : NULL;
    s = calloc(1, sizeof(*s));
    r = s ? memfile_alloc_flags(ns->mf, acct, whole, MEMFILE_LAZY, &s->off, NULL) : -ENOMEM;
    memacct_put(acct);
    if (r) {
        free(s);
        atomic_fetch_sub(&ns->shm_pages, whole >> PAGE_SHIFT);
        return r;
    }
    ipc_object_init(&s->o, ns, IPC_KIND_SHM, c, g);
    mappable_init(&s->m, &shm_mappable_ops);
    s->size = g->size;
    s->pages = whole >> PAGE_SHIFT;
    s->promised = promise ? whole : 0;
    mem_commit_charge(memfile_commit(ns->mf), s->promised);
    s->cpid = c->pid;
    atomic_init(&s->ctime, ipc_now());
    OBJCOUNT_INC(ipc_shm);
    *out = &s->o;
    return 0;
}

void ipc_shm_free(struct ipc_object *o)
{
    struct ipc_shm *s = shm_of(o);

    ipc_forget(o);
    mappable_fini(&s->m);
    memfile_unref(o->ns->mf, s->off, s->pages << PAGE_SHIFT);
    mem_commit_release(memfile_commit(o->ns->mf), s->promised);
    atomic_fetch_sub(&o->ns->shm_pages, s->pages);
    ipc_object_fini(o);
    OBJCOUNT_DEC(ipc_shm);
    free(s);
}

/* What is attached stays till the last VMA goes, under its id but without its key. */
void ipc_shm_remove(struct ipc_object *o)
{
    mutex_lock(&o->mu);
    o->mode |= IPC_MODE_DEST;
    mutex_unlock(&o->mu);
    if (ipc_weaken(o))
        ipc_object_put(o);
}

/* A removed segment ends with its last VMA; its memory a moment later. */
static bool shm_over(struct ipc_object *o)
{
    mutex_lock(&o->mu);
    const bool over = (o->mode & IPC_MODE_DEST) && atomic_load(&shm_of(o)->attached) == 0;
    mutex_unlock(&o->mu);
    return over;
}

static int shm_find(struct ipc_ns *ns, int32_t id, enum ipc_by by, struct ipc_object **out)
{
    int r = ipc_find(ns, IPC_KIND_SHM, id, by, out);

    if (r || !shm_over(*out))
        return r;
    ipc_object_put(*out);
    return -EINVAL;
}

/* Locked. */
static int shm_lock_id(struct ipc_ns *ns, int32_t id, struct ipc_object **out)
{
    int r = shm_find(ns, id, IPC_BY_ID, out);

    if (r == 0)
        mutex_lock(&(*out)->mu);
    return r;
}

static int shm_fits(struct ipc_object *o, const struct ipc_get *g)
{
    return shm_of(o)->size < g->size ? -EINVAL : 0;
}

int ipc_shmget(struct ipc_ns *ns, const struct ipc_caller *c, int32_t key, uint64_t size, int flags)
{
    const struct ipc_get g = {
        .key = key,
        .flags = flags,
        .size = size,
        .make = shm_make,
        .fits = shm_fits,
        .max = ipc_limit_get(ns, IPC_SHMMNI),
    };

    return ipc_get(ns, c, IPC_KIND_SHM, &g);
}

/* ---- attaching ---- */

struct shm_attach {
    uint64_t addr;
    int prot, max_prot, map_flags;
    uint32_t want;
};

static int shm_attach_args(uaddr_t addr, int flags, struct shm_attach *a)
{
    *a = (struct shm_attach){
        .addr = addr.v,
        .prot = PROT_READ | PROT_WRITE,
        .max_prot = PROT_READ | PROT_WRITE | PROT_EXEC,
        .map_flags = MAP_SHARED,
        .want = IPC_READ | IPC_WRITE,
    };
    if (a->addr != 0) {
        if (flags & SHM_RND)
            a->addr = ALIGN_DOWN(a->addr, (uint64_t)PAGE_SIZE);
        if (!IS_ALIGNED(a->addr, PAGE_SIZE) || (a->addr == 0 && (flags & SHM_REMAP)))
            return -EINVAL;
    } else if (flags & SHM_REMAP) {
        return -EINVAL;
    }
    if (addr.v != 0)
        a->map_flags |= flags & SHM_REMAP ? MAP_FIXED : MAP_FIXED_NOREPLACE;
    if (flags & SHM_RDONLY) {
        a->prot = PROT_READ;
        a->max_prot = PROT_READ | PROT_EXEC;
        a->want = IPC_READ;
    }
    if (flags & SHM_EXEC) {
        a->prot |= PROT_EXEC;
        a->want |= IPC_EXEC;
    }
    return 0;
}

int ipc_shmat(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, uaddr_t addr, int flags,
              const struct uaccess *ua, const struct mm_limits *lim, uaddr_t *out_addr)
{
    struct shm_attach a;
    struct ipc_object *o;
    int r = id < 0 ? -EINVAL : shm_attach_args(addr, flags, &a);

    if (r == 0)
        r = shm_lock_id(ns, id, &o);
    if (r)
        return r;
    r = ipc_check(o, c, a.want);
    mutex_unlock(&o->mu);
    struct ipc_shm *s = shm_of(o);
    const struct mm_map_args args = {
        .addr = uaddr(a.addr),
        .size = s->pages << PAGE_SHIFT,
        .prot = a.prot,
        .flags = a.map_flags,
        .max_prot = a.max_prot,
        .m = &s->m,
    };
    if (r == 0)
        r = mm_mmap(ua->mm, ua->ctx, lim, &args, out_addr);
    if (r == 0)
        atomic_store(&s->lpid, c->pid);
    ipc_object_put(o);
    return r == -EEXIST ? -EINVAL : r;
}

int ipc_shmdt(const struct ipc_caller *c, uaddr_t addr, const struct uaccess *ua)
{
    struct mappable *m;

    if (!IS_ALIGNED(addr.v, PAGE_SIZE))
        return -EINVAL;
    int r = mm_detach(ua->mm, ua->ctx, addr, &shm_mappable_ops, &m);
    if (r)
        return r;
    atomic_store(&shm_of_mappable(m)->lpid, c->pid);
    m->ops->put(m);
    return 0;
}

/* ---- shmctl ---- */

int ipc_shm_stat(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, enum ipc_by by,
                 struct ipc_shm_info *out)
{
    struct ipc_object *o;
    int r = shm_find(ns, id, by, &o);

    if (r)
        return r;
    struct ipc_shm *s = shm_of(o);
    mutex_lock(&o->mu);
    r = by == IPC_BY_SLOT_ANY ? 0 : ipc_check(o, c, IPC_READ);
    *out = (struct ipc_shm_info){
        .size = s->size,
        .attached = atomic_load(&s->attached),
        .atime = atomic_load(&s->atime),
        .dtime = atomic_load(&s->dtime),
        .ctime = atomic_load(&s->ctime),
        .cpid = s->cpid,
        .lpid = atomic_load(&s->lpid),
    };
    ipc_perm_show(o, &out->perm);
    mutex_unlock(&o->mu);
    if (r == 0)
        out->resident = memfile_resident_range(ns->mf, s->off, s->pages << PAGE_SHIFT);
    ipc_object_put(o);
    return r ? r : out->perm.id;
}

int ipc_shm_set(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                const struct ipc_perm_set *set)
{
    struct ipc_object *o;
    int r = shm_lock_id(ns, id, &o);

    if (r)
        return r;
    r = ipc_check_owner(o, c);
    if (r == 0)
        r = ipc_perm_change(o, set);
    if (r == 0)
        atomic_store(&shm_of(o)->ctime, ipc_now());
    mutex_unlock(&o->mu);
    ipc_object_put(o);
    return r;
}

int ipc_shm_rmid(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id)
{
    struct ipc_object *o;
    int r = shm_lock_id(ns, id, &o);

    if (r)
        return r;
    r = ipc_check_owner(o, c);
    mutex_unlock(&o->mu);
    if (r == 0)
        ipc_shm_remove(o);
    ipc_object_put(o);
    return r;
}

int ipc_shm_lock(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, bool lock)
{
    struct ipc_object *o;
    int r = shm_lock_id(ns, id, &o);

    if (r)
        return r;
    if (!cred_capable(c->cred, CAP_IPC_LOCK)) {
        if (c->cred->euid != o->uid && c->cred->euid != o->cuid)
            r = -EPERM;
        if (lock && c->memlock == 0)
            r = -EPERM;
    }
    if (r == 0)
        o->mode = lock ? o->mode | IPC_MODE_LOCKED : o->mode & ~IPC_MODE_LOCKED;
    mutex_unlock(&o->mu);
    ipc_object_put(o);
    return r;
}

uint64_t ipc_shm_pages(struct ipc_ns *ns)
{
    return atomic_load(&ns->shm_pages);
}
