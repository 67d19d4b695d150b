/* Containers of a pod: each has its own files, gofer and init; kernel and network are the
 * sandbox's. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "gofer/proto/client.h"
#include "runsc/boot/boot_priv.h"
#include "sentry/kernel/inspect.h"

struct boot_container *boot_find(struct boot *b, const char *id)
{
    struct boot_container *ct;

    if (!id)
        return &b->root;
    list_for_each_entry (ct, &b->containers, node)
        if (strcmp(ct->id, id) == 0)
            return ct;
    return NULL;
}

static size_t join_count(const struct boot *b)
{
    const struct boot_container *ct;
    size_t n = 0;

    list_for_each_entry (ct, &b->containers, node)
        n++;
    return n;
}

static void join_free(struct boot_container *ct)
{
    if (ct->ns)
        mount_ns_put(ct->ns);
    gof_client_put(ct->gofer);
    spec_free(ct->joined_spec);
    guest_seccomp_free(&ct->seccomp);
    free(ct->id);
    free(ct);
}

static void join_close(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        (void)close(fds[i]);
}

static int join_gofer(struct boot_container *ct, const int *fds, size_t count, struct boot_text *t)
{
    int r = gof_client_new(fds, count, &ct->gofer);

    if (r) {
        join_close(fds, count);
        return boot_say(t, r, "gofer");
    }
    return 0;
}

int boot_join(struct boot *b, const char *id, struct oci_spec *spec,
              const struct guest_seccomp *seccomp, const int stdio[3], const int *gofer_fds,
              size_t count, struct boot_container **out_ct, struct boot_text *t)
{
    struct boot_container *ct = calloc(1, sizeof(*ct));
    int r;

    if (!ct || !(ct->id = strdup(id)) || join_count(b) >= BOOT_CONTAINERS_MAX || boot_find(b, id)) {
        join_close(gofer_fds, count);
        join_close(stdio, 3);
        spec_free(spec);
        struct guest_seccomp unused = *seccomp;
        guest_seccomp_free(&unused);
        if (ct)
            join_free(ct);
        return boot_say(t, -EEXIST, "no room for container \"%.128s\", or it is there already", id);
    }
    ct->spec = ct->joined_spec = spec;
    ct->seccomp = *seccomp;
    ct->init.boot = b;
    r = join_gofer(ct, gofer_fds, count, t);
    if (!r)
        r = boot_mounts(b, ct, t);
    if (!r)
        r = boot_sysctls(b, ct, t);
    if (r) {
        join_close(stdio, 3);
        join_free(ct);
        return r;
    }
    r = boot_load(b, ct, &spec->process, NULL, stdio, &ct->init, t);
    if (r) {
        join_free(ct);
        return r;
    }
    list_add_tail(&ct->node, &b->containers);
    *out_ct = ct;
    return 0;
}

bool boot_owns(struct boot_container *ct, struct task *task)
{
    struct mount_ns *ns = task_get_mount_ns(task);
    bool own = ns == ct->ns;

    if (ns)
        mount_ns_put(ns);
    return own;
}

int boot_kill_all(struct boot_container *ct, int sig)
{
    struct kernel *k = ct->init.boot->k;
    struct task *t;
    int32_t pid = 1;
    int r = -ESRCH;

    for (; (pid = kernel_next_tgid(k, pid)) > 0; pid++) {
        if (kernel_find_task(k, pid, false, &t))
            continue;
        if (boot_owns(ct, t) && kernel_kill(k, pid, sig, false) == 0)
            r = 0;
        task_put(t);
    }
    return r;
}

void boot_kill(struct boot_container *ct)
{
    if (boot_kill_all(ct, SIGKILL))
        log_debug("container %s has ended by itself", ct->id);
}

void boot_leave(struct boot_container *ct)
{
    boot_kill(ct);
    boot_process_fini(&ct->init);
    list_del(&ct->node);
    join_free(ct);
}
