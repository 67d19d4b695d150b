/* Where below the root of every hierarchy a container's cgroup is. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runsc/cgroup_priv.h"

#define SLICE ".slice"

static bool cgroup_ends(const char *text, size_t len, const char *tail)
{
    const size_t n = strlen(tail);

    return len > n && memcmp(text + len - n, tail, n) == 0;
}

static bool cgroup_path_ok(const char *path)
{
    return strstr(path, "..") == NULL && strchr(path, '\n') == NULL;
}

/* The unit "a-b.slice" lies in "a.slice"; "-.slice" is the root. False: no name of a slice. */
static bool cgroup_put_slices(FILE *out, const char *slice, size_t len)
{
    const size_t stem = len - strlen(SLICE);

    if (!cgroup_ends(slice, len, SLICE) || memchr(slice, '/', len) != NULL)
        return false;
    if (stem == 1 && slice[0] == '-')
        return true;
    for (size_t i = 0; i <= stem; i++) {
        if (i < stem && slice[i] != '-')
            continue;
        if (i == 0 || slice[i - 1] == '-')
            return false;
        (void)fprintf(out, "%.*s" SLICE "/", (int)i, slice);
    }
    return true;
}

/* SLICE:PREFIX:NAME names a unit of systemd: a scope, unless it is a slice by itself. */
static bool cgroup_put_unit(FILE *out, const char *path)
{
    const char *prefix = strchr(path, ':') + 1, *name = strchr(prefix, ':') + 1;
    const size_t slice = (size_t)(prefix - path) - 1;
    const char *parent = slice > 0 ? path : "system" SLICE;

    if (strchr(prefix, '/') != NULL ||
        !cgroup_put_slices(out, parent, slice > 0 ? slice : strlen(parent)))
        return false;
    if (cgroup_ends(name, strlen(name), SLICE))
        return fputs(name, out) >= 0;
    if (name != prefix + 1)
        (void)fprintf(out, "%.*s-", (int)(name - prefix) - 1, prefix);
    return fprintf(out, "%s.scope", name) >= 0;
}

/* A path from the root is one, whatever it has in it. */
static bool cgroup_is_unit(const char *path)
{
    const char *colon = strchr(path, ':');

    return path[0] != '/' && colon != NULL && strchr(colon + 1, ':') != NULL;
}

int cgroup_name(const char *path, const char *id, char **out, struct err *e)
{
    char *text = NULL;
    size_t size;
    bool ok = true;

    if (path != NULL && !cgroup_path_ok(path))
        return err_set(e, EINVAL, "config.json: linux.cgroupsPath: \"%s\" is not allowed", path);
    FILE *f = open_memstream(&text, &size);
    if (f == NULL)
        return err_set(e, ENOMEM, "out of memory");
    if (path == NULL)
        (void)fprintf(f, CGROUP_PARENT "/%s", id);
    else if (cgroup_is_unit(path))
        ok = cgroup_put_unit(f, path);
    else
        (void)fputs(path + strspn(path, "/"), f);
    const bool failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed || !ok) {
        free(text);
        if (!ok)
            return err_set(e, EINVAL, "config.json: linux.cgroupsPath: \"%s\" names no unit", path);
        return err_set(e, ENOMEM, "out of memory");
    }
    *out = text;
    return 0;
}
