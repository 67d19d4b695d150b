/* The sentry's client against a hostile gofer: the input is a row of answers, each to a request
 * that it chooses, and of events. Whatever comes, and whatever becomes of it while it is read, a
 * call must end with an errno or with values in their bounds. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rbuf.h"
#include "base/wbuf.h"
#include "gofer/proto/area.h"
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

/* An answer to come: with the frame, or the bytes alone. */
struct answer {
    uint8_t how;
    uint32_t seq;
    const uint8_t *bytes;
    size_t size;
};

static size_t make_answer(const struct answer *a)
{
    struct wbuf w;

    wbuf_init(&w, buf, sizeof(buf));
    if (!(a->how & 0x10)) {
        wbuf_u32(&w, a->how & 8 ? (uint32_t)-ENOENT : 0);
        wbuf_u32(&w, a->seq);
    }
    wbuf_bytes(&w, a->bytes, MIN(a->size, sizeof(buf) - 8));
    return w.len;
}

static struct gofer {
    int sock, events;
    struct gof_area *area;
    _Atomic bool over;
    struct answer answer; /* the client's before it asks, ours when it has */
    pthread_t thread;
} gofer;

/* Changes what the client may be reading. */
static void change(struct gof_area *area, const struct answer *a)
{
    for (uint32_t i = 0; i < 64; i++) {
        atomic_store_explicit(&area->size, i % 2 ? UINT32_MAX : i, memory_order_relaxed);
        area->message[i % 16] = (uint8_t)(a->size + i);
    }
}

/* Longer than any may be. */
static void give_too_much(struct gof_area *area, const struct answer *a)
{
    atomic_store(&area->size, (uint32_t)(GOF_MESSAGE_MAX + 1 + a->size));
    atomic_store(&area->turn, (uint32_t)GOF_TURN_SENTRY);
    (void)syscall(SYS_futex, &area->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void give(struct gof_area *area, const struct answer *a)
{
    size_t size = make_answer(a);
    int fd = some_fd(a->how >> 5);

    if (fd >= 0 && gof_msg_send(gofer.sock, "", 1, fd))
        abort();
    if (fd >= 0)
        close(fd);
    switch (a->how & 7) {
    case 1:
        give_too_much(area, a);
        break;
    case 2:
        gof_area_put(area, buf, size, GOF_TURN_SENTRY);
        change(area, a);
        break;
    case 3:
        gof_area_put(area, buf, size, (enum gof_turn)(GOF_TURN_ENDED + a->size));
        break;
    default:
        gof_area_put(area, buf, size, GOF_TURN_SENTRY);
        break;
    }
}

static void *gofer_main_loop(void *arg)
{
    static uint8_t request[GOF_MESSAGE_MAX];

    (void)arg;
    for (;;) {
        /* It may be spoilt by what we wrote too late. */
        int64_t n = gof_area_get(gofer.area, GOF_TURN_GOFER, &gofer.over, -1, request);
        if (n < 0 && n != -EPROTO)
            return NULL;
        const struct answer a = gofer.answer;
        give(gofer.area, &a);
    }
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
        if ((op & 4 ? gof_look : gof_walk)(c, 1, names, 3, n, &done, &why))
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

static bool hold_watch(struct gof_watch *w)
{
    (void)w;
    return true;
}

static void check_event(struct gof_watch *w, const struct gof_event *e)
{
    size_t len = strnlen(e->name, sizeof(e->name));

    if (e->wd != w->wd || (len && !gof_name_ok(e->name, len)) || e->ctime.nsec >= 1000000000u)
        abort();
}

static void events_lost(void)
{
}

/* Watches something, and has the rest of the bytes told as its events: till they were. */
static void call_for_events(struct gof_client *c, const struct answer *a)
{
    static const struct gof_watch_ops ops = {hold_watch, check_event, events_lost};
    static uint8_t request[GOF_MESSAGE_MAX];
    struct gof_watch w = {.ops = &ops};
    struct answer events = *a;
    struct rbuf r;
    int fd;

    gofer.answer = (struct answer){a->how & 0xf8, a->seq, a->bytes, MIN(a->size, 4u)};
    if (gof_watch(c, 1, &w))
        return;
    events.bytes += 4;
    events.size -= 4;
    int64_t n = gof_msg_recv(gofer.events, request, sizeof(request), 0, &fd);
    if (n > 0) {
        rbuf_init(&r, request, (size_t)n);
        (void)rbuf_u32(&r);
        events.seq = rbuf_u32(&r);
        n = gof_msg_send(gofer.events, buf, make_answer(&events), -1);
        /* The next request, or the end: the events were looked at. */
        if (n == 0 && gof_msg_recv(gofer.events, request, sizeof(request), 0, &fd) > 0)
            gof_client_gone(c);
    }
    gof_watch_drop(c, &w);
}

/* Mostly short, so that an input holds several; the longest is 16 KiB. */
static size_t message_size(struct rbuf *r)
{
    size_t n = rbuf_u8(r);

    if (n >= 0xc0)
        n = (n - 0xc0) * 256;
    return MIN(n, rbuf_left(r));
}

static struct gof_client *set_up(int (*pairs)[2])
{
    static bool ready;
    struct gof_client *c;

    if (!ready)
        log_init(-1, LOG_ERROR, LOG_TEXT);
    ready = true;
    if (gof_pairs_new(pairs, 2))
        abort();
    const int mine[2] = {pairs[0][0], pairs[1][0]};
    gofer.sock = pairs[0][1];
    gofer.events = pairs[1][1];
    atomic_store(&gofer.over, false);
    if (gof_client_new(mine, 2, &c) || gof_areas_take(gofer.sock, 1, &gofer.area) ||
        pthread_create(&gofer.thread, NULL, gofer_main_loop, NULL))
        abort();
    return c;
}

static void tear_down(struct gof_client *c)
{
    gof_client_put(c);
    atomic_store(&gofer.over, true);
    gof_area_end(gofer.area);
    pthread_join(gofer.thread, NULL);
    gof_areas_drop(gofer.area, 1);
    close(gofer.sock);
    close(gofer.events);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rbuf r;
    int pairs[2][2];
    struct gof_client *c = set_up(pairs);

    rbuf_init(&r, data, size);
    for (uint32_t i = 1; i <= CALLS_MAX && rbuf_left(&r) > 0 && !gof_client_dead(c); i++) {
        uint8_t op = rbuf_u8(&r), how = rbuf_u8(&r);
        size_t len = message_size(&r);
        const uint8_t *bytes = rbuf_take(&r, len);
        if (!bytes)
            break;
        gofer.answer = (struct answer){how, i, bytes, len};
        if (op % 13 == 12)
            call_for_events(c, &(struct answer){how, i, bytes, len});
        else
            call(c, op % 13);
    }
    tear_down(c);
    return 0;
}
