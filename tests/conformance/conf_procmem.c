/* Memory of processes seen and advised from outside: process_madvise, process_mrelease,
 * /proc/<pid>/pagemap, clear_refs, smaps, smaps_rollup, memory limits of the task. */
#include "harness.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/uio.h>

CONF_FAMILY("procmem");

#define P CONF_PAGE
#define PRESENT (UINT64_C(1) << 63)
#define PFN ((UINT64_C(1) << 55) - 1)
#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif

static int pidfd_of(pid_t pid)
{
    return (int)OK(syscall(SYS_pidfd_open, pid, 0));
}

static long advise(int fd, struct iovec *iov, size_t count, int advice)
{
    return syscall(SYS_process_madvise, fd, iov, count, advice, 0);
}

TEST(process_madvise_self)
{
    char *p = conf_pages(6);
    const int fd = pidfd_of(getpid());
    struct iovec iov[2] = {{p, 2 * P}, {p + 4 * P, P}};

    memset(p, 3, 6 * P);
    CHECK_EQ(advise(fd, iov, 2, MADV_COLD), 3 * (long)P);
    CHECK_EQ(p[0], 3);
    /* What changes contents is allowed for the caller's own memory. */
    CHECK_EQ(advise(fd, iov, 2, MADV_DONTNEED), 3 * (long)P);
    CHECK_EQ(p[0] + p[2 * P - 1] + p[4 * P], 0);
    CHECK_EQ(p[2 * P] + p[5 * P], 6);
    CHECK_EQ(advise(fd, iov, 0, MADV_COLD), 0);
    /* What came before a bad part counts. */
    OK(munmap(p + 4 * P, P));
    CHECK_EQ(advise(fd, iov, 2, MADV_COLD), 2 * (long)P);
    CHECK_ERRNO(advise(fd, iov + 1, 1, MADV_COLD), ENOMEM);
}

TEST(process_madvise_wrong)
{
    char *p = conf_pages(2);
    const int fd = pidfd_of(getpid());
    struct iovec iov[1] = {{p, P}};

    CHECK_ERRNO(syscall(SYS_process_madvise, fd, iov, 1UL, MADV_COLD, 1), EINVAL);
    CHECK_ERRNO(advise(-1, iov, 1, MADV_COLD), EBADF);
    CHECK_ERRNO(advise(0, iov, 1, MADV_COLD), EBADF);
    CHECK_ERRNO(advise(fd, iov, 1025, MADV_COLD), EINVAL);
    CHECK_ERRNO(advise(fd, iov, 1, 4711), EINVAL);
    CHECK_ERRNO(syscall(SYS_process_madvise, fd, 8UL, 1UL, MADV_COLD, 0), EFAULT);
    iov[0].iov_base = p + 1;
    CHECK_ERRNO(advise(fd, iov, 1, MADV_COLD), EINVAL);
}

TEST(process_madvise_other)
{
    NEED_ROOT();
    char *p = conf_pages(2);
    volatile int *go = conf_shared(P);
    struct iovec iov[1] = {{p, 2 * P}};

    memset(p, 3, 2 * P);
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_await(go, 1);
        _exit(p[0]);
    }
    const int fd = pidfd_of(pid);
    CHECK_EQ(OK(advise(fd, iov, 1, MADV_COLD)), 2 * (long)P);
    CHECK_EQ(advise(fd, iov, 1, MADV_WILLNEED), 2 * (long)P);
    CHECK_ERRNO(advise(fd, iov, 1, MADV_DONTNEED), EINVAL);
    CHECK_ERRNO(advise(fd, iov, 1, MADV_DONTFORK), EINVAL);
    pid_t other = conf_fork();
    if (other == 0) {
        conf_become(1234);
        CHECK_ERRNO(advise(fd, iov, 1, MADV_COLD), EACCES);
        _exit(0);
    }
    CHECK_EXIT(other, 0);
    *go = 1;
    CHECK_EXIT(pid, 3);
    CHECK_ERRNO(advise(fd, iov, 1, MADV_COLD), ESRCH);
}

TEST(process_mrelease)
{
    volatile int *ready = conf_shared(P);
    pid_t pid = conf_fork();

    if (pid == 0) {
        memset(conf_pages(1024), 1, 1024 * P);
        *ready = 1;
        for (;;)
            pause();
    }
    const int fd = pidfd_of(pid);
    conf_await(ready, 1);
    CHECK_ERRNO(syscall(SYS_process_mrelease, fd, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_process_mrelease, -1, 0), EBADF);
    CHECK_ERRNO(syscall(SYS_process_mrelease, fd, 0), EINVAL);
    OK(kill(pid, SIGKILL));
    /* It may be quicker than we are. */
    CHECK(syscall(SYS_process_mrelease, fd, 0) == 0 || errno == ESRCH);
    CHECK_KILLED(pid, SIGKILL);
    CHECK_ERRNO(syscall(SYS_process_mrelease, fd, 0), ESRCH);
}

static void on_alarm(int sig)
{
    (void)sig;
}

/* Only what ends the caller cuts it short. */
TEST(process_vm_not_interrupted)
{
    const size_t size = 8UL << 20;
    char *from = conf_pages(size / P), *to = conf_pages(size / P);
    struct iovec local = {to, size}, remote = {from, size};
    const struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};

    memset(from, 1, size);
    conf_handler(SIGALRM, on_alarm, SA_RESTART);
    OK(setitimer(ITIMER_REAL, &often, NULL));
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(OK(process_vm_readv(getpid(), &local, 1, &remote, 1, 0)), (long)size);
        CHECK_EQ(OK(process_vm_writev(getpid(), &local, 1, &remote, 1, 0)), (long)size);
    }
    OK(setitimer(ITIMER_REAL, &never, NULL));
}

/* ---- pagemap ---- */

static uint64_t entry_of(int fd, const void *p)
{
    uint64_t e = 0;

    CHECK_EQ(pread(fd, &e, sizeof(e), (off_t)((uintptr_t)p / P * 8)), 8);
    return e;
}

TEST(pagemap_present)
{
    char *p = conf_pages(8), *q = conf_shared(P);
    const int fd = OK(open("/proc/self/pagemap", O_RDONLY));
    uint64_t e[8];

    p[P] = 1;
    q[0] = 1;
    CHECK(entry_of(fd, p + P) & PRESENT);
    CHECK(entry_of(fd, q) & PRESENT);
    CHECK(entry_of(fd, q) & UINT64_C(1) << 61);
    CHECK(!(entry_of(fd, p + P) & UINT64_C(1) << 61));
    OK(munmap(p + 2 * P, P));
    CHECK_EQ(entry_of(fd, p + 2 * P), 0);
    CHECK_EQ(pread(fd, e, sizeof(e), (off_t)((uintptr_t)p / P * 8)), 64);
    CHECK(e[1] & PRESENT);
    CHECK_EQ(e[2], 0);
    OK(madvise(p + P, P, MADV_DONTNEED));
    CHECK(!(entry_of(fd, p + P) & PRESENT));
    CHECK_ERRNO(pread(fd, e, 7, 0), EINVAL);
    CHECK_ERRNO(pread(fd, e, 8, 4), EINVAL);
    CHECK_EQ(pread(fd, e, 0, 0), 0);
    CHECK_EQ(pread(fd, e, 8, (off_t)(UINT64_C(1) << 47 >> 12 << 3)), 0);
}

TEST(pagemap_private)
{
    char *p = conf_pages(1);

    *p = 1;
    conf_become(1234);
    /* Who is not privileged sees no frame numbers; what is another's not at all. */
    const int fd = open("/proc/self/pagemap", O_RDONLY);
    if (fd >= 0)
        CHECK_EQ(entry_of(fd, p) & PFN, 0);
    CHECK_ERRNO(open("/proc/1/pagemap", O_RDONLY), EACCES);
}

/* ---- clear_refs, smaps ---- */

/* The figure of a row of the mapping that begins at p (NULL: the first) in kB, or -1. */
static long smaps_row(const char *file, const void *p, const char *name)
{
    FILE *f = OK(fopen(file, "r") ?: (FILE *)-1);
    char line[512], want[32];
    bool here = p == NULL;
    long value = -1;

    (void)snprintf(want, sizeof(want), "%08lx-", (unsigned long)p);
    while (value < 0 && fgets(line, sizeof(line), f)) {
        if (p && strchr(line, '-') && strncmp(line, want, strlen(want)) == 0)
            here = true;
        if (here && strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
            value = atol(line + strlen(name) + 1);
    }
    (void)fclose(f);
    return value;
}

TEST(smaps_rows)
{
    char *area = mmap(NULL, 66 * P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *p = area + P;

    OK(mprotect(p, 64 * P, PROT_READ | PROT_WRITE));
    memset(p, 1, 64 * P);
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Size"), 256);
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Rss"), 256);
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Pss"), 256);
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Anonymous"), 256);
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Private_Dirty"), 256);
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Shared_Dirty"), 0);
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Locked"), 0);
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Swap"), 0);
    /* After a fork half of each page is ours. */
    volatile int *go = conf_shared(P);
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_await(go, 1);
        _exit(0);
    }
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Rss"), 256);
    /* Some pages may have been copied at once. */
    const long pss = smaps_row("/proc/self/smaps", p, "Pss");
    const long shared = smaps_row("/proc/self/smaps", p, "Shared_Dirty");
    CHECK(shared > 0 && pss == 256 - shared / 2);
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Private_Dirty"), 256 - shared);
    *go = 1;
    CHECK_EXIT(pid, 0);
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Pss"), 256);
    OK(mlock(p, 64 * P));
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Locked"), 256);
}

static bool vm_flags(const void *p, char *out, size_t size)
{
    FILE *f = OK(fopen("/proc/self/smaps", "r") ?: (FILE *)-1);
    char want[32];
    bool here = false, found = false;

    (void)snprintf(want, sizeof(want), "%08lx-", (unsigned long)p);
    while (!found && fgets(out, (int)size, f)) {
        here |= strncmp(out, want, strlen(want)) == 0;
        found = here && strncmp(out, "VmFlags:", 8) == 0;
    }
    (void)fclose(f);
    return found;
}

TEST(smaps_flags)
{
    char line[256];
    char *area = mmap(NULL, 10 * P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *p = area + P;

    OK(mprotect(p, 8 * P, PROT_READ | PROT_WRITE));
    OK(madvise(p, 8 * P, MADV_DONTFORK));
    OK(madvise(p, 8 * P, MADV_DONTDUMP));
    CHECK(vm_flags(p, line, sizeof(line)));
    CHECK(strstr(line, " rd wr mr mw me "));
    CHECK(strstr(line, " dc "));
    CHECK(strstr(line, " dd "));
    CHECK(!strstr(line, " lo "));
    OK(mlock(p, 8 * P));
    CHECK(vm_flags(p, line, sizeof(line)));
    CHECK(strstr(line, " lo "));
    char *q = conf_shared(P);
    CHECK(vm_flags(q, line, sizeof(line)));
    CHECK(strstr(line, " rd wr sh mr mw me ms "));
}

TEST(smaps_rollup)
{
    char line[256];
    FILE *f = OK(fopen("/proc/self/smaps_rollup", "r") ?: (FILE *)-1);

    CHECK(fgets(line, sizeof(line), f));
    CHECK(strstr(line, " ---p 00000000 00:00 0 "));
    CHECK(strstr(line, "[rollup]\n"));
    (void)fclose(f);
    const long before = smaps_row("/proc/self/smaps_rollup", NULL, "Anonymous");
    memset(conf_pages(512), 1, 512 * P);
    const long after = smaps_row("/proc/self/smaps_rollup", NULL, "Anonymous");
    CHECK(after - before >= 2048 && after - before < 2048 + 256);
    CHECK(smaps_row("/proc/self/smaps_rollup", NULL, "Rss") >= after);
    CHECK(smaps_row("/proc/self/smaps_rollup", NULL, "Pss_Anon") >= 2048);
}

TEST(clear_refs_referenced)
{
    char *area = mmap(NULL, 66 * P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *p = area + P;

    OK(mprotect(p, 64 * P, PROT_READ | PROT_WRITE));
    memset(p, 1, 64 * P);
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Referenced"), 256);
    conf_put("/proc/self/clear_refs", "1\n");
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Referenced"), 0);
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Rss"), 256);
    /* The processor does not tell again of a page that its TLB holds: a change of the protection
     * takes all of them out. */
    OK(mprotect(p, 64 * P, PROT_READ));
    OK(mprotect(p, 64 * P, PROT_READ | PROT_WRITE));
    for (size_t i = 0; i < 64; i++)
        CHECK_EQ(p[i * P], 1);
    const long used = smaps_row("/proc/self/smaps", p, "Referenced");
    CHECK(used > 0);
    p[0] = 2;
    /* 3 means what is a file's: this stays. */
    conf_put("/proc/self/clear_refs", "3");
    CHECK(smaps_row("/proc/self/smaps", p, "Referenced") >= used);
    conf_put("/proc/self/clear_refs", "2");
    CHECK_EQ(smaps_row("/proc/self/smaps", p, "Referenced"), 0);
    CHECK_EQ(p[0], 2);
}

static long status_row(const char *name)
{
    return smaps_row("/proc/self/status", NULL, name);
}

TEST(clear_refs_peak)
{
    const size_t size = 32UL << 20;
    char *p = conf_pages(size / P);

    memset(p, 1, size);
    const long high = status_row("VmHWM");
    OK(munmap(p, size));
    CHECK(status_row("VmHWM") >= high - 256);
    conf_put("/proc/self/clear_refs", "5");
    CHECK(status_row("VmHWM") < high - (24L << 10));
}

TEST(clear_refs_wrong)
{
    const int fd = OK(open("/proc/self/clear_refs", O_WRONLY));
    char c;

    CHECK_ERRNO(write(fd, "0", 1), EINVAL);
    CHECK_ERRNO(write(fd, "6", 1), EINVAL);
    CHECK_ERRNO(write(fd, "x", 1), EINVAL);
    CHECK_EQ(write(fd, "1", 1), 1);
    CHECK_ERRNO(read(fd, &c, 1), EBADF);
    const int both = OK(open("/proc/self/clear_refs", O_RDWR));
    CHECK_ERRNO(read(both, &c, 1), EINVAL);
    CHECK_ERRNO(pread(both, &c, 1, 10), EINVAL);
    conf_become(1234);
    CHECK_ERRNO(open("/proc/1/clear_refs", O_WRONLY), EACCES);
}

/* ---- frames: for the privileged, who do not exist in a sandbox ---- */

TEST(kpage_files)
{
    static const char *const files[] = {"/proc/kpagecount", "/proc/kpageflags",
                                        "/proc/kpagecgroup"};

    conf_become(1234);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        CHECK_ERRNO(open(files[i], O_RDONLY), EACCES);
}

/* ---- limits ---- */

static void set_limit(int which, rlim_t v)
{
    struct rlimit r = {v, v};

    OK(setrlimit(which, &r));
}

TEST(limit_as)
{
    set_limit(RLIMIT_AS, 64UL << 20);
    CHECK(mmap(NULL, 65UL << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
    CHECK_EQ(errno, ENOMEM);
    char *p = conf_pages(16);
    CHECK(mremap(p, 16 * P, 64UL << 20, MREMAP_MAYMOVE) == MAP_FAILED);
    CHECK_EQ(errno, ENOMEM);
    CHECK(sbrk(64L << 20) == (void *)-1);
    CHECK_EQ(errno, ENOMEM);
    CHECK(mmap(NULL, 65UL << 20, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
}

TEST(limit_data)
{
    set_limit(RLIMIT_DATA, 8UL << 20);
    CHECK(mmap(NULL, 9UL << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
          MAP_FAILED);
    CHECK_EQ(errno, ENOMEM);
    /* Only private memory that can be written is data. */
    char *p = OK(mmap(NULL, 9UL << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    OK(mmap(NULL, 9UL << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    CHECK_ERRNO(mprotect(p, 9UL << 20, PROT_READ | PROT_WRITE), ENOMEM);
    CHECK(sbrk(9L << 20) == (void *)-1);
}

/* Uses left bytes of stack. */
static int deep(size_t left)
{
    volatile char here[2048];

    here[left % sizeof(here)] = 1;
    if (left > sizeof(here))
        here[0] = (char)deep(left - sizeof(here));
    return here[left % sizeof(here)];
}

HELPER(deep)
{
    return argc > 1 && deep((size_t)atol(argv[1])) == 77;
}

static pid_t run_deep(const char *size)
{
    pid_t pid = conf_fork();

    if (pid == 0) {
        const char *const args[] = {size, NULL};
        set_limit(RLIMIT_STACK, 1UL << 20);
        set_limit(RLIMIT_CORE, 0);
        conf_exec_helper("deep", args);
    }
    return pid;
}

TEST(limit_stack)
{
    CHECK_EXIT(run_deep("524288"), 0);
    CHECK_KILLED(run_deep("2097152"), SIGSEGV);
}

TEST(limit_memlock)
{
    char *p = conf_pages(64);
    const long before = status_row("VmLck");

    conf_become(1234);
    set_limit(RLIMIT_MEMLOCK, 16 * P);
    CHECK_ERRNO(mlock(p, 17 * P), ENOMEM);
    OK(mlock(p, 16 * P));
    CHECK_EQ(status_row("VmLck"), before + 64);
    OK(mlock(p, 16 * P));
    CHECK_ERRNO(mlock(p + 16 * P, P), ENOMEM);
    CHECK(mmap(NULL, P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) == MAP_FAILED);
    CHECK_EQ(errno, EAGAIN);
    CHECK_ERRNO(mlockall(MCL_CURRENT), ENOMEM);
    OK(munlock(p, 8 * P));
    CHECK_EQ(status_row("VmLck"), before + 32);
    OK(mlock(p + 16 * P, 8 * P));
    OK(munmap(p, 16 * P));
    CHECK_EQ(status_row("VmLck"), before + 32);
    set_limit(RLIMIT_MEMLOCK, 0);
    CHECK_ERRNO(mlock(p + 40 * P, P), EPERM);
}
