/* Core files: when there is one, what its name is, what it holds. */
#include "harness.h"

#include <elf.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/procfs.h>
#include <sys/resource.h>
#include <sys/stat.h>

CONF_FAMILY("core");

/* The name that a core of this process would have; skips where another program takes it. */
static void core_name(char *name, size_t size, pid_t pid)
{
    char pattern[256], uses[8] = "0";
    conf_get("/proc/sys/kernel/core_pattern", pattern, sizeof(pattern));
    pattern[strcspn(pattern, "\n")] = '\0';
    if (strcmp(pattern, "core") != 0)
        conf_skip("core_pattern is not \"core\"");
    conf_get("/proc/sys/kernel/core_uses_pid", uses, sizeof(uses));
    if (uses[0] == '1')
        snprintf(name, size, "core.%d", pid);
    else
        snprintf(name, size, "core");
}

/* Lets cores be written by children that ask for them. */
static void need_core(void)
{
    struct rlimit r = {0, RLIM_INFINITY};
    if (setrlimit(RLIMIT_CORE, &r) == 0)
        return;
    OK(getrlimit(RLIMIT_CORE, &r));
    if (r.rlim_max < 1 << 30)
        conf_skip("RLIMIT_CORE may not be raised");
}

static void set_core(rlim_t limit)
{
    struct rlimit r;
    OK(getrlimit(RLIMIT_CORE, &r));
    r.rlim_cur = limit;
    OK(setrlimit(RLIMIT_CORE, &r));
}

static int ends_by(int sig, rlim_t limit, int dumpable)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        set_core(limit);
        OK(prctl(PR_SET_DUMPABLE, dumpable));
        OK(kill(getpid(), sig));
        pause();
    }
    return conf_wait(pid);
}

TEST(when)
{
    char name[64];
    need_core();
    core_name(name, sizeof(name), 0);
    CHECK_EQ(ends_by(SIGABRT, 0, 1), SIGABRT);
    CHECK(!conf_exists(name));
    CHECK_EQ(ends_by(SIGTERM, 1 << 30, 1), SIGTERM);
    CHECK_EQ(ends_by(SIGQUIT, 1 << 30, 0), SIGQUIT);
    CHECK(!conf_exists(name));
    CHECK_EQ(ends_by(SIGQUIT, 1 << 30, 1), SIGQUIT | 0x80);
    CHECK_EQ(ends_by(SIGSEGV, 1 << 30, 1), SIGSEGV | 0x80);
}

TEST(size_limit)
{
    char name[64];
    struct stat st;
    need_core();
    core_name(name, sizeof(name), 0);
    if (strcmp(name, "core") != 0)
        conf_skip("the name has a pid");
    CHECK_EQ(ends_by(SIGSEGV, 8192, 1) & 0x7f, SIGSEGV);
    OK(stat(name, &st));
    CHECK(st.st_size <= 8192);
}

static void *wait_for_ever(void *arg)
{
    pause();
    return arg;
}

/* Where in the file the memory at addr is; -1. */
static long core_find(const char *d, const void *addr)
{
    const Elf64_Ehdr *e = (const void *)d;
    const Elf64_Phdr *p = (const void *)(d + e->e_phoff);
    for (int i = 0; i < e->e_phnum; i++)
        if (p[i].p_type == PT_LOAD && (uint64_t)(uintptr_t)addr >= p[i].p_vaddr &&
            (uint64_t)(uintptr_t)addr - p[i].p_vaddr < p[i].p_filesz)
            return (long)(p[i].p_offset + ((uint64_t)(uintptr_t)addr - p[i].p_vaddr));
    return -1;
}

struct core_facts {
    int threads, signo, info, auxv, fp;
    pid_t pid;
    char fname[17];
};

static void core_notes(const char *d, struct core_facts *f)
{
    const Elf64_Ehdr *e = (const void *)d;
    const Elf64_Phdr *p = (const void *)(d + e->e_phoff);
    CHECK_EQ(p[0].p_type, PT_NOTE);
    for (const char *n = d + p[0].p_offset; n < d + p[0].p_offset + p[0].p_filesz;) {
        const Elf64_Nhdr *h = (const void *)n;
        const char *desc = n + sizeof(*h) + ((h->n_namesz + 3) & ~3u);
        if (h->n_type == NT_PRSTATUS) {
            const struct elf_prstatus *s = (const void *)desc;
            CHECK_EQ(h->n_descsz, sizeof(*s));
            if (f->threads++ == 0) {
                f->signo = s->pr_cursig;
                f->pid = s->pr_pid;
            }
        }
        if (h->n_type == NT_PRPSINFO)
            memcpy(f->fname, ((const struct elf_prpsinfo *)(const void *)desc)->pr_fname, 16);
        f->info += h->n_type == NT_SIGINFO;
        f->auxv += h->n_type == NT_AUXV;
        f->fp += h->n_type == NT_FPREGSET;
        n = desc + ((h->n_descsz + 3) & ~3u);
    }
}

TEST(contents)
{
    char name[64], *marks = conf_shared(CONF_PAGE);
    char **where = (char **)(void *)marks;
    need_core();
    pid_t pid = conf_fork();
    if (pid == 0) {
        pthread_t t[3];
        set_core(1 << 30);
        char *a = conf_pages(64);
        strcpy(a + 3 * CONF_PAGE + 5, "found in the core");
        where[0] = a + 3 * CONF_PAGE + 5;
        char *b = conf_pages(1);
        strcpy(b, "left out");
        OK(madvise(b, CONF_PAGE, MADV_DONTDUMP));
        where[1] = b;
        for (int i = 0; i < 3; i++)
            CHECK_EQ(pthread_create(&t[i], NULL, wait_for_ever, NULL), 0);
        conf_await_others_asleep();
        abort();
    }
    CHECK_EQ(conf_wait(pid), SIGABRT | 0x80);
    core_name(name, sizeof(name), pid);
    int fd = OK(open(name, O_RDONLY));
    struct stat st;
    OK(fstat(fd, &st));
    CHECK(st.st_size > 4096);
    const size_t size = (size_t)st.st_size;
    const char *core_data = OK((char *)mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0));
    CHECK(memcmp(core_data, ELFMAG, SELFMAG) == 0);
    const Elf64_Ehdr *e = (const void *)core_data;
    CHECK_EQ(e->e_type, ET_CORE);
    CHECK_EQ(e->e_machine, EM_X86_64);
    struct core_facts f = {0};
    core_notes(core_data, &f);
    CHECK_EQ(f.threads, 4);
    CHECK_EQ(f.fp, 4);
    CHECK_EQ(f.signo, SIGABRT);
    CHECK_EQ(f.pid, pid);
    CHECK_EQ(f.info, 1);
    CHECK_EQ(f.auxv, 1);
    CHECK(strncmp(f.fname, "conf_core", 9) == 0);
    long at = core_find(core_data, where[0]);
    CHECK(at > 0 && at < (long)size);
    CHECK_STR(core_data + at, "found in the core");
    CHECK_EQ(core_find(core_data, where[1]), -1);
    CHECK_EQ(st.st_mode & 07777, 0600);
}
