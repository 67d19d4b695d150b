/* Advisory locks: fcntl(2) records, of processes and of open files, and flock(2). */
#include "harness.h"

#include <sys/file.h>

CONF_FAMILY("lock");

static int lock(int fd, int cmd, short type, off_t start, off_t len)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

    return fcntl(fd, cmd, &l);
}

static struct flock ask(int fd, int cmd, short type, off_t start, off_t len)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

    OK(fcntl(fd, cmd, &l));
    return l;
}

/* What a process of its own says about a lock there: 0 free, else errno. */
static int other(short type, off_t start, off_t len)
{
    pid_t pid = conf_fork();

    if (pid == 0) {
        int fd = OK(open("f", O_RDWR));
        _exit(lock(fd, F_SETLK, type, start, len) == 0 ? 0 : errno);
    }
    int status = conf_wait(pid);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

TEST(ranges)
{
    conf_put("f", "0123456789");
    int fd = OK(open("f", O_RDWR));
    OK(lock(fd, F_SETLK, F_WRLCK, 10, 10));
    CHECK_EQ(other(F_RDLCK, 0, 10), 0);
    CHECK_EQ(other(F_RDLCK, 15, 1), EAGAIN);
    CHECK_EQ(other(F_RDLCK, 20, 0), 0);
    /* A hole in the middle leaves two. */
    OK(lock(fd, F_SETLK, F_UNLCK, 13, 2));
    CHECK_EQ(other(F_WRLCK, 13, 2), 0);
    CHECK_EQ(other(F_WRLCK, 12, 2), EAGAIN);
    CHECK_EQ(other(F_WRLCK, 14, 2), EAGAIN);
    OK(lock(fd, F_SETLK, F_RDLCK, 15, 2));
    CHECK_EQ(other(F_RDLCK, 15, 2), 0);
    CHECK_EQ(other(F_WRLCK, 15, 2), EAGAIN);
    CHECK_EQ(other(F_RDLCK, 17, 1), EAGAIN);
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    CHECK_EQ(other(F_WRLCK, 0, 0), 0);
}

/* ---- against a model by byte ---- */

#define MODEL_BYTES 96
#define MODEL_OWNERS 3

/* What each owner holds of each byte: F_UNLCK, F_RDLCK or F_WRLCK. */
struct model {
    short held[MODEL_OWNERS][MODEL_BYTES];
};

static bool model_free(const struct model *m, int owner, short type, int start, int len)
{
    for (int o = 0; o < MODEL_OWNERS; o++)
        for (int b = start; o != owner && b < start + len; b++)
            if (m->held[o][b] == F_WRLCK || (m->held[o][b] == F_RDLCK && type == F_WRLCK))
                return false;
    return true;
}

/* Whether l is what one of the owners holds of byte, with its neighbours. */
static bool model_has(const struct model *m, const struct flock *l, int byte)
{
    for (int o = 0; o < MODEL_OWNERS; o++) {
        const short *held = m->held[o];
        int start = byte, end = byte;
        if (held[byte] == F_UNLCK || held[byte] != l->l_type)
            continue;
        while (start > 0 && held[start - 1] == held[byte])
            start--;
        while (end < MODEL_BYTES && held[end] == held[byte])
            end++;
        if (l->l_start == start && l->l_len == end - start)
            return true;
    }
    return false;
}

/* A process and two open files lock, weaken and unlock at random; a third one looks. */
TEST(ranges_at_random)
{
    static const short types[] = {F_RDLCK, F_RDLCK, F_WRLCK, F_UNLCK};
    struct model m;
    int fd[MODEL_OWNERS];
    uint32_t seed = 1;

    for (int o = 0; o < MODEL_OWNERS; o++)
        for (int b = 0; b < MODEL_BYTES; b++)
            m.held[o][b] = F_UNLCK;
    conf_put("f", "x");
    int look = OK(open("f", O_RDWR));
    for (int o = 0; o < MODEL_OWNERS; o++)
        fd[o] = OK(open("f", O_RDWR));
    for (int round = 0; round < 2000; round++) {
        seed = seed * 1664525 + 1013904223;
        const int o = (int)(seed >> 8) % MODEL_OWNERS, start = (int)(seed >> 12) % MODEL_BYTES;
        const int len = 1 + (int)(seed >> 20) % (MODEL_BYTES - start);
        const short type = types[seed >> 30];
        const bool free = type == F_UNLCK || model_free(&m, o, type, start, len);
        const int r = lock(fd[o], o == 0 ? F_SETLK : F_OFD_SETLK, type, start, len);
        CHECK_EQ(r, free ? 0 : -1);
        for (int b = start; free && b < start + len; b++)
            m.held[o][b] = type;
        const int byte = (int)(seed >> 16) % MODEL_BYTES;
        struct flock l = ask(look, F_OFD_GETLK, F_WRLCK, byte, 1);
        CHECK(l.l_type == F_UNLCK ? model_free(&m, -1, F_WRLCK, byte, 1) : model_has(&m, &l, byte));
    }
    for (int o = 0; o < MODEL_OWNERS; o++)
        OK(close(fd[o]));
    CHECK_EQ(ask(look, F_OFD_GETLK, F_WRLCK, 0, 0).l_type, F_UNLCK);
}

TEST(errors)
{
    conf_put("f", "x");
    int rd = OK(open("f", O_RDONLY)), wr = OK(open("f", O_WRONLY));
    CHECK_ERRNO(lock(rd, F_SETLK, F_WRLCK, 0, 1), EBADF);
    CHECK_ERRNO(lock(wr, F_SETLK, F_RDLCK, 0, 1), EBADF);
    CHECK_ERRNO(lock(rd, F_SETLK, 7, 0, 1), EINVAL);
    CHECK_ERRNO(lock(rd, F_SETLK, F_RDLCK, -1, 1), EINVAL);
    CHECK_ERRNO(lock(rd, F_SETLK, F_RDLCK, 10, INT64_MIN), EINVAL);
    CHECK_ERRNO(lock(rd, F_SETLK, F_RDLCK, INT64_MAX, 2), EOVERFLOW);
    CHECK_ERRNO(fcntl(rd, F_SETLK, NULL), EFAULT);
    CHECK_ERRNO(flock(rd, 0), EINVAL);
    CHECK_ERRNO(flock(999, LOCK_EX), EBADF);
}

TEST(getlk_says_who)
{
    conf_put("f", "x");
    int fd = OK(open("f", O_RDWR));
    OK(lock(fd, F_SETLK, F_WRLCK, 5, 5));
    CHECK_EQ(ask(fd, F_GETLK, F_WRLCK, 0, 0).l_type, F_UNLCK);
    pid_t parent = getpid(), pid = conf_fork();
    if (pid == 0) {
        int mine = OK(open("f", O_RDWR));
        struct flock l = ask(mine, F_GETLK, F_RDLCK, 0, 0);
        CHECK_EQ(l.l_type, F_WRLCK);
        CHECK_EQ(l.l_start, 5);
        CHECK_EQ(l.l_len, 5);
        CHECK_EQ(l.l_pid, parent);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(any_close_drops_a_processes_locks)
{
    conf_put("f", "x");
    int fd = OK(open("f", O_RDWR));
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    OK(close(OK(open("f", O_RDONLY))));
    CHECK_EQ(other(F_WRLCK, 0, 1), 0);
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    pid_t pid = conf_fork();
    if (pid == 0) {
        /* A child has none of them. */
        _exit(lock(fd, F_SETLK, F_RDLCK, 0, 1) == -1 && errno == EAGAIN ? 0 : 9);
    }
    CHECK_EXIT(pid, 0);
}

TEST(ofd_locks)
{
    conf_put("f", "x");
    int a = OK(open("f", O_RDWR)), b = OK(open("f", O_RDWR));
    OK(lock(a, F_OFD_SETLK, F_WRLCK, 0, 10));
    CHECK_ERRNO(lock(b, F_OFD_SETLK, F_RDLCK, 5, 1), EAGAIN);
    CHECK_ERRNO(lock(b, F_SETLK, F_RDLCK, 5, 1), EAGAIN);
    struct flock l = ask(b, F_OFD_GETLK, F_WRLCK, 0, 1);
    CHECK_EQ(l.l_type, F_WRLCK);
    CHECK_EQ(l.l_pid, -1);
    l.l_pid = 5;
    CHECK_ERRNO(fcntl(a, F_OFD_SETLK, &l), EINVAL);
    /* Shared by copies, and gone with the last. */
    int c = OK(dup(a));
    OK(close(a));
    CHECK_ERRNO(lock(b, F_OFD_SETLK, F_RDLCK, 5, 1), EAGAIN);
    OK(close(c));
    OK(lock(b, F_OFD_SETLK, F_RDLCK, 5, 1));
}

TEST(setlkw_waits)
{
    conf_put("f", "x");
    int fd = OK(open("f", O_RDWR)), p[2];
    OK(pipe(p));
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(write(p[1], "x", 1));
        OK(lock(fd, F_SETLKW, F_WRLCK, 0, 1));
        _exit(0);
    }
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    conf_await_asleep(pid);
    CHECK_EQ(waitpid(pid, NULL, WNOHANG), 0);
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 1));
    CHECK_EXIT(pid, 0);
}

static void nothing(int sig)
{
    (void)sig;
}

TEST(setlkw_is_interrupted)
{
    conf_put("f", "x");
    int fd = OK(open("f", O_RDWR));
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_handler(SIGALRM, nothing, 0);
        _exit(lock(fd, F_SETLKW, F_WRLCK, 0, 1) == -1 && errno == EINTR ? 0 : 9);
    }
    conf_await_asleep(pid);
    OK(kill(pid, SIGALRM));
    CHECK_EXIT(pid, 0);
}

TEST(deadlock)
{
    volatile int *held = conf_shared(sizeof(int));

    conf_put("f", "x");
    int fd = OK(open("f", O_RDWR));
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(lock(fd, F_SETLK, F_WRLCK, 1, 1));
        *held = 1;
        /* Waits for the parent, who lets go or is refused. */
        int r = lock(fd, F_SETLKW, F_WRLCK, 0, 1);
        _exit(r == 0 ? 0 : errno);
    }
    conf_await(held, 1);
    conf_await_asleep(pid);
    CHECK_ERRNO(lock(fd, F_SETLKW, F_WRLCK, 1, 1), EDEADLK);
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    CHECK_EXIT(pid, 0);
}

TEST(flock_kinds)
{
    conf_put("f", "x");
    int a = OK(open("f", O_RDONLY)), b = OK(open("f", O_RDONLY));
    OK(flock(a, LOCK_SH));
    OK(flock(b, LOCK_SH | LOCK_NB));
    CHECK_ERRNO(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    OK(flock(a, LOCK_UN));
    OK(flock(b, LOCK_EX | LOCK_NB));
    CHECK_ERRNO(flock(a, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    /* Another kind of lock. */
    int w = OK(open("f", O_RDWR));
    OK(lock(w, F_SETLK, F_WRLCK, 0, 0));
    /* A child's copy is the same lock. */
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(flock(b, LOCK_UN));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(flock(a, LOCK_EX | LOCK_NB));
}

/* A lock of the other kind is given up before the new one is asked for. */
TEST(flock_conversion)
{
    conf_put("f", "x");
    int a = OK(open("f", O_RDONLY)), b = OK(open("f", O_RDONLY));
    OK(flock(a, LOCK_SH));
    OK(flock(b, LOCK_SH));
    CHECK_ERRNO(flock(a, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    OK(flock(b, LOCK_EX | LOCK_NB));
    OK(flock(b, LOCK_EX | LOCK_NB));
    CHECK_ERRNO(flock(a, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    OK(flock(b, LOCK_SH));
    OK(flock(a, LOCK_SH));
    /* So two who both want more do not wait for each other. */
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(flock(a, LOCK_EX));
        OK(flock(a, LOCK_UN));
        _exit(0);
    }
    OK(flock(b, LOCK_EX));
    OK(flock(b, LOCK_UN));
    CHECK_EXIT(pid, 0);
}

/* Waiters of one range each have it once, with others between them that are in nobody's way. */
TEST(setlkw_hands_on)
{
    enum { WAITERS = 12 };
    pid_t pid[WAITERS];

    conf_put("f", "");
    int fd = OK(open("f", O_RDWR));
    volatile int *inside = conf_shared(sizeof(*inside) * 2);
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 10));
    for (int i = 0; i < WAITERS; i++) {
        pid[i] = conf_fork();
        if (pid[i] != 0)
            continue;
        OK(lock(fd, F_SETLKW, F_WRLCK, 9, 1));
        CHECK_EQ(inside[0], 0);
        inside[0] = 1;
        OK(lock(fd, F_SETLK, F_WRLCK, 20 + i, 1));
        OK(lock(fd, F_SETLK, F_UNLCK, 20 + i, 1));
        inside[1]++;
        inside[0] = 0;
        OK(lock(fd, F_SETLK, i % 2 ? F_UNLCK : F_RDLCK, 0, 10));
        OK(lock(fd, F_SETLK, F_UNLCK, 0, 0));
        _exit(0);
    }
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 9));
    OK(lock(fd, F_SETLK, F_UNLCK, 9, 1));
    for (int i = 0; i < WAITERS; i++)
        CHECK_EXIT(pid[i], 0);
    CHECK_EQ(inside[1], WAITERS);
}
