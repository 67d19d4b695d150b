/* Options at SOL_TCP, and TCP_INFO (tcp(7)). */
#include <errno.h>
#include <linux/capability.h>
#include <string.h>

#include "sentry/net/inet/tcp_priv.h"
#include "sentry/net/tcp/info.h"

#define LX_TCP_THIN_LINEAR_TIMEOUTS 16
#define LX_TCP_THIN_DUPACK 17
#define LX_TCP_NOTSENT_LOWAT 25
#define LX_TCP_SAVE_SYN 27
#define LX_TCP_SAVED_SYN 28
#define LX_TCP_FASTOPEN_CONNECT 30
#define LX_TCP_ULP 31
#define LX_TCP_FASTOPEN_NO_COOKIE 34
#define LX_TCP_ZEROCOPY_RECEIVE 35
#define LX_TCP_INQ 36
#define LX_TCP_TX_DELAY 37
/* Of the loopback link: its MTU less 20 of IP, 20 of TCP and 12 of time stamps. */
#define LOOPBACK_MSS 65483u
#define LOOPBACK_RTO_MIN_US 200000u
#define KEEP_MAX_S 32767

void tcp_options_init(struct tcp_options *o)
{
    memset(o, 0, sizeof(*o));
    o->quickack = 1;
    memcpy(o->congestion, "cubic", 6);
}

/* ---- reading ---- */

static int in_seconds(uint32_t own, int standard)
{
    return own ? (int)own : standard;
}

static int get_maxseg(struct tcp_sock *s, bool idle)
{
    struct lx_tcp_info i;

    if (!idle && tcp_is_out(s) && tcp_ext_info(s, &i))
        return (int)i.snd_mss;
    return s->opt.maxseg ? s->opt.maxseg : idle ? 536 : (int)LOOPBACK_MSS;
}

static int get_number(struct tcp_sock *s, int name, int *out)
{
    const struct tcp_options *o = &s->opt;
    const struct net_settings *set = net_settings(s->i.base.net);
    const bool idle = tcp_state(s) == TCP_CLOSE || tcp_state(s) == TCP_LISTEN;

    switch (name) {
    case TCP_NODELAY:
        return *out = o->nodelay, 0;
    case TCP_CORK:
        return *out = o->cork, 0;
    case TCP_MAXSEG:
        *out = get_maxseg(s, idle);
        return 0;
    case TCP_KEEPIDLE:
        return *out = in_seconds(o->keepidle, (int)set->keepalive_time), 0;
    case TCP_KEEPINTVL:
        return *out = in_seconds(o->keepintvl, (int)set->keepalive_intvl), 0;
    case TCP_KEEPCNT:
        return *out = (int)(o->keepcnt ? o->keepcnt : set->keepalive_probes), 0;
    case TCP_SYNCNT:
        return *out = (int)(o->syncnt ? o->syncnt : set->syn_retries), 0;
    case TCP_LINGER2:
        *out = o->linger2 < 0 ? -1 : o->linger2 ? o->linger2 : (int)set->fin_timeout;
        return 0;
    case TCP_DEFER_ACCEPT:
        return *out = (int)tcp_defer_round(o->defer_accept), 0;
    case TCP_WINDOW_CLAMP:
        return *out = (int)o->window_clamp, 0;
    case TCP_QUICKACK:
        return *out = o->quickack, 0;
    case TCP_USER_TIMEOUT:
        return *out = (int)o->user_timeout, 0;
    case LX_TCP_NOTSENT_LOWAT:
        return *out = (int)o->notsent_lowat, 0;
    case LX_TCP_THIN_LINEAR_TIMEOUTS:
        return *out = o->thin_linear, 0;
    case LX_TCP_THIN_DUPACK:
        return *out = 0, 0;
    case TCP_FASTOPEN:
        return *out = (int)o->fastopen, 0;
    case LX_TCP_FASTOPEN_CONNECT:
        return *out = o->fastopen_connect, 0;
    case LX_TCP_FASTOPEN_NO_COOKIE:
        return *out = o->fastopen_no_cookie, 0;
    case LX_TCP_SAVE_SYN:
        return *out = o->save_syn, 0;
    case LX_TCP_INQ:
        return *out = o->inq, 0;
    case LX_TCP_TX_DELAY:
        return *out = 0, 0;
    case TCP_REPAIR:
        return *out = 0, 0;
    case TCP_TIMESTAMP:
        return *out = (int)(mono_now() / 1000000u), 0;
    default:
        return -ENOPROTOOPT;
    }
}

static uint32_t since_ms(uint64_t then, uint64_t now)
{
    return then && then < now ? (uint32_t)((now - then) / 1000000u) : 0;
}

/* Bytes in s's queue that count as not yet sent. */
static uint64_t beyond_window(const struct tcp_sock *s)
{
    const uint64_t have = tcp_queued(s), window = tcp_window(s);

    return have > window ? have - window : 0;
}

/* Counted as packet sockets see it: one segment for each piece, and those of the handshake and the
 * ends. Both locked; p NULL: the peer has gone. */
static void info_counts_locked(struct tcp_sock *s, const struct tcp_sock *p, struct lx_tcp_info *i)
{
    const struct tcp_sent sent = p ? tcp_queue_sent(p) : s->past, got = tcp_queue_sent(s);
    const uint64_t there = p ? tcp_queued(p) : 0, room = p ? tcp_window(p) : 0;
    const uint64_t now = tcp_clock();

    tcp_rtt_show(&sent.rtt, i);
    i->rcv_rtt = got.pieces > 0 ? tcp_in_us(got.rtt.smooth_ns) : 0;
    i->notsent_bytes = p ? (uint32_t)beyond_window(p) : 0;
    i->snd_wnd = (uint32_t)(room > there ? room - there : 0);
    i->bytes_sent = sent.bytes - i->notsent_bytes;
    i->bytes_acked = i->bytes_sent + s->dialed + sent.fin;
    i->bytes_received = got.bytes - beyond_window(s) + got.fin;
    i->data_segs_out = (uint32_t)sent.pieces;
    i->data_segs_in = (uint32_t)got.pieces;
    i->segs_out = i->data_segs_out + (s->dialed ? 2 : 1) + sent.fin;
    i->segs_in = i->data_segs_in + (s->dialed ? 1 : 2) + got.fin;
    i->last_data_sent_ms = since_ms(sent.at_ns, now);
    i->last_data_recv_ms = since_ms(got.at_ns, now);
    i->last_ack_recv_ms = MIN(i->last_data_sent_ms, i->last_data_recv_ms);
}

static void info_counts(struct tcp_sock *s, struct lx_tcp_info *i)
{
    struct tcp_sock *p = tcp_lock_both(s);

    info_counts_locked(s, s->peer == s ? s : p, i);
    tcp_unlock_both(s, p);
}

static void info_loopback(struct tcp_sock *s, struct lx_tcp_info *i)
{
    const bool began = i->state != TCP_CLOSE && i->state != TCP_SYN_SENT;

    i->rto = 1000000;
    if (began) {
        i->options = TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE;
        i->wscale = 7 | 7 << 4;
    }
    i->ato = 40000;
    i->snd_mss = i->state == TCP_CLOSE ? 536 : 32741;
    i->rcv_mss = 536;
    i->advmss = LOOPBACK_MSS;
    i->pmtu = 65535;
    i->snd_ssthresh = INT32_MAX;
    i->rcv_space = LOOPBACK_MSS;
    i->rcv_ssthresh = LOOPBACK_MSS;
    info_counts(s, i);
    if (began)
        i->rto = i->rtt + MAX(4 * i->rttvar, LOOPBACK_RTO_MIN_US);
}

void inet_tcp_info(struct sock *base, struct lx_tcp_info *i)
{
    struct tcp_sock *s = tcp_of(base);

    memset(i, 0, sizeof(*i));
    if (tcp_is_out(s) && tcp_ext_info(s, i)) {
        i->max_pacing_rate = base->pacing_rate;
        return;
    }
    i->state = (uint8_t)tcp_state(s);
    i->snd_cwnd = 10;
    i->reordering = 3;
    i->pacing_rate = UINT64_MAX;
    i->max_pacing_rate = base->pacing_rate;
    if (i->state != TCP_LISTEN) {
        info_loopback(s, i);
        return;
    }
    mutex_lock(&s->i.mu);
    i->unacked = s->accept_count;
    i->sacked = s->backlog;
    mutex_unlock(&s->i.mu);
}

void inet_tcp_congestion(struct sock *base, char out[16])
{
    struct tcp_sock *s = tcp_of(base);

    mutex_lock(&s->i.mu);
    memcpy(out, s->opt.congestion, sizeof(s->opt.congestion));
    mutex_unlock(&s->i.mu);
}

static int get_info(struct tcp_sock *s, void *buf, socklen_t *len)
{
    struct lx_tcp_info i;

    inet_tcp_info(&s->i.base, &i);
    return sock_put_option(buf, len, &i, sizeof(i));
}

int tcp_getsockopt(struct sock *base, int level, int name, void *buf, socklen_t *len)
{
    struct tcp_sock *s = tcp_of(base);
    int v = 0;

    if (level == SOL_SOCKET && name == SO_ACCEPTCONN)
        return inet_put_int(buf, len, tcp_state(s) == TCP_LISTEN);
    if (level != SOL_TCP)
        return inet_getsockopt(base, level, name, buf, len);
    switch (name) {
    case TCP_INFO:
        return get_info(s, buf, len);
    case TCP_CONGESTION:
        return sock_put_option(buf, len, s->opt.congestion, sizeof(s->opt.congestion));
    case TCP_CC_INFO:
    case LX_TCP_SAVED_SYN:
    case LX_TCP_ULP:
        *len = 0;
        return 0;
    default:
        break;
    }
    int r = get_number(s, name, &v);
    return r ? r : inet_put_int(buf, len, v);
}

/* ---- writing ---- */

static int set_congestion(struct tcp_sock *s, const void *buf, socklen_t len,
                          const struct vfs_caller *c)
{
    char name[16] = {0};

    if (len < 1)
        return -EINVAL;
    memcpy(name, buf, MIN((size_t)len, sizeof(name) - 1));
    if (strcmp(name, "cubic") != 0 && strcmp(name, "reno") != 0)
        return -ENOENT;
    (void)c;
    mutex_lock(&s->i.mu);
    memcpy(s->opt.congestion, name, sizeof(name));
    mutex_unlock(&s->i.mu);
    return 0;
}

static int set_range(uint8_t *where, int v, int min, int max)
{
    if (v < min || v > max)
        return -EINVAL;
    *where = (uint8_t)v;
    return 0;
}

static int set_range32(uint32_t *where, int v, int min, int max)
{
    if (v < min || v > max)
        return -EINVAL;
    *where = (uint32_t)v;
    return 0;
}

static int set_fastopen(struct tcp_sock *s, int name, int v)
{
    const bool early = tcp_state(s) == TCP_CLOSE || tcp_state(s) == TCP_LISTEN;

    if (name == TCP_FASTOPEN) {
        if (v < 0 || !early)
            return -EINVAL;
        s->opt.fastopen = (uint32_t)MIN(v, 4096);
        return 0;
    }
    if (v < 0 || v > 1 || !early)
        return -EINVAL;
    if (name == LX_TCP_FASTOPEN_CONNECT)
        s->opt.fastopen_connect = (uint8_t)v;
    else
        s->opt.fastopen_no_cookie = (uint8_t)v;
    return 0;
}

static int set_number_locked(struct tcp_sock *s, int name, int v, const struct vfs_caller *c)
{
    struct tcp_options *o = &s->opt;

    switch (name) {
    case TCP_NODELAY:
        return o->nodelay = v != 0, 0;
    case TCP_CORK:
        return o->cork = v != 0, 0;
    case TCP_MAXSEG:
        if (v && (v < 88 || v > 32767))
            return -EINVAL;
        return o->maxseg = (uint16_t)v, 0;
    case TCP_KEEPIDLE:
        return set_range32(&o->keepidle, v, 1, KEEP_MAX_S);
    case TCP_KEEPINTVL:
        return set_range32(&o->keepintvl, v, 1, KEEP_MAX_S);
    case TCP_KEEPCNT:
        return set_range(&o->keepcnt, v, 1, 127);
    case TCP_SYNCNT:
        return set_range(&o->syncnt, v, 1, 127);
    case TCP_LINGER2:
        o->linger2 = v < 0 ? -1 : v > 120 ? 120 : v;
        return 0;
    case TCP_DEFER_ACCEPT:
        o->defer_accept = v > 0 ? (uint32_t)v : 0;
        tcp_defer_rearm_locked(s);
        return 0;
    case TCP_WINDOW_CLAMP:
        if (v == 0 && tcp_state(s) != TCP_CLOSE)
            return -EINVAL;
        return o->window_clamp = v < 2304 / 2 && v ? 2304 / 2 : (uint32_t)v, 0;
    case TCP_QUICKACK:
        return o->quickack = v & 1, 0;
    case TCP_USER_TIMEOUT:
        return set_range32(&o->user_timeout, v, 0, INT32_MAX);
    case LX_TCP_NOTSENT_LOWAT:
        return o->notsent_lowat = (uint32_t)v, 0;
    case LX_TCP_THIN_LINEAR_TIMEOUTS:
        return set_range(&o->thin_linear, v, 0, 1);
    case LX_TCP_THIN_DUPACK:
        return v < 0 || v > 1 ? -EINVAL : 0;
    case TCP_FASTOPEN:
    case LX_TCP_FASTOPEN_CONNECT:
    case LX_TCP_FASTOPEN_NO_COOKIE:
        return set_fastopen(s, name, v);
    case LX_TCP_SAVE_SYN:
        return set_range(&o->save_syn, v, 0, 2);
    case LX_TCP_INQ:
        return set_range(&o->inq, v, 0, 1);
    case TCP_REPAIR:
        return net_capable(s->i.base.net, c->cred, CAP_NET_ADMIN) ? -EOPNOTSUPP : -EPERM;
    default:
        return -ENOPROTOOPT;
    }
}

int tcp_setsockopt(struct sock *base, int level, int name, const void *buf, socklen_t len,
                   const struct vfs_caller *c)
{
    struct tcp_sock *s = tcp_of(base);
    int v;

    if (level != SOL_TCP)
        return inet_setsockopt(base, level, name, buf, len, c);
    if (name == TCP_CONGESTION)
        return set_congestion(s, buf, len, c);
    if (name == LX_TCP_ULP)
        return len < 1 ? -EINVAL : -ENOENT;
    if (inet_get_int(buf, len, &v))
        return -EINVAL;
    mutex_lock(&s->i.mu);
    int r = set_number_locked(s, name, v, c);
    mutex_unlock(&s->i.mu);
    if (name == LX_TCP_NOTSENT_LOWAT)
        tcp_lowat_changed(s);
    return r;
}

int inet_destroy(struct sock *base)
{
    struct tcp_after a = {.put = {NULL}};

    if (base->type != SOCK_STREAM)
        return -EOPNOTSUPP;
    struct tcp_sock *s = tcp_of(base);
    if (tcp_state(s) == TCP_LISTEN)
        tcp_listen_end(s);
    tcp_dial_end(s);
    struct tcp_sock *p = tcp_lock_both(s);
    if (tcp_state(s) != TCP_CLOSE)
        atomic_store(&base->error, -ECONNABORTED);
    tcp_reset_locked(s, p, &a);
    tcp_unlock_both(s, p);
    tcp_after_run(&a);
    return 0;
}
