/* /proc/<pid>, the lesser entries: scheduling, personality, security attributes. */
#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

#include "proc_priv.h"
#include "sentry/kernel/process.h"

#define MSEC_NS 1000000u

static int show_schedstat(const struct proc_ctx *pc, FILE *out)
{
    struct task_info i;

    task_info(pc->t, &i);
    fprintf(out, "%" PRIu64 " 0 %" PRIu64 "\n", i.utime_ns + i.stime_ns,
            i.vol_switches + i.invol_switches);
    return 0;
}

static void sched_row(FILE *out, const char *name, uint64_t value)
{
    fprintf(out, "%-45s:%21" PRIu64 "\n", name, value);
}

static void sched_time(FILE *out, const char *name, uint64_t ns)
{
    fprintf(out, "%-45s:%14" PRIu64 ".%06" PRIu64 "\n", name, ns / MSEC_NS, ns % MSEC_NS);
}

static int show_sched(const struct proc_ctx *pc, FILE *out)
{
    struct task_info i;

    task_info(pc->t, &i);
    fprintf(out, "%.15s (%d, #threads: %d)\n", i.comm, i.pid, i.threads);
    fputs("-------------------------------------------------------------------\n", out);
    sched_time(out, "se.exec_start", i.start_ns);
    sched_time(out, "se.sum_exec_runtime", i.utime_ns + i.stime_ns);
    sched_row(out, "nr_switches", i.vol_switches + i.invol_switches);
    sched_row(out, "nr_voluntary_switches", i.vol_switches);
    sched_row(out, "nr_involuntary_switches", i.invol_switches);
    sched_row(out, "policy", (uint64_t)task_attr_get(pc->t, TASK_ATTR_SCHED_POLICY));
    sched_row(out, "prio", (uint64_t)(120 + i.nice));
    return 0;
}

/* Where in the kernel it waits is nobody's affair: Linux says 0 to those who may not look. */
static int show_wchan(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fputc('0', out);
    return 0;
}

static int show_stack(const struct proc_ctx *pc, FILE *out)
{
    (void)out;
    return pc->c != NULL && cred_capable(pc->c->cred, CAP_SYS_ADMIN) ? 0 : -EPERM;
}

static int show_personality(const struct proc_ctx *pc, FILE *out)
{
    fprintf(out, "%08x\n", (unsigned)task_attr_get(pc->t, TASK_ATTR_PERSONALITY));
    return 0;
}

/* ---- timer slack ---- */

static int slack_permission(const struct proc_ctx *pc)
{
    struct task_info i;

    task_info(pc->t, &i);
    if (pc->c != NULL && (i.pid == pc->c->pid || cred_capable(pc->c->cred, CAP_SYS_NICE)))
        return 0;
    return -EPERM;
}

static int show_timerslack(const struct proc_ctx *pc, FILE *out)
{
    int r = slack_permission(pc);

    if (r == 0)
        fprintf(out, "%" PRIu64 "\n", task_timer_slack(pc->t));
    return r;
}

static int64_t store_timerslack(const struct proc_ctx *pc, const char *text, size_t len)
{
    char *end;
    int r = slack_permission(pc);

    if (r != 0)
        return r;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno != 0 || end == text || (*end != '\0' && *end != '\n'))
        return -EINVAL;
    task_set_timer_slack(pc->t, v);
    return (int64_t)len;
}

/* ---- children ---- */

int proc_show_children(const struct proc_ctx *pc, FILE *out)
{
    struct task_info own, child;
    int32_t pid = 0;

    task_info(pc->t, &own);
    /* They are the process', whichever thread made them. */
    if (own.pid != own.tgid)
        return 0;
    while ((pid = kernel_next_tgid(pc->k, pid + 1)) > 0) {
        struct task *t;
        if (kernel_find_task(pc->k, pid, false, &t) != 0)
            continue;
        task_info(t, &child);
        task_put(t);
        if (child.ppid == own.tgid)
            fprintf(out, "%d ", pid);
    }
    return 0;
}

/* ---- security attributes: no module gives any ---- */

static int show_no_attr(const struct proc_ctx *pc, FILE *out)
{
    (void)pc, (void)out;
    return -EINVAL;
}

static int64_t store_no_attr(const struct proc_ctx *pc, const char *text, size_t len)
{
    (void)pc, (void)text, (void)len;
    return -EINVAL;
}

#define NO_ATTR(name_, mode_)                                                                      \
    {                                                                                              \
        .name = (name_), .mode = (mode_), .show = show_no_attr, .store = store_no_attr             \
    }

static const struct proc_entry attr_entries[] = {
    NO_ATTR("current", 0666),
    NO_ATTR("exec", 0666),
    NO_ATTR("fscreate", 0666),
    NO_ATTR("keycreate", 0666),
    NO_ATTR("prev", 0444),
    NO_ATTR("sockcreate", 0666),
    {0},
};

const struct proc_entry proc_task_entries[] = {
    {.name = "attr", .mode = 0555, .children = attr_entries},
    {.name = "personality", .mode = 0400, .show = show_personality},
    {.name = "sched", .mode = 0644, .show = show_sched},
    {.name = "schedstat", .mode = 0444, .show = show_schedstat},
    {.name = "stack", .mode = 0400, .show = show_stack},
    {.name = "timerslack_ns", .mode = 0666, .show = show_timerslack, .store = store_timerslack},
    {.name = "wchan", .mode = 0444, .show = show_wchan},
    {0},
};
