/* All of the code that runs in the virtual machine and is not the guest's. Exceptions come to ring 0
 * at kvm_stub_vectors, one entry each: tell the sentry, return by whatever frame it left. A system
 * call comes to kvm_stub_syscall, in ring 0 on ordinary hosts, in ring 3 where SYSCALL does not
 * change rings. */
#include "platform/kvm/stub.h"

.section .rodata
.balign 4096
.globl kvm_stub_vectors, kvm_stub_vectors_end, kvm_stub_return
.hidden kvm_stub_vectors, kvm_stub_vectors_end, kvm_stub_return
kvm_stub_vectors:
.set vector, 0
.rept KVM_VECTORS
    .balign KVM_STUB_STEP
    out %al, $vector
    iretq
    .set vector, vector + 1
.endr
.balign KVM_STUB_STEP
kvm_stub_return:
    iretq
kvm_stub_vectors_end:

.balign 4096
.globl kvm_stub_syscall, kvm_stub_syscall_end
.hidden kvm_stub_syscall, kvm_stub_syscall_end
kvm_stub_syscall:
    out %al, $KVM_PORT_SYSCALL
    sysretq
kvm_stub_syscall_end:

/* System calls that need not leave the machine: the registers are put into the page that the sentry
 * looks at, and come back from there. In ring 3; everything here is the guest's own, as far as
 * anybody but the guest relies on it. Entry n comes with its exchange page n pages behind. */
.balign 4096
.globl kvm_hand, kvm_hand_common, kvm_hand_quick, kvm_hand_out, kvm_hand_saved, kvm_hand_done
.globl kvm_hand_end, kvm_hand_call, kvm_hand_flags
.hidden kvm_hand, kvm_hand_common, kvm_hand_quick, kvm_hand_out, kvm_hand_saved, kvm_hand_done
.hidden kvm_hand_end, kvm_hand_call, kvm_hand_flags
kvm_hand:
.set runner, 0
.rept KVM_RUNNERS_MAX
    .balign KVM_HAND_STEP
    mov %rcx, kvm_hand + 4096 * (runner + 1) + KVM_X_FRAME(%rip)
    lea kvm_hand + 4096 * (runner + 1)(%rip), %rcx
    jmp kvm_hand_common
    .set runner, runner + 1
.endr
.balign KVM_HAND_STEP
/* Nobody looks. */
kvm_hand_quick:
    mov KVM_X_FRAME(%rcx), %rcx
kvm_hand_out:
    out %al, $KVM_PORT_SYSCALL
    ud2
/* From a patched site: no SYSCALL has put the return address into rcx and the flags into r11, and
 * taken those away that are in our way (IRET takes no nested task). r11: the exchange page; rcx is
 * free, the guest's stack is not. */
kvm_hand_call:
    mov %rsp, KVM_X_FRAME + 24(%r11)
    lea KVM_X_FRAME + 24(%r11), %rsp
    pushfq
kvm_hand_flags:
    pushq $0x202
    popfq
    mov %r11, %rcx
    mov PATCH_AFTER(%rcx), %r11
    mov %r11, KVM_X_FRAME(%rcx)
    mov KVM_X_FRAME + 16(%rcx), %r11
    mov KVM_X_FRAME + 24(%rcx), %rsp
kvm_hand_common:
    mov %rax, KVM_X_RAX(%rcx)
    mov %rbx, KVM_X_RBX(%rcx)
    mov %rdx, KVM_X_RDX(%rcx)
    mov %rsi, KVM_X_RSI(%rcx)
    mov %rdi, KVM_X_RDI(%rcx)
    mov %rbp, KVM_X_RBP(%rcx)
    mov %rsp, KVM_X_FRAME + 24(%rcx)
    mov %r8, KVM_X_R8(%rcx)
    mov %r9, KVM_X_R9(%rcx)
    mov %r10, KVM_X_R10(%rcx)
    mov %r11, KVM_X_FRAME + 16(%rcx)
    mov %r12, KVM_X_R12(%rcx)
    mov %r13, KVM_X_R13(%rcx)
    mov %r14, KVM_X_R14(%rcx)
    mov %r15, KVM_X_R15(%rcx)
    cmpl $0, KVM_X_ASLEEP(%rcx)
    jne kvm_hand_quick
kvm_hand_saved:
    rdfsbase %rax
    mov %rax, KVM_X_FS(%rcx)
    rdgsbase %rax
    mov %rax, KVM_X_GS(%rcx)
    movl $KVM_TURN_CALL, KVM_X_STATE(%rcx)
    mov KVM_X_SPIN(%rcx), %eax
1:  cmpl $KVM_TURN_DONE, KVM_X_STATE(%rcx)
    je kvm_hand_done
    pause
    dec %eax
    jnz 1b
    mov $KVM_TURN_CALL, %eax
    mov $KVM_TURN_LEFT, %edx
    lock cmpxchg %edx, KVM_X_STATE(%rcx)
    jne kvm_hand_done
    out %al, $KVM_PORT_LEFT
    ud2
kvm_hand_done:
    movl $KVM_TURN_GUEST, KVM_X_STATE(%rcx)
    cmpl $0, KVM_X_BASES(%rcx)
    je 2f
    mov KVM_X_FS(%rcx), %rax
    wrfsbase %rax
    mov KVM_X_GS(%rcx), %rax
    wrgsbase %rax
2:  mov KVM_X_RAX(%rcx), %rax
    mov KVM_X_RBX(%rcx), %rbx
    mov KVM_X_RDX(%rcx), %rdx
    mov KVM_X_RSI(%rcx), %rsi
    mov KVM_X_RDI(%rcx), %rdi
    mov KVM_X_RBP(%rcx), %rbp
    mov KVM_X_R8(%rcx), %r8
    mov KVM_X_R9(%rcx), %r9
    mov KVM_X_R10(%rcx), %r10
    mov KVM_X_R11(%rcx), %r11
    mov KVM_X_R12(%rcx), %r12
    mov KVM_X_R13(%rcx), %r13
    mov KVM_X_R14(%rcx), %r14
    mov KVM_X_R15(%rcx), %r15
    lea KVM_X_FRAME(%rcx), %rsp
    mov KVM_X_RCX(%rcx), %rcx
    iretq
kvm_hand_end:

.section .note.GNU-stack, "", @progbits
