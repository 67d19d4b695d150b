/* What a container is to the kernel besides its files: an account, a pid and a user namespace. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runsc/boot/boot_priv.h"
#include "sentry/cred/user_ns.h"
#include "sentry/kernel/account.h"
#include "sentry/kernel/ns.h"

/* ---- user namespace ---- */

static int space_map(struct user_ns *ns, enum user_ns_map map, const struct oci_id_maps *from)
{
    struct user_ns_extent *v = calloc(from->count, sizeof(*v));

    if (v == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < from->count; i++)
        v[i] = (struct user_ns_extent){.inside = from->v[i].container_id,
                                       .outside = from->v[i].host_id,
                                       .count = from->v[i].size};
    int r = user_ns_set_map(ns, map, v, from->count);
    free(v);
    return r;
}

/* Root inside, whom everything that is made for the container belongs to. */
static int space_root(struct boot_container *ct)
{
    struct cred *c;
    int r = cred_new_root(~0ull, &c);

    if (r != 0)
        return r;
    if (ct->user_ns != NULL) {
        const uint32_t uid = user_ns_in(ct->user_ns, USER_NS_UID, 0);
        const uint32_t gid = user_ns_in(ct->user_ns, USER_NS_GID, 0);
        c->user_ns = user_ns_get(ct->user_ns);
        c->uid = c->euid = c->suid = c->fsuid = uid;
        c->gid = c->egid = c->sgid = c->fsgid = gid;
        if (uid == USER_NS_NONE || gid == USER_NS_NONE) {
            cred_put(c);
            return -EINVAL;
        }
    }
    ct->root = c;
    return 0;
}

static int space_user(struct boot *b, struct boot_container *ct)
{
    const struct oci_linux *lx = &ct->spec->lx;
    struct cred *maker;

    if (!lx->ns.listed[OCI_NS_USER])
        return space_root(ct);
    int r = cred_new_root(~0ull, &maker);
    if (r != 0)
        return r;
    r = user_ns_new(maker, kernel_new_ns_id(b->k), &ct->user_ns);
    cred_put(maker);
    if (r == 0)
        r = space_map(ct->user_ns, USER_NS_UID, &lx->uid_maps);
    if (r == 0)
        r = space_map(ct->user_ns, USER_NS_GID, &lx->gid_maps);
    return r == 0 ? space_root(ct) : r;
}

/* ---- pid namespace ---- */

static int space_pid(struct boot *b, struct boot_container *ct,
                     const struct boot_container *pid_like)
{
    const struct oci_namespaces *ns = &ct->spec->lx.ns;

    if (pid_like != NULL) {
        ct->pid_ns = pid_ns_get(pid_like->pid_ns);
        return 0;
    }
    if (ct == &b->root || !ns->listed[OCI_NS_PID] || ns->path[OCI_NS_PID] != NULL)
        return 0;
    return kernel_pid_ns_new(b->k, ct->user_ns, &ct->pid_ns);
}

int32_t boot_pid_in(const struct boot_container *ct, int32_t pid)
{
    return ct->pid_ns != NULL ? kernel_pid_in(ct->init.boot->k, ct->pid_ns, pid) : pid;
}

int32_t boot_pid_out(const struct boot_container *ct, int32_t pid)
{
    return ct->pid_ns != NULL ? kernel_pid_out(ct->init.boot->k, ct->pid_ns, pid) : pid;
}

/* ---- devices ---- */

/* What every container may do, whatever its rules: make nodes, and use the devices that the runtime
 * specification gives it. */
static const struct account_rule space_default_rules[] = {
    {true, true, true, -1, -1, ACCOUNT_DEV_MKNOD},
    {true, false, true, 1, 3, 7},
    {true, false, true, 1, 5, 7},
    {true, false, true, 1, 7, 7},
    {true, false, true, 1, 8, 7},
    {true, false, true, 1, 9, 7},
    {true, false, true, 5, 0, 7},
    {true, false, true, 5, 1, 7},
    {true, false, true, 5, 2, 7},
    {true, false, true, 136, -1, 7},
};

static int space_rules(struct boot_container *ct)
{
    const struct oci_resources *res = &ct->spec->lx.resources;
    const size_t own = res->device_rule_count, more = ARRAY_SIZE(space_default_rules);

    if (!res->present || own == 0)
        return 0;
    struct account_rule *v = calloc(own + more, sizeof(*v));
    if (v == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < own; i++) {
        const struct oci_device_rule *r = &res->device_rules[i];
        v[i] = (struct account_rule){.allow = r->allow,
                                     .block = r->type != 'c',
                                     .character = r->type != 'b',
                                     .major = r->type == 'a' ? -1 : r->major,
                                     .minor = r->type == 'a' ? -1 : r->minor,
                                     .access = r->type == 'a' ? 7 : r->access};
    }
    memcpy(v + own, space_default_rules, sizeof(space_default_rules));
    int r = account_set_rules(ct->account, v, own + more);
    free(v);
    return r;
}

/* ---- all of it ---- */

/* From whichever sentry thread chose the process. */
static void space_oomed(void *arg)
{
    struct boot_container *ct = arg;

    atomic_fetch_add(&ct->oomed, 1);
    boot_wake(ct->init.boot);
}

int boot_space(struct boot *b, struct boot_container *ct, const struct boot_container *pid_like,
               struct boot_text *t)
{
    int r = account_new(b->k, &ct->account);

    if (r != 0)
        return boot_say(t, r, "the container's account");
    r = boot_cgroup(b, ct, t);
    if (r != 0)
        return r;
    if (ct->spec->lx.resources.present)
        boot_limit(ct, &ct->spec->lx.resources);
    account_on_oom(ct->account, space_oomed, ct);
    r = space_rules(ct);
    if (r != 0)
        return boot_say(t, r, "linux.resources.devices");
    r = space_user(b, ct);
    if (r != 0)
        return boot_say(t, r, "linux.uidMappings, linux.gidMappings");
    r = space_pid(b, ct, pid_like);
    return r == 0 ? 0 : boot_say(t, r, "the container's pid namespace");
}

void boot_space_fini(struct boot_container *ct)
{
    if (ct->account != NULL)
        account_on_oom(ct->account, NULL, NULL);
    boot_cgroup_end(ct);
    account_put(ct->account);
    pid_ns_put(ct->pid_ns);
    user_ns_put(ct->user_ns);
    if (ct->root != NULL)
        cred_put(ct->root);
}
