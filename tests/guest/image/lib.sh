# lib.sh - what the builders of initial RAM disks share. Read with `.`; needs nothing but Debian's base system and cpio.

umask 022

# newest_kernel cloud|generic: path of the newest stock kernel of that flavour, nothing when there is none. Debian calls them
# -cloud-amd64 and -amd64, Ubuntu has -generic for both.
newest_kernel() {
    for file in /boot/vmlinuz-*; do
        [ -r "$file" ] || continue
        case $1:$file in
        cloud:*-cloud-amd64 | *-generic) echo "$file" ;;
        generic:*-cloud-amd64 | generic:*-rt-amd64) ;;
        generic:*-amd64) echo "$file" ;;
        esac
    done | sort -V | tail -1
}

static_busybox() {
    command -v /bin/busybox || command -v busybox || {
        echo "no busybox (apt install busybox-static)" >&2
        return 1
    }
}

# module_files MODULES_DIR NAME: files of a module and of what it needs, those first; nothing when it is built in.
module_files() {
    awk -v name="$2" '
        BEGIN { gsub(/_/, "[-_]", name) }
        $1 ~ "/" name "\\.ko(\\.[a-z]+)?:$" {
            for (i = NF; i > 1; i--) print $i
            print substr($1, 1, length($1) - 1)
            exit
        }' "$1/modules.dep"
}

# The name a module has once it is loaded.
module_name() {
    basename "$1" | sed 's/\.ko.*//; s/-/_/g'
}

# Distributions that compress their modules: busybox's insmod wants them plain.
copy_module() {
    case $1 in
    *.ko) cp "$1" "$2" ;;
    *.ko.xz) xz -dc "$1" >"$2" ;;
    *.ko.zst) zstd -qdc "$1" >"$2" ;;
    *.ko.gz) gzip -dc "$1" >"$2" ;;
    esac
}

# up_to_date OUTPUT STAMP
up_to_date() {
    [ -s "$1" ] && [ "$(cat "$1.stamp" 2>/dev/null)" = "$2" ]
}

# pack_cpio FOLDER OUTPUT STAMP: owner root, sorted, dated 1970, inode numbers counted from 1; then renamed into place.
pack_cpio() {
    mkdir -p "$(dirname "$2")"
    chmod 755 "$1"
    find "$1" -exec touch -h -d @0 {} +
    (cd "$1" && find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0) >"$2.new.$$"
    mv "$2.new.$$" "$2"
    echo "$3" >"$2.stamp"
}
