/* The memory of the channels: what is taken for it, how both ends end, and an other side that
 * changes it while it is read. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "gofer/proto/msg.h"
#include "gofer_fixture.h"

/* ---- the file ---- */

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int take(int fd)
{
    struct gof_area *area = NULL;
    int pair[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert_eq(gof_msg_send(pair[0], "", 1, fd), 0);
    int r = gof_areas_take(pair[1], 1, &area);
    cr_assert_eq(r == 0, area != NULL);
    gof_areas_drop(area, 1);
    close(pair[0]);
    close(pair[1]);
    if (fd >= 0)
        close(fd);
    return r;
}

static int new_file(off_t size, int seals)
{
    int fd = memfd_create("area", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, size), 0);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

Test(gofer_area, only_a_sealed_file_of_the_right_size)
{
    cr_assert_eq(take(new_file(GOF_AREA_SIZE, SEALS)), 0);
    cr_assert_eq(take(new_file(GOF_AREA_SIZE, F_SEAL_SHRINK | F_SEAL_GROW)), -EPROTO);
    cr_assert_eq(take(new_file(GOF_AREA_SIZE, F_SEAL_GROW | F_SEAL_SEAL)), -EPROTO);
    cr_assert_eq(take(new_file(GOF_AREA_SIZE, 0)), -EPROTO);
    cr_assert_eq(take(new_file(GOF_AREA_SIZE - 4096, SEALS)), -EPROTO);
    cr_assert_eq(take(new_file(GOF_AREA_SIZE + 4096, SEALS)), -EPROTO);
    cr_assert_eq(take(open("/dev/zero", O_RDWR | O_CLOEXEC)), -EPROTO);
    cr_assert_eq(take(-1), -EPROTO);
}

Test(gofer_area, nobody_there)
{
    struct gof_area *area = NULL;
    int pair[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    close(pair[0]);
    cr_assert_eq(gof_areas_take(pair[1], 1, &area), -EPIPE);
    close(pair[1]);
}

/* ---- the turn ---- */

static struct gof_area *one_area(void)
{
    void *p = mmap(NULL, GOF_AREA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    cr_assert_neq(p, MAP_FAILED);
    return p;
}

Test(gofer_area, lengths_and_turns_that_lie)
{
    struct gof_area *a = one_area();
    uint8_t *buf = malloc(GOF_MESSAGE_MAX);
    _Atomic bool ended = false;

    cr_assert_eq(gof_area_get(a, GOF_TURN_GOFER, &ended, 0, buf), -ETIMEDOUT, "the sentry's turn");
    gof_area_put(a, "abc", 3, GOF_TURN_GOFER);
    cr_assert_eq(gof_area_get(a, GOF_TURN_GOFER, &ended, 0, buf), 3);
    cr_assert_eq(memcmp(buf, "abc", 3), 0);
    atomic_store(&a->size, GOF_MESSAGE_MAX);
    cr_assert_eq(gof_area_get(a, GOF_TURN_GOFER, &ended, 0, buf), GOF_MESSAGE_MAX);
    atomic_store(&a->size, GOF_MESSAGE_MAX + 1);
    cr_assert_eq(gof_area_get(a, GOF_TURN_GOFER, &ended, 0, buf), -EPROTO);
    atomic_store(&a->size, UINT32_MAX);
    cr_assert_eq(gof_area_get(a, GOF_TURN_GOFER, &ended, 0, buf), -EPROTO);
    atomic_store(&a->turn, 77u);
    cr_assert_eq(gof_area_get(a, GOF_TURN_GOFER, &ended, -1, buf), -EPIPE);
    gof_area_put(a, "abc", 3, GOF_TURN_GOFER);
    atomic_store(&ended, true);
    cr_assert_eq(gof_area_get(a, GOF_TURN_GOFER, &ended, -1, buf), -EPIPE, "whatever is there");
    free(buf);
    gof_areas_drop(a, 1);
}

/* ---- a hostile other side ---- */

static _Atomic bool stop;

/* Writes what it likes to all channels, for as long as it may. turns: those, too. */
static void *scribble(void *arg)
{
    const bool turns = arg != NULL;
    struct gof_area *areas = fx_map_areas();
    uint64_t seed = 1;

    while (!atomic_load(&stop)) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        struct gof_area *a = &areas[(seed >> 60) % (GOFER_CHANNELS - 1)];
        const uint32_t x = (uint32_t)(seed >> 32);
        atomic_store_explicit(&a->size, x % 3 ? x % 512 : x, memory_order_relaxed);
        a->message[x % 64] = (uint8_t)(x >> 8);
        if (turns)
            atomic_store(&a->turn, x >> 16 & 1);
    }
    gof_areas_drop(areas, GOFER_CHANNELS - 1);
    return NULL;
}

/* Calls till the gofer is taken for a broken one: each gives an errno, or what makes sense. */
static void call_till_dead(void)
{
    static const char *const names[] = {"a", "b"};
    struct gof_node n[2];
    struct gof_attr attr;
    size_t done;
    int why, fd;

    while (!gof_client_dead(fx.client)) {
        if (gof_walk(fx.client, fx.rw.handle, names, 2, n, &done, &why) == 0)
            cr_assert_leq(done, 2);
        if (gof_stat(fx.client, fx.rw.handle, &attr) == 0)
            cr_assert_leq(attr.size, INT64_MAX);
        if (gof_open(fx.client, fx.rw.handle, false, &fd) == 0)
            close(fd);
    }
    cr_assert_eq(gof_stat(fx.client, fx.rw.handle, &attr), -EIO);
}

static void scribble_while_called(bool turns)
{
    for (int i = 0; i < 50; i++) {
        pthread_t t;
        fixture_up();
        atomic_store(&stop, false);
        cr_assert_eq(pthread_create(&t, NULL, scribble, turns ? &fx : NULL), 0);
        call_till_dead();
        atomic_store(&stop, true);
        pthread_join(t, NULL);
        fixture_down();
    }
}

/* Both ends read what changes under them. */
Test(gofer_area, memory_changes_while_it_is_read)
{
    scribble_while_called(false);
}

Test(gofer_area, turns_change_while_they_are_waited_for)
{
    scribble_while_called(true);
}

/* A sentry that ends its sockets and goes on writing holds nobody up for longer than it lives. */
Test(gofer_area, server_ends_whatever_is_written)
{
    pthread_t t;

    fixture_up();
    atomic_store(&stop, false);
    cr_assert_eq(pthread_create(&t, NULL, scribble, &fx), 0);
    shutdown(fx.socks[GOFER_CHANNELS - 1], SHUT_RDWR);
    atomic_store(&stop, true);
    pthread_join(t, NULL);
    pthread_join(fx.thread, NULL);
    /* For fixture_down, which joins. */
    cr_assert_eq(pthread_create(&fx.thread, NULL, fx_serve, &fx), 0);
    fixture_down();
}

/* ---- a gofer that says nothing ---- */

static void *wait_for_answer(void *arg)
{
    struct gof_attr a;

    (void)arg;
    cr_assert_eq(gof_stat(fx.client, 1, &a), -EIO);
    return NULL;
}

/* A client whose request stays without an answer. */
static pthread_t start_waiting(int *theirs)
{
    int mine[GOFER_CHANNELS];
    pthread_t t;

    fx_prepare(mine);
    memcpy(theirs, fx.socks, sizeof(fx.socks));
    cr_assert_eq(gof_areas_take(theirs[0], GOFER_CHANNELS - 1, &fx.areas), 0);
    cr_assert_eq(gof_client_new(mine, GOFER_CHANNELS, &fx.client), 0);
    cr_assert_eq(pthread_create(&t, NULL, wait_for_answer, NULL), 0);
    while (atomic_load(&fx.areas[0].turn) != GOF_TURN_GOFER)
        sched_yield();
    return t;
}

static void end_waiting(pthread_t t)
{
    pthread_join(t, NULL);
    cr_assert(gof_client_dead(fx.client));
    gof_client_put(fx.client);
    gof_areas_drop(fx.areas, GOFER_CHANNELS - 1);
    fx_clean();
}

Test(gofer_area, end_of_the_sockets_ends_a_wait)
{
    int theirs[GOFER_CHANNELS];
    pthread_t t = start_waiting(theirs);

    for (int i = 0; i < GOFER_CHANNELS; i++)
        close(theirs[i]);
    end_waiting(t);
}

Test(gofer_area, who_is_told_ends_all_waits)
{
    int theirs[GOFER_CHANNELS];
    pthread_t t = start_waiting(theirs);

    gof_client_gone(fx.client);
    end_waiting(t);
    for (int i = 0; i < GOFER_CHANNELS; i++)
        close(theirs[i]);
}
