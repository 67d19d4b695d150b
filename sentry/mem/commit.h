/* What guests were promised and may come back for: overcommit as Documentation/mm/overcommit has
 * it. Depends on: base. Threading: any thread; figures and settings are atomic, nothing is locked.
 * Ownership: one per memory file, part of it. */
#ifndef RINGWALL_SENTRY_MEM_COMMIT_H
#define RINGWALL_SENTRY_MEM_COMMIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

/* vm.overcommit_memory */
enum mem_commit_mode { MEM_COMMIT_GUESS, MEM_COMMIT_ALWAYS, MEM_COMMIT_NEVER };
#define MEM_COMMIT_RATIO_DEFAULT 50

struct mem_commit {
    _Atomic uint64_t charged; /* bytes */
    _Atomic int mode;
    /* CommitLimit is kbytes, or this part of the memory in percent when kbytes is 0. */
    _Atomic unsigned ratio;
    _Atomic uint64_t kbytes;
};

void mem_commit_init(struct mem_commit *c);
/* Bytes that may be promised in mode NEVER, of ram bytes. */
uint64_t mem_commit_limit(const struct mem_commit *c, uint64_t ram);
/* May size more bytes be promised to a process that has own bytes mapped? host_ram is what there
 * really is, ram what the guest sees. admin: what is left for CAP_SYS_ADMIN may be taken. Like
 * Linux's, whose counters are as rough, it does not charge: two at once may both fit. */
bool mem_commit_may(const struct mem_commit *c, uint64_t size, uint64_t own, uint64_t ram,
                    uint64_t host_ram, bool admin);
static inline void mem_commit_charge(struct mem_commit *c, uint64_t size)
{
    (void)atomic_fetch_add_explicit(&c->charged, size, memory_order_relaxed);
}
static inline void mem_commit_release(struct mem_commit *c, uint64_t size)
{
    (void)atomic_fetch_sub_explicit(&c->charged, size, memory_order_relaxed);
}
/* Settings, by the names of /proc/sys/vm. Values were checked. */
void mem_commit_set_ratio(struct mem_commit *c, unsigned ratio);
void mem_commit_set_kbytes(struct mem_commit *c, uint64_t kbytes);

#endif
