/* Host threads of tasks that have ended wait a while for the next task: to make a thread and to end
 * it costs more than all the rest of a short task's life. Who starts a task takes one that waits on
 * its own CPU, since to wake another CPU costs as much again. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "sentry/kernel/task_priv.h"

/* Stacks are touched as deep as calls go; the rest is address space. */
#ifdef RINGWALL_SANITIZE
#define POOL_STACK_SIZE (2u << 20)
#else
#define POOL_STACK_SIZE (256u << 10)
#endif
/* How many wait, and for how long. */
#define POOL_IDLE_MAX 8u
#define POOL_PATIENCE_NS UINT64_C(1000000000)

/* On its own stack. */
struct pool_thread {
    struct list node; /* guard: pool.mu */
    struct blocker b;
    struct task *_Atomic next; /* set before it is woken; NULL: nothing comes any more */
    int cpu;                   /* where it fell asleep */
};

void task_pool_init(struct task_pool *p)
{
    mutex_init(&p->mu, LOCK_RANK_LEAF);
    list_init(&p->idle);
}

void task_pool_fini(struct task_pool *p)
{
    BUG_ON(!list_empty(&p->idle));
    mutex_destroy(&p->mu);
}

static struct pool_thread *pool_entry(struct list *node)
{
    return list_entry(node, struct pool_thread, node);
}

/* Woken under the lock: it may be on its way out, and then waits for that. */
static void pool_wake_locked(struct task_pool *p, struct pool_thread *w, struct task *t)
{
    list_del(&w->node);
    p->idle_count--;
    atomic_store_explicit(&w->next, t, memory_order_release);
    blocker_wake(&w->b);
}

void task_pool_close(struct task_pool *p)
{
    mutex_lock(&p->mu);
    p->closed = true;
    while (!list_empty(&p->idle))
        pool_wake_locked(p, pool_entry(p->idle.next), NULL);
    mutex_unlock(&p->mu);
}

static bool pool_take(struct task_pool *p, struct task *t)
{
    const int cpu = sched_getcpu();
    struct pool_thread *w;

    mutex_lock(&p->mu);
    list_for_each_entry (w, &p->idle, node) {
        if (w->cpu != cpu)
            continue;
        pool_wake_locked(p, w, t);
        mutex_unlock(&p->mu);
        return true;
    }
    mutex_unlock(&p->mu);
    return false;
}

/* The next task, or NULL when it is time to end. */
static struct task *pool_wait(struct task_pool *p)
{
    struct pool_thread w = {.cpu = sched_getcpu()};

    blocker_init(&w.b);
    mutex_lock(&p->mu);
    bool wait = !p->closed && p->idle_count < POOL_IDLE_MAX;
    if (wait) {
        list_add(&w.node, &p->idle);
        p->idle_count++;
    }
    mutex_unlock(&p->mu);
    if (!wait)
        return NULL;
    if (blocker_wait(&w.b, mono_now() + POOL_PATIENCE_NS) == 0)
        return atomic_load_explicit(&w.next, memory_order_acquire);
    mutex_lock(&p->mu);
    if (!list_empty(&w.node)) {
        list_del(&w.node);
        p->idle_count--;
    }
    mutex_unlock(&p->mu);
    return atomic_load_explicit(&w.next, memory_order_acquire);
}

/* What a thread does last is to say that it does not look at the kernel any more. */
static void pool_thread_over(struct kernel *k)
{
    atomic_fetch_sub_explicit(&k->thread_count, 1, memory_order_release);
}

static void *pool_main(void *arg)
{
    struct task *t = arg;
    struct kernel *k = t->k;

    do {
        task_priv(t)->thread_fn(t);
        t = pool_wait(&k->pool);
    } while (t);
    pool_thread_over(k);
    return NULL;
}

int task_pool_start(struct task *t)
{
    struct kernel *k = t->k;
    pthread_attr_t attr;
    pthread_t thread;

    if (pool_take(&k->pool, t))
        return 0;
    if (pthread_attr_init(&attr))
        return -EAGAIN;
    atomic_fetch_add_explicit(&k->thread_count, 1, memory_order_relaxed);
    int r = pthread_attr_setstacksize(&attr, POOL_STACK_SIZE);
    if (!r)
        r = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (!r)
        r = pthread_create(&thread, &attr, pool_main, t);
    (void)pthread_attr_destroy(&attr);
    if (!r)
        return 0;
    pool_thread_over(k);
    return -EAGAIN;
}
