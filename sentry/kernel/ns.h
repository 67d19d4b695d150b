/* Namespaces as things that files name and tasks enter (namespaces(7)).
 * Depends on: task.h.
 * Threading: said per function.
 * Ownership: a handle owns what it names. */
#ifndef RINGWALL_SENTRY_KERNEL_NS_H
#define RINGWALL_SENTRY_KERNEL_NS_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/ref.h"
#include "sentry/kernel/task.h"

struct user_ns;
struct pid_ns;

enum ns_kind {
    /* With a tag each. */
    NS_CGROUP,
    NS_IPC,
    NS_MNT,
    NS_NET,
    NS_UTS,
    NS_TIME,
    NS_TIME_CHILDREN, /* the tag is one of NS_TIME */
    NS_TAGS,
    /* Objects of their own, of which NULL is the sandbox's. */
    NS_PID = NS_TAGS,
    NS_PID_CHILDREN,
    NS_USER,
    NS_KINDS,
};

/* A namespace of a kind whose object knows neither its number nor whose it is. */
struct ns_tag {
    struct ref ref;
    enum ns_kind kind;
    uint64_t id;
    struct user_ns *owner; /* owned */
    void *obj;             /* owned, by kind; of a cgroup's NULL: it shows all */
};

struct ns_handle {
    enum ns_kind kind;
    void *obj; /* struct ns_tag, pid_ns or user_ns; owned */
};

/* Numbers of new namespaces. Any thread. */
uint64_t kernel_new_ns_id(struct kernel *k);
/* Takes obj. Owned result. */
MUST_CHECK int ns_tag_new(struct kernel *k, enum ns_kind kind, struct user_ns *owner, void *obj,
                          struct ns_tag **out_tag);
struct ns_tag *ns_tag_get(struct ns_tag *tag); /* NULL allowed, as below */
void ns_tag_put(struct ns_tag *tag);

/* ---- for /proc; any thread ---- */
/* The namespace of a kind that o is in; -ENOENT when it has ended. */
MUST_CHECK int task_get_ns(struct task *o, enum ns_kind kind, struct ns_handle *out);
void ns_handle_put(struct ns_handle *h);
uint64_t ns_handle_id(const struct ns_handle *h);
const char *ns_kind_name(enum ns_kind kind);
/* The file that names it, as a place in no tree. Takes h. Owned result. */
MUST_CHECK int ns_handle_place(struct kernel *k, struct ns_handle *h, struct vpath *out);
/* Owned, NULL: the sandbox's; the pid namespace of the task with that number. */
struct pid_ns *kernel_pid_ns_of(struct kernel *k, int32_t nr);
struct pid_ns *pid_ns_get(struct pid_ns *ns);
void pid_ns_put(struct pid_ns *ns);
/* Numbers in ns as the sandbox's, and the other way round; 0: none. */
int32_t kernel_pid_in(struct kernel *k, const struct pid_ns *ns, int32_t nr);
int32_t kernel_pid_out(struct kernel *k, const struct pid_ns *ns, int32_t nr);
int32_t kernel_next_tgid_in(struct kernel *k, const struct pid_ns *ns, int32_t from);
/* Number nr of the sandbox's in ns and every namespace below in which it is known: how many. */
size_t kernel_pid_chain(struct kernel *k, const struct pid_ns *ns, int32_t nr, int32_t *out,
                        size_t max);

/* What a time namespace adds to the clocks that count from boot (time_namespaces(7)). */
struct time_offset {
    int64_t sec;
    uint32_t nsec; /* below 10^9 */
};
struct time_offsets {
    struct time_offset mono, boot;
};
/* Of the namespace that o's children are born in; -ENOENT when it has ended. */
MUST_CHECK int task_child_time_offsets(struct task *o, struct time_offsets *out);
/* Sets those that are not NULL, for by. -EPERM; -ERANGE: a clock would show a time before 0 or
 * beyond what can be told; -EACCES: somebody is in it already. */
MUST_CHECK int task_set_child_time_offsets(struct task *o, const struct cred *by,
                                           const struct time_offset *mono,
                                           const struct time_offset *boot);
/* ns that CLOCK_BOOTTIME is ahead in the task with that number; 0 when it has gone. */
int64_t kernel_boottime_offset(struct kernel *k, int32_t pid);

/* ---- for whoever starts a container; any thread ---- */
/* One below the sandbox's own, with no process yet. owner NULL: the sandbox's. Owned result. */
MUST_CHECK int kernel_pid_ns_new(struct kernel *k, struct user_ns *owner, struct pid_ns **out_ns);

/* ---- for the system calls; t on its own thread ---- */
/* setns(2): f is a file of a namespace or a pidfd. */
MUST_CHECK int task_setns(struct task *t, struct file *f, uint64_t type);
/* sethostname(2): CAP_SYS_ADMIN over the uts namespace. */
bool task_may_rename_host(struct task *t);
/* mount(2): CAP_SYS_ADMIN over the mount namespace. */
bool task_may_mount(struct task *t);
/* Sockets that the task makes belong to it; borrowed. */
struct net *task_net(struct task *t);

#endif
