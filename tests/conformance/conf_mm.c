/* Address spaces: mmap, munmap, mprotect, mremap, brk, madvise, msync, mincore, mlock, faults. */
#include "harness.h"

#include <limits.h>
#include <linux/mman.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>

CONF_FAMILY("mm");

#define P CONF_PAGE
#define RW (PROT_READ | PROT_WRITE)
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

/* ---- helpers ---- */

static sigjmp_buf fault_jump;
static volatile sig_atomic_t fault_signo, fault_code;
static void *volatile fault_addr;

static void on_fault(int sig, siginfo_t *info, void *uc)
{
    (void)uc;
    fault_signo = sig;
    fault_code = info->si_code;
    fault_addr = info->si_addr;
    siglongjmp(fault_jump, 1);
}

static void catch_faults(void)
{
    conf_sigaction(SIGSEGV, on_fault, 0);
    conf_sigaction(SIGBUS, on_fault, 0);
}

/* 0, or the signal that reading (or writing v) gave. */
static int try_read(const volatile char *p)
{
    fault_signo = 0;
    if (sigsetjmp(fault_jump, 1) == 0)
        (void)*p;
    return fault_signo;
}

static int try_write(volatile char *p, char v)
{
    fault_signo = 0;
    if (sigsetjmp(fault_jump, 1) == 0)
        *p = v;
    return fault_signo;
}

static char *map_at(void *addr, size_t size, int prot, int flags)
{
    return OK(mmap(addr, size, prot, flags, -1, 0));
}

/* A file of n pages, page i full of 'a' + i. */
static int make_file(const char *path, size_t pages)
{
    char buf[P];
    int fd = OK(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
    for (size_t i = 0; i < pages; i++) {
        memset(buf, 'a' + (int)i, sizeof(buf));
        CHECK_EQ(write(fd, buf, sizeof(buf)), P);
    }
    return fd;
}

static bool is_mapped(void *addr, size_t size)
{
    unsigned char vec[64];
    return mincore(addr, size, vec) == 0;
}

static void *no_such_page(void)
{
    void *p = map_at(NULL, P, PROT_NONE, ANON);
    OK(munmap(p, P));
    return p;
}

/* ---- mmap ---- */

TEST(anonymous_is_zero)
{
    char *p = map_at(NULL, 16 * P, RW, ANON);
    for (size_t i = 0; i < 16 * P; i++)
        CHECK_EQ(p[i], 0);
    memset(p, 1, 16 * P);
    OK(munmap(p, 16 * P));
    p = map_at(NULL, 16 * P, RW, ANON);
    for (size_t i = 0; i < 16 * P; i += 512)
        CHECK_EQ(p[i], 0);
}

TEST(mmap_bad_arguments)
{
    int fd = make_file("f", 1);
    CHECK_ERRNO(mmap(NULL, 0, RW, ANON, -1, 0), EINVAL);
    CHECK_ERRNO(mmap(NULL, P, RW, MAP_ANONYMOUS, -1, 0), EINVAL);
    CHECK_ERRNO(mmap(NULL, P, RW, MAP_ANONYMOUS | MAP_SHARED_VALIDATE, -1, 0), EINVAL);
    CHECK_ERRNO(mmap(NULL, P, RW, MAP_PRIVATE, -1, 0), EBADF);
    CHECK_ERRNO(mmap(NULL, P, RW, MAP_PRIVATE, 1000, 0), EBADF);
    CHECK_ERRNO(mmap(NULL, 0, RW, MAP_PRIVATE, fd, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_mmap, NULL, P, RW, ANON, -1, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_mmap, NULL, P, PROT_READ, MAP_PRIVATE, fd, 100), EINVAL);
    CHECK_ERRNO(mmap(NULL, SIZE_MAX, RW, ANON, -1, 0), ENOMEM);
    CHECK_ERRNO(mmap(NULL, SIZE_MAX - P, RW, ANON, -1, 0), ENOMEM);
    CHECK_ERRNO(mmap(NULL, 1UL << 50, PROT_NONE, ANON, -1, 0), ENOMEM);
    CHECK_ERRNO(mmap((void *)0x10001, P, RW, ANON | MAP_FIXED, -1, 0), EINVAL);
    CHECK_ERRNO(mmap((void *)(ULONG_MAX & ~(P - 1)), P, RW, ANON | MAP_FIXED, -1, 0), ENOMEM);
    CHECK_ERRNO(mmap((void *)(1UL << 47), P, RW, ANON | MAP_FIXED, -1, 0), ENOMEM);
    CHECK_ERRNO(mmap(NULL, P, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0), EINVAL);
    CHECK_ERRNO(mmap(NULL, P, PROT_READ, MAP_SHARED_VALIDATE | (1 << 25), fd, 0), EOPNOTSUPP);
    CHECK(mmap(NULL, P, PROT_READ, MAP_SHARED | (1 << 25), fd, 0) != MAP_FAILED);
}

TEST(mmap_file_access_modes)
{
    OK(close(make_file("f", 1)));
    int rd = OK(open("f", O_RDONLY)), wr = OK(open("f", O_WRONLY));
    CHECK_ERRNO(mmap(NULL, P, PROT_READ, MAP_PRIVATE, wr, 0), EACCES);
    CHECK_ERRNO(mmap(NULL, P, PROT_READ, MAP_SHARED, wr, 0), EACCES);
    CHECK_ERRNO(mmap(NULL, P, PROT_WRITE, MAP_SHARED, wr, 0), EACCES);
    CHECK_ERRNO(mmap(NULL, P, RW, MAP_SHARED, rd, 0), EACCES);
    char *p = OK(mmap(NULL, P, PROT_READ, MAP_SHARED, rd, 0));
    CHECK_ERRNO(mprotect(p, P, RW), EACCES);
    char *q = OK(mmap(NULL, P, RW, MAP_PRIVATE, rd, 0));
    *q = 'z';
    CHECK_EQ(*p, 'a');
    int dir = OK(open(".", O_RDONLY | O_DIRECTORY));
    CHECK_ERRNO(mmap(NULL, P, PROT_READ, MAP_PRIVATE, dir, 0), ENODEV);
    int path = OK(open("f", O_PATH));
    CHECK_ERRNO(mmap(NULL, P, PROT_READ, MAP_PRIVATE, path, 0), EBADF);
}

TEST(shared_validate)
{
    OK(close(make_file("f", 1)));
    int fd = OK(open("f", O_RDWR)), wr = OK(open("f", O_WRONLY)),
        zero = OK(open("/dev/zero", O_RDWR));
    char *p = OK(mmap(NULL, P, RW, MAP_SHARED_VALIDATE | MAP_POPULATE, fd, 0));
    *p = 'v';
    char c = 0;
    CHECK_EQ(pread(fd, &c, 1, 0), 1);
    CHECK_EQ(c, 'v');
    char *q = OK(mmap(NULL, P, RW, MAP_SHARED_VALIDATE, zero, 0));
    CHECK_EQ(*q, 0);
    *q = 1;
    /* Flags come before modes. */
    CHECK_ERRNO(mmap(NULL, P, PROT_READ, MAP_SHARED_VALIDATE, wr, 0), EACCES);
    CHECK_ERRNO(mmap(NULL, P, PROT_READ, MAP_SHARED_VALIDATE | (1 << 25), wr, 0), EOPNOTSUPP);
    CHECK_ERRNO(mmap(NULL, 0, PROT_READ, MAP_SHARED_VALIDATE | (1 << 25), wr, 0), EINVAL);
    OK(munmap(q, P));
    CHECK_ERRNO(mmap(q, P, PROT_READ, MAP_SHARED_VALIDATE | MAP_FIXED_NOREPLACE, fd, 0),
                EOPNOTSUPP);
}

TEST(fixed_replaces_and_noreplace_refuses)
{
    catch_faults();
    char *p = map_at(NULL, 8 * P, RW, ANON);
    memset(p, 5, 8 * P);
    CHECK(map_at(p + 2 * P, 2 * P, PROT_READ, ANON | MAP_FIXED) == p + 2 * P);
    CHECK_EQ(p[2 * P - 1], 5);
    CHECK_EQ(p[2 * P], 0);
    CHECK_EQ(p[4 * P], 5);
    CHECK_EQ(try_write(p + 3 * P, 1), SIGSEGV);
    CHECK_EQ(fault_code, SEGV_ACCERR);
    CHECK_ERRNO(mmap(p + 7 * P, 2 * P, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
    OK(munmap(p + 4 * P, P));
    CHECK(map_at(p + 4 * P, P, RW, ANON | MAP_FIXED_NOREPLACE) == p + 4 * P);
    char *hint = map_at(p, P, RW, ANON);
    CHECK(hint != p);
    OK(munmap(p + 4 * P, P));
    CHECK(map_at(p + 4 * P, P, RW, ANON) == p + 4 * P);
}

TEST(low_32_bits)
{
    char *p = map_at(NULL, P, RW, ANON | MAP_32BIT);
    CHECK((uintptr_t)p + P <= 1UL << 31);
    *p = 1;
}

TEST(large_reservations)
{
    char *p = map_at(NULL, 1UL << 40, PROT_NONE, ANON | MAP_NORESERVE);
    OK(mprotect(p + (1UL << 39), 4 * P, RW));
    p[1UL << 39] = 3;
    CHECK_EQ(p[1UL << 39], 3);
    OK(munmap(p, 1UL << 40));
    p = map_at(NULL, 8UL << 30, RW, ANON | MAP_NORESERVE);
    for (size_t at = 0; at < 8UL << 30; at += 1UL << 28)
        p[at] = 1;
    OK(munmap(p, 8UL << 30));
}

TEST(many_mappings)
{
    enum { N = 2000 };
    char *p = map_at(NULL, 2 * N * P, RW, ANON);
    for (size_t i = 0; i < N; i++)
        OK(mprotect(p + 2 * i * P, P, PROT_READ));
    for (size_t i = 0; i < N; i++)
        p[(2 * i + 1) * P] = (char)i;
    for (size_t i = 0; i < N; i += 2)
        OK(munmap(p + 2 * i * P, P));
    for (size_t i = 0; i < N; i++)
        CHECK_EQ(p[(2 * i + 1) * P], (char)i);
    OK(munmap(p, 2 * N * P));
}

/* ---- munmap ---- */

TEST(munmap_parts)
{
    catch_faults();
    char *p = map_at(NULL, 6 * P, RW, ANON);
    memset(p, 9, 6 * P);
    OK(munmap(p + P, P));
    OK(munmap(p + 4 * P, 1));
    CHECK_EQ(try_read(p), 0);
    CHECK_EQ(try_read(p + P), SIGSEGV);
    CHECK_EQ(fault_code, SEGV_MAPERR);
    CHECK(fault_addr == p + P);
    CHECK_EQ(try_read(p + 2 * P), 0);
    CHECK_EQ(try_read(p + 4 * P), SIGSEGV);
    CHECK_EQ(try_read(p + 5 * P), 0);
    OK(munmap(p, 6 * P));
    OK(munmap(p, 6 * P));
    CHECK_ERRNO(munmap(p + 1, P), EINVAL);
    CHECK_ERRNO(munmap(p, 0), EINVAL);
    CHECK_ERRNO(munmap(p, SIZE_MAX), EINVAL);
    CHECK_ERRNO(munmap((void *)(1UL << 62), P), EINVAL);
}

/* ---- mprotect and faults ---- */

TEST(protections)
{
    catch_faults();
    char *p = map_at(NULL, 4 * P, RW, ANON);
    memset(p, 7, 4 * P);
    OK(mprotect(p + P, P, PROT_NONE));
    CHECK_EQ(try_read(p + P), SIGSEGV);
    CHECK_EQ(fault_code, SEGV_ACCERR);
    CHECK_EQ(try_write(p + P, 1), SIGSEGV);
    OK(mprotect(p + P, P, PROT_READ));
    CHECK_EQ(p[P], 7);
    CHECK_EQ(try_write(p + P + 3, 1), SIGSEGV);
    CHECK_EQ(fault_code, SEGV_ACCERR);
    CHECK(fault_addr == p + P + 3);
    OK(mprotect(p, 4 * P, RW));
    CHECK_EQ(try_write(p + P, 1), 0);
    CHECK_ERRNO(mprotect(p + 1, P, RW), EINVAL);
    CHECK_ERRNO(mprotect(p, P, 0x100), EINVAL);
    CHECK_ERRNO(mprotect(p, P, PROT_GROWSDOWN | PROT_GROWSUP), EINVAL);
    CHECK_ERRNO(mprotect(p, P, PROT_GROWSDOWN | PROT_READ), EINVAL);
    OK(mprotect(p, 0, RW));
    OK(munmap(p + 2 * P, P));
    CHECK_ERRNO(mprotect(p, 4 * P, PROT_READ), ENOMEM);
    CHECK_EQ(try_write(p + P, 1), SIGSEGV);
    CHECK_EQ(try_write(p + 3 * P, 1), 0);
    CHECK_ERRNO(mprotect(p, SIZE_MAX - P, PROT_READ), ENOMEM);
}

TEST(execute_permission)
{
    static const unsigned char code[] = {0xb8, 0x2a, 0, 0, 0, 0xc3}; /* mov $42,%eax; ret */
    catch_faults();
    char *p = map_at(NULL, P, RW, ANON);
    memcpy(p, code, sizeof(code));
    int (*fn)(void) = NULL;
    memcpy(&fn, &p, sizeof(fn));
    fault_signo = 0;
    if (sigsetjmp(fault_jump, 1) == 0)
        fn();
    CHECK_EQ(fault_signo, SIGSEGV);
    CHECK_EQ(fault_code, SEGV_ACCERR);
    CHECK(fault_addr == p);
    OK(mprotect(p, P, PROT_READ | PROT_EXEC));
    CHECK_EQ(fn(), 42);
    OK(mprotect(p, P, RWX));
    p[1] = 43;
    CHECK_EQ(fn(), 43);
}

TEST(null_and_wild_pointers)
{
    catch_faults();
    CHECK_EQ(try_read(NULL), SIGSEGV);
    CHECK_EQ(fault_code, SEGV_MAPERR);
    CHECK(fault_addr == NULL);
    CHECK_EQ(try_write((char *)0x7ffffffff000, 1), SIGSEGV);
    CHECK_EQ(try_read((char *)0x8000000000000000), SIGSEGV);
    CHECK_EQ(try_read((char *)0xffffffff80000000), SIGSEGV);
    volatile char *p = no_such_page();
    CHECK_EQ(try_write(p, 1), SIGSEGV);
    CHECK(fault_addr == p);
}

TEST(fault_without_handler_kills)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        *(volatile char *)no_such_page() = 1;
        _exit(0);
    }
    CHECK_KILLED(pid, SIGSEGV);
}

TEST(handler_can_map_the_page)
{
    catch_faults();
    char *p = map_at(NULL, 64 * P, PROT_NONE, ANON);
    for (size_t i = 0; i < 64; i++) {
        CHECK_EQ(try_write(p + i * P, 1), SIGSEGV);
        OK(mprotect(p + i * P, P, RW));
        CHECK_EQ(try_write(p + i * P, (char)i), 0);
        CHECK_EQ(p[i * P], (char)i);
    }
}

/* ---- bad pointers in calls ---- */

TEST(system_calls_and_protections)
{
    int fds[2];
    OK(pipe(fds));
    char *p = map_at(NULL, 3 * P, RW, ANON);
    OK(mprotect(p + P, P, PROT_READ));
    OK(munmap(p + 2 * P, P));
    CHECK_EQ(write(fds[1], "0123456789", 10), 10);
    CHECK_ERRNO(read(fds[0], p + P, 4), EFAULT);
    CHECK_ERRNO(read(fds[0], p + 2 * P, 4), EFAULT);
    CHECK_EQ(read(fds[0], p, 4), 4);
    CHECK_EQ(memcmp(p, "0123", 4), 0);
    CHECK_EQ(write(fds[1], p + P, 4), 4);
    CHECK_ERRNO(write(fds[1], p + 2 * P, 4), EFAULT);
    CHECK_ERRNO(write(fds[1], (void *)-1L, 4), EFAULT);
    CHECK_ERRNO(open(p + 2 * P, O_RDONLY), EFAULT);
    OK(mprotect(p, P, PROT_NONE));
    CHECK_ERRNO(write(fds[1], p, 4), EFAULT);
}

/* ---- files ---- */

TEST(private_file_mapping)
{
    int fd = make_file("f", 6);
    char *p = OK(mmap(NULL, 4 * P, RW, MAP_PRIVATE, fd, (off_t)P));
    CHECK_EQ(p[0], 'b');
    CHECK_EQ(p[3 * P], 'e');
    p[P] = 'X';
    char c = 0;
    CHECK_EQ(pread(fd, &c, 1, 2 * (off_t)P), 1);
    CHECK_EQ(c, 'c');
    CHECK_EQ(p[P], 'X');
    CHECK_EQ(p[P + 1], 'c');
    OK(close(fd));
    OK(unlink("f"));
    CHECK_EQ(p[2 * P], 'd');
    OK(madvise(p, 4 * P, MADV_DONTNEED));
    CHECK_EQ(p[P], 'c');
}

TEST(shared_file_mapping)
{
    int fd = make_file("f", 3);
    char *p = OK(mmap(NULL, 3 * P, RW, MAP_SHARED, fd, 0));
    char *q = OK(mmap(NULL, 3 * P, PROT_READ, MAP_SHARED, fd, 0));
    char c = 0;
    p[P + 5] = 'Q';
    CHECK_EQ(q[P + 5], 'Q');
    CHECK_EQ(pread(fd, &c, 1, (off_t)P + 5), 1);
    CHECK_EQ(c, 'Q');
    CHECK_EQ(pwrite(fd, "W", 1, 7), 1);
    CHECK_EQ(p[7], 'W');
    pid_t pid = conf_fork();
    if (pid == 0) {
        p[2 * P] = 'C';
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(p[2 * P], 'C');
    OK(msync(p, 3 * P, MS_SYNC));
    OK(munmap(p, 3 * P));
    CHECK_EQ(q[2 * P], 'C');
}

TEST(beyond_the_end_of_the_file)
{
    catch_faults();
    int fd = make_file("f", 1);
    OK(ftruncate(fd, 100));
    char *p = OK(mmap(NULL, 3 * P, RW, MAP_SHARED, fd, 0));
    CHECK_EQ(p[99], 'a');
    CHECK_EQ(p[100], 0);
    CHECK_EQ(try_read(p + P), SIGBUS);
    CHECK_EQ(fault_code, BUS_ADRERR);
    CHECK(fault_addr == p + P);
    CHECK_EQ(try_write(p + 2 * P, 1), SIGBUS);
    int fds[2];
    OK(pipe(fds));
    CHECK_ERRNO(write(fds[1], p + P, 1), EFAULT);
    OK(ftruncate(fd, 2 * (off_t)P));
    CHECK_EQ(try_read(p + P), 0);
    CHECK_EQ(try_write(p + P, 'n'), 0);
    CHECK_EQ(try_read(p + 2 * P), SIGBUS);
    OK(ftruncate(fd, 50));
    CHECK_EQ(try_read(p + P), SIGBUS);
    CHECK_EQ(p[49], 'a');
    CHECK_EQ(p[50], 0);
    char *q = OK(mmap(NULL, P, PROT_READ, MAP_PRIVATE, fd, 16 * (off_t)P));
    CHECK_EQ(try_read(q), SIGBUS);
}

TEST(private_page_goes_with_the_files_end)
{
    catch_faults();
    int fd = make_file("f", 2);
    char *p = OK(mmap(NULL, 2 * P, RW, MAP_PRIVATE, fd, 0));
    CHECK_EQ(p[P], 'b');
    OK(ftruncate(fd, (off_t)P));
    CHECK_EQ(try_read(p + P), SIGBUS);
    CHECK_EQ(p[0], 'a');
}

/* What was written privately goes as well: only a hole keeps it. */
static void truncated_under_copies(int fd)
{
    char *p = OK(mmap(NULL, 4 * P, RW, MAP_PRIVATE, fd, 0));
    memset(p, 'x', 4 * P);
    OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * (off_t)P, 2 * (off_t)P));
    CHECK_EQ(p[2 * P], 'x');
    CHECK_EQ(p[4 * P - 1], 'x');
    OK(ftruncate(fd, (off_t)P + 100));
    CHECK_EQ(try_read(p + 2 * P), SIGBUS);
    CHECK_EQ(fault_code, BUS_ADRERR);
    CHECK_EQ(try_write(p + 3 * P, 'y'), SIGBUS);
    CHECK_EQ(p[P + 99], 'x');
    CHECK_EQ(p[2 * P - 1], 'x');
    OK(ftruncate(fd, 4 * (off_t)P));
    CHECK_EQ(p[2 * P], 0);
    CHECK_EQ(p[4 * P - 1], 0);
    CHECK_EQ(p[2 * P - 1], 'x');
    OK(munmap(p, 4 * P));
}

TEST(truncate_takes_private_copies)
{
    catch_faults();
    truncated_under_copies(make_file("f", 4));
    int fd = OK(memfd_create("m", 0));
    OK(ftruncate(fd, 4 * (off_t)P));
    truncated_under_copies(fd);
}

TEST(truncate_takes_copies_of_other_processes)
{
    catch_faults();
    volatile int *step = conf_shared(P);
    int fd = make_file("f", 3);
    char *p = OK(mmap(NULL, 3 * P, RW, MAP_PRIVATE, fd, 0));
    p[0] = p[P] = p[2 * P] = 'x';
    pid_t pid = conf_fork();
    if (pid == 0) {
        p[P] = 'y';
        step[0] = 1;
        conf_await(step, 2);
        CHECK_EQ(p[0], 'x');
        CHECK_EQ(try_read(p + P), SIGBUS);
        CHECK_EQ(try_read(p + 2 * P), SIGBUS);
        _exit(0);
    }
    conf_await(step, 1);
    OK(truncate("f", 1));
    step[0] = 2;
    CHECK_EXIT(pid, 0);
    CHECK_EQ(try_read(p + 2 * P), SIGBUS);
    CHECK_EQ(try_read(p), 0);
    OK(close(OK(open("f", O_WRONLY | O_TRUNC))));
    CHECK_EQ(try_read(p), SIGBUS);
}

/* Bytes beyond the end are gone for good, whoever saw them. */
TEST(tail_of_the_last_page_reads_zero)
{
    int fd = make_file("f", 2);
    char *p = OK(mmap(NULL, 2 * P, RW, MAP_SHARED, fd, 0));
    char *q = OK(mmap(NULL, 2 * P, RW, MAP_PRIVATE, fd, 0));
    char buf[P];
    CHECK_EQ(p[P + 200], 'b');
    CHECK_EQ(q[P + 200], 'b');
    OK(ftruncate(fd, (off_t)P + 100));
    CHECK_EQ(p[P + 99], 'b');
    CHECK_EQ(p[P + 100], 0);
    OK(ftruncate(fd, 2 * (off_t)P));
    for (size_t i = 100; i < P; i++)
        CHECK(p[P + i] == 0 && q[P + i] == 0);
    CHECK_EQ(pread(fd, buf, P, (off_t)P), P);
    CHECK_EQ(buf[99], 'b');
    CHECK_EQ(buf[100], 0);
    CHECK_EQ(buf[P - 1], 0);
}

TEST(read_into_a_mapping_of_the_same_file)
{
    int fd = make_file("f", 4);
    char *p = OK(mmap(NULL, 4 * P, RW, MAP_SHARED, fd, 0));
    CHECK_EQ(pread(fd, p + 2 * P, P, 0), P);
    CHECK_EQ(p[2 * P], 'a');
    CHECK_EQ(p[3 * P - 1], 'a');
    CHECK_EQ(pwrite(fd, p, P, 3 * (off_t)P), P);
    CHECK_EQ(p[3 * P + 9], 'a');
}

/* ---- sharing and fork ---- */

TEST(shared_anonymous)
{
    volatile int *p = (void *)map_at(NULL, 4 * P, RW, MAP_SHARED | MAP_ANONYMOUS);
    pid_t pid = conf_fork();
    if (pid == 0) {
        p[1000] = 44;
        conf_await(&p[1], 1);
        _exit(p[2] == 3 ? 0 : 1);
    }
    conf_await(&p[1000], 44);
    p[2] = 3;
    p[1] = 1;
    CHECK_EXIT(pid, 0);
}

TEST(copy_on_write)
{
    enum { N = 600 };
    char *p = map_at(NULL, N * P, RW, ANON);
    for (size_t i = 0; i < N; i++)
        p[i * P] = (char)i;
    pid_t pid = conf_fork();
    if (pid == 0) {
        for (size_t i = 0; i < N; i++) {
            if (p[i * P] != (char)i)
                _exit(1);
            p[i * P] = 99;
        }
        pid_t grandchild = fork();
        if (grandchild == 0) {
            for (size_t i = 0; i < N; i++)
                if (p[i * P] != 99)
                    _exit(2);
            memset(p, 3, N * P);
            _exit(0);
        }
        int status = -1;
        if (waitpid(grandchild, &status, 0) != grandchild || status != 0)
            _exit(3);
        for (size_t i = 0; i < N; i++)
            if (p[i * P] != 99)
                _exit(4);
        _exit(0);
    }
    for (size_t i = 0; i < N; i += 2)
        p[i * P] = 77;
    CHECK_EXIT(pid, 0);
    for (size_t i = 0; i < N; i++)
        CHECK_EQ(p[i * P], i % 2 ? (char)i : 77);
}

TEST(calls_write_to_their_own_copy)
{
    char *p = map_at(NULL, P, RW, ANON);
    int fds[2];
    strcpy(p, "parent");
    OK(pipe(fds));
    pid_t pid = conf_fork();
    if (pid == 0) {
        if (read(fds[0], p, 5) != 5 || memcmp(p, "child", 5) != 0)
            _exit(1);
        _exit(0);
    }
    CHECK_EQ(write(fds[1], "child", 5), 5);
    CHECK_EXIT(pid, 0);
    CHECK_STR(p, "parent");
}

TEST(fork_advice)
{
    char *p = map_at(NULL, 4 * P, RW, ANON);
    memset(p, 6, 4 * P);
    OK(madvise(p + P, P, MADV_DONTFORK));
    OK(madvise(p + 2 * P, P, MADV_WIPEONFORK));
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(p[0] == 6 && !is_mapped(p + P, P) && p[2 * P] == 0 && p[3 * P] == 6 ? 0 : 1);
    CHECK_EXIT(pid, 0);
    CHECK_EQ(p[P], 6);
    CHECK_EQ(p[2 * P], 6);
    OK(madvise(p + P, P, MADV_DOFORK));
    OK(madvise(p + 2 * P, P, MADV_KEEPONFORK));
    pid = conf_fork();
    if (pid == 0)
        _exit(p[P] == 6 && p[2 * P] == 6 ? 0 : 1);
    CHECK_EXIT(pid, 0);
}

/* ---- threads ---- */

static void *write_pages(void *arg)
{
    char *p = arg;
    for (size_t i = 0; i < 4096; i++)
        p[i * P]++;
    return NULL;
}

TEST(threads_fault_together)
{
    pthread_t t[4];
    char *p = map_at(NULL, 4096 * P, RW, ANON | MAP_NORESERVE);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        CHECK_EQ(pthread_create(&t[i], NULL, write_pages, p + 64 * i), 0);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        CHECK_EQ(p[64 * i + 4095 * P], 1);
}

static volatile int stop_mapping;

static void *map_and_unmap(void *arg)
{
    while (!stop_mapping) {
        char *p = mmap(NULL, 8 * P, RW, ANON, -1, 0);
        if (p == MAP_FAILED)
            return arg;
        memset(p, 1, 8 * P);
        if (munmap(p, 8 * P) != 0)
            return arg;
    }
    return NULL;
}

TEST(threads_map_while_others_fork)
{
    pthread_t t[2];
    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        CHECK_EQ(pthread_create(&t[i], NULL, map_and_unmap, &t), 0);
    for (int i = 0; i < 20; i++) {
        pid_t pid = conf_fork();
        if (pid == 0)
            _exit(0);
        CHECK_EXIT(pid, 0);
    }
    stop_mapping = 1;
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        void *r;
        CHECK_EQ(pthread_join(t[i], &r), 0);
        CHECK(r == NULL);
    }
}

/* ---- mremap ---- */

TEST(mremap_grows_and_shrinks)
{
    catch_faults();
    char *p = map_at(NULL, 32 * P, PROT_NONE, ANON);
    char *a = map_at(p + 4 * P, 4 * P, RW, ANON | MAP_FIXED);
    OK(munmap(p + 8 * P, 24 * P));
    memset(a, 4, 4 * P);
    CHECK(OK(mremap(a, 4 * P, 8 * P, 0)) == a);
    CHECK_EQ(a[3 * P], 4);
    CHECK_EQ(a[7 * P], 0);
    CHECK(OK(mremap(a, 8 * P, 2 * P, 0)) == a);
    CHECK_EQ(try_read(a + 2 * P), SIGSEGV);
    map_at(a + 2 * P, P, PROT_READ, ANON | MAP_FIXED);
    CHECK_ERRNO(mremap(a, 2 * P, 4 * P, 0), ENOMEM);
    char *b = OK(mremap(a, 2 * P, 64 * P, MREMAP_MAYMOVE));
    CHECK(b != a);
    CHECK_EQ(b[2 * P - 1], 4);
    CHECK_EQ(b[63 * P], 0);
    CHECK_EQ(try_read(a), SIGSEGV);
    CHECK_EQ(fault_code, SEGV_MAPERR);
    CHECK(OK(mremap(b, 64 * P, 64 * P, 0)) == b);
}

TEST(mremap_fixed)
{
    catch_faults();
    char *a = map_at(NULL, 4 * P, RW, ANON), *b = map_at(NULL, 8 * P, RW, ANON);
    memset(a, 1, 4 * P);
    memset(b, 2, 8 * P);
    const int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
    CHECK(OK(mremap(a, 4 * P, 2 * P, fixed, b + P)) == b + P);
    CHECK_EQ(b[0], 2);
    CHECK_EQ(b[P], 1);
    CHECK_EQ(b[3 * P - 1], 1);
    CHECK_EQ(b[3 * P], 2);
    CHECK_EQ(try_read(a), SIGSEGV);
    CHECK_EQ(try_read(a + 3 * P), SIGSEGV);
    CHECK_ERRNO(mremap(b, 2 * P, 2 * P, MREMAP_FIXED, a), EINVAL);
    CHECK_ERRNO(mremap(b, 2 * P, 2 * P, fixed, b + P), EINVAL);
    CHECK_ERRNO(mremap(b, 2 * P, 2 * P, fixed, b + 4 * P + 1), EINVAL);
    CHECK_ERRNO(mremap(b + 1, P, P, MREMAP_MAYMOVE), EINVAL);
    CHECK_ERRNO(mremap(b, P, 0, MREMAP_MAYMOVE), EINVAL);
    CHECK_ERRNO(mremap(b, P, P, 128), EINVAL);
    CHECK_ERRNO(mremap(no_such_page(), P, 2 * P, MREMAP_MAYMOVE), EFAULT);
}

/* What is cut off may be of several mappings, or of none. */
TEST(mremap_fixed_cuts_off)
{
    catch_faults();
    char *a = map_at(NULL, 8 * P, RW, ANON), *b = map_at(NULL, 8 * P, RW, ANON);
    const int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
    memset(a, 1, 8 * P);
    OK(mprotect(a + 4 * P, P, PROT_READ));
    OK(munmap(a + 6 * P, P));
    CHECK(OK(mremap(a, 7 * P + P / 2, 2 * P, fixed, b)) == b);
    CHECK_EQ(b[2 * P - 1], 1);
    CHECK_EQ(b[2 * P], 0);
    for (size_t i = 0; i < 8; i++)
        CHECK_EQ(try_read(a + i * P), SIGSEGV);
    char *c = map_at(NULL, 4 * P, RW, ANON);
    memset(c, 3, P);
    OK(munmap(c + P, 3 * P));
    CHECK_ERRNO(mremap(c, 4 * P, 2 * P, fixed, b + 4 * P), EFAULT);
    CHECK(OK(mremap(c, 4 * P, P, fixed, b + 4 * P)) == b + 4 * P);
    CHECK_EQ(b[4 * P], 3);
}

TEST(mremap_dontunmap)
{
    char *a = map_at(NULL, 4 * P, RW, ANON);
    memset(a, 8, 4 * P);
    CHECK_ERRNO(mremap(a, 4 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL), EINVAL);
    char *b = OK(mremap(a, 4 * P, 4 * P, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
    CHECK(b != a);
    CHECK_EQ(b[3 * P], 8);
    CHECK_EQ(a[3 * P], 0);
    a[0] = 1;
    CHECK_EQ(b[0], 8);
}

TEST(mremap_of_shared_memory)
{
    char *a = map_at(NULL, 4 * P, RW, MAP_SHARED | MAP_ANONYMOUS);
    char *b = OK(mremap(a, 0, 4 * P, MREMAP_MAYMOVE));
    CHECK(b != a);
    a[3 * P] = 5;
    CHECK_EQ(b[3 * P], 5);
    int fd = make_file("f", 3);
    char *f = OK(mmap(NULL, P, RW, MAP_SHARED, fd, 0));
    f = OK(mremap(f, P, 3 * P, MREMAP_MAYMOVE));
    CHECK_EQ(f[2 * P], 'c');
    char *anon = map_at(NULL, P, RW, ANON);
    CHECK_ERRNO(mremap(anon, 0, P, MREMAP_MAYMOVE), EINVAL);
}

/* ---- brk and stack ---- */

TEST(brk_moves)
{
    char *now = OK(sbrk(0));
    char *up = (char *)(((uintptr_t)now + 8 * P) & ~(P - 1));
    CHECK_EQ(syscall(SYS_brk, up), (long)up);
    up[-1] = 1;
    CHECK_EQ(syscall(SYS_brk, up - 2 * P), (long)(up - 2 * P));
    CHECK_EQ(syscall(SYS_brk, up), (long)up);
    CHECK_EQ(up[-1], 0);
    CHECK_EQ(syscall(SYS_brk, NULL), (long)up);
    CHECK_EQ(syscall(SYS_brk, P), (long)up);
    CHECK_EQ(syscall(SYS_brk, LONG_MAX), (long)up);
}

TEST(brk_respects_rlimit_data)
{
    char *now = OK(sbrk(0));
    struct rlimit old, low;
    OK(getrlimit(RLIMIT_DATA, &old));
    low = old;
    low.rlim_cur = P;
    OK(setrlimit(RLIMIT_DATA, &low));
    CHECK_EQ(syscall(SYS_brk, now + 64 * P), (long)now);
    OK(setrlimit(RLIMIT_DATA, &old));
    CHECK_EQ(syscall(SYS_brk, now + 64 * P), (long)(now + 64 * P));
}

static __attribute__((noinline)) int use_stack(size_t depth)
{
    volatile char frame[2048];
    frame[0] = (char)depth;
    frame[2047] = 1;
    return depth == 0 ? 0 : use_stack(depth - 1) + frame[2047];
}

TEST(stack_grows)
{
    CHECK_EQ(use_stack(2000), 2000);
}

TEST(stack_ends_at_its_limit)
{
    struct rlimit r = {1024 * 1024, 1024 * 1024};
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(setrlimit(RLIMIT_STACK, &r));
        _exit(use_stack(100000) & 0);
    }
    CHECK_KILLED(pid, SIGSEGV);
}

TEST(grows_down)
{
    catch_faults();
    char *p = map_at(NULL, 1024 * P, PROT_NONE, ANON);
    OK(munmap(p, 1024 * P));
    char *top = p + 1024 * P;
    map_at(top - 2 * P, 2 * P, RW, ANON | MAP_FIXED | MAP_GROWSDOWN);
    CHECK_EQ(try_write(top - 3 * P, 1), 0);
    CHECK_EQ(try_write(top - 30 * P, 1), 0);
    CHECK_EQ(top[-30 * (long)P], 1);
}

/* ---- limits ---- */

TEST(rlimit_as)
{
    struct rlimit old, low;
    OK(getrlimit(RLIMIT_AS, &old));
    low = old;
    low.rlim_cur = 64UL << 20;
    OK(setrlimit(RLIMIT_AS, &low));
    CHECK_ERRNO(mmap(NULL, 65UL << 20, PROT_NONE, ANON, -1, 0), ENOMEM);
    char *p = map_at(NULL, 8UL << 20, RW, ANON);
    CHECK_ERRNO(mremap(p, 8UL << 20, 80UL << 20, MREMAP_MAYMOVE), ENOMEM);
    low.rlim_cur = 1;
    OK(setrlimit(RLIMIT_AS, &low));
    CHECK_ERRNO(mmap(NULL, P, PROT_NONE, ANON, -1, 0), ENOMEM);
    CHECK(mmap(p, P, RW, ANON | MAP_FIXED, -1, 0) == MAP_FAILED);
    OK(setrlimit(RLIMIT_AS, &old));
}

TEST(rlimit_data_counts_private_writable)
{
    struct rlimit old, low;
    OK(getrlimit(RLIMIT_DATA, &old));
    low = old;
    low.rlim_cur = 1 << 20;
    OK(setrlimit(RLIMIT_DATA, &low));
    CHECK_ERRNO(mmap(NULL, 2 << 20, RW, ANON, -1, 0), ENOMEM);
    char *p = map_at(NULL, 2 << 20, PROT_READ, ANON);
    CHECK_ERRNO(mprotect(p, 2 << 20, RW), ENOMEM);
    map_at(NULL, 2 << 20, RW, MAP_SHARED | MAP_ANONYMOUS);
    OK(setrlimit(RLIMIT_DATA, &old));
}

TEST(absurd_sizes_are_refused)
{
    CHECK_ERRNO(mmap(NULL, 1UL << 46, RW, ANON, -1, 0), ENOMEM);
    char *p = map_at(NULL, P, RW, ANON);
    CHECK_ERRNO(mremap(p, P, 1UL << 46, MREMAP_MAYMOVE), ENOMEM);
    CHECK(mremap(p, P, 1UL << 60, MREMAP_MAYMOVE) == MAP_FAILED);
}

/* ---- another process's memory ---- */

TEST(process_vm_moves_bytes)
{
    char *p = map_at(NULL, 4 * P, RW, ANON);
    volatile int *shared = conf_shared(P);
    memset(p, 'p', 4 * P);
    pid_t pid = conf_fork();
    if (pid == 0) {
        memset(p, 'c', 4 * P);
        OK(munmap(p + 3 * P, P));
        shared[0] = 1;
        conf_await(&shared[1], 1);
        _exit(p[100] == 'w' && p[2 * P] == 'w' && p[99] == 'c' ? 0 : 1);
    }
    conf_await(&shared[0], 1);
    static char buf[4 * CONF_PAGE];
    struct iovec local[2] = {{buf, P}, {buf + P, 2 * P}}, remote[2] = {{p, 10}, {p + P, 2 * P}};
    CHECK_EQ(process_vm_readv(pid, local, 2, remote, 2, 0), 2 * P + 10);
    CHECK_EQ(buf[0], 'c');
    CHECK_EQ(buf[2 * P + 9], 'c');
    CHECK_EQ(buf[2 * P + 10], 0);
    struct iovec all = {buf, 4 * P}, bad = {p + 3 * P, P}, edge = {p + 2 * P, 2 * P};
    CHECK_ERRNO(process_vm_readv(pid, &all, 1, &bad, 1, 0), EFAULT);
    CHECK_EQ(process_vm_readv(pid, &all, 1, &edge, 1, 0), P);
    memset(buf, 'w', sizeof(buf));
    struct iovec from = {buf, 2 * P}, to = {p + 100, 2 * P};
    CHECK_EQ(process_vm_writev(pid, &from, 1, &to, 1, 0), 2 * P);
    CHECK_EQ(p[100], 'p');
    CHECK_ERRNO(process_vm_readv(pid, &all, 1, &edge, 1, 1), EINVAL);
    CHECK_ERRNO(process_vm_readv(pid, &all, 1, (void *)16, 1, 0), EFAULT);
    CHECK_ERRNO(process_vm_readv(pid, &all, 1025, &edge, 1, 0), EINVAL);
    CHECK_ERRNO(process_vm_readv(pid, &all, 1, &edge, 1025, 0), EINVAL);
    CHECK_EQ(process_vm_readv(pid, &all, 0, &edge, 1, 0), 0);
    CHECK_EQ(process_vm_readv(pid, &all, 1, &edge, 0, 0), 0);
    CHECK_ERRNO(process_vm_readv(0x3fffffff, &all, 1, &edge, 1, 0), ESRCH);
    shared[1] = 1;
    CHECK_EXIT(pid, 0);
}

TEST(process_vm_asks_for_permission)
{
    NEED_ROOT();
    volatile int *shared = conf_shared(P);
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_await(&shared[0], 1);
        _exit(0);
    }
    pid_t other = conf_fork();
    if (other == 0) {
        char buf[4];
        struct iovec v = {buf, 4}, r = {(void *)(uintptr_t)shared, 4};
        conf_become(1000);
        CHECK_ERRNO(process_vm_readv(pid, &v, 1, &r, 1, 0), EPERM);
        _exit(0);
    }
    CHECK_EXIT(other, 0);
    shared[0] = 1;
    CHECK_EXIT(pid, 0);
}

TEST(mprotect_without_a_key)
{
    char *p = map_at(NULL, P, RW, ANON);
    OK(syscall(SYS_pkey_mprotect, p, P, PROT_READ, -1));
    catch_faults();
    CHECK_EQ(try_write(p, 1), SIGSEGV);
    CHECK_ERRNO(syscall(SYS_pkey_mprotect, p, P, PROT_READ, 15), EINVAL);
    CHECK_ERRNO(syscall(SYS_pkey_mprotect, p + 1, P, PROT_READ, -1), EINVAL);
    CHECK_ERRNO(syscall(SYS_pkey_mprotect, p + 1, 0, PROT_READ, 15), EINVAL);
    OK(syscall(SYS_pkey_mprotect, p, 0, PROT_READ, 15));
    CHECK_ERRNO(syscall(SYS_pkey_free, 15), EINVAL);
    CHECK_ERRNO(syscall(SYS_pkey_free, -1), EINVAL);
    CHECK_ERRNO(syscall(SYS_pkey_alloc, 1, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_pkey_alloc, 0, 8), EINVAL);
}
