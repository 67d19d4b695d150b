/* mount(2), umount2(2), propagation, pivot_root(2), statmount(2). */
#include "mount_help.h"

#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

CONF_FAMILY("mount");

#define SYS_STATMOUNT 457
#define SYS_LISTMOUNT 458

/* ---- mount, flags ---- */

TEST(errors)
{
    own_mounts();
    OK(mkdir("d", 0755));
    conf_put("f", "x");
    CHECK_ERRNO(mount("none", "d", "nosuchfs", 0, NULL), ENODEV);
    CHECK_ERRNO(mount("none", "d", NULL, 0, NULL), EINVAL);
    CHECK_ERRNO(mount("none", "absent", "tmpfs", 0, NULL), ENOENT);
    CHECK_ERRNO(mount("none", "f", "tmpfs", 0, NULL), ENOTDIR);
    CHECK_ERRNO(mount("none", "d", "tmpfs", 0, "size=bad"), EINVAL);
    CHECK_ERRNO(mount("none", "d", "tmpfs", 0, "unknown=1"), EINVAL);
    CHECK_ERRNO(mount("none", "d", "tmpfs", 1UL << 31, NULL), EINVAL);
    CHECK_ERRNO(mount("d", "f", NULL, MS_BIND, NULL), ENOTDIR);
    CHECK_ERRNO(mount("f", "d", NULL, MS_BIND, NULL), ENOTDIR);
    CHECK_ERRNO(mount("absent", "d", NULL, MS_BIND, NULL), ENOENT);
    CHECK_ERRNO(mount(NULL, "d", NULL, MS_BIND, NULL), EINVAL);
    CHECK_ERRNO(mount("", "d", NULL, MS_BIND, NULL), EINVAL);
    CHECK_ERRNO(mount(NULL, "d", NULL, MS_REMOUNT, NULL), EINVAL);
    CHECK_ERRNO(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND, NULL), EINVAL);
    CHECK_ERRNO(mount(NULL, "d", NULL, MS_PRIVATE, NULL), EINVAL);
    CHECK_ERRNO(umount2("d", 0), EINVAL);
    CHECK_ERRNO(umount2("d", 0x1000), EINVAL);
    CHECK_ERRNO(umount2("absent", 0), ENOENT);
    CHECK_ERRNO(mount((const char *)1, "d", NULL, MS_BIND, NULL), EFAULT);
    CHECK_ERRNO(mount("none", (const char *)1, "tmpfs", 0, NULL), EFAULT);
    conf_become(1234);
    CHECK_ERRNO(mount("none", "d", "tmpfs", 0, NULL), EPERM);
    CHECK_ERRNO(umount2("d", 0), EPERM);
    CHECK_ERRNO(syscall(SYS_fsopen, "tmpfs", 0), EPERM);
    CHECK_ERRNO(syscall(SYS_pivot_root, "d", "d"), EPERM);
}

TEST(tmpfs_and_umount)
{
    struct statvfs sv;
    struct stat a, b;

    own_mounts();
    tmpfs("d");
    OK(stat(".", &a));
    OK(stat("d", &b));
    CHECK(a.st_dev != b.st_dev);
    CHECK_EQ(b.st_mode & 07777, 01777);
    OK(statvfs("d", &sv));
    CHECK_EQ(sv.f_blocks * sv.f_bsize, 64 * 1024);
    conf_put("d/f", "x");
    int fd = OK(open("d/f", O_RDONLY));
    CHECK_ERRNO(umount("d"), EBUSY);
    OK(close(fd));
    CHECK_ERRNO(rmdir("d"), EBUSY);
    CHECK_ERRNO(rename("d", "e"), EBUSY);
    OK(umount("d"));
    CHECK(!conf_exists("d/f"));
    OK(rmdir("d"));
}

TEST(remount_options)
{
    struct statvfs sv;

    own_mounts();
    tmpfs("d");
    OK(mount(NULL, "d", NULL, MS_REMOUNT, "size=128k"));
    OK(statvfs("d", &sv));
    CHECK_EQ(sv.f_blocks * sv.f_bsize, 128 * 1024);
    CHECK_ERRNO(mount(NULL, "d", NULL, MS_REMOUNT, "unknown=3"), EINVAL);
    conf_put("d/f", "x");
    int fd = OK(open("d/f", O_WRONLY));
    CHECK_ERRNO(mount(NULL, "d", NULL, MS_REMOUNT | MS_RDONLY, NULL), EBUSY);
    CHECK_ERRNO(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), EBUSY);
    OK(close(fd));
    OK(mount(NULL, "d", NULL, MS_REMOUNT | MS_RDONLY, NULL));
    CHECK_ERRNO(open("d/f", O_WRONLY), EROFS);
    CHECK_ERRNO(mkdir("d/x", 0755), EROFS);
    CHECK_ERRNO(chmod("d/f", 0600), EROFS);
    CHECK_ERRNO(access("d/f", W_OK), EROFS);
    OK(statvfs("d", &sv));
    CHECK((sv.f_flag & ST_RDONLY) != 0);
    OK(mount(NULL, "d", NULL, MS_REMOUNT, NULL));
    conf_put("d/f", "y");
}

TEST(flags_shown)
{
    own_mounts();
    tmpfs("d");
    CHECK(info_has("d", " rw,relatime "));
    OK(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    CHECK(info_has("d", " rw,nosuid,nodev,noexec,relatime "));
    OK(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND | MS_NOATIME, NULL));
    CHECK(info_has("d", " rw,noatime "));
    /* What is said about times stays when nothing is said. */
    OK(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
    CHECK(info_has("d", " ro,noatime "));
    OK(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND | MS_STRICTATIME, NULL));
    CHECK(info_has("d", " rw "));
    OK(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND | MS_NODIRATIME | MS_RELATIME, NULL));
    CHECK(info_has("d", " rw,nodiratime,relatime "));
}

TEST(noexec_nodev_nosymfollow)
{
    own_mounts();
    OK(mkdir("d", 0755));
    OK(mount("none", "d", "tmpfs", 0, "size=4m"));
    conf_copy_self("d/prog", 0755);
    OK(mknod("d/null", S_IFCHR | 0666, makedev(1, 3)));
    OK(symlink("prog", "d/link"));
    OK(close(OK(open("d/null", O_RDWR))));
    OK(close(OK(open("d/link", O_RDONLY))));
    OK(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND | MS_NOEXEC | MS_NODEV | 256, NULL));
    CHECK_ERRNO(open("d/null", O_RDWR), EACCES);
    CHECK_ERRNO(open("d/link", O_RDONLY), ELOOP);
    char *argv[] = {(char[]){"prog"}, NULL};
    CHECK_ERRNO(execv("d/prog", argv), EACCES);
    CHECK_ERRNO(access("d/prog", X_OK), EACCES);
    int fd = OK(open("d/prog", O_RDONLY));
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED);
    CHECK_EQ(errno, EPERM);
    void *p = OK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0));
    CHECK_ERRNO(mprotect(p, 4096, PROT_READ | PROT_EXEC), EACCES);
}

/* ---- binds ---- */

TEST(bind_file_and_directory)
{
    char text[16];

    own_mounts();
    OK(mkdir("a", 0755));
    OK(mkdir("b", 0755));
    conf_put("a/f", "from a");
    conf_put("g", "g");
    OK(mount("a", "b", NULL, MS_BIND, NULL));
    conf_get("b/f", text, sizeof(text));
    CHECK_STR(text, "from a");
    OK(mount("a/f", "g", NULL, MS_BIND, NULL));
    conf_get("g", text, sizeof(text));
    CHECK_STR(text, "from a");
    CHECK_ERRNO(unlink("g"), EBUSY);
    CHECK_ERRNO(rename("a/f", "b/h"), EXDEV);
    CHECK_ERRNO(link("a/f", "b/h"), EXDEV);
    CHECK(info_has("b", "/a "));
    CHECK(info_has("g", "/a/f "));
    OK(umount("g"));
    OK(umount("b"));
}

TEST(bind_recursive)
{
    own_mounts();
    tmpfs("a");
    tmpfs("a/x");
    tmpfs("a/x/y");
    OK(mkdir("b", 0755));
    OK(mkdir("c", 0755));
    OK(mount("a", "b", NULL, MS_BIND, NULL));
    CHECK(!is_mounted("b/x"));
    OK(mount("a", "c", NULL, MS_BIND | MS_REC, NULL));
    CHECK(is_mounted("c/x"));
    CHECK(is_mounted("c/x/y"));
    CHECK_ERRNO(umount("c"), EBUSY);
    OK(umount2("c", MNT_DETACH));
    CHECK(!is_mounted("c"));
    CHECK(!is_mounted("c/x"));
    CHECK(is_mounted("a/x/y"));
}

TEST(bind_part_of_tree)
{
    own_mounts();
    tmpfs("a");
    OK(mkdir("a/sub", 0755));
    OK(mkdir("a/other", 0755));
    tmpfs("a/sub/in");
    tmpfs("a/other/out");
    OK(mkdir("b", 0755));
    OK(mount("a/sub", "b", NULL, MS_BIND | MS_REC, NULL));
    CHECK(is_mounted("b/in"));
    CHECK(!is_mounted("b/out"));
    CHECK(info_has("b", "/sub "));
}

TEST(bind_keeps_flags_and_readonly_bind)
{
    own_mounts();
    OK(mkdir("a", 0755));
    OK(mkdir("b", 0755));
    OK(mkdir("c", 0755));
    conf_put("a/f", "x");
    OK(mount("a", "b", NULL, MS_BIND, NULL));
    OK(mount(NULL, "b", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, NULL));
    CHECK_ERRNO(open("b/f", O_WRONLY), EROFS);
    conf_put("a/f", "y");
    OK(mount("b", "c", NULL, MS_BIND, NULL));
    CHECK(info_has("c", " ro,nosuid,relatime "));
}

TEST(over_mounts)
{
    own_mounts();
    tmpfs("d");
    conf_put("d/one", "");
    tmpfs("d");
    conf_put("d/two", "");
    CHECK(!conf_exists("d/one"));
    OK(umount("d"));
    CHECK(conf_exists("d/one"));
    OK(umount("d"));
    CHECK(!conf_exists("d/one"));
    CHECK_ERRNO(umount("d"), EINVAL);
}

/* ---- moving ---- */

TEST(move)
{
    own_mounts();
    tmpfs("a");
    tmpfs("a/in");
    conf_put("a/in/f", "x");
    OK(mkdir("b", 0755));
    OK(mkdir("a/deep", 0755));
    CHECK_ERRNO(mount("a", "a/deep", NULL, MS_MOVE, NULL), ELOOP);
    CHECK_ERRNO(mount("b", "a", NULL, MS_MOVE, NULL), EINVAL);
    CHECK_ERRNO(mount(NULL, "b", NULL, MS_MOVE, NULL), EINVAL);
    OK(mount("a", "b", NULL, MS_MOVE, NULL));
    CHECK(!is_mounted("a"));
    CHECK(is_mounted("b"));
    CHECK(is_mounted("b/in"));
    CHECK(conf_exists("b/in/f"));
    OK(umount("b/in"));
    OK(umount("b"));
}

TEST(move_from_shared_parent_is_refused)
{
    own_mounts();
    tmpfs("p");
    type("p", MS_SHARED);
    tmpfs("p/a");
    OK(mkdir("b", 0755));
    CHECK_ERRNO(mount("p/a", "b", NULL, MS_MOVE, NULL), EINVAL);
    tmpfs("u");
    type("u", MS_UNBINDABLE);
    OK(mkdir("p/x", 0755));
    CHECK_ERRNO(mount("u", "p/x", NULL, MS_MOVE, NULL), EINVAL);
}

/* ---- unmounting ---- */

TEST(lazy)
{
    char cwd[256];

    own_mounts();
    tmpfs("d");
    conf_put("d/f", "still here");
    int fd = OK(open("d/f", O_RDONLY));
    OK(chdir("d"));
    OK(umount2("../d", MNT_DETACH));
    CHECK_EQ(read(fd, cwd, 5), 5);
    CHECK(conf_exists("f"));
    conf_put("g", "new");
    long n = syscall(SYS_getcwd, cwd, sizeof(cwd));
    CHECK(n > 0);
    CHECK(strncmp(cwd, "(unreachable)", 13) == 0);
    OK(chdir(".."));
    /* Above a detached mount there is nothing. */
    CHECK(conf_exists("f"));
}

TEST(expire)
{
    own_mounts();
    tmpfs("d");
    CHECK_ERRNO(umount2("d", MNT_EXPIRE | MNT_DETACH), EINVAL);
    CHECK_ERRNO(umount2("d", MNT_EXPIRE), EAGAIN);
    OK(umount2("d", MNT_EXPIRE));
    tmpfs("d");
    CHECK_ERRNO(umount2("d", MNT_EXPIRE), EAGAIN);
    conf_put("d/used", "");
    CHECK_ERRNO(umount2("d", MNT_EXPIRE), EAGAIN);
    OK(umount2("d", MNT_EXPIRE));
    tmpfs("d");
    int fd = OK(open("d", O_RDONLY));
    CHECK_ERRNO(umount2("d", MNT_EXPIRE), EBUSY);
    OK(close(fd));
}

TEST(nofollow)
{
    own_mounts();
    tmpfs("d");
    OK(symlink("d", "l"));
    CHECK_ERRNO(umount2("l", UMOUNT_NOFOLLOW), EINVAL);
    OK(umount2("l", 0));
    CHECK(!is_mounted("d"));
}

/* ---- propagation ---- */

TEST(shared_peers_follow_each_other)
{
    own_mounts();
    tmpfs("a");
    type("a", MS_SHARED);
    OK(mkdir("b", 0755));
    OK(mount("a", "b", NULL, MS_BIND, NULL));
    int group = tag("a", "shared:");
    CHECK(group > 0);
    CHECK_EQ(tag("b", "shared:"), group);
    tmpfs("a/x");
    conf_put("a/x/f", "");
    CHECK(conf_exists("b/x/f"));
    CHECK_EQ(tag("a/x", "shared:"), tag("b/x", "shared:"));
    OK(mkdir("b/y", 0755));
    OK(mount("none", "b/y", "tmpfs", 0, NULL));
    CHECK(is_mounted("a/y"));
    OK(umount("a/y"));
    CHECK(!is_mounted("b/y"));
    OK(umount("b/x"));
    CHECK(!is_mounted("a/x"));
    type("b", MS_PRIVATE);
    CHECK_EQ(tag("b", "shared:"), 0);
    tmpfs("a/z");
    CHECK(!is_mounted("b/z"));
}

TEST(slaves_follow)
{
    own_mounts();
    tmpfs("a");
    type("a", MS_SHARED);
    OK(mkdir("b", 0755));
    OK(mount("a", "b", NULL, MS_BIND, NULL));
    type("b", MS_SLAVE);
    CHECK_EQ(tag("b", "master:"), tag("a", "shared:"));
    CHECK_EQ(tag("b", "shared:"), 0);
    tmpfs("a/x");
    CHECK(is_mounted("b/x"));
    CHECK_EQ(tag("b/x", "master:"), tag("a/x", "shared:"));
    OK(mkdir("b/y", 0755));
    OK(mount("none", "b/y", "tmpfs", 0, NULL));
    CHECK(!is_mounted("a/y"));
    OK(umount("b/x"));
    CHECK(is_mounted("a/x"));
    OK(umount("a/x"));
    /* Both: a follower with followers. */
    type("b", MS_SHARED);
    CHECK(tag("b", "shared:") > 0);
    CHECK_EQ(tag("b", "master:"), tag("a", "shared:"));
    OK(mkdir("c", 0755));
    OK(mount("b", "c", NULL, MS_BIND, NULL));
    CHECK_EQ(tag("c", "shared:"), tag("b", "shared:"));
    CHECK_EQ(tag("c", "master:"), tag("a", "shared:"));
    tmpfs("a/z");
    CHECK(is_mounted("b/z"));
    CHECK(is_mounted("c/z"));
    CHECK_EQ(tag("c/z", "shared:"), tag("b/z", "shared:"));
    CHECK_EQ(tag("c/z", "master:"), tag("a/z", "shared:"));
    OK(umount("a/z"));
    CHECK(!is_mounted("b/z"));
    CHECK(!is_mounted("c/z"));
}

TEST(master_leaves)
{
    own_mounts();
    tmpfs("a");
    type("a", MS_SHARED);
    OK(mkdir("b", 0755));
    OK(mkdir("c", 0755));
    OK(mount("a", "b", NULL, MS_BIND, NULL));
    OK(mount("a", "c", NULL, MS_BIND, NULL));
    type("c", MS_SLAVE);
    /* Whose master leaves a group follows another of it. */
    OK(umount("a"));
    CHECK_EQ(tag("c", "master:"), tag("b", "shared:"));
    tmpfs("b/x");
    CHECK(is_mounted("c/x"));
    type("b", MS_PRIVATE);
    CHECK_EQ(tag("c", "master:"), 0);
}

TEST(unbindable)
{
    own_mounts();
    tmpfs("a");
    tmpfs("a/u");
    tmpfs("a/u/below");
    tmpfs("a/v");
    type("a/u", MS_UNBINDABLE);
    CHECK(info_has("a/u", " unbindable "));
    OK(mkdir("b", 0755));
    CHECK_ERRNO(mount("a/u", "b", NULL, MS_BIND, NULL), EINVAL);
    OK(mount("a", "b", NULL, MS_BIND | MS_REC, NULL));
    CHECK(!is_mounted("b/u"));
    CHECK(is_mounted("b/v"));
    type("a/u", MS_PRIVATE);
    OK(mkdir("c", 0755));
    OK(mount("a", "c", NULL, MS_BIND | MS_REC, NULL));
    CHECK(is_mounted("c/u/below"));
}

TEST(type_flags)
{
    own_mounts();
    tmpfs("a");
    tmpfs("a/x");
    CHECK_ERRNO(mount(NULL, "a", NULL, MS_SHARED | MS_PRIVATE, NULL), EINVAL);
    CHECK_ERRNO(mount(NULL, "a", NULL, MS_SHARED | MS_NOSUID, NULL), EINVAL);
    type("a", MS_SHARED | MS_REC);
    CHECK(tag("a/x", "shared:") > 0);
    CHECK(tag("a/x", "shared:") != tag("a", "shared:"));
    type("a", MS_PRIVATE);
    CHECK_EQ(tag("a", "shared:"), 0);
    CHECK(tag("a/x", "shared:") > 0);
    /* A private mount follows nobody. */
    type("a", MS_SLAVE);
    CHECK_EQ(tag("a", "master:"), 0);
}

TEST(propagated_mounts_go_beneath)
{
    own_mounts();
    tmpfs("a");
    OK(mkdir("a/x", 0755));
    type("a", MS_SHARED);
    OK(mkdir("b", 0755));
    OK(mount("a", "b", NULL, MS_BIND, NULL));
    type("b", MS_SLAVE);
    OK(mount("none", "b/x", "tmpfs", 0, NULL));
    conf_put("b/x/own", "");
    OK(mount("none", "a/x", "tmpfs", 0, NULL));
    conf_put("a/x/theirs", "");
    CHECK(conf_exists("b/x/own"));
    OK(umount("b/x"));
    CHECK(conf_exists("b/x/theirs"));
    OK(umount("a/x"));
    CHECK(!conf_exists("b/x/theirs"));
    /* And away from beneath. */
    OK(mount("none", "b/x", "tmpfs", 0, NULL));
    conf_put("b/x/own", "");
    OK(mount("none", "a/x", "tmpfs", 0, NULL));
    OK(umount("a/x"));
    CHECK(conf_exists("b/x/own"));
    OK(umount("b/x"));
    CHECK(!is_mounted("b/x"));
}

TEST(umount_spreads_unless_busy)
{
    own_mounts();
    tmpfs("a");
    type("a", MS_SHARED);
    OK(mkdir("b", 0755));
    OK(mount("a", "b", NULL, MS_BIND, NULL));
    tmpfs("a/x");
    int fd = OK(open("b/x", O_RDONLY | O_DIRECTORY));
    CHECK_ERRNO(umount("a/x"), EBUSY);
    OK(close(fd));
    /* One that has something on it stays. */
    type("b", MS_SLAVE);
    type("b/x", MS_PRIVATE);
    OK(mkdir("b/x/in", 0755));
    OK(mount("none", "b/x/in", "tmpfs", 0, NULL));
    OK(umount("a/x"));
    CHECK(is_mounted("b/x/in"));
    OK(umount("b/x/in"));
    OK(umount("b/x"));
}

TEST(shared_bind_into_itself)
{
    own_mounts();
    tmpfs("a");
    OK(mkdir("a/x", 0755));
    type("a", MS_SHARED);
    OK(mount("a", "a/x", NULL, MS_BIND, NULL));
    CHECK(is_mounted("a/x"));
    CHECK(!is_mounted("a/x/x"));
    CHECK_EQ(tag("a/x", "shared:"), tag("a", "shared:"));
    OK(umount2("a", MNT_DETACH));
    CHECK(!is_mounted("a/x"));
}

/* ---- removing what something is mounted on ---- */

TEST(names_with_mounts_are_busy)
{
    own_mounts();
    OK(mkdir("p", 0755));
    OK(mkdir("p/d", 0755));
    OK(mkdir("q", 0755));
    OK(mount("p", "q", NULL, MS_BIND, NULL));
    tmpfs("p/d");
    /* In q nothing stands on d, but the name is the same. */
    CHECK_ERRNO(rmdir("q/d"), EBUSY);
    CHECK_ERRNO(rename("q/d", "q/e"), EBUSY);
    OK(umount("p/d"));
    OK(rmdir("q/d"));
}

/* ---- pivot_root ---- */

static int pivot(const char *to, const char *old)
{
    return (int)syscall(SYS_pivot_root, to, old);
}

static void enter_private_root(void)
{
    own_mounts();
    OK(mkdir("new", 0755));
    OK(mount("none", "new", "tmpfs", 0, NULL));
    OK(mkdir("new/old", 0755));
    conf_put("new/marker", "");
}

TEST(pivot_root_errors)
{
    enter_private_root();
    OK(mkdir("plain", 0755));
    conf_put("file", "");
    CHECK_ERRNO(pivot("plain", "plain"), EINVAL);
    CHECK_ERRNO(pivot("new", "plain"), EINVAL);
    CHECK_ERRNO(pivot("/", "/"), EBUSY);
    CHECK_ERRNO(pivot("absent", "new/old"), ENOENT);
    CHECK_ERRNO(pivot("new", "new/absent"), ENOENT);
    CHECK_ERRNO(pivot("file", "new/old"), ENOTDIR);
    type("new", MS_SHARED);
    CHECK_ERRNO(pivot("new", "new/old"), EINVAL);
}

/* In a root of its own, so that a container's is left alone: the case's root is a mount. */
static void pivot_from_chroot(void)
{
    own_mounts();
    tmpfs("root");
    OK(mkdir("root/new", 0755));
    OK(mkdir("root/proc", 0755));
    conf_put("root/was", "");
    OK(mount("none", "root/new", "tmpfs", 0, NULL));
    OK(mkdir("root/new/old", 0755));
    conf_put("root/new/marker", "");
    OK(chroot("root"));
    OK(chdir("/"));
}

TEST(pivot_root)
{
    pivot_from_chroot();
    OK(pivot("/new", "/new/old"));
    CHECK(conf_exists("/marker"));
    CHECK(conf_exists("/old/was"));
    /* The working directory was the old root, so it is the new one. */
    CHECK(conf_exists("marker"));
    OK(umount2("/old", MNT_DETACH));
    CHECK(!conf_exists("/old/was"));
    CHECK(conf_exists("/../marker"));
}

TEST(pivot_root_onto_itself)
{
    pivot_from_chroot();
    OK(chdir("/new"));
    OK(pivot(".", "."));
    OK(umount2(".", MNT_DETACH));
    OK(chdir("/"));
    CHECK(conf_exists("/marker"));
    CHECK(!conf_exists("/was"));
    CHECK(conf_exists("/old"));
}

TEST(pivot_root_moves_others)
{
    int up[2], down[2];
    char c;

    pivot_from_chroot();
    OK(pipe(up));
    OK(pipe(down));
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK(conf_exists("/was"));
        OK(write(up[1], "x", 1));
        CHECK_EQ(read(down[0], &c, 1), 1);
        _exit(conf_exists("/marker") && !conf_exists("/was") ? 0 : 9);
    }
    CHECK_EQ(read(up[0], &c, 1), 1);
    OK(pivot("/new", "/new/old"));
    OK(write(down[1], "x", 1));
    CHECK_EXIT(pid, 0);
}

/* ---- statmount, listmount ---- */

struct id_req {
    uint32_t size, spare;
    uint64_t mnt_id, param;
};

struct stat_mount {
    uint32_t size, mnt_opts;
    uint64_t mask;
    uint32_t sb_dev_major, sb_dev_minor;
    uint64_t sb_magic;
    uint32_t sb_flags, fs_type;
    uint64_t mnt_id, mnt_parent_id;
    uint32_t mnt_id_old, mnt_parent_id_old;
    uint64_t mnt_attr, mnt_propagation, mnt_peer_group, mnt_master, propagate_from;
    uint32_t mnt_root, mnt_point;
    uint64_t spare[50];
    char str[1024];
};

static uint64_t unique_id(const char *path)
{
    struct statx sx;

    OK(statx(AT_FDCWD, path, 0, 0x4000 /* STATX_MNT_ID_UNIQUE */, &sx));
    CHECK((sx.stx_mask & 0x4000) != 0);
    return sx.stx_mnt_id;
}

TEST(statmount)
{
    struct stat_mount sm;
    struct stat st;

    own_mounts();
    tmpfs("a");
    OK(mkdir("a/sub", 0755));
    OK(mkdir("b", 0755));
    OK(mount("a/sub", "b", NULL, MS_BIND, NULL));
    type("b", MS_SHARED);
    struct id_req req = {.size = 24, .mnt_id = unique_id("b"), .param = 0x3f};
    OK(syscall(SYS_STATMOUNT, &req, &sm, sizeof(sm), 0));
    CHECK_EQ(sm.mask & 0x3f, 0x3f);
    CHECK_EQ(sm.mnt_id, req.mnt_id);
    CHECK_EQ(sm.mnt_parent_id, unique_id("."));
    CHECK_EQ(sm.sb_magic, 0x01021994);
    CHECK_EQ(sm.mnt_propagation, MS_SHARED);
    CHECK_EQ(sm.mnt_peer_group, tag("b", "shared:"));
    CHECK_STR(sm.str + sm.fs_type, "tmpfs");
    CHECK_STR(sm.str + sm.mnt_root, "/sub");
    char want[512], cwd[500];
    OK(getcwd(cwd, sizeof(cwd)) ? 0 : -1);
    (void)snprintf(want, sizeof(want), "%s/b", cwd);
    CHECK_STR(sm.str + sm.mnt_point, want);
    OK(stat("b", &st));
    CHECK_EQ(makedev(sm.sb_dev_major, sm.sb_dev_minor), st.st_dev);
    CHECK_ERRNO(syscall(SYS_STATMOUNT, &req, &sm, 64, 0), EOVERFLOW);
    CHECK_ERRNO(syscall(SYS_STATMOUNT, &req, &sm, sizeof(sm), 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_STATMOUNT, NULL, &sm, sizeof(sm), 0), EFAULT);
    req.mnt_id = 5;
    CHECK_ERRNO(syscall(SYS_STATMOUNT, &req, &sm, sizeof(sm), 0), EINVAL);
    req.mnt_id = (1ULL << 60);
    CHECK_ERRNO(syscall(SYS_STATMOUNT, &req, &sm, sizeof(sm), 0), ENOENT);
    req.size = 8;
    CHECK_ERRNO(syscall(SYS_STATMOUNT, &req, &sm, sizeof(sm), 0), EINVAL);
}

/* Copies of what it was taken from are where it goes; it is none of them. */
TEST(a_tree_does_not_appear_in_itself)
{
    uint64_t ids[16];

    own_mounts();
    tmpfs("a");
    OK(mkdir("a/x", 0755));
    type("a", MS_SHARED);
    for (int i = 0; i < 3; i++) {
        int fd = (int)OK(syscall(SYS_open_tree, AT_FDCWD, "a", 1 | AT_RECURSIVE));
        OK(syscall(SYS_move_mount, fd, "", AT_FDCWD, "a/x", 4));
        OK(close(fd));
        struct id_req req = {.size = 24, .mnt_id = unique_id("a")};
        CHECK_EQ(syscall(SYS_LISTMOUNT, &req, ids, 16, 0), 1);
    }
}

TEST(listmount_of_many)
{
    enum { COUNT = 300 };
    static uint64_t ids[COUNT + 1];

    own_mounts();
    tmpfs("a");
    OK(mkdir("a/b", 0755));
    for (int i = 0; i < COUNT; i++)
        OK(mount("a/b", "a/b", NULL, MS_BIND, NULL));
    struct id_req req = {.size = 24, .mnt_id = unique_id("a")};
    CHECK_EQ(syscall(SYS_LISTMOUNT, &req, ids, COUNT + 1, 0), COUNT);
    for (int i = 1; i < COUNT; i++)
        CHECK(ids[i - 1] < ids[i]);
}

TEST(listmount)
{
    uint64_t ids[16];

    own_mounts();
    tmpfs("a");
    tmpfs("a/x");
    tmpfs("a/y");
    struct id_req req = {.size = 24, .mnt_id = unique_id("a")};
    CHECK_EQ(syscall(SYS_LISTMOUNT, &req, ids, 16, 0), 2);
    CHECK_EQ(ids[0], unique_id("a/x"));
    CHECK_EQ(ids[1], unique_id("a/y"));
    CHECK_EQ(syscall(SYS_LISTMOUNT, &req, ids, 1, 0), 1);
    req.param = ids[0];
    CHECK_EQ(syscall(SYS_LISTMOUNT, &req, ids, 16, 0), 1);
    CHECK_EQ(ids[0], unique_id("a/y"));
    req.param = 0;
    CHECK_EQ(syscall(SYS_LISTMOUNT, &req, ids, 16, 1), 2);
    CHECK_EQ(ids[0], unique_id("a/y"));
    req.mnt_id = UINT64_MAX;
    CHECK(syscall(SYS_LISTMOUNT, &req, ids, 16, 0) >= 4);
    CHECK_ERRNO(syscall(SYS_LISTMOUNT, &req, ids, 16, 4), EINVAL);
}

/* ---- races ---- */

TEST(races_of_walks_and_mounts)
{
    own_mounts();
    tmpfs("a");
    OK(mkdir("a/x", 0755));
    conf_put("a/x/below", "");
    type("a", MS_SHARED);
    OK(mkdir("b", 0755));
    OK(mount("a", "b", NULL, MS_BIND, NULL));
    volatile int *stop = conf_shared(sizeof(int));
    pid_t kids[2];
    for (int k = 0; k < 2; k++) {
        kids[k] = conf_fork();
        if (kids[k] != 0)
            continue;
        struct stat st;
        while (*stop == 0) {
            if (stat(k != 0 ? "b/x/below" : "a/x/../x", &st) != 0 && errno != ENOENT)
                _exit(8);
        }
        _exit(0);
    }
    for (int i = 0; i < 300; i++) {
        OK(mount("none", i & 1 ? "a/x" : "b/x", "tmpfs", 0, NULL));
        CHECK(!conf_exists("a/x/below"));
        OK(umount2(i & 2 ? "a/x" : "b/x", MNT_DETACH));
        CHECK(conf_exists("b/x/below"));
    }
    *stop = 1;
    CHECK_EXIT(kids[0], 0);
    CHECK_EXIT(kids[1], 0);
}
