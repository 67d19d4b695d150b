/* Ancillary data of messages: SCM_RIGHTS and SCM_CREDENTIALS (cmsg(3), unix(7)). */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "sentry/cred/user_ns.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/process.h"
#include "sentry/wait/procref.h"
#include "syscalls/sys_socket.h"

#define CMSG_HEAD 16u
#define LX_SCM_PIDFD 4
/* net.core.optmem_max: more ancillary data than this is no message (-ENOBUFS). */
#define CMSG_TOTAL_MAX 131072u

struct lx_cmsghdr {
    uint64_t len;
    int32_t level, type;
};
_Static_assert(sizeof(struct lx_cmsghdr) == CMSG_HEAD, "struct cmsghdr");

/* ---- from the guest ---- */

static int cmsg_rights(struct task *t, const char *data, size_t size, struct sock_control *out)
{
    const size_t count = size / sizeof(int32_t);

    if (out->file_count + count > LIMIT_SCM_FDS)
        return -EINVAL;
    if (count == 0)
        return 0;
    if (!out->files) {
        out->files = calloc(LIMIT_SCM_FDS, sizeof(struct file *));
        if (!out->files)
            return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        int32_t fd;
        memcpy(&fd, data + i * sizeof(fd), sizeof(fd));
        int r = task_file_any(t, fd, &out->files[out->file_count]);
        if (r)
            return r;
        out->file_count++;
    }
    return 0;
}

/* One may say of oneself what is true (scm_check_creds of the kernel). */
static int cmsg_cred(struct task *t, const struct vfs_caller *c, const char *data, size_t size,
                     struct sock_control *out)
{
    const struct cred *me = c->cred;
    struct sock_cred cr;

    if (size != sizeof(cr))
        return -EINVAL;
    memcpy(&cr, data, sizeof(cr));
    /* As the sender knows them. */
    cr.uid = user_ns_in(me->user_ns, USER_NS_UID, cr.uid);
    cr.gid = user_ns_in(me->user_ns, USER_NS_GID, cr.gid);
    if (cr.uid == UINT32_MAX || cr.gid == UINT32_MAX)
        return -EINVAL;
    cr.pid = task_pid_in(t, cr.pid);
    if (cr.pid != c->tgid && !task_pid_capable(t))
        return -EPERM;
    if (cr.pid != c->tgid) {
        struct task *o;
        int r = kernel_find_task(t->k, cr.pid, true, &o);
        if (r)
            return r;
        procref_put(out->process);
        out->process = procref_get(task_process(o));
        task_put(o);
    }
    if (cr.uid != me->uid && cr.uid != me->euid && cr.uid != me->suid &&
        !cred_self_capable(me, CAP_SETUID))
        return -EPERM;
    if (cr.gid != me->gid && cr.gid != me->egid && cr.gid != me->sgid &&
        !cred_self_capable(me, CAP_SETGID))
        return -EPERM;
    out->cred = cr;
    out->has_cred = true;
    return 0;
}

/* At SOL_SOCKET, for packets (__sock_cmsg_send of the kernel). */
static int cmsg_socket(int type, size_t size)
{
    switch (type) {
    case SO_TIMESTAMPING:
        return size == sizeof(uint32_t) ? 0 : -EINVAL;
    case SCM_RIGHTS:
    case SCM_CREDENTIALS:
        return 0;
    default:
        return -EINVAL;
    }
}

static int cmsg_parse(struct task *t, const struct vfs_caller *c, int family, const char *buf,
                      size_t size, struct sock_control *out)
{
    size_t off = 0;

    while (size - off >= CMSG_HEAD) {
        struct lx_cmsghdr h;
        memcpy(&h, buf + off, sizeof(h));
        if (h.len < CMSG_HEAD || h.len > size - off)
            return -EINVAL;
        const char *data = buf + off + CMSG_HEAD;
        const size_t n = (size_t)h.len - CMSG_HEAD;
        int r = 0;
        if (h.level != SOL_SOCKET)
            r = sock_control_put(out, h.level, h.type, data, n);
        else if (family != AF_UNIX)
            r = cmsg_socket(h.type, n);
        else if (h.type == SCM_RIGHTS)
            r = cmsg_rights(t, data, n, out);
        else if (h.type == SCM_CREDENTIALS)
            r = cmsg_cred(t, c, data, n, out);
        else
            r = -EINVAL;
        if (r)
            return r;
        const size_t step = ALIGN_UP((size_t)h.len, (size_t)8);
        if (step > size - off)
            break;
        off += step;
    }
    return 0;
}

int sock_cmsg_in(struct task *t, const struct vfs_caller *c, int family, uaddr_t control,
                 uint64_t len, struct sock_control *out)
{
    memset(out, 0, sizeof(*out));
    if (len < CMSG_HEAD)
        return 0;
    if (len > CMSG_TOTAL_MAX)
        return -ENOBUFS;
    char *buf = malloc((size_t)len);
    if (!buf)
        return -ENOBUFS;
    int r = copyin(&t->ua, buf, control, (size_t)len);
    if (r == 0)
        r = cmsg_parse(t, c, family, buf, (size_t)len, out);
    free(buf);
    if (r)
        sock_control_fini(out);
    return r;
}

/* ---- to the guest ---- */

/* The space that is left for ancillary data. */
struct cmsg_space {
    uint64_t at, left, used;
};

static int cmsg_put(struct task *t, struct cmsg_space *sp, int level, int type, const void *data,
                    size_t size, int *flags)
{
    const struct lx_cmsghdr h = {.len = CMSG_HEAD + size, .level = level, .type = type};
    uint64_t len = h.len;

    if (sp->left < CMSG_HEAD) {
        *flags |= MSG_CTRUNC;
        return 0;
    }
    if (sp->left < len) {
        *flags |= MSG_CTRUNC;
        len = sp->left;
    }
    const struct lx_cmsghdr cut = {.len = len, .level = h.level, .type = h.type};
    int r = copyout_obj(&t->ua, uaddr(sp->at), &cut);
    if (r == 0)
        r = copyout(&t->ua, uaddr(sp->at + CMSG_HEAD), data, (size_t)(len - CMSG_HEAD));
    const uint64_t step = MIN(ALIGN_UP(len, (uint64_t)8), sp->left);
    sp->at += step;
    sp->left -= step;
    sp->used += step;
    return r;
}

/* Installs files one by one; what has no room, or no descriptor left, is closed. */
static int cmsg_put_files(struct task *t, struct cmsg_space *sp, struct sock_control *ctl,
                          bool cloexec, int *flags)
{
    int32_t fds[LIMIT_SCM_FDS];
    size_t done = 0;
    const size_t room = sp->left < CMSG_HEAD + sizeof(int32_t)
                            ? 0
                            : (size_t)(sp->left - CMSG_HEAD) / sizeof(int32_t);

    while (done < ctl->file_count && done < room) {
        int fd = task_fd_install(t, ctl->files[done], cloexec, 0);
        if (fd < 0)
            break;
        fds[done++] = fd;
    }
    if (done < ctl->file_count)
        *flags |= MSG_CTRUNC;
    return done > 0 ? cmsg_put(t, sp, SOL_SOCKET, SCM_RIGHTS, fds, done * sizeof(fds[0]), flags)
                    : 0;
}

struct sock_cred sock_cred_out(struct task *t, const struct sock_cred *cr)
{
    const struct user_ns *ns = t->cred->user_ns;

    return (struct sock_cred){cr->pid > 0 ? task_pid_out(t, cr->pid) : 0,
                              user_ns_show(ns, USER_NS_UID, cr->uid),
                              user_ns_show(ns, USER_NS_GID, cr->gid)};
}

static int cmsg_put_cred(struct task *t, struct cmsg_space *sp, const struct sock_cred *cr,
                         int *flags)
{
    const struct sock_cred seen = sock_cred_out(t, cr);

    return cmsg_put(t, sp, SOL_SOCKET, SCM_CREDENTIALS, &seen, sizeof(seen), flags);
}

/* Of whoever sent it, who may be gone. Without a descriptor the number says why. */
static int cmsg_put_pidfd(struct task *t, struct cmsg_space *sp, struct procref *process,
                          int *flags)
{
    struct file *f;

    if (sp->left < CMSG_HEAD + sizeof(int32_t)) {
        *flags |= MSG_CTRUNC;
        return 0;
    }
    int32_t fd = pidfd_new(process, 0, &f);
    if (fd == 0) {
        fd = task_fd_install(t, f, true, 0);
        file_put(f);
    }
    return cmsg_put(t, sp, SOL_SOCKET, LX_SCM_PIDFD, &fd, sizeof(fd), flags);
}

int sock_cmsg_out(struct task *t, struct sock_control *ctl, bool cloexec, struct lx_msghdr *h,
                  int *flags)
{
    struct cmsg_space sp = {.at = h->control, .left = h->controllen};
    const uint8_t *data;
    struct sock_item it;
    size_t pos = 0;
    int r = 0;

    while (r == 0 && sock_control_next(ctl, &pos, &it, &data))
        r = cmsg_put(t, &sp, it.level, it.type, data, it.size, flags);
    if (r == 0 && ctl->has_cred)
        r = cmsg_put_cred(t, &sp, &ctl->cred, flags);
    if (r == 0 && ctl->file_count > 0)
        r = cmsg_put_files(t, &sp, ctl, cloexec, flags);
    if (r == 0 && ctl->process)
        r = cmsg_put_pidfd(t, &sp, ctl->process, flags);
    h->controllen = sp.used;
    return r;
}
