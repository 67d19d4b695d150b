/* The kernel object: making it, what boot asks of it, and the sandbox's names. */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/random.h>
#include <unistd.h>

#include "sentry/ipc/ipc.h"
#include "sentry/kernel/cgroup.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/ns_priv.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/task_priv.h"
#include "sentry/net/sock.h"

OBJCOUNT_DEFINE(uts_ns);

/* ---- names of a uts namespace ---- */

static int uts_new(const char *node, const char *domain, struct uts_ns **out_uts)
{
    struct uts_ns *u = calloc(1, sizeof(*u));

    if (!u)
        return -ENOMEM;
    ref_init(&u->ref);
    mutex_init(&u->mu, LOCK_RANK_NAMESPACE);
    strncpy(u->nodename, node ? node : "(none)", LX_UTS_LEN);
    strncpy(u->domainname, domain ? domain : "(none)", LX_UTS_LEN);
    OBJCOUNT_INC(uts_ns);
    *out_uts = u;
    return 0;
}

int uts_dup(struct uts_ns *u, struct uts_ns **out_uts)
{
    char node[LX_UTS_LEN + 1], domain[LX_UTS_LEN + 1];

    mutex_lock(&u->mu);
    memcpy(node, u->nodename, sizeof(node));
    memcpy(domain, u->domainname, sizeof(domain));
    mutex_unlock(&u->mu);
    return uts_new(node, domain, out_uts);
}

struct uts_ns *uts_get(struct uts_ns *u)
{
    ref_get(&u->ref);
    return u;
}

void uts_put(struct uts_ns *u)
{
    if (!u || !ref_put(&u->ref))
        return;
    mutex_destroy(&u->mu);
    OBJCOUNT_DEC(uts_ns);
    free(u);
}

static int uts_set(struct uts_ns *u, bool domain, const char *name, size_t len)
{
    if (len > LX_UTS_LEN)
        return -EINVAL;
    mutex_lock(&u->mu);
    char *to = domain ? u->domainname : u->nodename;
    memset(to, 0, LX_UTS_LEN + 1);
    memcpy(to, name, len);
    mutex_unlock(&u->mu);
    return 0;
}

void uts_rename(struct uts_ns *u, const char *node, const char *domain)
{
    (void)!uts_set(u, false, node, strnlen(node, LX_UTS_LEN));
    if (domain)
        (void)!uts_set(u, true, domain, strnlen(domain, LX_UTS_LEN));
}

void task_uts_names(struct task *t, char *node, char *domain)
{
    struct uts_ns *u = task_priv(t)->uts;

    mutex_lock(&u->mu);
    memcpy(node, u->nodename, LX_UTS_LEN + 1);
    memcpy(domain, u->domainname, LX_UTS_LEN + 1);
    mutex_unlock(&u->mu);
}

int task_uts_set(struct task *t, bool domain, const char *name, size_t len)
{
    return uts_set(task_priv(t)->uts, domain, name, len);
}

struct ns_tag *kernel_ns_tag(struct kernel *k, struct task *t, int32_t pid, enum ns_kind kind)
{
    struct task *found = NULL;
    struct ns_handle h;
    int r = 0;

    if (!t) {
        r = pid ? kernel_find_task(k, pid, true, &found) : -ESRCH;
        t = found;
    }
    if (r == 0)
        r = task_get_ns(t, kind, &h);
    if (found)
        task_put(found);
    return r ? ns_tag_get(k->tags[kind]) : h.obj;
}

void kernel_uts_name(struct kernel *k, int32_t pid, bool domain, char *buf, size_t size)
{
    struct ns_tag *tag = kernel_ns_tag(k, NULL, pid, NS_UTS);
    struct uts_ns *u = tag->obj;

    mutex_lock(&u->mu);
    strncpy(buf, domain ? u->domainname : u->nodename, size - 1);
    mutex_unlock(&u->mu);
    buf[size - 1] = '\0';
    ns_tag_put(tag);
}

int kernel_set_uts_name(struct kernel *k, int32_t pid, const struct cred *cred, bool domain,
                        const char *name, size_t len)
{
    struct ns_tag *tag = kernel_ns_tag(k, NULL, pid, NS_UTS);
    int r = -EPERM;

    if (cred_ns_capable(cred, tag->owner, CAP_SYS_ADMIN))
        r = uts_set(tag->obj, domain, name, len);
    ns_tag_put(tag);
    return r;
}

const char *kernel_release(void)
{
    return "6.1.0-ringwall";
}

const char *kernel_version(void)
{
    return "#1 SMP PREEMPT_DYNAMIC Ringwall";
}

/* ---- the object ---- */

static uint64_t realtime_now(void)
{
    struct timespec ts;

    BUG_ON(clock_gettime(CLOCK_REALTIME, &ts) != 0);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int kernel_tag(struct kernel *k, enum ns_kind kind, uint64_t id, void *obj)
{
    struct ns_tag *tag;
    int r = ns_tag_new(k, kind, NULL, obj, &tag);

    if (r)
        return r;
    tag->id = id;
    k->tags[kind] = tag;
    return 0;
}

/* The sandbox's own namespaces, but for that of mounts. */
static int kernel_ns_parts(struct kernel *k)
{
    atomic_store(&k->next_ns_id, NS_FIRST_NEW_ID);
    int r = ns_super_new(&k->nsfs);
    if (!r)
        r = kernel_tag(k, NS_CGROUP, NS_FIRST_ID_CGROUP, NULL);
    if (!r)
        r = kernel_tag(k, NS_NET, NS_FIRST_ID_NET, k->cfg.net ? net_get(k->cfg.net) : NULL);
    if (!r)
        r = kernel_tag(k, NS_IPC, NS_FIRST_ID_IPC, ipc_ns_get(k->ipc));
    if (!r)
        r = kernel_tag(k, NS_UTS, NS_FIRST_ID_UTS, uts_get(k->uts));
    struct time_ns *time;
    if (!r)
        r = time_ns_new(NULL, &time);
    if (!r)
        r = kernel_tag(k, NS_TIME, NS_FIRST_ID_TIME, time);
    if (!r)
        k->tags[NS_TIME_CHILDREN] = ns_tag_get(k->tags[NS_TIME]);
    return r;
}

static void kernel_ns_fini(struct kernel *k)
{
    for (int kind = 0; kind < NS_TAGS; kind++)
        ns_tag_put(k->tags[kind]);
    if (k->nsfs)
        super_put(k->nsfs);
}

static int kernel_parts(struct kernel *k)
{
    int r = uts_new(k->cfg.hostname, k->cfg.domainname, &k->uts);

    if (r)
        return r;
    r = ipc_ns_new(k->cfg.mf, NULL, &k->ipc);
    if (!r)
        r = kernel_ns_parts(k);
    if (r)
        goto out_uts;
    r = futex_table_new(&k->futexes);
    if (r)
        goto out_ipc;
    r = kernel_timers_new(k, &k->timers);
    if (r)
        goto out_futexes;
    r = cgroups_new(k, &k->cgroups);
    if (r)
        goto out_timers;
    r = rseq_cpus_new(k->cfg.cpus, &k->rseq_cpus);
    if (r)
        goto out_cgroups;
    return 0;
out_cgroups:
    cgroups_free(k->cgroups);
out_timers:
    kernel_timers_free(k->timers);
out_futexes:
    futex_table_free(k->futexes);
out_ipc:
    kernel_ns_fini(k);
    ipc_ns_put(k->ipc);
out_uts:
    uts_put(k->uts);
    return r;
}

int kernel_new(const struct kernel_config *cfg, struct kernel **out_k)
{
    struct kernel *k = calloc(1, sizeof(*k));

    if (!k)
        return -ENOMEM;
    k->cfg = *cfg;
    atomic_init(&k->strace, cfg->strace);
    if (k->cfg.cpus < 1)
        k->cfg.cpus = 1;
    k->cfg.cpus = MIN(k->cfg.cpus, LIMIT_CPU_WORDS * 64);
    if (k->cfg.memory_limit == 0)
        k->cfg.memory_limit = (uint64_t)sysconf(_SC_PHYS_PAGES) * PAGE_SIZE;
    atomic_init(&k->memory, k->cfg.memory_limit);
    oom_host_begin(k);
    if (getrandom(k->kcmp_cookies, sizeof(k->kcmp_cookies), 0) !=
        (ssize_t)sizeof(k->kcmp_cookies)) {
        free(k);
        return -EAGAIN;
    }
    k->boot_mono_ns = mono_now();
    k->boot_realtime_ns = realtime_now();
    /* Untouched pages of it cost nothing. */
    k->pids = calloc(LIMIT_TASKS + 1, sizeof(*k->pids));
    if (!k->pids) {
        free(k);
        return -ENOMEM;
    }
    mutex_init(&k->mu, LOCK_RANK_KERNEL);
    mutex_init(&k->core_mu, LOCK_RANK_LEAF);
    memcpy(k->core_pattern, "core", sizeof("core"));
    idalloc_init(&k->ids, 1, LIMIT_TASKS);
    list_init(&k->groups);
    task_pool_init(&k->pool);
    waitq_init(&k->exit_wq);
    int r = kernel_parts(k);
    if (r) {
        waitq_fini(&k->exit_wq);
        task_pool_fini(&k->pool);
        mutex_destroy(&k->core_mu);
        mutex_destroy(&k->mu);
        free(k->pids);
        free(k);
        return r;
    }
    *out_k = k;
    return 0;
}

void kernel_free(struct kernel *k)
{
    if (!k)
        return;
    task_pool_close(&k->pool);
    while (atomic_load_explicit(&k->thread_count, memory_order_acquire))
        usleep(100);
    task_pool_fini(&k->pool);
    BUG_ON(!list_empty(&k->groups) || atomic_load(&k->task_count) != 0);
    kernel_loads_end(k);
    /* Mounts of cgroup file systems go with them. */
    kernel_ns_fini(k);
    rseq_cpus_free(k->rseq_cpus);
    cgroups_free(k->cgroups);
    kernel_timers_free(k->timers);
    futex_table_free(k->futexes);
    uts_put(k->uts);
    ipc_ns_put(k->ipc);
    waitq_fini(&k->exit_wq);
    idalloc_fini(&k->ids);
    mutex_destroy(&k->core_mu);
    mutex_destroy(&k->mu);
    free(k->pids);
    free(k);
}

void kernel_set_strace(struct kernel *k, bool on)
{
    struct thread_group *tg;
    struct task_priv *p;

    atomic_store(&k->strace, on);
    mutex_lock(&k->mu);
    list_for_each_entry (tg, &k->groups, node)
        list_for_each_entry (p, &tg->threads, thread_node)
            task_answers_changed(p->t);
    mutex_unlock(&k->mu);
}

struct net *kernel_net(struct kernel *k)
{
    return k->cfg.net;
}

struct net *kernel_net_of(struct kernel *k, struct task *t, int32_t pid)
{
    struct ns_tag *tag = kernel_ns_tag(k, t, pid, NS_NET);
    struct net *n = net_get(tag->obj);

    ns_tag_put(tag);
    return n;
}

struct ipc_ns *kernel_ipc_ns(struct kernel *k)
{
    return k->ipc;
}

struct plat *kernel_plat(struct kernel *k)
{
    return k->cfg.plat;
}

struct memfile *kernel_memfile(struct kernel *k)
{
    return k->cfg.mf;
}

/* ---- boot's view of processes ---- */

void kernel_kill_group_locked(struct thread_group *tg, int signo)
{
    if (tg->state != TG_LIVE)
        return;
    if (signo == SIGKILL) {
        /* Pid 1 is proof against the guest's own SIGKILL, not against this one. */
        struct sighand *sh = tg_lock_sig(tg);
        tg_exit_locked(tg, SIGKILL);
        sighand_unlock(sh);
        return;
    }
    const struct lx_siginfo info = {.signo = signo, .code = SI_USER};
    (void)tg_send_signal(tg, &info);
}

/* tg is in the pid namespace of process pid, which may have ended. */
static bool kill_all_concerns_locked(struct kernel *k, int32_t pid, const struct thread_group *tg)
{
    const struct pid *p = pid_find_locked(k, pid);
    const struct pid_ns *ns = p && p->tg ? p->tg->pid_ns : NULL;

    return pid_out_locked(k, ns, tg->tgid) != 0;
}

int kernel_kill(struct kernel *k, int32_t pid, int signo, bool all)
{
    struct thread_group *tg;
    int r = -ESRCH;

    if (signo < 0 || signo > LX_NSIG)
        return -EINVAL;
    mutex_lock(&k->mu);
    list_for_each_entry (tg, &k->groups, node) {
        if (all ? !kill_all_concerns_locked(k, pid, tg) : tg->tgid != pid)
            continue;
        r = tg->state == TG_LIVE ? 0 : r;
        if (signo)
            kernel_kill_group_locked(tg, signo);
    }
    mutex_unlock(&k->mu);
    return r;
}

size_t kernel_pids(struct kernel *k, int32_t *pids, size_t max)
{
    struct thread_group *tg;
    size_t n = 0;

    mutex_lock(&k->mu);
    list_for_each_entry (tg, &k->groups, node) {
        if (tg->state != TG_LIVE)
            continue;
        if (n < max)
            pids[n] = tg->tgid;
        n++;
    }
    mutex_unlock(&k->mu);
    return MIN(n, max);
}
