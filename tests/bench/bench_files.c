/* A guest program that measures file calls: bench_files KIND DIR [IMAGE]. Prints nanoseconds for
 * one round, the median of nine batches. DIR is on the file system that is meant; IMAGE, or
 * bench-image in DIR, is a file there of a mebibyte at least. Static. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BATCHES 9
#define BIG (1u << 20)

static const char *image;
static char path[4096], made[4096], buf[BIG];
static int fd;

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void must(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static void one_stat(void)
{
    struct stat st;

    must(stat(path, &st) == 0, "stat");
}

static void one_open(void)
{
    int f = open(path, O_RDONLY);

    must(f >= 0, "open");
    close(f);
}

static void one_read(void)
{
    int f = open(path, O_RDONLY);

    must(f >= 0 && read(f, buf, 4096) > 0, "read");
    close(f);
}

static void one_create(void)
{
    char name[4100];

    snprintf(name, sizeof(name), "%s/bench-new", made);
    int f = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
    must(f >= 0, "create");
    close(f);
    must(unlink(name) == 0, "unlink");
}

static void one_pread4k(void)
{
    must(pread(fd, buf, 4096, 4096) == 4096, "pread");
}

static void one_pwrite4k(void)
{
    must(pwrite(fd, buf, 4096, 4096) == 4096, "pwrite");
}

static void one_pread1m(void)
{
    must(pread(fd, buf, BIG, 0) == BIG, "pread");
}

static void one_pwrite1m(void)
{
    must(pwrite(fd, buf, BIG, 0) == BIG, "pwrite");
}

static void one_list(void)
{
    must(lseek(fd, 0, SEEK_SET) == 0, "lseek");
    while (syscall(SYS_getdents64, fd, buf, 65536) > 0)
        ;
}

static void open_data(const char *dir)
{
    snprintf(path, sizeof(path), "%s/bench-data", dir);
    fd = open(path, O_CREAT | O_RDWR, 0644);
    must(fd >= 0 && pwrite(fd, buf, BIG, 0) == BIG, "data");
}

/* A file of the image itself, untouched. */
static void open_image(const char *dir)
{
    snprintf(made, sizeof(made), "%s", dir);
    if (image)
        snprintf(path, sizeof(path), "%s", image);
    else
        snprintf(path, sizeof(path), "%s/bench-image", dir);
    fd = open(path, O_RDONLY);
    must(fd >= 0, "image");
}

static void make_list(const char *dir)
{
    snprintf(path, sizeof(path), "%s/bench-list", dir);
    must(mkdir(path, 0755) == 0 || access(path, F_OK) == 0, "mkdir");
    for (int i = 0; i < 10000; i++) {
        char name[4200];
        snprintf(name, sizeof(name), "%s/entry-%05d", path, i);
        int f = open(name, O_CREAT | O_WRONLY, 0644);
        must(f >= 0, "entry");
        close(f);
    }
    fd = open(path, O_RDONLY | O_DIRECTORY);
    must(fd >= 0, "list");
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*one)(void), (*setup)(const char *);
        int rounds;
    } kinds[] = {
        {"stat", one_stat, open_image, 2000},       {"open", one_open, open_image, 2000},
        {"read", one_read, open_image, 2000},       {"create", one_create, open_image, 500},
        {"pread4k", one_pread4k, open_image, 2000}, {"pwrite4k", one_pwrite4k, open_data, 2000},
        {"pread1m", one_pread1m, open_image, 400},  {"pwrite1m", one_pwrite1m, open_data, 400},
        {"list", one_list, make_list, 20},
    };
    double t[BATCHES];

    image = argc == 4 ? argv[3] : NULL;
    for (size_t k = 0; argc >= 3 && k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        if (strcmp(argv[1], kinds[k].name) != 0)
            continue;
        kinds[k].setup(argv[2]);
        kinds[k].one();
        for (int b = 0; b < BATCHES; b++) {
            double begin = now_ns();
            for (int i = 0; i < kinds[k].rounds; i++)
                kinds[k].one();
            t[b] = (now_ns() - begin) / kinds[k].rounds;
        }
        qsort(t, BATCHES, sizeof(t[0]), compare);
        printf("%.0f\n", t[BATCHES / 2]);
        return 0;
    }
    fprintf(stderr, "usage: bench_files KIND DIR [IMAGE]\n");
    return 2;
}
