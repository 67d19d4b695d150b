/* Inside sentry/kernel: making namespaces and entering them.
 * Depends on: ns.h, task_priv.h.
 * Threading: said per function.
 * Ownership: said per function. */
#ifndef RINGWALL_SENTRY_KERNEL_NS_PRIV_H
#define RINGWALL_SENTRY_KERNEL_NS_PRIV_H

#include "sentry/kernel/ns.h"
#include "sentry/kernel/task_priv.h"

/* Numbers of the sandbox's own namespaces, those of Linux's first. */
#define NS_FIRST_ID_TIME 4026531834u
#define NS_FIRST_ID_CGROUP 4026531835u
#define NS_FIRST_ID_PID 4026531836u
#define NS_FIRST_ID_USER 4026531837u
#define NS_FIRST_ID_UTS 4026531838u
#define NS_FIRST_ID_IPC 4026531839u
#define NS_FIRST_ID_NET 4026531840u
#define NS_FIRST_ID_MNT 4026531841u
#define NS_FIRST_NEW_ID 4026532000u

/* CLONE_NEW* of what a tag stands for, and all that can be made here. */
#define NS_CLONE_TAGS                                                                              \
    (CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWTIME)
#define NS_CLONE_ALL (NS_CLONE_TAGS | CLONE_NEWPID | CLONE_NEWUSER)

uint64_t ns_kind_flag(enum ns_kind kind);
struct user_ns *ns_handle_owner(const struct ns_handle *h); /* borrowed */
/* What a file names, borrowed; NULL: it is none of those. */
const struct ns_handle *ns_file_handle(const struct file *f);
MUST_CHECK int ns_super_new(struct super **out_sb);

/* The set of namespaces that a task is to have: copies of from's tags, with those that flags asks
 * for made anew for cred's user namespace. fs: where root and cwd move to a new mount namespace.
 * All entries are owned by the caller. */
MUST_CHECK int ns_tags_make(struct task *from, uint64_t flags, const struct cred *cred,
                            struct fs_ctx *fs, struct ns_tag *tags[NS_TAGS]);
void ns_tags_put(struct ns_tag *tags[NS_TAGS]);
/* o takes tags over, with the shortcuts that task_priv has; the old ones go to tags. o's own
 * thread, or nobody else knows o. */
void ns_tags_install(struct task *o, struct ns_tag *tags[NS_TAGS]);
/* The tag of t, or (NULL) of the task with number pid; the sandbox's when that has gone. Owned. */
struct ns_tag *kernel_ns_tag(struct kernel *k, struct task *t, int32_t pid, enum ns_kind kind);

/* ---- timens.c ---- */
struct time_ns;
/* Offsets of like, NULL: none; nobody is in it yet. Owned result. */
MUST_CHECK int time_ns_new(struct time_ns *like, struct time_ns **out_ns);
void time_ns_put(struct time_ns *ns);
/* As task_set_child_time_offsets, whoever asks. */
MUST_CHECK int time_ns_set(struct time_ns *ns, const struct time_offset *mono,
                           const struct time_offset *boot);
/* mm's clocks become those of ns, whose offsets stay what they are from now on. fresh: they are the
 * sandbox's yet. -ENOMEM. */
MUST_CHECK int time_ns_show(struct kernel *k, struct time_ns *ns, struct mm *mm, bool fresh);
/* o is where its children are to be; false: it was. Owner, or nobody else knows o. */
bool task_enter_child_time(struct task *o);
struct time_ns *task_child_time_ns(struct task *t); /* borrowed; owner */

/* A copy of t's credentials in a new user namespace. Owned result. */
MUST_CHECK int ns_user_make(struct task *t, struct cred **out_cred);

#endif
