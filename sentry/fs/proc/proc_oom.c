/* /proc/<pid>/oom_score and oom_score_adj: who ends when memory does. */
#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdlib.h>

#include "proc_priv.h"
#include "sentry/kernel/process.h"

#define OOM_SCORE_ADJ_MAX 1000

int proc_show_oom_score(const struct proc_ctx *pc, FILE *out)
{
    fprintf(out, "%" PRId64 "\n", task_oom_score(pc->t));
    return 0;
}

int proc_show_oom_score_adj(const struct proc_ctx *pc, FILE *out)
{
    fprintf(out, "%" PRId64 "\n", task_attr_get(pc->t, TASK_ATTR_OOM_SCORE_ADJ));
    return 0;
}

int64_t proc_store_oom_score_adj(const struct proc_ctx *pc, const char *text, size_t len)
{
    char *end;
    const long v = strtol(text, &end, 10);
    const bool may = pc->c && cred_capable(pc->c->cred, CAP_SYS_RESOURCE);

    if (end == text || (*end != '\0' && *end != '\n') || v < -OOM_SCORE_ADJ_MAX ||
        v > OOM_SCORE_ADJ_MAX)
        return -EINVAL;
    /* Who raised it himself may take that back, but not go lower than he was put. */
    if (v < task_attr_get(pc->t, TASK_ATTR_OOM_SCORE_ADJ_MIN) && !may)
        return -EACCES;
    task_attr_set(pc->t, TASK_ATTR_OOM_SCORE_ADJ, v);
    if (may)
        task_attr_set(pc->t, TASK_ATTR_OOM_SCORE_ADJ_MIN, v);
    return (int64_t)len;
}
