/*
 * fw_cfg_fuzz.c - any sequence of port accesses, with DMA requests in guest memory made of the
 * input.
 *
 * Input: steps of an opcode byte and its operands. 0: write a port, 1: read one, 2: put a request
 * into memory and start it, otherwise reset.
 */
#include "devices/fw_cfg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEP = 20, RAM_SIZE = 2 << 20 };

static unsigned written;

static void on_written(void *context, const void *data, size_t len)
{
    written += len ? *(const uint8_t *)data : 0; /* reads what it was given */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct machine m;
    struct fw_cfg *fw;
    uint64_t v = 0;

    if (!m.pio) {
        m.cpus = 2;
        if (guest_memory_new(&m.memory, RAM_SIZE, NULL) < 0 || bus_new(&m.pio, 0x10000) < 0)
            abort();
    }
    if (fw_cfg_new(&fw, &m, NULL) < 0 || fw_cfg_add_file(fw, "etc/file", "contents", 8) < 0 ||
        fw_cfg_add_writable_file(fw, "etc/writable", 12, on_written, NULL) < 0)
        abort();
    for (; size >= STEP; data += STEP, size -= STEP) {
        unsigned width = 1u << data[1] % 4, port = 0x510 + data[2] % 12;
        uint64_t at = qz_load_le16(data + 2);

        switch (data[0] % 4) {
        case 0:
            bus_write(m.pio, port, data + 4, width);
            break;
        case 1:
            bus_read(m.pio, port, &v, width);
            break;
        case 2: { /* keys and lengths that exist are likelier than not */
            uint8_t q[16];

            memcpy(q, data + 4, sizeof(q));
            if (data[1] & 1)
                qz_store_be32(q, (uint32_t)(data[5] % 0x24) << 16 | (data[7] & 0x1f));
            if (data[1] & 2)
                qz_store_be32(q + 4, data[11] % 16);
            if (data[1] & 4)
                qz_store_be64(q + 8, qz_load_le16(data + 12));
            mem_write(&m.memory, gpa(at), q, sizeof(q));
            v = __builtin_bswap64(data[1] & 8 ? qz_load_le64(data + 12) : at);
            bus_write(m.pio, 0x514, &v, 4);
            v >>= 32;
            bus_write(m.pio, 0x518, &v, 4);
            break;
        }
        default:
            if (data[1] < 8)
                fw_cfg_reset(fw);
        }
    }
    fw_cfg_free(fw);
    return 0;
}
