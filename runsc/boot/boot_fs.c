/* The guest's tree: root, the mounts of the configuration, devices, masked and read-only paths. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/limits.h"
#include "base/log.h"
#include "runsc/boot/boot_priv.h"
#include "runsc/sandbox/mounts.h"
#include "sentry/fs/cgroup/cgroupfs.h"
#include "sentry/fs/dev/dev.h"
#include "sentry/fs/devpts/devpts.h"
#include "sentry/fs/goferfs/goferfs.h"
#include "sentry/fs/mqueue/mqueue.h"
#include "sentry/fs/overlay/overlay.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/fs/proc/sysfs.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/kernel/inspect.h"

/* Mount flags that are kept per mount. */
#define BOOT_MOUNT_FLAGS (VFS_MOUNT_FLAGS | MS_STRICTATIME)
#define BOOT_OPTIONS_MAX 1024

/* What one walk over the configuration's mounts carries along. */
struct fs_boot {
    struct boot *b;
    struct boot_container *ct;
    struct boot_text *t;
    struct vfs_caller c;   /* root with every capability; owns root and cwd */
    struct vfs_caller own; /* the container's root, whom new file systems belong to; borrows */
};

/* ---- helpers ---- */

static bool boot_exists(const struct fs_boot *f, const char *path)
{
    struct vpath p;

    if (vfs_lookup(&f->c, NULL, path, 0, &p) != 0)
        return false;
    vpath_put(&p);
    return true;
}

/* What is made belongs to the container's root. */
static int boot_mkdir(const struct fs_boot *f, const char *path)
{
    const struct cred *own = f->own.cred;
    const struct vfs_setattr set = {
        .valid = VFS_SET_UID | VFS_SET_GID, .uid = own->fsuid, .gid = own->fsgid};
    struct vpath p;
    int r = vfs_mkdir(&f->c, NULL, path, 0755);

    if (r != 0 || own->user_ns == NULL || vfs_lookup(&f->c, NULL, path, 0, &p) != 0)
        return r;
    r = vfs_setattr(&f->c, &p, &set);
    vpath_put(&p);
    return r;
}

/* mkdir -p of everything before the last component. */
static int boot_make_parents(const struct fs_boot *f, const char *path)
{
    char *copy = strdup(path);
    int r = copy != NULL ? 0 : -ENOMEM;

    for (char *s = copy; r == 0 && (s = strchr(s + 1, '/')) != NULL; *s = '/') {
        *s = '\0';
        r = boot_mkdir(f, copy);
        if (r == -EEXIST || (r != 0 && boot_exists(f, copy)))
            r = 0;
    }
    free(copy);
    return r;
}

/* The place a mount goes to, made when it is missing, as other runtimes do. Owned. */
static int boot_mount_point(const struct fs_boot *f, const char *path, bool dir, struct vpath *out)
{
    int r = vfs_lookup(&f->c, NULL, path, VFS_FOLLOW, out);

    if (r != -ENOENT)
        return r;
    r = boot_make_parents(f, path);
    if (r != 0)
        return r;
    r = dir ? boot_mkdir(f, path) : vfs_mknod(&f->c, NULL, path, S_IFREG | 0755, 0);
    return r != 0 && r != -EEXIST ? r : vfs_lookup(&f->c, NULL, path, VFS_FOLLOW, out);
}

/* The propagation that was asked for, of what is mounted there now. */
static int boot_propagate(const struct fs_boot *f, const char *path, uint64_t propagation)
{
    struct vpath p;

    if (propagation == 0)
        return 0;
    int r = vfs_lookup(&f->c, NULL, path, VFS_FOLLOW, &p);
    if (r == 0) {
        r = vfs_set_propagation(f->ct->ns, &p, (uint32_t)(propagation & ~(uint64_t)MS_REC),
                                (propagation & MS_REC) != 0);
        vpath_put(&p);
    }
    return r;
}

/* "remount": other flags for what is mounted there. */
static int boot_remount(const struct fs_boot *f, const struct oci_mount *m)
{
    struct vpath p;
    int r = vfs_lookup(&f->c, NULL, m->destination, VFS_FOLLOW, &p);

    if (r != 0)
        return r;
    const uint32_t old = vfs_mount_flags(p.mnt);
    r = vfs_remount(f->ct->ns, &p,
                    (uint32_t)((old & ~m->clear_flags) | (m->flags & BOOT_MOUNT_FLAGS)));
    vpath_put(&p);
    return r != 0 ? r : boot_propagate(f, m->destination, m->propagation);
}

/* What the place held comes along when m asks for it. */
static int boot_fill(const struct fs_boot *f, const struct oci_mount *m, const struct vpath *old)
{
    struct vpath top;

    if (!m->copy_up)
        return 0;
    int r = vfs_lookup(&f->c, NULL, m->destination, VFS_FOLLOW | VFS_DIRECTORY, &top);
    if (r == 0) {
        r = boot_copyup(&f->c, old, &top);
        vpath_put(&top);
    }
    return r;
}

static int boot_attach(const struct fs_boot *f, const struct oci_mount *m, struct super *sb)
{
    const uint32_t flags = (uint32_t)(m->flags & BOOT_MOUNT_FLAGS);
    struct vpath p;
    bool dir = S_ISDIR(sb->root->inode->mode);
    int r = boot_mount_point(f, m->destination, dir, &p);

    if (r != 0) {
        super_put(sb);
        return r;
    }
    /* Read-only comes last. */
    r = vfs_mount(f->ct->ns, &p, sb, m->copy_up ? flags & ~(uint32_t)MS_RDONLY : flags);
    if (r != 0)
        super_put(sb);
    else
        r = boot_fill(f, m, &p);
    vpath_put(&p);
    if (r == 0 && m->copy_up && (flags & MS_RDONLY) != 0)
        r = boot_remount(f, m);
    return r != 0 ? r : boot_propagate(f, m->destination, m->propagation);
}

/* ---- mounts by type ---- */

static int boot_mount_fs(const struct fs_boot *f, const struct fs_ops *fs, void *arg,
                         const struct oci_mount *m)
{
    char options[BOOT_OPTIONS_MAX] = "";
    size_t len = 0;
    struct super *sb;

    for (size_t i = 0; i < m->data.count; i++) {
        int n =
            snprintf(options + len, sizeof(options) - len, "%s%s", i > 0 ? "," : "", m->data.v[i]);
        if (n < 0 || (size_t)n >= sizeof(options) - len)
            return -E2BIG;
        len += (size_t)n;
    }
    int r = fs->mount(fs, arg, m->source != NULL ? m->source : fs->name, options, &f->own, &sb);
    if (r != 0)
        return r;
    return boot_attach(f, m, sb);
}

/* It shows the container's processes, of which there is none yet. */
static int boot_mount_proc(const struct fs_boot *f, const struct oci_mount *m)
{
    struct super *sb;
    int r = proc_mount_for(f->b->k, f->ct->pid_ns, m->source, &sb);

    if (r != 0)
        return r;
    return boot_attach(f, m, sb);
}

/* Whatever the host has, the guest sees version 2. */
static int boot_mount_cgroup(const struct fs_boot *f, const struct oci_mount *m)
{
    struct super *sb;
    int r = cgroup2_fs_ops.mount(&cgroup2_fs_ops, f->ct->cgroups, "cgroup", "", &f->c, &sb);

    if (r != 0)
        return r;
    return boot_attach(f, m, sb);
}

static int boot_mount_bind(const struct fs_boot *f, const struct oci_mount *m, int export)
{
    struct super *sb;
    int r = goferfs_mount(f->ct->gofer, (uint32_t) export, false, m->source, &sb);

    if (r != 0)
        return r;
    return boot_attach(f, m, sb);
}

static bool boot_is_type(const struct oci_mount *m, const char *type)
{
    return m->type != NULL && strcmp(m->type, type) == 0;
}

static int boot_mount_one(const struct fs_boot *f, const struct oci_mount *m, size_t index)
{
    int export = mounts_export(f->ct->spec, index);

    if (export >= 0)
        return boot_mount_bind(f, m, export);
    if ((m->flags & MS_REMOUNT) != 0)
        return boot_remount(f, m);
    if (boot_is_type(m, "tmpfs"))
        return boot_mount_fs(f, &tmpfs_fs_ops, f->b->mf, m);
    if (boot_is_type(m, "proc"))
        return boot_mount_proc(f, m);
    if (boot_is_type(m, "mqueue"))
        return boot_mount_fs(f, &mqueue_fs_ops, kernel_ipc_ns(f->b->k), m);
    if (boot_is_type(m, "sysfs"))
        return boot_mount_fs(f, &sysfs_fs_ops, f->b->k, m);
    if (boot_is_type(m, "cgroup") || boot_is_type(m, "cgroup2"))
        return boot_mount_cgroup(f, m);
    if (boot_is_type(m, "devpts"))
        return boot_mount_fs(f, &devpts_fs_ops, f->b->k, m);
    /* A manager mounts these of the host's kernel as a matter of course; of ours there is none, and
     * the place stays as the root file system has it. */
    if (boot_is_type(m, "cgroup") || boot_is_type(m, "cgroup2") || boot_is_type(m, "securityfs") ||
        boot_is_type(m, "debugfs") || boot_is_type(m, "tracefs") || boot_is_type(m, "bpf"))
        return 0;
    return -ENODEV;
}

static int boot_mount_all(const struct fs_boot *f)
{
    const struct oci_spec *spec = f->ct->spec;

    for (size_t i = 0; i < spec->mount_count; i++) {
        int r = boot_mount_one(f, &spec->mounts[i], i);
        if (r != 0)
            return boot_say(f->t, r, "mounts[%zu]: cannot mount %s", i,
                            spec->mounts[i].destination);
    }
    return 0;
}

/* ---- /dev ---- */

static bool boot_mounts_dev(const struct oci_spec *spec)
{
    for (size_t i = 0; i < spec->mount_count; i++)
        if (strcmp(spec->mounts[i].destination, "/dev") == 0)
            return true;
    return false;
}

/* A configuration without /dev still gets the devices every program expects. */
static int boot_default_dev(const struct fs_boot *f)
{
    static const char *const data[] = {"mode=755", NULL};
    static const struct oci_mount dev = {
        .destination = "/dev",
        .type = "tmpfs",
        .source = "tmpfs",
        .flags = MS_NOSUID,
        .data = {.v = (const char **)(uintptr_t)data, .count = 1},
    };

    return boot_mounts_dev(f->ct->spec) ? 0 : boot_mount_fs(f, &tmpfs_fs_ops, f->b->mf, &dev);
}

static int boot_device(const struct fs_boot *f, const struct oci_device *d)
{
    static const char types[] = "cbp";
    static const uint32_t modes[] = {S_IFCHR, S_IFBLK, S_IFIFO};
    const struct vfs_setattr own = {
        .valid = VFS_SET_UID | VFS_SET_GID, .uid = d->uid, .gid = d->gid};
    uint32_t mode = modes[strchr(types, d->type) - types];
    struct vpath p;

    if (boot_exists(f, d->path))
        return 0;
    int r = boot_make_parents(f, d->path);
    if (r == 0)
        r = vfs_mknod(&f->c, NULL, d->path, mode | d->mode, makedev(d->major, d->minor));
    if (r != 0)
        return r;
    r = vfs_lookup(&f->c, NULL, d->path, 0, &p);
    if (r != 0)
        return r;
    r = vfs_setattr(&f->c, &p, &own);
    vpath_put(&p);
    return r;
}

static int boot_devices(const struct fs_boot *f)
{
    const struct oci_linux *lx = &f->ct->spec->lx;
    int r = dev_populate(&f->c, "/dev", f->own.cred);

    if (r != 0)
        return boot_say(f->t, r, "cannot make the devices in /dev");
    for (size_t i = 0; i < lx->device_count; i++) {
        r = boot_device(f, &lx->devices[i]);
        if (r != 0)
            return boot_say(f->t, r, "linux.devices[%zu]: cannot make %s", i, lx->devices[i].path);
    }
    return 0;
}

/* ---- what the guest may not see or change ---- */

static int boot_mask(const struct fs_boot *f, const char *path)
{
    struct vpath p, null_dev;
    struct vfs_attr a;
    int r = vfs_lookup(&f->c, NULL, path, VFS_FOLLOW, &p);

    if (r != 0)
        return r == -ENOENT || r == -ENOTDIR ? 0 : r;
    r = vfs_getattr(&p, &a);
    if (r != 0)
        goto out_path;
    if (S_ISDIR(a.mode)) {
        struct super *sb;
        r = tmpfs_fs_ops.mount(&tmpfs_fs_ops, f->b->mf, "tmpfs", "size=0,mode=755", &f->c, &sb);
        if (r == 0) {
            r = vfs_mount(f->ct->ns, &p, sb, MS_RDONLY);
            if (r != 0)
                super_put(sb);
        }
        goto out_path;
    }
    r = vfs_lookup(&f->c, NULL, "/dev/null", 0, &null_dev);
    if (r == 0) {
        r = vfs_bind(f->ct->ns, &null_dev, &p, false);
        vpath_put(&null_dev);
    }
out_path:
    vpath_put(&p);
    return r;
}

static int boot_make_readonly(const struct fs_boot *f, const char *path)
{
    struct vpath p;
    int r = vfs_lookup(&f->c, NULL, path, VFS_FOLLOW, &p);

    if (r != 0)
        return r == -ENOENT || r == -ENOTDIR ? 0 : r;
    r = vfs_bind(f->ct->ns, &p, &p, true);
    vpath_put(&p);
    if (r == 0)
        r = vfs_lookup(&f->c, NULL, path, VFS_FOLLOW, &p);
    if (r != 0)
        return r;
    r = vfs_remount(f->ct->ns, &p, vfs_mount_flags(p.mnt) | MS_RDONLY);
    vpath_put(&p);
    return r;
}

static int boot_restrict(const struct fs_boot *f)
{
    const struct oci_linux *lx = &f->ct->spec->lx;

    for (size_t i = 0; i < lx->masked_paths.count; i++) {
        int r = boot_mask(f, lx->masked_paths.v[i]);
        if (r != 0)
            return boot_say(f->t, r, "linux.maskedPaths[%zu]: %s", i, lx->masked_paths.v[i]);
    }
    for (size_t i = 0; i < lx->readonly_paths.count; i++) {
        int r = boot_make_readonly(f, lx->readonly_paths.v[i]);
        if (r != 0)
            return boot_say(f->t, r, "linux.readonlyPaths[%zu]: %s", i, lx->readonly_paths.v[i]);
    }
    return 0;
}

/* ---- all of it ---- */

/* The image stays as it is: a file system in memory takes the changes. */
static int boot_overlay(struct boot *b, struct cred *cred, struct super **sb)
{
    const struct vfs_caller c = {.cred = cred, .fsize_limit = UINT64_MAX};
    const char *options = b->args->sandbox->overlay_options;
    struct super *image = *sb, *upper;
    int r = tmpfs_fs_ops.mount(&tmpfs_fs_ops, b->mf, "upper",
                               options[0] != '\0' ? options : "size=100%", &c, &upper);

    if (r != 0)
        return r;
    image->flags |= MS_RDONLY;
    r = overlay_root(image, upper, sb);
    if (r != 0)
        super_put(upper);
    return r;
}

static int boot_root(const struct fs_boot *f)
{
    struct super *sb;
    int r = goferfs_mount(f->ct->gofer, 0, true, "root", &sb);

    if (r == 0 && f->b->args->sandbox->overlay)
        r = boot_overlay(f->b, f->c.cred, &sb);
    if (r == 0)
        r = mount_ns_new(sb, &f->ct->ns);
    return r == 0 ? 0 : boot_say(f->t, r, "cannot mount root.path %s", f->ct->spec->root_path);
}

static int boot_tree(const struct fs_boot *f)
{
    int r = boot_default_dev(f);

    if (r != 0)
        return boot_say(f->t, r, "cannot mount /dev");
    r = boot_mount_all(f);
    if (r == 0)
        r = boot_devices(f);
    if (r == 0)
        r = boot_restrict(f);
    if (r != 0 || !f->ct->spec->root_readonly)
        return r;
    r = vfs_remount(f->ct->ns, &f->c.root, vfs_mount_flags(f->c.root.mnt) | MS_RDONLY);
    return r == 0 ? 0 : boot_say(f->t, r, "cannot make the root read-only");
}

int boot_mounts(struct boot *b, struct boot_container *ct, struct boot_text *t)
{
    struct fs_boot f = {.b = b, .ct = ct, .t = t};
    int r = cred_new_root(~0ull, &f.c.cred);

    if (r != 0)
        return boot_say(t, r, "credentials");
    /* A known file is a descriptor of the gofer's. */
    vfs_limit_cache(
        (unsigned)MIN(b->rlimits[RLIMIT_NOFILE].rlim_max / 4 * 3, (rlim_t)LIMIT_DENTRY_CACHE));
    r = boot_root(&f);
    if (r != 0) {
        cred_put(f.c.cred);
        return r;
    }
    f.c.ns = ct->ns;
    f.c.fsize_limit = UINT64_MAX;
    mount_ns_root(ct->ns, &f.c.root);
    mount_ns_root(ct->ns, &f.c.cwd);
    f.own = f.c;
    f.own.cred = ct->root;
    r = boot_tree(&f);
    if (r == 0 && ct->spec->lx.rootfs_propagation != 0) {
        r = boot_propagate(&f, "/", ct->spec->lx.rootfs_propagation);
        if (r != 0)
            r = boot_say(t, r, "linux.rootfsPropagation");
    }
    vpath_put(&f.c.cwd);
    vpath_put(&f.c.root);
    cred_put(f.c.cred);
    return r;
}
