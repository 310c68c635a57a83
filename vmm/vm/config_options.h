/*
 * config_options.h - a configuration as the options that make the same machine again.
 */
#ifndef VMM_CONFIG_OPTIONS_H
#define VMM_CONFIG_OPTIONS_H

#include <jansson.h>

#include "vm/config.h"

/*
 * A list of words, as queztl-vmm takes them: what the machine is, files by absolute names. Not what
 * it is attached to here: console, control socket, debugger, accelerator, time-out. Before
 * confinement. NULL: no memory.
 */
json_t *vm_config_options(const struct vm_config *c);
/* The words after "--", an empty list when there are none. */
json_t *vm_config_command(const struct vm_config *c);

#endif
