/* Live objects per type, counted in debug builds so that tests can assert that nothing leaked.
 * Depends on: compiler.h.
 * Threading: atomic counters.
 * Ownership: counters are static; define each once, in the .c file that frees the type:
 *     OBJCOUNT_DEFINE(file);   ...   OBJCOUNT_INC(file);   ...   OBJCOUNT_DEC(file);             */
#ifndef RINGWALL_BASE_OBJCOUNT_H
#define RINGWALL_BASE_OBJCOUNT_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/compiler.h"

struct objcount {
    const char *name;
    _Atomic int64_t live;
};

#ifdef RINGWALL_DEBUG
/* The section makes an array that objcount_report walks, with no registration at run time. */
#define OBJCOUNT_DEFINE(type)                                                                      \
    __attribute__((section("ringwall_objcount"), used,                                             \
                   aligned(8))) struct objcount objcount_##type = {.name = #type}
#define OBJCOUNT_ADD_(type, n)                                                                     \
    do {                                                                                           \
        extern struct objcount objcount_##type;                                                    \
        atomic_fetch_add_explicit(&objcount_##type.live, (n), memory_order_relaxed);               \
    } while (0)
#define OBJCOUNT_INC(type) OBJCOUNT_ADD_(type, 1)
#define OBJCOUNT_DEC(type) OBJCOUNT_ADD_(type, -1)
#else
#define OBJCOUNT_DEFINE(type) _Static_assert(sizeof(#type) > 1, "type name")
#define OBJCOUNT_INC(type) ((void)0)
#define OBJCOUNT_DEC(type) ((void)0)
#endif

/* Logs every type with live objects at level error and returns their sum; 0 in release builds. */
int64_t objcount_report(void);
/* Live objects of the named type; -1 when there is no such counter. */
int64_t objcount_live(const char *name);

#endif
