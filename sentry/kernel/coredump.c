/* Core dumps: who may, where to, and the threads that stand still meanwhile (fs/coredump.c). */
#include "sentry/kernel/coredump.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/log.h"
#include "sentry/kernel/coredump_priv.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"

/* A thread that does not come out of a host call is left out. */
#define CORE_PATIENCE_NS 5000000000ull
#define CORE_STEP_NS 1000000ull
#define CORE_FLAG 0x80

/* ---- kernel.core_pattern ---- */

void kernel_core_pattern(struct kernel *k, char *text)
{
    mutex_lock(&k->core_mu);
    memcpy(text, k->core_pattern, CORE_PATTERN_MAX);
    mutex_unlock(&k->core_mu);
}

int kernel_set_core_pattern(struct kernel *k, const char *text, size_t len)
{
    if (len >= CORE_PATTERN_MAX)
        return -EINVAL;
    mutex_lock(&k->core_mu);
    memset(k->core_pattern, 0, CORE_PATTERN_MAX);
    memcpy(k->core_pattern, text, len);
    mutex_unlock(&k->core_mu);
    return 0;
}

bool kernel_core_uses_pid(struct kernel *k)
{
    return atomic_load(&k->core_uses_pid);
}

void kernel_set_core_uses_pid(struct kernel *k, bool on)
{
    atomic_store(&k->core_uses_pid, on);
}

/* ---- the name ---- */

struct core_name {
    char text[VFS_PATH_MAX];
    size_t len;
};

/* A slash in what the guest gave would lead elsewhere: '!', as Linux has it. */
static void name_add(struct core_name *n, const char *s, bool escape)
{
    for (; *s && n->len + 1 < sizeof(n->text); s++)
        n->text[n->len++] = escape && *s == '/' ? '!' : *s;
    n->text[n->len] = '\0';
}

static void name_add_number(struct core_name *n, uint64_t v)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
    name_add(n, text, false);
}

static void name_add_exe(struct core_name *n, struct task *t, const char *comm)
{
    const struct vpath none = {NULL, NULL};
    char *text = malloc(VFS_PATH_MAX);
    struct vpath exe;

    if (text && task_get_exe(t, &exe) == 0) {
        if (vfs_path_text(&none, &exe, text, VFS_PATH_MAX) < 0)
            (void)snprintf(text, VFS_PATH_MAX, "%s", comm);
        vpath_put(&exe);
        name_add(n, text, true);
    } else {
        name_add(n, comm, true);
    }
    free(text);
}

static void name_expand(struct core_name *n, struct task *t, int signo, char what)
{
    char node[LX_UTS_LEN + 1], domain[LX_UTS_LEN + 1], comm[16];

    task_get_comm(t, comm);
    switch (what) {
    case '%':
        name_add(n, "%", false);
        break;
    case 'p':
    case 'P':
        name_add_number(n, (uint64_t)t->tg->tgid);
        break;
    case 'i':
    case 'I':
        name_add_number(n, (uint64_t)t->tid);
        break;
    case 'u':
        name_add_number(n, t->cred->uid);
        break;
    case 'g':
        name_add_number(n, t->cred->gid);
        break;
    case 'd':
        name_add_number(n, (uint64_t)atomic_load(&t->tg->dumpable));
        break;
    case 's':
        name_add_number(n, (uint64_t)signo);
        break;
    case 't':
        name_add_number(n, (uint64_t)vfs_now().sec);
        break;
    case 'h':
        task_uts_names(t, node, domain);
        name_add(n, node, true);
        break;
    case 'e':
        name_add(n, comm, true);
        break;
    case 'E':
        name_add_exe(n, t, comm);
        break;
    case 'c':
        name_add_number(n, task_rlimit(t, RLIMIT_CORE));
        break;
    default:
        break; /* dropped */
    }
}

static void name_make(struct core_name *n, struct task *t, int signo)
{
    char pattern[CORE_PATTERN_MAX];
    bool has_pid = false;

    kernel_core_pattern(t->k, pattern);
    n->len = 0;
    n->text[0] = '\0';
    for (const char *s = pattern; *s; s++) {
        if (*s != '%') {
            const char one[2] = {*s, '\0'};
            name_add(n, one, false);
            continue;
        }
        if (*++s == '\0')
            break;
        has_pid |= *s == 'p';
        name_expand(n, t, signo, *s);
    }
    if (!has_pid && kernel_core_uses_pid(t->k)) {
        name_add(n, ".", false);
        name_add_number(n, (uint64_t)t->tg->tgid);
    }
}

/* ---- the file ---- */

/* Only a plain file of the program's own, under one name. */
static int core_check_file(struct file *f, const struct vfs_caller *c)
{
    struct inode *i = f->inode;

    if (!S_ISREG(atomic_load(&i->mode)) || atomic_load(&i->uid) != c->cred->fsuid)
        return -EPERM;
    mutex_lock(&i->mu);
    const uint32_t links = i->nlink;
    mutex_unlock(&i->mu);
    return links > 1 ? -EMLINK : 0;
}

static int core_dump_to(struct coredump *c, const struct core_name *n, uint64_t limit)
{
    struct vfs_caller vc;
    struct file *f;

    task_vfs_caller(c->t, &vc);
    vc.fsize_limit = UINT64_MAX;
    int r = vfs_open(&vc, NULL, n->text, O_CREAT | O_RDWR | O_NOFOLLOW | O_LARGEFILE, 0600, 0, &f);
    if (r == 0) {
        r = core_check_file(f, &vc);
        if (r == 0)
            r = vfs_ftruncate(f, 0, &vc);
        if (r == 0)
            r = core_write(c, f, limit, &vc);
        file_put(f);
    }
    task_vfs_caller_end(&vc);
    return r;
}

static int core_dump(struct coredump *c)
{
    const uint64_t limit = task_rlimit(c->t, RLIMIT_CORE);
    struct core_name *n;

    if (limit < PAGE_SIZE || atomic_load(&c->t->tg->dumpable) != 1)
        return -EPERM;
    n = malloc(sizeof(*n));
    if (!n)
        return -ENOMEM;
    name_make(n, c->t, c->info.signo);
    int r = n->len == 0 || n->text[0] == '|' ? -EPERM : core_dump_to(c, n, limit);
    free(n);
    return r;
}

/* ---- threads ---- */

static void thread_fill(struct core_thread *ct, struct task *t)
{
    const size_t room = t->ctx->plat->xstate_size;

    *ct = (struct core_thread){.t = t, .regs = *plat_ctx_regs(t->ctx)};
    list_init(&ct->node);
    if (task_priv(t)->no_guest)
        return;
    ct->xstate = calloc(1, room + 1);
    const int64_t n = ct->xstate ? plat_ctx_xstate_get(t->ctx, ct->xstate, room) : 0;
    ct->xstate_size = n > 0 ? (size_t)n : 0;
}

static bool core_all_here(struct coredump *c)
{
    struct sighand *sh = tg_lock_sig(c->t->tg);
    const bool all = c->count >= c->t->tg->thread_alive;

    sighand_unlock(sh);
    return all;
}

static bool core_done(struct coredump *c)
{
    return atomic_load(&c->done);
}

void task_coredump_join(struct task *t)
{
    struct core_thread ct;
    struct blocker b; /* the task's own one is past waiting: it was killed */
    int r;
    struct sighand *sh = tg_lock_sig(t->tg);
    struct coredump *c = t->tg->core;

    if (!c || c->t == t || !t->ctx) {
        sighand_unlock(sh);
        return;
    }
    sighand_unlock(sh);
    thread_fill(&ct, t);
    blocker_init(&b);
    sh = tg_lock_sig(t->tg);
    c = t->tg->core;
    if (c) {
        list_add_tail(&ct.node, &c->threads);
        c->count++;
        (void)waitq_wake(&c->wq, 0);
    }
    sighand_unlock(sh);
    if (c)
        WAIT_EVENT(&c->wq, &b, 0, DEADLINE_NEVER, core_done(c), r);
    /* The last step of letting go: after it the dumper may leave. */
    sh = tg_lock_sig(t->tg);
    if (c) {
        list_del(&ct.node);
        c->count--;
        (void)waitq_wake(&c->wq, 1);
    }
    sighand_unlock(sh);
    free(ct.xstate);
}

static bool core_all_gone(struct coredump *c)
{
    struct sighand *sh = tg_lock_sig(c->t->tg);
    const bool gone = c->count == 1;

    sighand_unlock(sh);
    return gone;
}

static void core_run(struct coredump *c)
{
    struct thread_group *tg = c->t->tg;
    struct blocker b;
    int r;

    const uint64_t end = mono_now() + CORE_PATIENCE_NS;

    blocker_init(&b);
    /* A thread that was on its way out before does not come, and says so to nobody. */
    do
        WAIT_EVENT(&c->wq, &b, 0, mono_now() + CORE_STEP_NS, core_all_here(c), r);
    while (r && mono_now() < end);
    struct sighand *sh = tg_lock_sig(tg);
    tg->core = NULL; /* who comes now is too late */
    sighand_unlock(sh);
    r = core_dump(c);
    if (r && r != -EPERM)
        log_info("core dump of %d: %d", tg->tgid, r);
    sh = tg_lock_sig(tg);
    if (r == 0)
        tg->group_status |= CORE_FLAG;
    atomic_store(&c->done, true);
    (void)waitq_wake(&c->wq, 0);
    sighand_unlock(sh);
    WAIT_EVENT(&c->wq, &b, 0, DEADLINE_NEVER, core_all_gone(c), r);
}

void task_coredump(struct task *t, const struct lx_siginfo *info)
{
    struct thread_group *tg = t->tg;
    struct coredump c = {.t = t, .info = *info, .count = 1};
    struct core_thread own;

    const bool wanted = task_rlimit(t, RLIMIT_CORE) >= PAGE_SIZE &&
                        atomic_load(&tg->dumpable) == 1 && !task_priv(t)->no_guest;
    if (wanted) {
        waitq_init(&c.wq);
        list_init(&c.threads);
        thread_fill(&own, t);
        list_add(&own.node, &c.threads);
    }
    struct sighand *sh = tg_lock_sig(tg);
    const bool first = !atomic_load(&tg->exiting);
    tg_exit_locked(tg, info->signo);
    if (wanted && first)
        tg->core = &c;
    sighand_unlock(sh);
    if (!wanted)
        return;
    if (first)
        core_run(&c);
    list_del(&own.node);
    free(own.xstate);
    waitq_fini(&c.wq);
}
