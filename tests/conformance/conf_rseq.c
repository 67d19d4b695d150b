/* rseq(2): who has which area registered, and what the kernel writes there. Sections are rseqcs's.
 */
#include "rseq_help.h"

#include "ptrace_util.h"

#include <linux/sched.h>
#include <stdio.h>
#include <sys/mman.h>

CONF_FAMILY("rseq");

#define OTHER_SIG 0x11223344U
#define KERNEL_ADDRESS ((void *)UINT64_C(0xffff800000000000))
#define ORIG_SIZE 32U

/* Twice as long as what is written to. */
static struct {
    struct rseq_area a, more;
} own, other;

static int attach(struct rseq_area *area)
{
    return rseq_call(area, RSEQ_SIZE, 0, RSEQ_SIG);
}

static int detach(struct rseq_area *area)
{
    return rseq_call(area, RSEQ_SIZE, RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
}

/* ---- registration ---- */

TEST(auxiliary_vector)
{
    const unsigned long size = getauxval(AT_RSEQ_FEATURE_SIZE), align = getauxval(AT_RSEQ_ALIGN);

    CHECK(size >= offsetof(struct rseq_area, end));
    CHECK(align >= ORIG_SIZE && (align & (align - 1)) == 0);
    CHECK(align >= size || size > ORIG_SIZE);
}

static void *check_libc_area(void *main_area)
{
    struct rseq_area *area = rseq_libc_ready();

    CHECK(area != main_area);
    CHECK_ERRNO(rseq_call(area, rseq_libc_size(), 0, RSEQ_SIG), EBUSY);
    CHECK_ERRNO(attach(&own.a), EINVAL);
    return NULL;
}

TEST(libc_registers_every_thread)
{
    check_libc_area(NULL);
    CHECK_EQ(pthread_join(start_thread(check_libc_area, rseq_libc()), NULL), 0);
}

TEST(register_fills_in)
{
    rseq_leave_libc();
    memset(&own, 0x5a, sizeof(own));
    own.a.flags = 0;
    OK(attach(&own.a));
    CHECK_EQ(own.a.cpu_id, own.a.cpu_id_start);
    CHECK(own.a.cpu_id < MAX_CPUS);
    CHECK(own.a.node_id < MAX_CPUS);
    CHECK(own.a.mm_cid < MAX_CPUS);
    /* A pointer from before is forgotten, whatever it was. */
    CHECK_EQ(own.a.cs, 0);
    CHECK_EQ(own.a.flags, 0);
    CHECK_EQ(own.a.end, 0x5a5a5a5a);
    CHECK_EQ(own.more.cpu_id_start, 0x5a5a5a5a);
}

TEST(register_sizes)
{
    const unsigned bad[] = {0, 1, 4, 20, 28, 31};
    const unsigned feature = (unsigned)getauxval(AT_RSEQ_FEATURE_SIZE);
    const unsigned least = feature > ORIG_SIZE ? feature : ORIG_SIZE + 1;
    const unsigned good[] = {ORIG_SIZE, least, least + 1, 64, 4096, 1U << 20, UINT32_MAX};

    rseq_leave_libc();
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        CHECK_ERRNO(rseq_call(&own, bad[i], 0, RSEQ_SIG), EINVAL);
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        OK(rseq_call(&own, good[i], 0, RSEQ_SIG));
        CHECK_ERRNO(rseq_call(&own, good[i] - 1, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), EINVAL);
        OK(rseq_call(&own, good[i], RSEQ_FLAG_UNREGISTER, RSEQ_SIG));
    }
}

/* What is not written to need not be there. */
TEST(register_past_the_mapping)
{
    char *page = conf_pages(2);
    struct rseq_area *last = (void *)(page + CONF_PAGE - RSEQ_SIZE);

    OK(munmap(page + CONF_PAGE, CONF_PAGE));
    rseq_leave_libc();
    OK(rseq_call(last, 4 * RSEQ_SIZE, 0, RSEQ_SIG));
    conf_sleep_ms(1);
    CHECK_EQ(last->cpu_id, last->cpu_id_start);
}

TEST(register_alignment)
{
    char *base = (char *)&own;
    const unsigned long align = getauxval(AT_RSEQ_ALIGN);

    rseq_leave_libc();
    for (unsigned long i = 1; i < ORIG_SIZE; i++)
        CHECK_ERRNO(rseq_call(base + i, ORIG_SIZE, 0, RSEQ_SIG), EINVAL);
    for (unsigned long i = 1; i < align; i *= 2)
        CHECK_ERRNO(rseq_call(base + i, 4096, 0, RSEQ_SIG), EINVAL);
    OK(rseq_call(base + ORIG_SIZE, ORIG_SIZE, 0, RSEQ_SIG));
}

TEST(register_flags)
{
    rseq_leave_libc();
    for (unsigned bit = 1; bit < 32; bit++) {
        CHECK_ERRNO(rseq_call(&own, RSEQ_SIZE, 1U << bit, RSEQ_SIG), EINVAL);
        CHECK_ERRNO(rseq_call(&own, RSEQ_SIZE, 1U << bit | 1, RSEQ_SIG), EINVAL);
    }
    OK(attach(&own.a));
    for (unsigned bit = 1; bit < 32; bit++) {
        CHECK_ERRNO(rseq_call(&own, RSEQ_SIZE, 1U << bit, RSEQ_SIG), EINVAL);
        CHECK_ERRNO(rseq_call(&own, RSEQ_SIZE, 1U << bit | 1, RSEQ_SIG), EINVAL);
    }
    CHECK_ERRNO(attach(&own.a), EBUSY);
}

/* Only the low halves of length, flags and signature are looked at. */
TEST(register_high_halves)
{
    const long high = 7L << 32;

    rseq_leave_libc();
    OK(syscall(SYS_rseq, &own, high | RSEQ_SIZE, high, high | RSEQ_SIG));
    CHECK_ERRNO(attach(&own.a), EBUSY);
    OK(syscall(SYS_rseq, &own, high | RSEQ_SIZE, high | RSEQ_FLAG_UNREGISTER, high | RSEQ_SIG));
}

TEST(register_addresses)
{
    char *page = conf_pages(3);

    OK(mprotect(page, CONF_PAGE, PROT_NONE));
    OK(munmap(page + CONF_PAGE, CONF_PAGE));
    rseq_leave_libc();
    CHECK_ERRNO(attach(NULL), EFAULT);
    CHECK_ERRNO(attach((void *)page), EFAULT);
    CHECK_ERRNO(attach((void *)(page + CONF_PAGE)), EFAULT);
    CHECK_ERRNO(attach(KERNEL_ADDRESS), EFAULT);
    CHECK_ERRNO(attach((void *)(UINT64_C(1) << 47)), EFAULT);
    CHECK_ERRNO(attach((void *)-32L), EFAULT);
    CHECK_ERRNO(rseq_call((void *)-32L, 4096, 0, RSEQ_SIG), EFAULT);
    /* Sizes and alignment come first. */
    CHECK_ERRNO(attach((void *)((char *)KERNEL_ADDRESS + 8)), EINVAL);
    CHECK_ERRNO(rseq_call(KERNEL_ADDRESS, 16, 0, RSEQ_SIG), EINVAL);
    /* None of them stayed. */
    CHECK_ERRNO(detach(NULL), EINVAL);
    CHECK_ERRNO(detach((void *)page), EINVAL);
    OK(attach((void *)(page + 2 * CONF_PAGE)));
}

TEST(register_twice)
{
    rseq_leave_libc();
    OK(attach(&own.a));
    CHECK_ERRNO(attach(&own.a), EBUSY);
    CHECK_ERRNO(attach(&other.a), EINVAL);
    CHECK_ERRNO(attach(KERNEL_ADDRESS), EINVAL);
    CHECK_ERRNO(attach(NULL), EINVAL);
    CHECK_ERRNO(rseq_call(&own, 64, 0, RSEQ_SIG), EINVAL);
    CHECK_ERRNO(rseq_call(&own, RSEQ_SIZE, 0, OTHER_SIG), EPERM);
    CHECK_ERRNO(rseq_call(&other, RSEQ_SIZE, 0, OTHER_SIG), EINVAL);
    CHECK_ERRNO(rseq_call(&own, 64, 0, OTHER_SIG), EINVAL);
    CHECK_ERRNO(attach(&own.a), EBUSY);
}

TEST(unregister_arguments)
{
    rseq_leave_libc();
    CHECK_ERRNO(detach(&own.a), EINVAL);
    CHECK_ERRNO(detach(NULL), EINVAL);
    CHECK_ERRNO(rseq_call(NULL, 0, RSEQ_FLAG_UNREGISTER, 0), EINVAL);
    OK(attach(&own.a));
    CHECK_ERRNO(detach(&other.a), EINVAL);
    CHECK_ERRNO(detach(NULL), EINVAL);
    CHECK_ERRNO(rseq_call(&own, 64, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), EINVAL);
    CHECK_ERRNO(rseq_call(&own, 0, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), EINVAL);
    CHECK_ERRNO(rseq_call(&own, RSEQ_SIZE, RSEQ_FLAG_UNREGISTER, OTHER_SIG), EPERM);
    CHECK_ERRNO(rseq_call(&other, RSEQ_SIZE, RSEQ_FLAG_UNREGISTER, OTHER_SIG), EINVAL);
    CHECK_ERRNO(rseq_call(&own, 64, RSEQ_FLAG_UNREGISTER, OTHER_SIG), EINVAL);
    CHECK(own.a.cpu_id != NO_CPU);
    OK(detach(&own.a));
    CHECK_ERRNO(detach(&own.a), EINVAL);
}

static void set_all(struct rseq_area *area, uint32_t value)
{
    area->cpu_id_start = value;
    area->cpu_id = value;
    area->cs = value;
    area->node_id = value;
    area->mm_cid = value;
}

TEST(unregister_resets)
{
    rseq_leave_libc();
    CHECK_EQ(rseq_libc()->cpu_id, NO_CPU);
    for (int i = 0; i < 100; i++) {
        OK(attach(&own.a));
        CHECK_EQ(own.a.cpu_id, own.a.cpu_id_start);
        CHECK(own.a.cpu_id != NO_CPU);
        own.a.flags = 0;
        OK(detach(&own.a));
        CHECK_EQ(own.a.cpu_id_start, 0);
        CHECK_EQ(own.a.cpu_id, NO_CPU);
        CHECK_EQ(own.a.node_id, 0);
        CHECK_EQ(own.a.mm_cid, 0);
    }
    /* Nobody writes there any longer. */
    set_all(&own.a, 77);
    for (int i = 0; i < 5; i++)
        conf_sleep_ms(1);
    CHECK_EQ(own.a.cpu_id_start, 77);
    CHECK_EQ(own.a.cpu_id, 77);
    CHECK_EQ(own.a.cs, 77);
    CHECK_EQ(own.a.node_id, 77);
    CHECK_EQ(own.a.mm_cid, 77);
}

/* The pointer is the program's. */
TEST(unregister_leaves_pointer)
{
    rseq_leave_libc();
    do {
        OK(attach(&own.a));
        own.a.cs = (uintptr_t)&rseq_spin_cs;
        OK(detach(&own.a));
        CHECK(own.a.cs == 0 || own.a.cs == (uintptr_t)&rseq_spin_cs);
    } while (own.a.cs == 0);
    OK(attach(&own.a));
    CHECK_EQ(own.a.cs, 0);
}

/* Another address, length and signature after it. */
TEST(register_again)
{
    rseq_leave_libc();
    OK(attach(&own.a));
    OK(detach(&own.a));
    OK(rseq_call(&other, 64, 0, OTHER_SIG));
    CHECK_ERRNO(rseq_call(&other, 64, 0, OTHER_SIG), EBUSY);
    CHECK_ERRNO(rseq_call(&other, 64, 0, RSEQ_SIG), EPERM);
    OK(rseq_call(&other, 64, RSEQ_FLAG_UNREGISTER, OTHER_SIG));
    OK(rseq_call(rseq_libc(), rseq_libc_size(), 0, RSEQ_SIG));
    rseq_libc_ready();
}

/* ---- numbers ---- */

TEST(pinned_numbers)
{
    const struct cpu_list list = cpus_allowed();
    struct rseq_area *area = rseq_take(&own.a);

    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < list.count; i++) {
            unsigned cpu = 0, node = 0;
            pin_to(0, list.cpu[i]);
            CHECK_EQ(area->cpu_id, list.cpu[i]);
            CHECK_EQ(area->cpu_id_start, list.cpu[i]);
            OK(syscall(SYS_getcpu, &cpu, &node, NULL));
            CHECK_EQ(cpu, list.cpu[i]);
            CHECK_EQ(area->node_id, node);
            CHECK_EQ(sched_getcpu(), list.cpu[i]);
            CHECK(area->mm_cid < (uint32_t)list.count);
        }
    }
}

TEST(numbers_of_libc)
{
    const struct cpu_list list = cpus_allowed();
    const struct rseq_area *area = rseq_libc_ready();

    for (int i = 0; i < list.count; i++) {
        pin_to(0, list.cpu[i]);
        CHECK_EQ(area->cpu_id, list.cpu[i]);
        CHECK_EQ(sched_getcpu(), list.cpu[i]);
    }
}

/* What somebody else sets is seen too. */
static volatile int numbers_tid, numbers_end;
static struct rseq_area *volatile numbers_area;

static void *numbers_thread(void *arg)
{
    (void)arg;
    numbers_area = rseq_take(&other.a);
    store_int(&numbers_tid, (int)syscall(SYS_gettid));
    while (!load_int(&numbers_end)) {
        const struct rseq_area *a = numbers_area;
        CHECK(a->cpu_id < MAX_CPUS && a->cpu_id_start < MAX_CPUS);
    }
    return NULL;
}

TEST(pinned_by_another_thread)
{
    const struct cpu_list list = cpus_allowed();
    pthread_t t = start_thread(numbers_thread, NULL);

    EVENTUALLY(load_int(&numbers_tid) != 0);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < list.count; i++) {
            pin_to(numbers_tid, list.cpu[i]);
            EVENTUALLY(numbers_area->cpu_id == (uint32_t)list.cpu[i]);
            EVENTUALLY(numbers_area->cpu_id_start == (uint32_t)list.cpu[i]);
        }
    }
    store_int(&numbers_end, 1);
    CHECK_EQ(pthread_join(t, NULL), 0);
}

/* Whoever looks at the process from outside counts as a user for a moment: a number may be too high
 * till the next switch. */
TEST(mm_cid_alone)
{
    const struct cpu_list list = cpus_allowed();
    struct rseq_area *area = rseq_take(&own.a);

    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < list.count; i++) {
            pin_to(0, list.cpu[i]);
            EVENTUALLY(area->mm_cid == 0);
        }
    }
}

TEST(mm_cid_of_threads)
{
    enum { THREADS = 3 };
    const struct cpu_list list = cpus_allowed();
    const uint32_t below = list.count < THREADS ? (uint32_t)list.count : THREADS;
    static struct spinner s[THREADS];
    pthread_t t[THREADS];

    for (int i = 0; i < THREADS; i++)
        t[i] = start_thread(spinner_thread, &s[i]);
    for (int i = 0; i < THREADS; i++) {
        EVENTUALLY(load_int(&s[i].tid) != 0);
        EVENTUALLY(s[i].area->mm_cid < below);
    }
    for (int i = 0; i < THREADS; i++)
        store_int(&s[i].stop, 1);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
}

/* Who was not running finds the numbers written anew, though they are the same: what has been put
 * in their place to notice a switch by is gone. */
TEST(numbers_are_written_anew)
{
    struct rseq_area *area = rseq_take(&own.a);

    pin_to(0, cpus_allowed().cpu[0]);
    for (int i = 0; i < 10; i++) {
        set_all(area, 0x80000077);
        area->cs = 0;
        EVENTUALLY(area->cpu_id_start != 0x80000077);
        CHECK_EQ(area->cpu_id_start, area->cpu_id);
        CHECK(area->node_id != 0x80000077);
        CHECK(area->mm_cid != 0x80000077);
    }
}

static volatile uint32_t seen_start;

static void see_start(int sig)
{
    (void)sig;
    seen_start = own.a.cpu_id_start;
}

TEST(numbers_in_handlers)
{
    struct rseq_area *area = rseq_take(&own.a);

    conf_handler(SIGUSR1, see_start, 0);
    for (int i = 0; i < 100; i++) {
        area->cpu_id_start = 0x80000077;
        OK(raise(SIGUSR1));
        CHECK(seen_start < MAX_CPUS);
    }
}

/* ---- whose it is ---- */

TEST(fork_inherits)
{
    struct rseq_area *area = rseq_take(&own.a);
    const struct cpu_list list = cpus_allowed();

    for (int i = 0; i < list.count; i++) {
        pid_t pid = conf_fork();
        if (pid == 0) {
            CHECK_ERRNO(attach(area), EBUSY);
            CHECK_ERRNO(attach(&other.a), EINVAL);
            for (int j = list.count - 1; j >= 0; j--) {
                pin_to(0, list.cpu[j]);
                CHECK_EQ(area->cpu_id, list.cpu[j]);
                CHECK_EQ(area->cpu_id_start, list.cpu[j]);
            }
            OK(detach(area));
            _exit(0);
        }
        CHECK_EXIT(pid, 0);
        CHECK_ERRNO(attach(area), EBUSY);
        CHECK(area->cpu_id != NO_CPU);
    }
}

static volatile int clone_result, clone_tid;

/* The parent's TLS may be ours: no errno, no checks. */
static int try_inherited(void *area)
{
    long r;

    __asm__ volatile("movl %[sig], %%r10d\n"
                     "syscall"
                     : "=a"(r)
                     : "a"(SYS_rseq), "D"(area), "S"(RSEQ_SIZE), "d"(0), [sig] "i"(RSEQ_SIG)
                     : "rcx", "r10", "r11", "memory");
    clone_result = (int)r;
    return 0;
}

#define THREAD_FLAGS                                                                               \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

TEST(shared_memory_does_not_inherit)
{
    const int flags[] = {CLONE_VM | SIGCHLD, CLONE_VM | CLONE_VFORK | SIGCHLD,
                         CLONE_VM | CLONE_FILES | SIGCHLD};
    char *stack = (char *)conf_pages(8) + 8 * CONF_PAGE;
    struct rseq_area *area = rseq_take(&own.a);

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        clone_result = 1;
        CHECK_EXIT(OK(clone(try_inherited, stack, flags[i], area)), 0);
        CHECK_EQ(clone_result, 0);
    }
    clone_tid = 1;
    clone_result = 1;
    OK(clone(try_inherited, stack, THREAD_FLAGS | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID, area,
             NULL, NULL, &clone_tid));
    conf_await(&clone_tid, 0);
    CHECK_EQ(clone_result, 0);
    CHECK_ERRNO(attach(area), EBUSY);
}

/* fork by way of clone, with the caller's files: memory is what counts. */
TEST(clone_without_memory_inherits)
{
    struct rseq_area *area = rseq_take(&own.a);

    for (int i = 0; i < 2; i++) {
        volatile int *result = conf_shared(CONF_PAGE);
        const int flags = i == 0 ? SIGCHLD : CLONE_FILES | CLONE_VFORK | SIGCHLD;
        pid_t pid = (pid_t)OK(syscall(SYS_clone, flags, 0, NULL, NULL, 0));
        if (pid == 0) {
            try_inherited(area);
            *result = clone_result;
            syscall(SYS_exit, 0);
        }
        CHECK_EXIT(pid, 0);
        CHECK_EQ(*result, -EBUSY);
    }
}

/* What was registered is not the new program's: libc's own registration succeeds. */
HELPER(registered)
{
    CHECK_EQ(argc, 1);
    CHECK_STR(argv[0], "registered");
    rseq_libc_ready();
    CHECK_ERRNO(rseq_call(rseq_libc(), rseq_libc_size(), 0, RSEQ_SIG), EBUSY);
    rseq_take(&own.a);
    return 0;
}

TEST(exec_clears)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        rseq_leave_libc();
        OK(rseq_call(&other, 64, 0, OTHER_SIG));
        conf_exec_helper("registered", NULL);
    }
    CHECK_EXIT(pid, 0);
}

static void *exec_thread(void *arg)
{
    rseq_leave_libc();
    OK(rseq_call(arg, 64, 0, OTHER_SIG));
    conf_exec_helper("registered", NULL);
}

TEST(exec_of_a_thread_clears)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        start_thread(exec_thread, &other);
        for (;;)
            pause();
    }
    CHECK_EXIT(pid, 0);
}

TEST(failed_exec_keeps)
{
    const char *const argv[] = {"x", NULL};
    struct rseq_area *area = rseq_take(&own.a);

    CHECK_ERRNO(execv("./nothing", (char *const *)(uintptr_t)argv), ENOENT);
    CHECK_ERRNO(attach(area), EBUSY);
}

/* An area that a thread leaves behind is written to no more. */
static void *leave_area(void *area)
{
    rseq_take(area);
    return NULL;
}

TEST(thread_end)
{
    char *page = conf_pages(1);

    for (int i = 0; i < 50; i++) {
        CHECK_EQ(pthread_join(start_thread(leave_area, page), NULL), 0);
        OK(mprotect(page, CONF_PAGE, PROT_NONE));
        conf_sleep_ms(0);
        OK(mprotect(page, CONF_PAGE, PROT_READ | PROT_WRITE));
    }
}

/* ---- where it lies ---- */

TEST(untouched_memory)
{
    struct rseq_area *area = (void *)conf_pages(1);

    rseq_take(area);
    conf_sleep_ms(1);
    CHECK_EQ(area->cpu_id, area->cpu_id_start);
}

TEST(shared_file_memory)
{
    int fd = OK(open("area", O_RDWR | O_CREAT | O_CLOEXEC, 0600));

    OK(ftruncate(fd, (off_t)CONF_PAGE));
    struct rseq_area *area = OK(mmap(NULL, CONF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    rseq_take(area);
    const struct cpu_list list = cpus_allowed();
    for (int i = 0; i < list.count; i++) {
        struct rseq_area copy;
        pin_to(0, list.cpu[i]);
        CHECK_EQ(area->cpu_id, list.cpu[i]);
        CHECK_EQ(pread(fd, &copy, sizeof(copy), 0), (ssize_t)sizeof(copy));
        CHECK_EQ(copy.cpu_id, list.cpu[i]);
    }
}

/* The first write to memory that is shared till then is the kernel's. */
TEST(copied_on_write)
{
    const struct cpu_list list = cpus_allowed();
    struct rseq_area *area = rseq_take((void *)conf_pages(1));

    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < list.count; i++) {
            const int mine = list.cpu[(i + 1) % list.count];
            pin_to(0, mine);
            pid_t pid = conf_fork();
            if (pid == 0) {
                pin_to(0, list.cpu[i]);
                CHECK_EQ(area->cpu_id, list.cpu[i]);
                CHECK_EQ(area->cpu_id_start, list.cpu[i]);
                _exit(0);
            }
            CHECK_EXIT(pid, 0);
            CHECK_EQ(area->cpu_id, mine);
        }
    }
}

/* ---- ptrace ---- */

static void run_registered(void)
{
    rseq_leave_libc();
    OK(rseq_call(&other, 64, 0, OTHER_SIG));
    raise(SIGSTOP);
    OK(rseq_call(&other, 64, RSEQ_FLAG_UNREGISTER, OTHER_SIG));
    raise(SIGSTOP);
}

static void check_configuration(pid_t pid, const void *area, unsigned size, unsigned sig)
{
    struct ptrace_rseq_configuration c;

    memset(&c, 0x77, sizeof(c));
    CHECK_EQ(pt(PTRACE_GET_RSEQ_CONFIGURATION, pid, sizeof(c), (unsigned long)&c), sizeof(c));
    CHECK_EQ(c.rseq_abi_pointer, (uintptr_t)area);
    CHECK_EQ(c.rseq_abi_size, size);
    CHECK_EQ(c.signature, sig);
    CHECK_EQ(c.flags, 0);
    CHECK_EQ(c.pad, 0);
}

TEST(ptrace_configuration)
{
    struct ptrace_rseq_configuration c;
    pid_t pid = traced_child(run_registered);

    check_configuration(pid, rseq_libc(), rseq_libc_size(), RSEQ_SIG);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    check_configuration(pid, &other, 64, OTHER_SIG);
    /* As much as there is room for; the whole size is told. */
    memset(&c, 0x77, sizeof(c));
    CHECK_EQ(pt(PTRACE_GET_RSEQ_CONFIGURATION, pid, 8, (unsigned long)&c), sizeof(c));
    CHECK_EQ(c.rseq_abi_pointer, (uintptr_t)&other);
    CHECK_EQ(c.rseq_abi_size, 0x77777777);
    CHECK_EQ(pt(PTRACE_GET_RSEQ_CONFIGURATION, pid, 0, (unsigned long)&c), sizeof(c));
    CHECK_ERRNO(pt(PTRACE_GET_RSEQ_CONFIGURATION, pid, sizeof(c), 8), EFAULT);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    check_configuration(pid, NULL, 0, 0);
    conf_kill(pid);
}
