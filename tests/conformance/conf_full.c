/* A file system of 1 MiB and 20 inodes that is full: who learns of it, what still works, and that
 * there is room again at once when something is taken away. */
#include "harness.h"

#include <linux/falloc.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>

CONF_FAMILY("full");

#define PIECE 65536

static char piece[PIECE];

/* A file of all the room that there is. */
static int fill(const char *name)
{
    const int fd = OK(open(name, O_CREAT | O_RDWR, 0600));
    struct stat st;
    ssize_t n;
    off_t sum = 0;

    while ((n = pwrite(fd, piece, PIECE, sum)) > 0)
        sum += n;
    CHECK_EQ(n, -1);
    CHECK_EQ(errno, ENOSPC);
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_size, sum);
    CHECK(sum > 0 && sum <= 1 << 20);
    return fd;
}

/* Into a page of a mapped file, by a child. */
static pid_t store(int fd, off_t at)
{
    const pid_t pid = conf_fork();

    if (pid != 0)
        return pid;
    volatile char *p = OK(mmap(NULL, CONF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at));
    p[0] = 1;
    _exit(0);
}

static void every_way_of_writing(void)
{
    const int full = fill("a"), source = OK(open("/proc/self/exe", O_RDONLY));
    const int end = OK(open("b", O_CREAT | O_WRONLY | O_APPEND, 0600));
    const int more = OK(open("b", O_RDWR));
    const struct iovec v[2] = {{piece, 5}, {piece + 7, 9}};

    CHECK_ERRNO(write(end, "x", 1), ENOSPC);
    CHECK_ERRNO(pwrite(more, "x", 1, 9), ENOSPC);
    CHECK_ERRNO(writev(more, v, 2), ENOSPC);
    CHECK_ERRNO(sendfile(more, source, NULL, 100), ENOSPC);
    CHECK_ERRNO(copy_file_range(full, NULL, more, NULL, CONF_PAGE, 0), ENOSPC);
    CHECK_ERRNO(fallocate(more, 0, 0, PIECE), ENOSPC);
    OK(ftruncate(more, 1 << 20));
    CHECK_KILLED(store(more, CONF_PAGE), SIGBUS);
    /* What has its pages keeps them. */
    CHECK_EQ(pwrite(full, piece, 8192, 0), 8192);
    CHECK_EXIT(store(full, CONF_PAGE), 0);
    OK(fsync(full));
    CHECK_EQ(pwrite(full, "x", 1, 0), 1);
    OK(close(full));
    OK(close(end));
    OK(close(more));
    OK(close(source));
}

static void room_again(void)
{
    const int full = OK(open("a", O_RDWR)), more = OK(open("b", O_RDWR));

    OK(fallocate(full, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 16384));
    CHECK_EQ(pwrite(more, piece, 16384, 0), 16384);
    CHECK_ERRNO(pwrite(more, piece, 8192, 65536), ENOSPC);
    OK(unlink("a"));
    CHECK_ERRNO(pwrite(more, piece, 8192, 65536), ENOSPC);
    OK(close(full));
    CHECK_EQ(pwrite(more, piece, PIECE, 65536), PIECE);
    /* The room that is made is taken at once. */
    OK(unlink("b"));
    OK(close(more));
    for (int i = 0; i < 30; i++) {
        const int fd = fill("c");
        OK(unlink("c"));
        OK(close(fd));
    }
}

static void names(void)
{
    char name[16];
    int n = 0;

    do
        (void)snprintf(name, sizeof(name), "d%d", n);
    while (n < 1000 && mkdir(name, 0700) == 0 && ++n);
    CHECK_EQ(errno, ENOSPC);
    CHECK_EQ(n, 19);
    CHECK_ERRNO(open("f", O_CREAT | O_WRONLY, 0600), ENOSPC);
    CHECK_ERRNO(open(".", O_TMPFILE | O_RDWR, 0600), ENOSPC);
    CHECK_ERRNO(symlink("x", "l"), ENOSPC);
    CHECK_ERRNO(mknod("p", S_IFIFO | 0600, 0), ENOSPC);
    OK(rename("d0", "e"));
    OK(rmdir("e"));
    conf_put("f", "x");
    OK(unlink("f"));
    for (int i = 1; i < n; i++) {
        (void)snprintf(name, sizeof(name), "d%d", i);
        OK(rmdir(name));
    }
}

static void everything(bool counted)
{
    memset(piece, 'x', sizeof(piece));
    every_way_of_writing();
    room_again();
    if (counted)
        names();
}

/* `conf_full --helper full [names]`, in such a file system. */
HELPER(full)
{
    (void)argv;
    everything(argc > 1);
    return 0;
}

TEST(tmpfs)
{
    NEED_ROOT();
    if (unshare(CLONE_NEWNS) == 0)
        OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(mkdir("t", 0755));
    OK(mount("tmpfs", "t", "tmpfs", 0, "size=1m,nr_inodes=20"));
    OK(chdir("t"));
    everything(true);
    OK(chdir(".."));
    OK(umount("t"));
}
