/*
 * pci.c - the PCI root bus: configuration space, BARs, INTx and MSI-X of every function (pci.h).
 *
 * Theory of operation. A function's configuration space is plain storage with a mask of writable
 * bits. That alone gives BAR sizing (address bits below the size are not writable) and read-only
 * headers. After a write, what depends on the bytes touched is brought up to date: BAR mappings,
 * INTx, MSI-X, then the device's own hook. Configuration mechanism #1 and ECAM are two doors to the
 * same two functions.
 *
 * Mapping BARs. A change anywhere makes update_mappings() look at every BAR of the bus in two
 * passes: first take off what should no longer be where it is, then put on whatever should be
 * somewhere and is not. A BAR that would overlap something is refused by the bus (bus_add), stays
 * unmapped, and gets its chance again at the next change. There are at most a few dozen BARs, and
 * guests move them a few times in their life.
 *
 * Bus mastering (COMMAND bit 2) is stored but stops neither DMA nor messages: the drivers that
 * forget to set it are many, and a device that a guest wants quiet is one that it resets.
 *
 * Specifications: PCI Local Bus 3.0 §3.2.2.3.2 (mechanism #1), §6.1 to §6.2.5 (header, BARs),
 * §6.8.2 (MSI-X); PCI Express 5.0 §7.2.2 (ECAM); Intel ICH9 §13.7.5 (reset control register 0xcf9).
 */
#include "devices/pci.h"

#include <linux/pci_regs.h>

enum {
    CONFIG_ADDRESS_PORT = 0xcf8,
    RESET_OFFSET = 1, /* 0xcf9 */
    CONFIG_DATA_OFFSET = 4,
    RESET_CPU = 1 << 2, /* a rise of this bit resets; SYS_RST and FULL_RST say how hard, and are all
                           the same here */
    RESET_WRITABLE = 0x0e,
    PIRQS = 8,
    PIRQ_DISABLED = 0x80,
};

struct pci_bus {
    struct machine *machine;
    pthread_mutex_t lock;
    struct pci_device *device[PCI_FUNCTIONS];
    uint32_t config_address;
    uint8_t reset_control;
    uint64_t ecam_base, ecam_size; /* as the host bridge says */
    bool ecam_mapped;
    uint64_t ecam_mapped_base, ecam_mapped_size;

    /* INTx seen by the PIC: each PIRQ is a wired OR of pins, sent to one ISA IRQ or nowhere. */
    pthread_mutex_t pirq_lock; /* inside every device's irq_lock */
    unsigned pirq_raised[PIRQS];
    uint8_t pirq_route[PIRQS];
    struct irq_line pirq_line[PIRQS];
};

/* ---- interrupts --------------------------------------------------------------------------------
 */

unsigned pci_intx_gsi(unsigned devfn, unsigned pin)
{
    return 16 + (((devfn >> 3) + pin) & 7);
}

static void pirq_show(struct pci_bus *bus, unsigned n)
{
    bool on = !(bus->pirq_route[n] & PIRQ_DISABLED);

    if (bus->machine->irq && on)
        irq_line_set(&bus->pirq_line[n], bus->pirq_raised[n] > 0);
}

void pci_bus_set_pirq(struct pci_bus *bus, unsigned n, uint8_t value)
{
    QZ_LOCKED(&bus->pirq_lock);

    if (n >= PIRQS || bus->pirq_route[n] == value)
        return;
    if (bus->machine->irq) {
        if (!(bus->pirq_route[n] & PIRQ_DISABLED))
            irq_line_set(&bus->pirq_line[n], false);
        irq_line_init(&bus->pirq_line[n], bus->machine->irq, value & 15);
    }
    bus->pirq_route[n] = value;
    pirq_show(bus, n);
}

/* irq_lock held. Brings the wire to what level, COMMAND and MSI-X together say. */
static void intx_update(struct pci_device *d)
{
    struct pci_bus *bus = d->bus;
    bool msix = d->msix_control & PCI_MSIX_FLAGS_ENABLE;
    bool disabled = qz_load_le16(d->config + PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE;
    bool wire = bus && d->pin && d->intx_level && !msix && !disabled;
    unsigned n;

    if (d->intx_level)
        d->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    else
        d->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
    if (!bus || wire == d->intx_wired)
        return;
    d->intx_wired = wire;
    if (!bus->machine->irq)
        return;
    irq_line_set(&d->line, wire);
    QZ_LOCKED(&bus->pirq_lock);
    n = pci_intx_gsi(d->devfn, d->pin - 1u) - 16;
    bus->pirq_raised[n] += wire ? 1 : -1u;
    pirq_show(bus, n);
}

void pci_intx_set(struct pci_device *d, bool level)
{
    QZ_LOCKED(&d->irq_lock);

    if (d->intx_level == level)
        return;
    d->intx_level = level;
    intx_update(d);
}

bool pci_msix_enabled(struct pci_device *d)
{
    QZ_LOCKED(&d->irq_lock);

    return d->msix_control & PCI_MSIX_FLAGS_ENABLE;
}

static bool msix_masked(const struct pci_device *d, unsigned v)
{
    return d->msix_control & PCI_MSIX_FLAGS_MASKALL ||
           d->msix_table[v * 4 + 3] & PCI_MSIX_ENTRY_CTRL_MASKBIT;
}

/* irq_lock held, MSI-X enabled, vector not masked. */
static void msix_send(struct pci_device *d, unsigned v)
{
    const uint32_t *entry = d->msix_table + v * 4;

    d->msix_pending[v / 64] &= ~QZ_BIT(v % 64);
    if (d->bus && d->bus->machine->irq)
        msi_send(d->bus->machine->irq, (uint64_t)entry[1] << 32 | entry[0], entry[2]);
}

void pci_msix_notify(struct pci_device *d, unsigned v)
{
    QZ_LOCKED(&d->irq_lock);

    if (v >= d->msix_vectors || !(d->msix_control & PCI_MSIX_FLAGS_ENABLE))
        return;
    if (msix_masked(d, v))
        d->msix_pending[v / 64] |= QZ_BIT(v % 64);
    else
        msix_send(d, v);
}

/* irq_lock held. Sends what was waiting for a mask to fall. */
static void msix_flush(struct pci_device *d)
{
    if (!(d->msix_control & PCI_MSIX_FLAGS_ENABLE) || d->msix_control & PCI_MSIX_FLAGS_MASKALL)
        return;
    for (unsigned v = 0; v < d->msix_vectors; v++)
        if (d->msix_pending[v / 64] >> v % 64 & 1 && !msix_masked(d, v))
            msix_send(d, v);
}

static unsigned msix_pba_offset(unsigned vectors)
{
    return QZ_ALIGN_UP(vectors * PCI_MSIX_ENTRY_SIZE, 2048u);
}

static unsigned msix_pba_bytes(unsigned vectors)
{
    return (vectors + 63) / 64 * 8;
}

static uint64_t msix_bar_read(void *device, uint64_t offset, unsigned size)
{
    struct pci_device *d = device;
    uint64_t pba = msix_pba_offset(d->msix_vectors), table = d->msix_vectors * PCI_MSIX_ENTRY_SIZE,
             value = 0;

    QZ_LOCKED(&d->irq_lock);
    if (offset + size <= table)
        memcpy(&value, (uint8_t *)d->msix_table + offset, size);
    else if (offset >= pba && offset + size <= pba + msix_pba_bytes(d->msix_vectors))
        memcpy(&value, (uint8_t *)d->msix_pending + (offset - pba), size);
    return value;
}

static void msix_bar_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_device *d = device;
    unsigned first, last;

    QZ_LOCKED(&d->irq_lock);
    if (offset + size > d->msix_vectors * PCI_MSIX_ENTRY_SIZE)
        return; /* the pending bits are not for software to write */
    memcpy((uint8_t *)d->msix_table + offset, &value, size);
    first = (unsigned)offset / PCI_MSIX_ENTRY_SIZE;
    last = (unsigned)(offset + size - 1) / PCI_MSIX_ENTRY_SIZE;
    for (unsigned v = first; v <= last; v++) {
        d->msix_table[v * 4] &= ~3u; /* §6.8.2.6: address bits 1:0 are zero */
        d->msix_table[v * 4 + 3] &= PCI_MSIX_ENTRY_CTRL_MASKBIT; /* the rest is reserved */
    }
    msix_flush(d);
}

static const struct bus_ops msix_bar_ops = {.read = msix_bar_read, .write = msix_bar_write};

static void msix_reset(struct pci_device *d)
{
    for (unsigned v = 0; v < d->msix_vectors; v++) {
        memset(d->msix_table + v * 4, 0, 12);
        d->msix_table[v * 4 + 3] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
    }
    if (d->msix_vectors)
        memset(d->msix_pending, 0, msix_pba_bytes(d->msix_vectors));
    d->msix_control = 0;
}

/* Command or MSI-X control may have changed. */
static void interrupts_written(struct pci_device *d)
{
    QZ_LOCKED(&d->irq_lock);

    if (d->msix_capability)
        d->msix_control = qz_load_le16(d->config + d->msix_capability + PCI_MSIX_FLAGS);
    intx_update(d);
    if (d->msix_vectors)
        msix_flush(d);
}

/* ---- BARs ---------------------------------------------------------------------------------------
 */

static bool bar_is_wide(const struct pci_bar *b)
{
    return b->kind == PCI_BAR_MEM64 || b->kind == PCI_BAR_MEM64_PREFETCH;
}

static uint64_t bar_address(const struct pci_device *d, unsigned i)
{
    const struct pci_bar *b = &d->bar[i];
    unsigned reg = PCI_BASE_ADDRESS_0 + i * 4;
    uint64_t a = qz_load_le32(d->config + reg);

    if (bar_is_wide(b))
        a |= (uint64_t)qz_load_le32(d->config + reg + 4) << 32;
    return a & ~(b->size - 1);
}

/* Whether decode is on and the BAR holds an address that can be one; sizing leaves all ones, reset
 * zero. */
static bool bar_wanted(const struct pci_device *d, unsigned i, uint64_t *base)
{
    const struct pci_bar *b = &d->bar[i];
    uint16_t command = qz_load_le16(d->config + PCI_COMMAND);
    uint64_t last;

    if (!b->size || !(command & (b->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return false;
    *base = bar_address(d, i);
    last = *base + b->size - 1;
    if (!*base || last < *base)
        return false;
    if (b->kind == PCI_BAR_IO)
        return last <= 0xffff;
    return bar_is_wide(b) ? last != UINT64_MAX : last < UINT32_MAX;
}

static struct bus *bar_bus(struct pci_device *d, const struct pci_bar *b)
{
    return b->kind == PCI_BAR_IO ? d->bus->machine->pio : d->bus->machine->mmio;
}

static void bar_unmap(struct pci_device *d, unsigned i)
{
    struct pci_bar *b = &d->bar[i];

    if (!b->mapped)
        return;
    b->mapped = false;
    bus_remove(bar_bus(d, b), b->region.base, b->size);
    if (d->ops->bar_moved)
        d->ops->bar_moved(d, i, false, b->region.base);
}

static void bar_map(struct pci_device *d, unsigned i, uint64_t base)
{
    struct pci_bar *b = &d->bar[i];

    b->region.base = base;
    if (bus_add(bar_bus(d, b), &b->region) < 0) {
        qz_guest_warn("%s: BAR %u at 0x%llx overlaps something else and stays unmapped", d->name, i,
                      (unsigned long long)base);
        return;
    }
    b->mapped = true;
    if (d->ops->bar_moved)
        d->ops->bar_moved(d, i, true, base);
}

static uint64_t ecam_read(void *device, uint64_t offset, unsigned size);
static void ecam_write(void *device, uint64_t offset, unsigned size, uint64_t value);
static const struct bus_ops ecam_ops = {.read = ecam_read, .write = ecam_write};

/* Bus lock held. */
static void update_mappings(struct pci_bus *bus)
{
    uint64_t base;

    if (bus->ecam_mapped &&
        (bus->ecam_mapped_base != bus->ecam_base || bus->ecam_mapped_size != bus->ecam_size)) {
        bus_remove(bus->machine->mmio, bus->ecam_mapped_base, bus->ecam_mapped_size);
        bus->ecam_mapped = false;
    }
    for (unsigned f = 0; f < PCI_FUNCTIONS; f++)
        for (unsigned i = 0; bus->device[f] && i < PCI_BARS; i++) {
            struct pci_bar *b = &bus->device[f]->bar[i];

            if (b->mapped && (!bar_wanted(bus->device[f], i, &base) || base != b->region.base))
                bar_unmap(bus->device[f], i);
        }
    if (!bus->ecam_mapped && bus->ecam_size) {
        struct bus_region r = {.base = bus->ecam_base,
                               .size = bus->ecam_size,
                               .ops = &ecam_ops,
                               .device = bus,
                               .name = "ecam"};

        bus->ecam_mapped = bus_add(bus->machine->mmio, &r) == 0;
        bus->ecam_mapped_base = r.base;
        bus->ecam_mapped_size = r.size;
        if (!bus->ecam_mapped)
            qz_guest_warn("ECAM at 0x%llx overlaps something else and stays unmapped",
                          (unsigned long long)r.base);
    }
    for (unsigned f = 0; f < PCI_FUNCTIONS; f++)
        for (unsigned i = 0; bus->device[f] && i < PCI_BARS; i++)
            if (!bus->device[f]->bar[i].mapped && bar_wanted(bus->device[f], i, &base))
                bar_map(bus->device[f], i, base);
}

bool pci_bar_access(struct pci_device *d, unsigned i, uint64_t offset, unsigned size,
                    uint64_t *value, bool write)
{
    struct pci_bar *b = &d->bar[i < PCI_BARS ? i : 0];

    if (i >= PCI_BARS || size > b->size || offset > b->size - size || !size)
        return false;
    if (b->region.lock)
        pthread_mutex_lock(b->region.lock);
    if (write)
        b->region.ops->write(b->region.device, offset, size, *value);
    else
        *value = b->region.ops->read(b->region.device, offset, size);
    if (b->region.lock)
        pthread_mutex_unlock(b->region.lock);
    return true;
}

/* ---- configuration space
 * ------------------------------------------------------------------------- */

static bool touches(unsigned offset, unsigned len, unsigned first, unsigned count)
{
    return offset < first + count && first < offset + len;
}

/* Bus lock held; offset + size within the 4 KiB, d may be NULL. */
static uint32_t config_read(struct pci_device *d, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    if (!d)
        return UINT32_MAX;
    if (d->ops->config_reading)
        d->ops->config_reading(d, offset, size);
    /* The interrupt status bit follows the device, on any thread. */
    QZ_LOCKED(&d->irq_lock);
    memcpy(&value, d->config + offset, size);
    return value;
}

static void config_write(struct pci_device *d, unsigned offset, unsigned size, uint32_t value)
{
    if (!d)
        return;
    {
        QZ_LOCKED(&d->irq_lock);
        for (unsigned i = 0; i < size; i++, value >>= 8) {
            uint8_t mask = d->writable[offset + i];

            d->config[offset + i] = (uint8_t)((d->config[offset + i] & ~mask) | (value & mask));
        }
    }
    if (touches(offset, size, PCI_COMMAND, 2) ||
        (d->msix_capability && touches(offset, size, d->msix_capability + PCI_MSIX_FLAGS, 2)))
        interrupts_written(d);
    if (touches(offset, size, PCI_COMMAND, 2) ||
        touches(offset, size, PCI_BASE_ADDRESS_0, 4 * PCI_BARS))
        update_mappings(d->bus);
    if (d->ops->config_written)
        d->ops->config_written(d, offset, size);
}

uint32_t pci_config_read(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned size)
{
    if (devfn >= PCI_FUNCTIONS || size > 4 || offset > PCI_CONFIG_SIZE - size)
        return UINT32_MAX;
    QZ_LOCKED(&bus->lock);
    return config_read(bus->device[devfn], offset, size);
}

void pci_config_write(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned size,
                      uint32_t value)
{
    if (devfn >= PCI_FUNCTIONS || size > 4 || offset > PCI_CONFIG_SIZE - size)
        return;
    QZ_LOCKED(&bus->lock);
    config_write(bus->device[devfn], offset, size, value);
}

/* Ports 0xcf8 to 0xcff, bus lock held. Address register: bit 31 enable, 23:16 bus, 15:8 devfn, 7:2
 * register. */
static struct pci_device *addressed(struct pci_bus *bus)
{
    uint32_t a = bus->config_address;

    return a >> 31 && !(a >> 16 & 0xff) ? bus->device[a >> 8 & 0xff] : NULL;
}

static uint64_t ports_read(void *device, uint64_t offset, unsigned size)
{
    struct pci_bus *bus = device;

    if (offset >= CONFIG_DATA_OFFSET && size <= 4)
        return config_read(addressed(bus), (bus->config_address & 0xfc) + (unsigned)(offset & 3),
                           size);
    if (offset == 0 && size == 4)
        return bus->config_address;
    if (offset == RESET_OFFSET && size == 1)
        return bus->reset_control;
    return UINT64_MAX;
}

static void ports_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_bus *bus = device;

    if (offset >= CONFIG_DATA_OFFSET && size <= 4) {
        config_write(addressed(bus), (bus->config_address & 0xfc) + (unsigned)(offset & 3), size,
                     (uint32_t)value);
    } else if (offset == 0 &&
               size == 4) { /* only whole writes are the address register (§3.2.2.3.2) */
        bus->config_address = (uint32_t)value & 0x80fffffcu;
    } else if (offset == RESET_OFFSET && size == 1) {
        bool rise = value & RESET_CPU && !(bus->reset_control & RESET_CPU);

        bus->reset_control = (uint8_t)value & RESET_WRITABLE;
        if (rise && bus->machine->request)
            bus->machine->request(bus->machine, MACHINE_RESET);
    }
}

static const struct bus_ops ports_ops = {.read = ports_read, .write = ports_write};

/* One dword at most at a time; an access over the end of a function's page goes on in the next
 * function's. */
static uint64_t ecam_read(void *device, uint64_t offset, unsigned size)
{
    struct pci_bus *bus = device;
    uint64_t value = 0;

    QZ_LOCKED(&bus->lock);
    for (unsigned done = 0; done < size;) {
        unsigned at = (unsigned)(offset + done) & (PCI_CONFIG_SIZE - 1),
                 n = QZ_MIN(size - done, 4 - (at & 3));
        uint64_t function = (offset + done) >> 12;
        uint32_t v = config_read(function < PCI_FUNCTIONS ? bus->device[function] : NULL, at, n);

        value |= (uint64_t)(v & (UINT32_MAX >> (32 - n * 8))) << done * 8;
        done += n;
    }
    return value;
}

static void ecam_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_bus *bus = device;

    QZ_LOCKED(&bus->lock);
    for (unsigned done = 0; done < size;) {
        unsigned at = (unsigned)(offset + done) & (PCI_CONFIG_SIZE - 1),
                 n = QZ_MIN(size - done, 4 - (at & 3));
        uint64_t function = (offset + done) >> 12;

        config_write(function < PCI_FUNCTIONS ? bus->device[function] : NULL, at, n,
                     (uint32_t)(value >> done * 8));
        done += n;
    }
}

void pci_bus_set_ecam(struct pci_bus *bus, uint64_t base, uint64_t size)
{
    bus->ecam_base = base;
    bus->ecam_size = size;
    update_mappings(bus);
}

/* ---- the bus
 * -------------------------------------------------------------------------------------- */

int pci_bus_new(struct pci_bus **out, struct machine *m, struct qz_error *err)
{
    struct pci_bus *bus = calloc(1, sizeof(*bus));
    struct bus_region ports = {.base = CONFIG_ADDRESS_PORT,
                               .size = 8,
                               .ops = &ports_ops,
                               .device = bus,
                               .name = "pci configuration"};
    int r;

    if (!bus)
        return qz_fail(err, -ENOMEM, "PCI bus: no memory");
    bus->machine = m;
    pthread_mutex_init(&bus->lock, NULL);
    pthread_mutex_init(&bus->pirq_lock, NULL);
    for (unsigned n = 0; n < PIRQS; n++)
        bus->pirq_route[n] = PIRQ_DISABLED;
    ports.lock = &bus->lock;
    r = bus_add(m->pio, &ports);
    if (r < 0) {
        pthread_mutex_destroy(&bus->lock);
        pthread_mutex_destroy(&bus->pirq_lock);
        free(bus);
        return qz_fail(err, r, "PCI bus: ports 0xcf8 to 0xcff are taken");
    }
    m->pci = bus;
    *out = bus;
    return 0;
}

void pci_bus_free(struct pci_bus *bus)
{
    if (!bus)
        return;
    bus_remove(bus->machine->pio, CONFIG_ADDRESS_PORT, 8);
    if (bus->ecam_mapped)
        bus_remove(bus->machine->mmio, bus->ecam_mapped_base, bus->ecam_mapped_size);
    bus->machine->pci = NULL;
    pthread_mutex_destroy(&bus->lock);
    pthread_mutex_destroy(&bus->pirq_lock);
    free(bus);
}

static void config_reset(struct pci_device *d)
{
    {
        QZ_LOCKED(&d->irq_lock);
        memcpy(d->config, d->initial, PCI_CONFIG_SIZE);
        d->intx_level = false;
        msix_reset(d);
        intx_update(d);
    }
    if (d->ops->config_written)
        d->ops->config_written(d, 0, PCI_CONFIG_SIZE);
}

void pci_bus_reset(struct pci_bus *bus)
{
    struct pci_device *list[PCI_FUNCTIONS];
    unsigned count = 0;

    pthread_mutex_lock(&bus->lock);
    bus->config_address = 0;
    bus->reset_control = 0;
    for (unsigned f = 0; f < PCI_FUNCTIONS; f++)
        if (bus->device[f]) {
            config_reset(bus->device[f]);
            list[count++] = bus->device[f];
        }
    update_mappings(bus);
    pthread_mutex_unlock(&bus->lock);
    for (unsigned i = 0; i < count; i++)
        if (list[i]->ops->reset)
            list[i]->ops->reset(list[i]);
}

bool pci_bus_busy(struct pci_bus *bus)
{
    QZ_LOCKED(&bus->lock);

    for (unsigned f = 0; f < PCI_FUNCTIONS; f++)
        if (bus->device[f] && bus->device[f]->ops->busy &&
            bus->device[f]->ops->busy(bus->device[f]))
            return true;
    return false;
}

/* ---- state --------------------------------------------------------------------------------------
 */

/* Configuration space as a loaded one may be: bits that software cannot change stay as they are. */
static void config_adopt(struct pci_device *d, const uint8_t *config)
{
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        d->config[i] = (uint8_t)((d->config[i] & ~d->writable[i]) | (config[i] & d->writable[i]));
}

static void msix_state(struct pci_device *d, struct qz_state *s)
{
    for (unsigned v = 0; v < d->msix_vectors; v++) {
        uint32_t *entry = d->msix_table + v * 4;
        bool pending = d->msix_pending[v / 64] >> v % 64 & 1;

        qz_state_group_at(s, "msix", v);
        QZ_STATE_ANY(s, "address_low", entry[0]);
        QZ_STATE_ANY(s, "address_high", entry[1]);
        QZ_STATE_ANY(s, "data", entry[2]);
        QZ_STATE(s, "control", entry[3], PCI_MSIX_ENTRY_CTRL_MASKBIT);
        QZ_STATE(s, "pending", pending, 1);
        qz_state_end(s);
        entry[0] &= ~3u;
        if (pending)
            d->msix_pending[v / 64] |= QZ_BIT(v % 64);
        else
            d->msix_pending[v / 64] &= ~QZ_BIT(v % 64);
    }
}

/* Bus lock held. */
static void function_state(struct pci_device *d, struct qz_state *s)
{
    uint8_t config[PCI_CONFIG_SIZE] = {0};
    size_t len = PCI_CONFIG_SIZE;

    {
        QZ_LOCKED(&d->irq_lock);
        while (len && !d->config[len - 1])
            len--;
        memcpy(config, d->config, len);
        qz_state_data_of(s, "config", config, &len, PCI_CONFIG_SIZE);
        QZ_STATE(s, "intx", d->intx_level, 1);
        msix_state(d, s);
        if (!qz_state_loading(s) || qz_state_failed(s))
            return;
        if (len < PCI_CONFIG_SIZE)
            memset(config + len, 0, PCI_CONFIG_SIZE - len);
        config_adopt(d, config);
    }
    interrupts_written(d);
    if (d->ops->config_written)
        d->ops->config_written(d, 0, PCI_CONFIG_SIZE);
}

void pci_bus_state(struct pci_bus *bus, struct qz_state *s)
{
    QZ_LOCKED(&bus->lock);

    qz_state_group(s, "pci");
    QZ_STATE(s, "config_address", bus->config_address, 0x80fffffc);
    QZ_STATE(s, "reset_control", bus->reset_control, RESET_WRITABLE);
    bus->config_address &= 0x80fffffcu;
    for (unsigned f = 0; f < PCI_FUNCTIONS && !qz_state_failed(s); f++)
        if (bus->device[f]) {
            qz_state_group_at(s, "function", f);
            function_state(bus->device[f], s);
            qz_state_end(s);
        }
    qz_state_end(s);
    if (qz_state_loading(s) && !qz_state_failed(s))
        update_mappings(bus);
}

uint64_t pci_high_window(const struct machine *m)
{
    uint64_t top = m->memory.high_size ? HIGH_RAM + m->memory.high_size : HIGH_RAM;

    return QZ_ALIGN_UP(top, 1ull << 30);
}

void pci_assign_resources(struct pci_bus *bus)
{
    uint64_t low = PCI_LOW_WINDOW, high = pci_high_window(bus->machine), io = PCI_IO_WINDOW;

    QZ_LOCKED(&bus->lock);
    for (unsigned f = 0; f < PCI_FUNCTIONS; f++) {
        struct pci_device *d = bus->device[f];
        uint16_t command;

        if (!d)
            continue;
        command = qz_load_le16(d->config + PCI_COMMAND) | PCI_COMMAND_MASTER;
        for (unsigned i = 0; i < PCI_BARS; i++) {
            struct pci_bar *b = &d->bar[i];
            unsigned reg = PCI_BASE_ADDRESS_0 + i * 4;
            uint64_t *at = b->kind == PCI_BAR_IO ? &io : bar_is_wide(b) ? &high : &low;
            uint64_t end = b->kind == PCI_BAR_IO ? 0x10000
                           : bar_is_wide(b)      ? UINT64_MAX
                                                 : PCI_LOW_WINDOW_END;
            uint64_t base, step;

            if (!b->size)
                continue;
            /* Whole pages of their own, so that a guest may map each alone. */
            step = b->kind == PCI_BAR_IO ? b->size : QZ_MAX(b->size, (uint64_t)4096);
            base = QZ_ALIGN_UP(*at, step);
            if (base > end - step || base < *at) {
                qz_warn("%s: no room for BAR %u (0x%llx bytes); the guest may find one", d->name, i,
                        (unsigned long long)b->size);
                continue;
            }
            *at = base + step;
            config_write(d, reg, 4, (uint32_t)base);
            if (bar_is_wide(b))
                config_write(d, reg + 4, 4, (uint32_t)(base >> 32));
            command |= b->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
        }
        if (d->pin)
            config_write(d, PCI_INTERRUPT_LINE, 1, pci_intx_gsi(d->devfn, d->pin - 1u));
        config_write(d, PCI_COMMAND, 2, command);
    }
}

/* ---- a function
 * ------------------------------------------------------------------------------------ */

void pci_device_init(struct pci_device *d, const struct pci_device_ops *ops, const char *name,
                     const struct pci_identity *id)
{
    memset(d, 0, sizeof(*d));
    d->ops = ops;
    d->name = name;
    d->pin = id->pin;
    d->capability_end = PCI_STD_HEADER_SIZEOF;
    pthread_mutex_init(&d->irq_lock, NULL);
    qz_store_le16(d->config + PCI_VENDOR_ID, id->vendor);
    qz_store_le16(d->config + PCI_DEVICE_ID, id->device);
    qz_store_le32(d->config + PCI_CLASS_REVISION, id->class_code << 8 | id->revision);
    qz_store_le16(d->config + PCI_SUBSYSTEM_VENDOR_ID, id->subsystem_vendor);
    qz_store_le16(d->config + PCI_SUBSYSTEM_ID, id->subsystem);
    d->config[PCI_INTERRUPT_PIN] = id->pin;
    qz_store_le16(d->writable + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY |
                                                 PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
                                                 PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
    d->writable[PCI_CACHE_LINE_SIZE] = 0xff;
    d->writable[PCI_INTERRUPT_LINE] = 0xff;
}

int pci_bar_init(struct pci_device *d, unsigned i, enum pci_bar_kind kind, uint64_t size,
                 const struct bus_region *region)
{
    static const uint8_t type[] = {
        [PCI_BAR_MEM32] = PCI_BASE_ADDRESS_MEM_TYPE_32,
        [PCI_BAR_MEM64] = PCI_BASE_ADDRESS_MEM_TYPE_64,
        [PCI_BAR_MEM64_PREFETCH] = PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH,
        [PCI_BAR_IO] = PCI_BASE_ADDRESS_SPACE_IO,
    };
    bool wide = kind == PCI_BAR_MEM64 || kind == PCI_BAR_MEM64_PREFETCH;
    uint64_t min = kind == PCI_BAR_IO ? 4 : 16;
    uint64_t max = kind == PCI_BAR_IO ? 256 : wide ? 1ull << 46 : 1ull << 29;
    unsigned reg = PCI_BASE_ADDRESS_0 + i * 4;

    if (i + wide >= PCI_BARS || size < min || size > max || size & (size - 1) || d->bar[i].size ||
        (i && d->bar[i - 1].size && bar_is_wide(&d->bar[i - 1])) || (wide && d->bar[i + 1].size))
        return -EINVAL;
    d->bar[i].kind = kind;
    d->bar[i].size = size;
    d->bar[i].region = *region;
    d->bar[i].region.base = 0;
    d->bar[i].region.size = size;
    qz_store_le32(d->config + reg, type[kind]);
    qz_store_le32(d->writable + reg, (uint32_t) ~(size - 1));
    if (wide)
        qz_store_le32(d->writable + reg + 4, (uint32_t)(~(size - 1) >> 32));
    return 0;
}

int pci_capability_add(struct pci_device *d, uint8_t id, const void *body, const void *mask,
                       unsigned len)
{
    unsigned at = d->capability_end;

    if (len < 2 || len > 256u - at)
        return -ENOSPC;
    d->config[at] = id;
    memcpy(d->config + at + 2, body, len - 2);
    if (mask)
        memcpy(d->writable + at + 2, mask, len - 2);
    if (d->last_capability) {
        d->config[d->last_capability + PCI_CAP_LIST_NEXT] = (uint8_t)at;
    } else {
        d->config[PCI_CAPABILITY_LIST] = (uint8_t)at;
        d->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    }
    d->last_capability = (uint8_t)at;
    d->capability_end = QZ_ALIGN_UP(at + len, 4u);
    return (int)at;
}

int pci_msix_init(struct pci_device *d, unsigned bar, unsigned vectors)
{
    uint8_t body[PCI_CAP_MSIX_SIZEOF - 2] = {0}, mask[PCI_CAP_MSIX_SIZEOF - 2] = {0};
    struct bus_region region = {.ops = &msix_bar_ops, .device = d, .name = d->name};
    uint64_t size = 4096;
    unsigned pba;
    int r;

    if (!vectors || vectors > PCI_MSIX_MAX || d->msix_vectors)
        return -EINVAL;
    pba = msix_pba_offset(vectors);
    while (size < pba + msix_pba_bytes(vectors))
        size *= 2;
    r = pci_bar_init(d, bar, PCI_BAR_MEM32, size, &region);
    if (r < 0)
        return r;
    qz_store_le16(body, (uint16_t)(vectors - 1));
    qz_store_le16(mask, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    qz_store_le32(body + PCI_MSIX_TABLE - 2, bar);
    qz_store_le32(body + PCI_MSIX_PBA - 2, pba | bar);
    r = pci_capability_add(d, PCI_CAP_ID_MSIX, body, mask, PCI_CAP_MSIX_SIZEOF);
    if (r < 0)
        return r;
    d->msix_capability = (unsigned)r;
    d->msix_table = calloc(vectors, PCI_MSIX_ENTRY_SIZE);
    d->msix_pending = calloc(1, msix_pba_bytes(vectors));
    if (!d->msix_table || !d->msix_pending) {
        free(d->msix_table);
        free(d->msix_pending);
        d->msix_table = NULL;
        d->msix_pending = NULL;
        return -ENOMEM;
    }
    d->msix_vectors = vectors;
    msix_reset(d);
    return 0;
}

int pci_add(struct pci_bus *bus, struct pci_device *d, int devfn, struct qz_error *err)
{
    QZ_LOCKED(&bus->lock);

    if (devfn < 0) {
        for (devfn = 8; devfn < PCI_FUNCTIONS; devfn += 8) {
            bool taken = false;

            for (unsigned function = 0; function < 8; function++)
                taken |= bus->device[devfn + function] != NULL;
            if (!taken)
                break;
        }
        if (devfn >= PCI_FUNCTIONS)
            return qz_fail(err, -ENOSPC, "%s: every slot of the PCI bus is taken", d->name);
    }
    if (devfn >= PCI_FUNCTIONS || bus->device[devfn])
        return qz_fail(err, -EBUSY, "%s: PCI function %02x.%x is taken", d->name, devfn >> 3,
                       devfn & 7);
    d->initial = malloc(PCI_CONFIG_SIZE);
    if (!d->initial)
        return qz_fail(err, -ENOMEM, "%s: no memory", d->name);
    memcpy(d->initial, d->config, PCI_CONFIG_SIZE);
    d->bus = bus;
    d->devfn = (uint8_t)devfn;
    if (d->pin && bus->machine->irq)
        irq_line_init(&d->line, bus->machine->irq, pci_intx_gsi(d->devfn, d->pin - 1u));
    bus->device[devfn] = d;
    if (d->ops->config_written)
        d->ops->config_written(d, 0, PCI_CONFIG_SIZE);
    update_mappings(bus);
    return 0;
}

void pci_remove(struct pci_device *d)
{
    struct pci_bus *bus = d->bus;

    if (bus) {
        pci_intx_set(d, false);
        QZ_LOCKED(&bus->lock);
        for (unsigned i = 0; i < PCI_BARS; i++)
            bar_unmap(d, i);
        bus->device[d->devfn] = NULL;
        update_mappings(bus);
    }
    d->bus = NULL;
    free(d->initial);
    free(d->msix_table);
    free(d->msix_pending);
    d->initial = NULL;
    d->msix_table = NULL;
    d->msix_pending = NULL;
    d->msix_vectors = 0;
    pthread_mutex_destroy(&d->irq_lock);
}
