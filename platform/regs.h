/* Register file of a guest thread, in the layout of the host's struct user_regs_struct.
 * Depends on: nothing.
 * Threading: plain data, owned by whoever holds the context it was read from.
 * Ownership: values only. */
#ifndef RINGWALL_PLATFORM_REGS_H
#define RINGWALL_PLATFORM_REGS_H

#include <stddef.h>
#include <stdint.h>

struct plat_regs {
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10;
    uint64_t r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax;
    uint64_t rip, cs, eflags, rsp, ss;
    uint64_t fs_base, gs_base;
    uint64_t ds, es, fs, gs;
};

_Static_assert(sizeof(struct plat_regs) == 27 * 8, "user_regs_struct has 27 words");

#endif
