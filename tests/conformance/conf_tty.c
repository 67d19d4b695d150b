/* Pseudo-terminals: pairs, the line discipline, packet mode, /dev/pts. */
#include "harness.h"

#include <dirent.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>

CONF_FAMILY("tty");

#define QUIET_MS 60

struct pair {
    int m, s, index;
    char name[32];
};

static struct pair master_only(void)
{
    struct pair p = {.s = -1};
    int zero = 0;
    p.m = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY));
    OK(ioctl(p.m, TIOCGPTN, &p.index));
    OK(ioctl(p.m, TIOCSPTLCK, &zero));
    snprintf(p.name, sizeof(p.name), "/dev/pts/%d", p.index);
    return p;
}

static struct pair open_pair(void)
{
    struct pair p = master_only();
    p.s = OK(open(p.name, O_RDWR | O_NOCTTY));
    return p;
}

static struct termios settings(int fd)
{
    struct termios t;
    OK(tcgetattr(fd, &t));
    return t;
}

/* Local, input and output flags as they should be; the keys stay. */
static void set_flags(int fd, tcflag_t lflag, tcflag_t iflag, tcflag_t oflag)
{
    struct termios t = settings(fd);
    t.c_lflag = lflag;
    t.c_iflag = iflag;
    t.c_oflag = oflag;
    OK(tcsetattr(fd, TCSANOW, &t));
}

static void set_raw(int fd, cc_t min, cc_t time)
{
    struct termios t = settings(fd);
    cfmakeraw(&t);
    t.c_cc[VMIN] = min;
    t.c_cc[VTIME] = time;
    OK(tcsetattr(fd, TCSANOW, &t));
}

static short events(int fd, short want, int ms)
{
    struct pollfd p = {.fd = fd, .events = want};
    OK(poll(&p, 1, ms));
    return p.revents;
}

/* Exactly these bytes come next. What is written to one side reaches the other some time later. */
static void expect_bytes(int line, int fd, const char *text, size_t len)
{
    char got[512];
    size_t n = 0;
    while (n < len) {
        if (!(events(fd, POLLIN, CONF_PATIENCE_S * 1000) & POLLIN))
            conf_fail(__FILE__, line, "only %zu of %zu bytes: \"%.*s\"", n, len, (int)n, got);
        ssize_t r = read(fd, got + n, len - n);
        if (r <= 0)
            conf_fail(__FILE__, line, "read gave %zd errno %d", r, errno);
        n += (size_t)r;
    }
    if (memcmp(got, text, len) != 0)
        conf_fail(__FILE__, line, "got \"%.*s\", not \"%.*s\"", (int)len, got, (int)len, text);
}
#define EXPECT(fd, text) expect_bytes(__LINE__, fd, text, sizeof(text) - 1)
#define SEND(fd, text) CHECK_EQ(write(fd, text, sizeof(text) - 1), sizeof(text) - 1)
#define EXPECT_QUIET(fd) CHECK_EQ(events(fd, POLLIN, QUIET_MS) & POLLIN, 0)

/* ---- the pair and its name ---- */

TEST(slave_has_a_name_and_number)
{
    struct pair p = open_pair();
    struct stat st;
    OK(fstat(p.s, &st));
    CHECK(S_ISCHR(st.st_mode));
    CHECK_EQ(st.st_rdev, makedev(136, (unsigned)p.index));
    CHECK_EQ(st.st_uid, geteuid());
    OK(stat("/dev/ptmx", &st));
    CHECK_EQ(st.st_rdev, makedev(5, 2));
    char link[64], target[64] = "";
    snprintf(link, sizeof(link), "/proc/self/fd/%d", p.s);
    OK(readlink(link, target, sizeof(target) - 1));
    CHECK_STR(target, p.name);
    CHECK(isatty(p.s));
    CHECK(isatty(p.m));
}

TEST(pts_is_a_file_system_that_lists_slaves)
{
    struct pair p = open_pair();
    struct statfs fs;
    OK(statfs("/dev/pts", &fs));
    CHECK_EQ(fs.f_type, 0x1cd1);
    DIR *d = opendir("/dev/pts");
    CHECK(d != NULL);
    int seen = 0, ptmx = 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        if (atoi(e->d_name) == p.index && e->d_name[0] != '.' && e->d_name[0] != 'p')
            seen++;
        if (strcmp(e->d_name, "ptmx") == 0)
            ptmx++;
    }
    closedir(d);
    CHECK_EQ(seen, 1);
    CHECK_EQ(ptmx, 1);
    CHECK_ERRNO(open("/dev/pts/new", O_RDWR | O_CREAT, 0600), EACCES);
    CHECK_ERRNO(mkdir("/dev/pts/new", 0700), EPERM);
}

TEST(slave_goes_with_its_master)
{
    struct pair p = open_pair();
    OK(close(p.m));
    CHECK_ERRNO(open(p.name, O_RDWR | O_NOCTTY), ENOENT);
    CHECK_ERRNO(access(p.name, F_OK), ENOENT);
}

static bool reopened_alike(void)
{
    struct pair p = open_pair();
    OK(close(p.s));
    OK(close(p.m));
    struct pair q = open_pair();
    SEND(q.m, "x\n");
    EXPECT(q.s, "x\n");
    OK(close(q.s));
    OK(close(q.m));
    return q.index == p.index;
}

TEST(number_is_used_again)
{
    /* Unless somebody else who uses this /dev/pts is faster. */
    EVENTUALLY(reopened_alike());
}

TEST(locked_slave_does_not_open)
{
    struct pair p = master_only();
    int one = 1, v = -1;
    OK(ioctl(p.m, TIOCSPTLCK, &one));
    OK(ioctl(p.m, TIOCGPTLCK, &v));
    CHECK_EQ(v, 1);
    CHECK_ERRNO(open(p.name, O_RDWR | O_NOCTTY), EIO);
    v = 0;
    OK(ioctl(p.m, TIOCSPTLCK, &v));
    OK(close(OK(open(p.name, O_RDWR | O_NOCTTY))));
    int fresh = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY));
    OK(ioctl(fresh, TIOCGPTLCK, &v));
    CHECK_EQ(v, 1);
}

TEST(peer_opens_through_the_master)
{
    struct pair p = master_only();
    int s = OK(ioctl(p.m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    CHECK_EQ(fcntl(s, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(fcntl(s, F_GETFL) & O_ACCMODE, O_RDWR);
    SEND(p.m, "x\n");
    EXPECT(s, "x\n");
    CHECK_ERRNO(ioctl(s, TIOCGPTPEER, O_RDWR), EIO);
    CHECK_ERRNO(ioctl(s, TIOCGPTN, &p.index), ENOTTY);
}

TEST(exclusive_keeps_others_out)
{
    struct pair p = open_pair();
    OK(chmod(p.name, 0666));
    OK(ioctl(p.s, TIOCEXCL));
    int v = 0;
    OK(ioctl(p.s, TIOCGEXCL, &v));
    CHECK_EQ(v, 1);
    pid_t pid = conf_fork();
    if (pid == 0) {
        if (geteuid() == 0)
            conf_become(12345);
        CHECK_ERRNO(open(p.name, O_RDWR | O_NOCTTY), EBUSY);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(ioctl(p.s, TIOCNXCL));
    OK(close(OK(open(p.name, O_RDWR | O_NOCTTY))));
}

/* ---- settings ---- */

TEST(settings_at_first)
{
    struct pair p = open_pair();
    struct termios t = settings(p.s);
    CHECK_EQ(t.c_iflag, ICRNL | IXON);
    CHECK_EQ(t.c_oflag, OPOST | ONLCR);
    CHECK_EQ(t.c_cflag & ~(tcflag_t)CBAUD, CS8 | CREAD);
    CHECK_EQ(t.c_lflag, ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN);
    CHECK_EQ(cfgetospeed(&t), B38400);
    CHECK_EQ(t.c_cc[VINTR], 3);
    CHECK_EQ(t.c_cc[VERASE], 0x7f);
    CHECK_EQ(t.c_cc[VEOF], 4);
    CHECK_EQ(t.c_cc[VMIN], 1);
    CHECK_EQ(t.c_cc[VTIME], 0);
    CHECK_EQ(t.c_cc[VSUSP], 26);
    CHECK_EQ(t.c_cc[VLNEXT], 22);
    /* The master shows those of the slave. */
    struct termios u = settings(p.m);
    CHECK_EQ(u.c_lflag, t.c_lflag);
}

TEST(settings_change_from_either_side)
{
    struct pair p = open_pair();
    struct termios t = settings(p.s);
    t.c_lflag &= ~(tcflag_t)ECHO;
    t.c_cc[VINTR] = 7;
    OK(tcsetattr(p.m, TCSANOW, &t));
    CHECK_EQ(settings(p.s).c_lflag & ECHO, 0);
    CHECK_EQ(settings(p.s).c_cc[VINTR], 7);
    t.c_cflag = (t.c_cflag & ~(tcflag_t)(CSIZE | CREAD)) | CS7 | PARENB;
    /* The C library compares what it asked for with what there is. */
    CHECK_ERRNO(tcsetattr(p.s, TCSANOW, &t), EINVAL);
    CHECK_EQ(settings(p.s).c_cflag & (CSIZE | PARENB | CREAD), CS8 | CREAD);
    t = settings(p.s);
    cfsetospeed(&t, B9600);
    OK(tcsetattr(p.s, TCSADRAIN, &t));
    t = settings(p.m);
    CHECK_EQ(cfgetospeed(&t), B9600);
    int v = -1;
    OK(ioctl(p.s, TIOCGETD, &v));
    CHECK_EQ(v, 0);
}

TEST(size_is_shared)
{
    struct pair p = open_pair();
    struct winsize ws;
    OK(ioctl(p.s, TIOCGWINSZ, &ws));
    CHECK_EQ(ws.ws_row, 0);
    ws = (struct winsize){.ws_row = 25, .ws_col = 80, .ws_xpixel = 3, .ws_ypixel = 4};
    OK(ioctl(p.m, TIOCSWINSZ, &ws));
    memset(&ws, 0, sizeof(ws));
    OK(ioctl(p.s, TIOCGWINSZ, &ws));
    CHECK_EQ(ws.ws_row, 25);
    CHECK_EQ(ws.ws_col, 80);
    CHECK_EQ(ws.ws_xpixel, 3);
    ws.ws_row = 26;
    OK(ioctl(p.s, TIOCSWINSZ, &ws));
    memset(&ws, 0, sizeof(ws));
    OK(ioctl(p.m, TIOCGWINSZ, &ws));
    CHECK_EQ(ws.ws_row, 26);
    CHECK_ERRNO(ioctl(p.s, TIOCGWINSZ, NULL), EFAULT);
    CHECK_ERRNO(ioctl(p.s, TIOCSWINSZ, (void *)8), EFAULT);
}

TEST(unknown_requests)
{
    struct pair p = open_pair();
    int v = 0;
    CHECK_ERRNO(ioctl(p.s, 0x54ee, &v), ENOTTY);
    CHECK_ERRNO(ioctl(p.m, 0x54ee, &v), ENOTTY);
    CHECK_ERRNO(ioctl(p.s, TIOCPKT, &v), ENOTTY);
    CHECK_ERRNO(tcflush(p.s, 9), EINVAL);
    CHECK_ERRNO(tcflow(p.s, 9), EINVAL);
    OK(tcdrain(p.s));
    OK(tcsendbreak(p.s, 0));
    CHECK_ERRNO(lseek(p.s, 0, SEEK_CUR), ESPIPE);
    char c;
    CHECK_ERRNO(pread(p.s, &c, 1, 0), ESPIPE);
}

/* ---- lines ---- */

TEST(line_and_its_echo)
{
    struct pair p = open_pair();
    SEND(p.m, "abc");
    EXPECT(p.m, "abc");
    EXPECT_QUIET(p.s);
    SEND(p.m, "d\n");
    EXPECT(p.m, "d\r\n");
    char buf[64];
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 5);
    CHECK_EQ(memcmp(buf, "abcd\n", 5), 0);
}

TEST(one_line_per_read)
{
    struct pair p = open_pair();
    char buf[64];
    SEND(p.m, "one\ntwo\nthree");
    EXPECT(p.m, "one\r\ntwo\r\nthree");
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 4);
    CHECK_EQ(read(p.s, buf, 2), 2);
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 2);
    CHECK_EQ(memcmp(buf, "o\n", 2), 0);
    OK(fcntl(p.s, F_SETFL, O_NONBLOCK));
    CHECK_ERRNO(read(p.s, buf, sizeof(buf)), EAGAIN);
}

TEST(carriage_return_ends_a_line)
{
    struct pair p = open_pair();
    SEND(p.m, "x\r");
    EXPECT(p.m, "x\r\n");
    EXPECT(p.s, "x\n");
}

TEST(end_of_file_key)
{
    struct pair p = open_pair();
    char buf[16];
    SEND(p.m, "abc\x04");
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 3);
    SEND(p.m, "\x04");
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 0);
    /* It is not echoed. */
    EXPECT(p.m, "abc");
    EXPECT_QUIET(p.m);
}

TEST(end_of_file_goes_with_what_fits_exactly)
{
    struct pair p = open_pair();
    char buf[16];
    SEND(p.m, "abc\x04");
    CHECK_EQ(read(p.s, buf, 3), 3);
    OK(fcntl(p.s, F_SETFL, O_NONBLOCK));
    CHECK_ERRNO(read(p.s, buf, sizeof(buf)), EAGAIN);
}

TEST(other_line_ends)
{
    struct pair p = open_pair();
    struct termios t = settings(p.s);
    t.c_cc[VEOL] = ';';
    t.c_cc[VEOL2] = ',';
    OK(tcsetattr(p.s, TCSANOW, &t));
    char buf[16];
    SEND(p.m, "a;b,c\n");
    EXPECT(p.m, "a;b,c\r\n");
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 2);
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 2);
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 2);
}

TEST(erase_key)
{
    struct pair p = open_pair();
    SEND(p.m, "ab\x7f"
              "c\n");
    EXPECT(p.m, "ab\b \bc\r\n");
    EXPECT(p.s, "ac\n");
    /* Nothing of an earlier line, and nothing on an empty one. */
    SEND(p.m, "\x7f\x7fx\n");
    EXPECT(p.m, "x\r\n");
    EXPECT(p.s, "x\n");
}

TEST(erase_of_control_characters)
{
    struct pair p = open_pair();
    SEND(p.m, "\x01\x7fz\n");
    EXPECT(p.m, "^A\b \b\b \bz\r\n");
    EXPECT(p.s, "z\n");
}

TEST(erase_without_echoe)
{
    struct pair p = open_pair();
    set_flags(p.s, ICANON | ECHO, ICRNL, OPOST | ONLCR);
    SEND(p.m, "ab\x7f\n");
    EXPECT(p.m, "ab\x7f\r\n");
    EXPECT(p.s, "a\n");
}

TEST(erase_of_tabs_goes_back_to_where_they_began)
{
    struct pair p = open_pair();
    SEND(p.m, "ab\t\x7fx\n");
    EXPECT(p.m, "ab\t\b\b\b\b\b\bx\r\n");
    EXPECT(p.s, "abx\n");
    SEND(p.s, "> ");
    SEND(p.m, "a\t\x7f\n");
    EXPECT(p.m, "> a\t\b\b\b\b\b\r\n");
    EXPECT(p.s, "a\n");
    SEND(p.m, "\t\t\x7f\x7f\n");
    EXPECT(p.m, "\t\t\b\b\b\b\b\b\b\b\b\b\b\b\b\b\b\b\r\n");
    EXPECT(p.s, "\n");
}

TEST(erase_of_utf8)
{
    struct pair p = open_pair();
    struct termios t = settings(p.s);
    t.c_iflag |= IUTF8;
    OK(tcsetattr(p.s, TCSANOW, &t));
    SEND(p.m, "a\xc3\xa4\x7f\n");
    EXPECT(p.m, "a\xc3\xa4\b \b\r\n");
    EXPECT(p.s, "a\n");
}

TEST(word_erase_key)
{
    struct pair p = open_pair();
    SEND(p.m, "ab cd,\x17z\n");
    EXPECT(p.m, "ab cd,\b \b\b \b\b \bz\r\n");
    EXPECT(p.s, "ab z\n");
}

TEST(kill_key)
{
    struct pair p = open_pair();
    SEND(p.m, "abc\x15z\n");
    EXPECT(p.m, "abc\b \b\b \b\b \bz\r\n");
    EXPECT(p.s, "z\n");
    set_flags(p.s, ICANON | ECHO | ECHOE | ECHOK, ICRNL, OPOST | ONLCR);
    SEND(p.m, "abc\x15z\n");
    EXPECT(p.m, "abc\x15\r\nz\r\n");
    EXPECT(p.s, "z\n");
    set_flags(p.s, ICANON, ICRNL, OPOST);
    SEND(p.m, "abc\x15z\n");
    EXPECT(p.s, "z\n");
    EXPECT_QUIET(p.m);
}

TEST(erase_on_paper)
{
    struct pair p = open_pair();
    set_flags(p.s, ICANON | ECHO | ECHOE | ECHOPRT, ICRNL, OPOST | ONLCR);
    SEND(p.m, "abc\x7f\x7fx\n");
    EXPECT(p.m, "abc\\cb/x\r\n");
    EXPECT(p.s, "ax\n");
}

TEST(literal_next_key)
{
    struct pair p = open_pair();
    SEND(p.m, "a\x16\x7f\x16\x03z\n");
    EXPECT(p.m, "a^\b^?^\b^Cz\r\n");
    EXPECT(p.s, "a\x7f\x03z\n");
    SEND(p.m, "\x16\nb\n");
    EXPECT(p.m, "^\b^Jb\r\n");
    char buf[16];
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 3);
}

TEST(reprint_key)
{
    struct pair p = open_pair();
    SEND(p.m, "ab\x12"
              "c\n");
    EXPECT(p.m, "ab^R\r\nabc\r\n");
    EXPECT(p.s, "abc\n");
}

TEST(keys_without_iexten)
{
    struct pair p = open_pair();
    set_flags(p.s, ICANON | ECHO | ECHOCTL | ECHOE, ICRNL, OPOST | ONLCR);
    SEND(p.m, "a\x17\x16\x12\n");
    EXPECT(p.m, "a^W^V^R\r\n");
    EXPECT(p.s, "a\x17\x16\x12\n");
}

TEST(control_characters_echoed_as_they_are)
{
    struct pair p = open_pair();
    set_flags(p.s, ICANON | ECHO, ICRNL, OPOST | ONLCR);
    SEND(p.m, "\x01\x1b\t\n");
    EXPECT(p.m, "\x01\x1b\t\r\n");
}

TEST(newline_alone_echoed)
{
    struct pair p = open_pair();
    set_flags(p.s, ICANON | ECHONL, ICRNL, OPOST | ONLCR);
    SEND(p.m, "abc\n");
    EXPECT(p.m, "\r\n");
    EXPECT(p.s, "abc\n");
    EXPECT_QUIET(p.m);
}

TEST(line_that_is_too_long)
{
    struct pair p = open_pair();
    static char big[6000], got[8192];
    set_flags(p.s, ICANON, ICRNL, OPOST);
    memset(big, 'x', sizeof(big));
    CHECK_EQ(write(p.m, big, sizeof(big)), sizeof(big));
    SEND(p.m, "y\n");
    CHECK_EQ(read(p.s, got, sizeof(got)), 4096);
    CHECK_EQ(got[4094], 'x');
    CHECK_EQ(got[4095], '\n');
    SEND(p.m, "next\n");
    EXPECT(p.s, "next\n");
}

TEST(canonical_mode_comes_and_goes)
{
    struct pair p = open_pair();
    char buf[16];
    set_flags(p.s, ICANON, 0, 0);
    SEND(p.m, "abc");
    EXPECT_QUIET(p.s);
    set_flags(p.s, 0, 0, 0);
    CHECK(events(p.s, POLLIN, CONF_PATIENCE_S * 1000) & POLLIN);
    CHECK_EQ(read(p.s, buf, 2), 2);
    set_flags(p.s, ICANON, 0, 0);
    /* What was there before is read at once. */
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 1);
    CHECK_EQ(buf[0], 'c');
    SEND(p.m, "d\n");
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 2);
}

/* ---- input and output processing ---- */

TEST(input_translation)
{
    struct pair p = open_pair();
    set_flags(p.s, ICANON, INLCR, 0);
    SEND(p.m, "a\nb\x04");
    EXPECT(p.s, "a\rb");
    set_flags(p.s, ICANON, IGNCR, 0);
    SEND(p.m, "a\rb\n");
    EXPECT(p.s, "ab\n");
    set_flags(p.s, ICANON | IEXTEN, IUCLC | ISTRIP, 0);
    SEND(p.m, "Ab\xc3\n");
    EXPECT(p.s, "abc\n");
    set_flags(p.s, ICANON, PARMRK, 0);
    SEND(p.m, "a\xff"
              "b\n");
    EXPECT(p.s, "a\xff\xff"
                "b\n");
}

TEST(output_translation)
{
    struct pair p = open_pair();
    SEND(p.s, "a\nb\rc");
    EXPECT(p.m, "a\r\nb\rc");
    set_flags(p.s, 0, 0, OPOST | OCRNL);
    SEND(p.s, "a\rb\n");
    EXPECT(p.m, "a\nb\n");
    set_flags(p.s, 0, 0, OPOST | ONLCR | ONOCR);
    SEND(p.s, "\n\ra\r");
    EXPECT(p.m, "\r\na\r");
    set_flags(p.s, 0, 0, OPOST | OLCUC);
    SEND(p.s, "aBc\n");
    EXPECT(p.m, "ABC\n");
    set_flags(p.s, 0, 0, 0);
    SEND(p.s, "a\nb");
    EXPECT(p.m, "a\nb");
}

TEST(output_tabs)
{
    struct pair p = open_pair();
    set_flags(p.s, 0, 0, OPOST | ONLCR | XTABS);
    SEND(p.s, "a\tb\n\tc\b\tx\n");
    EXPECT(p.m, "a       b\r\n        c\b        x\r\n");
}

TEST(stop_and_start_keys)
{
    struct pair p = open_pair();
    set_flags(p.s, ICANON, IXON, 0);
    SEND(p.m, "\x13");
    EVENTUALLY(!(events(p.s, POLLOUT, 0) & POLLOUT));
    OK(fcntl(p.s, F_SETFL, O_NONBLOCK));
    CHECK_ERRNO(write(p.s, "abc", 3), EAGAIN);
    CHECK_EQ(events(p.s, POLLOUT, 0) & POLLOUT, 0);
    SEND(p.m, "\x11");
    CHECK(events(p.s, POLLOUT, CONF_PATIENCE_S * 1000) & POLLOUT);
    SEND(p.s, "abc");
    EXPECT(p.m, "abc");
    /* Neither key is input. */
    SEND(p.m, "\n");
    EXPECT(p.s, "\n");
}

TEST(any_key_starts)
{
    struct pair p = open_pair();
    set_flags(p.s, ICANON, IXON | IXANY, 0);
    SEND(p.m, "\x13");
    EVENTUALLY(!(events(p.s, POLLOUT, 0) & POLLOUT));
    SEND(p.m, "x");
    OK(fcntl(p.s, F_SETFL, O_NONBLOCK));
    CHECK(events(p.s, POLLOUT, CONF_PATIENCE_S * 1000) & POLLOUT);
    SEND(p.s, "abc");
    EXPECT(p.m, "abc");
    SEND(p.m, "\n");
    EXPECT(p.s, "x\n");
}

TEST(flow_by_request)
{
    struct pair p = open_pair();
    set_flags(p.s, ICANON, IXON, 0);
    OK(fcntl(p.s, F_SETFL, O_NONBLOCK));
    OK(tcflow(p.s, TCOOFF));
    CHECK_ERRNO(write(p.s, "a", 1), EAGAIN);
    /* The key does not start what was stopped by request. */
    SEND(p.m, "\x11");
    conf_sleep_ms(30);
    CHECK_ERRNO(write(p.s, "a", 1), EAGAIN);
    OK(tcflow(p.s, TCOON));
    SEND(p.s, "a");
    EXPECT(p.m, "a");
    OK(tcflow(p.s, TCIOFF));
    EXPECT(p.m, "\x13");
    OK(tcflow(p.s, TCION));
    EXPECT(p.m, "\x11");
}

/* ---- raw mode ---- */

TEST(raw_bytes)
{
    struct pair p = open_pair();
    set_raw(p.s, 1, 0);
    SEND(p.m, "\x03\x04\x7f\r\n\x11\xff");
    EXPECT(p.s, "\x03\x04\x7f\r\n\x11\xff");
    EXPECT_QUIET(p.m);
}

TEST(raw_minimum)
{
    struct pair p = open_pair();
    char buf[16];
    set_raw(p.s, 3, 0);
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_await_asleep(getppid());
        SEND(p.m, "a");
        conf_sleep_ms(50);
        conf_await_asleep(getppid());
        SEND(p.m, "bc");
        _exit(0);
    }
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 3);
    CHECK_EXIT(pid, 0);
    SEND(p.m, "xy");
    CHECK_EQ(events(p.s, POLLIN, QUIET_MS) & POLLIN, 0);
    /* As much as was asked for is enough. */
    CHECK_EQ(read(p.s, buf, 2), 2);
}

TEST(raw_timeout)
{
    struct pair p = open_pair();
    char buf[16];
    set_raw(p.s, 0, 0);
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 0);
    set_raw(p.s, 0, 2);
    int64_t start = conf_now();
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 0);
    CHECK(conf_now() - start >= 190000000);
    SEND(p.m, "a");
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 1);
}

TEST(raw_gap_between_bytes)
{
    struct pair p = open_pair();
    char buf[16];
    set_raw(p.s, 5, 2);
    SEND(p.m, "ab");
    int64_t start = conf_now();
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 2);
    CHECK(conf_now() - start >= 190000000);
}

TEST(raw_nonblocking)
{
    struct pair p = open_pair();
    char c;
    set_raw(p.s, 1, 0);
    OK(fcntl(p.s, F_SETFL, O_NONBLOCK));
    CHECK_ERRNO(read(p.s, &c, 1), EAGAIN);
    OK(fcntl(p.m, F_SETFL, O_NONBLOCK));
    CHECK_ERRNO(read(p.m, &c, 1), EAGAIN);
}

TEST(raw_input_fills_up)
{
    struct pair p = open_pair();
    static char big[1 << 18];
    set_raw(p.s, 1, 0);
    OK(fcntl(p.m, F_SETFL, O_NONBLOCK));
    ssize_t n = 0, r;
    while ((r = write(p.m, big, sizeof(big))) > 0)
        n += r;
    CHECK_EQ(errno, EAGAIN);
    CHECK(n >= 4095);
    ssize_t got = 0;
    while (got < n) {
        CHECK(events(p.s, POLLIN, CONF_PATIENCE_S * 1000) & POLLIN);
        got += OK(read(p.s, big, sizeof(big)));
    }
    CHECK_EQ(got, n);
    CHECK(events(p.m, POLLOUT, CONF_PATIENCE_S * 1000) & POLLOUT);
}

TEST(output_fills_up)
{
    struct pair p = open_pair();
    static char big[1 << 18];
    set_raw(p.s, 1, 0);
    OK(fcntl(p.s, F_SETFL, O_NONBLOCK));
    ssize_t n = 0, r;
    while ((r = write(p.s, big, sizeof(big))) > 0)
        n += r;
    CHECK_EQ(errno, EAGAIN);
    CHECK(n >= 4096);
    ssize_t got = 0;
    while (got < n) {
        CHECK(events(p.m, POLLIN, CONF_PATIENCE_S * 1000) & POLLIN);
        got += OK(read(p.m, big, sizeof(big)));
    }
    CHECK(events(p.s, POLLOUT, CONF_PATIENCE_S * 1000) & POLLOUT);
}

TEST(writer_waits_for_reader)
{
    struct pair p = open_pair();
    static char big[1 << 18];
    set_raw(p.s, 1, 0);
    pid_t pid = conf_fork();
    if (pid == 0) {
        memset(big, 'q', sizeof(big));
        _exit(write(p.s, big, sizeof(big)) == sizeof(big) ? 0 : 1);
    }
    size_t got = 0;
    while (got < sizeof(big))
        got += (size_t)OK(read(p.m, big, sizeof(big)));
    CHECK_EXIT(pid, 0);
    CHECK_EQ(got, sizeof(big));
    CHECK_EQ(big[0], 'q');
}

/* ---- queues ---- */

TEST(bytes_ready)
{
    struct pair p = open_pair();
    int n = -1;
    SEND(p.m, "abc\nde");
    EXPECT(p.m, "abc\r\nde");
    OK(ioctl(p.s, FIONREAD, &n));
    CHECK_EQ(n, 4);
    SEND(p.s, "xyz");
    CHECK(events(p.m, POLLIN, CONF_PATIENCE_S * 1000) & POLLIN);
    OK(ioctl(p.m, FIONREAD, &n));
    CHECK_EQ(n, 3);
    OK(ioctl(p.s, TIOCOUTQ, &n));
    CHECK_EQ(n, 0);
    set_flags(p.s, 0, 0, 0);
    OK(ioctl(p.s, FIONREAD, &n));
    CHECK_EQ(n, 6);
}

TEST(flush_input)
{
    struct pair p = open_pair();
    SEND(p.m, "abc\nde");
    EXPECT(p.m, "abc\r\nde");
    OK(tcflush(p.s, TCIFLUSH));
    EXPECT_QUIET(p.s);
    SEND(p.m, "x\n");
    EXPECT(p.s, "x\n");
    struct termios t = settings(p.s);
    SEND(p.m, "y\n");
    CHECK(events(p.s, POLLIN, CONF_PATIENCE_S * 1000) & POLLIN);
    OK(tcsetattr(p.s, TCSAFLUSH, &t));
    EXPECT_QUIET(p.s);
}

TEST(flush_output)
{
    struct pair p = open_pair();
    SEND(p.s, "abc");
    CHECK(events(p.m, POLLIN, CONF_PATIENCE_S * 1000) & POLLIN);
    OK(tcflush(p.m, TCIFLUSH));
    EXPECT_QUIET(p.m);
}

/* ---- ends ---- */

TEST(master_hears_of_the_last_slave)
{
    struct pair p = master_only();
    char buf[16];
    CHECK_EQ(events(p.m, POLLIN, 0) & (POLLIN | POLLHUP), 0);
    OK(fcntl(p.m, F_SETFL, O_NONBLOCK));
    CHECK_ERRNO(read(p.m, buf, sizeof(buf)), EAGAIN);
    p.s = OK(open(p.name, O_RDWR | O_NOCTTY));
    int second = OK(open(p.name, O_RDWR | O_NOCTTY));
    SEND(p.s, "last");
    OK(close(p.s));
    EXPECT(p.m, "last");
    CHECK_ERRNO(read(p.m, buf, sizeof(buf)), EAGAIN);
    OK(close(second));
    CHECK(events(p.m, POLLIN, CONF_PATIENCE_S * 1000) & POLLHUP);
    CHECK_ERRNO(read(p.m, buf, sizeof(buf)), EIO);
    /* A slave that is opened again makes it whole. */
    p.s = OK(open(p.name, O_RDWR | O_NOCTTY));
    CHECK_ERRNO(read(p.m, buf, sizeof(buf)), EAGAIN);
    CHECK_EQ(events(p.m, POLLIN, 0) & POLLHUP, 0);
}

TEST(slave_without_master)
{
    struct pair p = open_pair();
    char buf[16];
    SEND(p.m, "lost\n");
    OK(close(p.m));
    CHECK_EQ(read(p.s, buf, sizeof(buf)), 0);
    CHECK_ERRNO(write(p.s, "x", 1), EIO);
    struct termios t;
    CHECK_ERRNO(tcgetattr(p.s, &t), EIO);
    CHECK_EQ(events(p.s, POLLIN | POLLOUT, 0), POLLIN | POLLOUT | POLLERR | POLLHUP);
}

TEST(reader_wakes_when_the_master_goes)
{
    struct pair p = open_pair();
    pid_t pid = conf_fork();
    if (pid == 0) {
        char c;
        OK(close(p.m));
        CHECK_ERRNO(read(p.s, &c, 1), EIO);
        CHECK_EQ(read(p.s, &c, 1), 0);
        _exit(0);
    }
    conf_await_asleep(pid);
    OK(close(p.m));
    CHECK_EXIT(pid, 0);
}

/* ---- packet mode ---- */

TEST(packets_of_data)
{
    struct pair p = open_pair();
    int one = 1, v = 0;
    char buf[16];
    OK(ioctl(p.m, TIOCPKT, &one));
    OK(ioctl(p.m, TIOCGPKT, &v));
    CHECK_EQ(v, 1);
    SEND(p.s, "abc");
    CHECK(events(p.m, POLLIN, CONF_PATIENCE_S * 1000) & POLLIN);
    CHECK_EQ(read(p.m, buf, sizeof(buf)), 4);
    CHECK_EQ(memcmp(buf, "\0abc", 4), 0);
    SEND(p.s, "wxyz");
    CHECK(events(p.m, POLLIN, CONF_PATIENCE_S * 1000) & POLLIN);
    CHECK_EQ(read(p.m, buf, 3), 3);
    CHECK_EQ(memcmp(buf, "\0wx", 3), 0);
    CHECK_EQ(read(p.m, buf, 3), 3);
    CHECK_EQ(memcmp(buf, "\0yz", 3), 0);
}

TEST(packets_of_state)
{
    struct pair p = open_pair();
    int one = 1;
    unsigned char buf[16];
    OK(ioctl(p.m, TIOCPKT, &one));
    OK(tcflush(p.s, TCIFLUSH));
    CHECK(events(p.m, POLLPRI, CONF_PATIENCE_S * 1000) & POLLPRI);
    CHECK_EQ(read(p.m, buf, sizeof(buf)), 1);
    CHECK_EQ(buf[0], TIOCPKT_FLUSHREAD);
    struct termios t = settings(p.s);
    t.c_iflag &= ~(tcflag_t)IXON;
    OK(tcsetattr(p.s, TCSANOW, &t));
    CHECK(events(p.m, POLLPRI, CONF_PATIENCE_S * 1000) & POLLPRI);
    CHECK_EQ(read(p.m, buf, sizeof(buf)), 1);
    CHECK_EQ(buf[0], TIOCPKT_NOSTOP);
    t.c_iflag |= IXON;
    OK(tcsetattr(p.s, TCSANOW, &t));
    CHECK_EQ(read(p.m, buf, sizeof(buf)), 1);
    CHECK_EQ(buf[0], TIOCPKT_DOSTOP);
    OK(tcflow(p.s, TCOOFF));
    CHECK_EQ(read(p.m, buf, sizeof(buf)), 1);
    CHECK_EQ(buf[0], TIOCPKT_STOP);
    OK(tcflow(p.s, TCOON));
    CHECK_EQ(read(p.m, buf, sizeof(buf)), 1);
    CHECK_EQ(buf[0], TIOCPKT_START);
    CHECK_EQ(events(p.m, POLLPRI, 0) & POLLPRI, 0);
}
