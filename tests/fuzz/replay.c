/* Runs a fuzz target without a fuzzer: over the files named, then over inputs made from a fixed
 * seed, so that every build has run each target a little. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INPUT_MAX 4096
#define RUNS 2000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int run_file(const char *path)
{
    static uint8_t data[1 << 20];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, data, sizeof(data)) : -1;

    if (fd >= 0)
        close(fd);
    if (n < 0) {
        perror(path);
        return 1;
    }
    LLVMFuzzerTestOneInput(data, (size_t)n);
    return 0;
}

/* Small numbers are likelier than others: they are lengths, counts and kinds. */
static void make_input(uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint64_t r = next_random();
        data[i] = (uint8_t)(r & 3 ? (r >> 8) & 15 : r >> 8);
    }
}

int main(int argc, char **argv)
{
    static uint8_t data[INPUT_MAX];
    int bad = 0;

    for (int i = 1; i < argc; i++)
        bad |= run_file(argv[i]);
    for (int i = 0; i < RUNS; i++) {
        size_t size = (size_t)(next_random() % (i % 8 ? 256 : INPUT_MAX));
        make_input(data, size);
        LLVMFuzzerTestOneInput(data, size);
    }
    printf("%s: %d files, %d made-up inputs\n", bad ? "FAIL" : "ok", argc - 1, RUNS);
    return bad;
}
