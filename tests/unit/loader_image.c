/* Programs into address spaces: what lies where afterwards, and what is refused. Real mm on a fake
 * platform; files are host files. */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "mm_fake.h"

#include "base/limits.h"
#include "sentry/cred/cred.h"
#include "sentry/loader/loader.h"

/* ---- files ---- */

struct image_file {
    struct file f;
    struct fake_file host;
    const char *path;
};

#define FILES 12
static struct image_file files[FILES];
static size_t file_count;
static struct vfs_caller caller;

static struct image_file *image_file(struct file *f)
{
    return container_of(f, struct image_file, f);
}

static struct file *file_make(const char *path, const void *data, size_t size)
{
    struct image_file *i = &files[file_count++];

    cr_assert(file_count <= FILES);
    fake_file_new(&i->host, 0);
    i->host.size = size;
    cr_assert(pwrite(i->host.fd, data, size, 0) == (ssize_t)size);
    ref_init(&i->f.ref);
    i->path = path;
    return &i->f;
}

struct file *file_get(struct file *f)
{
    ref_get(&f->ref);
    return f;
}

void file_put(struct file *f)
{
    cr_assert_not(ref_put(&f->ref));
}

int64_t vfs_pread_kernel(struct file *f, void *buf, size_t size, int64_t off)
{
    ssize_t n = pread(image_file(f)->host.fd, buf, size, off);

    return n < 0 ? -errno : n;
}

int vfs_mmap(struct file *f, int prot, int flags, int *out_max_prot, struct mappable **out)
{
    (void)prot;
    (void)flags;
    *out_max_prot = RWX;
    *out = &image_file(f)->host.m;
    fake_file_get(*out);
    return 0;
}

int image_open(const struct vfs_caller *c, const struct vpath *base, const char *path,
               unsigned lookup_flags, struct file **out_file)
{
    cr_assert(c == &caller && base == NULL && lookup_flags == VFS_FOLLOW);
    for (size_t i = 0; i < file_count; i++) {
        if (strcmp(files[i].path, path) == 0) {
            *out_file = file_get(&files[i].f);
            return 0;
        }
    }
    return -ENOENT;
}

int image_cred(const struct vfs_caller *c, struct file *exe, struct cred **out_cred,
               bool *out_secure)
{
    (void)exe;
    *out_cred = cred_get(c->cred);
    *out_secure = true;
    return 0;
}

struct plat *kernel_plat(struct kernel *k)
{
    (void)k;
    return &fake_plat;
}

struct memfile *kernel_memfile(struct kernel *k)
{
    (void)k;
    return fake_mf;
}

/* ---- images ---- */

struct elf_builder {
    uint8_t data[16384];
    size_t size;
    Elf64_Ehdr eh;
    Elf64_Phdr ph[8];
};

static void elf_begin(struct elf_builder *b, uint16_t type, uint64_t entry)
{
    memset(b, 0, sizeof(*b));
    memcpy(b->eh.e_ident, ELFMAG, SELFMAG);
    b->eh.e_ident[EI_CLASS] = ELFCLASS64;
    b->eh.e_ident[EI_DATA] = ELFDATA2LSB;
    b->eh.e_ident[EI_VERSION] = EV_CURRENT;
    b->eh.e_type = type;
    b->eh.e_machine = EM_X86_64;
    b->eh.e_version = EV_CURRENT;
    b->eh.e_entry = entry;
    b->eh.e_phoff = sizeof(b->eh);
    b->eh.e_ehsize = sizeof(b->eh);
    b->eh.e_phentsize = sizeof(Elf64_Phdr);
    for (size_t i = 0; i < sizeof(b->data); i++)
        b->data[i] = (uint8_t)(i / 256 + 1);
}

static Elf64_Phdr *elf_segment(struct elf_builder *b, uint32_t type, uint32_t flags, uint64_t off,
                               uint64_t vaddr, uint64_t filesz, uint64_t memsz)
{
    Elf64_Phdr *p = &b->ph[b->eh.e_phnum++];

    *p = (Elf64_Phdr){.p_type = type,
                      .p_flags = flags,
                      .p_offset = off,
                      .p_vaddr = vaddr,
                      .p_paddr = vaddr,
                      .p_filesz = filesz,
                      .p_memsz = memsz,
                      .p_align = PAGE_SIZE};
    return p;
}

static struct file *elf_end(struct elf_builder *b, const char *path, size_t size)
{
    memcpy(b->data, &b->eh, sizeof(b->eh));
    memcpy(b->data + b->eh.e_phoff, b->ph, b->eh.e_phnum * sizeof(Elf64_Phdr));
    return file_make(path, b->data, size);
}

/* text at base, data with a .bss that begins inside of a page and goes on for two more. */
static void elf_standard(struct elf_builder *b, uint16_t type, uint64_t base)
{
    elf_begin(b, type, base + 0x100);
    elf_segment(b, PT_LOAD, PF_R | PF_X, 0, base, 0x1800, 0x1800);
    elf_segment(b, PT_LOAD, PF_R | PF_W, 0x2000, base + 0x4000, 0x345, 0x2800);
    elf_segment(b, PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0);
}

/* ---- a load ---- */

static const char arg_text[] = "prog\0one\0";
static const char env_text[] = "A=1\0B=2\0PATH=/bin\0";

static int load_with(struct file *f, const struct image_strings *argv, uint64_t stack_limit,
                     struct task_image *img)
{
    static const struct mm_limits lim = {UINT64_MAX, UINT64_MAX, 8u << 20, 64u << 10, false, false};
    const struct task_image_args args = {
        .caller = &caller,
        .file = f,
        .filename = "/bin/prog",
        .argv = *argv,
        .envp = {env_text, sizeof(env_text) - 1, 3},
        .stack_limit = stack_limit,
        .limits = &lim,
    };

    return loader_load(&args, img);
}

static int load(struct file *f, struct task_image *img)
{
    const struct image_strings argv = {arg_text, sizeof(arg_text) - 1, 2};

    return load_with(f, &argv, 8u << 20, img);
}

static void image_end(struct task_image *img)
{
    mm_put(img->mm);
    file_put(img->exe);
    cred_put(img->cred);
}

static void setup(void)
{
    fake_init();
    cr_assert_eq(cred_new_root(0, &caller.cred), 0);
    caller.cred->uid = 5;
    caller.cred->euid = 6;
    caller.cred->gid = 7;
    caller.cred->egid = 8;
}

/* Nothing is left but the vDSO's pages. */
static void teardown(void)
{
    for (size_t i = 0; i < file_count; i++) {
        cr_assert_eq(ref_read(&files[i].f.ref), 1);
        fake_file_end(&files[i].host);
    }
    cr_assert_eq(ref_read(&caller.cred->ref), 1);
    cred_put(caller.cred);
    cr_assert_eq(atomic_load(&fake_as_live), 0);
    cr_assert_eq(objcount_report(), 0);
}

TestSuite(loader, .init = setup, .fini = teardown);

static uint64_t word_at(const struct task_image *img, uint64_t addr)
{
    const struct uaccess ua = {.mm = img->mm};
    uint64_t v;

    cr_assert_eq(copyin_obj(&ua, &v, uaddr(addr)), 0, "0x%lx", addr);
    return v;
}

static int byte_at(const struct task_image *img, uint64_t addr)
{
    const struct uaccess ua = {.mm = img->mm};
    uint8_t v;

    return copyin_obj(&ua, &v, uaddr(addr)) == 0 ? v : -1;
}

static void check_string(const struct task_image *img, uint64_t addr, const char *want)
{
    const struct uaccess ua = {.mm = img->mm};
    char buf[64];

    cr_assert_eq(copyin_str(&ua, buf, uaddr(addr), sizeof(buf), -E2BIG), (int64_t)strlen(want));
    cr_assert_str_eq(buf, want);
}

/* The value of an entry; at points to the first. */
static uint64_t auxv_value(const struct task_image *img, uint64_t at, uint64_t key)
{
    for (int i = 0; i < 40; i++, at += 16) {
        const uint64_t k = word_at(img, at);
        if (k == key)
            return word_at(img, at + 8);
        cr_assert_neq(k, AT_NULL, "no entry %lu", key);
    }
    cr_assert_fail("no end");
    return 0;
}

#define BASE 0x400000ull

Test(loader, segments)
{
    static struct elf_builder b;
    struct task_image img;

    elf_standard(&b, ET_EXEC, BASE);
    cr_assert_eq(load(elf_end(&b, "/bin/prog", 0x2345), &img), 0);
    cr_assert_eq(img.entry, BASE + 0x100);
    cr_assert_str_eq(img.comm, "prog");
    cr_assert(img.secure);
    cr_assert_eq(byte_at(&img, BASE), 0x7f);
    cr_assert_eq(byte_at(&img, BASE + 0x17ff), 0x18);
    /* The rest of the page comes from the file too. */
    cr_assert_eq(byte_at(&img, BASE + 0x1fff), 0x20);
    cr_assert_eq(byte_at(&img, BASE + 0x2000), -1);
    cr_assert_eq(byte_at(&img, BASE + 0x4000), 0x21);
    cr_assert_eq(byte_at(&img, BASE + 0x4344), 0x24);
    for (uint64_t a = BASE + 0x4345; a < BASE + 0x7000; a++)
        cr_assert_eq(byte_at(&img, a), 0, "0x%lx", a);
    cr_assert_eq(byte_at(&img, BASE + 0x7000), -1);
    const struct mm_layout *l = mm_layout(img.mm);
    cr_assert_eq(l->start_code, BASE);
    cr_assert_eq(l->end_code, BASE + 0x1800);
    cr_assert_eq(l->start_data, BASE + 0x4000);
    cr_assert_eq(l->end_data, BASE + 0x4345);
    cr_assert_geq(l->start_brk, BASE + 0x7000);
    image_end(&img);
}

Test(loader, stack)
{
    static struct elf_builder b;
    struct task_image img;

    elf_standard(&b, ET_EXEC, BASE);
    cr_assert_eq(load(elf_end(&b, "/bin/prog", 0x2345), &img), 0);
    uint64_t at = img.stack;
    cr_assert_eq(at % 16, 0);
    cr_assert_eq(word_at(&img, at), 2);
    check_string(&img, word_at(&img, at + 8), "prog");
    check_string(&img, word_at(&img, at + 16), "one");
    cr_assert_eq(word_at(&img, at + 24), 0);
    check_string(&img, word_at(&img, at + 32), "A=1");
    check_string(&img, word_at(&img, at + 40), "B=2");
    check_string(&img, word_at(&img, at + 48), "PATH=/bin");
    cr_assert_eq(word_at(&img, at + 56), 0);
    at += 64;
    cr_assert_eq(auxv_value(&img, at, AT_PHDR), BASE + 64);
    cr_assert_eq(auxv_value(&img, at, AT_PHENT), 56);
    cr_assert_eq(auxv_value(&img, at, AT_PHNUM), 3);
    cr_assert_eq(auxv_value(&img, at, AT_ENTRY), BASE + 0x100);
    cr_assert_eq(auxv_value(&img, at, AT_BASE), 0);
    cr_assert_eq(auxv_value(&img, at, AT_PAGESZ), 4096);
    cr_assert_eq(auxv_value(&img, at, AT_CLKTCK), 100);
    cr_assert_eq(auxv_value(&img, at, AT_UID), 5);
    cr_assert_eq(auxv_value(&img, at, AT_EUID), 6);
    cr_assert_eq(auxv_value(&img, at, AT_GID), 7);
    cr_assert_eq(auxv_value(&img, at, AT_EGID), 8);
    cr_assert_eq(auxv_value(&img, at, AT_SECURE), 1);
    cr_assert_eq(auxv_value(&img, at, AT_HWCAP), getauxval(AT_HWCAP));
    check_string(&img, auxv_value(&img, at, AT_EXECFN), "/bin/prog");
    check_string(&img, auxv_value(&img, at, AT_PLATFORM), "x86_64");
    cr_assert_neq(word_at(&img, auxv_value(&img, at, AT_RANDOM)), 0);
    const uint64_t vdso = auxv_value(&img, at, AT_SYSINFO_EHDR);
    cr_assert_eq((uint32_t)word_at(&img, vdso), 0x464c457fu);
    const struct mm_layout *l = mm_layout(img.mm);
    cr_assert_eq(l->vdso, vdso);
    cr_assert_eq(l->arg_end - l->arg_start, sizeof(arg_text) - 1);
    cr_assert_eq(l->env_end - l->env_start, sizeof(env_text) - 1);
    image_end(&img);
}

/* Whether the pages at addr may be executed. */
static bool may_execute(const struct task_image *img, uint64_t addr)
{
    struct mm_vma_info *v = malloc(sizeof(*v));

    cr_assert_eq(mm_vma_next(img->mm, addr, v), 0);
    cr_assert_leq(v->start, addr);
    const bool x = v->prot & PROT_EXEC;
    free(v);
    return x;
}

Test(loader, executable_stack)
{
    static struct elf_builder b;
    struct task_image img;

    elf_standard(&b, ET_EXEC, BASE);
    cr_assert_eq(load(elf_end(&b, "/bin/prog", 0x2345), &img), 0);
    cr_assert_not(may_execute(&img, img.stack));
    cr_assert(may_execute(&img, BASE));
    cr_assert_not(may_execute(&img, BASE + 0x4000));
    image_end(&img);
    elf_standard(&b, ET_EXEC, BASE);
    b.ph[2].p_flags |= PF_X;
    cr_assert_eq(load(elf_end(&b, "/bin/prog2", 0x2345), &img), 0);
    cr_assert(may_execute(&img, img.stack));
    image_end(&img);
}

Test(loader, position_independent)
{
    static struct elf_builder b;
    struct task_image img;

    elf_standard(&b, ET_DYN, 0);
    b.ph[0].p_align = 0x200000;
    cr_assert_eq(load(elf_end(&b, "/bin/prog", 0x2345), &img), 0);
    const uint64_t bias = img.entry - 0x100;
    cr_assert_eq(bias % 0x200000, 0);
    cr_assert_neq(bias, 0);
    cr_assert_eq(byte_at(&img, bias), 0x7f);
    cr_assert_eq(byte_at(&img, bias + 0x4344), 0x24);
    cr_assert_eq(byte_at(&img, bias + 0x4345), 0);
    image_end(&img);
}

static void elf_interp(struct elf_builder *b, const char *interp)
{
    elf_segment(b, PT_INTERP, PF_R, 0x800, 0x800, strlen(interp) + 1, strlen(interp) + 1);
    memcpy(b->data + 0x800, interp, strlen(interp) + 1);
}

Test(loader, interpreter)
{
    static struct elf_builder b;
    struct task_image img;

    elf_standard(&b, ET_DYN, 0);
    elf_end(&b, "/lib/ld.so", 0x2345);
    elf_standard(&b, ET_EXEC, BASE);
    elf_interp(&b, "/lib/ld.so");
    cr_assert_eq(load(elf_end(&b, "/bin/prog", 0x2345), &img), 0);
    const uint64_t aux = img.stack + 64;
    const uint64_t base = auxv_value(&img, aux, AT_BASE);
    cr_assert_neq(base, 0);
    cr_assert_eq(img.entry, base + 0x100);
    cr_assert_eq(auxv_value(&img, aux, AT_ENTRY), BASE + 0x100);
    cr_assert_eq(byte_at(&img, base), 0x7f);
    cr_assert_eq(image_file(img.exe)->path[5], 'p');
    image_end(&img);
}

Test(loader, interpreter_errors)
{
    static struct elf_builder b;
    struct task_image img;

    elf_standard(&b, ET_EXEC, BASE);
    elf_interp(&b, "/lib/nothing");
    cr_assert_eq(load(elf_end(&b, "/bin/a", 0x2345), &img), -ENOENT);
    file_make("/lib/text", "not an elf file, but long enough for a header of one, is it not?", 64);
    elf_standard(&b, ET_EXEC, BASE);
    elf_interp(&b, "/lib/text");
    cr_assert_eq(load(elf_end(&b, "/bin/b", 0x2345), &img), -ELIBBAD);
    /* No NUL at its end. */
    elf_standard(&b, ET_EXEC, BASE);
    elf_interp(&b, "/lib/text");
    b.ph[3].p_filesz--;
    cr_assert_eq(load(elf_end(&b, "/bin/c", 0x2345), &img), -ENOEXEC);
    elf_standard(&b, ET_EXEC, BASE);
    elf_interp(&b, "/lib/text");
    b.ph[3].p_filesz = LIMIT_ELF_INTERP + 1;
    cr_assert_eq(load(elf_end(&b, "/bin/d", 0x2345), &img), -ENOEXEC);
}

/* One thing wrong at a time. */
Test(loader, bad_headers)
{
    static struct elf_builder b;
    struct task_image img;

    for (int i = 0; i < 11; i++) {
        elf_standard(&b, ET_EXEC, BASE);
        size_t size = 0x2345;
        switch (i) {
        case 0:
            b.eh.e_machine = EM_AARCH64;
            break;
        case 1:
            b.eh.e_type = ET_REL;
            break;
        case 2:
            b.eh.e_ident[EI_CLASS] = ELFCLASS32;
            break;
        case 3:
            b.eh.e_phentsize = 32;
            break;
        case 4:
            b.ph[1].p_filesz = b.ph[1].p_memsz + 1;
            break;
        case 5:
            b.ph[1].p_vaddr = UINT64_MAX - 0x10;
            break;
        case 6:
            b.ph[1].p_vaddr = BASE - 0x10000;
            break;
        case 7:
            b.ph[1].p_offset += 8;
            break;
        case 8:
            size = 100;
            break;
        case 9:
            b.eh.e_entry = UINT64_C(1) << 48;
            break;
        default:
            b.ph[0].p_type = b.ph[1].p_type = PT_NOTE;
            break;
        }
        struct file *f = elf_end(&b, "/bin/bad", size);
        cr_assert_eq(load(f, &img), -ENOEXEC, "case %d", i);
    }
}

static int load_script(const char *text, struct task_image *img)
{
    return load(file_make("/bin/script", text, strlen(text)), img);
}

Test(loader, scripts)
{
    static struct elf_builder b;
    struct task_image img;

    elf_standard(&b, ET_EXEC, BASE);
    elf_end(&b, "/bin/sh", 0x2345);
    cr_assert_eq(load_script("#! /bin/sh  -e -x \nrest", &img), 0);
    cr_assert_eq(word_at(&img, img.stack), 4);
    check_string(&img, word_at(&img, img.stack + 8), "/bin/sh");
    check_string(&img, word_at(&img, img.stack + 16), "-e -x");
    check_string(&img, word_at(&img, img.stack + 24), "/bin/prog");
    check_string(&img, word_at(&img, img.stack + 32), "one");
    cr_assert_eq(image_file(img.exe)->path[5], 's');
    cr_assert_str_eq(img.comm, "prog");
    image_end(&img);
    cr_assert_eq(load_script("#!/bin/nothing\n", &img), -ENOENT);
    cr_assert_eq(load_script("#!   \n", &img), -ENOEXEC);
    cr_assert_eq(load_script("#!", &img), -ENOEXEC);
    cr_assert_eq(load_script("", &img), -ENOEXEC);
    /* Found under its own name, this one never comes to an end. */
    file_make("/bin/loop", "#!/bin/loop\n", 12);
    cr_assert_eq(load_script("#!/bin/loop\n", &img), -ELOOP);
}

Test(loader, too_big)
{
    static struct elf_builder b;
    struct task_image img;
    const size_t size = 300 * 1024;
    char *text = calloc(1, size);

    elf_standard(&b, ET_EXEC, BASE);
    struct file *f = elf_end(&b, "/bin/prog", 0x2345);
    memset(text, 'x', size - 1);
    const struct image_strings argv = {text, size, 1};
    /* A quarter of the stack, but at least what has always been allowed. */
    cr_assert_eq(load_with(f, &argv, 1u << 20, &img), -E2BIG);
    cr_assert_eq(load_with(f, &argv, 8u << 20, &img), 0);
    image_end(&img);
    const struct image_strings small = {text + size - 100 * 1024, 100 * 1024, 1};
    cr_assert_eq(load_with(f, &small, 4096, &img), 0);
    image_end(&img);
    free(text);
}
