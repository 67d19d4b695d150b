/* Descriptors that travel in messages: counted, and found when only messages hold each other.
 *
 * A socket's descriptor in a queue is an edge from the queue's owner to that socket. A socket all
 * of whose file's references are in messages can be reached only through the queues they are in; if
 * none of those belongs to a socket that somebody can still reach, it is garbage (what net/unix/
 * garbage.c of the kernel does). Connections that wait to be accepted count as their listener's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/limits.h"
#include "sentry/net/unix_priv.h"

/* The unix socket of a file, or NULL. */
static struct unix_sock *scm_sock(struct file *f)
{
    struct sock *s;

    if (sock_from_file(f, &s) || s->family != AF_UNIX)
        return NULL;
    return unix_of(s);
}

static int scm_edges_new(struct unix_msg *m, const struct sock_control *ctl)
{
    size_t count = 0;

    for (size_t i = 0; i < ctl->file_count; i++)
        count += scm_sock(ctl->files[i]) != NULL;
    if (count == 0)
        return 0;
    m->edges = calloc(count, sizeof(*m->edges));
    if (!m->edges)
        return -ENOMEM;
    for (size_t i = 0; i < ctl->file_count; i++) {
        struct unix_sock *s = scm_sock(ctl->files[i]);
        if (s)
            m->edges[m->edge_count++].sock = s;
    }
    return 0;
}

static bool scm_charge_locked(struct net *n, size_t count)
{
    if (count > LIMIT_SCM_INFLIGHT - n->inflight_files)
        return false;
    n->inflight_files += count;
    return true;
}

static void scm_link_locked(struct unix_sock *to, struct unix_msg *m)
{
    struct unix_sock *owner = to->listener ? to->listener : to;

    for (size_t i = 0; i < m->edge_count; i++) {
        struct unix_edge *e = &m->edges[i];
        e->in = to;
        list_add_tail(&e->node, &owner->edges);
        if (e->sock->inflight++ == 0) {
            list_add_tail(&e->sock->flight, &to->base.net->in_flight);
            to->base.net->in_flight_count++;
        }
    }
}

int unix_scm_attach(struct unix_sock *to, struct unix_msg *m, struct sock_control *ctl)
{
    struct net *n = to->base.net;

    if (ctl->file_count > 0) {
        int r = scm_edges_new(m, ctl);
        if (r)
            return r;
        mutex_lock(&n->mu);
        bool ok = scm_charge_locked(n, ctl->file_count);
        if (!ok) {
            mutex_unlock(&n->mu);
            unix_scm_collect(n, true);
            mutex_lock(&n->mu);
            ok = scm_charge_locked(n, ctl->file_count);
        }
        if (ok)
            scm_link_locked(to, m);
        mutex_unlock(&n->mu);
        if (!ok) {
            free(m->edges);
            m->edges = NULL;
            m->edge_count = 0;
            return -ETOOMANYREFS;
        }
        m->charged = ctl->file_count;
    }
    m->ctl = *ctl;
    memset(ctl, 0, sizeof(*ctl));
    return 0;
}

void unix_scm_detach(struct net *n, struct unix_msg *m)
{
    if (m->charged == 0)
        return;
    mutex_lock(&n->mu);
    for (size_t i = 0; i < m->edge_count; i++) {
        struct unix_edge *e = &m->edges[i];
        list_del(&e->node);
        if (--e->sock->inflight == 0) {
            list_del(&e->sock->flight);
            n->in_flight_count--;
        }
    }
    n->inflight_files -= m->charged;
    mutex_unlock(&n->mu);
    free(m->edges);
    m->edges = NULL;
    m->edge_count = m->charged = 0;
}

void unix_scm_accepted(struct unix_sock *s)
{
    struct net *n = s->base.net;
    struct unix_edge *e, *next;

    mutex_lock(&n->mu);
    if (s->listener) {
        list_for_each_entry_safe (e, next, &s->listener->edges, node)
            if (e->in == s)
                list_move_tail(&e->node, &s->edges);
        s->listener = NULL;
    }
    mutex_unlock(&n->mu);
}

/* ---- freeing ---- */

static void msg_free(struct unix_msg *m)
{
    struct unix_sock *from = m->from;

    sock_control_fini(&m->ctl);
    atomic_fetch_sub(&from->out_bytes, m->size + UNIX_MSG_COST);
    if (unix_writable(from))
        (void)waitq_wake(&from->wq, EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND);
    unix_put(from);
    free(m);
}

/* Takes turns: whoever finds another at it leaves its messages to that one. So a chain of sockets,
 * each in the queue of the one before, is taken apart in a loop. */
static void msg_drop_files(struct net *n, struct list *msgs)
{
    mutex_lock(&n->mu);
    list_splice_tail(msgs, &n->drop);
    if (n->dropping) {
        mutex_unlock(&n->mu);
        return;
    }
    n->dropping = true;
    while (!list_empty(&n->drop)) {
        struct unix_msg *m = list_first_entry(&n->drop, struct unix_msg, node);
        list_del(&m->node);
        mutex_unlock(&n->mu);
        msg_free(m);
        mutex_lock(&n->mu);
    }
    n->dropping = false;
    mutex_unlock(&n->mu);
}

void unix_msg_free_list(struct net *n, struct list *msgs)
{
    struct unix_msg *m, *next;

    list_for_each_entry_safe (m, next, msgs, node) {
        if (m->ctl.file_count > 0)
            continue;
        list_del(&m->node);
        msg_free(m);
    }
    if (!list_empty(msgs))
        msg_drop_files(n, msgs);
}

/* ---- garbage ---- */

/* Candidates are held by messages only; what other candidates' queues hold is taken off. */
static void gc_count_locked(struct net *n)
{
    struct unix_sock *s;
    const struct unix_edge *e;

    list_for_each_entry (s, &n->in_flight, flight) {
        s->gc_refs = s->inflight;
        s->mark =
            ref_read(&s->base.file->ref) == s->inflight ? UNIX_MARK_CANDIDATE : UNIX_MARK_NONE;
    }
    list_for_each_entry (s, &n->in_flight, flight)
        if (s->mark == UNIX_MARK_CANDIDATE)
            list_for_each_entry (e, &s->edges, node)
                e->sock->gc_refs--;
}

static void gc_reach_locked(struct unix_sock *s, struct list *work)
{
    if (s->mark != UNIX_MARK_CANDIDATE)
        return;
    s->mark = UNIX_MARK_REACHED;
    list_add_tail(&s->gc_node, work);
}

static void gc_find_locked(struct net *n, struct list *garbage)
{
    struct unix_sock *s;
    struct list work;

    list_init(&work);
    gc_count_locked(n);
    list_for_each_entry (s, &n->in_flight, flight)
        if (s->gc_refs > 0)
            gc_reach_locked(s, &work);
    while (!list_empty(&work)) {
        const struct unix_edge *e;
        s = list_first_entry(&work, struct unix_sock, gc_node);
        list_del(&s->gc_node);
        list_for_each_entry (e, &s->edges, node)
            gc_reach_locked(e->sock, &work);
    }
    list_for_each_entry (s, &n->in_flight, flight)
        if (s->mark == UNIX_MARK_CANDIDATE && ref_tryget(&s->base.ref))
            list_add_tail(&s->gc_node, garbage);
}

/* Sockets in flight per close that a look may cost. */
#define GC_SHARE 256u

static bool gc_wanted_locked(struct net *n, bool now)
{
    if (n->collecting || list_empty(&n->in_flight))
        return false;
    if (!now && ++n->skipped * GC_SHARE < n->in_flight_count)
        return false;
    n->skipped = 0;
    return true;
}

void unix_scm_collect(struct net *n, bool now)
{
    struct list garbage;

    list_init(&garbage);
    mutex_lock(&n->mu);
    bool go = gc_wanted_locked(n, now);
    if (go) {
        n->collecting = true;
        gc_find_locked(n, &garbage);
    }
    mutex_unlock(&n->mu);
    if (!go)
        return;
    while (!list_empty(&garbage)) {
        struct unix_sock *s = list_first_entry(&garbage, struct unix_sock, gc_node);
        list_del(&s->gc_node);
        unix_purge(s);
        unix_put(s);
    }
    mutex_lock(&n->mu);
    n->collecting = false;
    mutex_unlock(&n->mu);
}
