/* The finished image as bytes of the sentry. */
    .section .rodata
    .balign 8
    .globl vdso_image, vdso_image_end
    .hidden vdso_image, vdso_image_end
vdso_image:
    .incbin VDSO_IMAGE
vdso_image_end:
    .byte 0
    .section .note.GNU-stack, "", @progbits
