/* What the code in the stubs and the sentry agree on.
 * Depends on: nothing; also read by the assembler.
 * Threading: constants.
 * Ownership: none. */
#ifndef RINGWALL_PLATFORM_PTRACE_STUB_H
#define RINGWALL_PLATFORM_PTRACE_STUB_H

/* One host call to make in a stub. */
#define PT_OP_SIZE 64
#define PT_OP_NR 0
#define PT_OP_ARGS 8
#define PT_OPS_PER_PAGE 64

/* prctl(PR_SET_PDEATHSIG, SIGKILL), in words the assembler knows. */
#define STUB_PR_SET_PDEATHSIG 1
#define STUB_SIGKILL 9

#endif
