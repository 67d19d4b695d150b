/* Capabilities of files, and what else execve looks at when it gives more than there was:
 * capabilities(7), commoncap.c of Linux. */
#define _GNU_SOURCE
#include <endian.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "harness.h"

CONF_FAMILY("filecap");

#define UID_A 54321
#define ATTR "security.capability"
#define BIT(cap) (1u << (cap))
#define CAPS (BIT(CAP_KILL) | BIT(CAP_NET_RAW))

static void caps_get(uint64_t out[3])
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2];

    OK(syscall(SYS_capget, &h, d));
    out[0] = d[0].effective | (uint64_t)d[1].effective << 32;
    out[1] = d[0].permitted | (uint64_t)d[1].permitted << 32;
    out[2] = d[0].inheritable | (uint64_t)d[1].inheritable << 32;
}

static long caps_set(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct d[2] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)}};

    return syscall(SYS_capset, &h, d);
}

static int set_v2(const char *path, uint32_t permitted, uint32_t inheritable, bool effective)
{
    const struct vfs_cap_data d = {
        .magic_etc = htole32(VFS_CAP_REVISION_2 | (effective ? VFS_CAP_FLAGS_EFFECTIVE : 0)),
        .data = {{htole32(permitted), htole32(inheritable)}, {0, 0}}};

    return setxattr(path, ATTR, &d, sizeof(d), 0);
}

static int set_v3(const char *path, uint32_t permitted, uint32_t root)
{
    const struct vfs_ns_cap_data d = {.magic_etc =
                                          htole32(VFS_CAP_REVISION_3 | VFS_CAP_FLAGS_EFFECTIVE),
                                      .data = {{htole32(permitted), 0}, {0, 0}},
                                      .rootid = htole32(root)};

    return setxattr(path, ATTR, &d, sizeof(d), 0);
}

/* A program of our own that anybody may run; not where set-id programs do not count. */
static void need_program(const char *path, mode_t mode)
{
    struct statvfs st;

    NEED_ROOT();
    OK(statvfs(".", &st));
    if ((st.f_flag & ST_NOSUID) || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))
        conf_skip("no privileged programs here");
    OK(chmod(".", 0755));
    conf_copy_self(path, mode);
}

/* expected: permitted, effective, ambient, secure, dumpable in hexadecimal; effective uid. */
HELPER(expect)
{
    uint64_t caps[3], ambient = 0;
    char now[160];

    CHECK_EQ(argc, 2);
    caps_get(caps);
    for (unsigned int cap = 0; cap <= CAP_LAST_CAP; cap++)
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1)
            ambient |= 1ull << cap;
    snprintf(now, sizeof(now), "p=%llx e=%llx a=%llx secure=%lu dump=%d euid=%d",
             (unsigned long long)caps[1], (unsigned long long)caps[0], (unsigned long long)ambient,
             getauxval(AT_SECURE), prctl(PR_GET_DUMPABLE) == 1, (int)geteuid());
    CHECK_STR(now, argv[1]);
    return 0;
}

static void become_user(void)
{
    OK((int)syscall(SYS_setgroups, 0, NULL));
    OK(setresgid(UID_A, UID_A, UID_A));
    OK(setresuid(UID_A, UID_A, UID_A));
}

static void run(const char *path, const char *expected)
{
    char *const argv[] = {(char *)(uintptr_t)path, (char *)(uintptr_t) "--helper",
                          (char *)(uintptr_t) "expect", (char *)(uintptr_t)expected, NULL};

    execv(path, argv);
    _exit(100 + errno);
}

#define AS_USER(path, expected, ...)                                                               \
    do {                                                                                           \
        pid_t as_pid = conf_fork();                                                                \
        if (as_pid == 0) {                                                                         \
            become_user();                                                                         \
            __VA_ARGS__;                                                                           \
            run(path, expected);                                                                   \
        }                                                                                          \
        CHECK_EXIT(as_pid, 0);                                                                     \
    } while (0)

#define PLAIN "p=0 e=0 a=0 secure=0 dump=1 euid=54321"

TEST(permitted_and_effective)
{
    need_program("prog", 0755);
    AS_USER("./prog", PLAIN);
    OK(set_v2("prog", CAPS, 0, true));
    AS_USER("./prog", "p=2020 e=2020 a=0 secure=1 dump=0 euid=54321");
    OK(set_v2("prog", CAPS, 0, false));
    AS_USER("./prog", "p=2020 e=0 a=0 secure=1 dump=0 euid=54321");
    OK(removexattr("prog", ATTR));
    AS_USER("./prog", PLAIN);
}

TEST(inheritable_of_both)
{
    need_program("prog", 0755);
    OK(set_v2("prog", 0, CAPS, true));
    AS_USER("./prog", "p=0 e=0 a=0 secure=1 dump=1 euid=54321");
    pid_t pid = conf_fork();
    if (pid == 0) {
        uint64_t caps[3];
        caps_get(caps);
        OK(prctl(PR_SET_KEEPCAPS, 1));
        become_user();
        OK(caps_set(0, BIT(CAP_KILL), BIT(CAP_KILL)));
        OK(caps_set(0, 0, BIT(CAP_KILL)));
        run("./prog", "p=20 e=20 a=0 secure=1 dump=0 euid=54321");
    }
    CHECK_EXIT(pid, 0);
}

TEST(bounding_set_cuts)
{
    need_program("prog", 0755);
    OK(set_v2("prog", CAPS, 0, false));
    OK(prctl(PR_CAPBSET_DROP, CAP_NET_RAW));
    AS_USER("./prog", "p=20 e=0 a=0 secure=1 dump=0 euid=54321");
    /* A program that does not know about capabilities is not run with fewer. */
    OK(set_v2("prog", CAPS, 0, true));
    pid_t pid = conf_fork();
    if (pid == 0) {
        become_user();
        run("./prog", "");
    }
    CHECK_EXIT(pid, 100 + EPERM);
}

TEST(ambient_goes)
{
    need_program("prog", 0755);
    OK(set_v2("prog", BIT(CAP_NET_RAW), 0, false));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(prctl(PR_SET_KEEPCAPS, 1));
        become_user();
        OK(caps_set(BIT(CAP_KILL), BIT(CAP_KILL), BIT(CAP_KILL)));
        OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
        run("./prog", "p=2000 e=0 a=0 secure=1 dump=0 euid=54321");
    }
    CHECK_EXIT(pid, 0);
    OK(removexattr("prog", ATTR));
    pid = conf_fork();
    if (pid == 0) {
        OK(prctl(PR_SET_KEEPCAPS, 1));
        become_user();
        OK(caps_set(BIT(CAP_KILL), BIT(CAP_KILL), BIT(CAP_KILL)));
        OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
        run("./prog", "p=20 e=20 a=20 secure=0 dump=1 euid=54321");
    }
    CHECK_EXIT(pid, 0);
}

TEST(no_new_privs_and_nosuid)
{
    need_program("prog", 0755);
    OK(set_v2("prog", CAPS, 0, false));
    AS_USER("./prog", "p=0 e=0 a=0 secure=0 dump=1 euid=54321",
            OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)));
    OK(unshare(CLONE_NEWNS));
    OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(mkdir("there", 0755));
    OK(mount(".", "there", NULL, MS_BIND, NULL));
    AS_USER("there/prog", "p=2020 e=0 a=0 secure=1 dump=0 euid=54321");
    OK(mount(NULL, "there", NULL, MS_BIND | MS_REMOUNT | MS_NOSUID, NULL));
    AS_USER("there/prog", PLAIN);
    OK(umount("there"));
}

TEST(with_the_set_user_id_bit)
{
    need_program("prog", 04755);
    OK(set_v2("prog", CAPS, 0, true));
    AS_USER("./prog", "p=2020 e=2020 a=0 secure=1 dump=0 euid=0");
}

TEST(root_without_its_powers)
{
    need_program("prog", 0755);
    OK(set_v2("prog", CAPS, 0, true));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT));
        /* Nothing is gained, and root's own programs are not "secure". */
        run("./prog", "p=2020 e=2020 a=0 secure=0 dump=1 euid=0");
    }
    CHECK_EXIT(pid, 0);
}

TEST(a_tracer_or_a_shared_directory)
{
    need_program("prog", 0755);
    OK(set_v2("prog", CAPS, 0, false));
    pid_t pid = conf_fork();
    if (pid == 0) {
        become_user();
        pid_t child = conf_fork();
        if (child == 0) {
            OK(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
            run("./prog", PLAIN);
        }
        int status = conf_wait(child);
        CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
        OK(ptrace(PTRACE_CONT, child, NULL, NULL));
        CHECK_EXIT(child, 0);
        child = (pid_t)syscall(SYS_clone, CLONE_FS | SIGCHLD, NULL, NULL, NULL, NULL);
        if (child == 0)
            run("./prog", PLAIN);
        CHECK_EXIT(child, 0);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    /* A tracer that may all the same. */
    pid = conf_fork();
    if (pid == 0) {
        OK(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
        become_user();
        run("./prog", "p=2020 e=0 a=0 secure=1 dump=0 euid=54321");
    }
    int status = conf_wait(pid);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    OK(ptrace(PTRACE_CONT, pid, NULL, NULL));
    CHECK_EXIT(pid, 0);
}

TEST(writing_takes_them_away)
{
    char buf[64];

    need_program("prog", 0755);
    OK(set_v2("prog", CAPS, 0, true));
    CHECK_EQ(getxattr("prog", ATTR, buf, sizeof(buf)), XATTR_CAPS_SZ_2);
    int fd = OK(open("prog", O_WRONLY));
    CHECK_EQ(getxattr("prog", ATTR, buf, sizeof(buf)), XATTR_CAPS_SZ_2);
    CHECK_EQ(pwrite(fd, "\177", 1, 0), 1);
    CHECK_ERRNO(getxattr("prog", ATTR, buf, sizeof(buf)), ENODATA);
    OK(set_v2("prog", CAPS, 0, true));
    OK(fchmod(fd, 0755));
    CHECK_EQ(getxattr("prog", ATTR, buf, sizeof(buf)), XATTR_CAPS_SZ_2);
    OK(fchown(fd, UID_A, UID_A));
    CHECK_ERRNO(getxattr("prog", ATTR, buf, sizeof(buf)), ENODATA);
    OK(set_v2("prog", CAPS, 0, true));
    OK(ftruncate(fd, 10));
    CHECK_ERRNO(getxattr("prog", ATTR, buf, sizeof(buf)), ENODATA);
    OK(close(fd));
}

TEST(values_are_checked)
{
    struct vfs_ns_cap_data d = {.magic_etc = htole32(VFS_CAP_REVISION_2)};

    need_program("prog", 0755);
    CHECK_ERRNO(setxattr("prog", ATTR, &d, 4, 0), EINVAL);
    CHECK_ERRNO(setxattr("prog", ATTR, &d, XATTR_CAPS_SZ_3, 0), EINVAL);
    OK(setxattr("prog", ATTR, NULL, 0, 0));
    pid_t pid = conf_fork();
    if (pid == 0)
        run("./prog", "");
    CHECK_EXIT(pid, 100 + EINVAL);
    d.magic_etc = htole32(VFS_CAP_REVISION_1);
    CHECK_ERRNO(setxattr("prog", ATTR, &d, XATTR_CAPS_SZ_1, 0), EINVAL);
    OK(set_v3("prog", CAPS, 0));
    CHECK_EQ(getxattr("prog", ATTR, &d, sizeof(d)), XATTR_CAPS_SZ_2);
    CHECK_EQ(getxattr("prog", ATTR, NULL, 0), XATTR_CAPS_SZ_2);
    CHECK_ERRNO(getxattr("prog", ATTR, &d, 4), ERANGE);
    CHECK_ERRNO(setxattr("prog", ATTR, &d, XATTR_CAPS_SZ_2, XATTR_CREATE), EEXIST);
    pid = conf_fork();
    if (pid == 0) {
        become_user();
        CHECK_ERRNO(set_v2("prog", CAPS, 0, true), EPERM);
        CHECK_ERRNO(removexattr("prog", ATTR), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

static void map_to(pid_t pid, const char *which, unsigned int outside)
{
    char path[64], text[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, which);
    snprintf(text, sizeof(text), "0 %u 10\n", outside);
    int fd = OK(open(path, O_WRONLY));
    CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
    OK(close(fd));
}

/* What root of a namespace gives counts in it alone. */
TEST(of_a_user_namespace)
{
    struct vfs_ns_cap_data d;
    int *step = conf_shared(sizeof(*step));

    need_program("prog", 0755);
    OK(chown("prog", UID_A, UID_A));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(unshare(CLONE_NEWUSER));
        *step = 1;
        conf_await(step, 2);
        OK(setresgid(0, 0, 0));
        OK(setresuid(0, 0, 0));
        OK(set_v2("prog", CAPS, 0, true));
        CHECK_EQ(getxattr("prog", ATTR, &d, sizeof(d)), XATTR_CAPS_SZ_2);
        CHECK_ERRNO(set_v3("prog", CAPS, 77), EINVAL);
        pid_t child = conf_fork();
        if (child == 0) {
            OK(setresgid(1, 1, 1));
            OK(setresuid(1, 1, 1));
            run("./prog", "p=2020 e=2020 a=0 secure=1 dump=0 euid=1");
        }
        CHECK_EXIT(child, 0);
        *step = 3;
        conf_await(step, 4);
        CHECK_ERRNO(getxattr("prog", ATTR, &d, sizeof(d)), EOVERFLOW);
        child = conf_fork();
        if (child == 0) {
            OK(setresgid(1, 1, 1));
            OK(setresuid(1, 1, 1));
            run("./prog", "p=0 e=0 a=0 secure=0 dump=1 euid=1");
        }
        CHECK_EXIT(child, 0);
        _exit(0);
    }
    conf_await(step, 1);
    map_to(pid, "uid_map", UID_A);
    map_to(pid, "gid_map", UID_A);
    *step = 2;
    conf_await(step, 3);
    CHECK_EQ(getxattr("prog", ATTR, &d, sizeof(d)), XATTR_CAPS_SZ_3);
    CHECK_EQ(le32toh(d.rootid), UID_A);
    CHECK_EQ(le32toh(d.magic_etc), VFS_CAP_REVISION_3 | VFS_CAP_FLAGS_EFFECTIVE);
    AS_USER("./prog", PLAIN);
    OK(set_v3("prog", CAPS, UID_A + 1000));
    *step = 4;
    CHECK_EXIT(pid, 0);
}
