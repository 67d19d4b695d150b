/* Extended attributes: the real inode's, without those the overlay keeps there for itself. */
#include "sentry/fs/overlay/overlay_priv.h"

bool ovl_is_mark(const struct ovl_super *os, const char *name)
{
    return strncmp(name, os->prefix, os->prefix_len) == 0;
}

static void ovl_mark_name(const struct ovl_super *os, const char *mark, char *buf)
{
    size_t n = strlen(mark);

    memcpy(buf, os->prefix, os->prefix_len);
    memcpy(buf + os->prefix_len, mark, n + 1);
}

int64_t ovl_mark_get(const struct ovl_super *os, struct inode *real, const char *mark, void *buf,
                     size_t size)
{
    char name[2 * OVL_PREFIX_MAX];

    ovl_mark_name(os, mark, name);
    return real->ops->getxattr != NULL ? real->ops->getxattr(real, name, buf, size) : -EOPNOTSUPP;
}

int ovl_mark_set(const struct ovl_super *os, struct inode *real, const char *mark,
                 const void *value, size_t size)
{
    char name[2 * OVL_PREFIX_MAX];

    ovl_mark_name(os, mark, name);
    return real->ops->setxattr != NULL ? real->ops->setxattr(real, name, value, size, 0)
                                       : -EOPNOTSUPP;
}

int64_t ovl_getxattr(struct inode *i, const char *name, void *buf, size_t size)
{
    struct inode *real = ovl_real(ovl_inode(i)).d->inode;

    if (ovl_is_mark(ovl_super(i->sb), name))
        return -EOPNOTSUPP;
    return real->ops->getxattr != NULL ? real->ops->getxattr(real, name, buf, size) : -EOPNOTSUPP;
}

int ovl_setxattr(struct inode *i, const char *name, const void *buf, size_t size, int flags)
{
    struct ovl_inode *oi = ovl_inode(i);

    if (ovl_is_mark(ovl_super(i->sb), name))
        return -EOPNOTSUPP;
    int r = ovl_copy_up(oi, UINT64_MAX);
    if (r != 0)
        return r;
    struct inode *real = ovl_upper(oi)->inode;
    r = real->ops->setxattr != NULL ? real->ops->setxattr(real, name, buf, size, flags)
                                    : -EOPNOTSUPP;
    ovl_copy_attr(oi);
    return r;
}

int ovl_removexattr(struct inode *i, const char *name)
{
    struct ovl_inode *oi = ovl_inode(i);

    if (ovl_is_mark(ovl_super(i->sb), name))
        return -EOPNOTSUPP;
    /* Nothing is copied for what is not there. */
    if (ovl_upper(oi) == NULL) {
        int64_t n = ovl_getxattr(i, name, NULL, 0);
        if (n < 0)
            return (int)n;
    }
    int r = ovl_copy_up(oi, UINT64_MAX);
    if (r != 0)
        return r;
    struct inode *real = ovl_upper(oi)->inode;
    r = real->ops->removexattr != NULL ? real->ops->removexattr(real, name) : -EOPNOTSUPP;
    ovl_copy_attr(oi);
    return r;
}

/* Takes the overlay's own names out of a list of size bytes; what is left. */
static size_t ovl_strip(const struct ovl_super *os, char *buf, size_t size)
{
    size_t kept = 0;

    for (size_t at = 0; at < size;) {
        size_t n = strnlen(buf + at, size - at) + 1;
        if (n > size - at)
            break;
        if (!ovl_is_mark(os, buf + at)) {
            memmove(buf + kept, buf + at, n);
            kept += n;
        }
        at += n;
    }
    return kept;
}

int64_t ovl_listxattr(struct inode *i, char *buf, size_t size)
{
    const struct ovl_super *os = ovl_super(i->sb);
    struct inode *real = ovl_real(ovl_inode(i)).d->inode;
    int64_t n = real->ops->listxattr != NULL ? real->ops->listxattr(real, NULL, 0) : 0;

    if (n <= 0)
        return n;
    if (n > LIMIT_XATTR_SIZE)
        return -E2BIG;
    size_t room = (size_t)n;
    char *all = malloc(room);
    if (all == NULL)
        return -ENOMEM;
    n = real->ops->listxattr(real, all, room);
    if (n >= 0) {
        n = (int64_t)ovl_strip(os, all, (size_t)n);
        if (size > 0 && (size_t)n > size)
            n = -ERANGE;
        else if (size > 0)
            memcpy(buf, all, (size_t)n);
    }
    free(all);
    return n;
}
