/* features: what this runtime can do, in the words of the runtime specification. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "runsc/cmd.h"
#include "runsc/sandbox/guest_seccomp.h"
#include "runsc/spec.h"

static json_t *features_list(const char *const *v, size_t count)
{
    json_t *out = json_array();

    for (size_t i = 0; i < count; i++)
        (void)json_array_append_new(out, json_string(v[i]));
    return out;
}

static json_t *features_options(void)
{
    json_t *out = json_array();
    const char *name;

    for (size_t i = 0; (name = spec_mount_option_name(i)) != NULL; i++)
        (void)json_array_append_new(out, json_string(name));
    return out;
}

static json_t *features_caps(void)
{
    json_t *out = json_array();
    const char *name;

    for (unsigned i = 0; (name = spec_cap_name(i)) != NULL; i++)
        (void)json_array_append_new(out, json_string(name));
    return out;
}

static json_t *features_words(enum guest_seccomp_word kind)
{
    json_t *out = json_array();
    const char *name;

    for (size_t i = 0; (name = guest_seccomp_word_name(kind, i)) != NULL; i++)
        (void)json_array_append_new(out, json_string(name));
    return out;
}

static json_t *features_seccomp(void)
{
    json_t *flags = features_words(GUEST_SECCOMP_FLAG);

    return json_pack(
        "{s:b,s:o,s:o,s:o,s:O,s:o}", "enabled", 1, "actions", features_words(GUEST_SECCOMP_ACTION),
        "operators", features_words(GUEST_SECCOMP_OPERATOR), "archs",
        features_words(GUEST_SECCOMP_ARCH), "knownFlags", flags, "supportedFlags", flags);
}

static json_t *features_linux(void)
{
    static const char *const namespaces[] = {"cgroup", "ipc",  "mount", "network",
                                             "pid",    "time", "user",  "uts"};
    json_t *off = json_pack("{s:b}", "enabled", 0);
    json_t *out =
        json_pack("{s:o,s:o,s:{s:b,s:b,s:b,s:b,s:b},s:o,s:O,s:O,s:O,s:{s:O}}", "namespaces",
                  features_list(namespaces, ARRAY_SIZE(namespaces)), "capabilities",
                  features_caps(), "cgroup", "v1", 1, "v2", 1, "systemd", 0, "systemdUser", 0,
                  "rdma", 0, "seccomp", features_seccomp(), "apparmor", off, "selinux", off,
                  "intelRdt", off, "mountExtensions", "idmap", off);

    json_decref(off);
    return out;
}

int cmd_features(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    static const char *const hooks[] = {"prestart",       "createRuntime", "createContainer",
                                        "startContainer", "poststart",     "poststop"};
    int first = cmd_parse(argc, argv, NULL, 0, e);

    (void)g;
    if (first < 0 || cmd_operands(argc, argv, first, 0, 0, e) != 0)
        return -1;
    json_t *doc = json_pack("{s:s,s:s,s:o,s:o,s:o}", "ociVersionMin", "1.0.0", "ociVersionMax",
                            SPEC_VERSION, "hooks", features_list(hooks, ARRAY_SIZE(hooks)),
                            "mountOptions", features_options(), "linux", features_linux());
    if (doc == NULL)
        return err_set(e, ENOMEM, "out of memory");
    (void)json_dumpf(doc, stdout, JSON_INDENT(2));
    (void)putchar('\n');
    json_decref(doc);
    return 0;
}
