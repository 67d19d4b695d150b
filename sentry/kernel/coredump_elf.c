/* The core file itself: ELF headers, notes, and the memory that a program has changed. */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sentry/kernel/coredump_priv.h"

/* One piece of memory on its way to the file. */
#define CORE_CHUNK (UINT64_C(64) << 10)
#define CORE_PAGES (CORE_CHUNK >> PAGE_SHIFT)
#define CORE_SEGMENTS_MAX LIMIT_MAP_COUNT

struct core_file {
    struct coredump *c;
    struct file *f;
    const struct vfs_caller *vc;
    uint64_t limit;
    uint8_t chunk[CORE_CHUNK];
    struct mm_vma_info vma;
    unsigned char present[CORE_PAGES];
};

static int core_write_at(struct core_file *o, const void *data, uint64_t size, uint64_t off)
{
    struct uio u;

    if (off >= o->limit)
        return 0;
    size = MIN(size, o->limit - off);
    uio_init_kernel(&u, (void *)(uintptr_t)data, size);
    while (u.left > 0) {
        const int64_t n = vfs_write(o->f, &u, (int64_t)(off + size - u.left), 0, o->vc);
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
    }
    return 0;
}

/* vma_dump_size() with the default filter: what is nobody's file, or was written to; of a program's
 * file the page that tells which it is. */
static uint64_t core_dump_size(const struct mm_vma_info *v)
{
    if (v->dont_dump || !(v->prot & PROT_READ))
        return 0;
    if (v->anonymous || v->anon > 0)
        return v->end - v->start;
    return v->off == 0 && !(v->flags & MAP_SHARED) ? PAGE_SIZE : 0;
}

static uint32_t core_flags(int prot)
{
    return (prot & PROT_READ ? PF_R : 0u) | (prot & PROT_WRITE ? PF_W : 0u) |
           (prot & PROT_EXEC ? PF_X : 0u);
}

/* One header per VMA; off: where the first one's memory goes. */
static uint32_t core_headers(struct core_file *o, struct core_buf *b, uint64_t off)
{
    struct mm_vma_info *v = &o->vma;
    uint32_t count = 0;

    for (uint64_t at = 0; count < CORE_SEGMENTS_MAX && mm_vma_next(o->c->t->ua.mm, at, v) == 0;
         at = v->end, count++) {
        const Elf64_Phdr p = {
            .p_type = PT_LOAD,
            .p_flags = core_flags(v->prot),
            .p_offset = off,
            .p_vaddr = v->start,
            .p_filesz = core_dump_size(v),
            .p_memsz = v->end - v->start,
            .p_align = PAGE_SIZE,
        };
        core_put(b, &p, sizeof(p));
        off += p.p_filesz;
    }
    return count;
}

/* Pages that were never touched stay holes of the file. */
static int core_chunk(struct core_file *o, uint64_t addr, uint64_t size, uint64_t off)
{
    struct mm *mm = o->c->t->ua.mm;
    const uint64_t pages = size >> PAGE_SHIFT;
    bool any = false;

    if (mm_mincore(mm, uaddr(addr), size, o->present) != 0)
        return 0;
    for (uint64_t i = 0; i < pages; i++)
        any |= o->present[i] & 1;
    if (!any)
        return 0;
    const size_t n = copyin_partial(&o->c->t->ua, o->chunk, uaddr(addr), size);
    return n > 0 ? core_write_at(o, o->chunk, n, off) : 0;
}

static int core_memory(struct core_file *o, const Elf64_Phdr *p, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        for (uint64_t at = 0; at < p[i].p_filesz && p[i].p_offset + at < o->limit;
             at += CORE_CHUNK) {
            const uint64_t n = MIN(CORE_CHUNK, p[i].p_filesz - at);
            int r = core_chunk(o, p[i].p_vaddr + at, n, p[i].p_offset + at);
            if (r)
                return r;
        }
    }
    return 0;
}

static void core_elf_header(Elf64_Ehdr *e, uint32_t segments)
{
    memset(e, 0, sizeof(*e));
    memcpy(e->e_ident, ELFMAG, SELFMAG);
    e->e_ident[EI_CLASS] = ELFCLASS64;
    e->e_ident[EI_DATA] = ELFDATA2LSB;
    e->e_ident[EI_VERSION] = EV_CURRENT;
    e->e_type = ET_CORE;
    e->e_machine = EM_X86_64;
    e->e_version = EV_CURRENT;
    e->e_phoff = sizeof(*e);
    e->e_ehsize = sizeof(*e);
    e->e_phentsize = sizeof(Elf64_Phdr);
    e->e_phnum = (uint16_t)segments;
}

/* Where things go: header, program headers, notes, and from a page border on the memory. */
static int core_layout(struct core_file *o, struct core_buf *notes, struct core_buf *loads)
{
    const uint32_t count = core_headers(o, loads, 0);
    const uint64_t head = sizeof(Elf64_Ehdr) + (count + 1u) * sizeof(Elf64_Phdr);
    const uint64_t data = ALIGN_UP(head + notes->size, (uint64_t)PAGE_SIZE);
    Elf64_Ehdr e;
    const Elf64_Phdr note = {
        .p_type = PT_NOTE, .p_offset = head, .p_filesz = notes->size, .p_align = 4};

    if (notes->failed || loads->failed || count + 1u >= PN_XNUM)
        return -ENOMEM;
    Elf64_Phdr *p = (Elf64_Phdr *)(void *)loads->data;
    uint64_t end = data;
    for (uint32_t i = 0; i < count; i++) {
        p[i].p_offset += data;
        end = p[i].p_offset + p[i].p_filesz;
    }
    core_elf_header(&e, count + 1);
    int r = core_write_at(o, &e, sizeof(e), 0);
    if (r == 0)
        r = core_write_at(o, &note, sizeof(note), sizeof(e));
    if (r == 0)
        r = core_write_at(o, p, count * sizeof(*p), sizeof(e) + sizeof(note));
    if (r == 0)
        r = core_write_at(o, notes->data, notes->size, head);
    if (r == 0)
        r = core_memory(o, p, count);
    if (r == 0)
        r = vfs_ftruncate(o->f, (int64_t)MIN(end, o->limit), o->vc);
    return r;
}

int core_write(struct coredump *c, struct file *f, uint64_t limit, const struct vfs_caller *vc)
{
    struct core_buf notes = {0}, loads = {0};
    struct core_file *o = calloc(1, sizeof(*o));

    if (!o)
        return -ENOMEM;
    o->c = c;
    o->f = f;
    o->vc = vc;
    o->limit = MIN(limit, (uint64_t)INT64_MAX);
    core_notes(c, &notes);
    int r = core_layout(o, &notes, &loads);
    free(notes.data);
    free(loads.data);
    free(o);
    return r;
}
