/* rt_sigaction(2) of signals whose action is the default, which the stub answers: posix_spawn(3)
 * makes 122 such calls. The tables are in the area, where the guest can write them: what it
 * deceives is itself. */
#include <sys/syscall.h>

#include "platform/systrap/systrap_priv.h"

/* So many such calls by a signal, and their site is patched. */
#define SIGACT_HOT 24u

static uint64_t *sigact_word(const struct st_ctx *c, size_t off)
{
    return (uint64_t *)(void *)((char *)c->shared + off);
}

/* The stub's thread is in our hands: it has given the turn back, or never had it. */
void st_sigactions_offer(struct plat_ctx *base, uint64_t zero, uint64_t plain)
{
    struct st_ctx *c = st_ctx(base);

    c->sigact_plain = plain;
    *sigact_word(c, ST_SIGACT_ZERO) = zero;
    *sigact_word(c, ST_SIGACT_PLAIN) = plain;
    *sigact_word(c, ST_SIGACT_DONE) = 0;
}

void st_sigactions_begin(struct st_ctx *c)
{
    c->shared->sigact_calls = 0;
    c->sigact_look = SIGACT_HOT;
    st_sigactions_offer(&c->base, 0, 0);
}

uint64_t st_sigactions_taken(struct plat_ctx *base, struct plat_sigaction set[64])
{
    struct st_ctx *c = st_ctx(base);
    const uint64_t done = *(volatile uint64_t *)sigact_word(c, ST_SIGACT_DONE) & c->sigact_plain;

    for (unsigned i = 0; i < 64; i++) {
        const volatile uint64_t *word = sigact_word(c, ST_SIGACT_SET + 16 * i);
        if (done >> i & 1)
            set[i] =
                (struct plat_sigaction){.restorer = word[0], .flags = word[1] & ST_SIGACT_RESTORER};
    }
    return done;
}

/* Calls that the stub answers are counted there, since they are not seen here. The guest may say
 * any place: it is one where it could have made the call. */
void st_sigactions_look(struct st_ctx *c)
{
    const volatile struct st_shared *s = c->shared;

    const uint32_t calls = s->sigact_calls;

    if (LIKELY(calls < c->sigact_look) || st_plat(c->base.plat)->patch.ops == NULL)
        return;
    c->sigact_look = UINT32_MAX;
    if (patch_add_site(&c->as->patch, s->sigact_rip, SYS_rt_sigaction) == PATCH_LATER)
        c->sigact_look = calls + SIGACT_HOT;
}
