/* /proc/<pid>/stat, status and maps (proc(5), kernel fs/proc/array.c and task_mmu.c). */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>

#include "base/limits.h"
#include "proc_priv.h"
#include "sentry/cred/user_ns.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/ns.h"

static void get_mm_facts(struct task *t, struct mm_stats *s, struct mm_layout *l)
{
    struct mm *mm = task_get_mm(t);

    memset(s, 0, sizeof(*s));
    memset(l, 0, sizeof(*l));
    if (!mm)
        return;
    mm_stats(mm, s);
    mm_lock_layout(mm);
    *l = *mm_layout(mm);
    mm_unlock_layout(mm);
    mm_put(mm);
}

int proc_show_pid_stat(const struct proc_ctx *pc, FILE *out)
{
    struct task_info i;
    struct mm_stats s;
    struct mm_layout l;

    task_info_in(pc->t, pc->ns, &i);
    get_mm_facts(pc->t, &s, &l);
    fprintf(out, "%d (%.15s) %c %d %d %d %d %d %u %" PRIu64 " 0 %" PRIu64 " 0 ", i.pid, i.comm,
            i.state, i.ppid, i.pgrp, i.session, (int)i.tty, i.tty_pgrp, 0u, i.min_flt, i.maj_flt);
    fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %d %d %d 0 %" PRIu64 " ",
            proc_ticks(i.utime_ns), proc_ticks(i.stime_ns), proc_ticks(i.cutime_ns),
            proc_ticks(i.cstime_ns), 20 + i.nice, i.nice, i.threads,
            proc_ticks(proc_since_boot(pc, i.start_ns)));
    fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " ", s.virt, s.rss >> PAGE_SHIFT,
            i.rlimits[5][0]);
    fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " 0 0 ", l.start_code, l.end_code,
            l.start_stack);
    fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " 0 0 0 %d 0 %d %d 0 0 0 ",
            i.sig_pending & 0x7fffffff, i.sig_blocked & 0x7fffffff, i.sig_ignored & 0x7fffffff,
            i.sig_caught & 0x7fffffff, i.exit_signal,
            (int)task_attr_get(pc->t, TASK_ATTR_SCHED_PRIORITY),
            (int)task_attr_get(pc->t, TASK_ATTR_SCHED_POLICY));
    fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " ", l.start_data, l.end_data, l.start_brk);
    fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %d\n", l.arg_start, l.arg_end,
            l.env_start, l.env_end, i.exit_code);
    return 0;
}

static const char *state_text(char state)
{
    switch (state) {
    case 'R':
        return "R (running)";
    case 'S':
        return "S (sleeping)";
    case 'D':
        return "D (disk sleep)";
    case 'T':
        return "T (stopped)";
    case 't':
        return "t (tracing stop)";
    case 'Z':
        return "Z (zombie)";
    default:
        return "X (dead)";
    }
}

static void status_ids(struct task *t, const struct user_ns *ns, FILE *out)
{
    struct cred *c = task_get_cred(t);

    if (!c)
        return;
    fprintf(out, "Uid:\t%u\t%u\t%u\t%u\n", user_ns_show(ns, USER_NS_UID, c->uid),
            user_ns_show(ns, USER_NS_UID, c->euid), user_ns_show(ns, USER_NS_UID, c->suid),
            user_ns_show(ns, USER_NS_UID, c->fsuid));
    fprintf(out, "Gid:\t%u\t%u\t%u\t%u\n", user_ns_show(ns, USER_NS_GID, c->gid),
            user_ns_show(ns, USER_NS_GID, c->egid), user_ns_show(ns, USER_NS_GID, c->sgid),
            user_ns_show(ns, USER_NS_GID, c->fsgid));
    cred_put(c);
}

/* The numbers of each namespace from here inwards. */
static void status_chains(const struct proc_ctx *pc, FILE *out)
{
    struct task_info i;
    int32_t chain[33];

    task_info(pc->t, &i);
    const struct {
        const char *name;
        int32_t nr;
    } rows[] = {{"NStgid", i.tgid}, {"NSpid", i.pid}, {"NSpgid", i.pgrp}, {"NSsid", i.session}};
    for (size_t row = 0; row < ARRAY_SIZE(rows); row++) {
        const size_t n = kernel_pid_chain(pc->k, pc->ns, rows[row].nr, chain, ARRAY_SIZE(chain));
        fprintf(out, "%s:", rows[row].name);
        for (size_t k = 0; k < n; k++)
            fprintf(out, "\t%d", chain[k]);
        fputs(n ? "\n" : "\t0\n", out);
    }
}

static void status_groups(struct task *t, const struct user_ns *ns, FILE *out)
{
    struct cred *c = task_get_cred(t);

    fputs("Groups:\t", out);
    for (uint32_t i = 0; c && i < c->group_count; i++)
        fprintf(out, "%u ", user_ns_show(ns, USER_NS_GID, c->groups[i]));
    fputc('\n', out);
    if (c)
        cred_put(c);
}

static void status_caps(struct task *t, FILE *out)
{
    struct cred *c = task_get_cred(t);

    if (!c)
        return;
    fprintf(out, "CapInh:\t%016" PRIx64 "\nCapPrm:\t%016" PRIx64 "\nCapEff:\t%016" PRIx64 "\n",
            c->cap_inheritable, c->cap_permitted, c->cap_effective);
    fprintf(out, "CapBnd:\t%016" PRIx64 "\nCapAmb:\t%016" PRIx64 "\n", c->cap_bounding,
            c->cap_ambient);
    cred_put(c);
}

static void status_memory(const struct mm_stats *s, const struct mm_layout *l, FILE *out)
{
    const struct {
        const char *name;
        uint64_t bytes;
    } rows[] = {{"VmPeak", s->peak_virt},
                {"VmSize", s->virt},
                {"VmLck", s->locked},
                {"VmPin", 0},
                {"VmHWM", s->peak_rss},
                {"VmRSS", s->rss},
                {"RssAnon", s->rss - (s->shared < s->rss ? s->shared : s->rss)},
                {"RssFile", s->shared},
                {"RssShmem", 0},
                {"VmData", s->data},
                {"VmStk", s->stack},
                {"VmExe", l->end_code - l->start_code},
                {"VmLib", s->exec},
                {"VmPTE", 0},
                {"VmSwap", 0}};

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        fprintf(out, "%s:\t%8" PRIu64 " kB\n", rows[i].name, rows[i].bytes >> 10);
}

/* By 32 bits from the highest down, the first group as wide as it has bits: the kernel's %*pb. */
static void show_cpu_mask(const uint64_t *mask, int cpus, FILE *out)
{
    const char *before = "";

    for (int at = (cpus - 1) / 32 * 32; at >= 0; at -= 32) {
        const uint32_t group = (uint32_t)(mask[at / 64] >> (at % 64));
        fprintf(out, "%s%0*" PRIx32, before, (MIN(cpus - at, 32) + 3) / 4, group);
        before = ",";
    }
}

static bool cpu_in(const uint64_t *mask, int cpu)
{
    return mask[cpu / 64] & 1ull << (cpu % 64);
}

/* "0-2,5" */
static void show_cpu_ranges(const uint64_t *mask, int cpus, FILE *out)
{
    const char *before = "";

    for (int i = 0; i < cpus; i++) {
        if (!cpu_in(mask, i))
            continue;
        fprintf(out, "%s%d", before, i);
        const int first = i;
        while (i + 1 < cpus && cpu_in(mask, i + 1))
            i++;
        if (i > first)
            fprintf(out, "-%d", i);
        before = ",";
    }
}

static void status_cpus(struct task *t, FILE *out)
{
    const int cpus = task_cpu_count(t);
    uint64_t mask[LIMIT_CPU_WORDS];

    task_affinity_get(t, mask);
    fputs("Cpus_allowed:\t", out);
    show_cpu_mask(mask, cpus, out);
    fputs("\nCpus_allowed_list:\t", out);
    show_cpu_ranges(mask, cpus, out);
    fputs("\nMems_allowed:\t1\nMems_allowed_list:\t0\n", out);
}

int proc_show_pid_status(const struct proc_ctx *pc, FILE *out)
{
    struct task_info i;
    struct mm_stats s;
    struct mm_layout l;

    task_info_in(pc->t, pc->ns, &i);
    get_mm_facts(pc->t, &s, &l);
    fprintf(out, "Name:\t%.15s\nUmask:\t%04o\nState:\t%s\nTgid:\t%d\nNgid:\t0\nPid:\t%d\n", i.comm,
            i.umask, state_text(i.state), i.tgid, i.pid);
    fprintf(out, "PPid:\t%d\nTracerPid:\t%d\n", i.ppid, i.tracer);
    status_ids(pc->t, pc->c ? pc->c->cred->user_ns : NULL, out);
    fprintf(out, "FDSize:\t%zu\n", i.fd_size);
    status_groups(pc->t, pc->c ? pc->c->cred->user_ns : NULL, out);
    status_chains(pc, out);
    if (s.virt)
        status_memory(&s, &l, out);
    fprintf(out, "CoreDumping:\t0\nThreads:\t%d\nSigQ:\t%u/%" PRIu64 "\n", i.threads, i.sig_queued,
            i.rlimits[11][0]);
    fprintf(out, "SigPnd:\t%016" PRIx64 "\nShdPnd:\t%016" PRIx64 "\nSigBlk:\t%016" PRIx64 "\n",
            i.sig_pending, i.sig_shared_pending, i.sig_blocked);
    fprintf(out, "SigIgn:\t%016" PRIx64 "\nSigCgt:\t%016" PRIx64 "\n", i.sig_ignored, i.sig_caught);
    status_caps(pc->t, out);
    fprintf(out, "NoNewPrivs:\t%d\nSeccomp:\t%u\nSeccomp_filters:\t%u\n", i.no_new_privs,
            i.seccomp_mode, i.seccomp_filters);
    status_cpus(pc->t, out);
    fprintf(out,
            "voluntary_ctxt_switches:\t%" PRIu64 "\nnonvoluntary_ctxt_switches:\t%" PRIu64 "\n",
            i.vol_switches, i.invol_switches);
    return 0;
}

void proc_maps_line(const struct mm_vma_info *v, FILE *out)
{
    int n =
        fprintf(out, "%08" PRIx64 "-%08" PRIx64 " %c%c%c%c %08" PRIx64 " %02x:%02x %" PRIu64,
                v->start, v->end, v->prot & PROT_READ ? 'r' : '-', v->prot & PROT_WRITE ? 'w' : '-',
                v->prot & PROT_EXEC ? 'x' : '-', v->flags & MAP_SHARED ? 's' : 'p', v->off,
                major(v->dev), minor(v->dev), v->ino);
    if (v->path[0])
        fprintf(out, "%*s%s", n < 73 ? 73 - n : 1, "", v->path);
    fputc('\n', out);
}

static int maps_one(const struct mm_vma_info *v, void *arg, FILE *out)
{
    (void)arg;
    proc_maps_line(v, out);
    return 0;
}

int proc_show_maps(const struct proc_ctx *pc, FILE *out)
{
    return proc_for_each_vma(pc, maps_one, NULL, out);
}
