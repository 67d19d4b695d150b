/* The mounts of a root file system: what containerd's snapshotters give. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "runsc/shim/shim.h"

#define OPTIONS_MAX 16384

static const struct {
    const char *name;
    unsigned long set, clear;
} mount_words[] = {
    {"ro", MS_RDONLY, 0},           {"rw", 0, MS_RDONLY},       {"bind", MS_BIND, 0},
    {"rbind", MS_BIND | MS_REC, 0}, {"nosuid", MS_NOSUID, 0},   {"nodev", MS_NODEV, 0},
    {"noexec", MS_NOEXEC, 0},       {"noatime", MS_NOATIME, 0}, {"relatime", MS_RELATIME, 0},
    {"suid", 0, MS_NOSUID},         {"dev", 0, MS_NODEV},       {"exec", 0, MS_NOEXEC},
    {"sync", MS_SYNCHRONOUS, 0},    {"defaults", 0, 0},
};

struct mount_args {
    char *type, *source;
    unsigned long flags;
    char data[OPTIONS_MAX];
};

static int add_option(struct mount_args *a, const struct pb_field *f)
{
    size_t used = strlen(a->data);

    for (size_t i = 0; i < ARRAY_SIZE(mount_words); i++)
        if (strlen(mount_words[i].name) == f->size &&
            memcmp(mount_words[i].name, f->data, f->size) == 0) {
            a->flags = (a->flags | mount_words[i].set) & ~mount_words[i].clear;
            return 0;
        }
    int n = snprintf(a->data + used, sizeof(a->data) - used, "%s%.*s", used > 0 ? "," : "",
                     (int)f->size, (const char *)f->data);
    return n < 0 || (size_t)n >= sizeof(a->data) - used ? -E2BIG : 0;
}

static int do_mount(const struct mount_args *a, const char *target)
{
    unsigned long flags = a->flags;

    if (mount(a->source, target, a->type, flags, a->data) != 0)
        return -errno;
    /* A bind takes its other flags by a second call only. */
    if ((flags & MS_BIND) != 0 && (flags & ~(unsigned long)(MS_BIND | MS_REC)) != 0 &&
        mount(NULL, target, NULL, flags | MS_REMOUNT, NULL) != 0)
        return -errno;
    return 0;
}

int shim_mount(const struct pb_field *mount_field, const char *target)
{
    struct mount_args *a = calloc(1, sizeof(*a));
    struct pb_in in = pb_inner(mount_field);
    struct pb_field f;
    int r = a != NULL ? 0 : -ENOMEM;

    while (r == 0 && pb_next(&in, &f)) {
        if (f.number == 1)
            a->type = pb_dup(&f);
        else if (f.number == 2)
            a->source = pb_dup(&f);
        else if (f.number == 4)
            r = add_option(a, &f);
    }
    if (r == 0)
        r = a->type != NULL && a->source != NULL && !in.failed ? do_mount(a, target) : -EINVAL;
    if (a != NULL) {
        free(a->type);
        free(a->source);
    }
    free(a);
    return r;
}

void shim_unmount(const char *target)
{
    (void)umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW);
}
