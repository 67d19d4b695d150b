/* The gofer as a process: what it may still do works, and what it holds is what it should. */
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "gofer_fixture.h"

static pid_t gofer;

static void start(uid_t uid)
{
    int mine[GOFER_CHANNELS];

    fx_prepare(mine);
    if (uid) {
        cr_assert_eq(chown(fx.base, uid, uid), 0);
        cr_assert_eq(chown(fx_path("rw"), uid, uid), 0);
    }
    struct gofer_export exports[2] = {
        {.path = fx_path("rw"), .readonly = false, .recursive = true},
        {.path = fx_path("ro"), .readonly = true},
    };
    struct gofer_config cfg = {.channel_count = GOFER_CHANNELS,
                               .exports = exports,
                               .export_count = 2,
                               .log_fd = 2,
                               .peer_fd = -1};
    memcpy(cfg.channels, fx.socks, sizeof(cfg.channels));
    gofer = fork();
    if (gofer == 0) {
        if (uid && (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid)))
            _exit(100);
        for (int i = 0; i < GOFER_CHANNELS; i++)
            close(mine[i]);
        _exit(gofer_main(&cfg));
    }
    for (int i = 0; i < GOFER_CHANNELS; i++)
        close(fx.socks[i]);
    fx_connect(mine);
}

static void finish(void)
{
    int status;

    gof_client_put(fx.client);
    cr_assert_eq(waitpid(gofer, &status, 0), gofer);
    cr_assert(WIFEXITED(status), "status %x", status);
    cr_assert_eq(WEXITSTATUS(status), 0);
    fx_clean();
}

static int no_entry(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype)
{
    (void)len, (void)ino, (void)dtype;
    if (strcmp(name, "f") == 0)
        ++*(int *)arg;
    return 0;
}

static void exercise_files(bool owners)
{
    struct gof_client *c = fx.client;
    struct gof_node d, f, n;
    struct gof_attr a;
    struct gof_statfs fs;
    char text[64];
    int fd, seen = 0;
    uint64_t parent = 0;
    bool end;
    uint32_t uid = owners ? 1234 : 0;

    cr_assert_eq(gof_create(c, fx.rw.handle, "d", S_IFDIR | 0755, 0, uid, uid, &d, NULL), 0);
    cr_assert_eq(gof_create(c, d.handle, "f", S_IFREG | 0640, 0, uid, uid, &f, &fd), 0);
    cr_assert_eq(pwrite(fd, "text", 4, 0), 4);
    close(fd);
    cr_assert_eq(gof_create(c, d.handle, "p", S_IFIFO | 0600, 0, uid, uid, &n, NULL), 0);
    cr_assert_eq(gof_create(c, d.handle, "s", S_IFSOCK | 0600, 0, uid, uid, &n, NULL), 0);
    cr_assert_eq(gof_open(c, f.handle, false, &fd), 0);
    close(fd);
    cr_assert_eq(gof_open(c, f.handle, true, &fd), 0);
    close(fd);
    cr_assert_eq(gof_symlink(c, d.handle, "l", "f", uid, uid, &n), 0);
    cr_assert_eq(gof_readlink(c, n.handle, text, sizeof(text)), 1);
    cr_assert_eq(gof_link(c, d.handle, "h", f.handle, &a), 0);
    cr_assert_eq(a.uid, owners ? 1234 : a.uid);
    cr_assert_eq(gof_rename(c, d.handle, "h", fx.rw.handle, "h", 0), 0);
    cr_assert_eq(gof_unlink(c, fx.rw.handle, "h", false), 0);
    cr_assert_eq(gof_unlink(c, d.handle, "f", true), -ENOTDIR);
    cr_assert_eq(gof_getdents(c, d.handle, true, no_entry, &seen, &end, &parent), 0);
    cr_assert(end);
    cr_assert_eq(seen, 1);
    struct gof_setattr s = {.valid = GOF_SET_SIZE | GOF_SET_MODE | GOF_SET_ATIME_NOW |
                                     (owners ? GOF_SET_UID | GOF_SET_GID : 0),
                            .mode = 0600,
                            .uid = 4321,
                            .gid = 4321,
                            .size = 2};
    cr_assert_eq(gof_set_attr(c, f.handle, &s, &a), 0);
    cr_assert_eq(a.size, 2);
    cr_assert_eq(a.uid, owners ? 4321 : a.uid);
    cr_assert_eq(gof_stat(c, f.handle, &a), 0);
    cr_assert_eq(gof_statfs(c, f.handle, &fs), 0);
    int r = gof_setxattr(c, f.handle, "user.x", "v", 1, 0);
    cr_assert(r == 0 || r == -EOPNOTSUPP);
    cr_assert_eq(gof_getxattr(c, f.handle, "user.x", text, sizeof(text)), r ? r : 1);
    cr_assert_eq(gof_listxattr(c, f.handle, text, sizeof(text)), r ? 0 : 7);
    cr_assert_eq(gof_removexattr(c, f.handle, "user.x"), r);
    cr_assert_eq(gof_fsync(c, f.handle, true), 0);
    cr_assert_eq(gof_fsync(c, d.handle, false), 0);
    cr_assert_eq(gof_syncfs(c, f.handle), 0);
    cr_assert_eq(gof_syncfs(c, d.handle), 0);
    gof_close(c, f.handle);
    gof_flush(c);
}

static void exercise_readonly(void)
{
    struct gof_client *c = fx.client;
    struct gof_setattr s = {.valid = GOF_SET_MODE, .mode = 0777};
    struct gof_node f, n;
    struct gof_attr a;
    char buf[16];
    int fd;

    cr_assert_eq(fx_walk1(fx.ro.handle, "file", &f), 0);
    cr_assert_eq(gof_open(c, f.handle, false, &fd), 0);
    cr_assert_eq(pread(fd, buf, sizeof(buf), 0), 9);
    close(fd);
    cr_assert_eq(gof_open(c, f.handle, true, &fd), -EROFS);
    cr_assert_eq(gof_create(c, fx.ro.handle, "x", S_IFREG | 0600, 0, 0, 0, &n, NULL), -EROFS);
    cr_assert_eq(gof_symlink(c, fx.ro.handle, "x", "y", 0, 0, &n), -EROFS);
    cr_assert_eq(gof_unlink(c, fx.ro.handle, "file", false), -EROFS);
    cr_assert_eq(gof_rename(c, fx.ro.handle, "file", fx.ro.handle, "g", 0), -EROFS);
    cr_assert_eq(gof_rename(c, fx.ro.handle, "file", fx.rw.handle, "g", 0), -EROFS);
    cr_assert_eq(gof_link(c, fx.rw.handle, "x", f.handle, &a), -EXDEV);
    cr_assert_eq(gof_set_attr(c, f.handle, &s, &a), -EROFS);
    cr_assert_eq(gof_setxattr(c, f.handle, "user.x", "v", 1, 0), -EROFS);
    cr_assert_eq(gof_removexattr(c, f.handle, "user.x"), -EROFS);
}

/* The value after "name:" in /proc/<gofer>/status. */
static void status_field(const char *name, char *out, size_t size)
{
    char path[64], line[256];

    snprintf(path, sizeof(path), "/proc/%d/status", (int)gofer);
    FILE *f = fopen(path, "r");
    cr_assert(f);
    out[0] = '\0';
    while (fgets(line, sizeof(line), f))
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
            snprintf(out, size, "%s", line + strlen(name) + 2);
    out[strcspn(out, "\n")] = '\0';
    fclose(f);
}

static void expect_field(const char *name, const char *value)
{
    char found[128];

    status_field(name, found, sizeof(found));
    cr_assert_str_eq(found, value, "%s is %s", name, found);
}

#ifndef __SANITIZE_THREAD__
/* A new gofer serves before the last of its threads has begun. */
static void expect_threads(const char *count)
{
    char found[128] = "";

    for (int i = 0; i < 60000 && strcmp(found, count) != 0; i++) {
        status_field("Threads", found, sizeof(found));
        usleep(1000);
    }
    cr_assert_str_eq(found, count, "%s threads", found);
}
#endif

static void expect_own_namespace(const char *name)
{
    char path[64], ours[64] = "", theirs[64] = "";

    snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)gofer, name);
    cr_assert_gt(readlink(path, theirs, sizeof(theirs) - 1), 0);
    snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
    cr_assert_gt(readlink(path, ours, sizeof(ours) - 1), 0);
    cr_assert_str_neq(ours, theirs, "%s", name);
}

static void expect_confined(const char *caps)
{
    char path[64];
    struct stat st;

    expect_field("Seccomp", "2");
    expect_field("NoNewPrivs", "1");
    expect_field("CapEff", caps);
    expect_field("CapPrm", caps);
    expect_field("CapBnd", caps);
    expect_field("CapInh", "0000000000000000");
    expect_field("CapAmb", "0000000000000000");
#ifndef __SANITIZE_THREAD__
    expect_threads("5");
#endif
    expect_own_namespace("mnt");
    expect_own_namespace("net");
    expect_own_namespace("ipc");
    expect_own_namespace("uts");
    snprintf(path, sizeof(path), "/proc/%d/root/etc", (int)gofer);
    cr_assert_eq(stat(path, &st), -1, "its root holds nothing");
}

/* CHOWN DAC_OVERRIDE FOWNER FSETID SETFCAP */
#define FILE_CAPS "000000008000001b"

Test(gofer_process, serves_and_is_confined)
{
    start(0);
    expect_confined(FILE_CAPS);
    exercise_files(true);
    exercise_readonly();
    expect_confined(FILE_CAPS);
    finish();
}

/* The thread sanitizer's own thread is in the way of a user namespace. */
#ifndef __SANITIZE_THREAD__
Test(gofer_process, without_privileges)
{
    start(12345);
    exercise_files(false);
    exercise_readonly();
    expect_confined(FILE_CAPS);
    expect_own_namespace("user");
    finish();
}
#endif

/* The host's own root as a container's: its files are there, its kernel is not. */
Test(gofer_process, root_of_the_host)
{
    static char slash[] = "/";
    static const char *const stat_file[] = {"proc", "stat"}, *const shell[] = {"bin", "sh"};
    struct gofer_export export = {.path = slash, .readonly = true, .recursive = true};
    struct gofer_config cfg = {.channel_count = GOFER_CHANNELS,
                               .exports = &export,
                               .export_count = 1,
                               .log_fd = 2,
                               .peer_fd = -1};
    int mine[GOFER_CHANNELS], why;
    struct gof_node root, n[2];
    bool readonly;
    size_t done;

    fx_prepare(mine);
    memcpy(cfg.channels, fx.socks, sizeof(cfg.channels));
    gofer = fork();
    if (gofer == 0)
        _exit(gofer_main(&cfg));
    for (int i = 0; i < GOFER_CHANNELS; i++)
        close(fx.socks[i]);
    cr_assert_eq(gof_client_new(mine, GOFER_CHANNELS, &fx.client), 0);
    cr_assert_eq(gof_attach(fx.client, 0, &readonly, &root), 0);
    cr_assert(readonly);
    cr_assert_eq(gof_walk(fx.client, root.handle, stat_file, 2, n, &done, &why), 0);
    cr_assert_eq(done, 1, "/proc is an empty directory");
    cr_assert_eq(why, -ENOENT);
    cr_assert_eq(gof_walk(fx.client, root.handle, shell, 2, n, &done, &why), 0);
    cr_assert(done == 2 || S_ISLNK(n[0].attr.mode));
    kill(gofer, SIGKILL);
    cr_assert_eq(waitpid(gofer, NULL, 0), gofer);
    gof_client_put(fx.client);
    fx_clean();
}

Test(gofer_process, killed_gofer_is_noticed)
{
    struct gof_attr a;

    start(0);
    cr_assert_eq(kill(gofer, SIGKILL), 0);
    cr_assert_eq(waitpid(gofer, NULL, 0), gofer);
    cr_assert_eq(gof_stat(fx.client, fx.rw.handle, &a), -EIO);
    cr_assert(gof_client_dead(fx.client));
    gof_client_put(fx.client);
    fx_clean();
}
