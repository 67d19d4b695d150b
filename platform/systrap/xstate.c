/* Extended state: in the stub thread's registers, or in its area. */
#include <stdlib.h>
#include <string.h>

#include "platform/systrap/systrap_priv.h"

/* More offsets in the XSAVE area: Intel SDM vol. 1, 13.4. */
#define XSAVE_MXCSR 24
#define XSAVE_MXCSR_MASK 28
#define XSTATE_PKRU 9
/* CPUID leaf 7, ecx. */
#define XSTATE_OSPKE 16u

static uint64_t xstate_features(void)
{
    uint32_t eax, edx;

    __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return (uint64_t)edx << 32 | eax;
}

static uint32_t xstate_mxcsr_mask(void)
{
    uint8_t image[512] __attribute__((aligned(16)));
    uint32_t mask;

    memset(image, 0, sizeof(image));
    __asm__ volatile("fxsave64 %0" : "=m"(image));
    memcpy(&mask, image + XSAVE_MXCSR_MASK, sizeof(mask));
    return mask != 0 ? mask : 0xffbf;
}

/* Where it can be read, saved there first if need be; NULL when the stub is gone. */
static const char *xstate_locate(struct st_ctx *c)
{
    if (c->dead)
        return NULL;
    if (c->xstate == 0) {
        bool slept;
        c->shared->command = ST_COMMAND_SAVE;
        if (!st_hand_over(c, &slept) || c->shared->kind != ST_KIND_SAVED) {
            st_ctx_die(c);
            return NULL;
        }
        return (char *)c->shared + ST_XSAVE;
    }
    return (char *)c->shared + c->xstate;
}

int64_t st_xstate_get(struct plat_ctx *base, void *buf, size_t size)
{
    struct st_ctx *c = st_ctx(base);
    const size_t full = base->plat->xstate_size;
    const uint64_t features = xstate_features();
    char *to = buf;

    if (c->dead || atomic_load(&c->as->gone))
        return -ESRCH;
    if (size < full)
        return -ENOSPC;
    const char *from = xstate_locate(c);
    if (from == NULL)
        return -ESRCH;
    memcpy(to, from, full);
    memset(to + STUB_XSAVE_SW_RESERVED, 0, STUB_XSAVE_HEADER - STUB_XSAVE_SW_RESERVED);
    memcpy(to + STUB_XSAVE_SW_RESERVED, &features, sizeof(features));
    return (int64_t)full;
}

/* What XRSTOR would take. */
static bool xstate_is_sane(const char *area)
{
    uint64_t header[8];
    uint32_t mxcsr;

    memcpy(&mxcsr, area + XSAVE_MXCSR, sizeof(mxcsr));
    memcpy(header, area + STUB_XSAVE_HEADER, sizeof(header));
    if ((header[0] & ~xstate_features()) != 0 || (mxcsr & ~xstate_mxcsr_mask()) != 0)
        return false;
    for (size_t i = 1; i < ARRAY_SIZE(header); i++)
        if (header[i] != 0)
            return false;
    return true;
}

int st_xstate_set(struct plat_ctx *base, const void *buf, size_t size)
{
    struct st_ctx *c = st_ctx(base);
    const size_t full = base->plat->xstate_size;
    char *area;

    if (c->dead || atomic_load(&c->as->gone))
        return -ESRCH;
    int r = stub_xstate_whole(buf, size, full, &area);
    if (r != 0)
        return r;
    bool sane = xstate_is_sane(area);
    if (sane) {
        memcpy((char *)c->shared + ST_XSAVE, area, full);
        c->xstate = ST_XSAVE;
    }
    free(area);
    return sane ? 0 : -EINVAL;
}

int st_xstate_copy(struct st_ctx *from, struct st_ctx *to)
{
    const char *area = xstate_locate(from);

    if (area == NULL)
        return -ESRCH;
    memcpy((char *)to->shared + ST_XSAVE, area, from->base.plat->xstate_size);
    to->xstate = ST_XSAVE;
    return 0;
}

uint32_t st_xstate_keys(void)
{
    uint32_t eax = 7, ebx, ecx = 0, edx;

    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    if ((ecx & XSTATE_OSPKE) == 0 || (xstate_features() >> XSTATE_PKRU & 1) == 0)
        return 0;
    eax = 0xd;
    ecx = XSTATE_PKRU;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return ebx;
}

/* As programs start on Linux: no key but the first gives access. */
static void xstate_reset_keys(char *area, uint32_t off)
{
    const uint32_t pkru = 0x55555554;
    const uint64_t header = UINT64_C(1) << XSTATE_PKRU;

    memcpy(area + off, &pkru, sizeof(pkru));
    memcpy(area + STUB_XSAVE_HEADER, &header, sizeof(header));
}

void st_xstate_reset(struct st_ctx *c)
{
    const uint16_t fcw = 0x37f;
    const uint32_t mxcsr = 0x1f80;
    char *area = (char *)c->shared + ST_XSAVE;

    memset(area, 0, STUB_XSAVE_LEGACY_SIZE);
    memcpy(area, &fcw, sizeof(fcw));
    memcpy(area + XSAVE_MXCSR, &mxcsr, sizeof(mxcsr));
    if (st_plat(c->base.plat)->keys != 0)
        xstate_reset_keys(area, st_plat(c->base.plat)->keys);
    c->xstate = ST_XSAVE;
}
