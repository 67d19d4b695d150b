/* Thunks that narrow six registers to a handler's typed arguments, and the table of them. */
#include "syscalls/table.h"

#include <asm/unistd.h>
#include <errno.h>

#include "syscalls/handlers.h"

/* Numbers newer than the host's headers. */
#ifndef __NR_cachestat
#define __NR_cachestat 451
#endif
#ifndef __NR_fchmodat2
#define __NR_fchmodat2 452
#endif
#ifndef __NR_map_shadow_stack
#define __NR_map_shadow_stack 453
#endif
#ifndef __NR_futex_wake
#define __NR_futex_wake 454
#define __NR_futex_wait 455
#define __NR_futex_requeue 456
#endif
#ifndef __NR_statmount
#define __NR_statmount 457
#define __NR_listmount 458
#endif
#ifndef __NR_lsm_get_self_attr
#define __NR_lsm_get_self_attr 459
#define __NR_lsm_set_self_attr 460
#define __NR_lsm_list_modules 461
#endif
#ifndef __NR_mseal
#define __NR_mseal 462
#endif
#ifndef __NR_setxattrat
#define __NR_setxattrat 463
#define __NR_getxattrat 464
#define __NR_listxattrat 465
#define __NR_removexattrat 466
#endif
#ifndef __NR_open_tree_attr
#define __NR_open_tree_attr 467
#endif

#define CHECK_NR(nr, name) _Static_assert((nr) == __NR_##name, "number of " #name);
#define THUNK(nr, name)                                                                            \
    CHECK_NR(nr, name) static int64_t thunk_##name(struct task *t, const uint64_t *a)

#define SYS0(nr, name, st, note)                                                                   \
    THUNK(nr, name)                                                                                \
    {                                                                                              \
        (void)a;                                                                                   \
        return sys_##name(t);                                                                      \
    }
#define SYS1(nr, name, st, note, k0, a0)                                                           \
    THUNK(nr, name)                                                                                \
    {                                                                                              \
        return sys_##name(t, SYS_C_##k0(a[0]));                                                    \
    }
#define SYS2(nr, name, st, note, k0, a0, k1, a1)                                                   \
    THUNK(nr, name)                                                                                \
    {                                                                                              \
        return sys_##name(t, SYS_C_##k0(a[0]), SYS_C_##k1(a[1]));                                  \
    }
#define SYS3(nr, name, st, note, k0, a0, k1, a1, k2, a2)                                           \
    THUNK(nr, name)                                                                                \
    {                                                                                              \
        return sys_##name(t, SYS_C_##k0(a[0]), SYS_C_##k1(a[1]), SYS_C_##k2(a[2]));                \
    }
#define SYS4(nr, name, st, note, k0, a0, k1, a1, k2, a2, k3, a3)                                   \
    THUNK(nr, name)                                                                                \
    {                                                                                              \
        return sys_##name(t, SYS_C_##k0(a[0]), SYS_C_##k1(a[1]), SYS_C_##k2(a[2]),                 \
                          SYS_C_##k3(a[3]));                                                       \
    }
#define SYS5(nr, name, st, note, k0, a0, k1, a1, k2, a2, k3, a3, k4, a4)                           \
    THUNK(nr, name)                                                                                \
    {                                                                                              \
        return sys_##name(t, SYS_C_##k0(a[0]), SYS_C_##k1(a[1]), SYS_C_##k2(a[2]),                 \
                          SYS_C_##k3(a[3]), SYS_C_##k4(a[4]));                                     \
    }
#define SYS6(nr, name, st, note, k0, a0, k1, a1, k2, a2, k3, a3, k4, a4, k5, a5)                   \
    THUNK(nr, name)                                                                                \
    {                                                                                              \
        return sys_##name(t, SYS_C_##k0(a[0]), SYS_C_##k1(a[1]), SYS_C_##k2(a[2]),                 \
                          SYS_C_##k3(a[3]), SYS_C_##k4(a[4]), SYS_C_##k5(a[5]));                   \
    }
#define NOSYS(nr, name, err, note) CHECK_NR(nr, name)
#include "syscalls/syscalls.def"
#include "syscalls/undef.def"

#define HAVE(nr, nm) [nr] = {.fn = thunk_##nm, .name = #nm, .err = -ENOSYS},
#define SYS0(nr, nm, ...) HAVE(nr, nm)
#define SYS1(nr, nm, ...) HAVE(nr, nm)
#define SYS2(nr, nm, ...) HAVE(nr, nm)
#define SYS3(nr, nm, ...) HAVE(nr, nm)
#define SYS4(nr, nm, ...) HAVE(nr, nm)
#define SYS5(nr, nm, ...) HAVE(nr, nm)
#define SYS6(nr, nm, ...) HAVE(nr, nm)
#define NOSYS(nr, nm, e, note) [nr] = {.fn = NULL, .name = #nm, .err = -(e)},
static const struct sys_entry entries[] = {
#include "syscalls/syscalls.def"
};
#include "syscalls/undef.def"

const struct sys_table ringwall_syscalls = {
    .entries = entries,
    .count = ARRAY_SIZE(entries),
    .trace = sys_trace,
};
