/* A process whose start is over and that now mostly waits.
 * Depends on: nothing.
 * Threading: the owner of a struct settling.
 * Ownership: none. */
#ifndef BASE_SETTLE_H
#define BASE_SETTLE_H

#include <stdbool.h>
#include <stdint.h>

/* All zero at first. */
struct settling {
    uint64_t next_ns, pause_ns, cpu_ns;
    bool settled;
};

/* Asked before each wait of a process's main loop: for how long to wait at most, in milliseconds as
 * poll(2) takes them, -1 for ever. The process is looked at after a second, then after two, four
 * and so on to a minute; the first time that it has hardly worked since the last look it gives back
 * what its start took, and needs no further look: free pages of the heap, and the mapped pages of
 * the program's code and constants. What is needed of them again comes back from the page cache by
 * itself, at some 2 us for each 64 KiB. */
int settling_wait_ms(struct settling *s);

#endif
