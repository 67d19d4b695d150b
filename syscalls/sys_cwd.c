/* Where a process stands: working directory, root, umask. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "sentry/kernel/fsctx.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_path.h"

static int64_t cwd_from_path(struct task *t, uaddr_t path, bool root)
{
    struct vfs_caller c;
    struct vpath p;

    task_vfs_caller(t, &c);
    int r = path_lookup(t, &c, AT_FDCWD, path, VFS_FOLLOW | VFS_DIRECTORY, &p);
    if (r == 0) {
        r = vfs_permission(&c, p.dentry->inode, 1);
        if (r == 0 && root && !cred_self_capable(t->cred, CAP_SYS_CHROOT))
            r = -EPERM;
        if (r == 0 && root)
            fs_ctx_set_root(t->fs, &p);
        else if (r == 0)
            fs_ctx_set_cwd(t->fs, &p);
        vpath_put(&p);
    }
    task_vfs_caller_end(&c);
    return r;
}

int64_t sys_chdir(struct task *t, uaddr_t path)
{
    return cwd_from_path(t, path, false);
}

int64_t sys_chroot(struct task *t, uaddr_t path)
{
    return cwd_from_path(t, path, true);
}

int64_t sys_fchdir(struct task *t, int fd)
{
    struct vfs_caller c;
    struct file *f;
    int r = task_file_any(t, fd, &f);

    if (r)
        return r;
    task_vfs_caller(t, &c);
    r = S_ISDIR(f->inode->mode) ? vfs_permission(&c, f->inode, 1) : -ENOTDIR;
    if (r == 0)
        fs_ctx_set_cwd(t->fs, &f->path);
    task_vfs_caller_end(&c);
    file_put(f);
    return r;
}

int64_t sys_getcwd(struct task *t, uaddr_t buf, uint64_t size)
{
    char *text = malloc(VFS_PATH_MAX);
    struct vfs_caller c;

    if (!text)
        return -ENOMEM;
    task_vfs_caller(t, &c);
    int64_t n =
        c.cwd.dentry->unlinked ? -ENOENT : vfs_path_text(&c.root, &c.cwd, text, VFS_PATH_MAX);
    task_vfs_caller_end(&c);
    if (n > 0 && (uint64_t)n > size)
        n = -ERANGE;
    if (n > 0 && copyout(&t->ua, buf, text, (size_t)n))
        n = -EFAULT;
    free(text);
    return n;
}

int64_t sys_umask(struct task *t, uint32_t mask)
{
    return fs_ctx_set_umask(t->fs, mask);
}
