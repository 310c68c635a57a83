/*
 * start32.S - the way into the 32-bit suite: PVH entry, 256 entries of the IDT, probes (start64.S, for a CPU without paging).
 */
        .section .note.Xen, "a", @note
        .align 4
        .long 4, 4, 18
        .asciz "Xen"
        .long entry

        .text
        .code32
        .globl entry
entry:
        cld
        mov     $boot_stack_end, %esp
        mov     %ebx, start_info
        call    suite_main
hang:   cli
        hlt
        jmp     hang

/* ---- the IDT's entries ------------------------------------------------------------------------------------------------- */

        .globl  trap_entries
        .balign 16
trap_entries:
        .set    vector, 0
        .rept   256
        .balign 16
        .if     vector != 8 && !(vector >= 10 && vector <= 14) && vector != 17 && vector != 21
        push    $0
        .endif
        push    $vector
        jmp     trap_common
        .set    vector, vector + 1
        .endr

trap_common:
        push    %ds
        push    %es
        push    %fs
        push    %gs
        pusha
        cld
        mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %esp, %ebp
        push    %ebp
        call    trap_dispatch
        mov     %ebp, %esp
        popa
        pop     %gs
        pop     %fs
        pop     %es
        pop     %ds
        add     $8, %esp
        iret

/* ---- probes ------------------------------------------------------------------------------------------------------------ */

/* uint64_t probe_enter(uint32_t *back, const struct probe *p): the low half of the result is 1 when the code returned, the high
 * half what it returned. */
        .globl  probe_enter, probe_leave
probe_enter:
        mov     4(%esp), %eax
        mov     8(%esp), %ecx
        push    %ebx
        push    %ebp
        push    %esi
        push    %edi
        pushf
        mov     %esp, (%eax)
        mov     %ecx, %ebx
        cmpl    $0, 4(%ebx)             /* cs: 0 is a plain call */
        jne     1f
        mov     8(%ebx), %edi
        mov     12(%ebx), %esi
        call    *(%ebx)
        mov     %eax, %edx
        mov     $1, %eax
        jmp     probe_out
1:      testl   $0x20000, 20(%ebx)      /* VM: the frame has all segments */
        jz      2f
        pushl   40(%ebx)                /* gs, fs, ds, es */
        pushl   36(%ebx)
        pushl   32(%ebx)
        pushl   28(%ebx)
2:      pushl   24(%ebx)                /* ss */
        pushl   16(%ebx)                /* esp */
        pushl   20(%ebx)                /* eflags */
        pushl   4(%ebx)                 /* cs */
        pushl   (%ebx)
        mov     8(%ebx), %edi
        mov     12(%ebx), %esi
        testl   $0x20000, 20(%ebx)
        jnz     3f
        mov     24(%ebx), %eax          /* data segments like the stack's */
        mov     %eax, %ds
        mov     %eax, %es
3:      iret

/* void probe_leave(uint32_t esp) */
probe_leave:
        mov     4(%esp), %ecx
        mov     $0x10, %eax
        mov     %eax, %ss
        mov     %ecx, %esp
        xor     %eax, %eax
        xor     %edx, %edx
probe_out:
        mov     $0x10, %ecx
        mov     %ecx, %ss
        mov     %ecx, %ds
        mov     %ecx, %es
        xor     %ecx, %ecx
        mov     %ecx, %fs
        mov     %ecx, %gs
        popf
        pop     %edi
        pop     %esi
        pop     %ebp
        pop     %ebx
        ret

        .data
        .globl  start_info
start_info:     .long 0

        .bss
        .balign 4096
boot_stack:     .skip 32768
boot_stack_end:

        .section .note.GNU-stack, "", @progbits
