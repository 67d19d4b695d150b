/* Children: the runtime's commands, which are waited for, and what they leave behind, which is
 * adopted: the shim is their subreaper. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/shim/shim.h"

#define ARGS_MAX 40
#define OUTPUT_MAX (256u * 1024)

/* ---- threads ---- */

int shim_thread(void *(*fn)(void *), void *arg)
{
    pthread_attr_t attr;
    pthread_t t;

    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, 256u << 10);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int r = pthread_create(&t, &attr, fn, arg);
    (void)pthread_attr_destroy(&attr);
    return -r;
}

/* ---- reaping ---- */

uint64_t shim_now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void note_exit(struct shim *s, pid_t pid, int status)
{
    struct shim_exit x = {
        .pid = pid, .status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status)};

    x.mono_ns = shim_now();
    (void)clock_gettime(CLOCK_REALTIME, &x.at);
    pthread_mutex_lock(&s->mu);
    if (!shim_proc_exited(s, &x)) {
        s->exits[s->exit_next % SHIM_EXITS_MAX] = x;
        s->exit_next++;
    }
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mu);
}

static void *reaper(void *arg)
{
    struct shim *s = arg;
    sigset_t set;
    int sig, status;
    pid_t pid;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    for (;;) {
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
            note_exit(s, pid, status);
        (void)sigwait(&set, &sig);
    }
    return NULL;
}

int shim_reaper_start(struct shim *s)
{
    return shim_thread(reaper, s);
}

bool shim_take_exit(struct shim *s, pid_t pid, uint64_t since, struct shim_exit *out)
{
    for (size_t i = 0; i < SHIM_EXITS_MAX; i++)
        if (s->exits[i].pid == pid && s->exits[i].mono_ns >= since) {
            *out = s->exits[i];
            s->exits[i].pid = 0;
            return true;
        }
    return false;
}

struct shim_exit shim_wait_child(struct shim *s, pid_t pid, uint64_t since)
{
    struct shim_exit x;

    while (!shim_take_exit(s, pid, since, &x))
        pthread_cond_wait(&s->changed, &s->mu);
    return x;
}

/* ---- commands ---- */

/* The reason is the last line of the runtime's log. */
static void read_reason(const char *log, char *error, size_t size)
{
    char line[3000];
    json_t *doc = NULL;
    FILE *f = fopen(log, "re");

    (void)snprintf(error, size, "the runtime failed");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        json_decref(doc);
        doc = json_loads(line, 0, NULL);
        const char *level = json_string_value(json_object_get(doc, "level"));
        const char *msg = json_string_value(json_object_get(doc, "msg"));
        if (level != NULL && msg != NULL && strcmp(level, "error") == 0)
            (void)snprintf(error, size, "%s", msg);
    }
    json_decref(doc);
    if (f != NULL)
        (void)fclose(f);
}

/* Between fork and exec of a process with threads: host calls only. */
static NORETURN void child(const char *path, char *const *argv, const int fds[3], int null_fd)
{
    sigset_t none;
    int high[3];

    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    for (int i = 0; i < 3; i++)
        high[i] = fcntl(fds[i] >= 0 ? fds[i] : null_fd, F_DUPFD_CLOEXEC, 10);
    for (int i = 0; i < 3; i++)
        if (high[i] < 0 || dup2(high[i], i) < 0)
            _exit(126);
    (void)execv(path, argv);
    _exit(127);
}

static pid_t start(struct shim *s, char *const *argv, const int fds[3])
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    pid_t pid = null_fd < 0 ? -1 : fork();

    if (pid == 0)
        child(s->runsc, argv, fds, null_fd);
    if (null_fd >= 0)
        (void)close(null_fd);
    return pid;
}

static char *read_output(int fd)
{
    char *text = malloc(OUTPUT_MAX + 1);
    size_t used = 0;
    ssize_t n;

    while (text != NULL && used < OUTPUT_MAX &&
           ((n = read(fd, text + used, OUTPUT_MAX - used)) > 0 || (n < 0 && errno == EINTR)))
        used += n > 0 ? (size_t)n : 0;
    if (text != NULL)
        text[used] = '\0';
    return text;
}

/* An unnamed file with the text, read from its start. */
static int input_file(const char *text)
{
    FILE *f = tmpfile();
    int fd = -1;

    if (f != NULL && fputs(text, f) >= 0 && fflush(f) == 0) {
        fd = fcntl(fileno(f), F_DUPFD_CLOEXEC, 3);
        if (fd >= 0)
            (void)lseek(fd, 0, SEEK_SET);
    }
    if (f != NULL)
        (void)fclose(f);
    return fd;
}

static int run(struct shim *s, char *const *argv, int fds[3], char **out_text)
{
    int p[2] = {-1, -1};

    if (out_text != NULL) {
        if (pipe2(p, O_CLOEXEC) != 0)
            return -1;
        fds[1] = p[1];
    }
    const uint64_t since = shim_now();
    pid_t pid = start(s, argv, fds);
    if (p[1] >= 0)
        (void)close(p[1]);
    if (out_text != NULL) {
        *out_text = pid > 0 ? read_output(p[0]) : NULL;
        (void)close(p[0]);
    }
    if (pid < 0)
        return -1;
    pthread_mutex_lock(&s->mu);
    struct shim_exit x = shim_wait_child(s, pid, since);
    pthread_mutex_unlock(&s->mu);
    return x.status;
}

int shim_runsc(struct shim *s, const char *bundle, const char *const *args, const int fds[3],
               const char *input, char **out_text, char *error, size_t size)
{
    const char *argv[ARGS_MAX] = {s->runsc, "--root",       s->root, "--log",
                                  NULL,     "--log-format", "json"};
    int own[3] = {fds[0], fds[1], fds[2]};
    size_t n = 7;
    char *log = NULL;
    int made = bundle != NULL ? asprintf(&log, "%s/log.json", bundle) : asprintf(&log, "/dev/null");

    if (made < 0)
        return -1;
    argv[4] = log;
    while (*args != NULL && n + 1 < ARRAY_SIZE(argv))
        argv[n++] = *args++;
    argv[n] = NULL;
    if (input != NULL)
        own[0] = input_file(input);
    int status = run(s, (char *const *)(uintptr_t)argv, own, out_text);
    if (input != NULL && own[0] >= 0)
        (void)close(own[0]);
    if (status != 0)
        read_reason(log, error, size);
    free(log);
    return status == 0 ? 0 : -1;
}
