/* Prototypes of every handler that syscalls.def names. A handler runs on its task's own thread with
 * no lock held and returns the result or a negative errno (ERESTART* included).
 * Depends on: base, sentry/kernel/task.h, syscalls/args.h.
 * Threading: the task's own thread only.
 * Ownership: nothing is passed. */
#ifndef RINGWALL_SYSCALLS_HANDLERS_H
#define RINGWALL_SYSCALLS_HANDLERS_H

#include <stdint.h>

#include "sentry/kernel/task.h"
#include "syscalls/args.h"

#define SYS0(nr, name, st, note) int64_t sys_##name(struct task *t);
#define SYS1(nr, name, st, note, k0, a0) int64_t sys_##name(struct task *t, SYS_T_##k0 a0);
#define SYS2(nr, name, st, note, k0, a0, k1, a1)                                                   \
    int64_t sys_##name(struct task *t, SYS_T_##k0 a0, SYS_T_##k1 a1);
#define SYS3(nr, name, st, note, k0, a0, k1, a1, k2, a2)                                           \
    int64_t sys_##name(struct task *t, SYS_T_##k0 a0, SYS_T_##k1 a1, SYS_T_##k2 a2);
#define SYS4(nr, name, st, note, k0, a0, k1, a1, k2, a2, k3, a3)                                   \
    int64_t sys_##name(struct task *t, SYS_T_##k0 a0, SYS_T_##k1 a1, SYS_T_##k2 a2, SYS_T_##k3 a3);
#define SYS5(nr, name, st, note, k0, a0, k1, a1, k2, a2, k3, a3, k4, a4)                           \
    int64_t sys_##name(struct task *t, SYS_T_##k0 a0, SYS_T_##k1 a1, SYS_T_##k2 a2, SYS_T_##k3 a3, \
                       SYS_T_##k4 a4);
#define SYS6(nr, name, st, note, k0, a0, k1, a1, k2, a2, k3, a3, k4, a4, k5, a5)                   \
    int64_t sys_##name(struct task *t, SYS_T_##k0 a0, SYS_T_##k1 a1, SYS_T_##k2 a2, SYS_T_##k3 a3, \
                       SYS_T_##k4 a4, SYS_T_##k5 a5);
#define NOSYS(nr, name, err, note)
#include "syscalls/syscalls.def"
#include "syscalls/undef.def"

#endif
