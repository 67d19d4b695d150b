/* poll and select (fs/select.c). */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/time.h>

#include "base/ckd.h"
#include "base/limits.h"
#include "syscalls/handlers.h"
#include "syscalls/timeout.h"

#define POLL_SMALL 8u

/* One descriptor that is watched. */
struct watched {
    struct file *file; /* owned, NULL: not open */
    struct waiter w;
    uint32_t want, got;
};

static uint32_t watched_look(struct watched *d, bool wait)
{
    if (d->file == NULL)
        return POLLNVAL;
    uint32_t want = d->want | POLLERR | POLLHUP;
    return vfs_poll(d->file, wait ? &d->w : NULL) & want;
}

static int look_at_all(struct watched *d, size_t count, bool wait)
{
    int ready = 0;

    for (size_t i = 0; i < count; i++) {
        if (d[i].file == NULL && d[i].want == 0 && d[i].got == 0)
            continue;
        /* Once something is ready nobody will sleep: no need to queue on the rest. */
        d[i].got = watched_look(&d[i], wait && ready == 0 && d[i].w.q == NULL);
        ready += d[i].got != 0;
    }
    return ready;
}

/* Sleeps till something is ready: how many, 0 at the deadline, -EINTR. */
static int watch_all(struct task *t, struct watched *d, size_t count, deadline_t deadline)
{
    int ready = look_at_all(d, count, deadline != 0), r = 0;

    while (ready == 0 && r == 0 && deadline != 0) {
        r = blocker_wait(&t->blocker, deadline);
        ready = look_at_all(d, count, false);
    }
    for (size_t i = 0; i < count; i++)
        waitq_del(&d[i].w);
    if (ready > 0)
        return ready;
    return r == -EINTR ? -EINTR : 0;
}

static void watched_init(struct task *t, struct watched *d, int fd, uint32_t want)
{
    waiter_init(&d->w, &t->blocker, 0);
    d->want = fd >= 0 ? want : 0;
    d->file = NULL;
    /* Marks a descriptor that is bad, as against one that is not asked for. */
    d->got = fd >= 0;
    if (fd >= 0 && task_file(t, fd, &d->file) != 0)
        d->file = NULL;
}

static void watched_end(struct watched *d, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (d[i].file != NULL)
            file_put(d[i].file);
}

/* ---- poll ---- */

static int poll_collect(struct task *t, uaddr_t fds, const struct pollfd *p,
                        const struct watched *d, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const int16_t got = p[i].fd >= 0 ? (int16_t)d[i].got : 0;
        uaddr_t at = {fds.v + i * sizeof(*p) + offsetof(struct pollfd, revents)};
        int r = copyout_obj(&t->ua, at, &got);
        if (r != 0)
            return r;
    }
    return 0;
}

static int64_t poll_in(struct task *t, uaddr_t fds, size_t count, deadline_t deadline,
                       struct pollfd *p, struct watched *d)
{
    int64_t r = copyin_array(&t->ua, p, fds, count, sizeof(*p));

    if (r != 0)
        return r;
    for (size_t i = 0; i < count; i++)
        watched_init(t, &d[i], p[i].fd, (uint16_t)p[i].events);
    r = watch_all(t, d, count, deadline);
    if (r >= 0) {
        int e = poll_collect(t, fds, p, d, count);
        r = e != 0 ? e : r;
    }
    watched_end(d, count);
    return r;
}

/* Most calls are about a few descriptors. */
static int64_t poll_until(struct task *t, uaddr_t fds, uint64_t nfds, deadline_t deadline)
{
    struct pollfd small_p[POLL_SMALL], *p;
    struct watched small_d[POLL_SMALL], *d;
    int64_t r = -ENOMEM;

    if (nfds <= POLL_SMALL && nfds <= task_rlimit(t, RLIMIT_NOFILE))
        return poll_in(t, fds, (size_t)nfds, deadline, small_p, small_d);
    if (nfds > task_rlimit(t, RLIMIT_NOFILE) || nfds > LIMIT_POLL_FDS)
        return -EINVAL;
    p = calloc(nfds, sizeof(*p));
    d = calloc(nfds, sizeof(*d));
    if (p != NULL && d != NULL)
        r = poll_in(t, fds, (size_t)nfds, deadline, p, d);
    free(p);
    free(d);
    return r;
}

static int64_t poll_restart(struct task *t)
{
    int64_t r = poll_until(t, (uaddr_t){t->restart_arg[0]}, t->restart_arg[1], t->restart_arg[2]);

    return r == -EINTR ? -ERESTART_RESTARTBLOCK : r;
}

int64_t sys_poll(struct task *t, uaddr_t fds, uint64_t nfds, int timeout)
{
    deadline_t deadline = timeout < 0    ? DEADLINE_NEVER
                          : timeout == 0 ? 0
                                         : mono_now() + (uint64_t)timeout * UINT64_C(1000000);
    int64_t r = poll_until(t, fds, nfds, deadline);

    if (r != -EINTR)
        return r;
    t->restart_fn = poll_restart;
    t->restart_arg[0] = fds.v;
    t->restart_arg[1] = nfds;
    t->restart_arg[2] = deadline;
    return -ERESTART_RESTARTBLOCK;
}

int64_t sys_ppoll(struct task *t, uaddr_t fds, uint64_t nfds, uaddr_t timeout, uaddr_t sigmask,
                  uint64_t sigsetsize)
{
    deadline_t deadline;
    int64_t r = timeout_read(t, timeout, &deadline);

    if (r == 0 && sigmask.v != 0)
        r = task_set_temp_sigmask(t, sigmask, sigsetsize);
    if (r != 0)
        return r;
    r = poll_until(t, fds, nfds, deadline);
    timeout_write(t, timeout, deadline);
    if (r == -EINTR)
        return -ERESTARTNOHAND;
    if (sigmask.v != 0)
        task_restore_sigmask(t);
    return r;
}

/* ---- select ---- */

#define SELECT_IN (POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR)
#define SELECT_OUT (POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR)
#define SELECT_EX POLLPRI
#define SELECT_WORD 64u

struct selection {
    int n;
    size_t words;
    uint64_t *in[3];  /* what is asked for, by set */
    uint64_t *out[3]; /* what is found */
};

static const uint32_t select_bits[3] = {SELECT_IN, SELECT_OUT, SELECT_EX};

static bool select_has(const uint64_t *set, int fd)
{
    return (set[(unsigned)fd / SELECT_WORD] >> ((unsigned)fd % SELECT_WORD) & 1) != 0;
}

static int select_load(struct task *t, const uaddr_t sets[3], struct selection *s)
{
    uint64_t *all = calloc(6 * s->words + 1, sizeof(*all));

    if (all == NULL)
        return -ENOMEM;
    for (size_t k = 0; k < 3; k++) {
        s->in[k] = all + k * s->words;
        s->out[k] = all + (3 + k) * s->words;
        if (sets[k].v == 0)
            continue;
        /* Only whole words up to the highest descriptor are the caller's. */
        int r = copyin(&t->ua, s->in[k], sets[k], s->words * sizeof(*all));
        if (r != 0) {
            free(all);
            return r;
        }
    }
    return 0;
}

static uint32_t select_wanted(const struct selection *s, int fd)
{
    uint32_t want = 0;

    for (size_t k = 0; k < 3; k++)
        if (select_has(s->in[k], fd))
            want |= select_bits[k];
    return want;
}

static int select_found(const struct selection *s, const struct watched *d)
{
    int bits = 0;

    for (int fd = 0; fd < s->n; fd++) {
        for (size_t k = 0; k < 3; k++) {
            if (!select_has(s->in[k], fd) || (d[fd].got & select_bits[k]) == 0)
                continue;
            s->out[k][(unsigned)fd / SELECT_WORD] |= UINT64_C(1) << ((unsigned)fd % SELECT_WORD);
            bits++;
        }
    }
    return bits;
}

static int64_t select_watch(struct task *t, const struct selection *s, deadline_t deadline)
{
    struct watched *d = calloc((size_t)s->n + 1, sizeof(*d));
    int64_t r = 0;

    if (d == NULL)
        return -ENOMEM;
    for (int fd = 0; fd < s->n; fd++) {
        uint32_t want = select_wanted(s, fd);
        watched_init(t, &d[fd], want != 0 ? fd : -1, want);
        if (want != 0 && d[fd].file == NULL)
            r = -EBADF;
    }
    if (r == 0)
        r = watch_all(t, d, (size_t)s->n, deadline);
    if (r > 0)
        r = select_found(s, d);
    watched_end(d, (size_t)s->n);
    free(d);
    return r;
}

static int64_t select_until(struct task *t, int n, const uaddr_t sets[3], deadline_t deadline)
{
    struct selection s = {.n = n};
    int64_t r;

    if (n < 0)
        return -EINVAL;
    uint64_t most = MIN(task_rlimit(t, RLIMIT_NOFILE), (uint64_t)LIMIT_POLL_FDS);
    s.n = MIN(n, (int)most);
    s.words = ((size_t)s.n + SELECT_WORD - 1) / SELECT_WORD;
    r = select_load(t, sets, &s);
    if (r != 0)
        return r;
    r = select_watch(t, &s, deadline);
    for (size_t k = 0; k < 3 && r >= 0; k++)
        if (sets[k].v != 0 && copyout(&t->ua, sets[k], s.out[k], s.words * sizeof(uint64_t)) != 0)
            r = -EFAULT;
    free(s.in[0]);
    return r;
}

int64_t sys_select(struct task *t, int nfds, uaddr_t readfds, uaddr_t writefds, uaddr_t exceptfds,
                   uaddr_t timeout)
{
    const uaddr_t sets[3] = {readfds, writefds, exceptfds};
    deadline_t deadline = DEADLINE_NEVER;
    struct timeval tv;
    int64_t r;

    if (timeout.v != 0) {
        r = copyin_obj(&t->ua, &tv, timeout);
        if (r != 0)
            return r;
        int64_t sec;
        const int64_t usec = tv.tv_usec % 1000000;
        if (ckd_add(&sec, tv.tv_sec, tv.tv_usec / 1000000) || sec < 0 || usec < 0)
            return -EINVAL;
        deadline = timeout_deadline(sec, usec * 1000);
    }
    r = select_until(t, nfds, sets, deadline);
    if (timeout.v != 0) {
        uint64_t left = timeout_left(deadline);
        tv = (struct timeval){(time_t)(left / 1000000000u),
                              (suseconds_t)(left % 1000000000u / 1000)};
        (void)!copyout_obj(&t->ua, timeout, &tv);
    }
    return r == -EINTR ? -ERESTARTNOHAND : r;
}

struct sigmask_arg {
    uint64_t set, size;
};

int64_t sys_pselect6(struct task *t, int nfds, uaddr_t readfds, uaddr_t writefds, uaddr_t exceptfds,
                     uaddr_t timeout, uaddr_t sig)
{
    const uaddr_t sets[3] = {readfds, writefds, exceptfds};
    struct sigmask_arg m = {0};
    deadline_t deadline;
    int64_t r = sig.v != 0 ? copyin_obj(&t->ua, &m, sig) : 0;

    if (r == 0)
        r = timeout_read(t, timeout, &deadline);
    if (r == 0 && m.set != 0)
        r = task_set_temp_sigmask(t, (uaddr_t){m.set}, m.size);
    if (r != 0)
        return r;
    r = select_until(t, nfds, sets, deadline);
    timeout_write(t, timeout, deadline);
    if (r == -EINTR)
        return -ERESTARTNOHAND;
    if (m.set != 0)
        task_restore_sigmask(t);
    return r;
}
