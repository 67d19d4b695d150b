/* The options of prctl(2) that are about the address space: what /proc shows of it, and that no
 * memory may be both written and executed (kernel/sys.c: prctl_set_mm, prctl_set_mdwe). */
#include <errno.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/resource.h>

#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_prctl.h"

#define MM_MAP_WORDS 11 /* start_code to env_end of struct prctl_mm_map */

/* The fields of struct prctl_mm_map, in its order. */
static uint64_t *mm_words(struct mm_layout *l, uint64_t *out[MM_MAP_WORDS])
{
    uint64_t *const all[MM_MAP_WORDS] = {
        &l->start_code,  &l->end_code,  &l->start_data, &l->end_data,  &l->start_brk, &l->brk,
        &l->start_stack, &l->arg_start, &l->arg_end,    &l->env_start, &l->env_end};

    memcpy(out, all, sizeof(all));
    return *out;
}

/* Which of them PR_SET_MM_* changes; -1: none. */
static int mm_word_of(uint64_t op)
{
    switch (op) {
    case PR_SET_MM_START_CODE:
    case PR_SET_MM_END_CODE:
    case PR_SET_MM_START_DATA:
    case PR_SET_MM_END_DATA:
        return (int)op - PR_SET_MM_START_CODE;
    case PR_SET_MM_START_STACK:
        return 6;
    case PR_SET_MM_START_BRK:
        return 4;
    case PR_SET_MM_BRK:
        return 5;
    case PR_SET_MM_ARG_START:
    case PR_SET_MM_ARG_END:
    case PR_SET_MM_ENV_START:
    case PR_SET_MM_ENV_END:
        return (int)op - PR_SET_MM_ARG_START + 7;
    default:
        return -1;
    }
}

/* validate_prctl_map_addr */
static int mm_words_check(struct task *t, const uint64_t w[MM_MAP_WORDS])
{
    const struct plat *plat = kernel_plat(t->k);
    struct mm_limits lim;

    for (int i = 0; i < MM_MAP_WORDS; i++)
        if (w[i] < plat->min_addr || w[i] >= plat->max_addr)
            return -EINVAL;
    if (w[0] >= w[1] || w[2] >= w[3] || w[4] > w[5] || w[7] > w[8] || w[9] > w[10])
        return -EINVAL;
    task_mm_limits(t, &lim);
    const uint64_t data = (w[5] - w[4]) + (w[3] - w[2]);
    return lim.data != UINT64_MAX && data > lim.data ? -EINVAL : 0;
}

static int mm_auxv_in(struct task *t, uint64_t from, uint64_t size, uint64_t out[MM_AUXV_WORDS])
{
    if (size > MM_AUXV_WORDS * sizeof(*out) || size % sizeof(*out))
        return -EINVAL;
    memset(out, 0, MM_AUXV_WORDS * sizeof(*out));
    int r = copyin(&t->ua, out, uaddr(from), (size_t)size);
    /* It ends whatever was given. */
    out[MM_AUXV_WORDS - 2] = out[MM_AUXV_WORDS - 1] = 0;
    return r;
}

static void mm_auxv_set(struct mm_layout *l, const uint64_t auxv[MM_AUXV_WORDS])
{
    memcpy(l->auxv, auxv, sizeof(l->auxv));
    l->auxv_words = MM_AUXV_WORDS;
    for (uint32_t i = 0; i + 1 < MM_AUXV_WORDS; i += 2)
        if (auxv[i] == 0) {
            l->auxv_words = i + 2;
            return;
        }
}

static void mm_words_set(struct task *t, const uint64_t w[MM_MAP_WORDS], const uint64_t *auxv)
{
    struct mm *mm = t->ua.mm;
    uint64_t *at[MM_MAP_WORDS];

    mm_lock_layout(mm);
    (void)mm_words(mm_layout(mm), at);
    for (int i = 0; i < MM_MAP_WORDS; i++)
        *at[i] = w[i];
    if (auxv)
        mm_auxv_set(mm_layout(mm), auxv);
    mm_unlock_layout(mm);
}

static void mm_words_get(struct task *t, uint64_t w[MM_MAP_WORDS])
{
    struct mm *mm = t->ua.mm;
    uint64_t *at[MM_MAP_WORDS];

    mm_lock_layout(mm);
    (void)mm_words(mm_layout(mm), at);
    for (int i = 0; i < MM_MAP_WORDS; i++)
        w[i] = *at[i];
    mm_unlock_layout(mm);
}

/* The program's file can change only once nothing of the old one is mapped: then nothing is left
 * to make this call. */
static int mm_exe(struct task *t, int fd)
{
    struct file *f;
    int r = task_file(t, fd, &f);

    if (r)
        return r;
    file_put(f);
    return -EBUSY;
}

static int64_t mm_map(struct task *t, uint64_t from, uint64_t size)
{
    uint64_t w[MM_MAP_WORDS], auxv[MM_AUXV_WORDS];
    struct prctl_mm_map m;

    if (size != sizeof(m))
        return -EINVAL;
    int r = copyin_obj(&t->ua, &m, uaddr(from));
    if (r)
        return r;
    memcpy(w, &m, sizeof(w));
    r = mm_words_check(t, w);
    if (!r && m.auxv_size && (!m.auxv || m.auxv_size > sizeof(auxv)))
        r = -EINVAL;
    if (!r && m.exe_fd != UINT32_MAX)
        r = cred_self_capable(t->cred, CAP_SYS_ADMIN) ||
                    cred_self_capable(t->cred, CAP_CHECKPOINT_RESTORE)
                ? mm_exe(t, (int)m.exe_fd)
                : -EPERM;
    if (!r && m.auxv_size)
        r = mm_auxv_in(t, (uint64_t)(uintptr_t)m.auxv, m.auxv_size, auxv);
    if (!r)
        mm_words_set(t, w, m.auxv_size ? auxv : NULL);
    return r;
}

static int64_t mm_one_auxv(struct task *t, uint64_t from, uint64_t size)
{
    uint64_t auxv[MM_AUXV_WORDS];
    int r = mm_auxv_in(t, from, size, auxv);

    if (r)
        return r;
    mm_lock_layout(t->ua.mm);
    mm_auxv_set(mm_layout(t->ua.mm), auxv);
    mm_unlock_layout(t->ua.mm);
    return 0;
}

int64_t prctl_set_mm(struct task *t, uint64_t op, uint64_t addr, uint64_t a4, uint64_t a5)
{
    const int word = mm_word_of(op);
    uint64_t w[MM_MAP_WORDS];

    if (a5 || (a4 && op != PR_SET_MM_AUXV && op != PR_SET_MM_MAP && op != PR_SET_MM_MAP_SIZE))
        return -EINVAL;
    if (op == PR_SET_MM_MAP_SIZE) {
        const uint32_t size = sizeof(struct prctl_mm_map);
        return copyout_obj(&t->ua, uaddr(addr), &size);
    }
    if (op == PR_SET_MM_MAP)
        return mm_map(t, addr, a4);
    if (!task_capable(t, CAP_SYS_RESOURCE))
        return -EPERM;
    if (op == PR_SET_MM_EXE_FILE)
        return mm_exe(t, (int)(uint32_t)addr);
    if (op == PR_SET_MM_AUXV)
        return mm_one_auxv(t, addr, a4);
    if (addr >= kernel_plat(t->k)->max_addr || addr < kernel_plat(t->k)->min_addr || word < 0)
        return -EINVAL;
    mm_words_get(t, w);
    w[word] = addr;
    int r = mm_words_check(t, w);
    if (!r)
        mm_words_set(t, w, NULL);
    return r;
}

int64_t prctl_set_mdwe(struct task *t, uint64_t bits)
{
    struct mm *mm = t->ua.mm;
    int r = 0;

    if ((bits & ~(uint64_t)(MM_MDWE_REFUSE | MM_MDWE_NO_INHERIT)) || bits == MM_MDWE_NO_INHERIT)
        return -EINVAL;
    mm_lock_layout(mm);
    struct mm_layout *l = mm_layout(mm);
    if (l->mdwe && l->mdwe != bits)
        r = -EPERM;
    else
        l->mdwe = (uint32_t)bits;
    mm_unlock_layout(mm);
    return r;
}

int64_t prctl_get_mdwe(struct task *t)
{
    mm_lock_layout(t->ua.mm);
    const int64_t bits = mm_layout(t->ua.mm)->mdwe;
    mm_unlock_layout(t->ua.mm);
    return bits;
}
