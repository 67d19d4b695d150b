/* The file systems that a guest can mount, for mount(2) and fsopen(2). */
#include <linux/capability.h>
#include <string.h>

#include "sentry/fs/cgroup/cgroupfs.h"
#include "sentry/fs/devpts/devpts.h"
#include "sentry/fs/mqueue/mqueue.h"
#include "sentry/fs/overlay/overlay.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/fs/proc/sysfs.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/kernel/cgroup.h"
#include "sentry/kernel/image.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/ns.h"
#include "sentry/vfs/landlock.h"
#include "syscalls/sys_mount.h"

enum fs_arg { ARG_KERNEL, ARG_MEMFILE, ARG_IPC, ARG_CGROUP };

static const struct {
    const struct fs_ops *fs;
    enum fs_arg arg;
} types[] = {
    {&proc_fs_ops, ARG_KERNEL},    {&sysfs_fs_ops, ARG_KERNEL},  {&devpts_fs_ops, ARG_KERNEL},
    {&tmpfs_fs_ops, ARG_MEMFILE},  {&mqueue_fs_ops, ARG_IPC},    {&overlay_fs_ops, ARG_MEMFILE},
    {&cgroup2_fs_ops, ARG_CGROUP}, {&cgroup_fs_ops, ARG_CGROUP},
};

static void *type_arg(struct task *t, enum fs_arg arg)
{
    switch (arg) {
    case ARG_MEMFILE:
        return kernel_memfile(t->k);
    case ARG_IPC:
        return task_ipc_ns(t);
    case ARG_CGROUP:
        return task_cgroup_ns(t);
    case ARG_KERNEL:
    default:
        return t->k;
    }
}

const struct fs_ops *mount_fs_type(struct task *t, const char *name, void **out_arg)
{
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        if (strcmp(types[i].fs->name, name) != 0)
            continue;
        *out_arg = type_arg(t, types[i].arg);
        return types[i].fs;
    }
    return NULL;
}

bool mount_allowed(struct task *t)
{
    return task_may_mount(t);
}

bool mount_change_allowed(struct task *t)
{
    return task_may_mount(t) && !landlock_fixes_mounts(t->cred);
}
