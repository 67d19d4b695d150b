/* Argument kinds of syscalls.def: the C type a handler gets, and how a raw register narrows to it.
 * Depends on: base.
 * Threading: macros.
 * Ownership: none. */
#ifndef RINGWALL_SYSCALLS_ARGS_H
#define RINGWALL_SYSCALLS_ARGS_H

#include <stdint.h>

#include "base/uaddr.h"

#define SYS_T_INT int
#define SYS_T_UINT unsigned
#define SYS_T_LONG int64_t
#define SYS_T_ULONG uint64_t
#define SYS_T_FD int
#define SYS_T_FLAGS int
#define SYS_T_UFLAGS unsigned
#define SYS_T_MODE uint32_t
#define SYS_T_SIZE uint64_t
#define SYS_T_OFF int64_t
#define SYS_T_PTR uaddr_t
#define SYS_T_PATH uaddr_t
#define SYS_T_STR uaddr_t
#define SYS_T_BUF uaddr_t
#define SYS_T_PID int
#define SYS_T_SIG int
#define SYS_T_UID uint32_t
#define SYS_T_GID uint32_t

/* Linux looks at the low half only of what is 32 bits wide. */
#define SYS_C_INT(r) ((int)(uint32_t)(r))
#define SYS_C_UINT(r) ((unsigned)(r))
#define SYS_C_LONG(r) ((int64_t)(r))
#define SYS_C_ULONG(r) (r)
#define SYS_C_FD(r) SYS_C_INT(r)
#define SYS_C_FLAGS(r) SYS_C_INT(r)
#define SYS_C_UFLAGS(r) SYS_C_UINT(r)
#define SYS_C_MODE(r) ((uint32_t)(r))
#define SYS_C_SIZE(r) (r)
#define SYS_C_OFF(r) ((int64_t)(r))
#define SYS_C_PTR(r) ((uaddr_t){(r)})
#define SYS_C_PATH(r) SYS_C_PTR(r)
#define SYS_C_STR(r) SYS_C_PTR(r)
#define SYS_C_BUF(r) SYS_C_PTR(r)
#define SYS_C_PID(r) SYS_C_INT(r)
#define SYS_C_SIG(r) SYS_C_INT(r)
#define SYS_C_UID(r) ((uint32_t)(r))
#define SYS_C_GID(r) ((uint32_t)(r))

#endif
