#include "gofer/proto/area.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "gofer/proto/msg.h"

/* A file that got shorter would be a SIGBUS for whoever reads what was there. */
#define AREA_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int new_file(size_t count, int *out)
{
    int fd = memfd_create("gofer-channels", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)(count * GOF_AREA_SIZE)) || fcntl(fd, F_ADD_SEALS, AREA_SEALS)) {
        int r = -errno;
        close(fd);
        return r;
    }
    *out = fd;
    return 0;
}

static void close_pairs(int (*pairs)[2], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
}

/* Both ends find it before all that the other sends. */
static int send_file(const int pair[2], size_t count)
{
    int fd = -1;
    int r = new_file(count, &fd);

    if (r)
        return r;
    r = gof_msg_send(pair[0], "", 1, fd);
    if (r == 0)
        r = gof_msg_send(pair[1], "", 1, fd);
    close(fd);
    return r;
}

int gof_pairs_new(int (*pairs)[2], size_t count)
{
    size_t made = 0;
    int r = count < 2 || count > GOF_CHANNEL_MAX ? -EINVAL : 0;

    while (r == 0 && made < count) {
        r = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pairs[made]) ? -errno : 0;
        made += r == 0;
    }
    if (r == 0)
        r = send_file(pairs[0], count - 1);
    if (r)
        close_pairs(pairs, made);
    return r;
}

static bool file_ok(int fd, size_t size)
{
    struct stat st;

    return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == (off_t)size &&
           fcntl(fd, F_GET_SEALS) == AREA_SEALS;
}

int gof_areas_take(int sock, size_t count, struct gof_area **out)
{
    const size_t size = count * GOF_AREA_SIZE;
    char byte;
    int fd = -1;

    int64_t n = gof_msg_recv(sock, &byte, sizeof(byte), 0, &fd);
    if (n <= 0)
        return n < 0 ? (int)n : -EPIPE;
    void *p = MAP_FAILED;
    int r = -EPROTO;
    if (file_ok(fd, size)) {
        p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        r = p == MAP_FAILED ? -errno : 0;
    }
    if (fd >= 0)
        close(fd);
    if (r == 0)
        *out = p;
    return r;
}

void gof_areas_drop(struct gof_area *areas, size_t count)
{
    if (areas)
        munmap(areas, count * GOF_AREA_SIZE);
}

static void area_wake(struct gof_area *a, int count)
{
    (void)syscall(SYS_futex, &a->turn, FUTEX_WAKE, count, NULL, NULL, 0);
}

void gof_area_put(struct gof_area *a, const void *data, size_t size, enum gof_turn to)
{
    memcpy(a->message, data, size);
    atomic_store_explicit(&a->size, (uint32_t)size, memory_order_relaxed);
    atomic_store(&a->turn, to);
    area_wake(a, 1);
}

static int area_await(struct gof_area *a, enum gof_turn mine, const _Atomic bool *ended,
                      int wait_ms)
{
    const enum gof_turn theirs = mine == GOF_TURN_GOFER ? GOF_TURN_SENTRY : GOF_TURN_GOFER;
    const struct timespec ts = {.tv_sec = wait_ms / 1000, .tv_nsec = wait_ms % 1000 * 1000000L};

    for (;;) {
        /* Before ended: gof_area_end is called after that was set. */
        uint32_t turn = atomic_load(&a->turn);
        if (atomic_load(ended))
            return -EPIPE;
        if (turn != theirs)
            return turn == mine ? 0 : -EPIPE;
        if (syscall(SYS_futex, &a->turn, FUTEX_WAIT, theirs, wait_ms < 0 ? NULL : &ts, NULL, 0) &&
            errno == ETIMEDOUT)
            return -ETIMEDOUT;
    }
}

int64_t gof_area_get(struct gof_area *a, enum gof_turn mine, const _Atomic bool *ended, int wait_ms,
                     void *buf)
{
    int r = area_await(a, mine, ended, wait_ms);

    if (r)
        return r;
    const uint32_t size = atomic_load_explicit(&a->size, memory_order_relaxed);
    if (size > GOF_MESSAGE_MAX)
        return -EPROTO;
    memcpy(buf, a->message, size);
    /* What was copied is what is parsed: no compiler goes back to the source. */
    __asm__ volatile("" : : : "memory");
    return size;
}

void gof_area_end(struct gof_area *a)
{
    atomic_store(&a->turn, GOF_TURN_ENDED);
    area_wake(a, INT_MAX);
}
