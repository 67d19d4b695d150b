/* The gofer's server against a hostile sentry: the input is a row of requests. Each is a byte that
 * says how it is made, a length and bytes; the frame (a known op, handles that exist) is put around
 * them more often than not, so that what lies behind it is reached. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rbuf.h"
#include "base/wbuf.h"
#include "gofer/proto/area.h"
#include "gofer/proto/proto.h"
#include "gofer/server.h"

#define REQUESTS_MAX 24
#define SECRET "secret"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char base[] = "/tmp/ringwall-fuzz-XXXXXX";
static int base_fd = -1, proc_fd = -1;
static struct stat secret_before;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type;
    return at->level == 0 ? 0 : remove(path);
}

static int remove_all(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static void at_end(void)
{
    nftw(base, remove_all, 16, FTW_DEPTH | FTW_PHYS);
}

/* base/secret is outside of the exports base/rw and base/ro. */
static void set_up(void)
{
    if (base_fd >= 0)
        return;
    log_init(-1, LOG_ERROR, LOG_TEXT);
    umask(0);
    if (!mkdtemp(base))
        abort();
    atexit(at_end);
    base_fd = open(base, O_PATH | O_DIRECTORY | O_CLOEXEC);
    proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = openat(base_fd, SECRET, O_CREAT | O_WRONLY | O_CLOEXEC, 0400);
    if (fd < 0 || fstat(fd, &secret_before) || mkdirat(base_fd, "rw", 0755) ||
        mkdirat(base_fd, "ro", 0755))
        abort();
    close(fd);
}

static int export_fd(const char *name)
{
    int fd = openat(base_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        abort();
    return fd;
}

static struct gof_server *new_server(void)
{
    const struct gof_server_export exports[2] = {{export_fd("rw"), false}, {export_fd("ro"), true}};
    const struct gof_server_args args = {.fd_path = "/proc/self/fd/",
                                         .exports = exports,
                                         .export_count = 2,
                                         .proc_fd = proc_fd,
                                         .handle_max = 64};
    struct gof_server *s;

    if (gof_server_new(&args, &s))
        abort();
    return s;
}

/* A request for op with the input's bytes, or those bytes alone: its size. */
static size_t make_request(uint8_t how, const uint8_t *bytes, size_t size, uint8_t *out)
{
    struct wbuf w;

    wbuf_init(&w, out, GOF_MESSAGE_MAX);
    if (how & 0x80) {
        wbuf_bytes(&w, bytes, size);
        return w.len;
    }
    wbuf_u16(&w, how % GOF_OP_END);
    wbuf_u16(&w, 0);
    wbuf_u32(&w, 1);
    wbuf_u16(&w, GOF_CPU_NONE);
    /* Ids start with small slots of generation 0. */
    if (how & 0x40 && size > 0) {
        wbuf_u64(&w, bytes[0] % 8u);
        bytes++;
        size--;
    }
    wbuf_bytes(&w, bytes, size);
    return w.failed ? 0 : w.len;
}

/* Through the memory of a channel, with a size that may be a lie: what the server reads. */
static int64_t through_area(struct gof_conn *c, uint8_t how, size_t size)
{
    static struct gof_area *area;
    const _Atomic bool ended = false;
    int pairs[2][2];

    if (!area) {
        if (gof_pairs_new(pairs, 2) || gof_areas_take(pairs[0][0], 1, &area))
            abort();
        for (int i = 0; i < 2; i++) {
            close(pairs[i][0]);
            close(pairs[i][1]);
        }
    }
    gof_area_put(area, c->in, size, GOF_TURN_GOFER);
    if ((how & 0x60) == 0x60)
        atomic_store(&area->size, (uint32_t)size * how);
    if (how == 0xff)
        atomic_store(&area->turn, how);
    int64_t n = gof_area_get(area, GOF_TURN_GOFER, &ended, 0, c->in);
    if (n > (int64_t)GOF_MESSAGE_MAX || n == -ETIMEDOUT)
        abort();
    return n;
}

static void attach(struct gof_conn *c, uint8_t export_id)
{
    struct wbuf w;
    size_t size;
    int fd;

    wbuf_init(&w, c->in, GOF_MESSAGE_MAX);
    wbuf_u16(&w, GOF_ATTACH);
    wbuf_u16(&w, 0);
    wbuf_u32(&w, 0);
    wbuf_u16(&w, GOF_CPU_NONE);
    wbuf_u32(&w, export_id);
    if (gof_server_answer(c, w.len, &size, &fd))
        abort();
}

/* Nothing outside changed, nothing in the read-only export appeared. */
static void check_outside(void)
{
    struct stat st, ro;

    if (fstatat(base_fd, SECRET, &st, AT_SYMLINK_NOFOLLOW) || st.st_mode != secret_before.st_mode ||
        st.st_size != 0 || st.st_nlink != 1 || st.st_ino != secret_before.st_ino ||
        st.st_uid != secret_before.st_uid)
        abort();
    if (fstatat(base_fd, "ro", &ro, 0) || (ro.st_mode & 07777) != 0755 || ro.st_nlink != 2)
        abort();
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
    struct rbuf r;
    struct gof_conn c;

    set_up();
    struct gof_server *s = new_server();
    if (gof_conn_init(&c, s))
        abort();
    attach(&c, 0);
    attach(&c, 1);
    rbuf_init(&r, data, size);
    for (int i = 0; i < REQUESTS_MAX && rbuf_left(&r) > 0; i++) {
        uint8_t how = rbuf_u8(&r);
        size_t len = message_size(&r);
        const uint8_t *bytes = rbuf_take(&r, len);
        size_t out_size;
        int fd = -1;
        if (!bytes)
            break;
        int64_t n = through_area(&c, how, make_request(how, bytes, len, c.in));
        if (n >= 0 && gof_server_answer(&c, (size_t)n, &out_size, &fd) == 0) {
            struct stat st;
            if (out_size < 8 || out_size > GOF_MESSAGE_MAX)
                abort();
            if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode)))
                abort();
            if (fd >= 0)
                close(fd);
        }
    }
    gof_conn_fini(&c);
    gof_server_free(s);
    check_outside();
    char rw[64];
    snprintf(rw, sizeof(rw), "%s/rw", base);
    nftw(rw, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    (void)!fchmodat(base_fd, "rw", 0755, 0);
    return 0;
}
