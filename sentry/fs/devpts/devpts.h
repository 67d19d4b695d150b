/* Pseudo-terminals: pty(7), the file system of their slaves, /dev/tty.
 * Depends on: vfs, kernel.
 * Threading: any thread.
 * Ownership: a pair lives while a file or a session refers to it; it leaves the file system when
 * its master is closed. */
#ifndef RINGWALL_SENTRY_FS_DEVPTS_DEVPTS_H
#define RINGWALL_SENTRY_FS_DEVPTS_DEVPTS_H

#include <stdint.h>

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"

/* boot_arg: struct kernel. Options: mode= ptmxmode= uid= gid= max= newinstance. */
extern const struct fs_ops devpts_fs_ops;

/* Opens what is behind /dev/ptmx (5:2), /dev/tty (5:0) and slaves (136 to 143). */
MUST_CHECK int devpts_open(struct inode *i, struct file *f, const struct vfs_caller *c);

/* For who holds a master inside the sentry; all but the first want one. */
bool devpts_is_master(const struct file *f);
uint32_t devpts_index(const struct file *master);
void devpts_unlock(struct file *master);
/* TIOCSWINSZ: the foreground group hears of a change. */
void devpts_set_size(struct file *master, uint16_t rows, uint16_t cols);
/* The line behind the master went away: who has the slave open finds it dead. */
void devpts_hangup(struct file *master);

#endif
