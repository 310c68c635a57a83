/*
 * reset_at_once.S - a guest that does nothing but ask for a reset, by the keyboard controller or by the port 0xcf9 in turn,
 * and crash at once if it is let go on: no instruction may run after such a request. It also crashes when its time-stamp
 * counter is below zero: it begins with 0 after a reset. Entered by PVH like first_instruction.S.
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
        rdtsc
        test    %edx, %edx
        js      crash
        test    $64, %al
        jz      port_cf9
        mov     $0xfe, %al
        out     %al, $0x64
        jmp     crash
port_cf9:
        mov     $0xcf9, %dx
        mov     $6, %al
        out     %al, %dx
crash:
        lidt    no_table
        ud2

        .section .rodata
no_table:
        .word   0
        .long   0

        .section .note.GNU-stack, "", @progbits
