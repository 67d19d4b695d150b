/* What the control socket tells of a running sandbox, and what it sets for all of it. */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/log.h"
#include "runsc/boot/boot_priv.h"
#include "sentry/kernel/inspect.h"
#include "sentry/mem/memfile.h"

/* Rows of one reply: what fits a packet. */
#define INSPECT_PIDS_MAX 4096
#define INSPECT_TASKS_MAX 900

static json_t *inspect_process(struct boot_container *ct, int32_t pid)
{
    struct task *t;
    struct task_info info;

    if (kernel_find_task(ct->init.boot->k, pid, false, &t))
        return NULL;
    if (!boot_owns(ct, t)) {
        task_put(t);
        return NULL;
    }
    task_info_in(t, ct->pid_ns, &info);
    struct cred *cred = task_get_cred(t);
    json_t *row =
        json_pack("{s:i,s:i,s:I,s:i,s:I,s:s}", "pid", info.tgid, "ppid", info.ppid, "uid",
                  (json_int_t)(cred ? cred->euid : 0), "threads", info.threads, "time",
                  (json_int_t)((info.utime_ns + info.stime_ns) / 1000000), "cmd", info.comm);
    if (cred)
        cred_put(cred);
    task_put(t);
    return row;
}

static json_t *inspect_ps(struct boot_container *ct)
{
    json_t *list = json_array();
    int32_t pid = 1;

    for (int n = 0; list && n < INSPECT_PIDS_MAX; n++, pid++) {
        pid = kernel_next_tgid(ct->init.boot->k, pid);
        if (pid < 0)
            break;
        json_t *row = inspect_process(ct, pid);
        if (row)
            (void)json_array_append_new(list, row);
    }
    return json_pack("{s:i,s:o}", "init_pid", (int)boot_pid_out(ct, ct->init.pid), "processes",
                     list);
}

static void inspect_threads(struct boot_container *ct, struct task *leader, json_t *list)
{
    struct kernel *k = ct->init.boot->k;
    struct task *t;
    struct task_info info;

    for (int32_t tid = 0; (tid = task_next_tid(leader, tid)) > 0; tid++) {
        if (json_array_size(list) >= INSPECT_TASKS_MAX || kernel_find_task(k, tid, true, &t))
            continue;
        task_info_in(t, ct->pid_ns, &info);
        (void)json_array_append_new(list, json_pack("{s:i,s:i,s:s%,s:s,s:i,s:s}", "pid", info.tgid,
                                                    "tid", info.pid, "state", &info.state,
                                                    (size_t)1, "cmd", info.comm, "host",
                                                    info.host_tid, "container", ct->id));
        task_put(t);
    }
}

/* Of every container: whoever looks at the sandbox's threads wants to know all of them. */
static json_t *inspect_tasks(struct boot *b)
{
    struct boot_container *ct;
    struct task *t;
    json_t *list = json_array();

    list_for_each_entry (ct, &b->containers, node)
        for (int32_t pid = 1; (pid = kernel_next_tgid(b->k, pid)) > 0; pid++) {
            if (kernel_find_task(b->k, pid, false, &t))
                continue;
            if (boot_owns(ct, t))
                inspect_threads(ct, t, list);
            task_put(t);
        }
    return json_pack("{s:o}", "tasks", list);
}

/* Of the sandbox for its own container, since the host counts all of it; else of the container. */
static json_t *inspect_memory(struct boot_container *ct)
{
    struct kernel_info info;
    uint64_t used, limit;

    kernel_info(ct->init.boot->k, &info);
    if (ct == &ct->init.boot->root) {
        used = info.mem_anon + info.mem_shmem;
        limit = info.mem_total;
    } else {
        used = cgroup_memory(cgroup_container(ct->cgroups));
        limit = MIN(ct->cgroup_limits.memory, info.mem_total);
    }
    return json_pack("{s:I,s:I}", "usage", (json_int_t)used, "limit", (json_int_t)limit);
}

static json_t *inspect_events(struct boot_container *ct)
{
    json_t *usage = boot_usage(ct);

    (void)json_object_set_new(usage, "memory", inspect_memory(ct));
    return usage;
}

static int inspect_limits(struct boot_container *ct, const json_t *req)
{
    struct boot *b = ct->init.boot;
    json_t *doc = json_object_get(req, "resources");
    struct oci_resources r;
    struct oci_spec *owner;
    struct err e;

    if (!json_is_object(doc))
        return -EINVAL;
    if (spec_resources_from_json(json_incref(doc), &r, &owner, &e) != 0)
        return -EINVAL;
    if (ct == &b->root && r.memory_limit > 0) {
        kernel_set_memory(b->k, MIN((uint64_t)r.memory_limit, memfile_host_ram(b->mf)));
        memfile_set_limit(b->mf, r.memory_limit == INT64_MAX
                                     ? 0
                                     : boot_memory_for_guest((uint64_t)r.memory_limit));
    }
    boot_limit(ct, &r);
    spec_free(owner);
    return 0;
}

static int inspect_debug(struct boot *b, const json_t *req)
{
    const json_t *level = json_object_get(req, "level"), *strace = json_object_get(req, "strace");

    if (level) {
        if (json_integer_value(level) < LOG_ERROR || json_integer_value(level) > LOG_DEBUG)
            return -EINVAL;
        log_set_level((enum log_level)json_integer_value(level));
    }
    if (strace) {
        kernel_set_strace(b->k, json_is_true(strace));
        /* Its lines have level info. */
        if (json_is_true(strace) && !log_enabled(LOG_INFO))
            log_set_level(LOG_INFO);
    }
    return 0;
}

int boot_inspect(struct boot_container *ct, const char *op, const json_t *req, json_t **out_reply)
{
    struct boot *b = ct->init.boot;
    int r = 0;

    if (strcmp(op, "ps") == 0)
        *out_reply = inspect_ps(ct);
    else if (strcmp(op, "tasks") == 0)
        *out_reply = inspect_tasks(b);
    else if (strcmp(op, "events") == 0)
        *out_reply = inspect_events(ct);
    else if (strcmp(op, "limits") == 0)
        r = inspect_limits(ct, req);
    else if (strcmp(op, "debug") == 0)
        r = inspect_debug(b, req);
    else
        r = -ENOSYS;
    return r;
}
