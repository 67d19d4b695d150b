#include "runsc/sandbox/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int write_proc(pid_t pid, const char *file, const char *text)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, text, strlen(text));
    int r = n < 0 ? -errno : 0;
    close(fd);
    return r;
}

int confine_write_id_maps(pid_t child, const char **step)
{
    char map[64];
    bool root = geteuid() == 0;

    /* An unprivileged writer may map only itself, and only with setgroups(2) given up. */
    *step = "write setgroups";
    int r = root ? 0 : write_proc(child, "setgroups", "deny");
    if (r)
        return r;
    *step = "write gid_map";
    snprintf(map, sizeof(map), "%u %u 1\n", SENTRY_ID, root ? SENTRY_ID : getegid());
    r = write_proc(child, "gid_map", map);
    if (r)
        return r;
    *step = "write uid_map";
    snprintf(map, sizeof(map), "%u %u 1\n", SENTRY_ID, root ? SENTRY_ID : geteuid());
    return write_proc(child, "uid_map", map);
}

int confine_become_sentry_id(bool can_set_groups, const char **step)
{
    *step = "setgroups";
    if (can_set_groups && setgroups(0, NULL) != 0)
        return -errno;
    *step = "setresgid";
    if (setresgid(SENTRY_ID, SENTRY_ID, SENTRY_ID) != 0)
        return -errno;
    *step = "setresuid";
    if (setresuid(SENTRY_ID, SENTRY_ID, SENTRY_ID) != 0)
        return -errno;
    return 0;
}

int confine_empty_root(const char **step)
{
    /* Nothing mounted here may reach the host, nor the other way. */
    *step = "make mounts private";
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return -errno;
    *step = "mount the empty root";
    if (mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,mode=555") != 0)
        return -errno;
    *step = "enter the empty root";
    if (chdir("/tmp") != 0)
        return -errno;
    *step = "pivot_root";
    if (syscall(SYS_pivot_root, ".", ".") != 0)
        return -errno;
    *step = "detach the old root";
    if (umount2(".", MNT_DETACH) != 0)
        return -errno;
    *step = "make the empty root read-only";
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              NULL) != 0)
        return -errno;
    *step = "chdir /";
    return chdir("/") == 0 ? 0 : -errno;
}

int confine_drop_capabilities(const char **step)
{
    *step = "clear ambient capabilities";
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
        return -errno;
    *step = "drop the bounding set";
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
            return -errno;
    *step = "lock securebits";
    if (prctl(PR_SET_SECUREBITS,
              SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                  SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                  SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
              0, 0, 0) != 0)
        return -errno;
    *step = "capset";
    struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct none[2];
    memset(none, 0, sizeof(none));
    return syscall(SYS_capset, &hdr, none) == 0 ? 0 : -errno;
}

/* linux/landlock.h of the build host may be older than the running kernel: bits by ABI. */
struct landlock_attr {
    uint64_t handled_fs, handled_net, scoped;
};

static const struct {
    uint64_t fs, net, scoped;
    size_t size;
} landlock_abi[] = {
    {0, 0, 0, 0},
    {(1ull << 13) - 1, 0, 0, 8},  /* 1 */
    {(1ull << 14) - 1, 0, 0, 8},  /* 2: REFER */
    {(1ull << 15) - 1, 0, 0, 8},  /* 3: TRUNCATE */
    {(1ull << 15) - 1, 3, 0, 16}, /* 4: TCP bind and connect */
    {(1ull << 16) - 1, 3, 0, 16}, /* 5: IOCTL_DEV */
    {(1ull << 16) - 1, 3, 3, 24}, /* 6: abstract sockets and signals */
};

int confine_landlock(bool network, int *out_abi, const char **step)
{
    *out_abi = 0;
    *step = "no_new_privs";
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -errno;
    *step = "landlock";
    long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, 1u);
    if (abi <= 0)
        return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -errno;
    if ((size_t)abi >= ARRAY_SIZE(landlock_abi))
        abi = (long)ARRAY_SIZE(landlock_abi) - 1;
    struct landlock_attr attr = {landlock_abi[abi].fs, network ? 0 : landlock_abi[abi].net,
                                 landlock_abi[abi].scoped};
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, landlock_abi[abi].size, 0u);
    if (fd < 0)
        return -errno;
    int r = syscall(SYS_landlock_restrict_self, fd, 0u) == 0 ? 0 : -errno;
    close(fd);
    if (r == 0)
        *out_abi = (int)abi;
    return r;
}

/* What brings a thread back to the nice value that the sandbox starts with, and no better. */
static rlim_t nice_limit(void)
{
    return (rlim_t)(20 - getpriority(PRIO_PROCESS, 0));
}

void confine_allow_nice(pid_t child)
{
    const struct rlimit l = {nice_limit(), nice_limit()};

    (void)prlimit(child, RLIMIT_NICE, &l, NULL);
}

static int limit_nice(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NICE, &l) != 0)
        return -errno;
    l.rlim_max = MIN(l.rlim_max, nice_limit());
    l.rlim_cur = l.rlim_max;
    return setrlimit(RLIMIT_NICE, &l) == 0 ? 0 : -errno;
}

int confine_rlimits(const char **step)
{
    static const struct {
        int resource;
        rlim_t value;
    } limits[] = {{RLIMIT_CORE, 0}, {RLIMIT_MEMLOCK, 0}, {RLIMIT_MSGQUEUE, 0}, {RLIMIT_RTPRIO, 0}};

    *step = "setrlimit";
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        struct rlimit l = {limits[i].value, limits[i].value};
        if (setrlimit((__rlimit_resource_t)limits[i].resource, &l) != 0)
            return -errno;
    }
    int r = limit_nice();
    if (r)
        return r;
    /* Descriptors of the host stand behind files the guest has open. */
    struct rlimit nofile;
    if (getrlimit(RLIMIT_NOFILE, &nofile) != 0)
        return -errno;
    nofile.rlim_cur = nofile.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &nofile) == 0 ? 0 : -errno;
}

static int cmp_int(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

int confine_close_fds(const int *keep, size_t count, const char **step)
{
    int sorted[64];

    *step = "close descriptors";
    if (count > ARRAY_SIZE(sorted))
        return -E2BIG;
    memcpy(sorted, keep, count * sizeof(*keep));
    qsort(sorted, count, sizeof(*sorted), cmp_int);
    unsigned next = 3;
    for (size_t i = 0; i < count; i++) {
        if (sorted[i] < (int)next)
            continue;
        unsigned fd = (unsigned)sorted[i];
        if (fd > next && syscall(SYS_close_range, next, fd - 1, 0u) != 0)
            return -errno;
        next = fd + 1;
    }
    return syscall(SYS_close_range, next, ~0u, 0u) == 0 ? 0 : -errno;
}
