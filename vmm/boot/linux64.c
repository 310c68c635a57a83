/*
 * linux64.c - entering a kernel by the 64-bit boot protocol (Documentation/arch/x86/boot.rst
 * "64-bit Boot Protocol").
 *
 * The CPU is in long mode with the first 4 GiB mapped to themselves by 2 MiB pages (1 GiB pages are
 * a CPU feature that a model may lack), interrupts off, RSI at the zero page.
 */
#include <asm/bootparam.h>

#include "boot/boot_internal.h"
#include "cpu/x86.h"

_Static_assert(sizeof(struct boot_params) == 4096, "the zero page is a page");
_Static_assert(offsetof(struct boot_params, hdr) == BZIMAGE_HEADER, "the setup header's place");
_Static_assert(E820_MAX <= E820_MAX_ENTRIES_ZEROPAGE, "the memory map fits");

enum {
    PAGE = 4096,
    DIRECTORIES = 4,         /* 1 GiB each */
    LOADER_UNDEFINED = 0xff, /* type_of_loader: none of the assigned numbers */
    HEAP_END = 0xe000,
};

int boot_write_gdt(struct guest_memory *m, unsigned bits, struct vcpu_state *bsp)
{
    /* Null, unused, code at 0x10, data at 0x18, TSS at 0x20 (two entries in long mode), as
     * vcpu_state_flat() loads. */
    const uint64_t gdt[] = {0,
                            0,
                            bits == 64 ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull,
                            0x00cf93000000ffffull,
                            0x00008b0000000067ull,
                            0};

    vcpu_state_flat(bsp, bits);
    bsp->gdt.base = BOOT_GDT;
    bsp->gdt.limit = sizeof(gdt) - 1;
    bsp->idt =
        (struct descriptor_table){0, 0}; /* no interrupt is taken before the kernel loads its own */
    bsp->rflags = 2;
    memset(bsp->gpr, 0, sizeof(bsp->gpr));
    return mem_write(m, gpa(BOOT_GDT), gdt, sizeof(gdt));
}

/* PML4, PDPT, then DIRECTORIES page directories, one page each. */
static int write_page_tables(struct guest_memory *m)
{
    const uint64_t link = PTE_P | PTE_W | PTE_A;
    uint64_t pdpt = BOOT_PAGE_TABLE + PAGE, table[512] = {pdpt | link};
    int r = mem_write(m, gpa(BOOT_PAGE_TABLE), table, sizeof(table));

    table[0] = 0;
    for (uint64_t i = 0; i < DIRECTORIES; i++)
        table[i] = (pdpt + (i + 1) * PAGE) | link;
    if (r == 0)
        r = mem_write(m, gpa(pdpt), table, sizeof(table));
    for (uint64_t i = 0; i < DIRECTORIES && r == 0; i++) {
        for (uint64_t k = 0; k < 512; k++)
            table[k] = (i << 30 | k << 21) | link | PTE_PS | PTE_D;
        r = mem_write(m, gpa(pdpt + (i + 1) * PAGE), table, sizeof(table));
    }
    return r;
}

static int write_zero_page(struct guest_memory *m, const struct boot_handover *h)
{
    struct boot_params zero_page = {0};
    struct setup_header *hdr = &zero_page.hdr;
    struct e820_entry map[E820_MAX];
    unsigned n = boot_e820(m, true, map);

    if (h->bzimage) {
        memcpy(hdr, h->bzimage->header, QZ_MIN(h->bzimage->header_len, sizeof(*hdr)));
    } else { /* an ELF image brings no header: what a kernel looks at of it */
        hdr->boot_flag = 0xaa55;
        memcpy(&hdr->header, "HdrS", 4);
        hdr->version = 0x20c;
        hdr->loadflags = LOADED_HIGH;
    }
    hdr->type_of_loader = LOADER_UNDEFINED;
    hdr->loadflags |= CAN_USE_HEAP;
    hdr->loadflags &= ~QUIET_FLAG;
    hdr->heap_end_ptr = HEAP_END;
    hdr->setup_data = 0; /* no pointer from the file is followed by the kernel */
    hdr->cmd_line_ptr = (uint32_t)h->cmdline;
    zero_page.ext_cmd_line_ptr = h->cmdline >> 32;
    hdr->ramdisk_image = (uint32_t)h->initrd;
    zero_page.ext_ramdisk_image = h->initrd >> 32;
    hdr->ramdisk_size = (uint32_t)h->initrd_size;
    zero_page.ext_ramdisk_size = h->initrd_size >> 32;
    zero_page.acpi_rsdp_addr = BOOT_RSDP;
    zero_page.e820_entries = n;
    for (unsigned i = 0; i < n; i++)
        zero_page.e820_table[i] = (struct boot_e820_entry){map[i].base, map[i].size, map[i].type};
    return mem_write(m, gpa(BOOT_ZERO_PAGE), &zero_page, sizeof(zero_page));
}

int boot_enter_linux64(struct guest_memory *m, const struct boot_handover *h,
                       struct vcpu_state *bsp)
{
    int r = write_zero_page(m, h);

    if (r == 0)
        r = write_page_tables(m);
    if (r == 0)
        r = boot_write_gdt(m, 64, bsp);
    bsp->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    bsp->cr3 = BOOT_PAGE_TABLE;
    bsp->cr4 = CR4_PAE;
    bsp->efer = EFER_LME | EFER_LMA;
    bsp->gpr[RSI] = BOOT_ZERO_PAGE;
    bsp->rip = h->entry;
    return r;
}
