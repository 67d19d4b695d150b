/* do: one program on this machine's own files, which it can read and not change. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "runsc/cmd.h"
#include "runsc/container.h"
#include "runsc/default_spec.h"

struct do_opts {
    const char *root_dir, *cwd;
    json_t *env;
};

static int do_add_env(void *arg, const char *value, struct err *e)
{
    json_t *env = arg;

    if (strchr(value, '=') == NULL || value[0] == '=')
        return err_set(e, EINVAL, "do: -e wants VARIABLE=VALUE, not \"%.100s\"", value);
    (void)json_array_append_new(env, json_string(value));
    return 0;
}

/* What a program needs to find its way; the caller's other variables are not the guest's affair. */
static void do_default_env(json_t *env)
{
    static const char *const names[] = {"PATH", "HOME", "TERM", "LANG", "LC_ALL", "TZ", "USER"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        const char *v = getenv(names[i]);
        if (v != NULL)
            (void)json_array_append_new(env, json_sprintf("%s=%s", names[i], v));
    }
}

static json_t *do_args(int argc, char **argv)
{
    json_t *args = json_array();

    for (int i = 0; i < argc; i++)
        (void)json_array_append_new(args, json_string(argv[i]));
    return args;
}

/* The caller's ids, without capabilities unless it is root's. */
static void do_user(json_t *process)
{
    json_t *user = json_pack("{s:i,s:i}", "uid", (int)geteuid(), "gid", (int)getegid());

    (void)json_object_set_new(process, "user", user);
    if (geteuid() != 0)
        (void)json_object_del(process, "capabilities");
}

static json_t *do_document(const struct do_opts *o, int argc, char **argv, const char *cwd)
{
    json_t *doc = default_spec();
    json_t *process = json_object_get(doc, "process");
    json_t *mounts = json_object_get(doc, "mounts");
    bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);

    (void)json_object_set_new(process, "terminal", json_boolean(terminal));
    (void)json_object_set_new(process, "args", do_args(argc, argv));
    (void)json_object_set(process, "env", o->env);
    (void)json_object_set_new(process, "cwd", json_string(cwd));
    do_user(process);
    (void)json_object_set_new(doc, "root",
                              json_pack("{s:s,s:b}", "path", o->root_dir, "readonly", 1));
    (void)json_array_append_new(mounts, json_pack("{s:s,s:s,s:s,s:[s,s,s]}", "destination", "/tmp",
                                                  "type", "tmpfs", "source", "tmpfs", "options",
                                                  "nosuid", "nodev", "mode=1777"));
    /* The guest's own /tmp must not hide where the caller stands. */
    if (strncmp(cwd, "/tmp/", 5) == 0 && strcmp(o->root_dir, "/") == 0)
        (void)json_array_append_new(mounts,
                                    json_pack("{s:s,s:s,s:s,s:[s,s]}", "destination", cwd, "type",
                                              "bind", "source", cwd, "options", "bind", "ro"));
    return doc;
}

/* An id that no container of the caller has. */
static void do_id(char *buf, size_t size)
{
    uint32_t r = 0;

    (void)!getrandom(&r, sizeof(r), 0);
    (void)snprintf(buf, size, "do-%d-%08x", (int)getpid(), r);
}

static int do_start(const struct cmd_global *g, const struct do_opts *o, int argc, char **argv,
                    struct err *e)
{
    struct container_args a = {.bundle = "/", .attached = true};
    struct container c;
    char id[64];
    char *cwd = o->cwd != NULL ? strdup(o->cwd) : NULL;

    /* Another root has other directories. */
    if (cwd == NULL)
        cwd = strcmp(o->root_dir, "/") == 0 ? getcwd(NULL, 0) : strdup("/");
    if (cwd == NULL)
        return err_errno(e, errno, "current directory");
    do_id(id, sizeof(id));
    a.id = id;
    json_t *doc = do_document(o, argc, argv, cwd);
    free(cwd);
    if (spec_from_json(doc, "do", &a.spec, e) != 0 || container_create(g, &a, &c, e) != 0)
        return -1;
    return run_attached(&c, e);
}

int cmd_do(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct do_opts o = {.root_dir = "/", .env = json_array()};
    const struct cmd_opt opts[] = {
        {"root-dir", 0, NULL, &o.root_dir, NULL, NULL},
        {"cwd", 0, NULL, &o.cwd, NULL, NULL},
        {"env", 'e', NULL, NULL, do_add_env, o.env},
    };
    int rc = -1;

    do_default_env(o.env);
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);
    if (first >= 0 && cmd_operands(argc, argv, first, 1, -1, e) == 0)
        rc = do_start(g, &o, argc - first, argv + first, e);
    json_decref(o.env);
    return rc;
}
