/* Limits and pauses of a container that the sandbox itself sees to: its processes are threads and
 * stubs of one sentry, which the host cannot tell apart. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runsc/boot/boot_priv.h"
#include "sentry/kernel/account.h"

/* A period is looked at this often: what is overdrawn meanwhile is taken from the next one. */
#define CPU_SLICES 10u
#define CPU_PERIOD_NS UINT64_C(100000000)
#define CPU_PERIOD_MIN_NS UINT64_C(1000000)
#define CPU_SLICE_MIN_NS UINT64_C(2000000)

/* ---- CPU time ---- */

static uint64_t cpu_used(const struct boot_container *ct)
{
    struct account_info i;

    account_info(ct->account, &i);
    return i.user_ns + i.system_ns;
}

static void cpu_set(struct boot_container *ct, uint64_t quota_ns, uint64_t period_ns)
{
    struct boot_cpu *c = &ct->cpu;

    c->quota_ns = quota_ns;
    c->period_ns = MAX(period_ns, CPU_PERIOD_MIN_NS);
    c->from_ns = mono_now();
    c->spent_ns = cpu_used(ct);
    if (quota_ns == 0)
        account_release(ct->account, ACCOUNT_THROTTLED);
}

/* Each period brings its quota; what was not used is lost, what was overdrawn is owed. */
static void cpu_new_periods(struct boot_cpu *c, uint64_t now, uint64_t used)
{
    const uint64_t n = (now - c->from_ns) / c->period_ns;
    uint64_t granted;

    if (n == 0)
        return;
    if (__builtin_mul_overflow(n, c->quota_ns, &granted) ||
        __builtin_add_overflow(granted, c->spent_ns, &granted))
        granted = used;
    c->spent_ns = MIN(granted, used);
    c->from_ns += n * c->period_ns;
    c->periods += n;
}

static void cpu_look(struct boot_container *ct, uint64_t now)
{
    struct boot_cpu *c = &ct->cpu;
    const uint64_t used = cpu_used(ct);
    const bool held = account_held(ct->account) & ACCOUNT_THROTTLED;

    cpu_new_periods(c, now, used);
    const bool over = used - c->spent_ns >= c->quota_ns;
    if (over && !held) {
        c->throttled_periods++;
        c->held_from_ns = now;
        account_hold(ct->account, ACCOUNT_THROTTLED, false);
    } else if (!over && held) {
        c->throttled_ns += now - c->held_from_ns;
        account_release(ct->account, ACCOUNT_THROTTLED);
    }
}

int boot_limits_look(struct boot *b)
{
    struct boot_container *ct;
    uint64_t slice = UINT64_MAX;

    list_for_each_entry (ct, &b->containers, node) {
        if (ct->cpu.quota_ns == 0)
            continue;
        cpu_look(ct, mono_now());
        slice = MIN(slice, MAX(ct->cpu.period_ns / CPU_SLICES, CPU_SLICE_MIN_NS));
    }
    return slice == UINT64_MAX ? -1 : (int)(MIN(slice, UINT64_C(1000000000)) / 1000000);
}

/* ---- limits ---- */

/* Only of a container that joined: the host's cgroups do it for a whole sandbox. */
static void limit_cpu(struct boot_container *ct, const struct oci_resources *r)
{
    uint64_t quota = ct->cpu.quota_ns, period = ct->cpu.period_ns;

    if (ct == &ct->init.boot->root || (r->cpu_quota <= 0 && r->cpu_period == 0))
        return;
    if (r->cpu_quota > 0)
        quota = r->cpu_quota == INT64_MAX ? 0 : (uint64_t)r->cpu_quota * 1000;
    if (r->cpu_period != 0)
        period = r->cpu_period * 1000;
    cpu_set(ct, quota, period != 0 ? period : CPU_PERIOD_NS);
}

void boot_limit(struct boot_container *ct, const struct oci_resources *r)
{
    if (r->pids_limit > 0)
        account_limit_tasks(ct->account, r->pids_limit == INT64_MAX ? ACCOUNT_NO_LIMIT
                                                                    : (uint64_t)r->pids_limit);
    limit_cpu(ct, r);
    boot_cgroup_limit(ct, r);
}

/* ---- pauses ---- */

void boot_pause(struct boot_container *ct, bool pause)
{
    if (pause)
        account_hold(ct->account, ACCOUNT_PAUSED, true);
    else
        account_release(ct->account, ACCOUNT_PAUSED);
}

bool boot_paused(const struct boot_container *ct)
{
    return account_held(ct->account) & ACCOUNT_PAUSED;
}

/* ---- counters ---- */

static void put_limit(json_t *o, const char *key, uint64_t v)
{
    if (v != ACCOUNT_NO_LIMIT && v <= INT64_MAX)
        (void)json_object_set_new(o, key, json_integer((json_int_t)v));
}

json_t *boot_usage(struct boot_container *ct)
{
    struct account_info i;
    json_t *pids = json_object(), *cpu = json_object();

    account_info(ct->account, &i);
    put_limit(pids, "current", i.tasks);
    put_limit(pids, "limit", i.task_limit);
    put_limit(pids, "refused", i.refused);
    put_limit(cpu, "usage", i.user_ns + i.system_ns);
    put_limit(cpu, "user", i.user_ns);
    put_limit(cpu, "kernel", i.system_ns);
    put_limit(cpu, "periods", ct->cpu.periods);
    put_limit(cpu, "throttledPeriods", ct->cpu.throttled_periods);
    put_limit(cpu, "throttledTime", ct->cpu.throttled_ns);
    return json_pack("{s:o,s:o,s:I}", "pids", pids, "cpu", cpu, "oomKills",
                     (json_int_t)i.oom_kills);
}

/* ---- memory ---- */

uint64_t boot_host_oom_kills(void *arg)
{
    static const char name[] = "\noom_kill ";
    const struct boot *b = arg;
    char text[512] = "\n";
    const ssize_t n = pread(b->args->sandbox->oom_count_fd, text + 1, sizeof(text) - 2, 0);
    const char *line = n > 0 ? strstr(text, name) : NULL;

    return line ? strtoull(line + sizeof(name) - 1, NULL, 10) : 0;
}
