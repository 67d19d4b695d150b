/* A root file system that is the host's own ("/") carries the host's kernel along: proc, sysfs and
 * their like. None of it is a file of the container. In our copy of the mounts they are taken away,
 * unless the configuration asks for one of them by name. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "gofer/confine.h"
#include "gofer/gofer.h"

/* A host has one or two dozen; one that runs containers, as many more as they are. */
#define HIDE_MAX 65536u

static bool kernel_type(const char *type)
{
    static const char *const types[] = {
        "autofs",     "binder",     "binfmt_misc", "bpf",      "cgroup",   "cgroup2",
        "configfs",   "debugfs",    "devpts",      "devtmpfs", "efivarfs", "fusectl",
        "mqueue",     "nfsd",       "nsfs",        "proc",     "pstore",   "resctrl",
        "rpc_pipefs", "securityfs", "selinuxfs",   "sysfs",    "tracefs",
    };

    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        if (strcmp(types[i], type) == 0)
            return true;
    return false;
}

/* path is dir or lies below it. */
static bool lies_in(const char *path, const char *dir)
{
    size_t len = strlen(dir);

    while (len > 1 && dir[len - 1] == '/')
        len--;
    if (len == 1)
        return true;
    return strncmp(path, dir, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

/* In a recursive export, and no export itself nor the way to one. */
static bool to_hide(const struct gofer_config *cfg, const char *point)
{
    bool inside = false;

    for (size_t i = 0; i < cfg->export_count; i++) {
        if (lies_in(cfg->exports[i].path, point))
            return false;
        inside |= cfg->exports[i].recursive && lies_in(point, cfg->exports[i].path);
    }
    return inside;
}

/* Octal escapes of mountinfo, in place. proc(5). */
static void unescape(char *s)
{
    char *out = s;

    for (; *s; s++) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
            *out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 3;
        } else {
            *out++ = *s;
        }
    }
    *out = '\0';
}

/* Mount point and type of a mountinfo line, in place. */
static bool parse_line(char *line, char **out_point, char **out_type)
{
    char *save = NULL, *field = strtok_r(line, " ", &save);

    for (int i = 1; field && i < 5; i++)
        field = strtok_r(NULL, " ", &save);
    *out_point = field;
    while (field && strcmp(field, "-") != 0)
        field = strtok_r(NULL, " ", &save);
    *out_type = field ? strtok_r(NULL, " ", &save) : NULL;
    if (!*out_type)
        return false;
    unescape(*out_point);
    return true;
}

struct points {
    char **v;
    size_t count, room;
};

static int add_point(struct points *p, const char *point)
{
    if (p->count == p->room) {
        size_t room = p->room ? p->room * 2 : 32;
        char **v = room <= HIDE_MAX ? realloc(p->v, room * sizeof(*v)) : NULL;
        if (!v)
            return -ENOMEM;
        p->v = v;
        p->room = room;
    }
    p->v[p->count] = strdup(point);
    return p->v[p->count] && ++p->count ? 0 : -ENOMEM;
}

static int find_points(const struct gofer_config *cfg, struct points *out)
{
    char *line = NULL, *point, *type;
    size_t room = 0;
    int r = 0;

    FILE *f = fopen("/proc/self/mountinfo", "re");
    if (!f)
        return -errno;
    while (r == 0 && getline(&line, &room, f) > 0)
        if (parse_line(line, &point, &type) && kernel_type(type) && to_hide(cfg, point))
            r = add_point(out, point);
    free(line);
    fclose(f);
    return r;
}

int gofer_hides_kernel(const struct gofer_config *cfg, bool *out, const char **step)
{
    struct points p = {0};

    *step = "read mounts";
    int r = find_points(cfg, &p);
    *out = p.count > 0;
    for (size_t i = 0; i < p.count; i++)
        free(p.v[i]);
    free(p.v);
    return r;
}

int gofer_hide_kernel(const struct gofer_config *cfg, const char **step)
{
    struct points p = {0};

    *step = "read mounts";
    int r = find_points(cfg, &p);
    if (r == 0)
        *step = "hide the host's kernel file systems";
    /* What was mounted last lies on top. */
    for (size_t i = p.count; i-- > 0;) {
        /* EINVAL: gone with what it was on, or locked by the user namespace, where the kernel
         * itself keeps us from it. */
        if (r == 0 && umount2(p.v[i], MNT_DETACH | UMOUNT_NOFOLLOW) && errno != EINVAL &&
            errno != ENOENT)
            r = -errno;
        free(p.v[i]);
    }
    free(p.v);
    return r;
}
