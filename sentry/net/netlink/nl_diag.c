/* NETLINK_SOCK_DIAG (sock_diag(7)): what ss(8) asks. */
#include <errno.h>
#include <linux/sock_diag.h>

#include "sentry/net/netlink/nl_priv.h"

nl_handler nl_diag_handler(uint16_t type)
{
    (void)type;
    return NULL;
}
