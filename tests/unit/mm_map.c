/* Mappings, protections and faults, seen by a guest whose accesses are real. */
#include "mm_fake.h"

TestSuite(mm_map, .init = fake_init, .fini = fake_fini);

#define P PAGE_SIZE

Test(mm_map, anonymous_memory_is_zero_and_keeps_what_is_written)
{
    struct guest g;
    guest_new(&g);
    uint64_t at = guest_map_ok(&g, 0, 8 * P, PROT_READ | PROT_WRITE, ANON);
    cr_assert_eq(guest_read(&g, at + 5), 0);
    cr_assert_eq(guest_write(&g, at + 3 * P + 1, 77), 0);
    cr_assert_eq(guest_read(&g, at + 3 * P + 1), 77);
    cr_assert_eq(g.faults, 0, "small mappings are filled in at once");
    cr_assert_eq(guest_munmap(&g, at + 2 * P, 2 * P), 0);
    cr_assert_eq(guest_read(&g, at + 3 * P), -SIGSEGV);
    cr_assert_eq(g.sig.code, SEGV_MAPERR);
    cr_assert_eq(guest_read(&g, at + P), 0);
    cr_assert_eq(guest_read(&g, at + 4 * P), 0);
    guest_end(&g);
}

Test(mm_map, memory_that_comes_back_is_zero)
{
    struct guest g;
    guest_new(&g);
    for (int i = 0; i < 200; i++) {
        uint64_t at = guest_map_ok(&g, 0, 16 * P, PROT_READ | PROT_WRITE, ANON);
        for (int p = 0; p < 16; p++) {
            cr_assert_eq(guest_read(&g, at + (uint64_t)p * P), 0);
            cr_assert_eq(guest_write(&g, at + (uint64_t)p * P, 200), 0);
        }
        cr_assert_eq(guest_munmap(&g, at, 16 * P), 0);
    }
    guest_end(&g);
}

Test(mm_map, bad_arguments)
{
    struct guest g;
    guest_new(&g);
    cr_assert_eq(guest_mmap(&g, 0, 0, RWX, ANON, NULL, 0), -EINVAL);
    cr_assert_eq(guest_mmap(&g, 0, P, RWX, MAP_ANONYMOUS, NULL, 0), -EINVAL);
    cr_assert_eq(guest_mmap(&g, 0, UINT64_MAX, RWX, ANON, NULL, 0), -ENOMEM);
    cr_assert_eq(guest_mmap(&g, 0, UINT64_MAX - P, RWX, ANON, NULL, 0), -ENOMEM);
    cr_assert_eq(guest_mmap(&g, FAKE_MIN + 1, P, RWX, ANON | MAP_FIXED, NULL, 0), -EINVAL);
    cr_assert_eq(guest_mmap(&g, P, P, RWX, ANON | MAP_FIXED, NULL, 0), -EPERM);
    cr_assert_eq(guest_mmap(&g, FAKE_MAX - P, 2 * P, RWX, ANON | MAP_FIXED, NULL, 0), -ENOMEM);
    cr_assert_eq(guest_mmap(&g, FAKE_RESERVED_START, P, RWX, ANON | MAP_FIXED, NULL, 0), -ENOMEM);
    cr_assert_eq(guest_munmap(&g, FAKE_MIN + 1, P), -EINVAL);
    cr_assert_eq(guest_munmap(&g, FAKE_MIN, 0), -EINVAL);
    cr_assert_eq(guest_munmap(&g, FAKE_MAX, P), -EINVAL);
    cr_assert_eq(guest_munmap(&g, FAKE_MIN, UINT64_MAX - P), -EINVAL);
    cr_assert_eq(guest_munmap(&g, FAKE_MIN, P), 0, "nothing there is no error");
    cr_assert_eq(guest_mprotect(&g, FAKE_MIN, P, PROT_READ), -ENOMEM);
    cr_assert_eq(guest_mprotect(&g, FAKE_MIN + 1, P, PROT_READ), -EINVAL);
    cr_assert_eq(guest_mprotect(&g, FAKE_MIN, P, 0x40), -EINVAL);
    cr_assert_eq(guest_mprotect(&g, FAKE_MIN, 0, PROT_READ), 0);
    guest_end(&g);
}

Test(mm_map, fixed_and_noreplace)
{
    struct guest g;
    guest_new(&g);
    uint64_t at = guest_map_ok(&g, 0x200000, 4 * P, PROT_READ | PROT_WRITE, ANON | MAP_FIXED);
    cr_assert_eq(at, 0x200000u);
    cr_assert_eq(guest_write(&g, at + P, 9), 0);
    cr_assert_eq(guest_mmap(&g, at + P, P, RWX, ANON | MAP_FIXED_NOREPLACE, NULL, 0), -EEXIST);
    cr_assert_eq(guest_map_ok(&g, at + P, P, PROT_READ, ANON | MAP_FIXED), at + P);
    cr_assert_eq(guest_read(&g, at + P), 0);
    cr_assert_eq(guest_write(&g, at + P, 1), SIGSEGV);
    cr_assert_eq(g.sig.code, SEGV_ACCERR);
    uint64_t hint = guest_map_ok(&g, at + 2 * P, P, RWX, ANON);
    cr_assert_neq(hint, at + 2 * P, "a hint that is taken is only a hint");
    cr_assert_eq(guest_map_ok(&g, 0x400000, P, RWX, ANON), 0x400000u);
    guest_end(&g);
}

Test(mm_map, protections)
{
    for (int exact = 0; exact < 2; exact++) {
        struct guest g;
        guest_new(&g);
        g.exact = exact;
        uint64_t at = guest_map_ok(&g, 0, 6 * P, PROT_READ | PROT_WRITE, ANON);
        cr_assert_eq(guest_write(&g, at + 2 * P, 5), 0);
        cr_assert_eq(guest_mprotect(&g, at + P, 3 * P, PROT_NONE), 0);
        cr_assert_eq(guest_read(&g, at + 2 * P), -SIGSEGV);
        cr_assert_eq(g.sig.code, SEGV_ACCERR);
        cr_assert_eq(guest_mprotect(&g, at + 2 * P, P, PROT_READ), 0);
        cr_assert_eq(guest_read(&g, at + 2 * P), 5);
        cr_assert_eq(guest_write(&g, at + 2 * P, 6), SIGSEGV);
        cr_assert_eq(g.sig.code, SEGV_ACCERR);
        cr_assert_eq(guest_mprotect(&g, at, 6 * P, PROT_READ | PROT_WRITE), 0);
        cr_assert_eq(guest_write(&g, at + 2 * P, 6), 0);
        cr_assert_eq(guest_read(&g, at + 2 * P), 6);
        guest_end(&g);
    }
}

Test(mm_map, neighbours_become_one_mapping)
{
    struct guest g;
    struct mm_vma_info *v = malloc(sizeof(*v));
    guest_new(&g);
    uint64_t at = guest_map_ok(&g, 0x400000, 4 * P, RWX, ANON | MAP_FIXED);
    guest_map_ok(&g, at + 4 * P, 4 * P, RWX, ANON | MAP_FIXED);
    cr_assert_eq(mm_vma_next(g.mm, 0, v), 0);
    cr_assert(v->start == at && v->end == at + 8 * P);
    cr_assert_eq(guest_mprotect(&g, at + 2 * P, P, PROT_READ), 0);
    cr_assert_eq(mm_vma_next(g.mm, at, v), 0);
    cr_assert_eq(v->end, at + 2 * P);
    cr_assert_eq(guest_mprotect(&g, at + 2 * P, P, RWX), 0);
    cr_assert_eq(mm_vma_next(g.mm, at, v), 0);
    cr_assert_eq(v->end, at + 8 * P);
    cr_assert_eq(mm_vma_next(g.mm, v->end, v), -ENOENT);
    free(v);
    guest_end(&g);
}

/* A platform with large entries in its page tables gets memory that lies as the addresses do. */
Test(mm_map, large_ranges_lie_alike)
{
    const uint64_t large = UINT64_C(2) << 20;
    struct guest g;

    fake_plat.large = large;
    guest_new(&g);
    for (uint64_t i = 0; i < 20; i++) {
        const uint64_t size = large + i * 5 * P;
        uint64_t at = guest_map_ok(&g, 0, size, RWX, ANON);
        guest_map_ok(&g, 0, (i % 7 + 1) * P, PROT_READ, ANON);
        int value = 1;
        cr_assert_eq(guest_access(&g, at, &value, sizeof(value), true), 0);
        const struct fake_as *as = fake_ctx(g.ctx)->as;
        for (size_t n = 0; n < as->seg_count; n++)
            if (as->segs[n].start <= at && at < as->segs[n].end)
                cr_assert_eq((as->segs[n].start - as->segs[n].off) % large, 0);
    }
    guest_end(&g);
    fake_plat.large = 0;
}

Test(mm_map, limits)
{
    struct guest g;
    struct mm_stats s;
    guest_new(&g);
    g.lim.as = 10 * P;
    uint64_t at = guest_map_ok(&g, 0, 10 * P, PROT_READ, ANON);
    cr_assert_eq(guest_mmap(&g, 0, P, PROT_READ, ANON, NULL, 0), -ENOMEM);
    cr_assert_eq(guest_map_ok(&g, at, 5 * P, PROT_READ, ANON | MAP_FIXED), at, "replaced pages");
    cr_assert_eq(guest_munmap(&g, at, 10 * P), 0);
    g.lim.as = UINT64_MAX;
    g.lim.data = 4 * P;
    at = guest_map_ok(&g, 0, 4 * P, PROT_READ | PROT_WRITE, ANON);
    cr_assert_eq(guest_mmap(&g, 0, P, PROT_READ | PROT_WRITE, ANON, NULL, 0), -ENOMEM);
    uint64_t ro = guest_map_ok(&g, 0, P, PROT_READ, ANON);
    cr_assert_eq(guest_mprotect(&g, ro, P, PROT_READ | PROT_WRITE), -ENOMEM);
    guest_map_ok(&g, 0, P, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    mm_stats(g.mm, &s);
    cr_assert(s.virt == 6 * P && s.data == 4 * P && s.shared == P);
    guest_end(&g);
}

Test(mm_map, stack_grows_down_to_its_limit)
{
    struct guest g;
    guest_new(&g);
    uint64_t top = 0x40000000;
    g.lim.stack = 1u << 20;
    guest_map_ok(&g, top - 4 * P, 4 * P, PROT_READ | PROT_WRITE, ANON | MAP_FIXED | MAP_GROWSDOWN);
    cr_assert_eq(guest_write(&g, top - 100 * P, 3), 0);
    cr_assert_eq(guest_read(&g, top - 100 * P), 3);
    cr_assert_eq(guest_write(&g, top - (1u << 20), 4), 0);
    cr_assert_eq(guest_write(&g, top - (1u << 20) - 1, 4), SIGSEGV);
    cr_assert_eq(g.sig.code, SEGV_MAPERR);
    /* usercopy grows it as well */
    guest_map_ok(&g, 0x50000000, 4 * P, RWX, ANON | MAP_FIXED | MAP_GROWSDOWN);
    uint32_t v = 0;
    cr_assert_eq(copyout(&g.ua, uaddr(0x50000000 - 50 * P), &v, sizeof(v)), 0);
    /* a mapping close below stops it: the guard gap */
    guest_map_ok(&g, 0x60000000 - 300 * P, P, RWX, ANON | MAP_FIXED);
    guest_map_ok(&g, 0x60000000, 4 * P, RWX, ANON | MAP_FIXED | MAP_GROWSDOWN);
    cr_assert_eq(guest_write(&g, 0x60000000 - 43 * P, 1), 0);
    cr_assert_eq(guest_write(&g, 0x60000000 - 44 * P, 1), SIGSEGV);
    guest_end(&g);
}

Test(mm_map, brk_moves)
{
    struct guest g;
    guest_new(&g);
    mm_lock_layout(g.mm);
    mm_layout(g.mm)->start_brk = mm_layout(g.mm)->brk = 0x500010;
    mm_unlock_layout(g.mm);
    cr_assert_eq(mm_brk(g.mm, g.ctx, &g.lim, 0), 0x500010u);
    cr_assert_eq(mm_brk(g.mm, g.ctx, &g.lim, 0x510020), 0x510020u);
    cr_assert_eq(guest_write(&g, 0x510030, 8), 0);
    cr_assert_eq(guest_read(&g, 0x500020), -SIGSEGV, "the page brk starts in is the program's");
    cr_assert_eq(mm_brk(g.mm, g.ctx, &g.lim, 0x508000), 0x508000u);
    cr_assert_eq(guest_read(&g, 0x510030), -SIGSEGV);
    cr_assert_eq(mm_brk(g.mm, g.ctx, &g.lim, 0x520000), 0x520000u);
    cr_assert_eq(guest_read(&g, 0x510030), 0);
    cr_assert_eq(mm_brk(g.mm, g.ctx, &g.lim, 0x400000), 0x520000u);
    guest_map_ok(&g, 0x530000, P, RWX, ANON | MAP_FIXED);
    cr_assert_eq(mm_brk(g.mm, g.ctx, &g.lim, 0x540000), 0x520000u);
    g.lim.data = 0x30000;
    cr_assert_eq(mm_brk(g.mm, g.ctx, &g.lim, 0x52f000), 0x52f000u);
    g.lim.data = 0x10000;
    cr_assert_eq(mm_brk(g.mm, g.ctx, &g.lim, 0x52ffff), 0x52f000u);
    guest_end(&g);
}

/* ---- files ---- */

Test(mm_map, private_file_pages_are_copied_on_write)
{
    struct guest g;
    struct fake_file f;
    guest_new(&g);
    fake_file_new(&f, 40 * P);
    int64_t at = guest_mmap(&g, 0, 40 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE, &f.m, 0);
    cr_assert(at > 0);
    uint64_t a = (uint64_t)at;
    cr_assert_eq(guest_read(&g, a + 7 * P), 8);
    cr_assert_eq(guest_write(&g, a + 7 * P, 99), 0);
    cr_assert_eq(guest_read(&g, a + 7 * P), 99);
    cr_assert_eq(guest_read(&g, a + 7 * P + 1), 8);
    cr_assert_eq(fake_file_byte(&f, 7 * P), 8);
    cr_assert_eq(guest_read(&g, a + 39 * P), 40);
    cr_assert_eq(mm_madvise(g.mm, g.ctx, uaddr(a + 7 * P), P, MADV_DONTNEED), 0);
    cr_assert_eq(guest_read(&g, a + 7 * P), 8);
    cr_assert_eq(guest_munmap(&g, a, 40 * P), 0);
    cr_assert_eq(f.refs, 1);
    fake_file_end(&f);
    guest_end(&g);
}

Test(mm_map, shared_file_pages_are_the_files)
{
    struct guest g;
    struct fake_file f;
    guest_new(&g);
    fake_file_new(&f, 3 * P);
    int64_t at = guest_mmap(&g, 0, 4 * P, PROT_READ, MAP_SHARED, &f.m, 0);
    cr_assert(at > 0);
    uint64_t a = (uint64_t)at;
    cr_assert_eq(guest_read(&g, a + 2 * P), 3);
    cr_assert_eq(guest_write(&g, a, 50), SIGSEGV);
    cr_assert_eq(guest_mprotect(&g, a, 4 * P, PROT_READ | PROT_WRITE), 0);
    cr_assert_eq(guest_write(&g, a, 50), 0);
    cr_assert_eq(fake_file_byte(&f, 0), 50);
    cr_assert_eq(guest_read(&g, a + 3 * P), -SIGBUS, "beyond the end");
    cr_assert_eq(g.sig.code, BUS_ADRERR);
    uint32_t v = 0;
    cr_assert_eq(copyin(&g.ua, &v, uaddr(a + 3 * P), 4), -EFAULT);
    cr_assert_eq(copyin(&g.ua, &v, uaddr(a), 4), 0);
    cr_assert_eq(v & 0xff, 50u);
    v = 0x55555555;
    cr_assert_eq(copyout(&g.ua, uaddr(a + 2 * P), &v, 4), 0);
    cr_assert_eq(fake_file_byte(&f, 2 * P), 0x55);
    /* grown, then cut short under the mapping */
    cr_assert_eq(ftruncate(f.fd, 4 * P), 0);
    f.size = 4 * P;
    cr_assert_eq(guest_read(&g, a + 3 * P), 0);
    f.size = P;
    cr_assert_eq(ftruncate(f.fd, P), 0);
    mappable_invalidate(&f.m, P, UINT64_MAX);
    cr_assert_eq(guest_read(&g, a), 50);
    cr_assert_eq(guest_read(&g, a + P), -SIGBUS);
    guest_end(&g);
    fake_file_end(&f);
}

Test(mm_map, truncation_takes_copies_and_invalidation_does_not)
{
    struct guest g;
    struct fake_file f;
    guest_new(&g);
    fake_file_new(&f, 3 * P);
    int64_t at = guest_mmap(&g, 0, 3 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE, &f.m, 0);
    cr_assert(at > 0);
    const uint64_t a = (uint64_t)at;
    cr_assert_eq(guest_write(&g, a, 50), 0);
    cr_assert_eq(guest_write(&g, a + 2 * P, 51), 0);
    mappable_invalidate(&f.m, 0, UINT64_MAX);
    cr_assert_eq(guest_read(&g, a), 50);
    cr_assert_eq(guest_read(&g, a + 2 * P), 51);
    f.size = 1;
    cr_assert_eq(ftruncate(f.fd, 1), 0);
    mappable_truncate(&f.m, 1);
    cr_assert_eq(guest_read(&g, a), 50);
    cr_assert_eq(guest_read(&g, a + 2 * P), -SIGBUS);
    guest_end(&g);
    fake_file_end(&f);
}

Test(mm_map, file_cut_short_without_a_word)
{
    struct guest g;
    struct fake_file f;
    guest_new(&g);
    fake_file_new(&f, 2 * P);
    int64_t at = guest_mmap(&g, 0, 2 * P, PROT_READ, MAP_SHARED, &f.m, 0);
    cr_assert(at > 0);
    cr_assert_eq(ftruncate(f.fd, P), 0);
    uint32_t v;
    cr_assert_eq(copyin(&g.ua, &v, uaddr((uint64_t)at + P), 4), -EFAULT, "not the sentry's end");
    struct plat_fault bus = {SIGBUS, BUS_ADRERR, (uint64_t)at + P, PLAT_ACCESS_UNKNOWN, 0, 0};
    int err = 0;
    for (int i = 0; i < 3 && !err; i++)
        err = mm_fault(g.mm, g.ctx, &bus, &g.lim, &g.sig);
    cr_assert(err == -EFAULT && g.sig.signo == SIGBUS && g.sig.code == BUS_ADRERR);
    guest_end(&g);
    fake_file_end(&f);
}

Test(mm_map, files_the_host_will_not_map)
{
    for (int exact = 0; exact < 2; exact++) {
        struct guest g;
        struct fake_file f;
        guest_new(&g);
        g.exact = exact;
        fake_file_new(&f, 40 * P);
        fake_refused_fd = f.fd;
        int64_t at = guest_mmap(&g, 0, 40 * P, PROT_READ | PROT_EXEC, MAP_PRIVATE, &f.m, 0);
        cr_assert(at > 0);
        cr_assert_eq(guest_read(&g, (uint64_t)at), 1);
        cr_assert_eq(guest_read(&g, (uint64_t)at + 39 * P), 40);
        cr_assert_eq(guest_write(&g, (uint64_t)at, 1), SIGSEGV);
        int64_t shared = guest_mmap(&g, 0, P, PROT_READ, MAP_SHARED, &f.m, 0);
        cr_assert(shared > 0);
        cr_assert_lt(guest_read(&g, (uint64_t)shared), 0, "a signal rather than a copy");
        fake_refused_fd = -1;
        guest_end(&g);
        fake_file_end(&f);
    }
}

/* ---- advice and locks ---- */

Test(mm_map, dontneed_gives_zeros)
{
    struct guest g;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, 8 * P, PROT_READ | PROT_WRITE, ANON);
    for (uint64_t i = 0; i < 8; i++)
        cr_assert_eq(guest_write(&g, a + i * P, 7), 0);
    cr_assert_eq(mm_madvise(g.mm, g.ctx, uaddr(a + 2 * P), 3 * P, MADV_DONTNEED), 0);
    cr_assert_eq(guest_read(&g, a + P), 7);
    cr_assert_eq(guest_read(&g, a + 2 * P), 0);
    cr_assert_eq(guest_read(&g, a + 4 * P), 0);
    cr_assert_eq(guest_read(&g, a + 5 * P), 7);
    cr_assert_eq(guest_munmap(&g, a + 3 * P, P), 0);
    cr_assert_eq(mm_madvise(g.mm, g.ctx, uaddr(a), 8 * P, MADV_DONTNEED), -ENOMEM);
    cr_assert_eq(guest_read(&g, a + 7 * P), 0, "the rest of the range is done all the same");
    cr_assert_eq(mm_madvise(g.mm, g.ctx, uaddr(a), P, 12345), -EINVAL);
    cr_assert_eq(mm_madvise(g.mm, g.ctx, uaddr(a + 1), P, MADV_DONTNEED), -EINVAL);
    guest_end(&g);
}

Test(mm_map, locks_are_counted)
{
    struct guest g;
    struct mm_stats s;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, 40 * P, PROT_READ | PROT_WRITE, ANON);
    cr_assert_eq(mm_mlock(g.mm, g.ctx, uaddr(a), 16 * P, MM_LOCK, &g.lim), 0);
    cr_assert_eq(mm_mlock(g.mm, g.ctx, uaddr(a), 16 * P, MM_LOCK, &g.lim), 0);
    cr_assert_eq(mm_mlock(g.mm, g.ctx, uaddr(a), 17 * P, MM_LOCK, &g.lim), -ENOMEM);
    mm_stats(g.mm, &s);
    cr_assert_eq(s.locked, 16 * P);
    cr_assert_eq(mm_madvise(g.mm, g.ctx, uaddr(a), P, MADV_DONTNEED), -EINVAL);
    cr_assert_eq(mm_mlock(g.mm, g.ctx, uaddr(a), 8 * P, MM_UNLOCK, &g.lim), 0);
    mm_stats(g.mm, &s);
    cr_assert_eq(s.locked, 8 * P);
    g.lim.memlock = 0;
    cr_assert_eq(mm_mlock(g.mm, g.ctx, uaddr(a), P, MM_LOCK, &g.lim), -EPERM);
    g.lim.ipc_lock = true;
    cr_assert_eq(mm_mlockall(g.mm, g.ctx, MCL_CURRENT | MCL_FUTURE, &g.lim), 0);
    guest_map_ok(&g, 0, P, PROT_READ | PROT_WRITE, ANON);
    mm_stats(g.mm, &s);
    cr_assert_eq(s.locked, 41 * P);
    cr_assert_eq(mm_mlockall(g.mm, g.ctx, 0, &g.lim), 0);
    mm_stats(g.mm, &s);
    cr_assert_eq(s.locked, 0u);
    guest_end(&g);
}

/* ---- mremap ---- */

Test(mm_map, mremap_forms)
{
    struct guest g;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0x1000000, 4 * P, PROT_READ | PROT_WRITE, ANON | MAP_FIXED);
    cr_assert_eq(guest_write(&g, a + 3 * P, 33), 0);
    cr_assert_eq(guest_mremap(&g, a, 4 * P, 8 * P, 0, 0), (int64_t)a);
    cr_assert_eq(guest_read(&g, a + 7 * P), 0);
    cr_assert_eq(guest_mremap(&g, a, 8 * P, 4 * P, 0, 0), (int64_t)a);
    cr_assert_eq(guest_read(&g, a + 4 * P), -SIGSEGV);
    guest_map_ok(&g, a + 4 * P, P, PROT_READ, ANON | MAP_FIXED);
    cr_assert_eq(guest_mremap(&g, a, 4 * P, 8 * P, 0, 0), -ENOMEM);
    int64_t b = guest_mremap(&g, a, 4 * P, 8 * P, MREMAP_MAYMOVE, 0);
    cr_assert(b > 0 && b != (int64_t)a);
    cr_assert_eq(guest_read(&g, (uint64_t)b + 3 * P), 33);
    cr_assert_eq(guest_read(&g, a + 3 * P), -SIGSEGV);
    int64_t c =
        guest_mremap(&g, (uint64_t)b, 8 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_FIXED, 0x2000000);
    cr_assert_eq(c, 0x2000000);
    cr_assert_eq(guest_read(&g, (uint64_t)b), -SIGSEGV);
    cr_assert_eq(guest_write(&g, 0x2000000, 21), 0);
    int64_t d = guest_mremap(&g, 0x2000000, 2 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
    cr_assert(d > 0);
    cr_assert_eq(guest_read(&g, (uint64_t)d), 21);
    cr_assert_eq(guest_read(&g, 0x2000000), 0, "the old range is empty but there");
    guest_end(&g);
}

Test(mm_map, mremap_refuses)
{
    struct guest g;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0x1000000, 4 * P, RWX, ANON | MAP_FIXED);
    guest_map_ok(&g, a + 4 * P, 4 * P, PROT_READ, ANON | MAP_FIXED);
    const int mv = MREMAP_MAYMOVE, fx = MREMAP_FIXED;
    cr_assert_eq(guest_mremap(&g, a, 8 * P, 9 * P, mv, 0), -EFAULT, "two mappings");
    cr_assert_eq(guest_mremap(&g, 0x900000, P, 2 * P, mv, 0), -EFAULT);
    cr_assert_eq(guest_mremap(&g, a + 1, P, 2 * P, mv, 0), -EINVAL);
    cr_assert_eq(guest_mremap(&g, a, P, 0, mv, 0), -EINVAL);
    cr_assert_eq(guest_mremap(&g, a, P, P, fx, 0x3000000), -EINVAL);
    cr_assert_eq(guest_mremap(&g, a, P, P, 64, 0), -EINVAL);
    cr_assert_eq(guest_mremap(&g, a, 2 * P, 2 * P, mv | fx, a + P), -EINVAL, "overlap");
    cr_assert_eq(guest_mremap(&g, a, P, P, mv | fx, 0x3000001), -EINVAL);
    cr_assert_eq(guest_mremap(&g, a, 0, P, mv, 0), -EINVAL, "private memory is not doubled");
    cr_assert_eq(guest_mremap(&g, a, P, UINT64_MAX & ~(P - 1), mv, 0), -EINVAL);
    cr_assert_eq(guest_mremap(&g, a, P, UINT64_MAX, mv, 0), -EINVAL);
    guest_end(&g);
}

Test(mm_map, mremap_doubles_shared_memory)
{
    struct guest g;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, 4 * P, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    int64_t b = guest_mremap(&g, a + P, 0, 3 * P, MREMAP_MAYMOVE, 0);
    cr_assert(b > 0);
    cr_assert_eq(guest_write(&g, a + 2 * P, 61), 0);
    cr_assert_eq(guest_read(&g, (uint64_t)b + P), 61);
    guest_end(&g);
}

Test(mm_map, full_queues_do_not_lose_anything)
{
    struct guest g;
    guest_new(&g);
    fake_queue_limit = 1;
    uint64_t a = guest_map_ok(&g, 0, 64 * P, PROT_READ | PROT_WRITE, ANON);
    for (uint64_t i = 0; i < 64; i += 2)
        cr_assert_eq(guest_mprotect(&g, a + i * P, P, PROT_READ), 0);
    for (uint64_t i = 1; i < 64; i += 2)
        cr_assert_eq(guest_write(&g, a + i * P, (unsigned char)i), 0);
    cr_assert_eq(guest_munmap(&g, a + 10 * P, 20 * P), 0);
    for (uint64_t i = 1; i < 64; i += 2)
        cr_assert_eq(guest_read(&g, a + i * P), i >= 10 && i < 30 ? -SIGSEGV : (int)i);
    guest_end(&g);
}
