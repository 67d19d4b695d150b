/* Mounting, options, limits. */
#include <sys/mount.h>
#include <stdio.h>

#include "base/limits.h"
#include "sentry/fs/tmpfs/tmpfs_priv.h"

#define TMPFS_MAGIC 0x01021994u

struct options {
    uint64_t size, inodes;
    bool has_size;
    uint32_t mode, uid, gid;
};

static bool parse_number(const char *text, int base, uint64_t *out)
{
    char *end;

    errno = 0;
    unsigned long long v = strtoull(text, &end, base);
    if (errno != 0 || end == text || *text == '-')
        return false;
    unsigned shift = *end == 'k' || *end == 'K'   ? 10
                     : *end == 'm' || *end == 'M' ? 20
                     : *end == 'g' || *end == 'G' ? 30
                                                  : 0;
    if (shift != 0)
        end++;
    if (*end != '\0' || v > UINT64_MAX >> shift)
        return false;
    *out = v << shift;
    return true;
}

static bool parse_percent(const char *text, uint64_t ram, uint64_t *out)
{
    unsigned percent;
    char end;

    if (sscanf(text, "%u%c%c", &percent, &end, &end) != 2 || end != '%' || percent > 1000)
        return false;
    *out = ram / 100 * percent;
    return true;
}

static int parse_option(char *word, uint64_t ram, struct options *o)
{
    char *value = strchr(word, '=');
    uint64_t v = 0;

    if (value == NULL)
        return strcmp(word, "inode32") == 0 || strcmp(word, "inode64") == 0 ||
                       strcmp(word, "noswap") == 0
                   ? 0
                   : -EINVAL;
    *value++ = '\0';
    if (strcmp(word, "size") == 0) {
        if (!parse_percent(value, ram, &o->size) && !parse_number(value, 10, &o->size))
            return -EINVAL;
        o->has_size = true;
        return 0;
    }
    if (strcmp(word, "nr_inodes") == 0)
        return parse_number(value, 10, &o->inodes) ? 0 : -EINVAL;
    if (strcmp(word, "mode") == 0) {
        if (!parse_number(value, 8, &v) || v > 07777)
            return -EINVAL;
        o->mode = (uint32_t)v;
        return 0;
    }
    if (strcmp(word, "uid") == 0 || strcmp(word, "gid") == 0) {
        if (!parse_number(value, 10, &v) || v > UINT32_MAX - 1)
            return -EINVAL;
        *(word[0] == 'u' ? &o->uid : &o->gid) = (uint32_t)v;
        return 0;
    }
    if (strcmp(word, "nr_blocks") == 0) {
        if (!parse_number(value, 10, &v) || v > UINT64_MAX >> PAGE_SHIFT)
            return -EINVAL;
        o->size = v << PAGE_SHIFT;
        o->has_size = true;
        return 0;
    }
    /* These change nothing that a program can see. */
    return strcmp(word, "huge") == 0 || strcmp(word, "mpol") == 0 ? 0 : -EINVAL;
}

static int parse_options(const char *text, uint64_t ram, struct options *o)
{
    char *copy = strdup(text != NULL ? text : ""), *save = NULL;
    int r = copy != NULL ? 0 : -ENOMEM;

    for (char *w = copy != NULL ? strtok_r(copy, ",", &save) : NULL; w != NULL && r == 0;
         w = strtok_r(NULL, ",", &save))
        r = parse_option(w, ram, o);
    free(copy);
    return r;
}

static int tmpfs_check_option(const char *option)
{
    struct options o;

    return parse_options(option, UINT64_MAX, &o);
}

/* Sizes only; what is there already must fit. */
static int tmpfs_reconfigure(struct super *sb, const char *options)
{
    struct tmpfs *fs = tmpfs_of(sb);
    struct options o = {.size = fs->max_pages << PAGE_SHIFT, .inodes = fs->max_inodes};
    int r = parse_options(options, memfile_budget(fs->mf), &o);

    if (r != 0)
        return r;
    uint64_t pages = ALIGN_UP(o.size, PAGE_SIZE) >> PAGE_SHIFT;
    /* A file system that began without a limit gets none, as in Linux. */
    if ((pages != 0 && (fs->max_pages == 0 || pages < atomic_load(&fs->pages))) ||
        (o.inodes != 0 && o.inodes < atomic_load(&fs->inodes)))
        return -EINVAL;
    fs->max_pages = pages;
    fs->max_inodes = o.inodes;
    return 0;
}

static int tmpfs_statfs(struct super *sb, struct vfs_statfs *out)
{
    struct tmpfs *fs = tmpfs_of(sb);
    uint64_t pages = atomic_load(&fs->pages), inodes = atomic_load(&fs->inodes);

    out->type = TMPFS_MAGIC;
    out->bsize = PAGE_SIZE;
    out->namelen = VFS_NAME_MAX;
    out->blocks = fs->max_pages;
    out->bfree = out->bavail = fs->max_pages > pages ? fs->max_pages - pages : 0;
    out->files = fs->max_inodes;
    out->ffree = fs->max_inodes > inodes ? fs->max_inodes - inodes : 0;
    return 0;
}

static void tmpfs_destroy(struct super *sb)
{
    free(tmpfs_of(sb));
}

static void tmpfs_show_options(struct super *sb, char *buf, size_t size)
{
    struct tmpfs *fs = tmpfs_of(sb);

    buf[0] = '\0';
    if (fs->max_pages != 0)
        (void)snprintf(buf, size, "size=%luk", (unsigned long)(fs->max_pages << PAGE_SHIFT >> 10));
}

static const struct super_ops tmpfs_super_ops = {
    .statfs = tmpfs_statfs,
    .destroy = tmpfs_destroy,
    .reconfigure = tmpfs_reconfigure,
    .show_options = tmpfs_show_options,
};

static int tmpfs_super(struct memfile *mf, const struct options *o, const char *source,
                       struct super **out)
{
    struct tmpfs *fs = calloc(1, sizeof(*fs));
    struct tmpfs_inode *root;

    if (fs == NULL)
        return -ENOMEM;
    super_init(&fs->sb, &tmpfs_super_ops, &tmpfs_fs_ops);
    fs->sb.keeps_atime = true;
    fs->mf = mf;
    fs->max_pages = ALIGN_UP(o->size, PAGE_SIZE) >> PAGE_SHIFT;
    fs->max_inodes = o->inodes;
    atomic_store(&fs->next_ino, 1);
    (void)snprintf(fs->sb.source, sizeof(fs->sb.source), "%s", source != NULL ? source : "tmpfs");
    int r = tmpfs_inode_new(fs, S_IFDIR | o->mode, o->uid, o->gid, 0, &root);
    if (r == 0)
        r = super_set_root(&fs->sb, &root->inode);
    if (r != 0) {
        super_put(&fs->sb);
        return r;
    }
    root->inode.nlink = 2;
    *out = &fs->sb;
    return 0;
}

static int tmpfs_mount(const struct fs_ops *ops, void *boot_arg, const char *source,
                       const char *options, const struct vfs_caller *c, struct super **out_super)
{
    struct memfile *mf = boot_arg;
    uint64_t ram = memfile_budget(mf);
    /* As Linux: half of the pages there are, and as many inodes. */
    struct options o = {.size = ram / 2,
                        .inodes = ram / 2 >> PAGE_SHIFT,
                        .mode = 01777,
                        .uid = c->cred->fsuid,
                        .gid = c->cred->fsgid};

    (void)ops;
    int r = parse_options(options, ram, &o);
    return r != 0 ? r : tmpfs_super(mf, &o, source, out_super);
}

const struct fs_ops tmpfs_fs_ops = {
    .name = "tmpfs",
    .check_option = tmpfs_check_option,
    .mount = tmpfs_mount,
};
