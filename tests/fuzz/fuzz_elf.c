/* A hostile program file through the loader: headers, segments, interpreter, #! lines, stack. What
 * is below the loader is replaced by checks of what it asks for. The input is the program; its
 * second half is what any interpreter turns out to be. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/limits.h"
#include "sentry/cred/cred.h"
#include "sentry/loader/loader.h"
#include "sentry/mm/mm.h"
#include "sentry/vdso/vdso.h"

#define MIN_ADDR UINT64_C(0x10000)
#define MAX_ADDR (UINT64_C(1) << 47)
#define STACK_TOP (MAX_ADDR - 0x10000)
#define MMAP_BASE UINT64_C(0x700000000000)
#define MAPS_MAX 4096
#define OPENS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- what the loader sees ---- */

static struct plat plat = {.min_addr = MIN_ADDR, .max_addr = MAX_ADDR};

struct mm {
    struct mm_layout layout;
    uint64_t next;
    size_t maps;
    struct {
        uint64_t start, end;
    } map[MAPS_MAX];
};

struct input {
    const uint8_t *data;
    size_t size;
};
static struct input program, interpreter;
static int live_mm, live_cred, live_map, opens;

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "FAIL: %s:%d: %s\n", __FILE__, __LINE__, #cond);                       \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int mm_new(struct plat *p, struct memfile *mf, struct mm **out_mm)
{
    struct mm *mm = calloc(1, sizeof(*mm));

    (void)p;
    (void)mf;
    if (!mm)
        return -ENOMEM;
    mm->next = MMAP_BASE;
    live_mm++;
    *out_mm = mm;
    return 0;
}

void mm_loaded(struct mm *mm)
{
    (void)mm;
}

void mm_set_account(struct mm *mm, struct memacct *acct)
{
    (void)mm;
    (void)acct;
}

void mm_fix_layout(struct mm *mm)
{
    (void)mm;
}

void mm_put(struct mm *mm)
{
    if (!mm)
        return;
    live_mm--;
    free(mm);
}

struct mm_layout *mm_layout(struct mm *mm)
{
    return &mm->layout;
}

uint64_t mm_stack_top(const struct mm *mm)
{
    (void)mm;
    return STACK_TOP;
}

static bool mm_holds(const struct mm *mm, uint64_t addr, size_t size)
{
    /* Ranges that meet are not put together here: page by page. */
    for (uint64_t at = addr; at < addr + size; at = ALIGN_DOWN(at, PAGE_SIZE) + PAGE_SIZE) {
        bool found = false;
        for (size_t i = 0; i < mm->maps && !found; i++)
            found = at >= mm->map[i].start && at < mm->map[i].end;
        if (!found)
            return false;
    }
    return true;
}

int mm_mmap(struct mm *mm, struct plat_ctx *ctx, const struct mm_limits *lim,
            const struct mm_map_args *a, uaddr_t *out_addr)
{
    uint64_t addr = a->addr.v;

    (void)lim;
    CHECK(ctx == NULL);
    if (a->size == 0 || a->size > MAX_ADDR)
        return a->size == 0 ? -EINVAL : -ENOMEM;
    const uint64_t size = ALIGN_UP(a->size, PAGE_SIZE);
    if (a->flags & MAP_FIXED) {
        CHECK(addr % PAGE_SIZE == 0);
        CHECK(a->off % PAGE_SIZE == 0);
        if (addr < MIN_ADDR || addr >= MAX_ADDR || size > MAX_ADDR - addr)
            return -ENOMEM;
    } else {
        if (size > MAX_ADDR - mm->next)
            return -ENOMEM;
        addr = mm->next;
        mm->next += size;
    }
    if (mm->maps == MAPS_MAX)
        return -ENOMEM;
    mm->map[mm->maps].start = addr;
    mm->map[mm->maps++].end = addr + size;
    out_addr->v = addr;
    return 0;
}

int mm_munmap(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size)
{
    (void)ctx;
    CHECK(mm->maps > 0 && mm->map[mm->maps - 1].start == addr.v);
    CHECK(mm->map[mm->maps - 1].end == addr.v + ALIGN_UP(size, PAGE_SIZE));
    mm->maps--;
    return 0;
}

int user_zero(const struct uaccess *ua, uaddr_t dst, size_t size)
{
    CHECK(size < PAGE_SIZE && mm_holds(ua->mm, dst.v, size));
    return 0;
}

int copyout(const struct uaccess *ua, uaddr_t dst, const void *src, size_t size)
{
    volatile uint8_t last = 0;

    CHECK(mm_holds(ua->mm, dst.v, size));
    for (size_t i = 0; i < size; i += 64)
        last = ((const uint8_t *)src)[i];
    (void)last;
    return 0;
}

int vdso_map(struct mm *mm, struct plat *p, struct memfile *mf, const struct mm_limits *lim,
             uint64_t *out_addr)
{
    (void)mm;
    (void)p;
    (void)mf;
    (void)lim;
    *out_addr = 0;
    return 0;
}

/* ---- files ---- */

static void map_ref(struct mappable *m)
{
    (void)m;
    live_map++;
}

static void map_unref(struct mappable *m)
{
    (void)m;
    live_map--;
}

static const struct mappable_ops map_ops = {.get = map_ref, .put = map_unref};
static struct mappable map_any = {.ops = &map_ops};

static struct file *file_new(const struct input *in)
{
    struct file *f = calloc(1, sizeof(*f));

    CHECK(f != NULL);
    ref_init(&f->ref);
    memcpy(&f->priv, &in, sizeof(in));
    return f;
}

struct file *file_get(struct file *f)
{
    ref_get(&f->ref);
    return f;
}

void file_put(struct file *f)
{
    if (ref_put(&f->ref))
        free(f);
}

int64_t vfs_pread_kernel(struct file *f, void *buf, size_t size, int64_t off)
{
    const struct input *in = f->priv;

    CHECK(off >= 0);
    if ((uint64_t)off >= in->size)
        return 0;
    const size_t n = MIN(size, in->size - (size_t)off);
    if (n > 0)
        memcpy(buf, in->data + off, n);
    return (int64_t)n;
}

int vfs_mmap(struct file *f, int prot, int flags, int *out_max_prot, struct mappable **out)
{
    (void)f;
    (void)flags;
    *out_max_prot = prot;
    map_ref(&map_any);
    *out = &map_any;
    return 0;
}

int image_open(const struct vfs_caller *c, const struct vpath *base, const char *path,
               unsigned lookup_flags, struct file **out_file)
{
    (void)c;
    (void)base;
    (void)lookup_flags;
    CHECK(strlen(path) < LIMIT_ELF_INTERP);
    /* Scripts that name each other must come to an end. */
    CHECK(++opens < OPENS_MAX);
    *out_file = file_new(&interpreter);
    return 0;
}

int image_cred(const struct vfs_caller *c, struct file *exe, struct cred **out_cred,
               bool *out_secure)
{
    (void)exe;
    *out_cred = cred_get(c->cred);
    *out_secure = false;
    live_cred++;
    return 0;
}

struct plat *kernel_plat(struct kernel *k)
{
    (void)k;
    return &plat;
}

struct memfile *kernel_memfile(struct kernel *k)
{
    (void)k;
    return NULL;
}

/* ---- one run ---- */

static void check_image(const struct task_image *img)
{
    CHECK(img->mm != NULL && img->exe != NULL && img->cred != NULL);
    CHECK(img->stack % 16 == 0 && mm_holds(img->mm, img->stack, 8));
    CHECK(img->entry < MAX_ADDR);
    CHECK(memchr(img->comm, '\0', sizeof(img->comm)) != NULL);
    const struct mm_layout *l = &img->mm->layout;
    CHECK(l->start_brk == l->brk && l->brk % PAGE_SIZE == 0);
    CHECK(l->arg_start <= l->arg_end && l->env_start <= l->env_end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char strings[] = "argv0\0-x\0";
    struct mm_limits lim = {
        .as = UINT64_MAX, .data = UINT64_MAX, .stack = 8u << 20, .memlock = 64u << 10};
    struct vfs_caller caller = {.umask = 022};
    struct task_image img;

    program = (struct input){data, size};
    interpreter = (struct input){data + size / 2, size - size / 2};
    opens = 0;
    CHECK(cred_new_root(0, &caller.cred) == 0);
    const struct task_image_args args = {
        .caller = &caller,
        .file = file_new(&program),
        .filename = "/bin/program",
        .argv = {strings, sizeof(strings) - 1, 2},
        .envp = {"A=1", 4, 1},
        .stack_limit = 8u << 20,
        .limits = &lim,
    };
    int r = loader_load(&args, &img);
    CHECK(r <= 0 && r > -512);
    if (r == 0) {
        check_image(&img);
        mm_put(img.mm);
        file_put(img.exe);
        cred_put(img.cred);
    }
    CHECK(ref_read(&args.file->ref) == 1);
    file_put(args.file);
    CHECK(ref_read(&caller.cred->ref) == 1);
    cred_put(caller.cred);
    CHECK(live_mm == 0 && live_map == 0);
    return 0;
}
