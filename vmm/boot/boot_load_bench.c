/*
 * boot_load_bench.c - how long a kernel and an initrd take to get into guest memory.
 *
 *     boot_load_bench KERNEL [INITRD [ROUNDS]]   (INITRD may be "")
 *
 * Each round takes a fresh machine memory of 512 MiB; prints the best and the middle time in
 * milliseconds.
 */
#include "boot/boot.h"

static int by_value(const void *a, const void *b)
{
    double d = *(const double *)a - *(const double *)b;

    return d < 0 ? -1 : d > 0;
}

int main(int argc, char **argv)
{
    static struct vcpu_state bsp;
    const struct boot_kernel kernel = {.kernel_path = argv[1],
                                       .initrd_path = argc > 2 && argv[2][0] ? argv[2] : NULL,
                                       .cmdline = "console=ttyS0",
                                       .protocol = -1};
    int rounds = argc > 3 ? atoi(argv[3]) : 21;
    struct boot_report report;
    struct qz_error err;
    double ms[1001];

    if (argc < 2 || rounds < 1 || rounds > 1001) {
        fprintf(stderr, "usage: %s KERNEL [INITRD [ROUNDS]]\n", argv[0]);
        return 2;
    }
    for (int i = 0; i < rounds; i++) {
        struct guest_memory m;
        int64_t start;

        if (guest_memory_new(&m, 512ull << 20, &err) < 0) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        vcpu_state_reset(&bsp, true, 0);
        start = qz_now_ns();
        if (boot_kernel_load(&m, &kernel, &bsp, &report, &err) < 0) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        ms[i] = (qz_now_ns() - start) / 1e6;
        guest_memory_free(&m);
    }
    qsort(ms, rounds, sizeof(ms[0]), by_value);
    printf("%s, %s, %llu bytes unpacked, entry 0x%llx: best %.2f ms, median %.2f ms of %d\n",
           report.protocol, report.compression, (unsigned long long)report.kernel_bytes,
           (unsigned long long)report.entry, ms[0], ms[rounds / 2], rounds);
    return 0;
}
