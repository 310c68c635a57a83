/*
 * make_seeds.c - writes one small kernel of each kind into a folder, as seeds for
 * kernel_image_fuzz.
 *
 *     make_seeds DIRECTORY
 */
#include "boot/test_images.h"

static void save(const char *dir, const char *name, const struct image *i)
{
    char path[4096];
    FILE *f;

    snprintf(path, sizeof(path), "%s/seed-%s", dir, name);
    f = fopen(path, "wb");
    if (!f || fwrite(i->data, 1, i->len, f) != i->len || fclose(f)) {
        perror(path);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    const struct test_elf e = {
        .entry = 0x200040,
        .pvh_entry = 0x200080,
        .segments = 2,
        .segment = {{0x200000, 0x2000, 0x400, 1, 64}, {0x204123, 0x1000, 0x300, 2, 0}},
        .tail = 100,
    };
    struct image elf = test_elf_make(&e);

    if (argc != 2)
        return 2;
    save(argv[1], "elf", &elf);
    for (enum compression c = COMPRESSION_NONE; c <= COMPRESSION_BZIP2; c++) {
        struct image bz = test_bzimage_make(&elf, c);

        save(argv[1], compression_name(c), &bz);
        test_image_free(&bz);
    }
    test_image_free(&elf);
    return 0;
}
