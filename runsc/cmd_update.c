/* update: other limits for a container that exists. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "runsc/cmd.h"
#include "runsc/container.h"

struct update_opts {
    const char *file;
    json_t *doc; /* a resources object */
};

/* One option and the member of the resources object that it sets. */
struct update_number {
    json_t *doc;
    const char *group, *key;
};

static json_t *update_group(json_t *doc, const char *group)
{
    json_t *g = json_object_get(doc, group);

    if (g == NULL) {
        g = json_object();
        (void)json_object_set_new(doc, group, g);
    }
    return g;
}

static int update_number(void *arg, const char *value, struct err *e)
{
    const struct update_number *n = arg;
    static const char units[] = "kmg";
    char *end;
    long long v = strtoll(value, &end, 10);
    /* "64m", as docker and podman write sizes. */
    const char *unit = *end != '\0' ? strchr(units, *end | 0x20) : NULL;

    if (unit != NULL && *unit != '\0') {
        if (__builtin_mul_overflow(v, 1ll << (10 * (unit - units + 1)), &v))
            return err_set(e, EINVAL, "update: \"%.60s\" is too large", value);
        end++;
    }
    if (*value == '\0' || *end != '\0')
        return err_set(e, EINVAL, "update: \"%.60s\" is not a number", value);
    (void)json_object_set_new(update_group(n->doc, n->group), n->key, json_integer(v));
    return 0;
}

static int update_text(void *arg, const char *value, struct err *e)
{
    const struct update_number *n = arg;

    (void)e;
    (void)json_object_set_new(update_group(n->doc, n->group), n->key, json_string(value));
    return 0;
}

static int update_parse(int argc, char **argv, struct update_opts *o, struct err *e)
{
    struct update_number memory = {o->doc, "memory", "limit"};
    struct update_number low = {o->doc, "memory", "reservation"};
    struct update_number swap = {o->doc, "memory", "swap"}, shares = {o->doc, "cpu", "shares"};
    struct update_number quota = {o->doc, "cpu", "quota"}, period = {o->doc, "cpu", "period"};
    struct update_number cpus = {o->doc, "cpu", "cpus"}, mems = {o->doc, "cpu", "mems"};
    struct update_number pids = {o->doc, "pids", "limit"}, blkio = {o->doc, "blockIO", "weight"};
    const struct cmd_opt opts[] = {
        {"resources", 'r', NULL, &o->file, NULL, NULL},
        {"memory", 0, NULL, NULL, update_number, &memory},
        {"memory-reservation", 0, NULL, NULL, update_number, &low},
        {"memory-swap", 0, NULL, NULL, update_number, &swap},
        {"cpu-share", 0, NULL, NULL, update_number, &shares},
        {"cpu-shares", 0, NULL, NULL, update_number, &shares},
        {"cpu-quota", 0, NULL, NULL, update_number, &quota},
        {"cpu-period", 0, NULL, NULL, update_number, &period},
        {"cpuset-cpus", 0, NULL, NULL, update_text, &cpus},
        {"cpuset-mems", 0, NULL, NULL, update_text, &mems},
        {"pids-limit", 0, NULL, NULL, update_number, &pids},
        {"blkio-weight", 0, NULL, NULL, update_number, &blkio},
    };

    return cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);
}

static int update_read(struct update_opts *o, struct err *e)
{
    json_t *doc = NULL;

    if (o->file == NULL)
        return 0;
    if (spec_read_json(o->file, "--resources", &doc, e) != 0)
        return -1;
    /* What the options say wins, group by group. */
    (void)json_object_update_missing(o->doc, doc);
    json_decref(doc);
    return 0;
}

/* The host's cgroups first, then what the sandbox sees to itself. A container of a pod has its
 * processes in its sandbox's cgroups, so its own need not be there. */
static int update_apply(const struct state *st, json_t *doc, const struct oci_resources *r,
                        struct err *e)
{
    if (!state_process_alive(&st->sentry))
        return err_set(e, ESRCH, "container not running");
    if ((st->sandbox == NULL || st->cgroup_count > 0) &&
        cgroup_update(container_cgroups(st), r, e) != 0)
        return -1;
    json_t *req = container_op(st, "limits");
    (void)json_object_set(req, "resources", doc);
    return container_tell(st, req, e);
}

int cmd_update(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    struct update_opts o = {.doc = json_object()};
    struct oci_resources r;
    struct oci_spec *spec = NULL;
    struct state st;
    int first = update_parse(argc, argv, &o, e);
    int rc = -1;

    if (first < 0 || cmd_operands(argc, argv, first, 1, 1, e) != 0 || update_read(&o, e) != 0 ||
        spec_resources_from_json(json_incref(o.doc), &r, &spec, e) != 0)
        goto out_doc;
    if (state_load(g->root, argv[first], &st, e) == 0) {
        rc = update_apply(&st, o.doc, &r, e);
        state_fini(&st);
    }
    spec_free(spec);

out_doc:
    json_decref(o.doc);
    return rc;
}
