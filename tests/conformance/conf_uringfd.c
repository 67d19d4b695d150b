/* io_uring(7): direct descriptors, requests that finish more than once, messages into chosen
 * buffers. */
#include "uring_help.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

CONF_FAMILY("uringfd");

/* Of newer headers. */
#define OP_READ_MULTISHOT 49
#define OP_FIXED_FD_INSTALL 54
#define OP_FTRUNCATE 55
#define OP_BIND 56
#define OP_LISTEN 57
#define NO_CLOEXEC 1u

static int reg(const struct ring *r, unsigned op, const void *arg, unsigned count)
{
    return (int)syscall(SYS_io_uring_register, r->fd, op, arg, count);
}

/* A ring with count empty slots for files. */
static struct ring slots_ring(unsigned count)
{
    struct io_uring_rsrc_register rr = {.nr = count, .flags = IORING_RSRC_REGISTER_SPARSE};
    struct ring r = open_ring(16, 0);

    OK(reg(&r, IORING_REGISTER_FILES2, &rr, sizeof(rr)));
    return r;
}

static int fixed(struct ring *r, struct io_uring_sqe *s)
{
    s->flags |= IOSQE_FIXED_FILE;
    return one(r);
}

/* Some operations are newer than the oldest kernel that the others are tried on. */
static void need(const struct ring *r, unsigned op)
{
    static struct {
        struct io_uring_probe p;
        struct io_uring_probe_op ops[128];
    } all;

    memset(&all, 0, sizeof(all));
    OK(reg(r, IORING_REGISTER_PROBE, &all, 128));
    if ((all.ops[op].flags & IO_URING_OP_SUPPORTED) == 0 && getenv("CONFORMANCE") == NULL)
        conf_skip("the host's kernel is older");
}

static int open_slot(struct ring *r, const char *path, int flags, unsigned index)
{
    struct io_uring_sqe *s = add(r, IORING_OP_OPENAT, AT_FDCWD, path, 0600, 0, 1);

    s->open_flags = (unsigned)flags;
    s->file_index = index;
    return one(r);
}

static int close_slot(struct ring *r, unsigned slot)
{
    add(r, IORING_OP_CLOSE, 0, NULL, 0, 0, 1)->file_index = slot + 1;
    return one(r);
}

TEST(direct_open_and_close)
{
    struct ring none = open_ring(4, 0), r = slots_ring(3);
    char buf[8] = {0};

    conf_put("f", "hello");
    CHECK_EQ(open_slot(&none, "f", O_RDONLY, 1), -ENXIO);
    CHECK_EQ(open_slot(&r, "f", O_RDONLY, 4), -EINVAL);
    CHECK_EQ(open_slot(&r, "f", O_RDONLY | O_CLOEXEC, 1), -EINVAL);
    const int free_fd = OK(dup(0));
    OK(close(free_fd));
    CHECK_EQ(open_slot(&r, "absent", O_RDONLY, 2), -ENOENT);
    CHECK_EQ(open_slot(&r, "f", O_RDONLY, 2), 0);
    CHECK_EQ(fixed(&r, add(&r, IORING_OP_READ, 1, buf, 5, 0, 1)), 5);
    CHECK_STR(buf, "hello");
    /* No descriptor was used. */
    CHECK_EQ(OK(dup(0)), free_fd);
    /* Behind the last one first. */
    CHECK_EQ(open_slot(&r, "f", O_RDONLY, IORING_FILE_INDEX_ALLOC), 2);
    CHECK_EQ(open_slot(&r, "f", O_RDONLY, IORING_FILE_INDEX_ALLOC), 0);
    CHECK_EQ(open_slot(&r, "f", O_RDONLY, IORING_FILE_INDEX_ALLOC), -ENFILE);
    CHECK_EQ(close_slot(&r, 1), 0);
    CHECK_EQ(close_slot(&r, 1), -EBADF);
    CHECK_EQ(close_slot(&r, 3), -EINVAL);
    CHECK_EQ(close_slot(&none, 1), -ENXIO);
    CHECK_EQ(fixed(&r, add(&r, IORING_OP_READ, 1, buf, 5, 0, 1)), -EBADF);
    CHECK_EQ(open_slot(&r, "f", O_RDONLY, IORING_FILE_INDEX_ALLOC), 1);
    /* What is there goes. */
    conf_put("g", "other");
    CHECK_EQ(open_slot(&r, "g", O_RDONLY, 2), 0);
    CHECK_EQ(fixed(&r, add(&r, IORING_OP_READ, 1, buf, 5, 0, 1)), 5);
    CHECK_STR(buf, "other");
}

TEST(direct_descriptors_stay_when_all_others_are_used)
{
    struct ring r = slots_ring(1);

    conf_put("f", "hello");
    while (dup(0) >= 0)
        continue;
    CHECK_EQ(errno, EMFILE);
    CHECK_EQ(open_slot(&r, "f", O_RDONLY, 1), 0);
}

TEST(direct_sockets)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "sock"};
    struct ring r = slots_ring(4);
    char buf[8] = {0};

    int l = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(bind(l, (struct sockaddr *)&name, sizeof(name)));
    OK(listen(l, 5));
    add(&r, IORING_OP_SOCKET, AF_UNIX, NULL, 0, SOCK_STREAM, 1)->file_index = 1;
    CHECK_EQ(one(&r), 0);
    add(&r, IORING_OP_SOCKET, AF_UNIX, NULL, 0, SOCK_STREAM | SOCK_CLOEXEC, 1)->file_index = 1;
    CHECK_EQ(one(&r), -EINVAL);
    CHECK_EQ(fixed(&r, add(&r, IORING_OP_CONNECT, 0, &name, 0, sizeof(name), 1)), 0);
    struct io_uring_sqe *s = add(&r, IORING_OP_ACCEPT, l, NULL, 0, 0, 1);
    s->file_index = IORING_FILE_INDEX_ALLOC;
    CHECK_EQ(one(&r), 1);
    CHECK_EQ(fixed(&r, add(&r, IORING_OP_SEND, 0, "ping", 4, 0, 1)), 4);
    CHECK_EQ(fixed(&r, add(&r, IORING_OP_RECV, 1, buf, 8, 0, 1)), 4);
    CHECK_STR(buf, "ping");
    struct iovec v = {buf, 8};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    v.iov_len = 4;
    CHECK_EQ(fixed(&r, add(&r, IORING_OP_SENDMSG, 1, &m, 1, 0, 1)), 4);
    CHECK_EQ(fixed(&r, add(&r, IORING_OP_RECVMSG, 0, &m, 1, 0, 1)), 4);
    CHECK_EQ(fixed(&r, add(&r, IORING_OP_SHUTDOWN, 0, NULL, SHUT_WR, 0, 1)), 0);
    CHECK_EQ(fixed(&r, add(&r, IORING_OP_RECV, 1, buf, 8, 0, 1)), 0);
}

/* The file is the one that was there when the request was made. */
TEST(a_request_keeps_its_file)
{
    struct ring r = open_ring(8, 0);
    char buf[8] = {0};
    int s[2], other[2];

    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, other));
    add(&r, IORING_OP_RECV, s[0], buf, 8, 0, 1);
    CHECK_EQ(enter(&r, 1, 0), 1);
    OK(dup2(other[0], s[0]));
    OK(write(other[1], "other", 5));
    OK(write(s[1], "right", 5));
    CHECK_EQ(enter(&r, 0, 1), 0);
    CHECK_EQ(take(&r).res, 5);
    CHECK_STR(buf, "right");
}

TEST(tags)
{
    int fds[2] = {0, -1};
    uint64_t tags[2] = {77, 0}, more[1] = {88};
    struct ring r = open_ring(8, 0);
    struct io_uring_rsrc_register rr = {.nr = 2, .data = (uintptr_t)fds, .tags = (uintptr_t)tags};

    fds[0] = OK(open(".", O_RDONLY | O_DIRECTORY));
    CHECK_ERRNO(reg(&r, IORING_REGISTER_FILES2, &rr, sizeof(rr) - 8), EINVAL);
    rr.resv2 = 1;
    CHECK_ERRNO(reg(&r, IORING_REGISTER_FILES2, &rr, sizeof(rr)), EINVAL);
    rr.resv2 = 0;
    tags[1] = 5; /* of an empty slot */
    CHECK_ERRNO(reg(&r, IORING_REGISTER_FILES2, &rr, sizeof(rr)), EINVAL);
    tags[1] = 0;
    OK(reg(&r, IORING_REGISTER_FILES2, &rr, sizeof(rr)));
    CHECK_ERRNO(reg(&r, IORING_REGISTER_FILES2, &rr, sizeof(rr)), EBUSY);
    struct io_uring_rsrc_update2 u = {
        .offset = 0, .data = (uintptr_t)fds, .tags = (uintptr_t)more, .nr = 1};
    CHECK_EQ(reg(&r, IORING_REGISTER_FILES_UPDATE2, &u, sizeof(u)), 1);
    (void)enter(&r, 0, 1);
    CHECK_EQ(take(&r).user_data, 77);
    u.offset = 2;
    CHECK_ERRNO(reg(&r, IORING_REGISTER_FILES_UPDATE2, &u, sizeof(u)), EINVAL);
    u.nr = 0;
    CHECK_ERRNO(reg(&r, IORING_REGISTER_FILES_UPDATE2, &u, sizeof(u)), EINVAL);
    OK(reg(&r, IORING_UNREGISTER_FILES, NULL, 0));
    (void)enter(&r, 0, 1);
    CHECK_EQ(take(&r).user_data, 88);
    CHECK_EQ(finished(&r), 0);
}

TEST(alloc_range)
{
    struct ring r = slots_ring(4);
    struct io_uring_file_index_range range = {.off = 2, .len = 2};

    conf_put("f", "x");
    OK(reg(&r, IORING_REGISTER_FILE_ALLOC_RANGE, &range, 0));
    CHECK_EQ(open_slot(&r, "f", O_RDONLY, IORING_FILE_INDEX_ALLOC), 2);
    CHECK_EQ(open_slot(&r, "f", O_RDONLY, IORING_FILE_INDEX_ALLOC), 3);
    CHECK_EQ(open_slot(&r, "f", O_RDONLY, IORING_FILE_INDEX_ALLOC), -ENFILE);
    CHECK_EQ(open_slot(&r, "f", O_RDONLY, 1), 0);
    range.off = 3;
    CHECK_ERRNO(reg(&r, IORING_REGISTER_FILE_ALLOC_RANGE, &range, 0), EINVAL);
    range.len = UINT32_MAX;
    CHECK_ERRNO(reg(&r, IORING_REGISTER_FILE_ALLOC_RANGE, &range, 0), EOVERFLOW);
    CHECK_ERRNO(reg(&r, IORING_REGISTER_FILE_ALLOC_RANGE, NULL, 0), EINVAL);
}

TEST(files_update_request)
{
    struct ring r = slots_ring(2);
    char buf[8] = {0};
    int fds[2] = {-1, -1};

    conf_put("f", "hello");
    fds[0] = OK(open("f", O_RDONLY));
    add(&r, IORING_OP_FILES_UPDATE, -1, fds, 2, 0, 1);
    CHECK_EQ(one(&r), 2);
    CHECK_EQ(fixed(&r, add(&r, IORING_OP_READ, 0, buf, 5, 0, 1)), 5);
    /* Anywhere, and told where. */
    add(&r, IORING_OP_FILES_UPDATE, -1, fds, 1, IORING_FILE_INDEX_ALLOC, 1);
    CHECK_EQ(one(&r), 1);
    CHECK_EQ(fds[0], 1);
    CHECK_EQ(fixed(&r, add(&r, IORING_OP_READ, 1, buf, 5, 0, 1)), 5);
    fds[0] = -1;
    add(&r, IORING_OP_FILES_UPDATE, -1, fds, 1, 2, 1);
    CHECK_EQ(one(&r), -EINVAL);
    add(&r, IORING_OP_FILES_UPDATE, -1, fds, 0, 0, 1);
    CHECK_EQ(one(&r), -EINVAL);
}

TEST(a_direct_descriptor_becomes_one_of_the_table)
{
    struct ring r = slots_ring(2);
    char buf[8] = {0};

    need(&r, OP_FIXED_FD_INSTALL);
    conf_put("f", "hello");
    CHECK_EQ(open_slot(&r, "f", O_RDONLY, 1), 0);
    int fd = fixed(&r, add(&r, OP_FIXED_FD_INSTALL, 0, NULL, 0, 0, 1));
    CHECK(fd >= 0);
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(read(fd, buf, 5), 5);
    struct io_uring_sqe *s = add(&r, OP_FIXED_FD_INSTALL, 0, NULL, 0, 0, 1);
    s->rw_flags = NO_CLOEXEC;
    fd = fixed(&r, s);
    CHECK_EQ(OK(fcntl(fd, F_GETFD)), 0);
    s = add(&r, OP_FIXED_FD_INSTALL, 0, NULL, 0, 0, 1);
    s->rw_flags = 2;
    CHECK_EQ(fixed(&r, s), -EINVAL);
    add(&r, OP_FIXED_FD_INSTALL, fd, NULL, 0, 0, 1);
    CHECK_EQ(one(&r), -EBADF);
    CHECK_EQ(fixed(&r, add(&r, OP_FIXED_FD_INSTALL, 1, NULL, 0, 0, 1)), -EBADF);
}

TEST(newer_calls)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "sock"};
    struct ring r = slots_ring(2);
    struct stat st;

    need(&r, OP_LISTEN);
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    add(&r, OP_FTRUNCATE, fd, NULL, 0, 4096, 1);
    CHECK_EQ(one(&r), 0);
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_size, 4096);
    add(&r, OP_FTRUNCATE, fd, NULL, 1, 4096, 1);
    CHECK_EQ(one(&r), -EINVAL);
    add(&r, IORING_OP_SOCKET, AF_UNIX, NULL, 0, SOCK_STREAM, 1)->file_index = 1;
    CHECK_EQ(one(&r), 0);
    CHECK_EQ(fixed(&r, add(&r, OP_BIND, 0, &name, 0, sizeof(name), 1)), 0);
    CHECK_EQ(fixed(&r, add(&r, OP_LISTEN, 0, NULL, 5, 0, 1)), 0);
    CHECK_EQ(fixed(&r, add(&r, OP_BIND, 0, &name, 4, sizeof(name), 1)), -EINVAL);
    int c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(connect(c, (struct sockaddr *)&name, sizeof(name)));
}

/* ---- more than once ---- */

static int listener(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "sock"};
    int l = OK(socket(AF_UNIX, SOCK_STREAM, 0));

    OK(bind(l, (struct sockaddr *)&name, sizeof(name)));
    OK(listen(l, 8));
    return l;
}

static int caller(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "sock"};
    int c = OK(socket(AF_UNIX, SOCK_STREAM, 0));

    OK(connect(c, (struct sockaddr *)&name, sizeof(name)));
    return c;
}

/* Waits for the next one of user: what goes on says so. */
static struct io_uring_cqe next(const struct ring *r, bool more)
{
    if (finished(r) == 0)
        CHECK_EQ(enter(r, 0, 1), 0);
    struct io_uring_cqe c = take(r);
    CHECK_EQ((c.flags & IORING_CQE_F_MORE) != 0, more);
    return c;
}

TEST(accept_goes_on)
{
    struct ring r = slots_ring(2);

    const int l = listener(), one_there = caller();
    add(&r, IORING_OP_ACCEPT, l, NULL, 0, 0, 1)->ioprio = IORING_ACCEPT_MULTISHOT;
    CHECK_EQ(enter(&r, 1, 1), 1);
    struct io_uring_cqe c = next(&r, true);
    CHECK(c.res >= 0);
    OK(write(one_there, "x", 1));
    char x;
    CHECK_EQ(read(c.res, &x, 1), 1);
    (void)caller();
    (void)caller();
    CHECK(next(&r, true).res >= 0);
    CHECK(next(&r, true).res >= 0);
    CHECK_EQ(finished(&r), 0);
    add(&r, IORING_OP_ASYNC_CANCEL, -1, (void *)1, 0, 0, 2);
    CHECK_EQ(enter(&r, 1, 2), 1);
    struct io_uring_cqe e[2] = {next(&r, false), next(&r, false)};
    CHECK_EQ(result_of(e, 2, 1), -ECANCELED);
    CHECK_EQ(result_of(e, 2, 2), 0);
    /* Into slots: as many as there are. */
    struct io_uring_sqe *s = add(&r, IORING_OP_ACCEPT, l, NULL, 0, 0, 1);
    s->ioprio = IORING_ACCEPT_MULTISHOT;
    s->file_index = 1;
    CHECK_EQ(one(&r), -EINVAL);
    s = add(&r, IORING_OP_ACCEPT, l, NULL, 0, 0, 1);
    s->ioprio = IORING_ACCEPT_MULTISHOT;
    s->file_index = IORING_FILE_INDEX_ALLOC;
    CHECK_EQ(enter(&r, 1, 0), 1);
    for (int i = 0; i < 3; i++)
        (void)caller();
    CHECK_EQ(next(&r, true).res, 0);
    CHECK_EQ(next(&r, true).res, 1);
    CHECK_EQ(next(&r, false).res, -ENFILE);
}

static void give(struct ring *r, char (*bufs)[64], unsigned count)
{
    add(r, IORING_OP_PROVIDE_BUFFERS, (int)count, bufs, 64, 0, 0)->buf_group = 3;
    CHECK_EQ(one(r), 0);
}

static const char *chosen(const struct io_uring_cqe *c, char (*bufs)[64])
{
    CHECK((c->flags & IORING_CQE_F_BUFFER) != 0);
    return bufs[c->flags >> IORING_CQE_BUFFER_SHIFT];
}

TEST(recv_goes_on)
{
    struct ring r = open_ring(8, 0);
    static char bufs[3][64];
    int s[2];

    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    struct io_uring_sqe *q = add(&r, IORING_OP_RECV, s[0], NULL, 0, 0, 1);
    q->ioprio = IORING_RECV_MULTISHOT;
    CHECK_EQ(one(&r), -EINVAL);
    give(&r, bufs, 3);
    q = add(&r, IORING_OP_RECV, s[0], NULL, 0, 0, 1);
    q->ioprio = IORING_RECV_MULTISHOT;
    q->flags = IOSQE_BUFFER_SELECT;
    q->buf_group = 3;
    CHECK_EQ(enter(&r, 1, 0), 1);
    CHECK_EQ(finished(&r), 0);
    OK(write(s[1], "one", 4));
    struct io_uring_cqe c = next(&r, true);
    CHECK_EQ(c.res, 4);
    CHECK_STR(chosen(&c, bufs), "one");
    OK(write(s[1], "two", 4));
    c = next(&r, true);
    CHECK_STR(chosen(&c, bufs), "two");
    OK(write(s[1], "three", 6));
    c = next(&r, true);
    CHECK_STR(chosen(&c, bufs), "three");
    /* No buffer is left. */
    OK(write(s[1], "four", 5));
    CHECK_EQ(next(&r, false).res, -ENOBUFS);
    give(&r, bufs, 1);
    q = add(&r, IORING_OP_RECV, s[0], NULL, 0, 0, 1);
    q->ioprio = IORING_RECV_MULTISHOT;
    q->flags = IOSQE_BUFFER_SELECT;
    q->buf_group = 3;
    CHECK_EQ(enter(&r, 1, 1), 1);
    c = next(&r, true);
    CHECK_STR(chosen(&c, bufs), "four");
    give(&r, bufs, 3);
    OK(close(s[1]));
    CHECK_EQ(next(&r, false).res, 0);
}

TEST(read_goes_on)
{
    struct ring r = open_ring(8, 0);
    static char bufs[4][64];
    int p[2];

    need(&r, OP_READ_MULTISHOT);
    OK(pipe(p));
    give(&r, bufs, 4);
    struct io_uring_sqe *q = add(&r, OP_READ_MULTISHOT, p[0], NULL, 0, 0, 1);
    q->flags = IOSQE_BUFFER_SELECT;
    q->buf_group = 3;
    CHECK_EQ(enter(&r, 1, 0), 1);
    OK(write(p[1], "one", 4));
    struct io_uring_cqe c = next(&r, true);
    CHECK_STR(chosen(&c, bufs), "one");
    OK(write(p[1], "two", 4));
    c = next(&r, true);
    CHECK_STR(chosen(&c, bufs), "two");
    OK(close(p[1]));
    CHECK_EQ(next(&r, false).res, 0);
}

/* ---- messages into chosen buffers ---- */

static struct io_uring_sqe *add_recvmsg(struct ring *r, int fd, struct msghdr *m, unsigned prio)
{
    struct io_uring_sqe *q = add(r, IORING_OP_RECVMSG, fd, m, 1, 0, 1);

    q->flags = IOSQE_BUFFER_SELECT;
    q->buf_group = 3;
    q->ioprio = (uint16_t)prio;
    return q;
}

TEST(recvmsg_chooses)
{
    struct ring r = open_ring(8, 0);
    struct sockaddr_un from;
    struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof(from)};
    static char bufs[4][64];
    struct iovec v[2] = {{NULL, 3}, {NULL, 3}};
    int s[2];

    OK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s));
    (void)add_recvmsg(&r, s[0], &m, 0);
    CHECK_EQ(one(&r), -ENOBUFS);
    give(&r, bufs, 4);
    OK(write(s[1], "hello", 6));
    (void)add_recvmsg(&r, s[0], &m, 0);
    CHECK_EQ(enter(&r, 1, 1), 1);
    struct io_uring_cqe c = take(&r);
    CHECK_EQ(c.res, 6);
    CHECK_STR(chosen(&c, bufs), "hello");
    /* One range says how much at most. */
    m.msg_iov = v;
    m.msg_iovlen = 1;
    OK(write(s[1], "hello", 6));
    (void)add_recvmsg(&r, s[0], &m, 0);
    CHECK_EQ(enter(&r, 1, 1), 1);
    c = take(&r);
    CHECK_EQ(c.res, 3);
    CHECK((m.msg_flags & MSG_TRUNC) != 0);
    m.msg_iovlen = 2;
    OK(write(s[1], "hello", 6));
    (void)add_recvmsg(&r, s[0], &m, 0);
    CHECK_EQ(one(&r), -EINVAL);
}

/* A header, the name, what is ancillary, the bytes: one behind the other in each buffer. */
TEST(recvmsg_goes_on)
{
    struct ring r = open_ring(8, 0);
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "here"}, back = name;
    struct msghdr m = {.msg_namelen = 16, .msg_controllen = 0};
    struct io_uring_recvmsg_out out;
    static char bufs[8][64];

    (void)strcpy(back.sun_path, "far");
    int in = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), to = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    OK(bind(in, (struct sockaddr *)&name, sizeof(name)));
    OK(bind(to, (struct sockaddr *)&back, sizeof(sa_family_t) + 4));
    OK(connect(to, (struct sockaddr *)&name, sizeof(name)));
    give(&r, bufs, 8);
    (void)add_recvmsg(&r, in, &m, IORING_RECV_MULTISHOT);
    CHECK_EQ(enter(&r, 1, 0), 1);
    for (int i = 0; i < 2; i++) {
        OK(send(to, "hello", 6, 0));
        struct io_uring_cqe c = next(&r, true);
        const char *b = chosen(&c, bufs);
        CHECK_EQ(c.res, sizeof(out) + 16 + 6);
        (void)memcpy(&out, b, sizeof(out));
        CHECK_EQ(out.namelen, sizeof(sa_family_t) + 4);
        CHECK_EQ(out.controllen, 0);
        CHECK_EQ(out.payloadlen, 6);
        CHECK_EQ(out.flags, 0);
        CHECK_STR(b + sizeof(out) + 2, "far");
        CHECK_STR(b + sizeof(out) + 16, "hello");
    }
    /* More than the buffer has room for. */
    char big[100] = {0};
    OK(send(to, big, sizeof(big), 0));
    struct io_uring_cqe c = next(&r, true);
    CHECK_EQ(c.res, 64);
    (void)memcpy(&out, chosen(&c, bufs), sizeof(out));
    CHECK_EQ(out.payloadlen, 64 - 16 - sizeof(out));
    CHECK_EQ(out.flags, MSG_TRUNC);
    /* What the layout alone does not fit into. */
    m.msg_namelen = 60;
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
    OK(send(s[1], "x", 1, 0));
    (void)add_recvmsg(&r, s[0], &m, IORING_RECV_MULTISHOT);
    CHECK_EQ(one(&r), -EFAULT);
}

/* ---- who waits for the eventfd alone ---- */

TEST(eventfd_tells_of_what_waited)
{
    struct ring r = open_ring(4, 0);
    char buf[4];
    uint64_t n;
    int p[2];

    OK(pipe(p));
    const int efd = OK(eventfd(0, 0));
    OK(reg(&r, IORING_REGISTER_EVENTFD, &efd, 1));
    add(&r, IORING_OP_READ, p[0], buf, 4, 0, 1);
    CHECK_EQ(enter(&r, 1, 0), 1);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(write(p[1], "ping", 4));
        _exit(0);
    }
    CHECK_EQ(OK(read(efd, &n, sizeof(n))), 8);
    /* What is not there yet is said to be had by entering. */
    const unsigned more = __atomic_load_n(word(&r, r.p.sq_off.flags), __ATOMIC_ACQUIRE);
    CHECK(finished(&r) == 1 || (more & IORING_SQ_TASKRUN) != 0);
    CHECK_EQ(enter(&r, 0, 1), 0);
    CHECK_EQ(take(&r).res, 4);
    CHECK_EXIT(pid, 0);
}
