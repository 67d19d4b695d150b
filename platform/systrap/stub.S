/* The only code of ours in a stub, one page, mapped read-execute, a page of read-only data behind it.
 *
 * Two kinds of thread run it. The control thread, first of its process, never runs guest code: it
 * takes batches of host calls from the operations page, which nobody there can write, and tells the
 * outcome through a descriptor. It has no stack and reads nothing that can be written; what it knows
 * is in registers: r12 the operations page, r13d the last batch done, r14 that page's offset in the
 * file, r15d the file. The others run guest code, and have loaded a filter of their own before.
 * Everything they touch is the guest's as well. docs/systrap.md says why that does no harm. */
#include <asm/unistd_64.h>

#include "platform/systrap/stub.h"

#define SIGSYS 31
#define SYS_SECCOMP 1
#define AUDIT_ARCH_X86_64 0xc000003e
/* Offsets in siginfo. */
#define SI_CODE 8
#define SI_ARCH 28
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define DATA(off) stub_text + 4096 + (off)(%rip)

/* rsi: ucontext. Takes rax, rcx and rdx. */
    .macro load_xstate
    movq ST_UC_FPSTATE(%rsi), %rcx
    movl $-1, %eax
    movl $-1, %edx
    testq %rcx, %rcx
    jz .Lnone\@
    xrstor64 (%rcx)
.Lnone\@:
    .endm

/* rsi: registers of a ucontext. All of them, on the stack those that iretq takes. */
    .macro load_frame
    pushq $0x2b
    pushq 8*15(%rsi)            /* rsp */
    pushq 8*17(%rsi)            /* eflags */
    pushq $0x33
    pushq 8*16(%rsi)            /* rip */
    movq 8*0(%rsi), %r8
    movq 8*1(%rsi), %r9
    movq 8*2(%rsi), %r10
    movq 8*3(%rsi), %r11
    movq 8*4(%rsi), %r12
    movq 8*5(%rsi), %r13
    movq 8*6(%rsi), %r14
    movq 8*7(%rsi), %r15
    movq 8*8(%rsi), %rdi
    movq 8*10(%rsi), %rbp
    movq 8*11(%rsi), %rbx
    movq 8*12(%rsi), %rdx
    movq 8*13(%rsi), %rax
    movq 8*14(%rsi), %rcx
    movq 8*9(%rsi), %rsi
    .endm

/* r11: the area, rax: the answer, as at systrap_call: out to guest code. Takes rcx. */
    .macro leave_answered
    movq %r11, %rcx
    movq ST_REGS+ST_R_EFLAGS(%rcx), %r11
    pushq %r11
    popfq
    movq ST_REGS+ST_R_RSP(%rcx), %rsp
    jmp *PATCH_AFTER(%rcx)
    .endm

/* rax: a set, rcx: the mask before, how: what to do with them. Equal: it was closed meanwhile. */
    .macro apply_sigmask how, area
    cmpl $1, \how               /* SIG_UNBLOCK; SIG_BLOCK is less, SIG_SETMASK more */
    ja .Lset\@
    je .Lunblock\@
    orq %rcx, %rax
    jmp .Lset\@
.Lunblock\@:
    notq %rax
    andq %rcx, %rax
.Lset\@:
    btrq $8, %rax               /* SIGKILL, SIGSTOP */
    btrq $18, %rax
    xchgq %rax, ST_SIGMASK(\area)
    cmpl $0, ST_SIGMASK_OPEN(\area)
    .endm

    .section .rodata.systrap, "a", @progbits
    .balign 4096
    .globl systrap_text, systrap_text_end, systrap_control, systrap_handler, systrap_iret
    .globl systrap_call
    .hidden systrap_text, systrap_text_end, systrap_control, systrap_handler, systrap_iret
    .hidden systrap_call
stub_text:
systrap_text:

/* ---- the control thread ---- */

systrap_control:
1:  movl ST_OPS_CMD(%r12), %eax
    cmpl %r13d, %eax
    jne 2f
    leaq ST_OPS_CMD(%r12), %rdi
    movl $FUTEX_WAIT, %esi
    movl %r13d, %edx
    xorl %r10d, %r10d
    movl $__NR_futex, %eax
    syscall
    jmp 1b
2:  movl %eax, %r13d
    leaq ST_OPS_FIRST(%r12), %rbx
    movl ST_OPS_COUNT(%r12), %ebp
3:  testl %ebp, %ebp
    jz control_done
    movq ST_OP_NR(%rbx), %rax
    movq ST_OP_ARGS(%rbx), %rdi
    movq ST_OP_ARGS+8(%rbx), %rsi
    movq ST_OP_ARGS+16(%rbx), %rdx
    movq ST_OP_ARGS+24(%rbx), %r10
    movq ST_OP_ARGS+32(%rbx), %r8
    movq ST_OP_ARGS+40(%rbx), %r9
    cmpl $__NR_clone, %eax
    je control_clone
    syscall
    cmpq $-4095, %rax
    jae control_tell
    addq $ST_OP_SIZE, %rbx
    decl %ebp
    jmp 3b

/* The last of its batch. A new thread has a stack, a new process has none. */
control_clone:
    syscall
    testq %rax, %rax
    jnz control_cloned
    testq %rsp, %rsp
    jnz thread_start
    jmp process_start
control_cloned:
    js control_tell
    decl %ebp

/* eax and ebp, byte by byte from the table: nothing that can be written comes between. The sentry has
 * left zeros, so that their high bytes need not be told. */
control_tell:
    movl %eax, %ebx
    leaq ST_OPS_VALUE(%r14), %r10
4:  movzbl %bl, %eax
    leaq DATA(ST_DATA_BYTES), %rsi
    addq %rax, %rsi
    movl %r15d, %edi
    movl $1, %edx
    movl $__NR_pwrite64, %eax
    syscall
    incq %r10
    shrl $8, %ebx
    jnz 4b
    movzbl %bpl, %eax
    testl %eax, %eax
    jz control_done
    leaq DATA(ST_DATA_BYTES), %rsi
    addq %rax, %rsi
    leaq ST_OPS_LEFT(%r14), %r10
    movl $__NR_pwrite64, %eax
    syscall
control_done:
    movl %r15d, %edi
    leaq ST_OPS_CMD(%r12), %rsi
    movl $4, %edx
    leaq ST_OPS_DONE(%r14), %r10
    movl $__NR_pwrite64, %eax
    syscall
    leaq ST_OPS_DONE(%r12), %rdi
    movl $FUTEX_WAKE, %esi
    movl $1, %edx
    movl $__NR_futex, %eax
    syscall
    jmp 1b

/* A process just cloned. r8: offset of its operations page, r9 and r10: where areas are, and of how
 * many bytes: those of its parent go. */
process_start:
    movq %r8, %r14
    movq %r9, %rbx
    movq %r10, %rbp
    movl $__NR_prctl, %eax
    movl $1, %edi               /* PR_SET_PDEATHSIG */
    movl $9, %esi
    syscall
    testq %rax, %rax
    jnz process_end
    movl $__NR_munmap, %eax
    movq %rbx, %rdi
    movq %rbp, %rsi
    syscall
    testq %rax, %rax
    jnz process_end
    movl $__NR_mmap, %eax
    movq %r12, %rdi
    movl $4096, %esi
    movl $1, %edx               /* PROT_READ */
    movl $0x11, %r10d           /* MAP_SHARED | MAP_FIXED */
    movl %r15d, %r8d
    movq %r14, %r9
    syscall
    cmpq %r12, %rax
    jne process_end
    xorl %r13d, %r13d
    jmp systrap_control
process_end:
    movl $__NR_exit_group, %eax
    movl $1, %edi
    syscall
    hlt

/* A thread just cloned, its stack in its area. Till the filter is there it reads no memory that can
 * be written, and signals do not reach it. */
thread_start:
    movq %rsp, %rbx
    andq $-ST_AREA_SIZE, %rbx
    leaq ST_STACK(%rbx), %rdi
    xorl %esi, %esi
    movl $__NR_sigaltstack, %eax
    syscall
    movl $__NR_seccomp, %eax
    movl $1, %edi               /* SECCOMP_SET_MODE_FILTER */
    xorl %esi, %esi
    leaq DATA(ST_DATA_FPROG), %rdx
    syscall
    testq %rax, %rax
    jnz process_end
    movl $__NR_rt_sigprocmask, %eax
    movl $1, %edi               /* SIG_UNBLOCK */
    leaq DATA(ST_DATA_MASK), %rsi
    xorl %edx, %edx
    movl $8, %r10d
    syscall
    movq %rbx, %r15
    jmp stub_wait

/* ---- threads that run guest code; r15: the area ---- */

/* edi: signal, rsi: siginfo, rdx: ucontext; the stack is in the area. */
systrap_handler:
    pushq $0x202
    popfq
    movq %rsp, %r15
    andq $-ST_AREA_SIZE, %r15
    cmpl $ST_SIGNAL, %edi
    jne 1f
    movq ST_UC_RIP(%rdx), %rax
    leaq stub_text(%rip), %rcx
    subq %rcx, %rax
    cmpq $4096, %rax
    jb stub_nested
1:  movq ST_UC_RIP(%rdx), %rax
    leaq quick_access(%rip), %rcx
    subq %rcx, %rax
    cmpq $quick_access_end - quick_access, %rax
    jb stub_slow                /* the pointers of a call that was to be answered here */
    addq $quick_access - call_access, %rax
    cmpq $call_access_end - call_access, %rax
    jb call_fault
    movl %edi, ST_SIG(%r15)
    movq %rsi, ST_INFO(%r15)
    movq %rdx, ST_UC(%r15)
    cmpl $SIGSYS, %edi
    je stub_quick
stub_slow:
    rdfsbase %rax
    movq %rax, ST_FS(%r15)
    rdgsbase %rax
    movq %rax, ST_GS(%r15)
    movl $ST_KIND_SIGNAL, ST_KIND(%r15)

/* The turn is the sentry's. */
stub_publish:
    leaq ST_REGS(%r15), %rsp
    movl $ST_TURN_SENTRY, %eax
    xchgl %eax, ST_TURN(%r15)
    cmpl $0, ST_WAITED(%r15)
    je stub_wait
    leaq ST_TURN(%r15), %rdi
    movl $FUTEX_WAKE, %esi
    movl $1, %edx
    movl $__NR_futex, %eax
    syscall

stub_wait:
    movl ST_SPIN(%r15), %ecx
1:  cmpl $ST_TURN_SENTRY, ST_TURN(%r15)
    jne stub_go
    decl %ecx
    js 2f
    pause
    jmp 1b
2:  movl ST_YIELDS(%r15), %ebx
5:  cmpl $ST_TURN_SENTRY, ST_TURN(%r15)
    jne stub_go
    decl %ebx
    js 6f
    movl $__NR_sched_yield, %eax
    syscall
    jmp 5b
6:  movl $1, %eax
    xchgl %eax, ST_SLEEPS(%r15)
3:  cmpl $ST_TURN_SENTRY, ST_TURN(%r15)
    jne 4f
    leaq ST_TURN(%r15), %rdi
    movl $FUTEX_WAIT, %esi
    movl $ST_TURN_SENTRY, %edx
    xorl %r10d, %r10d
    movl $__NR_futex, %eax
    syscall
    jmp 3b
4:  movl $0, ST_SLEEPS(%r15)

stub_go:
    movl ST_COMMAND(%r15), %eax
    cmpl $ST_COMMAND_RUN, %eax
    je stub_resume
    cmpl $ST_COMMAND_EXIT, %eax
    je stub_exit
    cmpl $ST_COMMAND_TSC, %eax
    je stub_tsc
    movl $-1, %eax
    movl $-1, %edx
    xsave64 ST_XSAVE(%r15)
    movl $ST_KIND_SAVED, ST_KIND(%r15)
    jmp stub_publish

stub_tsc:
    movl $ST_PR_SET_TSC, %edi
    movl ST_TSC(%r15), %esi
    xorl %edx, %edx
    xorl %r10d, %r10d
    xorl %r8d, %r8d
    movl $__NR_prctl, %eax
    syscall
    movl $ST_KIND_SAVED, ST_KIND(%r15)
    jmp stub_publish

/* The host gives the turn away when the thread has ended. */
stub_exit:
    movl $__NR_exit, %eax
    xorl %edi, %edi
    syscall
    hlt

/* Into guest code. Whoever sets kick sends the signal afterwards: it is either seen here, or the
 * signal finds us between here and the end and comes back to stub_early. All of it may be done
 * again. */
stub_resume:
    cmpl $0, ST_KICK(%r15)
    jne stub_early
    movq ST_FS(%r15), %rax
    wrfsbase %rax
    movq ST_GS(%r15), %rax
    wrgsbase %rax
    movq ST_XSTATE(%r15), %rcx
    testq %rcx, %rcx
    jz 1f
    movl $-1, %eax
    movl $-1, %edx
    xrstor64 (%rcx)
1:  leaq ST_REGS(%r15), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rax
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    leaq 8(%rsp), %rsp
systrap_iret:
    iretq
stub_resume_end:

stub_early:
    movl $ST_KIND_EARLY, ST_KIND(%r15)
    jmp stub_publish

/* From a patched site, without a signal. r11: the area; rcx is free; everything else, the stack and
 * the flags are the guest's. */
systrap_call:
    movq %rax, ST_REGS+ST_R_RAX(%r11)
    movq %rsp, ST_REGS+ST_R_RSP(%r11)
    leaq ST_REGS(%r11), %rsp
    pushfq
    popq ST_REGS+ST_R_EFLAGS(%r11)
    cmpq $__NR_rt_sigaction, %rax
    je call_sigaction
    cmpq $ST_ANSWERS_COUNT, %rax
    jae stub_call_long
    movq ST_ANSWERS(%r11,%rax,8), %rcx
    testq %rcx, %rcx
    jz stub_call_long
    btq $ST_ANSWER_THERE, %rcx
    jc stub_answer
    btq $ST_ANSWER_SIGMASK, %rcx
    jc call_sigmask
    btq $ST_ANSWER_ROBUST, %rcx
    jc call_robust
stub_call_long:
    leaq 8*15(%rsp), %rsp
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %rax
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %r11, %r15
    pushq $0x202
    popfq
    rdfsbase %rax
    movq %rax, ST_FS(%r15)
    rdgsbase %rax
    movq %rax, ST_GS(%r15)
    movl $ST_KIND_CALL, ST_KIND(%r15)
    jmp stub_publish

/* rcx: what the sentry left for this call. An interrupt that is not seen here finds us before the
 * end, and the call goes the long way. */
stub_answer:
    cmpl $0, ST_KICK(%r11)
    jne stub_call_long
    movl %ecx, %eax
    btq $ST_ANSWER_ERRNO, %rcx
    jnc 1f
    cltq
1:  btq $ST_ANSWER_YIELD, %rcx
    jnc 2f
    movl $__NR_sched_yield, %eax
    syscall
    movq %rsp, %r11
    andq $-ST_AREA_SIZE, %r11
2:  leave_answered
stub_answer_end:

/* The interrupting signal came while this code ran: back to where it was, as sigreturn(2) would do,
 * unless that was on the way into guest code, or out of a call that was answered. The host has taken the extended state away. */
stub_nested:
    leaq stub_text - quick_leave(%rax), %rcx
    cmpq $quick_end - quick_leave, %rcx
    jb quick_redo
    movq %rdx, %rsi
    movq %rax, %rdi
    load_xstate
    subq $stub_resume - stub_text, %rdi
    cmpq $stub_resume_end - stub_resume, %rdi
    jb stub_early
    leaq ST_UC_GREGS(%rsi), %rsi
    leaq sigmask_undo(%rip), %rax
    addq $stub_resume - sigmask_leave, %rdi
    cmpq $sigmask_undo - sigmask_leave, %rdi
    jb nested_call
    addq $sigmask_leave - stub_answer, %rdi
    cmpq $stub_answer_end - stub_answer, %rdi
    jae 2f
nested_long:
    leaq stub_call_long(%rip), %rax
nested_call:
    movq %rax, 8*16(%rsi)       /* rip */
    movq %r15, 8*3(%rsi)        /* r11 */
    leaq ST_REGS(%r15), %rax
    movq %rax, 8*15(%rsi)       /* rsp */
    movq ST_REGS+ST_R_RAX(%r15), %rax
    movq %rax, 8*13(%rsi)
2:
    load_frame
    iretq

/* ---- answered here: rt_sigprocmask, and rt_sigaction of signals whose action is the default ---- */

/* rsi: siginfo, rdx: ucontext, which the area names as well. What is not to be answered goes to the
 * sentry, as does everything when there is to be no entry into guest code: all of it may be done
 * again. */
stub_quick:
    cmpl $SYS_SECCOMP, SI_CODE(%rsi)
    jne stub_slow
    cmpl $AUDIT_ARCH_X86_64, SI_ARCH(%rsi)
    jne stub_slow
    testl $ST_TRAP_FLAG, ST_UC_EFLAGS(%rdx)
    jnz stub_slow               /* a step ends right behind the call */
    movl ST_UC_RAX(%rdx), %eax
    movl %eax, ST_QUICK_NR(%r15)
    cmpl $__NR_rt_sigaction, %eax
    je quick_sigaction
    cmpl $__NR_rt_sigprocmask, %eax
    jne stub_slow

/* Some are left to the sentry, which counts them: their sites are to be patched. */
    incl ST_SIGMASK_CALLS(%r15)
    testl $ST_SIGMASK_COUNTED - 1, ST_SIGMASK_CALLS(%r15)
    jz stub_slow
    btl $ST_ANSWER_SIGMASK - 32, ST_ANSWERS+8*__NR_rt_sigprocmask+4(%r15)
    jnc stub_slow
    cmpl $0, ST_SIGMASK_OPEN(%r15)
    je stub_slow
    cmpq $8, ST_UC_R10(%rdx)
    jne stub_slow
    movl ST_UC_RDI(%rdx), %ebx
    movq ST_UC_RSI(%rdx), %rdi
    movq ST_UC_RDX(%rdx), %rsi
    movq ST_SIGMASK(%r15), %rcx
    movq %rcx, ST_SIGMASK_WAS(%r15)
    testq %rdi, %rdi
    jz 1f
    cmpl $2, %ebx
    ja stub_slow
quick_access:
    movq (%rdi), %rax
1:  testq %rsi, %rsi
    jz 2f
    movq %rcx, (%rsi)
2:  testq %rdi, %rdi
    jz quick_leave
    apply_sigmask %ebx, %r15
    jne quick_leave
    jmp quick_redo

quick_sigaction:
    movq ST_UC_RIP(%rdx), %rax
    movq %rax, ST_SIGACT_RIP(%r15)
    incl ST_SIGACT_CALLS(%r15)
    cmpq $8, ST_UC_R10(%rdx)
    jne stub_slow
    movl ST_UC_RDI(%rdx), %ecx
    decl %ecx
    cmpl $63, %ecx
    ja stub_slow
    movq ST_UC_RSI(%rdx), %rdi
    movq ST_UC_RDX(%rdx), %rax
    testq %rdi, %rdi
    jnz quick_set
    testq %rax, %rax
    jz stub_slow
    movq ST_SIGACT_ZERO(%r15), %rsi
    btq %rcx, %rsi
    jnc stub_slow
    movq %rdi, (%rax)
    movq %rdi, 8(%rax)
    movq %rdi, 16(%rax)
    movq %rdi, 24(%rax)
    jmp quick_leave
quick_set:
    testq %rax, %rax
    jnz stub_slow
    movq ST_SIGACT_PLAIN(%r15), %rsi
    btq %rcx, %rsi
    jnc stub_slow
    movq (%rdi), %rax           /* handler */
    orq 24(%rdi), %rax          /* mask */
    jnz stub_slow
    movq 8(%rdi), %rax          /* flags */
    movq 16(%rdi), %rdi         /* restorer */
quick_access_end:
    testq $~ST_SIGACT_RESTORER, %rax
    jnz stub_slow
    movl %ecx, %esi
    shll $4, %esi
    movq %rdi, ST_SIGACT_SET(%r15,%rsi)
    movq %rax, ST_SIGACT_SET+8(%r15,%rsi)
    movq ST_SIGACT_DONE(%r15), %rax
    btsq %rcx, %rax
    movq %rax, ST_SIGACT_DONE(%r15)
    movq ST_SIGACT_ZERO(%r15), %rax
    btrq %rcx, %rax
    movq %rax, ST_SIGACT_ZERO(%r15)

/* Into guest code; as at stub_resume, the interrupting signal sends it back. */
quick_leave:
    cmpl $0, ST_KICK(%r15)
    jne quick_redo
    movq $0, ST_UC_RAX(%rdx)
    movq %rdx, %rsi
    load_xstate
    leaq ST_UC_GREGS(%rsi), %rsi
    load_frame
quick_iret:
    iretq
quick_end:

/* The same for a patched site: registers as at systrap_call. */
call_sigaction:
    cmpq $8, %r10
    jne call_slow
    movl %edi, %ecx
    decl %ecx
    cmpl $63, %ecx
    ja call_slow
    testq %rsi, %rsi
    jnz call_set
    testq %rdx, %rdx
    jz call_slow
    movq ST_SIGACT_ZERO(%r11), %rax
    btq %rcx, %rax
    jnc call_slow
call_access:
    movq $0, (%rdx)
    movq $0, 8(%rdx)
    movq $0, 16(%rdx)
    movq $0, 24(%rdx)
    jmp call_done
call_set:
    testq %rdx, %rdx
    jnz call_slow
    movq ST_SIGACT_PLAIN(%r11), %rax
    btq %rcx, %rax
    jnc call_slow
    movq (%rsi), %rax           /* handler */
    orq 24(%rsi), %rax          /* mask */
    jnz call_slow
    movq 8(%rsi), %rax          /* flags */
    testq $~ST_SIGACT_RESTORER, %rax
    jnz call_slow
    pushq 16(%rsi)              /* restorer */
    btsq %rcx, ST_SIGACT_DONE(%r11)
    btrq %rcx, ST_SIGACT_ZERO(%r11)
    shll $4, %ecx
    addq %r11, %rcx
    movq %rax, ST_SIGACT_SET+8(%rcx)
    popq ST_SIGACT_SET(%rcx)
call_done:
    movq ST_REGS+ST_R_RAX(%r11), %rax
    xorl %ecx, %ecx
    jmp stub_answer
call_slow:
    movq ST_REGS+ST_R_RAX(%r11), %rax
    jmp stub_call_long

/* ---- rt_sigprocmask and set_robust_list from a patched site ---- */

/* Registers as at systrap_call. Memory of the guest is reached before anything has changed. Who sends a
 * signal closes the mask first and looks at it then. */
call_sigmask:
    cmpq $8, %r10
    jne call_slow
    cmpl $0, ST_SIGMASK_OPEN(%r11)
    je call_slow
    movq ST_SIGMASK(%r11), %rcx
    movq %rcx, ST_SIGMASK_WAS(%r11)
    testq %rsi, %rsi
    jz 1f
    cmpl $2, %edi               /* SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK */
    ja call_slow
    movq (%rsi), %rax
1:  testq %rdx, %rdx
    jz 2f
    movq %rcx, (%rdx)
call_access_end:
2:  testq %rsi, %rsi
    jz sigmask_leave
    apply_sigmask %edi, %r11
    je sigmask_undo
sigmask_leave:
    cmpl $0, ST_KICK(%r11)
    jne sigmask_undo
    xorl %eax, %eax
    leave_answered
sigmask_undo:
    movq ST_SIGMASK_WAS(%r11), %rax
    movq %rax, ST_SIGMASK(%r11)
    jmp call_slow

call_robust:
    cmpq $ST_ROBUST_SIZE, %rsi
    jne call_slow
    movq %rdi, ST_ROBUST(%r11)
    movl $1, ST_ROBUST_SET(%r11)
    xorl %ecx, %ecx
    jmp stub_answer

/* rdx: ucontext of the fault. */
call_fault:
    movq %rdx, %rsi
    load_xstate
    leaq ST_UC_GREGS(%rsi), %rsi
    jmp nested_long

quick_redo:
    movq ST_UC(%r15), %rdx
    movl ST_QUICK_NR(%r15), %eax
    movq %rax, ST_UC_RAX(%rdx)
    cmpl $__NR_rt_sigprocmask, %eax
    jne stub_slow
    movq ST_SIGMASK_WAS(%r15), %rax
    movq %rax, ST_SIGMASK(%r15)
    jmp stub_slow
systrap_text_end:
    .section .note.GNU-stack, "", @progbits
