/*
 * start.S - from PVH's entry (32 bits, paging off; note 18 names it) to C in 64 bits, with the first
 * 512 GiB mapped one to one by pages of 2 MiB, which every CPU has.
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
        mov     $stack_top, %esp
        mov     %ebx, bare_start_info   /* PVH's hvm_start_info */
        mov     $pml4, %edi             /* PML4[0] -> PDPT, present and writable */
        lea     pdpt + 3, %eax
        mov     %eax, (%edi)
        mov     $pdpt, %edi             /* PDPT[n] -> directory n */
        lea     directories + 3, %eax
        xor     %ecx, %ecx
1:      mov     %eax, (%edi, %ecx, 8)
        add     $4096, %eax
        inc     %ecx
        cmp     $512, %ecx
        jne     1b
        mov     $directories, %edi      /* entry n: n times 2 MiB; present, writable, large */
        xor     %ecx, %ecx
2:      mov     %ecx, %eax
        shl     $21, %eax
        or      $0x83, %eax
        mov     %eax, (%edi, %ecx, 8)
        mov     %ecx, %eax
        shr     $11, %eax
        mov     %eax, 4(%edi, %ecx, 8)
        inc     %ecx
        cmp     $512 * 512, %ecx
        jne     2b
        mov     $pml4, %eax
        mov     %eax, %cr3
        mov     %cr4, %eax
        or      $0x20, %eax             /* PAE */
        mov     %eax, %cr4
        mov     $0xc0000080, %ecx       /* EFER.LME */
        rdmsr
        or      $0x100, %eax
        wrmsr
        mov     %cr0, %eax
        or      $0x80000001, %eax       /* PG, PE */
        mov     %eax, %cr0
        lgdt    gdt_pointer
        ljmp    $8, $long_mode

        .code64
long_mode:
        mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        call    main
        mov     $0xf4, %dx              /* isa-debug-exit: QEMU ends with 2 * al + 1 */
        out     %al, %dx
        test    %al, %al                /* our monitor has no such device: */
        jnz     3f
        mov     $0x604, %dx             /* power off: SLP_EN; S5's type is 0 there */
        mov     $1 << 13, %ax
        out     %ax, %dx
        jmp     4f
3:      mov     $0x505, %dx             /* pvpanic */
        mov     $1, %al
        out     %al, %dx
4:      cli
        hlt
        jmp     4b

        .section .rodata
        .align 8
gdt:    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
        .word 23
        .long gdt

        .data
        .globl bare_start_info
bare_start_info: .long 0

        .bss
        .align 4096
pml4:   .skip 4096
pdpt:   .skip 4096
directories: .skip 512 * 4096
        .skip 65536
stack_top:
        .section .note.GNU-stack, "", @progbits
