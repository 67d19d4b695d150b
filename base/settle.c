#include "base/settle.h"

#include <elf.h>
#include <link.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "base/compiler.h"

/* The first object is the program itself. */
static int forget_program(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t from = (info->dlpi_addr + p->p_vaddr) & ~(PAGE_SIZE - 1);
        uintptr_t to = info->dlpi_addr + p->p_vaddr + p->p_memsz;

        /* Clean pages of a file: nothing is lost, so a refusal does no harm either. */
        if (p->p_type == PT_LOAD && !(p->p_flags & PF_W))
            (void)madvise((void *)from, to - from, MADV_DONTNEED);
    }
    return 1;
}

void settle(void)
{
    (void)malloc_trim(0);
    (void)dl_iterate_phdr(forget_program, NULL);
}
