/* fork: memory is shared until it is written, and nothing shows through. */
#include "mm_fake.h"

TestSuite(mm_fork, .init = fake_init, .fini = fake_fini);

#define P PAGE_SIZE
#define RW (PROT_READ | PROT_WRITE)

Test(mm_fork, writes_stay_apart)
{
    struct guest g, c;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, 64 * P, RW, ANON);
    for (uint64_t i = 0; i < 64; i++)
        cr_assert_eq(guest_write(&g, a + i * P, (unsigned char)i), 0);
    cr_assert_eq(guest_fork(&g, &c), 0);
    cr_assert_eq(guest_write(&c, a + 5 * P, 105), 0);
    cr_assert_eq(guest_write(&g, a + 6 * P, 106), 0);
    cr_assert_eq(guest_read(&g, a + 5 * P), 5);
    cr_assert_eq(guest_read(&c, a + 6 * P), 6);
    for (uint64_t i = 20; i < 64; i++) {
        cr_assert_eq(guest_read(&g, a + i * P), (int)i);
        cr_assert_eq(guest_read(&c, a + i * P), (int)i);
    }
    guest_end(&g);
    cr_assert_eq(guest_read(&c, a + 5 * P), 105);
    cr_assert_eq(guest_write(&c, a + 63 * P, 1), 0);
    guest_end(&c);
}

Test(mm_fork, usercopy_breaks_sharing_too)
{
    struct guest g, c;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, 4 * P, RW, ANON);
    uint32_t v = 0x01020304, seen = 0;
    cr_assert_eq(copyout(&g.ua, uaddr(a), &v, 4), 0);
    cr_assert_eq(guest_fork(&g, &c), 0);
    cr_assert_eq(user_store32(&g.ua, uaddr(a), 7), 0);
    cr_assert_eq(user_load32(&c.ua, uaddr(a), &seen), 0);
    cr_assert_eq(seen, v);
    cr_assert_eq(user_cmpxchg32(&c.ua, uaddr(a), v, 9, &seen), 0);
    cr_assert_eq(seen, v);
    cr_assert_eq(guest_read(&g, a), 7);
    cr_assert_eq(guest_read(&c, a), 9);
    guest_end(&c);
    guest_end(&g);
}

Test(mm_fork, the_last_owner_writes_without_a_copy)
{
    struct guest g, c;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, 256 * P, RW, ANON);
    cr_assert_eq(guest_write(&g, a + 10 * P, 3), 0);
    cr_assert_eq(guest_fork(&g, &c), 0);
    guest_end(&c);
    uint64_t reserved = memfile_reserved(fake_mf);
    long faults = g.faults;
    for (uint64_t i = 0; i < 256; i++)
        cr_assert_eq(guest_write(&g, a + i * P, 4), 0);
    cr_assert_eq(memfile_reserved(fake_mf), reserved);
    cr_assert(g.faults - faults <= 2, "one fault makes all of it writable again");
    guest_end(&g);
}

Test(mm_fork, what_is_written_after_each_fork_is_copied_at_once)
{
    struct guest g, c;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, 256 * P, RW, ANON);
    for (uint64_t i = 0; i < 256; i++)
        cr_assert_eq(guest_write(&g, a + i * P, 1), 0);
    for (unsigned char round = 2; round < 6; round++) {
        cr_assert_eq(guest_fork(&g, &c), 0);
        long faults = g.faults + c.faults;
        cr_assert_eq(guest_write(&c, a + 40 * P, round), 0);
        cr_assert_eq(guest_write(&g, a + 41 * P, (unsigned char)(100 + round)), 0);
        if (round > 3)
            cr_assert_eq(g.faults + c.faults, faults, "round %d", round);
        cr_assert_eq(guest_read(&g, a + 40 * P), 1);
        cr_assert_eq(guest_read(&c, a + 41 * P), round > 2 ? 99 + round : 1);
        cr_assert_eq(guest_read(&c, a + 200 * P), 1);
        guest_end(&c);
    }
    guest_end(&g);
}

/* The range that was learned is another mapping by now. */
Test(mm_fork, what_was_written_may_be_gone)
{
    struct guest g, c;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, 64 * P, RW, ANON);
    for (int round = 0; round < 2; round++) {
        cr_assert_eq(guest_write(&g, a + 3 * P, 1), 0);
        cr_assert_eq(guest_fork(&g, &c), 0);
        cr_assert_eq(guest_write(&c, a + 3 * P, 2), 0);
        guest_end(&c);
    }
    cr_assert_eq(mm_munmap(g.mm, g.ctx, uaddr(a), 8 * P), 0);
    cr_assert_eq(guest_fork(&g, &c), 0);
    cr_assert_eq(guest_read(&c, a + 3 * P), -SIGSEGV);
    guest_end(&c);
    cr_assert_eq(guest_map_ok(&g, a, 2 * P, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED), a);
    cr_assert_eq(guest_fork(&g, &c), 0);
    cr_assert_eq(guest_write(&c, a + P, 9), 0);
    cr_assert_eq(guest_read(&g, a + P), 9, "shared memory is not copied");
    guest_end(&c);
    guest_end(&g);
}

Test(mm_fork, shared_memory_stays_shared)
{
    struct guest g, c;
    struct fake_file f;
    guest_new(&g);
    fake_file_new(&f, 4 * P);
    uint64_t a = guest_map_ok(&g, 0, 4 * P, RW, MAP_SHARED | MAP_ANONYMOUS);
    int64_t m = guest_mmap(&g, 0, 4 * P, RW, MAP_SHARED, &f.m, 0);
    cr_assert(m > 0);
    cr_assert_eq(guest_fork(&g, &c), 0);
    cr_assert_eq(guest_write(&c, a + P, 44), 0);
    cr_assert_eq(guest_read(&g, a + P), 44);
    cr_assert_eq(guest_write(&g, (uint64_t)m + P, 45), 0);
    cr_assert_eq(guest_read(&c, (uint64_t)m + P), 45);
    /* the child's mappings are found when the file is cut */
    f.size = P;
    cr_assert_eq(ftruncate(f.fd, P), 0);
    mappable_invalidate(&f.m, P, UINT64_MAX);
    cr_assert_eq(guest_read(&c, (uint64_t)m + P), -SIGBUS);
    cr_assert_eq(guest_read(&g, (uint64_t)m + P), -SIGBUS);
    guest_end(&g);
    guest_end(&c);
    fake_file_end(&f);
}

Test(mm_fork, advice_about_fork)
{
    struct guest g, c;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, 6 * P, RW, ANON);
    for (uint64_t i = 0; i < 6; i++)
        cr_assert_eq(guest_write(&g, a + i * P, 5), 0);
    cr_assert_eq(mm_madvise(g.mm, g.ctx, uaddr(a + P), P, MADV_DONTFORK), 0);
    cr_assert_eq(mm_madvise(g.mm, g.ctx, uaddr(a + 3 * P), P, MADV_WIPEONFORK), 0);
    cr_assert_eq(guest_fork(&g, &c), 0);
    cr_assert_eq(guest_read(&c, a), 5);
    cr_assert_eq(guest_read(&c, a + P), -SIGSEGV);
    cr_assert_eq(guest_read(&c, a + 2 * P), 5);
    cr_assert_eq(guest_read(&c, a + 3 * P), 0);
    cr_assert_eq(guest_read(&g, a + 3 * P), 5);
    cr_assert_eq(guest_write(&g, a + 3 * P, 6), 0);
    cr_assert_eq(guest_read(&c, a + 3 * P), 0);
    cr_assert_eq(guest_read(&g, a + P), 5);
    guest_end(&c);
    guest_end(&g);
}

Test(mm_fork, generations)
{
    struct guest g[8];
    guest_new(&g[0]);
    uint64_t a = guest_map_ok(&g[0], 0, 40 * P, RW, ANON);
    for (int i = 1; i < 8; i++) {
        cr_assert_eq(guest_write(&g[i - 1], a + (uint64_t)i * P, (unsigned char)(10 * i)), 0);
        cr_assert_eq(guest_fork(&g[i - 1], &g[i]), 0);
        cr_assert_eq(guest_write(&g[i - 1], a + (uint64_t)i * P, 1), 0);
    }
    for (int i = 1; i < 8; i++) {
        cr_assert_eq(guest_read(&g[7], a + (uint64_t)i * P), 10 * i);
        cr_assert_eq(guest_read(&g[i - 1], a + (uint64_t)i * P), 1);
    }
    for (int i = 0; i < 8; i++)
        guest_end(&g[i]);
}

/* mprotect and madvise of memory that is shared with a child must not make it writable for both. */
Test(mm_fork, protections_do_not_undo_sharing)
{
    struct guest g, c;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, 8 * P, RW, ANON);
    cr_assert_eq(guest_write(&g, a, 1), 0);
    cr_assert_eq(guest_fork(&g, &c), 0);
    cr_assert_eq(guest_mprotect(&g, a, 8 * P, PROT_READ), 0);
    cr_assert_eq(guest_mprotect(&g, a, 8 * P, RW), 0);
    cr_assert_eq(guest_write(&g, a, 2), 0);
    cr_assert_eq(guest_read(&c, a), 1);
    cr_assert_eq(mm_madvise(c.mm, c.ctx, uaddr(a), 8 * P, MADV_DONTNEED), 0);
    cr_assert_eq(guest_read(&c, a), 0);
    cr_assert_eq(guest_read(&g, a), 2);
    int64_t b = guest_mremap(&c, a, 8 * P, 16 * P, MREMAP_MAYMOVE, 0);
    cr_assert(b > 0);
    cr_assert_eq(guest_write(&c, (uint64_t)b + 12 * P, 3), 0);
    guest_end(&c);
    guest_end(&g);
}
