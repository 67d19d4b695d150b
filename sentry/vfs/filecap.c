/* File capabilities (security/commoncap.c): the attribute as it is stored, shown and obeyed. */
#include "sentry/vfs/filecap.h"

#include <endian.h>
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/stat.h>

#include "sentry/cred/user_ns.h"
#include "sentry/vfs/vfs_priv.h"

#define FILECAP_KNOWN ((UINT64_C(1) << (CAP_LAST_CAP + 1)) - 1)

/* struct vfs_ns_cap_data; the first version has one pair of words, the second no root. */
struct filecap_disk {
    uint32_t magic;
    struct {
        uint32_t permitted, inheritable;
    } data[2];
    uint32_t root;
};
_Static_assert(sizeof(struct filecap_disk) == FILECAP_SIZE_MAX, "struct vfs_ns_cap_data");

/* The version of size bytes in *d, 0 when it is none. */
static uint32_t filecap_version(const struct filecap_disk *d, size_t size)
{
    const uint32_t version =
        size < sizeof(d->magic) ? 0 : le32toh(d->magic) & VFS_CAP_REVISION_MASK;

    switch (version) {
    case VFS_CAP_REVISION_1:
        return size == XATTR_CAPS_SZ_1 ? version : 0;
    case VFS_CAP_REVISION_2:
        return size == XATTR_CAPS_SZ_2 ? version : 0;
    case VFS_CAP_REVISION_3:
        return size == XATTR_CAPS_SZ_3 ? version : 0;
    default:
        return 0;
    }
}

/* Root of the namespaces in which the attribute counts, an id of the sandbox. */
static uint32_t filecap_root(const struct filecap_disk *d, uint32_t version)
{
    return version == VFS_CAP_REVISION_3 ? le32toh(d->root) : 0;
}

static bool root_owns(const struct user_ns *ns, uint32_t root)
{
    for (; ns != NULL; ns = ns->parent)
        if (user_ns_out(ns, USER_NS_UID, root) == 0)
            return true;
    return root == 0;
}

static void filecap_set_version(struct filecap_disk *d, uint32_t version, uint32_t root)
{
    d->magic = htole32((le32toh(d->magic) & VFS_CAP_FLAGS_EFFECTIVE) | version);
    d->root = htole32(root);
}

int64_t filecap_store(const struct cred *c, const void *value, size_t size,
                      uint8_t out[FILECAP_SIZE_MAX])
{
    struct filecap_disk d = {0};

    if (size > sizeof(d))
        return -EINVAL;
    /* An empty value is stored as it is, and no program with it runs. */
    if (size == 0)
        return 0;
    memcpy(&d, value, size);
    const uint32_t version = filecap_version(&d, size);
    if (version != VFS_CAP_REVISION_2 && version != VFS_CAP_REVISION_3)
        return -EINVAL;
    if (version == VFS_CAP_REVISION_3 || !cred_ns_capable(c, NULL, CAP_SETFCAP)) {
        const uint32_t root = user_ns_in(c->user_ns, USER_NS_UID, filecap_root(&d, version));
        if (root == USER_NS_NONE)
            return -EINVAL;
        filecap_set_version(&d, VFS_CAP_REVISION_3, root);
        size = XATTR_CAPS_SZ_3;
    }
    memcpy(out, &d, size);
    return (int64_t)size;
}

int64_t filecap_show(const struct cred *c, const uint8_t *value, size_t size,
                     uint8_t out[FILECAP_SIZE_MAX])
{
    struct filecap_disk d = {0};

    memcpy(&d, value, MIN(size, sizeof(d)));
    const uint32_t version = filecap_version(&d, size);
    if (version != VFS_CAP_REVISION_2 && version != VFS_CAP_REVISION_3)
        return -EINVAL;
    const uint32_t root = filecap_root(&d, version);
    const uint32_t shown = user_ns_out(c->user_ns, USER_NS_UID, root);
    size = XATTR_CAPS_SZ_3;
    if (shown != USER_NS_NONE && shown != 0) {
        filecap_set_version(&d, VFS_CAP_REVISION_3, shown);
    } else if (root_owns(c->user_ns, root)) {
        filecap_set_version(&d, VFS_CAP_REVISION_2, 0);
        size = XATTR_CAPS_SZ_2;
    } else {
        return -EOVERFLOW;
    }
    memcpy(out, &d, size);
    return (int64_t)size;
}

/* The attribute's bytes, 0 when there is none. */
static int64_t filecap_read(struct inode *i, struct filecap_disk *d)
{
    if (i->ops->getxattr == NULL)
        return 0;
    const int64_t n = i->ops->getxattr(i, FILECAP_NAME, d, sizeof(*d));
    if (n == -ENODATA || n == -EOPNOTSUPP) {
        atomic_store_explicit(&i->no_filecaps, true, memory_order_relaxed);
        return 0;
    }
    /* Longer or shorter than any version. */
    return n == -ERANGE || n == 0 ? -EINVAL : n;
}

int vfs_file_caps(const struct vfs_caller *c, struct inode *i, struct cred_file_caps *out)
{
    struct filecap_disk d = {0};

    /* Others may have set it where a file system is shared. */
    if (atomic_load_explicit(&i->no_filecaps, memory_order_relaxed) && !i->sb->ops->revalidate)
        return 0;
    const int64_t n = filecap_read(i, &d);
    if (n <= 0)
        return (int)n;
    const uint32_t version = filecap_version(&d, (size_t)n);
    if (version == 0)
        return -EINVAL;
    if (!root_owns(c->cred->user_ns, filecap_root(&d, version)))
        return 0;
    const bool wide = version != VFS_CAP_REVISION_1;
    out->permitted = le32toh(d.data[0].permitted);
    out->inheritable = le32toh(d.data[0].inheritable);
    if (wide) {
        out->permitted |= (uint64_t)le32toh(d.data[1].permitted) << 32;
        out->inheritable |= (uint64_t)le32toh(d.data[1].inheritable) << 32;
    }
    out->permitted &= FILECAP_KNOWN;
    out->inheritable &= FILECAP_KNOWN;
    out->effective = (le32toh(d.magic) & VFS_CAP_FLAGS_EFFECTIVE) != 0;
    return 1;
}

/* cap_inode_need_killpriv: what cannot be asked for is not there. */
int filecap_kill(struct inode *i)
{
    if (!S_ISREG(i->mode) || i->ops->removexattr == NULL)
        return 0;
    if (i->ops->getxattr == NULL || i->ops->getxattr(i, FILECAP_NAME, NULL, 0) <= 0) {
        atomic_store_explicit(&i->no_filecaps, true, memory_order_relaxed);
        return 0;
    }
    const int r = i->ops->removexattr(i, FILECAP_NAME);
    return r == -ENODATA ? 0 : r;
}
