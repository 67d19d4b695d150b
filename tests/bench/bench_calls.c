/* A guest program that measures itself: bench_calls KIND [rounds], kinds as in main. Prints
 * nanoseconds for one round, the median of nine batches. Static; native = the host's own cost. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BATCHES 9

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void one_getppid(void)
{
    syscall(SYS_getppid);
}

static void one_fork(void)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    if (pid < 0 || waitpid(pid, NULL, 0) != pid)
        exit(1);
}

static void *nothing(void *arg)
{
    return arg;
}

static void one_thread(void)
{
    pthread_t t;

    if (pthread_create(&t, NULL, nothing, NULL) != 0 || pthread_join(t, NULL) != 0)
        exit(1);
}

static int write_fd;

static void one_write(void)
{
    char buf[4096] = {0};

    if (pwrite(write_fd, buf, sizeof(buf), 0) != (ssize_t)sizeof(buf))
        exit(1);
}

static void one_spawn(void)
{
    static char name[] = "bench_true";
    char *argv[] = {name, NULL}, *envp[] = {NULL};
    pid_t pid;

    if (posix_spawn(&pid, "/bin/bench_true", NULL, NULL, argv, envp) != 0 ||
        waitpid(pid, NULL, 0) != pid)
        exit(1);
}

/* Two threads in turn, each waking the other. */
static int turn;

static void turn_wait(int self)
{
    while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != self)
        syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, !self, NULL, NULL, 0);
}

static void turn_give(int other)
{
    __atomic_store_n(&turn, other, __ATOMIC_RELEASE);
    syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *turn_main(void *arg)
{
    for (;;) {
        turn_wait(1);
        turn_give(0);
    }
    return arg;
}

static void one_futex(void)
{
    static pthread_t other;

    if (!other && pthread_create(&other, NULL, turn_main, NULL) != 0)
        exit(1);
    turn_give(1);
    turn_wait(0);
}

static volatile int signals;

static void on_signal(int sig)
{
    (void)sig;
    signals++;
}

static void one_signal(void)
{
    if (signals == 0)
        signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
}

#define MAP_SIZE (1u << 20)

static void one_map(void)
{
    char *p = mmap(NULL, MAP_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        exit(1);
    for (size_t i = 0; i < MAP_SIZE; i += 4096)
        p[i] = 1;
    munmap(p, MAP_SIZE);
}

/* A process of 64 MiB forks, and the child writes one of them. */
#define BIG_SIZE (64u << 20)

static void one_cow(void)
{
    static char *big;

    if (!big) {
        big = mmap(NULL, BIG_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (big == MAP_FAILED)
            exit(1);
        memset(big, 1, BIG_SIZE);
    }
    pid_t pid = fork();
    if (pid == 0) {
        for (size_t i = 0; i < MAP_SIZE; i += 4096)
            big[i] = 2;
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, NULL, 0) != pid)
        exit(1);
}

/* Memory that is all there: line after line, and here and there, each place known from the last. */
static unsigned char *walk_memory(void)
{
    static unsigned char *mem;

    if (!mem) {
        mem = mmap(NULL, BIG_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mem == MAP_FAILED)
            exit(1);
        memset(mem, 0, BIG_SIZE);
    }
    return mem;
}

static volatile unsigned walked;

static void one_walk(void)
{
    const unsigned char *mem = walk_memory();
    unsigned sum = 0;

    for (size_t i = 0; i < BIG_SIZE; i += 64)
        sum += mem[i];
    walked = sum;
}

static void one_wander(void)
{
    const unsigned char *mem = walk_memory();
    unsigned at = 0;

    for (int i = 0; i < 100000; i++)
        at = (at * 1664525u + 1013904223u + mem[at % BIG_SIZE]) & 0x7fffffffu;
    walked = at;
}

/* Work that two processes do at once: half the time of one is the most there is to win. */
static void spin(void)
{
    for (volatile int i = 0; i < 20000000; i++)
        ;
}

static void one_busy(void)
{
    spin();
}

static void one_busy2(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        spin();
        _exit(0);
    }
    spin();
    if (pid < 0 || waitpid(pid, NULL, 0) != pid)
        exit(1);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*fn)(void);
        long rounds;
    } kinds[] = {{"getppid", one_getppid, 20000},
                 {"fork", one_fork, 60},
                 {"thread", one_thread, 200},
                 {"spawn", one_spawn, 40},
                 {"futex", one_futex, 1000},
                 {"signal", one_signal, 2000},
                 {"map", one_map, 50},
                 {"cow", one_cow, 20},
                 {"walk", one_walk, 5},
                 {"wander", one_wander, 1},
                 {"busy", one_busy, 1},
                 {"busy2", one_busy2, 1},
                 {"write", one_write, 5000}};
    double batch[BATCHES];

    if (argc < 2)
        return 2;
    if (strcmp(argv[1], "idle") == 0) {
        puts("idle");
        fflush(stdout);
        pause();
    }
    write_fd = open("/tmp/bench-file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(argv[1], kinds[i].name) != 0)
            continue;
        long rounds = argc > 2 ? strtol(argv[2], NULL, 10) : kinds[i].rounds;
        for (int b = 0; b < BATCHES; b++) {
            double start = now_ns();
            for (long r = 0; r < rounds; r++)
                kinds[i].fn();
            batch[b] = (now_ns() - start) / (double)rounds;
        }
        qsort(batch, BATCHES, sizeof(batch[0]), compare);
        printf("%.0f\n", batch[BATCHES / 2]);
        return 0;
    }
    return 2;
}
