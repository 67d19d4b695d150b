/* The gofer's channel alone: a client, and a server in a process of its own, over a directory in
 * /tmp. Prints a line "kind nanoseconds" for each kind of request, the median of batches. */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"
#include "gofer/gofer.h"
#include "gofer/proto/area.h"
#include "gofer/proto/client.h"
#include "gofer/server.h"

#define BATCHES 9
#define FILES 10000

static struct gof_client *client;
static struct gof_node root;
static unsigned serial;

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(1);
}

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static NORETURN void serve(const char *dir, const int *socks, struct gof_area *areas)
{
    struct gof_server_export export = {.fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC)};
    const struct gof_server_args args = {.exports = &export,
                                         .export_count = 1,
                                         .proc_fd = open("/proc/self/fd", O_PATH | O_CLOEXEC),
                                         .fd_path = "/proc/self/fd/",
                                         .handle_max = 4096};
    struct gof_server *s;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    need(gof_server_new(&args, &s) == 0, "server");
    _exit(gof_server_run(s, areas, socks, GOFER_CHANNELS) ? 1 : 0);
}

static void start(const char *dir)
{
    int pairs[GOFER_CHANNELS][2], mine[GOFER_CHANNELS], socks[GOFER_CHANNELS];
    struct gof_area *areas;
    bool readonly;

    need(gof_pairs_new(pairs, GOFER_CHANNELS) == 0, "sockets");
    for (int i = 0; i < GOFER_CHANNELS; i++) {
        mine[i] = pairs[i][0];
        socks[i] = pairs[i][1];
    }
    pid_t pid = fork();
    need(pid >= 0, "fork");
    if (pid == 0) {
        for (int i = 0; i < GOFER_CHANNELS; i++)
            close(mine[i]);
        need(gof_areas_take(socks[0], GOFER_CHANNELS - 1, &areas) == 0, "memory");
        serve(dir, socks, areas);
    }
    for (int i = 0; i < GOFER_CHANNELS; i++)
        close(socks[i]);
    need(gof_client_new(mine, GOFER_CHANNELS, &client) == 0, "client");
    need(gof_attach(client, 0, &readonly, &root) == 0, "attach");
}

/* ---- kinds ---- */

static void one_stat(void)
{
    struct gof_attr a;

    need(gof_stat(client, root.handle, &a) == 0, "stat");
}

static void one_absent(void)
{
    char name[32];
    const char *names = name;
    struct gof_node n;
    size_t done;
    int why;

    snprintf(name, sizeof(name), "absent-%u", serial++);
    need(gof_walk(client, root.handle, &names, 1, &n, &done, &why) == 0 && done == 0, "walk");
}

static void one_walk(void)
{
    static const char *const names[] = {"a", "b", "c", "file"};
    struct gof_node n[4];
    size_t done;
    int why;

    need(gof_walk(client, root.handle, names, 4, n, &done, &why) == 0 && done == 4, "walk");
    for (size_t i = 0; i < done; i++)
        gof_close(client, n[i].handle);
}

static void one_open(void)
{
    static const char *const name = "file";
    static uint64_t handle;
    struct gof_node n;
    size_t done;
    int why, fd;

    if (!handle) {
        need(gof_walk(client, root.handle, &name, 1, &n, &done, &why) == 0 && done == 1, "walk");
        handle = n.handle;
    }
    need(gof_open(client, handle, false, &fd) == 0, "open");
    close(fd);
}

static int count_entry(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype)
{
    (void)name, (void)len, (void)ino, (void)dtype;
    ++*(unsigned *)arg;
    return 0;
}

static void one_list(void)
{
    static const char *const name = "list";
    static uint64_t handle;
    struct gof_node n;
    uint64_t parent;
    unsigned count = 0;
    size_t done;
    int why;

    if (!handle) {
        need(gof_walk(client, root.handle, &name, 1, &n, &done, &why) == 0 && done == 1, "walk");
        handle = n.handle;
    }
    bool end = false;
    for (bool first = true; !end; first = false)
        need(gof_getdents(client, handle, first, count_entry, &count, &end, &parent) == 0, "list");
}

/* ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(const char *name, void (*one)(void), int rounds)
{
    double t[BATCHES];

    one();
    for (int b = 0; b < BATCHES; b++) {
        double begin = now_ns();
        for (int i = 0; i < rounds; i++)
            one();
        t[b] = (now_ns() - begin) / rounds;
    }
    qsort(t, BATCHES, sizeof(t[0]), compare);
    printf("%s %.0f\n", name, t[BATCHES / 2]);
}

static void make_tree(int dir)
{
    char name[64];

    need(mkdirat(dir, "a", 0755) == 0 && mkdirat(dir, "a/b", 0755) == 0 &&
             mkdirat(dir, "a/b/c", 0755) == 0 && mkdirat(dir, "list", 0755) == 0,
         "mkdir");
    close(openat(dir, "file", O_CREAT | O_WRONLY, 0644));
    close(openat(dir, "a/b/c/file", O_CREAT | O_WRONLY, 0644));
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "list/file-%06d", i);
        close(openat(dir, name, O_CREAT | O_WRONLY, 0644));
    }
}

static void remove_tree(const char *dir, int at)
{
    char name[64];

    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "list/file-%06d", i);
        unlinkat(at, name, 0);
    }
    unlinkat(at, "a/b/c/file", 0);
    unlinkat(at, "file", 0);
    unlinkat(at, "list", AT_REMOVEDIR);
    unlinkat(at, "a/b/c", AT_REMOVEDIR);
    unlinkat(at, "a/b", AT_REMOVEDIR);
    unlinkat(at, "a", AT_REMOVEDIR);
    rmdir(dir);
}

int main(void)
{
    char dir[] = "/tmp/bench-gofer-XXXXXX";

    need(mkdtemp(dir) != NULL, dir);
    int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    need(at >= 0, dir);
    make_tree(at);
    start(dir);
    measure("stat", one_stat, 5000);
    measure("absent", one_absent, 5000);
    measure("walk4", one_walk, 3000);
    measure("open", one_open, 3000);
    measure("list", one_list, 10);
    gof_client_put(client);
    remove_tree(dir, at);
    return 0;
}
