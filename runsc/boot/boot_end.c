/* How a sandbox of a debug build ends: everything is given back one by one, and what is left is a
 * leak. Others leave that to the host. */
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "base/objcount.h"
#include "gofer/proto/client.h"
#include "runsc/boot/boot_priv.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/net/sock.h"
#include "sentry/vfs/vfs.h"

#define END_STEP_NS 1000000L
#define END_STEPS 10000u

/* Processes of other containers may still be on their way out. */
static bool end_await_tasks(struct kernel *k)
{
    const struct timespec step = {.tv_nsec = END_STEP_NS};
    struct kernel_info i;

    for (unsigned n = 0; n < END_STEPS; n++) {
        kernel_info(k, &i);
        if (i.tasks == 0)
            return true;
        (void)nanosleep(&step, NULL);
    }
    return false;
}

static void end_free(struct boot *b)
{
    boot_end_forwards(b);
    boot_end_resolvers(b);
    mount_ns_put(b->root.ns);
    gof_client_put(b->root.gofer);
    boot_space_fini(&b->root);
    kernel_free(b->k);
    net_free(b->net);
    tmpfs_memfd_end();
    vfs_drop_caches();
}

void boot_check_end(struct boot *b)
{
    struct boot_container *ct, *next;

    list_for_each_entry_safe (ct, next, &b->containers, node)
        if (ct != &b->root)
            boot_leave(ct);
    if (!end_await_tasks(b->k)) {
        log_error("the sandbox ends, and tasks are left");
        abort();
    }
    end_free(b);
    if (objcount_report() != 0) {
        log_error("the sandbox ends, and objects are left");
        abort();
    }
    log_info("the sandbox ends, and nothing is left");
}
