/* rseq(2): a structure or descriptor that the kernel cannot use ends the process; what it can fault
 * in works. */
#include "rseq_help.h"

#include <sys/mman.h>
#include <time.h>

CONF_FAMILY("rseqfault");

#define KERNEL_ADDRESS UINT64_C(0xffff800000000000)

static struct rseq_area own;

static void nothing(int sig)
{
    (void)sig;
}

/* What makes the kernel look. */
static void by_signal(void)
{
    OK(syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), SIGUSR1));
}

static void by_sleep(void)
{
    for (;;)
        conf_sleep_ms(1);
}

/* A handler for what comes changes nothing: it cannot be run either. */
static void by_signal_with_handler(void)
{
    conf_handler(SIGSEGV, nothing, SA_NODEFER);
    by_signal();
}

static void by_sleep_with_handler(void)
{
    conf_handler(SIGSEGV, nothing, SA_NODEFER);
    by_sleep();
}

static void by_own_segv(void)
{
    conf_handler(SIGSEGV, nothing, SA_NODEFER);
    OK(syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), SIGSEGV));
}

static void (*const triggers[])(void) = {by_signal, by_sleep, by_signal_with_handler,
                                         by_sleep_with_handler, by_own_segv};

/* Spoils the area, or the good descriptor that the area is about to point to: one of both is NULL.
 */
struct spoiler {
    void (*area)(struct rseq_area *area);
    void (*cs)(struct rseq_cs *cs);
};

static void spoil_with(struct spoiler s, struct rseq_area *area)
{
    static struct rseq_cs cs;

    conf_handler(SIGUSR1, nothing, 0);
    if (s.area != NULL) {
        s.area(area);
        return;
    }
    cs = rseq_spin_cs;
    s.cs(&cs);
    area->cs = (uintptr_t)&cs;
}

/* In a child each: the kernel's look at it ends the process. */
static void check_fatal(struct spoiler s)
{
    for (size_t i = 0; i < ARRAY_SIZE(triggers); i++) {
        pid_t pid = conf_fork();
        if (pid == 0) {
            spoil_with(s, rseq_take((void *)conf_pages(1)));
            triggers[i]();
            _exit(0);
        }
        CHECK_KILLED(pid, SIGSEGV);
    }
}

static void check_harmless(struct spoiler s)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        struct rseq_area *area = rseq_take((void *)conf_pages(1));
        spoil_with(s, area);
        by_signal();
        CHECK_EQ(area->cs, 0);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

#define SPOIL_AREA(f) ((struct spoiler){.area = (f)})
#define SPOIL_CS(f) ((struct spoiler){.cs = (f)})

/* ---- the descriptor ---- */

static void version(struct rseq_cs *cs)
{
    cs->version = 1;
}

TEST(unknown_version)
{
    check_fatal(SPOIL_CS(version));
}

static void start_in_kernel(struct rseq_cs *cs)
{
    cs->start_ip = KERNEL_ADDRESS;
}

TEST(start_in_kernel_memory)
{
    check_fatal(SPOIL_CS(start_in_kernel));
}

static void end_in_kernel(struct rseq_cs *cs)
{
    cs->post_commit_offset = KERNEL_ADDRESS - cs->start_ip;
}

TEST(end_in_kernel_memory)
{
    check_fatal(SPOIL_CS(end_in_kernel));
}

static void wraps(struct rseq_cs *cs)
{
    cs->post_commit_offset = -cs->start_ip + 64;
}

TEST(end_wraps)
{
    check_fatal(SPOIL_CS(wraps));
}

static void abort_inside(struct rseq_cs *cs)
{
    cs->post_commit_offset = cs->abort_ip - cs->start_ip + 1;
}

TEST(abort_inside_section)
{
    check_fatal(SPOIL_CS(abort_inside));
}

static void abort_in_kernel(struct rseq_cs *cs)
{
    cs->abort_ip = KERNEL_ADDRESS;
}

TEST(abort_in_kernel_memory)
{
    check_fatal(SPOIL_CS(abort_in_kernel));
}

static void abort_unmapped(struct rseq_cs *cs)
{
    char *page = conf_pages(1);
    OK(munmap(page, CONF_PAGE));
    cs->abort_ip = (uintptr_t)page + 64;
}

TEST(abort_at_unmapped_memory)
{
    check_fatal(SPOIL_CS(abort_unmapped));
}

static void abort_unsigned(struct rseq_cs *cs)
{
    cs->abort_ip++;
}

TEST(no_signature_before_abort)
{
    check_fatal(SPOIL_CS(abort_unsigned));
}

static void abort_at_start(struct rseq_cs *cs)
{
    cs->abort_ip = 0;
}

TEST(abort_at_zero)
{
    check_fatal(SPOIL_CS(abort_at_start));
}

static void unmapped_descriptor(struct rseq_area *area)
{
    char *page = conf_pages(1);
    OK(munmap(page, CONF_PAGE));
    area->cs = (uintptr_t)page;
}

TEST(descriptor_unmapped)
{
    check_fatal(SPOIL_AREA(unmapped_descriptor));
}

static void kernel_descriptor(struct rseq_area *area)
{
    area->cs = KERNEL_ADDRESS;
}

TEST(descriptor_in_kernel_memory)
{
    check_fatal(SPOIL_AREA(kernel_descriptor));
}

static void half_a_descriptor(struct rseq_area *area)
{
    char *page = conf_pages(2);
    OK(munmap(page + CONF_PAGE, CONF_PAGE));
    area->cs = (uintptr_t)page + CONF_PAGE - 16;
}

TEST(descriptor_ends_too_early)
{
    check_fatal(SPOIL_AREA(half_a_descriptor));
}

/* All zeroes: a section of no length, whose abort address is 0, so that no signature can precede.
 */
static void zero_descriptor(struct rseq_area *area)
{
    area->cs = (uintptr_t)conf_pages(1);
}

TEST(descriptor_of_zeroes)
{
    check_fatal(SPOIL_AREA(zero_descriptor));
}

/* Not what alignment asks for, which is the compiler's. */
static void unaligned_descriptor(struct rseq_area *area)
{
    char *at = (char *)conf_pages(1) + 4;
    memcpy(at, &rseq_spin_cs, sizeof(rseq_spin_cs));
    area->cs = (uintptr_t)at;
}

TEST(unaligned_descriptor)
{
    check_harmless(SPOIL_AREA(unaligned_descriptor));
}

static void empty_section(struct rseq_cs *cs)
{
    cs->post_commit_offset = 0;
}

TEST(section_of_no_length)
{
    check_harmless(SPOIL_CS(empty_section));
}

/* ---- flags: they once said what aborts, and are no longer known ---- */

static void area_flags(struct rseq_area *area)
{
    area->flags = RSEQ_CS_FLAG_NO_RESTART_ON_SIGNAL;
    area->cs = (uintptr_t)&rseq_spin_cs;
}

TEST(flags_outside_section)
{
    check_harmless(SPOIL_AREA(area_flags));
}

static void descriptor_flags(struct rseq_cs *cs)
{
    cs->flags = RSEQ_CS_FLAG_NO_RESTART_ON_PREEMPT;
}

TEST(descriptor_flags_outside_section)
{
    check_harmless(SPOIL_CS(descriptor_flags));
}

static void check_flags_inside(uint32_t in_area, uint32_t in_cs)
{
    for (int by = 0; by < 2; by++) {
        pid_t pid = conf_fork();
        if (pid == 0) {
            struct rseq_area *area = rseq_take(&own);
            struct rseq_cs cs = rseq_in_call_cs;
            struct timespec ts = {.tv_nsec = 1000000};
            conf_handler(SIGUSR1, nothing, 0);
            area->flags = in_area;
            cs.flags = in_cs;
            if (by == 0)
                rseq_in_call(area, &cs, SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
            for (;;)
                rseq_in_call(area, &cs, SYS_nanosleep, (long)&ts, 0, 0);
        }
        CHECK_KILLED(pid, SIGSEGV);
    }
}

TEST(flags_inside_section)
{
    for (int bit = 0; bit < 32; bit += bit < 3 ? 1 : 14)
        check_flags_inside(1U << bit, 0);
}

TEST(descriptor_flags_inside_section)
{
    for (int bit = 0; bit < 32; bit += bit < 3 ? 1 : 14)
        check_flags_inside(0, 1U << bit);
}

/* ---- the area ---- */

static void read_only(struct rseq_area *area)
{
    OK(mprotect(area, CONF_PAGE, PROT_READ));
}

TEST(area_made_read_only)
{
    check_fatal(SPOIL_AREA(read_only));
}

static void not_readable(struct rseq_area *area)
{
    OK(mprotect(area, CONF_PAGE, PROT_NONE));
}

TEST(area_made_inaccessible)
{
    check_fatal(SPOIL_AREA(not_readable));
}

static void unmapped(struct rseq_area *area)
{
    OK(munmap(area, CONF_PAGE));
}

TEST(area_unmapped)
{
    check_fatal(SPOIL_AREA(unmapped));
}

/* Registration reads; the numbers come on the way out. */
TEST(area_read_only_from_the_start)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        struct rseq_area *area = (void *)conf_pages(1);
        rseq_leave_libc();
        OK(mprotect(area, CONF_PAGE, PROT_READ));
        rseq_call(area, RSEQ_SIZE, 0, RSEQ_SIG);
        _exit(0);
    }
    CHECK_KILLED(pid, SIGSEGV);
}

/* A pointer that is there already cannot be taken away. */
TEST(read_only_area_with_pointer)
{
    struct rseq_area *area = (void *)conf_pages(1);

    rseq_leave_libc();
    area->cs = 1;
    OK(mprotect(area, CONF_PAGE, PROT_READ));
    CHECK_ERRNO(rseq_call(area, RSEQ_SIZE, 0, RSEQ_SIG), EFAULT);
    CHECK_ERRNO(rseq_call(area, RSEQ_SIZE, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), EINVAL);
    conf_sleep_ms(1);
    CHECK_EQ(area->cs, 1);
}

static void *spoil_and_sleep(void *arg)
{
    struct rseq_area *area = rseq_take((void *)conf_pages(1));

    (void)arg;
    OK(munmap(area, CONF_PAGE));
    by_sleep();
    return NULL;
}

/* One thread's area is the end of all. */
TEST(area_of_a_thread_unmapped)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        start_thread(spoil_and_sleep, NULL);
        for (;;)
            pause();
    }
    CHECK_KILLED(pid, SIGSEGV);
}

/* ---- what is brought in ---- */

static void abort_by(struct rseq_area *area, const struct rseq_cs *cs)
{
    struct timespec ts = {.tv_nsec = 1000000};

    while (rseq_in_call(area, cs, SYS_nanosleep, (long)&ts, 0, 0) != IN_CALL_ABORTED)
        ;
    CHECK_EQ(area->cs, 0);
}

/* The kernel is the first to read the descriptor. */
TEST(descriptor_in_untouched_file)
{
    struct rseq_area *area = rseq_take(&own);

    for (int i = 0; i < 10; i++) {
        int fd = OK(open("cs", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
        const off_t at = (i % 3) * (off_t)CONF_PAGE + 64;
        CHECK_EQ(pwrite(fd, &rseq_in_call_cs, sizeof(rseq_in_call_cs), at),
                 (ssize_t)sizeof(rseq_in_call_cs));
        char *page =
            OK(mmap(NULL, 3 * CONF_PAGE, PROT_READ, i % 2 ? MAP_SHARED : MAP_PRIVATE, fd, 0));
        abort_by(area, (const void *)(page + at));
        OK(munmap(page, 3 * CONF_PAGE));
        OK(close(fd));
    }
}

/* Memory that became the child's own a moment ago, and memory that is still shared. */
TEST(descriptor_and_area_after_fork)
{
    struct rseq_area *area = rseq_take((void *)conf_pages(1));
    struct rseq_cs *cs = conf_pages(1);

    *cs = rseq_in_call_cs;
    for (int i = 0; i < 10; i++) {
        pid_t pid = conf_fork();
        if (pid == 0) {
            if (i % 2)
                cs->version = 0;
            abort_by(area, cs);
            _exit(0);
        }
        abort_by(area, cs);
        CHECK_EXIT(pid, 0);
    }
}

/* Past the file's end there is nothing: not SIGBUS, as it is not the program that reads. */
static void past_the_end(struct rseq_area *area)
{
    int fd = OK(open("empty", O_RDWR | O_CREAT | O_CLOEXEC, 0600));

    area->cs = (uintptr_t)OK(mmap(NULL, CONF_PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
}

TEST(descriptor_past_the_end_of_a_file)
{
    check_fatal(SPOIL_AREA(past_the_end));
}
