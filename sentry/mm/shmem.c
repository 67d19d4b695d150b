/* Shared anonymous memory: one extent of the memory file, reserved when it is made and committed by
 * the host page by page. */
#include "sentry/mm/shmem.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/objcount.h"
#include "base/ref.h"
#include "sentry/mem/memfile.h"

OBJCOUNT_DEFINE(shmem);

struct shmem {
    struct mappable m;
    struct ref ref;
    struct memfile *mf;
    uint64_t off, size, ino;
    uint64_t promised; /* bytes charged */
    const char *name;
};

static struct shmem *shmem_of(struct mappable *m)
{
    return container_of(m, struct shmem, m);
}

static int shmem_translate(struct mappable *m, uint64_t off, uint64_t size, unsigned access,
                           struct mappable_range *out)
{
    struct shmem *s = shmem_of(m);
    (void)access;
    if (off >= s->size)
        return -ERANGE;
    *out = (struct mappable_range){
        .in_memfile = true, .fd = -1, .off = s->off + off, .size = MIN(size, s->size - off)};
    return memfile_ref(s->mf, out->off, out->size);
}

static void shmem_get(struct mappable *m)
{
    ref_get(&shmem_of(m)->ref);
}

static void shmem_put(struct mappable *m)
{
    struct shmem *s = shmem_of(m);
    if (!ref_put(&s->ref))
        return;
    mappable_fini(m);
    memfile_unref(s->mf, s->off, s->size);
    mem_commit_release(memfile_commit(s->mf), s->promised);
    OBJCOUNT_DEC(shmem);
    free(s);
}

static int shmem_punch(struct mappable *m, uint64_t off, uint64_t size)
{
    struct shmem *s = shmem_of(m);
    /* The pages stay where they are, so that mappings of them stay true. */
    if (off < s->size)
        memfile_zero(s->mf, s->off + off, MIN(size, s->size - off));
    return 0;
}

static void shmem_describe(struct mappable *m, uint64_t *out_dev, uint64_t *out_ino, char *path,
                           size_t size)
{
    *out_dev = 1; /* Linux: the kernel's own tmpfs, 00:01 */
    *out_ino = shmem_of(m)->ino;
    (void)snprintf(path, size, "%s", shmem_of(m)->name);
}

static const struct mappable_ops shmem_ops = {
    .translate = shmem_translate,
    .get = shmem_get,
    .put = shmem_put,
    .punch = shmem_punch,
    .describe = shmem_describe,
};

int mm_shmem_new(struct memfile *mf, struct memacct *acct, uint64_t size, bool promise,
                 const char *name, struct mappable **out_m)
{
    static _Atomic uint64_t next_ino = 1024;
    struct shmem *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    int err = memfile_alloc_flags(mf, acct, size, MEMFILE_LAZY, &s->off, NULL);
    if (err) {
        free(s);
        return err;
    }
    mappable_init(&s->m, &shmem_ops);
    ref_init(&s->ref);
    s->mf = mf;
    s->size = size;
    s->name = name;
    s->promised = promise ? size : 0;
    mem_commit_charge(memfile_commit(mf), s->promised);
    s->ino = atomic_fetch_add_explicit(&next_ino, 1, memory_order_relaxed);
    OBJCOUNT_INC(shmem);
    *out_m = &s->m;
    return 0;
}

bool mm_is_shmem(const struct mappable *m)
{
    return m->ops == &shmem_ops;
}
