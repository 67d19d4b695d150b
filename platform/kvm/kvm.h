/* Guest code in ring 3 of a virtual machine; every system call and fault is an exit to the sentry.
 * Depends on: platform/platform.h.
 * Threading: as platform.h. A context may be run by different threads, one at a time.
 * Ownership: the machine dies with the sentry. */
#ifndef RINGWALL_PLATFORM_KVM_KVM_H
#define RINGWALL_PLATFORM_KVM_KVM_H

#include "platform/platform.h"

extern const struct plat_ops kvm_plat_ops;

#endif
