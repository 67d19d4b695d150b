/* proc and sysfs: the lesser entries of tasks and of the machine, in Linux's formats. */
#include "harness.h"

#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>

CONF_FAMILY("procfs");

static char text[65536];

static const char *get(const char *path)
{
    conf_get(path, text, sizeof(text));
    return text;
}

static bool has_line(const char *start)
{
    const char *p = text;

    while (p != NULL && *p != '\0') {
        if (strncmp(p, start, strlen(start)) == 0)
            return true;
        p = strchr(p, '\n');
        p = p != NULL ? p + 1 : NULL;
    }
    return false;
}

TEST(schedstat)
{
    unsigned long long run, wait, slices;
    volatile unsigned long spin = 0;

    while (spin < 20000000)
        spin++;
    CHECK_EQ(sscanf(get("/proc/self/schedstat"), "%llu %llu %llu", &run, &wait, &slices), 3);
    CHECK(run > 0);
}

TEST(sched)
{
    char expect[64];

    OK(prctl(PR_SET_NAME, "some-name"));
    get("/proc/self/sched");
    snprintf(expect, sizeof(expect), "some-name (%d, #threads: 1)", getpid());
    CHECK(has_line(expect));
    CHECK(has_line("se.exec_start"));
    CHECK(has_line("nr_switches"));
    CHECK(has_line("policy"));
    CHECK(has_line("prio"));
}

TEST(personality)
{
    CHECK_STR(get("/proc/self/personality"), "00000000\n");
    OK(personality(ADDR_NO_RANDOMIZE));
    CHECK_STR(get("/proc/self/personality"), "00040000\n");
}

TEST(timerslack)
{
    CHECK_STR(get("/proc/self/timerslack_ns"), "50000\n");
    conf_put("/proc/self/timerslack_ns", "70000");
    CHECK_EQ(prctl(PR_GET_TIMERSLACK), 70000);
    conf_put("/proc/self/timerslack_ns", "0");
    CHECK_EQ(prctl(PR_GET_TIMERSLACK), 50000);
    int fd = OK(open("/proc/self/timerslack_ns", O_WRONLY));
    CHECK_ERRNO(write(fd, "no", 2), EINVAL);
    close(fd);
}

TEST(children)
{
    char expect[64], path[64];
    pid_t a = conf_fork(), b;

    if (a == 0) {
        pause();
        _exit(0);
    }
    b = conf_fork();
    if (b == 0) {
        pause();
        _exit(0);
    }
    snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
    snprintf(expect, sizeof(expect), "%d %d ", a, b);
    CHECK_STR(get(path), expect);
    conf_kill(a);
    conf_kill(b);
    CHECK_STR(get(path), "");
}

TEST(wchan)
{
    get("/proc/self/wchan");
    CHECK_STR(text, "0");
}

TEST(attributes)
{
    int fd = OK(open("/proc/self/attr/current", O_RDONLY));
    char c;

    CHECK_ERRNO(read(fd, &c, 1), EINVAL);
    close(fd);
    CHECK(conf_exists("/proc/self/attr/exec"));
    CHECK(conf_exists("/proc/self/attr/fscreate"));
}

TEST(comm_is_written)
{
    char name[16] = "";
    int fd = OK(open("/proc/self/comm", O_WRONLY));

    CHECK_EQ(write(fd, "renamed", 7), 7);
    close(fd);
    OK(prctl(PR_GET_NAME, name));
    CHECK_STR(name, "renamed");
    CHECK_STR(get("/proc/self/comm"), "renamed\n");
}

TEST(machine)
{
    get("/proc/vmstat");
    CHECK(has_line("nr_free_pages "));
    CHECK(has_line("pgpgin "));
    CHECK(has_line("pswpout "));
    get("/proc/partitions");
    CHECK(has_line("major minor  #blocks  name"));
    get("/proc/softirqs");
    CHECK(strstr(text, "CPU0") != NULL);
    CHECK(strstr(text, "TIMER:") != NULL);
    get("/proc/interrupts");
    CHECK(strstr(text, "CPU0") != NULL);
    get("/proc/meminfo");
    CHECK(has_line("MemTotal:"));
    CHECK(has_line("MemAvailable:"));
    CHECK(has_line("HugePages_Total:"));
    CHECK(has_line("Hugepagesize:"));
    CHECK(has_line("KernelStack:"));
    CHECK(has_line("VmallocTotal:"));
    get("/proc/filesystems");
    CHECK(has_line("nodev\ttmpfs"));
    CHECK(has_line("nodev\toverlay"));
    CHECK(has_line("nodev\tsysfs"));
    get("/proc/execdomains");
    CHECK(has_line("0-0\tLinux"));
    get("/proc/tty/drivers");
    CHECK(has_line("/dev/tty "));
    CHECK(conf_exists("/proc/diskstats"));
    CHECK(conf_exists("/proc/kallsyms"));
}

/* A number in a file of /proc/sys, at least min. */
static void check_number(const char *path, long long min)
{
    char *end;

    get(path);
    long long v = strtoll(text, &end, 10);
    if (end == text || v < min)
        conf_fail(__FILE__, __LINE__, "%s: \"%s\"", path, text);
}

TEST(settings)
{
    check_number("/proc/sys/vm/overcommit_memory", 0);
    check_number("/proc/sys/vm/swappiness", 0);
    check_number("/proc/sys/vm/max_map_count", 1000);
    check_number("/proc/sys/vm/nr_hugepages", 0);
    check_number("/proc/sys/kernel/pid_max", 301);
    check_number("/proc/sys/kernel/threads-max", 20);
    check_number("/proc/sys/kernel/ngroups_max", 65536);
    check_number("/proc/sys/kernel/cap_last_cap", 30);
    check_number("/proc/sys/kernel/tainted", 0);
    check_number("/proc/sys/kernel/random/entropy_avail", 1);
    check_number("/proc/sys/kernel/random/poolsize", 1);
    check_number("/proc/sys/kernel/pty/max", 1);
    check_number("/proc/sys/fs/file-max", 1);
    check_number("/proc/sys/fs/nr_open", 1024);
    check_number("/proc/sys/fs/pipe-max-size", 4096);
    check_number("/proc/sys/fs/pipe-user-pages-soft", 0);
    check_number("/proc/sys/fs/mount-max", 1);
    check_number("/proc/sys/fs/epoll/max_user_watches", 1);
    CHECK_STR(get("/proc/sys/kernel/ostype"), "Linux\n");
}

TEST(file_nr)
{
    unsigned long long used, zero, max;

    CHECK_EQ(sscanf(get("/proc/sys/fs/file-nr"), "%llu %llu %llu", &used, &zero, &max), 3);
    CHECK(used > 0);
    CHECK_EQ(zero, 0);
}

TEST(boot_id)
{
    char first[64];

    strcpy(first, get("/proc/sys/kernel/random/boot_id"));
    CHECK_EQ(strlen(first), 37);
    CHECK_STR(get("/proc/sys/kernel/random/boot_id"), first);
    strcpy(first, get("/proc/sys/kernel/random/uuid"));
    CHECK(strcmp(get("/proc/sys/kernel/random/uuid"), first) != 0);
}

TEST(cpu_topology)
{
    unsigned first, last = 0;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    struct statfs st;

    if (statfs("/sys", &st) != 0 || st.f_type != 0x62656572)
        conf_fail(__FILE__, __LINE__, "/sys is no sysfs");
    get("/sys/devices/system/cpu/online");
    int n = sscanf(text, "%u-%u", &first, &last);
    CHECK(n >= 1);
    CHECK_EQ(online, n == 1 ? 1 : (long)(last - first + 1));
    check_number("/sys/devices/system/cpu/cpu0/topology/core_id", 0);
    check_number("/sys/devices/system/cpu/cpu0/topology/physical_package_id", 0);
    CHECK(get("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")[0] == '0');
    CHECK(conf_exists("/sys/devices/system/cpu/possible"));
    CHECK(conf_exists("/sys/kernel/mm/transparent_hugepage/enabled"));
    CHECK(conf_exists("/sys/fs/cgroup"));
    CHECK(conf_exists("/sys/block"));
}

TEST(sysfs_is_listed)
{
    DIR *d = opendir("/sys/devices/system/cpu");
    long cpus = 0;
    unsigned number;
    char rest;

    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (sscanf(e->d_name, "cpu%u%c", &number, &rest) == 1) {
            CHECK_EQ(e->d_type, DT_DIR);
            cpus++;
        }
    closedir(d);
    CHECK_EQ(cpus, sysconf(_SC_NPROCESSORS_CONF));
}
