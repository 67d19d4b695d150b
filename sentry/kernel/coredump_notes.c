/* The notes of a core file: what gdb learns of threads and process (fs/binfmt_elf.c). */
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/kernel/coredump_priv.h"
#include "sentry/kernel/inspect.h"

#define NOTE_NAME "CORE"
#define NOTE_LINUX "LINUX"
#define LX_NT_SIGINFO 0x53494749u
#define LX_NT_FILE 0x46494c45u
#define FXSAVE_SIZE 512u
#define FILES_MAX 65536u

struct lx_time {
    int64_t sec, usec;
};

struct lx_prstatus {
    int32_t signo, code, err;
    int16_t cursig;
    uint64_t sigpend, sighold;
    int32_t pid, ppid, pgrp, sid;
    struct lx_time utime, stime, cutime, cstime;
    struct plat_regs regs;
    int32_t fpvalid;
};
_Static_assert(sizeof(struct lx_prstatus) == 336, "struct elf_prstatus");

struct lx_prpsinfo {
    char state, sname, zomb, nice;
    uint64_t flag;
    uint32_t uid, gid;
    int32_t pid, ppid, pgrp, sid;
    char fname[16], args[80];
};
_Static_assert(sizeof(struct lx_prpsinfo) == 136, "struct elf_prpsinfo");

void core_put(struct core_buf *b, const void *data, size_t size)
{
    if (b->failed)
        return;
    if (b->room - b->size < size) {
        const size_t room = (b->size + size) * 2 + 4096;
        uint8_t *grown = realloc(b->data, room);
        if (!grown) {
            b->failed = true;
            return;
        }
        b->data = grown;
        b->room = room;
    }
    if (size > 0)
        memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void put_aligned(struct core_buf *b, const void *data, size_t size)
{
    static const uint8_t zero[4] = {0};

    core_put(b, data, size);
    core_put(b, zero, (4 - size % 4) % 4);
}

static void put_note(struct core_buf *b, const char *name, uint32_t type, const void *data,
                     size_t size)
{
    const Elf64_Nhdr h = {
        .n_namesz = (uint32_t)strlen(name) + 1, .n_descsz = (uint32_t)size, .n_type = type};

    core_put(b, &h, sizeof(h));
    put_aligned(b, name, h.n_namesz);
    put_aligned(b, data, size);
}

static struct lx_time core_time(uint64_t ns)
{
    return (struct lx_time){(int64_t)(ns / 1000000000u), (int64_t)(ns % 1000000000u / 1000)};
}

static void put_status(struct core_buf *b, const struct coredump *c, const struct core_thread *ct)
{
    struct lx_prstatus s;
    struct task_info info;

    memset(&s, 0, sizeof(s));
    task_info(ct->t, &info);
    s.signo = s.cursig = (int16_t)c->info.signo;
    s.code = c->info.code;
    s.sigpend = info.sig_pending;
    s.sighold = info.sig_blocked;
    s.pid = info.pid;
    s.ppid = info.ppid;
    s.pgrp = info.pgrp;
    s.sid = info.session;
    s.utime = core_time(info.utime_ns);
    s.stime = core_time(info.stime_ns);
    s.cutime = core_time(info.cutime_ns);
    s.cstime = core_time(info.cstime_ns);
    s.regs = ct->regs;
    s.fpvalid = ct->xstate_size >= FXSAVE_SIZE;
    put_note(b, NOTE_NAME, NT_PRSTATUS, &s, sizeof(s));
}

static void put_fp(struct core_buf *b, const struct core_thread *ct)
{
    if (ct->xstate_size < FXSAVE_SIZE)
        return;
    put_note(b, NOTE_NAME, NT_FPREGSET, ct->xstate, FXSAVE_SIZE);
    if (ct->xstate_size > FXSAVE_SIZE)
        put_note(b, NOTE_LINUX, NT_X86_XSTATE, ct->xstate, ct->xstate_size);
}

static void put_process(struct core_buf *b, const struct coredump *c)
{
    struct mm_layout *l = mm_layout(c->t->ua.mm);
    struct lx_prpsinfo p;
    struct task_info info;

    memset(&p, 0, sizeof(p));
    task_info(c->t, &info);
    p.sname = 'R';
    p.nice = (char)info.nice;
    p.uid = c->t->cred->uid;
    p.gid = c->t->cred->gid;
    p.pid = info.tgid;
    p.ppid = info.ppid;
    p.pgrp = info.pgrp;
    p.sid = info.session;
    memcpy(p.fname, info.comm, sizeof(p.fname));
    mm_lock_layout(c->t->ua.mm);
    const uint64_t start = l->arg_start, end = l->arg_end;
    mm_unlock_layout(c->t->ua.mm);
    const size_t n = (size_t)MIN(end > start ? end - start : 0, sizeof(p.args) - 1);
    (void)copyin_partial(&c->t->ua, p.args, uaddr(start), n);
    for (size_t i = 0; i < n; i++)
        p.args[i] = p.args[i] == '\0' ? ' ' : p.args[i];
    put_note(b, NOTE_NAME, NT_PRPSINFO, &p, sizeof(p));
}

static void put_auxv(struct core_buf *b, const struct coredump *c)
{
    struct mm_layout *l = mm_layout(c->t->ua.mm);
    uint64_t words[MM_AUXV_WORDS];

    mm_lock_layout(c->t->ua.mm);
    const size_t n = MIN(l->auxv_words, (uint32_t)MM_AUXV_WORDS);
    memcpy(words, l->auxv, sizeof(words));
    mm_unlock_layout(c->t->ua.mm);
    put_note(b, NOTE_NAME, NT_AUXV, words, n * sizeof(words[0]));
}

/* NT_FILE: count, page size, ranges with their page offsets, then the names. */
static void put_files(struct core_buf *b, const struct coredump *c, struct mm_vma_info *v)
{
    struct core_buf ranges = {0}, names = {0}, all = {0};
    uint64_t count = 0;

    for (uint64_t at = 0; count < FILES_MAX && mm_vma_next(c->t->ua.mm, at, v) == 0; at = v->end) {
        if (v->ino == 0 || v->path[0] != '/')
            continue;
        const uint64_t row[3] = {v->start, v->end, v->off >> PAGE_SHIFT};
        core_put(&ranges, row, sizeof(row));
        core_put(&names, v->path, strlen(v->path) + 1);
        count++;
    }
    const uint64_t head[2] = {count, PAGE_SIZE};
    core_put(&all, head, sizeof(head));
    core_put(&all, ranges.data, ranges.size);
    core_put(&all, names.data, names.size);
    if (ranges.failed || names.failed || all.failed)
        b->failed = true;
    else
        put_note(b, NOTE_NAME, LX_NT_FILE, all.data, all.size);
    free(ranges.data);
    free(names.data);
    free(all.data);
}

void core_notes(struct coredump *c, struct core_buf *b)
{
    struct core_thread *ct = list_first_entry(&c->threads, struct core_thread, node);
    struct mm_vma_info *v = malloc(sizeof(*v));

    if (!v) {
        b->failed = true;
        return;
    }
    put_status(b, c, ct);
    put_process(b, c);
    put_note(b, NOTE_NAME, LX_NT_SIGINFO, &c->info, sizeof(c->info));
    put_auxv(b, c);
    put_files(b, c, v);
    put_fp(b, ct);
    list_for_each_entry (ct, &c->threads, node) {
        if (ct->t == c->t)
            continue;
        put_status(b, c, ct);
        put_fp(b, ct);
    }
    free(v);
}
