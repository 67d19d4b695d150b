/* The list of options as code, which the sentry and its filter share. */
#include <linux/netlink.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <netinet/in.h>

#include "sentry/net/host/broker.h"

const struct host_option host_options[] = {
#define OPTION(how, level, name, reason) {HOST_OPTION_##how, (level), (name)},
#include "sentry/net/host/seccomp_options.def"
#undef OPTION
};
const size_t host_option_count = ARRAY_SIZE(host_options);
