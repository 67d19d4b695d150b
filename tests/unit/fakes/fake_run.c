/* A container on the fakes: started, waited for, and looked through for what it left behind. */
#include <criterion/criterion.h>
#include <errno.h>
#include <unistd.h>

#include "base/objcount.h"
#include "fakes.h"

_Atomic uint64_t fake_seed = 1;

uint64_t fake_chance(uint64_t n)
{
    uint64_t x = atomic_fetch_add(&fake_seed, 0x9e3779b97f4a7c15u);

    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return (x ^ x >> 31) % n;
}

int fake_cpus = 2;
static _Atomic int ended, end_status;

void fake_on_end(void *arg, int status)
{
    (void)arg;
    atomic_store(&end_status, status);
    atomic_store(&ended, 1);
}

struct kernel *fake_container_new(const struct sys_table *table)
{
    const struct kernel_config cfg = {
        .plat = fake_plat(),
        .syscalls = table,
        .load = fake_load,
        .memory_limit = 1u << 30,
        .cpus = fake_cpus,
    };
    struct kernel *k;

    cr_assert_eq(kernel_new(&cfg, &k), 0, "kernel_new");
    return k;
}

int fake_container_load(struct kernel *k, const char *path, kernel_exit_fn fn, int32_t *out_pid)
{
    const char *const argv[] = {path, NULL};
    struct kernel_exec x = {.path = path, .argv = argv, .envp = argv + 1, .cwd = "/"};
    struct cred *c;

    cr_assert_eq(cred_new_root((2ull << 40) - 1, &c), 0, "cred_new_root");
    for (int i = 0; i < 16; i++)
        x.rlimits[i][0] = x.rlimits[i][1] = UINT64_MAX;
    x.cred = c;
    x.ns = fake_mount_ns();
    x.new_session = true;
    int r = kernel_exec_load(k, &x, fn, NULL, out_pid);
    cred_put(c);
    return r;
}

void fake_container_end(struct kernel *k)
{
    kernel_free(k);
    cr_assert_eq(atomic_load(&fake_failures), 0, "a guest complained");
    cr_assert_eq(atomic_load(&fake_mm_live), 0, "address spaces left");
    cr_assert_eq(atomic_load(&fake_ctx_live), 0, "contexts left");
    cr_assert_eq(atomic_load(&fake_as_live), 0, "platform address spaces left");
    cr_assert_eq(atomic_load(&fake_file_live), 0, "files left");
    cr_assert_eq(objcount_report(), 0, "objects left");
}

int fake_container_await(void)
{
    for (int i = 0; i < 12000 && !atomic_load(&ended); i++)
        usleep(10000);
    cr_assert(atomic_load(&ended), "the container did not end");
    return atomic_load(&end_status);
}

int fake_run_init(const struct sys_table *table, fake_guest_fn init)
{
    struct kernel *k = fake_container_new(table);
    int32_t pid;

    fake_programs[0] = init;
    cr_assert_eq(fake_container_load(k, "/0", fake_on_end, &pid), 0, "load");
    cr_assert_eq(pid, 1, "pid 1");
    kernel_exec_start(k, pid);
    const int status = fake_container_await();
    fake_container_end(k);
    return status;
}
