/* Memory policies on a machine of one node: mbind, set_mempolicy, get_mempolicy, move_pages,
 * migrate_pages, set_mempolicy_home_node, /proc/self/numa_maps. */
#include "harness.h"

#include <linux/mempolicy.h>
#include <stdio.h>
#include <sys/mman.h>

CONF_FAMILY("mempolicy");

#define P CONF_PAGE
#define BITS 64UL
#ifndef MPOL_PREFERRED_MANY
#define MPOL_PREFERRED_MANY 5
#endif
#define MPOL_WEIGHTED 6

static long set_policy(int mode, unsigned long nodes)
{
    return syscall(SYS_set_mempolicy, mode, &nodes, BITS);
}

static long get_policy(int *mode, unsigned long *nodes, void *addr, unsigned long flags)
{
    return syscall(SYS_get_mempolicy, mode, nodes, BITS, addr, flags);
}

static long bind_to(void *addr, size_t size, int mode, unsigned long nodes, unsigned flags)
{
    return syscall(SYS_mbind, addr, size, mode, &nodes, BITS, flags);
}

static void check_policy(void *addr, int want_mode, unsigned long want_nodes)
{
    unsigned long nodes = ~0UL;
    int mode = -1;

    OK(get_policy(&mode, &nodes, addr, addr ? MPOL_F_ADDR : 0));
    CHECK_EQ(mode, want_mode);
    CHECK_EQ(nodes, want_nodes);
}

TEST(task_policy_default)
{
    check_policy(NULL, MPOL_DEFAULT, 0);
    OK(set_policy(MPOL_BIND, 1));
    check_policy(NULL, MPOL_BIND, 1);
    OK(set_policy(MPOL_INTERLEAVE, 1));
    check_policy(NULL, MPOL_INTERLEAVE, 1);
    OK(set_policy(MPOL_PREFERRED, 1));
    check_policy(NULL, MPOL_PREFERRED, 1);
    OK(set_policy(MPOL_PREFERRED_MANY, 1));
    check_policy(NULL, MPOL_PREFERRED_MANY, 1);
    OK(set_policy(MPOL_LOCAL, 0));
    check_policy(NULL, MPOL_LOCAL, 0);
    /* No node at all means the near one. */
    OK(set_policy(MPOL_PREFERRED, 0));
    check_policy(NULL, MPOL_LOCAL, 0);
    OK(syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0UL));
    check_policy(NULL, MPOL_DEFAULT, 0);
}

TEST(task_policy_wrong)
{
    CHECK_ERRNO(set_policy(MPOL_BIND, 2), EINVAL);
    CHECK_ERRNO(set_policy(MPOL_BIND, 0), EINVAL);
    CHECK_ERRNO(set_policy(MPOL_INTERLEAVE, 0), EINVAL);
    CHECK_ERRNO(set_policy(MPOL_DEFAULT, 1), EINVAL);
    CHECK_ERRNO(set_policy(MPOL_LOCAL, 1), EINVAL);
    CHECK_ERRNO(set_policy(77, 1), EINVAL);
    CHECK_ERRNO(set_policy(-1, 1), EINVAL);
    CHECK_ERRNO(set_policy(MPOL_BIND | MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES, 1), EINVAL);
    CHECK_ERRNO(set_policy(MPOL_PREFERRED | MPOL_F_STATIC_NODES, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_set_mempolicy, MPOL_BIND, 8UL, BITS), EFAULT);
    CHECK_ERRNO(syscall(SYS_set_mempolicy, MPOL_BIND, 8UL, P * 8 + 2), EINVAL);
    unsigned long nodes = 1;
    CHECK_ERRNO(syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 1UL), EINVAL);
    OK(syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 2UL));
    check_policy(NULL, MPOL_BIND, 1);
    CHECK_ERRNO(set_policy(MPOL_BIND, 2), EINVAL);
    check_policy(NULL, MPOL_BIND, 1);
}

TEST(task_policy_flags)
{
    /* Of the nodes asked for those that are there count, but what was asked is shown. */
    OK(set_policy(MPOL_BIND, 3));
    check_policy(NULL, MPOL_BIND, 1);
    OK(set_policy(MPOL_BIND | MPOL_F_STATIC_NODES, 3));
    check_policy(NULL, MPOL_BIND | MPOL_F_STATIC_NODES, 3);
    OK(set_policy(MPOL_INTERLEAVE | MPOL_F_RELATIVE_NODES, 4));
    check_policy(NULL, MPOL_INTERLEAVE | MPOL_F_RELATIVE_NODES, 4);
    CHECK_ERRNO(set_policy(MPOL_BIND | MPOL_F_STATIC_NODES, 2), EINVAL);
}

static int policy_of_self(int argc, char **argv)
{
    int mode = -1;

    (void)argc, (void)argv;
    return get_policy(&mode, NULL, NULL, 0) == 0 ? mode : 99;
}

HELPER(policy)
{
    return policy_of_self(argc, argv);
}

TEST(task_policy_inherited)
{
    OK(set_policy(MPOL_INTERLEAVE, 1));
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(policy_of_self(0, NULL));
    CHECK_EXIT(pid, MPOL_INTERLEAVE);
    pid = conf_fork();
    if (pid == 0) {
        const char *const none[] = {NULL};
        conf_exec_helper("policy", none);
    }
    CHECK_EXIT(pid, MPOL_INTERLEAVE);
}

TEST(get_policy_arguments)
{
    unsigned long nodes = 0;
    int mode = -1;
    char *p = conf_pages(1);

    CHECK_ERRNO(get_policy(&mode, &nodes, p, 0), EINVAL);
    CHECK_ERRNO(get_policy(&mode, &nodes, NULL, 8), EINVAL);
    CHECK_ERRNO(get_policy(&mode, &nodes, NULL, MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED), EINVAL);
    CHECK_ERRNO(get_policy(&mode, &nodes, NULL, MPOL_F_NODE), EINVAL);
    CHECK_ERRNO(syscall(SYS_get_mempolicy, &mode, &nodes, 0UL, NULL, 0UL), EINVAL);
    CHECK_ERRNO(syscall(SYS_get_mempolicy, 8UL, NULL, 0UL, NULL, 0UL), EFAULT);
    CHECK_ERRNO(syscall(SYS_get_mempolicy, NULL, 8UL, BITS, NULL, 0UL), EFAULT);
    OK(syscall(SYS_get_mempolicy, NULL, NULL, 0UL, NULL, 0UL));
    OK(get_policy(NULL, &nodes, NULL, MPOL_F_MEMS_ALLOWED));
    CHECK_EQ(nodes & 1, 1);
    *p = 1;
    OK(get_policy(&mode, NULL, p, MPOL_F_ADDR | MPOL_F_NODE));
    CHECK_EQ(mode, 0);
    OK(set_policy(MPOL_INTERLEAVE, 1));
    OK(get_policy(&mode, NULL, NULL, MPOL_F_NODE));
    CHECK_EQ(mode, 0);
    OK(munmap(p, P));
    CHECK_ERRNO(get_policy(&mode, &nodes, p, MPOL_F_ADDR), EFAULT);
    /* A longer mask is filled with zeros. */
    unsigned long many[4] = {~0UL, ~0UL, ~0UL, ~0UL};
    OK(syscall(SYS_get_mempolicy, &mode, many, 129UL, NULL, 0UL));
    CHECK_EQ(many[0], 1);
    CHECK_EQ(many[1], 0);
    CHECK_EQ(many[2], ~0UL);
}

TEST(mbind_parts)
{
    char *p = conf_pages(6);

    OK(bind_to(p + P, 2 * P, MPOL_BIND, 1, 0));
    check_policy(p, MPOL_DEFAULT, 0);
    check_policy(p + P, MPOL_BIND, 1);
    check_policy(p + 2 * P + 5, MPOL_BIND, 1);
    check_policy(p + 3 * P, MPOL_DEFAULT, 0);
    OK(bind_to(p + 2 * P, 3 * P, MPOL_INTERLEAVE, 1, MPOL_MF_MOVE | MPOL_MF_STRICT));
    check_policy(p + P, MPOL_BIND, 1);
    check_policy(p + 4 * P, MPOL_INTERLEAVE, 1);
    OK(bind_to(p, 6 * P, MPOL_DEFAULT, 0, 0));
    check_policy(p + 2 * P, MPOL_DEFAULT, 0);
    /* It goes with the fork. */
    OK(bind_to(p, P, MPOL_BIND, 1, 0));
    pid_t pid = conf_fork();
    if (pid == 0) {
        check_policy(p, MPOL_BIND, 1);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(mbind_wrong)
{
    char *p = conf_pages(4);

    CHECK_ERRNO(bind_to(p + 1, P, MPOL_BIND, 1, 0), EINVAL);
    CHECK_ERRNO(bind_to(p, P, MPOL_BIND, 1, 8), EINVAL);
    CHECK_ERRNO(bind_to(p, P, MPOL_BIND, 2, 0), EINVAL);
    CHECK_ERRNO(bind_to(p, P, 55, 1, 0), EINVAL);
    CHECK_ERRNO(bind_to(p, SIZE_MAX - 2 * P, MPOL_BIND, 1, 0), EINVAL);
    OK(bind_to(p, 0, MPOL_BIND, 1, 0));
    OK(munmap(p + P, P));
    CHECK_ERRNO(bind_to(p, 4 * P, MPOL_BIND, 1, 0), EFAULT);
    CHECK_ERRNO(bind_to(p + P, P, MPOL_BIND, 1, 0), EFAULT);
    OK(bind_to(p, 4 * P, MPOL_DEFAULT, 0, 0));
    CHECK_ERRNO(bind_to(p + P, P, MPOL_DEFAULT, 0, 0), EFAULT);
    conf_become(1234);
    CHECK_ERRNO(bind_to(p, P, MPOL_BIND, 1, MPOL_MF_MOVE_ALL), EPERM);
}

TEST(home_node)
{
    char *p = conf_pages(4);

    CHECK_ERRNO(syscall(450, p, P, 0UL, 1UL), EINVAL);
    CHECK_ERRNO(syscall(450, p, P, 5UL, 0UL), EINVAL);
    CHECK_ERRNO(syscall(450, p + 1, P, 0UL, 0UL), EINVAL);
    OK(syscall(450, p, 0UL, 0UL, 0UL));
    CHECK_ERRNO(syscall(450, p, P, 0UL, 0UL), ENOENT);
    OK(bind_to(p, P, MPOL_BIND, 1, 0));
    OK(syscall(450, p, 2 * P, 0UL, 0UL));
    OK(bind_to(p, P, MPOL_INTERLEAVE, 1, 0));
    CHECK_ERRNO(syscall(450, p, P, 0UL, 0UL), EOPNOTSUPP);
}

TEST(move_pages_status)
{
    char *p = conf_pages(4);
    void *at[4] = {p, p + P, p + 2 * P, p + 3 * P};
    int nodes[4] = {0, 0, 0, 0}, status[4] = {9, 9, 9, 9};

    p[0] = 1;
    p[3 * P] = 1;
    OK(munmap(p + 2 * P, P));
    CHECK_EQ(syscall(SYS_move_pages, 0, 4UL, at, NULL, status, 0), 0);
    CHECK_EQ(status[0], 0);
    CHECK_EQ(status[2], -EFAULT);
    CHECK_EQ(status[3], 0);
    CHECK_EQ(syscall(SYS_move_pages, getpid(), 4UL, at, nodes, status, MPOL_MF_MOVE), 0);
    CHECK_EQ(status[0], 0);
    CHECK_EQ(status[2], -EFAULT);
    CHECK_EQ(syscall(SYS_move_pages, 0, 0UL, NULL, NULL, NULL, 0), 0);
}

TEST(move_pages_wrong)
{
    char *p = conf_pages(1);
    void *at[1] = {p};
    int nodes[1] = {1}, status[1];

    *p = 1;
    CHECK_ERRNO(syscall(SYS_move_pages, 0, 1UL, at, nodes, status, MPOL_MF_MOVE), ENODEV);
    nodes[0] = -1;
    CHECK_ERRNO(syscall(SYS_move_pages, 0, 1UL, at, nodes, status, MPOL_MF_MOVE), ENODEV);
    CHECK_ERRNO(syscall(SYS_move_pages, 0, 1UL, at, NULL, status, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_move_pages, 0, 1UL, 8UL, NULL, status, 0), EFAULT);
    CHECK_ERRNO(syscall(SYS_move_pages, 0, 1UL, at, NULL, 8UL, 0), EFAULT);
    CHECK_ERRNO(syscall(SYS_move_pages, 99999999, 1UL, at, NULL, status, 0), ESRCH);
    conf_become(1234);
    CHECK_ERRNO(syscall(SYS_move_pages, 0, 1UL, at, nodes, status, MPOL_MF_MOVE_ALL), EPERM);
    CHECK_ERRNO(syscall(SYS_move_pages, getppid(), 1UL, at, NULL, status, 0), EPERM);
}

TEST(migrate_pages)
{
    unsigned long none = 0, one = 1, two = 2;

    CHECK_EQ(syscall(SYS_migrate_pages, 0, BITS, &one, &one), 0);
    CHECK_EQ(syscall(SYS_migrate_pages, getpid(), BITS, &none, &one), 0);
    CHECK_ERRNO(syscall(SYS_migrate_pages, 99999999, BITS, &one, &one), ESRCH);
    CHECK_ERRNO(syscall(SYS_migrate_pages, 0, BITS, 8UL, &one), EFAULT);
    CHECK_ERRNO(syscall(SYS_migrate_pages, 0, BITS, &one, 8UL), EFAULT);
    CHECK_ERRNO(syscall(SYS_migrate_pages, 0, P * 8 + 2, &one, &one), EINVAL);
    conf_become(1234);
    CHECK_ERRNO(syscall(SYS_migrate_pages, 0, BITS, &one, &two), EPERM);
    CHECK_ERRNO(syscall(SYS_migrate_pages, getppid(), BITS, &one, &one), EPERM);
}

/* The row of numa_maps that begins with p's address. */
static bool numa_row(const void *p, char *row, size_t size)
{
    FILE *f = OK(fopen("/proc/self/numa_maps", "r") ?: (FILE *)-1);
    char want[32];
    bool found = false;

    (void)snprintf(want, sizeof(want), "%08lx ", (unsigned long)p);
    while (!found && fgets(row, (int)size, f))
        found = strncmp(row, want, strlen(want)) == 0;
    (void)fclose(f);
    return found;
}

TEST(numa_maps)
{
    char row[512];
    char *p = mmap(NULL, 6 * P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    OK(mprotect(p + P, 4 * P, PROT_READ | PROT_WRITE));
    memset(p + P, 1, 2 * P);
    CHECK(numa_row(p + P, row, sizeof(row)));
    CHECK(strstr(row, " default"));
    CHECK(strstr(row, " anon="));
    CHECK(strstr(row, " N0="));
    CHECK(strstr(row, " kernelpagesize_kB=4"));
    OK(bind_to(p + P, 4 * P, MPOL_BIND, 1, 0));
    CHECK(numa_row(p + P, row, sizeof(row)));
    CHECK(strstr(row, " bind:0"));
    OK(bind_to(p + P, 4 * P, MPOL_PREFERRED, 1, 0));
    CHECK(numa_row(p + P, row, sizeof(row)));
    CHECK(strstr(row, " prefer:0"));
    OK(bind_to(p + P, 4 * P, MPOL_INTERLEAVE | MPOL_F_STATIC_NODES, 1, 0));
    CHECK(numa_row(p + P, row, sizeof(row)));
    CHECK(strstr(row, " interleave=static:0"));
    OK(bind_to(p + P, 4 * P, MPOL_LOCAL, 0, 0));
    CHECK(numa_row(p + P, row, sizeof(row)));
    CHECK(strstr(row, " local"));
    OK(bind_to(p + P, 4 * P, MPOL_WEIGHTED, 1, 0));
    CHECK(numa_row(p + P, row, sizeof(row)));
    CHECK(strstr(row, " weighted interleave:0"));
    CHECK(!numa_row(p + 2 * P, row, sizeof(row)));
    char *q = conf_shared(P);
    CHECK(numa_row(q, row, sizeof(row)));
    CHECK(strstr(row, " file=/dev/zero\\040(deleted)"));
}
