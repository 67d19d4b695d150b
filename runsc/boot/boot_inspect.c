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
    task_info(t, &info);
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
    return json_pack("{s:i,s:o}", "init_pid", (int)ct->init.pid, "processes", list);
}

static json_t *inspect_events(struct boot *b)
{
    struct kernel_info info;

    kernel_info(b->k, &info);
    const json_int_t user = (json_int_t)info.user_ns, system = (json_int_t)info.system_ns;
    return json_pack("{s:{s:I,s:I},s:{s:I},s:{s:I,s:I,s:I}}", "memory", "usage",
                     (json_int_t)(info.mem_anon + info.mem_shmem), "limit",
                     (json_int_t)info.mem_total, "pids", "current", (json_int_t)info.tasks, "cpu",
                     "usage", user + system, "user", user, "kernel", system);
}

static int inspect_limits(struct boot *b, const json_t *req)
{
    const json_int_t memory = json_integer_value(json_object_get(req, "memory"));

    if (memory <= 0)
        return -EINVAL;
    memfile_set_limit(b->mf, boot_memory_for_guest((uint64_t)memory));
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
    else if (strcmp(op, "events") == 0)
        *out_reply = inspect_events(b);
    else if (strcmp(op, "limits") == 0)
        r = inspect_limits(b, req);
    else if (strcmp(op, "debug") == 0)
        r = inspect_debug(b, req);
    else
        r = -ENOSYS;
    return r;
}
