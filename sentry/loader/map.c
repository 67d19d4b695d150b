/* Segments into memory: where they go, file part, zeroed part. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "sentry/loader/loader_priv.h"

/* Linux's ELF_ET_DYN_BASE, and its 28 bits of randomness. */
#define ELF_DYN_BASE UINT64_C(0x555555554000)
#define ELF_DYN_RND_PAGES (UINT64_C(1) << 28)

struct mapper {
    struct mm *mm;
    const struct mm_limits *lim;
    struct file *file;
    struct mappable *m; /* owned */
    int max_prot;
    bool no_random;
};

static int elf_prot(const Elf64_Phdr *p)
{
    return ((p->p_flags & PF_R) != 0 ? PROT_READ : 0) |
           ((p->p_flags & PF_W) != 0 ? PROT_WRITE : 0) | ((p->p_flags & PF_X) != 0 ? PROT_EXEC : 0);
}

static int map_anon(const struct mapper *mp, uint64_t addr, uint64_t size, int prot)
{
    const struct mm_map_args a = {
        .addr = {addr},
        .size = size,
        .prot = prot,
        .flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
        .max_prot = PROT_READ | PROT_WRITE | PROT_EXEC,
    };
    uaddr_t at;

    return mm_mmap(mp->mm, NULL, mp->lim, &a, &at);
}

static int map_file(const struct mapper *mp, uint64_t addr, uint64_t size, uint64_t off, int prot)
{
    const struct mm_map_args a = {
        .addr = {addr},
        .size = size,
        .prot = prot,
        .flags = MAP_PRIVATE | MAP_FIXED,
        .max_prot = PROT_READ | PROT_WRITE | PROT_EXEC,
        .m = mp->m,
        .off = off,
    };
    uaddr_t at;

    return mm_mmap(mp->mm, NULL, mp->lim, &a, &at);
}

/* The rest of the last file page reads as zeros where the program may write it (.bss). */
static int map_zero_tail(const struct mapper *mp, const Elf64_Phdr *p, uint64_t start, uint64_t end)
{
    const struct uaccess ua = {.mm = mp->mm};

    if (start == end || (p->p_flags & PF_W) == 0)
        return 0;
    return user_zero(&ua, (uaddr_t){start}, end - start);
}

static int map_segment(const struct mapper *mp, const Elf64_Phdr *p, uint64_t bias)
{
    uint64_t start = ALIGN_DOWN(bias + p->p_vaddr, PAGE_SIZE);
    uint64_t in_page = (bias + p->p_vaddr) - start;
    uint64_t file_end = bias + p->p_vaddr + p->p_filesz;
    uint64_t mem_end = ALIGN_UP(bias + p->p_vaddr + p->p_memsz, PAGE_SIZE);
    uint64_t zero_from = start;
    int r = 0;

    if (p->p_filesz > 0) {
        zero_from = ALIGN_UP(file_end, PAGE_SIZE);
        r = map_file(mp, start, zero_from - start, p->p_offset - in_page, elf_prot(p));
        if (r == 0 && p->p_memsz > p->p_filesz)
            r = map_zero_tail(mp, p, file_end, zero_from);
    }
    if (r == 0 && mem_end > zero_from)
        r = map_anon(mp, zero_from, mem_end - zero_from, elf_prot(p));
    return r;
}

/* A free range for an image that can go anywhere. */
static int map_find_place(const struct mapper *mp, const struct elf *e, enum elf_role role,
                          uint64_t *out_bias)
{
    struct mm_map_args a = {
        .size = e->end - e->low + (e->align > PAGE_SIZE ? e->align : 0),
        .prot = PROT_NONE,
        .flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
        .max_prot = PROT_READ | PROT_WRITE | PROT_EXEC,
    };
    uint64_t rnd = 0;
    uaddr_t at;
    int r;

    if (role == ELF_PROGRAM && e->interp != NULL) {
        if (mp->no_random || getrandom(&rnd, sizeof(rnd), 0) != (ssize_t)sizeof(rnd))
            rnd = 0;
        a.addr.v = ELF_DYN_BASE + (rnd % ELF_DYN_RND_PAGES) * PAGE_SIZE;
    }
    r = mm_mmap(mp->mm, NULL, mp->lim, &a, &at);
    if (r == 0)
        r = mm_munmap(mp->mm, NULL, at, a.size);
    if (r == 0)
        *out_bias = ALIGN_UP(at.v, e->align) - ALIGN_DOWN(e->low, e->align);
    return r;
}

static void map_note(const Elf64_Phdr *p, const struct elf *e, struct elf_place *out)
{
    uint64_t start = out->bias + p->p_vaddr;

    if (e->eh.e_phoff >= p->p_offset && e->eh.e_phoff < p->p_offset + p->p_filesz)
        out->phdr = start + (e->eh.e_phoff - p->p_offset);
    if ((p->p_flags & PF_X) != 0) {
        if (out->start_code == 0)
            out->start_code = start;
        out->end_code = start + p->p_filesz;
    } else if ((p->p_flags & PF_W) != 0) {
        if (out->start_data == 0)
            out->start_data = start;
        out->end_data = start + p->p_filesz;
    }
    out->brk = start + p->p_memsz;
}

int elf_map(struct mm *mm, const struct task_image_args *args, struct file *f, const struct elf *e,
            enum elf_role role, struct elf_place *out)
{
    struct mapper mp = {.mm = mm, .lim = args->limits, .no_random = args->no_random, .file = f};
    int r = vfs_mmap(f, PROT_READ | PROT_EXEC, MAP_PRIVATE, &mp.max_prot, &mp.m);

    if (r != 0)
        return r == -ENODEV ? -ENOEXEC : r;
    *out = (struct elf_place){0};
    if (e->eh.e_type == ET_DYN)
        r = map_find_place(&mp, e, role, &out->bias);
    for (size_t i = 0; i < e->eh.e_phnum && r == 0; i++) {
        const Elf64_Phdr *p = &e->ph[i];
        if (p->p_type != PT_LOAD || p->p_memsz == 0)
            continue;
        r = map_segment(&mp, p, out->bias);
        map_note(p, e, out);
    }
    out->entry = out->bias + e->eh.e_entry;
    mp.m->ops->put(mp.m);
    return r;
}
