/* inotify(7). */
#include "harness.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>

CONF_FAMILY("inotify");

static int notify_new(void)
{
    return OK(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
}

static int watch(int fd, const char *path, uint32_t mask)
{
    return OK(inotify_add_watch(fd, path, mask));
}

/* What was told so far, one event a word: "mask:name" with the watch before it when it is not 1. */
static char seen[8192];
static uint32_t last_cookie;

static const char *word(uint32_t mask)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {
        {IN_ACCESS, "access"},          {IN_MODIFY, "modify"},
        {IN_ATTRIB, "attrib"},          {IN_CLOSE_WRITE, "closew"},
        {IN_CLOSE_NOWRITE, "close"},    {IN_OPEN, "open"},
        {IN_MOVED_FROM, "from"},        {IN_MOVED_TO, "to"},
        {IN_CREATE, "create"},          {IN_DELETE, "delete"},
        {IN_DELETE_SELF, "deleteself"}, {IN_MOVE_SELF, "moveself"},
        {IN_UNMOUNT, "unmount"},        {IN_IGNORED, "ignored"},
        {IN_Q_OVERFLOW, "overflow"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if ((mask & names[i].bit) != 0)
            return names[i].name;
    return "?";
}

static const char *told(int fd)
{
    char buf[2048] __attribute__((aligned(8)));
    size_t at = 0;

    seen[0] = '\0';
    for (;;) {
        ssize_t n = read(fd, buf, sizeof(buf));
        if (n < 0) {
            CHECK_EQ(errno, EAGAIN);
            break;
        }
        for (char *p = buf; p < buf + n;) {
            const struct inotify_event *e = (const struct inotify_event *)(void *)p;
            CHECK_EQ(e->len % 16, 0);
            if (e->cookie != 0)
                last_cookie = e->cookie;
            at += (size_t)snprintf(seen + at, sizeof(seen) - at, "%s", at > 0 ? " " : "");
            if (e->wd != 1)
                at += (size_t)snprintf(seen + at, sizeof(seen) - at, "%d/", e->wd);
            at += (size_t)snprintf(seen + at, sizeof(seen) - at, "%s%s", word(e->mask),
                                   (e->mask & IN_ISDIR) != 0 ? "D" : "");
            if (e->len > 0)
                at += (size_t)snprintf(seen + at, sizeof(seen) - at, ":%s", e->name);
            if (at > sizeof(seen) - 600)
                at = 0; /* more than any case compares */
            p += sizeof(*e) + e->len;
        }
    }
    return seen;
}

TEST(errors)
{
    int fd = notify_new();

    conf_put("f", "x");
    OK(mkdir("d", 0755));
    CHECK_ERRNO(inotify_init1(0x10), EINVAL);
    CHECK_ERRNO(inotify_add_watch(fd, "absent", IN_OPEN), ENOENT);
    CHECK_ERRNO(inotify_add_watch(fd, "f", 0), EINVAL);
    CHECK_ERRNO(inotify_add_watch(fd, "f", 0x00100000), EINVAL);
    CHECK_ERRNO(inotify_add_watch(fd, "f", IN_OPEN | IN_ONLYDIR), ENOTDIR);
    CHECK_ERRNO(inotify_add_watch(fd, "f", IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE), EINVAL);
    CHECK_ERRNO(inotify_add_watch(999, "f", IN_OPEN), EBADF);
    CHECK_ERRNO(inotify_add_watch(0, "f", IN_OPEN), EINVAL);
    CHECK_ERRNO(inotify_add_watch(fd, (const char *)1, IN_OPEN), EFAULT);
    CHECK_ERRNO(inotify_rm_watch(fd, 7), EINVAL);
    CHECK_ERRNO(inotify_rm_watch(OK(open("f", O_RDONLY)), 1), EINVAL);
    CHECK_ERRNO(inotify_rm_watch(999, 1), EBADF);
    CHECK_ERRNO(write(fd, "x", 1), EBADF);
    int wd = watch(fd, "f", IN_OPEN);
    CHECK_EQ(inotify_add_watch(fd, "f", IN_CLOSE), wd);
    CHECK_ERRNO(inotify_add_watch(fd, "f", IN_OPEN | IN_MASK_CREATE), EEXIST);
    CHECK_EQ(watch(fd, "d", IN_OPEN), wd + 1);
}

TEST(unreadable_is_refused)
{
    NEED_ROOT();
    conf_put("f", "x");
    OK(chmod("f", 0600));
    OK(chmod(".", 0755));
    int fd = notify_new();
    conf_become(1234);
    CHECK_ERRNO(inotify_add_watch(fd, "f", IN_OPEN), EACCES);
}

TEST(file_events)
{
    char c;

    conf_put("f", "text");
    int fd = notify_new();
    watch(fd, "f", IN_ALL_EVENTS);
    int f = OK(open("f", O_RDWR));
    CHECK_STR(told(fd), "open");
    OK(read(f, &c, 1));
    OK(pread(f, &c, 1, 0));
    CHECK_STR(told(fd), "access");
    OK(write(f, "y", 1));
    CHECK_STR(told(fd), "modify");
    CHECK_EQ(pread(f, &c, 1, 100), 0);
    CHECK_STR(told(fd), "");
    OK(ftruncate(f, 2));
    CHECK_STR(told(fd), "modify");
    OK(fchmod(f, 0600));
    CHECK_STR(told(fd), "attrib");
    OK(futimens(f, NULL));
    CHECK_STR(told(fd), "attrib");
    OK(close(f));
    CHECK_STR(told(fd), "closew");
    OK(close(OK(open("f", O_RDONLY))));
    CHECK_STR(told(fd), "open close");
    OK(close(OK(open("f", O_WRONLY | O_TRUNC))));
    CHECK_STR(told(fd), "open modify closew");
    OK(truncate("f", 10));
    CHECK_STR(told(fd), "modify");
    OK(close(OK(open("f", O_PATH))));
    CHECK_STR(told(fd), "");
}

TEST(directory_events)
{
    OK(mkdir("d", 0755));
    int fd = notify_new();
    watch(fd, "d", IN_ALL_EVENTS & ~(uint32_t)IN_ACCESS);
    conf_put("d/f", "x");
    CHECK_STR(told(fd), "create:f open:f modify:f closew:f");
    OK(mkdir("d/sub", 0755));
    CHECK_STR(told(fd), "createD:sub");
    OK(symlink("f", "d/link"));
    CHECK_STR(told(fd), "create:link");
    OK(link("d/f", "d/hard"));
    CHECK_STR(told(fd), "create:hard");
    OK(mkfifo("d/fifo", 0600));
    CHECK_STR(told(fd), "create:fifo");
    OK(chmod("d/f", 0600));
    CHECK_STR(told(fd), "attrib:f");
    OK(unlink("d/hard"));
    CHECK_STR(told(fd), "delete:hard");
    OK(rmdir("d/sub"));
    CHECK_STR(told(fd), "deleteD:sub");
    OK(rename("d/f", "d/g"));
    CHECK_STR(told(fd), "from:f to:g");
    uint32_t cookie = last_cookie;
    CHECK(cookie != 0);
    OK(rename("d/g", "out"));
    CHECK_STR(told(fd), "from:g");
    CHECK(last_cookie != cookie);
    OK(rename("out", "d/back"));
    CHECK_STR(told(fd), "to:back");
    OK(chmod("d", 0700));
    CHECK_STR(told(fd), "attribD");
}

TEST(readdir_is_access)
{
    char buf[1024];

    OK(mkdir("d", 0755));
    int fd = notify_new();
    watch(fd, "d", IN_ALL_EVENTS);
    int d = OK(open("d", O_RDONLY | O_DIRECTORY));
    CHECK(syscall(SYS_getdents64, d, buf, sizeof(buf)) > 0);
    OK(close(d));
    CHECK_STR(told(fd), "openD accessD closeD");
}

TEST(self_events)
{
    conf_put("f", "x");
    OK(mkdir("d", 0755));
    int fd = notify_new();
    watch(fd, "f", IN_ALL_EVENTS);
    watch(fd, "d", IN_ALL_EVENTS);
    OK(rename("f", "g"));
    CHECK_STR(told(fd), "moveself");
    OK(rename("d", "e"));
    CHECK_STR(told(fd), "2/moveself");
    OK(unlink("g"));
    CHECK_STR(told(fd), "attrib deleteself ignored");
    OK(rmdir("e"));
    CHECK_STR(told(fd), "2/deleteself 2/ignored");
    CHECK_ERRNO(inotify_rm_watch(fd, 1), EINVAL);
    conf_put("f", "x");
    CHECK_EQ(watch(fd, "f", IN_ALL_EVENTS), 3);
}

TEST(deleted_while_open)
{
    conf_put("f", "x");
    int f = OK(open("f", O_RDWR));
    int fd = notify_new();
    watch(fd, "f", IN_ALL_EVENTS);
    OK(unlink("f"));
    CHECK_STR(told(fd), "attrib");
    OK(write(f, "more", 4));
    CHECK_STR(told(fd), "modify");
    OK(close(f));
    CHECK_STR(told(fd), "closew deleteself ignored");
}

TEST(hard_links_keep_it)
{
    conf_put("f", "x");
    OK(link("f", "g"));
    int fd = notify_new();
    watch(fd, "f", IN_ALL_EVENTS);
    OK(unlink("f"));
    CHECK_STR(told(fd), "attrib");
    OK(chmod("g", 0600));
    CHECK_STR(told(fd), "attrib");
    OK(unlink("g"));
    CHECK_STR(told(fd), "attrib deleteself ignored");
}

TEST(renamed_over)
{
    conf_put("f", "x");
    conf_put("g", "y");
    int fd = notify_new();
    watch(fd, "g", IN_ALL_EVENTS);
    watch(fd, "f", IN_ALL_EVENTS);
    watch(fd, ".", IN_MOVE | IN_DELETE);
    OK(rename("f", "g"));
    CHECK_STR(told(fd), "3/from:f 3/to:g attrib 2/moveself deleteself ignored");
}

TEST(exchanged)
{
    conf_put("f", "x");
    OK(mkdir("d", 0755));
    int fd = notify_new();
    watch(fd, ".", IN_ALL_EVENTS);
    OK(renameat2(AT_FDCWD, "f", AT_FDCWD, "d", RENAME_EXCHANGE));
    CHECK_STR(told(fd), "from:f to:d fromD:d toD:f");
}

TEST(masks_change)
{
    conf_put("f", "x");
    int fd = notify_new();
    watch(fd, "f", IN_OPEN);
    OK(close(OK(open("f", O_RDONLY))));
    CHECK_STR(told(fd), "open");
    watch(fd, "f", IN_CLOSE | IN_MASK_ADD);
    OK(close(OK(open("f", O_RDONLY))));
    CHECK_STR(told(fd), "open close");
    watch(fd, "f", IN_CLOSE);
    OK(close(OK(open("f", O_RDONLY))));
    CHECK_STR(told(fd), "close");
}

TEST(oneshot)
{
    conf_put("f", "x");
    int fd = notify_new();
    watch(fd, "f", IN_OPEN | IN_ONESHOT);
    OK(close(OK(open("f", O_RDONLY))));
    OK(close(OK(open("f", O_RDONLY))));
    CHECK_STR(told(fd), "open ignored");
    CHECK_ERRNO(inotify_rm_watch(fd, 1), EINVAL);
}

TEST(exclude_unlinked)
{
    OK(mkdir("d", 0755));
    conf_put("d/f", "x");
    int fd = notify_new();
    watch(fd, "d", IN_MODIFY | IN_EXCL_UNLINK);
    int f = OK(open("d/f", O_RDWR));
    OK(write(f, "a", 1));
    CHECK_STR(told(fd), "modify:f");
    OK(unlink("d/f"));
    OK(write(f, "b", 1));
    CHECK_STR(told(fd), "");
}

TEST(symlinks)
{
    conf_put("f", "x");
    OK(symlink("f", "l"));
    int fd = notify_new();
    int a = watch(fd, "l", IN_OPEN);
    int b = watch(fd, "l", IN_OPEN | IN_DONT_FOLLOW);
    CHECK(a != b);
    OK(close(OK(open("f", O_RDONLY))));
    CHECK_STR(told(fd), "open");
}

TEST(rm_watch_says_ignored)
{
    conf_put("f", "x");
    int fd = notify_new();
    int wd = watch(fd, "f", IN_OPEN);
    OK(inotify_rm_watch(fd, wd));
    CHECK_STR(told(fd), "ignored");
    OK(close(OK(open("f", O_RDONLY))));
    CHECK_STR(told(fd), "");
}

TEST(equal_events_are_one)
{
    conf_put("f", "x");
    int fd = notify_new();
    watch(fd, "f", IN_MODIFY | IN_ATTRIB);
    int f = OK(open("f", O_WRONLY));
    for (int i = 0; i < 5; i++)
        OK(write(f, "y", 1));
    OK(fchmod(f, 0600));
    OK(write(f, "y", 1));
    CHECK_STR(told(fd), "modify attrib modify");
}

TEST(reading)
{
    char buf[512] __attribute__((aligned(8)));
    int left;

    conf_put("name", "x");
    int fd = notify_new();
    watch(fd, ".", IN_OPEN);
    CHECK_ERRNO(read(fd, buf, sizeof(buf)), EAGAIN);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 0), 0);
    OK(close(OK(open("name", O_RDONLY))));
    CHECK_EQ(poll(&p, 1, 0), 1);
    OK(ioctl(fd, FIONREAD, &left));
    CHECK_EQ(left, sizeof(struct inotify_event) + 16);
    CHECK_ERRNO(read(fd, buf, 16), EINVAL);
    CHECK_ERRNO(read(fd, buf, sizeof(struct inotify_event)), EINVAL);
    CHECK_EQ(read(fd, buf, sizeof(buf)), sizeof(struct inotify_event) + 16);
    const struct inotify_event *e = (const struct inotify_event *)(void *)buf;
    CHECK_STR(e->name, "name");
    CHECK_EQ(e->len, 16);
    CHECK_EQ(e->mask, IN_OPEN);
}

TEST(a_reader_waits)
{
    char buf[512] __attribute__((aligned(8)));

    conf_put("f", "x");
    int fd = OK(inotify_init());
    watch(fd, "f", IN_ATTRIB);
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_await_asleep(getppid());
        OK(chmod("f", 0600));
        _exit(0);
    }
    CHECK_EQ(read(fd, buf, sizeof(buf)), sizeof(struct inotify_event));
    CHECK_EXIT(pid, 0);
}

TEST(overflow)
{
    char line[64], name[32];
    long limit = 16384;

    if (conf_exists("/proc/sys/fs/inotify/max_queued_events")) {
        conf_get("/proc/sys/fs/inotify/max_queued_events", line, sizeof(line));
        limit = atol(line);
    }
    OK(mkdir("d", 0755));
    int fd = notify_new();
    watch(fd, "d", IN_CREATE | IN_DELETE);
    for (long i = 0; i < limit / 2 + 10; i++) {
        (void)snprintf(name, sizeof(name), "d/%ld", i);
        OK(mknod(name, S_IFREG | 0600, 0));
        OK(unlink(name));
    }
    char buf[2048] __attribute__((aligned(8)));
    long count = 0, over = 0;
    ssize_t n;
    while ((n = read(fd, buf, sizeof(buf))) > 0) {
        for (char *p = buf; p < buf + n;) {
            const struct inotify_event *e = (const struct inotify_event *)(void *)p;
            count++;
            if ((e->mask & IN_Q_OVERFLOW) != 0) {
                over++;
                CHECK_EQ(e->wd, -1);
            }
            p += sizeof(*e) + e->len;
        }
    }
    CHECK_EQ(over, 1);
    CHECK_EQ(count, limit + 1);
}

TEST(two_instances)
{
    conf_put("f", "x");
    int a = notify_new(), b = notify_new();
    watch(a, "f", IN_OPEN);
    watch(b, "f", IN_CLOSE);
    OK(close(OK(open("f", O_RDONLY))));
    CHECK_STR(told(a), "open");
    CHECK_STR(told(b), "close");
    OK(close(a));
    OK(close(OK(open("f", O_RDONLY))));
    CHECK_STR(told(b), "close");
}

TEST(races_of_watches_and_events)
{
    volatile int *stop = conf_shared(sizeof(int));

    OK(mkdir("d", 0755));
    pid_t pid = conf_fork();
    if (pid == 0) {
        while (*stop == 0) {
            conf_put("d/f", "x");
            OK(rename("d/f", "d/g"));
            OK(unlink("d/g"));
        }
        _exit(0);
    }
    for (int i = 0; i < 300; i++) {
        int fd = notify_new();
        watch(fd, "d", IN_ALL_EVENTS);
        int wd = inotify_add_watch(fd, "d/f", IN_ALL_EVENTS);
        (void)told(fd);
        if (wd > 0)
            (void)inotify_rm_watch(fd, wd);
        OK(close(fd));
    }
    *stop = 1;
    CHECK_EXIT(pid, 0);
}
