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
