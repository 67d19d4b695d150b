/* Pipes as splice(2), tee(2) and vmsplice(2) see them: what fits, what stays, packets. */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

CONF_FAMILY("splice");

#define PIPE 65536
#define PAGE 4096

static _Alignas(PAGE) char bytes[2 * PIPE];

static void put(int fd, size_t size)
{
    CHECK_EQ(write(fd, bytes, size), size);
}

static void put_text(int fd, const char *text)
{
    CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
}

static void get_text(int fd, const char *text)
{
    char buf[64];

    CHECK_EQ(read(fd, buf, sizeof(buf)), strlen(text));
    CHECK(memcmp(buf, text, strlen(text)) == 0);
}

static short ready(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};

    OK(poll(&p, 1, 0));
    return p.revents;
}

TEST(between_pipes_goes_what_fits)
{
    int a[2], b[2];

    OK(pipe(a));
    OK(pipe(b));
    put(a[1], 10 * PAGE);
    put(b[1], 10 * PAGE);
    CHECK_EQ(splice(a[0], NULL, b[1], NULL, PIPE, 0), 6 * PAGE);
    CHECK_ERRNO(splice(a[0], NULL, b[1], NULL, PIPE, SPLICE_F_NONBLOCK), EAGAIN);
    CHECK_EQ(read(b[0], bytes, sizeof(bytes)), PIPE);
    CHECK_EQ(splice(a[0], NULL, b[1], NULL, PIPE, 0), 4 * PAGE);
    OK(close(a[1]));
    CHECK_EQ(splice(a[0], NULL, b[1], NULL, PIPE, 0), 0);
}

TEST(vmsplice_gives_what_fits)
{
    struct iovec all = {bytes, sizeof(bytes)}, some = {bytes, 100};
    int p[2];

    OK(pipe(p));
    CHECK_EQ(vmsplice(p[1], &all, 1, 0), PIPE);
    CHECK_ERRNO(vmsplice(p[1], &all, 1, SPLICE_F_NONBLOCK), EAGAIN);
    CHECK_EQ(vmsplice(p[0], &some, 1, 0), 100);
    CHECK_EQ(read(p[0], bytes, sizeof(bytes)), PIPE - 100);
    CHECK_ERRNO(vmsplice(p[0], &all, 1, SPLICE_F_NONBLOCK), EAGAIN);
    OK(close(p[0]));
    CHECK_EQ(signal(SIGPIPE, SIG_IGN), SIG_DFL);
    CHECK_ERRNO(vmsplice(p[1], &some, 1, 0), EPIPE);
}

TEST(nonblocking_ends)
{
    int a[2], b[2];

    OK(pipe2(a, O_NONBLOCK));
    OK(pipe(b));
    CHECK_ERRNO(tee(a[0], b[1], 10, 0), EAGAIN);
    CHECK_ERRNO(splice(a[0], NULL, b[1], NULL, 10, 0), EAGAIN);
    CHECK_ERRNO(tee(b[0], a[1], 10, 0), EAGAIN);
    CHECK_ERRNO(splice(b[0], NULL, a[1], NULL, 10, 0), EAGAIN);
}

TEST(a_packet_has_a_page)
{
    char c = 'x';
    int p[2];

    OK(pipe2(p, O_DIRECT | O_NONBLOCK));
    for (int i = 0; i < PIPE / PAGE; i++)
        CHECK_EQ(write(p[1], &c, 1), 1);
    CHECK_ERRNO(write(p[1], &c, 1), EAGAIN);
    CHECK_EQ(ready(p[1]) & POLLOUT, 0);
    CHECK_ERRNO(fcntl(p[1], F_SETPIPE_SZ, PIPE / 2), EBUSY);
    CHECK_EQ(read(p[0], bytes, 100), 1);
    CHECK_EQ(ready(p[1]) & POLLOUT, POLLOUT);
    CHECK_EQ(write(p[1], &c, 1), 1);
    CHECK_ERRNO(write(p[1], &c, 1), EAGAIN);
    for (int i = 0; i < PIPE / PAGE; i++)
        CHECK_EQ(read(p[0], bytes, 100), 1);
    /* The rest of the last page is there for what is in no packet. */
    for (int i = 1; i < PIPE / PAGE; i++)
        CHECK_EQ(write(p[1], &c, 1), 1);
    OK(fcntl(p[1], F_SETFL, O_NONBLOCK));
    CHECK_EQ(write(p[1], bytes, PIPE), PAGE);
    CHECK_EQ(read(p[0], bytes, 100), 1);
}

TEST(packets_are_spliced_as_packets)
{
    struct iovec all = {bytes, sizeof(bytes)};
    int a[2], b[2];

    OK(pipe2(a, O_DIRECT));
    OK(pipe2(b, O_NONBLOCK));
    put_text(a[1], "abc");
    put_text(a[1], "de");
    CHECK_EQ(tee(a[0], b[1], 100, 0), 5);
    get_text(b[0], "abc");
    get_text(b[0], "de");
    CHECK_EQ(splice(a[0], NULL, b[1], NULL, 4, 0), 4);
    put_text(a[1], "fgh");
    get_text(a[0], "e");
    get_text(a[0], "fgh");
    get_text(b[0], "abc");
    get_text(b[0], "d");
    CHECK_ERRNO(read(b[0], bytes, 1), EAGAIN);
    put_text(a[1], "ab");
    put_text(a[1], "cd");
    CHECK_EQ(vmsplice(a[0], &all, 1, 0), 4);
}

TEST(what_is_not_taken_of_a_packet_stays)
{
    int p[2], f = OK(open("f", O_RDWR | O_CREAT | O_TRUNC, 0600));

    OK(pipe2(p, O_DIRECT));
    put_text(p[1], "abcdef");
    put_text(p[1], "gh");
    CHECK_EQ(splice(p[0], NULL, f, NULL, 2, 0), 2);
    get_text(p[0], "cdef");
    CHECK_EQ(splice(p[0], NULL, f, NULL, 100, 0), 2);
    OK(lseek(f, 0, SEEK_SET));
    /* What comes from a file is in no packet. */
    CHECK_EQ(splice(f, NULL, p[1], NULL, 2, 0), 2);
    CHECK_EQ(splice(f, NULL, p[1], NULL, 2, 0), 2);
    get_text(p[0], "abgh");
}

static void full_socket(int sv[2])
{
    OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv));
    while (write(sv[0], bytes, PAGE) > 0)
        ;
    CHECK_EQ(errno, EAGAIN);
}

TEST(nothing_moved_is_still_there)
{
    int p[2], sv[2];

    full_socket(sv);
    OK(pipe2(p, O_DIRECT | O_NONBLOCK));
    put_text(p[1], "abc");
    put_text(p[1], "de");
    CHECK_ERRNO(splice(p[0], NULL, sv[0], NULL, 100, 0), EAGAIN);
    CHECK_EQ(ready(p[0]) & POLLIN, POLLIN);
    get_text(p[0], "abc");
    get_text(p[0], "de");
}

struct race {
    int p[2], sv[2];
    _Atomic bool end;
};

static void *fill(void *arg)
{
    struct race *r = arg;
    char c = 0;

    while (!r->end)
        (void)!write(r->p[1], &c, 1);
    return NULL;
}

/* Whoever fills the room that a splice seems to have made meanwhile makes no pipe grow. */
TEST(a_pipe_stays_as_large_as_it_is)
{
    struct race r = {.end = false};
    pthread_t t;
    int queued;

    full_socket(r.sv);
    OK(pipe2(r.p, O_NONBLOCK));
    put(r.p[1], PIPE);
    CHECK_EQ(pthread_create(&t, NULL, fill, &r), 0);
    for (int i = 0; i < 2000; i++)
        CHECK_ERRNO(splice(r.p[0], NULL, r.sv[0], NULL, PIPE, 0), EAGAIN);
    r.end = true;
    CHECK_EQ(pthread_join(t, NULL), 0);
    CHECK_EQ(fcntl(r.p[0], F_GETPIPE_SZ), PIPE);
    OK(ioctl(r.p[0], FIONREAD, &queued));
    CHECK_EQ(queued, PIPE);
}

static void *splice_waits(void *arg)
{
    const struct race *r = arg;

    return (void *)(intptr_t)splice(r->sv[0], NULL, r->p[1], NULL, PIPE, 0);
}

/* What was taken from a socket has a place to go to. */
TEST(a_splice_has_its_room_first)
{
    struct race r = {.end = false};
    pthread_t t;
    void *moved;

    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, r.sv));
    OK(pipe2(r.p, O_DIRECT));
    CHECK_EQ(pthread_create(&t, NULL, splice_waits, &r), 0);
    put_text(r.sv[1], "abc");
    CHECK_EQ(pthread_join(t, &moved), 0);
    CHECK_EQ((intptr_t)moved, 3);
    put_text(r.p[1], "de");
    get_text(r.p[0], "abcde");
    /* All of it was given back. */
    CHECK_EQ(fcntl(r.p[1], F_SETPIPE_SZ, PAGE), PAGE);
    CHECK_EQ(write(r.p[1], bytes, PAGE), PAGE);
}
