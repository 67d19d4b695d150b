/* /proc/<pid>/smaps, smaps_rollup, numa_maps, clear_refs, pagemap (fs/proc/task_mmu.c). */
#include <errno.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "proc_node.h"
#include "sentry/kernel/process.h"

#ifndef MPOL_PREFERRED_MANY
#define MPOL_PREFERRED_MANY 5
#endif
#define MPOL_WEIGHTED 6
#define PAGEMAP_BATCH 256u
#define PAGEMAP_END (UINT64_C(1) << 47)

/* ---- smaps ---- */

static void smaps_rows(const struct mm_vma_info *v, FILE *out)
{
    const uint64_t memory = v->anon + v->shmem, file = v->rss - memory;
    const struct {
        const char *name;
        uint64_t bytes;
    } rows[] = {{"Rss:", v->rss},
                {"Pss:", v->pss},
                {"Pss_Dirty:", v->pss_anon + v->pss_shmem},
                {"Shared_Clean:", 0},
                {"Shared_Dirty:", v->shared},
                {"Private_Clean:", file},
                {"Private_Dirty:", memory - v->shared},
                {"Referenced:", v->referenced},
                {"Anonymous:", v->anon},
                {"KSM:", 0},
                {"LazyFree:", 0},
                {"AnonHugePages:", 0},
                {"ShmemPmdMapped:", 0},
                {"FilePmdMapped:", 0},
                {"Shared_Hugetlb:", 0},
                {"Private_Hugetlb:", 0},
                {"Swap:", 0},
                {"SwapPss:", 0},
                {"Locked:", v->flags & MAP_LOCKED ? v->pss : 0}};

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        fprintf(out, "%-16s%8" PRIu64 " kB\n", rows[i].name, rows[i].bytes >> 10);
}

/* show_smap_vma_flags() */
static void smaps_flags(const struct mm_vma_info *v, FILE *out)
{
    const bool shared = v->flags & MAP_SHARED;
    const struct {
        char name[3];
        bool set;
    } flags[] = {{"rd", v->prot & PROT_READ},
                 {"wr", v->prot & PROT_WRITE},
                 {"ex", v->prot & PROT_EXEC},
                 {"sh", shared},
                 {"mr", v->max_prot & PROT_READ},
                 {"mw", v->max_prot & PROT_WRITE},
                 {"me", v->max_prot & PROT_EXEC},
                 {"ms", shared},
                 {"gd", v->flags & MAP_GROWSDOWN},
                 {"lo", v->flags & MAP_LOCKED},
                 {"dc", v->dont_fork},
                 {"lf", v->lock_on_fault},
                 {"nr", v->flags & MAP_NORESERVE},
                 {"wf", v->wipe_on_fork},
                 {"dd", v->dont_dump},
                 {"hg", v->huge},
                 {"nh", v->no_huge},
                 {"sl", v->sealed}};

    fputs("VmFlags: ", out);
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
        if (flags[i].set)
            fprintf(out, "%s ", flags[i].name);
    fputc('\n', out);
}

static int smaps_one(const struct mm_vma_info *v, void *arg, FILE *out)
{
    (void)arg;
    proc_maps_line(v, out);
    fprintf(out, "%-16s%8" PRIu64 " kB\n", "Size:", (v->end - v->start) >> 10);
    fprintf(out, "%-16s%8u kB\n%-16s%8u kB\n", "KernelPageSize:", (unsigned)PAGE_SIZE >> 10,
            "MMUPageSize:", (unsigned)PAGE_SIZE >> 10);
    smaps_rows(v, out);
    fputs("THPeligible:           0\n", out);
    smaps_flags(v, out);
    return 0;
}

int proc_for_each_vma(const struct proc_ctx *pc, proc_vma_fn fn, void *arg, FILE *out)
{
    struct mm *mm = task_get_mm(pc->t);
    struct mm_vma_info *v = malloc(sizeof(*v));
    int r = v ? 0 : -ENOMEM;

    for (uint64_t from = 0; r == 0 && mm && mm_vma_next(mm, from, v) == 0; from = v->end)
        r = fn(v, arg, out);
    free(v);
    mm_put(mm);
    return r;
}

int proc_show_smaps(const struct proc_ctx *pc, FILE *out)
{
    return proc_for_each_vma(pc, smaps_one, NULL, out);
}

/* ---- smaps_rollup ---- */

static int rollup_one(const struct mm_vma_info *v, void *arg, FILE *out)
{
    struct mm_vma_info *sum = arg;

    (void)out;
    if (sum->end == 0)
        sum->start = v->start;
    sum->end = v->end;
    sum->rss += v->rss;
    sum->pss += v->pss;
    sum->anon += v->anon;
    sum->shmem += v->shmem;
    sum->shared += v->shared;
    sum->pss_anon += v->pss_anon;
    sum->pss_shmem += v->pss_shmem;
    sum->referenced += v->referenced;
    sum->flags |= v->flags & MAP_LOCKED;
    return 0;
}

static void rollup_show(const struct mm_vma_info *sum, FILE *out)
{
    char rows[2048], *pss_dirty;
    FILE *f = fmemopen(rows, sizeof(rows), "w");

    fprintf(out, "%08" PRIx64 "-%08" PRIx64 " ---p 00000000 00:00 0%*s[rollup]\n", sum->start,
            sum->end, 35, "");
    if (!f)
        return;
    smaps_rows(sum, f);
    (void)fclose(f);
    /* Here the share is told apart by kind as well. */
    pss_dirty = strstr(rows, "Shared_Clean:");
    fprintf(out, "%.*s", (int)(pss_dirty - rows), rows);
    fprintf(out, "%-16s%8" PRIu64 " kB\n", "Pss_Anon:", sum->pss_anon >> 10);
    fprintf(out, "%-16s%8" PRIu64 " kB\n",
            "Pss_File:", (sum->pss - sum->pss_anon - sum->pss_shmem) >> 10);
    fprintf(out, "%-16s%8" PRIu64 " kB\n", "Pss_Shmem:", sum->pss_shmem >> 10);
    fputs(pss_dirty, out);
}

int proc_show_smaps_rollup(const struct proc_ctx *pc, FILE *out)
{
    struct mm_vma_info *sum = calloc(1, sizeof(*sum));

    if (!sum)
        return -ENOMEM;
    int r = proc_for_each_vma(pc, rollup_one, sum, out);
    if (!r && sum->end)
        rollup_show(sum, out);
    free(sum);
    return r;
}

/* ---- numa_maps ---- */

/* mpol_to_str() */
static void policy_text(const struct mm_policy *p, FILE *out)
{
    static const char *const names[] = {
        "default", "prefer", "bind", "interleave", "local", "prefer (many)", "weighted interleave"};

    fputs(p->mode < ARRAY_SIZE(names) ? names[p->mode] : "unknown", out);
    if (p->flags & MPOL_F_STATIC_NODES)
        fputs("=static", out);
    else if (p->flags & MPOL_F_RELATIVE_NODES)
        fputs("=relative", out);
    if (p->mode != MPOL_DEFAULT && p->mode != MPOL_LOCAL)
        fputs(":0", out);
}

/* Spaces and such as octal numbers (seq_file_path). */
static void path_text(const char *path, FILE *out)
{
    for (; *path; path++)
        if (strchr("\n\t= \\", *path))
            fprintf(out, "\\%03o", (unsigned char)*path);
        else
            fputc(*path, out);
}

static int numa_one(const struct mm_vma_info *v, void *arg, FILE *out)
{
    const struct mm_policy *task = arg;
    const uint64_t pages = v->rss >> PAGE_SHIFT, anon = v->anon >> PAGE_SHIFT;
    const uint64_t dirty = (v->anon + v->shmem) >> PAGE_SHIFT;

    fprintf(out, "%08" PRIx64 " ", v->start);
    policy_text(v->policy.mode == MPOL_DEFAULT ? task : &v->policy, out);
    if (v->path[0] == '[') {
        fprintf(out, " %s",
                strcmp(v->path, "[heap]") == 0    ? "heap"
                : strcmp(v->path, "[stack]") == 0 ? "stack"
                                                  : "");
    } else if (v->path[0]) {
        fputs(" file=", out);
        path_text(v->path, out);
    }
    if (anon)
        fprintf(out, " anon=%" PRIu64, anon);
    if (dirty)
        fprintf(out, " dirty=%" PRIu64, dirty);
    if (pages && pages != anon && pages != dirty)
        fprintf(out, " mapped=%" PRIu64, pages);
    if (pages)
        fprintf(out, " N0=%" PRIu64 " kernelpagesize_kB=%u", pages, (unsigned)PAGE_SIZE >> 10);
    fputc('\n', out);
    return 0;
}

int proc_show_numa_maps(const struct proc_ctx *pc, FILE *out)
{
    struct mm_policy task;

    task_get_policy(pc->t, &task);
    return proc_for_each_vma(pc, numa_one, &task, out);
}

/* ---- clear_refs ---- */

enum { CLEAR_ALL = 1, CLEAR_ANON, CLEAR_MAPPED, CLEAR_SOFT_DIRTY, CLEAR_PEAK };

int64_t proc_store_clear_refs(const struct proc_ctx *pc, const char *text, size_t len)
{
    char *end;
    const long what = strtol(text, &end, 10);
    int r = 0;

    if (end == text || (*end != '\0' && *end != '\n') || what < CLEAR_ALL || what > CLEAR_PEAK)
        return -EINVAL;
    struct mm *mm = task_get_mm(pc->t);
    if (!mm)
        return (int64_t)len;
    if (what == CLEAR_PEAK)
        mm_reset_peak(mm);
    else if (what != CLEAR_SOFT_DIRTY) /* no page is soft-dirty, as without CONFIG_MEM_SOFT_DIRTY */
        r = mm_clear_referenced(mm, what != CLEAR_MAPPED, what != CLEAR_ANON);
    mm_put(mm);
    return r ? r : (int64_t)len;
}

/* ---- pagemap ---- */

static int64_t pagemap_copy(struct mm *mm, struct uio *u, int64_t *pos)
{
    uint64_t words[PAGEMAP_BATCH];
    int64_t total = 0;

    while (u->left > 0) {
        const uint64_t addr = (uint64_t)*pos / sizeof(words[0]) << PAGE_SHIFT;
        if ((uint64_t)*pos >= PAGEMAP_END >> PAGE_SHIFT << 3)
            break;
        uint64_t n = MIN(u->left / sizeof(words[0]), (uint64_t)PAGEMAP_BATCH);
        n = MIN(n, (PAGEMAP_END - addr) >> PAGE_SHIFT);
        mm_pagemap(mm, addr, n, words);
        const int64_t done = uio_copy_to(u, words, n * sizeof(words[0]));
        if (done <= 0)
            return total > 0 ? total : done;
        total += done;
        *pos += done;
        if ((uint64_t)done < n * sizeof(words[0]))
            break;
    }
    return total;
}

static int64_t pagemap_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct mm *mm = proc_mem_mm(f);

    (void)c;
    if (!mm)
        return 0;
    const bool whole = (uint64_t)*pos % 8 == 0 && u->left % 8 == 0;
    const int64_t r = whole ? pagemap_copy(mm, u, pos) : -EINVAL;
    mm_put(mm);
    return r;
}

static const struct file_ops pagemap_ops = {
    .read = pagemap_read,
    .seek = proc_mem_seek,
    .release = proc_mem_release,
};

int proc_open_pagemap(const struct proc_ctx *pc, struct file *f, const struct vfs_caller *c)
{
    int r = proc_open_mem(pc, f, c);

    if (r == 0)
        f->ops = &pagemap_ops;
    return r == -EACCES ? -EPERM : r;
}
