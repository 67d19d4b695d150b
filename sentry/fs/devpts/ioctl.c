/* Requests on either side: ioctl_tty(2). Those about the line mean the slave's, whoever asks. */
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>

#include "sentry/fs/devpts/devpts_priv.h"

struct call {
    struct file *f;
    struct pty *p;
    bool master;
    uint64_t arg;
    const struct uaccess *ua;
    const struct vfs_caller *c;
};

static int put_int(const struct call *k, int v)
{
    return copyout_obj(k->ua, (uaddr_t){k->arg}, &v);
}

static int get_int(const struct call *k, int *v)
{
    return copyin_obj(k->ua, v, (uaddr_t){k->arg});
}

/* A change from the background stops its group, or goes on when it wants no SIGTTOU. */
static int check_change(const struct call *k)
{
    return k->master ? 0 : tty_check(k->p->core->k, k->c, &k->p->tty, SIGTTOU);
}

/* ---- settings ---- */

static unsigned baud_index(uint32_t speed)
{
    static const uint32_t speeds[] = {0,   50,   75,   110,  134,  150,  200,   300,
                                      600, 1200, 1800, 2400, 4800, 9600, 19200, 38400};

    for (unsigned i = 0; i < ARRAY_SIZE(speeds); i++)
        if (speeds[i] == speed)
            return i;
    return BOTHER;
}

static uint32_t baud_speed(uint32_t cflag, uint32_t other)
{
    static const uint32_t low[] = {0,   50,   75,   110,  134,  150,  200,   300,
                                   600, 1200, 1800, 2400, 4800, 9600, 19200, 38400};
    static const uint32_t high[] = {57600,   115200,  230400,  460800,  500000,
                                    576000,  921600,  1000000, 1152000, 1500000,
                                    2000000, 2500000, 3000000, 3500000, 4000000};
    uint32_t code = cflag & CBAUD;

    if (code == BOTHER)
        return other;
    if ((code & CBAUDEX) == 0)
        return low[code & 15];
    code = (code & 15) - 1;
    return code < ARRAY_SIZE(high) ? high[code] : other;
}

static void get_termios(const struct call *k, struct termios2 *t)
{
    mutex_lock(&k->p->mu);
    *t = k->p->ld.t;
    mutex_unlock(&k->p->mu);
}

static int put_termios(const struct call *k)
{
    struct termios2 t;
    struct termios old;

    get_termios(k, &t);
    memset(&old, 0, sizeof(old));
    old.c_iflag = t.c_iflag;
    old.c_oflag = t.c_oflag;
    old.c_cflag = t.c_cflag;
    old.c_lflag = t.c_lflag;
    old.c_line = t.c_line;
    memcpy(old.c_cc, t.c_cc, sizeof(old.c_cc));
    return copyout_obj(k->ua, (uaddr_t){k->arg}, &old);
}

static int put_termios2(const struct call *k)
{
    struct termios2 t;

    get_termios(k, &t);
    return copyout_obj(k->ua, (uaddr_t){k->arg}, &t);
}

static int put_termio(const struct call *k)
{
    struct termios2 t;
    struct termio old;

    get_termios(k, &t);
    memset(&old, 0, sizeof(old));
    old.c_iflag = (uint16_t)t.c_iflag;
    old.c_oflag = (uint16_t)t.c_oflag;
    old.c_cflag = (uint16_t)t.c_cflag;
    old.c_lflag = (uint16_t)t.c_lflag;
    old.c_line = t.c_line;
    memcpy(old.c_cc, t.c_cc, sizeof(old.c_cc));
    return copyout_obj(k->ua, (uaddr_t){k->arg}, &old);
}

static void fix_speeds(struct termios2 *t)
{
    uint32_t in = (t->c_cflag >> IBSHIFT) & CBAUD;

    t->c_ospeed = baud_speed(t->c_cflag, t->c_ospeed);
    t->c_ispeed = in == B0 ? t->c_ospeed : baud_speed(in, t->c_ispeed);
    if ((t->c_cflag & CBAUD) == BOTHER && baud_index(t->c_ospeed) != BOTHER)
        t->c_cflag = (t->c_cflag & ~(tcflag_t)CBAUD) | baud_index(t->c_ospeed);
}

static int read_termios(const struct call *k, struct termios2 *t)
{
    struct termios old;
    int r = copyin_obj(k->ua, &old, (uaddr_t){k->arg});

    if (r != 0)
        return r;
    t->c_iflag = old.c_iflag;
    t->c_oflag = old.c_oflag;
    t->c_cflag = old.c_cflag;
    t->c_lflag = old.c_lflag;
    t->c_line = old.c_line;
    memcpy(t->c_cc, old.c_cc, sizeof(old.c_cc));
    return 0;
}

/* The upper halves stay as they are. */
static int read_termio(const struct call *k, struct termios2 *t)
{
    struct termio old;
    int r = copyin_obj(k->ua, &old, (uaddr_t){k->arg});

    if (r != 0)
        return r;
    t->c_iflag = (t->c_iflag & 0xffff0000u) | old.c_iflag;
    t->c_oflag = (t->c_oflag & 0xffff0000u) | old.c_oflag;
    t->c_cflag = (t->c_cflag & 0xffff0000u) | old.c_cflag;
    t->c_lflag = (t->c_lflag & 0xffff0000u) | old.c_lflag;
    t->c_line = old.c_line;
    memcpy(t->c_cc, old.c_cc, sizeof(old.c_cc));
    return 0;
}

enum layout { TERMIO, TERMIOS, TERMIOS2 };

/* Output never waits on a pty, so TCSETSW is TCSETS; TCSETSF drops input first. */
static int set_termios(const struct call *k, enum layout layout, bool flush)
{
    struct termios2 t;
    int r = tty_check(k->p->core->k, k->c, &k->p->tty, SIGTTOU);

    if (r != 0)
        return r;
    get_termios(k, &t);
    if (layout == TERMIOS2)
        r = copyin_obj(k->ua, &t, (uaddr_t){k->arg});
    else
        r = layout == TERMIOS ? read_termios(k, &t) : read_termio(k, &t);
    if (r != 0)
        return r;
    fix_speeds(&t);
    /* What a pty cannot be: kernel pty_set_termios. */
    t.c_cflag = (t.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8 | CREAD;
    mutex_lock(&k->p->mu);
    if (flush)
        ldisc_flush_input(&k->p->ld);
    t.c_line = k->p->ld.t.c_line;
    ldisc_set_termios(&k->p->ld, &t);
    pty_unlock(k->p);
    return 0;
}

/* ---- size ---- */

void pty_set_size(struct pty *p, const struct winsize *ws)
{
    mutex_lock(&p->mu);
    bool same = memcmp(&p->ws, ws, sizeof(*ws)) == 0;
    p->ws = *ws;
    mutex_unlock(&p->mu);
    if (!same)
        tty_signal(p->core->k, &p->tty, SIGWINCH);
}

static int get_size(const struct call *k)
{
    struct winsize ws;

    mutex_lock(&k->p->mu);
    ws = k->p->ws;
    mutex_unlock(&k->p->mu);
    return copyout_obj(k->ua, (uaddr_t){k->arg}, &ws);
}

static int set_size(const struct call *k)
{
    struct winsize ws;
    int r = copyin_obj(k->ua, &ws, (uaddr_t){k->arg});

    if (r == 0)
        pty_set_size(k->p, &ws);
    return r;
}

/* ---- flow, queues ---- */

static int queue_size(const struct call *k)
{
    mutex_lock(&k->p->mu);
    size_t n = k->master ? ldisc_output_count(&k->p->ld) : ldisc_input_count(&k->p->ld);
    mutex_unlock(&k->p->mu);
    return put_int(k, (int)n);
}

static int flush_queues(const struct call *k)
{
    struct ldisc *l = &k->p->ld;
    int r = check_change(k);

    if (r != 0)
        return r;
    if (k->arg != TCIFLUSH && k->arg != TCOFLUSH && k->arg != TCIOFLUSH)
        return -EINVAL;
    /* What comes in on one side goes out on the other. */
    bool input = k->arg == TCIOFLUSH || (k->arg == TCIFLUSH) != k->master;
    bool output = k->arg == TCIOFLUSH || (k->arg == TCOFLUSH) != k->master;
    mutex_lock(&k->p->mu);
    if (input)
        ldisc_flush_input(l);
    if (output)
        ldisc_flush_output(l);
    pty_unlock(k->p);
    return 0;
}

static void slave_flow(struct ldisc *l, uint64_t what)
{
    if (what == TCOOFF) {
        l->tco_stopped = true;
        ldisc_stop(l);
    } else if (what == TCOON && l->tco_stopped) {
        l->tco_stopped = false;
        ldisc_start(l);
    } else if (what == TCIOFF && l->t.c_cc[VSTOP] != 0) {
        ldisc_out_raw(l, l->t.c_cc[VSTOP]);
    } else if (what == TCION && l->t.c_cc[VSTART] != 0) {
        ldisc_out_raw(l, l->t.c_cc[VSTART]);
    }
}

static void master_flow(struct pty *p, uint64_t what)
{
    struct ldisc *l = &p->ld;
    uint8_t key = l->t.c_cc[what == TCIOFF ? VSTOP : VSTART];

    if (what == TCOOFF || what == TCOON) {
        p->master_stopped = what == TCOOFF;
        l->room_below = true;
    } else if (key != 0) {
        (void)ldisc_input(l, &key, 1);
    }
}

static int set_flow(const struct call *k)
{
    int r = check_change(k);

    if (r != 0)
        return r;
    if (k->arg > TCION)
        return -EINVAL;
    mutex_lock(&k->p->mu);
    if (k->master)
        master_flow(k->p, k->arg);
    else
        slave_flow(&k->p->ld, k->arg);
    pty_unlock(k->p);
    return 0;
}

/* ---- job control ---- */

static int control(const struct call *k, unsigned cmd)
{
    struct kernel *kern = k->p->core->k;
    struct tty *tty = &k->p->tty;
    int32_t v;
    int r;

    switch (cmd) {
    case TIOCSCTTY:
        return tty_take(kern, k->c, tty, k->arg == 1,
                        (atomic_load(&k->f->flags) & O_ACCMODE) != O_WRONLY);
    case TIOCNOTTY:
        return k->master ? -ENOTTY : tty_leave(kern, k->c, tty);
    case TIOCGPGRP:
        r = tty_get_pgrp(kern, k->c, tty, k->master, &v);
        return r != 0 ? r : put_int(k, v);
    case TIOCGSID:
        r = tty_get_sid(kern, k->c, tty, k->master, &v);
        return r != 0 ? r : put_int(k, v);
    default: /* TIOCSPGRP */
        r = tty_check(kern, k->c, tty, SIGTTOU);
        if (r != 0)
            return r == -EIO ? -ENOTTY : r;
        r = get_int(k, &v);
        return r != 0 ? r : tty_set_pgrp(kern, k->c, tty, v);
    }
}

/* ---- only on masters ---- */

static int open_peer(const struct call *k)
{
    uint32_t flags = (uint32_t)k->arg;
    char name[16];
    struct file *f;
    struct vpath base = k->f->path;

    /* The pair may have been made through a node outside its file system. */
    if (base.dentry->sb->fs != &devpts_fs_ops)
        return -EIO;
    base.dentry = base.dentry->sb->root;
    (void)snprintf(name, sizeof(name), "%u", k->p->index);
    int r = vfs_open(k->c, &base, name, flags & ~(uint32_t)O_CREAT, 0, 0, &f);
    if (r != 0)
        return r;
    r = tty_install_fd(k->p->core->k, k->c, f, (flags & O_CLOEXEC) != 0);
    file_put(f);
    return r;
}

static int set_flag(const struct call *k, bool *flag)
{
    int v, r = get_int(k, &v);

    if (r != 0)
        return r;
    mutex_lock(&k->p->mu);
    *flag = v != 0;
    mutex_unlock(&k->p->mu);
    return 0;
}

static int get_flag(const struct call *k, const bool *flag)
{
    mutex_lock(&k->p->mu);
    int v = *flag;
    mutex_unlock(&k->p->mu);
    return put_int(k, v);
}

static int set_packet(const struct call *k)
{
    int v, r = get_int(k, &v);

    if (r != 0)
        return r;
    mutex_lock(&k->p->mu);
    if (v != 0 && !k->p->ld.packet)
        k->p->ld.pkt = 0;
    k->p->ld.packet = v != 0;
    mutex_unlock(&k->p->mu);
    return 0;
}

static int send_signal(const struct call *k)
{
    int signo = (int)k->arg;

    if (signo != SIGINT && signo != SIGQUIT && signo != SIGTSTP)
        return -EINVAL;
    tty_signal(k->p->core->k, &k->p->tty, signo);
    return 0;
}

static int64_t master_ioctl(const struct call *k, unsigned cmd)
{
    switch (cmd) {
    case TIOCGPTN:
        return put_int(k, (int)k->p->index);
    case TIOCSPTLCK:
        return set_flag(k, &k->p->locked);
    case TIOCGPTLCK:
        return get_flag(k, &k->p->locked);
    case TIOCGPTPEER:
        return open_peer(k);
    case TIOCPKT:
        return set_packet(k);
    case TIOCGPKT:
        return get_flag(k, &k->p->ld.packet);
    case TIOCSIG:
        return send_signal(k);
    default:
        return -ENOTTY;
    }
}

/* ---- either side ---- */

static int simulate_input(const struct call *k)
{
    uint8_t c;

    /* As with the sysctl dev.tty.legacy_tiocsti off. */
    if (!cred_capable(k->c->cred, CAP_SYS_ADMIN))
        return -EIO;
    int r = copyin_obj(k->ua, &c, (uaddr_t){k->arg});
    if (r != 0)
        return r;
    mutex_lock(&k->p->mu);
    (void)ldisc_input(&k->p->ld, &c, 1);
    pty_unlock(k->p);
    return 0;
}

static int64_t line_ioctl(const struct call *k, unsigned cmd)
{
    int v, r;

    switch (cmd) {
    case FIONREAD:
        return queue_size(k);
    case TIOCOUTQ:
        return put_int(k, 0); /* what is written is with the other side at once */
    case TCSBRK:
    case TCSBRKP:
    case TIOCSBRK:
    case TIOCCBRK:
        return check_change(k);
    case TCXONC:
        return set_flow(k);
    case TCFLSH:
        return flush_queues(k);
    case TIOCSTI:
        return simulate_input(k);
    case TIOCGETD:
        return put_int(k, 0);
    case TIOCSETD:
        r = check_change(k);
        if (r == 0)
            r = get_int(k, &v);
        return r != 0 ? r : v == 0 ? 0 : -EINVAL;
    case TIOCGDEV:
        return put_int(k, (int)k->p->tty.rdev);
    case TIOCVHANGUP:
        if (!cred_capable(k->c->cred, CAP_SYS_ADMIN))
            return -EPERM;
        pty_hangup(k->p);
        return 0;
    default:
        if (!k->master)
            return cmd == TIOCGPTPEER ? -EIO : -ENOTTY;
        return master_ioctl(k, cmd);
    }
}

static int exclusive_ioctl(const struct call *k, unsigned cmd)
{
    if (cmd == TIOCGEXCL)
        return get_flag(k, &k->p->exclusive);
    mutex_lock(&k->p->mu);
    k->p->exclusive = cmd == TIOCEXCL;
    mutex_unlock(&k->p->mu);
    return 0;
}

int64_t pty_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                  const struct vfs_caller *c)
{
    const struct call k = {f, pty_of_file(f), pty_is_master(f), arg, ua, c};

    mutex_lock(&k.p->mu);
    bool hung = pty_file_hung(f, k.p);
    mutex_unlock(&k.p->mu);
    if (hung)
        return cmd == TIOCSPGRP ? -ENOTTY : -EIO;
    switch (cmd) {
    case TCGETS:
        return put_termios(&k);
    case TCGETS2:
        return put_termios2(&k);
    case TCGETA:
        return put_termio(&k);
    case TCSETS:
    case TCSETSW:
    case TCSETSF:
        return set_termios(&k, TERMIOS, cmd == TCSETSF);
    case TCSETS2:
    case TCSETSW2:
    case TCSETSF2:
        return set_termios(&k, TERMIOS2, cmd == TCSETSF2);
    case TCSETA:
    case TCSETAW:
    case TCSETAF:
        return set_termios(&k, TERMIO, cmd == TCSETAF);
    case TIOCGWINSZ:
        return get_size(&k);
    case TIOCSWINSZ:
        return set_size(&k);
    case TIOCSCTTY:
    case TIOCNOTTY:
    case TIOCGPGRP:
    case TIOCGSID:
    case TIOCSPGRP:
        return control(&k, cmd);
    case TIOCEXCL:
    case TIOCNXCL:
    case TIOCGEXCL:
        return exclusive_ioctl(&k, cmd);
    default:
        return line_ioctl(&k, cmd);
    }
}
