/* Bytes to the slave: editing of lines, special characters, signals. */
#include <signal.h>
#include <string.h>

#include "sentry/fs/devpts/ldisc.h"

/* In a line, where the end-of-file key was. Also: this special character is switched off. */
#define DISABLED 0

static bool lflag(const struct ldisc *l, tcflag_t f)
{
    return (l->t.c_lflag & f) != 0;
}

static bool iflag(const struct ldisc *l, tcflag_t f)
{
    return (l->t.c_iflag & f) != 0;
}

static bool is_key(const struct ldisc *l, unsigned key, uint8_t c)
{
    return l->t.c_cc[key] == c && c != DISABLED;
}

static bool canonical(const struct ldisc *l)
{
    return lflag(l, ICANON) && !lflag(l, EXTPROC);
}

void ldisc_init(struct ldisc *l)
{
    static const uint8_t keys[] = {
        [VINTR] = 3,     [VQUIT] = 28,   [VERASE] = 127, [VKILL] = 21, [VEOF] = 4,
        [VMIN] = 1,      [VSTART] = 17,  [VSTOP] = 19,   [VSUSP] = 26, [VREPRINT] = 18,
        [VDISCARD] = 15, [VWERASE] = 23, [VLNEXT] = 22,
    };

    memset(l, 0, sizeof(*l));
    l->t.c_iflag = ICRNL | IXON;
    l->t.c_oflag = OPOST | ONLCR;
    l->t.c_cflag = B38400 | CS8 | CREAD;
    l->t.c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN;
    l->t.c_ispeed = l->t.c_ospeed = 38400;
    memcpy(l->t.c_cc, keys, sizeof(keys));
}

/* ---- the buffer ---- */

static uint8_t in_at(const struct ldisc *l, uint64_t pos)
{
    return l->in[pos % LDISC_IN_SIZE];
}

static bool line_end_at(const struct ldisc *l, uint64_t pos)
{
    pos %= LDISC_IN_SIZE;
    return (l->line_end[pos / 64] >> (pos % 64) & 1) != 0;
}

static void line_end_set(struct ldisc *l, uint64_t pos, bool on)
{
    uint64_t bit;

    pos %= LDISC_IN_SIZE;
    bit = UINT64_C(1) << (pos % 64);
    l->line_end[pos / 64] = on ? l->line_end[pos / 64] | bit : l->line_end[pos / 64] & ~bit;
}

static void in_put(struct ldisc *l, uint8_t c)
{
    /* Two bytes for one may find room for one only. */
    if (l->head - l->tail >= LDISC_IN_SIZE)
        l->head--;
    line_end_set(l, l->head, false);
    l->in[l->head++ % LDISC_IN_SIZE] = c;
}

/* A byte that is no mark of PARMRK says so by coming twice. */
static void in_put_data(struct ldisc *l, uint8_t c)
{
    if (c == 0xff && iflag(l, PARMRK))
        in_put(l, c);
    in_put(l, c);
}

static void in_end_line(struct ldisc *l, uint8_t c)
{
    in_put(l, c);
    line_end_set(l, l->head - 1, true);
    l->canon_head = l->head;
    l->to_slave = true;
}

void ldisc_flush_input(struct ldisc *l)
{
    l->head = l->tail = l->canon_head = 0;
    memset(l->line_end, 0, sizeof(l->line_end));
    l->lnext = l->erasing = l->pushed = false;
    l->room_below = true;
    if (l->packet) {
        l->pkt |= TIOCPKT_FLUSHREAD;
        l->to_master = true;
    }
}

static int64_t in_room(const struct ldisc *l)
{
    int64_t room = (int64_t)LDISC_IN_SIZE - (int64_t)(l->head - l->tail);

    return (iflag(l, PARMRK) ? (room + 2) / 3 : room) - 1;
}

/* A line that is too long keeps its end free for the newline. */
bool ldisc_accepts(const struct ldisc *l)
{
    return in_room(l) > 0 || (canonical(l) && l->canon_head == l->tail);
}

/* ---- erasing ---- */

static void finish_erasing(struct ldisc *l)
{
    if (l->erasing)
        ldisc_echo_raw(l, '/');
    l->erasing = false;
}

static bool is_word(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (c >= 0xc0 && c != 0xd7 && c != 0xf7);
}

static void echo_rub_out(struct ldisc *l)
{
    ldisc_echo_raw(l, '\b');
    ldisc_echo_raw(l, ' ');
    ldisc_echo_raw(l, '\b');
}

static void echo_erased_tab(struct ldisc *l)
{
    unsigned columns = 0;
    bool after_tab = false;

    for (uint64_t at = l->head; at != l->canon_head && !after_tab; at--) {
        uint8_t c = in_at(l, at - 1);
        if (c == '\t')
            after_tab = true;
        else if (ldisc_is_ctrl(c))
            columns += lflag(l, ECHOCTL) ? 2 : 0;
        else if (!ldisc_is_continuation(l, c))
            columns++;
    }
    ldisc_echo_erase_tab(l, columns, after_tab);
}

/* The character of count bytes at head has gone; key is what erased it. */
static void echo_erased(struct ldisc *l, unsigned key, uint64_t count)
{
    uint8_t c = in_at(l, l->head);

    if (lflag(l, ECHOPRT)) {
        if (!l->erasing)
            ldisc_echo_raw(l, '\\');
        l->erasing = true;
        ldisc_echo(l, c);
        for (uint64_t i = 1; i < count; i++)
            ldisc_echo_raw(l, in_at(l, l->head + i));
    } else if (key == VERASE && !lflag(l, ECHOE)) {
        ldisc_echo(l, l->t.c_cc[VERASE]);
    } else if (c == '\t') {
        echo_erased_tab(l);
    } else {
        if (ldisc_is_ctrl(c) && lflag(l, ECHOCTL))
            echo_rub_out(l);
        if (!ldisc_is_ctrl(c) || lflag(l, ECHOCTL))
            echo_rub_out(l);
    }
}

/* One character, of several bytes maybe. False: a word ended before it, or it is cut short. */
static bool erase_one(struct ldisc *l, unsigned key, bool *in_word)
{
    uint64_t at = l->head;
    uint8_t c;

    do
        c = in_at(l, --at);
    while (ldisc_is_continuation(l, c) && at != l->canon_head);
    if (ldisc_is_continuation(l, c))
        return false;
    if (key == VWERASE) {
        if (!is_word(c) && *in_word)
            return false;
        *in_word = *in_word || is_word(c);
    }
    uint64_t count = l->head - at;
    l->head = at;
    if (lflag(l, ECHO))
        echo_erased(l, key, count);
    return true;
}

static void erase(struct ldisc *l, unsigned key)
{
    bool in_word = false;

    if (l->head == l->canon_head)
        return;
    if (key == VKILL && !lflag(l, ECHO)) {
        l->head = l->canon_head;
        return;
    }
    if (key == VKILL && !(lflag(l, ECHOK) && lflag(l, ECHOKE) && lflag(l, ECHOE))) {
        l->head = l->canon_head;
        finish_erasing(l);
        ldisc_echo(l, l->t.c_cc[VKILL]);
        if (lflag(l, ECHOK))
            ldisc_echo_raw(l, '\n');
        return;
    }
    while (l->head != l->canon_head && erase_one(l, key, &in_word))
        if (key == VERASE)
            break;
    if (l->head == l->canon_head && lflag(l, ECHO))
        finish_erasing(l);
}

/* ---- special characters; true: c was one ---- */

static void raise_signal(struct ldisc *l, int signo, uint8_t c)
{
    l->due |= UINT64_C(1) << (signo - 1);
    if (!lflag(l, NOFLSH)) {
        ldisc_flush_output(l);
        ldisc_flush_input(l);
    }
    if (iflag(l, IXON))
        ldisc_start(l);
    if (lflag(l, ECHO))
        ldisc_echo(l, c);
}

static bool take_flow(struct ldisc *l, uint8_t c)
{
    if (!iflag(l, IXON))
        return false;
    if (is_key(l, VSTART, c)) {
        ldisc_start(l);
        return true;
    }
    if (is_key(l, VSTOP, c)) {
        ldisc_stop(l);
        return true;
    }
    return false;
}

static bool take_signal(struct ldisc *l, uint8_t c)
{
    if (!lflag(l, ISIG))
        return false;
    if (is_key(l, VINTR, c))
        raise_signal(l, SIGINT, c);
    else if (is_key(l, VQUIT, c))
        raise_signal(l, SIGQUIT, c);
    else if (is_key(l, VSUSP, c))
        raise_signal(l, SIGTSTP, c);
    else
        return false;
    return true;
}

static void redisplay(struct ldisc *l, uint8_t c)
{
    finish_erasing(l);
    ldisc_echo(l, c);
    ldisc_echo_raw(l, '\n');
    for (uint64_t at = l->canon_head; at != l->head; at++)
        ldisc_echo(l, in_at(l, at));
}

static void begin_literal(struct ldisc *l)
{
    l->lnext = true;
    if (!lflag(l, ECHO))
        return;
    finish_erasing(l);
    if (lflag(l, ECHOCTL)) {
        ldisc_echo_raw(l, '^');
        ldisc_echo_raw(l, '\b');
    }
}

static bool take_edit(struct ldisc *l, uint8_t c)
{
    bool ext = lflag(l, IEXTEN);

    if (is_key(l, VERASE, c))
        erase(l, VERASE);
    else if (is_key(l, VKILL, c))
        erase(l, VKILL);
    else if (ext && is_key(l, VWERASE, c))
        erase(l, VWERASE);
    else if (ext && is_key(l, VLNEXT, c))
        begin_literal(l);
    else if (ext && lflag(l, ECHO) && is_key(l, VREPRINT, c))
        redisplay(l, c);
    else
        return false;
    return true;
}

static void note_column(struct ldisc *l)
{
    if (l->canon_head == l->head)
        l->canon_column = l->column;
}

static bool take_line_end(struct ldisc *l, uint8_t c)
{
    if (c == '\n') {
        if (lflag(l, ECHO) || lflag(l, ECHONL))
            ldisc_echo_raw(l, '\n');
        in_end_line(l, c);
        return true;
    }
    if (is_key(l, VEOF, c)) {
        in_end_line(l, DISABLED);
        return true;
    }
    if (!is_key(l, VEOL, c) && !(is_key(l, VEOL2, c) && lflag(l, IEXTEN)))
        return false;
    if (lflag(l, ECHO)) {
        note_column(l);
        ldisc_echo(l, c);
    }
    if (c == 0xff && iflag(l, PARMRK))
        in_put(l, c);
    in_end_line(l, c);
    return true;
}

/* ---- one byte: kernel n_tty_receive_char ---- */

static void take_data(struct ldisc *l, uint8_t c, bool plain)
{
    if (lflag(l, ECHO)) {
        finish_erasing(l);
        if (c == '\n' && plain) {
            ldisc_echo_raw(l, '\n');
        } else {
            note_column(l);
            ldisc_echo(l, c);
        }
    }
    in_put_data(l, c);
}

static uint8_t fold(const struct ldisc *l, uint8_t c)
{
    if (iflag(l, ISTRIP))
        c &= 0x7f;
    if (iflag(l, IUCLC) && lflag(l, IEXTEN) && c >= 'A' && c <= 'Z')
        c = (uint8_t)(c - 'A' + 'a');
    return c;
}

static void receive(struct ldisc *l, uint8_t c)
{
    c = fold(l, c);
    if (l->lnext) {
        l->lnext = false;
        take_data(l, c, false);
        return;
    }
    if (lflag(l, EXTPROC)) {
        in_put(l, c);
        return;
    }
    if (take_flow(l, c))
        return;
    if (l->stopped && iflag(l, IXON) && iflag(l, IXANY))
        ldisc_start(l);
    if (take_signal(l, c))
        return;
    if (c == '\r') {
        if (iflag(l, IGNCR))
            return;
        if (iflag(l, ICRNL))
            c = '\n';
    } else if (c == '\n' && iflag(l, INLCR)) {
        c = '\r';
    }
    if (lflag(l, ICANON) && (take_edit(l, c) || take_line_end(l, c)))
        return;
    take_data(l, c, true);
}

size_t ldisc_input(struct ldisc *l, const uint8_t *p, size_t n)
{
    size_t done = 0;

    while (done < n && ldisc_accepts(l)) {
        /* The last byte of a line that is too long is replaced again and again. */
        if (in_room(l) < 0 && l->head > l->canon_head)
            l->head--;
        receive(l, p[done++]);
    }
    if (done > 0 && !canonical(l))
        l->to_slave = true;
    return done;
}

/* ---- the slave's side ---- */

bool ldisc_readable(const struct ldisc *l, size_t min)
{
    if (canonical(l))
        return l->canon_head != l->tail;
    return l->head - l->tail >= min;
}

static size_t read_line(struct ldisc *l, uint8_t *p, size_t n, bool *out_eof, bool *out_line_done)
{
    size_t done = 0;

    while (l->tail != l->canon_head) {
        uint8_t c = in_at(l, l->tail);
        bool end = line_end_at(l, l->tail);
        bool eof = end && c == DISABLED;
        /* An end of file right behind what fits goes with it. */
        if (done == n && !eof)
            break;
        l->tail++;
        line_end_set(l, l->tail - 1, false);
        if (!eof)
            p[done++] = c;
        if (!end)
            continue;
        /* An end of file behind what was there before canonical mode began ends nothing. */
        *out_line_done = !(eof && done == 0 && l->pushed);
        *out_eof = eof && done == 0 && !l->pushed;
        l->pushed = false;
        break;
    }
    return done;
}

size_t ldisc_read(struct ldisc *l, uint8_t *p, size_t n, bool *out_eof, bool *out_line_done)
{
    size_t done = 0;

    *out_eof = *out_line_done = false;
    l->room_below = true;
    if (canonical(l))
        return read_line(l, p, n, out_eof, out_line_done);
    n = MIN(n, (size_t)(l->head - l->tail));
    while (done < n)
        p[done++] = in_at(l, l->tail++);
    if (l->canon_head < l->tail)
        l->canon_head = l->tail;
    return done;
}

size_t ldisc_input_count(const struct ldisc *l)
{
    size_t n = 0;

    if (!canonical(l))
        return (size_t)(l->head - l->tail);
    for (uint64_t at = l->tail; at != l->canon_head; at++)
        if (!line_end_at(l, at) || in_at(l, at) != DISABLED)
            n++;
    return n;
}

/* ---- settings ---- */

static void mode_changed(struct ldisc *l)
{
    memset(l->line_end, 0, sizeof(l->line_end));
    l->pushed = lflag(l, ICANON) && l->head != l->tail;
    l->canon_head = l->pushed ? l->head : l->tail;
    if (l->pushed)
        line_end_set(l, l->head - 1, true);
    l->erasing = l->lnext = false;
    l->to_slave = l->room_below = true;
}

static bool usual_flow(const struct termios2 *t)
{
    return (t->c_iflag & IXON) != 0 && t->c_cc[VSTOP] == 19 && t->c_cc[VSTART] == 17;
}

static void settings_packet(struct ldisc *l, const struct termios2 *old)
{
    bool flow = usual_flow(&l->t);

    if (!l->packet)
        return;
    if (usual_flow(old) != flow) {
        l->pkt &= (uint8_t) ~(TIOCPKT_DOSTOP | TIOCPKT_NOSTOP);
        l->pkt |= flow ? TIOCPKT_DOSTOP : TIOCPKT_NOSTOP;
        l->to_master = true;
    }
    if (((old->c_lflag ^ l->t.c_lflag) & EXTPROC) != 0) {
        l->pkt |= TIOCPKT_IOCTL;
        l->to_master = true;
    }
}

void ldisc_set_termios(struct ldisc *l, const struct termios2 *t)
{
    const struct termios2 old = l->t;

    l->t = *t;
    if (((old.c_lflag ^ t->c_lflag) & (ICANON | EXTPROC)) != 0)
        mode_changed(l);
    if (!iflag(l, IXON) && (old.c_iflag & IXON) != 0)
        ldisc_start(l);
    settings_packet(l, &old);
    l->to_slave = true;
}
