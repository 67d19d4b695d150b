#include "runsc/unwind.h"

#include <string.h>

enum { REG_BP = 6, REG_SP = 7, REG_IP = 16 };
#define ENC_OMIT 0xffu
#define ENC_SDATA4 0x0bu
#define ENC_UDATA4 0x03u
#define ENC_PCREL 0x10u
#define ENC_DATAREL 0x30u
#define REMEMBER_MAX 8

/* A piece of a table; once it was left, everything read is 0. */
struct cursor {
    const uint8_t *p, *end;
    uint64_t at; /* address of p */
    bool bad;
};

static void cursor_read(struct cursor *c, void *out, size_t size)
{
    memset(out, 0, size);
    if (c->bad || (size_t)(c->end - c->p) < size) {
        c->bad = true;
        return;
    }
    memcpy(out, c->p, size);
    c->p += size;
    c->at += size;
}

static uint8_t cursor_u8(struct cursor *c)
{
    uint8_t v;

    cursor_read(c, &v, sizeof(v));
    return v;
}

static uint32_t cursor_u32(struct cursor *c)
{
    uint32_t v;

    cursor_read(c, &v, sizeof(v));
    return v;
}

static void cursor_skip(struct cursor *c, uint64_t size)
{
    if (c->bad || size > (uint64_t)(c->end - c->p)) {
        c->bad = true;
        return;
    }
    c->p += size;
    c->at += size;
}

static uint64_t cursor_leb(struct cursor *c, bool is_signed)
{
    uint64_t v = 0;
    unsigned shift = 0;
    uint8_t b;

    do {
        b = cursor_u8(c);
        if (shift < 64)
            v |= (uint64_t)(b & 0x7f) << shift;
        shift += 7;
    } while ((b & 0x80) != 0 && !c->bad);
    if (is_signed && shift < 64 && (b & 0x40) != 0)
        v |= ~UINT64_C(0) << shift;
    return v;
}

/* Encoded pointers of the kinds that compilers write for position-independent code. */
static uint64_t cursor_pointer(struct cursor *c, uint8_t enc)
{
    const uint64_t at = c->at;
    uint64_t v = 0;

    if (enc == ENC_OMIT)
        return 0;
    switch (enc & 0x0f) {
    case ENC_SDATA4:
        v = (uint64_t)(int64_t)(int32_t)cursor_u32(c);
        break;
    case ENC_UDATA4:
        v = cursor_u32(c);
        break;
    default:
        cursor_read(c, &v, sizeof(v));
        break;
    }
    return (enc & 0x70) == ENC_PCREL ? at + v : v;
}

static struct cursor cursor_at(const struct symbols_section *s, uint64_t addr)
{
    struct cursor c = {.p = s->data, .end = s->data + s->size, .at = s->addr};

    if (addr < s->addr)
        c.bad = true;
    else
        cursor_skip(&c, addr - s->addr);
    return c;
}

/* ---- the rules of one place ---- */

struct rule {
    bool saved; /* at cfa + off */
    int64_t off;
};

struct rules {
    uint64_t cfa_reg;
    int64_t cfa_off;
    struct rule bp, ip;
    bool no_caller;
    bool unknown; /* an expression: not followed */
};

struct cie {
    uint64_t code_align;
    int64_t data_align;
    uint8_t enc;
    bool augmented;
    struct cursor insns;
};

static bool cie_read(const struct unwind *u, uint64_t addr, struct cie *out)
{
    struct cursor c = cursor_at(&u->frame, addr);
    const uint32_t size = cursor_u32(&c);
    char aug[8] = "";

    if (c.bad || size > (size_t)(c.end - c.p))
        return false;
    c.end = c.p + size;
    if (cursor_u32(&c) != 0)
        return false;
    const uint8_t version = cursor_u8(&c);
    for (size_t i = 0; i < sizeof(aug) - 1 && (aug[i] = (char)cursor_u8(&c)) != '\0'; i++)
        ;
    out->code_align = cursor_leb(&c, false);
    out->data_align = (int64_t)cursor_leb(&c, true);
    if (version == 1)
        (void)cursor_u8(&c);
    else
        (void)cursor_leb(&c, false);
    out->enc = 0;
    out->augmented = aug[0] == 'z';
    const uint64_t aug_size = out->augmented ? cursor_leb(&c, false) : 0;
    struct cursor insns = c;
    cursor_skip(&insns, aug_size);
    for (size_t i = 1; out->augmented && aug[i] != '\0'; i++) {
        if (aug[i] == 'R')
            out->enc = cursor_u8(&c);
        else if (aug[i] == 'L')
            (void)cursor_u8(&c);
        else if (aug[i] == 'P')
            (void)cursor_pointer(&c, cursor_u8(&c));
    }
    out->insns = insns;
    return !c.bad && !insns.bad;
}

static struct rule *rule_of(struct rules *r, uint64_t reg)
{
    return reg == REG_BP ? &r->bp : reg == REG_IP ? &r->ip : NULL;
}

static void rule_set(struct rules *r, uint64_t reg, bool saved, int64_t off)
{
    struct rule *rule = rule_of(r, reg);

    if (rule != NULL)
        *rule = (struct rule){.saved = saved, .off = off};
}

static void rule_restore(struct rules *r, const struct rules *first, uint64_t reg)
{
    if (reg == REG_BP)
        r->bp = first->bp;
    else if (reg == REG_IP)
        r->ip = first->ip;
}

/* Instructions whose number is all of their first byte, but those that move on or remember. */
static void rules_extended(struct rules *r, const struct rules *first, const struct cie *cie,
                           uint8_t op, struct cursor *c)
{
    uint64_t reg;

    switch (op) {
    case 0x00: /* nop */
        break;
    case 0x05: /* offset_extended */
    case 0x11: /* ... of a signed number */
        reg = cursor_leb(c, false);
        rule_set(r, reg, true, (int64_t)cursor_leb(c, op == 0x11) * cie->data_align);
        break;
    case 0x06: /* restore_extended */
        rule_restore(r, first, cursor_leb(c, false));
        break;
    case 0x07: /* undefined: of the return address, at the first function of a thread */
        r->no_caller |= cursor_leb(c, false) == REG_IP;
        break;
    case 0x08: /* same_value */
        rule_set(r, cursor_leb(c, false), false, 0);
        break;
    case 0x0c: /* def_cfa */
    case 0x12: /* ... of a signed number */
        r->cfa_reg = cursor_leb(c, false);
        r->cfa_off = (int64_t)cursor_leb(c, op == 0x12) * (op == 0x12 ? cie->data_align : 1);
        break;
    case 0x0d: /* def_cfa_register */
        r->cfa_reg = cursor_leb(c, false);
        break;
    case 0x0e: /* def_cfa_offset */
        r->cfa_off = (int64_t)cursor_leb(c, false);
        break;
    case 0x13: /* ... of a signed number */
        r->cfa_off = (int64_t)cursor_leb(c, true) * cie->data_align;
        break;
    case 0x10: /* expression */
    case 0x16: /* val_expression */
        r->unknown |= rule_of(r, cursor_leb(c, false)) != NULL;
        cursor_skip(c, cursor_leb(c, false));
        break;
    case 0x2e: /* GNU_args_size */
        (void)cursor_leb(c, false);
        break;
    default: /* def_cfa_expression, and what nobody writes */
        r->unknown = true;
        c->p = c->end;
        break;
    }
}

/* Runs the instructions up to the one that is about places after ip. loc: where they begin. */
static void rules_run(struct rules *r, const struct rules *first, const struct cie *cie,
                      struct cursor c, uint64_t loc, uint64_t ip)
{
    struct rules kept[REMEMBER_MAX];
    size_t depth = 0;

    while (c.p < c.end && !c.bad) {
        const uint8_t op = cursor_u8(&c);
        const uint8_t low = op & 0x3f;
        if (op >> 6 == 1) {
            loc += low * cie->code_align;
        } else if (op >> 6 == 2) {
            rule_set(r, low, true, (int64_t)cursor_leb(&c, false) * cie->data_align);
        } else if (op >> 6 == 3) {
            rule_restore(r, first, low);
        } else if (op >= 0x02 && op <= 0x04) { /* advance_loc of 1, 2, 4 bytes */
            uint32_t delta = 0;
            cursor_read(&c, &delta, (size_t)1 << (op - 2));
            loc += delta * cie->code_align;
        } else if (op == 0x0a && depth < REMEMBER_MAX) {
            kept[depth++] = *r;
        } else if (op == 0x0b && depth > 0) {
            *r = kept[--depth];
        } else {
            rules_extended(r, first, cie, op, &c);
        }
        if (loc > ip)
            return;
    }
    r->unknown |= c.bad;
}

/* The entry of the sorted table whose function begins last before ip. */
static bool unwind_find(const struct unwind *u, uint64_t ip, uint64_t *out_fde)
{
    struct cursor c = cursor_at(&u->hdr, u->hdr.addr);
    const uint8_t version = cursor_u8(&c), frame_enc = cursor_u8(&c), count_enc = cursor_u8(&c),
                  table_enc = cursor_u8(&c);

    (void)cursor_pointer(&c, frame_enc);
    uint64_t low = 0, high = cursor_pointer(&c, count_enc);
    if (version != 1 || table_enc != (ENC_DATAREL | ENC_SDATA4) || c.bad ||
        high > (uint64_t)(c.end - c.p) / 8)
        return false;
    const uint8_t *table = c.p;
    int32_t row[2] = {0, 0};
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        memcpy(row, table + middle * 8, 8);
        if (u->hdr.addr + (uint64_t)(int64_t)row[0] <= ip)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return false;
    memcpy(row, table + (low - 1) * 8, 8);
    *out_fde = u->hdr.addr + (uint64_t)(int64_t)row[1];
    return true;
}

static bool unwind_rules(const struct unwind *u, uint64_t ip, struct rules *out)
{
    uint64_t fde;
    struct cie cie;

    if (!unwind_find(u, ip, &fde))
        return false;
    struct cursor c = cursor_at(&u->frame, fde);
    const uint32_t size = cursor_u32(&c);
    if (c.bad || size > (size_t)(c.end - c.p))
        return false;
    c.end = c.p + size;
    const uint64_t at = c.at;
    if (!cie_read(u, at - cursor_u32(&c), &cie))
        return false;
    const uint64_t begin = cursor_pointer(&c, cie.enc);
    const uint64_t range = cursor_pointer(&c, cie.enc & 0x0f);
    if (cie.augmented)
        cursor_skip(&c, cursor_leb(&c, false));
    if (c.bad || ip < begin || ip - begin >= range)
        return false;
    memset(out, 0, sizeof(*out));
    rules_run(out, out, &cie, cie.insns, begin, UINT64_MAX);
    const struct rules first = *out;
    rules_run(out, &first, &cie, c, begin, ip);
    return !out->unknown;
}

bool unwind_init(struct unwind *u, const struct symbols *s)
{
    u->s = s;
    return symbols_section(s, ".eh_frame_hdr", &u->hdr) &&
           symbols_section(s, ".eh_frame", &u->frame);
}

bool unwind_step(const struct unwind *u, struct unwind_regs *r, unwind_read_fn read, void *arg)
{
    struct rules rules;
    uint64_t ip, bp = r->bp;

    if (!symbols_covers(u->s, r->ip) ||
        !unwind_rules(u, r->ip - r->called - symbols_base(u->s), &rules) || rules.no_caller ||
        !rules.ip.saved || (rules.cfa_reg != REG_SP && rules.cfa_reg != REG_BP))
        return false;
    const uint64_t cfa = (rules.cfa_reg == REG_SP ? r->sp : r->bp) + (uint64_t)rules.cfa_off;
    /* Callers lie higher, so this comes to an end. */
    if (cfa <= r->sp || !read(arg, cfa + (uint64_t)rules.ip.off, &ip) || ip == 0 ||
        (rules.bp.saved && !read(arg, cfa + (uint64_t)rules.bp.off, &bp)))
        return false;
    *r = (struct unwind_regs){.ip = ip, .sp = cfa, .bp = bp, .called = true};
    return true;
}
