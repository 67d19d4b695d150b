/* What the sentry asks a decoder, and what it makes of one that is slow, gone or lies. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "platform/patch/patch.h"

#define CALL 1000u

struct asker {
    struct patch_decoder d;
    int fd; /* the decoder's end */
    uint8_t page[PAGE_SIZE];
    size_t start;
    struct patch_shape shape;
};

/* The page has a call every 256 bytes from CALL on, each in code of its own. */
static void asker_start(struct asker *a)
{
    int pair[2];

    memset(a, 0, sizeof(*a));
    a->d.fd = -1;
    mutex_init(&a->d.mu, LOCK_RANK_LEAF);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert_eq(patch_decoder_open(&a->d, pair[0]), 0);
    close(pair[0]);
    a->fd = pair[1];
    for (size_t i = 0; i < PAGE_SIZE; i++)
        a->page[i] = (uint8_t)(i >> 8);
    for (size_t at = CALL; at + 8 < PAGE_SIZE; at += 256)
        memcpy(a->page + at, "\x0f\x05\x48\x3d\x01\xf0\xff\xff", 8);
}

static void asker_end(struct asker *a)
{
    patch_decoder_close(&a->d);
    mutex_destroy(&a->d.mu);
    close(a->fd);
}

static enum patch_known look(struct asker *a, size_t off)
{
    return patch_look(&a->d, a->page, off, &a->start, &a->shape);
}

static struct patch_question asked(struct asker *a)
{
    struct patch_question q;

    cr_assert_eq(recv(a->fd, &q, sizeof(q), MSG_DONTWAIT), (ssize_t)sizeof(q));
    return q;
}

static bool is_asked(struct asker *a)
{
    char byte;

    return recv(a->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 1;
}

static struct patch_answer truth(uint64_t id)
{
    return (struct patch_answer){
        .id = id, .found = 1, .size = 8, .call_end = 2, .move_count = 1, .moves = {2}};
}

static void say(struct asker *a, const void *what, size_t size)
{
    cr_assert_eq(send(a->fd, what, size, MSG_NOSIGNAL), (ssize_t)size);
}

Test(patch_ask, asked_once)
{
    struct asker a;

    asker_start(&a);
    cr_assert_eq(look(&a, CALL), PATCH_ASKED);
    cr_assert_eq(look(&a, CALL), PATCH_ASKED);
    const struct patch_question q = asked(&a);
    cr_assert(!is_asked(&a));
    cr_assert(q.size == PATCH_WINDOW && q.off == PATCH_REACH);
    cr_assert_eq(memcmp(q.code, a.page + CALL - PATCH_REACH, PATCH_WINDOW), 0);
    const struct patch_answer t = truth(q.id);
    say(&a, &t, sizeof(t));
    cr_assert_eq(look(&a, CALL), PATCH_FITS);
    cr_assert(a.start == CALL && a.shape.size == 8 && a.shape.moves[0] == 2);
    /* The same bytes elsewhere, and other bytes. */
    memmove(a.page + 2000 - PATCH_REACH, a.page + CALL - PATCH_REACH, PATCH_WINDOW);
    cr_assert_eq(look(&a, 2000), PATCH_FITS);
    cr_assert_eq(a.start, 2000);
    cr_assert(!is_asked(&a));
    a.page[CALL + PATCH_REACH + 1] ^= 1;
    cr_assert_eq(look(&a, CALL), PATCH_ASKED);
    struct patch_answer no = {.id = asked(&a).id};
    say(&a, &no, sizeof(no));
    cr_assert_eq(look(&a, CALL), PATCH_UNFIT);
    cr_assert_eq(look(&a, CALL), PATCH_UNFIT);
    cr_assert(!is_asked(&a));
    asker_end(&a);
}

Test(patch_ask, ends_of_a_page)
{
    struct asker a;

    asker_start(&a);
    cr_assert_eq(look(&a, 3), PATCH_ASKED);
    struct patch_question q = asked(&a);
    cr_assert(q.off == 3 && q.size == 3 + PATCH_CALL_SIZE + PATCH_REACH);
    cr_assert_eq(look(&a, PAGE_SIZE - PATCH_CALL_SIZE), PATCH_ASKED);
    q = asked(&a);
    cr_assert(q.off == PATCH_REACH && q.size == PATCH_REACH + PATCH_CALL_SIZE);
    cr_assert_eq(look(&a, PAGE_SIZE - 1), PATCH_UNFIT);
    cr_assert(!is_asked(&a));
    asker_end(&a);
}

/* One that does not answer is asked no more than so much, and nobody waits. */
Test(patch_ask, slow)
{
    struct asker a;
    unsigned count = 0;

    asker_start(&a);
    for (uint8_t i = 0; i < 4 * PATCH_ASKED_MAX; i++) {
        a.page[CALL - 1] = i;
        cr_assert_eq(look(&a, CALL), PATCH_ASKED);
    }
    struct patch_question first = asked(&a);
    for (count = 1; is_asked(&a); count++)
        (void)asked(&a);
    cr_assert_eq(count, PATCH_ASKED_MAX);
    /* An answer makes room. */
    const struct patch_answer t = truth(first.id);
    say(&a, &t, sizeof(t));
    cr_assert_eq(look(&a, CALL), PATCH_ASKED);
    cr_assert(is_asked(&a));
    asker_end(&a);
}

/* What is known stays known when more comes than is remembered, but for the oldest. */
Test(patch_ask, much)
{
    struct asker a;

    asker_start(&a);
    for (unsigned i = 0; i < 3 * PATCH_KNOWN_MAX; i++) {
        memcpy(a.page + CALL - 8, &i, sizeof(i));
        cr_assert_eq(look(&a, CALL), PATCH_ASKED);
        const struct patch_answer t = truth(asked(&a).id);
        say(&a, &t, sizeof(t));
        cr_assert_eq(look(&a, CALL), PATCH_FITS);
    }
    for (unsigned i = 2 * PATCH_KNOWN_MAX; i < 3 * PATCH_KNOWN_MAX; i++) {
        memcpy(a.page + CALL - 8, &i, sizeof(i));
        cr_assert_eq(look(&a, CALL), PATCH_FITS);
    }
    cr_assert(!is_asked(&a));
    asker_end(&a);
}

Test(patch_ask, gone)
{
    struct asker a;

    asker_start(&a);
    cr_assert_eq(look(&a, CALL), PATCH_ASKED);
    const struct patch_answer t = truth(asked(&a).id);
    say(&a, &t, sizeof(t));
    cr_assert_eq(look(&a, CALL + 256), PATCH_ASKED);
    cr_assert_eq(shutdown(a.fd, SHUT_RDWR), 0);
    cr_assert_eq(look(&a, CALL + 256), PATCH_UNFIT);
    cr_assert_eq(look(&a, CALL + 512), PATCH_UNFIT);
    cr_assert_eq(a.d.fd, -1);
    /* Read before the end was. */
    cr_assert_eq(look(&a, CALL), PATCH_FITS);
    asker_end(&a);

    asker_start(&a);
    cr_assert_eq(shutdown(a.fd, SHUT_RDWR), 0);
    cr_assert_eq(look(&a, CALL), PATCH_UNFIT);
    asker_end(&a);
}

Test(patch_ask, none)
{
    struct asker a;

    asker_start(&a);
    patch_decoder_close(&a.d);
    cr_assert_eq(patch_decoder_open(&a.d, -1), 0);
    cr_assert_eq(look(&a, CALL), PATCH_UNFIT);
    asker_end(&a);
}

/* After one word that cannot be true nothing more is believed. */
static void lie(const void *what, size_t size)
{
    struct asker a;

    asker_start(&a);
    cr_assert_eq(look(&a, CALL), PATCH_ASKED);
    const struct patch_answer t = truth(asked(&a).id);
    if (size == sizeof(t)) {
        struct patch_answer l;
        memcpy(&l, what, size);
        l.id += t.id;
        say(&a, &l, size);
    } else {
        say(&a, what, size);
    }
    say(&a, &t, sizeof(t));
    cr_assert_eq(look(&a, CALL), PATCH_UNFIT);
    cr_assert_eq(a.d.fd, -1);
    asker_end(&a);
}

Test(patch_ask, lies)
{
    static const char longer[64] = {0};
    struct patch_answer t = truth(0);

    lie("", 1);
    lie(longer, sizeof(longer));
    t.id = 1;
    lie(&t, sizeof(t));
    t = truth((uint64_t)-1);
    lie(&t, sizeof(t));
    t = truth(0);
    t.found = 2;
    lie(&t, sizeof(t));
    t = truth(0);
    t.moves[0] = 3;
    lie(&t, sizeof(t));
    t = truth(0);
    t.back = 1;
    lie(&t, sizeof(t));
    t = truth(0);
    t.size = 2;
    lie(&t, sizeof(t));
    t = truth(0);
    t.size = 255;
    lie(&t, sizeof(t));
    t = truth(0);
    t.move_count = 9;
    lie(&t, sizeof(t));
    t = truth(0);
    t.loads = 1;
    lie(&t, sizeof(t));
}

/* The same answer twice is one too many. */
Test(patch_ask, twice)
{
    struct asker a;

    asker_start(&a);
    cr_assert_eq(look(&a, CALL), PATCH_ASKED);
    cr_assert_eq(look(&a, CALL + 256), PATCH_ASKED);
    const struct patch_answer t = truth(asked(&a).id);
    say(&a, &t, sizeof(t));
    say(&a, &t, sizeof(t));
    cr_assert_eq(look(&a, CALL), PATCH_FITS);
    cr_assert_eq(a.d.fd, -1);
    asker_end(&a);
}
