/* linux.sysctl: written into the guest's /proc/sys before its first program runs, whether or not
 * the configuration mounts /proc. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runsc/boot/boot_priv.h"
#include "sentry/fs/proc/proc.h"

#define SYSCTL_NAME_MAX 256

/* "net.ipv4.ip_forward" to "/sys/net/ipv4/ip_forward"; names with '/' keep their dots, as
 * sysctl(8) has it. */
static int sysctl_path(const char *name, char *out, size_t size)
{
    int n = snprintf(out, size, "/sys/%s", name);

    if (n < 0 || (size_t)n >= size || strstr(name, "..") != NULL)
        return -EINVAL;
    if (strchr(name, '/') == NULL)
        for (char *c = out; *c != '\0'; c++)
            if (*c == '.')
                *c = '/';
    return 0;
}

static int sysctl_write(const struct vfs_caller *c, const char *path, const char *value)
{
    struct file *f;
    struct uio u;
    size_t size = strlen(value);
    char *copy = strdup(value);
    int r = copy != NULL ? vfs_open(c, NULL, path, O_WRONLY, 0, 0, &f) : -ENOMEM;

    if (r == 0) {
        uio_init_kernel(&u, copy, size);
        int64_t n = vfs_write(f, &u, -1, 0, c);
        file_put(f);
        r = n < 0 ? (int)n : 0;
    }
    free(copy);
    return r;
}

/* Whether it has this value, which is then no more to be written: many of our network stack's
 * tunables are there to be read only. */
static bool sysctl_is(const struct vfs_caller *c, const char *path, const char *value)
{
    char now[SYSCTL_NAME_MAX];
    struct file *f;
    struct uio u;

    if (vfs_open(c, NULL, path, O_RDONLY, 0, 0, &f) != 0)
        return false;
    uio_init_kernel(&u, now, sizeof(now) - 1);
    const int64_t n = vfs_read(f, &u, 0, 0, c);
    file_put(f);
    if (n <= 0)
        return false;
    now[n] = '\0';
    now[strcspn(now, "\n")] = '\0';
    return strcmp(now, value) == 0;
}

static int sysctl_one(const struct vfs_caller *c, const struct str_pair *p, struct boot_text *t)
{
    char path[SYSCTL_NAME_MAX];
    int r = sysctl_path(p->key, path, sizeof(path));

    if (r == 0)
        r = sysctl_write(c, path, p->value);
    /* Managers set tunables of the host's network stack by default; what ours does not have has
     * nothing to be tuned. */
    if (r == -ENOENT && strncmp(p->key, "net.", 4) == 0) {
        log_info("linux.sysctl: %s: not there, ignored", p->key);
        return 0;
    }
    return r == 0 || sysctl_is(c, path, p->value)
               ? 0
               : boot_say(t, r, "linux.sysctl: %s = %s", p->key, p->value);
}

/* A mount of /proc that nobody else sees. */
static int sysctl_caller(struct boot *b, struct vfs_caller *c)
{
    struct super *sb;
    int r = cred_new_root(~0ull, &c->cred);

    if (r != 0)
        return r;
    r = proc_fs_ops.mount(&proc_fs_ops, b->k, "proc", "", c, &sb);
    if (r == 0) {
        r = mount_ns_new(sb, &c->ns);
        if (r != 0)
            super_put(sb);
    }
    if (r != 0) {
        cred_put(c->cred);
        return r;
    }
    c->fsize_limit = UINT64_MAX;
    mount_ns_root(c->ns, &c->root);
    mount_ns_root(c->ns, &c->cwd);
    return 0;
}

int boot_sysctls(struct boot *b, struct boot_container *ct, struct boot_text *t)
{
    const struct pair_list *list = &ct->spec->lx.sysctl;
    struct vfs_caller c = {0};

    if (list->count == 0)
        return 0;
    int r = sysctl_caller(b, &c);
    if (r != 0)
        return boot_say(t, r, "linux.sysctl");
    for (size_t i = 0; i < list->count && r == 0; i++)
        r = sysctl_one(&c, &list->v[i], t);
    vpath_put(&c.cwd);
    vpath_put(&c.root);
    mount_ns_put(c.ns);
    cred_put(c.cred);
    return r;
}
