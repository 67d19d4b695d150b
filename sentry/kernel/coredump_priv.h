/* Inside core dumps: who takes part, and the file that is written.
 * Depends on: coredump.h, task_priv.h.
 * Threading: guarded by the group's sighand lock until all have come; then the dumper's alone.
 * Ownership: on the dumper's stack; threads are in it till they are let go. */
#ifndef RINGWALL_SENTRY_KERNEL_COREDUMP_PRIV_H
#define RINGWALL_SENTRY_KERNEL_COREDUMP_PRIV_H

#include "sentry/kernel/coredump.h"
#include "sentry/kernel/task_priv.h"

/* What is known of a thread; on its own stack. */
struct core_thread {
    struct list node;
    struct task *t;
    struct plat_regs regs;
    uint8_t *xstate; /* owned by the thread; NULL: none */
    size_t xstate_size;
};

struct coredump {
    struct task *t; /* who dumps */
    struct lx_siginfo info;
    struct list threads; /* core_thread.node, the dumper's first */
    uint32_t count;
    _Atomic bool done;
    struct waitq wq; /* both ways */
};

/* ---- coredump_elf.c ---- */
/* Writes the whole file, at most limit bytes. -ENOMEM or what the file system says. */
MUST_CHECK int core_write(struct coredump *c, struct file *f, uint64_t limit,
                          const struct vfs_caller *vc);

/* ---- coredump_notes.c ---- */
/* A buffer that grows. */
struct core_buf {
    uint8_t *data; /* owned */
    size_t size, room;
    bool failed;
};
void core_put(struct core_buf *b, const void *data, size_t size);
/* All notes: threads, process, signal, auxiliary vector, mapped files. */
void core_notes(struct coredump *c, struct core_buf *b);

#endif
