/* User and group ids, capabilities, what execve makes of them: credentials(7), capabilities(7). */
#define _GNU_SOURCE
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/auxv.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "harness.h"

CONF_FAMILY("cred");

#define UID_A 54321
#define UID_B 54322
#define UID_C 54323

struct cap_sets {
    uint64_t effective, permitted, inheritable;
};

static struct cap_sets caps_get(void)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2];

    OK(syscall(SYS_capget, &h, d));
    return (struct cap_sets){d[0].effective | (uint64_t)d[1].effective << 32,
                             d[0].permitted | (uint64_t)d[1].permitted << 32,
                             d[0].inheritable | (uint64_t)d[1].inheritable << 32};
}

static long caps_set(const struct cap_sets *c)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct d[2] = {
        {(uint32_t)c->effective, (uint32_t)c->permitted, (uint32_t)c->inheritable},
        {(uint32_t)(c->effective >> 32), (uint32_t)(c->permitted >> 32),
         (uint32_t)(c->inheritable >> 32)}};

    return syscall(SYS_capset, &h, d);
}

static void check_uids(uid_t r, uid_t e, uid_t s)
{
    uid_t ids[3];

    OK(getresuid(&ids[0], &ids[1], &ids[2]));
    CHECK_EQ(ids[0], r);
    CHECK_EQ(ids[1], e);
    CHECK_EQ(ids[2], s);
}

static void check_gids(gid_t r, gid_t e, gid_t s)
{
    gid_t ids[3];

    OK(getresgid(&ids[0], &ids[1], &ids[2]));
    CHECK_EQ(ids[0], r);
    CHECK_EQ(ids[1], e);
    CHECK_EQ(ids[2], s);
}

/* ---- user ids ---- */

TEST(setuid_by_root_is_for_good)
{
    NEED_ROOT();
    CHECK(caps_get().effective != 0);
    OK(setuid(UID_A));
    check_uids(UID_A, UID_A, UID_A);
    CHECK_EQ(getuid(), UID_A);
    CHECK_EQ(geteuid(), UID_A);
    CHECK_ERRNO(setuid(0), EPERM);
    CHECK_EQ(caps_get().effective, 0);
    CHECK_EQ(caps_get().permitted, 0);
    OK(setuid(UID_A));
    CHECK_ERRNO(syscall(SYS_setuid, -1), EINVAL);
}

TEST(seteuid_turns_capabilities_off_and_on)
{
    NEED_ROOT();
    const struct cap_sets all = caps_get();
    OK(seteuid(UID_A));
    check_uids(0, UID_A, 0);
    CHECK_EQ(caps_get().effective, 0);
    CHECK_EQ(caps_get().permitted, all.permitted);
    OK(seteuid(0));
    CHECK_EQ(caps_get().effective, all.permitted);
}

TEST(setreuid_rules)
{
    NEED_ROOT();
    OK(setresuid(UID_A, UID_B, UID_C));
    /* real from effective, effective from saved: the saved one follows the new effective one */
    OK(setreuid(UID_B, (uid_t)-1));
    check_uids(UID_B, UID_B, UID_B);
    CHECK_ERRNO(setreuid(UID_C, (uid_t)-1), EPERM);
    CHECK_ERRNO(setreuid((uid_t)-1, UID_A), EPERM);
    OK(setreuid((uid_t)-1, (uid_t)-1));
    check_uids(UID_B, UID_B, UID_B);
}

TEST(setreuid_keeps_saved)
{
    NEED_ROOT();
    OK(setresuid(UID_A, UID_B, UID_C));
    OK(setreuid((uid_t)-1, UID_A));
    check_uids(UID_A, UID_A, UID_C);
    OK(setreuid((uid_t)-1, UID_C));
    check_uids(UID_A, UID_C, UID_C);
}

TEST(setresuid_rules)
{
    NEED_ROOT();
    OK(setresuid(UID_A, UID_B, UID_C));
    OK(setresuid(UID_C, UID_A, UID_B));
    check_uids(UID_C, UID_A, UID_B);
    OK(setresuid((uid_t)-1, (uid_t)-1, UID_A));
    check_uids(UID_C, UID_A, UID_A);
    CHECK_ERRNO(setresuid(UID_B, (uid_t)-1, (uid_t)-1), EPERM);
    CHECK_ERRNO(setresuid((uid_t)-1, 0, (uid_t)-1), EPERM);
    CHECK_ERRNO(syscall(SYS_getresuid, 8, 8, 8), EFAULT);
}

TEST(setfsuid_returns_the_old_one)
{
    NEED_ROOT();
    CHECK_EQ(setfsuid(UID_A), 0);
    CHECK_EQ(setfsuid((uid_t)-1), UID_A);
    CHECK_EQ(setfsuid((uid_t)-1), UID_A);
    OK(setresuid(UID_B, UID_B, UID_B));
    CHECK_EQ(setfsuid(0), UID_B); /* refused, and says so only by what the next call returns */
    CHECK_EQ(setfsuid((uid_t)-1), UID_B);
    CHECK_EQ(setfsgid((gid_t)-1), getegid());
}

/* ---- groups ---- */

TEST(setgid_rules)
{
    NEED_ROOT();
    OK(setresgid(UID_A, UID_B, UID_C));
    check_gids(UID_A, UID_B, UID_C);
    OK(setregid((gid_t)-1, UID_A));
    check_gids(UID_A, UID_A, UID_C);
    OK(setresuid(UID_A, UID_A, UID_A));
    OK(setgid(UID_C));
    check_gids(UID_A, UID_C, UID_C);
    CHECK_ERRNO(setgid(0), EPERM);
    CHECK_ERRNO(setresgid(0, (gid_t)-1, (gid_t)-1), EPERM);
    CHECK_ERRNO(setregid(0, (gid_t)-1), EPERM);
    CHECK_EQ(getgid(), UID_A);
    CHECK_EQ(getegid(), UID_C);
}

TEST(supplementary_groups)
{
    const gid_t in[3] = {30, 10, 20};
    gid_t out[4] = {0};

    NEED_ROOT();
    OK(setgroups(3, in));
    CHECK_EQ(getgroups(0, NULL), 3);
    CHECK_EQ(getgroups(4, out), 3);
    CHECK_EQ(out[0], 10);
    CHECK_EQ(out[1], 20);
    CHECK_EQ(out[2], 30);
    CHECK_ERRNO(syscall(SYS_getgroups, 2, out), EINVAL);
    CHECK_ERRNO(syscall(SYS_getgroups, -1, out), EINVAL);
    CHECK_ERRNO(syscall(SYS_getgroups, 4, 8), EFAULT);
    CHECK_ERRNO(syscall(SYS_setgroups, 65537, in), EINVAL);
    CHECK_ERRNO(syscall(SYS_setgroups, 3, 8), EFAULT);
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK_EQ(getgroups(0, NULL), 3);
        OK(setresuid(UID_A, UID_A, UID_A));
        CHECK_ERRNO(setgroups(0, NULL), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(setgroups(0, NULL));
    CHECK_EQ(getgroups(0, NULL), 0);
}

TEST(many_supplementary_groups)
{
    static gid_t groups[1000];
    const int count = ARRAY_SIZE(groups);

    NEED_ROOT();
    for (int i = 0; i < count; i++)
        groups[i] = (gid_t)(3 * (count - i));
    OK(setgroups((size_t)count, groups));
    CHECK_EQ(getgroups(count, groups), count);
    for (int i = 0; i < count; i++)
        CHECK_EQ(groups[i], 3 * (i + 1));
}

/* ---- capability sets ---- */

TEST(capget_versions)
{
    struct __user_cap_header_struct h = {.version = 0x12345678};
    struct __user_cap_data_struct d[2];

    CHECK_ERRNO(syscall(SYS_capget, &h, d), EINVAL);
    CHECK_EQ(h.version, _LINUX_CAPABILITY_VERSION_3);
    h.version = 0;
    OK(syscall(SYS_capget, &h, NULL));
    CHECK_EQ(h.version, _LINUX_CAPABILITY_VERSION_3);
    h.pid = -1;
    CHECK_ERRNO(syscall(SYS_capget, &h, d), EINVAL);
    h.pid = 1 << 22;
    CHECK_ERRNO(syscall(SYS_capget, &h, d), ESRCH);
    h.pid = getpid();
    OK(syscall(SYS_capget, &h, d));
    CHECK_ERRNO(syscall(SYS_capget, 8, d), EFAULT);
    CHECK_ERRNO(syscall(SYS_capget, &h, 8), EFAULT);
}

TEST(capset_only_gives_up)
{
    struct cap_sets c;

    NEED_ROOT();
    c = caps_get();
    c.effective &= ~(1ull << CAP_CHOWN);
    OK(caps_set(&c));
    CHECK_EQ(caps_get().effective >> CAP_CHOWN & 1, 0);
    c.effective |= 1ull << CAP_CHOWN;
    OK(caps_set(&c));
    c.permitted &= ~(1ull << CAP_CHOWN);
    CHECK_ERRNO(caps_set(&c), EPERM); /* effective beyond permitted */
    c.effective &= ~(1ull << CAP_CHOWN);
    OK(caps_set(&c));
    c.permitted |= 1ull << CAP_CHOWN;
    CHECK_ERRNO(caps_set(&c), EPERM);
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = getppid()};
    struct __user_cap_data_struct d[2] = {0};
    CHECK_ERRNO(syscall(SYS_capset, &h, d), EPERM);
}

TEST(keepcaps_survives_setuid)
{
    NEED_ROOT();
    const struct cap_sets all = caps_get();
    CHECK_EQ(prctl(PR_GET_KEEPCAPS), 0);
    OK(prctl(PR_SET_KEEPCAPS, 1));
    CHECK_EQ(prctl(PR_GET_KEEPCAPS), 1);
    CHECK_ERRNO(prctl(PR_SET_KEEPCAPS, 2), EINVAL);
    OK(setresuid(UID_A, UID_A, UID_A));
    CHECK_EQ(caps_get().permitted, all.permitted);
    CHECK_EQ(caps_get().effective, 0);
    struct cap_sets again = all;
    again.inheritable = caps_get().inheritable;
    again.effective = again.permitted;
    OK(caps_set(&again));
    CHECK_EQ(caps_get().effective, all.permitted);
}

TEST(bounding_set)
{
    NEED_ROOT();
    CHECK_EQ(prctl(PR_CAPBSET_READ, CAP_CHOWN), 1);
    OK(prctl(PR_CAPBSET_DROP, CAP_CHOWN));
    CHECK_EQ(prctl(PR_CAPBSET_READ, CAP_CHOWN), 0);
    CHECK(caps_get().permitted >> CAP_CHOWN & 1); /* only execve looks at it */
    CHECK_ERRNO(prctl(PR_CAPBSET_READ, 64), EINVAL);
    CHECK_ERRNO(prctl(PR_CAPBSET_DROP, 64), EINVAL);
    OK(setresuid(UID_A, UID_A, UID_A));
    CHECK_ERRNO(prctl(PR_CAPBSET_DROP, CAP_KILL), EPERM);
}

/* exit code: bits of what the program finds */
HELPER(show_caps)
{
    const struct cap_sets c = caps_get();

    (void)argc;
    (void)argv;
    return (int)(c.permitted >> CAP_CHOWN & 1) | (int)(c.effective >> CAP_KILL & 1) << 1 |
           (int)(c.effective >> CAP_CHOWN & 1) << 2 | (int)(prctl(PR_GET_KEEPCAPS) & 1) << 3;
}

static void exec_helper(const char *path, const char *name)
{
    char *const argv[] = {(char *)(uintptr_t)path, (char *)(uintptr_t) "--helper",
                          (char *)(uintptr_t)name, NULL};

    execv(path, argv);
    conf_fail(__FILE__, __LINE__, "execv(%s): errno %d", path, errno);
}

TEST(exec_of_root_takes_bounding_set)
{
    NEED_ROOT();
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(prctl(PR_CAPBSET_DROP, CAP_CHOWN));
        exec_helper(conf_self(), "show_caps");
    }
    CHECK_EXIT(pid, 2);
    pid = conf_fork();
    if (pid == 0) {
        OK(prctl(PR_SET_KEEPCAPS, 1));
        OK(setresuid(UID_A, UID_A, UID_A));
        exec_helper(conf_self(), "show_caps");
    }
    CHECK_EXIT(pid, 0); /* nothing is left for a plain user, keepcaps or not */
}

TEST(ambient_survives_exec)
{
    NEED_ROOT();
    CHECK_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0), 0);
    CHECK_ERRNO(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 64, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_CAP_AMBIENT, 77, CAP_KILL, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 1, 0), EINVAL);
    struct cap_sets c = caps_get();
    c.inheritable &= ~(1ull << CAP_KILL);
    OK(caps_set(&c));
    CHECK_ERRNO(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0), EPERM);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(prctl(PR_SET_KEEPCAPS, 1));
        OK(setresuid(UID_A, UID_A, UID_A));
        c = caps_get();
        c.inheritable = 1ull << CAP_KILL;
        OK(caps_set(&c));
        OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
        CHECK_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0), 1);
        exec_helper(conf_self(), "show_caps");
    }
    CHECK_EXIT(pid, 2);
}

TEST(securebits_and_locks)
{
    NEED_ROOT();
    CHECK_EQ(prctl(PR_GET_SECUREBITS), 0);
    OK(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED));
    CHECK_ERRNO(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP), EPERM);
    CHECK_ERRNO(prctl(PR_SET_SECUREBITS, 1 << 20), EPERM);
    const struct cap_sets all = caps_get();
    OK(setresuid(UID_A, UID_A, UID_A));
    CHECK_EQ(caps_get().effective, all.effective);
}

/* ---- execve ---- */

HELPER(show_setuid)
{
    (void)argc;
    (void)argv;
    uid_t r, e, s;
    OK(getresuid(&r, &e, &s));
    CHECK_EQ(r, UID_A);
    CHECK_EQ(e, s);
    return (e == 0 ? 1 : 0) | (getauxval(AT_SECURE) ? 2 : 0) | (getegid() == UID_B ? 4 : 0) |
           (prctl(PR_GET_DUMPABLE) == 1 ? 8 : 0);
}

/* A copy of this program beside the case's other files. */
static void copy_self(const char *to, mode_t mode, gid_t gid)
{
    int in = OK(open(conf_self(), O_RDONLY)), out = OK(open(to, O_WRONLY | O_CREAT | O_EXCL, 0700));
    static char buf[65536];
    ssize_t n;

    while ((n = OK(read(in, buf, sizeof(buf)))) > 0)
        CHECK_EQ(write(out, buf, (size_t)n), n);
    OK(fchown(out, 0, gid));
    OK(fchmod(out, mode));
    close(in);
    close(out);
}

static pid_t exec_as_user(const char *path, bool no_new_privs)
{
    pid_t pid = conf_fork();

    if (pid == 0) {
        OK(setresgid(UID_A, UID_A, UID_A));
        OK(setresuid(UID_A, UID_A, UID_A));
        if (no_new_privs)
            OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        exec_helper(path, "show_setuid");
    }
    return pid;
}

TEST(setuid_bits_of_programs)
{
    struct statvfs st;

    NEED_ROOT();
    OK(statvfs(".", &st));
    if ((st.f_flag & ST_NOSUID) || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))
        conf_skip("no set-id programs here");
    OK(chmod(".", 0755));
    copy_self("plain", 0755, 0);
    copy_self("suid", 04755, 0);
    copy_self("sgid", 02755, UID_B);
    copy_self("sgid_no_exec", 02745, UID_B);
    CHECK_EXIT(exec_as_user("./plain", false), 8);
    CHECK_EXIT(exec_as_user("./suid", false), 1 | 2);
    CHECK_EXIT(exec_as_user("./suid", true), 8);
    CHECK_EXIT(exec_as_user("./sgid", false), 4 | 2);
    CHECK_EXIT(exec_as_user("./sgid", true), 8);
    CHECK_EXIT(exec_as_user("./sgid_no_exec", false), 8);
}

TEST(execute_only_program)
{
    NEED_ROOT();
    OK(chmod(".", 0755));
    copy_self("secret", 0711, 0);
    copy_self("closed", 0744, 0);
    CHECK_EXIT(exec_as_user("./secret", false), 0 + 0);
    pid_t pid = conf_fork();
    if (pid == 0) {
        char *const argv[] = {(char *)(uintptr_t) "x", NULL};
        OK(setresuid(UID_A, UID_A, UID_A));
        CHECK_ERRNO(execv("./closed", argv), EACCES);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(no_new_privs_is_inherited)
{
    CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    CHECK_ERRNO(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0), EINVAL);
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : 1);
    CHECK_EXIT(pid, 0);
    CHECK_ERRNO(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0), EINVAL);
}

TEST(changing_ids_ends_dumpable)
{
    NEED_ROOT();
    CHECK_EQ(prctl(PR_GET_DUMPABLE), 1);
    OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
    OK(setresuid(UID_A, UID_A, UID_A));
    CHECK(prctl(PR_GET_DUMPABLE) != 1);
    int signo = -1;
    OK(prctl(PR_GET_PDEATHSIG, &signo));
    CHECK_EQ(signo, 0);
}
