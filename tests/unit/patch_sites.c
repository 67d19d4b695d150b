/* What the decoder says of system call sites, made-up ones and all of this machine's C library's,
 * and what the sentry makes of that and of lies. */
#include <capstone/capstone.h>
#include <criterion/criterion.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/patch/decoder/decoder.h"
#include "platform/patch/patch.h"

#define AREAS UINT64_C(0x7ffff0000000)
#define START UINT64_C(0x401000)

/* As the sentry asks about the call at off. */
static bool answer_of(const struct decoder *d, const uint8_t *code, size_t size, size_t off,
                      struct patch_question *q, struct patch_answer *a)
{
    const size_t start = off - MIN(off, (size_t)PATCH_REACH),
                 end = MIN(off + PATCH_CALL_SIZE + PATCH_REACH, size);

    memset(q, 0, sizeof(*q));
    q->id = 1;
    q->size = (uint32_t)(end - start);
    q->off = (uint32_t)(off - start);
    memcpy(q->code, code + start, q->size);
    decoder_decode(d, q, a);
    cr_assert_eq(a->id, 1);
    return a->found != 0;
}

static bool shape_of(const struct decoder *d, const uint8_t *code, size_t size, size_t off,
                     size_t *start, struct patch_shape *shape)
{
    struct patch_question q;
    struct patch_answer a;

    memset(shape, 0, sizeof(*shape));
    if (!answer_of(d, code, size, off, &q, &a))
        return false;
    cr_assert(patch_check(q.code, q.size, q.off, &a, shape), "what the decoder says is believed");
    *start = off - a.back;
    return true;
}

/* Offset of the call, where the site begins, and its size; 0: it is left alone. */
#define EXPECT(bytes, call, from, count)                                                           \
    do {                                                                                           \
        struct patch_shape shape_;                                                                 \
        size_t start_ = 0;                                                                         \
        const bool takes_ =                                                                        \
            shape_of(&d, (const uint8_t *)(bytes), sizeof(bytes) - 1, call, &start_, &shape_);     \
        cr_assert_eq(takes_, (count) != 0, "%s", #bytes);                                          \
        cr_assert_eq(start_, (size_t)(from));                                                      \
        cr_assert_eq(shape_.size, (unsigned)(count));                                              \
    } while (0)
#define TAKES(bytes, call, from, count) EXPECT(bytes, call, from, count)
#define LEAVES(bytes, call) EXPECT(bytes, call, 0, 0)

Test(patch_sites, shapes)
{
    struct decoder d;

    cr_assert(decoder_open(&d));
    /* glibc: mov, call, compare; its cancellation points; getppid. */
    TAKES("\x90\xb8\x27\0\0\0\x0f\x05\x48\x3d\x01\xf0\xff\xff\x73\x01", 6, 6, 8);
    TAKES("\x8b\x7c\x24\x0c\x31\xc0\x0f\x05\x48\x3d\0\xf0\xff\xff\x77", 6, 6, 8);
    TAKES("\x90\xb8\x6e\0\0\0\x0f\x05\xc3\x0f\x1f\x44", 6, 1, 7);
    /* Go: Syscall6. musl: a move of the result first. Bare 32-bit results. */
    TAKES("\x0f\x05\x48\x3d\x01\xf0\xff\xff\x76\x20", 0, 0, 8);
    TAKES("\x0f\x05\x48\x89\xc7\x48\x3d\x01\xf0\xff\xff", 0, 0, 11);
    TAKES("\x0f\x05\x3d\0\xf0\xff\xff\x77", 0, 0, 7);
    TAKES("\x0f\x05\x48\x83\xf8\xff\x48\x89\xc3", 0, 0, 9);
    /* The result's sign; a constant; an address without memory; a condition. */
    TAKES("\x0f\x05\x48\x63\xd8\x85\xdb\x78\x10", 0, 0, 7);
    TAKES("\x0f\x05\xbb\x01\0\0\0\xc3", 0, 0, 7);
    TAKES("\x0f\x05\x48\x8d\x58\x10\x31\xc0\xc3", 0, 0, 8);
    TAKES("\x0f\x05\x48\x0f\x44\xc3\xff\xc0\xc3", 0, 0, 8);
    TAKES("\x0f\x05\x48\xf7\xd8\x89\xc2\xc3", 0, 0, 7);
    /* The number in all of rax: the call stays where it is. */
    TAKES("\x48\xc7\xc0\x6e\0\0\0\x0f\x05\xc3", 7, 0, 9);
    decoder_close(&d);
}

Test(patch_sites, left_alone)
{
    struct decoder d;

    cr_assert(decoder_open(&d));
    /* Another register; a longer instruction that ends alike; another prefix. */
    LEAVES("\x41\xb8\x6e\0\0\0\x0f\x05\xc3\x0f\x1f\x44", 6);
    LEAVES("\x48\xb8\0\0\0\xb8\x6e\0\0\0\x0f\x05\xc3\x0f", 10);
    LEAVES("\x66\xb8\x6e\0\x0f\x05\xc3\x0f\x1f\x44", 4);
    /* The stack pointer; memory; its own address; a branch; the end. */
    LEAVES("\x0f\x05\x48\x89\xc4\x48\x3d\x01\xf0\xff\xff", 0);
    LEAVES("\x0f\x05\x48\x89\xe0\x48\x3d\x01\xf0\xff\xff", 0);
    LEAVES("\x0f\x05\x48\x89\x07\x48\x3d\x01\xf0\xff\xff", 0);
    LEAVES("\x0f\x05\x48\x8d\x05\x10\0\0\0\xc3", 0);
    LEAVES("\x0f\x05\x48\x8d\x64\x24\x08\xc3\xc3", 0);
    LEAVES("\x0f\x05\x58\xc3\x90\x90\x90\x90\x90", 0);
    LEAVES("\x0f\x05\xeb\x10\x48\x3d\x01\xf0\xff\xff", 0);
    LEAVES("\x0f\x05\x48\x3d\x01\xf0\xff", 0);
    /* What faults, asks the processor, or is a prefix away from it. */
    LEAVES("\x0f\x05\x48\xf7\xf3\x48\x3d\x01\xf0\xff\xff", 0);
    LEAVES("\x0f\x05\x0f\xa2\x90\x3d\x01\xf0\xff\xff", 0);
    LEAVES("\x0f\x05\xf0\x48\x01\xd8\x48\x3d\x01\xf0\xff\xff", 0);
    LEAVES("\x0f\x05\x64\x48\x8d\x04\x03\x3d\x01\xf0\xff\xff", 0);
    /* An instruction that begins where nothing traps. */
    LEAVES("\x0f\x05\x89\xc2\x48\x3d\x01\xf0\xff\xff", 0);
    /* Jumps to the call, and to what is behind it; none to the first byte. */
    LEAVES("\x90\xb8\x6e\0\0\0\x0f\x05\xc3\x90\xeb\xfa", 6);
    LEAVES("\x0f\x05\x48\x3d\x01\xf0\xff\xff\xeb\xf8", 0);
    TAKES("\x0f\x05\x48\x3d\x01\xf0\xff\xff\xeb\xf6", 0, 0, 8);
    LEAVES("\xeb\x03\x90\x0f\x05\x48\x3d\x01\xf0\xff\xff", 3);
    LEAVES("\x90\x90", 0);
    decoder_close(&d);
}

static const uint8_t likely[] = {0x0f, 0x05, 0x48, 0x3d, 0x89, 0xb8, 0x83, 0xc0, 0xf8,
                                 0xeb, 0x66, 0xc7, 0x8d, 0x31, 0x02, 0x03, 0x07};

static uint8_t next_byte(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return *seed >> 60 ? likely[(*seed >> 33) % sizeof(likely)] : (uint8_t)(*seed >> 40);
}

/* Random bytes never make it read past the end, and whatever it finds there is believed. */
Test(patch_sites, any_bytes)
{
    struct decoder d;
    struct patch_shape shape;
    uint64_t seed = 7;
    unsigned found = 0;
    size_t start;

    cr_assert(decoder_open(&d));
    for (int round = 0; round < 5000; round++) {
        uint8_t code[32];
        for (size_t i = 0; i < sizeof(code); i++)
            code[i] = next_byte(&seed);
        memcpy(code + 12, "\x0f\x05\x48\x89", round % 2 ? 4 : 2);
        found += shape_of(&d, code, 14 + (seed >> 50) % 19, 12, &start, &shape);
    }
    cr_assert_gt(found, 50);
    decoder_close(&d);
}

/* Whatever a decoder says that is not one: what is believed fits, and is made of the program's
 * bytes. */
Test(patch_sites, lies)
{
    static const char bytes[] = "\x48\xc7\xc0\x6e\0\0\0\x0f\x05\x48\x89\xc7\x48\x3d\x01\xf0\xff\xff"
                                "\xb8\x6e\0\0\0\x0f\x05\x48\x89\xc7\x48\x3d\x01\xf0\xff\xff";
    const uint8_t *code = (const uint8_t *)bytes;
    static const uint8_t numbers[] = {0, 1, 2, 3, 5, 7, 9, 11};
    struct patch_shape shape;
    struct patch_code pc;
    uint8_t out[PATCH_SLOT];
    uint64_t seed = 3;
    unsigned believed = 0;

    /* The call behind the end of the site, and of the code. */
    struct patch_answer far = {.found = 1, .back = 34, .loads = 1, .size = 7, .call_end = 36};
    cr_assert_not(patch_check(code, 34, 34, &far, &shape));
    for (int round = 0; round < 3000000; round++) {
        struct patch_answer a = {.found = 1};
        uint8_t *fields = &a.back;
        for (unsigned i = 0; i < 5 + PATCH_MOVES_MAX; i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
            fields[i] =
                (uint8_t)(seed >> 60 ? numbers[(seed >> 40) % sizeof(numbers)] : seed >> 40);
        }
        const size_t size = (seed >> 33) % sizeof(bytes), off = (seed >> 59) & 1 ? 7 : 23;
        if (!patch_check(code, size, off, &a, &shape))
            continue;
        believed++;
        cr_assert(a.back <= off && off - a.back + shape.size <= size);
        cr_assert(shape.size >= PATCH_SIZE && shape.size <= PATCH_SHAPE_MAX);
        cr_assert(shape.call_end >= PATCH_CALL_SIZE && shape.call_end <= shape.size);
        cr_assert_eq(memcmp(code + off - a.back + shape.call_end - 2, "\x0f\x05", 2), 0);
        cr_assert(!shape.loads || (shape.nr == 110 && shape.move_count == 0));
        for (unsigned i = 0; i < shape.move_count; i++)
            cr_assert(PATCH_TRAPS_AT(shape.moves[i]));
        patch_emit(&shape, START, code + off - a.back, AREAS, out, &pc);
        cr_assert_leq(pc.size, sizeof(out));
    }
    cr_assert_gt(believed, 20);
}

static csh disassembler(void)
{
    csh h;

    cr_assert_eq(cs_open(CS_ARCH_X86, CS_MODE_64, &h), CS_ERR_OK);
    return h;
}

static void check_moves(csh h, const uint8_t *site, const struct patch_shape *shape)
{
    size_t at = shape->call_end;
    cs_insn *insn;

    for (unsigned i = 0; i < shape->move_count; i++) {
        cr_assert_eq(shape->moves[i], at);
        cr_assert_eq(cs_disasm(h, site + at, 16, START + at, 1, &insn), 1);
        cr_assert(strchr(insn->op_str, '[') == NULL || strcmp(insn->mnemonic, "lea") == 0, "%s %s",
                  insn->mnemonic, insn->op_str);
        at += insn->size;
        cs_free(insn, 1);
    }
    cr_assert_eq(at, shape->size);
}

/* The jump, the traps inside it, and every instruction of the code. */
static void check_code(csh h, const uint8_t *site, const struct patch_shape *shape)
{
    uint8_t jump[PATCH_SIZE], code[PATCH_SLOT];
    struct patch_code pc;
    cs_insn *insn;

    patch_jump(77, jump);
    cr_assert_eq(cs_disasm(h, jump, sizeof(jump), START, 1, &insn), 1);
    cr_assert_eq(insn->size, PATCH_SIZE);
    cr_assert_str_eq(insn->mnemonic, "jmp");
    cs_free(insn, 1);
    for (unsigned off = 1; off < PATCH_SIZE; off++) {
        const bool begins = (off == 2 && !shape->loads) || (shape->loads && off == 5) ||
                            (shape->move_count > 1 && off == shape->moves[1]);
        const size_t n = cs_disasm(h, jump + off, sizeof(jump) - off, START, 1, &insn);
        if (begins)
            cr_assert(n == 0 || strcmp(insn->mnemonic, "in") == 0, "at %u: %s", off,
                      insn->mnemonic);
        if (n > 0)
            cs_free(insn, n);
    }
    patch_emit(shape, START, site, AREAS, code, &pc);
    cr_assert_leq(pc.size, PATCH_SLOT);
    /* The last eight bytes are an address. */
    const size_t count = cs_disasm(h, code, pc.size - 8, PATCH_CODE, 0, &insn);
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += insn[i].size;
        cr_assert_null(strstr(insn[i].op_str, "rsp"));
        cr_assert(strncmp(insn[i].mnemonic, "push", 4) != 0 &&
                  strcmp(insn[i].mnemonic, "call") != 0);
    }
    cr_assert_eq(size, pc.size - 8);
    cs_free(insn, count);
}

/* What a disassembler of its own says of what was found in code. */
static void look_at_code(const struct decoder *d, csh h, const uint8_t *code, size_t size,
                         unsigned *calls, unsigned *taken)
{
    for (size_t off = 0; off + 2 <= size; off++) {
        struct patch_shape shape;
        size_t start;
        if (code[off] != 0x0f || code[off + 1] != 0x05)
            continue;
        (*calls)++;
        if (!shape_of(d, code, size, off, &start, &shape))
            continue;
        (*taken)++;
        check_moves(h, code + start, &shape);
        check_code(h, code + start, &shape);
    }
}

/* Whether the program is there. */
static bool look_at(const char *path, unsigned *calls, unsigned *taken)
{
    csh h = disassembler();
    struct decoder d;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    *calls = *taken = 0;
    if (fd < 0)
        return false;
    cr_assert(decoder_open(&d) && fstat(fd, &st) == 0);
    const uint8_t *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    const Elf64_Ehdr *eh = (const void *)file;
    cr_assert_neq(file, MAP_FAILED);
    for (int i = 0; memcmp(eh->e_ident, ELFMAG, SELFMAG) == 0 && i < eh->e_phnum; i++) {
        const Elf64_Phdr *ph = (const Elf64_Phdr *)(const void *)(file + eh->e_phoff) + i;
        if (ph->p_type == PT_LOAD && (ph->p_flags & PF_X) != 0)
            look_at_code(&d, h, file + ph->p_offset, ph->p_filesz, calls, taken);
    }
    cr_log_info("%s: %u of %u", path, *taken, *calls);
    munmap((void *)(uintptr_t)file, (size_t)st.st_size);
    close(fd);
    decoder_close(&d);
    cs_close(&h);
    return true;
}

/* Of the libraries of this process, those that make system calls themselves. */
static int look_at_library(struct dl_phdr_info *info, size_t size, void *found)
{
    unsigned calls, taken;

    (void)size;
    if (strstr(info->dlpi_name, "libc.so") == NULL && strstr(info->dlpi_name, "ld-linux") == NULL)
        return 0;
    cr_assert(look_at(info->dlpi_name, &calls, &taken));
    cr_assert_gt(calls, strstr(info->dlpi_name, "libc.so") != NULL ? 300u : 10u);
    cr_assert_geq(10 * taken, 9 * calls, "%u of %u", taken, calls);
    ++*(unsigned *)found;
    return 0;
}

Test(patch_sites, libraries)
{
    unsigned found = 0;

    (void)dl_iterate_phdr(look_at_library, &found);
    cr_assert_eq(found, 2);
}

/* Go, musl, Java, a JavaScript engine and a static glibc, where they are: in a program of many
 * megabytes the bytes of a call stand at random places, too. */
Test(patch_sites, programs)
{
    static const char *const paths[] = {"/usr/bin/containerd",
                                        "/usr/sbin/runc",
                                        "/usr/lib/x86_64-linux-musl/libc.so",
                                        "/usr/lib/jvm/java-17-openjdk-amd64/lib/server/libjvm.so",
                                        "/usr/bin/node",
                                        "/bin/busybox"};
    unsigned calls, taken, sum = 0;

    for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
        sum += look_at(paths[i], &calls, &taken) ? taken : 0;
    cr_assert_gt(sum, 0);
}
