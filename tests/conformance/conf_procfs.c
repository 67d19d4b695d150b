/* proc and sysfs: the lesser entries of tasks and of the machine, in Linux's formats. */
#include "harness.h"

#include <dirent.h>
#include <ftw.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
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

/* Bytes and calls of a process, and of children once they have been waited for. */
static unsigned long long io_value(const char *name)
{
    char all[512];

    conf_get("/proc/self/io", all, sizeof(all));
    const char *at = strstr(all, name);
    CHECK(at != NULL);
    return strtoull(at + strlen(name), NULL, 10);
}

TEST(pid_io)
{
    char buf[1000] = {0};
    int fd = OK(open("f", O_CREAT | O_RDWR, 0600));

    const unsigned long long w = io_value("wchar: "), r = io_value("rchar: ");
    const unsigned long long cw = io_value("syscw: "), cr = io_value("syscr: ");
    CHECK_EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
    CHECK_EQ(pwrite(fd, buf, 10, 0), 10);
    CHECK_EQ(io_value("wchar: ") - w, sizeof(buf) + 10);
    CHECK_EQ(io_value("syscw: ") - cw, 2);
    CHECK_EQ(pread(fd, buf, 500, 0), 500);
    CHECK(io_value("rchar: ") - r >= 500);
    CHECK(io_value("syscr: ") - cr >= 1);
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK_EQ(write(fd, buf, 300), 300);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(io_value("wchar: ") - w, sizeof(buf) + 310);
}

/* ---- /sys/class/net ---- */

static void net_value(const char *link, const char *what, char *buf, size_t size)
{
    char path[256];

    snprintf(path, sizeof(path), "/sys/class/net/%s/%s", link, what);
    conf_get(path, buf, size);
    buf[strcspn(buf, "\n")] = '\0';
}

TEST(sys_class_net)
{
    struct if_nameindex *all = if_nameindex();
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    char v[256], w[256];
    unsigned names = 0;

    CHECK(all != NULL);
    for (struct if_nameindex *i = all; i->if_index != 0; i++, names++) {
        struct ifreq r = {0};
        memcpy(r.ifr_name, i->if_name, strlen(i->if_name));
        net_value(i->if_name, "ifindex", v, sizeof(v));
        CHECK_EQ(atoi(v), i->if_index);
        OK(ioctl(s, SIOCGIFMTU, &r));
        net_value(i->if_name, "mtu", v, sizeof(v));
        CHECK_EQ(atoi(v), r.ifr_mtu);
        OK(ioctl(s, SIOCGIFFLAGS, &r));
        net_value(i->if_name, "flags", v, sizeof(v));
        CHECK_EQ((unsigned)strtoul(v, NULL, 16) & (IFF_UP | IFF_LOOPBACK | IFF_RUNNING),
                 (unsigned)r.ifr_flags & (IFF_UP | IFF_LOOPBACK));
        OK(ioctl(s, SIOCGIFHWADDR, &r));
        net_value(i->if_name, "type", v, sizeof(v));
        CHECK_EQ(atoi(v), r.ifr_hwaddr.sa_family);
        const unsigned char *m = (const unsigned char *)r.ifr_hwaddr.sa_data;
        snprintf(w, sizeof(w), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
        net_value(i->if_name, "address", v, sizeof(v));
        if (r.ifr_hwaddr.sa_family == ARPHRD_ETHER || r.ifr_hwaddr.sa_family == ARPHRD_LOOPBACK)
            CHECK_STR(v, w);
        net_value(i->if_name, "statistics/rx_bytes", v, sizeof(v));
        CHECK(v[0] >= '0' && v[0] <= '9');
    }
    if_freenameindex(all);
    DIR *d = opendir("/sys/class/net");
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.' || strcmp(e->d_name, "bonding_masters") == 0)
            continue;
        CHECK_EQ(e->d_type, DT_LNK);
        CHECK(if_nametoindex(e->d_name) != 0);
        names--;
    }
    closedir(d);
    CHECK_EQ(names, 0);
    ssize_t n = OK(readlink("/sys/class/net/lo", v, sizeof(v) - 1));
    v[n] = '\0';
    CHECK_STR(v, "../../devices/virtual/net/lo");
    net_value("lo", "operstate", v, sizeof(v));
    CHECK(strcmp(v, "unknown") == 0 || strcmp(v, "down") == 0);
    CHECK_ERRNO(open("/sys/class/net/none-such", O_RDONLY), ENOENT);
    int fd = OK(open("/sys/class/net/lo/speed", O_RDONLY));
    CHECK_ERRNO(read(fd, v, sizeof(v)), EINVAL);
}

/* An error of its own is as good as a text. */
static int read_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)at;
    const int fd = type == FTW_F && S_ISREG(st->st_mode) ? open(path, O_RDONLY | O_NONBLOCK) : -1;

    if (fd < 0)
        return 0;
    for (int i = 0; i < 3; i++)
        (void)!read(fd, text, sizeof(text));
    return close(fd);
}

/* Also those that are there to be written only. */
TEST(every_file_is_read)
{
    OK(nftw("/proc/self", read_entry, 32, FTW_PHYS));
    OK(nftw("/proc/sys", read_entry, 32, FTW_PHYS));
    OK(nftw("/sys/fs", read_entry, 32, FTW_PHYS));
}

TEST(files_that_are_only_read)
{
    static const struct {
        const char *path;
        int error;
    } files[] = {{"/proc/self/stat", EINVAL},    {"/proc/self/maps", EINVAL},
                 {"/proc/self/cmdline", EINVAL}, {"/proc/self/mounts", EINVAL},
                 {"/proc/meminfo", EIO},         {"/proc/loadavg", EIO}};

    NEED_ROOT();
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        const int fd = OK(open(files[i].path, O_WRONLY));
        CHECK_ERRNO(write(fd, "x", 1), files[i].error);
        OK(close(fd));
    }
}
