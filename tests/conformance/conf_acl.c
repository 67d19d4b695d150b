/* Access control lists: acl(5), and what chmod, creating and removing make of them (posix_acl.c and
 * vfs_set_acl of Linux). */
#define _GNU_SOURCE
#include <endian.h>
#include <grp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include "harness.h"

CONF_FAMILY("acl");

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"
#define USER_OBJ 0x01
#define USER 0x02
#define GROUP_OBJ 0x04
#define GROUP 0x08
#define MASK 0x10
#define OTHER 0x20
#define NOBODY UINT32_MAX
#define UID_A 54321u
#define UID_B 54322u
#define GID_C 54333u

struct entry {
    uint16_t tag, perm;
    uint32_t id;
};
struct acl {
    uint32_t version;
    struct entry e[16];
};

static size_t pack(struct acl *out, const struct entry *e, size_t count)
{
    memset(out, 0, sizeof(*out));
    out->version = htole32(2);
    for (size_t i = 0; i < count; i++)
        out->e[i] = (struct entry){htole16(e[i].tag), htole16(e[i].perm), htole32(e[i].id)};
    return sizeof(uint32_t) + count * sizeof(struct entry);
}

static int acl_set(const char *path, const char *name, const struct entry *e, size_t count)
{
    struct acl a;
    size_t n = pack(&a, e, count);

    return setxattr(path, name, &a, n, 0);
}
#define SET(path, name, ...)                                                                       \
    acl_set(path, name, (const struct entry[]){__VA_ARGS__},                                       \
            ARRAY_SIZE(((const struct entry[]){__VA_ARGS__})))

/* The list is exactly this one. */
static void acl_is(int line, const char *path, const char *name, const struct entry *e,
                   size_t count)
{
    struct acl a = {0};
    ssize_t n = getxattr(path, name, &a, sizeof(a));

    if (n != (ssize_t)(sizeof(uint32_t) + count * sizeof(struct entry)))
        conf_fail(__FILE__, line, "%s of %s has %zd bytes (errno %d)", name, path, n, errno);
    CHECK_EQ(le32toh(a.version), 2);
    for (size_t i = 0; i < count; i++)
        if (le16toh(a.e[i].tag) != e[i].tag || le16toh(a.e[i].perm) != e[i].perm ||
            le32toh(a.e[i].id) != e[i].id)
            conf_fail(__FILE__, line, "%s of %s: entry %zu is %x:%u:%o", name, path, i, a.e[i].tag,
                      a.e[i].id, a.e[i].perm);
}
#define IS(path, name, ...)                                                                        \
    acl_is(__LINE__, path, name, (const struct entry[]){__VA_ARGS__},                              \
           ARRAY_SIZE(((const struct entry[]){__VA_ARGS__})))

static unsigned mode_of(const char *path)
{
    struct stat st;

    OK(lstat(path, &st));
    return st.st_mode & 07777;
}

static void start(void)
{
    NEED_ROOT();
    OK(chmod(".", 0755));
    OK(umask(0));
}

/* Somebody without capabilities, in the groups given. */
static pid_t as(uid_t uid, gid_t gid, gid_t more)
{
    pid_t pid = conf_fork();

    if (pid != 0)
        return pid;
    OK(setgroups(more != 0 ? 1 : 0, &more));
    OK(setresgid(gid, gid, gid));
    OK(setresuid(uid, uid, uid));
    return 0;
}

static void may(int line, const char *path, uid_t uid, gid_t gid, gid_t more, int mode, bool yes)
{
    pid_t pid = as(uid, gid, more);

    if (pid == 0) {
        int r = faccessat(AT_FDCWD, path, mode, AT_EACCESS);
        if ((r == 0) != yes || (r != 0 && errno != EACCES))
            conf_fail(__FILE__, line, "access %o of %s: %d (errno %d)", mode, path, r, errno);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}
#define MAY(path, uid, gid, more, mode) may(__LINE__, path, uid, gid, more, mode, true)
#define MAY_NOT(path, uid, gid, more, mode) may(__LINE__, path, uid, gid, more, mode, false)

TEST(named_user)
{
    start();
    conf_put("f", "x");
    OK(chmod("f", 0600));
    MAY_NOT("f", UID_A, UID_A, 0, R_OK);
    OK(SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 4, UID_A}, {GROUP_OBJ, 0, NOBODY},
           {MASK, 6, NOBODY}, {OTHER, 0, NOBODY}));
    MAY("f", UID_A, UID_A, 0, R_OK);
    MAY_NOT("f", UID_A, UID_A, 0, W_OK);
    MAY_NOT("f", UID_B, UID_B, 0, R_OK);
    /* The group's bits show the mask. */
    CHECK_EQ(mode_of("f"), 0660);
    /* Group root has what GROUP_OBJ says, not what the mode says. */
    MAY_NOT("f", UID_B, 0, 0, R_OK);
    /* A named user gets no more through his groups. */
    MAY_NOT("f", UID_A, 0, 0, W_OK);
}

TEST(named_group)
{
    start();
    conf_put("f", "x");
    OK(SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {GROUP_OBJ, 4, NOBODY}, {GROUP, 2, GID_C},
           {MASK, 7, NOBODY}, {OTHER, 0, NOBODY}));
    MAY("f", UID_A, GID_C, 0, W_OK);
    MAY("f", UID_A, UID_A, GID_C, W_OK);
    MAY_NOT("f", UID_A, GID_C, 0, R_OK);
    MAY("f", UID_A, 0, GID_C, R_OK);
    MAY("f", UID_A, 0, GID_C, W_OK);
    /* One entry must give everything that is asked for. */
    MAY_NOT("f", UID_A, 0, GID_C, R_OK | W_OK);
    /* In a group with an entry: what others may does not count. */
    OK(SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {GROUP_OBJ, 0, NOBODY}, {GROUP, 0, GID_C},
           {MASK, 7, NOBODY}, {OTHER, 6, NOBODY}));
    MAY_NOT("f", UID_A, GID_C, 0, R_OK);
    MAY("f", UID_A, UID_A, 0, R_OK | W_OK);
}

TEST(mask_limits)
{
    start();
    conf_put("f", "x");
    OK(SET("f", ACCESS, {USER_OBJ, 7, NOBODY}, {USER, 7, UID_A}, {GROUP_OBJ, 7, NOBODY},
           {GROUP, 7, GID_C}, {MASK, 4, NOBODY}, {OTHER, 2, NOBODY}));
    CHECK_EQ(mode_of("f"), 0742);
    MAY("f", UID_A, UID_A, 0, R_OK);
    MAY_NOT("f", UID_A, UID_A, 0, W_OK);
    MAY_NOT("f", UID_B, GID_C, 0, W_OK);
    MAY_NOT("f", UID_B, 0, 0, W_OK);
    MAY("f", UID_B, UID_B, 0, W_OK);
    /* An empty mask: Linux does not look at the list, and the mode says no. */
    OK(chmod("f", 0702));
    MAY_NOT("f", UID_A, UID_A, 0, R_OK);
}

TEST(open_and_walk)
{
    start();
    OK(mkdir("d", 0700));
    conf_put("d/f", "x");
    OK(chmod("d/f", 0644));
    pid_t pid = as(UID_A, UID_A, 0);
    if (pid == 0) {
        CHECK_ERRNO(open("d/f", O_RDONLY), EACCES);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(SET("d", ACCESS, {USER_OBJ, 7, NOBODY}, {USER, 1, UID_A}, {GROUP_OBJ, 0, NOBODY},
           {MASK, 7, NOBODY}, {OTHER, 0, NOBODY}));
    pid = as(UID_A, UID_A, 0);
    if (pid == 0) {
        OK(open("d/f", O_RDONLY));
        CHECK_ERRNO(open("d/f", O_WRONLY), EACCES);
        CHECK_ERRNO(open("d", O_RDONLY), EACCES);
        CHECK_ERRNO(open("d/g", O_CREAT | O_WRONLY, 0600), EACCES);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(SET("d", ACCESS, {USER_OBJ, 7, NOBODY}, {USER, 7, UID_A}, {GROUP_OBJ, 0, NOBODY},
           {MASK, 7, NOBODY}, {OTHER, 0, NOBODY}));
    pid = as(UID_A, UID_A, 0);
    if (pid == 0) {
        OK(open("d/g", O_CREAT | O_WRONLY, 0600));
        OK(unlink("d/f"));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK(!conf_exists("d/f"));
}

TEST(equivalent_to_mode)
{
    start();
    conf_put("f", "x");
    OK(SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {GROUP_OBJ, 5, NOBODY}, {OTHER, 4, NOBODY}));
    CHECK_EQ(mode_of("f"), 0654);
    /* Three entries are nothing that a mode does not say: none is kept. */
    CHECK_ERRNO(getxattr("f", ACCESS, NULL, 0), ENODATA);
    OK(mkdir("d", 0755));
    OK(SET("d", DEFAULT, {USER_OBJ, 6, NOBODY}, {GROUP_OBJ, 5, NOBODY}, {OTHER, 4, NOBODY}));
    IS("d", DEFAULT, {USER_OBJ, 6, NOBODY}, {GROUP_OBJ, 5, NOBODY}, {OTHER, 4, NOBODY});
    CHECK_EQ(mode_of("d"), 0755);
}

TEST(chmod_changes_mask)
{
    start();
    conf_put("f", "x");
    OK(SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 6, UID_A}, {GROUP_OBJ, 4, NOBODY},
           {MASK, 6, NOBODY}, {OTHER, 0, NOBODY}));
    OK(chmod("f", 0741));
    IS("f", ACCESS, {USER_OBJ, 7, NOBODY}, {USER, 6, UID_A}, {GROUP_OBJ, 4, NOBODY},
       {MASK, 4, NOBODY}, {OTHER, 1, NOBODY});
    MAY_NOT("f", UID_A, UID_A, 0, W_OK);
    OK(chmod("f", 0770));
    MAY("f", UID_A, UID_A, 0, W_OK);
    MAY_NOT("f", UID_B, 0, 0, W_OK);
    int fd = OK(open("f", O_RDONLY));
    OK(fchmod(fd, 0600));
    IS("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 6, UID_A}, {GROUP_OBJ, 4, NOBODY},
       {MASK, 0, NOBODY}, {OTHER, 0, NOBODY});
    OK(chown("f", UID_B, UID_B));
    IS("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 6, UID_A}, {GROUP_OBJ, 4, NOBODY},
       {MASK, 0, NOBODY}, {OTHER, 0, NOBODY});
}

#define DEFAULTS                                                                                   \
    {USER_OBJ, 7, NOBODY}, {USER, 6, UID_A}, {GROUP_OBJ, 5, NOBODY}, {MASK, 7, NOBODY},            \
    {                                                                                              \
        OTHER, 5, NOBODY                                                                           \
    }

TEST(inherited)
{
    start();
    OK(mkdir("d", 0700));
    OK(SET("d", DEFAULT, DEFAULTS));
    CHECK_EQ(mode_of("d"), 0700);
    OK(umask(077));
    conf_put("d/f", "x");
    /* Made with 0666 or 0644: what both allow, whatever the umask. */
    OK(close(OK(open("d/g", O_CREAT | O_WRONLY, 0640))));
    CHECK_EQ(mode_of("d/g"), 0640);
    IS("d/g", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 6, UID_A}, {GROUP_OBJ, 5, NOBODY},
       {MASK, 4, NOBODY}, {OTHER, 0, NOBODY});
    CHECK_ERRNO(getxattr("d/g", DEFAULT, NULL, 0), ENODATA);
    OK(mkdir("d/sub", 0777));
    CHECK_EQ(mode_of("d/sub"), 0775);
    IS("d/sub", ACCESS, DEFAULTS);
    IS("d/sub", DEFAULT, DEFAULTS);
    OK(mkdir("d/sub/sub", 0700));
    CHECK_EQ(mode_of("d/sub/sub"), 0700);
    IS("d/sub/sub", DEFAULT, DEFAULTS);
    OK(symlink("x", "d/link"));
    CHECK_ERRNO(lgetxattr("d/link", ACCESS, NULL, 0), EOPNOTSUPP);
    CHECK_ERRNO(lsetxattr("d/link", ACCESS, "", 0, 0), EOPNOTSUPP);
    /* Removed: the umask counts again. */
    OK(removexattr("d", DEFAULT));
    OK(close(OK(open("d/h", O_CREAT | O_WRONLY, 0666))));
    CHECK_EQ(mode_of("d/h"), 0600);
    CHECK_ERRNO(getxattr("d/h", ACCESS, NULL, 0), ENODATA);
}

TEST(inherited_minimal)
{
    start();
    OK(mkdir("d", 0700));
    OK(SET("d", DEFAULT, {USER_OBJ, 7, NOBODY}, {GROUP_OBJ, 4, NOBODY}, {OTHER, 4, NOBODY}));
    OK(umask(077));
    OK(close(OK(open("d/f", O_CREAT | O_WRONLY, 0666))));
    CHECK_EQ(mode_of("d/f"), 0644);
    CHECK_ERRNO(getxattr("d/f", ACCESS, NULL, 0), ENODATA);
    OK(mkdir("d/sub", 0777));
    CHECK_EQ(mode_of("d/sub"), 0744);
    CHECK_ERRNO(getxattr("d/sub", ACCESS, NULL, 0), ENODATA);
    IS("d/sub", DEFAULT, {USER_OBJ, 7, NOBODY}, {GROUP_OBJ, 4, NOBODY}, {OTHER, 4, NOBODY});
}

TEST(inherited_setgid)
{
    start();
    OK(mkdir("d", 0755));
    OK(chown("d", 0, GID_C));
    OK(chmod("d", 02755));
    OK(SET("d", DEFAULT, DEFAULTS));
    CHECK_EQ(mode_of("d"), 02755);
    OK(mkdir("d/sub", 0700));
    CHECK_EQ(mode_of("d/sub"), 02700);
    struct stat st;
    OK(stat("d/sub", &st));
    CHECK_EQ(st.st_gid, GID_C);
}

TEST(inherited_tmpfile)
{
    start();
    OK(mkdir("d", 0755));
    OK(SET("d", DEFAULT, DEFAULTS));
    int fd = open("d", O_TMPFILE | O_RDWR, 0660);
    if (fd < 0 && errno == EOPNOTSUPP)
        return;
    CHECK(fd >= 0);
    struct acl a;
    struct stat st;
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_mode & 0777, 0660);
    CHECK_EQ(fgetxattr(fd, ACCESS, &a, sizeof(a)), 4 + 5 * 8);
}

TEST(inherited_other_kinds)
{
    start();
    OK(mkdir("d", 0755));
    OK(SET("d", DEFAULT, {USER_OBJ, 7, NOBODY}, {GROUP_OBJ, 4, NOBODY}, {OTHER, 0, NOBODY}));
    OK(umask(022));
    OK(mknod("d/fifo", S_IFIFO | 0666, 0));
    CHECK_EQ(mode_of("d/fifo"), 0640);
    struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = "d/sock"};
    int s = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(bind(s, (struct sockaddr *)&sa, sizeof(sa)));
    CHECK_EQ(mode_of("d/sock"), 0740);
}

TEST(removal)
{
    start();
    conf_put("f", "x");
    CHECK_ERRNO(getxattr("f", ACCESS, NULL, 0), ENODATA);
    OK(removexattr("f", ACCESS));
    OK(SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 6, UID_A}, {GROUP_OBJ, 4, NOBODY},
           {MASK, 6, NOBODY}, {OTHER, 0, NOBODY}));
    /* As setfacl -b does it: the mode stays what it was with the mask. */
    OK(removexattr("f", ACCESS));
    CHECK_EQ(mode_of("f"), 0660);
    CHECK_ERRNO(getxattr("f", ACCESS, NULL, 0), ENODATA);
    MAY_NOT("f", UID_A, UID_A, 0, R_OK);
    MAY("f", UID_B, 0, 0, W_OK);
    OK(mkdir("d", 0755));
    OK(SET("d", DEFAULT, DEFAULTS));
    struct acl empty = {.version = htole32(2)};
    OK(setxattr("d", DEFAULT, &empty, 4, 0));
    CHECK_ERRNO(getxattr("d", DEFAULT, NULL, 0), ENODATA);
    OK(removexattr("d", DEFAULT));
}

TEST(bad_lists)
{
    struct acl a;

    start();
    conf_put("f", "x");
    CHECK_ERRNO(setxattr("f", ACCESS, "abc", 3, 0), EINVAL);
    size_t n = pack(&a, (const struct entry[]){{USER_OBJ, 6, NOBODY}}, 1);
    CHECK_ERRNO(setxattr("f", ACCESS, &a, n, 0), EINVAL);
    n = pack(
        &a,
        (const struct entry[]){{USER_OBJ, 6, NOBODY}, {GROUP_OBJ, 6, NOBODY}, {OTHER, 6, NOBODY}},
        3);
    CHECK_ERRNO(setxattr("f", ACCESS, &a, n - 1, 0), EINVAL);
    a.version = htole32(3);
    CHECK_ERRNO(setxattr("f", ACCESS, &a, n, 0), EOPNOTSUPP);
    /* A named entry without a mask, two of one kind, an order that is none, bits that are none. */
    CHECK_ERRNO(SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 6, 1}, {GROUP_OBJ, 4, NOBODY},
                    {OTHER, 0, NOBODY}),
                EINVAL);
    CHECK_ERRNO(SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER_OBJ, 6, NOBODY},
                    {GROUP_OBJ, 4, NOBODY}, {OTHER, 0, NOBODY}),
                EINVAL);
    CHECK_ERRNO(SET("f", ACCESS, {GROUP_OBJ, 6, NOBODY}, {USER_OBJ, 6, NOBODY}, {OTHER, 0, NOBODY}),
                EINVAL);
    CHECK_ERRNO(SET("f", ACCESS, {USER_OBJ, 8, NOBODY}, {GROUP_OBJ, 4, NOBODY}, {OTHER, 0, NOBODY}),
                EINVAL);
    CHECK_ERRNO(SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {0x40, 4, NOBODY}, {GROUP_OBJ, 4, NOBODY},
                    {OTHER, 0, NOBODY}),
                EINVAL);
    CHECK_ERRNO(SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 6, NOBODY}, {GROUP_OBJ, 4, NOBODY},
                    {MASK, 4, NOBODY}, {OTHER, 0, NOBODY}),
                EINVAL);
    CHECK_ERRNO(SET("f", DEFAULT, DEFAULTS), EACCES);
    OK(removexattr("f", DEFAULT));
    CHECK_ERRNO(getxattr("f", DEFAULT, NULL, 0), ENODATA);
    CHECK_ERRNO(getxattr("f", "system.posix_acl_none", NULL, 0), EOPNOTSUPP);
    CHECK_ERRNO(setxattr("f", "system.posix_acl_none", "x", 1, 0), EOPNOTSUPP);
    CHECK_EQ(mode_of("f"), 0644);
}

TEST(owner_only)
{
    start();
    conf_put("f", "x");
    OK(chmod("f", 0666));
    OK(SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 7, UID_A}, {GROUP_OBJ, 4, NOBODY},
           {MASK, 7, NOBODY}, {OTHER, 6, NOBODY}));
    pid_t pid = as(UID_A, UID_A, 0);
    if (pid == 0) {
        CHECK_ERRNO(removexattr("f", ACCESS), EPERM);
        CHECK_ERRNO(
            SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {GROUP_OBJ, 4, NOBODY}, {OTHER, 0, NOBODY}),
            EPERM);
        /* Anybody may see it, whatever the file's mode. */
        struct acl a;
        CHECK_EQ(getxattr("f", ACCESS, &a, sizeof(a)), 4 + 5 * 8);
        CHECK_ERRNO(getxattr("f", ACCESS, &a, 10), ERANGE);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    /* Its owner may, and loses the set-group-ID bit of a group that is not his. */
    OK(chown("f", UID_A, GID_C));
    OK(chmod("f", 02775));
    pid = as(UID_A, UID_A, 0);
    if (pid == 0) {
        OK(SET("f", ACCESS, {USER_OBJ, 7, NOBODY}, {USER, 7, UID_B}, {GROUP_OBJ, 5, NOBODY},
               {MASK, 5, NOBODY}, {OTHER, 5, NOBODY}));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(mode_of("f"), 0755);
}

TEST(listed)
{
    char list[256];

    start();
    OK(mkdir("d", 0755));
    OK(SET("d", DEFAULT, DEFAULTS));
    OK(SET("d", ACCESS, DEFAULTS));
    ssize_t n = OK(listxattr("d", list, sizeof(list)));
    int seen = 0;
    for (ssize_t at = 0; at < n; at += (ssize_t)strlen(list + at) + 1)
        seen |= strcmp(list + at, ACCESS) == 0 ? 1 : strcmp(list + at, DEFAULT) == 0 ? 2 : 0;
    CHECK_EQ(seen, 3);
}

TEST(exec_by_list)
{
    start();
    conf_copy_self("prog", 0700);
    OK(SET("prog", ACCESS, {USER_OBJ, 7, NOBODY}, {USER, 5, UID_A}, {GROUP_OBJ, 0, NOBODY},
           {MASK, 7, NOBODY}, {OTHER, 0, NOBODY}));
    for (int k = 0; k < 2; k++) {
        pid_t pid = as(k == 0 ? UID_A : UID_B, UID_A, 0);
        if (pid == 0) {
            execl("./prog", "prog", "--list", NULL);
            _exit(errno == EACCES ? 77 : 1);
        }
        CHECK_EXIT(pid, k == 0 ? 0 : 77);
    }
}

TEST(rename_and_link_keep)
{
    start();
    conf_put("f", "x");
    OK(SET("f", ACCESS, DEFAULTS));
    OK(mkdir("d", 0755));
    OK(SET("d", DEFAULT, {USER_OBJ, 7, NOBODY}, {USER, 1, UID_B}, {GROUP_OBJ, 0, NOBODY},
           {MASK, 1, NOBODY}, {OTHER, 0, NOBODY}));
    OK(link("f", "d/l"));
    OK(rename("f", "d/f"));
    IS("d/f", ACCESS, DEFAULTS);
    IS("d/l", ACCESS, DEFAULTS);
}

/* While one changes the list, another who is always allowed is never refused. */
TEST(race_set_and_check)
{
    start();
    OK(mkdir("d", 0700));
    conf_put("d/f", "x");
    OK(chmod("d/f", 0644));
    OK(SET("d", ACCESS, {USER_OBJ, 7, NOBODY}, {USER, 1, UID_A}, {GROUP_OBJ, 0, NOBODY},
           {MASK, 5, NOBODY}, {OTHER, 0, NOBODY}));
    pid_t pid = as(UID_A, UID_A, 0);
    if (pid == 0) {
        for (int i = 0; i < 300; i++)
            OK(close(OK(open("d/f", O_RDONLY))));
        _exit(0);
    }
    for (unsigned i = 0; i < 300; i++)
        OK(SET("d", ACCESS, {USER_OBJ, 7, NOBODY}, {USER, 1, UID_A},
               {USER, (uint16_t)(i & 5), UID_B}, {GROUP_OBJ, 0, NOBODY}, {MASK, 5, NOBODY},
               {OTHER, 0, NOBODY}));
    CHECK_EXIT(pid, 0);
}
