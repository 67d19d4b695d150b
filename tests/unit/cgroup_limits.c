/* What is written into the files of a cgroup, in both kinds of hierarchy: into a directory that
 * stands for one, since no machine has every controller in both. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runsc/cgroup_priv.h"

static char dir[] = "/tmp/ringwall-cgroup-XXXXXX";

/* Files are not made by writing to them, as in the real thing. */
static void make_files(const char *first, ...)
{
    va_list ap;

    cr_assert_not_null(mkdtemp(dir));
    va_start(ap, first);
    for (const char *name = first; name != NULL; name = va_arg(ap, const char *)) {
        char path[256];
        (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        cr_assert_geq(fd, 0);
        (void)close(fd);
    }
    va_end(ap);
}

static void remove_files(void)
{
    DIR *d = opendir(dir);

    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.')
            cr_assert_eq(unlinkat(dirfd(d), e->d_name, 0), 0);
    if (d != NULL)
        (void)closedir(d);
    cr_assert_eq(rmdir(dir), 0);
}

/* Each file holds what was written last: a regular file keeps earlier bytes, so texts only grow. */
static void expect(const char *name, const char *text)
{
    char buf[256];

    cr_assert_eq(cgroup_read(dir, name, buf, sizeof(buf)), 0, "%s", name);
    cr_assert_str_eq(buf, text, "%s: %s", name, buf);
}

static struct oci_resources nothing(void)
{
    return (struct oci_resources){.present = true,
                                  .memory_limit = -1,
                                  .memory_reservation = -1,
                                  .memory_swap = -1,
                                  .cpu_quota = -1,
                                  .rt_runtime = -1,
                                  .pids_limit = -1};
}

static struct oci_resources everything(void)
{
    struct oci_resources r = nothing();

    r.memory_limit = 1 << 20;
    r.memory_reservation = 1 << 19;
    r.memory_swap = 3 << 20;
    r.cpu_shares = 1024;
    r.cpu_quota = 20000;
    r.cpu_period = 50000;
    r.cpu_burst = 1000;
    r.has_cpu_idle = true;
    r.cpuset_cpus = "0-1";
    r.cpuset_mems = "0";
    r.pids_limit = 10;
    r.blkio_weight = 200;
    return r;
}

static const struct hierarchy all_v2 = {
    .v2 = true, .memory = true, .cpu = true, .cpuset = true, .pids = true, .blkio = true};

TestSuite(cgroup_limits, .fini = remove_files);

Test(cgroup_limits, unified)
{
    struct oci_throttle throttles[] = {{OCI_BLKIO_READ_BPS, 8, 16, 1000}};
    struct str_pair files[] = {{"memory.high", "12345"}};
    struct oci_resources r = everything();
    struct err e;

    make_files("memory.max", "memory.swap.max", "memory.low", "memory.high", "cpu.weight",
               "cpu.max", "cpu.max.burst", "cpu.idle", "cpuset.cpus", "cpuset.mems", "pids.max",
               "io.weight", "io.max", NULL);
    r.throttles = throttles;
    r.throttle_count = 1;
    r.unified.v = files;
    r.unified.count = 1;
    cr_assert_eq(cgroup_set_limits(&all_v2, dir, &r, &e), 0, "%s", e.text);
    expect("memory.max", "1048576");
    expect("memory.swap.max", "2097152"); /* swap alone */
    expect("memory.low", "524288");
    expect("memory.high", "12345");
    expect("cpu.weight", "39");
    expect("cpu.max", "20000 50000");
    expect("cpu.max.burst", "1000");
    expect("cpu.idle", "0");
    expect("cpuset.cpus", "0-1");
    expect("cpuset.mems", "0");
    expect("pids.max", "84");
    expect("io.weight", "200");
    expect("io.max", "8:16 rbps=1000");
}

Test(cgroup_limits, unified_without_limits)
{
    struct oci_resources r = nothing();
    struct err e;

    make_files("memory.max", "memory.swap.max", "cpu.max", "pids.max", NULL);
    r.memory_limit = r.memory_swap = r.cpu_quota = r.pids_limit = INT64_MAX;
    cr_assert_eq(cgroup_set_limits(&all_v2, dir, &r, &e), 0, "%s", e.text);
    expect("memory.max", "max");
    expect("memory.swap.max", "max");
    expect("cpu.max", "max");
    expect("pids.max", "max");
}

static void preset(const char *name, const char *text)
{
    struct err e;

    cr_assert_eq(cgroup_write(dir, name, &e, "%s", text), 0, "%s", e.text);
}

/* What is not given stays as it is. */
Test(cgroup_limits, unified_one_by_one)
{
    struct oci_resources r = nothing();
    struct err e;

    make_files("memory.max", "memory.swap.max", "cpu.max", NULL);
    preset("memory.max", "1048576\n");
    r.memory_swap = 3 << 20;
    cr_assert_eq(cgroup_set_limits(&all_v2, dir, &r, &e), 0, "%s", e.text);
    expect("memory.swap.max", "2097152");
    r.memory_swap = 1 << 19;
    cr_assert_neq(cgroup_set_limits(&all_v2, dir, &r, &e), 0);
    cr_assert_not_null(strstr(e.text, "below"));
    r = nothing();
    preset("cpu.max", "20000 1\n");
    r.cpu_period = 50000;
    cr_assert_eq(cgroup_set_limits(&all_v2, dir, &r, &e), 0, "%s", e.text);
    expect("cpu.max", "20000 50000");
}

Test(cgroup_limits, a_file_elsewhere)
{
    struct str_pair files[] = {{"../memory.high", "12345"}};
    struct oci_resources r = nothing();
    struct err e;

    make_files(NULL);
    r.unified.v = files;
    r.unified.count = 1;
    cr_assert_neq(cgroup_set_limits(&all_v2, dir, &r, &e), 0);
    cr_assert_not_null(strstr(e.text, "no file"));
}

Test(cgroup_limits, only_what_is_given)
{
    struct oci_resources r = nothing();
    struct err e;

    /* No file is there: none may be written. */
    make_files(NULL);
    cr_assert_eq(cgroup_set_limits(&all_v2, dir, &r, &e), 0, "%s", e.text);
    r.pids_limit = 1;
    cr_assert_neq(cgroup_set_limits(&all_v2, dir, &r, &e), 0);
    cr_assert_not_null(strstr(e.text, "pids.max"));
}

Test(cgroup_limits, legacy)
{
    static const struct hierarchy one = {
        .memory = true, .cpu = true, .cpuset = true, .pids = true, .blkio = true};
    struct oci_resources r = everything();
    struct err e;

    make_files("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes",
               "memory.swappiness", "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us",
               "cpu.cfs_burst_us", "cpu.idle", "cpu.rt_runtime_us", "cpu.rt_period_us",
               "cpuset.cpus", "cpuset.mems", "pids.max", "blkio.weight", NULL);
    r.has_swappiness = true;
    r.swappiness = 7;
    r.rt_runtime = 900;
    r.rt_period = 1000;
    cr_assert_eq(cgroup_set_limits(&one, dir, &r, &e), 0, "%s", e.text);
    expect("memory.limit_in_bytes", "1048576");
    expect("memory.memsw.limit_in_bytes", "3145728"); /* memory and swap */
    expect("memory.soft_limit_in_bytes", "524288");
    expect("memory.swappiness", "7");
    expect("cpu.shares", "1024");
    expect("cpu.cfs_quota_us", "20000");
    expect("cpu.cfs_period_us", "50000");
    expect("cpu.cfs_burst_us", "1000");
    expect("cpu.rt_runtime_us", "900");
    expect("cpu.rt_period_us", "1000");
    expect("cpuset.cpus", "0-1");
    expect("pids.max", "84");
    expect("blkio.weight", "200");
}
