/* Root, working directory and umask of one or more tasks (CLONE_FS). */
#include <errno.h>
#include <stdlib.h>

#include "base/objcount.h"
#include "sentry/kernel/fsctx.h"
#include "sentry/kernel/inspect.h"

OBJCOUNT_DEFINE(fs_ctx);

int fs_ctx_new(const struct vpath *root, const struct vpath *cwd, uint32_t mask,
               struct fs_ctx **out_fs)
{
    struct fs_ctx *fs = calloc(1, sizeof(*fs));

    if (!fs)
        return -ENOMEM;
    ref_init(&fs->ref);
    mutex_init(&fs->mu, LOCK_RANK_FSCTX);
    vpath_get(root);
    vpath_get(cwd);
    fs->root = *root;
    fs->cwd = *cwd;
    fs->umask = mask & 0777;
    OBJCOUNT_INC(fs_ctx);
    *out_fs = fs;
    return 0;
}

int fs_ctx_dup(struct fs_ctx *fs, struct fs_ctx **out_fs)
{
    struct vpath root, cwd;
    uint32_t mask;

    fs_ctx_snapshot(fs, &root, &cwd, &mask);
    int r = fs_ctx_new(&root, &cwd, mask, out_fs);
    vpath_put(&root);
    vpath_put(&cwd);
    return r;
}

struct fs_ctx *fs_ctx_get(struct fs_ctx *fs)
{
    ref_get(&fs->ref);
    return fs;
}

void fs_ctx_put(struct fs_ctx *fs)
{
    if (!fs || !ref_put(&fs->ref))
        return;
    vpath_put(&fs->root);
    vpath_put(&fs->cwd);
    mutex_destroy(&fs->mu);
    OBJCOUNT_DEC(fs_ctx);
    free(fs);
}

uint32_t fs_ctx_snapshot(struct fs_ctx *fs, struct vpath *root, struct vpath *cwd, uint32_t *mask)
{
    mutex_lock(&fs->mu);
    const uint32_t version = fs->version;
    *root = fs->root;
    *cwd = fs->cwd;
    *mask = fs->umask;
    vpath_get(root);
    vpath_get(cwd);
    mutex_unlock(&fs->mu);
    return version;
}

/* Puts p (a new reference) in the place of *slot. */
static void fs_ctx_swap(struct fs_ctx *fs, struct vpath *slot, const struct vpath *p)
{
    vpath_get(p);
    mutex_lock(&fs->mu);
    struct vpath old = *slot;
    *slot = *p;
    fs->version++;
    mutex_unlock(&fs->mu);
    vpath_put(&old);
}

void fs_ctx_set_cwd(struct fs_ctx *fs, const struct vpath *p)
{
    fs_ctx_swap(fs, &fs->cwd, p);
}

void fs_ctx_set_root(struct fs_ctx *fs, const struct vpath *p)
{
    fs_ctx_swap(fs, &fs->root, p);
}

static bool same_place(const struct vpath *a, const struct vpath *b)
{
    return a->mnt == b->mnt && a->dentry == b->dentry;
}

static void fs_ctx_move(struct fs_ctx *fs, const struct vpath *from, const struct vpath *to)
{
    mutex_lock(&fs->mu);
    bool root = same_place(&fs->root, from), cwd = same_place(&fs->cwd, from);
    mutex_unlock(&fs->mu);
    if (root)
        fs_ctx_set_root(fs, to);
    if (cwd)
        fs_ctx_set_cwd(fs, to);
}

static void task_move_roots(struct task *t, const struct vpath *from, const struct vpath *to)
{
    mutex_lock(&t->mu);
    struct fs_ctx *fs = t->fs ? fs_ctx_get(t->fs) : NULL;
    mutex_unlock(&t->mu);
    if (fs)
        fs_ctx_move(fs, from, to);
    fs_ctx_put(fs);
}

void kernel_move_roots(struct kernel *k, const struct vpath *from, const struct vpath *to)
{
    struct task *t;

    for (int32_t tgid = 1; (tgid = kernel_next_tgid(k, tgid)) > 0; tgid++) {
        if (kernel_find_task(k, tgid, true, &t))
            continue;
        for (int32_t tid = 1; (tid = task_next_tid(t, tid)) > 0; tid++) {
            struct task *thread;
            if (kernel_find_task(k, tid, true, &thread))
                continue;
            task_move_roots(thread, from, to);
            task_put(thread);
        }
        task_put(t);
    }
}

uint32_t fs_ctx_set_umask(struct fs_ctx *fs, uint32_t mask)
{
    mutex_lock(&fs->mu);
    const uint32_t old = fs->umask;
    fs->umask = mask & 0777;
    fs->version++;
    mutex_unlock(&fs->mu);
    return old;
}
