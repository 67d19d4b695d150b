/* io_uring(7), by its system calls. */
#include "uring_help.h"

#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

CONF_FAMILY("uring");
TEST(setup)
{
    struct io_uring_params p = {0};

    struct ring r = open_ring(5, 0);
    CHECK_EQ(r.p.sq_entries, 8);
    CHECK_EQ(r.p.cq_entries, 16);
    CHECK((fcntl(r.fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_ERRNO(syscall(SYS_io_uring_setup, 0, &p), EINVAL);
    CHECK_ERRNO(syscall(SYS_io_uring_setup, 100000, &p), EINVAL);
    p.flags = IORING_SETUP_CLAMP;
    OK(close((int)OK(syscall(SYS_io_uring_setup, 100000, &p))));
    CHECK_EQ(p.sq_entries, 32768);
    p = (struct io_uring_params){.flags = IORING_SETUP_CQSIZE, .cq_entries = 100};
    OK(close((int)OK(syscall(SYS_io_uring_setup, 4, &p))));
    CHECK_EQ(p.cq_entries, 128);
    p.cq_entries = 2;
    CHECK_ERRNO(syscall(SYS_io_uring_setup, 4, &p), EINVAL);
    p = (struct io_uring_params){.flags = 1u << 31};
    CHECK_ERRNO(syscall(SYS_io_uring_setup, 4, &p), EINVAL);
    CHECK_ERRNO(syscall(SYS_io_uring_setup, 4, NULL), EFAULT);
    CHECK_ERRNO(syscall(SYS_io_uring_enter, 0, 0, 0, 0, NULL, 0), EOPNOTSUPP);
    CHECK_ERRNO(syscall(SYS_io_uring_enter, 999, 0, 0, 0, NULL, 0), EBADF);
    CHECK_ERRNO(syscall(SYS_io_uring_enter, r.fd, 0, 0, 0x80000000u, NULL, 0), EINVAL);
}

TEST(nop_and_unknown)
{
    struct ring r = open_ring(4, 0);

    add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 7);
    CHECK_EQ(enter(&r, 1, 1), 1);
    struct io_uring_cqe c = take(&r);
    CHECK_EQ(c.user_data, 7);
    CHECK_EQ(c.res, 0);
    add(&r, 250, -1, NULL, 0, 0, 8);
    CHECK_EQ(one(&r), -EINVAL);
    CHECK_EQ(enter(&r, 1, 0), 0);
}

TEST(files)
{
    char buf[16] = {0};
    struct iovec v = {buf, 5};
    struct ring r = open_ring(8, 0);

    int fd = OK(open("f", O_CREAT | O_RDWR, 0600));
    add(&r, IORING_OP_WRITE, fd, "hello world", 11, 0, 1);
    CHECK_EQ(one(&r), 11);
    add(&r, IORING_OP_READ, fd, buf, 5, 6, 1);
    CHECK_EQ(one(&r), 5);
    CHECK_STR(buf, "world");
    add(&r, IORING_OP_READV, fd, &v, 1, 0, 1);
    CHECK_EQ(one(&r), 5);
    CHECK_STR(buf, "hello");
    /* -1: the file's own position. */
    add(&r, IORING_OP_READ, fd, buf, 5, UINT64_MAX, 1);
    CHECK_EQ(one(&r), 5);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 5);
    add(&r, IORING_OP_FSYNC, fd, NULL, 0, 0, 1);
    CHECK_EQ(one(&r), 0);
    add(&r, IORING_OP_READ, fd, (void *)8, 5, 0, 1);
    CHECK_EQ(one(&r), -EFAULT);
    add(&r, IORING_OP_READ, 999, buf, 5, 0, 1);
    CHECK_EQ(one(&r), -EBADF);
    add(&r, IORING_OP_FALLOCATE, fd, (void *)100, 0, 0, 1);
    CHECK_EQ(one(&r), 0);
    CHECK_EQ(lseek(fd, 0, SEEK_END), 100);
}

TEST(names)
{
    struct statx sx;
    struct ring r = open_ring(8, 0);

    struct io_uring_sqe *s = add(&r, IORING_OP_OPENAT, AT_FDCWD, "f", 0600, 0, 1);
    s->open_flags = O_CREAT | O_RDWR;
    int fd = one(&r);
    CHECK(fd >= 0);
    add(&r, IORING_OP_WRITE, fd, "abc", 3, 0, 1);
    CHECK_EQ(one(&r), 3);
    add(&r, IORING_OP_CLOSE, fd, NULL, 0, 0, 1);
    CHECK_EQ(one(&r), 0);
    CHECK_ERRNO(fcntl(fd, F_GETFD), EBADF);
    add(&r, IORING_OP_STATX, AT_FDCWD, "f", STATX_BASIC_STATS, (uintptr_t)&sx, 1);
    CHECK_EQ(one(&r), 0);
    CHECK_EQ(sx.stx_size, 3);
    add(&r, IORING_OP_MKDIRAT, AT_FDCWD, "d", 0755, 0, 1);
    CHECK_EQ(one(&r), 0);
    add(&r, IORING_OP_RENAMEAT, AT_FDCWD, "f", (unsigned)AT_FDCWD, (uintptr_t) "d/g", 1);
    CHECK_EQ(one(&r), 0);
    add(&r, IORING_OP_LINKAT, AT_FDCWD, "d/g", (unsigned)AT_FDCWD, (uintptr_t) "d/h", 1);
    CHECK_EQ(one(&r), 0);
    add(&r, IORING_OP_SYMLINKAT, AT_FDCWD, "g", 0, (uintptr_t) "d/s", 1);
    CHECK_EQ(one(&r), 0);
    CHECK(conf_exists("d/s"));
    add(&r, IORING_OP_UNLINKAT, AT_FDCWD, "d/g", 0, 0, 1);
    CHECK_EQ(one(&r), 0);
    CHECK(!conf_exists("d/g"));
    CHECK(conf_exists("d/h"));
    add(&r, IORING_OP_UNLINKAT, AT_FDCWD, "absent", 0, 0, 1);
    CHECK_EQ(one(&r), -ENOENT);
}

TEST(statx_of_a_descriptor)
{
    struct statx sx;
    struct ring r = open_ring(8, 0);

    int fd = OK(open("f", O_CREAT | O_RDWR, 0600));
    OK(unlink("f"));
    add(&r, IORING_OP_STATX, fd, "", STATX_SIZE, (uintptr_t)&sx, 1)->statx_flags = AT_EMPTY_PATH;
    CHECK_EQ(one(&r), 0);
    add(&r, IORING_OP_STATX, fd, "", STATX_SIZE, (uintptr_t)&sx, 1)->statx_flags = 0;
    CHECK_EQ(one(&r), -ENOENT);
}

TEST(many_at_once)
{
    struct ring r = open_ring(64, 0);

    for (unsigned i = 0; i < 64; i++)
        add(&r, IORING_OP_NOP, -1, NULL, 0, 0, i);
    CHECK_EQ(enter(&r, 64, 64), 64);
    CHECK_EQ(finished(&r), 64);
    uint64_t sum = 0;
    for (unsigned i = 0; i < 64; i++)
        sum += take(&r).user_data;
    CHECK_EQ(sum, 64 * 63 / 2);
}

TEST(more_than_fits)
{
    struct ring r = open_ring(4, 0);

    for (unsigned k = 0; k < 4; k++) {
        for (unsigned i = 0; i < 4; i++)
            add(&r, IORING_OP_NOP, -1, NULL, 0, 0, k * 4 + i);
        CHECK_EQ(enter(&r, 4, 0), 4);
    }
    CHECK_EQ(finished(&r), 8);
    CHECK((*word(&r, r.p.sq_off.flags) & IORING_SQ_CQ_OVERFLOW) != 0);
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(take(&r).user_data, i);
    CHECK_EQ(enter(&r, 0, 8), 0);
    for (unsigned i = 8; i < 16; i++)
        CHECK_EQ(take(&r).user_data, i);
    CHECK_EQ(*word(&r, r.p.cq_off.overflow), 0);
}

TEST(reads_wait_for_a_pipe)
{
    int p[2];
    char buf[8] = {0};
    struct ring r = open_ring(4, 0);

    OK(pipe(p));
    add(&r, IORING_OP_READ, p[0], buf, 4, 0, 3);
    CHECK_EQ(enter(&r, 1, 0), 1);
    CHECK_EQ(finished(&r), 0);
    OK(write(p[1], "late", 4));
    CHECK_EQ(enter(&r, 0, 1), 0);
    CHECK_EQ(take(&r).res, 4);
    CHECK_STR(buf, "late");
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_await_asleep(getppid());
        OK(write(p[1], "more", 4));
        _exit(0);
    }
    add(&r, IORING_OP_READ, p[0], buf, 4, 0, 3);
    CHECK_EQ(one(&r), 4);
    CHECK_STR(buf, "more");
    CHECK_EXIT(pid, 0);
    add(&r, IORING_OP_READ, p[0], buf, 4, 0, 3)->rw_flags = RWF_NOWAIT;
    CHECK_EQ(one(&r), -EAGAIN);
}

TEST(poll_requests)
{
    int p[2];
    struct io_uring_cqe c[2];
    struct ring r = open_ring(4, 0);

    OK(pipe(p));
    add(&r, IORING_OP_POLL_ADD, p[0], NULL, 0, 0, 5)->poll32_events = POLLIN;
    CHECK_EQ(enter(&r, 1, 0), 1);
    CHECK_EQ(finished(&r), 0);
    OK(write(p[1], "x", 1));
    CHECK_EQ(enter(&r, 0, 1), 0);
    CHECK((take(&r).res & POLLIN) != 0);
    add(&r, IORING_OP_POLL_ADD, p[1], NULL, 0, 0, 5)->poll32_events = POLLOUT;
    CHECK((one(&r) & POLLOUT) != 0);
    char x;
    OK(read(p[0], &x, 1));
    add(&r, IORING_OP_POLL_ADD, p[0], NULL, 0, 0, 6)->poll32_events = POLLIN;
    add(&r, IORING_OP_POLL_REMOVE, -1, (void *)6, 0, 0, 7);
    CHECK_EQ(enter(&r, 2, 2), 2);
    c[0] = take(&r);
    c[1] = take(&r);
    CHECK_EQ(result_of(c, 2, 6), -ECANCELED);
    CHECK_EQ(result_of(c, 2, 7), 0);
    add(&r, IORING_OP_POLL_REMOVE, -1, (void *)6, 0, 0, 7);
    CHECK_EQ(one(&r), -ENOENT);
}

TEST(timeouts)
{
    struct __kernel_timespec ts = {.tv_nsec = 30000000}, far = {.tv_sec = 100};
    struct io_uring_cqe c[2];
    struct ring r = open_ring(4, 0);

    int64_t start = conf_now();
    add(&r, IORING_OP_TIMEOUT, -1, &ts, 1, 0, 1);
    CHECK_EQ(one(&r), -ETIME);
    CHECK(conf_now() - start >= 30000000);
    /* Over when one other is finished. */
    add(&r, IORING_OP_TIMEOUT, -1, &far, 1, 1, 1);
    add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 2);
    CHECK_EQ(enter(&r, 2, 2), 2);
    c[0] = take(&r);
    c[1] = take(&r);
    CHECK_EQ(result_of(c, 2, 1), 0);
    CHECK_EQ(result_of(c, 2, 2), 0);
    add(&r, IORING_OP_TIMEOUT, -1, &far, 1, 0, 3);
    add(&r, IORING_OP_TIMEOUT_REMOVE, -1, (void *)3, 0, 0, 4);
    CHECK_EQ(enter(&r, 2, 2), 2);
    c[0] = take(&r);
    c[1] = take(&r);
    CHECK_EQ(result_of(c, 2, 3), -ECANCELED);
    CHECK_EQ(result_of(c, 2, 4), 0);
    add(&r, IORING_OP_TIMEOUT, -1, &ts, 2, 0, 1);
    CHECK_EQ(one(&r), -EINVAL);
}

TEST(links)
{
    int p[2];
    char buf[8] = {0};
    struct io_uring_cqe c[3];
    struct ring r = open_ring(8, 0);

    OK(pipe(p));
    add(&r, IORING_OP_READ, p[0], buf, 4, 0, 1)->flags = IOSQE_IO_LINK;
    add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 2);
    CHECK_EQ(enter(&r, 2, 0), 2);
    CHECK_EQ(finished(&r), 0);
    OK(write(p[1], "abcd", 4));
    CHECK_EQ(enter(&r, 0, 2), 0);
    CHECK_EQ(take(&r).user_data, 1);
    CHECK_EQ(take(&r).user_data, 2);
    /* What fails takes with it what is linked. */
    add(&r, IORING_OP_READ, 999, buf, 4, 0, 1)->flags = IOSQE_IO_LINK;
    add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 2)->flags = IOSQE_IO_LINK;
    add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 3);
    CHECK_EQ(enter(&r, 3, 3), 3);
    for (int i = 0; i < 3; i++)
        c[i] = take(&r);
    CHECK_EQ(result_of(c, 3, 1), -EBADF);
    CHECK_EQ(result_of(c, 3, 2), -ECANCELED);
    CHECK_EQ(result_of(c, 3, 3), -ECANCELED);
}

TEST(linked_timeout)
{
    struct __kernel_timespec ts = {.tv_nsec = 20000000};
    struct io_uring_cqe c[2];
    int p[2];
    char buf[8];
    struct ring r = open_ring(8, 0);

    OK(pipe(p));
    add(&r, IORING_OP_READ, p[0], buf, 4, 0, 1)->flags = IOSQE_IO_LINK;
    add(&r, IORING_OP_LINK_TIMEOUT, -1, &ts, 1, 0, 2);
    CHECK_EQ(enter(&r, 2, 2), 2);
    c[0] = take(&r);
    c[1] = take(&r);
    CHECK_EQ(result_of(c, 2, 1), -ECANCELED);
    CHECK_EQ(result_of(c, 2, 2), -ETIME);
    OK(write(p[1], "abcd", 4));
    add(&r, IORING_OP_READ, p[0], buf, 4, 0, 1)->flags = IOSQE_IO_LINK;
    add(&r, IORING_OP_LINK_TIMEOUT, -1, &ts, 1, 0, 2);
    CHECK_EQ(enter(&r, 2, 2), 2);
    c[0] = take(&r);
    c[1] = take(&r);
    CHECK_EQ(result_of(c, 2, 1), 4);
    CHECK_EQ(result_of(c, 2, 2), -ECANCELED);
}

/* Nothing that came later begins before what a drain waits for is over. */
TEST(drain)
{
    struct ring r = open_ring(8, 0);
    char buf[4] = {0};
    int p[2];

    OK(pipe(p));
    add(&r, IORING_OP_READ, p[0], buf, 1, 0, 1);
    add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 2)->flags = IOSQE_IO_DRAIN;
    add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 3);
    CHECK_EQ(enter(&r, 3, 0), 3);
    add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 4);
    CHECK_EQ(enter(&r, 1, 0), 1);
    CHECK_EQ(finished(&r), 0);
    CHECK_EQ(write(p[1], "x", 1), 1);
    CHECK_EQ(enter(&r, 0, 4), 0);
    for (unsigned i = 1; i <= 4; i++) {
        struct io_uring_cqe c = take(&r);
        CHECK_EQ(c.user_data, i);
        CHECK_EQ(c.res, i == 1);
    }
    /* With nothing to wait for it is a request like others; linked ones go together. */
    add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 5)->flags = IOSQE_IO_DRAIN;
    CHECK_EQ(one(&r), 0);
    add(&r, IORING_OP_READ, p[0], buf, 1, 0, 6);
    add(&r, IORING_OP_WRITE, p[1], "a", 1, 0, 7)->flags = IOSQE_IO_DRAIN | IOSQE_IO_LINK;
    add(&r, IORING_OP_READ, p[0], buf, 1, 0, 8);
    CHECK_EQ(enter(&r, 3, 0), 3);
    CHECK_EQ(finished(&r), 0);
    CHECK_EQ(write(p[1], "b", 1), 1);
    CHECK_EQ(enter(&r, 0, 3), 0);
    for (unsigned i = 6; i <= 8; i++)
        CHECK_EQ(take(&r).user_data, i);
    CHECK_EQ(buf[0], 'a');
}

TEST(drain_of_a_ring_that_goes)
{
    struct ring r = open_ring(8, 0);
    char buf[4];
    int p[2];

    OK(pipe(p));
    add(&r, IORING_OP_READ, p[0], buf, 1, 0, 1);
    for (unsigned i = 0; i < 4; i++)
        add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 2)->flags = IOSQE_IO_DRAIN;
    CHECK_EQ(enter(&r, 5, 0), 5);
    OK(close(r.fd));
    CHECK_EQ(write(p[1], "x", 1), 1);
}

/* ---- buffers that the ring chooses ---- */

static unsigned chosen(const struct io_uring_cqe *c)
{
    CHECK((c->flags & IORING_CQE_F_BUFFER) != 0);
    return c->flags >> IORING_CQE_BUFFER_SHIFT;
}

static struct io_uring_cqe select_one(struct ring *r, int op, int fd, unsigned len, uint16_t group)
{
    struct io_uring_sqe *s = add(r, op, fd, NULL, len, 0, 1);

    s->flags = IOSQE_BUFFER_SELECT;
    s->buf_group = group;
    CHECK_EQ(enter(r, 1, 1), 1);
    return take(r);
}

TEST(provided_buffers)
{
    struct ring r = open_ring(8, 0);
    static char bufs[4][16];
    int p[2];

    OK(pipe(p));
    CHECK_EQ(select_one(&r, IORING_OP_READ, p[0], 4, 7).res, -ENOBUFS);
    add(&r, IORING_OP_PROVIDE_BUFFERS, 4, bufs, 16, 10, 0)->buf_group = 7;
    CHECK_EQ(one(&r), 0);
    CHECK_EQ(write(p[1], "abcdefgh", 8), 8);
    struct io_uring_cqe c = select_one(&r, IORING_OP_READ, p[0], 3, 7);
    CHECK_EQ(c.res, 3);
    unsigned first = chosen(&c);
    CHECK(first >= 10 && first < 14);
    CHECK(memcmp(bufs[first - 10], "abc", 3) == 0);
    /* Never more than the buffer holds; none given means all of it. */
    c = select_one(&r, IORING_OP_READ, p[0], 0, 7);
    CHECK_EQ(c.res, 5);
    CHECK(chosen(&c) != first);
    CHECK(memcmp(bufs[chosen(&c) - 10], "defgh", 5) == 0);
    /* One that waits takes its buffer when there is something. */
    struct io_uring_sqe *s = add(&r, IORING_OP_READ, p[0], NULL, 100, 0, 2);
    s->flags = IOSQE_BUFFER_SELECT;
    s->buf_group = 7;
    CHECK_EQ(enter(&r, 1, 0), 1);
    CHECK_EQ(finished(&r), 0);
    CHECK_EQ(write(p[1], "0123456789abcdefXYZ", 19), 19);
    CHECK_EQ(enter(&r, 0, 1), 0);
    c = take(&r);
    CHECK_EQ(c.res, 16);
    (void)chosen(&c);
    add(&r, IORING_OP_REMOVE_BUFFERS, 5, NULL, 0, 0, 0)->buf_group = 7;
    CHECK_EQ(one(&r), 1);
    CHECK_EQ(select_one(&r, IORING_OP_READ, p[0], 3, 7).res, -ENOBUFS);
    add(&r, IORING_OP_REMOVE_BUFFERS, 1, NULL, 0, 0, 0)->buf_group = 99;
    CHECK_EQ(one(&r), -ENOENT);
    add(&r, IORING_OP_PROVIDE_BUFFERS, 0, bufs, 16, 0, 0);
    CHECK_EQ(one(&r), -E2BIG);
    add(&r, IORING_OP_PROVIDE_BUFFERS, 1, bufs, 0, 0, 0);
    CHECK_EQ(one(&r), -EINVAL);
    add(&r, IORING_OP_PROVIDE_BUFFERS, 2, bufs, 16, 65535, 0);
    CHECK_EQ(one(&r), -EINVAL);
    /* Only what reads can be asked to choose. */
    CHECK_EQ(select_one(&r, IORING_OP_WRITE, p[1], 1, 7).res, -EOPNOTSUPP);
}

TEST(buffer_ring)
{
    struct ring r = open_ring(8, 0);
    struct io_uring_buf_ring *b = conf_pages(1);
    struct io_uring_buf *all = (struct io_uring_buf *)(void *)b;
    char *data = conf_pages(1);
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)b, .ring_entries = 4, .bgid = 3};
    int sv[2];

    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    for (unsigned i = 0; i < 4; i++)
        all[i] = (struct io_uring_buf){
            .addr = (uintptr_t)data + 100 * i, .len = 100, .bid = (uint16_t)(40 + i)};
    b->tail = 0;
    OK(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_PBUF_RING, &reg, 1));
    CHECK_ERRNO(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_PBUF_RING, &reg, 1), EEXIST);
    CHECK_EQ(select_one(&r, IORING_OP_RECV, sv[0], 10, 3).res, -ENOBUFS);
    __atomic_store_n(&b->tail, 2, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(write(sv[1], "hello", 5), 5);
        struct io_uring_cqe c = select_one(&r, IORING_OP_RECV, sv[0], 0, 3);
        CHECK_EQ(c.res, 5);
        CHECK_EQ(chosen(&c), 40 + i);
        CHECK(memcmp(data + 100 * i, "hello", 5) == 0);
    }
    CHECK_EQ(select_one(&r, IORING_OP_RECV, sv[0], 10, 3).res, -ENOBUFS);
    /* Waiting takes none away. */
    __atomic_store_n(&b->tail, 4, __ATOMIC_RELEASE);
    struct io_uring_sqe *s = add(&r, IORING_OP_RECV, sv[0], NULL, 0, 0, 2);
    s->flags = IOSQE_BUFFER_SELECT;
    s->buf_group = 3;
    CHECK_EQ(enter(&r, 1, 0), 1);
    CHECK_EQ(finished(&r), 0);
    CHECK_EQ(write(sv[1], "late", 4), 4);
    CHECK_EQ(enter(&r, 0, 1), 0);
    struct io_uring_cqe c = take(&r);
    CHECK_EQ(c.res, 4);
    CHECK_EQ(chosen(&c), 42);
    /* A ring is refilled by its tail alone, and whatever that says is safe. */
    add(&r, IORING_OP_PROVIDE_BUFFERS, 1, data, 16, 0, 0)->buf_group = 3;
    CHECK_EQ(one(&r), -EINVAL);
    all[3].addr = 8;
    CHECK_EQ(write(sv[1], "x", 1), 1);
    CHECK_EQ(select_one(&r, IORING_OP_RECV, sv[0], 0, 3).res, -EFAULT);
    OK(syscall(SYS_io_uring_register, r.fd, IORING_UNREGISTER_PBUF_RING, &reg, 1));
    CHECK_ERRNO(syscall(SYS_io_uring_register, r.fd, IORING_UNREGISTER_PBUF_RING, &reg, 1), ENOENT);
    reg.ring_entries = 5;
    CHECK_ERRNO(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_PBUF_RING, &reg, 1), EINVAL);
    reg.ring_entries = 65536;
    CHECK_ERRNO(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_PBUF_RING, &reg, 1), EINVAL);
    reg.ring_entries = 4;
    reg.ring_addr += 8;
    CHECK_ERRNO(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_PBUF_RING, &reg, 1), EINVAL);
}

TEST(cancel)
{
    struct io_uring_cqe c[2];
    int p[2];
    char buf[8];
    struct ring r = open_ring(8, 0);

    OK(pipe(p));
    add(&r, IORING_OP_READ, p[0], buf, 4, 0, 1);
    add(&r, IORING_OP_ASYNC_CANCEL, -1, (void *)1, 0, 0, 2);
    CHECK_EQ(enter(&r, 2, 2), 2);
    c[0] = take(&r);
    c[1] = take(&r);
    CHECK_EQ(result_of(c, 2, 1), -ECANCELED);
    CHECK_EQ(result_of(c, 2, 2), 0);
    add(&r, IORING_OP_ASYNC_CANCEL, -1, (void *)1, 0, 0, 2);
    CHECK_EQ(one(&r), -ENOENT);
}

TEST(sockets)
{
    int s[2];
    char buf[8] = {0};
    struct ring r = open_ring(8, 0);

    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    add(&r, IORING_OP_RECV, s[0], buf, 4, 0, 1);
    CHECK_EQ(enter(&r, 1, 0), 1);
    CHECK_EQ(finished(&r), 0);
    add(&r, IORING_OP_SEND, s[1], "ping", 4, 0, 2);
    CHECK_EQ(enter(&r, 1, 2), 1);
    struct io_uring_cqe c[2] = {take(&r), take(&r)};
    CHECK_EQ(result_of(c, 2, 1), 4);
    CHECK_EQ(result_of(c, 2, 2), 4);
    CHECK_STR(buf, "ping");
    struct iovec v = {buf, 8};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    OK(write(s[1], "msg", 3));
    add(&r, IORING_OP_RECVMSG, s[0], &m, 1, 0, 1);
    CHECK_EQ(one(&r), 3);
    add(&r, IORING_OP_SHUTDOWN, s[1], NULL, SHUT_WR, 0, 1);
    CHECK_EQ(one(&r), 0);
    add(&r, IORING_OP_RECV, s[0], buf, 4, 0, 1);
    CHECK_EQ(one(&r), 0);
}

TEST(accept_and_connect)
{
    struct sockaddr name = {.sa_family = AF_UNIX};
    struct ring r = open_ring(8, 0);

    int l = OK(socket(AF_UNIX, SOCK_STREAM, 0)), c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    (void)memcpy(name.sa_data, "sock", 5);
    OK(bind(l, &name, sizeof(sa_family_t) + 5));
    OK(listen(l, 5));
    add(&r, IORING_OP_ACCEPT, l, NULL, 0, 0, 1);
    CHECK_EQ(enter(&r, 1, 0), 1);
    CHECK_EQ(finished(&r), 0);
    add(&r, IORING_OP_CONNECT, c, &name, 0, sizeof(sa_family_t) + 5, 2);
    CHECK_EQ(enter(&r, 1, 2), 1);
    struct io_uring_cqe e[2] = {take(&r), take(&r)};
    CHECK_EQ(result_of(e, 2, 2), 0);
    int a = result_of(e, 2, 1);
    CHECK(a >= 0);
    OK(write(c, "x", 1));
    char x;
    CHECK_EQ(read(a, &x, 1), 1);
}

TEST(registered_files_and_buffers)
{
    static char pool[64];
    struct iovec v = {pool, sizeof(pool)};
    struct ring r = open_ring(8, 0);

    conf_put("f", "0123456789");
    int fds[2] = {OK(open("f", O_RDWR)), -1};
    OK(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_FILES, fds, 2));
    CHECK_ERRNO(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_FILES, fds, 2), EBUSY);
    OK(close(fds[0]));
    OK(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_BUFFERS, &v, 1));
    struct io_uring_sqe *s = add(&r, IORING_OP_READ_FIXED, 0, pool + 8, 4, 2, 1);
    s->flags = IOSQE_FIXED_FILE;
    s->buf_index = 0;
    CHECK_EQ(one(&r), 4);
    CHECK(memcmp(pool + 8, "2345", 4) == 0);
    s = add(&r, IORING_OP_READ_FIXED, 0, pool + 62, 4, 2, 1);
    s->flags = IOSQE_FIXED_FILE;
    CHECK_EQ(one(&r), -EFAULT);
    s = add(&r, IORING_OP_READ, 1, pool, 4, 0, 1);
    s->flags = IOSQE_FIXED_FILE;
    CHECK_EQ(one(&r), -EBADF);
    OK(syscall(SYS_io_uring_register, r.fd, IORING_UNREGISTER_FILES, NULL, 0));
    CHECK_ERRNO(syscall(SYS_io_uring_register, r.fd, IORING_UNREGISTER_FILES, NULL, 0), ENXIO);
    OK(syscall(SYS_io_uring_register, r.fd, IORING_UNREGISTER_BUFFERS, NULL, 0));
    CHECK_ERRNO(syscall(SYS_io_uring_register, r.fd, 250, NULL, 0), EINVAL);
}

TEST(probe)
{
    static struct {
        struct io_uring_probe p;
        struct io_uring_probe_op ops[64];
    } all;
    struct ring r = open_ring(4, 0);

    OK(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_PROBE, &all, 64));
    CHECK(all.p.last_op >= IORING_OP_LINKAT);
    CHECK((all.ops[IORING_OP_READ].flags & IO_URING_OP_SUPPORTED) != 0);
}

TEST(eventfd_and_polling)
{
    uint64_t count;
    struct ring r = open_ring(4, 0);

    int efd = OK(eventfd(0, EFD_NONBLOCK));
    OK(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_EVENTFD, &efd, 1));
    struct pollfd p = {.fd = r.fd, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 0), 0);
    add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 1);
    CHECK_EQ(enter(&r, 1, 0), 1);
    CHECK_EQ(poll(&p, 1, 5000), 1);
    CHECK_EQ(read(efd, &count, sizeof(count)), sizeof(count));
    (void)take(&r);
    CHECK_EQ(poll(&p, 1, 0), 0);
}

TEST(wait_with_a_limit)
{
    struct __kernel_timespec ts = {.tv_nsec = 20000000};
    struct io_uring_getevents_arg a = {.ts = (uintptr_t)&ts};
    struct ring r = open_ring(4, 0);

    CHECK_ERRNO(syscall(SYS_io_uring_enter, r.fd, 0, 1,
                        IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &a, sizeof(a)),
                ETIME);
    CHECK_ERRNO(syscall(SYS_io_uring_enter, r.fd, 0, 1,
                        IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &a, 8),
                EINVAL);
}

TEST(disabled_ring)
{
    struct ring r = open_ring(4, IORING_SETUP_R_DISABLED);

    add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 1);
    CHECK_ERRNO(enter(&r, 1, 0), EBADFD);
    OK(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0));
    CHECK_ERRNO(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0),
                EBADFD);
    CHECK_EQ(one(&r), 0);
}

TEST(message_to_another_ring)
{
    struct ring a = open_ring(4, 0), b = open_ring(4, 0);

    add(&a, IORING_OP_MSG_RING, b.fd, NULL, 42, 77, 1);
    CHECK_EQ(one(&a), 0);
    struct io_uring_cqe c = take(&b);
    CHECK_EQ(c.user_data, 77);
    CHECK_EQ(c.res, 42);
}

/* Whatever stands in memory that is shared, the kernel survives. */
TEST(hostile_rings)
{
    struct ring r = open_ring(4, 0);

    *word(&r, r.p.cq_off.head) = 0x7fffffff;
    add(&r, IORING_OP_NOP, -1, NULL, 0, 0, 1);
    (void)enter(&r, 1, 0);
    *word(&r, r.p.sq_off.tail) = 0x80000000u;
    for (int i = 0; i < 4; i++)
        word(&r, r.p.sq_off.array)[i] = 0xffffffffu;
    (void)enter(&r, 100, 0);
    *word(&r, r.p.sq_off.ring_mask) = 0xffffffffu;
    *word(&r, r.p.cq_off.ring_entries) = 0;
    (void)enter(&r, 1000, 0);
    (void)memset(r.sqes, 0xff, 4 * sizeof(*r.sqes));
    for (unsigned i = 0; i < 4; i++)
        word(&r, r.p.sq_off.array)[i] = i;
    (void)enter(&r, 8, 0);
    struct ring fresh = open_ring(4, 0);
    add(&fresh, IORING_OP_NOP, -1, NULL, 0, 0, 1);
    CHECK_EQ(one(&fresh), 0);
}

TEST(closed_with_requests_waiting)
{
    int p[2];
    char buf[8];

    OK(pipe(p));
    for (int i = 0; i < 50; i++) {
        struct ring r = open_ring(4, 0);
        struct __kernel_timespec far = {.tv_sec = 100};
        add(&r, IORING_OP_READ, p[0], buf, 4, 0, 1);
        add(&r, IORING_OP_TIMEOUT, -1, &far, 1, 0, 3);
        CHECK_EQ(enter(&r, 2, 0), 2);
        OK(close(r.fd));
        OK(munmap(r.sqes, r.p.sq_entries * sizeof(struct io_uring_sqe)));
    }
    OK(close(p[0]));
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    /* Nobody reads any more: the requests went with their rings. */
    EVENTUALLY(write(p[1], "x", 1) != 1);
    CHECK_EQ(errno, EPIPE);
}
