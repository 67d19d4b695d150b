/* Attributes, small macros and the one fatal check that every file uses.
 * Depends on: nothing.
 * Threading: macros only; bug_fail may be called from any thread or signal handler.
 * Ownership: none. */
#ifndef RINGWALL_BASE_COMPILER_H
#define RINGWALL_BASE_COMPILER_H

#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define NORETURN __attribute__((noreturn))
#define UNUSED __attribute__((unused))
#define ALIGNED(n) __attribute__((aligned(n)))
#define PRINTF_FMT(fmt, first) __attribute__((format(printf, fmt, first)))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#undef MIN
#undef MAX
#define MIN(a, b)                                                                                  \
    __extension__({                                                                                \
        __auto_type min_a_ = (a);                                                                  \
        __auto_type min_b_ = (b);                                                                  \
        min_a_ < min_b_ ? min_a_ : min_b_;                                                         \
    })
#define MAX(a, b)                                                                                  \
    __extension__({                                                                                \
        __auto_type max_a_ = (a);                                                                  \
        __auto_type max_b_ = (b);                                                                  \
        max_a_ > max_b_ ? max_a_ : max_b_;                                                         \
    })

/* a is a power of two. ALIGN_UP may wrap: hostile values go through ckd_align_up (ckd.h). */
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a)-1))
#define ALIGN_UP(x, a) ALIGN_DOWN((x) + ((__typeof__(x))(a)-1), a)
#define IS_ALIGNED(x, a) (((x) & ((__typeof__(x))(a)-1)) == 0)

/* Spelled as in <sys/user.h>, so that both may be included. */
#define PAGE_SHIFT 12
#define PAGE_SIZE (1UL << PAGE_SHIFT)

/* Writes "file:line: expr" to stderr with one write(2) and aborts. */
NORETURN void bug_fail(const char *file, int line, const char *expr);

/* An internal inconsistency: ends the whole sandbox, in every build. Guest input must never be
 * able to make cond true. */
#define BUG_ON(cond)                                                                               \
    do {                                                                                           \
        if (UNLIKELY(cond))                                                                        \
            bug_fail(__FILE__, __LINE__, #cond);                                                   \
    } while (0)

#endif
