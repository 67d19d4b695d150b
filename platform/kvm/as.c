/* Address spaces: requests are carried out in the tables at once; what the machine has cached goes
 * at the next commit. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/kvm/kvm_priv.h"
#include "platform/stub/change.h"

static int as_alloc(struct kvm_plat *p, struct kvm_as **out_as)
{
    struct kvm_as *as = calloc(1, sizeof(*as));

    if (as == NULL)
        return -ENOMEM;
    as->base.plat = &p->base;
    ref_init(&as->ref);
    mutex_init(&as->mu, LOCK_RANK_PLATFORM);
    int r = kvm_tables_init(p, as);
    if (r == 0)
        r = kvm_patch_init(p, as);
    if (r != 0) {
        kvm_as_put(&as->base);
        return r;
    }
    *out_as = as;
    return 0;
}

static int as_create(struct plat *base, struct plat_as **out_as)
{
    struct kvm_as *as;
    struct kvm_plat *p = kvm_plat(base);
    int r = as_alloc(p, &as);

    if (r != 0)
        return r;
    r = kvm_tables_reserve(as, p->vdso_va, KVM_USER_END, KVM_NO_GPA);
    if (r != 0) {
        kvm_as_put(&as->base);
        return r;
    }
    kvm_table_set(as, p->vdso_va, p->vdso_va + p->vdso_size, p->vdso_gpa, PLAT_READ | PLAT_EXEC);
    kvm_table_set(as, KVM_HAND_VA, KVM_HAND_VA + PAGE_SIZE, p->hand_gpa, PLAT_READ | PLAT_EXEC);
    *out_as = &as->base;
    return 0;
}

/* No context is bound to it any more, and nobody else has it. */
void kvm_as_put(struct plat_as *base)
{
    struct kvm_as *as = kvm_as(base);
    struct kvm_plat *p = kvm_plat(base->plat);

    if (!ref_put(&as->ref))
        return;
    kvm_zap_locked(as);
    for (size_t i = 0; i < as->file_count; i++)
        kvm_window_put(p, as->files[i].window);
    free(as->files);
    kvm_patch_fini(as);
    kvm_tables_fini(as);
    mutex_destroy(&as->mu);
    free(as);
}

/* ---- ranges that show files ---- */

/* First range that ends behind addr. */
static size_t files_find(const struct kvm_as *as, uint64_t addr)
{
    size_t low = 0, high = as->file_count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (as->files[mid].end <= addr)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

const struct kvm_file_range *kvm_as_file_locked(const struct kvm_as *as, uint64_t addr)
{
    const size_t i = files_find(as, addr);

    return i < as->file_count && as->files[i].start <= addr ? &as->files[i] : NULL;
}

static int files_reserve(struct kvm_as *as, size_t more)
{
    if (as->file_count + more <= as->file_capacity)
        return 0;
    size_t capacity = MAX(2 * as->file_capacity, as->file_count + more + 8);
    struct kvm_file_range *files = reallocarray(as->files, capacity, sizeof(*files));
    if (files == NULL)
        return -ENOMEM;
    as->files = files;
    as->file_capacity = capacity;
    return 0;
}

/* Room was reserved. */
static void files_insert(struct kvm_as *as, size_t at, const struct kvm_file_range *f)
{
    memmove(as->files + at + 1, as->files + at, (as->file_count - at) * sizeof(*f));
    as->files[at] = *f;
    as->file_count++;
}

/* No range crosses addr afterwards; room for one was reserved. The index of what follows. */
static size_t files_split(struct kvm_as *as, uint64_t addr)
{
    size_t at = files_find(as, addr);

    if (at == as->file_count || as->files[at].start >= addr)
        return at;
    struct kvm_file_range back = as->files[at];
    back.off += addr - back.start;
    back.start = addr;
    as->files[at].end = addr;
    kvm_window_ref(kvm_plat(as->base.plat), back.window);
    files_insert(as, at + 1, &back);
    return at + 1;
}

/* Forgets what showed files in [start, end), which no entry points to any more; room for two was
 * reserved. */
static void files_cut(struct kvm_as *as, uint64_t start, uint64_t end)
{
    size_t from = files_split(as, start), to = files_split(as, end);

    for (size_t i = from; i < to; i++)
        kvm_window_bury(as, as->files[i].window);
    memmove(as->files + from, as->files + to, (as->file_count - to) * sizeof(*as->files));
    as->file_count -= to - from;
}

/* ---- requests ---- */

struct map_request {
    uint64_t addr, size, off;
    unsigned access;
    int fd;
    unsigned flags;
};

/* Patches of what the first done bytes replace go. -ENOMEM: all is as before. */
static int map_cut(struct kvm_as *as, const struct map_request *m, uint64_t done)
{
    const bool patch = kvm_plat(as->base.plat)->patch.ops != NULL;
    const bool file = m->fd != kvm_plat(as->base.plat)->mem_fd;
    const struct stub_change change =
        stub_change_map((uaddr_t){m->addr}, done, m->access, m->fd, m->off, m->flags);

    return patch_cut(&as->patch, &change, patch && file && (m->flags & PLAT_MAP_CODE));
}

/* One piece of the memory file; sets *done to its size. */
static int map_memory(struct kvm_as *as, const struct map_request *m, uint64_t *done)
{
    uint64_t room = KVM_SLOT_SIZE - (m->off & (KVM_SLOT_SIZE - 1)), gpa;
    int r = kvm_mem_gpa(kvm_plat(as->base.plat), m->off, &gpa);

    *done = MIN(m->size, room);
    if (r == 0)
        r = kvm_tables_reserve(as, m->addr, m->addr + *done, gpa);
    if (r == 0)
        r = map_cut(as, m, *done);
    if (r != 0)
        return r;
    kvm_table_set(as, m->addr, m->addr + *done, gpa, m->access);
    files_cut(as, m->addr, m->addr + *done);
    return 0;
}

static int map_file(struct kvm_as *as, const struct map_request *m, uint64_t *done)
{
    struct kvm_plat *p = kvm_plat(as->base.plat);
    struct kvm_window *w;

    *done = MIN(m->size, KVM_SLOT_SIZE);
    int r = kvm_tables_reserve(as, m->addr, m->addr + *done, KVM_NO_GPA);
    if (r == 0)
        r = kvm_window_get(p, m->fd, m->off, *done, m->flags & PLAT_MAP_PRIVATE, &w);
    if (r != 0)
        return r;
    r = map_cut(as, m, *done);
    if (r != 0) {
        kvm_window_put(p, w);
        return r;
    }
    const struct kvm_file_range f = {.start = m->addr, .end = m->addr + *done, .window = w};
    kvm_table_set(as, m->addr, m->addr + *done, w->gpa, m->access);
    files_cut(as, m->addr, m->addr + *done);
    files_insert(as, files_find(as, m->addr), &f);
    return 0;
}

static int as_map(struct plat_as *base, uaddr_t addr, uint64_t size, unsigned access, int fd,
                  uint64_t off, unsigned flags)
{
    struct kvm_as *as = kvm_as(base);
    bool memory = fd == kvm_plat(base->plat)->mem_fd;
    struct map_request m = {
        .addr = addr.v, .size = size, .off = off, .access = access, .fd = fd, .flags = flags};
    uint64_t done = 0;
    int r = 0;

    mutex_lock(&as->mu);
    for (; r == 0 && m.size > 0; m.addr += done, m.off += done, m.size -= done) {
        r = files_reserve(as, 3);
        if (r == 0)
            r = memory ? map_memory(as, &m, &done) : map_file(as, &m, &done);
        if (r != 0)
            done = 0;
    }
    mutex_unlock(&as->mu);
    return r;
}

static int as_unmap(struct plat_as *base, uaddr_t addr, uint64_t size)
{
    struct kvm_as *as = kvm_as(base);
    const struct stub_change change = {.start = addr.v, .end = addr.v + size, .kind = STUB_UNMAP};

    mutex_lock(&as->mu);
    int r = files_reserve(as, 2);
    if (r == 0)
        r = kvm_tables_cut(as, addr.v, addr.v + size);
    if (r == 0)
        r = patch_cut(&as->patch, &change, false);
    if (r == 0) {
        kvm_table_clear(as, addr.v, addr.v + size);
        files_cut(as, addr.v, addr.v + size);
    }
    mutex_unlock(&as->mu);
    return r;
}

static int as_protect(struct plat_as *base, uaddr_t addr, uint64_t size, unsigned access)
{
    struct kvm_as *as = kvm_as(base);
    const struct stub_change change = stub_change_protect(addr, size, access);

    mutex_lock(&as->mu);
    int r = kvm_tables_cut(as, addr.v, addr.v + size);
    if (r == 0)
        r = patch_cut(&as->patch, &change, false);
    if (r == 0)
        kvm_table_protect(as, addr.v, addr.v + size, access);
    mutex_unlock(&as->mu);
    return r;
}

int kvm_as_exchange(struct kvm_as *as, unsigned runner, struct kvm_exchange **out)
{
    struct kvm_page *page = &as->exchange[runner];
    int r = 0;

    mutex_lock(&as->mu);
    if (page->hva == NULL)
        r = kvm_table_own_page(as, kvm_exchange_va(runner), PLAT_READ | PLAT_WRITE, page);
    if (r == 0)
        *out = (struct kvm_exchange *)(void *)page->hva;
    mutex_unlock(&as->mu);
    return r;
}

void kvm_as_commit(struct kvm_as *as)
{
    if (LIKELY(!atomic_load(&as->pending)))
        return;
    mutex_lock(&as->mu);
    kvm_zap_locked(as);
    mutex_unlock(&as->mu);
}

/* The host takes translations away on all processors by itself: nobody has to be stopped. */
static int as_commit(struct plat_as *base, struct plat_ctx *ctx)
{
    (void)ctx;
    kvm_as_commit(kvm_as(base));
    return 0;
}

/* ---- fork ---- */

static int fork_files(struct kvm_as *as, const struct kvm_as *parent)
{
    int r = files_reserve(as, parent->file_count);

    if (r != 0)
        return r;
    for (size_t i = 0; i < parent->file_count; i++) {
        as->files[as->file_count++] = parent->files[i];
        kvm_window_ref(kvm_plat(as->base.plat), parent->files[i].window);
    }
    return 0;
}

int kvm_as_fork(struct kvm_as *parent, struct plat_as **out_as)
{
    struct kvm_as *as;
    int r = as_alloc(kvm_plat(parent->base.plat), &as);

    if (r != 0)
        return r;
    mutex_lock(&parent->mu);
    kvm_zap_locked(parent);
    r = kvm_tables_copy(as, parent);
    if (r == 0)
        r = fork_files(as, parent);
    if (r == 0)
        r = kvm_patch_fork(parent, as);
    mutex_unlock(&parent->mu);
    if (r != 0) {
        kvm_as_put(&as->base);
        return r;
    }
    *out_as = &as->base;
    return 0;
}

/* ---- looking ---- */

/* Through the files themselves: their mappings may fault at any time. */
static bool read_locked(struct kvm_as *as, uint64_t addr, void *buf, size_t size)
{
    const struct kvm_plat *p = kvm_plat(as->base.plat);
    const uint8_t *at = kvm_table_find_byte(as, addr);
    const struct kvm_file_range *f = kvm_as_file_locked(as, addr);

    if (at == NULL)
        return false;
    if (f != NULL) {
        const uint64_t off = f->window->off + f->off + (addr - f->start);
        return pread(f->window->fd, buf, size, (off_t)off) == (ssize_t)size;
    }
    if (at < p->mem || at >= p->mem + p->mem_size)
        return false; /* the host's vDSO */
    return pread(p->mem_fd, buf, size, (off_t)(at - p->mem)) == (ssize_t)size;
}

bool kvm_as_read(struct kvm_as *as, uint64_t addr, void *buf, size_t size)
{
    if ((addr & (PAGE_SIZE - 1)) > PAGE_SIZE - size)
        return false;
    mutex_lock(&as->mu);
    const bool ok = read_locked(as, addr, buf, size);
    mutex_unlock(&as->mu);
    return ok;
}

/* ---- files that became shorter ---- */

static bool truncated_range(struct kvm_as *as, const struct kvm_file_range *f)
{
    uint64_t off = f->window->off + f->off;
    struct stat st;

    if (fstat(f->window->fd, &st) != 0)
        st.st_size = 0;
    uint64_t size = ALIGN_UP((uint64_t)st.st_size, PAGE_SIZE);
    if (size >= off + (f->end - f->start))
        return false;
    uint64_t start = size > off ? f->start + (size - off) : f->start;
    size_t before = as->zap_count;
    kvm_table_clear(as, start, f->end);
    return as->zap_count != before;
}

bool kvm_as_truncated(struct kvm_as *as)
{
    bool any = false;

    mutex_lock(&as->mu);
    kvm_zap_locked(as);
    for (size_t i = 0; i < as->file_count; i++)
        any |= truncated_range(as, &as->files[i]);
    kvm_zap_locked(as);
    mutex_unlock(&as->mu);
    return any;
}

const struct plat_as_ops kvm_as_ops = {
    .create = as_create,
    .map = as_map,
    .unmap = as_unmap,
    .protect = as_protect,
    .commit = as_commit,
    .put = kvm_as_put,
};
