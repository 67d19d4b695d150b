/* Futexes: waiting, waking, moving, operations, owners, robust lists, several at once. */
#include "harness.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

CONF_FAMILY("futex");

#ifndef FUTEX_32
#define FUTEX_32 2
#endif

static long futex(volatile void *word, int op, uint32_t val, const void *timeout, void *word2,
                  uint32_t val3)
{
    return syscall(SYS_futex, word, op, val, timeout, word2, val3);
}

static long futex_count(volatile void *word, int op, uint32_t val, unsigned long val2, void *word2,
                        uint32_t val3)
{
    return syscall(SYS_futex, word, op, val, val2, word2, val3);
}

static pid_t own_tid(void)
{
    return (pid_t)syscall(SYS_gettid);
}

/* So many children, which must have ended well. */
static void reap(int count)
{
    for (int i = 0; i < count; i++) {
        int status;
        OK(waitpid(-1, &status, 0));
        CHECK_EQ(status, 0);
    }
}

/* Till count threads sleep that counted themselves in *started before they went to. */
static void await_sleepers(const volatile int *started, int count)
{
    conf_await(started, count);
    conf_await_others_asleep();
}

/* The same for children. */
static void await_children(const volatile int *started, const pid_t *pids, int count)
{
    conf_await(started, count);
    for (int i = 0; i < count; i++)
        conf_await_asleep(pids[i]);
}

TEST(wait_errors)
{
    uint32_t words[2] = {5, 5};
    struct timespec bad = {0, 1000000000}, negative = {-1, 0};
    CHECK_ERRNO(futex(words, FUTEX_WAIT, 4, NULL, NULL, 0), EAGAIN);
    CHECK_ERRNO(futex(words, FUTEX_WAIT_PRIVATE, 4, NULL, NULL, 0), EAGAIN);
    CHECK_ERRNO(futex((char *)words + 1, FUTEX_WAIT, 5, NULL, NULL, 0), EINVAL);
    CHECK_ERRNO(futex((void *)16, FUTEX_WAIT, 5, NULL, NULL, 0), EFAULT);
    CHECK_ERRNO(futex((void *)16, FUTEX_WAIT_PRIVATE, 5, NULL, NULL, 0), EFAULT);
    CHECK_ERRNO(futex(words, FUTEX_WAIT, 5, &bad, NULL, 0), EINVAL);
    CHECK_ERRNO(futex(words, FUTEX_WAIT, 5, &negative, NULL, 0), EINVAL);
    CHECK_ERRNO(futex(words, FUTEX_WAIT, 5, (void *)16, NULL, 0), EFAULT);
    CHECK_ERRNO(futex(words, FUTEX_WAIT_BITSET, 5, NULL, NULL, 0), EINVAL);
    CHECK_ERRNO(futex(words, FUTEX_WAKE_BITSET, 5, NULL, NULL, 0), EINVAL);
    CHECK_ERRNO(futex(words, FUTEX_WAIT | FUTEX_CLOCK_REALTIME, 5, NULL, NULL, 0), ENOSYS);
    CHECK_ERRNO(futex(words, 99, 5, NULL, NULL, 0), ENOSYS);
    CHECK_EQ(futex(words, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
    CHECK_ERRNO(futex((char *)words + 2, FUTEX_WAKE, 1, NULL, NULL, 0), EINVAL);
}

TEST(wait_timeouts)
{
    uint32_t word = 0;
    struct timespec ts = {0, 50 * 1000 * 1000}, past = {1, 0};
    int64_t start = conf_now();
    CHECK_ERRNO(futex(&word, FUTEX_WAIT, 0, &ts, NULL, 0), ETIMEDOUT);
    CHECK(conf_now() - start >= 50 * 1000 * 1000);
    CHECK_ERRNO(futex(&word, FUTEX_WAIT_BITSET, 0, &past, NULL, 1), ETIMEDOUT);
    CHECK_ERRNO(futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &past, NULL, 1),
                ETIMEDOUT);
    start = conf_now();
    OK(clock_gettime(CLOCK_REALTIME, &ts));
    ts.tv_sec++;
    CHECK_ERRNO(futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &ts, NULL, 1), ETIMEDOUT);
    int64_t took = conf_now() - start;
    CHECK(took > 900 * 1000 * 1000 && took < CONF_PATIENCE_NS);
}

struct sleeper {
    uint32_t *word;
    uint32_t bitset;
    int *started, *woken;
    int op;
    pthread_t thread;
};

static void *sleeper_main(void *arg)
{
    struct sleeper *s = arg;
    __atomic_add_fetch(s->started, 1, __ATOMIC_SEQ_CST);
    CHECK_EQ(futex(s->word, s->op, 0, NULL, NULL, s->bitset), 0);
    __atomic_add_fetch(s->woken, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

#define SLEEPERS 12
struct crowd {
    uint32_t word, word2;
    int started, woken[2];
    struct sleeper s[SLEEPERS];
};

/* Half of them with bit 1, half with bit 2. */
static void crowd_start(struct crowd *c, int op)
{
    for (int i = 0; i < SLEEPERS; i++) {
        c->s[i] = (struct sleeper){&c->word, i % 2 ? 2 : 1, &c->started, &c->woken[i % 2], op, 0};
        CHECK_EQ(pthread_create(&c->s[i].thread, NULL, sleeper_main, &c->s[i]), 0);
    }
    await_sleepers(&c->started, SLEEPERS);
}

static void crowd_join(struct crowd *c)
{
    for (int i = 0; i < SLEEPERS; i++)
        CHECK_EQ(pthread_join(c->s[i].thread, NULL), 0);
    CHECK_EQ(c->woken[0] + c->woken[1], SLEEPERS);
}

TEST(wake_counts)
{
    static struct crowd c;
    crowd_start(&c, FUTEX_WAIT_BITSET_PRIVATE);
    /* Not the shared one: another key. */
    CHECK_EQ(futex(&c.word, FUTEX_WAKE_BITSET_PRIVATE, 3, NULL, NULL, 4), 0);
    CHECK_EQ(futex(&c.word, FUTEX_WAKE_BITSET_PRIVATE, 2, NULL, NULL, 1), 2);
    conf_await(&c.woken[0], 2);
    CHECK_EQ(c.woken[1], 0);
    CHECK_EQ(futex(&c.word, FUTEX_WAKE_PRIVATE, 0, NULL, NULL, 0), 1);
    CHECK_EQ(futex(&c.word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0), SLEEPERS - 3);
    crowd_join(&c);
}

TEST(requeue)
{
    static struct crowd c;
    crowd_start(&c, FUTEX_WAIT_BITSET_PRIVATE);
    CHECK_ERRNO(futex_count(&c.word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 3, &c.word2, 7), EAGAIN);
    CHECK_ERRNO(futex_count(&c.word, FUTEX_CMP_REQUEUE_PRIVATE, (uint32_t)-1, 3, &c.word2, 0),
                EINVAL);
    CHECK_EQ(futex_count(&c.word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 3, &c.word2, 0), 4);
    CHECK_EQ(futex_count(&c.word, FUTEX_REQUEUE_PRIVATE, 2, 1, &c.word2, 0), 3);
    CHECK_EQ(futex(&c.word2, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0), 4);
    CHECK_EQ(futex(&c.word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0), SLEEPERS - 7);
    crowd_join(&c);
}

TEST(wake_op)
{
    static struct crowd c;
    crowd_start(&c, FUTEX_WAIT_BITSET_PRIVATE);
    /* add -1 to word2 (10), and wake there only if it was below 5. */
    c.word2 = 10;
    const uint32_t add = 1u << 28 | 2u << 24 | 0xfffu << 12 | 5;
    CHECK_EQ(futex_count(&c.word, FUTEX_WAKE_OP_PRIVATE, 2, 9, &c.word2, add), 2);
    CHECK_EQ(c.word2, 9);
    /* or 1 << 4, if equal 9: then both, word2 being the waiters' own here. */
    uint32_t other = 0;
    c.word = 9;
    const uint32_t set = 10u << 28 | 0u << 24 | 4u << 12 | 9;
    CHECK_EQ(futex_count(&other, FUTEX_WAKE_OP_PRIVATE, 1, 3, &c.word, set), 3);
    CHECK_EQ(c.word, 25);
    CHECK_ERRNO(futex_count(&other, FUTEX_WAKE_OP_PRIVATE, 1, 3, &c.word, 7u << 28), ENOSYS);
    CHECK_ERRNO(futex_count(&other, FUTEX_WAKE_OP_PRIVATE, 1, 3, (void *)16, set), EFAULT);
    CHECK_EQ(futex(&c.word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0), SLEEPERS - 5);
    crowd_join(&c);
}

TEST(between_processes)
{
    uint32_t *word = conf_shared(CONF_PAGE);
    int *started = (int *)(word + 1);
    pid_t pids[3];
    for (int i = 0; i < 3; i++) {
        pids[i] = conf_fork();
        if (pids[i] == 0) {
            __atomic_add_fetch(started, 1, __ATOMIC_SEQ_CST);
            _exit(futex(word, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 ? 0 : 1);
        }
    }
    await_children(started, pids, 3);
    /* A private key is this address space's alone. */
    CHECK_EQ(futex(word, FUTEX_WAKE_PRIVATE, 3, NULL, NULL, 0), 0);
    CHECK_EQ(futex(word, FUTEX_WAKE, 3, NULL, NULL, 0), 3);
    reap(3);
}

TEST(through_two_mappings_of_a_file)
{
    conf_put("words", "");
    OK(truncate("words", (off_t)(2 * CONF_PAGE)));
    int fd = OK(open("words", O_RDWR));
    uint32_t *a = OK(mmap(NULL, 2 * CONF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    uint32_t *b = OK(mmap(NULL, CONF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, CONF_PAGE));
    int *started = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        *started = 1;
        _exit(futex(b + 3, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 ? 0 : 1);
    }
    await_children(started, &pid, 1);
    CHECK_EQ(futex(a + 3, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
    CHECK_EQ(futex(a + 3 + CONF_PAGE / 4, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
    CHECK_EXIT(pid, 0);
}

static void ignore_signal(int sig)
{
    (void)sig;
}

TEST(interrupted)
{
    uint32_t word = 0;
    struct timespec ts = {CONF_PATIENCE_S, 0};
    /* Again and again: the first may come before the call. */
    const struct itimerspec often = {{0, 50 * 1000 * 1000}, {0, 50 * 1000 * 1000}};
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_t timer;
    OK(timer_create(CLOCK_MONOTONIC, &ev, &timer));
    conf_handler(SIGUSR1, ignore_signal, SA_RESTART);
    OK(timer_settime(timer, 0, &often, NULL));
    /* With a timeout it is not restarted once a handler has run. */
    CHECK_ERRNO(futex(&word, FUTEX_WAIT, 0, &ts, NULL, 0), EINTR);
    conf_handler(SIGUSR1, ignore_signal, 0);
    OK(timer_settime(timer, 0, &often, NULL));
    CHECK_ERRNO(futex(&word, FUTEX_WAIT, 0, NULL, NULL, 0), EINTR);
}

/* ---- owners ---- */

struct pi_shared {
    uint32_t word;
    int started, got;
};

TEST(pi_basics)
{
    struct pi_shared *p = conf_shared(CONF_PAGE);
    const uint32_t self = (uint32_t)own_tid();
    pid_t pids[2];
    CHECK_ERRNO(futex(&p->word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0), EPERM);
    OK(futex(&p->word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
    CHECK_EQ(p->word & FUTEX_TID_MASK, self);
    CHECK_ERRNO(futex(&p->word, FUTEX_LOCK_PI, 0, NULL, NULL, 0), EDEADLK);
    for (int i = 0; i < 2; i++) {
        pids[i] = conf_fork();
        if (pids[i] == 0) {
            struct timespec past = {1, 0};
            CHECK_ERRNO(futex(&p->word, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0), EAGAIN);
            CHECK_ERRNO(futex(&p->word, FUTEX_LOCK_PI, 0, &past, NULL, 0), ETIMEDOUT);
            CHECK_ERRNO(futex(&p->word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0), EPERM);
            __atomic_add_fetch(&p->started, 1, __ATOMIC_SEQ_CST);
            OK(futex(&p->word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
            CHECK_EQ(p->word & FUTEX_TID_MASK, own_tid());
            __atomic_add_fetch(&p->got, 1, __ATOMIC_SEQ_CST);
            OK(futex(&p->word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
            _exit(0);
        }
    }
    await_children(&p->started, pids, 2);
    CHECK_EQ(p->got, 0);
    CHECK(p->word & FUTEX_WAITERS);
    OK(futex(&p->word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
    reap(2);
    CHECK_EQ(p->got, 2);
    /* An owner that does not exist. */
    p->word = 1 << 22;
    CHECK_ERRNO(futex(&p->word, FUTEX_LOCK_PI, 0, NULL, NULL, 0), ESRCH);
}

static pthread_mutex_t *shared_mutex(int protocol, int robust)
{
    pthread_mutex_t *m = conf_shared(CONF_PAGE);
    pthread_mutexattr_t a;
    CHECK_EQ(pthread_mutexattr_init(&a), 0);
    CHECK_EQ(pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED), 0);
    CHECK_EQ(pthread_mutexattr_setprotocol(&a, protocol), 0);
    CHECK_EQ(pthread_mutexattr_setrobust(&a, robust), 0);
    CHECK_EQ(pthread_mutex_init(m, &a), 0);
    return m;
}

static void owner_ends(int protocol, bool while_waiting)
{
    pthread_mutex_t *m = shared_mutex(protocol, PTHREAD_MUTEX_ROBUST);
    int *state = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK_EQ(pthread_mutex_lock(m), 0);
        *state = 1;
        if (while_waiting) {
            conf_await(state, 2);
            conf_await_asleep(getppid());
        }
        _exit(0);
    }
    conf_await(state, 1);
    *state = 2;
    if (!while_waiting)
        CHECK_EXIT(pid, 0);
    CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD);
    CHECK_EQ(pthread_mutex_consistent(m), 0);
    CHECK_EQ(pthread_mutex_unlock(m), 0);
    CHECK_EQ(pthread_mutex_lock(m), 0);
    CHECK_EQ(pthread_mutex_unlock(m), 0);
}

TEST(robust_owner_ends)
{
    owner_ends(PTHREAD_PRIO_NONE, false);
    owner_ends(PTHREAD_PRIO_NONE, true);
}

TEST(robust_pi_owner_ends)
{
    owner_ends(PTHREAD_PRIO_INHERIT, false);
    owner_ends(PTHREAD_PRIO_INHERIT, true);
}

TEST(robust_list_calls)
{
    struct robust_list_head head = {{&head.list}, 8, NULL}, *got;
    size_t size = 0;
    CHECK_ERRNO(syscall(SYS_set_robust_list, &head, sizeof(head) - 1), EINVAL);
    OK((int)syscall(SYS_set_robust_list, &head, sizeof(head)));
    OK((int)syscall(SYS_get_robust_list, 0, &got, &size));
    CHECK(got == &head);
    CHECK_EQ(size, sizeof(head));
    CHECK_ERRNO(syscall(SYS_get_robust_list, 1 << 22, &got, &size), ESRCH);
    CHECK_ERRNO(syscall(SYS_get_robust_list, 0, (void *)16, &size), EFAULT);
    OK((int)syscall(SYS_set_robust_list, NULL, sizeof(head)));
}

/* A list that runs in a circle, or into nothing, ends with its thread. */
TEST(robust_list_hostile)
{
    for (int kind = 0; kind < 3; kind++) {
        pid_t pid = conf_fork();
        if (pid == 0) {
            static struct robust_list loop[2];
            static struct robust_list_head head;
            loop[0].next = &loop[1];
            loop[1].next = &loop[0];
            head.list.next = kind == 0 ? &loop[0] : kind == 1 ? (void *)16 : (void *)-8L;
            head.futex_offset = kind == 2 ? LONG_MAX : 16;
            head.list_op_pending = kind == 2 ? (void *)3 : NULL;
            OK((int)syscall(SYS_set_robust_list, &head, sizeof(head)));
            _exit(0);
        }
        CHECK_EXIT(pid, 0);
    }
}

static pthread_mutex_t ping_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ping_cond = PTHREAD_COND_INITIALIZER;
static int ping_turn;

static void *return_at_once(void *arg)
{
    return arg;
}

TEST(clear_child_tid)
{
    for (int i = 0; i < 50; i++) {
        pthread_t t;
        void *r;
        CHECK_EQ(pthread_create(&t, NULL, return_at_once, &ping_turn), 0);
        CHECK_EQ(pthread_join(t, &r), 0);
        CHECK(r == &ping_turn);
    }
}

static void *ping_main(void *arg)
{
    const int self = arg != NULL;
    for (int i = 0; i < 2000; i++) {
        CHECK_EQ(pthread_mutex_lock(&ping_mutex), 0);
        while (ping_turn != self)
            CHECK_EQ(pthread_cond_wait(&ping_cond, &ping_mutex), 0);
        ping_turn = !self;
        CHECK_EQ(pthread_cond_broadcast(&ping_cond), 0);
        CHECK_EQ(pthread_mutex_unlock(&ping_mutex), 0);
    }
    return NULL;
}

TEST(no_wake_up_is_lost)
{
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, ping_main, i ? t : NULL), 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
}

/* ---- moving waiters to a lock with an owner ---- */

#define MOVERS 4
struct movers {
    uint32_t cond, lock;
    int started, got, inside;
    long results[MOVERS];
    struct timespec *deadline;
};
static struct movers mv;

static void *mover_main(void *arg)
{
    const long i = (long)arg;
    __atomic_add_fetch(&mv.started, 1, __ATOMIC_SEQ_CST);
    long r = futex(&mv.cond, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, mv.deadline, &mv.lock, 0);
    mv.results[i] = r == 0 ? 0 : errno;
    if (r == 0) {
        CHECK_EQ(__atomic_load_n(&mv.lock, __ATOMIC_SEQ_CST) & FUTEX_TID_MASK, own_tid());
        CHECK_EQ(__atomic_add_fetch(&mv.inside, 1, __ATOMIC_SEQ_CST), 1);
        conf_sleep_ms(5);
        __atomic_sub_fetch(&mv.inside, 1, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(&mv.got, 1, __ATOMIC_SEQ_CST);
        OK(futex(&mv.lock, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    }
    return NULL;
}

static void movers_start(pthread_t *t, int count, struct timespec *deadline)
{
    memset(&mv, 0, sizeof(mv));
    mv.deadline = deadline;
    for (long i = 0; i < count; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, mover_main, (void *)i), 0);
    await_sleepers(&mv.started, count);
}

TEST(requeue_pi)
{
    pthread_t t[MOVERS];
    movers_start(t, MOVERS, NULL);
    CHECK_ERRNO(futex_count(&mv.cond, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 9, &mv.lock, 5), EAGAIN);
    CHECK_ERRNO(futex_count(&mv.cond, FUTEX_CMP_REQUEUE_PI_PRIVATE, 2, 9, &mv.lock, 0), EINVAL);
    CHECK_ERRNO(futex_count(&mv.cond, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 9, &mv.cond, 0), EINVAL);
    /* Not to be woken or moved in another way. */
    uint32_t other = 0;
    CHECK_ERRNO(futex_count(&mv.cond, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 9, &other, 0), EINVAL);
    CHECK_ERRNO(futex(&mv.cond, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0), EINVAL);
    CHECK_ERRNO(futex_count(&mv.cond, FUTEX_REQUEUE_PRIVATE, 0, 1, &other, 0), EINVAL);
    CHECK_EQ(mv.got, 0);
    /* The lock is free: the first gets it, all others queue up for it. */
    CHECK_EQ(futex_count(&mv.cond, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, INT_MAX, &mv.lock, 0), MOVERS);
    for (int i = 0; i < MOVERS; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
    CHECK_EQ(mv.got, MOVERS);
    CHECK_EQ(mv.lock & FUTEX_TID_MASK, 0);
    CHECK_EQ(futex_count(&mv.cond, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 9, &mv.lock, 0), 0);
}

TEST(requeue_pi_held)
{
    pthread_t t[MOVERS];
    movers_start(t, MOVERS, NULL);
    OK(futex(&mv.lock, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    /* One more than asked for, as one is to be woken. */
    CHECK_EQ(futex_count(&mv.cond, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 1, &mv.lock, 0), 2);
    conf_sleep_ms(30);
    CHECK_EQ(mv.got, 0);
    CHECK(mv.lock & FUTEX_WAITERS);
    OK(futex(&mv.lock, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    conf_await(&mv.got, 2);
    CHECK_EQ(futex_count(&mv.cond, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 0, &mv.lock, 0), 1);
    conf_await(&mv.got, 3);
    CHECK_EQ(futex_count(&mv.cond, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 0, &mv.lock, 0), 1);
    for (int i = 0; i < MOVERS; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
}

TEST(requeue_pi_timeout)
{
    pthread_t t[1];
    struct timespec ts;
    OK(clock_gettime(CLOCK_MONOTONIC, &ts));
    ts.tv_sec += 3;
    CHECK_ERRNO(futex(&mv.cond, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 1, NULL, &mv.lock, 0), EAGAIN);
    CHECK_ERRNO(futex(&mv.cond, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, NULL, &mv.cond, 0), EINVAL);
    movers_start(t, 1, &ts);
    OK(futex(&mv.lock, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    CHECK_EQ(futex_count(&mv.cond, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 0, &mv.lock, 0), 1);
    CHECK_EQ(pthread_join(t[0], NULL), 0);
    CHECK_EQ(mv.results[0], ETIMEDOUT);
    OK(futex(&mv.lock, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    OK(clock_gettime(CLOCK_MONOTONIC, &ts));
    movers_start(t, 1, &ts);
    CHECK_EQ(pthread_join(t[0], NULL), 0);
    CHECK_EQ(mv.results[0], ETIMEDOUT);
}

/* ---- futex2 ---- */

struct waitv {
    uint64_t val, addr;
    uint32_t flags, reserved;
};

#ifndef SYS_futex_wake
#define SYS_futex_wake 454
#define SYS_futex_wait 455
#define SYS_futex_requeue 456
#endif
#define PRIVATE32 (FUTEX_32 | FUTEX_PRIVATE_FLAG)

static uint32_t futex2_words[2];
static int futex2_started;

static void *futex2_main(void *arg)
{
    __atomic_add_fetch(&futex2_started, 1, __ATOMIC_SEQ_CST);
    OK(syscall(SYS_futex_wait, &futex2_words[0], 0, (long)arg, PRIVATE32, NULL, 0));
    return NULL;
}

TEST(futex2)
{
    uint32_t word = 3;
    struct timespec past = {1, 0};
    pthread_t t[3];
    if (syscall(SYS_futex_wake, &word, 1ul, 1, PRIVATE32) < 0 && errno == ENOSYS)
        conf_skip("before Linux 6.7");
    CHECK_ERRNO(syscall(SYS_futex_wait, &word, 4ul, 1ul, PRIVATE32, NULL, 0), EAGAIN);
    CHECK_ERRNO(syscall(SYS_futex_wait, &word, 3ul, 0ul, PRIVATE32, NULL, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_wait, &word, 3ul, 1ul << 32, PRIVATE32, NULL, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_wait, &word, 3ul, 1ul, 0, NULL, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_wait, &word, 3ul, 1ul, PRIVATE32, &past, 7), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_wait, &word, 3ul, 1ul, PRIVATE32, &past, CLOCK_REALTIME),
                ETIMEDOUT);
    CHECK_ERRNO(syscall(SYS_futex_wake, &word, 0ul, 1, PRIVATE32), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_wake, &word, 1ul, 1, 0xf0), EINVAL);
    for (long i = 0; i < 3; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, futex2_main, (void *)(1l << i)), 0);
    await_sleepers(&futex2_started, 3);
    CHECK_EQ(syscall(SYS_futex_wake, &futex2_words[0], 1ul, 0, PRIVATE32), 0);
    CHECK_EQ(syscall(SYS_futex_wake, &futex2_words[0], 8ul, 3, PRIVATE32), 0);
    CHECK_EQ(syscall(SYS_futex_wake, &futex2_words[0], 2ul, 3, PRIVATE32), 1);
    struct waitv v[2] = {{0, (uint64_t)(uintptr_t)&futex2_words[0], PRIVATE32, 0},
                         {0, (uint64_t)(uintptr_t)&futex2_words[1], PRIVATE32, 0}};
    CHECK_ERRNO(syscall(SYS_futex_requeue, v, 1, 1, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_requeue, NULL, 0, 1, 1), EINVAL);
    v[0].val = 1;
    CHECK_ERRNO(syscall(SYS_futex_requeue, v, 0, 1, 1), EAGAIN);
    v[0].val = 0;
    CHECK_EQ(syscall(SYS_futex_requeue, v, 0, 1, 1), 2);
    CHECK_EQ(syscall(SYS_futex_wake, &futex2_words[1], 0xfful, 3, PRIVATE32), 1);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
}

/* ---- futex_waitv ---- */

static struct waitv *waitv_entries(uint32_t *words, unsigned count)
{
    static struct waitv v[FUTEX_WAITV_MAX + 1];
    for (unsigned i = 0; i < count; i++)
        v[i] = (struct waitv){words[i], (uint64_t)(uintptr_t)&words[i],
                              FUTEX_32 | FUTEX_PRIVATE_FLAG, 0};
    return v;
}

TEST(waitv_errors)
{
    uint32_t words[FUTEX_WAITV_MAX + 1] = {0};
    struct waitv *v = waitv_entries(words, FUTEX_WAITV_MAX + 1);
    struct timespec past = {1, 0};
    CHECK_ERRNO(syscall(SYS_futex_waitv, v, 0, 0, NULL, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_waitv, v, FUTEX_WAITV_MAX + 1, 0, NULL, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_waitv, v, 1, 1, NULL, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_waitv, v, 2, 0, &past, CLOCK_MONOTONIC), ETIMEDOUT);
    CHECK_ERRNO(syscall(SYS_futex_waitv, v, 2, 0, &past, CLOCK_REALTIME), ETIMEDOUT);
    CHECK_ERRNO(syscall(SYS_futex_waitv, v, 2, 0, &past, CLOCK_TAI), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_waitv, (void *)16, 2, 0, &past, CLOCK_REALTIME), EFAULT);
    v[1].val = 3;
    CHECK_ERRNO(syscall(SYS_futex_waitv, v, 2, 0, NULL, 0), EAGAIN);
    v[1].flags = 0;
    CHECK_ERRNO(syscall(SYS_futex_waitv, v, 2, 0, NULL, 0), EINVAL);
    v[1].flags = FUTEX_32;
    v[1].reserved = 1;
    CHECK_ERRNO(syscall(SYS_futex_waitv, v, 2, 0, NULL, 0), EINVAL);
}

static uint32_t waitv_words[3];
static int waitv_started;

static void *waitv_main(void *arg)
{
    struct waitv *v = waitv_entries(waitv_words, 3);
    __atomic_store_n(&waitv_started, 1, __ATOMIC_SEQ_CST);
    *(long *)arg = syscall(SYS_futex_waitv, v, 3, 0, NULL, 0);
    return NULL;
}

TEST(waitv_wakes)
{
    pthread_t t;
    long index = -1;
    CHECK_EQ(pthread_create(&t, NULL, waitv_main, &index), 0);
    await_sleepers(&waitv_started, 1);
    CHECK_EQ(futex(&waitv_words[2], FUTEX_WAKE_PRIVATE, 5, NULL, NULL, 0), 1);
    CHECK_EQ(pthread_join(t, NULL), 0);
    CHECK_EQ(index, 2);
    CHECK_EQ(futex(&waitv_words[0], FUTEX_WAKE_PRIVATE, 5, NULL, NULL, 0), 0);
}
