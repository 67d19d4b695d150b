/* rseq(2): data per CPU that critical sections alone protect, under everything that may come
 * between. */
#include "rseq_help.h"

#include <sys/mman.h>

CONF_FAMILY("rseqcpu");

enum {
    MAX_WORKERS = 64,
    ENOUGH_COMMITS = 20000,
    ENOUGH_ABORTS = 20,
    MEAN_DELAY = 500,
    MEAN_YIELD = 65536, /* rounds: mostly longer than one thread has its turn */
};

enum work_flags {
    WORK_YIELDS = 1,
    WORK_PINNED = 2,
    WORK_OWN_AREA = 4,
    WORK_MM_CID = 8,
    WORK_SIGNALS = 16,
    WORK_MOVES = 32,
};

/* What all workers share; also between processes. */
struct work {
    struct rseq_slot slots[MAX_CPUS], handler_slots[MAX_CPUS];
    volatile int stop, flags;
    int count;
    struct worker {
        volatile int tid;
        volatile uint64_t commits, aborts, handler_commits;
    } __attribute__((aligned(SLOT_SIZE))) workers[MAX_WORKERS];
};

struct job {
    struct work *w;
    int number;
};

static __thread struct rseq_area thread_area;
static __thread struct rseq_area *my_area;
static __thread struct worker *my_worker;
static struct work *handler_work;

/* As rseq_add, with slots by mm_cid. */
int rseq_add_mm(struct rseq_area *area, struct rseq_slot *slots, uint64_t delay);
RSEQ_FUNCTION(rseq_add_mm, "",
              "movl 24(%rdi), %ecx\n"
              "shlq $6, %rcx\n"
              "movq (%rsi, %rcx), %rax\n"
              "rseq_add_mm_wait: subq $1, %rdx\n"
              "jnc rseq_add_mm_wait\n"
              "addq $1, %rax\n"
              "movq %rax, (%rsi, %rcx)",
              RETURN_1, RETURN_0);

static int work_count(void)
{
    const int count = 2 * cpus_allowed().count + 2;

    return count < MAX_WORKERS ? count : MAX_WORKERS;
}

static uint64_t next_random(uint64_t random)
{
    return random * 6364136223846793005U + 1442695040888963407U;
}

static void work_on(struct work *w, int number)
{
    struct worker *me = &w->workers[number];
    int (*add)(struct rseq_area *, struct rseq_slot *, uint64_t) =
        w->flags & WORK_MM_CID ? rseq_add_mm : rseq_add;
    uint64_t random = (uint64_t)number + 1;

    my_area = w->flags & WORK_OWN_AREA ? rseq_take(&thread_area) : rseq_libc_ready();
    my_worker = me;
    if (w->flags & WORK_PINNED) {
        const struct cpu_list list = cpus_allowed();
        pin_to(0, list.cpu[number % list.count]);
    }
    store_int(&me->tid, (int)syscall(SYS_gettid));
    while (!load_int(&w->stop)) {
        random = next_random(random);
        if (add(my_area, w->slots, (random >> 33) % (2 * MEAN_DELAY)))
            me->commits++;
        else
            me->aborts++;
        if ((w->flags & WORK_YIELDS) && (random >> 40) % MEAN_YIELD == 0)
            OK(sched_yield());
    }
}

static void *work_thread(void *arg)
{
    const struct job *j = arg;

    work_on(j->w, j->number);
    return NULL;
}

/* A section in a handler takes the place of the one that it interrupts, which is over anyway. */
static void add_in_handler(int sig)
{
    (void)sig;
    while (!rseq_add(my_area, handler_work->handler_slots, 10))
        ;
    my_worker->handler_commits++;
}

static bool enough(const struct work *w)
{
    uint64_t commits = 0, aborts = 0;

    for (int i = 0; i < w->count; i++) {
        commits += w->workers[i].commits;
        aborts += w->workers[i].aborts;
        if (w->workers[i].commits == 0)
            return false;
        if ((w->flags & WORK_SIGNALS) && w->workers[i].handler_commits == 0)
            return false;
    }
    return commits >= ENOUGH_COMMITS && aborts >= ENOUGH_ABORTS;
}

static void interfere(struct work *w, const struct cpu_list *list, int turn)
{
    const pid_t tid = load_int(&w->workers[turn % w->count].tid);

    if (tid == 0)
        return;
    if (w->flags & WORK_SIGNALS)
        OK(syscall(SYS_tgkill, getpid(), tid, SIGUSR1));
    if (w->flags & WORK_MOVES)
        pin_to(tid, list->cpu[turn / w->count % list->count]);
}

static void check_sums(const struct work *w)
{
    uint64_t commits = 0, handler_commits = 0, sum = 0, handler_sum = 0;

    for (int i = 0; i < w->count; i++) {
        commits += w->workers[i].commits;
        handler_commits += w->workers[i].handler_commits;
    }
    for (int i = 0; i < MAX_CPUS; i++) {
        sum += w->slots[i].count;
        handler_sum += w->handler_slots[i].count;
    }
    CHECK_EQ(sum, commits);
    CHECK_EQ(handler_sum, handler_commits);
}

/* Till there was enough of everything; then not one addition is missing. */
static void count_with_threads(int flags)
{
    static struct work w;
    static struct job jobs[MAX_WORKERS];
    static pthread_t t[MAX_WORKERS];
    const struct cpu_list list = cpus_allowed();

    w.flags = flags;
    w.count = work_count();
    handler_work = &w;
    conf_handler(SIGUSR1, add_in_handler, SA_RESTART);
    for (int i = 0; i < w.count; i++) {
        jobs[i] = (struct job){&w, i};
        t[i] = start_thread(work_thread, &jobs[i]);
    }
    for (int turn = 0; !enough(&w); turn++) {
        interfere(&w, &list, turn);
        conf_sleep_ms(1);
    }
    store_int(&w.stop, 1);
    for (int i = 0; i < w.count; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
    check_sums(&w);
}

TEST(counters)
{
    count_with_threads(0);
}

TEST(counters_own_area)
{
    count_with_threads(WORK_OWN_AREA);
}

TEST(counters_pinned)
{
    count_with_threads(WORK_PINNED);
}

TEST(counters_yields)
{
    count_with_threads(WORK_YIELDS);
}

TEST(counters_signals)
{
    count_with_threads(WORK_SIGNALS);
}

TEST(counters_moves)
{
    count_with_threads(WORK_MOVES);
}

TEST(counters_everything)
{
    count_with_threads(WORK_OWN_AREA | WORK_YIELDS | WORK_SIGNALS | WORK_MOVES);
}

TEST(counters_by_mm_cid)
{
    count_with_threads(WORK_MM_CID);
}

TEST(counters_by_mm_cid_moves)
{
    count_with_threads(WORK_MM_CID | WORK_MOVES | WORK_YIELDS);
}

/* ---- processes ---- */

/* The CPU is one for all: so are the counters. */
static void count_with_processes(int flags)
{
    struct work *w = conf_shared(sizeof(*w));
    const struct cpu_list list = cpus_allowed();
    pid_t pids[MAX_WORKERS];

    w->flags = flags;
    w->count = work_count();
    for (int i = 0; i < w->count; i++) {
        pids[i] = conf_fork();
        if (pids[i] == 0) {
            work_on(w, i);
            _exit(0);
        }
    }
    for (int turn = 0; !enough(w); turn++) {
        interfere(w, &list, turn);
        conf_sleep_ms(1);
    }
    store_int(&w->stop, 1);
    for (int i = 0; i < w->count; i++)
        CHECK_EXIT(pids[i], 0);
    check_sums(w);
}

TEST(counters_of_processes)
{
    count_with_processes(0);
}

TEST(counters_of_processes_pinned)
{
    count_with_processes(WORK_PINNED);
}

TEST(counters_of_processes_moves)
{
    count_with_processes(WORK_MOVES | WORK_YIELDS);
}

TEST(counters_of_processes_own_area)
{
    count_with_processes(WORK_OWN_AREA | WORK_YIELDS);
}

/* ---- lists ---- */

struct node {
    struct node *next;
    volatile int users;
};

struct list_head {
    struct node *first;
} __attribute__((aligned(SLOT_SIZE)));

/* 1, or 0 when it was aborted. */
int rseq_push(struct rseq_area *area, struct list_head *heads, struct node *node);
RSEQ_FUNCTION(rseq_push, "movl (%rdi), %ecx",
              "cmpl %ecx, 4(%rdi)\n"
              "jne rseq_push_abort\n"
              "shlq $6, %rcx\n"
              "movq (%rsi, %rcx), %rax\n"
              "movq %rax, (%rdx)\n"
              "movq %rdx, (%rsi, %rcx)",
              RETURN_1, RETURN_0);

#define POP_ABORTED ((struct node *)1)

/* Takes the first node of this CPU's list, with delay turns of a loop between looking and taking;
 * NULL when it is empty. Another who takes it, and brings it back in front of something else, must
 * not go unnoticed. */
struct node *rseq_pop(struct rseq_area *area, struct list_head *heads, uint64_t delay);
RSEQ_FUNCTION(rseq_pop, "movl (%rdi), %ecx",
              "cmpl %ecx, 4(%rdi)\n"
              "jne rseq_pop_abort\n"
              "shlq $6, %rcx\n"
              "movq (%rsi, %rcx), %rax\n"
              "testq %rax, %rax\n"
              "jz rseq_pop_none\n"
              "movq (%rax), %r8\n"
              "rseq_pop_wait: subq $1, %rdx\n"
              "jnc rseq_pop_wait\n"
              "movq %r8, (%rsi, %rcx)",
              "rseq_pop_none:", "movl $1, %eax");

enum { NODES = 64 };

static struct {
    struct list_head heads[MAX_CPUS];
    struct node nodes[NODES];
    volatile int stop, rounds, aborts;
} lists;

static void push(struct rseq_area *area, struct node *n)
{
    while (!rseq_push(area, lists.heads, n))
        ;
}

static void *move_nodes(void *arg)
{
    struct rseq_area *area = rseq_libc_ready();
    uint64_t random = (uintptr_t)area;

    (void)arg;
    while (!load_int(&lists.stop)) {
        struct node *n = rseq_pop(area, lists.heads, 300);
        if (n == POP_ABORTED) {
            __atomic_add_fetch(&lists.aborts, 1, __ATOMIC_SEQ_CST);
            continue;
        }
        if (n != NULL) {
            CHECK_EQ(__atomic_add_fetch(&n->users, 1, __ATOMIC_SEQ_CST), 1);
            random = next_random(random);
            if ((random >> 40) % MEAN_YIELD == 0)
                OK(sched_yield());
            CHECK_EQ(__atomic_sub_fetch(&n->users, 1, __ATOMIC_SEQ_CST), 0);
            push(area, n);
            __atomic_add_fetch(&lists.rounds, 1, __ATOMIC_SEQ_CST);
        }
    }
    return NULL;
}

TEST(linked_lists)
{
    static pthread_t t[MAX_WORKERS];
    const int count = work_count();
    int found = 0;

    for (int i = 0; i < NODES; i++)
        push(rseq_libc_ready(), &lists.nodes[i]);
    for (int i = 0; i < count; i++)
        t[i] = start_thread(move_nodes, NULL);
    EVENTUALLY(load_int(&lists.rounds) >= ENOUGH_COMMITS &&
               load_int(&lists.aborts) >= ENOUGH_ABORTS);
    store_int(&lists.stop, 1);
    for (int i = 0; i < count; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
    for (int i = 0; i < MAX_CPUS; i++) {
        for (struct node *n = lists.heads[i].first; n != NULL; n = n->next) {
            CHECK_EQ(n->users++, 0);
            found++;
        }
    }
    CHECK_EQ(found, NODES);
}
