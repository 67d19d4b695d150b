/* The `linux` object. */
#include <string.h>
#include <sys/personality.h>

#include "runsc/spec_json.h"

/* user_namespaces(7): a map file holds at most 340 lines. */
#define ID_MAPS_MAX 340u
#define DEVICES_MAX 4096u

static const char *const ns_names[OCI_NS_COUNT] = {
    [OCI_NS_PID] = "pid",       [OCI_NS_NETWORK] = "network", [OCI_NS_MOUNT] = "mount",
    [OCI_NS_IPC] = "ipc",       [OCI_NS_UTS] = "uts",         [OCI_NS_USER] = "user",
    [OCI_NS_CGROUP] = "cgroup", [OCI_NS_TIME] = "time",
};

static int spec_parse_namespace(const struct jnode *n, struct oci_namespaces *out)
{
    struct jnode type = jn_member(n, "type"), path = jn_member(n, "path");
    const char *name = NULL, *file = NULL;
    size_t i;

    if (jn_check_object(n) != 0 || jn_need(&type) != 0 || jn_string(&type, &name) != 0 ||
        jn_string(&path, &file) != 0)
        return -1;
    for (i = 0; i < OCI_NS_COUNT; i++)
        if (strcmp(ns_names[i], name) == 0)
            break;
    if (i == OCI_NS_COUNT)
        return jn_error(&type, "unknown \"%.64s\"", name);
    if (out->listed[i])
        return jn_error(&type, "\"%s\" is named twice", name);
    if (file != NULL && file[0] != '\0') {
        if (file[0] != '/')
            return jn_error(&path, "\"%.200s\" is not an absolute path", file);
        out->path[i] = file;
    }
    out->listed[i] = true;
    return 0;
}

static int spec_parse_namespaces(const struct jnode *n, struct oci_namespaces *out)
{
    if (jn_check_array(n) != 0)
        return -1;
    for (size_t i = 0; i < jn_count(n); i++) {
        struct jnode item = jn_element(n, i);

        if (spec_parse_namespace(&item, out) != 0)
            return -1;
    }
    return 0;
}

static int spec_parse_id_map(const struct jnode *n, struct oci_id_map *out)
{
    struct jnode inside = jn_member(n, "containerID"), outside = jn_member(n, "hostID");
    struct jnode size = jn_member(n, "size");

    if (jn_check_object(n) != 0 || jn_u32(&inside, &out->container_id) != 0 ||
        jn_u32(&outside, &out->host_id) != 0 || jn_need(&size) != 0 ||
        jn_u32(&size, &out->size) != 0)
        return -1;
    if (out->size == 0)
        return jn_error(&size, "must not be 0");
    if (out->size > UINT32_MAX - out->container_id || out->size > UINT32_MAX - out->host_id)
        return jn_error(&size, "%u goes beyond the largest id", out->size);
    return 0;
}

static int spec_parse_id_maps(const struct jnode *n, struct oci_id_maps *out)
{
    size_t count = jn_count(n);

    if (jn_check_array(n) != 0)
        return -1;
    if (count > ID_MAPS_MAX)
        return jn_error(n, "more than %u entries", ID_MAPS_MAX);
    out->v = spec_alloc(n->ctx, count + 1, sizeof(*out->v));
    if (out->v == NULL)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct jnode item = jn_element(n, i);

        if (spec_parse_id_map(&item, &out->v[i]) != 0)
            return -1;
    }
    out->count = count;
    return 0;
}

static int spec_device_type(const struct jnode *n, const char *name, char *out)
{
    static const struct {
        const char *name;
        char type;
    } types[] = {{"c", 'c'}, {"u", 'c'}, {"b", 'b'}, {"p", 'p'}};

    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        if (strcmp(types[i].name, name) == 0) {
            *out = types[i].type;
            return 0;
        }
    return jn_error(n, "unknown \"%.64s\"", name);
}

static int spec_parse_device(const struct jnode *n, struct oci_device *out)
{
    struct jnode path = jn_member(n, "path"), type = jn_member(n, "type");
    struct jnode major = jn_member(n, "major"), minor = jn_member(n, "minor");
    struct jnode mode = jn_member(n, "fileMode"), uid = jn_member(n, "uid");
    struct jnode gid = jn_member(n, "gid");
    const char *type_name = NULL;
    int64_t bits = 0666;

    if (jn_check_object(n) != 0 || jn_need(&path) != 0 || jn_abs_path(&path, &out->path) != 0 ||
        jn_need(&type) != 0 || jn_string(&type, &type_name) != 0 ||
        spec_device_type(&type, type_name, &out->type) != 0)
        return -1;
    if (out->type != 'p' && (jn_need(&major) != 0 || jn_need(&minor) != 0))
        return -1;
    /* Some writers put the file type bits in as well. */
    if (jn_u32(&major, &out->major) != 0 || jn_u32(&minor, &out->minor) != 0 ||
        jn_int(&mode, 0, UINT32_MAX, &bits) != 0 || jn_u32(&uid, &out->uid) != 0 ||
        jn_u32(&gid, &out->gid) != 0)
        return -1;
    out->mode = (uint32_t)bits & 07777;
    return 0;
}

static int spec_parse_devices(const struct jnode *n, struct oci_linux *out)
{
    size_t count = jn_count(n);

    if (jn_check_array(n) != 0)
        return -1;
    if (count > DEVICES_MAX)
        return jn_error(n, "more than %u entries", DEVICES_MAX);
    out->devices = spec_alloc(n->ctx, count + 1, sizeof(*out->devices));
    if (out->devices == NULL)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct jnode item = jn_element(n, i);

        if (spec_parse_device(&item, &out->devices[i]) != 0)
            return -1;
    }
    out->device_count = count;
    return 0;
}

/* The value decides about confinement, so its shape is checked here, its rules when it becomes a
 * program. */
static int spec_parse_seccomp(const struct jnode *n, struct oci_linux *out)
{
    struct jnode action = jn_member(n, "defaultAction"), calls = jn_member(n, "syscalls");
    const char *name = NULL;

    if (n->v == NULL)
        return 0;
    if (jn_check_object(n) != 0 || jn_need(&action) != 0 || jn_string(&action, &name) != 0 ||
        jn_check_array(&calls) != 0)
        return -1;
    out->seccomp = n->v;
    return 0;
}

static int spec_parse_cgroups_path(const struct jnode *n, struct oci_linux *out)
{
    const char *path = NULL;
    const char *part;

    if (jn_string(n, &path) != 0)
        return -1;
    if (path == NULL || path[0] == '\0')
        return 0;
    for (part = path; part != NULL; part = strchr(part, '/')) {
        part += strspn(part, "/");
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
            return jn_error(n, "must not contain \"..\"");
    }
    out->cgroups_path = path;
    return 0;
}

/* A kernel of its own has namespaces of its own: those of the host that it can be put into are the
 * network, and, of a pod, what its sandbox has. */
static int spec_check_namespaces(const struct jnode *n, const struct oci_linux *lx)
{
    static const enum oci_ns never[] = {OCI_NS_MOUNT, OCI_NS_USER, OCI_NS_CGROUP, OCI_NS_TIME};

    for (size_t i = 0; i < ARRAY_SIZE(never); i++)
        if (lx->ns.path[never[i]] != NULL)
            return jn_error(n, "a sandbox cannot join the host's %s namespace %.200s",
                            ns_names[never[i]], lx->ns.path[never[i]]);
    if (lx->ns.listed[OCI_NS_USER] && (lx->uid_maps.count == 0 || lx->gid_maps.count == 0))
        return jn_error(n, "a user namespace needs uidMappings and gidMappings");
    return 0;
}

/* Whether clocks can show that is seen when the namespace is made. */
static int spec_parse_offset(const struct jnode *n, const struct oci_linux *lx,
                             struct oci_time_offset *out)
{
    struct jnode secs = jn_member(n, "secs"), rest = jn_member(n, "nanosecs");

    if (jn_check_object(n) != 0 || jn_int(&secs, INT64_MIN, INT64_MAX, &out->secs) != 0 ||
        jn_u32(&rest, &out->nanosecs) != 0)
        return -1;
    if (out->nanosecs >= 1000000000)
        return jn_error(&rest, "must be below 1000000000");
    if ((out->secs != 0 || out->nanosecs != 0) && !lx->ns.listed[OCI_NS_TIME])
        return jn_error(n, "offsets need a time namespace");
    return 0;
}

static int spec_parse_offsets(const struct jnode *n, struct oci_linux *out)
{
    struct jnode mono = jn_member(n, "monotonic"), boot = jn_member(n, "boottime");

    if (jn_check_object(n) != 0 || spec_parse_offset(&mono, out, &out->monotonic) != 0)
        return -1;
    return spec_parse_offset(&boot, out, &out->boottime);
}

static int spec_parse_personality(const struct jnode *n, uint32_t *out)
{
    struct jnode domain = jn_member(n, "domain"), flags = jn_member(n, "flags");
    const char *name = NULL;

    if (jn_check_object(n) != 0 || n->v == NULL)
        return n->v == NULL ? 0 : -1;
    if (jn_need(&domain) != 0 || jn_string(&domain, &name) != 0 || jn_check_array(&flags) != 0)
        return -1;
    if (jn_count(&flags) > 0)
        return jn_error(&flags, "no flag of a personality is supported");
    if (strcmp(name, "LINUX32") == 0)
        *out = PER_LINUX32;
    else if (strcmp(name, "LINUX") != 0)
        return jn_error(&domain, "unknown \"%.64s\"", name);
    return 0;
}

/* The specification wants an error from who cannot do it. */
static int spec_refuse_rdt(const struct jnode *n)
{
    if (jn_check_object(n) != 0)
        return -1;
    return json_object_size(n->v) == 0 ? 0 : jn_error(n, "Intel RDT is not supported");
}

int spec_parse_linux(const struct jnode *n, struct oci_linux *out)
{
    struct jnode ns = jn_member(n, "namespaces"), uids = jn_member(n, "uidMappings");
    struct jnode gids = jn_member(n, "gidMappings"), devices = jn_member(n, "devices");
    struct jnode cgroup = jn_member(n, "cgroupsPath"), res = jn_member(n, "resources");
    struct jnode masked = jn_member(n, "maskedPaths"), ro = jn_member(n, "readonlyPaths");
    struct jnode sysctl = jn_member(n, "sysctl"), seccomp = jn_member(n, "seccomp");
    struct jnode prop = jn_member(n, "rootfsPropagation"), time = jn_member(n, "timeOffsets");
    struct jnode persona = jn_member(n, "personality"), rdt = jn_member(n, "intelRdt");

    if (jn_check_object(n) != 0 || spec_parse_namespaces(&ns, &out->ns) != 0 ||
        spec_parse_id_maps(&uids, &out->uid_maps) != 0 ||
        spec_parse_id_maps(&gids, &out->gid_maps) != 0 || spec_check_namespaces(&ns, out) != 0 ||
        spec_parse_offsets(&time, out) != 0 ||
        spec_parse_personality(&persona, &out->personality) != 0 || spec_refuse_rdt(&rdt) != 0 ||
        spec_parse_devices(&devices, out) != 0 || spec_parse_cgroups_path(&cgroup, out) != 0 ||
        spec_parse_resources(&res, &out->resources) != 0 ||
        jn_abs_paths(&masked, &out->masked_paths) != 0 ||
        jn_abs_paths(&ro, &out->readonly_paths) != 0 || jn_pairs(&sysctl, &out->sysctl) != 0 ||
        spec_parse_seccomp(&seccomp, out) != 0)
        return -1;
    return spec_parse_propagation(&prop, &out->rootfs_propagation);
}
