/* What the kernel asks of the loader: a program turned into an address space ready to run.
 * Depends on: task.h.
 * Threading: load runs on the thread of the task that calls execve, or on the thread that calls
 * kernel_exec_load (task without a context).
 * Ownership: everything in args is borrowed; everything in the image is owned by the caller. */
#ifndef RINGWALL_SENTRY_KERNEL_IMAGE_H
#define RINGWALL_SENTRY_KERNEL_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"

struct task;
struct kernel;
struct mm;
struct cred;

/* Argument or environment strings, packed: count strings, each NUL-terminated, size bytes. */
struct image_strings {
    const char *text;
    size_t size, count;
};

struct task_image_args {
    struct kernel *k;
    const struct vfs_caller *caller; /* old credentials; paths of interpreters are looked up so */
    struct file *file;    /* what execve named: opened, a regular file with execute permission */
    const char *filename; /* as given: AT_EXECFN and the script's argument; "/dev/fd/N" forms */
    bool filename_inaccessible; /* a close-on-exec descriptor: a script cannot be run (-ENOENT) */
    struct image_strings argv, envp;
    uint64_t stack_limit; /* RLIMIT_STACK */
    bool no_random;       /* ADDR_NO_RANDOMIZE: everything has the same place every time */
    const struct mm_limits *limits;
    struct memacct *acct; /* who is charged for the program's memory; borrowed, NULL: nobody */
};

struct task_image {
    struct mm *mm;
    uint64_t entry, stack; /* rip and rsp of the first instruction */
    struct file *exe;      /* the program itself, or the last interpreter of a script */
    struct cred *cred;     /* as image_cred gave it for exe */
    bool secure;           /* AT_SECURE */
    char comm[16];
};

/* Given by boot as kernel_config.load. Errors are those of execve(2). */
typedef int (*image_load_fn)(const struct task_image_args *args, struct task_image *out);

/* Credentials a program starts with: set-user-ID and set-group-ID bits unless no_new_privs or a
 * nosuid mount, capabilities recomputed. *out_secure: AT_SECURE. For loaders, once the final file
 * is known and before the auxiliary vector is written. Owned result. */
MUST_CHECK int image_cred(const struct vfs_caller *c, struct file *exe, struct cred **out_cred,
                          bool *out_secure);
/* Opens a program or an interpreter for execve: regular file, execute permission, mount not
 * noexec: -EACCES. base NULL: cwd. Owned result. */
MUST_CHECK int image_open(const struct vfs_caller *c, const struct vpath *base, const char *path,
                          unsigned lookup_flags, struct file **out_file);
struct plat *kernel_plat(struct kernel *k);
struct memfile *kernel_memfile(struct kernel *k);

#endif
