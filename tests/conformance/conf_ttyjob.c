/* Terminals and processes: controlling terminals, job control, signals, hangups. */
#include "harness.h"

#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>

CONF_FAMILY("ttyjob");

struct pair {
    int m, s;
    char name[32];
};

static struct pair open_pair(void)
{
    struct pair p;
    int zero = 0, index;
    p.m = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY));
    OK(ioctl(p.m, TIOCGPTN, &index));
    OK(ioctl(p.m, TIOCSPTLCK, &zero));
    snprintf(p.name, sizeof(p.name), "/dev/pts/%d", index);
    p.s = OK(open(p.name, O_RDWR | O_NOCTTY));
    return p;
}

/* What processes of a case tell each other. */
struct board {
    volatile int go[8];
    volatile int hits, last, value;
};
static struct board *board;

static void note(int sig)
{
    board->last = sig;
    board->hits++;
}

/* Runs fn in a session leader whose controlling terminal the slave is; exit code 0. */
static void in_session(struct pair *p, void (*fn)(struct pair *p))
{
    if (board == NULL)
        board = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(setsid());
        OK(ioctl(p->s, TIOCSCTTY, 0));
        fn(p);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

static pid_t stat_field_tty(pid_t pid, int *out_nr)
{
    char path[64], text[1024];
    int tpgid = -2;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    conf_get(path, text, sizeof(text));
    const char *rest = strrchr(text, ')');
    CHECK(rest != NULL);
    CHECK_EQ(sscanf(rest + 2, "%*c %*d %*d %*d %d %d", out_nr, &tpgid), 2);
    return tpgid;
}

static void stopped_by(pid_t pid, int sig)
{
    int status;
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
    CHECK_EQ(WSTOPSIG(status), sig);
}

/* A child in a process group of its own. */
static pid_t fork_group(void)
{
    pid_t pid = conf_fork();
    if (pid == 0)
        OK(setpgid(0, 0));
    else if (setpgid(pid, pid) != 0)
        CHECK_EQ(errno, EACCES);
    return pid;
}

/* ---- becoming the controlling terminal ---- */

static void check_taken(struct pair *p)
{
    CHECK_EQ(tcgetpgrp(p->s), getpid());
    CHECK_EQ(tcgetsid(p->s), getpid());
    CHECK_EQ(tcgetpgrp(p->m), getpid());
    int t = OK(open("/dev/tty", O_RDWR));
    CHECK_EQ(tcgetpgrp(t), getpid());
    CHECK_EQ(write(t, "hi", 2), 2);
    char buf[8];
    CHECK_EQ(read(p->m, buf, sizeof(buf)), 2);
    struct stat st;
    OK(fstat(t, &st));
    CHECK_EQ(st.st_rdev, makedev(5, 0));
    int nr;
    OK(fstat(p->s, &st));
    CHECK_EQ(stat_field_tty(getpid(), &nr), getpid());
    CHECK_EQ(
        nr, (int)((minor(st.st_rdev) & 0xff) | (136 << 8) | ((minor(st.st_rdev) & 0xfff00) << 12)));
    /* Once more is no error. */
    OK(ioctl(p->s, TIOCSCTTY, 0));
}

TEST(taken_by_request)
{
    struct pair p = open_pair();
    in_session(&p, check_taken);
}

static void check_session_errors(struct pair *p)
{
    struct pair q = open_pair();
    CHECK_ERRNO(ioctl(q.s, TIOCSCTTY, 0), EPERM);
    CHECK_ERRNO(tcgetpgrp(q.s), ENOTTY);
    CHECK_ERRNO(tcgetsid(q.s), ENOTTY);
    CHECK_ERRNO(tcsetpgrp(q.s, getpid()), ENOTTY);
    CHECK_ERRNO(tcgetsid(q.m), ENOTTY);
    CHECK_EQ(tcgetpgrp(q.m), 0);
    CHECK_ERRNO(ioctl(q.s, TIOCNOTTY), ENOTTY);
    CHECK_ERRNO(tcsetpgrp(p->s, -1), EINVAL);
    CHECK_ERRNO(tcsetpgrp(p->s, 99999999), ESRCH);
    /* A group of another session. */
    CHECK_ERRNO(tcsetpgrp(p->s, getppid()), EPERM);
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK_ERRNO(ioctl(q.s, TIOCSCTTY, 0), EPERM);
        OK(setsid());
        /* The parent's terminal is nobody else's. */
        CHECK_ERRNO(tcgetpgrp(p->s), ENOTTY);
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        CHECK_ERRNO(ioctl(p->s, TIOCSCTTY, 0), EPERM);
        OK(ioctl(q.s, TIOCSCTTY, 0));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(rules_of_sessions)
{
    struct pair p = open_pair();
    in_session(&p, check_session_errors);
}

TEST(taken_by_opening)
{
    struct pair p = open_pair();
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(setsid());
        OK(close(OK(open(p.name, O_RDWR | O_NOCTTY))));
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        OK(close(OK(open(p.name, O_WRONLY))));
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        OK(close(OK(open("/dev/ptmx", O_RDWR))));
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        int s = OK(open(p.name, O_RDWR));
        CHECK_EQ(fcntl(s, F_GETFL) & O_NOCTTY, 0);
        OK(close(OK(open("/dev/tty", O_RDWR))));
        CHECK_EQ(tcgetsid(s), getpid());
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    /* A leader's end frees it. */
    pid = conf_fork();
    if (pid == 0) {
        OK(setsid());
        OK(open(p.name, O_RDWR));
        OK(close(OK(open("/dev/tty", O_RDWR))));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

static void check_given_up(struct pair *p)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        /* Only for itself. */
        OK(ioctl(p->s, TIOCNOTTY));
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        CHECK_ERRNO(tcgetpgrp(p->s), ENOTTY);
        pid_t grandchild = conf_fork();
        if (grandchild == 0) {
            CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
            _exit(0);
        }
        CHECK_EXIT(grandchild, 0);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(tcgetpgrp(p->s), getpid());
    conf_handler(SIGHUP, note, 0);
    conf_handler(SIGCONT, note, 0);
    board->hits = 0;
    OK(ioctl(p->s, TIOCNOTTY));
    CHECK_EQ(board->hits, 2);
    CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
    CHECK_EQ(tcgetpgrp(p->m), 0);
    int nr;
    CHECK_EQ(stat_field_tty(getpid(), &nr), -1);
    CHECK_EQ(nr, 0);
    OK(ioctl(p->s, TIOCSCTTY, 0));
}

TEST(given_up)
{
    struct pair p = open_pair();
    in_session(&p, check_given_up);
}

/* ---- signals from the line ---- */

static void check_keys(struct pair *p)
{
    static const struct {
        const char *key, *echo;
        int sig;
    } keys[] = {{"\x03", "^C", SIGINT}, {"\x1c", "^\\", SIGQUIT}, {"\x1a", "^Z", SIGTSTP}};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        conf_handler(keys[i].sig, note, 0);
        board->hits = 0;
        /* Input typed before is dropped. */
        CHECK_EQ(write(p->m, "ab\n", 3), 3);
        EVENTUALLY(conf_unread(p->m) == 4);
        OK(tcflush(p->m, TCIFLUSH));
        CHECK_EQ(write(p->m, keys[i].key, 1), 1);
        conf_await(&board->hits, 1);
        CHECK_EQ(board->last, keys[i].sig);
        char buf[16];
        CHECK_EQ(read(p->m, buf, sizeof(buf)), 2);
        CHECK_EQ(memcmp(buf, keys[i].echo, 2), 0);
        OK(fcntl(p->s, F_SETFL, O_NONBLOCK));
        CHECK_ERRNO(read(p->s, buf, sizeof(buf)), EAGAIN);
        OK(fcntl(p->s, F_SETFL, 0));
    }
}

TEST(keys_send_signals)
{
    struct pair p = open_pair();
    in_session(&p, check_keys);
}

static void check_key_without_flush(struct pair *p)
{
    struct termios t;
    char buf[16];
    OK(tcgetattr(p->s, &t));
    t.c_lflag |= NOFLSH;
    OK(tcsetattr(p->s, TCSANOW, &t));
    conf_handler(SIGINT, note, 0);
    CHECK_EQ(write(p->m,
                   "a\x03"
                   "b\n",
                   4),
             4);
    CHECK_EQ(read(p->s, buf, sizeof(buf)), 3);
    CHECK_EQ(memcmp(buf, "ab\n", 3), 0);
    conf_await(&board->hits, 1);
    t.c_lflag &= ~(tcflag_t)ISIG;
    OK(tcsetattr(p->s, TCSANOW, &t));
    CHECK_EQ(write(p->m, "\x03\n", 2), 2);
    CHECK_EQ(read(p->s, buf, sizeof(buf)), 2);
    CHECK_EQ(board->hits, 1);
}

TEST(keys_without_flush_or_signal)
{
    struct pair p = open_pair();
    in_session(&p, check_key_without_flush);
}

static void check_interrupted_read(struct pair *p)
{
    char c;
    conf_handler(SIGINT, note, 0);
    pid_t pid = conf_fork();
    if (pid == 0) {
        signal(SIGINT, SIG_IGN);
        conf_await_asleep(getppid());
        CHECK_EQ(write(p->m, "\x03", 1), 1);
        _exit(0);
    }
    signal(SIGCHLD, SIG_IGN);
    CHECK_ERRNO(read(p->s, &c, 1), EINTR);
    conf_handler(SIGINT, note, SA_RESTART);
    board->hits = 0;
    pid = conf_fork();
    if (pid == 0) {
        signal(SIGINT, SIG_IGN);
        conf_await_asleep(getppid());
        CHECK_EQ(write(p->m, "\x03", 1), 1);
        conf_await(&board->hits, 1);
        conf_await_asleep(getppid());
        CHECK_EQ(write(p->m, "x\n", 2), 2);
        _exit(0);
    }
    CHECK_EQ(read(p->s, &c, 1), 1);
    CHECK_EQ(c, 'x');
}

TEST(key_interrupts_a_read)
{
    struct pair p = open_pair();
    in_session(&p, check_interrupted_read);
}

static void check_foreground_only(struct pair *p)
{
    conf_handler(SIGINT, note, 0);
    pid_t pid = fork_group();
    if (pid == 0) {
        conf_handler(SIGINT, SIG_DFL, 0);
        board->go[0] = 1;
        for (;;)
            pause();
    }
    conf_await(&board->go[0], 1);
    OK(tcsetpgrp(p->s, pid));
    CHECK_EQ(tcgetpgrp(p->s), pid);
    CHECK_EQ(write(p->m, "\x03", 1), 1);
    CHECK_KILLED(pid, SIGINT);
    CHECK_EQ(board->hits, 0);
    /* The number stays although nobody has it. */
    CHECK_EQ(tcgetpgrp(p->m), pid);
    conf_handler(SIGTTOU, SIG_IGN, 0);
    OK(tcsetpgrp(p->s, getpid()));
    OK(ioctl(p->m, TIOCSIG, SIGINT));
    conf_await(&board->hits, 1);
    CHECK_ERRNO(ioctl(p->m, TIOCSIG, SIGTERM), EINVAL);
}

TEST(only_the_foreground_hears)
{
    struct pair p = open_pair();
    in_session(&p, check_foreground_only);
}

static void check_size_signal(struct pair *p)
{
    struct winsize ws = {.ws_row = 10, .ws_col = 20};
    conf_handler(SIGWINCH, note, 0);
    OK(ioctl(p->m, TIOCSWINSZ, &ws));
    conf_await(&board->hits, 1);
    CHECK_EQ(board->last, SIGWINCH);
    OK(ioctl(p->m, TIOCSWINSZ, &ws));
    ws.ws_col = 21;
    OK(ioctl(p->s, TIOCSWINSZ, &ws));
    conf_await(&board->hits, 2);
}

TEST(size_changes_are_told)
{
    struct pair p = open_pair();
    in_session(&p, check_size_signal);
}

/* ---- the background ---- */

static void check_background_read(struct pair *p)
{
    char buf[8];
    pid_t pid = fork_group();
    if (pid == 0) {
        CHECK_EQ(read(p->s, buf, sizeof(buf)), 2);
        _exit(0);
    }
    stopped_by(pid, SIGTTIN);
    OK(tcsetpgrp(p->s, pid));
    OK(kill(-pid, SIGCONT));
    CHECK_EQ(write(p->m, "x\n", 2), 2);
    CHECK_EXIT(pid, 0);
}

TEST(background_read_stops)
{
    struct pair p = open_pair();
    in_session(&p, check_background_read);
}

static void check_background_read_ignored(struct pair *p)
{
    char c;
    pid_t pid = fork_group();
    if (pid == 0) {
        conf_handler(SIGTTIN, SIG_IGN, 0);
        CHECK_ERRNO(read(p->s, &c, 1), EIO);
        conf_handler(SIGTTIN, SIG_DFL, 0);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTTIN);
        OK(sigprocmask(SIG_BLOCK, &set, NULL));
        CHECK_ERRNO(read(p->s, &c, 1), EIO);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    pid = fork_group();
    if (pid == 0) {
        conf_handler(SIGTTIN, note, 0);
        CHECK_ERRNO(read(p->s, &c, 1), EINTR);
        CHECK_EQ(board->last, SIGTTIN);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(background_read_with_the_signal_ignored)
{
    struct pair p = open_pair();
    in_session(&p, check_background_read_ignored);
}

static void check_background_write(struct pair *p)
{
    struct termios t;
    pid_t pid = fork_group();
    if (pid == 0) {
        CHECK_EQ(write(p->s, "x", 1), 1);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(tcgetattr(p->s, &t));
    t.c_lflag |= TOSTOP;
    OK(tcsetattr(p->s, TCSANOW, &t));
    pid = fork_group();
    if (pid == 0) {
        CHECK_EQ(write(p->s, "x", 1), 1);
        _exit(0);
    }
    stopped_by(pid, SIGTTOU);
    OK(tcsetpgrp(p->s, pid));
    OK(kill(pid, SIGCONT));
    CHECK_EXIT(pid, 0);
}

TEST(background_write_stops_with_tostop)
{
    struct pair p = open_pair();
    in_session(&p, check_background_write);
}

static void check_background_settings(struct pair *p)
{
    struct termios t;
    OK(tcgetattr(p->s, &t));
    pid_t pid = fork_group();
    if (pid == 0) {
        OK(tcgetattr(p->s, &t));
        OK(tcsetattr(p->s, TCSANOW, &t));
        _exit(0);
    }
    stopped_by(pid, SIGTTOU);
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
    pid = fork_group();
    if (pid == 0) {
        OK(tcsetpgrp(p->s, getpid()));
        _exit(0);
    }
    stopped_by(pid, SIGTTOU);
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
    pid = fork_group();
    if (pid == 0) {
        conf_handler(SIGTTOU, SIG_IGN, 0);
        OK(tcsetattr(p->s, TCSANOW, &t));
        OK(tcsetpgrp(p->s, getpid()));
        CHECK_EQ(tcgetpgrp(p->s), getpid());
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(background_changes_stop)
{
    struct pair p = open_pair();
    in_session(&p, check_background_settings);
}

static void check_orphan(struct pair *p)
{
    pid_t pid = fork_group();
    if (pid == 0) {
        pid_t orphan = conf_fork();
        if (orphan == 0) {
            char c;
            struct termios t;
            conf_await(&board->go[0], 1);
            bool ok = read(p->s, &c, 1) == -1 && errno == EIO;
            OK(tcgetattr(p->s, &t));
            ok = ok && tcsetattr(p->s, TCSANOW, &t) == -1 && errno == EIO;
            ok = ok && tcsetpgrp(p->s, getpgrp()) == -1 && errno == ENOTTY;
            board->go[1] = ok ? 1 : 2;
            _exit(0);
        }
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    board->go[0] = 1;
    conf_await(&board->go[1], 1);
}

TEST(background_orphans_get_errors)
{
    struct pair p = open_pair();
    in_session(&p, check_orphan);
}

/* ---- ends ---- */

TEST(leader_hears_of_a_hangup)
{
    struct pair p = open_pair();
    board = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(close(p.m));
        OK(setsid());
        OK(ioctl(p.s, TIOCSCTTY, 0));
        conf_handler(SIGHUP, note, 0);
        conf_handler(SIGCONT, note, 0);
        board->go[0] = 1;
        conf_await(&board->hits, 2);
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        CHECK_ERRNO(write(p.s, "x", 1), EIO);
        int pgrp = getpid();
        CHECK_ERRNO(ioctl(p.s, TIOCSPGRP, &pgrp), ENOTTY);
        CHECK_ERRNO(ioctl(p.s, TIOCGPGRP, &pgrp), EIO);
        _exit(0);
    }
    conf_await(&board->go[0], 1);
    OK(close(p.m));
    CHECK_EXIT(pid, 0);
}

TEST(hangup_kills_the_session)
{
    struct pair p = open_pair();
    board = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(close(p.m));
        OK(setsid());
        OK(ioctl(p.s, TIOCSCTTY, 0));
        pid_t job = fork_group();
        if (job == 0) {
            board->value = getpid();
            board->go[0] = 1;
            for (;;)
                pause();
        }
        conf_await(&board->go[0], 1);
        OK(tcsetpgrp(p.s, job));
        board->go[1] = 1;
        for (;;)
            pause();
    }
    conf_await(&board->go[1], 1);
    OK(close(p.m));
    CHECK_KILLED(pid, SIGHUP);
    /* The foreground group goes with its leader. */
    EVENTUALLY(conf_state(board->value) == 'X' || conf_state(board->value) == 'Z');
}

TEST(leaders_end_is_told_to_the_foreground)
{
    struct pair p = open_pair();
    board = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(setsid());
        OK(ioctl(p.s, TIOCSCTTY, 0));
        pid_t job = fork_group();
        if (job == 0) {
            conf_handler(SIGHUP, note, 0);
            board->go[0] = 1;
            conf_await(&board->hits, 1);
            /* The terminal is not gone, but nobody's. */
            int r = open("/dev/tty", O_RDWR);
            board->go[1] = r == -1 && errno == ENXIO && write(p.s, "x", 1) == 1 ? 1 : 2;
            _exit(0);
        }
        conf_await(&board->go[0], 1);
        OK(tcsetpgrp(p.s, job));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    conf_await(&board->go[1], 1);
    CHECK_EQ(board->last, SIGHUP);
    CHECK_EQ(tcgetpgrp(p.m), 0);
}

TEST(stopped_job_goes_on)
{
    struct pair p = open_pair();
    board = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(setsid());
        OK(ioctl(p.s, TIOCSCTTY, 0));
        pid_t job = fork_group();
        if (job == 0) {
            char buf[8];
            conf_await(&board->go[0], 1);
            board->go[1] = 1;
            CHECK_EQ(read(p.s, buf, sizeof(buf)), 3);
            _exit(4);
        }
        conf_handler(SIGTTOU, SIG_IGN, 0);
        OK(tcsetpgrp(p.s, job));
        board->go[0] = 1;
        conf_await(&board->go[1], 1);
        conf_await_asleep(job);
        CHECK_EQ(write(p.m, "\x1a", 1), 1);
        int status;
        CHECK_EQ(waitpid(job, &status, WUNTRACED), job);
        CHECK(WIFSTOPPED(status));
        CHECK_EQ(WSTOPSIG(status), SIGTSTP);
        OK(tcsetpgrp(p.s, getpid()));
        OK(tcsetpgrp(p.s, job));
        OK(kill(-job, SIGCONT));
        conf_sleep_ms(30);
        conf_await_asleep(job);
        CHECK_EQ(write(p.m, "on\n", 3), 3);
        CHECK_EXIT(job, 4);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}
