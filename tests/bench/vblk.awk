# vblk.awk - the table and the goals of the virtio-blk driver from its samples (tests/bench/vblk says what they are).
#
# awk -v json=FILE -f figures.awk -f vblk.awk SAMPLES
# A figure is the median over the rounds. "Undisturbed" is the rate that one in twenty slices of 2 ms exceeds: on a machine that
# others use too, that is what the two processes do while each has a processor. SPDK is not in Debian, so it is not run beside ours: its
# figures are those of the project's anchors, measured on a machine like the one that these goals were set for.

function undisturbed(who, key) { return median(who, key ".undisturbed_iops") }

{
    value[$1, $2, $3] = $4
    if ($3 > rounds) rounds = $3
}

function row(server, key,    text) {
    if (median(server, key ".iops") == "") return
    printf "%-11s %-11s %9s %9s %8s %8s %9s %9s %9s %10s\n", server, key, figure(scaled(median(server, key ".iops"), 1000), "%.0f"),
        figure(scaled(undisturbed(server, key), 1000), "%.0f"), figure(median(server, key ".us"), "%.2f"),
        figure(median(server, key ".gbps"), "%.2f"), figure(scaled(median(server, key ".p50_ns"), 1000), "%.1f"),
        figure(scaled(median(server, key ".p99_ns"), 1000), "%.1f"), figure(scaled(median(server, key ".p999_ns"), 1000), "%.0f"),
        figure(median(server, key ".doorbells"), "%.3f")
    rows_json = rows_json (rows_json == "" ? "" : ",\n    ") sprintf("\"%s.%s\": {\"iops\": %s, \"undisturbed_iops\": %s, \"us\": %s, \"gbps\": %s, \"p50_ns\": %s, \"p99_ns\": %s, \"p999_ns\": %s}",
        server, key, number(median(server, key ".iops")), number(undisturbed(server, key)), number(median(server, key ".us")),
        number(median(server, key ".gbps")), number(median(server, key ".p50_ns")), number(median(server, key ".p99_ns")), number(median(server, key ".p999_ns")))
}

END {
    servers = split("qemu-null qemu-raw own-split own-packed", names, " ")
    keys = split("read.d1 read.d32 read.d128 read.128k write.d1 write.d32 write.d128 write.128k read.q2 read.q4", key, " ")
    printf "\n%-11s %-11s %9s %9s %8s %8s %9s %9s %9s %10s\n", "vhost-user", "4 KiB", "kIOPS", "undisturb.", "us each", "GB/s", "p50 us", "p99 us", "p99.9 us", "doorbells"
    for (i = 1; i <= servers; i++)
        for (j = 1; j <= keys; j++) row(names[i], key[j])
    printf "ring operations, depth 128: split %s ns and %s instructions a request, packed %s ns and %s\n", figure(median("ring", "split.median"), "%.1f"),
        figure(median("ring", "split.instructions"), "%.0f"), figure(median("ring", "packed.median"), "%.1f"), figure(median("ring", "packed.instructions"), "%.0f")
    goal("null export of QEMU's daemon, read, depth 32, undisturbed (1.1 x SPDK)", scaled(undisturbed("qemu-null", "read.d32"), 1e6), 1.64, 0, "M")
    goal("the same, write", scaled(undisturbed("qemu-null", "write.d32"), 1e6), 1.58, 0, "M")
    goal("the same, depth 1, read, undisturbed (1.1 x SPDK's 263 k)", scaled(undisturbed("qemu-null", "read.d1"), 1e3), 289, 0, "k")
    goal("our driver and our server, read, depth 32, undisturbed", scaled(undisturbed("own-packed", "read.d32"), 1e6), 1.25, 0, "M")
    goal("the same, write", scaled(undisturbed("own-packed", "write.d32"), 1e6), 1.25, 0, "M")
    goal("the same, depth 1, median latency", scaled(median("own-packed", "read.d1.p50_ns"), 1e3), 1.5, 1, "us")
    x = undisturbed("own-packed", "read.128k")
    goal("the same, 128 KiB, read, undisturbed", x == "" ? "" : x * 131072 / 1e9, 7.5, 0, "GB/s")
    goal("packed over split, our server, read, depth 32, undisturbed", undisturbed("own-split", "read.d32") == "" ? "" : undisturbed("own-packed", "read.d32") / undisturbed("own-split", "read.d32"), 1, 0, "x")
    goal("ring operations split, depth 128, a request", median("ring", "split.median"), 60, 1, "ns")
    goal("ring operations packed, depth 128, a request", median("ring", "packed.median"), 45, 1, "ns")
    goal("ring operations, packed over split", paired("ring", "packed.median", "ring", "split.median"), 1, 1, "x")
    goals_table("goal (virtio-blk driver)")
    printf "{\"runs\": {\n    %s},\n  \"ring\": {\"split_ns\": %s, \"split_instructions\": %s, \"packed_ns\": %s, \"packed_instructions\": %s},\n  \"goals\": [%s]}\n",
        rows_json, number(median("ring", "split.median")), number(median("ring", "split.instructions")), number(median("ring", "packed.median")),
        number(median("ring", "packed.instructions")), goal_json >json
}
