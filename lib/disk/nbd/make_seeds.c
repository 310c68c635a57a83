/* make_seeds.c - a whole NBD session, for the fuzz target to mutate: requests with their magic. */
#include <queztl/base.h>

static void request(FILE *f, uint16_t flags, uint16_t command, uint64_t offset, uint32_t length)
{
    uint8_t b[28];

    qz_store_be32(b, 0x25609513);
    qz_store_be16(b + 4, flags);
    qz_store_be16(b + 6, command);
    qz_store_be64(b + 8, offset + command);
    qz_store_be64(b + 16, offset);
    qz_store_be32(b + 24, length);
    fwrite(b, sizeof(b), 1, f);
}

static void option(FILE *f, uint32_t number, const void *data, uint32_t n)
{
    uint8_t b[16];

    memcpy(b, "IHAVEOPT", 8);
    qz_store_be32(b + 8, number);
    qz_store_be32(b + 12, n);
    fwrite(b, sizeof(b), 1, f);
    if (n)
        fwrite(data, n, 1, f);
}

int main(int argc, char **argv)
{
    static const uint8_t zeroes[4096];
    FILE *f = argc == 3 ? fopen(argv[2], "we") : NULL;
    bool handshake;

    if (!f)
        return 1;
    handshake = !strcmp(argv[1], "handshake");
    fputc(handshake ? 0 : 1, f);
    if (handshake) {
        fwrite("\0\0\0\3", 4, 1, f);
        option(f, 8, NULL, 0);
        option(f, 3, NULL, 0);
        option(f, 9, "\0\0\0\1x\0\0\0\1\0\0\0\5base:", 18);
        option(f, 10, "\0\0\0\1x\0\0\0\1\0\0\0\17base:allocation", 28);
        option(f, 6, "\0\0\0\1x\0\0", 7);
        option(f, 7, "\0\0\0\1x\0\1\0\3", 9);
    }
    request(f, 0, 0, 4096, 8192);
    request(f, 1, 1, 512, sizeof(zeroes));
    fwrite(zeroes, sizeof(zeroes), 1, f);
    request(f, 0, 3, 0, 0);
    request(f, 1, 4, 4096, 4096);
    request(f, 2, 6, 0, 65536);
    request(f, 0, 7, 0, 65536);
    request(f, 0, 5, 0, 65536);
    request(f, 0, 0, 65535, 2);
    request(f, 0, 2, 0, 0);
    return fclose(f) ? 1 : 0;
}
