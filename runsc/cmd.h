/*
 * What: the commands of runsc and what they share: global options, tables, parsing helpers.
 * Depends on: runsc/err.h, runsc/container.h.
 * Threading: one thread per process.
 * Ownership: struct cmd_global lives in main.
 */
#ifndef RINGWALL_RUNSC_CMD_H
#define RINGWALL_RUNSC_CMD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "runsc/err.h"

struct cmd_global {
    const char *root;     /* state directory, absolute */
    const char *platform; /* how guest code runs */
    const char *network;  /* "sandbox", "none" or "host" */
    const char *log_path; /* NULL: stderr */
    int log_fd;           /* open when log_path is given, else -1 */
    bool log_json, debug, strace;
    bool patch_sites;      /* system call sites of guests may be patched */
    bool ignore_cgroups;   /* no cgroup is made, no limit of the host set */
    const char *host_uds;  /* "none", or "open": sockets of the host in mounts */
    const char *host_fifo; /* the same for FIFOs */
    const char *overlay;   /* "none", or where changes of the root file system go */
};

/* argv[0] is the command's name. Returns the exit code, or -1 with *e. */
typedef int (*cmd_fn)(const struct cmd_global *g, int argc, char **argv, struct err *e);

struct cmd {
    const char *name, *usage, *help;
    cmd_fn run;
};

int cmd_run(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_do(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_create(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_start(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_state(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_kill(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_delete(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_exec(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_list(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_spec(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_pause(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_resume(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_update(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_events(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_wait(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_features(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_debug(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_install(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_uninstall(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_forward(const struct cmd_global *g, int argc, char **argv, struct err *e);
int cmd_ps(const struct cmd_global *g, int argc, char **argv, struct err *e);

/* One option of a command. Exactly one of flag, text and fn is given. */
struct cmd_opt {
    const char *name; /* without dashes */
    char letter;      /* 0: none */
    bool *flag;       /* set true; "--name=false" sets false */
    const char **text;
    int (*fn)(void *arg, const char *value, struct err *e);
    void *arg;
};

/*
 * Parses argv[1..] up to the first argument that is no option (or "--"). An unknown option, a
 * missing or surplus value is an error. Returns the index of the first operand, or -1.
 */
int cmd_parse(int argc, char **argv, const struct cmd_opt *opts, size_t count, struct err *e);

/* Exactly min to max operands from argv[first] on, else a message with usage's name. */
MUST_CHECK int cmd_operands(int argc, char **argv, int first, int min, int max, struct err *e);

/* v (NULL: "-") cut to buf, which it may be, without what would move the cursor of whoever looks:
 * guests choose the names of their processes. Gives buf. */
const char *cmd_printable(const char *v, char *buf, size_t size);

#endif
