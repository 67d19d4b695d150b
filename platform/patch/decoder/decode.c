/* What stands around a system call that was just made.
 *
 * What is behind it is certain, since the program goes on there. What is before it is not: code
 * cannot be read backwards. So it is read forwards from several places further up, and only when
 * all that meet the call agree about the instruction before it, it is believed.
 *
 * Instructions that are moved run somewhere else and without what was around them: they may use
 * general registers, constants and flags, but neither memory, the stack pointer nor their own
 * address. */
#include <string.h>

#include "platform/patch/decoder/decoder.h"

/* The code in front is read from as many places as instructions are long, so from the beginning of
 * one at least, and from as far away as it mostly takes to be in step; near the beginning of a page
 * from there alone. */
#define DECODE_STARTS PATCH_INSN_MAX
#define DECODE_RUN_UP 32u
#define REX_W 0x48

/* The instruction at off, or NULL. Its address is off. */
static const cs_insn *decode_at(const struct decoder *d, const struct patch_question *q, size_t off)
{
    const uint8_t *code = q->code + off;
    size_t size = q->size - off;
    uint64_t addr = off;

    return cs_disasm_iter(d->handle, &code, &size, &addr, d->insn) ? d->insn : NULL;
}

/* ---- what may be moved ---- */

static bool insn_is_plain_id(unsigned id)
{
    switch (id) {
    case X86_INS_ADC:
    case X86_INS_ADD:
    case X86_INS_AND:
    case X86_INS_BSWAP:
    case X86_INS_BT:
    case X86_INS_CDQ:
    case X86_INS_CDQE:
    case X86_INS_CMP:
    case X86_INS_CQO:
    case X86_INS_CWDE:
    case X86_INS_DEC:
    case X86_INS_IMUL:
    case X86_INS_INC:
    case X86_INS_LEA:
    case X86_INS_MOV:
    case X86_INS_MOVABS:
    case X86_INS_MOVSX:
    case X86_INS_MOVSXD:
    case X86_INS_MOVZX:
    case X86_INS_NEG:
    case X86_INS_NOT:
    case X86_INS_OR:
    case X86_INS_ROL:
    case X86_INS_ROR:
    case X86_INS_SAR:
    case X86_INS_SBB:
    case X86_INS_SHL:
    case X86_INS_SHR:
    case X86_INS_SUB:
    case X86_INS_TEST:
    case X86_INS_XCHG:
    case X86_INS_XOR:
    case X86_INS_CMOVA:
    case X86_INS_CMOVAE:
    case X86_INS_CMOVB:
    case X86_INS_CMOVBE:
    case X86_INS_CMOVE:
    case X86_INS_CMOVG:
    case X86_INS_CMOVGE:
    case X86_INS_CMOVL:
    case X86_INS_CMOVLE:
    case X86_INS_CMOVNE:
    case X86_INS_CMOVNS:
    case X86_INS_CMOVS:
    case X86_INS_SETA:
    case X86_INS_SETAE:
    case X86_INS_SETB:
    case X86_INS_SETBE:
    case X86_INS_SETE:
    case X86_INS_SETG:
    case X86_INS_SETGE:
    case X86_INS_SETL:
    case X86_INS_SETLE:
    case X86_INS_SETNE:
    case X86_INS_SETNS:
    case X86_INS_SETS:
        return true;
    default:
        return false;
    }
}

/* Neither the stack pointer, the instruction pointer, a segment nor what only the kernel sets. */
static bool insn_is_plain_reg(unsigned reg)
{
    switch (reg) {
    case X86_REG_RSP:
    case X86_REG_ESP:
    case X86_REG_SP:
    case X86_REG_SPL:
        return false;
    case X86_REG_EFLAGS:
    case X86_REG_RAX:
    case X86_REG_RBX:
    case X86_REG_RCX:
    case X86_REG_RDX:
    case X86_REG_RSI:
    case X86_REG_RDI:
    case X86_REG_RBP:
    case X86_REG_EAX:
    case X86_REG_EBX:
    case X86_REG_ECX:
    case X86_REG_EDX:
    case X86_REG_ESI:
    case X86_REG_EDI:
    case X86_REG_EBP:
    case X86_REG_AX:
    case X86_REG_BX:
    case X86_REG_CX:
    case X86_REG_DX:
    case X86_REG_AL:
    case X86_REG_BL:
    case X86_REG_CL:
    case X86_REG_DL:
    case X86_REG_SIL:
    case X86_REG_DIL:
    case X86_REG_BPL:
        return true;
    default:
        return (reg >= X86_REG_R8 && reg <= X86_REG_R15) ||
               (reg >= X86_REG_R8B && reg <= X86_REG_R15B) ||
               (reg >= X86_REG_R8D && reg <= X86_REG_R15D);
    }
}

static bool insn_is_plain_mem(const cs_insn *insn, const cs_x86_op *op)
{
    return insn->id == X86_INS_LEA && op->mem.segment == X86_REG_INVALID &&
           (op->mem.base == X86_REG_INVALID || insn_is_plain_reg(op->mem.base)) &&
           (op->mem.index == X86_REG_INVALID || insn_is_plain_reg(op->mem.index));
}

static bool insn_has_prefix(const cs_x86 *x)
{
    for (size_t i = 0; i < ARRAY_SIZE(x->prefix); i++)
        if (x->prefix[i] != 0)
            return true;
    return false;
}

static bool insn_is_plain(const struct decoder *d, const cs_insn *insn)
{
    const cs_x86 *x = &insn->detail->x86;
    cs_regs read, written;
    uint8_t reads = 0, writes = 0;

    if (!insn_is_plain_id(insn->id) || insn_has_prefix(x))
        return false;
    for (uint8_t i = 0; i < x->op_count; i++) {
        const cs_x86_op *op = &x->operands[i];
        if (op->type == X86_OP_MEM
                ? !insn_is_plain_mem(insn, op)
                : op->type != X86_OP_IMM && (op->type != X86_OP_REG || !insn_is_plain_reg(op->reg)))
            return false;
    }
    /* With those that are not written down. */
    if (cs_regs_access(d->handle, insn, read, &reads, written, &writes) != CS_ERR_OK)
        return false;
    for (uint8_t i = 0; i < reads; i++)
        if (!insn_is_plain_reg(read[i]))
            return false;
    for (uint8_t i = 0; i < writes; i++)
        if (!insn_is_plain_reg(written[i]))
            return false;
    return true;
}

/* ---- the two kinds of sites ---- */

/* The call, and what follows. */
static bool shape_behind(const struct decoder *d, const struct patch_question *q,
                         struct patch_answer *out)
{
    unsigned size = PATCH_CALL_SIZE;

    while (size < PATCH_SIZE) {
        const cs_insn *insn = decode_at(d, q, q->off + size);
        if (insn == NULL || !insn_is_plain(d, insn) || !PATCH_TRAPS_AT(size) ||
            out->move_count == PATCH_MOVES_MAX)
            return false;
        out->moves[out->move_count++] = (uint8_t)size;
        size += insn->size;
    }
    out->call_end = PATCH_CALL_SIZE;
    out->size = (uint8_t)size;
    return true;
}

/* The code in front of the call, read from everywhere. */
struct before {
    uint8_t size[PATCH_REACH]; /* of the instruction there; 0: none */
    bool meets[PATCH_REACH];   /* reading on from there, one comes to the call */
    bool walked[PATCH_REACH];  /* from one of the starts one comes here, and to the call */
};

static void before_read(const struct decoder *d, const struct patch_question *q, struct before *b)
{
    memset(b, 0, sizeof(*b));
    for (unsigned at = q->off; at-- > 0;) {
        const cs_insn *insn = decode_at(d, q, at);
        if (insn == NULL)
            continue;
        const unsigned end = at + insn->size;
        b->size[at] = (uint8_t)insn->size;
        b->meets[at] = end == q->off || (end < q->off && b->meets[end]);
    }
}

/* The last instruction before the call; q->off: not known. */
static unsigned before_walk(const struct patch_question *q, struct before *b)
{
    unsigned last = q->off;

    for (unsigned start = 0; start < DECODE_STARTS && start < q->off; start++) {
        unsigned at = start;
        if (!b->meets[start] || (start > 0 && start + DECODE_RUN_UP > q->off))
            continue;
        while (at < q->off) {
            b->walked[at] = true;
            if (at + b->size[at] == q->off)
                break;
            at += b->size[at];
        }
        if (last != q->off && last != at)
            return q->off;
        last = at;
    }
    return last;
}

/* mov of the number, and the call. With the longer one, the call stays where it is. */
static bool shape_loads(const struct decoder *d, const struct patch_question *q, unsigned last,
                        struct patch_answer *out)
{
    const cs_insn *insn = last < q->off ? decode_at(d, q, last) : NULL;

    if (insn == NULL || insn->id != X86_INS_MOV || insn_has_prefix(&insn->detail->x86))
        return false;
    const cs_x86 *x = &insn->detail->x86;
    if (x->op_count != 2 || x->operands[0].type != X86_OP_REG || x->operands[1].type != X86_OP_IMM)
        return false;
    if (!(x->operands[0].reg == X86_REG_EAX && insn->size == PATCH_SIZE - PATCH_CALL_SIZE) &&
        !(x->operands[0].reg == X86_REG_RAX && insn->size == PATCH_SIZE && x->rex == REX_W))
        return false;
    out->loads = 1;
    out->back = (uint8_t)insn->size;
    out->size = out->call_end = (uint8_t)(insn->size + PATCH_CALL_SIZE);
    return true;
}

/* ---- jumps into a site ---- */

/* The instruction at off jumps to somewhere behind the first of the bytes replaced. */
static bool jumps_inside(const struct decoder *d, const struct patch_question *q, size_t off,
                         unsigned start, unsigned *out_size)
{
    const cs_insn *insn = decode_at(d, q, off);

    *out_size = insn == NULL ? 1 : insn->size;
    if (insn == NULL ||
        !(cs_insn_group(d->handle, insn, CS_GRP_JUMP) ||
          cs_insn_group(d->handle, insn, CS_GRP_CALL) ||
          cs_insn_group(d->handle, insn, CS_GRP_BRANCH_RELATIVE)) ||
        insn->detail->x86.op_count != 1 || insn->detail->x86.operands[0].type != X86_OP_IMM)
        return false;
    const uint64_t to = (uint64_t)insn->detail->x86.operands[0].imm - start;
    return to > 0 && to < PATCH_SIZE;
}

/* Such a jump would be put right each time, at a higher price than a call with a trap, or lead into
 * the middle of what is taken for one instruction here. */
static bool site_is_jumped_into(const struct decoder *d, const struct patch_question *q,
                                const struct before *b, const struct patch_answer *a)
{
    const unsigned start = q->off - a->back;
    unsigned size;

    for (unsigned at = 0; at < q->off; at++)
        if (b->walked[at] && jumps_inside(d, q, at, start, &size))
            return true;
    for (size_t at = q->off; at < q->size; at += size)
        if (jumps_inside(d, q, at, start, &size))
            return true;
    return false;
}

static bool question_is_call(const struct decoder *d, const struct patch_question *q)
{
    if (q->size > PATCH_WINDOW || q->off > PATCH_REACH || q->off >= q->size)
        return false;
    const cs_insn *insn = decode_at(d, q, q->off);
    return insn != NULL && insn->id == X86_INS_SYSCALL && insn->size == PATCH_CALL_SIZE;
}

void decoder_decode(const struct decoder *d, const struct patch_question *q,
                    struct patch_answer *out)
{
    struct patch_answer behind = {.id = q->id, .found = 1}, loads = behind;
    struct before b;

    *out = (struct patch_answer){.id = q->id};
    if (!question_is_call(d, q))
        return;
    before_read(d, q, &b);
    const unsigned last = before_walk(q, &b);
    if (shape_behind(d, q, &behind) && !site_is_jumped_into(d, q, &b, &behind))
        *out = behind;
    else if (shape_loads(d, q, last, &loads) && !site_is_jumped_into(d, q, &b, &loads))
        *out = loads;
}

/* ---- the disassembler ---- */

/* getppid(2) as glibc has it: all kinds of things that are looked at. */
static void decoder_try(const struct decoder *d)
{
    static const uint8_t code[] = {0xb8, 0x6e, 0,    0,    0,    0x0f, 0x05, 0x48,
                                   0x3d, 0x01, 0xf0, 0xff, 0xff, 0x73, 0x01, 0xc3};
    struct patch_question q = {.size = sizeof(code), .off = 5};
    struct patch_answer a;

    memcpy(q.code, code, sizeof(code));
    decoder_decode(d, &q, &a);
}

bool decoder_open(struct decoder *d)
{
    *d = (struct decoder){.insn = NULL};
    if (cs_open(CS_ARCH_X86, CS_MODE_64, &d->handle) != CS_ERR_OK)
        return false;
    if (cs_option(d->handle, CS_OPT_DETAIL, CS_OPT_ON) == CS_ERR_OK)
        d->insn = cs_malloc(d->handle);
    if (d->insn == NULL)
        (void)cs_close(&d->handle);
    else
        decoder_try(d);
    return d->insn != NULL;
}

void decoder_close(struct decoder *d)
{
    cs_free(d->insn, 1);
    d->insn = NULL;
    (void)cs_close(&d->handle);
}
