/* The answer to a finished handshake where no sockets of AF_INET take connections of links: tests
 * of the stack alone link this one, a sandbox the sockets' own. */
#include <errno.h>

#include "sentry/net/inet/inet.h"

__attribute__((weak)) int inet_tcp_accepted(struct sock *listener, struct ext_tcp *t,
                                            const struct net_ep *local, const struct net_ep *remote)
{
    (void)listener;
    (void)t;
    (void)local;
    (void)remote;
    return -ECONNREFUSED;
}
