/* Classic BPF: checked once, then interpreted (net/core/filter.c bpf_check_classic). */
#include "sentry/bpf/cbpf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BPF_WORDS 16u

/* ---- checking ---- */

static int bpf_check_alu(const struct cbpf_kind *k, const struct sock_filter *f)
{
    switch (BPF_OP(f->code)) {
    case BPF_ADD:
    case BPF_SUB:
    case BPF_MUL:
    case BPF_AND:
    case BPF_OR:
    case BPF_XOR:
        return 0;
    case BPF_NEG:
        return f->code & BPF_X ? -EINVAL : 0;
    case BPF_MOD:
        if (!k->modulo)
            return -EINVAL;
        __attribute__((fallthrough));
    case BPF_DIV:
        return BPF_SRC(f->code) == BPF_K && f->k == 0 ? -EINVAL : 0;
    case BPF_LSH:
    case BPF_RSH:
        return BPF_SRC(f->code) == BPF_K && f->k >= 32 ? -EINVAL : 0;
    default:
        return -EINVAL;
    }
}

/* All jumps go forward, so every program comes to its end. */
static int bpf_check_jump(const struct sock_filter *f, size_t at, size_t count)
{
    switch (BPF_OP(f->code)) {
    case BPF_JA:
        return f->code == (BPF_JMP | BPF_JA) && f->k < count - at - 1 ? 0 : -EINVAL;
    case BPF_JEQ:
    case BPF_JGT:
    case BPF_JGE:
    case BPF_JSET:
        return at + f->jt + 1 < count && at + f->jf + 1 < count ? 0 : -EINVAL;
    default:
        return -EINVAL;
    }
}

static int bpf_check_load(const struct cbpf_kind *k, const struct sock_filter *f)
{
    switch (f->code) {
    case BPF_LD | BPF_IMM:
    case BPF_LDX | BPF_IMM:
        return 0;
    case BPF_LD | BPF_MEM:
    case BPF_LDX | BPF_MEM:
    case BPF_ST:
    case BPF_STX:
        return f->k < BPF_WORDS ? 0 : -EINVAL;
    default:
        return (BPF_CLASS(f->code) == BPF_LD || BPF_CLASS(f->code) == BPF_LDX) && k->load_ok(f)
                   ? 0
                   : -EINVAL;
    }
}

static int bpf_check_insn(const struct cbpf_kind *k, const struct sock_filter *f, size_t at,
                          size_t count)
{
    switch (BPF_CLASS(f->code)) {
    case BPF_ALU:
        return (f->code & ~0xff) ? -EINVAL : bpf_check_alu(k, f);
    case BPF_JMP:
        return (f->code & ~0xff) ? -EINVAL : bpf_check_jump(f, at, count);
    case BPF_RET:
        return f->code == (BPF_RET | BPF_K) || f->code == (BPF_RET | BPF_A) ? 0 : -EINVAL;
    case BPF_MISC:
        return f->code == (BPF_MISC | BPF_TAX) || f->code == (BPF_MISC | BPF_TXA) ? 0 : -EINVAL;
    default:
        return bpf_check_load(k, f);
    }
}

/* No word is read that was not written on every way there (check_load_and_stores). valid[]: words
 * that are written when a place is reached by a jump. */
static int bpf_check_words(const struct sock_filter *f, size_t count, uint16_t *valid)
{
    uint16_t now = 0;

    memset(valid, 0xff, count * sizeof(*valid));
    for (size_t at = 0; at < count; at++) {
        const uint16_t bit = (uint16_t)(1u << (f[at].k % BPF_WORDS));
        now &= valid[at];
        switch (f[at].code) {
        case BPF_ST:
        case BPF_STX:
            now |= bit;
            break;
        case BPF_LD | BPF_MEM:
        case BPF_LDX | BPF_MEM:
            if (!(now & bit))
                return -EINVAL;
            break;
        case BPF_JMP | BPF_JA:
            valid[at + 1 + f[at].k] &= now;
            now = UINT16_MAX;
            break;
        default:
            if (BPF_CLASS(f[at].code) == BPF_JMP) {
                valid[at + 1 + f[at].jt] &= now;
                valid[at + 1 + f[at].jf] &= now;
                now = UINT16_MAX;
            }
            break;
        }
    }
    return 0;
}

int cbpf_check(const struct cbpf_kind *k, const struct sock_filter *f, size_t count)
{
    uint16_t valid[BPF_MAXINSNS / 4];
    uint16_t *v = valid;

    if (count == 0 || count > BPF_MAXINSNS)
        return -EINVAL;
    for (size_t at = 0; at < count; at++)
        if (bpf_check_insn(k, &f[at], at, count))
            return -EINVAL;
    if (BPF_CLASS(f[count - 1].code) != BPF_RET)
        return -EINVAL;
    if (count > ARRAY_SIZE(valid)) {
        v = calloc(count, sizeof(*v));
        if (!v)
            return -ENOMEM;
    }
    const int r = bpf_check_words(f, count, v);
    if (v != valid)
        free(v);
    return r;
}

/* ---- running ---- */

static uint32_t bpf_alu(const struct sock_filter *f, uint32_t a, uint32_t v, bool *out_end)
{
    switch (BPF_OP(f->code)) {
    case BPF_ADD:
        return a + v;
    case BPF_SUB:
        return a - v;
    case BPF_MUL:
        return a * v;
    case BPF_DIV:
        *out_end = v == 0;
        return v ? a / v : 0;
    case BPF_MOD:
        *out_end = v == 0;
        return v ? a % v : 0;
    case BPF_AND:
        return a & v;
    case BPF_OR:
        return a | v;
    case BPF_XOR:
        return a ^ v;
    case BPF_LSH:
        return a << (v & 31);
    case BPF_RSH:
        return a >> (v & 31);
    default:
        return -a; /* BPF_NEG */
    }
}

bool cbpf_test(const struct sock_filter *f, uint32_t a, uint32_t v)
{
    switch (BPF_OP(f->code)) {
    case BPF_JEQ:
        return a == v;
    case BPF_JGT:
        return a > v;
    case BPF_JGE:
        return a >= v;
    default:
        return a & v; /* BPF_JSET */
    }
}

struct bpf_machine {
    uint32_t a, x, mem[BPF_WORDS];
};

/* False: the program ends. */
static bool bpf_load(const struct cbpf_kind *k, struct bpf_machine *m, const struct sock_filter *f,
                     const void *data)
{
    uint32_t *to = BPF_CLASS(f->code) == BPF_LD ? &m->a : &m->x;

    switch (BPF_MODE(f->code)) {
    case BPF_MEM:
        *to = m->mem[f->k % BPF_WORDS];
        return true;
    case BPF_IMM:
        *to = f->k;
        return true;
    default:
        return k->load(data, f, m->a, m->x, to);
    }
}

uint32_t cbpf_run(const struct cbpf_kind *k, const struct sock_filter *f, const void *data)
{
    struct bpf_machine m = {0};
    bool end = false;

    /* Checked: every jump goes forward and stays inside, the last instruction returns. */
    for (; !end; f++) {
        const uint32_t v = f->code & BPF_X ? m.x : f->k;
        switch (BPF_CLASS(f->code)) {
        case BPF_LD:
        case BPF_LDX:
            if (!bpf_load(k, &m, f, data))
                return 0;
            break;
        case BPF_ST:
            m.mem[f->k % BPF_WORDS] = m.a;
            break;
        case BPF_STX:
            m.mem[f->k % BPF_WORDS] = m.x;
            break;
        case BPF_ALU:
            m.a = bpf_alu(f, m.a, v, &end);
            break;
        case BPF_JMP:
            if (BPF_OP(f->code) == BPF_JA)
                f += f->k;
            else
                f += cbpf_test(f, m.a, v) ? f->jt : f->jf;
            break;
        case BPF_RET:
            return BPF_RVAL(f->code) == BPF_A ? m.a : f->k;
        default:
            if (BPF_MISCOP(f->code) == BPF_TAX)
                m.x = m.a;
            else
                m.a = m.x;
            break;
        }
    }
    return 0; /* a division by zero */
}
