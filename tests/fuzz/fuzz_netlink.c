/* Whatever a guest sends to AF_NETLINK sockets, all of it answered and read again: bytes 0 and 1
 * choose the protocol and the read size, the rest is cut into datagrams by a length byte. */
#include <errno.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/net/ns/netns.h"
#include "sentry/net/sock.h"

#define DATAGRAMS_MAX 64
#define READS_MAX 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void drain(struct sock *s, const struct vfs_caller *c, size_t piece)
{
    static uint8_t buf[32768];
    struct uio u;

    for (int i = 0; i < READS_MAX; i++) {
        uio_init_kernel(&u, buf, piece);
        struct sock_msg m = {.u = &u};
        if (s->ops->recv(s, &m, true, c) == -EAGAIN)
            return;
    }
}

static void run(struct sock *s, const struct vfs_caller *c, const uint8_t *data, size_t size,
                size_t piece)
{
    for (int i = 0; i < DATAGRAMS_MAX && size > 1; i++) {
        const size_t n = data[0] * 4u < size - 1 ? data[0] * 4u : size - 1;
        uint8_t *copy = malloc(n + 1);
        struct uio u;
        if (!copy)
            return;
        memcpy(copy, data + 1, n);
        uio_init_kernel(&u, copy, n);
        struct sock_msg m = {.u = &u};
        (void)!s->ops->send(s, &m, true, c);
        if (i % 3 == 0)
            drain(s, c, piece);
        free(copy);
        data += n + 1;
        size -= n + 1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int protocols[] = {NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_ROUTE,
                                    NETLINK_KOBJECT_UEVENT};
    struct vfs_caller c;
    struct net *n;
    struct sock *s;

    memset(&c, 0, sizeof(c));
    if (size < 2 || net_new(NULL, &n))
        return 0;
    if (cred_new_root(UINT64_MAX, &c.cred))
        abort();
    c.pid = c.tgid = 7;
    netns_config_lock(net_ns(n));
    if (data[1] & 1 && netns_link_set_flags(net_ns(n), NETNS_LO_INDEX, IFF_UP, IFF_UP))
        abort();
    netns_config_unlock(net_ns(n));
    if (sock_create(n, AF_NETLINK, SOCK_RAW, protocols[data[0] % 4], &c, &s) == 0) {
        run(s, &c, data + 2, size - 2, data[1] & 2 ? 100 : 32768);
        drain(s, &c, 32768);
        s->ops->close(s);
        sock_put(s);
    }
    cred_put(c.cred);
    net_free(n);
    return 0;
}
