/* System call sites of programs that are called often, changed to hand over without a trap.
 * Depends on: abi.h, shape.h, platform/stub, base.
 * Threading: said per function.
 * Ownership: a patch_set belongs to the address spaces that use it, a forked family; sites and the
 * pages in its file live as long as it does. */
#ifndef RINGWALL_PLATFORM_PATCH_PATCH_H
#define RINGWALL_PLATFORM_PATCH_PATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/idalloc.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/ref.h"
#include "platform/patch/abi.h"
#include "platform/patch/shape.h"
#include "platform/regs.h"
#include "platform/stub/queue.h"

/* Bytes of a site's code behind the table, and how many sites there can be. */
#define PATCH_SLOT 160u
#define PATCH_SITES_MAX 4096u

struct plat_fault;

/* The code of a site. Offsets are from its first byte. */
struct patch_code {
    unsigned size;
    unsigned trap_end; /* behind the call that is made when the thread cannot be told */
    unsigned answered; /* the call is done */
    unsigned after;    /* what was moved */
};

struct patch_site {
    uint64_t start; /* in the program */
    struct patch_shape shape;
    struct patch_code code;
};

/* ---- patch_site.c: any thread ---- */
/* Whether a may be the decoder's word about the call at off of the size bytes of code: whatever it
 * says, the site's code is made of bytes of the program alone, and fits. */
bool patch_check(const uint8_t *code, size_t size, size_t off, const struct patch_answer *a,
                 struct patch_shape *out);
/* Writes the code of a site at start, whose bytes are text. areas: the table of areas by FS base.
 * At most PATCH_SLOT bytes. */
void patch_emit(const struct patch_shape *shape, uint64_t start, const uint8_t *text,
                uint64_t areas, uint8_t *out, struct patch_code *out_code);
/* What the site becomes when its code is reached through entry index of the table. */
void patch_jump(uint32_t index, uint8_t out[PATCH_SIZE]);
/* Slot of the table of areas. */
uint32_t patch_area_hash(uint64_t fs_base);
/* The processor has what the code of sites needs. */
bool patch_supported(void);

/* ---- patch_ask.c: what is known about code, by its bytes; any thread ---- */
/* Questions that wait for an answer, and how much code is remembered. */
#define PATCH_ASKED_MAX 16u
#define PATCH_KNOWN_MAX 512u

enum patch_known {
    PATCH_UNFIT, /* not a site, or nobody can tell */
    PATCH_ASKED, /* look again later */
    PATCH_FITS,
};

struct patch_memory;

struct patch_decoder {
    struct mutex mu;             /* rank LEAF */
    int fd;                      /* connection to the decoder; -1: there is none, or no more */
    bool told;                   /* the log says so */
    unsigned asked;              /* without an answer yet */
    struct patch_memory *memory; /* NULL: nothing was asked yet */
};

/* fd is borrowed; -1: there is no decoder. -errno. */
MUST_CHECK int patch_decoder_open(struct patch_decoder *d, int fd);
/* d is all zero, or was opened, or that failed. */
void patch_decoder_close(struct patch_decoder *d);
/* What the system call instruction at off of a page is part of: from memory, or by asking, which
 * does not wait for the answer. FITS: *out_start is where the site begins. */
enum patch_known patch_look(struct patch_decoder *d, const uint8_t page[PAGE_SIZE], size_t off,
                            size_t *out_start, struct patch_shape *out);

/* ---- patch.c: what is patched in an address space; its lock held unless said ---- */
struct patch_set;
struct patch_as;

/* Of the file of patches: table and code as address spaces map them, then copies of pages. */
#define PATCH_MAPPED ((size_t)(PATCH_END - PATCH_TABLE))
#define PATCH_COPIES 256u
#define PATCH_SLICE (PATCH_MAPPED + (size_t)PATCH_COPIES * PAGE_SIZE)

/* Code of a privately mapped file that is not written. */
struct patch_text {
    uint64_t start, end, off;
    int fd, prot;
};

/* A page with patched sites, and what it covers. */
struct patch_page {
    uint64_t addr, off; /* off: in the file behind it */
    int fd, prot;
    const uint8_t *copy; /* as the sentry sees it */
};

/* What a platform does in its address spaces; the lock is held. */
struct patch_ops {
    /* Has what was asked for so far be mapped. The first failure; -ESRCH: nobody runs there. */
    MUST_CHECK int (*settle)(struct patch_as *pa);
    /* Shows the page at off of the file of patches at addr; the first time, before that, the
     * PATCH_MAPPED bytes at slice at PATCH_TABLE. Done when it returns. False: who knows what is
     * there. */
    bool (*show)(struct patch_as *pa, bool first, uint64_t addr, uint64_t slice, uint64_t off);
    /* Asks for what a page covers, with prot. -ENOMEM. */
    MUST_CHECK int (*restore)(struct patch_as *pa, const struct patch_page *page, int prot);
};

struct patch_plat {
    const struct patch_ops *ops; /* NULL: nothing is patched */
    int fd;                      /* memory file: slices of sets; -1: none */
    uint64_t areas;              /* in guests: the table of areas */
    uint64_t nobody;             /* an area that is nobody's */
    uint64_t call;               /* the platform's code for calls from sites */
    struct patch_decoder decoder;
    struct mutex mu; /* rank LEAF: sets */
    struct idalloc sets;
};

/* Where calls with a trap were made, and how often: a guess, which threads change without a lock.
 */
#define PATCH_HOT_SETS 16u
#define PATCH_HOT_WAYS 4u
struct patch_hot {
    _Atomic uint64_t rip;
    _Atomic uint32_t count;
};

/* Part of an address space. */
struct patch_as {
    struct patch_plat *plat;
    struct mutex *mu;        /* the address space's; guards all but the atomic ones */
    _Atomic uint64_t *areas; /* the table of areas, as the sentry sees it */
    struct list ctxs;        /* patch_ctx.node */
    struct patch_set *set;   /* reference owned; NULL: nothing was patched yet */
    struct patch_text *texts;
    struct patch_page *pages;
    size_t text_count, text_room, page_count, page_room;
    _Atomic bool on;      /* there is, or was, something patched; set does not change any more */
    _Atomic bool never;   /* nothing is patched any more */
    _Atomic uint32_t gen; /* counts pages that were taken away */
    struct patch_hot hot[PATCH_HOT_SETS][PATCH_HOT_WAYS];
};

/* Nothing is patched, yet. */
void patch_plat_init(struct patch_plat *p);
/* From now on it is; areas, nobody and call are set before there is an address space. decoder_fd:
 * as plat_config.decoder_fd. -errno: still nothing. */
MUST_CHECK int patch_plat_open(struct patch_plat *p, const struct patch_ops *ops, int decoder_fd);
void patch_plat_fini(struct patch_plat *p);

/* pa is all zero; areas: PATCH_AREAS_COUNT words, or NULL where nothing is patched. */
void patch_as_init(struct patch_as *pa, struct patch_plat *p, struct mutex *mu,
                   _Atomic uint64_t *areas);
/* Nobody runs in it any more. No lock. */
void patch_as_fini(struct patch_as *pa);
/* A change that is about to be asked for: the patched pages of its range go. is_text: it maps code
 * of a file, privately. -ENOMEM: it must not be asked for now, but may be later. */
MUST_CHECK int patch_cut(struct patch_as *pa, const struct stub_change *change, bool is_text);
/* pa begins as a copy of from, whose lock is held. -ENOMEM. */
MUST_CHECK int patch_fork(struct patch_as *from, struct patch_as *pa);
enum patch_added {
    PATCH_LEFT,  /* it stays as it is */
    PATCH_LATER, /* nobody knows yet whether it can be */
    PATCH_DONE,
};
/* Patches the site whose system call instruction ends at rip. Takes the lock. */
enum patch_added patch_add_site(struct patch_as *pa, uint64_t rip, uint64_t nr);
/* Takes every patched page away, for good. Takes the lock. */
void patch_stop(struct patch_as *pa);
/* The program wants to see the patched page at addr as it was: it gets it, for good. False: there
 * is none. Takes the lock. */
bool patch_restore(struct patch_as *pa, uint64_t addr);
/* The site in whose code addr is. NULL: none. Any thread. */
const struct patch_site *patch_find_code(const struct patch_set *s, uint64_t addr,
                                         unsigned *out_off);
/* The patched site with addr among its bytes, how far in, and where its code is. Takes the lock. */
const struct patch_site *patch_find_site(struct patch_as *pa, uint64_t addr, unsigned *out_off,
                                         uint64_t *out_code);

/* ---- patch_run.c: part of a context; its owner, unless said ---- */
struct patch_ctx {
    struct patch_as *as;
    struct plat_regs *regs; /* as the program has them, but while it runs */
    struct list node;       /* in as->ctxs; guard: as->mu */
    /* Changed with as->mu held: the FS base that was looked up last, and the area it stood for. */
    uint64_t fs, area;
    bool known, found;        /* fs means something; guest code is found by it */
    _Atomic bool in_guest;    /* guest code may be running, or is about to */
    uint64_t back, back_code; /* who goes on at back is entered at back_code, if nothing was */
    uint32_t gen;             /* taken away since then: patch_as.gen */
};

/* d is all zero, or has left its address space. */
void patch_ctx_init(struct patch_ctx *d, struct patch_as *pa, struct plat_regs *regs);
/* d comes to its address space, before it runs there. The lock is held. */
void patch_join_locked(struct patch_ctx *d);
/* d starts where from is. */
void patch_ctx_inherit(struct patch_ctx *d, const struct patch_ctx *from);
/* d leaves its address space. The lock is held. */
void patch_forget_locked(struct patch_ctx *d);
/* Before guest code is entered with in_guest set: it is found by its FS base from now on. area: in
 * the guest; negfs: its word, in the sentry. 0 and NULL: it is to be found by nothing. */
void patch_enter(struct patch_ctx *d, uint64_t area, uint64_t *negfs);
/* Afterwards it is not. */
void patch_leave(uint64_t *negfs);
/* Where guest code that is to go on at rip is entered. */
uint64_t patch_entry(const struct patch_ctx *d, uint64_t rip);
/* A call was made, its registers are d's: its site is patched when it has been seen often. rip and
 * rcx are put right when it came from the code of one. True: it has just been patched. */
bool patch_called(struct patch_ctx *d);
/* A call was made without, and after is what its area says of it: rip and rcx are put right. False:
 * that cannot be. */
bool patch_answered(struct patch_ctx *d, uint64_t after);
/* Guest code was stopped: rip is where the program thinks it is. True: that is inside the code of a
 * site. */
bool patch_put_right(struct patch_ctx *d);
/* Guest code has faulted. True: that is to be told; *out_call: as a system call, whose registers
 * are set. False: patches brought it about, and guest code is to be entered again. */
bool patch_fault(struct patch_ctx *d, const struct plat_fault *f, bool *out_call);
/* Guest code is to be run step by step: the program itself is to be seen. */
static inline void patch_step(struct patch_ctx *d)
{
    if (atomic_load(&d->as->on) && !atomic_load(&d->as->never))
        patch_stop(d->as);
}

#endif
