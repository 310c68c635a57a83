# TAP: a file over TCP in both directions between the host and the guest, large packets included.
. "$(dirname "$0")/../lib.sh"
[ -c /dev/net/tun ] || skip "no /dev/net/tun"
ip link del qztap0 2>/dev/null || : # left by a case that was killed
ip tuntap add dev qztap0 mode tap || skip "no TAP device can be made here"
ip addr add 192.168.77.1/24 dev qztap0
ip link set qztap0 up
mkdir www
head -c 8M /dev/urandom >www/file
busybox httpd -f -p 192.168.77.1:8081 -h "$work/www" &
helpers=$!
start --cpus 2 --net tap:qztap0 -- sh -c '
    set -e
    killall udhcpc
    ip addr add 192.168.77.2/24 dev eth0
    ping -c 3 -s 1400 192.168.77.1
    wget -q -O /tmp/file http://192.168.77.1:8081/file
    echo "got $(sha256sum </tmp/file | cut -d" " -f1)"
    mkfifo /tmp/open
    nc -l -p 9000 </tmp/open >/tmp/back & # until the host closes
    exec 3>/tmp/open # the end of its own input would end the connection
    until cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q ":2328 .* 0A "; do sleep 0.05; done # port 9000, LISTEN
    echo listening
    wait
    echo "back $(sha256sum </tmp/back | cut -d" " -f1)"'
wait_for "^listening"
busybox nc 192.168.77.2 9000 <www/file || fail "the guest does not take connections"
ended || fail "exit code $?"
ip link del qztap0
sum=$(sha256sum <www/file | cut -d' ' -f1)
expect "file fetched by the guest" "$sum" "$(said got)"
expect "file sent to the guest" "$sum" "$(said back)"
