/* Bounded reader and writer: what fits round-trips, what does not fails for good. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/rbuf.h"
#include "base/wbuf.h"

Test(buf, round_trip)
{
    uint8_t bytes[64];
    struct wbuf w;
    struct rbuf r;
    size_t len;

    wbuf_init(&w, bytes, sizeof(bytes));
    wbuf_u8(&w, 0x11);
    wbuf_align(&w, 4);
    wbuf_u16(&w, 0x2233);
    wbuf_u16be(&w, 0x4455);
    wbuf_u32(&w, 0x66778899);
    wbuf_u32be(&w, 0xaabbccdd);
    wbuf_u64(&w, 0x0102030405060708);
    wbuf_printf(&w, "n=%d", 42);
    wbuf_zero(&w, 1);
    cr_assert_eq(wbuf_status(&w), 0);
    cr_assert_eq(w.len, 29);

    rbuf_init(&r, bytes, w.len);
    cr_assert_eq(rbuf_u8(&r), 0x11);
    rbuf_align(&r, 4);
    cr_assert_eq(rbuf_u16(&r), 0x2233);
    cr_assert_eq(rbuf_u16be(&r), 0x4455);
    cr_assert_eq(rbuf_u32(&r), 0x66778899);
    cr_assert_eq(rbuf_u32be(&r), 0xaabbccdd);
    cr_assert_eq(rbuf_u64(&r), 0x0102030405060708);
    cr_assert_str_eq(rbuf_cstr(&r, 16, &len), "n=42");
    cr_assert_eq(len, 4);
    cr_assert(rbuf_done(&r));
}

Test(rbuf, failure_sticks)
{
    static const uint8_t bytes[4] = {1, 2, 3, 4};
    uint8_t dst[8];
    struct rbuf r;

    rbuf_init(&r, bytes, sizeof(bytes));
    cr_assert_eq(rbuf_u16(&r), 0x0201);
    memset(dst, 0xff, sizeof(dst));
    rbuf_bytes(&r, dst, sizeof(dst));
    cr_assert_eq(dst[0], 0, "no stale bytes");
    cr_assert(!rbuf_ok(&r));
    cr_assert_eq(rbuf_u8(&r), 0, "still failed, though a byte is left");
    cr_assert_eq(rbuf_left(&r), 0);
    cr_assert_null(rbuf_take(&r, 0));
}

Test(rbuf, huge_sizes_do_not_wrap)
{
    static const uint8_t bytes[4];
    struct rbuf r;

    rbuf_init(&r, bytes, sizeof(bytes));
    rbuf_skip(&r, 2);
    cr_assert_null(rbuf_take(&r, SIZE_MAX));
    rbuf_init(&r, bytes, sizeof(bytes));
    rbuf_seek(&r, 5);
    cr_assert(!rbuf_ok(&r));
}

Test(rbuf, string_needs_its_nul_in_bounds)
{
    struct rbuf r;

    rbuf_init(&r, "abcdef", 6);
    cr_assert_null(rbuf_cstr(&r, 100, NULL));
    rbuf_init(&r, "abcdef", 7);
    cr_assert_null(rbuf_cstr(&r, 6, NULL));
    rbuf_init(&r, "abcdef", 7);
    cr_assert_str_eq(rbuf_cstr(&r, 7, NULL), "abcdef");
    cr_assert_null(rbuf_cstr(&r, 7, NULL), "nothing is left");
}

Test(rbuf, nested_reader_cannot_leave_its_part)
{
    static const uint8_t bytes[6] = {1, 2, 3, 4, 5, 6};
    struct rbuf r, sub;

    rbuf_init(&r, bytes, sizeof(bytes));
    rbuf_sub(&r, 3, &sub);
    rbuf_skip(&sub, 3);
    cr_assert(rbuf_done(&sub));
    (void)rbuf_u8(&sub);
    cr_assert(!rbuf_ok(&sub));
    cr_assert(rbuf_ok(&r));
    rbuf_sub(&r, 4, &sub);
    cr_assert(!rbuf_ok(&sub) && !rbuf_ok(&r));
}

Test(rbuf, empty)
{
    struct rbuf r;

    rbuf_init(&r, NULL, 0);
    cr_assert(rbuf_done(&r));
    cr_assert_not_null(rbuf_take(&r, 0));
    cr_assert_null(rbuf_cstr(&r, 10, NULL));
}

Test(wbuf, overrun_sticks_and_writes_nothing)
{
    uint8_t bytes[8];
    struct wbuf w;

    memset(bytes, 0xee, sizeof(bytes));
    wbuf_init(&w, bytes, 6);
    wbuf_u32(&w, 1);
    wbuf_u32(&w, 2);
    wbuf_u8(&w, 3);
    cr_assert_eq(w.len, 4);
    cr_assert_eq(wbuf_status(&w), -ENOSPC);
    cr_assert_eq(bytes[4], 0xee);
    cr_assert_eq(wbuf_left(&w), 0);
}

Test(wbuf, printf_fits_whole_or_fails)
{
    char bytes[6];
    struct wbuf w;

    wbuf_init(&w, bytes, sizeof(bytes));
    wbuf_printf(&w, "12345");
    cr_assert_eq(wbuf_status(&w), 0);
    wbuf_init(&w, bytes, sizeof(bytes));
    wbuf_printf(&w, "1234567");
    cr_assert_eq(wbuf_status(&w), -ENOSPC);
    cr_assert_eq(w.len, 0);
}

Test(wbuf, patch)
{
    uint8_t bytes[8];
    struct wbuf w;

    wbuf_init(&w, bytes, sizeof(bytes));
    wbuf_u32(&w, 0);
    wbuf_u32(&w, 7);
    wbuf_patch_u32(&w, 0, (uint32_t)w.len);
    cr_assert_eq(bytes[0], 8);
    wbuf_patch_u16(&w, 6, 0x0102);
    cr_assert_eq(bytes[7], 1);
}

Test(wbuf, patch_outside_aborts, .signal = SIGABRT)
{
    uint8_t bytes[8];
    struct wbuf w;

    wbuf_init(&w, bytes, sizeof(bytes));
    wbuf_u16(&w, 0);
    wbuf_patch_u32(&w, 0, 1);
}
