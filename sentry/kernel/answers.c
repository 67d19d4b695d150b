/* Answers that guest code may get without leaving it: of calls without arguments and effects, whose
 * result changes only where task_answers_changed is called, and of those that change what is its
 * own. */
#include "sentry/kernel/task_priv.h"

#include <sys/syscall.h>

/* The same for every task. A call that is not there is made by each new thread all the same. */
static size_t answers_fixed(struct task *t, struct plat_answer *to)
{
    const bool yield = !task_priv(t)->rseq_user.joined || !rseq_cpu_wanted(t->k->rseq_cpus);
    size_t n = 0;

    atomic_store(&task_priv(t)->yields_alone, yield);
    if (yield)
        to[n++] = (struct plat_answer){.nr = SYS_sched_yield, .kind = PLAT_ANSWER_YIELD};
    to[n++] = (struct plat_answer){.nr = SYS_rt_sigprocmask, .kind = PLAT_ANSWER_SIGMASK};
    to[n++] = (struct plat_answer){.nr = SYS_set_robust_list, .kind = PLAT_ANSWER_ROBUST};
    return n;
}

/* The owner forgets first that they are due, then looks; who changes something says that they are
 * due, then takes away what is there. Whoever comes second undoes what the other did too early. */
void task_answers(struct task *t)
{
    static const uint32_t calls[] = {SYS_getpid, SYS_gettid,  SYS_getppid, SYS_getuid,
                                     SYS_getgid, SYS_geteuid, SYS_getegid};
    struct task_priv *p = task_priv(t);
    const struct sys_table *st = t->k->cfg.syscalls;
    const uint64_t none[6] = {0};
    struct plat_answer answers[ARRAY_SIZE(calls) + 4];
    size_t n;

    do {
        atomic_store(&p->answers_due, false);
        n = 0;
        if (atomic_load(&p->sys_work) == 0 && !atomic_load(&t->k->strace)) {
            for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                if (calls[i] < st->count && st->entries[calls[i]].fn)
                    answers[n++] = (struct plat_answer){
                        .nr = calls[i], .value = (uint32_t)st->entries[calls[i]].fn(t, none)};
            n += answers_fixed(t, answers + n);
            own_begin(t);
        }
        plat_ctx_answers(t->ctx, answers, n);
    } while (atomic_load(&p->answers_due));
}

void task_answers_changed(struct task *t)
{
    struct task_priv *p = task_priv(t);

    atomic_store(&p->answers_due, true);
    if (!p->dead && t->ctx)
        plat_ctx_drop_answers(t->ctx);
}
