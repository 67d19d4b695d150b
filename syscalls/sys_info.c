/* What the guest learns about its machine: uname, sysinfo, getrandom, getcpu, syslog. */
#include <errno.h>
#include <linux/personality.h>
#include <linux/random.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <time.h>

#include "base/limits.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/rseq.h"
#include "sentry/kernel/timer.h"
#include "syscalls/handlers.h"

struct lx_utsname {
    char sysname[65], nodename[65], release[65], version[65], machine[65], domainname[65];
};
_Static_assert(sizeof(struct lx_utsname) == 390, "struct new_utsname has 390 bytes");

/* kernel/sys.c: override_release; asm/compat.h: override_architecture. */
static void uname_disguise(uint32_t persona, struct lx_utsname *u)
{
    unsigned minor = 0, dots = 0;
    const char *rest = u->release;
    char text[sizeof(u->release)];

    if ((persona & PER_MASK) == PER_LINUX32)
        strncpy(u->machine, "i686", sizeof(u->machine) - 1);
    if (!(persona & UNAME26))
        return;
    for (; *rest && (*rest == '.' || (*rest >= '0' && *rest <= '9')); rest++) {
        if (*rest == '.' && ++dots >= 3)
            break;
        if (*rest != '.' && dots == 1)
            minor = minor * 10 + (unsigned)(*rest - '0');
    }
    (void)snprintf(text, sizeof(text), "2.6.%u%.40s", minor + 60, rest);
    memcpy(u->release, text, sizeof(text));
}

int64_t sys_uname(struct task *t, uaddr_t out)
{
    struct lx_utsname u;

    memset(&u, 0, sizeof(u));
    strncpy(u.sysname, "Linux", sizeof(u.sysname) - 1);
    strncpy(u.release, kernel_release(), sizeof(u.release) - 1);
    strncpy(u.version, kernel_version(), sizeof(u.version) - 1);
    strncpy(u.machine, "x86_64", sizeof(u.machine) - 1);
    uname_disguise((uint32_t)task_attr_get(t, TASK_ATTR_PERSONALITY), &u);
    task_uts_names(t, u.nodename, u.domainname);
    return copyout_obj(&t->ua, out, &u);
}

int64_t sys_sysinfo(struct task *t, uaddr_t out)
{
    struct kernel_info k;
    struct sysinfo si;

    kernel_info(t->k, &k);
    memset(&si, 0, sizeof(si));
    const int64_t uptime = (int64_t)k.uptime_ns + task_clock_ahead(t, CLOCK_BOOTTIME);
    si.uptime = (long)((MAX(uptime, 0) + NSEC_PER_SEC - 1) / NSEC_PER_SEC);
    si.totalram = k.mem_total;
    si.freeram = k.mem_free;
    si.sharedram = k.mem_shmem;
    uint32_t loads[3];
    kernel_loads(t->k, loads);
    for (size_t i = 0; i < ARRAY_SIZE(loads); i++)
        si.loads[i] = (unsigned long)loads[i] * ((1u << SI_LOAD_SHIFT) / KERNEL_LOAD_ONE);
    si.procs = (unsigned short)MIN(k.tasks, (uint32_t)UINT16_MAX);
    si.mem_unit = 1;
    return copyout_obj(&t->ua, out, &si);
}

int64_t sys_getrandom(struct task *t, uaddr_t buf, uint64_t size, unsigned flags)
{
    char chunk[1024];
    uint64_t done = 0;

    if (flags & ~(unsigned)(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE))
        return -EINVAL;
    if ((flags & (GRND_RANDOM | GRND_INSECURE)) == (GRND_RANDOM | GRND_INSECURE))
        return -EINVAL;
    size = MIN(size, LIMIT_RW_SIZE);
    while (done < size) {
        const size_t n = (size_t)MIN(size - done, sizeof(chunk));
        if (getrandom(chunk, n, 0) != (ssize_t)n)
            return done ? (int64_t)done : -EAGAIN;
        const size_t out = copyout_partial(&t->ua, uaddr_add(buf, done), chunk, n);
        done += out;
        if (out < n)
            return done ? (int64_t)done : -EFAULT;
        /* Small requests are never cut short. */
        if (done >= 256 && done < size && blocker_interrupted(&t->blocker))
            break;
    }
    memset(chunk, 0, sizeof(chunk));
    return (int64_t)done;
}

int64_t sys_getcpu(struct task *t, uaddr_t cpu, uaddr_t node, uaddr_t cache)
{
    const uint32_t nr = task_rseq_cpu(t), zero = 0;
    int r = 0;

    (void)cache;
    if (!uaddr_is_null(cpu))
        r = copyout_obj(&t->ua, cpu, &nr);
    if (!r && !uaddr_is_null(node))
        r = copyout_obj(&t->ua, node, &zero);
    return r;
}

/* There is no kernel log that a guest may read: as Linux with dmesg_restrict. */
int64_t sys_syslog(struct task *t, int type, uaddr_t buf, int len)
{
    (void)t;
    (void)buf;
    (void)len;
    return type < 0 || type > 10 ? -EINVAL : -EPERM;
}
