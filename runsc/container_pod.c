/* Which sandbox a container belongs to: what Kubernetes' runtimes say in annotations. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runsc/container.h"

static const struct {
    const char *type, *sandbox;
} pod_keys[] = {
    {"io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"},
    {"io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"},
};

/* The container whose process the path /proc/PID/ns/pid is about, if it is one of sandbox's or that
 * itself. Owned. */
static char *pod_find_process(const struct cmd_global *g, const char *sandbox, const char *path)
{
    char **ids = NULL, *found = NULL;
    size_t count = 0;
    int pid, end = 0;
    struct err e;

    if (sscanf(path, "/proc/%d/ns/pid%n", &pid, &end) != 1 || end == 0 || path[end] != '\0' ||
        state_list(g->root, &ids, &count, &e) != 0)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        struct state st;
        if (found == NULL && state_load(g->root, ids[i], &st, &e) == 0) {
            const char *of = st.sandbox != NULL ? st.sandbox : st.id;
            if (st.sentry.pid == pid && strcmp(of, sandbox) == 0 && state_process_alive(&st.sentry))
                found = strdup(st.id);
            state_fini(&st);
        }
        free(ids[i]);
    }
    free(ids);
    return found;
}

int container_find_pid_ns(const struct cmd_global *g, const struct oci_spec *spec,
                          const struct state *st, char **out_id, struct err *e)
{
    static const enum oci_ns own[] = {OCI_NS_PID, OCI_NS_IPC, OCI_NS_UTS};
    const struct oci_namespaces *ns = &spec->lx.ns;

    *out_id = NULL;
    for (size_t i = 0; st->sandbox == NULL && i < ARRAY_SIZE(own); i++)
        if (ns->path[own[i]] != NULL)
            return err_set(e, EINVAL,
                           "config.json: linux.namespaces: %.200s: only a container of a pod can "
                           "join it, and only that of its sandbox",
                           ns->path[own[i]]);
    if (st->sandbox == NULL || ns->path[OCI_NS_PID] == NULL)
        return 0;
    *out_id = pod_find_process(g, st->sandbox, ns->path[OCI_NS_PID]);
    if (*out_id == NULL)
        return err_set(e, EINVAL,
                       "config.json: linux.namespaces: %.200s is no container of sandbox \"%s\"",
                       ns->path[OCI_NS_PID], st->sandbox);
    return 0;
}

int container_find_sandbox(const struct cmd_global *g, struct container *c, struct err *e)
{
    const struct oci_spec *spec = c->spec;
    struct state *st = &c->st, owner;

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
        c->peer_fd = alive ? state_process_open(&owner.gofer) : -1;
        state_fini(&owner);
        if (!alive)
            return err_set(e, ESRCH, "sandbox \"%s\" is not running", id);
        st->sandbox = strdup(id);
        return st->sandbox != NULL ? 0 : err_set(e, ENOMEM, "out of memory");
    }
    return 0;
}
