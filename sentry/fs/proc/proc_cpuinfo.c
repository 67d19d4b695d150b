/* /proc/cpuinfo from CPUID itself: the guest executes on this very processor. */
#include <cpuid.h>
#include <stdint.h>
#include <string.h>

#include "proc_priv.h"

enum cpuid_reg { REG_A, REG_B, REG_C, REG_D };

struct cpu_flag {
    uint32_t leaf, subleaf;
    uint8_t reg, bit;
    const char *name;
};

#define F1D(bit, name)                                                                             \
    {                                                                                              \
        1, 0, REG_D, bit, name                                                                     \
    }
#define F1C(bit, name)                                                                             \
    {                                                                                              \
        1, 0, REG_C, bit, name                                                                     \
    }
#define F7B(bit, name)                                                                             \
    {                                                                                              \
        7, 0, REG_B, bit, name                                                                     \
    }
#define F7C(bit, name)                                                                             \
    {                                                                                              \
        7, 0, REG_C, bit, name                                                                     \
    }
#define F7D(bit, name)                                                                             \
    {                                                                                              \
        7, 0, REG_D, bit, name                                                                     \
    }
#define FX1D(bit, name)                                                                            \
    {                                                                                              \
        0x80000001u, 0, REG_D, bit, name                                                           \
    }
#define FX1C(bit, name)                                                                            \
    {                                                                                              \
        0x80000001u, 0, REG_C, bit, name                                                           \
    }

/* In the order Linux prints them: x86 word by word, bit by bit. */
static const struct cpu_flag flags[] = {
    F1D(0, "fpu"),
    F1D(1, "vme"),
    F1D(2, "de"),
    F1D(3, "pse"),
    F1D(4, "tsc"),
    F1D(5, "msr"),
    F1D(6, "pae"),
    F1D(7, "mce"),
    F1D(8, "cx8"),
    F1D(9, "apic"),
    F1D(11, "sep"),
    F1D(12, "mtrr"),
    F1D(13, "pge"),
    F1D(14, "mca"),
    F1D(15, "cmov"),
    F1D(16, "pat"),
    F1D(17, "pse36"),
    F1D(19, "clflush"),
    F1D(23, "mmx"),
    F1D(24, "fxsr"),
    F1D(25, "sse"),
    F1D(26, "sse2"),
    F1D(27, "ss"),
    F1D(28, "ht"),
    FX1D(11, "syscall"),
    FX1D(20, "nx"),
    FX1D(26, "pdpe1gb"),
    FX1D(27, "rdtscp"),
    FX1D(29, "lm"),
    F1C(0, "pni"),
    F1C(1, "pclmulqdq"),
    F1C(9, "ssse3"),
    F1C(12, "fma"),
    F1C(13, "cx16"),
    F1C(19, "sse4_1"),
    F1C(20, "sse4_2"),
    F1C(22, "movbe"),
    F1C(23, "popcnt"),
    F1C(25, "aes"),
    F1C(26, "xsave"),
    F1C(28, "avx"),
    F1C(29, "f16c"),
    F1C(30, "rdrand"),
    F1C(31, "hypervisor"),
    FX1C(0, "lahf_lm"),
    FX1C(5, "abm"),
    FX1C(8, "3dnowprefetch"),
    F7B(0, "fsgsbase"),
    F7B(3, "bmi1"),
    F7B(5, "avx2"),
    F7B(7, "smep"),
    F7B(8, "bmi2"),
    F7B(9, "erms"),
    F7B(10, "invpcid"),
    F7B(16, "avx512f"),
    F7B(17, "avx512dq"),
    F7B(18, "rdseed"),
    F7B(19, "adx"),
    F7B(20, "smap"),
    F7B(21, "avx512ifma"),
    F7B(23, "clflushopt"),
    F7B(24, "clwb"),
    F7B(28, "avx512cd"),
    F7B(29, "sha_ni"),
    F7B(30, "avx512bw"),
    F7B(31, "avx512vl"),
    {0xd, 1, REG_A, 0, "xsaveopt"},
    {0xd, 1, REG_A, 1, "xsavec"},
    {0xd, 1, REG_A, 2, "xgetbv1"},
    {0xd, 1, REG_A, 3, "xsaves"},
    {7, 1, REG_A, 4, "avx_vnni"},
    {7, 1, REG_A, 5, "avx512_bf16"},
    F7C(1, "avx512vbmi"),
    F7C(6, "avx512_vbmi2"),
    F7C(8, "gfni"),
    F7C(9, "vaes"),
    F7C(10, "vpclmulqdq"),
    F7C(11, "avx512_vnni"),
    F7C(12, "avx512_bitalg"),
    F7C(14, "avx512_vpopcntdq"),
    F7C(22, "rdpid"),
    F7D(4, "fsrm"),
    F7D(10, "md_clear"),
    F7D(14, "serialize"),
    F7D(23, "avx512_fp16"),
    F7D(29, "arch_capabilities"),
};

static bool has_flag(const struct cpu_flag *f)
{
    unsigned r[4] = {0};

    if (!__get_cpuid_count(f->leaf, f->subleaf, &r[REG_A], &r[REG_B], &r[REG_C], &r[REG_D]))
        return false;
    return r[f->reg] >> f->bit & 1;
}

struct cpu_model {
    char vendor[13], brand[49];
    unsigned family, model, stepping, cpuid_level, clflush, phys_bits, virt_bits;
};

static void read_model(struct cpu_model *m)
{
    unsigned a, b, c, d, regs[12] = {0};

    memset(m, 0, sizeof(*m));
    __cpuid(0, m->cpuid_level, b, c, d);
    memcpy(m->vendor, &b, 4);
    memcpy(m->vendor + 4, &d, 4);
    memcpy(m->vendor + 8, &c, 4);
    __cpuid(1, a, b, c, d);
    m->stepping = a & 15;
    m->family = a >> 8 & 15;
    m->model = (a >> 4 & 15) | (a >> 12 & 0xf0);
    if (m->family == 15)
        m->family += a >> 20 & 255;
    m->clflush = (b >> 8 & 255) * 8;
    for (unsigned i = 0; i < 3; i++)
        __get_cpuid(0x80000002u + i, &regs[i * 4], &regs[i * 4 + 1], &regs[i * 4 + 2],
                    &regs[i * 4 + 3]);
    memcpy(m->brand, regs, 48);
    m->phys_bits = 46;
    m->virt_bits = 48;
    if (__get_cpuid(0x80000008u, &a, &b, &c, &d)) {
        m->phys_bits = a & 255;
        m->virt_bits = a >> 8 & 255;
    }
}

int proc_show_cpuinfo(const struct proc_ctx *pc, FILE *out)
{
    struct kernel_info k;
    struct cpu_model m;

    kernel_info(pc->k, &k);
    read_model(&m);
    for (int i = 0; i < k.cpus; i++) {
        fprintf(out, "processor\t: %d\nvendor_id\t: %s\ncpu family\t: %u\nmodel\t\t: %u\n", i,
                m.vendor, m.family, m.model);
        fprintf(out, "model name\t: %s\nstepping\t: %u\n", m.brand[0] ? m.brand : "unknown",
                m.stepping);
        fprintf(out, "physical id\t: 0\nsiblings\t: %d\ncore id\t\t: %d\ncpu cores\t: %d\n", k.cpus,
                i, k.cpus);
        fprintf(out, "apicid\t\t: %d\ninitial apicid\t: %d\nfpu\t\t: yes\nfpu_exception\t: yes\n",
                i, i);
        fprintf(out, "cpuid level\t: %u\nwp\t\t: yes\nflags\t\t:", m.cpuid_level);
        for (size_t f = 0; f < ARRAY_SIZE(flags); f++)
            if (has_flag(&flags[f]))
                fprintf(out, " %s", flags[f].name);
        fprintf(out, "\nclflush size\t: %u\ncache_alignment\t: %u\n", m.clflush, m.clflush);
        fprintf(out, "address sizes\t: %u bits physical, %u bits virtual\npower management:\n\n",
                m.phys_bits, m.virt_bits);
    }
    return 0;
}
