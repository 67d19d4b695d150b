/* A guest program that measures itself: bench_calls getppid|fork|thread|write|idle [rounds]. Prints
 * nanoseconds for one round, the median of nine batches. Static; native = the host's own cost. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
