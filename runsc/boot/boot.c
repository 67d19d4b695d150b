#include "runsc/boot/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/log.h"
#include "gofer/proto/client.h"
#include "platform/kvm/kvm.h"
#include "platform/ptrace/ptrace.h"
#include "platform/systrap/systrap.h"
#include "runsc/boot/boot_priv.h"
#include "runsc/sandbox/confine.h"
#include "runsc/sandbox/decoder.h"
#include "sentry/kernel/account.h"
#include "sentry/fs/anon/hostfd.h"
#include "sentry/fs/dev/dev.h"
#include "sentry/fs/pipe/pipe.h"
#include "sentry/loader/loader.h"
#include "sentry/mem/memfile.h"
#include "sentry/mm/safecopy.h"
#include "sentry/net/ns/netns.h"
#include "sentry/net/sock.h"
#include "sentry/vdso/vdso.h"
#include "sentry/vfs/special.h"
#include "sentry/wait/hostwatch.h"
#include "syscalls/table.h"

/* Offset space of the memory file: sparse, so its size costs nothing. */
#define BOOT_MEMFILE_SIZE (16ull << 40)

/* The best first; what needs a device of the host is taken only when it is named. */
static const struct plat_ops *const platforms[] = {&systrap_plat_ops, &ptrace_plat_ops,
                                                   &kvm_plat_ops};

int boot_find_platforms(const char *name, const struct plat_ops *out_plats[BOOT_PLATFORMS_MAX],
                        size_t *out_count, char *why, size_t why_size)
{
    const bool any = strcmp(name, BOOT_PLATFORM_AUTO) == 0;
    int r = any ? -ENOTSUP : -EINVAL;

    *out_count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(platforms) && *out_count < BOOT_PLATFORMS_MAX; i++) {
        if (any ? platforms[i]->open != NULL : strcmp(platforms[i]->name, name) != 0)
            continue;
        if (platforms[i]->probe(why, why_size) == 0) {
            out_plats[(*out_count)++] = platforms[i];
            continue;
        }
        r = -ENOTSUP;
        if (any)
            log_warn("platform %s cannot be used here: %s", platforms[i]->name, why);
    }
    return *out_count > 0 ? 0 : r;
}

static NORETURN void boot_report(const struct boot *b, const struct boot_status *st)
{
    if (write(b->args->status_fd, st, sizeof(*st)) != (ssize_t)sizeof(*st))
        log_error("boot: %s", st->text);
    _exit(125);
}

void boot_fail(const struct boot *b, int code, const char *fmt, ...)
{
    struct boot_status st = {.code = code < 0 ? -code : code};
    char reason[128];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(st.text, sizeof(st.text), fmt, ap);
    va_end(ap);
    size_t len = strlen(st.text);
    if (len < sizeof(st.text) - 1)
        snprintf(st.text + len, sizeof(st.text) - len, ": %s",
                 err_reason(st.code, reason, sizeof(reason)));
    boot_report(b, &st);
}

void boot_fail_said(const struct boot *b, int code, const struct boot_text *t)
{
    struct boot_status st = {.code = code < 0 ? -code : code};

    snprintf(st.text, sizeof(st.text), "%s", t->text);
    boot_report(b, &st);
}

int boot_say(struct boot_text *t, int code, const char *fmt, ...)
{
    char reason[128];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(t->text, sizeof(t->text), fmt, ap);
    va_end(ap);
    size_t len = strlen(t->text);
    if (len < sizeof(t->text) - 1)
        snprintf(t->text + len, sizeof(t->text) - len, ": %s",
                 err_reason(code, reason, sizeof(reason)));
    return code;
}

#define STEP(b, call)                                                                              \
    do {                                                                                           \
        const char *step = "";                                                                     \
        int step_r = (call);                                                                       \
        if (step_r)                                                                                \
            boot_fail((b), step_r, "sentry: %s", step);                                            \
    } while (0)

/* The guest's descriptors move out of 0 to 2, where nothing of the sentry may stray into them. */
static void take_stdio(struct boot *b)
{
    const struct sandbox_args *a = b->args->sandbox;

    for (int i = 0; i < 3; i++) {
        b->stdio[i] = fcntl(a->stdio[i], F_DUPFD_CLOEXEC, 64);
        if (b->stdio[i] < 0)
            boot_fail(b, errno, "stdio descriptor %d", i);
    }
    b->log_fd = fcntl(a->log_fd >= 0 ? a->log_fd : a->stdio[2], F_DUPFD_CLOEXEC, 64);
    if (b->log_fd < 0)
        boot_fail(b, errno, "log descriptor");
    for (int i = 0; i < 3; i++)
        if (dup2(b->args->null_fd, i) < 0)
            boot_fail(b, errno, "/dev/null");
#ifdef RINGWALL_SANITIZE
    if (dup2(b->log_fd, 2) < 0) /* where a sanitizer reports */
        boot_fail(b, errno, "report descriptor");
#endif
}

static void keep_fds_only(struct boot *b)
{
    const struct boot_args *a = b->args;
    int keep[16 + BOOT_GOFER_FDS_MAX];
    size_t n = 0;

    for (size_t i = 0; i < 3; i++)
        keep[n++] = b->stdio[i];
    keep[n++] = b->log_fd;
    keep[n++] = a->status_fd;
    keep[n++] = a->sandbox->control_fd;
    if (a->life_fd >= 0)
        keep[n++] = a->life_fd;
    if (a->plat_fd >= 0)
        keep[n++] = a->plat_fd;
    if (a->decoder_fd >= 0)
        keep[n++] = a->decoder_fd;
    if (b->oom_fd >= 0)
        keep[n++] = b->oom_fd;
    if (a->sandbox->oom_count_fd >= 0)
        keep[n++] = a->sandbox->oom_count_fd;
    if (a->net_fd >= 0)
        keep[n++] = a->net_fd;
    for (size_t i = 0; i < a->gofer_fd_count; i++)
        keep[n++] = a->gofer_fds[i];
    STEP(b, confine_close_fds(keep, n, &step));
}

static void await_id_maps(struct boot *b)
{
    char byte;

    if (read(b->args->sync_fd, &byte, 1) != 1)
        _exit(125);
}

/* Sizes of the host's terminal reach whoever has it as controlling terminal. */
static void take_terminal(const struct boot *b)
{
    if (setsid() < 0)
        boot_fail(b, errno, "sentry: setsid");
    if (b->args->sandbox->console_fd >= 0 && ioctl(b->args->sandbox->console_fd, TIOCSCTTY, 0) != 0)
        boot_fail(b, errno, "sentry: controlling terminal");
}

/* Stage 1: own namespaces, an id nobody has, an empty root, no descriptors but ours. */
static void isolate(struct boot *b)
{
    const struct sandbox_args *a = b->args->sandbox;

    prctl(PR_SET_NAME, "runsc-sentry", 0, 0, 0);
    /* While it is still ours. */
    b->oom_fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    for (size_t i = 0; i < a->cgroup_fd_count && !b->args->in_cgroups; i++)
        if (write(a->cgroup_fds[i], "0", 1) != 1)
            boot_fail(b, errno, "sentry: enter its cgroup");
    for (int i = 0; i < (int)RLIM_NLIMITS; i++)
        if (getrlimit((__rlimit_resource_t)i, &b->rlimits[i]))
            boot_fail(b, errno, "sentry: getrlimit");
    take_terminal(b);
    take_stdio(b);
    await_id_maps(b);
    STEP(b, confine_become_sentry_id(b->args->privileged, &step));
    STEP(b, confine_empty_root(&step));
    keep_fds_only(b);
    log_init(b->log_fd,
             a->debug    ? LOG_DEBUG
             : a->strace ? LOG_INFO
                         : LOG_WARN,
             a->log_json ? LOG_JSON : LOG_TEXT);
}

/* The best that starts. */
static void start_platform(struct boot *b, const struct plat_config *cfg)
{
    const struct boot_args *a = b->args;

    for (size_t i = 0; i < a->plat_count; i++) {
        int r = a->plats[i]->create(cfg, &b->plat);
        if (r == 0)
            return;
        if (i + 1 == a->plat_count)
            boot_fail(b, r, "platform %s", a->plats[i]->name);
        log_warn("platform %s does not start: %s", a->plats[i]->name, strerror(-r));
    }
}

/* By how many thousandths of its memory the host likes to end a stub rather than us. */
#define STUB_OOM_ADJ 500
#define OOM_ADJ_MAX 1000

static void write_oom_adj(const struct boot *b, int adj)
{
    char text[16];
    const int n = snprintf(text, sizeof(text), "%d", adj);

    if (write(b->oom_fd, text, (size_t)n) != n)
        log_info("oom_score_adj %d: %s", adj, strerror(errno));
}

/* With a stub one guest process ends, with us all of them. Stubs stem from us and inherit what we
 * have now; who raises it may go back without any privilege. */
static void start_platform_apart(struct boot *b, const struct plat_config *cfg)
{
    char text[16] = {0};

    if (b->oom_fd < 0 || read(b->oom_fd, text, sizeof(text) - 1) <= 0) {
        start_platform(b, cfg);
    } else {
        const int own = (int)strtol(text, NULL, 10);
        write_oom_adj(b, MIN(own + STUB_OOM_ADJ, OOM_ADJ_MAX));
        start_platform(b, cfg);
        write_oom_adj(b, own);
    }
    if (b->oom_fd >= 0)
        close(b->oom_fd);
    b->oom_fd = -1;
}

/* Of the first container, which is the sandbox's; 0: none. */
static uint64_t memory_limit(const struct boot *b)
{
    const struct oci_resources *res = &b->root.spec->lx.resources;
    const bool limited = res->present && res->memory_limit > 0 && res->memory_limit != INT64_MAX;

    return limited ? (uint64_t)res->memory_limit : 0;
}

/* Connected to the decoder, or -1. */
static int start_decoder(const struct boot *b)
{
    const int program = b->args->decoder_fd;

    if (program < 0)
        return -1;
    const int fd = decoder_launch(program);
    if (fd < 0)
        log_warn("decoder: %s", strerror(-fd));
    close(program);
    return MAX(fd, -1);
}

/* Stage 2: no capability, no new privilege, no path; then what must exist before the filter; then
 * the filter. Guest-controlled bytes are looked at only after it. */
static void confine(struct boot *b)
{
    int abi;
    struct plat_config cfg;

    STEP(b, confine_rlimits(&step));
    STEP(b, confine_drop_capabilities(&step));
    cfg.decoder_fd = start_decoder(b);
    STEP(b, confine_landlock(b->args->net_fd >= 0, &abi, &step));
    log_debug("landlock ABI %d", abi);
    if (pipe2(b->wake, O_CLOEXEC | O_NONBLOCK))
        boot_fail(b, errno, "pipe");
    int r = memfile_new(BOOT_MEMFILE_SIZE, &b->mf);
    if (r)
        boot_fail(b, r, "memory file");
    cfg.mem_fd = memfile_fd(b->mf);
    cfg.device_fd = b->args->plat_fd;
    cfg.memory = memory_limit(b);
    cfg.patch = b->args->sandbox->patch_sites;
    r = safecopy_init();
    if (r)
        boot_fail(b, r, "safe copies");
    r = hostwatch_setup();
    if (r)
        boot_fail(b, r, "watch on host descriptors");
    /* Changing ids made the process undumpable; stubs inherit that, and could then not be traced.
     */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
        boot_fail(b, errno, "dumpable");
    start_platform_apart(b, &cfg);
    memfile_set_tables(b->mf, b->plat->mem_tables);
    if (cfg.decoder_fd >= 0)
        close(cfg.decoder_fd);
    if (b->args->plat_fd >= 0)
        close(b->args->plat_fd);
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        boot_fail(b, errno, "dumpable");
    signal(SIGPIPE, SIG_IGN);
    STEP(b, confine_seccomp(b->plat->ops->name, b->args->net_fd >= 0, &step));
}

static int usable_cpus(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set))
        return 1;
    return CPU_COUNT(&set);
}

/* The container's rules about devices come before the device. */
static int boot_open_device(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    static const uint32_t needs[] = {
        [O_RDONLY] = ACCOUNT_DEV_READ,
        [O_WRONLY] = ACCOUNT_DEV_WRITE,
        [O_RDWR] = ACCOUNT_DEV_READ | ACCOUNT_DEV_WRITE,
        [O_ACCMODE] = ACCOUNT_DEV_READ | ACCOUNT_DEV_WRITE,
    };
    int r = account_may_use(account_of_caller(c), i->mode, i->rdev,
                            needs[atomic_load(&f->flags) & O_ACCMODE]);

    return r != 0 ? r : dev_open(i, f, c);
}

static const struct vfs_special_ops boot_special = {
    .open_fifo = fifo_open,
    .open_host_fifo = hostfd_open_fifo,
    .open_device = boot_open_device,
    .release_fifo = fifo_release,
};

/* Runtimes hand a new namespace over with lo up. */
static int loopback_up(struct net *n)
{
    struct netns *ns = net_ns(n);

    netns_config_lock(ns);
    int r = netns_link_set_flags(ns, NETNS_LO_INDEX, IFF_UP, IFF_UP);
    netns_config_unlock(ns);
    return r;
}

/* Of a memory limit, what stays for the sentry and the stubs. */
#define BOOT_MEMORY_SPARE (UINT64_C(16) << 20)
#define BOOT_MEMORY_SPARE_MAX (UINT64_C(128) << 20)

uint64_t boot_memory_for_guest(uint64_t limit)
{
    const uint64_t spare = MIN(MAX(limit / 16, BOOT_MEMORY_SPARE), BOOT_MEMORY_SPARE_MAX);

    return limit - MIN(limit / 8, spare);
}

static void start_kernel(struct boot *b, uint64_t host_memory)
{
    const uint64_t bound = memory_limit(b);
    const uint64_t limit = bound != 0 && bound < host_memory ? bound : host_memory;
    struct boot_text t;

    /* The guest's program ends before the host's cgroup would end all of the sandbox. */
    if (limit < host_memory)
        memfile_set_limit(b->mf, boot_memory_for_guest(limit));
    int r = net_new(b->mf, &b->net);
    if (r == 0)
        r = loopback_up(b->net);
    if (r == 0 && b->args->net_fd >= 0)
        r = net_set_host(b->net, b->args->net_fd);
    if (r)
        boot_fail(b, r, "network");
    const struct kernel_config cfg = {
        .plat = b->plat,
        .mf = b->mf,
        .syscalls = &ringwall_syscalls,
        .load = loader_load,
        .set_clock_offsets = vdso_set_offsets,
        .net = b->net,
        .memory_limit = limit,
        .cpus = usable_cpus(),
        .host_oom_kills = b->args->sandbox->oom_count_fd >= 0 ? boot_host_oom_kills : NULL,
        .host_oom_arg = b,
        .hostname = b->root.spec->hostname ? b->root.spec->hostname : "ringwall",
        .domainname = b->root.spec->domainname ? b->root.spec->domainname : "(none)",
        .strace = b->args->sandbox->strace,
    };
    vfs_set_special(&boot_special);
    r = kernel_new(&cfg, &b->k);
    if (r)
        boot_fail(b, r, "kernel");
    r = gof_client_new(b->args->gofer_fds, b->args->gofer_fd_count, &b->root.gofer);
    if (r)
        boot_fail(b, r, "gofer");
    r = boot_space(b, &b->root, NULL, &t);
    if (!r)
        r = boot_mounts(b, &b->root, &t);
    if (!r)
        r = boot_sysctls(b, &b->root, &t);
    if (!r)
        r = boot_load(b, &b->root, &b->root.spec->process, NULL, b->stdio, &b->root.init, &t);
    if (r)
        boot_fail_said(b, r, &t);
}

void boot_main(const struct boot_args *a)
{
    struct boot b = {.args = a, .loopback_fd = -1, .loopback_link = -1};
    struct sysinfo si = {0};

    mutex_init(&b.mu, LOCK_RANK_CONTROL);
    list_init(&b.execs);
    list_init(&b.forwards);
    list_init(&b.resolvers);
    list_init(&b.containers);
    b.root.spec = a->sandbox->spec;
    b.root.seccomp = a->sandbox->seccomp;
    b.root.init.boot = &b;
    b.root.id = strdup(a->sandbox->id);
    list_add_tail(&b.root.node, &b.containers);
    sysinfo(&si);
    isolate(&b);
    confine(&b);
    start_kernel(&b, (uint64_t)si.totalram * si.mem_unit);
    const struct boot_status ok = {0};
    if (write(a->status_fd, &ok, sizeof(ok)) != (ssize_t)sizeof(ok))
        _exit(125);
    close(a->status_fd);
    const int code = boot_serve(&b);
#ifdef RINGWALL_DEBUG
    if (b.root.init.ended)
        boot_check_end(&b);
#endif
    _exit(code);
}
