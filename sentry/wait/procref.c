/* The identity of a process. */
#include "sentry/wait/procref.h"

#include <errno.h>
#include <stdlib.h>

#include "base/objcount.h"

OBJCOUNT_DEFINE(procref);

int procref_new(struct kernel *owner, struct thread_group *group, struct procref **out_ref)
{
    struct procref *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    ref_init(&p->ref);
    p->owner = owner;
    p->group = group;
    waitq_init(&p->wq);
    OBJCOUNT_INC(procref);
    *out_ref = p;
    return 0;
}

struct procref *procref_get(struct procref *p)
{
    if (p)
        ref_get(&p->ref);
    return p;
}

void procref_put(struct procref *p)
{
    if (!p || !ref_put(&p->ref))
        return;
    waitq_fini(&p->wq);
    OBJCOUNT_DEC(procref);
    free(p);
}
