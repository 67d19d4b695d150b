/* A static guest program that measures itself: bench_micro [name...] prints a line "name
 * nanoseconds" for each, the median of batches of one round's cost. Run natively it shows the
 * host's own cost. */
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BATCHES 9
#define BATCH_NS 10e6

static char *self;
static int file_fd, pair[2];
static const char *dir = "/tmp";
static char path[256];

static double clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(1);
}

/* glibc's syscall(3): `mov 8(%rsp),%r9; syscall`, behind a call. */
static void one_getppid(void)
{
    (void)syscall(SYS_getppid);
}

/* As compilers make it of an inline wrapper. */
static void one_getppid_inline(void)
{
    long ret;

    __asm__ volatile("movl $110, %%eax\n\tsyscall" : "=a"(ret) : : "rcx", "r11", "memory");
}

/* A shape nobody knows: the number comes from elsewhere, two bytes before. */
static void one_getppid_odd(void)
{
    long ret = SYS_getppid;

    __asm__ volatile("nop\n\tnop\n\tsyscall\n\tnop" : "+a"(ret) : : "rcx", "r11", "memory");
}

/* As one_getppid, of what platforms have to ask for. */
static void one_getpgrp(void)
{
    (void)syscall(SYS_getpgrp);
}

static void one_getpid(void)
{
    (void)getpid();
}

static void one_clock(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
}

static void one_yield(void)
{
    (void)syscall(SYS_sched_yield);
}

static void one_openclose(void)
{
    int fd = open(path, O_RDONLY);

    need(fd >= 0, "open");
    close(fd);
}

static void one_stat(void)
{
    struct stat st;

    need(stat(path, &st) == 0, "stat");
}

static void one_read(void)
{
    char buf[4096];

    need(pread(file_fd, buf, sizeof(buf), 0) == (ssize_t)sizeof(buf), "pread");
}

static void one_write(void)
{
    static char buf[4096];

    need(pwrite(file_fd, buf, sizeof(buf), 0) == (ssize_t)sizeof(buf), "pwrite");
}

static void one_create(void)
{
    char name[300];

    snprintf(name, sizeof(name), "%s.new", path);
    int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);
    need(fd >= 0, "create");
    close(fd);
    need(unlink(name) == 0, "unlink");
}

static void one_fork(void)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    need(pid > 0 && waitpid(pid, NULL, 0) == pid, "fork");
}

static void one_spawn(void)
{
    char *argv[] = {self, (char *)"--true", NULL}, *env[] = {NULL};
    pid_t pid;

    need(posix_spawn(&pid, self, NULL, NULL, argv, env) == 0 && waitpid(pid, NULL, 0) == pid,
         "spawn");
}

static void *nothing(void *arg)
{
    return arg;
}

static void one_thread(void)
{
    pthread_t t;

    need(pthread_create(&t, NULL, nothing, NULL) == 0 && pthread_join(t, NULL) == 0, "thread");
}

static void one_mmap(void)
{
    const size_t size = 1 << 20;
    char *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    need(m != MAP_FAILED, "mmap");
    for (size_t i = 0; i < size; i += 4096)
        m[i] = 1;
    need(munmap(m, size) == 0, "munmap");
}

/* A byte there and a byte back, to a process that answers. */
static int there[2], back[2];
static pid_t peer;

static void peer_start(int r, int w)
{
    peer = fork();
    if (peer == 0) {
        char c;
        while (read(r, &c, 1) == 1)
            if (write(w, &c, 1) != 1)
                break;
        _exit(0);
    }
    need(peer > 0, "fork");
}

static void peer_end(void)
{
    kill(peer, SIGKILL);
    waitpid(peer, NULL, 0);
}

static void pipe_begin(void)
{
    need(pipe(there) == 0 && pipe(back) == 0, "pipe");
    peer_start(there[0], back[1]);
}

static void one_pipe(void)
{
    char c = 1;

    need(write(there[1], &c, 1) == 1 && read(back[0], &c, 1) == 1, "pipe");
}

static void unix_begin(void)
{
    need(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    peer_start(pair[1], pair[1]);
}

static void one_unix(void)
{
    char c = 1;

    need(write(pair[0], &c, 1) == 1 && read(pair[0], &c, 1) == 1, "unix");
}

static const struct kind {
    const char *name;
    void (*fn)(void);
    void (*begin)(void);
    void (*end)(void);
} kinds[] = {
    {"getppid", one_getppid, NULL, NULL},
    {"getppid_inline", one_getppid_inline, NULL, NULL},
    {"getppid_odd", one_getppid_odd, NULL, NULL},
    {"getpgrp", one_getpgrp, NULL, NULL},
    {"getpid", one_getpid, NULL, NULL},
    {"clock_gettime", one_clock, NULL, NULL},
    {"sched_yield", one_yield, NULL, NULL},
    {"open_close", one_openclose, NULL, NULL},
    {"stat", one_stat, NULL, NULL},
    {"pread_4k", one_read, NULL, NULL},
    {"pwrite_4k", one_write, NULL, NULL},
    {"create_unlink", one_create, NULL, NULL},
    {"mmap_touch_munmap_1m", one_mmap, NULL, NULL},
    {"thread_create_join", one_thread, NULL, NULL},
    {"fork_exit_wait", one_fork, NULL, NULL},
    {"spawn_exec_wait", one_spawn, NULL, NULL},
    {"pipe_ping_pong", one_pipe, pipe_begin, peer_end},
    {"unix_ping_pong", one_unix, unix_begin, peer_end},
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double batch(const struct kind *k, long rounds)
{
    double start = clock_ns(CLOCK_MONOTONIC);

    for (long r = 0; r < rounds; r++)
        k->fn();
    return clock_ns(CLOCK_MONOTONIC) - start;
}

static void measure(const struct kind *k)
{
    double ns[BATCHES];
    long rounds = 1;

    if (k->begin != NULL)
        k->begin();
    while (batch(k, rounds) < BATCH_NS / 4 && rounds < 1 << 24)
        rounds *= 2;
    rounds *= 2;
    for (int i = 0; i < BATCHES; i++)
        ns[i] = batch(k, rounds) / (double)rounds;
    if (k->end != NULL)
        k->end();
    qsort(ns, BATCHES, sizeof(ns[0]), compare);
    printf("%s %.1f\n", k->name, ns[BATCHES / 2]);
    fflush(stdout);
}

/* So many rounds between a byte that is read and a line that is written. */
static void play(long rounds)
{
    char c;

    pipe_begin();
    puts("ready");
    fflush(stdout);
    need(read(0, &c, 1) == 1, "start");
    for (long r = 0; r < rounds; r++)
        one_pipe();
    puts("done");
    fflush(stdout);
    need(read(0, &c, 1) >= 0, "end");
    peer_end();
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--true") == 0)
        return 0;
    if (argc > 1 && strcmp(argv[1], "--idle") == 0) {
        puts("idle");
        fflush(stdout);
        pause();
    }
    if (argc > 2 && strcmp(argv[1], "--play") == 0) {
        play(strtol(argv[2], NULL, 10));
        return 0;
    }
    self = argv[0];
    snprintf(path, sizeof(path), "%s/bench-file.%d", dir, (int)getpid());
    file_fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    need(file_fd >= 0, path);
    one_write();
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        bool wanted = argc < 2;
        for (int a = 1; a < argc; a++)
            wanted |= strcmp(argv[a], kinds[i].name) == 0;
        if (wanted)
            measure(&kinds[i]);
    }
    unlink(path);
    return 0;
}
