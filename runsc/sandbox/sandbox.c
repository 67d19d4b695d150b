#include "runsc/sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gofer/gofer.h"
#include "platform/platform.h"
#include "runsc/boot/boot.h"
#include "runsc/sandbox/broker.h"
#include "runsc/sandbox/confine.h"
#include "runsc/sandbox/decoder.h"
#include "runsc/sandbox/launch.h"

#define SENTRY_NAMESPACES                                                                          \
    (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |     \
     CLONE_NEWCGROUP)

/* Everything a launch holds until it has succeeded; -1 where not (yet) open. */
struct launch {
    const struct sandbox_args *a;
    const struct plat_ops *plats[BOOT_PLATFORMS_MAX];
    size_t plat_count;
    int sync[2], status[2], life[2];
    int gofer_fds[GOFER_CHANNELS]; /* the sentry's ends */
    int net[2];                    /* the sentry's end and the broker's, with --network=host */
    int null_fd, plat_fd, decoder_fd;
    pid_t sentry, gofer, broker;
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int open_pipes(struct launch *l, struct err *e)
{
    if (pipe2(l->sync, O_CLOEXEC) || pipe2(l->status, O_CLOEXEC))
        return err_errno(e, errno, "pipe");
    if (l->a->attached && pipe2(l->life, O_CLOEXEC))
        return err_errno(e, errno, "pipe");
    if (l->a->host_network && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, l->net))
        return err_errno(e, errno, "socketpair");
    l->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    return l->null_fd < 0 ? err_errno(e, errno, "/dev/null") : 0;
}

static NORETURN void sentry_child(struct launch *l, bool privileged, bool inside)
{
    struct boot_args b = {
        .sandbox = l->a,
        .plat_count = l->plat_count,
        .sync_fd = l->sync[0],
        .status_fd = l->status[1],
        .life_fd = l->life[0],
        .null_fd = l->null_fd,
        .plat_fd = l->plat_fd,
        .decoder_fd = l->decoder_fd,
        .net_fd = l->net[0],
        .gofer_fd_count = GOFER_CHANNELS,
        .privileged = privileged,
        .in_cgroups = inside,
    };

    launch_one_arena();
    memcpy(b.plats, l->plats, sizeof(b.plats));
    memcpy(b.gofer_fds, l->gofer_fds, sizeof(l->gofer_fds));
    /* A parent that dies early must be seen as EOF, so our copies of its ends go first. */
    close_fd(&l->sync[1]);
    close_fd(&l->life[1]);
    boot_main(&b);
}

static int start_sentry(struct launch *l, struct err *e)
{
    bool privileged = geteuid() == 0;

    /* Only a platform that was named opens something. */
    l->plat_fd = l->plats[0]->open ? l->plats[0]->open() : -1;
    if (l->plats[0]->open && l->plat_fd < 0)
        return err_errno(e, -l->plat_fd, "platform %s", l->plats[0]->name);

    for (size_t i = 0; i < l->plat_count && l->a->patch_sites && l->decoder_fd < 0; i++)
        if (l->plats[i]->patches)
            l->decoder_fd = decoder_open_program();

    /* A program that may be executed but not read is undumpable, and its files in /proc are root's:
     * a user could write no id map. */
    if (!privileged && prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
        return err_errno(e, errno, "dumpable");
    /* In their cgroup before they are made: a user namespace may not write to the host's files. */
    bool inside;
    l->sentry = launch_fork(l->a, SENTRY_NAMESPACES, &inside);
    if (l->sentry == 0)
        sentry_child(l, privileged, inside);
    if (l->sentry < 0)
        return err_errno(e, errno, "create the sentry's namespaces");
    close_fd(&l->sync[0]);
    close_fd(&l->status[1]);
    close_fd(&l->life[0]);
    close_fd(&l->net[0]);
    for (size_t i = 0; i < GOFER_CHANNELS; i++)
        close_fd(&l->gofer_fds[i]);
    const char *step;
    int r = confine_write_id_maps(l->sentry, &step);
    if (r)
        return err_errno(e, r, "sentry: %s", step);
    confine_allow_nice(l->sentry);
    if (l->a->host_network && broker_launch(l->a, l->sentry, l->net[1], &l->broker, e))
        return -1;
    close_fd(&l->net[1]);
    /* Till the next line it ends with us. */
    const struct sandbox made = {.sentry_pid = l->sentry, .gofer_pid = l->gofer};
    if (l->a->made(l->a->made_arg, &made, e))
        return -1;
    if (write(l->sync[1], "", 1) != 1)
        return err_errno(e, errno, "sentry: it ended during set-up");
    return 0;
}

static int await_status(struct launch *l, struct err *e)
{
    struct boot_status st;
    ssize_t n;

    do
        n = read(l->status[0], &st, sizeof(st));
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(st))
        return err_set(e, EIO, "the sentry ended during set-up");
    if (st.code == 0)
        return 0;
    st.text[sizeof(st.text) - 1] = '\0';
    return err_set(e, st.code, "%s", st.text);
}

static void launch_init(struct launch *l, const struct sandbox_args *a)
{
    memset(l, 0xff, sizeof(*l));
    l->a = a;
}

/* What is left open after success: the caller's end of the life pipe, kept till it dies. */
static void launch_close(struct launch *l, bool keep_life)
{
    close_fd(&l->sync[0]);
    close_fd(&l->sync[1]);
    close_fd(&l->status[0]);
    close_fd(&l->status[1]);
    close_fd(&l->life[0]);
    close_fd(&l->net[0]);
    close_fd(&l->net[1]);
    if (!keep_life)
        close_fd(&l->life[1]);
    close_fd(&l->null_fd);
    close_fd(&l->plat_fd);
    close_fd(&l->decoder_fd);
    for (size_t i = 0; i < GOFER_CHANNELS; i++)
        close_fd(&l->gofer_fds[i]);
}

int sandbox_create(const struct sandbox_args *a, struct sandbox *out, struct err *e)
{
    struct launch l;
    char why[256];
    const struct plat_ops *plats[BOOT_PLATFORMS_MAX] = {NULL};
    size_t count;
    int r = boot_find_platforms(a->platform, plats, &count, why, sizeof(why));

    if (r == -EINVAL)
        return err_set(e, EINVAL, "platform \"%s\" is not known", a->platform);
    if (r)
        return err_set(e, ENOTSUP, "platform %s cannot be used here: %s", a->platform, why);
    launch_init(&l, a);
    memcpy(l.plats, plats, sizeof(l.plats));
    l.plat_count = count;
    r = open_pipes(&l, e);
    if (!r)
        r = launch_gofer(a, l.gofer_fds, &l.gofer, e);
    if (!r)
        r = start_sentry(&l, e);
    if (!r)
        r = await_status(&l, e);
    if (r) {
        launch_end_child(&l.sentry);
        launch_end_child(&l.gofer);
        launch_end_child(&l.broker);
    } else {
        *out = (struct sandbox){.sentry_pid = l.sentry, .gofer_pid = l.gofer};
    }
    launch_close(&l, r == 0);
    return r;
}
