#include "runsc/default_spec.h"

#include <jansson.h>
#include <string.h>

#include "base/compiler.h"
#include "runsc/spec.h"

static const struct {
    const char *destination, *type, *source, *options;
} default_mounts[] = {
    {"/proc", "proc", "proc", "nosuid noexec nodev"},
    {"/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"},
    {"/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"},
    {"/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"},
    {"/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"},
};

static const char *const default_caps[] = {
    "CAP_AUDIT_WRITE", "CAP_CHOWN",   "CAP_DAC_OVERRIDE",     "CAP_FOWNER",     "CAP_FSETID",
    "CAP_KILL",        "CAP_MKNOD",   "CAP_NET_BIND_SERVICE", "CAP_NET_RAW",    "CAP_SETFCAP",
    "CAP_SETGID",      "CAP_SETPCAP", "CAP_SETUID",           "CAP_SYS_CHROOT",
};

static const char *const default_namespaces[] = {"pid", "network", "ipc", "uts", "mount", "cgroup"};

static json_t *default_words(const char *text)
{
    json_t *out = json_array();

    while (*text != '\0') {
        size_t len = strcspn(text, " ");
        (void)json_array_append_new(out, json_stringn(text, len));
        text += len;
        while (*text == ' ')
            text++;
    }
    return out;
}

static json_t *default_strings(const char *const *v, size_t count)
{
    json_t *out = json_array();

    for (size_t i = 0; i < count; i++)
        (void)json_array_append_new(out, json_string(v[i]));
    return out;
}

static json_t *default_mount_list(void)
{
    json_t *out = json_array();

    for (size_t i = 0; i < ARRAY_SIZE(default_mounts); i++)
        (void)json_array_append_new(
            out, json_pack("{s:s,s:s,s:s,s:o}", "destination", default_mounts[i].destination,
                           "type", default_mounts[i].type, "source", default_mounts[i].source,
                           "options", default_words(default_mounts[i].options)));
    return out;
}

static json_t *default_capabilities(void)
{
    static const char *const sets[] = {"bounding", "effective", "permitted"};
    json_t *out = json_object();

    for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
        (void)json_object_set_new(out, sets[i],
                                  default_strings(default_caps, ARRAY_SIZE(default_caps)));
    return out;
}

static json_t *default_linux(void)
{
    json_t *ns = json_array();

    for (size_t i = 0; i < ARRAY_SIZE(default_namespaces); i++)
        (void)json_array_append_new(ns, json_pack("{s:s}", "type", default_namespaces[i]));
    return json_pack("{s:o}", "namespaces", ns);
}

json_t *default_spec(void)
{
    json_t *process =
        json_pack("{s:b,s:{s:i,s:i},s:[s],s:[s,s],s:s,s:o,s:[{s:s,s:i,s:i}],s:b}", "terminal", 1,
                  "user", "uid", 0, "gid", 0, "args", "sh", "env",
                  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm",
                  "cwd", "/", "capabilities", default_capabilities(), "rlimits", "type",
                  "RLIMIT_NOFILE", "hard", 1024, "soft", 1024, "noNewPrivileges", 1);

    return json_pack("{s:s,s:o,s:{s:s,s:b},s:s,s:o,s:o}", "ociVersion", SPEC_VERSION, "process",
                     process, "root", "path", "rootfs", "readonly", 1, "hostname", "ringwall",
                     "mounts", default_mount_list(), "linux", default_linux());
}

/* One id, the caller's, which is root inside. */
static json_t *default_map(uint32_t host_id)
{
    return json_pack("[{s:i,s:I,s:i}]", "containerID", 0, "hostID", (json_int_t)host_id, "size", 1);
}

void default_spec_rootless(json_t *doc, uint32_t uid, uint32_t gid)
{
    json_t *lx = json_object_get(doc, "linux");
    json_t *ns = json_object_get(lx, "namespaces");

    (void)json_array_append_new(ns, json_pack("{s:s}", "type", "user"));
    (void)json_object_set_new(lx, "uidMappings", default_map(uid));
    (void)json_object_set_new(lx, "gidMappings", default_map(gid));
}
