/* Patched pages of address spaces. A page with hot sites is copied into the file of patches,
 * changed there, and mapped in the place of the original: threads that run in it see one or the
 * other as a whole. What is mapped there is a matter of the stub's alone; mm never learns of it, so
 * whatever reads through the sentry (ptrace, /proc, process_vm_readv, a copy on write) has the
 * original. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/patch/patch.h"

#define PATCH_SETS 65536u
#define PATCH_TEXTS_MAX 4096u
/* Numbers from it on are not those of calls. */
#define PATCH_NR_MAX 1024u

_Static_assert(PATCH_SITES_MAX * sizeof(struct patch_site) < (1u << 20), "of a set");

struct patch_set {
    struct ref ref;
    /* immutable */
    struct patch_plat *plat;
    uint32_t slice;
    uint8_t *mem; /* the slice */
    /* guard: patch_plat.mu; what is below a count does not change any more */
    _Atomic uint32_t site_count;
    uint32_t copy_count;
    struct patch_site sites[PATCH_SITES_MAX];
};

/* ---- sets ---- */

void patch_plat_init(struct patch_plat *p)
{
    *p = (struct patch_plat){.fd = -1, .decoder.fd = -1};
    mutex_init(&p->decoder.mu, LOCK_RANK_LEAF);
    mutex_init(&p->mu, LOCK_RANK_LEAF);
    idalloc_init(&p->sets, 0, PATCH_SETS - 1);
}

int patch_plat_open(struct patch_plat *p, const struct patch_ops *ops, int decoder_fd)
{
    int r = patch_decoder_open(&p->decoder, decoder_fd);

    if (r != 0)
        return r;
    p->fd = memfd_create("patched-sites", MFD_CLOEXEC);
    if (p->fd < 0 || ftruncate(p->fd, (off_t)(PATCH_SETS * PATCH_SLICE)) != 0)
        return -errno;
    p->ops = ops;
    return 0;
}

void patch_plat_fini(struct patch_plat *p)
{
    if (p->fd >= 0)
        (void)close(p->fd);
    patch_decoder_close(&p->decoder);
    idalloc_fini(&p->sets);
    mutex_destroy(&p->mu);
}

static void set_free_slice(struct patch_plat *p, uint32_t slice)
{
    mutex_lock(&p->mu);
    idalloc_free(&p->sets, slice);
    mutex_unlock(&p->mu);
}

static struct patch_set *set_new(struct patch_plat *p)
{
    struct patch_set *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    mutex_lock(&p->mu);
    int r = idalloc_lowest(&p->sets, 0, &s->slice);
    mutex_unlock(&p->mu);
    if (r != 0)
        goto out_set;
    void *m = mmap(NULL, PATCH_SLICE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, p->fd,
                   (off_t)(s->slice * PATCH_SLICE));
    if (m == MAP_FAILED)
        goto out_slice;
    ref_init(&s->ref);
    s->plat = p;
    s->mem = m;
    memcpy(s->mem, &p->call, sizeof(p->call));
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
    struct patch_plat *p = s->plat;

    if (!ref_put(&s->ref))
        return;
    (void)munmap(s->mem, PATCH_SLICE);
    if (fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(s->slice * PATCH_SLICE), (off_t)PATCH_SLICE) == 0)
        set_free_slice(p, s->slice);
    free(s);
}

const struct patch_site *patch_find_code(const struct patch_set *s, uint64_t addr,
                                         unsigned *out_off)
{
    const uint64_t off = addr - PATCH_CODE;

    if (off / PATCH_SLOT >= atomic_load(&s->site_count))
        return NULL;
    *out_off = (unsigned)(off % PATCH_SLOT);
    return &s->sites[off / PATCH_SLOT];
}

/* ---- what an address space has ---- */

static size_t text_find(const struct patch_as *pa, uint64_t addr)
{
    size_t i = 0;

    while (i < pa->text_count && pa->texts[i].end <= addr)
        i++;
    return i;
}

static int text_reserve(struct patch_as *pa, size_t more)
{
    if (pa->text_count + more <= pa->text_room)
        return 0;
    const size_t room = MAX(2 * pa->text_room, (size_t)16);
    struct patch_text *t = reallocarray(pa->texts, room, sizeof(*t));
    if (t == NULL)
        return -ENOMEM;
    pa->texts = t;
    pa->text_room = room;
    return 0;
}

/* Room for one was reserved. */
static void text_insert(struct patch_as *pa, size_t at, const struct patch_text *t)
{
    memmove(pa->texts + at + 1, pa->texts + at, (pa->text_count - at) * sizeof(*t));
    pa->texts[at] = *t;
    pa->text_count++;
}

/* Room for one was reserved. */
static void text_cut(struct patch_as *pa, uint64_t start, uint64_t end)
{
    for (size_t i = text_find(pa, start); i < pa->text_count && pa->texts[i].start < end;) {
        struct patch_text *t = &pa->texts[i], rest = *t;
        rest.off += end - t->start;
        rest.start = end;
        if (t->start < start) {
            t->end = start;
            i++;
        } else {
            memmove(t, t + 1, (pa->text_count - i - 1) * sizeof(*t));
            pa->text_count--;
        }
        if (rest.end > end) {
            text_insert(pa, i, &rest);
            return;
        }
    }
}

static void text_add(struct patch_as *pa, const struct stub_change *c)
{
    const struct patch_text t = {
        .start = c->start, .end = c->end, .off = c->off, .fd = c->fd, .prot = c->prot};
    const size_t i = text_find(pa, c->start);
    struct patch_text *before = i > 0 ? &pa->texts[i - 1] : NULL;

    if (before != NULL && before->end == t.start && before->fd == t.fd && before->prot == t.prot &&
        before->off + (before->end - before->start) == t.off)
        before->end = t.end;
    else if (pa->text_count < PATCH_TEXTS_MAX)
        text_insert(pa, i, &t);
}

static struct patch_page *page_at(const struct patch_as *pa, uint64_t addr)
{
    for (size_t i = 0; i < pa->page_count; i++)
        if (pa->pages[i].addr == addr)
            return &pa->pages[i];
    return NULL;
}

static void page_forget(struct patch_as *pa, size_t i)
{
    pa->pages[i] = pa->pages[--pa->page_count];
    atomic_fetch_add(&pa->gen, 1);
}

/* The original again, with prot. */
static int page_restore(struct patch_as *pa, size_t i, int prot)
{
    int r = pa->plat->ops->restore(pa, &pa->pages[i], prot);

    if (r == 0)
        page_forget(pa, i);
    return r;
}

int patch_cut(struct patch_as *pa, const struct stub_change *c, bool is_text)
{
    int r;

    if (pa->text_count == 0 && !is_text)
        return 0;
    r = text_reserve(pa, 2);
    if (r != 0)
        return r;
    for (size_t i = pa->page_count; i-- > 0;) {
        if (pa->pages[i].addr < c->start || pa->pages[i].addr >= c->end)
            continue;
        if (c->kind != STUB_PROTECT)
            page_forget(pa, i);
        else if ((r = page_restore(pa, i, c->prot)) != 0)
            return r;
    }
    text_cut(pa, c->start, c->end);
    if (is_text)
        text_add(pa, c);
    return 0;
}

void patch_as_init(struct patch_as *pa, struct patch_plat *p, struct mutex *mu,
                   _Atomic uint64_t *areas)
{
    pa->plat = p;
    pa->mu = mu;
    pa->areas = areas;
    list_init(&pa->ctxs);
    /* Where the word at PATCH_NEGFS is the negative of no base. */
    for (size_t i = 0; areas != NULL && i < PATCH_AREAS_COUNT; i++)
        atomic_store_explicit(&areas[i], p->nobody, memory_order_relaxed);
}

void patch_as_fini(struct patch_as *pa)
{
    if (pa->set != NULL)
        set_put(pa->set);
    free(pa->texts);
    free(pa->pages);
}

int patch_fork(struct patch_as *f, struct patch_as *to)
{
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

void patch_stop(struct patch_as *pa)
{
    mutex_lock(pa->mu);
    pa->never = true;
    while (pa->page_count > 0) {
        const size_t last = pa->page_count - 1;
        if (page_restore(pa, last, pa->pages[last].prot) == 0)
            continue;
        if (pa->plat->ops->settle(pa) == -ESRCH)
            break;
    }
    mutex_unlock(pa->mu);
}

bool patch_restore(struct patch_as *pa, uint64_t addr)
{
    const uint64_t page = ALIGN_DOWN(addr, PAGE_SIZE);
    bool found = false;

    mutex_lock(pa->mu);
    for (size_t i = 0; i < pa->page_count && !found; i++) {
        found = pa->pages[i].addr == page && text_reserve(pa, 1) == 0 &&
                page_restore(pa, i, pa->pages[i].prot) == 0;
        if (found)
            text_cut(pa, page, page + PAGE_SIZE);
    }
    mutex_unlock(pa->mu);
    return found;
}

/* The site that the jump at off of a patched page leads to. */
static const struct patch_site *page_site(const struct patch_as *pa, const struct patch_page *pg,
                                          uint64_t off, uint64_t *out_code)
{
    uint8_t jump[PATCH_SIZE];
    uint32_t entry;

    if (off > PAGE_SIZE - PATCH_SIZE)
        return NULL;
    memcpy(&entry, pg->copy + off + 3, sizeof(entry));
    const uint32_t i = (entry - PATCH_TABLE) / 8 - 1;
    if (i >= atomic_load(&pa->set->site_count) || pa->set->sites[i].start != pg->addr + off)
        return NULL;
    patch_jump(i + 1, jump);
    if (memcmp(jump, pg->copy + off, sizeof(jump)) != 0)
        return NULL;
    *out_code = PATCH_CODE + (uint64_t)i * PATCH_SLOT;
    return &pa->set->sites[i];
}

const struct patch_site *patch_find_site(struct patch_as *pa, uint64_t addr, unsigned *out_off,
                                         uint64_t *out_code)
{
    const struct patch_site *found = NULL;

    mutex_lock(pa->mu);
    for (size_t i = 0; i < pa->page_count; i++) {
        const struct patch_page *pg = &pa->pages[i];
        const uint64_t off = addr - pg->addr;
        for (unsigned back = 0; back < PATCH_SIZE && off < PAGE_SIZE && found == NULL; back++) {
            if (back <= off)
                found = page_site(pa, pg, off - back, out_code);
            *out_off = back;
        }
        if (found != NULL)
            break;
    }
    mutex_unlock(pa->mu);
    return found;
}

/* ---- patching ---- */

/* What a page with a new site is made of. */
struct page_work {
    uint64_t addr;
    const struct patch_text *text;
    size_t start;
    struct patch_shape shape;
    uint8_t code[PAGE_SIZE];  /* as the program has it */
    uint8_t bytes[PAGE_SIZE]; /* with the sites that are patched already */
};

static bool page_read(struct patch_as *pa, struct page_work *w)
{
    const size_t i = text_find(pa, w->addr);

    if (i == pa->text_count || pa->texts[i].start > w->addr)
        return false;
    w->text = &pa->texts[i];
    /* Behind the end of a file its last page is zero. */
    memset(w->code, 0, PAGE_SIZE);
    if (pread(w->text->fd, w->code, PAGE_SIZE,
              (off_t)(w->text->off + (w->addr - w->text->start))) <= 0)
        return false;
    const struct patch_page *pg = page_at(pa, w->addr);
    memcpy(w->bytes, pg != NULL ? pg->copy : w->code, PAGE_SIZE);
    return true;
}

/* The call at off, made with number nr. */
static enum patch_added page_look(struct patch_as *pa, struct page_work *w, size_t off, uint64_t nr)
{
    const enum patch_known known =
        patch_look(&pa->plat->decoder, w->code, off, &w->start, &w->shape);

    if (known != PATCH_FITS)
        return known == PATCH_ASKED ? PATCH_LATER : PATCH_LEFT;
    /* Debuggers and unwinders know the end of a signal handler by its bytes. */
    if (w->shape.loads && (w->shape.nr != nr || nr >= PATCH_NR_MAX || nr == SYS_rt_sigreturn))
        return PATCH_LEFT;
    /* Part of it may belong to another site. */
    return memcmp(w->code + w->start, w->bytes + w->start, w->shape.size) == 0 ? PATCH_DONE
                                                                               : PATCH_LEFT;
}

static bool page_room(struct patch_as *pa)
{
    if (pa->set == NULL)
        pa->set = set_new(pa->plat);
    if (pa->set == NULL)
        return false;
    if (pa->page_count < pa->page_room)
        return true;
    const size_t room = MAX(2 * pa->page_room, (size_t)8);
    struct patch_page *p = reallocarray(pa->pages, room, sizeof(*p));
    if (p == NULL)
        return false;
    pa->pages = p;
    pa->page_room = room;
    return true;
}

/* Writes the site's code and the changed page into the file. The copy's number, or PATCH_COPIES. */
static uint32_t page_write(struct patch_set *s, struct page_work *w)
{
    struct patch_plat *p = s->plat;
    uint32_t copy = PATCH_COPIES;

    mutex_lock(&p->mu);
    const uint32_t i = atomic_load(&s->site_count);
    if (i < PATCH_SITES_MAX && s->copy_count < PATCH_COPIES) {
        const uint64_t code = PATCH_CODE + (uint64_t)i * PATCH_SLOT;
        struct patch_site *site = &s->sites[i];
        copy = s->copy_count++;
        site->start = w->addr + w->start;
        site->shape = w->shape;
        patch_emit(&w->shape, site->start, w->bytes + w->start, p->areas,
                   s->mem + (code - PATCH_TABLE), &site->code);
        memcpy(s->mem + (size_t)(i + 1) * 8, &code, sizeof(code));
        atomic_store(&s->site_count, i + 1);
        patch_jump(i + 1, w->bytes + w->start);
        memcpy(s->mem + PATCH_MAPPED + (size_t)copy * PAGE_SIZE, w->bytes, PAGE_SIZE);
    }
    mutex_unlock(&p->mu);
    return copy;
}

static bool page_show(struct patch_as *pa, uint64_t addr, uint32_t copy)
{
    const uint64_t slice = (uint64_t)pa->set->slice * PATCH_SLICE;
    const bool first = !atomic_exchange(&pa->on, true);

    /* Before a thread can be in there: who stops it looks for sites then. */
    return pa->plat->ops->show(pa, first, addr, slice,
                               slice + PATCH_MAPPED + (uint64_t)copy * PAGE_SIZE);
}

static enum patch_added patch_site_locked(struct patch_as *pa, struct page_work *w, uint64_t rip,
                                          uint64_t nr)
{
    if (pa->never || (rip - 2) % PAGE_SIZE > PAGE_SIZE - 2 || pa->plat->ops->settle(pa) != 0)
        return PATCH_LEFT;
    w->addr = ALIGN_DOWN(rip - 2, PAGE_SIZE);
    if (!page_read(pa, w))
        return PATCH_LEFT;
    const enum patch_added look = page_look(pa, w, rip - 2 - w->addr, nr);
    if (look != PATCH_DONE)
        return look;
    if (!page_room(pa))
        return PATCH_LEFT;
    const struct patch_text text = *w->text;
    const uint32_t copy = page_write(pa->set, w);
    if (copy == PATCH_COPIES)
        return PATCH_LEFT;
    if (!page_show(pa, w->addr, copy)) {
        /* Nobody knows what is there now, but mm will see it as a fault. */
        pa->never = true;
        return PATCH_LEFT;
    }
    struct patch_page *pg = page_at(pa, w->addr);
    if (pg == NULL)
        pg = &pa->pages[pa->page_count++];
    *pg = (struct patch_page){.addr = w->addr,
                              .off = text.off + (w->addr - text.start),
                              .fd = text.fd,
                              .prot = text.prot,
                              .copy = pa->set->mem + PATCH_MAPPED + (size_t)copy * PAGE_SIZE};
    return PATCH_DONE;
}

enum patch_added patch_add_site(struct patch_as *pa, uint64_t rip, uint64_t nr)
{
    static const char *const outcome[] = {[PATCH_LEFT] = "goes on with traps",
                                          [PATCH_LATER] = "is being looked at",
                                          [PATCH_DONE] = "needs no trap from now on"};
    struct page_work *w = malloc(sizeof(*w));

    if (w == NULL)
        return PATCH_LEFT;
    mutex_lock(pa->mu);
    const enum patch_added added = patch_site_locked(pa, w, rip, nr);
    mutex_unlock(pa->mu);
    log_debug("patch: call %u behind %#lx %s", (unsigned)nr, (unsigned long)rip, outcome[added]);
    free(w);
    return added;
}
