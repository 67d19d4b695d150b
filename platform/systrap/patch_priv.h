/* System call sites of programs that are called often, changed to hand over without a signal.
 * Depends on: stub.h, base.
 * Threading: said per function.
 * Ownership: a patch_set belongs to the address spaces that use it, a forked family; sites and the
 * pages in its file live as long as it does. */
#ifndef RINGWALL_PLATFORM_SYSTRAP_PATCH_PRIV_H
#define RINGWALL_PLATFORM_SYSTRAP_PATCH_PRIV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/ref.h"
#include "platform/systrap/stub.h"

/* Bytes of a site that are replaced, of its code behind the table, and how many there can be. */
#define PATCH_SIZE 7u
#define PATCH_SLOT 160u
#define PATCH_SITES_MAX 4096u
#define PATCH_MOVES_MAX 3u

struct st_as;
struct st_plat;
struct st_ctx;
struct stub_change;
struct plat_fault;

/* A site as it is in a program. Offsets are from its first byte. */
struct patch_shape {
    bool loads;          /* mov $nr,%eax before the call is part of it */
    uint32_t nr;         /* loads: the number */
    unsigned size;       /* bytes that its code takes the place of */
    unsigned call_end;   /* behind the system call instruction */
    unsigned move_count; /* instructions behind it that are moved as well */
    unsigned moves[PATCH_MOVES_MAX];
};

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
/* Looks at the system call instruction at off of the size bytes of code, called with number nr.
 * False: it is left alone. *out_start: where its site begins. */
bool patch_recognise(const uint8_t *code, size_t size, size_t off, uint64_t nr, size_t *out_start,
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

/* ---- patch.c: what is patched in an address space; st_as.mu held unless said ---- */
struct patch_set;

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

struct st_patch {
    struct patch_set *set; /* reference owned; NULL: nothing was patched yet */
    struct patch_text *texts;
    struct patch_page *pages;
    size_t text_count, text_room, page_count, page_room;
    _Atomic bool on;      /* threads may be found by their FS base */
    _Atomic bool never;   /* nothing is patched any more */
    _Atomic uint32_t gen; /* counts pages that were taken away */
};

void st_patch_fini(struct st_as *as);
/* A change that is about to be queued: the patched pages of its range go. is_text: it maps code of
 * a file, privately. -ENOMEM: it must not be queued, and may be asked for again. */
MUST_CHECK int st_patch_cut(struct st_as *as, const struct stub_change *change, bool is_text);
/* as begins as a copy of from. -ENOMEM. */
MUST_CHECK int st_patch_fork(struct st_as *from, struct st_as *as);
/* Patches the site whose system call instruction ends at rip. False: it is left as it is. Takes the
 * lock. */
bool st_patch_site(struct st_as *as, uint64_t rip, uint64_t nr);
/* Takes every patched page away, for good. Takes the lock. */
void st_patch_stop(struct st_as *as);
/* The program wants to see the patched page at addr as it was: it gets it, for good. False: there
 * is none. Takes the lock. */
bool st_patch_restore(struct st_as *as, uint64_t addr);
/* The site in whose code addr is. NULL: none. Any thread. */
const struct patch_site *st_patch_find_code(const struct patch_set *s, uint64_t addr,
                                            unsigned *out_off);
/* The patched site with addr among its bytes, how far in, and where its code is. Takes the lock. */
const struct patch_site *st_patch_find_site(struct st_as *as, uint64_t addr, unsigned *out_off,
                                            uint64_t *out_code);

/* ---- patch_run.c: the owner of the context ---- */
/* Before and after a turn: guest code is found by its FS base in between. */
void st_patch_enter(struct st_ctx *c);
void st_patch_leave(struct st_ctx *c);
/* c leaves its address space. st_as.mu held. */
void st_patch_forget_locked(struct st_ctx *c);
/* Where guest code that is to go on at rip is entered. */
uint64_t st_patch_entry(const struct st_ctx *c, uint64_t rip);
/* A call was made with a signal: its site is patched when it has been seen often. rip and rcx are
 * put right when it came from the code of one. */
void st_patch_called(struct st_ctx *c);
/* Registers of a call made without a signal. False: what the stub says cannot be. */
bool st_patch_take(struct st_ctx *c);
/* c was stopped: rip is where the program thinks it is. True: that is inside the code of a site. */
bool st_patch_put_right(struct st_ctx *c);
/* As in struct plat_ctx_ops. */
struct plat_ctx;
struct plat_answer;
void st_answers(struct plat_ctx *base, const struct plat_answer *answers, size_t count);
void st_drop_answers(struct plat_ctx *base);
enum patch_fault {
    PATCH_FAULT_GUEST, /* has nothing to do with patches */
    PATCH_FAULT_AGAIN, /* guest code is to be entered again */
    PATCH_FAULT_CALL,  /* it is a system call */
};
enum patch_fault st_patch_fault(struct st_ctx *c, const struct plat_fault *f);

#endif
