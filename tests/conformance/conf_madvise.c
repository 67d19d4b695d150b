/* Advice, locks and what is resident: madvise, msync, mincore, mlock, /proc/self/maps. */
#include "harness.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>

CONF_FAMILY("madvise");

#define P CONF_PAGE
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static char *map_at(void *addr, size_t size, int prot, int flags)
{
    return OK(mmap(addr, size, prot, flags, -1, 0));
}

static void *no_such_page(void)
{
    void *p = map_at(NULL, P, PROT_NONE, ANON);
    OK(munmap(p, P));
    return p;
}

/* ---- madvise ---- */

TEST(madvise_dontneed)
{
    char *p = map_at(NULL, 8 * P, RW, ANON);
    memset(p, 3, 8 * P);
    OK(madvise(p + 2 * P, 2 * P, MADV_DONTNEED));
    CHECK_EQ(p[2 * P - 1], 3);
    CHECK_EQ(p[2 * P], 0);
    CHECK_EQ(p[4 * P - 1], 0);
    CHECK_EQ(p[4 * P], 3);
    p[2 * P] = 4;
    CHECK_EQ(p[2 * P], 4);
    OK(madvise(p, 1, MADV_DONTNEED));
    CHECK_EQ(p[P - 1], 0);
    CHECK_EQ(p[P], 3);
    CHECK_ERRNO(madvise(p + 1, P, MADV_DONTNEED), EINVAL);
    CHECK_ERRNO(madvise(p, P, 1234), EINVAL);
    CHECK_ERRNO(madvise(p, SIZE_MAX, MADV_DONTNEED), EINVAL);
    OK(madvise(p, 0, MADV_DONTNEED));
    OK(munmap(p + 5 * P, P));
    CHECK_ERRNO(madvise(p + 4 * P, 4 * P, MADV_DONTNEED), ENOMEM);
    CHECK_EQ(p[7 * P], 0);
}

TEST(madvise_dontneed_after_fork)
{
    char *p = map_at(NULL, 4 * P, RW, ANON);
    memset(p, 3, 4 * P);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(madvise(p, 4 * P, MADV_DONTNEED));
        _exit(p[0]);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(p[0], 3);
}

TEST(madvise_shared_keeps_bytes)
{
    char *p = map_at(NULL, 4 * P, RW, MAP_SHARED | MAP_ANONYMOUS);
    memset(p, 3, 4 * P);
    OK(madvise(p, 4 * P, MADV_DONTNEED));
    CHECK_EQ(p[P], 3);
    OK(madvise(p + P, P, MADV_REMOVE));
    CHECK_EQ(p[P], 0);
    CHECK_EQ(p[2 * P], 3);
    char *q = map_at(NULL, P, RW, ANON);
    CHECK_ERRNO(madvise(q, P, MADV_REMOVE), EINVAL);
    CHECK_ERRNO(madvise(p, P, MADV_FREE), EINVAL);
    CHECK_ERRNO(madvise(p, P, MADV_WIPEONFORK), EINVAL);
}

TEST(madvise_free)
{
    char *p = map_at(NULL, 4 * P, RW, ANON);
    memset(p, 3, 4 * P);
    OK(madvise(p, 2 * P, MADV_FREE));
    CHECK(p[0] == 3 || p[0] == 0);
    p[0] = 9;
    CHECK_EQ(p[0], 9);
    CHECK_EQ(p[2 * P], 3);
}

TEST(madvise_hints)
{
    static const int hints[] = {MADV_NORMAL, MADV_RANDOM,   MADV_SEQUENTIAL, MADV_WILLNEED,
                                MADV_COLD,   MADV_DONTDUMP, MADV_DODUMP};
    char *p = map_at(NULL, 4 * P, RW, ANON);
    p[0] = 1;
    for (size_t i = 0; i < ARRAY_SIZE(hints); i++)
        OK(madvise(p, 4 * P, hints[i]));
    CHECK_EQ(p[0], 1);
    char *hole = no_such_page();
    CHECK_ERRNO(madvise(hole, P, MADV_NORMAL), ENOMEM);
}

TEST(madvise_populate)
{
    char *p = map_at(NULL, 4 * P, RW, ANON);
    OK(madvise(p, 4 * P, MADV_POPULATE_WRITE));
    CHECK_EQ(p[0], 0);
    OK(mprotect(p, P, PROT_READ));
    OK(madvise(p, 4 * P, MADV_POPULATE_READ));
    CHECK_ERRNO(madvise(p, 4 * P, MADV_POPULATE_WRITE), EINVAL);
    OK(munmap(p + 2 * P, P));
    CHECK_ERRNO(madvise(p, 4 * P, MADV_POPULATE_READ), ENOMEM);
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(ftruncate(fd, (off_t)P));
    char *f = OK(mmap(NULL, 2 * P, PROT_READ, MAP_SHARED, fd, 0));
    CHECK_ERRNO(madvise(f, 2 * P, MADV_POPULATE_READ), EFAULT);
}

/* ---- msync, mincore, mlock ---- */

TEST(msync_errors)
{
    char *p = map_at(NULL, 4 * P, RW, MAP_SHARED | MAP_ANONYMOUS);
    OK(msync(p, 4 * P, MS_SYNC));
    OK(msync(p, 4 * P, MS_ASYNC | MS_INVALIDATE));
    OK(msync(p, 0, MS_SYNC));
    CHECK_ERRNO(msync(p + 1, P, MS_SYNC), EINVAL);
    CHECK_ERRNO(msync(p, P, MS_SYNC | MS_ASYNC), EINVAL);
    CHECK_ERRNO(msync(p, P, 64), EINVAL);
    OK(munmap(p + P, P));
    CHECK_ERRNO(msync(p, 4 * P, MS_SYNC), ENOMEM);
    CHECK_ERRNO(msync(p, SIZE_MAX - P, MS_SYNC), ENOMEM);
}

TEST(mincore_answers)
{
    unsigned char vec[64];
    char *p = map_at(NULL, 64 * P, RW, ANON);
    memset(vec, 0xff, sizeof(vec));
    OK(mincore(p, 64 * P, vec));
    CHECK_EQ(vec[3] & 1, 0);
    p[3 * P] = 1;
    OK(mincore(p, 64 * P, vec));
    CHECK_EQ(vec[3] & 1, 1);
    CHECK_EQ(vec[7] & 1, 0);
    CHECK_ERRNO(mincore(p + 1, P, vec), EINVAL);
    CHECK_ERRNO(mincore(p, P, (void *)8), EFAULT);
    OK(munmap(p + 4 * P, P));
    CHECK_ERRNO(mincore(p, 8 * P, vec), ENOMEM);
    CHECK_ERRNO(mincore(p, SIZE_MAX, vec), ENOMEM);
    OK(mincore(p, 0, vec));
}

TEST(mlock_counts_against_its_limit)
{
    struct rlimit r = {64 * 1024, 64 * 1024};
    NEED_ROOT();
    OK(setrlimit(RLIMIT_MEMLOCK, &r));
    conf_become(1000);
    char *p = map_at(NULL, 64 * P, RW, ANON);
    OK(mlock(p, 8 * P));
    OK(mlock(p, 8 * P));
    CHECK_ERRNO(mlock(p, 17 * P), ENOMEM);
    CHECK_ERRNO(madvise(p, P, MADV_DONTNEED), EINVAL);
    OK(munlock(p, 4 * P));
    OK(madvise(p, P, MADV_DONTNEED));
    OK(mlock(p + 10 * P, 8 * P));
    CHECK_ERRNO(mlockall(MCL_CURRENT), ENOMEM);
    CHECK_ERRNO(mlockall(0), EINVAL);
    CHECK_ERRNO(mlockall(64), EINVAL);
    CHECK_ERRNO(mlockall(MCL_ONFAULT), EINVAL);
    OK(munlockall());
    OK(mlock(p, 16 * P));
    OK(munlock(p, 16 * P));
    OK(munmap(p + P, P));
    CHECK_ERRNO(mlock(p, 3 * P), ENOMEM);
    CHECK_ERRNO(syscall(SYS_mlock2, p, P, 8), EINVAL);
    CHECK_ERRNO(mlock((void *)-(2 * P), 4 * P), EINVAL);
    struct rlimit none = {0, 0};
    OK(setrlimit(RLIMIT_MEMLOCK, &none));
    CHECK_ERRNO(mlock(p, P), EPERM);
    CHECK_ERRNO(mlockall(MCL_CURRENT), EPERM);
    CHECK_ERRNO(mmap(NULL, P, RW, ANON | MAP_LOCKED, -1, 0), EPERM);
}

/* ---- /proc ---- */

static void smaps_flags(const char *maps, const void *at, char *perm, size_t size)
{
    char want[32];
    snprintf(want, sizeof(want), "%lx-", (unsigned long)(uintptr_t)at);
    const char *line = maps;
    while (line && strncmp(line, want, strlen(want)) != 0) {
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    CHECK(line != NULL);
    snprintf(perm, size, "%.4s", strchr(line, ' ') + 1);
}

TEST(proc_maps)
{
    static char maps[1 << 16];
    char perm[8];
    char *p = map_at(NULL, 6 * P, PROT_NONE, ANON);
    OK(mprotect(p + P, P, PROT_READ));
    OK(mprotect(p + 2 * P, P, PROT_READ | PROT_EXEC));
    map_at(p + 3 * P, P, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED);
    CHECK(conf_get("/proc/self/maps", maps, sizeof(maps)) > 0);
    smaps_flags(maps, p, perm, sizeof(perm));
    CHECK_STR(perm, "---p");
    smaps_flags(maps, p + P, perm, sizeof(perm));
    CHECK_STR(perm, "r--p");
    smaps_flags(maps, p + 2 * P, perm, sizeof(perm));
    CHECK_STR(perm, "r-xp");
    smaps_flags(maps, p + 3 * P, perm, sizeof(perm));
    CHECK_STR(perm, "rw-s");
    CHECK(strstr(maps, "[stack]") != NULL);
    CHECK(strstr(maps, "[heap]") != NULL || strstr(maps, "[vdso]") != NULL);
}
