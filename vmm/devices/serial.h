/* serial.h - a 16550A UART on an ISA port, its line side a terminal. */
#ifndef VMM_SERIAL_H
#define VMM_SERIAL_H

#include "machine/machine.h"
#include "machine/terminal.h"

struct serial;

/* COM1 is port 0x3f8, IRQ 4. terminal may be NULL: output vanishes, nothing is typed. */
int serial_new(struct serial **s, struct machine *m, uint16_t port, unsigned irq,
               struct terminal *terminal, struct qz_error *err);
void serial_free(struct serial *s);
void serial_reset(struct serial *s);
void serial_state(struct serial *serial,
                  struct qz_state *s); /* saved or loaded, the clock stands */

#endif
