#include "runsc/stacks.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>

#include "runsc/cmd.h"
#include "runsc/unwind.h"

#define STACKS_DEPTH_MAX 64
/* For a thread to stop; one that sleeps in the host without an end is left alone. */
#define STACKS_STOP_NS 1000000
#define STACKS_STOP_TRIES 500

/* First line of a file of a thread, "-" without one. */
static void stacks_line(pid_t pid, pid_t tid, const char *file, char *out, size_t size)
{
    char path[96];

    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", (int)pid, (int)tid, file);
    FILE *f = fopen(path, "re");
    if (f == NULL || fgets(out, (int)size, f) == NULL)
        (void)snprintf(out, size, "-");
    if (f != NULL)
        (void)fclose(f);
    out[strcspn(out, "\n")] = '\0';
    (void)cmd_printable(out, out, size);
}

/* Its number in the sandbox's pid namespace: the last of the line NSpid. */
static pid_t stacks_inner_tid(pid_t pid, pid_t tid)
{
    char path[96], line[256];
    pid_t inner = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/status", (int)pid, (int)tid);
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, "NSpid:", 6) == 0) {
            const char *last = strrchr(line, '\t');
            inner = last != NULL ? (pid_t)strtol(last, NULL, 10) : 0;
        }
    if (f != NULL)
        (void)fclose(f);
    return inner;
}

/* arg: the process. */
static bool stacks_read(void *arg, uint64_t at, uint64_t *out)
{
    struct iovec local = {out, sizeof(*out)}, remote = {(void *)(uintptr_t)at, sizeof(*out)};

    return process_vm_readv(*(pid_t *)arg, &local, 1, &remote, 1, 0) == (ssize_t)sizeof(*out);
}

static void stacks_frame(const struct symbols *s, uint64_t addr)
{
    uint64_t off = 0;
    const char *name = symbols_find(s, addr, &off);

    if (name != NULL)
        printf("    %s+0x%" PRIx64 "\n", name, off);
    else
        printf("    0x%" PRIx64 "\n", addr);
}

static void stacks_walk(pid_t pid, const struct unwind *u, const struct user_regs_struct *from)
{
    struct unwind_regs r = {.ip = from->rip, .sp = from->rsp, .bp = from->rbp};
    int depth = 0;

    do {
        stacks_frame(u->s, r.ip - r.called);
    } while (++depth < STACKS_DEPTH_MAX && unwind_step(u, &r, stacks_read, &pid));
}

static bool stacks_stop(pid_t tid)
{
    static const struct timespec nap = {.tv_nsec = STACKS_STOP_NS};
    int status;

    if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) != 0)
        return false;
    if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) == 0)
        for (int i = 0; i < STACKS_STOP_TRIES; i++) {
            if (waitpid(tid, &status, __WALL | WNOHANG) == tid)
                return WIFSTOPPED(status);
            (void)nanosleep(&nap, NULL);
        }
    return false;
}

static void stacks_thread(pid_t pid, pid_t tid, const struct unwind *u)
{
    struct user_regs_struct regs;
    struct iovec io = {&regs, sizeof(regs)};

    if (stacks_stop(tid)) {
        /* 1: NT_PRSTATUS. */
        if (ptrace(PTRACE_GETREGSET, tid, (void *)1, &io) == 0)
            stacks_walk(pid, u, &regs);
    } else {
        puts("    (cannot be held)");
    }
    (void)ptrace(PTRACE_DETACH, tid, NULL, NULL);
}

/* "pid 1, tid 1, sh, S", or NULL: a thread of the sentry's own. */
static const json_t *stacks_task(const json_t *tasks, pid_t inner)
{
    const json_t *list = json_object_get(tasks, "tasks"), *row;
    size_t i;

    json_array_foreach(list, i, row) if (json_integer_value(json_object_get(row, "host")) ==
                                         inner) return row;
    return NULL;
}

static void stacks_title(pid_t pid, pid_t tid, const json_t *tasks)
{
    const json_t *t = stacks_task(tasks, stacks_inner_tid(pid, tid));
    char comm[64], call[160], where[96];

    stacks_line(pid, tid, "comm", comm, sizeof(comm));
    stacks_line(pid, tid, "syscall", call, sizeof(call));
    stacks_line(pid, tid, "wchan", where, sizeof(where));
    printf("thread %d (%s), host: %s in call %s\n", (int)tid, comm, where, call);
    if (t != NULL)
        printf(
            "  guest process %lld, thread %lld (%s), state %s, container %s\n",
            json_integer_value(json_object_get(t, "pid")),
            json_integer_value(json_object_get(t, "tid")),
            cmd_printable(json_string_value(json_object_get(t, "cmd")), comm, sizeof(comm)),
            cmd_printable(json_string_value(json_object_get(t, "state")), where, sizeof(where)),
            cmd_printable(json_string_value(json_object_get(t, "container")), call, sizeof(call)));
}

int stacks_print(pid_t pid, const json_t *tasks, struct err *e)
{
    struct symbols *s = NULL;
    struct unwind u;
    char path[64];

    if (symbols_open(pid, &s, e) != 0)
        return -1;
    if (!unwind_init(&u, s)) {
        symbols_close(s);
        return err_set(e, ENOTSUP, "the sandbox's program has no tables of its frames");
    }
    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    for (struct dirent *d; dir != NULL && (d = readdir(dir)) != NULL;) {
        const pid_t tid = (pid_t)strtol(d->d_name, NULL, 10);
        if (tid <= 0)
            continue;
        stacks_title(pid, tid, tasks);
        stacks_thread(pid, tid, &u);
    }
    if (dir != NULL)
        (void)closedir(dir);
    symbols_close(s);
    return 0;
}
