/* goferfs as vfs uses it: paths, links, opens and renames on files of the host, and how many
 * requests they cost. */
#include <errno.h>
#include <linux/fs.h>
#include <sys/mount.h>

#include "base/objcount.h"
#include "gofer_fixture.h"
#include "sentry/fs/goferfs/goferfs.h"

static struct cred *cred;
static struct mount_ns *ns;
static struct vfs_caller c;

static void up(void)
{
    struct super *sb;

    fixture_up();
    cr_assert_eq(cred_new_root(~0ull, &cred), 0);
    cr_assert_eq(goferfs_mount(fx.client, EXPORT_RW, true, "test", &sb), 0);
    cr_assert_eq(mount_ns_new(sb, &ns), 0);
    c = (struct vfs_caller){.cred = cred, .ns = ns, .umask = 022, .fsize_limit = UINT64_MAX};
    mount_ns_root(ns, &c.root);
    mount_ns_root(ns, &c.cwd);
}

static void down(void)
{
    vpath_put(&c.cwd);
    vpath_put(&c.root);
    mount_ns_put(ns);
    cred_put(cred);
    gof_flush(fx.client);
    cr_assert_eq(gof_server_handles(fx.server), 2, "what stays is the fixture's");
    fixture_down();
}

TestSuite(goferfs_vfs, .init = up, .fini = down);

static struct file *opened(const char *path, uint32_t flags)
{
    struct file *f = NULL;
    int r = vfs_open(&c, NULL, path, flags, 0666, 0, &f);

    cr_assert_eq(r, 0, "%s: %d", path, r);
    return f;
}

static int64_t put_text(struct file *f, const char *text)
{
    struct uio u;

    uio_init_kernel(&u, (void *)(uintptr_t)text, strlen(text));
    return vfs_write(f, &u, -1, 0, &c);
}

static void expect_text(const char *path, const char *text)
{
    char buf[128];
    struct uio u;
    struct file *f = opened(path, O_RDONLY);

    uio_init_kernel(&u, buf, sizeof(buf));
    cr_assert_eq(vfs_read(f, &u, -1, 0, &c), (int64_t)strlen(text));
    cr_assert_eq(memcmp(buf, text, strlen(text)), 0);
    file_put(f);
}

static uint64_t requests(void)
{
    return gof_client_requests(fx.client);
}

static void make_tree(void)
{
    cr_assert_eq(mkdir(fx_path("rw/usr"), 0755), 0);
    cr_assert_eq(mkdir(fx_path("rw/usr/lib"), 0755), 0);
    cr_assert_eq(mkdir(fx_path("rw/usr/lib/deep"), 0755), 0);
    cr_assert_eq(symlink("usr/lib", fx_path("rw/lib")), 0);
    fx_write("rw/usr/lib/deep/f", "deep");
}

Test(goferfs_vfs, open_of_an_unknown_path_is_two_requests)
{
    make_tree();
    uint64_t before = requests();
    file_put(opened("/usr/lib/deep/f", O_RDONLY));
    cr_assert_eq(requests(), before + 2, "%d", (int)(requests() - before));
    file_put(opened("/usr/lib/deep/f", O_RDONLY));
    struct vpath p;
    struct vfs_attr a;
    cr_assert_eq(vfs_lookup(&c, NULL, "/usr/lib/deep/f", 0, &p), 0);
    cr_assert_eq(vfs_getattr(&p, &a), 0);
    vpath_put(&p);
    cr_assert_eq(a.size, 4);
    cr_assert_eq(requests(), before + 2, "all known");
}

Test(goferfs_vfs, links_are_walked_by_the_sentry)
{
    make_tree();
    expect_text("/lib/deep/f", "deep");
    uint64_t before = requests();
    expect_text("/lib/deep/f", "deep");
    cr_assert_eq(requests(), before);
    /* Out of the export is the guest's own root. */
    struct file *f;
    cr_assert_eq(symlink("/../../../../etc/passwd", fx_path("rw/out")), 0);
    cr_assert_eq(vfs_open(&c, NULL, "/out", O_RDONLY, 0, 0, &f), -ENOENT);
    cr_assert_eq(symlink("../secret", fx_path("rw/up")), 0);
    cr_assert_eq(vfs_open(&c, NULL, "/up", O_RDONLY, 0, 0, &f), -ENOENT);
}

Test(goferfs_vfs, create_write_rename_unlink)
{
    struct file *f = opened("/new", O_RDWR | O_CREAT | O_EXCL);
    struct stat st;

    cr_assert_eq(put_text(f, "one"), 3);
    cr_assert_eq(vfs_mkdir(&c, NULL, "/dir", 0777), 0);
    cr_assert_eq(vfs_rename(&c, NULL, "/new", NULL, "/dir/old", 0), 0);
    cr_assert_eq(put_text(f, "two"), 3);
    expect_text("/dir/old", "onetwo");
    cr_assert_eq(stat(fx_path("rw/dir/old"), &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 0644);
    cr_assert_eq(vfs_rmdir(&c, NULL, "/dir"), -ENOTEMPTY);
    cr_assert_eq(vfs_unlink(&c, NULL, "/dir/old"), 0);
    cr_assert_eq(put_text(f, "three"), 5, "unlinked, still there");
    struct vfs_attr a;
    cr_assert_eq(vfs_file_getattr(f, &a), 0);
    cr_assert_eq(a.size, 11);
    cr_assert_eq(a.nlink, 0);
    file_put(f);
    cr_assert_eq(vfs_rmdir(&c, NULL, "/dir"), 0);
    cr_assert_eq(stat(fx_path("rw/dir"), &st), -1);
    struct vpath p;
    cr_assert_eq(vfs_lookup(&c, NULL, "/dir", 0, &p), -ENOENT);
}

Test(goferfs_vfs, absent_names_are_remembered)
{
    struct vpath p;

    cr_assert_eq(vfs_lookup(&c, NULL, "/no", 0, &p), -ENOENT);
    uint64_t before = requests();
    cr_assert_eq(vfs_lookup(&c, NULL, "/no", 0, &p), -ENOENT);
    cr_assert_eq(requests(), before);
    file_put(opened("/no", O_WRONLY | O_CREAT));
    cr_assert_eq(vfs_lookup(&c, NULL, "/no", 0, &p), 0);
    vpath_put(&p);
}

Test(goferfs_vfs, truncation_by_open)
{
    fx_write("rw/f", "a long text");
    struct file *f = opened("/f", O_WRONLY | O_TRUNC);
    struct stat st;

    cr_assert_eq(put_text(f, "x"), 1);
    file_put(f);
    cr_assert_eq(stat(fx_path("rw/f"), &st), 0);
    cr_assert_eq(st.st_size, 1);
}

/* The size of the file at path, or a negative errno. */
static int64_t size_of(const char *path)
{
    struct vfs_attr a;
    struct vpath p;
    int r = vfs_lookup(&c, NULL, path, VFS_GETATTR, &p);

    if (r == 0) {
        r = vfs_getattr(&p, &a);
        vpath_put(&p);
    }
    vfs_walk_end();
    return r ? r : (int64_t)a.size;
}

static int count_entry(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype,
                       uint64_t next_off)
{
    (void)name, (void)len, (void)ino, (void)dtype, (void)next_off;
    ++*(int *)arg;
    return 0;
}

Test(goferfs_vfs, removing_while_listing)
{
    int seen = 0;
    char path[16];

    cr_assert_eq(vfs_mkdir(&c, NULL, "/d", 0755), 0);
    for (int i = 0; i < 100; i++) {
        snprintf(path, sizeof(path), "/d/%d", i);
        file_put(opened(path, O_WRONLY | O_CREAT));
    }
    struct file *d = opened("/d", O_RDONLY | O_DIRECTORY);
    cr_assert_eq(vfs_readdir(d, count_entry, &seen), 0);
    cr_assert_eq(seen, 102);
    for (int i = 0; i < 100; i++) {
        snprintf(path, sizeof(path), "/d/%d", i);
        cr_assert_eq(vfs_unlink(&c, NULL, path), 0);
    }
    cr_assert_eq(vfs_seek(d, 0, SEEK_SET), 0);
    seen = 0;
    cr_assert_eq(vfs_readdir(d, count_entry, &seen), 0);
    cr_assert_eq(seen, 2);
    cr_assert_eq(vfs_rmdir(&c, NULL, "/d"), 0);
    file_put(d);
}

#define LISTED 100

struct names {
    int count;
    char path[LISTED][16];
};

static int note_entry(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype,
                      uint64_t next_off)
{
    struct names *n = arg;

    (void)ino, (void)dtype, (void)next_off;
    if (name[0] != '.')
        snprintf(n->path[n->count++], sizeof(n->path[0]), "/d/%.*s", (int)len, name);
    return 0;
}

/* Files of one byte, each with a name in /e as well when it is odd; the names in /d as they are
 * listed. */
static void list_files(struct names *n)
{
    char path[32], other[32];

    n->count = 0;
    cr_assert_eq(mkdir(fx_path("rw/d"), 0755), 0);
    cr_assert_eq(mkdir(fx_path("rw/e"), 0755), 0);
    for (int i = 0; i < LISTED; i++) {
        snprintf(path, sizeof(path), "rw/d/%d", i);
        fx_write(path, "1");
        snprintf(other, sizeof(other), "rw/e/%d", i);
        char *from = strdup(fx_path(path));
        if (i % 2)
            cr_assert_eq(link(from, fx_path(other)), 0);
        free(from);
    }
    struct file *d = opened("/d", O_RDONLY | O_DIRECTORY);
    cr_assert_eq(vfs_readdir(d, note_entry, n), 0);
    cr_assert_eq(n->count, LISTED);
    file_put(d);
}

static bool is_odd(const char *path)
{
    return strchr("13579", path[strlen(path) - 1]) != NULL;
}

Test(goferfs_vfs, names_in_the_order_of_the_listing)
{
    static struct names n;

    list_files(&n);
    for (int round = 0; round < 2; round++) {
        uint64_t before = requests();
        for (int i = 0; i < LISTED; i++)
            if (round == 0 || !is_odd(n.path[i]))
                cr_assert_eq(size_of(n.path[i]), 1);
        /* Those with two names are asked for one by one. */
        cr_assert_lt(requests() - before, round == 0 ? LISTED / 2 + 12 : 12);
        vfs_shrink_cache(LISTED + 10);
        struct file *d = opened("/d", O_RDONLY | O_DIRECTORY);
        struct names again = {0};
        cr_assert_eq(vfs_readdir(d, note_entry, &again), 0);
        file_put(d);
    }
}

Test(goferfs_vfs, what_was_found_along_is_not_old)
{
    static struct names n;
    char other[16];

    list_files(&n);
    for (int i = 0; i < LISTED / 2; i++)
        cr_assert_eq(size_of(n.path[i]), 1);
    for (int i = LISTED / 2; i < LISTED; i++) {
        struct file *f;
        snprintf(other, sizeof(other), "/e/%s", n.path[i] + 3);
        if (vfs_open(&c, NULL, other, O_WRONLY, 0, 0, &f) != 0)
            continue;
        cr_assert_eq(put_text(f, "22"), 2);
        file_put(f);
    }
    vfs_shrink_cache(2 * LISTED);
    for (int i = LISTED / 2; i < LISTED; i++)
        cr_assert_eq(size_of(n.path[i]), is_odd(n.path[i]) ? 2 : 1, "%s", n.path[i]);
}

Test(goferfs_vfs, what_was_found_along_may_go)
{
    static struct names n;

    list_files(&n);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(size_of(n.path[i]), 1);
    for (int i = 10; i < LISTED; i++) {
        cr_assert_eq(vfs_unlink(&c, NULL, n.path[i]), 0);
        cr_assert_eq(size_of(n.path[i]), -ENOENT);
        if (i + 1 < LISTED)
            cr_assert_eq(size_of(n.path[i + 1]), 1);
    }
}

static void mount_shared(void)
{
    struct super *sb;
    struct vpath p;

    cr_assert_eq(vfs_mkdir(&c, NULL, "/mnt", 0755), 0);
    cr_assert_eq(goferfs_mount(fx.client, EXPORT_RO, false, "ro", &sb), 0);
    cr_assert_eq(vfs_lookup(&c, NULL, "/mnt", 0, &p), 0);
    cr_assert_eq(vfs_mount(ns, &p, sb, 0), 0);
    vpath_put(&p);
}

Test(goferfs_vfs, shared_path_is_walked_in_one_request)
{
    mount_shared();
    cr_assert_eq(mkdir(fx_path("ro/a"), 0755), 0);
    cr_assert_eq(mkdir(fx_path("ro/a/b"), 0755), 0);
    cr_assert_eq(mkdir(fx_path("ro/a/other"), 0755), 0);
    fx_write("ro/a/b/f", "1");
    fx_write("ro/a/other/f", "other");
    for (int i = 0; i < 3; i++) {
        uint64_t before = requests();
        cr_assert_eq(size_of("/mnt/a/b/f"), 1);
        cr_assert_eq(requests(), before + 1, "the walk, which brings the attributes");
        before = requests();
        cr_assert_eq(size_of("/mnt/."), size_of("/mnt/a/.."));
        cr_assert_eq(requests(), before + 3, "they were not walked to");
    }
    /* Each walk sees what the host has by then, wherever the one before has ended. */
    cr_assert_eq(size_of("/mnt/a/b/f/x"), -ENOTDIR);
    cr_assert_eq(size_of("/mnt/a/b/none/x"), -ENOENT);
    cr_assert_eq(
        renameat2(AT_FDCWD, fx_path("ro/a/b"), AT_FDCWD, fx_path("ro/a/other"), RENAME_EXCHANGE),
        0);
    cr_assert_eq(size_of("/mnt/a/b/f"), 5);
    cr_assert_eq(mkdir(fx_path("ro/a/b/none"), 0755), 0);
    cr_assert_eq(size_of("/mnt/a/b/none/x"), -ENOENT);
    fx_write("ro/a/b/none/x", "22");
    cr_assert_eq(size_of("/mnt/a/b/none/x"), 2);
    cr_assert_eq(unlink(fx_path("ro/a/b/f")), 0);
    cr_assert_eq(size_of("/mnt/a/b/f"), -ENOENT);
}

Test(goferfs_vfs, attributes_of_a_walk_end_with_it)
{
    struct vfs_attr a;
    struct vpath p;

    mount_shared();
    fx_write("ro/f", "1");
    cr_assert_eq(vfs_lookup(&c, NULL, "/mnt/f", VFS_GETATTR, &p), 0);
    cr_assert_eq(vfs_getattr(&p, &a), 0);
    vfs_walk_end();
    cr_assert_eq(a.size, 1);
    fx_write("ro/f", "22");
    cr_assert_eq(vfs_getattr(&p, &a), 0);
    cr_assert_eq(a.size, 2);
    vpath_put(&p);
    cr_assert_eq(vfs_lookup(&c, NULL, "/mnt/f", 0, &p), 0);
    fx_write("ro/f", "333");
    cr_assert_eq(vfs_getattr(&p, &a), 0);
    cr_assert_eq(a.size, 3);
    vpath_put(&p);
}

Test(goferfs_vfs, what_a_walk_left_over_is_not_used)
{
    struct vpath dir, p;

    mount_shared();
    cr_assert_eq(mkdir(fx_path("ro/d"), 0755), 0);
    fx_write("ro/d/f", "1");
    cr_assert_eq(vfs_lookup(&c, NULL, "/mnt/d", 0, &dir), 0);
    /* It has looked at f, too, and is not let in. */
    cr_assert_eq(vfs_lookup(&c, NULL, "/mnt/d/f/", 0, &p), -ENOTDIR);
    cr_assert_eq(vfs_lookup(&c, NULL, "/mnt/d/none/../f", 0, &p), -ENOENT);
    cr_assert_eq(unlink(fx_path("ro/d/f")), 0);
    cr_assert_eq(vfs_lookup(&c, &dir, "f", 0, &p), -ENOENT);
    fx_write("ro/d/none", "2");
    cr_assert_eq(vfs_lookup(&c, &dir, "none", 0, &p), 0);
    vpath_put(&p);
    vpath_put(&dir);
}

Test(goferfs_vfs, shared_and_readonly_mounts)
{
    struct file *f;

    mount_shared();
    expect_text("/mnt/file", "read only");
    cr_assert_eq(vfs_open(&c, NULL, "/mnt/file", O_RDWR, 0, 0, &f), -EROFS);
    cr_assert_eq(vfs_open(&c, NULL, "/mnt/x", O_RDWR | O_CREAT, 0600, 0, &f), -EROFS);
    cr_assert_eq(vfs_unlink(&c, NULL, "/mnt/file"), -EROFS);
    fx_write("ro/file", "changed by the host");
    expect_text("/mnt/file", "changed by the host");
    fx_write("ro/later", "new");
    expect_text("/mnt/later", "new");
    cr_assert_eq(unlink(fx_path("ro/later")), 0);
    cr_assert_eq(vfs_open(&c, NULL, "/mnt/later", O_RDONLY, 0, 0, &f), -ENOENT);
}
