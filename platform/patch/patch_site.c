/* Shapes of system call sites, and the code that takes their place.
 *
 * Seven bytes become a jump through a table. Which ones is chosen so that nothing else can go
 * wrong:
 * - a call and the instructions behind it, known for certain since the call is executed there. They
 *   only move or compare registers, and run where they are moved to. Who jumps to one of them finds
 *   a byte of the jump that traps (the table's address and an odd encoding see to that), and so
 * does a thread that was in the call while the site was patched;
 * - or mov $nr,%eax and the call. The five bytes before a call may be something else, so the number
 *   must be the one it was called with and the byte before no prefix. Who jumps to the call finds a
 *   byte that traps.
 *
 * A site's code must touch neither the guest's stack nor its flags, and only rcx and r11, which
 * system calls do not keep. It finds the area of its thread in a table by a hash of the FS base,
 * and looks whether the area is meant for that base; if not, it makes the call that traps. */
#include <string.h>

#include "platform/patch/patch.h"

#define PATCH_TRAPS_AT(off) ((off) == 2 || (off) == 5 || (off) == 6)
/* Numbers above are not those of calls. */
#define PATCH_NR_MAX 1024u

_Static_assert((PATCH_TABLE & 0xffff) == 0 && (PATCH_TABLE >> 16 & 0xff) == 0x06 &&
                   PATCH_TABLE >> 24 == 0x61,
               "these bytes are undefined instructions");
_Static_assert(PATCH_SITES_MAX *PATCH_SLOT <= PATCH_CODE_SIZE &&
                   (PATCH_SITES_MAX + 1) * 8 <= PATCH_TABLE_SIZE,
               "room for all sites");
_Static_assert(PATCH_NEGFS < 128 && PATCH_AFTER < 128, "offsets of one byte");

static bool site_is_call(const uint8_t *p)
{
    return p[0] == 0x0f && p[1] == 0x05;
}

/* Both operands are registers, none of them the stack pointer. */
static bool site_is_plain_modrm(uint8_t rex, uint8_t modrm)
{
    const unsigned reg = (modrm >> 3 & 7u) | (rex & 4u) << 1, rm = (modrm & 7u) | (rex & 1u) << 3;

    return modrm >> 6 == 3 && reg != 4 && rm != 4;
}

/* Length of an instruction that moves or compares registers and constants, or 0. */
static size_t site_plain(const uint8_t *p, size_t size)
{
    const uint8_t rex = size > 0 && (p[0] & 0xf0) == 0x40 ? p[0] : 0;
    const size_t n = rex != 0;

    if (size < n + 2)
        return 0;
    switch (p[n]) {
    case 0x3d: /* cmp $imm32, %eax or %rax */
        return size >= n + 5 ? n + 5 : 0;
    case 0x83: /* cmp $imm8, register */
        return size >= n + 3 && p[n + 1] >> 3 == 0x1f ? n + 3 : 0;
    case 0x85: /* test */
    case 0x89: /* mov */
    case 0x8b:
        return site_is_plain_modrm(rex, p[n + 1]) ? n + 2 : 0;
    default:
        return 0;
    }
}

/* The call, and what follows. */
static bool site_behind(const uint8_t *p, size_t size, struct patch_shape *out)
{
    *out = (struct patch_shape){.size = 2, .call_end = 2};
    while (out->size < PATCH_SIZE) {
        const size_t n = site_plain(p + out->size, size - out->size);
        if (n == 0 || !PATCH_TRAPS_AT(out->size) || out->move_count == PATCH_MOVES_MAX)
            return false;
        out->moves[out->move_count++] = out->size;
        out->size += (unsigned)n;
    }
    return true;
}

static bool site_is_prefix(uint8_t b)
{
    return (b & 0xf0) == 0x40 || b == 0x66 || b == 0x67 || b == 0xf0 || b == 0xf2 || b == 0xf3 ||
           b == 0x2e || b == 0x36 || b == 0x3e || b == 0x26 || b == 0x64 || b == 0x65;
}

bool patch_recognise(const uint8_t *code, size_t size, size_t off, uint64_t nr, size_t *out_start,
                     struct patch_shape *out)
{
    uint32_t imm;

    if (off > size || size - off < 2 || !site_is_call(code + off))
        return false;
    if (size - off >= PATCH_SIZE && site_behind(code + off, size - off, out)) {
        *out_start = off;
        return true;
    }
    if (off < 6 || code[off - 5] != 0xb8 || site_is_prefix(code[off - 6]))
        return false;
    memcpy(&imm, code + off - 4, sizeof(imm));
    if (imm != nr || imm >= PATCH_NR_MAX)
        return false;
    *out =
        (struct patch_shape){.loads = true, .nr = imm, .size = PATCH_SIZE, .call_end = PATCH_SIZE};
    *out_start = off - 5;
    return true;
}

void patch_jump(uint32_t index, uint8_t out[PATCH_SIZE])
{
    const uint32_t entry = PATCH_TABLE + 8 * index;

    /* jmp *entry. The scale of no index: 3, for in (e5) where the second instruction was. */
    out[0] = 0xff;
    out[1] = 0x24;
    out[2] = 0xe5;
    memcpy(out + 3, &entry, sizeof(entry));
}

/* ---- the code of a site ---- */

struct site_out {
    uint8_t *to;
    unsigned size;
};

static void site_put(struct site_out *o, const void *bytes, unsigned size)
{
    memcpy(o->to + o->size, bytes, size);
    o->size += size;
}

#define SITE_PUT(o, ...)                                                                           \
    do {                                                                                           \
        static const uint8_t bytes_[] = {__VA_ARGS__};                                             \
        site_put((o), bytes_, sizeof(bytes_));                                                     \
    } while (0)

static void site_put8(struct site_out *o, unsigned v)
{
    o->to[o->size++] = (uint8_t)v;
}

static void site_put32(struct site_out *o, uint32_t v)
{
    site_put(o, &v, sizeof(v));
}

static void site_put64(struct site_out *o, uint64_t v)
{
    site_put(o, &v, sizeof(v));
}

/* r11: the area in the table. */
static void site_put_find(struct site_out *o, uint64_t areas)
{
    SITE_PUT(o, 0xf3, 0x48, 0x0f, 0xae, 0xc1);       /* rdfsbase %rcx */
    SITE_PUT(o, 0x41, 0xbb, 0, 0, 0, 0);             /* mov $0, %r11d */
    SITE_PUT(o, 0xf2, 0x4c, 0x0f, 0x38, 0xf1, 0xd9); /* crc32q %rcx, %r11 */
    SITE_PUT(o, 0x45, 0x0f, 0xb6, 0xdb);             /* movzbl %r11b, %r11d */
    SITE_PUT(o, 0x48, 0xb9);                         /* movabs $areas, %rcx */
    site_put64(o, areas);
    SITE_PUT(o, 0x4e, 0x8b, 0x1c, 0xd9); /* mov (%rcx,%r11,8), %r11 */
}

/* Where it goes is aligned: a program may have alignment checks on. */
static void site_put_jump(struct site_out *o, uint64_t to)
{
    SITE_PUT(o, 0xff, 0x25); /* jmp *pad(%rip) */
    const unsigned pad = ALIGN_UP(o->size + 4, 8u) - (o->size + 4);
    site_put32(o, pad);
    for (unsigned i = 0; i < pad; i++)
        site_put8(o, 0xcc);
    site_put64(o, to);
}

void patch_emit(const struct patch_shape *shape, uint64_t start, const uint8_t *text,
                uint64_t areas, uint8_t *out, struct patch_code *code)
{
    struct site_out o = {.to = out, .size = 0};

    if (shape->loads) {
        SITE_PUT(&o, 0xb8); /* mov $nr, %eax */
        site_put32(&o, shape->nr);
    }
    site_put_find(&o, areas);
    SITE_PUT(&o, 0x4d, 0x8b, 0x5b, PATCH_NEGFS); /* mov PATCH_NEGFS(%r11), %r11 */
    SITE_PUT(&o, 0xf3, 0x48, 0x0f, 0xae, 0xc1);  /* rdfsbase %rcx */
    SITE_PUT(&o, 0x4a, 0x8d, 0x0c, 0x19);        /* lea (%rcx,%r11), %rcx */
    SITE_PUT(&o, 0xe3, 4);                       /* jrcxz over the next two */
    SITE_PUT(&o, 0x0f, 0x05);                    /* syscall */
    code->trap_end = o.size;
    SITE_PUT(&o, 0xeb); /* jmp answered */
    const unsigned jump = o.size;
    site_put8(&o, 0);
    site_put_find(&o, areas);
    SITE_PUT(&o, 0x48, 0x8d, 0x0d); /* lea answered(%rip), %rcx */
    site_put32(&o, 4 + 7);
    SITE_PUT(&o, 0x49, 0x89, 0x4b, PATCH_AFTER); /* mov %rcx, PATCH_AFTER(%r11) */
    SITE_PUT(&o, 0xff, 0x24, 0x25);              /* jmp *(table), the platform's code */
    site_put32(&o, PATCH_TABLE);
    code->answered = o.size;
    out[jump] = (uint8_t)(o.size - jump - 1);
    SITE_PUT(&o, 0x48, 0xb9); /* movabs $call_end, %rcx */
    site_put64(&o, start + shape->call_end);
    code->after = o.size;
    site_put(&o, text + shape->call_end, shape->size - shape->call_end);
    site_put_jump(&o, start + shape->size);
    code->size = o.size;
}

__attribute__((target("sse4.2"))) uint32_t patch_area_hash(uint64_t fs_base)
{
    return (uint32_t)__builtin_ia32_crc32di(0, fs_base) % PATCH_AREAS_COUNT;
}

bool patch_supported(void)
{
    return __builtin_cpu_supports("sse4.2");
}
