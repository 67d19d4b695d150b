/* Time namespaces: what is added to the clocks that count from boot (kernel/time/namespace.c). */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <time.h>

#include "sentry/cred/user_ns.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/ns_priv.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/timer_priv.h"

/* KTIME_SEC_MAX. */
#define TIME_SEC_MAX (CLOCK_NS_MAX / NSEC_PER_SEC)

OBJCOUNT_DEFINE(time_ns);

struct time_ns {
    struct ref ref;
    struct mutex mu;     /* rank NAMESPACE */
    _Atomic bool frozen; /* somebody has been in it; mu to change */
    /* mu, immutable once it is frozen */
    struct time_offsets off;
    int64_t mono_ns, boot_ns;
};

int time_ns_new(struct time_ns *like, struct time_ns **out_ns)
{
    struct time_ns *ns = calloc(1, sizeof(*ns));

    if (!ns)
        return -ENOMEM;
    ref_init(&ns->ref);
    mutex_init(&ns->mu, LOCK_RANK_NAMESPACE);
    if (like) {
        mutex_lock(&like->mu);
        ns->off = like->off;
        ns->mono_ns = like->mono_ns;
        ns->boot_ns = like->boot_ns;
        mutex_unlock(&like->mu);
    } else {
        atomic_store(&ns->frozen, true);
    }
    OBJCOUNT_INC(time_ns);
    *out_ns = ns;
    return 0;
}

void time_ns_put(struct time_ns *ns)
{
    if (!ns || !ref_put(&ns->ref))
        return;
    mutex_destroy(&ns->mu);
    OBJCOUNT_DEC(time_ns);
    free(ns);
}

/* ---- offsets ---- */

/* ns of an offset that leaves the clock within what it can show. */
static int offset_check(int clock, const struct time_offset *o, int64_t *out_ns)
{
    int64_t now;

    if (o->sec > TIME_SEC_MAX || o->sec < -TIME_SEC_MAX)
        return -ERANGE;
    int r = clock_read(clock, &now);
    if (r)
        return r;
    const int64_t nsec = now % NSEC_PER_SEC + o->nsec;
    const int64_t sec = now / NSEC_PER_SEC + o->sec + nsec / NSEC_PER_SEC;
    /* Halved, so that the clock does not get there. */
    if (sec < 0 || sec > TIME_SEC_MAX / 2)
        return -ERANGE;
    *out_ns = o->sec * NSEC_PER_SEC + o->nsec;
    return 0;
}

int time_ns_set(struct time_ns *ns, const struct time_offset *mono, const struct time_offset *boot)
{
    int64_t mono_ns = 0, boot_ns = 0;
    int r = mono ? offset_check(CLOCK_MONOTONIC, mono, &mono_ns) : 0;

    if (!r && boot)
        r = offset_check(CLOCK_BOOTTIME, boot, &boot_ns);
    if (r)
        return r;
    mutex_lock(&ns->mu);
    if (atomic_load(&ns->frozen))
        r = -EACCES;
    if (!r && mono) {
        ns->off.mono = *mono;
        ns->mono_ns = mono_ns;
    }
    if (!r && boot) {
        ns->off.boot = *boot;
        ns->boot_ns = boot_ns;
    }
    mutex_unlock(&ns->mu);
    return r;
}

int task_child_time_offsets(struct task *o, struct time_offsets *out)
{
    struct ns_handle h;
    int r = task_get_ns(o, NS_TIME_CHILDREN, &h);

    if (r)
        return r;
    struct time_ns *ns = ((struct ns_tag *)h.obj)->obj;
    mutex_lock(&ns->mu);
    *out = ns->off;
    mutex_unlock(&ns->mu);
    ns_handle_put(&h);
    return 0;
}

int task_set_child_time_offsets(struct task *o, const struct cred *by,
                                const struct time_offset *mono, const struct time_offset *boot)
{
    struct ns_handle h;
    int r = task_get_ns(o, NS_TIME_CHILDREN, &h);

    if (r)
        return r;
    const struct ns_tag *tag = h.obj;
    r = cred_ns_capable(by, tag->owner, CAP_SYS_TIME) ? time_ns_set(tag->obj, mono, boot) : -EPERM;
    ns_handle_put(&h);
    return r;
}

/* ---- being in one ---- */

int time_ns_show(struct kernel *k, struct time_ns *ns, struct mm *mm, bool fresh)
{
    if (!atomic_load(&ns->frozen)) {
        mutex_lock(&ns->mu);
        atomic_store(&ns->frozen, true);
        mutex_unlock(&ns->mu);
    }
    if (fresh && ns->mono_ns == 0 && ns->boot_ns == 0)
        return 0;
    if (!k->cfg.set_clock_offsets)
        return 0;
    return k->cfg.set_clock_offsets(mm, ns->mono_ns, ns->boot_ns);
}

bool task_enter_child_time(struct task *o)
{
    struct ns_tag **tags = task_priv(o)->tags;

    if (tags[NS_TIME] == tags[NS_TIME_CHILDREN])
        return false;
    mutex_lock(&o->mu);
    struct ns_tag *old = tags[NS_TIME];
    tags[NS_TIME] = ns_tag_get(tags[NS_TIME_CHILDREN]);
    mutex_unlock(&o->mu);
    ns_tag_put(old);
    return true;
}

struct time_ns *task_child_time_ns(struct task *t)
{
    return task_priv(t)->tags[NS_TIME_CHILDREN]->obj;
}

static int64_t time_ns_offset(const struct time_ns *ns, int clock)
{
    switch (clock) {
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
        return ns->mono_ns;
    case CLOCK_BOOTTIME:
    case CLOCK_BOOTTIME_ALARM:
        return ns->boot_ns;
    default:
        return 0;
    }
}

int64_t task_clock_ahead(struct task *t, int clock)
{
    return time_ns_offset(task_priv(t)->tags[NS_TIME]->obj, clock);
}

/* do_timens_ktime_to_host(). */
int64_t task_clock_outside(struct task *t, int clock, int64_t abs_ns)
{
    const int64_t off = task_clock_ahead(t, clock);
    int64_t ns;

    if (abs_ns < off)
        return 0;
    return __builtin_sub_overflow(abs_ns, off, &ns) ? CLOCK_NS_MAX : ns;
}

int64_t kernel_boottime_offset(struct kernel *k, int32_t pid)
{
    struct ns_tag *tag = kernel_ns_tag(k, NULL, pid, NS_TIME);
    const int64_t ns = time_ns_offset(tag->obj, CLOCK_BOOTTIME);

    ns_tag_put(tag);
    return ns;
}
