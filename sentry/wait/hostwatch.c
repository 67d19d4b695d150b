#include "sentry/wait/hostwatch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/objcount.h"

#define WATCH_EVENTS 32
/* Freed watches that wait for the thread to come round; with more it is woken. */
#define WATCH_DEAD 64

OBJCOUNT_DEFINE(hostwatch);

struct hostwatch {
    struct waitq wq;
    struct list node; /* watch.dead */
    int fd;
};

/* The host's descriptors are the process's, as is the one thread. */
static struct {
    int fd, wake_fd;
    struct mutex mu; /* guards the rest */
    bool running;
    struct list dead; /* hostwatch.node: the thread may hold an event of them yet */
    unsigned dead_count;
} watch = {.fd = -1, .wake_fd = -1, .mu = MUTEX_INITIALIZER(LOCK_RANK_LEAF)};

int hostwatch_setup(void)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};

    list_init(&watch.dead);
    watch.fd = epoll_create1(EPOLL_CLOEXEC);
    watch.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch.fd < 0 || watch.wake_fd < 0 ||
        epoll_ctl(watch.fd, EPOLL_CTL_ADD, watch.wake_fd, &ev) != 0)
        return -errno;
    return 0;
}

static void watch_destroy(struct hostwatch *h)
{
    waitq_fini(&h->wq);
    free(h);
}

/* Between two waits: no event names them any more. */
static void watch_bury(void)
{
    struct hostwatch *h, *next;
    struct list dead;

    list_init(&dead);
    mutex_lock(&watch.mu);
    list_splice_tail(&watch.dead, &dead);
    watch.dead_count = 0;
    mutex_unlock(&watch.mu);
    list_for_each_entry_safe (h, next, &dead, node)
        watch_destroy(h);
}

static void *watch_main(void *arg)
{
    struct epoll_event ev[WATCH_EVENTS];
    uint64_t count;

    (void)arg;
    for (;;) {
        watch_bury();
        int n = epoll_wait(watch.fd, ev, WATCH_EVENTS, -1);
        if (n < 0 && errno != EINTR)
            break;
        for (int i = 0; i < n; i++) {
            struct hostwatch *h = ev[i].data.ptr;
            if (h == NULL)
                (void)!read(watch.wake_fd, &count, sizeof(count));
            else
                (void)waitq_wake(&h->wq, ev[i].events);
        }
    }
    log_error("hostwatch: %s", "the watch on host descriptors has failed");
    abort();
}

/* The thread is only there once somebody waits. */
static int watch_start(void)
{
    pthread_t t;
    int r = 0;

    mutex_lock(&watch.mu);
    if (!watch.running) {
        r = -pthread_create(&t, NULL, watch_main, NULL);
        if (r == 0) {
            watch.running = true;
            (void)pthread_detach(t);
        }
    }
    mutex_unlock(&watch.mu);
    return r;
}

int hostwatch_new(int fd, uint32_t events, struct hostwatch **out)
{
    struct hostwatch *h = calloc(1, sizeof(*h));
    struct epoll_event ev = {.events = events != 0 ? events : EPOLLONESHOT, .data.ptr = h};
    int r = h == NULL ? -ENOMEM : 0;

    if (r == 0 && (events & EPOLLET) != 0)
        r = watch_start();
    if (r == 0 && epoll_ctl(watch.fd, EPOLL_CTL_ADD, fd, &ev) != 0)
        r = -errno;
    if (r != 0) {
        free(h);
        return r;
    }
    waitq_init(&h->wq);
    h->fd = fd;
    OBJCOUNT_INC(hostwatch);
    *out = h;
    return 0;
}

void hostwatch_free(struct hostwatch *h)
{
    const uint64_t one = 1;
    bool wake = false, gone = false;

    if (h == NULL)
        return;
    /* What is left is the thread's to free. */
    OBJCOUNT_DEC(hostwatch);
    (void)epoll_ctl(watch.fd, EPOLL_CTL_DEL, h->fd, NULL);
    mutex_lock(&watch.mu);
    if (watch.running) {
        list_add_tail(&h->node, &watch.dead);
        wake = ++watch.dead_count == WATCH_DEAD;
    } else {
        gone = true;
    }
    mutex_unlock(&watch.mu);
    if (gone)
        watch_destroy(h);
    if (wake)
        (void)!write(watch.wake_fd, &one, sizeof(one));
}

struct waitq *hostwatch_queue(struct hostwatch *h)
{
    return &h->wq;
}

void hostwatch_arm(struct hostwatch *h, uint32_t events)
{
    struct epoll_event ev = {.events = events | EPOLLONESHOT, .data.ptr = h};

    if (watch_start() == 0)
        (void)epoll_ctl(watch.fd, EPOLL_CTL_MOD, h->fd, &ev);
}

uint32_t hostwatch_ready(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};

    /* poll(2) and epoll(7) use the same bits. */
    return poll(&p, 1, 0) > 0 ? (uint32_t)(uint16_t)p.revents : 0;
}
