#include "sentry/kernel/aio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/limits.h"
#include "base/objcount.h"
#include "platform/platform.h"
#include "sentry/kernel/aio_priv.h"
#include "sentry/mem/memfile.h"

OBJCOUNT_DEFINE(aio_ctx);

static _Atomic unsigned all_requests;

/* ---- the page ---- */

static struct aio_ctx *aio_of(struct mappable *m)
{
    return container_of(m, struct aio_ctx, m);
}

static int aio_translate(struct mappable *m, uint64_t off, uint64_t size, unsigned access,
                         struct mappable_range *out)
{
    struct aio_ctx *a = aio_of(m);

    (void)access;
    (void)size;
    if (off >= PAGE_SIZE)
        return -ERANGE;
    *out = (struct mappable_range){.in_memfile = true, .fd = -1, .off = a->page, .size = PAGE_SIZE};
    return memfile_ref(a->mf, a->page, PAGE_SIZE);
}

static void aio_map_get(struct mappable *m)
{
    ref_get(&aio_of(m)->ref);
}

void aio_put(struct aio_ctx *a)
{
    if (!ref_put(&a->ref))
        return;
    aio_polls_drop(a);
    atomic_fetch_sub(&all_requests, a->max);
    mappable_fini(&a->m);
    memfile_unref(a->mf, a->page, PAGE_SIZE);
    waitq_fini(&a->wq);
    mutex_destroy(&a->mu);
    free(a->done);
    OBJCOUNT_DEC(aio_ctx);
    free(a);
}

static void aio_map_put(struct mappable *m)
{
    aio_put(aio_of(m));
}

static void aio_describe(struct mappable *m, uint64_t *out_dev, uint64_t *out_ino, char *path,
                         size_t size)
{
    (void)m;
    *out_dev = 0;
    *out_ino = 0;
    (void)snprintf(path, size, "/[aio] (deleted)");
}

static const struct mappable_ops aio_ops = {
    .translate = aio_translate,
    .get = aio_map_get,
    .put = aio_map_put,
    .describe = aio_describe,
};

/* ---- life ---- */

static int aio_alloc(struct memfile *mf, const struct mm *mm, unsigned nr, struct aio_ctx **out)
{
    struct aio_ctx *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return -ENOMEM;
    a->done = calloc(nr, sizeof(*a->done));
    int r = a->done != NULL ? memfile_alloc(mf, NULL, PAGE_SIZE, &a->page) : -ENOMEM;
    if (r != 0) {
        free(a->done);
        free(a);
        return r;
    }
    mappable_init(&a->m, &aio_ops);
    ref_init(&a->ref);
    a->mf = mf;
    a->mm = mm;
    a->max = nr;
    mutex_init(&a->mu, LOCK_RANK_PIPE);
    list_init(&a->polls);
    list_init(&a->over);
    waitq_init(&a->wq);
    OBJCOUNT_INC(aio_ctx);
    *out = a;
    return 0;
}

int aio_new(struct memfile *mf, const struct uaccess *ua, const struct mm_limits *lim, unsigned nr,
            uaddr_t *out_addr)
{
    struct aio_ctx *a;

    if (nr > LIMIT_AIO_REQUESTS || atomic_fetch_add(&all_requests, nr) > LIMIT_AIO_REQUESTS - nr) {
        if (nr <= LIMIT_AIO_REQUESTS)
            atomic_fetch_sub(&all_requests, nr);
        return -EAGAIN;
    }
    int r = aio_alloc(mf, ua->mm, nr, &a);
    if (r != 0) {
        atomic_fetch_sub(&all_requests, nr);
        return r;
    }
    const struct mm_map_args args = {
        .size = PAGE_SIZE,
        .prot = PROT_READ | PROT_WRITE,
        .flags = MAP_SHARED,
        .max_prot = PROT_READ | PROT_WRITE,
        .m = &a->m,
    };
    r = mm_mmap(ua->mm, ua->ctx, lim, &args, out_addr);
    aio_put(a);
    return r;
}

int aio_find(const struct uaccess *ua, uaddr_t addr, struct aio_ctx **out)
{
    struct mappable *m;
    int r = mm_find_object(ua->mm, addr, &aio_ops, &m);

    if (r != 0)
        return r;
    struct aio_ctx *a = aio_of(m);
    mutex_lock(&a->mu);
    bool mine = a->mm == ua->mm && !a->dead;
    mutex_unlock(&a->mu);
    if (!mine) {
        aio_put(a);
        return -EINVAL;
    }
    *out = a;
    return 0;
}

int aio_destroy(const struct uaccess *ua, uaddr_t addr)
{
    struct aio_ctx *a;
    struct mappable *m;
    int r = aio_find(ua, addr, &a);

    if (r != 0)
        return r;
    mutex_lock(&a->mu);
    r = a->dead ? -EINVAL : 0;
    a->dead = true;
    mutex_unlock(&a->mu);
    (void)waitq_wake(&a->wq, 0);
    aio_polls_drop(a);
    if (r == 0 && mm_detach(ua->mm, ua->ctx, addr, &aio_ops, &m) == 0)
        aio_map_put(m);
    aio_put(a);
    return r;
}

unsigned aio_size(const struct aio_ctx *a)
{
    return a->max;
}

/* ---- requests ---- */

int aio_begin(struct aio_ctx *a)
{
    aio_polls_reap(a);
    mutex_lock(&a->mu);
    int r = a->dead ? -EINVAL : a->used < a->max ? 0 : -EAGAIN;
    if (r == 0)
        a->used++;
    mutex_unlock(&a->mu);
    return r;
}

void aio_abort(struct aio_ctx *a)
{
    mutex_lock(&a->mu);
    a->used--;
    mutex_unlock(&a->mu);
}

void aio_complete(struct aio_ctx *a, const struct io_event *e)
{
    mutex_lock(&a->mu);
    a->done[(a->first + a->count) % a->max] = *e;
    a->count++;
    mutex_unlock(&a->mu);
    (void)waitq_wake(&a->wq, 0);
}

unsigned aio_take(struct aio_ctx *a, struct io_event *out, unsigned max)
{
    unsigned n = 0;

    mutex_lock(&a->mu);
    for (; n < max && a->count > 0; n++) {
        out[n] = a->done[a->first];
        a->first = (a->first + 1) % a->max;
        a->count--;
        a->used--;
    }
    mutex_unlock(&a->mu);
    return n;
}

void aio_give_back(struct aio_ctx *a, const struct io_event *ev, unsigned count)
{
    mutex_lock(&a->mu);
    /* Unless others have begun so many requests meanwhile. */
    while (count > 0 && a->used < a->max) {
        a->first = (a->first + a->max - 1) % a->max;
        a->done[a->first] = ev[--count];
        a->count++;
        a->used++;
    }
    mutex_unlock(&a->mu);
}

static bool aio_ready(struct aio_ctx *a, unsigned min, bool *out_dead)
{
    mutex_lock(&a->mu);
    *out_dead = a->dead;
    bool ready = a->dead || a->count >= min;
    mutex_unlock(&a->mu);
    return ready;
}

int aio_wait(struct aio_ctx *a, unsigned min, struct blocker *b, deadline_t deadline)
{
    bool dead = false;
    int err;

    WAIT_EVENT(&a->wq, b, 0, deadline, aio_ready(a, min, &dead), err);
    return err != 0 ? err : dead ? -EINVAL : 0;
}
