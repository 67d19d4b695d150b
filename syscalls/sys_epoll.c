/* epoll_* (fs/eventpoll.c). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/limits.h"
#include "sentry/vfs/epoll.h"
#include "syscalls/handlers.h"
#include "syscalls/timeout.h"

/* Events of one call; a caller that asks for more has to call again. */
#define EPOLL_BATCH LIMIT_POLL_FDS
/* Copied to the guest at once. */
#define OUT_CHUNK 64

int64_t sys_epoll_create1(struct task *t, int flags)
{
    struct file *f;
    int64_t r;

    if ((flags & ~EPOLL_CLOEXEC) != 0)
        return -EINVAL;
    r = epoll_new(&f);
    if (r != 0)
        return r;
    r = task_fd_install(t, f, (flags & EPOLL_CLOEXEC) != 0, 0);
    file_put(f);
    return r;
}

int64_t sys_epoll_create(struct task *t, int size)
{
    return size <= 0 ? -EINVAL : sys_epoll_create1(t, 0);
}

int64_t sys_epoll_ctl(struct task *t, int epfd, int op, int fd, uaddr_t event)
{
    struct epoll_event ev = {0};
    struct file *ep, *target;
    int r = op != EPOLL_CTL_DEL ? copyin_obj(&t->ua, &ev, event) : 0;

    if (r != 0)
        return r;
    r = task_file(t, epfd, &ep);
    if (r != 0)
        return r;
    r = task_file(t, fd, &target);
    if (r == 0) {
        r = epoll_is(ep) ? epoll_control(ep, op, fd, target, ev.events, ev.data.u64) : -EINVAL;
        file_put(target);
    }
    file_put(ep);
    return r;
}

static int64_t epoll_out(struct task *t, uaddr_t events, const struct epoll_ready *ready, int n)
{
    struct epoll_event ev[OUT_CHUNK];
    int r = 0;

    for (int done = 0; r == 0 && done < n; done += OUT_CHUNK) {
        int some = MIN(n - done, OUT_CHUNK);

        for (int i = 0; i < some; i++)
            ev[i] = (struct epoll_event){ready[done + i].events, {.u64 = ready[done + i].data}};
        r = copyout_array(&t->ua, uaddr_add(events, (uint64_t)done * sizeof(*ev)), ev, (size_t)some,
                          sizeof(*ev));
    }
    return r != 0 ? r : n;
}

static int64_t epoll_until(struct task *t, int epfd, uaddr_t events, int max, deadline_t deadline)
{
    struct epoll_ready *ready;
    struct file *ep;
    int64_t r;

    if (max <= 0 || max > INT32_MAX / (int)sizeof(struct epoll_event))
        return -EINVAL;
    max = MIN(max, EPOLL_BATCH);
    r = task_file(t, epfd, &ep);
    if (r != 0)
        return r;
    /* Not cleared: programs ask for ten thousand and get one. */
    ready = malloc((size_t)max * sizeof(*ready));
    if (ready == NULL)
        r = -ENOMEM;
    else if (!epoll_is(ep))
        r = -EINVAL;
    else
        r = epoll_collect(ep, ready, (size_t)max, deadline, &t->blocker);
    if (r > 0)
        r = epoll_out(t, events, ready, (int)r);
    free(ready);
    file_put(ep);
    return r;
}

static deadline_t epoll_deadline(int timeout)
{
    if (timeout < 0)
        return DEADLINE_NEVER;
    return timeout == 0 ? 0 : mono_now() + (uint64_t)timeout * UINT64_C(1000000);
}

int64_t sys_epoll_wait(struct task *t, int epfd, uaddr_t events, int maxevents, int timeout)
{
    return epoll_until(t, epfd, events, maxevents, epoll_deadline(timeout));
}

static int64_t epoll_masked(struct task *t, int epfd, uaddr_t events, int max, deadline_t deadline,
                            uaddr_t sigmask, uint64_t size)
{
    int64_t r = sigmask.v != 0 ? task_set_temp_sigmask(t, sigmask, size) : 0;

    if (r != 0)
        return r;
    r = epoll_until(t, epfd, events, max, deadline);
    /* After -EINTR the mask stays for the handler's frame. */
    if (sigmask.v != 0 && r != -EINTR)
        task_restore_sigmask(t);
    return r;
}

int64_t sys_epoll_pwait(struct task *t, int epfd, uaddr_t events, int maxevents, int timeout,
                        uaddr_t sigmask, uint64_t sigsetsize)
{
    return epoll_masked(t, epfd, events, maxevents, epoll_deadline(timeout), sigmask, sigsetsize);
}

int64_t sys_epoll_pwait2(struct task *t, int epfd, uaddr_t events, int maxevents, uaddr_t timeout,
                         uaddr_t sigmask, uint64_t sigsetsize)
{
    deadline_t deadline;
    int64_t r = timeout_read(t, timeout, &deadline);

    return r != 0 ? r : epoll_masked(t, epfd, events, maxevents, deadline, sigmask, sigsetsize);
}
