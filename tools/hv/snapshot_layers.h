/*
 * snapshot_layers.h - a machine's memory from the layers that it hands out, as one file
 * (vm/vm_snapshot.h).
 */
#ifndef TOOLS_SNAPSHOT_LAYERS_H
#define TOOLS_SNAPSHOT_LAYERS_H

#include <queztl/base.h>

/*
 * A sealed file of `size` bytes out of `count` layers and, if they are several, the descriptor of
 * their table of chunks behind them; none of them is closed. One layer is passed on as it is. The
 * bytes are another program's: what does not fit together is -EREMOTEIO.
 */
int snapshot_layers_join(const int *fd, unsigned fds, uint64_t size, uint64_t chunk,
                         struct qz_error *err);

#endif
