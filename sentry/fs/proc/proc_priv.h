/* Inside proc: the tree as tables, and what a table's functions are given.
 * Depends on: proc.h.
 * Threading: tables are constant; a proc_ctx lives for one call.
 * Ownership: a proc_ctx's task is an owned reference dropped by whoever made it. */
#ifndef RINGWALL_SENTRY_FS_PROC_PROC_PRIV_H
#define RINGWALL_SENTRY_FS_PROC_PROC_PRIV_H

#include <stdio.h>

#include "sentry/fs/proc/proc.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/ns.h"

struct proc_ctx {
    struct kernel *k;
    struct pid_ns *ns; /* whose numbers are shown; borrowed, NULL: the sandbox's */
    struct task *t;    /* NULL outside /proc/<pid> */
    int fd;            /* in fd/ and fdinfo/, or what number below another list; else -1 */
    struct net *net;   /* of who mounted sysfs; borrowed, or NULL */
    const struct vfs_caller *c;
};

/* One name of a directory. Exactly one of show, open, text, children, readlink, list is set (a
 * directory may have both children and a list). To add an entry: a row in the table of its
 * directory, or a table of your own that a directory names as more. */
struct proc_entry {
    const char *name;
    uint32_t mode; /* permission bits; the type follows from what is set */
    /* Writes the file's text. Negative errno fails the read. */
    int (*show)(const struct proc_ctx *pc, FILE *out);
    /* Opens it as a file of its own kind: fills in f->ops and f->priv. */
    int (*open)(const struct proc_ctx *pc, struct file *f, const struct vfs_caller *c);
    /* Takes what one write(2) gave, NUL-terminated: bytes taken or an error. NULL: not writable. */
    int64_t (*store)(const struct proc_ctx *pc, const char *text, size_t len);
    bool whole;                        /* stored at once: at position 0, less than a page */
    const char *text;                  /* the whole file, when it is always the same */
    const struct proc_entry *children; /* ends with a NULL name */
    const struct proc_entry *more;     /* children too */
    /* Symlink text, as inode_ops.readlink. */
    int64_t (*readlink)(const struct proc_ctx *pc, char *buf, size_t size);
    /* Jump of a magic link, beside readlink. */
    int (*follow)(const struct proc_ctx *pc, struct vpath *out);
    /* A directory whose names are numbers: the first number >= from, or -ENOENT. Its children are
     * all made from item. */
    int32_t (*list)(const struct proc_ctx *pc, int32_t from);
    const struct proc_entry *item;
    const char *prefix; /* before those numbers, or NULL */
    /* The numbers have names instead: number or -ENOENT; length or an error. Both or none. */
    int32_t (*number_of)(const struct proc_ctx *pc, const char *name);
    int (*name_of)(const struct proc_ctx *pc, int32_t number, char *buf, size_t size);
};

/* A super whose root is dir: proc itself, and sysfs. k is borrowed. Owned result. */
/* Shows net (taken). */
void proc_super_set_net(struct super *sb, struct net *net);
MUST_CHECK int proc_super_new(const struct fs_ops *fs, struct kernel *k, const char *source,
                              const struct proc_entry *dir, struct super **out);

extern const struct proc_entry proc_machine_entries[];
extern const struct proc_entry proc_task_entries[];
/* Of /proc/sys, by directory. */
extern const struct proc_entry proc_settings_fs[];
extern const struct proc_entry proc_settings_kernel[];
extern const struct proc_entry proc_settings_random[];
extern const struct proc_entry proc_settings_vm[];
extern const struct proc_entry sysfs_system_entries[];
/* /sys/class/net: links by number, sysfs_net.c. */
extern const struct proc_entry sysfs_net_link, sysfs_net_dir;
int32_t sysfs_list_links(const struct proc_ctx *pc, int32_t from);
int32_t sysfs_find_link(const struct proc_ctx *pc, const char *name);
int sysfs_link_name(const struct proc_ctx *pc, int32_t index, char *buf, size_t size);
int proc_show_children(const struct proc_ctx *pc, FILE *out);
extern const struct proc_entry proc_root_entries[];
extern const struct proc_entry proc_pid_entries[];
extern const struct proc_entry proc_tid_entries[];
extern const struct proc_entry proc_sys_entries[];
extern const struct proc_entry proc_net_entries[];
extern const struct proc_entry proc_sysvipc_entries[];
/* The directories /proc/<pid> and /proc/<pid>/task/<tid>. */
extern const struct proc_entry proc_pid_dir;
extern const struct proc_entry proc_tid_dir;

int proc_show_cpuinfo(const struct proc_ctx *pc, FILE *out);
int proc_show_pid_stat(const struct proc_ctx *pc, FILE *out);
int proc_show_pid_status(const struct proc_ctx *pc, FILE *out);
int proc_show_maps(const struct proc_ctx *pc, FILE *out);
int proc_show_smaps(const struct proc_ctx *pc, FILE *out);
int proc_show_smaps_rollup(const struct proc_ctx *pc, FILE *out);
int proc_show_numa_maps(const struct proc_ctx *pc, FILE *out);
int64_t proc_store_clear_refs(const struct proc_ctx *pc, const char *text, size_t len);
int proc_open_pagemap(const struct proc_ctx *pc, struct file *f, const struct vfs_caller *c);
void proc_maps_line(const struct mm_vma_info *v, FILE *out);
typedef int (*proc_vma_fn)(const struct mm_vma_info *v, void *arg, FILE *out);
/* For each VMA, from the lowest, until fn returns something else than 0, which is returned. */
int proc_for_each_vma(const struct proc_ctx *pc, proc_vma_fn fn, void *arg, FILE *out);
int proc_show_auxv(const struct proc_ctx *pc, FILE *out);
/* ptrace(2)'s access check, by file system ids. */
bool proc_may_access(const struct proc_ctx *pc, const struct vfs_caller *c);
int proc_open_mem(const struct proc_ctx *pc, struct file *f, const struct vfs_caller *c);
/* Of a file that proc_open_mem opened: the address space; owned, NULL once the program has ended or
 * another runs. */
struct mm *proc_mem_mm(const struct file *f);
int64_t proc_mem_seek(struct file *f, int64_t off, int whence);
void proc_mem_release(struct file *f);

#define PROC_IPC_LIMIT(name)                                                                       \
    int proc_show_##name(const struct proc_ctx *pc, FILE *out);                                    \
    int64_t proc_store_##name(const struct proc_ctx *pc, const char *text, size_t len);
PROC_IPC_LIMIT(shmmax)
PROC_IPC_LIMIT(shmall)
PROC_IPC_LIMIT(shmmni)
PROC_IPC_LIMIT(sem)
PROC_IPC_LIMIT(msgmax)
PROC_IPC_LIMIT(msgmnb)
PROC_IPC_LIMIT(msgmni)
PROC_IPC_LIMIT(queues_max)
PROC_IPC_LIMIT(msg_max)
PROC_IPC_LIMIT(msgsize_max)
PROC_IPC_LIMIT(msg_default)
PROC_IPC_LIMIT(msgsize_default)

/* The network namespace that is shown: that of <pid>, or of who reads. Owned. */
struct net *proc_net_get(const struct proc_ctx *pc);
/* show of an entry, around fn(struct net *n, FILE *out). */
#define PROC_NET_SHOW(name, fn)                                                                    \
    static int name(const struct proc_ctx *pc, FILE *out)                                          \
    {                                                                                              \
        struct net *n = proc_net_get(pc);                                                          \
        const int r = fn(n, out);                                                                  \
        net_put(n);                                                                                \
        return r;                                                                                  \
    }
/* Of /proc/sys/net. */
extern const struct proc_entry proc_sys_net_entries[];
/* /proc/<pid>/net: sockets and what is counted of them. */
extern const struct proc_entry proc_net_sock_entries[];
int proc_show_locks(const struct proc_ctx *pc, FILE *out);
/* Of /proc/sys/fs: dir-notify-enable, lease-break-time, leases-enable. */
int proc_show_dir_notify(const struct proc_ctx *pc, FILE *out);
int64_t proc_store_dir_notify(const struct proc_ctx *pc, const char *text, size_t len);
int proc_show_lease_time(const struct proc_ctx *pc, FILE *out);
int64_t proc_store_lease_time(const struct proc_ctx *pc, const char *text, size_t len);
int proc_show_leases(const struct proc_ctx *pc, FILE *out);
int64_t proc_store_leases(const struct proc_ctx *pc, const char *text, size_t len);
int proc_show_time_offsets(const struct proc_ctx *pc, FILE *out);
int64_t proc_store_time_offsets(const struct proc_ctx *pc, const char *text, size_t len);
int proc_show_oom_score(const struct proc_ctx *pc, FILE *out);
int proc_show_oom_score_adj(const struct proc_ctx *pc, FILE *out);
int64_t proc_store_oom_score_adj(const struct proc_ctx *pc, const char *text, size_t len);

/* Of a time since boot, ns: what the clocks of who reads show. */
static inline uint64_t proc_since_boot(const struct proc_ctx *pc, uint64_t ns)
{
    const int64_t off = pc->c ? kernel_boottime_offset(pc->k, pc->c->pid) : 0;

    return off < 0 && (uint64_t)-off > ns ? 0 : ns + (uint64_t)off;
}

/* Nanoseconds as ticks of USER_HZ (100). */
static inline uint64_t proc_ticks(uint64_t ns)
{
    return ns / 10000000u;
}

#endif
