/* Access control lists as Linux has them (fs/posix_acl.c). */
#include "sentry/vfs/acl.h"

#include <endian.h>
#include <linux/capability.h>
#include <stdlib.h>

#include "sentry/cred/user_ns.h"
#include "sentry/vfs/vfs_priv.h"

enum {
    ACL_USER_OBJ = 1,
    ACL_USER = 2,
    ACL_GROUP_OBJ = 4,
    ACL_GROUP = 8,
    ACL_MASK = 16,
    ACL_OTHER = 32
};
#define ACL_VERSION 2u
#define ACL_FEW 60u /* entries that are asked for without asking first how many there are */

struct acl_entry {
    uint16_t tag, perm;
    uint32_t id;
};

/* From version on as it is stored; in memory in the machine's byte order. */
struct acl {
    uint32_t count, version;
    struct acl_entry e[];
};
#define ACL_HEAD sizeof(uint32_t)
_Static_assert(sizeof(struct acl_entry) == 8, "struct posix_acl_xattr_entry");

static struct acl *acl_new(size_t count)
{
    struct acl *a = malloc(sizeof(*a) + count * sizeof(a->e[0]));

    if (a != NULL)
        a->count = (uint32_t)count;
    return a;
}

static size_t acl_size(const struct acl *a)
{
    return ACL_HEAD + a->count * sizeof(a->e[0]);
}

bool acl_is_name(const char *name)
{
    return strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0;
}

static uint32_t acl_state_bit(const char *name)
{
    return strcmp(name, ACL_ACCESS) == 0 ? ACL_NO_ACCESS : ACL_NO_DEFAULT;
}

void vfs_acl_forget(struct inode *i)
{
    uint32_t s = atomic_load(&i->acl_state);

    while (!atomic_compare_exchange_weak(&i->acl_state, &s,
                                         (s + ACL_CHANGE) & ~(ACL_NO_ACCESS | ACL_NO_DEFAULT)))
        ;
}

/* ---- well-formed ones ---- */

static bool acl_is_named(unsigned tag)
{
    return tag == ACL_USER || tag == ACL_GROUP;
}

/* Tags rise; those of one owner stand once; who names somebody has a mask. */
static bool acl_valid(const struct acl *a)
{
    unsigned before = 0, seen = 0;

    for (uint32_t k = 0; k < a->count; k++) {
        const struct acl_entry *e = &a->e[k];
        bool known = e->tag != 0 && (e->tag & (e->tag - 1)) == 0 && e->tag <= ACL_OTHER;
        if (!known || (e->perm & ~7u) != 0 || e->tag < before ||
            (e->tag == before && !acl_is_named(e->tag)) ||
            (acl_is_named(e->tag) && e->id == UINT32_MAX))
            return false;
        before = e->tag;
        seen |= e->tag;
    }
    if ((seen & (ACL_USER | ACL_GROUP)) != 0 && (seen & ACL_MASK) == 0)
        return false;
    return (seen & (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER)) ==
           (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER);
}

/* Entries with ids as c knows them (of_user), or c shall know them, changed in place. */
static int acl_map_ids(const struct cred *c, struct acl *a, bool of_user)
{
    for (uint32_t k = 0; k < a->count; k++) {
        struct acl_entry *e = &a->e[k];
        enum user_ns_map map = e->tag == ACL_USER ? USER_NS_UID : USER_NS_GID;
        if (!acl_is_named(e->tag)) {
            e->id = UINT32_MAX;
            continue;
        }
        e->id = of_user ? user_ns_in(c->user_ns, map, e->id) : user_ns_out(c->user_ns, map, e->id);
        if (of_user && e->id == USER_NS_NONE)
            return -EINVAL;
    }
    return 0;
}

static void acl_to_host_order(struct acl *a)
{
    for (uint32_t k = 0; k < a->count; k++)
        a->e[k] =
            (struct acl_entry){le16toh(a->e[k].tag), le16toh(a->e[k].perm), le32toh(a->e[k].id)};
}

/* A value as it came from the guest or a file system. *out NULL: a list of nobody. */
static int acl_parse(const void *value, size_t size, struct acl **out)
{
    uint32_t version;

    *out = NULL;
    if (size < ACL_HEAD)
        return -EINVAL;
    memcpy(&version, value, sizeof(version));
    if (le32toh(version) != ACL_VERSION)
        return -EOPNOTSUPP;
    if ((size - ACL_HEAD) % sizeof(struct acl_entry) != 0)
        return -EINVAL;
    if (size == ACL_HEAD)
        return 0;
    struct acl *a = acl_new((size - ACL_HEAD) / sizeof(struct acl_entry));
    if (a == NULL)
        return -ENOMEM;
    memcpy(&a->version, value, size);
    acl_to_host_order(a);
    *out = a;
    return 0;
}

/* ---- stored ---- */

/* The list's bytes in *a, made for count entries. */
static int64_t acl_fetch(struct inode *i, const char *name, size_t count, struct acl **out)
{
    struct acl *a = acl_new(count);

    if (a == NULL)
        return -ENOMEM;
    int64_t n = i->ops->getxattr(i, name, &a->version, acl_size(a));
    if (n < 0)
        free(a);
    else
        *out = a;
    return n;
}

/* *out NULL: there is none, which is remembered. Owned. */
static int acl_read(struct inode *i, const char *name, struct acl **out)
{
    const uint32_t bit = acl_state_bit(name);
    uint32_t s = atomic_load(&i->acl_state);
    struct acl *a = NULL;

    *out = NULL;
    if ((s & bit) != 0)
        return 0;
    int64_t n = i->ops->getxattr != NULL ? acl_fetch(i, name, ACL_FEW, &a) : -EOPNOTSUPP;
    if (n == -ERANGE)
        n = acl_fetch(i, name, (LIMIT_XATTR_SIZE - ACL_HEAD) / sizeof(a->e[0]), &a);
    if (n == -ENODATA || n == -EOPNOTSUPP) {
        /* Unless it came meanwhile. */
        (void)atomic_compare_exchange_strong(&i->acl_state, &s, s | bit);
        return 0;
    }
    if (n < 0)
        return (int)n;
    int r = (uint64_t)n <= acl_size(a) ? acl_parse(&a->version, (size_t)n, out) : -EIO;
    free(a);
    if (r == 0 && *out != NULL && !acl_valid(*out)) {
        free(*out);
        *out = NULL;
        r = -EIO;
    }
    return r;
}

/* a NULL: none. */
static int acl_write(struct inode *i, const char *name, const struct acl *a)
{
    int r;

    if (a == NULL) {
        r = i->ops->removexattr != NULL ? i->ops->removexattr(i, name) : -EOPNOTSUPP;
        r = r == -ENODATA ? 0 : r;
    } else {
        struct acl *d = acl_new(a->count);
        if (d == NULL)
            return -ENOMEM;
        d->version = htole32(ACL_VERSION);
        for (uint32_t k = 0; k < a->count; k++)
            d->e[k] = (struct acl_entry){htole16(a->e[k].tag), htole16(a->e[k].perm),
                                         htole32(a->e[k].id)};
        r = i->ops->setxattr != NULL ? i->ops->setxattr(i, name, &d->version, acl_size(d), 0)
                                     : -EOPNOTSUPP;
        free(d);
    }
    /* After the change: who found nothing before does not get to say so. */
    vfs_acl_forget(i);
    return r;
}

/* ---- obeyed ---- */

static bool acl_names(const struct vfs_caller *c, const struct inode *i, const struct acl_entry *e)
{
    switch (e->tag) {
    case ACL_USER:
        return e->id == c->cred->fsuid;
    case ACL_GROUP_OBJ:
        return cred_in_group(c->cred, i->gid);
    case ACL_GROUP:
        return cred_in_group(c->cred, e->id);
    default:
        return false;
    }
}

static unsigned acl_mask_of(const struct acl *a)
{
    for (uint32_t k = a->count; k-- > 0;)
        if (a->e[k].tag == ACL_MASK)
            return a->e[k].perm;
    return 7;
}

static int acl_allows(const struct acl *a, const struct vfs_caller *c, const struct inode *i,
                      unsigned want)
{
    const unsigned within = acl_mask_of(a);
    bool named = false;

    for (uint32_t k = 0; k < a->count; k++) {
        const struct acl_entry *e = &a->e[k];
        if (e->tag == ACL_OTHER && !named)
            return (e->perm & want) == want ? 0 : -EACCES;
        if (!acl_names(c, i, e))
            continue;
        /* A user's own entry is the last word; of groups one that gives all will do. */
        if (e->tag == ACL_USER || (e->perm & want) == want)
            return (e->perm & within & want) == want ? 0 : -EACCES;
        named = true;
    }
    return -EACCES;
}

int acl_check(const struct vfs_caller *c, struct inode *i, unsigned mask)
{
    struct acl *a;
    int r = acl_read(i, ACL_ACCESS, &a);

    if (r != 0 || a == NULL)
        return r != 0 ? r : -EAGAIN;
    r = acl_allows(a, c, i, mask & 7);
    free(a);
    return r;
}

/* ---- and modes ---- */

/* The entry of a valid list that the group's bits of a mode stand for: the mask, which comes after
 * the group's own, if there is one. */
static struct acl_entry *acl_group_class(struct acl *a)
{
    struct acl_entry *group = &a->e[0];

    for (uint32_t k = 0; k < a->count; k++)
        if (a->e[k].tag == ACL_MASK || a->e[k].tag == ACL_GROUP_OBJ)
            group = &a->e[k];
    return group;
}

static bool acl_is_mode(const struct acl *a)
{
    return a->count == 3;
}

/* Permissions of a valid list as bits of a mode. */
static uint32_t acl_mode(struct acl *a)
{
    return (uint32_t)a->e[0].perm << 6 | (uint32_t)acl_group_class(a)->perm << 3 |
           a->e[a->count - 1].perm;
}

static void acl_set_mode(struct acl *a, uint32_t mode)
{
    a->e[0].perm = mode >> 6 & 7;
    acl_group_class(a)->perm = mode >> 3 & 7;
    a->e[a->count - 1].perm = mode & 7;
}

int acl_chmod(struct inode *i)
{
    struct acl *a;

    if (!acl_may_have(i))
        return 0;
    mutex_lock(&i->dir_mu);
    int r = acl_read(i, ACL_ACCESS, &a);
    if (r == 0 && a != NULL) {
        acl_set_mode(a, i->mode);
        r = acl_write(i, ACL_ACCESS, a);
        free(a);
    }
    mutex_unlock(&i->dir_mu);
    return r;
}

/* ---- asked for and set ---- */

int64_t acl_get(const struct vfs_caller *c, struct inode *i, const char *name, void *buf,
                size_t size)
{
    struct acl *a;

    if (i->ops->getxattr == NULL || S_ISLNK(i->mode))
        return -EOPNOTSUPP;
    int r = acl_read(i, name, &a);
    if (r != 0 || a == NULL)
        return r != 0 ? r : -ENODATA;
    size_t n = acl_size(a);
    r = acl_map_ids(c->cred, a, false);
    if (r == 0 && size > 0 && n > size)
        r = -ERANGE;
    if (r == 0 && size > 0) {
        a->version = htole32(ACL_VERSION);
        acl_to_host_order(a);
        memcpy(buf, &a->version, n);
    }
    free(a);
    return r != 0 ? r : (int64_t)n;
}

/* The mode is what the list says; a list that says no more is not kept. Somebody may look at any
 * moment: never both the mode with the mask for its group and no list. */
static int acl_set_access(const struct vfs_caller *c, struct inode *i, struct acl *a)
{
    struct vfs_setattr s = {.valid = VFS_SET_MODE, .mode = i->mode & 07777};
    int r = 0;

    if (!cred_in_group(c->cred, i->gid) && !cred_file_capable(c->cred, i->uid, i->gid, CAP_FSETID))
        s.mode &= ~(uint32_t)S_ISGID;
    if (a != NULL)
        s.mode = (s.mode & 07000) | acl_mode(a);
    if (a != NULL && !acl_is_mode(a)) {
        r = acl_write(i, ACL_ACCESS, a);
        return r != 0 ? r : inode_setattr(i, &s);
    }
    if (s.mode != (i->mode & 07777))
        r = inode_setattr(i, &s);
    return r != 0 ? r : acl_write(i, ACL_ACCESS, NULL);
}

static int acl_set_parsed(const struct vfs_caller *c, struct inode *i, const char *name,
                          struct acl *a)
{
    const bool access = strcmp(name, ACL_ACCESS) == 0;

    if (i->ops->setxattr == NULL || S_ISLNK(i->mode))
        return -EOPNOTSUPP;
    if (!access && !S_ISDIR(i->mode))
        return a != NULL ? -EACCES : 0;
    if (c->cred->fsuid != i->uid && !cred_file_capable(c->cred, i->uid, i->gid, CAP_FOWNER))
        return -EPERM;
    if (a != NULL && !acl_valid(a))
        return -EINVAL;
    mutex_lock(&i->dir_mu);
    int r = access ? acl_set_access(c, i, a) : acl_write(i, name, a);
    mutex_unlock(&i->dir_mu);
    return r;
}

int acl_set(const struct vfs_caller *c, struct inode *i, const char *name, const void *value,
            size_t size)
{
    struct acl *a = NULL;
    int r = value != NULL && size > 0 ? acl_parse(value, size, &a) : 0;

    if (r == 0 && a != NULL)
        r = acl_map_ids(c->cred, a, true);
    if (r == 0)
        r = acl_set_parsed(c, i, name, a);
    free(a);
    return r;
}

/* ---- inherited ---- */

/* What is to be made, and what it has from the start. */
struct acl_birth {
    uint32_t mode;
    struct acl *access, *dflt; /* owned, or NULL */
};

static int acl_inherit(const struct vfs_caller *c, struct inode *dir, struct acl_birth *b)
{
    struct acl *a;
    int r = acl_read(dir, ACL_DEFAULT, &a);

    if (r != 0)
        return r;
    if (a == NULL) {
        b->mode &= ~c->umask | S_IFMT;
        return 0;
    }
    if (S_ISDIR(b->mode)) {
        b->dflt = acl_new(a->count);
        if (b->dflt == NULL) {
            free(a);
            return -ENOMEM;
        }
        memcpy(&b->dflt->version, &a->version, acl_size(a));
    }
    b->mode &= ~0777u | acl_mode(a);
    acl_set_mode(a, b->mode);
    if (acl_is_mode(a))
        free(a);
    else
        b->access = a;
    return 0;
}

static int acl_give(struct inode *i, const struct acl_birth *b)
{
    int r = 0;

    if (b->access != NULL) {
        const struct vfs_setattr s = {.valid = VFS_SET_MODE,
                                      .mode = (i->mode & 07000) | (b->mode & 0777)};
        r = acl_write(i, ACL_ACCESS, b->access);
        /* A kind of file that the file system gives no attributes. */
        if (r == -EPERM && !S_ISREG(i->mode) && !S_ISDIR(i->mode))
            r = 0;
        if (r == 0)
            r = inode_setattr(i, &s);
    }
    return r == 0 && b->dflt != NULL ? acl_write(i, ACL_DEFAULT, b->dflt) : r;
}

static int acl_make(const struct vfs_caller *c, struct inode *dir, const char *name, uint32_t mode,
                    uint64_t rdev, struct inode **out)
{
    return name != NULL ? dir->ops->create(dir, name, mode, rdev, c, out)
                        : dir->ops->tmpfile(dir, mode, c, out);
}

int acl_create(const struct vfs_caller *c, struct inode *dir, const char *name, uint32_t mode,
               uint64_t rdev, struct inode **out)
{
    struct acl_birth b = {.mode = mode};
    struct inode *i;
    int r = acl_inherit(c, dir, &b);

    if (r != 0)
        return r;
    /* The group's bits are the mask's: not before there is a list. */
    r = acl_make(c, dir, name, b.access != NULL ? b.mode & ~0070u : b.mode, rdev, &i);
    if (r == 0 && b.access == NULL && b.dflt == NULL) {
        atomic_store_explicit(&i->acl_state, ACL_NO_ACCESS | ACL_NO_DEFAULT, memory_order_relaxed);
    } else if (r == 0) {
        r = acl_give(i, &b);
        if (r != 0) {
            if (name != NULL)
                dir_unmake(dir, name, i);
            inode_put(i);
        }
    }
    free(b.access);
    free(b.dflt);
    if (r == 0)
        *out = i;
    return r;
}
