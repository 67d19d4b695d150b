#include "harness.h"

#include <dirent.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

enum {
    STATUS_FAILED = 1,
    STATUS_SKIPPED = 77,
    DEFAULT_TIMEOUT_S = CONF_PATIENCE_S + 30,
    MAX_CASES = 256,
    MAX_ARGS = 16,
};

extern const struct conf_case *const __start_conf_cases[];
extern const struct conf_case *const __stop_conf_cases[];
/* Weak: a program without helpers has no such section. */
extern const struct conf_helper *const __start_conf_helpers[] __attribute__((weak));
extern const struct conf_helper *const __stop_conf_helpers[] __attribute__((weak));

static char self_path[1024];
static const char *work_root = "/tmp";

struct options {
    const char *only;
    const char *from;
    unsigned int timeout_s;
    bool list;
};

static void emit(const char *prefix, const char *fmt, va_list ap)
{
    char line[1200];
    int head = snprintf(line, sizeof(line), "%s", prefix);
    int body = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, fmt, ap);
    size_t len = strnlen(line, sizeof(line) - 1);
    (void)body;
    line[len++] = '\n';
    ssize_t done = write(STDOUT_FILENO, line, len);
    (void)done;
}

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    emit("", fmt, ap);
    va_end(ap);
}

void conf_diag(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    emit("# ", fmt, ap);
    va_end(ap);
}

void conf_fail(const char *file, int line, const char *fmt, ...)
{
    const char *base = strrchr(file, '/');
    char prefix[128];
    va_list ap;

    snprintf(prefix, sizeof(prefix), "# %s:%d: ", base ? base + 1 : file, line);
    va_start(ap, fmt);
    emit(prefix, fmt, ap);
    va_end(ap);
    _exit(STATUS_FAILED);
}

void conf_skip(const char *why)
{
    conf_diag("skipped: %s", why);
    _exit(STATUS_SKIPPED);
}

pid_t conf_fork(void)
{
    return OK(fork());
}

int conf_wait(pid_t pid)
{
    int status = 0;
    pid_t r;
    do {
        r = waitpid(pid, &status, 0);
    } while (r == -1 && errno == EINTR);
    CHECK_EQ(r, pid);
    return status;
}

void conf_kill(pid_t pid)
{
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
}

void conf_check_exit(const char *file, int line, pid_t pid, int code)
{
    int status = conf_wait(pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code)
        conf_fail(file, line, "child ended with wait status 0x%x, not exit code %d",
                  (unsigned int)status, code);
}

void conf_check_killed(const char *file, int line, pid_t pid, int sig)
{
    int status = conf_wait(pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != sig)
        conf_fail(file, line, "child ended with wait status 0x%x, not by signal %d",
                  (unsigned int)status, sig);
}

int64_t conf_now(void)
{
    struct timespec ts;
    OK(clock_gettime(CLOCK_MONOTONIC, &ts));
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void conf_sleep_ms(long ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&ts, &ts) == -1 && errno == EINTR)
        ;
}

void *conf_shared(size_t size)
{
    return OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

void *conf_pages(size_t count)
{
    return OK(
        mmap(NULL, count * CONF_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

void conf_await(const volatile int *word, int value)
{
    const int64_t end = conf_now() + CONF_PATIENCE_NS;
    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) != value) {
        if (conf_now() > end)
            conf_fail(__FILE__, __LINE__, "waited %d s for %d, still %d", CONF_PATIENCE_S, value,
                      *word);
        conf_sleep_ms(1);
    }
}

/* What a file like /proc/1/stat says; 'X' when it is not there, or no longer. */
static char state_in(const char *path)
{
    char text[1024];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd == -1) {
        CHECK(errno == ENOENT || errno == ESRCH);
        return 'X';
    }
    ssize_t n = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    if (n <= 0)
        return 'X';
    text[n] = '\0';
    const char *end = strrchr(text, ')');
    CHECK(end != NULL && end[1] == ' ');
    return end[2];
}

char conf_state(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    return state_in(path);
}

void conf_await_asleep(pid_t pid)
{
    char state;
    EVENTUALLY((state = conf_state(pid)) == 'S' || state == 'Z');
}

static bool others_rest(void)
{
    const long self = syscall(SYS_gettid);
    char path[320];
    bool rest = true;
    DIR *d = opendir("/proc/self/task");
    CHECK(d != NULL);
    for (const struct dirent *e; rest && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.' || atol(e->d_name) == self)
            continue;
        snprintf(path, sizeof(path), "/proc/self/task/%s/stat", e->d_name);
        rest = strchr("SZX", state_in(path)) != NULL;
    }
    (void)closedir(d);
    return rest;
}

void conf_await_others_asleep(void)
{
    EVENTUALLY(others_rest());
}

void conf_handler(int sig, void (*handler)(int), int flags)
{
    struct sigaction sa = {.sa_handler = handler, .sa_flags = flags};
    OK(sigaction(sig, &sa, NULL));
}

void conf_sigaction(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction sa = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};
    OK(sigaction(sig, &sa, NULL));
}

void conf_put(const char *path, const char *text)
{
    int fd = OK(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    size_t len = strlen(text);
    CHECK_EQ(write(fd, text, len), len);
    OK(close(fd));
}

int conf_try_put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, text, strlen(text));
    int e = errno;
    close(fd);
    return n < 0 ? -e : (int)n;
}

size_t conf_get(const char *path, char *buf, size_t size)
{
    int fd = OK(open(path, O_RDONLY | O_CLOEXEC));
    size_t len = 0;
    while (len < size - 1) {
        ssize_t n = OK(read(fd, buf + len, size - 1 - len));
        if (n == 0)
            break;
        len += (size_t)n;
    }
    buf[len] = '\0';
    OK(close(fd));
    return len;
}

int conf_unread(int fd)
{
    int n = -1;
    OK(ioctl(fd, FIONREAD, &n));
    return n;
}

bool conf_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

void conf_become(uid_t id)
{
    OK((int)syscall(SYS_setgroups, 0, NULL));
    OK(setresgid(id, id, id));
    OK(setresuid(id, id, id));
}

const char *conf_self(void)
{
    return self_path;
}

void conf_exec_helper(const char *name, const char *const *args)
{
    const char *argv[MAX_ARGS + 4] = {self_path, "--helper", name};
    size_t count = 3;
    while (args != NULL && *args != NULL && count < MAX_ARGS + 3)
        argv[count++] = *args++;
    argv[count] = NULL;
    execve(self_path, (char *const *)(uintptr_t)argv, environ);
    conf_fail(__FILE__, __LINE__, "execve %s: %s", self_path, strerror(errno));
}

void conf_copy_self(const char *path, mode_t mode)
{
    static char buf[65536];
    int from = OK(open(self_path, O_RDONLY | O_CLOEXEC));
    int to = OK(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700));
    ssize_t n;
    while ((n = OK(read(from, buf, sizeof(buf)))) > 0)
        CHECK_EQ(write(to, buf, (size_t)n), n);
    OK(fchmod(to, mode));
    OK(close(from));
    OK(close(to));
}

static int by_line(const void *a, const void *b)
{
    const struct conf_case *const *x = a;
    const struct conf_case *const *y = b;
    return ((*x)->line > (*y)->line) - ((*x)->line < (*y)->line);
}

static size_t sorted_cases(const struct conf_case **out)
{
    size_t count = 0;
    for (const struct conf_case *const *p = __start_conf_cases; p < __stop_conf_cases; p++) {
        CHECK(count < MAX_CASES);
        out[count++] = *p;
    }
    qsort(out, count, sizeof(out[0]), by_line);
    return count;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    if (remove(path) == -1)
        conf_diag("cannot remove %s: %s", path, strerror(errno));
    return 0;
}

static void case_directory(const struct conf_case *c, char *path, size_t size)
{
    snprintf(path, size, "%s/conf.%d.%s", work_root, getpid(), c->name);
}

static NORETURN void case_body(const struct conf_case *c, const char *dir)
{
    OK(setpgid(0, 0));
    OK(chdir(dir));
    umask(022);
    c->run();
    _exit(0);
}

/* Polls instead of sleeping in wait: the only thing it trusts is fork, wait4 and nanosleep. */
static int await_case(pid_t pid, unsigned int timeout_s, int *out_status)
{
    int64_t deadline = conf_now() + (int64_t)timeout_s * 1000000000;
    long pause_us = 100;
    for (;;) {
        pid_t r = waitpid(pid, out_status, WNOHANG);
        if (r == pid)
            return 0;
        if (r == -1 && errno != EINTR)
            return -errno;
        if (conf_now() > deadline)
            return -ETIMEDOUT;
        struct timespec ts = {.tv_nsec = pause_us * 1000};
        nanosleep(&ts, NULL);
        pause_us = pause_us < 10000 ? pause_us * 2 : pause_us;
    }
}

static void reap_strays(pid_t group)
{
    kill(-group, SIGKILL);
    for (int i = 0; i < 10000; i++) {
        pid_t r = waitpid(-1, NULL, WNOHANG);
        if (r == -1)
            return;
        if (r == 0)
            conf_sleep_ms(1);
    }
    conf_diag("children still live after the case");
}

static const char *describe(int status, char *buf, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(buf, size, "killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(buf, size, "exit code %d", WEXITSTATUS(status));
    return buf;
}

/* Returns STATUS_*, 0 when it passed. */
static int run_forked(const struct conf_case *c, unsigned int timeout_s)
{
    char dir[256];
    char text[128];
    int status = 0;

    case_directory(c, dir, sizeof(dir));
    OK(mkdir(dir, 0755));
    pid_t pid = conf_fork();
    if (pid == 0)
        case_body(c, dir);
    int r = await_case(pid, timeout_s, &status);
    if (r < 0) {
        conf_diag("%s", r == -ETIMEDOUT ? "timed out" : "the case's process got lost");
        kill(pid, SIGKILL);
    }
    reap_strays(pid);
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (r < 0)
        return STATUS_FAILED;
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == STATUS_SKIPPED))
        return WEXITSTATUS(status);
    conf_diag("%s", describe(status, text, sizeof(text)));
    return STATUS_FAILED;
}

static void report(size_t number, const struct conf_case *c, int result)
{
    say("%sok %zu - %s.%s%s", result == STATUS_FAILED ? "not " : "", number, conf_family, c->name,
        result == STATUS_SKIPPED ? " # SKIP not permitted here" : "");
}

static int run_all(const struct options *o)
{
    const struct conf_case *cases[MAX_CASES];
    size_t count = sorted_cases(cases);
    size_t first = 0;
    int failures = 0;

    for (size_t i = 0; o->from != NULL && i < count; i++) {
        if (strcmp(cases[i]->name, o->from) == 0)
            first = i;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    say("1..%zu", count - first);
    for (size_t i = first; i < count; i++) {
        unsigned int timeout_s =
            cases[i]->timeout_s > o->timeout_s ? cases[i]->timeout_s : o->timeout_s;
        int result = run_forked(cases[i], timeout_s);
        report(i - first + 1, cases[i], result);
        failures += result == STATUS_FAILED;
    }
    return failures > 0;
}

/* In this very process, so that a kernel without fork can run it. */
static int run_one(const char *name)
{
    const struct conf_case *cases[MAX_CASES];
    size_t count = sorted_cases(cases);
    char dir[256];

    for (size_t i = 0; i < count; i++) {
        if (strcmp(cases[i]->name, name) != 0)
            continue;
        case_directory(cases[i], dir, sizeof(dir));
        OK(mkdir(dir, 0755));
        OK(chdir(dir));
        say("1..1");
        cases[i]->run();
        OK(chdir("/"));
        nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
        report(1, cases[i], 0);
        return 0;
    }
    conf_diag("no case %s", name);
    return 2;
}

static int list_all(void)
{
    const struct conf_case *cases[MAX_CASES];
    size_t count = sorted_cases(cases);
    for (size_t i = 0; i < count; i++)
        say("%s.%s", conf_family, cases[i]->name);
    return 0;
}

/* As the interpreter of a script: prints its arguments, one a line. */
static int echo_arguments(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        say("%s", argv[i]);
    return 0;
}

static int run_helper(int argc, char **argv)
{
    for (const struct conf_helper *const *p = __start_conf_helpers; p < __stop_conf_helpers; p++) {
        if (strcmp((*p)->name, argv[0]) == 0)
            return (*p)->run(argc, argv);
    }
    conf_diag("no helper %s", argv[0]);
    return 2;
}

static void find_self(const char *argv0)
{
    if (argv0[0] == '/') {
        snprintf(self_path, sizeof(self_path), "%s", argv0);
        return;
    }
    ssize_t n = readlink("/proc/self/exe", self_path, sizeof(self_path) - 1);
    self_path[n > 0 ? n : 0] = '\0';
}

static int usage(const char *argv0)
{
    conf_diag("usage: %s [--list] [--case NAME] [--from NAME] [--timeout S] [--workdir DIR]",
              argv0);
    return 2;
}

static int parse(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--list") == 0) {
            o->list = true;
            continue;
        }
        if (value == NULL)
            return -EINVAL;
        if (strcmp(argv[i], "--case") == 0)
            o->only = value;
        else if (strcmp(argv[i], "--from") == 0)
            o->from = value;
        else if (strcmp(argv[i], "--timeout") == 0)
            o->timeout_s = (unsigned int)atoi(value);
        else if (strcmp(argv[i], "--workdir") == 0)
            work_root = value;
        else
            return -EINVAL;
        i++;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct options o = {.timeout_s = DEFAULT_TIMEOUT_S};
    struct rlimit core;

    find_self(argv[0]);
    if (argc >= 3 && strcmp(argv[1], "--helper") == 0)
        return run_helper(argc - 2, argv + 2);
    if (argc >= 2 && strncmp(argv[1], "--echo", 6) == 0)
        return echo_arguments(argc, argv);
    if (parse(argc, argv, &o) < 0)
        return usage(argv[0]);
    if (o.list)
        return list_all();
    /* Only the soft limit: cases about cores raise it again. */
    if (getrlimit(RLIMIT_CORE, &core) == 0) {
        core.rlim_cur = 0;
        setrlimit(RLIMIT_CORE, &core);
    }
    return o.only != NULL ? run_one(o.only) : run_all(&o);
}
