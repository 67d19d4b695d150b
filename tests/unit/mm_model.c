/* Random operations on several guests, checked against a plain model of what each page holds. */
#include "mm_fake.h"

TestSuite(mm_model, .init = fake_init, .fini = fake_fini, .timeout = 300);

#define P PAGE_SIZE
#define PAGES 96
#define BASE 0x10000000ull
#define GUESTS 4
#define STEPS 6000

enum { M_NONE, M_ANON, M_SHARED, M_FILE };

struct model_page {
    int kind, prot;
    unsigned char byte;    /* private contents */
    unsigned char *shared; /* where the byte of a shared page is */
};

struct model {
    struct guest g;
    bool alive;
    struct model_page page[PAGES];
};

static struct model models[GUESTS];
static unsigned char shared_bytes[4096][PAGES];
static size_t shared_count;
static struct fake_file file;
static uint32_t seed;

static uint32_t rnd(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed % n;
}

static int rnd_prot(void)
{
    static const int prots[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
                                PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC};
    return prots[rnd(5)];
}

static void do_map(struct model *m, unsigned at, unsigned n)
{
    int kind = 1 + (int)rnd(3), prot = rnd_prot();
    uint64_t addr = BASE + at * P;
    unsigned off = rnd(8);
    int64_t r;
    if (kind == M_ANON)
        r = guest_mmap(&m->g, addr, n * P, prot, ANON | MAP_FIXED, NULL, 0);
    else if (kind == M_SHARED)
        r = guest_mmap(&m->g, addr, n * P, prot, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, NULL, 0);
    else
        r = guest_mmap(&m->g, addr, n * P, prot, MAP_PRIVATE | MAP_FIXED, &file.m, off * P);
    cr_assert_eq(r, (int64_t)addr);
    unsigned char *shared = NULL;
    if (kind == M_SHARED) {
        cr_assert(shared_count < ARRAY_SIZE(shared_bytes));
        shared = shared_bytes[shared_count++];
    }
    for (unsigned i = 0; i < n; i++) {
        m->page[at + i] = (struct model_page){.kind = kind, .prot = prot};
        m->page[at + i].shared = shared ? shared + i : NULL;
        if (kind == M_FILE)
            m->page[at + i].byte = (unsigned char)(off + i + 1);
    }
}

static void do_unmap(struct model *m, unsigned at, unsigned n)
{
    cr_assert_eq(guest_munmap(&m->g, BASE + at * P, n * P), 0);
    for (unsigned i = 0; i < n; i++)
        m->page[at + i].kind = M_NONE;
}

static void do_protect(struct model *m, unsigned at, unsigned n)
{
    int prot = rnd_prot();
    int r = guest_mprotect(&m->g, BASE + at * P, n * P, prot);
    for (unsigned i = 0; i < n; i++) {
        if (m->page[at + i].kind == M_NONE) {
            cr_assert_eq(r, -ENOMEM);
            return;
        }
        m->page[at + i].prot = prot;
    }
    cr_assert_eq(r, 0);
}

static bool same_vma(const struct model *m, unsigned at, unsigned n)
{
    struct mm_vma_info *v = malloc(sizeof(*v));
    bool yes = mm_vma_next(m->g.mm, BASE + at * P, v) == 0 && v->start <= BASE + at * P &&
               v->end >= BASE + (at + n) * P;
    free(v);
    return yes;
}

static void do_remap(struct model *m, unsigned at, unsigned n)
{
    unsigned to = rnd(PAGES - 16), grow = 1 + rnd(12);
    struct model_page old[PAGES];
    if (to + grow > at && at + n > to)
        return;
    /* What is cut off first may be anything. */
    bool whole = same_vma(m, at, n > grow ? grow : n);
    int64_t r = guest_mremap(&m->g, BASE + at * P, n * P, grow * P, MREMAP_MAYMOVE | MREMAP_FIXED,
                             BASE + to * P);
    if (!whole) {
        cr_assert_lt(r, 0);
        if (m->page[at].kind == M_NONE)
            return;
        for (unsigned i = 0; i < grow; i++)
            m->page[to + i].kind = M_NONE;
        for (unsigned i = grow; i < n; i++)
            m->page[at + i].kind = M_NONE;
        return;
    }
    cr_assert_eq(r, (int64_t)(BASE + to * P));
    memcpy(old, m->page, sizeof(old));
    for (unsigned i = 0; i < grow; i++) {
        m->page[to + i] = i < n ? old[at + i] : old[at];
        if (i < n)
            continue;
        m->page[to + i].byte = 0;
        if (old[at].kind == M_SHARED)
            m->page[to + i].kind = -1; /* the same object's later pages, or its end */
        if (old[at].kind == M_FILE)
            m->page[to + i].kind = -1;
    }
    for (unsigned i = 0; i < n; i++)
        m->page[at + i].kind = M_NONE;
}

static void do_dontneed(struct model *m, unsigned at, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (m->page[at + i].kind != M_ANON)
            return;
    cr_assert_eq(mm_madvise(m->g.mm, m->g.ctx, uaddr(BASE + at * P), n * P, MADV_DONTNEED), 0);
    for (unsigned i = 0; i < n; i++)
        m->page[at + i].byte = 0;
}

static void check_page(struct model *m, unsigned i)
{
    struct model_page *p = &m->page[i];
    if (p->kind < 0)
        return;
    int want = p->shared && p->kind == M_SHARED ? *p->shared : p->byte;
    if (p->kind == M_NONE || p->prot == PROT_NONE)
        want = -SIGSEGV;
    int got = guest_read(&m->g, BASE + i * P);
    cr_assert_eq(got, want, "page %u kind %d prot %d: %d, not %d", i, p->kind, p->prot, got, want);
    unsigned char v = 0;
    int r = copyin(&m->g.ua, &v, uaddr(BASE + i * P), 1);
    cr_assert_eq(r, want < 0 ? -EFAULT : 0);
    cr_assert(want < 0 || v == want);
}

static void do_write(struct model *m, unsigned i)
{
    struct model_page *p = &m->page[i];
    unsigned char v = (unsigned char)rnd(256);
    if (p->kind < 0)
        return;
    bool ok = p->kind != M_NONE && p->prot & PROT_WRITE;
    if (rnd(2))
        cr_assert_eq(guest_write(&m->g, BASE + i * P, v), ok ? 0 : SIGSEGV);
    else
        cr_assert_eq(copyout(&m->g.ua, uaddr(BASE + i * P), &v, 1), ok ? 0 : -EFAULT);
    if (ok && p->kind == M_SHARED)
        *p->shared = v;
    else if (ok)
        p->byte = v;
}

static void do_fork(struct model *m)
{
    struct model *c = &models[rnd(GUESTS)];
    if (c == m)
        return;
    if (c->alive)
        guest_end(&c->g);
    *c = *m;
    cr_assert_eq(guest_fork(&m->g, &c->g), 0);
    c->g.exact = rnd(2);
}

static void step(struct model *m)
{
    unsigned at = rnd(PAGES - 16), n = 1 + rnd(16);
    switch (rnd(16)) {
    case 0:
    case 1:
        do_map(m, at, n);
        break;
    case 2:
        do_unmap(m, at, n);
        break;
    case 3:
        do_protect(m, at, n);
        break;
    case 4:
        do_remap(m, at, n);
        break;
    case 5:
        do_dontneed(m, at, n);
        break;
    case 6:
        if (rnd(3) == 0)
            do_fork(m);
        break;
    case 7:
    case 8:
    case 9:
        check_page(m, at);
        break;
    default:
        do_write(m, at);
        break;
    }
}

static void run_model(uint32_t first)
{
    seed = first;
    shared_count = 0;
    memset(shared_bytes, 0, sizeof(shared_bytes));
    memset(models, 0, sizeof(models));
    fake_file_new(&file, 64 * P);
    guest_new(&models[0].g);
    models[0].alive = true;
    for (int i = 0; i < STEPS; i++) {
        struct model *m = &models[rnd(GUESTS)];
        if (m->alive)
            step(m);
    }
    for (int i = 0; i < GUESTS; i++) {
        if (!models[i].alive)
            continue;
        for (unsigned p = 0; p < PAGES; p++)
            check_page(&models[i], p);
        guest_end(&models[i].g);
    }
    fake_file_end(&file);
    cr_assert_eq(memfile_reserved(fake_mf), 0u, "seed %u: %d", first,
                 (int)memfile_reserved(fake_mf));
    cr_assert_eq(objcount_report(), 0);
}

Test(mm_model, random_operations)
{
    for (uint32_t s = 1; s <= 8; s++)
        run_model(s * 2654435761u);
}

Test(mm_model, random_operations_with_a_short_queue)
{
    fake_queue_limit = 2;
    run_model(99);
}
