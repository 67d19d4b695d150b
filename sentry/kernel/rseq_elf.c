/* Whether a program or library brings critical sections of rseq(2): toolchains and libraries put
 * their descriptors into sections of their own, by which debuggers find them. */
#include <elf.h>
#include <string.h>

#include "sentry/kernel/rseq.h"

/* What such sections are called, or begin with. */
#define SECTION_NAME "__rseq_cs"
/* More sections are not looked at. */
#define SECTIONS_MAX 4096u
#define SECTIONS_AT_ONCE 32u

static bool read_all(struct file *f, void *buf, size_t size, uint64_t off)
{
    return off <= INT64_MAX - size && vfs_pread_kernel(f, buf, size, (int64_t)off) == (int64_t)size;
}

static bool header_ok(const Elf64_Ehdr *h)
{
    return memcmp(h->e_ident, ELFMAG, SELFMAG) == 0 && h->e_ident[EI_CLASS] == ELFCLASS64 &&
           h->e_shentsize == sizeof(Elf64_Shdr) && h->e_shoff != 0 && h->e_shnum != 0 &&
           h->e_shnum <= SECTIONS_MAX && h->e_shstrndx < h->e_shnum;
}

static bool name_matches(struct file *f, const Elf64_Shdr *names, const Elf64_Shdr *s)
{
    char name[sizeof(SECTION_NAME) - 1];

    return s->sh_name < names->sh_size && names->sh_size - s->sh_name >= sizeof(name) &&
           names->sh_offset <= INT64_MAX && /* the sum cannot wrap */
           read_all(f, name, sizeof(name), names->sh_offset + s->sh_name) &&
           memcmp(name, SECTION_NAME, sizeof(name)) == 0;
}

/* Descriptors are data of the program: what is not loaded, or is code, needs no look at its name.
 */
static bool may_be_descriptors(const Elf64_Shdr *s)
{
    return s->sh_type == SHT_PROGBITS && (s->sh_flags & SHF_ALLOC) &&
           !(s->sh_flags & SHF_EXECINSTR);
}

bool rseq_in_file(struct file *f)
{
    Elf64_Shdr s[SECTIONS_AT_ONCE], names;
    Elf64_Ehdr h;

    if (!read_all(f, &h, sizeof(h), 0) || !header_ok(&h) ||
        !read_all(f, &names, sizeof(names), h.e_shoff + h.e_shstrndx * sizeof(names)))
        return false;
    for (size_t i = 0; i < h.e_shnum; i += SECTIONS_AT_ONCE) {
        const size_t n = MIN(h.e_shnum - i, (size_t)SECTIONS_AT_ONCE);
        if (!read_all(f, s, n * sizeof(s[0]), h.e_shoff + i * sizeof(s[0])))
            return false;
        for (size_t j = 0; j < n; j++)
            if (may_be_descriptors(&s[j]) && name_matches(f, &names, &s[j]))
                return true;
    }
    return false;
}
