/* difference.h - two states beside each other, for a person. */
#ifndef LOCKSTEP_DIFFERENCE_H
#define LOCKSTEP_DIFFERENCE_H

#include "vm/state_log.h"

/* before: the last one in which they agreed. */
void difference_print(const struct state_record *translated, const struct state_record *interpreted,
                      const struct state_record *before);

#endif
