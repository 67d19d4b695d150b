#include "base/settle.h"

#include <elf.h>
#include <link.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

#include "base/compiler.h"

#define SETTLE_FIRST_NS UINT64_C(1000000000)
#define SETTLE_LONGEST_NS (64 * SETTLE_FIRST_NS)
/* Who works for less than this part of the time mostly waits. */
#define SETTLE_WORK_PART 20

/* The first object is the program itself. */
static int forget_program(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t from = (info->dlpi_addr + p->p_vaddr) & ~(PAGE_SIZE - 1);
        uintptr_t to = info->dlpi_addr + p->p_vaddr + p->p_memsz;

        /* Clean pages of a file: nothing is lost, so a refusal does no harm either. */
        if (p->p_type == PT_LOAD && !(p->p_flags & PF_W))
            (void)madvise((void *)from, to - from, MADV_DONTNEED);
    }
    return 1;
}

static void settle(void)
{
    (void)malloc_trim(0);
    (void)dl_iterate_phdr(forget_program, NULL);
}

static uint64_t settle_clock(clockid_t clock)
{
    struct timespec ts = {0};

    (void)clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

static void settle_look(struct settling *s, uint64_t now)
{
    uint64_t cpu = settle_clock(CLOCK_PROCESS_CPUTIME_ID);
    bool first = s->pause_ns == 0;

    if (!first && cpu - s->cpu_ns < (now - s->next_ns + s->pause_ns) / SETTLE_WORK_PART) {
        settle();
        s->settled = true;
        return;
    }
    s->pause_ns = first ? SETTLE_FIRST_NS : MIN(2 * s->pause_ns, SETTLE_LONGEST_NS);
    s->next_ns = now + s->pause_ns;
    s->cpu_ns = cpu;
}

int settling_wait_ms(struct settling *s)
{
    if (s->settled)
        return -1;
    uint64_t now = settle_clock(CLOCK_MONOTONIC);
    if (now >= s->next_ns)
        settle_look(s, now);
    return s->settled ? -1 : (int)((s->next_ns - now) / 1000000) + 1;
}
