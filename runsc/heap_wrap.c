/* malloc and its family as runsc calls them, libc's own calls included: the linker sends all of
 * them here (--wrap), which a static program allows. Each block is counted by what it really takes.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

#include "base/heap.h"

/* Of the linker's making. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void __real_free(void *p);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void __wrap_free(void *p);

/* What a block costs beyond what it gives. */
#define BLOCK_HEAD 8

static int64_t block_size(void *p)
{
    return (int64_t)malloc_usable_size(p) + BLOCK_HEAD;
}

static void *counted(void *p)
{
    if (LIKELY(p != NULL))
        heap_add(block_size(p));
    return p;
}

static bool refused(size_t size)
{
    if (LIKELY(heap_admits(size)))
        return false;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return refused(size) ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t n, size_t size)
{
    size_t all;

    /* What overflows is refused by the real one. */
    if (!__builtin_mul_overflow(n, size, &all) && refused(all))
        return NULL;
    return counted(__real_calloc(n, size));
}

void *__wrap_realloc(void *p, size_t size)
{
    if (p == NULL)
        return __wrap_malloc(size);
    const int64_t before = block_size(p);
    if ((uint64_t)before < size && refused(size))
        return NULL;
    void *q = __real_realloc(p, size);
    if (q != NULL)
        heap_add(block_size(q) - before);
    else if (size == 0)
        heap_add(-before);
    return q;
}

void __wrap_free(void *p)
{
    if (p == NULL)
        return;
    heap_add(-block_size(p));
    __real_free(p);
}
