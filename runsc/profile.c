#include "runsc/profile.h"

#include <asm/perf_regs.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runsc/unwind.h"

#define PROFILE_CPUS_MAX 1024
#define PROFILE_EVENTS_MAX 16384
#define PROFILE_DEPTH_MAX 64
/* Of the stack at each sample. */
#define PROFILE_STACK 4096
#define PROFILE_RING_PAGES 64 /* a power of two, beside the control page */
#define PROFILE_LINES_MAX 65536
#define PROFILE_LINE_MAX 2048
#define PROFILE_NAP_NS 20000000

struct profile_line {
    char *text; /* owned */
    uint64_t count;
};

struct profile {
    pid_t pid;
    int hz;
    struct symbols *symbols;
    struct unwind unwind;
    struct perf_event_mmap_page *rings[PROFILE_CPUS_MAX];
    int ring_fd[PROFILE_CPUS_MAX]; /* the event that has the ring of a CPU; -1: none yet */
    int *fds;                      /* all events; owned */
    size_t fd_count;
    int cpus;
    struct profile_line *lines; /* owned */
    size_t line_count;
    uint64_t lost;
};

static size_t profile_ring_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE) * PROFILE_RING_PAGES;
}

/* ---- samples ---- */

/* Stacks that were seen, in no order; a profile has some hundreds. */
static void profile_count(struct profile *p, const char *text)
{
    for (size_t i = 0; i < p->line_count; i++)
        if (strcmp(p->lines[i].text, text) == 0) {
            p->lines[i].count++;
            return;
        }
    char *copy = p->line_count < PROFILE_LINES_MAX ? strdup(text) : NULL;
    if (copy == NULL) {
        p->lost++;
        return;
    }
    p->lines[p->line_count++] = (struct profile_line){.text = copy, .count = 1};
}

static void profile_append(char *line, size_t size, const char *frame)
{
    const size_t used = strlen(line);

    (void)snprintf(line + used, size - used, "%s%s", used > 0 ? ";" : "", frame);
}

/* What a record of ours holds. */
struct profile_sample {
    uint64_t abi, bp, sp, ip; /* of the thread outside the host's kernel */
    uint64_t size;            /* bytes of stack */
    uint8_t stack[PROFILE_STACK];
    uint64_t used; /* of them, what there was */
};

static bool profile_read(void *arg, uint64_t at, uint64_t *out)
{
    const struct profile_sample *m = arg;

    if (at < m->sp || at - m->sp > PROFILE_STACK - sizeof(*out) ||
        at - m->sp + sizeof(*out) > m->used)
        return false;
    memcpy(out, m->stack + (at - m->sp), sizeof(*out));
    return true;
}

static void profile_sample(struct profile *p, struct profile_sample *m, bool in_kernel)
{
    struct unwind_regs r = {.ip = m->ip, .sp = m->sp, .bp = m->bp};
    uint64_t ips[PROFILE_DEPTH_MAX], off;
    char line[PROFILE_LINE_MAX] = "", frame[32];
    size_t count = 0;

    do {
        ips[count++] = r.ip - r.called;
    } while (count < PROFILE_DEPTH_MAX && unwind_step(&p->unwind, &r, profile_read, m));
    while (count-- > 0) {
        const char *name = symbols_find(p->symbols, ips[count], &off);
        if (name == NULL)
            (void)snprintf(frame, sizeof(frame), "0x%" PRIx64, ips[count]);
        profile_append(line, sizeof(line), name != NULL ? name : frame);
    }
    if (in_kernel)
        profile_append(line, sizeof(line), "[host kernel]");
    profile_count(p, line);
}

/* Copies from the ring, whose end is followed by its beginning. */
static void profile_copy(const char *ring, uint64_t at, void *out, size_t size)
{
    const size_t mask = profile_ring_size() - 1;

    for (size_t i = 0; i < size; i++)
        ((char *)out)[i] = ring[(at + i) & mask];
}

static void profile_record(struct profile *p, const char *ring, uint64_t at,
                           const struct perf_event_header *h)
{
    static struct profile_sample m;

    if (h->type == PERF_RECORD_LOST) {
        uint64_t lost[2];
        profile_copy(ring, at + sizeof(*h), lost, sizeof(lost));
        p->lost += lost[1];
    }
    if (h->type != PERF_RECORD_SAMPLE || h->size != sizeof(*h) + sizeof(m))
        return;
    profile_copy(ring, at + sizeof(*h), &m, sizeof(m));
    if (m.size == PROFILE_STACK)
        profile_sample(p, &m, (h->misc & PERF_RECORD_MISC_CPUMODE_MASK) == PERF_RECORD_MISC_KERNEL);
}

static void profile_drain(struct profile *p, struct perf_event_mmap_page *m)
{
    const char *ring = (const char *)m + sysconf(_SC_PAGESIZE);
    const uint64_t head = __atomic_load_n(&m->data_head, __ATOMIC_ACQUIRE);
    uint64_t tail = m->data_tail;
    struct perf_event_header h;

    while (tail < head) {
        profile_copy(ring, tail, &h, sizeof(h));
        if (h.size < sizeof(h) || h.size > head - tail)
            break;
        profile_record(p, ring, tail, &h);
        tail += h.size;
    }
    __atomic_store_n(&m->data_tail, head, __ATOMIC_RELEASE);
}

/* ---- events ---- */

static int profile_ring(struct profile *p, int cpu, int fd, struct err *e)
{
    if (p->ring_fd[cpu] >= 0)
        return ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, p->ring_fd[cpu]) == 0
                   ? 0
                   : err_errno(e, errno, "profile: share a buffer");
    void *m = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE) + profile_ring_size(),
                   PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (m == MAP_FAILED)
        return err_errno(e, errno, "profile: a buffer");
    p->rings[cpu] = m;
    p->ring_fd[cpu] = fd;
    return 0;
}

/* One for each CPU: only such events pass on to the threads that a thread makes. A thread that has
 * ended meanwhile needs none. */
static int profile_thread(struct profile *p, pid_t tid, struct err *e)
{
    struct perf_event_attr a;

    memset(&a, 0, sizeof(a));
    a.type = PERF_TYPE_SOFTWARE;
    a.size = sizeof(a);
    a.config = PERF_COUNT_SW_CPU_CLOCK;
    a.freq = 1;
    a.sample_freq = (unsigned)p->hz;
    a.sample_type = PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER;
    a.sample_regs_user = 1u << PERF_REG_X86_BP | 1u << PERF_REG_X86_SP | 1u << PERF_REG_X86_IP;
    a.sample_stack_user = PROFILE_STACK;
    a.inherit = 1;
    for (int cpu = 0; cpu < p->cpus; cpu++) {
        if (p->fd_count == PROFILE_EVENTS_MAX)
            return err_set(e, E2BIG, "profile: too many threads");
        int fd = (int)syscall(SYS_perf_event_open, &a, tid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
        if (fd < 0 && (errno == ESRCH || errno == ENODEV))
            continue;
        if (fd < 0)
            return err_errno(e, errno, "profile: perf_event_open");
        p->fds[p->fd_count++] = fd;
        if (profile_ring(p, cpu, fd, e) != 0)
            return -1;
    }
    return 0;
}

static int profile_threads(struct profile *p, struct err *e)
{
    char path[64];
    int rc = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)p->pid);
    DIR *dir = opendir(path);
    if (dir == NULL)
        return err_errno(e, errno, "%s", path);
    for (struct dirent *d; rc == 0 && (d = readdir(dir)) != NULL;) {
        const pid_t tid = (pid_t)strtol(d->d_name, NULL, 10);
        if (tid > 0)
            rc = profile_thread(p, tid, e);
    }
    (void)closedir(dir);
    return rc;
}

static void profile_run(struct profile *p, int seconds)
{
    static const struct timespec nap = {.tv_nsec = PROFILE_NAP_NS};
    struct timespec now, begin;

    (void)clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        (void)nanosleep(&nap, NULL);
        for (int cpu = 0; cpu < p->cpus; cpu++)
            if (p->rings[cpu] != NULL)
                profile_drain(p, p->rings[cpu]);
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - begin.tv_sec - (now.tv_nsec < begin.tv_nsec) < seconds);
}

static void profile_print(const struct profile *p, FILE *out)
{
    for (size_t i = 0; i < p->line_count; i++)
        fprintf(out, "%s %" PRIu64 "\n", p->lines[i].text, p->lines[i].count);
    if (p->lost > 0)
        fprintf(out, "[lost] %" PRIu64 "\n", p->lost);
}

static void profile_fini(struct profile *p)
{
    for (size_t i = 0; i < p->fd_count; i++)
        (void)close(p->fds[i]);
    for (int cpu = 0; cpu < p->cpus; cpu++)
        if (p->rings[cpu] != NULL)
            (void)munmap(p->rings[cpu], (size_t)sysconf(_SC_PAGESIZE) + profile_ring_size());
    for (size_t i = 0; i < p->line_count; i++)
        free(p->lines[i].text);
    free(p->lines);
    free(p->fds);
    symbols_close(p->symbols);
    free(p);
}

int profile_write(pid_t pid, int seconds, int hz, FILE *out, struct err *e)
{
    struct profile *p = calloc(1, sizeof(*p));
    int rc = -1;

    if (p == NULL)
        return err_set(e, ENOMEM, "out of memory");
    p->pid = pid;
    p->hz = hz;
    p->cpus = (int)MIN(sysconf(_SC_NPROCESSORS_CONF), (long)PROFILE_CPUS_MAX);
    p->fds = calloc(PROFILE_EVENTS_MAX, sizeof(*p->fds));
    p->lines = calloc(PROFILE_LINES_MAX, sizeof(*p->lines));
    memset(p->ring_fd, 0xff, sizeof(p->ring_fd));
    if (p->fds == NULL || p->lines == NULL)
        (void)err_set(e, ENOMEM, "out of memory");
    else if (symbols_open(pid, &p->symbols, e) != 0)
        rc = -1;
    else if (!unwind_init(&p->unwind, p->symbols))
        (void)err_set(e, ENOTSUP, "the sandbox's program has no tables of its frames");
    else
        rc = profile_threads(p, e);
    if (rc == 0) {
        profile_run(p, seconds);
        profile_print(p, out);
    }
    profile_fini(p);
    return rc;
}
