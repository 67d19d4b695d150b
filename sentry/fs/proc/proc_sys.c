/* /proc/sys and /proc/net: the settings programs read at start (sysctl(5)). */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#include "base/limits.h"
#include "proc_priv.h"
#include "sentry/kernel/coredump.h"

static int show_uts(const struct proc_ctx *pc, FILE *out, bool domain)
{
    char name[65];

    kernel_uts_name(pc->k, pc->c ? pc->c->pid : 0, domain, name, sizeof(name));
    fprintf(out, "%s\n", name);
    return 0;
}

static int64_t store_uts(const struct proc_ctx *pc, const char *text, size_t len, bool domain)
{
    if (!pc->c)
        return -EPERM;
    int r = kernel_set_uts_name(pc->k, pc->c->pid, pc->c->cred, domain, text, strcspn(text, "\n"));
    return r ? r : (int64_t)len;
}

static int show_hostname(const struct proc_ctx *pc, FILE *out)
{
    return show_uts(pc, out, false);
}

static int64_t store_hostname(const struct proc_ctx *pc, const char *text, size_t len)
{
    return store_uts(pc, text, len, false);
}

static int show_domainname(const struct proc_ctx *pc, FILE *out)
{
    return show_uts(pc, out, true);
}

static int64_t store_domainname(const struct proc_ctx *pc, const char *text, size_t len)
{
    return store_uts(pc, text, len, true);
}

static int show_ostype(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fputs("Linux\n", out);
    return 0;
}

static int show_osrelease(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fprintf(out, "%s\n", kernel_release());
    return 0;
}

static int show_version(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fprintf(out, "%s\n", kernel_version());
    return 0;
}

static int show_pid_max(const struct proc_ctx *pc, FILE *out)
{
    struct kernel_info k;

    kernel_info(pc->k, &k);
    fprintf(out, "%d\n", k.pid_max);
    return 0;
}

static int show_uuid(const struct proc_ctx *pc, FILE *out)
{
    uint8_t b[16];

    (void)pc;
    if (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b))
        return -EIO;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    for (size_t i = 0; i < sizeof(b); i++)
        fprintf(out, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
    fputc('\n', out);
    return 0;
}

#define NUMBER(fn, text)                                                                           \
    static int fn(const struct proc_ctx *pc, FILE *out)                                            \
    {                                                                                              \
        (void)pc;                                                                                  \
        fputs(text "\n", out);                                                                     \
        return 0;                                                                                  \
    }
NUMBER(show_cap_last_cap, "40")
NUMBER(show_ngroups_max, "65536")
NUMBER(show_overflow_id, "65534")
NUMBER(show_zero, "0")
NUMBER(show_one, "1")
NUMBER(show_two, "2")
NUMBER(show_max_map_count, "65530")
NUMBER(show_min_addr, "65536")
NUMBER(show_nr_open, "1048576")
NUMBER(show_file_max, "9223372036854775807")
NUMBER(show_pipe_max, "1048576")

static int show_core_pattern(const struct proc_ctx *pc, FILE *out)
{
    char text[CORE_PATTERN_MAX];

    kernel_core_pattern(pc->k, text);
    fprintf(out, "%s\n", text);
    return 0;
}

static int64_t store_core_pattern(const struct proc_ctx *pc, const char *text, size_t len)
{
    if (!pc->c || !cred_capable(pc->c->cred, 21 /* CAP_SYS_ADMIN */))
        return -EPERM;
    int r = kernel_set_core_pattern(pc->k, text, strcspn(text, "\n"));
    return r ? r : (int64_t)len;
}

static int show_core_uses_pid(const struct proc_ctx *pc, FILE *out)
{
    fprintf(out, "%d\n", kernel_core_uses_pid(pc->k));
    return 0;
}

static int64_t store_core_uses_pid(const struct proc_ctx *pc, const char *text, size_t len)
{
    if (!pc->c || !cred_capable(pc->c->cred, 21 /* CAP_SYS_ADMIN */))
        return -EPERM;
    if (text[0] != '0' && text[0] != '1')
        return -EINVAL;
    kernel_set_core_uses_pid(pc->k, text[0] == '1');
    return (int64_t)len;
}

static const struct proc_entry random_entries[] = {
    {.name = "uuid", .mode = 0444, .show = show_uuid},
    {0},
};

static const struct proc_entry kernel_entries[] = {
    {.name = "cap_last_cap", .mode = 0444, .show = show_cap_last_cap},
    {.name = "core_pattern", .mode = 0644, .show = show_core_pattern, .store = store_core_pattern},
    {.name = "core_uses_pid",
     .mode = 0644,
     .show = show_core_uses_pid,
     .store = store_core_uses_pid},
    {.name = "domainname", .mode = 0644, .show = show_domainname, .store = store_domainname},
    {.name = "hostname", .mode = 0644, .show = show_hostname, .store = store_hostname},
    {.name = "msgmax", .mode = 0644, .show = proc_show_msgmax, .store = proc_store_msgmax},
    {.name = "msgmnb", .mode = 0644, .show = proc_show_msgmnb, .store = proc_store_msgmnb},
    {.name = "msgmni", .mode = 0644, .show = proc_show_msgmni, .store = proc_store_msgmni},
    {.name = "ngroups_max", .mode = 0444, .show = show_ngroups_max},
    {.name = "osrelease", .mode = 0444, .show = show_osrelease},
    {.name = "ostype", .mode = 0444, .show = show_ostype},
    {.name = "overflowgid", .mode = 0444, .show = show_overflow_id},
    {.name = "overflowuid", .mode = 0444, .show = show_overflow_id},
    {.name = "pid_max", .mode = 0444, .show = show_pid_max},
    {.name = "random", .mode = 0555, .children = random_entries, .more = proc_settings_random},
    {.name = "randomize_va_space", .mode = 0444, .show = show_two},
    {.name = "sem", .mode = 0644, .show = proc_show_sem, .store = proc_store_sem},
    {.name = "shmall", .mode = 0644, .show = proc_show_shmall, .store = proc_store_shmall},
    {.name = "shmmax", .mode = 0644, .show = proc_show_shmmax, .store = proc_store_shmmax},
    {.name = "shmmni", .mode = 0644, .show = proc_show_shmmni, .store = proc_store_shmmni},
    {.name = "tainted", .mode = 0444, .show = show_zero},
    {.name = "version", .mode = 0444, .show = show_version},
    {0},
};

static const struct proc_entry vm_entries[] = {
    {.name = "max_map_count", .mode = 0444, .show = show_max_map_count},
    {.name = "mmap_min_addr", .mode = 0444, .show = show_min_addr},
    {0},
};

static const struct proc_entry mqueue_entries[] = {
    {.name = "msg_default",
     .mode = 0644,
     .show = proc_show_msg_default,
     .store = proc_store_msg_default},
    {.name = "msg_max", .mode = 0644, .show = proc_show_msg_max, .store = proc_store_msg_max},
    {.name = "msgsize_default",
     .mode = 0644,
     .show = proc_show_msgsize_default,
     .store = proc_store_msgsize_default},
    {.name = "msgsize_max",
     .mode = 0644,
     .show = proc_show_msgsize_max,
     .store = proc_store_msgsize_max},
    {.name = "queues_max",
     .mode = 0644,
     .show = proc_show_queues_max,
     .store = proc_store_queues_max},
    {0},
};

static const struct proc_entry fs_entries[] = {
    {.name = "file-max", .mode = 0444, .show = show_file_max},
    {.name = "mqueue", .mode = 0555, .children = mqueue_entries},
    {.name = "nr_open", .mode = 0444, .show = show_nr_open},
    {.name = "pipe-max-size", .mode = 0444, .show = show_pipe_max},
    {.name = "protected_hardlinks", .mode = 0444, .show = show_one},
    {.name = "suid_dumpable", .mode = 0444, .show = show_zero},
    {0},
};

const struct proc_entry proc_sys_entries[] = {
    {.name = "fs", .mode = 0555, .children = fs_entries, .more = proc_settings_fs},
    {.name = "kernel", .mode = 0555, .children = kernel_entries, .more = proc_settings_kernel},
    {.name = "net", .mode = 0555, .children = proc_sys_net_entries},
    {.name = "vm", .mode = 0555, .children = vm_entries, .more = proc_settings_vm},
    {0},
};
