/* The gofer's exports as they follow from a spec. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runsc/sandbox/mounts.h"

static char bundle[] = "/tmp/ringwall-mounts-XXXXXX";
static char rootfs[64];
static struct oci_mount mounts[4];
static struct oci_spec spec;
static struct sandbox_args args;
static const int channels[GOFER_CHANNELS] = {10, 11, 12, 13, 14};

static const char *at(const char *rel)
{
    static char path[4][256];
    static unsigned turn;
    char *p = path[turn++ % 4];

    snprintf(p, sizeof(path[0]), "%s/%s", bundle, rel);
    return p;
}

static void up(void)
{
    snprintf(bundle, sizeof(bundle), "/tmp/ringwall-mounts-XXXXXX");
    cr_assert(mkdtemp(bundle));
    snprintf(rootfs, sizeof(rootfs), "%s/rootfs", bundle);
    cr_assert_eq(mkdir(rootfs, 0755), 0);
    cr_assert_eq(mkdir(at("data"), 0755), 0);
    close(open(at("file"), O_CREAT | O_WRONLY, 0644));
    mounts[0] = (struct oci_mount){.destination = "/proc", .type = "proc", .source = "proc"};
    mounts[1] = (struct oci_mount){.destination = "/a/data",
                                   .type = "bind",
                                   .source = "data",
                                   .flags = MS_BIND | MS_REC | MS_RDONLY};
    mounts[2] = (struct oci_mount){.destination = "/tmp", .type = "tmpfs", .source = "tmpfs"};
    mounts[3] = (struct oci_mount){.destination = "/etc/file", .source = "file", .flags = MS_BIND};
    spec = (struct oci_spec){.mounts = mounts, .mount_count = 4};
    args = (struct sandbox_args){.spec = &spec, .bundle = bundle, .rootfs = rootfs, .log_fd = 7};
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st, (void)type, (void)where;
    return remove(path);
}

static void down(void)
{
    cr_assert_eq(nftw(bundle, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

TestSuite(mounts, .init = up, .fini = down);

Test(mounts, exports)
{
    struct gofer_config cfg;
    struct err e;

    cr_assert_eq(mounts_gofer_config(&args, channels, GOFER_CHANNELS, &cfg, &e), 0);
    cr_assert_eq(cfg.export_count, 3);
    cr_assert_eq(cfg.channel_count, GOFER_CHANNELS);
    cr_assert_eq(cfg.channels[3], 13);
    cr_assert_eq(cfg.log_fd, 7);
    cr_assert_str_eq(cfg.exports[0].path, rootfs);
    cr_assert(!cfg.exports[0].readonly);
    cr_assert(cfg.exports[0].recursive);
    cr_assert_str_eq(cfg.exports[1].path, at("data"), "relative to the bundle");
    cr_assert(cfg.exports[1].readonly);
    cr_assert(cfg.exports[1].recursive);
    cr_assert_str_eq(cfg.exports[2].path, at("file"));
    cr_assert(!cfg.exports[2].readonly);
    cr_assert(!cfg.exports[2].recursive);
    cr_assert_eq(mounts_export(args.spec, 0), -1);
    cr_assert_eq(mounts_export(args.spec, 1), 1);
    cr_assert_eq(mounts_export(args.spec, 2), -1);
    cr_assert_eq(mounts_export(args.spec, 3), 2);
    cr_assert_eq(mounts_export(args.spec, 4), -1);
    mounts_gofer_config_free(&cfg);
}

static void expect_error(const char *words)
{
    struct gofer_config cfg;
    struct err e = {0};

    cr_assert_eq(mounts_gofer_config(&args, channels, GOFER_CHANNELS, &cfg, &e), -1);
    cr_assert(strstr(e.text, words), "%s", e.text);
}

Test(mounts, source_that_does_not_exist)
{
    mounts[3].source = "absent";
    expect_error("mounts[3].source: absent: no such file or directory");
}

Test(mounts, no_source)
{
    mounts[1].source = NULL;
    expect_error("mounts[1].source");
}

Test(mounts, places_in_a_readonly_root)
{
    struct gofer_config cfg;
    struct stat st;
    struct err e;

    /* A link out of the root file system leads nowhere. */
    cr_assert_eq(symlink("../..", at("rootfs/tmp")), 0);
    mounts[2].destination = "/tmp/out";
    spec.root_readonly = true;
    cr_assert_eq(mounts_gofer_config(&args, channels, GOFER_CHANNELS, &cfg, &e), 0);
    cr_assert(cfg.exports[0].readonly);
    mounts_gofer_config_free(&cfg);
    cr_assert_eq(stat(at("rootfs/proc"), &st), 0);
    cr_assert(S_ISDIR(st.st_mode));
    cr_assert_eq(stat(at("rootfs/a/data"), &st), 0);
    cr_assert(S_ISDIR(st.st_mode));
    cr_assert_eq(stat(at("rootfs/etc/file"), &st), 0);
    cr_assert(S_ISREG(st.st_mode));
    cr_assert_eq(stat("/tmp/out", &st), -1);
    cr_assert_eq(stat(at("out"), &st), -1);
    cr_assert_eq(stat(at("rootfs/out"), &st), 0, "inside the root all the same");
}

Test(mounts, nothing_is_made_in_a_writable_root)
{
    struct gofer_config cfg;
    struct stat st;
    struct err e;

    cr_assert_eq(mounts_gofer_config(&args, channels, GOFER_CHANNELS, &cfg, &e), 0);
    mounts_gofer_config_free(&cfg);
    cr_assert_eq(stat(at("rootfs/proc"), &st), -1, "boot makes it through the gofer");
}
