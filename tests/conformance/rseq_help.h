/* What the conformance programs of rseq(2) share: the structure, critical sections, CPUs.
 * Depends on: harness.h.
 * Threading: a thread passes its own area only, to the call as to the sections.
 * Ownership: an area stays registered till its thread ends, or says otherwise. */
#ifndef CONFORMANCE_RSEQ_HELP_H
#define CONFORMANCE_RSEQ_HELP_H

#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/rseq.h>

#define RSEQ_HELP __attribute__((unused)) static

/* As the kernel has it today; libc's may end earlier. */
struct rseq_area {
    volatile uint32_t cpu_id_start, cpu_id;
    volatile uint64_t cs;
    volatile uint32_t flags, node_id, mm_cid, end;
} __attribute__((aligned(32)));

_Static_assert(sizeof(struct rseq_area) == 32 && offsetof(struct rseq_area, mm_cid) == 24,
               "the kernel's layout");

#define RSEQ_SIZE ((unsigned)sizeof(struct rseq_area))
#define NO_CPU ((uint32_t)RSEQ_CPU_ID_UNINITIALIZED)

RSEQ_HELP int rseq_call(const volatile void *area, unsigned len, unsigned flags, unsigned sig)
{
    return (int)syscall(SYS_rseq, area, len, flags, sig);
}

/* The area that libc registers for each thread. */
RSEQ_HELP struct rseq_area *rseq_libc(void)
{
    return (struct rseq_area *)(void *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

/* That area, which must be registered and must be what sections go by. */
RSEQ_HELP struct rseq_area *rseq_libc_ready(void)
{
    CHECK(__rseq_size != 0);
    CHECK(rseq_libc()->cpu_id != NO_CPU);
    CHECK((int)rseq_libc()->cpu_id >= 0);
    return rseq_libc();
}

/* Libc passes 32, or what the auxiliary vector asks for when that is more. */
RSEQ_HELP unsigned rseq_libc_size(void)
{
    const unsigned long size = getauxval(AT_RSEQ_FEATURE_SIZE);
    const unsigned long align = getauxval(AT_RSEQ_ALIGN);

    return size <= RSEQ_SIZE || align == 0 ? RSEQ_SIZE
                                           : (unsigned)((size + align - 1) / align * align);
}

/* The calling thread has no area from here on. */
RSEQ_HELP void rseq_leave_libc(void)
{
    OK(rseq_call(rseq_libc_ready(), rseq_libc_size(), RSEQ_FLAG_UNREGISTER, RSEQ_SIG));
}

/* The calling thread has this area from here on, in place of libc's. */
RSEQ_HELP struct rseq_area *rseq_take(struct rseq_area *area)
{
    rseq_leave_libc();
    OK(rseq_call(area, RSEQ_SIZE, 0, RSEQ_SIG));
    CHECK(area->cpu_id == area->cpu_id_start);
    return area;
}

/* Where the descriptors are, by convention; a program may have them anywhere. */
#ifndef RSEQ_DESCRIPTORS
#define RSEQ_DESCRIPTORS "__rseq_cs"
#endif

/* ---- sections ----
 * NAME is an assembly function whose first argument is the area; NAME_cs describes its section.
 * What ends the section comes as `inside`'s last instruction; `after` says what a commit returns,
 * `aborted` what an abort does. All may use the registers that a call may change. */
#define RSEQ_TEXT(name, enter, inside, after, aborted)                                             \
    extern const struct rseq_cs name##_cs;                                                         \
    __asm__(".pushsection .text\n"                                                                 \
            ".globl " #name "\n"                                                                   \
            ".type " #name ", @function\n" #name ":\n" enter #name "_start:\n" inside "\n" #name   \
            "_commit:\n" after "\nret\n" /* ud1 $signature(%rip), %edi */                          \
            ".byte 0x0f, 0xb9, 0x3d\n.long 0x53053053\n" #name "_abort:\n" aborted "\nret\n"       \
            ".size " #name ", . - " #name "\n"                                                     \
            ".popsection\n"                                                                        \
            ".pushsection " RSEQ_DESCRIPTORS ", \"a\"\n"                                           \
            ".balign 32\n"                                                                         \
            ".globl " #name "_cs\n" #name "_cs:\n"                                                 \
            ".long 0, 0\n"                                                                         \
            ".quad " #name "_start, " #name "_commit - " #name "_start, " #name "_abort\n"         \
            ".popsection\n")

#define RSEQ_FUNCTION(name, before, inside, after, aborted)                                        \
    RSEQ_TEXT(name, before "\nleaq " #name "_cs(%rip), %rax\nmovq %rax, 8(%rdi)\n", inside, after, \
              aborted)

#define RETURN_1 "movl $1, %eax"
#define RETURN_0 "xorl %eax, %eax"

#define SLOT_SIZE 64

/* A counter per CPU, each on a cache line of its own. */
struct rseq_slot {
    volatile uint64_t count;
} __attribute__((aligned(SLOT_SIZE)));

/* Adds one to this CPU's counter, with delay turns of a loop between load and store. 1 when that
 * was done, 0 when nothing was. */
int rseq_add(struct rseq_area *area, struct rseq_slot *slots, uint64_t delay);
RSEQ_FUNCTION(rseq_add, "movl (%rdi), %ecx",
              "cmpl %ecx, 4(%rdi)\n"
              "jne rseq_add_abort\n"
              "shlq $6, %rcx\n"
              "movq (%rsi, %rcx), %rax\n"
              "rseq_add_wait: subq $1, %rdx\n"
              "jnc rseq_add_wait\n"
              "addq $1, %rax\n"
              "movq %rax, (%rsi, %rcx)",
              RETURN_1, RETURN_0);

/* Sets *inside and stays in the section till *stop is set, 1, or till it is aborted, 0. */
int rseq_spin(struct rseq_area *area, volatile int *inside, const volatile int *stop);
RSEQ_FUNCTION(rseq_spin, "",
              "movl $1, (%rsi)\n"
              "rseq_spin_on: cmpl $0, (%rdx)\n"
              "je rseq_spin_on",
              RETURN_1, RETURN_0);

/* A system call inside a section that cs describes, which is rseq_in_call_cs or a copy. Its value,
 * or IN_CALL_ABORTED. */
#define IN_CALL_ABORTED (-5000)
long rseq_in_call(struct rseq_area *area, const struct rseq_cs *cs, long nr, long a0, long a1,
                  long a2);
RSEQ_TEXT(rseq_in_call, "movq %rsi, 8(%rdi)\n",
          "movq %rdx, %rax\n"
          "movq %rcx, %rdi\n"
          "movq %r8, %rsi\n"
          "movq %r9, %rdx\n"
          "syscall\n"
          "nop",
          "", "movq $-5000, %rax");

RSEQ_HELP bool rseq_within(const struct rseq_cs *cs, uint64_t ip)
{
    return ip - cs->start_ip < cs->post_commit_offset;
}

/* ---- CPUs and threads ---- */

#define MAX_CPUS 1024

struct cpu_list {
    int count;
    uint16_t cpu[MAX_CPUS];
};

/* Those that the caller may run on. */
RSEQ_HELP struct cpu_list cpus_allowed(void)
{
    struct cpu_list list = {0};
    cpu_set_t set;

    OK(sched_getaffinity(0, sizeof(set), &set));
    for (size_t i = 0; i < CPU_SETSIZE && i < MAX_CPUS; i++)
        if (CPU_ISSET(i, &set))
            list.cpu[list.count++] = (uint16_t)i;
    CHECK(list.count > 0);
    return list;
}

/* Thread tid, or the caller when that is 0, runs on this CPU only. */
RSEQ_HELP void pin_to(pid_t tid, int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    OK(sched_setaffinity(tid, sizeof(set), &set));
}

RSEQ_HELP pthread_t start_thread(void *(*run)(void *), void *arg)
{
    pthread_t t;

    CHECK_EQ(pthread_create(&t, NULL, run, arg), 0);
    return t;
}

RSEQ_HELP int load_int(const volatile int *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

RSEQ_HELP void store_int(volatile int *word, int value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

/* Somebody who stays in a section: each abort is counted, and the section entered again. */
struct spinner {
    struct rseq_area *area;
    volatile int tid, inside, stop, aborts;
};

RSEQ_HELP void spin_on(struct spinner *s, struct rseq_area *area)
{
    s->area = area;
    store_int(&s->tid, (int)syscall(SYS_gettid));
    while (!load_int(&s->stop)) {
        if (rseq_spin(area, &s->inside, &s->stop))
            break;
        store_int(&s->inside, 0);
        __atomic_add_fetch(&s->aborts, 1, __ATOMIC_SEQ_CST);
    }
}

RSEQ_HELP void *spinner_thread(void *arg)
{
    spin_on(arg, rseq_libc_ready());
    return NULL;
}

RSEQ_HELP void stop_spinner(struct spinner *s, pthread_t t)
{
    store_int(&s->stop, 1);
    CHECK_EQ(pthread_join(t, NULL), 0);
}

/* Says how many aborts there were before, while it is in a section: what aborts that one comes on
 * top. */
RSEQ_HELP int await_inside(struct spinner *s)
{
    const int before = load_int(&s->aborts);

    conf_await(&s->inside, 1);
    return before;
}

#endif
