/* Inside the loader: a parsed ELF file, where it went, and the first stack.
 * Depends on: loader.h.
 * Threading: one call, one thread.
 * Ownership: struct elf owns its headers; elf_fini. */
#ifndef RINGWALL_SENTRY_LOADER_PRIV_H
#define RINGWALL_SENTRY_LOADER_PRIV_H

#include <elf.h>
#include <stdbool.h>
#include <stdint.h>

#include "sentry/cred/cred.h"
#include "sentry/loader/loader.h"
#include "sentry/mm/mm.h"

/* ---- elf.c ---- */
struct elf {
    Elf64_Ehdr eh;
    Elf64_Phdr *ph;    /* owned; eh.e_phnum of them */
    uint64_t low, end; /* of all PT_LOAD, page-aligned, before the bias */
    uint64_t align;    /* largest p_align that counts */
    char *interp;      /* owned; NULL without PT_INTERP */
    bool exec_stack;
};

/* Reads and checks the headers: every PT_LOAD is in order, inside the file's and the guest's
 * ranges. max_addr bounds addresses. -ENOEXEC when it is no program for this machine. */
MUST_CHECK int elf_read(struct file *f, uint64_t max_addr, struct elf *out);
void elf_fini(struct elf *e);

/* ---- map.c ---- */
struct elf_place {
    uint64_t bias;  /* added to every address of the file */
    uint64_t entry; /* with the bias */
    uint64_t phdr;  /* where the program headers are, 0 when nowhere */
    uint64_t brk;   /* end of the last segment */
    uint64_t start_code, end_code, start_data, end_data;
};

enum elf_role { ELF_PROGRAM, ELF_INTERPRETER };
/* What can go anywhere goes to a place of chance, unless args say otherwise. */
MUST_CHECK int elf_map(struct mm *mm, const struct task_image_args *args, struct file *f,
                       const struct elf *e, enum elf_role role, struct elf_place *out);

/* ---- script.c ---- */
/* Who is loaded in the end, and with which arguments; grows by scripts. */
struct program {
    struct file *file;         /* owned */
    struct image_strings argv; /* text owned when args_owned */
    char *args;                /* owned buffer behind argv, or NULL */
};
/* Follows #! lines till something else stands there. *p starts as the file execve named. */
MUST_CHECK int script_resolve(const struct task_image_args *a, struct program *p);

/* ---- stack.c ---- */
struct stack_facts {
    const struct elf *elf;
    const struct elf_place *place;
    uint64_t interp_base, entry, vdso;
    const struct cred *cred;
    bool secure;
};
/* Maps the stack and fills it: strings, auxiliary vector, pointers. *out_sp is rsp at entry. */
MUST_CHECK int stack_build(struct mm *mm, const struct task_image_args *a,
                           const struct image_strings *argv, const struct stack_facts *f,
                           uint64_t *out_sp);

#endif
