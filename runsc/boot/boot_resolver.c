/* Names by a resolver that listens on the loopback of the host's side of the network namespace, as
 * docker's does on 127.0.0.11 of a user network: a UDP socket of the guests' namespace at the same
 * address takes the questions, and two threads carry them to a socket of the host and the answers
 * back. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "runsc/boot/boot_priv.h"
#include "sentry/net/sock.h"

#define RESOLVER_PORT 53
#define RESOLVER_MESSAGE 4096u
#define RESOLVER_HEADER 12u
/* Questions under way; an older one than that many has its answer lost, as on a busy network. */
#define RESOLVER_SLOTS 1024u

/* Who asked, and by which number. The answer comes with a number of ours. */
struct resolver_slot {
    struct sock_addr from;
    uint16_t id, sent;
    bool used;
};

struct boot_resolver {
    struct list node; /* boot thread: boot.resolvers */
    pthread_t ask_thread, answer_thread;
    _Atomic bool stopping;
    int fd; /* a socket of the host, connected to the resolver */
    struct file *file;
    struct sock *sock; /* of file */
    struct vfs_caller ask, answer;
    struct blocker ask_blk, answer_blk;
    struct mutex mu; /* rank LEAF: guards slots */
    struct resolver_slot slots[RESOLVER_SLOTS];
    uint8_t question[RESOLVER_MESSAGE], reply[RESOLVER_MESSAGE];
};

static uint16_t resolver_id(const uint8_t *message)
{
    uint16_t id;

    memcpy(&id, message, sizeof(id));
    return id;
}

/* The number that goes out: its low bits are the slot, the others nobody can guess. */
static void resolver_note(struct boot_resolver *r, uint32_t serial, const struct sock_addr *from)
{
    struct resolver_slot *slot = &r->slots[serial % RESOLVER_SLOTS];
    uint16_t noise = 0;

    if (getrandom(&noise, sizeof(noise), 0) != (ssize_t)sizeof(noise))
        noise = 0;
    const uint16_t sent =
        (uint16_t)(serial % RESOLVER_SLOTS) | (uint16_t)(noise & ~(RESOLVER_SLOTS - 1));
    mutex_lock(&r->mu);
    *slot = (struct resolver_slot){
        .from = *from, .id = resolver_id(r->question), .sent = sent, .used = true};
    mutex_unlock(&r->mu);
    memcpy(r->question, &sent, sizeof(sent));
}

static void *resolver_ask(void *arg)
{
    struct boot_resolver *r = arg;

    for (uint32_t serial = 0;; serial++) {
        struct sock_addr from = {.len = 0};
        struct uio u;
        uio_init_kernel(&u, r->question, sizeof(r->question));
        struct sock_msg m = {.u = &u, .from = &from};
        const int64_t n = r->sock->ops->recv(r->sock, &m, false, &r->ask);
        if (n < 0)
            break;
        if ((uint64_t)n < RESOLVER_HEADER || from.len == 0)
            continue;
        resolver_note(r, serial, &from);
        if (send(r->fd, r->question, (size_t)n, MSG_DONTWAIT) < 0)
            log_debug("resolver: a question is lost: error %d", errno);
    }
    if (!atomic_load(&r->stopping))
        log_warn("resolver: names of the container's network are not asked for any more");
    return NULL;
}

static bool resolver_match(struct boot_resolver *r, struct sock_addr *out_to)
{
    const uint16_t sent = resolver_id(r->reply);
    struct resolver_slot *slot = &r->slots[sent % RESOLVER_SLOTS];
    bool found;

    mutex_lock(&r->mu);
    found = slot->used && slot->sent == sent;
    if (found) {
        slot->used = false;
        *out_to = slot->from;
        memcpy(r->reply, &slot->id, sizeof(slot->id));
    }
    mutex_unlock(&r->mu);
    return found;
}

static void *resolver_answer(void *arg)
{
    struct boot_resolver *r = arg;

    while (!atomic_load(&r->stopping)) {
        struct sock_addr to;
        struct uio u;
        const ssize_t n = recv(r->fd, r->reply, sizeof(r->reply), 0);
        /* A resolver that is not there says so for each question. */
        if (n < 0 && errno != EINTR && errno != ECONNREFUSED) {
            log_warn("resolver: answers do not come any more: error %d", errno);
            break;
        }
        if (n < (ssize_t)RESOLVER_HEADER || !resolver_match(r, &to))
            continue;
        uio_init_kernel(&u, r->reply, (size_t)n);
        struct sock_msg m = {.u = &u, .to = &to};
        if (r->sock->ops->send(r->sock, &m, true, &r->answer) < 0)
            log_debug("resolver: an answer is lost");
    }
    return NULL;
}

static int resolver_open(struct boot *b, struct boot_resolver *r, const char *text)
{
    struct sock_addr a = {.len = sizeof(a.in)};
    struct sock *s;
    int err = boot_caller(b, &r->ask, &r->ask_blk);

    if (err)
        return err;
    r->answer = r->ask;
    blocker_init(&r->answer_blk);
    r->answer.blocker = &r->answer_blk;
    a.in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(RESOLVER_PORT)};
    if (inet_pton(AF_INET, text, &a.in.sin_addr) != 1)
        return -EINVAL;
    err = sock_create(b->net, AF_INET, SOCK_DGRAM, 0, &r->ask, &s);
    if (err)
        return err;
    err = sock_file(s, 0, &r->file);
    if (err) {
        sock_put(s);
        return err;
    }
    r->sock = s;
    return s->ops->bind(s, &a, &r->ask);
}

static void resolver_free(struct boot_resolver *r)
{
    if (r->file != NULL)
        file_put(r->file);
    boot_caller_end(&r->ask);
    (void)close(r->fd);
    free(r);
}

/* The threads are there from here on, so it is ended by them or not at all. */
static void resolver_stop(struct boot_resolver *r)
{
    atomic_store(&r->stopping, true);
    blocker_interrupt(&r->ask_blk, BLOCKER_KILLED);
    blocker_interrupt(&r->answer_blk, BLOCKER_KILLED);
    (void)shutdown(r->fd, SHUT_RDWR);
    (void)pthread_join(r->ask_thread, NULL);
}

static int resolver_start(struct boot_resolver *r)
{
    sigset_t all, old;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = -pthread_create(&r->ask_thread, NULL, resolver_ask, r);
    if (err == 0) {
        err = -pthread_create(&r->answer_thread, NULL, resolver_answer, r);
        if (err)
            resolver_stop(r);
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return err;
}

static size_t resolver_count(const struct boot *b)
{
    const struct boot_resolver *r;
    size_t n = 0;

    list_for_each_entry (r, &b->resolvers, node)
        n++;
    return n;
}

static int resolver_new(struct boot *b, const char *addr, int fd)
{
    struct boot_resolver *r = calloc(1, sizeof(*r));
    const int flags = fcntl(fd, F_GETFL);
    int err;

    if (r == NULL) {
        (void)close(fd);
        return -ENOMEM;
    }
    r->fd = fd;
    mutex_init(&r->mu, LOCK_RANK_LEAF);
    err = flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0 ? -errno : 0;
    if (err == 0)
        err = resolver_open(b, r, addr);
    if (err == 0)
        err = resolver_start(r);
    if (err) {
        resolver_free(r);
        return err;
    }
    list_add_tail(&r->node, &b->resolvers);
    return 0;
}

int boot_resolver(struct boot *b, const struct json_t *req, const int *fds, size_t count)
{
    const char *addr = json_string_value(json_object_get(req, "addr"));

    if (count == 1 && addr != NULL && !b->root.started && resolver_count(b) < BOOT_RESOLVERS_MAX)
        return resolver_new(b, addr, fds[0]);
    for (size_t i = 0; i < count; i++)
        (void)close(fds[i]);
    return -EINVAL;
}

void boot_end_resolvers(struct boot *b)
{
    struct boot_resolver *r, *next;

    list_for_each_entry_safe (r, next, &b->resolvers, node) {
        resolver_stop(r);
        (void)pthread_join(r->answer_thread, NULL);
        list_del(&r->node);
        resolver_free(r);
    }
}
