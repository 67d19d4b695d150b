/* What is on its way: a list in sequence order, and the sums that follow from its marks. */
#include <stdlib.h>

#include "sentry/net/tcp/tcp_priv.h"

static uint32_t size_of(const struct tce_chunk *ch)
{
    return ch->end - ch->seq;
}

/* Takes ch out of the sum it counts in. */
static void uncount(struct tce_conn *c, const struct tce_chunk *ch)
{
    if (ch->sacked)
        c->sacked_bytes -= size_of(ch);
    else if (ch->lost)
        c->lost_bytes -= size_of(ch);
    else
        c->in_flight -= size_of(ch);
}

struct tce_chunk *tce_chunk_add(struct tce_conn *c, uint32_t seq, uint32_t end, uint64_t now)
{
    struct tce_chunk *ch = calloc(1, sizeof(*ch));

    if (!ch)
        return NULL;
    ch->seq = seq;
    ch->end = end;
    ch->sent_ns = now;
    ch->delivered = c->delivered;
    list_add_tail(&ch->node, &c->sent);
    c->chunk_count++;
    c->in_flight += size_of(ch);
    return ch;
}

bool tce_chunk_split(struct tce_conn *c, struct tce_chunk *ch, uint32_t seq)
{
    struct tce_chunk *rest = malloc(sizeof(*rest));

    if (!rest)
        return false;
    *rest = *ch;
    rest->seq = seq;
    ch->end = seq;
    list_add(&rest->node, &ch->node);
    c->chunk_count++;
    return true;
}

void tce_chunk_free(struct tce_conn *c, struct tce_chunk *ch)
{
    uncount(c, ch);
    list_del(&ch->node);
    c->chunk_count--;
    free(ch);
}

void tce_chunk_mark_lost(struct tce_conn *c, struct tce_chunk *ch)
{
    if (ch->lost || ch->sacked)
        return;
    uncount(c, ch);
    ch->lost = true;
    c->lost_bytes += size_of(ch);
}

void tce_chunk_mark_sacked(struct tce_conn *c, struct tce_chunk *ch)
{
    uncount(c, ch);
    ch->sacked = true;
    ch->lost = false;
    c->sacked_bytes += size_of(ch);
}

void tce_chunk_mark_resent(struct tce_conn *c, struct tce_chunk *ch, uint64_t now)
{
    uncount(c, ch);
    ch->lost = false;
    ch->resent = true;
    ch->sent_ns = now;
    ch->delivered = c->delivered;
    if (ch->sacked)
        c->sacked_bytes += size_of(ch);
    else
        c->in_flight += size_of(ch);
}

void tce_chunks_all_lost(struct tce_conn *c)
{
    struct tce_chunk *ch;

    list_for_each_entry (ch, &c->sent, node) {
        tce_chunk_mark_lost(c, ch);
    }
}
