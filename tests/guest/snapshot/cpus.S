/*
 * cpus.S - how the other CPUs come into 64 bits, and the one interrupt (cpus.h).
 *
 * The code between ap_code and ap_code_end is copied to AP_PAGE, where a SIPI enters it in real mode. It goes to long mode in one step
 * (paging and protection at once; AMD APM vol 2 §14.8), by the first CPU's page tables and descriptors, which cpus_start() put
 * behind it.
 */
        .globl  ap_code, ap_code_end, ap_gdt, ap_cr3
        .code16
ap_code:
        cli
        cld
        xor     %ax, %ax
        mov     %ax, %ds
        data32 lgdt AP_PAGE + ap_gdt - ap_code
        mov     $0x20, %eax             /* PAE */
        mov     %eax, %cr4
        mov     AP_PAGE + ap_cr3 - ap_code, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx       /* EFER.LME */
        xor     %edx, %edx
        mov     $0x100, %eax
        wrmsr
        mov     $0x80000031, %eax       /* PG, NE, ET, PE */
        mov     %eax, %cr0
        ljmpl   $8, $ap_64
        .balign 8
ap_gdt: .skip   16
ap_cr3: .long   0
ap_code_end:

        .text
        .code64
ap_64:
        mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $1, %edi
        lock xadd %edi, ap_next         /* this CPU's number, from 1 */
        lea     1(%rdi), %esp
        shl     $14, %esp               /* 16 KiB of stack each */
        add     $ap_stacks, %esp
        call    ap_main
1:      cli
        hlt
        jmp     1b

/* The timer's interrupt only wakes. */
        .globl  timer_entry
timer_entry:
        push    %rax
        push    %rcx
        push    %rdx
        mov     $0x80b, %ecx            /* x2APIC: end of interrupt */
        xor     %eax, %eax
        xor     %edx, %edx
        wrmsr
        pop     %rdx
        pop     %rcx
        pop     %rax
        iretq

        .data
ap_next: .long  1

        .bss
        .balign 4096
ap_stacks:
        .skip   16384 * CPUS_MAX

        .section .note.GNU-stack, "", @progbits
