/*
 * vec_run.S - calls the snippets of vec_snippets.h with the guest's registers in the host's.
 *
 * Arguments come in rdi (the snippet), rsi, rdx, rcx as in C. All vector and x87 registers are the
 * callee's to change, but MXCSR's control bits and an empty x87 stack are not: both are restored.
 */
#include "cpu/jit/vec_frame.h"

    .text

.macro begin name
    .globl \name
    .hidden \name
    .type \name, @function
    .balign 16
\name:
.endm

.macro end name
    .size \name, . - \name
.endm

/* The snippets change none of r8 to r11, rsi; xmm1 and xmm2 go in and one of them comes out. */
begin vec_run_reg
    movdqa (%rsi), %xmm1
    movdqa (%rdx), %xmm2
    mov %rdi, %rax
    mov %rcx, %rdi
    call *%rax
    movdqa %xmm1, (%rsi)
    ret
end vec_run_reg

begin vec_run_rm
    movdqa (%rsi), %xmm1
    movdqa (%rdx), %xmm2
    mov %rdi, %rax
    mov %rcx, %rdi
    call *%rax
    movdqa %xmm2, (%rdx)
    ret
end vec_run_rm

.macro frame_runner name, mxcsr, mmx
begin \name
    mov %rdi, %r8
    mov %rdx, %rdi
    movdqa VEC_FRAME_XMM(%rsi), %xmm0
    movdqa VEC_FRAME_XMM + 16(%rsi), %xmm1
    movdqa VEC_FRAME_XMM + 32(%rsi), %xmm2
  .if \mmx
    movq VEC_FRAME_MM(%rsi), %mm1
    movq VEC_FRAME_MM + 8(%rsi), %mm2
  .endif
    mov VEC_FRAME_RAX(%rsi), %rax
    mov VEC_FRAME_RCX(%rsi), %rcx
    mov VEC_FRAME_RDX(%rsi), %rdx
  .if \mxcsr
    sub $8, %rsp
    stmxcsr (%rsp)
    ldmxcsr VEC_FRAME_MXCSR(%rsi)
  .endif
    call *%r8
    pushfq
    pop VEC_FRAME_RFLAGS(%rsi)
  .if \mxcsr
    stmxcsr VEC_FRAME_MXCSR(%rsi)
    ldmxcsr (%rsp)
    add $8, %rsp
  .endif
    mov %rax, VEC_FRAME_RAX(%rsi)
    mov %rcx, VEC_FRAME_RCX(%rsi)
    mov %rdx, VEC_FRAME_RDX(%rsi)
    movdqa %xmm0, VEC_FRAME_XMM(%rsi)
    movdqa %xmm1, VEC_FRAME_XMM + 16(%rsi)
    movdqa %xmm2, VEC_FRAME_XMM + 32(%rsi)
  .if \mmx
    movq %mm1, VEC_FRAME_MM(%rsi)
    movq %mm2, VEC_FRAME_MM + 8(%rsi)
    emms
  .endif
    ret
end \name
.endm

frame_runner vec_run_frame, 0, 0
frame_runner vec_run_fp, 1, 0
frame_runner vec_run_mmx, 1, 1

/* fxsave does not wait, and fninit drops what is pending: nothing traps here. */
begin x87_run
    mov %rdi, %rax
    mov %rcx, %rdi
    sub $8, %rsp
    stmxcsr (%rsp)
    fxrstor64 (%rsi)
    call *%rax
    fxsave64 (%rdx)
    fninit
    ldmxcsr (%rsp)
    add $8, %rsp
    ret
end x87_run

begin x87_run_flags
    sub $8, %rsp
    stmxcsr (%rsp)
    fxrstor64 (%rsi)
    push (%rcx)
    popfq
    call *%rdi
    pushfq
    pop (%rcx)
    fxsave64 (%rdx)
    fninit
    ldmxcsr (%rsp)
    add $8, %rsp
    ret
end x87_run_flags

    .section .note.GNU-stack, "", @progbits
