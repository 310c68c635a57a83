/*
 * e820.c - the memory map that kernels and firmware are told (boot.h). ACPI 6.5 §15 "System Address
 * Map Interfaces".
 */
#include "boot/boot.h"

#include "devices/pci.h"
#include "devices/vmgenid.h"

enum { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3 };

#define EBDA_START                                                                                 \
    0x9fc00ull /* the top KiB of conventional memory, where a BIOS keeps its data                  \
                */
#define BIOS_START 0xe0000ull
#define ONE_MIB    0x100000ull

unsigned boot_e820(const struct guest_memory *m, bool acpi_reserved,
                   struct e820_entry map[E820_MAX])
{
    unsigned n = 0;

    if (acpi_reserved) {
        uint64_t acpi = m->low_size - BOOT_ACPI_SIZE;

        map[n++] = (struct e820_entry){0, EBDA_START, E820_RAM};
        map[n++] = (struct e820_entry){EBDA_START, 0xa0000 - EBDA_START, E820_RESERVED};
        map[n++] = (struct e820_entry){BIOS_START, ONE_MIB - BIOS_START, E820_RESERVED};
        if (acpi > ONE_MIB)
            map[n++] = (struct e820_entry){ONE_MIB, acpi - ONE_MIB, E820_RAM};
        map[n++] = (struct e820_entry){acpi, BOOT_ACPI_SIZE, E820_ACPI};
        map[n++] = (struct e820_entry){PCI_ECAM_DEFAULT, PCI_ECAM_SIZE, E820_RESERVED};
    } else {
        map[n++] = (struct e820_entry){0, m->low_size, E820_RAM};
    }
    map[n++] = (struct e820_entry){VMGENID_BASE, VMGENID_PAGE, E820_RESERVED};
    if (m->high_size)
        map[n++] = (struct e820_entry){HIGH_RAM, m->high_size, E820_RAM};
    return n;
}
