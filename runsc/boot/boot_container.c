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
#include "sentry/kernel/account.h"
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
    boot_space_fini(ct);
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

static int join_refuse(struct boot_container *ct, const struct boot_joiner *j, struct boot_text *t)
{
    struct guest_seccomp unused = j->seccomp;

    join_close(j->gofer_fds, j->gofer_count);
    join_close(j->stdio, 3);
    spec_free(j->spec);
    guest_seccomp_free(&unused);
    if (ct)
        join_free(ct);
    return boot_say(t, -EEXIST, "no room for container \"%.128s\", or it is there already", j->id);
}

static int join_space(struct boot *b, struct boot_container *ct, const char *pid_like,
                      struct boot_text *t)
{
    const struct boot_container *like = pid_like ? boot_find(b, pid_like) : NULL;

    if (pid_like && !like)
        return boot_say(t, -ESRCH, "container \"%.128s\", whose pid namespace is to be shared",
                        pid_like);
    return boot_space(b, ct, like, t);
}

/* Descriptors of the gofer are taken, on failure too. */
static int join_build(struct boot *b, struct boot_container *ct, const struct boot_joiner *j,
                      struct boot_text *t)
{
    int r = gof_client_new(j->gofer_fds, j->gofer_count, &ct->gofer);

    if (r) {
        join_close(j->gofer_fds, j->gofer_count);
        return boot_say(t, r, "gofer");
    }
    r = join_space(b, ct, j->pid_like, t);
    if (!r)
        r = boot_mounts(b, ct, t);
    if (!r)
        r = boot_sysctls(b, ct, t);
    return r;
}

int boot_join(struct boot *b, const struct boot_joiner *j, struct boot_container **out_ct,
              struct boot_text *t)
{
    struct boot_container *ct = calloc(1, sizeof(*ct));

    if (!ct || !(ct->id = strdup(j->id)) || join_count(b) >= BOOT_CONTAINERS_MAX ||
        boot_find(b, j->id))
        return join_refuse(ct, j, t);
    ct->spec = ct->joined_spec = j->spec;
    ct->seccomp = j->seccomp;
    ct->init.boot = b;
    int r = join_build(b, ct, j, t);
    if (r)
        join_close(j->stdio, 3);
    else
        r = boot_load(b, ct, &j->spec->process, NULL, j->stdio, &ct->init, t);
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
    return account_owns(ct->account, task);
}

int boot_kill_all(struct boot_container *ct, int sig)
{
    return account_kill(ct->account, sig);
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
