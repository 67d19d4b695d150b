/* Readiness of host descriptors, told to wait queues by one thread that waits for all of them.
 * Depends on: base, wait.h.
 * Threading: hostwatch_setup once, before confinement and threads; the rest from any thread.
 * Ownership: a watch belongs to who made it; the descriptor stays the caller's. */
#ifndef RINGWALL_SENTRY_WAIT_HOSTWATCH_H
#define RINGWALL_SENTRY_WAIT_HOSTWATCH_H

#include "sentry/wait/wait.h"

struct hostwatch;

/* Makes what waits; after confinement it could not be made. */
MUST_CHECK int hostwatch_setup(void);
/* Watches fd for events (EPOLL*, with EPOLLET or EPOLLONESHOT; 0: hang-ups and errors only, till
 * hostwatch_arm). -EPERM: a file that is always ready. Owned result. */
MUST_CHECK int hostwatch_new(int fd, uint32_t events, struct hostwatch **out);
/* Before fd is closed. No waiter is left. NULL is allowed. */
void hostwatch_free(struct hostwatch *h);
/* Its queue, woken with the events that came. */
struct waitq *hostwatch_queue(struct hostwatch *h);
/* One wake-up for the next of events. */
void hostwatch_arm(struct hostwatch *h, uint32_t events);
/* What fd is ready for now, EPOLL* bits. */
uint32_t hostwatch_ready(int fd);

#endif
