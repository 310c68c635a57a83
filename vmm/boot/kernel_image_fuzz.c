/*
 * kernel_image_fuzz.c - hostile kernel files through the whole loader, into a small machine's
 * memory.
 */
#include "boot/boot_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct guest_memory memory = {.fd = -1};
    static struct vcpu_state bsp;
    const struct boot_kernel kernel = {.kernel_path = "fuzz",
                                       .cmdline = "console=ttyS0",
                                       .extra_initrd = "archive",
                                       .extra_initrd_size = 7,
                                       .protocol = size ? data[size - 1] % 3 - 1 : -1};
    struct boot_report report;
    struct qz_error err = {0};
    uint64_t entry;
    int r;

    if (memory.fd < 0 && guest_memory_new(&memory, 8 << 20, &err) < 0)
        abort();
    vcpu_state_reset(&bsp, true, 0);
    r = boot_load_image(&memory, &kernel, data, size, &bsp, &report, &err);
    /* A failure says why; what was taken begins in RAM above the boot data. */
    if (r < 0 ? !err.code || !err.text[0] : bsp.rip < BOOT_KERNEL_MIN || bsp.rip >= memory.low_size)
        abort();
    elf_pvh_entry(data, size, &entry);
    return 0;
}
