/*
 * pic.c - the pair of 8259A interrupt controllers (pic.h).
 *
 * The second chip's output is input 2 of the first. Priorities rotate: `priority` is the input that
 * ranks first. The edge or level choice of ICW1 does not exist in a PC: ELCR makes it for each
 * input. An edge stays remembered until it is taken even when the input has fallen since (the real
 * chip then answers with vector 7), because a pulse of ours is shorter than any acknowledge cycle.
 */
#include "machine/pic.h"

enum { CASCADE = 2, SPURIOUS = 7 };
enum { ICW1_INIT = 0x10, ICW1_ICW4 = 1, ICW1_SINGLE = 2 };
enum { ICW4_AUTO_EOI = 2, ICW4_FULLY_NESTED = 0x10 };
enum {
    OCW3 = 8,
    OCW3_POLL = 4,
    OCW3_READ = 2,
    OCW3_READ_ISR = 1,
    OCW3_SMM_SET = 0x40,
    OCW3_SMM = 0x20
};

/* Rank of the most urgent set bit: 0 is the first; 8 when there is none. */
static unsigned rank(const struct pic_chip *c, uint8_t bits)
{
    for (unsigned i = 0; i < 8; i++)
        if (bits >> ((c->priority + i) & 7) & 1)
            return i;
    return 8;
}

/* The input to serve now, or -1. */
static int pending(const struct pic_chip *c, bool first)
{
    uint8_t in_service = c->isr;
    unsigned best = rank(c, c->irr & ~c->imr);

    if (c->special_mask)
        in_service &= ~c->imr;
    if (first && c->fully_nested) /* the second chip may interrupt its own handler */
        in_service &= ~(1 << CASCADE);
    return best < rank(c, in_service) ? (int)((c->priority + best) & 7) : -1;
}

static void chip_set(struct pic_chip *c, unsigned input, bool level)
{
    uint8_t bit = 1 << input;

    if (c->elcr & bit)
        c->irr = level ? c->irr | bit : c->irr & ~bit;
    else if (level && !(c->lines & bit))
        c->irr |= bit;
    c->lines = level ? c->lines | bit : c->lines & ~bit;
}

static void update(struct pic *p)
{
    bool level;

    /*
     * The cascade follows the second chip at any time, else a request that waits behind another one
     * there (automatic EOI, special mask) would make no edge and be lost.
     */
    if (pending(&p->chip[1], false) >= 0)
        p->chip[0].irr |= 1 << CASCADE;
    else
        p->chip[0].irr &= ~(1 << CASCADE);
    level = pending(&p->chip[0], true) >= 0;
    if (level != p->output) {
        p->output = level;
        p->output_changed(p->context, level);
    }
}

/* Marks an input as taken. */
static void take(struct pic_chip *c, unsigned input)
{
    if (c->auto_eoi) {
        if (c->rotate_on_auto_eoi)
            c->priority = (input + 1) & 7;
    } else {
        c->isr |= 1 << input;
    }
    if (!(c->elcr >> input & 1))
        c->irr &= ~(1 << input);
}

uint8_t pic_acknowledge(struct pic *p)
{
    int input = pending(&p->chip[0], true), second;
    uint8_t vector;

    if (input == CASCADE) {
        second = pending(&p->chip[1], false);
        if (second >= 0)
            take(&p->chip[1], second);
        vector = p->chip[1].base + (second >= 0 ? second : SPURIOUS);
    } else {
        vector = p->chip[0].base + (input >= 0 ? input : SPURIOUS);
    }
    if (input >= 0)
        take(&p->chip[0], input);
    update(p);
    return vector;
}

void pic_set(struct pic *p, unsigned irq, bool level)
{
    if (irq == CASCADE)
        return; /* not brought out */
    chip_set(&p->chip[irq >> 3], irq & 7, level);
    update(p);
}

static void chip_reset(struct pic_chip *c, uint8_t elcr)
{
    uint8_t lines = c->lines;

    *c = (struct pic_chip){.elcr = elcr, .lines = lines};
    c->irr = lines & elcr;
}

void pic_reset(struct pic *p)
{
    chip_reset(&p->chip[0], 0);
    chip_reset(&p->chip[1], 0);
    update(p);
}

static void end_of_interrupt(struct pic_chip *c, uint8_t command)
{
    unsigned r = rank(c, c->special_mask ? c->isr & ~c->imr : c->isr), level = command & 7;

    switch (command >> 5) {
    case 0: /* rotate in automatic EOI: clear */
    case 4: /* set */
        c->rotate_on_auto_eoi = command >> 7;
        break;
    case 1: /* non-specific */
    case 5: /* and rotate */
        if (r == 8)
            break;
        level = (c->priority + r) & 7;
        c->isr &= ~(1 << level);
        if (command >> 5 == 5)
            c->priority = (level + 1) & 7;
        break;
    case 3: /* specific */
        c->isr &= ~(1 << level);
        break;
    case 6: /* set priority */
        c->priority = (level + 1) & 7;
        break;
    case 7: /* specific and rotate */
        c->isr &= ~(1 << level);
        c->priority = (level + 1) & 7;
        break;
    }
}

static void write_command(struct pic_chip *c, uint8_t v)
{
    if (v & ICW1_INIT) {
        chip_reset(c, c->elcr);
        c->init_step = 2;
        c->icw4_needed = v & ICW1_ICW4;
        c->single = v & ICW1_SINGLE;
    } else if (v & OCW3) {
        if (v & OCW3_POLL)
            c->poll = true;
        if (v & OCW3_READ)
            c->read_isr = v & OCW3_READ_ISR;
        if (v & OCW3_SMM_SET)
            c->special_mask = v & OCW3_SMM;
    } else {
        end_of_interrupt(c, v);
    }
}

static void write_data(struct pic_chip *c, uint8_t v)
{
    switch (c->init_step) {
    case 2:
        c->base = v & 0xf8;
        c->init_step = c->single ? (c->icw4_needed ? 4 : 0) : 3;
        break;
    case 3: /* the cascade's wiring is fixed in a PC */
        c->init_step = c->icw4_needed ? 4 : 0;
        break;
    case 4:
        c->auto_eoi = v & ICW4_AUTO_EOI;
        c->fully_nested = v & ICW4_FULLY_NESTED;
        c->init_step = 0;
        break;
    default:
        c->imr = v;
    }
}

static uint64_t read_pic(struct pic *p, unsigned chip, uint64_t offset)
{
    struct pic_chip *c = &p->chip[chip];

    if (c->poll) { /* the next read of either port acknowledges */
        int input = pending(c, chip == 0);

        c->poll = false;
        if (input < 0)
            return 0;
        take(c, input);
        update(p);
        return 0x80 | input;
    }
    if (offset)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static uint64_t first_read(void *device, uint64_t offset, unsigned size)
{
    return read_pic(device, 0, offset);
}
static uint64_t second_read(void *device, uint64_t offset, unsigned size)
{
    return read_pic(device, 1, offset);
}

static void write_chip(struct pic *p, unsigned chip, uint64_t offset, uint8_t v)
{
    if (offset)
        write_data(&p->chip[chip], v);
    else
        write_command(&p->chip[chip], v);
    update(p);
}
static void first_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    write_chip(device, 0, offset, (uint8_t)value);
}
static void second_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    write_chip(device, 1, offset, (uint8_t)value);
}

/* Two bytes, which software may also access as one word. */
static uint64_t elcr_read(void *device, uint64_t offset, unsigned size)
{
    struct pic *p = device;

    return offset ? p->chip[1].elcr : p->chip[0].elcr | p->chip[1].elcr << 8;
}

static void set_elcr(struct pic_chip *c, uint8_t v)
{
    uint8_t changed = c->elcr ^ v;

    c->elcr = v;
    /* A level input requests by being high, an edge input not before it rises again. */
    c->irr = (c->irr & ~changed) | (c->lines & changed & v);
}

static void elcr_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pic *p = device;

    /* Timer, keyboard, cascade, RTC and coprocessor inputs are edge triggered for good. */
    if (offset == 0)
        set_elcr(&p->chip[0], value & 0xf8);
    if (offset == 1 || size == 2)
        set_elcr(&p->chip[1], (offset ? value : value >> 8) & 0xde);
    update(p);
}

int pic_init(struct pic *p, struct bus *pio, pthread_mutex_t *lock,
             void (*output_changed)(void *, bool), void *context)
{
    static const struct bus_ops first = {first_read, first_write},
                                second = {second_read, second_write},
                                elcr = {elcr_read, elcr_write};
    const struct bus_region regions[] = {
        {0x20, 2, &first, p, lock, "pic"},
        {0xa0, 2, &second, p, lock, "pic"},
        {0x4d0, 2, &elcr, p, lock, "elcr"},
    };

    *p = (struct pic){.output_changed = output_changed, .context = context, .lock = lock};
    for (size_t i = 0; i < QZ_ARRAY_LEN(regions); i++) {
        int r = bus_add(pio, &regions[i]);

        if (r < 0)
            return r;
    }
    return 0;
}

static void chip_state(struct pic_chip *c, struct qz_state *s)
{
    QZ_STATE_ANY(s, "irr", c->irr);
    QZ_STATE_ANY(s, "isr", c->isr);
    QZ_STATE_ANY(s, "imr", c->imr);
    QZ_STATE_ANY(s, "lines", c->lines);
    QZ_STATE_ANY(s, "elcr", c->elcr);
    QZ_STATE_ANY(s, "base", c->base);
    QZ_STATE(s, "priority", c->priority, 7);
    QZ_STATE(s, "init_step", c->init_step, 4);
    QZ_STATE(s, "icw4_needed", c->icw4_needed, 1);
    QZ_STATE(s, "auto_eoi", c->auto_eoi, 1);
    QZ_STATE(s, "rotate_on_auto_eoi", c->rotate_on_auto_eoi, 1);
    QZ_STATE(s, "special_mask", c->special_mask, 1);
    QZ_STATE(s, "poll", c->poll, 1);
    QZ_STATE(s, "read_isr", c->read_isr, 1);
    QZ_STATE(s, "fully_nested", c->fully_nested, 1);
    QZ_STATE(s, "single", c->single, 1);
}

void pic_state(struct pic *p, struct qz_state *s)
{
    for (unsigned i = 0; i < 2; i++) {
        qz_state_group_at(s, "pic", i);
        chip_state(&p->chip[i], s);
        qz_state_end(s);
    }
    if (qz_state_loading(s) && !qz_state_failed(s))
        update(p);
}
