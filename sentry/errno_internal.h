/* Errors that stay inside the sentry: how an interrupted call wants to be restarted.
 * Depends on: nothing.
 * Threading: constants.
 * Ownership: none. They must never reach the guest; the signal code turns them into EINTR or a
 * restart (kernel include/linux/errno.h). */
#ifndef RINGWALL_SENTRY_ERRNO_INTERNAL_H
#define RINGWALL_SENTRY_ERRNO_INTERNAL_H

#define ERESTARTSYS 512           /* restart if SA_RESTART */
#define ERESTARTNOINTR 513        /* always restart */
#define ERESTARTNOHAND 514        /* restart only if no handler ran */
#define ERESTART_RESTARTBLOCK 516 /* restart through restart_syscall */

#endif
