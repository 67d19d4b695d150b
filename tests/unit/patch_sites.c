/* The recogniser of system call sites against a disassembler, on every call of this machine's C
 * library: what it takes is what stands there, and most of what stands there it takes. */
#include <capstone/capstone.h>
#include <criterion/criterion.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/patch/patch.h"

#define AREAS UINT64_C(0x7ffff0000000)
#define START UINT64_C(0x401000)

static csh disassembler(void)
{
    csh h;

    cr_assert_eq(cs_open(CS_ARCH_X86, CS_MODE_64, &h), CS_ERR_OK);
    return h;
}

static bool shape_of(const char *code, size_t size, size_t call, uint64_t nr, size_t *start,
                     struct patch_shape *shape)
{
    memset(shape, 0, sizeof(*shape));
    return patch_recognise((const uint8_t *)code, size, call, nr, start, shape);
}

/* SHAPE("bytes", offset of the call): taken or not, as one of the two. */
#define TAKES(bytes, call, nr, from, count)                                                        \
    do {                                                                                           \
        struct patch_shape shape_;                                                                 \
        size_t start_;                                                                             \
        cr_assert(shape_of(bytes, sizeof(bytes) - 1, call, nr, &start_, &shape_));                 \
        cr_assert_eq(start_, from);                                                                \
        cr_assert_eq(shape_.size, count);                                                          \
    } while (0)
#define LEAVES(bytes, call, nr)                                                                    \
    do {                                                                                           \
        struct patch_shape shape_;                                                                 \
        size_t start_;                                                                             \
        cr_assert_not(shape_of(bytes, sizeof(bytes) - 1, call, nr, &start_, &shape_));             \
    } while (0)

Test(patch_sites, shapes)
{
    /* glibc: mov, call, compare; its cancellation points; getppid. */
    TAKES("\x90\xb8\x27\0\0\0\x0f\x05\x48\x3d\x01\xf0\xff\xff\x73\x01", 6, 39, 6, 8);
    TAKES("\x8b\x7c\x24\x0c\x31\xc0\x0f\x05\x48\x3d\0\xf0\xff\xff\x77", 6, 0, 6, 8);
    TAKES("\x90\xb8\x6e\0\0\0\x0f\x05\xc3\x0f\x1f\x44", 6, 110, 1, 7);
    /* Go: Syscall6. musl: a move of the result first. Bare 32-bit results. */
    TAKES("\x0f\x05\x48\x3d\x01\xf0\xff\xff\x76\x20", 0, 1, 0, 8);
    TAKES("\x0f\x05\x48\x89\xc7\x48\x3d\x01\xf0\xff\xff", 0, 1, 0, 11);
    TAKES("\x0f\x05\x3d\0\xf0\xff\xff\x77", 0, 202, 0, 7);
    TAKES("\x0f\x05\x48\x83\xf8\xff\x48\x89\xc3", 0, 1, 0, 9);
    /* Another number than the one called with; a prefix; the stack pointer; memory; a branch; an
     * instruction that begins where nothing traps; the end. */
    LEAVES("\x90\xb8\x6e\0\0\0\x0f\x05\xc3\x0f\x1f\x44", 6, 111);
    LEAVES("\x41\xb8\x6e\0\0\0\x0f\x05\xc3\x0f\x1f\x44", 6, 110);
    LEAVES("\xb8\x6e\0\0\0\x0f\x05\xc3", 5, 110);
    LEAVES("\x0f\x05\x48\x89\xc4\x48\x3d\x01\xf0\xff\xff", 0, 1);
    LEAVES("\x0f\x05\x48\x89\x07\x48\x3d\x01\xf0\xff\xff", 0, 1);
    LEAVES("\x0f\x05\xeb\x10\x48\x3d\x01\xf0\xff\xff", 0, 1);
    LEAVES("\x0f\x05\x89\xc2\x48\x3d\x01\xf0\xff\xff", 0, 1);
    LEAVES("\x0f\x05\x48\x3d\x01\xf0\xff", 0, 1);
    LEAVES("\x48\xc7\xc0\x0f\0\0\0\x0f\x05\xcc", 7, 15);
}

/* Random bytes never make it read past the end, and what it takes covers seven bytes. */
Test(patch_sites, any_bytes)
{
    uint64_t seed = 7;

    for (int round = 0; round < 200000; round++) {
        uint8_t code[32];
        struct patch_shape shape;
        size_t start;
        for (size_t i = 0; i < sizeof(code); i++) {
            static const uint8_t likely[] = {0x0f, 0x05, 0x48, 0x3d, 0x89, 0xb8, 0x83, 0xc0, 0xf8};
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
            code[i] = seed >> 60 ? likely[(seed >> 33) % sizeof(likely)] : (uint8_t)(seed >> 40);
        }
        const size_t size = 1 + (seed >> 50) % sizeof(code);
        uint8_t *exact = malloc(size);
        memcpy(exact, code, size);
        for (size_t off = 0; off <= size; off++)
            if (patch_recognise(exact, size, off, 0, &start, &shape)) {
                cr_assert_geq(shape.size, PATCH_SIZE);
                cr_assert_leq(start + shape.size, size);
            }
        free(exact);
    }
}

static void check_moves(csh h, const uint8_t *site, const struct patch_shape *shape)
{
    size_t at = shape->call_end;
    cs_insn *insn;

    for (unsigned i = 0; i < shape->move_count; i++) {
        cr_assert_eq(shape->moves[i], at);
        cr_assert_eq(cs_disasm(h, site + at, 16, START + at, 1, &insn), 1);
        const char *name = insn->mnemonic;
        cr_assert(strcmp(name, "cmp") == 0 || strcmp(name, "mov") == 0 || strcmp(name, "test") == 0,
                  "%s", name);
        cr_assert_null(strchr(insn->op_str, '['), "%s", insn->op_str);
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

static int find_libc(struct dl_phdr_info *info, size_t size, void *path)
{
    (void)size;
    if (strstr(info->dlpi_name, "libc.so") == NULL)
        return 0;
    (void)snprintf(path, 4096, "%s", info->dlpi_name);
    return 1;
}

/* Number of the call that the instruction before off loads, or any. */
static uint64_t number_before(const uint8_t *code, size_t off)
{
    uint32_t nr = 0;

    if (off >= 5 && code[off - 5] == 0xb8)
        memcpy(&nr, code + off - 4, sizeof(nr));
    return nr;
}

Test(patch_sites, c_library)
{
    static char path[4096];
    struct stat st;
    unsigned calls = 0, taken = 0;
    csh h = disassembler();

    cr_assert_eq(dl_iterate_phdr(find_libc, path), 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && fstat(fd, &st) == 0);
    const uint8_t *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    const Elf64_Ehdr *eh = (const void *)file;
    const Elf64_Phdr *ph = (const void *)(file + eh->e_phoff);
    for (int i = 0; i < eh->e_phnum; i++) {
        if (ph[i].p_type != PT_LOAD || (ph[i].p_flags & PF_X) == 0)
            continue;
        const uint8_t *code = file + ph[i].p_offset;
        for (size_t off = 0; off + 2 <= ph[i].p_filesz; off++) {
            struct patch_shape shape;
            size_t start;
            if (code[off] != 0x0f || code[off + 1] != 0x05)
                continue;
            calls++;
            if (!patch_recognise(code, ph[i].p_filesz, off, number_before(code, off), &start,
                                 &shape))
                continue;
            taken++;
            check_moves(h, code + start, &shape);
            check_code(h, code + start, &shape);
        }
    }
    cr_assert_gt(calls, 300);
    cr_assert_geq(10 * taken, 9 * calls, "%u of %u", taken, calls);
    cr_log_info("%u of %u", taken, calls);
    munmap((void *)(uintptr_t)file, (size_t)st.st_size);
    close(fd);
    cs_close(&h);
}
