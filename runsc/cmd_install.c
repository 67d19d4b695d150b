/* install, uninstall: an entry for this runtime in docker's daemon.json. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runsc/cmd.h"
#include "runsc/spec.h"

#define INSTALL_CONFIG "/etc/docker/daemon.json"
#define INSTALL_NAME "runsc"

struct install_opts {
    const char *config, *name;
    bool is_default;
};

static int install_parse(int argc, char **argv, struct install_opts *o, struct err *e)
{
    const struct cmd_opt opts[] = {
        {"config-file", 0, NULL, &o->config, NULL, NULL},
        {"config_file", 0, NULL, &o->config, NULL, NULL},
        {"runtime", 0, NULL, &o->name, NULL, NULL},
        {"default", 0, &o->is_default, NULL, NULL, NULL},
    };

    *o = (struct install_opts){.config = INSTALL_CONFIG, .name = INSTALL_NAME};
    return cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);
}

/* The document that is there, or an empty one. */
static int install_read(const char *path, json_t **out, struct err *e)
{
    struct stat st;

    if (stat(path, &st) != 0 && errno == ENOENT) {
        *out = json_object();
        return 0;
    }
    return spec_read_json(path, path, out, e);
}

/* Replaced in one step, with the mode it had. */
static int install_write(const char *path, const json_t *doc, struct err *e)
{
    struct stat st = {.st_mode = 0644};
    char *tmp = NULL;
    int rc = 0;

    (void)stat(path, &st);
    if (asprintf(&tmp, "%s.runsc-new", path) < 0)
        return err_set(e, ENOMEM, "out of memory");
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, st.st_mode & 0777);
    if (fd < 0 || json_dumpfd(doc, fd, JSON_INDENT(4)) != 0 || write(fd, "\n", 1) != 1 ||
        fsync(fd) != 0 || rename(tmp, path) != 0) {
        rc = err_errno(e, errno, "cannot write %s", path);
        (void)unlink(tmp);
    }
    if (fd >= 0)
        (void)close(fd);
    free(tmp);
    return rc;
}

/* Whoever starts the runtime later does so by this path. */
static int install_own_path(char *buf, size_t size, struct err *e)
{
    ssize_t n = readlink("/proc/self/exe", buf, size - 1);

    if (n < 0)
        return err_errno(e, errno, "/proc/self/exe");
    buf[n] = '\0';
    return 0;
}

int cmd_install(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct install_opts o;
    char self[1024];
    json_t *doc = NULL;
    int first = install_parse(argc, argv, &o, e);

    (void)g;
    if (first < 0 || install_own_path(self, sizeof(self), e) != 0 ||
        install_read(o.config, &doc, e) != 0)
        return -1;
    json_t *runtimes = json_object_get(doc, "runtimes"), *args = json_array();
    if (runtimes == NULL) {
        runtimes = json_object();
        (void)json_object_set_new(doc, "runtimes", runtimes);
    }
    /* What follows the options is given to the runtime before every command. */
    for (int i = first; i < argc; i++)
        (void)json_array_append_new(args, json_string(argv[i]));
    json_t *entry = json_pack("{s:s}", "path", self);
    if (json_array_size(args) > 0)
        (void)json_object_set(entry, "runtimeArgs", args);
    json_decref(args);
    (void)json_object_set_new(runtimes, o.name, entry);
    if (o.is_default)
        (void)json_object_set_new(doc, "default-runtime", json_string(o.name));
    int rc = install_write(o.config, doc, e);
    json_decref(doc);
    if (rc == 0)
        printf("Added runtime \"%s\" to %s. Reload docker to use it.\n", o.name, o.config);
    return rc;
}

int cmd_uninstall(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct install_opts o;
    json_t *doc = NULL;
    int first = install_parse(argc, argv, &o, e);

    (void)g;
    if (first < 0 || cmd_operands(argc, argv, first, 0, 0, e) != 0 ||
        install_read(o.config, &doc, e) != 0)
        return -1;
    (void)json_object_del(json_object_get(doc, "runtimes"), o.name);
    const char *def = json_string_value(json_object_get(doc, "default-runtime"));
    if (def != NULL && strcmp(def, o.name) == 0)
        (void)json_object_del(doc, "default-runtime");
    int rc = install_write(o.config, doc, e);
    json_decref(doc);
    if (rc == 0)
        printf("Removed runtime \"%s\" from %s. Reload docker.\n", o.name, o.config);
    return rc;
}
