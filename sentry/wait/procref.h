/* The identity of a process: what a descriptor or a socket keeps of one that may end, be reaped and
 * have its number used again meanwhile (struct pid of the kernel).
 * Depends on: wait.h.
 * Threading: any thread. owner and group are the process table's, under its lock (rank KERNEL).
 * Ownership: reference-counted; it does not keep the process, nor anything the process has. */
#ifndef RINGWALL_SENTRY_WAIT_PROCREF_H
#define RINGWALL_SENTRY_WAIT_PROCREF_H

#include "base/compiler.h"
#include "base/ref.h"
#include "sentry/wait/wait.h"

struct kernel;
struct thread_group;

struct procref {
    struct ref ref;
    struct kernel *owner;       /* immutable; outlives it */
    struct thread_group *group; /* weak; NULL once it has been reaped */
    struct waitq wq;            /* the process ended or was reaped */
};

/* Owned result. -ENOMEM. */
MUST_CHECK int procref_new(struct kernel *owner, struct thread_group *group,
                           struct procref **out_ref);
struct procref *procref_get(struct procref *p); /* NULL allowed, as below */
/* The last may be given back under a socket's lock. */
void procref_put(struct procref *p);

#endif
