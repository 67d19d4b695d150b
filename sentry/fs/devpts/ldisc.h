/* The line discipline of a terminal: what happens to bytes between the master and the slave side
 * (termios(3), kernel drivers/tty/n_tty.c). Knows no processes, no files and no locks.
 * Depends on: base.
 * Threading: the terminal's lock is held over every call.
 * Ownership: one value, embedded in its terminal. */
#ifndef RINGWALL_SENTRY_FS_DEVPTS_LDISC_H
#define RINGWALL_SENTRY_FS_DEVPTS_LDISC_H

#include <asm/termios.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

#define LDISC_IN_SIZE 4096u   /* N_TTY_BUF_SIZE: a line has one byte less */
#define LDISC_OUT_SIZE 16384u /* on the way to the master */
#define LDISC_ECHO_RESERVE 4096u

struct ldisc {
    struct termios2 t;

    /* To the slave. Positions count up; canon_head: behind the last complete line. */
    uint64_t head, tail, canon_head;
    uint8_t in[LDISC_IN_SIZE];
    uint64_t line_end[LDISC_IN_SIZE / 64]; /* bit per byte of in: ends a line */
    bool lnext;                            /* the next byte is taken literally */
    bool erasing;                          /* inside \.../ of ECHOPRT */
    bool pushed; /* what was there when canonical mode began: not a line of its own */

    /* To the master. out_stop: bytes from there on wait till the terminal is started. */
    uint64_t out_head, out_tail, out_stop;
    uint8_t out[LDISC_OUT_SIZE];
    uint32_t column, canon_column;
    bool stopped;     /* ^S or TCOOFF */
    bool tco_stopped; /* TCOOFF: ^Q does not start it */

    /* Taken by the caller after each call. */
    uint64_t due;    /* bit signo - 1: signals for the foreground group */
    uint8_t pkt;     /* TIOCPKT_* that a master in packet mode has not read yet */
    bool packet;     /* master in packet mode */
    bool to_master;  /* bytes or packets came for the master */
    bool to_slave;   /* bytes or lines came for the slave */
    bool room_above; /* the slave may write more */
    bool room_below; /* the master may write more */
};

void ldisc_init(struct ldisc *l);
/* TCSETS: what of the buffered input counts as a line changes with ICANON. */
void ldisc_set_termios(struct ldisc *l, const struct termios2 *t);

/* ---- master to slave ---- */
/* Takes bytes while there is room, echoes them, notes signals; returns how many it took. */
size_t ldisc_input(struct ldisc *l, const uint8_t *p, size_t n);
bool ldisc_accepts(const struct ldisc *l);
/* Is there something to read: a line, or (raw) at least min bytes? */
bool ldisc_readable(const struct ldisc *l, size_t min);
/* One line at most in canonical mode, else what is there. *out_line_done: the line's end was taken
 * too; *out_eof: it was the end-of-file key with nothing before it. */
size_t ldisc_read(struct ldisc *l, uint8_t *p, size_t n, bool *out_eof, bool *out_line_done);
size_t ldisc_input_count(const struct ldisc *l); /* FIONREAD */
void ldisc_flush_input(struct ldisc *l);

/* ---- slave to master ---- */
/* Writes with output processing; returns how many bytes of p were taken. */
size_t ldisc_output(struct ldisc *l, const uint8_t *p, size_t n);
bool ldisc_writable(const struct ldisc *l);
size_t ldisc_output_count(const struct ldisc *l); /* bytes the master can read */
size_t ldisc_drain(struct ldisc *l, uint8_t *p, size_t n);
void ldisc_flush_output(struct ldisc *l);
/* Output of one byte past processing, if it fits: START and STOP characters. */
void ldisc_out_raw(struct ldisc *l, uint8_t c);
void ldisc_stop(struct ldisc *l);
void ldisc_start(struct ldisc *l);

/* ---- inside, between ldisc_in.c and ldisc_out.c ---- */
void ldisc_echo(struct ldisc *l, uint8_t c);     /* as ECHOCTL shows it */
void ldisc_echo_raw(struct ldisc *l, uint8_t c); /* only with output processing */
void ldisc_echo_erase_tab(struct ldisc *l, unsigned columns, bool after_tab);

static inline bool ldisc_is_ctrl(uint8_t c)
{
    return c < 32 || c == 127;
}

static inline bool ldisc_is_continuation(const struct ldisc *l, uint8_t c)
{
    return (l->t.c_iflag & IUTF8) != 0 && (c & 0xc0) == 0x80;
}

#endif
