/* `hooks`. */
#include "runsc/spec_json.h"

#define HOOKS_MAX 256u
#define HOOK_TIMEOUT_MAX (24 * 3600)

static int spec_parse_hook(const struct jnode *n, struct oci_hook *out)
{
    struct jnode path = jn_member(n, "path"), args = jn_member(n, "args");
    struct jnode env = jn_member(n, "env"), timeout = jn_member(n, "timeout");
    int64_t seconds = 0;

    if (jn_check_object(n) != 0 || jn_need(&path) != 0 || jn_abs_path(&path, &out->path) != 0 ||
        jn_strings(&args, &out->args) != 0 || jn_strings(&env, &out->env) != 0 ||
        jn_int(&timeout, 1, HOOK_TIMEOUT_MAX, &seconds) != 0)
        return -1;
    out->timeout_s = (unsigned int)seconds;
    return 0;
}

static int spec_parse_hook_list(const struct jnode *n, struct oci_hook_list *out)
{
    size_t count = jn_count(n);

    if (jn_check_array(n) != 0)
        return -1;
    if (count > HOOKS_MAX)
        return jn_error(n, "more than %u entries", HOOKS_MAX);
    out->v = spec_alloc(n->ctx, count + 1, sizeof(*out->v));
    if (out->v == NULL)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct jnode item = jn_element(n, i);

        if (spec_parse_hook(&item, &out->v[i]) != 0)
            return -1;
    }
    out->count = count;
    return 0;
}

int spec_parse_hooks(const struct jnode *n, struct oci_hooks *out)
{
    const struct {
        const char *key;
        struct oci_hook_list *list;
    } lists[] = {
        {"prestart", &out->prestart},
        {"createRuntime", &out->create_runtime},
        {"createContainer", &out->create_container},
        {"startContainer", &out->start_container},
        {"poststart", &out->poststart},
        {"poststop", &out->poststop},
    };

    if (jn_check_object(n) != 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        struct jnode m = jn_member(n, lists[i].key);

        if (spec_parse_hook_list(&m, lists[i].list) != 0)
            return -1;
    }
    return 0;
}
