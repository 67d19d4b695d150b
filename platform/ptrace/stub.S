/* The only code of ours in a stub, one page, mapped read-execute. It has no stack and no data but
 * registers. Every path ends in stub_park, at a breakpoint when all is well and there is nothing to
 * tell, or at an undefined instruction when the tracer is to look at the registers. The guest may
 * jump here: its calls are then stopped by the tracer like any other. */
#include <asm/unistd_64.h>

#include "platform/ptrace/stub.h"

    .section .rodata.stub, "a", @progbits
    .balign 4096
    .globl stub_text, stub_text_end, stub_park, stub_call, stub_batch, stub_ready, stub_thread, stub_fork, stub_settle
    .hidden stub_text, stub_text_end, stub_park, stub_call, stub_batch, stub_ready, stub_thread, stub_fork, stub_settle
stub_text:

/* A thread that nobody uses. */
stub_park:
    movl $__NR_pause, %eax
    syscall
    jmp stub_park

/* Where the first stub begins. */
stub_ready:
    int3

/* One call, its number and arguments in the registers. */
stub_call:
    syscall
    ud2

/* r12: first operation, r13: how many. Stops early at a failure, r12 then points at it. */
stub_batch:
    testq %r13, %r13
    jz 2f
1:  movq PT_OP_NR(%r12), %rax
    movq PT_OP_ARGS(%r12), %rdi
    movq PT_OP_ARGS+8(%r12), %rsi
    movq PT_OP_ARGS+16(%r12), %rdx
    movq PT_OP_ARGS+24(%r12), %r10
    movq PT_OP_ARGS+32(%r12), %r8
    movq PT_OP_ARGS+40(%r12), %r9
    syscall
    cmpq $-4095, %rax
    jae 3f
    addq $PT_OP_SIZE, %r12
    decq %r13
    jnz 1b
2:  int3
3:  ud2

/* clone(2) with its arguments in the registers; the new thread parks. */
stub_thread:
    syscall
    testq %rax, %rax
    jz stub_park
    ud2

/* clone(2) of the process; the child asks to end with the sentry, then puts its own operations page
 * (an mmap whose arguments are in r12 to r15, rbx, rbp) where its parent's is. It may be stopped
 * anywhere on the way and sent to stub_settle, with 1 in rsp for a breakpoint at the end. */
stub_fork:
    syscall
    testq %rax, %rax
    jz stub_settle
    ud2
stub_settle:
    movl $__NR_prctl, %eax
    movl $STUB_PR_SET_PDEATHSIG, %edi
    movl $STUB_SIGKILL, %esi
    syscall
    movl $__NR_mmap, %eax
    movq %r12, %rdi
    movq %r13, %rsi
    movq %r14, %rdx
    movq %r15, %r10
    movq %rbx, %r8
    movq %rbp, %r9
    syscall
    cmpq %r12, %rax
    jne 3f
    testq %rsp, %rsp
    jz stub_park
    int3
3:  movl $__NR_exit_group, %eax
    movl $1, %edi
    syscall
    hlt
stub_text_end:
    .section .note.GNU-stack, "", @progbits
