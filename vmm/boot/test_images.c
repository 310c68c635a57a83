/*
 * test_images.c - makes small kernel files (test_images.h).
 */
#include "boot/test_images.h"

#include <elf.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

enum { BLOCK = 8 << 20, SETUP = 1024, PAYLOAD_AT = 0x240 };

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

uint8_t test_fill(unsigned fill, size_t i)
{
    /* Runs of eight equal bytes half of the time: something for a compressor, nothing that repeats.
     */
    uint64_t z = (i >> 3) * 0x9e3779b97f4a7c15ull + fill;

    if (!fill)
        return 0;
    z = (z ^ (z >> 29)) * 0xbf58476d1ce4e5b9ull;
    z ^= z >> 32;
    return (z & 1 ? z >> 8 : z >> (8 + i % 8 * 5)) | 1;
}

struct image test_elf_make(const struct test_elf *e)
{
    const size_t note_len = e->pvh_entry ? sizeof(Elf64_Nhdr) + 4 + 8 : 0;
    const unsigned headers = e->segments + (note_len ? 1 : 0);
    size_t at = sizeof(Elf64_Ehdr) + headers * sizeof(Elf64_Phdr), len = at + note_len;
    Elf64_Ehdr eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                     .e_type = ET_EXEC,
                     .e_machine = EM_X86_64,
                     .e_version = EV_CURRENT,
                     .e_entry = e->entry,
                     .e_phoff = sizeof(eh),
                     .e_ehsize = sizeof(eh),
                     .e_phentsize = sizeof(Elf64_Phdr),
                     .e_phnum = headers};
    struct image out;

    for (unsigned i = 0; i < e->segments; i++)
        len += e->segment[i].padding + e->segment[i].size;
    len += e->tail;
    out = (struct image){must(calloc(1, len)), len};
    memcpy(out.data, &eh, sizeof(eh));
    if (note_len) {
        Elf64_Phdr ph = {.p_type = PT_NOTE,
                         .p_offset = at,
                         .p_filesz = note_len,
                         .p_memsz = note_len,
                         .p_align = 4};
        Elf64_Nhdr nh = {.n_namesz = 4, .n_descsz = 8, .n_type = 18};

        memcpy(out.data + sizeof(eh) + e->segments * sizeof(ph), &ph, sizeof(ph));
        memcpy(out.data + at, &nh, sizeof(nh));
        memcpy(out.data + at + sizeof(nh), "Xen", 4);
        qz_store_le64(out.data + at + sizeof(nh) + 4, e->pvh_entry);
        at += note_len;
    }
    for (unsigned i = 0; i < e->segments; i++) {
        const struct test_segment *s = &e->segment[i];
        Elf64_Phdr ph = {.p_type = PT_LOAD,
                         .p_filesz = s->size,
                         .p_memsz = s->memsz,
                         .p_paddr = s->paddr,
                         .p_align = 1};

        at += s->padding;
        ph.p_offset = at;
        memcpy(out.data + sizeof(eh) + i * sizeof(ph), &ph, sizeof(ph));
        for (size_t k = 0; k < s->size; k++)
            out.data[at + k] = test_fill(s->fill, k);
        at += s->size;
    }
    return out;
}

static size_t pack_gzip(const struct image *in, uint8_t *out, size_t max)
{
    z_stream z = {.next_in = in->data, .avail_in = in->len, .next_out = out, .avail_out = max};

    if (deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK ||
        deflate(&z, Z_FINISH) != Z_STREAM_END)
        abort();
    deflateEnd(&z);
    return max - z.avail_out;
}

static size_t pack_xz(const struct image *in, uint8_t *out, size_t max)
{
    size_t n = 0;

    if (lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, NULL, in->data, in->len, out, &n, max) !=
        LZMA_OK)
        abort();
    return n;
}

static size_t pack_lz4(const struct image *in, uint8_t *out, size_t max)
{
    size_t n = 4;

    memcpy(out, "\x02\x21\x4c\x18", 4);
    for (size_t at = 0; at < in->len; at += BLOCK) {
        int len =
            LZ4_compress_default((const char *)in->data + at, (char *)out + n + 4,
                                 (int)QZ_MIN(in->len - at, (size_t)BLOCK), (int)(max - n - 4));

        if (len <= 0)
            abort();
        qz_store_le32(out + n, len);
        n += 4 + len;
    }
    return n;
}

static size_t pack(const struct image *in, enum compression c, uint8_t *out, size_t max)
{
    static const char *const left_alone[] = {[COMPRESSION_BZIP2] = "BZh9",
                                             [COMPRESSION_LZMA] = "\x5d\0\0\x80",
                                             [COMPRESSION_LZO] = "\x89LZO",
                                             [COMPRESSION_UNKNOWN] = "????"};
    size_t n;

    switch (c) {
    case COMPRESSION_NONE:
        memcpy(out, in->data, in->len);
        return in->len; /* and no size behind it */
    case COMPRESSION_GZIP:
        return pack_gzip(in, out, max);
    case COMPRESSION_XZ:
        n = pack_xz(in, out, max);
        break;
    case COMPRESSION_ZSTD:
        n = ZSTD_compress(out, max, in->data, in->len, 3);
        break;
    case COMPRESSION_LZ4:
        n = pack_lz4(in, out, max);
        break;
    default:
        memcpy(out, left_alone[c], 4);
        n = 4;
    }
    qz_store_le32(out + n, in->len);
    return n + 4;
}

struct image test_bzimage_make(const struct image *elf, enum compression c)
{
    const size_t max = SETUP + PAYLOAD_AT + elf->len * 2 + 65536;
    struct image out = {must(calloc(1, max)), 0};
    uint8_t *d = out.data;
    size_t n = pack(elf, c, d + SETUP + PAYLOAD_AT, max - SETUP - PAYLOAD_AT - 8);

    d[0x1f1] = SETUP / 512 - 1;       /* setup_sects */
    qz_store_le16(d + 0x1fe, 0xaa55); /* boot_flag */
    d[0x200] = 0xeb;                  /* jump */
    d[0x201] = 0x6a;                  /* to 0x26c: the header's end */
    memcpy(d + 0x202, "HdrS", 4);
    qz_store_le16(d + 0x206, 0x20f);      /* version */
    d[0x211] = 1;                         /* loadflags: LOADED_HIGH */
    qz_store_le32(d + 0x22c, 0x7fffffff); /* initrd_addr_max */
    qz_store_le32(d + 0x230, 0x200000);   /* kernel_alignment */
    d[0x234] = 1;                         /* relocatable_kernel */
    qz_store_le16(d + 0x236, 1);          /* xloadflags: XLF_KERNEL_64 */
    qz_store_le32(d + 0x238, 2047);       /* cmdline_size */
    qz_store_le32(d + 0x248, PAYLOAD_AT); /* payload_offset */
    qz_store_le32(d + 0x24c, n);          /* payload_length */
    qz_store_le64(d + 0x258, 0x200000);   /* pref_address */
    qz_store_le32(d + 0x260, 0x100000);   /* init_size */
    memcpy(d + SETUP, "protected-mode code", 19);
    out.len = SETUP + PAYLOAD_AT + n;
    return out;
}

void test_image_free(struct image *i)
{
    free(i->data);
    *i = (struct image){NULL, 0};
}
