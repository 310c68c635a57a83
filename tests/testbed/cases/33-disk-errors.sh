# limit: 240 s
# What the guest sees of a disk that fails: with stop the machine pauses on a full disk, says why, and after room was made goes on
# with nothing lost; with report and ignore the guest is told, or is not.
. "$(dirname "$0")/../lib.sh"
truncate -s 64M disk

# The first four writes behind 16 MiB find the disk full; each is tried again, and the fifth time there is room.
start --cpus 2 --disk "$work/disk,on-error=stop,inject=write:error=ENOSPC:from=16777216:count=4" -- sh -c '
    head -c $((4 << 20)) /dev/urandom >/tmp/data
    dd if=/tmp/data of=/dev/vda bs=64k seek=256 conv=fsync 2>/dev/null && echo "wrote $(sha256sum </tmp/data | cut -d" " -f1)"'
steps=200
until [ -S "$socket" ]; do
    steps=$((steps - 1))
    [ $steps -gt 0 ] || fail "no control socket"
    sleep 0.05
done
resumed=0
until grep -q '^wrote' "$log"; do # a paused machine says nothing: its console is not waited for
    alive || break
    info=$(control '{"cmd":"info"}') || break
    case $info in
    *'"paused_by":{"cause":"disk"'*'write of '*'No space left on device'*)
        resumed=$((resumed + 1))
        [ $resumed -le 8 ] || fail "paused more often than the disk failed: $info"
        control '{"cmd":"resume"}' >/dev/null
        ;;
    *'"paused_by"'*) fail "paused for another cause: $info" ;;
    esac
    sleep 0.05
done
ended || fail "stop: exit code $?"
[ $resumed -ge 1 ] || fail "the machine never paused"
grep -q "disk $work/disk: write of .*No space left on device: .* make room, then resume" "$log" || fail "no line about the full disk"
expect "stop: what was written" "$(said wrote)" "$(dd if=disk bs=1M skip=16 count=4 2>/dev/null | sha256sum | cut -d' ' -f1)"

# Told: the guest's write fails, and so does its read.
guest --disk "$work/disk,inject=any:error=EIO:from=33554432" -- sh -c '
    dd if=/dev/zero of=/dev/vda bs=64k seek=512 count=1 oflag=direct 2>/dev/null || echo "write failed"
    dd if=/dev/vda of=/dev/null bs=64k skip=512 count=1 iflag=direct 2>/dev/null || echo "read failed"' >"$log" 2>&1 ||
    fail "report: exit code $?"
grep -q '^write failed' "$log" && grep -q '^read failed' "$log" || fail "the guest was not told"

# Not told of writes, and told of reads.
start --disk "$work/disk,on-error=ignore,inject=any:error=EIO:from=33554432" -- sh -c '
    dd if=/dev/zero of=/dev/vda bs=64k seek=512 count=3 oflag=direct 2>/dev/null && echo "write passed"
    dd if=/dev/vda of=/dev/null bs=64k skip=512 count=1 iflag=direct 2>/dev/null || echo "read failed"
    echo "ready"; sleep 100'
wait_for '^ready'
grep -q '^write passed' "$log" && grep -q '^read failed' "$log" || fail "ignore: not what is promised"
expect "ignored errors" 3 "$(control '{"cmd":"metrics"}' | field ignored)"
control '{"cmd":"stop"}' >/dev/null
ended || fail "ignore: exit code $?"
