# limit: 900 s
# Clones are machines of their own: Linux sees another host name, MAC address and context id in each, gets a lease and reaches
# the host with them, and each one's vsock socket leads to itself. The machine that they are of stays what it is.
. "$(dirname "$0")/../lib.sh"
mkdir www
echo whole >www/file
busybox httpd -f -p 127.0.0.1:8083 -h "$work/www" &
helpers=$!
start --cpus 2 --memory 192M --name origin --net user,mac=52:54:00:00:00:17 --vsock "5,$work/origin.vsock" -- sh -c '
    wait-net
    echo "me ready"
    while :; do
        got=$(wget -q -O /tmp/got http://10.0.2.2:8083/file && cat /tmp/got)
        echo "is $(hostname) $(cat /etc/hostname) $(cat /sys/class/net/eth0/address) $(vsock cid) ${got:-nothing} $(ip -4 addr show eth0 | grep -c inet)"
        usleep 1000000
    done'
wait_for "^me ready"

# becomes FILE WORDS: until the guest says so of itself; the last words are the host's file and the lease.
becomes() {
    steps=2400
    until tr -d '\r\000' <"$1" | grep -q "^is $2 whole 1\$"; do
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "$1 is not \"$2\": $(tail -n 3 "$1")"
        sleep 0.05
    done
}
agent() { # agent SOCKET REQUEST: the answer's line
    printf 'CONNECT 902\n%s\n' "$2" | timeout 120 "$ctl" --stream "$1" | sed -n 2p
}
origin="guest guest 52:54:00:00:00:17 5"
becomes "$log" "$origin"
agent "$work/origin.vsock" '{"cmd":"ping"}' | grep -q '"boot_id":"[0-9a-f-]\{36\}"' || fail "the agent does not answer"

# From the running machine.
mkdir clones
"$hv" clone "$socket" --count 3 --folder clones >list 2>clone.err || fail "clone: $(cat clone.err)"
helpers="$helpers $(awk '{ print $2 }' list | tr '\n' ' ')"
for i in 1 2 3; do
    awk -v i=$i 'NR == i { print $4, $5, $6, $8 }' list >row
    read -r mac cid path word <row
    [ "$word" = ok ] || fail "the agent of clone $i: $(cat list clone.err)"
    becomes clones/origin-$i.console "origin-$i origin-$i $mac $cid"
    # Asked again, through its own socket, it is that already; another guest would have to change.
    answer=$(agent "$path" "{\"cmd\":\"identity\",\"hostname\":\"origin-$i\",\"interfaces\":[{\"was\":\"52:54:00:00:00:17\",\"mac\":\"$mac\"}]}")
    expect "words of clone $i that say it is" 2 "$(echo "$answer" | grep -o '"already"' | wc -l)"
done
for column in 2 3 4 5 6; do
    expect "different ones in column $column" 3 "$(cut -f $column list | sort -u | wc -l)"
done
# Sent back to where it began it remembers to be the origin, and is told again.
awk 'NR == 2 { print $4, $5 }' list >row
read -r mac cid <row
"$hv" restore clones/origin-2.sock 2>restore.err || fail "restore: $(cat restore.err)"
expect "warnings of restore" "" "$(cat restore.err)"
: >clones/origin-2.console
becomes clones/origin-2.console "origin-2 origin-2 $mac $cid"
agent "$work/origin.vsock" '{"cmd":"ping"}' | grep -q '"ok":true' || fail "the origin's agent does not answer any more"
lines=$(wc -l <"$log")
steps=2400
until [ "$(wc -l <"$log")" -gt $((lines + 3)) ]; do
    steps=$((steps - 1))
    [ $steps -gt 0 ] || fail "the origin says nothing any more"
    sleep 0.05
done
expect "what the origin is" "is $origin whole 1" "$(tr -d '\r' <"$log" | tail -n +"$((lines + 2))" | grep '^is .*1$' | sort -u)"
for i in 1 2 3; do "$ctl" clones/origin-$i.sock '{"cmd":"stop"}' >/dev/null; done

# From a folder, as what is typed; and as json.
"$hv" snapshot "$socket" folder || fail "snapshot"
control '{"cmd":"stop"}' >/dev/null
ended || fail "stop: exit code $?"
"$hv" run --snapshot folder --name typed_name --net user,mac=52:54:00:00:00:18 --vsock "77,$work/typed.vsock" --timeout 600 \
    --control "$work/typed" </dev/null >typed.log 2>&1 &
typed=$!
helpers="$helpers $typed"
becomes typed.log "typed-name typed-name 52:54:00:00:00:18 77"
"$ctl" "$work/typed" '{"cmd":"stop"}' >/dev/null
wait $typed || fail "the machine from the folder ended with $?: $(tail -n 3 typed.log)"
mkdir json
"$hv" clone folder --folder json --format json >list.json 2>clone.err || fail "clone: $(cat clone.err)"
helpers="$helpers $(field pid <list.json)"
becomes json/origin-1.console "origin-1 origin-1 $(sed -n 's/^ *"\(52:[0-9a-f:]*\)".*/\1/p' list.json) $(field cid <list.json | tr -dc 0-9)"
"$ctl" json/origin-1.sock '{"cmd":"stop"}' >/dev/null
