/* Memory that may not change: mseal, executable seals of memfds; and remap_file_pages. */
#include "harness.h"

#include <sys/mman.h>
#include <sys/stat.h>

CONF_FAMILY("mseal");

#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#define MFD_EXEC 16u
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif

static int k_mseal(void *p, size_t size, unsigned long flags)
{
    return (int)syscall(SYS_mseal, p, size, flags);
}

static void need_mseal(void)
{
    if (k_mseal(NULL, 0, 0) != 0 && errno == ENOSYS)
        conf_skip("before Linux 6.10");
}

TEST(mseal_errors)
{
    need_mseal();
    char *p = conf_pages(4);
    CHECK_ERRNO(k_mseal(p, CONF_PAGE, 1), EINVAL);
    CHECK_ERRNO(k_mseal(p + 1, CONF_PAGE, 0), EINVAL);
    CHECK_ERRNO(k_mseal(p, (size_t)-1, 0), EINVAL);
    OK(k_mseal(p, 0, 0));
    OK(munmap(p + 2 * CONF_PAGE, CONF_PAGE));
    CHECK_ERRNO(k_mseal(p, 4 * CONF_PAGE, 0), ENOMEM);
    OK(munmap(p, 4 * CONF_PAGE));
}

TEST(mseal_protects)
{
    need_mseal();
    char *p = conf_pages(6);
    char *sealed = p + 2 * CONF_PAGE;
    sealed[5] = 'x';
    OK(k_mseal(sealed, 2 * CONF_PAGE, 0));
    OK(k_mseal(sealed, 2 * CONF_PAGE, 0));
    CHECK_ERRNO(munmap(sealed, CONF_PAGE), EPERM);
    CHECK_ERRNO(munmap(p, 6 * CONF_PAGE), EPERM);
    CHECK_ERRNO(mprotect(sealed + CONF_PAGE, CONF_PAGE, PROT_READ), EPERM);
    CHECK_ERRNO(mprotect(p, 6 * CONF_PAGE, PROT_READ), EPERM);
    CHECK(mmap(sealed, CONF_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
          MAP_FAILED);
    CHECK_EQ(errno, EPERM);
    CHECK(mremap(sealed, CONF_PAGE, 2 * CONF_PAGE, MREMAP_MAYMOVE) == MAP_FAILED);
    CHECK_EQ(errno, EPERM);
    char *other = conf_pages(1);
    CHECK(mremap(other, CONF_PAGE, CONF_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, sealed) == MAP_FAILED);
    CHECK_EQ(errno, EPERM);
    /* It can be written still, so it may be dropped too. */
    CHECK_EQ(sealed[5], 'x');
    sealed[6] = 'y';
    OK(madvise(sealed, CONF_PAGE, MADV_DONTNEED));
    CHECK_EQ(sealed[6], 0);
    OK(mprotect(p, 2 * CONF_PAGE, PROT_READ));
    OK(munmap(p + 4 * CONF_PAGE, 2 * CONF_PAGE));
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK_ERRNO(munmap(sealed, CONF_PAGE), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(mseal_read_only)
{
    need_mseal();
    char *p = conf_pages(1);
    *p = 'x';
    OK(mprotect(p, CONF_PAGE, PROT_READ));
    OK(k_mseal(p, CONF_PAGE, 0));
    CHECK_ERRNO(madvise(p, CONF_PAGE, MADV_DONTNEED), EPERM);
    CHECK_ERRNO(madvise(p, CONF_PAGE, MADV_FREE), EPERM);
    CHECK_ERRNO(madvise(p, CONF_PAGE, MADV_DONTFORK), EPERM);
    OK(madvise(p, CONF_PAGE, MADV_WILLNEED));
    CHECK_EQ(*p, 'x');
}

TEST(memfd_exec)
{
    struct stat st;
    int fd = memfd_create("a", MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        conf_skip("before Linux 6.3");
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_mode & 0777, 0666);
    CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_EXEC);
    CHECK_ERRNO(fchmod(fd, 0777), EPERM);
    OK(fchmod(fd, 0600));
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    CHECK_ERRNO(memfd_create("b", MFD_EXEC | MFD_NOEXEC_SEAL), EINVAL);
    fd = OK(memfd_create("c", MFD_EXEC | MFD_ALLOW_SEALING));
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_mode & 0777, 0777);
    CHECK_EQ(fcntl(fd, F_GET_SEALS), 0);
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_EXEC));
    CHECK_EQ(fcntl(fd, F_GET_SEALS),
             F_SEAL_EXEC | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE);
    CHECK_ERRNO(write(fd, "x", 1), EPERM);
    fd = OK(memfd_create("d", MFD_EXEC));
    CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SEAL);
    CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_EXEC), EPERM);
}

TEST(remap_file_pages)
{
    int fd = OK(memfd_create("pages", 0));
    OK(ftruncate(fd, 4 * CONF_PAGE));
    char *p = OK((char *)mmap(NULL, 4 * CONF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    for (size_t i = 0; i < 4; i++)
        p[i * CONF_PAGE] = (char)('a' + i);
    OK((int)syscall(SYS_remap_file_pages, p, CONF_PAGE, 0, 3, 0));
    CHECK_EQ(p[0], 'd');
    OK((int)syscall(SYS_remap_file_pages, p + CONF_PAGE + 7, 2 * CONF_PAGE + 9, 0, 0, 0));
    CHECK_EQ(p[CONF_PAGE], 'a');
    CHECK_EQ(p[2 * CONF_PAGE], 'b');
    p[0] = 'D';
    CHECK_EQ(p[3 * CONF_PAGE], 'D');
    CHECK_ERRNO(syscall(SYS_remap_file_pages, p, CONF_PAGE, PROT_READ, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_remap_file_pages, p, 10, 0, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_remap_file_pages, p, -1L, 0, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_remap_file_pages, p, CONF_PAGE, 0, -1L, 0), EINVAL);
    char *own = conf_pages(1);
    CHECK_ERRNO(syscall(SYS_remap_file_pages, own, CONF_PAGE, 0, 0, 0), EINVAL);
}
