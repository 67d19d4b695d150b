/* `mounts` and their options, as mount(8) and runc understand them. */
#include <string.h>
#include <sys/mount.h>

#include "runsc/spec_json.h"

#ifndef MS_LAZYTIME
#define MS_LAZYTIME (1 << 25)
#endif

/* Fewer than a kernel would take (fs.mount-max is 100000) and more than any real bundle has. */
#define MOUNTS_MAX 4096u

/* OPT_NAME: known by its name alone. A bind mount is one mount here, with all that is mounted below
 * it on the host: what is said of it holds for all of that anyway. */
enum opt_kind { OPT_SET, OPT_CLEAR, OPT_PROPAGATION, OPT_NAME };

static const struct {
    const char *name;
    enum opt_kind kind;
    uint64_t flags;
} mount_options[] = {
    {"acl", OPT_SET, MS_POSIXACL},
    {"async", OPT_CLEAR, MS_SYNCHRONOUS},
    {"atime", OPT_CLEAR, MS_NOATIME},
    {"bind", OPT_SET, MS_BIND},
    {"defaults", OPT_SET, 0},
    {"dev", OPT_CLEAR, MS_NODEV},
    {"diratime", OPT_CLEAR, MS_NODIRATIME},
    {"dirsync", OPT_SET, MS_DIRSYNC},
    {"exec", OPT_CLEAR, MS_NOEXEC},
    {"iversion", OPT_SET, MS_I_VERSION},
    {"lazytime", OPT_SET, MS_LAZYTIME},
    {"loud", OPT_CLEAR, MS_SILENT},
    {"mand", OPT_SET, MS_MANDLOCK},
    {"noacl", OPT_CLEAR, MS_POSIXACL},
    {"noatime", OPT_SET, MS_NOATIME},
    {"nodev", OPT_SET, MS_NODEV},
    {"nodiratime", OPT_SET, MS_NODIRATIME},
    {"noexec", OPT_SET, MS_NOEXEC},
    {"noiversion", OPT_CLEAR, MS_I_VERSION},
    {"nolazytime", OPT_CLEAR, MS_LAZYTIME},
    {"nomand", OPT_CLEAR, MS_MANDLOCK},
    {"norelatime", OPT_CLEAR, MS_RELATIME},
    {"nostrictatime", OPT_CLEAR, MS_STRICTATIME},
    {"nosuid", OPT_SET, MS_NOSUID},
    {"private", OPT_PROPAGATION, MS_PRIVATE},
    {"ratime", OPT_CLEAR, MS_NOATIME},
    {"rbind", OPT_SET, MS_BIND | MS_REC},
    {"rdev", OPT_CLEAR, MS_NODEV},
    {"rdiratime", OPT_CLEAR, MS_NODIRATIME},
    {"relatime", OPT_SET, MS_RELATIME},
    {"remount", OPT_SET, MS_REMOUNT},
    {"rexec", OPT_CLEAR, MS_NOEXEC},
    {"rnoatime", OPT_SET, MS_NOATIME},
    {"rnodev", OPT_SET, MS_NODEV},
    {"rnodiratime", OPT_SET, MS_NODIRATIME},
    {"rnoexec", OPT_SET, MS_NOEXEC},
    {"rnorelatime", OPT_CLEAR, MS_RELATIME},
    {"rnostrictatime", OPT_CLEAR, MS_STRICTATIME},
    {"rnosuid", OPT_SET, MS_NOSUID},
    {"ro", OPT_SET, MS_RDONLY},
    {"rprivate", OPT_PROPAGATION, MS_PRIVATE | MS_REC},
    {"rrelatime", OPT_SET, MS_RELATIME},
    {"rro", OPT_SET, MS_RDONLY},
    {"rrw", OPT_CLEAR, MS_RDONLY},
    {"rshared", OPT_PROPAGATION, MS_SHARED | MS_REC},
    {"rslave", OPT_PROPAGATION, MS_SLAVE | MS_REC},
    {"rstrictatime", OPT_SET, MS_STRICTATIME},
    {"rsuid", OPT_CLEAR, MS_NOSUID},
    {"runbindable", OPT_PROPAGATION, MS_UNBINDABLE | MS_REC},
    {"rw", OPT_CLEAR, MS_RDONLY},
    {"shared", OPT_PROPAGATION, MS_SHARED},
    {"silent", OPT_SET, MS_SILENT},
    {"slave", OPT_PROPAGATION, MS_SLAVE},
    {"strictatime", OPT_SET, MS_STRICTATIME},
    {"suid", OPT_CLEAR, MS_NOSUID},
    {"sync", OPT_SET, MS_SYNCHRONOUS},
    {"tmpcopyup", OPT_NAME, 0},
    {"unbindable", OPT_PROPAGATION, MS_UNBINDABLE},
};

const char *spec_mount_option_name(size_t index)
{
    return index < ARRAY_SIZE(mount_options) ? mount_options[index].name : NULL;
}

/* False when the option is none of mount(2)'s own. Later options win over earlier ones. */
static bool spec_mount_option(struct oci_mount *m, const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(mount_options); i++) {
        uint64_t flags = mount_options[i].flags;

        if (strcmp(mount_options[i].name, name) != 0)
            continue;
        switch (mount_options[i].kind) {
        case OPT_SET:
            m->flags |= flags;
            m->clear_flags &= ~flags;
            break;
        case OPT_CLEAR:
            m->flags &= ~flags;
            m->clear_flags |= flags;
            break;
        case OPT_PROPAGATION:
            m->propagation = flags;
            break;
        case OPT_NAME:
            m->copy_up = true;
            break;
        }
        return true;
    }
    return false;
}

/* The gofer serves files with the ids that they have. */
static int spec_refuse_idmap(const struct jnode *n, const struct jnode *opts,
                             const struct oci_mount *m)
{
    static const char *const keys[] = {"uidMappings", "gidMappings"};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        struct jnode map = jn_member(n, keys[i]);
        if (jn_check_array(&map) != 0)
            return -1;
        if (jn_count(&map) > 0)
            return jn_error(&map, "mounts with mapped ids are not supported");
    }
    for (size_t i = 0; i < m->options.count; i++)
        if (strcmp(m->options.v[i], "idmap") == 0 || strcmp(m->options.v[i], "ridmap") == 0)
            return jn_error(opts, "mounts with mapped ids are not supported");
    return 0;
}

static int spec_parse_mount(const struct jnode *n, struct oci_mount *m)
{
    struct jnode dst = jn_member(n, "destination"), type = jn_member(n, "type");
    struct jnode src = jn_member(n, "source"), opts = jn_member(n, "options");

    if (jn_check_object(n) != 0 || jn_need(&dst) != 0 || jn_abs_path(&dst, &m->destination) != 0 ||
        jn_string(&type, &m->type) != 0 || jn_string(&src, &m->source) != 0 ||
        jn_strings(&opts, &m->options) != 0)
        return -1;
    if (spec_refuse_idmap(n, &opts, m) != 0)
        return -1;
    m->data.v = spec_alloc(n->ctx, m->options.count + 1, sizeof(*m->data.v));
    if (m->data.v == NULL)
        return -1;
    for (size_t i = 0; i < m->options.count; i++)
        if (!spec_mount_option(m, m->options.v[i]))
            m->data.v[m->data.count++] = m->options.v[i];
    /* The specification says type "none" or "bind" with a bind option; podman writes type alone. */
    if (m->type != NULL && strcmp(m->type, "bind") == 0)
        m->flags |= MS_BIND;
    if ((m->flags & MS_BIND) != 0 && (m->source == NULL || m->source[0] == '\0'))
        return jn_error(&src, "a bind mount needs one");
    if (m->copy_up && (m->type == NULL || strcmp(m->type, "tmpfs") != 0))
        return jn_error(&opts, "tmpcopyup is for tmpfs");
    if ((m->flags & MS_BIND) == 0 && (m->type == NULL || m->type[0] == '\0'))
        return jn_error(&type, "is missing");
    return 0;
}

int spec_parse_mounts(const struct jnode *n, struct oci_spec *spec)
{
    size_t count = jn_count(n);

    if (jn_check_array(n) != 0)
        return -1;
    if (count > MOUNTS_MAX)
        return jn_error(n, "more than %u entries", MOUNTS_MAX);
    spec->mounts = spec_alloc(n->ctx, count + 1, sizeof(*spec->mounts));
    if (spec->mounts == NULL)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct jnode item = jn_element(n, i);

        if (spec_parse_mount(&item, &spec->mounts[i]) != 0)
            return -1;
    }
    spec->mount_count = count;
    return 0;
}

int spec_parse_propagation(const struct jnode *n, uint64_t *out)
{
    const char *name = NULL;

    if (n->v == NULL)
        return 0;
    if (jn_string(n, &name) != 0)
        return -1;
    /* containerd writes "" for "not given". */
    if (name[0] == '\0')
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(mount_options); i++) {
        if (mount_options[i].kind != OPT_PROPAGATION || strcmp(mount_options[i].name, name) != 0)
            continue;
        *out = mount_options[i].flags;
        return 0;
    }
    return jn_error(n, "unknown \"%.64s\"", name);
}
