/* tmpfs(5): options and their limits, extended attributes, large files. */
#include "harness.h"

#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

CONF_FAMILY("tmpfs");

static void setup(const char *options)
{
    NEED_ROOT();
    if (unshare(CLONE_NEWNS) == 0)
        OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(mkdir("t", 0755));
    if (mount("tmpfs", "t", "tmpfs", 0, options) != 0) {
        if (errno == EPERM)
            conf_skip("may not mount");
        CHECK(!"mount tmpfs");
    }
}

static void finish(void)
{
    OK(umount("t"));
}

TEST(size)
{
    static char block[65536];
    struct statvfs st;
    ssize_t n = 0;
    long total = 0;

    setup("size=1m");
    OK(statvfs("t", &st));
    CHECK_EQ(st.f_blocks * st.f_frsize, 1 << 20);
    int fd = OK(open("t/f", O_CREAT | O_RDWR, 0644));
    while ((n = write(fd, block, sizeof(block))) > 0)
        total += n;
    CHECK_EQ(n, -1);
    CHECK_EQ(errno, ENOSPC);
    CHECK_EQ(total, 1 << 20);
    OK(statvfs("t", &st));
    CHECK_EQ(st.f_bfree, 0);
    OK(ftruncate(fd, 0));
    OK(statvfs("t", &st));
    CHECK_EQ(st.f_bfree * st.f_frsize, 1 << 20);
    close(fd);
    finish();
}

TEST(inodes)
{
    struct statvfs st;
    char name[32];
    int made = 0;

    setup("nr_inodes=20");
    OK(statvfs("t", &st));
    CHECK_EQ(st.f_files, 20);
    for (;; made++) {
        snprintf(name, sizeof(name), "t/f%d", made);
        int fd = open(name, O_CREAT | O_WRONLY, 0644);
        if (fd < 0)
            break;
        close(fd);
    }
    CHECK_EQ(errno, ENOSPC);
    CHECK_EQ(made, 19);
    OK(unlink("t/f0"));
    conf_put("t/again", "x");
    finish();
}

TEST(a_number_of_inodes_by_default)
{
    struct statvfs st;

    setup("");
    OK(statvfs("t", &st));
    CHECK(st.f_files > 100);
    CHECK(st.f_ffree < st.f_files);
    finish();
}

TEST(owner_and_mode)
{
    struct stat st;

    setup("mode=0751,uid=12,gid=34");
    OK(stat("t", &st));
    CHECK_EQ(st.st_mode & 07777, 0751);
    CHECK_EQ(st.st_uid, 12);
    CHECK_EQ(st.st_gid, 34);
    finish();
}

TEST(bad_options)
{
    setup("");
    OK(mkdir("t/x", 0755));
    CHECK_ERRNO(mount("tmpfs", "t/x", "tmpfs", 0, "size=nonsense"), EINVAL);
    CHECK_ERRNO(mount("tmpfs", "t/x", "tmpfs", 0, "mode=9"), EINVAL);
    finish();
}

TEST(attributes)
{
    char value[16] = "", names[128];

    setup("");
    conf_put("t/f", "x");
    OK(setxattr("t/f", "trusted.a", "one", 3, 0));
    OK(setxattr("t/f", "security.b", "two", 3, 0));
    CHECK_EQ(getxattr("t/f", "trusted.a", value, sizeof(value)), 3);
    CHECK_STR(value, "one");
    CHECK_ERRNO(getxattr("t/f", "trusted.a", value, 1), ERANGE);
    CHECK_ERRNO(setxattr("t/f", "trusted.a", "x", 1, XATTR_CREATE), EEXIST);
    CHECK_ERRNO(setxattr("t/f", "trusted.c", "x", 1, XATTR_REPLACE), ENODATA);
    CHECK(listxattr("t/f", names, sizeof(names)) >= 21);
    OK(removexattr("t/f", "trusted.a"));
    CHECK_ERRNO(getxattr("t/f", "trusted.a", value, sizeof(value)), ENODATA);
    CHECK_ERRNO(setxattr("t/f", "nonsense", "x", 1, 0), EOPNOTSUPP);
    finish();
}

TEST(huge_and_sparse)
{
    struct stat st;
    char c = 0;

    setup("size=16m");
    int fd = OK(open("t/f", O_CREAT | O_RDWR, 0644));
    OK(ftruncate(fd, 1L << 40));
    CHECK_EQ(pwrite(fd, "z", 1, (1L << 40) - 1), 1);
    CHECK_EQ(pread(fd, &c, 1, (1L << 40) - 1), 1);
    CHECK_EQ(c, 'z');
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_size, 1L << 40);
    CHECK(st.st_blocks <= 16);
    CHECK_EQ(lseek(fd, 0, SEEK_DATA), (1L << 40) - 4096);
    close(fd);
    finish();
}

/* Who sleeps with a directory that was his once does not keep what is mounted. */
TEST(a_sleeping_sibling_keeps_nothing)
{
    int *step = conf_shared(sizeof(*step));
    char here[256];

    setup("size=1m");
    OK(getcwd(here, sizeof(here)) ? 0 : -1);
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FS | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0) {
        OK(chdir("t"));
        CHECK(conf_exists("."));
        *step = 1;
        for (;;)
            pause();
    }
    conf_await(step, 1);
    OK(chdir(here));
    finish();
    conf_kill(pid);
}
