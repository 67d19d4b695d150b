/* What is known about code around system calls. Whoever knows is the decoder, another process: it
 * is asked without waiting, and what it has said is kept by the bytes it was asked about, for all
 * programs that have the same. It is trusted with nothing: what it says is checked, and when it
 * says what cannot be, or nothing any more, no question is put to it again. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "platform/patch/patch.h"

struct memory_entry {
    struct patch_question about; /* its id is 0 once it is answered */
    bool fits;
    unsigned back;
    struct patch_shape shape;
};

struct patch_memory {
    uint64_t serial;                  /* of the last question */
    uint32_t next;                    /* the place that is used next */
    uint64_t hashes[PATCH_KNOWN_MAX]; /* of entries */
    struct memory_entry *entries[PATCH_KNOWN_MAX];
};

int patch_decoder_open(struct patch_decoder *d, int fd)
{
    if (fd < 0)
        return 0;
    d->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return d->fd < 0 ? -errno : 0;
}

void patch_decoder_close(struct patch_decoder *d)
{
    if (d->fd >= 0)
        (void)close(d->fd);
    d->fd = -1;
    for (size_t i = 0; d->memory != NULL && i < PATCH_KNOWN_MAX; i++)
        free(d->memory->entries[i]);
    free(d->memory);
    d->memory = NULL;
}

/* What was learned stays. */
static void decoder_drop(struct patch_decoder *d, const char *why)
{
    if (!d->told)
        log_warn("patch: %s: system calls in code that is not known yet go on with traps", why);
    d->told = true;
    if (d->fd >= 0)
        (void)close(d->fd);
    d->fd = -1;
    d->asked = 0;
}

/* ---- answers ---- */

static struct memory_entry *memory_asked(struct patch_memory *m, uint64_t id)
{
    struct memory_entry *e = m->entries[id % PATCH_KNOWN_MAX];

    return id != 0 && e != NULL && e->about.id == id ? e : NULL;
}

/* False: it cannot be. */
static bool decoder_learn(struct patch_decoder *d, const struct patch_answer *a)
{
    struct memory_entry *e = memory_asked(d->memory, a->id);

    if (e == NULL ||
        (a->found != 0 && !patch_check(e->about.code, e->about.size, e->about.off, a, &e->shape)))
        return false;
    e->fits = a->found != 0;
    e->back = a->back;
    e->about.id = 0;
    d->asked--;
    return true;
}

static void decoder_listen(struct patch_decoder *d)
{
    struct patch_answer a;

    while (d->asked > 0) {
        const ssize_t n = recv(d->fd, &a, sizeof(a), MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0)
            decoder_drop(d, "the decoder is gone");
        else if (n != (ssize_t)sizeof(a) || !decoder_learn(d, &a))
            decoder_drop(d, "the decoder talks nonsense");
    }
}

/* ---- questions ---- */

/* The same bytes give the same question, but for its id. */
static void question_fill(struct patch_question *q, const uint8_t *page, size_t off)
{
    const size_t start = off - MIN(off, (size_t)PATCH_REACH),
                 end = MIN(off + PATCH_CALL_SIZE + PATCH_REACH, (size_t)PAGE_SIZE);

    memset(q, 0, sizeof(*q));
    q->size = (uint32_t)(end - start);
    q->off = (uint32_t)(off - start);
    memcpy(q->code, page + start, q->size);
}

static bool question_same(const struct patch_question *a, const struct patch_question *b)
{
    return a->size == b->size && a->off == b->off && memcmp(a->code, b->code, a->size) == 0;
}

static struct memory_entry *memory_find(const struct patch_memory *m, uint64_t hash,
                                        const struct patch_question *q)
{
    for (size_t i = 0; i < PATCH_KNOWN_MAX; i++)
        if (m->hashes[i] == hash && m->entries[i] != NULL &&
            question_same(&m->entries[i]->about, q))
            return m->entries[i];
    return NULL;
}

/* A place for one more, the oldest first. NULL: no memory. */
static struct memory_entry *memory_place(struct patch_memory *m, uint32_t *out_i)
{
    struct memory_entry **e;

    /* Fewer are asked about than there are. */
    do {
        *out_i = m->next;
        m->next = (m->next + 1) % PATCH_KNOWN_MAX;
        e = &m->entries[*out_i];
    } while (*e != NULL && (*e)->about.id != 0);
    if (*e == NULL)
        *e = calloc(1, sizeof(**e));
    return *e;
}

static enum patch_known decoder_ask(struct patch_decoder *d, struct patch_question *q,
                                    uint64_t hash)
{
    struct patch_memory *m = d->memory;
    uint32_t i;

    if (d->asked >= PATCH_ASKED_MAX)
        return PATCH_ASKED;
    struct memory_entry *e = memory_place(m, &i);
    if (e == NULL)
        return PATCH_UNFIT;
    /* Until it is all there, it is about nothing. */
    memset(e, 0, sizeof(*e));
    q->id = ++m->serial * PATCH_KNOWN_MAX + i;
    const ssize_t n = send(d->fd, q, sizeof(*q), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return PATCH_ASKED;
    if (n != (ssize_t)sizeof(*q)) {
        decoder_drop(d, "the decoder is gone");
        return PATCH_UNFIT;
    }
    e->about = *q;
    m->hashes[i] = hash;
    d->asked++;
    return PATCH_ASKED;
}

static enum patch_known decoder_look(struct patch_decoder *d, struct patch_question *q,
                                     const struct memory_entry **out)
{
    if (d->memory == NULL && d->fd >= 0)
        d->memory = calloc(1, sizeof(*d->memory));
    if (d->fd >= 0 && d->memory != NULL)
        decoder_listen(d);
    const uint64_t hash = hash_seeded(q->code, q->size);
    const struct memory_entry *e = d->memory != NULL ? memory_find(d->memory, hash, q) : NULL;
    if (e != NULL && e->about.id == 0) {
        *out = e;
        return e->fits ? PATCH_FITS : PATCH_UNFIT;
    }
    if (d->fd < 0 || d->memory == NULL) {
        decoder_drop(d, "there is no decoder");
        return PATCH_UNFIT;
    }
    return e != NULL ? PATCH_ASKED : decoder_ask(d, q, hash);
}

enum patch_known patch_look(struct patch_decoder *d, const uint8_t page[PAGE_SIZE], size_t off,
                            size_t *out_start, struct patch_shape *out)
{
    const struct memory_entry *e = NULL;
    struct patch_question q;

    if (off > PAGE_SIZE - PATCH_CALL_SIZE)
        return PATCH_UNFIT;
    question_fill(&q, page, off);
    mutex_lock(&d->mu);
    const enum patch_known known = decoder_look(d, &q, &e);
    if (known == PATCH_FITS) {
        *out_start = off - e->back;
        *out = e->shape;
    }
    mutex_unlock(&d->mu);
    return known;
}
