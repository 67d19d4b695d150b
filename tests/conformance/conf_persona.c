/* personality(2), and the options of prctl(2) about memory, speculation and broken hardware. */
#define _GNU_SOURCE
#include <linux/capability.h>
#include <linux/prctl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/utsname.h>

#include "harness.h"

CONF_FAMILY("persona");

#define MDWE_SET 65
#define MDWE_GET 66
#define MDWE_REFUSE 1
#define MDWE_NO_INHERIT 2

static int prot_of(const void *at)
{
    char line[512];
    FILE *f = fopen("/proc/self/maps", "re");
    int prot = -1;

    CHECK(f != NULL);
    while (prot < 0 && fgets(line, sizeof(line), f)) {
        unsigned long from, to;
        char rwx[5];
        CHECK_EQ(sscanf(line, "%lx-%lx %4s", &from, &to, rwx), 3);
        if ((unsigned long)at >= from && (unsigned long)at < to)
            prot = (rwx[0] == 'r') | (rwx[1] == 'w') << 1 | (rwx[2] == 'x') << 2;
    }
    fclose(f);
    return prot;
}

/* Where things are: the stack, a mapping and the heap. */
HELPER(places)
{
    (void)argc;
    (void)argv;
    uintptr_t out[3] = {(uintptr_t)&argc, (uintptr_t)conf_pages(1), (uintptr_t)sbrk(0)};

    CHECK_EQ(write(3, out, sizeof(out)), sizeof(out));
    return 0;
}

static void places(uintptr_t out[3])
{
    int pipes[2];

    OK(pipe(pipes));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(dup2(pipes[1], 3));
        conf_exec_helper("places", NULL);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(read(pipes[0], out, 3 * sizeof(*out)), 3 * sizeof(*out));
    close(pipes[0]);
    close(pipes[1]);
}

TEST(nothing_left_to_chance)
{
    uintptr_t a[3], b[3];

    places(a);
    places(b);
    CHECK(a[0] != b[0] || a[1] != b[1] || a[2] != b[2]);
    OK(personality(ADDR_NO_RANDOMIZE));
    CHECK_EQ(personality(0xffffffff), ADDR_NO_RANDOMIZE);
    places(a);
    places(b);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(a[i], b[i]);
}

HELPER(persona)
{
    (void)argc;
    (void)argv;
    return personality(0xffffffff) == ADDR_NO_RANDOMIZE ? 0 : 1;
}

TEST(reading_is_executing)
{
    char *before = conf_pages(1);

    OK(personality(READ_IMPLIES_EXEC | ADDR_NO_RANDOMIZE));
    CHECK_EQ(prot_of(before), PROT_READ | PROT_WRITE);
    char *after = conf_pages(1);
    CHECK_EQ(prot_of(after), PROT_READ | PROT_WRITE | PROT_EXEC);
    OK(mprotect(before, CONF_PAGE, PROT_READ));
    CHECK_EQ(prot_of(before), PROT_READ | PROT_EXEC);
    OK(mprotect(before, CONF_PAGE, PROT_WRITE));
    CHECK_EQ(prot_of(before) & PROT_EXEC, 0);
    /* A new program has it no more. */
    pid_t pid = conf_fork();
    if (pid == 0)
        conf_exec_helper("persona", NULL);
    CHECK_EXIT(pid, 0);
}

TEST(names_of_old_systems)
{
    struct utsname u;

    OK(personality(PER_LINUX32));
    OK(uname(&u));
    CHECK_STR(u.machine, "i686");
    OK(personality(UNAME26));
    OK(uname(&u));
    CHECK_STR(u.machine, "x86_64");
    CHECK(strncmp(u.release, "2.6.", 4) == 0);
    unsigned int n = (unsigned int)atoi(u.release + 4);
    CHECK(n >= 60 && n < 100);
}

HELPER(mdwe)
{
    (void)argc;
    return prctl(MDWE_GET, 0, 0, 0, 0) == atoi(argv[1]) ? 0 : 1;
}

static int mdwe_after(bool exec, const char *expected)
{
    pid_t pid = conf_fork();

    if (pid == 0) {
        const char *const args[] = {expected, NULL};
        if (exec)
            conf_exec_helper("mdwe", args);
        _exit(prctl(MDWE_GET, 0, 0, 0, 0) == atoi(expected) ? 0 : 1);
    }
    return WEXITSTATUS(conf_wait(pid));
}

TEST(write_or_execute)
{
    char *data = conf_pages(1);
    char *code =
        OK(mmap(NULL, CONF_PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

    CHECK_EQ(prctl(MDWE_GET, 0, 0, 0, 0), 0);
    CHECK_ERRNO(prctl(MDWE_GET, 1, 0, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(MDWE_SET, MDWE_NO_INHERIT, 0, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(MDWE_SET, 4, 0, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(MDWE_SET, MDWE_REFUSE, 1, 0, 0), EINVAL);
    OK(prctl(MDWE_SET, 0, 0, 0, 0));
    OK(prctl(MDWE_SET, MDWE_REFUSE, 0, 0, 0));
    OK(prctl(MDWE_SET, MDWE_REFUSE, 0, 0, 0));
    CHECK_ERRNO(prctl(MDWE_SET, 0, 0, 0, 0), EPERM);
    CHECK_ERRNO(prctl(MDWE_SET, MDWE_REFUSE | MDWE_NO_INHERIT, 0, 0, 0), EPERM);
    CHECK_ERRNO((intptr_t)mmap(NULL, CONF_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                EACCES);
    OK(mmap(NULL, CONF_PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CHECK_ERRNO(mprotect(data, CONF_PAGE, PROT_READ | PROT_EXEC), EACCES);
    CHECK_ERRNO(mprotect(code, CONF_PAGE, PROT_WRITE | PROT_EXEC), EACCES);
    OK(mprotect(code, CONF_PAGE, PROT_READ | PROT_WRITE));
    OK(mprotect(data, CONF_PAGE, PROT_READ));
    CHECK_EQ(mdwe_after(false, "1"), 0);
    CHECK_EQ(mdwe_after(true, "1"), 0);
}

TEST(write_or_execute_for_oneself)
{
    OK(prctl(MDWE_SET, MDWE_REFUSE | MDWE_NO_INHERIT, 0, 0, 0));
    CHECK_EQ(prctl(MDWE_GET, 0, 0, 0, 0), MDWE_REFUSE | MDWE_NO_INHERIT);
    CHECK_EQ(mdwe_after(false, "0"), 0);
    CHECK_EQ(mdwe_after(true, "0"), 0);
}

TEST(broken_memory)
{
    CHECK_EQ(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), PR_MCE_KILL_DEFAULT);
    CHECK_ERRNO(prctl(PR_MCE_KILL_GET, 1, 0, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, 3, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, 0, 1, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_MCE_KILL, PR_MCE_KILL_CLEAR, 1, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_MCE_KILL, 2, 0, 0, 0), EINVAL);
    OK(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) == PR_MCE_KILL_EARLY ? 0 : 1);
    CHECK_EXIT(pid, 0);
    OK(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_LATE, 0, 0));
    CHECK_EQ(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), PR_MCE_KILL_LATE);
    OK(prctl(PR_MCE_KILL, PR_MCE_KILL_CLEAR, 0, 0, 0));
    CHECK_EQ(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), PR_MCE_KILL_DEFAULT);
}

TEST(speculation)
{
    CHECK(OK(prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0)) >= 0);
    CHECK_ERRNO(prctl(PR_GET_SPECULATION_CTRL, 3, 0, 0, 0), ENODEV);
    CHECK_ERRNO(prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 1, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_SPECULATION_CTRL, 3, PR_SPEC_ENABLE, 0, 0), ENODEV);
    CHECK_ERRNO(prctl(PR_SET_SPECULATION_CTRL, 0, PR_SPEC_ENABLE, 1, 0), EINVAL);
    int how = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
    if (!(how & PR_SPEC_PRCTL))
        CHECK_ERRNO(prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_ENABLE, 0, 0),
                    ENXIO);
}

TEST(what_is_not_built_in)
{
    char *page = conf_pages(1);

    CHECK_ERRNO(prctl(PR_SCHED_CORE, 0, 0, 0, page), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, page, CONF_PAGE, "name"), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_FPEMU, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_ENDIAN, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_SVE_GET_VL, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(9999, 0, 0, 0, 0), EINVAL);
    OK(prctl(PR_TASK_PERF_EVENTS_DISABLE, 0, 0, 0, 0));
    OK(prctl(PR_TASK_PERF_EVENTS_ENABLE, 0, 0, 0, 0));
}

/* ---- PR_SET_MM ---- */

static void read_map(struct prctl_mm_map *m)
{
    char text[2048];

    memset(m, 0, sizeof(*m));
    conf_get("/proc/self/stat", text, sizeof(text));
    const char *p = strrchr(text, ')');
    unsigned long v[53] = {0};
    CHECK(p != NULL);
    p += 2;
    for (int i = 3; i <= 52 && p; i++) {
        v[i] = strtoul(p, NULL, 10);
        p = strchr(p, ' ');
        p = p ? p + 1 : NULL;
    }
    *m = (struct prctl_mm_map){.start_code = v[26],
                               .end_code = v[27],
                               .start_stack = v[28],
                               .start_data = v[45],
                               .end_data = v[46],
                               .start_brk = v[47],
                               .brk = (uintptr_t)sbrk(0),
                               .arg_start = v[48],
                               .arg_end = v[49],
                               .env_start = v[50],
                               .env_end = v[51],
                               .exe_fd = (uint32_t)-1};
}

TEST(map_of_memory)
{
    char *name = conf_pages(1), text[64];
    struct prctl_mm_map m;
    unsigned int size = 0;

    OK(prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0));
    CHECK_EQ(size, sizeof(m));
    read_map(&m);
    memcpy(name, "other\0name", 11);
    m.arg_start = (uintptr_t)name;
    m.arg_end = m.arg_start + 11;
    CHECK_ERRNO(prctl(PR_SET_MM, PR_SET_MM_MAP, &m, sizeof(m) - 1, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_MM, PR_SET_MM_MAP, 8, sizeof(m), 0), EFAULT);
    CHECK_ERRNO(prctl(PR_SET_MM, PR_SET_MM_MAP, &m, sizeof(m), 1), EINVAL);
    OK(prctl(PR_SET_MM, PR_SET_MM_MAP, &m, sizeof(m), 0));
    CHECK_EQ(conf_get("/proc/self/cmdline", text, sizeof(text)), 11);
    CHECK(memcmp(text, "other\0name", 11) == 0);
    m.arg_end = m.arg_start - 1;
    CHECK_ERRNO(prctl(PR_SET_MM, PR_SET_MM_MAP, &m, sizeof(m), 0), EINVAL);
    m.arg_end = UINT64_MAX;
    CHECK_ERRNO(prctl(PR_SET_MM, PR_SET_MM_MAP, &m, sizeof(m), 0), EINVAL);
}

TEST(single_facts_need_rights)
{
    NEED_ROOT();
    conf_become(54321);
    CHECK_ERRNO(prctl(PR_SET_MM, PR_SET_MM_ARG_START, conf_pages(1), 0, 0), EPERM);
    CHECK_ERRNO(prctl(PR_SET_MM, PR_SET_MM_ARG_START, conf_pages(1), 0, 1), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0), EPERM);
    CHECK_ERRNO(prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0), EPERM);
}
