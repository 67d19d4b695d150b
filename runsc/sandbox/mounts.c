#include "runsc/sandbox/mounts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "gofer/proto/proto.h"

/* mount(8) asks for a bind by the option; some tools by the type alone. A remount changes what is
 * mounted already. */
static bool mount_is_bind(const struct oci_mount *m)
{
    if (m->flags & MS_REMOUNT)
        return false;
    return (m->flags & MS_BIND) || (m->type && strcmp(m->type, "bind") == 0);
}

int mounts_export(const struct oci_spec *spec, size_t index)
{
    int number = MOUNTS_ROOT_EXPORT;

    if (index >= spec->mount_count || !mount_is_bind(&spec->mounts[index]))
        return -1;
    for (size_t i = 0; i <= index; i++)
        number += mount_is_bind(&spec->mounts[i]);
    return number;
}

/* Absolute path of a mount's source. Owned. */
static int source_path(const struct sandbox_args *a, size_t index, char **out, struct err *e)
{
    const struct oci_mount *m = &a->spec->mounts[index];
    struct stat st;
    char *path;

    if (!m->source || !m->source[0])
        return err_set(e, EINVAL, "config.json: mounts[%zu].source: a bind mount needs one", index);
    int n = m->source[0] == '/' ? asprintf(&path, "%s", m->source)
                                : asprintf(&path, "%s/%s", a->bundle, m->source);
    if (n < 0)
        return err_set(e, ENOMEM, "out of memory");
    if (stat(path, &st)) {
        int code = errno;
        free(path);
        return err_errno(e, code, "config.json: mounts[%zu].source: %s", index, m->source);
    }
    *out = path;
    return 0;
}

static void add_export(struct gofer_config *cfg, char *path, bool readonly, bool recursive)
{
    cfg->exports[cfg->export_count++] =
        (struct gofer_export){.path = path, .readonly = readonly, .recursive = recursive};
}

static int add_binds(const struct sandbox_args *a, struct gofer_config *cfg, struct err *e)
{
    const struct oci_spec *spec = a->spec;

    for (size_t i = 0; i < spec->mount_count; i++) {
        const struct oci_mount *m = &spec->mounts[i];
        char *path = NULL;
        if (!mount_is_bind(m))
            continue;
        if (cfg->export_count == GOF_EXPORT_MAX)
            return err_set(e, E2BIG, "config.json: mounts[%zu]: more than %d bind mounts", i,
                           GOF_EXPORT_MAX - 1);
        if (source_path(a, i, &path, e))
            return -1;
        add_export(cfg, path, m->flags & MS_RDONLY, m->flags & MS_REC);
    }
    return 0;
}

int mounts_gofer_config(const struct sandbox_args *a, const int *channels, size_t count,
                        struct gofer_config *out, struct err *e)
{
    struct gofer_config cfg = {.channel_count = count,
                               .log_fd = a->log_fd,
                               .peer_fd = a->peer_fd,
                               .host_uds = a->host_uds,
                               .host_fifo = a->host_fifo,
                               .log_json = a->log_json,
                               .debug = a->debug};

    if (count > ARRAY_SIZE(cfg.channels))
        return err_set(e, EINVAL, "too many gofer channels");
    memcpy(cfg.channels, channels, count * sizeof(*channels));
    /* Its last words go where the sentry's go. */
    if (cfg.log_fd < 0)
        cfg.log_fd = a->stdio[2];
    cfg.exports = calloc(GOF_EXPORT_MAX, sizeof(*cfg.exports));
    char *root = strdup(a->rootfs);
    if (!cfg.exports || !root) {
        free(root);
        free(cfg.exports);
        return err_set(e, ENOMEM, "out of memory");
    }
    add_export(&cfg, root, a->spec->root_readonly || a->overlay, true);
    if (add_binds(a, &cfg, e)) {
        mounts_gofer_config_free(&cfg);
        return -1;
    }
    mounts_make_points(a, &cfg);
    *out = cfg;
    return 0;
}

void mounts_gofer_config_free(struct gofer_config *cfg)
{
    for (size_t i = 0; i < cfg->export_count; i++)
        free(cfg->exports[i].path);
    free(cfg->exports);
}
