/* A platform, an address space and a file tree made of plain C, so that the kernel's tests need no
 * guest code: a guest is a function that is called for each step and says what it calls next.
 * Depends on: sentry/kernel.
 * Threading: as the interfaces that are faked.
 * Ownership: as there; fake_kernel_free ends all of it. */
#ifndef RINGWALL_TESTS_FAKES_H
#define RINGWALL_TESTS_FAKES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "platform/platform.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"

/* Guest memory of a fake address space. */
#define FAKE_MEM_START 0x10000u
#define FAKE_MEM_SIZE 0x4000u

/* One step of a guest. Registers are its only state: r15 is where it goes on, the other ones from
 * r12 on, rbx and rbp are its own. */
typedef void (*fake_guest_fn)(struct plat_regs *g);

#define FAKE_SPIN 0xfff0u  /* orig_rax: guest code that runs till it is interrupted */
#define FAKE_FAULT 0xfff1u /* ... that touches address 0 */

#define G_BEGIN                                                                                    \
    switch (g->r15) {                                                                              \
    case 0:
#define G_CALL(nr, ...)                                                                            \
    do {                                                                                           \
        g->r15 = __LINE__;                                                                         \
        fake_call(g, (nr), (const uint64_t[6]){__VA_ARGS__});                                      \
        return;                                                                                    \
    case __LINE__:;                                                                                \
    } while (0)
#define G_END                                                                                      \
    }                                                                                              \
    fake_failed(__FILE__, __LINE__, "ran past its end", G_RET)
#define G_RET ((int64_t)g->rax)
#define G_ASSERT(cond)                                                                             \
    do {                                                                                           \
        if (!(cond))                                                                               \
            fake_failed(__FILE__, __LINE__, #cond, G_RET);                                         \
    } while (0)

void fake_call(struct plat_regs *g, uint64_t nr, const uint64_t a[6]);
/* result: what the last call returned. */
void fake_failed(const char *file, int line, const char *what, int64_t result);
extern _Atomic int fake_failures;

/* Programs that execve and kernel_exec_load find: "/0" is programs[0], ... */
extern fake_guest_fn fake_programs[8];

struct plat *fake_plat(void);
/* ctx is to leave guest code: for guests that stay in a step till then. Any thread. */
bool fake_interrupted(struct plat_ctx *ctx);
/* Live address spaces and contexts of the platform. */
extern _Atomic int fake_as_live, fake_ctx_live, fake_mm_live, fake_file_live;

/* Guest memory cannot be written, there is none, till what nobody uses is taken back. */
extern _Atomic bool fake_memory_gone;

/* What the kernel finds in files it reads; without data they cannot be read. */
extern struct fake_content {
    const uint8_t *data;
    size_t size;
} fake_content;

/* Chance for storms: [0, n), from a seed that a test may set. Any thread. */
extern _Atomic uint64_t fake_seed;
uint64_t fake_chance(uint64_t n);

/* do_NAME for a table of calls: sys_NAME with arguments that are made of a[]. */
#define FAKE_THUNK(name, ...)                                                                      \
    static int64_t do_##name(struct task *t, const uint64_t *a)                                    \
    {                                                                                              \
        (void)a;                                                                                   \
        return sys_##name(t, ##__VA_ARGS__);                                                       \
    }

/* CPUs of containers that are made from now on; 2 at first. */
extern int fake_cpus;

/* Runs init, program "/0" of a new container, to its end: its wait status. Fails the test when
 * anything is left over. */
int fake_run_init(const struct sys_table *table, fake_guest_fn init);
struct kernel *fake_container_new(const struct sys_table *table);
/* new session, all capabilities, no limits. */
int fake_container_load(struct kernel *k, const char *path, kernel_exit_fn fn, int32_t *out_pid);
void fake_on_end(void *arg, int status); /* for init */
int fake_container_await(void);
void fake_container_end(struct kernel *k);

int fake_load(const struct task_image_args *args, struct task_image *out);
struct mount_ns *fake_mount_ns(void);

#endif
