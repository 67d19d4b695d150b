/* What the conformance programs of io_uring share: a ring, requests and what came of them.
 * Depends on: harness.h.
 * Threading: one thread uses a ring.
 * Ownership: rings stay open till the case ends. */
#ifndef CONFORMANCE_URING_HELP_H
#define CONFORMANCE_URING_HELP_H

#include "harness.h"

#include <linux/io_uring.h>
#include <sys/mman.h>

#define URING_HELP __attribute__((unused)) static

struct ring {
    int fd;
    struct io_uring_params p;
    char *rings;
    struct io_uring_sqe *sqes;
    unsigned tail;
};

URING_HELP unsigned *word(const struct ring *r, unsigned off)
{
    return (unsigned *)(void *)(r->rings + off);
}

URING_HELP struct ring open_ring(unsigned entries, unsigned flags)
{
    struct ring r = {.p.flags = flags};

    r.fd = (int)syscall(SYS_io_uring_setup, entries, &r.p);
    if (r.fd < 0 && (errno == EPERM || errno == ENOSYS) && getenv("CONFORMANCE") == NULL)
        conf_skip("not permitted here");
    CHECK(r.fd >= 0);
    CHECK((r.p.features & IORING_FEAT_SINGLE_MMAP) != 0);
    size_t size = r.p.cq_off.cqes + r.p.cq_entries * sizeof(struct io_uring_cqe);
    size_t size2 = r.p.sq_off.array + r.p.sq_entries * sizeof(unsigned);
    r.rings = OK(mmap(NULL, size > size2 ? size : size2, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_POPULATE, r.fd, IORING_OFF_SQ_RING));
    r.sqes = OK(mmap(NULL, r.p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_POPULATE, r.fd, IORING_OFF_SQES));
    CHECK_EQ(*word(&r, r.p.sq_off.ring_mask), r.p.sq_entries - 1);
    CHECK_EQ(*word(&r, r.p.cq_off.ring_entries), r.p.cq_entries);
    return r;
}

URING_HELP struct io_uring_sqe *add(struct ring *r, int op, int fd, const void *addr, unsigned len,
                                    uint64_t off, uint64_t user)
{
    unsigned i = r->tail & (r->p.sq_entries - 1);
    struct io_uring_sqe *s = &r->sqes[i];

    *s = (struct io_uring_sqe){.opcode = (uint8_t)op,
                               .fd = fd,
                               .addr = (uintptr_t)addr,
                               .len = len,
                               .off = off,
                               .user_data = user};
    word(r, r->p.sq_off.array)[i] = i;
    r->tail++;
    __atomic_store_n(word(r, r->p.sq_off.tail), r->tail, __ATOMIC_RELEASE);
    return s;
}

URING_HELP int enter(const struct ring *r, unsigned submit, unsigned min)
{
    return (int)syscall(SYS_io_uring_enter, r->fd, submit, min, min ? IORING_ENTER_GETEVENTS : 0,
                        NULL, 0);
}

/* Takes one completion, which must be there. */
URING_HELP struct io_uring_cqe take(const struct ring *r)
{
    unsigned head = *word(r, r->p.cq_off.head);

    CHECK(head != __atomic_load_n(word(r, r->p.cq_off.tail), __ATOMIC_ACQUIRE));
    struct io_uring_cqe *all = (struct io_uring_cqe *)(void *)(r->rings + r->p.cq_off.cqes);
    struct io_uring_cqe c = all[head & (r->p.cq_entries - 1)];
    __atomic_store_n(word(r, r->p.cq_off.head), head + 1, __ATOMIC_RELEASE);
    return c;
}

URING_HELP unsigned finished(const struct ring *r)
{
    return __atomic_load_n(word(r, r->p.cq_off.tail), __ATOMIC_ACQUIRE) -
           *word(r, r->p.cq_off.head);
}

/* Submits one and gives its result. */
URING_HELP int one(struct ring *r)
{
    CHECK_EQ(enter(r, 1, 1), 1);
    return take(r).res;
}

/* The result of the request with this user data, among n that are there. */
URING_HELP int result_of(struct io_uring_cqe *c, unsigned n, uint64_t user)
{
    for (unsigned i = 0; i < n; i++)
        if (c[i].user_data == user)
            return c[i].res;
    conf_fail(__FILE__, __LINE__, "no completion for %llu", (unsigned long long)user);
}

#endif
