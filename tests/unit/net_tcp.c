/* The TCP engine against itself over a link that loses, delays, doubles and reorders, on a clock
 * that only the test moves. */
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "sentry/net/tcp/tcp.h"

#define MS UINT64_C(1000000)
#define SEC UINT64_C(1000000000)
#define PACKETS_MAX 16384
#define STEPS_MAX 4000000

struct packet {
    uint64_t at, order;
    uint8_t header[TCP_HEADER_MAX];
    size_t header_size, size;
    uint8_t *data;
};

struct end {
    struct tce_conn c;
    struct sim *sim;
    struct end *peer;
    bool open, established;
    uint64_t written, read;
};

struct sim {
    uint64_t now, order, seed;
    uint64_t delay_ns, jitter_ns;
    unsigned loss, dup; /* per mille */
    bool dead_link;
    size_t in_flight, packets_sent, dropped;
    struct end a, b;
    struct packet q[2][PACKETS_MAX]; /* to a, to b: heaps would be quicker, lists are plain */
    size_t count[2];
};

static struct sim *sim;

static uint64_t rnd(struct sim *s)
{
    s->seed ^= s->seed << 13;
    s->seed ^= s->seed >> 7;
    s->seed ^= s->seed << 17;
    return s->seed;
}

static uint8_t pattern(uint64_t off)
{
    return (uint8_t)((off * 2654435761u) >> 13 ^ off);
}

/* ---- the link ---- */

static void enqueue(struct sim *s, int to, const struct tce_out *o, const struct iovec *data,
                    int pieces, size_t skip, size_t size)
{
    struct tce_out one = *o;

    if (s->dead_link || rnd(s) % 1000 < s->loss) {
        s->dropped++;
        return;
    }
    cr_assert_lt(s->count[to], PACKETS_MAX);
    struct packet *p = &s->q[to][s->count[to]++];
    one.seq += (uint32_t)skip;
    if (skip + size < o->size)
        one.flags &= (uint8_t) ~(TCP_F_FIN | TCP_F_PSH);
    p->header_size = tce_build(p->header, 1, 2, &one);
    p->size = size;
    p->data = malloc(size + 1);
    size_t done = 0, at = 0;
    for (int i = 0; i < pieces; i++) {
        for (size_t j = 0; j < data[i].iov_len; j++, at++)
            if (at >= skip && done < size)
                p->data[done++] = ((uint8_t *)data[i].iov_base)[j];
    }
    cr_assert_eq(done, size);
    p->at = s->now + s->delay_ns + (s->jitter_ns ? rnd(s) % s->jitter_ns : 0);
    p->order = s->order++;
    s->packets_sent++;
}

static bool sim_output(struct tce_conn *c, const struct tce_out *o)
{
    struct end *e = container_of(c, struct end, c);
    struct sim *s = e->sim;
    const int to = e == &s->a;
    size_t skip = 0;

    do {
        const size_t size = MIN(o->size - skip, (size_t)o->mss);
        for (unsigned n = rnd(s) % 1000 < s->dup ? 2 : 1; n > 0; n--)
            enqueue(s, to, o, o->data, o->pieces, skip, size);
        skip += size;
    } while (skip < o->size);
    return true;
}

static void sim_event(struct tce_conn *c, uint32_t events)
{
    (void)c;
    (void)events;
}

static void sim_established(struct tce_conn *c)
{
    container_of(c, struct end, c)->established = true;
}

static const struct tce_ops sim_ops = {sim_output, sim_event, sim_established};

static struct tce_config config(void)
{
    return (struct tce_config){.mss = 1460,
                               .sndbuf = 131072,
                               .rcvbuf = 131072,
                               .keep_idle_ns = 7200 * SEC,
                               .keep_intvl_ns = 75 * SEC,
                               .keep_count = 9,
                               .syn_retries = 6,
                               .fin_wait2_ns = 60 * SEC};
}

static void deliver(struct sim *s, int to, size_t i)
{
    struct packet p = s->q[to][i];
    struct end *e = to ? &s->b : &s->a;
    uint8_t *bytes = malloc(p.header_size + p.size + 1);
    struct tce_in in;
    uint16_t sport, dport;
    size_t header;
    struct tce_config cfg = config();

    s->q[to][i] = s->q[to][--s->count[to]];
    memcpy(bytes, p.header, p.header_size);
    memcpy(bytes + p.header_size, p.data, p.size);
    cr_assert_eq(tce_parse(bytes, p.header_size + p.size, &sport, &dport, &in, &header), 0);
    if (!e->open && in.flags & TCP_F_SYN && !(in.flags & TCP_F_ACK)) {
        tce_init(&e->c, &sim_ops, &cfg);
        e->open = true;
        tce_accept(&e->c, &in, 0xfffffff0u, s->now);
    } else if (e->open) {
        tce_input(&e->c, &in, s->now);
    }
    free(bytes);
    free(p.data);
}

/* The next thing that happens: false when nothing does any more. */
static bool step(struct sim *s)
{
    uint64_t at = TCP_NEVER, order = 0;
    int to = -1;
    size_t which = 0;
    struct end *timer = NULL;

    for (int t = 0; t < 2; t++) {
        for (size_t i = 0; i < s->count[t]; i++) {
            const struct packet *p = &s->q[t][i];
            if (p->at < at || (p->at == at && p->order < order)) {
                at = p->at;
                order = p->order;
                to = t;
                which = i;
            }
        }
    }
    struct end *ends[] = {&s->a, &s->b};
    for (int i = 0; i < 2; i++) {
        if (ends[i]->open && tce_next_timer(&ends[i]->c) < at) {
            at = tce_next_timer(&ends[i]->c);
            timer = ends[i];
        }
    }
    if (at == TCP_NEVER)
        return false;
    s->now = MAX(s->now, at);
    if (timer)
        tce_timers(&timer->c, s->now);
    else
        deliver(s, to, which);
    return true;
}

static void setup(void)
{
    sim = calloc(1, sizeof(*sim));
    sim->now = 1000 * SEC;
    sim->seed = 88172645463325252u;
    sim->delay_ns = 5 * MS;
    sim->a.sim = sim->b.sim = sim;
}

static void teardown(void)
{
    struct end *ends[] = {&sim->a, &sim->b};

    for (int t = 0; t < 2; t++)
        for (size_t i = 0; i < sim->count[t]; i++)
            free(sim->q[t][i].data);
    for (int i = 0; i < 2; i++)
        if (ends[i]->open)
            tce_fini(&ends[i]->c);
    free(sim);
}

TestSuite(net_tcp, .init = setup, .fini = teardown, .timeout = 100);

static void begin(const struct tce_config *cfg)
{
    tce_init(&sim->a.c, &sim_ops, cfg);
    sim->a.open = true;
    tce_connect(&sim->a.c, 0xffffff00u, sim->now);
    for (int i = 0; i < 1000 && sim->a.c.state != TCP_S_ESTABLISHED; i++)
        cr_assert(step(sim));
    cr_assert_eq(sim->a.c.state, TCP_S_ESTABLISHED);
}

static void push(struct end *e, uint64_t total)
{
    uint8_t buf[32768];
    struct uio u;

    while (e->written < total) {
        const size_t n = (size_t)MIN(total - e->written, sizeof(buf));
        for (size_t i = 0; i < n; i++)
            buf[i] = pattern(e->written + i);
        uio_init_kernel(&u, buf, n);
        const int64_t r = tce_write(&e->c, &u, 0, sim->now);
        if (r == -EAGAIN)
            return;
        cr_assert_gt(r, 0, "write gave %lld", (long long)r);
        e->written += (uint64_t)r;
    }
}

/* At most max bytes; the end of the stream: true. */
static bool pull(struct end *e, size_t max)
{
    uint8_t buf[32768];
    struct uio u;

    for (;;) {
        uio_init_kernel(&u, buf, MIN(max, sizeof(buf)));
        const int64_t r = max ? tce_read(&e->c, &u, -1, sim->now) : -EAGAIN;
        if (r == 0)
            return true;
        if (r < 0) {
            cr_assert_eq(r, -EAGAIN, "read gave %lld", (long long)r);
            return false;
        }
        for (int64_t i = 0; i < r; i++)
            cr_assert_eq(buf[i], pattern(e->read + (uint64_t)i), "byte %llu",
                         (unsigned long long)(e->read + (uint64_t)i));
        e->read += (uint64_t)r;
        max -= (size_t)r;
    }
}

/* Sends total bytes from a to b and closes; gives the seconds it took. */
static double transfer(uint64_t total, size_t read_piece)
{
    const uint64_t start = sim->now;
    bool closed = false, end = false;

    for (int i = 0; i < STEPS_MAX && !end; i++) {
        push(&sim->a, total);
        if (sim->a.written == total && !closed) {
            cr_assert_eq(tce_shutdown(&sim->a.c, false, true, sim->now), 0);
            closed = true;
        }
        if (sim->b.open && sim->b.c.state != TCP_S_SYN_RCVD)
            end = pull(&sim->b, read_piece);
        if (!end)
            cr_assert(step(sim), "it stalled at byte %llu", (unsigned long long)sim->b.read);
    }
    cr_assert(end);
    cr_assert_eq(sim->b.read, total);
    return (double)(sim->now - start) / 1e9;
}

static void finish(void)
{
    tce_close(&sim->b.c, false, sim->now);
    tce_close(&sim->a.c, false, sim->now);
    for (int i = 0; i < 100000 && step(sim); i++)
        ;
    cr_assert(sim->a.c.dead);
    cr_assert(sim->b.c.dead);
    cr_assert_eq(sim->a.c.error, 0);
    cr_assert_eq(sim->b.c.error, 0);
}

/* ---- the tests ---- */

Test(net_tcp, clean_link)
{
    struct tce_config cfg = config();

    begin(&cfg);
    const double t = transfer(8u << 20, SIZE_MAX);
    cr_assert_eq(sim->a.c.retrans_total, 0);
    cr_assert_lt(t, 3.0);
    finish();
}

static void lossy(unsigned loss, unsigned dup, uint64_t jitter, uint64_t total)
{
    struct tce_config cfg = config();

    sim->loss = loss;
    sim->dup = dup;
    sim->jitter_ns = jitter;
    begin(&cfg);
    (void)transfer(total, SIZE_MAX);
    sim->loss = 0;
    finish();
}

Test(net_tcp, loss_1_percent)
{
    lossy(10, 0, 0, 4u << 20);
}

Test(net_tcp, loss_20_percent)
{
    lossy(200, 0, 0, 300000);
}

/* Half of the window after a loss, and a segment more for each round trip. */
Test(net_tcp, reno)
{
    struct tce_config cfg = config();
    const struct tce_conn *c = &sim->a.c;
    unsigned losses = 0, growths = 0;
    uint64_t calm_since = 0;
    uint32_t calm_cwnd = 0;

    cfg.reno = true;
    sim->loss = 1;
    begin(&cfg);
    while (losses < 5) {
        const uint32_t cwnd = c->cwnd;
        const bool recovering = c->recovering;
        push(&sim->a, UINT64_MAX);
        cr_assert(step(sim));
        if (sim->b.open && sim->b.c.state != TCP_S_SYN_RCVD)
            (void)pull(&sim->b, SIZE_MAX);
        cr_assert_eq(c->backoff, 0);
        if (c->recovering && !recovering) {
            losses++;
            cr_assert_geq(c->ssthresh, cwnd / 2);
            cr_assert_leq(c->ssthresh, cwnd / 2 + c->mss);
        }
        if (c->recovering || c->cwnd < c->ssthresh) {
            calm_since = 0;
        } else if (!calm_since) {
            calm_since = sim->now;
            calm_cwnd = c->cwnd;
        } else {
            /* What filled a hole counts once more. */
            const uint64_t trips = (sim->now - calm_since) / (2 * sim->delay_ns) + 2;
            growths += c->cwnd > cwnd;
            cr_assert_leq(c->cwnd, calm_cwnd + trips * c->mss);
        }
    }
    cr_assert_gt(growths, 10);
}

/* No larger window is offered, and all comes through the small one. */
Test(net_tcp, window_clamp)
{
    const uint64_t total = 300000;
    struct tce_config cfg = config();

    for (uint32_t clamp = 1152; clamp <= 8192; clamp += 7040) {
        cfg.window_clamp = clamp;
        begin(&cfg);
        while (sim->a.read < total) {
            if (sim->b.c.state == TCP_S_ESTABLISHED)
                push(&sim->b, total);
            cr_assert(step(sim));
            cr_assert_leq(sim->b.c.snd_wnd, clamp);
            (void)pull(&sim->a, SIZE_MAX);
        }
        teardown();
        setup();
    }
}

static struct lx_tcp_info info(struct end *e)
{
    struct lx_tcp_info i;

    tce_fill_info(&e->c, &i, sim->now);
    return i;
}

Test(net_tcp, info_of_a_clean_link)
{
    struct tce_config cfg = config();

    begin(&cfg);
    (void)transfer(1u << 20, SIZE_MAX);
    for (int i = 0; i < 100 && info(&sim->a).unacked > 0; i++)
        cr_assert(step(sim));
    const struct lx_tcp_info a = info(&sim->a), b = info(&sim->b);
    cr_assert_eq(a.bytes_acked, (1u << 20) + 2);
    cr_assert_eq(a.bytes_sent, 1u << 20);
    cr_assert_eq(b.bytes_received, (1u << 20) + 1);
    cr_assert_eq(a.total_retrans, 0);
    cr_assert_eq(a.segs_out, b.segs_in + 1, "the SYN came before there was a connection");
    cr_assert_eq(a.data_segs_out, b.data_segs_in);
    cr_assert_eq(a.snd_mss, 1448);
    cr_assert_eq(b.rcv_mss, 1448);
    cr_assert_eq(a.min_rtt, 10000);
    cr_assert(a.rtt >= 10000 && a.rtt < 60000, "rtt %u", a.rtt);
    cr_assert_leq(a.rttvar, a.rtt / 2);
    cr_assert_geq(a.rto, 200000 + a.rtt);
    cr_assert_gt(a.snd_cwnd, 10);
    cr_assert_eq(a.snd_ssthresh, INT32_MAX);
    cr_assert_eq(a.unacked, 0);
    cr_assert_eq(a.notsent_bytes, 0);
    sim->now += 3 * SEC;
    cr_assert_geq(info(&sim->a).last_data_sent_ms, 3000);
    cr_assert_geq(info(&sim->b).last_data_recv_ms, 3000);
}

Test(net_tcp, info_of_losses)
{
    struct tce_config cfg = config();

    sim->loss = 50;
    begin(&cfg);
    (void)transfer(1u << 20, SIZE_MAX);
    const struct lx_tcp_info a = info(&sim->a), b = info(&sim->b);
    cr_assert_gt(a.total_retrans, 0);
    cr_assert_gt(a.bytes_retrans, 0);
    cr_assert_geq(a.bytes_sent + 10 * a.snd_mss, (1u << 20) + a.bytes_retrans);
    cr_assert_lt(a.snd_ssthresh, INT32_MAX);
    cr_assert_gt(b.rcv_ooopack, 0);
}

Test(net_tcp, info_of_silence)
{
    struct tce_config cfg = config();

    cfg.nodelay = true;
    begin(&cfg);
    push(&sim->a, 5000);
    sim->dead_link = true;
    for (int i = 0; i < 30 && info(&sim->a).backoff < 3; i++)
        cr_assert(step(sim));
    const struct lx_tcp_info a = info(&sim->a);
    cr_assert_eq(a.retransmits, 3);
    cr_assert_eq(a.ca_state, TCP_CA_Loss);
    cr_assert_geq(a.rto, 1600000, "it doubles");
    cr_assert_eq(a.unacked, 4);
    cr_assert_eq(a.snd_cwnd, 1);
}

Test(net_tcp, duplicates)
{
    lossy(0, 200, 0, 2u << 20);
}

Test(net_tcp, reordering)
{
    lossy(0, 0, 4 * MS, 2u << 20);
}

Test(net_tcp, all_at_once)
{
    lossy(30, 50, 20 * MS, 1u << 20);
}

Test(net_tcp, many_seeds)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        teardown();
        setup();
        sim->seed = seed * UINT64_C(0x9e3779b97f4a7c15);
        lossy((unsigned)(seed * 7 % 100), (unsigned)(seed * 13 % 50), seed * MS / 2, 200000);
    }
}

Test(net_tcp, tail_loss_is_probed)
{
    struct tce_config cfg = config();

    begin(&cfg);
    (void)pull(&sim->b, 0);
    push(&sim->a, 20000);
    for (int i = 0; i < 200 && sim->b.read < 20000; i++) {
        cr_assert(step(sim));
        (void)pull(&sim->b, SIZE_MAX);
    }
    cr_assert_eq(sim->b.read, 20000);
    const uint64_t start = sim->now;
    sim->dead_link = true;
    push(&sim->a, 30000);
    sim->dead_link = false;
    while (sim->b.read < 30000) {
        cr_assert(step(sim));
        (void)pull(&sim->b, SIZE_MAX);
    }
    /* Sooner than the 200 ms of a retransmission timer. */
    cr_assert_lt(sim->now - start, 150 * MS);
}

Test(net_tcp, slow_reader_closes_the_window)
{
    struct tce_config cfg = config();

    begin(&cfg);
    bool end = false, closed = false;
    const uint64_t total = 600000;
    for (int i = 0; i < STEPS_MAX && !end; i++) {
        push(&sim->a, total);
        if (sim->a.written == total && !closed) {
            closed = true;
            cr_assert_eq(tce_shutdown(&sim->a.c, false, true, sim->now), 0);
        }
        cr_assert(step(sim));
        if (sim->b.open && sim->b.c.state == TCP_S_SYN_RCVD)
            continue;
        if (i % 50 == 0 || (sim->a.c.snd_wnd == 0 && i % 5 == 0) || closed)
            end = pull(&sim->b, 3000);
    }
    cr_assert_eq(sim->b.read, total);
}

Test(net_tcp, zero_window_is_probed)
{
    struct tce_config cfg = config();

    begin(&cfg);
    push(&sim->a, 500000);
    for (int i = 0; i < 2000 && (sim->a.c.snd_wnd > 0 || sim->count[0] + sim->count[1] > 0); i++) {
        cr_assert(step(sim));
        push(&sim->a, 500000);
    }
    cr_assert_eq(sim->a.c.snd_wnd, 0);
    cr_assert_neq(tce_next_timer(&sim->a.c), TCP_NEVER);
    /* The update is lost: only a probe finds out. */
    sim->dead_link = true;
    (void)pull(&sim->b, SIZE_MAX);
    sim->dead_link = false;
    (void)transfer(500000, SIZE_MAX);
}

Test(net_tcp, dead_peer_times_out)
{
    struct tce_config cfg = config();

    begin(&cfg);
    push(&sim->a, 1000);
    sim->dead_link = true;
    const uint64_t start = sim->now;
    while (!sim->a.c.dead)
        cr_assert(step(sim));
    cr_assert_eq(sim->a.c.error, -ETIMEDOUT);
    cr_assert_gt(sim->now - start, 600 * SEC);
    cr_assert_lt(sim->now - start, 1500 * SEC);
}

Test(net_tcp, user_timeout)
{
    struct tce_config cfg = config();

    cfg.user_timeout_ns = 5 * SEC;
    begin(&cfg);
    sim->dead_link = true;
    push(&sim->a, 1000);
    const uint64_t start = sim->now;
    while (!sim->a.c.dead)
        cr_assert(step(sim));
    cr_assert_leq(sim->now - start, 14 * SEC);
}

Test(net_tcp, keep_alive_finds_a_dead_peer)
{
    struct tce_config cfg = config();

    cfg.keepalive = true;
    cfg.keep_idle_ns = 10 * SEC;
    cfg.keep_intvl_ns = 2 * SEC;
    cfg.keep_count = 3;
    begin(&cfg);
    for (int i = 0; i < 20; i++)
        cr_assert(step(sim));
    cr_assert_not(sim->a.c.dead);
    sim->dead_link = true;
    while (!sim->a.c.dead)
        cr_assert(step(sim));
    cr_assert_eq(sim->a.c.error, -ETIMEDOUT);
}

Test(net_tcp, nobody_answers_a_syn)
{
    struct tce_config cfg = config();

    sim->dead_link = true;
    tce_init(&sim->a.c, &sim_ops, &cfg);
    sim->a.open = true;
    tce_connect(&sim->a.c, 1, sim->now);
    const uint64_t start = sim->now;
    while (!sim->a.c.dead)
        cr_assert(step(sim));
    cr_assert_eq(sim->a.c.error, -ETIMEDOUT);
    cr_assert_gt(sim->now - start, 60 * SEC);
}

Test(net_tcp, unread_data_resets)
{
    struct tce_config cfg = config();

    begin(&cfg);
    push(&sim->a, 1000);
    for (int i = 0; i < 10; i++)
        (void)step(sim);
    tce_close(&sim->b.c, false, sim->now);
    for (int i = 0; i < 10; i++)
        (void)step(sim);
    cr_assert_eq(sim->a.c.error, -ECONNRESET);
}

/* ---- urgent data ---- */

static void say(struct end *e, const char *text, unsigned flags)
{
    struct uio u;

    uio_init_kernel(&u, (void *)(uintptr_t)text, strlen(text));
    cr_assert_eq(tce_write(&e->c, &u, flags, sim->now), (int64_t)strlen(text));
}

static void hear(struct end *e, int64_t peek_off, const char *text)
{
    char buf[64];
    struct uio u;

    uio_init_kernel(&u, buf, sizeof(buf));
    const int64_t n = tce_read(&e->c, &u, peek_off, sim->now);
    cr_assert_eq(n, (int64_t)strlen(text), "%lld bytes, not %s", (long long)n, text);
    cr_assert_eq(memcmp(buf, text, (size_t)n), 0);
}

static void settle(uint64_t ns)
{
    const uint64_t end = sim->now + ns;

    while (sim->now < end && step(sim))
        ;
}

Test(net_tcp, urgent_byte)
{
    struct tce_config cfg = config();
    uint8_t byte = 0;

    begin(&cfg);
    settle(1 * SEC);
    cr_assert_eq(tce_read_urgent(&sim->b.c, false, &byte), -EINVAL);
    say(&sim->a, "ab", 0);
    say(&sim->a, "cU", TCE_URGENT);
    say(&sim->a, "de", 0);
    settle(1 * SEC);
    struct tce_conn *b = &sim->b.c;
    cr_assert(tce_poll_events(b) & EPOLLPRI);
    cr_assert_eq(tce_inq(b), 3);
    cr_assert(!tce_at_mark(b, 0) && tce_at_mark(b, 3));
    hear(&sim->b, 0, "abc");
    hear(&sim->b, -1, "abc");
    cr_assert(tce_at_mark(b, 0));
    cr_assert_eq(tce_inq(b), 0);
    hear(&sim->b, 0, "de");
    cr_assert_eq(tce_read_urgent(b, true, &byte), 1);
    cr_assert_eq(tce_read_urgent(b, false, &byte), 1);
    cr_assert_eq(byte, 'U');
    cr_assert_eq(tce_read_urgent(b, false, &byte), -EINVAL);
    cr_assert_not(tce_poll_events(b) & EPOLLPRI);
    hear(&sim->b, -1, "de");
    cr_assert(!tce_at_mark(b, 0));
    say(&sim->a, "fg", 0);
    settle(1 * SEC);
    hear(&sim->b, -1, "fg");
    cr_assert(!(sim->a.c.snd_up != sim->a.c.snd_una), "it is acknowledged");
}

Test(net_tcp, urgent_byte_in_the_stream)
{
    struct tce_config cfg = config();
    uint8_t byte;

    begin(&cfg);
    settle(1 * SEC);
    cfg.oob_inline = true;
    tce_reconfigure(&sim->b.c, &cfg, sim->now);
    say(&sim->a, "abU", TCE_URGENT);
    say(&sim->a, "c", 0);
    settle(1 * SEC);
    hear(&sim->b, -1, "ab");
    cr_assert(tce_at_mark(&sim->b.c, 0));
    cr_assert_eq(tce_read_urgent(&sim->b.c, false, &byte), -EINVAL);
    hear(&sim->b, -1, "Uc");
    cr_assert(!tce_at_mark(&sim->b.c, 0));
}

Test(net_tcp, urgent_byte_alone_and_a_newer_one)
{
    struct tce_config cfg = config();
    uint8_t byte;

    begin(&cfg);
    settle(1 * SEC);
    say(&sim->a, "U", TCE_URGENT);
    settle(1 * SEC);
    cr_assert_eq(tce_poll_events(&sim->b.c) & (EPOLLIN | EPOLLPRI), EPOLLPRI);
    say(&sim->a, "xV", TCE_URGENT);
    settle(1 * SEC);
    hear(&sim->b, -1, "x");
    cr_assert_eq(tce_read_urgent(&sim->b.c, false, &byte), 1);
    cr_assert_eq(byte, 'V');
    cr_assert_eq(sim->b.c.in.used, 1);
    struct uio u;
    uio_init_kernel(&u, &byte, 1);
    cr_assert_eq(tce_read(&sim->b.c, &u, -1, sim->now), -EAGAIN, "nothing but the byte");
    cr_assert_eq(sim->b.c.in.used, 0);
}

/* All of a long stream with a mark in it, whatever the link does. */
Test(net_tcp, urgent_mark_on_a_bad_link)
{
    struct tce_config cfg = config();
    const uint64_t at = 300000, total = 600000;
    bool marked = false;

    sim->loss = 100;
    sim->dup = 20;
    sim->jitter_ns = 5 * MS;
    begin(&cfg);
    for (int i = 0; i < STEPS_MAX && sim->b.read < total; i++) {
        push(&sim->a, sim->a.written < at ? at : total);
        if (sim->a.written == at && sim->a.c.snd_up == sim->a.c.snd_una) {
            uint8_t last = pattern(at);
            struct uio u;
            uio_init_kernel(&u, &last, 1);
            if (tce_write(&sim->a.c, &u, TCE_URGENT, sim->now) == 1)
                sim->a.written++;
        }
        cr_assert(step(sim));
        if (!sim->b.open || sim->b.c.state == TCP_S_SYN_RCVD)
            continue;
        if (!sim->b.c.cfg.oob_inline) {
            cfg.oob_inline = true;
            tce_reconfigure(&sim->b.c, &cfg, sim->now);
        }
        if (tce_at_mark(&sim->b.c, 0)) {
            cr_assert_eq(sim->b.read, at);
            marked = true;
        }
        uint8_t buf[4096];
        struct uio u;
        uio_init_kernel(&u, buf, sizeof(buf));
        const int64_t n = tce_read(&sim->b.c, &u, -1, sim->now);
        for (int64_t k = 0; k < n; k++)
            cr_assert_eq(buf[k], pattern(sim->b.read + (uint64_t)k));
        sim->b.read += n > 0 ? (uint64_t)n : 0;
    }
    cr_assert(marked);
    cr_assert_eq(sim->b.read, total);
}

Test(net_tcp, urgent_mark_beyond_a_closed_window)
{
    struct tce_config cfg = config();

    begin(&cfg);
    push(&sim->a, 20u << 20);
    settle(1 * SEC);
    push(&sim->a, 20u << 20);
    settle(1 * SEC);
    cr_assert_eq(sim->b.c.urgent, TCE_URGENT_NONE);
    cr_assert_gt(tce_unsent(&sim->a.c), 0);
    sim->a.c.cfg.sndbuf += 100;
    say(&sim->a, "U", TCE_URGENT);
    settle(100 * SEC);
    cr_assert_eq(sim->b.c.urgent, TCE_URGENT_EXPECTED);
}

/* While a close lingers, and after shutdown(SHUT_RDWR). */
Test(net_tcp, data_after_both_ways_are_shut_resets)
{
    struct tce_config cfg = config();

    begin(&cfg);
    cr_assert_eq(tce_shutdown(&sim->a.c, true, true, sim->now), 0);
    for (int i = 0; i < 100 && sim->a.c.state != TCP_S_FIN_WAIT2; i++)
        cr_assert(step(sim));
    cr_assert_eq(sim->a.c.state, TCP_S_FIN_WAIT2);
    push(&sim->b, 1000);
    for (int i = 0; i < 100 && !sim->b.c.dead; i++)
        cr_assert(step(sim));
    cr_assert(sim->a.c.dead);
    cr_assert_eq(sim->a.c.error, -ECONNRESET);
    cr_assert_eq(sim->b.c.error, -EPIPE);
}

Test(net_tcp, blind_resets_do_nothing)
{
    struct tce_config cfg = config();
    struct tce_in in = {.flags = TCP_F_RST};

    begin(&cfg);
    for (int i = 0; i < 10; i++)
        (void)step(sim);
    for (uint32_t off = 1; off < 100000; off += 977) {
        in.seq = sim->a.c.rcv_nxt + off;
        tce_input(&sim->a.c, &in, sim->now);
    }
    cr_assert_not(sim->a.c.dead);
    in.seq = sim->a.c.rcv_nxt;
    tce_input(&sim->a.c, &in, sim->now);
    cr_assert_eq(sim->a.c.error, -ECONNRESET);
}

Test(net_tcp, mss_shrinks)
{
    struct tce_config cfg = config();

    begin(&cfg);
    push(&sim->a, 100000);
    tce_set_mss(&sim->a.c, 1000, sim->now);
    (void)transfer(300000, SIZE_MAX);
    cr_assert_leq(sim->a.c.mss, 1000);
    finish();
}

Test(net_tcp, any_segment)
{
    struct tce_config cfg = config();

    for (uint64_t seed = 1; seed <= 200; seed++) {
        teardown();
        setup();
        sim->seed = seed * UINT64_C(0x9e3779b97f4a7c15);
        begin(&cfg);
        push(&sim->a, 50000);
        for (int i = 0; i < 400; i++) {
            uint8_t data[3000];
            struct tce_in in = {.flags = (uint8_t)(rnd(sim) & rnd(sim) & 0x3f) | TCP_F_ACK,
                                .window = (uint16_t)rnd(sim),
                                .data = data,
                                .size = rnd(sim) % sizeof(data)};
            struct tce_conn *c = &sim->a.c;
            in.seq = c->rcv_nxt + (uint32_t)(rnd(sim) % 4000) - 1000;
            in.urgent = (uint16_t)(rnd(sim) % 5000);
            in.ack = c->snd_una + (uint32_t)(rnd(sim) % 30000) - 3000;
            in.o.sack_count = rnd(sim) % 5;
            for (unsigned k = 0; k < in.o.sack_count; k++) {
                in.o.sack[k].start = c->snd_una + (uint32_t)(rnd(sim) % 60000) - 2000;
                in.o.sack[k].end = in.o.sack[k].start + (uint32_t)(rnd(sim) % 9000) - 500;
            }
            memset(data, 7, sizeof(data));
            tce_input(c, &in, sim->now);
            struct uio u;
            uio_init_kernel(&u, data, rnd(sim) % sizeof(data));
            (void)!tce_read(c, &u, (int64_t)(rnd(sim) % 50) - 25, sim->now);
            cr_assert_leq(tce_inq(c), tce_readable(c));
            if (tce_next_timer(c) != TCP_NEVER && rnd(sim) % 8 == 0) {
                sim->now = MAX(sim->now, tce_next_timer(c));
                tce_timers(c, sim->now);
            }
            for (int t = 0; t < 2; t++)
                while (sim->count[t] > 0)
                    free(sim->q[t][--sim->count[t]].data);
        }
    }
}
