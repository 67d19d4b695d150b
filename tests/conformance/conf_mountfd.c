/* Mounting through descriptors, move_mount(2), mount_setattr(2). */
#include "mount_help.h"

#include <sys/statvfs.h>

CONF_FAMILY("mountfd");

/* ---- through descriptors ---- */

static int fsconfig_string(int fd, const char *key, const char *value)
{
    return (int)syscall(SYS_fsconfig, fd, FSCONFIG_SET_STRING, key, value, 0);
}

static int fs_create(int fd)
{
    return (int)syscall(SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
}

static int move_to(int mfd, const char *path)
{
    return (int)syscall(SYS_move_mount, mfd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
}

TEST(fsopen)
{
    struct statvfs sv;
    char buf[64];

    own_mounts();
    OK(mkdir("d", 0755));
    CHECK_ERRNO(syscall(SYS_fsopen, "nosuchfs", 0), ENODEV);
    CHECK_ERRNO(syscall(SYS_fsopen, "tmpfs", 2), EINVAL);
    int fd = (int)OK(syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_ERRNO(read(fd, buf, sizeof(buf)), ENODATA);
    CHECK_ERRNO(syscall(SYS_fsmount, fd, 0, 0), EINVAL);
    CHECK_ERRNO(fsconfig_string(fd, "unknown", "1"), EINVAL);
    OK(fsconfig_string(fd, "size", "64k"));
    OK(fsconfig_string(fd, "source", "myname"));
    CHECK_ERRNO(fsconfig_string(fd, "source", "again"), EINVAL);
    CHECK_ERRNO(syscall(SYS_fsconfig, fd, FSCONFIG_SET_FLAG, "ro", "x", 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_fsconfig, fd, 99, NULL, NULL, 0), EOPNOTSUPP);
    OK(fs_create(fd));
    CHECK_ERRNO(fs_create(fd), EBUSY);
    CHECK_ERRNO(fsconfig_string(fd, "size", "128k"), EBUSY);
    int mfd = (int)OK(syscall(SYS_fsmount, fd, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV));
    CHECK_EQ(fcntl(mfd, F_GETFD), FD_CLOEXEC);
    CHECK((fcntl(mfd, F_GETFL) & O_PATH) != 0);
    CHECK_ERRNO(syscall(SYS_fsmount, fd, 0, 0), EBUSY);
    /* It can be used before it stands anywhere. */
    OK(mkdirat(mfd, "early", 0755));
    OK(move_to(mfd, "d"));
    CHECK(conf_exists("d/early"));
    CHECK(info_has("d", " rw,nodev,relatime "));
    CHECK(info_has("d", " - tmpfs myname "));
    OK(statvfs("d", &sv));
    CHECK_EQ(sv.f_blocks * sv.f_bsize, 64 * 1024);
    OK(close(mfd));
    OK(close(fd));
    CHECK(is_mounted("d"));
    OK(umount("d"));
}

TEST(fsmount_goes_with_its_descriptor)
{
    own_mounts();
    int fd = (int)OK(syscall(SYS_fsopen, "tmpfs", 0));
    OK(fs_create(fd));
    int mfd = (int)OK(syscall(SYS_fsmount, fd, 0, 0));
    OK(close(fd));
    int inside = OK(openat(mfd, "f", O_CREAT | O_RDWR, 0600));
    OK(close(mfd));
    CHECK_EQ(write(inside, "x", 1), 1);
    CHECK_ERRNO(syscall(SYS_fsmount, inside, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_fsmount, 999, 0, 0), EBADF);
}

TEST(fspick)
{
    struct statvfs sv;

    own_mounts();
    tmpfs("d");
    OK(mkdir("plain", 0755));
    CHECK_ERRNO(syscall(SYS_fspick, AT_FDCWD, "plain", 0), EINVAL);
    int fd = (int)OK(syscall(SYS_fspick, AT_FDCWD, "d", FSPICK_CLOEXEC));
    OK(fsconfig_string(fd, "size", "128k"));
    OK(syscall(SYS_fsconfig, fd, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0));
    OK(statvfs("d", &sv));
    CHECK_EQ(sv.f_blocks * sv.f_bsize, 128 * 1024);
    OK(syscall(SYS_fsconfig, fd, FSCONFIG_SET_FLAG, "ro", NULL, 0));
    OK(syscall(SYS_fsconfig, fd, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0));
    CHECK_ERRNO(mkdir("d/x", 0755), EROFS);
}

TEST(open_tree)
{
    own_mounts();
    tmpfs("a");
    tmpfs("a/x");
    conf_put("a/x/f", "");
    OK(mkdir("b", 0755));
    CHECK_ERRNO(syscall(SYS_open_tree, AT_FDCWD, "a", AT_RECURSIVE), EINVAL);
    CHECK_ERRNO(syscall(SYS_open_tree, AT_FDCWD, "absent", OPEN_TREE_CLONE), ENOENT);
    int fd = (int)OK(syscall(SYS_open_tree, AT_FDCWD, "a", OPEN_TREE_CLOEXEC));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(faccessat(fd, "x/f", F_OK, 0), 0);
    OK(close(fd));
    fd = (int)OK(syscall(SYS_open_tree, AT_FDCWD, "a", OPEN_TREE_CLONE));
    CHECK_EQ(faccessat(fd, "x/f", F_OK, 0), -1);
    OK(close(fd));
    fd = (int)OK(syscall(SYS_open_tree, AT_FDCWD, "a", OPEN_TREE_CLONE | AT_RECURSIVE));
    CHECK_EQ(faccessat(fd, "x/f", F_OK, 0), 0);
    /* ".." ends at its root. */
    CHECK_EQ(faccessat(fd, "../x/f", F_OK, 0), 0);
    OK(move_to(fd, "b"));
    CHECK(conf_exists("b/x/f"));
}

TEST(move_mount_moves)
{
    own_mounts();
    tmpfs("a");
    OK(mkdir("b", 0755));
    CHECK_ERRNO(syscall(SYS_move_mount, AT_FDCWD, "a", AT_FDCWD, "b", 0x80000000u), EINVAL);
    CHECK_ERRNO(syscall(SYS_move_mount, AT_FDCWD, "b", AT_FDCWD, "a", 0), EINVAL);
    OK(syscall(SYS_move_mount, AT_FDCWD, "a", AT_FDCWD, "b", 0));
    CHECK(is_mounted("b"));
    CHECK(!is_mounted("a"));
}

TEST(move_mount_set_group)
{
    own_mounts();
    tmpfs("a");
    type("a", MS_SHARED);
    OK(mkdir("b", 0755));
    OK(mount("a", "b", NULL, MS_BIND, NULL));
    type("b", MS_PRIVATE);
    OK(syscall(SYS_move_mount, AT_FDCWD, "a", AT_FDCWD, "b", MOVE_MOUNT_SET_GROUP));
    CHECK_EQ(tag("b", "shared:"), tag("a", "shared:"));
    tmpfs("a/x");
    CHECK(is_mounted("b/x"));
    CHECK_ERRNO(syscall(SYS_move_mount, AT_FDCWD, "a", AT_FDCWD, "b", MOVE_MOUNT_SET_GROUP),
                EINVAL);
}

#define MOVE_BENEATH 0x200u

static int move_beneath(const char *from, const char *to)
{
    return (int)syscall(SYS_move_mount, AT_FDCWD, from, AT_FDCWD, to, MOVE_BENEATH);
}

/* A file system with one file in it, mounted at path. */
static void marked(const char *path, const char *name)
{
    char file[64];

    tmpfs(path);
    (void)snprintf(file, sizeof(file), "%s/%s", path, name);
    conf_put(file, "");
}

TEST(move_mount_beneath)
{
    own_mounts();
    marked("a", "lower");
    marked("b", "upper");
    OK(mkdir("plain", 0755));
    conf_put("file", "");
    if (move_beneath("a", "plain") != -1 || errno != EINVAL)
        conf_fail(__FILE__, __LINE__, "not beneath a mount (errno %d)", errno);
    CHECK_ERRNO(
        syscall(SYS_move_mount, AT_FDCWD, "a", AT_FDCWD, "b", MOVE_BENEATH | MOVE_MOUNT_SET_GROUP),
        EINVAL);
    CHECK_ERRNO(move_beneath("plain", "b"), EINVAL);
    CHECK_ERRNO(move_beneath("a", "a"), EINVAL);
    CHECK_ERRNO(move_beneath("a", "/"), EINVAL);
    OK(move_beneath("a", "b"));
    CHECK(!is_mounted("a"));
    CHECK(conf_exists("b/upper"));
    OK(umount("b"));
    CHECK(conf_exists("b/lower"));
    OK(umount("b"));
    CHECK_ERRNO(umount("b"), EINVAL);
}

/* The topmost of several is meant, and what is moved may be several. */
TEST(move_mount_beneath_stacks)
{
    own_mounts();
    marked("b", "one");
    marked("b", "two");
    marked("a", "three");
    OK(move_beneath("a", "b"));
    CHECK(conf_exists("b/two"));
    OK(umount("b"));
    CHECK(conf_exists("b/three"));
    OK(umount("b"));
    CHECK(conf_exists("b/one"));
    /* A tree goes with what is on it; one whose root is covered does not. */
    tmpfs("t");
    marked("t/sub", "four");
    OK(move_beneath("t", "b"));
    OK(umount("b"));
    CHECK(conf_exists("b/sub/four"));
    tmpfs("u");
    tmpfs("u");
    OK(chdir("b"));
    marked("inner", "five");
    CHECK_ERRNO(move_beneath("inner", "."), EINVAL);
}

TEST(move_mount_beneath_detached)
{
    own_mounts();
    marked("b", "upper");
    marked("a", "lower");
    int fd = (int)OK(syscall(SYS_open_tree, AT_FDCWD, "a", OPEN_TREE_CLONE));
    OK(syscall(SYS_move_mount, fd, "", AT_FDCWD, "b", MOVE_MOUNT_F_EMPTY_PATH | MOVE_BENEATH));
    CHECK(is_mounted("a"));
    CHECK(conf_exists("b/upper"));
    OK(umount("b"));
    CHECK(conf_exists("b/lower"));
}

/* Copies go beneath as well; where one would come to stand on top nothing goes. */
TEST(move_mount_beneath_propagates)
{
    own_mounts();
    tmpfs("shared");
    type("shared", MS_SHARED);
    OK(mkdir("peer", 0755));
    OK(mount("shared", "peer", NULL, MS_BIND, NULL));
    marked("shared/b", "upper");
    CHECK(conf_exists("peer/b/upper"));
    marked("a", "lower");
    OK(move_beneath("a", "shared/b"));
    CHECK(conf_exists("shared/b/upper"));
    CHECK(conf_exists("peer/b/upper"));
    OK(umount("shared/b"));
    CHECK(conf_exists("shared/b/lower"));
    CHECK(conf_exists("peer/b/lower"));
    /* A mount on its own peer. */
    OK(mkdir("x", 0755));
    OK(mount("shared", "x", NULL, MS_BIND, NULL));
    OK(mount("shared", "shared", NULL, MS_BIND, NULL));
    marked("c", "more");
    CHECK_ERRNO(move_beneath("c", "shared"), EINVAL);
}

static int set_attr(const char *path, unsigned flags, uint64_t set, uint64_t clr, uint64_t prop)
{
    struct mount_attr a = {.attr_set = set, .attr_clr = clr, .propagation = prop};

    return (int)syscall(SYS_mount_setattr, AT_FDCWD, path, flags, &a, sizeof(a));
}

TEST(mount_setattr)
{
    struct mount_attr big[2] = {{.attr_set = 0}, {.attr_set = 1}};

    own_mounts();
    tmpfs("a");
    tmpfs("a/x");
    OK(mkdir("plain", 0755));
    CHECK_ERRNO(set_attr("plain", 0, MOUNT_ATTR_RDONLY, 0, 0), EINVAL);
    CHECK_ERRNO(set_attr("a", 0, 0x8000000, 0, 0), EINVAL);
    CHECK_ERRNO(set_attr("a", 0, MOUNT_ATTR_NOATIME, 0, 0), EINVAL);
    CHECK_ERRNO(set_attr("a", 0, 0, MOUNT_ATTR_NOATIME, 0), EINVAL);
    CHECK_ERRNO(set_attr("a", 0, 0, 0, MS_SHARED | MS_SLAVE), EINVAL);
    CHECK_ERRNO(set_attr("a", 0x40000000, MOUNT_ATTR_RDONLY, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_mount_setattr, AT_FDCWD, "a", 0, big, 16), EINVAL);
    CHECK_ERRNO(syscall(SYS_mount_setattr, AT_FDCWD, "a", 0, big, sizeof(big)), E2BIG);
    CHECK_ERRNO(syscall(SYS_mount_setattr, AT_FDCWD, "a", 0, NULL, 32), EFAULT);
    /* Nothing asked, nothing looked at. */
    OK(set_attr("absent", 0, 0, 0, 0));
    OK(set_attr("a", 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME, 0));
    CHECK(info_has("a", " rw,nosuid,noatime "));
    CHECK(info_has("a/x", " rw,relatime "));
    OK(set_attr("a", AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MS_SHARED));
    CHECK(info_has("a", " ro,noatime "));
    CHECK(info_has("a/x", " ro,relatime "));
    CHECK(tag("a/x", "shared:") > 0);
    OK(set_attr("a", AT_RECURSIVE, 0, MOUNT_ATTR_RDONLY, 0));
    /* All or none. */
    conf_put("a/x/f", "");
    int fd = OK(open("a/x/f", O_WRONLY));
    CHECK_ERRNO(set_attr("a", AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0, 0), EBUSY);
    CHECK(info_has("a", " rw,noatime "));
    OK(close(fd));
}
