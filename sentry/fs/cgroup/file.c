/* Open files of groups: text made at the first read from the start; directories. */
#include <sys/epoll.h>

#include "sentry/fs/cgroup/cgroupfs_priv.h"

#define CGFS_WRITE_MAX 4096

struct cgfs_text {
    struct mutex mu; /* rank PROC_TEXT: guards the rest */
    char *text;
    size_t size;
    bool made;
    _Atomic uint64_t seen; /* events when it was read */
};

static struct cgfs_text *text_of(struct file *f)
{
    return f->priv;
}

/* mu held. */
static int text_make(struct file *f, struct cgfs_text *t, const struct vfs_caller *c)
{
    const struct cgfs_node *n = cgfs_node(f->inode);
    char *text = NULL;
    size_t size = 0;

    if (n->cg->dead)
        return -ENODEV;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return -ENOMEM;
    atomic_store(&t->seen, atomic_load(&n->cg->events));
    int r = n->row->show(n->cg, c, out);
    if (fclose(out) != 0 && r == 0)
        r = -ENOMEM;
    if (r) {
        free(text);
        return r;
    }
    free(t->text);
    t->text = text;
    t->size = size;
    t->made = true;
    return 0;
}

static int64_t cgfs_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct cgfs_text *t = text_of(f);
    char *part = NULL;
    int64_t r = 0;
    size_t n = 0;

    if (!cgfs_node(f->inode)->row->show)
        return -EINVAL;
    mutex_lock(&t->mu);
    if (*pos == 0 || !t->made)
        r = text_make(f, t, c);
    if (r == 0 && (uint64_t)*pos < t->size && u->left > 0) {
        n = MIN(t->size - (size_t)*pos, (size_t)u->left);
        part = malloc(n);
        if (part)
            memcpy(part, t->text + *pos, n);
        else
            r = -ENOMEM;
    }
    mutex_unlock(&t->mu);
    if (!part)
        return r;
    r = uio_copy_to(u, part, n);
    if (r > 0)
        *pos += r;
    free(part);
    return r;
}

static char *trim(char *text)
{
    char *end = text + strlen(text);

    while (end > text && strchr(" \t\n", end[-1]))
        *--end = '\0';
    return text + strspn(text, " \t\n");
}

static int64_t cgfs_write(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    const struct cgfs_node *n = cgfs_node(f->inode);
    char buf[CGFS_WRITE_MAX / 2];

    if (!n->row->store)
        return -EINVAL;
    if (u->left >= sizeof(buf))
        return -E2BIG;
    const int64_t size = uio_copy_from(u, buf, (size_t)u->left);
    if (size < 0)
        return size;
    buf[size] = '\0';
    if (n->cg->dead)
        return -ENODEV;
    if (n->cg->container && (n->row->flags & CGFS_OUTSIDE))
        return -EPERM;
    const int r = n->row->store(n->cg, c, trim(buf));
    if (r)
        return r;
    *pos += size;
    return size;
}

static uint32_t cgfs_poll(struct file *f, struct waiter *w)
{
    struct cgroup *cg = cgfs_node(f->inode)->cg;
    uint32_t now = EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM;

    if (!cgfs_node(f->inode)->row->events)
        return now;
    if (w)
        waitq_add(&cg->events_wq, w);
    if (atomic_load(&cg->events) != atomic_load(&text_of(f)->seen))
        now |= EPOLLPRI | EPOLLERR;
    return now;
}

static void cgfs_text_release(struct file *f)
{
    struct cgfs_text *t = text_of(f);

    mutex_destroy(&t->mu);
    free(t->text);
    free(t);
}

static const struct file_ops cgfs_file_ops = {
    .read = cgfs_read,
    .write = cgfs_write,
    .seek = vfs_seek_endless,
    .poll = cgfs_poll,
    .release = cgfs_text_release,
};

int cgfs_open(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    struct cgfs_node *n = cgfs_node(i);

    (void)c;
    if (!n->row) {
        f->ops = &cgfs_dir_ops;
        return 0;
    }
    if (!cgfs_row_visible(n->cg, n->row))
        return -ENODEV;
    struct cgfs_text *t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    mutex_init(&t->mu, LOCK_RANK_PROC_TEXT);
    t->seen = atomic_load(&n->cg->events);
    f->priv = t;
    f->ops = &cgfs_file_ops;
    return 0;
}

/* ---- directories: dots, files, groups by number ---- */

#define POS_FILES 2
#define POS_GROUPS (POS_FILES + CGROUP_FILES)

static int read_files(struct inode *i, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    struct cgroup *cg = cgfs_node(i)->cg;
    const struct cgfs_row *rows = cgfs_rows(cg);
    const uint64_t base = cg->id * 2 * CGROUP_FILES;

    for (; *pos < POS_GROUPS && rows[*pos - POS_FILES].name; (*pos)++) {
        const struct cgfs_row *r = &rows[*pos - POS_FILES];
        if (!cgfs_row_visible(cg, r))
            continue;
        const int done = fn(arg, r->name, strlen(r->name), base + (uint64_t)(*pos - POS_FILES) + 1,
                            8, (uint64_t)*pos + 1);
        if (done)
            return done;
    }
    *pos = MAX(*pos, (int64_t)POS_GROUPS);
    return 0;
}

static int read_groups(struct inode *i, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    struct cgroup *cg = cgfs_node(i)->cg, *child;

    while ((child = cgroup_next_child(cg, (uint64_t)(*pos - POS_GROUPS))) != NULL) {
        const uint64_t next = child->id + POS_GROUPS;
        const int done =
            fn(arg, child->name, strlen(child->name), child->id * 2 * CGROUP_FILES, 4, next);
        cgroup_put(child);
        if (done)
            return done;
        *pos = (int64_t)next;
    }
    return 0;
}

static int cgfs_readdir(struct file *f, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    static const char *const dots[] = {".", ".."};
    int r = 0;

    for (; *pos < POS_FILES; (*pos)++)
        if (fn(arg, dots[*pos], (size_t)*pos + 1, f->inode->ino, 4, (uint64_t)*pos + 1))
            return 0;
    if (*pos < POS_GROUPS)
        r = read_files(f->inode, pos, fn, arg);
    if (!r)
        r = read_groups(f->inode, pos, fn, arg);
    return r > 0 ? 0 : r;
}

const struct file_ops cgfs_dir_ops = {.readdir = cgfs_readdir, .seek = vfs_seek_endless};
