# report-disks.awk - the tables of `make bench` about disks from samples (tests/bench/disks says what they are), and
# build/bench-disks.json.
#
# awk -v json=FILE -v load=TEXT -f figures.awk -f report-disks.awk SAMPLES
# A figure is the median over the rounds, a ratio the median of the ratios within each round. Goals are about requests a second by
# the clock; beside them stands the ratio of the servers' processor time for a request, all their threads together, which a busy
# host disturbs least.

function thousands(x) { return x == "" ? "-" : sprintf("%.1f", x / 1000) }

{
    value[$1, $2, $3] = $4
    if ($3 > rounds) rounds = $3
}
$2 ~ /^disk\./ {
    split($2, part, ".")
    if (part[2] !~ /^(tib|shrink|instructions)$/ && !((part[2]) in place_known)) {
        place_known[part[2]] = 1
        places[++place_count] = part[2]
    }
}

function served_row(place, case_name, op, peer,    key, ours, theirs, by_clock, by_cpu) {
    key = "disk." place "." case_name "." op
    ours = median("ours", key)
    theirs = median(peer, key)
    if (ours == "" && theirs == "") return
    by_clock = paired("ours", key, peer, key)
    by_cpu = paired(peer, "cpu." key, "ours", "cpu." key)
    printf "%-6s %-9s %-6s %-9s %9s %9s %8s %8s %10s %10s\n", place, case_name, op, peer, thousands(ours), thousands(theirs), figure(by_clock, "%.2f x"),
        figure(by_cpu, "%.2f x"), figure(median("ours", "cpu." key) / 1000, "%.2f"), figure(median(peer, "cpu." key) / 1000, "%.2f")
    rows = rows (rows == "" ? "" : ",\n    ") sprintf("{\"place\": \"%s\", \"case\": \"%s\", \"op\": \"%s\", \"peer\": \"%s\", \"ours_iops\": %s, \"peer_iops\": %s, \"ratio\": %s, \"ratio_by_cpu\": %s}",
        place, case_name, op, peer, number(ours), number(theirs), number(by_clock), number(by_cpu))
}

function convert_row(place, kind,    key, ours, theirs) {
    key = "disk." place "." kind
    ours = median("ours", key)
    theirs = median("qemu-img", key)
    if (ours == "" && theirs == "") return
    printf "%-6s %-16s %9s %9s %8s%s\n", place, kind, figure(ours, "%.0f"), figure(theirs, "%.0f"), figure(paired("qemu-img", key, "ours", key), "%.2f x"),
        kind == "compress" ? "   bytes, ours/theirs: " figure(paired("ours", key "-bytes", "qemu-img", key "-bytes"), "%.3f") : ""
    rows = rows (rows == "" ? "" : ",\n    ") sprintf("{\"place\": \"%s\", \"case\": \"%s\", \"ours_ms\": %s, \"peer_ms\": %s, \"ratio\": %s}", place, kind,
        number(ours), number(theirs), number(paired("qemu-img", key, "ours", key)))
}

# The goal of a served case: the worse of reads and writes.
function served_goal(place, what, case_name, ops, peer, limit,    i, n, op, key, got, low, cpu) {
    n = split(ops, op, " ")
    for (i = 1; i <= n; i++) {
        key = "disk." place "." case_name "." op[i]
        got = paired("ours", key, peer, key)
        if (got != "" && (low == "" || got < low)) {
            low = got
            cpu = paired(peer, "cpu." key, "ours", "cpu." key)
        }
    }
    goal(what " (" place ")", low, limit, 0, "x", cpu)
}

END {
    printf "\n%-6s %-9s %-6s %-9s %9s %9s %8s %8s %10s %10s\n", "disk", "", "4 KiB", "peer", "ours k/s", "peer k/s", "ratio", "by CPU", "ours us", "peer us"
    for (p = 1; p <= place_count; p++) {
        split("raw qcow2 luks", both, " ")
        for (i = 1; i <= 3; i++) {
            served_row(places[p], both[i], "read", "qsd")
            served_row(places[p], both[i], "write", "qsd")
        }
        served_row(places[p], "first", "write", "qsd")
        served_row(places[p], "cow", "write", "qsd")
        served_row(places[p], "zlib", "read", "qsd")
        served_row(places[p], "nbd", "read", "nbdkit")
        served_row(places[p], "nbd", "write", "nbdkit")
    }
    printf "\n%-6s %-16s %9s %9s %8s\n", "convert", "256 MiB", "ours ms", "qemu-img", "ratio"
    for (p = 1; p <= place_count; p++) {
        convert_row(places[p], "to-qcow2")
        convert_row(places[p], "to-raw")
        convert_row(places[p], "compress")
    }
    printf "\ninstructions of the engine for a request: "
    n = split("raw.read raw.write qcow2.read qcow2.write first.write luks.read luks.write", names, " ")
    for (i = 1; i <= n; i++) {
        got = median("ours", "disk.instructions." names[i])
        printf "%s%s %s", (i > 1 ? ", " : ""), names[i], figure(got, "%.0f")
        costs = costs (costs == "" ? "" : ", ") sprintf("\"%s\": %s", names[i], number(got))
    }
    printf "\nimage of 1 TiB, random reads with 32 MiB for metadata: ours %s k/s, qemu-storage-daemon %s k/s\n", thousands(median("ours", "disk.tib.read")),
        thousands(median("qsd", "disk.tib.read"))
    for (p = 1; p <= place_count; p++) {
        served_goal(places[p], "raw, times qemu-storage-daemon", "raw", "read write", "qsd", 1.8)
        served_goal(places[p], "qcow2, times qemu-storage-daemon", "qcow2", "read write", "qsd", 1.8)
        goal("qcow2 reads, part of our raw (" places[p] ")", paired("ours", "disk." places[p] ".qcow2.read", "ours", "disk." places[p] ".raw.read"), 0.85, 0, "x", "")
        served_goal(places[p], "first write into qcow2", "first", "write", "qsd", 3)
        served_goal(places[p], "copy-on-write over a backing file", "cow", "write", "qsd", 2)
        served_goal(places[p], "LUKS", "luks", "read write", "qsd", 3.5)
        served_goal(places[p], "reads of zlib-compressed clusters", "zlib", "read", "qsd", 3)
        served_goal(places[p], "NBD, times nbdkit's file plugin", "nbd", "read write", "nbdkit", 1.3)
        goal("convert raw to qcow2, times qemu-img (" places[p] ")", paired("qemu-img", "disk." places[p] ".to-qcow2", "ours", "disk." places[p] ".to-qcow2"), 1, 0, "x", "")
        goal("convert qcow2 to raw, times qemu-img (" places[p] ")", paired("qemu-img", "disk." places[p] ".to-raw", "ours", "disk." places[p] ".to-raw"), 1, 0, "x", "")
        goal("convert zlib-compressed, times qemu-img (" places[p] ")", paired("qemu-img", "disk." places[p] ".compress", "ours", "disk." places[p] ".compress"), 2, 0, "x", "")
    }
    goal("cache from 256 to 16 MiB under load", median("ours", "disk.shrink"), 50, 1, "ms", "")
    goal("memory of a server of a 1 TiB image, over QEMU's", paired("ours", "disk.tib.own_kib", "qsd", "disk.tib.own_kib"), 1, 1, "x", "")
    goals_table("goal")
    member("disks", "[\n    " rows "]")
    member("instructions", "{" costs "}")
    member("goals", "[" goal_json "]")
    member("host_load", "\"" load "\"")
    printf "{\n%s\n}\n", out >json
}
