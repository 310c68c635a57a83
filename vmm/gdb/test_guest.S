/*
 * test_guest.S - a guest to debug: 64-bit code that counts, with names. Entered by PVH (32 bits, paging off); memory is
 * mapped onto itself and once more at 0xffffffff80000000, so that linear and physical addresses can be told apart.
 * When `crash_now` is written, it dies of a triple fault.
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
        mov     $pdpt + 3, %eax
        mov     %eax, pml4
        mov     $pdpt_high + 3, %eax
        mov     %eax, pml4 + 511 * 8
        mov     $pd + 3, %eax
        mov     %eax, pdpt
        mov     %eax, pdpt_high + 510 * 8
        movl    $0x83, pd
        mov     $pml4, %eax
        mov     %eax, %cr3
        mov     $0x620, %eax            /* PAE, SSE */
        mov     %eax, %cr4
        mov     $0xc0000080, %ecx
        mov     $0x100, %eax            /* EFER.LME */
        xor     %edx, %edx
        wrmsr
        mov     $0x80000011, %eax
        mov     %eax, %cr0
        lgdt    gdt_pointer
        ljmp    $8, $start_64

        .code64
start_64:
        mov     $stack, %esp
        xor     %ebx, %ebx
        .globl  count
count:
        call    work
        cmpl    $0, crash_now
        je      count
        lidt    no_idt
        .globl  crash
crash:
        ud2

        .globl  work
work:
        inc     %rbx
        movq    %rbx, %xmm1
        mov     %rbx, counter
        mov     counter, %rax
        .globl  worked
worked:
        ret

        .data
        .balign 16
gdt:    .quad   0, 0x00209b0000000000, 0x00cf93000000ffff
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt
no_idt: .fill   10
        .balign 8
        .globl  counter, crash_now, untouched
counter:
        .quad   0
crash_now:
        .quad   0
untouched:
        .quad   0x1122334455667788

        .bss
        .balign 4096
pml4:   .skip   4096
pdpt:   .skip   4096
pdpt_high:
        .skip   4096
pd:     .skip   4096
        .skip   4096
stack:

        .section .note.GNU-stack, "", @progbits
