/* A process that waits gives back what its start took, once. */
#include <criterion/criterion.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/settle.h"

#define BLOCK 4096u
#define BLOCKS 1024u

/* KiB of anonymous memory that are there. */
static long anonymous_kib(void)
{
    char line[128];
    long kib = -1;
    FILE *f = fopen("/proc/self/status", "re");

    cr_assert_not_null(f);
    while (fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "RssAnon: %ld", &kib) == 1)
            break;
    fclose(f);
    cr_assert_geq(kib, 0);
    return kib;
}

/* Free blocks with one in use behind them stay where they are. */
static void *leave_holes(void)
{
    void *blocks[BLOCKS];

    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BLOCK);
        cr_assert_not_null(blocks[i]);
        memset(blocks[i], 1, BLOCK);
    }
    for (size_t i = 0; i + 1 < BLOCKS; i++)
        free(blocks[i]);
    return blocks[BLOCKS - 1];
}

/* The heap of a sanitizer gives nothing back. */
#ifdef RINGWALL_SANITIZE
#define HEAP_KEEPS true
#else
#define HEAP_KEEPS false
#endif

Test(settle, who_waits_gives_back)
{
    struct settling s = {0};
    void *last = leave_holes();
    long before = anonymous_kib();
    int ms, looks = 0;

    while ((ms = settling_wait_ms(&s)) >= 0) {
        cr_assert_gt(ms, 0);
        cr_assert_leq(ms, 64 * 1000 + 1);
        (void)poll(NULL, 0, ms);
        looks++;
    }
    cr_assert_geq(looks, 1);
    cr_assert(HEAP_KEEPS || anonymous_kib() <= before - (long)(BLOCKS * BLOCK / 1024 / 2));
    cr_assert_eq(settling_wait_ms(&s), -1);
    free(last);
}

Test(settle, not_before_the_first_look)
{
    struct settling s = {0};
    int ms = settling_wait_ms(&s);

    cr_assert_gt(ms, 0);
    cr_assert_not(s.settled);
}
