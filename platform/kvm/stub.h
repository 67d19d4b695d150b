/* What stub.S and the C code agree on: numbers only.
 * Depends on: nothing; included by assembly too.
 * Threading: constants.
 * Ownership: none. */
#ifndef RINGWALL_PLATFORM_KVM_STUB_H
#define RINGWALL_PLATFORM_KVM_STUB_H

/* Exceptions the processor knows; each has KVM_STUB_STEP bytes of code that tells its vector by the
 * port it writes to. */
#define KVM_VECTORS 32
#define KVM_STUB_STEP 16
/* The port of a system call. */
#define KVM_PORT_SYSCALL 0x81

#endif
