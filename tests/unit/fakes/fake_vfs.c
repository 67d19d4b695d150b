/* A file tree in which every name is the root directory or a program. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fakes.h"
#include "sentry/fs/cgroup/cgroupfs.h"
#include "sentry/kernel/image.h"
#include "sentry/net/sock.h"
#include "sentry/vfs/lease.h"
#include "sentry/vfs/notify.h"
#include "sentry/vfs/vfs.h"

_Atomic int fake_file_live;
struct fake_content fake_content;

static struct inode inodes[9]; /* 0: the root directory, n: program n - 1 */
static struct dentry dentries[9];

static struct vpath fake_path(size_t n)
{
    dentries[n].inode = &inodes[n];
    inodes[n].ino = n;
    inodes[n].mode = n ? S_IFREG | 0755 : S_IFDIR | 0755;
    return (struct vpath){.mnt = NULL, .dentry = &dentries[n]};
}

struct mount_ns *fake_mount_ns(void)
{
    static char ns;

    for (size_t i = 0; i < ARRAY_SIZE(inodes); i++)
        (void)fake_path(i);
    return (struct mount_ns *)(void *)&ns;
}

void mount_ns_root(struct mount_ns *ns, struct vpath *out)
{
    (void)ns;
    *out = (struct vpath){NULL, &dentries[0]};
}

struct mount_ns *mount_ns_get(struct mount_ns *ns)
{
    return ns;
}

void mount_ns_put(struct mount_ns *ns)
{
    (void)ns;
}

void vpath_get(const struct vpath *p)
{
    (void)p;
}

void vpath_idle(const struct vpath *p, bool on)
{
    (void)p, (void)on;
}

void vpath_put(struct vpath *p)
{
    (void)p;
}

int vfs_lookup(const struct vfs_caller *c, const struct vpath *base, const char *path,
               unsigned flags, struct vpath *out)
{
    (void)c;
    (void)base;
    (void)flags;
    if (path[0] != '/')
        return -ENOENT;
    const size_t n = path[1] ? (size_t)(path[1] - '0') + 1 : 0;
    if (n >= ARRAY_SIZE(inodes) || (n && !fake_programs[n - 1]))
        return -ENOENT;
    *out = (struct vpath){NULL, &dentries[n]};
    return 0;
}

int vfs_getattr(const struct vpath *p, struct vfs_attr *out)
{
    *out = (struct vfs_attr){.mode = p->dentry->inode->mode, .ino = p->dentry->inode->ino};
    return 0;
}

int vfs_file_getattr(struct file *f, struct vfs_attr *out)
{
    return vfs_getattr(&f->path, out);
}

int vfs_permission(const struct vfs_caller *c, struct inode *i, unsigned mask)
{
    (void)c;
    (void)i;
    (void)mask;
    return 0;
}

uint32_t vfs_mount_flags(const struct mount *m)
{
    (void)m;
    return 0;
}

static int file_new(const struct file_ops *ops, void *priv, uint32_t flags, const struct vpath *p,
                    struct file **out_file)
{
    struct file *f = calloc(1, sizeof(*f));

    if (!f)
        return -ENOMEM;
    ref_init(&f->ref);
    f->ops = ops;
    f->priv = priv;
    f->inode = p->dentry->inode;
    f->path = *p;
    atomic_init(&f->flags, flags);
    atomic_fetch_add(&fake_file_live, 1);
    *out_file = f;
    return 0;
}

int vfs_open_path(const struct vfs_caller *c, const struct vpath *p, uint32_t flags,
                  struct file **out_file)
{
    static const struct file_ops none;

    (void)c;
    return file_new(&none, NULL, flags, p, out_file);
}

int vfs_anon_file(const char *name, uint32_t mode, const struct file_ops *ops, void *priv,
                  uint32_t flags, struct file **out_file)
{
    const struct vpath root = {NULL, &dentries[0]};

    (void)name;
    (void)mode;
    return file_new(ops, priv, flags, &root, out_file);
}

struct file *file_get(struct file *f)
{
    ref_get(&f->ref);
    return f;
}

void file_put(struct file *f)
{
    if (!ref_put(&f->ref))
        return;
    if (f->ops->release)
        f->ops->release(f);
    atomic_fetch_sub(&fake_file_live, 1);
    free(f);
}

void file_put_closed(struct file *f, const struct vfs_caller *c)
{
    if (f->ops->linger && c && c->blocker && ref_read(&f->ref) == 1)
        f->ops->linger(f, c);
    file_put(f);
}

void vfs_lock_drop_owner(struct file *f, const void *owner)
{
    (void)f;
    (void)owner;
}

/* Nobody here takes leases or watches directories. */
int lease_set(struct file *f, int type, struct lease_holder **h, const struct vfs_caller *c)
{
    (void)f, (void)type, (void)h, (void)c;
    return -EINVAL;
}

void notify_group_init(struct notify_group *g)
{
    (void)g;
}

void notify_group_fini(struct notify_group *g)
{
    (void)g;
}

int notify_mark_set(struct notify_group *g, struct inode *i, const void *key, uint32_t mask,
                    bool add, bool create)
{
    (void)g, (void)i, (void)key, (void)mask, (void)add, (void)create;
    return -ENOSPC;
}

int64_t vfs_pread_kernel(struct file *f, void *buf, size_t size, int64_t off)
{
    (void)f;
    if (!fake_content.data || off < 0)
        return -EINVAL;
    if ((uint64_t)off >= fake_content.size)
        return 0;
    const size_t n = MIN(size, fake_content.size - (size_t)off);
    memcpy(buf, fake_content.data + off, n);
    return (int64_t)n;
}

int64_t vfs_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                  const struct vfs_caller *c)
{
    (void)f;
    (void)cmd;
    (void)arg;
    (void)ua;
    (void)c;
    return -ENOTTY;
}

uint32_t vfs_poll(struct file *f, struct waiter *w)
{
    return f->ops->poll ? f->ops->poll(f, w) : 0;
}

int fake_load(const struct task_image_args *args, struct task_image *out)
{
    const size_t n = (size_t)args->file->inode->ino;
    struct mm *mm;

    if (n == 0 || !fake_programs[n - 1])
        return -ENOEXEC;
    int r = mm_new(kernel_plat(args->k), kernel_memfile(args->k), &mm);
    if (r)
        return r;
    r = image_cred(args->caller, args->file, &out->cred, &out->secure);
    if (r) {
        mm_put(mm);
        return r;
    }
    memset(out->comm, 0, sizeof(out->comm));
    strncpy(out->comm, args->filename, sizeof(out->comm) - 1);
    out->mm = mm;
    out->exe = file_get(args->file);
    out->stack = FAKE_MEM_START + FAKE_MEM_SIZE;
    const fake_guest_fn fn = fake_programs[n - 1];
    memcpy(&out->entry, &fn, sizeof(fn));
    return 0;
}

/* ---- what files that name namespaces are made of: never made here ---- */

void super_init(struct super *sb, const struct super_ops *ops, const struct fs_ops *fs)
{
    sb->ops = ops;
    sb->fs = fs;
}

void super_put(struct super *sb)
{
    sb->ops->destroy(sb);
}

int vfs_file_caps(const struct vfs_caller *c, struct inode *i, struct cred_file_caps *out)
{
    (void)c, (void)i, (void)out;
    return 0;
}

int inode_init(struct inode *i, const struct inode_ops *ops, struct super *sb, uint64_t ino,
               uint32_t mode)
{
    (void)i, (void)ops, (void)sb, (void)ino, (void)mode;
    return -ENOMEM;
}

void inode_fini(struct inode *i)
{
    (void)i;
}

void inode_put(struct inode *i)
{
    (void)i;
}

int vfs_anon_inode_file(const char *text, struct inode *i, const struct file_ops *ops,
                        uint32_t flags, struct file **out_file)
{
    (void)text, (void)i, (void)ops, (void)flags, (void)out_file;
    return -ENOMEM;
}

int mount_ns_copy(struct mount_ns *old, bool lesser, struct vpath *root, struct vpath *cwd,
                  struct mount_ns **out_ns)
{
    (void)old, (void)lesser, (void)root, (void)cwd, (void)out_ns;
    return -ENOMEM;
}

void vfs_shrink_cache(unsigned count)
{
    (void)count;
}

bool file_has_position(const struct file *f)
{
    (void)f;
    return false;
}

int64_t vfs_seek_noop(struct file *f, int64_t off, int whence)
{
    (void)f, (void)off, (void)whence;
    return 0;
}

void net_set_owner(struct net *n, struct user_ns *owner)
{
    (void)n, (void)owner;
}

int net_new(struct memfile *mf, struct net **out_net)
{
    (void)mf;
    (void)out_net;
    return -ENOMEM;
}

struct net *net_get(struct net *n)
{
    return n;
}

void net_put(struct net *n)
{
    (void)n;
}

/* ---- files that a program's end might write: there are none ---- */

int vfs_open(const struct vfs_caller *c, const struct vpath *base, const char *path, uint32_t flags,
             uint32_t mode, unsigned resolve, struct file **out_file)
{
    (void)c, (void)base, (void)path, (void)flags, (void)mode, (void)resolve, (void)out_file;
    return -ENOENT;
}

int64_t vfs_write(struct file *f, struct uio *u, int64_t off, int flags, const struct vfs_caller *c)
{
    (void)f, (void)u, (void)off, (void)flags, (void)c;
    return -EBADF;
}

int vfs_ftruncate(struct file *f, int64_t size, const struct vfs_caller *c)
{
    (void)f, (void)size, (void)c;
    return -EBADF;
}

int64_t vfs_path_text(const struct vpath *root, const struct vpath *p, char *buf, size_t size)
{
    (void)root, (void)p, (void)buf, (void)size;
    return -ENOENT;
}

struct vfs_time vfs_now(void)
{
    return (struct vfs_time){0};
}

/* Nothing that is open is a control group's directory. */
struct cgroup *cgroupfs_group(const struct file *f)
{
    (void)f;
    return NULL;
}
