/*
 * pci_fuzz.c - a guest that writes anything to the PCI bus of a q35 machine with a virtio device on
 * it.
 *
 * The input is a list of 12-byte operations: configuration accesses by both mechanisms, BAR
 * accesses wherever the BAR is, plain port and memory accesses at any address, ring contents, turns
 * of the loop, and resets. Buses, interrupt controllers and memory are the real ones. Ends with a
 * check that the device still works after a reset.
 */
#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "devices/pci_q35.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/test_echo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OPERATION = 12, FIRST_DEVICE = PCI_DEVFN(1, 0) };

static struct vtest_machine *tm;
static struct pci_q35 *q35;
static struct echo echo;
static struct virtio_pci *vp;

static void build(void)
{
    tm = vtest_machine_new(4 << 20);
    tm->doorbells = true;
    echo_init(&echo, &tm->m, tm->m.main_loop);
    if (pci_q35_new(&q35, &tm->m, NULL, NULL, NULL) < 0 || virtio_pci_new(&vp, &echo.d, NULL) < 0)
        abort();
}

static void must(bool ok)
{
    if (!ok)
        abort();
}

static uint64_t bar(unsigned i)
{
    uint64_t a = vtest_config_read(tm, FIRST_DEVICE, PCI_BASE_ADDRESS_0 + i * 4, 4) & ~15u;

    return i == 4 ? a | (uint64_t)vtest_config_read(tm, FIRST_DEVICE, PCI_BASE_ADDRESS_5, 4) << 32
                  : a;
}

/* Sets up and uses VIRTIO_PCI_CAP_PCI_CFG, wherever it is. */
static void window(bool write, unsigned how, uint32_t offset, uint32_t value)
{
    static const uint8_t length[] = {1, 2, 4, 4, 2, 1, 0, 3};
    unsigned at = vtest_config_read(tm, FIRST_DEVICE, PCI_CAPABILITY_LIST, 1);

    while (at && (vtest_config_read(tm, FIRST_DEVICE, at, 1) != PCI_CAP_ID_VNDR ||
                  vtest_config_read(tm, FIRST_DEVICE, at + VIRTIO_PCI_CAP_CFG_TYPE, 1) !=
                      VIRTIO_PCI_CAP_PCI_CFG))
        at = vtest_config_read(tm, FIRST_DEVICE, at + PCI_CAP_LIST_NEXT, 1);
    must(at);
    vtest_config_write(tm, FIRST_DEVICE, at + VIRTIO_PCI_CAP_BAR, 1, how & 1 ? 4 : value & 7);
    vtest_config_write(tm, FIRST_DEVICE, at + VIRTIO_PCI_CAP_OFFSET, 4,
                       offset & (how & 2 ? ~3u : ~0u));
    vtest_config_write(tm, FIRST_DEVICE, at + VIRTIO_PCI_CAP_LENGTH, 4, length[how]);
    if (write)
        vtest_config_write(tm, FIRST_DEVICE, at + 16, 4, value);
    else
        vtest_config_read(tm, FIRST_DEVICE, at + 16, 4);
}

/* The bus as at power-on, then the machine must work. */
static void restart(void)
{
    struct vtest *t;
    uint8_t out[32] = "still alive", in[32];
    uint32_t written;

    echo_release(&echo);
    pci_bus_reset(tm->m.pci);
    must(!pci_bus_busy(tm->m.pci));
    pci_assign_resources(tm->m.pci);
    tm->msi_count = 0;
    tm->memory_top = tm->m.memory.low_size;
    echo.hold = echo.suppress = false;
    t = vtest_open(tm, ECHO_ID);
    must(t && vtest_negotiate(t, 0, echo.notified & 1) == 0);
    must(vtest_request(t, 0, &(struct iovec){out, sizeof(out)}, 1, &(struct iovec){in, sizeof(in)},
                       1, &written) == 0);
    must(written == sizeof(in) && !memcmp(in, out, sizeof(in)) && vtest_msi_count(tm, 1) == 1);
    vtest_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool built;

    if (!built) {
        build();
        built = true;
    }
    pci_assign_resources(tm->m.pci);
    for (unsigned n = 0; size >= OPERATION && n < 512; data += OPERATION, size -= OPERATION, n++) {
        uint8_t kind = data[0];
        unsigned width = 1u << (data[1] & 3), narrow = QZ_MIN(width, 4u),
                 reg = qz_load_le16(data + 2);
        uint64_t value = qz_load_le64(data + 4);
        unsigned devfn = data[1] & 0x80 ? 0 : data[1] & 0x40 ? PCI_DEVFN(31, 0) : FIRST_DEVICE;
        bool write = data[1] & 4;
        uint64_t at;

        switch (kind % 14) {
        case 0:
        case 1:
            reg &= 0xff;
            if (write)
                vtest_config_write(tm, devfn, reg, narrow, (uint32_t)value);
            else
                vtest_config_read(tm, devfn, reg, narrow);
            break;
        case 2:
            at = vtest_ecam(tm, devfn, reg & (PCI_CONFIG_SIZE - 1));
            if (write)
                vtest_mmio_write(tm, at, width, value);
            else
                vtest_mmio_read(tm, at, width);
            break;
        case 3: /* MSI-X table */
            at = bar(1) + (reg & 0xfff);
            if (write)
                vtest_mmio_write(tm, at, width, value);
            else
                vtest_mmio_read(tm, at, width);
            break;
        case 4:
        case 5: /* common configuration, mostly */
            at = bar(4) + (data[1] & 8 ? reg & 63 : reg & 0x3fff);
            if (write)
                vtest_mmio_write(tm, at, width, data[1] & 16 ? value & 0xff : value);
            else
                vtest_mmio_read(tm, at, width);
            break;
        case 6: /* a register at its own size, with a value that tends to mean something */
            at = bar(4);
            if (data[1] & 8) {
                vtest_mmio_write(tm, at + VIRTIO_PCI_COMMON_Q_SELECT, 2, data[1] >> 4 & 1);
                vtest_mmio_write(tm, at + VIRTIO_PCI_COMMON_Q_DESCLO + reg % 3 * 8, 8,
                                 value & 0x3ffff0);
                vtest_mmio_write(tm, at + VIRTIO_PCI_COMMON_Q_ENABLE, 2, data[1] >> 5 & 1);
            } else {
                static const uint8_t status[] = {0, 1, 3, 11, 15, 15, 15, 0x8f};

                vtest_mmio_write(tm, at + VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
                vtest_mmio_write(tm, at + VIRTIO_PCI_COMMON_GF, 4, (value & 0x104) | 1);
                vtest_mmio_write(tm, at + VIRTIO_PCI_COMMON_STATUS, 1, status[reg % 8]);
            }
            break;
        case 7: /* any port, half of the time the bus's own */
            if (data[1] & 8)
                reg = 0xcf8 + reg % 8;
            if (write)
                bus_write(tm->m.pio, reg, &value, narrow);
            else
                bus_read(tm->m.pio, reg, &value, narrow);
            break;
        case 8: { /* any memory-mapped address, of any odd length */
            uint64_t junk = 0;

            if (write)
                bus_write(tm->m.mmio, value, &junk, 1u + data[2] % 8);
            else
                bus_read(tm->m.mmio, value, &junk, 1u + data[2] % 8);
            break;
        }
        case 9: { /* ring contents */
            uint8_t *p = vtest_mem(tm, gpa(qz_load_le32(data + 4) & 0x3ffff8), 8);

            if (p)
                qz_store_le64(p, qz_load_le64(data + 4) >> (data[1] & 31));
            break;
        }
        case 10:
            echo.hold = data[1] & 8;
            echo.suppress = data[1] & 16;
            vtest_mmio_write(tm, bar(4) + 0x3000 + (reg & 7), 2, value);
            vtest_run(tm, 0);
            break;
        case 11: /* the window, mostly set up as it should be */
            window(write, data[1] >> 3 & 7, data[1] & 0x40 ? (uint32_t)value : reg & 0x3fff,
                   (uint32_t)(value >> 32));
            break;
        case 12:
            if (write) {
                vtest_mmio_write(tm, bar(4) + VIRTIO_PCI_COMMON_Q_SELECT, 2, reg & 1);
                vtest_mmio_write(tm, bar(4) + 58, 2, 1); /* queue_reset */
                break;
            }
            pthread_mutex_lock(&echo.d.lock);
            virtio_config_changed(&echo.d);
            pthread_mutex_unlock(&echo.d.lock);
            break;
        default:
            if (data[1] & 8)
                echo_release(&echo);
            else if (data[1] & 16)
                pci_bus_reset(tm->m.pci);
            else if (data[1] & 32)
                pci_assign_resources(tm->m.pci);
        }
        must(echo.d.queue[0].in_flight + echo.d.queue[1].in_flight <= echo.held);
    }
    restart();
    return 0;
}
