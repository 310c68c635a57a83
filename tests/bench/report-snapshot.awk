# report-snapshot.awk - the table and the goals of snapshots and clones from their samples (tests/bench/snapshot says what they are).
#
# awk -v json=FILE -f figures.awk -f report-snapshot.awk SAMPLES

{
    value[$1, $2, $3] = $4
    if ($3 > rounds) rounds = $3
}

# The figure that so many of a hundred rounds do not exceed (nearest rank).
function percentile(who, key, p,    i, j, n, t, list, rank) {
    for (i = 1; i <= rounds; i++) {
        if (!((who, key, i) in value)) continue
        t = value[who, key, i] + 0
        for (j = n++; j > 0 && list[j] > t; j--) list[j + 1] = list[j]
        list[j + 1] = t
    }
    if (n == 0) return ""
    rank = int(n * p / 100)
    if (rank < n * p / 100) rank++
    return list[rank]
}

function row(what, who, key, scale,    p50, p99) {
    p50 = percentile(who, key, 50)
    if (p50 == "") return
    p99 = percentile(who, key, 99)
    printf "%-8s %-58s %10.2f %10.2f\n", who, what, p50 / scale, p99 / scale
    rows_json = rows_json (rows_json == "" ? "" : ",\n    ") sprintf("\"%s.%s\": {\"p50\": %s, \"p99\": %s}", who, key, number(p50), number(p99))
}

END {
    printf "\n%-8s %-58s %10s %10s\n", "guest", "1 GiB; ms, or MiB for each clone", "p50", "p99"
    guests = split("bare linux", names, " ")
    for (i = 1; i <= guests; i++) {
        who = names[i]
        row("pause of the first snapshot of a running machine", who, "pause.first", 1)
        row("pause of a later one", who, "pause.again", 1)
        row("run --snapshot to resumed", who, "restore.resumed", 1)
        row("run --snapshot to the first guest instruction", who, "restore.first", 1)
        row("run --snapshot to the first reply", who, "restore.reply", 1)
        row("the same, all of memory read first (--load eager)", who, "restore.eager", 1)
        row("the same, memory read as needed (--load lazy)", who, "restore.lazy", 1)
        row("the same, with the recording of an earlier machine", who, "restore.recorded", 1)
        row("--load lazy: faults until all is there (a number)", who, "faults.lazy", 1)
        row("--load lazy: read because of them, MiB", who, "bytes.lazy", 1024)
        row("--load lazy: the longest one waited", who, "waited.lazy", 1)
        row("with the recording: faults (a number)", who, "faults.recorded", 1)
        row("with the recording: read because of them, MiB", who, "bytes.recorded", 1024)
        row("10 clones: the first one replied", who, "clones10.first_ms", 1)
        row("10 clones: all of them replied", who, "clones10.all_ms", 1)
        row("100 clones: the first one replied", who, "clones100.first_ms", 1)
        row("100 clones: all of them replied", who, "clones100.all_ms", 1)
        row("10 clones: private memory when idle", who, "clones10.private_kib", 1024)
        row("10 clones: faulted in since the start", who, "clones10.faulted_kib", 1024)
        row("100 clones: private memory when idle", who, "clones100.private_kib", 1024)
        row("100 clones: the same, the largest", who, "clones100.private_max_kib", 1024)
        row("100 clones: faulted in since the start", who, "clones100.faulted_kib", 1024)
    }
    goal("pause of a live snapshot, p50", percentile("bare", "pause.first", 50), 10, 1, "ms")
    goal("the same of a later one, p50", percentile("bare", "pause.again", 50), 10, 1, "ms")
    goal("restore to first reply, p50", percentile("bare", "restore.reply", 50), 15, 1, "ms")
    goal("10 clones, all replied, p50", percentile("bare", "clones10.all_ms", 50), 250, 1, "ms")
    goal("100 clones, all replied, p50", percentile("bare", "clones100.all_ms", 50), 2500, 1, "ms")
    goal("private memory of an idle clone, 100 of them", scaled(percentile("bare", "clones100.private_max_kib", 50), 1024), 2, 1, "MiB")
    goals_table("goal (snapshots, bare-metal guest)")
    printf "{\"figures\": {\n    %s},\n  \"goals\": [%s]}\n", rows_json, goal_json >json
}
