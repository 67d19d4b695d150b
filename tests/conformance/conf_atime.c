/* When access times change: relatime, O_NOATIME, links and directories. */
#include "harness.h"

#include <sys/stat.h>
#include <time.h>

CONF_FAMILY("atime");

static struct timespec atime_of(const char *path)
{
    struct stat st;

    OK(lstat(path, &st));
    return st.st_atim;
}

static void set_times(const char *path, time_t access, time_t change)
{
    const struct timespec ts[2] = {{.tv_sec = access}, {.tv_sec = change}};

    OK(utimensat(AT_FDCWD, path, ts, AT_SYMLINK_NOFOLLOW));
}

static void read_it(const char *path, int flags)
{
    char c;
    int fd = OK(open(path, O_RDONLY | flags));

    CHECK_EQ(read(fd, &c, 1), 1);
    OK(close(fd));
}

TEST(relatime)
{
    struct timespec now;

    conf_put("f", "x");
    /* Before the last change: told. */
    set_times("f", 1000, 2000);
    read_it("f", O_NOATIME);
    CHECK_EQ(atime_of("f").tv_sec, 1000);
    read_it("f", 0);
    CHECK(atime_of("f").tv_sec > 2000);
    /* After it, and not long ago: left alone. */
    conf_sleep_ms(20);
    OK(clock_gettime(CLOCK_REALTIME, &now));
    set_times("f", now.tv_sec + 100, now.tv_sec - 100);
    read_it("f", 0);
    CHECK_EQ(atime_of("f").tv_sec, now.tv_sec + 100);
}

TEST(atime_of_links_and_directories)
{
    char buf[512];

    OK(mkdir("d", 0755));
    OK(symlink("d", "l"));
    set_times("d", 1000, 2000);
    set_times("l", 1000, 2000);
    CHECK_EQ(readlink("l", buf, sizeof(buf)), 1);
    CHECK(atime_of("l").tv_sec > 2000);
    int fd = OK(open("d", O_RDONLY | O_DIRECTORY));
    CHECK(syscall(SYS_getdents64, fd, buf, sizeof(buf)) > 0);
    CHECK(atime_of("d").tv_sec > 2000);
}
