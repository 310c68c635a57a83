/*
 * first_instruction.S - a guest whose first instructions say "Q" on COM1 and sleep: what a monitor needs from its start to
 * the guest's first instruction can then be seen from outside. Entered by PVH: 32 bits, paging off (Xen's
 * docs/misc/pvh.pandoc; note 18 names the entry).
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
        mov     $0x3f8, %dx
        mov     $'Q', %al
        out     %al, %dx
        mov     $'\n', %al
        out     %al, %dx
sleep:
        cli
        hlt
        jmp     sleep

        .section .note.GNU-stack, "", @progbits
