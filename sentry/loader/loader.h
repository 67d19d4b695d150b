/* Programs into address spaces: ELF images, their interpreters, scripts; execve(2), elf(5).
 * Depends on: kernel/image.h, mm, vfs, vdso.
 * Threading: any thread; nothing is shared between calls but the vDSO.
 * Ownership: as kernel/image.h says. */
#ifndef RINGWALL_SENTRY_LOADER_LOADER_H
#define RINGWALL_SENTRY_LOADER_LOADER_H

#include "base/compiler.h"
#include "sentry/kernel/image.h"

/* The kernel's load function (kernel_config.load). Everything that can go wrong with a program is
 * found here, before the caller gives its old memory up: -ENOEXEC, -ELIBBAD, -EACCES, -E2BIG,
 * -ELOOP, -ENOMEM, -EINVAL and what opening an interpreter gives. */
MUST_CHECK int loader_load(const struct task_image_args *args, struct task_image *out);

#endif
