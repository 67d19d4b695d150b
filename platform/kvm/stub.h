/* What stub.S and the C code agree on: numbers only.
 * Depends on: platform/patch/abi.h; included by assembly too.
 * Threading: constants.
 * Ownership: none. */
#ifndef RINGWALL_PLATFORM_KVM_STUB_H
#define RINGWALL_PLATFORM_KVM_STUB_H

#include "platform/patch/abi.h"

/* Exceptions the processor knows; each has KVM_STUB_STEP bytes of code that tells its vector by the
 * port it writes to. */
#define KVM_VECTORS 32
#define KVM_STUB_STEP 16
/* The port of a system call; of one whose registers are in the exchange page. */
#define KVM_PORT_SYSCALL 0x81
#define KVM_PORT_LEFT 0x82

/* Handing over without leaving: the code page, which has an entry for each runner, behind it an
 * exchange page for each, and the table that patched call sites find theirs by. */
#define KVM_RUNNERS_MAX 16
#define KVM_HAND_STEP 32
/* Until here in an entry all registers are the guest's. */
#define KVM_HAND_PRISTINE 14
/* Whose turn it is: the guest's; the sentry's; the guest's, with registers of the sentry's; nobody
 * waits here any more. */
#define KVM_TURN_GUEST 0
#define KVM_TURN_CALL 1
#define KVM_TURN_DONE 2
#define KVM_TURN_LEFT 3
/* Offsets in an exchange page. */
#define KVM_X_STATE 0
#define KVM_X_ASLEEP 4
#define KVM_X_SPIN 8
#define KVM_X_BASES 12
/* PATCH_NEGFS and PATCH_AFTER come here. */
#define KVM_X_FRAME 128
#define KVM_X_RAX 168
#define KVM_X_RBX 176
#define KVM_X_RCX 184
#define KVM_X_RDX 192
#define KVM_X_RSI 200
#define KVM_X_RDI 208
#define KVM_X_RBP 216
#define KVM_X_R8 224
#define KVM_X_R9 232
#define KVM_X_R10 240
#define KVM_X_R11 248
#define KVM_X_R12 256
#define KVM_X_R13 264
#define KVM_X_R14 272
#define KVM_X_R15 280
#define KVM_X_FS 288
#define KVM_X_GS 296

#endif
