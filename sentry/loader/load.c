/* One execve: script or program, interpreter, heap, vDSO, stack. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "platform/platform.h"
#include "sentry/kernel/rseq.h"
#include "sentry/loader/loader_priv.h"
#include "sentry/vdso/vdso.h"

/* Linux's arch_randomize_brk. */
#define BRK_RND UINT64_C(0x02000000)

struct load {
    const struct task_image_args *args;
    struct program prog;
    struct elf elf, interp_elf;
    struct elf_place place, interp_place;
    struct file *interp; /* owned, or NULL */
    struct mm *mm;       /* owned until it is given to the image */
};

static int load_interpreter(struct load *l, uint64_t max_addr)
{
    int r;

    if (l->elf.interp == NULL)
        return 0;
    r = image_open(l->args->caller, NULL, l->elf.interp, VFS_FOLLOW, &l->interp);
    if (r != 0)
        return r;
    r = elf_read(l->interp, max_addr, &l->interp_elf);
    return r == -ENOEXEC ? -ELIBBAD : r;
}

static void load_layout(struct load *l)
{
    struct mm_layout *m = mm_layout(l->mm);
    uint64_t rnd = 0;

    if (l->args->no_random || getrandom(&rnd, sizeof(rnd), 0) != (ssize_t)sizeof(rnd))
        rnd = 0;
    m->start_code = l->place.start_code;
    m->end_code = l->place.end_code;
    m->start_data = l->place.start_data;
    m->end_data = l->place.end_data;
    m->start_brk = ALIGN_UP(l->place.brk, PAGE_SIZE) + ALIGN_DOWN(rnd % BRK_RND, PAGE_SIZE);
    m->brk = m->start_brk;
}

/* No context is ever given an address that the processor would not take. */
static int load_check_entry(const struct load *l)
{
    const uint64_t max = kernel_plat(l->args->k)->max_addr;

    if (l->place.entry >= max)
        return -ENOEXEC;
    return l->interp != NULL && l->interp_place.entry >= max ? -EINVAL : 0;
}

static int load_map(struct load *l, const struct cred *cred, bool secure, uint64_t *out_sp)
{
    const struct task_image_args *a = l->args;
    struct stack_facts f = {.elf = &l->elf, .place = &l->place, .cred = cred, .secure = secure};
    int r = elf_map(l->mm, a, l->prog.file, &l->elf, ELF_PROGRAM, &l->place);

    if (r == 0 && l->interp != NULL) {
        r = elf_map(l->mm, a, l->interp, &l->interp_elf, ELF_INTERPRETER, &l->interp_place);
        f.interp_base = l->interp_place.bias;
    }
    if (r == 0)
        r = load_check_entry(l);
    if (r == 0)
        r = vdso_map(l->mm, kernel_plat(a->k), kernel_memfile(a->k), a->limits, &f.vdso);
    if (r != 0)
        return r;
    if (rseq_in_file(l->prog.file) || (l->interp != NULL && rseq_in_file(l->interp)))
        mm_set_sections(l->mm);
    load_layout(l);
    mm_layout(l->mm)->vdso = f.vdso;
    return stack_build(l->mm, a, &l->prog.argv, &f, out_sp);
}

static void load_fill(struct load *l, struct cred *cred, bool secure, uint64_t sp,
                      struct task_image *out)
{
    const char *slash = strrchr(l->args->filename, '/');
    const char *name = slash != NULL ? slash + 1 : l->args->filename;

    memset(out, 0, sizeof(*out));
    out->mm = l->mm;
    out->entry = l->interp != NULL ? l->interp_place.entry : l->place.entry;
    out->stack = sp;
    out->exe = file_get(l->prog.file);
    out->cred = cred;
    out->secure = secure;
    memcpy(out->comm, name, strnlen(name, sizeof(out->comm) - 1));
    l->mm = NULL;
}

static int load_image(struct load *l, struct task_image *out)
{
    struct plat *plat = kernel_plat(l->args->k);
    struct cred *cred;
    bool secure;
    uint64_t sp;
    int r = elf_read(l->prog.file, plat->max_addr, &l->elf);

    if (r == 0)
        r = load_interpreter(l, plat->max_addr);
    if (r == 0)
        r = image_cred(l->args->caller, l->prog.file, &cred, &secure);
    if (r != 0)
        return r;
    r = mm_new(plat, kernel_memfile(l->args->k), &l->mm);
    if (r == 0) {
        mm_set_account(l->mm, l->args->acct);
        if (l->args->no_random)
            mm_fix_layout(l->mm);
        r = load_map(l, cred, secure, &sp);
    }
    if (r != 0) {
        cred_put(cred);
        return r;
    }
    mm_loaded(l->mm);
    load_fill(l, cred, secure, sp, out);
    return 0;
}

int loader_load(const struct task_image_args *args, struct task_image *out)
{
    struct load l = {
        .args = args,
        .prog = {.file = file_get(args->file), .argv = args->argv},
    };
    int r = script_resolve(args, &l.prog);

    if (r == 0)
        r = load_image(&l, out);
    mm_put(l.mm);
    elf_fini(&l.interp_elf);
    elf_fini(&l.elf);
    if (l.interp != NULL)
        file_put(l.interp);
    free(l.prog.args);
    file_put(l.prog.file);
    return r;
}
