/*
 * real32.S - from protected mode into real mode, a call there, and back (SDM vol 3 §9.9).
 *
 * What lies between real_low and real_low_end runs at LOW_CODE. Every vector of the real-mode table leads to an entry that writes
 * down what was pushed and leaves.
 */
#define LOW_CODE  0xb000
#define LOW_STACK 0xd000
#define NOTES     0xe000
#define SEL_CODE32 0x08
#define SEL_DATA32 0x10
#define SEL_CODE16 0x30
#define SEL_DATA16 0x38
#define LOW(label) (LOW_CODE + (label) - real_low)

/* ---- protected mode: void real_run(uint32_t test) ---------------------------------------------------------------------- */

        .text
        .code32
        .globl  real_run
real_run:
        mov     4(%esp), %edx
        push    %ebx
        push    %ebp
        push    %esi
        push    %edi
        push    %es
        pushf
        cli
        sidt    saved_idt
        mov     %esp, saved_esp
        xor     %edi, %edi              /* the table at 0: 256 entries of 4 bytes */
        mov     $LOW(entries), %eax
        mov     $256, %ecx
1:      mov     %eax, (%edi)
        add     $4, %eax
        add     $4, %edi
        loop    1b
        movw    $0xffff, NOTES
        mov     $SEL_DATA16, %eax       /* real mode keeps the limits it finds */
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        ljmp    $SEL_CODE16, $LOW_CODE
real_back:
        mov     $SEL_DATA32, %eax
        mov     %eax, %ds
        mov     %eax, %ss
        mov     saved_esp, %esp
        lidt    saved_idt
        popf
        pop     %es
        pop     %edi
        pop     %esi
        pop     %ebp
        pop     %ebx
        ret

        .data
saved_esp:      .long 0
saved_idt:      .word 0
                .long 0

/* ---- at LOW_CODE --------------------------------------------------------------------------------------------------------- */

        .text
        .globl  real_low, real_low_end
        .code16
real_low:
        mov     %cr0, %eax
        and     $~1, %al
        mov     %eax, %cr0
        ljmp    $0, $LOW(1f)
1:      xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $LOW_STACK, %sp
        lidtw   LOW(real_table)
        call    *%dx
        mov     %ax, %si
        xor     %ax, %ax
        mov     %ax, %ds
        mov     %si, NOTES + 8
        mov     %bx, NOTES + 10
        mov     %cx, NOTES + 12
        mov     %dx, NOTES + 14
leave:  cli
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $SEL_CODE32, $real_back

real_table:
        .word   0x3ff
        .long   0

/* The stack: where the entry's CALL returns to, IP, CS, FLAGS. */
interrupted:
        xor     %ax, %ax
        mov     %ax, %ds
        pop     %ax
        sub     $LOW(entries) + 3, %ax
        shr     $2, %ax
        mov     %ax, NOTES
        pop     %ax
        mov     %ax, NOTES + 2
        pop     %ax
        mov     %ax, NOTES + 4
        pop     %ax
        mov     %ax, NOTES + 6
        jmp     leave

        .balign 4
entries:
        .rept   256
        .balign 4
        call    interrupted
        .endr
real_low_end:

        .section .note.GNU-stack, "", @progbits
