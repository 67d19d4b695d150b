/* What the decoder says of system call sites, and the code that takes their place.
 *
 * Seven bytes become a jump through a table. Which ones is chosen so that nothing else can go
 * wrong:
 * - a call and the instructions behind it, known for certain since the call is executed there. They
 *   only move or compute in registers, and run where they are moved to. Who jumps to one of them
 *   finds a byte of the jump that traps (the table's address and an odd encoding see to that), and
 *   so does a thread that was in the call while the site was patched;
 * - or mov $nr,%eax and the call. Who jumps to the call finds a byte that traps;
 * - or mov $nr,%rax, seven bytes itself, and the call, which stays where it is.
 * The number must be the one that the call was made with.
 *
 * A site's code must touch neither the guest's stack nor its flags, and only rcx and r11, which
 * system calls do not keep. It finds the area of its thread in a table by a hash of the FS base,
 * and looks whether the area is meant for that base; if not, it makes the call that traps. */
#include <string.h>

#include "platform/patch/patch.h"

_Static_assert((PATCH_TABLE & 0xffff) == 0 && (PATCH_TABLE >> 16 & 0xff) == 0x06 &&
                   PATCH_TABLE >> 24 == 0x61,
               "these bytes are undefined instructions");
_Static_assert(PATCH_SITES_MAX *PATCH_SLOT <= PATCH_CODE_SIZE &&
                   (PATCH_SITES_MAX + 1) * 8 <= PATCH_TABLE_SIZE,
               "room for all sites");
/* The code of a site, without what was moved there and the address at its end. */
#define PATCH_FRAME 132u
_Static_assert(PATCH_FRAME + PATCH_SHAPE_MAX - PATCH_CALL_SIZE + sizeof(uint64_t) <= PATCH_SLOT,
               "room for the longest site");
_Static_assert(PATCH_NEGFS < 128 && PATCH_AFTER < 128, "offsets of one byte");

static bool site_is_call(const uint8_t *p)
{
    return p[0] == 0x0f && p[1] == 0x05;
}

/* mov $nr of either length in front of the call. */
static bool site_loads(const uint8_t *code, const struct patch_answer *a, struct patch_shape *out)
{
    static const uint8_t to_eax[] = {0xb8}, to_rax[] = {0x48, 0xc7, 0xc0};
    const bool is_short = a->back == sizeof(to_eax) + sizeof(out->nr),
               is_long = a->back == sizeof(to_rax) + sizeof(out->nr);
    const size_t opcode = is_short ? sizeof(to_eax) : sizeof(to_rax);

    if ((!is_short && !is_long) || a->move_count != 0 || a->size != a->call_end ||
        memcmp(code, is_short ? to_eax : to_rax, opcode) != 0)
        return false;
    memcpy(&out->nr, code + opcode, sizeof(out->nr));
    return true;
}

/* Instructions begin where a byte traps, and the last of them is the first that ends behind the
 * bytes replaced. */
static bool site_moves(const struct patch_answer *a, struct patch_shape *out)
{
    unsigned at = PATCH_CALL_SIZE;

    if (a->back != 0 || a->move_count == 0 || a->move_count > PATCH_MOVES_MAX)
        return false;
    for (unsigned i = 0; i < a->move_count; i++) {
        const unsigned end = i + 1 < a->move_count ? a->moves[i + 1] : a->size;
        if (a->moves[i] != at || at >= PATCH_SIZE || !PATCH_TRAPS_AT(at) || end <= at ||
            end - at > PATCH_INSN_MAX)
            return false;
        out->moves[i] = at;
        at = end;
    }
    out->move_count = a->move_count;
    return true;
}

bool patch_check(const uint8_t *code, size_t size, size_t off, const struct patch_answer *a,
                 struct patch_shape *out)
{
    struct patch_shape shape = {.loads = a->loads != 0, .size = a->size, .call_end = a->call_end};

    if (a->found != 1 || a->loads > 1 || off > size || a->back > off ||
        a->size > size - (off - a->back) || a->size < PATCH_SIZE || a->size > PATCH_SHAPE_MAX ||
        a->call_end != a->back + PATCH_CALL_SIZE || a->call_end > a->size ||
        !site_is_call(code + off))
        return false;
    if (!(shape.loads ? site_loads(code + off - a->back, a, &shape) : site_moves(a, &shape)))
        return false;
    *out = shape;
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
