/* Connections of containerd: one thread reads each, one answers each request. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/ref.h"
#include "runsc/shim/shim.h"

#define TASK_SERVICE "containerd.task.v2.Task"

struct conn {
    struct ref ref;
    struct shim *s;
    int fd;
    pthread_mutex_t mu; /* one reply at a time */
};

struct job {
    struct conn *c;
    struct ttrpc_request r;
};

static void conn_put(struct conn *c)
{
    if (!ref_put(&c->ref))
        return;
    (void)close(c->fd);
    pthread_mutex_destroy(&c->mu);
    free(c);
}

static bool is_service(const struct pb_field *f)
{
    return f->size == strlen(TASK_SERVICE) && memcmp(f->data, TASK_SERVICE, f->size) == 0;
}

static void *job_main(void *arg)
{
    struct job *j = arg;
    struct shim *s = j->c->s;
    struct pb_out reply = {0};
    char error[512] = "unknown service";
    char *method = pb_dup(&j->r.method);
    int code = TTRPC_UNIMPLEMENTED;

    if (method != NULL && is_service(&j->r.service))
        code = shim_method(s, method, &j->r.payload, &reply, error, sizeof(error));
    /* Who asked for the end is told before it comes; others that are answered now are not in time.
     */
    const bool may_end = method != NULL && strcmp(method, "Shutdown") == 0;

    free(method);
    pthread_mutex_lock(&j->c->mu);
    int r = ttrpc_reply(j->c->fd, j->r.stream, code, error, &reply);
    pthread_mutex_unlock(&j->c->mu);
    ttrpc_request_free(&j->r);
    conn_put(j->c);
    free(j);
    /* A shim of a pod ends with its last container; one that is being made is there already. */
    pthread_mutex_lock(&s->mu);
    if (may_end && r <= 0 && list_empty(&s->containers))
        shim_exit(s);
    s->requests--;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mu);
    return NULL;
}

static void count_request(struct shim *s, int change)
{
    pthread_mutex_lock(&s->mu);
    s->requests += (unsigned)change;
    s->served++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mu);
}

static void *conn_main(void *arg)
{
    struct conn *c = arg;

    for (;;) {
        struct job *j = calloc(1, sizeof(*j));
        if (j == NULL || ttrpc_read(c->fd, &j->r) != 0) {
            free(j);
            break;
        }
        ref_get(&c->ref);
        j->c = c;
        count_request(c->s, 1);
        if (shim_thread(job_main, j) != 0) {
            count_request(c->s, -1);
            ttrpc_request_free(&j->r);
            free(j);
            conn_put(c);
            break;
        }
    }
    (void)shutdown(c->fd, SHUT_RDWR);
    conn_put(c);
    return NULL;
}

void shim_serve(struct shim *s, int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        struct conn *c = fd >= 0 ? calloc(1, sizeof(*c)) : NULL;
        if (c == NULL) {
            if (fd >= 0)
                (void)close(fd);
            continue;
        }
        ref_init(&c->ref);
        c->s = s;
        c->fd = fd;
        (void)pthread_mutex_init(&c->mu, NULL);
        if (shim_thread(conn_main, c) != 0)
            conn_put(c);
    }
}
