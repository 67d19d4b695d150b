/* Robust lists: locks of a thread that ends are marked and their waiters woken (futex_cleanup of
 * kernel/futex/core.c, Documentation/locking/robust-futex-ABI). */
#include <errno.h>
#include <linux/futex.h>

#include "sentry/kernel/futex_priv.h"

#define ROBUST_SPINS 64

struct robust_head {
    uint64_t next;
    int64_t offset;
    uint64_t pending;
};

/* An entry's address with the lock's kind in bit 0. */
struct robust_entry {
    uint64_t addr;
    bool pi;
};

static struct robust_entry robust_entry(uint64_t v)
{
    return (struct robust_entry){.addr = v & ~UINT64_C(1), .pi = v & 1};
}

/* One lock. False: the list cannot be trusted any further. */
static bool robust_release(struct task *t, uint64_t addr, bool pi, bool pending)
{
    uint32_t v;

    for (int i = 0; i < ROBUST_SPINS; i++) {
        if (addr % 4 || user_load32(&t->ua, uaddr(addr), &v))
            return false;
        /* Ended between the unlock and the wake-up: whoever waits must look. */
        if (pending && !pi && v == 0) {
            futex_wake_word(t, uaddr(addr), 1);
            return true;
        }
        if ((v & FUTEX_TID_MASK) != (uint32_t)t->vtid)
            return true;
        int r = futex_cmpxchg(&t->ua, uaddr(addr), v, (v & FUTEX_WAITERS) | FUTEX_OWNER_DIED);
        if (r == 0) {
            if (!pi && (v & FUTEX_WAITERS))
                futex_wake_word(t, uaddr(addr), 1);
            return true;
        }
        if (r != -EAGAIN)
            return false;
    }
    return false;
}

static void robust_walk(struct task *t)
{
    const uint64_t head_addr = t->robust_list;
    struct robust_head head;

    if (copyin_obj(&t->ua, &head, uaddr(head_addr)))
        return;
    const struct robust_entry pending = robust_entry(head.pending);
    struct robust_entry e = robust_entry(head.next);
    for (int i = 0; i < LIMIT_ROBUST_LIST && e.addr != head_addr; i++) {
        uint64_t next;
        /* Read on before the lock's new owner may free it. */
        const bool last = copyin_obj(&t->ua, &next, uaddr(e.addr)) != 0;
        if (e.addr != pending.addr &&
            !robust_release(t, e.addr + (uint64_t)head.offset, e.pi, false))
            return;
        if (last)
            return;
        e = robust_entry(next);
    }
    if (pending.addr)
        (void)robust_release(t, pending.addr + (uint64_t)head.offset, pending.pi, true);
}

void futex_exit_robust(struct task *t)
{
    if (!task_priv(t)->no_guest)
        robust_walk(t);
    futex_pi_exit(t);
}
