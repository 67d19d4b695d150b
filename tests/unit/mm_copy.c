/* Copies between the sentry and a guest: edges, bad pointers, strings, lists of ranges. */
#include <pthread.h>
#include <sys/uio.h>

#include "base/limits.h"
#include "mm_fake.h"

TestSuite(mm_copy, .init = fake_init, .fini = fake_fini);

#define P PAGE_SIZE
#define RW (PROT_READ | PROT_WRITE)

Test(mm_copy, edges_of_the_address_space)
{
    struct guest g;
    char buf[64];
    guest_new(&g);
    uint64_t top = guest_map_ok(&g, FAKE_MAX - P, P, RW, ANON | MAP_FIXED);
    cr_assert_eq(copyin(&g.ua, buf, uaddr(top + P - 64), 64), 0);
    cr_assert_eq(copyin(&g.ua, buf, uaddr(top + P - 63), 64), -EFAULT);
    cr_assert_eq(copyin_partial(&g.ua, buf, uaddr(top + P - 60), 64), 60u);
    cr_assert_eq(copyin(&g.ua, buf, uaddr(UINT64_MAX - 3), 8), -EFAULT);
    cr_assert_eq(copyin(&g.ua, buf, uaddr(UINT64_MAX), 0), 0, "nothing is copied");
    cr_assert_eq(copyin(&g.ua, buf, uaddr(0), 1), -EFAULT);
    cr_assert_eq(copyout(&g.ua, uaddr(1ull << 63), buf, 1), -EFAULT);
    cr_assert_eq(copyin_array(&g.ua, buf, uaddr(top), SIZE_MAX / 2, 4), -EFAULT);
    cr_assert_eq(user_zero(&g.ua, uaddr(top), P + 1), -EFAULT);
    struct uaccess none = {NULL, NULL};
    cr_assert_eq(copyin(&none, buf, uaddr(top), 1), -EFAULT);
    guest_end(&g);
}

Test(mm_copy, copies_stop_at_the_first_bad_page)
{
    struct guest g;
    static char buf[4 * PAGE_SIZE];
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, 4 * P, RW, ANON);
    memset(buf, 7, sizeof(buf));
    cr_assert_eq(guest_mprotect(&g, a + 2 * P, P, PROT_READ), 0);
    cr_assert_eq(copyout_partial(&g.ua, uaddr(a + 100), buf, sizeof(buf)), 2 * P - 100);
    cr_assert_eq(guest_munmap(&g, a + 3 * P, P), 0);
    cr_assert_eq(copyin_partial(&g.ua, buf, uaddr(a + P), sizeof(buf)), 2 * P);
    cr_assert_eq(buf[P - 1], 7);
    cr_assert_eq(buf[P], 0);
    guest_end(&g);
}

Test(mm_copy, strings)
{
    struct guest g;
    char buf[32];
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, P, RW, ANON), end = a + P;
    cr_assert_eq(copyout(&g.ua, uaddr(end - 6), "hello", 6), 0);
    cr_assert_eq(copyin_str(&g.ua, buf, uaddr(end - 6), sizeof(buf), -ENAMETOOLONG), 5);
    cr_assert_str_eq(buf, "hello");
    cr_assert_eq(copyin_str(&g.ua, buf, uaddr(end - 6), 6, -ENAMETOOLONG), 5);
    cr_assert_eq(copyin_str(&g.ua, buf, uaddr(end - 6), 5, -ENAMETOOLONG), -ENAMETOOLONG);
    cr_assert_eq(copyin_str(&g.ua, buf, uaddr(end - 1), sizeof(buf), -E2BIG), 0);
    cr_assert_eq(copyout(&g.ua, uaddr(end - 4), "abcd", 4), 0);
    cr_assert_eq(copyin_str(&g.ua, buf, uaddr(end - 4), sizeof(buf), -E2BIG), -EFAULT);
    cr_assert_eq(copyin_str(&g.ua, buf, uaddr(end), sizeof(buf), -E2BIG), -EFAULT);
    guest_end(&g);
}

Test(mm_copy, extensible_structs)
{
    struct guest g;
    unsigned char buf[16], src[32] = {1, 2, 3, 4, 5, 6, 7, 8};
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, P, RW, ANON);
    cr_assert_eq(copyout(&g.ua, uaddr(a), src, sizeof(src)), 0);
    memset(buf, 0xff, sizeof(buf));
    cr_assert_eq(copyin_struct(&g.ua, buf, 16, uaddr(a), 4), 0);
    cr_assert(buf[3] == 4 && buf[4] == 0 && buf[15] == 0);
    cr_assert_eq(copyin_struct(&g.ua, buf, 16, uaddr(a), 32), 0);
    cr_assert_eq(buf[7], 8);
    cr_assert_eq(copyin_struct(&g.ua, buf, 6, uaddr(a), 32), -E2BIG);
    cr_assert_eq(copyin_struct(&g.ua, buf, 16, uaddr(a), P + 1), -E2BIG);
    cr_assert_eq(copyin_struct(&g.ua, buf, 16, uaddr(a + P - 8), 32), -EFAULT);
    guest_end(&g);
}

Test(mm_copy, words)
{
    struct guest g;
    uint32_t v = 0;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, P, RW, ANON);
    cr_assert_eq(user_store32(&g.ua, uaddr(a + 4), 0xfeed), 0);
    cr_assert_eq(user_load32(&g.ua, uaddr(a + 4), &v), 0);
    cr_assert_eq(v, 0xfeedu);
    cr_assert_eq(user_cmpxchg32(&g.ua, uaddr(a + 4), 1, 2, &v), 0);
    cr_assert_eq(v, 0xfeedu);
    cr_assert_eq(user_cmpxchg32(&g.ua, uaddr(a + 4), 0xfeed, 2, &v), 0);
    cr_assert_eq(user_load32(&g.ua, uaddr(a + 4), &v), 0);
    cr_assert_eq(v, 2u);
    cr_assert_eq(user_load32(&g.ua, uaddr(a + 2), &v), -EINVAL);
    cr_assert_eq(user_load32(&g.ua, uaddr(16), &v), -EFAULT);
    cr_assert_eq(guest_mprotect(&g, a, P, PROT_READ), 0);
    cr_assert_eq(user_store32(&g.ua, uaddr(a), 1), -EFAULT);
    cr_assert_eq(user_load32(&g.ua, uaddr(a + 4), &v), 0);
    guest_end(&g);
}

Test(mm_copy, futex_keys)
{
    struct guest g, c;
    struct mm_futex_key k, l;
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0, P, RW, ANON);
    uint64_t s = guest_map_ok(&g, 0, 2 * P, RW, MAP_SHARED | MAP_ANONYMOUS);
    int64_t t = guest_mremap(&g, s, 0, 2 * P, MREMAP_MAYMOVE, 0);
    cr_assert(t > 0);
    cr_assert_eq(guest_fork(&g, &c), 0);
    cr_assert_eq(mm_futex_key(&g.ua, uaddr(a + 1), true, &k), -EINVAL);
    cr_assert_eq(mm_futex_key(&g.ua, uaddr(16), true, &k), -EFAULT);
    cr_assert_eq(mm_futex_key(&g.ua, uaddr(a), true, &k), 0);
    cr_assert_eq(mm_futex_key(&c.ua, uaddr(a), true, &l), 0);
    cr_assert(k.object != l.object, "private memory of two processes");
    cr_assert_eq(mm_futex_key(&g.ua, uaddr(s + P + 4), true, &k), 0);
    cr_assert_eq(mm_futex_key(&c.ua, uaddr((uint64_t)t + P + 4), true, &l), 0);
    cr_assert(k.object == l.object && k.off == l.off);
    cr_assert_eq(mm_futex_key(&c.ua, uaddr((uint64_t)t + P + 4), false, &l), 0);
    cr_assert(k.object != l.object);
    guest_end(&c);
    guest_end(&g);
}

Test(mm_copy, lists_of_ranges)
{
    struct guest g;
    struct uio u;
    struct uio_seg *segs;
    char buf[32] = "0123456789abcdefghij", back[32] = "";
    guest_new(&g);
    uint64_t a = guest_map_ok(&g, 0x20000000, 4 * P, RW, ANON | MAP_FIXED);
    struct uio_seg iov[3] = {{a + 100, 3}, {a + P, 0}, {a + 2 * P - 2, 10}};
    cr_assert_eq(copyout(&g.ua, uaddr(a), iov, sizeof(iov)), 0);
    cr_assert_eq(uio_init_iovec(&u, &g.ua, uaddr(a), 3, &segs), 0);
    cr_assert_eq(u.left, 13u);
    cr_assert_eq(uio_copy_to(&u, buf, 5), 5);
    uio_revert(&u, 3);
    cr_assert_eq(uio_copy_to(&u, buf + 2, 20), 11);
    cr_assert_eq(u.left, 0u);
    cr_assert_eq(uio_copy_to(&u, buf, 4), 0);
    uio_revert(&u, 13);
    cr_assert_eq(uio_copy_from(&u, back, sizeof(back)), 13);
    cr_assert_arr_eq(back, buf, 13);
    free(segs);
    cr_assert_eq(uio_init_iovec(&u, &g.ua, uaddr(a), LIMIT_IOV + 1, &segs), -EINVAL);
    cr_assert_eq(uio_init_iovec(&u, &g.ua, uaddr(8), 2, &segs), -EFAULT);
    iov[1].size = UINT64_MAX;
    cr_assert_eq(copyout(&g.ua, uaddr(a), iov, sizeof(iov)), 0);
    cr_assert_eq(uio_init_iovec(&u, &g.ua, uaddr(a), 3, &segs), -EINVAL);
    iov[1].size = INT64_MAX;
    cr_assert_eq(copyout(&g.ua, uaddr(a), iov, sizeof(iov)), 0);
    cr_assert_eq(uio_init_iovec(&u, &g.ua, uaddr(a), 3, &segs), -EFAULT);
    cr_assert_eq(uio_init_user(&u, &g.ua, uaddr(a), UINT64_MAX), 0);
    cr_assert_eq(u.left, (uint64_t)LIMIT_RW_SIZE);
    cr_assert_eq(uio_zero(&u, 5 * P), (int64_t)(4 * P), "up to the end of what is there");
    cr_assert_eq(uio_zero(&u, P), -EFAULT);
    guest_end(&g);
}

static int64_t read_file(void *arg, const struct iovec *iov, int count, uint64_t done)
{
    return preadv(*(int *)arg, iov, count, (off_t)done);
}

static int64_t write_file(void *arg, const struct iovec *iov, int count, uint64_t done)
{
    return pwritev(*(int *)arg, iov, count, (off_t)done);
}

Test(mm_copy, host_files_straight_into_guest_memory)
{
    struct guest g;
    struct fake_file f;
    struct uio u;
    guest_new(&g);
    fake_file_new(&f, 40 * P);
    uint64_t a = guest_map_ok(&g, 0, 64 * P, RW, ANON);
    for (uint64_t i = 0; i < 64; i += 2)
        cr_assert_eq(guest_mprotect(&g, a + i * P, P, PROT_READ), 0);
    for (uint64_t i = 0; i < 64; i += 2)
        cr_assert_eq(guest_mprotect(&g, a + i * P, P, RW), 0);
    cr_assert_eq(uio_init_user(&u, &g.ua, uaddr(a + 10), 64 * P - 10), 0);
    cr_assert_eq(uio_host_io(&u, true, UINT64_MAX, read_file, &f.fd), (int64_t)(40 * P));
    cr_assert_eq(guest_read(&g, a + 9), 0);
    cr_assert_eq(guest_read(&g, a + 10), 1);
    cr_assert_eq(guest_read(&g, a + 39 * P + 10), 40);
    cr_assert_eq(guest_read(&g, a + 40 * P + 10), 0);
    /* from a mapping of the file itself, and into what is not there */
    int64_t m = guest_mmap(&g, 0, 40 * P, PROT_READ, MAP_SHARED, &f.m, 0);
    cr_assert(m > 0);
    cr_assert_eq(uio_init_user(&u, &g.ua, uaddr((uint64_t)m + 5 * P), 3 * P), 0);
    cr_assert_eq(uio_host_io(&u, false, 2 * P, write_file, &f.fd), (int64_t)(2 * P));
    cr_assert_eq(fake_file_byte(&f, P), 7);
    cr_assert_eq(uio_host_io(&u, true, P, read_file, &f.fd), -EFAULT, "read-only memory");
    cr_assert_eq(guest_munmap(&g, a + 2 * P, P), 0);
    cr_assert_eq(uio_init_user(&u, &g.ua, uaddr(a), 4 * P), 0);
    cr_assert_eq(uio_host_io(&u, true, UINT64_MAX, read_file, &f.fd), (int64_t)(2 * P));
    guest_end(&g);
    fake_file_end(&f);
}

/* ---- from several threads ---- */

struct storm {
    struct guest *g;
    uint64_t addr;
    _Atomic bool stop;
    _Atomic long copies;
};

static void *copy_storm(void *arg)
{
    struct storm *s = arg;
    uint64_t v[512], w[512];
    memset(v, 0x5a, sizeof(v));
    while (!atomic_load(&s->stop)) {
        struct uaccess foreign = {s->g->mm, NULL};
        (void)copyout_partial(&foreign, uaddr(s->addr + 2048), v, sizeof(v));
        size_t n = copyin_partial(&foreign, w, uaddr(s->addr + 2048), sizeof(w));
        for (size_t i = 0; i < n / 8; i++)
            cr_assert(w[i] == v[i] || w[i] == 0);
        atomic_fetch_add(&s->copies, 1);
    }
    return NULL;
}

Test(mm_copy, while_the_memory_changes)
{
    struct guest g, c;
    struct storm s = {.g = &g};
    pthread_t t[3];
    guest_new(&g);
    s.addr = guest_map_ok(&g, 0x30000000, 4 * P, RW, ANON | MAP_FIXED);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        cr_assert_eq(pthread_create(&t[i], NULL, copy_storm, &s), 0);
    for (int i = 0; i < 150 || atomic_load(&s.copies) < 50; i++) {
        cr_assert_eq(guest_fork(&g, &c), 0);
        cr_assert_eq(guest_munmap(&g, s.addr + P, P), 0);
        guest_map_ok(&g, s.addr + P, P, RW, ANON | MAP_FIXED);
        cr_assert_eq(guest_mprotect(&g, s.addr, 4 * P, PROT_READ), 0);
        guest_end(&c);
        cr_assert_eq(guest_mprotect(&g, s.addr, 4 * P, RW), 0);
        cr_assert(
            guest_mremap(&g, s.addr, 4 * P, 4 * P, MREMAP_MAYMOVE | MREMAP_FIXED, 0x38000000) > 0);
        cr_assert(
            guest_mremap(&g, 0x38000000, 4 * P, 4 * P, MREMAP_MAYMOVE | MREMAP_FIXED, s.addr) > 0);
    }
    atomic_store(&s.stop, true);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        pthread_join(t[i], NULL);
    guest_end(&g);
}

static void *cut_storm(void *arg)
{
    struct fake_file *f = arg;
    for (int i = 0; i < 200; i++)
        mappable_invalidate(&f->m, (uint64_t)(i % 4) * P, i % 3 ? P : UINT64_MAX);
    return NULL;
}

Test(mm_copy, invalidation_against_fork_and_unmap)
{
    struct guest g, c;
    struct fake_file f;
    pthread_t t;
    guest_new(&g);
    fake_file_new(&f, 8 * P);
    cr_assert_eq(pthread_create(&t, NULL, cut_storm, &f), 0);
    for (int i = 0; i < 200; i++) {
        int64_t m = guest_mmap(&g, 0, 8 * P, PROT_READ, MAP_SHARED, &f.m, 0);
        cr_assert(m > 0);
        unsigned char v;
        cr_assert_eq(copyin(&g.ua, &v, uaddr((uint64_t)m + 3 * P), 1), 0);
        cr_assert_eq(v, 4);
        cr_assert_eq(guest_fork(&g, &c), 0);
        cr_assert_eq(guest_munmap(&g, (uint64_t)m + P, 2 * P), 0);
        cr_assert_eq(guest_munmap(&g, (uint64_t)m, 8 * P), 0);
        cr_assert_eq(copyin(&c.ua, &v, uaddr((uint64_t)m), 1), 0);
        guest_end(&c);
    }
    pthread_join(t, NULL);
    guest_end(&g);
    fake_file_end(&f);
}
