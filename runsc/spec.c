#include "runsc/spec.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runsc/spec_json.h"

/* Linux: __NEW_UTS_LEN. */
#define UTS_NAME_MAX 64u

static const char *skip_digits(const char *p)
{
    while (isdigit((unsigned char)*p))
        p++;
    return p;
}

/* Semantic version MAJOR.MINOR.PATCH[-...|+...] with major 1. */
static int spec_parse_version(const struct jnode *n, const char **out)
{
    const char *v = NULL, *p;

    if (jn_need(n) != 0 || jn_string(n, &v) != 0)
        return -1;
    p = v;
    for (int part = 0; part < 3; part++) {
        const char *end = skip_digits(p);

        if (end == p || (part < 2 && *end != '.'))
            return jn_error(n, "\"%.64s\" is not a version", v);
        p = part < 2 ? end + 1 : end;
    }
    if (*p != '\0' && *p != '-' && *p != '+')
        return jn_error(n, "\"%.64s\" is not a version", v);
    if (strncmp(v, "1.", 2) != 0)
        return jn_error(n, "unsupported version \"%.64s\" (1.x is supported)", v);
    *out = v;
    return 0;
}

static int spec_parse_root(const struct jnode *n, struct oci_spec *spec)
{
    struct jnode path = jn_member(n, "path"), ro = jn_member(n, "readonly");

    if (jn_need(n) != 0 || jn_check_object(n) != 0 || jn_need(&path) != 0 ||
        jn_string(&path, &spec->root_path) != 0 || jn_bool(&ro, &spec->root_readonly) != 0)
        return -1;
    return spec->root_path[0] != '\0' ? 0 : jn_error(&path, "must not be empty");
}

static int spec_parse_uts_name(const struct jnode *n, const char **out)
{
    if (jn_string(n, out) != 0)
        return -1;
    if (*out != NULL && strlen(*out) > UTS_NAME_MAX)
        return jn_error(n, "longer than %u bytes", UTS_NAME_MAX);
    return 0;
}

static int spec_parse_all(const struct jnode *root, struct oci_spec *spec)
{
    struct jnode version = jn_member(root, "ociVersion"), process = jn_member(root, "process");
    struct jnode rootfs = jn_member(root, "root"), host = jn_member(root, "hostname");
    struct jnode domain = jn_member(root, "domainname"), mounts = jn_member(root, "mounts");
    struct jnode hooks = jn_member(root, "hooks"), notes = jn_member(root, "annotations");
    struct jnode lx = jn_member(root, "linux");

    if (spec_parse_version(&version, &spec->oci_version) != 0 || jn_need(&process) != 0 ||
        spec_parse_process(&process, &spec->process) != 0 || spec_parse_root(&rootfs, spec) != 0 ||
        spec_parse_uts_name(&host, &spec->hostname) != 0 ||
        spec_parse_uts_name(&domain, &spec->domainname) != 0 ||
        spec_parse_mounts(&mounts, spec) != 0 || spec_parse_hooks(&hooks, &spec->hooks) != 0 ||
        jn_pairs(&notes, &spec->annotations) != 0)
        return -1;
    return spec_parse_linux(&lx, &spec->lx);
}

static int spec_parse_process_only(const struct jnode *root, struct oci_spec *spec)
{
    return spec_parse_process(root, &spec->process);
}

static int spec_build(json_t *json, const char *name,
                      int (*parse)(const struct jnode *, struct oci_spec *),
                      struct oci_spec **out_spec, struct err *e)
{
    struct oci_spec *spec = calloc(1, sizeof(*spec));
    struct spec_ctx ctx = {.name = name, .e = e};
    struct jnode root = {.ctx = &ctx, .v = json};

    if (spec == NULL) {
        json_decref(json);
        return err_set(e, ENOMEM, "%s: out of memory", name);
    }
    spec->json = json;
    spec->pool = spec_pool_new();
    if (spec->pool == NULL) {
        (void)err_set(e, ENOMEM, "%s: out of memory", name);
        goto out_free;
    }
    ctx.pool = spec->pool;
    if (parse(&root, spec) != 0)
        goto out_free;
    *out_spec = spec;
    return 0;

out_free:
    spec_free(spec);
    return -1;
}

int spec_from_json(json_t *json, const char *name, struct oci_spec **out_spec, struct err *e)
{
    return spec_build(json, name, spec_parse_all, out_spec, e);
}

int spec_process_from_json(json_t *json, const char *name, struct oci_spec **out_spec,
                           struct err *e)
{
    return spec_build(json, name, spec_parse_process_only, out_spec, e);
}

int spec_resources_from_json(json_t *json, struct oci_resources *out, struct oci_spec **out_spec,
                             struct err *e)
{
    struct oci_spec *spec = calloc(1, sizeof(*spec));
    struct spec_ctx ctx = {.name = "resources", .e = e};
    struct jnode root = {.ctx = &ctx, .v = json};

    if (spec == NULL) {
        json_decref(json);
        return err_set(e, ENOMEM, "resources: out of memory");
    }
    spec->json = json;
    spec->pool = spec_pool_new();
    if (spec->pool == NULL) {
        spec_free(spec);
        return err_set(e, ENOMEM, "resources: out of memory");
    }
    ctx.pool = spec->pool;
    if (spec_parse_resources(&root, out) != 0) {
        spec_free(spec);
        return -1;
    }
    *out_spec = spec;
    return 0;
}

int spec_parse(const char *text, size_t size, const char *name, struct oci_spec **out_spec,
               struct err *e)
{
    json_t *json = NULL;

    if (spec_text_to_json(text, size, name, &json, e) != 0)
        return -1;
    return spec_from_json(json, name, out_spec, e);
}

int spec_load(const char *bundle, struct oci_spec **out_spec, struct err *e)
{
    char *path = NULL;
    json_t *json = NULL;
    int rc;

    if (asprintf(&path, "%s/config.json", bundle) < 0)
        return err_set(e, ENOMEM, "config.json: out of memory");
    rc = spec_read_json(path, "config.json", &json, e);
    free(path);
    if (rc != 0)
        return -1;
    return spec_from_json(json, "config.json", out_spec, e);
}

void spec_free(struct oci_spec *spec)
{
    if (spec == NULL)
        return;
    spec_pool_free(spec->pool);
    json_decref(spec->json);
    free(spec);
}

const char *spec_annotation(const struct oci_spec *spec, const char *key)
{
    for (size_t i = 0; i < spec->annotations.count; i++)
        if (strcmp(spec->annotations.v[i].key, key) == 0)
            return spec->annotations.v[i].value;
    return NULL;
}
