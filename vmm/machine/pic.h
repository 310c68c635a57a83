/* pic.h - the pair of 8259A interrupt controllers of a PC (Intel 8259A data sheet, ICH9 §13.4). */
#ifndef VMM_PIC_H
#define VMM_PIC_H

#include <queztl/state.h>

#include "machine/bus.h"

/* One controller. All under the fabric's lock. */
struct pic_chip {
    uint8_t irr, isr, imr, lines; /* lines: levels of the input pins */
    uint8_t elcr;                 /* level-triggered inputs */
    uint8_t base;                 /* ICW2 */
    uint8_t priority;             /* the input of highest priority */
    uint8_t init_step;            /* next ICW expected: 0 none */
    bool icw4_needed, auto_eoi, rotate_on_auto_eoi, special_mask, poll, read_isr, fully_nested,
        single;
};

struct pic {
    struct pic_chip chip[2];
    bool output;
    void (*output_changed)(void *context, bool level); /* INTR towards CPU 0; fabric's lock held */
    void *context;
    pthread_mutex_t *lock;
};

int pic_init(struct pic *p, struct bus *pio, pthread_mutex_t *lock,
             void (*output_changed)(void *, bool), void *context);
void pic_reset(struct pic *p);
void pic_set(struct pic *p, unsigned irq, bool level); /* irq 0 to 15 */
uint8_t pic_acknowledge(struct pic *p); /* INTA cycle: the vector, spurious ones included */
void pic_state(struct pic *p, struct qz_state *s); /* saved or loaded, lock held */

#endif
