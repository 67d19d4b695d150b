/* Stubs that end from outside, and what is left when things end in other orders. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "tests/unit/plat_rig.h"

GUEST(code_spin, "1:  jmp 1b\n");
GUEST(code_call, "1:  mov $5, %eax\n    syscall\n    jmp 1b\n");

static void *kill_later(void *arg)
{
    const struct timespec ts = {0, 20 * 1000 * 1000};

    nanosleep(&ts, NULL);
    kill(*(pid_t *)arg, SIGKILL);
    return NULL;
}

Test(plat_death, a_killed_stub_is_told)
{
    struct rig r;
    struct plat_fault f;
    pthread_t t;

    RIG_START(&r, code_spin);
    pid_t pid = rig_pid(r.as);
    cr_assert_eq(pthread_create(&t, NULL, kill_later, &pid), 0);
    cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_DEAD);
    pthread_join(t, NULL);
    cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_DEAD);
    plat_ctx_interrupt(r.ctx);
    char buf[64];
    cr_assert_eq(plat_ctx_xstate_get(r.ctx, buf, sizeof(buf)), -ESRCH);
    cr_assert_eq(plat_as_unmap(r.as, (uaddr_t){DATA}, PAGE_SIZE), 0);
    cr_assert_eq(plat_as_commit(r.as, r.ctx), -ESRCH);
    rig_end(&r);
}

/* Killed while the sentry works for it: every next operation, whichever comes first. */
Test(plat_death, a_stub_killed_while_stopped)
{
    for (int what = 0; what < 5; what++) {
        struct rig r;
        struct plat_fault f;
        struct plat_as *as = NULL;
        struct plat_ctx *child;

        RIG_START(&r, code_call);
        cr_assert_eq(rig_call(r.ctx), 5);
        kill(rig_pid(r.as), SIGKILL);
        usleep(2000);
        switch (what) {
        case 0:
            cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_DEAD);
            break;
        case 1:
            cr_assert_eq(plat_as_unmap(r.as, (uaddr_t){DATA}, PAGE_SIZE), 0);
            cr_assert_eq(plat_as_commit(r.as, r.ctx), -ESRCH);
            break;
        case 2:
            cr_assert(plat_ctx_fork(r.ctx, &as, &child) < 0);
            break;
        case 3:
            cr_assert(plat_ctx_fork(r.ctx, NULL, &child) < 0);
            break;
        default:
            break;
        }
        if (what != 4)
            cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_DEAD);
        rig_end(&r);
    }
}

/* One address space ends; another, and a new one, do not notice. */
Test(plat_death, others_go_on)
{
    struct rig r;
    struct plat_fault f;
    struct plat_as *as;
    struct plat_ctx *child;

    RIG_START(&r, code_call);
    cr_assert_eq(rig_call(r.ctx), 5);
    cr_assert_eq(plat_ctx_fork(r.ctx, &as, &child), 0);
    kill(rig_pid(r.as), SIGKILL);
    cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_DEAD);
    cr_assert_eq(rig_call(child), 5);
    /* The dead one gets a fresh address space, as after execve. */
    struct plat_as *fresh;
    cr_assert_eq(plat_as_create(r.plat, &fresh), 0);
    cr_assert_eq(plat_ctx_rebind(r.ctx, fresh), 0);
    plat_as_put(r.as);
    r.as = fresh;
    rig_map_code(&r, fresh);
    plat_ctx_regs(r.ctx)->rip = CODE;
    cr_assert_eq(rig_call(r.ctx), 5);
    plat_ctx_destroy(child);
    plat_as_put(as);
    rig_end(&r);
}

struct runner {
    struct plat_ctx *ctx;
    enum plat_event event;
    _Atomic bool wake;
};

static void *runner_main(void *arg)
{
    struct runner *t = arg;
    struct plat_fault f;

    do
        t->event = plat_ctx_run(t->ctx, false, &f);
    while (t->event == PLAT_EVENT_INTERRUPT);
    plat_ctx_destroy(t->ctx);
    return NULL;
}

/* All threads of a killed process find out, those in the guest as those that come later. */
Test(plat_death, every_thread_of_a_process)
{
    enum { N = 20 };
    struct rig r;
    struct plat_fault f;
    struct runner t[N];
    pthread_t th[N];

    RIG_START(&r, code_spin);
    plat_ctx_interrupt(r.ctx);
    cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_INTERRUPT);
    for (int i = 0; i < N; i++) {
        cr_assert_eq(plat_ctx_fork(r.ctx, NULL, &t[i].ctx), 0);
        if (i % 2 == 0)
            cr_assert_eq(pthread_create(&th[i], NULL, runner_main, &t[i]), 0);
    }
    usleep(20000);
    kill(rig_pid(r.as), SIGKILL);
    for (int i = 1; i < N; i += 2)
        cr_assert_eq(pthread_create(&th[i], NULL, runner_main, &t[i]), 0);
    for (int i = 0; i < N; i++) {
        pthread_join(th[i], NULL);
        cr_assert_eq(t[i].event, PLAT_EVENT_DEAD);
    }
    cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_DEAD);
    rig_end(&r);
}

/* As a task that sleeps in a system call of its guest. */
static void *sleeper_main(void *arg)
{
    struct runner *t = arg;
    struct plat_fault f;

    plat_ctx_interrupt(t->ctx);
    (void)!plat_ctx_run(t->ctx, false, &f);
    while (!atomic_load(&t->wake))
        usleep(1000);
    t->event = plat_ctx_run(t->ctx, false, &f);
    plat_ctx_destroy(t->ctx);
    return NULL;
}

/* The end of a process shows at its first thread only when the others have been waited for. */
Test(plat_death, the_leader_is_told_while_others_sleep, .timeout = 120)
{
    struct rig r;
    struct plat_fault f;
    struct runner s[2] = {0};
    pthread_t t, th[2];

    RIG_START(&r, code_spin);
    plat_ctx_interrupt(r.ctx);
    cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_INTERRUPT);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(plat_ctx_fork(r.ctx, NULL, &s[i].ctx), 0);
        cr_assert_eq(pthread_create(&th[i], NULL, sleeper_main, &s[i]), 0);
    }
    pid_t pid = rig_pid(r.as);
    cr_assert_eq(pthread_create(&t, NULL, kill_later, &pid), 0);
    cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_DEAD);
    pthread_join(t, NULL);
    for (int i = 0; i < 2; i++) {
        atomic_store(&s[i].wake, true);
        pthread_join(th[i], NULL);
        cr_assert_eq(s[i].event, PLAT_EVENT_DEAD);
    }
    rig_end(&r);
}

static NORETURN void sentry_main(int out)
{
    struct rig r;
    struct plat_as *as;
    struct plat_ctx *child;

    RIG_START(&r, code_call);
    (void)rig_call(r.ctx);
    if (plat_ctx_fork(r.ctx, &as, &child) != 0)
        _exit(1);
    const pid_t pids[3] = {rig_template_pid(r.plat), rig_pid(r.as), rig_pid(as)};
    if (write(out, pids, sizeof(pids)) != sizeof(pids))
        _exit(1);
    for (;;)
        pause();
}

static bool is_gone(pid_t pid)
{
    for (int i = 0; i < 500; i++) {
        if (kill(pid, 0) != 0)
            return true;
        usleep(10000);
    }
    return false;
}

/* Traced or not, never run or stopped: no stub is left behind. */
Test(plat_death, stubs_end_with_the_sentry)
{
    int fds[2];
    pid_t pids[3];

    /* Orphans come to us, to be seen to have ended. */
    cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    cr_assert_eq(pipe(fds), 0);
    pid_t sentry = fork();
    if (sentry == 0)
        sentry_main(fds[1]);
    cr_assert_eq(read(fds[0], pids, sizeof(pids)), (ssize_t)sizeof(pids));
    for (int i = 0; i < 3; i++)
        cr_assert_eq(kill(pids[i], 0), 0);
    usleep(20000);
    kill(sentry, SIGKILL);
    cr_assert_eq(waitpid(sentry, NULL, 0), sentry);
    for (int i = 0; i < 3; i++) {
        (void)waitpid(pids[i], NULL, __WALL);
        cr_assert(is_gone(pids[i]), "stub %d of 3", i);
    }
}
