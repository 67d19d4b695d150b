#include "sentry/time/timer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/lock.h"

struct timer_service {
    struct mutex mu;      /* rank LEAF: guards the rest */
    struct cond changed;  /* for the thread: an earlier deadline, or the end */
    struct cond finished; /* a function has returned */
    struct rb_root armed; /* by at */
    struct timer *running;
    bool started, ending;
    pthread_t thread;
};

int timer_service_new(struct timer_service **out_s)
{
    struct timer_service *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    mutex_init(&s->mu, LOCK_RANK_LEAF);
    cond_init(&s->changed);
    cond_init(&s->finished);
    s->armed = RB_ROOT;
    *out_s = s;
    return 0;
}

void timer_service_free(struct timer_service *s)
{
    if (!s)
        return;
    mutex_lock(&s->mu);
    BUG_ON(!rb_empty(&s->armed));
    s->ending = true;
    cond_signal(&s->changed);
    mutex_unlock(&s->mu);
    if (s->started)
        (void)pthread_join(s->thread, NULL);
    cond_destroy(&s->finished);
    cond_destroy(&s->changed);
    mutex_destroy(&s->mu);
    free(s);
}

static struct timer *timer_first_locked(const struct timer_service *s)
{
    return rb_entry_safe(rb_first(&s->armed), struct timer, node);
}

static void timer_remove_locked(struct timer *tm)
{
    rb_erase(&tm->node, &tm->service->armed);
    tm->armed = false;
}

static void timer_insert_locked(struct timer *tm)
{
    struct rb_root *root = &tm->service->armed;
    struct rb_node **link = &root->node, *parent = NULL;

    while (*link) {
        parent = *link;
        link = tm->at < rb_entry(parent, struct timer, node)->at ? &parent->left : &parent->right;
    }
    rb_link_node(&tm->node, parent, link);
    rb_insert_color(&tm->node, root);
    tm->armed = true;
}

static void timer_fire_locked(struct timer_service *s, struct timer *tm)
{
    timer_remove_locked(tm);
    s->running = tm;
    mutex_unlock(&s->mu);
    tm->fn(tm);
    mutex_lock(&s->mu);
    s->running = NULL;
    cond_broadcast(&s->finished);
}

static void *timer_service_main(void *arg)
{
    struct timer_service *s = arg;

    mutex_lock(&s->mu);
    while (!s->ending) {
        struct timer *tm = timer_first_locked(s);
        if (tm && tm->at <= mono_now())
            timer_fire_locked(s, tm);
        else
            (void)cond_wait(&s->changed, &s->mu, tm ? tm->at : DEADLINE_NEVER);
    }
    mutex_unlock(&s->mu);
    return NULL;
}

int timer_init(struct timer *tm, struct timer_service *s, timer_fn fn)
{
    int r = 0;

    *tm = (struct timer){.service = s, .fn = fn, .at = DEADLINE_NEVER};
    mutex_lock(&s->mu);
    if (!s->started) {
        r = pthread_create(&s->thread, NULL, timer_service_main, s);
        s->started = r == 0;
    }
    mutex_unlock(&s->mu);
    return r ? -EAGAIN : 0;
}

void timer_arm(struct timer *tm, deadline_t at)
{
    struct timer_service *s = tm->service;

    mutex_lock(&s->mu);
    if (tm->armed)
        timer_remove_locked(tm);
    tm->at = at;
    if (at != DEADLINE_NEVER && tm->cancels == 0) {
        timer_insert_locked(tm);
        if (timer_first_locked(s) == tm)
            cond_signal(&s->changed);
    }
    mutex_unlock(&s->mu);
}

static bool timer_disarm_locked(struct timer *tm)
{
    const bool was = tm->armed;

    if (was)
        timer_remove_locked(tm);
    tm->at = DEADLINE_NEVER;
    return was;
}

bool timer_disarm(struct timer *tm)
{
    mutex_lock(&tm->service->mu);
    const bool was = timer_disarm_locked(tm);
    mutex_unlock(&tm->service->mu);
    return was;
}

void timer_cancel(struct timer *tm)
{
    struct timer_service *s = tm->service;

    mutex_lock(&s->mu);
    (void)timer_disarm_locked(tm);
    tm->cancels++;
    while (s->running == tm)
        (void)cond_wait(&s->finished, &s->mu, UINT64_MAX);
    tm->cancels--;
    mutex_unlock(&s->mu);
}
