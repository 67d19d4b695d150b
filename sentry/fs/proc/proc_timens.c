/* /proc/<pid>/timens_offsets: what the time namespace of a process's children adds to clocks
 * (kernel/time/namespace.c). */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "sentry/fs/proc/proc_priv.h"
#include "sentry/kernel/ns.h"

static void show_offset(FILE *out, const char *clock, const struct time_offset *o)
{
    fprintf(out, "%-10s %10" PRId64 " %9" PRIu32 "\n", clock, o->sec, o->nsec);
}

int proc_show_time_offsets(const struct proc_ctx *pc, FILE *out)
{
    struct time_offsets o;
    int r = task_child_time_offsets(pc->t, &o);

    if (r)
        return r;
    show_offset(out, "monotonic", &o.mono);
    show_offset(out, "boottime", &o.boot);
    return 0;
}

/* One line, without its end: the clock or -EINVAL. */
static int parse_offset(const char *line, struct time_offset *out)
{
    unsigned long nsec;
    char clock[10];
    long long sec;

    if (sscanf(line, "%9s %lld %lu", clock, &sec, &nsec) != 3 || nsec >= 1000000000)
        return -EINVAL;
    *out = (struct time_offset){.sec = sec, .nsec = (uint32_t)nsec};
    if (strcmp(clock, "monotonic") == 0 || strcmp(clock, "1") == 0)
        return CLOCK_MONOTONIC;
    if (strcmp(clock, "boottime") == 0 || strcmp(clock, "7") == 0)
        return CLOCK_BOOTTIME;
    return -EINVAL;
}

int64_t proc_store_time_offsets(const struct proc_ctx *pc, const char *text, size_t len)
{
    const struct time_offset *mono = NULL, *boot = NULL;
    struct time_offset off[2];
    const char *at = text;
    char line[128];

    /* Two are taken at once; what follows is left to the next write. */
    for (size_t n = 0; n < 2 && (n == 0 || *at); n++) {
        const size_t size = strcspn(at, "\n");
        if (size >= sizeof(line))
            return -EINVAL;
        memcpy(line, at, size);
        line[size] = '\0';
        const int clock = parse_offset(line, &off[n]);
        if (clock < 0)
            return clock;
        *(clock == CLOCK_BOOTTIME ? &boot : &mono) = &off[n];
        at += size + (at[size] == '\n');
    }
    const int r = pc->c ? task_set_child_time_offsets(pc->t, pc->c->cred, mono, boot) : -EPERM;
    return r ? r : (int64_t)MIN(len, (size_t)(at - text));
}
