/* Critical sections of rseq(2) are found by the section table of a file, however broken that is. */
#include <criterion/criterion.h>
#include <elf.h>
#include <string.h>

#include "sentry/kernel/rseq.h"
#include "tests/unit/fakes/fakes.h"

#define SECTIONS 40 /* more than are looked at at once */

static struct image {
    Elf64_Ehdr h;
    Elf64_Shdr s[SECTIONS];
    char names[64];
} image;

/* A file whose last section but one has descriptors; the last one holds the names. */
static void image_init(void)
{
    static const char names[] = "\0.text\0__rseq_cs";

    memset(&image, 0, sizeof(image));
    memcpy(image.h.e_ident, ELFMAG, SELFMAG);
    image.h.e_ident[EI_CLASS] = ELFCLASS64;
    image.h.e_shentsize = sizeof(Elf64_Shdr);
    image.h.e_shoff = offsetof(struct image, s);
    image.h.e_shnum = SECTIONS;
    image.h.e_shstrndx = SECTIONS - 1;
    for (size_t i = 1; i < SECTIONS; i++)
        image.s[i] = (Elf64_Shdr){
            .sh_name = 1, .sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC, .sh_size = 8};
    image.s[SECTIONS - 2].sh_name = 7;
    memcpy(image.names, names, sizeof(names));
    image.s[SECTIONS - 1] = (Elf64_Shdr){.sh_type = SHT_STRTAB,
                                         .sh_offset = offsetof(struct image, names),
                                         .sh_size = sizeof(names)};
    fake_content.data = (const uint8_t *)&image;
    fake_content.size = sizeof(image);
}

TestSuite(kernel_rseq_elf, .init = image_init, .timeout = 60);

static bool found(void)
{
    static struct file any;

    return rseq_in_file(&any);
}

Test(kernel_rseq_elf, descriptors_are_found)
{
    cr_assert(found());
    image.s[SECTIONS - 2].sh_flags |= SHF_WRITE;
    cr_assert(found());
    memcpy(image.names + 7, "__rseq_cs_ptr_array", sizeof("__rseq_cs_ptr_array"));
    image.s[SECTIONS - 1].sh_size = sizeof(image.names);
    cr_assert(found());
    image.s[1].sh_name = 7;
    image.s[SECTIONS - 2].sh_name = 1;
    cr_assert(found());
}

Test(kernel_rseq_elf, other_sections_are_none)
{
    Elf64_Shdr *s = &image.s[SECTIONS - 2];

    s->sh_name = 1;
    cr_assert_not(found());
    s->sh_name = 8;
    cr_assert_not(found());
    s->sh_name = 7;
    s->sh_type = SHT_NOTE;
    cr_assert_not(found());
    s->sh_type = SHT_PROGBITS;
    s->sh_flags = 0;
    cr_assert_not(found());
    s->sh_flags = SHF_ALLOC | SHF_EXECINSTR;
    cr_assert_not(found());
    s->sh_flags = SHF_ALLOC;
    cr_assert(found());
}

Test(kernel_rseq_elf, names_out_of_the_table)
{
    Elf64_Shdr *s = &image.s[SECTIONS - 2], *names = &image.s[SECTIONS - 1];

    s->sh_name = UINT32_MAX;
    cr_assert_not(found());
    s->sh_name = (uint32_t)names->sh_size;
    cr_assert_not(found());
    s->sh_name = 7;
    names->sh_size = 7 + 8; /* ends in the name */
    cr_assert_not(found());
    names->sh_size = 0;
    cr_assert_not(found());
    names->sh_size = 64;
    names->sh_offset = UINT64_MAX - 7;
    cr_assert_not(found());
    names->sh_offset = INT64_MAX - 64;
    cr_assert_not(found());
    names->sh_offset = sizeof(image);
    cr_assert_not(found());
}

/* Table and name are far outside the file, and their sum would be the name's place. */
Test(kernel_rseq_elf, offsets_do_not_wrap)
{
    Elf64_Shdr *s = &image.s[SECTIONS - 2], *names = &image.s[SECTIONS - 1];

    s->sh_name = 0x40000000;
    names->sh_offset = offsetof(struct image, names) + 7 - UINT64_C(0x40000000);
    names->sh_size = UINT64_C(1) << 63;
    cr_assert_not(found());
    names->sh_size = UINT64_MAX;
    cr_assert_not(found());
}

Test(kernel_rseq_elf, section_tables_that_are_none)
{
    const Elf64_Ehdr good = image.h;

    image.h.e_shnum = UINT16_MAX;
    cr_assert_not(found());
    image.h.e_shnum = 0; /* the number would be in the first section */
    image.s[0].sh_size = SECTIONS;
    cr_assert_not(found());
    image.h = good;
    image.h.e_shnum = 4096; /* goes past the end: what is there is looked at in whole pieces */
    cr_assert_not(found());
    image.h = good;
    image.h.e_shstrndx = SECTIONS;
    cr_assert_not(found());
    image.h.e_shstrndx = SHN_XINDEX;
    cr_assert_not(found());
    image.h = good;
    image.h.e_shentsize = sizeof(Elf64_Shdr) - 1;
    cr_assert_not(found());
    image.h = good;
    image.h.e_shoff = 0;
    cr_assert_not(found());
    image.h.e_shoff = UINT64_MAX - 64;
    cr_assert_not(found());
    image.h.e_shoff = INT64_MAX;
    cr_assert_not(found());
    image.h = good;
    image.h.e_ident[EI_CLASS] = ELFCLASS32;
    cr_assert_not(found());
    image.h = good;
    image.h.e_ident[0] = 0;
    cr_assert_not(found());
    image.h = good;
    cr_assert(found());
}

/* Wherever the file ends: never more than what is there. */
Test(kernel_rseq_elf, truncated_files)
{
    const size_t name_end = offsetof(struct image, names) + 7 + strlen("__rseq_cs");

    for (size_t size = 0; size < name_end; size++) {
        fake_content.size = size;
        cr_assert_not(found(), "%zu bytes", size);
    }
    fake_content.size = name_end;
    cr_assert(found());
    fake_content.data = NULL;
    cr_assert_not(found());
}
