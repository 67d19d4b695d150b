/* Tasks that make, replace, stop, kill and wait for each other at random: nothing may hang, crash
 * or be left over when pid 1 ends. */
#include <asm/unistd.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syscalls/handlers.h"
#include "tests/unit/fakes/fakes.h"

#define NR_KILL 500u
#define NR_PAUSE_MS 503u
#define NR_LOOK 504u /* (pid): what /proc would read */

#define THREAD_FLAGS                                                                               \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
#define STACK (FAKE_MEM_START + 4096)
#define TASKS_MAX 60
#define STEPS 40

static int64_t do_kill(struct task *t, const uint64_t *a)
{
    if (a[0] == 1)
        return -EPERM;
    return kernel_kill(t->k, (int32_t)a[0], (int)a[1], false);
}

static int64_t do_pause_ms(struct task *t, const uint64_t *a)
{
    (void)t;
    usleep((useconds_t)a[0] * 1000);
    return 0;
}

static int64_t do_look(struct task *t, const uint64_t *a)
{
    struct task_info info;
    struct vpath p;
    struct task *o;

    if (kernel_find_task(t->k, (int32_t)a[0], true, &o))
        return -ESRCH;
    task_info(o, &info);
    struct mm *mm = task_get_mm(o);
    if (mm)
        mm_put(mm);
    struct fdtable *fdt = task_get_fdtable(o);
    fdtable_put(fdt, NULL);
    if (task_get_exe(o, &p) == 0)
        vpath_put(&p);
    if (task_get_path(o, 1, &p) == 0)
        vpath_put(&p);
    (void)task_next_tid(o, 0);
    task_put(o);
    return 0;
}

FAKE_THUNK(fork)
FAKE_THUNK(vfork)
FAKE_THUNK(setsid)
FAKE_THUNK(setpgid, (int)a[0], (int)a[1])
FAKE_THUNK(exit, (int)a[0])
FAKE_THUNK(exit_group, (int)a[0])
FAKE_THUNK(clone, a[0], a[1], uaddr(a[2]), uaddr(a[3]), a[4])
FAKE_THUNK(wait4, (int)a[0], uaddr(a[1]), (int)a[2], uaddr(a[3]))
FAKE_THUNK(getpriority, (int)a[0], (int)a[1])
FAKE_THUNK(getrusage, (int)a[0], uaddr(a[1]))
FAKE_THUNK(membarrier, (int)a[0], (unsigned)a[1], (int)a[2])

static int64_t do_execve(struct task *t, const uint64_t *a)
{
    const char name[3] = {'/', (char)('0' + a[0]), '\0'};

    if (copyout(&t->ua, uaddr(FAKE_MEM_START), name, sizeof(name)))
        return -EFAULT;
    return sys_execve(t, uaddr(FAKE_MEM_START), uaddr(0), uaddr(0));
}

#define ENTRY(nr) [__NR_##nr] = {.fn = do_##nr, .name = #nr, .err = -ENOSYS}
static const struct sys_entry entries[] = {
    ENTRY(fork),
    ENTRY(vfork),
    ENTRY(setsid),
    ENTRY(setpgid),
    ENTRY(exit),
    ENTRY(exit_group),
    ENTRY(clone),
    ENTRY(wait4),
    ENTRY(getpriority),
    ENTRY(getrusage),
    ENTRY(membarrier),
    ENTRY(execve),
    [NR_KILL] = {.fn = do_kill, .name = "kill"},
    [NR_PAUSE_MS] = {.fn = do_pause_ms, .name = "pause_ms"},
    [NR_LOOK] = {.fn = do_look, .name = "look"},
};
static const struct sys_table table = {.entries = entries, .count = ARRAY_SIZE(entries)};

static _Atomic int made;

static bool may_make(void)
{
    return atomic_fetch_add(&made, 1) < TASKS_MAX * 20;
}

static const int signals[] = {SIGSTOP, SIGCONT, SIGKILL, SIGTERM, SIGCONT, SIGUSR2, SIGSTOP};

/* One call at random; the registers hold nothing but the number of steps made. */
static void g_random(struct plat_regs *g)
{
    static const int calls[] = {
        __NR_fork,  __NR_fork,      __NR_vfork,      __NR_clone, __NR_clone,       __NR_execve,
        __NR_wait4, __NR_wait4,     NR_KILL,         NR_KILL,    __NR_setpgid,     __NR_setsid,
        NR_LOOK,    __NR_getrusage, __NR_membarrier, NR_LOOK,    __NR_getpriority, __NR_exit};
    const int nr = calls[fake_chance(ARRAY_SIZE(calls))];

    if (g->r12++ > STEPS || (nr == __NR_exit && fake_chance(3) == 0)) {
        fake_call(g, fake_chance(2) ? __NR_exit : __NR_exit_group,
                  (const uint64_t[6]){fake_chance(256)});
        return;
    }
    const uint64_t pid = 2 + fake_chance(TASKS_MAX * 2);
    switch (nr) {
    case __NR_fork:
    case __NR_vfork:
        fake_call(g, may_make() ? (uint64_t)nr : NR_LOOK, (const uint64_t[6]){pid});
        break;
    case __NR_clone:
        fake_call(
            g, may_make() ? __NR_clone : NR_LOOK,
            (const uint64_t[6]){fake_chance(4) ? THREAD_FLAGS : SIGCHLD | CLONE_PARENT, STACK});
        break;
    case __NR_execve:
        fake_call(g, __NR_execve, (const uint64_t[6]){1 + fake_chance(2)});
        break;
    case __NR_wait4:
        fake_call(g, __NR_wait4,
                  (const uint64_t[6]){(uint64_t)-1, 0, fake_chance(8) ? WNOHANG | WUNTRACED : 0});
        break;
    case NR_KILL:
        fake_call(g, NR_KILL, (const uint64_t[6]){pid, (uint64_t)signals[fake_chance(7)]});
        break;
    case __NR_setpgid:
        fake_call(g, __NR_setpgid, (const uint64_t[6]){fake_chance(2) ? 0 : pid, 0});
        break;
    case __NR_membarrier:
        fake_call(g, __NR_membarrier, (const uint64_t[6]){1});
        break;
    case __NR_getpriority:
        fake_call(g, __NR_getpriority, (const uint64_t[6]){2});
        break;
    case __NR_exit:
        fake_call(g, NR_LOOK, (const uint64_t[6]){1});
        break;
    default:
        fake_call(g, (uint64_t)nr, (const uint64_t[6]){pid, 0});
        break;
    }
}

static void g_storm_init(struct plat_regs *g)
{
    G_BEGIN
    for (g->r13 = 0; g->r13 < 300; g->r13++) {
        if (g->r13 % 3 == 0) {
            G_CALL(__NR_fork, 0);
            if (G_RET == 0)
                G_CALL(__NR_execve, 1);
        }
        G_CALL(__NR_wait4, (uint64_t)-1, 0, WNOHANG, 0);
        G_CALL(NR_KILL, 2 + fake_chance(TASKS_MAX), SIGCONT);
    }
    G_CALL(NR_PAUSE_MS, 20);
    G_CALL(__NR_exit_group, 17);
    G_END;
}

Test(kernel_storm, nothing_left, .timeout = 600)
{
    const char *s = getenv("STORM_SEED");

    atomic_store(&fake_seed, s ? strtoull(s, NULL, 0) : 20260101u);
    fake_programs[1] = g_random;
    fake_programs[2] = g_random;
    cr_assert_eq(fake_run_init(&table, g_storm_init), 17 << 8);
}
