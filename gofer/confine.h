/* The steps that leave the gofer process with its exports and nothing else, in their order.
 * Depends on: base.
 * Threading: before the process has a second thread.
 * Ownership: nothing is kept. All return 0 or a negative errno and name the failing step in *step
 * (a static string). */
#ifndef RINGWALL_GOFER_CONFINE_H
#define RINGWALL_GOFER_CONFINE_H

#include <stdbool.h>
#include <stddef.h>

#include <sys/inotify.h>

#include "base/compiler.h"

/* Where /proc/self/fd is in a confined gofer: the filter names it. */
#define GOFER_PROC_FD 3
/* Of every watch on the host; the filter names it. Reading changes nothing, and the gofer reads all
 * the time. */
#define GOFER_WATCH_MASK                                                                           \
    (IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVE | IN_CREATE | IN_DELETE | IN_MOVE_SELF |     \
     IN_EXCL_UNLINK)
/* Descriptors that are enough for every handle a sentry may hold. */
#define GOFER_NOFILE (512u * 1024)

struct gofer_config;
struct gofer_export;

/* Own mount, network, ipc and uts namespaces; without privileges in an own user namespace in which
 * the one id we have is itself (*out_one_id). */
MUST_CHECK int gofer_own_namespaces(bool *out_one_id, const char **step);
/* The same four of a confined gofer, with its empty root; only the exports must be open. */
MUST_CHECK int gofer_enter_namespaces(int peer_fd);
/* The export as a tree of mounts that is attached nowhere: ".." ends at its root, and the kernel
 * keeps a read-only one so. *out_fd is O_PATH. */
MUST_CHECK int gofer_open_export(const struct gofer_export *e, int *out_fd, const char **step);
/* /proc/self/fd in the same manner. */
MUST_CHECK int gofer_open_proc(int *out_fd, const char **step);
/* Whether gofer_hide_kernel has anything to do. */
MUST_CHECK int gofer_hides_kernel(const struct gofer_config *cfg, bool *out, const char **step);
/* Takes the host's proc, sysfs and their like out of our mounts, below recursive exports. After
 * gofer_open_proc. */
MUST_CHECK int gofer_hide_kernel(const struct gofer_config *cfg, const char **step);
/* An empty read-only tmpfs is the root; everything else is unmounted. */
MUST_CHECK int gofer_empty_root(const char **step);
/* As many descriptors as the host allows; no core files. *out_nofile: how many. */
MUST_CHECK int gofer_rlimits(size_t *out_nofile, const char **step);
/* Only what opening and changing files of any owner takes; no new privileges, not dumpable. */
MUST_CHECK int gofer_drop_capabilities(const char **step);
/* Loads the allow-list of seccomp_gofer.def. host_uds: sockets may be connected to. */
MUST_CHECK int gofer_seccomp(bool host_uds, const char **step);

#endif
