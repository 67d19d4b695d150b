/* A platform whose address spaces are parts of the test's own: what mm maps is really mapped, at an
 * offset, and guest accesses are real accesses that fault.
 * Depends on: platform/platform.h, sentry/mm.
 * Threading: as platform.h asks; commits are serialised by the mm lock.
 * Ownership: each test program includes it once. */
#ifndef RINGWALL_TESTS_MM_FAKE_H
#define RINGWALL_TESTS_MM_FAKE_H

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/objcount.h"
#include "base/ref.h"
#include "sentry/mem/memfile.h"
#include "sentry/mm/mm.h"
#include "sentry/mm/safecopy.h"
#include "sentry/mm/shmem.h"
#include "sentry/mm/uio.h"
#include "sentry/mm/usercopy.h"

#define FAKE_MIN 0x10000ull
#define FAKE_MAX (1ull << 36)
#define FAKE_RESERVED_START 0x700000000ull
#define FAKE_RESERVED_END 0x700010000ull
#define FAKE_OPS 4096
#define FAKE_SEGS 8192

enum fake_kind { FAKE_MAP, FAKE_UNMAP, FAKE_PROTECT };
struct fake_op {
    enum fake_kind kind;
    uint64_t addr, size, off;
    unsigned access;
    int fd;
};
struct fake_seg {
    uint64_t start, end, off;
    unsigned access;
    int fd;
};
struct fake_as {
    struct plat_as base;
    struct ref ref;
    char *mem;
    struct fake_op ops[FAKE_OPS];
    size_t op_count;
    struct fake_seg segs[FAKE_SEGS];
    size_t seg_count;
};
struct fake_ctx {
    struct plat_ctx base;
    struct fake_as *as;
};

static _Atomic long fake_commits, fake_ops_done, fake_as_live;
static int fake_queue_limit = FAKE_OPS;
static int fake_refused_fd = -1; /* mappings of it fail */

static inline struct fake_as *fake_as(struct plat_as *as)
{
    return container_of(as, struct fake_as, base);
}

static inline struct fake_ctx *fake_ctx(struct plat_ctx *ctx)
{
    return container_of(ctx, struct fake_ctx, base);
}

static inline int fake_prot(unsigned access)
{
    return (access & PLAT_READ ? PROT_READ : 0) | (access & PLAT_WRITE ? PROT_WRITE : 0) |
           (access & PLAT_EXEC ? PROT_READ : 0);
}

static inline int fake_as_create(struct plat *p, struct plat_as **out_as)
{
    struct fake_as *as = calloc(1, sizeof(*as));
    as->base.plat = p;
    ref_init(&as->ref);
    as->mem = mmap(NULL, FAKE_MAX, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert(as->mem != MAP_FAILED);
    atomic_fetch_add(&fake_as_live, 1);
    *out_as = &as->base;
    return 0;
}

static inline void fake_as_put(struct plat_as *base)
{
    struct fake_as *as = fake_as(base);
    if (!ref_put(&as->ref))
        return;
    munmap(as->mem, FAKE_MAX);
    atomic_fetch_sub(&fake_as_live, 1);
    free(as);
}

static inline int fake_push(struct plat_as *base, struct fake_op op)
{
    struct fake_as *as = fake_as(base);
    cr_assert(op.addr % PAGE_SIZE == 0 && op.size % PAGE_SIZE == 0 && op.size > 0);
    cr_assert(op.addr >= FAKE_MIN && op.addr + op.size <= FAKE_MAX);
    cr_assert(op.addr + op.size <= FAKE_RESERVED_START || op.addr >= FAKE_RESERVED_END);
    if (as->op_count >= (size_t)fake_queue_limit)
        return -ENOMEM;
    as->ops[as->op_count++] = op;
    return 0;
}

static inline int fake_map(struct plat_as *as, uaddr_t addr, uint64_t size, unsigned access, int fd,
                           uint64_t off, unsigned flags)
{
    (void)flags;
    return fake_push(as, (struct fake_op){FAKE_MAP, addr.v, size, off, access, fd});
}

static inline int fake_unmap(struct plat_as *as, uaddr_t addr, uint64_t size)
{
    return fake_push(as, (struct fake_op){FAKE_UNMAP, addr.v, size, 0, 0, -1});
}

static inline int fake_protect(struct plat_as *as, uaddr_t addr, uint64_t size, unsigned access)
{
    return fake_push(as, (struct fake_op){FAKE_PROTECT, addr.v, size, 0, access, -1});
}

static inline void fake_seg_add(struct fake_as *as, struct fake_seg s)
{
    cr_assert(as->seg_count < FAKE_SEGS);
    as->segs[as->seg_count++] = s;
}

/* Cuts [start, end) out of every segment; protect: it stays with other access. */
static inline void fake_segs_cut(struct fake_as *as, const struct fake_op *op)
{
    uint64_t start = op->addr, end = op->addr + op->size;
    size_t n = as->seg_count;
    for (size_t i = 0; i < n;) {
        struct fake_seg s = as->segs[i];
        if (s.end <= start || s.start >= end) {
            i++;
            continue;
        }
        as->segs[i] = as->segs[--n];
        as->segs[n] = as->segs[--as->seg_count];
        if (s.start < start)
            fake_seg_add(as, (struct fake_seg){s.start, start, s.off, s.access, s.fd});
        if (s.end > end)
            fake_seg_add(as,
                         (struct fake_seg){end, s.end, s.off + (end - s.start), s.access, s.fd});
        uint64_t lo = MAX(s.start, start), hi = MIN(s.end, end);
        if (op->kind == FAKE_PROTECT)
            fake_seg_add(as, (struct fake_seg){lo, hi, s.off + (lo - s.start), op->access, s.fd});
    }
}

static inline void fake_seg_host(struct fake_as *as, const struct fake_seg *s)
{
    void *p = mmap(as->mem + s->start, s->end - s->start, fake_prot(s->access),
                   MAP_SHARED | MAP_FIXED, s->fd, (off_t)s->off);
    cr_assert(p != MAP_FAILED, "%d", errno);
}

static inline int fake_do(struct fake_as *as, const struct fake_op *op)
{
    fake_segs_cut(as, op);
    atomic_fetch_add(&fake_ops_done, 1);
    if (op->kind == FAKE_MAP && op->fd == fake_refused_fd)
        return -EPERM;
    if (op->kind == FAKE_MAP) {
        struct fake_seg s = {op->addr, op->addr + op->size, op->off, op->access, op->fd};
        fake_seg_add(as, s);
        fake_seg_host(as, &s);
    } else if (op->kind == FAKE_UNMAP) {
        void *p = mmap(as->mem + op->addr, op->size, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        cr_assert(p != MAP_FAILED);
    } else {
        for (size_t i = 0; i < as->seg_count; i++) {
            struct fake_seg *s = &as->segs[i];
            if (s->start >= op->addr && s->end <= op->addr + op->size)
                cr_assert(mprotect(as->mem + s->start, s->end - s->start, fake_prot(s->access)) ==
                          0);
        }
    }
    return 0;
}

static inline int fake_commit(struct plat_as *base, struct plat_ctx *ctx)
{
    struct fake_as *as = fake_as(base);
    (void)ctx;
    if (as->op_count == 0)
        return 0;
    atomic_fetch_add(&fake_commits, 1);
    int err = 0;
    for (size_t i = 0; i < as->op_count; i++) {
        int r = fake_do(as, &as->ops[i]);
        err = err ? err : r;
    }
    as->op_count = 0;
    return err;
}

static inline int fake_ctx_create(struct plat *p, struct plat_as *as, struct plat_ctx **out_ctx)
{
    struct fake_ctx *c = calloc(1, sizeof(*c));
    c->base.plat = p;
    c->as = fake_as(as);
    ref_get(&c->as->ref);
    *out_ctx = &c->base;
    return 0;
}

static inline int fake_ctx_fork(struct plat_ctx *parent, struct plat_as **out_as,
                                struct plat_ctx **out_child)
{
    struct fake_as *from = fake_ctx(parent)->as;
    struct plat_as *as = &from->base;
    if (out_as) {
        fake_commit(&from->base, parent);
        fake_as_create(parent->plat, &as);
        memcpy(fake_as(as)->segs, from->segs, sizeof(from->segs));
        fake_as(as)->seg_count = from->seg_count;
        for (size_t i = 0; i < from->seg_count; i++)
            fake_seg_host(fake_as(as), &from->segs[i]);
        *out_as = as;
    }
    return fake_ctx_create(parent->plat, as, out_child);
}

static inline void fake_ctx_destroy(struct plat_ctx *ctx)
{
    fake_as_put(&fake_ctx(ctx)->as->base);
    free(fake_ctx(ctx));
}

static const struct plat_as_ops fake_as_ops = {
    .create = fake_as_create,
    .map = fake_map,
    .unmap = fake_unmap,
    .protect = fake_protect,
    .commit = fake_commit,
    .put = fake_as_put,
};
static const struct plat_ctx_ops fake_ctx_ops = {
    .create = fake_ctx_create,
    .fork = fake_ctx_fork,
    .destroy = fake_ctx_destroy,
};
static const struct plat_ops fake_ops = {.name = "fake", .as = &fake_as_ops, .ctx = &fake_ctx_ops};
static struct plat fake_plat = {
    .ops = &fake_ops,
    .min_addr = FAKE_MIN,
    .max_addr = FAKE_MAX,
    .reserved = {{FAKE_RESERVED_START, FAKE_RESERVED_END}},
    .reserved_count = 1,
};

/* ---- a guest ---- */

struct guest {
    struct mm *mm;
    struct plat_ctx *ctx;
    struct uaccess ua;
    struct mm_limits lim;
    struct plat_fault sig; /* of the last access that failed */
    bool exact;            /* the platform tells reads from writes */
    long faults;
};

static struct memfile *fake_mf;

static inline void fake_init(void)
{
    cr_assert(safecopy_init() == 0);
    cr_assert(memfile_new(64ull << 30, &fake_mf) == 0);
}

/* Everything that was made is gone. */
static inline void fake_fini(void)
{
    cr_assert_eq(memfile_reserved(fake_mf), 0u, "memory file pages left");
    cr_assert_eq(atomic_load(&fake_as_live), 0);
    cr_assert_eq(objcount_report(), 0);
    memfile_free(fake_mf);
}

static inline void guest_wrap(struct guest *g, struct mm *mm, struct plat_ctx *ctx)
{
    *g = (struct guest){.mm = mm, .ctx = ctx, .ua = {mm, ctx}};
    g->lim = (struct mm_limits){UINT64_MAX, UINT64_MAX, 8u << 20, 64u << 10, false, false};
}

static inline void guest_new(struct guest *g)
{
    struct mm *mm;
    struct plat_ctx *ctx;
    cr_assert(mm_new(&fake_plat, fake_mf, &mm) == 0);
    mm_loaded(mm);
    cr_assert(plat_ctx_create(&fake_plat, mm_as(mm), &ctx) == 0);
    guest_wrap(g, mm, ctx);
}

static inline int guest_fork(struct guest *g, struct guest *child)
{
    struct mm *mm;
    struct plat_ctx *ctx;
    memset(child, 0, sizeof(*child));
    int err = mm_fork(g->mm, g->ctx, &g->lim, &mm, &ctx);
    if (!err)
        guest_wrap(child, mm, ctx);
    return err;
}

static inline void guest_end(struct guest *g)
{
    fake_ctx_destroy(g->ctx);
    mm_put(g->mm);
}

/* One access as guest code does it: 0, or the number of the signal. */
static inline int guest_access(struct guest *g, uint64_t addr, void *buf, size_t size, bool write)
{
    char *at = fake_ctx(g->ctx)->as->mem + addr, *p = buf;
    for (int tries = 0; tries < 64; tries++) {
        int err = fake_commit(mm_as(g->mm), g->ctx);
        cr_assert(err == 0 || fake_refused_fd >= 0);
        size_t left = write ? safecopy(at, p, size) : safecopy(p, at, size);
        if (left == 0)
            return 0;
        at += size - left;
        p += size - left;
        struct plat_fault f = {.signo = SIGSEGV, .code = SEGV_ACCERR};
        f.addr = addr + (uint64_t)(p - (char *)buf);
        f.access = g->exact ? (write ? PLAT_WRITE : PLAT_READ) : PLAT_ACCESS_UNKNOWN;
        size = left;
        g->faults++;
        if (mm_fault(g->mm, g->ctx, &f, &g->lim, &g->sig) != 0)
            return g->sig.signo;
    }
    cr_assert_fail("a fault that does not end");
    return -1;
}

static inline int guest_write(struct guest *g, uint64_t addr, unsigned char v)
{
    return guest_access(g, addr, &v, 1, true);
}

/* The byte, or the negative number of the signal. */
static inline int guest_read(struct guest *g, uint64_t addr)
{
    unsigned char v;
    int sig = guest_access(g, addr, &v, 1, false);
    return sig ? -sig : v;
}

#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

/* The address, or a negative errno. */
static inline int64_t guest_mmap(struct guest *g, uint64_t addr, uint64_t size, int prot, int flags,
                                 struct mappable *m, uint64_t off)
{
    struct mm_map_args a = {{addr}, size, prot, flags, RWX, m, off, NULL};
    uaddr_t at;
    int err = mm_mmap(g->mm, g->ctx, &g->lim, &a, &at);
    return err ? err : (int64_t)at.v;
}

static inline uint64_t guest_map_ok(struct guest *g, uint64_t addr, uint64_t size, int prot,
                                    int flags)
{
    int64_t at = guest_mmap(g, addr, size, prot, flags, NULL, 0);
    cr_assert(at > 0, "%d", (int)at);
    return (uint64_t)at;
}

static inline int guest_munmap(struct guest *g, uint64_t addr, uint64_t size)
{
    return mm_munmap(g->mm, g->ctx, uaddr(addr), size);
}

static inline int guest_mprotect(struct guest *g, uint64_t addr, uint64_t size, int prot)
{
    return mm_mprotect(g->mm, g->ctx, uaddr(addr), size, prot, &g->lim);
}

static inline int64_t guest_mremap(struct guest *g, uint64_t old, uint64_t old_size,
                                   uint64_t new_size, int flags, uint64_t to)
{
    uaddr_t at;
    int err =
        mm_mremap(g->mm, g->ctx, &g->lim, uaddr(old), old_size, new_size, flags, uaddr(to), &at);
    return err ? err : (int64_t)at.v;
}

/* ---- a host file that can be mapped ---- */

struct fake_file {
    struct mappable m;
    int refs, fd;
    uint64_t size;
    bool read_only;
};

static inline struct fake_file *fake_file_of(struct mappable *m)
{
    return container_of(m, struct fake_file, m);
}

static inline int fake_file_translate(struct mappable *m, uint64_t off, uint64_t size,
                                      unsigned access, struct mappable_range *out)
{
    struct fake_file *f = fake_file_of(m);
    uint64_t whole = ALIGN_UP(f->size, PAGE_SIZE);
    if (access & PLAT_WRITE && f->read_only)
        return -EACCES;
    if (off >= whole)
        return -ERANGE;
    *out = (struct mappable_range){.fd = f->fd, .off = off, .size = MIN(size, whole - off)};
    return 0;
}

static inline void fake_file_get(struct mappable *m)
{
    __atomic_fetch_add(&fake_file_of(m)->refs, 1, __ATOMIC_RELAXED);
}

static inline void fake_file_put(struct mappable *m)
{
    __atomic_fetch_sub(&fake_file_of(m)->refs, 1, __ATOMIC_ACQ_REL);
}

static inline void fake_file_describe(struct mappable *m, uint64_t *out_dev, uint64_t *out_ino,
                                      char *path, size_t size)
{
    (void)m;
    *out_dev = 8;
    *out_ino = 42;
    snprintf(path, size, "/fake/file");
}

static const struct mappable_ops fake_file_ops = {
    .translate = fake_file_translate,
    .get = fake_file_get,
    .put = fake_file_put,
    .describe = fake_file_describe,
};

/* Byte i of it is i / PAGE_SIZE + 1. */
static inline void fake_file_new(struct fake_file *f, uint64_t size)
{
    *f = (struct fake_file){.refs = 1, .size = size};
    mappable_init(&f->m, &fake_file_ops);
    f->fd = memfd_create("fake", MFD_CLOEXEC);
    cr_assert(f->fd >= 0 && ftruncate(f->fd, (off_t)size) == 0);
    for (uint64_t i = 0; i < size; i++) {
        unsigned char v = (unsigned char)(i / PAGE_SIZE + 1);
        cr_assert(pwrite(f->fd, &v, 1, (off_t)i) == 1);
    }
}

static inline int fake_file_byte(struct fake_file *f, uint64_t off)
{
    unsigned char v;
    return pread(f->fd, &v, 1, (off_t)off) == 1 ? v : -1;
}

static inline void fake_file_end(struct fake_file *f)
{
    cr_assert_eq(f->refs, 1);
    mappable_fini(&f->m);
    close(f->fd);
}

#endif
