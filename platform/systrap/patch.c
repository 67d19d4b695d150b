/* Patched pages of address spaces. A page with hot sites is copied into the file of patches,
 * changed there, and mapped in the place of the original: threads that run in it see one or the
 * other as a whole. What is mapped there is a matter of the stub's alone; mm never learns of it, so
 * whatever reads through the sentry (ptrace, /proc, process_vm_readv, a copy on write) has the
 * original. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/systrap/systrap_priv.h"

/* In the file of patches, for each set: table and code as stubs map them, then copies of pages. */
#define PATCH_MAPPED ((size_t)(ST_PATCH_END - ST_PATCH_TABLE))
#define PATCH_COPIES 256u
#define PATCH_SLICE (PATCH_MAPPED + (size_t)PATCH_COPIES * PAGE_SIZE)
#define PATCH_SETS ST_SLOTS
#define PATCH_TEXTS_MAX 4096u

_Static_assert(PATCH_SITES_MAX * sizeof(struct patch_site) < (1u << 20), "of a set");

struct patch_set {
    struct ref ref;
    /* immutable */
    struct st_plat *plat;
    uint32_t slice;
    uint8_t *mem; /* the slice */
    /* guard: st_plat.mu; what is below a count does not change any more */
    _Atomic uint32_t site_count;
    uint32_t copy_count;
    struct patch_site sites[PATCH_SITES_MAX];
};

/* ---- sets ---- */

int st_patch_open(struct st_plat *p)
{
    /* Where protection keys let pages be executed only, a program that reads its own code faults,
     * and gets the original. */
    p->patch_prot = p->keys != 0 ? PROT_EXEC : PROT_READ | PROT_EXEC;
    if (!p->patch)
        return 0;
    p->patch_fd = memfd_create("stub-patches", MFD_CLOEXEC);
    if (p->patch_fd < 0)
        return -errno;
    return ftruncate(p->patch_fd, (off_t)(PATCH_SETS * PATCH_SLICE)) == 0 ? 0 : -errno;
}

void st_patch_close(struct st_plat *p)
{
    if (p->patch_fd >= 0)
        (void)close(p->patch_fd);
    idalloc_fini(&p->patch_sets);
}

static void set_free_slice(struct st_plat *p, uint32_t slice)
{
    mutex_lock(&p->mu);
    idalloc_free(&p->patch_sets, slice);
    mutex_unlock(&p->mu);
}

static struct patch_set *set_new(struct st_plat *p)
{
    struct patch_set *s = calloc(1, sizeof(*s));
    const uint64_t call = st_text_addr(p, systrap_call);

    if (s == NULL)
        return NULL;
    mutex_lock(&p->mu);
    int r = idalloc_lowest(&p->patch_sets, 0, &s->slice);
    mutex_unlock(&p->mu);
    if (r != 0)
        goto out_set;
    void *m = mmap(NULL, PATCH_SLICE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                   p->patch_fd, (off_t)(s->slice * PATCH_SLICE));
    if (m == MAP_FAILED)
        goto out_slice;
    ref_init(&s->ref);
    s->plat = p;
    s->mem = m;
    memcpy(s->mem, &call, sizeof(call));
    return s;

out_slice:
    set_free_slice(p, s->slice);
out_set:
    free(s);
    return NULL;
}

/* Nobody maps it any more: its address spaces' processes have ended. */
static void set_put(struct patch_set *s)
{
    struct st_plat *p = s->plat;

    if (!ref_put(&s->ref))
        return;
    (void)munmap(s->mem, PATCH_SLICE);
    if (fallocate(p->patch_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(s->slice * PATCH_SLICE), (off_t)PATCH_SLICE) == 0)
        set_free_slice(p, s->slice);
    free(s);
}

const struct patch_site *st_patch_find_code(const struct patch_set *s, uint64_t addr,
                                            unsigned *out_off)
{
    const uint64_t off = addr - ST_PATCH_CODE;

    if (off / PATCH_SLOT >= atomic_load(&s->site_count))
        return NULL;
    *out_off = (unsigned)(off % PATCH_SLOT);
    return &s->sites[off / PATCH_SLOT];
}

/* ---- what an address space has ---- */

static size_t text_find(const struct st_patch *pt, uint64_t addr)
{
    size_t i = 0;

    while (i < pt->text_count && pt->texts[i].end <= addr)
        i++;
    return i;
}

static int text_reserve(struct st_patch *pt, size_t more)
{
    if (pt->text_count + more <= pt->text_room)
        return 0;
    const size_t room = MAX(2 * pt->text_room, (size_t)16);
    struct patch_text *t = reallocarray(pt->texts, room, sizeof(*t));
    if (t == NULL)
        return -ENOMEM;
    pt->texts = t;
    pt->text_room = room;
    return 0;
}

/* Room for one was reserved. */
static void text_insert(struct st_patch *pt, size_t at, const struct patch_text *t)
{
    memmove(pt->texts + at + 1, pt->texts + at, (pt->text_count - at) * sizeof(*t));
    pt->texts[at] = *t;
    pt->text_count++;
}

/* Room for one was reserved. */
static void text_cut(struct st_patch *pt, uint64_t start, uint64_t end)
{
    for (size_t i = text_find(pt, start); i < pt->text_count && pt->texts[i].start < end;) {
        struct patch_text *t = &pt->texts[i], rest = *t;
        rest.off += end - t->start;
        rest.start = end;
        if (t->start < start) {
            t->end = start;
            i++;
        } else {
            memmove(t, t + 1, (pt->text_count - i - 1) * sizeof(*t));
            pt->text_count--;
        }
        if (rest.end > end) {
            text_insert(pt, i, &rest);
            return;
        }
    }
}

static void text_add(struct st_patch *pt, const struct stub_change *c)
{
    const struct patch_text t = {
        .start = c->start, .end = c->end, .off = c->off, .fd = c->fd, .prot = c->prot};
    const size_t i = text_find(pt, c->start);
    struct patch_text *before = i > 0 ? &pt->texts[i - 1] : NULL;

    if (before != NULL && before->end == t.start && before->fd == t.fd && before->prot == t.prot &&
        before->off + (before->end - before->start) == t.off)
        before->end = t.end;
    else if (pt->text_count < PATCH_TEXTS_MAX)
        text_insert(pt, i, &t);
}

static struct patch_page *page_at(const struct st_patch *pt, uint64_t addr)
{
    for (size_t i = 0; i < pt->page_count; i++)
        if (pt->pages[i].addr == addr)
            return &pt->pages[i];
    return NULL;
}

static void page_forget(struct st_patch *pt, size_t i)
{
    pt->pages[i] = pt->pages[--pt->page_count];
    atomic_fetch_add(&pt->gen, 1);
}

/* The original again, with prot. */
static int page_restore(struct st_as *as, size_t i, int prot)
{
    const struct patch_page *pg = &as->patch.pages[i];
    const struct stub_change c = {.start = pg->addr,
                                  .end = pg->addr + PAGE_SIZE,
                                  .kind = STUB_MAP,
                                  .prot = prot,
                                  .flags = MAP_FIXED | MAP_SHARED,
                                  .fd = pg->fd,
                                  .off = pg->off};
    int r = stub_queue_replace(&as->queue, &c);

    if (r == 0) {
        atomic_store(&as->has_changes, true);
        page_forget(&as->patch, i);
    }
    return r;
}

int st_patch_cut(struct st_as *as, const struct stub_change *c, bool is_text)
{
    struct st_patch *pt = &as->patch;
    int r;

    if (pt->text_count == 0 && !is_text)
        return 0;
    r = text_reserve(pt, 2);
    if (r != 0)
        return r;
    for (size_t i = pt->page_count; i-- > 0;) {
        if (pt->pages[i].addr < c->start || pt->pages[i].addr >= c->end)
            continue;
        if (c->kind != STUB_PROTECT)
            page_forget(pt, i);
        else if ((r = page_restore(as, i, c->prot)) != 0)
            return r;
    }
    text_cut(pt, c->start, c->end);
    if (is_text)
        text_add(pt, c);
    return 0;
}

void st_patch_fini(struct st_as *as)
{
    if (as->patch.set != NULL)
        set_put(as->patch.set);
    free(as->patch.texts);
    free(as->patch.pages);
}

int st_patch_fork(struct st_as *from, struct st_as *as)
{
    const struct st_patch *f = &from->patch;
    struct st_patch *to = &as->patch;

    if (f->text_count > 0) {
        to->texts = calloc(f->text_room, sizeof(*to->texts));
        if (to->texts == NULL)
            return -ENOMEM;
        memcpy(to->texts, f->texts, f->text_count * sizeof(*to->texts));
        to->text_count = f->text_count;
        to->text_room = f->text_room;
    }
    if (f->page_count > 0) {
        to->pages = calloc(f->page_room, sizeof(*to->pages));
        if (to->pages == NULL)
            return -ENOMEM;
        memcpy(to->pages, f->pages, f->page_count * sizeof(*to->pages));
        to->page_count = f->page_count;
        to->page_room = f->page_room;
    }
    if (f->set != NULL)
        ref_get(&f->set->ref);
    to->set = f->set;
    to->never = f->never;
    atomic_store(&to->on, atomic_load(&f->on));
    atomic_store(&to->gen, atomic_load(&f->gen));
    return 0;
}

void st_patch_stop(struct st_as *as)
{
    bool stale = false;

    mutex_lock(&as->mu);
    as->patch.never = true;
    while (as->patch.page_count > 0) {
        const size_t last = as->patch.page_count - 1;
        if (page_restore(as, last, as->patch.pages[last].prot) == 0)
            continue;
        if (st_flush_locked(as, &stale) == -ESRCH)
            break;
    }
    mutex_unlock(&as->mu);
}

bool st_patch_restore(struct st_as *as, uint64_t addr)
{
    struct st_patch *pt = &as->patch;
    const uint64_t page = ALIGN_DOWN(addr, PAGE_SIZE);
    bool found = false;

    mutex_lock(&as->mu);
    for (size_t i = 0; i < pt->page_count && !found; i++) {
        found = pt->pages[i].addr == page && text_reserve(pt, 1) == 0 &&
                page_restore(as, i, pt->pages[i].prot) == 0;
        if (found)
            text_cut(pt, page, page + PAGE_SIZE);
    }
    mutex_unlock(&as->mu);
    return found;
}

/* The site that the jump at off of a patched page leads to. */
static const struct patch_site *page_site(const struct st_patch *pt, const struct patch_page *pg,
                                          uint64_t off, uint64_t *out_code)
{
    uint8_t jump[PATCH_SIZE];
    uint32_t entry;

    if (off > PAGE_SIZE - PATCH_SIZE)
        return NULL;
    memcpy(&entry, pg->copy + off + 3, sizeof(entry));
    const uint32_t i = (entry - ST_PATCH_TABLE) / 8 - 1;
    if (i >= atomic_load(&pt->set->site_count) || pt->set->sites[i].start != pg->addr + off)
        return NULL;
    patch_jump(i + 1, jump);
    if (memcmp(jump, pg->copy + off, sizeof(jump)) != 0)
        return NULL;
    *out_code = ST_PATCH_CODE + (uint64_t)i * PATCH_SLOT;
    return &pt->set->sites[i];
}

const struct patch_site *st_patch_find_site(struct st_as *as, uint64_t addr, unsigned *out_off,
                                            uint64_t *out_code)
{
    const struct st_patch *pt = &as->patch;
    const struct patch_site *found = NULL;

    mutex_lock(&as->mu);
    for (size_t i = 0; i < pt->page_count; i++) {
        const struct patch_page *pg = &pt->pages[i];
        const uint64_t off = addr - pg->addr;
        for (unsigned back = 0; back < PATCH_SIZE && off < PAGE_SIZE && found == NULL; back++) {
            if (back <= off)
                found = page_site(pt, pg, off - back, out_code);
            *out_off = back;
        }
        if (found != NULL)
            break;
    }
    mutex_unlock(&as->mu);
    return found;
}

/* ---- patching ---- */

/* What a page with a new site is made of. */
struct page_work {
    uint64_t addr;
    const struct patch_text *text;
    size_t start;
    struct patch_shape shape;
    uint8_t bytes[PAGE_SIZE];
};

static bool page_read(struct st_patch *pt, struct page_work *w)
{
    const size_t i = text_find(pt, w->addr);

    if (i == pt->text_count || pt->texts[i].start > w->addr)
        return false;
    w->text = &pt->texts[i];
    const struct patch_page *pg = page_at(pt, w->addr);
    if (pg != NULL) {
        memcpy(w->bytes, pg->copy, PAGE_SIZE);
        return true;
    }
    /* Behind the end of a file its last page is zero. */
    memset(w->bytes, 0, PAGE_SIZE);
    return pread(w->text->fd, w->bytes, PAGE_SIZE,
                 (off_t)(w->text->off + (w->addr - w->text->start))) > 0;
}

static bool page_room(struct st_as *as)
{
    struct st_patch *pt = &as->patch;

    if (pt->set == NULL)
        pt->set = set_new(st_plat(as->base.plat));
    if (pt->set == NULL)
        return false;
    if (pt->page_count < pt->page_room)
        return true;
    const size_t room = MAX(2 * pt->page_room, (size_t)8);
    struct patch_page *p = reallocarray(pt->pages, room, sizeof(*p));
    if (p == NULL)
        return false;
    pt->pages = p;
    pt->page_room = room;
    return true;
}

/* Writes the site's code and the changed page into the file. The copy's number, or PATCH_COPIES. */
static uint32_t page_write(struct patch_set *s, struct page_work *w)
{
    struct st_plat *p = s->plat;
    uint32_t copy = PATCH_COPIES;

    mutex_lock(&p->mu);
    const uint32_t i = atomic_load(&s->site_count);
    if (i < PATCH_SITES_MAX && s->copy_count < PATCH_COPIES) {
        const uint64_t code = ST_PATCH_CODE + (uint64_t)i * PATCH_SLOT;
        struct patch_site *site = &s->sites[i];
        copy = s->copy_count++;
        site->start = w->addr + w->start;
        site->shape = w->shape;
        patch_emit(&w->shape, site->start, w->bytes + w->start, p->ops + ST_OPS_AREAS,
                   s->mem + (code - ST_PATCH_TABLE), &site->code);
        memcpy(s->mem + (size_t)(i + 1) * 8, &code, sizeof(code));
        atomic_store(&s->site_count, i + 1);
        patch_jump(i + 1, w->bytes + w->start);
        memcpy(s->mem + PATCH_MAPPED + (size_t)copy * PAGE_SIZE, w->bytes, PAGE_SIZE);
    }
    mutex_unlock(&p->mu);
    return copy;
}

/* Has the stub map it, and table and code if it is the first. */
static bool page_map(struct st_as *as, uint64_t addr, uint32_t copy)
{
    const struct st_plat *p = st_plat(as->base.plat);
    const struct st_patch *pt = &as->patch;
    const uint64_t slice = (uint64_t)pt->set->slice * PATCH_SLICE;
    struct st_ops *o = st_ops(as);
    size_t n = 0;
    int32_t value;

    if (!atomic_load(&pt->on))
        o->ops[n++] =
            (struct stub_op){.nr = SYS_mmap,
                             .args = {ST_PATCH_TABLE, PATCH_MAPPED, PROT_READ | PROT_EXEC,
                                      MAP_SHARED | MAP_FIXED, (uint64_t)p->patch_fd, slice}};
    o->ops[n++] = (struct stub_op){.nr = SYS_mmap,
                                   .args = {addr, PAGE_SIZE, (uint64_t)p->patch_prot,
                                            MAP_SHARED | MAP_FIXED, (uint64_t)p->patch_fd,
                                            slice + PATCH_MAPPED + (uint64_t)copy * PAGE_SIZE}};
    return st_batch_locked(as, n, &value) == 0;
}

static bool patch_site_locked(struct st_as *as, struct page_work *w, uint64_t rip, uint64_t nr)
{
    struct st_patch *pt = &as->patch;
    bool stale = false;

    if (pt->never || (rip - 2) % PAGE_SIZE > PAGE_SIZE - 2 || st_flush_locked(as, &stale) != 0)
        return false;
    w->addr = ALIGN_DOWN(rip - 2, PAGE_SIZE);
    if (!page_read(pt, w) ||
        !patch_recognise(w->bytes, PAGE_SIZE, rip - 2 - w->addr, nr, &w->start, &w->shape) ||
        !page_room(as))
        return false;
    const struct patch_text text = *w->text;
    const uint32_t copy = page_write(pt->set, w);
    if (copy == PATCH_COPIES)
        return false;
    if (!page_map(as, w->addr, copy)) {
        /* Nobody knows what is there now, but mm will see it as a fault. */
        pt->never = true;
        return false;
    }
    atomic_store(&pt->on, true);
    struct patch_page *pg = page_at(pt, w->addr);
    if (pg == NULL)
        pg = &pt->pages[pt->page_count++];
    *pg = (struct patch_page){.addr = w->addr,
                              .off = text.off + (w->addr - text.start),
                              .fd = text.fd,
                              .prot = text.prot,
                              .copy = pt->set->mem + PATCH_MAPPED + (size_t)copy * PAGE_SIZE};
    return true;
}

bool st_patch_site(struct st_as *as, uint64_t rip, uint64_t nr)
{
    struct page_work *w = malloc(sizeof(*w));
    bool done = false;

    if (w == NULL)
        return false;
    mutex_lock(&as->mu);
    done = patch_site_locked(as, w, rip, nr);
    mutex_unlock(&as->mu);
    log_debug("systrap: call %u behind %#lx %s", (unsigned)nr, (unsigned long)rip,
              done ? "needs no signal from now on" : "goes on with signals");
    free(w);
    return done;
}
