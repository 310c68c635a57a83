/*
 * acpi_pm.c - ACPI fixed hardware as the ICH9 has it (ACPI 6.4 §4.8, ICH9 datasheet §13.8.3).
 *
 * 0x00 PM1_STS, 0x02 PM1_EN, 0x04 PM1_CNT, 0x08 PM_TMR (24 bit, 3.579545 MHz), 0x20 GPE0_STS and
 * GPE0_EN, 0x30 SMI_EN, 0x34 SMI_STS. The SCI is level triggered on GSI 9.
 */
#include "devices/acpi_pm.h"

#include <assert.h>

enum {
    PM1_STS = 0x00,
    PM1_EN = 0x02,
    PM1_CNT = 0x04,
    PM_TMR = 0x08,
    GPE0 = 0x20,
    GPE0_LEN = 16,
    SMI_EN = 0x30
};
enum { BLOCK_SIZE = 128 };
_Static_assert(ACPI_GPES == GPE0_LEN / 2 * 8, "half of the block is status");
enum {
    TMR = 1 << 0,
    GBL = 1 << 5,
    PWRBTN = 1 << 8,
    SLPBTN = 1 << 9,
    RTC_EVENT = 1 << 10,
    WAK = 1 << 15
};
enum { SCI_EN = 1 << 0, SLP_TYP_SHIFT = 10, SLP_TYP_MASK = 7 << SLP_TYP_SHIFT, SLP_EN = 1 << 13 };
enum { PM_TIMER_HZ = 3579545, PM_TIMER_BITS = 24 };

struct acpi_pm {
    struct machine *machine;
    pthread_mutex_t lock;
    struct irq_line sci;
    struct vm_timer overflow;
    uint16_t base;
    bool mapped;
    uint16_t pm1_sts, pm1_en, pm1_cnt;
    uint32_t smi_en;
    uint8_t gpe[GPE0_LEN]; /* first half status, second half enable */
};

static uint64_t ticks(struct acpi_pm *pm)
{
    return (unsigned __int128)vm_clock_now(pm->machine->clock) * PM_TIMER_HZ / 1000000000;
}

static bool gpe_pending(const struct acpi_pm *pm)
{
    for (int i = 0; i < GPE0_LEN / 2; i++)
        if (pm->gpe[i] & pm->gpe[GPE0_LEN / 2 + i])
            return true;
    return false;
}

/* Lock held. TMR_STS is set when bit 23 toggles; the timer is armed only while its interrupt is
 * enabled. */
static void update(struct acpi_pm *pm)
{
    bool level = pm->pm1_sts & pm->pm1_en & (TMR | GBL | PWRBTN | SLPBTN | RTC_EVENT);

    irq_line_set(&pm->sci, pm->pm1_cnt & SCI_EN && (level || gpe_pending(pm)));
    if (pm->pm1_en & TMR && !(pm->pm1_sts & TMR)) {
        uint64_t half = 1ull << (PM_TIMER_BITS - 1), next = ticks(pm) / half * half + half;

        vm_timer_arm(&pm->overflow, (unsigned __int128)next * 1000000000 / PM_TIMER_HZ + 1);
    } else {
        vm_timer_cancel(&pm->overflow);
    }
}

static void on_overflow(struct vm_timer *t)
{
    struct acpi_pm *pm = QZ_CONTAINER_OF(t, struct acpi_pm, overflow);
    QZ_LOCKED(&pm->lock);

    if (pm->pm1_en & TMR)
        pm->pm1_sts |= TMR;
    update(pm);
}

static uint8_t read_byte(struct acpi_pm *pm, uint64_t offset)
{
    if (offset >= PM_TMR && offset < PM_TMR + 4)
        return (ticks(pm) & ((1 << PM_TIMER_BITS) - 1)) >> (offset - PM_TMR) * 8;
    if (offset >= GPE0 && offset < GPE0 + GPE0_LEN)
        return pm->gpe[offset - GPE0];
    switch (offset) {
    case PM1_STS:
    case PM1_STS + 1:
        return pm->pm1_sts >> (offset - PM1_STS) * 8;
    case PM1_EN:
    case PM1_EN + 1:
        return pm->pm1_en >> (offset - PM1_EN) * 8;
    case PM1_CNT:
    case PM1_CNT + 1:
        return pm->pm1_cnt >> (offset - PM1_CNT) * 8;
    case SMI_EN:
    case SMI_EN + 1:
    case SMI_EN + 2:
    case SMI_EN + 3:
        return pm->smi_en >> (offset - SMI_EN) * 8;
    }
    return 0;
}

static uint64_t pm_read(void *device, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = device;
    uint64_t v = 0;

    if (offset == PM_TMR && size == 4) /* one consistent reading */
        return ticks(pm) & ((1 << PM_TIMER_BITS) - 1);
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)read_byte(pm, offset + i) << i * 8;
    return v;
}

static void write_control(struct acpi_pm *pm)
{
    unsigned type = (pm->pm1_cnt & SLP_TYP_MASK) >> SLP_TYP_SHIFT;

    if (!(pm->pm1_cnt & SLP_EN))
        return;
    pm->pm1_cnt &= ~SLP_EN; /* write only: starts the transition */
    if (type == ACPI_SLEEP_S5)
        pm->machine->request(pm->machine, MACHINE_POWEROFF);
    else
        qz_guest_warn("acpi: guest asked for sleep type %u; only S5 (power off) exists", type);
}

static void write_byte(struct acpi_pm *pm, uint64_t offset, uint8_t v)
{
    unsigned shift = offset % 2 * 8;

    if (offset >= GPE0 && offset < GPE0 + GPE0_LEN / 2) {
        pm->gpe[offset - GPE0] &= ~v; /* write one to clear */
        return;
    }
    if (offset >= GPE0 + GPE0_LEN / 2 && offset < GPE0 + GPE0_LEN) {
        pm->gpe[offset - GPE0] = v;
        return;
    }
    switch (offset) {
    case PM1_STS:
    case PM1_STS + 1:
        pm->pm1_sts &= ~((uint16_t)v << shift);
        break;
    case PM1_EN:
    case PM1_EN + 1:
        pm->pm1_en = (pm->pm1_en & ~(0xff << shift)) | (uint16_t)v << shift;
        break;
    case PM1_CNT:
    case PM1_CNT + 1:
        pm->pm1_cnt = (pm->pm1_cnt & ~(0xff << shift)) | (uint16_t)v << shift;
        /* There is no SMM: the hand-over to ACPI mode has happened at reset, and stays. */
        pm->pm1_cnt |= SCI_EN;
        write_control(pm);
        break;
    case SMI_EN:
    case SMI_EN + 1:
    case SMI_EN + 2:
    case SMI_EN + 3:
        shift = (offset - SMI_EN) * 8;
        pm->smi_en = (pm->smi_en & ~(0xffu << shift)) | (uint32_t)v << shift;
        break;
    }
}

static void pm_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_pm *pm = device;

    for (unsigned i = 0; i < size; i++)
        write_byte(pm, offset + i, value >> i * 8);
    update(pm);
}

static const struct bus_ops ops = {pm_read, pm_write};

bool acpi_pm_power_button(struct acpi_pm *pm)
{
    QZ_LOCKED(&pm->lock);

    pm->pm1_sts |= PWRBTN;
    update(pm);
    return pm->pm1_en & PWRBTN;
}

void acpi_pm_event(struct acpi_pm *pm, unsigned gpe)
{
    QZ_LOCKED(&pm->lock);

    assert(gpe < ACPI_GPES);
    pm->gpe[gpe / 8] |= 1 << gpe % 8;
    update(pm);
}

void acpi_pm_map(struct acpi_pm *pm, uint16_t base, bool enabled)
{
    struct bus_region region = {
        base & ~(BLOCK_SIZE - 1), BLOCK_SIZE, &ops, pm, &pm->lock, "acpi-pm"};
    QZ_LOCKED(&pm->lock);

    if (pm->mapped)
        bus_remove(pm->machine->pio, pm->base, BLOCK_SIZE);
    pm->mapped = enabled && bus_add(pm->machine->pio, &region) == 0;
    pm->base = region.base;
    if (enabled && !pm->mapped)
        qz_guest_warn("acpi: PMBASE 0x%x collides with another device; the block stays hidden",
                      base);
}

void acpi_pm_state(struct acpi_pm *pm, struct qz_state *s)
{
    QZ_LOCKED(&pm->lock);

    qz_state_group(s, "acpi_pm");
    QZ_STATE_ANY(s, "pm1_sts", pm->pm1_sts);
    QZ_STATE_ANY(s, "pm1_en", pm->pm1_en);
    QZ_STATE_ANY(s, "pm1_cnt", pm->pm1_cnt);
    QZ_STATE_ANY(s, "smi_en", pm->smi_en);
    qz_state_data(s, "gpe", pm->gpe, sizeof(pm->gpe));
    qz_state_end(s);
    if (qz_state_loading(s) && !qz_state_failed(s))
        update(pm); /* line and timer follow from the registers */
}

void acpi_pm_reset(struct acpi_pm *pm)
{
    {
        QZ_LOCKED(&pm->lock);
        pm->pm1_sts = pm->pm1_en = 0;
        pm->pm1_cnt = SCI_EN;
        pm->smi_en = 0;
        memset(pm->gpe, 0, sizeof(pm->gpe));
        update(pm);
    }
    acpi_pm_map(pm, ACPI_PM_BASE, true);
}

int acpi_pm_new(struct acpi_pm **out, struct machine *m, struct qz_error *err)
{
    struct acpi_pm *pm = calloc(1, sizeof(*pm));

    if (!pm)
        return qz_fail(err, -ENOMEM, "acpi: no memory");
    pm->machine = m;
    pthread_mutex_init(&pm->lock, NULL);
    irq_line_init(&pm->sci, m->irq, ACPI_SCI_GSI);
    vm_timer_init(&pm->overflow, m->clock, on_overflow);
    acpi_pm_reset(pm);
    *out = pm;
    return 0;
}

void acpi_pm_free(struct acpi_pm *pm)
{
    if (!pm)
        return;
    vm_timer_cancel(&pm->overflow);
    pthread_mutex_destroy(&pm->lock);
    free(pm);
}
