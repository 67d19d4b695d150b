/* The stack a program starts with: System V ABI, x86-64 supplement, 3.4; getauxval(3). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "base/limits.h"
#include "sentry/kernel/rseq.h"
#include "sentry/loader/loader_priv.h"

#ifndef AT_RSEQ_FEATURE_SIZE
#define AT_RSEQ_FEATURE_SIZE 27
#define AT_RSEQ_ALIGN 28
#endif
#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

/* Linux reserves as much beside the strings. */
#define STACK_SPARE (UINT64_C(128) << 10)
#define STACK_AUX_MAX 24
#define STACK_RANDOM 16

_Static_assert(2 * STACK_AUX_MAX <= MM_AUXV_WORDS, "all of it is remembered");

static const char stack_platform[] = "x86_64";

/* What lies where, addresses of the guest; the buffer holds [low, top). */
struct stack_plan {
    uint64_t top, low;
    uint64_t execfn, env, arg, platform, random; /* strings, from the top down */
    uint64_t sp;
    char *buf;
};

struct stack_aux {
    uint64_t v[STACK_AUX_MAX][2];
    size_t count;
};

static void stack_aux_add(struct stack_aux *x, uint64_t key, uint64_t value)
{
    BUG_ON(x->count == STACK_AUX_MAX);
    x->v[x->count][0] = key;
    x->v[x->count][1] = value;
    x->count++;
}

static void stack_aux_fill(struct stack_aux *x, const struct stack_plan *p,
                           const struct stack_facts *f)
{
    x->count = 0;
    if (f->vdso != 0)
        stack_aux_add(x, AT_SYSINFO_EHDR, f->vdso);
    stack_aux_add(x, AT_HWCAP, getauxval(AT_HWCAP));
    stack_aux_add(x, AT_PAGESZ, PAGE_SIZE);
    stack_aux_add(x, AT_CLKTCK, 100);
    stack_aux_add(x, AT_PHDR, f->place->phdr);
    stack_aux_add(x, AT_PHENT, sizeof(Elf64_Phdr));
    stack_aux_add(x, AT_PHNUM, f->elf->eh.e_phnum);
    stack_aux_add(x, AT_BASE, f->interp_base);
    stack_aux_add(x, AT_FLAGS, 0);
    stack_aux_add(x, AT_ENTRY, f->place->entry);
    stack_aux_add(x, AT_UID, f->cred->uid);
    stack_aux_add(x, AT_EUID, f->cred->euid);
    stack_aux_add(x, AT_GID, f->cred->gid);
    stack_aux_add(x, AT_EGID, f->cred->egid);
    stack_aux_add(x, AT_SECURE, f->secure);
    stack_aux_add(x, AT_RANDOM, p->random);
    stack_aux_add(x, AT_HWCAP2, getauxval(AT_HWCAP2));
    stack_aux_add(x, AT_RSEQ_FEATURE_SIZE, RSEQ_FEATURE_SIZE);
    stack_aux_add(x, AT_RSEQ_ALIGN, RSEQ_ALIGN);
    stack_aux_add(x, AT_EXECFN, p->execfn);
    stack_aux_add(x, AT_PLATFORM, p->platform);
    if (getauxval(AT_MINSIGSTKSZ) != 0)
        stack_aux_add(x, AT_MINSIGSTKSZ, getauxval(AT_MINSIGSTKSZ));
    stack_aux_add(x, AT_NULL, 0);
}

static uint64_t stack_take(uint64_t *at, uint64_t size)
{
    *at -= size;
    return *at;
}

static int stack_plan(const struct task_image_args *a, const struct image_strings *argv,
                      uint64_t top, struct stack_plan *p)
{
    uint64_t pointers = (1 + argv->count + 1 + a->envp.count + 1) * 8 + STACK_AUX_MAX * 16;
    uint64_t at = top;

    p->top = top;
    (void)stack_take(&at, 8);
    p->execfn = stack_take(&at, strlen(a->filename) + 1);
    p->env = stack_take(&at, a->envp.size);
    p->arg = stack_take(&at, argv->size);
    p->platform = stack_take(&at, sizeof(stack_platform));
    p->random = ALIGN_DOWN(stack_take(&at, STACK_RANDOM), 16);
    p->sp = ALIGN_DOWN(p->random - pointers, 16);
    p->low = p->sp;
    /* A quarter of the stack limit, but never less than what Linux has always allowed. */
    if (top - p->low > MAX(a->stack_limit / 4, LIMIT_ARG_STRING))
        return -E2BIG;
    p->buf = calloc(1, top - p->low);
    return p->buf != NULL ? 0 : -ENOMEM;
}

static void stack_put(const struct stack_plan *p, uint64_t at, const void *data, size_t size)
{
    memcpy(p->buf + (at - p->low), data, size);
}

static uint64_t stack_put_word(const struct stack_plan *p, uint64_t at, uint64_t value)
{
    stack_put(p, at, &value, sizeof(value));
    return at + sizeof(value);
}

/* Pointers to the strings of s, which lie packed at text, and a null. */
static uint64_t stack_put_pointers(const struct stack_plan *p, uint64_t at,
                                   const struct image_strings *s, uint64_t text)
{
    size_t off = 0;

    for (size_t i = 0; i < s->count; i++) {
        at = stack_put_word(p, at, text + off);
        off += strlen(s->text + off) + 1;
    }
    return stack_put_word(p, at, 0);
}

static int stack_fill(const struct stack_plan *p, const struct task_image_args *a,
                      const struct image_strings *argv, const struct stack_facts *f,
                      struct mm_layout *layout)
{
    char random[STACK_RANDOM];
    struct stack_aux aux;
    uint64_t at = p->sp;

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return -EIO;
    stack_put(p, p->execfn, a->filename, strlen(a->filename) + 1);
    stack_put(p, p->env, a->envp.text, a->envp.size);
    stack_put(p, p->arg, argv->text, argv->size);
    stack_put(p, p->platform, stack_platform, sizeof(stack_platform));
    stack_put(p, p->random, random, sizeof(random));
    at = stack_put_word(p, at, argv->count);
    at = stack_put_pointers(p, at, argv, p->arg);
    at = stack_put_pointers(p, at, &a->envp, p->env);
    stack_aux_fill(&aux, p, f);
    stack_put(p, at, aux.v, aux.count * sizeof(aux.v[0]));
    memcpy(layout->auxv, aux.v, aux.count * sizeof(aux.v[0]));
    layout->auxv_words = (uint32_t)(2 * aux.count);
    return 0;
}

static int stack_map(struct mm *mm, const struct task_image_args *a, const struct stack_plan *p,
                     bool exec)
{
    uint64_t size = ALIGN_UP(p->top - p->low + STACK_SPARE, PAGE_SIZE);
    const struct mm_map_args m = {
        .addr = {p->top - size},
        .size = size,
        .prot = PROT_READ | PROT_WRITE | (exec ? PROT_EXEC : 0),
        .flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_STACK | MAP_FIXED,
        .max_prot = PROT_READ | PROT_WRITE | PROT_EXEC,
        .name = "[stack]",
    };
    uaddr_t at;

    return mm_mmap(mm, NULL, a->limits, &m, &at);
}

int stack_build(struct mm *mm, const struct task_image_args *a, const struct image_strings *argv,
                const struct stack_facts *f, uint64_t *out_sp)
{
    const struct uaccess ua = {.mm = mm};
    struct mm_layout *layout = mm_layout(mm);
    struct stack_plan p;
    int r = stack_plan(a, argv, mm_stack_top(mm), &p);

    if (r != 0)
        return r;
    r = stack_fill(&p, a, argv, f, layout);
    if (r == 0)
        r = stack_map(mm, a, &p, f->elf->exec_stack);
    if (r == 0)
        r = copyout(&ua, (uaddr_t){p.low}, p.buf, p.top - p.low);
    free(p.buf);
    if (r != 0)
        return r == -EFAULT ? -ENOMEM : r;
    layout->start_stack = p.sp;
    layout->arg_start = p.arg;
    layout->arg_end = p.arg + argv->size;
    layout->env_start = p.env;
    layout->env_end = p.env + a->envp.size;
    *out_sp = p.sp;
    return 0;
}
