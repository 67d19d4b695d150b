/* Which sandbox a container belongs to: what Kubernetes' runtimes say in annotations. */
#include <errno.h>
#include <string.h>

#include "runsc/container.h"

static const struct {
    const char *type, *sandbox;
} pod_keys[] = {
    {"io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"},
    {"io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"},
};

int container_find_sandbox(const struct cmd_global *g, const struct oci_spec *spec,
                           struct state *st, struct err *e)
{
    struct state owner;

    for (size_t i = 0; i < ARRAY_SIZE(pod_keys); i++) {
        const char *type = spec_annotation(spec, pod_keys[i].type);
        const char *id = spec_annotation(spec, pod_keys[i].sandbox);
        if (type == NULL || strcmp(type, "container") != 0)
            continue;
        if (id == NULL)
            return err_set(e, EINVAL, "config.json: annotation %s is missing", pod_keys[i].sandbox);
        if (state_load(g->root, id, &owner, e) != 0)
            return err_wrap(e, "the container's sandbox");
        bool alive = owner.sandbox == NULL && state_process_alive(&owner.sentry);
        state_fini(&owner);
        if (!alive)
            return err_set(e, ESRCH, "sandbox \"%s\" is not running", id);
        st->sandbox = strdup(id);
        return st->sandbox != NULL ? 0 : err_set(e, ENOMEM, "out of memory");
    }
    return 0;
}
