/* Memory that was handed out and never touched comes back, and nothing that was touched is lost. */
#include "mm_fake.h"

TestSuite(mm_takeback, .init = fake_init, .fini = fake_fini);

#define P PAGE_SIZE
#define MIB (1ull << 20)
#define LIMIT (8 * MIB)

/* What could still be handed out. */
static uint64_t room(void)
{
    uint64_t size = LIMIT;
    while (size > 0 && !memfile_admits(fake_mf, size))
        size -= P;
    return size;
}

Test(mm_takeback, what_was_touched_stays)
{
    struct guest g;
    memfile_set_limit(fake_mf, LIMIT);
    guest_new(&g);
    const uint64_t at = guest_map_ok(&g, 0, MIB / 4, PROT_READ | PROT_WRITE, ANON);
    cr_assert_eq(guest_write(&g, at + 5 * P, 7), 0);
    cr_assert_eq(guest_write(&g, at + 40 * P, 8), 0);
    const uint64_t before = room();
    cr_assert_geq(mm_take_back(g.mm, false), 62 * P);
    cr_assert_gt(room(), before);
    cr_assert_eq(mm_take_back(g.mm, false), 0u, "nothing is left to take");
    const long faults = g.faults;
    cr_assert_eq(guest_read(&g, at + 5 * P), 7);
    cr_assert_eq(guest_read(&g, at + 40 * P), 8);
    cr_assert_eq(g.faults, faults);
    cr_assert_eq(guest_read(&g, at), 0);
    cr_assert_eq(guest_write(&g, at + 6 * P, 9), 0);
    cr_assert_gt(g.faults, faults);
    cr_assert_eq(guest_read(&g, at + 5 * P), 7);
    guest_end(&g);
}

Test(mm_takeback, little_by_little_near_the_limit)
{
    struct guest g;
    memfile_set_limit(fake_mf, LIMIT);
    guest_new(&g);
    /* One page here and there: together the pieces around them are more than there is. */
    const uint64_t at = guest_map_ok(&g, 0, 64 * LIMIT, PROT_READ | PROT_WRITE, ANON);
    for (uint64_t i = 0; i < 256; i++)
        cr_assert_eq(guest_write(&g, at + i * 2 * MIB, (unsigned char)i), 0, "%d", (int)i);
    for (uint64_t i = 0; i < 256; i++)
        cr_assert_eq(guest_read(&g, at + i * 2 * MIB), (unsigned char)i);
    /* And all of them in the end. */
    uint64_t i = 0;
    while (i < 64 * LIMIT && guest_write(&g, at + i, 1) == 0)
        i += P;
    cr_assert_lt(i, LIMIT);
    cr_assert_eq(g.sig.signo, SIGKILL);
    cr_assert_leq(memfile_resident(fake_mf), LIMIT);
    guest_end(&g);
}

Test(mm_takeback, shared_memory)
{
    struct guest g;
    memfile_set_limit(fake_mf, LIMIT);
    guest_new(&g);
    const uint64_t at =
        guest_map_ok(&g, 0, 64 * LIMIT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    cr_assert_eq(guest_write(&g, at, 3), 0);
    cr_assert_eq(guest_write(&g, at + 30 * LIMIT, 4), 0);
    cr_assert_gt(mm_take_back(g.mm, false), 0u);
    cr_assert_eq(mm_take_back(g.mm, false), 0u);
    cr_assert_eq(guest_read(&g, at), 3);
    cr_assert_eq(guest_read(&g, at + 30 * LIMIT), 4);
    cr_assert_eq(guest_read(&g, at + 30 * LIMIT + 3 * P), 0);
    guest_end(&g);
}

Test(mm_takeback, after_a_fork)
{
    struct guest g, c;
    memfile_set_limit(fake_mf, LIMIT);
    guest_new(&g);
    const uint64_t at = guest_map_ok(&g, 0, MIB / 4, PROT_READ | PROT_WRITE, ANON);
    cr_assert_eq(guest_write(&g, at, 5), 0);
    cr_assert_eq(guest_fork(&g, &c), 0);
    (void)mm_take_back(c.mm, false);
    cr_assert_eq(guest_write(&g, at + 9 * P, 6), 0);
    (void)mm_take_back(g.mm, false);
    cr_assert_eq(guest_read(&c, at), 5);
    cr_assert_eq(guest_read(&c, at + 9 * P), 0);
    cr_assert_eq(guest_read(&g, at + 9 * P), 6);
    cr_assert_eq(guest_write(&c, at + 20 * P, 8), 0);
    cr_assert_eq(guest_read(&g, at + 20 * P), 0);
    guest_end(&g);
    guest_end(&c);
}

Test(mm_takeback, queues_that_are_full)
{
    struct guest g;
    memfile_set_limit(fake_mf, LIMIT);
    guest_new(&g);
    const uint64_t at = guest_map_ok(&g, 0, MIB / 4, PROT_READ | PROT_WRITE, ANON);
    for (uint64_t i = 0; i < 64; i += 2)
        cr_assert_eq(guest_write(&g, at + i * P, (unsigned char)i), 0);
    fake_queue_limit = 3;
    cr_assert_eq(mm_take_back(g.mm, false), 3 * P);
    cr_assert_eq(mm_take_back(g.mm, false), 3 * P);
    for (uint64_t i = 0; i < 64; i++)
        cr_assert_eq(guest_read(&g, at + i * P), i % 2 ? 0 : (int)i);
    guest_end(&g);
}

/* Locked memory was asked for to be there. */
Test(mm_takeback, locked_memory_stays)
{
    struct guest g;
    memfile_set_limit(fake_mf, LIMIT);
    guest_new(&g);
    const uint64_t at = guest_map_ok(&g, 0, 8 * P, PROT_READ | PROT_WRITE, ANON);
    cr_assert_eq(mm_mlock(g.mm, g.ctx, uaddr(at), 8 * P, MM_LOCK, &g.lim), 0);
    cr_assert_eq(mm_take_back(g.mm, false), 0u);
    guest_end(&g);
}

/* What cannot be touched at present could be later. */
Test(mm_takeback, memory_without_access)
{
    struct guest g;
    memfile_set_limit(fake_mf, LIMIT);
    guest_new(&g);
    const uint64_t at = guest_map_ok(&g, 0, 8 * P, PROT_READ | PROT_WRITE, ANON);
    cr_assert_eq(guest_write(&g, at + P, 4), 0);
    cr_assert_eq(guest_mprotect(&g, at, 8 * P, PROT_NONE), 0);
    cr_assert_eq(mm_take_back(g.mm, false), 7 * P);
    cr_assert_eq(guest_read(&g, at + P), -SIGSEGV);
    cr_assert_eq(guest_mprotect(&g, at, 8 * P, PROT_READ), 0);
    cr_assert_eq(guest_read(&g, at + P), 4);
    cr_assert_eq(guest_read(&g, at), 0);
    guest_end(&g);
}
