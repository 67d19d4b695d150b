/* Hostile code around a system call: the decoder looks at it, and all that it finds is believed by
 * the sentry and fits the place for a site's code. */
#include <stdlib.h>
#include <string.h>

#include "platform/patch/decoder/decoder.h"
#include "platform/patch/patch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_found(const struct patch_question *q, const struct patch_answer *a)
{
    struct patch_shape shape;
    struct patch_code code;
    uint8_t out[PATCH_SLOT];

    if (!patch_check(q->code, q->size, q->off, a, &shape))
        abort();
    patch_emit(&shape, PAGE_SIZE, q->code + q->off - a->back, PAGE_SIZE, out, &code);
    if (code.size > sizeof(out))
        abort();
}

/* The first byte says where the call is. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct decoder d;
    struct patch_question q = {.id = 1};
    struct patch_answer a;

    if (d.insn == NULL && !decoder_open(&d))
        abort();
    if (size < 2)
        return 0;
    q.size = (uint32_t)MIN(size - 1, (size_t)PATCH_WINDOW);
    q.off = data[0];
    memcpy(q.code, data + 1, q.size);
    if (q.off + PATCH_CALL_SIZE <= q.size)
        memcpy(q.code + q.off, "\x0f\x05", PATCH_CALL_SIZE);
    decoder_decode(&d, &q, &a);
    if (a.id != q.id || a.found > 1)
        abort();
    if (a.found)
        check_found(&q, &a);
    return 0;
}
