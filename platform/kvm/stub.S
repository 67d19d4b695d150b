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

.section .note.GNU-stack, "", @progbits
