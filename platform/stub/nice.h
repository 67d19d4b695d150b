/* nice(2) for the stub threads that run guest code.
 * Depends on: base.
 * Threading: init once; set from any thread.
 * Ownership: values. */
#ifndef RINGWALL_PLATFORM_STUB_NICE_H
#define RINGWALL_PLATFORM_STUB_NICE_H

#include <stdbool.h>
#include <sys/types.h>

struct stub_nice {
    int base;  /* what the sandbox was started with */
    bool back; /* a thread may come back to it: RLIMIT_NICE, or CAP_SYS_NICE */
};

/* Before the process is confined. */
void stub_nice_init(struct stub_nice *n);
/* The thread tid becomes so much nicer (0 to 19) than the sandbox, if it may. True: it stays so,
 * and should not work for anybody else. */
bool stub_nice_set(const struct stub_nice *n, pid_t tid, int nice);

#endif
