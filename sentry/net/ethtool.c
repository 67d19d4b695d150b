/* SIOCETHTOOL: what a driver would be asked (linux/ethtool.h); libpcap does. */
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/net_tstamp.h>
#include <string.h>

#include "sentry/net/ifioctl.h"
#include "sentry/net/ns/netns.h"

int net_ethtool(const struct netns_link *l, uaddr_t data, const struct uaccess *ua)
{
    uint32_t cmd;
    int r = copyin_obj(ua, &cmd, data);

    if (r)
        return r;
    if (cmd == ETHTOOL_GLINK) {
        const struct ethtool_value v = {.cmd = cmd, .data = (l->flags & NETNS_LOWER_UP) != 0};
        return copyout_obj(ua, data, &v);
    }
    if (cmd == ETHTOOL_GET_TS_INFO) {
        const struct ethtool_ts_info info = {
            .cmd = cmd,
            .so_timestamping = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE,
            .phc_index = -1,
        };
        return copyout_obj(ua, data, &info);
    }
    return -EOPNOTSUPP;
}
