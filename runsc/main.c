/* runsc: global options, choice of the command, the one place that prints errors. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "runsc/cmd.h"
#include "runsc/spec.h"

#define EXIT_USAGE 125

static const struct cmd commands[] = {
    {"run", "run [--bundle DIR] [--detach] [--pid-file F] [--console-socket S] ID",
     "create a container and start it", cmd_run},
    {"do", "do [--root-dir DIR] [--cwd DIR] [-e VAR=VALUE] [--] PROGRAM [ARG...]",
     "run a program in a sandbox that sees this machine's files read-only", cmd_do},
    {"create", "create [--bundle DIR] [--pid-file F] [--console-socket S] ID",
     "create a container that waits for start", cmd_create},
    {"start", "start ID", "start a created container", cmd_start},
    {"state", "state ID", "print the state of a container as JSON", cmd_state},
    {"kill", "kill [--all] ID [SIGNAL]", "send a signal (TERM) to a container", cmd_kill},
    {"delete", "delete [--force] ID...", "remove stopped containers", cmd_delete},
    {"exec",
     "exec [-t] [-d] [-e VAR=VALUE] [--cwd DIR] [--user U[:G]] [--additional-gids G] [--cap CAP]"
     " [--no-new-privs] [--pid-file F] [--console-socket S] [--process FILE] ID [CMD...]",
     "run another program in a container", cmd_exec},
    {"list", "list [--quiet] [--format table|json]", "list the containers", cmd_list},
    {"ps", "ps [--format table|json] ID",
     "list the processes of a container; as JSON, those of the host that stand for them", cmd_ps},
    {"pause", "pause ID", "stop all processes of a container", cmd_pause},
    {"resume", "resume ID", "let the processes of a paused container go on", cmd_resume},
    {"update",
     "update [--resources FILE|-] [--memory N] [--memory-reservation N] [--memory-swap N]"
     " [--cpu-shares N] [--cpu-quota N] [--cpu-period N] [--cpuset-cpus L] [--cpuset-mems L]"
     " [--pids-limit N] [--blkio-weight N] ID",
     "change the limits of a container", cmd_update},
    {"events", "events [--stats] [--interval TIME] ID",
     "print what a container uses, once with --stats, else again and again", cmd_events},
    {"wait", "wait [--pid PID] ID", "wait for the end of a container and print its exit status",
     cmd_wait},
    {"port-forward", "port-forward [--listen PATH | --stream PATH] ID [LOCAL:]PORT",
     "connect standard input and output to a port in a sandbox; or every connection to PATH or to"
     " port LOCAL of this host; or the one that listens at the --stream PATH",
     cmd_forward},
    {"debug",
     "debug [--stacks] [--log-level LEVEL] [--strace on|off] [--profile FILE|- [--seconds N]] ID",
     "look into a sandbox: the stack of every thread, a profile of N (5) seconds of the sentry as"
     " folded stacks; change what it logs",
     cmd_debug},
    {"features", "features", "print what this runtime can do, as the specification says",
     cmd_features},
    {"install", "install [--config-file FILE] [--runtime NAME] [--default] [-- OPTION...]",
     "add this runtime to docker's daemon.json", cmd_install},
    {"uninstall", "uninstall [--config-file FILE] [--runtime NAME]", "take it out again",
     cmd_uninstall},
    {"spec", "spec [--bundle DIR] [--rootless]", "write a config.json to start from", cmd_spec},
};

static void main_print_command(FILE *f, const struct cmd *c)
{
    fprintf(f, "  %s\n      %s\n", c->usage, c->help);
}

static void main_usage(FILE *f)
{
    fputs("usage: runsc [OPTION...] COMMAND [ARGUMENT...]\n\nCommands:\n", f);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        main_print_command(f, &commands[i]);
    fputs("  help [COMMAND]\n      print this, or the usage of one command\n", f);
    fputs(
        "\nOptions:\n"
        "  --root DIR            where the state of containers is kept\n"
        "  --platform NAME       how guest code runs: systrap, ptrace, kvm, or auto, the\n"
        "                        best that can be used here (default)\n"
        "  --patch-sites WHAT    on: system call instructions that are executed often hand over\n"
        "                        without a trap, in the programs' memory (default); off:\n"
        "                        code is never changed\n"
        "  --network MODE        sandbox: a TCP/IP stack of its own on the links of the\n"
        "                        container's network namespace; none: loopback only;\n"
        "                        host: sockets of that namespace itself\n"
        "  --host-fifo WHAT      open: guests may open FIFOs of the host that mounts show; none: "
        "a\n"
        "                        FIFO is one of the sandbox only (default)\n"
        "  --host-uds WHAT       open: guests may connect to Unix sockets of the host that mounts\n"
        "                        show; none: they may not (default)\n"
        "  --log FILE            append log lines to FILE instead of standard error\n"
        "  --log-format F        text or json\n"
        "  --debug               log more\n"
        "  --overlay WHERE       root:memory[,size=N]: changes of the root file system stay in\n"
        "                        the sandbox; none: they are written to the image\n"
        "  --strace              log every system call of the guest\n"
        "  --ignore-cgroups      make no cgroup and set no limit of the host\n"
        "  --systemd-cgroup      accepted; cgroups are written directly\n"
        "  --rootless            accepted; an ordinary user is told by the user id\n"
        "  --version, --help\n",
        f);
}

static const struct cmd *main_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static bool main_is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* Usage of one command. */
static int main_help(const char *name, struct err *e)
{
    const struct cmd *c = main_find(name);

    if (c == NULL)
        return err_set(e, EINVAL, "help: unknown command \"%.100s\"", name);
    fputs("usage: runsc [OPTION...]", stdout);
    main_print_command(stdout, c);
    return 0;
}

static void main_report(const struct cmd_global *g, const struct err *e)
{
    /* Containerd and docker read the last JSON line of the log; a person reads stderr. */
    if (g->log_fd >= 0)
        log_error("%s", e->text);
    fprintf(stderr, "runsc: %s\n", e->text);
}

static char *main_default_root(void)
{
    const char *runtime_dir = getenv("XDG_RUNTIME_DIR");
    char *out = NULL;
    int n;

    if (geteuid() == 0)
        return strdup("/run/ringwall");
    if (runtime_dir != NULL && runtime_dir[0] == '/')
        n = asprintf(&out, "%s/ringwall", runtime_dir);
    else
        n = asprintf(&out, "/tmp/ringwall-%u", (unsigned)geteuid());
    return n < 0 ? NULL : out;
}

static int main_open_log(struct cmd_global *g, const char *format, struct err *e)
{
    if (format != NULL && strcmp(format, "json") != 0 && strcmp(format, "text") != 0)
        return err_set(e, EINVAL, "--log-format must be text or json");
    g->log_json = format != NULL && strcmp(format, "json") == 0;
    if (g->log_path != NULL) {
        g->log_fd = open(g->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (g->log_fd < 0)
            return err_errno(e, errno, "cannot open the log %s", g->log_path);
    }
    log_init(g->log_fd >= 0 ? g->log_fd : STDERR_FILENO, g->debug ? LOG_DEBUG : LOG_WARN,
             g->log_json ? LOG_JSON : LOG_TEXT);
    return 0;
}

static int main_command(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    const struct cmd *c = main_find(argv[0]);

    if (strcmp(argv[0], "help") == 0) {
        if (argc > 1)
            return main_help(argv[1], e);
        main_usage(stdout);
        return 0;
    }
    if (c == NULL)
        return err_set(e, EINVAL, "unknown command \"%.100s\"; see runsc --help", argv[0]);
    if (argc > 1 && main_is_help(argv[1]))
        return main_help(c->name, e);
    return c->run(g, argc, argv, e);
}

static bool main_overlay_ok(const char *overlay)
{
    const char *memory = "root:memory";
    size_t n = strlen(memory);

    if (strcmp(overlay, "none") == 0 || strcmp(overlay, memory) == 0)
        return true;
    return strncmp(overlay, memory, n) == 0 && strncmp(overlay + n, ",size=", 6) == 0 &&
           strchr(overlay + n + 1, ',') == NULL;
}

/* 0 or -1; what --version and --help print is done by the caller. */
static int main_globals(struct cmd_global *g, int argc, char **argv, bool *version, bool *help,
                        int *first, struct err *e)
{
    const char *format = NULL;
    bool systemd_cgroup = false;
    const char *rootless = NULL;
    const char *patch = "on";
    const struct cmd_opt opts[] = {
        {"root", 0, NULL, &g->root, NULL, NULL},
        {"platform", 0, NULL, &g->platform, NULL, NULL},
        {"patch-sites", 0, NULL, &patch, NULL, NULL},
        {"network", 0, NULL, &g->network, NULL, NULL},
        {"host-fifo", 0, NULL, &g->host_fifo, NULL, NULL},
        {"host-uds", 0, NULL, &g->host_uds, NULL, NULL},
        {"log", 0, NULL, &g->log_path, NULL, NULL},
        {"log-format", 0, NULL, &format, NULL, NULL},
        {"debug", 0, &g->debug, NULL, NULL, NULL},
        {"strace", 0, &g->strace, NULL, NULL, NULL},
        {"ignore-cgroups", 0, &g->ignore_cgroups, NULL, NULL, NULL},
        {"rootless", 0, NULL, &rootless, NULL, NULL},
        {"overlay", 0, NULL, &g->overlay, NULL, NULL},
        {"systemd-cgroup", 0, &systemd_cgroup, NULL, NULL, NULL},
        {"version", 'v', version, NULL, NULL, NULL},
        {"help", 'h', help, NULL, NULL, NULL},
    };

    *first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);
    if (*first < 0)
        return -1;
    if (!main_overlay_ok(g->overlay))
        return err_set(e, EINVAL, "--overlay must be none or root:memory[,size=N]");
    if (strcmp(patch, "on") != 0 && strcmp(patch, "off") != 0)
        return err_set(e, EINVAL, "--patch-sites must be on or off");
    g->patch_sites = strcmp(patch, "on") == 0;
    if (strcmp(g->network, "sandbox") != 0 && strcmp(g->network, "none") != 0 &&
        strcmp(g->network, "host") != 0)
        return err_set(e, EINVAL, "--network must be sandbox, none or host");
    if (strcmp(g->host_fifo, "none") != 0 && strcmp(g->host_fifo, "open") != 0)
        return err_set(e, EINVAL, "--host-fifo must be none or open");
    if (strcmp(g->host_uds, "none") != 0 && strcmp(g->host_uds, "open") != 0)
        return err_set(e, EINVAL, "--host-uds must be none or open");
    return main_open_log(g, format, e);
}

int main(int argc, char **argv)
{
    struct cmd_global g = {.platform = "auto",
                           .overlay = "root:memory",
                           .network = "sandbox",
                           .host_fifo = "none",
                           .host_uds = "none",
                           .log_fd = -1};
    struct err e = {0};
    bool version = false, help = false;
    char *default_root = main_default_root();
    int first = 0, code;

    g.root = default_root;
    if (main_globals(&g, argc, argv, &version, &help, &first, &e) != 0) {
        main_report(&g, &e);
        return EXIT_USAGE;
    }
    if (version || help) {
        if (version)
            printf("runsc version %s\nspec: %s\n", RINGWALL_VERSION, SPEC_VERSION);
        else
            main_usage(stdout);
        free(default_root);
        return 0;
    }
    if (first >= argc) {
        main_usage(stderr);
        return EXIT_USAGE;
    }
    code = main_command(&g, argc - first, argv + first, &e);
    if (code < 0) {
        main_report(&g, &e);
        code = EXIT_USAGE;
    }
    free(default_root);
    return code;
}
