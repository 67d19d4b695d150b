/* Resource limits and usage (setrlimit(2), getrusage(2)). */
#include <errno.h>
#include <linux/capability.h>
#include <sys/resource.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/task_priv.h"

int task_find(struct task *t, int32_t tid, struct task **out_task)
{
    if (tid == 0 || tid == t->vtid) {
        *out_task = task_get(t);
        return 0;
    }
    tid = task_pid_in(t, tid);
    return tid ? kernel_find_task(t->k, tid, true, out_task) : -ESRCH;
}

static int rlimit_check(struct task *t, struct task *o, int resource, const uint64_t n[2])
{
    struct thread_group *tg = o->tg;

    if (n[0] > n[1])
        return -EINVAL;
    if (resource == RLIMIT_NOFILE && n[1] > LIMIT_NR_OPEN)
        return -EPERM;
    if (n[1] > atomic_load(&tg->rlimits[resource][1]) && !task_capable(t, CAP_SYS_RESOURCE))
        return -EPERM;
    return 0;
}

int task_prlimit(struct task *t, struct task *o, int resource, const uint64_t new_limit[2],
                 uint64_t old_limit[2])
{
    struct thread_group *tg = o->tg;
    int r = 0;

    if (resource < 0 || resource >= LX_RLIM_COUNT)
        return -EINVAL;
    if (!task_may_set_limits(t, o))
        return -EPERM;
    mutex_lock(&tg->mu);
    if (new_limit)
        r = rlimit_check(t, o, resource, new_limit);
    if (!r && old_limit) {
        old_limit[0] = atomic_load(&tg->rlimits[resource][0]);
        old_limit[1] = atomic_load(&tg->rlimits[resource][1]);
    }
    if (!r && new_limit) {
        atomic_store(&tg->rlimits[resource][0], new_limit[0]);
        atomic_store(&tg->rlimits[resource][1], new_limit[1]);
    }
    mutex_unlock(&tg->mu);
    if (!r && new_limit && resource == RLIMIT_CPU)
        tg_cpu_limit_changed(tg);
    return r;
}

static void usage_out(const struct task_usage *u, struct task_usage_out *out)
{
    *out = (struct task_usage_out){
        .utime_ns = u->utime_ns,
        .stime_ns = u->stime_ns,
        .min_flt = u->min_flt,
        .maj_flt = u->maj_flt,
        .vol_switches = u->vol_switches,
        .invol_switches = u->invol_switches,
        .max_rss = u->max_rss,
    };
}

void task_get_usage(struct task *t, enum task_usage_who who, struct task_usage_out *out)
{
    const struct task_priv *p = task_priv(t);
    struct task_usage u = {0};
    struct mm_stats st = {0};

    if (who != TASK_USAGE_CHILDREN)
        mm_stats(t->ua.mm, &st);
    mutex_lock(&t->k->mu);
    switch (who) {
    case TASK_USAGE_SELF:
        tg_usage_locked(t->tg, &u);
        break;
    case TASK_USAGE_CHILDREN:
        u = t->tg->child_usage;
        break;
    case TASK_USAGE_THREAD:
        u.utime_ns = task_utime_ns(t);
        u.stime_ns = task_stime_ns(t);
        u.min_flt = atomic_load(&p->min_flt);
        u.maj_flt = atomic_load(&p->maj_flt);
        u.vol_switches = task_sleeps(t);
        u.invol_switches = atomic_load(&p->invol_switches);
        break;
    default:
        break;
    }
    mutex_unlock(&t->k->mu);
    u.max_rss = MAX(u.max_rss, st.peak_rss);
    usage_out(&u, out);
}
