/* Random operations on one file against a plain model of its bytes, and renames against walks. */
#include "harness.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>

CONF_FAMILY("fsx");

#define FILE_MAX (600 * 1024)
#define PIECE_MAX (70 * 1024)

/* What the file must hold, and how long it is. */
struct model {
    unsigned char bytes[FILE_MAX];
    size_t size;
};

struct run {
    struct model *m;
    unsigned char *buf;
    int fd, append;
    uint64_t seed;
};

static uint32_t rnd(struct run *r, uint32_t below)
{
    r->seed = r->seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(r->seed >> 33) % below;
}

static void fill(struct run *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        r->buf[i] = (unsigned char)(rnd(r, 255) + 1);
}

static void model_write(struct model *m, size_t off, const void *data, size_t n)
{
    if (off > m->size)
        memset(m->bytes + m->size, 0, off - m->size);
    memcpy(m->bytes + off, data, n);
    if (off + n > m->size)
        m->size = off + n;
}

static void model_resize(struct model *m, size_t n)
{
    if (n > m->size)
        memset(m->bytes + m->size, 0, n - m->size);
    m->size = n;
}

static void check_range(struct run *r, size_t off, size_t n)
{
    size_t want = off >= r->m->size ? 0 : r->m->size - off < n ? r->m->size - off : n;

    CHECK_EQ(pread(r->fd, r->buf, n, (off_t)off), want);
    for (size_t i = 0; i < want; i++)
        if (r->buf[i] != r->m->bytes[off + i])
            conf_fail(__FILE__, __LINE__, "byte %zu is %u, not %u (size %zu)", off + i, r->buf[i],
                      r->m->bytes[off + i], r->m->size);
}

static void do_write(struct run *r, size_t off, size_t n)
{
    fill(r, n);
    struct iovec v[2] = {{r->buf, n / 3}, {r->buf + n / 3, n - n / 3}};
    if (rnd(r, 4) == 0) {
        /* At the end, wherever the offset says. */
        if (r->m->size + n > FILE_MAX)
            return;
        CHECK_EQ(write(r->append, r->buf, n), n);
        model_write(r->m, r->m->size, r->buf, n);
        return;
    }
    if (rnd(r, 2) == 0)
        CHECK_EQ(pwritev(r->fd, v, 2, (off_t)off), n);
    else
        CHECK_EQ(pwrite(r->fd, r->buf, n, (off_t)off), n);
    model_write(r->m, off, r->buf, n);
}

static void do_map(struct run *r, size_t off, size_t n)
{
    size_t page = off & ~(CONF_PAGE - 1);

    if (off + n > r->m->size)
        return;
    unsigned char *p =
        OK(mmap(NULL, off + n - page, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, (off_t)page));
    CHECK(memcmp(p + (off - page), r->m->bytes + off, n) == 0);
    fill(r, n);
    memcpy(p + (off - page), r->buf, n);
    model_write(r->m, off, r->buf, n);
    OK(munmap(p, off + n - page));
}

static void do_punch(struct run *r, size_t off, size_t n)
{
    if (fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)n) != 0) {
        CHECK_EQ(errno, EOPNOTSUPP);
        return;
    }
    if (off >= r->m->size)
        return;
    memset(r->m->bytes + off, 0, off + n > r->m->size ? r->m->size - off : n);
}

static void do_allocate(struct run *r, size_t off, size_t n)
{
    int keep = rnd(r, 2) == 0 ? FALLOC_FL_KEEP_SIZE : 0;

    if (fallocate(r->fd, keep, (off_t)off, (off_t)n) != 0) {
        CHECK_EQ(errno, EOPNOTSUPP);
        return;
    }
    if (keep == 0 && off + n > r->m->size)
        model_resize(r->m, off + n);
}

static void do_copy(struct run *r, size_t from, size_t n)
{
    size_t to = rnd(r, FILE_MAX - PIECE_MAX);
    loff_t in = (loff_t)from, out = (loff_t)to;

    if (from + n > r->m->size || (to < from ? to + n > from : from + n > to))
        return;
    ssize_t done = OK(copy_file_range(r->fd, &in, r->fd, &out, n, 0));
    CHECK_EQ(in, (loff_t)from + done);
    memcpy(r->buf, r->m->bytes + from, (size_t)done);
    model_write(r->m, to, r->buf, (size_t)done);
}

/* Holes are zeros, data is found in order, and the last hole is the end. */
static void do_seek(struct run *r, size_t off)
{
    if (off >= r->m->size) {
        CHECK_ERRNO(lseek(r->fd, (off_t)off, SEEK_DATA), ENXIO);
        return;
    }
    off_t data = lseek(r->fd, (off_t)off, SEEK_DATA);
    off_t hole = OK(lseek(r->fd, (off_t)off, SEEK_HOLE));
    CHECK(hole >= (off_t)off && hole <= (off_t)r->m->size);
    size_t end = data < 0 ? r->m->size : (size_t)data;
    CHECK(end >= off);
    for (size_t i = off; i < end; i++)
        CHECK_EQ(r->m->bytes[i], 0);
}

static void step(struct run *r)
{
    size_t off = rnd(r, FILE_MAX - PIECE_MAX), n = 1 + rnd(r, rnd(r, 4) == 0 ? PIECE_MAX : 5000);
    struct stat st;

    switch (rnd(r, 10)) {
    case 0:
    case 1:
    case 2:
        do_write(r, off, n);
        break;
    case 3:
        OK(ftruncate(r->fd, (off_t)off));
        model_resize(r->m, off);
        break;
    case 4:
        do_map(r, off, n);
        break;
    case 5:
        do_punch(r, off, n);
        break;
    case 6:
        do_allocate(r, off, n);
        break;
    case 7:
        do_copy(r, off, n);
        break;
    case 8:
        do_seek(r, off);
        break;
    default:
        check_range(r, off, n);
        break;
    }
    OK(fstat(r->fd, &st));
    CHECK_EQ(st.st_size, r->m->size);
}

/* One file of its own, from its making to its end. */
static void fsx(uint64_t seed, int steps)
{
    struct run r = {.m = calloc(1, sizeof(struct model)), .buf = malloc(PIECE_MAX), .seed = seed};

    CHECK(r.m != NULL && r.buf != NULL);
    r.fd = OK(open("f", O_CREAT | O_RDWR, 0600));
    r.append = OK(open("f", O_WRONLY | O_APPEND));
    for (int i = 0; i < steps; i++) {
        step(&r);
        if (i % 50 == 0) {
            for (size_t at = 0; at < r.m->size; at += PIECE_MAX)
                check_range(&r, at, PIECE_MAX);
            OK(fsync(r.fd));
        }
    }
    OK(close(r.fd));
    OK(close(r.append));
    OK(unlink("f"));
    free(r.m);
    free(r.buf);
}

TEST_TIMEOUT(random_io, 120)
{
    for (uint64_t seed = 1; seed <= 6; seed++)
        fsx(seed, 400);
}

/* `conf_fsx --helper fsx SECONDS [FIRST-SEED]`, in the working directory: one file after the other.
 */
HELPER(fsx)
{
    int64_t end = conf_now() + (argc > 1 ? atoll(argv[1]) : 1) * 1000000000;
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 0) : 1000, seed = first;

    do
        fsx(seed++, 1000);
    while (conf_now() < end);
    conf_diag("seeds %llu to %llu", (unsigned long long)first, (unsigned long long)seed - 1);
    return 0;
}

/* Several files at once, in several processes. */
TEST_TIMEOUT(random_io_in_parallel, 120)
{
    pid_t kids[3];

    for (int k = 0; k < 3; k++) {
        kids[k] = conf_fork();
        if (kids[k] != 0)
            continue;
        char name[8];
        (void)snprintf(name, sizeof(name), "d%d", k);
        OK(mkdir(name, 0755));
        OK(chdir(name));
        fsx(100 + (uint64_t)k, 400);
        _exit(0);
    }
    for (int k = 0; k < 3; k++)
        CHECK_EXIT(kids[k], 0);
}

/* "..", names and links lead nowhere else while directories move. */
TEST_TIMEOUT(renames_against_walks, 60)
{
    struct stat st, top;

    OK(mkdir("jail", 0755));
    OK(mkdir("jail/a", 0755));
    OK(mkdir("jail/b", 0755));
    OK(mkdir("jail/a/d", 0755));
    OK(mkdir("jail/a/d/e", 0755));
    conf_put("jail/a/d/e/f", "inside");
    conf_put("outside", "no");
    OK(symlink("../../outside", "jail/a/d/link"));
    OK(stat(".", &top));
    volatile int *stop = conf_shared(sizeof(int));
    pid_t mover = conf_fork();
    if (mover == 0) {
        while (*stop == 0) {
            OK(rename("jail/a/d", "jail/b/d"));
            OK(rename("jail/b/d", "jail/a/d"));
        }
        _exit(0);
    }
    pid_t linker = conf_fork();
    if (linker == 0) {
        while (*stop == 0) {
            OK(symlink("e", "jail/a/t"));
            OK(rename("jail/a/t", "jail/a/s"));
            OK(unlink("jail/a/s"));
        }
        _exit(0);
    }
    int dir = OK(open("jail", O_RDONLY | O_DIRECTORY));
    for (int i = 0; i < 3000; i++) {
        if (fstatat(dir, i & 1 ? "a/d/e/f" : "b/d/e/f", &st, 0) != 0)
            CHECK_EQ(errno, ENOENT);
        else
            CHECK(S_ISREG(st.st_mode) && st.st_size == 6);
        if (fstatat(dir, "a/d/e/../../..", &st, 0) == 0)
            CHECK(S_ISDIR(st.st_mode) && st.st_ino != top.st_ino);
        else
            CHECK_EQ(errno, ENOENT);
    }
    *stop = 1;
    CHECK_EXIT(mover, 0);
    CHECK_EXIT(linker, 0);
}
