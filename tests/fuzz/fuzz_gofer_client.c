/* The sentry's client against a hostile gofer: the input is a row of answers, each to a request
 * that it chooses. Whatever comes, a call must end with an errno or with values in their bounds. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rbuf.h"
#include "base/wbuf.h"
#include "gofer/proto/client.h"
#include "gofer/proto/msg.h"

#define CALLS_MAX 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t buf[GOF_MESSAGE_MAX];

/* A descriptor of one kind or another, or -1. */
static int some_fd(uint8_t kind)
{
    switch (kind % 6) {
    case 0:
        return memfd_create("fuzz", MFD_CLOEXEC);
    case 1:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    case 2:
        return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    case 3:
        return open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    default:
        return -1;
    }
}

/* Puts the answer to request number seq into the socket before the request is made. */
static void queue_answer(int sock, uint8_t how, uint32_t seq, const uint8_t *bytes, size_t size)
{
    struct wbuf w;
    int fd = some_fd(how >> 5);

    wbuf_init(&w, buf, sizeof(buf));
    if (!(how & 0x10)) {
        wbuf_u32(&w, how & 8 ? (uint32_t)-ENOENT : 0);
        wbuf_u32(&w, seq);
    }
    wbuf_bytes(&w, bytes, MIN(size, sizeof(buf) - 8));
    if (w.len && gof_msg_send(sock, buf, w.len, fd))
        abort();
    if (fd >= 0)
        close(fd);
    /* An answer without a byte means the end to a reader. */
    if (!w.len)
        shutdown(sock, SHUT_WR);
}

static void check_attr(const struct gof_attr *a)
{
    if (a->size > INT64_MAX || a->mtime.nsec >= 1000000000u || (a->mode & S_IFMT) == 0)
        abort();
}

static int check_entry(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype)
{
    (void)arg, (void)ino, (void)dtype;
    if (!gof_name_ok(name, len) || strlen(name) != len)
        abort();
    return 0;
}

static void check_fd(int fd)
{
    struct stat st;

    if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
        abort();
    close(fd);
}

static void call_with_nodes(struct gof_client *c, uint8_t op)
{
    static const char *const names[] = {"a", "b", "c"};
    struct gof_node n[3];
    size_t done;
    int why, fd;
    bool readonly;

    switch (op % 4) {
    case 0:
        if (gof_attach(c, 0, &readonly, &n[0]) == 0)
            check_attr(&n[0].attr);
        break;
    case 1:
        if (gof_walk(c, 1, names, 3, n, &done, &why))
            break;
        if (done > 3)
            abort();
        for (size_t i = 0; i < done; i++)
            check_attr(&n[i].attr);
        break;
    case 2:
        if (gof_create(c, 1, "n", S_IFREG | 0600, 0, 0, 0, &n[0], &fd) == 0)
            check_fd(fd);
        break;
    default:
        if (gof_symlink(c, 1, "n", "t", 0, 0, &n[0]) == 0 && !S_ISLNK(n[0].attr.mode))
            abort();
        break;
    }
}

static void call(struct gof_client *c, uint8_t op)
{
    static char text[GOF_LINK_MAX + 1];
    struct gof_setattr s = {.valid = GOF_SET_MODE};
    struct gof_statfs fs;
    struct gof_attr a;
    int64_t n;
    uint64_t parent;
    bool end;
    int fd;

    switch (op % 12) {
    case 0:
    case 1:
    case 2:
    case 3:
        call_with_nodes(c, op);
        break;
    case 4:
        if (gof_open(c, 1, op & 16, &fd) == 0)
            check_fd(fd);
        break;
    case 5:
        n = gof_readlink(c, 1, text, 100);
        if (n >= 0 && (n == 0 || n >= 100 || strlen(text) != (size_t)n))
            abort();
        break;
    case 6:
        (void)!gof_getdents(c, 1, true, check_entry, NULL, &end, &parent);
        break;
    case 7:
        if (gof_stat(c, 1, &a) == 0)
            check_attr(&a);
        break;
    case 8:
        if (gof_set_attr(c, 1, &s, &a) == 0)
            check_attr(&a);
        break;
    case 9:
        (void)!gof_statfs(c, 1, &fs);
        break;
    case 10:
        if (gof_getxattr(c, 1, "user.x", text, 64) > 64)
            abort();
        break;
    default:
        (void)!gof_unlink(c, 1, "n", false);
        break;
    }
}

/* Mostly short, so that an input holds several; the longest is 16 KiB. */
static size_t message_size(struct rbuf *r)
{
    size_t n = rbuf_u8(r);

    if (n >= 0xc0)
        n = (n - 0xc0) * 256;
    return MIN(n, rbuf_left(r));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    struct gof_client *c;
    struct rbuf r;
    int pair[2];

    if (!ready)
        log_init(-1, LOG_ERROR, LOG_TEXT);
    ready = true;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        abort();
    if (gof_client_new(&pair[0], 1, &c))
        abort();
    rbuf_init(&r, data, size);
    for (uint32_t i = 1; i <= CALLS_MAX && rbuf_left(&r) > 0 && !gof_client_dead(c); i++) {
        uint8_t op = rbuf_u8(&r), how = rbuf_u8(&r);
        size_t len = message_size(&r);
        const uint8_t *bytes = rbuf_take(&r, len);
        int fd;
        if (!bytes)
            break;
        queue_answer(pair[1], how, i, bytes, len);
        call(c, op);
        if (!gof_client_dead(c) && gof_msg_recv(pair[1], buf, sizeof(buf), &fd) <= 0)
            abort();
    }
    gof_client_put(c);
    close(pair[1]);
    return 0;
}
