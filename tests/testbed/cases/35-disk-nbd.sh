# limit: 240 s
# A disk on an NBD server that is killed while the guest writes, and started again: the guest notices nothing. Away for longer
# than is said, the machine pauses, and goes on when the server is back.
. "$(dirname "$0")/../lib.sh"
[ -x /usr/bin/nbdkit ] || skip "nbdkit is not there"
truncate -s 64M disk
server=
serve() {
    rm -f nbd pid
    nbdkit -f -U "$work/nbd" -P "$work/pid" file "$work/disk" &
    server=$!
    helpers="${helpers:-} $server"
    steps=200
    until [ -s pid ]; do
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "nbdkit does not start"
        sleep 0.05
    done
}
vanish() {
    kill -9 "$server"
    wait "$server" 2>/dev/null || true
}

serve
start --cpus 2 --disk "nbd+unix:///?socket=$work/nbd,reconnect=2,on-error=stop" -- sh -c '
    head -c $((8 << 20)) /dev/urandom >/tmp/data
    echo "begins"
    for i in 0 1 2 3 4 5; do
        dd if=/tmp/data of=/dev/vda bs=64k seek=$((i * 128)) oflag=direct 2>/dev/null || echo "write failed"
        echo "round $i"
    done
    echo "data $(sha256sum </tmp/data | cut -d" " -f1)"
    echo "read $(dd if=/dev/vda bs=1M skip=40 count=8 2>/dev/null | sha256sum | cut -d" " -f1)"'
wait_for '^begins'
vanish
serve
wait_for '^round 1'
case $(control '{"cmd":"info"}') in *'"paused_by"'*) fail "paused although the server came back" ;; esac
vanish
steps=200
until control '{"cmd":"info"}' | grep -q '"paused_by":{"cause":"disk"'; do
    alive || fail "the machine ended"
    steps=$((steps - 1))
    [ $steps -gt 0 ] || fail "the server is away and the machine does not pause"
    sleep 0.1
done
serve
control '{"cmd":"resume"}' >/dev/null
wait_for '^read '
ended || fail "exit code $?"
! grep -q '^write failed' "$log" || fail "the guest saw an error"
expect "what the guest reads back" "$(said data)" "$(said read)"
for i in 0 3 5; do
    expect "part $i of the file" "$(said data)" "$(dd if=disk bs=1M skip=$((i * 8)) count=8 2>/dev/null | sha256sum | cut -d' ' -f1)"
done
