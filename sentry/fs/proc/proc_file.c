/* Open files of proc: text made at the first read from the start, as seq_file does; directories. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proc_node.h"

#define PROC_WRITE_MAX 2047u

struct proc_text {
    struct mutex mu; /* rank PROC_TEXT: guards the rest */
    char *text;
    size_t size;
    bool made;
};

static struct proc_text *proc_text(struct file *f)
{
    return f->priv;
}

bool fdtable_alive(struct task *t, int fd)
{
    struct fdtable *fdt = task_get_fdtable(t);
    struct vfs_caller none = {0};

    if (!fdt)
        return false;
    bool alive = fdtable_next(fdt, fd) == fd;
    fdtable_put(fdt, &none);
    return alive;
}

static int make_text(struct file *f, struct proc_text *pt, const struct vfs_caller *c)
{
    struct proc_ctx pc;
    char *text = NULL;
    size_t size = 0;
    int r = proc_ctx_begin(f->inode, c, &pc);

    if (r)
        return r;
    FILE *out = open_memstream(&text, &size);
    if (!out) {
        r = -ENOMEM;
        goto out_ctx;
    }
    const struct proc_entry *e = proc_node(f->inode)->entry;
    if (e->show)
        r = e->show(&pc, out);
    else if (fputs(e->text, out) < 0)
        r = -ENOMEM;
    if (fclose(out) != 0 && r == 0)
        r = -ENOMEM;
    if (r) {
        free(text);
        goto out_ctx;
    }
    free(pt->text);
    pt->text = text;
    pt->size = size;
    pt->made = true;
out_ctx:
    proc_ctx_end(&pc);
    return r;
}

/* The text is moved out of the lock's reach before guest memory is touched. */
static int64_t proc_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    const struct proc_entry *e = proc_node(f->inode)->entry;
    struct proc_text *pt = proc_text(f);
    int64_t r = 0;
    char *part = NULL;
    size_t n = 0;

    if (!e->show && !e->text) /* clear_refs is written only */
        return -EINVAL;
    mutex_lock(&pt->mu);
    if (*pos == 0 || !pt->made)
        r = make_text(f, pt, c);
    if (r == 0 && (uint64_t)*pos < pt->size && u->left > 0) {
        n = pt->size - (size_t)*pos;
        n = n < u->left ? n : (size_t)u->left;
        part = malloc(n);
        if (part)
            memcpy(part, pt->text + *pos, n);
        else
            r = -ENOMEM;
    }
    mutex_unlock(&pt->mu);
    if (part) {
        r = uio_copy_to(u, part, n);
        if (r > 0)
            *pos += r;
        free(part);
    }
    return r;
}

static int64_t proc_store(struct file *f, const char *text, size_t size, const struct vfs_caller *c)
{
    struct proc_ctx pc;

    int r = proc_ctx_begin(f->inode, c, &pc);
    if (r)
        return r;
    const int64_t done = proc_node(f->inode)->entry->store(&pc, text, size);
    proc_ctx_end(&pc);
    return done;
}

static int64_t proc_write(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    const struct proc_entry *e = proc_node(f->inode)->entry;

    if (!e->store) /* files of a task have no such operation, others one that fails */
        return proc_node(f->inode)->tid ? -EINVAL : -EIO;
    if (e->whole && (*pos != 0 || u->left >= PAGE_SIZE))
        return -EINVAL;
    const size_t want = MIN((size_t)u->left, e->whole ? PAGE_SIZE - 1 : PROC_WRITE_MAX);
    char *buf = malloc(want + 1);
    if (!buf)
        return -ENOMEM;
    int64_t n = uio_copy_from(u, buf, want);
    if (n >= 0) {
        buf[n] = '\0';
        n = proc_store(f, buf, (size_t)n, c);
    }
    free(buf);
    if (n > 0)
        *pos += n;
    return n;
}

static void proc_text_release(struct file *f)
{
    struct proc_text *pt = proc_text(f);

    mutex_destroy(&pt->mu);
    free(pt->text);
    free(pt);
}

const struct file_ops proc_file_ops = {
    .read = proc_read,
    .write = proc_write,
    .seek = vfs_seek_endless,
    .release = proc_text_release,
};

static unsigned entry_dtype(const struct proc_entry *e)
{
    if (e->children || e->list)
        return 4; /* DT_DIR */
    return e->readlink ? 10 : 8;
}

/* Positions: 0 ".", 1 "..", then the table's rows, then numbers from ROWS_END on. */
#define ROWS_END 0x1000

/* Rows of one table, the first of which is at *row. */
static int emit_table(struct file *f, const struct proc_entry *e, int64_t *row, int64_t *pos,
                      vfs_dirent_fn fn, void *arg)
{
    const struct proc_node *n = proc_node(f->inode);

    for (; e && e->name; e++, ++*row) {
        if (*row < *pos)
            continue;
        int r = fn(arg, e->name, strlen(e->name), proc_node_ino(e, n->tid, n->thread, n->fd),
                   entry_dtype(e), (uint64_t)*row + 1);
        if (r)
            return r;
        *pos = *row + 1;
    }
    return 0;
}

static int emit_rows(struct file *f, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    const struct proc_entry *e = proc_node(f->inode)->entry;
    int64_t row = 2;
    int r = emit_table(f, e->children, &row, pos, fn, arg);

    if (r == 0)
        r = emit_table(f, e->more, &row, pos, fn, arg);
    if (r == 0)
        *pos = ROWS_END;
    return r;
}

static int emit_numbers(struct file *f, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    const struct proc_entry *e = proc_node(f->inode)->entry;
    struct proc_ctx pc;
    char name[32];

    if (!e->list || *pos - ROWS_END > INT32_MAX)
        return 0;
    int r = proc_ctx_begin(f->inode, NULL, &pc);
    if (r)
        return r;
    while (r == 0) {
        int32_t num = e->list(&pc, (int32_t)(*pos - ROWS_END));
        if (num < 0)
            break;
        int len = e->name_of
                      ? e->name_of(&pc, num, name, sizeof(name))
                      : snprintf(name, sizeof(name), "%s%d", e->prefix ? e->prefix : "", num);
        /* One that has gone meanwhile. */
        if (len > 0)
            r = fn(arg, name, (size_t)len, (uint64_t)num + 1000, entry_dtype(e->item),
                   (uint64_t)num + ROWS_END + 1);
        if (r == 0)
            *pos = (int64_t)num + ROWS_END + 1;
    }
    proc_ctx_end(&pc);
    return r;
}

static int proc_readdir(struct file *f, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    static const char *const dots[] = {".", ".."};
    int r;

    for (; *pos < 2; (*pos)++) {
        r = fn(arg, dots[*pos], (size_t)*pos + 1, f->inode->ino, 4, (uint64_t)*pos + 1);
        if (r)
            return r < 0 ? r : 0;
    }
    r = *pos < ROWS_END ? emit_rows(f, pos, fn, arg) : 0;
    if (r == 0)
        r = emit_numbers(f, pos, fn, arg);
    return r < 0 ? r : 0;
}

const struct file_ops proc_dir_ops = {.readdir = proc_readdir, .seek = vfs_seek_endless};

int proc_open(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    const struct proc_entry *e = proc_node(i)->entry;

    if (S_ISDIR(i->mode)) {
        f->ops = &proc_dir_ops;
        return 0;
    }
    if (e->open) {
        struct proc_ctx pc;
        int r = proc_ctx_begin(i, c, &pc);
        if (r)
            return r;
        r = e->open(&pc, f, c);
        proc_ctx_end(&pc);
        return r;
    }
    struct proc_text *pt = calloc(1, sizeof(*pt));
    if (!pt)
        return -ENOMEM;
    mutex_init(&pt->mu, LOCK_RANK_PROC_TEXT);
    f->priv = pt;
    f->ops = &proc_file_ops;
    return 0;
}
