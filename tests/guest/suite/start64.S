/*
 * start64.S - the way into the 64-bit suite: PVH entry of the first CPU, real-mode entry of the others, 256 entries of
 * the IDT, and the two ways to run a probe.
 *
 * PVH (Xen's docs/misc/pvh.pandoc) enters in 32-bit protected mode without paging, EBX at hvm_start_info. The page
 * tables made here map the first 4 GiB onto themselves with 2 MiB pages for ring 0; page.c adds the rest.
 */
        .section .note.Xen, "a", @note
        .align 4
        .long 4, 4, 18
        .asciz "Xen"
        .long entry

/* ---- the first CPU ------------------------------------------------------------------------------------------------ */

        .text
        .code32
        .globl entry
entry:
        cld
        mov     $boot_stack_end, %esp
        mov     %ebx, start_info

        mov     $boot_pml4, %edi        /* the rest of the tables is zero: .bss */
        lea     boot_pdpt + 7, %eax
        mov     %eax, (%edi)
        mov     $boot_pdpt, %edi
        lea     boot_pd + 3, %eax
        mov     $4, %ecx
1:      mov     %eax, (%edi)
        add     $0x1000, %eax
        add     $8, %edi
        loop    1b
        mov     $boot_pd, %edi
        mov     $0x83, %eax             /* P, W, PS */
        mov     $2048, %ecx
2:      mov     %eax, (%edi)
        add     $0x200000, %eax
        add     $8, %edi
        loop    2b

        call    enter_long_mode
        ljmp    $0x08, $first_64

enter_long_mode:
        mov     $0x20, %eax             /* PAE */
        mov     %eax, %cr4
        mov     $boot_pml4, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx
        mov     $0x900, %eax            /* LME, NXE */
        xor     %edx, %edx
        wrmsr
        mov     $0x80010031, %eax       /* PG, WP, NE, ET, PE */
        mov     %eax, %cr0
        lgdtl   boot_gdt_pointer
        ret

        .code64
first_64:
        mov     $boot_stack_end, %rsp
        call    load_data_segments
        call    suite_main
hang:   cli
        hlt
        jmp     hang

load_data_segments:
        mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        xor     %eax, %eax
        mov     %eax, %fs
        mov     %eax, %gs
        ret

/* ---- the others: copied to AP_ENTRY, entered by SIPI in real mode ---------------------------------------------------- */

        .globl  ap_code, ap_code_end
        .code16
ap_code:
        cli
        cld
        xor     %ax, %ax
        mov     %ax, %ds
        data32 lgdt AP_ENTRY + ap_gdt_pointer - ap_code
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $0x18, $ap_32
ap_gdt_pointer:
        .word   boot_gdt_end - boot_gdt - 1
        .long   boot_gdt
ap_code_end:

        .code32
ap_32:
        mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %ss
        mov     $1, %ebx
        lock xadd %ebx, ap_next         /* this CPU's number, from 1 */
        cmp     ap_limit, %ebx
        jae     ap_too_many
        lea     1(%ebx), %esp
        shl     $14, %esp               /* 16 KiB of stack each (CPU_STACK) */
        add     $cpu_stacks, %esp
        call    enter_long_mode
        ljmp    $0x08, $ap_64
ap_too_many:
        cli
        hlt
        jmp     ap_too_many

        .code64
ap_64:
        mov     %esp, %esp
        call    load_data_segments
        mov     %ebx, %edi
        call    ap_main
        jmp     hang

/* ---- the IDT's entries: each pushes a code where the CPU does not, and its vector ------------------------------------- */

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
        push    %rax
        push    %rcx
        push    %rdx
        push    %rbx
        push    %rbp
        push    %rsi
        push    %rdi
        push    %r8
        push    %r9
        push    %r10
        push    %r11
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        cld
        mov     %rsp, %rdi
        mov     %rsp, %rbp
        and     $-16, %rsp
        call    trap_dispatch
        mov     %rbp, %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %r11
        pop     %r10
        pop     %r9
        pop     %r8
        pop     %rdi
        pop     %rsi
        pop     %rbp
        pop     %rbx
        pop     %rdx
        pop     %rcx
        pop     %rax
        add     $16, %rsp
        iretq

/* ---- probes: code that may trap, and the way back ------------------------------------------------------------------- */

/* struct probe_result probe_enter(uint64_t *back, const struct probe *p): runs p in ring 0 or, by IRET, where p says. Comes
 * back when the code returns (ring 0) and through probe_leave(). */
        .globl  probe_enter, probe_leave
probe_enter:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        pushfq
        mov     %rsp, (%rdi)
        mov     %rsi, %rbx
        cmpl    $0, 8(%rbx)             /* cs: 0 is a plain call */
        jne     1f
        mov     (%rbx), %rax            /* code */
        mov     16(%rbx), %rdi          /* a, b */
        mov     24(%rbx), %rsi
        call    *%rax
        mov     %rax, %rdi              /* what it returned */
        mov     $1, %eax
        jmp     probe_out
1:      mov     12(%rbx), %eax          /* ss */
        push    %rax
        pushq   32(%rbx)                /* rsp */
        pushq   40(%rbx)                /* rflags */
        mov     8(%rbx), %eax
        push    %rax
        pushq   (%rbx)
        mov     16(%rbx), %rdi
        mov     24(%rbx), %rsi
        iretq

/* void probe_leave(uint64_t rsp) */
probe_leave:
        mov     %rdi, %rsp
        xor     %eax, %eax
        xor     %edi, %edi
probe_out:
        mov     $0x10, %ecx
        mov     %ecx, %ss
        mov     %ecx, %ds
        mov     %ecx, %es
        popfq
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        mov     %rdi, %rdx
        ret

/* ---- data ----------------------------------------------------------------------------------------------------------- */

        .data
        .balign 8
boot_gdt:
        .quad   0
        .quad   0x00af9b000000ffff      /* 08: 64-bit code */
        .quad   0x00cf93000000ffff      /* 10: data */
        .quad   0x00cf9b000000ffff      /* 18: 32-bit code, for the way of the APs */
boot_gdt_end:
boot_gdt_pointer:
        .word   boot_gdt_end - boot_gdt - 1
        .quad   boot_gdt
        .globl  ap_next, ap_limit, start_info
ap_next:        .long 1
ap_limit:       .long 1
start_info:     .quad 0

        .bss
        .balign 4096
        .globl  boot_pml4, boot_pdpt, boot_pd
boot_pml4:      .skip 4096
boot_pdpt:      .skip 4096
boot_pd:        .skip 4 * 4096
boot_stack:     .skip 32768
boot_stack_end:

        .section .note.GNU-stack, "", @progbits
