/* Options and ioctls of host sockets: those on the list go to the host. */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "sentry/net/host/host_priv.h"

/* ---- options ---- */

static bool option_allowed(enum host_option_how how, int level, int name)
{
    for (size_t i = 0; i < host_option_count; i++)
        if (host_options[i].level == level && host_options[i].name == name)
            return host_options[i].how & (int)how;
    return false;
}

static int get_linger(const struct sock *s, void *buf, socklen_t *len)
{
    const uint64_t v = s->linger;
    const struct linger l = {.l_onoff = (int)(v >> 32), .l_linger = (int)(uint32_t)v};

    return sock_put_option(buf, len, &l, sizeof(l));
}

/* The host is told of a reset only: its close(2) would make the thread wait beyond all signals. */
static int set_linger(struct sock *s, const void *buf, socklen_t len)
{
    struct linger l;

    if (len < sizeof(l))
        return -EINVAL;
    memcpy(&l, buf, sizeof(l));
    const struct linger cut = {.l_onoff = l.l_onoff && l.l_linger == 0};
    if (setsockopt(host_sock(s)->fd, SOL_SOCKET, SO_LINGER, &cut, sizeof(cut)))
        return -errno;
    atomic_store(&s->linger, l.l_onoff ? UINT64_C(1) << 32 | (uint32_t)l.l_linger : 0);
    return 0;
}

static int get_own(const struct sock *s, int name, void *buf, socklen_t *len)
{
    int value;

    switch (name) {
    case SO_TYPE:
        value = s->type;
        break;
    case SO_DOMAIN:
        value = s->family;
        break;
    case SO_PROTOCOL:
        value = s->protocol;
        break;
    case SO_SNDLOWAT:
        value = 1;
        break;
    case LX_SO_PASSPIDFD:
        return -EOPNOTSUPP;
    default:
        return -ENOPROTOOPT;
    }
    return sock_put_option(buf, len, &value, sizeof(value));
}

int host_getsockopt(struct sock *s, int level, int name, void *buf, socklen_t *len)
{
    if (level == SOL_SOCKET && name == SO_LINGER)
        return get_linger(s, buf, len);
    if (option_allowed(HOST_OPTION_GET, level, name))
        return getsockopt(host_sock(s)->fd, level, name, buf, len) == 0 ? 0 : -errno;
    return level == SOL_SOCKET ? get_own(s, name, buf, len) : -ENOPROTOOPT;
}

int host_setsockopt(struct sock *s, int level, int name, const void *buf, socklen_t len,
                    const struct vfs_caller *c)
{
    (void)c;
    if (level == SOL_SOCKET && name == SO_LINGER)
        return set_linger(s, buf, len);
    /* What the host's root may do. */
    if (level == SOL_SOCKET && (name == SO_SNDBUFFORCE || name == SO_RCVBUFFORCE))
        return -EPERM;
    if (level == SOL_SOCKET && name == LX_SO_PASSPIDFD)
        return -EOPNOTSUPP;
    if (!option_allowed(HOST_OPTION_SET, level, name))
        return -ENOPROTOOPT;
    return setsockopt(host_sock(s)->fd, level, name, buf, len) == 0 ? 0 : -errno;
}

/* ---- links, as netdevice(7) asks for them ---- */

#define IFCONF_MAX 65536

static int64_t ifreq_get(int fd, unsigned cmd, uint64_t arg, const struct uaccess *ua)
{
    struct ifreq r;
    int err = copyin_obj(ua, &r, uaddr(arg));

    if (err)
        return err;
    if (ioctl(fd, (unsigned long)cmd, &r))
        return -errno;
    return copyout_obj(ua, uaddr(arg), &r);
}

static int64_t ifconf_get(int fd, uint64_t arg, const struct uaccess *ua)
{
    struct ifconf mine, theirs;
    int r = copyin_obj(ua, &theirs, uaddr(arg));

    if (r)
        return r;
    mine = theirs;
    if (theirs.ifc_buf) {
        if (theirs.ifc_len < 0)
            return -EINVAL;
        mine.ifc_len = MIN(theirs.ifc_len, IFCONF_MAX);
        mine.ifc_buf = calloc(1, (size_t)mine.ifc_len + 1);
        if (!mine.ifc_buf)
            return -ENOMEM;
    }
    if (ioctl(fd, SIOCGIFCONF, &mine))
        r = -errno;
    else if (theirs.ifc_buf)
        r = copyout(ua, uaddr((uint64_t)(uintptr_t)theirs.ifc_buf), mine.ifc_buf,
                    (size_t)MIN(mine.ifc_len, theirs.ifc_len));
    if (theirs.ifc_buf)
        free(mine.ifc_buf);
    theirs.ifc_len = mine.ifc_len;
    return r ? r : copyout_obj(ua, uaddr(arg), &theirs);
}

static int64_t link_ioctl(int fd, unsigned cmd, uint64_t arg, const struct uaccess *ua)
{
    switch (cmd) {
    case SIOCGIFCONF:
        return ifconf_get(fd, arg, ua);
    case SIOCGIFNAME:
    case SIOCGIFINDEX:
    case SIOCGIFFLAGS:
    case SIOCGIFADDR:
    case SIOCGIFDSTADDR:
    case SIOCGIFBRDADDR:
    case SIOCGIFNETMASK:
    case SIOCGIFMETRIC:
    case SIOCGIFMTU:
    case SIOCGIFHWADDR:
    case SIOCGIFTXQLEN:
        return ifreq_get(fd, cmd, arg, ua);
    case SIOCETHTOOL:
        return -EOPNOTSUPP;
    case SIOCSIFFLAGS:
    case SIOCSIFADDR:
    case SIOCSIFDSTADDR:
    case SIOCSIFBRDADDR:
    case SIOCSIFNETMASK:
    case SIOCSIFMETRIC:
    case SIOCSIFMTU:
    case SIOCSIFHWADDR:
    case SIOCSIFNAME:
    case SIOCSIFTXQLEN:
    case SIOCADDRT:
    case SIOCDELRT:
    case SIOCSARP:
    case SIOCDARP:
        return -EPERM;
    default:
        return -ENOTTY;
    }
}

int64_t host_ioctl(struct sock *s, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                   const struct vfs_caller *c)
{
    int n;

    (void)c;
    if (cmd != SIOCATMARK && cmd != SIOCOUTQNSD)
        return link_ioctl(host_sock(s)->fd, cmd, arg, ua);
    if (ioctl(host_sock(s)->fd, cmd, &n))
        return -errno;
    return copyout_obj(ua, uaddr(arg), &n);
}

int64_t host_ifioctl(struct net *n, unsigned cmd, uint64_t arg, const struct uaccess *ua)
{
    const int fd = host_query_fd(net_host(n));

    return fd < 0 ? fd : link_ioctl(fd, cmd, arg, ua);
}
