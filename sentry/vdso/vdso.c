#include "sentry/vdso/vdso.h"

#include <errno.h>
#include <gelf.h>
#include <libelf.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "platform/platform.h"
#include "sentry/mem/memfile.h"
#include "sentry/mm/mm.h"
#include "sentry/vdso/table.h"

extern const uint8_t vdso_image[], vdso_image_end[];

/* The image and its table as something that can be mapped: bytes of the memory file. */
struct vdso {
    struct mappable m;
    struct memfile *mf;
    uint64_t off, size;
};

static struct vdso vdso;
static pthread_mutex_t vdso_mu = PTHREAD_MUTEX_INITIALIZER;

static int vdso_translate(struct mappable *m, uint64_t off, uint64_t size, unsigned access,
                          struct mappable_range *out)
{
    (void)m;
    if (access & PLAT_WRITE)
        return -EACCES;
    if (off >= vdso.size)
        return -ERANGE;
    *out = (struct mappable_range){
        .in_memfile = true,
        .fd = -1,
        .off = vdso.off + off,
        .size = MIN(size, vdso.size - off),
    };
    return memfile_ref(vdso.mf, out->off, out->size);
}

static void vdso_keep(struct mappable *m)
{
    (void)m;
}

static void vdso_describe(struct mappable *m, uint64_t *out_dev, uint64_t *out_ino, char *path,
                          size_t size)
{
    (void)m;
    *out_dev = 0;
    *out_ino = 0;
    if (size > 0)
        path[0] = '\0';
}

static const struct mappable_ops vdso_ops = {
    .translate = vdso_translate,
    .get = vdso_keep,
    .put = vdso_keep,
    .describe = vdso_describe,
};

/* ---- the host's functions ---- */

/* Symbols of the host's vDSO as this process has it; in the stubs it may lie elsewhere. */
struct host_image {
    Elf *elf; /* owned */
    Elf_Data *symbols;
    size_t count, strings; /* symbols; index of their string table */
};

static bool host_image_open(uint64_t base, struct host_image *h)
{
    const Elf64_Ehdr *eh = (const Elf64_Ehdr *)(uintptr_t)base;
    size_t size = eh->e_shoff + (size_t)eh->e_shnum * eh->e_shentsize;
    Elf_Scn *section = NULL;
    GElf_Shdr sh;

    *h = (struct host_image){0};
    (void)elf_version(EV_CURRENT);
    h->elf = elf_memory((char *)(uintptr_t)base, size);
    while ((section = elf_nextscn(h->elf, section)) != NULL) {
        if (gelf_getshdr(section, &sh) == NULL || sh.sh_type != SHT_DYNSYM || sh.sh_entsize == 0)
            continue;
        h->symbols = elf_getdata(section, NULL);
        h->count = sh.sh_size / sh.sh_entsize;
        h->strings = sh.sh_link;
        return h->symbols != NULL;
    }
    return false;
}

static uint64_t host_image_find(const struct host_image *h, const char *name)
{
    GElf_Sym sym;

    for (size_t i = 0; i < h->count && gelf_getsym(h->symbols, (int)i, &sym) != NULL; i++) {
        const char *text = elf_strptr(h->elf, h->strings, sym.st_name);
        if (sym.st_shndx != SHN_UNDEF && text != NULL && strcmp(text, name) == 0)
            return sym.st_value; /* the image is linked at 0 */
    }
    return 0;
}

/* Where the stubs call it; 0: they cannot. */
static uint64_t host_image_entry(const struct host_image *h, const struct plat *plat,
                                 const char *name)
{
    uint64_t at = host_image_find(h, name);

    return at != 0 ? at + plat->host_vdso : 0;
}

static void vdso_fill_table(const struct plat *plat, struct vdso_table *t)
{
    uint64_t own = getauxval(AT_SYSINFO_EHDR);
    struct host_image h;

    if (plat->host_vdso == 0 || own == 0)
        return;
    if (host_image_open(own, &h)) {
        t->clock_gettime = host_image_entry(&h, plat, "__vdso_clock_gettime");
        t->gettimeofday = host_image_entry(&h, plat, "__vdso_gettimeofday");
        t->clock_getres = host_image_entry(&h, plat, "__vdso_clock_getres");
        t->time = host_image_entry(&h, plat, "__vdso_time");
    }
    (void)elf_end(h.elf);
}

/* ---- making and mapping ---- */

static int vdso_make(const struct plat *plat, struct memfile *mf)
{
    uint64_t bytes = (uint64_t)(vdso_image_end - vdso_image);
    uint64_t size = PAGE_SIZE + ALIGN_UP(bytes, PAGE_SIZE);
    int r = memfile_alloc(mf, NULL, size, &vdso.off);

    if (r != 0)
        return r;
    vdso.mf = mf;
    vdso.size = size;
    mappable_init(&vdso.m, &vdso_ops);
    vdso_fill_table(plat, memfile_ptr(mf, vdso.off));
    memcpy(memfile_ptr(mf, vdso.off + PAGE_SIZE), vdso_image, bytes);
    return 0;
}

int vdso_map(struct mm *mm, struct plat *plat, struct memfile *mf, const struct mm_limits *lim,
             uint64_t *out_addr)
{
    struct mm_map_args a = {
        .prot = PROT_READ | PROT_EXEC,
        .flags = MAP_PRIVATE,
        /* Breakpoints and offsets go to a private copy. */
        .max_prot = PROT_READ | PROT_WRITE | PROT_EXEC,
        .m = &vdso.m,
        .name = "[vdso]",
    };
    uaddr_t at;
    int r = 0;

    pthread_mutex_lock(&vdso_mu);
    if (vdso.mf == NULL)
        r = vdso_make(plat, mf);
    pthread_mutex_unlock(&vdso_mu);
    if (r != 0)
        return r;
    a.size = vdso.size;
    r = mm_mmap(mm, NULL, lim, &a, &at);
    if (r == 0)
        *out_addr = at.v + PAGE_SIZE;
    return r;
}

static struct vdso_offset vdso_offset(int64_t ns)
{
    const int64_t sec = INT64_C(1000000000);
    const int64_t rest = ns % sec < 0 ? ns % sec + sec : ns % sec;

    return (struct vdso_offset){.sec = (ns - rest) / sec, .nsec = rest};
}

int vdso_set_offsets(struct mm *mm, int64_t mono_ns, int64_t boot_ns)
{
    const struct vdso_offset off[] = {vdso_offset(mono_ns), vdso_offset(boot_ns)};
    _Static_assert(offsetof(struct vdso_table, boot) ==
                       offsetof(struct vdso_table, mono) + sizeof(struct vdso_offset),
                   "written as one");
    uaddr_t at;

    if (!mm_find_start(mm, &vdso_ops, &at))
        return 0;
    at = uaddr_add(at, offsetof(struct vdso_table, mono));
    return mm_poke(mm, at, off, sizeof(off)) == sizeof(off) ? 0 : -ENOMEM;
}
