/* What others do on the host to what is watched is told, and what the gofer does itself is not. */
#include <errno.h>
#include <stdatomic.h>
#include <sys/inotify.h>

#include "gofer_fixture.h"

/* What was told so far. */
static struct {
    pthread_mutex_t mu;
    pthread_cond_t more;
    unsigned seen, lost;
    bool held; /* the next event is not taken before this is false */
    struct gof_event last;
} told = {.mu = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

static bool hold(struct gof_watch *w)
{
    (void)w;
    return true;
}

static void event(struct gof_watch *w, const struct gof_event *e)
{
    cr_assert_eq(w->wd, e->wd);
    pthread_mutex_lock(&told.mu);
    while (told.held)
        pthread_cond_wait(&told.more, &told.mu);
    told.last = *e;
    told.seen++;
    pthread_cond_broadcast(&told.more);
    pthread_mutex_unlock(&told.mu);
}

static void lost(void)
{
    pthread_mutex_lock(&told.mu);
    told.lost++;
    pthread_cond_broadcast(&told.more);
    pthread_mutex_unlock(&told.mu);
}

static const struct gof_watch_ops ops = {.hold = hold, .event = event, .lost = lost};

/* Waits till so many events were told, and has the last of them. */
static struct gof_event await_event(unsigned count)
{
    pthread_mutex_lock(&told.mu);
    while (told.seen < count)
        pthread_cond_wait(&told.more, &told.mu);
    struct gof_event e = told.last;
    pthread_mutex_unlock(&told.mu);
    return e;
}

static void hold_events(bool held)
{
    pthread_mutex_lock(&told.mu);
    told.held = held;
    pthread_cond_broadcast(&told.more);
    pthread_mutex_unlock(&told.mu);
}

TestSuite(gofer_watch, .init = fixture_up, .fini = fixture_down);

Test(gofer_watch, others_are_told_of_and_we_are_not)
{
    struct gof_watch w = {.ops = &ops};
    struct gof_node n;
    struct gof_attr a;

    cr_assert_eq(gof_watch(fx.client, fx.rw.handle, &w), 0);
    cr_assert_eq(gof_create(fx.client, fx.rw.handle, "f", S_IFREG | 0600, 0, 0, 0, &n, NULL), 0);
    cr_assert_eq(gof_link(fx.client, fx.rw.handle, "g", n.handle, &a), 0);
    cr_assert_eq(gof_rename(fx.client, fx.rw.handle, "g", fx.rw.handle, "h", 0), 0);
    cr_assert_eq(gof_unlink(fx.client, fx.rw.handle, "h", false), 0);
    cr_assert_eq(gof_symlink(fx.client, fx.rw.handle, "s", "x", 0, 0, &n), 0);
    cr_assert_eq(mkdir(fx_path("rw/theirs"), 0700), 0);
    struct gof_event e = await_event(1);
    cr_assert_str_eq(e.name, "theirs");
    cr_assert_eq(e.mask, IN_CREATE | IN_ISDIR);
    cr_assert_eq(chmod(fx_path("rw/f"), 0640), 0);
    e = await_event(2);
    cr_assert_str_eq(e.name, "f");
    cr_assert_eq(e.mask, IN_ATTRIB);
    cr_assert_eq(fx_walk1(fx.rw.handle, "f", &n), 0);
    cr_assert_eq(e.ino, n.attr.ino);
    cr_assert_eq(e.dev, n.attr.dev);
    cr_assert_eq(e.ctime.nsec, n.attr.ctime.nsec);
    gof_unwatch(fx.client, fx.rw.handle, &w);
}

Test(gofer_watch, no_more_once_it_is_dropped)
{
    struct gof_watch w = {.ops = &ops}, sub = {.ops = &ops};
    struct gof_node n, again;

    cr_assert_eq(mkdir(fx_path("rw/d"), 0700), 0);
    cr_assert_eq(fx_walk1(fx.rw.handle, "d", &n), 0);
    cr_assert_eq(fx_walk1(fx.rw.handle, "d", &again), 0);
    cr_assert_eq(gof_watch(fx.client, n.handle, &sub), 0);
    cr_assert_eq(gof_watch(fx.client, again.handle, &w), 0);
    cr_assert_eq(w.wd, sub.wd, "one file, one number");
    gof_watch_drop(fx.client, &w);
    gof_close(fx.client, again.handle);
    gof_flush(fx.client);
    fx_write("rw/d/seen", "");
    cr_assert_str_eq(await_event(1).name, "seen");
    gof_unwatch(fx.client, n.handle, &sub);
    fx_write("rw/d/unseen", "");
    cr_assert_eq(gof_watch(fx.client, fx.rw.handle, &w), 0);
    pthread_mutex_lock(&told.mu);
    const unsigned seen = told.seen;
    pthread_mutex_unlock(&told.mu);
    cr_assert_eq(mkdir(fx_path("rw/end"), 0700), 0);
    cr_assert_str_eq(await_event(seen + 1).name, "end");
    gof_unwatch(fx.client, fx.rw.handle, &w);
}

Test(gofer_watch, watches_are_bounded)
{
    static struct gof_watch w[1100];
    struct gof_node n;
    char name[16];
    int r = 0;
    size_t count = 0;

    for (; count < ARRAY_SIZE(w) && r == 0; count++) {
        snprintf(name, sizeof(name), "%zu", count);
        cr_assert_eq(gof_create(fx.client, fx.rw.handle, name, S_IFREG | 0600, 0, 0, 0, &n, NULL),
                     0);
        w[count].ops = &ops;
        r = gof_watch(fx.client, n.handle, &w[count]);
    }
    cr_assert_eq(r, -ENOSPC);
    cr_assert_eq(count - 1, 1024, "%zu", count);
    while (--count > 0)
        gof_watch_drop(fx.client, &w[count - 1]);
}

/* Nobody takes them: the gofer, which must see what it did itself, keeps no more than a bounded
 * number. */
Test(gofer_watch, that_some_are_lost_is_told)
{
    struct gof_watch w = {.ops = &ops};
    char name[32];

    hold_events(true);
    cr_assert_eq(gof_watch(fx.client, fx.rw.handle, &w), 0);
    for (int i = 0; i < 3 * LIMIT_GOFER_EVENTS; i++) {
        snprintf(name, sizeof(name), "rw/%d", i);
        cr_assert_eq(mkdir(fx_path(name), 0700), 0);
        struct gof_node n;
        if (i % 1000 == 0)
            cr_assert_eq(
                gof_create(fx.client, fx.rw.handle, "own", S_IFREG | 0600, 0, 0, 0, &n, NULL),
                i ? -EEXIST : 0);
    }
    hold_events(false);
    pthread_mutex_lock(&told.mu);
    while (told.lost == 0)
        pthread_cond_wait(&told.more, &told.mu);
    cr_assert_geq(told.seen, LIMIT_GOFER_EVENTS);
    pthread_mutex_unlock(&told.mu);
    gof_unwatch(fx.client, fx.rw.handle, &w);
}

Test(gofer_watch, a_file_without_a_name)
{
    struct gof_watch w = {.ops = &ops};
    struct gof_node n;

    fx_write("rw/f", "");
    cr_assert_eq(fx_walk1(fx.rw.handle, "f", &n), 0);
    cr_assert_eq(gof_watch(fx.client, n.handle, &w), 0);
    cr_assert_eq(unlink(fx_path("rw/f")), 0);
    struct gof_event e = await_event(1);
    cr_assert_eq(e.mask, IN_ATTRIB);
    cr_assert_eq(e.nlink, 0);
    gof_unwatch(fx.client, n.handle, &w);
}
