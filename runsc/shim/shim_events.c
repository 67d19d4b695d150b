/* What containerd is told of its own accord, over its events service. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runsc/shim/shim.h"

#define EVENTS_SERVICE "containerd.services.events.ttrpc.v1.Events"

void shim_put_time(struct pb_out *o, unsigned field, const struct timespec *t)
{
    struct pb_out sub = {0};

    pb_uint(&sub, 1, (uint64_t)t->tv_sec);
    pb_uint(&sub, 2, (uint64_t)t->tv_nsec);
    pb_sub(o, field, &sub);
}

static int events_connect(const char *address)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};

    if (strncmp(address, "unix://", 7) == 0)
        address += 7;
    if (strlen(address) >= sizeof(sa.sun_path))
        return -ENAMETOOLONG;
    memcpy(sa.sun_path, address, strlen(address) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0) {
        int r = -errno;
        (void)close(fd);
        return r;
    }
    return fd < 0 ? -errno : fd;
}

static void put_envelope(const struct shim *s, const char *topic, const char *type,
                         struct pb_out *event, struct pb_out *out)
{
    struct pb_out envelope = {0}, any = {0};
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    shim_put_time(&envelope, 1, &now);
    pb_text(&envelope, 2, s->ns);
    pb_text(&envelope, 3, topic);
    pb_text(&any, 1, type);
    pb_bytes(&any, 2, event->data, event->size);
    any.failed |= event->failed;
    pb_free(event);
    pb_sub(&envelope, 4, &any);
    pb_sub(out, 1, &envelope);
}

/* containerd may have been started anew since: one more attempt with a new connection. */
void shim_publish(struct shim *s, const char *topic, const char *type, struct pb_out *event)
{
    struct pb_out request = {0};

    put_envelope(s, topic, type, event, &request);
    pthread_mutex_lock(&s->event_mu);
    for (int i = 0; s->events != NULL && i < 2; i++) {
        if (s->event_fd < 0)
            s->event_fd = events_connect(s->events);
        if (s->event_fd < 0)
            break;
        s->event_stream += 2;
        if (ttrpc_call(s->event_fd, s->event_stream - 1, EVENTS_SERVICE, "Forward", &request) == 0)
            break;
        (void)close(s->event_fd);
        s->event_fd = -1;
    }
    pthread_mutex_unlock(&s->event_mu);
    pb_free(&request);
}

void shim_publish_delete(struct shim *s, const struct shim_proc *p)
{
    struct pb_out e = {0};

    pb_text(&e, 1, p->container->id);
    pb_uint(&e, 2, (uint64_t)p->pid);
    pb_uint(&e, 3, (uint64_t)p->exit_status);
    shim_put_time(&e, 4, &p->exited_at);
    pb_text(&e, 5, p->exec_id);
    shim_publish(s, "/tasks/delete", "containerd.events.TaskDelete", &e);
}

void shim_publish_exit(struct shim *s, const struct shim_proc *p)
{
    struct pb_out e = {0};
    const char *id = p->exec_id[0] != '\0' ? p->exec_id : p->container->id;

    pb_text(&e, 1, p->container->id);
    pb_text(&e, 2, id);
    pb_uint(&e, 3, (uint64_t)p->pid);
    pb_uint(&e, 4, (uint64_t)p->exit_status);
    shim_put_time(&e, 5, &p->exited_at);
    shim_publish(s, "/tasks/exit", "containerd.events.TaskExit", &e);
}
