/* Prints system calls from the argument kinds of syscalls.def. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/wbuf.h"
#include "syscalls/table.h"

enum kind {
    KIND_INT,
    KIND_UINT,
    KIND_LONG,
    KIND_ULONG,
    KIND_FD,
    KIND_FLAGS,
    KIND_UFLAGS,
    KIND_MODE,
    KIND_SIZE,
    KIND_OFF,
    KIND_PTR,
    KIND_PATH,
    KIND_STR,
    KIND_BUF,
    KIND_PID,
    KIND_SIG,
    KIND_UID,
    KIND_GID,
};

struct sys_shape {
    const char *name;
    uint8_t count;
    uint8_t kinds[6];
    const char *args[6];
};

#define SYS0(nr, nm, ...) [nr] = {.name = #nm},
#define SYS1(nr, nm, st, note, k0, a0)                                                             \
    [nr] = {.name = #nm, .count = 1, .kinds = {KIND_##k0}, .args = {#a0}},
#define SYS2(nr, nm, st, note, k0, a0, k1, a1)                                                     \
    [nr] = {.name = #nm, .count = 2, .kinds = {KIND_##k0, KIND_##k1}, .args = {#a0, #a1}},
#define SYS3(nr, nm, st, note, k0, a0, k1, a1, k2, a2)                                             \
    [nr] = {.name = #nm,                                                                           \
            .count = 3,                                                                            \
            .kinds = {KIND_##k0, KIND_##k1, KIND_##k2},                                            \
            .args = {#a0, #a1, #a2}},
#define SYS4(nr, nm, st, note, k0, a0, k1, a1, k2, a2, k3, a3)                                     \
    [nr] = {.name = #nm,                                                                           \
            .count = 4,                                                                            \
            .kinds = {KIND_##k0, KIND_##k1, KIND_##k2, KIND_##k3},                                 \
            .args = {#a0, #a1, #a2, #a3}},
#define SYS5(nr, nm, st, note, k0, a0, k1, a1, k2, a2, k3, a3, k4, a4)                             \
    [nr] = {.name = #nm,                                                                           \
            .count = 5,                                                                            \
            .kinds = {KIND_##k0, KIND_##k1, KIND_##k2, KIND_##k3, KIND_##k4},                      \
            .args = {#a0, #a1, #a2, #a3, #a4}},
#define SYS6(nr, nm, st, note, k0, a0, k1, a1, k2, a2, k3, a3, k4, a4, k5, a5)                     \
    [nr] = {.name = #nm,                                                                           \
            .count = 6,                                                                            \
            .kinds = {KIND_##k0, KIND_##k1, KIND_##k2, KIND_##k3, KIND_##k4, KIND_##k5},           \
            .args = {#a0, #a1, #a2, #a3, #a4, #a5}},
#define NOSYS(nr, nm, e, note) [nr] = {.name = #nm},
static const struct sys_shape shapes[] = {
#include "syscalls/syscalls.def"
};
#include "syscalls/undef.def"

/* Guest text, quoted, cut at a few bytes; the address when it cannot be read. */
static void trace_text(struct task *t, uint64_t addr, struct wbuf *w)
{
    char raw[64];
    size_t n = copyin_partial(&t->ua, raw, (uaddr_t){addr}, sizeof(raw));

    if (addr == 0 || n == 0) {
        wbuf_printf(w, addr ? "0x%" PRIx64 : "NULL", addr);
        return;
    }
    size_t len = strnlen(raw, n);
    wbuf_str(w, "\"");
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)raw[i];
        if (c == '"' || c == '\\')
            wbuf_printf(w, "\\%c", c);
        else if (c >= ' ' && c < 127)
            wbuf_printf(w, "%c", c);
        else
            wbuf_printf(w, "\\x%02x", c);
    }
    wbuf_str(w, len == n ? "\"..." : "\"");
}

static void trace_arg(struct task *t, enum kind kind, uint64_t v, struct wbuf *w)
{
    switch (kind) {
    case KIND_INT:
    case KIND_PID:
        wbuf_printf(w, "%d", (int)(uint32_t)v);
        break;
    case KIND_FD:
        if ((int)(uint32_t)v == -100)
            wbuf_str(w, "AT_FDCWD");
        else
            wbuf_printf(w, "%d", (int)(uint32_t)v);
        break;
    case KIND_SIG:
        if ((uint32_t)v < 32 && sigabbrev_np((int)v))
            wbuf_printf(w, "SIG%s", sigabbrev_np((int)v));
        else
            wbuf_printf(w, "%d", (int)(uint32_t)v);
        break;
    case KIND_UINT:
    case KIND_UID:
    case KIND_GID:
        wbuf_printf(w, "%u", (unsigned)v);
        break;
    case KIND_LONG:
    case KIND_OFF:
        wbuf_printf(w, "%" PRId64, (int64_t)v);
        break;
    case KIND_ULONG:
    case KIND_SIZE:
        wbuf_printf(w, "%" PRIu64, v);
        break;
    case KIND_FLAGS:
    case KIND_UFLAGS:
        wbuf_printf(w, "0x%x", (unsigned)v);
        break;
    case KIND_MODE:
        wbuf_printf(w, "0%o", (unsigned)v);
        break;
    case KIND_PATH:
    case KIND_STR:
        trace_text(t, v, w);
        break;
    case KIND_PTR:
    case KIND_BUF:
        wbuf_printf(w, v ? "0x%" PRIx64 : "NULL", v);
        break;
    }
}

static void trace_result(struct wbuf *w, int64_t ret)
{
    const char *name = NULL;

    if (ret < 0 && ret >= -4095)
        name = strerrorname_np((int)-ret);
    if (ret == -ERESTARTSYS || ret == -ERESTARTNOINTR || ret == -ERESTARTNOHAND ||
        ret == -ERESTART_RESTARTBLOCK)
        wbuf_str(w, " = ? ERESTART");
    else if (name)
        wbuf_printf(w, " = -1 %s", name);
    else if (ret > 0xffff || ret < 0)
        wbuf_printf(w, " = 0x%" PRIx64, (uint64_t)ret);
    else
        wbuf_printf(w, " = %" PRId64, ret);
}

void sys_trace(struct task *t, uint64_t nr, const uint64_t *a, bool after, int64_t ret)
{
    char line[LOG_MESSAGE_MAX];
    struct wbuf w;
    const struct sys_shape *s = nr < ARRAY_SIZE(shapes) ? &shapes[nr] : NULL;

    wbuf_init(&w, line, sizeof(line) - 1);
    wbuf_printf(&w, "[%d] %.15s ", t->tid, t->comm);
    if (s && s->name)
        wbuf_str(&w, s->name);
    else
        wbuf_printf(&w, "syscall_%" PRIu64, nr);
    if (after) {
        trace_result(&w, ret);
    } else {
        wbuf_str(&w, "(");
        for (unsigned i = 0; s && i < s->count; i++) {
            if (i > 0)
                wbuf_str(&w, ", ");
            trace_arg(t, (enum kind)s->kinds[i], a[i], &w);
        }
        wbuf_str(&w, ")");
    }
    line[w.len] = 0;
    log_write(LOG_INFO, "%s", line);
}
