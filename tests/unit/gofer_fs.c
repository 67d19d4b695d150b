/* goferfs over a server in the test: attributes and names kept or asked for, bytes through host
 * descriptors, and how many requests things cost. */
#include <errno.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/mount.h>

#include "gofer_fixture.h"

#include "gofer_fakes.h"
#include "platform/platform.h"
#include "sentry/fs/goferfs/goferfs.h"

static struct super *sb;
static struct cred *cred;
static struct vfs_caller caller;

static void mount_rw(bool exclusive)
{
    fixture_up();
    cr_assert_eq(cred_new_root(~0ull, &cred), 0);
    caller = (struct vfs_caller){.cred = cred, .fsize_limit = UINT64_MAX};
    cr_assert_eq(goferfs_mount(fx.client, EXPORT_RW, exclusive, "test", &sb), 0);
}

static void up_exclusive(void)
{
    mount_rw(true);
}

static void up_shared(void)
{
    mount_rw(false);
}

static void down(void)
{
    fake_unmount(sb);
    cred_put(cred);
    gof_flush(fx.client);
    cr_assert_eq(gof_server_handles(fx.server), 2, "what stays is the fixture's");
    fixture_down();
}

TestSuite(goferfs, .init = up_exclusive, .fini = down);
TestSuite(goferfs_shared, .init = up_shared, .fini = down);

static struct inode *root(void)
{
    return sb->root->inode;
}

static int look(struct inode *dir, const char *name, struct inode **out)
{
    mutex_lock(&dir->dir_mu);
    int r = dir->ops->lookup(dir, name, out);
    mutex_unlock(&dir->dir_mu);
    return r;
}

static struct inode *must_look(struct inode *dir, const char *name)
{
    struct inode *i = NULL;

    cr_assert_eq(look(dir, name, &i), 0, "%s", name);
    return i;
}

static struct inode *make(struct inode *dir, const char *name, uint32_t mode)
{
    struct inode *i = NULL;

    mutex_lock(&dir->dir_mu);
    cr_assert_eq(dir->ops->create(dir, name, mode, 0, &caller, &i), 0, "%s", name);
    mutex_unlock(&dir->dir_mu);
    return i;
}

static struct vfs_attr attr(struct inode *i)
{
    struct vfs_attr a;

    cr_assert_eq(i->ops->getattr(i, &a), 0);
    return a;
}

/* An open file without vfs around it. */
static void open_file(struct inode *i, uint32_t flags, struct file *f)
{
    memset(f, 0, sizeof(*f));
    f->inode = inode_get(i);
    atomic_store(&f->flags, flags);
    cr_assert_eq(i->ops->open(i, f, &caller), 0);
}

static void close_file(struct file *f)
{
    f->ops->release(f);
    inode_put(f->inode);
}

static int64_t put(struct file *f, const char *text, int64_t pos)
{
    struct uio u;

    uio_init_kernel(&u, (void *)(uintptr_t)text, strlen(text));
    u.append = (f->flags & O_APPEND) != 0;
    return f->ops->write(f, &u, &pos, &caller);
}

static int64_t fetch(struct file *f, char *buf, size_t size, int64_t pos)
{
    struct uio u;

    uio_init_kernel(&u, buf, size);
    return f->ops->read(f, &u, &pos, &caller);
}

Test(goferfs, bytes_and_size)
{
    struct inode *i = make(root(), "f", S_IFREG | 0644);
    struct file f;
    char buf[32];

    uint64_t before = gof_client_requests(fx.client);
    open_file(i, O_RDWR, &f);
    cr_assert_eq(put(&f, "hello world", 0), 11);
    cr_assert_eq(attr(i).size, 11);
    cr_assert_eq(i->size, 11);
    cr_assert_eq(fetch(&f, buf, sizeof(buf), 6), 5);
    cr_assert_eq(memcmp(buf, "world", 5), 0);
    cr_assert_eq(fetch(&f, buf, sizeof(buf), 11), 0);
    cr_assert_eq(gof_client_requests(fx.client), before, "what was created is open");
    struct vfs_setattr s = {.valid = VFS_SET_SIZE, .size = 5};
    cr_assert_eq(i->ops->setattr(i, &s), 0);
    cr_assert_eq(i->size, 5);
    cr_assert_eq(fake_invalidated, PAGE_SIZE, "the page with the end stays");
    cr_assert_eq(fetch(&f, buf, sizeof(buf), 0), 5);
    close_file(&f);
    inode_put(i);
}

Test(goferfs, writes_keep_what_vfs_left_of_the_mode)
{
    struct inode *i = make(root(), "f", S_IFREG | 04755);
    struct file f;
    struct stat st;

    open_file(i, O_RDWR, &f);
    cr_assert_eq(put(&f, "x", 0), 1);
    cr_assert_eq(i->mode, S_IFREG | 04755);
    struct vfs_setattr s = {.valid = VFS_SET_SIZE, .size = 0};
    cr_assert_eq(i->ops->setattr(i, &s), 0);
    cr_assert_eq(attr(i).mode, S_IFREG | 04755);
    cr_assert_eq(stat(fx_path("rw/f"), &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 04755);
    close_file(&f);
    inode_put(i);
}

Test(goferfs, append_writes_at_the_end)
{
    struct inode *i = make(root(), "f", S_IFREG | 0644);
    struct file a, b;
    char buf[32];

    open_file(i, O_WRONLY | O_APPEND, &a);
    open_file(i, O_RDWR, &b);
    cr_assert_eq(put(&b, "0123", 0), 4);
    cr_assert_eq(put(&a, "4567", 0), 4);
    cr_assert_eq(fetch(&b, buf, sizeof(buf), 0), 8);
    cr_assert_eq(memcmp(buf, "01234567", 8), 0);
    close_file(&a);
    close_file(&b);
    inode_put(i);
}

Test(goferfs, what_is_known_costs_nothing)
{
    struct file f;

    fx_write("rw/f", "text");
    uint64_t before = gof_client_requests(fx.client);
    struct inode *i = must_look(root(), "f");
    cr_assert_eq(gof_client_requests(fx.client), before + 1);
    open_file(i, O_RDONLY, &f);
    cr_assert_eq(gof_client_requests(fx.client), before + 2, "a file not cached: look-up and open");
    close_file(&f);
    cr_assert_eq(attr(i).size, 4);
    open_file(i, O_RDONLY, &f);
    close_file(&f);
    cr_assert_eq(gof_client_requests(fx.client), before + 2);
    inode_put(i);
}

Test(goferfs, a_path_is_one_request)
{
    struct inode *i = root();
    static const char *const names[] = {"a", "b", "c", "d"};

    cr_assert_eq(mkdir(fx_path("rw/a"), 0755), 0);
    cr_assert_eq(mkdir(fx_path("rw/a/b"), 0755), 0);
    cr_assert_eq(mkdir(fx_path("rw/a/b/c"), 0755), 0);
    fx_write("rw/a/b/c/d", "deep");
    uint64_t before = gof_client_requests(fx.client);
    i->ops->prefetch(i, "a//b/c/d");
    inode_get(i);
    for (int k = 0; k < 4; k++) {
        struct inode *next = must_look(i, names[k]);
        inode_put(i);
        i = next;
    }
    cr_assert_eq(gof_client_requests(fx.client), before + 1);
    cr_assert_eq(attr(i).size, 4);
    inode_put(i);
}

Test(goferfs, what_does_not_exist_is_found_out_ahead)
{
    struct inode *i;

    cr_assert_eq(mkdir(fx_path("rw/a"), 0755), 0);
    uint64_t before = gof_client_requests(fx.client);
    root()->ops->prefetch(root(), "a/absent/x");
    struct inode *a = must_look(root(), "a");
    cr_assert_eq(look(a, "absent", &i), -ENOENT);
    cr_assert_eq(gof_client_requests(fx.client), before + 1);
    /* Once: vfs remembers it. */
    cr_assert_eq(look(a, "absent", &i), -ENOENT);
    cr_assert_eq(gof_client_requests(fx.client), before + 2);
    inode_put(a);
}

Test(goferfs, links_are_read_once)
{
    char buf[VFS_PATH_MAX];

    cr_assert_eq(symlink("some/where", fx_path("rw/l")), 0);
    struct inode *l = must_look(root(), "l");
    cr_assert_eq(l->ops->readlink(l, &caller, buf, sizeof(buf)), 10);
    uint64_t before = gof_client_requests(fx.client);
    cr_assert_eq(l->ops->readlink(l, &caller, buf, sizeof(buf)), 10);
    cr_assert_str_eq(buf, "some/where");
    cr_assert_eq(gof_client_requests(fx.client), before);
    inode_put(l);
}

Test(goferfs, walked_ahead_is_forgotten_after_a_change)
{
    struct inode *i;

    cr_assert_eq(mkdir(fx_path("rw/a"), 0755), 0);
    fx_write("rw/a/f", "x");
    root()->ops->prefetch(root(), "a/f");
    struct inode *a = must_look(root(), "a"), *f = must_look(a, "f");
    root()->ops->prefetch(root(), "a/f");
    mutex_lock(&a->dir_mu);
    cr_assert_eq(a->ops->unlink(a, "f", f), 0);
    mutex_unlock(&a->dir_mu);
    cr_assert_eq(f->nlink, 0);
    cr_assert_eq(look(a, "f", &i), -ENOENT);
    inode_put(f);
    inode_put(a);
}

Test(goferfs, one_inode_per_file)
{
    fx_write("rw/a", "x");
    cr_assert_eq(link(fx_path("rw/a"), fx_path("rw/b")), 0);
    struct inode *a = must_look(root(), "a"), *b = must_look(root(), "b");
    cr_assert_eq(a, b);
    cr_assert_eq(a->nlink, 2);
    mutex_lock(&root()->dir_mu);
    cr_assert_eq(root()->ops->link(root(), "c", a), 0);
    cr_assert_eq(a->nlink, 3);
    cr_assert_eq(root()->ops->unlink(root(), "a", a), 0);
    mutex_unlock(&root()->dir_mu);
    cr_assert_eq(a->nlink, 2);
    inode_put(a);
    inode_put(b);
}

Test(goferfs, unlinked_and_still_open)
{
    struct inode *i = make(root(), "f", S_IFREG | 0600);
    struct file f, g;
    char buf[8];

    open_file(i, O_RDWR, &f);
    mutex_lock(&root()->dir_mu);
    cr_assert_eq(root()->ops->unlink(root(), "f", i), 0);
    mutex_unlock(&root()->dir_mu);
    cr_assert_eq(put(&f, "still", 0), 5);
    cr_assert_eq(attr(i).nlink, 0);
    /* Through /proc/<pid>/fd. */
    open_file(i, O_RDONLY, &g);
    cr_assert_eq(fetch(&g, buf, sizeof(buf), 0), 5);
    struct vfs_setattr s = {.valid = VFS_SET_MODE, .mode = 0400};
    cr_assert_eq(i->ops->setattr(i, &s), 0);
    cr_assert_eq(i->mode, S_IFREG | 0400);
    close_file(&g);
    close_file(&f);
    inode_put(i);
}

struct names {
    int count;
    char text[64][32];
};

static int collect(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype,
                   uint64_t next_off)
{
    struct names *n = arg;

    (void)len, (void)ino, (void)dtype;
    cr_assert_eq(next_off, (uint64_t)n->count + 1);
    cr_assert_lt(n->count, 64);
    snprintf(n->text[n->count++], 32, "%s", name);
    return 0;
}

static int listed(struct file *f, struct names *out)
{
    int64_t pos = 0;

    memset(out, 0, sizeof(*out));
    cr_assert_eq(f->ops->readdir(f, &pos, collect, out), 0);
    cr_assert_eq(pos, out->count);
    return out->count;
}

Test(goferfs, listing_is_kept_until_something_changes)
{
    static struct names n;
    struct file f, g;

    fx_write("rw/one", "");
    fx_write("rw/two", "");
    open_file(root(), O_RDONLY | O_DIRECTORY, &f);
    cr_assert_eq(listed(&f, &n), 4);
    cr_assert_str_eq(n.text[0], ".");
    cr_assert_str_eq(n.text[1], "..");
    uint64_t before = gof_client_requests(fx.client);
    open_file(root(), O_RDONLY | O_DIRECTORY, &g);
    cr_assert_eq(listed(&g, &n), 4);
    cr_assert_eq(gof_client_requests(fx.client), before);
    inode_put(make(root(), "three", S_IFREG | 0600));
    cr_assert_eq(listed(&g, &n), 5);
    close_file(&g);
    close_file(&f);
}

Test(goferfs, directories_count_their_links)
{
    struct inode *d = make(root(), "d", S_IFDIR | 0755), *e;
    uint32_t before = root()->nlink;

    cr_assert_eq(d->nlink, 2);
    e = make(d, "e", S_IFDIR | 0755);
    cr_assert_eq(d->nlink, 3);
    mutex_lock_pair(&d->dir_mu, &root()->dir_mu);
    cr_assert_eq(root()->ops->rename(d, "e", root(), "e", e, NULL, 0), 0);
    mutex_unlock_pair(&d->dir_mu, &root()->dir_mu);
    cr_assert_eq(d->nlink, 2);
    cr_assert_eq(root()->nlink, before + 1);
    mutex_lock(&root()->dir_mu);
    cr_assert_eq(root()->ops->rmdir(root(), "e", e), 0);
    cr_assert_eq(e->nlink, 0);
    mutex_unlock(&root()->dir_mu);
    inode_put(e);
    inode_put(d);
}

Test(goferfs, owner_is_the_callers)
{
    cred->fsuid = 1001;
    cred->fsgid = 1002;
    struct inode *i = make(root(), "f", S_IFREG | 0600), *l = NULL;
    cr_assert_eq(i->uid, 1001);
    cr_assert_eq(i->gid, 1002);
    char buf[VFS_PATH_MAX];
    mutex_lock(&root()->dir_mu);
    cr_assert_eq(root()->ops->symlink(root(), "l", "a/b", &caller, &l), 0);
    mutex_unlock(&root()->dir_mu);
    cr_assert_eq(l->uid, 1001);
    cr_assert_eq(l->ops->readlink(l, &caller, buf, sizeof(buf)), 3);
    cr_assert_str_eq(buf, "a/b");
    inode_put(l);
    inode_put(i);
}

Test(goferfs, mapping_is_the_host_file)
{
    struct inode *i = make(root(), "f", S_IFREG | 0600);
    struct mappable_range r;
    struct mappable *m;
    struct file f;

    open_file(i, O_RDWR, &f);
    cr_assert_eq(put(&f, "mapped", 0), 6);
    cr_assert_eq(f.ops->mmap(&f, PROT_READ | PROT_WRITE, MAP_SHARED, &m), 0);
    close_file(&f);
    cr_assert_eq(m->ops->translate(m, 0, 4 * PAGE_SIZE, PLAT_READ | PLAT_WRITE, &r), 0);
    cr_assert(!r.in_memfile);
    cr_assert_eq(r.size, PAGE_SIZE, "up to the end of the last page");
    char *p = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, r.fd, 0);
    cr_assert_neq(p, MAP_FAILED);
    cr_assert_eq(memcmp(p, "mapped", 6), 0);
    munmap(p, PAGE_SIZE);
    cr_assert_eq(m->ops->translate(m, PAGE_SIZE, PAGE_SIZE, PLAT_READ, &r), -ERANGE);
    m->ops->put(m);
    inode_put(i);
}

Test(goferfs, readonly_mapping_of_a_readonly_descriptor)
{
    struct mappable_range r;
    struct mappable *m;
    struct file f;

    fx_write("rw/f", "text");
    struct inode *i = must_look(root(), "f");
    open_file(i, O_RDONLY, &f);
    cr_assert_eq(f.ops->mmap(&f, PROT_READ, MAP_SHARED, &m), 0);
    cr_assert_eq(m->ops->translate(m, 0, PAGE_SIZE, PLAT_READ, &r), 0);
    cr_assert_eq(m->ops->translate(m, 0, PAGE_SIZE, PLAT_WRITE, &r), -EACCES);
    m->ops->put(m);
    close_file(&f);
    inode_put(i);
}

Test(goferfs, seeking)
{
    struct inode *i = make(root(), "f", S_IFREG | 0600);
    struct file f;

    open_file(i, O_RDWR, &f);
    cr_assert_eq(put(&f, "0123456789", 0), 10);
    cr_assert_eq(f.ops->seek(&f, -3, SEEK_END), 7);
    cr_assert_eq(f.pos, 7);
    cr_assert_eq(f.ops->seek(&f, 1, SEEK_CUR), 8);
    cr_assert_eq(f.ops->seek(&f, -9, SEEK_CUR), -EINVAL);
    cr_assert_eq(f.ops->seek(&f, INT64_MAX, SEEK_CUR), -EOVERFLOW);
    cr_assert_eq(f.ops->seek(&f, 0, SEEK_HOLE), 10);
    cr_assert_eq(f.ops->seek(&f, 10, SEEK_DATA), -ENXIO);
    cr_assert_eq(f.ops->seek(&f, 0, 99), -EINVAL);
    close_file(&f);
    inode_put(i);
}

Test(goferfs, many_files_keep_few_descriptors)
{
    char rel[16];
    struct file f;

    for (int k = 0; k < 700; k++) {
        snprintf(rel, sizeof(rel), "f%d", k);
        struct inode *i = make(root(), rel, S_IFREG | 0600);
        open_file(i, O_RDWR, &f);
        close_file(&f);
        inode_put(i);
    }
    gof_flush(fx.client);
    cr_assert_leq(gof_server_handles(fx.server), 8, "inodes gave their handles back");
}

Test(goferfs_shared, sees_what_the_host_does)
{
    struct inode *i, *j;

    cr_assert_eq(look(root(), "f", &i), -ENOENT);
    fx_write("rw/f", "1");
    i = must_look(root(), "f");
    cr_assert_eq(attr(i).size, 1);
    fx_write("rw/f", "22");
    cr_assert_eq(attr(i).size, 2);
    cr_assert_eq(chmod(fx_path("rw/f"), 0400), 0);
    cr_assert_eq(attr(i).mode, S_IFREG | 0400);
    struct dentry d = {.sb = sb, .inode = i, .parent = sb->root};
    cr_assert_eq(sb->ops->revalidate(&d, root(), "f"), 1);
    fx_write("rw/g", "other");
    cr_assert_eq(rename(fx_path("rw/g"), fx_path("rw/f")), 0);
    cr_assert_eq(sb->ops->revalidate(&d, root(), "f"), 0);
    j = must_look(root(), "f");
    cr_assert_neq(i, j);
    cr_assert_eq(unlink(fx_path("rw/f")), 0);
    d.inode = j;
    cr_assert_eq(sb->ops->revalidate(&d, root(), "f"), 0);
    inode_put(i);
    inode_put(j);
}

Test(goferfs_shared, appends_after_others)
{
    fx_write("rw/f", "host");
    struct inode *i = must_look(root(), "f");
    struct file f;
    char buf[32];

    open_file(i, O_RDWR | O_APPEND, &f);
    fx_write("rw/f", "longer host");
    cr_assert_eq(put(&f, "guest", 0), 5);
    cr_assert_eq(fetch(&f, buf, sizeof(buf), 0), 16);
    cr_assert_eq(memcmp(buf, "longer hostguest", 16), 0);
    close_file(&f);
    inode_put(i);
}

Test(goferfs, readonly_export)
{
    struct super *ro;
    struct inode *i = NULL;
    struct file f;

    cr_assert_eq(goferfs_mount(fx.client, EXPORT_RO, true, "ro", &ro), 0);
    cr_assert(ro->flags & MS_RDONLY);
    cr_assert_eq(look(ro->root->inode, "file", &i), 0);
    memset(&f, 0, sizeof(f));
    f.inode = i;
    atomic_store(&f.flags, O_RDWR);
    cr_assert_eq(i->ops->open(i, &f, &caller), -EROFS);
    open_file(i, O_RDONLY, &f);
    close_file(&f);
    inode_put(i);
    fake_unmount(ro);
}
