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

    for (;;) {
        struct sock_addr to;
        struct uio u;
        const ssize_t n = recv(r->fd, r->reply, sizeof(r->reply), 0);
        /* A resolver that is not there says so for each question. */
        if (n < 0 && errno != EINTR && errno != ECONNREFUSED)
            break;
        if (n < (ssize_t)RESOLVER_HEADER || !resolver_match(r, &to))
            continue;
        uio_init_kernel(&u, r->reply, (size_t)n);
        struct sock_msg m = {.u = &u, .to = &to};
        if (r->sock->ops->send(r->sock, &m, true, &r->answer) < 0)
            log_debug("resolver: an answer is lost");
    }
    log_warn("resolver: answers do not come any more: error %d", errno);
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

static int resolver_start(struct boot_resolver *r)
{
    pthread_t t;
    sigset_t all, old;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = -pthread_create(&t, NULL, resolver_ask, r);
    if (err == 0) {
        (void)pthread_detach(t);
        err = -pthread_create(&t, NULL, resolver_answer, r);
        if (err == 0)
            (void)pthread_detach(t);
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return err;
}

int boot_resolver(struct boot *b, const struct json_t *req, const int *fds, size_t count)
{
    const char *text = json_string_value(json_object_get(req, "addr"));
    struct boot_resolver *r = NULL;
    int err = -EINVAL, flags;

    if (count == 1 && text != NULL && !b->root.started && b->resolvers < BOOT_RESOLVERS_MAX) {
        r = calloc(1, sizeof(*r));
        err = r != NULL ? 0 : -ENOMEM;
    }
    if (err == 0) {
        r->fd = fds[0];
        mutex_init(&r->mu, LOCK_RANK_LEAF);
        flags = fcntl(r->fd, F_GETFL);
        err = flags < 0 || fcntl(r->fd, F_SETFL, flags & ~O_NONBLOCK) != 0
                  ? -errno
                  : resolver_open(b, r, text);
    }
    if (err == 0) {
        b->resolvers++;
        /* It stays for the life of the sandbox, on failure of a thread too. */
        return resolver_start(r);
    }
    for (size_t i = 0; i < count; i++)
        (void)close(fds[i]);
    if (r != NULL) {
        if (r->file != NULL)
            file_put(r->file);
        boot_caller_end(&r->ask);
        free(r);
    }
    return err;
}
