/* POSIX message queues. */
#include <errno.h>
#include <fcntl.h>
#include <linux/mqueue.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "sentry/cred/user_ns.h"
#include "sentry/fs/mqueue/mqueue.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/net/netlink/netlink.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_time.h"

#define MQ_NAME_SIZE (VFS_NAME_MAX + 2)

int64_t sys_mq_open(struct task *t, uaddr_t user_name, int flags, uint32_t mode, uaddr_t user_attr)
{
    struct mqueue_attr attr;
    char name[MQ_NAME_SIZE];
    struct vfs_caller c;
    struct file *f;
    const bool has_attr = !uaddr_is_null(user_attr);
    int64_t r = has_attr ? copyin_obj(&t->ua, &attr, user_attr) : 0;

    if (r == 0)
        r = copyin_str(&t->ua, name, user_name, sizeof(name), -ENAMETOOLONG);
    if (r < 0)
        return r;
    task_vfs_caller(t, &c);
    r = mqueue_open(task_ipc_ns(t), &c, name, (uint32_t)flags, mode, has_attr ? &attr : NULL,
                    task_rlimit(t, RLIMIT_MSGQUEUE), &f);
    task_vfs_caller_end(&c);
    if (r)
        return r;
    r = task_fd_install(t, f, true, 0);
    file_put(f);
    return r;
}

int64_t sys_mq_unlink(struct task *t, uaddr_t user_name)
{
    char name[MQ_NAME_SIZE];
    struct vfs_caller c;
    int64_t r = copyin_str(&t->ua, name, user_name, sizeof(name), -ENAMETOOLONG);

    if (r < 0)
        return r;
    task_vfs_caller(t, &c);
    r = mqueue_unlink(task_ipc_ns(t), &c, name);
    task_vfs_caller_end(&c);
    return r;
}

/* Absolute time of the day, null for none. */
static int mq_deadline(struct task *t, uaddr_t timeout, deadline_t *out)
{
    int64_t ns = 0;

    *out = DEADLINE_NEVER;
    if (uaddr_is_null(timeout))
        return 0;
    int r = time_copyin_ns(t, timeout, &ns);
    if (r == 0)
        *out = clock_deadline(CLOCK_REALTIME, ns);
    return r;
}

static int64_t mq_send(struct task *t, struct file *f, uaddr_t buf, uint64_t size, unsigned prio,
                       deadline_t deadline)
{
    struct mqueue_msg *m;
    struct vfs_caller c;
    void *text;
    int r = mqueue_msg_new(f, size, prio, &text, &m);

    if (r)
        return r;
    r = copyin(&t->ua, text, buf, size);
    if (r == 0) {
        task_vfs_caller(t, &c);
        r = mqueue_send(f, &c, m, deadline);
        task_vfs_caller_end(&c);
    }
    if (r)
        mqueue_msg_free(m);
    return r;
}

int64_t sys_mq_timedsend(struct task *t, int fd, uaddr_t buf, uint64_t size, unsigned prio,
                         uaddr_t timeout)
{
    deadline_t deadline;
    struct file *f;
    int64_t r = mq_deadline(t, timeout, &deadline);

    if (r)
        return r;
    if (prio >= MQUEUE_PRIO_MAX)
        return -EINVAL;
    r = task_file(t, fd, &f);
    if (r)
        return r;
    r = mq_send(t, f, buf, size, prio, deadline);
    file_put(f);
    return r;
}

/* A message that cannot be copied out is lost, as in Linux. */
static int64_t mq_receive(struct task *t, struct file *f, uaddr_t buf, uint64_t size,
                          uaddr_t user_prio, deadline_t deadline)
{
    struct mqueue_msg *m;
    struct vfs_caller c;
    uint64_t n;
    unsigned prio;

    task_vfs_caller(t, &c);
    int r = mqueue_receive(f, &c, size, deadline, &m);
    task_vfs_caller_end(&c);
    if (r)
        return r;
    const void *text = mqueue_msg_text(m, &n, &prio);
    if (!uaddr_is_null(user_prio))
        r = copyout_obj(&t->ua, user_prio, &prio);
    if (r == 0)
        r = copyout(&t->ua, buf, text, n);
    mqueue_msg_free(m);
    return r ? r : (int64_t)n;
}

int64_t sys_mq_timedreceive(struct task *t, int fd, uaddr_t buf, uint64_t size, uaddr_t user_prio,
                            uaddr_t timeout)
{
    deadline_t deadline;
    struct file *f;
    int64_t r = mq_deadline(t, timeout, &deadline);

    if (r == 0)
        r = task_file(t, fd, &f);
    if (r)
        return r;
    r = mq_receive(t, f, buf, size, user_prio, deadline);
    file_put(f);
    return r;
}

int64_t sys_mq_getsetattr(struct task *t, int fd, uaddr_t user_new, uaddr_t user_old)
{
    struct mqueue_attr set, old;
    const bool sets = !uaddr_is_null(user_new), gets = !uaddr_is_null(user_old);
    struct file *f;
    int r = sets ? copyin_obj(&t->ua, &set, user_new) : 0;

    if (r == 0 && sets && set.flags & ~(int64_t)O_NONBLOCK)
        r = -EINVAL;
    if (r == 0)
        r = task_file(t, fd, &f);
    if (r)
        return r;
    r = mqueue_getset(f, sets ? &set : NULL, gets ? &old : NULL);
    if (r == 0 && gets)
        r = copyout_obj(&t->ua, user_old, &old);
    file_put(f);
    return r;
}

/* ---- mq_notify ---- */

struct lx_sigevent {
    uint64_t value;
    int32_t signo, notify;
    uint8_t rest[48];
};

struct mq_notice {
    struct mqueue_notify n;
    struct kernel *k;
    uint64_t value;
    /* SIGEV_THREAD: whom the cookie is sent to (owned); a thread of libc's waits there. */
    struct sock *sock;
    uint8_t cookie[NOTIFY_COOKIE_LEN];
};

/* Its last byte says what has happened. */
static void notice_cookie(struct mq_notice *q, uint8_t what)
{
    q->cookie[NOTIFY_COOKIE_LEN - 1] = what;
    netlink_tell(q->sock, q->cookie, sizeof(q->cookie));
}

static void notice_fire(struct mqueue_notify *n, int32_t pid, uint32_t uid)
{
    struct mq_notice *q = container_of(n, struct mq_notice, n);
    struct lx_siginfo info = {.signo = n->signo, .code = SI_MESGQ};
    struct task *o;

    if (n->how == SIGEV_THREAD)
        notice_cookie(q, NOTIFY_WOKENUP);
    if (n->how != SIGEV_SIGNAL || n->signo == 0 || kernel_find_task(q->k, n->owner, false, &o))
        return;
    /* As the receiver knows the sender. */
    struct cred *oc = task_get_cred(o);
    info.kill.pid = task_pid_out(o, pid);
    info.kill.uid = oc ? user_ns_show(oc->user_ns, USER_NS_UID, uid) : uid;
    cred_put(oc);
    info.kill.value = q->value;
    (void)tg_send_signal(o->tg, &info);
    task_put(o);
}

static void notice_end(struct mqueue_notify *n)
{
    if (n->how == SIGEV_THREAD)
        notice_cookie(container_of(n, struct mq_notice, n), NOTIFY_REMOVED);
}

static void notice_free(struct mqueue_notify *n)
{
    struct mq_notice *q = container_of(n, struct mq_notice, n);

    if (q->sock)
        sock_put(q->sock);
    free(q);
}

/* The socket that libc has made for its thread, and what it wants to read there. */
static int notice_sock(struct task *t, const struct lx_sigevent *e, struct mq_notice *q)
{
    struct file *f;
    int r = copyin_obj(&t->ua, &q->cookie, uaddr(e->value));

    if (r == 0)
        r = task_file(t, e->signo, &f);
    if (r)
        return r;
    struct sock *s;
    r = sock_from_file(f, &s);
    if (r == 0 && s->family != AF_NETLINK)
        r = -EINVAL;
    if (r == 0) {
        sock_get(s);
        q->sock = s;
    }
    file_put(f);
    return r;
}

static int notice_new(struct task *t, uaddr_t user_event, struct mq_notice **out)
{
    struct lx_sigevent e;
    int r = copyin_obj(&t->ua, &e, user_event);

    if (r)
        return r;
    if ((e.notify != SIGEV_NONE && e.notify != SIGEV_SIGNAL && e.notify != SIGEV_THREAD) ||
        (e.notify == SIGEV_SIGNAL && (e.signo < 0 || e.signo > 64)))
        return -EINVAL;
    struct mq_notice *q = calloc(1, sizeof(*q));
    if (!q)
        return -ENOMEM;
    q->n = (struct mqueue_notify){
        .owner = task_tgid(t),
        .how = e.notify,
        .signo = e.signo,
        .fire = notice_fire,
        .end = notice_end,
        .free = notice_free,
    };
    q->k = t->k;
    q->value = e.value;
    r = e.notify == SIGEV_THREAD ? notice_sock(t, &e, q) : 0;
    if (r) {
        notice_free(&q->n);
        return r;
    }
    *out = q;
    return 0;
}

int64_t sys_mq_notify(struct task *t, int fd, uaddr_t user_event)
{
    struct mq_notice *q = NULL;
    struct file *f;
    int r = uaddr_is_null(user_event) ? 0 : notice_new(t, user_event, &q);

    if (r)
        return r;
    r = task_file(t, fd, &f);
    if (r == 0) {
        r = mqueue_notify(f, q ? &q->n : NULL, task_tgid(t));
        file_put(f);
    }
    if (r && q)
        notice_free(&q->n);
    return r;
}
