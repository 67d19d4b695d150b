/* /proc/<pid>/mem: another's memory as a file, and auxv (fs/proc/base.c). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proc_node.h"
#include "sentry/kernel/process.h"

#define MEM_CHUNK 2048u

/* Of the program that ran when it was opened; it does not keep that alive. */
struct proc_mem {
    struct task *t; /* owned */
    const struct mm *mm;
    uint64_t born_ns;
};

bool proc_may_access(const struct proc_ctx *pc, const struct vfs_caller *c)
{
    struct task *self;

    if (kernel_find_task(pc->k, c->pid, true, &self))
        return false;
    const bool may = task_may_access(self, pc->t, TASK_ACCESS_FS);
    task_put(self);
    return may;
}

struct mm *proc_mem_mm(const struct file *f)
{
    const struct proc_mem *pm = f->priv;
    struct mm *mm = task_get_mm(pm->t);

    if (mm && (mm != pm->mm || mm_born(mm) != pm->born_ns)) {
        mm_put(mm);
        mm = NULL;
    }
    return mm;
}

static int64_t mem_copy(struct mm *mm, struct uio *u, int64_t *pos, bool write)
{
    char buf[MEM_CHUNK];
    int64_t total = 0;

    while (u->left > 0) {
        const size_t want = (size_t)MIN(u->left, (uint64_t)sizeof(buf));
        int64_t n;
        if (write) {
            n = uio_copy_from(u, buf, want);
            const size_t done = n > 0 ? mm_poke(mm, uaddr((uint64_t)*pos), buf, (size_t)n) : 0;
            if (n > 0)
                uio_revert(u, (uint64_t)n - done);
            n = n < 0 ? n : (int64_t)done;
        } else {
            n = (int64_t)mm_peek(mm, uaddr((uint64_t)*pos), buf, want);
            if (n > 0)
                n = uio_copy_to(u, buf, (size_t)n);
        }
        if (n <= 0)
            return total > 0 ? total : n < 0 ? n : -EIO;
        total += n;
        *pos += n;
        if ((size_t)n < want)
            break;
    }
    return total;
}

static int64_t mem_rw(struct file *f, struct uio *u, int64_t *pos, bool write)
{
    struct mm *mm = proc_mem_mm(f);

    if (!mm)
        return 0;
    const int64_t r = mem_copy(mm, u, pos, write);
    mm_put(mm);
    return r;
}

static int64_t mem_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    (void)c;
    return mem_rw(f, u, pos, false);
}

static int64_t mem_write(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    (void)c;
    return mem_rw(f, u, pos, true);
}

int64_t proc_mem_seek(struct file *f, int64_t off, int whence)
{
    if (whence != SEEK_SET && whence != SEEK_CUR)
        return -EINVAL;
    const int64_t to = whence == SEEK_CUR ? (int64_t)((uint64_t)f->pos + (uint64_t)off) : off;
    f->pos = to;
    return to;
}

void proc_mem_release(struct file *f)
{
    struct proc_mem *pm = f->priv;

    task_put(pm->t);
    free(pm);
}

static const struct file_ops mem_ops = {
    .addresses = true,
    .read = mem_read,
    .write = mem_write,
    .seek = proc_mem_seek,
    .release = proc_mem_release,
};

int proc_open_mem(const struct proc_ctx *pc, struct file *f, const struct vfs_caller *c)
{
    if (!proc_may_access(pc, c))
        return -EACCES;
    struct mm *mm = task_get_mm(pc->t);
    struct proc_mem *pm = calloc(1, sizeof(*pm));
    if (!pm) {
        if (mm)
            mm_put(mm);
        return -ENOMEM;
    }
    pm->t = task_get(pc->t);
    if (mm) {
        pm->mm = mm;
        pm->born_ns = mm_born(mm);
        mm_put(mm);
    }
    f->priv = pm;
    f->ops = &mem_ops;
    return 0;
}

int proc_show_auxv(const struct proc_ctx *pc, FILE *out)
{
    struct mm *mm = task_get_mm(pc->t);
    uint64_t words[MM_AUXV_WORDS];
    size_t n;

    if (!mm)
        return 0;
    mm_lock_layout(mm);
    n = mm_layout(mm)->auxv_words;
    memcpy(words, mm_layout(mm)->auxv, sizeof(words));
    mm_unlock_layout(mm);
    mm_put(mm);
    return fwrite(words, sizeof(words[0]), n, out) == n ? 0 : -ENOMEM;
}
