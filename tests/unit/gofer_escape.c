/* A hostile sentry, and a host on which things move: nothing outside of an export can be reached.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "gofer_fixture.h"

TestSuite(gofer_escape, .init = fixture_up, .fini = fixture_down);

/* ---- names ---- */

/* Puts bytes as they are into the server's first channel: what comes back, -EPIPE when it has hung
 * up. */
static int64_t raw_request(const struct wbuf *w)
{
    static uint8_t answer[GOF_MESSAGE_MAX];
    struct gof_area *areas = fx_map_areas();
    const _Atomic bool ended = false;

    cr_assert_eq(wbuf_status(w), 0);
    gof_area_put(&areas[0], w->data, w->len, GOF_TURN_GOFER);
    int64_t n = gof_area_get(&areas[0], GOF_TURN_SENTRY, &ended, -1, answer);
    gof_areas_drop(areas, GOFER_CHANNELS - 1);
    return n;
}

static void begin(struct wbuf *w, uint8_t *buf, size_t size, unsigned op)
{
    wbuf_init(w, buf, size);
    wbuf_u16(w, (uint16_t)op);
    wbuf_u16(w, 0);
    wbuf_u32(w, 1);
    wbuf_u16(w, GOF_CPU_NONE);
}

static void expect_hang_up(const struct wbuf *w)
{
    cr_assert_eq(raw_request(w), -EPIPE);
    pthread_join(fx.thread, NULL);
    cr_assert_eq(fx.result, -EPROTO, "all channels have ended");
    /* For fixture_down, which joins. */
    cr_assert_eq(pthread_create(&fx.thread, NULL, fx_serve, &fx), 0);
}

static void expect_name_refused(const char *name, size_t len)
{
    uint8_t buf[1024];
    struct wbuf w;

    begin(&w, buf, sizeof(buf), GOF_WALK);
    wbuf_u64(&w, fx.rw.handle);
    wbuf_u16(&w, 1);
    gof_put_text(&w, name, len);
    expect_hang_up(&w);
}

Test(gofer_escape, dot_dot)
{
    expect_name_refused("..", 2);
}

Test(gofer_escape, dot)
{
    expect_name_refused(".", 1);
}

Test(gofer_escape, empty_name)
{
    expect_name_refused("", 0);
}

Test(gofer_escape, absolute_path)
{
    expect_name_refused("/etc/passwd", 11);
}

Test(gofer_escape, path_upwards)
{
    expect_name_refused("x/../../secret", 14);
}

Test(gofer_escape, name_with_nul)
{
    expect_name_refused("a\0b", 3);
}

Test(gofer_escape, name_too_long)
{
    char name[300];

    memset(name, 'a', sizeof(name));
    expect_name_refused(name, 256);
}

Test(gofer_escape, unknown_request)
{
    uint8_t buf[64];
    struct wbuf w;

    begin(&w, buf, sizeof(buf), GOF_OP_END);
    expect_hang_up(&w);
}

Test(gofer_escape, bytes_after_the_request)
{
    uint8_t buf[64];
    struct wbuf w;

    begin(&w, buf, sizeof(buf), GOF_STAT);
    wbuf_u64(&w, fx.rw.handle);
    wbuf_u8(&w, 0);
    expect_hang_up(&w);
}

Test(gofer_escape, closing_what_is_not_open)
{
    uint8_t buf[64];
    struct wbuf w;

    wbuf_init(&w, buf, sizeof(buf));
    wbuf_u16(&w, GOF_CLOSE);
    wbuf_u16(&w, 1);
    wbuf_u32(&w, 1);
    wbuf_u16(&w, GOF_CPU_NONE);
    wbuf_u64(&w, 77);
    expect_hang_up(&w);
}

Test(gofer_escape, open_flags_are_two)
{
    static const uint32_t flags[] = {O_WRONLY, O_RDWR | O_CREAT, O_DIRECTORY, O_PATH, O_TRUNC};
    struct gof_node n;
    uint8_t buf[64];
    struct wbuf w;

    fx_write("rw/f", "x");
    cr_assert_eq(fx_walk1(fx.rw.handle, "f", &n), 0);
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        begin(&w, buf, sizeof(buf), GOF_OPEN);
        wbuf_u64(&w, n.handle);
        wbuf_u32(&w, flags[i]);
        struct gof_conn c;
        size_t size;
        int fd;
        cr_assert_eq(gof_conn_init(&c, fx.server), 0);
        memcpy(c.in, buf, w.len);
        cr_assert_eq(gof_server_answer(&c, w.len, &size, &fd), -EPROTO, "flags %x", flags[i]);
        gof_conn_fini(&c);
    }
}

/* ---- links of the host ---- */

Test(gofer_escape, symlinks_are_never_followed)
{
    static const char *const through[] = {"up", "secret"};
    struct gof_node n[2];
    size_t done;
    int why, fd;
    char text[256];

    cr_assert_eq(symlink("..", fx_path("rw/up")), 0);
    cr_assert_eq(symlink("../secret", fx_path("rw/out")), 0);
    cr_assert_eq(symlink("/proc/self/root/etc/passwd", fx_path("rw/magic")), 0);
    cr_assert_eq(gof_walk(fx.client, fx.rw.handle, through, 2, n, &done, &why), 0);
    cr_assert_eq(done, 1);
    cr_assert(S_ISLNK(n[0].attr.mode));
    /* The link is itself, and no directory to walk from. */
    const char *name = "secret";
    cr_assert_eq(gof_walk(fx.client, n[0].handle, &name, 1, n, &done, &why), -ENOTDIR);
    static const char *const links[] = {"out", "magic"};
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(fx_walk1(fx.rw.handle, links[i], &n[0]), 0);
        cr_assert(S_ISLNK(n[0].attr.mode));
        cr_assert_eq(gof_open(fx.client, n[0].handle, false, &fd), -EINVAL);
        cr_assert_gt(gof_readlink(fx.client, n[0].handle, text, sizeof(text)), 0);
    }
}

Test(gofer_escape, creating_over_a_symlink)
{
    struct gof_node n;
    struct gof_attr a;
    struct stat st;

    cr_assert_eq(symlink("../made", fx_path("rw/l")), 0);
    cr_assert_eq(gof_create(fx.client, fx.rw.handle, "l", S_IFREG | 0600, 0, 0, 0, &n, NULL),
                 -EEXIST);
    cr_assert_eq(stat(fx_path("made"), &st), -1);
    /* Attributes of the link, not of what it names. */
    cr_assert_eq(symlink("../secret", fx_path("rw/s")), 0);
    cr_assert_eq(fx_walk1(fx.rw.handle, "s", &n), 0);
    struct gof_setattr s = {.valid = GOF_SET_MODE, .mode = 0777};
    cr_assert_eq(gof_set_attr(fx.client, n.handle, &s, &a), -EOPNOTSUPP);
    s = (struct gof_setattr){.valid = GOF_SET_SIZE, .size = 0};
    cr_assert_eq(gof_set_attr(fx.client, n.handle, &s, &a), -EINVAL);
    s = (struct gof_setattr){.valid = GOF_SET_MTIME, .mtime = {1, 0}};
    cr_assert_eq(gof_set_attr(fx.client, n.handle, &s, &a), 0);
    cr_assert_eq(stat(fx_path("secret"), &st), 0);
    cr_assert_gt(st.st_mtime, 1);
    cr_assert_eq(st.st_size, 7);
}

Test(gofer_escape, readonly_export)
{
    struct gof_setattr s = {.valid = GOF_SET_SIZE, .size = 0};
    struct gof_node f, n;
    struct gof_attr a;
    int fd;

    cr_assert_eq(fx_walk1(fx.ro.handle, "file", &f), 0);
    cr_assert_eq(gof_open(fx.client, f.handle, true, &fd), -EROFS);
    cr_assert_eq(gof_set_attr(fx.client, f.handle, &s, &a), -EROFS);
    cr_assert_eq(gof_link(fx.client, fx.rw.handle, "x", f.handle, &a), -EXDEV);
    cr_assert_eq(gof_unlink(fx.client, fx.ro.handle, "file", false), -EROFS);
    cr_assert_eq(gof_rename(fx.client, fx.ro.handle, "file", fx.rw.handle, "x", 0), -EROFS);
    cr_assert_eq(gof_rename(fx.client, fx.rw.handle, "x", fx.ro.handle, "file", 0), -EROFS);
    cr_assert_eq(gof_create(fx.client, fx.ro.handle, "d", S_IFDIR | 0700, 0, 0, 0, &n, NULL),
                 -EROFS);
    cr_assert_eq(gof_setxattr(fx.client, f.handle, "user.x", "", 0, 0), -EROFS);
}

/* ---- a host that moves things ---- */

static _Atomic bool stop;

/* Puts a directory and a symlink out of the export in each other's place, over and over. */
static void *mover(void *arg)
{
    char *dir = strdup(fx_path("rw/d")), *link = strdup(fx_path("rw/l"));

    (void)arg;
    while (!atomic_load(&stop))
        cr_assert_eq(renameat2(AT_FDCWD, dir, AT_FDCWD, link, RENAME_EXCHANGE), 0);
    free(dir);
    free(link);
    return NULL;
}

Test(gofer_escape, directory_swapped_for_a_symlink)
{
    static const char *const names[] = {"d", "secret"};
    struct gof_node n[2], made;
    struct stat st;
    pthread_t thread;
    size_t done;
    int why, links = 0, dirs = 0;

    cr_assert_eq(mkdir(fx_path("rw/d"), 0755), 0);
    cr_assert_eq(symlink("..", fx_path("rw/l")), 0);
    atomic_store(&stop, false);
    cr_assert_eq(pthread_create(&thread, NULL, mover, NULL), 0);
    for (int i = 0; i < 20000; i++) {
        cr_assert_eq(gof_walk(fx.client, fx.rw.handle, names, 2, n, &done, &why), 0);
        cr_assert_leq(done, 1, "secret was reached");
        if (done == 0)
            continue;
        links += S_ISLNK(n[0].attr.mode);
        if (S_ISDIR(n[0].attr.mode)) {
            dirs++;
            if (i % 16 == 0 && gof_create(fx.client, n[0].handle, "new", S_IFREG | 0600, 0, 0, 0,
                                          &made, NULL) == 0) {
                gof_close(fx.client, made.handle);
                cr_assert_eq(gof_unlink(fx.client, n[0].handle, "new", false), 0);
            }
        }
        gof_close(fx.client, n[0].handle);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    cr_assert_gt(links, 0);
    cr_assert_gt(dirs, 0);
    cr_assert_eq(stat(fx_path("new"), &st), -1, "nothing was made outside");
}

/* Replaces a file by a FIFO and back: an open must neither hang nor give the FIFO. */
static void *replacer(void *arg)
{
    char *a = strdup(fx_path("rw/a")), *b = strdup(fx_path("rw/b"));

    (void)arg;
    while (!atomic_load(&stop))
        cr_assert_eq(renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE), 0);
    free(a);
    free(b);
    return NULL;
}

Test(gofer_escape, file_swapped_for_a_fifo)
{
    struct gof_node n;
    struct stat st;
    pthread_t thread;
    int fd;

    fx_write("rw/a", "file");
    cr_assert_eq(mkfifo(fx_path("rw/b"), 0600), 0);
    atomic_store(&stop, false);
    cr_assert_eq(pthread_create(&thread, NULL, replacer, NULL), 0);
    for (int i = 0; i < 5000; i++) {
        if (fx_walk1(fx.rw.handle, "a", &n))
            continue;
        int r = gof_open(fx.client, n.handle, i % 2, &fd);
        cr_assert_eq(r, S_ISREG(n.attr.mode) ? 0 : -EINVAL);
        if (r == 0) {
            cr_assert_eq(fstat(fd, &st), 0);
            cr_assert(S_ISREG(st.st_mode));
            close(fd);
        }
        gof_close(fx.client, n.handle);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
}

/* Many channels close and use the same handles: no descriptor of another file is ever hit. */
static uint64_t shared_handles[64];

static void *closer(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;

    while (!atomic_load(&stop)) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t *slot = &shared_handles[(seed >> 33) % 64];
        struct gof_node n;
        uint64_t old = __atomic_exchange_n(slot, 0, __ATOMIC_ACQ_REL);
        gof_close(fx.client, old);
        if (fx_walk1(fx.rw.handle, "f", &n) == 0) {
            uint64_t none = 0;
            if (!__atomic_compare_exchange_n(slot, &none, n.handle, false, __ATOMIC_ACQ_REL,
                                             __ATOMIC_ACQUIRE))
                gof_close(fx.client, n.handle);
        }
    }
    return NULL;
}

Test(gofer_escape, handles_closed_while_in_use)
{
    struct gof_node want;
    struct gof_attr a;
    pthread_t t[3];

    fx_write("rw/f", "x");
    cr_assert_eq(fx_walk1(fx.rw.handle, "f", &want), 0);
    atomic_store(&stop, false);
    for (uintptr_t i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, closer, (void *)(i + 1)), 0);
    for (int i = 0; i < 10000; i++) {
        uint64_t h = __atomic_load_n(&shared_handles[i % 64], __ATOMIC_ACQUIRE);
        int r = gof_stat(fx.client, h, &a);
        cr_assert(r == -EBADF || (r == 0 && a.ino == want.attr.ino), "%d", r);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
}
