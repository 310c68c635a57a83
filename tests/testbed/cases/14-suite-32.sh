# limit: 600 s
# The bare-metal suite, 32-bit payload: segments, call gates, task switches, virtual-8086 and real mode, 32-bit and PAE paging.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../suite.sh"
suite suite32
