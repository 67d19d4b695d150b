/* The code whose faults safecopy.c turns into results. Every instruction between a _begin and an
 * _end label may fault; the fix-up of the pair makes the return value. */
    .text

#define FN(name) \
    .globl name; \
    .type name, @function; \
    .balign 16; \
name: \
    endbr64
#define END(name) .size name, . - name

/* size_t safecopy(void *dst rdi, const void *src rsi, size_t size rdx): rcx is always what is left.
 */
FN(safecopy)
    mov %rdx, %rcx
    cmp $256, %rcx
    jae 3f
    .globl safecopy_begin
safecopy_begin:
1:  cmp $8, %rcx
    jb 2f
    mov (%rsi), %rax
    mov %rax, (%rdi)
    add $8, %rsi
    add $8, %rdi
    sub $8, %rcx
    jmp 1b
2:  test %rcx, %rcx
    jz 4f
    movb (%rsi), %al
    movb %al, (%rdi)
    inc %rsi
    inc %rdi
    dec %rcx
    jmp 2b
3:  rep movsb
    .globl safecopy_end
safecopy_end:
4:  mov %rcx, %rax
    ret
END(safecopy)

FN(safezero)
    mov %rsi, %rcx
    xor %eax, %eax
    .globl safezero_begin
safezero_begin:
    rep stosb
    .globl safezero_end
safezero_end:
    mov %rcx, %rax
    ret
END(safezero)

    .globl safecopy_fixup_left
safecopy_fixup_left:
    mov %rcx, %rax
    ret

FN(safe_load32)
    .globl safe32_begin
safe32_begin:
    mov (%rdi), %eax
    mov %eax, (%rsi)
    xor %eax, %eax
    ret
END(safe_load32)

FN(safe_store32)
    xchg %esi, (%rdi)
    xor %eax, %eax
    ret
END(safe_store32)

FN(safe_cmpxchg32)
    mov (%rsi), %eax
    lock cmpxchg %edx, (%rdi)
    mov %eax, (%rsi)
    xor %eax, %eax
    ret
    .globl safe32_end
safe32_end:
END(safe_cmpxchg32)

    .globl safecopy_fixup_efault
safecopy_fixup_efault:
    mov $-14, %eax
    ret

/* Tell the linker that the code keeps to IBT and SHSTK, else the whole program loses them. */
    .section .note.gnu.property, "a"
    .balign 8
    .long 4
    .long 16
    .long 5
    .asciz "GNU"
    .long 0xc0000002
    .long 4
    .long 3
    .long 0
    .section .note.GNU-stack, "", @progbits
