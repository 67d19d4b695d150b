/* Options at SOL_SOCKET that every family has (socket(7)). */
#include <errno.h>
#include <linux/capability.h>
#include <linux/net_tstamp.h>
#include <string.h>
#include <sys/time.h>

#include "base/limits.h"
#include "sentry/net/filter.h"
#include "sentry/net/sock.h"

#define LX_SO_PREFER_BUSY_POLL 69
#define LX_SO_BUSY_POLL_BUDGET 70
#define LX_SO_NETNS_COOKIE 71
#define LX_SO_BUF_LOCK 72
#define LX_SO_RESERVE_MEM 73
#define LX_SO_TXREHASH 74
#define BUF_LOCK_SND 1u
#define BUF_LOCK_RCV 2u

#define NS_PER_SEC 1000000000ull
#define SNDBUF_MIN 4608u
#define RCVBUF_MIN 2304u
#define FLAG(name) (1ull << (name))
/* Those that are just on or off. */
#define SOCK_FLAGS                                                                                 \
    (FLAG(SO_DEBUG) | FLAG(SO_REUSEADDR) | FLAG(SO_DONTROUTE) | FLAG(SO_BROADCAST) |               \
     FLAG(SO_KEEPALIVE) | FLAG(SO_OOBINLINE) | FLAG(SO_REUSEPORT) | FLAG(SO_PASSCRED) |            \
     FLAG(SO_NO_CHECK) | FLAG(SO_TIMESTAMP) | FLAG(SO_TIMESTAMPNS) | FLAG(SO_RXQ_OVFL) |           \
     FLAG(SO_SELECT_ERR_QUEUE) | FLAG(SO_LOCK_FILTER) | FLAG(SO_ZEROCOPY) | FLAG(SO_PASSSEC) |     \
     FLAG(SO_WIFI_STATUS))

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

/* Of the socket's name at the other end (SO_PEERNAME). */
static int put_peername(struct sock *s, void *buf, socklen_t *len)
{
    struct sock_addr a;
    int r = s->ops->getname(s, true, &a);

    if (r)
        return r;
    if (a.len < *len)
        return -EINVAL;
    return sock_put_option(buf, len, &a.storage, a.len);
}

static int put_meminfo(struct sock *s, void *buf, socklen_t *len)
{
    /* rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, optmem, backlog, drops */
    uint32_t info[9] = {0};
    const int64_t in = s->ops->readable(s), out = s->ops->unsent(s);

    info[0] = in > 0 ? (uint32_t)in : 0;
    info[1] = s->rcvbuf;
    info[2] = info[5] = out > 0 ? (uint32_t)out : 0;
    info[3] = s->sndbuf;
    return sock_put_option(buf, len, info, sizeof(info));
}

static int put_pacing(struct sock *s, void *buf, socklen_t *len)
{
    const uint64_t rate = s->pacing_rate;

    if (*len >= sizeof(rate))
        return sock_put_option(buf, len, &rate, sizeof(rate));
    return put_int(buf, len, rate > UINT32_MAX ? -1 : (int)rate);
}

static int put_u64(void *buf, socklen_t *len, uint64_t v)
{
    return *len < sizeof(v) ? -EINVAL : sock_put_option(buf, len, &v, sizeof(v));
}

/* The less common ones. */
static int get_rare(struct sock *s, int level, int name, void *buf, socklen_t *len)
{
    switch (name) {
    case SO_PEEK_OFF:
        return put_int(buf, len, s->peek_off);
    case SO_TIMESTAMPING:
        return put_int(buf, len, (int)s->stamping);
    case SO_INCOMING_CPU:
        return put_int(buf, len, (int)s->incoming_cpu);
    case SO_BUSY_POLL:
        return put_int(buf, len, (int)s->busy_poll);
    case SO_MAX_PACING_RATE:
        return put_pacing(s, buf, len);
    case SO_BPF_EXTENSIONS:
        return put_int(buf, len, SKF_AD_VLAN_TAG_PRESENT);
    case SO_COOKIE:
        return put_u64(buf, len, s->cookie);
    case LX_SO_NETNS_COOKIE:
        return put_u64(buf, len, 1);
    case SO_MEMINFO:
        return put_meminfo(s, buf, len);
    case SO_PEERNAME:
        return put_peername(s, buf, len);
    case LX_SO_BUF_LOCK:
        return put_int(buf, len, s->buf_lock);
    case LX_SO_PASSPIDFD:
        return s->family == AF_UNIX ? s->ops->getsockopt(s, level, name, buf, len) : -EOPNOTSUPP;
    case SO_INCOMING_NAPI_ID:
    case SO_BSDCOMPAT:
    case LX_SO_PREFER_BUSY_POLL:
    case LX_SO_RESERVE_MEM:
        return put_int(buf, len, 0);
    case LX_SO_TXREHASH:
        return put_int(buf, len, 1);
    default:
        return s->ops->getsockopt(s, level, name, buf, len);
    }
}

static int take_error(struct sock *s)
{
    const int error = atomic_exchange(&s->error, 0);

    return error || !s->ops->take_error ? error : s->ops->take_error(s);
}

/* Times that the sentry sees to itself, whoever has the other options. */
static bool own_option(const struct sock *s, int level, int name)
{
    return s->ops->own_options &&
           (level != SOL_SOCKET || (name != SO_RCVTIMEO && name != SO_SNDTIMEO));
}

int sock_getsockopt(struct sock *s, int level, int name, void *buf, socklen_t *len)
{
    if (level != SOL_SOCKET || own_option(s, level, name))
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
        return put_int(buf, len, -take_error(s));
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
        return get_rare(s, level, name, buf, len);
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

static int set_buffer(struct sock *s, int name, int value, bool admin)
{
    const bool force = name == SO_SNDBUFFORCE || name == SO_RCVBUFFORCE;
    const bool send = name == SO_SNDBUF || name == SO_SNDBUFFORCE;
    const uint32_t max = force ? LIMIT_SOCKBUF_MAX : LIMIT_SOCKBUF_DEFAULT;

    if (force && !admin)
        return -EPERM;
    atomic_store(send ? &s->sndbuf : &s->rcvbuf,
                 sockbuf_size(value, max, send ? SNDBUF_MIN : RCVBUF_MIN));
    atomic_fetch_or(&s->buf_lock, send ? BUF_LOCK_SND : BUF_LOCK_RCV);
    return 0;
}

static int set_peek_off(struct sock *s, int value)
{
    const bool inet = s->family == AF_INET || s->family == AF_INET6;

    if ((!inet && s->family != AF_UNIX) || s->type == SOCK_RAW)
        return -EOPNOTSUPP;
    atomic_store(&s->peek_off, value);
    return 0;
}

static int set_rare(struct sock *s, int name, int value, bool admin)
{
    switch (name) {
    case SO_PEEK_OFF:
        return set_peek_off(s, value);
    case SO_TIMESTAMPING:
        if (value & ~((1 << 19) - 1))
            return -EINVAL;
        atomic_store(&s->stamping, (uint32_t)value);
        return 0;
    case SO_INCOMING_CPU:
        atomic_store(&s->incoming_cpu, (uint32_t)value);
        return 0;
    case SO_BUSY_POLL:
        if (value < 0)
            return -EINVAL;
        if ((uint32_t)value > s->busy_poll && !admin)
            return -EPERM;
        atomic_store(&s->busy_poll, (uint32_t)value);
        return 0;
    case SO_MAX_PACING_RATE:
        atomic_store(&s->pacing_rate, value == -1 ? UINT64_MAX : (uint32_t)value);
        return 0;
    case LX_SO_BUF_LOCK:
        if (value & ~3)
            return -EINVAL;
        atomic_store(&s->buf_lock, (uint8_t)value);
        return 0;
    case SO_BSDCOMPAT:
        return 0;
    case LX_SO_PASSPIDFD:
        return -EOPNOTSUPP; /* AF_UNIX has taken its own */
    case SO_DETACH_FILTER:
        return sock_filter_detach(s);
    case LX_SO_TXREHASH:
        return value < -1 || value > 1 ? -EINVAL : 0;
    default:
        return -ENOPROTOOPT;
    }
}

static int set_int(struct sock *s, int name, int value, const struct vfs_caller *c)
{
    const bool admin = net_capable(s->net, c->cred, CAP_NET_ADMIN);

    switch (name) {
    case SO_SNDBUF:
    case SO_RCVBUF:
    case SO_SNDBUFFORCE:
    case SO_RCVBUFFORCE:
        return set_buffer(s, name, value, admin);
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
        return set_rare(s, name, value, admin);
    }
}

/* Both kinds of time stamp exclude each other; the last one asked for counts. */
static int set_flag_checked(struct sock *s, int name, int value)
{
    const bool inet = s->family == AF_INET || s->family == AF_INET6;

    if (name == SO_REUSEPORT && value && !inet)
        return -EOPNOTSUPP;
    if (name == SO_ZEROCOPY) {
        if (!inet || s->type == SOCK_RAW)
            return -EOPNOTSUPP;
        if (value < 0 || value > 1)
            return -EINVAL;
    }
    if (name == SO_LOCK_FILTER && !value && sock_option(s, name))
        return -EPERM;
    if (name == SO_TIMESTAMP)
        (void)set_flag(s, SO_TIMESTAMPNS, false);
    if (name == SO_TIMESTAMPNS)
        (void)set_flag(s, SO_TIMESTAMP, false);
    return set_flag(s, name, value != 0);
}

void sock_stamp(struct sock *s, uint64_t ns, struct sock_control *ctl)
{
    const uint32_t want = SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE;
    struct timespec ts[3] = {
        {.tv_sec = (time_t)(ns / NS_PER_SEC), .tv_nsec = (long)(ns % NS_PER_SEC)}};

    if (sock_option(s, SO_TIMESTAMP)) {
        const struct timeval tv = {.tv_sec = ts[0].tv_sec, .tv_usec = ts[0].tv_nsec / 1000};
        (void)!sock_control_put(ctl, SOL_SOCKET, SO_TIMESTAMP, &tv, sizeof(tv));
    } else if (sock_option(s, SO_TIMESTAMPNS)) {
        (void)!sock_control_put(ctl, SOL_SOCKET, SO_TIMESTAMPNS, &ts[0], sizeof(ts[0]));
    }
    if ((s->stamping & want) == want)
        (void)!sock_control_put(ctl, SOL_SOCKET, SO_TIMESTAMPING, ts, sizeof(ts));
}

void sock_say_dropped(struct sock *s, uint32_t dropped, struct sock_control *ctl)
{
    if (dropped != 0 && sock_option(s, SO_RXQ_OVFL))
        (void)!sock_control_put(ctl, SOL_SOCKET, SO_RXQ_OVFL, &dropped, sizeof(dropped));
}

void sock_stamp_now(struct sock *s, struct sock_control *ctl)
{
    struct timespec now;

    if (!sock_option(s, SO_TIMESTAMP) && !sock_option(s, SO_TIMESTAMPNS) && s->stamping == 0)
        return;
    BUG_ON(clock_gettime(CLOCK_REALTIME, &now) != 0);
    sock_stamp(s, (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec, ctl);
}

/* What a family has to say about its own options at SOL_SOCKET comes first. */
static int set_family(struct sock *s, int name, const void *buf, socklen_t len,
                      const struct vfs_caller *c)
{
    return s->ops->setsockopt(s, SOL_SOCKET, name, buf, len, c);
}

static int set_any(struct sock *s, int level, int name, const void *buf, socklen_t len,
                   const struct vfs_caller *c)
{
    int value;

    if (level != SOL_SOCKET || own_option(s, level, name))
        return s->ops->setsockopt(s, level, name, buf, len, c);
    if (name == SO_BINDTODEVICE)
        return set_family(s, name, buf, len, c);
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
    int r = set_family(s, name, buf, len, c);
    if (r != -ENOPROTOOPT)
        return r;
    if (name > 0 && name < 64 && SOCK_FLAGS & FLAG(name))
        return set_flag_checked(s, name, value);
    return set_int(s, name, value, c);
}

int sock_setsockopt(struct sock *s, int level, int name, const void *buf, socklen_t len,
                    const struct vfs_caller *c)
{
    int r = set_any(s, level, name, buf, len, c);

    if (r == 0 && s->ops->changed)
        s->ops->changed(s);
    return r;
}
