# limit: 300 s
# 64 vCPUs start, answer an IPI and sleep, by our own local APICs (as 70-cpus-64, without a kernel).
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../suite.sh"
suite_words="cpus=64 only=CPUs:" suite suite64 --cpus 64 --irqchip user
