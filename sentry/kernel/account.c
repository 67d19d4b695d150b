/* Containers as the kernel sees them: counts, limits and holding back (sentry/kernel/account.h). */
#include "sentry/kernel/account.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "sentry/kernel/account_priv.h"
#include "sentry/kernel/cgroup_priv.h"

/* How long account_hold waits for a task to leave guest code, which takes an interrupt. */
#define HOLD_PATIENCE_NS 1000000000ull
#define HOLD_STEP_NS 100000L

OBJCOUNT_DEFINE(account);

int account_new(struct kernel *k, struct account **out_a)
{
    struct account *a = calloc(1, sizeof(*a));

    if (!a)
        return -ENOMEM;
    ref_init(&a->ref);
    a->k = k;
    a->task_limit = ACCOUNT_NO_LIMIT;
    waitq_init(&a->release_wq);
    mutex_init(&a->oom_mu, LOCK_RANK_LEAF);
    OBJCOUNT_INC(account);
    *out_a = a;
    return 0;
}

struct account *account_get(struct account *a)
{
    if (a)
        ref_get(&a->ref);
    return a;
}

void account_put(struct account *a)
{
    if (!a || !ref_put(&a->ref))
        return;
    free(a->rules);
    mutex_destroy(&a->oom_mu);
    waitq_fini(&a->release_wq);
    OBJCOUNT_DEC(account);
    free(a);
}

bool account_owns(const struct account *a, const struct task *t)
{
    return t->tg->account == a;
}

int account_kill(struct account *a, int signo)
{
    struct kernel *k = a->k;
    struct thread_group *tg;
    int r = -ESRCH;

    if (signo < 0 || signo > LX_NSIG)
        return -EINVAL;
    mutex_lock(&k->mu);
    list_for_each_entry (tg, &k->groups, node) {
        if (tg->account != a || tg->state != TG_LIVE)
            continue;
        r = 0;
        if (signo)
            kernel_kill_group_locked(tg, signo);
    }
    mutex_unlock(&k->mu);
    return r;
}

/* ---- devices ---- */

int account_set_rules(struct account *a, const struct account_rule *rules, size_t count)
{
    struct account_rule *copy = calloc(count + 1, sizeof(*copy));

    if (!copy)
        return -ENOMEM;
    memcpy(copy, rules, count * sizeof(*copy));
    free(a->rules);
    a->rules = copy;
    a->rule_count = count;
    return 0;
}

static bool rule_fits(const struct account_rule *r, uint32_t mode, uint64_t rdev, uint32_t bit)
{
    return (S_ISCHR(mode) ? r->character : r->block) && (r->access & bit) &&
           (r->major < 0 || (uint64_t)r->major == major(rdev)) &&
           (r->minor < 0 || (uint64_t)r->minor == minor(rdev));
}

/* Each kind of access by itself: rules may give them one by one. */
static bool rules_allow(const struct account *a, uint32_t mode, uint64_t rdev, uint32_t bit)
{
    for (size_t i = a->rule_count; i-- > 0;)
        if (rule_fits(&a->rules[i], mode, rdev, bit))
            return a->rules[i].allow;
    return true;
}

int account_may_use(const struct account *a, uint32_t mode, uint64_t rdev, uint32_t access)
{
    static const uint32_t bits[] = {ACCOUNT_DEV_READ, ACCOUNT_DEV_WRITE, ACCOUNT_DEV_MKNOD};

    if (!a || (!S_ISCHR(mode) && !S_ISBLK(mode)))
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
        if ((access & bits[i]) && !rules_allow(a, mode, rdev, bits[i]))
            return -EPERM;
    return 0;
}

int account_may_mknod(const struct task *t, uint32_t mode, uint64_t rdev)
{
    /* devcgroup_inode_mknod(): a whiteout is no device. */
    if (S_ISCHR(mode) && rdev == 0)
        return 0;
    return account_may_use(t->tg->account, mode, rdev, ACCOUNT_DEV_MKNOD);
}

struct account *account_of_caller(const struct vfs_caller *c)
{
    /* Boot's callers have a blocker too, but no process. */
    return c->blocker && c->pid ? container_of(c->blocker, struct task, blocker)->tg->account
                                : NULL;
}

/* ---- counting ---- */

void account_limit_tasks(struct account *a, uint64_t limit)
{
    mutex_lock(&a->k->mu);
    a->task_limit = limit;
    mutex_unlock(&a->k->mu);
}

int account_admit_locked(struct account *a)
{
    if (!a || a->tasks < a->task_limit)
        return 0;
    a->refused++;
    return -EAGAIN;
}

void account_add_locked(struct account *a, struct task *t)
{
    if (!a)
        return;
    a->tasks++;
    if (atomic_load_explicit(&a->held, memory_order_relaxed))
        blocker_interrupt(&t->blocker, BLOCKER_HOLD);
}

void account_remove_locked(struct account *a)
{
    if (!a)
        return;
    BUG_ON(a->tasks == 0);
    a->tasks--;
}

void account_reap_locked(struct account *a, struct thread_group *tg)
{
    struct task_usage u;

    if (!a)
        return;
    tg_usage_locked(tg, &u);
    a->dead_usage.utime_ns += u.utime_ns;
    a->dead_usage.stime_ns += u.stime_ns;
}

void account_info(struct account *a, struct account_info *out)
{
    struct kernel *k = a->k;
    struct thread_group *tg;
    struct task_usage u;

    mutex_lock(&k->mu);
    *out = (struct account_info){
        .tasks = a->tasks,
        .task_limit = a->task_limit,
        .refused = a->refused,
        .user_ns = a->dead_usage.utime_ns,
        .system_ns = a->dead_usage.stime_ns,
        .oom_kills = atomic_load(&a->oom_kills),
    };
    list_for_each_entry (tg, &k->groups, node) {
        if (tg->account != a)
            continue;
        tg_usage_locked(tg, &u);
        out->user_ns += u.utime_ns;
        out->system_ns += u.stime_ns;
    }
    mutex_unlock(&k->mu);
}

/* ---- out of memory ---- */

void account_on_oom(struct account *a, void (*fn)(void *arg), void *arg)
{
    mutex_lock(&a->oom_mu);
    a->oom = fn;
    a->oom_arg = arg;
    mutex_unlock(&a->oom_mu);
}

void account_oomed(struct account *a)
{
    if (!a)
        return;
    atomic_fetch_add(&a->oom_kills, 1);
    mutex_lock(&a->oom_mu);
    if (a->oom)
        a->oom(a->oom_arg);
    mutex_unlock(&a->oom_mu);
}

/* ---- holding ---- */

/* Every task is told; true: one of them is in guest code. */
static bool hold_tell(struct account *a, bool tell)
{
    struct kernel *k = a->k;
    struct thread_group *tg;
    struct task_priv *p;
    bool running = false;

    mutex_lock(&k->mu);
    list_for_each_entry (tg, &k->groups, node) {
        if (tg->account != a)
            continue;
        struct sighand *sh = tg_lock_sig(tg);
        list_for_each_entry (p, &tg->threads, thread_node) {
            if (p->dead)
                continue;
            if (tell)
                task_interrupt_locked(p->t, BLOCKER_HOLD);
            running |= atomic_load_explicit(&p->guest_seq, memory_order_acquire) & 1;
        }
        sighand_unlock(sh);
    }
    mutex_unlock(&k->mu);
    return running;
}

void account_hold(struct account *a, uint32_t why, bool settle)
{
    static const struct timespec step = {.tv_nsec = HOLD_STEP_NS};
    const uint64_t end = mono_now() + HOLD_PATIENCE_NS;

    mutex_lock(&a->k->mu);
    atomic_fetch_or_explicit(&a->held, why, memory_order_acq_rel);
    mutex_unlock(&a->k->mu);
    bool running = hold_tell(a, true);
    while (settle && running && mono_now() < end) {
        (void)nanosleep(&step, NULL);
        running = hold_tell(a, false);
    }
}

void account_release(struct account *a, uint32_t why)
{
    mutex_lock(&a->k->mu);
    const uint32_t old = atomic_fetch_and_explicit(&a->held, ~why, memory_order_acq_rel);
    mutex_unlock(&a->k->mu);
    if (old && !(old & ~why))
        waitq_wake(&a->release_wq, 0);
}

uint32_t account_held(const struct account *a)
{
    return atomic_load_explicit(&a->held, memory_order_acquire);
}

void account_hold_task(struct task *t)
{
    struct account *a = t->tg->account;
    struct waiter w;

    if (LIKELY(!blocker_clear(&t->blocker, BLOCKER_HOLD)))
        return;
    cgroup_hold(t);
    if (!a)
        return;
    waiter_init(&w, &t->blocker, 0);
    waitq_add(&a->release_wq, &w);
    while (account_held(a))
        if (blocker_wait_killable(&t->blocker, DEADLINE_NEVER))
            break;
    waitq_del(&w);
}
