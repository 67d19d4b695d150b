/* A static guest program that measures the network from inside: bench_net WHAT [ARG...]
 *   pingpong unix|tcp         microseconds of a round trip of one byte between two processes
 *   stream                    MiB/s of a TCP connection over loopback
 *   sink PORT, source ADDR PORT   MiB/s of one between two places, as the source sees it
 *   idle COUNT                makes as many connections over loopback, says "ready" and sleeps;
 *                             0 for what the program costs without them */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 4000
#define BATCHES 7
#define STREAM_S 2.0
#define PIECE (256u << 10)
#define TRIES 200

static char piece[PIECE];

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(1);
}

static int number(const char *text)
{
    char *end;
    const long n = strtol(text, &end, 10);

    if (*text != '\0' && *end == '\0' && n >= 0 && n <= 1000000)
        return (int)n;
    fprintf(stderr, "no number: %s\n", text);
    exit(2);
}

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static int listening(uint16_t port, uint32_t address, int backlog)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

    a.sin_addr.s_addr = htonl(address);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    need(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0, "bind");
    need(listen(fd, backlog) == 0, "listen");
    return fd;
}

static void tcp_pair(int fd[2])
{
    int l = listening(0, INADDR_LOOPBACK, 1), on = 1;
    struct sockaddr_in a;
    socklen_t len = sizeof(a);

    need(getsockname(l, (struct sockaddr *)&a, &len) == 0, "getsockname");
    fd[0] = socket(AF_INET, SOCK_STREAM, 0);
    need(connect(fd[0], (struct sockaddr *)&a, sizeof(a)) == 0, "connect");
    fd[1] = accept(l, NULL, NULL);
    need(fd[1] >= 0, "accept");
    (void)close(l);
    for (int i = 0; i < 2; i++)
        need(setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0, "nodelay");
}

static void echo(int fd)
{
    char c;

    while (read(fd, &c, 1) == 1)
        if (write(fd, &c, 1) != 1)
            break;
    _exit(0);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void pingpong(const char *kind)
{
    double took[BATCHES];
    int fd[2];
    char c = 'x';

    if (strcmp(kind, "tcp") == 0)
        tcp_pair(fd);
    else
        need(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0, "socketpair");
    pid_t pid = fork();
    need(pid >= 0, "fork");
    (void)close(fd[pid == 0 ? 0 : 1]);
    if (pid == 0)
        echo(fd[1]);
    for (int b = 0; b < BATCHES; b++) {
        const double from = now();
        for (int i = 0; i < ROUNDS; i++)
            need(write(fd[0], &c, 1) == 1 && read(fd[0], &c, 1) == 1, "round");
        took[b] = (now() - from) / ROUNDS * 1e6;
    }
    qsort(took, BATCHES, sizeof(took[0]), by_size);
    printf("%.3f\n", took[BATCHES / 2]);
    (void)close(fd[0]);
    (void)waitpid(pid, NULL, 0);
}

/* Sends for a while; the other side answers with how much came. */
static void source(int fd)
{
    const double from = now();
    unsigned long long got = 0;

    while (now() - from < STREAM_S)
        need(write(fd, piece, sizeof(piece)) > 0, "write");
    (void)shutdown(fd, SHUT_WR);
    need(read(fd, &got, sizeof(got)) == (ssize_t)sizeof(got), "answer");
    printf("%.1f\n", (double)got / (now() - from) / (1 << 20));
}

static void sink(int fd)
{
    unsigned long long got = 0;
    ssize_t n;

    while ((n = read(fd, piece, sizeof(piece))) > 0)
        got += (unsigned long long)n;
    need(write(fd, &got, sizeof(got)) == (ssize_t)sizeof(got), "answer");
    (void)close(fd);
}

static void stream(void)
{
    int fd[2];

    tcp_pair(fd);
    pid_t pid = fork();
    need(pid >= 0, "fork");
    (void)close(fd[pid == 0 ? 0 : 1]);
    if (pid == 0) {
        sink(fd[1]);
        _exit(0);
    }
    source(fd[0]);
    (void)waitpid(pid, NULL, 0);
}

static int dial(const char *address, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

    need(inet_pton(AF_INET, address, &a.sin_addr) == 1, "address");
    for (int i = 0; i < TRIES; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
            return fd;
        (void)close(fd);
        (void)usleep(50000);
    }
    need(false, "connect");
    return -1;
}

static void idle(int count)
{
    int l = listening(7000, INADDR_LOOPBACK, 128);

    for (int i = 0; i < count; i++) {
        (void)dial("127.0.0.1", 7000);
        need(accept(l, NULL, NULL) >= 0, "accept");
    }
    printf("ready\n");
    (void)fflush(stdout);
    for (;;)
        (void)pause();
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "pingpong") == 0 && argc > 2) {
        pingpong(argv[2]);
    } else if (strcmp(what, "stream") == 0) {
        stream();
    } else if (strcmp(what, "sink") == 0 && argc > 2) {
        sink(accept(listening((uint16_t)number(argv[2]), INADDR_ANY, 1), NULL, NULL));
    } else if (strcmp(what, "source") == 0 && argc > 3) {
        source(dial(argv[2], (uint16_t)number(argv[3])));
    } else if (strcmp(what, "idle") == 0 && argc > 2) {
        idle(number(argv[2]));
    } else {
        fprintf(stderr, "usage: bench_net pingpong|stream|sink|source|idle ...\n");
        return 2;
    }
    return 0;
}
