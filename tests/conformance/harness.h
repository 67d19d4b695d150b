/* The harness of the conformance programs: cases, checks, child processes, TAP output.
 * Depends on: libc and kernel headers only; the same static program runs on Linux and in a sandbox.
 * Threading: checks may fail in any thread or child of a case; everything else from the case's
 * thread. Ownership: a case owns what it makes; the harness kills its process group and removes its
 * directory.
 */
#ifndef CONFORMANCE_HARNESS_H
#define CONFORMANCE_HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define NORETURN __attribute__((noreturn))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define CONF_PAGE 4096UL

struct conf_case {
    const char *name;
    void (*run)(void);
    int line;
    unsigned int timeout_s; /* if longer than the default */
};

/* A program that cases execute again: `program --helper NAME args...`. */
struct conf_helper {
    const char *name;
    int (*run)(int argc, char **argv);
};

/* A case runs in a process of its own, which leads its own process group, with an empty directory
 * as working directory, umask 022, default signal dispositions and nothing blocked. Returning means
 * success; a failed check ends the process (also from a thread) with status 1. */
#define TEST_TIMEOUT(id, seconds)                                                                  \
    static void test_##id(void);                                                                   \
    static const struct conf_case case_##id = {#id, test_##id, __LINE__, seconds};                 \
    static const struct conf_case *const case_ptr_##id                                             \
        __attribute__((used, section("conf_cases"))) = &case_##id;                                 \
    static void test_##id(void)
#define TEST(id) TEST_TIMEOUT(id, 0)

#define HELPER(id)                                                                                 \
    static int helper_##id(int argc, char **argv);                                                 \
    static const struct conf_helper helper_entry_##id = {#id, helper_##id};                        \
    static const struct conf_helper *const helper_ptr_##id                                         \
        __attribute__((used, section("conf_helpers"))) = &helper_entry_##id;                       \
    static int helper_##id(int argc, char **argv)

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond))                                                                               \
            conf_fail(__FILE__, __LINE__, "%s (errno %d)", #cond, errno);                          \
    } while (0)

#define CHECK_EQ(a, b)                                                                             \
    do {                                                                                           \
        long long eq_a = (long long)(a);                                                           \
        long long eq_b = (long long)(b);                                                           \
        if (eq_a != eq_b)                                                                          \
            conf_fail(__FILE__, __LINE__, "%s is %lld, not %s = %lld", #a, eq_a, #b, eq_b);        \
    } while (0)

#define CHECK_STR(a, b)                                                                            \
    do {                                                                                           \
        const char *str_a = (a);                                                                   \
        const char *str_b = (b);                                                                   \
        if (strcmp(str_a, str_b) != 0)                                                             \
            conf_fail(__FILE__, __LINE__, "%s is \"%s\", not \"%s\"", #a, str_a, str_b);           \
    } while (0)

/* The call returns -1 and sets exactly this errno. */
#define CHECK_ERRNO(call, err)                                                                     \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long long en_r = (long long)(call);                                                        \
        int en_e = errno;                                                                          \
        if (en_r != -1 || en_e != (err))                                                           \
            conf_fail(__FILE__, __LINE__, "%s gave %lld errno %d (%s), not %s", #call, en_r, en_e, \
                      strerror(en_e), #err);                                                       \
    } while (0)

/* The call's value, which must not be -1 (also fit for MAP_FAILED). */
#define OK(call)                                                                                   \
    ({                                                                                             \
        errno = 0;                                                                                 \
        __auto_type ok_r = (call);                                                                 \
        if (ok_r == (__typeof__(ok_r))-1)                                                          \
            conf_fail(__FILE__, __LINE__, "%s: errno %d (%s)", #call, errno, strerror(errno));     \
        ok_r;                                                                                      \
    })

/* pid is a child that must end with exit(code), or by signal sig. */
#define CHECK_EXIT(pid, code) conf_check_exit(__FILE__, __LINE__, pid, code)
#define CHECK_KILLED(pid, sig) conf_check_killed(__FILE__, __LINE__, pid, sig)

/* Prints a "# ..." line at once with one write. */
void conf_diag(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
NORETURN void conf_fail(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Ends the case as skipped: only for what the native host's user may not do. */
NORETURN void conf_skip(const char *why);
#define NEED_ROOT()                                                                                \
    do {                                                                                           \
        if (geteuid() != 0)                                                                        \
            conf_skip("needs root");                                                               \
    } while (0)

void conf_check_exit(const char *file, int line, pid_t pid, int code);
void conf_check_killed(const char *file, int line, pid_t pid, int sig);

/* fork that must succeed. */
pid_t conf_fork(void);
/* Waits for one child; returns the wait status. */
int conf_wait(pid_t pid);
/* Kills with SIGKILL and reaps. */
void conf_kill(pid_t pid);

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t conf_now(void);
void conf_sleep_ms(long ms);

/* How long the cases wait for what must come: a limit for what hangs, not for what is slow. */
#define CONF_PATIENCE_S 60
#define CONF_PATIENCE_NS (CONF_PATIENCE_S * INT64_C(1000000000))

/* Evaluates cond, every millisecond, until it is true; fails after CONF_PATIENCE_S. */
#define EVENTUALLY(cond)                                                                           \
    do {                                                                                           \
        const int64_t ev_end = conf_now() + CONF_PATIENCE_NS;                                      \
        while (!(cond)) {                                                                          \
            if (conf_now() > ev_end)                                                               \
                conf_fail(__FILE__, __LINE__, "never came: %s", #cond);                            \
            conf_sleep_ms(1);                                                                      \
        }                                                                                          \
    } while (0)

/* Zeroed memory shared with children. */
void *conf_shared(size_t size);
/* Private anonymous pages, read and write. */
void *conf_pages(size_t count);
/* Spins (with sleeps) until *word == value; fails after CONF_PATIENCE_S. */
void conf_await(const volatile int *word, int value);

/* The letter of proc_pid_stat(5) for the main thread of pid; 'X' when there is no such process. */
char conf_state(pid_t pid);
/* Waits till the main thread of pid sleeps in a call, or has ended: what follows tells which. Who
 * was just woken, or sent a signal, may still look asleep: wait for what it does then first. And as
 * conf_await sleeps too, nobody may be in it whose next call is meant. */
void conf_await_asleep(pid_t pid);
/* The same for all threads of this process but the caller. */
void conf_await_others_asleep(void);

/* Installs handler with flags, empty mask. */
void conf_handler(int sig, void (*handler)(int), int flags);
void conf_sigaction(int sig, void (*handler)(int, siginfo_t *, void *), int flags);

/* Creates or truncates a file and writes the string; reads a whole small file as a string. */
void conf_put(const char *path, const char *text);
/* One write to a file that is there: how much of the string was taken, or a negative errno. */
int conf_try_put(const char *path, const char *text);
/* Returns the length; buf always gets a NUL; content past size - 1 is not read. */
size_t conf_get(const char *path, char *buf, size_t size);
/* How many bytes FIONREAD says that fd has to read. */
int conf_unread(int fd);
/* True when path can be lstat'ed. */
bool conf_exists(const char *path);

/* Gives up root for uid and gid id, no groups, no capabilities (as setresuid does). */
void conf_become(uid_t id);

/* Absolute path of this program. */
const char *conf_self(void);
/* execve(conf_self(), {conf_self(), "--helper", name, args...}, environ); args ends with NULL. Only
 * returns by failing the case. */
NORETURN void conf_exec_helper(const char *name, const char *const *args);
/* Copies this program to path with this mode. */
void conf_copy_self(const char *path, mode_t mode);

/* The family's name, used in case names; defined by each program through CONF_FAMILY. */
extern const char conf_family[];
#define CONF_FAMILY(name) const char conf_family[] = name

#endif
