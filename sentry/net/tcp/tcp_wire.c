/* Headers as bytes (RFC 9293, 3.1; RFC 7323, 2018). */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/rbuf.h"
#include "base/wbuf.h"
#include "sentry/net/tcp/tcp_priv.h"

#define OPT_END 0
#define OPT_NOP 1
#define OPT_MSS 2
#define OPT_WSCALE 3
#define OPT_SACK_OK 4
#define OPT_SACK 5
#define OPT_TS 8
#define HEADER_MIN 20u

static void parse_sacks(struct rbuf *r, size_t size, struct tce_opts *o)
{
    const size_t n = size / 8;

    for (size_t i = 0; i < n; i++) {
        const uint32_t start = rbuf_u32be(r), end = rbuf_u32be(r);
        if (o->sack_count < TCP_SACK_MAX)
            o->sack[o->sack_count++] = (struct tce_range){start, end};
    }
}

static void parse_option(struct rbuf *r, uint8_t kind, size_t size, struct tce_opts *o)
{
    if (kind == OPT_MSS && size == 2) {
        o->mss = rbuf_u16be(r);
    } else if (kind == OPT_WSCALE && size == 1) {
        o->wscale = rbuf_u8(r);
        o->has_wscale = true;
    } else if (kind == OPT_SACK_OK && size == 0) {
        o->sack_ok = true;
    } else if (kind == OPT_SACK && size % 8 == 0) {
        parse_sacks(r, size, o);
    } else if (kind == OPT_TS && size == 8) {
        o->ts_val = rbuf_u32be(r);
        o->ts_ecr = rbuf_u32be(r);
        o->has_ts = true;
    }
}

/* Options that do not add up end the list, as in Linux; the segment counts all the same. */
static void parse_options(const uint8_t *p, size_t size, struct tce_opts *o)
{
    struct rbuf r, body;

    rbuf_init(&r, p, size);
    while (rbuf_left(&r) > 0) {
        const uint8_t kind = rbuf_u8(&r);
        if (kind == OPT_END)
            return;
        if (kind == OPT_NOP)
            continue;
        const uint8_t len = rbuf_u8(&r);
        if (len < 2)
            return;
        rbuf_sub(&r, len - 2u, &body);
        if (!rbuf_ok(&r))
            return;
        parse_option(&body, kind, len - 2u, o);
    }
}

int tce_parse(const uint8_t *p, size_t size, uint16_t *sport, uint16_t *dport, struct tce_in *out,
              size_t *out_header)
{
    struct rbuf r;

    memset(out, 0, sizeof(*out));
    if (size < HEADER_MIN)
        return -EINVAL;
    rbuf_init(&r, p, size);
    *sport = rbuf_u16be(&r);
    *dport = rbuf_u16be(&r);
    out->seq = rbuf_u32be(&r);
    out->ack = rbuf_u32be(&r);
    const size_t header = (size_t)(rbuf_u8(&r) >> 4) * 4;
    out->flags = rbuf_u8(&r) & 0x3f;
    out->window = rbuf_u16be(&r);
    (void)rbuf_u16be(&r); /* the checksum */
    out->urgent = rbuf_u16be(&r);
    if (header < HEADER_MIN || header > size)
        return -EINVAL;
    parse_options(p + HEADER_MIN, header - HEADER_MIN, &out->o);
    out->data = p + header;
    out->size = size - header;
    *out_header = header;
    return 0;
}

static void build_options(struct wbuf *w, const struct tce_opts *o)
{
    if (o->mss) {
        wbuf_u8(w, OPT_MSS);
        wbuf_u8(w, 4);
        wbuf_u16be(w, o->mss);
    }
    if (o->has_ts) {
        wbuf_u8(w, o->sack_ok ? OPT_SACK_OK : OPT_NOP);
        wbuf_u8(w, o->sack_ok ? 2 : OPT_NOP);
        wbuf_u8(w, OPT_TS);
        wbuf_u8(w, 10);
        wbuf_u32be(w, o->ts_val);
        wbuf_u32be(w, o->ts_ecr);
    } else if (o->sack_ok) {
        wbuf_u16be(w, OPT_NOP << 8 | OPT_NOP);
        wbuf_u16be(w, OPT_SACK_OK << 8 | 2);
    }
    if (o->has_wscale) {
        wbuf_u8(w, OPT_NOP);
        wbuf_u8(w, OPT_WSCALE);
        wbuf_u8(w, 3);
        wbuf_u8(w, o->wscale);
    }
    if (o->sack_count > 0) {
        wbuf_u16be(w, OPT_NOP << 8 | OPT_NOP);
        wbuf_u8(w, OPT_SACK);
        wbuf_u8(w, (uint8_t)(2 + 8 * o->sack_count));
        for (unsigned i = 0; i < o->sack_count; i++) {
            wbuf_u32be(w, o->sack[i].start);
            wbuf_u32be(w, o->sack[i].end);
        }
    }
}

size_t tce_build(uint8_t out[TCP_HEADER_MAX], uint16_t sport, uint16_t dport,
                 const struct tce_out *o)
{
    struct wbuf w;

    wbuf_init(&w, out, TCP_HEADER_MAX);
    wbuf_u16be(&w, sport);
    wbuf_u16be(&w, dport);
    wbuf_u32be(&w, o->seq);
    wbuf_u32be(&w, o->ack);
    wbuf_u8(&w, 0);
    wbuf_u8(&w, o->flags);
    wbuf_u16be(&w, o->window);
    wbuf_u16be(&w, 0);
    wbuf_u16be(&w, o->urgent);
    build_options(&w, &o->o);
    BUG_ON(w.failed || w.len % 4 != 0);
    out[12] = (uint8_t)(w.len / 4 << 4);
    return w.len;
}
