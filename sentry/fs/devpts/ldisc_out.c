/* Bytes to the master: output processing, echo, flow control. */
#include <string.h>

#include "sentry/fs/devpts/ldisc.h"

static size_t out_room(const struct ldisc *l, size_t reserve)
{
    size_t used = (size_t)(l->out_head - l->out_tail);

    return used + reserve >= LDISC_OUT_SIZE ? 0 : LDISC_OUT_SIZE - reserve - used;
}

static void out_put(struct ldisc *l, uint8_t c)
{
    l->out[l->out_head++ % LDISC_OUT_SIZE] = c;
    l->to_master = true;
}

static bool flag(const struct ldisc *l, tcflag_t f)
{
    return (l->t.c_oflag & f) != 0;
}

static bool out_newline(struct ldisc *l, size_t room)
{
    if (flag(l, ONLRET))
        l->column = 0;
    if (flag(l, ONLCR)) {
        if (room < 2)
            return false;
        l->canon_column = l->column = 0;
        out_put(l, '\r');
    } else {
        l->canon_column = l->column;
    }
    out_put(l, '\n');
    return true;
}

static bool out_return(struct ldisc *l)
{
    if (flag(l, ONOCR) && l->column == 0)
        return true;
    if (flag(l, OCRNL)) {
        if (flag(l, ONLRET))
            l->canon_column = l->column = 0;
        out_put(l, '\n');
        return true;
    }
    l->canon_column = l->column = 0;
    out_put(l, '\r');
    return true;
}

static bool out_tab(struct ldisc *l, size_t room)
{
    unsigned spaces = 8 - (l->column & 7);

    if ((l->t.c_oflag & TABDLY) != XTABS) {
        l->column += spaces;
        out_put(l, '\t');
        return true;
    }
    if (room < spaces)
        return false;
    l->column += spaces;
    while (spaces-- > 0)
        out_put(l, ' ');
    return true;
}

/* One byte with OPOST; false: it does not fit. kernel: do_output_char. */
static bool out_processed(struct ldisc *l, uint8_t c, size_t room)
{
    if (room == 0)
        return false;
    switch (c) {
    case '\n':
        return out_newline(l, room);
    case '\r':
        return out_return(l);
    case '\t':
        return out_tab(l, room);
    case '\b':
        if (l->column > 0)
            l->column--;
        break;
    default:
        if (ldisc_is_ctrl(c))
            break;
        if (flag(l, OLCUC) && c >= 'a' && c <= 'z')
            c = (uint8_t)(c - 'a' + 'A');
        if (!ldisc_is_continuation(l, c))
            l->column++;
    }
    out_put(l, c);
    return true;
}

size_t ldisc_output(struct ldisc *l, const uint8_t *p, size_t n)
{
    size_t done = 0;

    if (l->stopped)
        return 0;
    if (!flag(l, OPOST)) {
        n = MIN(n, out_room(l, LDISC_ECHO_RESERVE));
        for (; done < n; done++)
            out_put(l, p[done]);
        return done;
    }
    while (done < n && out_processed(l, p[done], out_room(l, LDISC_ECHO_RESERVE)))
        done++;
    return done;
}

bool ldisc_writable(const struct ldisc *l)
{
    /* As much as the widest character becomes. */
    return !l->stopped && out_room(l, LDISC_ECHO_RESERVE) >= 8;
}

void ldisc_out_raw(struct ldisc *l, uint8_t c)
{
    if (out_room(l, 0) > 0)
        out_put(l, c);
}

/* ---- echo ---- */

void ldisc_echo_raw(struct ldisc *l, uint8_t c)
{
    if (!flag(l, OPOST))
        ldisc_out_raw(l, c);
    else
        (void)out_processed(l, c, out_room(l, 0));
}

void ldisc_echo(struct ldisc *l, uint8_t c)
{
    if ((l->t.c_lflag & ECHOCTL) == 0 || !ldisc_is_ctrl(c) || c == '\t') {
        ldisc_echo_raw(l, c);
        return;
    }
    if (out_room(l, 0) < 2)
        return;
    out_put(l, '^');
    out_put(l, c ^ 0100);
    l->column += 2;
}

void ldisc_echo_erase_tab(struct ldisc *l, unsigned columns, bool after_tab)
{
    /* Without a tab before it, the place depends on where the line began. */
    unsigned back = 8 - ((columns + (after_tab ? 0 : l->canon_column)) & 7);

    while (back-- > 0 && out_room(l, 0) > 0) {
        out_put(l, '\b');
        if (l->column > 0)
            l->column--;
    }
}

/* ---- the master's side ---- */

size_t ldisc_output_count(const struct ldisc *l)
{
    uint64_t end = l->stopped ? l->out_stop : l->out_head;

    return (size_t)(end - l->out_tail);
}

size_t ldisc_drain(struct ldisc *l, uint8_t *p, size_t n)
{
    size_t done = 0;

    n = MIN(n, ldisc_output_count(l));
    while (done < n) {
        size_t at = l->out_tail % LDISC_OUT_SIZE;
        size_t some = MIN(n - done, LDISC_OUT_SIZE - at);
        memcpy(p + done, l->out + at, some);
        l->out_tail += some;
        done += some;
    }
    if (done > 0)
        l->room_above = true;
    return done;
}

void ldisc_flush_output(struct ldisc *l)
{
    l->out_tail = l->out_stop = l->out_head;
    l->room_above = true;
    if (l->packet) {
        l->pkt |= TIOCPKT_FLUSHWRITE;
        l->to_master = true;
    }
}

static void flow_packet(struct ldisc *l, uint8_t set, uint8_t clear)
{
    if (!l->packet)
        return;
    l->pkt = (uint8_t)((l->pkt & ~clear) | set);
    l->to_master = true;
}

void ldisc_stop(struct ldisc *l)
{
    if (l->stopped)
        return;
    l->stopped = true;
    l->out_stop = l->out_head;
    flow_packet(l, TIOCPKT_STOP, TIOCPKT_START);
}

void ldisc_start(struct ldisc *l)
{
    if (!l->stopped || l->tco_stopped)
        return;
    l->stopped = false;
    l->to_master = l->room_above = true;
    flow_packet(l, TIOCPKT_START, TIOCPKT_STOP);
}
