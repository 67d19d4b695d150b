/* A gofer server in threads of the test, over a temporary directory with a writable and a read-only
 * export, and a client to it.
 * Depends on: criterion, gofer.
 * Threading: the test's.
 * Ownership: fixture_down releases everything. */
#ifndef RINGWALL_TESTS_UNIT_GOFER_FIXTURE_H
#define RINGWALL_TESTS_UNIT_GOFER_FIXTURE_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gofer/gofer.h"
#include "gofer/proto/area.h"
#include "gofer/proto/client.h"
#include "gofer/server.h"

#define EXPORT_RW 0
#define EXPORT_RO 1

struct fixture {
    char base[64]; /* holds rw/, ro/ and secret */
    int proc_fd;
    int socks[GOFER_CHANNELS];
    struct gof_area *areas; /* the server's */
    struct gof_server *server;
    struct gof_client *client;
    pthread_t thread;
    int result; /* of gof_server_run */
    struct gof_node rw, ro;
};

static struct fixture fx;

static inline char *fx_path(const char *rel)
{
    static _Thread_local char path[4][512];
    static _Thread_local unsigned turn;
    char *p = path[turn++ % 4];

    snprintf(p, sizeof(path[0]), "%s/%s", fx.base, rel);
    return p;
}

static inline void fx_write(const char *rel, const char *text)
{
    FILE *f = fopen(fx_path(rel), "w");

    cr_assert(f, "%s", rel);
    fputs(text, f);
    fclose(f);
}

static inline void *fx_serve(void *arg)
{
    struct fixture *f = arg;

    f->result = gof_server_run(f->server, f->areas, f->socks, GOFER_CHANNELS);
    return NULL;
}

static inline int fx_open_dir(const char *path)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    cr_assert_geq(fd, 0);
    return fd;
}

/* base with rw/, ro/file and secret, and the pairs of sockets: the client's ends in mine. */
static inline void fx_prepare(int mine[GOFER_CHANNELS])
{
    memset(&fx, 0, sizeof(fx));
    umask(0);
    snprintf(fx.base, sizeof(fx.base), "/tmp/ringwall-gofer-XXXXXX");
    cr_assert(mkdtemp(fx.base));
    cr_assert_eq(mkdir(fx_path("rw"), 0755), 0);
    cr_assert_eq(mkdir(fx_path("ro"), 0755), 0);
    fx_write("secret", "outside");
    fx_write("ro/file", "read only");
    int pairs[GOFER_CHANNELS][2];
    cr_assert_eq(gof_pairs_new(pairs, GOFER_CHANNELS), 0);
    for (int i = 0; i < GOFER_CHANNELS; i++) {
        mine[i] = pairs[i][0];
        fx.socks[i] = pairs[i][1];
    }
}

/* Attaches to both exports. */
static inline void fx_connect(const int mine[GOFER_CHANNELS])
{
    bool readonly;

    cr_assert_eq(gof_client_new(mine, GOFER_CHANNELS, &fx.client), 0);
    cr_assert_eq(gof_attach(fx.client, EXPORT_RW, &readonly, &fx.rw), 0);
    cr_assert(!readonly);
    cr_assert_eq(gof_attach(fx.client, EXPORT_RO, &readonly, &fx.ro), 0);
    cr_assert(readonly);
}

/* The channels' memory once more: both ends have it at an address of their own. */
static inline struct gof_area *fx_map_areas(void)
{
    void *p = mremap(fx.areas, 0, (GOFER_CHANNELS - 1) * GOF_AREA_SIZE, MREMAP_MAYMOVE);

    cr_assert_neq(p, MAP_FAILED);
    return p;
}

static inline void fixture_up(void)
{
    int mine[GOFER_CHANNELS];

    fx_prepare(mine);
    fx.proc_fd = fx_open_dir("/proc/self/fd");
    struct gof_server_export exports[2] = {
        {fx_open_dir(fx_path("rw")), false},
        {fx_open_dir(fx_path("ro")), true},
    };
    struct gof_server_args args = {.exports = exports,
                                   .export_count = 2,
                                   .proc_fd = fx.proc_fd,
                                   .fd_path = "/proc/self/fd/",
                                   .handle_max = 4096};
    cr_assert_eq(gof_server_new(&args, &fx.server), 0);
    cr_assert_eq(gof_areas_take(fx.socks[0], GOFER_CHANNELS - 1, &fx.areas), 0);
    cr_assert_eq(pthread_create(&fx.thread, NULL, fx_serve, &fx), 0);
    fx_connect(mine);
}

static inline int fx_remove(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static inline void fx_clean(void)
{
    cr_assert_eq(nftw(fx.base, fx_remove, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline void fixture_down(void)
{
    gof_client_put(fx.client);
    pthread_join(fx.thread, NULL);
    gof_server_free(fx.server);
    gof_areas_drop(fx.areas, GOFER_CHANNELS - 1);
    for (int i = 0; i < GOFER_CHANNELS; i++)
        close(fx.socks[i]);
    close(fx.proc_fd);
    fx_clean();
}

/* Walks one name: the status, and the node where there is one. */
static inline int fx_walk1(uint64_t dir, const char *name, struct gof_node *out)
{
    size_t done = 0;
    int why = 0;
    int r = gof_walk(fx.client, dir, &name, 1, out, &done, &why);

    return r ? r : why;
}

#endif
