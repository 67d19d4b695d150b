/* ELF headers, hostile until checked. */
#include <errno.h>
#include <libelf.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/limits.h"
#include "sentry/loader/loader_priv.h"

/* Alignments beyond this are ignored, as nothing bigger is in use. */
#define ELF_ALIGN_MAX (UINT64_C(1) << 30)

static bool elf_header_ok(const Elf64_Ehdr *h)
{
    return memcmp(h->e_ident, ELFMAG, SELFMAG) == 0 && h->e_ident[EI_CLASS] == ELFCLASS64 &&
           h->e_ident[EI_DATA] == ELFDATA2LSB && h->e_machine == EM_X86_64 &&
           (h->e_type == ET_EXEC || h->e_type == ET_DYN) && h->e_phentsize == sizeof(Elf64_Phdr) &&
           h->e_phnum > 0 && h->e_phnum <= LIMIT_ELF_PHNUM;
}

static int elf_read_exact(struct file *f, void *buf, size_t size, uint64_t off)
{
    if (off > INT64_MAX - size)
        return -ENOEXEC;
    int64_t n = vfs_pread_kernel(f, buf, size, (int64_t)off);
    if (n < 0)
        return (int)n;
    return (size_t)n == size ? 0 : -ENOEXEC;
}

/* Reads records of a type and turns the file's byte order and layout into this machine's. */
static int elf_read_records(struct file *f, Elf_Type type, void *out, size_t size, uint64_t off)
{
    Elf_Data raw = {.d_buf = out, .d_type = type, .d_size = size, .d_version = EV_CURRENT};
    Elf_Data host = raw;
    int r = elf_read_exact(f, out, size, off);

    if (r != 0)
        return r;
    return elf64_xlatetom(&host, &raw, ELFDATA2LSB) != NULL ? 0 : -ENOEXEC;
}

static int elf_read_interp(struct file *f, const Elf64_Phdr *p, struct elf *e)
{
    if (p->p_filesz < 2 || p->p_filesz > LIMIT_ELF_INTERP)
        return -ENOEXEC;
    e->interp = malloc(p->p_filesz);
    if (e->interp == NULL)
        return -ENOMEM;
    int r = elf_read_exact(f, e->interp, p->p_filesz, p->p_offset);
    if (r != 0)
        return r;
    return e->interp[p->p_filesz - 1] == '\0' ? 0 : -ENOEXEC;
}

static int elf_check_load(const Elf64_Phdr *p, uint64_t max_addr, struct elf *e, bool *seen)
{
    uint64_t end, file_end;

    if (p->p_memsz == 0)
        return 0;
    if (p->p_filesz > p->p_memsz || ckd_add(&end, p->p_vaddr, p->p_memsz) || end > max_addr ||
        ckd_add(&file_end, p->p_offset, p->p_filesz) || file_end > INT64_MAX - PAGE_SIZE)
        return -ENOEXEC;
    if ((p->p_vaddr - p->p_offset) % PAGE_SIZE != 0)
        return -ENOEXEC;
    /* Ascending order, as elf(5) asks; what overlaps in a page is legal. */
    if (*seen && p->p_vaddr < e->end - PAGE_SIZE)
        return -ENOEXEC;
    if (!*seen)
        e->low = ALIGN_DOWN(p->p_vaddr, PAGE_SIZE);
    e->end = ALIGN_UP(end, PAGE_SIZE);
    if (p->p_align > e->align && (p->p_align & (p->p_align - 1)) == 0 &&
        p->p_align <= ELF_ALIGN_MAX)
        e->align = p->p_align;
    *seen = true;
    return 0;
}

static int elf_check_headers(struct file *f, uint64_t max_addr, struct elf *e)
{
    bool seen = false;
    int r = 0;

    e->align = PAGE_SIZE;
    for (size_t i = 0; i < e->eh.e_phnum && r == 0; i++) {
        const Elf64_Phdr *p = &e->ph[i];
        if (p->p_type == PT_LOAD)
            r = elf_check_load(p, max_addr, e, &seen);
        else if (p->p_type == PT_INTERP && e->interp == NULL)
            r = elf_read_interp(f, p, e);
        else if (p->p_type == PT_GNU_STACK)
            e->exec_stack = (p->p_flags & PF_X) != 0;
    }
    if (r == 0 && !seen)
        r = -ENOEXEC;
    return r;
}

int elf_read(struct file *f, uint64_t max_addr, struct elf *out)
{
    size_t size;
    int r;

    memset(out, 0, sizeof(*out));
    if (elf_version(EV_CURRENT) == EV_NONE)
        return -ENOEXEC;
    r = elf_read_records(f, ELF_T_EHDR, &out->eh, sizeof(out->eh), 0);
    if (r != 0)
        return r;
    if (!elf_header_ok(&out->eh))
        return -ENOEXEC;
    size = out->eh.e_phnum * sizeof(*out->ph);
    out->ph = malloc(size);
    if (out->ph == NULL)
        return -ENOMEM;
    r = elf_read_records(f, ELF_T_PHDR, out->ph, size, out->eh.e_phoff);
    if (r == 0)
        r = elf_check_headers(f, max_addr, out);
    if (r != 0)
        elf_fini(out);
    return r;
}

void elf_fini(struct elf *e)
{
    free(e->ph);
    free(e->interp);
    memset(e, 0, sizeof(*e));
}
