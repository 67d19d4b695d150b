/* rseq(2): critical sections of a program in which nobody could have looked for them before. */
#define RSEQ_DESCRIPTORS ".rodata.descriptors"
#include "rseq_help.h"

CONF_FAMILY("rseqseen");

enum { MAX_WORKERS = 64, ENOUGH_COMMITS = 20000, ENOUGH_ABORTS = 20, MEAN_DELAY = 500 };

static struct {
    struct rseq_slot slots[MAX_CPUS];
    volatile int stop;
    struct worker {
        volatile uint64_t commits, aborts;
    } __attribute__((aligned(SLOT_SIZE))) workers[MAX_WORKERS];
} work;

static void *add_on(void *arg)
{
    struct rseq_area *area = rseq_libc_ready();
    struct worker *me = arg;

    for (uint64_t i = 0; !load_int(&work.stop); i++) {
        if (rseq_add(area, work.slots, i * 37 % (2 * MEAN_DELAY)))
            me->commits++;
        else
            me->aborts++;
    }
    return NULL;
}

static bool enough(int count)
{
    uint64_t commits = 0, aborts = 0;

    for (int i = 0; i < count; i++) {
        if (work.workers[i].commits == 0)
            return false;
        commits += work.workers[i].commits;
        aborts += work.workers[i].aborts;
    }
    return commits >= ENOUGH_COMMITS && aborts >= ENOUGH_ABORTS;
}

static void check_sum(int count, uint64_t before)
{
    uint64_t commits = before, sum = 0;

    for (int i = 0; i < count; i++)
        commits += work.workers[i].commits;
    for (int i = 0; i < MAX_CPUS; i++)
        sum += work.slots[i].count;
    CHECK_EQ(sum, commits);
}

static void count_with_threads(uint64_t before)
{
    const int all = 2 * cpus_allowed().count + 2;
    const int count = all < MAX_WORKERS ? all : MAX_WORKERS;
    static pthread_t t[MAX_WORKERS];

    for (int i = 0; i < count; i++)
        t[i] = start_thread(add_on, &work.workers[i]);
    while (!enough(count))
        conf_sleep_ms(1);
    store_int(&work.stop, 1);
    for (int i = 0; i < count; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
    check_sum(count, before);
}

/* What is left of the section is gone after a sleep, and from then on nobody is disturbed unseen.
 */
static uint64_t first_section(void)
{
    struct rseq_area *area = rseq_libc_ready();

    while (!rseq_add(area, work.slots, 0))
        ;
    EVENTUALLY(area->cs == 0);
    return 1;
}

TEST(counters_after_a_sleep)
{
    count_with_threads(first_section());
}

static void no_action(int sig)
{
    (void)sig;
}

TEST(counters_after_a_signal)
{
    struct rseq_area *area = rseq_libc_ready();

    conf_handler(SIGUSR1, no_action, 0);
    while (!rseq_add(area, work.slots, 0))
        ;
    OK(raise(SIGUSR1));
    CHECK_EQ(area->cs, 0);
    count_with_threads(1);
}

TEST(children_are_known)
{
    const uint64_t before = first_section();
    const pid_t pid = conf_fork();

    if (pid == 0) {
        count_with_threads(before);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}
