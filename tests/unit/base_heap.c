/* Counting the heap. The tests are not linked with the wrappers, so that every figure is theirs. */
#include <criterion/criterion.h>
#include <pthread.h>

#include "base/heap.h"

#define KIB 1024

Test(base_heap, marks)
{
    heap_set_marks(1000 * KIB, 2000 * KIB);
    cr_assert(!heap_pressed());
    heap_add(900 * KIB);
    cr_assert(!heap_pressed());
    cr_assert_eq(heap_used(), 900 * KIB);
    cr_assert(heap_admits(1100 * KIB));
    cr_assert(!heap_admits(1101 * KIB));
    heap_add(200 * KIB);
    cr_assert(heap_pressed());
    heap_add(-800 * KIB);
    cr_assert(heap_pressed(), "till somebody has looked");
    heap_set_marks(1000 * KIB, 2000 * KIB);
    cr_assert(!heap_pressed());
    heap_set_marks(100 * KIB, 100 * KIB);
    cr_assert(heap_pressed());
    cr_assert(!heap_admits(1));
    heap_exempt(true);
    cr_assert(heap_admits(1));
    heap_exempt(false);
    cr_assert(!heap_admits(1));
    heap_set_marks(HEAP_NO_LIMIT, HEAP_NO_LIMIT);
    cr_assert(!heap_pressed());
    cr_assert(heap_admits(UINT64_MAX));
}

Test(base_heap, what_a_thread_has_changed)
{
    (void)heap_taken();
    heap_add(100);
    heap_add(-30);
    cr_assert_eq(heap_taken(), 70);
    cr_assert_eq(heap_taken(), 0);
}

static void *adder(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20000; i++)
        heap_add(100);
    return NULL;
}

static void *remover(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20000; i++)
        heap_add(-100);
    return NULL;
}

static void run(void *(*fn)(void *))
{
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, fn, NULL), 0);
    for (int i = 0; i < 4; i++)
        (void)pthread_join(threads[i], NULL);
}

/* Others free than made it, and who made it is gone. */
Test(base_heap, nothing_is_lost_with_threads)
{
    for (int i = 0; i < 20; i++) {
        run(adder);
        cr_assert_geq(heap_used(), 7 * 1000 * 1000);
        run(remover);
    }
    cr_assert_leq(heap_used(), 32 * 16 * KIB);
}
