/* rseq(2): what aborts a critical section from outside: preemption, moves, stops, membarrier(2). */
#include "rseq_help.h"

#include "ptrace_util.h"

#include <linux/membarrier.h>
#include <stdio.h>
#include <sys/mman.h>

CONF_FAMILY("rseqabort");

static struct rseq_area own;

/* ---- preemption, moves, stops ---- */

/* Marks the CPU's slot as its own, and stays till somebody else's mark is there, -1, till *stop is
 * set, 1, or till it is aborted, 0. */
int rseq_hold(struct rseq_area *area, struct rseq_slot *slots, uint64_t mark,
              const volatile int *stop);
RSEQ_FUNCTION(rseq_hold, "",
              "movl 4(%rdi), %eax\n"
              "shlq $6, %rax\n"
              "addq %rsi, %rax\n"
              "movq %rdx, (%rax)\n"
              "rseq_hold_on: cmpq %rdx, (%rax)\n"
              "jne rseq_hold_lost\n"
              "cmpl $0, (%rcx)\n"
              "je rseq_hold_on",
              RETURN_1 "\nret\nrseq_hold_lost: movl $-1, %eax", RETURN_0);

struct holder {
    struct rseq_slot *slots;
    volatile int *stop;
    uint64_t mark;
    int cpu;
    volatile int aborts;
};

static void *hold(void *arg)
{
    struct holder *h = arg;
    struct rseq_area *area = rseq_libc_ready();
    int r;

    if (h->cpu >= 0)
        pin_to(0, h->cpu);
    while ((r = rseq_hold(area, h->slots, h->mark, h->stop)) != 1) {
        CHECK_EQ(r, 0);
        __atomic_add_fetch(&h->aborts, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

enum { MAX_HOLDERS = 64 };

static void hold_all(int count, int cpu)
{
    static struct rseq_slot slots[MAX_CPUS];
    static struct holder h[MAX_HOLDERS];
    pthread_t t[MAX_HOLDERS];
    volatile int stop = 0;

    if (count > MAX_HOLDERS)
        count = MAX_HOLDERS;
    for (int i = 0; i < count; i++) {
        h[i] = (struct holder){.slots = slots, .stop = &stop, .mark = (uint64_t)i + 1, .cpu = cpu};
        t[i] = start_thread(hold, &h[i]);
    }
    for (int i = 0; i < count; i++)
        EVENTUALLY(load_int(&h[i].aborts) >= 3);
    store_int(&stop, 1);
    for (int i = 0; i < count; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
}

TEST(preempted_on_one_cpu)
{
    const struct cpu_list list = cpus_allowed();

    hold_all(2, list.cpu[0]);
    hold_all(list.count + 2, list.cpu[list.count - 1]);
}

TEST(never_two_on_a_cpu)
{
    hold_all(2 * cpus_allowed().count + 2, -1);
}

TEST(moved)
{
    static struct spinner s;
    const struct cpu_list list = cpus_allowed();
    pthread_t t = start_thread(spinner_thread, &s);
    int last = -1;

    EVENTUALLY(load_int(&s.tid) != 0);
    for (int i = 0; i < 10 * list.count; i++) {
        const int cpu = list.cpu[i % list.count];
        const int before = await_inside(&s);
        pin_to(s.tid, cpu);
        if (last >= 0 && last != cpu)
            EVENTUALLY(load_int(&s.aborts) > before);
        EVENTUALLY(s.area->cpu_id == (uint32_t)cpu);
        last = cpu;
    }
    stop_spinner(&s, t);
}

static pid_t spinning_child(struct spinner *s)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        spin_on(s, rseq_take(&own));
        _exit(0);
    }
    return pid;
}

TEST(stopped)
{
    struct spinner *s = conf_shared(sizeof(*s));
    pid_t pid = spinning_child(s);

    for (int i = 0; i < 10; i++) {
        const int before = await_inside(s);
        OK(kill(pid, SIGSTOP));
        EVENTUALLY(conf_state(pid) == 'T');
        OK(kill(pid, SIGCONT));
        EVENTUALLY(load_int(&s->aborts) > before);
    }
    store_int(&s->stop, 1);
    CHECK_EXIT(pid, 0);
}

/* Stops the thread of s for its tracer; whether it is inside the section. */
static bool stop_inside(pid_t pid, struct spinner *s)
{
    struct user_regs_struct regs;

    await_inside(s);
    OK(pt(PTRACE_INTERRUPT, pid, 0, 0));
    wait_stop(pid);
    get_regs(pid, &regs);
    return rseq_within(&rseq_spin_cs, regs.rip);
}

/* A tracer sees where the thread is, and the pointer: the abort comes as it goes on. */
TEST(traced)
{
    struct spinner *s = conf_shared(sizeof(*s));
    pid_t pid = spinning_child(s);

    OK(pt(PTRACE_SEIZE, pid, 0, 0));
    for (int i = 0; i < 10;) {
        const bool within = stop_inside(pid, s);
        const int before = load_int(&s->aborts);
        if (within)
            CHECK_EQ(peek(pid, &own.cs), (uintptr_t)&rseq_spin_cs);
        OK(pt(PTRACE_CONT, pid, 0, 0));
        if (within)
            EVENTUALLY(load_int(&s->aborts) > before);
        i += within;
    }
    store_int(&s->stop, 1);
    CHECK_EXIT(pid, 0);
}

/* Nobody can be stepped through a section. */
TEST(stepped)
{
    struct spinner *s = conf_shared(sizeof(*s));
    pid_t pid = spinning_child(s);
    struct user_regs_struct regs;

    OK(pt(PTRACE_SEIZE, pid, 0, 0));
    for (int within = 0; within < 10;) {
        if (stop_inside(pid, s)) {
            within++;
            OK(pt(PTRACE_SINGLESTEP, pid, 0, 0));
            CHECK_EQ(wait_stop(pid), SIGTRAP);
            get_regs(pid, &regs);
            CHECK(!rseq_within(&rseq_spin_cs, regs.rip));
            CHECK_EQ(peek(pid, &own.cs), 0);
        }
        OK(pt(PTRACE_CONT, pid, 0, 0));
    }
    store_int(&s->stop, 1);
    CHECK_EXIT(pid, 0);
}

/* ---- membarrier ---- */

static long barrier(int cmd, unsigned flags, int cpu)
{
    return syscall(SYS_membarrier, cmd, flags, cpu);
}

#define RSEQ_BARRIER MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ
#define RSEQ_REGISTER MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ
#define FLAG_CPU 1U /* MEMBARRIER_CMD_FLAG_CPU */

TEST(membarrier_arguments)
{
    const long have = OK(barrier(MEMBARRIER_CMD_QUERY, 0, 0));

    CHECK_EQ(have & (RSEQ_BARRIER | RSEQ_REGISTER), RSEQ_BARRIER | RSEQ_REGISTER);
    CHECK_ERRNO(barrier(RSEQ_BARRIER, 0, 0), EPERM);
    CHECK_ERRNO(barrier(RSEQ_BARRIER, FLAG_CPU, 0), EPERM);
    CHECK_ERRNO(barrier(RSEQ_BARRIER, 2, 0), EINVAL);
    CHECK_ERRNO(barrier(RSEQ_REGISTER, FLAG_CPU, 0), EINVAL);
    OK(barrier(RSEQ_REGISTER, 0, 0));
    OK(barrier(RSEQ_REGISTER, 0, 0));
    CHECK_ERRNO(barrier(RSEQ_BARRIER, 2, 0), EINVAL);
    CHECK_ERRNO(barrier(RSEQ_BARRIER, FLAG_CPU | 2, 0), EINVAL);
    CHECK_ERRNO(barrier(MEMBARRIER_CMD_QUERY, FLAG_CPU, 0), EINVAL);
    OK(barrier(RSEQ_BARRIER, 0, 0));
    OK(barrier(RSEQ_BARRIER, 0, 1 << 20));
    /* A CPU that is not there has nothing to abort. */
    OK(barrier(RSEQ_BARRIER, FLAG_CPU, 0));
    OK(barrier(RSEQ_BARRIER, FLAG_CPU, -1));
    OK(barrier(RSEQ_BARRIER, FLAG_CPU, 1 << 20));
    /* Other kinds are registered by themselves. */
    CHECK_ERRNO(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), EPERM);
    CHECK_ERRNO(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED, FLAG_CPU, 0), EINVAL);
}

static void *barrier_thread(void *arg)
{
    (void)arg;
    OK(barrier(RSEQ_BARRIER, 0, 0));
    return NULL;
}

HELPER(no_barrier)
{
    (void)argc;
    (void)argv;
    CHECK_ERRNO(barrier(RSEQ_BARRIER, 0, 0), EPERM);
    return 0;
}

TEST(membarrier_is_the_process_s)
{
    OK(barrier(RSEQ_REGISTER, 0, 0));
    CHECK_EQ(pthread_join(start_thread(barrier_thread, NULL), NULL), 0);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(barrier(RSEQ_BARRIER, 0, 0));
        conf_exec_helper("no_barrier", NULL);
    }
    CHECK_EXIT(pid, 0);
}

static void check_barrier(unsigned flags)
{
    static struct spinner s;
    const struct cpu_list list = cpus_allowed();
    pthread_t t = start_thread(spinner_thread, &s);

    OK(barrier(RSEQ_REGISTER, 0, 0));
    EVENTUALLY(load_int(&s.tid) != 0);
    for (int i = 0; i < 10 * list.count; i++) {
        const int cpu = list.cpu[i % list.count];
        if (flags != 0) {
            pin_to(s.tid, cpu);
            EVENTUALLY(s.area->cpu_id == (uint32_t)cpu);
        }
        const int before = await_inside(&s);
        OK(barrier(RSEQ_BARRIER, flags, cpu));
        EVENTUALLY(load_int(&s.aborts) > before);
    }
    stop_spinner(&s, t);
}

TEST(membarrier_aborts)
{
    check_barrier(0);
}

TEST(membarrier_aborts_on_a_cpu)
{
    check_barrier(FLAG_CPU);
}

/* Adds one to slots[*which], with delay turns of a loop in between. */
int rseq_add_to(struct rseq_area *area, struct rseq_slot *slots, const volatile uint64_t *which,
                uint64_t delay);
RSEQ_FUNCTION(rseq_add_to, "",
              "movq (%rdx), %rax\n"
              "shlq $6, %rax\n"
              "addq %rax, %rsi\n"
              "movq (%rsi), %rax\n"
              "rseq_add_to_wait: subq $1, %rcx\n"
              "jnc rseq_add_to_wait\n"
              "addq $1, %rax\n"
              "movq %rax, (%rsi)",
              RETURN_1, RETURN_0);

struct switcher {
    struct rseq_slot slots[2];
    volatile uint64_t which;
    volatile int stop;
};

static void *add_to_active(void *arg)
{
    struct switcher *w = arg;
    struct rseq_area *area = rseq_libc_ready();

    while (!load_int(&w->stop))
        rseq_add_to(area, w->slots, &w->which, 3000);
    return NULL;
}

/* Once the barrier is through, nobody uses what was taken away before. */
TEST(membarrier_takes_away)
{
    static struct switcher w;
    pthread_t t = start_thread(add_to_active, &w);

    OK(barrier(RSEQ_REGISTER, 0, 0));
    for (int i = 0; i < 50; i++) {
        const uint64_t old = w.which, next = 1 - old;
        const uint64_t next_count = w.slots[next].count;
        __atomic_store_n(&w.which, next, __ATOMIC_SEQ_CST);
        OK(barrier(RSEQ_BARRIER, 0, 0));
        const uint64_t old_count = w.slots[old].count;
        EVENTUALLY(w.slots[next].count > next_count);
        CHECK_EQ(w.slots[old].count, old_count);
    }
    store_int(&w.stop, 1);
    CHECK_EQ(pthread_join(t, NULL), 0);
}

/* ---- what an abort leaves alone ---- */

struct registers {
    uint64_t gpr[16]; /* rax rbx rcx rdx rsi rdi rbp - r8 to r15 */
    uint64_t flags;
    uint64_t xmm[16][2];
};

#define ARITHMETIC_FLAGS 0xcd5U /* and DF */

/* Loads all registers from in, with the area in rdi, stays in the section till it is aborted, and
 * stores what they are then. */
int rseq_registers(struct rseq_area *area, const struct registers *in, struct registers *out);
RSEQ_TEXT(rseq_registers,
          "pushq %rbx\npushq %rbp\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
          "pushq %rdx\n"
          "pushq 128(%rsi)\npopfq\n"
          ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
          "movups 136+16*\\n(%rsi), %xmm\\n\n"
          ".endr\n"
          ".irp n,8,9,10,11,12,13,14,15\n"
          "movq 8*\\n(%rsi), %r\\n\n"
          ".endr\n"
          "movq (%rsi), %rax\nmovq 8(%rsi), %rbx\nmovq 16(%rsi), %rcx\nmovq 24(%rsi), %rdx\n"
          "movq 48(%rsi), %rbp\nmovq 32(%rsi), %rsi\n"
          "movq $rseq_registers_cs, 8(%rdi)\n",
          "rseq_registers_on: jmp rseq_registers_on", "",
          "pushq %rax\nmovq 8(%rsp), %rax\n"
          "movq %rbx, 8(%rax)\nmovq %rcx, 16(%rax)\nmovq %rdx, 24(%rax)\nmovq %rsi, 32(%rax)\n"
          "movq %rdi, 40(%rax)\nmovq %rbp, 48(%rax)\n"
          "popq (%rax)\n"
          "pushfq\npopq 128(%rax)\ncld\n"
          ".irp n,8,9,10,11,12,13,14,15\n"
          "movq %r\\n, 8*\\n(%rax)\n"
          ".endr\n"
          ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
          "movups %xmm\\n, 136+16*\\n(%rax)\n"
          ".endr\n"
          "addq $8, %rsp\n"
          "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbp\npopq %rbx");

struct keeper {
    volatile int tid, rounds, stop;
    int cpu;
};

static void check_registers(struct rseq_area *area, uint64_t seed)
{
    struct registers in, out = {0};
    uint64_t *words = (uint64_t *)&in;

    for (size_t i = 0; i < sizeof(in) / sizeof(*words); i++)
        words[i] = seed = seed * 6364136223846793005U + 1442695040888963407U;
    in.flags = (in.flags & ARITHMETIC_FLAGS) | 2;
    in.gpr[5] = (uintptr_t)area;
    in.gpr[7] = 0;
    rseq_registers(area, &in, &out);
    for (int i = 0; i < 16; i++)
        CHECK_EQ(out.gpr[i], in.gpr[i]);
    CHECK_EQ(out.flags & ARITHMETIC_FLAGS, in.flags & ARITHMETIC_FLAGS);
    CHECK(memcmp(in.xmm, out.xmm, sizeof(in.xmm)) == 0);
    CHECK_EQ(area->cs, 0);
}

static void *keep_registers(void *arg)
{
    struct keeper *k = arg;
    struct rseq_area *area = rseq_libc_ready();

    if (k->cpu >= 0)
        pin_to(0, k->cpu);
    store_int(&k->tid, (int)syscall(SYS_gettid));
    while (!load_int(&k->stop)) {
        check_registers(area, (uint64_t)load_int(&k->rounds));
        __atomic_add_fetch(&k->rounds, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

static void nothing(int sig)
{
    (void)sig;
}

/* Two threads that nothing but an abort lets out of their sections; interfere brings one about. */
static void check_keepers(int cpu, void (*interfere)(int tid, int turn))
{
    static struct keeper k[2];
    pthread_t t[2];

    conf_handler(SIGUSR1, nothing, 0);
    for (int i = 0; i < 2; i++) {
        k[i] = (struct keeper){.cpu = cpu};
        t[i] = start_thread(keep_registers, &k[i]);
    }
    for (int i = 0; i < 2; i++) {
        EVENTUALLY(load_int(&k[i].tid) != 0);
        for (int turn = 0; load_int(&k[i].rounds) < 20; turn++) {
            interfere(k[i].tid, turn);
            conf_sleep_ms(1);
        }
    }
    for (int i = 0; i < 2; i++) {
        store_int(&k[i].stop, 1);
        while (pthread_tryjoin_np(t[i], NULL) != 0) {
            CHECK_EQ(pthread_kill(t[i], SIGUSR1), 0);
            conf_sleep_ms(1);
        }
    }
}

static void send_signal(int tid, int turn)
{
    (void)turn;
    OK(syscall(SYS_tgkill, getpid(), tid, SIGUSR1));
}

static void move(int tid, int turn)
{
    const struct cpu_list list = cpus_allowed();

    /* With a single CPU there is nowhere to go: the other thread's turns are what comes. */
    pin_to(tid, list.cpu[turn % list.count]);
}

static void leave_alone(int tid, int turn)
{
    (void)tid;
    (void)turn;
}

static void send_barrier(int tid, int turn)
{
    (void)tid;
    (void)turn;
    OK(barrier(RSEQ_BARRIER, 0, 0));
}

TEST(registers_after_signal)
{
    check_keepers(-1, send_signal);
}

TEST(registers_after_move)
{
    check_keepers(-1, move);
}

TEST(registers_after_preemption)
{
    check_keepers(cpus_allowed().cpu[0], leave_alone);
}

TEST(registers_after_membarrier)
{
    OK(barrier(RSEQ_REGISTER, 0, 0));
    check_keepers(-1, send_barrier);
}
