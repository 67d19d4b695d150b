/* containerd-shim-runsc-v1: what containerd starts for `runtime_type = "io.containerd.runsc.v1"`.
 *   ... start    starts the shim of a container or finds that of its pod, and prints its address
 *   ... delete   removes what a container left whose shim is gone */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/shim/shim.h"

#define SOCKET_DIR "/run/runsc-shim"
#define EXIT_KILLED 137

struct options {
    const char *ns, *address, *id, *verb;
};

static int complain(const char *what)
{
    fprintf(stderr, "containerd-shim-runsc-v1: %s: %s\n", what, strerror(errno));
    return 1;
}

static void parse(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (name[0] != '-') {
            o->verb = name;
            continue;
        }
        name += name[1] == '-' ? 2 : 1;
        if (strcmp(name, "debug") == 0 || i + 1 >= argc)
            continue;
        const char *value = argv[++i];
        if (strcmp(name, "namespace") == 0)
            o->ns = value;
        else if (strcmp(name, "address") == 0)
            o->address = value;
        else if (strcmp(name, "id") == 0)
            o->id = value;
    }
}

/* Containers of one pod share a shim: the annotation names their sandbox. Owned. */
static char *group_of(const char *id)
{
    json_t *doc = json_load_file("config.json", 0, NULL);
    const char *sandbox = json_string_value(
        json_object_get(json_object_get(doc, "annotations"), "io.kubernetes.cri.sandbox-id"));
    char *out = strdup(sandbox != NULL ? sandbox : id);

    json_decref(doc);
    return out;
}

/* Told apart by containerd, namespace and group, within a socket's name. Owned. */
static char *socket_path(const struct options *o, const char *group)
{
    uint64_t h = 14695981039346656037u;
    char *path = NULL;
    const char *const parts[] = {o->address, "\n", o->ns, "\n", group};

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        for (const char *c = parts[i]; *c != '\0'; c++)
            h = (h ^ (unsigned char)*c) * 1099511628211u;
    return asprintf(&path, SOCKET_DIR "/%.40s-%016llx", group, (unsigned long long)h) < 0 ? NULL
                                                                                          : path;
}

static int bind_socket(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(sa.sun_path, path, MIN(strlen(path), sizeof(sa.sun_path) - 1));
    if (fd < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0) {
        (void)close(fd);
        errno = EADDRINUSE;
        return -1;
    }
    (void)unlink(path);
    if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0 || chmod(path, 0600) != 0 ||
        listen(fd, 32) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

/* Where runsc is: beside this program. Owned. */
static char *find_runsc(void)
{
    char self[1024];
    char *path = NULL;
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n < 0)
        return NULL;
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL)
        *slash = '\0';
    return asprintf(&path, "%s/runsc", self) < 0 ? NULL : path;
}

static char *find_events(const char *address)
{
    const char *env = getenv("TTRPC_ADDRESS");
    char *out = NULL;

    if (env != NULL && env[0] != '\0')
        return strdup(env);
    return asprintf(&out, "%s.ttrpc", address) < 0 ? NULL : out;
}

/* NULL: no memory. It stays till the process ends. */
static struct shim *new_shim(const struct options *o)
{
    struct shim *s = calloc(1, sizeof(*s));
    char *root = NULL;
    pthread_condattr_t clock;

    if (s == NULL)
        return NULL;
    (void)pthread_mutex_init(&s->mu, NULL);
    (void)pthread_mutex_init(&s->event_mu, NULL);
    (void)pthread_condattr_init(&clock);
    (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s->changed, &clock);
    list_init(&s->containers);
    s->event_fd = s->watch_fd = s->watch = -1;
    s->ns = o->ns;
    s->address = o->address;
    s->runsc = find_runsc();
    s->events = find_events(o->address);
    if (asprintf(&root, "/run/containerd/runsc/%s", o->ns) < 0)
        return NULL;
    s->root = root;
    return s->runsc != NULL ? s : NULL;
}

/* The descriptor to learn by that the bundle, the working directory, goes away; out: the watch. */
static int watch_bundle(int *out)
{
    int fd = inotify_init1(IN_CLOEXEC);

    *out = fd >= 0 ? inotify_add_watch(fd, ".", SHIM_BUNDLE_GONE) : -1;
    return fd;
}

/* watch_fd is from before the fork: whoever started us may have given up meanwhile. The socket is
 * ours alone: who starts us may be killed at any moment. told: takes an errno, 0 once it is there.
 */
static NORETURN void daemon_main(const struct options *o, const char *path, int told, int watch_fd,
                                 int watch)
{
    sigset_t set;

    (void)setsid();
    (void)prctl(PR_SET_NAME, "runsc-shim", 0, 0, 0);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    (void)signal(SIGPIPE, SIG_IGN);
    const int listener = bind_socket(path), err = listener < 0 ? errno : 0;
    (void)!write(told, &err, sizeof(err));
    (void)close(told);
    if (err != 0)
        _exit(1);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3; i++)
        (void)dup2(null_fd, i);
    (void)!chdir("/");
    struct shim *s = new_shim(o);
    if (s != NULL) {
        s->socket = path;
        s->watch_fd = watch_fd;
        s->watch = watch;
        if (shim_reaper_start(s) == 0 && shim_end_start(s) == 0)
            shim_serve(s, listener);
    }
    (void)unlink(path);
    _exit(1);
}

/* Starts the shim that serves path, unless there is one: 0, or -1 and errno. */
static int start_daemon(const struct options *o, const char *path)
{
    int told[2], err = ECHILD, watch;
    const int watch_fd = watch_bundle(&watch);

    if (pipe2(told, O_CLOEXEC) != 0)
        return -1;
    const pid_t pid = fork();
    if (pid == 0) {
        (void)close(told[0]);
        daemon_main(o, path, told[1], watch_fd, watch);
    }
    (void)close(told[1]);
    if (pid < 0)
        err = errno;
    else
        (void)!read(told[0], &err, sizeof(err));
    (void)close(told[0]);
    errno = err;
    return err == 0 || err == EADDRINUSE ? 0 : -1;
}

static int write_address(const char *path)
{
    FILE *f = fopen("address", "we");
    bool ok = f != NULL && fprintf(f, "unix://%s", path) > 0;

    if (f != NULL)
        ok = fclose(f) == 0 && ok;
    return ok ? 0 : complain("address");
}

static int start(const struct options *o)
{
    char *group = group_of(o->id);
    char *path = group != NULL ? socket_path(o, group) : NULL;

    free(group);
    if (path == NULL)
        return complain("socket");
    (void)mkdir(SOCKET_DIR, 0711);
    if (start_daemon(o, path) != 0)
        return complain(path);
    if (write_address(path) != 0)
        return 1;
    printf("unix://%s", path);
    free(path);
    return 0;
}

static int run_delete(const struct shim *s, const char *id)
{
    pid_t pid = fork();

    if (pid == 0) {
        int null_fd = open("/dev/null", O_RDWR);
        (void)dup2(null_fd, STDOUT_FILENO);
        (void)execl(s->runsc, s->runsc, "--root", s->root, "delete", "--force", id, (char *)NULL);
        _exit(127);
    }
    int status;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return pid > 0 ? 0 : -1;
}

static int delete (const struct options *o)
{
    const struct shim *s = new_shim(o);
    struct pb_out reply = {0};
    struct timespec now;

    if (s == NULL || run_delete(s, o->id) != 0)
        return complain("delete");
    shim_unmount("rootfs");
    (void)clock_gettime(CLOCK_REALTIME, &now);
    pb_uint(&reply, 2, EXIT_KILLED);
    shim_put_time(&reply, 3, &now);
    bool ok = !reply.failed && write(STDOUT_FILENO, reply.data, reply.size) == (ssize_t)reply.size;
    pb_free(&reply);
    return ok ? 0 : complain("standard output");
}

int main(int argc, char **argv)
{
    struct options o = {.ns = "default", .address = "/run/containerd/containerd.sock", .verb = ""};

    parse(argc, argv, &o);
    if (o.id == NULL) {
        fputs("containerd-shim-runsc-v1 is started by containerd, with -id and start or delete\n",
              stderr);
        return 1;
    }
    if (strcmp(o.verb, "start") == 0)
        return start(&o);
    if (strcmp(o.verb, "delete") == 0)
        return delete (&o);
    fprintf(stderr, "containerd-shim-runsc-v1: unknown command \"%s\"\n", o.verb);
    return 1;
}
