#include "runsc/symbols.h"

#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct symbol {
    uint64_t at, size;
    const char *name; /* of the ELF file's strings */
};

struct symbols {
    Elf *elf; /* owned */
    int fd;
    uint64_t begin, end; /* of the code, where the process has it */
    uint64_t base;       /* what the file's addresses are moved by */
    struct symbol *v;    /* by address; owned */
    size_t count;
};

/* The program's mappings, found by their file: the lowest is where its first page lies. */
static int symbols_place(struct symbols *s, pid_t pid, const struct stat *st)
{
    char path[64], line[512], perm[5];
    uint64_t from, to, off, inode;
    unsigned major_nr, minor_nr;

    (void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return -errno;
    s->base = UINT64_MAX;
    while (fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64, &from, &to, perm,
                   &off, &major_nr, &minor_nr, &inode) != 7 ||
            inode != st->st_ino || makedev(major_nr, minor_nr) != st->st_dev)
            continue;
        if (s->base == UINT64_MAX)
            s->base = from - off;
        if (perm[2] == 'x') {
            s->begin = from;
            s->end = to;
        }
    }
    (void)fclose(f);
    return s->base == UINT64_MAX || s->end == 0 ? -ENOENT : 0;
}

static int symbols_compare(const void *a, const void *b)
{
    const struct symbol *x = a, *y = b;

    return x->at < y->at ? -1 : x->at > y->at;
}

static int symbols_add(struct symbols *s, Elf_Scn *scn, const GElf_Shdr *sh)
{
    Elf_Data *data = elf_getdata(scn, NULL);
    const size_t count = sh->sh_entsize != 0 ? sh->sh_size / sh->sh_entsize : 0;
    struct symbol *v = calloc(count + 1, sizeof(*v));
    GElf_Sym sym;

    if (v == NULL)
        return -ENOMEM;
    s->v = v;
    for (size_t i = 0; data != NULL && i < count; i++) {
        if (gelf_getsym(data, (int)i, &sym) == NULL || GELF_ST_TYPE(sym.st_info) != STT_FUNC ||
            sym.st_shndx == SHN_UNDEF)
            continue;
        const char *name = elf_strptr(s->elf, sh->sh_link, sym.st_name);
        if (name != NULL)
            v[s->count++] =
                (struct symbol){.at = sym.st_value + s->base, .size = sym.st_size, .name = name};
    }
    qsort(v, s->count, sizeof(*v), symbols_compare);
    return 0;
}

static int symbols_read(struct symbols *s)
{
    Elf_Scn *scn = NULL;
    GElf_Shdr sh;

    if (elf_version(EV_CURRENT) == EV_NONE)
        return -ENOTSUP;
    s->elf = elf_begin(s->fd, ELF_C_READ, NULL);
    if (s->elf == NULL)
        return -ENOEXEC;
    while ((scn = elf_nextscn(s->elf, scn)) != NULL)
        if (gelf_getshdr(scn, &sh) != NULL && sh.sh_type == SHT_SYMTAB)
            return symbols_add(s, scn, &sh);
    return 0; /* stripped */
}

int symbols_open(pid_t pid, struct symbols **out, struct err *e)
{
    struct symbols *s = calloc(1, sizeof(*s));
    char path[64];
    struct stat st;
    int r;

    if (s == NULL)
        return err_set(e, ENOMEM, "out of memory");
    (void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    r = s->fd < 0 || fstat(s->fd, &st) != 0 ? -errno : symbols_place(s, pid, &st);
    if (r == 0)
        r = symbols_read(s);
    if (r != 0) {
        symbols_close(s);
        return err_errno(e, -r, "the program of process %d", (int)pid);
    }
    *out = s;
    return 0;
}

void symbols_close(struct symbols *s)
{
    if (s == NULL)
        return;
    if (s->elf != NULL)
        (void)elf_end(s->elf);
    if (s->fd >= 0)
        (void)close(s->fd);
    free(s->v);
    free(s);
}

bool symbols_covers(const struct symbols *s, uint64_t addr)
{
    return addr >= s->begin && addr < s->end;
}

const char *symbols_find(const struct symbols *s, uint64_t addr, uint64_t *out_offset)
{
    size_t low = 0, high = s->count;

    if (!symbols_covers(s, addr))
        return NULL;
    /* The last one that begins at or before addr. */
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (s->v[middle].at <= addr)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0 || (s->v[low - 1].size != 0 && addr - s->v[low - 1].at >= s->v[low - 1].size))
        return NULL;
    *out_offset = addr - s->v[low - 1].at;
    return s->v[low - 1].name;
}

bool symbols_section(const struct symbols *s, const char *name, struct symbols_section *out)
{
    Elf_Scn *scn = NULL;
    size_t names;
    GElf_Shdr sh;

    if (elf_getshdrstrndx(s->elf, &names) != 0)
        return false;
    while ((scn = elf_nextscn(s->elf, scn)) != NULL) {
        const char *n =
            gelf_getshdr(scn, &sh) != NULL ? elf_strptr(s->elf, names, sh.sh_name) : NULL;
        const Elf_Data *d = n != NULL && strcmp(n, name) == 0 ? elf_rawdata(scn, NULL) : NULL;
        if (d == NULL || d->d_buf == NULL)
            continue;
        *out = (struct symbols_section){.data = d->d_buf, .size = d->d_size, .addr = sh.sh_addr};
        return true;
    }
    return false;
}

uint64_t symbols_base(const struct symbols *s)
{
    return s->base;
}
