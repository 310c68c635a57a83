# Network without privileges (libslirp): the guest fetches a file from a server on the host's loopback, the host fetches one from
# the guest through a forwarded port. Checksums both ways.
. "$(dirname "$0")/../lib.sh"
mkdir www
head -c 4M /dev/urandom >www/file
busybox httpd -f -p 127.0.0.1:8081 -h "$work/www" &
helpers=$!
start --cpus 2 --net user,forward=8082:80 -- sh -c '
    set -e
    wait-net
    wget -q -O /tmp/file http://10.0.2.2:8081/file
    echo "got $(sha256sum </tmp/file | cut -d" " -f1)"
    mkdir /tmp/www
    head -c $((2 << 20)) /dev/urandom >/tmp/www/back
    echo "made $(sha256sum </tmp/www/back | cut -d" " -f1)"
    httpd -p 80 -h /tmp/www
    echo serving
    while :; do sleep 1; done'
wait_for "^serving"
expect "file fetched by the guest" "$(sha256sum <www/file | cut -d' ' -f1)" "$(said got)"
busybox wget -q -O back http://127.0.0.1:8082/back || fail "nothing came through the forwarded port"
expect "file fetched from the guest" "$(said made)" "$(sha256sum <back | cut -d' ' -f1)"
control '{"cmd":"stop"}' >/dev/null
ended || fail "stop: exit code $?"
