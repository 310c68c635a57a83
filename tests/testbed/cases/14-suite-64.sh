# limit: 600 s
# The bare-metal suite for privileged behaviour, 64-bit payload (tests/guest/suite): on this machine itself by the software CPU,
# translated and interpreted; in the testbed by KVM. The same answers are wanted everywhere; `tcg` tells the payload which checks
# the testbed's emulated processor leaves out.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../suite.sh"
suite_words="cpus=2" suite suite64 --cpus 2
