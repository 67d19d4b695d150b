/* Overlay file systems: mount(2) of type overlay, copy-up, whiteouts, opaque directories, renames.
 */
#include "harness.h"

#include <dirent.h>
#include <stdio.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

CONF_FAMILY("overlay");

/* A namespace of its own with a tmpfs on base/, holding lower, lower2, upper, work and merged. */
static void setup(void)
{
    static const char *const dirs[] = {"lower", "lower2", "upper", "work", "merged"};

    NEED_ROOT();
    if (unshare(CLONE_NEWNS) == 0)
        OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(mkdir("base", 0755));
    if (mount("tmpfs", "base", "tmpfs", 0, "mode=755") != 0) {
        if (errno == EPERM)
            conf_skip("may not mount");
        CHECK(!"mount tmpfs");
    }
    OK(chdir("base"));
    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
        OK(mkdir(dirs[i], 0755));
}

static int try_mount(const char *options)
{
    return mount("overlay", "merged", "overlay", 0, options);
}

static void mount_plain(void)
{
    OK(try_mount("lowerdir=lower,upperdir=upper,workdir=work"));
}

static void finish(void)
{
    OK(umount("merged"));
    OK(chdir(".."));
    OK(umount2("base", MNT_DETACH));
}

static void check_text(const char *path, const char *text)
{
    char buf[256];

    conf_get(path, buf, sizeof(buf));
    CHECK_STR(buf, text);
}

static bool is_whiteout(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == 0;
}

/* Names of a directory, sorted, joined by spaces. */
static void list_names(const char *path, char *buf, size_t size)
{
    struct dirent **names;
    int n = OK(scandir(path, &names, NULL, alphasort));

    buf[0] = '\0';
    for (int i = 0; i < n; i++) {
        if (names[i]->d_name[0] != '.') {
            if (buf[0] != '\0')
                strncat(buf, " ", size - strlen(buf) - 1);
            strncat(buf, names[i]->d_name, size - strlen(buf) - 1);
        }
        free(names[i]);
    }
    free(names);
}

static void check_names(const char *path, const char *expect)
{
    char buf[512];

    list_names(path, buf, sizeof(buf));
    CHECK_STR(buf, expect);
}

TEST(shows_both)
{
    setup();
    conf_put("lower/a", "lower a");
    conf_put("lower/b", "lower b");
    conf_put("upper/b", "upper b");
    conf_put("upper/c", "upper c");
    mount_plain();
    check_text("merged/a", "lower a");
    check_text("merged/b", "upper b");
    check_text("merged/c", "upper c");
    check_names("merged", "a b c");
    CHECK_ERRNO(open("merged/d", O_RDONLY), ENOENT);
    finish();
}

TEST(writing_copies_up)
{
    setup();
    conf_put("lower/a", "0123456789");
    mount_plain();
    int rd = OK(open("merged/a", O_RDONLY));
    int fd = OK(open("merged/a", O_WRONLY));
    CHECK_EQ(pwrite(fd, "XY", 2, 3), 2);
    check_text("merged/a", "012XY56789");
    check_text("upper/a", "012XY56789");
    check_text("lower/a", "0123456789");
    char c[11] = "";
    CHECK_EQ(pread(rd, c, 10, 0), 10);
    CHECK_STR(c, "012XY56789");
    close(fd);
    close(rd);
    finish();
}

TEST(truncating_open)
{
    setup();
    conf_put("lower/a", "long text");
    mount_plain();
    conf_put("merged/a", "new");
    check_text("merged/a", "new");
    check_text("upper/a", "new");
    check_text("lower/a", "long text");
    finish();
}

TEST(append_after_copy_up)
{
    setup();
    conf_put("lower/a", "abc");
    mount_plain();
    int fd = OK(open("merged/a", O_WRONLY | O_APPEND));
    CHECK_EQ(write(fd, "def", 3), 3);
    close(fd);
    check_text("merged/a", "abcdef");
    finish();
}

static time_t atime_after_read(const char *path, int flags)
{
    struct stat st;
    char c;
    int fd = OK(open(path, O_RDONLY | flags));

    CHECK_EQ(read(fd, &c, 1), 1);
    OK(close(fd));
    OK(stat(path, &st));
    return st.st_atime;
}

/* Kept in the upper layer; reading what the lower one has leaves no trace. */
TEST(access_times)
{
    const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 2000}};
    struct stat st;

    setup();
    conf_put("lower/a", "a");
    conf_put("upper/b", "b");
    OK(utimensat(AT_FDCWD, "lower/a", old, 0));
    OK(utimensat(AT_FDCWD, "upper/b", old, 0));
    mount_plain();
    CHECK_EQ(atime_after_read("merged/a", 0), 1000);
    CHECK_EQ(atime_after_read("merged/b", O_NOATIME), 1000);
    CHECK(atime_after_read("merged/b", 0) > 2000);
    OK(stat("upper/b", &st));
    CHECK(st.st_atime > 2000);
    OK(chmod("merged/a", 0600));
    CHECK(atime_after_read("merged/a", 0) > 2000);
    OK(stat("lower/a", &st));
    CHECK_EQ(st.st_atime, 1000);
    finish();
}

TEST(metadata_copied_up)
{
    struct stat before, st;
    char value[16] = "";
    const struct timespec times[2] = {{1000, 123456789}, {2000, 987654321}};

    setup();
    OK(mkdir("lower/d", 0750));
    conf_put("lower/d/f", "text");
    OK(chown("lower/d/f", 1234, 5678));
    OK(chmod("lower/d/f", 04711));
    OK(setxattr("lower/d/f", "trusted.hello", "world", 5, 0));
    OK(utimensat(AT_FDCWD, "lower/d/f", times, 0));
    OK(utimensat(AT_FDCWD, "lower/d", times, 0));
    OK(chown("lower/d", 7, 8));
    mount_plain();
    OK(stat("merged/d/f", &before));
    OK(chown("merged/d/f", 4321, (gid_t)-1));
    OK(stat("merged/d/f", &st));
    CHECK_EQ(st.st_uid, 4321);
    CHECK_EQ(st.st_gid, 5678);
    CHECK_EQ(st.st_mtim.tv_sec, 2000);
    CHECK_EQ(st.st_mtim.tv_nsec, 987654321);
    CHECK_EQ(st.st_ino, before.st_ino);
    CHECK_EQ(st.st_dev, before.st_dev);
    CHECK_EQ(getxattr("merged/d/f", "trusted.hello", value, sizeof(value)), 5);
    CHECK_STR(value, "world");
    OK(stat("upper/d", &st));
    CHECK_EQ(st.st_uid, 7);
    CHECK_EQ(st.st_gid, 8);
    CHECK_EQ(st.st_mode & 07777, 0750);
    check_text("upper/d/f", "text");
    finish();
}

TEST(numbers_stay)
{
    struct stat a, b, dir;

    setup();
    conf_put("lower/a", "x");
    OK(mkdir("lower/d", 0755));
    mount_plain();
    OK(stat("merged/a", &a));
    OK(stat("merged", &dir));
    CHECK_EQ(a.st_dev, dir.st_dev);
    OK(chmod("merged/a", 0600));
    OK(stat("merged/a", &b));
    CHECK_EQ(a.st_ino, b.st_ino);
    OK(rename("merged/a", "merged/d/b"));
    OK(stat("merged/d/b", &b));
    CHECK_EQ(a.st_ino, b.st_ino);
    CHECK_EQ(a.st_dev, b.st_dev);
    /* As a listing says. */
    DIR *d = opendir("merged/d");
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, "b") == 0)
            CHECK_EQ(e->d_ino, a.st_ino);
    closedir(d);
    /* And after all has left the memory. */
    OK(umount("merged"));
    mount_plain();
    OK(stat("merged/d/b", &b));
    CHECK_EQ(a.st_ino, b.st_ino);
    finish();
}

TEST(unlink_makes_whiteout)
{
    setup();
    conf_put("lower/a", "x");
    conf_put("upper/b", "y");
    mount_plain();
    OK(unlink("merged/a"));
    CHECK(!conf_exists("merged/a"));
    CHECK(is_whiteout("upper/a"));
    check_names("merged", "b");
    OK(unlink("merged/b"));
    CHECK(!conf_exists("upper/b"));
    check_names("merged", "");
    CHECK_ERRNO(unlink("merged/a"), ENOENT);
    conf_put("merged/a", "again");
    check_text("upper/a", "again");
    check_text("lower/a", "x");
    OK(unlink("merged/a"));
    CHECK(is_whiteout("upper/a"));
    finish();
}

TEST(rmdir_and_mkdir)
{
    char v[4] = "";

    setup();
    OK(mkdir("lower/d", 0755));
    conf_put("lower/d/f", "x");
    OK(mkdir("lower/d/sub", 0755));
    mount_plain();
    CHECK_ERRNO(rmdir("merged/d"), ENOTEMPTY);
    OK(unlink("merged/d/f"));
    CHECK_ERRNO(rmdir("merged/d"), ENOTEMPTY);
    OK(rmdir("merged/d/sub"));
    check_names("merged/d", "");
    OK(rmdir("merged/d"));
    CHECK(is_whiteout("upper/d"));
    CHECK(!conf_exists("merged/d"));
    OK(mkdir("merged/d", 0700));
    check_names("merged/d", "");
    CHECK_EQ(getxattr("upper/d", "trusted.overlay.opaque", v, sizeof(v)), 1);
    CHECK_EQ(v[0], 'y');
    OK(rmdir("merged/d"));
    CHECK(is_whiteout("upper/d"));
    finish();
}

TEST(marks_are_read)
{
    setup();
    OK(mkdir("lower/d", 0755));
    conf_put("lower/d/hidden", "x");
    conf_put("lower/gone", "x");
    OK(mkdir("upper/d", 0755));
    conf_put("upper/d/seen", "y");
    OK(setxattr("upper/d", "trusted.overlay.opaque", "y", 1, 0));
    OK(mknod("upper/gone", S_IFCHR, 0));
    mount_plain();
    check_names("merged/d", "seen");
    CHECK(!conf_exists("merged/d/hidden"));
    CHECK(!conf_exists("merged/gone"));
    check_names("merged", "d");
    finish();
}

TEST(marks_are_hidden)
{
    char names[256];

    setup();
    OK(mkdir("upper/d", 0755));
    OK(setxattr("upper/d", "trusted.overlay.opaque", "y", 1, 0));
    OK(setxattr("upper/d", "trusted.mine", "z", 1, 0));
    mount_plain();
    CHECK_EQ(listxattr("merged/d", names, sizeof(names)), 13);
    CHECK_STR(names, "trusted.mine");
    CHECK_ERRNO(mknod("merged/w", S_IFCHR, 0), EPERM);
    OK(mknod("merged/null", S_IFCHR | 0666, makedev(1, 3)));
    finish();
}

TEST(three_layers)
{
    setup();
    conf_put("lower/a", "top");
    conf_put("lower2/a", "bottom");
    conf_put("lower2/b", "bottom b");
    conf_put("lower2/c", "bottom c");
    OK(mknod("lower/c", S_IFCHR, 0));
    OK(mkdir("lower/d", 0755));
    OK(mkdir("lower2/d", 0755));
    conf_put("lower/d/x", "1");
    conf_put("lower2/d/y", "2");
    OK(try_mount("lowerdir=lower:lower2,upperdir=upper,workdir=work"));
    check_text("merged/a", "top");
    check_text("merged/b", "bottom b");
    check_names("merged", "a b d");
    check_names("merged/d", "x y");
    conf_put("merged/d/z", "3");
    check_names("merged/d", "x y z");
    check_names("upper/d", "z");
    OK(unlink("merged/d/y"));
    check_names("merged/d", "x z");
    finish();
}

TEST(without_upper)
{
    setup();
    conf_put("lower/a", "1");
    conf_put("lower2/b", "2");
    OK(try_mount("lowerdir=lower:lower2"));
    check_names("merged", "a b");
    CHECK_ERRNO(open("merged/c", O_CREAT | O_WRONLY, 0644), EROFS);
    CHECK_ERRNO(open("merged/a", O_WRONLY), EROFS);
    CHECK_ERRNO(unlink("merged/a"), EROFS);
    CHECK_ERRNO(chmod("merged/a", 0600), EROFS);
    finish();
}

TEST(rename_files)
{
    setup();
    conf_put("lower/a", "1");
    conf_put("lower/b", "2");
    OK(mkdir("lower/d", 0755));
    mount_plain();
    OK(rename("merged/a", "merged/c"));
    check_text("merged/c", "1");
    CHECK(is_whiteout("upper/a"));
    OK(rename("merged/c", "merged/b"));
    check_text("merged/b", "1");
    check_names("merged", "b d");
    OK(rename("merged/b", "merged/d/b"));
    check_names("merged", "d");
    check_text("merged/d/b", "1");
    CHECK(is_whiteout("upper/b"));
    OK(mkdir("merged/empty", 0755));
    CHECK_ERRNO(rename("merged/d/b", "merged/empty"), EISDIR);
    OK(rmdir("merged/empty"));
    OK(rename("merged/d/b", "merged/a"));
    check_text("upper/a", "1");
    check_names("merged/d", "");
    finish();
}

TEST(rename_directories)
{
    setup();
    OK(mkdir("lower/d", 0755));
    conf_put("lower/d/f", "1");
    mount_plain();
    /* What has a lower part stays, without redirect_dir. */
    CHECK_ERRNO(rename("merged/d", "merged/e"), EXDEV);
    OK(mkdir("merged/n", 0755));
    conf_put("merged/n/f", "2");
    OK(rename("merged/n", "merged/m"));
    check_text("merged/m/f", "2");
    CHECK_ERRNO(rename("merged/m", "merged/d"), ENOTEMPTY);
    OK(unlink("merged/d/f"));
    OK(rename("merged/m", "merged/d"));
    check_names("merged/d", "f");
    check_text("merged/d/f", "2");
    OK(umount("merged"));
    mount_plain();
    check_names("merged/d", "f");
    check_text("merged/d/f", "2");
    finish();
}

TEST(redirect_directories)
{
    char v[64] = "";

    setup();
    OK(mkdir("lower/d", 0755));
    OK(mkdir("lower/d/sub", 0755));
    conf_put("lower/d/sub/f", "deep");
    OK(mkdir("lower/other", 0755));
    OK(try_mount("lowerdir=lower,upperdir=upper,workdir=work,redirect_dir=on"));
    OK(rename("merged/d", "merged/e"));
    check_text("merged/e/sub/f", "deep");
    CHECK(!conf_exists("merged/d"));
    CHECK(is_whiteout("upper/d"));
    OK(rename("merged/e/sub", "merged/other/moved"));
    check_text("merged/other/moved/f", "deep");
    check_names("merged/e", "");
    CHECK(getxattr("upper/other/moved", "trusted.overlay.redirect", v, sizeof(v)) > 0);
    CHECK_STR(v, "/d/sub");
    OK(umount("merged"));
    OK(try_mount("lowerdir=lower,upperdir=upper,workdir=work,redirect_dir=on"));
    check_text("merged/other/moved/f", "deep");
    conf_put("merged/other/moved/f", "changed");
    check_text("upper/other/moved/f", "changed");
    check_names("merged", "e other");
    finish();
}

TEST(exchange)
{
    setup();
    conf_put("lower/a", "A");
    conf_put("lower/b", "B");
    mount_plain();
    OK(renameat2(AT_FDCWD, "merged/a", AT_FDCWD, "merged/b", 2 /* RENAME_EXCHANGE */));
    check_text("merged/a", "B");
    check_text("merged/b", "A");
    CHECK_ERRNO(renameat2(AT_FDCWD, "merged/a", AT_FDCWD, "merged/b", 1), EEXIST);
    finish();
}

TEST(links)
{
    struct stat a, b;

    setup();
    conf_put("lower/a", "x");
    mount_plain();
    OK(link("merged/a", "merged/b"));
    OK(stat("merged/a", &a));
    OK(stat("merged/b", &b));
    CHECK_EQ(a.st_ino, b.st_ino);
    CHECK_EQ(a.st_nlink, 2);
    int fd = OK(open("merged/b", O_WRONLY | O_TRUNC));
    CHECK_EQ(write(fd, "new", 3), 3);
    close(fd);
    check_text("merged/a", "new");
    OK(unlink("merged/a"));
    CHECK(is_whiteout("upper/a"));
    check_text("merged/b", "new");
    OK(link("merged/b", "merged/a"));
    check_text("merged/a", "new");
    finish();
}

TEST(special_files)
{
    struct stat st;
    char buf[32] = "";

    setup();
    OK(symlink("target", "lower/link"));
    OK(mkfifo("lower/fifo", 0640));
    OK(mknod("lower/null", S_IFCHR | 0666, makedev(1, 3)));
    mount_plain();
    CHECK_EQ(readlink("merged/link", buf, sizeof(buf)), 6);
    CHECK_STR(buf, "target");
    OK(lchown("merged/link", 5, 6));
    OK(lstat("upper/link", &st));
    CHECK(S_ISLNK(st.st_mode));
    CHECK_EQ(st.st_uid, 5);
    OK(chmod("merged/fifo", 0600));
    OK(lstat("upper/fifo", &st));
    CHECK(S_ISFIFO(st.st_mode));
    OK(chmod("merged/null", 0600));
    OK(lstat("upper/null", &st));
    CHECK_EQ(st.st_rdev, makedev(1, 3));
    OK(symlink("x", "merged/new"));
    memset(buf, 0, sizeof(buf));
    CHECK_EQ(readlink("upper/new", buf, sizeof(buf)), 1);
    finish();
}

TEST(holes_stay)
{
    struct stat st;

    setup();
    int fd = OK(open("lower/sparse", O_CREAT | O_WRONLY, 0644));
    CHECK_EQ(pwrite(fd, "end", 3, 8 << 20), 3);
    close(fd);
    mount_plain();
    OK(chmod("merged/sparse", 0600));
    OK(stat("upper/sparse", &st));
    CHECK_EQ(st.st_size, (8 << 20) + 3);
    CHECK(st.st_blocks < 2048);
    fd = OK(open("merged/sparse", O_RDONLY));
    char buf[4] = "";
    CHECK_EQ(pread(fd, buf, 3, 8 << 20), 3);
    CHECK_STR(buf, "end");
    close(fd);
    finish();
}

TEST(mapped_while_copied_up)
{
    setup();
    conf_put("lower/a", "lower text");
    mount_plain();
    int rd = OK(open("merged/a", O_RDONLY));
    char *private = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, rd, 0));
    CHECK_EQ(private[0], 'l');
    private[1] = 'X';
    int fd = OK(open("merged/a", O_RDWR));
    char *shared = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    shared[0] = 'S';
    CHECK_EQ(private[1], 'X');
    check_text("merged/a", "Sower text");
    check_text("lower/a", "lower text");
    OK(munmap(private, 4096));
    OK(ftruncate(fd, 0));
    check_text("merged/a", "");
    OK(munmap(shared, 4096));
    close(fd);
    close(rd);
    finish();
}

TEST(unlinked_and_open)
{
    char buf[8] = "";

    setup();
    conf_put("lower/a", "text");
    mount_plain();
    int fd = OK(open("merged/a", O_RDONLY));
    OK(unlink("merged/a"));
    CHECK_EQ(read(fd, buf, 4), 4);
    CHECK_STR(buf, "text");
    CHECK(is_whiteout("upper/a"));
    close(fd);
    finish();
}

TEST(offsets_are_stable)
{
    char name[32], first[300], second[300];

    setup();
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "%s/f%03d", i % 2 ? "lower" : "upper", i);
        conf_put(name, "x");
    }
    mount_plain();
    DIR *d = opendir("merged");
    CHECK(d != NULL);
    for (int i = 0; i < 100; i++)
        CHECK(readdir(d) != NULL);
    long at = telldir(d);
    strcpy(first, readdir(d)->d_name);
    while (readdir(d) != NULL)
        ;
    seekdir(d, at);
    strcpy(second, readdir(d)->d_name);
    CHECK_STR(first, second);
    /* Removing what was seen hides nothing of the rest. */
    rewinddir(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        CHECK_EQ(unlinkat(dirfd(d), e->d_name, 0), 0);
        n++;
    }
    CHECK_EQ(n, 200);
    closedir(d);
    check_names("merged", "");
    finish();
}

TEST(bad_options)
{
    setup();
    CHECK_ERRNO(try_mount(""), EINVAL);
    CHECK_ERRNO(try_mount("lowerdir=nothere,upperdir=upper,workdir=work"), ENOENT);
    CHECK_ERRNO(try_mount("lowerdir=lower,upperdir=upper"), EINVAL);
    CHECK_ERRNO(try_mount("lowerdir=lower,upperdir=upper,workdir=upper"), EINVAL);
    CHECK_ERRNO(try_mount("lowerdir=lower,upperdir=upper,workdir=work,nonsense=1"), EINVAL);
    CHECK_ERRNO(try_mount("lowerdir=lower"), EINVAL);
    OK(mkdir("lower/in", 0755));
    CHECK_ERRNO(try_mount("lowerdir=lower:lower/in,upperdir=upper,workdir=work"), ELOOP);
    OK(chdir(".."));
    OK(umount2("base", MNT_DETACH));
}

TEST(user_marks)
{
    setup();
    OK(mkdir("lower/d", 0755));
    conf_put("lower/d/hidden", "x");
    OK(mkdir("upper/d", 0755));
    if (setxattr("upper/d", "user.overlay.opaque", "y", 1, 0) != 0)
        conf_skip("no user attributes on tmpfs");
    OK(try_mount("lowerdir=lower,upperdir=upper,workdir=work,userxattr"));
    check_names("merged/d", "");
    finish();
}

TEST(xattrs_copy_up)
{
    char v[8] = "";

    setup();
    conf_put("lower/a", "x");
    OK(setxattr("lower/a", "trusted.one", "1", 1, 0));
    mount_plain();
    CHECK_ERRNO(removexattr("merged/a", "trusted.none"), ENODATA);
    CHECK(!conf_exists("upper/a"));
    OK(setxattr("merged/a", "trusted.two", "2", 1, 0));
    CHECK_EQ(getxattr("upper/a", "trusted.one", v, sizeof(v)), 1);
    OK(removexattr("merged/a", "trusted.one"));
    CHECK_ERRNO(getxattr("merged/a", "trusted.one", v, sizeof(v)), ENODATA);
    CHECK_EQ(getxattr("lower/a", "trusted.one", v, sizeof(v)), 1);
    finish();
}

/* A layer of an engine's image, unpacked into a directory and mounted below another one. */
TEST(engine_layers)
{
    struct stat st;

    setup();
    OK(mkdir("lower/etc", 0755));
    conf_put("lower/etc/passwd", "root");
    conf_put("lower/etc/shadow", "secret");
    mount_plain();
    OK(unlink("merged/etc/shadow"));
    conf_put("merged/etc/passwd", "root and more");
    OK(umount("merged"));
    OK(mkdir("upper2", 0755));
    OK(mkdir("work2", 0755));
    OK(try_mount("lowerdir=upper:lower,upperdir=upper2,workdir=work2"));
    check_names("merged/etc", "passwd");
    check_text("merged/etc/passwd", "root and more");
    conf_put("merged/etc/shadow", "new");
    OK(stat("upper2/etc/shadow", &st));
    CHECK(S_ISREG(st.st_mode));
    finish();
}

static void *copier(int id)
{
    for (int i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof(name), "merged/d/f%d", i);
        int fd = open(name, O_WRONLY | O_APPEND);
        if (fd >= 0) {
            if (write(fd, "+", 1) != 1)
                _exit(2);
            close(fd);
        }
        if ((i + id) % 4 == 0)
            (void)chmod(name, 0600);
    }
    return NULL;
}

TEST(racing_copy_ups)
{
    setup();
    OK(mkdir("lower/d", 0755));
    for (int i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof(name), "lower/d/f%d", i);
        conf_put(name, "-");
    }
    mount_plain();
    pid_t pids[4];
    for (int k = 0; k < 4; k++) {
        pids[k] = conf_fork();
        if (pids[k] == 0) {
            copier(k);
            _exit(0);
        }
    }
    for (int k = 0; k < 4; k++)
        CHECK_EXIT(pids[k], 0);
    for (int i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof(name), "merged/d/f%d", i);
        check_text(name, "-++++");
    }
    finish();
}
