/* The gofer process: confinement in stages, then service. Stage 1, still with the host's mounts:
 * own namespaces, the exports as trees of their own. Stage 2: an empty root, no descriptor but
 * channels, exports and log, no capability but those for files, no new privileges. Stage 3: the
 * filter; only then is the first byte of the sentry looked at. */
#include "gofer/gofer.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sort.h"
#include "gofer/confine.h"
#include "gofer/proto/area.h"
#include "gofer/server.h"

/* Descriptors below this are placed by number. */
#define FIRST_FREE_FD (GOFER_PROC_FD + 1)
/* Descriptors that are no handles: listings, reopened files under way, channels, spare. */
#define RESERVED_FDS 128

struct gofer {
    const struct gofer_config *cfg;
    int channels[GOFER_CHANNELS];
    int log_fd, proc_fd;
    struct gof_server_export exports[GOF_EXPORT_MAX];
    bool one_id;
    size_t nofile;
};

/* Everything we keep moves above the numbers that are given out below. */
static int move_up(int fd, int *out)
{
    *out = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
    return *out < 0 ? -errno : 0;
}

static int take_descriptors(struct gofer *g, const char **step)
{
    const struct gofer_config *cfg = g->cfg;
    int r = 0;

    *step = "keep descriptors";
    if (cfg->channel_count < 2 || cfg->channel_count > GOFER_CHANNELS)
        return -EINVAL;
    g->log_fd = -1;
    for (size_t i = 0; i < cfg->channel_count && r == 0; i++)
        r = move_up(cfg->channels[i], &g->channels[i]);
    if (r == 0 && cfg->log_fd >= 0)
        r = move_up(cfg->log_fd, &g->log_fd);
    if (r)
        return r;
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0)
        return -errno;
    for (int i = 0; i <= GOFER_PROC_FD; i++)
        if (null_fd != i && dup2(null_fd, i) < 0)
            return -errno;
    if (null_fd > GOFER_PROC_FD)
        close(null_fd);
    return 0;
}

static int cmp_int(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;

    return (x > y) - (x < y);
}

static int close_others(const struct gofer *g, const char **step)
{
    int keep[GOFER_CHANNELS + GOF_EXPORT_MAX + 2];
    size_t n = 0;

    *step = "close descriptors";
    keep[n++] = g->proc_fd;
    if (g->log_fd >= 0)
        keep[n++] = g->log_fd;
    for (size_t i = 0; i < g->cfg->channel_count; i++)
        keep[n++] = g->channels[i];
    for (size_t i = 0; i < g->cfg->export_count; i++)
        keep[n++] = g->exports[i].fd;
    sort_items(keep, n, sizeof(keep[0]), cmp_int);
    unsigned next = 3;
    for (size_t i = 0; i < n; i++) {
        unsigned fd = (unsigned)keep[i];
        if (fd > next && syscall(SYS_close_range, next, fd - 1, 0u))
            return -errno;
        next = fd + 1;
    }
    return syscall(SYS_close_range, next, ~0u, 0u) ? -errno : 0;
}

static int open_exports(struct gofer *g, const char **step)
{
    const struct gofer_config *cfg = g->cfg;

    *step = "too many exports";
    if (cfg->export_count > GOF_EXPORT_MAX)
        return -E2BIG;
    for (size_t i = 0; i < cfg->export_count; i++) {
        int r = gofer_open_export(&cfg->exports[i], &g->exports[i].fd, step);
        if (r) {
            log_error("gofer: %s: %s", cfg->exports[i].path, strerror(-r));
            return r;
        }
        g->exports[i].readonly = cfg->exports[i].readonly;
    }
    return 0;
}

static int leave_host(struct gofer *g, const char **step)
{
    int r = gofer_own_namespaces(&g->one_id, step);
    if (!r)
        r = gofer_open_proc(&g->proc_fd, step);
    if (!r)
        r = gofer_hide_kernel(g->cfg, step);
    if (!r)
        r = open_exports(g, step);
    if (!r)
        r = gofer_empty_root(step);
    return r;
}

/* The namespaces of a gofer that is confined already. New ones, the network's above all, and an
 * empty root take the host longer than everything else here. */
static int leave_host_for(struct gofer *g, int peer_fd, const char **step)
{
    int r = gofer_open_proc(&g->proc_fd, step);
    if (!r)
        r = open_exports(g, step);
    /* It takes CAP_SYS_PTRACE, which root may lack. */
    if (!r && gofer_enter_namespaces(peer_fd)) {
        r = gofer_own_namespaces(&g->one_id, step);
        if (!r)
            r = gofer_empty_root(step);
    }
    return r;
}

static int confine(struct gofer *g, const char **step)
{
    bool own = true;
    int r = take_descriptors(g, step);
    if (r)
        return r;
    if (g->log_fd >= 0)
        log_init(g->log_fd, g->cfg->debug ? LOG_DEBUG : LOG_WARN,
                 g->cfg->log_json ? LOG_JSON : LOG_TEXT);
    /* Whoever needs a user namespace could not enter those of another. To hide a file system takes
     * a mount namespace to do it in. */
    if (g->cfg->peer_fd >= 0 && geteuid() == 0)
        r = gofer_hides_kernel(g->cfg, &own, step);
    if (!r)
        r = own ? leave_host(g, step) : leave_host_for(g, g->cfg->peer_fd, step);
    if (!r)
        r = close_others(g, step);
    if (!r)
        r = gofer_rlimits(&g->nofile, step);
    if (!r)
        r = gofer_drop_capabilities(step);
    /* inotify_add_watch(2) takes a path, not a directory: ours are numbers of descriptors. */
    if (!r && fchdir(g->proc_fd)) {
        *step = "chdir to the descriptors";
        r = -errno;
    }
    return r;
}

int gofer_main(const struct gofer_config *cfg)
{
    static struct gofer g;
    struct gof_area *areas;
    struct gof_server *s;
    const char *step = "";

    g.cfg = cfg;
    signal(SIGPIPE, SIG_IGN);
    /* Modes are the guest's business: its own umask was applied. */
    umask(0);
    int r = confine(&g, &step);
    if (r == 0) {
        const struct gof_server_args args = {
            .exports = g.exports,
            .export_count = cfg->export_count,
            .proc_fd = g.proc_fd,
            .fd_path = "",
            .handle_max = g.nofile > 2 * RESERVED_FDS ? g.nofile - RESERVED_FDS : RESERVED_FDS,
            .host_uds = cfg->host_uds,
            .host_fifo = cfg->host_fifo,
            .one_id = g.one_id,
        };
        step = "server";
        r = gof_server_new(&args, &s);
    }
    if (r == 0) {
        /* The first message, which the sentry has no hand in. */
        step = "memory of the channels";
        r = gof_areas_take(g.channels[0], cfg->channel_count - 1, &areas);
    }
    if (r == 0)
        r = gofer_seccomp(cfg->host_uds, &step);
    if (r) {
        log_error("gofer: %s: %s", step, strerror(-r));
        return 1;
    }
    return gof_server_run(s, areas, g.channels, cfg->channel_count) ? 1 : 0;
}
