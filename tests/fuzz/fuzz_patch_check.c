/* A hostile decoder: whatever it answers, what is believed is made of the program's bytes, and
 * fits. */
#include <stdlib.h>
#include <string.h>

#include "platform/patch/patch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An answer, where the call is, and the code. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct patch_answer a;
    struct patch_shape shape;
    struct patch_code code;
    uint8_t out[PATCH_SLOT];

    if (size < sizeof(a) + 1)
        return 0;
    memcpy(&a, data, sizeof(a));
    a.found = 1;
    const size_t off = data[sizeof(a)];
    const uint8_t *text = data + sizeof(a) + 1;
    size -= sizeof(a) + 1;
    if (!patch_check(text, size, off, &a, &shape))
        return 0;
    const size_t start = off - a.back;
    if (start > off || shape.size > size - start || shape.size < PATCH_SIZE ||
        shape.call_end > shape.size)
        abort();
    patch_emit(&shape, PAGE_SIZE, text + start, PAGE_SIZE, out, &code);
    if (code.size > sizeof(out) || code.after > code.size)
        abort();
    return 0;
}
