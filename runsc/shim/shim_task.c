/* The containers of a shim and their processes. */
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

#include "runsc/shim/shim.h"

struct shim_container *shim_find(struct shim *s, const char *id)
{
    struct shim_container *c;

    list_for_each_entry (c, &s->containers, node)
        if (strcmp(c->id, id) == 0)
            return c;
    return NULL;
}

struct shim_proc *shim_find_proc(struct shim_container *c, const char *exec_id)
{
    struct shim_proc *p;

    list_for_each_entry (p, &c->procs, node)
        if (strcmp(p->exec_id, exec_id) == 0)
            return p;
    return NULL;
}

struct shim_proc *shim_proc_new(struct shim_container *c, const char *exec_id)
{
    struct shim_proc *p = calloc(1, sizeof(*p));

    if (p == NULL || (p->exec_id = strdup(exec_id)) == NULL) {
        free(p);
        return NULL;
    }
    proc_io_init(&p->io);
    p->container = c;
    list_add_tail(&p->node, &c->procs);
    return p;
}

static void proc_release(struct shim_proc *p)
{
    proc_io_free(&p->io);
    free(p->exec_id);
    free(p->spec);
    free(p);
}

void shim_proc_free(struct shim_proc *p)
{
    list_del(&p->node);
    p->container = NULL;
    /* Else by who passes its output on. */
    if (!p->draining)
        proc_release(p);
}

struct shim_container *shim_container_new(struct shim *s, const char *id, const char *bundle)
{
    struct shim_container *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->id = strdup(id);
    c->bundle = strdup(bundle);
    if (c->id == NULL || c->bundle == NULL) {
        free(c->id);
        free(c->bundle);
        free(c);
        return NULL;
    }
    list_init(&c->procs);
    c->watch = -1;
    c->users = 1;
    list_add_tail(&c->node, &s->containers);
    s->used = true;
    return c;
}

void shim_container_let_go(struct shim *s, struct shim_container *c)
{
    c->users--;
    pthread_cond_broadcast(&s->changed);
}

void shim_container_remove(struct shim *s, struct shim_container *c)
{
    struct shim_proc *p, *next;

    list_del(&c->node);
    c->gone = true;
    if (c->watch >= 0)
        (void)inotify_rm_watch(s->watch_fd, c->watch);
    shim_container_let_go(s, c);
    while (c->users > 0)
        pthread_cond_wait(&s->changed, &s->mu);
    list_for_each_entry_safe (p, next, &c->procs, node)
        shim_proc_free(p);
    free(c->id);
    free(c->bundle);
    free(c);
}

static bool execs_told(const struct shim_container *c)
{
    const struct shim_proc *p;

    list_for_each_entry (p, &c->procs, node)
        if (p->exec_id[0] != '\0' && p->announced && !p->told)
            return false;
    return true;
}

static void tell(struct shim *s, struct shim_proc *p)
{
    p->told = true;
    shim_publish_exit(s, p);
}

void shim_tell_exits(struct shim *s, struct shim_container *c)
{
    struct shim_proc *p, *init = shim_find_proc(c, "");

    list_for_each_entry (p, &c->procs, node)
        if (p != init && p->state == PROC_STOPPED && p->announced && !p->told)
            tell(s, p);
    if (init != NULL && init->state == PROC_STOPPED && init->announced && !init->told &&
        execs_told(c))
        tell(s, init);
}

/* Known to have ended, and nothing of it is still on its way. */
static void stopped(struct shim *s, struct shim_proc *p)
{
    p->state = PROC_STOPPED;
    if (p->exec_id[0] == '\0')
        p->container->paused = false;
    proc_io_end(&p->io);
    shim_tell_exits(s, p->container);
    pthread_cond_broadcast(&s->changed);
}

void shim_proc_drained(struct shim *s, struct shim_proc *p)
{
    pthread_mutex_lock(&s->mu);
    p->draining = false;
    if (p->container == NULL)
        proc_release(p);
    else if (p->ending)
        stopped(s, p);
    pthread_mutex_unlock(&s->mu);
}

bool shim_proc_exited(struct shim *s, const struct shim_exit *x)
{
    struct shim_container *c;
    struct shim_proc *p;

    list_for_each_entry (c, &s->containers, node)
        list_for_each_entry (p, &c->procs, node) {
            if (p->pid != x->pid || p->ending || p->state == PROC_STOPPED || p->state == PROC_NEW)
                continue;
            p->ending = true;
            p->exit_status = x->status;
            p->exited_at = x->at;
            p->draining = p->draining || proc_io_settle(s, p);
            if (!p->draining)
                stopped(s, p);
            return true;
        }
    return false;
}
