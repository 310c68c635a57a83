# vsock both ways: the guest connects to a unix socket of the host that echoes; the host connects to an echo server in the guest.
. "$(dirname "$0")/../lib.sh"
"$ctl" --echo "$work/vs_1234" >echo.log &
helpers=$!
while ! grep -q listening echo.log; do sleep 0.05; done
start --vsock "5,$work/vs" -- sh -c '
    set -e
    head -c $((1 << 20)) /dev/urandom >/tmp/data
    vsock send 2 1234 </tmp/data >/tmp/back
    cmp /tmp/data /tmp/back && echo "echoed yes"
    vsock echo 4321'
wait_for "^listening"
expect "what the guest sent came back" yes "$(said echoed)"
head -c 1M /dev/urandom >data
{ echo "CONNECT 4321"; cat data; } | "$ctl" --stream "$work/vs" >answer || fail "no connection to the guest's port"
head -1 answer | grep -q '^OK ' || fail "the monitor answered CONNECT with: $(head -c 100 answer)"
tail -c 1048576 answer | cmp - data || fail "what came back from the guest differs"
ended || fail "exit code $?"

# A port nobody listens on is refused, not hung.
code=0
guest --vsock "5,$work/vs" -- sh -c 'vsock send 2 999 </dev/null' >"$log" 2>&1 || code=$?
expect "connection to a port without listener" 1 "$code"
