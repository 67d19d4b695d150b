/* FIFOs whose other side is opened at some other time. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runsc/shim/shim.h"

static char folder[] = "/tmp/shim-streams-XXXXXX";
static char in[64], out[64];

static void make_fifos(void)
{
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(in, sizeof(in), "%s/in", folder);
    (void)snprintf(out, sizeof(out), "%s/out", folder);
    cr_assert(mkfifo(in, 0600) == 0 && mkfifo(out, 0600) == 0);
}

static void remove_fifos(void)
{
    (void)unlink(in);
    (void)unlink(out);
    (void)rmdir(folder);
}

TestSuite(shim_streams, .init = make_fifos, .fini = remove_fifos, .timeout = 300);

static void run_short_process(struct proc_io *io)
{
    int fds[3] = {-1, -1, -1};

    cr_assert_eq(proc_io_open(io, fds), 0);
    cr_assert_eq(fds[2], -1);
    cr_assert_eq(write(fds[1], "gone", 4), 4);
    (void)close(fds[0]);
    (void)close(fds[1]);
    proc_io_end(io);
}

static struct proc_io new_io(char *stdin_path)
{
    struct proc_io io;

    proc_io_init(&io);
    io.in = stdin_path;
    io.out = out;
    return io;
}

/* A process may have ended before containerd comes to read it. */
static void *short_process(void *arg)
{
    struct proc_io io = new_io(in);

    run_short_process(&io);
    return arg;
}

Test(shim_streams, output_waits_for_its_reader)
{
    char text[8] = "";
    pthread_t t;

    cr_assert_eq(pthread_create(&t, NULL, short_process, NULL), 0);
    (void)usleep(50000);
    int fd = open(out, O_RDONLY);
    cr_assert_eq(read(fd, text, sizeof(text)), 4);
    cr_assert_str_eq(text, "gone");
    cr_assert_eq(read(fd, text, sizeof(text)), 0);
    (void)close(fd);
    cr_assert_eq(pthread_join(t, NULL), 0);
}

Test(shim_streams, a_reader_that_never_comes_is_not_waited_for_without_end)
{
    struct proc_io io = new_io(NULL);

    run_short_process(&io);
}

/* ---- the end of a process ---- */

static enum proc_state state_of(struct shim *s, const struct shim_proc *p)
{
    pthread_mutex_lock(&s->mu);
    enum proc_state state = p->state;
    pthread_mutex_unlock(&s->mu);
    return state;
}

/* A client that hears of the end sooner gives up on what it has not read. */
Test(shim_streams, the_end_waits_for_output_to_be_read)
{
    struct shim s = {.mu = PTHREAD_MUTEX_INITIALIZER,
                     .changed = PTHREAD_COND_INITIALIZER,
                     .event_mu = PTHREAD_MUTEX_INITIALIZER,
                     .event_fd = -1};
    int fds[3] = {-1, -1, -1}, fd = open(out, O_RDONLY | O_NONBLOCK);
    char text[8];

    list_init(&s.containers);
    pthread_mutex_lock(&s.mu);
    struct shim_container *c = shim_container_new(&s, "c", "/nowhere");
    struct shim_proc *p = shim_proc_new(c, "");
    pthread_mutex_unlock(&s.mu);
    p->io.out = strdup(out);
    p->pid = 7;
    p->state = PROC_RUNNING;
    cr_assert_eq(proc_io_open(&p->io, fds), 0);
    cr_assert_eq(write(fds[1], "late", 4), 4);
    (void)close(fds[1]);

    pthread_mutex_lock(&s.mu);
    cr_assert(shim_proc_exited(&s, &(struct shim_exit){.pid = 7, .status = 3}));
    pthread_mutex_unlock(&s.mu);
    cr_assert_eq(state_of(&s, p), PROC_RUNNING);
    cr_assert_eq(read(fd, text, sizeof(text)), 4);
    while (state_of(&s, p) != PROC_STOPPED)
        (void)usleep(1000);
    cr_assert_eq(p->exit_status, 3);
    (void)close(fd);
    pthread_mutex_lock(&s.mu);
    shim_container_remove(&s, c);
    pthread_mutex_unlock(&s.mu);
}
