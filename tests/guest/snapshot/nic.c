/*
 * nic.c - split rings of a virtio-net device (nic.h; VirtIO 1.3 §2.7, §5.1).
 *
 * Buffers are those of a descriptor for good: descriptor i of a ring is its buffer i, and goes into
 * the available ring as it comes back, so that several are always with the device. The transport is
 * the block driver's, which looks for block devices: the platform that it is given here says that a
 * network device is one.
 */
#include "nic.h"

#include "counter.h"
#include "datagram.h"
#include "platform.h"

enum { SLOTS = DATAGRAMS_IN_FLIGHT, RX = 0, TX = 1, HEADER = 12, BUFFER = HEADER + NIC_FRAME_MAX };
enum { PCI_FUNCTIONS = 256, ID_NET = 0x1041, ID_BLOCK = 0x1042, WRITABLE = 2 };
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
#define NET_F_MAC (UINT64_C(1) << 5)
#define VERSION_1 (UINT64_C(1) << 32)

static struct ring {
    struct {
        uint64_t address;
        uint32_t len;
        uint16_t flags, next;
    } desc[SLOTS];
    struct {
        uint16_t flags, idx, slot[SLOTS];
    } avail;
    struct {
        uint16_t flags, idx;
        struct {
            uint32_t slot, len;
        } done[SLOTS];
    } used __attribute__((aligned(4)));
    uint16_t taken; /* of what is used */
} rings[2] __attribute__((aligned(4096)));
static uint8_t buffers[2][SLOTS][BUFFER];
static unsigned room; /* the buffer that nic_room() gave */
static struct vblk_pci pci;
static struct vblk_platform platform;

static uint32_t net_as_block(void *ctx, uint32_t function, unsigned offset, unsigned width)
{
    const uint32_t v = bare_platform.pci_read(ctx, function, offset, width);

    return offset == 2 && width == 2 && v == ID_NET ? ID_BLOCK : v;
}

static bool find(void)
{
    platform = bare_platform;
    platform.pci_read = net_as_block;
    for (uint32_t f = 0; f < PCI_FUNCTIONS; f++)
        if (bare_platform.pci_read(NULL, f, 0, 2) != 0xffff &&
            bare_platform.pci_read(NULL, f, 2, 2) == ID_NET)
            return qz_vblk_pci_init(&pci, &platform, f) == 0;
    return false;
}

static void give(unsigned which, unsigned slot)
{
    struct ring *r = &rings[which];

    r->avail.slot[r->avail.idx % SLOTS] = (uint16_t)slot;
    __asm__ volatile("" : : : "memory"); /* x86 orders stores; so must the compiler */
    *(volatile uint16_t *)&r->avail.idx = (uint16_t)(r->avail.idx + 1);
}

/* -1: nothing came back. */
static int next_done(const struct ring *r)
{
    const uint16_t idx = *(const volatile uint16_t *)&r->used.idx;

    __asm__ volatile("" : : : "memory");
    if ((uint16_t)(idx - r->taken) > SLOTS)
        fail("buffers that came back at once", SLOTS, (uint16_t)(idx - r->taken));
    if (idx == r->taken)
        return -1;
    if (r->used.done[r->taken % SLOTS].slot >= SLOTS)
        fail("a buffer that came back", SLOTS, r->used.done[r->taken % SLOTS].slot);
    return (int)r->used.done[r->taken % SLOTS].slot;
}

static void enable(unsigned which)
{
    struct ring *r = &rings[which];
    const struct vblk_ring_addresses at = {
        .desc = (uintptr_t)r->desc, .driver = (uintptr_t)&r->avail, .device = (uintptr_t)&r->used};

    for (unsigned i = 0; i < SLOTS; i++) {
        r->desc[i].address = (uintptr_t)buffers[which][i];
        r->desc[i].len = BUFFER;
        r->desc[i].flags = which == RX ? WRITABLE : 0;
    }
    r->avail.flags = 1; /* no interrupts */
    expect("a network queue", 0,
           (uint64_t)pci.t.ops->queue_enable(&pci.t, which, SLOTS, &at, false));
}

/* Sent frames begin as if they had come back. */
static void fill_rings(void)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        give(RX, i);
        rings[TX].used.done[i].slot = i;
    }
    rings[TX].taken = (uint16_t)-SLOTS;
}

bool nic_start(uint8_t mac[6])
{
    const struct vblk_transport_ops *ops;

    if (!find())
        return false;
    ops = pci.t.ops;
    ops->set_status(&pci.t, 0);
    ops->set_status(&pci.t, ACKNOWLEDGE | DRIVER);
    ops->set_features(&pci.t, ops->get_features(&pci.t) & (NET_F_MAC | VERSION_1));
    ops->set_status(&pci.t, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    expect("the network's features", FEATURES_OK, ops->get_status(&pci.t) & FEATURES_OK);
    enable(RX);
    enable(TX);
    fill_rings();
    ops->set_status(&pci.t, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    ops->config_read(&pci.t, 0, mac, 6);
    ops->notify(&pci.t, RX, RX);
    return true;
}

/* ---- out ---- */

uint8_t *nic_room(void)
{
    int slot;

    while ((slot = next_done(&rings[TX])) < 0)
        __builtin_ia32_pause();
    rings[TX].taken++;
    room = (unsigned)slot;
    return buffers[TX][slot] + HEADER;
}

void nic_send(unsigned len)
{
    rings[TX].desc[room].len = HEADER + len;
    give(TX, room);
}

void nic_ring(void)
{
    pci.t.ops->notify(&pci.t, TX, TX);
}

/* ---- in ---- */

unsigned nic_receive(const uint8_t **frame)
{
    const struct ring *r = &rings[RX];
    const int slot = next_done(r);
    uint32_t len;

    if (slot < 0)
        return 0;
    len = r->used.done[r->taken % SLOTS].len;
    if (len <= HEADER || len > BUFFER)
        fail("the length of a frame that came", BUFFER, len);
    *frame = buffers[RX][slot] + HEADER;
    return len - HEADER;
}

void nic_give_back(void)
{
    const int slot = next_done(&rings[RX]);

    rings[RX].taken++;
    give(RX, (unsigned)slot);
    pci.t.ops->notify(&pci.t, RX, RX);
}
