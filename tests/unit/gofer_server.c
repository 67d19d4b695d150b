/* Requests end to end: client, sockets, server, host files. */
#include <errno.h>
#include <linux/fs.h>
#include <sys/xattr.h>

#include "gofer_fixture.h"

TestSuite(gofer, .init = fixture_up, .fini = fixture_down);

static struct gof_node make(uint64_t dir, const char *name, uint32_t mode)
{
    struct gof_node n;

    cr_assert_eq(gof_create(fx.client, dir, name, mode, 0, 0, 0, &n, NULL), 0, "%s", name);
    return n;
}

Test(gofer, walk_several_components)
{
    struct gof_node a = make(fx.rw.handle, "a", S_IFDIR | 0755);
    struct gof_node b = make(a.handle, "b", S_IFDIR | 0755);
    make(b.handle, "c", S_IFREG | 0640);
    static const char *const names[] = {"a", "b", "c", "d"};
    struct gof_node n[4];
    size_t done;
    int why;

    uint64_t before = gof_client_requests(fx.client);
    cr_assert_eq(gof_walk(fx.client, fx.rw.handle, names, 3, n, &done, &why), 0);
    cr_assert_eq(gof_client_requests(fx.client), before + 1, "one message for the path");
    cr_assert_eq(done, 3);
    cr_assert_eq(why, 0);
    cr_assert_eq(n[2].attr.mode, S_IFREG | 0640);
    cr_assert_eq(n[0].attr.ino, a.attr.ino);
    /* A file in the middle ends it. */
    cr_assert_eq(gof_walk(fx.client, fx.rw.handle, names, 4, n, &done, &why), 0);
    cr_assert_eq(done, 3);
    static const char *const missing[] = {"a", "x", "c"};
    cr_assert_eq(gof_walk(fx.client, fx.rw.handle, missing, 3, n, &done, &why), 0);
    cr_assert_eq(done, 1);
    cr_assert_eq(why, -ENOENT);
}

Test(gofer, look_at_several_names)
{
    static const char *const names[] = {"a", "f", "b", "none", "c"};
    struct gof_node n[GOF_WALK_MAX + 1];
    size_t done;
    int why;

    make(fx.rw.handle, "a", S_IFDIR | 0755);
    make(fx.rw.handle, "f", S_IFREG | 0640);
    make(fx.rw.handle, "b", S_IFDIR | 0700);
    make(fx.rw.handle, "c", S_IFDIR | 0700);
    const uint64_t before = gof_client_requests(fx.client);
    cr_assert_eq(gof_look(fx.client, fx.rw.handle, names, 3, n, &done, &why), 0);
    cr_assert_eq(gof_client_requests(fx.client), before + 1);
    cr_assert_eq(done, 3);
    cr_assert_eq(why, 0);
    cr_assert_eq(n[1].attr.mode, S_IFREG | 0640);
    cr_assert_eq(n[2].attr.mode, S_IFDIR | 0700);
    cr_assert_eq(gof_look(fx.client, fx.rw.handle, names, 5, n, &done, &why), 0);
    cr_assert_eq(done, 3);
    cr_assert_eq(why, -ENOENT);
    cr_assert_eq(gof_look(fx.client, fx.rw.handle, names + 3, 1, n, &done, &why), 0);
    cr_assert_eq(done, 0);
    cr_assert_eq(gof_look(fx.client, n[1].handle, names, 1, n, &done, &why), -ENOTDIR);
    cr_assert_eq(gof_look(fx.client, fx.rw.handle, names, GOF_WALK_MAX + 1, n, &done, &why),
                 -EINVAL);
}

Test(gofer, create_sets_owner_and_mode)
{
    struct gof_node n;
    struct stat st;
    int fd;

    cr_assert_eq(gof_create(fx.client, fx.rw.handle, "f", S_IFREG | 04751, 0, 1000, 2000, &n, &fd),
                 0);
    cr_assert_eq(write(fd, "hello", 5), 5);
    close(fd);
    cr_assert_eq(stat(fx_path("rw/f"), &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 04751);
    cr_assert_eq(st.st_size, 5);
    if (geteuid() == 0) {
        cr_assert_eq(st.st_uid, 1000);
        cr_assert_eq(st.st_gid, 2000);
    }
    cr_assert_eq(n.attr.ino, st.st_ino);
    cr_assert_eq(gof_create(fx.client, fx.rw.handle, "f", S_IFREG | 0600, 0, 0, 0, &n, NULL),
                 -EEXIST);
}

Test(gofer, nameless_files_get_a_name_later)
{
    struct gof_node n, found;
    struct gof_attr a;
    size_t done;
    int fd = -1, why;
    const char *name = "named";

    cr_assert_eq(gof_tmpfile(fx.client, fx.rw.handle, 04640, 1000, 2000, &n, &fd), 0);
    cr_assert_eq(n.attr.mode, S_IFREG | 04640u);
    cr_assert_eq(n.attr.nlink, 0u);
    cr_assert_eq(write(fd, "x", 1), 1);
    cr_assert_eq(gof_link(fx.client, fx.rw.handle, name, n.handle, &a), 0);
    cr_assert_eq(a.nlink, 1u);
    cr_assert_eq(a.size, 1u);
    cr_assert_eq(gof_walk(fx.client, fx.rw.handle, &name, 1, &found, &done, &why), 0);
    cr_assert_eq(found.attr.ino, n.attr.ino);
    close(fd);
    cr_assert_eq(gof_tmpfile(fx.client, n.handle, 0600, 0, 0, &n, &fd), -ENOTDIR);
}

Test(gofer, create_kinds)
{
    static const uint32_t kinds[] = {S_IFDIR | 01777, S_IFIFO | 0640, S_IFSOCK | 0600};
    struct gof_node n;
    struct stat st;
    char name[8];

    for (size_t i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), "k%zu", i);
        make(fx.rw.handle, name, kinds[i]);
        char rel[16];
        snprintf(rel, sizeof(rel), "rw/%s", name);
        cr_assert_eq(lstat(fx_path(rel), &st), 0);
        cr_assert_eq(st.st_mode, kinds[i]);
    }
    cr_assert_eq(gof_create(fx.client, fx.rw.handle, "d", S_IFCHR | 0600, 0x103, 0, 0, &n, NULL),
                 -EPERM, "no devices");
    int fd;
    cr_assert_eq(fx_walk1(fx.rw.handle, "k1", &n), 0);
    cr_assert_eq(gof_open(fx.client, n.handle, false, &fd), -EINVAL, "a FIFO is never opened");
}

Test(gofer, open_read_and_write)
{
    struct gof_node n;
    char buf[16];
    int fd;

    fx_write("rw/f", "content");
    cr_assert_eq(fx_walk1(fx.rw.handle, "f", &n), 0);
    cr_assert_eq(gof_open(fx.client, n.handle, false, &fd), 0);
    cr_assert_eq(pread(fd, buf, sizeof(buf), 0), 7);
    cr_assert_eq(pwrite(fd, "x", 1, 0), -1);
    close(fd);
    cr_assert_eq(gof_open(fx.client, n.handle, true, &fd), 0);
    cr_assert_eq(pwrite(fd, "X", 1, 0), 1);
    close(fd);
    cr_assert_eq(gof_open(fx.client, fx.rw.handle, false, &fd), -EINVAL, "a directory never is");
}

Test(gofer, unlinked_file_stays_usable)
{
    struct gof_node n = make(fx.rw.handle, "f", S_IFREG | 0600);
    struct gof_attr a;
    int fd;

    cr_assert_eq(gof_unlink(fx.client, fx.rw.handle, "f", false), 0);
    cr_assert_eq(gof_open(fx.client, n.handle, true, &fd), 0);
    close(fd);
    cr_assert_eq(gof_stat(fx.client, n.handle, &a), 0);
    cr_assert_eq(a.nlink, 0);
}

Test(gofer, links_and_renames)
{
    struct gof_node d = make(fx.rw.handle, "d", S_IFDIR | 0755);
    struct gof_node f = make(fx.rw.handle, "f", S_IFREG | 0600), n;
    struct gof_attr a;
    char text[64];

    cr_assert_eq(gof_link(fx.client, d.handle, "hard", f.handle, &a), 0);
    cr_assert_eq(a.nlink, 2);
    cr_assert_eq(gof_symlink(fx.client, d.handle, "soft", "../f", 5, 6, &n), 0);
    cr_assert_eq(gof_readlink(fx.client, n.handle, text, sizeof(text)), 4);
    cr_assert_str_eq(text, "../f");
    cr_assert_eq(gof_readlink(fx.client, f.handle, text, sizeof(text)), -EINVAL);
    cr_assert_eq(gof_link(fx.client, d.handle, "soft2", n.handle, &a), 0);
    cr_assert(S_ISLNK(a.mode), "the link itself got a second name");
    cr_assert_eq(gof_rename(fx.client, fx.rw.handle, "f", d.handle, "g", 0), 0);
    cr_assert_eq(fx_walk1(fx.rw.handle, "f", &n), -ENOENT);
    cr_assert_eq(fx_walk1(d.handle, "g", &n), 0);
    cr_assert_eq(gof_rename(fx.client, d.handle, "g", d.handle, "hard", RENAME_NOREPLACE), -EEXIST);
    cr_assert_eq(gof_rename(fx.client, d.handle, "g", d.handle, "w", RENAME_WHITEOUT), -EINVAL);
    cr_assert_eq(gof_unlink(fx.client, fx.rw.handle, "d", true), -ENOTEMPTY);
    cr_assert_eq(gof_unlink(fx.client, fx.rw.handle, "d", false), -EISDIR);
}

struct listing {
    int count, dots;
    bool seen[5000];
};

static int list_entry_fn(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype)
{
    struct listing *l = arg;

    (void)len, (void)ino;
    cr_assert_eq(dtype, 8 /* DT_REG */);
    l->count++;
    l->dots += name[0] == '.';
    l->seen[strtol(name + 1, NULL, 10)] = true;
    return 0;
}

Test(gofer, getdents_in_batches)
{
    static struct listing l;
    char rel[16];
    bool end = false;

    memset(&l, 0, sizeof(l));
    for (int i = 0; i < 5000; i++) {
        snprintf(rel, sizeof(rel), "rw/f%04d", i);
        fx_write(rel, "");
    }
    uint64_t parent = 0;
    int batches = 0;
    for (bool first = true; !end; first = false, batches++)
        cr_assert_eq(gof_getdents(fx.client, fx.rw.handle, first, list_entry_fn, &l, &end, &parent),
                     0);
    cr_assert_eq(l.count, 5000);
    cr_assert_eq(l.dots, 0);
    for (int i = 0; i < 5000; i++)
        cr_assert(l.seen[i]);
    cr_assert_gt(batches, 1);
    struct stat st;
    cr_assert_eq(stat(fx.base, &st), 0);
    cr_assert_eq(parent, st.st_ino);
    cr_assert_eq(gof_getdents(fx.client, fx.rw.handle, false, list_entry_fn, &l, &end, &parent),
                 -EINVAL, "nothing is being listed");
}

Test(gofer, attributes)
{
    struct gof_node n = make(fx.rw.handle, "f", S_IFREG | 0600);
    struct gof_setattr s = {.valid = GOF_SET_MODE | GOF_SET_SIZE | GOF_SET_MTIME,
                            .mode = 0444,
                            .size = 12345,
                            .mtime = {1000000000, 5}};
    struct gof_attr a;
    struct gof_statfs fs;

    cr_assert_eq(gof_set_attr(fx.client, n.handle, &s, &a), 0);
    cr_assert_eq(a.mode, S_IFREG | 0444);
    cr_assert_eq(a.size, 12345);
    cr_assert_eq(a.mtime.sec, 1000000000);
    cr_assert_eq(a.mtime.nsec, 5);
    s = (struct gof_setattr){.valid = GOF_SET_SIZE, .size = 1};
    cr_assert_eq(gof_set_attr(fx.client, fx.rw.handle, &s, &a), -EISDIR);
    cr_assert_eq(gof_statfs(fx.client, n.handle, &fs), 0);
    cr_assert_gt(fs.blocks, 0);
    cr_assert_eq(gof_fsync(fx.client, n.handle, false), 0);
    cr_assert_eq(gof_fsync(fx.client, fx.rw.handle, false), 0);
}

Test(gofer, extended_attributes)
{
    struct gof_node n = make(fx.rw.handle, "f", S_IFREG | 0600);
    char buf[64];

    int r = gof_setxattr(fx.client, n.handle, "user.x", "value", 5, 0);
    /* A file system without them says so each time. */
    if (r == -EOPNOTSUPP) {
        cr_assert_eq(gof_getxattr(fx.client, n.handle, "user.x", NULL, 0), r);
        return;
    }
    cr_assert_eq(r, 0);
    cr_assert_eq(gof_setxattr(fx.client, n.handle, "user.x", "v", 1, XATTR_CREATE), -EEXIST);
    cr_assert_eq(gof_getxattr(fx.client, n.handle, "user.x", NULL, 0), 5);
    cr_assert_eq(gof_getxattr(fx.client, n.handle, "user.x", buf, 2), -ERANGE);
    cr_assert_eq(gof_getxattr(fx.client, n.handle, "user.x", buf, sizeof(buf)), 5);
    cr_assert_eq(memcmp(buf, "value", 5), 0);
    cr_assert_eq(gof_listxattr(fx.client, n.handle, buf, sizeof(buf)), 7);
    cr_assert_str_eq(buf, "user.x");
    cr_assert_eq(gof_removexattr(fx.client, n.handle, "user.x"), 0);
    cr_assert_eq(gof_getxattr(fx.client, n.handle, "user.x", NULL, 0), -ENODATA);
    cr_assert_eq(gof_setxattr(fx.client, n.handle, "trusted.overlay.opaque", "y", 1, 0),
                 -EOPNOTSUPP);
}

Test(gofer, handles_are_closed_with_the_next_request)
{
    struct gof_attr a;
    size_t before = gof_server_handles(fx.server);
    struct gof_node n = make(fx.rw.handle, "f", S_IFREG | 0600);

    uint64_t sent = gof_client_requests(fx.client);
    gof_close(fx.client, n.handle);
    cr_assert_eq(gof_client_requests(fx.client), sent);
    cr_assert_eq(gof_stat(fx.client, fx.rw.handle, &a), 0);
    cr_assert_eq(gof_server_handles(fx.server), before);
    cr_assert_eq(gof_stat(fx.client, n.handle, &a), -EBADF);
    /* The slot is used again, under another id. */
    struct gof_node m = make(fx.rw.handle, "g", S_IFREG | 0600);
    cr_assert_neq(m.handle, n.handle);
    cr_assert_eq(gof_stat(fx.client, n.handle, &a), -EBADF);
}

/* Unless it was told otherwise. */
Test(gofer, sockets_and_fifos_of_the_host_are_refused)
{
    struct gof_node sock = make(fx.rw.handle, "sock", S_IFSOCK | 0777);
    struct gof_node fifo = make(fx.rw.handle, "fifo", S_IFIFO | 0666);
    int fd;

    cr_assert_eq(gof_connect(fx.client, sock.handle, SOCK_STREAM, &fd), -ECONNREFUSED);
    cr_assert_eq(gof_open_fifo(fx.client, fifo.handle, O_RDWR, &fd), -EOPNOTSUPP);
    cr_assert_eq(gof_open(fx.client, fifo.handle, false, &fd), -EINVAL);
}

Test(gofer, handles_are_bounded)
{
    struct gof_node n;
    int r = 0, made = 0;

    fx_write("rw/f", "");
    while ((r = fx_walk1(fx.rw.handle, "f", &n)) == 0 && made < 5000)
        made++;
    cr_assert_eq(r, -ENFILE);
    cr_assert_eq(made, 4096 - 2);
}

Test(gofer, death_is_noticed)
{
    struct gof_attr a;

    for (int i = 0; i < GOFER_CHANNELS; i++)
        shutdown(fx.socks[i], SHUT_RDWR);
    pthread_join(fx.thread, NULL);
    cr_assert_eq(gof_stat(fx.client, fx.rw.handle, &a), -EIO);
    cr_assert(gof_client_dead(fx.client));
    cr_assert_eq(gof_stat(fx.client, fx.rw.handle, &a), -EIO);
    /* For fixture_down, which joins. */
    cr_assert_eq(pthread_create(&fx.thread, NULL, fx_serve, &fx), 0);
}

struct worker {
    pthread_t thread;
    int id;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    char name[32];

    for (int i = 0; i < 200; i++) {
        struct gof_node n, m;
        snprintf(name, sizeof(name), "w%d-%d", w->id, i);
        cr_assert_eq(gof_create(fx.client, fx.rw.handle, name, S_IFREG | 0600, 0, 0, 0, &n, NULL),
                     0);
        cr_assert_eq(fx_walk1(fx.rw.handle, name, &m), 0);
        cr_assert_eq(m.attr.ino, n.attr.ino);
        cr_assert_eq(gof_unlink(fx.client, fx.rw.handle, name, false), 0);
        gof_close(fx.client, n.handle);
        gof_close(fx.client, m.handle);
    }
    return NULL;
}

Test(gofer, many_threads_share_the_channels)
{
    struct worker w[8];

    for (int i = 0; i < 8; i++) {
        w[i].id = i;
        cr_assert_eq(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 8; i++)
        pthread_join(w[i].thread, NULL);
    gof_flush(fx.client);
    cr_assert_eq(gof_server_handles(fx.server), 2);
}
