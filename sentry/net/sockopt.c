/* Options at SOL_SOCKET that every family has (socket(7)). */
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/time.h>

#include "base/limits.h"
#include "sentry/net/sock.h"

#define NS_PER_SEC 1000000000ull
#define SNDBUF_MIN 4608u
#define RCVBUF_MIN 2304u
#define FLAG(name) (1ull << (name))
/* Those that are just on or off. */
#define SOCK_FLAGS                                                                                 \
    (FLAG(SO_DEBUG) | FLAG(SO_REUSEADDR) | FLAG(SO_DONTROUTE) | FLAG(SO_BROADCAST) |               \
     FLAG(SO_KEEPALIVE) | FLAG(SO_OOBINLINE) | FLAG(SO_REUSEPORT) | FLAG(SO_PASSCRED) |            \
     FLAG(SO_NO_CHECK))

bool sock_option(const struct sock *s, int name)
{
    return atomic_load_explicit(&s->flags, memory_order_relaxed) & FLAG(name);
}

int sock_put_option(void *buf, socklen_t *len, const void *value, size_t size)
{
    size_t n = *len < size ? *len : size;

    memcpy(buf, value, n);
    *len = (socklen_t)n;
    return 0;
}

static int put_int(void *buf, socklen_t *len, int value)
{
    return sock_put_option(buf, len, &value, sizeof(value));
}

static int put_timeval(void *buf, socklen_t *len, uint64_t ns)
{
    const struct timeval tv = {.tv_sec = (time_t)(ns / NS_PER_SEC),
                               .tv_usec = (suseconds_t)(ns % NS_PER_SEC / 1000)};

    return sock_put_option(buf, len, &tv, sizeof(tv));
}

static int put_linger(void *buf, socklen_t *len, uint64_t v)
{
    const struct linger l = {.l_onoff = (int)(v >> 32), .l_linger = (int)(uint32_t)v};

    return sock_put_option(buf, len, &l, sizeof(l));
}

int sock_getsockopt(struct sock *s, int level, int name, void *buf, socklen_t *len)
{
    if (level != SOL_SOCKET)
        return s->ops->getsockopt(s, level, name, buf, len);
    if (name > 0 && name < 64 && SOCK_FLAGS & FLAG(name))
        return put_int(buf, len, sock_option(s, name));
    switch (name) {
    case SO_TYPE:
        return put_int(buf, len, s->type);
    case SO_DOMAIN:
        return put_int(buf, len, s->family);
    case SO_PROTOCOL:
        return put_int(buf, len, s->protocol);
    case SO_ERROR:
        return put_int(buf, len, -atomic_exchange(&s->error, 0));
    case SO_SNDBUF:
        return put_int(buf, len, (int)s->sndbuf);
    case SO_RCVBUF:
        return put_int(buf, len, (int)s->rcvbuf);
    case SO_RCVLOWAT:
        return put_int(buf, len, (int)s->rcvlowat);
    case SO_SNDLOWAT:
        return put_int(buf, len, 1);
    case SO_PRIORITY:
        return put_int(buf, len, (int)s->priority);
    case SO_MARK:
        return put_int(buf, len, (int)s->mark);
    case SO_LINGER:
        return put_linger(buf, len, s->linger);
    case SO_SNDTIMEO:
        return put_timeval(buf, len, s->sndtimeo_ns);
    case SO_RCVTIMEO:
        return put_timeval(buf, len, s->rcvtimeo_ns);
    default:
        return s->ops->getsockopt(s, level, name, buf, len);
    }
}

static int set_timeval(_Atomic uint64_t *ns, const void *buf, socklen_t len)
{
    struct timeval tv;

    if (len < sizeof(tv))
        return -EINVAL;
    memcpy(&tv, buf, sizeof(tv));
    if (tv.tv_usec < 0 || tv.tv_usec >= 1000000)
        return -EDOM;
    /* A negative time is one that has passed: the call does not wait at all to speak of. */
    if (tv.tv_sec < 0)
        atomic_store(ns, 1);
    else if ((uint64_t)tv.tv_sec > UINT64_MAX / NS_PER_SEC / 4)
        atomic_store(ns, 0);
    else
        atomic_store(ns, (uint64_t)tv.tv_sec * NS_PER_SEC + (uint64_t)tv.tv_usec * 1000);
    return 0;
}

static int set_linger(struct sock *s, const void *buf, socklen_t len)
{
    struct linger l;

    if (len < sizeof(l))
        return -EINVAL;
    memcpy(&l, buf, sizeof(l));
    uint64_t old = atomic_load(&s->linger), on = l.l_onoff ? UINT64_C(1) << 32 : 0;
    atomic_store(&s->linger, on | (on ? (uint32_t)l.l_linger : (uint32_t)old));
    return 0;
}

/* Linux doubles what is asked, for its bookkeeping, and programs read that back (socket(7)). */
static uint32_t sockbuf_size(int value, uint32_t max, uint32_t min)
{
    uint32_t asked = (uint32_t)value;

    if (value < 0 || asked > max)
        asked = max;
    return asked * 2 < min ? min : asked * 2;
}

static int set_flag(struct sock *s, int name, bool on)
{
    if (on)
        atomic_fetch_or(&s->flags, FLAG(name));
    else
        atomic_fetch_and(&s->flags, ~FLAG(name));
    return 0;
}

static int set_int(struct sock *s, int name, int value, const struct vfs_caller *c)
{
    const bool admin = cred_capable(c->cred, CAP_NET_ADMIN);

    switch (name) {
    case SO_SNDBUF:
        atomic_store(&s->sndbuf, sockbuf_size(value, LIMIT_SOCKBUF_DEFAULT, SNDBUF_MIN));
        return 0;
    case SO_RCVBUF:
        atomic_store(&s->rcvbuf, sockbuf_size(value, LIMIT_SOCKBUF_DEFAULT, RCVBUF_MIN));
        return 0;
    case SO_SNDBUFFORCE:
        if (!admin)
            return -EPERM;
        atomic_store(&s->sndbuf, sockbuf_size(value, LIMIT_SOCKBUF_MAX, SNDBUF_MIN));
        return 0;
    case SO_RCVBUFFORCE:
        if (!admin)
            return -EPERM;
        atomic_store(&s->rcvbuf, sockbuf_size(value, LIMIT_SOCKBUF_MAX, RCVBUF_MIN));
        return 0;
    case SO_RCVLOWAT:
        atomic_store(&s->rcvlowat, value < 0 ? INT32_MAX : value == 0 ? 1u : (uint32_t)value);
        return 0;
    case SO_PRIORITY:
        if ((value < 0 || value > 6) && !admin)
            return -EPERM;
        atomic_store(&s->priority, (uint32_t)value);
        return 0;
    case SO_MARK:
        if (!admin)
            return -EPERM;
        atomic_store(&s->mark, (uint32_t)value);
        return 0;
    default:
        return -ENOPROTOOPT;
    }
}

int sock_setsockopt(struct sock *s, int level, int name, const void *buf, socklen_t len,
                    const struct vfs_caller *c)
{
    int value;

    if (level != SOL_SOCKET)
        return s->ops->setsockopt(s, level, name, buf, len);
    if (len < sizeof(value))
        return -EINVAL;
    memcpy(&value, buf, sizeof(value));
    if (name == SO_SNDTIMEO)
        return set_timeval(&s->sndtimeo_ns, buf, len);
    if (name == SO_RCVTIMEO)
        return set_timeval(&s->rcvtimeo_ns, buf, len);
    if (name == SO_LINGER)
        return set_linger(s, buf, len);
    if (name == SO_DEBUG && value && !cred_capable(c->cred, CAP_NET_ADMIN))
        return -EACCES;
    if (name == SO_TYPE || name == SO_DOMAIN || name == SO_PROTOCOL || name == SO_ERROR ||
        name == SO_SNDLOWAT || name == SO_ACCEPTCONN)
        return -ENOPROTOOPT;
    if (name > 0 && name < 64 && SOCK_FLAGS & FLAG(name)) {
        int r = s->ops->setsockopt(s, level, name, buf, len);
        return r && r != -ENOPROTOOPT ? r : set_flag(s, name, value != 0);
    }
    return set_int(s, name, value, c);
}
