/* POSIX timers: timer_create(2) and its family (kernel/time/posix-timers.c). A periodic timer's
 * clockwork stands still while its signal waits to be taken; the periods missed are its overrun. */
#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/timer_priv.h"

/* A periodic timer whose signal is ignored ticks no faster than this. */
#define PTIMER_IGNORED_MIN_NS 1000000

OBJCOUNT_DEFINE(ptimer);

struct ptimer {
    struct ref ref; /* the table's, and one of the signal queue while entry is on it */
    struct timer tm;
    struct sig_entry entry; /* sig */
    struct tg_timers *tt;
    struct kernel *counted; /* its signal is among those that are queued there; or NULL */
    int32_t id;
    int clock;
    struct cpu_clock cpu; /* when clock is one of CPU time */
    int notify;
    struct task *target; /* owned; SIGEV_THREAD_ID */

    /* TIMER */
    int64_t expires, interval; /* of its clock; expires 0: disarmed */
    bool requeue;              /* the queued signal's taking starts the next period */
    bool deleted;
    int overrun, overrun_last;
};

static int64_t ptimer_now(const struct ptimer *tm)
{
    int64_t now = 0;

    if (clock_is_cpu(tm->clock))
        return cpu_clock_read(&tm->cpu);
    BUG_ON(clock_read(tm->clock, &now) != 0);
    return now;
}

/* TIMER held. */
static void ptimer_arm(struct ptimer *tm, int64_t now)
{
    if (tm->expires == 0 || tm->notify == SIGEV_NONE)
        (void)timer_disarm(&tm->tm);
    else if (clock_is_cpu(tm->clock))
        timer_arm(&tm->tm, cpu_clock_deadline(tm->tt->tg->k, MAX(tm->expires - now, 0)));
    else
        timer_arm(&tm->tm, clock_deadline(tm->clock, tm->expires));
}

void ptimer_put(struct ptimer *tm)
{
    if (!ref_put(&tm->ref))
        return;
    if (tm->target)
        task_put(tm->target);
    if (tm->counted)
        atomic_fetch_sub_explicit(&tm->counted->sigqueue_count, 1, memory_order_relaxed);
    cpu_clock_put(&tm->cpu);
    OBJCOUNT_DEC(ptimer);
    free(tm);
}

/* ---- expiry ---- */

/* True when the signal is queued, by this or an earlier expiry. */
static bool ptimer_send(struct ptimer *tm)
{
    struct thread_group *tg = tm->tt->tg;
    struct sighand *sh = tg_lock_sig(tg);
    bool queued = !list_empty(&tm->entry.node);

    if (queued) {
        tm->overrun += tm->overrun < INT_MAX;
    } else {
        tm->overrun = 0;
        ref_get(&tm->ref);
        queued = sig_send_entry_locked(tg, tm->target, &tm->entry);
        if (!queued)
            BUG_ON(ref_put(&tm->ref));
    }
    sighand_unlock(sh);
    return queued;
}

static void ptimer_fire(struct timer *base)
{
    struct ptimer *tm = container_of(base, struct ptimer, tm);
    int64_t count;

    mutex_lock(&tm->tt->mu);
    const int64_t now = ptimer_now(tm);
    if (tm->deleted || tm->expires == 0)
        goto out_unlock;
    if (now >= tm->expires) {
        const bool queued = ptimer_send(tm);
        if (tm->interval == 0) {
            tm->expires = 0;
        } else if (queued) {
            tm->requeue = true;
            goto out_unlock;
        } else {
            tm->expires =
                timer_forward(tm->expires, MAX(tm->interval, PTIMER_IGNORED_MIN_NS), now, &count);
        }
    }
    ptimer_arm(tm, now);
out_unlock:
    mutex_unlock(&tm->tt->mu);
}

void ptimer_delivered(struct ptimer *tm, struct lx_siginfo *info)
{
    mutex_lock(&tm->tt->mu);
    if (tm->requeue && !tm->deleted) {
        const int64_t now = ptimer_now(tm);
        int64_t count;
        tm->expires = timer_forward(tm->expires, tm->interval, now, &count);
        count += tm->overrun - 1;
        tm->overrun = (int)MIN(MAX(count, 0), INT_MAX);
        tm->requeue = false;
        ptimer_arm(tm, now);
    }
    tm->overrun_last = tm->overrun;
    tm->overrun = 0;
    info->timer.overrun = tm->overrun_last;
    mutex_unlock(&tm->tt->mu);
    ptimer_put(tm);
}

/* ---- the table ---- */

static int ptimer_insert_locked(struct tg_timers *tt, struct ptimer *tm)
{
    size_t i = 0;

    while (i < tt->slots && tt->timers[i])
        i++;
    if (i == LIMIT_POSIX_TIMERS)
        return -EAGAIN;
    if (i == tt->slots) {
        const size_t slots = MIN(tt->slots * 2 + 8, (size_t)LIMIT_POSIX_TIMERS);
        struct ptimer **more = realloc(tt->timers, slots * sizeof(struct ptimer *));
        if (!more)
            return -EAGAIN;
        for (size_t j = tt->slots; j < slots; j++)
            more[j] = NULL;
        tt->timers = more;
        tt->slots = slots;
    }
    tt->timers[i] = tm;
    tm->id = (int32_t)i;
    return 0;
}

/* On success TIMER is held. */
static int ptimer_lock(struct task *t, int32_t id, struct ptimer **out_tm)
{
    mutex_lock(&t->tg->mu);
    struct tg_timers *tt = t->tg->timers;
    mutex_unlock(&t->tg->mu);
    if (!tt || id < 0)
        return -EINVAL;
    mutex_lock(&tt->mu);
    if ((size_t)id < tt->slots && tt->timers[id]) {
        *out_tm = tt->timers[id];
        return 0;
    }
    mutex_unlock(&tt->mu);
    return -EINVAL;
}

static void ptimer_end(struct ptimer *tm)
{
    timer_cancel(&tm->tm);
    ptimer_put(tm);
}

void ptimers_delete(struct tg_timers *tt)
{
    for (size_t i = 0; i < tt->slots; i++) {
        mutex_lock(&tt->mu);
        struct ptimer *tm = tt->timers[i];
        tt->timers[i] = NULL;
        if (tm)
            tm->deleted = true;
        mutex_unlock(&tt->mu);
        if (tm)
            ptimer_end(tm);
    }
}

/* ---- calls ---- */

static int ptimer_clock_init(struct task *t, int clock, struct ptimer *tm)
{
    tm->clock = clock;
    if (clock_is_cpu(clock))
        return cpu_clock_get(t, clock, &tm->cpu);
    if (!clock_is_known(clock))
        return -EINVAL;
    if (!clock_can_sleep(clock))
        return -EOPNOTSUPP;
    if ((clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM) &&
        !task_capable(t, CAP_WAKE_ALARM))
        return -EPERM;
    return 0;
}

static int ptimer_event_init(struct task *t, const struct task_sigevent *ev, struct ptimer *tm)
{
    tm->notify = ev->notify;
    list_init(&tm->entry.node);
    tm->entry.timer = tm;
    tm->entry.info = (struct lx_siginfo){.signo = ev->signo, .code = SI_TIMER};
    tm->entry.info.timer.value = ev->value;
    switch (ev->notify) {
    case SIGEV_SIGNAL | SIGEV_THREAD_ID: {
        int r = task_find(t, ev->tid, &tm->target);
        if (r)
            return -EINVAL;
        if (tm->target->tg != t->tg)
            return -EINVAL;
    }
        __attribute__((fallthrough));
    case SIGEV_SIGNAL:
    case SIGEV_THREAD:
        return ev->signo < 1 || ev->signo > LX_NSIG ? -EINVAL : 0;
    case SIGEV_NONE:
        return 0;
    default:
        return -EINVAL;
    }
}

/* The signal of a timer never gets lost: it counts as queued for as long as there is the timer. */
static int ptimer_count(struct thread_group *tg, struct ptimer *tm)
{
    const uint64_t limit = MIN(tg_rlimit(tg, RLIMIT_SIGPENDING), (uint64_t)LIMIT_SIGQUEUE);

    tm->counted = tg->k;
    return atomic_fetch_add_explicit(&tg->k->sigqueue_count, 1, memory_order_relaxed) < limit
               ? 0
               : -EAGAIN;
}

int task_timer_create(struct task *t, int clock, const struct task_sigevent *ev, int32_t *out_id)
{
    const struct task_sigevent standard = {.signo = SIGALRM, .notify = SIGEV_SIGNAL};
    struct tg_timers *tt;
    int r = tg_timers_use(t->tg, &tt);

    if (r)
        return r;
    struct ptimer *tm = calloc(1, sizeof(*tm));
    if (!tm)
        return -EAGAIN;
    OBJCOUNT_INC(ptimer);
    ref_init(&tm->ref);
    tm->tt = tt;
    r = ptimer_clock_init(t, clock, tm);
    if (!r)
        r = ptimer_count(t->tg, tm);
    if (!r)
        r = ptimer_event_init(t, ev ? ev : &standard, tm);
    if (!r)
        r = timer_init(&tm->tm, kernel_timer_service(t->k), ptimer_fire);
    if (r)
        goto out_timer;
    mutex_lock(&tt->mu);
    r = ptimer_insert_locked(tt, tm);
    if (!r) {
        tm->entry.info.timer.tid = tm->id;
        if (!ev)
            tm->entry.info.timer.value = (uint64_t)tm->id;
        *out_id = tm->id;
    }
    mutex_unlock(&tt->mu);
    if (r)
        goto out_timer;
    return 0;
out_timer:
    ptimer_put(tm);
    return r;
}

static void ptimer_show(const struct ptimer *tm, int64_t now, struct task_itimer *out)
{
    int64_t next = tm->expires, count;

    *out = (struct task_itimer){.interval = tm->interval};
    if (next == 0)
        return;
    if (tm->interval > 0 && (tm->requeue || tm->notify == SIGEV_NONE))
        next = timer_forward(next, tm->interval, now, &count);
    if (next > now)
        out->value = next - now;
    else if (tm->notify != SIGEV_NONE)
        out->value = 1; /* due, but the signal has not been sent yet */
}

int task_timer_settime(struct task *t, int32_t id, bool absolute, const struct task_itimer *new_it,
                       struct task_itimer *old)
{
    struct ptimer *tm;
    int r = ptimer_lock(t, id, &tm);

    if (r)
        return r;
    const int64_t now = ptimer_now(tm);
    if (old)
        ptimer_show(tm, now, old);
    tm->requeue = false;
    tm->overrun = 0;
    tm->overrun_last = 0;
    tm->expires = 0;
    tm->interval = new_it->interval;
    /* 0 would disarm it. */
    if (new_it->value != 0)
        tm->expires = absolute ? MAX(task_clock_outside(t, tm->clock, new_it->value), 1)
                               : timer_add(now, new_it->value);
    ptimer_arm(tm, now);
    mutex_unlock(&tm->tt->mu);
    return 0;
}

int task_timer_gettime(struct task *t, int32_t id, struct task_itimer *out)
{
    struct ptimer *tm;
    int r = ptimer_lock(t, id, &tm);

    if (r)
        return r;
    ptimer_show(tm, ptimer_now(tm), out);
    mutex_unlock(&tm->tt->mu);
    return 0;
}

int task_timer_overrun(struct task *t, int32_t id)
{
    struct ptimer *tm;
    int r = ptimer_lock(t, id, &tm);

    if (r)
        return r;
    r = tm->overrun_last;
    mutex_unlock(&tm->tt->mu);
    return r;
}

int task_timer_delete(struct task *t, int32_t id)
{
    struct ptimer *tm;
    int r = ptimer_lock(t, id, &tm);

    if (r)
        return r;
    tm->deleted = true;
    struct tg_timers *tt = tm->tt;
    tt->timers[id] = NULL;
    mutex_unlock(&tt->mu);
    ptimer_end(tm);
    return 0;
}
