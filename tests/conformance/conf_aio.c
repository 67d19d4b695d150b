/* Asynchronous I/O: io_setup(2) and its relatives. */
#include "harness.h"

#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>

CONF_FAMILY("aio");

static aio_context_t setup(unsigned nr)
{
    aio_context_t ctx = 0;

    OK(syscall(SYS_io_setup, nr, &ctx));
    CHECK(ctx != 0);
    return ctx;
}

static long submit(aio_context_t ctx, long nr, struct iocb **list)
{
    return syscall(SYS_io_submit, ctx, nr, list);
}

static long getevents(aio_context_t ctx, long min, long nr, struct io_event *e, struct timespec *ts)
{
    return syscall(SYS_io_getevents, ctx, min, nr, e, ts);
}

static struct iocb request(int fd, int op, const void *buf, size_t size, int64_t off)
{
    return (struct iocb){.aio_fildes = (uint32_t)fd,
                         .aio_lio_opcode = (uint16_t)op,
                         .aio_buf = (uintptr_t)buf,
                         .aio_nbytes = size,
                         .aio_offset = off,
                         .aio_data = 0x1234};
}

TEST(errors)
{
    aio_context_t ctx = 1;
    struct io_event e;

    CHECK_ERRNO(syscall(SYS_io_setup, 1, &ctx), EINVAL);
    ctx = 0;
    CHECK_ERRNO(syscall(SYS_io_setup, 0, &ctx), EINVAL);
    CHECK_ERRNO(syscall(SYS_io_setup, 1, NULL), EFAULT);
    CHECK_ERRNO(syscall(SYS_io_destroy, 0x1000), EINVAL);
    CHECK_ERRNO(submit(0x1000, 1, NULL), EINVAL);
    CHECK_ERRNO(getevents(0x1000, 0, 1, &e, NULL), EINVAL);
    ctx = setup(4);
    CHECK_ERRNO(submit(ctx, -1, NULL), EINVAL);
    CHECK_ERRNO(submit(ctx, 1, NULL), EFAULT);
    CHECK_EQ(submit(ctx, 0, NULL), 0);
    CHECK_ERRNO(getevents(ctx, 2, 1, &e, NULL), EINVAL);
    CHECK_ERRNO(getevents(ctx, -1, 1, &e, NULL), EINVAL);
    OK(syscall(SYS_io_destroy, ctx));
    CHECK_ERRNO(syscall(SYS_io_destroy, ctx), EINVAL);
    CHECK_ERRNO(getevents(ctx, 0, 1, &e, NULL), EINVAL);
}

TEST(bad_requests)
{
    char buf[16];
    aio_context_t ctx = setup(4);

    conf_put("f", "0123456789");
    int rd = OK(open("f", O_RDONLY)), wr = OK(open("f", O_WRONLY));
    struct iocb cb = request(999, IOCB_CMD_PREAD, buf, 4, 0), *list[] = {&cb};
    CHECK_ERRNO(submit(ctx, 1, list), EBADF);
    cb = request(wr, IOCB_CMD_PREAD, buf, 4, 0);
    CHECK_ERRNO(submit(ctx, 1, list), EBADF);
    cb = request(rd, IOCB_CMD_PWRITE, buf, 4, 0);
    CHECK_ERRNO(submit(ctx, 1, list), EBADF);
    cb = request(rd, 99, buf, 4, 0);
    CHECK_ERRNO(submit(ctx, 1, list), EINVAL);
    cb = request(rd, IOCB_CMD_PREAD, buf, 4, 0);
    cb.aio_reserved2 = 1;
    CHECK_ERRNO(submit(ctx, 1, list), EINVAL);
    list[0] = NULL;
    CHECK_ERRNO(submit(ctx, 1, list), EFAULT);
    struct iocb good = request(rd, IOCB_CMD_PREAD, buf, 4, 0);
    struct iocb *two[] = {&good, NULL};
    CHECK_EQ(submit(ctx, 2, two), 1);
    struct io_event e;
    CHECK_EQ(getevents(ctx, 1, 1, &e, NULL), 1);
    CHECK_EQ(e.res, 4);
}

TEST(read_and_write)
{
    char in[8] = {0};
    aio_context_t ctx = setup(8);
    int fd = OK(open("f", O_CREAT | O_RDWR, 0600));
    struct iovec v[2] = {{(char[]){'a', 'b'}, 2}, {(char[]){'c', 'd'}, 2}};
    struct iocb w = request(fd, IOCB_CMD_PWRITE, "hello", 5, 3);
    struct iocb wv = request(fd, IOCB_CMD_PWRITEV, v, 2, 10);
    struct iocb *list[] = {&w, &wv};
    struct io_event e[4];

    CHECK_EQ(submit(ctx, 2, list), 2);
    CHECK_EQ(getevents(ctx, 2, 4, e, NULL), 2);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(e[i].data, 0x1234);
        CHECK_EQ(e[i].res, e[i].obj == (uintptr_t)&w ? 5 : 4);
    }
    struct iocb r = request(fd, IOCB_CMD_PREAD, in, 8, 8);
    struct iocb s = request(fd, IOCB_CMD_FSYNC, NULL, 0, 0);
    struct iocb *more[] = {&r, &s};
    CHECK_EQ(submit(ctx, 2, more), 2);
    CHECK_EQ(getevents(ctx, 2, 4, e, NULL), 2);
    CHECK(memcmp(in,
                 "\0\0"
                 "abcd",
                 6) == 0);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
}

TEST(failed_requests_say_so_in_their_event)
{
    aio_context_t ctx = setup(1);
    struct io_event e;

    conf_put("f", "0123");
    int fd = OK(open("f", O_RDONLY));
    struct iocb cb = request(fd, IOCB_CMD_PREAD, (void *)8, 4, 0), *list[] = {&cb};
    CHECK_EQ(submit(ctx, 1, list), 1);
    CHECK_EQ(getevents(ctx, 1, 1, &e, NULL), 1);
    CHECK_EQ(e.res, -EFAULT);
}

TEST(full_context)
{
    char buf[4];
    struct timespec none = {0};
    struct io_event e[64];

    conf_put("f", "0123");
    int fd = OK(open("f", O_RDONLY));
    aio_context_t ctx = setup(1);
    struct iocb cb = request(fd, IOCB_CMD_PREAD, buf, 4, 0), *list[] = {&cb};
    long done = 0;
    /* Room may be rounded up, but ends. */
    while (done < 100000 && submit(ctx, 1, list) == 1)
        done++;
    CHECK_EQ(errno, EAGAIN);
    CHECK(done >= 1);
    CHECK(getevents(ctx, 1, 64, e, &none) >= 1);
    CHECK_EQ(submit(ctx, 1, list), 1);
}

TEST(eventfd_is_told)
{
    char buf[4];
    uint64_t count;

    conf_put("f", "0123");
    int fd = OK(open("f", O_RDONLY)), efd = OK(eventfd(0, EFD_NONBLOCK));
    aio_context_t ctx = setup(4);
    struct iocb cb = request(fd, IOCB_CMD_PREAD, buf, 4, 0), *list[] = {&cb, &cb};
    cb.aio_flags = IOCB_FLAG_RESFD;
    cb.aio_resfd = (uint32_t)efd;
    CHECK_EQ(submit(ctx, 2, list), 2);
    struct pollfd p = {.fd = efd, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 5000), 1);
    struct io_event e[2];
    CHECK_EQ(getevents(ctx, 2, 2, e, NULL), 2);
    CHECK_EQ(read(efd, &count, sizeof(count)), sizeof(count));
    CHECK_EQ(count, 2);
    cb.aio_resfd = (uint32_t)fd;
    CHECK_ERRNO(submit(ctx, 1, list), EINVAL);
}

TEST(timeouts_and_signals)
{
    struct timespec ts = {.tv_nsec = 20000000}, none = {0};
    struct io_event e;
    aio_context_t ctx = setup(1);

    CHECK_EQ(getevents(ctx, 0, 1, &e, NULL), 0);
    CHECK_EQ(getevents(ctx, 1, 1, &e, &none), 0);
    CHECK_EQ(getevents(ctx, 1, 1, &e, &ts), 0);
    CHECK_ERRNO(getevents(ctx, 1, 1, &e, (struct timespec *)8), EFAULT);
}

TEST(not_a_childs)
{
    aio_context_t ctx = setup(1);
    pid_t pid = conf_fork();

    if (pid == 0) {
        struct io_event e;
        _exit(getevents(ctx, 0, 1, &e, NULL) == -1 && errno == EINVAL ? 0 : 9);
    }
    CHECK_EXIT(pid, 0);
    OK(syscall(SYS_io_destroy, ctx));
}

TEST(events_that_could_not_be_told_stay)
{
    aio_context_t ctx = setup(4);
    int fd = OK(open("f", O_CREAT | O_RDWR, 0600));
    struct iocb w = request(fd, IOCB_CMD_PWRITE, "hello", 5, 0);
    struct iocb *list[] = {&w};
    struct io_event e;

    CHECK_EQ(submit(ctx, 1, list), 1);
    CHECK_ERRNO(getevents(ctx, 1, 1, (struct io_event *)8, NULL), EFAULT);
    CHECK_EQ(getevents(ctx, 1, 1, &e, NULL), 1);
    CHECK_EQ(e.res, 5);
}

/* ---- IOCB_CMD_POLL ---- */

static struct iocb poll_request(int fd, uint16_t events)
{
    return request(fd, IOCB_CMD_POLL, (void *)(uintptr_t)events, 0, 0);
}

TEST(poll_at_once)
{
    aio_context_t ctx = setup(4);
    struct timespec now = {0};
    struct io_event e[2];
    int p[2];

    OK(pipe(p));
    struct iocb out = poll_request(p[1], POLLOUT), *list[] = {&out};
    CHECK_EQ(submit(ctx, 1, list), 1);
    CHECK_EQ(getevents(ctx, 0, 2, e, &now), 1);
    CHECK_EQ(e[0].res, POLLOUT);
    CHECK_EQ(e[0].data, 0x1234);
    CHECK_EQ(e[0].obj, (uintptr_t)&out);
    struct iocb bad = poll_request(p[1], POLLOUT);
    list[0] = &bad;
    bad.aio_nbytes = 1;
    CHECK_ERRNO(submit(ctx, 1, list), EINVAL);
    bad.aio_nbytes = 0;
    bad.aio_offset = 1;
    CHECK_ERRNO(submit(ctx, 1, list), EINVAL);
    bad.aio_offset = 0;
    bad.aio_buf = 0x10000;
    CHECK_ERRNO(submit(ctx, 1, list), EINVAL);
    bad.aio_buf = POLLIN;
    bad.aio_fildes = (uint32_t)OK(open("f", O_RDWR | O_CREAT, 0644));
    CHECK_EQ(submit(ctx, 1, list), 1);
    CHECK_EQ(getevents(ctx, 0, 2, e, &now), 1);
    CHECK_EQ(e[0].res, POLLIN);
}

/* Each is told once, and to the eventfd as well. */
TEST(poll_later)
{
    aio_context_t ctx = setup(4);
    struct timespec now = {0};
    struct io_event e[2];
    uint64_t n;
    int p[2];

    OK(pipe(p));
    const int efd = OK(eventfd(0, 0));
    struct iocb in = poll_request(p[0], POLLIN), *list[] = {&in};
    in.aio_flags = IOCB_FLAG_RESFD;
    in.aio_resfd = (uint32_t)efd;
    CHECK_EQ(submit(ctx, 1, list), 1);
    CHECK_EQ(getevents(ctx, 0, 2, e, &now), 0);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(write(p[1], "x", 1));
        _exit(0);
    }
    CHECK_EQ(OK(read(efd, &n, sizeof(n))), 8);
    CHECK_EQ(n, 1);
    CHECK_EQ(getevents(ctx, 1, 2, e, NULL), 1);
    CHECK((e[0].res & POLLIN) != 0);
    CHECK_EXIT(pid, 0);
    OK(write(p[1], "x", 1));
    CHECK_EQ(getevents(ctx, 0, 2, e, &now), 0);
    /* The descriptor may be closed meanwhile. */
    int q[2];
    OK(pipe(q));
    struct iocb hup = poll_request(q[0], POLLIN);
    list[0] = &hup;
    CHECK_EQ(submit(ctx, 1, list), 1);
    OK(close(q[0]));
    OK(close(q[1]));
    CHECK_EQ(getevents(ctx, 1, 2, e, NULL), 1);
    CHECK((e[0].res & POLLHUP) != 0);
}

TEST(poll_cancelled)
{
    aio_context_t ctx = setup(2);
    struct io_event e[2];
    int p[2];

    OK(pipe(p));
    struct iocb in = poll_request(p[0], POLLIN), other = poll_request(p[0], POLLIN),
                third = poll_request(p[0], POLLIN), *list[] = {&in, &other}, *more[] = {&third};
    CHECK_EQ(submit(ctx, 2, list), 2);
    CHECK_ERRNO(syscall(SYS_io_cancel, ctx, &in, e), EINPROGRESS);
    CHECK_EQ(getevents(ctx, 1, 2, e, NULL), 1);
    CHECK_EQ(e[0].res, 0);
    CHECK_EQ(e[0].obj, (uintptr_t)&in);
    CHECK_ERRNO(syscall(SYS_io_cancel, ctx, &in, e), EINVAL);
    /* Those that wait count, and go with the context. */
    CHECK_EQ(submit(ctx, 1, more), 1);
    OK(syscall(SYS_io_destroy, ctx));
    OK(write(p[1], "x", 1));
}

/* Those that are left when a process ends. */
TEST(poll_ends_with_the_process)
{
    int p[2];

    OK(pipe(p));
    pid_t pid = conf_fork();
    if (pid == 0) {
        aio_context_t ctx = setup(2);
        struct iocb in = poll_request(p[0], POLLIN), *list[] = {&in};
        CHECK_EQ(submit(ctx, 1, list), 1);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(close(p[0]));
    OK(signal(SIGPIPE, SIG_IGN) == SIG_ERR ? -1 : 0);
    CHECK_ERRNO(write(p[1], "x", 1), EPIPE);
}
