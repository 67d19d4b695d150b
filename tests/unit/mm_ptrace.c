/* Address spaces on real stubs: small machine-code guests on the ptrace platform. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "platform/ptrace/ptrace.h"
#include "sentry/mem/memfile.h"
#include "sentry/mm/mm.h"
#include "sentry/mm/safecopy.h"

#define P PAGE_SIZE
#define CODE UINT64_C(0x400000)
#define DATA UINT64_C(0x600000)
#define RW (PROT_READ | PROT_WRITE)

static const struct mm_limits no_limits = {UINT64_MAX, UINT64_MAX, 8u << 20,
                                           UINT64_MAX, true,       true};

/* at 0: mov [rdi], rsi; syscall.  at 16: mov rax, [rdi]; mov rsi, rax; syscall.
 * at 32: 1: cmp dword [rdi], 0; je 1b; syscall */
static const unsigned char code[48] = {
    [0] = 0x48, 0x89, 0x37, 0x0f,        0x05, [16] = 0x48, 0x8b, 0x07, 0x48, 0x89,
    0xc6,       0x0f, 0x05, [32] = 0x83, 0x3f, 0x00,        0x74, 0xfb, 0x0f, 0x05,
};
enum { DO_WRITE = 0, DO_READ = 16, DO_SPIN = 32 };

struct rig {
    struct memfile *mf;
    struct plat *plat;
};

struct task {
    struct mm *mm;
    struct plat_ctx *ctx;
    int signo;
    uint64_t at, value;
    int what;
};

static void rig_start(struct rig *r)
{
    struct plat_config cfg = {.decoder_fd = -1};
    cr_assert(safecopy_init() == 0);
    cr_assert(memfile_new(UINT64_C(1) << 36, &r->mf) == 0);
    cfg.mem_fd = memfile_fd(r->mf);
    cr_assert(ptrace_plat_ops.create(&cfg, &r->plat) == 0);
}

static void rig_end(struct rig *r)
{
    cr_assert_eq(memfile_reserved(r->mf), 0u);
    r->plat->ops->destroy(r->plat);
    memfile_free(r->mf);
}

static int task_map(struct task *t, uint64_t addr, uint64_t size, int prot, int flags)
{
    struct mm_map_args a = {.addr = {addr}, .size = size, .prot = prot, .flags = flags | MAP_FIXED};
    uaddr_t at;
    a.max_prot = PROT_READ | PROT_WRITE | PROT_EXEC;
    return mm_mmap(t->mm, t->ctx, &no_limits, &a, &at);
}

static void task_start(struct rig *r, struct task *t)
{
    memset(t, 0, sizeof(*t));
    cr_assert(mm_new(r->plat, r->mf, &t->mm) == 0);
    mm_loaded(t->mm);
    cr_assert(plat_ctx_create(r->plat, mm_as(t->mm), &t->ctx) == 0);
    cr_assert_eq(task_map(t, CODE, P, RW, MAP_PRIVATE | MAP_ANONYMOUS), 0);
    struct uaccess ua = {t->mm, t->ctx};
    cr_assert_eq(copyout(&ua, uaddr(CODE), code, sizeof(code)), 0);
    cr_assert_eq(mm_mprotect(t->mm, t->ctx, uaddr(CODE), P, PROT_READ | PROT_EXEC, &no_limits), 0);
}

static void task_end(struct task *t)
{
    plat_ctx_destroy(t->ctx);
    mm_put(t->mm);
}

/* Runs one of the routines to its system call: 0 or the signal; the value read is in t->value. */
static int task_do(struct task *t, int what, uint64_t at, uint64_t value)
{
    struct plat_regs *regs = plat_ctx_regs(t->ctx);
    regs->rip = CODE + (uint64_t)what;
    regs->rdi = at;
    regs->rsi = value;
    for (int i = 0; i < 1000; i++) {
        struct plat_fault f, sig;
        enum plat_event ev = plat_ctx_run(t->ctx, false, &f);
        if (ev == PLAT_EVENT_SYSCALL) {
            t->value = regs->rsi;
            return 0;
        }
        if (ev == PLAT_EVENT_FAULT && mm_fault(t->mm, t->ctx, &f, &no_limits, &sig) != 0)
            return sig.signo;
        if (ev == PLAT_EVENT_DEAD)
            return -1;
    }
    return -2;
}

static void *task_thread(void *arg)
{
    struct task *t = arg;
    t->signo = task_do(t, t->what, t->at, t->value);
    return NULL;
}

static uint64_t task_read(struct task *t, uint64_t at)
{
    cr_assert_eq(task_do(t, DO_READ, at, 0), 0);
    return t->value;
}

Test(mm_ptrace, writes_are_seen_on_both_sides)
{
    struct rig r;
    struct task t;
    uint64_t v = 0;
    rig_start(&r);
    task_start(&r, &t);
    struct uaccess ua = {t.mm, t.ctx};
    cr_assert_eq(task_map(&t, DATA, 64 * P, RW, MAP_PRIVATE | MAP_ANONYMOUS), 0);
    cr_assert_eq(task_do(&t, DO_WRITE, DATA + 5 * P, 1234), 0);
    cr_assert_eq(copyin_obj(&ua, &v, uaddr(DATA + 5 * P)), 0);
    cr_assert_eq(v, 1234u);
    v = 77;
    cr_assert_eq(copyout_obj(&ua, uaddr(DATA + 9 * P), &v), 0);
    cr_assert_eq(task_read(&t, DATA + 9 * P), 77u);
    cr_assert_eq(task_do(&t, DO_WRITE, CODE, 1), SIGSEGV);
    cr_assert_eq(mm_munmap(t.mm, t.ctx, uaddr(DATA + 5 * P), P), 0);
    cr_assert_eq(task_do(&t, DO_READ, DATA + 5 * P, 0), SIGSEGV);
    cr_assert_eq(task_map(&t, DATA + 5 * P, P, RW, MAP_PRIVATE | MAP_ANONYMOUS), 0);
    cr_assert_eq(task_read(&t, DATA + 5 * P), 0u);
    task_end(&t);
    rig_end(&r);
}

Test(mm_ptrace, a_child_has_its_own_copy)
{
    struct rig r;
    struct task t;
    pthread_t thread;
    rig_start(&r);
    task_start(&r, &t);
    cr_assert_eq(task_map(&t, DATA, 64 * P, RW, MAP_PRIVATE | MAP_ANONYMOUS), 0);
    for (uint64_t i = 0; i < 10; i++) {
        cr_assert_eq(task_do(&t, DO_WRITE, DATA + i * P, i + 1), 0);
        struct task c = {.what = DO_WRITE, .at = DATA + i * P, .value = 500};
        cr_assert_eq(mm_fork(t.mm, t.ctx, &no_limits, &c.mm, &c.ctx), 0);
        cr_assert_eq(pthread_create(&thread, NULL, task_thread, &c), 0);
        cr_assert_eq(task_do(&t, DO_WRITE, DATA + i * P + 8, 9), 0);
        pthread_join(thread, NULL);
        cr_assert_eq(c.signo, 0);
        cr_assert_eq(task_read(&t, DATA + i * P), i + 1);
        struct uaccess ua = {c.mm, NULL};
        uint64_t v[2] = {0, 0};
        cr_assert_eq(copyin(&ua, v, uaddr(DATA + i * P), sizeof(v)), 0);
        cr_assert(v[0] == 500 && v[1] == 0);
        task_end(&c);
    }
    task_end(&t);
    rig_end(&r);
}

/* Memory that is replaced while guest code runs on it: the guest must not stay with the old. */
Test(mm_ptrace, a_running_guest_sees_the_page_that_replaced_its_own)
{
    struct rig r;
    struct task t, c = {.what = DO_SPIN, .at = DATA};
    pthread_t thread;
    rig_start(&r);
    task_start(&r, &t);
    cr_assert_eq(task_map(&t, DATA, 4 * P, RW, MAP_PRIVATE | MAP_ANONYMOUS), 0);
    cr_assert_eq(task_do(&t, DO_WRITE, DATA + 8, 1), 0);
    cr_assert_eq(mm_fork(t.mm, t.ctx, &no_limits, &c.mm, &c.ctx), 0);
    cr_assert_eq(pthread_create(&thread, NULL, task_thread, &c), 0);
    usleep(20000);
    struct uaccess ua = {c.mm, NULL};
    uint32_t one = 1;
    cr_assert_eq(copyout_obj(&ua, uaddr(DATA), &one), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(c.signo, 0);
    cr_assert_eq(task_read(&t, DATA), 0u);
    task_end(&c);
    task_end(&t);
    rig_end(&r);
}
