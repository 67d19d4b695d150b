/* Ends of which nobody asks. A client of containerd may be killed at any moment: containerd then
 * gives up on a shim that was just started, or on a container that is being made, and removes its
 * bundle; or it knows a container that its shim has removed already, and does not ask again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "runsc/shim/shim.h"

/* With nothing left, the shim stays this long: containerd asks for its end at once, if it does.
 * Without its bundle it does not. */
#define IDLE_S 10

void shim_exit(const struct shim *s)
{
    (void)unlink(s->socket);
    _exit(0);
}

/* ---- a container ---- */

void shim_unmount_root(struct shim_container *c)
{
    char *target = NULL;

    if (!c->mounted || asprintf(&target, "%s/rootfs", c->bundle) < 0)
        return;
    shim_unmount(target);
    free(target);
    c->mounted = false;
}

static int delete_forced(struct shim *s, const struct shim_container *c, bool has_bundle,
                         char *error, size_t size)
{
    static const int none[3] = {-1, -1, -1};
    const char *args[] = {"delete", "--force", c->id, NULL};

    return shim_runsc(s, has_bundle ? c->bundle : NULL, args, none, NULL, NULL, error, size);
}

void shim_delete_made(struct shim *s, const struct shim_container *c)
{
    char error[512];

    (void)delete_forced(s, c, false, error, sizeof(error));
}

int shim_end_container(struct shim *s, struct shim_container *c, bool has_bundle, char *error,
                       size_t size)
{
    const struct shim_proc *init = shim_find_proc(c, "");

    pthread_mutex_unlock(&s->mu);
    int r = delete_forced(s, c, has_bundle, error, size);
    pthread_mutex_lock(&s->mu);
    /* Its exit may be on its way; of its output, nobody reads what is still there. */
    while (r == 0 && !c->gone && !init->ending && init->state != PROC_STOPPED)
        pthread_cond_wait(&s->changed, &s->mu);
    if (c->gone) {
        (void)snprintf(error, size, "the container was removed meanwhile");
        return TTRPC_NOT_FOUND;
    }
    return r == 0 ? TTRPC_OK : TTRPC_UNKNOWN;
}

void shim_forget_container(struct shim *s, struct shim_container *c)
{
    shim_publish_delete(s, shim_find_proc(c, ""));
    shim_unmount_root(c);
    shim_container_remove(s, c);
}

/* ---- bundles that are gone ---- */

void shim_watch_bundle(const struct shim *s, struct shim_container *c)
{
    c->watch = inotify_add_watch(s->watch_fd, c->bundle, SHIM_BUNDLE_GONE);
}

/* NULL, or the caller is a user. mu held. */
static struct shim_container *find_watched(struct shim *s, int watch)
{
    struct shim_container *c;

    list_for_each_entry (c, &s->containers, node)
        if (c->watch == watch) {
            c->users++;
            return c;
        }
    return NULL;
}

struct lost {
    struct shim *s;
    struct shim_container *c;
};

static void *lost_main(void *arg)
{
    struct lost l = *(struct lost *)arg;
    char error[512];

    free(arg);
    pthread_mutex_lock(&l.s->mu);
    const struct shim_proc *init = shim_find_proc(l.c, "");
    while (!l.c->gone && init->state == PROC_NEW)
        pthread_cond_wait(&l.s->changed, &l.s->mu);
    if (!l.c->gone && shim_end_container(l.s, l.c, false, error, sizeof(error)) == TTRPC_OK)
        shim_forget_container(l.s, l.c);
    else
        shim_container_let_go(l.s, l.c);
    pthread_mutex_unlock(&l.s->mu);
    return NULL;
}

static void bundle_gone(struct shim *s, int watch)
{
    struct lost *l = malloc(sizeof(*l));

    pthread_mutex_lock(&s->mu);
    if (watch == s->watch) {
        s->unwanted = true;
        pthread_cond_broadcast(&s->changed);
    }
    struct shim_container *c = l != NULL ? find_watched(s, watch) : NULL;
    if (c != NULL) {
        *l = (struct lost){s, c};
        if (shim_thread(lost_main, l) == 0)
            l = NULL;
        else
            shim_container_let_go(s, c);
    }
    pthread_mutex_unlock(&s->mu);
    free(l);
}

static void *watch_main(void *arg)
{
    struct shim *s = arg;
    _Alignas(struct inotify_event) char buf[1024];
    ssize_t n;

    while ((n = read(s->watch_fd, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR))
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *e = (const void *)(buf + at);
            if (e->mask & (IN_MOVE_SELF | IN_DELETE_SELF))
                bundle_gone(s, e->wd);
            at += (ssize_t)(sizeof(*e) + e->len);
        }
    return NULL;
}

/* ---- the shim ---- */

static bool idle(const struct shim *s)
{
    return (s->used || s->unwanted) && s->requests == 0 && list_empty(&s->containers);
}

static void *idle_main(void *arg)
{
    struct shim *s = arg;
    struct timespec until;

    pthread_mutex_lock(&s->mu);
    for (;;) {
        while (!idle(s))
            pthread_cond_wait(&s->changed, &s->mu);
        const unsigned served = s->served;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += s->unwanted ? 0 : IDLE_S;
        while (idle(s) && s->served == served)
            if (pthread_cond_timedwait(&s->changed, &s->mu, &until) == ETIMEDOUT)
                shim_exit(s);
    }
    return NULL;
}

int shim_end_start(struct shim *s)
{
    int r = s->watch_fd >= 0 ? shim_thread(watch_main, s) : 0;

    return r == 0 ? shim_thread(idle_main, s) : r;
}
