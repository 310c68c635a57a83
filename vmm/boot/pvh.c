/*
 * pvh.c - entering a kernel by the PVH protocol: 32-bit protected mode, EBX at hvm_start_info.
 *
 * Xen's docs/misc/pvh.pandoc for the CPU's state, xen/include/public/arch-x86/hvm/start_info.h for
 * the structures (version 1, with the memory map).
 */
#include "boot/boot_internal.h"
#include "cpu/x86.h"

enum { START_INFO_MAGIC = 0x336ec578, START_INFO_VERSION = 1 };

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, cmdline, rsdp, memory_map;
    uint32_t memory_map_entries, reserved;
};

struct module_entry {
    uint64_t address, size, cmdline, reserved;
};

struct memory_map_entry {
    uint64_t address, size;
    uint32_t type, reserved;
};

/* What lies at BOOT_PVH_INFO. */
struct start_page {
    struct start_info info;
    struct module_entry initrd;
    struct memory_map_entry map[E820_MAX];
};

_Static_assert(sizeof(struct start_info) == 56, "start_info.h");
_Static_assert(sizeof(struct start_page) <= BOOT_PAGE_TABLE - BOOT_PVH_INFO,
               "the page at BOOT_PVH_INFO");

int boot_enter_pvh(struct guest_memory *m, const struct boot_handover *h, struct vcpu_state *bsp)
{
    struct e820_entry map[E820_MAX];
    unsigned n = boot_e820(m, true, map);
    struct start_page page = {
        .info =
            {
                .magic = START_INFO_MAGIC,
                .version = START_INFO_VERSION,
                .modules = h->initrd_size ? 1 : 0,
                .module_list =
                    h->initrd_size ? BOOT_PVH_INFO + offsetof(struct start_page, initrd) : 0,
                .cmdline = h->cmdline,
                .rsdp = BOOT_RSDP,
                .memory_map = BOOT_PVH_INFO + offsetof(struct start_page, map),
                .memory_map_entries = n,
            },
        .initrd = {.address = h->initrd, .size = h->initrd_size},
    };
    int r;

    for (unsigned i = 0; i < n; i++)
        page.map[i] = (struct memory_map_entry){map[i].base, map[i].size, map[i].type, 0};
    r = mem_write(m, gpa(BOOT_PVH_INFO), &page, sizeof(page));
    if (r == 0)
        r = boot_write_gdt(m, 32, bsp);
    bsp->tr = (struct segment){
        .limit = 0x67, .selector = 0x20, .attr = SEG_P | 0xb}; /* a busy 32-bit TSS */
    bsp->cr0 = CR0_PE | CR0_ET;
    bsp->cr3 = bsp->cr4 = bsp->efer = 0;
    bsp->gpr[RBX] = BOOT_PVH_INFO;
    bsp->rip = h->entry;
    return r;
}
